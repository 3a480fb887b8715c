//! What the worker takes from the machine it runs on: the wall clock, random numbers, and threads for blocking work.
//! Nothing else in this crate asks for them, so that a simulation can replace them here. Durations are measured with
//! `tokio::time::Instant`, which follows tokio's paused clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The wall-clock time.
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// Milliseconds since 1970, now.
pub(crate) fn now_millis() -> u64 {
    nanos(now()) / 1_000_000
}

/// Nanoseconds since 1970; 0 for a time before.
pub(crate) fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The time that many nanoseconds after 1970.
pub(crate) fn from_nanos(nanos: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanos)
}

/// A random number; not for secrets.
pub(crate) fn random_u64() -> u64 {
    fastrand::u64(..)
}

/// A random number that is not zero; not for secrets.
pub(crate) fn random_nonzero_u64() -> u64 {
    fastrand::u64(1..)
}

/// A random number that is not zero; not for secrets.
pub(crate) fn random_nonzero_u128() -> u128 {
    fastrand::u128(1..)
}

/// Runs file work and CPU work off the async threads. A panic in it is a bug and continues in the caller.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that is shutting down cancels blocking work, and it drops the caller too.
            Err(_) => std::future::pending().await,
        },
    }
}
