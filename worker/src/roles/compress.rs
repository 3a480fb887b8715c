//! The compressor: one announced file in, records on the stream and one manifest out.
//!
//! The file is packed block by block while it is read, and the packed bytes go to the stream as they come, so memory
//! does not grow with the file. Its content is hashed on the way: a source that is not what was announced is never
//! passed on under the announced name and version.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::future::maybe_done;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tracing::{info, warn};

use crate::blocking;
use crate::clock;
use crate::consume::{Fault, Handler, MessageContext, Subject};
use crate::journal::FileJournal;
use crate::legacy::messages::LegacyAnnouncement;
use crate::message::record::{Owner, header_bytes};
use crate::message::s3_event::S3Event;
use crate::message::{
    Announcement, Digest, FileRef, Manifest, Records, STRICT_GROUP, Share, StageNumbers, VERSION,
};
use crate::roles::announce::Announcer;
use crate::roles::scan::SourceFilter;
use crate::telemetry::metrics::Meter;
use crate::telemetry::trace::{self, TraceContext};
use streampress_codec::hybrid;
use streampress_transport::{ChunkStream, Delivery, FileName, Outgoing, Position, Queue, Record};

/// A manifest above this goes to the stream and the message names its records: SQS takes 1 MiB, and room is left for
/// attributes and for services in between that still hold the older 256 KiB.
const LARGEST_MANIFEST_BYTES: usize = 200 * 1024;
/// Records are put to the stream in batches of about this many bytes.
const BATCH_BYTES: usize = 4 << 20;

/// A small file is this part of a block or less.
const SMALL: u64 = 16;

/// What becomes of a source file once it is packed and announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnCompressed {
    /// It stays.
    Keep,
    /// `_delete` before the extension, as the original does.
    Rename,
    /// It goes; the stream is then the only copy until it is restored.
    Delete,
}

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
    /// Largest record with its header, in bytes.
    pub record_bytes: usize,
    /// What becomes of the source.
    pub on_compressed: OnCompressed,
    /// Which of the files that a bucket tells of are taken.
    pub filter: SourceFilter,
    /// What this machine knows of its files, on the embedded transport.
    pub journal: Option<Arc<dyn FileJournal>>,
}

#[async_trait]
impl Handler for Compressor {
    async fn handle(&self, job: MessageContext<'_>) -> Result<(), Fault> {
        let delivery = job.delivery;
        if let Some(event) = S3Event::parse(&delivery.body) {
            return pass_on(&self.announcer, &self.filter, &event).await;
        }
        let announcement = self.announcement(&delivery.body).await?;
        self.check_source(&announcement.file).await?;
        // A file of more than one block is worth all threads.
        let threads = job
            .threads(announcement.file.bytes > self.options.block_size as u64)
            .await?;
        job.waited_since(announcement.announced_millis);
        // By message: handled twice, its second manifest is a duplicate; announced anew (redrive), it is not.
        let attempt = format!("{}/{}", job.held.attempt(), delivery.message_id);
        let packing = Instant::now();
        let manifest = self.pack(&announcement, &attempt, threads, job).await?;
        job.meter.stage("pack", packing.elapsed());
        job.ensure_owner()?;
        let announcing = Instant::now();
        self.announce_packed(&manifest).await?;
        job.meter.stage("announce", announcing.elapsed());
        job.packed(manifest.file.bytes, manifest.packed_bytes);
        if let Some(journal) = &self.journal {
            journal
                .record_compressed(manifest.file.id().as_str(), manifest.packed_bytes)
                .await?;
        }
        info!(
            raw_bytes = manifest.file.bytes,
            packed_bytes = manifest.packed_bytes,
            "File compressed."
        );
        Ok(())
    }

    fn subject(&self, delivery: &Delivery) -> Subject {
        announced_subject(&delivery.body)
    }

    /// It is packed sooner than its records and its message are answered.
    fn is_small(&self, delivery: &Delivery) -> bool {
        Announcement::parse(&delivery.body).is_ok_and(|it| self.is_small(&it.file))
    }

    async fn acknowledged(&self, delivery: &Delivery) {
        if let Ok(announcement) = Announcement::parse(&delivery.body) {
            tidy_source(&self.announcer, &announcement.file, self.on_compressed).await;
        }
    }

    async fn on_dead_lettered(&self, delivery: &Delivery, reason: &str, detail: &str) {
        let (Some(journal), Ok(announcement)) =
            (&self.journal, Announcement::parse(&delivery.body))
        else {
            return;
        };
        if let Err(fault) = journal
            .record_failed(
                announcement.file.id().as_str(),
                &format!("{reason}: {detail}"),
            )
            .await
        {
            warn!(error = %fault, "Could not record a failed file in the journal.");
        }
    }
}

