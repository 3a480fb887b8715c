//! What became of every file: for progress, for resuming, and for knowing what was announced already.
//!
//! The embedded transport's folder keeps it in its database ([`SqliteJournal`]). Workers that share no data folder keep at
//! most what was announced of the source, at the source itself: the generator role's process keeps it ([`SegmentJournal`]),
//! the others leave notes for that one ([`NoteJournal`]), or keep none ([`NoJournal`]). Callers need not know which it is.

mod notes;
mod segments;
mod source;
mod source_lines;
mod sqlite;
mod sqlite_sources;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::SystemTime;

use async_trait::async_trait;
use serde::Serialize;
use streampress_transport::{Failure, TransportResult};

use crate::message::Digest;

pub use notes::NoteJournal;
pub use segments::SegmentJournal;
pub use source::{OpenFile, SourceReceipt, SourceRecord, SourceState};
pub use sqlite::SqliteJournal;

/// The key of when the journal was made anew from the stream, milliseconds since 1970. Of what was announced before, it knows
/// the newest version of each name at most.
pub(crate) const RECOVERED: &str = "recovered";
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

/// A journal of files.
///
/// Contract: a file only moves forward (announced, compressed, restored or superseded or failed), and recording the same
/// step again changes nothing. A dead letter may be discarded, with all that is known of its file. The ways back are [`FileJournal::record_redriven`] and
/// [`FileJournal::record_announcements`]. What was recorded is durable. A journal that keeps nothing accepts every record
/// and answers that it knows nothing: the default of every method.
#[async_trait]
pub trait FileJournal: Send + Sync + fmt::Debug {
    /// The file is known. Keeps what is known already, and how far it is.
    async fn record_announced(&self, file: &JournalFile) -> TransportResult<()> {
        let _ = file;
        Ok(())
    }
    /// The file's bytes are in the stream; there they take `packed_bytes`.
    async fn record_compressed(&self, file_id: &str, packed_bytes: u64) -> TransportResult<()> {
        let _ = (file_id, packed_bytes);
        Ok(())
    }
    /// A manifest of the file came: it was packed, also where [`Self::record_compressed`] did not succeed. What that recorded
    /// stays.
    async fn record_received(&self, file_id: &str, packed_bytes: u64) -> TransportResult<()> {
        let _ = (file_id, packed_bytes);
        Ok(())
    }
    /// The file is at its destination and its hash is right. A failure recorded before no longer counts, and failed files of
    /// its name that were announced before it are superseded. It was packed, as [`Self::record_received`] says.
    async fn record_restored(&self, file_id: &str, packed_bytes: u64) -> TransportResult<()> {
        let _ = (file_id, packed_bytes);
        Ok(())
    }
    /// A newer version of the same name is at the destination already, or was announced in its place. A file that an earlier
    /// announcement of the same content packed or restored stays that.
    async fn record_superseded(&self, file_id: &str) -> TransportResult<()> {
        let _ = file_id;
        Ok(())
    }
    /// The file is a dead letter now. A file that is done already stays done, and one of whose name a file was restored that
    /// was announced later is superseded.
    async fn record_failed(&self, file_id: &str, failure: &Failure) -> TransportResult<()> {
        let _ = (file_id, failure);
        Ok(())
    }
    /// The dead letter was sent again: the file is under way once more.
    async fn record_redriven(&self, file_id: &str) -> TransportResult<()> {
        let _ = file_id;
        Ok(())
    }
    /// The dead letter was discarded: the file is not known any more, and what comes under its name later is new. A file that
    /// is no dead letter stays known.
    async fn record_discarded(&self, file_id: &str) -> TransportResult<()> {
        let _ = file_id;
        Ok(())
    }
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
    ) -> TransportResult<Option<bool>> {
        let _ = (name, raw_bytes, modified);
        Ok(None)
    }
    /// Whether a file of this name with this content was announced before; `None` from a journal that cannot tell.
    async fn was_content_announced(&self, name: &str, hash: &str) -> TransportResult<Option<bool>> {
        let _ = (name, hash);
        Ok(None)
    }
    /// Whether any file of this name was announced before; `None` from a journal that cannot tell.
    async fn was_name_announced(&self, name: &str) -> TransportResult<Option<bool>> {
        let _ = name;
        Ok(None)
    }
    /// The locations that files were announced from.
    async fn locations(&self) -> TransportResult<Vec<String>> {
        Ok(Vec::new())
    }
    /// The newest announcement of every name at the location.
    async fn sources(&self, location: &str) -> TransportResult<Vec<SourceRecord>> {
        let _ = location;
        Ok(Vec::new())
    }
    /// The newest announcement of a name at the location.
    async fn source(&self, location: &str, name: &str) -> TransportResult<Option<SourceRecord>> {
        let _ = (location, name);
        Ok(None)
    }
    /// These announcements are about to be sent and are the newest of their names. Their files are under way, also those
    /// that were done before: this is the second way back. An announcement that is recorded already changes nothing.
    async fn record_announcements(&self, records: &[SourceRecord]) -> TransportResult<()> {
        let _ = records;
        Ok(())
    }
    /// These announcements were sent. One that is no longer the newest of its name is left out.
    async fn record_sent(&self, records: &[SourceRecord]) -> TransportResult<()> {
        let _ = records;
        Ok(())
    }
    /// Replaces what is known of these names, without a new announcement: the files were read again.
    async fn record_sources(&self, records: &[SourceRecord]) -> TransportResult<()> {
        let _ = records;
        Ok(())
    }
    /// These files are no longer at the source: the same content that comes under their names later is new.
    async fn forget_sources(&self, records: &[SourceRecord]) -> TransportResult<()> {
        let _ = records;
        Ok(())
    }
    /// A receipt says what became of an announcement. One that is no longer the newest of its name is left out.
    async fn record_receipt(&self, receipt: &SourceReceipt) -> TransportResult<()> {
        let _ = receipt;
        Ok(())
    }
    /// Takes in what other processes left for this one since, and answers the records that this changed. Nothing in a journal
    /// that all processes share.
    async fn take_in(&self) -> TransportResult<Vec<SourceRecord>> {
        Ok(Vec::new())
    }
    /// Whether there may be announcements of which nothing is known yet: cheap.
    async fn may_have_unconfirmed(&self) -> TransportResult<bool> {
        Ok(false)
    }
    /// The newest announcement of every name at the location of which nothing is known yet; dead letters too.
    async fn unconfirmed(&self, location: &str) -> TransportResult<Vec<SourceRecord>> {
        let mut sources = self.sources(location).await?;
        sources.retain(SourceRecord::is_unconfirmed);
        Ok(sources)
    }
    /// Makes durable what may have been kept in memory: that announcements were sent, and receipts.
    async fn flush_sources(&self) -> TransportResult<()> {
        Ok(())
    }
    /// Whether this file was restored, and is the last that was announced under its name.
    async fn was_restored(&self, name: &str, file_id: &str) -> TransportResult<bool> {
        let _ = (name, file_id);
        Ok(false)
    }
    /// Whether another file of this one's name was restored that was announced later.
    async fn was_replaced(&self, file_id: &str) -> TransportResult<bool> {
        let _ = file_id;
        Ok(false)
    }
    /// How far a file is; `None` where it is not known, or from a journal that cannot tell.
    async fn file_status(&self, file_id: &str) -> TransportResult<Option<FileStatus>> {
        let _ = file_id;
        Ok(None)
    }
    /// Every file that neither was restored nor replaced, in the order of announcements.
    async fn open_files(&self) -> TransportResult<Vec<OpenFile>> {
        Ok(Vec::new())
    }
    /// How far the files are.
    async fn progress(&self) -> TransportResult<JournalProgress> {
        Ok(JournalProgress::default())
    }
    /// When the oldest of the files was packed that are neither restored nor replaced, milliseconds since 1970.
    async fn oldest_packed_millis(&self) -> TransportResult<Option<u64>> {
        Ok(None)
    }
    /// Names of failed files and why they failed, at most `limit`, oldest failure first.
    async fn failures(&self, limit: u32) -> TransportResult<Vec<(String, Failure)>> {
        let _ = limit;
        Ok(Vec::new())
    }
    /// The ids of failed files, at most `limit`.
    async fn failed_ids(&self, limit: u32) -> TransportResult<Vec<String>> {
        let _ = limit;
        Ok(Vec::new())
    }
    /// The restored files that were checked last at a destination, one of each name.
    async fn checked_files(&self, location: &str) -> TransportResult<Vec<CheckedFile>> {
        let _ = location;
        Ok(Vec::new())
    }
    /// These restored files of a destination were checked.
    async fn record_checked(&self, location: &str, files: Vec<CheckedFile>) -> TransportResult<()> {
        let _ = (location, files);
        Ok(())
    }
    /// A small value kept under `key`.
    async fn get(&self, key: &str) -> TransportResult<Option<String>> {
        let _ = key;
        Ok(None)
    }
    /// Keeps a small value under `key`.
    async fn set(&self, key: &str, value: &str) -> TransportResult<()> {
        let _ = (key, value);
        Ok(())
    }
}

/// The journal of a worker that keeps none.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoJournal;

#[async_trait]
impl FileJournal for NoJournal {}
