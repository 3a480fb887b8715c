//! Puts a role together: its settings, its connections, its locations, its work. Opens folders, and makes those that may be
//! made; what is done with files is elsewhere.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use streampress_crds::Role;
use streampress_crds::api::pipeline::{
    CodecBundle, CodecEffort, CodecFormat, GeneratedFormat, OnCompressed, OnRestored, Ordering,
};
use streampress_crds::location::Location;
use streampress_crds::settings::{
    CodecSettings, CompressorSettings, DecompressorSettings, GeneratorJob, GeneratorSettings,
    HybridVersion, Identity, QueueSettings, Resolved, SchemaSource, SourceSettings,
};
use streampress_crds::slot_health::{NeededService, OutageKind};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::BadConfiguration;
use crate::config::legacy_env::LegacyWorker;
use crate::consume::joined::JoinedQueue;
use crate::consume::{Consumer, Handler};
use crate::destination::{DatabaseJournal, Destination, DestinationJournal, LocationOwner};
use crate::journal::{
    FileJournal, NoteJournal, PIPELINE, SegmentJournal, SourceJournal as _, SqliteJournal,
};
use crate::legacy::READ_LOCATION;
use crate::legacy::compressor::LegacyCompressor;
use crate::message::Digest;
use crate::report::JournalCounts;
use crate::report::log::ReportLog;
use crate::roles::announce::{AnnouncementFormat, Announcer};
use crate::roles::bundler::Bundler;
use crate::roles::compress::Compressor;
use crate::roles::connect::{
    Backend, CompressorConnections, DecompressorConnections, GeneratorConnections, no_bucket,
    page_in_bucket,
};
use crate::roles::decompress::Decompressor;
use crate::roles::generate::{FileMaker, GeneratorRole, SourceScan};
use crate::roles::receipts::ReceiptSender;
use crate::roles::scan::{LeftOutFiles, Scanner};
use crate::roles::source::{SettleTime, SourceFilter, SparedSources};
use crate::roles::source_links::SourceLinks;
use crate::roles::unconfirmed::UnconfirmedFiles;
use crate::runtime;
use crate::telemetry::memory_limit;
use crate::telemetry::metered_files::MeteredFiles;
use crate::telemetry::metrics::Meter;
use streampress_codec::{FormatVersion, hybrid};
use streampress_generator::{FileFormat, Generator, GeneratorOptions, Schema, SchemaError};
use streampress_transport::local::Local;
use streampress_transport::local::files::{AwaitedFiles, LocalFiles};
use streampress_transport::{ChunkStream, Files, Queue, SlotLocks, in_place_of_reserved};

/// How long a worker keeps its slot after the last message.
const LINGER: Duration = Duration::from_secs(1);

/// Between two attempts to make a folder.
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(10);

/// The journal's key of the destination that files were last restored to.
const DESTINATION_KEY: &str = "destination";

/// Whether a location is missing as a whole, as on a disk that is not mounted.
pub(crate) fn is_away(error: &anyhow::Error) -> bool {
    is_of_kind(error, |kind| kind == io::ErrorKind::NotConnected)
}

/// Whether a folder could not be made because of its disk, which may take it later.
fn is_of_disk(error: &anyhow::Error) -> bool {
    is_of_kind(error, |kind| {
        matches!(
            kind,
            io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
        )
    })
}

fn is_of_kind(error: &anyhow::Error, is_wanted: impl Fn(io::ErrorKind) -> bool) -> bool {
    let mut causes = error.chain();
    causes.any(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| is_wanted(cause.kind()))
    })
}

/// Fails where a file lies in the place of the folder that is reserved for the pipeline's own records.
fn ensure_no_file_in_place(folder: &Path) -> Result<()> {
    match in_place_of_reserved(folder) {
        Some(file) => bail!(
            "{} is a file where a folder of streampress belongs; move it",
            file.display()
        ),
        None => Ok(()),
    }
}

/// Whether a folder is another one or lies below it, also where both are mounted in several places.
fn is_same_or_below(folder: &Path, other: &Path) -> bool {
    let id = |path: &Path| path.metadata().map(|meta| (meta.dev(), meta.ino())).ok();
    let other = id(other);
    other.is_some() && folder.ancestors().any(|above| id(above) == other)
}

