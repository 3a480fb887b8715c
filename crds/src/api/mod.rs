//! The types of `streampress.dev/v1alpha1`, as they stand in YAML.

pub mod pipeline;
pub mod status;
