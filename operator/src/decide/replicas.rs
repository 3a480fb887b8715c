//! How many pods each role shall have now: what the spec asks, what suspending has come to, what the backlog calls for.

use std::collections::BTreeMap;
use std::time::Duration;

use streampress_crds::api::pipeline::{AutoscalingMode, CompressionPipelineSpec, WorkerSpec};
use streampress_crds::settings::Role;

use crate::decide::autoscale::{self, Decision, Policy, decide};
use crate::decide::drain::Drain;
use crate::resources::Replicas;
use crate::transport::Depths;

/// What the operator remembers of a pipeline between two looks.
#[derive(Clone, Debug, Default)]
pub struct Scaling {
    memories: BTreeMap<Role, autoscale::Memory>,
}

/// The pods of each role, and when to look again for one of them.
pub fn replicas(
    spec: &CompressionPipelineSpec,
    drain: Drain,
    depths: &Depths,
    current: impl Fn(Role) -> Option<i32>,
    scaling: &mut Scaling,
    now: Duration,
) -> (Replicas, Option<Duration>) {
    let mut replicas = Replicas::new();
    let mut look_again: Option<Duration> = None;
    if spec.generator.is_some() {
        replicas.insert(Role::Generator, i32::from(drain.takes_in()));
    }
    let workers = [
        (
            Role::Compressor,
            &spec.compressor,
            drain.takes_in(),
            depths.files,
        ),
        (
            Role::Decompressor,
            &spec.decompressor,
            drain.restores(),
            depths.chunks,
        ),
    ];
    for (role, worker, works, depth) in workers {
        if !works {
            replicas.insert(role, 0);
            scaling.memories.remove(&role);
            continue;
        }
        match worker.autoscaling.mode {
            AutoscalingMode::None => {
                replicas.insert(role, worker.replicas);
            }
            AutoscalingMode::External => {}
            AutoscalingMode::Internal => {
                let memory = scaling.memories.entry(role).or_default();
                let current = current(role).unwrap_or(start_with(worker));
                let backlog = depth.map(|depth| depth.total());
                let pods = match decide(
                    &Policy::from(&worker.autoscaling),
                    memory,
                    current,
                    backlog,
                    now,
                ) {
                    Decision::Keep => current,
                    Decision::Scale(pods) => pods,
                    Decision::Wait(time) => {
                        look_again = Some(look_again.map_or(time, |before| before.min(time)));
                        current
                    }
                };
                replicas.insert(role, pods);
            }
        }
    }
    (replicas, look_again)
}

/// Before anything is known.
fn start_with(worker: &WorkerSpec) -> i32 {
    worker.autoscaling.min
}

#[cfg(test)]
mod tests {
    use streampress_crds::api::pipeline::{AutoscalingSpec, GeneratorSpec};

    use super::*;
    use streampress_transport::Depth;

    fn spec(mode: AutoscalingMode) -> CompressionPipelineSpec {
        let autoscaling = AutoscalingSpec {
            mode,
            ..AutoscalingSpec::default()
        };
        let worker = WorkerSpec {
            replicas: 3,
            autoscaling,
            ..WorkerSpec::default()
        };
        CompressionPipelineSpec {
            generator: Some(GeneratorSpec::default()),
            compressor: worker,
            ..CompressionPipelineSpec::default()
        }
    }

    fn planned(spec: &CompressionPipelineSpec, drain: Drain, files: u64) -> Replicas {
        let depths = Depths {
            files: Some(Depth {
                visible: files,
                ..Depth::default()
            }),
            ..Depths::default()
        };
        replicas(
            spec,
            drain,
            &depths,
            |_| None,
            &mut Scaling::default(),
            Duration::ZERO,
        )
        .0
    }

    #[test]
    fn the_spec_says_how_many_unless_somebody_scales() {
        let of = |mode, files| {
            planned(&spec(mode), Drain::NotAsked, files)
                .get(&Role::Compressor)
                .copied()
        };
        assert_eq!(of(AutoscalingMode::None, 0), Some(3));
        assert_eq!(of(AutoscalingMode::External, 0), None);
        assert_eq!(of(AutoscalingMode::Internal, 0), Some(0));
        assert_eq!(of(AutoscalingMode::Internal, 41), Some(3));
    }

    #[test]
    fn suspending_stops_intake_first_and_the_restorers_last() {
        for mode in [
            AutoscalingMode::None,
            AutoscalingMode::Internal,
            AutoscalingMode::External,
        ] {
            let planned = |drain| {
                planned(&spec(mode), drain, 9)
                    .into_values()
                    .collect::<Vec<_>>()
            };
            assert_eq!(planned(Drain::Stopping), [0, 0, 1]);
            assert_eq!(planned(Drain::Emptying(None)), [0, 0, 1]);
            assert_eq!(planned(Drain::Drained), [0, 0, 0]);
        }
    }
}
