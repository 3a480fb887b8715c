//! What was announced of a source, kept at the source itself: a worker that shares no data folder with others has no other
//! place that outlives it. Small immutable files of JSON lines in the reserved folder, and now and then one that holds all.
//!
//! One process writes at a time, as one holds the generator's slot. Each file has a number and is written only where that
//! number is free, so a process that lost its slot without noticing cannot write over what its successor wrote.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use streampress_transport::{FileName, Files, RESERVED_FOLDER, TransportError, TransportResult};
use tokio::sync::Mutex;

use super::{FileJournal, SourceRecord, SourceState};
use crate::runtime::{self, blocking};

/// The version of the files' form.
const VERSION: u32 = 1;
/// So many files are merged into one.
const MERGED_FILES: u64 = 100;

/// A source's journal at the source.
#[derive(Debug)]
pub struct SegmentJournal {
    files: Arc<dyn Files>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_loaded: bool,
    records: BTreeMap<String, SourceRecord>,
    /// The first number that the merged file does not contain.
    first: u64,
    /// The next number to be written.
    next: u64,
    /// Lines that are written with the next file.
    waiting: Vec<Line>,
}

/// The first line of every file.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    version: u32,
    /// In the merged file: the number of the first file that it does not contain.
    #[serde(default)]
    next: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Line {
    /// The newest announcement of its name.
    Put(SourceRecord),
    /// The name's announcement was sent.
    Sent { name: String, announcement: String },
    /// The name's file is no longer at the source.
    Forget { name: String },
}

impl State {
    fn apply(&mut self, line: Line) {
        match line {
            Line::Put(record) => {
                self.records.insert(record.name.clone(), record);
            }
            Line::Sent { name, announcement } => {
                if let Some(record) = self.records.get_mut(&name)
                    && record.announcement == announcement
                {
                    record.state = SourceState::Sent;
                }
            }
            Line::Forget { name } => {
                self.records.remove(&name);
            }
        }
    }
}

impl SegmentJournal {
    /// The journal of these files' location. Nothing is read yet.
    pub fn new(files: Arc<dyn Files>) -> Self {
        Self {
            files,
            state: Mutex::default(),
        }
    }

    async fn load(&self, state: &mut State) -> TransportResult<()> {
        if state.is_loaded {
            return Ok(());
        }
        let files = self.files.clone();
        let loaded = blocking(move || read_all(&*files)).await;
        *state = loaded
            .map_err(|error| TransportError::unavailable("reading what was announced", error))?;
        Ok(())
    }

    /// Writes the lines, and those that waited, as the next file.
    async fn append(&self, state: &mut State, lines: Vec<Line>) -> TransportResult<()> {
        self.load(state).await?;
        let mut all = std::mem::take(&mut state.waiting);
        all.extend(lines);
        if all.is_empty() {
            return Ok(());
        }
        let (files, number, written) = (self.files.clone(), state.next, all.clone());
        let outcome = blocking(move || {
            let head = Head {
                version: VERSION,
                next: 0,
            };
            write(&*files, &segment(number)?, &head, &written, true)
        });
        if let Err(error) = outcome.await {
            // Another process wrote this number, or the answer was lost: what is there is read again.
            state.is_loaded = false;
            return Err(TransportError::unavailable(
                "writing down what is announced",
                error,
            ));
        }
        state.next += 1;
        for line in all {
            state.apply(line);
        }
        if state.next - state.first >= MERGED_FILES {
            self.merge(state).await?;
        }
        Ok(())
    }

    async fn merge(&self, state: &mut State) -> TransportResult<()> {
        let (files, first, next) = (self.files.clone(), state.first, state.next);
        let lines: Vec<Line> = state.records.values().cloned().map(Line::Put).collect();
        let merged = blocking(move || -> io::Result<()> {
            let head = Head {
                version: VERSION,
                next,
            };
            write(&*files, &name("merged")?, &head, &lines, false)?;
            for number in first..next {
                files.remove(&segment(number)?)?;
            }
            Ok(())
        });
        let merged = merged.await;
        merged.map_err(|error| TransportError::unavailable("merging what was announced", error))?;
        state.first = next;
        Ok(())
    }
}

