//! The report on disk: one line of JSON for every file in `<page>.d/<writer>.jsonl`, and the page rendered from all
//! writers' lines. A line is appended when its file is done and survives a killed process; the page is rendered at most
//! every two seconds while files come, and once more at the end.
//!
//! A page in a bucket is rendered every fifteen seconds, from the sums that [`super::bucket`] keeps there.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::bucket::BucketReport;
use super::{
    JournalCounts, LastRun, LeftOutSummary, ReportMeta, ReportRow, ReportState, page, state,
};
use crate::journal::FileJournal;
use crate::runtime::{self, blocking};
use streampress_transport::{FileName, Files};

/// Between two renderings while files come.
const RENDER_EVERY: Duration = Duration::from_secs(2);
/// The same in a bucket, where each rendering costs some requests.
const RENDER_EVERY_IN_BUCKET: Duration = Duration::from_secs(15);
/// The file beside the page that says how the last run ended.
const LAST_RUN: &str = "last-run.json";
/// Rows that cannot be written wait in memory up to this size.
const MOST_UNWRITTEN_BYTES: usize = 4 << 20;
/// Above this size a writer's lines are replaced by one line with their sums, so that an endless pipeline's report stays
/// small.
const COMPACT_ABOVE_BYTES: u64 = 8 << 20;
/// So many bytes at the beginning of a file of lines tell it from the one that replaces it: an id of a row, or a generation.
const HEAD_BYTES: u64 = 64;

/// The rows of one writer.
#[derive(Debug)]
pub struct ReportLog {
    shared: Arc<Mutex<LogState>>,
    /// Where the page is in a bucket. Its lock is held while requests are made; rows never wait for it.
    bucket: Option<Arc<Mutex<BucketReport>>>,
    /// Has the counts of the page.
    journal: Option<Arc<dyn FileJournal>>,
}

#[derive(Debug)]
struct LogState {
    page: PathBuf,
    is_in_bucket: bool,
    title: String,
    writer: String,
    lines: Option<File>,
    /// Lines that could not be written yet.
    unwritten: Vec<u8>,
    /// The sums of this writer's lines, for when there are too many. In a bucket, of the rows that were not written yet.
    own: ReportState,
    /// The sums of all writers' lines, and how far each file has been read.
    combined: ReportState,
    read: HashMap<PathBuf, ReadLines>,
    rendered: Option<Instant>,
    changed: bool,
    last_run: LastRun,
    /// The journal's counts when the page was rendered last.
    counts: Option<JournalCounts>,
    /// Whether the rows are those of a run, which says so before its first one.
    is_run: bool,
    /// Whether something could not be written since the page was.
    is_failing: bool,
    /// The data folder that holds the page. It is not made: where it was moved away, a new one would be in its way back.
    data: Option<PathBuf>,
}

/// What was read of a file of lines.
#[derive(Debug, Default)]
struct ReadLines {
    /// Its first bytes, at most [`HEAD_BYTES`].
    head: Vec<u8>,
    /// Up to where its lines are counted.
    offset: u64,
}

impl ReportLog {
    /// A report at `page`; each process has a `writer` of its own.
    pub(crate) fn open(page: &Path, title: &str, writer: &str) -> Self {
        Self::new(page.to_owned(), None, title, writer)
    }

    /// A report in a bucket, as the file `page` of `files`.
    pub(crate) fn in_bucket(
        files: Arc<dyn Files>,
        page: &FileName,
        title: &str,
        writer: &str,
    ) -> Self {
        let bucket = BucketReport::new(files, page, writer);
        Self::new(page.as_str().into(), Some(bucket), title, writer)
    }

    fn new(page: PathBuf, bucket: Option<BucketReport>, title: &str, writer: &str) -> Self {
        let inner = LogState {
            page,
            is_in_bucket: bucket.is_some(),
            title: title.to_owned(),
            writer: writer.to_owned(),
            lines: None,
            unwritten: Vec::new(),
            own: ReportState::default(),
            combined: ReportState::default(),
            read: HashMap::new(),
            rendered: None,
            changed: false,
            last_run: LastRun::default(),
            counts: None,
            is_run: false,
            is_failing: false,
            data: None,
        };
        Self {
            shared: Arc::new(Mutex::new(inner)),
            bucket: bucket.map(|bucket| Arc::new(Mutex::new(bucket))),
            journal: None,
        }
    }

