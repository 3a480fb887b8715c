//! Queues and their dead-letter queues.

use std::collections::HashMap;

use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::{Map, Value, json};
use streampress_crds::queue_check::RedrivePolicy;

use super::{Done, Outcome, Wanted, WantedQueue};
use crate::aws::Aws;
use crate::aws::service_error::{ServiceError, transport_error};
use crate::{TransportError, TransportResult};

/// Our statement in a queue's policy.
const EVENTS_SID: &str = "StreampressBucketEvents";
/// As long as SQS keeps anything: 14 days.
const RETENTION_SECS: &str = "1209600";

type Settings = Vec<(QueueAttributeName, String)>;

pub(super) async fn make(
    aws: &Aws,
    wanted: &Wanted,
    queue: &WantedQueue,
) -> TransportResult<Vec<Done>> {
    let dead = make_one(aws, wanted, &queue.dead_letter_name, common(queue)).await?;
    let dead_url = aws.queue_url(&queue.dead_letter_name).await?;
    let arn = aws.queue_attributes(&dead_url).await?.remove("QueueArn");
    let target = arn.ok_or_else(|| {
        TransportError::unavailable(
            format!("wiring {}", queue.dead_letter_name),
            "it has no ARN",
        )
    })?;
    let mut settings = common(queue);
    let policy = RedrivePolicy {
        target,
        max_receive_count: queue.max_receive_count,
    };
    settings.push((QueueAttributeName::RedrivePolicy, policy.to_json()));
    let mut made = make_one(aws, wanted, &queue.name, settings).await?;
    // The policy names the queue by its ARN, which it has only once it exists.
    if let (Some(rule), true) = (&queue.event_rule, made.outcome != Outcome::Foreign)
        && let_send(aws, &queue.name, rule).await?
    {
        let policy = "Policy".to_owned();
        match &mut made.outcome {
            Outcome::Kept => made.outcome = Outcome::Changed(vec![policy]),
            Outcome::Changed(names) => names.push(policy),
            _ => {}
        }
    }
    Ok(vec![dead, made])
}

/// Lets an EventBridge rule send to the queue; whether that took a change.
async fn let_send(aws: &Aws, name: &str, rule: &str) -> TransportResult<bool> {
    let url = aws.queue_url(name).await?;
    let there = aws.queue_attributes(&url).await?;
    let arn = there.get("QueueArn").map_or("", String::as_str);
    let policy = there.get("Policy").map_or("", String::as_str);
    let policy = with_events(policy, event_statement(arn, rule)).map_err(|error| {
        TransportError::Invalid(format!(
            "the policy of the queue {name} cannot be read ({error}); mend or remove it, then run 'streampress setup' again"
        ))
    })?;
    let Some(policy) = policy else {
        return Ok(false);
    };
    set(aws, name, &url, vec![(QueueAttributeName::Policy, policy)]).await?;
    Ok(true)
}

/// What both a queue and its dead letters have. High throughput: order and deduplication by group.
fn common(queue: &WantedQueue) -> Settings {
    let mut settings = vec![
        (
            QueueAttributeName::VisibilityTimeout,
            queue.visibility_timeout_seconds.to_string(),
        ),
        (
            QueueAttributeName::MessageRetentionPeriod,
            RETENTION_SECS.into(),
        ),
        (
            QueueAttributeName::DeduplicationScope,
            "messageGroup".into(),
        ),
        (
            QueueAttributeName::FifoThroughputLimit,
            "perMessageGroupId".into(),
        ),
    ];
    // EventBridge gives no deduplication id. Set up again without the rule, a queue goes on taking its events.
    if queue.event_rule.is_some() {
        let by_content = QueueAttributeName::ContentBasedDeduplication;
        settings.push((by_content, "true".into()));
    }
    settings
}

/// Lets one rule send, and nobody else who could not already.
fn event_statement(queue_arn: &str, rule_arn: &str) -> Value {
    json!({
        "Sid": EVENTS_SID,
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue_arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": rule_arn}},
    })
}

/// The queue's policy with our statement in it, and all others as they are; `None` when it is there already.
fn with_events(policy: &str, ours: Value) -> serde_json::Result<Option<String>> {
    let mut policy: Map<String, Value> = match policy {
        "" => Map::new(),
        policy => serde_json::from_str(policy)?,
    };
    // One statement may stand there without a list around it.
    let mut statements = match policy.remove("Statement") {
        Some(Value::Array(statements)) => statements,
        Some(statement) => vec![statement],
        None => Vec::new(),
    };
    if statements.contains(&ours) {
        return Ok(None);
    }
    statements.retain(|statement| statement["Sid"] != EVENTS_SID);
    statements.push(ours);
    policy.entry("Version").or_insert("2012-10-17".into());
    policy.insert("Statement".into(), statements.into());
    Ok(Some(Value::from(policy).to_string()))
}

