//! What was seen of the cluster.

pub mod cache;
pub mod cluster_state;
pub mod ledger;
pub mod watch;
