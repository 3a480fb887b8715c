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

/// What a slot's holders know of the services that they need.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SlotHealth {
    /// When a message was last done, in seconds since 1970.
    pub worked_at: u64,
    /// The outage that was reported last, where no message was done since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outage: Option<ReportedOutage>,
}

/// A service is down: the worker receives nothing until it answers again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedOutage {
    /// Which.
    pub service: NeededService,
    /// What it answered.
    pub cause: String,
    /// When it was reported last, in seconds since 1970.
    pub at: u64,
}

impl SlotHealth {
    /// A message was done at `now`, in seconds since 1970.
    pub fn worked(&mut self, now: u64) {
        *self = Self {
            worked_at: now,
            outage: None,
        };
    }

    /// A service is down at `now`, in seconds since 1970.
    pub fn is_down(&mut self, service: NeededService, cause: &str, now: u64) {
        self.outage = Some(ReportedOutage {
            service,
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
        health.is_down(NeededService::Destination, &"no space ".repeat(100), 7);
        let text = serde_json::to_string(&health).expect("has a JSON form");
        assert!(text.contains(r#""service":"destination""#), "{text}");
        assert!(text.len() < 400, "{text}");
        assert_eq!(serde_json::from_str(&text).ok(), Some(health.clone()));
        health.worked(9);
        assert_eq!((health.worked_at, health.outage), (9, None));
    }
}
