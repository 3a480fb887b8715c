//! Whether an existing queue fits a pipeline, by its attributes as SQS returns them.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use crate::settings::QueueSettings;

/// A queue or stream that does not fit its pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Which one, as `queue orders.fifo`.
    pub resource: String,
    /// Whether the pipeline cannot work with it; otherwise it works, but not as specified.
    pub fatal: bool,
    /// What is wrong and what to change, as a clause that follows the resource.
    pub problem: String,
}

impl Mismatch {
    /// The pipeline cannot work with it.
    pub fn fatal(resource: &str, problem: impl Into<String>) -> Self {
        Self {
            resource: resource.to_owned(),
            fatal: true,
            problem: problem.into(),
        }
    }

    /// The pipeline works with it, but not as specified.
    pub fn tolerable(resource: &str, problem: impl Into<String>) -> Self {
        Self {
            fatal: false,
            ..Self::fatal(resource, problem)
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.fatal { "error" } else { "warning" };
        write!(f, "{kind}: {}: {}", self.resource, self.problem)
    }
}

/// The value of the attribute RedrivePolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedrivePolicy {
    /// ARN of the dead-letter queue.
    pub target: String,
    /// Receives after which a message becomes a dead letter.
    pub max_receive_count: u32,
}

impl RedrivePolicy {
    /// Reads the policy; SQS returns the count as a number or as text.
    pub fn parse(json: &str) -> Option<Self> {
        let policy: Value = serde_json::from_str(json).ok()?;
        let count = &policy["maxReceiveCount"];
        let count = count.as_u64().or_else(|| count.as_str()?.parse().ok())?;
        Some(Self {
            target: policy["deadLetterTargetArn"].as_str()?.to_owned(),
            max_receive_count: u32::try_from(count).ok()?,
        })
    }

    /// The policy as SQS takes it.
    pub fn to_json(&self) -> String {
        json!({"deadLetterTargetArn": self.target, "maxReceiveCount": self.max_receive_count})
            .to_string()
    }
}

/// The `maxReceiveCount` of queues that are made: SQS counts releases, kills and outages as receives, so it decides only in
/// the last resort. How often a file may fail is counted by the workers.
pub const LAST_RESORT_RECEIVES: u32 = 1_000;

