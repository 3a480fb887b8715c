//! A pipeline of the roles' own types on services in simulated time, with its processes.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use streampress_codec::hybrid;
use streampress_crds::Role;
use streampress_crds::api::pipeline::{OnCompressed, OnRestored, SourceFormat};
use streampress_crds::slot_health::NeededService;
use streampress_transport::sim::{
    QueueOptions, SimDisk, SimProcess, SimQueues, SimSlots, SimStreams, StoredMessage, World,
};
use streampress_transport::{Files, Queue, SlotLock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::history::SimSettings;
use crate::consume::joined::JoinedQueue;
use crate::consume::{Consumer, Handler};
use crate::destination::{Destination, LocationOwner};
use crate::journal::{
    FileJournal, NoJournal, NoteJournal, SegmentJournal, SourceJournal, SourceRecord, SourceState,
};
use crate::roles::announce::{AnnouncementFormat, Announcer};
use crate::roles::bundler::Bundler;
use crate::roles::compress::Compressor;
use crate::roles::connect::CompressorConnections;
use crate::roles::decompress::Decompressor;
use crate::roles::receipts::ReceiptSender;
use crate::roles::recover::Recovery;
use crate::roles::scan::{LeftOutFiles, Scanner};
use crate::roles::source::{SettleTime, SourceFilter};
use crate::roles::unconfirmed::UnconfirmedFiles;
use crate::telemetry::metrics::{Counts, Meter};

pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);
const SOURCE: &str = "file:///source";
const DESTINATION: &str = "file:///destination";
/// How long a file must hold still before it is announced.
const SETTLE: Duration = Duration::from_secs(10);
/// Files are smaller: one block, one record. Larger than what is tried for another file, so that one file alone may not fit.
const BLOCK_BYTES: usize = 128 << 10;
const RECORD_BYTES: usize = 400 << 10;

/// The services, and what its processes share.
pub(super) struct SimPipeline {
    name: &'static str,
    pub(super) settings: SimSettings,
    pub(super) world: World,
    pub(super) source: SimDisk,
    pub(super) destination: SimDisk,
    pub(super) files_queue: SimQueues,
    pub(super) chunks_queue: SimQueues,
    pub(super) receipts_queue: SimQueues,
    pub(super) stream: SimStreams,
    pub(super) compressor_slots: SimSlots,
    pub(super) decompressor_slots: SimSlots,
    /// Counts what all compressors did.
    pub(super) packing: Meter,
    /// Counts what all decompressors did.
    pub(super) restoring: Meter,
    /// What was announced, as a data folder keeps it: shared by all processes, and never out of reach.
    journal: Arc<SegmentJournal>,
    /// Where the scanner of now keeps its own instead.
    kept: Mutex<Option<Arc<SegmentJournal>>>,
}

/// What all processes of a run counted.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct RunCounts {
    /// By the compressors.
    pub(super) packing: Counts,
    /// By the decompressors.
    pub(super) restoring: Counts,
    /// Messages that the dead-letter queues took.
    pub(super) dead_letters: u64,
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RoleTask {
    Scan,
    Compress,
    Decompress,
}

/// A process that is started again whenever it ends, unless it is to be stopped.
pub(super) struct Supervised {
    task: RoleTask,
    number: u8,
    current: Mutex<(SimProcess, CancellationToken)>,
    is_wanted: watch::Sender<bool>,
}

impl Supervised {
    /// The process of now.
    pub(super) fn process(&self) -> SimProcess {
        self.current.lock().0.clone()
    }

    /// Ends the process of now as SIGTERM does.
    pub(super) fn terminate(&self) {
        self.current.lock().1.cancel();
    }

    /// Whether the process is to run.
    pub(super) fn want(&self, is_wanted: bool) {
        self.is_wanted.send_replace(is_wanted);
        if !is_wanted {
            self.terminate();
        }
    }

    /// Whether the process announces or packs files.
    pub(super) fn sends(&self) -> bool {
        matches!(self.task, RoleTask::Scan | RoleTask::Compress)
    }

    /// Runs the process again and again, for ever.
    async fn supervise(self: Arc<Self>, pipeline: Arc<SimPipeline>) {
        let mut is_wanted = self.is_wanted.subscribe();
        for start in 0.. {
            // The sender is a field of this very object.
            let _ = is_wanted.wait_for(|is_wanted| *is_wanted).await;
            let name = format!("{:?}-{}.{start}", self.task, self.number);
            let (process, shutdown) = (SimProcess::new(&name), CancellationToken::new());
            *self.current.lock() = (process.clone(), shutdown.clone());
            let was_killed = tokio::select! {
                biased;
                () = process.killed().cancelled() => true,
                () = pipeline.run(self.task, &process, shutdown) => false,
            };
            let pause = if was_killed {
                1 + pipeline.world.below(20)
            } else {
                1
            };
            tokio::time::sleep(Duration::from_secs(pause)).await;
        }
    }
}

