//! What a worker shows of itself: logs, metrics, health, traces; and the limits of memory and open files that it keeps.

pub(crate) mod address_space;
pub(crate) mod health;
pub(crate) mod logging;
pub(crate) mod memory_limit;
pub(crate) mod metered_files;
pub mod metrics;
pub(crate) mod open_files;
mod otlp;
pub(crate) mod plain_log;
mod process_limits;
pub mod trace;