impl Compressor {
    fn is_small(&self, file: &FileRef) -> bool {
        file.bytes <= self.options.block_size as u64 / SMALL
    }

    /// Ours, or the original's, which says no more than a name: then the file as it lies there now.
    async fn announcement(&self, body: &str) -> Result<Announcement, Fault> {
        let Ok(seed) = LegacyAnnouncement::parse(body) else {
            return Announcement::parse(body)
                .map_err(|error| Fault::permanent("UnreadableMessage", error));
        };
        let name =
            FileName::parse(&seed.file_name).map_err(|error| Fault::permanent("BadName", error))?;
        let (source, shown) = (self.announcer.source.clone(), name.clone());
        let entry = blocking(move || source.stat(&name))
            .await
            .map_err(|error| Fault::Transient(error.into()))?;
        let entry =
            entry.ok_or_else(|| source_missing(&shown, self.announcer.source.location()))?;
        let file = self
            .announcer
            .look(&entry)
            .await
            .map_err(Fault::Transient)?;
        Ok(Announcement {
            version: VERSION,
            file,
            announced_millis: clock::now_millis(),
            traceparent: None,
        })
    }

    /// Packs the file into the stream.
    async fn pack(
        &self,
        announcement: &Announcement,
        attempt: &str,
        threads: OwnedSemaphorePermit,
        job: MessageContext<'_>,
    ) -> Result<Manifest, Fault> {
        let file = &announcement.file;
        let owner = Owner::new(&file.id(), attempt);
        let (positions, summary) = self.stream_packed(file, &owner, threads, job).await?;
        if summary.hash != file.hash || summary.raw_bytes != file.bytes {
            return Err(self.announce_changed(file).await);
        }
        Ok(Manifest {
            version: VERSION,
            file: file.clone(),
            attempt: attempt.to_owned(),
            records: self.list(positions, &owner).await?,
            packed_bytes: summary.packed_bytes,
            stages: summary.stages,
            shares: summary.shares,
            announced_millis: announcement.announced_millis,
            compressed_millis: clock::now_millis(),
            traceparent: trace::current().map(|context| context.to_string()),
        })
    }

    /// Cheap looks before the work: is it there, and is it still the size and version announced?
    async fn check_source(&self, file: &FileRef) -> Result<(), Fault> {
        let (source, name) = (self.announcer.source.clone(), file.name.clone());
        let found = blocking(move || source.stat(&name))
            .await
            .map_err(|error| {
                Fault::Transient(
                    anyhow::Error::from(error).context(format!("looking for {}", file.name)),
                )
            })?;
        match found {
            None => Err(source_missing(&file.name, &file.location)),
            Some(entry) if entry.size != file.bytes => Err(self.announce_changed(file).await),
            Some(_) => Ok(()),
        }
    }

    /// The source is not what was announced: the old message is a dead letter, the new content is announced.
    async fn announce_changed(&self, file: &FileRef) -> Fault {
        match announce_current(&self.announcer, file).await {
            Ok(()) => Fault::permanent(
                "SourceChanged",
                format!(
                    "{} changed after it was announced; its present content has been announced anew",
                    file.name
                ),
            ),
            Err(fault) => fault,
        }
    }

    /// Reads, packs and appends at once; the answer holds once all records are durable.
    async fn stream_packed(
        &self,
        file: &FileRef,
        owner: &Owner,
        threads: OwnedSemaphorePermit,
        job: MessageContext<'_>,
    ) -> Result<(Vec<Position>, Packed), Fault> {
        let cancel = Arc::new(AtomicBool::new(false));
        let _cancel_when_dropped = SetOnDrop(cancel.clone());
        let (frames, packed) = mpsc::channel::<Bytes>(4);
        // What is packed stays in memory until the stream has it, so that others wait unless it is small.
        let (until_packed, _until_put) = match self.is_small(file) {
            true => (Some(threads), None),
            false => (None, Some(threads)),
        };
        let packing = {
            let (source, name, options) = (
                self.announcer.source.clone(),
                file.name.clone(),
                self.options,
            );
            let cancel = cancel.clone();
            blocking(move || {
                let _threads = until_packed;
                let reader = source
                    .read(&name)
                    .map_err(streampress_codec::CodecError::Read)?;
                let mut sink = |frame: &[u8]| {
                    frames
                        .blocking_send(Bytes::copy_from_slice(frame))
                        .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
                };
                hybrid::pack(reader, &mut sink, &options, &cancel)
            })
        };
        // It may be done before it is stopped.
        let mut packing = std::pin::pin!(maybe_done(packing));
        let appending = self.append_all(packed, owner, job.meter);
        let both = async { tokio::join!(packing.as_mut(), appending).1 };
        let appended = tokio::select! {
            appended = both => appended,
            () = job.stop.cancelled() => {
                // The stream may take its time; records that no manifest names are nobody's, so they are not waited for.
                cancel.store(true, Ordering::Relaxed);
                packing.await;
                return Err(Fault::Interrupted);
            }
        };
        // A stream that refuses is the cause; that packing then found nobody to write to is its echo.
        let positions = appended?;
        let Some(packed) = packing.take_output() else {
            return Err(Fault::Interrupted);
        };
        let summary = packed.map_err(|error| pack_fault(file, error))?;
        Ok((positions, Packed::from(summary)))
    }

