//! Sums rows up in totals of bounded size: the same size for ten files and ten million.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::{FileOutcome, JournalCounts, LastRun, ReportRow};
use crate::message::StageNumbers;
use streampress_codec::hybrid::Effort;

/// Rows shown one by one.
pub(super) const RECENT_ROWS: usize = 200;
/// Failures kept however many files succeed after them.
pub(super) const KEPT_FAILURES: usize = 50;
/// Files remembered, so that each counts once, whatever rows of it follow.
const REMEMBERED_FILES: usize = 4096;
/// Points of the charts.
pub(super) const MAX_BUCKETS: u64 = 240;
/// Different stages and shares counted by name; the rest is summed as [`OTHER`].
const MAX_LABELS: usize = 24;
const OTHER: &str = "other";
/// Names of stages and shares that remembered files refer to.
const MAX_REFERRED_LABELS: usize = 4 * MAX_LABELS;
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
    /// Files that were packed, of whatever outcome.
    pub files_packed: u64,
    /// Bytes of the packed files.
    pub raw_bytes: u64,
    /// Their packed bytes in the stream, as they were packed last.
    pub packed_bytes: u64,
    /// Their records in the stream.
    pub records: u64,
    /// Time spent compressing them.
    pub seconds_compress: f64,
    /// Time spent restoring the restored ones.
    pub seconds_restore: f64,
    /// Bytes of the restored ones.
    pub restored_raw_bytes: u64,
    /// Their packed bytes.
    pub restored_packed_bytes: u64,
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
    /// The work on files over time; work that was done twice is in it twice.
    pub(super) series: Series,
    /// The remembered files, oldest first.
    known: VecDeque<KnownFile>,
    /// Names of stages and shares, to which remembered files refer by number.
    labels: Vec<String>,
}

/// A remembered file: all of its rows that matter, since the rows of several writers are not read in the order of time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct KnownFile {
    /// [`short_id`] of the file's id.
    id: u64,
    /// The last outcome of each kind.
    outcomes: Vec<KnownOutcome>,
}

/// An outcome that a file had.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KnownOutcome {
    kind: OutcomeKind,
    /// When it had it last, in milliseconds since 1970.
    at_millis: u64,
    /// What the file adds to the totals, where it was packed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    figures: Option<Box<Figures>>,
}

/// What a packed file adds to the totals. Of many files, so its JSON is short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "ShortFigures", into = "ShortFigures")]
struct Figures {
    /// When it was packed, in milliseconds since 1970.
    packed_at: u64,
    raw_bytes: u64,
    packed_bytes: u64,
    records: u64,
    seconds_compress: f64,
    seconds_restore: f64,
    is_normalised: bool,
    /// By the number of the name.
    stages: Vec<(usize, StageTotal)>,
    shares: Vec<(usize, u64)>,
}

/// The fields of [`Figures`] in their order; of a stage: number, files, bytes before and after, seconds.
#[derive(Serialize, Deserialize)]
struct ShortFigures(
    u64,
    (u64, u64, u64),
    (f64, f64),
    bool,
    Vec<(usize, u64, u64, u64, f64)>,
    Vec<(usize, u64)>,
);

impl From<Figures> for ShortFigures {
    fn from(figures: Figures) -> Self {
        let stages = figures.stages.into_iter();
        let short = |(number, it): (usize, StageTotal)| {
            (number, it.files, it.bytes_in, it.bytes_out, it.seconds)
        };
        Self(
            figures.packed_at,
            (figures.raw_bytes, figures.packed_bytes, figures.records),
            (figures.seconds_compress, figures.seconds_restore),
            figures.is_normalised,
            stages.map(short).collect(),
            figures.shares,
        )
    }
}

impl From<ShortFigures> for Figures {
    fn from(short: ShortFigures) -> Self {
        let ShortFigures(packed_at, bytes, seconds, is_normalised, stages, shares) = short;
        let stage = |(number, files, bytes_in, bytes_out, seconds)| {
            let total = StageTotal {
                files,
                bytes_in,
                bytes_out,
                seconds,
            };
            (number, total)
        };
        Self {
            packed_at,
            raw_bytes: bytes.0,
            packed_bytes: bytes.1,
            records: bytes.2,
            seconds_compress: seconds.0,
            seconds_restore: seconds.1,
            is_normalised,
            stages: stages.into_iter().map(stage).collect(),
            shares,
        }
    }
}

