//! Queues at SQS and the stream at Kinesis, by the provisioning that `streampress setup` has too. Everything created here
//! carries the pipeline's UID as a tag from the moment it exists; nothing without it is ever changed or deleted. Errors of AWS
//! become a reason and a sentence for the pipeline's owner.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use streampress_crds::Reason;
use streampress_crds::api::pipeline::{DeletionPolicy, TransportPolicy};
use streampress_crds::api::status::TransportStatus;
use streampress_transport::aws::provision::{
    self, NotOwned, ProvisionError, ProvisionOutcome, ProvisionPlan,
};
use streampress_transport::aws::{AwsCredentials, AwsOptions, CallLimits, ServiceError};
use streampress_transport::{Depth, EmptyQueues, aws};
use tokio::time::Instant;

use super::problem::{Problem, Retry};
use super::{
    Contents, Depths, OWNER_TAG, PIPELINE_TAG, Provisioner, ReadyTransport, TransportPlan, rules,
};

/// Shorter than the worker's: the manager bounds the whole, and an endpoint that hangs blocks others of its kind.
const CALLS: CallLimits = CallLimits {
    connect_timeout: Duration::from_secs(3),
    attempt_timeout: Duration::from_secs(8),
    attempts: 3,
};

/// The tags of a queue or stream.
type Tags = BTreeMap<String, String>;

/// The most clients that are kept; beyond, all are made anew.
const MAX_CLIENTS: usize = 256;

/// Provisions on AWS, or an emulator. Clients are shared by pipelines of the same region, endpoint and credentials.
#[derive(Default)]
pub struct AwsProvisioner {
    clients: Mutex<HashMap<AwsOptions, Arc<Client>>>,
}

/// Clients, and what is remembered of their queues.
struct Client {
    aws: aws::Aws,
    /// Queues' URLs, by name: depths are read every few seconds.
    urls: Mutex<HashMap<String, String>>,
    /// Since when all queues of a pipeline, by its UID, have been seen empty.
    empty_queues: Mutex<HashMap<String, EmptyQueues>>,
}

impl AwsProvisioner {
    async fn client(
        &self,
        plan: &TransportPlan,
        credentials: Option<&AwsCredentials>,
    ) -> Arc<Client> {
        let options = AwsOptions {
            region: Some(plan.region.clone()),
            endpoint: plan.endpoint.clone(),
            credentials: credentials.cloned(),
            calls: CALLS,
        };
        if let Some(client) = self.clients.lock().get(&options) {
            return Arc::clone(client);
        }
        let client = Arc::new(Client {
            aws: aws::Aws::connect(&options).await,
            urls: Mutex::default(),
            empty_queues: Mutex::default(),
        });
        let mut clients = self.clients.lock();
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(options, Arc::clone(&client));
        client
    }

    /// Drops what is remembered of a pipeline that is being deleted, also where its queues are kept.
    fn forget_emptiness(&self, plan: &TransportPlan) {
        let clients: Vec<_> = self.clients.lock().values().cloned().collect();
        for client in clients {
            client.empty_queues.lock().remove(&plan.uid);
        }
    }
}

/// The plan of a pipeline with policy `Create`: what another owner made is refused. A stream that is being resharded can be
/// used, so that is not waited for. Emulators keep no keys.
pub fn provision_plan(plan: &TransportPlan) -> ProvisionPlan {
    ProvisionPlan {
        tags: [(PIPELINE_TAG.to_owned(), plan.pipeline())].into(),
        encrypted: plan.endpoint.is_none(),
        not_owned: NotOwned::Refuse,
        waits: false,
        ..ProvisionPlan::new(plan.parts.clone(), (OWNER_TAG, &plan.uid))
    }
}

#[async_trait]
impl Provisioner for AwsProvisioner {
    async fn provide(
        &self,
        plan: &TransportPlan,
        credentials: Option<&AwsCredentials>,
    ) -> Result<ReadyTransport, Problem> {
        let client = self.client(plan, credentials).await;
        match plan.policy {
            TransportPolicy::Create => client.create(plan).await,
            TransportPolicy::Adopt => client.adopt(plan).await,
        }
    }

    async fn depths(&self, plan: &TransportPlan, credentials: Option<&AwsCredentials>) -> Depths {
        let client = self.client(plan, credentials).await;
        let reading = plan.queues().into_iter().map(|name| client.depth(name));
        let depths = Depths::of(&futures::future::join_all(reading).await);
        client.note_emptiness(plan, depths);
        depths
    }

    async fn contents(
        &self,
        plan: &TransportPlan,
        credentials: Option<&AwsCredentials>,
    ) -> Result<Contents, Problem> {
        self.client(plan, credentials).await.contents(plan).await
    }

