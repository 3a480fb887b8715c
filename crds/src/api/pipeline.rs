//! The spec of a CompressionPipeline, field by field: plain serde types with the names of the YAML.
//!
//! Defaults are in `defaults.rs`, rules across fields in `rules/`, the status in `status.rs`. Reading a spec does not
//! fail on a value that breaks a rule: one such object must not stop the reading of all. `CheckedPipeline` judges
//! values. The doc comments here are the descriptions that `kubectl explain` shows.

use std::collections::BTreeMap;

#[cfg(feature = "kubernetes")]
use kube::CustomResource;
#[cfg(feature = "kubernetes")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[cfg(not(feature = "kubernetes"))]
pub use crate::api::light::CompressionPipeline;
#[cfg(feature = "kubernetes")]
use crate::api::status::CompressionPipelineStatus;
#[cfg(feature = "kubernetes")]
use crate::api::{fragments, patterns};
use crate::quantity::ByteSize;

/// Where files come from, how they are packed and moved, and where they are restored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(CustomResource, JsonSchema))]
#[cfg_attr(
    feature = "kubernetes",
    kube(
        group = "streampress.dev",
        version = "v1alpha1",
        kind = "CompressionPipeline",
        plural = "compressionpipelines",
        shortname = "cpl",
        category = "streampress",
        namespaced,
        status = "CompressionPipelineStatus",
        derive = "PartialEq",
        derive = "Default",
        doc = "Moves text files through a metered stream, as small as they can be made, and restores them byte for byte at the other end.",
        scale(
            spec_replicas_path = ".spec.compressor.replicas",
            status_replicas_path = ".status.roles.compressor.ready",
            label_selector_path = ".status.roles.compressor.selector"
        ),
        printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
        printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
        printcolumn = r#"{"name":"Backlog","type":"integer","jsonPath":".status.backlog.files","description":"Files announced and not yet compressed."}"#,
        printcolumn = r#"{"name":"Restored","type":"integer","jsonPath":".status.progress.filesRestored"}"#,
        printcolumn = r#"{"name":"Saved","type":"string","jsonPath":".status.progress.savedPercent","description":"Share of the bytes that the stream did not have to carry, in per cent."}"#,
        printcolumn = r#"{"name":"Dead","type":"integer","jsonPath":".status.backlog.dead","description":"Dead letters of all queues; each has a reason."}"#,
        printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
        printcolumn = r#"{"name":"Compressors","type":"string","jsonPath":".status.roles.compressor.slots[*].holder","priority":1}"#,
        printcolumn = r#"{"name":"Decompressors","type":"string","jsonPath":".status.roles.decompressor.slots[*].holder","priority":1}"#,
        printcolumn = r#"{"name":"Image","type":"string","jsonPath":".status.roles.compressor.image","priority":1}"#,
        printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.message","priority":1}"#
    )
)]
#[serde(rename_all = "camelCase", default)]
pub struct CompressionPipelineSpec {
    /// If true, generator and compressors stop taking files, packed files are restored, their receipts taken, and all roles stop.
    pub suspend: bool,
    /// Which files stay in order: those of one name (PerName) or all (Strict).
    pub ordering: Ordering,
    /// The container image of the workers. Default: the image that the operator is configured with.
    pub image: ImageSpec,
    /// Where the queues and the stream are, and the identity that uses them.
    pub aws: AwsSpec,
    /// The queues and the stream that connect the roles.
    pub transport: TransportSpec,
    /// Where files to compress are found.
    pub source: SourceSpec,
    /// Where restored files go.
    pub destination: DestinationSpec,
    /// The volume mounted at /data in every worker. Required in a cluster if a location begins with file://.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeSpec>,
    /// How files are packed.
    pub codec: CodecSpec,
    /// Generates files to compress. Leave it out if files come from elsewhere. Without a schema its pod only scans the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generator: Option<GeneratorSpec>,
    /// The workers that pack files and write them to the stream.
    pub compressor: WorkerSpec,
    /// The workers that read files from the stream and restore them.
    pub decompressor: WorkerSpec,
    /// The HTML report of every file's sizes, times and savings.
    pub report: ReportSpec,
}

