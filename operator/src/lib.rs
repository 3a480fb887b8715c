//! The control plane of Streampress: it turns a CompressionPipeline into running workers and reports on them.
//!
//! - `args`: the command line; `run`: the operator as a whole.
//! - `controller`: reconciles one pipeline, with what the modules below see, decide and write.
//! - `resources`: the objects of a pipeline, from its spec; pure.
//! - `state`: what was seen of the cluster.
//! - `decide`: how many pods, how far suspending has come, what to report; pure.
//! - `transport`: queues and streams on AWS.
//! - `apply`: writes to the API server, and who may write.
//! - `http`: health and metrics.
//! - `errors`: the API server's errors as text.

#![warn(unreachable_pub)]

mod apply;
pub mod args;
mod controller;
mod decide;
mod errors;
pub mod http;
pub mod resources;
pub mod run;
mod state;
pub mod transport;

pub use controller::release;
