//! The decompressor: one manifest in, the same file out.
//!
//! It takes exactly the records that the manifest names and believes only hashes. The file is written under a
//! temporary name, checked as a whole, then made visible; an older version never overwrites a newer one; a file that is
//! there already is acknowledged and skipped.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use futures::future::maybe_done;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::clock;
use crate::consume::{Fault, Handler, MessageContext, Subject};
use crate::journal::FileJournal;
use crate::message::record::Owner;
use crate::message::{Digest, FileRef, Manifest, Records, StageNumbers};
use crate::report::log::ReportLog;
use crate::roles::announce::hash;
use crate::telemetry::metrics::Meter;
use crate::{blocking, report};
use streampress_codec::hybrid;
use streampress_transport::{ChunkStream, Delivery, FileEntry, Files, Position};

/// Records are fetched in batches of about this many bytes.
const BATCH_BYTES: u64 = 4 << 20;
/// And of no more than this many, should a manifest say that they are smaller than they are.
const BATCH_RECORDS: usize = 64;
/// The longest list of records in bytes; 64 MiB name some 800,000 records, at 400 KiB each 300 GiB packed.
const LONGEST_LIST_BYTES: u64 = 64 << 20;

/// Most of a small file's record, a little more than the usual `recordSize`.
const SMALL_PACKED_BYTES: u64 = 512 << 10;
/// A file of this part of a block or less is held in memory without a thread.
const SMALL: u64 = 16;

/// The decompressor's work, format Hybrid.
#[derive(Debug)]
pub struct Decompressor {
    /// Where files are restored.
    pub destination: Arc<dyn Files>,
    /// Where records are.
    pub stream: Arc<dyn ChunkStream>,
    /// How much a file may ask for.
    pub limits: hybrid::Limits,
    /// Threads for one large file.
    pub threads: usize,
    /// A file above this many bytes is worth all threads.
    pub block_bytes: u64,
    /// The report, where one is wanted.
    pub report: Option<Arc<ReportLog>>,
    /// What this machine knows of its files, on the embedded transport.
    pub journal: Option<Arc<dyn FileJournal>>,
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
    async fn handle(&self, job: MessageContext<'_>) -> Result<(), Fault> {
        let manifest = Manifest::parse(&job.delivery.body)
            .map_err(|error| Fault::permanent("UnreadableMessage", error))?;
        let file = &manifest.file;
        match job.or_stop(self.present(file)).await? {
            Present::Same => {
                job.waited_since(manifest.compressed_millis);
                info!("File is restored already; skipped.");
                // It may have been made visible by one who was killed before saying so.
                if let Some(log) = &self.report {
                    log.add(row(
                        &manifest,
                        0.0,
                        job.held.slot(),
                        report::Outcome::Restored,
                    ))
                    .await;
                }
                self.note_restored(file).await
            }
            Present::Newer => {
                job.waited_since(manifest.compressed_millis);
                self.superseded(file).await
            }
            Present::Older => self.restore(&manifest, job).await,
        }
    }

    fn subject(&self, delivery: &Delivery) -> Subject {
        match Manifest::parse(&delivery.body) {
            Ok(manifest) => Subject {
                file_id: Some(manifest.file.id().as_str().to_owned()),
                file_name: Some(manifest.file.name.to_string()),
                traceparent: manifest.traceparent,
            },
            Err(_) => Subject::default(),
        }
    }

    fn is_small(&self, delivery: &Delivery) -> bool {
        Manifest::parse(&delivery.body).is_ok_and(|manifest| self.is_small(&manifest))
    }

    async fn acknowledged(&self, _delivery: &Delivery) {}

