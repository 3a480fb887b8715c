//! Queues and their dead letters, at SQS.

use std::collections::HashMap;
use std::sync::PoisonError;

use aws_sdk_sqs::error::ProvideErrorMetadata;
use aws_sdk_sqs::types::QueueAttributeName as Attribute;
use streampress_crds::pipeline::TransportPolicy;
use streampress_crds::settings::QueueSettings;

use super::words::{Step, is_one_of, missing, odd};
use super::{Clients, tags};
use crate::status::Trouble;
use crate::transport::{Depth, OWNER_TAG, PIPELINE_TAG, Plan};

/// SQS keeps messages so long at most: two weeks.
const RETENTION_SECONDS: &str = "1209600";

impl Clients {
    /// A queue and its dead letters; gives the queue's address.
    pub(super) async fn queue(
        &self,
        plan: &Plan,
        queue: &QueueSettings,
    ) -> Result<String, Trouble> {
        let dead_letters = self
            .one_queue(plan, &queue.dead_letter_name, HashMap::new())
            .await?;
        let dead_letters_arn = self.arn(&queue.dead_letter_name, &dead_letters).await?;
        let redrive = serde_json::json!({"deadLetterTargetArn": dead_letters_arn, "maxReceiveCount": queue.max_receive_count}).to_string();
        let settings = HashMap::from([
            (
                Attribute::VisibilityTimeout,
                queue.visibility_timeout_seconds.to_string(),
            ),
            (Attribute::RedrivePolicy, redrive),
        ]);
        self.one_queue(plan, &queue.name, settings).await
    }

    async fn one_queue(
        &self,
        plan: &Plan,
        name: &str,
        settings: HashMap<Attribute, String>,
    ) -> Result<String, Trouble> {
        if let Some(url) = self.find_queue(name).await? {
            if plan.policy == TransportPolicy::Create {
                self.owned(plan, name, self.queue_tags(name, &url).await?)?;
                self.align(name, &url, settings).await?;
            }
            return Ok(url);
        }
        if plan.policy == TransportPolicy::Adopt {
            return Err(missing(name));
        }
        let fixed = [
            (Attribute::FifoQueue, "true".to_owned()),
            (Attribute::DeduplicationScope, "messageGroup".to_owned()),
            (
                Attribute::FifoThroughputLimit,
                "perMessageGroupId".to_owned(),
            ),
            (
                Attribute::MessageRetentionPeriod,
                RETENTION_SECONDS.to_owned(),
            ),
        ];
        let attributes = settings.into_iter().chain(fixed).collect();
        let made = self
            .sqs
            .create_queue()
            .queue_name(name)
            .set_attributes(Some(attributes))
            .set_tags(Some(tags(plan)))
            .send()
            .await;
        let made = made.step(|| format!("making the queue {name}"))?;
        let url = made
            .queue_url
            .ok_or_else(|| odd(&format!("the answer about the queue {name} has no address")))?;
        // SQS gives an existing queue with the same settings for a new one, and leaves its tags.
        self.owned(plan, name, self.queue_tags(name, &url).await?)?;
        Ok(url)
    }

    /// Puts settings that differ right.
    async fn align(
        &self,
        name: &str,
        url: &str,
        settings: HashMap<Attribute, String>,
    ) -> Result<(), Trouble> {
        let there = self
            .sqs
            .get_queue_attributes()
            .queue_url(url)
            .attribute_names(Attribute::All)
            .send()
            .await;
        let there = there.step(|| format!("reading the queue {name}"))?;
        let there = there.attributes.unwrap_or_default();
        let same = |key: &Attribute, wanted: &String| {
            let json = |text: &String| serde_json::from_str::<serde_json::Value>(text).ok();
            there.get(key).is_some_and(|value| {
                value == wanted
                    || (*key == Attribute::RedrivePolicy && same_redrive(json(value), json(wanted)))
            })
        };
        let differing: HashMap<_, _> = settings
            .into_iter()
            .filter(|(key, wanted)| !same(key, wanted))
            .collect();
        if differing.is_empty() {
            return Ok(());
        }
        let set = self
            .sqs
            .set_queue_attributes()
            .queue_url(url)
            .set_attributes(Some(differing))
            .send()
            .await;
        set.map(drop)
            .step(|| format!("setting up the queue {name}"))
    }

