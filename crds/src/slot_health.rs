//! What the holders of a slot know of the services that their messages need: an annotation of the Lease, from which the
//! operator makes conditions.

use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

/// The annotation of a slot's Lease that holds its [`SlotHealth`] as JSON.
pub const HEALTH: &str = "streampress.dev/health";
/// The most characters of a cause that are kept.
const CAUSE_CHARS: usize = 300;

/// A service that every message of a role needs.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum NeededService {
    /// The location of the source.
    Source,
    /// The location of the destination.
    Destination,
    /// The stream of records.
    Stream,
    /// A queue.
    Queue,
}

impl NeededService {
    /// All of them.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// As in metrics, logs and messages.
    pub fn label(self) -> &'static str {
        self.into()
    }
}

/// Why a service cannot be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OutageKind {
    /// It works, and belongs to another pipeline.
    OwnedByAnother,
    /// It does not do its work, or a newer version knows why.
    #[default]
    #[serde(other)]
    Down,
}

/// What a slot's holders know of the services that they need.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SlotHealth {
    /// When a message was last done, in seconds since 1970.
    pub worked_at: u64,
    /// The outage that was reported last, where no message was done since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outage: Option<ReportedOutage>,
    /// Files and folders of the source that the last scan could not take.
    #[serde(skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A service cannot be used: the worker receives nothing until it can.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedOutage {
    /// Which.
    pub service: NeededService,
    /// Why.
    #[serde(default)]
    pub kind: OutageKind,
    /// What it answered.
    pub cause: String,
    /// When it was reported last, in seconds since 1970.
    pub at: u64,
}

impl SlotHealth {
    /// A message was done at `now`, in seconds since 1970.
    pub fn worked(&mut self, now: u64) {
        self.worked_at = now;
        self.outage = None;
    }

    /// A service cannot be used at `now`, in seconds since 1970.
    pub fn is_down(&mut self, service: NeededService, kind: OutageKind, cause: &str, now: u64) {
        self.outage = Some(ReportedOutage {
            service,
            kind,
            cause: cause.chars().take(CAUSE_CHARS).collect(),
            at: now,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_known_until_a_message_is_done() {
        let mut health = SlotHealth::default();
        let cause = "no space ".repeat(100);
        health.is_down(NeededService::Destination, OutageKind::Down, &cause, 7);
        let text = serde_json::to_string(&health).expect("has a JSON form");
        assert!(text.contains(r#""service":"destination""#), "{text}");
        assert!(text.len() < 400, "{text}");
        assert_eq!(serde_json::from_str(&text).ok(), Some(health.clone()));
        health.worked(9);
        assert_eq!((health.worked_at, health.outage), (9, None));
    }

    #[test]
    fn an_outage_of_a_worker_before_or_after_this_one_can_be_read() {
        for (kind, known) in [
            ("", OutageKind::Down),
            (r#""kind":"down","#, OutageKind::Down),
            (r#""kind":"ownedByAnother","#, OutageKind::OwnedByAnother),
            (r#""kind":"ofTomorrow","#, OutageKind::Down),
        ] {
            let text = format!(
                r#"{{"workedAt":1,"outage":{{"service":"destination",{kind}"cause":"c","at":2}}}}"#
            );
            let health: SlotHealth = serde_json::from_str(&text).expect("readable");
            assert_eq!(health.outage.map(|outage| outage.kind), Some(known));
        }
    }
}
