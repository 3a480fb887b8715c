//! The embedded stream: append-only segment files, each written by one process only, so that processes never wait
//! for each other. One thread writes the records of all callers of this process and syncs once for all of them.
//! A shard is a segment, a sequence number the record's offset in it.

mod known;
mod scan;
mod segment;
mod writer;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use self::scan::ScannedSegments;
use self::segment::{Hashed, ReadFault};
use self::writer::{Append, AppendSender, SegmentWriter};
use super::session::begun_at;
use super::store::Store;
use crate::{
    ChunkStream, Position, Record, Sequence, StreamCounts, StreamScan, TransportError,
    TransportResult,
};

/// As large as Kinesis takes a record at most.
const MAX_RECORD_BYTES: usize = 10 * 1024 * 1024;
/// What a segment's file name ends with.
const SUFFIX: &str = ".seg";

/// The folder's stream.
#[derive(Debug)]
pub(super) struct LocalStream {
    folder: PathBuf,
    epoch: u64,
    retention: Duration,
    writer: AppendSender,
    counts: Mutex<StreamCounts>,
}

impl LocalStream {
    /// Opens `folder` (which exists) and removes what is older than `retention`, known to the database for as long, and needed by
    /// no message. The database was made in the second `epoch`.
    pub(super) fn open(
        folder: &Path,
        store: &Arc<Store>,
        epoch: u64,
        (retention, segment_bytes): (Duration, u64),
    ) -> TransportResult<Self> {
        let writer = SegmentWriter::new(folder, store, (retention, segment_bytes));
        Ok(Self {
            folder: folder.to_owned(),
            epoch,
            retention,
            writer: writer.start()?,
            counts: Mutex::default(),
        })
    }
}

#[async_trait]
impl ChunkStream for LocalStream {
    fn max_record_bytes(&self) -> usize {
        MAX_RECORD_BYTES
    }

    async fn append(&self, records: Vec<Record>) -> TransportResult<Vec<Position>> {
        if let Some(large) = records.iter().find(|r| r.data.len() > MAX_RECORD_BYTES) {
            return Err(TransportError::Invalid(format!(
                "a record of {} bytes does not fit into the stream, which takes {MAX_RECORD_BYTES}; use a smaller recordSize",
                large.data.len()
            )));
        }
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let records: Vec<Hashed> = records.into_iter().map(|r| Hashed::new(r.data)).collect();
        let sizes: Vec<u32> = records
            .iter()
            .map(|record| u32::try_from(record.len()).unwrap_or(u32::MAX))
            .collect();
        let (reply, answer) = oneshot::channel();
        let ended = || {
            TransportError::unavailable(
                "writing to the stream",
                "its thread has ended; start again",
            )
        };
        let appended = async {
            self.writer
                .send(Append { records, reply })
                .map_err(|_| ended())?;
            answer.await.map_err(|_| ended())?
        };
        let appended = appended.await;
        // Nothing is put again here: the caller does that when its message is redelivered.
        self.count(|counts| {
            let records = sizes.len() as u64;
            counts.sent += records;
            match &appended {
                Ok(_) => counts.acknowledged += records,
                Err(_) => counts.dead += records,
            }
        });
        let (shard, starts) = appended?;
        let positions = starts
            .into_iter()
            .zip(sizes)
            .map(|(start, bytes)| Position {
                shard: shard.to_string(),
                sequence: Sequence::from(start),
                bytes,
            });
        Ok(positions.collect())
    }

    async fn fetch(&self, positions: &[Position]) -> TransportResult<Vec<Bytes>> {
        let (folder, positions) = (self.folder.clone(), positions.to_vec());
        let retention = self.retention;
        let fetched = tokio::task::spawn_blocking(move || fetch(&folder, retention, &positions))
            .await
            .map_err(|e| TransportError::unavailable("reading from the stream", e))??;
        let bytes = fetched
            .iter()
            .map(|record| record.len() as u64)
            .sum::<u64>();
        self.count(|counts| {
            counts.reads += 1;
            counts.bytes_read += bytes;
            counts.bytes_served += bytes;
        });
        Ok(fetched)
    }

    async fn probe_fetch(&self) -> TransportResult<()> {
        ensure_folder(&self.folder)
    }

    fn scan(&self) -> StreamScan {
        scan::scan(&self.folder, ScannedSegments::All)
    }

    fn has_ended(&self) -> bool {
        self.writer.has_ended()
    }

    fn counts(&self) -> StreamCounts {
        *self.counts.lock()
    }
}

impl LocalStream {
    /// Reads only the segments that were appended to after this time.
    pub(super) fn scan_since(&self, since: SystemTime) -> StreamScan {
        scan::scan(&self.folder, ScannedSegments::AppendedAfter(since))
    }

    /// Reads only the segments that were written before this database was made.
    pub(super) fn scan_of_earlier_databases(&self) -> StreamScan {
        scan::scan(
            &self.folder,
            ScannedSegments::OfEarlierDatabases(self.epoch),
        )
    }

    fn count(&self, change: impl FnOnce(&mut StreamCounts)) {
        change(&mut self.counts.lock());
    }
}

