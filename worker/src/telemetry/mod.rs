//! What a worker tells while it works: metrics and health over HTTP, traces, and how much memory it may use.

pub mod health;
pub mod memory_limit;
pub mod metrics;
pub mod otlp;
pub mod trace;
