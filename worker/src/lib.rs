//! The Streampress worker: it moves text files through queues and a stream, as small as they can be made, and puts
//! them back byte for byte.
//!
//! - [`cli`]: the command line. [`config`]: what it is told to do.
//! - [`roles`]: generator, scanner, compressor, decompressor, redrive and `run`, over the one loop in [`consume`].
//! - [`journal`]: what became of every file. [`message`]: what crosses a process. [`legacy`]: the Python original's format and messages.
//! - [`report`]: the report page. [`telemetry`]: metrics, health, traces, memory limit.

pub mod cli;
pub mod clock;
pub mod config;
pub mod consume;
pub mod journal;
pub mod legacy;
pub mod message;
pub mod report;
pub mod roles;
pub mod telemetry;

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
