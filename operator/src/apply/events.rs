//! Events on pipelines: few, only when something changes, with the remedy.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use streampress_crds::api::status::Phase;
use streampress_crds::{CompressionPipelineStatus, Reason};
use tracing::debug;

use crate::apply::election::Leadership;
use crate::decide::status::RETENTION_AT_RISK;
use crate::resources::names;
use crate::state::pipeline::WatchedPipeline;

/// The longest note the API server takes, in bytes.
const NOTE_BYTES: usize = 1024;

/// Publishes Events.
pub(crate) struct EventPublisher {
    recorder: Recorder,
    leadership: Leadership,
}

impl EventPublisher {
    /// Under this identity.
    pub(crate) fn new(client: Client, identity: String, leadership: Leadership) -> Self {
        let reporter = Reporter {
            controller: names::MANAGER.into(),
            instance: Some(identity),
        };
        Self {
            recorder: Recorder::new(client, reporter),
            leadership,
        }
    }

    /// Something that needs attention.
    pub(crate) async fn warn(&self, pipeline: &WatchedPipeline, reason: Reason, note: &str) {
        self.publish(pipeline, EventType::Warning, reason.as_str(), note)
            .await;
    }

    /// What is new in a status, where that is worth an Event: another phase, another reason to be ready or not, or records
    /// that may expire too soon.
    pub(crate) async fn status_changed(
        &self,
        pipeline: &WatchedPipeline,
        former: &CompressionPipelineStatus,
        new: &CompressionPipelineStatus,
    ) {
        if let Some(at_risk) = condition_of(new, RETENTION_AT_RISK).filter(|it| it.status == "True")
            && (condition_of(former, RETENTION_AT_RISK).is_none_or(|was| was.status != "True")
                || planned_hours(former) != planned_hours(new))
        {
            self.warn(pipeline, Reason::RetentionAtRisk, &at_risk.message)
                .await;
        }
        let (was_ready, ready) = (condition_of(former, "Ready"), condition_of(new, "Ready"));
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
        let dead = new.backlog.as_ref().and_then(|backlog| backlog.dead);
        let outages = [
            Reason::ServiceDown,
            Reason::DestinationNotOurs,
            Reason::SourceNotOurs,
        ];
        let outage = outages.map(Reason::as_str).into_iter().find(|reason| {
            let mut conditions = new.conditions.iter();
            conditions.any(|condition| condition.status == "False" && condition.reason == *reason)
        });
        let reason = match (new.phase, outage) {
            (Some(Phase::Degraded), Some(reason)) => reason,
            (Some(Phase::Degraded), None) if dead.unwrap_or(0) > 0 => Reason::DeadLetters.as_str(),
            (Some(Phase::Completed), _) => Reason::Completed.as_str(),
            (Some(Phase::Running), _) => Reason::Running.as_str(),
            _ => ready.map_or(Reason::Changed.as_str(), |condition| &condition.reason),
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
    async fn publish(
        &self,
        pipeline: &WatchedPipeline,
        type_: EventType,
        reason: &str,
        note: &str,
    ) {
        if !self.leadership.may_write() {
            return;
        }
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note[..note.floor_char_boundary(NOTE_BYTES)].to_owned()),
            action: "Reconcile".into(),
            secondary: None,
        };
        let about = pipeline.object_ref(&());
        if let Err(error) = self.recorder.publish(&event, &about).await {
            debug!(%error, reason, "An Event could not be written.");
        }
    }
}

fn condition_of<'a>(status: &'a CompressionPipelineStatus, type_: &str) -> Option<&'a Condition> {
    let mut conditions = status.conditions.iter();
    conditions.find(|condition| condition.type_ == type_)
}

fn planned_hours(status: &CompressionPipelineStatus) -> Option<i64> {
    status.retention.as_ref()?.planned_hours
}