    async fn on_dead_lettered(&self, delivery: &Delivery, reason: &str, detail: &str) {
        let Ok(manifest) = Manifest::parse(&delivery.body) else {
            return;
        };
        if let Some(journal) = &self.journal
            && let Err(fault) = journal
                .record_failed(manifest.file.id().as_str(), &format!("{reason}: {detail}"))
                .await
        {
            warn!(error = %fault, "Could not record a failed file in the journal.");
        }
        if let Some(log) = &self.report {
            log.add(row(
                &manifest,
                0.0,
                "",
                report::Outcome::Failed {
                    reason: reason.to_owned(),
                    way_out: detail.to_owned(),
                },
            ))
            .await;
        }
    }
}

impl Decompressor {
    async fn present(&self, file: &FileRef) -> Result<Present, Fault> {
        let (destination, wanted) = (self.destination.clone(), file.clone());
        blocking(move || -> io::Result<Present> {
            let Some(found) = destination.stat(&wanted.name)? else {
                return Ok(Present::Older);
            };
            if found.size == wanted.bytes && hash(destination.read(&wanted.name)?)?.0 == wanted.hash
            {
                return Ok(Present::Same);
            }
            Ok(if is_newer(&found, &wanted) {
                Present::Newer
            } else {
                Present::Older
            })
        })
        .await
        .map_err(|error| looking_fault(file, error))
    }

    /// One block in one record that may wait in memory: unpacked sooner than the record is read.
    fn is_small(&self, manifest: &Manifest) -> bool {
        let Records::Inline(positions) = &manifest.records else {
            return false;
        };
        let packed_bytes: u64 = positions.iter().map(|at| u64::from(at.bytes)).sum();
        positions.len() <= 1
            && packed_bytes <= SMALL_PACKED_BYTES
            && manifest.file.bytes <= self.block_bytes
    }

    async fn superseded(&self, file: &FileRef) -> Result<(), Fault> {
        info!("A newer version is restored already; skipped.");
        match &self.journal {
            Some(journal) => Ok(journal.record_superseded(file.id().as_str()).await?),
            None => Ok(()),
        }
    }

    /// Whether a newer version has become visible while this one was unpacked: by somebody who got our message when its
    /// hiding ran out, and then the next of its group.
    async fn is_superseded(&self, file: &FileRef) -> Result<bool, Fault> {
        let (destination, wanted) = (self.destination.clone(), file.clone());
        let newer = blocking(move || -> io::Result<bool> {
            let found = destination.stat(&wanted.name)?;
            Ok(found.is_some_and(|found| is_newer(&found, &wanted)))
        });
        newer.await.map_err(|error| looking_fault(file, error))
    }

    async fn restore(&self, manifest: &Manifest, job: MessageContext<'_>) -> Result<(), Fault> {
        let file = &manifest.file;
        let owner = Owner::new(&file.id(), &manifest.attempt);
        let (payloads, fetched) = mpsc::channel::<Bytes>(16);
        // What is small is fetched first, so that the stream is asked for several files' records at once and no thread waits
        // for it.
        let (threads, unfetched) = if self.is_small(manifest) {
            let positions = self.positions(manifest, &owner).await?;
            job.or_stop(self.fetch_all(&owner, positions, payloads, job.meter))
                .await?;
            (job.threads(false).await?, None)
        } else {
            let threads = job.threads(file.bytes > self.block_bytes).await?;
            let positions = job.or_stop(self.positions(manifest, &owner)).await?;
            (threads, Some((positions, payloads)))
        };
        job.waited_since(manifest.compressed_millis);
        let started = Instant::now();
        let fetching = async {
            match unfetched {
                Some((positions, payloads)) => {
                    self.fetch_all(&owner, positions, payloads, job.meter).await
                }
                None => Ok(()),
            }
        };
        let pending = self.unpack(file, fetched, fetching, job).await?;
        job.meter.stage("unpack", started.elapsed());
        // A file in a bucket stays in memory until it is visible, so that others wait unless it is a small part of a block.
        let _threads = (file.bytes > self.block_bytes / SMALL).then_some(threads);
        if self.is_superseded(file).await? {
            return self.superseded(file).await;
        }
        job.ensure_owner()?;
        let (modified, committing) = (clock::from_nanos(file.modified_nanos), Instant::now());
        blocking(move || pending.commit(modified))
            .await
            .map_err(|error| {
                Fault::Transient(
                    anyhow::Error::from(error).context(format!("making {} visible", file.name)),
                )
            })?;
        job.meter.stage("commit", committing.elapsed());
        job.restored(manifest.packed_bytes, file.bytes);
        if let Some(log) = &self.report {
            log.add(row(
                manifest,
                started.elapsed().as_secs_f64(),
                job.held.slot(),
                report::Outcome::Restored,
            ))
            .await;
        }
        self.note_restored(file).await?;
        info!(
            raw_bytes = file.bytes,
            packed_bytes = manifest.packed_bytes,
            "File restored."
        );
        Ok(())
    }

