//! The Streampress worker: it moves text files through queues and a stream, as small as they can be made, and puts
//! them back byte for byte.
//!
//! Rooms (plain functions on values, no IO): [`wire`].
//! Doors (where another process may stand): [`doors`].
//! Corridors (async, thin): [`consume`], [`announce`], [`compress`], [`decompress`].
//! What they tell while they work: [`metrics`] and [`health`] over HTTP, [`trace`] in messages and ([`otlp`]) to a collector, logs everywhere.

pub mod announce;
pub mod aws_side;
pub mod cli;
pub mod clock;
pub mod codec;
pub mod commands;
pub mod compress;
pub mod config;
pub mod consume;
pub mod decompress;
pub mod doors;
pub mod generate;
pub mod generator;
pub mod health;
pub mod memory;
pub mod metrics;
pub mod otlp;
pub mod progress;
pub mod redrive;
pub mod report;
pub mod report_log;
pub mod roles;
pub mod run;
pub mod scan;
pub mod seed_env;
pub mod seed_roles;
pub mod setup;
pub mod trace;
pub mod wire;

/// An error with all that led to it, in one line; the innermost often says most ("connection refused"). What an outer one
/// has already said of it is not said twice.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) {
            text
        } else {
            format!("{text}: {cause}")
        }
    })
}

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
