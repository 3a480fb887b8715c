//! Queues and streams that exist in memory only: for tests of everything around them. It can be told to be dead.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use streampress_crds::pipeline::{DeletionPolicy, TransportPolicy};
use streampress_crds::status::TransportStatus;

use super::{Credentials, Depth, Depths, Plan, Provisioner};
use crate::status::Trouble;

/// The world of one test.
#[derive(Debug, Default)]
pub struct Memory {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Owner's UID and depth, by name.
    parts: BTreeMap<String, (String, u64)>,
    hangs: bool,
    calls: u64,
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
        if let Some((_, depth)) = self.state().parts.get_mut(name) {
            *depth = messages;
        }
    }

    /// Something that was there before, of somebody else.
    pub fn exists(&self, name: &str, owner: &str) {
        self.state()
            .parts
            .insert(name.to_owned(), (owner.to_owned(), 0));
    }

    /// The names of all there is.
    pub fn names(&self) -> Vec<String> {
        self.state().parts.keys().cloned().collect()
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

fn names(plan: &Plan) -> [&String; 5] {
    let parts = &plan.parts;
    [
        &parts.files_queue.name,
        &parts.files_queue.dead_letter_name,
        &parts.chunks_queue.name,
        &parts.chunks_queue.dead_letter_name,
        &parts.stream.name,
    ]
}

#[async_trait]
impl Provisioner for Memory {
    async fn provide(
        &self,
        plan: &Plan,
        _: Option<&Credentials>,
    ) -> Result<TransportStatus, Trouble> {
        self.answer().await;
        let mut state = self.state();
        for name in names(plan) {
            match plan.policy {
                TransportPolicy::Create => {
                    state
                        .parts
                        .entry(name.clone())
                        .or_insert_with(|| (plan.uid.clone(), 0));
                }
                TransportPolicy::Adopt if state.parts.contains_key(name) => {}
                TransportPolicy::Adopt => {
                    return Err(Trouble {
                        reason: "TransportMissing".into(),
                        message: format!(
                            "there is no {name}; make it, or set transport.policy to Create"
                        ),
                        lasting: true,
                    });
                }
            }
        }
        Ok(TransportStatus {
            files_queue_url: Some(format!("memory://{}", plan.parts.files_queue.name)),
            chunks_queue_url: Some(format!("memory://{}", plan.parts.chunks_queue.name)),
            stream_arn: Some(format!("memory://{}", plan.parts.stream.name)),
        })
    }

    async fn depths(&self, plan: &Plan, _: Option<&Credentials>) -> Depths {
        self.answer().await;
        let state = self.state();
        let depth = |name: &String| {
            state.parts.get(name).map(|(_, visible)| Depth {
                visible: *visible,
                ..Depth::default()
            })
        };
        let [files, files_dead, chunks, chunks_dead, _] = names(plan);
        Depths {
            files: depth(files),
            chunks: depth(chunks),
            dead: Some(
                depth(files_dead)
                    .zip(depth(chunks_dead))
                    .map_or(0, |(a, b)| a.total() + b.total()),
            ),
        }
    }

    async fn remove(
        &self,
        plan: &Plan,
        policy: DeletionPolicy,
        _: Option<&Credentials>,
    ) -> Result<Vec<String>, Trouble> {
        self.answer().await;
        let mut state = self.state();
        let mut left = Vec::new();
        for name in names(plan) {
            let Some((owner, depth)) = state.parts.get(name) else {
                continue;
            };
            let why = match policy {
                _ if *owner != plan.uid => Some("does not carry this pipeline's tag"),
                DeletionPolicy::Retain => Some("is kept by deletionPolicy Retain"),
                DeletionPolicy::WhenEmpty if *depth > 0 => Some("is not empty"),
                DeletionPolicy::WhenEmpty | DeletionPolicy::Delete => None,
            };
            match why {
                Some(why) => left.push(format!("{name} {why}")),
                None => {
                    state.parts.remove(name);
                }
            }
        }
        Ok(left)
    }
}
