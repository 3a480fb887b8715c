//! The compressor's work in the Python original's format.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use md5::{Digest as _, Md5};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{LARGEST_FILE_BYTES, PackedFile};
use crate::consume::{Handled, Handler, HandlerError, MessageContext, ServiceOutage};
use crate::journal::FileJournal;
use crate::message::{DeadLetterReason, Digest, FileRef, LegacyManifest, Message, StageNumbers};
use crate::report::ReportRow;
use crate::report::log::ReportLog;
use crate::roles::announce::{
    Announcer, legacy_id, legacy_journal_key, source_missing, trace_attributes,
};
use crate::roles::probe;
use crate::roles::source::{SettleTime, SourceFilter, announce_event, apply_on_compressed};
use crate::runtime::{self, blocking};
use crate::telemetry::metrics::Stage;
use streampress_codec::legacy;
use streampress_crds::api::pipeline::OnCompressed;
use streampress_transport::{
    ATTR_VERSION, ChunkStream, Failure, FileName, Outgoing, Position, Queue, Record,
    TransportResult,
};

/// The compressor's work, format Seed.
#[derive(Debug)]
pub struct LegacyCompressor {
    /// Where files are read.
    pub announcer: Announcer,
    /// Where records go.
    pub stream: Arc<dyn ChunkStream>,
    /// Where chunk messages go.
    pub chunks_queue: Arc<dyn Queue>,
    /// Bytes of a chunk and of a record.
    pub break_bytes: usize,
    /// The folder before a name in chunk messages.
    pub read_location: String,
    /// What becomes of the source; the original renames files of more than one chunk.
    pub on_compressed: OnCompressed,
    /// How long a source must have held still before it is deleted.
    pub settle: SettleTime,
    /// Which files of a bucket's events are taken.
    pub filter: SourceFilter,
    /// Whether `on_compressed` holds only for files of more than one chunk, as for the original.
    pub keeps_single_chunk_files: bool,
    /// Whether anything is sent (`ENABLE_DATA_PUSH`).
    pub push: bool,
    /// The report of what was compressed, where one is wanted.
    pub report: Option<Arc<ReportLog>>,
    /// The report of what could not be compressed, where one is wanted.
    pub dead_letter_report: Option<Arc<ReportLog>>,
    /// Where files' progress is recorded.
    pub journal: Arc<dyn FileJournal>,
}

#[async_trait]
impl Handler for LegacyCompressor {
    async fn handle(
        &self,
        message: &Message,
        context: MessageContext<'_>,
    ) -> Result<Handled, HandlerError> {
        if let Message::S3Event(event) = message {
            announce_event(&self.announcer, &self.filter, event).await?;
            return Ok(Handled::default());
        }
        let name = announced_name(message)?;
        if self.on_compressed == OnCompressed::Delete {
            let entry = self.announcer.source_entry(&name).await?;
            let sent_millis = context.delivery.sent_millis;
            self.settle.ensure_settled(&entry, None, sent_millis)?;
        }
        let _thread = context.one_thread().await?;
        let packing = Instant::now();
        let (file, packed) = context.or_stop(self.pack(name)).await?;
        context.meter.stage(Stage::Pack, packing.elapsed());
        context.ensure_owner()?;
        if self.push {
            let sending = Instant::now();
            self.send(&file, packed, context).await?;
            context.meter.stage(Stage::Announce, sending.elapsed());
        }
        self.record(&file, context).await?;
        Ok(Handled {
            packed_source: Some(file.file),
        })
    }

    async fn probe(&self, failed: Option<&Message>, _bytes: u64) -> Result<bool, ServiceOutage> {
        let is_readable = probe::source(&self.announcer.source, failed).await?;
        probe::append(&*self.stream).await?;
        probe::queue(&*self.chunks_queue).await?;
        Ok(is_readable)
    }

    async fn on_acknowledged(&self, handled: Handled) {
        if let Some(file) = handled.packed_source
            && (!self.keeps_single_chunk_files || file.bytes > self.break_bytes as u64)
        {
            apply_on_compressed(&self.announcer, &file, self.on_compressed).await;
        }
    }

    async fn on_dead_lettered(&self, message: &Message, failure: &Failure) {
        let recorded = async {
            let Some(file_id) = self.file_id(message).await? else {
                return Ok(());
            };
            if let (Some(report), Ok(name)) = (&self.dead_letter_report, announced_name(message)) {
                let (name, now) = (name.as_str(), runtime::now_millis());
                let row = ReportRow::unpacked(&file_id, name, 0, now, failure.into());
                report.add(row).await;
            }
            self.journal.record_failed(&file_id, failure).await
        };
        if let Err(error) = recorded.await {
            warn!(%error, "Could not record a failed file in the journal.");
        }
    }
}

