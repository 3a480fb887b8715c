//! How many pods each role shall have now: by the spec, by how far suspending has come, by the backlog.

use std::collections::BTreeMap;
use std::time::Duration;

use streampress_crds::Role;
use streampress_crds::api::pipeline::{AutoscalingMode, CompressionPipelineSpec};

use crate::decide::autoscale::{ScalingDecision, ScalingHistory, ScalingPolicy, decide};
use crate::decide::drain::Drain;
use crate::resources::Replicas;
use crate::transport::Depths;

/// What autoscaling remembers of a pipeline between two reconciles.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScalingHistories {
    roles: BTreeMap<Role, ScalingHistory>,
}

/// The pods of each role, and after how long to decide again for one of them. `has_receipts`: the pipeline has a queue for them.
pub(crate) fn replicas(
    spec: &CompressionPipelineSpec,
    has_receipts: bool,
    drain: Drain,
    depths: &Depths,
    current: impl Fn(Role) -> Option<i32>,
    histories: &mut ScalingHistories,
    now: Duration,
) -> (Replicas, Option<Duration>) {
    let mut replicas = Replicas::new();
    let mut decide_again: Option<Duration> = None;
    if spec.generator.is_some() || spec.source.scan_seconds > 0 {
        replicas.insert(Role::Generator, i32::from(drain.takes_in()));
    }
    let workers = [
        (
            Role::Compressor,
            &spec.compressor,
            drain.takes_in(),
            depths.of_compressors(),
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
            let takes_receipts = role == Role::Compressor && has_receipts && drain.takes_receipts();
            let is_ours = worker.autoscaling.mode != AutoscalingMode::External;
            match takes_receipts {
                // One is enough: a receipt is quickly taken.
                true if is_ours => drop(replicas.insert(role, 1)),
                // A number that is written here would be written again and again over the autoscaler's. Giving up the zero
                // of the step before starts the first pod (`RoleDeployment::first_replicas`); none of its pods packs.
                true => {}
                false => drop(replicas.insert(role, 0)),
            }
            histories.roles.remove(&role);
            continue;
        }
        match worker.autoscaling.mode {
            AutoscalingMode::None => {
                replicas.insert(role, worker.replicas);
            }
            AutoscalingMode::External => {}
            AutoscalingMode::Internal => {
                let history = histories.roles.entry(role).or_default();
                let current = current(role).unwrap_or(worker.autoscaling.min);
                let backlog = depth.map(|depth| depth.total());
                let pods = match decide(
                    &ScalingPolicy::from(&worker.autoscaling),
                    history,
                    current,
                    backlog,
                    now,
                ) {
                    ScalingDecision::Keep => current,
                    ScalingDecision::Scale(pods) => pods,
                    ScalingDecision::Wait(time) => {
                        decide_again = Some(decide_again.map_or(time, |before| before.min(time)));
                        current
                    }
                };
                replicas.insert(role, pods);
            }
        }
    }
    (replicas, decide_again)
}

#[cfg(test)]
mod tests {
    use streampress_crds::api::pipeline::{AutoscalingSpec, GeneratorSpec, WorkerSpec};

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
            receipts: Some(Depth::default()),
            ..Depths::default()
        };
        replicas(
            spec,
            true,
            drain,
            &depths,
            |_| None,
            &mut ScalingHistories::default(),
            Duration::ZERO,
        )
        .0
    }

    #[test]
    fn a_receipt_alone_starts_the_first_compressor() {
        let one = Depth {
            visible: 1,
            ..Depth::default()
        };
        let depths = Depths {
            files: Some(Depth::default()),
            receipts: Some(one),
            ..Depths::default()
        };
        let pods = |depths: Depths| {
            replicas(
                &spec(AutoscalingMode::Internal),
                true,
                Drain::NotSuspended,
                &depths,
                |_| Some(0),
                &mut ScalingHistories::default(),
                Duration::ZERO,
            )
            .0
        };
        assert_eq!(pods(depths)[&Role::Compressor], 1);
        let unknown = Depths {
            receipts: None,
            ..depths
        };
        assert_eq!(pods(unknown)[&Role::Compressor], 0);
    }

    #[test]
    fn a_scan_needs_a_generator_pod_although_no_compressor_runs() {
        let mut scanned = spec(AutoscalingMode::Internal);
        scanned.generator = None;
        scanned.compressor.autoscaling.min = 0;
        let idle = |spec: &CompressionPipelineSpec| planned(spec, Drain::NotSuspended, 0);
        assert_eq!(idle(&scanned).get(&Role::Generator), None);
        scanned.source.scan_seconds = 5;
        assert_eq!(idle(&scanned).get(&Role::Generator), Some(&1));
        assert_eq!(idle(&scanned).get(&Role::Compressor), Some(&0));
    }

    #[test]
    fn the_spec_says_how_many_unless_others_scale() {
        let of = |mode, files| {
            planned(&spec(mode), Drain::NotSuspended, files)
                .get(&Role::Compressor)
                .copied()
        };
        assert_eq!(of(AutoscalingMode::None, 0), Some(3));
        assert_eq!(of(AutoscalingMode::External, 0), None);
        assert_eq!(of(AutoscalingMode::Internal, 0), Some(0));
        assert_eq!(of(AutoscalingMode::Internal, 41), Some(3));
    }

    #[test]
    fn suspending_stops_packing_first_and_takes_receipts_until_the_last_file_is_restored() {
        for mode in [
            AutoscalingMode::None,
            AutoscalingMode::Internal,
            AutoscalingMode::External,
        ] {
            let planned = |drain| {
                let planned = planned(&spec(mode), drain, 9);
                Role::ALL.map(|role| planned.get(&role).copied())
            };
            // Another's autoscaler is stopped by zero, and not written over meanwhile.
            let one = (mode != AutoscalingMode::External).then_some(1);
            assert_eq!(planned(Drain::Stopping), [Some(0), Some(0), Some(1)]);
            for taking in [
                Drain::Emptying(None),
                Drain::TakingReceipts(Some(1)),
                Drain::Settling(Duration::ZERO),
            ] {
                assert_eq!(planned(taking), [Some(0), one, Some(1)]);
            }
            assert_eq!(planned(Drain::Drained), [Some(0); 3]);
        }
    }

    #[test]
    fn without_a_receipts_queue_no_compressor_runs_while_suspending() {
        let (replicas, _) = replicas(
            &spec(AutoscalingMode::None),
            false,
            Drain::Emptying(Some(1)),
            &Depths::default(),
            |_| None,
            &mut ScalingHistories::default(),
            Duration::ZERO,
        );
        assert_eq!(replicas[&Role::Compressor], 0);
    }
}