/// Which files stay in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
pub enum Ordering {
    /// Versions of one file name stay in order; files of different names are processed in parallel.
    #[default]
    PerName,
    /// Files are processed one after another, by one active worker per role.
    Strict,
}

/// The container image of the workers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ImageSpec {
    /// Repository with registry, without a tag, e.g. ghcr.io/streampress/streampress.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(min = 1, max = 255), regex(pattern = patterns::IMAGE_REPOSITORY)))]
    pub repository: Option<String>,
    /// Tag, or a digest as sha256:….
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(min = 1, max = 128), regex(pattern = patterns::IMAGE_TAG)))]
    pub tag: Option<String>,
    /// When the node pulls the image.
    pub pull_policy: PullPolicy,
    /// Secrets in the pipeline's namespace with the registry's credentials.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 16)))]
    pub pull_secrets: Vec<ObjectName>,
}

/// When the node pulls the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
pub enum PullPolicy {
    /// Only if the node does not have the image.
    #[default]
    IfNotPresent,
    /// At every start of a worker.
    Always,
    /// Never: the image must be on the node already.
    Never,
}

/// The name of an object in the pipeline's namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
pub struct ObjectName {
    /// Name of an object in the pipeline's namespace.
    #[cfg_attr(feature = "kubernetes", schemars(length(min = 1, max = 253), regex(pattern = patterns::OBJECT_NAME)))]
    pub name: String,
}

/// Where the queues and the stream are, and the identity that uses them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct AwsSpec {
    /// AWS region of the queues and the stream. Immutable.
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 32), regex(pattern = patterns::REGION)))]
    pub region: String,
    /// URL to use instead of the AWS endpoints, e.g. http://localstack:4566. Must not contain credentials. Another URL must lead to the same service: what waits in queues elsewhere is not found there.
    #[serde(rename = "endpointURL", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 512), regex(pattern = patterns::ENDPOINT)))]
    pub endpoint_url: Option<String>,
    /// Secret in the pipeline's namespace with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if needed, AWS_SESSION_TOKEN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<ObjectName>,
    /// ServiceAccount of the workers, e.g. one bound to an IAM role. Default: one that the operator creates.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(min = 1, max = 253), regex(pattern = patterns::OBJECT_NAME)))]
    pub service_account_name: Option<String>,
}

/// The queues and the stream that connect the roles.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct TransportSpec {
    /// Create: the operator creates queues and stream for this pipeline. Adopt: existing ones, named below, are used and never deleted. Immutable.
    pub policy: TransportPolicy,
    /// What happens to queues and stream when the pipeline is deleted. Only those with this pipeline's tag are deleted.
    pub deletion_policy: DeletionPolicy,
    /// Announces files to the compressors (an SQS FIFO queue).
    pub files_queue: QueueSpec,
    /// Announces packed files to the decompressors (an SQS FIFO queue).
    pub chunks_queue: QueueSpec,
    /// Receipts: the outcome of each file, for the compressors (an SQS FIFO queue). With policy Adopt there is one only where it is named. Never with codec.format Seed.
    pub receipts_queue: QueueSpec,
    /// Carries the packed bytes (a Kinesis stream).
    pub stream: StreamSpec,
}

/// Who owns the queues and the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
pub enum TransportPolicy {
    /// The operator creates them for this pipeline and tags them with its UID.
    #[default]
    Create,
    /// Existing ones, named in the spec, are used and never deleted.
    Adopt,
}

/// What happens to queues and stream when the pipeline is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
pub enum DeletionPolicy {
    /// They are deleted once they are empty; an Event names what is kept.
    #[default]
    WhenEmpty,
    /// They are kept.
    Retain,
    /// They are deleted with everything in them.
    Delete,
}

