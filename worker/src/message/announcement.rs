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
    /// W3C trace context of the sender.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub traceparent: Option<String>,
}

impl Announcement {
    /// The message body.
    pub fn to_json(&self) -> String {
        to_json(self)
    }
}