    async fn remove(
        &self,
        plan: &TransportPlan,
        policy: DeletionPolicy,
        credentials: Option<&AwsCredentials>,
    ) -> Result<Vec<String>, Problem> {
        self.forget_emptiness(plan);
        if let Some(left) = rules::kept(plan, policy) {
            return Ok(left);
        }
        let client = self.client(plan, credentials).await;
        if policy == DeletionPolicy::WhenEmpty
            && let Contents::Filled(left) = client.contents(plan).await?
        {
            return Ok(left);
        }
        client.forget_urls(plan);
        let outcomes = provision::delete(&client.aws, &provision_plan(plan)).await;
        let outcomes = outcomes.map_err(problem)?;
        let names = plan.queues().into_iter().chain([&*plan.parts.stream.name]);
        Ok(names
            .zip(outcomes)
            .filter(|(_, it)| it.outcome == ProvisionOutcome::NotOwned)
            .map(|(name, _)| rules::untagged(name))
            .collect())
    }
}

impl Client {
    async fn create(&self, plan: &TransportPlan) -> Result<ReadyTransport, Problem> {
        let retention = plan.retention;
        let provision_plan = ProvisionPlan {
            extend_retention_to: retention.extend_to,
            lower_retention_from: retention.lower_from.filter(|_| self.is_surely_empty(plan)),
            ..provision_plan(plan)
        };
        let provisioned = match provision::create(&self.aws, &provision_plan).await {
            Err(ProvisionError::NotOwned { name, tags }) => {
                return Err(self.not_ours(plan, &name, &tags).await);
            }
            provisioned => provisioned.map_err(problem)?,
        };
        Ok(ReadyTransport {
            status: TransportStatus {
                files_queue_url: Some(provisioned.files_queue_url),
                chunks_queue_url: Some(provisioned.chunks_queue_url),
                receipts_queue_url: provisioned.receipts_queue_url,
                stream_arn: Some(provisioned.stream.arn),
            },
            retention_hours: Some(provisioned.stream.retention_hours),
            not_extended: provisioned
                .stream
                .not_extended
                .map(|error| problem(error).message),
        })
    }

    async fn adopt(&self, plan: &TransportPlan) -> Result<ReadyTransport, Problem> {
        let mut found = Vec::new();
        for name in plan.queues() {
            let queue = provision::existing_queue(&self.aws, name).await;
            found.push(queue.map_err(problem)?);
        }
        let name = &plan.parts.stream.name;
        let has_stream = provision::stream_exists(&self.aws, name).await;
        let queues = found.iter().map(Option::as_ref);
        let attributes: Vec<_> = queues.map(|queue| Some(&queue?.attributes)).collect();
        rules::adoptable(plan, &attributes, has_stream.map_err(problem)?)?;
        let mut tags = Vec::new();
        for (queue, name) in found.iter().flatten().zip(plan.queues()) {
            let of_queue = provision::queue_tags(&self.aws, name, &queue.url).await;
            let of_queue = of_queue.map_err(problem)?.unwrap_or_default();
            tags.push((name, Some(&*queue.url), of_queue));
        }
        let of_stream = provision::stream_tags(&self.aws, name).await;
        tags.push((name, None, of_stream.map_err(problem)?));
        let tagged: Vec<_> = tags
            .iter()
            .map(|(name, url, tags)| rules::Tagged {
                name,
                url: *url,
                tags,
            })
            .collect();
        rules::not_of_another(plan, &tagged)?;
        let stream = provision::usable_stream(&self.aws, name).await;
        let stream = stream.map_err(problem)?;
        let url = |queue: usize| Some(found.get(queue)?.as_ref()?.url.clone());
        Ok(ReadyTransport {
            status: TransportStatus {
                files_queue_url: url(0),
                chunks_queue_url: url(2),
                receipts_queue_url: url(4),
                stream_arn: Some(stream.arn),
            },
            retention_hours: Some(stream.retention_hours),
            not_extended: None,
        })
    }

    /// A queue or stream that is in the way, with the command that frees it, which needs a queue's URL.
    async fn not_ours(&self, plan: &TransportPlan, name: &str, tags: &Tags) -> Problem {
        let url = match plan.queues().contains(&name) {
            true => provision::find_queue(&self.aws, name).await.ok().flatten(),
            false => None,
        };
        let url = url.as_deref();
        rules::not_ours(plan, &rules::Tagged { name, url, tags })
    }

    async fn contents(&self, plan: &TransportPlan) -> Result<Contents, Problem> {
        let mut waiting = Vec::new();
        for name in plan.queues() {
            let url = provision::find_queue(&self.aws, name).await;
            if let Some(url) = url.map_err(problem)? {
                let depth = self.aws.queue_depth(&url).await.ok();
                waiting.push((name, depth.map(Depth::total)));
            }
        }
        Ok(rules::contents(plan, &waiting))
    }

