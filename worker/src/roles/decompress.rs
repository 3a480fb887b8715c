//! The decompressor: one manifest in, the same file out.
//!
//! It takes exactly the records that the manifest names, and accepts a file only by its hash. The file is written under a
//! temporary name, checked as a whole, then made visible; an older version never overwrites a newer one; a file that is
//! there already is acknowledged and skipped.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use futures::future::maybe_done;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::info;

use crate::consume::batching::{is_small, is_small_packed};
use crate::consume::{Handled, Handler, HandlerError, MessageContext, Outage};
use crate::journal::FileJournal;
use crate::legacy::decompressor::LegacyDecompressor;
use crate::message::record::RecordOwner;
use crate::message::{DeadLetterReason, Digest, FileRef, Manifest, Message, Records};
use crate::report::log::ReportLog;
use crate::report::{FileOutcome, ReportRow, format_of};
use crate::roles::announce::hash;
use crate::roles::compress::record_failure;
use crate::roles::probe;
use crate::runtime::{self, blocking};
use crate::telemetry::metrics::{Meter, Stage};
use streampress_codec::hybrid;
use streampress_transport::{ChunkStream, FileEntry, Files, PendingFile, Position};

/// Records are fetched in batches of about this many bytes.
const BATCH_BYTES: u64 = 4 << 20;
/// And of no more than this many, in case a manifest says that they are smaller than they are.
const BATCH_RECORDS: usize = 64;
/// What a record is taken to have whose position does not say it, which none of ours does.
const UNKNOWN_BYTES: u64 = BATCH_BYTES;
/// The longest list of records in bytes; 64 MiB name some 800,000 records, at 400 KiB each 300 GiB packed.
const LONGEST_LIST_BYTES: u64 = 64 << 20;
/// A file of this part of a block or less is held in memory without a thread.
const SMALL_PART: u64 = 16;

/// The decompressor's work; it takes manifests of both formats.
#[derive(Debug)]
pub struct Decompressor {
    /// Where files are restored.
    pub destination: Arc<dyn Files>,
    /// Where records are.
    pub stream: Arc<dyn ChunkStream>,
    /// The most that a file may ask for.
    pub limits: hybrid::Limits,
    /// Threads for one large file.
    pub threads: usize,
    /// A file above this many bytes is worth all threads.
    pub block_bytes: u64,
    /// The report, where one is wanted.
    pub report: Option<Arc<ReportLog>>,
    /// Where files' progress is recorded.
    pub journal: Arc<dyn FileJournal>,
    legacy: LegacyDecompressor,
}

/// What the destination holds under the file's name.
#[derive(Debug, PartialEq, Eq)]
enum Present {
    /// Nothing, or an older version.
    Older,
    /// This content.
    Same,
    /// A later version.
    Newer,
}

#[async_trait]
impl Handler for Decompressor {
    async fn handle(
        &self,
        message: &Message,
        context: MessageContext<'_>,
    ) -> Result<Handled, HandlerError> {
        match message {
            Message::Manifest(manifest) => self.restore_unless_present(manifest, context).await?,
            Message::LegacyManifest(manifest) => self.legacy.restore(manifest, context).await?,
            Message::Announcement(_) | Message::LegacyAnnouncement(_) | Message::S3Event(_) => {
                return Err(HandlerError::unexpected(message));
            }
        }
        Ok(Handled::default())
    }

    fn is_small(&self, message: &Message) -> bool {
        is_small(message, self.block_bytes)
    }

    fn needed_bytes(&self, message: &Message) -> u64 {
        match message {
            Message::Manifest(manifest) => manifest.file.bytes,
            Message::LegacyManifest(_)
            | Message::Announcement(_)
            | Message::LegacyAnnouncement(_)
            | Message::S3Event(_) => 0,
        }
    }

    async fn probe(&self, _failed: Option<&Message>, bytes: u64) -> Result<bool, Outage> {
        probe::destination(&self.destination, bytes).await?;
        probe::fetch(&*self.stream).await?;
        Ok(true)
    }

