//! The Streampress worker: it moves text files through queues and a stream, as small as they can be made, and puts
//! them back byte for byte.
//!
//! - [`cli`]: the command line. [`config`]: what a command works by.
//! - [`roles`]: generator, scanner, compressor, decompressor, redrive and `run`, over the one loop in [`consume`].
//! - [`message`]: what crosses a process. [`legacy`]: the Python original's format.
//! - [`destination`]: which version of a restored file stays, and how it becomes visible.
//! - [`journal`]: which files were announced, and how far they are. [`report`]: the report page.
//! - [`telemetry`]: logs, metrics, health, traces, memory limit.
//! - `runtime`: clock, random numbers and threads, as the rest of the crate uses them.
//! - `simulation`: whole pipelines in simulated time, and a checker of what became of files; only in tests.

#![warn(unreachable_pub)]

pub mod cli;
mod config;
pub mod consume;
pub mod destination;
pub mod journal;
pub mod legacy;
pub mod message;
pub mod report;
pub mod roles;
mod runtime;
#[cfg(test)]
mod simulation;
pub mod telemetry;
