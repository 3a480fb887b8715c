//! The compressor: one announced file in, records on the stream and one manifest out.
//!
//! The file is packed block by block while it is read, and the packed bytes go to the stream as they come, so memory does
//! not grow with the file. Its content is hashed meanwhile: a source that differs from its announcement is never sent
//! under the announced name and version. A small file is read whole first, and may be packed together with others.

use std::convert::Infallible;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::maybe_done;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::consume::batching::{MAX_SMALL_IN_PROGRESS, is_small, is_small_source};
use crate::consume::{Handled, Handler, HandlerError, MessageContext, ServiceOutage};
use crate::journal::{FileJournal, SourceState};
use crate::message::record::RecordOwner;
use crate::message::{
    Announcement, DESCRIBED_VERSION, DeadLetterReason, DescribedContent, DescribedFile, Digest,
    FileRef, LegacyAnnouncement, MISSING_VERSION, Manifest, Message, VERSION,
};
use crate::report::log::ReportLog;
use crate::report::{FileOutcome, ReportRow};
use crate::roles::announce::{
    self, Announcer, TooEarly, is_of_other_bucket, source_missing, trace_attributes,
};
use crate::roles::bundler::{self, BlockPacker, Bundler, Member, MemberReading};
use crate::roles::copies::find_put_aside;
use crate::roles::packed_source::PackedSource;
use crate::roles::probe;
use crate::roles::record_writer::{PackedPart, RecordWriter};
use crate::roles::source::{
    SettleTime, SourceFilter, SparedSources, announce_event, apply_on_compressed, is_generated,
};
use crate::roles::{receipts, replies};
use crate::runtime::{self, blocking};
use crate::telemetry::metrics::Stage;
use crate::telemetry::trace;
use streampress_codec::{FormatVersion, hybrid};
use streampress_crds::api::pipeline::{OnCompressed, OnRestored};
use streampress_transport::{
    ATTR_VERSION, ChunkStream, Delivery, Failure, FileEntry, FileName, Outgoing, Position, Queue,
    TransportResult,
};

/// Between two writes of the receipts that were taken meanwhile: far less than a queue must be empty to count as lost.
const FLUSH_INTERVAL: Duration = Duration::from_secs(5);

/// The compressor's work, format Hybrid.
#[derive(Debug)]
pub struct Compressor {
    /// Where files are read, and how a changed one is announced anew.
    pub announcer: Announcer,
    /// Where records go.
    pub stream: Arc<dyn ChunkStream>,
    /// Where manifests go.
    pub chunks_queue: Arc<dyn Queue>,
    /// How files are packed.
    pub options: hybrid::CodecOptions,
    /// The version of the format that is written.
    pub format_version: FormatVersion,
    /// What packing learned from the files before.
    pub plans: Arc<hybrid::PlanStore>,
    /// Packs small files that are in progress at the same time into one block; `None`: each file alone.
    pub bundler: Option<Bundler>,
    /// Largest record with its header, in bytes.
    pub record_bytes: usize,
    /// What becomes of the source once it is packed.
    pub on_compressed: OnCompressed,
    /// What becomes of the source once it was restored.
    pub on_restored: OnRestored,
    /// Whose sources stay all the same, where a run compares restored files with the destination.
    pub spared: Option<SparedSources>,
    /// How long a source must have held still before it is deleted.
    pub settle: SettleTime,
    /// Which files of a bucket's events are taken.
    pub filter: SourceFilter,
    /// Where files' progress is recorded.
    pub journal: Arc<dyn FileJournal>,
    /// The report that names files which were not packed, where one is wanted and can be written here.
    pub report: Option<Arc<ReportLog>>,
}

/// With `ordering: Strict`, a file that changed is announced anew this long after its announcement at the earliest.
const STRICT_PAUSE: Duration = Duration::from_secs(1);

