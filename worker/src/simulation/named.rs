//! Histories that once broke the promise, as they were shrunk, and such as the design must survive. One that is still
//! broken is ignored, with the reason.

use streampress_codec::FormatVersion;
use streampress_crds::api::pipeline::{OnCompressed, OnRestored};

use super::history::{History, HistoryStep, How, ServiceKind, Side, SimSettings, Time};
use super::run::{Outcome, run};

use self::HistoryStep::*;
use self::How::{InPlace, Replace};
use self::Time::{Future, Now, Past, Same};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
/// Numbers of processes of [`SCANNED`].
const SCANNER: u8 = 0;
pub(super) const COMPRESSOR: u8 = 1;
pub(super) const DECOMPRESSOR: u8 = 2;

pub(super) const SCANNED: SimSettings = SimSettings {
    compressors: 1,
    decompressors: 1,
    slots: 1,
    scan_seconds: Some(2),
    visibility_seconds: 30,
    is_coarse: false,
    is_strict: false,
    has_notes: false,
    bundles: false,
    format_version: FormatVersion::V1,
    on_compressed: OnCompressed::Keep,
    on_restored: OnRestored::Keep,
    redrives: 0,
    retention_minutes: 24 * 60,
};

/// The journal is at the source, as on AWS.
const NOTED: SimSettings = SimSettings {
    has_notes: true,
    ..SCANNED
};

const SUBMITTED: SimSettings = SimSettings {
    scan_seconds: None,
    ..SCANNED
};

/// Longer than the stream keeps records.
const WEEKEND: HistoryStep = Stop {
    role: DECOMPRESSOR,
    seconds: 70 * 3600,
};

/// Writes a new file over `a.txt`.
const fn write(content: u16, time: Time) -> HistoryStep {
    Write {
        name: 0,
        content,
        bytes: 40,
        how: Replace,
        time,
    }
}

/// Writes a new `b.csv`.
const fn write_other(content: u16) -> HistoryStep {
    Write {
        name: 1,
        content,
        bytes: 40,
        how: Replace,
        time: Now,
    }
}

fn outcome(settings: SimSettings, steps: Vec<(u64, HistoryStep)>) -> Outcome {
    let history = History {
        seed: 1,
        settings,
        steps,
    };
    let outcome = run(&history);
    let wrong = outcome.violations.join("\n");
    assert!(wrong.is_empty(), "{wrong}\n\n{history}");
    outcome
}

/// The promise is kept, and there is not even a dead letter.
fn all_is_well(settings: SimSettings, steps: Vec<(u64, HistoryStep)>) {
    let outcome = outcome(settings, steps);
    assert_eq!(outcome.dead_letters(), Vec::<String>::new());
}

#[test]
fn a_new_version_is_restored() {
    all_is_well(SCANNED, vec![(1, write(1, Now)), (MINUTE, write(2, Now))]);
}

#[test]
fn a_version_with_an_older_modification_time_is_restored() {
    for time in [Same, Past(1), Past(100_000)] {
        all_is_well(SCANNED, vec![(1, write(1, Now)), (MINUTE, write(2, time))]);
    }
}

#[test]
fn a_version_that_follows_one_from_the_future_is_restored() {
    all_is_well(
        SCANNED,
        vec![(1, write(1, Future(100_000))), (MINUTE, write(2, Now))],
    );
}

#[test]
fn a_touched_restored_copy_does_not_keep_the_next_version_away() {
    let touched = TouchCopy {
        name: 0,
        time: Future(100_000),
    };
    all_is_well(
        SCANNED,
        vec![(1, write(1, Now)), (MINUTE, touched), (1, write(2, Now))],
    );
}

#[test]
fn content_that_returns_within_five_minutes_is_restored() {
    for settings in [
        SCANNED,
        SimSettings {
            is_coarse: true,
            ..SCANNED
        },
    ] {
        let steps = vec![
            (1, write(1, Now)),
            (20_000, write(2, Now)),
            (20_000, write(1, Now)),
        ];
        all_is_well(settings, steps);
    }
}

