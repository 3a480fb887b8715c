//! Sums rows up in totals of bounded size: the same size for ten files and ten million.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::{FileOutcome, ReportRow};
use crate::message::StageNumbers;
use streampress_codec::hybrid::Effort;

/// Rows shown one by one.
pub(super) const RECENT_ROWS: usize = 200;
/// Failures kept however many files succeed after them.
pub(super) const KEPT_FAILURES: usize = 50;
/// File ids remembered, so that a row delivered twice is counted once.
const REMEMBERED_IDS: usize = 4096;
/// Points of the charts.
pub(super) const MAX_BUCKETS: u64 = 240;
/// Different stages and shares counted by name; the rest is summed as [`OTHER`].
const MAX_LABELS: usize = 24;
const OTHER: &str = "other";
/// The work on one file counts for no longer: one wrong figure must not make all buckets wide.
const LONGEST_WORK_MILLIS: u64 = 24 * 3600 * 1000;
/// Longer texts are cut: the state stays small whatever names and reasons come.
const MAX_TEXT_CHARS: usize = 512;

/// Everything the page shows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReportState {
    /// Files restored byte for byte.
    pub files_restored: u64,
    /// Those of them that were restored in the normal form of the original's format.
    pub files_normalised: u64,
    /// Files that are dead letters.
    pub files_failed: u64,
    /// Versions that a newer version of the same file replaced.
    pub files_superseded: u64,
    /// Bytes of the restored files.
    pub raw_bytes: u64,
    /// Their packed bytes in the stream.
    pub packed_bytes: u64,
    /// Their records in the stream.
    pub records: u64,
    /// Time spent compressing them.
    pub seconds_compress: f64,
    /// Time spent restoring them.
    pub seconds_restore: f64,
    /// When the first file was announced, in milliseconds since 1970.
    pub first_at_millis: Option<u64>,
    /// When the last file was done, in milliseconds since 1970.
    pub last_at_millis: Option<u64>,
    /// The efforts with which files were packed.
    pub(super) efforts: BTreeSet<String>,
    pub(super) stages: BTreeMap<String, StageTotal>,
    pub(super) shares: BTreeMap<String, u64>,
    pub(super) recent: VecDeque<ReportRow>,
    pub(super) failures: VecDeque<ReportRow>,
    pub(super) series: Series,
    /// The last outcome of each remembered file, oldest first.
    outcomes: VecDeque<LastOutcome>,
}

/// The last outcome of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LastOutcome {
    /// Hash of the file's id.
    id: u64,
    kind: OutcomeKind,
    /// When it had this outcome, in milliseconds since 1970: the rows of several writers are not read in the order of time.
    at_millis: u64,
}

/// A [`FileOutcome`] without its texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum OutcomeKind {
    Restored,
    Superseded,
    Failed,
    Discarded,
}

impl From<&FileOutcome> for OutcomeKind {
    fn from(outcome: &FileOutcome) -> Self {
        match outcome {
            FileOutcome::Restored => Self::Restored,
            FileOutcome::Superseded => Self::Superseded,
            FileOutcome::Failed { .. } => Self::Failed,
            FileOutcome::Discarded => Self::Discarded,
        }
    }
}

/// One step, summed over all files.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct StageTotal {
    pub(super) files: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) seconds: f64,
}

/// Sums over the time in which files were worked on, in buckets that become wider over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Series {
    /// A second times a power of two, so that any two series fit together.
    pub(super) width_millis: u64,
    /// By time divided by the width. A time without a bucket is one in which no file was worked on.
    pub(super) buckets: BTreeMap<u64, SeriesBucket>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SeriesBucket {
    pub(super) files: u64,
    pub(super) raw_bytes: u64,
    pub(super) packed_bytes: u64,
}

/// The result of reading a part of a row log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct FoldedRows {
    /// Rows read, repeated ones included.
    pub(super) rows: u64,
    /// Whole lines that are no rows.
    pub(super) unreadable: u64,
    /// Bytes up to the end of the last whole line: where the next reading starts.
    pub(super) bytes: usize,
}

