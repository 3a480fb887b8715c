//! How many pods a role shall have: the decision of `autoscaling.mode: Internal`, as a pure function of what is known.
//! What is not known never scales anything. Backlog counts messages waiting and messages in hand, so that a worker is
//! not taken away from its work.

use std::time::Duration;

use streampress_crds::api::pipeline::AutoscalingSpec;

/// The user's wishes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Fewest pods.
    pub min: i32,
    /// Most pods.
    pub max: i32,
    /// Waiting files for which one pod is enough.
    pub target: u64,
    /// How long the backlog must call for more.
    pub up_after: Duration,
    /// How long it must call for fewer.
    pub down_after: Duration,
}

impl From<&AutoscalingSpec> for Policy {
    fn from(spec: &AutoscalingSpec) -> Self {
        let seconds = |n: i32| Duration::from_secs(u64::try_from(n).unwrap_or(0));
        Policy {
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

/// What is remembered between two looks. Times are monotonic, since any fixed moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Memory {
    /// Since when more has been called for.
    more_since: Option<Duration>,
    /// Since when fewer have been called for, and the most that were called for in that time.
    fewer_since: Option<(Duration, i32)>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision {
    /// Leave it as it is.
    Keep,
    /// Leave it for now; the time for it comes after so long.
    Wait(Duration),
    /// Have so many pods.
    Scale(i32),
}

/// Decides. `backlog` is nothing when it could not be read.
pub fn decide(
    policy: &Policy,
    memory: &mut Memory,
    current: i32,
    backlog: Option<u64>,
    now: Duration,
) -> Decision {
    if current < policy.min || current > policy.max {
        *memory = Memory::default();
        return Decision::Scale(current.clamp(policy.min, policy.max));
    }
    let Some(backlog) = backlog else {
        // Time without knowledge does not count as time without work.
        *memory = Memory::default();
        return Decision::Keep;
    };
    let wanted = wanted(policy, backlog);
    if wanted > current {
        memory.fewer_since = None;
        let since = *memory.more_since.get_or_insert(now);
        // From nothing there is no wait: nobody is at work at all.
        return due(since, policy.up_after, now, wanted, memory, current == 0);
    }
    memory.more_since = None;
    if wanted == current {
        memory.fewer_since = None;
        return Decision::Keep;
    }
    let (since, most) = memory
        .fewer_since
        .map_or((now, wanted), |(since, most)| (since, most.max(wanted)));
    memory.fewer_since = Some((since, most));
    due(since, policy.down_after, now, most, memory, false)
}

fn wanted(policy: &Policy, backlog: u64) -> i32 {
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
    memory: &mut Memory,
    at_once: bool,
) -> Decision {
    let passed = now.saturating_sub(since);
    if at_once || passed >= after {
        *memory = Memory::default();
        Decision::Scale(to)
    } else {
        Decision::Wait(after - passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        min: 0,
        max: 4,
        target: 20,
        up_after: Duration::from_secs(15),
        down_after: Duration::from_secs(120),
    };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Looks at `(second, current, backlog)` one after another and gives the last decision.
    fn last(looks: &[(u64, i32, Option<u64>)]) -> Decision {
        let mut memory = Memory::default();
        let mut decision = Decision::Keep;
        for (second, current, backlog) in looks {
            decision = decide(&POLICY, &mut memory, *current, *backlog, at(*second));
        }
        decision
    }

    #[test]
    fn the_first_message_starts_the_first_pod_at_once() {
        assert_eq!(
            last(&[(0, 0, Some(0)), (1, 0, Some(1))]),
            Decision::Scale(1)
        );
        assert_eq!(last(&[(0, 0, Some(1_000_000))]), Decision::Scale(4));
    }

    #[test]
    fn more_pods_come_only_after_the_backlog_called_for_them_long_enough() {
        assert_eq!(last(&[(0, 1, Some(50))]), Decision::Wait(at(15)));
        assert_eq!(
            last(&[(0, 1, Some(50)), (10, 1, Some(50))]),
            Decision::Wait(at(5))
        );
        assert_eq!(
            last(&[(0, 1, Some(50)), (15, 1, Some(50))]),
            Decision::Scale(3)
        );
        // A dip begins the count anew.
        assert_eq!(
            last(&[(0, 1, Some(50)), (10, 1, Some(5)), (15, 1, Some(50))]),
            Decision::Wait(at(15))
        );
    }

    #[test]
    fn fewer_pods_come_after_quiet_and_to_the_most_that_was_needed_in_it() {
        assert_eq!(
            last(&[(0, 4, Some(0)), (60, 4, Some(45)), (119, 4, Some(0))]),
            Decision::Wait(at(1))
        );
        assert_eq!(
            last(&[(0, 4, Some(0)), (60, 4, Some(45)), (120, 4, Some(0))]),
            Decision::Scale(3)
        );
        assert_eq!(
            last(&[(0, 1, Some(0)), (120, 1, Some(0))]),
            Decision::Scale(0)
        );
    }

    #[test]
    fn a_message_in_hand_keeps_its_pod() {
        assert_eq!(last(&[(0, 1, Some(1)), (1000, 1, Some(1))]), Decision::Keep);
    }

    #[test]
    fn an_unknown_backlog_changes_nothing_and_its_time_does_not_count() {
        assert_eq!(last(&[(0, 3, None), (10_000, 3, None)]), Decision::Keep);
        assert_eq!(
            last(&[(0, 3, Some(0)), (60, 3, None), (121, 3, Some(0))]),
            Decision::Wait(at(120))
        );
        assert_eq!(last(&[(0, 0, None)]), Decision::Keep);
    }

    #[test]
    fn the_bounds_hold_whatever_is_there() {
        assert_eq!(last(&[(0, 9, None)]), Decision::Scale(4));
        let policy = Policy { min: 2, ..POLICY };
        assert_eq!(
            decide(&policy, &mut Memory::default(), 0, None, at(0)),
            Decision::Scale(2)
        );
        assert_eq!(
            decide(&policy, &mut Memory::default(), 2, Some(0), at(0)),
            Decision::Keep
        );
    }
}