#[test]
fn other_content_of_the_same_size_and_time_is_restored() {
    for how in [Replace, InPlace] {
        let again = Write {
            name: 0,
            content: 2,
            bytes: 40,
            how,
            time: Same,
        };
        all_is_well(SCANNED, vec![(1, write(1, Now)), (MINUTE, again)]);
    }
}

#[test]
fn what_others_wrote_at_the_destination_is_kept() {
    let foreign = WriteCopy {
        name: 0,
        content: 9,
        bytes: 40,
        how: Replace,
    };
    all_is_well(SCANNED, vec![(1, foreign), (1, write(1, Now))]);
    all_is_well(
        SCANNED,
        vec![(1, write(1, Now)), (MINUTE, foreign), (1, write(2, Now))],
    );
}

#[test]
fn a_copy_that_others_deleted_does_not_come_back_by_itself() {
    let outcome = outcome(
        SCANNED,
        vec![(1, write(1, Now)), (MINUTE, DeleteCopy { name: 0 })],
    );
    assert!(outcome.dead_letters().is_empty());
}

#[test]
fn a_file_submitted_again_after_its_copy_was_deleted_is_restored() {
    let steps = vec![
        (1, write(1, Now)),
        (1, Submit { name: 0 }),
        (MINUTE, DeleteCopy { name: 0 }),
        (1, Submit { name: 0 }),
    ];
    all_is_well(SUBMITTED, steps);
}

#[test]
fn a_full_disk_makes_no_dead_letter() {
    let full = Full {
        side: Side::Destination,
        free_bytes: 0,
        seconds: 7200,
    };
    all_is_well(
        SCANNED,
        vec![(1, full), (1, write(1, Now)), (2 * HOUR, write_other(2))],
    );
}

#[test]
fn outages_of_hours_make_no_dead_letter() {
    let seconds = 10_000;
    let outages = [
        DiskDown {
            side: Side::Destination,
            seconds,
        },
        ReadOnly {
            side: Side::Destination,
            seconds,
        },
        DiskDown {
            side: Side::Source,
            seconds,
        },
        Down {
            service: ServiceKind::Stream,
            seconds,
        },
        Down {
            service: ServiceKind::ChunksQueue,
            seconds,
        },
        Down {
            service: ServiceKind::FilesQueue,
            seconds,
        },
        Down {
            service: ServiceKind::Slots,
            seconds,
        },
    ];
    for outage in outages {
        all_is_well(
            SCANNED,
            vec![(1, outage), (1, write(1, Now)), (3 * HOUR, write_other(2))],
        );
    }
}

#[test]
fn a_weekend_without_decompressors_mends_itself() {
    all_is_well(
        SCANNED,
        vec![
            (1, WEEKEND),
            (1, write(1, Now)),
            (71 * HOUR, write_other(2)),
        ],
    );
}

#[test]
fn a_redrive_brings_back_what_expired() {
    let settings = SimSettings {
        redrives: 1,
        ..SCANNED
    };
    let steps = vec![
        (1, WEEKEND),
        (1, write(1, Now)),
        (71 * HOUR, write_other(2)),
    ];
    all_is_well(settings, steps);
}

#[test]
fn a_source_that_changes_before_it_is_packed_makes_no_dead_letter() {
    let stopped = Stop {
        role: COMPRESSOR,
        seconds: 600,
    };
    let steps = vec![(1, stopped), (1, write(1, Now)), (20_000, write(2, Now))];
    all_is_well(SCANNED, steps);
}

#[test]
fn a_file_that_changes_before_it_is_packed_is_restored_as_it_is_then() {
    let stopped = Stop {
        role: COMPRESSOR,
        seconds: 600,
    };
    let settings = SimSettings {
        redrives: 3,
        ..SCANNED
    };
    let steps = vec![(1, stopped), (1, write(1, Now)), (20_000, write(2, Now))];
    outcome(settings, steps);
}

#[test]
fn a_killed_scanner_loses_no_file() {
    for effects in 0..6 {
        let kill = Kill {
            role: SCANNER,
            effects,
        };
        all_is_well(
            SCANNED,
            vec![(1, write(1, Now)), (1, kill), (1, write(2, Now))],
        );
    }
}

