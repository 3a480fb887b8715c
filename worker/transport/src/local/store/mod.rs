//! Access to the database: calls are closures that run on one writer thread per process and are answered when what
//! they wrote is durable. Knows how calls are queued, committed and answered, not what they do; what the thread does
//! besides calls is given to [`Store::start`] as [`Hooks`].

mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::{Notify, oneshot};

use self::writer::Writer;
use super::db;
use super::session::Session;
use crate::{TransportError, TransportResult};

/// How many queues the folder has, dead letters' too; receivers of each are woken separately.
pub(super) const QUEUES: usize = Which::ReceiptsDead as usize + 1;

/// Which of the folder's queues; the number is in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Files = 0,
    FilesDead = 1,
    Chunks = 2,
    ChunksDead = 3,
    Receipts = 4,
    ReceiptsDead = 5,
}

/// The way to the writer thread; shared by all handles of one opened folder.
#[derive(Debug)]
pub(super) struct Store {
    tasks: mpsc::Sender<Box<dyn StoreTask>>,
    shared: Arc<Shared>,
}

/// What handles and the thread both see.
#[derive(Debug)]
pub(super) struct Shared {
    dir: PathBuf,
    session: Session,
    arrivals: [Notify; QUEUES],
    waiting: AtomicUsize,
    /// The disk is full: the database releases what it does not need.
    needs_space: AtomicBool,
}

/// What the writer thread does besides calls, given by the module that owns the tables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hooks {
    /// One entry, the queue, for every message that became receivable by the passing of time.
    pub(super) expired: fn(&Connection, now_millis: i64) -> rusqlite::Result<Vec<i64>>,
    /// The ended sessions that still hold something.
    pub(super) ended_sessions: fn(&Connection, &Session) -> rusqlite::Result<Vec<String>>,
    /// Makes available what ended sessions held.
    pub(super) reclaim: fn(&mut Step<'_>) -> StepResult<()>,
    /// Removes what is too old.
    pub(super) remove_old: fn(&mut Step<'_>) -> StepResult<()>,
}

/// One call's part of a transaction.
pub(super) struct Step<'a> {
    pub(super) conn: &'a Connection,
    pub(super) session: &'a Session,
    /// Milliseconds since 1970, the same for all of a transaction.
    pub(super) now: i64,
    woken: [u32; QUEUES],
}

impl Step<'_> {
    /// One more message can be received from `queue`: one waiting receiver is woken after the commit.
    pub(super) fn wake_receiver(&mut self, queue: i64) {
        if let Ok(queue) = usize::try_from(queue)
            && let Some(messages) = self.woken.get_mut(queue)
        {
            *messages += 1;
        }
    }
}

/// Why a step failed.
#[derive(Debug)]
pub(super) enum StepError {
    /// The database could not.
    Sql(rusqlite::Error),
    /// The answer is an error; what the step wrote is rolled back.
    Transport(TransportError),
}

impl From<rusqlite::Error> for StepError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<TransportError> for StepError {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}

/// What a step answers.
pub(super) type StepResult<T> = Result<T, StepError>;