/// Whether figures are added to the totals or taken out of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tally {
    Add,
    TakeOut,
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
    /// Counts one row. A file counts once: with its last outcome, and with the sizes of its last packing. A version that was
    /// restored stays so when it is superseded. The order in which rows are read makes no difference.
    pub fn fold(&mut self, row: &ReportRow) {
        let outcome = self.outcome_of(row);
        let known = self.known_file(short_id(&row.file_id));
        let before = known.last().cloned();
        known.add(outcome.clone());
        let after = known.last().cloned();
        let (Some(after), false) = (&after, is_counted_alike(before.as_ref(), after.as_ref()))
        else {
            return;
        };
        if let Some(before) = &before {
            self.tally(before, Tally::TakeOut);
        }
        self.tally(after, Tally::Add);
        if after.is_work_of(&outcome) {
            self.unlist(&row.file_id);
            self.list(row);
        } else if before.is_none_or(|before| !after.is_work_of(&before)) {
            // The row that counts was read before others.
            self.unlist(&row.file_id);
        }
    }

    fn unlist(&mut self, file_id: &str) {
        self.failures.retain(|other| other.file_id != file_id);
        self.recent.retain(|other| other.file_id != file_id);
    }

    fn known_file(&mut self, id: u64) -> &mut KnownFile {
        let found = self.known.iter().position(|known| known.id == id);
        let index = found.unwrap_or_else(|| {
            self.known.push_back(KnownFile {
                id,
                outcomes: Vec::new(),
            });
            keep_last(&mut self.known, REMEMBERED_FILES);
            self.known.len() - 1
        });
        &mut self.known[index]
    }

    fn outcome_of(&mut self, row: &ReportRow) -> KnownOutcome {
        let kind = OutcomeKind::from(&row.outcome);
        let is_counted = match kind {
            OutcomeKind::Restored => true,
            OutcomeKind::Superseded | OutcomeKind::Failed => row.compressed_at_millis.is_some(),
            OutcomeKind::Discarded => false,
        };
        KnownOutcome {
            kind,
            at_millis: row.restored_at_millis.unwrap_or(0),
            figures: is_counted.then(|| Box::new(self.figures(row))),
        }
    }

    fn figures(&mut self, row: &ReportRow) -> Figures {
        let mut figures = Figures {
            packed_at: row.compressed_at_millis.unwrap_or(0),
            raw_bytes: row.raw_bytes,
            packed_bytes: row.packed_bytes,
            records: row.records,
            seconds_compress: sane(row.seconds_compress),
            seconds_restore: sane(row.seconds_restore),
            is_normalised: row.is_normalised,
            stages: Vec::new(),
            shares: Vec::new(),
        };
        for stage in &row.stages {
            let label = label(&mut self.labels, name_in(&self.stages, &stage.name));
            let total = StageTotal::of(stage);
            match figures.stages.iter_mut().find(|known| known.0 == label) {
                Some((_, sum)) => sum.tally(&total, Tally::Add),
                None => figures.stages.push((label, total)),
            }
        }
        for share in &row.codec_shares {
            let label = label(&mut self.labels, name_in(&self.shares, &share.label));
            match figures.shares.iter_mut().find(|known| known.0 == label) {
                Some((_, sum)) => *sum = sum.saturating_add(share.bytes),
                None => figures.shares.push((label, share.bytes)),
            }
        }
        figures
    }

    /// Adds a file with this outcome to the totals, or takes it out.
    fn tally(&mut self, outcome: &KnownOutcome, tally: Tally) {
        let files = match outcome.kind {
            OutcomeKind::Restored => &mut self.files_restored,
            OutcomeKind::Superseded => &mut self.files_superseded,
            OutcomeKind::Failed => &mut self.files_failed,
            OutcomeKind::Discarded => return,
        };
        tally.number(files, 1);
        let Some(figures) = &outcome.figures else {
            return;
        };
        tally.number(&mut self.files_packed, 1);
        tally.number(&mut self.raw_bytes, figures.raw_bytes);
        tally.number(&mut self.packed_bytes, figures.packed_bytes);
        tally.number(&mut self.records, figures.records);
        tally.seconds(&mut self.seconds_compress, figures.seconds_compress);
        if outcome.kind == OutcomeKind::Restored {
            tally.number(&mut self.files_normalised, u64::from(figures.is_normalised));
            tally.number(&mut self.restored_raw_bytes, figures.raw_bytes);
            tally.number(&mut self.restored_packed_bytes, figures.packed_bytes);
            tally.seconds(&mut self.seconds_restore, figures.seconds_restore);
        }
        for (number, total) in &figures.stages {
            let name = self.labels.get(*number).map_or(OTHER, String::as_str);
            entry(&mut self.stages, name).tally(total, tally);
        }
        for (number, bytes) in &figures.shares {
            let name = self.labels.get(*number).map_or(OTHER, String::as_str);
            tally.number(entry(&mut self.shares, name), *bytes);
        }
        if tally == Tally::TakeOut {
            self.stages.retain(|_, total| total.files > 0);
            self.shares.retain(|_, bytes| *bytes > 0);
        }
    }

    /// Shows the row among the latest, and notes when its file was worked on.
    fn list(&mut self, row: &ReportRow) {
        if row.outcome == FileOutcome::Discarded {
            return;
        }
        let (first, last) = (row.announced_at_millis, row.restored_at_millis);
        self.first_at_millis = least(self.first_at_millis, first.or(last));
        self.last_at_millis = self.last_at_millis.max(last);
        if row.compressed_at_millis.is_some() || row.outcome == FileOutcome::Restored {
            let known = |effort: &&String| Effort::ALL.iter().any(|it| it.name() == **effort);
            self.efforts
                .extend(row.effort.iter().filter(known).cloned());
        }
        if let (FileOutcome::Restored, Some(restored)) = (&row.outcome, last) {
            self.series
                .add(work_began(row, restored), restored, SeriesBucket::of(row));
        }
        let row = shortened(row);
        if matches!(row.outcome, FileOutcome::Failed { .. }) {
            self.failures.push_back(row.clone());
            keep_last(&mut self.failures, KEPT_FAILURES);
        }
        self.recent.push_back(row);
        keep_last(&mut self.recent, RECENT_ROWS);
    }

    /// One state from those of several writers. A file that several of them remember counts once.
    pub(super) fn merge(states: impl IntoIterator<Item = Self>) -> Self {
        let mut merged = Self::default();
        for state in states {
            merged.absorb(state);
        }
        sort_by_time(&mut merged.recent);
        sort_by_time(&mut merged.failures);
        keep_last(&mut merged.recent, RECENT_ROWS);
        keep_last(&mut merged.failures, KEPT_FAILURES);
        keep_last(&mut merged.known, REMEMBERED_FILES);
        merged
    }

    fn absorb(&mut self, other: Self) {
        let add = |sum: &mut u64, number: u64| Tally::Add.number(sum, number);
        add(&mut self.files_restored, other.files_restored);
        add(&mut self.files_normalised, other.files_normalised);
        add(&mut self.files_failed, other.files_failed);
        add(&mut self.files_superseded, other.files_superseded);
        add(&mut self.files_packed, other.files_packed);
        add(&mut self.raw_bytes, other.raw_bytes);
        add(&mut self.packed_bytes, other.packed_bytes);
        add(&mut self.records, other.records);
        add(&mut self.restored_raw_bytes, other.restored_raw_bytes);
        add(&mut self.restored_packed_bytes, other.restored_packed_bytes);
        self.seconds_compress += sane(other.seconds_compress);
        self.seconds_restore += sane(other.seconds_restore);
        self.first_at_millis = least(self.first_at_millis, other.first_at_millis);
        self.last_at_millis = self.last_at_millis.max(other.last_at_millis);
        self.efforts.extend(other.efforts);
        for (name, total) in &other.stages {
            entry(&mut self.stages, name).tally(total, Tally::Add);
        }
        for (label, bytes) in other.shares {
            add(entry(&mut self.shares, &label), bytes);
        }
        self.series.absorb(other.series);
        let ids = self.known.iter().map(|known| known.id);
        let mut places: HashMap<_, _> = ids.zip(0..).collect();
        for known in other.known {
            self.absorb_known(known, &other.labels, &mut places);
        }
        self.absorb_rows(other.recent, other.failures);
    }

    /// Takes in a file whose figures, with numbers of `labels`, are in the totals already. One that is known too counts once.
    /// `places` has where each known file is.
    fn absorb_known(
        &mut self,
        mut other: KnownFile,
        labels: &[String],
        places: &mut HashMap<u64, usize>,
    ) {
        let mut number = |number: &mut usize| {
            let name = labels.get(*number).map_or(OTHER, String::as_str);
            *number = label(&mut self.labels, name.to_owned());
        };
        for figures in other
            .outcomes
            .iter_mut()
            .filter_map(|it| it.figures.as_mut())
        {
            figures.stages.iter_mut().for_each(|it| number(&mut it.0));
            figures.shares.iter_mut().for_each(|it| number(&mut it.0));
        }
        let place = *places.entry(other.id).or_insert(self.known.len());
        let Some(known) = self.known.get_mut(place) else {
            self.known.push_back(other);
            return;
        };
        let counted = [known.last().cloned(), other.last().cloned()];
        other.outcomes.into_iter().for_each(|it| known.add(it));
        let last = known.last().cloned();
        for twice in counted.iter().flatten() {
            self.tally(twice, Tally::TakeOut);
        }
        if let Some(last) = &last {
            self.tally(last, Tally::Add);
        }
    }

    /// Takes in the rows of a writer whose files are known by now; of two rows of one file the one that counts stays.
    fn absorb_rows(&mut self, recent: VecDeque<ReportRow>, failures: VecDeque<ReportRow>) {
        for row in recent {
            let same = self.recent.iter().position(|it| it.file_id == row.file_id);
            match same {
                None => self.recent.push_back(row),
                Some(at) if self.counts_more(&row, &self.recent[at]) => self.recent[at] = row,
                Some(_) => {}
            }
        }
        for row in failures {
            if self.failures.iter().all(|it| it.file_id != row.file_id) {
                self.failures.push_back(row);
            }
        }
        let last = self
            .known
            .iter()
            .filter_map(|known| Some((known.id, known.last()?.kind)));
        let last: HashMap<u64, OutcomeKind> = last.collect();
        let counts = |row: &ReportRow| {
            let kind = last.get(&short_id(&row.file_id));
            kind.is_none_or(|kind| *kind == OutcomeKind::from(&row.outcome))
        };
        self.recent.retain(counts);
        self.failures.retain(counts);
    }

    /// Whether of two rows of one file the first is the one that counts.
    fn counts_more(&self, row: &ReportRow, than: &ReportRow) -> bool {
        let last = self.last(&row.file_id).map(|last| last.kind);
        let rank = |row: &ReportRow| {
            let is_last = last == Some(OutcomeKind::from(&row.outcome));
            (is_last, row.compressed_at_millis, row.restored_at_millis)
        };
        rank(row) > rank(than)
    }

    fn last(&self, file_id: &str) -> Option<&KnownOutcome> {
        let id = short_id(file_id);
        self.known.iter().find(|known| known.id == id)?.last()
    }

    /// How many of the files that the last run found changed and gone were not packed again since.
    pub(super) fn differing(&self, last_run: &LastRun) -> Differing {
        let was_packed_since = |known: &&KnownFile| {
            let last = known.last();
            last.is_some_and(|last| last.packed_at() > Some(last_run.ended_at_millis))
        };
        let again = self.known.iter().filter(was_packed_since);
        let again: HashSet<u64> = again.map(|known| known.id).collect();
        let rest = |count: u64, ids: &[u64]| {
            let again = ids.iter().filter(|id| again.contains(*id)).count();
            count.saturating_sub(again as u64)
        };
        Differing {
            altered: rest(last_run.altered, &last_run.altered_ids),
            gone: rest(last_run.gone, &last_run.gone_ids),
        }
    }

    /// The same with the journal's counts, and without failures that it does not have any more.
    pub(super) fn counted_by(&self, counts: &JournalCounts) -> Self {
        let progress = &counts.progress;
        let mut counted = Self {
            files_restored: progress.restored,
            files_normalised: self.files_normalised.min(progress.restored),
            files_failed: progress.failed,
            files_superseded: progress.superseded,
            files_packed: progress.compressed,
            raw_bytes: progress.bytes_raw,
            packed_bytes: progress.bytes_packed,
            ..self.clone()
        };
        counted.recent.retain(|row| !counts.is_outdated(row));
        counted.failures.retain(|row| !counts.is_outdated(row));
        counted
    }

    /// Files of any outcome.
    pub(super) fn files(&self) -> u64 {
        self.files_restored
            .saturating_add(self.files_failed)
            .saturating_add(self.files_superseded)
    }
}

