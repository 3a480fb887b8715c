//! The decompressor: one manifest in, the same file out.
//!
//! It takes exactly the records that the manifest names, and accepts a file only by its hash. The file is written under a
//! temporary name, checked as a whole, then made visible, unless the [`Destination`] says that a newer version was.

use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::maybe_done;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::consume::batching::{is_small, is_small_packed, is_small_source};
use crate::consume::{Handled, Handler, HandlerError, MessageContext, ServiceOutage};
use crate::destination::{self, Destination, PlacedVersion, Wanted};
use crate::journal::FileJournal;
use crate::legacy::decompressor::LegacyDecompressor;
use crate::message::{BundlePlace, FileRef, Manifest, Message};
use crate::report::log::ReportLog;
use crate::report::{FileOutcome, ReportRow, format_of};
use crate::roles::announce::source_missing;
use crate::roles::bundle_cache::BundleCache;
use crate::roles::compress::record_failure;
use crate::roles::probe;
use crate::roles::receipts::ReceiptSender;
use crate::roles::record_faults::RecordFaults;
use crate::roles::records::{self, PayloadReader};
use crate::runtime::{self, blocking};
use crate::telemetry::metrics::Stage;
use streampress_codec::{CodecError, hybrid};
use streampress_transport::{ChunkStream, Failure, FileVersion, PendingFile};

/// Unpacked bundles of files that are still to come take the memory of so many blocks.
const CACHED_BLOCKS: u64 = 2;

/// The decompressor's work; it takes manifests of both formats.
#[derive(Debug)]
pub struct Decompressor {
    /// Where files are restored.
    pub destination: Destination,
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
    /// Tells the source's side what became of each file, where the pipeline has receipts.
    pub receipts: Option<ReceiptSender>,
    legacy: LegacyDecompressor,
    record_faults: RecordFaults,
    bundles: BundleCache,
}

#[async_trait]
impl Handler for Decompressor {
    async fn handle(
        &self,
        message: &Message,
        context: MessageContext<'_>,
    ) -> Result<Handled, HandlerError> {
        let message_id = &context.delivery.message_id;
        match message {
            Message::Manifest(manifest) => {
                let restored = self.restore(manifest, context).await;
                let restored = self.record_faults.judge(message_id, restored);
                self.send_receipt(manifest, restored, context).await?;
            }
            Message::LegacyManifest(manifest) => {
                let restored = self.legacy.restore(manifest, context).await;
                self.record_faults.judge(message_id, restored)?;
            }
            Message::Announcement(_)
            | Message::LegacyAnnouncement(_)
            | Message::S3Event(_)
            | Message::Receipt(_) => return Err(HandlerError::unexpected(message)),
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
            | Message::S3Event(_)
            | Message::Receipt(_) => 0,
        }
    }

    async fn probe(&self, _failed: Option<&Message>, bytes: u64) -> Result<bool, ServiceOutage> {
        self.destination.confirm_owner().await?;
        probe::destination(self.destination.files(), bytes).await?;
        probe::fetch(&*self.stream).await?;
        Ok(true)
    }

    async fn on_dead_lettered(&self, message: &Message, failure: &Failure) {
        match message {
            Message::Manifest(manifest) => {
                if manifest.has_records() {
                    self.record_received(manifest).await;
                }
                record_failure(&*self.journal, &manifest.file, failure).await;
                let outcome = failure.into();
                self.report(manifest, 0.0, "", outcome).await;
            }
            Message::LegacyManifest(manifest) => {
                self.legacy.record_failure(manifest, failure).await;
            }
            Message::Announcement(_)
            | Message::LegacyAnnouncement(_)
            | Message::S3Event(_)
            | Message::Receipt(_) => {}
        }
    }

    async fn background(&self) -> Infallible {
        match &self.receipts {
            Some(receipts) => receipts.send_kept().await,
            None => std::future::pending().await,
        }
    }

    async fn end(&self) {
        if let Some(receipts) = &self.receipts {
            receipts.end().await;
        }
    }
}

