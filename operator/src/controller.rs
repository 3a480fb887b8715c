//! The recipe: resolve, build, apply, prune, status. It reads what watches and the transport desk have seen, never
//! asks AWS, and writes only what differs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use kube::runtime::controller::Action;
use serde_json::Value;
use streampress_crds::pipeline::{CompressionPipeline, TransportPolicy};
use streampress_crds::settings::{Resolved, Role, resolve_in_cluster};
use streampress_crds::status::{CompressionPipelineStatus, Phase};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::apply::{Hands, WriteError};
use crate::build::{Platform, Replicas, build};
use crate::child::{Child, Kind};
use crate::drain::{Drain, drain};
use crate::events::Events;
use crate::ledger;
use crate::metrics::Metrics;
use crate::names;
use crate::observe::{Live, holder, is_of_another, owner_uid};
use crate::plan::{Scaling, replicas};
use crate::status::{Observed, TransportView, Trouble, status};
use crate::store::{Key, Owner, Store};
use crate::transport::Plan;
use crate::transport::desk::{Desk, Removal, Seen};

/// How long one look at one pipeline may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// Between two writes of one pipeline's status, whatever happens meanwhile, and between two looks at its figures.
const STATUS: Duration = Duration::from_secs(10);
/// The first word on a new pipeline waits so long for queues and stream, to say more than that they are being made.
const FIRST_WORD: Duration = Duration::from_secs(1);
/// A pipeline at rest is looked at so often, in case an event was missed. It costs no request.
const RARELY: Duration = Duration::from_secs(600);

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
    scaling: Scaling,
    empty_since: Option<Duration>,
    written: Option<Written>,
    failures: u32,
    phase: Option<Phase>,
    first_look: Option<Instant>,
}

/// The last status write.
#[derive(Clone, Debug)]
struct Written {
    status: CompressionPipelineStatus,
    version: u64,
    at: Instant,
}

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
    let outcome = timeout(DEADLINE, look(&object, &context))
        .await
        .unwrap_or(Err(ReconcileError::TooLong));
    let word = if outcome.is_ok() { "ok" } else { "error" };
    context.metrics.reconciled(word, began.elapsed());
    context.conclude(&object, outcome.is_ok());
    outcome
}

