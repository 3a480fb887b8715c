//! Sending, receiving and deleting messages, their visibility, batches, and the move to the dead-letter queue.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::queue::{DEDUP_MILLIS, FakeMessage};
use super::{Sqs, manage, queue_name};
use crate::fake_aws::clock::Millis;
use crate::fake_aws::error::FakeError;
use crate::fake_aws::faults::FaultInjector;
use crate::fake_aws::{md5_hex, text};

const LONGEST_VISIBILITY_MILLIS: Millis = 12 * 3600 * 1000;
const LARGEST_BODY: usize = 1 << 20;
const IN_FLIGHT_LIMIT: usize = 20_000;

impl Sqs {
    /// What can be received now; `None` if there is nothing yet.
    pub fn receive(
        &mut self,
        request: &Value,
        now: Millis,
        first_try: bool,
    ) -> Result<Option<Value>, FakeError> {
        let name = queue_name(request);
        if first_try {
            self.charge(&name, "ReceiveMessage", now)?;
        }
        let max = request["MaxNumberOfMessages"].as_u64().unwrap_or(1);
        let wait_secs = request["WaitTimeSeconds"].as_u64().unwrap_or(0);
        if !(1..=10).contains(&max) || wait_secs > 20 {
            return Err(FakeError::client(
                "InvalidParameterValue",
                "1 to 10 messages and 0 to 20 seconds",
            ));
        }
        self.expire_messages(&name, now)?;
        self.move_dead_letters(&name)?;
        let limit = self.in_flight_limit.unwrap_or(IN_FLIGHT_LIMIT);
        let salt = self.next_id;
        self.next_id += 16;
        let queue = self.queue(&name)?;
        let visibility = match request["VisibilityTimeout"].as_u64() {
            Some(secs) => secs * 1000,
            None => queue.number("VisibilityTimeout", 30) * 1000,
        };
        let attempt = text(request, "ReceiveRequestAttemptId").to_owned();
        let chosen = match queue.replay(&attempt, now) {
            Some(same) => same,
            None if queue.in_flight.len() >= limit => return Ok(None),
            None => queue.choose(usize::try_from(max).unwrap_or(10)),
        };
        if chosen.is_empty() {
            return Ok(None);
        }
        if !attempt.is_empty() {
            queue.attempts.insert(attempt, (now, chosen.clone()));
        }
        let messages: Vec<_> = chosen
            .iter()
            .zip(salt..)
            .filter_map(|(number, salt)| queue.deliver(*number, visibility, now, salt))
            .collect();
        Ok(Some(json!({"Messages": messages})))
    }

    pub(super) fn send(
        &mut self,
        name: &str,
        request: &Value,
        now: Millis,
    ) -> Result<Value, FakeError> {
        let number = self.next_id;
        self.next_id += 1;
        let queue = self.queue(name)?;
        check_message(request)?;
        let (body, group, dedup_id) = (
            text(request, "MessageBody"),
            text(request, "MessageGroupId"),
            text(request, "MessageDeduplicationId"),
        );
        let answer = |id: &str, sequence: &str| json!({"MessageId": id, "SequenceNumber": sequence, "MD5OfMessageBody": md5_hex(body)});
        let scope = queue.attributes.get("DeduplicationScope");
        let scope = if scope.is_some_and(|v| v == "messageGroup") {
            group
        } else {
            ""
        };
        let key = format!("{scope}\0{dedup_id}");
        queue.deduplicated.retain(|_, (until, _, _)| *until > now);
        if let Some((_, id, sequence)) = queue.deduplicated.get(&key) {
            return Ok(answer(id, sequence));
        }
        let id = format!("{number:08x}-0000-4000-8000-{number:012x}");
        let sequence = format!("188{number:017}");
        let remembered = (now + DEDUP_MILLIS, id.clone(), sequence.clone());
        queue.deduplicated.insert(key, remembered);
        let message = FakeMessage {
            id: id.clone(),
            sequence: sequence.clone(),
            group: group.to_owned(),
            dedup_id: dedup_id.to_owned(),
            body: body.to_owned(),
            attributes: request
                .get("MessageAttributes")
                .cloned()
                .unwrap_or(json!({})),
            sent_at: now,
            first_received: 0,
            received_at: 0,
            receive_count: 0,
            visible_at: now,
            receipt: String::new(),
            survived_delete: false,
        };
        queue.add(number, message);
        Ok(answer(&id, &sequence))
    }

    pub(super) fn send_batch(
        &mut self,
        name: &str,
        request: &Value,
        now: Millis,
        faults: &FaultInjector,
    ) -> Result<Value, FakeError> {
        let entries = entries(request);
        let bodies = entries.iter().map(|e| text(e, "MessageBody").len());
        if bodies.sum::<usize>() > LARGEST_BODY {
            return Err(FakeError::client(
                "BatchRequestTooLong",
                "the batch is longer than 1048576 bytes",
            ));
        }
        self.batch(request, faults, |queues, entry| {
            queues.send(name, entry, now)
        })
    }

    pub(super) fn delete(
        &mut self,
        name: &str,
        request: &Value,
        now: Millis,
        faults: &FaultInjector,
    ) -> Result<Value, FakeError> {
        let queue = self.queue(name)?;
        queue.expire_visibility(now);
        let receipt = text(request, "ReceiptHandle");
        let Some(number) = queue.message_of(receipt)? else {
            return Ok(json!({}));
        };
        let Some(message) = queue.messages.get_mut(&number) else {
            return Ok(json!({}));
        };
        if message.receipt != receipt || message.visible_at <= now {
            return Err(FakeError::client(
                "InvalidParameterValue",
                "Value for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired.",
            ));
        }
        if !message.survived_delete && faults.draw(|faults| faults.duplicate) {
            message.survived_delete = true;
            message.visible_at = now;
            queue.in_flight.remove(&number);
            return Ok(json!({}));
        }
        queue.remove(number);
        Ok(json!({}))
    }

