//! The database's one writer thread in this process. Everything that waits when it looks up is done in one
//! transaction, committed once, and only then answered: many callers share one sync of the disk.
//! It also watches, while somebody waits, for what other processes did. It does not know what the work is.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::Connection;
use tokio::sync::{Notify, oneshot};

use super::session::Session;
use super::{db, queue};
use crate::doors::{DoorError, DoorResult};

/// The most calls that share a transaction; keeps the wait of other processes short.
const MAX_BATCH: usize = 512;
/// How often, at most, it is looked for what other processes did.
const LOOK: Duration = Duration::from_millis(50);
/// How often ended processes are looked for while somebody waits.
const SESSION_CHECK: Duration = Duration::from_secs(1);
/// How often old entries are cleared out while there is work.
const CLEARING: Duration = Duration::from_secs(60);

/// How many queues the folder has; each has a bell of its own.
pub(super) const QUEUES: usize = 4;

/// The way to the writer thread; shared by all handles of one opened folder.
#[derive(Debug)]
pub(super) struct Store {
    jobs: mpsc::Sender<Box<dyn Job>>,
    shared: Arc<Shared>,
}

/// What handles and the thread both see.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) session: Session,
    bells: [Notify; QUEUES],
    waiting: AtomicUsize,
}

/// One call's part of a transaction.
pub(super) struct Step<'a> {
    pub(super) conn: &'a Connection,
    pub(super) session: &'a Session,
    /// Milliseconds since 1970, the same for all of a transaction.
    pub(super) now: i64,
    woken: [bool; QUEUES],
}

impl Step<'_> {
    /// Notes that something became receivable in `queue`; waiting receivers are woken after the commit.
    pub(super) fn ring(&mut self, queue: i64) {
        if let Some(bell) = usize::try_from(queue)
            .ok()
            .and_then(|q| self.woken.get_mut(q))
        {
            *bell = true;
        }
    }
}

/// Why a step failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// The database could not.
    Sql(rusqlite::Error),
    /// The answer is an error; what the step wrote is taken back.
    Door(DoorError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<DoorError> for Fault {
    fn from(error: DoorError) -> Self {
        Self::Door(error)
    }
}

/// What a step answers.
pub(super) type StepResult<T> = Result<T, Fault>;

/// Work for the writer thread.
pub(super) trait Job: Send {
    /// Whether nobody waits for the answer any more and the work need not be done.
    fn abandoned(&self) -> bool;
    /// Does the work inside a transaction; true when what it wrote is to be kept.
    fn run(&mut self, step: &mut Step<'_>) -> bool;
    /// Called after the commit.
    fn answer(self: Box<Self>, commit: Result<(), &str>, path: &Path);
}

struct Call<T, F> {
    work: Option<F>,
    result: Option<StepResult<T>>,
    reply: oneshot::Sender<DoorResult<T>>,
    droppable: bool,
}

impl<T, F> Job for Call<T, F>
where
    T: Send,
    F: FnOnce(&mut Step<'_>) -> StepResult<T> + Send,
{
    fn abandoned(&self) -> bool {
        self.droppable && self.reply.is_closed()
    }

    fn run(&mut self, step: &mut Step<'_>) -> bool {
        self.result = self.work.take().map(|work| work(step));
        matches!(self.result, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, commit: Result<(), &str>, path: &Path) {
        let answer = match (self.result, commit) {
            (Some(Ok(value)), Ok(())) => Ok(value),
            (Some(Err(Fault::Door(error))), _) => Err(error),
            (Some(Err(Fault::Sql(error))), _) => Err(db::explain(path, error)),
            (Some(Ok(_)) | None, Err(why)) => {
                Err(DoorError::unavailable(why, "nothing was written"))
            }
            (None, Ok(())) => return,
        };
        // Nobody waits any more: values that must not get lost give themselves back when dropped.
        let _ = self.reply.send(answer);
    }
}

impl Store {
    /// Starts the writer thread on `conn`.
    pub(super) fn start(conn: Connection, dir: &Path, session: Session) -> DoorResult<Self> {
        let (jobs, work) = mpsc::channel();
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            session,
            bells: Default::default(),
            waiting: AtomicUsize::new(0),
        });
        let mut writer = Writer {
            conn,
            path: dir.join(db::FILE_NAME),
            shared: Arc::clone(&shared),
            last_change: Instant::now(),
            last_look: Instant::now(),
            last_session_check: Instant::now(),
            last_clearing: None,
            data_version: 0,
        };
        thread::Builder::new()
            .name("streampress-db".into())
            .spawn(move || writer.work(&work))
            .map_err(|e| DoorError::unavailable("starting the database's thread", e))?;
        Ok(Self { jobs, shared })
    }

    pub(super) fn session(&self) -> &Session {
        &self.shared.session
    }

    pub(super) fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Runs `work` in the next transaction and answers when it is durable.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Step<'_>) -> StepResult<T> + Send + 'static,
    ) -> DoorResult<T> {
        self.enqueue(work, false)
            .await
            .unwrap_or_else(|_| Err(ended()))
    }

    /// The same for work that is left out when the caller has gone before it began.
    pub(super) async fn call_if_awaited<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Step<'_>) -> StepResult<T> + Send + 'static,
    ) -> DoorResult<T> {
        self.enqueue(work, true)
            .await
            .unwrap_or_else(|_| Err(ended()))
    }

    /// Runs `work` without anybody waiting for it.
    pub(super) fn post(&self, work: impl FnOnce(&mut Step<'_>) -> StepResult<()> + Send + 'static) {
        drop(self.enqueue(work, false));
    }

    fn enqueue<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Step<'_>) -> StepResult<T> + Send + 'static,
        droppable: bool,
    ) -> oneshot::Receiver<DoorResult<T>> {
        let (reply, answer) = oneshot::channel();
        // A failed send drops the reply with it, which the caller sees.
        let _ = self.jobs.send(Box::new(Call {
            work: Some(work),
            result: None,
            reply,
            droppable,
        }));
        answer
    }

    /// A waiting receiver's place; while one exists the thread watches for other processes' work.
    pub(super) fn wait_at(&self, queue: i64) -> Waiting<'_> {
        self.shared.waiting.fetch_add(1, Ordering::SeqCst);
        Waiting {
            shared: &self.shared,
            queue: usize::try_from(queue).unwrap_or(0) % QUEUES,
        }
    }
}

