//! The stream.

use std::collections::BTreeMap;

use aws_sdk_kinesis::types::{EncryptionType, ScalingType, StreamDescriptionSummary, StreamStatus};
use tokio::time::{Duration, Instant};
use tracing::warn;

use super::error::ProvisionStep;
use super::{
    NotOwned, ProvisionError, ProvisionOutcome, ProvisionPlan, ProvisionResult, ResourceOutcome,
    UsableStream,
};
use crate::aws::{Aws, ServiceError};

/// The key that AWS manages for Kinesis.
const KEY: &str = "alias/aws/kinesis";
/// The longest wait until a stream can be used or changed: creating or resharding takes AWS about half a minute, many shards
/// longer.
const PATIENCE: Duration = Duration::from_secs(300);
/// The same for a caller that comes again. Emulators need less.
pub(super) const SHORT_PATIENCE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(500);
/// A stream can be used while it is changed, but takes one change at a time.
pub(super) const USABLE: [StreamStatus; 2] = [StreamStatus::Active, StreamStatus::Updating];
const UNCHANGING: [StreamStatus; 1] = [StreamStatus::Active];

/// Whether the stream was missing when provisioning began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begun {
    Created,
    Existed,
}

/// The stream as outcomes and mismatches name it.
pub(super) fn described(name: &str) -> String {
    format!("stream {name}")
}

/// Requests the stream where it does not exist yet.
pub(super) async fn begin(aws: &Aws, plan: &ProvisionPlan) -> ProvisionResult<Begun> {
    let stream = &plan.transport.stream;
    if find(aws, &stream.name).await?.is_some() {
        return Ok(Begun::Existed);
    }
    let answer = aws
        .kinesis_admin
        .create_stream()
        .stream_name(&stream.name)
        .shard_count(i32::try_from(stream.shards).unwrap_or(i32::MAX))
        .set_tags(Some(plan.all_tags().collect()))
        .send()
        .await;
    match answer.map_err(|error| ServiceError::from_sdk(&error)) {
        // Another process was faster, or the answer to a first attempt was lost; its tag shows whose it is.
        Err(error) if error.is_in_use() => return Ok(Begun::Existed),
        answer => answer.step("kinesis:CreateStream", || {
            format!("creating the stream {}", stream.name)
        })?,
    };
    // Older emulators take no tags with CreateStream; without the tag nothing would be ours.
    let answer = aws
        .kinesis_admin
        .add_tags_to_stream()
        .stream_name(&stream.name)
        .set_tags(Some(plan.all_tags().collect()))
        .send()
        .await;
    match answer.map_err(|error| ServiceError::from_sdk(&error)) {
        // Still being created, as at AWS, which took the tags with CreateStream.
        Err(error) if error.is_in_use() => {}
        answer => {
            answer.step("kinesis:AddTagsToStream", || {
                format!("tagging the stream {}", stream.name)
            })?;
        }
    }
    Ok(Begun::Created)
}

/// Waits until the stream can be used, and brings one of ours to what is planned.
pub(super) async fn finish(
    aws: &Aws,
    plan: &ProvisionPlan,
    begun: Begun,
) -> ProvisionResult<(ResourceOutcome, UsableStream)> {
    let name = &plan.transport.stream.name;
    let found = await_planned(aws, plan, &USABLE).await?;
    let is_encrypted = found.encryption_type == Some(EncryptionType::Kms);
    let mut usable = usable(found);
    let tags = tags(aws, name).await?;
    let outcome = if plan.owns(&tags) {
        let changed = align(aws, plan, &mut usable, is_encrypted).await?;
        match begun {
            Begun::Created => ProvisionOutcome::Created,
            Begun::Existed if changed.is_empty() => ProvisionOutcome::Unchanged,
            Begun::Existed => ProvisionOutcome::Changed(changed),
        }
    } else if plan.not_owned == NotOwned::Refuse {
        return Err(ProvisionError::NotOwned {
            name: name.clone(),
            tags,
        });
    } else {
        ProvisionOutcome::NotOwned
    };
    let outcome = ResourceOutcome {
        resource: described(name),
        outcome,
    };
    Ok((outcome, usable))
}

/// Changes settings that differ, one after the other; answers their names.
async fn align(
    aws: &Aws,
    plan: &ProvisionPlan,
    stream: &mut UsableStream,
    is_encrypted: bool,
) -> ProvisionResult<Vec<String>> {
    let mut changed = Vec::new();
    let is_planned = plan_retention(aws, plan, stream).await?;
    let is_extended = match extend_retention(aws, plan, stream).await {
        Ok(is_extended) => is_extended,
        Err(error) => {
            stream.not_extended = Some(error);
            false
        }
    };
    if is_planned || is_extended {
        changed.push("retention".into());
    }
    if plan.encrypted && !is_encrypted && encrypt(aws, plan).await? {
        changed.push("encryption".into());
    }
    if reshard(aws, plan).await? {
        changed.push("shards".into());
    }
    Ok(changed)
}

