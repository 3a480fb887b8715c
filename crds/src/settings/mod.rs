//! What one worker needs and nothing else: the JSON of the variable `STREAMPRESS_PIPELINE`. The operator writes it, a
//! worker reads it. What a role does not use is not in its settings, so that a change of the spec restarts only the roles
//! that it concerns. They contain no secrets. Sizes are in bytes and times in seconds, as the names say.
//!
//! - `resolve`: makes the settings from a pipeline.
//! - [`mod@read`]: reads them in a worker.

pub mod read;
pub(crate) mod resolve;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::pipeline::{
    CodecBundle, CodecEffort, CodecFormat, Example, GeneratedFormat, OnCompressed, OnRestored,
    Ordering, SourceFormat,
};
use crate::location::Location;

pub use crate::role::Role;

pub use crate::settings::read::{SettingsError, read};
pub use crate::settings::resolve::{Resolved, WorkerSettings};

/// The variable that carries a worker's settings.
pub const VARIABLE: &str = "STREAMPRESS_PIPELINE";

/// The version of the settings' JSON.
pub const VERSION: u32 = 1;
/// The version of settings that say `receiptsOnly`: a worker that does not know it would pack files while the pipeline is
/// suspended, and refuses these instead.
pub const RECEIPTS_ONLY_VERSION: u32 = 2;

/// Where the operator mounts the generator's ConfigMap; the schema is the file named after its key.
pub const SCHEMA_MOUNT: &str = "/etc/streampress/schema";

/// The settings of one worker.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "role", rename_all = "lowercase")]
pub enum Settings {
    /// Makes files and announces them.
    Generator(GeneratorSettings),
    /// Packs files and sends them.
    Compressor(CompressorSettings),
    /// Receives files and restores them.
    Decompressor(DecompressorSettings),
}

/// What the generator role needs: it makes files, scans the source, or both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GeneratorSettings {
    /// The pipeline that the worker belongs to.
    #[serde(flatten)]
    pub identity: Identity,
    /// Where the queues are.
    pub aws: AwsSettings,
    /// The queue that files are announced on.
    pub transport: GeneratorTransport,
    /// Where files are written.
    pub source: LocationSettings,
    /// What files look like; without it, none are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generator: Option<GeneratorJob>,
    /// Which of the source's files are announced; without it, there is no scan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scan: Option<SourceSettings>,
    /// The pipeline's codec: with Seed, files are announced as the Python original does.
    pub codec_format: CodecFormat,
}

/// What a compressor needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CompressorSettings {
    /// The pipeline that the worker belongs to.
    #[serde(flatten)]
    pub identity: Identity,
    /// Workers that may work at once.
    pub slots: u32,
    /// Seconds between two polls of an empty queue.
    pub interval_seconds: u32,
    /// Where the queues and the stream are.
    pub aws: AwsSettings,
    /// The queues and the stream.
    pub transport: TransportSettings,
    /// Where files are found, and what happens to them after packing.
    pub source: SourceSettings,
    /// How files are packed.
    pub codec: CodecSettings,
    /// Whether the generator role keeps a journal of the source, in which receipts are recorded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_journal: bool,
    /// Whether it takes receipts and packs nothing, as while the pipeline is suspended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub receipts_only: bool,
}

impl CompressorSettings {
    /// The settings of a compressor that takes receipts and packs nothing.
    #[must_use]
    pub fn of_receipts_only(mut self) -> Self {
        self.receipts_only = true;
        self.identity.version = RECEIPTS_ONLY_VERSION;
        self
    }
}

/// What a decompressor needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DecompressorSettings {
    /// The pipeline that the worker belongs to.
    #[serde(flatten)]
    pub identity: Identity,
    /// Workers that may work at once.
    pub slots: u32,
    /// Seconds between two polls of an empty queue.
    pub interval_seconds: u32,
    /// Where the queues and the stream are.
    pub aws: AwsSettings,
    /// The queue of packed files, that of receipts, and the stream.
    pub transport: DecompressorTransport,
    /// Where restored files go.
    pub destination: LocationSettings,
    /// Where the report goes; without it, none is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<LocationSettings>,
}