impl ReportState {
    /// Counts one row. The last outcome of a file counts; a second row of the same outcome changes nothing, and a version that
    /// was restored stays so when it is superseded.
    pub fn fold(&mut self, row: &ReportRow) {
        let (id, kind) = (short_hash(&row.file_id), OutcomeKind::from(&row.outcome));
        let at_millis = row.restored_at_millis.unwrap_or(0);
        let last = LastOutcome {
            id,
            kind,
            at_millis,
        };
        match self.outcomes.iter_mut().find(|known| known.id == id) {
            None => {
                self.outcomes.push_back(last);
                keep_last(&mut self.outcomes, REMEMBERED_IDS);
            }
            Some(known) => {
                let before = known.kind;
                // At the same moment a failure came first.
                let is_older = at_millis < known.at_millis
                    || at_millis == known.at_millis && kind == OutcomeKind::Failed;
                if is_older || before == kind || !follows(before, kind) {
                    return;
                }
                *known = last;
                self.take_out(before, &row.file_id);
            }
        }
        if kind != OutcomeKind::Discarded {
            self.add(row);
        }
    }

    /// Takes a file's earlier outcome out of the numbers.
    fn take_out(&mut self, outcome: OutcomeKind, file_id: &str) {
        let files = match outcome {
            OutcomeKind::Restored => &mut self.files_restored,
            OutcomeKind::Superseded => &mut self.files_superseded,
            OutcomeKind::Failed => &mut self.files_failed,
            OutcomeKind::Discarded => return,
        };
        *files = files.saturating_sub(1);
        self.failures.retain(|other| other.file_id != file_id);
        self.recent.retain(|other| other.file_id != file_id);
    }

    fn add(&mut self, row: &ReportRow) {
        self.count(row);
        let row = shortened(row);
        if matches!(row.outcome, FileOutcome::Failed { .. }) {
            self.failures.push_back(row.clone());
            keep_last(&mut self.failures, KEPT_FAILURES);
        }
        self.recent.push_back(row);
        keep_last(&mut self.recent, RECENT_ROWS);
    }

    fn count(&mut self, row: &ReportRow) {
        let (first, last) = (row.announced_at_millis, row.restored_at_millis);
        self.first_at_millis = least(self.first_at_millis, first.or(last));
        self.last_at_millis = self.last_at_millis.max(last);
        match row.outcome {
            FileOutcome::Failed { .. } => self.files_failed += 1,
            FileOutcome::Superseded => self.files_superseded += 1,
            FileOutcome::Discarded => {}
            FileOutcome::Restored => {
                self.files_restored += 1;
                self.files_normalised += u64::from(row.is_normalised);
                self.raw_bytes = self.raw_bytes.saturating_add(row.raw_bytes);
                self.packed_bytes = self.packed_bytes.saturating_add(row.packed_bytes);
                self.records = self.records.saturating_add(row.records);
                self.seconds_compress += sane(row.seconds_compress);
                self.seconds_restore += sane(row.seconds_restore);
                let known = |effort: &&String| Effort::ALL.iter().any(|it| it.name() == **effort);
                self.efforts
                    .extend(row.effort.iter().filter(known).cloned());
                for stage in &row.stages {
                    entry(&mut self.stages, &stage.name).add_row(stage);
                }
                for share in &row.codec_shares {
                    let sum = entry(&mut self.shares, &share.label);
                    *sum = sum.saturating_add(share.bytes);
                }
                if let Some(restored) = row.restored_at_millis {
                    self.series
                        .add(work_began(row, restored), restored, SeriesBucket::of(row));
                }
            }
        }
    }

    /// One state from those of several writers. A file that two writers restored counts twice in the totals and once among
    /// the rows.
    pub(super) fn merge(states: impl IntoIterator<Item = Self>) -> Self {
        let mut merged = Self::default();
        for state in states {
            merged.absorb(state);
        }
        sort_by_time(&mut merged.recent);
        sort_by_time(&mut merged.failures);
        keep_last(&mut merged.recent, RECENT_ROWS);
        keep_last(&mut merged.failures, KEPT_FAILURES);
        keep_last(&mut merged.outcomes, REMEMBERED_IDS);
        merged
    }

