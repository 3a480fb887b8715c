//! "This file is to be compressed": a message of the files queue.

use serde::{Deserialize, Serialize};

use super::{FileRef, to_json};

/// The body of an announcement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Announcement {
    /// Always [`super::VERSION`].
    pub version: u32,
    /// The file.
    pub file: FileRef,
    /// Milliseconds since 1970.
    pub announced_millis: u64,
    /// How the source was observed. Releases before receipts neither write nor read it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub observed: Option<SourceObservation>,
    /// How often this version was announced again because its records could not be used.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub repeats: u32,
    /// W3C trace context of the sender.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub traceparent: Option<String>,
}

/// A source file as it was observed when it was announced: a receipt brings it back to the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceObservation {
    /// The announcement's own id.
    pub announcement: String,
    /// The file's fingerprint, taken before its content was read.
    pub fingerprint: String,
    /// Whether an equal fingerprint proves equal content.
    pub is_settled: bool,
    /// Whether the sender waits for a reply at the source.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub wants_reply: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
pub(super) fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Announcement {
    /// The message body.
    pub fn to_json(&self) -> String {
        to_json(self)
    }
}
