//! The compressor's work in the Python original's format.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context;
use async_trait::async_trait;
use md5::{Digest as _, Md5};
use tracing::{info, warn};

use super::decompressor::row;
use super::messages::{LegacyAnnouncement, LegacyManifest};
use super::{Expected, LARGEST_FILE_BYTES, expected_key};
use crate::blocking;
use crate::clock;
use crate::consume::{Fault, Handler, MessageContext, Subject};
use crate::journal::FileJournal;
use crate::message::s3_event::S3Event;
use crate::message::{Announcement, Digest, FileRef, StageNumbers};
use crate::report::log::ReportLog;
use crate::roles::announce::{Announcer, legacy_id, legacy_index_key};
use crate::roles::compress::{
    OnCompressed, announced_subject, pass_on, source_missing, tidy_source,
};
use crate::roles::scan::SourceFilter;
use crate::telemetry::trace;
use streampress_codec::legacy;
use streampress_transport::{
    ChunkStream, Delivery, FileName, Outgoing, Queue, Record, TransportResult,
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
    /// Put before a name in chunk messages.
    pub read_location: String,
    /// What becomes of the source; the original renames files of more than one chunk.
    pub on_compressed: OnCompressed,
    /// Which of the files that a bucket tells of are taken.
    pub filter: SourceFilter,
    /// Whether only files of more than one chunk are tidied away, as the original does.
    pub tidy_only_multi: bool,
    /// Whether anything is sent (`ENABLE_DATA_PUSH`).
    pub push: bool,
    /// The report of what was compressed, where one is wanted.
    pub report: Option<Arc<ReportLog>>,
    /// What this machine knows of its files, on the embedded transport.
    pub journal: Option<Arc<dyn FileJournal>>,
    /// What was packed and is not acknowledged yet.
    pub packed: PackedSources,
}

/// The sources as they were when they were packed, by message: the original's message has only a name, and what lies under
/// it later may be another file.
#[derive(Debug, Default)]
pub struct PackedSources(Mutex<HashMap<String, FileRef>>);

impl PackedSources {
    /// Messages that somebody else acknowledges stay in here; beyond so many all are forgotten, and their sources stay.
    const MOST: usize = 1000;

    fn note(&self, message_id: &str, file: &FileRef) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= Self::MOST {
            all.clear();
        }
        all.insert(message_id.to_owned(), file.clone());
    }

    fn take(&self, message_id: &str) -> Option<FileRef> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(message_id)
    }
}

struct PackedFile {
    expected: Expected,
    packed: legacy::PackedRecords,
}

#[async_trait]
impl Handler for LegacyCompressor {
    async fn handle(&self, job: MessageContext<'_>) -> Result<(), Fault> {
        if let Some(event) = S3Event::parse(&job.delivery.body) {
            return pass_on(&self.announcer, &self.filter, &event).await;
        }
        let name = announced_name(&job.delivery.body)?;
        let _thread = job.threads(false).await?;
        let packing = Instant::now();
        let PackedFile { expected, packed } = job.or_stop(self.pack(name)).await?;
        job.meter.stage("pack", packing.elapsed());
        job.ensure_owner()?;
        let file = &expected.file;
        if self.push {
            let sending = Instant::now();
            self.send(&expected, packed, job).await?;
            job.meter.stage("announce", sending.elapsed());
        }
        job.packed(file.bytes, expected.packed_bytes);
        if let Some(journal) = &self.journal {
            journal
                .record_compressed(file.id().as_str(), expected.packed_bytes)
                .await?;
        }
        if let Some(log) = &self.report {
            log.add(row(&expected, 0.0, job.held.slot())).await;
        }
        if self.on_compressed != OnCompressed::Keep {
            self.packed.note(&job.delivery.message_id, file);
        }
        info!(
            raw_bytes = file.bytes,
            packed_bytes = expected.packed_bytes,
            pushed = self.push,
            "File compressed."
        );
        Ok(())
    }

    fn subject(&self, delivery: &Delivery) -> Subject {
        announced_subject(&delivery.body)
    }

    fn is_small(&self, _delivery: &Delivery) -> bool {
        false
    }

    async fn acknowledged(&self, delivery: &Delivery) {
        if self.on_compressed == OnCompressed::Keep {
            return;
        }
        let Some(file) = self.packed.take(&delivery.message_id) else {
            return;
        };
        if !self.tidy_only_multi || file.bytes > self.break_bytes as u64 {
            tidy_source(&self.announcer, &file, self.on_compressed).await;
        }
    }

    async fn on_dead_lettered(&self, delivery: &Delivery, reason: &str, detail: &str) {
        let Some(journal) = &self.journal else { return };
        let Ok(Some(file_id)) = indexed_id(&**journal, &delivery.body).await else {
            return;
        };
        if let Err(fault) = journal
            .record_failed(&file_id, &format!("{reason}: {detail}"))
            .await
        {
            warn!(error = %fault, "Could not record a failed file in the journal.");
        }
    }
}

/// The name in an announcement of either dialect.
pub(crate) fn announced_name(body: &str) -> Result<FileName, Fault> {
    if let Ok(ours) = Announcement::parse(body) {
        return Ok(ours.file.name);
    }
    let message = LegacyAnnouncement::parse(body).map_err(|error| {
        Fault::permanent(
            "UnreadableMessage",
            streampress_transport::error_chain(&error),
        )
    })?;
    FileName::parse(&message.file_name).map_err(|error| Fault::permanent("BadName", error))
}

