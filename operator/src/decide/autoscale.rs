//! How many pods a role shall have: the decision of `autoscaling.mode: Internal`, as a pure function of what is known.
//! An unknown backlog never scales anything. The backlog counts visible messages and messages in flight, so that a busy
//! worker is not removed.

use std::time::Duration;

use streampress_crds::api::pipeline::AutoscalingSpec;

/// What the spec asks of autoscaling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ScalingPolicy {
    /// Fewest pods.
    pub(crate) min: i32,
    /// Most pods.
    pub(crate) max: i32,
    /// Messages for which one pod is enough.
    pub(crate) target: u64,
    /// How long the backlog must call for more.
    pub(crate) up_after: Duration,
    /// How long it must call for fewer.
    pub(crate) down_after: Duration,
}

impl From<&AutoscalingSpec> for ScalingPolicy {
    fn from(spec: &AutoscalingSpec) -> Self {
        let seconds = |n: i32| Duration::from_secs(u64::try_from(n).unwrap_or(0));
        ScalingPolicy {
            min: spec.min,
            max: spec.max.max(spec.min),
            target: u64::try_from(spec.target_backlog_per_replica)
                .unwrap_or(1)
                .max(1),
            up_after: seconds(spec.scale_up_seconds),
            down_after: seconds(spec.scale_down_seconds),
        }
    }
}

/// What is remembered between two decisions. Times are monotonic, since any fixed moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ScalingHistory {
    /// Since when more has been called for.
    more_since: Option<Duration>,
    /// Since when fewer have been called for, and the most that were called for in that time.
    fewer_since: Option<(Duration, i32)>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ScalingDecision {
    /// Leave it as it is.
    Keep,
    /// Leave it as it is for so long, then decide again.
    Wait(Duration),
    /// Have so many pods.
    Scale(i32),
}

/// Decides. `backlog` is `None` when it could not be read.
pub(crate) fn decide(
    policy: &ScalingPolicy,
    history: &mut ScalingHistory,
    current: i32,
    backlog: Option<u64>,
    now: Duration,
) -> ScalingDecision {
    if current < policy.min || current > policy.max {
        *history = ScalingHistory::default();
        return ScalingDecision::Scale(current.clamp(policy.min, policy.max));
    }
    let Some(backlog) = backlog else {
        // Time in which the backlog was unknown does not count as time without work.
        *history = ScalingHistory::default();
        return ScalingDecision::Keep;
    };
    let wanted = wanted(policy, backlog);
    if wanted > current {
        history.fewer_since = None;
        let since = *history.more_since.get_or_insert(now);
        // From zero there is no wait: no pod works at all.
        return due(since, policy.up_after, now, wanted, history, current == 0);
    }
    history.more_since = None;
    if wanted == current {
        history.fewer_since = None;
        return ScalingDecision::Keep;
    }
    let (since, most) = history
        .fewer_since
        .map_or((now, wanted), |(since, most)| (since, most.max(wanted)));
    history.fewer_since = Some((since, most));
    due(since, policy.down_after, now, most, history, false)
}

fn wanted(policy: &ScalingPolicy, backlog: u64) -> i32 {
    let pods = backlog.div_ceil(policy.target);
    i32::try_from(pods)
        .unwrap_or(policy.max)
        .clamp(policy.min, policy.max)
}

fn due(
    since: Duration,
    after: Duration,
    now: Duration,
    to: i32,
    history: &mut ScalingHistory,
    at_once: bool,
) -> ScalingDecision {
    let passed = now.saturating_sub(since);
    if at_once || passed >= after {
        *history = ScalingHistory::default();
        ScalingDecision::Scale(to)
    } else {
        ScalingDecision::Wait(after - passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: ScalingPolicy = ScalingPolicy {
        min: 0,
        max: 4,
        target: 20,
        up_after: Duration::from_secs(15),
        down_after: Duration::from_secs(120),
    };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Decides for each `(second, current, backlog)` and gives the last decision.
    fn last(inputs: &[(u64, i32, Option<u64>)]) -> ScalingDecision {
        let mut history = ScalingHistory::default();
        let mut decision = ScalingDecision::Keep;
        for (second, current, backlog) in inputs {
            decision = decide(&POLICY, &mut history, *current, *backlog, at(*second));
        }
        decision
    }

    #[test]
    fn the_first_message_starts_the_first_pod_at_once() {
        assert_eq!(
            last(&[(0, 0, Some(0)), (1, 0, Some(1))]),
            ScalingDecision::Scale(1)
        );
        assert_eq!(last(&[(0, 0, Some(1_000_000))]), ScalingDecision::Scale(4));
    }

    #[test]
    fn more_pods_come_only_after_the_backlog_called_for_them_long_enough() {
        assert_eq!(last(&[(0, 1, Some(50))]), ScalingDecision::Wait(at(15)));
        assert_eq!(
            last(&[(0, 1, Some(50)), (10, 1, Some(50))]),
            ScalingDecision::Wait(at(5))
        );
        assert_eq!(
            last(&[(0, 1, Some(50)), (15, 1, Some(50))]),
            ScalingDecision::Scale(3)
        );
        // A dip begins the count anew.
        assert_eq!(
            last(&[(0, 1, Some(50)), (10, 1, Some(5)), (15, 1, Some(50))]),
            ScalingDecision::Wait(at(15))
        );
    }

    #[test]
    fn fewer_pods_come_after_quiet_and_to_the_most_that_was_needed_in_it() {
        assert_eq!(
            last(&[(0, 4, Some(0)), (60, 4, Some(45)), (119, 4, Some(0))]),
            ScalingDecision::Wait(at(1))
        );
        assert_eq!(
            last(&[(0, 4, Some(0)), (60, 4, Some(45)), (120, 4, Some(0))]),
            ScalingDecision::Scale(3)
        );
        assert_eq!(
            last(&[(0, 1, Some(0)), (120, 1, Some(0))]),
            ScalingDecision::Scale(0)
        );
    }

    #[test]
    fn a_message_in_flight_keeps_its_pod() {
        assert_eq!(
            last(&[(0, 1, Some(1)), (1000, 1, Some(1))]),
            ScalingDecision::Keep
        );
    }

    #[test]
    fn an_unknown_backlog_changes_nothing_and_its_time_does_not_count() {
        assert_eq!(
            last(&[(0, 3, None), (10_000, 3, None)]),
            ScalingDecision::Keep
        );
        assert_eq!(
            last(&[(0, 3, Some(0)), (60, 3, None), (121, 3, Some(0))]),
            ScalingDecision::Wait(at(120))
        );
        assert_eq!(last(&[(0, 0, None)]), ScalingDecision::Keep);
    }

    #[test]
    fn the_bounds_hold_however_many_pods_there_are() {
        assert_eq!(last(&[(0, 9, None)]), ScalingDecision::Scale(4));
        let policy = ScalingPolicy { min: 2, ..POLICY };
        assert_eq!(
            decide(&policy, &mut ScalingHistory::default(), 0, None, at(0)),
            ScalingDecision::Scale(2)
        );
        assert_eq!(
            decide(&policy, &mut ScalingHistory::default(), 2, Some(0), at(0)),
            ScalingDecision::Keep
        );
    }
}
