//! Streampress worker library.
pub mod codec;
pub mod commands;
pub mod wire;
