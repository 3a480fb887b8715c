//! The Streampress worker: codec, wire format, doors and the three roles.

pub mod consume;
pub mod doors;
pub mod wire;
