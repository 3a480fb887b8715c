//! The state of one queue: its messages, their groups and receipts.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use serde_json::{Map, Value, json};

use crate::fake_aws::clock::Millis;
use crate::fake_aws::error::FakeError;
use crate::fake_aws::md5_hex;
use crate::fake_aws::rate::TokenBucket;

/// How long a deduplication id and a receive attempt are remembered: five minutes.
pub(super) const DEDUP_MILLIS: Millis = 5 * 60 * 1000;

#[derive(Debug, Default)]
pub(super) struct FakeQueue {
    pub(super) name: String,
    pub(super) created_at: Millis,
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) tags: Map<String, Value>,
    pub(super) messages: BTreeMap<u64, FakeMessage>,
    /// Messages of a group in order; a group is blocked while any of its messages is in flight.
    groups: BTreeMap<String, VecDeque<u64>>,
    pub(super) in_flight: HashSet<u64>,
    receipts: HashMap<String, u64>,
    /// By scope and deduplication id: until when, message id, sequence number.
    pub(super) deduplicated: HashMap<String, (Millis, String, String)>,
    pub(super) attempts: HashMap<String, (Millis, Vec<u64>)>,
    pub(super) rates: HashMap<String, TokenBucket>,
    pub(super) most_receives: u32,
}

#[derive(Debug, Clone)]
pub(super) struct FakeMessage {
    pub(super) id: String,
    pub(super) sequence: String,
    pub(super) group: String,
    pub(super) dedup_id: String,
    pub(super) body: String,
    pub(super) attributes: Value,
    pub(super) sent_at: Millis,
    pub(super) first_received: Millis,
    pub(super) received_at: Millis,
    pub(super) receive_count: u32,
    pub(super) visible_at: Millis,
    pub(super) receipt: String,
    /// A fault let it survive its delete: it is delivered once more, as "at least once" allows.
    pub(super) survived_delete: bool,
}

impl FakeQueue {
    pub(super) fn new(
        name: &str,
        created_at: Millis,
        attributes: BTreeMap<String, String>,
        tags: Map<String, Value>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            created_at,
            attributes,
            tags,
            ..Self::default()
        }
    }

    /// An attribute as a number; `default` where it is not set.
    pub(super) fn number(&self, attribute: &str, default: u64) -> u64 {
        self.attributes
            .get(attribute)
            .and_then(|value| value.parse().ok())
            .unwrap_or(default)
    }

    pub(super) fn add(&mut self, number: u64, message: FakeMessage) {
        self.groups
            .entry(message.group.clone())
            .or_default()
            .push_back(number);
        self.messages.insert(number, message);
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<FakeMessage> {
        let message = self.messages.remove(&number)?;
        self.in_flight.remove(&number);
        if let Some(group) = self.groups.get_mut(&message.group) {
            group.retain(|other| *other != number);
            if group.is_empty() {
                self.groups.remove(&message.group);
            }
        }
        Some(message)
    }

    /// Makes messages visible whose visibility timeout has passed.
    pub(super) fn expire_visibility(&mut self, now: Millis) {
        let messages = &self.messages;
        self.in_flight
            .retain(|number| messages.get(number).is_some_and(|m| m.visible_at > now));
    }

    /// The message that a receipt was issued for; `None` if it was deleted.
    pub(super) fn message_of(&self, receipt: &str) -> Result<Option<u64>, FakeError> {
        let known = self.receipts.get(receipt).copied();
        let invalid = || {
            FakeError::client(
                "ReceiptHandleIsInvalid",
                &format!("no such receipt handle on {}", self.name),
            )
        };
        known
            .map(|number| Some(number).filter(|n| self.messages.contains_key(n)))
            .ok_or_else(invalid)
    }

    /// Messages to deliver: many of one group before the next, as SQS prefers; the group that waits longest first.
    pub(super) fn choose(&self, max: usize) -> Vec<u64> {
        let mut open: Vec<&VecDeque<u64>> = self
            .groups
            .values()
            .filter(|group| !group.iter().any(|number| self.in_flight.contains(number)))
            .collect();
        open.sort_by_key(|group| group.front().copied());
        open.into_iter().flatten().copied().take(max).collect()
    }

    /// The messages of an earlier receive with the same attempt id within five minutes, if none was changed since.
    pub(super) fn replay(&mut self, attempt: &str, now: Millis) -> Option<Vec<u64>> {
        self.attempts.retain(|_, (at, _)| *at + DEDUP_MILLIS > now);
        let (at, numbers) = self.attempts.get(attempt)?;
        let unchanged = numbers.iter().all(|n| {
            self.in_flight.contains(n) && self.messages.get(n).is_some_and(|m| m.received_at == *at)
        });
        unchanged.then(|| numbers.clone())
    }

    /// Puts a message in flight with a new receipt and returns it as ReceiveMessage answers it.
    pub(super) fn deliver(
        &mut self,
        number: u64,
        visibility: Millis,
        now: Millis,
        salt: u64,
    ) -> Option<Value> {
        let message = self.messages.get_mut(&number)?;
        message.receive_count += 1;
        self.most_receives = self.most_receives.max(message.receive_count);
        message.received_at = now;
        if message.first_received == 0 {
            message.first_received = now;
        }
        message.visible_at = now + visibility;
        message.receipt = format!("receipt-{number}-{}-{salt}", message.receive_count);
        self.receipts.insert(message.receipt.clone(), number);
        if visibility > 0 {
            self.in_flight.insert(number);
        }
        Some(json!({
            "MessageId": message.id, "ReceiptHandle": message.receipt, "Body": message.body,
            "MD5OfBody": md5_hex(&message.body), "MessageAttributes": message.attributes,
            "Attributes": {
                "MessageGroupId": message.group, "MessageDeduplicationId": message.dedup_id,
                "SequenceNumber": message.sequence, "ApproximateReceiveCount": message.receive_count.to_string(),
                "SentTimestamp": message.sent_at.to_string(), "ApproximateFirstReceiveTimestamp": message.first_received.to_string(),
            },
        }))
    }
}
