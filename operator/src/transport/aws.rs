//! Queues at SQS and the stream at Kinesis. Everything made here carries the pipeline's UID as a tag from the moment it
//! exists; nothing without it is ever changed or deleted. What was answered in error is put into words for the pipeline's owner.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_kinesis::error::{DisplayErrorContext, ProvideErrorMetadata};
use aws_sdk_kinesis::types::{EncryptionType, StreamStatus};
use aws_sdk_sqs::types::QueueAttributeName as Attribute;
use aws_smithy_http_client::tls;
use streampress_crds::pipeline::{DeletionPolicy, TransportPolicy};
use streampress_crds::settings::{QueueSettings, StreamSettings};
use streampress_crds::status::TransportStatus;

use super::{Credentials, Depth, Depths, OWNER_TAG, PIPELINE_TAG, Plan, Provisioner};
use crate::status::Trouble;

/// What one request may take; the desk bounds the whole.
const ATTEMPT: Duration = Duration::from_secs(8);
/// SQS keeps messages so long at most: two weeks.
const RETENTION_SECONDS: &str = "1209600";
/// The key that Kinesis keeps for everybody.
const STREAM_KEY: &str = "alias/aws/kinesis";

/// Clients kept; beyond, all are made anew.
const MOST_CLIENTS: usize = 256;

/// AWS, or what stands in for it. Clients are shared by pipelines that use the same place with the same keys.
#[derive(Default)]
pub struct Aws {
    clients: Mutex<HashMap<Place, Arc<Clients>>>,
}

#[derive(PartialEq, Eq, Hash)]
struct Place {
    region: String,
    endpoint: Option<String>,
    credentials: Option<Credentials>,
}

impl Aws {
    async fn clients(&self, plan: &Plan, credentials: Option<&Credentials>) -> Arc<Clients> {
        let place = Place {
            region: plan.region.clone(),
            endpoint: plan.endpoint.clone(),
            credentials: credentials.cloned(),
        };
        let known = |kept: &HashMap<Place, Arc<Clients>>| kept.get(&place).cloned();
        if let Some(clients) = known(&self.clients.lock().unwrap_or_else(PoisonError::into_inner)) {
            return clients;
        }
        let clients = Arc::new(Clients::of(plan, credentials).await);
        let mut kept = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MOST_CLIENTS {
            kept.clear();
        }
        kept.insert(place, Arc::clone(&clients));
        clients
    }
}

/// The clients for one pipeline.
struct Clients {
    sqs: aws_sdk_sqs::Client,
    kinesis: aws_sdk_kinesis::Client,
}

impl Clients {
    async fn of(plan: &Plan, credentials: Option<&Credentials>) -> Self {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(
                tls::rustls_provider::CryptoMode::Ring,
            ))
            .build_https();
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(3))
            .operation_attempt_timeout(ATTEMPT)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(3))
            .region(Region::new(plan.region.clone()));
        if let Some(endpoint) = &plan.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if let Some(keys) = credentials {
            loader = loader.credentials_provider(aws_sdk_sqs::config::Credentials::new(
                &keys.access_key_id,
                &keys.secret_access_key,
                keys.session_token.clone(),
                None,
                "the pipeline's Secret",
            ));
        }
        let sdk = loader.load().await;
        Self {
            sqs: aws_sdk_sqs::Client::new(&sdk),
            kinesis: aws_sdk_kinesis::Client::new(&sdk),
        }
    }
}

#[async_trait]
impl Provisioner for Aws {
    async fn provide(
        &self,
        plan: &Plan,
        credentials: Option<&Credentials>,
    ) -> Result<TransportStatus, Trouble> {
        let clients = self.clients(plan, credentials).await;
        let parts = &plan.parts;
        // The stream takes longest to come up: it is asked for first and waited for last.
        clients.begin_stream(plan, &parts.stream).await?;
        let files_queue_url = clients.queue(plan, &parts.files_queue).await?;
        let chunks_queue_url = clients.queue(plan, &parts.chunks_queue).await?;
        let stream_arn = clients.stream(plan, &parts.stream).await?;
        Ok(TransportStatus {
            files_queue_url: Some(files_queue_url),
            chunks_queue_url: Some(chunks_queue_url),
            stream_arn: Some(stream_arn),
        })
    }

    async fn depths(&self, plan: &Plan, credentials: Option<&Credentials>) -> Depths {
        let clients = self.clients(plan, credentials).await;
        let parts = &plan.parts;
        let (files, chunks, files_dead, chunks_dead) = futures::join!(
            clients.depth(&parts.files_queue.name),
            clients.depth(&parts.chunks_queue.name),
            clients.depth(&parts.files_queue.dead_letter_name),
            clients.depth(&parts.chunks_queue.dead_letter_name),
        );
        Depths {
            files,
            chunks,
            dead: files_dead
                .zip(chunks_dead)
                .map(|(a, b)| a.total() + b.total()),
        }
    }