/// The pipeline that a worker belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Version of this JSON.
    pub version: u32,
    /// The pipeline's name.
    pub pipeline: String,
    /// Its namespace.
    pub namespace: String,
    /// Which files stay in order.
    pub ordering: Ordering,
}

/// Where AWS is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AwsSettings {
    /// The region.
    pub region: String,
    /// URL to use instead of the AWS endpoints.
    #[serde(
        rename = "endpointURL",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub endpoint_url: Option<String>,
}

/// The queue that a generator announces files on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GeneratorTransport {
    /// Announces files.
    pub files_queue: QueueSettings,
    /// What files pass through afterwards, where the pipeline has receipts: announced files that are lost there are announced
    /// again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onward: Option<OnwardTransport>,
}

/// What announced files pass through.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OnwardTransport {
    /// Announces packed files.
    pub chunks_queue: QueueSettings,
    /// Tells what became of each file.
    pub receipts_queue: QueueSettings,
    /// The stream's name.
    pub stream: String,
}

/// The queues and the stream; a compressor needs all of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransportSettings {
    /// Announces files.
    pub files_queue: QueueSettings,
    /// Announces packed files.
    pub chunks_queue: QueueSettings,
    /// Tells what became of each file, where the pipeline has such a queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipts_queue: Option<QueueSettings>,
    /// Carries packed bytes.
    pub stream: StreamSettings,
}

impl TransportSettings {
    /// The pipeline's queues: files, chunks and, where there is one, receipts.
    pub fn queues(&self) -> impl Iterator<Item = &QueueSettings> {
        [&self.files_queue, &self.chunks_queue]
            .into_iter()
            .chain(&self.receipts_queue)
    }

    /// The names of all queues in the order of [`TransportSettings::queues`], each followed by its dead-letter queue.
    pub fn queue_names(&self) -> impl Iterator<Item = &str> {
        self.queues()
            .flat_map(|queue| [&*queue.name, &*queue.dead_letter_name])
    }
}

/// What a decompressor reads from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DecompressorTransport {
    /// Announces packed files.
    pub chunks_queue: QueueSettings,
    /// Takes what became of each file, where the pipeline has such a queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipts_queue: Option<QueueSettings>,
    /// Carries packed bytes.
    pub stream: StreamSettings,
}

/// A FIFO queue and its dead-letter queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueSettings {
    /// Its name.
    pub name: String,
    /// The name of its dead-letter queue.
    pub dead_letter_name: String,
    /// Visibility timeout of a received message, in seconds.
    pub visibility_timeout_seconds: u32,
    /// Receives without success after which a message becomes a dead letter.
    pub max_receive_count: u32,
}

/// The stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamSettings {
    /// Its name.
    pub name: String,
    /// Number of its shards.
    pub shards: u32,
    /// Retention period, in hours.
    pub retention_hours: u32,
}

/// A folder, a prefix in a bucket, or an HTML file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocationSettings {
    /// Where it is.
    pub location: Location,
}

/// Where files are found, and what happens to them after packing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceSettings {
    /// The folder or prefix.
    pub location: Location,
    /// Kinds of files to process.
    pub formats: Vec<SourceFormat>,
    /// Seconds between two scans; 0: no scan.
    pub scan_seconds: u32,
    /// Seconds that a file must hold still before a scan announces it, and before it is deleted.
    #[serde(
        default = "default_settle_seconds",
        skip_serializing_if = "is_default_settle_seconds"
    )]
    pub settle_seconds: u32,
    /// What happens to a file after it is packed and announced.
    pub on_compressed: OnCompressed,
    /// What happens to a file once a receipt says that it was restored.
    #[serde(default, skip_serializing_if = "is_kept")]
    pub on_restored: OnRestored,
    /// Whether writers write each file elsewhere and rename it into the source.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub writers_rename: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_kept(on_restored: &OnRestored) -> bool {
    *on_restored == OnRestored::Keep
}