/// Restored files that are no longer what was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Differing {
    /// Others changed them at the destination.
    pub(super) altered: u64,
    /// They are not at the destination, nor at the source.
    pub(super) gone: u64,
}

impl Differing {
    pub(super) fn files(self) -> u64 {
        self.altered.saturating_add(self.gone)
    }
}

impl KnownFile {
    /// The outcome that counts.
    fn last(&self) -> Option<&KnownOutcome> {
        let mut in_order: Vec<&KnownOutcome> = self.outcomes.iter().collect();
        // At the same moment a failure came first.
        in_order.sort_by_key(|it| (it.at_millis, it.kind != OutcomeKind::Failed));
        in_order
            .into_iter()
            .reduce(|before, next| match follows(before.kind, next.kind) {
                true => next,
                false => before,
            })
    }

    fn add(&mut self, outcome: KnownOutcome) {
        match self.outcomes.iter_mut().find(|it| it.kind == outcome.kind) {
            Some(known) => known.join(outcome),
            None => self.outcomes.push(outcome),
        }
    }
}

impl KnownOutcome {
    fn packed_at(&self) -> Option<u64> {
        self.figures.as_ref().map(|figures| figures.packed_at)
    }

    /// Whether it is the same outcome of the same packing.
    fn is_work_of(&self, other: &Self) -> bool {
        self.kind == other.kind && self.packed_at() == other.packed_at()
    }

