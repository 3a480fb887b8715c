//! The report in a bucket, where nothing can be appended to. Each writer keeps its sums in `<page>.d/<writer>-<n>.json`,
//! written with the page; the rows since its last page are lost when a writer is killed.
//!
//! Objects of writers that are idle or have ended are merged into `<page>.d/merged.json`, so that there are about as many
//! as writers at work. An object is closed before it is merged, by a conditional put: its writer, if it still runs, finds it
//! closed and begins another one. Thus nothing counts twice, whatever the clocks say of who is idle.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use streampress_transport::{FileEntry, FileName, Files};
use tracing::warn;

use super::{ReportMeta, ReportState, page};
use crate::runtime;

/// Sums are bounded; a larger object is no writer's.
const LARGEST_OBJECT_BYTES: u64 = 4 << 20;
/// A writer that has not written for so long is idle, or has ended.
const IDLE: Duration = Duration::from_secs(600);
/// More objects of idle writers than these are merged.
const MOST_IDLE_OBJECTS: usize = 8;
/// At most so many are merged with one page, since each takes some requests.
const MERGED_AT_ONCE: usize = 64;
/// While others merge, what was listed may be gone when it is read; then everything is read again.
const READINGS: usize = 4;

/// One writer of a report in a bucket.
#[derive(Debug)]
pub(super) struct BucketReport {
    files: Arc<dyn Files>,
    page: FileName,
    /// Empty where there is nothing to write but the page.
    writer: String,
    /// Counts this writer's objects.
    number: u32,
    /// This writer's object, as it was written last.
    seen: Option<FileEntry>,
    /// The sums in it.
    saved: ReportState,
    /// The sums of the rows since.
    unsaved: ReportState,
}

/// What an object beside the page holds.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Sums<'a> {
    /// It will be merged, and never changes again.
    is_closed: bool,
    /// Objects whose sums are in these, and that may not have been removed yet.
    merged: BTreeSet<String>,
    state: Cow<'a, ReportState>,
    /// It could not be read: others wrote it.
    #[serde(skip)]
    is_damaged: bool,
}

impl BucketReport {
    pub(super) fn new(files: Arc<dyn Files>, page: &FileName, writer: &str) -> Self {
        Self {
            files,
            page: page.clone(),
            writer: writer.to_owned(),
            number: 1,
            seen: None,
            saved: ReportState::default(),
            unsaved: ReportState::default(),
        }
    }

    /// Adds rows, which the next [`Self::exchange`] writes.
    pub(super) fn add(&mut self, rows: ReportState) {
        self.unsaved = ReportState::merge([std::mem::take(&mut self.unsaved), rows]);
    }

    /// Writes this writer's sums and answers those of all writers.
    pub(super) fn exchange(&mut self) -> Result<ReportState> {
        if self.writer.is_empty() {
            return self.read_all(self.objects()?);
        }
        self.save().context("writing the report's sums")?;
        let objects = self.objects()?;
        let merging = self.merge_idle(&objects);
        match merging.context("merging the report's sums")? {
            true => self.read_all(self.objects()?),
            false => self.read_all(objects),
        }
    }

    pub(super) fn write_page(&self, state: &ReportState, meta: &ReportMeta) -> Result<()> {
        let html = page::render(state, meta);
        let writing = || {
            let mut pending = self.files.create(&self.page)?;
            pending.write_all(html.as_bytes())?;
            pending.commit(runtime::now())
        };
        let written: io::Result<()> = writing();
        written.with_context(|| format!("writing {}", self.page))
    }

    fn save(&mut self) -> Result<()> {
        if self.unsaved == ReportState::default() {
            return Ok(());
        }
        if !self.try_save()? {
            self.look_at_own()?;
            if !self.try_save()? {
                bail!("another program writes {}", self.own()?);
            }
        }
        Ok(())
    }

    /// Whether this writer's object was as it was seen last, and is written now.
    fn try_save(&mut self) -> Result<bool> {
        let state = ReportState::merge([self.saved.clone(), self.unsaved.clone()]);
        let sums = Sums {
            state: Cow::Borrowed(&state),
            ..Sums::default()
        };
        match self.put_over(&self.own()?, &sums, self.seen.as_ref())? {
            None => Ok(false),
            written => {
                self.seen = written;
                self.saved = state;
                self.unsaved = ReportState::default();
                Ok(true)
            }
        }
    }

