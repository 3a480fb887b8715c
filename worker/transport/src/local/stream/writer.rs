//! The thread that appends to this process's segment, rotates it, and removes segments that are too old.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;

use super::known::{self, FoundSegment};
use super::segment::{self, Hashed};
use super::{SUFFIX, number_of, path_of, session_of, shard_name};
use crate::local::queue::{QuotedNames, quoted_names};
use crate::local::store::Store;
use crate::local::{db, disk_fault, sync_folder};
use crate::{TransportError, TransportResult};

/// Between two removals of old segments.
const SWEEP: Duration = Duration::from_secs(3600);
/// In a message whose records are listed in the stream instead of in the message.
const LIST_MARK: &str = "\"listed\"";
/// Stops collecting callers for one sync beyond this, so that the first of them need not wait long.
const MAX_GROUP_BYTES: usize = 16 * 1024 * 1024;

/// Records of one caller; answered with their segment and offsets when they are durable.
pub(super) struct Append {
    pub(super) records: Vec<Hashed>,
    pub(super) reply: oneshot::Sender<TransportResult<(Arc<str>, Vec<u64>)>>,
}

impl Append {
    fn bytes(&self) -> usize {
        self.records.iter().map(Hashed::len).sum()
    }
}

/// The way to the thread.
#[derive(Debug)]
pub(super) struct AppendSender {
    appends: mpsc::Sender<Append>,
    thread: thread::JoinHandle<()>,
}

