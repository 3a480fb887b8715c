//! How long packed files and their dead letters have waited, and for how long the stream must keep their records. Pure.
//!
//! SQS tells no message's age through its API. The number of messages, seen again and again, and the number of files that
//! were restored meanwhile bound the age of the oldest one from above.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use streampress_crds::CompressionPipelineStatus;
use streampress_crds::api::status::RetentionStatus;
use streampress_transport::EmptyQueues;

use crate::transport::{Depths, RetentionPlan};

/// SQS keeps no message for longer than 14 days, so that no longer retention helps.
const LONGEST_HOURS: u32 = 14 * 24;
/// A message that has waited for less than this is not at risk with any retention: AWS's shortest is 24 hours.
const SHORT_WAIT: SignedDuration = SignedDuration::from_hours(1);

/// What is remembered of the waiting messages from one reconcile to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WaitingHistory {
    /// Since when the oldest message has waited, at the earliest.
    since: Option<Timestamp>,
    /// When everything that waited was counted.
    checkpoint: Option<Checkpoint>,
    /// Since when the queues have been seen empty, in time since 1970.
    empty: EmptyQueues<Duration>,
}

/// Everything that waited at one moment was restored or became a dead letter once `concluded` files did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Checkpoint {
    at: Timestamp,
    concluded: u64,
}

impl WaitingHistory {
    /// As another operator process left it.
    pub(crate) fn resumed(status: &CompressionPipelineStatus) -> Self {
        let since = status.backlog.as_ref().and_then(|backlog| {
            let since = backlog.waiting_since.as_ref()?;
            since.parse().ok()
        });
        Self {
            since,
            ..Self::default()
        }
    }

    /// Takes in what is seen now; `concluded` is the number of files that decompressors restored, refused as superseded or
    /// put into the dead-letter queue, by the ledgers. Answers since when the oldest message has waited.
    pub(crate) fn observe(
        &mut self,
        depths: Depths,
        concluded: u64,
        now: Timestamp,
    ) -> Option<Timestamp> {
        // Seconds suffice, and a status with fewer digits is easier to read.
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let Some(waiting) = depths.chunks.map(|chunks| chunks.total()) else {
            return self.since;
        };
        // Dead letters that cannot be counted are there as before.
        let has_dead = depths
            .dead_chunks
            .map_or(self.since.is_some(), |dead| dead > 0);
        if waiting == 0 && !has_dead {
            return self.observe_empty(now);
        }
        self.empty = EmptyQueues::default();
        let next = Checkpoint {
            at: now,
            concluded: concluded.saturating_add(waiting),
        };
        let passed = *self.checkpoint.get_or_insert(next);
        let since = *self.since.get_or_insert(now);
        if concluded >= passed.concluded && waiting > 0 {
            // As many files as waited at the checkpoint were concluded: what waits now came later. A dead letter stays.
            self.checkpoint = Some(next);
            if !has_dead {
                self.since = Some(since.max(passed.at));
            }
        }
        self.since
    }

    fn observe_empty(&mut self, now: Timestamp) -> Option<Timestamp> {
        let since = self.since?;
        let since_1970 = now.as_duration().unsigned_abs();
        self.empty.observe(true, since_1970);
        let is_short = now.duration_since(since) < SHORT_WAIT;
        if is_short || self.empty.are_certain(since_1970) {
            *self = Self::default();
        }
        self.since
    }

    /// Whether the queues must be counted again soon, although nothing changes.
    pub(crate) fn is_pending(&self) -> bool {
        self.empty != EmptyQueues::default()
    }
}

/// What the stream's retention depends on.
#[derive(Clone, Debug, Default)]
pub(crate) struct RetentionFacts {
    /// For how long the stream keeps records now, in hours; `None` where that is not known.
    pub(crate) hours: Option<u32>,
    /// Why the stream could not be given the planned retention, in a sentence.
    pub(crate) not_extended: Option<String>,
    /// What the spec says.
    pub(crate) spec: RetentionSpec,
    /// Since when the oldest packed file or dead letter has waited.
    pub(crate) waiting_since: Option<Timestamp>,
}

/// What the spec says of the retention.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RetentionSpec {
    /// In hours.
    pub(crate) hours: u32,
    /// The stream's shards, for each of which AWS bills a longer retention.
    pub(crate) shards: u32,
    /// Whether the stream is this pipeline's own, with policy Create.
    pub(crate) is_own: bool,
    /// `extendRetention`.
    pub(crate) extend: bool,
}

