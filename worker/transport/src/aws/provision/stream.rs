//! The stream.

use aws_sdk_kinesis::types::{EncryptionType, ScalingType, StreamDescriptionSummary, StreamStatus};
use tokio::time::{Duration, Instant};
use tracing::warn;

use super::{Done, Outcome, Wanted};
use crate::aws::Aws;
use crate::aws::service_error::{ServiceError, transport_error};
use crate::{TransportError, TransportResult};

/// AWS's own key for streams.
const KEY: &str = "alias/aws/kinesis";
/// Making or resharding takes AWS about half a minute, many shards longer.
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub(super) async fn make(aws: &Aws, wanted: &Wanted) -> TransportResult<Done> {
    let name = &wanted.stream.name;
    let what = format!("stream {name}");
    let outcome = match find(aws, name).await? {
        None => {
            create(aws, wanted).await?;
            adjust(aws, wanted).await?;
            Outcome::Made
        }
        Some(_) if !is_ours(aws, wanted).await? => Outcome::Foreign,
        Some(_) => {
            let changed = adjust(aws, wanted).await?;
            if changed.is_empty() {
                Outcome::Kept
            } else {
                Outcome::Changed(changed)
            }
        }
    };
    Ok(Done { what, outcome })
}

async fn create(aws: &Aws, wanted: &Wanted) -> TransportResult<()> {
    let name = &wanted.stream.name;
    let shards = i32::try_from(wanted.stream.shards).unwrap_or(i32::MAX);
    let mut request = aws
        .kinesis_admin
        .create_stream()
        .stream_name(name)
        .shard_count(shards);
    for (key, value) in wanted
        .tags
        .iter()
        .chain([(&wanted.owner.0, &wanted.owner.1)])
    {
        request = request.tags(key, value);
    }
    request
        .send()
        .await
        .map_err(|error| transport_error(format!("making the stream {name}"), &error))?;
    settled(aws, name).await?;
    // Emulators take no tags with CreateStream; without the tag `--delete` would find nothing of ours.
    if !is_ours(aws, wanted).await? {
        let mut request = aws.kinesis_admin.add_tags_to_stream().stream_name(name);
        for (key, value) in wanted
            .tags
            .iter()
            .chain([(&wanted.owner.0, &wanted.owner.1)])
        {
            request = request.tags(key, value);
        }
        request
            .send()
            .await
            .map_err(|error| transport_error(format!("tagging the stream {name}"), &error))?;
    }
    Ok(())
}

/// Brings a stream of ours to what is wanted; says what was changed.
async fn adjust(aws: &Aws, wanted: &Wanted) -> TransportResult<Vec<String>> {
    let (name, mut changed) = (&wanted.stream.name, Vec::new());
    let there = settled(aws, name).await?;
    let hours = i32::try_from(wanted.stream.retention_hours).unwrap_or(i32::MAX);
    let step = || format!("changing the stream {name}");
    if there.retention_period_hours != hours {
        let client = &aws.kinesis_admin;
        if there.retention_period_hours < hours {
            let request = client
                .increase_stream_retention_period()
                .stream_name(name)
                .retention_period_hours(hours);
            request
                .send()
                .await
                .map_err(|error| transport_error(step(), &error))?;
        } else {
            let request = client
                .decrease_stream_retention_period()
                .stream_name(name)
                .retention_period_hours(hours);
            request
                .send()
                .await
                .map_err(|error| transport_error(step(), &error))?;
        }
        changed.push("retention".into());
        settled(aws, name).await?;
    }
    let shards = i32::try_from(wanted.stream.shards).unwrap_or(i32::MAX);
    let mut open = there.open_shard_count;
    while open != shards {
        let request = aws
            .kinesis_admin
            .update_shard_count()
            .stream_name(name)
            .target_shard_count(next_shard_count(open, shards));
        let request = request.scaling_type(ScalingType::UniformScaling);
        request.send().await.map_err(|error| {
            transport_error(
                format!("changing the stream {name} from {open} to {shards} shards"),
                &error,
            )
        })?;
        if open == there.open_shard_count {
            changed.push("shards".into());
        }
        let before = open;
        open = settled(aws, name).await?.open_shard_count;
        // It takes its time to say so; then the next `setup` goes on.
        if open == before {
            break;
        }
    }
    if wanted.stream.encrypted && there.encryption_type != Some(EncryptionType::Kms) {
        let request = aws
            .kinesis_admin
            .start_stream_encryption()
            .stream_name(name)
            .encryption_type(EncryptionType::Kms)
            .key_id(KEY);
        match request.send().await {
            Ok(_) => {
                changed.push("encryption".into());
                settled(aws, name).await?;
            }
            // Emulators may not have it; `validate --live` says that the stream is not encrypted.
            Err(error) => {
                warn!(stream = name, error = %ServiceError::from_sdk(&error), "The stream could not be encrypted.")
            }
        }
    }
    Ok(changed)
}