    /// Finds out why this writer's object is not the one that was seen: it was closed, or a put succeeded whose answer was
    /// lost. Rows whose put may have succeeded are written again: a file that two objects remember counts once.
    fn look_at_own(&mut self) -> Result<()> {
        let own = self.own()?;
        let entry = self.files.stat(&own)?;
        let open = match &entry {
            Some(_) => self
                .read(&own)?
                .filter(|sums| !sums.is_closed && !sums.is_damaged),
            None => None,
        };
        match open {
            Some(_) => self.seen = entry,
            None => {
                self.number += 1;
                self.seen = None;
                self.saved = ReportState::default();
            }
        }
        Ok(())
    }

    /// Merges those of the listed objects that are idle writers', if there are many; whether it removed any.
    fn merge_idle(&self, objects: &[FileEntry]) -> Result<bool> {
        let (own, merged_name) = (self.own()?, self.merged_name()?);
        let oldest = runtime::now().checked_sub(IDLE);
        let is_idle = |entry: &&FileEntry| {
            let is_writers = entry.name != own && entry.name != merged_name;
            is_writers && oldest.is_some_and(|oldest| entry.modified < oldest)
        };
        let idle: Vec<&FileEntry> = objects.iter().filter(is_idle).collect();
        if idle.len() <= MOST_IDLE_OBJECTS {
            return Ok(false);
        }
        let mut closed = Vec::new();
        for entry in idle.into_iter().take(MERGED_AT_ONCE) {
            if self.close(entry)? {
                closed.push(&entry.name);
            }
        }
        let Some(merged) = self.merge(&closed, objects)? else {
            return Ok(false);
        };
        for name in merged {
            self.files.remove(&name)?;
        }
        Ok(true)
    }

    /// Closes a writer's object, so that it never changes again. `false` where the writer wrote it meanwhile.
    fn close(&self, entry: &FileEntry) -> Result<bool> {
        let Some(sums) = self.read(&entry.name)? else {
            return Ok(false);
        };
        if sums.is_closed || sums.is_damaged {
            return Ok(sums.is_closed);
        }
        let sums = Sums {
            is_closed: true,
            ..sums
        };
        // What was read is what was listed, or this put is refused.
        Ok(self.put_over(&entry.name, &sums, Some(entry))?.is_some())
    }

    /// Adds the `closed` objects to the merged one. Answers which of the listed `objects` it contains, which can be removed;
    /// nothing where another writer merged at the same time.
    fn merge(&self, closed: &[&FileName], objects: &[FileEntry]) -> Result<Option<Vec<FileName>>> {
        let name = self.merged_name()?;
        // Looked at before the closed objects: had another writer merged one since, this put would be refused; had it done
        // so before, the object is named here or is gone.
        let seen = self.files.stat(&name)?;
        let before = self.read(&name)?.unwrap_or_default();
        let mut states = vec![before.state.into_owned()];
        let mut all = before.merged;
        for closed in closed {
            if !all.contains(closed.as_str())
                && let Some(sums) = self.read(closed)?
            {
                states.push(sums.state.into_owned());
                all.insert(closed.as_str().to_owned());
            }
        }
        let listed = objects.iter().map(|entry| &entry.name);
        let merged: Vec<FileName> = listed
            .filter(|name| all.contains(name.as_str()))
            .cloned()
            .collect();
        let sums = Sums {
            is_closed: false,
            is_damaged: false,
            // What is not listed any more was removed, and its name never comes again.
            merged: merged.iter().map(|name| name.as_str().to_owned()).collect(),
            state: Cow::Owned(ReportState::merge(states)),
        };
        let written = self.put_over(&name, &sums, seen.as_ref())?;
        Ok(written.map(|_| merged))
    }

    fn read_all(&self, mut objects: Vec<FileEntry>) -> Result<ReportState> {
        for _ in 0..READINGS {
            if let Some(states) = self.read_listed(&objects)? {
                return Ok(ReportState::merge(states));
            }
            objects = self.objects()?;
        }
        bail!("the report's sums were merged again and again while they were read")
    }