impl SimPipeline {
    /// Empty services.
    pub(super) fn new(seed: u64, settings: SimSettings) -> Self {
        let world = World::new(seed);
        let disks = [(); 2].map(|()| SimDisk::new(&world, granularity(settings)));
        Self::on(world, "one", settings, disks)
    }

    /// Another pipeline in the same world, with queues of its own, from one disk to another.
    pub(super) fn beside(
        &self,
        name: &'static str,
        source: &SimDisk,
        destination: &SimDisk,
    ) -> Self {
        let disks = [source.clone(), destination.clone()];
        Self::on(self.world.clone(), name, self.settings, disks)
    }

    fn on(
        world: World,
        name: &'static str,
        settings: SimSettings,
        [source, destination]: [SimDisk; 2],
    ) -> Self {
        let options = QueueOptions {
            visibility_timeout: Duration::from_secs(settings.visibility_seconds.into()),
            max_receive_count: 1000,
            retention: 14 * DAY,
        };
        let slots = |role: Role| {
            let name = format!("{name}-{role}");
            SimSlots::new(&world, &name, settings.slots.into())
        };
        let queues = |of: &str| SimQueues::new(&world, &format!("{name}-{of}"), options);
        let data = SimDisk::new(&world, granularity(settings));
        let retention = Duration::from_secs(60 * u64::from(settings.retention_minutes));
        let pipeline = Self {
            name,
            settings,
            source,
            destination,
            files_queue: queues("files"),
            chunks_queue: queues("chunks"),
            receipts_queue: queues("receipts"),
            stream: SimStreams::new(&world, &format!("{name}-stream"), 2, retention),
            compressor_slots: slots(Role::Compressor),
            decompressor_slots: slots(Role::Decompressor),
            packing: Meter::default(),
            restoring: Meter::default(),
            journal: Arc::new(SegmentJournal::new(
                Arc::new(data.open("file:///data", &SimProcess::new("journal"))),
                true,
            )),
            kept: Mutex::default(),
            world,
        };
        pipeline.heal();
        pipeline
    }

    /// Starts all processes: the scanner, where there is one, the compressors, then the decompressors.
    pub(super) fn start(self: &Arc<Self>) -> Vec<Arc<Supervised>> {
        let settings = self.settings;
        let tasks = [
            (RoleTask::Scan, u8::from(settings.scan_seconds.is_some())),
            (RoleTask::Compress, settings.compressors),
            (RoleTask::Decompress, settings.decompressors),
        ];
        let numbered = tasks
            .into_iter()
            .flat_map(|(task, count)| (0..count).map(move |number| (task, number)));
        let start = |(task, number)| {
            let supervised = Arc::new(Supervised {
                task,
                number,
                current: Mutex::new((SimProcess::new("none"), CancellationToken::new())),
                is_wanted: watch::Sender::new(true),
            });
            tokio::spawn(supervised.clone().supervise(self.clone()));
            supervised
        };
        numbered.map(start).collect()
    }

    /// The services of queues, stream and slots.
    pub(super) fn services(&self) -> [&streampress_transport::sim::SimService; 9] {
        [
            self.files_queue.service(),
            self.files_queue.dead_letter_service(),
            self.chunks_queue.service(),
            self.chunks_queue.dead_letter_service(),
            self.stream.service(),
            self.compressor_slots.service(),
            self.decompressor_slots.service(),
            self.receipts_queue.service(),
            self.receipts_queue.dead_letter_service(),
        ]
    }

    /// Everything works, and calls take some milliseconds.
    pub(super) fn heal(&self) {
        let some = (Duration::from_millis(1), Duration::from_millis(20));
        for service in self.services() {
            service.set_faults(|faults| {
                *faults = Default::default();
                faults.latency = some;
            });
        }
        if self.settings.bundles {
            // Files wait for each other only while the one before is appended.
            let long = (Duration::from_millis(100), Duration::from_secs(2));
            let stream = self.stream.service();
            stream.set_faults(|faults| faults.latency = long);
        }
        for disk in [&self.source, &self.destination] {
            disk.set_faults(|faults| *faults = Default::default());
        }
        self.world.set_stalls(0.0, Duration::ZERO);
    }

