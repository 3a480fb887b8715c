//! The CompressionPipeline: what a user may ask for, field by field.
//! Plain serde types with the names of the YAML; defaults stand in `defaults.rs`, what the operator
//! answers in `status.rs`, rules across fields in `rules.rs`. Reading one never fails on a bad value
//! that the schema already keeps out of a cluster: `settings::resolve` is where values are judged.
//! The doc comments here are what `kubectl explain` shows.

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

/// What a pipeline shall do: where files come from, how they are packed and moved, and where they are restored.
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
        doc = "Moves text files through a metered stream as small as they can be made and restores them byte for byte on the other side.",
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
        printcolumn = r#"{"name":"Dead","type":"integer","jsonPath":".status.backlog.dead","description":"Messages set aside as dead letters, with a reason each."}"#,
        printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
        printcolumn = r#"{"name":"Compressors","type":"string","jsonPath":".status.roles.compressor.slots[*].holder","priority":1}"#,
        printcolumn = r#"{"name":"Decompressors","type":"string","jsonPath":".status.roles.decompressor.slots[*].holder","priority":1}"#,
        printcolumn = r#"{"name":"Image","type":"string","jsonPath":".status.roles.compressor.image","priority":1}"#,
        printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.message","priority":1}"#
    )
)]
#[serde(rename_all = "camelCase", default)]
pub struct CompressionPipelineSpec {
    /// Stop taking in files, finish what is in flight, then scale every role to zero.
    pub suspend: bool,
    /// What stays in order: files of one name (PerName) or all files (Strict).
    pub ordering: Ordering,
    /// The container image of the workers; the operator's own release where nothing is said.
    pub image: ImageSpec,
    /// Where the queues and the stream are, and with whose rights they are used.
    pub aws: AwsSpec,
    /// The two queues and the stream between the roles.
    pub transport: TransportSpec,
    /// Where files to compress are found.
    pub source: SourceSpec,
    /// Where restored files go.
    pub destination: DestinationSpec,
    /// The volume mounted at /data in every worker; needed in a cluster when a location begins with file://.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeSpec>,
    /// How files are packed.
    pub codec: CodecSpec,
    /// Makes files to compress; leave it out when files come from elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generator: Option<GeneratorSpec>,
    /// The workers that pack files and send them.
    pub compressor: WorkerSpec,
    /// The workers that receive files and restore them.
    pub decompressor: WorkerSpec,
    /// The HTML report of every file's sizes, times and savings.
    pub report: ReportSpec,
}

/// What stays in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
pub enum Ordering {
    /// Versions of one file name stay in order; different names run in parallel.
    #[default]
    PerName,
    /// One file after another, with one active worker per role.
    Strict,
}

/// The container image of the workers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ImageSpec {
    /// Repository with registry and without a tag, e.g. ghcr.io/streampress/streampress.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(min = 1, max = 255), regex(pattern = patterns::IMAGE_REPOSITORY)))]
    pub repository: Option<String>,
    /// Tag, or a digest written sha256:….
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(min = 1, max = 128), regex(pattern = patterns::IMAGE_TAG)))]
    pub tag: Option<String>,
    /// When the node pulls the image.
    pub pull_policy: PullPolicy,
    /// Secrets of this namespace that hold the registry's credentials.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 16)))]
    pub pull_secrets: Vec<ObjectName>,
}

/// When the node pulls the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
pub enum PullPolicy {
    /// Only when the node does not have it.
    #[default]
    IfNotPresent,
    /// At every start of a worker.
    Always,
    /// Never: the image must be on the node.
    Never,
}

/// The name of an object in the pipeline's namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
pub struct ObjectName {
    /// Name of the object, in the same namespace.
    #[cfg_attr(feature = "kubernetes", schemars(length(min = 1, max = 253), regex(pattern = patterns::OBJECT_NAME)))]
    pub name: String,
}

/// Where the queues and the stream are, and with whose rights they are used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct AwsSpec {
    /// AWS region of the queues and the stream.
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 32), regex(pattern = patterns::REGION)))]
    pub region: String,
    /// Address to use instead of AWS's own, e.g. http://localstack:4566. Credentials do not belong in it.
    #[serde(rename = "endpointURL", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 512), regex(pattern = patterns::ENDPOINT)))]
    pub endpoint_url: Option<String>,
    /// Secret of this namespace with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, where needed, AWS_SESSION_TOKEN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<ObjectName>,
    /// Service account the workers run as, e.g. one bound to an IAM role; one of the operator's making where left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(min = 1, max = 253), regex(pattern = patterns::OBJECT_NAME)))]
    pub service_account_name: Option<String>,
}