    fn absorb(&mut self, other: Self) {
        self.files_restored = self.files_restored.saturating_add(other.files_restored);
        self.files_normalised = self.files_normalised.saturating_add(other.files_normalised);
        self.files_failed = self.files_failed.saturating_add(other.files_failed);
        self.files_superseded = self.files_superseded.saturating_add(other.files_superseded);
        self.raw_bytes = self.raw_bytes.saturating_add(other.raw_bytes);
        self.packed_bytes = self.packed_bytes.saturating_add(other.packed_bytes);
        self.records = self.records.saturating_add(other.records);
        self.seconds_compress += sane(other.seconds_compress);
        self.seconds_restore += sane(other.seconds_restore);
        self.first_at_millis = least(self.first_at_millis, other.first_at_millis);
        self.last_at_millis = self.last_at_millis.max(other.last_at_millis);
        self.efforts.extend(other.efforts);
        for (name, total) in &other.stages {
            entry(&mut self.stages, name).add(total);
        }
        for (label, bytes) in other.shares {
            let sum = entry(&mut self.shares, &label);
            *sum = sum.saturating_add(bytes);
        }
        let unknown = |rows: &VecDeque<ReportRow>, row: &ReportRow| {
            rows.iter().all(|known| known.file_id != row.file_id)
        };
        for row in other.recent {
            if unknown(&self.recent, &row) {
                self.recent.push_back(row);
            }
        }
        for row in other.failures {
            if unknown(&self.failures, &row) {
                self.failures.push_back(row);
            }
        }
        self.series.absorb(other.series);
        self.outcomes.extend(other.outcomes);
    }

    /// Files of any outcome.
    pub(super) fn files(&self) -> u64 {
        self.files_restored
            .saturating_add(self.files_failed)
            .saturating_add(self.files_superseded)
    }
}

/// Whether a file of one outcome can have the other next.
fn follows(before: OutcomeKind, next: OutcomeKind) -> bool {
    match (before, next) {
        (OutcomeKind::Restored, OutcomeKind::Superseded) => false,
        (before, OutcomeKind::Discarded) => before == OutcomeKind::Failed,
        _ => true,
    }
}

/// Counts the rows of a log, one JSON row a line. A last line without an end is still being written (or was torn by a crash)
/// and is left for the next reading; an unreadable line in between is counted and skipped.
pub(super) fn fold_jsonl(state: &mut ReportState, log: &[u8]) -> FoldedRows {
    let mut folded = FoldedRows::default();
    let whole = log
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    folded.bytes = whole;
    for line in log[..whole].split(|byte| *byte == b'\n') {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match serde_json::from_slice::<ReportRow>(line) {
            Ok(row) if !row.file_id.is_empty() => {
                state.fold(&row);
                folded.rows += 1;
            }
            // All members but the id have defaults, so an object without an id is no row.
            Ok(_) | Err(_) => folded.unreadable += 1,
        }
    }
    folded
}

impl StageTotal {
    fn add_row(&mut self, row: &StageNumbers) {
        self.add(&Self {
            files: 1,
            bytes_in: row.bytes_in,
            bytes_out: row.bytes_out,
            seconds: row.seconds,
        });
    }

    fn add(&mut self, other: &Self) {
        self.files = self.files.saturating_add(other.files);
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.seconds += sane(other.seconds);
    }
}

/// When the work on a file began, in milliseconds since 1970: so long before it was restored as packing and restoring it
/// took. Time in queues does not count.
fn work_began(row: &ReportRow, restored: u64) -> u64 {
    let seconds = sane(row.seconds_compress) + sane(row.seconds_restore);
    let millis = (seconds * 1e3).min(LONGEST_WORK_MILLIS as f64) as u64;
    let began = restored.saturating_sub(millis);
    // No work was done before the file was announced, unless clocks differ.
    row.announced_at_millis
        .map_or(began, |announced| began.max(announced.min(restored)))
}

impl SeriesBucket {
    fn of(row: &ReportRow) -> Self {
        Self {
            files: 1,
            raw_bytes: row.raw_bytes,
            packed_bytes: row.packed_bytes,
        }
    }

    fn add(&mut self, other: Self) {
        self.files = self.files.saturating_add(other.files);
        self.raw_bytes = self.raw_bytes.saturating_add(other.raw_bytes);
        self.packed_bytes = self.packed_bytes.saturating_add(other.packed_bytes);
    }
}

