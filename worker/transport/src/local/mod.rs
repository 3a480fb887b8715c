//! The embedded transport: queues and locks in one SQLite database, chunk bytes in append-only segment files, all in one
//! folder. What was acknowledged survives kill -9 and power loss; several processes may share the folder, and what one of
//! them held is free again as soon as it has ended.
//!
//! ```text
//! DIR/streampress.db       queues, lock slots, and tables of other modules
//! DIR/stream/*.seg         records; each file written by one process
//! DIR/sessions/*.lock      one per process, locked for as long as it lives
//! ```
//! The folder must lie on a local disk: file locks are not reliable on network file systems.

mod database;
mod db;
pub mod files;
mod lock;
mod queue;
mod session;
mod store;
mod stream;
#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;

pub use self::database::{Database, DatabaseStep, Migrations};

use self::lock::LocalLock;
use self::queue::LocalQueue;
use self::session::{Session, SharedPurpose};
use self::store::{Hooks, Store, Which};
use self::stream::LocalStream;
use super::{
    ChunkStream, FileVersion, Queue, SlotLock, StreamScan, TransportError, TransportResult,
};

pub(super) use self::db::FILE_NAME as DATABASE_NAME;

/// Segment files live here.
pub(super) const STREAM_FOLDER: &str = "stream";
/// Session files live here.
pub(super) const SESSIONS_FOLDER: &str = "sessions";

/// What the database's thread does for the queues besides their calls.
const QUEUE_HOOKS: Hooks = Hooks {
    expired: queue::expired,
    ended_sessions: queue::ended_sessions,
    reclaim: queue::reclaim,
    remove_old: queue::remove_old,
};

/// How the transport behaves; [`Default`] has the defaults of a pipeline.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// How long a received message stays invisible.
    pub visibility_timeout: Duration,
    /// A message received more often goes to the dead letters.
    pub max_receive_count: u32,
    /// How long the stream keeps records at least; those that a waiting message or a dead letter names are kept whatever their
    /// age.
    pub retention: Duration,
    /// How long a lock slot outlives its last renewal.
    pub lease: Duration,
    /// A segment file is closed when it has grown to this many bytes.
    pub segment_bytes: u64,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self {
            visibility_timeout: Duration::from_secs(60),
            max_receive_count: 20,
            retention: Duration::from_secs(24 * 3600),
            lease: Duration::from_secs(15),
            segment_bytes: 64 * 1024 * 1024,
        }
    }
}

/// An opened data folder. Cheap to clone; the folder is closed when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Local {
    store: Arc<Store>,
    files: Arc<LocalQueue>,
    chunks: Arc<LocalQueue>,
    receipts: Arc<LocalQueue>,
    stream: Arc<LocalStream>,
    lease: Duration,
    /// What this process works for, once it has said so.
    purpose: Arc<Mutex<Option<SharedPurpose>>>,
}

impl Local {
    /// Whether `dir` is a data folder. An empty database is none: it was lost.
    pub fn exists(dir: &Path) -> bool {
        let database = fs::metadata(dir.join(db::FILE_NAME));
        database.is_ok_and(|database| database.len() > 0)
    }

    /// Whether `dir` was a data folder that files went through, even if its database is lost since; an error where its stream
    /// cannot be listed, or is missing.
    pub fn has_stream(dir: &Path) -> io::Result<bool> {
        let mut segments = fs::read_dir(Self::stream_folder(dir))?;
        Ok(segments.next().is_some())
    }

    /// Where the stream of the data folder `dir` is.
    pub fn stream_folder(dir: &Path) -> PathBuf {
        dir.join(STREAM_FOLDER)
    }

    /// Fails where the database of `dir` is there and damaged, with what is wrong and the remedy. Reads all of it.
    pub fn check_database(dir: &Path) -> TransportResult<()> {
        db::check(dir)
    }

    /// Whether the path `below` a data folder is the transport's own.
    pub fn keeps(below: &Path) -> bool {
        let first = below.components().next();
        first.is_some_and(|first| files::is_transport_name(first.as_os_str()))
    }

    /// Opens `dir`, creating it if it is missing. Blocks for some milliseconds, and where a database is lost that was in use a moment
    /// ago, for up to three seconds. The error names the path and the
    /// remedy: not writable, disk full, damaged, another program's, or a newer version's.
    pub fn open(dir: &Path, options: LocalOptions) -> TransportResult<Self> {
        let (stream_folder, sessions) = (dir.join(STREAM_FOLDER), dir.join(SESSIONS_FOLDER));
        make_folder(dir)?;
        make_folder(&sessions)?;
        // One process opens at a time: creating the schema and switching to WAL must not overlap.
        let _opening = opening_lock(&sessions)?;
        if !Self::exists(dir) {
            stream::wait_for_next_epoch(&stream_folder);
        }
        let session = Session::begin(&sessions)
            .map_err(|e| disk_fault("beginning a session", &sessions, e))?;
        let (conn, epoch) = db::open(dir, stream::next_epoch(&stream_folder))?;
        if !stream_folder.is_dir() {
            ensure_not_needed(&conn, &stream_folder)?;
            make_folder(&stream_folder)?;
        }
        session.sweep();
        for folder in [dir, &sessions] {
            sync_folder(folder).map_err(|e| disk_fault("syncing the data folder", folder, e))?;
        }
        let store = Arc::new(Store::start(conn, dir, session, QUEUE_HOOKS)?);
        store.post(queue::reclaim);
        let stream = LocalStream::open(
            &stream_folder,
            &store,
            epoch,
            (options.retention, options.segment_bytes),
        )?;
        let queue = |queue, dead| {
            Arc::new(LocalQueue::new(
                &store,
                queue,
                dead,
                epoch,
                options.visibility_timeout,
                options.max_receive_count,
            ))
        };
        Ok(Self {
            files: queue((Which::Files, "files"), (Which::FilesDead, "files-dlq")),
            chunks: queue((Which::Chunks, "chunks"), (Which::ChunksDead, "chunks-dlq")),
            receipts: queue(
                (Which::Receipts, "receipts"),
                (Which::ReceiptsDead, "receipts-dlq"),
            ),
            stream: Arc::new(stream),
            lease: options.lease,
            store,
            purpose: Arc::default(),
        })
    }

