//! What became of every file: for progress, for resuming, and for knowing what was announced already.
//!
//! The embedded transport's folder keeps it in its database ([`SqliteJournal`]). Workers that share no data folder keep at
//! most what was announced of the source, at the source itself: the generator role's process keeps it ([`SegmentJournal`]),
//! the others leave notes for that one ([`NoteJournal`]), or keep none ([`NoJournal`]). Callers need not know which it is.
//!
//! [`SourceJournal`] is what is known of a source, [`FileJournal`] also what became of every file. Their methods have no
//! defaults, so that no implementation loses what it forgot to record.

mod none;
mod notes;
mod segments;
mod source;
mod source_lines;
mod sqlite;
mod sqlite_sources;
mod sqlite_values;
mod sqlite_versions;
#[cfg(test)]
mod tests;

use std::time::SystemTime;

use async_trait::async_trait;
use serde::Serialize;
use streampress_transport::{Failure, TransportResult};

use crate::message::Digest;

pub use none::{KeepsNoFiles, NoJournal};
pub use notes::NoteJournal;
pub use segments::SegmentJournal;
pub use source::{OpenFile, SourceJournal, SourceReceipt, SourceRecord, SourceState};
pub use sqlite::SqliteJournal;

/// The key of when the journal was made anew from the stream, milliseconds since 1970. Of what was announced before, it knows
/// the newest version of each name at most.
pub(crate) const RECOVERED: &str = "recovered";
/// The key of the pipeline that last worked in the data folder, or began to.
pub(crate) const PIPELINE: &str = "pipeline";
/// The key of the number of discarded files.
const DISCARDED: &str = "discarded";

/// What is known of a file when it is announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalFile {
    /// Derived from location, name and content hash.
    pub file_id: String,
    /// Relative to its location.
    pub name: String,
    /// Size of the original in bytes.
    pub raw_bytes: u64,
    /// The original's version.
    pub modified: SystemTime,
    /// Hash of the original.
    pub hash: String,
}

/// How far a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileStatus {
    /// None of the others.
    UnderWay,
    /// It was restored.
    Restored,
    /// A newer version of its name was restored, or announced in its place.
    Superseded,
    /// It is a dead letter.
    Failed,
}

/// A restored file whose bytes are known to have been these as long as it has this fingerprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedFile {
    /// Relative to the destination.
    pub name: String,
    /// As a listing showed it.
    pub fingerprint: String,
    /// Hash of its content.
    pub hash: Digest,
}

/// How far the files are. A file counts once in each step that it has behind it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JournalProgress {
    /// Files known at all.
    pub announced: u64,
    /// Files that have been compressed.
    pub compressed: u64,
    /// Files that were restored and verified.
    pub restored: u64,
    /// Files that a newer version of the same name replaced.
    pub superseded: u64,
    /// Files that are dead letters now.
    pub failed: u64,
    /// Bytes of all announced files.
    pub bytes_announced: u64,
    /// Bytes of the originals of compressed files.
    pub bytes_raw: u64,
    /// Bytes they were compressed to.
    pub bytes_packed: u64,
    /// Bytes of restored files.
    pub bytes_restored: u64,
}

impl JournalProgress {
    /// Files restored, superseded or failed.
    pub fn ended(&self) -> u64 {
        self.restored + self.superseded + self.failed
    }

    /// Files neither restored, nor superseded, nor failed.
    pub fn unfinished(&self) -> u64 {
        self.announced.saturating_sub(self.ended())
    }
}

