//! A whole pipeline on a fake AWS: source and destination folders, compressors and decompressors. Each worker has its
//! own clients and its own runtime, so killing it ends everything it was doing, as killing a process does.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use streampress::consume::joined::JoinedQueue;
use streampress::consume::{Consumer, Handler};
use streampress::destination::Destination;
use streampress::journal::NoJournal;
use streampress::message::Digest;
use streampress::roles::announce::{AnnouncementFormat, Announcer};
use streampress::roles::bundler::Bundler;
use streampress::roles::compress::Compressor;
use streampress::roles::decompress::Decompressor;
use streampress::roles::receipts::ReceiptSender;
use streampress::roles::source::{SettleTime, SourceFilter};
use streampress::telemetry::metrics::Meter;
use streampress_codec::{FormatVersion, hybrid};
pub use streampress_crds::Role;
use streampress_crds::api::pipeline::{OnCompressed, OnRestored, SourceFormat};
use streampress_transport::aws::Aws;
use streampress_transport::contract_tests::{FilesTap, TappedFiles};
use streampress_transport::local::files::LocalFiles;
use streampress_transport::{ChunkStream, FileEntry, FileName, Files, PendingFile, Queue};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::aws::{UnlimitedSlots, connect};

/// The default name of the files queue.
pub const FILES: &str = "files.fifo";
/// The default name of the chunks queue.
pub const CHUNKS: &str = "chunks.fifo";
/// The default name of the stream.
pub const STREAM: &str = "stream";

/// Source and destination of files, and the names and settings that the workers share.
#[derive(Debug, Clone)]
pub struct TestPipeline {
    source: Arc<dyn Files>,
    root: PathBuf,
    destination: Arc<dyn Files>,
    commits: CommitCounts,
    visibility: Duration,
    url: String,
    /// Names of its queues and stream.
    pub names: PipelineNames,
    /// The compressors' effort.
    pub effort: hybrid::Effort,
    /// Whether small files share a block.
    pub bundles: bool,
    /// What compressors write.
    pub format_version: FormatVersion,
    /// The queue of receipts, which delete the sources of restored files; `None`: sources are kept.
    pub receipts: Option<String>,
    /// The meter that all its workers share.
    pub meter: Meter,
}

/// Names of queues and stream.
#[derive(Debug, Clone)]
pub struct PipelineNames {
    /// The queue of announcements.
    pub files: String,
    /// The queue of manifests.
    pub chunks: String,
    /// The stream of records.
    pub stream: String,
}

impl TestPipeline {
    /// Files in two folders below `root`, queues at `url`.
    pub fn new(root: &Path, url: &str, visibility: Duration) -> io::Result<Self> {
        let source = LocalFiles::open("file:///data/in", &root.join("in"))?;
        let destination = LocalFiles::open("file:///data/out", &root.join("out"))?;
        let commits = CommitCounts::default();
        let destination = TappedFiles::new(Arc::new(destination), commits.clone());
        Ok(Self {
            source: Arc::new(source),
            root: root.to_owned(),
            destination,
            commits,
            visibility,
            url: url.to_owned(),
            names: PipelineNames {
                files: FILES.into(),
                chunks: CHUNKS.into(),
                stream: STREAM.into(),
            },
            effort: hybrid::Effort::Fast,
            bundles: false,
            format_version: FormatVersion::default(),
            receipts: None,
            meter: Meter::default(),
        })
    }

    /// Writes a file at the source.
    pub fn write(&self, name: &str, content: &[u8], modified: SystemTime) -> io::Result<FileEntry> {
        let name = FileName::parse(name).map_err(io::Error::other)?;
        let mut pending = self.source.create(&name)?;
        pending.write_all(content)?;
        pending.commit(modified)?;
        self.source
            .stat(&name)?
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Removes a file from the source.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        self.source
            .remove(&FileName::parse(name).map_err(io::Error::other)?)
    }

    /// An announcer for the source's files.
    pub async fn announcer(&self, aws: &Aws) -> Announcer {
        Announcer {
            source: self.source.clone(),
            files_queue: Arc::new(
                aws.queue(&self.names.files, self.visibility)
                    .await
                    .expect("opens"),
            ),
            strict: false,
            format: AnnouncementFormat::Native,
            journal: Arc::new(NoJournal),
        }
    }

    /// The visible files of the destination with their hashes.
    pub fn restored(&self) -> io::Result<HashMap<String, Digest>> {
        let mut all = HashMap::new();
        for entry in self.destination.list()?.files {
            let (hash, _) =
                streampress::roles::announce::hash(self.destination.read(&entry.name)?)?;
            all.insert(entry.name.to_string(), hash);
        }
        Ok(all)
    }

    /// The names of the files that are left at the source.
    pub fn left(&self) -> io::Result<BTreeSet<String>> {
        let listed = self.source.list()?.files.into_iter();
        Ok(listed.map(|entry| entry.name.to_string()).collect())
    }

