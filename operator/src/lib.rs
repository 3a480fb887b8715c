//! The control plane of Streampress: it turns a CompressionPipeline into running workers and says how they go.
//!
//! Rooms, pure: [`build`] (what shall exist), [`child`] (is it so), [`status`] (what to say), [`autoscale`], [`drain`],
//! [`ledger`], [`names`]. Doors: [`transport`] (queues and stream) and the API server.

pub mod autoscale;
pub mod build;
pub mod child;
pub mod drain;
pub mod ledger;
pub mod names;
pub mod status;
pub mod transport;
