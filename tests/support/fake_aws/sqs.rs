//! SQS FIFO queues as AWS documents them: groups, deduplication, hiding, receipts, dead letters and limits.
//! Plain state and time in, answers out; knows no HTTP.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use serde_json::{Map, Value, json};

use super::Refusal;
use super::clock::Millis;
use super::faults::Mischief;
use super::rate::Bucket;

const DEDUP_MILLIS: Millis = 5 * 60 * 1000;
const LONGEST_HIDING_MILLIS: Millis = 12 * 3600 * 1000;
const LARGEST_BODY: usize = 1 << 20;
const IN_FLIGHT_LIMIT: usize = 20_000;
/// FIFO: 300 calls a second of each action.
const CALLS_PER_SECOND: f64 = 300.0;

/// All queues of the account.
#[derive(Debug, Default)]
pub struct Sqs {
    queues: BTreeMap<String, Queue>,
    next_id: u64,
    in_flight_limit: Option<usize>,
    counts_late: Millis,
    enforce_rates: bool,
}

#[derive(Debug, Default)]
struct Queue {
    name: String,
    attributes: BTreeMap<String, String>,
    tags: Map<String, Value>,
    messages: BTreeMap<u64, Message>,
    /// Messages of a group in order; a group is blocked while any of its messages is hidden.
    groups: BTreeMap<String, VecDeque<u64>>,
    hidden: HashSet<u64>,
    receipts: HashMap<String, u64>,
    dedup: HashMap<String, (Millis, String, String)>,
    attempts: HashMap<String, (Millis, Vec<u64>)>,
    rates: HashMap<String, Bucket>,
    most_receives: u32,
}

#[derive(Debug, Clone)]
struct Message {
    id: String,
    sequence: String,
    group: String,
    dedup: String,
    body: String,
    attributes: Value,
    sent_at: Millis,
    first_received: Millis,
    received_at: Millis,
    receive_count: u32,
    visible_at: Millis,
    receipt: String,
    /// Deleted, yet it will come once more: the at-least-once of the promise.
    comes_again: bool,
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

    /// A message is counted only so long after it was sent, as at AWS; it can be received at once.
    pub fn count_late(&mut self, millis: Millis) {
        self.counts_late = millis;
    }

    /// How many messages a queue holds, hidden ones included; 0 for a queue that does not exist.
    pub fn len(&self, name: &str) -> usize {
        self.queues
            .get(name)
            .map_or(0, |queue| queue.messages.len())
    }

