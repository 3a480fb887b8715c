//! Opening a queue: where it is, whether it can be used, and which queue is its dead-letter queue.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;
use parking_lot::Mutex;
use streampress_crds::queue_check::RedrivePolicy;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;

use super::batch::Changes;
use super::{SqsInner, SqsQueue};
use crate::aws::Aws;
use crate::aws::ServiceError;
use crate::{Depth, TransportError, TransportResult};

impl Aws {
    /// Opens a queue by name or URL. Each receive sets `visibility_timeout`, whatever the queue's default is.
    /// Its dead-letter queue is the one that its redrive policy names.
    pub async fn queue(
        &self,
        name_or_url: &str,
        visibility_timeout: Duration,
    ) -> TransportResult<SqsQueue> {
        let url = self.queue_url(name_or_url).await?;
        let attributes = self.queue_attributes(&url).await?;
        let name = name_of(&url).to_owned();
        if attributes
            .get("FifoQueue")
            .is_none_or(|fifo| fifo != "true")
        {
            return Err(TransportError::Invalid(format!(
                "{name} is not a FIFO queue; name one that ends in .fifo, or create one with 'streampress setup'"
            )));
        }
        let policy = attributes
            .get("RedrivePolicy")
            .and_then(|policy| RedrivePolicy::parse(policy));
        let dead = match &policy {
            None => {
                warn!(
                    queue = name,
                    "The queue has no redrive policy, so a message that cannot be processed is redelivered without end; give it a dead-letter queue, or run 'streampress setup'."
                );
                None
            }
            Some(policy) if !policy.target.starts_with("arn:") => {
                warn!(
                    queue = name,
                    target = policy.target,
                    "The redrive policy does not name a queue by its ARN, so no dead letter would ever arrive; run 'streampress setup'."
                );
                None
            }
            Some(policy) => {
                let target = policy.target.rsplit(':').next().unwrap_or(&policy.target);
                let dead_url = self.queue_url(target).await?;
                Some(Arc::new(self.queue_at(
                    dead_url,
                    policy.target.clone(),
                    visibility_timeout,
                    None,
                    None,
                    None,
                )))
            }
        };
        let arn = attributes.get("QueueArn").cloned().unwrap_or_default();
        Ok(self.queue_at(
            url,
            arn,
            visibility_timeout,
            policy.map(|policy| policy.max_receive_count),
            dead,
            Some(epoch_of(&attributes)),
        ))
    }

    fn queue_at(
        &self,
        url: String,
        arn: String,
        visibility_timeout: Duration,
        max_receive_count: Option<u32>,
        dead: Option<Arc<SqsQueue>>,
        epoch: Option<u64>,
    ) -> SqsQueue {
        let name = name_of(&url).to_owned();
        SqsQueue {
            inner: Arc::new(SqsInner {
                changes: Changes::new(self.sqs.clone(), url.clone(), name.clone()),
                aws: self.clone(),
                name,
                url,
                arn,
                epoch: Mutex::new(epoch.map(|epoch| (epoch, Instant::now()))),
                visibility_timeout,
                max_receive_count,
                dead,
                inbox: Mutex::default(),
                fault: Mutex::default(),
                arrived: Notify::new(),
                receivers: AtomicUsize::new(0),
                polling: AtomicUsize::new(0),
                draining: AtomicBool::new(false),
            }),
        }
    }

    async fn queue_url(&self, name_or_url: &str) -> TransportResult<String> {
        if name_or_url.contains("://") {
            return Ok(name_or_url.to_owned());
        }
        let step = || {
            format!(
                "looking for the queue {name_or_url} at {}",
                self.describe_endpoint()
            )
        };
        let found = self.find_queue(name_or_url).await;
        let found = found.map_err(|error| error.into_transport_error(step()))?;
        found.ok_or_else(|| {
            let error = ServiceError {
                code: "QueueDoesNotExist".into(),
                message: "there is no queue of this name".into(),
            };
            error.into_transport_error(step())
        })
    }

    async fn queue_attributes(&self, url: &str) -> TransportResult<BTreeMap<String, String>> {
        let attributes = self.attributes_of(url, &[QueueAttributeName::All]).await;
        attributes.map_err(|error| {
            error.into_transport_error(format!(
                "reading the attributes of {} at {}",
                name_of(url),
                self.describe_endpoint()
            ))
        })
    }

    /// The URL of the queue of this name; `None` when there is no such queue.
    pub(crate) async fn find_queue(&self, name: &str) -> Result<Option<String>, ServiceError> {
        let answer = self.sqs.get_queue_url().queue_name(name).send().await;
        match answer.map_err(|error| ServiceError::from_sdk(&error)) {
            Ok(answer) => Ok(answer.queue_url),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// These attributes of a queue, by SQS's names.
    pub(crate) async fn attributes_of(
        &self,
        url: &str,
        which: &[QueueAttributeName],
    ) -> Result<BTreeMap<String, String>, ServiceError> {
        let answer = self
            .sqs
            .get_queue_attributes()
            .queue_url(url)
            .set_attribute_names(Some(which.to_vec()))
            .send()
            .await
            .map_err(|error| ServiceError::from_sdk(&error))?;
        let attributes = answer.attributes.unwrap_or_default();
        Ok(attributes
            .into_iter()
            .map(|(key, value)| (key.as_str().to_owned(), value))
            .collect())
    }

    /// How many messages the queue at `url` holds. SQS counts approximately, and up to a minute late.
    pub async fn queue_depth(&self, url: &str) -> Result<Depth, ServiceError> {
        let counts = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ];
        let attributes = self.attributes_of(url, &counts).await?;
        let count = |name: &QueueAttributeName| -> Result<u64, ServiceError> {
            let text = attributes.get(name.as_str());
            text.and_then(|text| text.parse().ok())
                .ok_or_else(|| ServiceError::without_code(format!("{name} was not answered")))
        };
        Ok(Depth {
            visible: count(&counts[0])?,
            in_flight: count(&counts[1])?,
            delayed: count(&counts[2])?,
        })
    }
}

/// When a queue with these attributes was created, in seconds since 1970; 0 for one that does not tell.
pub(super) fn epoch_of(attributes: &BTreeMap<String, String>) -> u64 {
    let created = attributes.get("CreatedTimestamp");
    // SQS tells seconds; some emulators add a fraction.
    let seconds = created.and_then(|text| text.split('.').next()?.parse().ok());
    seconds.unwrap_or(0)
}

/// The last part of a queue's URL.
fn name_of(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}