    fn note_emptiness(&self, plan: &TransportPlan, depths: Depths) {
        let mut empty_queues = self.empty_queues.lock();
        let queues = empty_queues.entry(plan.uid.clone()).or_default();
        queues.observe(depths.are_empty(), Instant::now());
    }

    /// Whether no message can need the stream's records.
    fn is_surely_empty(&self, plan: &TransportPlan) -> bool {
        let empty_queues = self.empty_queues.lock();
        let queues = empty_queues.get(&plan.uid);
        queues.is_some_and(|queues| queues.are_certain(Instant::now()))
    }

    fn forget_urls(&self, plan: &TransportPlan) {
        let mut urls = self.urls.lock();
        for name in plan.queues() {
            urls.remove(name);
        }
    }

    /// The queue's URL is remembered for as long as it holds.
    async fn depth(&self, name: &str) -> Option<Depth> {
        let known = self.urls.lock().get(name).cloned();
        let url = match known {
            Some(url) => url,
            None => provision::find_queue(&self.aws, name).await.ok()??,
        };
        let depth = self.aws.queue_depth(&url).await.ok();
        match depth {
            Some(_) => self.urls.lock().insert(name.to_owned(), url),
            None => self.urls.lock().remove(name),
        };
        depth
    }
}

/// In the same words at every attempt, so that a condition changes only when the cause does.
fn problem(error: ProvisionError) -> Problem {
    let transient = |message: String| Problem {
        reason: Reason::TransportFailed,
        message,
        retry: Retry::Transient,
    };
    match error {
        ProvisionError::Call {
            step,
            permission,
            error,
        } => {
            let (reason, retry, remedy) = remedy_of(&error, permission);
            let step = format!("{}{}", step[..1].to_uppercase(), &step[1..]);
            let said = error.to_string();
            let said = said.trim_end_matches('.');
            Problem {
                reason,
                message: format!("{step} failed: {said}. {remedy}"),
                retry,
            }
        }
        // Creating names its owner.
        ProvisionError::NotOwned { name, .. } => transient(format!("{name} has another owner.")),
        ProvisionError::InTransition { what } => {
            let what = format!("{}{}", what[..1].to_uppercase(), &what[1..]);
            Problem {
                reason: Reason::MakingTransport,
                message: format!("{what}."),
                retry: Retry::InProgress,
            }
        }
        ProvisionError::Unusable { why } => transient(format!("AWS answered oddly: {why}.")),
    }
}

fn remedy_of(error: &ServiceError, permission: &str) -> (Reason, Retry, String) {
    if error.is_denied() {
        (
            Reason::AccessDenied,
            Retry::AfterCorrection,
            format!(
                "Give the identity of spec.aws the permission {permission}; deploy/aws/operator-policy.json in the project has all that the operator needs."
            ),
        )
    } else if error.is_unauthenticated() {
        (
            Reason::AccessDenied,
            Retry::AfterCorrection,
            "AWS does not know these keys: correct the Secret of spec.aws.credentialsSecretRef, or the operator's own identity.".into(),
        )
    } else if error.is_unanswered() {
        (
            Reason::EndpointUnreachable,
            Retry::Transient,
            "See spec.aws.endpointURL and region; trying again.".into(),
        )
    } else {
        (
            Reason::TransportFailed,
            Retry::Transient,
            "Trying again.".into(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str, message: &str) -> ProvisionError {
        ProvisionError::Call {
            step: "looking for the queue a.fifo".into(),
            permission: "sqs:GetQueueUrl",
            error: ServiceError {
                code: code.into(),
                message: message.into(),
            },
        }
    }

    #[test]
    fn a_refusal_is_named_with_its_step_its_cause_and_the_permission() {
        let problem = problem(refused(
            "AccessDenied",
            "not authorized to perform: sqs:GetQueueUrl",
        ));
        assert_eq!(
            (problem.reason, problem.retry),
            (Reason::AccessDenied, Retry::AfterCorrection)
        );
        assert!(
            problem.message.starts_with(
                "Looking for the queue a.fifo failed: AccessDenied: not authorized to perform: sqs:GetQueueUrl. Give"
            ),
            "{}",
            problem.message
        );
    }

    #[test]
    fn each_kind_of_failure_has_its_reason() {
        for (code, reason) in [
            ("AccessDeniedException", Reason::AccessDenied),
            ("SignatureDoesNotMatch", Reason::AccessDenied),
            ("", Reason::EndpointUnreachable),
            ("ServiceUnavailable", Reason::TransportFailed),
        ] {
            assert_eq!(problem(refused(code, "said")).reason, reason, "{code}");
        }
    }
}
