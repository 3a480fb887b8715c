//! Streampress worker library.

pub mod generator;