/// What all roles of a process share.
#[derive(Clone)]
pub struct RoleContext {
    /// The open transport.
    pub backend: Backend,
    /// The roles' slots.
    pub locks: SlotLocks,
    /// Where files' progress is recorded.
    pub journal: Arc<dyn FileJournal>,
    /// Where a data folder keeps what was restored to a folder; without one the destination keeps it itself.
    pub destination_journal: Option<SqliteJournal>,
    /// Stands for `/data` in locations.
    pub data: PathBuf,
    /// Threads for packing and unpacking, and files in progress at once; of small files more.
    pub threads: usize,
    /// What the roles count.
    pub meter: Meter,
    /// Cancelled when the process shall end.
    pub shutdown: CancellationToken,
}

/// A report in progress and the place of its page.
#[derive(Debug, Clone)]
pub(crate) struct OpenReport {
    pub(crate) log: Arc<ReportLog>,
    /// A path, or a bucket's URL.
    pub(crate) page: PathBuf,
}

impl RoleContext {
    /// Opens a folder, where `/data` is the data folder, or a bucket. A folder that is missing is not made: its disk may not be
    /// mounted.
    fn files(&self, location: &Location) -> Result<Arc<dyn Files>> {
        let files: Arc<dyn Files> = match location {
            Location::S3 { .. } => self.backend.buckets(location)?.files(location)?,
            Location::File { .. } => {
                let path = self.path(location)?;
                let files = AwaitedFiles::open(&location.to_string(), &path)
                    .with_context(|| format!("opening {location} ({})", path.display()))?;
                Arc::new(files)
            }
        };
        Ok(MeteredFiles::new(files, self.meter.clone()))
    }

    /// Makes a folder that is missing.
    fn make_folder(&self, location: &Location) -> Result<()> {
        if let Location::S3 { .. } = location {
            return Ok(());
        }
        let path = self.path(location)?;
        LocalFiles::make_folder(&path)
            .with_context(|| format!("opening {location} ({})", path.display()))
    }

    /// Makes a destination's folder. What is restored to it is announced again if it is missing later.
    /// One that cannot be made because its disk is not mounted is waited for.
    pub(crate) async fn make_destination(&self, location: &Location) -> Result<()> {
        match self.make_folder(location) {
            Err(error) if is_away(&error) => {
                warn!("The destination is waited for: {error:#}.");
            }
            made => made?,
        }
        if let Location::File { .. } = location {
            ensure_no_file_in_place(&self.path(location)?)?;
            ensure_no_file_in_place(&self.data)?;
        }
        let location = location.to_string();
        if self.journal.get(DESTINATION_KEY).await?.as_ref() != Some(&location) {
            self.journal.set(DESTINATION_KEY, &location).await?;
        }
        Ok(())
    }

    /// The same where nothing was ever restored to it, as far as the data folder knows. One that vanished is waited for, and
    /// so is one that its disk does not take now. Answers whether there is nothing to be made any more.
    pub(crate) async fn make_destination_once(&self, location: &Location) -> Result<bool> {
        let is_missing = match location {
            Location::S3 { .. } => false,
            Location::File { .. } => !self.path(location)?.exists(),
        };
        if is_missing && self.was_restored_to(location).await? {
            let folder = self.path(location)?;
            warn!(
                folder = %folder.display(),
                "The destination's folder is missing, and files were restored to it before: mount its disk, or make the folder. It is waited for."
            );
            return Ok(true);
        }
        match self.make_destination(location).await {
            Err(error) if is_of_disk(&error) => {
                warn!("The destination is waited for: {error:#}.");
                Ok(false)
            }
            made => made.map(|()| true),
        }
    }

    /// Makes a destination's folder as soon as its disk takes it.
    pub(crate) async fn make_destination_later(&self, location: &Location) {
        while self.make_destination(location).await.is_err() {
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
        }
        info!("The destination's folder is made.");
    }

    async fn was_restored_to(&self, location: &Location) -> Result<bool> {
        let Some(journal) = self.journal_of(location) else {
            return Ok(false);
        };
        // The entries of earlier releases do not say of which destination they are.
        let last = self.journal.get(DESTINATION_KEY).await?;
        let is_last = last == Some(location.to_string());
        Ok(journal.knows_its_location().await?
            || is_last && !journal.entries().await?.unwrap_or_default().is_empty())
    }

