//! Queues, streams and files of tests that see the calls of others, and may refuse them.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    ChunkStream, Delivery, Depth, ExactFile, ExactOutcome, Failure, FileEntry, FileName, Files,
    Listing, Outgoing, PendingFile, Position, Queue, Receipt, Record, StreamCounts,
    TransportResult,
};

/// What a test does at the calls of a [`TappedQueue`].
#[async_trait]
pub trait QueueTap: fmt::Debug + Send + Sync {
    /// Before messages are sent; an error refuses them.
    async fn before_send(&self, messages: &[Outgoing]) -> TransportResult<()> {
        let _ = messages;
        Ok(())
    }

    /// After messages were received.
    fn received(&self, deliveries: &[Delivery]) {
        let _ = deliveries;
    }

    /// After a message was deleted.
    fn deleted(&self) {}

    /// After a message became a dead letter.
    fn dead_lettered(&self) {}
}

/// Passes every call on to a queue, and tells a tap of it.
#[derive(Debug)]
pub struct TappedQueue<T> {
    inner: Arc<dyn Queue>,
    /// What the test does.
    pub tap: T,
}

impl<T: QueueTap> TappedQueue<T> {
    /// The queue `inner`, with a tap.
    pub fn new(inner: Arc<dyn Queue>, tap: T) -> Arc<Self> {
        Arc::new(Self { inner, tap })
    }
}

#[async_trait]
impl<T: QueueTap> Queue for TappedQueue<T> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn visibility_timeout(&self) -> Duration {
        self.inner.visibility_timeout()
    }

    async fn send(&self, messages: Vec<Outgoing>) -> TransportResult<()> {
        self.tap.before_send(&messages).await?;
        self.inner.send(messages).await
    }

    async fn receive(&self, max: usize, wait: Duration) -> TransportResult<Vec<Delivery>> {
        let deliveries = self.inner.receive(max, wait).await?;
        self.tap.received(&deliveries);
        Ok(deliveries)
    }

    async fn extend(&self, receipt: &Receipt, visibility_timeout: Duration) -> TransportResult<()> {
        self.inner.extend(receipt, visibility_timeout).await
    }

    async fn delete(&self, receipt: &Receipt) -> TransportResult<()> {
        self.inner.delete(receipt).await?;
        self.tap.deleted();
        Ok(())
    }

    async fn release(&self, receipt: &Receipt) -> TransportResult<()> {
        self.inner.release(receipt).await
    }

    async fn dead_letter(&self, delivery: &Delivery, failure: &Failure) -> TransportResult<()> {
        self.inner.dead_letter(delivery, failure).await?;
        self.tap.dead_lettered();
        Ok(())
    }

    async fn drain(&self, patience: Duration) -> bool {
        self.inner.drain(patience).await
    }

    async fn depth(&self) -> TransportResult<Depth> {
        self.inner.depth().await
    }

    fn dead_letters(&self) -> Option<Arc<dyn Queue>> {
        self.inner.dead_letters()
    }
}

/// What a test does at the calls of a [`TappedStream`].
#[async_trait]
pub trait StreamTap: fmt::Debug + Send + Sync {
    /// Before records are fetched; an error refuses them.
    async fn before_fetch(&self, positions: &[Position]) -> TransportResult<()> {
        let _ = positions;
        Ok(())
    }

    /// After records were fetched.
    fn fetched(&self, records: &mut [Bytes]) {
        let _ = records;
    }
}

/// Passes every call on to a stream, and tells a tap of it.
#[derive(Debug)]
pub struct TappedStream<T> {
    inner: Arc<dyn ChunkStream>,
    tap: T,
}

impl<T: StreamTap> TappedStream<T> {
    /// The stream `inner`, with a tap.
    pub fn new(inner: Arc<dyn ChunkStream>, tap: T) -> Arc<Self> {
        Arc::new(Self { inner, tap })
    }
}

#[async_trait]
impl<T: StreamTap> ChunkStream for TappedStream<T> {
    fn max_record_bytes(&self) -> usize {
        self.inner.max_record_bytes()
    }

    async fn append(&self, records: Vec<Record>) -> TransportResult<Vec<Position>> {
        self.inner.append(records).await
    }

    async fn fetch(&self, positions: &[Position]) -> TransportResult<Vec<Bytes>> {
        self.tap.before_fetch(positions).await?;
        let mut records = self.inner.fetch(positions).await?;
        self.tap.fetched(&mut records);
        Ok(records)
    }

    fn counts(&self) -> StreamCounts {
        self.inner.counts()
    }
}

/// What a test does at the calls of [`TappedFiles`].
pub trait FilesTap: fmt::Debug + Send + Sync {
    /// In place of a listing of `files`.
    fn list(&self, files: &dyn Files) -> io::Result<Listing> {
        files.list()
    }

    /// In place of a read from `files`.
    fn read(&self, files: &dyn Files, name: &FileName) -> io::Result<Box<dyn Read + Send>> {
        files.read(name)
    }

    /// In place of a file that is begun in `files`.
    fn create(&self, files: &dyn Files, name: &FileName) -> io::Result<Box<dyn PendingFile>> {
        files.create(name)
    }
}

/// Refuses every read, as of files of another user.
#[derive(Debug)]
pub struct DeniedReads;

impl FilesTap for DeniedReads {
    fn read(&self, _: &dyn Files, _: &FileName) -> io::Result<Box<dyn Read + Send>> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

/// Passes every call on to a location's files, or lets a tap do it. A probe is made of these calls.
#[derive(Debug)]
pub struct TappedFiles<T> {
    inner: Arc<dyn Files>,
    tap: T,
}

impl<T: FilesTap> TappedFiles<T> {
    /// The files `inner`, with a tap.
    pub fn new(inner: Arc<dyn Files>, tap: T) -> Arc<Self> {
        Arc::new(Self { inner, tap })
    }
}

impl<T: FilesTap> Files for TappedFiles<T> {
    fn location(&self) -> &str {
        self.inner.location()
    }
    fn list(&self) -> io::Result<Listing> {
        self.tap.list(&*self.inner)
    }
    fn stat(&self, name: &FileName) -> io::Result<Option<FileEntry>> {
        self.inner.stat(name)
    }
    fn read(&self, name: &FileName) -> io::Result<Box<dyn Read + Send>> {
        self.tap.read(&*self.inner, name)
    }
    fn create(&self, name: &FileName) -> io::Result<Box<dyn PendingFile>> {
        self.tap.create(&*self.inner, name)
    }
    fn remove(&self, name: &FileName) -> io::Result<()> {
        self.inner.remove(name)
    }
    fn rename(&self, from: &FileName, to: &FileName) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn set_modified(&self, name: &FileName, modified: SystemTime) -> io::Result<()> {
        self.inner.set_modified(name, modified)
    }
    fn list_reserved(&self, folder: &FileName) -> io::Result<Vec<String>> {
        self.inner.list_reserved(folder)
    }
    fn put_back(&self, name: &FileName) -> io::Result<()> {
        self.inner.put_back(name)
    }
    fn remove_exact(&self, file: &ExactFile<'_>) -> io::Result<ExactOutcome> {
        self.inner.remove_exact(file)
    }
    fn rename_exact(&self, file: &ExactFile<'_>, to: &FileName) -> io::Result<ExactOutcome> {
        self.inner.rename_exact(file, to)
    }
}