/// Fails where the file was announced from another bucket or prefix than this compressor reads.
fn ensure_announced_from(location: &str, file: &FileRef) -> Result<(), HandlerError> {
    if !is_of_other_bucket(file, location) {
        return Ok(());
    }
    Err(HandlerError::permanent(
        DeadLetterReason::SourceMissing,
        format!(
            "{} was announced from {}, and this compressor reads {location}: give each pipeline queues of its own, or correct \
             source.location, then 'streampress redrive' with the FILE whose source it is, and --aws",
            file.name, file.location
        ),
    ))
}

#[async_trait]
impl Handler for Compressor {
    async fn handle(
        &self,
        message: &Message,
        context: MessageContext<'_>,
    ) -> Result<Handled, HandlerError> {
        match message {
            Message::S3Event(event) => {
                announce_event(&self.announcer, &self.filter, event).await?;
                Ok(Handled::default())
            }
            Message::Announcement(announcement) => {
                let packed = self.compress(announcement, context).await?;
                Ok(Handled {
                    packed_source: packed.then(|| announcement.file.clone()),
                })
            }
            Message::LegacyAnnouncement(legacy) => {
                let announcement = self.identify(legacy).await?;
                self.compress(&announcement, context).await?;
                Ok(Handled::default())
            }
            Message::Receipt(receipt) => {
                let action = (self.action_on_receipt(), self.settle);
                let spared = self.spared.as_ref();
                receipts::take(&self.announcer, action, spared, receipt, context).await?;
                Ok(Handled::default())
            }
            Message::Manifest(_) | Message::LegacyManifest(_) => {
                Err(HandlerError::unexpected(message))
            }
        }
    }

    fn is_small(&self, message: &Message) -> bool {
        is_small(message, self.block_bytes())
    }

    fn most_small_in_progress(&self) -> usize {
        match self.bundler {
            Some(_) => bundler::MOST_IN_PROGRESS,
            None => MAX_SMALL_IN_PROGRESS,
        }
    }

    fn expect_more(&self, is_expected: bool) {
        if let Some(bundler) = &self.bundler {
            bundler.expect_more(is_expected);
        }
    }

    async fn probe(&self, failed: Option<&Message>, _bytes: u64) -> Result<bool, ServiceOutage> {
        let is_readable = probe::source(&self.announcer.source, failed).await?;
        probe::append(&*self.stream).await?;
        probe::queue(&*self.chunks_queue).await?;
        Ok(is_readable)
    }

    async fn on_acknowledged(&self, handled: Handled) {
        if let Some(file) = handled.packed_source {
            apply_on_compressed(&self.announcer, &file, self.on_compressed).await;
        }
    }

    async fn background(&self) -> Infallible {
        loop {
            tokio::time::sleep(FLUSH_INTERVAL).await;
            self.flush_journal().await;
        }
    }

    async fn end(&self) {
        self.flush_journal().await;
    }

    async fn dead_letter(
        &self,
        queue: &dyn Queue,
        delivery: &Delivery,
        message: Option<&Message>,
        failure: &Failure,
    ) -> TransportResult<()> {
        match message {
            Some(Message::Receipt(receipt)) => {
                let chunks = &*self.chunks_queue;
                receipts::dead_letter(receipt, (queue, delivery), chunks, failure).await
            }
            _ => queue.dead_letter(delivery, failure).await,
        }
    }

    async fn on_dead_lettered(&self, message: &Message, failure: &Failure) {
        let file = match message {
            Message::Announcement(announcement) => &announcement.file,
            // The file of another receipt is at its destination.
            Message::Receipt(receipt) if receipt.is_request() => receipt.file(),
            _ => return,
        };
        record_failure(&*self.journal, file, failure).await;
        report_unpacked(self.report.as_deref(), file, failure.into()).await;
    }
}

/// Adds a file that was not packed to the report, where there is one.
async fn report_unpacked(report: Option<&ReportLog>, file: &FileRef, outcome: FileOutcome) {
    let Some(report) = report else {
        return;
    };
    let (id, name, now) = (file.id(), file.name.as_str(), runtime::now_millis());
    let row = ReportRow::unpacked(id.as_str(), name, file.bytes, now, outcome);
    report.add(row).await;
}

