//! Does what exists fit what is wanted? Looks only, but for calls that are bound to be refused: they tell whether the
//! credentials may make them.

use std::fmt;

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{
    EncryptionType, PutRecordsRequestEntry, ShardIteratorType, StreamStatus,
};
use streampress_crds::queue_check::mismatches;

use super::{Wanted, WantedQueue, queues, stream};
use crate::TransportResult;
use crate::aws::Aws;
use crate::aws::service_error::ServiceError;

/// Something that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether the pipeline cannot work with it; else it works, but not as asked for.
    pub fatal: bool,
    /// `queue orders.fifo`.
    pub what: String,
    /// What is wrong and what to change.
    pub problem: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.fatal { "error" } else { "warning" };
        write!(f, "{kind}: {}: {}", self.what, self.problem)
    }
}

/// Looks at everything; an error only when AWS cannot be asked at all.
pub async fn check(aws: &Aws, wanted: &Wanted) -> TransportResult<Vec<Finding>> {
    let mut findings = Vec::new();
    for queue in [&wanted.files_queue, &wanted.chunks_queue] {
        check_queue(aws, queue, &mut findings).await?;
    }
    check_stream(aws, wanted, &mut findings).await?;
    Ok(findings)
}

async fn check_queue(
    aws: &Aws,
    queue: &WantedQueue,
    findings: &mut Vec<Finding>,
) -> TransportResult<()> {
    let what = format!("queue {}", queue.name);
    let mut find = |fatal: bool, problem: String| {
        findings.push(Finding {
            fatal,
            what: what.clone(),
            problem,
        })
    };
    let Some(url) = queues::find(aws, &queue.name).await? else {
        find(true, "does not exist; run 'streampress setup'".into());
        return Ok(());
    };
    let there = aws.queue_attributes(&url).await?;
    let dead_url = queues::find(aws, &queue.dead_letter_name).await?;
    let dead = match &dead_url {
        Some(url) => Some(aws.queue_attributes(url).await?),
        None => None,
    };
    let (dead_letters, receives) = (&queue.dead_letter_name, queue.max_receive_count);
    for mismatch in mismatches(dead_letters, receives, &there, dead.as_ref()) {
        find(mismatch.fatal, mismatch.problem);
    }
    for permission in denied_on_queue(aws, &url).await {
        find(true, lacks(permission));
    }
    if let Some(url) = dead_url
        && may_not_send(aws, &url).await
    {
        findings.push(Finding {
            fatal: true,
            what: format!("queue {}", queue.dead_letter_name),
            problem: lacks("sqs:SendMessage"),
        });
    }
    Ok(())
}

fn lacks(permission: &str) -> String {
    format!("the credentials lack the permission {permission}; add it to their policy")
}

/// A receipt that nobody was given, more messages than there are in one answer: refused as such, or for want of permission.
async fn denied_on_queue(aws: &Aws, url: &str) -> Vec<&'static str> {
    let bogus = "streampress-asks-whether-it-may";
    let hide = aws
        .sqs
        .change_message_visibility()
        .queue_url(url)
        .receipt_handle(bogus)
        .visibility_timeout(0)
        .send()
        .await;
    let delete = aws
        .sqs
        .delete_message()
        .queue_url(url)
        .receipt_handle(bogus)
        .send()
        .await;
    // Eleven messages, which SQS refuses; should anybody grant them, they are not hidden.
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
    let send = may_not_send(aws, url).await.then_some("sqs:SendMessage");
    denied(outcomes).chain(send).collect()
}

/// A group id of a space, which SQS refuses.
async fn may_not_send(aws: &Aws, url: &str) -> bool {
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

/// The permissions whose lack is what was said.
fn denied<const N: usize>(
    outcomes: [(&'static str, Option<ServiceError>); N],
) -> impl Iterator<Item = &'static str> {
    outcomes
        .into_iter()
        .filter(|(_, said)| said.as_ref().is_some_and(ServiceError::is_denied))
        .map(|(name, _)| name)
}

async fn check_stream(
    aws: &Aws,
    wanted: &Wanted,
    findings: &mut Vec<Finding>,
) -> TransportResult<()> {
    let name = &wanted.stream.name;
    let what = format!("stream {name}");
    let mut find = |fatal: bool, problem: String| {
        findings.push(Finding {
            fatal,
            what: what.clone(),
            problem,
        })
    };
    let Some(there) = stream::find(aws, name).await? else {
        find(true, "does not exist; run 'streampress setup'".into());
        return Ok(());
    };
    if !matches!(
        there.stream_status,
        StreamStatus::Active | StreamStatus::Updating
    ) {
        find(
            true,
            format!("is {}; wait until it is ACTIVE", there.stream_status),
        );
    }
    if i64::from(there.open_shard_count) != i64::from(wanted.stream.shards) {
        find(
            false,
            format!(
                "has {} open shards, the pipeline says {}; each takes 1 MB a second",
                there.open_shard_count, wanted.stream.shards
            ),
        );
    }
    if i64::from(there.retention_period_hours) < i64::from(wanted.stream.retention_hours) {
        find(
            false,
            format!(
                "keeps records for {} hours, the pipeline says {}; increase its retention",
                there.retention_period_hours, wanted.stream.retention_hours
            ),
        );
    }
    let kib = there
        .max_record_size_in_kib
        .and_then(|kib| usize::try_from(kib).ok())
        .filter(|kib| *kib > 0)
        .unwrap_or(1024);
    if wanted.record_bytes > kib * 1024 {
        find(
            true,
            format!("takes records of at most {kib} KiB; set codec.recordSize to {kib}Ki or less"),
        );
    }
    if wanted.stream.encrypted && there.encryption_type != Some(EncryptionType::Kms) {
        find(
            false,
            "is not encrypted; start its encryption with alias/aws/kinesis".into(),
        );
    }
    for permission in denied_on_stream(aws, name).await {
        find(true, lacks(permission));
    }
    Ok(())
}

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
            read.send()
                .await
                .err()
                .map(|error| ServiceError::from_sdk(&error))
        }
        None => None,
    };
    // No hash key is a word, so nothing is ever put.
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
