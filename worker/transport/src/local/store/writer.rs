//! The writer thread: all calls that are queued when it wakes share one transaction, are committed once, and only then
//! answered. While a receiver waits it also looks for what other processes changed.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::Notify;

use super::{Hooks, QUEUES, Shared, Step, StepError, StepResult, StoreTask, now_millis};
use crate::local::db;

/// The most calls that share a transaction; keeps the wait of other processes short.
const MAX_BATCH: usize = 512;
/// The shortest time between two polls for what other processes changed.
const POLL: Duration = Duration::from_millis(50);
/// Between two checks for ended processes while a receiver waits.
const SESSION_CHECK: Duration = Duration::from_secs(1);
/// Without any change for so long, the write-ahead log's space is given back.
const IDLE: Duration = Duration::from_secs(1);
/// On a full disk it is given back no more often than this.
const SPACE_RETRY: Duration = Duration::from_secs(1);
/// Between two checks that the database still has its name.
const NAME_CHECK: Duration = Duration::from_secs(1);
/// Between two removals of old entries while there is work.
const REMOVAL: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct Writer {
    conn: Connection,
    path: PathBuf,
    shared: Arc<Shared>,
    hooks: Hooks,
    last_change: Instant,
    last_poll: Instant,
    last_session_check: Instant,
    last_removal: Option<Instant>,
    data_version: i64,
    synced: Option<bool>,
    name: DatabaseName,
    /// Whether the write-ahead log may hold something.
    has_log: bool,
    emptied_at: Option<Instant>,
}

impl Writer {
    pub(super) fn new(conn: Connection, path: PathBuf, shared: &Arc<Shared>, hooks: Hooks) -> Self {
        Self {
            name: DatabaseName::of(&path),
            conn,
            path,
            shared: Arc::clone(shared),
            hooks,
            last_change: Instant::now(),
            last_poll: Instant::now(),
            last_session_check: Instant::now(),
            last_removal: None,
            data_version: 0,
            synced: None,
            has_log: true,
            emptied_at: None,
        }
    }

    /// Runs until the last sender is dropped.
    pub(super) fn run(&mut self, tasks: &mpsc::Receiver<Box<dyn StoreTask>>) {
        loop {
            let first = match self.wait(tasks) {
                Ok(task) => task,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.poll_changes();
                    continue;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            };
            let mut batch = vec![first];
            batch.extend(tasks.try_iter().take(MAX_BATCH - 1));
            self.transact(batch);
            if self.shared.needs_space.swap(false, Ordering::SeqCst) {
                self.release_space();
            }
            if self.last_poll.elapsed() >= POLL {
                // Own work must not keep receivers from what other processes send.
                self.poll_changes();
            }
        }
    }

    fn wait(
        &self,
        tasks: &mpsc::Receiver<Box<dyn StoreTask>>,
    ) -> Result<Box<dyn StoreTask>, mpsc::RecvTimeoutError> {
        let has_receivers = self.shared.waiting.load(Ordering::SeqCst) > 0;
        if !has_receivers && self.has_log {
            return tasks.recv_timeout(IDLE);
        }
        if !has_receivers {
            // A receiver sends a task before it waits, so nothing is missed in here.
            return tasks
                .recv()
                .map_err(|_| mpsc::RecvTimeoutError::Disconnected);
        }
        let pause = match self.last_change.elapsed().as_secs() {
            0..5 => POLL,
            5..60 => POLL * 2,
            _ => POLL * 5,
        };
        tasks.recv_timeout(pause)
    }

    /// Finds what other processes changed, which visibility timeouts ran out, and whether a process has ended.
    fn poll_changes(&mut self) {
        self.last_poll = Instant::now();
        if let Ok(version) = self.data_version()
            && version != self.data_version
        {
            self.data_version = version;
            self.last_change = Instant::now();
            self.has_log = true;
            self.shared.arrivals.iter().for_each(Notify::notify_waiters);
        }
        for queue in (self.hooks.expired)(&self.conn, now_millis()).unwrap_or_default() {
            if let Some(arrival) = usize::try_from(queue)
                .ok()
                .and_then(|q| self.shared.arrivals.get(q))
            {
                arrival.notify_one();
            }
        }
        if self.last_session_check.elapsed() >= SESSION_CHECK {
            self.last_session_check = Instant::now();
            let ended = (self.hooks.ended_sessions)(&self.conn, &self.shared.session);
            if ended.is_ok_and(|ended| !ended.is_empty()) {
                self.transact(vec![Box::new(Reclaim(self.hooks.reclaim))]);
            }
        }
        self.empty_log_when_idle();
    }

