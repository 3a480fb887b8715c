//! Queues and their dead-letter queues.

use std::collections::BTreeMap;

use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::{Map, Value, json};
use streampress_crds::queue_check::RedrivePolicy;
use streampress_crds::settings::QueueSettings;

use super::error::ProvisionStep;
use super::{
    NotOwned, ProvisionError, ProvisionOutcome, ProvisionPlan, ProvisionResult, ResourceOutcome,
};
use crate::aws::{Aws, ServiceError};

/// The id of our statement in a queue's policy.
const EVENTS_SID: &str = "StreampressBucketEvents";
/// The longest retention that SQS has: 14 days.
const RETENTION_SECS: &str = "1209600";

type QueueAttributes = Vec<(QueueAttributeName, String)>;

/// A queue with its dead-letter queue, ready for use.
pub(super) struct CreatedPair {
    /// Of the dead-letter queue, then of the queue.
    pub(super) outcomes: [ResourceOutcome; 2],
    /// The queue's URL.
    pub(super) url: String,
}

/// The queue as outcomes and mismatches name it.
pub(super) fn described(name: &str) -> String {
    format!("queue {name}")
}

pub(super) async fn create(
    aws: &Aws,
    plan: &ProvisionPlan,
    queue: &QueueSettings,
    event_rule: Option<&str>,
) -> ProvisionResult<CreatedPair> {
    let dead_name = &queue.dead_letter_name;
    let common = common_settings(queue, event_rule);
    let (dead, dead_url) = create_one(aws, plan, dead_name, common.clone()).await?;
    let redrive = RedrivePolicy {
        target: arn(aws, dead_name, &dead_url).await?,
        max_receive_count: queue.max_receive_count,
    };
    let mut settings = common;
    settings.push((QueueAttributeName::RedrivePolicy, redrive.to_json()));
    let (mut outcome, url) = create_one(aws, plan, &queue.name, settings).await?;
    // The policy names the queue by its ARN, which it has only once it exists.
    if let (Some(rule), true) = (event_rule, outcome != ProvisionOutcome::NotOwned)
        && allow_events(aws, &queue.name, &url, rule).await?
    {
        let policy = "Policy".to_owned();
        match &mut outcome {
            ProvisionOutcome::Unchanged => outcome = ProvisionOutcome::Changed(vec![policy]),
            ProvisionOutcome::Changed(names) => names.push(policy),
            _ => {}
        }
    }
    let outcomes =
        [(dead_name, dead), (&queue.name, outcome)].map(|(name, outcome)| ResourceOutcome {
            resource: described(name),
            outcome,
        });
    Ok(CreatedPair { outcomes, url })
}

/// What both a queue and its dead-letter queue have. High throughput: order and deduplication by group.
fn common_settings(queue: &QueueSettings, event_rule: Option<&str>) -> QueueAttributes {
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
    // EventBridge sends no deduplication id. Without the rule the attribute is left as it is, so that a queue that was set up
    // with a rule goes on taking its events.
    if event_rule.is_some() {
        let by_content = QueueAttributeName::ContentBasedDeduplication;
        settings.push((by_content, "true".into()));
    }
    settings
}

/// Creates one queue, or brings it to `settings`; answers its URL too.
async fn create_one(
    aws: &Aws,
    plan: &ProvisionPlan,
    name: &str,
    settings: QueueAttributes,
) -> ProvisionResult<(ProvisionOutcome, String)> {
    if let Some(url) = find(aws, name).await? {
        let outcome = match is_owned(aws, plan, name, &url).await? {
            true => align(aws, name, &url, settings).await?,
            false => ProvisionOutcome::NotOwned,
        };
        return Ok((outcome, url));
    }
    let fifo = (QueueAttributeName::FifoQueue, "true".to_owned());
    let answer = aws
        .sqs
        .create_queue()
        .queue_name(name)
        .set_attributes(Some(settings.into_iter().chain([fifo]).collect()))
        .set_tags(Some(plan.all_tags().collect()))
        .send()
        .await;
    let answer = answer.step("sqs:CreateQueue", || format!("creating the queue {name}"))?;
    let url = answer.queue_url.ok_or_else(|| ProvisionError::Unusable {
        why: format!("the answer about the queue {name} has no URL"),
    })?;
    // SQS answers with an existing queue of the same settings as if it were new, and leaves its tags.
    let outcome = match is_owned(aws, plan, name, &url).await? {
        true => ProvisionOutcome::Created,
        false => ProvisionOutcome::NotOwned,
    };
    Ok((outcome, url))
}

/// Changes settings that differ.
async fn align(
    aws: &Aws,
    name: &str,
    url: &str,
    settings: QueueAttributes,
) -> ProvisionResult<ProvisionOutcome> {
    let existing = attributes(aws, name, url).await?;
    let differs = |name: &QueueAttributeName, planned: &String| match existing.get(name.as_str()) {
        // SQS writes the policy's count as text or as a number.
        Some(now) if *name == QueueAttributeName::RedrivePolicy => {
            RedrivePolicy::parse(now) != RedrivePolicy::parse(planned)
        }
        Some(now) => now != planned,
        None => true,
    };
    let changes: QueueAttributes = settings
        .into_iter()
        .filter(|(name, planned)| differs(name, planned))
        .collect();
    if changes.is_empty() {
        return Ok(ProvisionOutcome::Unchanged);
    }
    let names = changes
        .iter()
        .map(|(name, _)| name.as_str().to_owned())
        .collect();
    set(aws, name, url, changes).await?;
    Ok(ProvisionOutcome::Changed(names))
}

