//! Puts records into the stream: callers wait for their records' positions, and one task of the stream does the requests.

use std::sync::Arc;

use aws_sdk_kinesis::Client;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::placement::{ANY_KEY, hash};
use super::put_task::PutTask;
use super::shards::Shards;
use crate::{Position, Record, StreamCounts, TransportError, TransportResult};

/// Bytes that wait or are under way; a caller with more waits.
const BUDGET_BYTES: usize = 16 << 20;

/// What was put so far. A record moves from one count to another in one step, so that the sum holds at any time.
#[derive(Debug, Default)]
pub(super) struct PutCounts(Mutex<StreamCounts>);

impl PutCounts {
    /// As of one moment.
    pub(super) fn so_far(&self) -> StreamCounts {
        *self.0.lock()
    }

    /// So many records are in a request.
    pub(super) fn sent(&self, records: usize) {
        let mut counts = self.0.lock();
        counts.sent += records as u64;
        counts.under_way += records as u64;
    }

    /// One record of a request was answered.
    pub(super) fn answered(&self, outcome: impl FnOnce(&mut StreamCounts)) {
        let mut counts = self.0.lock();
        counts.under_way -= 1;
        outcome(&mut counts);
    }

    /// One record was refused for its shard's rate.
    pub(super) fn throttled(&self) {
        self.0.lock().throttled += 1;
    }
}

/// Access to the task.
#[derive(Debug, Clone)]
pub(super) struct StreamWriter {
    items: mpsc::UnboundedSender<Item>,
    budget: Arc<Semaphore>,
    pub(super) counts: Arc<PutCounts>,
}

/// A record that waits to be put.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) key: String,
    pub(super) data: Bytes,
    /// Of its key; a record without one may lie anywhere.
    pub(super) hash: Option<u128>,
    /// A file's only record, as far as known.
    pub(super) single: bool,
    pub(super) since: Instant,
    pub(super) not_before: Instant,
    pub(super) failures: u32,
    /// Sent by itself, after a request that held it was refused as a whole.
    pub(super) alone: bool,
    pub(super) answer: oneshot::Sender<TransportResult<Position>>,
    _budget: OwnedSemaphorePermit,
}

impl Item {
    /// The bytes that Kinesis counts.
    pub(super) fn weight(&self) -> usize {
        self.data.len() + self.key.len().max(ANY_KEY.len())
    }
}

impl StreamWriter {
    /// Starts the task; it ends when the last handle is dropped and all records are answered.
    pub(super) fn start(client: Client, stream: String, shards: Shards) -> Self {
        let (items, queued) = mpsc::unbounded_channel();
        let counts = Arc::new(PutCounts::default());
        let task = PutTask::new(client, stream, shards, counts.clone());
        tokio::spawn(task.run(queued));
        Self {
            items,
            budget: Arc::new(Semaphore::new(BUDGET_BYTES / 1024)),
            counts,
        }
    }

    /// Whether the task has ended, which it does by itself only with its last handle.
    pub(super) fn has_ended(&self) -> bool {
        self.items.is_closed()
    }

    /// Bytes that wait or are under way.
    pub(super) fn waiting_bytes(&self) -> usize {
        BUDGET_BYTES - self.budget.available_permits() * 1024
    }

    /// Puts all; the answer is index-aligned.
    pub(super) async fn put(&self, records: Vec<Record>) -> TransportResult<Vec<Position>> {
        let stopped =
            || TransportError::unavailable("putting records", "the worker is shutting down");
        let mut answers = Vec::with_capacity(records.len());
        let single = records.len() == 1;
        for record in records {
            let kib = record.data.len().div_ceil(1024);
            let kib = u32::try_from(kib.clamp(1, BUDGET_BYTES / 1024)).unwrap_or(1);
            let budget = self.budget.clone().acquire_many_owned(kib).await;
            let budget = budget.map_err(|_| stopped())?;
            let (answer, answered) = oneshot::channel();
            let now = Instant::now();
            let item = Item {
                hash: (!record.key.is_empty()).then(|| hash(&record.key)),
                single,
                key: record.key,
                data: record.data,
                since: now,
                not_before: now,
                failures: 0,
                alone: false,
                answer,
                _budget: budget,
            };
            self.items.send(item).map_err(|_| stopped())?;
            answers.push(answered);
        }
        let mut positions = Vec::with_capacity(answers.len());
        for answered in answers {
            positions.push(answered.await.map_err(|_| stopped())??);
        }
        Ok(positions)
    }
}
