//! The generator role: makes files at the source and announces them, one slot for all, its index in the slot's ledger.
//!
//! File number n is the same bytes whoever makes it, so a generator that died is followed by one that makes its last
//! files again, finds them there, and goes on.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, field, info, info_span, warn};

use crate::blocking;
use crate::clock;
use crate::message::{Digest, FileRef};
use crate::roles::announce::Announcer;
use crate::telemetry::metrics::Meter;
use crate::telemetry::trace;
use streampress_generator::Generator;
use streampress_transport::{FileName, Files, SlotGuard, SlotLock};

/// Without a rate, so many files may wait to be compressed before the generator waits too: the disk is not endless.
const MOST_WAITING: u64 = 64;
/// Between two looks at a slot or a queue that is full.
const PAUSE: Duration = Duration::from_millis(100);
/// After so many of these looks it is said what is waited for: 5 s.
const LOOKS_IN_SILENCE: u32 = 50;

/// The generator's work.
pub struct Generate {
    /// Makes the bytes.
    pub generator: Arc<Generator>,
    /// Begins every file's name.
    pub prefix: String,
    /// Where files go and how they are announced.
    pub announcer: Announcer,
    /// The generator's one slot.
    pub lock: Arc<dyn SlotLock>,
    /// Files to make in all; 0 is endless.
    pub files: u64,
    /// Files a minute; 0 is as fast as it can.
    pub files_per_minute: u32,
    /// What it counts.
    pub meter: Meter,
    /// Cancelled when the process shall end.
    pub shutdown: CancellationToken,
}

impl Generate {
    /// Makes files until all are made or it is shut down. Faults are logged and tried again.
    pub async fn run(&self) {
        while !self.shutdown.is_cancelled() {
            self.meter.ticked();
            let slot = match self.lock.try_acquire().await {
                Ok(slot) => slot,
                Err(fault) => {
                    warn!(error = %format!("{:#}", anyhow::Error::from(fault)), "Cannot take the generator's slot; trying again.");
                    None
                }
            };
            let Some(held) = slot else {
                self.pause(PAUSE * 10).await;
                continue;
            };
            self.meter.slot_taken();
            let made = self.make_all(&held).await;
            self.meter.slot_left(held.lost().is_cancelled());
            held.release().await;
            match made {
                Ok(true) => {
                    self.meter.rests();
                    return;
                }
                Ok(false) => {}
                Err(error) => {
                    warn!(error = %format!("{error:#}"), "Could not make a file; trying again.");
                    self.pause(PAUSE * 20).await;
                }
            }
        }
    }

    /// True when all files are made, false when told to stop before.
    async fn make_all(&self, held: &SlotGuard) -> Result<bool> {
        let first = held.ledger().index;
        let started = Instant::now();
        while self.files == 0 || held.ledger().index < self.files {
            let number = held.ledger().index;
            self.meter.ticked();
            if !self.may_go_on(held, started, number - first).await {
                return Ok(false);
            }
            let file = self.make_known(number).await?;
            self.meter.file(file.bytes, 0);
            held.count(|ledger| {
                ledger.index = number + 1;
                ledger.files += 1;
                ledger.bytes_out += file.bytes;
            });
        }
        info!(files = self.files, "All files are made.");
        Ok(true)
    }

    /// Makes a file and announces it; its trace begins here.
    async fn make_known(&self, number: u64) -> Result<FileRef> {
        let name = self.generator.file_name(&self.prefix, number);
        let span = info_span!(
            "file",
            role = "generator",
            file_id = field::Empty,
            file_name = name,
            trace_id = field::Empty,
        );
        let context = trace::place(&span, None);
        let at_work = span.clone();
        let work = async move {
            let making = Instant::now();
            let file = self
                .make(number, &name)
                .await
                .with_context(|| format!("making file {number}"))?;
            at_work.record("file_id", file.id().as_str());
            self.meter.stage("make", making.elapsed());
            let announcing = Instant::now();
            self.announcer.announce_known(&file).await?;
            self.meter.stage("announce", announcing.elapsed());
            Ok(file)
        };
        trace::scope(context, work).instrument(span).await
    }

    /// Waits for the rate, or for room in the queue; false when told to stop.
    async fn may_go_on(&self, held: &SlotGuard, started: Instant, made: u64) -> bool {
        if self.files_per_minute > 0 {
            let due = started
                + Duration::from_secs_f64(made as f64 * 60.0 / f64::from(self.files_per_minute));
            tokio::select! {
                () = self.shutdown.cancelled() => {}
                () = held.lost().cancelled() => {}
                () = tokio::time::sleep_until(due) => {}
            }
        } else {
            let mut looks = 0;
            // Unknown depth is not zero: without an answer it waits.
            while !self.stopped(held)
                && !matches!(self.announcer.files_queue.depth().await, Ok(depth) if depth.total() < MOST_WAITING)
            {
                looks += 1;
                if looks == LOOKS_IN_SILENCE {
                    info!(
                        most = MOST_WAITING,
                        "Waiting until the files queue tells of fewer files than may wait for a compressor."
                    );
                }
                self.meter.ticked();
                self.pause(PAUSE).await;
            }
        }
        !self.stopped(held)
    }

    fn stopped(&self, held: &SlotGuard) -> bool {
        self.shutdown.is_cancelled() || held.lost().is_cancelled()
    }

    async fn pause(&self, time: Duration) {
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = tokio::time::sleep(time) => {}
        }
    }

    /// Makes the file visible at the source, unless it lies there already.
    async fn make(&self, number: u64, name: &str) -> Result<FileRef> {
        let name = FileName::parse(name).map_err(anyhow::Error::msg)?;
        let (generator, source) = (self.generator.clone(), self.announcer.source.clone());
        blocking(move || -> Result<FileRef> {
            let mut bytes = Vec::new();
            generator.file(number, &mut bytes);
            let hash = Digest::of(&bytes);
            let modified = match unchanged(&*source, &name, &bytes)? {
                Some(modified) => modified,
                None => {
                    let mut pending = source.create(&name)?;
                    pending.write_all(&bytes)?;
                    pending.commit(SystemTime::now())?;
                    let entry = source
                        .stat(&name)?
                        .context("the file went away as soon as it was written")?;
                    entry.modified
                }
            };
            Ok(FileRef {
                location: source.location().to_owned(),
                name,
                bytes: bytes.len() as u64,
                hash,
                modified_nanos: clock::nanos(modified),
            })
        })
        .await
    }
}

/// The modification time of a file that has just this content.
fn unchanged(source: &dyn Files, name: &FileName, content: &[u8]) -> Result<Option<SystemTime>> {
    let Some(entry) = source.stat(name)? else {
        return Ok(None);
    };
    if entry.size != content.len() as u64 {
        return Ok(None);
    }
    let (hash, _) = crate::roles::announce::hash(source.read(name)?)?;
    Ok((hash == Digest::of(content)).then_some(entry.modified))
}
