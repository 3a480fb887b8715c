//! What one worker role needs and nothing else: the JSON of the variable `STREAMPRESS_PIPELINE`.
//! The operator writes it, a worker reads it, `run` hands it over within one process. Whatever a
//! role does not use is not in its settings, so that only what matters to a role restarts it.
//! Secrets never are. Sizes are bytes, times are seconds, as the names say.

pub mod read;
pub(crate) mod resolve;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::pipeline::{
    CodecEffort, CodecFormat, Example, GeneratedFormat, OnCompressed, Ordering, SourceFormat,
};
use crate::location::Location;

pub use crate::role::Role;

pub use crate::settings::read::{SettingsError, read};
pub use crate::settings::resolve::{Resolved, WorkerSettings};

/// The variable that carries a worker's settings.
pub const VARIABLE: &str = "STREAMPRESS_PIPELINE";

/// The version of the settings' JSON.
pub const VERSION: u32 = 1;

/// Where the operator mounts the generator's ConfigMap; the schema is the file of its key.
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

/// What a generator needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GeneratorSettings {
    /// Whose worker it is.
    #[serde(flatten)]
    pub identity: Identity,
    /// Where the queues are.
    pub aws: AwsSettings,
    /// The queue files are announced on.
    pub transport: GeneratorTransport,
    /// Where files are put.
    pub source: LocationSettings,
    /// What files look like.
    pub generator: GeneratorJob,
    /// The pipeline's packed form: with Seed, files are announced as the Python original does.
    pub codec_format: CodecFormat,
}

/// What a compressor needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CompressorSettings {
    /// Whose worker it is.
    #[serde(flatten)]
    pub identity: Identity,
    /// Workers that may work at once.
    pub slots: u32,
    /// Seconds between two polls of an empty queue.
    pub interval_seconds: u32,
    /// Where the queues and the stream are.
    pub aws: AwsSettings,
    /// Both queues and the stream.
    pub transport: TransportSettings,
    /// Where files are found, and what becomes of them.
    pub source: SourceSettings,
    /// How files are packed.
    pub codec: CodecSettings,
}

/// What a decompressor needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DecompressorSettings {
    /// Whose worker it is.
    #[serde(flatten)]
    pub identity: Identity,
    /// Workers that may work at once.
    pub slots: u32,
    /// Seconds between two polls of an empty queue.
    pub interval_seconds: u32,
    /// Where the queues and the stream are.
    pub aws: AwsSettings,
    /// The queue of packed files, and the stream.
    pub transport: DecompressorTransport,
    /// Where restored files go.
    pub destination: LocationSettings,
    /// Where the report goes; none is written where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<LocationSettings>,
}

/// Whose worker it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Version of this JSON.
    pub version: u32,
    /// The pipeline's name.
    pub pipeline: String,
    /// Its namespace.
    pub namespace: String,
    /// What stays in order.
    pub ordering: Ordering,
}

/// Where AWS is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AwsSettings {
    /// The region.
    pub region: String,
    /// Address to use instead of AWS's own.
    #[serde(
        rename = "endpointURL",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub endpoint_url: Option<String>,
}

/// The queue a generator announces files on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GeneratorTransport {
    /// Announces files.
    pub files_queue: QueueSettings,
}

/// Both queues and the stream; a compressor needs all of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransportSettings {
    /// Announces files.
    pub files_queue: QueueSettings,
    /// Announces packed files.
    pub chunks_queue: QueueSettings,
    /// Carries packed bytes.
    pub stream: StreamSettings,
}

/// What a decompressor takes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DecompressorTransport {
    /// Announces packed files.
    pub chunks_queue: QueueSettings,
    /// Carries packed bytes.
    pub stream: StreamSettings,
}

/// A FIFO queue and its dead letters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueSettings {
    /// Its name.
    pub name: String,
    /// The queue of its dead letters.
    pub dead_letter_name: String,
    /// Seconds a message stays hidden while a worker has it.
    pub visibility_timeout_seconds: u32,
    /// Deliveries without success after which a message becomes a dead letter.
    pub max_receive_count: u32,
}

/// The stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamSettings {
    /// Its name.
    pub name: String,
    /// Its shards.
    pub shards: u32,
    /// Hours it keeps packed bytes.
    pub retention_hours: u32,
}

/// A place for files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocationSettings {
    /// The folder or prefix, or the page itself for a report.
    pub location: Location,
}

/// Where files are found, and what becomes of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceSettings {
    /// The folder or prefix.
    pub location: Location,
    /// Kinds of files to take.
    pub formats: Vec<SourceFormat>,
    /// Seconds a file must hold still before it is announced; 0: no looking around.
    pub scan_seconds: u32,
    /// What happens to a file once it is packed and announced.
    pub on_compressed: OnCompressed,
}

/// How files are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CodecSettings {
    /// The form of the packed bytes.
    pub format: CodecFormat,
    /// How much time packing may take.
    pub effort: CodecEffort,
    /// Bytes packed at once.
    pub block_bytes: usize,
    /// Bytes of the largest record on the stream.
    pub record_bytes: usize,
}

/// What a generator makes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GeneratorJob {
    /// What the records look like.
    pub schema: SchemaSource,
    /// About how many bytes each file gets.
    pub file_bytes: u64,
    /// Files per minute; 0: as fast as it can.
    pub files_per_minute: u32,
    /// Files before it idles; 0: endless.
    pub files: u64,
    /// Kind of file to write.
    pub format: GeneratedFormat,
    /// The same seed and schema make the same files.
    pub seed: u64,
}

/// Where the generator's schema comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SchemaSource {
    /// One that comes with Streampress.
    Example(Example),
    /// A file: in a cluster, the mounted key of a ConfigMap.
    File(String),
    /// The schema itself.
    Inline(Value),
}

impl Settings {
    /// The worker's part.
    pub fn role(&self) -> Role {
        match self {
            Settings::Generator(_) => Role::Generator,
            Settings::Compressor(_) => Role::Compressor,
            Settings::Decompressor(_) => Role::Decompressor,
        }
    }

    /// Whose worker it is.
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

    /// Workers of this role that may be at work at once; a generator has one slot.
    pub fn slots(&self) -> u32 {
        match self {
            Settings::Generator(_) => 1,
            Settings::Compressor(settings) => settings.slots,
            Settings::Decompressor(settings) => settings.slots,
        }
    }

    /// Time between two looks for work; a generator looks every second.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(u64::from(match self {
            Settings::Generator(_) => 1,
            Settings::Compressor(settings) => settings.interval_seconds,
            Settings::Decompressor(settings) => settings.interval_seconds,
        }))
    }

    /// The JSON for `STREAMPRESS_PIPELINE`: the same settings give the same text.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("settings hold only what JSON can say")
    }
}

impl SourceFormat {
    /// The kind of file a name's extension says, in any case; nothing for other files.
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
    /// Extension of the files, without the dot.
    pub const fn extension(self) -> &'static str {
        match self {
            GeneratedFormat::Json => "json",
            GeneratedFormat::Ndjson => "ndjson",
            GeneratedFormat::Csv => "csv",
            GeneratedFormat::Txt => "txt",
        }
    }

    /// The kind of file a source must take for these to be taken.
    pub const fn kind(self) -> SourceFormat {
        match self {
            GeneratedFormat::Json | GeneratedFormat::Ndjson => SourceFormat::Json,
            GeneratedFormat::Csv => SourceFormat::Csv,
            GeneratedFormat::Txt => SourceFormat::Txt,
        }
    }
}
