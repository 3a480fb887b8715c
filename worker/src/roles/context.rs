//! Puts a role together: its settings, its doors, its work. Nothing here does the work itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use streampress_crds::api::pipeline::{self, CodecFormat, GeneratedFormat, Ordering};
use streampress_crds::location::Location;
use streampress_crds::settings::{
    CodecSettings, CompressorSettings, DecompressorSettings, GeneratorJob, GeneratorSettings,
    QueueSettings, SchemaSource, SourceSettings,
};
use tokio_util::sync::CancellationToken;

use super::restorer::Restorer;
use crate::config::legacy_env::LegacyWorker;
use crate::consume::{Consumer, Handler};
use crate::journal::FileJournal;
use crate::legacy::{
    READ_LOCATION,
    compressor::{LegacyCompressor, PackedSources},
    decompressor::LegacyDecompressor,
};
use crate::message::Digest;
use crate::report::log::ReportLog;
use crate::roles::announce::{AnnouncementFormat, Announcer};
use crate::roles::aws;
use crate::roles::compress::{Compressor, OnCompressed};
use crate::roles::decompress::Decompressor;
use crate::roles::generate::Generate;
use crate::roles::scan::{Scanner, SourceFilter};
use crate::telemetry::metrics::Meter;
use streampress_codec::hybrid;
use streampress_generator::{FileFormat, Generator, GeneratorOptions, Schema};
use streampress_transport::aws::Aws;
use streampress_transport::local::Local;
use streampress_transport::local::files::LocalFiles;
use streampress_transport::{ChunkStream, Files, Queue, SlotLock};

/// How long a worker keeps its slot after the last message.
const LINGER: Duration = Duration::from_secs(1);

/// Makes the lock of a role with so many slots.
pub type Locks = Arc<dyn Fn(&str, u32) -> Arc<dyn SlotLock> + Send + Sync>;

/// One side of the doors, as every role uses it.
#[derive(Clone)]
pub struct Transport {
    /// Announces files; a decompressor has none.
    pub files_queue: Option<Arc<dyn Queue>>,
    /// Announces packed files; a generator has none.
    pub chunks_queue: Option<Arc<dyn Queue>>,
    /// Carries packed bytes; a generator has none.
    pub stream: Option<Arc<dyn ChunkStream>>,
    /// Opens buckets; on AWS only.
    pub aws: Option<Aws>,
    /// The roles' slots.
    pub locks: Locks,
    /// What became of this data folder's files; embedded only.
    pub journal: Option<Arc<dyn FileJournal>>,
}

impl Transport {
    /// The embedded side.
    pub fn embedded(local: &Local, journal: Arc<dyn FileJournal>) -> Self {
        let slots_of = local.clone();
        Self {
            files_queue: Some(local.files_queue()),
            chunks_queue: Some(local.chunks_queue()),
            stream: Some(local.stream()),
            aws: None,
            locks: Arc::new(move |role, slots| slots_of.lock(role, slots)),
            journal: Some(journal),
        }
    }

    /// Slots and nothing else yet.
    pub fn without_doors(locks: Locks) -> Self {
        Self {
            files_queue: None,
            chunks_queue: None,
            stream: None,
            aws: None,
            locks,
            journal: None,
        }
    }

    /// The files queue of a role that needs it.
    pub fn files_queue(&self) -> Result<Arc<dyn Queue>> {
        self.files_queue
            .clone()
            .context("these settings name no files queue")
    }

    /// The chunks queue of a role that needs it.
    pub fn chunks_queue(&self) -> Result<Arc<dyn Queue>> {
        self.chunks_queue
            .clone()
            .context("these settings name no chunks queue")
    }

    /// The stream of a role that needs it.
    pub fn stream(&self) -> Result<Arc<dyn ChunkStream>> {
        self.stream.clone().context("these settings name no stream")
    }
}

/// What all roles of this process share.
#[derive(Clone)]
pub struct RoleContext {
    /// The doors.
    pub transport: Transport,
    /// Stands for `/data` in locations.
    pub data: PathBuf,
    /// Threads for packing and unpacking, and files in hand at once, of small ones more.
    pub threads: usize,
    /// What the roles count.
    pub meter: Meter,
    /// Cancelled when the process shall end.
    pub shutdown: CancellationToken,
}

