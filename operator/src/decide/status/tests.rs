//! Which observation makes which status.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use streampress_crds::api::status::{
    CompressionPipelineStatus, Phase, ProgressStatus, RetentionStatus, SlotStatus, TransportStatus,
};
use streampress_crds::slot_health::{NeededService, OutageKind};
use streampress_crds::{Reason, Role};
use streampress_transport::Depth;

use super::{PipelineObservation, RETENTION_AT_RISK, RoleOutage, RoleState, stands, status};
use crate::decide::drain::Drain;
use crate::decide::retention::RetentionReport;
use crate::transport::problem::{Problem, Retry};
use crate::transport::{Depths, ReadyTransport, TransportState};

fn at(second: i64) -> Time {
    Time(Timestamp::from_second(second).expect("a time"))
}

fn role(role: Role) -> RoleState {
    RoleState {
        role,
        desired: 1,
        pods: 1,
        updated: 1,
        ready: 1,
        rolled_out: true,
        stuck: None,
        pod_problem: None,
        unscheduled: None,
        unavailable_since: None,
        namespace: "demo".into(),
        image: Some("streampress:1".into()),
        selector: "a=b".into(),
        slots: vec![SlotStatus {
            name: format!("stock-{role}-0"),
            holder: None,
        }],
    }
}

fn well() -> PipelineObservation {
    PipelineObservation {
        generation: Some(3),
        transport: TransportState::Ready(ReadyTransport::default()),
        depths: Depths {
            files: Some(Depth::default()),
            chunks: Some(Depth::default()),
            receipts: Some(Depth::default()),
            dead: Some(0),
            dead_chunks: Some(0),
        },
        roles: vec![role(Role::Compressor), role(Role::Decompressor)],
        progress: ProgressStatus {
            files_restored: 7,
            ..ProgressStatus::default()
        },
        outages: Some(Vec::new()),
        retention: Some(RetentionReport {
            status: RetentionStatus {
                hours: Some(24),
                ..RetentionStatus::default()
            },
            ..RetentionReport::default()
        }),
        ..PipelineObservation::default()
    }
}

fn status_of(seen: &PipelineObservation) -> CompressionPipelineStatus {
    status(seen, &CompressionPipelineStatus::default(), at(1))
}

fn holds(status: &CompressionPipelineStatus, type_: &str) -> String {
    let condition = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_);
    condition
        .map(|condition| condition.status.clone())
        .unwrap_or_default()
}

#[track_caller]
fn check(
    seen: PipelineObservation,
    phase: Phase,
    ready: &str,
    reconciling: &str,
    stalled: &str,
    says: &str,
) {
    let status = status_of(&seen);
    assert_eq!(status.phase, Some(phase));
    assert_eq!(
        (
            holds(&status, "Ready"),
            holds(&status, "Reconciling"),
            holds(&status, "Stalled")
        ),
        (ready.into(), reconciling.into(), stalled.into())
    );
    let message = status.message.unwrap_or_default();
    assert!(message.contains(says), "{message:?} does not say {says:?}");
}

fn failed(retry: Retry) -> TransportState {
    TransportState::Failed(Problem {
        reason: Reason::TransportFailed,
        message: "do this".into(),
        retry,
    })
}

/// A pod of the compressor has no image; so many pods of it are ready.
fn without_image(ready: i32) -> PipelineObservation {
    let compressor = RoleState {
        ready,
        updated: 0,
        rolled_out: false,
        pod_problem: Some("ErrImagePull: no such image".into()),
        ..role(Role::Compressor)
    };
    PipelineObservation {
        roles: vec![role(Role::Generator), compressor, role(Role::Decompressor)],
        ..well()
    }
}

#[test]
fn a_pod_without_an_image_is_named_at_once_and_a_role_without_any_pod_does_not_work() {
    check(
        without_image(0),
        Phase::Degraded,
        "False",
        "False",
        "True",
        "The compressor does not start: ErrImagePull: no such image.",
    );
    check(
        without_image(1),
        Phase::Pending,
        "False",
        "True",
        "False",
        "rolling out: 0 of 1 pods have the new spec; one does not start: ErrImagePull: no such image.",
    );
}