    /// Cuts packed bytes into records and appends them in batches. The first carries the trace, which takes its room there.
    async fn append_all(
        &self,
        mut packed: mpsc::Receiver<Bytes>,
        owner: &Owner,
        meter: &Meter,
    ) -> Result<Vec<Position>, Fault> {
        let mut trace = trace::current();
        let (mut positions, mut waiting, mut index) = (Vec::new(), BytesMut::new(), 0u32);
        loop {
            let frame = packed.recv().await;
            let ended = frame.is_none();
            meter.moved();
            waiting.extend_from_slice(&frame.unwrap_or_default());
            if waiting.len() < BATCH_BYTES && !ended {
                continue;
            }
            let mut records = Vec::new();
            while waiting.len() >= self.payload_bytes(trace) || (ended && !waiting.is_empty()) {
                let payload = waiting.split_to(self.payload_bytes(trace).min(waiting.len()));
                records.push(Record {
                    // Any shard.
                    key: String::new(),
                    data: owner.seal(index, &payload, trace.take()),
                });
                index += 1;
            }
            if !records.is_empty() {
                positions.extend(self.stream.append(records).await?);
            }
            if ended {
                return Ok(positions);
            }
        }
    }

    /// What fits a record beside its header.
    fn payload_bytes(&self, trace: Option<TraceContext>) -> usize {
        self.record_bytes
            .min(self.stream.max_record_bytes())
            .saturating_sub(header_bytes(trace))
            .max(1)
    }

    /// The list of records itself goes to the stream when it is too long for a message.
    async fn list(&self, positions: Vec<Position>, owner: &Owner) -> Result<Records, Fault> {
        let json =
            serde_json::to_vec(&positions).map_err(|error| Fault::Transient(error.into()))?;
        if json.len() <= LARGEST_MANIFEST_BYTES {
            return Ok(Records::Inline(positions));
        }
        let records = json
            .chunks(self.payload_bytes(None))
            .zip(0u32..)
            .map(|(part, index)| Record {
                key: String::new(),
                data: owner.seal(index, part, None),
            })
            .collect();
        Ok(Records::Indirect(self.stream.append(records).await?))
    }

    async fn announce_packed(&self, manifest: &Manifest) -> Result<(), Fault> {
        let file = &manifest.file;
        let message = Outgoing {
            group: if self.announcer.strict {
                STRICT_GROUP.to_owned()
            } else {
                file.group()
            },
            dedup_id: format!(
                "{}-{}",
                &file.id().as_str()[..40],
                &Digest::of(manifest.attempt.as_bytes()).as_str()[..16]
            ),
            body: manifest.to_json(),
            attributes: trace::current().map(trace::attributes).unwrap_or_default(),
        };
        Ok(self.chunks_queue.send(vec![message]).await?)
    }
}

/// A bucket's event becomes an announcement of ours: under its file's own group, where the rule that sent it has one group
/// for all. A source that is put aside is a new object too, and its event must not make it a new file.
pub async fn pass_on(
    announcer: &Announcer,
    filter: &SourceFilter,
    event: &S3Event,
) -> Result<(), Fault> {
    let location = announcer.source.location();
    let name = match event.created {
        true => event
            .name_below(location)
            .map_err(|error| Fault::permanent("BadName", error))?,
        false => None,
    };
    let Some(name) = name.filter(|name| filter.takes(name)) else {
        info!(
            bucket = event.bucket,
            key = event.key,
            "An event of no file of this pipeline; skipped."
        );
        return Ok(());
    };
    let (source, shown) = (announcer.source.clone(), name.clone());
    let entry = blocking(move || source.stat(&name))
        .await
        .map_err(|error| Fault::Transient(error.into()))?;
    let entry = entry.ok_or_else(|| source_missing(&shown, location))?;
    announcer
        .announce(&entry)
        .await
        .map(drop)
        .map_err(Fault::Transient)
}