/// A FIFO queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct QueueSpec {
    /// Name, ending in .fifo. Default: made from the pipeline's namespace, name and UID. Immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 80), regex(pattern = patterns::QUEUE_NAME)))]
    pub name: Option<String>,
    /// Visibility timeout of a received message in seconds. Workers extend it while they process the message.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 10, max = 43_200)))]
    pub visibility_timeout_seconds: i32,
    /// Failures of its own after which a file becomes a dead letter, ten minutes after the first at the earliest. One counts while other files of its size can be worked on; releases, killed workers and outages do not count. The queue's own maxReceiveCount is 1000, a last resort.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 2, max = 1_000)))]
    pub max_receive_count: i32,
}

/// The stream that carries the packed bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct StreamSpec {
    /// Name. Default: made from the pipeline's namespace, name and UID. Immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 128), regex(pattern = patterns::STREAM_NAME)))]
    pub name: Option<String>,
    /// Number of shards. Each carries 1 MiB/s in and 2 MiB/s out, and is billed by the hour.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 1, max = 500)))]
    pub shards: i32,
    /// Retention period of the stream in hours: the time within which files must be restored. A lower value is carried out once all queues are empty.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 24, max = 8_760)))]
    pub retention_hours: i32,
    /// With policy Create: double the retention, up to 14 days, each time that packed files or their dead letters have waited for half of it, and set it back when nothing waits. AWS bills what exceeds a day.
    pub extend_retention: bool,
}

/// Where files to compress are found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct SourceSpec {
    /// Folder on the volume (file:///data/…) or prefix in a bucket (s3://bucket/prefix).
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 512), regex(pattern = patterns::LOCATION)))]
    pub location: String,
    /// Kinds of files to process: json (.json, .ndjson, .jsonl), csv (.csv), txt (.txt, .log).
    #[cfg_attr(feature = "kubernetes", schemars(length(min = 1, max = 3), extend("x-kubernetes-list-type" = "set")))]
    pub formats: Vec<SourceFormat>,
    /// Seconds between two scans for new and changed files. 0: no scan, only submitted and generated files are announced.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 0, max = 86_400)))]
    pub scan_seconds: i32,
    /// Seconds that a file must hold still before a scan announces it, and before it is deleted; the latter not with writersRename nor in a bucket. A file that others keep writing is announced anew no sooner. Default: 10, or 60 where packed or restored files are renamed or deleted.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 0, max = 86_400)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settle_seconds: Option<i32>,
    /// What happens to a source file after it is packed and announced. Rename makes a_delete.json of a.json, or a-1_delete.json where that is taken; files of such names are not taken.
    pub on_compressed: OnCompressed,
    /// What happens to a source file once a receipt says that it was restored; Rename as in onCompressed. Needs receipts.
    pub on_restored: OnRestored,
    /// A promise: writers write a file elsewhere and rename it into the source. On a volume, onRestored: Delete needs it.
    pub writers_rename: bool,
}

/// What happens to a source file once a receipt says that it was restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
pub enum OnRestored {
    /// The file is kept.
    #[default]
    Keep,
    /// `a.json` becomes `a_delete.json`; where that is taken `a-1_delete.json`, and so on. Files of such names are not taken.
    Rename,
    /// The file is deleted, unless it changed since.
    Delete,
}

/// A kind of text file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum SourceFormat {
    /// JSON: .json, .ndjson, .jsonl.
    Json,
    /// Comma-separated values: .csv.
    Csv,
    /// Plain text and logs: .txt, .log.
    Txt,
}

/// What happens to a source file after it is packed and announced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
pub enum OnCompressed {
    /// The file is kept.
    #[default]
    Keep,
    /// `a.json` becomes `a_delete.json`; where that is taken `a-1_delete.json`, and so on. Files of such names are not taken.
    Rename,
    /// The file is deleted. The stream then holds the only copy until the file is restored.
    Delete,
}

/// Where restored files go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationSpec {
    /// Folder on the volume (file:///data/…) or prefix in a bucket (s3://bucket/prefix).
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 512), regex(pattern = patterns::LOCATION)))]
    pub location: String,
}

/// The volume mounted at /data in every worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct VolumeSpec {
    /// A PersistentVolumeClaim in the pipeline's namespace; ReadWriteMany if workers run on several nodes.
    pub persistent_volume_claim: VolumeClaim,
}