#[test]
fn a_pod_that_no_node_takes_is_named_and_counts_as_a_problem_when_it_lasts() {
    let compressor = RoleState {
        ready: 0,
        rolled_out: false,
        unscheduled: Some("Unschedulable: 0/1 nodes are available".into()),
        unavailable_since: Some(at(1000).0),
        ..role(Role::Compressor)
    };
    let seen = PipelineObservation {
        roles: vec![compressor, role(Role::Decompressor)],
        ..well()
    };
    let status_at = |second| status(&seen, &CompressionPipelineStatus::default(), at(second));
    // A node may be added meanwhile.
    let early = status_at(1010);
    assert_eq!(holds(&early, "Stalled"), "False");
    assert_eq!(
        early.message.as_deref(),
        Some(
            "Waiting for the compressor: 0 of 1 pods are ready; one does not start: Unschedulable: 0/1 nodes are available."
        )
    );
    let late = status_at(1301);
    assert_eq!(holds(&late, "Stalled"), "True");
    assert_eq!(
        late.message.as_deref(),
        Some("The compressor does not start: Unschedulable: 0/1 nodes are available.")
    );
}

/// A restarted operator has not read the queues yet; nor has one whose pipeline has another number of shards.
#[test]
fn a_status_stands_while_known_queues_are_looked_up_again_and_until_something_contradicts_it() {
    let looking_up = |transport| PipelineObservation {
        is_looking_up: true,
        transport,
        depths: Depths::default(),
        ..well()
    };
    let ready = || TransportState::Ready(ReadyTransport::default());
    let running = status_of(&well());
    assert!(stands(&looking_up(TransportState::Pending), &running));
    assert!(stands(&looking_up(ready()), &running));
    assert!(!stands(&well(), &running));
    let failed = status_of(&PipelineObservation {
        transport: failed(Retry::AfterCorrection),
        ..well()
    });
    assert!(stands(&looking_up(TransportState::Pending), &failed));
    // What was never known, and what is over by now.
    let pending = looking_up(TransportState::Pending);
    assert!(!stands(&pending, &CompressionPipelineStatus::default()));
    assert!(!stands(&pending, &status_of(&pending)));
    let invalid = PipelineObservation {
        invalid: vec!["spec.x: wrong".into()],
        ..pending.clone()
    };
    assert!(!stands(&invalid, &running));
    assert!(!stands(&pending, &status(&invalid, &running, at(2))));
    let deleting = PipelineObservation {
        deleting: Some("emptying".into()),
        ..pending.clone()
    };
    assert!(!stands(&deleting, &running));
}

#[test]
fn an_invalid_spec_says_nothing_of_queues_that_exist() {
    let invalid = PipelineObservation {
        invalid: vec!["spec.x: wrong".into()],
        ..PipelineObservation::default()
    };
    let running = status_of(&well());
    assert_eq!(
        holds(&status(&invalid, &running, at(2)), "TransportReady"),
        "True"
    );
    assert_eq!(holds(&status_of(&invalid), "TransportReady"), "Unknown");
}

#[test]
fn what_a_rollout_waits_for_is_said() {
    for (desired, pods, updated, ready, says) in [
        (2, 1, 1, 1, "1 of 2 pods are ready"),
        (2, 3, 1, 3, "rolling out: 1 of 2 pods has the new spec"),
        (1, 1, 0, 1, "rolling out: 0 of 1 pods have the new spec"),
        (
            2,
            3,
            2,
            3,
            "rolling out: 1 of 3 pods still has the former spec",
        ),
        (2, 2, 2, 2, "its Deployment is being changed"),
    ] {
        let compressor = RoleState {
            desired,
            pods,
            updated,
            ready,
            rolled_out: false,
            ..role(Role::Compressor)
        };
        let seen = PipelineObservation {
            roles: vec![compressor],
            ..well()
        };
        let message = status_of(&seen).message;
        let says = format!("Waiting for the compressor: {says}.");
        assert_eq!(message, Some(says));
    }
}