fn changing(name: &str) -> String {
    format!("changing the stream {name}")
}

/// Gives the stream the planned retention, where it may be lowered or is too short; answers whether that is a change.
async fn plan_retention(
    aws: &Aws,
    plan: &ProvisionPlan,
    stream: &mut UsableStream,
) -> ProvisionResult<bool> {
    let planned = plan.transport.stream.retention_hours;
    let now = stream.retention_hours;
    if now == planned || (now > planned && plan.lower_retention_from != Some(now)) {
        return Ok(false);
    }
    await_planned(aws, plan, &UNCHANGING).await?;
    set_retention(aws, plan, stream, planned).await?;
    Ok(true)
}

/// Extends the retention beyond the planned one; answers whether that is a change. A stream that is being changed is not
/// waited for, since it can be used as it is.
async fn extend_retention(
    aws: &Aws,
    plan: &ProvisionPlan,
    stream: &mut UsableStream,
) -> ProvisionResult<bool> {
    let name = &plan.transport.stream.name;
    let Some(hours) = plan
        .extend_retention_to
        .filter(|hours| *hours > stream.retention_hours)
    else {
        return Ok(false);
    };
    let found = await_planned(aws, plan, &USABLE).await?;
    if found.stream_status != StreamStatus::Active {
        return Err(ProvisionError::InTransition {
            what: format!("the stream {name} is being changed"),
        });
    }
    set_retention(aws, plan, stream, hours).await?;
    Ok(true)
}

async fn set_retention(
    aws: &Aws,
    plan: &ProvisionPlan,
    stream: &mut UsableStream,
    hours: u32,
) -> ProvisionResult<()> {
    let name = &plan.transport.stream.name;
    let in_call = i32::try_from(hours).unwrap_or(i32::MAX);
    let client = &aws.kinesis_admin;
    if stream.retention_hours < hours {
        let answer = client
            .increase_stream_retention_period()
            .stream_name(name)
            .retention_period_hours(in_call)
            .send()
            .await;
        answer.step("kinesis:IncreaseStreamRetentionPeriod", || changing(name))?;
    } else {
        let answer = client
            .decrease_stream_retention_period()
            .stream_name(name)
            .retention_period_hours(in_call)
            .send()
            .await;
        answer.step("kinesis:DecreaseStreamRetentionPeriod", || changing(name))?;
    }
    stream.retention_hours = hours;
    Ok(())
}

/// Encrypts the stream; false where the service has no encryption.
async fn encrypt(aws: &Aws, plan: &ProvisionPlan) -> ProvisionResult<bool> {
    let name = &plan.transport.stream.name;
    await_planned(aws, plan, &UNCHANGING).await?;
    let answer = aws
        .kinesis_admin
        .start_stream_encryption()
        .stream_name(name)
        .encryption_type(EncryptionType::Kms)
        .key_id(KEY)
        .send()
        .await;
    match answer.map_err(|error| ServiceError::from_sdk(&error)) {
        // An emulator; `validate --live` says that the stream is not encrypted.
        Err(error) if error.is_unsupported() => {
            warn!(stream = name, %error, "The stream could not be encrypted.");
            Ok(false)
        }
        answer => answer
            .map(|_| true)
            .step("kinesis:StartStreamEncryption", || changing(name)),
    }
}

/// Splits or merges shards; false when their number is as planned or cannot be changed now.
async fn reshard(aws: &Aws, plan: &ProvisionPlan) -> ProvisionResult<bool> {
    let stream = &plan.transport.stream;
    let shards = i32::try_from(stream.shards).unwrap_or(i32::MAX);
    let wait_for: &[StreamStatus] = match plan.waits {
        true => &UNCHANGING,
        false => &USABLE,
    };
    let mut changed = false;
    loop {
        let found = await_planned(aws, plan, wait_for).await?;
        let open = found.open_shard_count;
        if open == shards || found.stream_status != StreamStatus::Active {
            return Ok(changed);
        }
        let answer = aws
            .kinesis_admin
            .update_shard_count()
            .stream_name(&stream.name)
            .target_shard_count(next_shard_count(open, shards))
            .scaling_type(ScalingType::UniformScaling)
            .send()
            .await;
        match answer.map_err(|error| ServiceError::from_sdk(&error)) {
            // AWS changes a stream's shards a few times a day only; until then it can be used as it is.
            Err(error) if error.is_throttling() && !plan.waits => {
                warn!(stream = stream.name, %error, "The stream's shards could not be changed; trying again later.");
                return Ok(changed);
            }
            answer => answer.step("kinesis:UpdateShardCount", || {
                format!(
                    "changing the stream {} from {open} to {shards} shards",
                    stream.name
                )
            })?,
        };
        changed = true;
        if !plan.waits {
            return Ok(changed);
        }
        let found = await_planned(aws, plan, wait_for).await?;
        // It takes a moment until this shows; then the next run continues.
        if found.open_shard_count == open {
            return Ok(changed);
        }
    }
}

