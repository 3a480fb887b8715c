//! The report: the fate of every file, summed up in bounded totals and shown as one HTML page.
//!
//! A worker that restores a file adds a [`ReportRow`] to its [`log`]; a [`ReportState`] sums rows up and stays small however
//! many there are; [`render`] makes the page from it. Only [`log`], and `bucket` for a page in a bucket, read and write files and ask for the
//! time.
//!
//! - `state`: sums. `page`, `tables`, `chart`: the page's parts. `figures`: numbers and times as they stand in it.

mod bucket;
mod chart;
mod figures;
pub mod log;
mod page;
mod state;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use streampress_transport::{Failure, TransportResult};

pub(crate) use self::figures::saved_percent;
pub use self::page::{ReportMeta, render};
pub use self::state::ReportState;
use self::state::short_id;
use crate::journal::{FileJournal, JournalProgress};
use crate::message::{Share, StageNumbers};

/// Files that differ at the destination and are listed by their ids.
const LISTED_DIFFERING: usize = 10_000;
/// Failed files that are listed by their ids.
const LISTED_FAILED: u32 = 10_000;

/// The fate of one file. One line of the row log, as JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReportRow {
    /// Identity of the file: rows of one id are counted once.
    pub file_id: String,
    /// The file's name; it may have any characters.
    pub name: String,
    /// `json`, `csv`, `txt` …
    pub format: String,
    /// Size of the original file.
    pub raw_bytes: u64,
    /// Its packed bytes in the stream.
    pub packed_bytes: u64,
    /// Its records in the stream. Those of a bundle count for its first file.
    pub records: u64,
    /// How many files were packed together with it; 0 for a file that was packed alone.
    pub packed_with: u64,
    /// How much was tried to make it small: `fast`, `balanced` or `max`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effort: Option<String>,
    /// The steps of compressing it, in order.
    pub stages: Vec<StageNumbers>,
    /// The parts of `packed_bytes`.
    pub codec_shares: Vec<Share>,
    /// When the file was announced, in milliseconds since 1970.
    pub announced_at_millis: Option<u64>,
    /// When all its records were in the stream.
    pub compressed_at_millis: Option<u64>,
    /// When it was restored, or became a dead letter.
    pub restored_at_millis: Option<u64>,
    /// Time spent compressing it.
    pub seconds_compress: f64,
    /// Time spent restoring it.
    pub seconds_restore: f64,
    /// How it ended.
    pub outcome: FileOutcome,
    /// The original's format restores a normal form of the file, not its bytes.
    pub is_normalised: bool,
    /// The slot that did the last step.
    pub slot: String,
}

impl ReportRow {
    /// A file that was not packed, which ended at `millis` since 1970.
    pub(crate) fn unpacked(
        file_id: &str,
        name: &str,
        raw_bytes: u64,
        millis: u64,
        outcome: FileOutcome,
    ) -> Self {
        Self {
            file_id: file_id.to_owned(),
            name: name.to_owned(),
            format: format_of(name),
            raw_bytes,
            restored_at_millis: Some(millis),
            outcome,
            ..Self::default()
        }
    }
}

/// How far the files are by the journal of a data folder. A page of that folder has its counts from there, as the summary of a
/// run; rows only say the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JournalCounts {
    /// The counts.
    pub progress: JournalProgress,
    /// The shortened ids of the failed files, at most [`LISTED_FAILED`].
    pub failed_ids: BTreeSet<u64>,
}

impl JournalCounts {
    /// Reads them.
    pub(crate) async fn read(journal: &dyn FileJournal) -> TransportResult<Self> {
        let progress = journal.progress().await?;
        let failed = journal.failed_ids(LISTED_FAILED).await?;
        Ok(Self {
            progress,
            failed_ids: failed.iter().map(|id| short_id(id)).collect(),
        })
    }

    /// Whether the file of this failed row has not failed any more: it was superseded or sent again since.
    fn is_outdated(&self, row: &ReportRow) -> bool {
        let were_all_listed = self.failed_ids.len() as u64 >= self.progress.failed;
        matches!(row.outcome, FileOutcome::Failed { .. })
            && were_all_listed
            && !self.failed_ids.contains(&short_id(&row.file_id))
    }
}