    /// Releases the write-ahead log's space once nothing changes: it would stay as large as it ever was.
    fn empty_log_when_idle(&mut self) {
        if self.has_log && self.last_change.elapsed() >= IDLE {
            // A process that uses the database at this moment leaves some of it: then the next change is followed by a try.
            self.has_log = false;
            // Emptying it looks like a change to the other processes: each would follow the other's for ever.
            if db::has_log(&self.conn) {
                let _ = db::empty_log(&mut self.conn);
            }
        }
    }

    /// The same at once on a full disk, where that space may be all there is.
    fn release_space(&mut self) {
        let is_due = |at: Instant| at.elapsed() >= SPACE_RETRY;
        if self.emptied_at.is_none_or(is_due) {
            let _ = db::empty_log(&mut self.conn);
            self.emptied_at = Some(Instant::now());
        }
    }

    fn data_version(&self) -> rusqlite::Result<i64> {
        self.conn
            .prepare_cached("PRAGMA data_version")?
            .query_row([], |row| row.get(0))
    }

    fn transact(&mut self, batch: Vec<Box<dyn StoreTask>>) {
        let changes_before = self.conn.total_changes();
        let mut rest = batch.into_iter();
        while rest.len() > 0 {
            self.transact_some(&mut rest);
        }
        if self.conn.total_changes() != changes_before {
            self.last_change = Instant::now();
            self.has_log = true;
        }
    }

    /// Runs tasks until none is left or the database rolled the whole transaction back, then answers those that ran.
    fn transact_some(&mut self, tasks: &mut std::vec::IntoIter<Box<dyn StoreTask>>) {
        let mut ran = Vec::with_capacity(tasks.len());
        if self.name.is_taken(&self.path) {
            let why = format!(
                "{} or its -wal file is not the one that this process opened: put the same files back, all of them, or start \
                 the process again, which goes on with what is there",
                self.path.display()
            );
            for task in tasks {
                task.answer(Err(&why), &self.path);
            }
            return;
        }
        let outcome = self.run_all(tasks, &mut ran);
        let (commit, woken) = match outcome {
            Ok(woken) => (Ok(()), woken),
            Err(error) => {
                if !self.conn.is_autocommit() {
                    let _ = self.conn.execute_batch("ROLLBACK");
                }
                if ran.is_empty() {
                    // Not even begun: all of them are answered, or this would loop for ever.
                    ran.extend(tasks.by_ref());
                }
                if error.sqlite_error_code() == Some(ErrorCode::DiskFull) {
                    self.shared.needs_space.store(true, Ordering::SeqCst);
                }
                (Err(db::explain(&self.path, error).to_string()), [0; QUEUES])
            }
        };
        for task in ran {
            task.answer(commit.as_ref().copied().map_err(String::as_str), &self.path);
        }
        for (arrival, messages) in self.shared.arrivals.iter().zip(woken) {
            // As many receivers as there are messages: more would find nothing.
            (0..messages).for_each(|_| arrival.notify_one());
        }
    }

