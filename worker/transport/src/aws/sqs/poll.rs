//! Long polls, each in a task of its own, so that a receive that is dropped loses no message: what a poll brings waits for
//! the next receive for a moment and is then released.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_sqs::types::{Message, MessageSystemAttributeName, QueueAttributeName};
use tokio::time::Instant;
use tracing::debug;

use super::open::epoch_of;
use super::{BACKOFF, SqsInner};
use crate::aws::ServiceError;
use crate::{Delivery, FileVersion, Receipt, Sequence, TransportResult};

/// How long a polled message waits for a receive before it is released.
const GRACE: Duration = Duration::from_secs(1);
/// Attempts of one poll.
const TRIES: u32 = 5;
/// SQS's longest poll.
const MAX_WAIT_SECS: i32 = 20;

impl SqsInner {
    /// Starts a long poll of its own.
    pub(super) fn start_poll(self: &Arc<Self>, max: usize, wait: Duration) {
        self.polling.fetch_add(1, Ordering::SeqCst);
        let inner = self.clone();
        tokio::spawn(async move {
            let outcome = inner.poll(max, wait).await;
            inner.polling.fetch_sub(1, Ordering::SeqCst);
            match outcome {
                Ok(()) => inner.announce_arrival(),
                Err(fault) => {
                    *inner.fault.lock() = Some(fault);
                    inner.arrived.notify_waiters();
                }
            }
        });
    }

    async fn poll(&self, max: usize, wait: Duration) -> TransportResult<()> {
        // Before the receive: what is received must not stay in flight because this fails.
        self.epoch(Duration::MAX).await?;
        let requested_at = Instant::now();
        let messages = self.receive_message(max, wait).await?;
        // Invisible since some moment between request and answer. The earliest possible one counts, unless the poll only
        // waited for its time.
        let now = Instant::now();
        let since = if now.duration_since(requested_at) > wait + Duration::from_secs(1) {
            requested_at
        } else {
            now
        };
        if messages.is_empty() {
            return Ok(());
        }
        let epoch = self.epoch(Duration::MAX).await?;
        let invisible = (since, since + self.visibility_timeout);
        let received = |message| delivery(message, (&self.name, epoch), invisible);
        let deliveries = messages.into_iter().filter_map(received).collect();
        let mut inbox = self.inbox();
        inbox.forget_expired(now);
        inbox.arrived(deliveries, now);
        Ok(())
    }

    /// One answer. When it is lost, the next attempt has the same attempt id and gets the same messages; while the queue is
    /// drained it waits for no others, so that no message is received that no worker will handle.
    async fn receive_message(&self, max: usize, wait: Duration) -> TransportResult<Vec<Message>> {
        let secs =
            |time: Duration| i32::try_from(time.as_secs_f64().ceil() as u64).unwrap_or(i32::MAX);
        let until = Instant::now() + wait;
        let attempt = uuid::Uuid::new_v4().to_string();
        let mut tries = 0;
        loop {
            let wait = if self.draining.load(Ordering::SeqCst) {
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
                .wait_time_seconds(secs(wait).min(MAX_WAIT_SECS))
                .visibility_timeout(secs(self.visibility_timeout))
                .receive_request_attempt_id(&attempt)
                .message_system_attribute_names(MessageSystemAttributeName::All)
                .message_attribute_names("All")
                .send()
                .await;
            let error = match answer {
                Ok(answer) => return Ok(answer.messages.unwrap_or_default()),
                Err(error) => ServiceError::from_sdk(&error),
            };
            *self.epoch.lock() = None;
            tries += 1;
            if tries == TRIES || error.is_refusal() || error.is_absent() || error.is_denied() {
                return Err(error.into_transport_error(format!("receiving from {}", self.name)));
            }
            tokio::time::sleep(BACKOFF.full_jitter(tries)).await;
        }
    }

    /// When the queue was created, in seconds since 1970, as it was read at most `age` ago. A queue that does not tell has
    /// the epoch 0.
    pub(super) async fn epoch(&self, age: Duration) -> TransportResult<u64> {
        if let Some((known, read_at)) = *self.epoch.lock()
            && read_at.elapsed() < age
        {
            return Ok(known);
        }
        let which = [QueueAttributeName::CreatedTimestamp];
        let step = || format!("reading the creation time of {}", self.name);
        let attributes = self.aws.attributes_of(&self.url, &which).await;
        let attributes = attributes.map_err(|error| error.into_transport_error(step()))?;
        let epoch = epoch_of(&attributes);
        *self.epoch.lock() = Some((epoch, Instant::now()));
        Ok(epoch)
    }

    /// Messages are ready: a waiting receive takes them now, or they are released soon.
    pub(super) fn announce_arrival(self: &Arc<Self>) {
        self.arrived.notify_waiters();
        if self.inbox().has_ready() {
            let inner = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(GRACE).await;
                inner.release_unclaimed(GRACE).await;
            });
        }
    }

    /// Releases messages that have been ready for `grace` and were not received.
    pub(super) async fn release_unclaimed(&self, grace: Duration) {
        let receipts = self.inbox().unclaimed(grace, Instant::now());
        if receipts.is_empty() {
            return;
        }
        debug!(
            queue = self.name,
            messages = receipts.len(),
            "Releasing messages that no receive took."
        );
        for answer in self.release_all(receipts).await {
            if let Err(error) = answer {
                debug!(queue = self.name, %error, "Could not release a message; it comes back when its visibility timeout ends.");
            }
        }
    }
}

/// Counts receives that wait: as many polls may run.
pub(super) struct WaitingReceiver<'a>(&'a AtomicUsize);

impl<'a> WaitingReceiver<'a> {
    pub(super) fn enter(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for WaitingReceiver<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// `None` only for an answer without a receipt, which can neither be extended nor deleted.
fn delivery(
    message: Message,
    (queue, epoch): (&str, u64),
    (received_at, visibility_deadline): (Instant, Instant),
) -> Option<Delivery> {
    let mut system = message.attributes.unwrap_or_default();
    let mut take = |name: MessageSystemAttributeName| system.remove(&name).unwrap_or_default();
    let attributes = message.message_attributes.unwrap_or_default();
    Some(Delivery {
        message_id: message.message_id.unwrap_or_default(),
        group: take(MessageSystemAttributeName::MessageGroupId),
        dedup_id: take(MessageSystemAttributeName::MessageDeduplicationId),
        body: message.body.unwrap_or_default(),
        sent_as: FileVersion::new(
            queue,
            epoch,
            Sequence::parse(&take(MessageSystemAttributeName::SequenceNumber))
                .unwrap_or_else(|| 0.into()),
        ),
        sent_millis: take(MessageSystemAttributeName::SentTimestamp)
            .parse()
            .unwrap_or(0),
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
