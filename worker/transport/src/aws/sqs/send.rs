//! Sending: at most ten messages a request, every failed entry sent again, the order of a group kept.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use aws_sdk_sqs::types::{MessageAttributeValue, SendMessageBatchRequestEntry};
use tokio::time::Instant;
use tracing::warn;

use super::batch::{self, BATCH};
use super::{BACKOFF, SqsQueue};
use crate::ATTR_TRACEPARENT;
use crate::aws::service_error::ServiceError;
use crate::{
    ATTR_DETAIL, ATTR_GROUP, ATTR_REASON, ATTR_VERSION, Delivery, Failure, Outgoing, Sequence,
    TransportError, TransportResult,
};

/// Attempts of a message that failed inside a batch.
const SEND_TRIES: u32 = 4;
/// A queue takes 300 requests a second, unless it is one of high throughput; more have to wait.
const THROTTLED_PATIENCE: Duration = Duration::from_secs(60);
/// Dead letters carry a detail of at most this many bytes.
const LONGEST_DETAIL_BYTES: usize = 1000;
/// SQS takes ten; [`Outgoing`] reserves four of them for a dead letter.
const MOST_ATTRIBUTES: usize = 10;

impl SqsQueue {
    /// Sends all, in order within each group. Answers the sequence number of each, index-aligned, where SQS tells it.
    pub(super) async fn send_all(
        &self,
        messages: Vec<Outgoing>,
    ) -> TransportResult<Vec<Option<Sequence>>> {
        let mut numbers = vec![None; messages.len()];
        let indexed = messages.into_iter().enumerate().collect();
        for batch in batches(indexed) {
            let began = Instant::now();
            let (mut rest, mut tries) = (batch, 0);
            loop {
                let throttled;
                (rest, throttled) = self.send_batch(rest, &mut numbers).await?;
                if rest.is_empty() {
                    break;
                }
                tries += 1;
                let gives_up = match throttled {
                    true => began.elapsed() > THROTTLED_PATIENCE,
                    false => tries >= SEND_TRIES,
                };
                if gives_up {
                    let step = format!("sending to {}", self.inner.name);
                    return Err(TransportError::unavailable(
                        step,
                        match throttled {
                            true => {
                                "SQS has refused it for a minute, since the queue gets more requests than it takes"
                            }
                            false => "SQS repeatedly failed some messages of a batch",
                        },
                    ));
                }
                tokio::time::sleep(BACKOFF.full_jitter(tries)).await;
            }
        }
        Ok(numbers)
    }