impl Decompressor {
    /// A decompressor with the usual limits.
    pub fn new(
        destination: Destination,
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
            receipts: None,
            record_faults: RecordFaults::default(),
            bundles: BundleCache::new(CACHED_BLOCKS * hybrid::DEFAULT_BLOCK_BYTES as u64),
        }
    }

    /// Sends the file's receipt, or the request to send the file again where its records cannot be used.
    async fn send_receipt(
        &self,
        manifest: &Manifest,
        restored: Result<PlacedVersion, HandlerError>,
        context: MessageContext<'_>,
    ) -> Result<(), HandlerError> {
        let Some(receipts) = &self.receipts else {
            return restored.map(drop);
        };
        let version = version_of(manifest, context);
        match restored {
            Ok(placed) => {
                let is_restored = placed != PlacedVersion::Superseded;
                receipts
                    .report(manifest, version, is_restored, context)
                    .await
            }
            Err(HandlerError::Permanent(why)) if why.reason.is_of_records() => {
                receipts.ask_again(manifest, version, why, context).await?;
                context.count_sent_again();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn restore(
        &self,
        manifest: &Manifest,
        context: MessageContext<'_>,
    ) -> Result<PlacedVersion, HandlerError> {
        if !manifest.has_records() {
            return self.confirm(manifest, context).await;
        }
        let wanted = Wanted::new(
            &manifest.file,
            version_of(manifest, context),
            manifest.observed.as_ref(),
        );
        match self.place_without_content(&wanted, context).await? {
            PlacedVersion::NeedsContent | PlacedVersion::Written => {
                self.unpack_and_place(manifest, &wanted, context).await
            }
            placed => {
                context.record_wait(manifest.compressed_millis);
                self.conclude(manifest, placed, 0.0, context).await
            }
        }
    }

    /// What becomes of the version where its content is not fetched.
    async fn place_without_content(
        &self,
        wanted: &Wanted,
        context: MessageContext<'_>,
    ) -> Result<PlacedVersion, HandlerError> {
        let checking = self.destination.needs_content(wanted);
        match context.or_stop(checking).await? {
            true => Ok(PlacedVersion::NeedsContent),
            false => self.destination.place(wanted, None, context).await,
        }
    }

    /// The manifest has no records, because the file was no longer at its source: the file is missing unless it is here.
    async fn confirm(
        &self,
        manifest: &Manifest,
        context: MessageContext<'_>,
    ) -> Result<PlacedVersion, HandlerError> {
        let file = &manifest.file;
        let wanted = Wanted::new(
            file,
            version_of(manifest, context),
            manifest.observed.as_ref(),
        );
        match self.place_without_content(&wanted, context).await? {
            PlacedVersion::NeedsContent | PlacedVersion::Written => {
                Err(source_missing(&file.name, &file.location))
            }
            placed @ (PlacedVersion::Adopted | PlacedVersion::Superseded) => {
                self.conclude(manifest, placed, 0.0, context).await
            }
            // It was counted when it was restored.
            PlacedVersion::InPlace => {
                info!("The source file is gone and was restored before; skipped.");
                Ok(PlacedVersion::InPlace)
            }
        }
    }

    /// Records what became of the file.
    async fn conclude(
        &self,
        manifest: &Manifest,
        placed: PlacedVersion,
        seconds: f64,
        context: MessageContext<'_>,
    ) -> Result<PlacedVersion, HandlerError> {
        let file = &manifest.file;
        match placed {
            PlacedVersion::Superseded => {
                info!("A later announcement of the file was restored already; skipped.");
                context.count_superseded();
                let id = file.id();
                let (id, packed_bytes) = (id.as_str(), manifest.packed_bytes);
                self.journal.record_received(id, packed_bytes).await?;
                self.journal.record_superseded(id).await?;
                // The page has its counts from the journal.
                let slot = context.slot.slot();
                self.report(manifest, seconds, slot, FileOutcome::Superseded)
                    .await;
                return Ok(placed);
            }
            // Content was given.
            PlacedVersion::NeedsContent => return Err(HandlerError::Interrupted),
            PlacedVersion::Written => {
                context.count_restored(manifest.packed_bytes, file.bytes);
                info!(
                    raw_bytes = file.bytes,
                    packed_bytes = manifest.packed_bytes,
                    "File restored."
                );
            }
            PlacedVersion::Adopted => {
                context.count_restored(manifest.packed_bytes, file.bytes);
                info!("The same bytes are at the destination already; nothing was written.");
            }
            PlacedVersion::InPlace => info!("The file is restored already; skipped."),
        }
        let (id, packed_bytes) = (file.id(), manifest.packed_bytes);
        self.journal
            .record_restored(id.as_str(), packed_bytes)
            .await?;
        let slot = context.slot.slot();
        self.report(manifest, seconds, slot, FileOutcome::Restored)
            .await;
        Ok(placed)
    }

    async fn unpack_and_place(
        &self,
        manifest: &Manifest,
        wanted: &Wanted,
        context: MessageContext<'_>,
    ) -> Result<PlacedVersion, HandlerError> {
        let file = &manifest.file;
        if let Some(place) = &manifest.bundle {
            return self.take_and_place(manifest, place, wanted, context).await;
        }
        let owner = manifest.record_owner();
        let (payloads, fetched) = mpsc::channel::<Bytes>(records::WAITING_PAYLOADS);
        // A small file's record is fetched before it takes a thread, so that the records of several files are requested at
        // once and no thread waits for the stream.
        let (threads, unfetched) = if is_small_packed(manifest, self.block_bytes) {
            let positions = records::positions(&*self.stream, manifest, &owner).await?;
            context
                .or_stop(records::fetch_all(
                    &*self.stream,
                    &owner,
                    positions,
                    payloads,
                    context.meter,
                ))
                .await?;
            (context.one_thread().await?, None)
        } else {
            let threads = context.threads_for(file.bytes, self.block_bytes).await?;
            let positions = context
                .or_stop(records::positions(&*self.stream, manifest, &owner))
                .await?;
            (threads, Some((positions, payloads)))
        };
        context.record_wait(manifest.compressed_millis);
        let started = Instant::now();
        let fetching = async {
            match unfetched {
                Some((positions, payloads)) => {
                    records::fetch_all(&*self.stream, &owner, positions, payloads, context.meter)
                        .await
                }
                None => Ok(()),
            }
        };
        let pending = self
            .unpack(file, wanted, (fetched, fetching), context)
            .await?;
        context.meter.stage(Stage::Unpack, started.elapsed());
        // A file in a bucket stays in memory until it is visible, so a file that is not small keeps its thread until then.
        let _threads = (!is_small_source(file, self.block_bytes)).then_some(threads);
        self.place(manifest, wanted, (pending, started), context)
            .await
    }

    /// Makes the unpacked file visible; the work on it began at `started`.
    async fn place(
        &self,
        manifest: &Manifest,
        wanted: &Wanted,
        (pending, started): (Box<dyn PendingFile>, Instant),
        context: MessageContext<'_>,
    ) -> Result<PlacedVersion, HandlerError> {
        let placing = Instant::now();
        let placed = self
            .destination
            .place(wanted, Some(pending), context)
            .await?;
        context.meter.stage(Stage::Commit, placing.elapsed());
        let seconds = started.elapsed().as_secs_f64();
        self.conclude(manifest, placed, seconds, context).await
    }

    /// Takes the file from its bundle.
    async fn take_and_place(
        &self,
        manifest: &Manifest,
        place: &BundlePlace,
        wanted: &Wanted,
        context: MessageContext<'_>,
    ) -> Result<PlacedVersion, HandlerError> {
        context.record_wait(manifest.compressed_millis);
        let started = Instant::now();
        let unpacking = self.unpack_bundle(manifest, place, context);
        let bundle = self.bundles.content(manifest, place, unpacking);
        let bundle = context.or_stop(bundle).await?;
        let pending = self.write_part(manifest, place, wanted, bundle).await?;
        context.meter.stage(Stage::Unpack, started.elapsed());
        self.place(manifest, wanted, (pending, started), context)
            .await
    }

    /// Fetches and unpacks the file's bundle.
    async fn unpack_bundle(
        &self,
        manifest: &Manifest,
        place: &BundlePlace,
        context: MessageContext<'_>,
    ) -> Result<Bytes, HandlerError> {
        let fetching = records::fetch_bundle(&*self.stream, manifest, place, context.meter);
        let packed = context.or_stop(fetching).await?;
        let thread = context.threads_for(place.bytes, self.block_bytes).await?;
        let (name, place) = (manifest.file.name.clone(), place.clone());
        context.meter.bundle_unpacked();
        blocking(move || {
            let _thread = thread;
            records::unpack_bundle(&name, &place, &packed)
        })
        .await
    }

    /// Writes the file's part of its bundle; returns the whole file, checked and not yet visible.
    async fn write_part(
        &self,
        manifest: &Manifest,
        place: &BundlePlace,
        wanted: &Wanted,
        bundle: Bytes,
    ) -> Result<Box<dyn PendingFile>, HandlerError> {
        let (destination, wanted) = (self.destination.clone(), wanted.clone());
        let (file, place) = (manifest.file.clone(), place.clone());
        blocking(move || {
            let parts = records::bundled_content(&file, &bundle, &place)?;
            let write = || -> io::Result<_> {
                let mut pending = destination.create(&wanted)?;
                for part in parts {
                    pending.write_all(part)?;
                }
                pending.flush()?;
                Ok(pending)
            };
            write().map_err(|error| destination::fault(error, "writing", &wanted))
        })
        .await
    }

    /// Unpacks and writes what `fetching` sends to `payloads`; returns the whole file, checked and not yet visible.
    async fn unpack(
        &self,
        file: &FileRef,
        wanted: &Wanted,
        (payloads, fetching): (
            mpsc::Receiver<Bytes>,
            impl Future<Output = Result<(), HandlerError>>,
        ),
        context: MessageContext<'_>,
    ) -> Result<Box<dyn PendingFile>, HandlerError> {
        let cancel = Arc::new(AtomicBool::new(false));
        let unpacking = self.unpack_blocks(file, wanted, payloads, cancel.clone());
        // It may end before the work is stopped.
        let mut unpacking = std::pin::pin!(maybe_done(unpacking));
        let both = async { tokio::join!(unpacking.as_mut(), fetching).1 };
        let fetched = tokio::select! {
            biased;
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
        let (pending, summary) = unpacked.map_err(|error| match error {
            CodecError::Write(error) => destination::fault(error, "writing", wanted),
            error => records::unpack_error(file, error),
        })?;
        records::check_content(file, &summary)?;
        Ok(pending)
    }

    /// Unpacks on a blocking thread into a file that is not visible yet.
    async fn unpack_blocks(
        &self,
        file: &FileRef,
        wanted: &Wanted,
        payloads: mpsc::Receiver<Bytes>,
        cancel: Arc<AtomicBool>,
    ) -> Result<(Box<dyn PendingFile>, hybrid::Summary), CodecError> {
        let (destination, wanted) = (self.destination.clone(), wanted.clone());
        let limits = records::limits_of(file.bytes, self.limits);
        let threads = self.threads;
        blocking(move || {
            let mut pending = destination.create(&wanted).map_err(CodecError::Write)?;
            let reader = PayloadReader::new(payloads);
            let summary = hybrid::unpack(reader, &mut pending, &limits, threads, &cancel)?;
            pending.flush().map_err(CodecError::Write)?;
            Ok((pending, summary))
        })
        .await
    }

    /// Adds the file's row to the report, where there is one. Its times span from one message to the next.
    async fn record_received(&self, manifest: &Manifest) {
        let id = manifest.file.id();
        let recorded = self
            .journal
            .record_received(id.as_str(), manifest.packed_bytes);
        if let Err(error) = recorded.await {
            warn!(%error, "Could not record that a failed file was packed in the journal.");
        }
    }

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
            records: match &manifest.bundle {
                Some(place) if place.offset > place.prefix => 0,
                Some(_) | None => manifest.records.positions().len() as u64,
            },
            packed_with: manifest
                .bundle
                .as_ref()
                .map_or(0, |place| u64::from(place.files.saturating_sub(1))),
            effort: manifest.effort.clone(),
            stages: manifest.stages.clone(),
            codec_shares: manifest.shares.clone(),
            announced_at_millis: Some(manifest.announced_millis),
            compressed_at_millis: manifest.has_records().then_some(manifest.compressed_millis),
            restored_at_millis: Some(runtime::now_millis()),
            seconds_compress: manifest.stages.iter().map(|stage| stage.seconds).sum(),
            seconds_restore,
            outcome,
            is_normalised: false,
            slot: slot.to_owned(),
        };
        report.add(row).await;
    }
}

/// The version that the manifest is about. One of an earlier release counts by its own place in the queue.
fn version_of(manifest: &Manifest, context: MessageContext<'_>) -> FileVersion {
    let version = manifest.file_version.clone();
    version.unwrap_or_else(|| context.delivery.version())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use streampress_crds::Role;
    use streampress_crds::api::pipeline::{OnCompressed, OnRestored, SourceFormat};
    use streampress_transport::in_process_lock::InProcessLock;
    use streampress_transport::local::files::LocalFiles;
    use streampress_transport::local::{Local, LocalOptions};
    use streampress_transport::{FileName, Files, Queue};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::consume::Consumer;
    use crate::journal::NoJournal;
    use crate::message::parse_count;
    use crate::roles::announce::{AnnouncementFormat, Announcer};
    use crate::roles::compress::Compressor;
    use crate::roles::source::{SettleTime, SourceFilter};
    use crate::telemetry::metrics::Meter;

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
            format_version: Default::default(),
            plans: Arc::default(),
            bundler: None,
            record_bytes: 105,
            on_compressed: OnCompressed::Keep,
            on_restored: OnRestored::Keep,
            spared: None,
            settle: SettleTime::default(),
            filter: SourceFilter {
                formats: vec![SourceFormat::Txt],
                skips_renamed: false,
            },
            journal: Arc::new(NoJournal),
            report: None,
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
        let entry = source.stat(&name).expect("read").expect("there");
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
        let destination =
            Destination::with_own_journal(destination, Some(&root.path().join("out")));
        let decompressor = Decompressor::new(destination, local.stream(), 1, None, journal);
        consume_one(Role::Decompressor, chunks, Arc::new(decompressor)).await;
        let restored = std::fs::read(root.path().join("out/a.txt")).expect("restored");
        assert!(restored == content);
        assert_eq!(parse_count::get(), 2, "the announcement and the manifest");
    }
}
