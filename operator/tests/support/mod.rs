//! What tests on a real API server share: a namespace with an operator, and a proxy in front of the API server that
//! counts and does harm.
#![allow(
    dead_code,
    unused_imports,
    reason = "each test program uses the part of this that it needs"
)]

pub mod adopted;
pub mod process;
pub mod proxy;
pub mod site;

pub use proxy::{Fault, Proxy};
pub use site::{PATIENCE, Site, condition, eventually, full};