    pub(super) async fn find_queue(&self, name: &str) -> Result<Option<String>, Trouble> {
        match self.sqs.get_queue_url().queue_name(name).send().await {
            Ok(found) => Ok(found.queue_url),
            Err(error)
                if is_one_of(
                    error.code(),
                    &[
                        "AWS.SimpleQueueService.NonExistentQueue",
                        "QueueDoesNotExist",
                    ],
                ) =>
            {
                Ok(None)
            }
            failed => failed
                .map(|_| None)
                .step(|| format!("looking for the queue {name}")),
        }
    }

    async fn arn(&self, name: &str, url: &str) -> Result<String, Trouble> {
        let there = self
            .sqs
            .get_queue_attributes()
            .queue_url(url)
            .attribute_names(Attribute::QueueArn)
            .send()
            .await;
        let there = there.step(|| format!("reading the queue {name}"))?;
        let arn = there
            .attributes
            .and_then(|mut attributes| attributes.remove(&Attribute::QueueArn));
        arn.ok_or_else(|| odd(&format!("the answer about the queue {name} has no ARN")))
    }

    async fn queue_tags(&self, name: &str, url: &str) -> Result<HashMap<String, String>, Trouble> {
        let there = self.sqs.list_queue_tags().queue_url(url).send().await;
        let there = there.step(|| format!("reading the tags of the queue {name}"))?;
        Ok(there.tags.unwrap_or_default())
    }

    /// Under `Create` something of that name must be this pipeline's.
    pub(super) fn owned(
        &self,
        plan: &Plan,
        name: &str,
        tags: HashMap<String, String>,
    ) -> Result<(), Trouble> {
        if tags.get(OWNER_TAG) == Some(&plan.uid) {
            return Ok(());
        }
        let of = tags
            .get(PIPELINE_TAG)
            .map(|pipeline| format!(" (it belongs to {pipeline})"))
            .unwrap_or_default();
        Err(Trouble {
            reason: "TransportNotOurs".into(),
            message: format!(
                "{name} is there and does not carry this pipeline's tag{of}: choose another name, or set transport.policy to Adopt in a new pipeline."
            ),
            lasting: true,
        })
    }

    /// Looked at again and again: the queue's address is remembered for as long as it holds.
    pub(super) async fn depth(&self, name: &str) -> Option<Depth> {
        let known = self.addresses().get(name).cloned();
        let url = match known {
            Some(url) => url,
            None => self.find_queue(name).await.ok()??,
        };
        let depth = self.depth_of(&url).await;
        match depth {
            Some(_) => self.addresses().insert(name.to_owned(), url),
            None => self.addresses().remove(name),
        };
        depth
    }

    fn addresses(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn depth_of(&self, url: &str) -> Option<Depth> {
        let names = [
            Attribute::ApproximateNumberOfMessages,
            Attribute::ApproximateNumberOfMessagesNotVisible,
            Attribute::ApproximateNumberOfMessagesDelayed,
        ];
        let asked = self
            .sqs
            .get_queue_attributes()
            .queue_url(url)
            .set_attribute_names(Some(names.to_vec()))
            .send()
            .await
            .ok()?;
        let there = asked.attributes?;
        let [visible, in_flight, delayed] =
            names.map(|name| there.get(&name).and_then(|count| count.parse().ok()));
        Some(Depth {
            visible: visible?,
            in_flight: in_flight?,
            delayed: delayed?,
        })
    }

    pub(super) async fn remove_queue(
        &self,
        plan: &Plan,
        name: &str,
    ) -> Result<Option<String>, Trouble> {
        let Some(url) = self.find_queue(name).await? else {
            return Ok(None);
        };
        if self.queue_tags(name, &url).await?.get(OWNER_TAG) != Some(&plan.uid) {
            return Ok(Some(format!("{name} does not carry this pipeline's tag")));
        }
        self.addresses().remove(name);
        let gone = self.sqs.delete_queue().queue_url(url).send().await;
        gone.step(|| format!("deleting the queue {name}"))?;
        Ok(None)
    }
}

/// SQS writes the count as text or as a number, as it pleases.
fn same_redrive(there: Option<serde_json::Value>, wanted: Option<serde_json::Value>) -> bool {
    let parts = |policy: &serde_json::Value| {
        let count = &policy["maxReceiveCount"];
        let count = count
            .as_str()
            .map_or_else(|| count.to_string(), str::to_owned);
        (
            policy["deadLetterTargetArn"].as_str().map(str::to_owned),
            count,
        )
    };
    there
        .zip(wanted)
        .is_some_and(|(there, wanted)| parts(&there) == parts(&wanted))
}
