//! What reconciling needs, and what it remembers of each pipeline between two looks.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kube::api::DynamicObject;
use streampress_crds::api::pipeline::CompressionPipeline;
use streampress_crds::api::status::{CompressionPipelineStatus, Phase};
use tokio::time::Instant;

use crate::apply::applier::Hands;
use crate::apply::events::Events;
use crate::decide::drain::{Drain, Facts, drain};
use crate::decide::replicas::Scaling;
use crate::http::metrics::Metrics;
use crate::resources::Platform;
use crate::state::cache::Store;
use crate::state::cluster_state::Live;
use crate::transport::manager::{Desk, Seen};

/// Everything that reconciling needs.
pub struct Context {
    /// Writes.
    pub hands: Hands,
    /// What was seen.
    pub store: Store,
    /// Queues and streams.
    pub desk: Desk,
    /// Events.
    pub events: Events,
    /// Figures.
    pub metrics: Metrics,
    /// What workers are made with.
    pub platform: Platform,
    /// What is remembered between looks, by UID.
    pub memories: Mutex<HashMap<String, Memory>>,
    /// The beginning of monotonic time.
    pub began: Instant,
}

/// What is remembered of one pipeline.
#[derive(Debug, Default)]
pub struct Memory {
    pub(super) scaling: Scaling,
    pub(super) empty_since: Option<Duration>,
    pub(super) written: Option<Written>,
    pub(super) failures: u32,
    pub(super) phase: Option<Phase>,
    pub(super) first_look: Option<Instant>,
}

/// The last status write.
#[derive(Clone, Debug)]
pub(super) struct Written {
    /// What it said, until the watch has brought it back.
    pub(super) status: Option<Box<CompressionPipelineStatus>>,
    pub(super) version: u64,
    pub(super) at: Instant,
}

impl Context {
    /// Looks at or changes what is remembered.
    pub(super) fn remember<T>(
        &self,
        object: &DynamicObject,
        change: impl FnOnce(&mut Memory) -> T,
    ) -> T {
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        change(memories.entry(uid).or_default())
    }

    /// A look has ended, perhaps of a pipeline that has gone in the meantime.
    pub(super) fn conclude(&self, object: &DynamicObject, well: bool) {
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        if let Some(memory) = memories.get_mut(uid) {
            memory.failures = if well {
                0
            } else {
                memory.failures.saturating_add(1)
            };
        }
    }

    /// The pipeline is gone.
    pub fn forget(&self, uid: &str) {
        self.retain(|other| other != uid);
    }

    /// Only these are still there.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool) {
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        memories.retain(|uid, memory| {
            let stays = is_there(uid);
            if !stays {
                self.metrics.phase(memory.phase, None);
            }
            stays
        });
        drop(memories);
        self.desk.retain(is_there);
    }

    /// How far suspending has come.
    pub(super) fn drain(
        &self,
        object: &DynamicObject,
        pipeline: &CompressionPipeline,
        live: &Live<'_>,
        transport: &Seen,
    ) -> Drain {
        let was_drained = pipeline
            .status
            .iter()
            .flat_map(|status| &status.conditions)
            .any(|condition| condition.type_ == "Drained" && condition.status == "True");
        let facts = Facts {
            chunks: transport.depths.chunks,
            ..live.drain_facts(pipeline.spec.suspend, was_drained)
        };
        let now = self.began.elapsed();
        self.remember(object, |memory| drain(&facts, &mut memory.empty_since, now))
    }
}
