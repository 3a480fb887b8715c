//! Puts records into the stream: callers wait for their records' positions, and one task of the stream does the requests.

use std::sync::Arc;

use aws_sdk_kinesis::Client;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::put_counts::PutCounts;
use super::put_task::PutTask;
use super::shards::Shards;
use super::waiting_record::{WaitingRecord, hash};
use crate::{Position, Record, TransportError, TransportResult};

/// Bytes that wait or are under way; a caller with more waits.
const BUDGET_BYTES: usize = 16 << 20;

/// Access to the task.
#[derive(Debug, Clone)]
pub(super) struct StreamWriter {
    items: mpsc::UnboundedSender<WaitingRecord>,
    budget: Arc<Semaphore>,
    pub(super) counts: Arc<PutCounts>,
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
            let item = WaitingRecord {
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