    /// The same of a page in the data folder `data`: its counts are those of the folder's journal.
    pub(crate) fn in_data_folder(self, data: &Path, journal: Arc<dyn FileJournal>) -> Self {
        self.shared.lock().data = Some(data.to_owned());
        Self {
            journal: Some(journal),
            ..self
        }
    }

    /// Whether the page is not what it should be, since something could not be written.
    pub(crate) fn is_failing(&self) -> bool {
        self.shared.lock().is_failing
    }

    /// Adds a row, and renders the page if the last try was some time ago; a page in a bucket waits for [`Self::refresh`]. A
    /// report that cannot be written never delays the files: the first error is logged.
    pub(crate) async fn add(&self, row: ReportRow) {
        let is_due = self.with(move |inner| {
            inner.append(&row)?;
            Ok(inner.is_due())
        });
        if is_due.await == Some(true) {
            let counts = self.counts().await;
            self.with(|inner| match inner.is_due() {
                true => inner.render_with(counts),
                false => Ok(()),
            })
            .await;
        }
    }

    /// Renders the page if rows were added since, or the journal's counts have changed; called when work pauses and at the
    /// end.
    pub(crate) async fn finish(&self) {
        if let Some(bucket) = &self.bucket {
            return self.exchange(bucket.clone()).await;
        }
        let counts = self.counts().await;
        self.with(|inner| {
            let counts_changed = counts.is_some() && counts != inner.counts;
            let is_outdated = inner.rendered.is_some() && counts_changed;
            match inner.changed || is_outdated {
                true => inner.render_with(counts),
                false => Ok(()),
            }
        })
        .await;
    }

    /// Writes the rows since into the bucket, and the page from the sums of all writers.
    async fn exchange(&self, bucket: Arc<Mutex<BucketReport>>) {
        let shared = self.shared.clone();
        let working = blocking(move || {
            let mut bucket = bucket.lock();
            let Some((rows, meta)) = shared.lock().take_changes() else {
                return Ok(());
            };
            bucket.add(rows);
            let combined = bucket.exchange();
            let outcome = combined.and_then(|combined| bucket.write_page(&combined, &meta));
            let mut inner = shared.lock();
            match outcome {
                Ok(()) => {
                    inner.is_failing = false;
                    Ok(())
                }
                Err(error) => {
                    inner.changed = true;
                    Err(inner.first_failure(error))
                }
            }
        });
        warn_of(working.await);
    }

    /// The journal's counts, where it has some.
    async fn counts(&self) -> Option<JournalCounts> {
        let journal = self.journal.as_ref()?;
        match JournalCounts::read(&**journal).await {
            Ok(counts) => Some(counts),
            Err(error) => {
                debug!(%error, "Could not read the counts for the report.");
                None
            }
        }
    }

    /// The rows that follow are those of a run, whose end [`Self::set_last_run`] says.
    pub(crate) async fn begin_run(&self) {
        self.with(|inner| {
            inner.is_run = true;
            Ok(())
        })
        .await;
    }

    /// Sets what the page says about the last run. It stays until the next run sets it.
    pub(crate) async fn set_last_run(&self, last_run: LastRun) {
        self.with(move |inner| {
            inner.last_run = last_run;
            inner.changed = true;
            inner.store_last_run()
        })
        .await;
    }

    /// Renders the page when no file arrives for a while, until stopped.
    pub(crate) async fn refresh(&self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(RENDER_EVERY_IN_BUCKET) => self.finish().await,
            }
        }
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut LogState) -> Result<T> + Send + 'static,
    ) -> Option<T> {
        let shared = self.shared.clone();
        let working = blocking(move || {
            let mut inner = shared.lock();
            let outcome = work(&mut inner);
            outcome.map_err(|error| inner.first_failure(error))
        });
        warn_of(working.await)
    }
}

/// Logs an error that was not logged yet.
fn warn_of<T>(outcome: Result<T, Option<anyhow::Error>>) -> Option<T> {
    match outcome {
        Ok(done) => Some(done),
        Err(first) => {
            if let Some(error) = first {
                warn!(
                    error = format!("{error:#}"),
                    "Could not write the report; files are processed all the same."
                );
            }
            None
        }
    }
}

