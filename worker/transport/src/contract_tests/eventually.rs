//! Waiting for a condition in tests: the one place that polls.

use std::time::{Duration, Instant};

/// After this a wait has failed. It bounds a hang and measures nothing: a busy machine may need most of it.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two probes. Short, because many tests wait; not zero, because a probe may start a process.
const PAUSE: Duration = Duration::from_millis(20);

/// What a probe returns: a condition that holds, or a value that is there.
pub trait Awaited {
    /// The value that was waited for.
    type Value;
    /// The value, once it is there.
    fn met(self) -> Option<Self::Value>;
}

impl Awaited for bool {
    type Value = ();
    fn met(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Awaited for Option<T> {
    type Value = T;
    fn met(self) -> Option<T> {
        self
    }
}

/// Probes until the condition holds and returns the value found; panics with `what` after two minutes.
pub async fn eventually<C: Awaited>(what: &str, mut probe: impl AsyncFnMut() -> C) -> C::Value {
    // The machine's time, also in a test whose clock is paused: that one may pass hours in a moment.
    let began = Instant::now();
    loop {
        if let Some(value) = probe().await.met() {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "never came true: {what}");
        // Between two probes.
        tokio::time::sleep(PAUSE).await;
    }
}

/// The same for tests without a runtime, and for probes that block.
#[track_caller]
pub fn eventually_blocking<C: Awaited>(what: &str, mut probe: impl FnMut() -> C) -> C::Value {
    let began = Instant::now();
    loop {
        if let Some(value) = probe().met() {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "never came true: {what}");
        // Between two probes.
        std::thread::sleep(PAUSE);
    }
}
