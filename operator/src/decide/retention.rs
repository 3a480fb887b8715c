//! How long packed files and dead letters have needed the stream's records, and whether they may outlast its retention. Pure:
//! SQS tells no message's age through its API, so what is seen of the queues again and again bounds it from above.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use streampress_crds::api::status::RetentionStatus;

use crate::transport::Depths;

/// SQS keeps no message longer than 14 days, so that no longer retention helps.
const LONGEST_HOURS: u32 = 14 * 24;

/// What is seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RetentionFacts {
    /// For how long the stream keeps records now, in hours; `None` where that is not known.
    pub(crate) hours: Option<u32>,
    /// What the spec says, in hours.
    pub(crate) spec_hours: u32,
    /// Whether the operator may extend it.
    pub(crate) extends: bool,
    /// The queues.
    pub(crate) depths: Depths,
    /// Files that decompressors restored or put into the dead-letter queue, by the ledgers.
    pub(crate) concluded: u64,
}

/// When everything that waited was counted, and how many files must be concluded until all of it was worked off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    at: Timestamp,
    concluded: u64,
}

/// What the status says of the retention; `former` and `checkpoint` are what was said and remembered before.
pub(crate) fn retention(
    facts: &RetentionFacts,
    former: &RetentionStatus,
    checkpoint: &mut Option<Checkpoint>,
    now: Timestamp,
) -> RetentionStatus {
    let waiting_since = waiting_since(facts, former, checkpoint, now);
    let hours = facts
        .hours
        .or_else(|| former.hours.and_then(|hours| u32::try_from(hours).ok()));
    let waited = waiting_since.map_or(SignedDuration::ZERO, |since| now.duration_since(since));
    let at_risk = hours.is_some_and(|hours| waited * 2 >= hours_long(hours));
    let planned = former.planned_hours.and_then(|it| u32::try_from(it).ok());
    let extended = former.extended_hours.and_then(|it| u32::try_from(it).ok());
    let extended = match (waiting_since, facts.extends) {
        (None, _) | (_, false) => None,
        (Some(_), true) if at_risk && hours.is_some_and(|it| it >= extended.unwrap_or(0)) => {
            hours.map(next_step).max(extended)
        }
        (Some(_), true) => extended,
    };
    let target = facts.spec_hours.max(extended.unwrap_or(0));
    RetentionStatus {
        hours: hours.map(i64::from),
        at_risk,
        waiting_since: waiting_since.map(|since| since.to_string()),
        extended_hours: extended.map(i64::from),
        // What was planned last is remembered until the stream has the new plan: only what this operator raised is lowered.
        planned_hours: Some(i64::from(match planned {
            Some(planned) if planned > target && hours == Some(planned) => planned,
            _ => target,
        })),
    }
}

/// The plan's hours, and the hours from which they may be lowered, by the status.
pub(crate) fn planned(spec_hours: u32, status: &RetentionStatus) -> (u32, Option<u32>) {
    let hours = |hours: Option<i64>| hours.and_then(|hours| u32::try_from(hours).ok());
    let target = spec_hours.max(hours(status.extended_hours).unwrap_or(0));
    let from = hours(status.planned_hours).filter(|planned| *planned > target);
    (target, from)
}

/// For how long something has waited, in whole minutes below an hour and in whole hours above, so that the status is not
/// written every second.
pub(crate) fn rounded_seconds(waiting_since: Option<&str>, now: Timestamp) -> Option<i64> {
    let since: Timestamp = waiting_since?.parse().ok()?;
    let seconds = now.duration_since(since).as_secs().max(0);
    let step = if seconds < 3600 { 60 } else { 3600 };
    Some(seconds - seconds % step)
}

fn waiting_since(
    facts: &RetentionFacts,
    former: &RetentionStatus,
    checkpoint: &mut Option<Checkpoint>,
    now: Timestamp,
) -> Option<Timestamp> {
    let before = former.waiting_since.as_ref().and_then(|it| it.parse().ok());
    let (Some(chunks), Some(dead)) = (facts.depths.chunks, facts.depths.dead_chunks) else {
        return before;
    };
    let waiting = chunks.total();
    if waiting == 0 && dead == 0 {
        *checkpoint = None;
        return None;
    }
    let next = Checkpoint {
        at: now,
        concluded: facts.concluded.saturating_add(waiting),
    };
    let Some(passed) = *checkpoint else {
        *checkpoint = Some(next);
        return Some(before.unwrap_or(now));
    };
    if facts.concluded < passed.concluded || waiting == 0 {
        return Some(before.unwrap_or(now));
    }
    // As many files as waited at the checkpoint were concluded since: what waits now is younger. A dead letter stays.
    *checkpoint = Some(next);
    match dead {
        0 => Some(passed.at),
        _ => Some(before.unwrap_or(passed.at)),
    }
}

fn next_step(hours: u32) -> u32 {
    hours.saturating_mul(2).min(LONGEST_HOURS).max(hours)
}