    /// The commits of each name at the destination, in order.
    pub fn commits(&self) -> HashMap<String, Vec<SystemTime>> {
        self.commits
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// A worker with its own runtime.
#[derive(Debug)]
pub struct TestWorker {
    runtime: Option<Runtime>,
    /// Cancel it to drain.
    pub shutdown: CancellationToken,
    done: tokio::sync::watch::Receiver<bool>,
}

impl TestWorker {
    /// Starts one.
    pub fn start(pipeline: &TestPipeline, role: Role, threads: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let shutdown = CancellationToken::new();
        let (finished, done) = tokio::sync::watch::channel(false);
        let (pipeline, token) = (pipeline.clone(), shutdown.clone());
        runtime.spawn(async move {
            run(&pipeline, role, threads, token).await;
            let _ = finished.send(true);
        });
        Self {
            runtime: Some(runtime),
            shutdown,
            done,
        }
    }

    /// Ends it in the middle of its work.
    pub fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Stops it as SIGTERM does and waits for it.
    pub async fn drain(mut self) {
        self.shutdown.cancel();
        let _ = self.done.wait_for(|done| *done).await;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for TestWorker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn run(pipeline: &TestPipeline, role: Role, threads: usize, shutdown: CancellationToken) {
    // A worker that cannot reach AWS tries again, as a restarted pod does.
    let (queue, consumer) = loop {
        let aws = connect(&pipeline.url).await;
        match consumer(pipeline, &aws, role, threads, &shutdown).await {
            Ok(both) => break both,
            Err(error) => {
                tracing::warn!(error = %format!("{error:#}"), "Cannot open the queues and the stream; trying again.");
                // As long as a pod takes to restart, in small.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    };
    consumer.run().await;
    queue.drain(Duration::from_secs(25)).await;
}

async fn consumer(
    pipeline: &TestPipeline,
    aws: &Aws,
    role: Role,
    threads: usize,
    shutdown: &CancellationToken,
) -> anyhow::Result<(streampress_transport::aws::SqsQueue, Consumer)> {
    let stream: Arc<dyn ChunkStream> = Arc::new(aws.stream(&pipeline.names.stream).await?);
    let chunks = aws
        .queue(&pipeline.names.chunks, pipeline.visibility)
        .await?;
    let files = aws
        .queue(&pipeline.names.files, pipeline.visibility)
        .await?;
    let receipts: Option<Arc<dyn Queue>> = match &pipeline.receipts {
        Some(name) => Some(Arc::new(aws.queue(name, pipeline.visibility).await?)),
        None => None,
    };
    // After everything that can fail: the meter watches only the first stream that it is given.
    pipeline.meter.watch(&stream);
    let (queue, handler): (_, Arc<dyn Handler>) = match role {
        Role::Compressor => {
            let handler = Compressor {
                announcer: Announcer {
                    source: pipeline.source.clone(),
                    files_queue: Arc::new(files.clone()),
                    strict: false,
                    format: AnnouncementFormat::Native,
                    journal: Arc::new(NoJournal),
                },
                stream,
                chunks_queue: Arc::new(chunks),
                options: hybrid::CodecOptions {
                    effort: pipeline.effort,
                    block_size: 1 << 20,
                    threads: 1,
                },
                format_version: pipeline.format_version,
                plans: Arc::default(),
                bundler: pipeline.bundles.then(|| Bundler::new(1 << 20)),
                record_bytes: 400 * 1024,
                on_compressed: OnCompressed::Keep,
                spared: None,
                on_restored: match &receipts {
                    Some(_) => OnRestored::Delete,
                    None => OnRestored::Keep,
                },
                settle: SettleTime::default(),
                filter: SourceFilter {
                    formats: vec![SourceFormat::Json, SourceFormat::Csv, SourceFormat::Txt],
                    skips_renamed: false,
                },
                journal: Arc::new(NoJournal),
                report: None,
            };
            (files, Arc::new(handler))
        }
        Role::Decompressor => {
            let files = pipeline.destination.clone();
            let destination =
                Destination::with_own_journal(files, Some(&pipeline.root.join("out")));
            let journal = Arc::new(NoJournal);
            let mut handler = Decompressor::new(destination, stream, 1, None, journal);
            handler.receipts = receipts
                .clone()
                .map(|queue| ReceiptSender::new(queue, false));
            (chunks, Arc::new(handler))
        }
        Role::Generator => anyhow::bail!("a generator receives no messages"),
    };
    let received: Arc<dyn Queue> = Arc::new(queue.clone());
    let received = match (role, receipts) {
        (Role::Compressor, Some(receipts)) => Arc::new(JoinedQueue::new(received, receipts)),
        _ => received,
    };
    let consumer = Consumer {
        role,
        queue: received,
        lock: Arc::new(UnlimitedSlots),
        handler,
        threads,
        strict: false,
        interval: Duration::from_millis(200),
        linger: Duration::from_secs(1),
        max_receive_count: 20,
        meter: pipeline.meter.clone(),
        shutdown: shutdown.clone(),
    };
    Ok((queue, consumer))
}

/// The commits of each name at a destination, in order.
#[derive(Debug, Clone, Default)]
struct CommitCounts(Arc<Mutex<HashMap<String, Vec<SystemTime>>>>);

impl CommitCounts {
    fn count(&self, name: String, modified: SystemTime) {
        let mut commits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        commits.entry(name).or_default().push(modified);
    }
}

impl FilesTap for CommitCounts {
    fn create(&self, files: &dyn Files, name: &FileName) -> io::Result<Box<dyn PendingFile>> {
        let (inner, counts, name) = (files.create(name)?, self.clone(), name.to_string());
        Ok(Box::new(CountedFile {
            inner,
            counts,
            name,
        }))
    }
}

struct CountedFile {
    inner: Box<dyn PendingFile>,
    counts: CommitCounts,
    name: String,
}

impl io::Write for CountedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl PendingFile for CountedFile {
    fn commit(self: Box<Self>, modified: SystemTime) -> io::Result<()> {
        self.inner.commit(modified)?;
        self.counts.count(self.name, modified);
        Ok(())
    }

    fn commit_over(
        self: Box<Self>,
        modified: SystemTime,
        seen: Option<&FileEntry>,
    ) -> io::Result<FileEntry> {
        let entry = self.inner.commit_over(modified, seen)?;
        if !entry.name.is_reserved() {
            self.counts.count(self.name, modified);
        }
        Ok(entry)
    }
}