    async fn note_restored(&self, file: &FileRef) -> Result<(), Fault> {
        match &self.journal {
            Some(journal) => Ok(journal.record_restored(file.id().as_str()).await?),
            None => Ok(()),
        }
    }

    /// The file's records, from the message or from the list that the message names.
    async fn positions(&self, manifest: &Manifest, owner: &Owner) -> Result<Vec<Position>, Fault> {
        let listed = match &manifest.records {
            Records::Inline(positions) => return Ok(positions.clone()),
            Records::Indirect(listed) => listed,
        };
        if listed
            .iter()
            .map(|position| u64::from(position.bytes))
            .sum::<u64>()
            > LONGEST_LIST_BYTES
        {
            return Err(Fault::permanent(
                "UnreadableMessage",
                "the list of records is longer than 64 MiB",
            ));
        }
        let mut json = Vec::new();
        for (record, index) in self.stream.fetch(listed).await?.iter().zip(0..) {
            json.extend_from_slice(
                &owner
                    .open(index, record)
                    .map_err(|error| Fault::permanent("RecordDamaged", error))?,
            );
        }
        serde_json::from_slice(&json).map_err(|error| {
            Fault::permanent("RecordDamaged", format!("the list of records: {error}"))
        })
    }

    /// Unpacks and writes what `fetching` sends to `payloads`; the answer is the whole file, checked and not yet visible.
    async fn unpack(
        &self,
        file: &FileRef,
        payloads: mpsc::Receiver<Bytes>,
        fetching: impl Future<Output = Result<(), Fault>>,
        job: MessageContext<'_>,
    ) -> Result<Box<dyn streampress_transport::PendingFile>, Fault> {
        let cancel = Arc::new(AtomicBool::new(false));
        let unpacking = {
            let (destination, name) = (self.destination.clone(), file.name.clone());
            let (limits, threads, cancel) = (self.limits, self.threads, cancel.clone());
            let modified = clock::from_nanos(file.modified_nanos);
            blocking(move || -> Result<_, streampress_codec::CodecError> {
                let mut pending = destination
                    .create_version(&name, modified)
                    .map_err(streampress_codec::CodecError::Write)?;
                let reader = ChannelReader {
                    payloads,
                    at_hand: Bytes::new(),
                };
                let summary = hybrid::unpack(reader, &mut pending, &limits, threads, &cancel)?;
                pending
                    .flush()
                    .map_err(streampress_codec::CodecError::Write)?;
                Ok((pending, summary))
            })
        };
        // It may be done before it is stopped.
        let mut unpacking = std::pin::pin!(maybe_done(unpacking));
        let both = async { tokio::join!(unpacking.as_mut(), fetching).1 };
        let fetched = tokio::select! {
            fetched = both => fetched,
            () = job.stop.cancelled() => {
                // The stream may take its time and is not waited for; the unfinished file is taken back.
                cancel.store(true, Ordering::Relaxed);
                unpacking.await;
                return Err(Fault::Interrupted);
            }
        };
        fetched?;
        let Some(unpacked) = unpacking.take_output() else {
            return Err(Fault::Interrupted);
        };
        let (pending, summary) = unpacked.map_err(|error| unpack_fault(file, error))?;
        if summary.raw_bytes != file.bytes || Digest::from(summary.hash) != file.hash {
            let detail = format!(
                "{} came out with another hash than it was announced with; nothing was written; redrive announces the source again",
                file.name
            );
            return Err(Fault::permanent("HashMismatch", detail));
        }
        Ok(pending)
    }

