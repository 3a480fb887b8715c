//! The one consume loop: receive, take a slot, keep hidden, handle, acknowledge. Both roles that read a queue run
//! it; what a message means is the [`Handler`]'s.
//!
//! Effect first, then delete. A message that is not done when we stop is given back at once; a fault that may pass
//! comes back later by redelivery; one that cannot pass goes to the dead-letter queue with its reason.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::doors::{Delivery, DoorError, DoorResult, Held, Lock, Queue};

/// SQS hides a message for at most 12 hours after it was received; we stop half an hour before.
const LONGEST_HIDING: Duration = Duration::from_secs(11 * 3600 + 1800);
/// The longest wait in one receive, which is SQS's long poll.
const LONG_POLL: Duration = Duration::from_secs(20);
/// At the end of the process, for what a long poll still brings. A pod has 30 s in all.
const SETTLE: Duration = Duration::from_secs(21);
/// After a door's fault, before we ask again.
const FAULT_PAUSE: Duration = Duration::from_secs(2);
/// Back-off of transient faults: 1 s, 2 s, 4 s … up to this.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(60);

/// How a message ended, other than done.
#[derive(Debug)]
pub enum Fault {
    /// It will never work: to the dead-letter queue at the first attempt.
    Permanent {
        /// One word, stable: `HashMismatch`.
        reason: &'static str,
        /// One sentence with the way out.
        detail: String,
    },
    /// It may work later: redelivered with back-off.
    Transient(anyhow::Error),
    /// We were told to stop, or the slot was lost: given back.
    Interrupted,
}

impl Fault {
    /// A fault that no second attempt mends.
    pub fn permanent(reason: &'static str, detail: impl std::fmt::Display) -> Self {
        Self::Permanent {
            reason,
            detail: format!("{detail:#}"),
        }
    }
}

impl From<DoorError> for Fault {
    fn from(error: DoorError) -> Self {
        match error {
            DoorError::Expired(_) => Self::permanent("Expired", error),
            DoorError::Missing(_) => Self::permanent("RecordMissing", error),
            DoorError::Invalid(_) => Self::permanent("Refused", error),
            DoorError::Stale => Self::Interrupted,
            DoorError::Unavailable { .. } => Self::Transient(error.into()),
        }
    }
}

/// What a role does with one message. The same message twice must have the same effect as once.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Does the work. `stop` is cancelled when the slot is lost or the process shall end: the handler then
    /// returns [`Fault::Interrupted`] at the next block boundary and has no effect after.
    async fn handle(
        &self,
        delivery: &Delivery,
        held: &Held,
        stop: &CancellationToken,
    ) -> Result<(), Fault>;
    /// How many of the worker's threads the message wants, from 1.
    fn weight(&self, delivery: &Delivery) -> usize;
    /// Called once the message is deleted: what may only happen when it is safe.
    async fn acknowledged(&self, delivery: &Delivery);
    /// Called once the message is a dead letter.
    async fn buried(&self, delivery: &Delivery, reason: &str, detail: &str);
}

/// A role's worker.
pub struct Consumer {
    /// For logs.
    pub role: &'static str,
    /// Where its work comes from.
    pub queue: Arc<dyn Queue>,
    /// The role's slots.
    pub lock: Arc<dyn Lock>,
    /// What it does with a message.
    pub handler: Arc<dyn Handler>,
    /// Files in hand at once, and the sum of their weights.
    pub threads: usize,
    /// Between two looks at slots that are held by others.
    pub interval: Duration,
    /// How long it keeps a slot after the last message, so that a trickle of files does not make a slot change hands.
    pub linger: Duration,
    /// After so many receives a fault that may pass is taken for one that does not.
    pub max_receive_count: u32,
    /// Cancelled when the process shall end.
    pub shutdown: CancellationToken,
}

impl Consumer {
    /// Works until shut down. Faults of doors are logged and tried again: only shutdown ends it.
    pub async fn run(&self) {
        while !self.shutdown.is_cancelled() {
            if let Err(fault) = self.tick().await {
                warn!(role = self.role, error = %format!("{:#}", anyhow::Error::from(fault)), "Cannot reach the transport; trying again.");
                self.pause(FAULT_PAUSE).await;
            }
        }
        if !self.queue.settle(SETTLE).await {
            warn!(
                role = self.role,
                "A message received at the very end stays hidden until its time runs out."
            );
        }
    }