    fn run_all(
        &mut self,
        tasks: &mut std::vec::IntoIter<Box<dyn StoreTask>>,
        ran: &mut Vec<Box<dyn StoreTask>>,
    ) -> rusqlite::Result<[u32; QUEUES]> {
        self.sync_commits(tasks.as_slice().iter().any(|task| task.durable()))?;
        self.execute("BEGIN IMMEDIATE")?;
        let shared = Arc::clone(&self.shared);
        let mut step = Step {
            conn: &self.conn,
            session: &shared.session,
            now: now_millis(),
            woken: [0; QUEUES],
        };
        if self
            .last_removal
            .is_none_or(|last| last.elapsed() >= REMOVAL)
        {
            if let Err(StepError::Sql(error)) = (self.hooks.remove_old)(&mut step) {
                return Err(error);
            }
            self.last_removal = Some(Instant::now());
        }
        for mut task in tasks.by_ref() {
            let saved = step
                .conn
                .prepare_cached("SAVEPOINT task")
                .and_then(|mut s| s.execute([]));
            let woken = step.woken;
            let keep = saved.is_ok() && task.run(&mut step);
            if task.found_full_disk() {
                shared.needs_space.store(true, Ordering::SeqCst);
            }
            ran.push(task);
            saved?;
            if self.conn.is_autocommit() {
                // The disk is full or failed, as this task's own answer says: SQLite has rolled everything back by itself.
                return Err(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT),
                    Some("the transaction was rolled back".into()),
                ));
            }
            if !keep {
                step.conn.prepare_cached("ROLLBACK TO task")?.execute([])?;
                step.woken = woken;
            }
            step.conn.prepare_cached("RELEASE task")?.execute([])?;
        }
        let woken = step.woken;
        self.execute("COMMIT")?;
        Ok(woken)
    }

    /// Whether the next commit waits for the disk. One that waits also makes durable what was committed before it.
    fn sync_commits(&mut self, synced: bool) -> rusqlite::Result<()> {
        if self.synced != Some(synced) {
            // Takes effect when it is compiled, so it must not come from the cache.
            self.conn.execute_batch(match synced {
                true => "PRAGMA synchronous = FULL",
                false => "PRAGMA synchronous = NORMAL",
            })?;
            self.synced = Some(synced);
        }
        Ok(())
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.conn.prepare_cached(sql)?.execute([]).map(drop)
    }
}

/// Whether the open database is still the file of its name, and its write-ahead log that of its own: what is written into a file
/// without a name is lost, and other processes use the one that has the name.
struct DatabaseName {
    opened: Option<FileIdentity>,
    /// Of the write-ahead log, once it is there.
    log: Option<FileIdentity>,
    is_taken: bool,
    checked: Instant,
}

/// Device and inode.
type FileIdentity = (u64, u64);

impl DatabaseName {
    /// Of a database that was just opened.
    fn of(path: &Path) -> Self {
        Self {
            opened: identity(path).ok(),
            log: None,
            is_taken: false,
            checked: Instant::now(),
        }
    }

    /// Whether another file has the name of the database or of its log, or none; as of a moment ago.
    fn is_taken(&mut self, path: &Path) -> bool {
        if self.checked.elapsed() >= NAME_CHECK {
            self.checked = Instant::now();
            let log = db::log_path(path);
            if self.log.is_none() {
                self.log = identity(&log).ok();
            }
            self.is_taken = is_another(self.opened, path) || is_another(self.log, &log);
        }
        self.is_taken
    }
}

/// Whether what was opened is not found any more under its name. What cannot be looked at is taken for the same, and so is what
/// has another inode where this process has a file of that name open: some file systems' inodes are not stable.
fn is_another(opened: Option<FileIdentity>, path: &Path) -> bool {
    match (opened, identity(path)) {
        (Some(opened), Ok(found)) => opened != found && !is_open_here(path),
        (Some(_), Err(error)) => error.kind() == io::ErrorKind::NotFound,
        (None, _) => false,
    }
}

/// Whether this process has the file open that has this name now, as far as the system tells.
fn is_open_here(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else {
        return false;
    };
    let descriptors = std::fs::read_dir("/proc/self/fd");
    let mut descriptors = descriptors.into_iter().flatten().flatten();
    descriptors.any(|it| std::fs::read_link(it.path()).is_ok_and(|opened| opened == path))
}

fn identity(path: &Path) -> io::Result<FileIdentity> {
    let file = std::fs::metadata(path)?;
    Ok((file.dev(), file.ino()))
}

/// Makes available what ended processes held.
struct Reclaim(fn(&mut Step<'_>) -> StepResult<()>);

impl StoreTask for Reclaim {
    fn durable(&self) -> bool {
        false
    }

    fn run(&mut self, step: &mut Step<'_>) -> bool {
        (self.0)(step).is_ok()
    }

    fn answer(self: Box<Self>, _: Result<(), &str>, _: &Path) {}
}
