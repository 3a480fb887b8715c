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

use self::batch::{BATCH, Change, Changes};
use self::inbox::Inbox;
use self::poll::Receiver;
use self::send::dead_letter;
use super::Aws;
use crate::{Delivery, Depth, Outgoing, Queue, Receipt, TransportError, TransportResult};

/// How much longer than its wait a poll may take to answer.
const ANSWER_SLACK: Duration = Duration::from_secs(5);
/// SQS hides a message for 12 hours at most.
const LONGEST_HIDING_SECS: u64 = 12 * 3600;

/// One queue, with its dead-letter queue.
#[derive(Clone)]
pub struct SqsQueue {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    url: String,
    arn: String,
    aws: Aws,
    visibility: Duration,
    max_receive_count: Option<u32>,
    dead: Option<Arc<SqsQueue>>,
    changes: Arc<Changes>,
    inbox: Mutex<Inbox>,
    faults: Mutex<Option<TransportError>>,
    arrived: Notify,
    receivers: AtomicUsize,
    polling: AtomicUsize,
    settling: AtomicBool,
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

    /// Hands out what is ready, hidden for most of its time from now.
    async fn take(&self, max: usize) -> TransportResult<Vec<Delivery>> {
        let now = Instant::now();
        let mut taken = Taken {
            inner: &self.inner,
            deliveries: self.inner.inbox().take(max, now),
        };
        let soon = now + self.inner.visibility.mul_f64(0.7);
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
            .map(|receipt| self.extend(receipt, self.inner.visibility));
        let mut answers = join_all(extends).await.into_iter();
        let (mut ready, mut failed) = (Vec::new(), None);
        for mut delivery in std::mem::take(&mut taken.deliveries) {
            if !is_late(&delivery) {
                ready.push(delivery);
                continue;
            }
            match answers.next().unwrap_or(Ok(())) {
                Ok(()) => {
                    delivery.visibility_deadline = now + self.inner.visibility;
                    ready.push(delivery);
                }
                Err(TransportError::Stale) => {
                    debug!(
                        queue = self.inner.name,
                        message_id = delivery.message_id,
                        "A message that waited is not ours any more."
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

/// Messages on their way from the inbox to a caller. What is not handed out goes back: the caller may be gone while they
/// are hidden anew.
struct Taken<'a> {
    inner: &'a Arc<Inner>,
    deliveries: Vec<Delivery>,
}

impl Drop for Taken<'_> {
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
        self.inner.visibility
    }

    async fn send(&self, messages: Vec<Outgoing>) -> TransportResult<()> {
        messages.iter().try_for_each(Outgoing::check)?;
        self.send_all(messages).await
    }

    async fn receive(&self, max: usize, wait: Duration) -> TransportResult<Vec<Delivery>> {
        if !(1..=BATCH).contains(&max) {
            return Err(TransportError::Invalid(format!(
                "{max} messages were asked for; a receive takes 1 to {BATCH}"
            )));
        }
        let _receiver = Receiver::enter(&self.inner.receivers);
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
            if let Some(fault) = self.inner.faults.lock().take() {
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
            .min(LONGEST_HIDING_SECS as i32);
        let until = Instant::now() + visibility_timeout;
        let receipts = self.inner.inbox().with_followers(&receipt.0);
        let answers = self
            .inner
            .changes
            .ask(
                receipts
                    .into_iter()
                    .map(|receipt| (receipt, Change::HideForSecs(secs)))
                    .collect(),
            )
            .await;
        let all_hidden = answers.iter().all(Result::is_ok);
        let outcome = answers.into_iter().next().unwrap_or(Ok(()));
        match &outcome {
            Ok(()) => self.inner.inbox().hidden(&receipt.0, until, all_hidden),
            Err(TransportError::Stale) => self.inner.inbox().gone(&receipt.0),
            Err(_) => {}
        }
        outcome
    }

    async fn delete(&self, receipt: &Receipt) -> TransportResult<()> {
        let outcome = self.inner.changes.ask_one(&receipt.0, Change::Delete).await;
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
        // Followers first: the group opens when its first message is back, and then all of it must be.
        receipts.reverse();
        let mut answers = self
            .inner
            .changes
            .ask(
                receipts
                    .into_iter()
                    .map(|receipt| (receipt, Change::HideForSecs(0)))
                    .collect(),
            )
            .await;
        answers.pop().unwrap_or(Ok(()))
    }

    async fn dead_letter(
        &self,
        delivery: &Delivery,
        reason: &str,
        detail: &str,
    ) -> TransportResult<()> {
        let Some(dead) = &self.inner.dead else {
            return Err(TransportError::unavailable(
                format!("setting a message of {} aside", self.inner.name),
                "the queue has no dead-letter queue; wire one with 'streampress setup'",
            ));
        };
        // Not `send`, which leaves room for reason and detail and so refuses who has them.
        dead.send_all(vec![dead_letter(delivery, reason, detail)])
            .await?;
        match self.delete(&delivery.receipt).await {
            // Somebody else has it by now and will bury it too, onto the same dead letter.
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

    /// A message that a poll brings after the process ended would stay hidden.
    async fn drain(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        self.inner.settling.store(true, Ordering::SeqCst);
        loop {
            self.inner.sweep(Duration::ZERO).await;
            if self.inner.polling.load(Ordering::SeqCst) == 0 && !self.inner.inbox().has_ready() {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn dead_letters(&self) -> Option<Arc<dyn Queue>> {
        self.inner.dead.clone().map(|dead| dead as Arc<dyn Queue>)
    }
}

impl Inner {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock()
    }
}
