//! Whether what the processes counted, and what they used, agrees with what happened.

use super::check::Rest;
use super::ends::VersionEnds;
use super::history::{HistoryStep, Side};
use super::record::RunRecord;
use crate::message::Digest;
use crate::telemetry::metrics::RetryCause;

/// Beyond these something runs in circles. Of 600 histories none had more than 3 messages and 700 bytes for a version and one more,
/// nor more than 5 calls a second.
const MOST_MESSAGES: u64 = 20;
const MOST_BYTES: u64 = 16 << 10;
const MOST_CALLS: u64 = 200;
/// What waits looks again, and what is held is renewed.
const MOST_CALLS_EACH_SECOND: u64 = 8;

/// Messages, calls and bytes are bounded by the versions that were announced.
pub(super) fn what_was_used(record: &RunRecord, rest: &Rest) -> Vec<String> {
    let versions = record.announced.len() as u64;
    let seconds = rest.elapsed.as_secs();
    let most = |each: u64| each * (versions + 1);
    let all = [
        ("messages", rest.sends, most(MOST_MESSAGES)),
        ("bytes on the stream", rest.appended_bytes, most(MOST_BYTES)),
        (
            "calls",
            rest.calls,
            most(MOST_CALLS) + MOST_CALLS_EACH_SECOND * seconds,
        ),
    ];
    let too_many = all.into_iter().filter(|(_, used, most)| used > most);
    too_many
        .map(|(what, used, most)| {
            format!("{used} {what} for {versions} versions in {seconds} s; {most} are enough")
        })
        .collect()
}

/// What the processes counted agrees with what happened. What a killed process did last may not be counted, nor what others
/// took out of the queues.
pub(super) fn what_was_counted(record: &RunRecord, rest: &Rest, ends: &VersionEnds) -> Vec<String> {
    let counts = &rest.counts;
    let of_both = |cause| {
        let both = [&counts.packing, &counts.restoring];
        both.map(|counts| counts.retried.get(&cause).copied().unwrap_or_default())
            .iter()
            .sum::<u64>()
    };
    let dropped = of_both(RetryCause::Dropped);
    // Then a file that is visible may not be counted: whether it was is not known when its message is received again.
    let is_uncertain = record.steps.iter().any(|(_, step)| {
        let side = Side::Destination;
        matches!(step, HistoryStep::LostAnswers { side: of, .. } if *of == side)
    });
    let is_lossy = record.steps.iter().any(|(_, step)| step.loses_messages());
    let events = record.destination.values().flatten();
    let visible = events.filter(|event| event.by_pipeline && event.after.is_some());
    let visible = visible.count() as u64;
    let mut wrong = Vec::new();
    let mut compare = |what: &str, less: u64, more: u64| {
        if less > more {
            wrong.push(format!("{what}: {less} > {more}"));
        }
    };
    let restored = counts.restoring.files;
    compare(
        "files counted as restored, and made visible",
        restored,
        visible,
    );
    let superseded = counts.packing.superseded + counts.restoring.superseded;
    if !is_lossy {
        let by_pipeline = ends.restored.iter().filter(|(name, hash)| {
            let events = record.destination.get(name).into_iter().flatten();
            let mut own = events.filter(|event| event.by_pipeline);
            own.any(|event| {
                event
                    .after
                    .as_ref()
                    .is_some_and(|it| Digest::of(it).as_str() == hash)
            })
        });
        compare(
            "files restored, and counted as restored",
            by_pipeline.count() as u64,
            match is_uncertain {
                true => u64::MAX,
                false => restored + dropped,
            },
        );
        compare(
            "versions superseded, and counted as superseded",
            ends.superseded,
            superseded + record.replaced + dropped,
        );
    }
    let dead: u64 = [&counts.packing, &counts.restoring]
        .iter()
        .flat_map(|counts| counts.dead.values())
        .sum();
    // One that is delivered again is counted again, and its second dead letter is a duplicate.
    let has_duplicates = record
        .steps
        .iter()
        .any(|(_, step)| matches!(step, HistoryStep::Duplicates { .. }));
    if !has_duplicates {
        compare("dead letters counted, and sent", dead, counts.dead_letters);
    }
    compare(
        "dead letters left, and counted",
        rest.dead_letters.len() as u64,
        dead + dropped + of_both(RetryCause::NotDeadLettered),
    );
    wrong
}
