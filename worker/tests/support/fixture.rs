//! A data folder with a source beside it, for tests that build a worker's parts themselves.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use streampress::consume::{
    Consumer, Handled, Handler, HandlerError, MessageContext, ThreadBudget,
};
use streampress::destination::Destination;
use streampress::journal::NoJournal;
use streampress::message::Message;
use streampress::roles::announce::{AnnouncementFormat, Announcer};
use streampress::roles::compress::Compressor;
use streampress::roles::decompress::Decompressor;
use streampress::roles::source::{SettleTime, SourceFilter};
use streampress::telemetry::metrics::Meter;
use streampress_codec::hybrid;
use streampress_crds::Role;
use streampress_crds::api::pipeline::{OnCompressed, OnRestored, SourceFormat};
use streampress_transport::contract_tests::eventually;
use streampress_transport::in_process_lock::InProcessLock;
use streampress_transport::local::files::LocalFiles;
use streampress_transport::local::{Local, LocalOptions};
use streampress_transport::{
    ChunkStream, Deadline, Delivery, FileEntry, FileName, Files, Queue, SlotGuard, SlotLock,
};
use tokio_util::sync::CancellationToken;

/// See the file's head.
pub struct Fixture {
    root: tempfile::TempDir,
    pub local: Local,
    pub source: Arc<dyn Files>,
}

impl Fixture {
    pub fn open() -> Self {
        Self::with_source("file:///data/in")
    }

    /// With a source whose location is `location`.
    pub fn with_source(location: &str) -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let local = Local::open(&root.path().join("data"), LocalOptions::default()).expect("opens");
        let source = files(location, &root.path().join("in"));
        Self {
            root,
            local,
            source,
        }
    }

    /// The source's folder.
    pub fn folder(&self) -> PathBuf {
        self.root.path().join("in")
    }

    /// The database of the data folder.
    pub fn database(&self) -> PathBuf {
        self.root.path().join("data/streampress.db")
    }

    /// Another folder for files.
    pub fn files(&self, name: &str) -> Arc<dyn Files> {
        files(
            &format!("file:///data/{name}"),
            &self.root.path().join(name),
        )
    }

    pub fn announcer(&self, format: AnnouncementFormat) -> Announcer {
        Announcer {
            source: self.source.clone(),
            files_queue: self.local.files_queue(),
            strict: false,
            format,
            journal: Arc::new(NoJournal),
        }
    }

    /// A compressor of format Hybrid that keeps its sources.
    pub fn compressor(&self, stream: Arc<dyn ChunkStream>) -> Compressor {
        Compressor {
            announcer: self.announcer(AnnouncementFormat::Native),
            stream,
            chunks_queue: self.local.chunks_queue(),
            options: hybrid::CodecOptions {
                effort: hybrid::Effort::Fast,
                block_size: 1 << 20,
                threads: 1,
            },
            format_version: Default::default(),
            plans: Arc::default(),
            bundler: None,
            record_bytes: 400 * 1024,
            on_compressed: OnCompressed::Keep,
            on_restored: OnRestored::Keep,
            spared: None,
            settle: SettleTime::default(),
            filter: SourceFilter {
                formats: vec![SourceFormat::Txt, SourceFormat::Json, SourceFormat::Csv],
                skips_renamed: false,
            },
            journal: Arc::new(NoJournal),
            report: None,
        }
    }

    /// The folder `name` as a destination.
    pub fn destination(&self, name: &str) -> Destination {
        Destination::with_own_journal(self.files(name), Some(&self.root.path().join(name)))
    }

    /// A decompressor that restores to `destination`.
    pub fn decompressor(
        &self,
        destination: Destination,
        stream: Arc<dyn ChunkStream>,
    ) -> Decompressor {
        let journal = Arc::new(NoJournal);
        let mut decompressor = Decompressor::new(destination, stream, 1, None, journal);
        decompressor.block_bytes = 1 << 20;
        decompressor
    }

    /// Writes a file at the source.
    pub fn write(&self, name: &str, content: &[u8]) -> FileEntry {
        std::fs::write(self.folder().join(name), content).expect("written");
        let name = FileName::parse(name).expect("a valid name");
        self.source.stat(&name).expect("readable").expect("there")
    }
}

fn files(location: &str, folder: &Path) -> Arc<dyn Files> {
    Arc::new(LocalFiles::open(location, folder).expect("opens"))
}

/// A consumer in a task of its own.
pub struct RunningConsumer {
    pub meter: Meter,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl RunningConsumer {
    pub fn start(
        queue: Arc<dyn Queue>,
        lock: Arc<dyn SlotLock>,
        handler: Arc<dyn Handler>,
        threads: usize,
        strict: bool,
    ) -> Self {
        let (meter, shutdown) = (Meter::default(), CancellationToken::new());
        let consumer = Consumer {
            role: Role::Compressor,
            queue,
            lock,
            handler,
            threads,
            strict,
            interval: Duration::from_secs(1),
            linger: Duration::from_secs(1),
            max_receive_count: 20,
            meter: meter.clone(),
            shutdown: shutdown.clone(),
        };
        Self {
            meter,
            shutdown,
            task: tokio::spawn(async move { consumer.run().await }),
        }
    }

    /// Messages that are acknowledged or dead letters.
    pub fn concluded(&self) -> u64 {
        let counts = self.meter.counts();
        counts.acknowledged + counts.dead.values().sum::<u64>()
    }

    /// Waits until so many messages are concluded.
    pub async fn conclude(&self, messages: u64) {
        eventually("all messages are concluded", async || {
            self.concluded() >= messages
        })
        .await;
    }

    /// Shuts down; what follows an acknowledgement is done then.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("no panic");
    }
}

/// Handles the queue's next message, which stays in flight.
pub async fn handle_next(
    handler: &dyn Handler,
    queue: &dyn Queue,
    slot: &SlotGuard,
    stop: &CancellationToken,
) -> Result<Handled, HandlerError> {
    let mut deliveries = queue.receive(1, Duration::ZERO).await.expect("received");
    let delivery = deliveries.pop().expect("a message");
    handle(handler, &delivery, slot, stop).await
}

/// Handles the queue's next message and deletes it.
pub async fn complete_next(
    handler: &dyn Handler,
    queue: &dyn Queue,
) -> Result<Handled, HandlerError> {
    let mut deliveries = queue.receive(1, Duration::ZERO).await.expect("received");
    let delivery = deliveries.pop().expect("a message");
    let slot = InProcessLock::new("test", 1).try_acquire().await;
    let slot = slot.expect("asked").expect("free");
    let handled = handle(handler, &delivery, &slot, &CancellationToken::new()).await?;
    queue.delete(&delivery.receipt).await.expect("deleted");
    Ok(handled)
}

/// Handles one delivery.
pub async fn handle(
    handler: &dyn Handler,
    delivery: &Delivery,
    slot: &SlotGuard,
    stop: &CancellationToken,
) -> Result<Handled, HandlerError> {
    let message = Message::parse(&delivery.body).expect("readable");
    let context = MessageContext {
        delivery,
        visibility_deadline: &Deadline::new(delivery.visibility_deadline),
        slot,
        threads: &ThreadBudget::new(1),
        stop,
        meter: &Meter::default(),
    };
    handler.handle(&message, context).await
}
