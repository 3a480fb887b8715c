//! The embedded FIFO queue: what a message goes through, as steps of a transaction, and the door in front of it.
//!
//! At most one message of a group is in hand at a time, and it is the group's oldest; so order within a group
//! holds whatever is released, expires or dead-letters. `receive_count` counts every receive. Towards
//! `max_receive_count` count those that ended badly (hiding time ran out, process died); a message that was given
//! back with `release`, for a shutdown or a lost race for a slot, does not creep towards the dead letters.

mod steps;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use self::steps::{Handle, Limit};
use super::store::{StepError, Store};
use crate::{Delivery, Depth, Outgoing, Queue, Receipt, TransportError, TransportResult};

pub(super) use self::steps::{ended_sessions, expired, reclaim, remove_old};

/// The longest time a message can be hidden, as SQS has it.
const MAX_HIDING: Duration = Duration::from_secs(12 * 3600);

/// Which of the folder's queues; the number is in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Files = 0,
    FilesDead = 1,
    Chunks = 2,
    ChunksDead = 3,
}

/// One of the folder's queues.
#[derive(Debug)]
pub(super) struct LocalQueue {
    store: Arc<Store>,
    number: i64,
    name: &'static str,
    visibility: Duration,
    limit: Option<Limit>,
    dead: Option<Arc<LocalQueue>>,
}

impl LocalQueue {
    /// A queue with its dead-letter queue.
    pub(super) fn new(
        store: &Arc<Store>,
        (which, name): (Which, &'static str),
        (dead, dead_name): (Which, &'static str),
        visibility: Duration,
        max_receive_count: u32,
    ) -> Self {
        let dead_letters = Self {
            store: Arc::clone(store),
            number: dead as i64,
            name: dead_name,
            visibility,
            limit: None,
            dead: None,
        };
        Self {
            store: Arc::clone(store),
            number: which as i64,
            name,
            visibility,
            limit: Some(Limit {
                max_receive_count,
                dead_queue: dead as i64,
            }),
            dead: Some(Arc::new(dead_letters)),
        }
    }

    /// Without a sync: should power loss undo a receive, the message is as if it had never been received.
    async fn take(&self, max: usize) -> TransportResult<Taken> {
        let (queue, limit, visibility_timeout) = (self.number, self.limit, millis(self.visibility));
        let (store, asked_at) = (Arc::clone(&self.store), Instant::now());
        self.store
            .call_unsynced(move |step| {
                let deliveries =
                    steps::take(step, queue, max, (asked_at, visibility_timeout), limit)?;
                Ok(Taken { store, deliveries })
            })
            .await
    }

    fn held(&self, receipt: &Receipt) -> TransportResult<Handle> {
        Handle::parse(receipt, self.number)
    }
}

#[async_trait]
impl Queue for LocalQueue {
    fn name(&self) -> &str {
        self.name
    }

    fn visibility_timeout(&self) -> Duration {
        self.visibility
    }

    async fn send(&self, messages: Vec<Outgoing>) -> TransportResult<()> {
        messages.iter().try_for_each(Outgoing::check)?;
        let queue = self.number;
        self.store
            .call(move |step| {
                messages
                    .iter()
                    .try_for_each(|m| steps::send(step, queue, m))
            })
            .await
    }

    async fn receive(&self, max: usize, wait: Duration) -> TransportResult<Vec<Delivery>> {
        if !(1..=10).contains(&max) {
            return Err(TransportError::Invalid(format!(
                "cannot receive {max} messages at once; ask for 1 to 10"
            )));
        }
        let deadline = Instant::now() + wait;
        let waiting = self.store.wait_at(self.number);
        loop {
            // Enabled before the query, so that nothing sent in between is missed.
            let mut arrival = std::pin::pin!(waiting.arrival().notified());
            arrival.as_mut().enable();
            let taken = self.take(max).await?;
            if !taken.deliveries.is_empty() || Instant::now() >= deadline {
                return Ok(taken.keep());
            }
            tokio::select! {
                () = arrival => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    async fn extend(&self, receipt: &Receipt, visibility_timeout: Duration) -> TransportResult<()> {
        if visibility_timeout > MAX_HIDING {
            return Err(TransportError::Invalid(
                "a message can be hidden for 12 hours at most".into(),
            ));
        }
        let held = self.held(receipt)?;
        self.store
            .call_unsynced(move |step| held.extend(step, millis(visibility_timeout)))
            .await
    }

    async fn delete(&self, receipt: &Receipt) -> TransportResult<()> {
        let held = self.held(receipt)?;
        self.store.call(move |step| held.delete(step)).await
    }

    async fn release(&self, receipt: &Receipt) -> TransportResult<()> {
        let held = self.held(receipt)?;
        self.store
            .call_unsynced(move |step| held.release(step))
            .await
    }

    async fn dead_letter(
        &self,
        delivery: &Delivery,
        reason: &str,
        detail: &str,
    ) -> TransportResult<()> {
        let Some(limit) = self.limit else {
            return Err(TransportError::Invalid(format!(
                "{} holds dead letters itself; delete the message or send it again",
                self.name
            )));
        };
        let held = self.held(&delivery.receipt)?;
        let (reason, detail) = (reason.to_owned(), detail.to_owned());
        self.store
            .call(move |step| {
                held.check(step)?;
                steps::dead_letter(step, held.seq, limit.dead_queue, &reason, &detail)
            })
            .await
    }

    async fn depth(&self) -> TransportResult<Depth> {
        let queue = self.number;
        self.store
            .call_unsynced(move |step| steps::depth(step, queue))
            .await
    }

    fn dead_letters(&self) -> Option<Arc<dyn Queue>> {
        self.dead.clone().map(|dead| dead as Arc<dyn Queue>)
    }
}

/// Messages on their way to a caller. When the caller has gone they go back as if never received.
struct Taken {
    store: Arc<Store>,
    deliveries: Vec<Delivery>,
}

impl Taken {
    fn keep(mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.deliveries)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let receipts: Vec<Receipt> = self.deliveries.drain(..).map(|d| d.receipt).collect();
        if receipts.is_empty() {
            return;
        }
        self.store.post(move |step| {
            for receipt in &receipts {
                match Handle::parse_any(receipt).map(|held| held.unreceive(step)) {
                    Some(Err(StepError::Sql(error))) => return Err(error.into()),
                    _ => continue,
                }
            }
            Ok(())
        });
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}