    /// One tick: waits for work, takes a slot, works until there is none, gives the slot up.
    async fn tick(&self) -> DoorResult<()> {
        if self.lock.all_held_by_others().await? {
            self.pause(self.interval).await;
            return Ok(());
        }
        let deliveries = tokio::select! {
            () = self.shutdown.cancelled() => return Ok(()),
            received = self.queue.receive(self.threads.clamp(1, 10), LONG_POLL) => received?,
        };
        if deliveries.is_empty() {
            return Ok(());
        }
        match self.lock.try_acquire().await {
            Ok(Some(held)) => {
                self.drain(held, deliveries).await;
                Ok(())
            }
            lost_race => {
                for delivery in &deliveries {
                    self.give_back(delivery).await;
                }
                self.pause(self.interval).await;
                lost_race.map(drop)
            }
        }
    }

    async fn pause(&self, time: Duration) {
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = tokio::time::sleep(time) => {}
        }
    }

    /// Works off the queue while it holds a slot.
    async fn drain(&self, held: Held, first: Vec<Delivery>) {
        debug!(role = self.role, slot = held.slot(), "Took a slot.");
        let held = Arc::new(held);
        let stop = CancellationToken::new();
        let permits = Arc::new(Semaphore::new(self.threads.max(1)));
        let mut at_work = JoinSet::new();
        for delivery in first {
            self.start(delivery, &held, &stop, &permits, &mut at_work);
        }
        loop {
            let room = self.threads.max(1).saturating_sub(at_work.len());
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                () = held.lost().cancelled() => break,
                Some(_) = at_work.join_next(), if !at_work.is_empty() => {}
                received = self.queue.receive(room.clamp(1, 10), self.linger), if room > 0 => match received {
                    Ok(more) if more.is_empty() && at_work.is_empty() => break,
                    Ok(more) => for delivery in more {
                        self.start(delivery, &held, &stop, &permits, &mut at_work);
                    },
                    Err(fault) => {
                        warn!(role = self.role, error = %format!("{:#}", anyhow::Error::from(fault)), "Cannot receive; trying again.");
                        self.pause(FAULT_PAUSE).await;
                    }
                },
            }
        }
        stop.cancel();
        while at_work.join_next().await.is_some() {}
        if let Ok(held) = Arc::try_unwrap(held) {
            let slot = held.slot().to_owned();
            let kept = held.release().await;
            debug!(role = self.role, slot, kept, "Gave the slot up.");
        }
    }

    fn start(
        &self,
        delivery: Delivery,
        held: &Arc<Held>,
        stop: &CancellationToken,
        permits: &Arc<Semaphore>,
        at_work: &mut JoinSet<()>,
    ) {
        let weight = u32::try_from(self.handler.weight(&delivery).clamp(1, self.threads.max(1)))
            .unwrap_or(1);
        let work = Work {
            role: self.role,
            queue: self.queue.clone(),
            handler: self.handler.clone(),
            max_receive_count: self.max_receive_count,
            held: held.clone(),
            stop: stop.child_token(),
        };
        let permits = permits.clone();
        at_work.spawn(async move { work.run(delivery, &permits, weight).await });
    }

    async fn give_back(&self, delivery: &Delivery) {
        give_back(self.role, &*self.queue, delivery).await;
    }
}

async fn give_back(role: &str, queue: &dyn Queue, delivery: &Delivery) {
    match queue.release(&delivery.receipt).await {
        Ok(()) | Err(DoorError::Stale) => {}
        Err(fault) => {
            warn!(role, error = %fault, "Could not give a message back; it comes back by itself when its hiding time ends.")
        }
    }
}

/// One message in hand.
struct Work {
    role: &'static str,
    queue: Arc<dyn Queue>,
    handler: Arc<dyn Handler>,
    max_receive_count: u32,
    held: Arc<Held>,
    stop: CancellationToken,
}

