//! Queues and streams that exist in memory only, for tests. Its calls can be made to hang.

use std::collections::BTreeMap;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use streampress_crds::api::pipeline::{DeletionPolicy, TransportPolicy};
use streampress_crds::api::status::TransportStatus;
use streampress_crds::queue_check::{LAST_RESORT_RECEIVES, RedrivePolicy};

use streampress_transport::Depth;
use streampress_transport::aws::AwsCredentials;

use super::{Contents, Depths, OWNER_TAG, Provisioner, ReadyTransport, TransportPlan, rules};
use crate::transport::problem::Problem;

/// Queues and streams of one test.
#[derive(Debug, Default)]
pub struct MemoryProvisioner {
    state: Mutex<MemoryState>,
}

/// A queue or a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryResource {
    /// The owner's UID; empty where there is no tag.
    pub owner: String,
    /// By the names of SQS and Kinesis.
    pub attributes: BTreeMap<String, String>,
    waiting: u64,
}

#[derive(Debug, Default)]
struct MemoryState {
    resources: BTreeMap<String, MemoryResource>,
    hangs: bool,
    calls: u64,
    changes: u64,
}

impl MemoryProvisioner {
    fn state(&self) -> MutexGuard<'_, MemoryState> {
        self.state.lock()
    }

    /// Whether calls hang from now on.
    pub fn hang(&self, hangs: bool) {
        self.state().hangs = hangs;
    }

    /// Lets an existing queue hold so many messages.
    pub fn put(&self, name: &str, messages: u64) {
        if let Some(resource) = self.state().resources.get_mut(name) {
            resource.waiting = messages;
        }
    }

    /// A queue or stream of another owner.
    pub fn exists(&self, name: &str, owner: &str) {
        self.exists_with(name, owner, &[]);
    }

    /// The same, with attributes.
    pub fn exists_with(&self, name: &str, owner: &str, attributes: &[(&str, &str)]) {
        let pairs = attributes
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let mut resource = MemoryResource {
            owner: owner.to_owned(),
            attributes: pairs.collect(),
            waiting: 0,
        };
        resource.attributes.insert("QueueArn".into(), arn(name));
        self.state().resources.insert(name.to_owned(), resource);
    }

    /// Deletes a queue or stream without the provisioner.
    pub fn vanish(&self, name: &str) {
        self.state().resources.remove(name);
    }

    /// The names of all queues and streams.
    pub fn names(&self) -> Vec<String> {
        self.state().resources.keys().cloned().collect()
    }

    /// A queue or stream.
    pub fn resource(&self, name: &str) -> Option<MemoryResource> {
        self.state().resources.get(name).cloned()
    }

    /// How often something was created, changed or deleted.
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// How many calls there were.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    async fn answer(&self) {
        let hangs = {
            let mut state = self.state();
            state.calls += 1;
            state.hangs
        };
        if hangs {
            std::future::pending::<()>().await;
        }
    }
}

impl MemoryState {
    /// Creates a queue or stream, or corrects what differs in it; another owner's is refused.
    fn create_one(
        &mut self,
        plan: &TransportPlan,
        name: &str,
        attributes: BTreeMap<String, String>,
    ) -> Result<(), Problem> {
        let resource = match self.resources.get_mut(name) {
            Some(existing) if existing.owner != plan.uid => {
                return Err(rules::not_ours(plan, &tagged(name, &tags(existing))));
            }
            Some(existing) if existing.attributes == attributes => return Ok(()),
            Some(existing) => existing,
            None => self.resources.entry(name.to_owned()).or_default(),
        };
        resource.owner.clone_from(&plan.uid);
        resource.attributes = attributes;
        self.changes += 1;
        Ok(())
    }

    fn create(&mut self, plan: &TransportPlan) -> Result<(), Problem> {
        let parts = &plan.parts;
        for queue in parts.queues() {
            let plain = |name| {
                BTreeMap::from([
                    ("QueueArn".to_owned(), arn(name)),
                    ("FifoQueue".to_owned(), "true".to_owned()),
                ])
            };
            self.create_one(
                plan,
                &queue.dead_letter_name,
                plain(&queue.dead_letter_name),
            )?;
            let redrive = RedrivePolicy {
                target: arn(&queue.dead_letter_name),
                max_receive_count: LAST_RESORT_RECEIVES,
            };
            let mut attributes = plain(&queue.name);
            attributes.insert("RedrivePolicy".into(), redrive.to_json());
            let visibility_timeout = queue.visibility_timeout_seconds.to_string();
            attributes.insert("VisibilityTimeout".into(), visibility_timeout);
            self.create_one(plan, &queue.name, attributes)?;
        }
        let stream = &parts.stream;
        let wanted = stream
            .retention_hours
            .max(plan.retention.extend_to.unwrap_or(0));
        let hours = match self.retention_hours(&stream.name) {
            Some(now) if now > wanted && plan.retention.lower_from != Some(now) => now,
            _ => wanted,
        };
        let attributes = [
            ("OpenShardCount", stream.shards),
            ("RetentionPeriodHours", hours),
        ]
        .map(|(key, number)| (key.to_owned(), number.to_string()));
        self.create_one(plan, &stream.name, attributes.into())
    }

