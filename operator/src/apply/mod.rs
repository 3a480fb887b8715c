//! Every write to the API server, and who may write.

pub mod applier;
pub mod election;
pub mod events;