impl Work {
    async fn run(self, delivery: Delivery, permits: &Semaphore, weight: u32) {
        let outcome = {
            let keep_hidden = self.keep_hidden(&delivery);
            let handled = async {
                let _permit = tokio::select! {
                    () = self.stop.cancelled() => return Err(Fault::Interrupted),
                    permit = permits.acquire_many(weight) => permit,
                };
                self.handler.handle(&delivery, &self.held, &self.stop).await
            };
            tokio::pin!(keep_hidden, handled);
            tokio::select! {
                outcome = &mut handled => outcome,
                () = &mut keep_hidden => {
                    // The message belongs to somebody else now: no effect may follow, so the work is seen to its end.
                    self.stop.cancel();
                    handled.await
                }
            }
        };
        self.conclude(&delivery, outcome).await;
    }

    /// Returns only when the message is no longer ours.
    async fn keep_hidden(&self, delivery: &Delivery) {
        let hidden_for = self.queue.visibility();
        let until = tokio::time::Instant::now() + LONGEST_HIDING;
        while tokio::time::Instant::now() < until {
            tokio::time::sleep(hidden_for / 3).await;
            match self.queue.extend(&delivery.receipt, hidden_for).await {
                Ok(()) => {}
                Err(DoorError::Stale) => {
                    warn!(
                        role = self.role,
                        message_id = delivery.message_id,
                        "Lost a message to another worker; stopping its work."
                    );
                    return;
                }
                Err(fault) => {
                    warn!(role = self.role, error = %fault, "Could not prolong a message's hiding; trying again.")
                }
            }
        }
    }

    async fn conclude(&self, delivery: &Delivery, outcome: Result<(), Fault>) {
        match outcome {
            Ok(()) => self.acknowledge(delivery).await,
            Err(Fault::Permanent { reason, detail }) => self.bury(delivery, reason, &detail).await,
            Err(Fault::Transient(cause)) if delivery.receive_count >= self.max_receive_count => {
                let detail = format!(
                    "gave up after {} attempts: {cause:#}",
                    delivery.receive_count
                );
                self.bury(delivery, "GaveUp", &detail).await;
            }
            Err(Fault::Transient(cause)) => {
                let back_off = back_off(delivery.receive_count);
                warn!(role = self.role, message_id = delivery.message_id, attempt = delivery.receive_count, error = %format!("{cause:#}"), back_off_secs = back_off.as_secs_f64(), "Did not work; trying again later.");
                if let Err(fault) = self.queue.extend(&delivery.receipt, back_off).await {
                    debug!(role = self.role, error = %fault, "The message comes back when its hiding time ends.");
                }
            }
            Err(Fault::Interrupted) => give_back(self.role, &*self.queue, delivery).await,
        }
    }

    async fn acknowledge(&self, delivery: &Delivery) {
        match self.queue.delete(&delivery.receipt).await {
            Ok(()) => self.handler.acknowledged(delivery).await,
            // Harmless: whoever has it now finds the effect done and acknowledges.
            Err(fault) => {
                info!(role = self.role, message_id = delivery.message_id, error = %fault, "Done, but not acknowledged; it will be seen again and skipped.")
            }
        }
    }

    async fn bury(&self, delivery: &Delivery, reason: &str, detail: &str) {
        match self.queue.bury(delivery, reason, detail).await {
            Ok(()) => {
                error!(
                    role = self.role,
                    message_id = delivery.message_id,
                    reason,
                    detail,
                    "Set aside as a dead letter."
                );
                self.held.count(|ledger| ledger.failures += 1);
                self.handler.buried(delivery, reason, detail).await;
            }
            Err(fault) => {
                warn!(role = self.role, reason, detail, error = %fault, "Could not set a message aside; it comes back when its hiding time ends.")
            }
        }
    }
}

/// 1 s, 2 s, 4 s … with up to half of it taken off at random, so that messages that failed together do not come back together.
fn back_off(receive_count: u32) -> Duration {
    let doubled =
        Duration::from_secs(1 << receive_count.saturating_sub(1).min(16)).min(LONGEST_BACK_OFF);
    doubled.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_up_to_a_minute() {
        for (count, seconds) in [(1, 1.0), (2, 2.0), (5, 16.0), (7, 60.0), (u32::MAX, 60.0)] {
            let time = back_off(count).as_secs_f64();
            assert!((seconds / 2.0..=seconds).contains(&time), "{count}: {time}");
        }
    }
}
