//! Everything the tests share besides the fake AWS; `lib.rs` has the map.

pub mod aws;
pub mod cgroup;
pub mod cluster;
pub mod console;
pub mod issuer;
pub mod pipeline;
pub mod sandbox;
pub mod slow;