async fn set(aws: &Aws, name: &str, url: &str, settings: QueueAttributes) -> ProvisionResult<()> {
    let answer = aws
        .sqs
        .set_queue_attributes()
        .queue_url(url)
        .set_attributes(Some(settings.into_iter().collect()))
        .send()
        .await;
    answer.map(drop).step("sqs:SetQueueAttributes", || {
        format!("changing the queue {name}")
    })
}

/// Lets an EventBridge rule send to the queue; whether that took a change.
async fn allow_events(aws: &Aws, name: &str, url: &str, rule: &str) -> ProvisionResult<bool> {
    let existing = attributes(aws, name, url).await?;
    let arn = existing.get("QueueArn").map_or("", String::as_str);
    let policy = existing.get("Policy").map_or("", String::as_str);
    let policy = with_events(policy, event_statement(arn, rule)).map_err(|error| {
        ProvisionError::Unusable {
            why: format!(
                "the policy of the queue {name} cannot be read ({error}); correct or remove it, then run 'streampress setup' again"
            ),
        }
    })?;
    let Some(policy) = policy else {
        return Ok(false);
    };
    set(aws, name, url, vec![(QueueAttributeName::Policy, policy)]).await?;
    Ok(true)
}

/// Lets one rule send; other principals keep what they had.
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
    // A single statement may stand there without a list around it.
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

/// The queue's URL; `None` when there is no such queue.
pub(super) async fn find(aws: &Aws, name: &str) -> ProvisionResult<Option<String>> {
    aws.find_queue(name).await.step("sqs:GetQueueUrl", || {
        format!(
            "looking for the queue {name} at {}",
            aws.describe_endpoint()
        )
    })
}

/// All attributes of a queue, by SQS's names.
pub(super) async fn attributes(
    aws: &Aws,
    name: &str,
    url: &str,
) -> ProvisionResult<BTreeMap<String, String>> {
    aws.attributes_of(url, &[QueueAttributeName::All])
        .await
        .step("sqs:GetQueueAttributes", || {
            format!("reading the queue {name}")
        })
}

async fn arn(aws: &Aws, name: &str, url: &str) -> ProvisionResult<String> {
    let arn = attributes(aws, name, url).await?.remove("QueueArn");
    arn.ok_or_else(|| ProvisionError::Unusable {
        why: format!("the answer about the queue {name} has no ARN"),
    })
}

/// The tags of a queue; `None` when there is no such queue any more, whatever its URL says.
pub(super) async fn tags(
    aws: &Aws,
    name: &str,
    url: &str,
) -> ProvisionResult<Option<BTreeMap<String, String>>> {
    let answer = aws.sqs.list_queue_tags().queue_url(url).send().await;
    match answer.map_err(|error| ServiceError::from_sdk(&error)) {
        Ok(answer) => Ok(Some(answer.tags.unwrap_or_default().into_iter().collect())),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error).step("sqs:ListQueueTags", || {
            format!("reading the tags of the queue {name}")
        }),
    }
}

/// Whether the queue carries our tag; an error where the plan refuses one that does not.
async fn is_owned(aws: &Aws, plan: &ProvisionPlan, name: &str, url: &str) -> ProvisionResult<bool> {
    let Some(tags) = tags(aws, name, url).await? else {
        return Err(ProvisionError::InTransition {
            what: format!("the queue {name} is being created or deleted"),
        });
    };
    match (plan.owns(&tags), plan.not_owned) {
        (true, _) => Ok(true),
        (false, NotOwned::UseAsIs) => Ok(false),
        (false, NotOwned::Refuse) => Err(ProvisionError::NotOwned {
            name: name.to_owned(),
            tags,
        }),
    }
}

pub(super) async fn delete(
    aws: &Aws,
    plan: &ProvisionPlan,
    name: &str,
) -> ProvisionResult<ProvisionOutcome> {
    let Some(url) = find(aws, name).await? else {
        return Ok(ProvisionOutcome::Absent);
    };
    let Some(tags) = tags(aws, name, &url).await? else {
        return Ok(ProvisionOutcome::Absent);
    };
    if !plan.owns(&tags) {
        return Ok(ProvisionOutcome::NotOwned);
    }
    let answer = aws.sqs.delete_queue().queue_url(&url).send().await;
    match answer.map_err(|error| ServiceError::from_sdk(&error)) {
        // The answer to a first attempt was lost.
        Err(error) if error.is_absent() => Ok(ProvisionOutcome::Deleted),
        answer => answer
            .map(|_| ProvisionOutcome::Deleted)
            .step("sqs:DeleteQueue", || format!("deleting the queue {name}")),
    }
}