impl RoleContext {
    /// Opens a folder, where `/data` is the data folder, or a bucket.
    pub fn files(&self, location: &Location) -> Result<Arc<dyn Files>> {
        if let (Location::S3 { .. }, Some(aws)) = (location, &self.transport.aws) {
            return aws::files(aws, location);
        }
        let path = self.path(location)?;
        let files = LocalFiles::open(&location.to_string(), &path)
            .with_context(|| format!("opening {location} ({})", path.display()))?;
        Ok(Arc::new(files))
    }

    /// A source outside the data folder is somebody's own folder: nothing is made or cleared away there.
    fn source(&self, location: &Location) -> Result<Arc<dyn Files>> {
        match location {
            Location::File { path } if location.below_data().is_none() => {
                let files = LocalFiles::open_existing(&location.to_string(), Path::new(path));
                Ok(Arc::new(
                    files.with_context(|| format!("opening {location}"))?,
                ))
            }
            Location::File { .. } | Location::S3 { .. } => self.files(location),
        }
    }

    /// Where a location lies on this machine.
    pub fn path(&self, location: &Location) -> Result<PathBuf> {
        match (location.below_data(), location) {
            (Some(below), _) => Ok(self.data.join(below)),
            (None, Location::File { path }) => Ok(PathBuf::from(path)),
            (None, Location::S3 { .. }) => bail!(not_on_aws(location)),
        }
    }

    fn announcer(
        &self,
        source: Arc<dyn Files>,
        ordering: Ordering,
        format: CodecFormat,
    ) -> Result<Announcer> {
        Ok(Announcer {
            source,
            files_queue: self.transport.files_queue()?,
            strict: ordering == Ordering::Strict,
            dialect: match format {
                CodecFormat::Hybrid => AnnouncementFormat::Native,
                CodecFormat::Seed => AnnouncementFormat::Legacy,
            },
            journal: self.transport.journal.clone(),
        })
    }

    /// How the compressor's files are announced.
    pub fn compressor_announcer(&self, settings: &CompressorSettings) -> Result<Announcer> {
        let source = self.source(&settings.source.location)?;
        self.announcer(source, settings.identity.ordering, settings.codec.format)
    }

    /// The generator's work.
    pub fn generator(&self, settings: &GeneratorSettings) -> Result<Generate> {
        let source = self.files(&settings.source.location)?;
        let announcer =
            self.announcer(source, settings.identity.ordering, settings.codec_format)?;
        let job = &settings.generator;
        // On the embedded side another schema, size or seed is another generator, which begins at its own first file.
        let slot = format!("generator-{}", &job_digest(job).as_str()[..8]);
        Ok(Generate {
            generator: Arc::new(generator_of(job)?),
            prefix: settings.identity.pipeline.clone(),
            announcer,
            lock: (self.transport.locks)(&slot, 1),
            files: job.files,
            files_per_minute: job.files_per_minute,
            meter: self.meter.clone(),
            shutdown: self.shutdown.clone(),
        })
    }

    /// What looks for new files at the source.
    pub fn scanner(&self, settings: &CompressorSettings, announcer: Announcer) -> Scanner {
        Scanner {
            announcer,
            filter: filter(&settings.source),
            destination: None,
        }
    }

    /// A compressor.
    pub fn compressor(&self, settings: &CompressorSettings) -> Result<Consumer> {
        match settings.codec.format {
            CodecFormat::Hybrid => self.hybrid_compressor(settings),
            CodecFormat::Seed => {
                let handler = self.legacy_handler(settings)?;
                self.compressing(settings, Arc::new(handler))
            }
        }
    }

    /// A compressor as the Python original's container, by its variables.
    pub fn legacy_compressor(
        &self,
        settings: &CompressorSettings,
        worker: &LegacyWorker,
        report: Option<Arc<ReportLog>>,
    ) -> Result<Consumer> {
        let handler = LegacyCompressor {
            break_bytes: worker.break_bytes,
            read_location: worker.read_location.clone(),
            on_compressed: OnCompressed::Rename,
            tidy_only_multi: true,
            push: worker.push,
            report,
            ..self.legacy_handler(settings)?
        };
        self.compressing(settings, Arc::new(handler))
    }