/// A PersistentVolumeClaim in the pipeline's namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct VolumeClaim {
    /// Name of the PersistentVolumeClaim.
    #[cfg_attr(feature = "kubernetes", schemars(length(min = 1, max = 253), regex(pattern = patterns::OBJECT_NAME)))]
    pub claim_name: String,
}

/// How files are packed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct CodecSpec {
    /// Hybrid: the smallest form; restores every byte. Seed: the Python original's form; restores the normalised file.
    pub format: CodecFormat,
    /// Hybrid version to write; readers must know it.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 1, max = 2)))]
    pub format_version: i32,
    /// Whether small files that are in progress at the same time share a block. Auto: about a third of the bytes; decompressors
    /// must know it. Off: each file alone. Seed ignores it.
    pub bundle: CodecBundle,
    /// How much time packing may take. Seed ignores it.
    pub effort: CodecEffort,
    /// Size of the blocks that are packed one by one, from 64Ki to 64Mi. Larger blocks pack smaller and need more memory.
    pub block_size: ByteSize,
    /// Size of the largest record on the stream, from 4Ki to 1023Ki. Kinesis takes 1 MiB, of which the header needs up to 1 KiB.
    pub record_size: ByteSize,
}

/// The form of the packed bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
pub enum CodecFormat {
    /// Every block is packed by the smallest of several lossless methods.
    #[default]
    Hybrid,
    /// Bit-compatible with the Python original (LZMA, base64, BZ2). Restores the normalised file.
    Seed,
}

/// Whether small files share a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
pub enum CodecBundle {
    /// Small files that a compressor has in progress at the same time are packed into one block.
    Auto,
    /// Each file is packed alone.
    Off,
}

/// How much time packing may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
pub enum CodecEffort {
    /// Least time.
    Fast,
    /// Small at a fair speed.
    #[default]
    Balanced,
    /// Smallest.
    Max,
}

/// Generates files to compress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct GeneratorSpec {
    /// What the records look like: exactly one of example, configMap and inline. Needed unless the source is scanned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<GeneratorSchema>,
    /// Approximate size of each file, from 1Ki to 1Gi.
    pub file_size: ByteSize,
    /// Files to generate per minute. 0: no limit.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 0, max = 100_000)))]
    pub files_per_minute: i32,
    /// Files to generate in all. 0: no end.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 0, max = 1_000_000_000)))]
    pub files: i64,
    /// Format of the files.
    pub format: GeneratedFormat,
    /// Seed of the random numbers: the same seed and schema give the same files.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 0)))]
    pub seed: i64,
    /// CPU and memory of the pod that generates and scans.
    pub resources: ResourcesSpec,
    /// Merged into that pod's template, as in compressor.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "kubernetes",
        schemars(schema_with = "fragments::any_object")
    )]
    pub pod_template: Option<Map<String, Value>>,
}

/// What the generated records look like: exactly one of example, configMap and inline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct GeneratorSchema {
    /// A schema that comes with Streampress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub example: Option<Example>,
    /// ConfigMap in the pipeline's namespace with the schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(min = 1, max = 253), regex(pattern = patterns::OBJECT_NAME)))]
    pub config_map: Option<String>,
    /// Key in the ConfigMap. Default: schema.json.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(min = 1, max = 253), regex(pattern = patterns::CONFIG_KEY)))]
    pub key: Option<String>,
    /// The schema itself, at most 64 KiB as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "kubernetes",
        schemars(schema_with = "fragments::any_object")
    )]
    pub inline: Option<Map<String, Value>>,
}

/// A schema that comes with Streampress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Example {
    /// Trades of invented shares, with prices that follow a random walk.
    StockMarket,
    /// Readings of sensors, with positions and battery levels.
    IotSensors,
    /// Lines of a web server's access log.
    AccessLog,
}

/// Format of the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum GeneratedFormat {
    /// One JSON array of records (.json).
    #[default]
    Json,
    /// One JSON record a line (.ndjson).
    Ndjson,
    /// Comma-separated values with a header (.csv).
    Csv,
    /// Lines of text (.txt).
    Txt,
}

