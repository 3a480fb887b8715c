//! "This became of the file": a message of the receipts queue, from a decompressor to the compressors.

use serde::{Deserialize, Serialize};
use streampress_transport::FileVersion;

use super::{
    DeadLetterReason, FileRef, Manifest, MessageError, SourceObservation, VERSION, to_json,
};

/// The body of a receipt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileReceipt {
    /// [`super::VERSION`], or that of the manifest that it holds.
    pub version: u32,
    /// What became of the file.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// W3C trace context of the announcement.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub traceparent: Option<String>,
}

/// What became of a file's version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "camelCase")]
pub enum Verdict {
    /// It lies at the destination, hash checked.
    Restored(ReceiptFile),
    /// A newer version of the file lay there already.
    Superseded(ReceiptFile),
    /// Its records cannot be used: the file is to be packed and sent again.
    SendAgain {
        /// The whole manifest.
        manifest: Box<Manifest>,
        /// What is wrong with the records.
        reason: DeadLetterReason,
        /// One sentence more.
        detail: String,
    },
}

/// The file that a receipt is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiptFile {
    /// The file as it was announced.
    pub file: FileRef,
    /// The version that was announced.
    pub file_version: FileVersion,
    /// How the source was observed when it was announced, where the manifest says it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub observed: Option<SourceObservation>,
}

impl Verdict {
    /// The version of a receipt with this verdict: that of the manifest, which an earlier release could not send on whole.
    pub(crate) fn version(&self) -> u32 {
        match self {
            Self::Restored(_) | Self::Superseded(_) => VERSION,
            Self::SendAgain { manifest, .. } => manifest.version,
        }
    }

    /// As the deduplication id of a receipt ends.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Restored(_) => "restored",
            Self::Superseded(_) => "superseded",
            Self::SendAgain { .. } => "sendAgain",
        }
    }
}

impl FileReceipt {
    /// The file.
    pub fn file(&self) -> &FileRef {
        match &self.verdict {
            Verdict::Restored(it) | Verdict::Superseded(it) => &it.file,
            Verdict::SendAgain { manifest, .. } => &manifest.file,
        }
    }

    /// Whether it asks for the file to be sent again.
    pub(crate) fn is_request(&self) -> bool {
        matches!(self.verdict, Verdict::SendAgain { .. })
    }

    /// The message body.
    pub fn to_json(&self) -> String {
        to_json(self)
    }

    /// Checks what the fields' types do not.
    pub(super) fn check(&self) -> Result<(), MessageError> {
        match &self.verdict {
            Verdict::SendAgain { manifest, .. } => manifest.check(),
            Verdict::Restored(_) | Verdict::Superseded(_) => Ok(()),
        }
    }
}
