//! The writer thread: everything that waits when it looks up is done in one transaction, committed once, and only
//! then answered. While somebody waits it also looks for what other processes did.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::Notify;

use super::{Fault, MessageContext, QUEUES, Shared, Step, now_ms};
use crate::local::{db, queue};

/// The most calls that share a transaction; keeps the wait of other processes short.
const MAX_BATCH: usize = 512;
/// How often, at most, it is looked for what other processes did.
const LOOK: Duration = Duration::from_millis(50);
/// How often ended processes are looked for while somebody waits.
const SESSION_CHECK: Duration = Duration::from_secs(1);
/// How often old entries are cleared out while there is work.
const CLEARING: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct Writer {
    conn: Connection,
    path: PathBuf,
    shared: Arc<Shared>,
    last_change: Instant,
    last_look: Instant,
    last_session_check: Instant,
    last_clearing: Option<Instant>,
    data_version: i64,
    synced: Option<bool>,
}

impl Writer {
    pub(super) fn new(conn: Connection, path: PathBuf, shared: &Arc<Shared>) -> Self {
        Self {
            conn,
            path,
            shared: Arc::clone(shared),
            last_change: Instant::now(),
            last_look: Instant::now(),
            last_session_check: Instant::now(),
            last_clearing: None,
            data_version: 0,
            synced: None,
        }
    }

    /// Works until the last sender has gone.
    pub(super) fn work(&mut self, jobs: &mpsc::Receiver<Box<dyn MessageContext>>) {
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
            self.transact(batch);
            if self.last_look.elapsed() >= LOOK {
                // Own work must not keep receivers from what other processes send.
                self.look_around();
            }
        }
    }

    fn wait(
        &self,
        jobs: &mpsc::Receiver<Box<dyn MessageContext>>,
    ) -> Result<Box<dyn MessageContext>, mpsc::RecvTimeoutError> {
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

    /// Sees what other processes changed, whose hiding time ran out, and whether a process has ended.
    fn look_around(&mut self) {
        self.last_look = Instant::now();
        if let Ok(version) = self.data_version()
            && version != self.data_version
        {
            self.data_version = version;
            self.last_change = Instant::now();
            self.shared.bells.iter().for_each(Notify::notify_waiters);
        }
        for queue in queue::expired(&self.conn, now_ms()).unwrap_or_default() {
            if let Some(bell) = usize::try_from(queue)
                .ok()
                .and_then(|q| self.shared.bells.get(q))
            {
                bell.notify_one();
            }
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

    fn transact(&mut self, batch: Vec<Box<dyn MessageContext>>) {
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
    fn transact_some(&mut self, jobs: &mut std::vec::IntoIter<Box<dyn MessageContext>>) {
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
                (Err(db::explain(&self.path, error).to_string()), [0; QUEUES])
            }
        };
        for job in ran {
            job.answer(commit.as_ref().copied().map_err(String::as_str), &self.path);
        }
        for (bell, messages) in self.shared.bells.iter().zip(woken) {
            // As many as there is something for: all of them would only come for nothing.
            (0..messages).for_each(|_| bell.notify_one());
        }
    }

    fn run_all(
        &mut self,
        jobs: &mut std::vec::IntoIter<Box<dyn MessageContext>>,
        ran: &mut Vec<Box<dyn MessageContext>>,
    ) -> rusqlite::Result<[u32; QUEUES]> {
        self.sync_commits(jobs.as_slice().iter().any(|job| job.durable()))?;
        self.execute("BEGIN IMMEDIATE")?;
        let shared = Arc::clone(&self.shared);
        let mut step = Step {
            conn: &self.conn,
            session: &shared.session,
            now: now_ms(),
            woken: [0; QUEUES],
        };
        if self
            .last_clearing
            .is_none_or(|last| last.elapsed() >= CLEARING)
        {
            if let Err(Fault::Sql(error)) = queue::clear_old(&mut step) {
                return Err(error);
            }
            self.last_clearing = Some(Instant::now());
        }
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
                // The disk is full or failed, as this job's own answer says: SQLite has rolled everything back by itself.
                return Err(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT),
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
        self.execute("COMMIT")?;
        Ok(woken)
    }

    /// Whether the next commit waits for the disk. One that waits makes durable what was committed before it, too.
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

/// Gives back what ended processes held.
struct Reclaim;

impl MessageContext for Reclaim {
    fn durable(&self) -> bool {
        false
    }

    fn run(&mut self, step: &mut Step<'_>) -> bool {
        queue::reclaim(step).is_ok()
    }

    fn answer(self: Box<Self>, _: Result<(), &str>, _: &Path) {}
}
