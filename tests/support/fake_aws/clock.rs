//! The stand-in's clock: real time plus what a test adds. Visibility, deduplication, retention, iterator expiry and
//! rates all follow it, so that five minutes pass in a call.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, as this server sees them.
pub type Millis = u64;

/// Real time plus what was added.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    started_millis: Millis,
    added_millis: AtomicU64,
}

impl Default for Clock {
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

impl Clock {
    /// What time it is.
    pub fn now(&self) -> Millis {
        self.started_millis
            + millis(self.started.elapsed())
            + self.added_millis.load(Ordering::Relaxed)
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.added_millis.fetch_add(millis(by), Ordering::Relaxed);
    }
}

/// Whole milliseconds of a duration.
pub fn millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