/// Renders the page from the stored lines, with the journal's counts where there are some. Returns the number of files in it.
pub(crate) fn render_stored(
    page: &Path,
    title: &str,
    counts: Option<JournalCounts>,
) -> Result<u64> {
    let log = ReportLog::open(page, title, "");
    let mut inner = log.shared.lock();
    let folder = inner.folder();
    if !folder.exists() {
        bail!(
            "there is nothing to report in {}: no file of {title} has been restored yet, its rows were removed, or the data is in another folder (--data)",
            folder.display()
        );
    }
    inner.render_with(counts)?;
    Ok(inner.files())
}

/// Renders the report at `page` anew after a redrive, where there is one, without the failed files whose dead letters were
/// discarded.
pub(crate) fn render_redriven(
    page: &Path,
    title: &str,
    discarded: &[ReportRow],
    counts: Option<JournalCounts>,
) -> Result<()> {
    let log = ReportLog::open(page, title, &format!("discarded-{}", std::process::id()));
    let mut inner = log.shared.lock();
    if !inner.folder().exists() {
        return Ok(());
    }
    for row in discarded {
        inner.append(row)?;
    }
    inner.render_with(counts)
}

/// Renders a page in a bucket, from the sums that its writers keep there.
pub(crate) fn render_in_bucket(files: Arc<dyn Files>, page: &FileName, title: &str) -> Result<u64> {
    let mut bucket = BucketReport::new(files, page, "");
    let combined = bucket.exchange()?;
    bucket.write_page(&combined, &meta(title, LastRun::default(), None))?;
    Ok(combined.files())
}

/// The sums of all lines before it.
#[derive(Serialize, Deserialize)]
struct StateLine<'a> {
    /// The first member, so that the beginning of the file is another one whenever its lines were replaced.
    #[serde(default)]
    generation: Cow<'a, str>,
    state: Cow<'a, ReportState>,
}

impl<'a> StateLine<'a> {
    fn of(state: &'a ReportState) -> Self {
        Self {
            generation: format!("{:016x}", runtime::random_u64()).into(),
            state: Cow::Borrowed(state),
        }
    }

    fn to_line(&self) -> Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self).context("writing the report's sums as JSON")?;
        line.push(b'\n');
        Ok(line)
    }
}

impl LogState {
    fn folder(&self) -> PathBuf {
        let mut name = self.page.clone().into_os_string();
        name.push(".d");
        name.into()
    }

    /// The failure to be logged: the first one until the page is written again, for a full disk fails at every row.
    fn first_failure(&mut self, error: anyhow::Error) -> Option<anyhow::Error> {
        (!std::mem::replace(&mut self.is_failing, true)).then_some(error)
    }

    fn append(&mut self, row: &ReportRow) -> Result<()> {
        self.own.fold(row);
        self.changed = true;
        if self.is_in_bucket {
            return Ok(());
        }
        let mut line = serde_json::to_vec(row).context("writing a report row as JSON")?;
        line.push(b'\n');
        if self.unwritten.len() < MOST_UNWRITTEN_BYTES {
            self.unwritten.append(&mut line);
        }
        if self.lines.is_none() {
            self.open_lines()?;
        }
        self.replace_removed_lines()?;
        self.write_lines()
    }

    /// Begins this writer's file anew if others removed it: its sums stand for the rows that were in it.
    fn replace_removed_lines(&mut self) -> Result<()> {
        let lines = self.lines.as_ref();
        let is_removed = |lines: &File| lines.metadata().is_ok_and(|lines| lines.nlink() == 0);
        if lines.is_some_and(is_removed) {
            self.lines = None;
            self.open_lines()?;
            self.unwritten = StateLine::of(&self.own).to_line()?;
        }
        Ok(())
    }

    /// Makes a folder, but for the data folder.
    fn make(&self, folder: &Path) -> io::Result<()> {
        match &self.data {
            Some(data) if !data.is_dir() => Err(io::ErrorKind::NotFound.into()),
            Some(_) | None => fs::create_dir_all(folder),
        }
    }

