//! Creating queues, their attributes and redrive policies.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Sqs;
use super::queue::FakeQueue;
use crate::fake_aws::clock::Millis;
use crate::fake_aws::error::FakeError;
use crate::fake_aws::text;

impl Sqs {
    pub(super) fn create(
        &mut self,
        request: &Value,
        base_url: &str,
        now: Millis,
    ) -> Result<Value, FakeError> {
        let name = text(request, "QueueName");
        let attributes = text_map(&request["Attributes"]);
        let fifo = attributes.get("FifoQueue").is_some_and(|v| v == "true");
        if !is_valid_name(name) || fifo != name.ends_with(".fifo") {
            return Err(FakeError::client(
                "InvalidParameterValue",
                "a FIFO queue's name has at most 80 characters and ends in .fifo",
            ));
        }
        if let Some(existing) = self.queues.get(name) {
            let differs = attributes
                .iter()
                .any(|(key, value)| existing.attributes.get(key) != Some(value));
            if differs {
                return Err(FakeError::client(
                    "QueueNameExists",
                    "a queue of this name exists with other attributes",
                ));
            }
            return Ok(json!({"QueueUrl": url(base_url, name)}));
        }
        self.check_redrive(name, &attributes)?;
        let tags = request["tags"].as_object().cloned().unwrap_or_default();
        let queue = FakeQueue::new(name, now, attributes, tags);
        self.queues.insert(name.to_owned(), queue);
        Ok(json!({"QueueUrl": url(base_url, name)}))
    }

    pub(super) fn queue_url(
        &mut self,
        request: &Value,
        base_url: &str,
    ) -> Result<Value, FakeError> {
        let name = text(request, "QueueName");
        self.queue(name)?;
        Ok(json!({"QueueUrl": url(base_url, name)}))
    }

    pub(super) fn list(&self, request: &Value, base_url: &str) -> Value {
        let prefix = text(request, "QueueNamePrefix");
        let names = self.queues.keys().filter(|name| name.starts_with(prefix));
        let urls: Vec<_> = names.map(|name| url(base_url, name)).collect();
        json!({"QueueUrls": urls})
    }

    pub(super) fn attributes(&mut self, name: &str, now: Millis) -> Result<Value, FakeError> {
        let count_delay = self.count_delay;
        let queue = self.queue(name)?;
        queue.expire_visibility(now);
        let newest = queue.messages.iter().rev();
        let uncounted = newest
            .take_while(|(_, message)| message.sent_at + count_delay > now)
            .filter(|(number, _)| !queue.in_flight.contains(number))
            .count();
        let visible = queue.messages.len() - queue.in_flight.len() - uncounted;
        let mut all: Map<String, Value> = queue
            .attributes
            .iter()
            .map(|(k, v)| (k.clone(), json!(v)))
            .collect();
        let in_flight = queue.in_flight.len();
        for (key, value) in [
            ("CreatedTimestamp", (queue.created_at / 1000).to_string()),
            ("QueueArn", arn(name)),
            ("ApproximateNumberOfMessages", visible.to_string()),
            (
                "ApproximateNumberOfMessagesNotVisible",
                in_flight.to_string(),
            ),
            ("ApproximateNumberOfMessagesDelayed", "0".to_owned()),
        ] {
            all.insert(key.into(), json!(value));
        }
        for (key, default) in [
            ("VisibilityTimeout", "30"),
            ("MessageRetentionPeriod", "345600"),
            ("MaximumMessageSize", "1048576"),
        ] {
            all.entry(key).or_insert(json!(default));
        }
        Ok(json!({"Attributes": all}))
    }

    pub(super) fn set_attributes(
        &mut self,
        name: &str,
        request: &Value,
    ) -> Result<Value, FakeError> {
        let changes = text_map(&request["Attributes"]);
        self.check_redrive(name, &changes)?;
        self.queue(name)?.attributes.extend(changes);
        Ok(json!({}))
    }

    /// The dead-letter queue of a redrive policy must exist and be of the same kind.
    fn check_redrive(
        &self,
        name: &str,
        attributes: &BTreeMap<String, String>,
    ) -> Result<(), FakeError> {
        let policy = attributes.get("RedrivePolicy");
        let Some(policy) = policy.filter(|policy| !policy.is_empty()) else {
            return Ok(());
        };
        let (target, max_receive_count) = redrive(policy).ok_or_else(|| {
            FakeError::client("InvalidParameterValue", "the RedrivePolicy is not valid")
        })?;
        if !self.queues.contains_key(&target)
            || target.ends_with(".fifo") != name.ends_with(".fifo")
            || !(1..=1000).contains(&max_receive_count)
        {
            return Err(FakeError::client(
                "InvalidParameterValue",
                "the dead-letter queue must exist, be of the same kind and be named by its ARN",
            ));
        }
        Ok(())
    }
}

fn is_valid_name(name: &str) -> bool {
    let stem = name.strip_suffix(".fifo").unwrap_or(name);
    !stem.is_empty()
        && name.len() <= 80
        && stem
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn text_map(object: &Value) -> BTreeMap<String, String> {
    let pairs = object.as_object().into_iter().flatten();
    pairs
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}

fn url(base_url: &str, name: &str) -> String {
    format!("{base_url}/000000000000/{name}")
}

/// The ARN of a queue.
pub fn arn(name: &str) -> String {
    format!("arn:aws:sqs:us-east-1:000000000000:{name}")
}

/// Target and count of a redrive policy; the count may be a number or text, as on AWS.
pub(super) fn redrive(policy: &str) -> Option<(String, u32)> {
    let policy: Value = serde_json::from_str(policy).ok()?;
    let target = policy["deadLetterTargetArn"]
        .as_str()?
        .strip_prefix("arn:aws:sqs:us-east-1:000000000000:")?;
    let count = &policy["maxReceiveCount"];
    let count = count.as_u64().or_else(|| count.as_str()?.parse().ok())?;
    Some((target.to_owned(), u32::try_from(count).ok()?))
}
