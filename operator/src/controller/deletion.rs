//! The end of a pipeline: its workers stop, its transport is dealt with by `deletionPolicy`, and the finalizer is removed.
//! What is left behind is named, and nothing delays the end without a limit.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::runtime::controller::Action;
use streampress_crds::{CheckedPipeline, Reason};
use tracing::{info, warn};

use super::prune::key;
use super::status_writer::write_status;
use super::{Context, ReconcileError};
use crate::decide::status::PipelineObservation;
use crate::resources::ObjectKind;
use crate::state::pipeline::WatchedPipeline;
use crate::transport::TransportPlan;
use crate::transport::manager::Removal;

/// How long workers of a deleted pipeline may take before its queues are deleted: most of the time that a pod gets.
const WORKERS_DEADLINE: Duration = Duration::from_secs(45);

/// Deletes what belongs to a pipeline outside the cluster. `checked` is `None` where the spec cannot be followed.
pub(super) async fn delete(
    pipeline: &WatchedPipeline,
    checked: Option<&CheckedPipeline>,
    context: &Context,
) -> Result<Action, ReconcileError> {
    if !pipeline.has_finalizer() {
        return Ok(Action::await_change());
    }
    let left = match checked {
        None => vec![left_by_invalid(pipeline)],
        Some(checked) => {
            let state = context.cache.snapshot(&pipeline.key());
            for (kind, name, object) in state.objects() {
                let is_ours = object.owner_uid.as_deref() == Some(pipeline.uid());
                if kind == ObjectKind::Deployment && is_ours {
                    let key = key(&state, kind, name);
                    context.applier.delete(&key, &object.uid).await?;
                }
            }
            // What a worker sends while its queue is deleted is lost: it has the time that a pod gets to end.
            if let Some(left) = time_to_end(pipeline).filter(|_| state.held_slots() > 0) {
                let doing = "Workers are finishing the files that they have begun.";
                return wait(pipeline, doing, left.min(Duration::from_secs(1)), context).await;
            }
            let plan = TransportPlan::of(checked.pipeline(), checked.resolved());
            let policy = checked.pipeline().spec.transport.deletion_policy;
            match context.transport.remove(&plan, policy) {
                Removal::Done(left) => left,
                Removal::InProgress(problem) => {
                    let doing = "Workers have stopped; deletionPolicy is being applied to queues and stream.";
                    let doing = match problem {
                        None => doing.to_owned(),
                        Some(problem) => format!(
                            "{doing} {problem} This is tried for ten minutes; then an Event names what is left behind."
                        ),
                    };
                    return wait(pipeline, &doing, Duration::from_secs(5), context).await;
                }
            }
        }
    };
    let left = left.join("; ");
    if !left.is_empty() {
        let reason = Reason::TransportLeftBehind;
        context.events.warn(pipeline, reason, &left).await;
    }
    context.applier.remove_finalizer(pipeline).await?;
    if left.is_empty() {
        info!(pipeline = %pipeline.key(), "Deleted.");
    } else {
        // Where the namespace is deleted too, its Events are, and this is the only message.
        warn!(pipeline = %pipeline.key(), left, "Deleted; queues or a stream are left behind.");
    }
    Ok(Action::await_change())
}

/// Reports what is still being done, and comes back after a pause.
async fn wait(
    pipeline: &WatchedPipeline,
    doing: &str,
    pause: Duration,
    context: &Context,
) -> Result<Action, ReconcileError> {
    let seen = PipelineObservation {
        deleting: Some(doing.to_owned()),
        generation: pipeline.meta().generation,
        ..PipelineObservation::default()
    };
    write_status(pipeline, seen, context).await?;
    Ok(Action::requeue(pause))
}

/// How long workers of a deleted pipeline may still take.
fn time_to_end(pipeline: &WatchedPipeline) -> Option<Duration> {
    let deleted = pipeline.meta().deletion_timestamp.as_ref()?.0;
    let since = Timestamp::now().duration_since(deleted).unsigned_abs();
    WORKERS_DEADLINE
        .checked_sub(since)
        .filter(|left| !left.is_zero())
}

/// What an invalid spec leaves behind, from the status.
fn left_by_invalid(pipeline: &WatchedPipeline) -> String {
    let transport = pipeline.status().transport.unwrap_or_default();
    let parts = [
        transport.files_queue_url,
        transport.chunks_queue_url,
        transport.receipts_queue_url,
        transport.stream_arn,
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let parts = match parts.is_empty() {
        true => "queues and stream, where they were made,".to_owned(),
        false => parts.join(", "),
    };
    format!(
        "{parts} may be left behind: the spec was invalid to the end, so that its deletionPolicy could not be followed"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn with_status(status: Value) -> WatchedPipeline {
        let object = json!({"metadata": {"name": "a"}, "spec": "unreadable", "status": status});
        serde_json::from_value(object).expect("an object")
    }

    #[test]
    fn what_an_unreadable_pipeline_leaves_behind_is_named() {
        let made = with_status(json!({"transport": {
            "filesQueueURL": "https://sqs/files.fifo", "chunksQueueURL": "https://sqs/chunks.fifo", "streamARN": "arn:s",
        }}));
        assert!(left_by_invalid(&made).starts_with(
            "https://sqs/files.fifo, https://sqs/chunks.fifo, arn:s may be left behind"
        ));
        assert!(
            left_by_invalid(&with_status(json!({})))
                .starts_with("queues and stream, where they were made,")
        );
    }
}
