//! Histories of small files that share a block.

use streampress_codec::FormatVersion;

use super::history::{History, HistoryStep, How, SimSettings, Time};
use super::named::{COMPRESSOR, DECOMPRESSOR, SCANNED};
use super::run::{Outcome, run};

const HOUR: u64 = 3_600_000;
/// A file that is announced, and packed alone, before the two others are.
const FIRST: u8 = 0;
const OTHERS: [u8; 2] = [1, 2];

const BUNDLED: SimSettings = SimSettings {
    bundles: true,
    ..SCANNED
};

const fn write(name: u8, content: u16) -> (u64, HistoryStep) {
    let step = HistoryStep::Write {
        name,
        content,
        bytes: 300,
        how: How::Replace,
        time: Time::Now,
    };
    (1, step)
}

/// All files are written at once.
fn all(content: u16) -> Vec<(u64, HistoryStep)> {
    vec![
        write(FIRST, content),
        write(OTHERS[0], content + 1),
        write(OTHERS[1], content + 2),
    ]
}

/// The outcome of a history in which files shared a block, and the promise was kept.
fn outcome(settings: SimSettings, seed: u64, steps: Vec<(u64, HistoryStep)>) -> Outcome {
    let (outcome, history) = kept(settings, seed, steps);
    assert!(outcome.bundled_files >= 2, "no bundle\n\n{history}");
    outcome
}

/// The outcome of a history in which the promise was kept.
fn kept(settings: SimSettings, seed: u64, steps: Vec<(u64, HistoryStep)>) -> (Outcome, History) {
    let history = History {
        seed,
        settings,
        steps,
    };
    let outcome = run(&history);
    let wrong = outcome.violations.join("\n");
    assert!(wrong.is_empty(), "{wrong}\n\n{history}");
    (outcome, history)
}

#[test]
fn files_that_are_announced_together_share_a_block() {
    for format_version in [FormatVersion::V1, FormatVersion::V2] {
        let settings = SimSettings {
            format_version,
            ..BUNDLED
        };
        let outcome = outcome(settings, 1, all(1));
        assert_eq!(outcome.bundled_files, 2);
        assert!(outcome.has("b.csv") && outcome.has("folder/c.json"));
    }
}

#[test]
fn a_bundle_that_expired_is_requested_again_for_each_of_its_files() {
    let weekend = HistoryStep::Stop {
        role: DECOMPRESSOR,
        seconds: 70 * 3600,
    };
    // Their manifests wait for longer than the stream keeps records; the third file's come after that.
    let mut steps = vec![(1, weekend)];
    steps.extend(all(1));
    steps.push((71 * HOUR, write(FIRST, 4).1));
    let outcome = outcome(BUNDLED, 1, steps);
    assert_eq!(outcome.dead_letters(), Vec::<String>::new());
    assert!(outcome.bundled_files >= 4, "{}", outcome.bundled_files);
}

#[test]
fn a_file_that_changes_while_others_are_packed_harms_none() {
    let with_bundles = (1..=20).filter(|seed| {
        let mut steps = all(1);
        // About when the first contents are announced and packed. What changes before it is read is announced anew later, and
        // packed alone.
        steps.push((12_000 + 50 * seed, write(OTHERS[1], 5).1));
        kept(BUNDLED, *seed, steps).0.bundled_files >= 2
    });
    let bundled = with_bundles.count();
    assert!((5..20).contains(&bundled), "{bundled}");
}

#[test]
fn a_killed_or_stopped_compressor_leaves_no_file_behind() {
    for seed in 1..=20 {
        let end = match seed % 2 {
            0 => HistoryStep::Restart { role: COMPRESSOR },
            _ => HistoryStep::Kill {
                role: COMPRESSOR,
                effects: u8::try_from(seed % 8).unwrap_or(0),
            },
        };
        let mut steps = all(1);
        steps.push((12_500 + 150 * seed, end));
        steps.extend(all(4));
        let settings = SimSettings {
            decompressors: 2,
            slots: 2,
            format_version: match seed % 4 < 2 {
                true => FormatVersion::V1,
                false => FormatVersion::V2,
            },
            ..BUNDLED
        };
        outcome(settings, seed, steps);
    }
}

#[test]
fn half_of_the_generated_histories_pack_files_together() {
    let settings = |seed| History::generate(seed, 0).settings;
    let bundled = (1..=40).filter(|seed| settings(*seed).bundles).count();
    assert_eq!(bundled, 20);
    let with_bundles = (1..=48).filter(|seed| {
        let history = History::generate(*seed, 100);
        history.settings.bundles && run(&history).bundled_files > 0
    });
    assert!(with_bundles.count() >= 4);
}