#[test]
fn killed_workers_lose_no_file() {
    let settings = SimSettings {
        redrives: 3,
        ..SCANNED
    };
    for role in [COMPRESSOR, DECOMPRESSOR] {
        for effects in 0..12 {
            let kill = Kill { role, effects };
            let steps = vec![(1, kill), (1, write(1, Now)), (20_000, write(2, Now))];
            outcome(settings, steps);
            let steps = vec![(1, write(1, Now)), (MINUTE, kill), (1, write(2, Now))];
            outcome(settings, steps);
        }
    }
}

/// What happens to services while a file waits in a queue or on the stream, with the roles that are stopped meanwhile.
fn losses() -> Vec<(HistoryStep, &'static [u8])> {
    let both: &[u8] = &[COMPRESSOR, DECOMPRESSOR];
    let packed: &[u8] = &[DECOMPRESSOR];
    let mut losses = vec![(RemakeAll, both), (RemakeAll, packed)];
    for (service, stopped) in [
        (ServiceKind::FilesQueue, both),
        (ServiceKind::ChunksQueue, packed),
    ] {
        losses.push((Purge { service }, stopped));
        losses.push((Remake { service }, stopped));
    }
    let service = ServiceKind::Stream;
    losses.push((Remake { service }, packed));
    losses
}

/// These roles stop, for ten minutes each.
fn stops(roles: &[u8]) -> Vec<(u64, HistoryStep)> {
    let seconds = 600;
    let stop = |&role| (1, Stop { role, seconds });
    roles.iter().map(stop).collect()
}

#[test]
fn a_purged_or_remade_queue_loses_no_file() {
    for settings in [SCANNED, NOTED] {
        for (loss, stopped) in losses() {
            let mut steps = stops(stopped);
            steps.push((1, write(1, Now)));
            steps.push((5 * MINUTE, loss));
            all_is_well(settings, steps);
        }
    }
}

#[test]
fn what_a_person_submitted_and_a_queue_lost_is_restored_where_there_is_a_scan() {
    for settings in [SCANNED, NOTED] {
        for (loss, stopped) in losses() {
            let mut steps = vec![(1, write(1, Now)), (MINUTE, DeleteCopy { name: 0 })];
            steps.extend(stops(stopped));
            steps.push((1, Submit { name: 0 }));
            steps.push((5 * MINUTE, loss));
            assert!(
                outcome(settings, steps).has("a.txt"),
                "{settings:?} {loss:?}"
            );
        }
    }
}

#[test]
fn a_lost_receipt_brings_no_second_copy_of_a_file_that_others_edited() {
    let service = ServiceKind::ReceiptsQueue;
    let edit = WriteCopy {
        name: 0,
        content: 9,
        bytes: 40,
        how: Replace,
    };
    for settings in [SCANNED, NOTED] {
        let steps = vec![
            (
                1,
                Stop {
                    role: COMPRESSOR,
                    seconds: 600,
                },
            ),
            (1, write(1, Now)),
            // It is packed and restored; then nothing takes its receipt.
            (11 * MINUTE, write(2, Now)),
            (
                20_000,
                Stop {
                    role: COMPRESSOR,
                    seconds: 600,
                },
            ),
            (MINUTE, Purge { service }),
            (1, edit),
        ];
        let outcome = outcome(settings, steps);
        assert_eq!(outcome.displaced(), 0, "{settings:?}");
    }
}

#[test]
fn receipts_that_a_killed_worker_kept_in_memory_are_sent_after_a_repeat() {
    let service = ServiceKind::ReceiptsQueue;
    for settings in [SCANNED, NOTED] {
        let steps = vec![
            (
                1,
                Down {
                    service,
                    seconds: 300,
                },
            ),
            (1, write(1, Now)),
            (
                2 * MINUTE,
                Kill {
                    role: DECOMPRESSOR,
                    effects: 0,
                },
            ),
            (HOUR, write_other(2)),
        ];
        let outcome = outcome(settings, steps);
        assert!(!outcome.has_unconfirmed(), "{settings:?}");
        assert_eq!(outcome.dead_letters(), Vec::<String>::new());
    }
}

