//! A clock that also runs while the machine sleeps. [`Instant`] stops meanwhile, so that a laptop or a paused virtual machine
//! would believe on waking that it still holds what others have taken over long ago.

use std::time::Duration;

use tokio::time::Instant;

/// Sleep that is shorter is not counted: the two clocks cannot be read at the same moment.
const SHORTEST_SLEEP: Duration = Duration::from_secs(1);

/// A moment, and for how long the machine had been asleep until then.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    awake: Instant,
    asleep: Duration,
}

impl Moment {
    /// The present one.
    pub fn now() -> Self {
        Self {
            awake: Instant::now(),
            asleep: asleep(),
        }
    }

    /// How much time has passed since, sleep included.
    pub fn elapsed(&self) -> Duration {
        self.awake.elapsed() + self.slept()
    }

    /// When `span` will have passed since, for timers, which stand still while the machine sleeps: sleep so far counts.
    pub fn after(&self, span: Duration) -> Instant {
        self.awake + span.saturating_sub(self.slept())
    }

    /// How long the machine has been asleep since.
    pub(crate) fn slept(&self) -> Duration {
        let slept = asleep().saturating_sub(self.asleep);
        match slept < SHORTEST_SLEEP {
            true => Duration::ZERO,
            false => slept,
        }
    }
}

/// How long the machine has been asleep since it was started.
#[cfg(target_os = "linux")]
fn asleep() -> Duration {
    use rustix::time::{ClockId, clock_gettime};

    let read = |clock| {
        let time = clock_gettime(clock);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
    };
    let awake = read(ClockId::Monotonic);
    let slept = read(ClockId::Boottime).saturating_sub(awake);
    #[cfg(test)]
    let slept = slept + tests::SLEPT.get();
    slept
}

/// Not known: only Linux has a clock for it that can be read without unsafe code.
#[cfg(not(target_os = "linux"))]
fn asleep() -> Duration {
    Duration::ZERO
}

#[cfg(all(test, target_os = "linux"))]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        pub(super) static SLEPT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// As if the machine had been asleep for so long just now, for this thread.
    pub(crate) fn sleep_machine(span: Duration) {
        SLEPT.set(SLEPT.get() + span);
    }

    #[tokio::test(start_paused = true)]
    async fn sleep_counts_as_time_that_has_passed() {
        let (hour, second) = (Duration::from_secs(3600), Duration::from_secs(1));
        let began = Moment::now();
        tokio::time::advance(second).await;
        assert_eq!((began.elapsed(), began.slept()), (second, Duration::ZERO));
        sleep_machine(hour);
        assert!(began.elapsed() > hour);
        assert!(began.after(2 * hour) < Instant::now() + hour);
        assert!(began.after(hour) < Instant::now());
    }
}