fn hours_long(hours: u32) -> SignedDuration {
    SignedDuration::try_from(Duration::from_secs(3600 * u64::from(hours)))
        .unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use streampress_transport::Depth;

    use super::*;

    const HOUR: i64 = 3600;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).expect("a time")
    }

    fn facts(chunks: u64, dead: u64, concluded: u64) -> RetentionFacts {
        RetentionFacts {
            hours: Some(24),
            spec_hours: 24,
            extends: true,
            depths: Depths {
                chunks: Some(Depth {
                    visible: chunks,
                    ..Depth::default()
                }),
                dead_chunks: Some(dead),
                ..Depths::default()
            },
            concluded,
        }
    }

    /// What is said after each of these.
    fn said(steps: &[(i64, RetentionFacts)]) -> Vec<RetentionStatus> {
        let (mut status, mut checkpoint) = (RetentionStatus::default(), None);
        let mut all = Vec::new();
        for (hour, facts) in steps {
            status = retention(facts, &status, &mut checkpoint, at(hour * HOUR));
            all.push(status.clone());
        }
        all
    }

    fn waited(status: &RetentionStatus, hour: i64) -> Option<i64> {
        rounded_seconds(status.waiting_since.as_deref(), at(hour * HOUR)).map(|it| it / HOUR)
    }

    #[test]
    fn what_waits_for_half_of_the_retention_is_at_risk_and_the_retention_is_extended_in_steps() {
        let long = |hours| RetentionFacts {
            hours: Some(hours),
            ..facts(5, 0, 0)
        };
        let said = said(&[
            (0, facts(5, 0, 0)),
            (11, facts(5, 0, 0)),
            (12, facts(5, 0, 0)),
            (13, facts(5, 0, 0)),
            (13, long(48)),
            (24, long(48)),
            (200, long(336)),
        ]);
        let seen: Vec<_> = said
            .iter()
            .map(|it| (it.at_risk, it.extended_hours))
            .collect();
        assert_eq!(
            seen,
            [
                (false, None),
                (false, None),
                (true, Some(48)),
                (true, Some(48)),
                (false, Some(48)),
                (true, Some(96)),
                (true, Some(336)),
            ]
        );
        assert_eq!(waited(&said[6], 200), Some(200));
    }

    #[test]
    fn a_backlog_that_is_worked_off_is_as_old_as_the_last_round() {
        let said = said(&[
            (0, facts(5, 0, 100)),
            (10, facts(5, 0, 104)),
            // All five of hour 0 are done.
            (20, facts(5, 0, 105)),
            (30, facts(5, 0, 110)),
        ]);
        let ages: Vec<_> = said
            .iter()
            .zip([0, 10, 20, 30])
            .map(|(s, h)| waited(s, h))
            .collect();
        assert_eq!(ages, [Some(0), Some(10), Some(20), Some(10)]);
        assert!(said.iter().take(2).all(|it| !it.at_risk));
    }

    #[test]
    fn a_dead_letter_needs_its_records_however_much_is_restored() {
        let said = said(&[
            (0, facts(0, 1, 0)),
            (6, facts(5, 1, 50)),
            (12, facts(5, 1, 900)),
        ]);
        assert!(said[2].at_risk, "{:?}", said[2]);
        assert_eq!(waited(&said[2], 12), Some(12));
    }

    #[test]
    fn an_unknown_depth_changes_nothing_and_a_restarted_operator_goes_on() {
        let unknown = RetentionFacts {
            depths: Depths::default(),
            ..facts(0, 0, 0)
        };
        let before = said(&[(0, facts(5, 0, 0)), (11, unknown)]);
        let after = retention(&facts(5, 0, 0), &before[1], &mut None, at(12 * HOUR));
        assert!(after.at_risk);
    }

    #[test]
    fn what_was_extended_goes_back_once_nothing_needs_it_and_what_others_raised_stays() {
        let long = |chunks| RetentionFacts {
            hours: Some(48),
            ..facts(chunks, 0, 0)
        };
        let extended = said(&[
            (0, facts(5, 0, 0)),
            (12, facts(5, 0, 0)),
            (13, long(5)),
            (14, long(0)),
        ]);
        assert_eq!(planned(24, &extended[1]), (48, None));
        assert_eq!(planned(24, &extended[2]), (48, None));
        // Remembered until the stream has 24 hours again.
        assert_eq!(planned(24, &extended[3]), (24, Some(48)));
        let lowered = retention(&facts(0, 0, 0), &extended[3], &mut None, at(15 * HOUR));
        assert_eq!(planned(24, &lowered), (24, None));
        let raised_by_others = said(&[(0, facts(0, 0, 0)), (1, long(0))]);
        assert_eq!(planned(24, &raised_by_others[1]), (24, None));
    }

    #[test]
    fn without_permission_the_risk_is_only_reported() {
        let reported = RetentionFacts {
            extends: false,
            ..facts(5, 0, 0)
        };
        let said = said(&[(0, reported), (12, reported)]);
        assert_eq!((said[1].at_risk, said[1].extended_hours), (true, None));
    }
}
