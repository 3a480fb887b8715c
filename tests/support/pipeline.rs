//! A whole pipeline on a stand-in: source and destination folders, compressors and decompressors each with clients of
//! their own in a runtime of their own, so that killing one ends all it was doing, as killing a process does.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use streampress::consume::{Consumer, Handler};
use streampress::message::Digest;
use streampress::roles::announce::{AnnouncementFormat, Announcer};
use streampress::roles::compress::{Compressor, OnCompressed};
use streampress::roles::decompress::Decompressor;
use streampress::roles::scan::SourceFilter;
use streampress::telemetry::metrics::Meter;
use streampress_codec::hybrid;
use streampress_crds::api::pipeline::SourceFormat;
use streampress_transport::aws::Aws;
use streampress_transport::local::files::LocalFiles;
use streampress_transport::{ChunkStream, FileEntry, FileName, Files, PendingFile, Queue};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::aws::{FreeSlots, connect};

/// What a pipeline's queues and stream are called.
pub const FILES: &str = "files.fifo";
/// See [`FILES`].
pub const CHUNKS: &str = "chunks.fifo";
/// See [`FILES`].
pub const STREAM: &str = "stream";

/// Where files come from and go to, and what is known of them.
#[derive(Debug, Clone)]
pub struct Place {
    source: Arc<dyn Files>,
    destination: Watched,
    visibility: Duration,
    url: String,
    /// What its queues and stream are called.
    pub names: Names,
    /// How hard compressors try.
    pub effort: hybrid::Effort,
    /// What all its workers count together.
    pub meter: Meter,
}

/// Names of queues and stream.
#[derive(Debug, Clone)]
pub struct Names {
    /// Announces files.
    pub files: String,
    /// Announces packed files.
    pub chunks: String,
    /// Carries records.
    pub stream: String,
}

