//! Pure decisions: how many pods, how far suspending has come, whether records expire too soon, and what to
//! report.

pub(crate) mod autoscale;
pub(crate) mod drain;
pub(crate) mod replicas;
pub(crate) mod retention;
pub(crate) mod status;
