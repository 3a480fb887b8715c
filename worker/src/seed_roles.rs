//! Compressor and decompressor in the Python original's format, so that an original may stand on either side.
//!
//! The format normalises files and carries no hash; "restored" means equal to the normalised form. That is checked by
//! decoding before the announcement, and on the embedded transport once more after restoring. The original's faults
//! end at this door: names cannot leave their folder, a finished file is never truncated, broken messages become dead
//! letters, nothing is lost where the joined text is short.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use anyhow::Context;
use async_trait::async_trait;
use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::announce::{Announcer, hash, seed_id, seed_index_key};
use crate::blocking;
use crate::clock;
use crate::codec::seed;
use crate::compress::{OnCompressed, announced_subject, pass_on, source_missing, tidy_source};
use crate::consume::{Fault, Handler, Job, Subject};
use crate::decompress::report_format;
use crate::doors::local::Index;
use crate::doors::{
    ChunkStream, Delivery, DoorResult, FileName, Files, Outgoing, Position, Queue, Record, Sequence,
};
use crate::report::{Outcome, ReportRow};
use crate::report_log::ReportLog;
use crate::scan::SourceFilter;
use crate::trace;
use crate::wire::s3_event::S3Event;
use crate::wire::seed::{SeedAnnouncement, SeedChunkMessage};
use crate::wire::{Announcement, Digest, FileRef, StageNumbers};

/// The format is made in memory, as the original does; a larger file would take several times this.
const LARGEST_FILE_BYTES: u64 = 256 << 20;
/// Records fetched at once; they are of up to 1 MiB.
const FETCHED_AT_ONCE: usize = 32;
/// Where the original looks for files, and what its chunk messages put before a name.
pub const READ_LOCATION: &str = "test_location";

