//! The report: what happened to every file, folded into bounded totals and shown as one HTML page.
//!
//! Values in, text out: this room reads no file, asks no clock and knows no queue. Whoever restores
//! a file makes a [`ReportRow`]; a [`ReportState`] folds rows and stays small however many come;
//! [`render`] makes the page from it.

mod chart;
mod html;
pub mod log;
mod page;
mod state;
mod tables;

use serde::{Deserialize, Serialize};

pub use page::{ReportMeta, render};
pub use state::{Folded, ReportState, fold_jsonl};

/// What happened to one file. One line of the row log, as JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReportRow {
    /// Identity of the file: rows of one id are counted once.
    pub file_id: String,
    /// The file's name; it may hold anything.
    pub name: String,
    /// `json`, `csv`, `txt` …
    pub format: String,
    /// Size of the file as it came.
    pub raw_bytes: u64,
    /// What it took on the stream.
    pub packed_bytes: u64,
    /// How many records it took on the stream.
    pub records: u64,
    /// The steps of compressing it, in order.
    pub stages: Vec<StageRow>,
    /// What `packed_bytes` consists of.
    pub codec_shares: Vec<CodecShare>,
    /// When the file was announced, in milliseconds since 1970.
    pub announced_at_millis: Option<u64>,
    /// When it was on the stream as a whole.
    pub compressed_at_millis: Option<u64>,
    /// When it was restored, or given up.
    pub restored_at_millis: Option<u64>,
    /// Time spent compressing it.
    pub seconds_compress: f64,
    /// Time spent restoring it.
    pub seconds_restore: f64,
    /// How it ended.
    pub outcome: Outcome,
    /// The slot that did the last step.
    pub slot: String,
}

/// One step of compressing a file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StageRow {
    /// Such as `Step 01 columns+LZMA`.
    pub name: String,
    /// Bytes the step was given.
    pub bytes_in: u64,
    /// Bytes it made of them.
    pub bytes_out: u64,
    /// Time it took.
    pub seconds: f64,
}

/// How many of a file's packed bytes one way of packing made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CodecShare {
    /// Transform and codec, such as `columns + LZMA`.
    pub label: String,
    /// Packed bytes.
    pub bytes: u64,
}

/// How a file ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It came back byte for byte.
    #[default]
    Restored,
    /// It was given up and waits among the dead letters.
    #[serde(rename_all = "camelCase")]
    Failed {
        /// What went wrong.
        reason: String,
        /// What to do about it.
        way_out: String,
    },
    /// The destination already had it.
    Skipped,
}

#[cfg(test)]
mod tests;
