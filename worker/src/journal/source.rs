//! What the journal knows of a source: for each name at a location, what was last announced under it, and how far that is.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use streampress_transport::{Failure, FileVersion, TransportResult};

use crate::message::FileRef;

/// The newest announcement of a name at a location.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceRecord {
    /// The location, as the pipeline's source names it.
    pub location: String,
    /// Relative to the location.
    pub name: String,
    /// The announcement's own id: a send that is repeated has the same, a new announcement of the same content another.
    pub announcement: String,
    /// Derived from location, name and content hash.
    pub file_id: String,
    /// Hash of the content; empty once the file was seen to be gone.
    pub hash: String,
    /// Size of the content in bytes.
    pub bytes: u64,
    /// The modification time, in nanoseconds since 1970.
    pub modified_nanos: u64,
    /// The file's fingerprint, taken before its content was read.
    pub fingerprint: String,
    /// Whether an equal fingerprint proves equal content. False for a file that had changed so shortly before that
    /// another write might have left no trace.
    pub is_settled: bool,
    /// How far it is.
    pub state: SourceState,
    /// The version that it announces, where the queue told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<FileVersion>,
    /// Whether its sender waits for a reply at the source.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wants_reply: bool,
    /// Whether a receipt of it will be recorded. Without, nothing follows from there being none: a release without receipts
    /// announced it, or the pipeline has none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub awaits_receipt: bool,
    /// Whether the file is no longer at the source under its name, so that a file that comes under it is new. The record stays
    /// until it is known what became of the announcement.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_gone: bool,
}

impl SourceRecord {
    /// Whether it was restored or replaced.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, SourceState::Restored | SourceState::Superseded)
    }

    /// Whether this content was announced last, and the file is not known to be gone.
    pub(crate) fn is_of(&self, file: &FileRef) -> bool {
        self.hash == file.hash.as_str() && !self.is_gone
    }

    /// Whether it was restored, and the file with this fingerprint is another one or was touched since.
    pub(crate) fn was_restored_as_other(&self, fingerprint: &str) -> bool {
        self.state == SourceState::Restored && self.fingerprint != fingerprint
    }

    /// Whether the other is of the same announcement, and says the same of whether that was restored.
    pub(super) fn is_of_same_state(&self, other: &Self) -> bool {
        let is_restored = |record: &Self| record.state == SourceState::Restored;
        self.announcement == other.announcement && is_restored(self) == is_restored(other)
    }

    /// Whether nothing is known of what became of it, although that would be recorded.
    pub(crate) fn is_unconfirmed(&self) -> bool {
        self.awaits_receipt && !self.is_done()
    }
}

/// How far an announcement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SourceState {
    /// It is to be sent, and may have been.
    Writing,
    /// It was sent.
    Sent,
    /// The file is at its destination, hash checked.
    Restored,
    /// A newer version of the file replaced it.
    Superseded,
    /// Its message is a dead letter.
    Dead,
}

/// What became of an announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceReceipt {
    /// The location, as the pipeline's source names it.
    pub location: String,
    /// Relative to the location.
    pub name: String,
    /// Derived from location, name and content hash.
    pub file_id: String,
    /// The announcement's own id.
    pub announcement: String,
    /// [`SourceState::Restored`] or [`SourceState::Superseded`].
    pub state: SourceState,
    /// The fingerprint of the file that was announced, where the announcement says it: what was restored was that file, also
    /// where it was touched since.
    pub fingerprint: Option<String>,
}

/// A file that neither was restored nor replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenFile {
    /// Derived from location, name and content hash.
    pub file_id: String,
    /// Relative to its location; empty where only its id is known.
    pub name: String,
    /// Why its message is a dead letter; `None` for a file under way.
    pub failure: Option<Failure>,
}

/// A journal of what was announced from sources, and some values beside it.
///
/// Contract: recording the same again changes nothing. What was recorded is durable, or is made so by
/// [`SourceJournal::flush_sources`] where the method says so.
#[async_trait]
pub trait SourceJournal: Send + Sync + fmt::Debug {
    /// The newest announcement of every name at the location.
    async fn sources(&self, location: &str) -> TransportResult<Vec<SourceRecord>>;
    /// The newest announcement of a name at the location.
    async fn source(&self, location: &str, name: &str) -> TransportResult<Option<SourceRecord>>;
    /// These announcements are about to be sent and are the newest of their names. Their files are under way, also those
    /// that were done before: this is the second way back. An announcement that is recorded already changes nothing.
    async fn record_announcements(&self, records: &[SourceRecord]) -> TransportResult<()>;
    /// These announcements were sent. One that is no longer the newest of its name is left out.
    async fn record_sent(&self, records: &[SourceRecord]) -> TransportResult<()>;
    /// Replaces what is known of these names, without a new announcement: the files were read again.
    async fn record_sources(&self, records: &[SourceRecord]) -> TransportResult<()>;
    /// The file of this announcement was read again and has its content, under another fingerprint. False where the announcement
    /// is no longer the newest of its name, or was restored meanwhile and the record does not know it: then nothing is recorded.
    async fn record_read_again(&self, record: &SourceRecord) -> TransportResult<bool>;
    /// These files are no longer at the source: the same content that comes under their names later is new.
    async fn forget_sources(&self, records: &[SourceRecord]) -> TransportResult<()>;
    /// A receipt says what became of an announcement. One that is no longer the newest of its name is left out.
    async fn record_receipt(&self, receipt: &SourceReceipt) -> TransportResult<()>;
    /// Takes in what other processes left for this one since, and answers the records that this changed. Nothing in a journal
    /// that all processes share.
    async fn take_in(&self) -> TransportResult<Vec<SourceRecord>>;
    /// Whether there may be announcements of which nothing is known yet: cheap.
    async fn may_have_unconfirmed(&self) -> TransportResult<bool>;
    /// The newest announcement of every name at the location of which nothing is known yet; dead letters too.
    async fn unconfirmed(&self, location: &str) -> TransportResult<Vec<SourceRecord>> {
        let mut sources = self.sources(location).await?;
        sources.retain(SourceRecord::is_unconfirmed);
        Ok(sources)
    }
    /// Makes durable what may have been kept in memory: that announcements were sent, and receipts.
    async fn flush_sources(&self) -> TransportResult<()>;
    /// A small value kept under `key`.
    async fn get(&self, key: &str) -> TransportResult<Option<String>>;
    /// Keeps a small value under `key`.
    async fn set(&self, key: &str, value: &str) -> TransportResult<()>;
}
