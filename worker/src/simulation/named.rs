//! Histories that once broke the promise, as they were shrunk, and such as the design must survive. One that is still
//! broken is ignored, with the reason.

use super::history::{History, HistoryStep, How, ServiceKind, Side, SimSettings, Time};
use super::run::{Outcome, run};

use self::HistoryStep::*;
use self::How::{InPlace, Replace};
use self::Time::{Future, Now, Past, Same};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
/// Numbers of processes of [`SCANNED`].
const SCANNER: u8 = 0;
const COMPRESSOR: u8 = 1;
const DECOMPRESSOR: u8 = 2;

const SCANNED: SimSettings = SimSettings {
    compressors: 1,
    decompressors: 1,
    slots: 1,
    scan_seconds: Some(2),
    visibility_seconds: 30,
    is_coarse: false,
    is_strict: false,
    redrives: 0,
};

const SUBMITTED: SimSettings = SimSettings {
    scan_seconds: None,
    ..SCANNED
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
#[ignore = "ten minutes of a full disk make dead letters"]
fn a_full_disk_makes_no_dead_letter() {
    let full = Full {
        side: Side::Destination,
        seconds: 7200,
    };
    all_is_well(
        SCANNED,
        vec![(1, full), (1, write(1, Now)), (2 * HOUR, write(2, Now))],
    );
}

#[test]
#[ignore = "an outage makes dead letters"]
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
            vec![(1, outage), (1, write(1, Now)), (3 * HOUR, write(2, Now))],
        );
    }
}

#[test]
#[ignore = "an expired record is a dead letter, and the source is not announced again"]
fn a_weekend_without_decompressors_mends_itself() {
    let weekend = Stop {
        role: DECOMPRESSOR,
        seconds: 70 * 3600,
    };
    all_is_well(
        SCANNED,
        vec![(1, weekend), (1, write(1, Now)), (71 * HOUR, write(2, Now))],
    );
}

#[test]
fn a_redrive_brings_back_what_expired() {
    let weekend = Stop {
        role: DECOMPRESSOR,
        seconds: 70 * 3600,
    };
    let settings = SimSettings {
        redrives: 1,
        ..SCANNED
    };
    all_is_well(settings, vec![(1, weekend), (1, write(1, Now))]);
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
            let steps = vec![
                (1, Kill { role, effects }),
                (1, write(1, Now)),
                (20_000, write(2, Now)),
            ];
            outcome(settings, steps);
        }
    }
}

#[test]
#[ignore = "what was announced and lost is not announced again"]
fn a_purged_or_remade_queue_loses_no_file() {
    for service in [ServiceKind::FilesQueue, ServiceKind::ChunksQueue] {
        for step in [Purge { service }, Remake { service }] {
            let stopped = |role| Stop { role, seconds: 600 };
            let steps = vec![
                (1, stopped(COMPRESSOR)),
                (1, stopped(DECOMPRESSOR)),
                (1, write(1, Now)),
                (5 * MINUTE, step),
            ];
            all_is_well(SCANNED, steps);
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