/// The name in an announcement of either form.
fn announced_name(message: &Message) -> Result<FileName, HandlerError> {
    match message {
        Message::Announcement(announcement) => Ok(announcement.file.name.clone()),
        Message::LegacyAnnouncement(announcement) => FileName::parse(&announcement.file_name)
            .map_err(|error| HandlerError::permanent(DeadLetterReason::BadName, error)),
        Message::S3Event(_)
        | Message::Manifest(_)
        | Message::LegacyManifest(_)
        | Message::Receipt(_) => Err(HandlerError::unexpected(message)),
    }
}

impl LegacyCompressor {
    /// The id of the announced file, as far as the journal knows it.
    async fn file_id(&self, message: &Message) -> TransportResult<Option<String>> {
        match message {
            Message::Announcement(it) => Ok(Some(it.file.id().as_str().to_owned())),
            Message::LegacyAnnouncement(it) => self.journal.get(&legacy_journal_key(&it.id)).await,
            Message::S3Event(_)
            | Message::Manifest(_)
            | Message::LegacyManifest(_)
            | Message::Receipt(_) => Ok(None),
        }
    }

    async fn read(&self, name: FileName) -> Result<(FileRef, Vec<u8>), HandlerError> {
        let source = self.announcer.source.clone();
        let shown = name.clone();
        let read = blocking(move || -> anyhow::Result<Option<(FileRef, Vec<u8>)>> {
            let Some(entry) = source.stat(&name)? else {
                return Ok(None);
            };
            let mut bytes = Vec::new();
            if entry.size <= LARGEST_FILE_BYTES {
                source
                    .read(&name)?
                    .take(LARGEST_FILE_BYTES)
                    .read_to_end(&mut bytes)?;
            }
            let file = FileRef {
                location: source.location().to_owned(),
                name,
                bytes: entry.size,
                hash: Digest::of(&bytes),
                modified_nanos: runtime::nanos(entry.modified),
            };
            Ok(Some((file, bytes)))
        })
        .await
        .with_context(|| format!("reading {shown}"))
        .map_err(HandlerError::Transient)?;
        let (file, bytes) =
            read.ok_or_else(|| source_missing(&shown, self.announcer.source.location()))?;
        if file.bytes > LARGEST_FILE_BYTES {
            return Err(HandlerError::permanent(
                DeadLetterReason::TooLarge,
                format!(
                    "{shown} has {} bytes; the seed format takes up to {LARGEST_FILE_BYTES}; use codec.format Hybrid",
                    file.bytes
                ),
            ));
        }
        Ok((file, bytes))
    }

    async fn pack(
        &self,
        name: FileName,
    ) -> Result<(PackedFile, legacy::PackedRecords), HandlerError> {
        let format = legacy::LegacyFormat::of_name(name.as_str()).ok_or_else(|| {
            HandlerError::permanent(
                DeadLetterReason::UnknownFormat,
                format!("{name} is neither .json, .csv, .txt nor .log; the seed format takes no other; use codec.format Hybrid"),
            )
        })?;
        let (file, bytes) = self.read(name).await?;
        let break_bytes = self.break_bytes;
        blocking(move || pack_checked(file, &bytes, format, break_bytes)).await
    }

    /// Puts the records on one shard, since the message names only one, then sends the message.
    async fn send(
        &self,
        file: &PackedFile,
        packed: legacy::PackedRecords,
        context: MessageContext<'_>,
    ) -> Result<(), HandlerError> {
        let file_name = format!("{}/{}", self.read_location, file.file.name);
        let id = legacy_id(&file.file);
        let json = serde_json::to_string(file)
            .map_err(|error| HandlerError::transient(error, "writing the journal's entry"))?;
        self.journal.set(&PackedFile::key(&id), &json).await?;
        let stages = packed.stages;
        let positions = self.append(&file_name, packed.records, context).await?;
        let shard_id = one_shard(&positions).ok_or_else(|| {
            // The stream was resharded in between. No message names the records just written.
            HandlerError::Transient(anyhow::anyhow!(
                "the records of {file_name} are on two shards, and a seed message names one"
            ))
        })?;
        let message = LegacyManifest {
            id: id.clone(),
            file_name,
            file_total_chunk: positions.len() as u64,
            shard_id: shard_id.clone(),
            sequence_number: positions
                .iter()
                .map(|position| position.sequence.as_str().to_owned())
                .collect(),
            metadata: LegacyManifest::metadata_for(stages),
        };
        let delivery = context.delivery;
        let mut attributes = trace_attributes();
        attributes.insert(ATTR_VERSION.to_owned(), delivery.version().to_string());
        let message = Outgoing {
            group: shard_id,
            // One announcement handled twice is one message; the same content announced again is another.
            dedup_id: format!("{id}-{}", delivery.message_id),
            body: message.to_json(),
            attributes,
        };
        let sent = self.chunks_queue.send(vec![message]).await;
        sent.map_err(HandlerError::sending)
    }

