//! A pipeline that was checked. Who holds a [`CheckedPipeline`] need not check again, and has its settings.

use crate::api::pipeline::CompressionPipeline;
use crate::document::structure;
use crate::invalid::Invalid;
use crate::rules::{self, RuleScope};
use crate::settings::Resolved;
use crate::settings::resolve::resolve;

/// A pipeline that keeps every rule, with the settings made from it.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedPipeline {
    pipeline: CompressionPipeline,
    resolved: Resolved,
}

impl CheckedPipeline {
    /// Checks a pipeline by the rules that hold everywhere.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn new(pipeline: CompressionPipeline) -> Result<Self, Vec<Invalid>> {
        Self::check(pipeline, &[RuleScope::Everywhere])
    }

    /// Checks a pipeline by these rules and by those that hold only in a cluster, such as the volume behind file://
    /// locations.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn in_cluster(pipeline: CompressionPipeline) -> Result<Self, Vec<Invalid>> {
        Self::check(pipeline, &[RuleScope::Everywhere, RuleScope::Cluster])
    }

    fn check(pipeline: CompressionPipeline, scopes: &[RuleScope]) -> Result<Self, Vec<Invalid>> {
        let document = serde_json::to_value(&pipeline).unwrap_or_default();
        let mut invalid: Vec<Invalid> = structure::check(&document)
            .into_iter()
            .map(|violation| violation.invalid)
            .collect();
        for scope in scopes {
            for broken in rules::broken(&pipeline, *scope) {
                // A field that is wrong by itself needs no second complaint.
                if invalid.iter().all(|earlier| earlier.field != broken.field) {
                    invalid.push(broken);
                }
            }
        }
        match invalid.is_empty() {
            true => Self::resolve(pipeline),
            false => Err(invalid),
        }
    }

    /// For a pipeline whose fields and rules were checked already.
    pub(crate) fn resolve(pipeline: CompressionPipeline) -> Result<Self, Vec<Invalid>> {
        let resolved = resolve(&pipeline)?;
        Ok(Self { pipeline, resolved })
    }

    /// The pipeline as it was written.
    pub fn pipeline(&self) -> &CompressionPipeline {
        &self.pipeline
    }

    /// Its settings, with every default and name filled in.
    pub fn resolved(&self) -> &Resolved {
        &self.resolved
    }

    /// The pipeline as it was written, and its settings.
    pub fn into_parts(self) -> (CompressionPipeline, Resolved) {
        (self.pipeline, self.resolved)
    }
}
