//! Kubernetes Leases: the workers' slots, and leader election with the same rules. Client-go's times: others wait a whole
//! lease of 15 s from the last sign of life, a holder stops after 10 s without a renewal and renews every 2 s.

mod holder;
mod observer;
mod rules;
mod slots;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod watch_tests;

pub use holder::{HeldLease, LeaseCandidate, LossCause, Renewal};
pub use observer::RoleSlots;
pub use rules::Observation;
pub use slots::{LeaseLock, in_cluster};
pub use streampress_crds::lease::Times;
