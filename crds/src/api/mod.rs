//! The types of `streampress.dev/v1alpha1`, as they stand in YAML.

mod fragments;
pub(crate) mod patterns;
pub mod pipeline;
pub mod status;
