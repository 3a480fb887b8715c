//! Pure decisions: how many pods, how far suspending has come, and what to report.

pub(crate) mod autoscale;
pub(crate) mod drain;
pub(crate) mod replicas;
pub(crate) mod status;