#[test]
fn a_slow_backlog_is_never_announced_again() {
    for settings in [SCANNED, NOTED] {
        for role in [COMPRESSOR, DECOMPRESSOR] {
            let stopped = Stop {
                role,
                seconds: 20_000,
            };
            let steps = vec![(1, stopped), (1, write(1, Now)), (6 * HOUR, write_other(2))];
            let outcome = outcome(settings, steps);
            // Two announcements, two manifests.
            assert_eq!(outcome.sends(), 4, "{settings:?}, process {role} stopped");
        }
    }
}

#[test]
fn a_dead_letter_is_not_announced_again() {
    let obstructed = Obstruct {
        name: 0,
        seconds: 40_000,
    };
    for settings in [SCANNED, NOTED] {
        let steps = vec![
            (1, obstructed),
            (1, write(1, Now)),
            (9 * HOUR, write_other(2)),
        ];
        let outcome = run(&History {
            seed: 1,
            settings,
            steps,
        });
        assert_eq!(outcome.dead_letters().len(), 1, "{settings:?}");
        // Two announcements, two manifests, a dead letter.
        assert_eq!(outcome.sends(), 5, "{settings:?}");
    }
}

#[test]
fn content_that_another_process_announced_does_not_keep_the_content_before_it_away() {
    for settings in [SCANNED, NOTED] {
        for pause in [20_000, 3 * MINUTE] {
            let steps = vec![
                (1, write(1, Now)),
                (
                    pause,
                    Freeze {
                        role: SCANNER,
                        seconds: 60,
                    },
                ),
                (1, write(2, Now)),
                (1000, Submit { name: 0 }),
                (1000, write(1, Now)),
            ];
            all_is_well(settings, steps);
        }
    }
}

#[test]
fn a_queue_made_anew_gives_later_versions() {
    let remade = Remake {
        service: ServiceKind::FilesQueue,
    };
    let steps = vec![
        (1, write(1, Now)),
        (MINUTE, remade),
        (MINUTE, write(2, Now)),
    ];
    all_is_well(SCANNED, steps);
}

#[test]
fn bytes_that_another_program_writes_in_place_while_a_stalled_worker_places_a_version_are_kept() {
    let stalls = Stall {
        longest_seconds: 100,
        seconds: 600,
    };
    let foreign = WriteCopy {
        name: 0,
        content: 9,
        bytes: 40,
        how: InPlace,
    };
    // Equal content is adopted, other content replaces the first. Whether the worker stalls just then is a matter of chance.
    for (second, seed) in (1..=2).flat_map(|second| (1..=40).map(move |seed| (second, seed))) {
        let steps = vec![
            (1, write(1, Now)),
            (1, Submit { name: 0 }),
            (MINUTE, stalls),
            (1, write(second, Now)),
            (1, Submit { name: 0 }),
            (10_000, foreign),
            (20 * MINUTE, write(3, Now)),
            (1, Submit { name: 0 }),
        ];
        let history = History {
            seed,
            settings: SUBMITTED,
            steps,
        };
        let wrong = run(&history).violations.join("\n");
        assert!(wrong.is_empty(), "{wrong}\n\n{history}");
    }
}