    pub(super) fn change_visibility(
        &mut self,
        name: &str,
        request: &Value,
        now: Millis,
    ) -> Result<Value, FakeError> {
        let queue = self.queue(name)?;
        queue.expire_visibility(now);
        let receipt = text(request, "ReceiptHandle");
        let millis = request["VisibilityTimeout"]
            .as_u64()
            .unwrap_or(u64::MAX)
            .saturating_mul(1000);
        let number = queue.message_of(receipt)?;
        let message = number.and_then(|number| queue.messages.get_mut(&number));
        let Some(message) = message.filter(|m| m.receipt == receipt && m.visible_at > now) else {
            return Err(
                FakeError::client("MessageNotInflight", "the message is not in flight")
                    .with_query_code("AWS.SimpleQueueService.MessageNotInflight"),
            );
        };
        if millis > LONGEST_VISIBILITY_MILLIS
            || now + millis > message.received_at + LONGEST_VISIBILITY_MILLIS
        {
            let secs = millis / 1000;
            return Err(FakeError::client(
                "InvalidParameterValue",
                &format!(
                    "Value {secs} for parameter VisibilityTimeout is invalid. Reason: Total VisibilityTimeout for the message is beyond the limit [43200 seconds]"
                ),
            ));
        }
        message.visible_at = now + millis;
        queue.expire_visibility(now);
        Ok(json!({}))
    }

    /// Makes the call `one` for each entry and answers which succeeded.
    pub(super) fn batch(
        &mut self,
        request: &Value,
        faults: &FaultInjector,
        mut one: impl FnMut(&mut Self, &Value) -> Result<Value, FakeError>,
    ) -> Result<Value, FakeError> {
        let entries = entries(request);
        check_batch(&entries)?;
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for entry in &entries {
            let answer = if faults.draw(|faults| faults.entry_failure) {
                Err(FakeError::server("InternalError"))
            } else {
                one(self, entry)
            };
            match answer {
                Ok(mut value) => {
                    value["Id"] = entry["Id"].clone();
                    done.push(value);
                }
                Err(error) => failed.push(json!({"Id": entry["Id"], "SenderFault": error.status < 500, "Code": error.code, "Message": error.message})),
            }
        }
        Ok(json!({"Successful": done, "Failed": failed}))
    }

    /// Drops messages that are older than the retention time.
    fn expire_messages(&mut self, name: &str, now: Millis) -> Result<(), FakeError> {
        let queue = self.queue(name)?;
        queue.expire_visibility(now);
        let retention = queue.number("MessageRetentionPeriod", 345_600) * 1000;
        let old: Vec<u64> = queue
            .messages
            .iter()
            .filter(|(_, m)| m.sent_at + retention <= now)
            .map(|(n, _)| *n)
            .collect();
        for number in old {
            queue.remove(number);
        }
        Ok(())
    }

    /// Moves visible messages that were received as often as the redrive policy allows.
    fn move_dead_letters(&mut self, name: &str) -> Result<(), FakeError> {
        let queue = self.queue(name)?;
        let policy = queue.attributes.get("RedrivePolicy");
        let Some((target, max_receive_count)) = policy.and_then(|policy| manage::redrive(policy))
        else {
            return Ok(());
        };
        let spent: Vec<u64> = queue
            .messages
            .iter()
            .filter(|(n, m)| m.receive_count >= max_receive_count && !queue.in_flight.contains(n))
            .map(|(n, _)| *n)
            .collect();
        for number in spent {
            let Some(message) = self.queue(name)?.remove(number) else {
                continue;
            };
            if let Some(dead_letters) = self.queues.get_mut(&target) {
                dead_letters.add(number, message);
            }
        }
        Ok(())
    }
}

/// The limits of one message.
fn check_message(request: &Value) -> Result<(), FakeError> {
    let body = text(request, "MessageBody");
    if body.is_empty() || body.len() > LARGEST_BODY {
        return Err(FakeError::client(
            "InvalidParameterValue",
            "a message has 1 to 1048576 bytes",
        ));
    }
    let is_control = |c: char| c < ' ' && !matches!(c, '\t' | '\n' | '\r');
    if body.chars().any(is_control) {
        return Err(FakeError::client(
            "InvalidMessageContents",
            "control characters",
        ));
    }
    let is_id =
        |id: &str| (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
    if !is_id(text(request, "MessageGroupId")) || !is_id(text(request, "MessageDeduplicationId")) {
        return Err(FakeError::client(
            "InvalidParameterValue",
            "group and deduplication ids have 1 to 128 printable characters",
        ));
    }
    let attributes = request["MessageAttributes"].as_object();
    if attributes.is_some_and(|all| all.len() > 10) {
        return Err(FakeError::client(
            "InvalidParameterValue",
            "at most 10 attributes",
        ));
    }
    Ok(())
}

fn check_batch(entries: &[Value]) -> Result<(), FakeError> {
    if entries.is_empty() || entries.len() > 10 {
        let code = if entries.is_empty() {
            "EmptyBatchRequest"
        } else {
            "TooManyEntriesInBatchRequest"
        };
        return Err(FakeError::client(code, "a batch has 1 to 10 entries"));
    }
    let ids: HashSet<_> = entries.iter().map(|entry| text(entry, "Id")).collect();
    if ids.len() != entries.len() {
        return Err(FakeError::client(
            "BatchEntryIdsNotDistinct",
            "ids of a batch must differ",
        ));
    }
    Ok(())
}

fn entries(request: &Value) -> Vec<Value> {
    request["Entries"].as_array().cloned().unwrap_or_default()
}
