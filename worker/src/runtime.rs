//! What the worker takes from the machine it runs on: the wall clock, random numbers, and threads for blocking work.
//! Nothing else in this crate asks for them, so that a simulation can replace them here. Durations are measured with
//! `tokio::time::Instant`, which follows tokio's paused clock. Random numbers are of `fastrand`, which a simulation seeds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Two changes of a file within this time may leave the same times: file systems' clocks tick between every few
/// milliseconds and, on FAT, every two seconds.
pub(crate) const CLOCK_TICK: Duration = Duration::from_secs(2);

/// Sets the flag when it is dropped: blocking work whose future is dropped ends.
pub(crate) struct SetOnDrop(pub(crate) Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The wall-clock time.
pub(crate) fn now() -> SystemTime {
    #[cfg(test)]
    if let Some(world) = simulated::world() {
        return world.now();
    }
    SystemTime::now()
}

/// Milliseconds since 1970, now.
pub(crate) fn now_millis() -> u64 {
    nanos(now()) / 1_000_000
}

/// Seconds since 1970, now.
pub(crate) fn now_seconds() -> u64 {
    now_millis() / 1000
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
    #[cfg(test)]
    if let Some(world) = simulated::world() {
        world.stall().await;
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that is shutting down cancels blocking work, and it drops the caller too.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Waits for `future` in work of [`blocking`].
pub(crate) fn wait_blocking<T>(future: impl Future<Output = T>) -> T {
    #[cfg(test)]
    if simulated::world().is_some() {
        return simulated::wait(future);
    }
    tokio::runtime::Handle::current().block_on(future)
}

/// The clock and the threads of a simulation, which runs on one thread: blocking work is done where it is awaited.
#[cfg(test)]
pub(crate) mod simulated {
    use std::cell::RefCell;

    use futures::FutureExt;
    use streampress_transport::sim::World;

    thread_local! {
        static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
    }

    /// While it lives, its thread is in a simulation.
    pub(crate) struct Entered(());

    /// Enters a simulation on this thread; random numbers follow from `seed`.
    pub(crate) fn enter(world: &World, seed: u64) -> Entered {
        fastrand::seed(seed);
        WORLD.set(Some(world.clone()));
        Entered(())
    }

    impl Drop for Entered {
        fn drop(&mut self) {
            WORLD.set(None);
        }
    }

    pub(super) fn world() -> Option<World> {
        WORLD.with_borrow(Clone::clone)
    }

    /// Files are so small in a simulation that their channels never fill: what would wait would wait for itself.
    pub(super) fn wait<T>(future: impl Future<Output = T>) -> T {
        let Some(value) = future.now_or_never() else {
            unreachable!("blocking work waits in a simulation: is a file larger than a block?");
        };
        value
    }
}
