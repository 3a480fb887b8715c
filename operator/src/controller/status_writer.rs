//! Writes a pipeline's status, and decides when.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use streampress_crds::CompressionPipelineStatus;
use tokio::time::Instant;

use super::context::{STATUS_INTERVAL, WrittenStatus, number};
use super::{Context, ReconcileError};
use crate::decide::status::{PipelineObservation, stands, status};
use crate::state::pipeline::WatchedPipeline;
use crate::transport::TransportState;

/// The first status of a new pipeline waits so long for queues and stream, so that it has more to report than their creation.
const FIRST_STATUS_DELAY: Duration = Duration::from_secs(1);

/// Writes the status where it changes: at once, unless the last write was a moment ago. Gives the time after which it may be
/// written.
pub(super) async fn write_status(
    pipeline: &WatchedPipeline,
    seen: PipelineObservation,
    context: &Context,
) -> Result<Option<Duration>, ReconcileError> {
    let (former, written_at) = context.former(pipeline);
    let mut new = status(&seen, &former, Time(Timestamp::now()));
    if !seen.invalid.is_empty() || seen.deleting.is_some() {
        // These were not observed.
        new = CompressionPipelineStatus {
            roles: former.roles.clone(),
            progress: former.progress.clone(),
            backlog: former.backlog.clone(),
            retention: former.retention.clone(),
            ..new
        };
    }
    if stands(&seen, &former) {
        new = former.clone();
    }
    let (namespace, name) = (
        pipeline.namespace().unwrap_or_default(),
        pipeline.name_any(),
    );
    context.metrics.pipeline(&namespace, &name, &new);
    let before = context.memo(pipeline, |memo| {
        memo.measured = Some((namespace, name));
        std::mem::replace(&mut memo.phase, new.phase)
    });
    context.metrics.phase(before, new.phase);
    if new == former {
        return Ok(None);
    }
    let is_first = former.phase.is_none()
        && seen.transport == TransportState::Pending
        && seen.invalid.is_empty();
    let delay = match written_at {
        // What happens meanwhile is written then, once.
        Some(at) => Some((at, STATUS_INTERVAL)),
        None if is_first => {
            let first = context.memo(pipeline, |memo| {
                *memo.first_reconcile.get_or_insert_with(Instant::now)
            });
            Some((first, FIRST_STATUS_DELAY))
        }
        None => None,
    };
    if let Some(left) = delay
        .and_then(|(since, delay)| delay.checked_sub(since.elapsed()))
        .filter(|left| !left.is_zero())
    {
        return Ok(Some(left));
    }
    let version = context.applier.write_status(pipeline, &new).await?;
    context.events.status_changed(pipeline, &former, &new).await;
    context.memo(pipeline, |memo| {
        memo.written = Some(WrittenStatus {
            status: Some(Box::new(new)),
            version: number(version),
            at: Instant::now(),
        });
    });
    Ok(None)
}