#[test]
fn a_pipeline_whose_other_pods_work_stays_ready_and_names_the_pod_that_does_not_start() {
    let running = status_of(&well());
    for ready in [0, 1] {
        let seen = without_image(ready);
        let named = status(&seen, &running, at(2));
        assert_eq!(
            (holds(&named, "Ready"), holds(&named, "Reconciling")),
            ("True".to_owned(), "True".to_owned())
        );
        let message = named.message.clone().unwrap_or_default();
        assert!(
            message
                .ends_with("A pod of the compressor does not start: ErrImagePull: no such image."),
            "{message}"
        );
        // A role with no pod at all does not work for long.
        let later = status(&seen, &named, at(200));
        let expected = if ready == 0 { "False" } else { "True" };
        assert_eq!(holds(&later, "Ready"), expected, "{ready} ready");
    }
}

#[test]
fn each_observation_has_its_phase_conditions_and_message() {
    check(
        well(),
        Phase::Running,
        "True",
        "False",
        "False",
        "7 files restored",
    );
    check(
        PipelineObservation {
            transport: TransportState::Pending,
            ..well()
        },
        Phase::Pending,
        "False",
        "True",
        "False",
        "being created",
    );
    check(
        PipelineObservation {
            transport: failed(Retry::Transient),
            ..well()
        },
        Phase::Degraded,
        "False",
        "True",
        "False",
        "do this",
    );
    check(
        PipelineObservation {
            transport: failed(Retry::AfterChange),
            ..well()
        },
        Phase::Failed,
        "False",
        "False",
        "True",
        "do this",
    );
    check(
        PipelineObservation {
            invalid: vec!["spec.x: wrong".into()],
            ..well()
        },
        Phase::Failed,
        "False",
        "False",
        "True",
        "spec.x: wrong",
    );
    check(
        PipelineObservation {
            deleting: Some("emptying".into()),
            ..well()
        },
        Phase::Deleting,
        "False",
        "True",
        "False",
        "emptying",
    );
    let waiting = RoleState {
        ready: 0,
        ..role(Role::Compressor)
    };
    check(
        PipelineObservation {
            roles: vec![waiting],
            ..well()
        },
        Phase::Pending,
        "False",
        "True",
        "False",
        "0 of 1 pods",
    );
    let stuck = RoleState {
        ready: 0,
        stuck: Some("no image".into()),
        ..role(Role::Compressor)
    };
    check(
        PipelineObservation {
            roles: vec![stuck],
            ..well()
        },
        Phase::Degraded,
        "False",
        "False",
        "True",
        "no image",
    );
}

#[test]
fn pods_that_end_again_and_again_are_not_starting_although_they_are_ready_for_moments() {
    for which in [Role::Generator, Role::Compressor, Role::Decompressor] {
        for ready in [0, 1] {
            let crashing = RoleState {
                ready,
                unavailable_since: Some(at(1000).0),
                ..role(which)
            };
            let seen = PipelineObservation {
                roles: vec![crashing],
                ..well()
            };
            let works = status_of(&well());
            let early = status(&seen, &works, at(1300));
            assert_eq!(holds(&early, "Stalled"), "False");
            let late = status(&seen, &works, at(1301));
            assert_eq!(late.phase, Some(Phase::Degraded));
            let stalled = late.conditions.iter().find(|it| it.type_ == "Stalled");
            let stalled = stalled.expect("there is one");
            assert_eq!(
                (stalled.status.as_str(), stalled.reason.as_str()),
                ("True", "WorkersNotStarting")
            );
            let says = format!(
                "The {which} does not start: since 1970-01-01T00:16:40Z too few of its pods have been available. See `kubectl describe pod -n demo -l a=b` and `kubectl logs -n demo -l a=b`."
            );
            assert_eq!(stalled.message, says);
        }
    }
}

#[test]
fn files_that_are_packed_larger_are_said_to_be_larger() {
    let says = |saved: &str| {
        let mut seen = well();
        seen.progress.saved_percent = Some(saved.into());
        status_of(&seen).message.unwrap_or_default()
    };
    assert_eq!(
        says("-1600.0"),
        "7 files restored, packed 1600.0 % larger than they are."
    );
    assert_eq!(says("93.9"), "7 files restored, 93.9 % of the bytes saved.");
}