    /// The sums of all listed objects; `None` where one was removed since it was listed, for its sums are in the merged one by now.
    fn read_listed(&self, objects: &[FileEntry]) -> Result<Option<Vec<ReportState>>> {
        let merged_name = self.merged_name()?;
        let merged = self.read(&merged_name)?.unwrap_or_default();
        let mut states = vec![merged.state.into_owned()];
        for entry in objects {
            if entry.name == merged_name || merged.merged.contains(entry.name.as_str()) {
                continue;
            }
            match self.read(&entry.name)? {
                Some(sums) => states.push(sums.state.into_owned()),
                None => return Ok(None),
            }
        }
        Ok(Some(states))
    }

    /// The objects beside the page.
    fn objects(&self) -> Result<Vec<FileEntry>> {
        let folder = format!("{}.d/", self.page);
        let mut files = self.files.list()?.files;
        files.retain(|entry| {
            entry.name.as_str().starts_with(&folder) && entry.size <= LARGEST_OBJECT_BYTES
        });
        Ok(files)
    }

    fn own(&self) -> Result<FileName> {
        self.object(&format!("{}-{}", self.writer, self.number))
    }

    fn merged_name(&self) -> Result<FileName> {
        self.object("merged")
    }

    fn object(&self, name: &str) -> Result<FileName> {
        let name = format!("{}.d/{name}.json", self.page);
        FileName::parse(&name).map_err(anyhow::Error::msg)
    }

    /// `None` where there is no such object. One that others damaged has no sums, and the page is written all the same.
    fn read(&self, name: &FileName) -> Result<Option<Sums<'static>>> {
        let reader = match self.files.read(name) {
            Ok(reader) => reader,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {name}")),
        };
        let sums: serde_json::Result<Sums<'static>> =
            serde_json::from_reader(io::BufReader::new(reader.take(LARGEST_OBJECT_BYTES)));
        match sums {
            Err(error) if !error.is_io() => {
                warn!(%error, %name, "The report leaves out what an object beside it says, which cannot be read; remove the object.");
                Ok(Some(Sums {
                    is_damaged: true,
                    ..Sums::default()
                }))
            }
            sums => Ok(Some(sums.with_context(|| format!("reading {name}"))?)),
        }
    }

    /// Writes an object if it is still the one that was `seen`; `None` where it is not.
    fn put_over(
        &self,
        name: &FileName,
        sums: &Sums<'_>,
        seen: Option<&FileEntry>,
    ) -> Result<Option<FileEntry>> {
        let json = serde_json::to_vec(sums).context("writing the report's sums as JSON")?;
        let mut pending = self.files.create(name)?;
        pending.write_all(&json)?;
        match pending.commit_over(runtime::now(), seen) {
            Ok(entry) => Ok(Some(entry)),
            Err(error) if is_another(&error) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("writing {name}")),
        }
    }
}

