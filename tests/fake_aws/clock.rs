//! The server's clock: real time plus what a test adds. Visibility, deduplication, retention, iterator expiry and
//! rates all follow it, so a test can let five minutes pass in one call.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 by this server's clock.
pub type Millis = u64;

/// Real time plus what was added.
#[derive(Debug)]
pub struct FakeClock {
    started: Instant,
    started_millis: Millis,
    added_millis: AtomicU64,
}

impl Default for FakeClock {
    fn default() -> Self {
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            started: Instant::now(),
            started_millis: millis(since_1970),
            added_millis: AtomicU64::new(0),
        }
    }
}

impl FakeClock {
    /// The current time.
    pub fn now(&self) -> Millis {
        self.started_millis
            + millis(self.started.elapsed())
            + self.added_millis.load(Ordering::Relaxed)
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.added_millis.fetch_add(millis(by), Ordering::Relaxed);
    }
}

/// Whole milliseconds of a duration.
pub fn millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