/// Records a dead letter's file as failed; an error is only logged, since the message is dead-lettered already.
pub(crate) async fn record_failure(journal: &dyn FileJournal, file: &FileRef, failure: &Failure) {
    if let Err(error) = journal.record_failed(file.id().as_str(), failure).await {
        warn!(%error, "Could not record a failed file in the journal.");
    }
}

impl Compressor {
    /// Makes durable which receipts were taken. A loss of it only leaves files unconfirmed, which are announced again.
    async fn flush_journal(&self) {
        if let Err(error) = self.announcer.journal.flush_sources().await {
            warn!(%error, "Could not record receipts; retrying.");
        }
    }

    /// What becomes of the source of a restored file. Where sources are taken away once they are packed, a worker that was killed
    /// between sending the manifest and that has not done it: the receipt says that it is still to be done.
    fn action_on_receipt(&self) -> OnRestored {
        match (self.on_restored, self.on_compressed) {
            (OnRestored::Keep, OnCompressed::Keep) => OnRestored::Keep,
            (OnRestored::Keep, OnCompressed::Rename) => OnRestored::Rename,
            (OnRestored::Keep, OnCompressed::Delete) => OnRestored::Delete,
            (action, _) => action,
        }
    }

    fn block_bytes(&self) -> u64 {
        self.options.block_size as u64
    }

    /// The original's announcement has only a name: the file is taken as it is now.
    async fn identify(&self, legacy: &LegacyAnnouncement) -> Result<Announcement, HandlerError> {
        let name = FileName::parse(&legacy.file_name)
            .map_err(|error| HandlerError::permanent(DeadLetterReason::BadName, error))?;
        let entry = self.announcer.source_entry(&name).await?;
        let file = self.announcer.identify(&entry).await;
        Ok(Announcement {
            version: VERSION,
            file: file.map_err(HandlerError::Transient)?,
            announced_millis: runtime::now_millis(),
            observed: None,
            repeats: 0,
            traceparent: None,
        })
    }

    /// Packs the announced file and sends its manifest; false where there is nothing to pack: another version has taken its
    /// place at the source, or it is gone.
    async fn compress(
        &self,
        announcement: &Announcement,
        context: MessageContext<'_>,
    ) -> Result<bool, HandlerError> {
        ensure_announced_from(self.announcer.source.location(), &announcement.file)?;
        match self.pack_and_send(announcement, context).await {
            Err(HandlerError::Permanent(failure))
                if failure.reason == DeadLetterReason::SourceMissing =>
            {
                self.judge_missing(announcement, failure, context).await?;
                Ok(false)
            }
            outcome => outcome,
        }
    }

    /// A file that is not at its source may be one that the pipeline took away once it was restored: a message may come twice,
    /// and a file may be announced twice. Where no journal tells, the destination knows, and takes the manifests of a name in
    /// order: a manifest without records asks it.
    async fn judge_missing(
        &self,
        announcement: &Announcement,
        failure: Failure,
        context: MessageContext<'_>,
    ) -> Result<(), HandlerError> {
        let file = &announcement.file;
        let (name, id) = (file.name.as_str(), file.id());
        if self.journal.was_restored(name, id.as_str()).await? {
            info!("The source file is gone and was restored before; skipped.");
            return Ok(());
        }
        if self.on_restored == OnRestored::Keep && self.on_compressed == OnCompressed::Keep {
            return Err(HandlerError::Permanent(failure));
        }
        let question = PackedSource::without_records();
        let manifest = Manifest {
            version: MISSING_VERSION,
            ..self.manifest(announcement, attempt_id(context), question, context)
        };
        context.ensure_owner()?;
        self.send_manifest(&manifest).await?;
        info!("The source file is gone; the destination is asked whether it was restored before.");
        Ok(())
    }

