//! Every write to the API server, and who may write: `election.rs` decides who leads, `applier.rs` writes owned objects,
//! `pipeline.rs` writes to pipelines, `events.rs` publishes Events.

pub(crate) mod applier;
pub(crate) mod election;
pub(crate) mod events;
mod pipeline;
mod write_error;

pub(crate) use pipeline::without_finalizer;
pub(crate) use write_error::WriteError;