    /// What was counted, and what queues took, since the start.
    pub(super) fn counts(&self) -> RunCounts {
        let queues = [&self.files_queue, &self.chunks_queue, &self.receipts_queue];
        RunCounts {
            packing: self.packing.counts(),
            restoring: self.restoring.counts(),
            dead_letters: queues.iter().map(|queue| queue.dead_lettered()).sum(),
        }
    }

    /// Messages that are not done.
    pub(super) fn waiting(&self) -> usize {
        let queues = [&self.files_queue, &self.chunks_queue, &self.receipts_queue];
        queues.iter().map(|queue| queue.messages().len()).sum()
    }

    /// Announced files of which the pipeline does not know what became of them, although their sources are there and their
    /// messages are no dead letters.
    pub(super) async fn unconfirmed(&self) -> Vec<String> {
        let kept = self.kept.lock().clone();
        let journal = kept.unwrap_or_else(|| self.journal.clone());
        let Ok(unconfirmed) = journal.unconfirmed(SOURCE).await else {
            // A journal out of reach does not say that all is done.
            return vec!["the journal is out of reach".to_owned()];
        };
        let letters = [&self.files_queue, &self.chunks_queue]
            .map(|queue| queue.dead_letters())
            .concat();
        let is_open = |record: &SourceRecord| {
            let is_dead =
                |letter: &StoredMessage| letter.message.body.contains(&record.announcement);
            // What a command recorded and could not send is not announced, and the command said so.
            record.state != SourceState::Writing
                && self.source.node(&record.name).is_some()
                && !letters.iter().any(is_dead)
        };
        let open = unconfirmed.into_iter().filter(is_open);
        open.map(|record| format!("{record:?}")).collect()
    }

    /// What announces files, in a process.
    pub(super) fn announcer(&self, process: &SimProcess) -> Announcer {
        let source: Arc<dyn Files> = Arc::new(self.source.open(SOURCE, process));
        Announcer {
            journal: match self.has_notes() {
                true => Arc::new(NoteJournal::new(source.clone())),
                false => self.journal.clone(),
            },
            source,
            files_queue: Arc::new(self.files_queue.open(process)),
            strict: self.settings.is_strict,
            format: AnnouncementFormat::Native,
        }
    }

    /// Without a scan nothing reads notes.
    fn has_notes(&self) -> bool {
        self.settings.has_notes && self.settings.scan_seconds.is_some()
    }

    /// What announces files in the process that scans.
    fn scanning_announcer(&self, process: &SimProcess) -> Announcer {
        let announcer = self.announcer(process);
        if !self.has_notes() {
            return announcer;
        }
        let journal = Arc::new(SegmentJournal::new(announcer.source.clone(), true));
        *self.kept.lock() = Some(journal.clone());
        Announcer {
            journal,
            ..announcer
        }
    }

    /// What redrive and compressors use, in a process.
    pub(super) fn connections(&self, process: &SimProcess) -> CompressorConnections {
        CompressorConnections {
            files_queue: Arc::new(self.files_queue.open(process)),
            chunks_queue: Arc::new(self.chunks_queue.open(process)),
            receipts_queue: Some(Arc::new(self.receipts_queue.open(process))),
            stream: Arc::new(self.stream.open(process)),
        }
    }

    /// What `streampress recover` is, in a process.
    pub(super) async fn recovery(&self, process: &SimProcess) -> Recovery {
        let connections = self.connections(process);
        let journal: Arc<dyn FileJournal> = match self.has_notes() {
            true => {
                let source = Arc::new(self.source.open(SOURCE, process));
                let journal = SegmentJournal::new(source, false);
                match journal.source(SOURCE, "").await {
                    Ok(_) => Arc::new(journal),
                    Err(_) => Arc::new(NoJournal),
                }
            }
            false => self.journal.clone(),
        };
        let destination: Arc<dyn Files> = Arc::new(self.destination.open(DESTINATION, process));
        Recovery {
            stream: connections.stream,
            chunks_queue: connections.chunks_queue,
            strict: self.settings.is_strict,
            journal,
            record_bytes: RECORD_BYTES,
            destination: (!self.has_notes()).then_some(destination),
            with_gone: false,
            list_only: false,
        }
    }