fn name(base: &str) -> io::Result<FileName> {
    FileName::parse(&format!("{RESERVED_FOLDER}/sources/{base}")).map_err(io::Error::other)
}

fn segment(number: u64) -> io::Result<FileName> {
    name(&format!("{number:016}"))
}

fn read_all(files: &dyn Files) -> io::Result<State> {
    let mut state = State {
        is_loaded: true,
        ..State::default()
    };
    if let Some((head, lines)) = read(files, &name("merged")?)? {
        state.first = head.next;
        lines.into_iter().for_each(|line| state.apply(line));
    }
    state.next = state.first;
    while let Some((_, lines)) = read(files, &segment(state.next)?)? {
        lines.into_iter().for_each(|line| state.apply(line));
        state.next += 1;
    }
    Ok(state)
}

/// The file's lines; `None` when there is none.
fn read(files: &dyn Files, name: &FileName) -> io::Result<Option<(Head, Vec<Line>)>> {
    let mut text = String::new();
    match files.read(name) {
        Ok(mut reader) => reader.read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let damaged = |error: serde_json::Error| {
        let why = format!(
            "{name} is damaged: {error}; remove the folder {RESERVED_FOLDER}/sources, and every file is announced again"
        );
        io::Error::new(io::ErrorKind::InvalidData, why)
    };
    let mut lines = text.lines();
    let head: Head = serde_json::from_str(lines.next().unwrap_or_default()).map_err(damaged)?;
    if head.version != VERSION {
        let why = format!("{name} was written by a newer streampress; use that version");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let lines = lines.map(serde_json::from_str).collect::<Result<_, _>>();
    Ok(Some((head, lines.map_err(damaged)?)))
}

fn write(
    files: &dyn Files,
    name: &FileName,
    head: &Head,
    lines: &[Line],
    is_new: bool,
) -> io::Result<()> {
    let mut pending = files.create(name)?;
    serde_json::to_writer(&mut pending, head)?;
    for line in lines {
        pending.write_all(b"\n")?;
        serde_json::to_writer(&mut pending, line)?;
    }
    match is_new {
        true => pending.commit_over(runtime::now(), None).map(drop),
        false => pending.commit(runtime::now()),
    }
}

#[async_trait]
impl FileJournal for SegmentJournal {
    async fn sources(&self, _: &str) -> TransportResult<Vec<SourceRecord>> {
        let mut state = self.state.lock().await;
        self.load(&mut state).await?;
        Ok(state.records.values().cloned().collect())
    }

    async fn source(&self, _: &str, name: &str) -> TransportResult<Option<SourceRecord>> {
        let mut state = self.state.lock().await;
        self.load(&mut state).await?;
        Ok(state.records.get(name).cloned())
    }

    async fn record_announcements(&self, records: &[SourceRecord]) -> TransportResult<()> {
        let mut state = self.state.lock().await;
        self.load(&mut state).await?;
        let is_new = |record: &&SourceRecord| {
            let known = state.records.get(&record.name);
            known.is_none_or(|known| known.announcement != record.announcement)
        };
        let lines = records.iter().filter(is_new).cloned().map(Line::Put);
        let lines = lines.collect();
        self.append(&mut state, lines).await
    }

    async fn record_sent(&self, records: &[SourceRecord]) -> TransportResult<()> {
        let mut state = self.state.lock().await;
        for record in records {
            let line = Line::Sent {
                name: record.name.clone(),
                announcement: record.announcement.clone(),
            };
            state.apply(line.clone());
            state.waiting.push(line);
        }
        Ok(())
    }

    async fn record_sources(&self, records: &[SourceRecord]) -> TransportResult<()> {
        let mut state = self.state.lock().await;
        self.load(&mut state).await?;
        for record in records {
            let line = Line::Put(record.clone());
            state.apply(line.clone());
            state.waiting.push(line);
        }
        Ok(())
    }

    async fn forget_sources(&self, records: &[SourceRecord]) -> TransportResult<()> {
        let mut state = self.state.lock().await;
        let lines = records.iter().map(|record| Line::Forget {
            name: record.name.clone(),
        });
        let lines = lines.collect();
        self.append(&mut state, lines).await
    }

    async fn flush_sources(&self) -> TransportResult<()> {
        let mut state = self.state.lock().await;
        self.append(&mut state, Vec::new()).await
    }
}

#[cfg(test)]
mod tests {
    use streampress_transport::local::files::LocalFiles;

    use super::*;

    fn record(name: &str, announcement: &str) -> SourceRecord {
        SourceRecord {
            location: "s3://bucket/in".into(),
            name: name.into(),
            announcement: announcement.into(),
            file_id: "f".into(),
            hash: "h".into(),
            bytes: 1,
            modified_nanos: 2,
            fingerprint: "p".into(),
            is_settled: true,
            state: SourceState::Writing,
        }
    }

    fn folder() -> (tempfile::TempDir, Arc<dyn Files>) {
        let root = tempfile::tempdir().expect("a folder");
        let files = LocalFiles::open("s3://bucket/in", root.path()).expect("opens");
        (root, Arc::new(files))
    }

    async fn known(files: &Arc<dyn Files>) -> Vec<SourceRecord> {
        let journal = SegmentJournal::new(files.clone());
        journal.sources("").await.expect("read")
    }

    #[tokio::test]
    async fn what_was_announced_outlives_the_process_and_many_files_become_one() {
        let (root, files) = folder();
        let journal = SegmentJournal::new(files.clone());
        for number in 0..3 * MERGED_FILES {
            let mut written = record(&format!("{}.csv", number % 50), &number.to_string());
            let announced = journal.record_announcements(&[written.clone()]).await;
            announced.expect("written");
            journal.record_sent(&[written.clone()]).await.expect("kept");
            written.state = SourceState::Sent;
            let newest = journal.source("", &written.name).await.expect("read");
            assert_eq!(newest, Some(written));
        }
        journal.flush_sources().await.expect("written");
        let sources = journal.sources("").await.expect("read");
        assert_eq!(sources.len(), 50);
        assert_eq!(known(&files).await, sources);
        let left = std::fs::read_dir(root.path().join(".streampress/sources")).expect("listed");
        assert!(left.count() <= 1 + MERGED_FILES as usize);
        journal.forget_sources(&sources).await.expect("written");
        assert!(known(&files).await.is_empty());
    }

    #[tokio::test]
    async fn a_process_that_lost_its_slot_does_not_write_over_its_successor() {
        let (_root, files) = folder();
        let (old, new) = (
            SegmentJournal::new(files.clone()),
            SegmentJournal::new(files.clone()),
        );
        for journal in [&old, &new] {
            assert!(journal.sources("").await.expect("read").is_empty());
        }
        let announced = new.record_announcements(&[record("a.csv", "new")]).await;
        announced.expect("written");
        let announced = old.record_announcements(&[record("a.csv", "old")]).await;
        announced.expect_err("refused");
        assert_eq!(known(&files).await[0].announcement, "new");
        let seen = old.source("", "a.csv").await.expect("read");
        assert_eq!(seen.expect("known").announcement, "new");
    }

    #[tokio::test]
    async fn a_damaged_file_is_named_with_the_way_out() {
        let (root, files) = folder();
        let sources = root.path().join(".streampress/sources");
        std::fs::create_dir_all(&sources).expect("made");
        std::fs::write(sources.join("0000000000000000"), "{\"version\":1}\nhalf").expect("written");
        let error = SegmentJournal::new(files).sources("").await;
        let error = streampress_transport::error_chain(&error.expect_err("damaged"));
        assert!(
            error.contains("0000000000000000") && error.contains("remove"),
            "{error}"
        );
    }
}
