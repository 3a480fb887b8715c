//! The queue on SQS FIFO.
//!
//! A receive that is dropped takes nothing along: the long poll runs on its own, what it brings waits for the next
//! receive for a moment and is then given back.

mod batch;
mod inbox;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    Message, MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName,
    SendMessageBatchRequestEntry,
};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, warn};

use self::batch::{BATCH, Change, Changes};
use self::inbox::Inbox;
use super::Aws;
use super::fault::fault;
use crate::doors::{
    ATTR_DETAIL, ATTR_REASON, Delivery, Depth, DoorError, DoorResult, Outgoing, Queue, Receipt,
};

/// How long what a poll brought waits for somebody to take it before it is given back.
const GRACE: Duration = Duration::from_secs(1);
/// How much longer than its wait a poll may take to answer.
const ANSWER_SLACK: Duration = Duration::from_secs(5);
/// SQS hides a message for 12 hours at most.
const LONGEST_HIDING_SECS: u64 = 12 * 3600;
/// Tries for a message that failed inside a batch.
const SEND_TRIES: u32 = 4;
const SEND_PAUSE: Duration = Duration::from_millis(100);
/// Dead letters carry a detail of at most this many bytes.
const LONGEST_DETAIL_BYTES: usize = 1000;

/// One queue, with its dead-letter queue.
#[derive(Clone)]
pub struct SqsQueue {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    url: String,
    arn: String,
    calls: Client,
    polls: Client,
    visibility: Duration,
    max_receive_count: Option<u32>,
    dead: Option<Arc<SqsQueue>>,
    changes: Arc<Changes>,
    inbox: Mutex<Inbox>,
    faults: Mutex<Option<DoorError>>,
    arrived: Notify,
    receivers: AtomicUsize,
    polling: AtomicUsize,
}

impl fmt::Debug for SqsQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqsQueue")
            .field("url", &self.inner.url)
            .finish_non_exhaustive()
    }
}

impl Aws {
    /// Opens a queue by name or URL. `visibility` is what each receive asks for, whatever the queue's default is.
    /// Its dead-letter queue is the one that its redrive policy names.
    pub async fn queue(&self, name_or_url: &str, visibility: Duration) -> DoorResult<SqsQueue> {
        let url = self.queue_url(name_or_url).await?;
        let attributes = self.queue_attributes(&url).await?;
        let name = name_of(&url).to_owned();
        if attributes
            .get("FifoQueue")
            .is_none_or(|fifo| fifo != "true")
        {
            return Err(DoorError::Invalid(format!(
                "{name} is not a FIFO queue; name one that ends in .fifo, or make one with 'streampress setup'"
            )));
        }
        let policy = attributes
            .get("RedrivePolicy")
            .and_then(|policy| RedrivePolicy::parse(policy));
        let dead = match &policy {
            None => None,
            Some(policy) if !policy.target.starts_with("arn:") => {
                warn!(
                    queue = name,
                    target = policy.target,
                    "The redrive policy does not name a queue by its ARN, so no dead letter would ever arrive; run 'streampress setup'."
                );
                None
            }
            Some(policy) => {
                let target = policy.target.rsplit(':').next().unwrap_or(&policy.target);
                let dead_url = self.queue_url(target).await?;
                Some(Arc::new(self.queue_at(
                    dead_url,
                    policy.target.clone(),
                    visibility,
                    None,
                    None,
                )))
            }
        };
        let arn = attributes.get("QueueArn").cloned().unwrap_or_default();
        Ok(self.queue_at(
            url,
            arn,
            visibility,
            policy.map(|policy| policy.max_receive_count),
            dead,
        ))
    }

    fn queue_at(
        &self,
        url: String,
        arn: String,
        visibility: Duration,
        max_receive_count: Option<u32>,
        dead: Option<Arc<SqsQueue>>,
    ) -> SqsQueue {
        let name = name_of(&url).to_owned();
        SqsQueue {
            inner: Arc::new(Inner {
                changes: Changes::new(self.sqs.clone(), url.clone(), name.clone()),
                calls: self.sqs.clone(),
                polls: self.sqs_polls.clone(),
                name,
                url,
                arn,
                visibility,
                max_receive_count,
                dead,
                inbox: Mutex::default(),
                faults: Mutex::default(),
                arrived: Notify::new(),
                receivers: AtomicUsize::new(0),
                polling: AtomicUsize::new(0),
            }),
        }
    }