/// What does not fit, by the attributes of a queue and those of its dead-letter queue, if that exists.
pub fn mismatches(
    queue: &QueueSettings,
    existing: &BTreeMap<String, String>,
    dead: Option<&BTreeMap<String, String>>,
) -> Vec<Mismatch> {
    let QueueSettings {
        name,
        dead_letter_name,
        max_receive_count,
        ..
    } = queue;
    let resource = format!("queue {name}");
    let is = |name: &str, value: &str| existing.get(name).is_some_and(|now| now == value);
    let mut mismatches = Vec::new();
    let mut find = |fatal: bool, problem: String| {
        mismatches.push(Mismatch {
            fatal,
            ..Mismatch::fatal(&resource, problem)
        });
    };
    if !is("FifoQueue", "true") {
        find(
            true,
            "is not a FIFO queue, and cannot be made one; name another that ends in .fifo".into(),
        );
    }
    let Some(policy) = existing
        .get("RedrivePolicy")
        .and_then(|policy| RedrivePolicy::parse(policy))
    else {
        find(
            true,
            format!(
                "has no dead-letter queue, so a bad file would be retried without end; set its RedrivePolicy to {dead_letter_name}"
            ),
        );
        return mismatches;
    };
    let Some(dead) = dead else {
        find(
            true,
            format!(
                "its dead-letter queue {dead_letter_name} does not exist; run 'streampress setup'"
            ),
        );
        return mismatches;
    };
    let dead_arn = dead.get("QueueArn").map_or("", String::as_str);
    if policy.target != dead_arn {
        find(
            true,
            format!(
                "its RedrivePolicy names {:?}; set deadLetterTargetArn to {dead_arn}, the queue's ARN",
                policy.target
            ),
        );
    }
    if policy.max_receive_count < 2 {
        find(
            true,
            "maxReceiveCount is 1, but a response to a receive can be lost; set at least 2".into(),
        );
    } else if policy.max_receive_count < *max_receive_count {
        find(
            false,
            format!(
                "maxReceiveCount is {}, and SQS counts releases and outages as receives too; set it to {LAST_RESORT_RECEIVES}",
                policy.max_receive_count
            ),
        );
    }
    if !is("DeduplicationScope", "messageGroup") || !is("FifoThroughputLimit", "perMessageGroupId")
    {
        find(false, "is limited to 300 calls a second; set DeduplicationScope to messageGroup and FifoThroughputLimit to perMessageGroupId".into());
    }
    let largest: usize = existing
        .get("MaximumMessageSize")
        .and_then(|text| text.parse().ok())
        .unwrap_or(1 << 20);
    if largest < 256 * 1024 {
        find(
            true,
            format!(
                "takes messages of at most {largest} bytes; set MaximumMessageSize to 262144 or more"
            ),
        );
    }
    mismatches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn mismatches_of(pairs: &[(&str, &str)]) -> Vec<Mismatch> {
        let dead = attributes(&[("QueueArn", "arn:x")]);
        let queue = QueueSettings {
            name: "q.fifo".into(),
            dead_letter_name: "q-dlq.fifo".into(),
            visibility_timeout_seconds: 60,
            max_receive_count: 20,
        };
        mismatches(&queue, &attributes(pairs), Some(&dead))
    }

    #[test]
    fn a_redrive_policy_is_read_with_its_count_as_number_or_text() {
        let policy = RedrivePolicy {
            target: "arn:aws:sqs:r:1:x-dlq.fifo".into(),
            max_receive_count: 5,
        };
        assert_eq!(
            RedrivePolicy::parse(&policy.to_json()),
            Some(policy.clone())
        );
        assert_eq!(
            RedrivePolicy::parse(
                r#"{"deadLetterTargetArn":"arn:aws:sqs:r:1:x-dlq.fifo","maxReceiveCount":"5"}"#
            ),
            Some(policy)
        );
        assert_eq!(RedrivePolicy::parse("http://queue"), None);
    }

    #[test]
    fn a_queue_made_by_setup_has_no_problems() {
        let policy = r#"{"deadLetterTargetArn":"arn:x","maxReceiveCount":20}"#;
        let there = [
            ("FifoQueue", "true"),
            ("RedrivePolicy", policy),
            ("DeduplicationScope", "messageGroup"),
            ("FifoThroughputLimit", "perMessageGroupId"),
        ];
        assert_eq!(mismatches_of(&there), []);
    }

    #[test]
    fn the_originals_redrive_policy_with_a_url_is_reported() {
        let policy = r#"{"deadLetterTargetArn":"http://host/000000000000/q-dlq.fifo","maxReceiveCount":"5"}"#;
        let mismatches = mismatches_of(&[("FifoQueue", "true"), ("RedrivePolicy", policy)]);
        assert!(
            mismatches.iter().any(|mismatch| mismatch.fatal
                && mismatch
                    .problem
                    .contains("set deadLetterTargetArn to arn:x")),
            "{mismatches:?}"
        );
    }

    #[test]
    fn each_problem_says_what_to_change() {
        let once = r#"{"deadLetterTargetArn":"arn:x","maxReceiveCount":1}"#;
        let cases: [(&[(&str, &str)], &str); 3] = [
            (&[], "another that ends in .fifo"),
            (&[("FifoQueue", "true")], "set its RedrivePolicy"),
            (
                &[("FifoQueue", "true"), ("RedrivePolicy", once)],
                "at least 2",
            ),
        ];
        for (there, words) in cases {
            let mismatches = mismatches_of(there);
            assert!(
                mismatches
                    .iter()
                    .any(|mismatch| mismatch.problem.contains(words)),
                "{words}: {mismatches:?}"
            );
        }
    }
}
