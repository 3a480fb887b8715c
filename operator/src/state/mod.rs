//! What was seen of the cluster: `watch.rs` follows it, `cache.rs` keeps what `live_object.rs` reads of each object,
//! `cluster_state.rs` is one pipeline's part of it at one moment, `ledger.rs` the sums of what its workers count.
//! `pipeline.rs` is a pipeline as the API server has it, `transport_users.rs` which queues and stream each one uses.

pub(crate) mod cache;
pub(crate) mod cluster_state;
pub(crate) mod ledger;
pub(crate) mod live_object;
pub(crate) mod pipeline;
pub(crate) mod transport_users;
pub(crate) mod watch;