    /// Writes a file whole or not at all, and makes its folder.
    fn write_whole(&self, path: &Path, content: &[u8]) -> Result<()> {
        let write = || -> io::Result<()> {
            let folder = path.parent().unwrap_or(Path::new("."));
            self.make(folder)?;
            let mut pending = tempfile::Builder::new()
                .prefix(streampress_transport::TEMPORARY_PREFIX)
                .tempfile_in(folder)?;
            pending.write_all(content)?;
            #[cfg(unix)]
            pending
                .as_file()
                .set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
            pending.persist(path).map(drop).map_err(|error| error.error)
        };
        write().with_context(|| format!("writing {}", path.display()))
    }

    fn open_lines(&mut self) -> Result<()> {
        let folder = self.folder();
        self.make(&folder)
            .with_context(|| format!("making {}", folder.display()))?;
        let path = folder.join(format!("{}.jsonl", self.writer));
        let opened = OpenOptions::new().create(true).append(true).open(&path);
        self.lines = Some(opened.with_context(|| format!("opening {}", path.display()))?);
        if self.is_run {
            self.last_run = LastRun {
                is_running: true,
                left_out: LeftOutSummary::default(),
                unfinished: 0,
                waiting: 0,
                ..self.stored_last_run()?
            };
            self.store_last_run()?;
        }
        Ok(())
    }

    /// Writes the rows that wait. What does not fit on the disk waits for the next time.
    fn write_lines(&mut self) -> Result<()> {
        if let Some(lines) = &mut self.lines {
            let before = lines.metadata().context("adding to the report")?.len();
            if let Err(error) = lines.write_all(&self.unwritten) {
                // A part of a line would spoil the next.
                let _ = lines.set_len(before);
                return Err(error).context("adding a row to the report");
            }
            self.unwritten.clear();
        }
        Ok(())
    }

    /// Whether the page is to be rendered again.
    fn is_due(&self) -> bool {
        let is_due = |at: Instant| at.elapsed() >= RENDER_EVERY;
        !self.is_in_bucket && self.rendered.is_none_or(is_due)
    }

    /// Files of any outcome.
    fn files(&self) -> u64 {
        match &self.counts {
            Some(counts) => counts.progress.ended(),
            None => self.combined.files(),
        }
    }

    /// The same as [`Self::render`] with the journal's counts of now; without any, with those before.
    fn render_with(&mut self, counts: Option<JournalCounts>) -> Result<()> {
        self.counts = counts.or(self.counts.take());
        self.render()
    }

    /// Reads the lines added since and writes the page.
    fn render(&mut self) -> Result<()> {
        self.rendered = Some(Instant::now());
        self.write_lines()?;
        self.compact()?;
        self.catch_up()?;
        self.last_run = self.stored_last_run()?;
        let html = page::render(&self.combined, &self.meta());
        self.write_whole(&self.page, html.as_bytes())?;
        self.changed = false;
        self.is_failing = false;
        Ok(())
    }

    fn meta(&self) -> ReportMeta {
        meta(&self.title, self.last_run.clone(), self.counts.clone())
    }

    /// The rows that a report in a bucket has not written yet, if its page is to be rendered again.
    fn take_changes(&mut self) -> Option<(ReportState, ReportMeta)> {
        let is_changed = std::mem::take(&mut self.changed);
        is_changed.then(|| (std::mem::take(&mut self.own), self.meta()))
    }

    /// Keeps how the last run ended beside the page, for the next rendering.
    fn store_last_run(&self) -> Result<()> {
        if self.is_in_bucket {
            return Ok(());
        }
        let path = self.folder().join(LAST_RUN);
        let json = serde_json::to_vec(&self.last_run).context("writing names as JSON")?;
        self.write_whole(&path, &json)
    }