    /// Sends what fits one request; returns what failed and may succeed later, and whether that was for the queue's rate.
    /// The sequence numbers of the others are put into `numbers`, by the messages' indices.
    async fn send_batch(
        &self,
        batch: Vec<Indexed>,
        numbers: &mut [Option<Sequence>],
    ) -> TransportResult<(Vec<Indexed>, bool)> {
        let name = &self.inner.name;
        let step = || format!("sending to {name}");
        let entries = batch.iter().map(|(index, message)| {
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
            .map_err(|error| TransportError::Invalid(format!("{}: {error}", step())))?;
        let answer = self
            .inner
            .aws
            .sqs
            .send_message_batch()
            .queue_url(&self.inner.url)
            .set_entries(Some(entries))
            .send()
            .await;
        let answer = match answer.map_err(|error| ServiceError::from_sdk(&error)) {
            Ok(answer) => answer,
            Err(error) if error.is_throttling() => return Ok((batch, true)),
            Err(error) => return Err(error.into_transport_error(step())),
        };
        for entry in &answer.successful {
            let index = entry.id().parse::<usize>().ok();
            if let Some(number) = index.and_then(|index| numbers.get_mut(index)) {
                *number = entry.sequence_number().and_then(Sequence::parse);
            }
        }
        if answer.failed.is_empty() {
            return Ok((Vec::new(), false));
        }
        if let Some(refused) = answer.failed.iter().find(|entry| entry.sender_fault()) {
            return Err(batch::entry_error(refused).into_transport_error(step()));
        }
        let failed: HashSet<&str> = answer.failed.iter().map(|entry| entry.id()).collect();
        warn!(
            queue = name,
            failed = failed.len(),
            of = batch.len(),
            "Some messages of a batch were not taken; sending them again."
        );
        let failed = batch
            .into_iter()
            .filter(|(index, _)| failed.contains(index.to_string().as_str()));
        Ok((failed.collect(), false))
    }
}

/// A message with its index among all that are sent.
type Indexed = (usize, Outgoing);

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

/// The characters of XML 1.0, which are those that SQS takes.
fn is_sendable(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..)
}

/// Text that an attribute can hold: never empty, no character that SQS refuses, not too long.
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

/// The dead letter of a message: as it was, with the reason and as much else as fits.
pub(super) fn dead_letter(delivery: &Delivery, failure: &Failure) -> Outgoing {
    let mut letter = Outgoing {
        group: delivery.message_id.clone(),
        // By message: the same one dead-lettered twice is one dead letter.
        dedup_id: format!("dead-{}", delivery.message_id),
        body: delivery.body.clone(),
        attributes: delivery.attributes.clone(),
    };
    let mut add = |name: &str, text| {
        letter
            .attributes
            .insert(name.into(), sendable(text, LONGEST_DETAIL_BYTES))
    };
    add(ATTR_REASON, failure.reason.as_str());
    add(ATTR_DETAIL, &failure.detail);
    add(ATTR_GROUP, &delivery.group);
    add(ATTR_VERSION, &delivery.version().to_string());
    // Attributes of others are dropped first, the reason last.
    let worth = |name: &str| match name {
        ATTR_REASON => 5,
        ATTR_GROUP => 4,
        ATTR_VERSION => 3,
        ATTR_DETAIL => 2,
        ATTR_TRACEPARENT => 1,
        _ => 0,
    };
    while letter.attributes.len() > MOST_ATTRIBUTES || weight(&letter) > Outgoing::MAX_BYTES {
        let least = letter
            .attributes
            .keys()
            .min_by_key(|name| worth(name))
            .cloned();
        let Some(least) = least else { break };
        letter.attributes.remove(&least);
    }
    letter
}

/// Batches of ten, of what fits a request, and of one message a group: an entry that fails and is sent again must not
/// come after a later one of its group.
fn batches(messages: Vec<Indexed>) -> Vec<Vec<Indexed>> {
    let mut batches: Vec<Vec<Indexed>> = Vec::new();
    let (mut bytes, mut groups) = (0, HashSet::new());
    for (index, message) in messages {
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
            batch.push((index, message));
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DeadLetterReason;

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
        let many = (0..25)
            .map(|i| (i, message(&format!("g{i}"), 10)))
            .collect();
        assert_eq!(
            batches(many).iter().map(Vec::len).collect::<Vec<_>>(),
            [10, 10, 5]
        );
        let same = [message("g", 1), message("h", 1), message("g", 1)];
        let same = same.into_iter().enumerate().collect();
        assert_eq!(
            batches(same).iter().map(Vec::len).collect::<Vec<_>>(),
            [2, 1]
        );
        let large = (0..3)
            .map(|i| (i, message(&format!("g{i}"), 600_000)))
            .collect();
        assert_eq!(
            batches(large).iter().map(Vec::len).collect::<Vec<_>>(),
            [1, 1, 1]
        );
    }

    fn poison(attributes: usize, body_bytes: usize) -> Delivery {
        Delivery {
            message_id: "m".into(),
            group: "g".into(),
            dedup_id: "d".into(),
            body: "x".repeat(body_bytes),
            attributes: (0..attributes)
                .map(|number| (format!("a{number}"), "theirs".to_owned()))
                .chain([(ATTR_TRACEPARENT.to_owned(), "trace".to_owned())])
                .collect(),
            sent_as: crate::FileVersion::new("q", 1, 7.into()),
            sent_millis: 0,
            receive_count: 1,
            received_at: tokio::time::Instant::now(),
            visibility_deadline: tokio::time::Instant::now(),
            receipt: crate::Receipt("r".into()),
        }
    }

    fn failure(detail: &str) -> Failure {
        Failure::new(DeadLetterReason::BadName, detail)
    }

    #[test]
    fn a_dead_letter_has_its_reason_however_much_the_message_brought_along() {
        for attributes in [0, 6, 9] {
            let letter = dead_letter(&poison(attributes, 10), &failure("why"));
            assert_eq!(letter.attributes[ATTR_REASON], "BadName");
            assert_eq!(letter.attributes[ATTR_DETAIL], "why");
            assert_eq!(letter.attributes[ATTR_GROUP], "g");
            assert!(letter.attributes.contains_key(ATTR_TRACEPARENT));
            assert_eq!(letter.attributes[ATTR_VERSION], "q:1:7");
            assert_eq!(letter.attributes.len(), (attributes + 5).min(10));
        }
        // A body that leaves little space, and one that leaves none.
        for (space, kept) in [
            (100, &[ATTR_GROUP, ATTR_REASON, ATTR_VERSION][..]),
            (60, &[ATTR_GROUP, ATTR_REASON]),
            (40, &[ATTR_REASON]),
            (0, &[]),
        ] {
            let poison = poison(7, Outgoing::MAX_BYTES - space);
            let letter = dead_letter(&poison, &failure(&"why ".repeat(100)));
            assert_eq!(letter.attributes.keys().collect::<Vec<_>>(), kept);
            assert!(weight(&letter) <= Outgoing::MAX_BYTES);
        }
    }

    #[test]
    fn a_reason_always_fits_an_attribute() {
        assert_eq!(sendable("", 10), "-");
        assert_eq!(sendable("a\0b", 10), "a?b");
        assert_eq!(sendable("ääää", 5), "ää");
    }
}