    fn hybrid_compressor(&self, settings: &CompressorSettings) -> Result<Consumer> {
        let handler = Compressor {
            announcer: self.compressor_announcer(settings)?,
            stream: self.transport.stream()?,
            chunks_queue: self.transport.chunks_queue()?,
            options: hybrid_options(&settings.codec, self.threads),
            record_bytes: settings.codec.record_bytes,
            on_compressed: on_compressed(&settings.source),
            filter: filter(&settings.source),
            journal: self.transport.journal.clone(),
        };
        self.compressing(settings, Arc::new(handler))
    }

    fn legacy_handler(&self, settings: &CompressorSettings) -> Result<LegacyCompressor> {
        Ok(LegacyCompressor {
            announcer: self.compressor_announcer(settings)?,
            stream: self.transport.stream()?,
            chunks_queue: self.transport.chunks_queue()?,
            break_bytes: settings.codec.record_bytes,
            read_location: READ_LOCATION.to_owned(),
            on_compressed: on_compressed(&settings.source),
            filter: filter(&settings.source),
            tidy_only_multi: false,
            push: true,
            report: None,
            journal: self.transport.journal.clone(),
            packed: PackedSources::default(),
        })
    }

    fn compressing(
        &self,
        settings: &CompressorSettings,
        handler: Arc<dyn Handler>,
    ) -> Result<Consumer> {
        let intake = ConsumerConfig {
            role: "compressor",
            queue: self.transport.files_queue()?,
            of_queue: &settings.transport.files_queue,
            slots: settings.slots,
            interval_seconds: settings.interval_seconds,
            ordering: settings.identity.ordering,
        };
        Ok(self.consumer(intake, handler))
    }

    /// A decompressor; it takes messages of either format.
    pub fn decompressor(
        &self,
        settings: &DecompressorSettings,
        report: Option<Arc<ReportLog>>,
    ) -> Result<Consumer> {
        let destination = self.files(&settings.destination.location)?;
        let handler = Arc::new(Restorer {
            ours: Decompressor {
                destination: destination.clone(),
                stream: self.transport.stream()?,
                limits: hybrid::Limits::default(),
                threads: self.threads,
                block_bytes: hybrid::DEFAULT_BLOCK_BYTES as u64,
                report: report.clone(),
                journal: self.transport.journal.clone(),
            },
            legacy: LegacyDecompressor {
                destination,
                stream: self.transport.stream()?,
                read_location: READ_LOCATION.to_owned(),
                report,
                journal: self.transport.journal.clone(),
            },
        });
        let intake = ConsumerConfig {
            role: "decompressor",
            queue: self.transport.chunks_queue()?,
            of_queue: &settings.transport.chunks_queue,
            slots: settings.slots,
            interval_seconds: settings.interval_seconds,
            ordering: settings.identity.ordering,
        };
        Ok(self.consumer(intake, handler))
    }

    /// The report that a decompressor writes, and where. Must be called inside the runtime.
    pub fn report(
        &self,
        settings: &DecompressorSettings,
    ) -> Result<Option<(Arc<ReportLog>, PathBuf)>> {
        let Some(place) = &settings.report else {
            return Ok(None);
        };
        let writer = format!("{}-{:x}", std::process::id(), fastrand::u32(..));
        let title = &settings.identity.pipeline;
        let (log, page) = match &place.location {
            Location::S3 { .. } => {
                let aws = self.transport.aws.as_ref();
                let aws = aws.with_context(|| not_on_aws(&place.location))?;
                let (files, name) = aws::page(aws, &place.location)?;
                let log = ReportLog::in_bucket(files, &name, title, &writer);
                (log, PathBuf::from(place.location.to_string()))
            }
            Location::File { .. } => {
                let page = self.path(&place.location)?;
                (ReportLog::open(&page, title, &writer), page)
            }
        };
        let log = Arc::new(log);
        let (fresh, stop) = (log.clone(), self.shutdown.clone());
        tokio::spawn(async move { fresh.keep_fresh(&stop).await });
        Ok(Some((log, page)))
    }

