//! One message in hand, from its receive to its end: kept hidden, handled within its trace, and then deleted, set aside or
//! given back.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, debug, error, field, info, info_span, warn};

use super::{Fault, Handler, Job};
use crate::doors::{Delivery, DoorError, Held, Queue};
use crate::metrics::{InHand, Meter};
use crate::trace::{self, TraceContext};

/// SQS hides a message for at most 12 hours after it was received; we stop half an hour before.
const LONGEST_HIDING: Duration = Duration::from_secs(11 * 3600 + 1800);
/// Back-off of transient faults: 1 s, 2 s, 4 s … up to this.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(60);

/// What the work on one message needs.
pub(super) struct Work {
    pub(super) role: &'static str,
    pub(super) queue: Arc<dyn Queue>,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) max_receive_count: u32,
    pub(super) held: Arc<Held>,
    pub(super) stop: CancellationToken,
    pub(super) meter: Meter,
}

impl Work {
    pub(super) async fn run(
        self,
        delivery: Delivery,
        in_hand: InHand,
        permits: &Semaphore,
        weight: u32,
    ) {
        let (span, context) = self.span(&delivery);
        let work = async {
            let outcome = self.keep_and_handle(&delivery, permits, weight).await;
            self.conclude(&delivery, in_hand, outcome).await;
        };
        trace::scope(context, work).instrument(span).await;
    }

    /// Every line logged on the way says which file it is about; what is sent on the way goes on with its trace.
    fn span(&self, delivery: &Delivery) -> (Span, TraceContext) {
        let subject = self.handler.subject(delivery);
        let carried = delivery
            .attributes
            .get(trace::ATTRIBUTE)
            .or(subject.traceparent.as_ref());
        let carried = carried.and_then(|carried| TraceContext::parse(carried));
        let span = info_span!(
            "file",
            role = self.role,
            file_id = subject.file_id,
            file_name = subject.file_name,
            attempt = delivery.receive_count,
            trace_id = field::Empty,
        );
        let context = trace::place(&span, carried);
        (span, context)
    }

    async fn keep_and_handle(
        &self,
        delivery: &Delivery,
        permits: &Semaphore,
        weight: u32,
    ) -> Result<(), Fault> {
        let keep_hidden = self.keep_hidden(delivery);
        let handled = async {
            let _permit = tokio::select! {
                () = self.stop.cancelled() => return Err(Fault::Interrupted),
                permit = permits.acquire_many(weight) => permit,
            };
            self.handler
                .handle(Job {
                    delivery,
                    held: &self.held,
                    stop: &self.stop,
                    meter: &self.meter,
                })
                .await
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
                        message_id = delivery.message_id,
                        "Lost a message to another worker; stopping its work."
                    );
                    return;
                }
                Err(fault) => {
                    warn!(error = %fault, "Could not prolong a message's hiding; trying again.")
                }
            }
        }
    }

    async fn conclude(&self, delivery: &Delivery, in_hand: InHand, outcome: Result<(), Fault>) {
        match outcome {
            Ok(()) => self.acknowledge(delivery, in_hand).await,
            Err(Fault::Permanent { reason, detail }) => {
                self.bury(delivery, in_hand, reason, &detail).await
            }
            Err(Fault::Transient(cause)) if delivery.receive_count >= self.max_receive_count => {
                let detail = format!(
                    "gave up after {} attempts: {cause:#}",
                    delivery.receive_count
                );
                self.bury(delivery, in_hand, "GaveUp", &detail).await;
            }
            Err(Fault::Transient(cause)) => {
                let back_off = back_off(delivery.receive_count);
                warn!(message_id = delivery.message_id, error = %format!("{cause:#}"), back_off_secs = back_off.as_secs_f64(), "Did not work; trying again later.");
                if let Err(fault) = self.queue.extend(&delivery.receipt, back_off).await {
                    debug!(error = %fault, "The message comes back when its hiding time ends.");
                }
                in_hand.retried("fault");
            }
            Err(Fault::Interrupted) => {
                give_back(self.role, &*self.queue, delivery).await;
                in_hand.retried("interrupted");
            }
        }
    }

    async fn acknowledge(&self, delivery: &Delivery, in_hand: InHand) {
        match self.queue.delete(&delivery.receipt).await {
            Ok(()) => {
                in_hand.acknowledged();
                self.handler.acknowledged(delivery).await;
            }
            // Harmless: whoever has it now finds the effect done and acknowledges.
            Err(fault) => {
                info!(message_id = delivery.message_id, error = %fault, "Done, but not acknowledged; it will be seen again and skipped.");
                in_hand.retried("not_deleted");
            }
        }
    }

    async fn bury(&self, delivery: &Delivery, in_hand: InHand, reason: &'static str, detail: &str) {
        match self.queue.bury(delivery, reason, detail).await {
            Ok(()) => {
                error!(
                    message_id = delivery.message_id,
                    reason, detail, "Set aside as a dead letter."
                );
                in_hand.dead(reason);
                self.held.count(|ledger| ledger.failures += 1);
                self.handler.buried(delivery, reason, detail).await;
            }
            Err(fault) => {
                warn!(reason, detail, error = %fault, "Could not set a message aside; it comes back when its hiding time ends.");
                in_hand.retried("not_set_aside");
            }
        }
    }
}

pub(super) async fn give_back(role: &str, queue: &dyn Queue, delivery: &Delivery) {
    match queue.release(&delivery.receipt).await {
        Ok(()) | Err(DoorError::Stale) => {}
        Err(fault) => {
            warn!(role, error = %fault, "Could not give a message back; it comes back by itself when its hiding time ends.")
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