#[test]
fn pods_beyond_the_slots_are_said_to_stand_by() {
    let message = |pods| {
        let mut seen = well();
        seen.roles[0].desired = pods;
        seen.roles[0].ready = pods;
        let status = status_of(&seen);
        let ready = status.conditions.into_iter().find(|it| it.type_ == "Ready");
        ready.map(|it| it.message).unwrap_or_default()
    };
    assert_eq!(message(1), "Workers, queues and stream are in order.");
    assert_eq!(
        message(5),
        "Workers, queues and stream are in order. 4 of 5 pods of the compressor stand by: spec.compressor.slots allows 1 to work at the same time."
    );
}

#[test]
fn a_generator_that_is_stopped_needs_no_source() {
    let source = |pods| {
        let seen = PipelineObservation {
            roles: vec![RoleState {
                desired: pods,
                ready: pods,
                ..role(Role::Generator)
            }],
            outages: Some(vec![RoleOutage {
                role: Role::Generator,
                service: NeededService::Source,
                kind: OutageKind::Down,
                cause: "NoSuchBucket".into(),
            }]),
            ..well()
        };
        let status = status_of(&seen);
        let message = status.message.clone().unwrap_or_default();
        (status.phase, holds(&status, "SourceAvailable"), message)
    };
    assert_eq!(
        source(1),
        (
            Some(Phase::Degraded),
            "False".into(),
            "The generator cannot use the source: NoSuchBucket.".into()
        )
    );
    assert_eq!(source(0).1, "True");
}

#[test]
fn a_pipeline_that_works_stays_ready_while_its_pods_are_made_from_zero_or_renewed() {
    let short = |desired, ready| PipelineObservation {
        roles: vec![
            RoleState {
                desired,
                ready,
                rolled_out: false,
                ..role(Role::Compressor)
            },
            role(Role::Decompressor),
        ],
        ..well()
    };
    let message = |status: &CompressionPipelineStatus, type_: &str| {
        let mut all = status.conditions.iter();
        let found = all.find(|condition| condition.type_ == type_);
        found
            .map(|condition| condition.message.clone())
            .unwrap_or_default()
    };
    let works = status_of(&well());
    for (desired, ready, awaited) in [
        (2, 1, "1 of 2 pods"),
        (1, 0, "0 of 1 pods"),
        (1, 1, "its Deployment is being changed"),
    ] {
        let scaling = status(&short(desired, ready), &works, at(100));
        assert_eq!(scaling.phase, Some(Phase::Running));
        assert_eq!(scaling.message.as_deref(), Some("7 files restored."));
        assert_eq!(holds(&scaling, "Ready"), "True");
        assert_eq!(holds(&scaling, "Reconciling"), "True");
        let says = message(&scaling, "Reconciling");
        assert!(says.contains(awaited) && says.contains("kubectl"), "{says}");
        assert_eq!(status(&short(desired, ready), &scaling, at(219)), scaling);
    }
    // Some pods work for as long as it takes; no pod at all counts once the time for it is over.
    let slow = status(&short(2, 1), &works, at(100));
    assert_eq!(
        status(&short(2, 1), &slow, at(9_000)).phase,
        Some(Phase::Running)
    );
    let none = status(&short(1, 0), &works, at(100));
    let waiting = status(&short(1, 0), &none, at(220));
    assert_eq!(waiting.phase, Some(Phase::Pending));
    assert_eq!(holds(&waiting, "Ready"), "False");
    assert_eq!(
        waiting.message.as_deref(),
        Some("Waiting for the compressor: 0 of 1 pods are ready.")
    );
    // It does not become ready by waiting.
    assert_eq!(
        status(&short(1, 0), &waiting, at(221)).phase,
        Some(Phase::Pending)
    );
}

#[test]
fn suspending_says_how_far_it_is() {
    let suspended = |drain| PipelineObservation {
        drain: Some(drain),
        ..well()
    };
    check(
        suspended(Drain::Stopping),
        Phase::Suspending,
        "False",
        "True",
        "False",
        "have begun",
    );
    check(
        suspended(Drain::Emptying(Some(4))),
        Phase::Suspending,
        "False",
        "True",
        "False",
        "4 packed files",
    );
    check(
        suspended(Drain::Emptying(None)),
        Phase::Suspending,
        "False",
        "True",
        "False",
        "not known",
    );
    check(
        suspended(Drain::TakingReceipts(Some(2))),
        Phase::Suspending,
        "False",
        "True",
        "False",
        "2 receipts",
    );
    let files = Depths {
        files: Some(Depth {
            visible: 9,
            ..Depth::default()
        }),
        ..well().depths
    };
    let drained = PipelineObservation {
        depths: files,
        ..suspended(Drain::Drained)
    };
    assert_eq!(holds(&status_of(&drained), "Drained"), "True");
    check(
        drained,
        Phase::Suspended,
        "True",
        "False",
        "False",
        "9 files wait",
    );
}

