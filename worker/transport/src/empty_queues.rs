//! Whether queues hold nothing. SQS counts its messages approximately and late, so that one count of zero proves nothing.

use std::time::Duration;

use tokio::time::Instant;

/// SQS counts messages up to a minute late: queues that were seen empty for so long hold nothing.
pub const COUNTED_LATE: Duration = Duration::from_secs(60);

/// A reading of a clock.
pub trait ClockReading: Copy {
    /// The time since an earlier reading; zero where the clock was set back.
    fn since(self, earlier: Self) -> Duration;
}

impl ClockReading for Instant {
    fn since(self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

/// The time since a fixed moment.
impl ClockReading for Duration {
    fn since(self, earlier: Self) -> Duration {
        self.saturating_sub(earlier)
    }
}

/// Since when queues have been seen empty, without a count of another kind in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmptyQueues<T = Instant> {
    since: Option<T>,
}

/// Not seen empty yet.
impl<T> Default for EmptyQueues<T> {
    fn default() -> Self {
        Self { since: None }
    }
}

impl<T: ClockReading> EmptyQueues<T> {
    /// Takes in what is seen at `now`. Queues whose depth is not known are not empty. Answers for how long they have been seen
    /// empty; `None` where they are not.
    pub fn observe(&mut self, are_empty: bool, now: T) -> Option<Duration> {
        match are_empty {
            true => {
                self.since.get_or_insert(now);
            }
            false => self.since = None,
        }
        self.seen_for(now)
    }

    /// For how long they have been seen empty until `now`; `None` where they were not at the last count.
    pub fn seen_for(&self, now: T) -> Option<Duration> {
        self.since.map(|since| now.since(since))
    }

    /// Whether nothing can be in them at `now`, however late the service counts.
    pub fn are_certain(&self, now: T) -> bool {
        self.seen_for(now)
            .is_some_and(|seen_for| seen_for >= COUNTED_LATE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn queues_are_certainly_empty_once_they_were_seen_empty_for_a_minute() {
        let mut queues = EmptyQueues::default();
        assert_eq!(queues.observe(true, at(10)), Some(at(0)));
        assert_eq!(queues.observe(true, at(69)), Some(at(59)));
        assert!(!queues.are_certain(at(69)));
        assert!(queues.are_certain(at(70)));
    }

    #[test]
    fn a_message_or_an_unknown_depth_begins_the_minute_anew() {
        let mut queues = EmptyQueues::default();
        queues.observe(true, at(0));
        assert_eq!(queues.observe(false, at(59)), None);
        assert!(!queues.are_certain(at(1000)));
        assert_eq!(queues.observe(true, at(60)), Some(at(0)));
        assert!(!queues.are_certain(at(119)));
        assert!(queues.are_certain(at(120)));
    }

    #[test]
    fn queues_that_were_never_counted_are_not_empty() {
        let queues = EmptyQueues::<Duration>::default();
        assert_eq!(queues.seen_for(at(1000)), None);
        assert!(!queues.are_certain(at(1000)));
    }

    #[test]
    fn a_clock_that_was_set_back_only_delays() {
        let mut queues = EmptyQueues::default();
        queues.observe(true, at(100));
        assert_eq!(queues.observe(true, at(50)), Some(at(0)));
        assert!(queues.are_certain(at(160)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_machines_monotonic_clock_serves_as_well() {
        let mut queues = EmptyQueues::default();
        queues.observe(true, Instant::now());
        tokio::time::advance(COUNTED_LATE).await;
        assert!(queues.are_certain(Instant::now()));
    }
}
