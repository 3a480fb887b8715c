//! The embedded FIFO queue; `steps` has what happens to a message, as steps of a transaction.
//!
//! At most one message of a group is in flight at a time, and it is the group's oldest; so order within a group holds
//! whatever is released, expires or becomes a dead letter. `receive_count` counts every receive. Towards
//! `max_receive_count` count those that ended badly (the visibility timeout ran out, the process died); a message that
//! was released, for a shutdown or a lost race for a slot, does not come closer to the dead-letter queue.

mod steps;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use self::steps::{Handle, Limit, QueueSource};
use super::store::{StepError, StepResult, Store, Which};
use crate::{
    Delivery, Depth, Failure, FileVersion, Outgoing, Queue, Receipt, TransportError,
    TransportResult,
};

pub(super) use self::steps::{
    QuotedNames, ended_sessions, expired, manifests, quoted_names, reclaim, remove_old,
    time_of_number,
};

/// The longest visibility timeout, as SQS has it.
const MAX_VISIBILITY: Duration = Duration::from_secs(12 * 3600);

/// One of the folder's queues.
#[derive(Debug)]
pub(super) struct LocalQueue {
    store: Arc<Store>,
    which: Which,
    name: &'static str,
    visibility_timeout: Duration,
    epoch: u64,
    limit: Option<Limit>,
    dead: Option<Arc<LocalQueue>>,
}

impl LocalQueue {
    /// A queue with its dead-letter queue.
    pub(super) fn new(
        store: &Arc<Store>,
        (which, name): (Which, &'static str),
        (dead, dead_name): (Which, &'static str),
        epoch: u64,
        visibility_timeout: Duration,
        max_receive_count: u32,
    ) -> Self {
        let dead_letters = Self {
            store: Arc::clone(store),
            which: dead,
            name: dead_name,
            visibility_timeout,
            epoch,
            limit: None,
            dead: None,
        };
        Self {
            store: Arc::clone(store),
            which,
            name,
            visibility_timeout,
            epoch,
            limit: Some(Limit {
                max_receive_count,
                dead_queue: dead as i64,
            }),
            dead: Some(Arc::new(dead_letters)),
        }
    }

    /// Without a sync: should power loss undo a receive, the message is as if it had never been received.
    async fn take(&self, max: usize) -> TransportResult<Taken> {
        let (queue, limit) = (self.source(), self.limit);
        let visibility_ms = millis(self.visibility_timeout);
        let (store, requested_at) = (Arc::clone(&self.store), Instant::now());
        self.store
            .call_unsynced(move |step| {
                let deliveries =
                    steps::take(step, queue, max, (requested_at, visibility_ms), limit)?;
                Ok(Taken { store, deliveries })
            })
            .await
    }

    fn source(&self) -> QueueSource {
        QueueSource {
            number: self.which as i64,
            name: self.name,
            epoch: self.epoch,
        }
    }

    /// The version that would be the newest of this queue, had it sent the folder's last message.
    pub(super) async fn last_version(&self) -> TransportResult<FileVersion> {
        let source = self.source();
        let last = self.store.call_unsynced(|step| steps::last_number(step));
        Ok(source.version(last.await?))
    }

    /// Whether the message of this version waits and was never received.
    pub(super) async fn waits_unreceived(&self, version: &FileVersion) -> TransportResult<bool> {
        let source = self.source();
        let Ok(seq) = version.sequence().as_str().parse() else {
            return Ok(false);
        };
        if source.version(seq) != *version {
            return Ok(false);
        }
        self.store
            .call_unsynced(move |step| steps::waits_unreceived(step, source.number, seq))
            .await
    }

    fn handle(&self, receipt: &Receipt) -> TransportResult<Handle> {
        Handle::parse(receipt, self.which as i64)
    }
}

#[async_trait]
impl Queue for LocalQueue {
    fn name(&self) -> &str {
        self.name
    }

    fn visibility_timeout(&self) -> Duration {
        self.visibility_timeout
    }

    async fn send(&self, messages: Vec<Outgoing>) -> TransportResult<()> {
        self.send_numbered(messages).await.map(drop)
    }

    async fn send_numbered(
        &self,
        messages: Vec<Outgoing>,
    ) -> TransportResult<Vec<Option<FileVersion>>> {
        messages.iter().try_for_each(Outgoing::check)?;
        let source = self.source();
        self.store
            .call(move |step| {
                let sent = messages.iter().map(|message| {
                    let number = steps::send(step, source.number, message)?;
                    Ok(number.map(|number| source.version(number)))
                });
                sent.collect::<StepResult<Vec<_>>>()
            })
            .await
    }

    async fn incarnation(&self) -> TransportResult<String> {
        Ok(self.epoch.to_string())
    }

    async fn receive(&self, max: usize, wait: Duration) -> TransportResult<Vec<Delivery>> {
        if !(1..=10).contains(&max) {
            return Err(TransportError::Invalid(format!(
                "{max} messages were requested; a receive takes 1 to 10"
            )));
        }
        let deadline = Instant::now() + wait;
        let waiting = self.store.wait_at(self.which);
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
        if visibility_timeout > MAX_VISIBILITY {
            return Err(TransportError::Invalid(
                "a visibility timeout can be 12 hours at most".into(),
            ));
        }
        let handle = self.handle(receipt)?;
        self.store
            .call_unsynced(move |step| handle.extend(step, millis(visibility_timeout)))
            .await
    }

    async fn delete(&self, receipt: &Receipt) -> TransportResult<()> {
        let handle = self.handle(receipt)?;
        self.store.call(move |step| handle.delete(step)).await
    }

    async fn release(&self, receipt: &Receipt) -> TransportResult<()> {
        let handle = self.handle(receipt)?;
        self.store
            .call_unsynced(move |step| handle.release(step))
            .await
    }

    async fn dead_letter(&self, delivery: &Delivery, failure: &Failure) -> TransportResult<()> {
        let Some(limit) = self.limit else {
            return Err(TransportError::Invalid(format!(
                "{} holds dead letters itself; delete the message or send it again",
                self.name
            )));
        };
        let handle = self.handle(&delivery.receipt)?;
        let (failure, source) = (failure.clone(), self.source());
        self.store
            .call(move |step| {
                handle.check(step)?;
                steps::dead_letter(step, source, handle.seq, limit.dead_queue, &failure)
            })
            .await
    }

    async fn depth(&self) -> TransportResult<Depth> {
        let queue = self.which as i64;
        self.store
            .call_unsynced(move |step| steps::depth(step, queue))
            .await
    }

    fn dead_letters(&self) -> Option<Arc<dyn Queue>> {
        self.dead.clone().map(|dead| dead as Arc<dyn Queue>)
    }
}

/// Messages between the database and a caller. When the caller is gone they become visible again as if never received.
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
                match Handle::parse_any(receipt).map(|handle| handle.unreceive(step)) {
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