    pub(crate) async fn queue_url(&self, name_or_url: &str) -> DoorResult<String> {
        if name_or_url.contains("://") {
            return Ok(name_or_url.to_owned());
        }
        let answer = self
            .sqs
            .get_queue_url()
            .queue_name(name_or_url)
            .send()
            .await;
        let answer = answer.map_err(|error| {
            fault(
                format!("looking for the queue {name_or_url} at {}", self.place()),
                &error,
            )
        })?;
        answer.queue_url.ok_or_else(|| {
            DoorError::unavailable(
                format!("looking for the queue {name_or_url}"),
                "no URL was answered",
            )
        })
    }

    pub(crate) async fn queue_attributes(&self, url: &str) -> DoorResult<BTreeMap<String, String>> {
        let answer = self
            .sqs
            .get_queue_attributes()
            .queue_url(url)
            .attribute_names(QueueAttributeName::All)
            .send()
            .await;
        let answer = answer.map_err(|error| {
            fault(
                format!(
                    "reading the attributes of {} at {}",
                    name_of(url),
                    self.place()
                ),
                &error,
            )
        })?;
        let attributes = answer.attributes.unwrap_or_default();
        Ok(attributes
            .into_iter()
            .map(|(key, value)| (key.as_str().to_owned(), value))
            .collect())
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

    /// Hands out what is ready, hidden for its full time from now.
    async fn take(&self, max: usize) -> DoorResult<Vec<Delivery>> {
        let taken = self.inner.inbox().take(max, Instant::now());
        let mut deliveries = Vec::with_capacity(taken.len());
        for waiting in taken {
            let receipt = &waiting.delivery.receipt;
            let left = waiting
                .hidden_until
                .saturating_duration_since(Instant::now());
            if left >= self.inner.visibility.mul_f64(0.7) {
                deliveries.push(waiting.delivery);
                continue;
            }
            // It waited behind another of its group.
            match self.extend(receipt, self.inner.visibility).await {
                Ok(()) => deliveries.push(waiting.delivery),
                Err(error) => {
                    debug!(queue = self.inner.name, %error, "A message that waited is not ours any more.");
                    self.inner.inbox().gone(&receipt.0);
                }
            }
        }
        Ok(deliveries)
    }

    /// Sends what fits one request; gives back what failed and may work later.
    async fn send_batch(&self, batch: Vec<Outgoing>) -> DoorResult<Vec<Outgoing>> {
        let name = &self.inner.name;
        let step = || format!("sending to {name}");
        let entries = batch.iter().enumerate().map(|(index, message)| {
            SendMessageBatchRequestEntry::builder()
                .id(index.to_string())
                .message_body(&message.body)
                .message_group_id(&message.group)
                .message_deduplication_id(&message.dedup_id)
                .set_message_attributes(attributes(&message.attributes)?)
                .build()
        });
        let entries = entries
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| DoorError::Invalid(format!("{}: {error}", step())))?;
        let answer = self
            .inner
            .calls
            .send_message_batch()
            .queue_url(&self.inner.url)
            .set_entries(Some(entries))
            .send()
            .await;
        let answer = answer.map_err(|error| fault(step(), &error))?;
        if answer.failed.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(refused) = answer.failed.iter().find(|entry| entry.sender_fault()) {
            return Err(batch::said(refused).fault(step()));
        }
        let failed: HashSet<&str> = answer.failed.iter().map(|entry| entry.id()).collect();
        warn!(
            queue = name,
            failed = failed.len(),
            of = batch.len(),
            "Some messages of a batch were not taken; sending them again."
        );
        Ok(batch
            .into_iter()
            .enumerate()
            .filter(|(index, _)| failed.contains(index.to_string().as_str()))
            .map(|(_, message)| message)
            .collect())
    }
}

#[async_trait]
impl Queue for SqsQueue {
    fn name(&self) -> &str {
        &self.inner.name
    }

