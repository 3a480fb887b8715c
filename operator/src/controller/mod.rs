//! Reconciling: resolve, build, apply, prune, status. It reads what watches and the transport manager have seen, never
//! calls AWS, and writes only what differs.

pub(crate) mod context;
mod deletion;
mod prune;
pub mod release;
mod status_writer;

use std::sync::Arc;
use std::time::Duration;

use kube::Resource;
use kube::runtime::controller::Action;
use streampress_crds::api::pipeline::TransportPolicy;
use streampress_crds::api::status::ProgressStatus;
use streampress_crds::{CheckedPipeline, CompressionPipeline, Reason};
use streampress_transport::error_chain;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use crate::apply::WriteError;
use crate::decide::drain::Drain;
use crate::decide::replicas::replicas;
use crate::decide::retention::{self, RetentionSpec};
use crate::decide::status::{PipelineObservation, RoleState, SCALING_TIME};
use crate::resources::{ObjectKind, OwnedObject, Replicas, build};
use crate::state::cluster_state::ClusterState;
use crate::state::ledger;
use crate::state::pipeline::WatchedPipeline;
use crate::state::transport_users::{self, NamesInUse};
use crate::transport::manager::TransportSnapshot;
use crate::transport::problem::{Problem, Retry};
use crate::transport::{TransportPlan, TransportState};

pub(crate) use context::Context;
use context::STATUS_INTERVAL;
use status_writer::write_status;

/// How long one reconcile may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// After so many failures in a row the status reports them: most pass before.
const REPORTED_FAILURES: u32 = 4;
/// A pipeline at rest is reconciled so often, in case an event was missed. That makes no request.
const RESYNC: Duration = Duration::from_secs(600);
/// Time between two reconciles of a pipeline of which the API server refuses an object.
const REFUSED_RETRY: Duration = Duration::from_secs(60);
/// Time between two reconciles while a suspended pipeline drains.
const DRAIN_INTERVAL: Duration = Duration::from_secs(5);

/// Why a reconcile failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// A write failed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The deadline passed.
    #[error("this took longer than {} s", DEADLINE.as_secs())]
    TooLong,
}

/// Reconciles one pipeline once.
pub(crate) async fn reconcile(
    pipeline: Arc<WatchedPipeline>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let began = Instant::now();
    let checked = check(&pipeline);
    let outcome = timeout(DEADLINE, reconcile_once(&pipeline, &checked, &context))
        .await
        .unwrap_or(Err(ReconcileError::TooLong));
    if let Err(error) = &outcome
        && let Ok(checked) = &checked
        && context.memo(&pipeline, |memo| memo.failures) + 1 >= REPORTED_FAILURES
    {
        let report = report_error(error, &pipeline, checked, &context);
        let reported = timeout(DEADLINE, report).await;
        debug!(?reported, "Reported what fails again and again.");
    }
    let label = if outcome.is_ok() { "ok" } else { "error" };
    context.metrics.reconciled(label, began.elapsed());
    context.reconciled(&pipeline, outcome.is_ok());
    outcome
}

/// After a failure: again, later and later, but soon after the cause has passed.
pub(crate) fn after_failure(
    pipeline: Arc<WatchedPipeline>,
    error: &ReconcileError,
    context: Arc<Context>,
) -> Action {
    let failures = context.memo(&pipeline, |memo| memo.failures);
    warn!(pipeline = %pipeline.key(), error = %error_chain(error), "Reconciling failed; trying again.");
    Action::requeue(Duration::from_secs(1 << failures.min(4)))
}

/// A pipeline's settings, or all that is wrong with it, a sentence each.
fn check(pipeline: &WatchedPipeline) -> Result<CheckedPipeline, Vec<String>> {
    let pipeline = pipeline.read().map_err(|why| vec![why])?;
    CheckedPipeline::in_cluster(pipeline.clone())
        .map_err(|invalid| invalid.iter().map(ToString::to_string).collect())
}

async fn reconcile_once(
    pipeline: &WatchedPipeline,
    checked: &Result<CheckedPipeline, Vec<String>>,
    context: &Context,
) -> Result<Action, ReconcileError> {
    if pipeline.is_deleting() {
        return deletion::delete(pipeline, checked.as_ref().ok(), context).await;
    }
    match checked {
        Ok(checked) => carry_out(pipeline, checked, context).await,
        Err(invalid) => report_invalid(pipeline, invalid.clone(), context).await,
    }
}

