//! The control plane of Streampress: it turns a CompressionPipeline into running workers and says how they go.

pub mod apply;
pub mod controller;
pub mod decide;
pub mod http;
pub mod resources;
pub mod run;
pub mod state;
pub mod transport;
