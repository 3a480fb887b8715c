//! The way to the database: calls are closures that run on one writer thread per process and are answered when what
//! they wrote is durable. Knows how calls travel and who waits, not what the work is.

mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::Connection;
use tokio::sync::{Notify, oneshot};

use self::writer::Writer;
use super::db;
use super::session::Session;
use crate::{TransportError, TransportResult};

/// How many queues the folder has; each has a bell of its own.
pub(super) const QUEUES: usize = 4;

/// The way to the writer thread; shared by all handles of one opened folder.
#[derive(Debug)]
pub(super) struct Store {
    jobs: mpsc::Sender<Box<dyn MessageContext>>,
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
    woken: [u32; QUEUES],
}

impl Step<'_> {
    /// Notes that one more message can be received from `queue`; one waiting receiver is woken after the commit.
    pub(super) fn ring(&mut self, queue: i64) {
        if let Ok(queue) = usize::try_from(queue)
            && let Some(messages) = self.woken.get_mut(queue)
        {
            *messages += 1;
        }
    }
}

/// Why a step failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// The database could not.
    Sql(rusqlite::Error),
    /// The answer is an error; what the step wrote is taken back.
    Door(TransportError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<TransportError> for Fault {
    fn from(error: TransportError) -> Self {
        Self::Door(error)
    }
}

/// What a step answers.
pub(super) type StepResult<T> = Result<T, Fault>;

/// Work for the writer thread.
pub(super) trait MessageContext: Send {
    /// Whether what it writes must survive power loss before it is answered.
    fn durable(&self) -> bool;
    /// Does the work inside a transaction; true when what it wrote is to be kept.
    fn run(&mut self, step: &mut Step<'_>) -> bool;
    /// Called after the commit.
    fn answer(self: Box<Self>, commit: Result<(), &str>, path: &Path);
}

struct Call<T, F> {
    work: Option<F>,
    result: Option<StepResult<T>>,
    reply: oneshot::Sender<TransportResult<T>>,
    durable: bool,
}

impl<T, F> MessageContext for Call<T, F>
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

    fn answer(self: Box<Self>, commit: Result<(), &str>, path: &Path) {
        let answer = match (self.result, commit) {
            (Some(Ok(value)), Ok(())) => Ok(value),
            (Some(Err(Fault::Door(error))), _) => Err(error),
            (Some(Err(Fault::Sql(error))), _) => Err(db::explain(path, error)),
            (Some(Ok(_)) | None, Err(why)) => {
                Err(TransportError::unavailable(why, "nothing was written"))
            }
            (None, Ok(())) => return,
        };
        // Refused when the caller has gone: see `Store::call`.
        let _ = self.reply.send(answer);
    }
}

impl Store {
    /// Starts the writer thread on `conn`.
    pub(super) fn start(conn: Connection, dir: &Path, session: Session) -> TransportResult<Self> {
        let (jobs, work) = mpsc::channel();
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            session,
            bells: Default::default(),
            waiting: AtomicUsize::new(0),
        });
        let mut writer = Writer::new(conn, dir.join(db::FILE_NAME), &shared);
        thread::Builder::new()
            .name("streampress-db".into())
            .spawn(move || writer.work(&work))
            .map_err(|e| TransportError::unavailable("starting the database's thread", e))?;
        Ok(Self { jobs, shared })
    }

    pub(super) fn session(&self) -> &Session {
        &self.shared.session
    }

    pub(super) fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Runs `work` in the next transaction and answers when it is durable. The work is done even when the caller has
    /// gone meanwhile: an answer that must not get lost takes itself back when it is dropped.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Step<'_>) -> StepResult<T> + Send + 'static,
    ) -> TransportResult<T> {
        self.enqueue(work, true)
            .await
            .unwrap_or_else(|_| Err(ended()))
    }

    /// The same without a sync of the disk where nobody else needs one. What `work` writes survives the end of any
    /// process, but perhaps not power loss: for what is as good as new without it.
    pub(super) async fn call_unsynced<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Step<'_>) -> StepResult<T> + Send + 'static,
    ) -> TransportResult<T> {
        self.enqueue(work, false)
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
        durable: bool,
    ) -> oneshot::Receiver<TransportResult<T>> {
        let (reply, answer) = oneshot::channel();
        // A failed send drops the reply with it, which the caller sees.
        let _ = self.jobs.send(Box::new(Call {
            work: Some(work),
            result: None,
            reply,
            durable,
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

fn ended() -> TransportError {
    TransportError::unavailable("asking the database", "its thread has ended; start again")
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