    async fn on_dead_lettered(&self, message: &Message, reason: DeadLetterReason, detail: &str) {
        match message {
            Message::Manifest(manifest) => {
                record_failure(&*self.journal, &manifest.file, reason, detail).await;
                let outcome = FileOutcome::Failed {
                    reason: reason.to_string(),
                    way_out: detail.to_owned(),
                };
                self.report(manifest, 0.0, "", outcome).await;
            }
            Message::LegacyManifest(manifest) => {
                self.legacy.record_failure(manifest, reason, detail).await;
            }
            Message::Announcement(_) | Message::LegacyAnnouncement(_) | Message::S3Event(_) => {}
        }
    }
}

impl Decompressor {
    /// A decompressor with the usual limits.
    pub fn new(
        destination: Arc<dyn Files>,
        stream: Arc<dyn ChunkStream>,
        threads: usize,
        report: Option<Arc<ReportLog>>,
        journal: Arc<dyn FileJournal>,
    ) -> Self {
        Self {
            limits: hybrid::Limits::default(),
            threads,
            block_bytes: hybrid::DEFAULT_BLOCK_BYTES as u64,
            legacy: LegacyDecompressor {
                destination: destination.clone(),
                stream: stream.clone(),
                report: report.clone(),
                journal: journal.clone(),
            },
            destination,
            stream,
            report,
            journal,
        }
    }

    async fn restore_unless_present(
        &self,
        manifest: &Manifest,
        context: MessageContext<'_>,
    ) -> Result<(), HandlerError> {
        let file = &manifest.file;
        match context.or_stop(self.present(file)).await? {
            Present::Same => {
                context.record_wait(manifest.compressed_millis);
                info!("The file is restored already; skipped.");
                // The worker that made it visible may have been killed before it recorded that.
                let slot = context.slot.slot();
                self.report(manifest, 0.0, slot, FileOutcome::Restored)
                    .await;
                Ok(self.journal.record_restored(file.id().as_str()).await?)
            }
            Present::Newer => {
                context.record_wait(manifest.compressed_millis);
                self.skip_superseded(file).await
            }
            Present::Older => self.restore(manifest, context).await,
        }
    }

    async fn present(&self, file: &FileRef) -> Result<Present, HandlerError> {
        let (destination, wanted) = (self.destination.clone(), file.clone());
        blocking(move || -> io::Result<Present> {
            let Some(found) = destination.stat(&wanted.name)? else {
                return Ok(Present::Older);
            };
            if found.size == wanted.bytes && hash(destination.read(&wanted.name)?)?.0 == wanted.hash
            {
                return Ok(Present::Same);
            }
            Ok(match is_newer(&found, &wanted) {
                true => Present::Newer,
                false => Present::Older,
            })
        })
        .await
        .map_err(|error| stat_error(file, error))
    }

    async fn skip_superseded(&self, file: &FileRef) -> Result<(), HandlerError> {
        info!("A newer version is restored already; skipped.");
        Ok(self.journal.record_superseded(file.id().as_str()).await?)
    }

    /// Whether a newer version has become visible while this one was unpacked: a worker can receive this message when its
    /// visibility timeout ends, and then the next message of its group.
    async fn is_superseded(&self, file: &FileRef) -> Result<bool, HandlerError> {
        let (destination, wanted) = (self.destination.clone(), file.clone());
        let newer = blocking(move || -> io::Result<bool> {
            let found = destination.stat(&wanted.name)?;
            Ok(found.is_some_and(|found| is_newer(&found, &wanted)))
        });
        newer.await.map_err(|error| stat_error(file, error))
    }