    fn visibility(&self) -> Duration {
        self.inner.visibility
    }

    async fn send(&self, messages: Vec<Outgoing>) -> DoorResult<()> {
        messages.iter().try_for_each(Outgoing::check)?;
        for batch in batches(messages) {
            let mut rest = self.send_batch(batch).await?;
            let mut tries = 1;
            while !rest.is_empty() {
                if tries == SEND_TRIES {
                    return Err(DoorError::unavailable(
                        format!("sending to {}", self.inner.name),
                        "SQS failed some messages of a batch again and again",
                    ));
                }
                tokio::time::sleep(SEND_PAUSE.mul_f64(f64::from(1 << tries) * fastrand::f64()))
                    .await;
                rest = self.send_batch(rest).await?;
                tries += 1;
            }
        }
        Ok(())
    }

    async fn receive(&self, max: usize, wait: Duration) -> DoorResult<Vec<Delivery>> {
        if !(1..=BATCH).contains(&max) {
            return Err(DoorError::Invalid(format!(
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
            if let Some(fault) = self
                .inner
                .faults
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take()
            {
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

    async fn extend(&self, receipt: &Receipt, hidden_for: Duration) -> DoorResult<()> {
        let secs = i32::try_from(hidden_for.as_secs_f64().ceil() as u64)
            .unwrap_or(i32::MAX)
            .min(LONGEST_HIDING_SECS as i32);
        let until = Instant::now() + hidden_for;
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
        let outcome = answers.into_iter().next().unwrap_or(Ok(()));
        match &outcome {
            Ok(()) => self.inner.inbox().hidden(&receipt.0, until),
            Err(DoorError::Stale) => self.inner.inbox().gone(&receipt.0),
            Err(_) => {}
        }
        outcome
    }

    async fn delete(&self, receipt: &Receipt) -> DoorResult<()> {
        let outcome = self.inner.changes.ask_one(&receipt.0, Change::Delete).await;
        match &outcome {
            Ok(()) => {
                if self.inner.inbox().done(&receipt.0, Instant::now()) {
                    self.inner.announce_arrival();
                }
            }
            Err(DoorError::Stale) => self.inner.inbox().gone(&receipt.0),
            Err(_) => {}
        }
        outcome
    }

    async fn release(&self, receipt: &Receipt) -> DoorResult<()> {
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

    async fn bury(&self, delivery: &Delivery, reason: &str, detail: &str) -> DoorResult<()> {
        let Some(dead) = &self.inner.dead else {
            return Err(DoorError::unavailable(
                format!("setting a message of {} aside", self.inner.name),
                "the queue has no dead-letter queue; wire one with 'streampress setup'",
            ));
        };
        let mut attributes = delivery.attributes.clone();
        attributes.insert(ATTR_REASON.into(), sendable(reason, LONGEST_DETAIL_BYTES));
        attributes.insert(ATTR_DETAIL.into(), sendable(detail, LONGEST_DETAIL_BYTES));
        while attributes.len() > 10 {
            let spare = attributes
                .keys()
                .find(|key| *key != ATTR_REASON && *key != ATTR_DETAIL)
                .cloned();
            spare.and_then(|key| attributes.remove(&key));
        }
        let letter = Outgoing {
            group: delivery.group.clone(),
            // By message: the same one buried twice is one dead letter.
            dedup_id: format!("dead-{}", delivery.message_id),
            body: delivery.body.clone(),
            attributes,
        };
        dead.send(vec![letter]).await?;
        match self.delete(&delivery.receipt).await {
            // Somebody else has it by now and will bury it too, onto the same dead letter.
            Err(DoorError::Stale) => Ok(()),
            other => other,
        }
    }

    async fn depth(&self) -> DoorResult<Depth> {
        let step = || format!("reading the depth of {}", self.inner.name);
        let wanted = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ];
        let request = self
            .inner
            .calls
            .get_queue_attributes()
            .queue_url(&self.inner.url)
            .set_attribute_names(Some(wanted.to_vec()));
        let answer = request
            .send()
            .await
            .map_err(|error| fault(step(), &error))?;
        let number = |name: &QueueAttributeName| -> DoorResult<u64> {
            let text = answer.attributes.as_ref().and_then(|all| all.get(name));
            text.and_then(|text| text.parse().ok())
                .ok_or_else(|| DoorError::unavailable(step(), format!("{name} was not answered")))
        };
        Ok(Depth {
            visible: number(&wanted[0])?,
            in_flight: number(&wanted[1])?,
            delayed: number(&wanted[2])?,
        })
    }

    /// A message that a poll brings after the process ended would stay hidden.
    async fn settle(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
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
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A long poll of its own, so that dropping a receive takes nothing along.
    fn start_poll(self: &Arc<Self>, max: usize, wait: Duration) {
        self.polling.fetch_add(1, Ordering::SeqCst);
        let inner = self.clone();
        tokio::spawn(async move {
            let outcome = inner.poll(max, wait).await;
            inner.polling.fetch_sub(1, Ordering::SeqCst);
            match outcome {
                Ok(()) => inner.announce_arrival(),
                Err(fault) => {
                    *inner.faults.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
                    inner.arrived.notify_waiters();
                }
            }
        });
    }

    async fn poll(&self, max: usize, wait: Duration) -> DoorResult<()> {
        let secs =
            |time: Duration| i32::try_from(time.as_secs_f64().ceil() as u64).unwrap_or(i32::MAX);
        let asked_at = Instant::now();
        let answer = self
            .polls
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(i32::try_from(max).unwrap_or(10))
            .wait_time_seconds(secs(wait).min(20))
            .visibility_timeout(secs(self.visibility))
            // Should the answer be lost, the SDK's next try is given the same messages.
            .receive_request_attempt_id(uuid::Uuid::new_v4().to_string())
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .message_attribute_names("All")
            .send()
            .await
            .map_err(|error| fault(format!("receiving from {}", self.name), &error))?;
        let deliveries: Vec<_> = answer
            .messages
            .unwrap_or_default()
            .into_iter()
            .filter_map(delivery)
            .collect();
        if deliveries.is_empty() {
            return Ok(());
        }
        // Hidden since some moment between asking and now; the earliest that can be is what counts, but for the wait.
        let now = Instant::now();
        let since = if now.duration_since(asked_at) > wait + Duration::from_secs(1) {
            asked_at
        } else {
            now
        };
        let mut inbox = self.inbox();
        inbox.forget_expired(now);
        inbox.arrived(deliveries, since + self.visibility, now);
        Ok(())
    }

    /// Something is ready: whoever waits takes it now, else it is given back soon.
    fn announce_arrival(self: &Arc<Self>) {
        self.arrived.notify_waiters();
        if self.inbox().has_ready() {
            let inner = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(GRACE).await;
                inner.sweep(GRACE).await;
            });
        }
    }

    async fn sweep(&self, grace: Duration) {
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
struct Receiver<'a>(&'a AtomicUsize);

impl<'a> Receiver<'a> {
    fn enter(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Receiver<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What a redrive policy says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RedrivePolicy {
    pub(crate) target: String,
    pub(crate) max_receive_count: u32,
}

impl RedrivePolicy {
    /// The count comes as a number or as text.
    pub(crate) fn parse(json: &str) -> Option<Self> {
        let policy: serde_json::Value = serde_json::from_str(json).ok()?;
        let count = &policy["maxReceiveCount"];
        let count = count.as_u64().or_else(|| count.as_str()?.parse().ok())?;
        Some(Self {
            target: policy["deadLetterTargetArn"].as_str()?.to_owned(),
            max_receive_count: u32::try_from(count).ok()?,
        })
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::json!({"deadLetterTargetArn": self.target, "maxReceiveCount": self.max_receive_count}).to_string()
    }
}

/// The last part of a queue's URL.
pub(crate) fn name_of(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

/// `None` only for an answer without a receipt, which cannot be acted on in any way.
fn delivery(message: Message) -> Option<Delivery> {
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
        receipt: Receipt(message.receipt_handle?),
    })
}

type Built<T> = Result<T, aws_sdk_sqs::error::BuildError>;

fn attributes(
    ours: &BTreeMap<String, String>,
) -> Built<Option<std::collections::HashMap<String, MessageAttributeValue>>> {
    if ours.is_empty() {
        return Ok(None);
    }
    let value = |text: &String| {
        MessageAttributeValue::builder()
            .data_type("String")
            .string_value(text)
            .build()
    };
    ours.iter()
        .map(|(key, text)| Ok((key.clone(), value(text)?)))
        .collect::<Built<_>>()
        .map(Some)
}

/// Bytes that count towards the limit.
fn weight(message: &Outgoing) -> usize {
    let attributes = message
        .attributes
        .iter()
        .map(|(key, value)| key.len() + value.len() + "String".len());
    message.body.len() + attributes.sum::<usize>()
}

/// What XML 1.0 can hold, which is what SQS takes.
fn is_sendable(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..)
}

/// Text as an attribute can hold it: never empty, nothing SQS refuses, not too long.
fn sendable(text: &str, longest_bytes: usize) -> String {
    let mut clean: String = text
        .chars()
        .map(|c| if is_sendable(c) { c } else { '?' })
        .collect();
    if clean.len() > longest_bytes {
        clean.truncate(clean.floor_char_boundary(longest_bytes));
    }
    if clean.is_empty() { "-".into() } else { clean }
}

/// Batches of ten, of what fits a request, and of one message a group: an entry that fails and is sent again must not
/// come after a later one of its group.
fn batches(messages: Vec<Outgoing>) -> Vec<Vec<Outgoing>> {
    let mut batches: Vec<Vec<Outgoing>> = Vec::new();
    let (mut bytes, mut groups) = (0, HashSet::new());
    for message in messages {
        let fits = batches.last().is_some_and(|batch| batch.len() < BATCH)
            && bytes + weight(&message) <= Outgoing::MAX_BYTES
            && !groups.contains(&message.group);
        if !fits {
            batches.push(Vec::new());
            bytes = 0;
            groups.clear();
        }
        bytes += weight(&message);
        groups.insert(message.group.clone());
        if let Some(batch) = batches.last_mut() {
            batch.push(message);
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(group: &str, bytes: usize) -> Outgoing {
        Outgoing {
            group: group.into(),
            dedup_id: "d".into(),
            body: "x".repeat(bytes),
            attributes: BTreeMap::new(),
        }
    }

    #[test]
    fn a_batch_has_ten_messages_one_of_a_group_and_fits_a_request() {
        let many = (0..25).map(|i| message(&format!("g{i}"), 10)).collect();
        assert_eq!(
            batches(many).iter().map(Vec::len).collect::<Vec<_>>(),
            [10, 10, 5]
        );
        let same = vec![message("g", 1), message("h", 1), message("g", 1)];
        assert_eq!(
            batches(same).iter().map(Vec::len).collect::<Vec<_>>(),
            [2, 1]
        );
        let large = (0..3).map(|i| message(&format!("g{i}"), 600_000)).collect();
        assert_eq!(
            batches(large).iter().map(Vec::len).collect::<Vec<_>>(),
            [1, 1, 1]
        );
    }

    #[test]
    fn a_reason_always_fits_an_attribute() {
        assert_eq!(sendable("", 10), "-");
        assert_eq!(sendable("a\0b", 10), "a?b");
        assert_eq!(sendable("ääää", 5), "ää");
    }

    #[test]
    fn a_redrive_policy_is_read_with_its_count_as_number_or_text() {
        let policy = RedrivePolicy {
            target: "arn:aws:sqs:r:1:x-dlq.fifo".into(),
            max_receive_count: 5,
        };
        assert_eq!(
            RedrivePolicy::parse(&policy.to_json()),
            Some(RedrivePolicy {
                target: policy.target.clone(),
                max_receive_count: 5
            })
        );
        assert_eq!(
            RedrivePolicy::parse(
                r#"{"deadLetterTargetArn":"arn:aws:sqs:r:1:x-dlq.fifo","maxReceiveCount":"5"}"#
            ),
            Some(policy)
        );
        assert_eq!(RedrivePolicy::parse("http://queue"), None);
    }
}
