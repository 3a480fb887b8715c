//! Streampress worker library.

pub mod generator;
pub mod report;