/// Whether a conditional put found another object under the name, or none.
fn is_another(error: &io::Error) -> bool {
    [io::ErrorKind::AlreadyExists, io::ErrorKind::NotFound].contains(&error.kind())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::SystemTime;

    use super::super::ReportRow;
    use super::*;

    fn rows(numbers: impl IntoIterator<Item = u64>) -> ReportState {
        let mut state = ReportState::default();
        for number in numbers {
            state.fold(&ReportRow {
                file_id: format!("id-{number}"),
                name: format!("file-{number}.json"),
                raw_bytes: 10,
                packed_bytes: 5,
                ..ReportRow::default()
            });
        }
        state
    }

    fn writer(folder: &Path, name: &str) -> BucketReport {
        let files = streampress_transport::local::files::LocalFiles::open("s3://bucket", folder);
        let page = FileName::parse("results.html").expect("a name");
        BucketReport::new(Arc::new(files.expect("opened")), &page, name)
    }

    fn restored(report: &mut BucketReport) -> u64 {
        report.exchange().expect("exchanged").files_restored
    }

    fn objects(report: &BucketReport) -> Vec<String> {
        let objects = report.objects().expect("listed").into_iter();
        objects.map(|entry| entry.name.to_string()).collect()
    }

    /// As if the objects had been written long ago.
    fn age(folder: &Path) {
        for entry in std::fs::read_dir(folder.join("results.html.d")).expect("read") {
            let file = std::fs::File::options()
                .write(true)
                .open(entry.expect("an entry").path());
            let file = file.expect("opened");
            file.set_modified(SystemTime::UNIX_EPOCH).expect("set");
        }
    }

    #[test]
    fn objects_of_many_ended_writers_are_merged_into_one_and_every_file_counts_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut most = 0;
        for number in 0..50 {
            let mut report = writer(folder.path(), &format!("w{number}"));
            report.add(rows([number, number + 1]));
            assert_eq!(restored(&mut report), number + 2);
            most = most.max(objects(&report).len());
            age(folder.path());
        }
        // The idle ones, the one that is written and the merged one.
        assert!(most <= MOST_IDLE_OBJECTS + 2, "{most}");
        assert_eq!(restored(&mut writer(folder.path(), "")), 51);
    }

    #[test]
    fn a_writer_whose_object_was_merged_begins_another_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut slow = writer(folder.path(), "slow");
        slow.add(rows(0..5000));
        assert_eq!(restored(&mut slow), 5000);
        for number in 0..=MOST_IDLE_OBJECTS as u64 {
            age(folder.path());
            let mut other = writer(folder.path(), &format!("w{number}"));
            other.add(rows([10_000 + number]));
            restored(&mut other);
        }
        assert!(!objects(&slow).contains(&"results.html.d/slow-1.json".to_owned()));
        slow.add(rows([5000]));
        let expected = 5001 + MOST_IDLE_OBJECTS as u64 + 1;
        assert_eq!(restored(&mut slow), expected);
        assert!(objects(&slow).contains(&"results.html.d/slow-2.json".to_owned()));
        assert_eq!(restored(&mut writer(folder.path(), "")), expected);
    }

    #[test]
    fn a_writer_whose_object_is_closed_and_not_yet_merged_begins_another_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let [mut slow, other] = ["slow", "other"].map(|name| writer(folder.path(), name));
        slow.add(rows(0..5000));
        restored(&mut slow);
        let entry = other.objects().expect("listed").remove(0);
        assert!(other.close(&entry).expect("closed"));
        slow.add(rows([5000]));
        assert_eq!(restored(&mut slow), 5001);
        assert_eq!(objects(&slow).len(), 2);
    }

    #[test]
    fn an_object_that_is_written_meanwhile_is_not_closed() {
        let folder = tempfile::tempdir().expect("a folder");
        let [mut busy, other] = ["busy", "other"].map(|name| writer(folder.path(), name));
        busy.add(rows([1]));
        restored(&mut busy);
        let entry = other.objects().expect("listed").remove(0);
        busy.add(rows([2]));
        restored(&mut busy);
        assert!(!other.close(&entry).expect("tried"));
        busy.add(rows([3]));
        assert_eq!(restored(&mut busy), 3);
        assert_eq!(objects(&busy).len(), 1);
    }

    #[test]
    fn an_object_that_was_merged_and_not_removed_counts_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let [mut ended, other] = ["ended", "other"].map(|name| writer(folder.path(), name));
        ended.add(rows(0..5000));
        restored(&mut ended);
        let entry = other.objects().expect("listed").remove(0);
        assert!(other.close(&entry).expect("closed"));
        let listed = other.objects().expect("listed");
        // As if the writer that merges was killed before it removed the object, and another one merges it again.
        for _ in 0..2 {
            let merged = other.merge(&[&entry.name], &listed).expect("merged");
            assert_eq!(merged, Some(vec![entry.name.clone()]));
            assert_eq!(restored(&mut writer(folder.path(), "")), 5000);
        }
    }

    #[test]
    fn a_put_whose_answer_was_lost_counts_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut report = writer(folder.path(), "one");
        report.add(rows([1]));
        restored(&mut report);
        let seen = report.seen.clone();
        report.add(rows([2]));
        restored(&mut report);
        (report.seen, report.saved, report.unsaved) = (seen, rows([1]), rows([2]));
        report.add(rows([3]));
        assert_eq!(restored(&mut report), 3);
        assert_eq!(objects(&report).len(), 1);
    }

    #[test]
    fn an_object_that_cannot_be_read_is_left_out_and_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut report = writer(folder.path(), "one");
        report.add(rows([1]));
        restored(&mut report);
        let odd = folder.path().join("results.html.d/odd.json");
        std::fs::write(&odd, "{").expect("written");
        let own = folder.path().join("results.html.d/one-1.json");
        std::fs::write(own, "damaged").expect("written");
        age(folder.path());
        report.add(rows([2]));
        assert_eq!(restored(&mut report), 1, "what was not lost");
        report.add(rows([3]));
        assert_eq!(restored(&mut report), 2);
        assert_eq!(std::fs::read_to_string(odd).expect("read"), "{");
    }
}