fn ended() -> DoorError {
    DoorError::unavailable("asking the database", "its thread has ended; start again")
}

/// See [`Store::wait_at`].
pub(super) struct Waiting<'a> {
    shared: &'a Shared,
    queue: usize,
}

impl Waiting<'_> {
    /// The bell that rings when something may have become receivable.
    pub(super) fn bell(&self) -> &Notify {
        // The index was brought into range when this was made.
        &self.shared.bells[self.queue]
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

struct Writer {
    conn: Connection,
    path: PathBuf,
    shared: Arc<Shared>,
    last_change: Instant,
    last_look: Instant,
    last_session_check: Instant,
    last_clearing: Option<Instant>,
    data_version: i64,
}

impl Writer {
    fn work(&mut self, jobs: &mpsc::Receiver<Box<dyn Job>>) {
        loop {
            let first = match self.wait(jobs) {
                Ok(job) => job,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.look_around();
                    continue;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            };
            let mut batch = vec![first];
            batch.extend(jobs.try_iter().take(MAX_BATCH - 1));
            batch.retain(|job| !job.abandoned());
            self.transact(batch);
            if self.last_look.elapsed() >= LOOK {
                // Own work must not keep receivers from what other processes send.
                self.look_around();
            }
        }
    }

    fn wait(
        &self,
        jobs: &mpsc::Receiver<Box<dyn Job>>,
    ) -> Result<Box<dyn Job>, mpsc::RecvTimeoutError> {
        if self.shared.waiting.load(Ordering::SeqCst) == 0 {
            // Whoever begins to wait sends a job first, so nothing is missed in here.
            return jobs
                .recv()
                .map_err(|_| mpsc::RecvTimeoutError::Disconnected);
        }
        let pause = match self.last_change.elapsed().as_secs() {
            0..5 => LOOK,
            5..60 => LOOK * 2,
            _ => LOOK * 5,
        };
        jobs.recv_timeout(pause)
    }

    /// Sees what other processes changed, and whether one of them has ended.
    fn look_around(&mut self) {
        self.last_look = Instant::now();
        if let Ok(version) = self.data_version()
            && version != self.data_version
        {
            self.data_version = version;
            self.last_change = Instant::now();
            self.shared.bells.iter().for_each(Notify::notify_waiters);
        }
        if self.last_session_check.elapsed() >= SESSION_CHECK {
            self.last_session_check = Instant::now();
            let ended = queue::sessions_ended(&self.conn, &self.shared.session);
            if ended.is_ok_and(|ended| !ended.is_empty()) {
                self.transact(vec![Box::new(Reclaim)]);
            }
        }
    }

    fn data_version(&self) -> rusqlite::Result<i64> {
        self.conn
            .prepare_cached("PRAGMA data_version")?
            .query_row([], |row| row.get(0))
    }

    fn transact(&mut self, batch: Vec<Box<dyn Job>>) {
        if batch.is_empty() {
            return;
        }
        let changes_before = self.conn.total_changes();
        let mut rest = batch.into_iter();
        while rest.len() > 0 {
            self.transact_some(&mut rest);
        }
        if self.conn.total_changes() != changes_before {
            self.last_change = Instant::now();
        }
    }

    /// Runs jobs until none is left or the database gave the whole transaction up, then answers those that ran.
    fn transact_some(&mut self, jobs: &mut std::vec::IntoIter<Box<dyn Job>>) {
        let mut ran = Vec::with_capacity(jobs.len());
        let outcome = self.run_all(jobs, &mut ran);
        let (commit, woken) = match outcome {
            Ok(woken) => (Ok(()), woken),
            Err(error) => {
                if !self.conn.is_autocommit() {
                    let _ = self.conn.execute_batch("ROLLBACK");
                }
                if ran.is_empty() {
                    // Not even begun: everybody is told, or this would go round for ever.
                    ran.extend(jobs.by_ref());
                }
                (
                    Err(db::explain(&self.path, error).to_string()),
                    [false; QUEUES],
                )
            }
        };
        for job in ran {
            job.answer(commit.as_ref().copied().map_err(String::as_str), &self.path);
        }
        for (bell, woken) in self.shared.bells.iter().zip(woken) {
            if woken {
                bell.notify_waiters();
            }
        }
    }

    fn run_all(
        &mut self,
        jobs: &mut std::vec::IntoIter<Box<dyn Job>>,
        ran: &mut Vec<Box<dyn Job>>,
    ) -> rusqlite::Result<[bool; QUEUES]> {
        self.execute("BEGIN IMMEDIATE")?;
        let shared = Arc::clone(&self.shared);
        let mut step = Step {
            conn: &self.conn,
            session: &shared.session,
            now: now_ms(),
            woken: [false; QUEUES],
        };
        for mut job in jobs.by_ref() {
            let saved = step
                .conn
                .prepare_cached("SAVEPOINT job")
                .and_then(|mut s| s.execute([]));
            let woken = step.woken;
            let keep = saved.is_ok() && job.run(&mut step);
            ran.push(job);
            saved?;
            if self.conn.is_autocommit() {
                // The disk is full or failed: SQLite has rolled everything back by itself.
                return Err(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL),
                    Some("the transaction was rolled back".into()),
                ));
            }
            if !keep {
                step.conn.prepare_cached("ROLLBACK TO job")?.execute([])?;
                step.woken = woken;
            }
            step.conn.prepare_cached("RELEASE job")?.execute([])?;
        }
        let woken = step.woken;
        if self
            .last_clearing
            .is_none_or(|last| last.elapsed() >= CLEARING)
        {
            if let Err(Fault::Sql(error)) = queue::clear_old(&mut step) {
                return Err(error);
            }
            self.last_clearing = Some(Instant::now());
        }
        self.execute("COMMIT")?;
        Ok(woken)
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.conn.prepare_cached(sql)?.execute([]).map(drop)
    }
}

/// Gives back what ended processes held.
struct Reclaim;

impl Job for Reclaim {
    fn abandoned(&self) -> bool {
        false
    }

    fn run(&mut self, step: &mut Step<'_>) -> bool {
        queue::reclaim(step).is_ok()
    }

    fn answer(self: Box<Self>, _: Result<(), &str>, _: &Path) {}
}
