//! The types of `streampress.dev/v1alpha1`, as they stand in YAML.
//!
//! - [`pipeline`]: the spec, field by field.
//! - [`status`]: what the operator reports.
//! - `patterns`: what texts must look like. `fragments`: parts of the schema that the types cannot say.
//! - `light`: Kubernetes types for builds without the client.

#[cfg(feature = "kubernetes")]
mod fragments;
#[cfg(not(feature = "kubernetes"))]
mod light;
pub(crate) mod patterns;
pub mod pipeline;
pub mod status;

/// The API's group and version.
pub(crate) const API_VERSION: &str = "streampress.dev/v1alpha1";

/// The kind of a pipeline.
pub const KIND: &str = "CompressionPipeline";
