//! Whether what exists fits what is planned. Changes nothing: besides reading it only makes calls that are certain to be
//! refused, which show whether the credentials may make them.

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{EncryptionType, PutRecordsRequestEntry, ShardIteratorType};
use streampress_crds::queue_check::{Mismatch, mismatches};
use streampress_crds::settings::QueueSettings;

use super::{ProvisionPlan, ProvisionResult, existing_queue, queues, stream};
use crate::aws::{Aws, ServiceError};

/// What does not fit of the plan's queues and stream, for records of at most `record_bytes` bytes. An error only when AWS
/// cannot be reached at all.
pub async fn check(
    aws: &Aws,
    plan: &ProvisionPlan,
    record_bytes: usize,
) -> ProvisionResult<Vec<Mismatch>> {
    let mut found = Vec::new();
    for queue in plan.transport.queues() {
        check_queue(aws, queue, &mut found).await?;
    }
    check_stream(aws, plan, record_bytes, &mut found).await?;
    Ok(found)
}

async fn check_queue(
    aws: &Aws,
    queue: &QueueSettings,
    found: &mut Vec<Mismatch>,
) -> ProvisionResult<()> {
    let resource = queues::described(&queue.name);
    let Some(existing) = existing_queue(aws, &queue.name).await? else {
        found.push(Mismatch::fatal(
            &resource,
            "does not exist; run 'streampress setup'",
        ));
        return Ok(());
    };
    let dead = existing_queue(aws, &queue.dead_letter_name).await?;
    let dead_attributes = dead.as_ref().map(|dead| &dead.attributes);
    found.extend(mismatches(queue, &existing.attributes, dead_attributes));
    for permission in denied_on_queue(aws, &existing.url).await {
        found.push(lacks(&resource, permission));
    }
    if let Some(dead) = dead
        && is_send_denied(aws, &dead.url).await
    {
        let resource = queues::described(&queue.dead_letter_name);
        found.push(lacks(&resource, "sqs:SendMessage"));
    }
    Ok(())
}

fn lacks(resource: &str, permission: &str) -> Mismatch {
    Mismatch::fatal(
        resource,
        format!("the credentials lack the permission {permission}; add it to their policy"),
    )
}

/// The permissions on a queue that the credentials lack. Each call is one that SQS refuses: with an invalid receipt, or
/// for more messages than a call takes.
async fn denied_on_queue(aws: &Aws, url: &str) -> Vec<&'static str> {
    let invalid = "streampress-permission-check";
    let hide = aws
        .sqs
        .change_message_visibility()
        .queue_url(url)
        .receipt_handle(invalid)
        .visibility_timeout(0)
        .send()
        .await;
    let delete = aws
        .sqs
        .delete_message()
        .queue_url(url)
        .receipt_handle(invalid)
        .send()
        .await;
    // Eleven messages, which SQS refuses; an emulator that answers all the same keeps them visible.
    let receive = aws
        .sqs
        .receive_message()
        .queue_url(url)
        .max_number_of_messages(11)
        .visibility_timeout(0)
        .wait_time_seconds(0)
        .send()
        .await;
    let outcomes = [
        (
            "sqs:ReceiveMessage",
            receive.err().map(|error| ServiceError::from_sdk(&error)),
        ),
        (
            "sqs:ChangeMessageVisibility",
            hide.err().map(|error| ServiceError::from_sdk(&error)),
        ),
        (
            "sqs:DeleteMessage",
            delete.err().map(|error| ServiceError::from_sdk(&error)),
        ),
    ];
    let send = is_send_denied(aws, url).await.then_some("sqs:SendMessage");
    denied(outcomes).chain(send).collect()
}

/// Sends with a group id of a space, which SQS refuses.
async fn is_send_denied(aws: &Aws, url: &str) -> bool {
    let send = aws
        .sqs
        .send_message()
        .queue_url(url)
        .message_body("-")
        .message_group_id(" ")
        .message_deduplication_id(" ")
        .send()
        .await;
    send.is_err_and(|error| ServiceError::from_sdk(&error).is_denied())
}