#[test]
fn a_stalled_worker_keeps_what_another_program_wrote_in_place_although_times_are_coarse() {
    let history = History {
        seed: 396,
        settings: SimSettings {
            compressors: 2,
            decompressors: 1,
            slots: 2,
            scan_seconds: Some(2),
            visibility_seconds: 30,
            is_coarse: true,
            is_strict: false,
            has_notes: false,
            bundles: false,
            format_version: FormatVersion::V1,
            on_compressed: OnCompressed::Keep,
            on_restored: OnRestored::Keep,
            redrives: 3,
            retention_minutes: 24 * 60,
        },
        steps: vec![
            (3543, Redrive),
            (240026, Redrive),
            (
                5795,
                WriteCopy {
                    name: 2,
                    content: 0,
                    bytes: 0,
                    how: InPlace,
                },
            ),
            (
                890,
                Append {
                    name: 2,
                    content: 0,
                    bytes: 0,
                },
            ),
            (7102, Submit { name: 2 }),
            (106, Redrive),
            (
                5814,
                Stall {
                    longest_seconds: 50,
                    seconds: 22828,
                },
            ),
            (
                13157,
                Write {
                    name: 1,
                    content: 1,
                    bytes: 1,
                    how: Replace,
                    time: Future(80858),
                },
            ),
            (
                1667,
                Freeze {
                    role: 3,
                    seconds: 2406,
                },
            ),
            (405, Submit { name: 2 }),
            (
                25293,
                Stop {
                    role: 3,
                    seconds: 758,
                },
            ),
            (
                771,
                Write {
                    name: 2,
                    content: 3,
                    bytes: 40,
                    how: Replace,
                    time: Now,
                },
            ),
            (
                524,
                WriteCopy {
                    name: 1,
                    content: 4,
                    bytes: 40,
                    how: InPlace,
                },
            ),
            (8096, Submit { name: 2 }),
            (
                2295,
                Write {
                    name: 2,
                    content: 5,
                    bytes: 40,
                    how: InPlace,
                    time: Now,
                },
            ),
            (
                10336,
                Write {
                    name: 1,
                    content: 6,
                    bytes: 300,
                    how: Replace,
                    time: Past(43700),
                },
            ),
            (
                172256,
                Touch {
                    name: 1,
                    time: Same,
                },
            ),
            (
                257795,
                DiskDown {
                    side: Side::Source,
                    seconds: 5,
                },
            ),
            (
                11804,
                Write {
                    name: 0,
                    content: 5,
                    bytes: 40,
                    how: Replace,
                    time: Future(78078),
                },
            ),
            (579, RenameOver { from: 1, to: 2 }),
            (4574, Redrive),
            (8050, Submit { name: 0 }),
            (
                489,
                Write {
                    name: 1,
                    content: 2,
                    bytes: 12,
                    how: InPlace,
                    time: Same,
                },
            ),
            (168802, Submit { name: 0 }),
            (
                5636,
                Write {
                    name: 1,
                    content: 8,
                    bytes: 0,
                    how: Replace,
                    time: Past(45978),
                },
            ),
            (478, Delete { name: 0 }),
            (93282, Submit { name: 2 }),
            (
                102550,
                WriteCopy {
                    name: 1,
                    content: 11,
                    bytes: 40,
                    how: InPlace,
                },
            ),
        ],
    };
    assert_eq!(run(&history).violations, Vec::<String>::new());
}

#[test]
fn a_redriven_dead_letter_never_replaces_a_newer_version_that_was_moved_away() {
    let obstructed = Obstruct {
        name: 0,
        seconds: 600,
    };
    let steps = vec![
        (1, obstructed),
        (1, write(1, Now)),
        // The first version is a dead letter, its records are good. A consumer takes the second one away.
        (11 * MINUTE, write(2, Now)),
        (MINUTE, DeleteCopy { name: 0 }),
        (MINUTE, Redrive),
    ];
    all_is_well(SCANNED, steps);
}

#[test]
fn one_unreadable_file_does_not_keep_healthy_ones_away() {
    for (is_strict, longest) in [(false, 2 * MINUTE), (true, HOUR)] {
        let settings = SimSettings {
            is_strict,
            redrives: 1,
            ..SCANNED
        };
        let stopped = Stop {
            role: COMPRESSOR,
            seconds: 60,
        };
        let unreadable = Protect {
            name: 0,
            seconds: 7200,
        };
        // It is announced, and cannot be read when it is to be packed.
        let steps = vec![
            (1, stopped),
            (1, write(1, Now)),
            (20_000, unreadable),
            (1, write_other(2)),
            (2 * HOUR, write(3, Now)),
        ];
        let outcome = outcome(settings, steps);
        let restored = outcome.first_restored("b.csv").expect("restored");
        assert!(restored.as_millis() < longest.into(), "{restored:?}");
        assert_eq!(outcome.dead_letters(), Vec::<String>::new());
    }
}

#[test]
fn what_others_made_of_a_copy_stays_when_content_comes_and_goes_between_two_scans() {
    let settings = SimSettings {
        scan_seconds: Some(15),
        ..SCANNED
    };
    let foreign = WriteCopy {
        name: 0,
        content: 9,
        bytes: 300,
        how: InPlace,
    };
    let steps = vec![
        (1, write(1, Now)),
        (MINUTE, foreign),
        (MINUTE, write(2, Now)),
        (5000, write(1, Now)),
    ];
    all_is_well(settings, steps);
}