    /// Takes in the same outcome of the same file: the last one counts, of a restored file the one of its last packing.
    fn join(&mut self, mut other: Self) {
        let at_millis = self.at_millis.max(other.at_millis);
        let is_same_packing = self.packed_at() == other.packed_at();
        let is_later = match self.kind {
            OutcomeKind::Restored => other.packed_at() > self.packed_at(),
            _ => other.at_millis > self.at_millis,
        };
        if is_later {
            std::mem::swap(self, &mut other);
        }
        self.at_millis = at_millis;
        if let (Some(figures), Some(before)) = (&mut self.figures, other.figures) {
            // A file that lay at its destination already took no time to restore.
            if is_same_packing || figures.seconds_restore == 0.0 {
                figures.seconds_restore = figures.seconds_restore.max(before.seconds_restore);
            }
        }
    }
}

/// Whether both add the same to the totals.
fn is_counted_alike(one: Option<&KnownOutcome>, other: Option<&KnownOutcome>) -> bool {
    let counted = |it: &KnownOutcome| (it.kind, it.figures.clone());
    one.map(counted) == other.map(counted)
}

impl Tally {
    fn number(self, sum: &mut u64, number: u64) {
        *sum = match self {
            Self::Add => sum.saturating_add(number),
            Self::TakeOut => sum.saturating_sub(number),
        };
    }