/// The workers of one role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct WorkerSpec {
    /// Number of pods if autoscaling.mode is None; with another mode `kubectl scale` does nothing. Pods beyond `slots` are on standby.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 0, max = 500)))]
    pub replicas: i32,
    /// Number of workers that may work at the same time. Default: 1, or autoscaling.max with autoscaling.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 1, max = 500)))]
    pub slots: Option<i32>,
    /// Seconds between two polls of an empty queue.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 1, max = 3_600)))]
    pub interval_seconds: i32,
    /// How the number of pods is decided.
    pub autoscaling: AutoscalingSpec,
    /// CPU and memory of each pod.
    pub resources: ResourcesSpec,
    /// Merged into the role's pod template, as in a Deployment: labels, node selection, tolerations.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "kubernetes",
        schemars(schema_with = "fragments::any_object")
    )]
    pub pod_template: Option<Map<String, Value>>,
}

/// How the number of pods is decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct AutoscalingSpec {
    /// None: `replicas`. Internal: the operator scales by backlog, from min to max. External: an HPA or KEDA scales the Deployment.
    pub mode: AutoscalingMode,
    /// Smallest number of pods. 0: no pod while there is no work.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 0, max = 500)))]
    pub min: i32,
    /// Largest number of pods.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 1, max = 500)))]
    pub max: i32,
    /// Waiting files per pod that the operator aims at.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 1, max = 100_000)))]
    pub target_backlog_per_replica: i32,
    /// Seconds for which the backlog must call for more pods before the operator adds them.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 0, max = 3_600)))]
    pub scale_up_seconds: i32,
    /// Seconds for which the backlog must call for fewer pods before the operator removes them.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 0, max = 86_400)))]
    pub scale_down_seconds: i32,
}

/// How the number of pods is decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
pub enum AutoscalingMode {
    /// `replicas` says how many.
    #[default]
    None,
    /// The operator scales by backlog.
    Internal,
    /// An HPA or KEDA scales; the operator does not set the Deployment's replicas.
    External,
}

/// CPU and memory of each pod, as in a container's resources.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ResourcesSpec {
    /// What is reserved for the pod, e.g. {cpu: 500m, memory: 256Mi}.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "kubernetes", schemars(schema_with = "fragments::amounts"))]
    pub requests: BTreeMap<String, ResourceAmount>,
    /// What the pod may not exceed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "kubernetes", schemars(schema_with = "fragments::amounts"))]
    pub limits: BTreeMap<String, ResourceAmount>,
}

/// An amount of CPU, memory or another resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ResourceAmount {
    /// A bare number: cores, bytes or pieces.
    Number(i64),
    /// A number with a unit, e.g. 500m or 256Mi.
    Text(String),
}

/// The HTML report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ReportSpec {
    /// Whether the report is written.
    pub enabled: bool,
    /// The HTML file, on the volume (file:///data/….html) or in a bucket (s3://bucket/….html).
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 512), regex(pattern = patterns::REPORT_LOCATION)))]
    pub location: String,
}

impl SourceFormat {
    /// The kind of a file by its name's extension, in any case; nothing for files of other kinds.
    pub fn of_name(name: &str) -> Option<Self> {
        let (stem, extension) = name.rsplit_once('.')?;
        if stem.is_empty() {
            return None;
        }
        match extension.to_ascii_lowercase().as_str() {
            "json" | "ndjson" | "jsonl" => Some(SourceFormat::Json),
            "csv" => Some(SourceFormat::Csv),
            "txt" | "log" => Some(SourceFormat::Txt),
            _ => None,
        }
    }
}

impl GeneratedFormat {
    /// The kind that `source.formats` must contain for these files to be processed.
    pub(crate) const fn kind(self) -> SourceFormat {
        match self {
            GeneratedFormat::Json | GeneratedFormat::Ndjson => SourceFormat::Json,
            GeneratedFormat::Csv => SourceFormat::Csv,
            GeneratedFormat::Txt => SourceFormat::Txt,
        }
    }
}
