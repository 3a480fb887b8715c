//! Writes a pipeline's objects, and deletes those that the spec does not need any more.

use std::sync::Arc;

use streampress_crds::ledger::Ledger;
use streampress_crds::{Resolved, Role};
use tracing::{info, warn};

use super::Context;
use crate::apply::WriteError;
use crate::resources::{ObjectKind, OwnedObject, names};
use crate::state::cache::ObjectKey;
use crate::state::cluster_state::ClusterState;
use crate::state::ledger::{Ledgers, RetiredSlots};
use crate::state::live_object::{Details, LeaseState, LiveObject};

/// Writes what differs. An object that is refused for good, or for want of a permission, delays no other; the first refusal is
/// the error in the end.
pub(super) async fn write(
    desired: &[OwnedObject],
    state: &ClusterState,
    context: &Context,
) -> Result<(), WriteError> {
    let mut refused = None;
    for object in desired {
        let mut live = state.get(object.kind(), object.name());
        if let Some(left) = live.filter(|live| live.is_of_another(object.pipeline_uid())) {
            // Of an earlier pipeline of this name, and about to be deleted: its counters are not this pipeline's.
            let key = key(state, object.kind(), object.name());
            context.applier.delete(&key, &left.uid).await?;
            live = None;
        }
        match context.applier.apply(object, live).await {
            Err(error) if !error.retry().helps() => refused = refused.or(Some(error)),
            written => drop(written?),
        }
    }
    refused.map_or(Ok(()), Err)
}

/// Deletes what the spec does not need any more; whether something is still to be deleted.
pub(super) async fn prune(
    uid: &str,
    desired: &[OwnedObject],
    resolved: &Resolved,
    state: &ClusterState,
    context: &Context,
) -> Result<bool, WriteError> {
    let pipeline = &state.pipeline.name;
    let is_wanted = |kind: ObjectKind, name: &str| {
        let role_stays = |role| resolved.has_role(role) && names::of_role(pipeline, role) == name;
        desired
            .iter()
            .any(|object| object.kind() == kind && object.name() == name)
            || (kind == ObjectKind::Deployment && Role::ALL.into_iter().any(role_stays))
    };
    let mut leaving = false;
    for (kind, name, object) in state.objects() {
        // Labels are easily copied; only an owner reference says whose an object is.
        if is_wanted(kind, name) || object.owner_uid.as_deref() != Some(uid) {
            continue;
        }
        if let Details::Lease(lease) = &object.details {
            if lease.holder.is_some() {
                leaving = true;
                continue;
            }
            retire(uid, (object, lease), state, context).await?;
        }
        info!(pipeline = %state.pipeline, kind = kind.name(), %name, "The spec does not need it any more; deleting it.");
        let key = key(state, kind, name);
        context.applier.delete(&key, &object.uid).await?;
    }
    Ok(leaving)
}

/// Keeps what a slot has counted before its Lease is deleted.
async fn retire(
    uid: &str,
    (object, lease): (&LiveObject, &LeaseState),
    state: &ClusterState,
    context: &Context,
) -> Result<(), WriteError> {
    let Some(role) = lease.role.filter(|_| lease.counted != Ledger::default()) else {
        return Ok(());
    };
    keep_counts(uid, state, context, |retired| {
        retired.add(&object.uid, role, lease.counted);
    })
    .await
}

/// Keeps what was counted by Leases that others deleted: the last status says it.
pub(super) async fn keep_lost(
    uid: &str,
    lost: &Ledgers,
    state: &ClusterState,
    context: &Context,
) -> Result<(), WriteError> {
    if lost.is_empty() {
        return Ok(());
    }
    warn!(pipeline = %state.pipeline, ?lost, "Slots' Leases were deleted, not by this operator; what they had counted by the last status is kept.");
    let kept = keep_counts(uid, state, context, |retired| retired.add_lost(lost)).await;
    match kept {
        // Without the Lease that would note it, the next reconcile does.
        Err(error) if error.is_gone() => Ok(()),
        kept => kept,
    }
}

/// Changes what is noted of deleted slots.
async fn keep_counts(
    uid: &str,
    state: &ClusterState,
    context: &Context,
    change: impl FnOnce(&mut RetiredSlots),
) -> Result<(), WriteError> {
    // Another slot may have been retired a moment ago: read what is known now.
    let state = context.cache.snapshot(&state.pipeline);
    let mut retired = state.retired(uid);
    retired.add_gone_to_total(|uid| state.leases().any(|(lease, _)| lease.uid == uid));
    change(&mut retired);
    let text = serde_json::to_string(&retired).unwrap_or_default();
    let pipeline = &state.pipeline;
    let keeper = names::slot(&pipeline.name, Role::Compressor, 0);
    context
        .applier
        .annotate_lease(&pipeline.namespace, &keeper, names::RETIRED, &text)
        .await
}

/// The key of a pipeline's object.
pub(super) fn key(state: &ClusterState, kind: ObjectKind, name: &str) -> ObjectKey {
    ObjectKey {
        kind,
        namespace: Arc::clone(&state.pipeline.namespace),
        name: name.into(),
    }
}
