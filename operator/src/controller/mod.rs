//! The recipe: resolve, build, apply, prune, status. It reads what watches and the transport desk have seen, never
//! asks AWS, and writes only what differs.

mod context;
mod objects;
pub mod release;
mod status_writer;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use kube::runtime::controller::Action;
use serde_json::Value;
use streampress_crds::CheckedPipeline;
use streampress_crds::api::pipeline::{CompressionPipeline, TransportPolicy};
use streampress_crds::settings::Resolved;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use crate::apply::applier::WriteError;
use crate::decide::drain::Drain;
use crate::decide::replicas::replicas;
use crate::decide::status::{Observed, TransportView, Trouble};
use crate::resources::names;
use crate::resources::owned_object::{Child, Kind};
use crate::resources::{Replicas, build};
use crate::state::cache::address;
use crate::state::cluster_state::{Live, owner_uid};
use crate::state::ledger;
use crate::transport::Plan;
use crate::transport::manager::{Removal, Seen};
use streampress_transport::error_chain;

pub use context::{Context, Memory};
use objects::{prune, write};
use status_writer::{STATUS, say, status_of};

/// How long one look at one pipeline may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// So many failures in a row are told of in the status: most pass before.
const SEVERAL: u32 = 4;
/// How long workers of a deleted pipeline may take before its queues go: most of the time that a pod gets.
const ENDING: Duration = Duration::from_secs(45);
/// A pipeline at rest is looked at so often, in case an event was missed. It costs no request.
const RARELY: Duration = Duration::from_secs(600);

/// Why a look at a pipeline failed.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// A write.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Time.
    #[error("this took longer than {} s", DEADLINE.as_secs())]
    TooLong,
}

/// One look at one pipeline.
pub async fn reconcile(
    object: Arc<DynamicObject>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let began = Instant::now();
    let object = unfolded(&object);
    let outcome = timeout(DEADLINE, look(&object, &context))
        .await
        .unwrap_or(Err(ReconcileError::TooLong));
    if let Err(error) = &outcome
        && context.remember(&object, |memory| memory.failures) + 1 >= SEVERAL
    {
        let told = timeout(DEADLINE, tell_of(error, &object, &context)).await;
        debug!(?told, "Told of what goes wrong again and again.");
    }
    let word = if outcome.is_ok() { "ok" } else { "error" };
    context.metrics.reconciled(word, began.elapsed());
    context.conclude(&object, outcome.is_ok());
    outcome
}

/// Says in the status that the spec cannot be carried out for now.
async fn tell_of(
    error: &ReconcileError,
    object: &DynamicObject,
    context: &Context,
) -> Result<(), ReconcileError> {
    let (Ok(pipeline), None) = (typed(object), &object.metadata.deletion_timestamp) else {
        return Ok(());
    };
    let Ok(checked) = CheckedPipeline::in_cluster(pipeline) else {
        return Ok(());
    };
    let (pipeline, resolved) = checked.into_parts();
    let owner = address(object);
    let objects = context.store.of(&owner);
    let live = Live::of(&owner, &objects);
    let transport = context.desk.look(&Plan::of(&pipeline, &resolved));
    let trouble = Trouble {
        reason: "NotApplied".into(),
        message: format!(
            "The spec is not carried out yet: {}. Trying again; what ran before keeps running.",
            error_chain(error)
        ),
        lasting: false,
    };
    let seen = Observed {
        refused: Some(trouble),
        ..observed(
            object,
            &pipeline,
            &resolved,
            &live,
            &Replicas::new(),
            transport,
        )
    };
    status_of(object, seen, context).await?;
    Ok(())
}

/// A pipeline as it is kept between two looks: spec and status as text, which needs less memory than parsed.
pub fn folded(mut object: DynamicObject) -> DynamicObject {
    object.data = Value::String(object.data.to_string());
    object
}

fn unfolded(object: &DynamicObject) -> DynamicObject {
    let data = match &object.data {
        Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
        whole => whole.clone(),
    };
    DynamicObject {
        types: object.types.clone(),
        metadata: object.metadata.clone(),
        data,
    }
}

/// After a failure: again, later and later, but soon after what went wrong is over.
pub fn after_failure(
    object: Arc<DynamicObject>,
    error: &ReconcileError,
    context: Arc<Context>,
) -> Action {
    let failures = context.remember(&object, |memory| memory.failures);
    warn!(pipeline = %describe(&object), error = %error_chain(error), "Could not finish; trying again.");
    Action::requeue(Duration::from_secs(1 << failures.min(4)))
}

