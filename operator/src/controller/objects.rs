//! A pipeline's objects: made as they should be, taken away when they are not asked for.

use serde_json::Value;
use streampress_crds::settings::{Resolved, Role};
use tracing::info;

use super::Context;
use crate::apply::applier::WriteError;
use crate::resources::names;
use crate::resources::owned_object::{Child, Kind};
use crate::state::cache::Key;
use crate::state::cluster_state::{Live, holder, is_of_another, owner_uid};
use crate::state::ledger;

/// Writes what differs. What is refused for good holds up no other object; the first of it is the error in the end.
pub(super) async fn write(
    children: &[Child],
    live: &Live<'_>,
    context: &Context,
) -> Result<(), WriteError> {
    let mut refused = None;
    for child in children {
        let mut there = live.get(child.kind, &child.name);
        let ours = owner_uid(&child.object);
        if let Some(left) = there.filter(|there| is_of_another(there, ours)) {
            // Of an earlier pipeline of this name, and on its way out: what it counted is not ours.
            let key = Key {
                kind: child.kind,
                namespace: live.namespace.into(),
                name: child.name.as_str().into(),
            };
            context.hands.delete(&key, left, &context.store).await?;
            there = None;
        }
        match context.hands.apply(child, there, &context.store).await {
            Err(error) if error.is_lasting() => refused = refused.or(Some(error)),
            written => drop(written?),
        }
    }
    refused.map_or(Ok(()), Err)
}

/// Takes away what is no longer asked for; whether something is still on its way out.
pub(super) async fn prune(
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
    let ours = children.first().and_then(|child| owner_uid(&child.object));
    let mut leaving = false;
    for (key, object) in live.objects {
        let role_stays = Role::ALL
            .into_iter()
            .any(|role| resolved.has_role(role) && *names::of_role(live.name, role) == *key.name);
        let keep = wanted(key.kind, &key.name) || (key.kind == Kind::Deployment && role_stays);
        // Labels are easily copied; only an owner reference says whose an object is.
        if keep || owner_uid(object).is_none_or(|owner| Some(owner) != ours) {
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
    let objects = context.store.of(&(live.namespace.into(), live.name.into()));
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
