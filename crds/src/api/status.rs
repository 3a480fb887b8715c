//! What the operator reports of a pipeline. The operator alone writes it; an unknown figure is left out, never 0.

#[cfg(feature = "kubernetes")]
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
#[cfg(feature = "kubernetes")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "kubernetes")]
use crate::api::fragments;
#[cfg(not(feature = "kubernetes"))]
pub use crate::api::light::Condition;

/// The pipeline's state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct CompressionPipelineStatus {
    /// The generation of the spec that this status was made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The pipeline's state in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// One sentence: what happens and, if something is wrong, what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 1024)))]
    pub message: Option<String>,
    /// Ready, Reconciling, Stalled, TransportReady, Drained, SourceAvailable, DestinationAvailable and RetentionAtRisk.
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
    /// The workers of each role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roles: Option<RolesStatus>,
    /// Totals since the pipeline was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressStatus>,
    /// What waits in the queues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<BacklogStatus>,
    /// For how long the stream keeps records, and whether that is long enough for what waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<RetentionStatus>,
    /// The queues and the stream in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<TransportStatus>,
}

/// A pipeline's state in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
pub enum Phase {
    /// Queues, stream or workers are being created.
    Pending,
    /// The pipeline works, or is ready for work.
    Running,
    /// `suspend` is set; files in flight are being finished.
    Suspending,
    /// The pipeline is suspended, with nothing in flight.
    Suspended,
    /// The generator has made all its files, and every file is restored.
    Completed,
    /// The pipeline works, but something needs attention.
    Degraded,
    /// The pipeline cannot work until something is changed.
    Failed,
    /// The pipeline is being deleted.
    Deleting,
}

/// The workers of each role.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct RolesStatus {
    /// The generator, if the pipeline has one.
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
    /// Number of pods wanted.
    pub desired: i32,
    /// Number of pods ready.
    pub ready: i32,
    /// Image of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 512)))]
    pub image: Option<String>,
    /// Label selector of the pods, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 512)))]
    pub selector: Option<String>,
    /// The slots, and the pods that hold them.
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
    /// Pod that holds the slot; left out while it is free.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 253)))]
    pub holder: Option<String>,
}

/// Totals since the pipeline was created.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ProgressStatus {
    /// Files that the generator made.
    pub files_generated: i64,
    /// Files packed and announced.
    pub files_compressed: i64,
    /// Files restored, with their hashes checked.
    pub files_restored: i64,
    /// Files that became dead letters.
    pub files_failed: i64,
    /// Versions of files that were not restored because a newer version had been.
    pub files_superseded: i64,
    /// Bytes of the files before packing.
    pub bytes_raw: i64,
    /// Bytes that they were packed to, without the headers and descriptions of their records.
    pub bytes_compressed: i64,
    /// Share of the bytes that the stream did not have to carry, in per cent with one decimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 16)))]
    pub saved_percent: Option<String>,
}

/// What waits in the queues. A depth that could not be read is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct BacklogStatus {
    /// Files announced and not yet compressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<i64>,
    /// Files packed and not yet restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunks: Option<i64>,
    /// Receipts not yet taken by a compressor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipts: Option<i64>,
    /// Dead letters of all queues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead: Option<i64>,
    /// Since when the oldest packed file or packed file's dead letter has waited, at the earliest. SQS tells no message's age: the operator infers it from the number of messages and of files that were restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 40)))]
    pub waiting_since: Option<String>,
}

/// For how long the stream keeps records, and whether that is long enough for what waits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct RetentionStatus {
    /// For how long the stream keeps records, in hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hours: Option<i64>,
    /// Whether packed files or their dead letters have waited for half of that or longer.
    pub at_risk: bool,
    /// The retention that the operator gives the stream, in hours: that of the spec, or more while something that waits needs it. It lowers only a retention of just so many hours: one that others gave the stream stays. Left out with policy Adopt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planned_hours: Option<i64>,
}

/// The queues and the stream in use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct TransportStatus {
    /// URL of the queue that announces files.
    #[serde(rename = "filesQueueURL", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 1024)))]
    pub files_queue_url: Option<String>,
    /// URL of the queue that announces packed files.
    #[serde(rename = "chunksQueueURL", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 1024)))]
    pub chunks_queue_url: Option<String>,
    /// URL of the receipts queue, where there is one.
    #[serde(rename = "receiptsQueueURL", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 1024)))]
    pub receipts_queue_url: Option<String>,
    /// ARN of the stream.
    #[serde(rename = "streamARN", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 2048)))]
    pub stream_arn: Option<String>,
}
