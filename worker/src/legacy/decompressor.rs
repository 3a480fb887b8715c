//! The decompressor's work in the Python original's format.

use std::io::Write;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::Context;
use async_trait::async_trait;
use tracing::{info, warn};

use super::messages::LegacyManifest;
use super::{Expected, FETCHED_AT_ONCE, LARGEST_FILE_BYTES, expected_key};
use crate::blocking;
use crate::clock;
use crate::consume::{Fault, Handler, MessageContext, Subject};
use crate::journal::FileJournal;
use crate::message::{Digest, StageNumbers};
use crate::report::log::ReportLog;
use crate::report::{Outcome, ReportRow};
use crate::roles::announce::hash;
use crate::roles::decompress::report_format;
use streampress_codec::legacy;
use streampress_transport::{ChunkStream, Delivery, FileName, Files, Position, Sequence};

/// The decompressor's work, format Seed.
#[derive(Debug)]
pub struct LegacyDecompressor {
    /// Where files are restored.
    pub destination: Arc<dyn Files>,
    /// Where records are.
    pub stream: Arc<dyn ChunkStream>,
    /// What stands before a name in chunk messages.
    pub read_location: String,
    /// The report, where one is wanted.
    pub report: Option<Arc<ReportLog>>,
    /// What this machine knows of its files, on the embedded transport.
    pub journal: Option<Arc<dyn FileJournal>>,
}

#[async_trait]
impl Handler for LegacyDecompressor {
    async fn handle(&self, job: MessageContext<'_>) -> Result<(), Fault> {
        let started = Instant::now();
        let message = LegacyManifest::parse(&job.delivery.body).map_err(|error| {
            Fault::permanent(
                "UnreadableMessage",
                streampress_transport::error_chain(&error),
            )
        })?;
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
        job.ensure_owner()?;
        let (bytes, writing) = (restored.len() as u64, Instant::now());
        self.write(&name, restored).await?;
        job.meter.stage("commit", writing.elapsed());
        let packed_bytes = expected
            .as_ref()
            .map_or(0, |expected| expected.packed_bytes);
        job.restored(packed_bytes, bytes);
        if let Some(expected) = &expected {
            if let Some(journal) = &self.journal {
                journal.record_restored(expected.file.id().as_str()).await?;
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
        let message = LegacyManifest::parse(&delivery.body);
        Subject {
            file_name: message.ok().map(|message| message.file_name),
            ..Subject::default()
        }
    }

    fn is_small(&self, _delivery: &Delivery) -> bool {
        false
    }

    async fn acknowledged(&self, _delivery: &Delivery) {}

    async fn on_dead_lettered(&self, delivery: &Delivery, reason: &str, detail: &str) {
        let Ok(message) = LegacyManifest::parse(&delivery.body) else {
            return;
        };
        let (Some(journal), Ok(Some(expected))) = (&self.journal, self.expected(&message.id).await)
        else {
            return;
        };
        if let Err(fault) = journal
            .record_failed(expected.file.id().as_str(), &format!("{reason}: {detail}"))
            .await
        {
            warn!(error = %fault, "Could not record a failed file in the journal.");
        }
    }
}

impl LegacyDecompressor {
    fn name(&self, message: &LegacyManifest) -> Result<FileName, Fault> {
        let full = message.file_name.as_str();
        let inside = full
            .strip_prefix(self.read_location.as_str())
            .and_then(|rest| rest.strip_prefix('/'));
        let name = inside.unwrap_or_else(|| full.rsplit('/').next().unwrap_or(full));
        FileName::parse(name).map_err(|error| Fault::permanent("BadName", error))
    }

    async fn unpack(&self, message: &LegacyManifest, name: &FileName) -> Result<Vec<u8>, Fault> {
        let stages = message.stages().map_err(|error| {
            Fault::permanent(
                "UnreadableMessage",
                streampress_transport::error_chain(&error),
            )
        })?;
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
        let packed = legacy::PackedRecords { stages, records };
        let unpacked = blocking(move || legacy::unpack(&packed, LARGEST_FILE_BYTES as usize)).await;
        unpacked.map_err(|error| Fault::permanent("BadFrame", format!("{name}: {error}")))
    }

    async fn expected(&self, id: &str) -> Result<Option<Expected>, Fault> {
        let Some(journal) = &self.journal else {
            return Ok(None);
        };
        let json = journal.get(&expected_key(id)).await?;
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

pub(crate) fn row(expected: &Expected, seconds_restore: f64, slot: &str) -> ReportRow {
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
