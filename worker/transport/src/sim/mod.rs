//! All four services in simulated time: a whole pipeline runs on one thread on tokio's paused clock, from a seed, with
//! days of outages in milliseconds. For tests of this and of other packages.
//!
//! - [`world`]: what one simulation shares: the wall clock, the random numbers, and the faults of a service.
//! - [`process`]: a process that can be frozen and killed. Every handle to a service belongs to one.
//! - [`queue`], [`stream`], [`lock`], [`disk`]: the services. Each can be looked into and changed from outside, as the
//!   world does it to real ones.
//!
//! They keep the contracts of the traits (`contract_tests` run over them) and have the faults of real ones: calls that
//! are lost before or after their effect, places that are down, slots that are lost, disks that fill. They know nothing
//! of files' versions, messages or roles.

pub mod disk;
pub mod lock;
pub mod process;
pub mod queue;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod world;

pub use disk::{DiskFaults, Node, SimDisk, SimFiles, Write};
pub use lock::{SimLock, SimSlots};
pub use process::SimProcess;
pub use queue::{AcceptedMessage, QueueOptions, SimQueue, SimQueues, StoredMessage};
pub use stream::{SimStream, SimStreams};
pub use world::{ServiceFaults, SimService, World};
