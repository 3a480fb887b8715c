//! Queues and streams that exist in memory only: for tests of everything around them. It can be told to be dead.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use streampress_crds::api::pipeline::{DeletionPolicy, TransportPolicy};
use streampress_crds::api::status::TransportStatus;
use streampress_crds::queue_check::RedrivePolicy;

use streampress_transport::Depth;
use streampress_transport::aws::AwsCredentials;

use super::{Depths, Plan, Provisioner, rules};
use crate::decide::status::Trouble;

/// The world of one test.
#[derive(Debug, Default)]
pub struct Memory {
    state: Mutex<State>,
}

/// A queue or a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The owner's UID; empty where there is no tag.
    pub owner: String,
    /// What a queue is like, as SQS words it, or what a stream is.
    pub attributes: BTreeMap<String, String>,
    waiting: u64,
}

#[derive(Debug, Default)]
struct State {
    parts: BTreeMap<String, Part>,
    hangs: bool,
    calls: u64,
    changes: u64,
}

impl Memory {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on no call returns, or they do again.
    pub fn hang(&self, hangs: bool) {
        self.state().hangs = hangs;
    }

    /// Puts so many messages into a queue that is there.
    pub fn put(&self, name: &str, messages: u64) {
        if let Some(part) = self.state().parts.get_mut(name) {
            part.waiting = messages;
        }
    }

    /// Something that was there before, of somebody else.
    pub fn exists(&self, name: &str, owner: &str) {
        self.exists_with(name, owner, &[]);
    }

    /// The same, and what it is like.
    pub fn exists_with(&self, name: &str, owner: &str, attributes: &[(&str, &str)]) {
        let pairs = attributes
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let mut part = Part {
            owner: owner.to_owned(),
            attributes: pairs.collect(),
            waiting: 0,
        };
        part.attributes.insert("QueueArn".into(), arn(name));
        self.state().parts.insert(name.to_owned(), part);
    }

    /// Somebody took a part away.
    pub fn vanish(&self, name: &str) {
        self.state().parts.remove(name);
    }

    /// The names of all there is.
    pub fn names(&self) -> Vec<String> {
        self.state().parts.keys().cloned().collect()
    }

    /// What a part is like.
    pub fn part(&self, name: &str) -> Option<Part> {
        self.state().parts.get(name).cloned()
    }

    /// How often something was made, changed or deleted.
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

impl State {
    /// Makes a part, or puts right what differs in it; what is somebody else's is refused.
    fn make(
        &mut self,
        plan: &Plan,
        name: &str,
        attributes: BTreeMap<String, String>,
    ) -> Result<(), Trouble> {
        let part = match self.parts.get_mut(name) {
            Some(part) if part.owner != plan.uid => return Err(rules::not_ours(name, None)),
            Some(part) if part.attributes == attributes => return Ok(()),
            Some(part) => part,
            None => self.parts.entry(name.to_owned()).or_default(),
        };
        part.owner.clone_from(&plan.uid);
        part.attributes = attributes;
        self.changes += 1;
        Ok(())
    }

    fn create(&mut self, plan: &Plan) -> Result<(), Trouble> {
        let parts = &plan.parts;
        for queue in [&parts.files_queue, &parts.chunks_queue] {
            let plain = |name| {
                BTreeMap::from([
                    ("QueueArn".to_owned(), arn(name)),
                    ("FifoQueue".to_owned(), "true".to_owned()),
                ])
            };
            self.make(
                plan,
                &queue.dead_letter_name,
                plain(&queue.dead_letter_name),
            )?;
            let redrive = RedrivePolicy {
                target: arn(&queue.dead_letter_name),
                max_receive_count: queue.max_receive_count,
            };
            let mut attributes = plain(&queue.name);
            attributes.insert("RedrivePolicy".into(), redrive.to_json());
            let hiding = queue.visibility_timeout_seconds.to_string();
            attributes.insert("VisibilityTimeout".into(), hiding);
            self.make(plan, &queue.name, attributes)?;
        }
        let stream = &parts.stream;
        let attributes = [
            ("OpenShardCount", stream.shards),
            ("RetentionPeriodHours", stream.retention_hours),
        ]
        .map(|(key, number)| (key.to_owned(), number.to_string()));
        self.make(plan, &stream.name, attributes.into())
    }

    fn attributes(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        self.parts.get(name).map(|part| &part.attributes)
    }

    fn waiting(&self, name: &str) -> Option<u64> {
        self.parts.get(name).map(|part| part.waiting)
    }
}

fn arn(name: &str) -> String {
    format!("arn:memory:{name}")
}

#[async_trait]
impl Provisioner for Memory {
    async fn provide(
        &self,
        plan: &Plan,
        _: Option<&AwsCredentials>,
    ) -> Result<TransportStatus, Trouble> {
        self.answer().await;
        let mut state = self.state();
        match plan.policy {
            TransportPolicy::Create => state.create(plan)?,
            TransportPolicy::Adopt => {
                let queues = plan.queues().map(|name| state.attributes(name));
                let has_stream = state.parts.contains_key(&plan.parts.stream.name);
                rules::adoptable(plan, queues, has_stream)?;
            }
        }
        Ok(TransportStatus {
            files_queue_url: Some(format!("memory://{}", plan.parts.files_queue.name)),
            chunks_queue_url: Some(format!("memory://{}", plan.parts.chunks_queue.name)),
            stream_arn: Some(format!("memory://{}", plan.parts.stream.name)),
        })
    }

    async fn depths(&self, plan: &Plan, _: Option<&AwsCredentials>) -> Depths {
        self.answer().await;
        let state = self.state();
        let depth = |name| {
            state.waiting(name).map(|visible| Depth {
                visible,
                ..Depth::default()
            })
        };
        let [files, files_dead, chunks, chunks_dead] = plan.queues().map(depth);
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
        _: Option<&AwsCredentials>,
    ) -> Result<Vec<String>, Trouble> {
        self.answer().await;
        if let Some(left) = rules::kept(plan, policy) {
            return Ok(left);
        }
        let mut state = self.state();
        if policy == DeletionPolicy::WhenEmpty {
            let waiting: Vec<_> = plan
                .queues()
                .into_iter()
                .filter_map(|name| Some((name, Some(state.waiting(name)?))))
                .collect();
            if let Some(left) = rules::filled(plan, &waiting) {
                return Ok(left);
            }
        }
        let mut left = Vec::new();
        for name in plan.queues().into_iter().chain([&*plan.parts.stream.name]) {
            match state.parts.get(name).map(|part| part.owner == plan.uid) {
                Some(true) => {
                    state.parts.remove(name);
                    state.changes += 1;
                }
                Some(false) => left.push(rules::untagged(name)),
                None => {}
            }
        }
        Ok(left)
    }
}