fn fetch(
    folder: &Path,
    retention: Duration,
    positions: &[Position],
) -> TransportResult<Vec<Bytes>> {
    let mut open: Option<(&str, File, u64)> = None;
    let mut found = Vec::with_capacity(positions.len());
    for position in positions {
        let (file, file_bytes) = match &open {
            Some((shard, file, file_bytes)) if *shard == position.shard => (file, *file_bytes),
            _ => {
                let (file, file_bytes) = open_segment(folder, retention, position)?;
                let (_, file, _) = open.insert((&position.shard, file, file_bytes));
                (&*file, file_bytes)
            }
        };
        found.push(read(file, file_bytes, position)?);
    }
    Ok(found)
}

fn read(file: &File, file_bytes: u64, position: &Position) -> TransportResult<Bytes> {
    let missing = || TransportError::Missing(position.clone());
    if position.bytes as usize > MAX_RECORD_BYTES {
        return Err(missing());
    }
    let offset: u64 = position.sequence.as_str().parse().map_err(|_| missing())?;
    segment::read(file, file_bytes, &position.shard, offset, position.bytes).map_err(|fault| {
        match fault {
            ReadFault::Missing => missing(),
            ReadFault::Io(error) => {
                TransportError::unavailable(format!("reading {position} from the stream"), error)
            }
        }
    })
}

/// Fails where the stream's folder is not there, as where it was moved or its disk is not mounted: its segments are not lost.
fn ensure_folder(folder: &Path) -> TransportResult<()> {
    match folder.is_dir() {
        true => Ok(()),
        false => Err(TransportError::unavailable(
            format!("reading the stream in {}", folder.display()),
            "its folder is missing: put it back, or make an empty one to go on without what it holds",
        )),
    }
}

/// A segment that is not there was removed by its age, unless the process that wrote it has begun within the retention time:
/// then it is missing, as is one whose name none of ours could have.
fn open_segment(
    folder: &Path,
    retention: Duration,
    position: &Position,
) -> TransportResult<(File, u64)> {
    let Some(session) = session_of(&position.shard) else {
        return Err(TransportError::Missing(position.clone()));
    };
    let opened = File::open(path_of(folder, &position.shard))
        .and_then(|file| file.metadata().map(|meta| (file, meta.len())));
    opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            if let Err(error) = ensure_folder(folder) {
                return error;
            }
            let age = begun_at(session).and_then(|begun| begun.elapsed().ok());
            match age.is_some_and(|age| age >= retention) {
                true => TransportError::Expired(position.clone()),
                false => TransportError::Missing(position.clone()),
            }
        }
        _ => TransportError::unavailable(format!("reading {position} from the stream"), error),
    })
}

fn path_of(folder: &Path, shard: &str) -> PathBuf {
    folder.join(format!("{shard}{SUFFIX}"))
}

/// A segment's name: the session that writes it and a number.
fn shard_name(session: &str, number: u32) -> String {
    format!("{session}.{number}")
}

/// The session in a segment's name; `None` when it is none of our names, so that it cannot lead out of the folder.
fn session_of(shard: &str) -> Option<&str> {
    let (session, number) = shard.rsplit_once('.')?;
    let (since, random) = session.split_once('-')?;
    let hex = |text: &str| {
        !text.is_empty() && text.len() <= 16 && text.bytes().all(|b| b.is_ascii_hexdigit())
    };
    (hex(since) && hex(random) && number.parse::<u32>().is_ok()).then_some(session)
}

/// A process may begin its session up to this many seconds before the second in which it makes the database.
const BEGINS_BEFORE: u64 = 2;

/// The earliest epoch of a database that is made beside the segments of `folder`, whose own database is lost: later than that
/// one's, whatever the clock says.
pub(super) fn next_epoch(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let begun = entries.filter_map(|entry| {
        let name = entry.file_name();
        begun_second(name.to_str()?.strip_suffix(SUFFIX)?)
    });
    begun
        .max()
        .map_or(0, |begun| begun.saturating_add(BEGINS_BEFORE))
}

/// Waits until the clock has reached [`next_epoch`]: a database whose epoch is ahead of the clock would share it with the one that
/// follows if it is lost at once too. A clock that was set back by more is not waited for.
pub(super) fn wait_for_next_epoch(folder: &Path) {
    let next = UNIX_EPOCH + Duration::from_secs(next_epoch(folder));
    let ahead = next.duration_since(SystemTime::now()).unwrap_or_default();
    if ahead <= Duration::from_secs(BEGINS_BEFORE + 1) {
        std::thread::sleep(ahead);
    }
}

/// Whether a segment was written before the database of this epoch was made: which of its records are needed, an earlier
/// database knew.
fn is_of_earlier_database(shard: &str, epoch: u64) -> bool {
    begun_second(shard).is_some_and(|begun| begun.saturating_add(BEGINS_BEFORE) <= epoch)
}

/// When the process of a segment began, in seconds since 1970.
fn begun_second(shard: &str) -> Option<u64> {
    let begun = begun_at(session_of(shard)?)?;
    Some(begun.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// The number in a segment's name.
fn number_of(shard: &str) -> Option<u32> {
    shard.rsplit_once('.')?.1.parse().ok()
}
