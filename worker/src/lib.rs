//! The Streampress worker: codec, wire format, doors and the three roles.

pub mod doors;