/// What an announcement of any kind is about.
pub fn announced_subject(body: &str) -> Subject {
    if let Ok(ours) = Announcement::parse(body) {
        return Subject {
            file_id: Some(ours.file.id().as_str().to_owned()),
            file_name: Some(ours.file.name.to_string()),
            traceparent: ours.traceparent,
        };
    }
    let named = LegacyAnnouncement::parse(body).map(|seed| seed.file_name);
    Subject {
        file_name: named
            .ok()
            .or_else(|| S3Event::parse(body).map(|event| event.key)),
        ..Subject::default()
    }
}

/// Announces what the source holds now under the name of `file`, even if that was announced a moment ago.
pub async fn announce_current(announcer: &Announcer, file: &FileRef) -> Result<(), Fault> {
    let (source, name) = (announcer.source.clone(), file.name.clone());
    let entry = blocking(move || source.stat(&name))
        .await
        .map_err(|error| Fault::Transient(error.into()))?;
    let entry = entry.ok_or_else(|| source_missing(&file.name, &file.location))?;
    let current = announcer.look(&entry).await.map_err(Fault::Transient)?;
    announcer
        .announce_again(&current)
        .await
        .map_err(Fault::Transient)
}

/// The dead letter of a file that is not there.
pub fn source_missing(name: &FileName, location: &str) -> Fault {
    Fault::permanent(
        "SourceMissing",
        format!("{name} is not in {location}; put it back and run 'streampress redrive'"),
    )
}

fn pack_fault(file: &FileRef, error: streampress_codec::CodecError) -> Fault {
    match error {
        streampress_codec::CodecError::Cancelled => Fault::Interrupted,
        streampress_codec::CodecError::Read(error) if error.kind() == io::ErrorKind::NotFound => {
            source_missing(&file.name, &file.location)
        }
        error => {
            Fault::Transient(anyhow::Error::from(error).context(format!("packing {}", file.name)))
        }
    }
}

/// Renames or deletes the source of an acknowledged file, unless it has changed since.
pub async fn tidy_source(announcer: &Announcer, file: &FileRef, what: OnCompressed) {
    if what == OnCompressed::Keep {
        return;
    }
    let (source, file) = (announcer.source.clone(), file.clone());
    let tidied = blocking(move || -> io::Result<()> {
        let unchanged = source.stat(&file.name)?.is_some_and(|now| {
            now.size == file.bytes && clock::nanos(now.modified) == file.modified_nanos
        });
        match what {
            OnCompressed::Rename if unchanged => source.rename(&file.name, &renamed(&file.name)),
            OnCompressed::Delete if unchanged => source.remove(&file.name),
            _ => Ok(()),
        }
    });
    if let Err(error) = tidied.await {
        warn!(%error, "Could not tidy a source file away; it stays where it is.");
    }
}

/// `a/b.json` becomes `a/b_delete.json`.
fn renamed(name: &FileName) -> FileName {
    let (folder, base) = name
        .as_str()
        .rsplit_once('/')
        .map_or(("", name.as_str()), |(folder, base)| (folder, base));
    let base = match base.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => format!("{stem}_delete.{extension}"),
        _ => format!("{base}_delete"),
    };
    let full = if folder.is_empty() {
        base
    } else {
        format!("{folder}/{base}")
    };
    // Only a name at the very limit cannot grow; it then stays what it is.
    FileName::parse(&full).unwrap_or_else(|_| name.clone())
}

/// What the manifest says of the packing.
struct Packed {
    hash: Digest,
    raw_bytes: u64,
    packed_bytes: u64,
    stages: Vec<StageNumbers>,
    shares: Vec<Share>,
}

impl From<hybrid::Summary> for Packed {
    fn from(summary: hybrid::Summary) -> Self {
        let shares = summary
            .shares
            .iter()
            .map(|((transform, codec), share)| Share {
                label: format!("{} · {}", transform.name(), codec.name()),
                bytes: share.packed_bytes,
            });
        let stage = StageNumbers {
            name: "Step 01 pack".to_owned(),
            bytes_in: summary.raw_bytes,
            bytes_out: summary.packed_bytes,
            seconds: summary.wall_time.as_secs_f64(),
        };
        Self {
            hash: summary.hash.into(),
            raw_bytes: summary.raw_bytes,
            packed_bytes: summary.packed_bytes,
            shares: shares.collect(),
            stages: vec![stage],
        }
    }
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renamed_source_keeps_its_folder_and_extension() {
        for (from, to) in [
            ("a.json", "a_delete.json"),
            ("x.y/b", "x.y/b_delete"),
            (".log", ".log_delete"),
            ("d/a.tar.csv", "d/a.tar_delete.csv"),
        ] {
            assert_eq!(renamed(&FileName::parse(from).expect("good")).as_str(), to);
        }
    }
}
