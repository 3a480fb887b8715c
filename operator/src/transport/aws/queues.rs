//! Queues and their dead letters, at SQS.

use std::collections::HashMap;
use std::sync::PoisonError;

use aws_sdk_sqs::error::ProvideErrorMetadata;
use aws_sdk_sqs::types::QueueAttributeName as Attribute;
use streampress_crds::queue_check::RedrivePolicy;
use streampress_crds::settings::QueueSettings;

use super::words::{Step, is_one_of, odd, passing};
use super::{Clients, tags};
use crate::transport::problem::Problem;
use crate::transport::rules::{self, Attributes};
use crate::transport::{OWNER_TAG, PIPELINE_TAG, Plan};
use streampress_transport::Depth;

/// SQS keeps messages so long at most: two weeks.
const RETENTION_SECONDS: &str = "1209600";
/// What SQS calls it when there is no such queue.
const NO_QUEUE: &[&str] = &[
    "AWS.SimpleQueueService.NonExistentQueue",
    "QueueDoesNotExist",
];

impl Clients {
    /// A queue and its dead letters; gives the queue's address.
    pub(super) async fn queue(
        &self,
        plan: &Plan,
        queue: &QueueSettings,
    ) -> Result<String, Problem> {
        let dead_letters = self
            .one_queue(plan, &queue.dead_letter_name, HashMap::new())
            .await?;
        let dead_letters_arn = self.arn(&queue.dead_letter_name, &dead_letters).await?;
        let redrive = RedrivePolicy {
            target: dead_letters_arn,
            max_receive_count: queue.max_receive_count,
        };
        let settings = HashMap::from([
            (
                Attribute::VisibilityTimeout,
                queue.visibility_timeout_seconds.to_string(),
            ),
            (Attribute::RedrivePolicy, redrive.to_json()),
        ]);
        self.one_queue(plan, &queue.name, settings).await
    }

    async fn one_queue(
        &self,
        plan: &Plan,
        name: &str,
        settings: HashMap<Attribute, String>,
    ) -> Result<String, Problem> {
        if let Some(url) = self.find_queue(name).await? {
            self.owned_queue(plan, name, &url).await?;
            self.align(name, &url, settings).await?;
            return Ok(url);
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
        let made = made.step("sqs:CreateQueue", || format!("making the queue {name}"))?;
        let url = made
            .queue_url
            .ok_or_else(|| odd(&format!("the answer about the queue {name} has no address")))?;
        // SQS gives an existing queue with the same settings for a new one, and leaves its tags.
        self.owned_queue(plan, name, &url).await?;
        Ok(url)
    }

    /// Puts settings that differ right.
    async fn align(
        &self,
        name: &str,
        url: &str,
        settings: HashMap<Attribute, String>,
    ) -> Result<(), Problem> {
        let there = self.attributes(name, url, Attribute::All).await?;
        // SQS writes a redrive policy's count as text or as a number, as it pleases.
        let same = |key: &Attribute, wanted: &String| {
            there.get(key.as_str()).is_some_and(|value| {
                value == wanted
                    || (*key == Attribute::RedrivePolicy
                        && RedrivePolicy::parse(value) == RedrivePolicy::parse(wanted))
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
        set.map(drop).step("sqs:SetQueueAttributes", || {
            format!("setting up the queue {name}")
        })
    }

    /// A queue's address and attributes, where it is there.
    pub(super) async fn described(
        &self,
        name: &str,
    ) -> Result<Option<(String, Attributes)>, Problem> {
        let Some(url) = self.find_queue(name).await? else {
            return Ok(None);
        };
        let attributes = self.attributes(name, &url, Attribute::All).await?;
        Ok(Some((url, attributes)))
    }

    async fn attributes(
        &self,
        name: &str,
        url: &str,
        which: Attribute,
    ) -> Result<Attributes, Problem> {
        let there = self
            .sqs
            .get_queue_attributes()
            .queue_url(url)
            .attribute_names(which)
            .send()
            .await;
        let there = there.step("sqs:GetQueueAttributes", || {
            format!("reading the queue {name}")
        })?;
        let there = there.attributes.unwrap_or_default();
        Ok(there
            .into_iter()
            .map(|(key, value)| (key.as_str().to_owned(), value))
            .collect())
    }

    pub(super) async fn find_queue(&self, name: &str) -> Result<Option<String>, Problem> {
        match self.sqs.get_queue_url().queue_name(name).send().await {
            Ok(found) => Ok(found.queue_url),
            Err(error) if is_one_of(error.code(), NO_QUEUE) => Ok(None),
            failed => failed.map(|_| None).step("sqs:GetQueueUrl", || {
                format!("looking for the queue {name}")
            }),
        }
    }

    async fn arn(&self, name: &str, url: &str) -> Result<String, Problem> {
        let arn = self
            .attributes(name, url, Attribute::QueueArn)
            .await?
            .remove("QueueArn");
        arn.ok_or_else(|| odd(&format!("the answer about the queue {name} has no ARN")))
    }

    /// The tags of a queue; nothing when there is no such queue (any more), whatever its address says.
    async fn queue_tags(
        &self,
        name: &str,
        url: &str,
    ) -> Result<Option<HashMap<String, String>>, Problem> {
        match self.sqs.list_queue_tags().queue_url(url).send().await {
            Ok(there) => Ok(Some(there.tags.unwrap_or_default())),
            Err(error) if is_one_of(error.code(), NO_QUEUE) => Ok(None),
            failed => failed.map(|_| None).step("sqs:ListQueueTags", || {
                format!("reading the tags of the queue {name}")
            }),
        }
    }

    async fn owned_queue(&self, plan: &Plan, name: &str, url: &str) -> Result<(), Problem> {
        let tags = self.queue_tags(name, url).await?;
        let coming_or_going = || {
            passing(format!(
                "The queue {name} is being made or deleted; trying again."
            ))
        };
        self.owned(plan, name, tags.ok_or_else(coming_or_going)?)
    }

    /// Under `Create` something of that name must be this pipeline's.
    pub(super) fn owned(
        &self,
        plan: &Plan,
        name: &str,
        tags: HashMap<String, String>,
    ) -> Result<(), Problem> {
        if tags.get(OWNER_TAG) == Some(&plan.uid) {
            return Ok(());
        }
        let pipeline = tags.get(PIPELINE_TAG).map(String::as_str);
        Err(rules::not_ours(name, pipeline))
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
    ) -> Result<Option<String>, Problem> {
        let Some(url) = self.find_queue(name).await? else {
            return Ok(None);
        };
        let Some(tags) = self.queue_tags(name, &url).await? else {
            return Ok(None);
        };
        if tags.get(OWNER_TAG) != Some(&plan.uid) {
            return Ok(Some(rules::untagged(name)));
        }
        self.addresses().remove(name);
        match self.sqs.delete_queue().queue_url(&url).send().await {
            // The answer to a first try was lost.
            Err(error) if is_one_of(error.code(), NO_QUEUE) => Ok(None),
            gone => gone
                .map(|_| None)
                .step("sqs:DeleteQueue", || format!("deleting the queue {name}")),
        }
    }
}