fn default_settle_seconds() -> u32 {
    crate::limits::SETTLE_SECONDS
}

fn is_default_settle_seconds(seconds: &u32) -> bool {
    *seconds == crate::limits::SETTLE_SECONDS
}

/// A version of the Hybrid format, written as its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub enum HybridVersion {
    /// The first, which every release reads.
    #[default]
    V1,
    /// Smaller.
    V2,
}

impl From<HybridVersion> for u32 {
    fn from(version: HybridVersion) -> Self {
        match version {
            HybridVersion::V1 => 1,
            HybridVersion::V2 => 2,
        }
    }
}

impl TryFrom<u32> for HybridVersion {
    type Error = String;

    fn try_from(number: u32) -> Result<Self, String> {
        match number {
            1 => Ok(Self::V1),
            2 => Ok(Self::V2),
            other => Err(format!("is {other}, must be 1 or 2")),
        }
    }
}

/// How files are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CodecSettings {
    /// The form of the packed bytes.
    pub format: CodecFormat,
    /// Version of the Hybrid format that is written. Version 1 is not written down, so that settings stay as they were before
    /// there were two.
    #[serde(default, skip_serializing_if = "is_first_version")]
    pub format_version: HybridVersion,
    /// Whether small files share a block. An operator of an earlier release does not write it: then they do not, since its
    /// decompressors may be as old.
    #[serde(default = "no_bundles", skip_serializing_if = "is_off")]
    pub bundle: CodecBundle,
    /// How much time packing may take.
    pub effort: CodecEffort,
    /// Size of a block, in bytes.
    pub block_bytes: usize,
    /// Size of the largest record on the stream, in bytes.
    pub record_bytes: usize,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_first_version(version: &HybridVersion) -> bool {
    *version == HybridVersion::V1
}

fn no_bundles() -> CodecBundle {
    CodecBundle::Off
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_off(bundle: &CodecBundle) -> bool {
    *bundle == CodecBundle::Off
}

/// What a generator makes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GeneratorJob {
    /// What the records look like.
    pub schema: SchemaSource,
    /// Approximate size of each file, in bytes.
    pub file_bytes: u64,
    /// Files per minute; 0: no limit.
    pub files_per_minute: u32,
    /// Files in all; 0: no end.
    pub files: u64,
    /// Format of the files.
    pub format: GeneratedFormat,
    /// Seed of the random numbers.
    pub seed: u64,
}

/// Where the generator's schema comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SchemaSource {
    /// A schema that comes with Streampress.
    Example(Example),
    /// A file; in a cluster, the mounted key of a ConfigMap.
    File(String),
    /// The schema itself.
    Inline(Value),
}

impl Settings {
    /// The worker's role.
    pub fn role(&self) -> Role {
        match self {
            Settings::Generator(_) => Role::Generator,
            Settings::Compressor(_) => Role::Compressor,
            Settings::Decompressor(_) => Role::Decompressor,
        }
    }

    /// The pipeline that the worker belongs to.
    pub fn identity(&self) -> &Identity {
        match self {
            Settings::Generator(settings) => &settings.identity,
            Settings::Compressor(settings) => &settings.identity,
            Settings::Decompressor(settings) => &settings.identity,
        }
    }

    /// Where AWS is.
    pub fn aws(&self) -> &AwsSettings {
        match self {
            Settings::Generator(settings) => &settings.aws,
            Settings::Compressor(settings) => &settings.aws,
            Settings::Decompressor(settings) => &settings.aws,
        }
    }

    /// The JSON for `STREAMPRESS_PIPELINE`. The same settings give the same text.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("settings contain only what JSON can express")
    }
}