    async fn fetch_all(
        &self,
        owner: &Owner,
        positions: Vec<Position>,
        payloads: mpsc::Sender<Bytes>,
        meter: &Meter,
    ) -> Result<(), Fault> {
        let mut index = 0;
        let mut rest = positions.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|position| {
                bytes += u64::from(position.bytes);
                bytes <= BATCH_BYTES
            });
            let (batch, after) = rest.split_at(fits.count().clamp(1, BATCH_RECORDS));
            rest = after;
            for record in self.stream.fetch(batch).await? {
                meter.moved();
                let payload = owner
                    .open(index, &record)
                    .map_err(|error| Fault::permanent("RecordDamaged", error))?;
                index += 1;
                if payloads.send(payload).await.is_err() {
                    // Unpacking ended early: it says why.
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn is_newer(found: &FileEntry, wanted: &FileRef) -> bool {
    clock::nanos(found.modified) > wanted.modified_nanos
}

fn looking_fault(file: &FileRef, error: io::Error) -> Fault {
    Fault::Transient(
        anyhow::Error::from(error).context(format!("looking at the restored {}", file.name)),
    )
}

fn unpack_fault(file: &FileRef, error: streampress_codec::CodecError) -> Fault {
    match error {
        streampress_codec::CodecError::Cancelled => Fault::Interrupted,
        streampress_codec::CodecError::Write(error) => {
            Fault::Transient(anyhow::Error::from(error).context(format!("writing {}", file.name)))
        }
        error => Fault::permanent("BadFrame", format!("{}: {error:#}", file.name)),
    }
}

/// The file's line in the report; its times say how long it took from door to door.
fn row(
    manifest: &Manifest,
    seconds_restore: f64,
    slot: &str,
    outcome: report::Outcome,
) -> report::ReportRow {
    let file = &manifest.file;
    let records = match &manifest.records {
        Records::Inline(positions) | Records::Indirect(positions) => positions.len() as u64,
    };
    report::ReportRow {
        file_id: file.id().as_str().to_owned(),
        name: file.name.as_str().to_owned(),
        format: report_format(file.name.as_str()),
        raw_bytes: file.bytes,
        packed_bytes: manifest.packed_bytes,
        records,
        stages: manifest
            .stages
            .iter()
            .map(StageNumbers::to_report)
            .collect(),
        codec_shares: manifest
            .shares
            .iter()
            .map(|share| report::CodecShare {
                label: share.label.clone(),
                bytes: share.bytes,
            })
            .collect(),
        announced_at_millis: Some(manifest.announced_millis),
        compressed_at_millis: Some(manifest.compressed_millis),
        restored_at_millis: Some(clock::now_millis()),
        seconds_compress: manifest.stages.iter().map(|stage| stage.seconds).sum(),
        seconds_restore,
        outcome,
        slot: slot.to_owned(),
    }
}

/// What the report calls a file's kind: its extension.
pub fn report_format(name: &str) -> String {
    name.rsplit_once('.')
        .map_or_else(String::new, |(_, extension)| extension.to_ascii_lowercase())
}

/// Reads the payloads as one stream of bytes; ends when the fetching side is done or gave up.
struct ChannelReader {
    payloads: mpsc::Receiver<Bytes>,
    at_hand: Bytes,
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at_hand.is_empty() {
            match self.payloads.blocking_recv() {
                Some(payload) => self.at_hand = payload,
                None => return Ok(0),
            }
        }
        let bytes = buffer.len().min(self.at_hand.len());
        self.at_hand.copy_to_slice(&mut buffer[..bytes]);
        Ok(bytes)
    }
}