#[test]
fn a_source_that_was_deleted_and_written_anew_is_restored_where_its_copy_is_gone() {
    let steps = vec![
        (1, write(1, Now)),
        (MINUTE, Delete { name: 0 }),
        (1, DeleteCopy { name: 0 }),
        (5 * MINUTE, write(1, Now)),
    ];
    assert!(outcome(SCANNED, steps).has("a.txt"));
}

#[test]
fn a_scan_sends_what_a_submit_recorded_and_could_not_send() {
    let down = Down {
        service: ServiceKind::FilesQueue,
        seconds: 3600,
    };
    let steps = vec![
        (1, down),
        (1, write(1, Now)),
        (5000, Submit { name: 0 }),
        (2 * HOUR, Touch { name: 1, time: Now }),
    ];
    all_is_well(SCANNED, steps);
}

#[test]
fn a_dead_letter_that_is_redriven_within_five_minutes_is_restored() {
    let obstructed = Obstruct {
        name: 0,
        seconds: 60,
    };
    let steps = vec![(1, obstructed), (1, write(1, Now)), (100_000, Redrive)];
    all_is_well(SCANNED, steps);
}

#[test]
fn a_redrive_that_cannot_read_the_source_leaves_the_dead_letter() {
    let settings = SimSettings {
        redrives: 1,
        ..SCANNED
    };
    let source_down = DiskDown {
        side: Side::Source,
        seconds: 600,
    };
    let steps = vec![
        (1, WEEKEND),
        (1, write(1, Now)),
        (71 * HOUR, source_down),
        (1000, Redrive),
        (HOUR, write_other(2)),
    ];
    all_is_well(settings, steps);
}

#[test]
fn a_redrive_announces_what_took_the_place_of_an_expired_file() {
    let settings = SimSettings {
        redrives: 1,
        ..SUBMITTED
    };
    // The processes of a pipeline without a scanner.
    let weekend = Stop {
        role: 1,
        seconds: 70 * 3600,
    };
    let steps = vec![
        (1, weekend),
        (1, write(1, Now)),
        (1, Submit { name: 0 }),
        (71 * HOUR, write(2, Now)),
    ];
    assert!(outcome(settings, steps).has("a.txt"));
}

#[test]
fn a_file_announced_twice_is_not_called_missing_once_it_was_restored_and_deleted() {
    let settings = SimSettings {
        scan_seconds: Some(10),
        has_notes: true,
        bundles: true,
        on_restored: OnRestored::Delete,
        ..SCANNED
    };
    // A scan announces the file, and so does a person, while the queue answers slowly.
    let slow_queue = Slow {
        service: ServiceKind::FilesQueue,
        millis: 3916,
        seconds: 120,
    };
    for seconds in 1..=60 {
        let history = History {
            seed: 36,
            settings,
            steps: vec![
                (MINUTE, write(1, Now)),
                (1, slow_queue),
                (seconds * 1000, Submit { name: 0 }),
            ],
        };
        let outcome = run(&history);
        let wrong = outcome.violations.join("\n");
        assert!(wrong.is_empty(), "{wrong}\n\n{history}");
        let letters = outcome.dead_letters();
        assert!(letters.is_empty(), "{letters:?}\n\n{history}");
    }
}

#[test]
fn a_file_that_vanished_unread_is_called_missing_where_restored_files_are_deleted() {
    let history = History {
        seed: 1,
        settings: SimSettings {
            on_restored: OnRestored::Delete,
            ..NOTED
        },
        steps: vec![
            (
                1,
                Stop {
                    role: COMPRESSOR,
                    seconds: 300,
                },
            ),
            (1000, write(1, Now)),
            (2 * MINUTE, Delete { name: 0 }),
        ],
    };
    let outcome = run(&history);
    let wrong = outcome.violations.join("\n");
    assert!(wrong.is_empty(), "{wrong}\n\n{history}");
    let letters = outcome.dead_letters();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert!(letters[0].contains("SourceMissing"), "{letters:?}");
}