    fn seconds(self, sum: &mut f64, seconds: f64) {
        *sum = match self {
            Self::Add => *sum + sane(seconds),
            Self::TakeOut => (*sum - sane(seconds)).max(0.0),
        };
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
    fn of(stage: &StageNumbers) -> Self {
        Self {
            files: 1,
            bytes_in: stage.bytes_in,
            bytes_out: stage.bytes_out,
            seconds: sane(stage.seconds),
        }
    }

    fn tally(&mut self, other: &Self, tally: Tally) {
        tally.number(&mut self.files, other.files);
        tally.number(&mut self.bytes_in, other.bytes_in);
        tally.number(&mut self.bytes_out, other.bytes_out);
        tally.seconds(&mut self.seconds, other.seconds);
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
    let name = name_in(map, name);
    map.entry(name).or_default()
}

/// The name under which `name` is counted.
fn name_in<T>(map: &BTreeMap<String, T>, name: &str) -> String {
    let name = cut(name);
    match map.contains_key(&name) || map.len() < MAX_LABELS {
        true => name,
        false => OTHER.to_owned(),
    }
}

/// The number of a name.
fn label(labels: &mut Vec<String>, name: String) -> usize {
    let known = |labels: &[String], name: &str| labels.iter().position(|it| it == name);
    if let Some(number) = known(labels, &name) {
        return number;
    }
    match labels.len() < MAX_REFERRED_LABELS {
        true => labels.push(name),
        // A number beyond the end stands for the rest.
        false => return MAX_REFERRED_LABELS,
    }
    labels.len() - 1
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

/// A file's id, shortened to a number.
pub(crate) fn short_id(id: &str) -> u64 {
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
