//! Queues at SQS and the stream at Kinesis. Everything made here carries the pipeline's UID as a tag from the moment it
//! exists; nothing without it is ever changed or deleted. What was answered in error is put into words for the pipeline's owner.

mod queues;
mod stream;
mod words;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_kinesis::types::StreamStatus;
use aws_smithy_http_client::tls;
use streampress_crds::api::pipeline::{DeletionPolicy, TransportPolicy};
use streampress_crds::api::status::TransportStatus;
use tokio::time::sleep;

use streampress_transport::Depth;
use streampress_transport::aws::AwsCredentials;

use super::{Depths, OWNER_TAG, PIPELINE_TAG, Plan, Provisioner, rules};
use crate::transport::problem::Problem;

/// What one request may take; the desk bounds the whole.
const ATTEMPT: Duration = Duration::from_secs(8);

/// Between two looks at queues that are to be deleted when empty: SQS counts roughly and late, a minute at times, but
/// nothing is in the way of a pipeline's end for longer.
const COUNTED_LATE: Duration = Duration::from_secs(5);

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
    credentials: Option<AwsCredentials>,
}

impl Aws {
    async fn clients(&self, plan: &Plan, credentials: Option<&AwsCredentials>) -> Arc<Clients> {
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
    /// Queues' addresses, by name.
    addresses: Mutex<HashMap<String, String>>,
}

impl Clients {
    async fn of(plan: &Plan, credentials: Option<&AwsCredentials>) -> Self {
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
            addresses: Mutex::default(),
        }
    }
}

#[async_trait]
impl Provisioner for Aws {
    async fn provide(
        &self,
        plan: &Plan,
        credentials: Option<&AwsCredentials>,
    ) -> Result<TransportStatus, Problem> {
        let clients = self.clients(plan, credentials).await;
        match plan.policy {
            TransportPolicy::Create => clients.create(plan).await,
            TransportPolicy::Adopt => clients.adopt(plan).await,
        }
    }

    async fn depths(&self, plan: &Plan, credentials: Option<&AwsCredentials>) -> Depths {
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
        credentials: Option<&AwsCredentials>,
    ) -> Result<Vec<String>, Problem> {
        if let Some(left) = rules::kept(plan, policy) {
            return Ok(left);
        }
        let clients = self.clients(plan, credentials).await;
        if policy == DeletionPolicy::WhenEmpty {
            let mut waiting = clients.waiting(plan).await?;
            if !waiting.is_empty() && rules::filled(plan, &waiting).is_none() {
                sleep(COUNTED_LATE).await;
                waiting = clients.waiting(plan).await?;
            }
            if let Some(left) = rules::filled(plan, &waiting) {
                return Ok(left);
            }
        }
        let mut left = Vec::new();
        for name in plan.queues() {
            left.extend(clients.remove_queue(plan, name).await?);
        }
        left.extend(clients.remove_stream(plan, &plan.parts.stream.name).await?);
        Ok(left)
    }
}

impl Clients {
    async fn create(&self, plan: &Plan) -> Result<TransportStatus, Problem> {
        let parts = &plan.parts;
        // The stream takes longest to come up: it is asked for first and waited for last.
        self.begin_stream(plan, &parts.stream).await?;
        let files_queue_url = self.queue(plan, &parts.files_queue).await?;
        let chunks_queue_url = self.queue(plan, &parts.chunks_queue).await?;
        let stream_arn = self.stream(plan, &parts.stream).await?;
        Ok(TransportStatus {
            files_queue_url: Some(files_queue_url),
            chunks_queue_url: Some(chunks_queue_url),
            stream_arn: Some(stream_arn),
        })
    }

    async fn adopt(&self, plan: &Plan) -> Result<TransportStatus, Problem> {
        let mut found = Vec::new();
        for name in plan.queues() {
            found.push(self.described(name).await?);
        }
        let name = &plan.parts.stream.name;
        let stream = self.find_stream(name).await?;
        let attributes = [0, 1, 2, 3].map(|queue| found[queue].as_ref().map(|(_, there)| there));
        rules::adoptable(plan, attributes, stream.is_some())?;
        // A stream that is being resharded can be used meanwhile.
        let usable = [StreamStatus::Active, StreamStatus::Updating];
        let stream_arn = match stream {
            Some(stream) if usable.contains(stream.stream_status()) => stream.stream_arn,
            _ => self.stream_once(name, &usable).await?.stream_arn,
        };
        let url = |queue: usize| found[queue].as_ref().map(|(url, _)| url.clone());
        Ok(TransportStatus {
            files_queue_url: url(0),
            chunks_queue_url: url(2),
            stream_arn: Some(stream_arn),
        })
    }

    /// How much waits in each queue that is there; nothing where that cannot be read.
    async fn waiting<'a>(&self, plan: &'a Plan) -> Result<Vec<(&'a str, Option<u64>)>, Problem> {
        let mut waiting = Vec::new();
        for name in plan.queues() {
            if let Some(url) = self.find_queue(name).await? {
                let depth = self.depth_of(&url).await;
                waiting.push((name, depth.map(Depth::total)));
            }
        }
        Ok(waiting)
    }
}

fn tags(plan: &Plan) -> HashMap<String, String> {
    HashMap::from([
        (OWNER_TAG.to_owned(), plan.uid.clone()),
        (PIPELINE_TAG.to_owned(), plan.pipeline()),
    ])
}
