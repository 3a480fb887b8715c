//! The Streampress worker: it moves text files through queues and a stream, as small as they can be made, and puts
//! them back byte for byte.
//!
//! Rooms (plain functions on values, no IO): [`wire`].
//! Doors (where another process may stand): [`doors`].
//! Corridors (async, thin): [`consume`], [`announce`], [`compress`], [`decompress`].

pub mod announce;
pub mod clock;
pub mod compress;
pub mod consume;
pub mod decompress;
pub mod doors;
pub mod wire;

/// Runs file work and CPU work off the async threads. A panic in it is a bug and goes on here.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that is shutting down cancels blocking work, and then nobody waits for the value.
            Err(_) => std::future::pending().await,
        },
    }
}