impl AppendSender {
    /// An error when the thread has ended.
    pub(super) fn send(&self, append: Append) -> Result<(), mpsc::SendError<Append>> {
        self.appends.send(append)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

/// See the module.
pub(super) struct SegmentWriter {
    folder: PathBuf,
    store: Arc<Store>,
    retention: Duration,
    segment_bytes: u64,
    current: Option<Segment>,
    number: u32,
    swept_at: Instant,
    /// Whether a thread removes segments now.
    is_removing: Arc<AtomicBool>,
    /// The last append failed: the log says so once.
    is_failing: bool,
}

struct Segment {
    name: Arc<str>,
    file: File,
    /// Where the first record is.
    start: u64,
    /// The end of what is durable.
    end: u64,
    last_append: SystemTime,
}

impl SegmentWriter {
    pub(super) fn new(
        folder: &Path,
        store: &Arc<Store>,
        (retention, segment_bytes): (Duration, u64),
    ) -> Self {
        Self {
            folder: folder.to_owned(),
            store: Arc::clone(store),
            retention,
            segment_bytes,
            current: None,
            number: 0,
            swept_at: Instant::now(),
            is_removing: Arc::default(),
            is_failing: false,
        }
    }

    /// Removes old segments once, then runs until the last sender is dropped.
    pub(super) fn start(mut self) -> TransportResult<AppendSender> {
        self.sweep();
        let (appends, work) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("streampress-log".into())
            .spawn(move || self.work(&work))
            .map_err(|e| TransportError::unavailable("starting the stream's thread", e))?;
        Ok(AppendSender { appends, thread })
    }

    fn work(&mut self, appends: &mpsc::Receiver<Append>) {
        loop {
            let first = match appends.recv_timeout(SWEEP.saturating_sub(self.swept_at.elapsed())) {
                Ok(append) => append,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.sweep();
                    continue;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            };
            let mut bytes = first.bytes();
            let mut group = vec![first];
            while bytes < MAX_GROUP_BYTES
                && let Ok(append) = appends.try_recv()
            {
                bytes += append.bytes();
                group.push(append);
            }
            self.append(group);
        }
    }

    fn append(&mut self, group: Vec<Append>) {
        let outcome = self.write(&group);
        if let Err(error) = &outcome {
            if !self.is_failing {
                tracing::warn!(%error, "Could not append to the stream.");
            }
            self.abandon();
            if matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ) {
                self.store.release_space();
            }
        }
        self.is_failing = outcome.is_err();
        match outcome {
            Ok((name, starts)) => {
                for (append, starts) in group.into_iter().zip(starts) {
                    let _ = append.reply.send(Ok((Arc::clone(&name), starts)));
                }
            }
            Err(error) => {
                for append in group {
                    let again = disk_fault("writing to the stream", &self.folder, copy(&error));
                    let _ = append.reply.send(Err(again));
                }
            }
        }
        if self
            .current
            .as_ref()
            .is_some_and(|segment| segment.end >= self.segment_bytes)
        {
            self.current = None;
            self.sweep();
        }
    }

    fn write(&mut self, group: &[Append]) -> io::Result<(Arc<str>, Vec<Vec<u64>>)> {
        self.leave_changed();
        let segment = match &mut self.current {
            Some(segment) => segment,
            none => {
                let begun = begin(&self.folder, self.store.session().id(), &mut self.number)?;
                none.insert(begun)
            }
        };
        let mut end = segment.end;
        let mut starts = Vec::with_capacity(group.len());
        for append in group {
            let (from, behind) =
                segment::append(&mut segment.file, &segment.name, end, &append.records)?;
            starts.push(from);
            end = behind;
        }
        segment.file.sync_data()?;
        if !is_as_written(&path_of(&self.folder, &segment.name), &segment.file, end)? {
            let why = format!(
                "the segment {} was changed by another program; a new one is begun",
                segment.name
            );
            return Err(io::Error::other(why));
        }
        segment.end = end;
        segment.last_append = SystemTime::now();
        Ok((Arc::clone(&segment.name), starts))
    }

    /// Leaves a segment that another program has changed since the last append, and what it has put there.
    fn leave_changed(&mut self) {
        let is_changed = self.current.as_ref().is_some_and(|segment| {
            let path = path_of(&self.folder, &segment.name);
            !is_as_written(&path, &segment.file, segment.end).unwrap_or(false)
        });
        if is_changed && let Some(segment) = self.current.take() {
            tracing::warn!(
                segment = &*segment.name,
                "Another program has changed, moved or removed the file that the stream was written to; a new one is begun. \
                 Its records may have to be made again."
            );
        }
    }

    /// After a failed write or sync it is unknown what is on the disk: never append to that file again.
    fn abandon(&mut self) {
        if let Some(segment) = self.current.take() {
            let path = path_of(&self.folder, &segment.name);
            let bytes = segment.file.metadata().map_or(0, |it| it.len());
            // Frees space on a full disk; what was acknowledged stays, and what others have put there.
            if segment.end > segment.start {
                let _ = (bytes > segment.end).then(|| segment.file.set_len(segment.end));
            } else if is_as_written(&path, &segment.file, bytes).unwrap_or(false) {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Removes segments whose newest record is older than the retention time, that the database knows for as long, and that no
    /// message needs. Only their own process touches those of a living one, since it might be about to append.
    fn sweep(&mut self) {
        self.swept_at = Instant::now();
        if self
            .current
            .as_ref()
            .is_some_and(|s| older(s.last_append, self.retention))
        {
            self.current = None;
        }
        let own = self.store.session().id();
        let current = self.current.as_ref().map(|segment| &*segment.name);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(shard) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)) else {
                continue;
            };
            let Some(session) = session_of(shard) else {
                continue;
            };
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            let is_old = metadata
                .modified()
                .is_ok_and(|modified| older(modified, self.retention));
            // Asked only of old ones: it opens a file.
            let is_foreign_and_alive = || session != own && self.store.session().is_alive(session);
            found.push(FoundSegment {
                name: shard.to_owned(),
                bytes: metadata.len(),
                is_old: is_old && Some(shard) != current && !is_foreign_and_alive(),
            });
        }
        let retention = i64::try_from(self.retention.as_millis()).unwrap_or(i64::MAX);
        let (dir, folder) = (self.store.dir().to_owned(), self.folder.clone());
        let is_removing = Arc::clone(&self.is_removing);
        self.store.post(move |step| {
            let removable = known::take_in(step, &found, retention)?;
            if !removable.is_empty() && !is_removing.swap(true, Ordering::SeqCst) {
                start_removing(dir, folder, removable, is_removing);
            }
            Ok(())
        });
    }
}

/// In a thread of its own, since a backlog of messages takes long to read: meanwhile records are appended and messages
/// written. What is not removed now is a candidate of the next sweep.
fn start_removing(
    dir: PathBuf,
    folder: PathBuf,
    candidates: Vec<String>,
    is_removing: Arc<AtomicBool>,
) {
    let ended = Arc::clone(&is_removing);
    let started = thread::Builder::new()
        .name("streampress-sweep".into())
        .spawn(move || {
            if let Err(error) = remove_unneeded(&dir, &folder, &candidates) {
                tracing::debug!(%error, "Could not look which old segments are needed.");
            }
            is_removing.store(false, Ordering::SeqCst);
        });
    if let Err(error) = started {
        ended.store(false, Ordering::SeqCst);
        tracing::debug!(%error, "Could not start to remove old segments.");
    }
}

/// Whether the name still leads to this file, and it has just so many bytes. Where another program has changed it, a reader
/// would not find what is appended.
fn is_as_written(path: &Path, file: &File, bytes: u64) -> io::Result<bool> {
    let named = match fs::metadata(path) {
        Ok(named) => named,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let open = file.metadata()?;
    let is_same = (named.dev(), named.ino()) == (open.dev(), open.ino());
    Ok(is_same && named.len() == bytes)
}

/// Removes the segments among `candidates` that no message of the database in `dir` names, waiting or dead.
fn remove_unneeded(dir: &Path, folder: &Path, candidates: &[String]) -> TransportResult<()> {
    let conn = db::connect_existing(dir)?;
    let named = quoted_names(&conn, |text| session_of(text).is_some(), LIST_MARK);
    let named = named.map_err(|e| db::explain(&dir.join(db::FILE_NAME), e))?;
    for shard in candidates {
        if is_needed(shard, &named) {
            continue;
        }
        let removed = fs::remove_file(path_of(folder, shard));
        tracing::debug!(
            shard,
            ok = removed.is_ok(),
            "Removed a segment that is older than the retention time."
        );
    }
    Ok(())
}

/// A message that names a list of records names only the list's segments. The records are before it, in segments of the
/// same process.
fn is_needed(shard: &str, named: &QuotedNames) -> bool {
    let is_before = |list: &String| {
        session_of(list) == session_of(shard) && number_of(shard) <= number_of(list)
    };
    named.all.contains(shard) || named.marked.iter().any(is_before)
}

fn older(time: SystemTime, retention: Duration) -> bool {
    // A time in the future (the clock was set back) is not old.
    time.elapsed().is_ok_and(|age| age > retention)
}

fn begin(folder: &Path, session: &str, number: &mut u32) -> io::Result<Segment> {
    *number += 1;
    let name = shard_name(session, *number);
    let path = path_of(folder, &name);
    let mut file = OpenOptions::new()
        .append(true)
        .create_new(true)
        .open(&path)?;
    let begun = segment::begin(&mut file).and_then(|start| sync_folder(folder).map(|()| start));
    let start = begun.inspect_err(|_| {
        // Nothing names it yet; a full disk must not fill with empty segments.
        let _ = fs::remove_file(&path);
    })?;
    Ok(Segment {
        name: name.into(),
        file,
        start,
        end: start,
        last_append: SystemTime::now(),
    })
}

/// The same fault for another caller.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