    /// How many of them are hidden.
    pub fn hidden(&mut self, name: &str, now: Millis) -> usize {
        self.queues.get_mut(name).map_or(0, |queue| {
            queue.unhide(now);
            queue.hidden.len()
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

    /// The highest receive count that any message of a queue ever had, those included that are gone.
    pub fn most_receives(&self, name: &str) -> u32 {
        self.queues.get(name).map_or(0, |queue| queue.most_receives)
    }

    /// Answers one call, but for ReceiveMessage, whose waiting is the caller's.
    pub fn call(
        &mut self,
        action: &str,
        ask: &Value,
        now: Millis,
        mischief: &Mischief,
        base: &str,
    ) -> Result<Value, Refusal> {
        match action {
            "CreateQueue" => return self.create(ask, base),
            "GetQueueUrl" => {
                let name = text(ask, "QueueName");
                self.queue(name)?;
                return Ok(json!({"QueueUrl": url(base, name)}));
            }
            "ListQueues" => {
                let prefix = text(ask, "QueueNamePrefix");
                let urls: Vec<_> = self
                    .queues
                    .keys()
                    .filter(|name| name.starts_with(prefix))
                    .map(|name| url(base, name))
                    .collect();
                return Ok(json!({"QueueUrls": urls}));
            }
            _ => {}
        }
        let name = text(ask, "QueueUrl")
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        self.meter(&name, action, now)?;
        match action {
            "DeleteQueue" => {
                self.queue(&name)?;
                self.queues.remove(&name);
                Ok(json!({}))
            }
            "GetQueueAttributes" => self.attributes(&name, now),
            "SetQueueAttributes" => self.set_attributes(&name, ask),
            "TagQueue" => {
                let tags = ask["Tags"].as_object().cloned().unwrap_or_default();
                self.queue(&name)?.tags.extend(tags);
                Ok(json!({}))
            }
            "ListQueueTags" => Ok(json!({"Tags": self.queue(&name)?.tags})),
            "SendMessage" => self.send(&name, ask, now),
            "SendMessageBatch" => {
                let total: usize = entries(ask)
                    .iter()
                    .map(|entry| text(entry, "MessageBody").len())
                    .sum();
                if total > LARGEST_BODY {
                    return Err(Refusal::client(
                        "BatchRequestTooLong",
                        "the batch is longer than 1048576 bytes",
                    ));
                }
                self.batch(ask, mischief, |queues, entry| {
                    queues.send(&name, entry, now)
                })
            }
            "DeleteMessage" => self.delete(&name, ask, now, mischief),
            "DeleteMessageBatch" => self.batch(ask, mischief, |queues, entry| {
                queues.delete(&name, entry, now, mischief)
            }),
            "ChangeMessageVisibility" => self.change_visibility(&name, ask, now),
            "ChangeMessageVisibilityBatch" => self.batch(ask, mischief, |queues, entry| {
                queues.change_visibility(&name, entry, now)
            }),
            other => Err(Refusal::client(
                "UnsupportedOperation",
                &format!("the stand-in does not know {other}"),
            )),
        }
    }

    /// What can be received now: `None` when there is nothing yet.
    pub fn receive(
        &mut self,
        ask: &Value,
        now: Millis,
        first_try: bool,
    ) -> Result<Option<Value>, Refusal> {
        let name = text(ask, "QueueUrl")
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        if first_try {
            self.meter(&name, "ReceiveMessage", now)?;
        }
        let max = ask["MaxNumberOfMessages"].as_u64().unwrap_or(1);
        let wait = ask["WaitTimeSeconds"].as_u64().unwrap_or(0);
        if !(1..=10).contains(&max) || wait > 20 {
            return Err(Refusal::client(
                "InvalidParameterValue",
                "1 to 10 messages and 0 to 20 seconds",
            ));
        }
        self.move_dead_letters(&name, now)?;
        let limit = self.in_flight_limit.unwrap_or(IN_FLIGHT_LIMIT);
        let salt = self.next_id;
        self.next_id += 16;
        let queue = self.queue(&name)?;
        let visibility = match ask["VisibilityTimeout"].as_u64() {
            Some(secs) => secs * 1000,
            None => queue.number("VisibilityTimeout", 30) * 1000,
        };
        let attempt = text(ask, "ReceiveRequestAttemptId").to_owned();
        let replayed = queue.replay(&attempt, now);
        let chosen = match replayed {
            Some(same) => same,
            None if queue.hidden.len() >= limit => return Ok(None),
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
            .filter_map(|(number, salt)| queue.hand_out(*number, visibility, now, salt))
            .collect();
        Ok(Some(json!({"Messages": messages})))
    }

    fn queue(&mut self, name: &str) -> Result<&mut Queue, Refusal> {
        self.queues.get_mut(name).ok_or_else(|| {
            Refusal::client("QueueDoesNotExist", &format!("there is no queue {name}"))
                .queried("AWS.SimpleQueueService.NonExistentQueue")
        })
    }

    fn meter(&mut self, name: &str, action: &str, now: Millis) -> Result<(), Refusal> {
        if !self.enforce_rates {
            return Ok(());
        }
        let rates = &mut self.queue(name)?.rates;
        let bucket = rates
            .entry(action.to_owned())
            .or_insert_with(|| Bucket::new(CALLS_PER_SECOND, CALLS_PER_SECOND));
        if bucket.take(1.0, now) {
            Ok(())
        } else {
            Err(Refusal::client("RequestThrottled", "rate exceeded"))
        }
    }

    fn create(&mut self, ask: &Value, base: &str) -> Result<Value, Refusal> {
        let name = text(ask, "QueueName");
        let attributes: BTreeMap<String, String> = ask["Attributes"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect();
        let fifo = attributes.get("FifoQueue").is_some_and(|v| v == "true");
        let good = name.strip_suffix(".fifo").unwrap_or(name);
        let named_well = !good.is_empty()
            && name.len() <= 80
            && good
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !named_well || fifo != name.ends_with(".fifo") {
            return Err(Refusal::client(
                "InvalidParameterValue",
                "a FIFO queue's name has at most 80 characters and ends in .fifo",
            ));
        }
        if let Some(there) = self.queues.get(name) {
            if attributes
                .iter()
                .any(|(key, value)| there.attributes.get(key) != Some(value))
            {
                return Err(Refusal::client(
                    "QueueNameExists",
                    "a queue of this name exists with other attributes",
                ));
            }
            return Ok(json!({"QueueUrl": url(base, name)}));
        }
        self.check_redrive(name, &attributes)?;
        let tags = ask["tags"].as_object().cloned().unwrap_or_default();
        self.queues.insert(
            name.to_owned(),
            Queue {
                name: name.to_owned(),
                attributes,
                tags,
                ..Queue::default()
            },
        );
        Ok(json!({"QueueUrl": url(base, name)}))
    }

    fn check_redrive(
        &self,
        name: &str,
        attributes: &BTreeMap<String, String>,
    ) -> Result<(), Refusal> {
        let Some(policy) = attributes
            .get("RedrivePolicy")
            .filter(|policy| !policy.is_empty())
        else {
            return Ok(());
        };
        let (target, most) = redrive(policy).ok_or_else(|| {
            Refusal::client("InvalidParameterValue", "the RedrivePolicy is not valid")
        })?;
        let there = self.queues.contains_key(&target);
        if !there
            || target.ends_with(".fifo") != name.ends_with(".fifo")
            || !(1..=1000).contains(&most)
        {
            return Err(Refusal::client(
                "InvalidParameterValue",
                "the dead-letter queue must exist, be of the same kind and be named by its ARN",
            ));
        }
        Ok(())
    }

    fn attributes(&mut self, name: &str, now: Millis) -> Result<Value, Refusal> {
        let late = self.counts_late;
        let queue = self.queue(name)?;
        queue.unhide(now);
        let newest = queue.messages.iter().rev();
        let uncounted = newest
            .take_while(|(_, message)| message.sent_at + late > now)
            .filter(|(number, _)| !queue.hidden.contains(number))
            .count();
        let waiting = queue.messages.len() - queue.hidden.len() - uncounted;
        let mut all: Map<String, Value> = queue
            .attributes
            .iter()
            .map(|(k, v)| (k.clone(), json!(v)))
            .collect();
        all.insert("QueueArn".into(), json!(arn(name)));
        all.insert(
            "ApproximateNumberOfMessages".into(),
            json!(waiting.to_string()),
        );
        all.insert(
            "ApproximateNumberOfMessagesNotVisible".into(),
            json!(queue.hidden.len().to_string()),
        );
        all.insert("ApproximateNumberOfMessagesDelayed".into(), json!("0"));
        for (key, default) in [
            ("VisibilityTimeout", "30"),
            ("MessageRetentionPeriod", "345600"),
            ("MaximumMessageSize", "1048576"),
        ] {
            all.entry(key).or_insert(json!(default));
        }
        Ok(json!({"Attributes": all}))
    }

    fn set_attributes(&mut self, name: &str, ask: &Value) -> Result<Value, Refusal> {
        let changes: BTreeMap<String, String> = ask["Attributes"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned()))
            .collect();
        self.check_redrive(name, &changes)?;
        self.queue(name)?.attributes.extend(changes);
        Ok(json!({}))
    }

    fn send(&mut self, name: &str, ask: &Value, now: Millis) -> Result<Value, Refusal> {
        let number = self.next_id;
        self.next_id += 1;
        let queue = self.queue(name)?;
        let (body, group, dedup) = (
            text(ask, "MessageBody"),
            text(ask, "MessageGroupId"),
            text(ask, "MessageDeduplicationId"),
        );
        if body.is_empty() || body.len() > LARGEST_BODY {
            return Err(Refusal::client(
                "InvalidParameterValue",
                "a message has 1 to 1048576 bytes",
            ));
        }
        if body
            .chars()
            .any(|c| c < ' ' && !matches!(c, '\t' | '\n' | '\r'))
        {
            return Err(Refusal::client(
                "InvalidMessageContents",
                "control characters",
            ));
        }
        let id_fits =
            |id: &str| (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
        if !id_fits(group) || !id_fits(dedup) {
            return Err(Refusal::client(
                "InvalidParameterValue",
                "group and deduplication ids have 1 to 128 printable characters",
            ));
        }
        let attributes = ask.get("MessageAttributes").cloned().unwrap_or(json!({}));
        if attributes.as_object().is_some_and(|all| all.len() > 10) {
            return Err(Refusal::client(
                "InvalidParameterValue",
                "at most 10 attributes",
            ));
        }
        let scope = if queue
            .attributes
            .get("DeduplicationScope")
            .is_some_and(|v| v == "messageGroup")
        {
            group
        } else {
            ""
        };
        let key = format!("{scope}\0{dedup}");
        queue.dedup.retain(|_, (until, _, _)| *until > now);
        if let Some((_, id, sequence)) = queue.dedup.get(&key) {
            return Ok(
                json!({"MessageId": id, "SequenceNumber": sequence, "MD5OfMessageBody": super::md5_hex(body)}),
            );
        }
        let (id, sequence) = (
            format!("{number:08x}-0000-4000-8000-{number:012x}"),
            format!("188{number:017}"),
        );
        queue
            .dedup
            .insert(key, (now + DEDUP_MILLIS, id.clone(), sequence.clone()));
        let message = Message {
            id: id.clone(),
            sequence: sequence.clone(),
            group: group.to_owned(),
            dedup: dedup.to_owned(),
            body: body.to_owned(),
            attributes,
            sent_at: now,
            first_received: 0,
            received_at: 0,
            receive_count: 0,
            visible_at: now,
            receipt: String::new(),
            comes_again: false,
        };
        queue.add(number, message);
        Ok(
            json!({"MessageId": id, "SequenceNumber": sequence, "MD5OfMessageBody": super::md5_hex(body)}),
        )
    }

    fn delete(
        &mut self,
        name: &str,
        ask: &Value,
        now: Millis,
        mischief: &Mischief,
    ) -> Result<Value, Refusal> {
        let queue = self.queue(name)?;
        queue.unhide(now);
        let receipt = text(ask, "ReceiptHandle");
        let Some(number) = queue.known_receipt(receipt)? else {
            return Ok(json!({}));
        };
        let Some(message) = queue.messages.get_mut(&number) else {
            return Ok(json!({}));
        };
        if message.receipt != receipt || message.visible_at <= now {
            return Err(Refusal::client(
                "InvalidParameterValue",
                "Value for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired.",
            ));
        }
        if !message.comes_again && mischief.strikes(|faults| faults.duplicate) {
            message.comes_again = true;
            message.visible_at = now;
            queue.hidden.remove(&number);
            return Ok(json!({}));
        }
        queue.remove(number);
        Ok(json!({}))
    }

    fn change_visibility(
        &mut self,
        name: &str,
        ask: &Value,
        now: Millis,
    ) -> Result<Value, Refusal> {
        let queue = self.queue(name)?;
        queue.unhide(now);
        let receipt = text(ask, "ReceiptHandle");
        let millis = ask["VisibilityTimeout"]
            .as_u64()
            .unwrap_or(u64::MAX)
            .saturating_mul(1000);
        let number = queue.known_receipt(receipt)?;
        let message = number.and_then(|number| queue.messages.get_mut(&number));
        let Some(message) = message.filter(|m| m.receipt == receipt && m.visible_at > now) else {
            return Err(
                Refusal::client("MessageNotInflight", "the message is not in flight")
                    .queried("AWS.SimpleQueueService.MessageNotInflight"),
            );
        };
        if millis > LONGEST_HIDING_MILLIS
            || now + millis > message.received_at + LONGEST_HIDING_MILLIS
        {
            let secs = millis / 1000;
            return Err(Refusal::client(
                "InvalidParameterValue",
                &format!(
                    "Value {secs} for parameter VisibilityTimeout is invalid. Reason: Total VisibilityTimeout for the message is beyond the limit [43200 seconds]"
                ),
            ));
        }
        message.visible_at = now + millis;
        queue.unhide(now);
        Ok(json!({}))
    }

    fn batch(
        &mut self,
        ask: &Value,
        mischief: &Mischief,
        mut one: impl FnMut(&mut Self, &Value) -> Result<Value, Refusal>,
    ) -> Result<Value, Refusal> {
        let entries = entries(ask);
        if entries.is_empty() || entries.len() > 10 {
            let kind = if entries.is_empty() {
                "EmptyBatchRequest"
            } else {
                "TooManyEntriesInBatchRequest"
            };
            return Err(Refusal::client(kind, "a batch has 1 to 10 entries"));
        }
        if entries
            .iter()
            .map(|entry| text(entry, "Id"))
            .collect::<HashSet<_>>()
            .len()
            != entries.len()
        {
            return Err(Refusal::client(
                "BatchEntryIdsNotDistinct",
                "ids of a batch must differ",
            ));
        }
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for entry in &entries {
            let answer = if mischief.strikes(|faults| faults.entry_failure) {
                Err(Refusal {
                    status: 500,
                    kind: "InternalError".into(),
                    message: "injected".into(),
                    query_code: None,
                })
            } else {
                one(self, entry)
            };
            match answer {
                Ok(mut value) => {
                    value["Id"] = entry["Id"].clone();
                    done.push(value);
                }
                Err(refusal) => failed.push(json!({"Id": entry["Id"], "SenderFault": refusal.status < 500, "Code": refusal.kind, "Message": refusal.message})),
            }
        }
        Ok(json!({"Successful": done, "Failed": failed}))
    }

    fn move_dead_letters(&mut self, name: &str, now: Millis) -> Result<(), Refusal> {
        let queue = self.queue(name)?;
        queue.unhide(now);
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
        let Some((target, most)) = queue
            .attributes
            .get("RedrivePolicy")
            .and_then(|policy| redrive(policy))
        else {
            return Ok(());
        };
        let spent: Vec<u64> = queue
            .messages
            .iter()
            .filter(|(n, m)| m.receive_count >= most && !queue.hidden.contains(n))
            .map(|(n, _)| *n)
            .collect();
        for number in spent {
            let Some(message) = self.queue(name)?.remove(number) else {
                continue;
            };
            if let Some(dead) = self.queues.get_mut(&target) {
                dead.add(number, message);
            }
        }
        Ok(())
    }
}

impl Queue {
    fn number(&self, attribute: &str, default: u64) -> u64 {
        self.attributes
            .get(attribute)
            .and_then(|value| value.parse().ok())
            .unwrap_or(default)
    }

    fn add(&mut self, number: u64, message: Message) {
        self.groups
            .entry(message.group.clone())
            .or_default()
            .push_back(number);
        self.messages.insert(number, message);
    }

    fn remove(&mut self, number: u64) -> Option<Message> {
        let message = self.messages.remove(&number)?;
        self.hidden.remove(&number);
        if let Some(group) = self.groups.get_mut(&message.group) {
            group.retain(|other| *other != number);
            if group.is_empty() {
                self.groups.remove(&message.group);
            }
        }
        Some(message)
    }

    fn unhide(&mut self, now: Millis) {
        let messages = &self.messages;
        self.hidden
            .retain(|number| messages.get(number).is_some_and(|m| m.visible_at > now));
    }

    /// The message a receipt was given for; `None` when that is gone.
    fn known_receipt(&self, receipt: &str) -> Result<Option<u64>, Refusal> {
        let known = self.receipts.get(receipt).copied();
        let invalid = || {
            Refusal::client(
                "ReceiptHandleIsInvalid",
                &format!("no such receipt handle on {}", self.name),
            )
        };
        known
            .map(|number| Some(number).filter(|n| self.messages.contains_key(n)))
            .ok_or_else(invalid)
    }

    /// Many of one group before the next, as SQS prefers; the group that waits longest first.
    fn choose(&self, max: usize) -> Vec<u64> {
        let mut open: Vec<&VecDeque<u64>> = self
            .groups
            .values()
            .filter(|group| !group.iter().any(|number| self.hidden.contains(number)))
            .collect();
        open.sort_by_key(|group| group.front().copied());
        open.into_iter().flatten().copied().take(max).collect()
    }

    /// The same messages again for the same attempt within five minutes, when none was changed since.
    fn replay(&mut self, attempt: &str, now: Millis) -> Option<Vec<u64>> {
        self.attempts.retain(|_, (at, _)| *at + DEDUP_MILLIS > now);
        let (at, numbers) = self.attempts.get(attempt)?;
        let unchanged = numbers.iter().all(|n| {
            self.hidden.contains(n) && self.messages.get(n).is_some_and(|m| m.received_at == *at)
        });
        unchanged.then(|| numbers.clone())
    }

    fn hand_out(
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
            self.hidden.insert(number);
        }
        Some(json!({
            "MessageId": message.id, "ReceiptHandle": message.receipt, "Body": message.body,
            "MD5OfBody": super::md5_hex(&message.body), "MessageAttributes": message.attributes,
            "Attributes": {
                "MessageGroupId": message.group, "MessageDeduplicationId": message.dedup,
                "SequenceNumber": message.sequence, "ApproximateReceiveCount": message.receive_count.to_string(),
                "SentTimestamp": message.sent_at.to_string(), "ApproximateFirstReceiveTimestamp": message.first_received.to_string(),
            },
        }))
    }
}

fn url(base: &str, name: &str) -> String {
    format!("{base}/000000000000/{name}")
}

/// The ARN of a queue here.
pub fn arn(name: &str) -> String {
    format!("arn:aws:sqs:us-east-1:000000000000:{name}")
}

/// Target and count of a redrive policy; the count may be a number or text, as on AWS.
fn redrive(policy: &str) -> Option<(String, u32)> {
    let policy: Value = serde_json::from_str(policy).ok()?;
    let target = policy["deadLetterTargetArn"]
        .as_str()?
        .strip_prefix("arn:aws:sqs:us-east-1:000000000000:")?;
    let most = &policy["maxReceiveCount"];
    let most = most.as_u64().or_else(|| most.as_str()?.parse().ok())?;
    Some((target.to_owned(), u32::try_from(most).ok()?))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn entries(ask: &Value) -> Vec<Value> {
    ask["Entries"].as_array().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_aws::faults::Faults;

    const MINUTE: Millis = 60_000;

    struct Bench {
        sqs: Sqs,
        mischief: Mischief,
    }

    impl Bench {
        fn new() -> Self {
            let mut bench = Self {
                sqs: Sqs::new(true),
                mischief: Mischief::new(Faults::default(), 1),
            };
            bench
                .call(
                    "CreateQueue",
                    json!({"QueueName": "d.fifo", "Attributes": {"FifoQueue": "true"}}),
                    0,
                )
                .expect("made");
            let policy =
                json!({"deadLetterTargetArn": arn("d.fifo"), "maxReceiveCount": 2}).to_string();
            let attributes = json!({"FifoQueue": "true", "RedrivePolicy": policy});
            bench
                .call(
                    "CreateQueue",
                    json!({"QueueName": "q.fifo", "Attributes": attributes}),
                    0,
                )
                .expect("made");
            bench
        }

        fn call(&mut self, action: &str, ask: Value, now: Millis) -> Result<Value, Refusal> {
            self.sqs
                .call(action, &ask, now, &self.mischief, "http://here")
        }

        fn send(&mut self, group: &str, dedup: &str, now: Millis) -> Result<Value, Refusal> {
            self.call("SendMessage", json!({"QueueUrl": "q.fifo", "MessageBody": dedup, "MessageGroupId": group, "MessageDeduplicationId": dedup}), now)
        }

        /// Bodies and receipts.
        fn receive(&mut self, max: u64, now: Millis) -> Vec<(String, String)> {
            let answer = self
                .sqs
                .receive(
                    &json!({"QueueUrl": "q.fifo", "MaxNumberOfMessages": max}),
                    now,
                    true,
                )
                .expect("received");
            let messages = answer
                .map(|answer| answer["Messages"].clone())
                .unwrap_or_default();
            messages
                .as_array()
                .into_iter()
                .flatten()
                .map(|m| {
                    (
                        text(m, "Body").to_owned(),
                        text(m, "ReceiptHandle").to_owned(),
                    )
                })
                .collect()
        }

        fn bodies(&mut self, max: u64, now: Millis) -> Vec<String> {
            self.receive(max, now)
                .into_iter()
                .map(|(body, _)| body)
                .collect()
        }

        fn delete(&mut self, receipt: &str, now: Millis) -> Result<Value, Refusal> {
            self.call(
                "DeleteMessage",
                json!({"QueueUrl": "q.fifo", "ReceiptHandle": receipt}),
                now,
            )
        }

        fn hide(&mut self, receipt: &str, secs: u64, now: Millis) -> Result<Value, Refusal> {
            self.call(
                "ChangeMessageVisibility",
                json!({"QueueUrl": "q.fifo", "ReceiptHandle": receipt, "VisibilityTimeout": secs}),
                now,
            )
        }
    }

    #[test]
    fn a_group_is_closed_while_one_of_it_is_hidden() {
        let mut bench = Bench::new();
        for (group, id) in [("g", "1"), ("g", "2"), ("h", "3")] {
            bench.send(group, id, 0).expect("sent");
        }
        let first = bench.receive(1, 0);
        assert_eq!(first[0].0, "1");
        assert_eq!(bench.bodies(10, 1), ["3"]);
        bench.delete(&first[0].1, 2).expect("deleted");
        assert_eq!(bench.bodies(10, 3), ["2"]);
    }

    #[test]
    fn an_extended_head_withholds_the_expired_tail() {
        let mut bench = Bench::new();
        bench.send("g", "1", 0).expect("sent");
        bench.send("g", "2", 0).expect("sent");
        let both = bench.receive(10, 0);
        assert_eq!(both.len(), 2);
        bench.hide(&both[0].1, 600, 1000).expect("extended");
        assert!(bench.bodies(10, MINUTE).is_empty());
    }

    #[test]
    fn a_receipt_ends_with_the_hiding_and_with_the_next_receive() {
        let mut bench = Bench::new();
        bench.send("g", "1", 0).expect("sent");
        let old = bench.receive(1, 0).remove(0).1;
        assert_eq!(
            bench.delete(&old, MINUTE).expect_err("expired").kind,
            "InvalidParameterValue"
        );
        let new = bench.receive(1, MINUTE).remove(0).1;
        assert!(bench.delete(&old, MINUTE + 1).is_err());
        assert_eq!(
            bench.hide(&old, 5, MINUTE + 1).expect_err("stale").kind,
            "MessageNotInflight"
        );
        bench.delete(&new, MINUTE + 1).expect("deleted");
        bench
            .delete(&new, MINUTE + 1)
            .expect("deleting twice is harmless");
    }

    #[test]
    fn a_second_message_with_the_same_id_is_dropped_for_five_minutes_even_after_the_delete() {
        let mut bench = Bench::new();
        let first = bench.send("g", "1", 0).expect("sent");
        let receipt = bench.receive(1, 0).remove(0).1;
        bench.delete(&receipt, 1).expect("deleted");
        assert_eq!(
            bench.send("g", "1", 4 * MINUTE).expect("sent")["MessageId"],
            first["MessageId"]
        );
        assert!(bench.bodies(10, 4 * MINUTE).is_empty());
        bench.send("g", "1", 6 * MINUTE).expect("sent");
        assert_eq!(bench.bodies(10, 6 * MINUTE), ["1"]);
    }

    #[test]
    fn a_message_received_too_often_goes_to_the_dead_letters() {
        let mut bench = Bench::new();
        bench.send("g", "1", 0).expect("sent");
        for round in 0..2 {
            assert_eq!(bench.bodies(1, round * MINUTE), ["1"]);
        }
        assert!(bench.bodies(1, 2 * MINUTE).is_empty());
        assert_eq!((bench.sqs.len("q.fifo"), bench.sqs.len("d.fifo")), (0, 1));
    }

    #[test]
    fn a_dead_letter_queue_must_be_named_by_the_arn_of_a_fifo_queue() {
        let mut bench = Bench::new();
        for target in [
            "http://here/000000000000/d.fifo".to_owned(),
            arn("none.fifo"),
            arn("standard"),
        ] {
            let policy = json!({"deadLetterTargetArn": target, "maxReceiveCount": 2}).to_string();
            let ask = json!({"QueueName": "x.fifo", "Attributes": {"FifoQueue": "true", "RedrivePolicy": policy}});
            assert!(bench.call("CreateQueue", ask, 0).is_err(), "{target}");
        }
    }

    #[test]
    fn sizes_counts_and_rates_are_those_of_aws() {
        let mut bench = Bench::new();
        let message = |bytes: usize| json!({"QueueUrl": "q.fifo", "MessageBody": "x".repeat(bytes), "MessageGroupId": "g", "MessageDeduplicationId": bytes.to_string()});
        assert!(bench.call("SendMessage", message(1 << 20), 0).is_ok());
        assert!(
            bench
                .call("SendMessage", message((1 << 20) + 1), 0)
                .is_err()
        );
        let entries: Vec<_> = (0..11).map(|id| json!({"Id": id.to_string()})).collect();
        let batch = json!({"QueueUrl": "q.fifo", "Entries": entries});
        assert_eq!(
            bench
                .call("DeleteMessageBatch", batch, 0)
                .expect_err("eleven")
                .kind,
            "TooManyEntriesInBatchRequest"
        );
        let refused = (0..400)
            .filter(|_| {
                bench
                    .hide("none", 1, 5)
                    .is_err_and(|e| e.kind == "RequestThrottled")
            })
            .count();
        assert_eq!(refused, 100);
    }

    #[test]
    fn hiding_ends_twelve_hours_after_the_receive() {
        let mut bench = Bench::new();
        bench.send("g", "1", 0).expect("sent");
        let receipt = bench.receive(1, 0).remove(0).1;
        bench.hide(&receipt, 43_200, 0).expect("twelve hours");
        assert!(bench.hide(&receipt, 43_200, 1000).is_err());
    }

    #[test]
    fn the_same_attempt_is_given_the_same_messages() {
        let mut bench = Bench::new();
        bench.send("g", "1", 0).expect("sent");
        let ask = json!({"QueueUrl": "q.fifo", "MaxNumberOfMessages": 10, "ReceiveRequestAttemptId": "a"});
        let mut receive = |now| {
            bench
                .sqs
                .receive(&ask, now, true)
                .expect("received")
                .map(|answer| text(&answer["Messages"][0], "Body").to_owned())
        };
        assert_eq!(receive(0).as_deref(), Some("1"));
        assert_eq!(receive(10).as_deref(), Some("1"));
    }

    #[test]
    fn nothing_is_received_beyond_the_limit_in_flight() {
        let mut bench = Bench::new();
        bench.sqs.limit_in_flight(1);
        bench.send("g", "1", 0).expect("sent");
        bench.send("h", "2", 0).expect("sent");
        assert_eq!(bench.bodies(1, 0).len(), 1);
        assert!(bench.bodies(1, 0).is_empty());
    }
}