#[test]
fn what_was_packed_is_recovered_from_the_stream_after_its_queue_was_purged() {
    // Without a scanner the processes are the compressor and the decompressor.
    let stopped = Stop {
        role: 1,
        seconds: 600,
    };
    let purged = Purge {
        service: ServiceKind::ChunksQueue,
    };
    let submitted = (1000, Submit { name: 0 });
    let (first, second) = ((1, write(1, Now)), (MINUTE, write(2, Now)));
    for versions in [
        vec![first, submitted],
        vec![first, submitted, second, submitted],
    ] {
        let before = [&[(1, stopped)], &versions[..]].concat();
        // Beside a pipeline that has lost nothing it changes nothing.
        for loss in [vec![], vec![(MINUTE, purged)]] {
            let steps = [&before[..], &loss, &[(MINUTE, Recover)]].concat();
            all_is_well(SUBMITTED, steps);
        }
    }
}

#[test]
fn what_took_the_place_of_a_submitted_file_is_restored_although_its_announcer_is_killed() {
    // The compressor: what it announces, nothing scans.
    let role = 0;
    for effects in 0..20 {
        let kill = Kill { role, effects };
        let steps = vec![
            (1, write(1, Now)),
            (MINUTE, kill),
            (1, Submit { name: 0 }),
            (1, write(2, Now)),
        ];
        assert!(outcome(SUBMITTED, steps).has("a.txt"), "{effects}");
    }
}

#[test]
fn a_changed_file_is_restored_soon_although_the_clock_was_set_back() {
    let steps = vec![
        (33_060, Clock { millis: -6_033_910 }),
        (573_970, Clock { millis: -6_159_255 }),
        (25_763, Clock { millis: -2_215_300 }),
        (
            2_541_139,
            Down {
                service: ServiceKind::Slots,
                seconds: 23_943,
            },
        ),
        (
            8_796,
            Write {
                name: 1,
                content: 51,
                bytes: 40,
                how: Replace,
                time: Same,
            },
        ),
        (61_420, Submit { name: 2 }),
        (
            159_150,
            Write {
                name: 1,
                content: 55,
                bytes: 4096,
                how: Replace,
                time: Now,
            },
        ),
    ];
    let settings = SimSettings {
        compressors: 2,
        slots: 2,
        scan_seconds: Some(7),
        visibility_seconds: 300,
        has_notes: true,
        bundles: true,
        ..SCANNED
    };
    all_is_well(settings, steps);
}

#[test]
fn a_late_receipt_of_content_that_came_back_takes_nothing_away_that_is_not_restored() {
    let service = ServiceKind::ReceiptsQueue;
    for settings in [SCANNED, NOTED] {
        let settings = SimSettings {
            on_restored: OnRestored::Delete,
            ..settings
        };
        // Before the content between was seen, and after it was restored.
        for pause in [5000, 2 * MINUTE] {
            let steps = vec![
                (
                    1,
                    Down {
                        service,
                        seconds: 600,
                    },
                ),
                (1, write(1, Now)),
                (2 * MINUTE, write(2, Now)),
                (pause, write(1, Now)),
            ];
            all_is_well(settings, steps);
        }
    }
}

#[test]
fn a_purged_request_to_send_a_file_again_is_made_up_for() {
    let service = ServiceKind::ReceiptsQueue;
    for settings in [SCANNED, NOTED] {
        let settings = SimSettings {
            retention_minutes: 10,
            ..settings
        };
        let stop = |role, seconds| Stop { role, seconds };
        let steps = vec![
            (1, stop(DECOMPRESSOR, 1200)),
            (1, write(1, Now)),
            // It is packed, and its records expire; then nothing takes the request to pack it again.
            (10 * MINUTE, stop(COMPRESSOR, 1800)),
            (15 * MINUTE, Purge { service }),
        ];
        all_is_well(settings, steps);
    }
}