/// The two queues and the stream between the roles.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct TransportSpec {
    /// Create: made for this pipeline. Adopt: existing ones, named below, used and never deleted. Cannot be changed later.
    pub policy: TransportPolicy,
    /// What happens to the queues and the stream when the pipeline is deleted; only what carries this object's tag is touched.
    pub deletion_policy: DeletionPolicy,
    /// Announces files to the compressors (SQS FIFO).
    pub files_queue: QueueSpec,
    /// Announces packed files to the decompressors (SQS FIFO).
    pub chunks_queue: QueueSpec,
    /// Carries the packed bytes (Kinesis).
    pub stream: StreamSpec,
}

/// Who the queues and the stream belong to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
pub enum TransportPolicy {
    /// Made by the operator for this pipeline, and tagged with its UID.
    #[default]
    Create,
    /// Existing ones, named in the spec; never deleted.
    Adopt,
}

/// What happens to queues and stream when the pipeline is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
pub enum DeletionPolicy {
    /// Deleted once nothing is left in them; what is kept is named in an Event.
    #[default]
    WhenEmpty,
    /// Kept.
    Retain,
    /// Deleted with whatever is left in them.
    Delete,
}

/// A FIFO queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct QueueSpec {
    /// Name, ending in .fifo; made from namespace, name and UID where left out. Cannot be changed later.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 80), regex(pattern = patterns::QUEUE_NAME)))]
    pub name: Option<String>,
    /// Seconds a message stays hidden while a worker has it; prolonged for as long as the worker is at work.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 10, max = 43_200)))]
    pub visibility_timeout_seconds: i32,
    /// Deliveries without success after which a message becomes a dead letter; at least 2, so that one restart does not make one.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 2, max = 1_000)))]
    pub max_receive_count: i32,
}

/// The stream that carries the packed bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct StreamSpec {
    /// Name; made from namespace, name and UID where left out. Cannot be changed later.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 128), regex(pattern = patterns::STREAM_NAME)))]
    pub name: Option<String>,
    /// Shards: each carries 1 MiB/s in and 2 MiB/s out, and is paid for by the hour.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 1, max = 500)))]
    pub shards: i32,
    /// Hours the stream keeps the packed bytes: the time within which files must be restored.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 24, max = 8_760)))]
    pub retention_hours: i32,
}

/// Where files to compress are found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct SourceSpec {
    /// Folder on the volume (file:///data/…) or prefix in a bucket (s3://bucket/prefix).
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 512), regex(pattern = patterns::LOCATION)))]
    pub location: String,
    /// Kinds of files to take: json (.json, .ndjson, .jsonl), csv (.csv), txt (.txt, .log).
    #[cfg_attr(feature = "kubernetes", schemars(length(min = 1, max = 3), extend("x-kubernetes-list-type" = "set")))]
    pub formats: Vec<SourceFormat>,
    /// Announce new and changed files that held still for this many seconds; 0: only what is submitted or generated.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 0, max = 86_400)))]
    pub scan_seconds: i32,
    /// What happens to a source file once it is packed and announced.
    pub on_compressed: OnCompressed,
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

/// What happens to a source file once it is packed and announced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
pub enum OnCompressed {
    /// It stays as it is.
    #[default]
    Keep,
    /// `_delete` is put before its extension, as the Python original does.
    Rename,
    /// It is deleted; until it is restored, the stream then holds the only copy.
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
    /// A claim of this namespace; ReadWriteMany where workers run on several nodes.
    pub persistent_volume_claim: VolumeClaim,
}

/// A claim of this namespace.
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
    /// Hybrid: smallest, byte for byte. Seed: as the Python original writes and reads it, files normalised.
    pub format: CodecFormat,
    /// How much time packing may take. Seed has one effort of its own.
    pub effort: CodecEffort,
    /// Bytes packed at once, from 64Ki to 64Mi: larger blocks pack smaller and need more memory.
    pub block_size: ByteSize,
    /// Largest record on the stream, from 4Ki to 1023Ki: 1 MiB is Kinesis's limit, 1 KiB of it is the header's.
    pub record_size: ByteSize,
}

