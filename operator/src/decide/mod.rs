//! Pure decisions: how many pods, how far suspending has come, for how long records are kept, and what
//! to report.

pub(crate) mod autoscale;
pub(crate) mod drain;
pub(crate) mod replicas;
pub(crate) mod retention;
pub(crate) mod status;