impl Place {
    /// In two folders below `root`; the queues are at `url`.
    pub fn new(root: &Path, url: &str, visibility: Duration) -> io::Result<Self> {
        let source = LocalFiles::open("file:///data/in", &root.join("in"))?;
        let destination = LocalFiles::open("file:///data/out", &root.join("out"))?;
        let destination = Watched {
            inner: Arc::new(destination),
            commits: Arc::default(),
        };
        Ok(Self {
            source: Arc::new(source),
            destination,
            visibility,
            url: url.to_owned(),
            names: Names {
                files: FILES.into(),
                chunks: CHUNKS.into(),
                stream: STREAM.into(),
            },
            effort: hybrid::Effort::Fast,
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

    /// Takes a file away from the source.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        self.source
            .remove(&FileName::parse(name).map_err(io::Error::other)?)
    }

    /// How files are announced.
    pub async fn announcer(&self, aws: &Aws) -> Announcer {
        Announcer {
            source: self.source.clone(),
            files_queue: Arc::new(
                aws.queue(&self.names.files, self.visibility)
                    .await
                    .expect("opens"),
            ),
            strict: false,
            dialect: AnnouncementFormat::Native,
            journal: None,
        }
    }

    /// What is visible at the destination, with its hash.
    pub fn restored(&self) -> io::Result<HashMap<String, Digest>> {
        let mut all = HashMap::new();
        for entry in self.destination.list()? {
            let (hash, _) =
                streampress::roles::announce::hash(self.destination.read(&entry.name)?)?;
            all.insert(entry.name.to_string(), hash);
        }
        Ok(all)
    }

    /// How often each name was made visible.
    pub fn commits(&self) -> HashMap<String, Vec<SystemTime>> {
        self.destination
            .commits
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Which of the two a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Files to records.
    Compressor,
    /// Records to files.
    Decompressor,
}

/// A worker in a runtime of its own.
#[derive(Debug)]
pub struct Worker {
    runtime: Option<Runtime>,
    /// Cancel it to drain.
    pub shutdown: CancellationToken,
    done: tokio::sync::watch::Receiver<bool>,
}

impl Worker {
    /// Starts one.
    pub fn start(place: &Place, role: Role, threads: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let shutdown = CancellationToken::new();
        let (finished, done) = tokio::sync::watch::channel(false);
        let (place, token) = (place.clone(), shutdown.clone());
        runtime.spawn(async move {
            run(&place, role, threads, token).await;
            let _ = finished.send(true);
        });
        Self {
            runtime: Some(runtime),
            shutdown,
            done,
        }
    }

    /// Ends it in the middle of whatever it is at.
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

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn run(place: &Place, role: Role, threads: usize, shutdown: CancellationToken) {
    // A worker that cannot open its doors on a bad day tries again, as a restarted pod does.
    let (queue, consumer) = loop {
        let aws = connect(&place.url).await;
        match consumer(place, &aws, role, threads, &shutdown).await {
            Ok(both) => break both,
            Err(error) => {
                tracing::warn!(error = %format!("{error:#}"), "Could not open the doors; trying again.");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    };
    consumer.run().await;
    queue.drain(Duration::from_secs(25)).await;
}

async fn consumer(
    place: &Place,
    aws: &Aws,
    role: Role,
    threads: usize,
    shutdown: &CancellationToken,
) -> anyhow::Result<(streampress_transport::aws::SqsQueue, Consumer)> {
    let stream: Arc<dyn ChunkStream> = Arc::new(aws.stream(&place.names.stream).await?);
    let chunks = aws.queue(&place.names.chunks, place.visibility).await?;
    let files = aws.queue(&place.names.files, place.visibility).await?;
    // Once nothing can fail any more: of several streams only the first is watched.
    place.meter.watch(&stream);
    let (queue, handler): (_, Arc<dyn Handler>) = match role {
        Role::Compressor => {
            let handler = Compressor {
                announcer: Announcer {
                    source: place.source.clone(),
                    files_queue: Arc::new(files.clone()),
                    strict: false,
                    dialect: AnnouncementFormat::Native,
                    journal: None,
                },
                stream,
                chunks_queue: Arc::new(chunks),
                options: hybrid::CodecOptions {
                    effort: place.effort,
                    block_size: 1 << 20,
                    threads: 1,
                },
                record_bytes: 400 * 1024,
                on_compressed: OnCompressed::Keep,
                filter: SourceFilter {
                    formats: vec![SourceFormat::Json, SourceFormat::Csv, SourceFormat::Txt],
                    put_aside: false,
                },
                journal: None,
            };
            (files, Arc::new(handler))
        }
        Role::Decompressor => {
            let handler = Decompressor {
                destination: Arc::new(place.destination.clone()),
                stream,
                limits: hybrid::Limits::default(),
                threads: 1,
                block_bytes: 4 << 20,
                report: None,
                journal: None,
            };
            (chunks, Arc::new(handler))
        }
    };
    let consumer = Consumer {
        role: if role == Role::Compressor {
            "compressor"
        } else {
            "decompressor"
        },
        queue: Arc::new(queue.clone()) as Arc<dyn Queue>,
        lock: Arc::new(FreeSlots),
        handler,
        threads,
        strict: false,
        interval: Duration::from_millis(200),
        linger: Duration::from_secs(1),
        max_receive_count: 20,
        meter: place.meter.clone(),
        shutdown: shutdown.clone(),
    };
    Ok((queue, consumer))
}

/// A destination that counts what becomes visible.
#[derive(Debug, Clone)]
struct Watched {
    inner: Arc<dyn Files>,
    commits: Arc<Mutex<HashMap<String, Vec<SystemTime>>>>,
}

impl Files for Watched {
    fn location(&self) -> &str {
        self.inner.location()
    }
    fn list(&self) -> io::Result<Vec<FileEntry>> {
        self.inner.list()
    }
    fn stat(&self, name: &FileName) -> io::Result<Option<FileEntry>> {
        self.inner.stat(name)
    }
    fn read(&self, name: &FileName) -> io::Result<Box<dyn io::Read + Send>> {
        self.inner.read(name)
    }
    fn create(&self, name: &FileName) -> io::Result<Box<dyn PendingFile>> {
        let (inner, watched, name) = (self.inner.create(name)?, self.clone(), name.to_string());
        Ok(Box::new(Counted {
            inner,
            watched,
            name,
        }))
    }
    fn remove(&self, name: &FileName) -> io::Result<()> {
        self.inner.remove(name)
    }
    fn rename(&self, from: &FileName, to: &FileName) -> io::Result<()> {
        self.inner.rename(from, to)
    }
}

struct Counted {
    inner: Box<dyn PendingFile>,
    watched: Watched,
    name: String,
}

impl io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl PendingFile for Counted {
    fn commit(self: Box<Self>, modified: SystemTime) -> io::Result<()> {
        self.inner.commit(modified)?;
        self.watched
            .commits
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(self.name)
            .or_default()
            .push(modified);
        Ok(())
    }
}