    /// Appends one record after another: a reader orders them by their sequence numbers, and those of one request need not
    /// ascend.
    async fn append(
        &self,
        file_name: &str,
        records: Vec<Vec<u8>>,
        context: MessageContext<'_>,
    ) -> Result<Vec<Position>, HandlerError> {
        let key: String = Md5::digest(file_name.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let mut positions = Vec::new();
        for data in records {
            let record = Record {
                key: key.clone(),
                data: data.into(),
            };
            let append = async { Ok(self.stream.append(vec![record]).await?) };
            positions.extend(context.or_stop(append).await?);
            context.meter.moved();
        }
        Ok(positions)
    }

    /// Counts the file in ledger, metrics, journal and report.
    async fn record(
        &self,
        packed: &PackedFile,
        context: MessageContext<'_>,
    ) -> Result<(), HandlerError> {
        let file = &packed.file;
        context.count_packed(file.bytes, packed.packed_bytes);
        self.journal
            .record_compressed(file.id().as_str(), packed.packed_bytes)
            .await?;
        if let Some(report) = &self.report {
            report
                .add(packed.report_row(0.0, context.slot.slot()))
                .await;
        }
        info!(
            raw_bytes = file.bytes,
            packed_bytes = packed.packed_bytes,
            pushed = self.push,
            "File compressed."
        );
        Ok(())
    }
}

/// The shard that holds all records; `None` where there are several, or no record.
fn one_shard(positions: &[Position]) -> Option<String> {
    let first = positions.first()?;
    let is_same = |position: &Position| position.shard == first.shard;
    positions.iter().all(is_same).then(|| first.shard.clone())
}

/// Normalises and packs, then decodes and compares: only what decodes to the same bytes is sent.
fn pack_checked(
    file: FileRef,
    bytes: &[u8],
    format: legacy::LegacyFormat,
    break_bytes: usize,
) -> Result<(PackedFile, legacy::PackedRecords), HandlerError> {
    let started = Instant::now();
    let refused = |error: legacy::LegacyError| {
        let detail = format!("{}: {error}", file.name);
        HandlerError::permanent(DeadLetterReason::NotSeedFormat, detail)
    };
    let normalised = legacy::normalise(format, bytes).map_err(refused)?;
    let pieces = legacy::first_step(&normalised, break_bytes).map_err(refused)?;
    let bytes_between = pieces.iter().map(|piece| piece.len() as u64).sum();
    let between = Instant::now();
    let packed = legacy::second_step(pieces, break_bytes).map_err(refused)?;
    let ended = Instant::now();
    let decoded = legacy::unpack(&packed, normalised.len());
    if decoded.as_ref() != Ok(&normalised) {
        return Err(HandlerError::Transient(anyhow::anyhow!(
            "{} did not decode to what was packed; nothing was sent",
            file.name
        )));
    }
    let packed_bytes = packed
        .records
        .iter()
        .map(|record| record.len() as u64)
        .sum();
    let mut stages = vec![stage(
        "Step 01 LZMA",
        (file.bytes, bytes_between),
        between - started,
    )];
    if packed.stages == legacy::StageCount::Two {
        let bytes = (bytes_between, packed_bytes);
        stages.push(stage("Step 02 BZ2", bytes, ended - between));
    }
    let packed_file = PackedFile {
        normalised: Digest::of(&normalised),
        file,
        packed_bytes,
        records: packed.records.len() as u64,
        stages,
        compressed_millis: runtime::now_millis(),
    };
    Ok((packed_file, packed))
}

fn stage(name: &str, (bytes_in, bytes_out): (u64, u64), took: Duration) -> StageNumbers {
    StageNumbers {
        name: name.to_owned(),
        bytes_in,
        bytes_out,
        seconds: took.as_secs_f64(),
    }
}