/// Carries out a valid spec.
async fn carry_out(
    watched: &WatchedPipeline,
    checked: &CheckedPipeline,
    context: &Context,
) -> Result<Action, ReconcileError> {
    let (pipeline, resolved) = (checked.pipeline(), checked.resolved());
    // Only what was made for this pipeline must be dealt with at its end.
    if pipeline.spec.transport.policy == TransportPolicy::Create
        && !watched.has_finalizer()
        && in_use(watched, context).is_none()
    {
        context.applier.add_finalizer(watched).await?;
    }
    let MaintainedTransport {
        snapshot: transport,
        is_refused,
    } = maintain(watched, checked, context);
    let state = context.cache.snapshot(&watched.key());
    // Before Leases are made anew, and their holders count again.
    let lost = ledger::lost(&said(watched, context), &state.ledgers(watched.uid()));
    let drain = context.drain(watched, pipeline, &state, &transport);
    let now = context.began.elapsed();
    let (mut replicas, scale_after) = context.memo(watched, |memo| {
        replicas(
            &pipeline.spec,
            resolved.transport.receipts_queue.is_some(),
            drain,
            &transport.depths,
            |role| state.replicas(role),
            &mut memo.scaling,
            now,
        )
    });

    if is_refused {
        // Workers that run would take the other pipeline's messages.
        replicas.values_mut().for_each(|pods| *pods = 0);
    }
    let mut desired = build(checked, &replicas, &context.defaults);
    let is_missing = |object: &OwnedObject| state.get(object.kind(), object.name()).is_none();
    // A worker without queues would only fail; one that runs already goes on.
    let is_ready = matches!(transport.state, TransportState::Ready(_));
    desired.retain(|object| {
        is_ready || object.kind() != ObjectKind::Deployment || !is_missing(object)
    });
    // When a pipeline is deleted, the watch of its objects may be ahead of its own: what is made again then would be left to
    // the garbage collector, which may take a minute.
    let was_made = pipeline
        .status
        .as_ref()
        .is_some_and(|status| status.observed_generation.is_some());
    if was_made && desired.iter().any(is_missing) && !context.applier.exists(watched).await? {
        return Ok(Action::await_change());
    }
    let not_applied = match prune::write(&desired, &state, context).await {
        Ok(()) => None,
        Err(error) => match error.problem() {
            None => return Err(error.into()),
            refused => refused,
        },
    };
    let leaving = prune::prune(watched.uid(), &desired, resolved, &state, context).await?;

    let state = context.cache.snapshot(&watched.key());
    prune::keep_lost(watched.uid(), &lost, &state, context).await?;
    let state = context.cache.snapshot(&watched.key());
    let concluded = ledger::concluded(&state.ledgers(watched.uid()));
    let (retention, retention_after) = context.retention(watched, pipeline, &transport, concluded);
    let seen = PipelineObservation {
        not_applied,
        drain: Some(drain),
        retention: Some(retention),
        ..observation(watched, checked, (&state, context), &replicas, transport)
    };
    let has_messages = [seen.depths.files, seen.depths.chunks, seen.depths.receipts]
        .into_iter()
        .flatten()
        .any(|depth| depth.total() > 0);
    let is_busy = leaving || has_messages || state.held_slots() > 0;
    let is_refused = seen.not_applied.is_some();
    let is_scaling = seen.roles.iter().any(RoleState::is_unsteady);
    let write_after = write_status(watched, seen, context).await?;
    // The status that was written now may want another retention.
    maintain(watched, checked, context);
    let next = [
        scale_after,
        drain_after(drain),
        retention_after,
        write_after,
        is_refused.then_some(REFUSED_RETRY),
        is_busy.then_some(STATUS_INTERVAL),
        is_scaling.then_some(SCALING_TIME),
    ];
    Ok(Action::requeue(
        next.into_iter().flatten().fold(RESYNC, Duration::min),
    ))
}

/// What is known of a pipeline's queues and stream.
struct MaintainedTransport {
    snapshot: TransportSnapshot,
    /// Another pipeline uses the same ones.
    is_refused: bool,
}

/// Has the queues and the stream maintained, unless another pipeline uses the same ones.
fn maintain(
    watched: &WatchedPipeline,
    checked: &CheckedPipeline,
    context: &Context,
) -> MaintainedTransport {
    let refused = |in_use: NamesInUse| MaintainedTransport {
        snapshot: TransportSnapshot {
            state: TransportState::Failed(in_use.problem()),
            is_answered: true,
            ..TransportSnapshot::default()
        },
        is_refused: true,
    };
    if let Some(in_use) = in_use(watched, context) {
        context.transport.stop(watched.uid());
        return refused(in_use);
    }
    let plan = transport_plan(watched, checked, context);
    let snapshot = context.transport.maintain(&plan);
    if let TransportState::Ready(ready) = &snapshot.state {
        let account = transport_users::account(&ready.status);
        let taken = context
            .transport_users
            .take(watched.uid(), account.as_deref());
        if let Err(in_use) = taken {
            return refused(in_use);
        }
    }
    if let TransportState::Failed(problem) = &snapshot.state
        && problem.reason == Reason::TransportNotOurs
    {
        context.transport_users.release(watched.uid());
    }
    MaintainedTransport {
        snapshot,
        is_refused: false,
    }
}

