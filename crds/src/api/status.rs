//! What the operator reports of a pipeline. Written by the operator alone; a figure that is not known is left out, never 0.

#[cfg(feature = "kubernetes")]
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
#[cfg(feature = "kubernetes")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "kubernetes")]
use crate::api::fragments;
#[cfg(not(feature = "kubernetes"))]
pub use crate::api::light::Condition;

/// How the pipeline goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct CompressionPipelineStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The pipeline's state in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// One sentence: what is going on and, where something is wrong, what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 1024)))]
    pub message: Option<String>,
    /// Ready, Reconciling, Stalled, TransportReady and Drained.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kubernetes", schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    ))]
    #[cfg_attr(
        feature = "kubernetes",
        schemars(schema_with = "fragments::conditions")
    )]
    pub conditions: Vec<Condition>,
    /// The workers, role by role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roles: Option<RolesStatus>,
    /// What has been done since the pipeline was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressStatus>,
    /// What waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<BacklogStatus>,
    /// The queues and the stream in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<TransportStatus>,
}

/// A pipeline's state in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
pub enum Phase {
    /// Queues, stream or workers are still being made.
    Pending,
    /// At work, or ready for it.
    Running,
    /// Asked to suspend; finishing what is in flight.
    Suspending,
    /// Suspended, with nothing in flight.
    Suspended,
    /// The finite generator is done and every file is restored.
    Completed,
    /// At work, with something that needs attention.
    Degraded,
    /// Cannot work until something is changed.
    Failed,
    /// Being deleted.
    Deleting,
}

/// The workers, role by role.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct RolesStatus {
    /// The generator, where the pipeline has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generator: Option<RoleStatus>,
    /// The compressors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compressor: Option<RoleStatus>,
    /// The decompressors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decompressor: Option<RoleStatus>,
}

/// The workers of one role.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct RoleStatus {
    /// Pods asked for.
    pub desired: i32,
    /// Pods ready.
    pub ready: i32,
    /// Image the pods run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 512)))]
    pub image: Option<String>,
    /// Label selector of the pods, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 512)))]
    pub selector: Option<String>,
    /// Slots and the pods that hold them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 500)))]
    pub slots: Vec<SlotStatus>,
}

/// A slot and the pod that holds it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct SlotStatus {
    /// Name of the slot's Lease.
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 253)))]
    pub name: String,
    /// Pod that holds it; left out while nobody does.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 253)))]
    pub holder: Option<String>,
}

/// What has been done since the pipeline was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ProgressStatus {
    /// Files made by the generator.
    pub files_generated: i64,
    /// Files packed and announced.
    pub files_compressed: i64,
    /// Files restored, their hashes checked.
    pub files_restored: i64,
    /// Files set aside as dead letters.
    pub files_failed: i64,
    /// Bytes of the files as they were.
    pub bytes_raw: i64,
    /// Bytes the stream carried for them.
    pub bytes_compressed: i64,
    /// Share of the bytes that the stream did not have to carry, in per cent with one decimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 16)))]
    pub saved_percent: Option<String>,
}

/// What waits. A depth that could not be read is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct BacklogStatus {
    /// Files announced and not yet compressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<i64>,
    /// Packed files not yet restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunks: Option<i64>,
    /// Dead letters of both queues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead: Option<i64>,
}

/// The queues and the stream in use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct TransportStatus {
    /// Address of the queue that announces files.
    #[serde(rename = "filesQueueURL", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 1024)))]
    pub files_queue_url: Option<String>,
    /// Address of the queue that announces packed files.
    #[serde(rename = "chunksQueueURL", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 1024)))]
    pub chunks_queue_url: Option<String>,
    /// Name of the stream, as AWS writes it.
    #[serde(rename = "streamARN", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 2048)))]
    pub stream_arn: Option<String>,
}
