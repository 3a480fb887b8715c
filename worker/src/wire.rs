//! The messages that travel between processes.

pub mod seed;