async fn look(object: &DynamicObject, context: &Context) -> Result<Action, ReconcileError> {
    let pipeline = match typed(object) {
        Ok(pipeline) => pipeline,
        Err(why) => {
            if object.metadata.deletion_timestamp.is_some() {
                return delete(object, None, context).await;
            }
            let seen = Observed {
                invalid: vec![why],
                generation: object.metadata.generation,
                ..Observed::default()
            };
            return say(object, seen, context).await;
        }
    };
    let checked = CheckedPipeline::in_cluster(pipeline);
    if object.metadata.deletion_timestamp.is_some() {
        return delete(
            object,
            checked.ok().map(CheckedPipeline::into_parts),
            context,
        )
        .await;
    }
    match checked {
        Ok(checked) => run(object, checked.pipeline(), checked.resolved(), context).await,
        Err(invalid) => {
            let invalid = invalid.iter().map(ToString::to_string).collect();
            say(
                object,
                Observed {
                    invalid,
                    generation: object.metadata.generation,
                    ..Observed::default()
                },
                context,
            )
            .await
        }
    }
}

async fn run(
    object: &DynamicObject,
    pipeline: &CompressionPipeline,
    resolved: &Resolved,
    context: &Context,
) -> Result<Action, ReconcileError> {
    let owner = address(object);
    // Only what was made for this pipeline must be dealt with at its end.
    if pipeline.spec.transport.policy == TransportPolicy::Create && !holds_finalizer(object) {
        context.hands.take_finalizer(object).await?;
    }
    let transport = context.desk.look(&Plan::of(pipeline, resolved));
    let objects = context.store.of(&owner);
    let live = Live::of(&owner, &objects);
    let step = context.drain(object, pipeline, &live, &transport);
    let now = context.began.elapsed();
    let (replicas, look_again) = context.remember(object, |memory| {
        replicas(
            &pipeline.spec,
            step,
            &transport.depths,
            |role| live.replicas(role),
            &mut memory.scaling,
            now,
        )
    });

    let ready = matches!(transport.view, TransportView::Ready(_));
    let mut children = build(pipeline, resolved, &replicas, &context.platform);
    // A worker without queues would only fail; one that runs already goes on.
    children.retain(|child| {
        child.kind != Kind::Deployment || ready || live.get(Kind::Deployment, &child.name).is_some()
    });
    // When a pipeline is deleted, the watch of its objects may be ahead of its own: what is made anew then would be left
    // to the garbage collector, which may take a minute.
    let was_made = pipeline
        .status
        .as_ref()
        .is_some_and(|status| status.observed_generation.is_some());
    let is_missing = |child: &Child| live.get(child.kind, &child.name).is_none();
    if was_made && children.iter().any(is_missing) && !context.hands.is_there(object).await? {
        return Ok(Action::await_change());
    }
    let refused = match write(&children, &live, context).await {
        Ok(()) => None,
        Err(error) if error.is_lasting() => Some(Trouble {
            reason: "Refused".into(),
            message: format!("The API server refused: {}.", error_chain(&error)),
            lasting: true,
        }),
        Err(error) => return Err(error.into()),
    };
    let leaving = prune(&children, resolved, &live, context).await?;

    let objects = context.store.of(&owner);
    let live = Live::of(&owner, &objects);
    let seen = Observed {
        refused,
        drain: Some(step),
        ..observed(object, pipeline, resolved, &live, &replicas, transport)
    };
    let busy = leaving
        || live.held_slots() > 0
        || [seen.depths.files, seen.depths.chunks]
            .into_iter()
            .flatten()
            .any(|depth| depth.total() > 0);
    let settling = match step {
        Drain::Settling(left) => Some(left),
        Drain::NotAsked | Drain::Drained => None,
        Drain::Stopping | Drain::Emptying(_) => Some(Duration::from_secs(5)),
    };
    let refused_again = seen.refused.is_some().then_some(Duration::from_secs(60));
    let said = status_of(object, seen, context).await?;
    let next = [
        look_again,
        settling,
        said,
        refused_again,
        busy.then_some(STATUS),
        Some(RARELY),
    ];
    Ok(Action::requeue(
        next.into_iter().flatten().min().unwrap_or(RARELY),
    ))
}

fn observed(
    object: &DynamicObject,
    pipeline: &CompressionPipeline,
    resolved: &Resolved,
    live: &Live<'_>,
    replicas: &Replicas,
    transport: Seen,
) -> Observed {
    let files = pipeline
        .spec
        .generator
        .as_ref()
        .map(|generator| generator.files);
    let ledgers = live.ledgers();
    Observed {
        generation: object.metadata.generation,
        transport: transport.view,
        depths: transport.depths,
        roles: live.roles(resolved, replicas),
        progress: ledger::progress(&ledgers),
        unaccounted: ledger::unaccounted(&ledgers),
        files_wanted: files.filter(|files| *files > 0),
        ..Observed::default()
    }
}