/// What another pipeline uses, by what is known before anything is looked up.
fn in_use(watched: &WatchedPipeline, context: &Context) -> Option<NamesInUse> {
    let (written, _) = context.former(watched);
    let account = written
        .transport
        .as_ref()
        .and_then(transport_users::account);
    let users = &context.transport_users;
    users.take(watched.uid(), account.as_deref()).err()
}

/// The pipeline's plan. What is done about the stream's retention follows from the status that was written.
fn transport_plan(
    watched: &WatchedPipeline,
    checked: &CheckedPipeline,
    context: &Context,
) -> TransportPlan {
    let pipeline = checked.pipeline();
    let (written, _) = context.former(watched);
    TransportPlan {
        retention: retention::plan(retention_spec(pipeline), &written),
        ..TransportPlan::of(pipeline, checked.resolved())
    }
}

/// What a pipeline's spec says of the retention.
fn retention_spec(pipeline: &CompressionPipeline) -> RetentionSpec {
    let transport = &pipeline.spec.transport;
    let stream = &transport.stream;
    RetentionSpec {
        hours: u32::try_from(stream.retention_hours).unwrap_or(0),
        shards: u32::try_from(stream.shards).unwrap_or(0),
        is_own: transport.policy == TransportPolicy::Create,
        extend: stream.extend_retention,
    }
}

fn drain_after(drain: Drain) -> Option<Duration> {
    match drain {
        Drain::Settling(left) => Some(left),
        Drain::NotSuspended | Drain::Drained => None,
        Drain::Stopping | Drain::Emptying(_) | Drain::TakingReceipts(_) => Some(DRAIN_INTERVAL),
    }
}

/// The totals of the last status.
fn said(watched: &WatchedPipeline, context: &Context) -> ProgressStatus {
    let (written, _) = context.former(watched);
    written.progress.unwrap_or_default()
}

/// What is known of a pipeline with a valid spec.
fn observation(
    watched: &WatchedPipeline,
    checked: &CheckedPipeline,
    (state, context): (&ClusterState, &Context),
    replicas: &Replicas,
    transport: TransportSnapshot,
) -> PipelineObservation {
    let generator = checked.pipeline().spec.generator.as_ref();
    let generator = generator.filter(|generator| generator.schema.is_some());
    let ledgers = ledger::with_lost(state.ledgers(watched.uid()), &said(watched, context));
    PipelineObservation {
        generation: watched.meta().generation,
        is_looking_up: !transport.is_answered,
        transport: transport.state,
        depths: transport.depths,
        roles: state.roles(checked.resolved(), replicas),
        progress: ledger::progress(&ledgers),
        unaccounted: ledger::unaccounted(&ledgers),
        outages: Some(state.outages()),
        left_out: state.left_out(),
        files_wanted: generator
            .map(|generator| generator.files)
            .filter(|files| *files > 0),
        ..PipelineObservation::default()
    }
}

/// Reports in the status what is wrong with the spec; there is nothing else to do until it changes.
async fn report_invalid(
    pipeline: &WatchedPipeline,
    invalid: Vec<String>,
    context: &Context,
) -> Result<Action, ReconcileError> {
    let seen = PipelineObservation {
        invalid,
        generation: pipeline.meta().generation,
        ..PipelineObservation::default()
    };
    let write_after = write_status(pipeline, seen, context).await?;
    Ok(Action::requeue(write_after.unwrap_or(RESYNC)))
}

/// Reports in the status that the spec cannot be carried out for now.
async fn report_error(
    error: &ReconcileError,
    watched: &WatchedPipeline,
    checked: &CheckedPipeline,
    context: &Context,
) -> Result<(), ReconcileError> {
    if watched.is_deleting() {
        return Ok(());
    }
    let state = context.cache.snapshot(&watched.key());
    let transport = maintain(watched, checked, context).snapshot;
    let problem = Problem {
        reason: Reason::NotApplied,
        message: format!(
            "The spec is not applied yet: {}. Retrying; what ran before keeps running.",
            error_chain(error)
        ),
        retry: Retry::Transient,
    };
    let seen = PipelineObservation {
        not_applied: Some(problem),
        ..observation(
            watched,
            checked,
            (&state, context),
            &Replicas::new(),
            transport,
        )
    };
    write_status(watched, seen, context).await?;
    Ok(())
}