    /// Says what this process works for, until the folder is closed. Any number of processes may work for the same purpose. Where
    /// living ones work for another one, that is the answer, and nothing is said. Blocks for some milliseconds.
    ///
    /// # Errors
    /// If the disk does not let it.
    pub fn work_for(&self, purpose: &str) -> TransportResult<Result<(), String>> {
        let sessions = self.dir().join(SESSIONS_FOLDER);
        let _opening = opening_lock(&sessions)?;
        let mut known = self.purpose.lock();
        // What was said before holds no longer.
        *known = None;
        let joined = SharedPurpose::join(&sessions, purpose)
            .map_err(|e| disk_fault("saying what this process works for", &sessions, e))?;
        Ok(joined.map(|joined| *known = Some(joined)))
    }

    /// The queue of file announcements.
    pub fn files_queue(&self) -> Arc<dyn Queue> {
        Arc::clone(&self.files) as Arc<dyn Queue>
    }

    /// The queue of chunk manifests.
    pub fn chunks_queue(&self) -> Arc<dyn Queue> {
        Arc::clone(&self.chunks) as Arc<dyn Queue>
    }

    /// The queue of receipts: what became of each file.
    pub fn receipts_queue(&self) -> Arc<dyn Queue> {
        Arc::clone(&self.receipts) as Arc<dyn Queue>
    }

    /// The stream of records.
    pub fn stream(&self) -> Arc<dyn ChunkStream> {
        Arc::clone(&self.stream) as Arc<dyn ChunkStream>
    }

    /// The newest version that the files queue can have announced by now.
    pub async fn last_version(&self) -> TransportResult<FileVersion> {
        self.files.last_version().await
    }

    /// Whether the files queue has the message of this version, which was never received.
    pub async fn waits_unreceived(&self, version: &FileVersion) -> TransportResult<bool> {
        self.files.waits_unreceived(version).await
    }

    /// Reads the segments of the stream that were appended to after the message of this version was sent.
    pub fn scan_after(&self, version: &FileVersion) -> StreamScan {
        let number = version.sequence().as_str().parse().unwrap_or(0);
        self.stream.scan_since(queue::time_of_number(number))
    }

    /// Reads the segments of the stream that were written before the folder's database was made, whose own one is lost.
    pub fn scan_of_earlier_databases(&self) -> StreamScan {
        self.stream.scan_of_earlier_databases()
    }

    /// The lock of a role with `slots` slots. Every process must name the same number.
    pub fn lock(&self, role: &str, slots: u32) -> Arc<dyn SlotLock> {
        Arc::new(LocalLock::new(&self.store, role, slots, self.lease))
    }

    /// Access to tables that another module keeps in the folder's database, after bringing them up to date. Blocks for some
    /// milliseconds. An error when the tables are a newer version's.
    pub fn database(&self, migrations: &Migrations) -> TransportResult<Database> {
        Database::open(&self.store, migrations)
    }

    /// The data folder.
    pub fn dir(&self) -> &Path {
        self.store.dir()
    }
}

fn make_folder(folder: &Path) -> TransportResult<()> {
    fs::create_dir_all(folder).map_err(|e| disk_fault("creating the data folder", folder, e))
}

/// Fails where the stream's folder, which is missing, held the records of waiting messages or dead letters: it was moved away or
/// its disk is not mounted, and a new one would make dead letters of them.
fn ensure_not_needed(conn: &Connection, stream_folder: &Path) -> TransportResult<()> {
    let shown = stream_folder.display();
    let manifests = queue::manifests(conn).map_err(|error| {
        TransportError::unavailable(format!("counting what is to be read from {shown}"), error)
    })?;
    match manifests {
        0 => Ok(()),
        _ => Err(TransportError::Invalid(format!(
            "{shown} is missing, and {manifests} packed file(s) are to be restored from it: put it back, or make an empty \
             folder there to go on without what it held"
        ))),
    }
}

fn opening_lock(sessions: &Path) -> TransportResult<File> {
    let path: PathBuf = sessions.join("opening");
    let fault = |e| disk_fault("locking the data folder", &path, e);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(fault)?;
    file.lock().map_err(fault)?;
    Ok(file)
}

/// Makes a folder's entries durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The path as a shell takes it.
pub fn shell_word(path: &Path) -> String {
    let path = path.display().to_string();
    // No path has a NUL, which alone cannot be quoted.
    shlex::try_quote(&path).map_or(path.clone(), Into::into)
}

/// What a disk's fault means for the user, and what to do about it.
pub(super) fn disk_fault(step: &str, path: &Path, error: io::Error) -> TransportError {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "make it writable for this user, or choose another data folder"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk is full; free some space, nothing is lost"
        }
        io::ErrorKind::FileTooLarge => {
            "this process may write no larger files: 'ulimit -f unlimited' before it"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "a file is in the way; move it, or choose another data folder"
        }
        io::ErrorKind::Unsupported => {
            "the disk takes no file locks; choose a data folder on a local disk"
        }
        io::ErrorKind::IsADirectory => "a folder is in the way of a file; move it",
        // The cause, which follows, says what is known.
        _ => return TransportError::unavailable(format!("{step} {}", path.display()), error),
    };
    TransportError::unavailable(format!("{step} {}: {remedy}", path.display()), error)
}
