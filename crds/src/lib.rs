//! The CompressionPipeline contract, shared by worker, operator and `streampress validate`. Knows neither AWS nor tokio,
//! and does no IO.
//!
//! The types and what they are made of:
//! - [`api`]: the types of `streampress.dev/v1alpha1`, as they stand in YAML; `defaults`: every default, once.
//! - `quantity`: byte sizes as Kubernetes writes them ([`ByteSize`]).
//! - [`location`]: where files are, `file:///data/…` or `s3://bucket/prefix`.
//! - `role`: the workers' roles ([`Role`]). `reasons`: the reasons of dead letters, conditions and Events.
//! - `limits`: bounds that several modules share.
//!
//! The checks:
//! - [`document`]: reads pipelines from YAML and reports every problem with line and column.
//! - [`rules`]: the rules across fields, in CEL and in Rust. `invalid`: one problem ([`Invalid`]).
//! - `checked`: a pipeline that was checked, with its settings ([`CheckedPipeline`]). `notices`: what is worth knowing about
//!   a valid pipeline.
//!
//! What is made from a pipeline:
//! - [`settings`]: what one worker needs, the JSON of `STREAMPRESS_PIPELINE`.
//! - [`names`]: the names of objects, Leases, queues and streams.
//! - `crd`: the generated CustomResourceDefinition, with the feature `kubernetes`.
//!
//! What operator and workers agree on at run time:
//! - [`lease`]: the durations of a Lease. [`ledger`]: the counters of a slot. [`slot_health`]: outages that its holders saw.
//! - [`queue_check`]: whether an existing queue fits a pipeline.

#![warn(unreachable_pub)]

pub mod api;
mod checked;
#[cfg(feature = "kubernetes")]
pub mod crd;
mod defaults;
pub mod document;
mod invalid;
pub mod lease;
pub mod ledger;
mod limits;
pub mod location;
pub mod names;
mod notices;
mod quantity;
pub mod queue_check;
mod reasons;
mod role;
pub mod rules;
pub mod settings;
pub mod slot_health;

pub use api::pipeline::{CompressionPipeline, CompressionPipelineSpec};
pub use api::status::CompressionPipelineStatus;
pub use checked::CheckedPipeline;
#[cfg(feature = "kubernetes")]
pub use crd::crd;
pub use document::{Diagnostic, Documents, load, load_one};
pub use invalid::Invalid;
pub use limits::BLOCK_BYTES;
pub use location::Location;
pub use quantity::{ByteSize, NotAByteSize};
pub use reasons::{DeadLetterReason, Reason};
pub use role::Role;
pub use settings::{Resolved, Settings};