    /// What the data folder knows of a destination.
    fn journal_of(&self, location: &Location) -> Option<DatabaseJournal> {
        let journal = self.destination_journal.clone()?;
        Some(DatabaseJournal::new(
            journal,
            &self.data,
            &location.to_string(),
        ))
    }

    /// Opens a source. A folder outside the data folder is the user's own: nothing is created or removed there.
    pub(crate) fn source(&self, location: &Location) -> Result<Arc<dyn Files>> {
        match location {
            Location::File { path } if location.below_data().is_none() => {
                let files = LocalFiles::open_existing(&location.to_string(), Path::new(path));
                let files = files.with_context(|| format!("opening {location}"))?;
                Ok(MeteredFiles::new(Arc::new(files), self.meter.clone()))
            }
            Location::File { .. } | Location::S3 { .. } => self.files(location),
        }
    }

    /// Makes a source's folder in the data folder. Fails where it is missing and files were announced from it that are not
    /// restored yet: an empty one in its place would look as if all of them had been deleted.
    pub(crate) async fn make_source(&self, location: &Location) -> Result<()> {
        if location.below_data().is_none() || self.path(location)?.exists() {
            return Ok(());
        }
        let is_known = self
            .journal
            .locations()
            .await?
            .contains(&location.to_string());
        if is_known && self.journal.progress().await?.unfinished() > 0 {
            bail!(
                "the source folder {} is missing, and files that were announced from it are not restored yet; mount its disk, or make it: then those that are not in it become dead letters",
                self.path(location)?.display()
            );
        }
        self.make_folder(location)
    }

    /// The pipeline that has the data folder; `None` where none did since that is noted, and without a folder.
    pub(crate) async fn pipeline_of_folder(&self) -> Result<Option<String>> {
        match &self.destination_journal {
            Some(journal) => Ok(journal.get(PIPELINE).await?),
            None => Ok(None),
        }
    }

    /// Notes that the data folder is this pipeline's.
    pub(crate) async fn take_folder(&self, pipeline: &str) -> Result<()> {
        if let Some(journal) = &self.destination_journal
            && self.pipeline_of_folder().await?.as_deref() != Some(pipeline)
        {
            journal.set(PIPELINE, pipeline).await?;
        }
        Ok(())
    }

    /// Fails where source and destination are one folder, or one lies in the other, by a link or a mount: what is restored would
    /// be taken for a source, and a source that is renamed or deleted would be the restored file.
    pub(crate) fn refuse_one_folder(
        &self,
        source: &Location,
        destination: &Location,
    ) -> Result<()> {
        let (Location::File { .. }, Location::File { .. }) = (source, destination) else {
            return Ok(());
        };
        let resolved = |location| self.path(location)?.canonicalize().context("not there yet");
        let (Ok(from), Ok(to)) = (resolved(source), resolved(destination)) else {
            return Ok(());
        };
        // A source is not read below a data folder in it.
        let is_apart = self.has_data_folder()
            && self
                .data
                .canonicalize()
                .is_ok_and(|data| data != from && data.starts_with(&from));
        if is_same_or_below(&from, &to) || (!is_apart && is_same_or_below(&to, &from)) {
            return Err(BadConfiguration(format!(
                "the source {} and the destination {} are one folder, or one lies in the other, by a link or a mount; use another folder for one of them",
                from.display(),
                to.display()
            ))
            .into());
        }
        Ok(())
    }

    /// Opens a destination.
    pub(crate) fn destination(&self, settings: &DecompressorSettings) -> Result<Destination> {
        let location = &settings.destination.location;
        let files = self.files(location)?;
        let destination = match (location, self.journal_of(location)) {
            (Location::S3 { .. }, _) => Destination::with_own_journal(files, None),
            (Location::File { .. }, Some(journal)) => {
                let destination = Destination::new(files, Arc::new(journal));
                match &self.backend {
                    Backend::Embedded(local) => destination.with_stream(local.stream()),
                    // Its queues are not put back with the database.
                    Backend::Aws(_) => destination,
                }
            }
            (Location::File { .. }, None) => {
                Destination::with_own_journal(files, Some(&self.path(location)?))
            }
        };
        // The pipelines of a data folder share its queues and its journal: within it they are one.
        Ok(
            match self.has_data_folder() && self.is_in_data_folder(location)? {
                true => destination,
                false => destination.owned_by(self.owner(
                    NeededService::Destination,
                    location,
                    &settings.identity,
                )?),
            },
        )
    }