impl Default for Series {
    fn default() -> Self {
        Self {
            width_millis: 1000,
            buckets: BTreeMap::new(),
        }
    }
}

impl Series {
    /// Adds a file that was worked on from `began` to `ended`. Its bytes are spread evenly over that time.
    fn add(&mut self, began: u64, ended: u64, file: SeriesBucket) {
        let key = |series: &Self, millis: u64| millis / series.width_millis.max(1);
        let (first, last) = loop {
            let (first, last) = (key(self, began), key(self, ended));
            let from = self.first_key().map_or(first, |key| key.min(first));
            let to = self.last_key().map_or(last, |key| key.max(last));
            if to - from < MAX_BUCKETS {
                break (first, last);
            }
            self.widen();
        };
        let count = last - first + 1;
        for key in first..=last {
            let nth = key - first;
            // The shares add up to the whole.
            let share = |bytes: u64| {
                let until = |n: u64| (u128::from(bytes) * u128::from(n) / u128::from(count)) as u64;
                until(nth + 1) - until(nth)
            };
            self.buckets.entry(key).or_default().add(SeriesBucket {
                files: if key == last { file.files } else { 0 },
                raw_bytes: share(file.raw_bytes),
                packed_bytes: share(file.packed_bytes),
            });
        }
    }

    pub(super) fn first_key(&self) -> Option<u64> {
        self.buckets.keys().next().copied()
    }

    fn last_key(&self) -> Option<u64> {
        self.buckets.keys().next_back().copied()
    }

    /// The time in which files were worked on, in milliseconds; to one bucket's width at each end.
    pub(super) fn working_millis(&self) -> u64 {
        (self.buckets.len() as u64).saturating_mul(self.width_millis)
    }

    fn absorb(&mut self, mut other: Self) {
        while self.width_millis < other.width_millis {
            self.widen();
        }
        while other.width_millis < self.width_millis {
            other.widen();
        }
        for (key, bucket) in other.buckets {
            self.buckets.entry(key).or_default().add(bucket);
        }
        while self.span() > MAX_BUCKETS {
            self.widen();
        }
    }

    /// Buckets from the first to the last, empty ones included.
    pub(super) fn span(&self) -> u64 {
        let ends = self.first_key().zip(self.last_key());
        ends.map_or(0, |(first, last)| (last - first).saturating_add(1))
    }

    fn widen(&mut self) {
        self.width_millis = self.width_millis.max(1).saturating_mul(2);
        for (key, bucket) in std::mem::take(&mut self.buckets) {
            self.buckets.entry(key / 2).or_default().add(bucket);
        }
    }
}

fn entry<'a, T: Default>(map: &'a mut BTreeMap<String, T>, name: &str) -> &'a mut T {
    let name = cut(name);
    let known = map.contains_key(&name) || map.len() < MAX_LABELS;
    map.entry(if known { name } else { OTHER.to_owned() })
        .or_default()
}

fn shortened(row: &ReportRow) -> ReportRow {
    let mut row = row.clone();
    for text in [
        &mut row.file_id,
        &mut row.name,
        &mut row.format,
        &mut row.slot,
    ] {
        *text = cut(text);
    }
    if let FileOutcome::Failed { reason, detail } = &mut row.outcome {
        (*reason, *detail) = (cut(reason), cut(detail));
    }
    row.seconds_compress = sane(row.seconds_compress);
    row.seconds_restore = sane(row.seconds_restore);
    // Steps and shares are summed up and not shown for single files.
    row.stages = Vec::new();
    row.codec_shares = Vec::new();
    row
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT_CHARS).collect()
}

/// A time that can be summed: wrong clocks must not spoil the totals.
fn sane(seconds: f64) -> f64 {
    if seconds.is_finite() {
        seconds.max(0.0)
    } else {
        0.0
    }
}

fn short_hash(id: &str) -> u64 {
    let hash = blake3::hash(id.as_bytes());
    hash.as_bytes()
        .iter()
        .take(8)
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn least(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).min()
}

fn sort_by_time(rows: &mut VecDeque<ReportRow>) {
    rows.make_contiguous()
        .sort_by_key(|row| row.restored_at_millis);
}

fn keep_last<T>(list: &mut VecDeque<T>, len: usize) {
    let spare = list.len().saturating_sub(len);
    list.drain(..spare);
}