    async fn remove(
        &self,
        plan: &Plan,
        policy: DeletionPolicy,
        credentials: Option<&Credentials>,
    ) -> Result<Vec<String>, Trouble> {
        let parts = &plan.parts;
        let queues = [&parts.files_queue, &parts.chunks_queue]
            .map(|queue| [&queue.name, &queue.dead_letter_name]);
        let names: Vec<&String> = queues.into_iter().flatten().collect();
        if policy == DeletionPolicy::Retain {
            let all = names.into_iter().chain([&parts.stream.name]);
            return Ok(all
                .map(|name| format!("{name} is kept by deletionPolicy Retain"))
                .collect());
        }
        let clients = self.clients(plan, credentials).await;
        let mut left = Vec::new();
        let mut filled = false;
        if policy == DeletionPolicy::WhenEmpty {
            for name in &names {
                if let Some(url) = clients.find_queue(name).await? {
                    let depth = clients.depth_of(&url).await;
                    if depth.is_none_or(|depth| depth.total() > 0) {
                        filled = true;
                        left.push(format!("{name} is not empty"));
                    }
                }
            }
        }
        // What waits refers to the stream, and a redrive needs both queues: all or nothing.
        if filled {
            left.push(format!(
                "the other queues and the stream {} are kept with it",
                parts.stream.name
            ));
            return Ok(left);
        }
        for name in names {
            left.extend(clients.remove_queue(plan, name).await?);
        }
        left.extend(clients.remove_stream(plan, &parts.stream.name).await?);
        Ok(left)
    }
}

impl Clients {
    /// A queue and its dead letters; gives the queue's address.
    async fn queue(&self, plan: &Plan, queue: &QueueSettings) -> Result<String, Trouble> {
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
        let made = made.map_err(|error| {
            trouble(
                &format!("making the queue {name}"),
                error.code().map(str::to_owned),
                &error,
            )
        })?;
        made.queue_url
            .ok_or_else(|| odd(&format!("the answer about the queue {name} has no address")))
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
        let there = there.map_err(|error| {
            trouble(
                &format!("reading the queue {name}"),
                error.code().map(str::to_owned),
                &error,
            )
        })?;
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
        set.map(drop).map_err(|error| {
            trouble(
                &format!("setting up the queue {name}"),
                error.code().map(str::to_owned),
                &error,
            )
        })
    }

    async fn find_queue(&self, name: &str) -> Result<Option<String>, Trouble> {
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
            Err(error) => Err(trouble(
                &format!("looking for the queue {name}"),
                error.code().map(str::to_owned),
                &error,
            )),
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
        let there = there.map_err(|error| {
            trouble(
                &format!("reading the queue {name}"),
                error.code().map(str::to_owned),
                &error,
            )
        })?;
        let arn = there
            .attributes
            .and_then(|mut attributes| attributes.remove(&Attribute::QueueArn));
        arn.ok_or_else(|| odd(&format!("the answer about the queue {name} has no ARN")))
    }

    async fn queue_tags(&self, name: &str, url: &str) -> Result<HashMap<String, String>, Trouble> {
        let there = self.sqs.list_queue_tags().queue_url(url).send().await;
        let there = there.map_err(|error| {
            trouble(
                &format!("reading the tags of the queue {name}"),
                error.code().map(str::to_owned),
                &error,
            )
        })?;
        Ok(there.tags.unwrap_or_default())
    }

