//! Events on pipelines: few, only when something changes, with the way out.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Client;
use kube::Resource;
use kube::api::DynamicObject;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use streampress_crds::api::status::{CompressionPipelineStatus, Phase};
use tracing::debug;

use crate::apply::applier::pipelines;
use crate::apply::election::Leadership;
use crate::resources::names;

/// The longest note the API server takes, in bytes.
const NOTE_BYTES: usize = 1024;

/// Writes Events.
pub struct Events {
    recorder: Recorder,
    leadership: Leadership,
}

impl Events {
    /// Under this identity.
    pub fn new(client: Client, identity: String, leadership: Leadership) -> Self {
        let reporter = Reporter {
            controller: names::MANAGER.into(),
            instance: Some(identity),
        };
        Self {
            recorder: Recorder::new(client, reporter),
            leadership,
        }
    }

    /// Something that somebody should know of.
    pub async fn warn(&self, pipeline: &DynamicObject, reason: &str, note: &str) {
        self.publish(pipeline, EventType::Warning, reason, note)
            .await;
    }

    /// What is new in a status, where it is worth an Event: another reason to be ready or not.
    pub async fn news(
        &self,
        pipeline: &DynamicObject,
        former: &CompressionPipelineStatus,
        new: &CompressionPipelineStatus,
    ) {
        let (was_ready, ready) = (ready_of(former), ready_of(new));
        let same_reason = was_ready.map(|was| &was.reason) == ready.map(|is| &is.reason);
        if former.phase == new.phase && same_reason {
            return;
        }
        let type_ = match new.phase {
            Some(Phase::Degraded | Phase::Failed) => EventType::Warning,
            Some(Phase::Running | Phase::Suspended | Phase::Completed) => EventType::Normal,
            // On the way to something else.
            Some(Phase::Pending | Phase::Suspending | Phase::Deleting) | None => return,
        };
        let reason = match new.phase {
            Some(Phase::Degraded)
                if new
                    .backlog
                    .as_ref()
                    .and_then(|backlog| backlog.dead)
                    .unwrap_or(0)
                    > 0 =>
            {
                "DeadLetters"
            }
            Some(Phase::Completed) => "Completed",
            Some(Phase::Running) => "Running",
            _ => ready.map_or("Changed", |condition| condition.reason.as_str()),
        };
        // An Event that comes again is counted under its first note: no figures in those of good times.
        let note = match new.phase {
            Some(Phase::Running) => ready.map_or("", |condition| condition.message.as_str()),
            Some(Phase::Completed) => "All files of the generator are restored.",
            _ => new.message.as_deref().unwrap_or_default(),
        };
        self.publish(pipeline, type_, reason, note).await;
    }

    /// An Event that cannot be written is no reason to stop: the status says the same.
    async fn publish(&self, pipeline: &DynamicObject, type_: EventType, reason: &str, note: &str) {
        if !self.leadership.may_write() {
            return;
        }
        let mut note = note.to_owned();
        while note.len() > NOTE_BYTES {
            note.pop();
        }
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Reconcile".into(),
            secondary: None,
        };
        if let Err(error) = self
            .recorder
            .publish(&event, &pipeline.object_ref(&pipelines()))
            .await
        {
            debug!(%error, reason, "An Event could not be written.");
        }
    }
}

fn ready_of(status: &CompressionPipelineStatus) -> Option<&Condition> {
    let mut conditions = status.conditions.iter();
    conditions.find(|condition| condition.type_ == "Ready")
}
