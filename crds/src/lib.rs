//! The CompressionPipeline contract, shared by worker, operator and `streampress validate`.
//! Knows neither AWS nor tokio; nothing here does IO.
//!
//! - [`pipeline`], [`status`]: the types of `streampress.dev/v1alpha1`, as they stand in YAML.
//! - [`defaults`]: every default, once.
//! - [`quantity`]: byte sizes as Kubernetes writes them.
//! - [`settings`]: what one worker role needs (`STREAMPRESS_PIPELINE`), resolved from a pipeline.
//! - [`schema`]: the generated CustomResourceDefinition, printed by `crdgen`.

pub mod defaults;
pub mod pipeline;
pub mod quantity;
pub mod schema;
pub mod status;

pub use pipeline::{CompressionPipeline, CompressionPipelineSpec};
pub use quantity::ByteSize;
pub use schema::crd;
pub use status::CompressionPipelineStatus;
