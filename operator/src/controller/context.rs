//! What reconciling needs, and what it remembers of each pipeline from one reconcile to the next.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use parking_lot::Mutex;
use streampress_crds::api::status::Phase;
use streampress_crds::{CompressionPipeline, CompressionPipelineStatus};
use streampress_transport::EmptyQueues;
use tokio::time::Instant;

use super::retention_spec;
use crate::apply::applier::Applier;
use crate::apply::events::EventPublisher;
use crate::decide::drain::{Drain, DrainFacts, drain};
use crate::decide::replicas::ScalingHistories;
use crate::decide::retention::{self, RetentionFacts, RetentionReport, WaitingHistory};
use crate::http::metrics::OperatorMetrics;
use crate::resources::WorkerDefaults;
use crate::state::cache::ObjectCache;
use crate::state::cluster_state::ClusterState;
use crate::state::pipeline::WatchedPipeline;
use crate::state::transport_users::TransportUsers;
use crate::transport::TransportState;
use crate::transport::manager::{TransportManager, TransportSnapshot};

/// The shortest time between two writes of one pipeline's status, whatever happens meanwhile.
pub(super) const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Everything that reconciling needs.
pub(crate) struct Context {
    /// Writes.
    pub(crate) applier: Applier,
    /// What was seen of owned objects.
    pub(crate) cache: Arc<ObjectCache>,
    /// Queues and streams.
    pub(crate) transport: TransportManager,
    /// Which pipelines use which of them.
    pub(crate) transport_users: TransportUsers,
    /// Events.
    pub(crate) events: EventPublisher,
    /// Metrics.
    pub(crate) metrics: OperatorMetrics,
    /// The operator's own settings for workers.
    pub(crate) defaults: WorkerDefaults,
    /// What is remembered of pipelines, by UID.
    pub(crate) memos: Mutex<HashMap<String, PipelineMemo>>,
    /// The beginning of monotonic time.
    pub(crate) began: Instant,
}

/// What is remembered of one pipeline.
#[derive(Debug, Default)]
pub(crate) struct PipelineMemo {
    pub(super) scaling: ScalingHistories,
    pub(super) empty: EmptyQueues<Duration>,
    pub(super) waiting: Option<WaitingHistory>,
    /// Namespace and name, once there are metrics of it.
    pub(super) measured: Option<(String, String)>,
    pub(super) written: Option<WrittenStatus>,
    pub(super) failures: u32,
    pub(super) phase: Option<Phase>,
    pub(super) first_reconcile: Option<Instant>,
}

/// The last status write.
#[derive(Clone, Debug)]
pub(super) struct WrittenStatus {
    /// The status, until the watch has brought it back.
    pub(super) status: Option<Box<CompressionPipelineStatus>>,
    pub(super) version: u64,
    pub(super) at: Instant,
}

impl Context {
    /// Reads or changes what is remembered.
    pub(super) fn memo<T>(
        &self,
        pipeline: &WatchedPipeline,
        change: impl FnOnce(&mut PipelineMemo) -> T,
    ) -> T {
        let mut memos = self.memos.lock();
        change(memos.entry(pipeline.uid().to_owned()).or_default())
    }

    /// The status that was written last, and when by this process.
    pub(super) fn former(
        &self,
        pipeline: &WatchedPipeline,
    ) -> (CompressionPipelineStatus, Option<Instant>) {
        let version = number(pipeline.resource_version());
        let (unseen, at) = self.memo(pipeline, |memo| match &mut memo.written {
            // The watch has not brought our last write yet.
            Some(written) if written.version > version => {
                (written.status.clone(), Some(written.at))
            }
            Some(written) => {
                written.status = None;
                (None, Some(written.at))
            }
            None => (None, None),
        });
        (
            unseen.map_or_else(|| pipeline.status(), |status| *status),
            at,
        )
    }

    /// Counts failures in a row. A pipeline that is gone in the meantime is not remembered again.
    pub(super) fn reconciled(&self, pipeline: &WatchedPipeline, succeeded: bool) {
        if let Some(memo) = self.memos.lock().get_mut(pipeline.uid()) {
            memo.failures = if succeeded {
                0
            } else {
                memo.failures.saturating_add(1)
            };
        }
    }

    /// Forgets a pipeline.
    pub(crate) fn forget(&self, uid: &str) {
        self.retain(|other| other != uid);
    }

    /// Forgets all pipelines but these UIDs.
    pub(crate) fn retain(&self, exists: impl Fn(&str) -> bool) {
        let mut gone = Vec::new();
        let mut memos = self.memos.lock();
        memos.retain(|uid, memo| {
            let stays = exists(uid);
            if !stays {
                self.metrics.phase(memo.phase, None);
                gone.extend(memo.measured.take());
            }
            stays
        });
        // Another pipeline may have the name of one that is gone.
        gone.retain(|name| {
            !memos
                .values()
                .any(|memo| memo.measured.as_ref() == Some(name))
        });
        drop(memos);
        for (namespace, name) in gone {
            self.metrics.forget(&namespace, &name);
        }
        self.transport.retain(exists);
    }

    /// How far suspending has come.
    pub(super) fn drain(
        &self,
        watched: &WatchedPipeline,
        pipeline: &CompressionPipeline,
        state: &ClusterState,
        transport: &TransportSnapshot,
    ) -> Drain {
        let was_drained = pipeline
            .status
            .iter()
            .flat_map(|status| &status.conditions)
            .any(|condition| condition.type_ == "Drained" && condition.status == "True");
        let facts = DrainFacts {
            chunks: transport.depths.chunks,
            receipts: transport.depths.receipts,
            ..state.drain_facts(watched.uid(), pipeline.spec.suspend, was_drained)
        };
        let now = self.began.elapsed();
        self.memo(watched, |memo| drain(&facts, &mut memo.empty, now))
    }

    /// Whether the stream keeps records for long enough, and when to reconcile again although nothing changes.
    pub(super) fn retention(
        &self,
        watched: &WatchedPipeline,
        pipeline: &CompressionPipeline,
        transport: &TransportSnapshot,
        concluded: u64,
    ) -> (RetentionReport, Option<Duration>) {
        let (written, _) = self.former(watched);
        let now = Timestamp::now();
        let (waiting_since, is_pending) = self.memo(watched, |memo| {
            let resumed = || WaitingHistory::resumed(&written);
            let waiting = memo.waiting.get_or_insert_with(resumed);
            let since = waiting.observe(transport.depths, concluded, now);
            (since, waiting.is_pending())
        });
        let ready = match &transport.state {
            TransportState::Ready(ready) => Some(ready),
            TransportState::Pending | TransportState::Failed(_) => None,
        };
        let facts = RetentionFacts {
            hours: ready.and_then(|ready| ready.retention_hours),
            not_extended: ready.and_then(|ready| ready.not_extended.clone()),
            spec: retention_spec(pipeline),
            waiting_since,
        };
        let former = written.retention.unwrap_or_default();
        let report = retention::report(&facts, &former, now);
        (report, is_pending.then_some(STATUS_INTERVAL))
    }
}

/// A resource version as a number, to be compared; 0 where there is none.
pub(super) fn number(version: Option<String>) -> u64 {
    version
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}