async fn delete(
    object: &DynamicObject,
    known: Option<(CompressionPipeline, Resolved)>,
    context: &Context,
) -> Result<Action, ReconcileError> {
    if !holds_finalizer(object) {
        return Ok(Action::await_change());
    }
    let left = match known {
        None => vec![unread(object)],
        Some((pipeline, resolved)) => {
            let owner = address(object);
            let objects = context.store.of(&owner);
            let uid = object.metadata.uid.as_deref();
            for (key, live) in &objects {
                if key.kind == Kind::Deployment && owner_uid(live) == uid {
                    context.hands.delete(key, live, &context.store).await?;
                }
            }
            let live = Live::of(&owner, &objects);
            // What a worker sends while its queue is deleted is lost: it has the time that a pod gets to end.
            if let Some(left) = time_to_end(object).filter(|_| live.held_slots() > 0) {
                let doing = "Workers are finishing what they have in hand.".to_owned();
                return deleting(object, doing, left.min(Duration::from_secs(1)), context).await;
            }
            let plan = Plan::of(&pipeline, &resolved);
            match context
                .desk
                .remove(&plan, pipeline.spec.transport.deletion_policy)
            {
                Removal::Done(left) => left,
                Removal::Going => {
                    let doing = "Workers are stopped; queues and stream are being dealt with by deletionPolicy.".to_owned();
                    return deleting(object, doing, Duration::from_secs(5), context).await;
                }
            }
        }
    };
    if !left.is_empty() {
        context
            .events
            .warn(object, "TransportLeftBehind", &left.join("; "))
            .await;
    }
    context.hands.give_finalizer_back(object).await?;
    if left.is_empty() {
        info!(pipeline = %describe(object), "Deleted.");
    } else {
        // Where the namespace goes too, this is the only place that says so.
        warn!(pipeline = %describe(object), left = left.join("; "), "Deleted; queues or a stream are left behind.");
    }
    Ok(Action::await_change())
}

/// Says what is still being done about a pipeline that goes; looks again after `pause`.
async fn deleting(
    object: &DynamicObject,
    doing: String,
    pause: Duration,
    context: &Context,
) -> Result<Action, ReconcileError> {
    let seen = Observed {
        deleting: Some(doing),
        generation: object.metadata.generation,
        ..Observed::default()
    };
    status_of(object, seen, context).await?;
    Ok(Action::requeue(pause))
}

/// How long workers of a deleted pipeline may still take.
fn time_to_end(object: &DynamicObject) -> Option<Duration> {
    let deleted = object.metadata.deletion_timestamp.as_ref()?.0;
    let since = Timestamp::now().duration_since(deleted).unsigned_abs();
    ENDING.checked_sub(since).filter(|left| !left.is_zero())
}

/// A pipeline as our types have it; the error is a sentence for its owner.
fn typed(object: &DynamicObject) -> Result<CompressionPipeline, String> {
    let text = serde_json::to_value(object).map_err(|error| error.to_string())?;
    serde_json::from_value(text).map_err(|error| format!("the pipeline cannot be read ({error}): it was written for another version of the CustomResourceDefinition"))
}

/// What becomes of the transport of a pipeline whose spec says nothing that could be gone by: named from the status.
fn unread(object: &DynamicObject) -> String {
    let transport = &object.data["status"]["transport"];
    let parts = ["filesQueueURL", "chunksQueueURL", "streamARN"];
    let parts: Vec<&str> = parts
        .into_iter()
        .filter_map(|part| transport[part].as_str())
        .collect();
    let parts = match parts.is_empty() {
        true => "queues and stream, where they were made,".to_owned(),
        false => parts.join(", "),
    };
    format!(
        "{parts} may be left behind: the spec was invalid to the end, so that its deletionPolicy could not be followed"
    )
}

fn describe(object: &DynamicObject) -> String {
    let (namespace, name) = address(object);
    format!("{namespace}/{name}")
}

fn holds_finalizer(object: &DynamicObject) -> bool {
    object
        .metadata
        .finalizers
        .iter()
        .flatten()
        .any(|finalizer| finalizer == names::FINALIZER)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with_status(status: serde_json::Value) -> DynamicObject {
        serde_json::from_value(json!({"metadata": {"name": "a"}, "status": status}))
            .expect("an object")
    }

    #[test]
    fn a_pipeline_comes_back_from_its_text_as_it_was() {
        let whole = with_status(json!({"phase": "Running", "backlog": {"files": 3}}));
        assert_eq!(unfolded(&folded(whole.clone())), whole);
        assert_eq!(unfolded(&whole), whole);
    }

    #[test]
    fn what_an_unreadable_pipeline_leaves_behind_is_named() {
        let made = with_status(json!({"transport": {
            "filesQueueURL": "https://sqs/files.fifo", "chunksQueueURL": "https://sqs/chunks.fifo", "streamARN": "arn:s",
        }}));
        assert!(unread(&made).starts_with(
            "https://sqs/files.fifo, https://sqs/chunks.fifo, arn:s may be left behind"
        ));
        assert!(
            unread(&with_status(json!({}))).starts_with("queues and stream, where they were made,")
        );
    }
}
