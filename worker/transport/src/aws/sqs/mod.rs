//! The queue on SQS FIFO.
//!
//! `open` finds it, `send` fills it, `poll` and `inbox` bring messages, `batch` changes and deletes them.

mod batch;
mod inbox;
mod open;
mod poll;
mod send;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::debug;

use self::batch::{BATCH, BatchChange, Changes};
use self::inbox::Inbox;
use self::poll::WaitingReceiver;
use self::send::dead_letter;
use super::Aws;
use crate::{
    Backoff, Delivery, Depth, Failure, FileVersion, Outgoing, Queue, Receipt, TransportError,
    TransportResult,
};

/// Between two attempts of a call that SQS throttled or did not answer.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));
/// How much longer than its wait a poll may take to answer.
const ANSWER_SLACK: Duration = Duration::from_secs(5);
/// SQS keeps a message invisible for 12 hours at most.
const MAX_VISIBILITY_SECS: i32 = 12 * 3600;
/// A sender reads the queue's creation time again at this age.
const EPOCH_AGE: Duration = Duration::from_secs(10);
/// Between two checks while the queue is drained.
const DRAIN_POLL: Duration = Duration::from_millis(50);
/// A message that waited behind another is delivered with at least this share of its visibility timeout left.
const FRESH_SHARE: f64 = 0.7;

/// One queue, with its dead-letter queue.
#[derive(Clone)]
pub struct SqsQueue {
    inner: Arc<SqsInner>,
}

struct SqsInner {
    name: String,
    url: String,
    arn: String,
    /// When the queue was created, seconds since 1970, and when that was read; unknown again after a poll failed, since the
    /// queue may have been made anew meanwhile.
    epoch: Mutex<Option<(u64, Instant)>>,
    aws: Aws,
    visibility_timeout: Duration,
    max_receive_count: Option<u32>,
    dead: Option<Arc<SqsQueue>>,
    changes: Arc<Changes>,
    inbox: Mutex<Inbox>,
    /// The last poll's fault, for the next receive.
    fault: Mutex<Option<TransportError>>,
    arrived: Notify,
    receivers: AtomicUsize,
    polling: AtomicUsize,
    draining: AtomicBool,
}

impl fmt::Debug for SqsQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqsQueue")
            .field("url", &self.inner.url)
            .finish_non_exhaustive()
    }
}

impl SqsQueue {
    /// How often a message may be received before it goes to the dead-letter queue; `None` without one.
    pub fn max_receive_count(&self) -> Option<u32> {
        self.inner.max_receive_count
    }

    /// The queue's ARN.
    pub fn arn(&self) -> &str {
        &self.inner.arn
    }

    /// Takes messages that are ready, each invisible for most of its visibility timeout from now.
    async fn take(&self, max: usize) -> TransportResult<Vec<Delivery>> {
        let now = Instant::now();
        let visibility_timeout = self.inner.visibility_timeout;
        let mut taken = TakenMessages {
            inner: &self.inner,
            deliveries: self.inner.inbox().take(max, now),
        };
        let soon = now + visibility_timeout.mul_f64(FRESH_SHARE);
        let is_late = |delivery: &Delivery| delivery.visibility_deadline < soon;
        // They waited behind another of their group.
        let late: Vec<Receipt> = taken
            .deliveries
            .iter()
            .filter(|delivery| is_late(delivery))
            .map(|delivery| delivery.receipt.clone())
            .collect();
        let extends = late
            .iter()
            .map(|receipt| self.extend(receipt, visibility_timeout));
        let mut answers = join_all(extends).await.into_iter();
        let (mut ready, mut failed) = (Vec::new(), None);
        for mut delivery in std::mem::take(&mut taken.deliveries) {
            if !is_late(&delivery) {
                ready.push(delivery);
                continue;
            }
            match answers.next().unwrap_or(Ok(())) {
                Ok(()) => {
                    delivery.visibility_deadline = now + visibility_timeout;
                    ready.push(delivery);
                }
                Err(TransportError::Stale) => {
                    debug!(
                        queue = self.inner.name,
                        message_id = delivery.message_id,
                        "The visibility timeout of a buffered message ran out."
                    );
                }
                Err(error) => {
                    taken.deliveries.push(delivery);
                    failed = Some(error);
                }
            }
        }
        match failed {
            Some(error) if ready.is_empty() => Err(error),
            _ => Ok(ready),
        }
    }
}

/// Messages between the inbox and a caller. What is not delivered is put back: the caller may be dropped while their
/// visibility timeouts are extended.
struct TakenMessages<'a> {
    inner: &'a Arc<SqsInner>,
    deliveries: Vec<Delivery>,
}

impl Drop for TakenMessages<'_> {
    fn drop(&mut self) {
        if !self.deliveries.is_empty() {
            let deliveries = std::mem::take(&mut self.deliveries);
            self.inner.inbox().put_back(deliveries, Instant::now());
            self.inner.announce_arrival();
        }
    }
}

#[async_trait]
impl Queue for SqsQueue {
    fn name(&self) -> &str {
        &self.inner.name
    }

    fn visibility_timeout(&self) -> Duration {
        self.inner.visibility_timeout
    }

    async fn send(&self, messages: Vec<Outgoing>) -> TransportResult<()> {
        messages.iter().try_for_each(Outgoing::check)?;
        self.send_all(messages).await.map(drop)
    }