    /// Whether it is a folder of the data folder, and no link that leads out of it.
    fn is_in_data_folder(&self, location: &Location) -> Result<bool> {
        if location.below_data().is_none() {
            return Ok(false);
        }
        let place = self.path(location)?.canonicalize();
        let data = self.data.canonicalize();
        Ok(place
            .and_then(|place| Ok(place.starts_with(data?)))
            .unwrap_or(true))
    }

    /// Fails where the destination belongs to another pipeline. One that is down is waited for later.
    pub(crate) async fn confirm_owner(&self, settings: &DecompressorSettings) -> Result<()> {
        match self.destination(settings)?.confirm_owner().await {
            Err(outage) if outage.kind == OutageKind::OwnedByAnother => bail!(outage.cause),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Where a location lies on this machine.
    pub(crate) fn path(&self, location: &Location) -> Result<PathBuf> {
        match (location.below_data(), location) {
            (Some(below), _) if Local::exists(&self.data) && Local::keeps(Path::new(&below)) => {
                Err(BadConfiguration(format!(
                    "{location} is where the data folder keeps its queues and its stream; choose another folder"
                ))
                .into())
            }
            (Some(below), _) => Ok(self.data.join(below)),
            (None, Location::File { path }) => Ok(PathBuf::from(path)),
            (None, Location::S3 { .. }) => bail!(no_bucket(location)),
        }
    }

    fn announcer_of(
        &self,
        source: Arc<dyn Files>,
        files_queue: Arc<dyn Queue>,
        ordering: Ordering,
        format: CodecFormat,
    ) -> Announcer {
        Announcer {
            source,
            files_queue,
            strict: ordering == Ordering::Strict,
            format: match format {
                CodecFormat::Hybrid => AnnouncementFormat::Native,
                CodecFormat::Seed => AnnouncementFormat::Legacy,
            },
            journal: self.journal.clone(),
        }
    }

    /// Announces the files of a compressor's source.
    pub fn announcer(
        &self,
        settings: &CompressorSettings,
        files_queue: Arc<dyn Queue>,
    ) -> Result<Announcer> {
        let source = self.source(&settings.source.location)?;
        let (ordering, format) = (settings.identity.ordering, settings.codec.format);
        let announcer = self.announcer_of(source, files_queue, ordering, format);
        Ok(match settings.keeps_journal && !self.has_data_folder() {
            // For the generator role's process, which keeps the journal of the source.
            true => Announcer {
                journal: Arc::new(NoteJournal::new(announcer.source.clone())),
                ..announcer
            },
            false => announcer,
        })
    }

    /// What is known of the source's files, to be read only: the data folder's journal, or that of the generator role at the
    /// source.
    pub(crate) fn source_journal(
        &self,
        settings: &CompressorSettings,
    ) -> Result<Arc<dyn FileJournal>> {
        Ok(match self.has_data_folder() || !settings.keeps_journal {
            true => self.journal.clone(),
            false => {
                let source = self.source(&settings.source.location)?;
                Arc::new(SegmentJournal::new(source, false))
            }
        })
    }

    /// The generator role.
    pub(crate) fn generator(
        &self,
        settings: &GeneratorSettings,
        connections: GeneratorConnections,
    ) -> Result<GeneratorRole> {
        self.make_folder(&settings.source.location)?;
        let announcer = self.announcer_of(
            self.files(&settings.source.location)?,
            connections.files_queue,
            settings.identity.ordering,
            settings.codec_format,
        );
        let is_recorded = connections.onward.is_some();
        let announcer = match is_recorded || settings.scan.is_some() {
            true => self.remembering(announcer, is_recorded),
            false => announcer,
        };
        // In a data folder another schema, size or seed is another generator, which starts at its own first file.
        let slot = match &settings.generator {
            Some(job) => format!("{}-{}", Role::Generator, &job_digest(job).as_str()[..8]),
            None => format!("{}-scan", Role::Generator),
        };
        let making = Arc::<tokio::sync::Mutex<()>>::default();
        let maker = match &settings.generator {
            Some(job) => Some(FileMaker {
                generator: Arc::new(generator(job)?),
                prefix: settings.identity.pipeline.clone(),
                announcer: announcer.clone(),
                making: making.clone(),
                files: job.files,
                files_per_minute: job.files_per_minute,
                meter: self.meter.clone(),
                shutdown: self.shutdown.clone(),
            }),
            None => None,
        };
        Ok(GeneratorRole {
            maker,
            scan: settings.scan.as_ref().map(|source| SourceScan {
                scanner: Scanner {
                    making,
                    ..self.scanner(source, announcer.clone())
                },
                interval: Duration::from_secs(u64::from(source.scan_seconds)),
            }),
            // The original's announcements have no version to repeat, and its format no receipts.
            unconfirmed: connections
                .onward
                .filter(|_| settings.codec_format == CodecFormat::Hybrid)
                .map(|connections| UnconfirmedFiles {
                    announcer,
                    connections,
                    takes_in: settings.scan.is_none(),
                    meter: self.meter.clone(),
                }),
            owner: match settings.scan.is_some() && !self.has_data_folder() {
                true => Some(self.owner(
                    NeededService::Source,
                    &settings.source.location,
                    &settings.identity,
                )?),
                false => None,
            },
            lock: (self.locks)(&slot, 1),
            meter: self.meter.clone(),
            shutdown: self.shutdown.clone(),
        })
    }

    /// The pipeline that a location must belong to.
    fn owner(
        &self,
        service: NeededService,
        location: &Location,
        Identity {
            namespace,
            pipeline,
            ..
        }: &Identity,
    ) -> Result<LocationOwner> {
        let place = match location {
            Location::S3 { .. } => location.to_string(),
            Location::File { .. } => self.path(location)?.display().to_string(),
        };
        Ok(LocationOwner::new(service, (namespace, pipeline), &place))
    }

    /// Whether a data folder keeps the journals.
    fn has_data_folder(&self) -> bool {
        self.destination_journal.is_some()
    }

    /// An announcer that remembers what it announced: in the data folder, or without one at the source itself.
    /// `awaits_receipts`: compressors record the receipts of what it announces.
    fn remembering(&self, announcer: Announcer, awaits_receipts: bool) -> Announcer {
        match self.has_data_folder() {
            true => announcer,
            false => Announcer {
                journal: Arc::new(SegmentJournal::new(
                    announcer.source.clone(),
                    awaits_receipts,
                )),
                ..announcer
            },
        }
    }

    /// A scanner of a source.
    pub(crate) fn scanner(&self, source: &SourceSettings, announcer: Announcer) -> Scanner {
        Scanner {
            announcer,
            filter: SourceFilter::new(source),
            links: SourceLinks::new(source, self.path(&source.location).ok()),
            settle: Duration::from_secs(u64::from(source.settle_seconds)),
            renames_or_deletes: source.on_compressed != OnCompressed::Keep
                || source.on_restored != OnRestored::Keep,
            left_out: LeftOutFiles::default(),
            making: Arc::default(),
            waiting: Arc::default(),
            meter: self.meter.clone(),
        }
    }

    /// Opens a destination's files.
    pub(crate) fn destination_files(&self, location: &Location) -> Result<Arc<dyn Files>> {
        self.files(location)
    }

    /// A compressor.
    pub fn compressor(
        &self,
        settings: &CompressorSettings,
        connections: CompressorConnections,
        report: Option<Arc<ReportLog>>,
        spared: Option<SparedSources>,
    ) -> Result<Consumer> {
        let handler: Arc<dyn Handler> = match settings.codec.format {
            CodecFormat::Hybrid => Arc::new(Compressor {
                report,
                spared,
                ..self.hybrid_handler(settings, &connections)?
            }),
            CodecFormat::Seed => Arc::new(LegacyCompressor {
                dead_letter_report: report,
                ..self.legacy_handler(settings, &connections)?
            }),
        };
        Ok(self.compressor_with(settings, connections, handler))
    }

    /// A compressor in place of the Python original's container, by its variables.
    pub(crate) fn legacy_compressor(
        &self,
        settings: &CompressorSettings,
        connections: CompressorConnections,
        worker: &LegacyWorker,
        report: Option<Arc<ReportLog>>,
    ) -> Result<Consumer> {
        let handler = LegacyCompressor {
            break_bytes: worker.break_bytes,
            read_location: worker.read_location.clone(),
            on_compressed: OnCompressed::Rename,
            keeps_single_chunk_files: true,
            push: worker.push,
            report,
            ..self.legacy_handler(settings, &connections)?
        };
        Ok(self.compressor_with(settings, connections, Arc::new(handler)))
    }

    fn hybrid_handler(
        &self,
        settings: &CompressorSettings,
        connections: &CompressorConnections,
    ) -> Result<Compressor> {
        Ok(Compressor {
            announcer: self.announcer(settings, connections.files_queue.clone())?,
            stream: connections.stream.clone(),
            chunks_queue: connections.chunks_queue.clone(),
            options: hybrid_options(settings.codec, self.threads),
            format_version: match settings.codec.format_version {
                HybridVersion::V1 => FormatVersion::V1,
                HybridVersion::V2 => FormatVersion::V2,
            },
            plans: Arc::default(),
            bundler: match settings.codec.bundle {
                CodecBundle::Auto => Some(Bundler::new(settings.codec.block_bytes)),
                CodecBundle::Off => None,
            },
            record_bytes: settings.codec.record_bytes,
            on_compressed: settings.source.on_compressed,
            on_restored: settings.source.on_restored,
            spared: None,
            settle: SettleTime::new(&settings.source),
            filter: SourceFilter::new(&settings.source),
            journal: self.journal.clone(),
            report: None,
        })
    }

    fn legacy_handler(
        &self,
        settings: &CompressorSettings,
        connections: &CompressorConnections,
    ) -> Result<LegacyCompressor> {
        Ok(LegacyCompressor {
            announcer: self.announcer(settings, connections.files_queue.clone())?,
            stream: connections.stream.clone(),
            chunks_queue: connections.chunks_queue.clone(),
            break_bytes: settings.codec.record_bytes,
            read_location: READ_LOCATION.to_owned(),
            on_compressed: settings.source.on_compressed,
            settle: SettleTime::new(&settings.source),
            filter: SourceFilter::new(&settings.source),
            keeps_single_chunk_files: false,
            push: true,
            report: None,
            dead_letter_report: None,
            journal: self.journal.clone(),
        })
    }

    fn compressor_with(
        &self,
        settings: &CompressorSettings,
        connections: CompressorConnections,
        handler: Arc<dyn Handler>,
    ) -> Consumer {
        let queue: Arc<dyn Queue> = match connections.receipts_queue {
            Some(receipts) if settings.receipts_only => receipts,
            Some(receipts) => Arc::new(JoinedQueue::new(connections.files_queue, receipts)),
            None => connections.files_queue,
        };
        let config = ConsumerConfig {
            role: Role::Compressor,
            queue,
            stream: &connections.stream,
            limits: &settings.transport.files_queue,
            slots: settings.slots,
            interval_seconds: settings.interval_seconds,
            ordering: settings.identity.ordering,
        };
        self.consumer(config, handler)
    }

    /// A decompressor; it takes manifests of either format.
    pub fn decompressor(
        &self,
        settings: &DecompressorSettings,
        connections: DecompressorConnections,
        report: Option<Arc<ReportLog>>,
    ) -> Result<Consumer> {
        let is_strict = settings.identity.ordering == Ordering::Strict;
        let mut handler = Decompressor::new(
            self.destination(settings)?,
            connections.stream.clone(),
            self.threads,
            report,
            self.journal.clone(),
        );
        handler.limits.in_flight_bytes = memory_limit::unpacked_bytes_at_once();
        handler.receipts = connections.receipts_queue.map(|queue| {
            let receipts = ReceiptSender::new(queue, is_strict);
            match connections.requests_only {
                true => receipts.of_requests_only(),
                false => receipts,
            }
        });
        let config = ConsumerConfig {
            role: Role::Decompressor,
            queue: connections.chunks_queue,
            stream: &connections.stream,
            limits: &settings.transport.chunks_queue,
            slots: settings.slots,
            interval_seconds: settings.interval_seconds,
            ordering: settings.identity.ordering,
        };
        Ok(self.consumer(config, Arc::new(handler)))
    }

    /// The report that a decompressor writes, where one is wanted. Must be called within a runtime.
    pub(crate) fn report(&self, settings: &DecompressorSettings) -> Result<Option<OpenReport>> {
        let Some(report) = &settings.report else {
            return Ok(None);
        };
        let location = &report.location;
        let writer = format!("{}-{:x}", std::process::id(), runtime::random_u64());
        let title = &settings.identity.pipeline;
        let (log, page) = match location {
            Location::S3 { .. } => {
                let (files, name) = page_in_bucket(self.backend.buckets(location)?, location)?;
                let log = ReportLog::in_bucket(files, &name, title, &writer);
                (log, PathBuf::from(location.to_string()))
            }
            Location::File { .. } => {
                let page = self.path(location)?;
                let log = ReportLog::open(&page, title, &writer);
                match self.has_data_folder() && self.is_in_data_folder(location)? {
                    true => (log.in_data_folder(&self.data, self.journal.clone()), page),
                    false => (log, page),
                }
            }
        };
        let log = Arc::new(log);
        let (refreshed, stop) = (log.clone(), self.shutdown.clone());
        tokio::spawn(async move { refreshed.refresh(&stop).await });
        Ok(Some(OpenReport { log, page }))
    }

    /// The counts for a page at the location: those of the data folder's journal, where the page is in the folder.
    pub(crate) async fn journal_counts(&self, page: &Location) -> Result<Option<JournalCounts>> {
        Ok(
            match self.has_data_folder() && self.is_in_data_folder(page)? {
                true => Some(JournalCounts::read(&*self.journal).await?),
                false => None,
            },
        )
    }

    fn consumer(&self, config: ConsumerConfig<'_>, handler: Arc<dyn Handler>) -> Consumer {
        self.meter.watch(config.stream);
        Consumer {
            role: config.role,
            queue: config.queue,
            lock: (self.locks)(config.role.as_str(), config.slots),
            handler,
            threads: match config.ordering {
                Ordering::Strict => 1,
                Ordering::PerName => self.threads,
            },
            strict: config.ordering == Ordering::Strict,
            interval: Duration::from_secs(u64::from(config.interval_seconds)),
            linger: LINGER,
            max_receive_count: config.limits.max_receive_count,
            meter: self.meter.clone(),
            shutdown: self.shutdown.clone(),
        }
    }
}

/// What differs between a compressor's consumer and a decompressor's.
struct ConsumerConfig<'a> {
    role: Role,
    queue: Arc<dyn Queue>,
    stream: &'a Arc<dyn ChunkStream>,
    limits: &'a QueueSettings,
    slots: u32,
    interval_seconds: u32,
    ordering: Ordering,
}

/// The codec's effort for a setting.
pub(crate) fn hybrid_effort(effort: CodecEffort) -> hybrid::Effort {
    match effort {
        CodecEffort::Fast => hybrid::Effort::Fast,
        CodecEffort::Balanced => hybrid::Effort::Balanced,
        CodecEffort::Max => hybrid::Effort::Max,
    }
}

/// The codec's options for a pipeline's settings.
fn hybrid_options(codec: CodecSettings, threads: usize) -> hybrid::CodecOptions {
    hybrid::CodecOptions {
        effort: hybrid_effort(codec.effort),
        block_size: codec.block_bytes,
        threads,
    }
}

/// Refuses an inline schema that no generator takes. One in a ConfigMap can only be read in its cluster.
pub(crate) fn check_schema(file: &Path, resolved: &Resolved) -> Result<(), BadConfiguration> {
    let problems = schema_problems(resolved).into_iter();
    let lines: Vec<_> = problems
        .map(|(_, problem)| format!("{}: {problem}", file.display()))
        .collect();
    match lines.is_empty() {
        true => Ok(()),
        false => Err(BadConfiguration(lines.join("\n"))),
    }
}

/// The pipeline's fields that make no generator, and why; none where all is well, or where the schema is in a file.
pub(crate) fn schema_problems(resolved: &Resolved) -> Vec<(String, String)> {
    const SCHEMA: &str = "spec.generator.schema";
    let is_here = |job: &&GeneratorJob| !matches!(job.schema, SchemaSource::File(_));
    let Some(job) = resolved.generator.as_ref().filter(is_here) else {
        return Vec::new();
    };
    if let SchemaSource::Inline(value) = &job.schema {
        let problems = inline_schema_problems(value);
        if !problems.is_empty() {
            return problems;
        }
    }
    let problem = generator(job).err();
    let problem = problem.map(|error| (SCHEMA.to_owned(), format!("{error:#}")));
    problem.into_iter().collect()
}

/// The fields of a pipeline's inline schema that are wrong, and why.
pub(crate) fn inline_schema_problems(schema: &serde_json::Value) -> Vec<(String, String)> {
    const INLINE: &str = "spec.generator.schema.inline";
    let parsed = Schema::parse_all(schema.to_string().as_bytes(), INLINE);
    let place = |error: &SchemaError| match error.field.as_str() {
        "" => INLINE.to_owned(),
        item if item.starts_with('[') => format!("{INLINE}{item}"),
        field => format!("{INLINE}.{field}"),
    };
    let errors = parsed.err().unwrap_or_default();
    let problems = errors.iter().map(|error| (place(error), error.to_string()));
    problems.collect()
}

/// The generator that a job describes.
fn generator(job: &GeneratorJob) -> Result<Generator> {
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
    let options = GeneratorOptions {
        format,
        file_size_bytes: job.file_bytes,
        seed: job.seed,
    };
    Ok(Generator::new(&schema, options)?)
}

fn read_schema(path: &Path) -> Result<Schema> {
    let json = std::fs::read(path).with_context(|| {
        format!(
            "reading the schema {}: a ConfigMap's schema exists only in a cluster; elsewhere write schema.example or schema.inline",
            path.display()
        )
    })?;
    Ok(Schema::parse(&json, &path.display().to_string())?)
}

/// The same for jobs that make the same files.
fn job_digest(job: &GeneratorJob) -> Digest {
    let mut same_files = job.clone();
    (same_files.files, same_files.files_per_minute) = (0, 0);
    Digest::of(&serde_json::to_vec(&same_files).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use streampress_transport::local::{Local, LocalOptions};

    use super::*;
    use crate::journal::NoJournal;
    use crate::roles::connect;

    fn decompressor(name: &str) -> DecompressorSettings {
        let text = format!(
            "apiVersion: streampress.dev/v1alpha1\nkind: CompressionPipeline\nmetadata: {{name: {name}}}\nspec: {{}}\n"
        );
        let (pipeline, _) = streampress_crds::load_one(&text, "pipeline.yaml").expect("valid");
        pipeline.into_parts().1.decompressor_settings()
    }

    #[test]
    fn a_folder_that_its_disk_does_not_take_now_is_waited_for_and_a_forbidden_one_is_not() {
        let failed = |kind: io::ErrorKind| {
            let error = io::Error::new(kind, "cannot make folder");
            anyhow::Error::new(error).context("opening a location")
        };
        for (kind, is_waited_for) in [
            (io::ErrorKind::ReadOnlyFilesystem, true),
            (io::ErrorKind::StorageFull, true),
            (io::ErrorKind::QuotaExceeded, true),
            (io::ErrorKind::PermissionDenied, false),
            (io::ErrorKind::NotADirectory, false),
        ] {
            assert_eq!(is_of_disk(&failed(kind)), is_waited_for, "{kind:?}");
        }
    }

    #[tokio::test]
    async fn a_destination_of_another_pipeline_is_refused_unless_both_share_a_data_folder() {
        let root = tempfile::tempdir().expect("a folder");
        let local = Local::open(root.path(), LocalOptions::default()).expect("opens");
        let context = RoleContext {
            locks: connect::local_locks(&local),
            backend: Backend::Embedded(local.clone()),
            journal: Arc::new(NoJournal),
            destination_journal: None,
            data: root.path().to_owned(),
            threads: 1,
            meter: Meter::default(),
            shutdown: CancellationToken::new(),
        };
        let made = context
            .make_destination(&decompressor("one").destination.location)
            .await;
        made.expect("made");
        for _ in 0..2 {
            let confirmed = context.confirm_owner(&decompressor("one")).await;
            confirmed.expect("free, or its own");
        }
        let refused = context.confirm_owner(&decompressor("two")).await;
        let said = refused.expect_err("another pipeline's").to_string();
        assert!(said.contains("the pipeline default/one"), "{said}");
        let command = format!("rm '{}/out/.streampress/owner.json'", root.path().display());
        assert!(said.ends_with(&command), "{said}");
        let journal = SqliteJournal::open(&local).expect("opens");
        let sharing = RoleContext {
            destination_journal: Some(journal),
            ..context
        };
        let confirmed = sharing.confirm_owner(&decompressor("two")).await;
        confirmed.expect("the data folder's");
    }
}