/// What the last `run` found beyond its files' rows, when it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LastRun {
    /// Whether it had not ended: it still runs, or was killed. What is said of restored files is then what the run before
    /// found, and the rest is not known.
    pub is_running: bool,
    /// When it ended, or the run before if it had not, in milliseconds since 1970.
    pub ended_at_millis: u64,
    /// What it could not take from the source.
    pub left_out: LeftOutSummary,
    /// Announced files that were neither restored nor superseded nor failed.
    pub unfinished: u64,
    /// Files that were not announced, because they had changed a short time before.
    pub waiting: u64,
    /// Restored files that are no longer at the destination, and cannot be restored again.
    pub gone: u64,
    /// Those of them that were restored at another destination, and never at this one.
    pub elsewhere: u64,
    /// Restored files that others changed at the destination.
    pub altered: u64,
    /// The shortened ids of those that are gone, at most [`LISTED_DIFFERING`].
    pub gone_ids: Vec<u64>,
    /// And of those that were changed.
    pub altered_ids: Vec<u64>,
    /// The sources whose files the data folder has, this run's included.
    pub sources: u64,
}

impl LastRun {
    /// Notes which restored files are gone, and which others changed, by their ids.
    pub(crate) fn with_differing<'i>(
        self,
        gone: impl ExactSizeIterator<Item = &'i str>,
        altered: impl ExactSizeIterator<Item = &'i str>,
    ) -> Self {
        Self {
            gone: gone.len() as u64,
            altered: altered.len() as u64,
            gone_ids: gone.take(LISTED_DIFFERING).map(short_id).collect(),
            altered_ids: altered.take(LISTED_DIFFERING).map(short_id).collect(),
            ..self
        }
    }

    /// What the run found at the place of a file that was restored, of which this is the row.
    fn copy_of(&self, row: &ReportRow) -> RestoredCopy {
        let id = short_id(&row.file_id);
        let were_all_listed =
            (self.gone_ids.len() + self.altered_ids.len()) as u64 >= self.gone + self.altered;
        if row.compressed_at_millis > Some(self.ended_at_millis) {
            RestoredCopy::Same
        } else if self.altered_ids.contains(&id) {
            RestoredCopy::Altered
        } else if self.gone_ids.contains(&id) {
            RestoredCopy::Gone
        } else if were_all_listed {
            RestoredCopy::Same
        } else {
            RestoredCopy::Unknown
        }
    }
}

/// What lies in the place of a restored file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RestoredCopy {
    Same,
    Altered,
    Gone,
    /// There are too many that differ to list them all.
    Unknown,
}

/// Files and folders of the source that could not be taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LeftOutSummary {
    /// How many there are.
    pub count: u64,
    /// The first of them: name and reason.
    pub listed: Vec<(String, String)>,
}

/// How a file ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FileOutcome {
    /// It was restored byte for byte.
    #[default]
    Restored,
    /// A newer version of the file had been restored.
    Superseded,
    /// Its dead letter was discarded: the file is not counted any more.
    Discarded,
    /// It is a dead letter. Both are texts: a page also shows the rows of workers of other versions, which may know other
    /// reasons.
    #[serde(rename_all = "camelCase")]
    Failed {
        /// The [`DeadLetterReason`](streampress_crds::DeadLetterReason).
        reason: String,
        /// One sentence for a person.
        #[serde(rename = "wayOut")]
        detail: String,
    },
}

impl From<&Failure> for FileOutcome {
    fn from(failure: &Failure) -> Self {
        Self::Failed {
            reason: failure.reason.to_string(),
            detail: failure.detail.clone(),
        }
    }
}

/// What the report calls a file's kind: its extension.
pub(crate) fn format_of(name: &str) -> String {
    name.rsplit_once('.')
        .map_or_else(String::new, |(_, extension)| extension.to_ascii_lowercase())
}
