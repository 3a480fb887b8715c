//! Every write to the API server, and who may write: `election.rs` decides who leads, `claim.rs` which installation runs the
//! pipelines, `applier.rs` writes owned objects, `pipeline.rs` writes to pipelines, `events.rs` publishes Events.

pub(crate) mod applier;
pub(crate) mod claim;
pub(crate) mod election;
pub(crate) mod events;
mod pipeline;
mod write_error;

pub(crate) use pipeline::without_finalizer;
pub(crate) use write_error::WriteError;