#[test]
fn a_suspended_pipeline_says_of_its_queues_only_what_was_seen() {
    let says = |drain, files| {
        let files = Some(Depth {
            visible: files,
            ..Depth::default()
        });
        let depths = Depths {
            files,
            ..well().depths
        };
        let seen = PipelineObservation {
            drain: Some(drain),
            depths,
            ..well()
        };
        status_of(&seen).message.unwrap_or_default()
    };
    // Files that wait are no reason to go on draining.
    assert_eq!(
        says(Drain::Settling(Duration::from_secs(9)), 3),
        "The queues of packed files and receipts are empty; waiting a minute, since SQS counts late."
    );
    assert_eq!(
        says(Drain::Drained, 0),
        "Suspended with nothing in flight; the files queue is empty. Set spec.suspend to false to go on."
    );
}

#[test]
fn packed_files_that_were_not_counted_as_restored_are_named() {
    let short = |drain| PipelineObservation {
        drain: Some(drain),
        unaccounted: 3,
        ..well()
    };
    for drain in [Drain::Settling(Duration::from_secs(9)), Drain::Drained] {
        let message = status_of(&short(drain)).message.unwrap_or_default();
        assert!(
            message.contains("3 packed files"),
            "{drain:?} says {message:?}"
        );
    }
    let working = status_of(&short(Drain::NotSuspended))
        .message
        .unwrap_or_default();
    assert!(!working.contains("packed"), "{working}");
}

#[test]
fn dead_letters_are_pointed_out_while_the_rest_works() {
    let seen = PipelineObservation {
        depths: Depths {
            dead: Some(2),
            ..well().depths
        },
        ..well()
    };
    check(
        seen,
        Phase::Degraded,
        "True",
        "False",
        "False",
        "streampress redrive",
    );
}

#[test]
fn it_is_completed_when_every_generated_file_is_restored_and_no_slot_is_held() {
    let progress = ProgressStatus {
        files_generated: 5,
        files_compressed: 5,
        files_restored: 5,
        ..ProgressStatus::default()
    };
    let done = PipelineObservation {
        files_wanted: Some(5),
        progress: progress.clone(),
        ..well()
    };
    check(
        done.clone(),
        Phase::Completed,
        "True",
        "False",
        "False",
        "All files",
    );
    let unknown = PipelineObservation {
        depths: Depths::default(),
        ..done.clone()
    };
    check(unknown, Phase::Running, "True", "False", "False", "5 files");
    let missing = PipelineObservation {
        progress: ProgressStatus {
            files_restored: 4,
            ..progress
        },
        ..done
    };
    check(missing, Phase::Running, "True", "False", "False", "4 files");
}

fn at_risk() -> Option<RetentionReport> {
    Some(RetentionReport {
        status: RetentionStatus {
            hours: Some(24),
            at_risk: true,
            planned_hours: Some(48),
        },
        waiting_since: Some(at(0).0),
        message: "extends it".into(),
    })
}

#[test]
fn records_that_may_expire_are_said_in_every_phase() {
    let suspended = PipelineObservation {
        drain: Some(Drain::Drained),
        ..well()
    };
    let broken = PipelineObservation {
        transport: failed(Retry::AfterChange),
        ..well()
    };
    for seen in [well(), suspended, broken] {
        let safe = status_of(&seen);
        assert_eq!(holds(&safe, RETENTION_AT_RISK), "False");
        let status = status_of(&PipelineObservation {
            retention: at_risk(),
            ..seen
        });
        assert_eq!(holds(&status, RETENTION_AT_RISK), "True");
        assert_eq!(status.phase, safe.phase);
        let message = status.message.unwrap_or_default();
        assert!(
            message.contains("see condition RetentionAtRisk"),
            "{message}"
        );
        let condition = status.conditions.last().expect("a condition");
        assert_eq!(
            (&*condition.reason, &*condition.message),
            ("RetentionAtRisk", "extends it")
        );
        let since = status.backlog.and_then(|backlog| backlog.waiting_since);
        assert_eq!(since.as_deref(), Some("1970-01-01T00:00:00Z"));
    }
}

