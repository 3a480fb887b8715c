//! What is said of a pipeline, and when.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use kube::runtime::controller::Action;
use streampress_crds::api::status::CompressionPipelineStatus;
use tokio::time::Instant;

use super::context::Written;
use super::{Context, RARELY, ReconcileError};
use crate::decide::status::{Observed, TransportView, status};

/// Between two writes of one pipeline's status, whatever happens meanwhile, and between two looks at its figures.
pub(super) const STATUS: Duration = Duration::from_secs(10);
/// The first word on a new pipeline waits so long for queues and stream, to say more than that they are being made.
const FIRST_WORD: Duration = Duration::from_secs(1);

/// Says it; nothing else is to be done for now.
pub(super) async fn say(
    object: &DynamicObject,
    seen: Observed,
    context: &Context,
) -> Result<Action, ReconcileError> {
    let said = status_of(object, seen, context).await?;
    Ok(Action::requeue(said.unwrap_or(RARELY)))
}

/// Writes the status where it says something else: at once, unless the last write was a moment ago. Gives the time after
/// which it may be written.
pub(super) async fn status_of(
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
    let (unseen, written_at) = context.remember(object, |memory| match &mut memory.written {
        // The watch may not have seen our last write yet.
        Some(written) if written.version > version => (written.status.clone(), Some(written.at)),
        Some(written) => {
            written.status = None;
            (None, Some(written.at))
        }
        None => (None, None),
    });
    let former = unseen.map_or_else(
        || serde_json::from_value(object.data["status"].clone()).unwrap_or_default(),
        |status| *status,
    );
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
    let since = match written_at {
        // What happens meanwhile is written then, at once and once.
        Some(at) => Some((at, STATUS)),
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
            status: Some(Box::new(new)),
            version,
            at: Instant::now(),
        })
    });
    Ok(None)
}