    async fn restore(
        &self,
        manifest: &Manifest,
        context: MessageContext<'_>,
    ) -> Result<(), HandlerError> {
        let file = &manifest.file;
        let owner = RecordOwner::new(&file.id(), &manifest.attempt);
        let (payloads, fetched) = mpsc::channel::<Bytes>(16);
        // A small file's record is fetched before it takes a thread, so that the records of several files are requested at
        // once and no thread waits for the stream.
        let (threads, unfetched) = if is_small_packed(manifest, self.block_bytes) {
            let positions = self.positions(manifest, &owner).await?;
            context
                .or_stop(self.fetch_all(&owner, positions, payloads, context.meter))
                .await?;
            (context.one_thread().await?, None)
        } else {
            let threads = context.threads_for(file.bytes, self.block_bytes).await?;
            let positions = context.or_stop(self.positions(manifest, &owner)).await?;
            (threads, Some((positions, payloads)))
        };
        context.record_wait(manifest.compressed_millis);
        let started = Instant::now();
        let fetching = async {
            match unfetched {
                Some((positions, payloads)) => {
                    self.fetch_all(&owner, positions, payloads, context.meter)
                        .await
                }
                None => Ok(()),
            }
        };
        let pending = self.unpack(file, fetched, fetching, context).await?;
        context.meter.stage(Stage::Unpack, started.elapsed());
        // A file in a bucket stays in memory until it is visible, so a file that is not small keeps its thread until then.
        let _threads = (file.bytes > self.block_bytes / SMALL_PART).then_some(threads);
        if self.is_superseded(file).await? {
            return self.skip_superseded(file).await;
        }
        self.commit(file, pending, context).await?;
        context.count_restored(manifest.packed_bytes, file.bytes);
        let (seconds, slot) = (started.elapsed().as_secs_f64(), context.slot.slot());
        self.report(manifest, seconds, slot, FileOutcome::Restored)
            .await;
        self.journal.record_restored(file.id().as_str()).await?;
        info!(
            raw_bytes = file.bytes,
            packed_bytes = manifest.packed_bytes,
            "File restored."
        );
        Ok(())
    }

    /// Makes the file visible.
    async fn commit(
        &self,
        file: &FileRef,
        pending: Box<dyn PendingFile>,
        context: MessageContext<'_>,
    ) -> Result<(), HandlerError> {
        context.ensure_owner()?;
        let (modified, started) = (runtime::from_nanos(file.modified_nanos), Instant::now());
        let name = file.name.clone();
        blocking(move || pending.commit(modified))
            .await
            .map_err(|error| HandlerError::transient(error, format!("making {name} visible")))?;
        context.meter.stage(Stage::Commit, started.elapsed());
        Ok(())
    }

