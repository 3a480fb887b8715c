//! What tests on a real API server share: a namespace with an operator, and a proxy in front of the API server that logs
//! requests and injects faults.
#![allow(
    dead_code,
    unused_imports,
    reason = "each test program uses the part of this that it needs"
)]

pub mod adopted;
pub mod cluster;
pub mod process;
pub mod proxy;

pub use cluster::{PATIENCE, TestCluster, condition, full};
pub use proxy::{Fault, Proxy};
pub use streampress_tests::eventually;