/// The compressor's work, format Seed.
#[derive(Debug)]
pub struct SeedCompressor {
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
    pub index: Option<Index>,
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

/// What the embedded index keeps of a packed file, since the original's message cannot.
#[derive(Debug, Serialize, Deserialize)]
struct Expected {
    file: FileRef,
    normalised: Digest,
    packed_bytes: u64,
    records: u64,
    stages: Vec<StageNumbers>,
    compressed_millis: u64,
}

struct PackedFile {
    expected: Expected,
    packed: seed::Packed,
}

#[async_trait]
impl Handler for SeedCompressor {
    async fn handle(&self, job: Job<'_>) -> Result<(), Fault> {
        if let Some(event) = S3Event::parse(&job.delivery.body) {
            return pass_on(&self.announcer, &self.filter, &event).await;
        }
        let name = announced_name(&job.delivery.body)?;
        let _thread = job.threads(false).await?;
        let packing = Instant::now();
        let PackedFile { expected, packed } = job.or_stop(self.pack(name)).await?;
        job.meter.stage("pack", packing.elapsed());
        job.may_act()?;
        let file = &expected.file;
        if self.push {
            let sending = Instant::now();
            self.send(&expected, packed, job).await?;
            job.meter.stage("announce", sending.elapsed());
        }
        job.packed(file.bytes, expected.packed_bytes);
        if let Some(index) = &self.index {
            index
                .compressed(file.id().as_str(), expected.packed_bytes)
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

    async fn buried(&self, delivery: &Delivery, reason: &str, detail: &str) {
        let Some(index) = &self.index else { return };
        let Ok(Some(file_id)) = indexed_id(index, &delivery.body).await else {
            return;
        };
        if let Err(fault) = index.failed(&file_id, &format!("{reason}: {detail}")).await {
            warn!(error = %fault, "Could not note a failed file in the index.");
        }
    }
}

/// The name in an announcement of either dialect.
fn announced_name(body: &str) -> Result<FileName, Fault> {
    if let Ok(ours) = Announcement::parse(body) {
        return Ok(ours.file.name);
    }
    let message = SeedAnnouncement::parse(body)
        .map_err(|error| Fault::permanent("UnreadableMessage", crate::with_causes(&error)))?;
    FileName::parse(&message.file_name).map_err(|error| Fault::permanent("BadName", error))
}

/// The file id that an announcement of either dialect means.
async fn indexed_id(index: &Index, body: &str) -> DoorResult<Option<String>> {
    match (Announcement::parse(body), SeedAnnouncement::parse(body)) {
        (Ok(ours), _) => Ok(Some(ours.file.id().as_str().to_owned())),
        (_, Ok(seed)) => index.get(&seed_index_key(&seed.id)).await,
        _ => Ok(None),
    }
}

impl SeedCompressor {
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
        let format = seed::Format::of_name(name.as_str()).ok_or_else(|| {
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
        packed: seed::Packed,
        job: Job<'_>,
    ) -> Result<(), Fault> {
        let file_name = format!("{}/{}", self.read_location, expected.file.name);
        let key: String = Md5::digest(file_name.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let id = seed_id(&expected.file);
        if let Some(index) = &self.index {
            let json =
                serde_json::to_string(expected).map_err(|error| Fault::Transient(error.into()))?;
            index.set(&expected_key(&id), &json).await?;
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
        let message = SeedChunkMessage {
            id: id.clone(),
            file_name,
            file_total_chunk: positions.len() as u64,
            shard_id: shard_id.clone(),
            sequence_number: positions
                .iter()
                .map(|position| position.sequence.as_str().to_owned())
                .collect(),
            metadata: SeedChunkMessage::metadata_for(stages),
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

fn expected_key(id: &str) -> String {
    format!("seed/{id}")
}

/// Normalises, packs and decodes again: only what comes back is announced.
fn pack_checked(
    file: FileRef,
    bytes: &[u8],
    format: seed::Format,
    break_bytes: usize,
) -> Result<PackedFile, Fault> {
    let started = Instant::now();
    let refused =
        |error: seed::Refusal| Fault::permanent("NotSeedFormat", format!("{}: {error}", file.name));
    let normalised = seed::normalise(format, bytes).map_err(refused)?;
    let pieces = seed::first_step(&normalised, break_bytes).map_err(refused)?;
    let bytes_between = pieces.iter().map(|piece| piece.len() as u64).sum();
    let between = Instant::now();
    let packed = seed::second_step(pieces, break_bytes).map_err(refused)?;
    let ended = Instant::now();
    let back = seed::unpack(&packed, normalised.len());
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
    if packed.stages == seed::Stages::Two {
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

/// The decompressor's work, format Seed.
#[derive(Debug)]
pub struct SeedDecompressor {
    /// Where files are restored.
    pub destination: Arc<dyn Files>,
    /// Where records are.
    pub stream: Arc<dyn ChunkStream>,
    /// What stands before a name in chunk messages.
    pub read_location: String,
    /// The report, where one is wanted.
    pub report: Option<Arc<ReportLog>>,
    /// What this machine knows of its files, on the embedded transport.
    pub index: Option<Index>,
}

#[async_trait]
impl Handler for SeedDecompressor {
    async fn handle(&self, job: Job<'_>) -> Result<(), Fault> {
        let started = Instant::now();
        let message = SeedChunkMessage::parse(&job.delivery.body)
            .map_err(|error| Fault::permanent("UnreadableMessage", crate::with_causes(&error)))?;
        let name = self.name(&message)?;
        let _thread = job.threads(false).await?;
        let restored = job.or_stop(self.unpack(&message, &name)).await?;
        let expected = self.expected(&message.id).await?;
        if let Some(expected) = &expected
            && expected.normalised != Digest::of(&restored)
        {
            return Err(Fault::permanent(
                "HashMismatch",
                format!("{name} came out other than it was packed; nothing was written"),
            ));
        }
        job.meter.stage("unpack", started.elapsed());
        job.may_act()?;
        let (bytes, writing) = (restored.len() as u64, Instant::now());
        self.write(&name, restored).await?;
        job.meter.stage("commit", writing.elapsed());
        let packed_bytes = expected
            .as_ref()
            .map_or(0, |expected| expected.packed_bytes);
        job.restored(packed_bytes, bytes);
        if let Some(expected) = &expected {
            if let Some(index) = &self.index {
                index.restored(expected.file.id().as_str()).await?;
            }
            if let Some(log) = &self.report {
                log.add(row(
                    expected,
                    started.elapsed().as_secs_f64(),
                    job.held.slot(),
                ))
                .await;
            }
        }
        info!(raw_bytes = bytes, "File restored.");
        Ok(())
    }

    fn subject(&self, delivery: &Delivery) -> Subject {
        let message = SeedChunkMessage::parse(&delivery.body);
        Subject {
            file_name: message.ok().map(|message| message.file_name),
            ..Subject::default()
        }
    }

    fn is_small(&self, _delivery: &Delivery) -> bool {
        false
    }

    async fn acknowledged(&self, _delivery: &Delivery) {}

    async fn buried(&self, delivery: &Delivery, reason: &str, detail: &str) {
        let Ok(message) = SeedChunkMessage::parse(&delivery.body) else {
            return;
        };
        let (Some(index), Ok(Some(expected))) = (&self.index, self.expected(&message.id).await)
        else {
            return;
        };
        if let Err(fault) = index
            .failed(expected.file.id().as_str(), &format!("{reason}: {detail}"))
            .await
        {
            warn!(error = %fault, "Could not note a failed file in the index.");
        }
    }
}

impl SeedDecompressor {
    fn name(&self, message: &SeedChunkMessage) -> Result<FileName, Fault> {
        let full = message.file_name.as_str();
        let inside = full
            .strip_prefix(self.read_location.as_str())
            .and_then(|rest| rest.strip_prefix('/'));
        let name = inside.unwrap_or_else(|| full.rsplit('/').next().unwrap_or(full));
        FileName::parse(name).map_err(|error| Fault::permanent("BadName", error))
    }

    async fn unpack(&self, message: &SeedChunkMessage, name: &FileName) -> Result<Vec<u8>, Fault> {
        let stages = message
            .stages()
            .map_err(|error| Fault::permanent("UnreadableMessage", crate::with_causes(&error)))?;
        let mut sequences = Vec::new();
        for text in &message.sequence_number {
            let sequence = Sequence::parse(text).ok_or_else(|| {
                Fault::permanent(
                    "UnreadableMessage",
                    format!("{text:?} is not a sequence number"),
                )
            })?;
            sequences.push(sequence);
        }
        if sequences.is_empty() {
            return Err(Fault::permanent(
                "UnreadableMessage",
                "the message names no records",
            ));
        }
        // The original sorts them as text.
        sequences.sort();
        let positions: Vec<Position> = sequences
            .into_iter()
            .map(|sequence| Position {
                shard: message.shard_id.clone(),
                sequence,
                bytes: 0,
            })
            .collect();
        let (mut records, mut bytes) = (Vec::with_capacity(positions.len()), 0);
        // The message does not say how large they are.
        for some in positions.chunks(FETCHED_AT_ONCE) {
            for record in self.stream.fetch(some).await? {
                bytes += record.len();
                records.push(record.to_vec());
            }
            if bytes as u64 > LARGEST_FILE_BYTES {
                return Err(Fault::permanent(
                    "TooLarge",
                    format!(
                        "the records of {name} hold more than {LARGEST_FILE_BYTES} bytes, more than a file of this format"
                    ),
                ));
            }
        }
        let packed = seed::Packed { stages, records };
        let unpacked = blocking(move || seed::unpack(&packed, LARGEST_FILE_BYTES as usize)).await;
        unpacked.map_err(|error| Fault::permanent("BadFrame", format!("{name}: {error}")))
    }

    async fn expected(&self, id: &str) -> Result<Option<Expected>, Fault> {
        let Some(index) = &self.index else {
            return Ok(None);
        };
        let json = index.get(&expected_key(id)).await?;
        Ok(json.and_then(|json| serde_json::from_str(&json).ok()))
    }

    async fn write(&self, name: &FileName, content: Vec<u8>) -> Result<(), Fault> {
        let (destination, at) = (self.destination.clone(), name.clone());
        blocking(move || -> anyhow::Result<()> {
            let present = destination
                .stat(&at)?
                .is_some_and(|found| found.size == content.len() as u64);
            if present && hash(destination.read(&at)?)?.0 == Digest::of(&content) {
                return Ok(());
            }
            let mut pending = destination.create(&at)?;
            pending.write_all(&content)?;
            Ok(pending.commit(SystemTime::now())?)
        })
        .await
        .with_context(|| format!("writing {name}"))
        .map_err(Fault::Transient)
    }
}

fn row(expected: &Expected, seconds_restore: f64, slot: &str) -> ReportRow {
    ReportRow {
        file_id: expected.file.id().as_str().to_owned(),
        name: expected.file.name.as_str().to_owned(),
        format: report_format(expected.file.name.as_str()),
        raw_bytes: expected.file.bytes,
        packed_bytes: expected.packed_bytes,
        records: expected.records,
        stages: expected
            .stages
            .iter()
            .map(StageNumbers::to_report)
            .collect(),
        compressed_at_millis: Some(expected.compressed_millis),
        restored_at_millis: Some(clock::now_millis()),
        seconds_compress: expected.stages.iter().map(|stage| stage.seconds).sum(),
        seconds_restore,
        outcome: Outcome::Restored,
        slot: slot.to_owned(),
        ..ReportRow::default()
    }
}
