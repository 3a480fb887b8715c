//! Compressor and decompressor in the Python original's format, so that the original may be the other side.
//!
//! The format normalises files and carries no hash; "restored" means equal to the normalised form. That is checked by
//! decoding before the announcement, and where there is a journal once more after restoring. The original's faults are not
//! reproduced: names cannot leave their folder, a finished file is never truncated, unreadable messages become dead
//! letters, nothing is lost where the joined text is short.

pub mod compressor;
pub mod decompressor;

use serde::{Deserialize, Serialize};
use streampress_transport::TransportResult;

use crate::journal::FileJournal;
use crate::message::{Digest, FileRef, StageNumbers};
use crate::report::{FileOutcome, ReportRow, format_of};
use crate::runtime;

/// The format is packed in memory, as the original does; a larger file would take several times this.
const LARGEST_FILE_BYTES: u64 = 256 << 20;
/// Where the original looks for files, and the folder before a name in its chunk messages.
pub const READ_LOCATION: &str = "test_location";

/// What the journal keeps of a packed file, since the original's message has no place for it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PackedFile {
    file: FileRef,
    /// Hash of the normalised form.
    normalised: Digest,
    packed_bytes: u64,
    records: u64,
    stages: Vec<StageNumbers>,
    compressed_millis: u64,
}

impl PackedFile {
    fn key(id: &str) -> String {
        format!("seed/{id}")
    }

    /// The file of the original's message `id`.
    pub(crate) async fn load(journal: &dyn FileJournal, id: &str) -> TransportResult<Option<Self>> {
        let json = journal.get(&Self::key(id)).await?;
        Ok(json.and_then(|json| serde_json::from_str(&json).ok()))
    }

    /// The file as it was announced.
    pub(crate) fn file(&self) -> &FileRef {
        &self.file
    }

    /// The file's row in the report.
    fn report_row(&self, seconds_restore: f64, slot: &str) -> ReportRow {
        ReportRow {
            file_id: self.file.id().as_str().to_owned(),
            name: self.file.name.as_str().to_owned(),
            format: format_of(self.file.name.as_str()),
            raw_bytes: self.file.bytes,
            packed_bytes: self.packed_bytes,
            records: self.records,
            stages: self.stages.clone(),
            compressed_at_millis: Some(self.compressed_millis),
            restored_at_millis: Some(runtime::now_millis()),
            seconds_compress: self.stages.iter().map(|stage| stage.seconds).sum(),
            seconds_restore,
            outcome: FileOutcome::Restored,
            is_normalised: true,
            slot: slot.to_owned(),
            ..ReportRow::default()
        }
    }
}
