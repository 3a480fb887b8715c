//! The control plane of Streampress: it turns a CompressionPipeline into running workers and says how they go.
//!
//! - Rooms, pure: [`build`] (what shall exist), [`child`] (is it so), [`observe`] (what is), [`plan`], [`autoscale`] and
//!   [`drain`] (how many pods), [`ledger`] (what was done), [`status`] (what to say), [`names`].
//! - Corridors: [`run`] (the whole), [`controller`] (the recipe), [`watch`] and [`store`] (what was seen), [`release`]
//!   (before an operator is uninstalled).
//! - Doors: [`apply`] and [`events`] (every write), [`leader`] (who may write), [`transport`] (queues and stream),
//!   [`http`] and [`metrics`].
//!
//! Reconciling never talks to AWS: `transport::desk` does, and is only read. Nothing is written but through
//! `apply::Hands`, and nothing by a process that does not lead.

pub mod apply;
pub mod autoscale;
pub mod build;
pub mod child;
pub mod controller;
pub mod drain;
pub mod events;
pub mod http;
pub mod leader;
pub mod ledger;
pub mod metrics;
pub mod names;
pub mod observe;
pub mod plan;
pub mod release;
pub mod run;
pub mod status;
pub mod store;
pub mod transport;
pub mod watch;