/// The form of the packed bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
pub enum CodecFormat {
    /// Every block goes through the smallest of several lossless ways.
    #[default]
    Hybrid,
    /// Bit-compatible with the Python original (LZMA, base64, BZ2); restores the normalised file.
    Seed,
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

/// Makes files to compress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct GeneratorSpec {
    /// What the records look like: exactly one of example, configMap and inline.
    pub schema: GeneratorSchema,
    /// About how large each file gets, from 1Ki to 1Gi.
    pub file_size: ByteSize,
    /// Files to make per minute; 0: as fast as it can.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 0, max = 100_000)))]
    pub files_per_minute: i32,
    /// Files to make before it idles; 0: endless.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 0, max = 1_000_000_000)))]
    pub files: i64,
    /// Kind of file to write.
    pub format: GeneratedFormat,
    /// The same seed and schema make the same files.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 0)))]
    pub seed: i64,
}

/// What the generated records look like: exactly one of example, configMap and inline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct GeneratorSchema {
    /// A schema that comes with Streampress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub example: Option<Example>,
    /// ConfigMap of this namespace that holds the schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(min = 1, max = 253), regex(pattern = patterns::OBJECT_NAME)))]
    pub config_map: Option<String>,
    /// Key in the ConfigMap; schema.json where left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(length(min = 1, max = 253), regex(pattern = patterns::CONFIG_KEY)))]
    pub key: Option<String>,
    /// The schema itself, an object; at most 64 KiB as JSON.
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
    /// Trades of made-up shares, with prices that walk.
    StockMarket,
    /// Readings of sensors, with places and battery levels.
    IotSensors,
    /// Lines of a web server's access log.
    AccessLog,
}

/// Kind of file to write.
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
    /// Pods to run while autoscaling is None; those beyond `slots` stand by.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 0, max = 500)))]
    pub replicas: i32,
    /// Workers that may be at work at once; 1 where left out, autoscaling.max with autoscaling.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 1, max = 500)))]
    pub slots: Option<i32>,
    /// Seconds between two looks for work.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 1, max = 3_600)))]
    pub interval_seconds: i32,
    /// Who decides how many pods run.
    pub autoscaling: AutoscalingSpec,
    /// CPU and memory of each pod.
    pub resources: ResourcesSpec,
    /// Merged into the role's pods: labels, node selection, tolerations, as in a Deployment's template.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "kubernetes",
        schemars(schema_with = "fragments::any_object")
    )]
    pub pod_template: Option<Map<String, Value>>,
}

/// Who decides how many pods run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct AutoscalingSpec {
    /// None: replicas as written. Internal: by backlog, from min to max. External: an HPA or KEDA scales the Deployment.
    pub mode: AutoscalingMode,
    /// Fewest pods; 0: none while there is no work.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 0, max = 500)))]
    pub min: i32,
    /// Most pods.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 1, max = 500)))]
    pub max: i32,
    /// Waiting files for which one pod is thought enough.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 1, max = 100_000)))]
    pub target_backlog_per_replica: i32,
    /// Seconds the backlog must call for more pods before they are added.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 0, max = 3_600)))]
    pub scale_up_seconds: i32,
    /// Seconds the backlog must call for fewer pods before they are taken away.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 0, max = 86_400)))]
    pub scale_down_seconds: i32,
}

/// Who decides how many pods run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
pub enum AutoscalingMode {
    /// `replicas`, as written.
    #[default]
    None,
    /// The operator, by backlog.
    Internal,
    /// An HPA or KEDA; the operator leaves the Deployment's replicas alone.
    External,
}

/// CPU and memory of each pod, as in any pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ResourcesSpec {
    /// What is set aside for the pod, e.g. {cpu: 500m, memory: 256Mi}.
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
    /// Whether it is written.
    pub enabled: bool,
    /// The page, on the volume (file:///data/….html) or in a bucket (s3://bucket/….html).
    #[cfg_attr(feature = "kubernetes", schemars(length(max = 512), regex(pattern = patterns::REPORT_LOCATION)))]
    pub location: String,
}