/// A call doubles or halves the count at most.
fn next_shard_count(open: i32, wanted: i32) -> i32 {
    wanted.clamp(open.div_euclid(2) + open % 2, open.saturating_mul(2))
}

/// Waits until the stream is active.
async fn settled(aws: &Aws, name: &str) -> TransportResult<StreamDescriptionSummary> {
    let until = Instant::now() + PATIENCE;
    loop {
        let found = find(aws, name).await?;
        if let Some(summary) = found.filter(|summary| summary.stream_status == StreamStatus::Active)
        {
            return Ok(summary);
        }
        if Instant::now() >= until {
            return Err(TransportError::unavailable(
                format!("waiting for the stream {name}"),
                "it is not active after five minutes",
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// `None` when there is no such stream.
pub(super) async fn find(
    aws: &Aws,
    name: &str,
) -> TransportResult<Option<StreamDescriptionSummary>> {
    match aws
        .kinesis_admin
        .describe_stream_summary()
        .stream_name(name)
        .send()
        .await
    {
        Ok(answer) => Ok(answer.stream_description_summary),
        Err(error) => {
            let said = ServiceError::from_sdk(&error);
            if said.is_absent() {
                Ok(None)
            } else {
                Err(said.into_transport_error(format!(
                    "looking for the stream {name} at {}",
                    aws.describe_endpoint()
                )))
            }
        }
    }
}

async fn is_ours(aws: &Aws, wanted: &Wanted) -> TransportResult<bool> {
    let name = &wanted.stream.name;
    let answer = aws
        .kinesis_admin
        .list_tags_for_stream()
        .stream_name(name)
        .send()
        .await;
    let tags = answer
        .map_err(|error| transport_error(format!("reading the tags of the stream {name}"), &error))?
        .tags;
    Ok(tags
        .iter()
        .any(|tag| tag.key == wanted.owner.0 && tag.value.as_ref() == Some(&wanted.owner.1)))
}

pub(super) async fn remove(aws: &Aws, wanted: &Wanted) -> TransportResult<Done> {
    let name = &wanted.stream.name;
    let what = format!("stream {name}");
    if find(aws, name).await?.is_none() {
        return Ok(Done {
            what,
            outcome: Outcome::Absent,
        });
    }
    if !is_ours(aws, wanted).await? {
        return Ok(Done {
            what,
            outcome: Outcome::Foreign,
        });
    }
    let answer = aws
        .kinesis_admin
        .delete_stream()
        .stream_name(name)
        .send()
        .await;
    answer.map_err(|error| transport_error(format!("removing the stream {name}"), &error))?;
    Ok(Done {
        what,
        outcome: Outcome::Removed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_reached_by_doubling_and_halving() {
        let way = |mut open: i32, wanted| {
            let mut steps = Vec::new();
            while open != wanted {
                open = next_shard_count(open, wanted);
                steps.push(open);
            }
            steps
        };
        assert_eq!(way(2, 9), [4, 8, 9]);
        assert_eq!(way(9, 2), [5, 3, 2]);
        assert_eq!(way(1, 2), [2]);
        assert!(way(4, 4).is_empty());
    }
}
