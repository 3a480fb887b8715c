//! Deletes and changes of visibility, ten to a request. While one request is under way the next calls gather, so that batches
//! form under load and a single call does not wait. Every failed entry is handled: sent again where that may help, else
//! answered to its caller.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::aws::service_error::ServiceError;
use crate::{Backoff, TransportError, TransportResult};

/// SQS takes ten entries a batch.
pub(super) const BATCH: usize = 10;
/// Attempts of an entry that failed inside a batch.
const TRIES: u32 = 4;
/// Before failed entries are sent again, all of one batch together.
const BATCH_BACKOFF: Backoff = Backoff::new(Duration::from_millis(150), Duration::from_millis(150));

/// A change of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BatchChange {
    Delete,
    /// Counted from now; 0 makes the message visible at once.
    SetVisibility {
        secs: i32,
    },
}

impl BatchChange {
    fn is_same_call(self, other: Self) -> bool {
        (self == Self::Delete) == (other == Self::Delete)
    }
}

#[derive(Debug)]
struct BatchEntry {
    receipt: String,
    change: BatchChange,
    tries: u32,
    answer: oneshot::Sender<TransportResult<()>>,
}

/// Gathers changes of one queue.
#[derive(Debug)]
pub(super) struct Changes {
    client: Client,
    url: String,
    name: String,
    state: Mutex<BatchState>,
}

#[derive(Debug, Default)]
struct BatchState {
    waiting: VecDeque<BatchEntry>,
    under_way: bool,
}

impl Changes {
    pub(super) fn new(client: Client, url: String, name: String) -> Arc<Self> {
        Arc::new(Self {
            client,
            url,
            name,
            state: Mutex::default(),
        })
    }

    /// Requests changes, in this order; the answers come in the same order.
    pub(super) async fn request(
        self: &Arc<Self>,
        changes: Vec<(String, BatchChange)>,
    ) -> Vec<TransportResult<()>> {
        let mut answers = Vec::with_capacity(changes.len());
        {
            let mut state = self.lock();
            for (receipt, change) in changes {
                let (answer, answered) = oneshot::channel();
                state.waiting.push_back(BatchEntry {
                    receipt,
                    change,
                    tries: 0,
                    answer,
                });
                answers.push(answered);
            }
            if !state.under_way && !state.waiting.is_empty() {
                state.under_way = true;
                // In a task of its own: the changes are made even if the caller is dropped.
                tokio::spawn(self.clone().send_all());
            }
        }
        let mut results = Vec::with_capacity(answers.len());
        for answered in answers {
            results.push(answered.await.unwrap_or_else(|_| {
                Err(TransportError::unavailable(
                    format!("changing messages of {}", self.name),
                    "the worker is shutting down",
                ))
            }));
        }
        results
    }

    /// One change.
    pub(super) async fn request_one(
        self: &Arc<Self>,
        receipt: &str,
        change: BatchChange,
    ) -> TransportResult<()> {
        self.request(vec![(receipt.to_owned(), change)])
            .await
            .pop()
            .unwrap_or(Ok(()))
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, BatchState> {
        self.state.lock()
    }

    async fn send_all(self: Arc<Self>) {
        loop {
            let batch = {
                let mut state = self.lock();
                let Some(kind) = state.waiting.front().map(|entry| entry.change) else {
                    state.under_way = false;
                    return;
                };
                let like = state
                    .waiting
                    .iter()
                    .take(BATCH)
                    .take_while(|entry| entry.change.is_same_call(kind))
                    .count();
                state.waiting.drain(..like).collect::<Vec<_>>()
            };
            let again = self.perform(batch).await;
            if !again.is_empty() {
                tokio::time::sleep(BATCH_BACKOFF.equal_jitter(1)).await;
                let mut state = self.lock();
                again
                    .into_iter()
                    .rev()
                    .for_each(|entry| state.waiting.push_front(entry));
            }
        }
    }

    /// Sends one batch and answers its entries; returns those to be sent again.
    async fn perform(&self, batch: Vec<BatchEntry>) -> Vec<BatchEntry> {
        match self.call(&batch).await {
            Err(error) => {
                for entry in batch {
                    let _ = entry.answer.send(Err(error
                        .clone()
                        .into_transport_error(format!("changing messages of {}", self.name))));
                }
                Vec::new()
            }
            Ok(failed) => {
                let mut again = Vec::new();
                for (index, mut entry) in batch.into_iter().enumerate() {
                    let refused = failed.iter().find(|f| f.id() == index.to_string());
                    entry.tries += 1;
                    match refused {
                        None => drop(entry.answer.send(Ok(()))),
                        Some(refused) if !refused.sender_fault() && entry.tries < TRIES => {
                            again.push(entry)
                        }
                        Some(refused) => drop(entry.answer.send(Err(
                            entry_error(refused).into_transport_error(format!(
                                "changing a message of {}",
                                self.name
                            )),
                        ))),
                    }
                }
                again
            }
        }
    }

    async fn call(&self, batch: &[BatchEntry]) -> Result<Vec<BatchResultErrorEntry>, ServiceError> {
        let ids = (0..).map(|index: usize| index.to_string());
        if batch
            .first()
            .is_some_and(|entry| entry.change == BatchChange::Delete)
        {
            let entries = batch.iter().zip(ids).map(|(entry, id)| {
                DeleteMessageBatchRequestEntry::builder()
                    .id(id)
                    .receipt_handle(&entry.receipt)
                    .build()
            });
            let entries = entries
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| built(&error))?;
            let answer = self
                .client
                .delete_message_batch()
                .queue_url(&self.url)
                .set_entries(Some(entries))
                .send()
                .await;
            return answer
                .map(|answer| answer.failed)
                .map_err(|error| ServiceError::from_sdk(&error));
        }
        let entries = batch.iter().zip(ids).map(|(entry, id)| {
            let secs = match entry.change {
                BatchChange::SetVisibility { secs } => secs,
                BatchChange::Delete => 0,
            };
            ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(id)
                .receipt_handle(&entry.receipt)
                .visibility_timeout(secs)
                .build()
        });
        let entries = entries
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| built(&error))?;
        let answer = self
            .client
            .change_message_visibility_batch()
            .queue_url(&self.url)
            .set_entries(Some(entries))
            .send()
            .await;
        answer
            .map(|answer| answer.failed)
            .map_err(|error| ServiceError::from_sdk(&error))
    }
}

/// The error of a failed entry.
pub(super) fn entry_error(entry: &BatchResultErrorEntry) -> ServiceError {
    ServiceError {
        code: entry.code().to_owned(),
        message: entry.message().unwrap_or("no message").to_owned(),
    }
}

fn built(error: &dyn std::error::Error) -> ServiceError {
    ServiceError::without_code(error.to_string())
}
