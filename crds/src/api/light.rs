//! The Kubernetes types that the API needs, for builds without the Kubernetes client (feature `kubernetes`): the same
//! names and fields, as far as Streampress uses them. Fields beyond these are left out when an object is read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::api::pipeline::CompressionPipelineSpec;
use crate::api::status::CompressionPipelineStatus;
use crate::api::{API_VERSION, KIND};

/// Moves text files through a metered stream, as small as they can be made, and restores them byte for byte at the
/// other end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", into = "WrittenPipeline")]
pub struct CompressionPipeline {
    /// Name, namespace and what else every Kubernetes object has.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Where files come from, how they are packed and moved, and where they are restored.
    pub spec: CompressionPipelineSpec,
    /// What the operator reports of it.
    #[serde(default)]
    pub status: Option<CompressionPipelineStatus>,
}

impl CompressionPipeline {
    /// A pipeline of this name, without a namespace.
    pub fn new(name: &str, spec: CompressionPipelineSpec) -> Self {
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        };
        CompressionPipeline {
            metadata,
            spec,
            status: None,
        }
    }
}

/// A pipeline with its type, as it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenPipeline {
    api_version: &'static str,
    kind: &'static str,
    metadata: ObjectMeta,
    spec: CompressionPipelineSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<CompressionPipelineStatus>,
}

impl From<CompressionPipeline> for WrittenPipeline {
    fn from(pipeline: CompressionPipeline) -> Self {
        WrittenPipeline {
            api_version: API_VERSION,
            kind: KIND,
            metadata: pipeline.metadata,
            spec: pipeline.spec,
            status: pipeline.status,
        }
    }
}

/// What identifies an object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectMeta {
    /// Name, unique in the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Unique over time; set by the API server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Counts the changes of the spec; set by the API server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
}

/// One aspect of an object's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which aspect.
    #[serde(rename = "type")]
    pub type_: String,
    /// True, False or Unknown.
    pub status: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
    /// When the status last changed, as RFC 3339 writes it.
    pub last_transition_time: String,
    /// The generation of the spec that the condition was made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