    fn attributes(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        self.resources.get(name).map(|it| &it.attributes)
    }

    fn retention_hours(&self, stream: &str) -> Option<u32> {
        let attributes = self.attributes(stream)?;
        attributes.get("RetentionPeriodHours")?.parse().ok()
    }

    fn waiting(&self, name: &str) -> Option<u64> {
        self.resources.get(name).map(|it| it.waiting)
    }
}

fn tags(resource: &MemoryResource) -> BTreeMap<String, String> {
    let owner = Some(&resource.owner).filter(|owner| !owner.is_empty());
    let owner = owner.map(|owner| (OWNER_TAG.to_owned(), owner.clone()));
    owner.into_iter().collect()
}

fn tagged<'a>(name: &'a str, tags: &'a BTreeMap<String, String>) -> rules::Tagged<'a> {
    let url = None;
    rules::Tagged { name, url, tags }
}

fn arn(name: &str) -> String {
    format!("arn:memory:{name}")
}

#[async_trait]
impl Provisioner for MemoryProvisioner {
    async fn provide(
        &self,
        plan: &TransportPlan,
        _: Option<&AwsCredentials>,
    ) -> Result<ReadyTransport, Problem> {
        self.answer().await;
        let mut state = self.state();
        match plan.policy {
            TransportPolicy::Create => state.create(plan)?,
            TransportPolicy::Adopt => {
                let names = plan.queues().into_iter();
                let queues: Vec<_> = names.map(|name| state.attributes(name)).collect();
                let has_stream = state.resources.contains_key(&plan.parts.stream.name);
                rules::adoptable(plan, &queues, has_stream)?;
                let names = plan.queues().into_iter().chain([&*plan.parts.stream.name]);
                let tags: Vec<_> = names
                    .filter_map(|name| Some((name, tags(state.resources.get(name)?))))
                    .collect();
                let tagged: Vec<_> = tags.iter().map(|(name, tags)| tagged(name, tags)).collect();
                rules::not_of_another(plan, &tagged)?;
            }
        }
        let receipts = plan.parts.receipts_queue.as_ref();
        Ok(ReadyTransport {
            status: TransportStatus {
                files_queue_url: Some(format!("memory://{}", plan.parts.files_queue.name)),
                chunks_queue_url: Some(format!("memory://{}", plan.parts.chunks_queue.name)),
                receipts_queue_url: receipts.map(|queue| format!("memory://{}", queue.name)),
                stream_arn: Some(format!("memory://{}", plan.parts.stream.name)),
            },
            retention_hours: state.retention_hours(&plan.parts.stream.name),
            not_extended: None,
        })
    }

    async fn depths(&self, plan: &TransportPlan, _: Option<&AwsCredentials>) -> Depths {
        self.answer().await;
        let state = self.state();
        let depth = |name| {
            state.waiting(name).map(|visible| Depth {
                visible,
                ..Depth::default()
            })
        };
        let depths: Vec<_> = plan.queues().into_iter().map(depth).collect();
        Depths::of(&depths)
    }

    async fn contents(
        &self,
        plan: &TransportPlan,
        _: Option<&AwsCredentials>,
    ) -> Result<Contents, Problem> {
        self.answer().await;
        let state = self.state();
        let waiting: Vec<_> = plan
            .queues()
            .into_iter()
            .filter_map(|name| Some((name, Some(state.waiting(name)?))))
            .collect();
        Ok(rules::contents(plan, &waiting))
    }

    async fn remove(
        &self,
        plan: &TransportPlan,
        policy: DeletionPolicy,
        credentials: Option<&AwsCredentials>,
    ) -> Result<Vec<String>, Problem> {
        self.answer().await;
        if let Some(left) = rules::kept(plan, policy) {
            return Ok(left);
        }
        if policy == DeletionPolicy::WhenEmpty
            && let Contents::Filled(left) = self.contents(plan, credentials).await?
        {
            return Ok(left);
        }
        let mut state = self.state();
        let mut left = Vec::new();
        for name in plan.queues().into_iter().chain([&*plan.parts.stream.name]) {
            match state.resources.get(name).map(|it| it.owner == plan.uid) {
                Some(true) => {
                    state.resources.remove(name);
                    state.changes += 1;
                }
                Some(false) => left.push(rules::untagged(name)),
                None => {}
            }
        }
        Ok(left)
    }
}