    async fn run(&self, task: RoleTask, process: &SimProcess, shutdown: CancellationToken) {
        match task {
            RoleTask::Scan => {
                let announcer = self.scanning_announcer(process);
                let unconfirmed = UnconfirmedFiles {
                    announcer: announcer.clone(),
                    connections: self.connections(process),
                    takes_in: false,
                    meter: Meter::default(),
                };
                let scanner = Scanner {
                    announcer,
                    filter: filter(self.settings),
                    links: None,
                    settle: SETTLE,
                    renames_or_deletes: self.settings.on_restored != OnRestored::Keep
                        || self.settings.on_compressed != OnCompressed::Keep,
                    left_out: LeftOutFiles::default(),
                    making: Arc::default(),
                    waiting: Arc::default(),
                    meter: Meter::default(),
                };
                let seconds = self.settings.scan_seconds.unwrap_or(1);
                let interval = Duration::from_secs(seconds.into());
                let endless = CancellationToken::new();
                tokio::join!(
                    scanner.run(interval, None, &shutdown),
                    unconfirmed.run(&shutdown, &endless)
                );
            }
            RoleTask::Compress => {
                let connections = self.connections(process);
                let compressor = self.compressor(process, &connections);
                let lock = Arc::new(self.compressor_slots.open(process));
                let receipts: Arc<dyn Queue> = Arc::new(self.receipts_queue.open(process));
                let queue = JoinedQueue::new(connections.files_queue, receipts);
                let consumer = self.consumer(
                    Role::Compressor,
                    Arc::new(queue),
                    lock,
                    Arc::new(compressor),
                    shutdown,
                );
                consumer.run().await;
            }
            RoleTask::Decompress => {
                let destination: Arc<dyn Files> =
                    Arc::new(self.destination.open(DESTINATION, process));
                let stream = Arc::new(self.stream.open(process));
                let destination = Destination::with_own_journal(destination, None);
                let destination = destination.owned_by(LocationOwner::new(
                    NeededService::Destination,
                    ("simulated", self.name),
                    "/destination",
                ));
                let mut decompressor =
                    Decompressor::new(destination, stream, 1, None, Arc::new(NoJournal));
                let receipts = Arc::new(self.receipts_queue.open(process));
                let is_strict = self.settings.is_strict;
                decompressor.receipts = Some(ReceiptSender::new(receipts, is_strict));
                let lock = Arc::new(self.decompressor_slots.open(process));
                let queue = Arc::new(self.chunks_queue.open(process));
                let consumer = self.consumer(
                    Role::Decompressor,
                    queue,
                    lock,
                    Arc::new(decompressor),
                    shutdown,
                );
                consumer.run().await;
            }
        }
    }

    fn compressor(&self, process: &SimProcess, connections: &CompressorConnections) -> Compressor {
        Compressor {
            announcer: self.announcer(process),
            stream: connections.stream.clone(),
            chunks_queue: connections.chunks_queue.clone(),
            options: hybrid::CodecOptions {
                effort: hybrid::Effort::Fast,
                block_size: BLOCK_BYTES,
                threads: 1,
            },
            format_version: self.settings.format_version,
            plans: Arc::default(),
            bundler: self.settings.bundles.then(|| Bundler::new(BLOCK_BYTES)),
            record_bytes: RECORD_BYTES,
            on_compressed: self.settings.on_compressed,
            on_restored: self.settings.on_restored,
            spared: None,
            settle: SettleTime(SETTLE),
            filter: filter(self.settings),
            journal: Arc::new(NoJournal),
            report: None,
        }
    }

    fn consumer(
        &self,
        role: Role,
        queue: Arc<dyn Queue>,
        lock: Arc<dyn SlotLock>,
        handler: Arc<dyn Handler>,
        shutdown: CancellationToken,
    ) -> Consumer {
        Consumer {
            role,
            queue,
            lock,
            handler,
            threads: 2,
            strict: self.settings.is_strict,
            interval: Duration::from_secs(1),
            linger: Duration::from_secs(1),
            max_receive_count: 20,
            meter: match role {
                Role::Compressor => self.packing.clone(),
                Role::Decompressor => self.restoring.clone(),
                Role::Generator => Meter::default(),
            },
            shutdown,
        }
    }
}

/// The step of modification times.
fn granularity(settings: SimSettings) -> Duration {
    match settings.is_coarse {
        true => Duration::from_secs(1),
        false => Duration::from_nanos(1),
    }
}

fn filter(settings: SimSettings) -> SourceFilter {
    SourceFilter {
        formats: vec![SourceFormat::Txt, SourceFormat::Csv, SourceFormat::Json],
        skips_renamed: settings.renames(),
    }
}