    /// The positions of the file's records, from the message or from the list that the message names.
    async fn positions(
        &self,
        manifest: &Manifest,
        owner: &RecordOwner,
    ) -> Result<Vec<Position>, HandlerError> {
        let list = match &manifest.records {
            Records::Inline(positions) => return Ok(positions.clone()),
            Records::Indirect(list) => list,
        };
        let too_long = || {
            HandlerError::permanent(
                DeadLetterReason::UnreadableMessage,
                "the list of records is longer than 64 MiB",
            )
        };
        let list_bytes: u64 = list.iter().map(|at| u64::from(at.bytes)).sum();
        if list_bytes > LONGEST_LIST_BYTES {
            return Err(too_long());
        }
        let (mut json, mut index) = (Vec::new(), 0);
        let mut rest = list.as_slice();
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(batch_len(rest));
            rest = after;
            for record in self.stream.fetch(batch).await? {
                json.extend_from_slice(&open(owner, index, &record)?);
                index += 1;
            }
            // Positions may say that their records are smaller than they are.
            if json.len() as u64 > LONGEST_LIST_BYTES {
                return Err(too_long());
            }
        }
        serde_json::from_slice(&json).map_err(|error| {
            let detail = format!("the list of records: {error}");
            HandlerError::permanent(DeadLetterReason::RecordDamaged, detail)
        })
    }

    /// Unpacks and writes what `fetching` sends to `payloads`; returns the whole file, checked and not yet visible.
    async fn unpack(
        &self,
        file: &FileRef,
        payloads: mpsc::Receiver<Bytes>,
        fetching: impl Future<Output = Result<(), HandlerError>>,
        context: MessageContext<'_>,
    ) -> Result<Box<dyn PendingFile>, HandlerError> {
        let cancel = Arc::new(AtomicBool::new(false));
        let unpacking = self.unpack_blocks(file, payloads, cancel.clone());
        // It may end before the work is stopped.
        let mut unpacking = std::pin::pin!(maybe_done(unpacking));
        let both = async { tokio::join!(unpacking.as_mut(), fetching).1 };
        let fetched = tokio::select! {
            fetched = both => fetched,
            () = context.stop.cancelled() => {
                // Fetching may take long and is not waited for; the unfinished file is removed.
                cancel.store(true, Ordering::Relaxed);
                unpacking.await;
                return Err(HandlerError::Interrupted);
            }
        };
        fetched?;
        let Some(unpacked) = unpacking.take_output() else {
            return Err(HandlerError::Interrupted);
        };
        let (pending, summary) = unpacked.map_err(|error| unpack_error(file, error))?;
        if summary.raw_bytes != file.bytes || Digest::from(summary.hash) != file.hash {
            let detail = format!(
                "{} has another hash after unpacking than it was announced with; nothing was written; redrive announces the source again",
                file.name
            );
            return Err(HandlerError::permanent(
                DeadLetterReason::HashMismatch,
                detail,
            ));
        }
        Ok(pending)
    }

    /// Unpacks on a blocking thread into a file that is not visible yet.
    async fn unpack_blocks(
        &self,
        file: &FileRef,
        payloads: mpsc::Receiver<Bytes>,
        cancel: Arc<AtomicBool>,
    ) -> Result<(Box<dyn PendingFile>, hybrid::Summary), streampress_codec::CodecError> {
        let (destination, name) = (self.destination.clone(), file.name.clone());
        let (limits, threads) = (self.limits, self.threads);
        let modified = runtime::from_nanos(file.modified_nanos);
        blocking(move || {
            let mut pending = destination
                .create_version(&name, modified)
                .map_err(streampress_codec::CodecError::Write)?;
            let reader = ChannelReader {
                payloads,
                current: Bytes::new(),
            };
            let summary = hybrid::unpack(reader, &mut pending, &limits, threads, &cancel)?;
            pending
                .flush()
                .map_err(streampress_codec::CodecError::Write)?;
            Ok((pending, summary))
        })
        .await
    }

    async fn fetch_all(
        &self,
        owner: &RecordOwner,
        positions: Vec<Position>,
        payloads: mpsc::Sender<Bytes>,
        meter: &Meter,
    ) -> Result<(), HandlerError> {
        let mut index = 0;
        let mut rest = positions.as_slice();
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(batch_len(rest));
            rest = after;
            for record in self.stream.fetch(batch).await? {
                meter.moved();
                let payload = open(owner, index, &record)?;
                index += 1;
                if payloads.send(payload).await.is_err() {
                    // Unpacking ended early and has the error.
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Adds the file's row to the report, where there is one. Its times span from one message to the next.
    async fn report(
        &self,
        manifest: &Manifest,
        seconds_restore: f64,
        slot: &str,
        outcome: FileOutcome,
    ) {
        let Some(report) = &self.report else {
            return;
        };
        let file = &manifest.file;
        let row = ReportRow {
            file_id: file.id().as_str().to_owned(),
            name: file.name.as_str().to_owned(),
            format: format_of(file.name.as_str()),
            raw_bytes: file.bytes,
            packed_bytes: manifest.packed_bytes,
            records: manifest.records.positions().len() as u64,
            stages: manifest.stages.clone(),
            codec_shares: manifest.shares.clone(),
            announced_at_millis: Some(manifest.announced_millis),
            compressed_at_millis: Some(manifest.compressed_millis),
            restored_at_millis: Some(runtime::now_millis()),
            seconds_compress: manifest.stages.iter().map(|stage| stage.seconds).sum(),
            seconds_restore,
            outcome,
            slot: slot.to_owned(),
        };
        report.add(row).await;
    }
}

/// How many of the next records are fetched in one call; at least one.
fn batch_len(positions: &[Position]) -> usize {
    let mut bytes = 0;
    let fits = positions.iter().take_while(|position| {
        bytes += match position.bytes {
            0 => UNKNOWN_BYTES,
            known => u64::from(known),
        };
        bytes <= BATCH_BYTES
    });
    fits.count().clamp(1, BATCH_RECORDS)
}

fn open(owner: &RecordOwner, index: u32, record: &Bytes) -> Result<Bytes, HandlerError> {
    owner
        .open(index, record)
        .map_err(|error| HandlerError::permanent(DeadLetterReason::RecordDamaged, error))
}

fn is_newer(found: &FileEntry, wanted: &FileRef) -> bool {
    runtime::nanos(found.modified) > wanted.modified_nanos
}

fn stat_error(file: &FileRef, error: io::Error) -> HandlerError {
    HandlerError::transient(error, format!("looking at the restored {}", file.name))
}

fn unpack_error(file: &FileRef, error: streampress_codec::CodecError) -> HandlerError {
    match error {
        streampress_codec::CodecError::Cancelled => HandlerError::Interrupted,
        streampress_codec::CodecError::Write(error) => {
            HandlerError::transient(error, format!("writing {}", file.name))
        }
        error => HandlerError::permanent(
            DeadLetterReason::BadFrame,
            format!("{}: {error:#}", file.name),
        ),
    }
}

/// Reads the payloads as one stream of bytes; ends when the fetching side is done or failed.
struct ChannelReader {
    payloads: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.payloads.blocking_recv() {
                Some(payload) => self.current = payload,
                None => return Ok(0),
            }
        }
        let bytes = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..bytes]);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use parking_lot::Mutex;
    use streampress_crds::Role;
    use streampress_crds::api::pipeline::{OnCompressed, SourceFormat};
    use streampress_transport::in_process_lock::InProcessLock;
    use streampress_transport::local::files::LocalFiles;
    use streampress_transport::local::{Local, LocalOptions};
    use streampress_transport::{
        FileName, Queue, Record, StreamCounts, TransportError, TransportResult,
    };
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::consume::Consumer;
    use crate::journal::NoJournal;
    use crate::message::parse_count;
    use crate::roles::announce::{AnnouncementFormat, Announcer};
    use crate::roles::compress::Compressor;
    use crate::roles::source::SourceFilter;

    fn position(bytes: u32) -> Position {
        Position {
            shard: "0".into(),
            sequence: 1.into(),
            bytes,
        }
    }

    #[test]
    fn records_are_fetched_in_batches_of_bounded_bytes_and_number() {
        for (bytes, count, batch) in [
            (1 << 20, 9, 4),
            (5 << 20, 3, 1),
            (1, 100, BATCH_RECORDS),
            (0, 100, 1),
            (u32::MAX, 2, 1),
        ] {
            assert_eq!(batch_len(&vec![position(bytes); count]), batch, "{bytes}");
        }
    }

    /// Answers every position with a record of this many bytes of a list; remembers the most that were fetched at once.
    #[derive(Debug)]
    struct ListStream {
        owner: RecordOwner,
        payload: Vec<u8>,
        fetched: Mutex<Vec<usize>>,
    }

    impl ListStream {
        fn new(owner: &RecordOwner, payload_bytes: usize) -> Arc<Self> {
            Arc::new(Self {
                owner: owner.clone(),
                payload: vec![b' '; payload_bytes],
                fetched: Mutex::default(),
            })
        }
    }

    #[async_trait]
    impl ChunkStream for ListStream {
        fn max_record_bytes(&self) -> usize {
            1 << 20
        }
        async fn append(&self, _: Vec<Record>) -> TransportResult<Vec<Position>> {
            Err(TransportError::Stale)
        }
        async fn fetch(&self, positions: &[Position]) -> TransportResult<Vec<Bytes>> {
            let mut fetched = self.fetched.lock();
            let first = fetched.iter().sum::<usize>();
            fetched.push(positions.len());
            let indices = (first..first + positions.len()).map(|i| u32::try_from(i).expect("few"));
            Ok(indices
                .map(|index| self.owner.seal(index, &self.payload, None))
                .collect())
        }
        fn counts(&self) -> StreamCounts {
            StreamCounts::default()
        }
    }

    /// Why a list of `count` records, each said to have `said_bytes` bytes, cannot be used; and what was fetched of it.
    async fn list_error(
        count: usize,
        said_bytes: u32,
        payload_bytes: usize,
    ) -> (DeadLetterReason, Vec<usize>) {
        let root = tempfile::tempdir().expect("a folder");
        let file = FileRef {
            location: "file:///data/in".into(),
            name: FileName::parse("a.txt").expect("a valid name"),
            bytes: 1,
            hash: Digest::of(b"1"),
            modified_nanos: 0,
        };
        let manifest = Manifest {
            version: crate::message::VERSION,
            file: file.clone(),
            attempt: "attempt".into(),
            records: Records::Indirect(vec![position(said_bytes); count]),
            packed_bytes: 1,
            stages: Vec::new(),
            shares: Vec::new(),
            announced_millis: 0,
            compressed_millis: 0,
            traceparent: None,
        };
        let owner = RecordOwner::new(&file.id(), &manifest.attempt);
        let stream = ListStream::new(&owner, payload_bytes);
        let journal = Arc::new(NoJournal);
        let decompressor = Decompressor::new(files(root.path()), stream.clone(), 1, None, journal);
        match decompressor.positions(&manifest, &owner).await {
            Err(HandlerError::Permanent { reason, .. }) => (reason, stream.fetched.lock().clone()),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_list_of_records_is_fetched_in_batches_and_no_longer_than_a_list_may_be() {
        let (reason, fetched) = list_error(600, 100, 100).await;
        assert_eq!(
            reason,
            DeadLetterReason::RecordDamaged,
            "spaces are no list"
        );
        assert_eq!(fetched.iter().sum::<usize>(), 600);
        assert!(
            fetched.iter().all(|batch| *batch <= BATCH_RECORDS),
            "{fetched:?}"
        );
        // Its positions say that it is short.
        let (reason, fetched) = list_error(600, 1, 1 << 20).await;
        assert_eq!(reason, DeadLetterReason::UnreadableMessage);
        assert_eq!(fetched, [BATCH_RECORDS, BATCH_RECORDS]);
    }

    fn files(folder: &Path) -> Arc<dyn Files> {
        Arc::new(LocalFiles::open("file:///data", folder).expect("opens"))
    }

    /// Packs the source's file into records of 100 bytes.
    fn compressor(local: &Local, source: Arc<dyn Files>) -> Compressor {
        Compressor {
            announcer: Announcer {
                source,
                files_queue: local.files_queue(),
                strict: false,
                format: AnnouncementFormat::Native,
                journal: Arc::new(NoJournal),
            },
            stream: local.stream(),
            chunks_queue: local.chunks_queue(),
            options: hybrid::CodecOptions {
                effort: hybrid::Effort::Fast,
                ..hybrid::CodecOptions::default()
            },
            record_bytes: 100,
            on_compressed: OnCompressed::Keep,
            filter: SourceFilter {
                formats: vec![SourceFormat::Txt],
                skips_renamed: false,
            },
            journal: Arc::new(NoJournal),
        }
    }

    /// Works until the queue's one message is acknowledged.
    async fn consume_one(role: Role, queue: Arc<dyn Queue>, handler: Arc<dyn Handler>) {
        let (meter, shutdown) = (Meter::default(), CancellationToken::new());
        let consumer = Consumer {
            role,
            queue,
            lock: Arc::new(InProcessLock::new(role.as_str(), 1)),
            handler,
            threads: 1,
            strict: false,
            interval: Duration::from_secs(1),
            linger: Duration::from_millis(1),
            max_receive_count: 20,
            meter: meter.clone(),
            shutdown: shutdown.clone(),
        };
        let acknowledged = async {
            while meter.counts().acknowledged == 0 {
                tokio::task::yield_now().await;
            }
            shutdown.cancel();
        };
        tokio::join!(consumer.run(), acknowledged);
    }

    #[tokio::test]
    async fn a_manifest_of_200_kb_is_parsed_once_on_its_way_through_a_decompressor() {
        let root = tempfile::tempdir().expect("a folder");
        let local = Local::open(&root.path().join("data"), LocalOptions::default()).expect("opens");
        let (source, destination) = (
            files(&root.path().join("in")),
            files(&root.path().join("out")),
        );
        let content: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
            .take(128_000)
            .collect();
        std::fs::write(root.path().join("in/a.txt"), &content).expect("written");
        let name = FileName::parse("a.txt").expect("a valid name");
        let compressor = compressor(&local, source.clone());
        let entry = source.stat(&name).expect("looked").expect("there");
        let announced = compressor.announcer.announce(&entry).await;
        announced.expect("announced");
        consume_one(Role::Compressor, local.files_queue(), Arc::new(compressor)).await;
        assert_eq!(parse_count::get(), 1, "the announcement");

        let chunks = local.chunks_queue();
        let deliveries = chunks.receive(1, Duration::ZERO).await.expect("received");
        let manifest_bytes = deliveries[0].body.len();
        assert!(
            (180_000..210_000).contains(&manifest_bytes),
            "{manifest_bytes}"
        );
        let released = chunks.release(&deliveries[0].receipt).await;
        released.expect("released");
        let journal = Arc::new(NoJournal);
        let decompressor = Decompressor::new(destination, local.stream(), 1, None, journal);
        consume_one(Role::Decompressor, chunks, Arc::new(decompressor)).await;
        let restored = std::fs::read(root.path().join("out/a.txt")).expect("restored");
        assert!(restored == content);
        assert_eq!(parse_count::get(), 2, "the announcement and the manifest");
    }
}