/// After a failure: again, later and later, up to a minute.
pub fn after_failure(
    object: Arc<DynamicObject>,
    error: &ReconcileError,
    context: Arc<Context>,
) -> Action {
    let failures = context.remember(&object, |memory| memory.failures);
    warn!(pipeline = %describe(&object), error = %chain(error), "Could not finish; trying again.");
    Action::requeue(Duration::from_secs(1 << failures.min(6)).min(Duration::from_secs(60)))
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
    let resolved = resolve_in_cluster(&pipeline);
    if object.metadata.deletion_timestamp.is_some() {
        return delete(
            object,
            resolved.ok().map(|resolved| (pipeline, resolved)),
            context,
        )
        .await;
    }
    match resolved {
        Ok(resolved) => run(object, &pipeline, &resolved, context).await,
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
    let owner = owner(object);
    // Only what was made for this pipeline must be dealt with at its end.
    if pipeline.spec.transport.policy == TransportPolicy::Create && !holds_finalizer(object) {
        context.hands.finalizer(object, true).await?;
    }
    let transport = context.desk.look(&Plan::of(pipeline, resolved));
    let objects = context.store.of(&owner);
    let live = Live {
        namespace: &owner.0,
        name: &owner.1,
        objects: &objects,
    };
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
    let refused = match write(&children, &live, context).await {
        Ok(()) => None,
        Err(error) if error.is_lasting() => Some(Trouble {
            reason: "Refused".into(),
            message: format!("The API server refused: {}.", chain(&error)),
            lasting: true,
        }),
        Err(error) => return Err(error.into()),
    };
    let leaving = prune(&children, resolved, &live, context).await?;

    let objects = context.store.of(&owner);
    let live = Live {
        namespace: &owner.0,
        name: &owner.1,
        objects: &objects,
    };
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

async fn write(children: &[Child], live: &Live<'_>, context: &Context) -> Result<(), WriteError> {
    for child in children {
        let mut there = live.get(child.kind, &child.name);
        let ours = child.object["metadata"]["ownerReferences"][0]["uid"].as_str();
        if let Some(left) = there.filter(|there| is_of_another(there, ours)) {
            // Of an earlier pipeline of this name, and on its way out: what it counted is not ours.
            let key = Key {
                kind: child.kind,
                namespace: live.namespace.to_owned(),
                name: child.name.clone(),
            };
            context.hands.delete(&key, left, &context.store).await?;
            there = None;
        }
        context.hands.apply(child, there, &context.store).await?;
    }
    Ok(())
}

/// Takes away what is no longer asked for; whether something is still on its way out.
async fn prune(
    children: &[Child],
    resolved: &Resolved,
    live: &Live<'_>,
    context: &Context,
) -> Result<bool, WriteError> {
    let wanted = |kind: Kind, name: &str| {
        children
            .iter()
            .any(|child| child.kind == kind && child.name == name)
    };
    let mut leaving = false;
    for (key, object) in live.objects {
        let role_stays = names::ROLES.into_iter().any(|role| {
            resolved.for_role(role).is_some() && names::of_role(live.name, role) == key.name
        });
        let keep = wanted(key.kind, &key.name) || (key.kind == Kind::Deployment && role_stays);
        // Labels are easily copied; only an owner reference says whose an object is.
        if keep || owner_uid(object).is_none() {
            continue;
        }
        if key.kind == Kind::Lease {
            if holder(object).is_some() {
                leaving = true;
                continue;
            }
            retire(object, live, context).await?;
        }
        info!(pipeline = live.name, kind = key.kind.name(), name = %key.name, "Not asked for any more; deleting it.");
        context.hands.delete(key, object, &context.store).await?;
    }
    Ok(leaving)
}

/// Keeps what a slot has counted before its Lease goes.
async fn retire(lease: &Value, live: &Live<'_>, context: &Context) -> Result<(), WriteError> {
    let Some((role, _, _)) = live
        .leases()
        .into_iter()
        .find(|(_, _, other)| other["metadata"]["uid"] == lease["metadata"]["uid"])
    else {
        return Ok(());
    };
    let counted = ledger::of_lease(lease);
    if counted == ledger::Ledger::default() {
        return Ok(());
    }
    // Another slot may have been retired a moment ago: read what is there now.
    let objects = context
        .store
        .of(&(live.namespace.to_owned(), live.name.to_owned()));
    let now = Live {
        objects: &objects,
        ..*live
    };
    let mut retired = now.retired();
    retired.settle(|uid| {
        now.leases()
            .iter()
            .any(|(_, _, lease)| lease["metadata"]["uid"] == uid)
    });
    retired.fold_in(
        lease["metadata"]["uid"].as_str().unwrap_or_default(),
        role,
        counted,
    );
    let text = serde_json::to_string(&retired).unwrap_or_default();
    let keeper = names::slot(live.name, Role::Compressor, 0);
    context
        .hands
        .annotate_lease(
            live.namespace,
            &keeper,
            names::RETIRED,
            &text,
            &context.store,
        )
        .await
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
    Observed {
        generation: object.metadata.generation,
        transport: transport.view,
        depths: transport.depths,
        roles: live.roles(resolved, replicas),
        progress: ledger::progress(&live.ledgers()),
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
        None => {
            vec!["queues and stream may be left behind: the pipeline cannot be read".to_owned()]
        }
        Some((pipeline, resolved)) => {
            let owner = owner(object);
            for (key, live) in context
                .store
                .of(&owner)
                .iter()
                .filter(|(key, _)| key.kind == Kind::Deployment)
            {
                context.hands.delete(key, live, &context.store).await?;
            }
            let plan = Plan::of(&pipeline, &resolved);
            match context
                .desk
                .remove(&plan, pipeline.spec.transport.deletion_policy)
            {
                Removal::Done(left) => left,
                Removal::Going => {
                    let doing = "Workers are stopped; queues and stream are being dealt with by deletionPolicy.".to_owned();
                    let seen = Observed {
                        deleting: Some(doing),
                        generation: object.metadata.generation,
                        ..Observed::default()
                    };
                    status_of(object, seen, context).await?;
                    return Ok(Action::requeue(Duration::from_secs(5)));
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
    match context.hands.finalizer(object, false).await {
        Err(error) if !error.is_gone() => return Err(error.into()),
        _ => {}
    }
    info!(pipeline = %describe(object), left = left.len(), "Deleted.");
    Ok(Action::await_change())
}

async fn say(
    object: &DynamicObject,
    seen: Observed,
    context: &Context,
) -> Result<Action, ReconcileError> {
    let said = status_of(object, seen, context).await?;
    Ok(Action::requeue(said.unwrap_or(RARELY)))
}

/// Writes the status where it says something else: at once, unless the last write was a moment ago. Gives the time after
/// which it may be written.
async fn status_of(
    object: &DynamicObject,
    seen: Observed,
    context: &Context,
) -> Result<Option<Duration>, ReconcileError> {
    let version = object
        .metadata
        .resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or(0_u64);
    let written = context.remember(object, |memory| memory.written.clone());
    // The watch may not have seen our last write yet.
    let former = match &written {
        Some(written) if written.version > version => written.status.clone(),
        _ => serde_json::from_value(object.data["status"].clone()).unwrap_or_default(),
    };
    let mut new = status(&seen, &former, Time(Timestamp::now()));
    if !seen.invalid.is_empty() || seen.deleting.is_some() {
        // Nobody looked at these.
        new = CompressionPipelineStatus {
            roles: former.roles.clone(),
            progress: former.progress.clone(),
            backlog: former.backlog.clone(),
            ..new
        };
    }
    let before = context.remember(object, |memory| {
        std::mem::replace(&mut memory.phase, new.phase)
    });
    context.metrics.phase(before, new.phase);
    if new == former {
        return Ok(None);
    }
    let still_making = former.phase.is_none() && seen.transport == TransportView::Making;
    let since = match written {
        // What happens meanwhile is written then, at once and once.
        Some(written) => Some((written.at, STATUS)),
        None if still_making && seen.invalid.is_empty() => Some((
            context.remember(object, |memory| {
                *memory.first_look.get_or_insert_with(Instant::now)
            }),
            FIRST_WORD,
        )),
        None => None,
    };
    if let Some(left) = since
        .and_then(|(since, pause)| pause.checked_sub(since.elapsed()))
        .filter(|left| !left.is_zero())
    {
        return Ok(Some(left));
    }
    let text = serde_json::to_value(&new).unwrap_or_default();
    let version = context.hands.status(object, &text).await?;
    let version = version
        .and_then(|version| version.parse().ok())
        .unwrap_or(0);
    context.events.news(object, &former, &new).await;
    context.remember(object, |memory| {
        memory.written = Some(Written {
            status: new,
            version,
            at: Instant::now(),
        })
    });
    Ok(None)
}

impl Context {
    fn remember<T>(&self, object: &DynamicObject, change: impl FnOnce(&mut Memory) -> T) -> T {
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        change(memories.entry(uid).or_default())
    }

    /// A look has ended, perhaps of a pipeline that has gone in the meantime.
    fn conclude(&self, object: &DynamicObject, well: bool) {
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

    fn drain(
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
        let facts = crate::drain::Facts {
            chunks: transport.depths.chunks,
            ..live.drain_facts(pipeline.spec.suspend, was_drained)
        };
        let now = self.began.elapsed();
        self.remember(object, |memory| drain(&facts, &mut memory.empty_since, now))
    }
}

/// A pipeline as our types have it; the error is a sentence for its owner.
fn typed(object: &DynamicObject) -> Result<CompressionPipeline, String> {
    let text = serde_json::to_value(object).map_err(|error| error.to_string())?;
    serde_json::from_value(text).map_err(|error| format!("the pipeline cannot be read ({error}): it was written for another version of the CustomResourceDefinition"))
}

fn owner(object: &DynamicObject) -> Owner {
    (
        object.metadata.namespace.clone().unwrap_or_default(),
        object.metadata.name.clone().unwrap_or_default(),
    )
}

fn describe(object: &DynamicObject) -> String {
    let (namespace, name) = owner(object);
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

/// An error with all that led to it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}