    /// Under `Create` something of that name must be this pipeline's.
    fn owned(&self, plan: &Plan, name: &str, tags: HashMap<String, String>) -> Result<(), Trouble> {
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

    async fn depth(&self, name: &str) -> Option<Depth> {
        let url = self.find_queue(name).await.ok()??;
        self.depth_of(&url).await
    }

    async fn depth_of(&self, url: &str) -> Option<Depth> {
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

    async fn remove_queue(&self, plan: &Plan, name: &str) -> Result<Option<String>, Trouble> {
        let Some(url) = self.find_queue(name).await? else {
            return Ok(None);
        };
        if self.queue_tags(name, &url).await?.get(OWNER_TAG) != Some(&plan.uid) {
            return Ok(Some(format!("{name} does not carry this pipeline's tag")));
        }
        let gone = self.sqs.delete_queue().queue_url(url).send().await;
        gone.map_err(|error| {
            trouble(
                &format!("deleting the queue {name}"),
                error.code().map(str::to_owned),
                &error,
            )
        })?;
        Ok(None)
    }

    /// Asks for the stream where it is not there yet.
    async fn begin_stream(&self, plan: &Plan, stream: &StreamSettings) -> Result<(), Trouble> {
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
            Err(error) if is_one_of(error.code(), &["ResourceInUseException"]) => {}
            Err(error) => {
                return Err(trouble(
                    &format!("making the stream {}", stream.name),
                    error.code().map(str::to_owned),
                    &error,
                ));
            }
        }
        // Stand-ins of older make take no tags with the stream.
        let tagged = self
            .kinesis
            .add_tags_to_stream()
            .stream_name(&stream.name)
            .set_tags(Some(tags(plan)))
            .send()
            .await;
        tagged.map(drop).map_err(|error| {
            trouble(
                &format!("tagging the stream {}", stream.name),
                error.code().map(str::to_owned),
                &error,
            )
        })
    }

    /// Waits until the stream is up, then puts retention and encryption right; gives its ARN.
    async fn stream(&self, plan: &Plan, stream: &StreamSettings) -> Result<String, Trouble> {
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
            let failed = |code: Option<&str>, error: &dyn std::fmt::Display| Trouble {
                reason: code.unwrap_or("TransportFailed").to_owned(),
                message: format!("Setting up the stream {name} failed: {error}."),
                lasting: false,
            };
            if found.retention_period_hours() < hours {
                let longer = self
                    .kinesis
                    .increase_stream_retention_period()
                    .stream_name(name)
                    .retention_period_hours(hours)
                    .send()
                    .await;
                longer.map_err(|error| failed(error.code(), &DisplayErrorContext(&error)))?;
            } else if found.retention_period_hours() > hours {
                let shorter = self
                    .kinesis
                    .decrease_stream_retention_period()
                    .stream_name(name)
                    .retention_period_hours(hours)
                    .send()
                    .await;
                shorter.map_err(|error| failed(error.code(), &DisplayErrorContext(&error)))?;
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
                sealed.map_err(|error| failed(error.code(), &DisplayErrorContext(&error)))?;
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
            Err(error) => Err(trouble(
                &format!("looking for the stream {name}"),
                error.code().map(str::to_owned),
                &error,
            )),
        }
    }

    async fn stream_tags(&self, name: &str) -> Result<HashMap<String, String>, Trouble> {
        let there = self
            .kinesis
            .list_tags_for_stream()
            .stream_name(name)
            .send()
            .await;
        let there = there.map_err(|error| {
            trouble(
                &format!("reading the tags of the stream {name}"),
                error.code().map(str::to_owned),
                &error,
            )
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

    async fn remove_stream(&self, plan: &Plan, name: &str) -> Result<Option<String>, Trouble> {
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
        gone.map_err(|error| {
            trouble(
                &format!("deleting the stream {name}"),
                error.code().map(str::to_owned),
                &error,
            )
        })?;
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

fn tags(plan: &Plan) -> HashMap<String, String> {
    HashMap::from([
        (OWNER_TAG.to_owned(), plan.uid.clone()),
        (PIPELINE_TAG.to_owned(), plan.pipeline()),
    ])
}

fn is_one_of(code: Option<&str>, codes: &[&str]) -> bool {
    code.is_some_and(|code| codes.iter().any(|known| code.ends_with(known)))
}

fn missing(name: &str) -> Trouble {
    Trouble {
        reason: "TransportMissing".into(),
        message: format!(
            "There is no {name}: make it, correct the name in spec.transport, or use policy Create in a new pipeline."
        ),
        lasting: true,
    }
}

fn odd(what: &str) -> Trouble {
    Trouble {
        reason: "TransportFailed".into(),
        message: format!("AWS answered oddly: {what}."),
        lasting: false,
    }
}

fn trouble(step: &str, code: Option<String>, error: &(dyn std::error::Error + 'static)) -> Trouble {
    let code = code.unwrap_or_default();
    let denied = is_one_of(
        Some(&code),
        &[
            "AccessDenied",
            "AccessDeniedException",
            "UnrecognizedClientException",
            "InvalidClientTokenId",
            "SignatureDoesNotMatch",
        ],
    );
    let (reason, way_out) = if denied {
        (
            "AccessDenied",
            " Give the identity of spec.aws the permissions that the README lists.",
        )
    } else if code.is_empty() {
        (
            "EndpointUnreachable",
            " See spec.aws.endpointURL and region; trying again.",
        )
    } else {
        ("TransportFailed", " Trying again.")
    };
    Trouble {
        reason: reason.into(),
        message: format!(
            "{}{} failed: {}.{way_out}",
            step[..1].to_uppercase(),
            &step[1..],
            DisplayErrorContext(error)
        ),
        lasting: false,
    }
}