async fn make_one(
    aws: &Aws,
    wanted: &Wanted,
    name: &str,
    settings: Settings,
) -> TransportResult<Done> {
    let what = format!("queue {name}");
    let Some(url) = find(aws, name).await? else {
        create(aws, wanted, name, settings).await?;
        return Ok(Done {
            what,
            outcome: Outcome::Made,
        });
    };
    if !is_ours(aws, wanted, name, &url).await? {
        return Ok(Done {
            what,
            outcome: Outcome::Foreign,
        });
    }
    let there = aws.queue_attributes(&url).await?;
    let differs = |name: &QueueAttributeName, value: &String| match there.get(name.as_str()) {
        Some(now) if *name == QueueAttributeName::RedrivePolicy => {
            RedrivePolicy::parse(now) != RedrivePolicy::parse(value)
        }
        Some(now) => now != value,
        // Emulators leave defaults out.
        None => value != "false",
    };
    let changes: Settings = settings
        .into_iter()
        .filter(|(name, value)| differs(name, value))
        .collect();
    if changes.is_empty() {
        return Ok(Done {
            what,
            outcome: Outcome::Kept,
        });
    }
    let names = changes
        .iter()
        .map(|(name, _)| name.as_str().to_owned())
        .collect();
    set(aws, name, &url, changes).await?;
    Ok(Done {
        what,
        outcome: Outcome::Changed(names),
    })
}

async fn create(aws: &Aws, wanted: &Wanted, name: &str, settings: Settings) -> TransportResult<()> {
    let mut attributes: HashMap<_, _> = settings.into_iter().collect();
    attributes.insert(QueueAttributeName::FifoQueue, "true".into());
    let tags: HashMap<String, String> = wanted
        .tags
        .clone()
        .into_iter()
        .chain([wanted.owner.clone()])
        .collect();
    let answer = aws
        .sqs
        .create_queue()
        .queue_name(name)
        .set_attributes(Some(attributes))
        .set_tags(Some(tags))
        .send()
        .await;
    answer.map(drop).map_err(|error| {
        let said = ServiceError::from_sdk(&error);
        let recently = said.code.contains("QueueDeletedRecently");
        let hint = if recently {
            " (it was deleted less than 60 seconds ago; try again in a minute)"
        } else {
            ""
        };
        said.into_transport_error(format!("making the queue {name}{hint}"))
    })
}

async fn set(aws: &Aws, name: &str, url: &str, settings: Settings) -> TransportResult<()> {
    let attributes = settings.into_iter().collect();
    let answer = aws
        .sqs
        .set_queue_attributes()
        .queue_url(url)
        .set_attributes(Some(attributes))
        .send()
        .await;
    answer
        .map(drop)
        .map_err(|error| transport_error(format!("changing the queue {name}"), &error))
}

/// The queue's URL; `None` when there is no such queue.
pub(super) async fn find(aws: &Aws, name: &str) -> TransportResult<Option<String>> {
    match aws.sqs.get_queue_url().queue_name(name).send().await {
        Ok(answer) => Ok(answer.queue_url),
        Err(error) => {
            let said = ServiceError::from_sdk(&error);
            if said.is_absent() {
                Ok(None)
            } else {
                Err(said.into_transport_error(format!(
                    "looking for the queue {name} at {}",
                    aws.describe_endpoint()
                )))
            }
        }
    }
}

async fn is_ours(aws: &Aws, wanted: &Wanted, name: &str, url: &str) -> TransportResult<bool> {
    let answer = aws.sqs.list_queue_tags().queue_url(url).send().await;
    let tags = answer
        .map_err(|error| transport_error(format!("reading the tags of the queue {name}"), &error))?
        .tags;
    Ok(tags.is_some_and(|tags| tags.get(&wanted.owner.0) == Some(&wanted.owner.1)))
}

pub(super) async fn remove(aws: &Aws, wanted: &Wanted, name: &str) -> TransportResult<Done> {
    let what = format!("queue {name}");
    let Some(url) = find(aws, name).await? else {
        return Ok(Done {
            what,
            outcome: Outcome::Absent,
        });
    };
    if !is_ours(aws, wanted, name, &url).await? {
        return Ok(Done {
            what,
            outcome: Outcome::Foreign,
        });
    }
    let answer = aws.sqs.delete_queue().queue_url(&url).send().await;
    answer.map_err(|error| transport_error(format!("removing the queue {name}"), &error))?;
    Ok(Done {
        what,
        outcome: Outcome::Removed,
    })
}