#[test]
fn an_outage_is_named_by_its_condition_and_the_pipeline_stays_ready() {
    let seen = |service, waiting| PipelineObservation {
        outages: Some(vec![RoleOutage {
            role: Role::Decompressor,
            service,
            kind: OutageKind::Down,
            cause: "No space left on device.".into(),
        }]),
        depths: Depths {
            chunks: Some(Depth {
                visible: waiting,
                ..Depth::default()
            }),
            ..well().depths
        },
        ..well()
    };
    for (service, condition) in [
        (NeededService::Destination, "DestinationAvailable"),
        (NeededService::Source, "SourceAvailable"),
        (NeededService::Stream, "TransportReady"),
        (NeededService::Queue, "TransportReady"),
    ] {
        check(
            seen(service, 1),
            Phase::Degraded,
            "True",
            "False",
            "False",
            "decompressor cannot use the ",
        );
        let status = status_of(&seen(service, 1));
        for other in ["DestinationAvailable", "SourceAvailable", "TransportReady"] {
            let expected = if other == condition { "False" } else { "True" };
            assert_eq!(holds(&status, other), expected, "{service:?}: {other}");
        }
        let idle = status_of(&seen(service, 0));
        assert_eq!(idle.phase, Some(Phase::Running), "nothing needs it");
        assert_eq!(holds(&idle, condition), "True");
    }
}

#[test]
fn a_destination_of_another_pipeline_has_a_reason_of_its_own() {
    let status = status_of(&PipelineObservation {
        outages: Some(vec![RoleOutage {
            role: Role::Decompressor,
            service: NeededService::Destination,
            kind: OutageKind::OwnedByAnother,
            cause: "it belongs to the pipeline sales/shop".into(),
        }]),
        depths: Depths {
            chunks: Some(Depth {
                visible: 1,
                ..Depth::default()
            }),
            ..well().depths
        },
        ..well()
    });
    assert_eq!(status.phase, Some(Phase::Degraded));
    let condition = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "DestinationAvailable")
        .expect("the condition");
    assert_eq!(condition.status, "False");
    assert_eq!(condition.reason, "DestinationNotOurs");
    assert!(condition.message.contains("sales/shop"), "{condition:?}");
}

#[test]
fn a_source_that_another_pipeline_scans_has_a_reason_of_its_own() {
    let status = status_of(&PipelineObservation {
        outages: Some(vec![RoleOutage {
            role: Role::Generator,
            service: NeededService::Source,
            kind: OutageKind::OwnedByAnother,
            cause: "it is scanned by the pipeline sales/shop".into(),
        }]),
        roles: vec![
            role(Role::Generator),
            role(Role::Compressor),
            role(Role::Decompressor),
        ],
        ..well()
    });
    assert_eq!(status.phase, Some(Phase::Degraded));
    let mut conditions = status.conditions.iter();
    let condition = conditions.find(|condition| condition.reason == "SourceNotOurs");
    let condition = condition.expect("the condition");
    assert_eq!(
        (&*condition.type_, &*condition.status),
        ("SourceAvailable", "False")
    );
    assert!(condition.message.contains("sales/shop"), "{condition:?}");
}

#[test]
fn what_a_scan_leaves_out_is_counted_in_message_and_condition() {
    let status = status_of(&PipelineObservation {
        outages: Some(Vec::new()),
        left_out: 3,
        ..well()
    });
    let message = status.message.clone().unwrap_or_default();
    assert!(message.contains("3 left out of the source"), "{message}");
    let mut conditions = status.conditions.iter();
    let source = conditions.find(|it| it.type_ == "SourceAvailable");
    let source = source.expect("it was looked at");
    assert_eq!(source.status, "True");
    assert!(source.message.contains("3 of its files and folders"));
}

