//! SQS FIFO queues as AWS documents them: groups, deduplication, visibility, receipts, dead letters and limits.
//! State and time in, answers out; no HTTP.
//!
//! - `manage`: creating queues, their attributes and redrive policies.
//! - `messages`: sending, receiving, deleting, visibility, batches, dead letters.
//! - `queue`: the state of one queue.

mod manage;
mod messages;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::clock::Millis;
use super::error::FakeError;
use super::faults::FaultInjector;
use super::rate::TokenBucket;
use super::text;
use queue::FakeQueue;

pub use manage::arn;

/// FIFO: 300 calls a second of each action.
const CALLS_PER_SECOND: f64 = 300.0;

/// All queues of the account.
#[derive(Debug, Default)]
pub struct Sqs {
    queues: BTreeMap<String, FakeQueue>,
    next_id: u64,
    in_flight_limit: Option<usize>,
    count_delay: Millis,
    enforce_rates: bool,
}

impl Sqs {
    /// With or without AWS's rates.
    pub fn new(enforce_rates: bool) -> Self {
        Self {
            enforce_rates,
            ..Self::default()
        }
    }

    /// Lowers the number of messages that may be in flight.
    pub fn limit_in_flight(&mut self, limit: usize) {
        self.in_flight_limit = Some(limit);
    }

    /// Counts a message only so long after it was sent, as AWS does; it can be received at once.
    pub fn count_late(&mut self, millis: Millis) {
        self.count_delay = millis;
    }

    /// How many messages a queue holds, those in flight included; 0 for a queue that does not exist.
    pub fn len(&self, name: &str) -> usize {
        self.queues
            .get(name)
            .map_or(0, |queue| queue.messages.len())
    }

    /// How many of them are in flight.
    pub fn in_flight(&mut self, name: &str, now: Millis) -> usize {
        self.queues.get_mut(name).map_or(0, |queue| {
            queue.expire_visibility(now);
            queue.in_flight.len()
        })
    }

    /// Bodies and attributes of a queue's messages, in order.
    pub fn peek(&self, name: &str) -> Vec<(String, Value)> {
        let messages = self.queues.get(name).map(|queue| queue.messages.values());
        messages
            .into_iter()
            .flatten()
            .map(|m| (m.body.clone(), m.attributes.clone()))
            .collect()
    }

    /// The highest receive count that any message of a queue ever had, deleted ones included.
    pub fn most_receives(&self, name: &str) -> u32 {
        self.queues.get(name).map_or(0, |queue| queue.most_receives)
    }

    /// Answers one call, except ReceiveMessage, whose waiting is the caller's.
    pub fn call(
        &mut self,
        action: &str,
        request: &Value,
        now: Millis,
        faults: &FaultInjector,
        base_url: &str,
    ) -> Result<Value, FakeError> {
        match action {
            "CreateQueue" => return self.create(request, base_url, now),
            "GetQueueUrl" => return self.queue_url(request, base_url),
            "ListQueues" => return Ok(self.list(request, base_url)),
            _ => {}
        }
        let name = queue_name(request);
        self.charge(&name, action, now)?;
        match action {
            "DeleteQueue" => {
                self.queue(&name)?;
                self.queues.remove(&name);
                Ok(json!({}))
            }
            "GetQueueAttributes" => self.attributes(&name, now),
            "SetQueueAttributes" => self.set_attributes(&name, request),
            "TagQueue" => {
                let tags = request["Tags"].as_object().cloned().unwrap_or_default();
                self.queue(&name)?.tags.extend(tags);
                Ok(json!({}))
            }
            "ListQueueTags" => Ok(json!({"Tags": self.queue(&name)?.tags})),
            "SendMessage" => self.send(&name, request, now),
            "SendMessageBatch" => self.send_batch(&name, request, now, faults),
            "DeleteMessage" => self.delete(&name, request, now, faults),
            "DeleteMessageBatch" => self.batch(request, faults, |queues, entry| {
                queues.delete(&name, entry, now, faults)
            }),
            "ChangeMessageVisibility" => self.change_visibility(&name, request, now),
            "ChangeMessageVisibilityBatch" => self.batch(request, faults, |queues, entry| {
                queues.change_visibility(&name, entry, now)
            }),
            other => Err(FakeError::client(
                "UnsupportedOperation",
                &format!("the fake AWS does not implement {other}"),
            )),
        }
    }

    fn queue(&mut self, name: &str) -> Result<&mut FakeQueue, FakeError> {
        self.queues.get_mut(name).ok_or_else(|| {
            FakeError::client("QueueDoesNotExist", &format!("there is no queue {name}"))
                .with_query_code("AWS.SimpleQueueService.NonExistentQueue")
        })
    }

    /// Charges a call to the queue's rate for that action.
    fn charge(&mut self, name: &str, action: &str, now: Millis) -> Result<(), FakeError> {
        if !self.enforce_rates {
            return Ok(());
        }
        let rates = &mut self.queue(name)?.rates;
        let bucket = rates
            .entry(action.to_owned())
            .or_insert_with(|| TokenBucket::new(CALLS_PER_SECOND, CALLS_PER_SECOND));
        if bucket.take(1.0, now) {
            Ok(())
        } else {
            Err(FakeError::client("RequestThrottled", "rate exceeded"))
        }
    }
}

/// The name at the end of a request's QueueUrl.
fn queue_name(request: &Value) -> String {
    let url = text(request, "QueueUrl");
    url.rsplit('/').next().unwrap_or_default().to_owned()
}