    async fn pack_and_send(
        &self,
        announcement: &Announcement,
        context: MessageContext<'_>,
    ) -> Result<bool, HandlerError> {
        let file = &announcement.file;
        let bundler = self.bundler.as_ref().filter(|_| self.may_be_bundled(file));
        let reading = bundler.map(Bundler::begin_reading);
        let Some(source) = self.find_source(announcement, context).await? else {
            return Ok(false);
        };
        let attempt = attempt_id(context);
        let packed = match bundler.zip(reading) {
            Some(bundling) => {
                self.pack_with_others(announcement, source, &attempt, bundling, context)
                    .await?
            }
            None => self.pack(announcement, source, &attempt, context).await?,
        };
        let Some(packed) = packed else {
            return Ok(false);
        };
        let manifest = self.manifest(announcement, attempt, packed, context);
        context.ensure_owner()?;
        let announcing = Instant::now();
        self.send_manifest(&manifest).await?;
        context.meter.stage(Stage::Announce, announcing.elapsed());
        self.journal
            .record_compressed(file.id().as_str(), manifest.packed_bytes)
            .await?;
        // After what can still fail: the message is then received and the file packed again.
        context.count_packed(file.bytes, manifest.packed_bytes);
        info!(
            raw_bytes = file.bytes,
            packed_bytes = manifest.packed_bytes,
            "File compressed."
        );
        Ok(true)
    }

    /// Packs the file into the stream, from the name `source`; `None` where it was not the announced one.
    async fn pack(
        &self,
        announcement: &Announcement,
        source: FileName,
        attempt: &str,
        context: MessageContext<'_>,
    ) -> Result<Option<PackedSource>, HandlerError> {
        let file = &announcement.file;
        let threads = context.threads_for(file.bytes, self.block_bytes()).await?;
        context.record_wait(announcement.announced_millis);
        let packing = Instant::now();
        let described = described(announcement, context);
        let packed = self
            .pack_into_stream((described, attempt), source, threads, context)
            .await?;
        let owner = RecordOwner::new(&file.id(), attempt);
        let Some((positions, summary)) = packed else {
            self.supersede(announcement, context).await?;
            return Ok(None);
        };
        let records = self.record_writer().list(positions, &owner).await?;
        context.meter.stage(Stage::Pack, packing.elapsed());
        Ok(Some(PackedSource::alone(records, &summary)))
    }