#[test]
fn a_letter_that_is_redriven_from_a_source_that_was_put_aside_replaces_nothing_newer() {
    for (settings, retention_minutes) in [(SCANNED, 10), (NOTED, 10), (SCANNED, 24 * 60)] {
        let settings = SimSettings {
            on_compressed: OnCompressed::Rename,
            retention_minutes,
            ..settings
        };
        let (name, seconds) = (0, 600);
        let steps = vec![
            (1, Obstruct { name, seconds }),
            (1000, write(1, Now)),
            // The first is a dead letter, and with the short retention its records are gone: only what was put aside has it.
            (20 * MINUTE, write(2, Now)),
            (2 * MINUTE, Redrive),
        ];
        let outcome = outcome(settings, steps);
        assert_eq!(outcome.dead_letters(), Vec::<String>::new());
        assert!(outcome.has("a.txt"), "the newer version is gone");
    }
}

#[test]
fn a_scanner_that_was_frozen_announces_nothing_old_over_what_was_put_aside_meanwhile() {
    let packed = SimSettings {
        on_compressed: OnCompressed::Rename,
        scan_seconds: Some(9),
        is_coarse: true,
        ..SCANNED
    };
    let restored = SimSettings {
        on_compressed: OnCompressed::Keep,
        on_restored: OnRestored::Rename,
        ..packed
    };
    for (settings, has_notes) in [
        (packed, false),
        (packed, true),
        (restored, false),
        (restored, true),
    ] {
        // At different moments of its work with the first content.
        for delay in (0..12_000).step_by(400) {
            let settings = SimSettings {
                has_notes,
                ..settings
            };
            let seconds = 635;
            let steps = vec![
                (20_000, write(1, Now)),
                (
                    delay,
                    Freeze {
                        role: SCANNER,
                        seconds,
                    },
                ),
                (5 * MINUTE, Submit { name: 0 }),
                (20_000, write(2, Now)),
                (20_000, Submit { name: 0 }),
            ];
            all_is_well(settings, steps);
        }
    }
}

#[test]
fn a_source_that_was_set_aside_to_be_deleted_is_back_after_its_process_was_killed() {
    for effects in 0..24 {
        let settings = SimSettings {
            on_restored: OnRestored::Delete,
            ..SCANNED
        };
        let role = COMPRESSOR;
        let steps = vec![
            (1, write(1, Now)),
            (10_000, Kill { role, effects }),
            (MINUTE, write_other(2)),
        ];
        all_is_well(settings, steps);
    }
}

#[test]
fn a_denied_file_and_one_that_does_not_fit_keep_no_healthy_file_away() {
    for is_strict in [false, true] {
        let settings = SimSettings {
            is_strict,
            redrives: 1,
            ..SCANNED
        };
        let nearly_full = Full {
            side: Side::Destination,
            // More than is tried for another file, and less than the large one needs.
            free_bytes: 90_000,
            seconds: 7200,
        };
        let denied = Deny {
            name: 2,
            seconds: 7200,
        };
        let file = |name, content, bytes| Write {
            name,
            content,
            bytes,
            how: Replace,
            time: Now,
        };
        let steps = vec![
            (1, nearly_full),
            (1, denied),
            (1, file(0, 1, 120_000)),
            (1, file(2, 2, 40)),
            (20_000, write_other(3)),
            (3 * HOUR, write_other(4)),
        ];
        let outcome = outcome(settings, steps);
        let restored = outcome.first_restored("b.csv").expect("restored");
        // In one order for all files it waits until the one before it fits.
        let longest = if is_strict { 3 * HOUR } else { 2 * MINUTE };
        assert!(restored.as_millis() < longest.into(), "{restored:?}");
        assert!(outcome.has("a.txt") && outcome.has("folder/c.json"));
        assert_eq!(outcome.dead_letters(), Vec::<String>::new());
    }
}

#[test]
fn a_dead_letter_with_good_records_is_restored_by_a_redrive_although_its_source_is_gone() {
    let obstructed = Obstruct {
        name: 0,
        seconds: 600,
    };
    let steps = vec![
        (1, obstructed),
        (1, write(1, Now)),
        (5 * MINUTE, Delete { name: 0 }),
        (6 * MINUTE, Redrive),
    ];
    let outcome = outcome(SCANNED, steps);
    assert!(outcome.has("a.txt"));
    assert_eq!(outcome.dead_letters(), Vec::<String>::new());
}
