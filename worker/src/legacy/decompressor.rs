//! The decompressor's work in the Python original's format.

use std::io::{self, Write};
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{info, warn};

use super::{LARGEST_FILE_BYTES, PackedFile, READ_LOCATION};
use crate::consume::{HandlerError, MessageContext};
use crate::destination::{self, Destination, PlacedVersion, Wanted};
use crate::journal::FileJournal;
use crate::message::{DeadLetterReason, Digest, LegacyManifest};
use crate::report::log::ReportLog;
use crate::report::{FileOutcome, ReportRow};
use crate::runtime::{self, blocking};
use crate::telemetry::metrics::Stage;
use streampress_codec::legacy;
use streampress_transport::{ChunkStream, Failure, FileName, PendingFile, Position, Sequence};

/// Records fetched at once; they are of up to 1 MiB.
const FETCHED_AT_ONCE: usize = 32;

/// The decompressor's work, format Seed.
#[derive(Debug)]
pub(crate) struct LegacyDecompressor {
    pub(crate) destination: Destination,
    pub(crate) stream: Arc<dyn ChunkStream>,
    pub(crate) report: Option<Arc<ReportLog>>,
    pub(crate) journal: Arc<dyn FileJournal>,
}

impl LegacyDecompressor {
    /// Restores the file that the message names.
    pub(crate) async fn restore(
        &self,
        message: &LegacyManifest,
        context: MessageContext<'_>,
    ) -> Result<(), HandlerError> {
        let started = Instant::now();
        let name = file_name(message)?;
        let _thread = context.one_thread().await?;
        let restored = context.or_stop(self.unpack(message, &name)).await?;
        let packed = PackedFile::load(&*self.journal, &message.id).await?;
        if let Some(packed) = &packed
            && packed.normalised != Digest::of(&restored)
        {
            return Err(HandlerError::permanent(
                DeadLetterReason::HashMismatch,
                format!("{name} differs after unpacking from what was packed; nothing was written"),
            ));
        }
        context.meter.stage(Stage::Unpack, started.elapsed());
        let (bytes, writing) = (restored.len() as u64, Instant::now());
        let original = packed.as_ref().map(|packed| packed.file.hash.clone());
        let placed = self.write(name, restored, original, context).await?;
        context.meter.stage(Stage::Commit, writing.elapsed());
        if placed == PlacedVersion::Superseded {
            info!("A later announcement of the file was restored already; skipped.");
            context.count_superseded();
            if let Some(packed) = &packed {
                let file_id = packed.file.id();
                let (id, packed_bytes) = (file_id.as_str(), packed.packed_bytes);
                self.journal.record_received(id, packed_bytes).await?;
                self.journal.record_superseded(id).await?;
                if let Some(report) = &self.report {
                    let row = packed.report_row(0.0, context.slot.slot());
                    let outcome = FileOutcome::Superseded;
                    report.add(ReportRow { outcome, ..row }).await;
                }
            }
            return Ok(());
        }
        let packed_bytes = packed.as_ref().map_or(0, |packed| packed.packed_bytes);
        if placed == PlacedVersion::InPlace {
            info!("The file is restored already; skipped.");
        } else {
            context.count_restored(packed_bytes, bytes);
            info!(raw_bytes = bytes, "File restored.");
        }
        if let Some(packed) = &packed {
            let file_id = packed.file.id();
            let restored = self.journal.record_restored(file_id.as_str(), packed_bytes);
            restored.await?;
            if let Some(report) = &self.report {
                let seconds = started.elapsed().as_secs_f64();
                report
                    .add(packed.report_row(seconds, context.slot.slot()))
                    .await;
            }
        }
        Ok(())
    }

    /// Records that the message is a dead letter.
    pub(crate) async fn record_failure(&self, message: &LegacyManifest, failure: &Failure) {
        let recorded = async {
            let Some(packed) = PackedFile::load(&*self.journal, &message.id).await? else {
                return Ok(());
            };
            if let Some(report) = &self.report {
                let (row, outcome) = (packed.report_row(0.0, ""), failure.into());
                report.add(ReportRow { outcome, ..row }).await;
            }
            let id = packed.file.id();
            let received = self
                .journal
                .record_received(id.as_str(), packed.packed_bytes);
            received.await?;
            self.journal.record_failed(id.as_str(), failure).await
        };
        if let Err(error) = recorded.await {
            warn!(%error, "Could not record a failed file in the journal.");
        }
    }

