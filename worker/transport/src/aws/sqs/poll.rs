//! Long polls, each on its own, so that a receive that is dropped takes nothing along: what a poll brings waits for the
//! next receive for a moment and is then given back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};
use tokio::time::Instant;
use tracing::debug;

use super::Inner;
use super::batch::Change;
use crate::aws::service_error::ServiceError;
use crate::{Backoff, Delivery, Receipt, TransportResult};

/// How long what a poll brought waits for somebody to take it before it is given back.
const GRACE: Duration = Duration::from_secs(1);
/// Attempts of one poll.
const TRIES: u32 = 5;
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));

impl Inner {
    /// A long poll of its own, so that dropping a receive takes nothing along.
    pub(super) fn start_poll(self: &Arc<Self>, max: usize, wait: Duration) {
        self.polling.fetch_add(1, Ordering::SeqCst);
        let inner = self.clone();
        tokio::spawn(async move {
            let outcome = inner.poll(max, wait).await;
            inner.polling.fetch_sub(1, Ordering::SeqCst);
            match outcome {
                Ok(()) => inner.announce_arrival(),
                Err(fault) => {
                    *inner.faults.lock() = Some(fault);
                    inner.arrived.notify_waiters();
                }
            }
        });
    }

    async fn poll(&self, max: usize, wait: Duration) -> TransportResult<()> {
        let asked_at = Instant::now();
        let messages = self.ask(max, wait).await?;
        // Hidden since some moment between asking and now; the earliest that can be is what counts, but for the wait.
        let now = Instant::now();
        let since = if now.duration_since(asked_at) > wait + Duration::from_secs(1) {
            asked_at
        } else {
            now
        };
        let received = |message| delivery(message, since, since + self.visibility);
        let deliveries: Vec<_> = messages.into_iter().filter_map(received).collect();
        if deliveries.is_empty() {
            return Ok(());
        }
        let mut inbox = self.inbox();
        inbox.forget_expired(now);
        inbox.arrived(deliveries, now);
        Ok(())
    }

    /// One answer. Should it be lost, the next try has the same attempt id and is given the same messages; at the end of
    /// the process it asks for no others, so that nothing is taken that nobody will see.
    async fn ask(&self, max: usize, wait: Duration) -> TransportResult<Vec<Message>> {
        let secs =
            |time: Duration| i32::try_from(time.as_secs_f64().ceil() as u64).unwrap_or(i32::MAX);
        let until = Instant::now() + wait;
        let attempt = uuid::Uuid::new_v4().to_string();
        let mut tries = 0;
        loop {
            let wait = if self.settling.load(Ordering::SeqCst) {
                Duration::ZERO
            } else {
                until.saturating_duration_since(Instant::now())
            };
            let answer = self
                .aws
                .sqs_polls
                .receive_message()
                .queue_url(&self.url)
                .max_number_of_messages(i32::try_from(max).unwrap_or(10))
                .wait_time_seconds(secs(wait).min(20))
                .visibility_timeout(secs(self.visibility))
                .receive_request_attempt_id(&attempt)
                .message_system_attribute_names(MessageSystemAttributeName::All)
                .message_attribute_names("All")
                .send()
                .await;
            let said = match answer {
                Ok(answer) => return Ok(answer.messages.unwrap_or_default()),
                Err(error) => ServiceError::from_sdk(&error),
            };
            tries += 1;
            if tries == TRIES || said.is_refusal() || said.is_absent() || said.is_denied() {
                return Err(said.into_transport_error(format!("receiving from {}", self.name)));
            }
            tokio::time::sleep(BACKOFF.full_jitter(tries)).await;
        }
    }

    /// Something is ready: whoever waits takes it now, else it is given back soon.
    pub(super) fn announce_arrival(self: &Arc<Self>) {
        self.arrived.notify_waiters();
        if self.inbox().has_ready() {
            let inner = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(GRACE).await;
                inner.sweep(GRACE).await;
            });
        }
    }

    pub(super) async fn sweep(&self, grace: Duration) {
        let receipts = self.inbox().unclaimed(grace, Instant::now());
        if receipts.is_empty() {
            return;
        }
        debug!(
            queue = self.name,
            messages = receipts.len(),
            "Giving back what nobody took."
        );
        for answer in self
            .changes
            .ask(
                receipts
                    .into_iter()
                    .map(|receipt| (receipt, Change::HideForSecs(0)))
                    .collect(),
            )
            .await
        {
            if let Err(error) = answer {
                debug!(queue = self.name, %error, "Could not give a message back; it comes back when its hiding time ends.");
            }
        }
    }
}

/// Counts receives under way: as many polls may be.
pub(super) struct Receiver<'a>(&'a AtomicUsize);

impl<'a> Receiver<'a> {
    pub(super) fn enter(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Receiver<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// `None` only for an answer without a receipt, which cannot be acted on in any way.
fn delivery(
    message: Message,
    received_at: Instant,
    visibility_deadline: Instant,
) -> Option<Delivery> {
    let mut system = message.attributes.unwrap_or_default();
    let mut take = |name: MessageSystemAttributeName| system.remove(&name).unwrap_or_default();
    let attributes = message.message_attributes.unwrap_or_default();
    Some(Delivery {
        message_id: message.message_id.unwrap_or_default(),
        group: take(MessageSystemAttributeName::MessageGroupId),
        dedup_id: take(MessageSystemAttributeName::MessageDeduplicationId),
        body: message.body.unwrap_or_default(),
        attributes: attributes
            .into_iter()
            .filter_map(|(key, value)| Some((key, value.string_value?)))
            .collect(),
        receive_count: take(MessageSystemAttributeName::ApproximateReceiveCount)
            .parse()
            .unwrap_or(1),
        received_at,
        visibility_deadline,
        receipt: Receipt(message.receipt_handle?),
    })
}