    /// Packs the file together with others that are in progress, from the name `source`; `None` where it was not the
    /// announced one.
    async fn pack_with_others(
        &self,
        announcement: &Announcement,
        source: FileName,
        attempt: &str,
        (bundler, reading): (&Bundler, MemberReading<'_>),
        context: MessageContext<'_>,
    ) -> Result<Option<PackedSource>, HandlerError> {
        let file = &announcement.file;
        let memory = context
            .or_stop(bundler.reserve(file.bytes, &reading))
            .await?;
        let content = self.read_small(file, source).await?;
        if content.len() as u64 != file.bytes || Digest::of(&content) != file.hash {
            self.supersede(announcement, context).await?;
            return Ok(None);
        }
        context.record_wait(announcement.announced_millis);
        let packing = Instant::now();
        let described = described(announcement, context);
        let member = Member::new(described, attempt, content, memory, trace::current());
        let packer = BlockPacker {
            options: self.options,
            version: self.format_version,
            plans: self.plans.clone(),
            writer: self.record_writer(),
            threads: context.threads.clone(),
            meter: context.meter.clone(),
        };
        let packed = bundler.pack(member, packer);
        drop(reading);
        let packed = context.or_stop(packed).await?;
        context.meter.stage(Stage::Pack, packing.elapsed());
        Ok(Some(packed))
    }

    /// Reads a file whole; one byte more than was announced shows that it grew.
    async fn read_small(&self, file: &FileRef, name: FileName) -> Result<Vec<u8>, HandlerError> {
        let (source, bytes) = (self.announcer.source.clone(), file.bytes);
        let reading = blocking(move || {
            let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
            let reader = source.read(&name)?;
            reader.take(bytes + 1).read_to_end(&mut content)?;
            Ok(content)
        });
        let read: io::Result<Vec<u8>> = reading.await;
        read.map_err(|error| pack_error(file, streampress_codec::CodecError::Read(error)))
    }

    /// Whether the file is worth a bundle: a small one with content.
    fn may_be_bundled(&self, file: &FileRef) -> bool {
        file.bytes > 0 && is_small_source(file, self.block_bytes())
    }

    fn record_writer(&self) -> RecordWriter {
        RecordWriter {
            stream: self.stream.clone(),
            record_bytes: self.record_bytes,
        }
    }

    /// The name to read the file from: its own, by a cheap check of its size, or where its content was put aside. `None`
    /// where there is nothing to pack: its present content is announced.
    async fn find_source(
        &self,
        announcement: &Announcement,
        context: MessageContext<'_>,
    ) -> Result<Option<FileName>, HandlerError> {
        let file = &announcement.file;
        let entry = self.announcer.source_entry(&file.name).await;
        let observed = announcement.observed.as_ref();
        // In one order for all files, one that grows goes behind the others: they would wait for as long as it does.
        let gives_way = |entry: &FileEntry| self.announcer.strict && entry.size != file.bytes;
        if self.on_compressed == OnCompressed::Delete
            && !is_generated(file, observed)
            && let Ok(entry) = &entry
            && !gives_way(entry)
        {
            let sent_millis = context.delivery.sent_millis;
            self.settle.ensure_settled(entry, observed, sent_millis)?;
        }
        if entry.as_ref().is_ok_and(|entry| entry.size == file.bytes) {
            return Ok(Some(file.name.clone()));
        }
        let put_aside = find_put_aside(&self.announcer, file).await;
        let put_aside = put_aside.map_err(HandlerError::Transient)?;
        let states_version = context.delivery.attributes.contains_key(ATTR_VERSION);
        match (entry, put_aside) {
            // Restored with the version that it had, it replaces nothing newer.
            (_, Some(copy)) if states_version => Ok(Some(copy.name)),
            (Ok(_), _) => self.supersede(announcement, context).await.map(|()| None),
            (Err(HandlerError::Permanent(_)), Some(copy))
                if copy.has_time || !copy.is_newest || !self.is_newest(announcement).await? =>
            {
                self.end_late(announcement, context).await?;
                Ok(None)
            }
            (Err(_), Some(copy)) => Ok(Some(copy.name)),
            (Err(error), None) => Err(error),
        }
    }

    /// What was announced is the file that another announcement brought, which was packed and put aside: this announcement comes
    /// late, and its version would be newer than those of contents that came meanwhile.
    async fn end_late(
        &self,
        announcement: &Announcement,
        context: MessageContext<'_>,
    ) -> Result<(), HandlerError> {
        self.end_superseded(announcement, context).await?;
        if let Some(observed) = &announcement.observed {
            // It is not announced again.
            let (file, state) = (&announcement.file, SourceState::Superseded);
            self.announcer
                .record_end(file, Some(observed), state)
                .await?;
        }
        info!(
            "The source file was packed and put aside before this announcement came; this version is superseded."
        );
        Ok(())
    }

    /// Whether no later announcement of the name is known.
    async fn is_newest(&self, announcement: &Announcement) -> Result<bool, HandlerError> {
        let newest = self.announcer.newest(&announcement.file.name).await?;
        let observed = announcement.observed.as_ref();
        Ok(match newest.zip(observed) {
            Some((newest, observed)) => newest.announcement == observed.announcement,
            None => true,
        })
    }

    /// The source differs from its announcement: what it holds now takes this version's place.
    async fn supersede(
        &self,
        announcement: &Announcement,
        context: MessageContext<'_>,
    ) -> Result<(), HandlerError> {
        let file = &announcement.file;
        // In one order for all files, the others wait for as long.
        let settle = match self.announcer.strict {
            true => self.settle.0.min(STRICT_PAUSE),
            false => self.settle.0,
        };
        let early = TooEarly::after(context.delivery.sent_millis, settle);
        self.announcer.announce_successor(file, early).await?;
        self.end_superseded(announcement, context).await?;
        info!(
            reason = DeadLetterReason::SourceChanged.as_str(),
            "The source file changed after it was announced; its present content is announced, and this version is superseded."
        );
        Ok(())
    }

    /// Records that another version has taken this one's place.
    async fn end_superseded(
        &self,
        announcement: &Announcement,
        context: MessageContext<'_>,
    ) -> Result<(), HandlerError> {
        let (file, observed) = (&announcement.file, announcement.observed.as_ref());
        replies::leave(&self.announcer, observed, SourceState::Superseded).await?;
        context.count_superseded();
        self.journal.record_superseded(file.id().as_str()).await?;
        report_unpacked(self.report.as_deref(), file, FileOutcome::Superseded).await;
        Ok(())
    }

    /// Reads, packs and appends at the same time; returns once all records are durable. `None` where the file was not the announced
    /// one.
    async fn pack_into_stream(
        &self,
        (described, attempt): (DescribedFile, &str),
        source: FileName,
        threads: OwnedSemaphorePermit,
        context: MessageContext<'_>,
    ) -> Result<Option<(Vec<Position>, hybrid::Summary)>, HandlerError> {
        let file = &described.file;
        let owner = RecordOwner::new(&file.id(), attempt);
        let content = DescribedContent::Alone {
            attempt: attempt.to_owned(),
            file: Box::new(described.clone()),
        };
        let cancel = Arc::new(AtomicBool::new(false));
        let _cancel_when_dropped = runtime::SetOnDrop(cancel.clone());
        let (parts, packed) = mpsc::channel(4);
        // Packed bytes stay in memory until the stream has them, so a large file keeps its threads until then.
        let (until_packed, _until_appended) = match is_small_source(file, self.block_bytes()) {
            true => (Some(threads), None),
            false => (None, Some(threads)),
        };
        let packing = self.pack_blocks((file, source), parts, until_packed, cancel.clone());
        // It may end before the work is stopped.
        let mut packing = std::pin::pin!(maybe_done(packing));
        let writer = self.record_writer();
        let first = (trace::current(), &content);
        let appending = writer.append(packed, &owner, first, context.meter);
        let both = async { tokio::join!(packing.as_mut(), appending).1 };
        let appended = tokio::select! {
            biased;
            appended = both => appended,
            () = context.stop.cancelled() => {
                // A block that is being packed, and appending, may take long and are not waited for: no manifest names these
                // records.
                cancel.store(true, Ordering::Relaxed);
                return Err(HandlerError::Interrupted);
            }
        };
        // An error of the stream comes first: packing then fails only because its channel is closed.
        let positions = appended?;
        let Some(packed) = packing.take_output() else {
            return Err(HandlerError::Interrupted);
        };
        let summary = packed.map_err(|error| pack_error(file, error))?;
        context.meter.planned(summary.plan_use);
        Ok(positions.map(|positions| (positions, summary)))
    }

    /// Reads and packs the file on a blocking thread; sends the frames to `parts`, and the end if all was as announced.
    async fn pack_blocks(
        &self,
        (file, name): (&FileRef, FileName),
        parts: mpsc::Sender<PackedPart>,
        threads: Option<OwnedSemaphorePermit>,
        cancel: Arc<AtomicBool>,
    ) -> Result<hybrid::Summary, streampress_codec::CodecError> {
        let source = self.announcer.source.clone();
        let (options, version) = (self.options, self.format_version);
        let (plans, announced) = (self.plans.clone(), (file.hash.clone(), file.bytes));
        blocking(move || {
            let _threads = threads;
            let send = |part| {
                runtime::wait_blocking(parts.send(part))
                    .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
            };
            let reader = source
                .read(&name)
                .map_err(streampress_codec::CodecError::Read)?;
            let sink = |frame: &[u8]| send(PackedPart::Frame(Bytes::copy_from_slice(frame)));
            let summary = hybrid::Packer::new(options)
                .with_version(version)
                .with_store(&plans)
                .pack(reader, sink, &cancel)?;
            if (Digest::from(summary.hash), summary.raw_bytes) == announced {
                send(PackedPart::End).map_err(streampress_codec::CodecError::Write)?;
            }
            Ok(summary)
        })
        .await
    }

    fn manifest(
        &self,
        announcement: &Announcement,
        attempt: String,
        packed: PackedSource,
        context: MessageContext<'_>,
    ) -> Manifest {
        Manifest {
            version: DESCRIBED_VERSION,
            file: announcement.file.clone(),
            file_version: Some(context.delivery.version()),
            observed: announcement.observed.clone(),
            repeats: announcement.repeats,
            attempt,
            records: packed.records,
            bundle: packed.bundle,
            packed_bytes: packed.packed_bytes,
            effort: Some(self.options.effort.name().to_owned()),
            stages: packed.stages,
            shares: packed.shares,
            announced_millis: announcement.announced_millis,
            compressed_millis: runtime::now_millis(),
            traceparent: trace::current().map(|context| context.to_string()),
        }
    }

    async fn send_manifest(&self, manifest: &Manifest) -> Result<(), HandlerError> {
        let file = &manifest.file;
        let message = Outgoing {
            group: announce::group(file, self.announcer.strict),
            dedup_id: format!(
                "{}-{}",
                &file.id().as_str()[..40],
                &Digest::of(manifest.attempt.as_bytes()).as_str()[..16]
            ),
            body: manifest.to_json(),
            attributes: trace_attributes(),
        };
        let sent = self.chunks_queue.send(vec![message]).await;
        sent.map_err(HandlerError::sending)
    }
}

fn pack_error(file: &FileRef, error: streampress_codec::CodecError) -> HandlerError {
    match error {
        streampress_codec::CodecError::Cancelled => HandlerError::Interrupted,
        streampress_codec::CodecError::Read(error) if error.kind() == io::ErrorKind::NotFound => {
            source_missing(&file.name, &file.location)
        }
        error => HandlerError::transient(error, format!("packing {}", file.name)),
    }
}

/// The file as its records describe it.
fn described(announcement: &Announcement, context: MessageContext<'_>) -> DescribedFile {
    DescribedFile {
        file: announcement.file.clone(),
        version: context.delivery.version(),
        observed: announcement.observed.clone(),
        announced_millis: announcement.announced_millis,
    }
}

/// Names the attempt: 32 hex digits, since every manifest and each file's first record carry it. The message's id is part of it: a
/// message handled twice sends a duplicate manifest, a new announcement (redrive) does not.
fn attempt_id(context: MessageContext<'_>) -> String {
    let attempt = format!("{}/{}", context.slot.attempt(), context.delivery.message_id);
    Digest::of(attempt.as_bytes()).as_str()[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_announced_from_another_bucket_is_not_looked_for_under_its_name_here() {
        let file = |location: &str| FileRef {
            location: location.into(),
            ..FileRef::with_content("a.txt", b"words")
        };
        for (here, announced, is_own) in [
            ("s3://one/in", "s3://one/in", true),
            ("s3://one/in", "s3://two/in", false),
            ("s3://one/in", "s3://one/other", false),
            ("file:///data/in", "file:///elsewhere", true),
        ] {
            let outcome = ensure_announced_from(here, &file(announced));
            assert_eq!(outcome.is_ok(), is_own, "{here} {announced}");
            if let Err(HandlerError::Permanent(failure)) = outcome {
                assert_eq!(failure.reason, DeadLetterReason::SourceMissing);
                assert!(failure.detail.contains(announced), "{}", failure.detail);
            }
        }
    }
}