/// A call doubles or halves the count at most.
fn next_shard_count(open: i32, planned: i32) -> i32 {
    planned.clamp(open.div_euclid(2) + open % 2, open.saturating_mul(2))
}

/// A stream that was found, as callers need it.
pub(super) fn usable(found: StreamDescriptionSummary) -> UsableStream {
    UsableStream {
        retention_hours: u32::try_from(found.retention_period_hours).unwrap_or(0),
        arn: found.stream_arn,
        not_extended: None,
    }
}

/// Waits until the plan's stream is in one of these states.
async fn await_planned(
    aws: &Aws,
    plan: &ProvisionPlan,
    states: &[StreamStatus],
) -> ProvisionResult<StreamDescriptionSummary> {
    let patience = match plan.waits {
        true => PATIENCE,
        false => SHORT_PATIENCE,
    };
    await_status(aws, &plan.transport.stream.name, states, patience).await
}

/// Waits until the stream is in one of these states.
pub(super) async fn await_status(
    aws: &Aws,
    name: &str,
    states: &[StreamStatus],
    patience: Duration,
) -> ProvisionResult<StreamDescriptionSummary> {
    let until = Instant::now() + patience;
    loop {
        let found = find(aws, name).await?;
        let found = found.filter(|found| found.stream_status != StreamStatus::Deleting);
        let Some(found) = found else {
            return Err(ProvisionError::InTransition {
                what: format!("the stream {name} is being deleted or just was"),
            });
        };
        if states.contains(&found.stream_status) {
            return Ok(found);
        }
        if Instant::now() >= until {
            return Err(ProvisionError::InTransition {
                what: format!("the stream {name} is still {}", found.stream_status),
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// `None` when there is no such stream.
pub(super) async fn find(
    aws: &Aws,
    name: &str,
) -> ProvisionResult<Option<StreamDescriptionSummary>> {
    let answer = aws
        .kinesis_admin
        .describe_stream_summary()
        .stream_name(name)
        .send()
        .await;
    match answer.map_err(|error| ServiceError::from_sdk(&error)) {
        Ok(answer) => Ok(answer.stream_description_summary),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error).step("kinesis:DescribeStreamSummary", || {
            format!(
                "looking for the stream {name} at {}",
                aws.describe_endpoint()
            )
        }),
    }
}

pub(super) async fn tags(aws: &Aws, name: &str) -> ProvisionResult<BTreeMap<String, String>> {
    let answer = aws
        .kinesis_admin
        .list_tags_for_stream()
        .stream_name(name)
        .send()
        .await;
    let answer = answer.step("kinesis:ListTagsForStream", || {
        format!("reading the tags of the stream {name}")
    })?;
    let tags = answer.tags.into_iter();
    Ok(tags
        .map(|tag| (tag.key, tag.value.unwrap_or_default()))
        .collect())
}

pub(super) async fn delete(aws: &Aws, plan: &ProvisionPlan) -> ProvisionResult<ProvisionOutcome> {
    let name = &plan.transport.stream.name;
    let found = find(aws, name).await?;
    if found.is_none_or(|found| found.stream_status == StreamStatus::Deleting) {
        return Ok(ProvisionOutcome::Absent);
    }
    if !plan.owns(&tags(aws, name).await?) {
        return Ok(ProvisionOutcome::NotOwned);
    }
    let answer = aws
        .kinesis_admin
        .delete_stream()
        .stream_name(name)
        // Else AWS keeps a stream that has a registered consumer.
        .enforce_consumer_deletion(true)
        .send()
        .await;
    match answer.map_err(|error| ServiceError::from_sdk(&error)) {
        // The answer to a first attempt was lost.
        Err(error) if error.is_absent() => Ok(ProvisionOutcome::Deleted),
        answer => answer
            .map(|_| ProvisionOutcome::Deleted)
            .step("kinesis:DeleteStream", || {
                format!("deleting the stream {name}")
            }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_reached_by_doubling_and_halving() {
        let path = |mut open: i32, planned| {
            let mut steps = Vec::new();
            while open != planned {
                open = next_shard_count(open, planned);
                steps.push(open);
            }
            steps
        };
        assert_eq!(path(2, 9), [4, 8, 9]);
        assert_eq!(path(9, 2), [5, 3, 2]);
        assert_eq!(path(1, 2), [2]);
        assert!(path(4, 4).is_empty());
    }
}