    fn stored_last_run(&self) -> Result<LastRun> {
        let path = self.folder().join(LAST_RUN);
        match fs::read(&path) {
            Ok(json) => {
                serde_json::from_slice(&json).with_context(|| format!("reading {}", path.display()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(LastRun::default()),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    fn catch_up(&mut self) -> Result<()> {
        let folder = self.folder();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                return Err(error).with_context(|| format!("reading {}", folder.display()));
            }
        };
        for entry in entries {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "jsonl")
            {
                self.read_on(&path)
                    .with_context(|| format!("reading {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Counts the lines added since; a torn last line is left until it has its end.
    fn read_on(&mut self, path: &Path) -> io::Result<()> {
        let mut file = File::open(path)?;
        let mut head = Vec::new();
        Read::by_ref(&mut file)
            .take(HEAD_BYTES)
            .read_to_end(&mut head)?;
        let before = self.read.remove(path).unwrap_or_default();
        if !head.starts_with(&before.head) || file.metadata()?.len() < before.offset {
            // Its writer replaced its lines by their sums, so everything is read anew.
            self.combined = ReportState::default();
            self.read.clear();
            return self.catch_up().map_err(io::Error::other);
        }
        let offset = before.offset;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut rest = bytes.as_slice();
        let first = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
        if let (0, Ok(line)) = (offset, serde_json::from_slice::<StateLine>(first)) {
            self.combined =
                ReportState::merge([std::mem::take(&mut self.combined), line.state.into_owned()]);
            rest = rest.get(first.len() + 1..).unwrap_or_default();
        }
        let skipped = bytes.len() - rest.len();
        let folded = state::fold_jsonl(&mut self.combined, rest);
        let offset = offset + (skipped + folded.bytes) as u64;
        // Of a torn line, the rest may still come otherwise.
        head.truncate(offset as usize);
        self.read
            .insert(path.to_owned(), ReadLines { head, offset });
        Ok(())
    }

    /// Replaces this writer's lines by one line with their sums.
    fn compact(&mut self) -> Result<()> {
        let path = self.folder().join(format!("{}.jsonl", self.writer));
        let Some(lines) = &self.lines else {
            return Ok(());
        };
        if lines.metadata()?.len() < COMPACT_ABOVE_BYTES {
            return Ok(());
        }
        let line = StateLine::of(&self.own).to_line()?;
        self.write_whole(&path, &line)?;
        self.lines = Some(OpenOptions::new().append(true).open(&path)?);
        Ok(())
    }
}

fn meta(title: &str, last_run: LastRun, counts: Option<JournalCounts>) -> ReportMeta {
    ReportMeta {
        pipeline: title.to_owned(),
        generated_at_millis: runtime::now_millis(),
        last_run,
        counts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u64) -> ReportRow {
        ReportRow {
            file_id: format!("id-{number}"),
            name: format!("file-{number}.json"),
            raw_bytes: 10,
            packed_bytes: 5,
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn the_page_has_every_writers_files_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let page = folder.path().join("reports/results.html");
        for (writer, numbers) in [("one", [1, 2]), ("two", [2, 3])] {
            let log = ReportLog::open(&page, "test", writer);
            for number in numbers {
                log.add(row(number)).await;
            }
            log.finish().await;
        }
        assert_eq!(render_stored(&page, "test", None).expect("rendered"), 3);
        let html = fs::read_to_string(&page).expect("a page");
        assert!(html.contains("file-3.json"));
    }

    #[tokio::test]
    async fn rows_that_others_removed_are_written_again_as_their_sums() {
        let folder = tempfile::tempdir().expect("a folder");
        let page = folder.path().join("reports/results.html");
        let log = ReportLog::open(&page, "test", "one");
        log.add(row(1)).await;
        fs::remove_dir_all(folder.path().join("reports")).expect("removed");
        log.add(row(2)).await;
        log.finish().await;
        assert_eq!(render_stored(&page, "test", None).expect("rendered"), 2);
    }

    #[tokio::test]
    async fn writers_of_a_bucket_share_their_sums() {
        let folder = tempfile::tempdir().expect("a folder");
        let files: Arc<dyn Files> = Arc::new(
            streampress_transport::local::files::LocalFiles::open("s3://bucket", folder.path())
                .expect("opened"),
        );
        let page = FileName::parse("results.html").expect("a name");
        for (writer, numbers) in [("one", [1, 2]), ("two", [3, 4])] {
            let log = ReportLog::in_bucket(files.clone(), &page, "test", writer);
            for number in numbers {
                log.add(row(number)).await;
            }
            log.finish().await;
        }
        let html = fs::read_to_string(folder.path().join("results.html")).expect("a page");
        assert!(html.contains("file-1.json") && html.contains("file-4.json"));
    }

    #[tokio::test]
    async fn a_file_that_several_writers_of_a_bucket_packed_counts_once_with_its_last_packing() {
        let folder = tempfile::tempdir().expect("a folder");
        let files: Arc<dyn Files> = Arc::new(
            streampress_transport::local::files::LocalFiles::open("s3://bucket", folder.path())
                .expect("opened"),
        );
        let page = FileName::parse("results.html").expect("a name");
        // The first worker was killed after its row, the second packed the file again; a third restarts with no memory.
        for (writer, packed_at, packed_bytes) in
            [("one", 1, 500), ("two", 3, 300), ("three", 2, 400)]
        {
            let log = ReportLog::in_bucket(files.clone(), &page, "test", writer);
            log.add(ReportRow {
                raw_bytes: 1000,
                packed_bytes,
                records: 1,
                compressed_at_millis: Some(packed_at),
                ..row(7)
            })
            .await;
            log.finish().await;
        }
        let mut bucket = BucketReport::new(files, &page, "");
        let state = bucket.exchange().expect("read");
        let counts = (state.files_restored, state.files_packed, state.records);
        assert_eq!(counts, (1, 1, 1));
        assert_eq!((state.raw_bytes, state.packed_bytes), (1000, 300));
    }

    #[test]
    fn rows_that_cannot_be_written_are_written_later() {
        let folder = tempfile::tempdir().expect("a folder");
        let page = folder.path().join("results.html");
        let log = ReportLog::open(&page, "test", "one");
        let mut inner = log.shared.lock();
        fs::write(inner.folder(), "in the way").expect("written");
        inner.append(&row(1)).expect_err("there is no folder");
        fs::remove_file(inner.folder()).expect("removed");
        inner.append(&row(2)).expect("added");
        inner.render().expect("rendered");
        assert_eq!(inner.combined.files(), 2);
    }

    #[test]
    fn a_report_that_cannot_be_written_is_warned_of_once_until_it_can_be_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let page = folder.path().join("results.html");
        let log = ReportLog::open(&page, "test", "one");
        let mut inner = log.shared.lock();
        for _ in 0..2 {
            fs::write(inner.folder(), "in the way").expect("written");
            let mut said = 0;
            for number in 0..5 {
                let outcomes = [inner.append(&row(number)), inner.render()];
                for error in outcomes.into_iter().filter_map(Result::err) {
                    said += u32::from(inner.first_failure(error).is_some());
                }
            }
            assert_eq!(said, 1);
            fs::remove_file(inner.folder()).expect("removed");
            inner.append(&row(9)).expect("added");
            inner.render().expect("rendered");
            fs::remove_dir_all(inner.folder()).expect("removed");
            inner.lines = None;
        }
    }

    #[test]
    fn a_compacted_log_keeps_its_sums() {
        let folder = tempfile::tempdir().expect("a folder");
        let page = folder.path().join("results.html");
        let log = ReportLog::open(&page, "test", "one");
        let mut inner = log.shared.lock();
        for number in 0..100 {
            inner.append(&row(number)).expect("added");
        }
        inner.render().expect("rendered");
        // As if the limit had been reached.
        let path = inner.folder().join("one.jsonl");
        let line = serde_json::to_vec(&StateLine::of(&inner.own)).expect("JSON");
        fs::write(&path, [&line[..], b"\n"].concat()).expect("written");
        inner.lines = Some(OpenOptions::new().append(true).open(&path).expect("opened"));
        inner.append(&row(100)).expect("added");
        inner.render().expect("rendered");
        assert_eq!(inner.combined.files(), 101);
    }

    #[test]
    fn a_log_that_was_compacted_to_no_smaller_size_is_read_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let page = folder.path().join("results.html");
        let (writer, reader) = (
            ReportLog::open(&page, "test", "one"),
            ReportLog::open(&page, "test", ""),
        );
        let (mut writer, mut reader) = (writer.shared.lock(), reader.shared.lock());
        let path = writer.folder().join("one.jsonl");
        let lines = |states: &ReportState| {
            let line = serde_json::to_vec(&StateLine::of(states)).expect("JSON");
            [&line[..], b"\n"].concat()
        };
        writer.append(&row(1)).expect("added");
        reader.render().expect("rendered");
        assert_eq!(reader.combined.files(), 1);
        // Once over rows and once over sums, each time with rows that the reader has not seen.
        for number in 2..4 {
            writer.append(&row(number)).expect("added");
            fs::write(&path, lines(&writer.own)).expect("written");
            reader.render().expect("rendered");
            assert_eq!(reader.combined.files(), number);
        }
    }
}