/// What is reported of the retention.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RetentionReport {
    /// The part of the status.
    pub(crate) status: RetentionStatus,
    /// Since when the oldest packed file or dead letter has waited.
    pub(crate) waiting_since: Option<Timestamp>,
    /// The message of the condition, where something is at risk.
    pub(crate) message: String,
}

/// What is to be reported; `former` is what was reported before.
pub(crate) fn report(
    facts: &RetentionFacts,
    former: &RetentionStatus,
    now: Timestamp,
) -> RetentionReport {
    let hours = facts.hours.or(whole(former.hours));
    let waited = facts.waiting_since.map(|since| now.duration_since(since));
    let at_risk = hours
        .zip(waited)
        .is_some_and(|(hours, waited)| waited * 2 >= SignedDuration::from_hours(hours.into()));
    let planned = facts
        .spec
        .is_own
        .then(|| planned_hours(facts, hours, whole(former.planned_hours), at_risk));
    RetentionReport {
        status: RetentionStatus {
            hours: hours.map(i64::from),
            at_risk,
            planned_hours: planned.map(i64::from),
        },
        waiting_since: facts.waiting_since,
        message: match (at_risk, hours) {
            (true, Some(hours)) => message(facts, hours, planned.unwrap_or(0)),
            _ => String::new(),
        },
    }
}

/// What is to be done at the stream, by a status that has been written: a restarted operator must know what it raised.
pub(crate) fn plan(spec: RetentionSpec, status: &CompressionPipelineStatus) -> RetentionPlan {
    let retention = status.retention.as_ref();
    let planned = retention.and_then(|retention| whole(retention.planned_hours));
    let raised = planned.filter(|hours| spec.is_own && *hours > spec.hours);
    let backlog = status.backlog.as_ref();
    let something_waits = backlog.is_some_and(|backlog| backlog.waiting_since.is_some());
    match something_waits {
        true => RetentionPlan {
            extend_to: raised,
            lower_from: None,
        },
        false => RetentionPlan {
            extend_to: None,
            lower_from: raised,
        },
    }
}

fn planned_hours(
    facts: &RetentionFacts,
    hours: Option<u32>,
    before: Option<u32>,
    at_risk: bool,
) -> u32 {
    let spec = facts.spec;
    let before = before.unwrap_or(0).max(spec.hours);
    if facts.waiting_since.is_none() {
        // Remembered until the stream has the spec's hours. Hours that were not planned were given by others.
        return match hours {
            Some(hours) if hours != before => spec.hours,
            _ => before,
        };
    }
    match hours {
        // The stream has what was planned, and that does not suffice.
        Some(hours) if at_risk && spec.extend && hours >= before && hours < LONGEST_HOURS => {
            hours.saturating_mul(2).min(LONGEST_HOURS)
        }
        _ => before,
    }
}

fn message(facts: &RetentionFacts, hours: u32, planned: u32) -> String {
    let spec = facts.spec;
    let (what_is_done, advice) = if !spec.is_own {
        (
            "The operator does not change a stream that it adopted.".to_owned(),
            ", or raise the stream's retention",
        )
    } else if planned > hours {
        let done = match &facts.not_extended {
            None => format!(
                "The operator extends the retention to {planned} hours; AWS bills each of the stream's {} shards by the hour for a retention above 24 hours, and what is kept for longer than 7 days by the GB.",
                spec.shards
            ),
            Some(problem) => {
                format!("The operator could not extend the retention to {planned} hours: {problem}")
            }
        };
        (done, "")
    } else if !spec.extend {
        (
            "The operator does not extend it, since spec.transport.stream.extendRetention is false.".to_owned(),
            ", or raise spec.transport.stream.retentionHours",
        )
    } else {
        (
            "The operator does not extend it further: queues keep no message for longer than 14 days.".to_owned(),
            "",
        )
    };
    format!(
        "Packed files or their dead letters have waited for half of the {hours} hours for which the stream keeps records, or longer. {what_is_done} Let decompressors run and send dead letters again (`streampress redrive`) before the records expire{advice}."
    )
}

fn whole(hours: Option<i64>) -> Option<u32> {
    hours.and_then(|hours| u32::try_from(hours).ok())
}

#[cfg(test)]
mod tests {
    use streampress_crds::api::status::BacklogStatus;
    use streampress_transport::Depth;

    use super::*;

    const SPEC: RetentionSpec = RetentionSpec {
        hours: 24,
        shards: 2,
        is_own: true,
        extend: true,
    };