#[test]
fn what_is_not_looked_at_stays_as_it_was_seen_last() {
    let before = status_of(&PipelineObservation {
        retention: at_risk(),
        outages: Some(vec![RoleOutage {
            role: Role::Compressor,
            service: NeededService::Source,
            kind: OutageKind::Down,
            cause: "Permission denied".into(),
        }]),
        depths: Depths {
            files: None,
            ..well().depths
        },
        ..well()
    });
    assert_eq!(holds(&before, "SourceAvailable"), "False");
    let unseen = PipelineObservation {
        retention: None,
        outages: None,
        depths: Depths {
            files: None,
            ..well().depths
        },
        ..well()
    };
    let after = status(&unseen, &before, at(5));
    assert_eq!(after.retention, before.retention);
    assert_eq!(after.backlog, before.backlog);
    for type_ in ["SourceAvailable", "DestinationAvailable", RETENTION_AT_RISK] {
        assert_eq!(holds(&after, type_), holds(&before, type_), "{type_}");
    }
    assert_eq!(status_of(&unseen).conditions.len(), 5);
}

#[test]
fn a_depth_that_is_not_known_is_left_out() {
    let status = status_of(&PipelineObservation {
        depths: Depths {
            files: None,
            ..well().depths
        },
        ..well()
    });
    let backlog = status.backlog.unwrap_or_default();
    assert_eq!((backlog.files, backlog.chunks), (None, Some(0)));
}

#[test]
fn no_part_of_a_status_is_an_empty_object() {
    fn has_empty(value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::Object(members) => {
                members.is_empty() || members.values().any(has_empty)
            }
            serde_json::Value::Array(items) => items.iter().any(has_empty),
            _ => false,
        }
    }
    for transport in [
        TransportState::Pending,
        failed(Retry::Transient),
        TransportState::Ready(ReadyTransport::default()),
    ] {
        let seen = PipelineObservation {
            transport,
            depths: Depths::default(),
            roles: Vec::new(),
            ..well()
        };
        let status = serde_json::to_value(status_of(&seen)).expect("JSON");
        assert!(!has_empty(&status), "{status}");
    }
}

#[test]
fn waiting_receipts_are_shown_where_there_is_a_queue_for_them() {
    let waiting = |url: Option<&str>| PipelineObservation {
        transport: TransportState::Ready(ReadyTransport {
            status: TransportStatus {
                receipts_queue_url: url.map(str::to_owned),
                ..TransportStatus::default()
            },
            ..ReadyTransport::default()
        }),
        depths: Depths {
            receipts: Some(Depth {
                visible: 3,
                in_flight: 1,
                delayed: 0,
            }),
            ..well().depths
        },
        ..well()
    };
    let shown = |url| {
        status_of(&waiting(url))
            .backlog
            .unwrap_or_default()
            .receipts
    };
    assert_eq!(shown(Some("https://sqs/receipts.fifo")), Some(4));
    assert_eq!(shown(None), None);
}

#[test]
fn the_same_observation_changes_nothing_and_transitions_keep_their_time() {
    let first = status(&well(), &CompressionPipelineStatus::default(), at(1));
    assert_eq!(status(&well(), &first, at(99)), first);
    let worse = status(
        &PipelineObservation {
            transport: failed(Retry::AfterChange),
            ..well()
        },
        &first,
        at(100),
    );
    let time = |status: &CompressionPipelineStatus, type_: &str| {
        status
            .conditions
            .iter()
            .find(|condition| condition.type_ == type_)
            .map(|condition| condition.last_transition_time.clone())
    };
    assert_eq!(time(&worse, "Ready"), Some(at(100)));
    assert_eq!(time(&worse, "Reconciling"), Some(at(1)));
}

#[test]
fn every_condition_names_the_generation_that_was_read() {
    let status = status_of(&well());
    assert_eq!(status.observed_generation, Some(3));
    assert_eq!(status.conditions.len(), 8);
    assert!(
        status
            .conditions
            .iter()
            .all(|condition| condition.observed_generation == Some(3))
    );
}

#[test]
fn long_messages_are_cut_to_what_the_schema_takes() {
    let status = status_of(&PipelineObservation {
        invalid: vec!["é".repeat(5000)],
        ..well()
    });
    assert_eq!(
        status.message.map(|message| message.chars().count()),
        Some(1024)
    );
}