    async fn send_numbered(
        &self,
        messages: Vec<Outgoing>,
    ) -> TransportResult<Vec<Option<FileVersion>>> {
        messages.iter().try_for_each(Outgoing::check)?;
        // Before the messages are sent: a queue that is made again meanwhile has none of them.
        let epoch = self.inner.epoch(EPOCH_AGE).await?;
        let numbers = self.send_all(messages).await?.into_iter();
        let version = |number| FileVersion::new(&self.inner.name, epoch, number);
        Ok(numbers.map(|number| number.map(version)).collect())
    }

    async fn receive(&self, max: usize, wait: Duration) -> TransportResult<Vec<Delivery>> {
        if !(1..=BATCH).contains(&max) {
            return Err(TransportError::Invalid(format!(
                "{max} messages were requested; a receive takes 1 to {BATCH}"
            )));
        }
        let _receiver = WaitingReceiver::enter(&self.inner.receivers);
        let until = Instant::now() + wait;
        let mut own_poll = false;
        loop {
            let arrived = self.inner.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            let ready = self.take(max).await?;
            if !ready.is_empty() {
                return Ok(ready);
            }
            if let Some(fault) = self.inner.fault.lock().take() {
                return Err(fault);
            }
            let now = Instant::now();
            let polling = self.inner.polling.load(Ordering::SeqCst);
            let over = now >= until && (own_poll || polling > 0);
            if over && (polling == 0 || now >= until + ANSWER_SLACK || !own_poll) {
                return Ok(Vec::new());
            }
            if !over && polling < self.inner.receivers.load(Ordering::SeqCst) {
                own_poll = true;
                self.inner
                    .start_poll(max, until.saturating_duration_since(now));
            }
            let deadline = if own_poll {
                until + ANSWER_SLACK
            } else {
                until
            };
            tokio::select! {
                () = &mut arrived => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    async fn extend(&self, receipt: &Receipt, visibility_timeout: Duration) -> TransportResult<()> {
        let secs = i32::try_from(visibility_timeout.as_secs_f64().ceil() as u64)
            .unwrap_or(i32::MAX)
            .min(MAX_VISIBILITY_SECS);
        let deadline = Instant::now() + visibility_timeout;
        let receipts = self.inner.inbox().with_followers(&receipt.0);
        let answers = self
            .inner
            .changes
            .request(
                receipts
                    .into_iter()
                    .map(|receipt| (receipt, BatchChange::SetVisibility { secs }))
                    .collect(),
            )
            .await;
        let all_extended = answers.iter().all(Result::is_ok);
        let outcome = answers.into_iter().next().unwrap_or(Ok(()));
        match &outcome {
            Ok(()) => self
                .inner
                .inbox()
                .extended(&receipt.0, deadline, all_extended),
            Err(TransportError::Stale) => self.inner.inbox().gone(&receipt.0),
            Err(_) => {}
        }
        outcome
    }

    async fn delete(&self, receipt: &Receipt) -> TransportResult<()> {
        let outcome = self
            .inner
            .changes
            .request_one(&receipt.0, BatchChange::Delete)
            .await;
        match &outcome {
            Ok(()) => {
                if self.inner.inbox().done(&receipt.0, Instant::now()) {
                    self.inner.announce_arrival();
                }
            }
            Err(TransportError::Stale) => self.inner.inbox().gone(&receipt.0),
            Err(_) => {}
        }
        outcome
    }

    async fn release(&self, receipt: &Receipt) -> TransportResult<()> {
        let mut receipts = {
            let mut inbox = self.inner.inbox();
            let receipts = inbox.with_followers(&receipt.0);
            inbox.gone(&receipt.0);
            receipts
        };
        // Followers first: the group can be received once its first message is visible, and then all of it must be.
        receipts.reverse();
        let mut answers = self.inner.release_all(receipts).await;
        answers.pop().unwrap_or(Ok(()))
    }

    async fn dead_letter(&self, delivery: &Delivery, failure: &Failure) -> TransportResult<()> {
        let Some(dead) = &self.inner.dead else {
            return Err(TransportError::unavailable(
                format!(
                    "sending a message of {} to its dead-letter queue",
                    self.inner.name
                ),
                "the queue has none; 'streampress setup' gives it one",
            ));
        };
        // Not `send`, which reserves four attributes for a dead letter and so refuses a message that has them.
        dead.send_all(vec![dead_letter(delivery, failure)]).await?;
        match self.delete(&delivery.receipt).await {
            // Another worker has it by now and makes the same dead letter of it.
            Err(TransportError::Stale) => Ok(()),
            other => other,
        }
    }

    async fn depth(&self) -> TransportResult<Depth> {
        let depth = self.inner.aws.queue_depth(&self.inner.url).await;
        depth.map_err(|error| {
            error.into_transport_error(format!("reading the depth of {}", self.inner.name))
        })
    }

    async fn incarnation(&self) -> TransportResult<String> {
        let epoch = self.inner.epoch(Duration::ZERO).await?;
        Ok(epoch.to_string())
    }

    /// A message that a poll brings after the process ended would stay invisible.
    async fn drain(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        self.inner.draining.store(true, Ordering::SeqCst);
        loop {
            self.inner.release_unclaimed(Duration::ZERO).await;
            if self.inner.polling.load(Ordering::SeqCst) == 0 && !self.inner.inbox().has_ready() {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }

    fn dead_letters(&self) -> Option<Arc<dyn Queue>> {
        self.inner.dead.clone().map(|dead| dead as Arc<dyn Queue>)
    }
}

impl SqsInner {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock()
    }

    /// Makes messages visible, in this order.
    async fn release_all(&self, receipts: Vec<String>) -> Vec<TransportResult<()>> {
        let visible = |receipt| (receipt, BatchChange::SetVisibility { secs: 0 });
        let changes = receipts.into_iter().map(visible).collect();
        self.changes.request(changes).await
    }
}