/// The file id that an announcement of either dialect means.
async fn indexed_id(journal: &dyn FileJournal, body: &str) -> TransportResult<Option<String>> {
    match (Announcement::parse(body), LegacyAnnouncement::parse(body)) {
        (Ok(ours), _) => Ok(Some(ours.file.id().as_str().to_owned())),
        (_, Ok(seed)) => journal.get(&legacy_index_key(&seed.id)).await,
        _ => Ok(None),
    }
}

impl LegacyCompressor {
    async fn read(&self, name: FileName) -> Result<(FileRef, Vec<u8>), Fault> {
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
                modified_nanos: clock::nanos(entry.modified),
            };
            Ok(Some((file, bytes)))
        })
        .await
        .with_context(|| format!("reading {shown}"))
        .map_err(Fault::Transient)?;
        let (file, bytes) =
            read.ok_or_else(|| source_missing(&shown, self.announcer.source.location()))?;
        if file.bytes > LARGEST_FILE_BYTES {
            return Err(Fault::permanent(
                "TooLarge",
                format!(
                    "{shown} has {} bytes; the seed format takes up to {LARGEST_FILE_BYTES}; use codec.format Hybrid",
                    file.bytes
                ),
            ));
        }
        Ok((file, bytes))
    }

    async fn pack(&self, name: FileName) -> Result<PackedFile, Fault> {
        let format = legacy::LegacyFormat::of_name(name.as_str()).ok_or_else(|| {
            Fault::permanent("UnknownFormat", format!("{name} is neither .json, .csv, .txt nor .log; the seed format takes no other; use codec.format Hybrid"))
        })?;
        let (file, bytes) = self.read(name).await?;
        let break_bytes = self.break_bytes;
        blocking(move || pack_checked(file, &bytes, format, break_bytes)).await
    }

    /// Puts the records on one shard, since the message names but one, then announces them.
    async fn send(
        &self,
        expected: &Expected,
        packed: legacy::PackedRecords,
        job: MessageContext<'_>,
    ) -> Result<(), Fault> {
        let file_name = format!("{}/{}", self.read_location, expected.file.name);
        let key: String = Md5::digest(file_name.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let id = legacy_id(&expected.file);
        if let Some(journal) = &self.journal {
            let json =
                serde_json::to_string(expected).map_err(|error| Fault::Transient(error.into()))?;
            journal.set(&expected_key(&id), &json).await?;
        }
        let stages = packed.stages;
        let records: Vec<Record> = packed
            .records
            .into_iter()
            .map(|data| Record {
                key: key.clone(),
                data: data.into(),
            })
            .collect();
        // One after another: whoever restores orders them by their numbers, and those of one request need not ascend.
        let mut positions = Vec::new();
        for record in records {
            let append = async { Ok(self.stream.append(vec![record]).await?) };
            positions.extend(job.or_stop(append).await?);
            job.meter.moved();
        }
        let shard_id = match positions.first() {
            Some(first)
                if positions
                    .iter()
                    .all(|position| position.shard == first.shard) =>
            {
                first.shard.clone()
            }
            // The stream was resharded in between. The records just written are never announced.
            _ => {
                return Err(Fault::Transient(anyhow::anyhow!(
                    "the records of {file_name} fell on two shards, and a seed message names one"
                )));
            }
        };
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
        let message = Outgoing {
            group: shard_id,
            dedup_id: id,
            body: message.to_json(),
            attributes: trace::current().map(trace::attributes).unwrap_or_default(),
        };
        Ok(self.chunks_queue.send(vec![message]).await?)
    }
}

/// Normalises, packs and decodes again: only what comes back is announced.
fn pack_checked(
    file: FileRef,
    bytes: &[u8],
    format: legacy::LegacyFormat,
    break_bytes: usize,
) -> Result<PackedFile, Fault> {
    let started = Instant::now();
    let refused = |error: legacy::LegacyError| {
        Fault::permanent("NotSeedFormat", format!("{}: {error}", file.name))
    };
    let normalised = legacy::normalise(format, bytes).map_err(refused)?;
    let pieces = legacy::first_step(&normalised, break_bytes).map_err(refused)?;
    let bytes_between = pieces.iter().map(|piece| piece.len() as u64).sum();
    let between = Instant::now();
    let packed = legacy::second_step(pieces, break_bytes).map_err(refused)?;
    let ended = Instant::now();
    let back = legacy::unpack(&packed, normalised.len());
    if back.as_ref() != Ok(&normalised) {
        return Err(Fault::Transient(anyhow::anyhow!(
            "{} did not decode to what was packed; nothing was sent",
            file.name
        )));
    }
    let packed_bytes = packed
        .records
        .iter()
        .map(|record| record.len() as u64)
        .sum();
    let mut stages = vec![StageNumbers {
        name: "Step 01 LZMA".to_owned(),
        bytes_in: file.bytes,
        bytes_out: bytes_between,
        seconds: (between - started).as_secs_f64(),
    }];
    if packed.stages == legacy::StageCount::Two {
        stages.push(StageNumbers {
            name: "Step 02 BZ2".to_owned(),
            bytes_in: bytes_between,
            bytes_out: packed_bytes,
            seconds: (ended - between).as_secs_f64(),
        });
    }
    let expected = Expected {
        normalised: Digest::of(&normalised),
        file,
        packed_bytes,
        records: packed.records.len() as u64,
        stages,
        compressed_millis: clock::now_millis(),
    };
    Ok(PackedFile { expected, packed })
}