    async fn unpack(
        &self,
        message: &LegacyManifest,
        name: &FileName,
    ) -> Result<Vec<u8>, HandlerError> {
        let stages = message
            .stages()
            .map_err(|error| HandlerError::from(&error))?;
        let records = self.fetch(&positions(message)?, name).await?;
        let packed = legacy::PackedRecords { stages, records };
        let unpacked = blocking(move || legacy::unpack(&packed, LARGEST_FILE_BYTES as usize)).await;
        unpacked.map_err(|error| {
            HandlerError::permanent(DeadLetterReason::BadFrame, format!("{name}: {error}"))
        })
    }

    /// The message does not say how large the records are.
    async fn fetch(
        &self,
        positions: &[Position],
        name: &FileName,
    ) -> Result<Vec<Vec<u8>>, HandlerError> {
        let (mut records, mut bytes) = (Vec::with_capacity(positions.len()), 0);
        for batch in positions.chunks(FETCHED_AT_ONCE) {
            for record in self.stream.fetch(batch).await? {
                bytes += record.len();
                records.push(record.to_vec());
            }
            if bytes as u64 > LARGEST_FILE_BYTES {
                return Err(HandlerError::permanent(
                    DeadLetterReason::TooLarge,
                    format!(
                        "the records of {name} hold more than {LARGEST_FILE_BYTES} bytes, more than a file of this format"
                    ),
                ));
            }
        }
        Ok(records)
    }

    /// The format has no modification time: the file gets the time at which it is restored.
    async fn write(
        &self,
        name: FileName,
        content: Vec<u8>,
        original: Option<Digest>,
        context: MessageContext<'_>,
    ) -> Result<PlacedVersion, HandlerError> {
        let wanted = Wanted {
            version: context.delivery.version(),
            hash: Digest::of(&content),
            bytes: content.len() as u64,
            modified_nanos: runtime::nanos(runtime::now()),
            original,
            source_fingerprint: None,
            name,
        };
        if !self.destination.needs_content(&wanted).await? {
            let placed = self.destination.place(&wanted, None, context).await?;
            if placed != PlacedVersion::NeedsContent {
                return Ok(placed);
            }
        }
        let (destination, creating) = (self.destination.clone(), wanted.clone());
        let writing = blocking(move || -> io::Result<Box<dyn PendingFile>> {
            let mut pending = destination.create(&creating)?;
            pending.write_all(&content)?;
            Ok(pending)
        });
        let pending = writing
            .await
            .map_err(|error| destination::fault(error, "writing", &wanted))?;
        self.destination
            .place(&wanted, Some(pending), context)
            .await
    }
}

/// The file's name below the destination; a foreign folder before it is dropped.
pub(crate) fn file_name(message: &LegacyManifest) -> Result<FileName, HandlerError> {
    let full = message.file_name.as_str();
    let inside = full
        .strip_prefix(READ_LOCATION)
        .and_then(|rest| rest.strip_prefix('/'));
    let name = inside.unwrap_or_else(|| full.rsplit('/').next().unwrap_or(full));
    FileName::parse(name).map_err(|error| HandlerError::permanent(DeadLetterReason::BadName, error))
}

/// The records' positions in order. They are ordered as numbers; the original orders them as text.
fn positions(message: &LegacyManifest) -> Result<Vec<Position>, HandlerError> {
    let unreadable =
        |detail: String| HandlerError::permanent(DeadLetterReason::UnreadableMessage, detail);
    let mut sequences = Vec::new();
    for text in &message.sequence_number {
        let sequence = Sequence::parse(text)
            .ok_or_else(|| unreadable(format!("{text:?} is not a sequence number")))?;
        sequences.push(sequence);
    }
    if sequences.is_empty() {
        return Err(unreadable("the message names no records".into()));
    }
    sequences.sort();
    let position = |sequence| Position {
        shard: message.shard_id.clone(),
        sequence,
        bytes: 0,
    };
    Ok(sequences.into_iter().map(position).collect())
}