/// The permissions whose calls were denied.
fn denied<const N: usize>(
    outcomes: [(&'static str, Option<ServiceError>); N],
) -> impl Iterator<Item = &'static str> {
    outcomes
        .into_iter()
        .filter(|(_, error)| error.as_ref().is_some_and(ServiceError::is_denied))
        .map(|(permission, _)| permission)
}

async fn check_stream(
    aws: &Aws,
    plan: &ProvisionPlan,
    record_bytes: usize,
    found: &mut Vec<Mismatch>,
) -> ProvisionResult<()> {
    let planned = &plan.transport.stream;
    let resource = stream::described(&planned.name);
    let Some(existing) = stream::find(aws, &planned.name).await? else {
        found.push(Mismatch::fatal(
            &resource,
            "does not exist; run 'streampress setup'",
        ));
        return Ok(());
    };
    if !stream::USABLE.contains(&existing.stream_status) {
        found.push(Mismatch::fatal(
            &resource,
            format!("is {}; wait until it is ACTIVE", existing.stream_status),
        ));
    }
    if i64::from(existing.open_shard_count) != i64::from(planned.shards) {
        found.push(Mismatch::tolerable(
            &resource,
            format!(
                "has {} open shards, the pipeline says {}; each takes 1 MB a second",
                existing.open_shard_count, planned.shards
            ),
        ));
    }
    if i64::from(existing.retention_period_hours) < i64::from(planned.retention_hours) {
        found.push(Mismatch::tolerable(
            &resource,
            format!(
                "keeps records for {} hours, the pipeline says {}; increase its retention",
                existing.retention_period_hours, planned.retention_hours
            ),
        ));
    }
    let kib = existing
        .max_record_size_in_kib
        .and_then(|kib| usize::try_from(kib).ok())
        .filter(|kib| *kib > 0)
        .unwrap_or(1024);
    if record_bytes > kib * 1024 {
        found.push(Mismatch::fatal(
            &resource,
            format!("takes records of at most {kib} KiB; set codec.recordSize to {kib}Ki or less"),
        ));
    }
    if plan.encrypted && existing.encryption_type != Some(EncryptionType::Kms) {
        found.push(Mismatch::tolerable(
            &resource,
            "is not encrypted; start its encryption with alias/aws/kinesis",
        ));
    }
    for permission in denied_on_stream(aws, &planned.name).await {
        found.push(lacks(&resource, permission));
    }
    Ok(())
}

/// The permissions on a stream that the credentials lack.
async fn denied_on_stream(aws: &Aws, name: &str) -> Vec<&'static str> {
    let listed = aws
        .kinesis_admin
        .list_shards()
        .stream_name(name)
        .send()
        .await;
    let shard = listed.as_ref().ok().and_then(|answer| {
        answer
            .shards()
            .first()
            .map(|shard| shard.shard_id().to_owned())
    });
    let seek = aws
        .kinesis
        .get_shard_iterator()
        .stream_name(name)
        .shard_id(shard.unwrap_or_default())
        .shard_iterator_type(ShardIteratorType::Latest)
        .send()
        .await;
    // Behind the newest record there is nothing to read.
    let iterator = seek
        .as_ref()
        .ok()
        .and_then(|answer| answer.shard_iterator());
    let read = match iterator {
        Some(iterator) => {
            let read = aws.kinesis.get_records().shard_iterator(iterator).limit(1);
            let answer = read.send().await;
            answer.err().map(|error| ServiceError::from_sdk(&error))
        }
        None => None,
    };
    // "none" is no hash key, so nothing is ever put.
    let entry = PutRecordsRequestEntry::builder()
        .data(Blob::new("-"))
        .partition_key("-")
        .explicit_hash_key("none")
        .build();
    let put = match entry {
        Ok(entry) => aws
            .kinesis
            .put_records()
            .stream_name(name)
            .records(entry)
            .send()
            .await
            .err()
            .map(|error| ServiceError::from_sdk(&error)),
        Err(_) => None,
    };
    let outcomes = [
        (
            "kinesis:ListShards",
            listed.err().map(|error| ServiceError::from_sdk(&error)),
        ),
        (
            "kinesis:GetShardIterator",
            seek.err().map(|error| ServiceError::from_sdk(&error)),
        ),
        ("kinesis:GetRecords", read),
        ("kinesis:PutRecords", put),
    ];
    denied(outcomes).collect()
}
