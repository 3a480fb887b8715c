//! The stream, at Kinesis.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_kinesis::error::ProvideErrorMetadata;
use aws_sdk_kinesis::types::{EncryptionType, StreamStatus};
use streampress_crds::pipeline::TransportPolicy;
use streampress_crds::settings::StreamSettings;

use super::words::{Step, is_one_of, missing};
use super::{Clients, tags};
use crate::status::Trouble;
use crate::transport::{OWNER_TAG, Plan};

/// The key that Kinesis keeps for everybody.
const STREAM_KEY: &str = "alias/aws/kinesis";

impl Clients {
    /// Asks for the stream where it is not there yet.
    pub(super) async fn begin_stream(
        &self,
        plan: &Plan,
        stream: &StreamSettings,
    ) -> Result<(), Trouble> {
        if plan.policy == TransportPolicy::Adopt || self.find_stream(&stream.name).await?.is_some()
        {
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
            failed => drop(failed.step(|| format!("making the stream {}", stream.name))?),
        }
        // Stand-ins of older make take no tags with the stream.
        let tagged = self
            .kinesis
            .add_tags_to_stream()
            .stream_name(&stream.name)
            .set_tags(Some(tags(plan)))
            .send()
            .await;
        tagged
            .map(drop)
            .step(|| format!("tagging the stream {}", stream.name))
    }

    /// Waits until the stream is up, then puts retention and encryption right; gives its ARN.
    pub(super) async fn stream(
        &self,
        plan: &Plan,
        stream: &StreamSettings,
    ) -> Result<String, Trouble> {
        let name = &stream.name;
        let found = loop {
            let found = self.find_stream(name).await?.ok_or_else(|| missing(name))?;
            if *found.stream_status() == StreamStatus::Active {
                break found;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        if plan.policy == TransportPolicy::Create {
            self.owned(plan, name, self.stream_tags(name).await?)?;
            let hours = i32::try_from(stream.retention_hours).unwrap_or(i32::MAX);
            let setting_up = || format!("setting up the stream {name}");
            if found.retention_period_hours() < hours {
                let longer = self
                    .kinesis
                    .increase_stream_retention_period()
                    .stream_name(name)
                    .retention_period_hours(hours)
                    .send()
                    .await;
                longer.step(setting_up)?;
            } else if found.retention_period_hours() > hours {
                let shorter = self
                    .kinesis
                    .decrease_stream_retention_period()
                    .stream_name(name)
                    .retention_period_hours(hours)
                    .send()
                    .await;
                shorter.step(setting_up)?;
            }
            // Stand-ins keep no keys.
            if plan.endpoint.is_none()
                && found
                    .encryption_type()
                    .is_none_or(|kind| *kind != EncryptionType::Kms)
            {
                let sealed = self
                    .kinesis
                    .start_stream_encryption()
                    .stream_name(name)
                    .encryption_type(EncryptionType::Kms)
                    .key_id(STREAM_KEY)
                    .send()
                    .await;
                sealed.step(setting_up)?;
            }
        }
        Ok(found.stream_arn().to_owned())
    }

    async fn find_stream(
        &self,
        name: &str,
    ) -> Result<Option<aws_sdk_kinesis::types::StreamDescriptionSummary>, Trouble> {
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
                .step(|| format!("looking for the stream {name}")),
        }
    }

    async fn stream_tags(&self, name: &str) -> Result<HashMap<String, String>, Trouble> {
        let there = self
            .kinesis
            .list_tags_for_stream()
            .stream_name(name)
            .send()
            .await;
        let there = there.step(|| format!("reading the tags of the stream {name}"))?;
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
    ) -> Result<Option<String>, Trouble> {
        if self.find_stream(name).await?.is_none() {
            return Ok(None);
        }
        if self.stream_tags(name).await?.get(OWNER_TAG) != Some(&plan.uid) {
            return Ok(Some(format!(
                "the stream {name} does not carry this pipeline's tag"
            )));
        }
        let gone = self
            .kinesis
            .delete_stream()
            .stream_name(name)
            .enforce_consumer_deletion(true)
            .send()
            .await;
        gone.step(|| format!("deleting the stream {name}"))?;
        Ok(None)
    }
}
