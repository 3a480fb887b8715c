//! The stream, at Kinesis.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_kinesis::error::ProvideErrorMetadata;
use aws_sdk_kinesis::types::{EncryptionType, StreamDescriptionSummary, StreamStatus};
use streampress_crds::settings::StreamSettings;

use super::words::{Step, is_one_of, passing};
use super::{Clients, tags};
use crate::transport::problem::Problem;
use crate::transport::{OWNER_TAG, Plan, rules};

/// The key that Kinesis keeps for everybody.
const STREAM_KEY: &str = "alias/aws/kinesis";

impl Clients {
    /// Asks for the stream where it is not there yet.
    pub(super) async fn begin_stream(
        &self,
        plan: &Plan,
        stream: &StreamSettings,
    ) -> Result<(), Problem> {
        if self.find_stream(&stream.name).await?.is_some() {
            return Ok(());
        }
        let shards = i32::try_from(stream.shards).unwrap_or(i32::MAX);
        let made = self
            .kinesis
            .create_stream()
            .stream_name(&stream.name)
            .shard_count(shards)
            .set_tags(Some(tags(plan)))
            .send()
            .await;
        match made {
            Ok(_) => {}
            // Somebody was faster; whose it is shows its tag, which is not ours to give.
            Err(error) if is_one_of(error.code(), &["ResourceInUseException"]) => return Ok(()),
            failed => drop(failed.step("kinesis:CreateStream", || {
                format!("making the stream {}", stream.name)
            })?),
        }
        // Stand-ins of older make take no tags with the stream.
        let tagged = self
            .kinesis
            .add_tags_to_stream()
            .stream_name(&stream.name)
            .set_tags(Some(tags(plan)))
            .send()
            .await;
        match tagged {
            // Coming up, as at AWS, which took them with the stream.
            Err(error) if is_one_of(error.code(), &["ResourceInUseException"]) => Ok(()),
            tagged => tagged.map(drop).step("kinesis:AddTagsToStream", || {
                format!("tagging the stream {}", stream.name)
            }),
        }
    }

    /// Waits until the stream is up, then puts retention and encryption right; gives its ARN.
    pub(super) async fn stream(
        &self,
        plan: &Plan,
        stream: &StreamSettings,
    ) -> Result<String, Problem> {
        let name = &stream.name;
        let usable = [StreamStatus::Active, StreamStatus::Updating];
        let found = self.stream_once(name, &usable).await?;
        self.owned(plan, name, self.stream_tags(name).await?)?;
        let hours = i32::try_from(stream.retention_hours).unwrap_or(i32::MAX);
        let setting_up = || format!("setting up the stream {name}");
        let hours_now = found.retention_period_hours();
        if hours_now != hours {
            self.stream_once(name, &[StreamStatus::Active]).await?;
        }
        if hours_now < hours {
            let longer = self
                .kinesis
                .increase_stream_retention_period()
                .stream_name(name)
                .retention_period_hours(hours)
                .send()
                .await;
            longer.step("kinesis:IncreaseStreamRetentionPeriod", setting_up)?;
        } else if hours_now > hours {
            let shorter = self
                .kinesis
                .decrease_stream_retention_period()
                .stream_name(name)
                .retention_period_hours(hours)
                .send()
                .await;
            shorter.step("kinesis:DecreaseStreamRetentionPeriod", setting_up)?;
        }
        // Stand-ins keep no keys.
        if plan.endpoint.is_none()
            && found
                .encryption_type()
                .is_none_or(|kind| *kind != EncryptionType::Kms)
        {
            self.stream_once(name, &[StreamStatus::Active]).await?;
            let sealed = self
                .kinesis
                .start_stream_encryption()
                .stream_name(name)
                .encryption_type(EncryptionType::Kms)
                .key_id(STREAM_KEY)
                .send()
                .await;
            sealed.step("kinesis:StartStreamEncryption", setting_up)?;
        }
        Ok(found.stream_arn().to_owned())
    }

    /// Waits until the stream is in one of these states. It can be used while it changes, but takes one change at a time.
    pub(super) async fn stream_once(
        &self,
        name: &str,
        states: &[StreamStatus],
    ) -> Result<StreamDescriptionSummary, Problem> {
        loop {
            let found = self.find_stream(name).await?;
            let found = found.filter(|found| *found.stream_status() != StreamStatus::Deleting);
            let Some(found) = found else {
                return Err(passing(format!(
                    "The stream {name} is being deleted or just was; trying again."
                )));
            };
            if states.contains(found.stream_status()) {
                return Ok(found);
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    pub(super) async fn find_stream(
        &self,
        name: &str,
    ) -> Result<Option<StreamDescriptionSummary>, Problem> {
        match self
            .kinesis
            .describe_stream_summary()
            .stream_name(name)
            .send()
            .await
        {
            Ok(found) => Ok(found.stream_description_summary),
            Err(error) if is_one_of(error.code(), &["ResourceNotFoundException"]) => Ok(None),
            failed => failed
                .map(|_| None)
                .step("kinesis:DescribeStreamSummary", || {
                    format!("looking for the stream {name}")
                }),
        }
    }

    async fn stream_tags(&self, name: &str) -> Result<HashMap<String, String>, Problem> {
        let there = self
            .kinesis
            .list_tags_for_stream()
            .stream_name(name)
            .send()
            .await;
        let there = there.step("kinesis:ListTagsForStream", || {
            format!("reading the tags of the stream {name}")
        })?;
        Ok(there
            .tags()
            .iter()
            .map(|tag| {
                (
                    tag.key().to_owned(),
                    tag.value().unwrap_or_default().to_owned(),
                )
            })
            .collect())
    }

    pub(super) async fn remove_stream(
        &self,
        plan: &Plan,
        name: &str,
    ) -> Result<Option<String>, Problem> {
        let found = self.find_stream(name).await?;
        if found.is_none_or(|found| *found.stream_status() == StreamStatus::Deleting) {
            return Ok(None);
        }
        if self.stream_tags(name).await?.get(OWNER_TAG) != Some(&plan.uid) {
            return Ok(Some(rules::untagged(name)));
        }
        let gone = self
            .kinesis
            .delete_stream()
            .stream_name(name)
            .enforce_consumer_deletion(true)
            .send()
            .await;
        match gone {
            // The answer to a first try was lost.
            Err(error) if is_one_of(error.code(), &["ResourceNotFoundException"]) => Ok(None),
            gone => gone.map(|_| None).step("kinesis:DeleteStream", || {
                format!("deleting the stream {name}")
            }),
        }
    }
}