/// A journal of what became of files, beside that of their sources.
///
/// Contract: a file only moves forward (announced, compressed, restored or superseded or failed), and recording the same
/// step again changes nothing. A dead letter may be discarded, with all that is known of its file. The ways back are
/// [`FileJournal::record_redriven`], [`FileJournal::record_recovered`] and [`SourceJournal::record_announcements`]. What was
/// recorded is durable. A journal that has none of this says so by [`KeepsNoFiles`].
#[async_trait]
pub trait FileJournal: SourceJournal {
    /// The file is known. Keeps what is known already, and how far it is.
    async fn record_announced(&self, file: &JournalFile) -> TransportResult<()>;
    /// The file's bytes are in the stream; there they take `packed_bytes`.
    async fn record_compressed(&self, file_id: &str, packed_bytes: u64) -> TransportResult<()>;
    /// A manifest of the file came: it was packed, also where [`Self::record_compressed`] did not succeed. What that recorded
    /// stays.
    async fn record_received(&self, file_id: &str, packed_bytes: u64) -> TransportResult<()>;
    /// The file is at its destination and its hash is right. A failure recorded before no longer counts, and failed files of
    /// its name that were announced before it are superseded. It was packed, as [`Self::record_received`] says.
    async fn record_restored(&self, file_id: &str, packed_bytes: u64) -> TransportResult<()>;
    /// A newer version of the same name is at the destination already, or was announced in its place. A file that an earlier
    /// announcement of the same content packed or restored stays that.
    async fn record_superseded(&self, file_id: &str) -> TransportResult<()>;
    /// The file is a dead letter now. A file that is done already stays done, and one of whose name a file was restored that
    /// was announced later is superseded.
    async fn record_failed(&self, file_id: &str, failure: &Failure) -> TransportResult<()>;
    /// The dead letter was sent again: the file is under way once more.
    async fn record_redriven(&self, file_id: &str) -> TransportResult<()>;
    /// Its manifest is about to be sent again, from the stream: the file is under way once more, also one that was restored.
    async fn record_recovered(&self, file_id: &str) -> TransportResult<()>;
    /// The dead letter was discarded: the file is not known any more, and what comes under its name later is new. A file that
    /// is no dead letter stays known.
    async fn record_discarded(&self, file_id: &str) -> TransportResult<()>;
    /// How many files were discarded ever.
    async fn discarded(&self) -> TransportResult<u64> {
        let count = self.get(DISCARDED).await?;
        Ok(count.and_then(|count| count.parse().ok()).unwrap_or(0))
    }
    /// Whether a file of this name, size and modification time was announced before; `None` from a journal that cannot tell.
    async fn was_announced(
        &self,
        name: &str,
        raw_bytes: u64,
        modified: SystemTime,
    ) -> TransportResult<Option<bool>>;
    /// Whether a file of this name with this content was announced before; `None` from a journal that cannot tell.
    async fn was_content_announced(&self, name: &str, hash: &str) -> TransportResult<Option<bool>>;
    /// Whether any file of this name was announced before; `None` from a journal that cannot tell.
    async fn was_name_announced(&self, name: &str) -> TransportResult<Option<bool>>;
    /// The locations that files were announced from.
    async fn locations(&self) -> TransportResult<Vec<String>>;
    /// Whether this file was restored, and is the last that was announced under its name.
    async fn was_restored(&self, name: &str, file_id: &str) -> TransportResult<bool>;
    /// Whether another file of this one's name was restored that was announced later.
    async fn was_replaced(&self, file_id: &str) -> TransportResult<bool>;
    /// How far a file is; `None` where it is not known, or from a journal that cannot tell.
    async fn file_status(&self, file_id: &str) -> TransportResult<Option<FileStatus>>;
    /// Every file that neither was restored nor replaced, in the order of announcements.
    async fn open_files(&self) -> TransportResult<Vec<OpenFile>>;
    /// How far the files are.
    async fn progress(&self) -> TransportResult<JournalProgress>;
    /// When the oldest of the files was packed that are neither restored nor replaced, milliseconds since 1970.
    async fn oldest_packed_millis(&self) -> TransportResult<Option<u64>>;
    /// Names of failed files and why they failed, at most `limit`, oldest failure first.
    async fn failures(&self, limit: u32) -> TransportResult<Vec<(String, Failure)>>;
    /// The ids of failed files, at most `limit`.
    async fn failed_ids(&self, limit: u32) -> TransportResult<Vec<String>>;
    /// The restored files that were checked last at a destination, one of each name.
    async fn checked_files(&self, location: &str) -> TransportResult<Vec<CheckedFile>>;
    /// These restored files of a destination were checked.
    async fn record_checked(&self, location: &str, files: Vec<CheckedFile>) -> TransportResult<()>;
}