    fn consumer(&self, intake: ConsumerConfig<'_>, handler: Arc<dyn Handler>) -> Consumer {
        if let Some(stream) = &self.transport.stream {
            self.meter.watch(stream);
        }
        Consumer {
            role: intake.role,
            queue: intake.queue,
            lock: (self.transport.locks)(intake.role, intake.slots),
            handler,
            threads: match intake.ordering {
                Ordering::Strict => 1,
                Ordering::PerName => self.threads,
            },
            strict: intake.ordering == Ordering::Strict,
            interval: Duration::from_secs(u64::from(intake.interval_seconds)),
            linger: LINGER,
            max_receive_count: intake.of_queue.max_receive_count,
            meter: self.meter.clone(),
            shutdown: self.shutdown.clone(),
        }
    }
}

fn not_on_aws(location: &Location) -> String {
    format!(
        "{location} is in a bucket, and the transport is a folder; add --aws, or write file:///data/… instead"
    )
}

/// Where a consumer's work comes from, and how it takes it.
struct ConsumerConfig<'a> {
    role: &'static str,
    queue: Arc<dyn Queue>,
    of_queue: &'a QueueSettings,
    slots: u32,
    interval_seconds: u32,
    ordering: Ordering,
}

fn filter(source: &SourceSettings) -> SourceFilter {
    SourceFilter {
        formats: source.formats.clone(),
        put_aside: source.on_compressed == pipeline::OnCompressed::Rename,
    }
}

fn on_compressed(source: &SourceSettings) -> OnCompressed {
    match source.on_compressed {
        pipeline::OnCompressed::Keep => OnCompressed::Keep,
        pipeline::OnCompressed::Rename => OnCompressed::Rename,
        pipeline::OnCompressed::Delete => OnCompressed::Delete,
    }
}

/// How the codec is to pack.
pub fn hybrid_options(codec: &CodecSettings, threads: usize) -> hybrid::CodecOptions {
    hybrid::CodecOptions {
        effort: match codec.effort {
            pipeline::CodecEffort::Fast => hybrid::Effort::Fast,
            pipeline::CodecEffort::Balanced => hybrid::Effort::Balanced,
            pipeline::CodecEffort::Max => hybrid::Effort::Max,
        },
        block_size: codec.block_bytes,
        threads,
    }
}

/// The generator that a job describes.
pub fn generator_of(job: &GeneratorJob) -> Result<Generator> {
    let schema = match &job.schema {
        SchemaSource::Example(example) => {
            let name = serde_json::to_value(example)?;
            Schema::example(name.as_str().unwrap_or_default())?
        }
        SchemaSource::Inline(value) => {
            Schema::parse(value.to_string().as_bytes(), "spec.generator.schema.inline")?
        }
        SchemaSource::File(path) => read_schema(Path::new(path))?,
    };
    let format = match job.format {
        GeneratedFormat::Json => FileFormat::Json,
        GeneratedFormat::Ndjson => FileFormat::Ndjson,
        GeneratedFormat::Csv => FileFormat::Csv,
        GeneratedFormat::Txt => FileFormat::Txt,
    };
    Ok(Generator::new(
        &schema,
        GeneratorOptions {
            format,
            file_size_bytes: job.file_bytes,
            seed: job.seed,
        },
    )?)
}

fn read_schema(path: &Path) -> Result<Schema> {
    let json = std::fs::read(path).with_context(|| {
        format!("reading the schema {}: a ConfigMap's schema is there only in a cluster; elsewhere write schema.example or schema.inline", path.display())
    })?;
    Ok(Schema::parse(&json, &path.display().to_string())?)
}

fn job_digest(job: &GeneratorJob) -> Digest {
    let mut same_files = job.clone();
    (same_files.files, same_files.files_per_minute) = (0, 0);
    Digest::of(&serde_json::to_vec(&same_files).unwrap_or_default())
}