/// Work for the writer thread.
trait StoreTask: Send {
    /// Whether what it writes must survive power loss before it is answered.
    fn durable(&self) -> bool;
    /// Does the work inside a transaction; true when what it wrote is to be kept.
    fn run(&mut self, step: &mut Step<'_>) -> bool;
    /// Whether it failed because the disk is full.
    fn found_full_disk(&self) -> bool {
        false
    }
    /// Called after the commit.
    fn answer(self: Box<Self>, commit: Result<(), &str>, path: &Path);
}

struct Call<T, F> {
    work: Option<F>,
    result: Option<StepResult<T>>,
    reply: oneshot::Sender<TransportResult<T>>,
    durable: bool,
}

impl<T, F> StoreTask for Call<T, F>
where
    T: Send,
    F: FnOnce(&mut Step<'_>) -> StepResult<T> + Send,
{
    fn durable(&self) -> bool {
        self.durable
    }

    fn run(&mut self, step: &mut Step<'_>) -> bool {
        self.result = self.work.take().map(|work| work(step));
        matches!(self.result, Some(Ok(_)))
    }

    fn found_full_disk(&self) -> bool {
        match &self.result {
            Some(Err(StepError::Sql(error))) => {
                error.sqlite_error_code() == Some(ErrorCode::DiskFull)
            }
            _ => false,
        }
    }

    fn answer(self: Box<Self>, commit: Result<(), &str>, path: &Path) {
        let answer = match (self.result, commit) {
            (Some(Ok(value)), Ok(())) => Ok(value),
            (Some(Err(StepError::Transport(error))), _) => Err(error),
            (Some(Err(StepError::Sql(error))), _) => Err(db::explain(path, error)),
            (Some(Ok(_)) | None, Err(why)) => {
                Err(TransportError::unavailable(why, "nothing was written"))
            }
            (None, Ok(())) => return,
        };
        // Fails when the caller is gone: see `Store::call`.
        let _ = self.reply.send(answer);
    }
}

impl Store {
    /// Starts the writer thread on `conn`.
    pub(super) fn start(
        conn: Connection,
        dir: &Path,
        session: Session,
        hooks: Hooks,
    ) -> TransportResult<Self> {
        let (tasks, queued) = mpsc::channel();
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            session,
            arrivals: Default::default(),
            waiting: AtomicUsize::new(0),
            needs_space: AtomicBool::new(false),
        });
        let mut writer = Writer::new(conn, dir.join(db::FILE_NAME), &shared, hooks);
        thread::Builder::new()
            .name("streampress-db".into())
            .spawn(move || writer.run(&queued))
            .map_err(|e| TransportError::unavailable("starting the database's thread", e))?;
        Ok(Self { tasks, shared })
    }

    pub(super) fn session(&self) -> &Session {
        &self.shared.session
    }

    pub(super) fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Runs `work` in the next transaction and answers when it is durable. The work is done even when the caller is
    /// gone meanwhile: an answer that must not get lost undoes itself when it is dropped.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Step<'_>) -> StepResult<T> + Send + 'static,
    ) -> TransportResult<T> {
        self.enqueue(work, true)
            .await
            .unwrap_or_else(|_| Err(ended()))
    }

    /// The same without a sync of the disk unless another call in the transaction needs one. What `work` writes survives
    /// the end of any process, but perhaps not power loss: for what may be repeated.
    pub(super) async fn call_unsynced<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Step<'_>) -> StepResult<T> + Send + 'static,
    ) -> TransportResult<T> {
        self.enqueue(work, false)
            .await
            .unwrap_or_else(|_| Err(ended()))
    }

    /// Runs `work` without waiting for it.
    pub(super) fn post(&self, work: impl FnOnce(&mut Step<'_>) -> StepResult<()> + Send + 'static) {
        drop(self.enqueue(work, false));
    }

    fn enqueue<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Step<'_>) -> StepResult<T> + Send + 'static,
        durable: bool,
    ) -> oneshot::Receiver<TransportResult<T>> {
        let (reply, answer) = oneshot::channel();
        // A failed send drops the reply with it, which the caller sees.
        let _ = self.tasks.send(Box::new(Call {
            work: Some(work),
            result: None,
            reply,
            durable,
        }));
        answer
    }

    /// The disk is full, as another writer into the folder found: the database releases the space that it does not need.
    pub(super) fn release_space(&self) {
        self.shared.needs_space.store(true, Ordering::SeqCst);
        // Wakes the thread.
        self.post(|_| Ok(()));
    }

    /// Registers a waiting receiver; while one exists the thread looks for other processes' changes.
    pub(super) fn wait_at(&self, queue: Which) -> Waiting<'_> {
        self.shared.waiting.fetch_add(1, Ordering::SeqCst);
        Waiting {
            shared: &self.shared,
            queue,
        }
    }
}

fn ended() -> TransportError {
    TransportError::unavailable("calling the database", "its thread has ended; start again")
}

/// See [`Store::wait_at`].
pub(super) struct Waiting<'a> {
    shared: &'a Shared,
    queue: Which,
}

impl Waiting<'_> {
    /// Notified when something may have become receivable.
    pub(super) fn arrival(&self) -> &Notify {
        &self.shared.arrivals[self.queue as usize]
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Milliseconds since 1970.
fn now_millis() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
