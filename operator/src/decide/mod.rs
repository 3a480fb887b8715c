//! Pure decisions: how many pods, and what to say.

pub mod autoscale;
pub mod drain;
pub mod replicas;
pub mod status;