    fn at_second(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).expect("a time")
    }

    fn at(hour: i64) -> Timestamp {
        at_second(hour * 3600)
    }

    fn depths(chunks: u64, dead: u64) -> Depths {
        Depths {
            chunks: Some(Depth {
                visible: chunks,
                ..Depth::default()
            }),
            dead_chunks: Some(dead),
            ..Depths::default()
        }
    }

    /// One pipeline as the operator reports it from hour to hour.
    #[derive(Default)]
    struct Reported {
        waiting: WaitingHistory,
        status: CompressionPipelineStatus,
    }

    impl Reported {
        fn report(&mut self, hour: i64, facts: &RetentionFacts) -> RetentionReport {
            let former = self.status.retention.clone().unwrap_or_default();
            let report = report(facts, &former, at(hour));
            self.status.retention = Some(report.status.clone());
            self.status.backlog = Some(BacklogStatus {
                waiting_since: report.waiting_since.map(|since| since.to_string()),
                ..BacklogStatus::default()
            });
            report
        }

        /// Something has waited since hour 0, and the stream keeps records for `hours`.
        fn waiting(&mut self, hour: i64, hours: u32) -> (bool, Option<i64>) {
            let facts = RetentionFacts {
                hours: Some(hours),
                spec: SPEC,
                waiting_since: Some(at(0)),
                ..RetentionFacts::default()
            };
            let status = self.report(hour, &facts).status;
            (status.at_risk, status.planned_hours)
        }

        fn idle(&mut self, hours: u32, spec: RetentionSpec) -> Option<i64> {
            let facts = RetentionFacts {
                hours: Some(hours),
                spec,
                ..RetentionFacts::default()
            };
            self.report(1000, &facts).status.planned_hours
        }

        fn age(&mut self, hour: i64, depths: Depths, concluded: u64) -> Option<i64> {
            let since = self.waiting.observe(depths, concluded, at(hour));
            since.map(|since| at(hour).duration_since(since).as_hours())
        }
    }

    fn extend_to(hours: u32) -> RetentionPlan {
        RetentionPlan {
            extend_to: Some(hours),
            lower_from: None,
        }
    }

    fn lower_from(hours: u32) -> RetentionPlan {
        RetentionPlan {
            extend_to: None,
            lower_from: Some(hours),
        }
    }

    #[test]
    fn what_waits_for_half_of_the_retention_is_at_risk_and_the_retention_doubles_up_to_14_days() {
        let mut pipeline = Reported::default();
        for (hour, hours, at_risk, planned) in [
            (0, 24, false, 24),
            (11, 24, false, 24),
            (12, 24, true, 48),
            // Not done yet.
            (13, 24, true, 48),
            (13, 48, false, 48),
            (24, 48, true, 96),
            (48, 96, true, 192),
            (96, 192, true, 336),
            (167, 336, false, 336),
            (168, 336, true, 336),
        ] {
            assert_eq!(
                pipeline.waiting(hour, hours),
                (at_risk, Some(planned)),
                "at hour {hour} with {hours} hours"
            );
        }
        assert_eq!(plan(SPEC, &pipeline.status), extend_to(336));
    }

    #[test]
    fn what_was_extended_goes_back_once_nothing_waits() {
        let mut pipeline = Reported::default();
        pipeline.waiting(12, 24);
        assert_eq!(plan(SPEC, &pipeline.status), extend_to(48));
        pipeline.waiting(13, 48);
        assert_eq!(plan(SPEC, &pipeline.status), extend_to(48));
        assert_eq!(pipeline.idle(48, SPEC), Some(48));
        assert_eq!(plan(SPEC, &pipeline.status), lower_from(48));
        assert_eq!(pipeline.idle(24, SPEC), Some(24));
        assert_eq!(plan(SPEC, &pipeline.status), RetentionPlan::default());
    }

    #[test]
    fn a_lower_retention_in_the_spec_is_carried_out_once_nothing_waits() {
        let mut pipeline = Reported::default();
        let longer = RetentionSpec { hours: 72, ..SPEC };
        assert_eq!(pipeline.idle(72, longer), Some(72));
        assert_eq!(pipeline.waiting(1, 72), (false, Some(72)));
        assert_eq!(plan(SPEC, &pipeline.status), extend_to(72));
        assert_eq!(pipeline.idle(72, SPEC), Some(72));
        assert_eq!(plan(SPEC, &pipeline.status), lower_from(72));
    }

    #[test]
    fn a_retention_that_others_gave_the_stream_is_never_lowered() {
        let mut pipeline = Reported::default();
        assert_eq!(pipeline.idle(500, SPEC), Some(24));
        assert_eq!(plan(SPEC, &pipeline.status), RetentionPlan::default());
        // Already longer than any message waits.
        assert_eq!(pipeline.waiting(400, 500), (true, Some(24)));
        assert_eq!(plan(SPEC, &pipeline.status), RetentionPlan::default());
        // They changed what the operator had planned.
        let mut pipeline = Reported::default();
        pipeline.waiting(12, 24);
        assert_eq!(pipeline.idle(100, SPEC), Some(24));
    }

    #[test]
    fn an_adopted_stream_is_only_warned_about() {
        let adopted = RetentionSpec {
            is_own: false,
            ..SPEC
        };
        let facts = RetentionFacts {
            hours: Some(24),
            spec: adopted,
            waiting_since: Some(at(0)),
            ..RetentionFacts::default()
        };
        let mut pipeline = Reported::default();
        let report = pipeline.report(12, &facts);
        assert_eq!(
            (report.status.at_risk, report.status.planned_hours),
            (true, None)
        );
        assert!(
            report
                .message
                .contains("does not change a stream that it adopted"),
            "{}",
            report.message
        );
        assert_eq!(plan(adopted, &pipeline.status), RetentionPlan::default());
    }

    #[test]
    fn the_message_says_what_is_done_and_why_nothing_is() {
        let message = |extend, hours, not_extended: Option<&str>| {
            let facts = RetentionFacts {
                hours: Some(hours),
                not_extended: not_extended.map(str::to_owned),
                spec: RetentionSpec { extend, ..SPEC },
                waiting_since: Some(at(0)),
            };
            report(&facts, &RetentionStatus::default(), at(300)).message
        };
        for (message, says) in [
            (
                message(true, 24, None),
                "extends the retention to 48 hours; AWS bills each of the stream's 2 shards",
            ),
            (
                message(true, 24, Some("Denied.")),
                "could not extend the retention to 48 hours: Denied.",
            ),
            (message(false, 24, None), "extendRetention is false"),
            (
                message(true, 336, None),
                "no message for longer than 14 days",
            ),
        ] {
            assert!(message.contains(says), "{message}");
            assert!(message.contains("streampress redrive"), "{message}");
        }
    }

    #[test]
    fn a_backlog_that_is_worked_off_is_as_old_as_the_last_round() {
        let mut pipeline = Reported::default();
        for (hour, concluded, age) in [
            (0, 100, 0),
            (10, 104, 10),
            // All five of hour 0 are done.
            (20, 105, 20),
            (30, 110, 10),
        ] {
            assert_eq!(
                pipeline.age(hour, depths(5, 0), concluded),
                Some(age),
                "{hour}"
            );
        }
    }

    #[test]
    fn a_dead_letter_needs_its_records_however_much_is_restored() {
        let mut pipeline = Reported::default();
        pipeline.age(0, depths(0, 1), 0);
        pipeline.age(6, depths(5, 1), 50);
        assert_eq!(pipeline.age(12, depths(5, 1), 900), Some(12));
        // It was sent again, and what waited with it was restored.
        pipeline.age(13, depths(5, 0), 901);
        assert_eq!(pipeline.age(14, depths(5, 0), 950), Some(2));
    }

    #[test]
    fn an_unknown_depth_changes_nothing_and_a_restarted_operator_continues() {
        let mut pipeline = Reported::default();
        pipeline.age(0, depths(5, 0), 0);
        assert_eq!(pipeline.age(11, Depths::default(), 0), Some(11));
        let no_dead_letters = Depths {
            dead_chunks: None,
            ..depths(0, 0)
        };
        assert_eq!(pipeline.age(11, no_dead_letters, 5), Some(11));
        pipeline.waiting(11, 24);
        pipeline.waiting = WaitingHistory::resumed(&pipeline.status);
        assert_eq!(pipeline.age(12, depths(5, 0), 0), Some(12));
    }

    #[test]
    fn a_long_wait_is_over_only_once_the_queues_were_seen_empty_for_a_minute() {
        let mut waiting = WaitingHistory::default();
        let mut is_waiting = |second, chunks| {
            let since = waiting.observe(depths(chunks, 0), 0, at_second(second));
            (since.is_some(), waiting.is_pending())
        };
        let hour = 3600;
        assert_eq!(is_waiting(0, 1), (true, false));
        assert_eq!(is_waiting(hour, 0), (true, true));
        // It was counted late.
        assert_eq!(is_waiting(hour + 30, 1), (true, false));
        assert_eq!(is_waiting(hour + 40, 0), (true, true));
        assert_eq!(is_waiting(hour + 99, 0), (true, true));
        assert_eq!(is_waiting(hour + 100, 0), (false, false));
        // A short one needs no records that could expire.
        assert_eq!(is_waiting(hour + 200, 1), (true, false));
        assert_eq!(is_waiting(hour + 210, 0), (false, false));
    }
}
