//! The CompressionPipeline contract, shared by worker, operator and `streampress validate`.
//! Knows neither AWS nor tokio; nothing here does IO.
//!
//! - [`pipeline`], [`status`]: the types of `streampress.dev/v1alpha1`, as they stand in YAML.
//! - [`defaults`]: every default, once.
//! - [`quantity`]: byte sizes as Kubernetes writes them.
//! - [`location`]: where files are, `file:///data/…` or `s3://bucket/prefix`.
//! - [`fit`]: whether a queue that exists fits.
//! - [`limits`]: bounds that several of these share.
//! - [`lease`], [`ledger`]: the times of slots and of the lead, and what a slot's holders count.
//! - [`settings`]: what one worker role needs (`STREAMPRESS_PIPELINE`): `resolve` makes it from a
//!   pipeline (`resolve.rs`), `read` reads it in a worker (`read_settings.rs`).
//! - [`invalid`]: one thing wrong: field, value, rule, way out.
//! - [`rules`]: what holds across fields, in CEL and in Rust side by side; `structure.rs` checks single
//!   fields against the schema; [`notices`] is what is worth knowing of a valid pipeline.
//! - [`document`]: pipelines from a YAML file (`yaml.rs`), every problem with line and column.
//! - [`schema`]: the generated CustomResourceDefinition, printed by `crdgen`.

pub mod api;
pub mod checked;
#[cfg(feature = "kubernetes")]
pub mod crd;
pub mod defaults;
pub mod document;
pub mod invalid;
pub mod lease;
pub mod ledger;
pub mod limits;
pub mod location;
pub mod names;
pub mod notices;
pub mod quantity;
pub mod queue_check;
pub mod reasons;
pub mod role;
pub mod rules;
pub mod settings;

pub use api::pipeline::{CompressionPipeline, CompressionPipelineSpec};
pub use api::status::CompressionPipelineStatus;
pub use checked::CheckedPipeline;
#[cfg(feature = "kubernetes")]
pub use crd::crd;
pub use document::{Diagnostic, Documents, load, load_one};
pub use invalid::Invalid;
pub use location::Location;
pub use quantity::ByteSize;
pub use reasons::{DeadLetterReason, Reason};
pub use role::Role;
pub use settings::{Resolved, Settings};
