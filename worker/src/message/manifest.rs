//! "This file is packed, and its records are these": a message of the chunks queue.

use serde::{Deserialize, Serialize};
use streampress_transport::{FileVersion, Position};

use super::announcement::is_zero;
use super::bundle::BundlePlace;
use super::record::RecordOwner;
use super::{FileRef, MISSING_VERSION, MessageError, SourceObservation, to_json};

/// The body of a manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// [`super::DESCRIBED_VERSION`]: an earlier release cannot read the records, and leaves the manifest to a newer worker.
    /// [`super::BUNDLED_VERSION`] or [`super::VERSION`] where an earlier release wrote it. [`super::MISSING_VERSION`]: it has no
    /// records.
    pub version: u32,
    /// The file, with the hash that the restored file must have.
    pub file: FileRef,
    /// The version that was announced. Releases before versions neither write nor read it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file_version: Option<FileVersion>,
    /// As the announcement has it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub observed: Option<SourceObservation>,
    /// As the announcement has it.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub repeats: u32,
    /// The attempt that wrote the records: a name that slot, holder, transition and message have in no other combination. Records of
    /// other attempts are not this file's.
    pub attempt: String,
    /// The records, exactly these and in this order. None: the source is gone, and the manifest only asks whether the file was
    /// restored before.
    pub records: Records,
    /// The file's place in the bundle that the records hold; `None` where they hold the file alone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bundle: Option<BundlePlace>,
    /// Sum of the packed bytes, without record headers; of a bundle the file's share in proportion to its size.
    pub packed_bytes: u64,
    /// How much was tried to make the file small, for the report; earlier releases do not say it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub effort: Option<String>,
    /// What each stage so far took, for the report.
    pub stages: Vec<StageNumbers>,
    /// How many packed bytes each transform and codec made, for the report.
    pub shares: Vec<Share>,
    /// When the file was announced, milliseconds since 1970.
    pub announced_millis: u64,
    /// When all its records were durable in the stream, milliseconds since 1970.
    pub compressed_millis: u64,
    /// W3C trace context of the announcement.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub traceparent: Option<String>,
}

/// Where a packed file's records lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Records {
    /// In order, in the message itself.
    #[serde(rename = "here")]
    Inline(Vec<Position>),
    /// The list is too long for a message: it lies in the stream as JSON, cut into these records.
    #[serde(rename = "listed")]
    Indirect(Vec<Position>),
}

impl Records {
    /// The positions in the message: of the file's records, or of their list.
    pub fn positions(&self) -> &[Position] {
        match self {
            Records::Inline(positions) | Records::Indirect(positions) => positions,
        }
    }
}

/// One stage of the work on a file, with what it took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StageNumbers {
    /// The stage's name in the report, such as `Step 01 pack`.
    pub name: String,
    /// Bytes in.
    pub bytes_in: u64,
    /// Bytes out.
    pub bytes_out: u64,
    /// Seconds.
    pub seconds: f64,
}

/// Packed bytes of a file that one transform and codec made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Transform and codec, such as `csv columns · BZ2`.
    pub label: String,
    /// Packed bytes.
    pub bytes: u64,
}

impl Manifest {
    /// What the records are checked against.
    pub fn record_owner(&self) -> RecordOwner {
        match &self.bundle {
            Some(place) => place.record_owner(),
            None => RecordOwner::new(&self.file.id(), &self.attempt),
        }
    }

    /// Whether the file was packed; else its source was gone, and the manifest asks whether it was restored before.
    pub(crate) fn has_records(&self) -> bool {
        !self.records.positions().is_empty()
    }

    /// The message body.
    pub fn to_json(&self) -> String {
        to_json(self)
    }

    /// Checks what the fields' types do not.
    pub(super) fn check(&self) -> Result<(), MessageError> {
        let is_missing = self.version == MISSING_VERSION;
        let problem = match (is_missing, self.has_records()) {
            (false, false) => Some("is empty: even an empty file has a packed form"),
            (true, has_records) if has_records || self.bundle.is_some() => {
                Some("is not empty, although the file was gone before it was packed")
            }
            _ => None,
        };
        if let Some(problem) = problem {
            return Err(MessageError::Field {
                field: "records",
                problem: problem.into(),
            });
        }
        let is_possible = |place: &BundlePlace| place.is_possible(self.file.bytes);
        if !self.bundle.as_ref().is_none_or(is_possible) {
            return Err(MessageError::Field {
                field: "bundle",
                problem: "does not hold the file: its place is outside the bundle".into(),
            });
        }
        Ok(())
    }
}
