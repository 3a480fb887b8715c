//! What was announced of a source, kept at the source itself: a worker that shares no data folder with others has no other
//! place that outlives it. Small immutable files of JSON lines in the reserved folder, and now and then one that holds all.
//!
//! One process keeps it at a time, as one holds the generator's slot. Each file has a number and is written only where that
//! number is free, so a process that lost its slot without noticing cannot write over what its successor wrote. Other processes
//! leave notes ([`super::NoteJournal`]), which this one takes in.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use streampress_transport::{FileEntry, FileName, Files, TransportError, TransportResult};
use tokio::sync::Mutex;
use tracing::{debug, warn};

use super::source_lines::{Head, Line, name, read, write};
use super::{KeepsNoFiles, SourceJournal, SourceReceipt, SourceRecord, SourceState, notes};
use crate::runtime::{self, blocking};

/// So many files are merged into one.
const MERGED_FILES: u64 = 100;
/// So many notes of other processes are taken in at once.
const MOST_NOTES: usize = 500;

/// A source's journal at the source.
#[derive(Debug)]
pub struct SegmentJournal {
    files: Arc<dyn Files>,
    awaits_receipts: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_loaded: bool,
    records: BTreeMap<String, SourceRecord>,
    values: BTreeMap<String, String>,
    /// The merged file as it was read or written, if there is one.
    merged: Option<FileEntry>,
    /// The first number that the merged file does not contain.
    first: u64,
    /// The next number to be written.
    next: u64,
    /// Lines that are written with the next file.
    waiting: Vec<Line>,
}

impl State {
    fn apply(&mut self, line: Line) {
        match line {
            Line::Put(record) => {
                self.records.insert(record.name.clone(), record);
            }
            Line::Sent {
                name,
                announcement,
                version,
            } => {
                if let Some(record) = self.announcement(&name, &announcement) {
                    if record.state == SourceState::Writing {
                        record.state = SourceState::Sent;
                    }
                    record.version = version.or(record.version.take());
                }
            }
            Line::Receipt {
                name,
                announcement,
                state,
                fingerprint,
            } => {
                if let Some(record) = self.announcement(&name, &announcement)
                    && record.state != SourceState::Restored
                {
                    record.state = state;
                    // A file that was touched since was not renamed or deleted: it is another one to the next scan.
                    if let Some(fingerprint) = fingerprint {
                        record.fingerprint = fingerprint;
                    }
                }
            }
            Line::Forget { name } => match self.records.get_mut(&name) {
                Some(record) if record.is_unconfirmed() => {
                    record.is_gone = true;
                    record.is_settled = false;
                    record.fingerprint.clear();
                }
                Some(_) | None => drop(self.records.remove(&name)),
            },
            Line::Value { key, value } => {
                self.values.insert(key, value);
            }
        }
    }

    /// Replaces what is known of a file that was read, unless another process announced it meanwhile.
    fn put_read(&mut self, mut record: SourceRecord) {
        if let Some(known) = self.records.get(&record.name) {
            if known.announcement != record.announcement {
                return;
            }
            // The caller knows the file, not what became of its announcement.
            record = SourceRecord {
                state: known.state,
                version: known.version.clone(),
                wants_reply: known.wants_reply,
                awaits_receipt: known.awaits_receipt,
                is_gone: known.is_gone,
                ..record
            };
        }
        let line = Line::Put(record);
        self.apply(line.clone());
        self.waiting.push(line);
    }

    /// Whether a line that waited is about the newest announcement of its name: another process may have announced it since.
    fn may_still_apply(&self, line: &Line) -> bool {
        match line {
            Line::Put(record) => {
                let known = self.records.get(&record.name);
                known.is_some_and(|known| known.announcement == record.announcement)
            }
            // These name the announcement, or are written at once.
            Line::Sent { .. } | Line::Receipt { .. } | Line::Forget { .. } | Line::Value { .. } => {
                true
            }
        }
    }

    /// The record of the name, if the announcement is its newest.
    fn announcement(&mut self, name: &str, announcement: &str) -> Option<&mut SourceRecord> {
        let record = self.records.get_mut(name)?;
        (record.announcement == announcement).then_some(record)
    }

    /// Applies a line of another process's note; answers the name that it is about where it changed something.
    fn take_in(&mut self, line: Line, writer: u64, confirmed: &mut Confirmed) -> Option<String> {
        let name = match &line {
            Line::Put(record) => record.name.clone(),
            Line::Sent { name, .. } | Line::Receipt { name, .. } => name.clone(),
            Line::Forget { .. } | Line::Value { .. } => return None,
        };
        let before = self.records.get(&name).cloned();
        if let Line::Receipt { .. } = &line {
            confirmed.entry(name.clone()).or_insert(writer);
        }
        match line {
            Line::Put(record) => self.put_of_other(record, writer, confirmed),
            line => self.apply(line),
        }
        (self.records.get(&name) != before.as_ref()).then_some(name)
    }

    /// Another process announced a file. Which of two announcements the queue took first is known where a receipt of the one
    /// was taken before the other was made. Where it is not, no content is known to be the newest, so that the file is
    /// announced once more as it is now.
    fn put_of_other(&mut self, record: SourceRecord, writer: u64, confirmed: &Confirmed) {
        let known = self.records.get(&record.name);
        if known.is_some_and(|known| known.announcement == record.announcement) {
            return;
        }
        let is_newest = known.is_none_or(|known| {
            let was_before = confirmed
                .get(&known.name)
                .is_none_or(|confirming| *confirming == writer);
            (known.hash == record.hash && !known.is_gone) || (known.is_done() && was_before)
        });
        let record = match is_newest {
            true => record,
            false => SourceRecord {
                hash: String::new(),
                fingerprint: String::new(),
                is_settled: false,
                state: SourceState::Sent,
                ..record
            },
        };
        self.records.insert(record.name.clone(), record);
    }
}

/// Names whose announcements were confirmed by the notes that are being taken in, each with the writer of the first such note.
type Confirmed = BTreeMap<String, u64>;

impl SegmentJournal {
    /// The journal of these files' location. Nothing is read yet. `awaits_receipts`: receipts of what is announced from now on
    /// are recorded.
    pub fn new(files: Arc<dyn Files>, awaits_receipts: bool) -> Self {
        Self {
            files,
            awaits_receipts,
            state: Mutex::default(),
        }
    }

    async fn load(&self, state: &mut State) -> TransportResult<()> {
        if state.is_loaded {
            return Ok(());
        }
        let files = self.files.clone();
        let loaded = blocking(move || read_all(&*files)).await;
        let loaded = loaded
            .map_err(|error| TransportError::unavailable("reading what was announced", error))?;
        for line in std::mem::replace(state, loaded).waiting {
            if state.may_still_apply(&line) {
                state.apply(line.clone());
                state.waiting.push(line);
            }
        }
        Ok(())
    }

    /// Writes the lines, and those that waited, as the next file.
    async fn append(&self, state: &mut State, lines: Vec<Line>) -> TransportResult<()> {
        self.load(state).await?;
        let mut all = state.waiting.clone();
        all.extend(lines);
        if all.is_empty() {
            return Ok(());
        }
        let (files, number, written) = (self.files.clone(), state.next, all.clone());
        let outcome = blocking(move || {
            let pending = write(&*files, &segment(number)?, &Head::new(0), &written)?;
            // Only where no other process has written this number.
            pending.commit_over(runtime::now(), None)
        });
        if let Err(error) = outcome.await {
            // Another process wrote this number, or the answer was lost: what is there is read again.
            state.is_loaded = false;
            return Err(TransportError::unavailable(
                "writing down what is announced",
                in_words(error),
            ));
        }
        state.waiting.clear();
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
        let puts = state.records.values().cloned().map(Line::Put);
        let values = state.values.clone().into_iter();
        let values = values.map(|(key, value)| Line::Value { key, value });
        let lines: Vec<Line> = puts.chain(values).collect();
        let seen = state.merged.clone();
        let merging = blocking(move || -> io::Result<FileEntry> {
            let pending = write(&*files, &name("merged")?, &Head::new(next), &lines)?;
            // Only over the file that was read: a successor may have merged more, and the numbers that it removed are free.
            let merged = pending.commit_over(runtime::now(), seen.as_ref())?;
            for number in first..next {
                files.remove(&segment(number)?)?;
            }
            Ok(merged)
        });
        match merging.await {
            Ok(merged) => {
                state.merged = Some(merged);
                state.first = next;
                Ok(())
            }
            Err(error) => {
                // Another process merged, or the answer was lost: what is there is read again.
                state.is_loaded = false;
                let error =
                    TransportError::unavailable("merging what was announced", in_words(error));
                Err(error)
            }
        }
    }
}

/// That another process was faster, in words; other errors as they are.
fn in_words(error: io::Error) -> io::Error {
    match error.kind() {
        kind @ io::ErrorKind::AlreadyExists => io::Error::new(
            kind,
            "another process wrote at the same time; what it wrote is read first",
        ),
        _ => error,
    }
}

fn segment(number: u64) -> io::Result<FileName> {
    name(&format!("{number:016}"))
}

fn read_all(files: &dyn Files) -> io::Result<State> {
    let mut state = State {
        is_loaded: true,
        ..State::default()
    };
    // Before it is read: if another process replaces it meanwhile, it is not written over.
    state.merged = files.stat(&name("merged")?)?;
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

/// A note of another process.
struct Note {
    base: String,
    writer: u64,
    lines: Vec<Line>,
}

/// The oldest notes. One that cannot be read stays, and does not hold up the others.
fn read_notes(files: &dyn Files) -> io::Result<Vec<Note>> {
    let names = files.list_reserved(&notes::folder()?)?.into_iter();
    let mut names: Vec<_> = names
        .filter_map(|base| Some((notes::parse_name(&base)?, base)))
        .collect();
    names.sort();
    let mut all = Vec::new();
    for ((_, writer, _), base) in names {
        if all.len() == MOST_NOTES {
            break;
        }
        match read(files, &notes::file_name(&base)?) {
            Ok(Some((_, lines))) => all.push(Note {
                base,
                writer,
                lines,
            }),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                warn!(%error, "A note of another process cannot be read; it is left.");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

fn remove_notes(files: &dyn Files, notes: &[Note]) -> io::Result<()> {
    notes
        .iter()
        .try_for_each(|note| files.remove(&notes::file_name(&note.base)?))
}

impl KeepsNoFiles for SegmentJournal {}

#[async_trait]
impl SourceJournal for SegmentJournal {
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
        let lines = records.iter().filter(is_new).map(|record| {
            Line::Put(SourceRecord {
                awaits_receipt: self.awaits_receipts,
                ..record.clone()
            })
        });
        let lines = lines.collect();
        self.append(&mut state, lines).await
    }

    async fn record_sent(&self, records: &[SourceRecord]) -> TransportResult<()> {
        let mut state = self.state.lock().await;
        for record in records {
            let line = Line::sent(record);
            state.apply(line.clone());
            state.waiting.push(line);
        }
        Ok(())
    }

    async fn record_sources(&self, records: &[SourceRecord]) -> TransportResult<()> {
        let mut state = self.state.lock().await;
        self.load(&mut state).await?;
        for record in records {
            state.put_read(record.clone());
        }
        Ok(())
    }

    async fn record_read_again(&self, record: &SourceRecord) -> TransportResult<bool> {
        let mut state = self.state.lock().await;
        self.load(&mut state).await?;
        let known = state.records.get(&record.name);
        let is_as_known = known.is_some_and(|known| record.is_of_same_state(known));
        if is_as_known {
            state.put_read(record.clone());
        }
        Ok(is_as_known)
    }

    async fn forget_sources(&self, records: &[SourceRecord]) -> TransportResult<()> {
        let mut state = self.state.lock().await;
        let lines = records.iter().map(|record| Line::Forget {
            name: record.name.clone(),
        });
        let lines = lines.collect();
        self.append(&mut state, lines).await
    }

    async fn record_receipt(&self, receipt: &SourceReceipt) -> TransportResult<()> {
        let mut state = self.state.lock().await;
        self.load(&mut state).await?;
        let line = Line::Receipt {
            name: receipt.name.clone(),
            announcement: receipt.announcement.clone(),
            state: receipt.state,
            fingerprint: receipt.fingerprint.clone(),
        };
        state.apply(line.clone());
        state.waiting.push(line);
        Ok(())
    }

    async fn take_in(&self) -> TransportResult<Vec<SourceRecord>> {
        let mut state = self.state.lock().await;
        self.load(&mut state).await?;
        let files = self.files.clone();
        let read = blocking(move || read_notes(&*files)).await;
        let notes = read.map_err(|error| {
            TransportError::unavailable("reading what other processes announced", error)
        })?;
        if notes.is_empty() {
            return Ok(Vec::new());
        }
        let (mut changed, mut confirmed) = (BTreeSet::new(), Confirmed::new());
        for note in &notes {
            for line in &note.lines {
                let mut line = line.clone();
                if let Line::Put(record) = &mut line {
                    record.awaits_receipt = self.awaits_receipts;
                }
                changed.extend(state.take_in(line, note.writer, &mut confirmed));
            }
        }
        let records = changed.iter().filter_map(|name| state.records.get(name));
        let records: Vec<_> = records.cloned().collect();
        // A note is removed once what it says is durable here; taken in again it changes nothing.
        let lines = records.iter().cloned().map(Line::Put).collect();
        self.append(&mut state, lines).await?;
        let files = self.files.clone();
        if let Err(error) = blocking(move || remove_notes(&*files, &notes)).await {
            debug!(%error, "Notes that were taken in could not be removed; they are taken in again.");
        }
        Ok(records)
    }

    async fn may_have_unconfirmed(&self) -> TransportResult<bool> {
        let mut state = self.state.lock().await;
        self.load(&mut state).await?;
        Ok(state.records.values().any(SourceRecord::is_unconfirmed))
    }

    async fn get(&self, key: &str) -> TransportResult<Option<String>> {
        let mut state = self.state.lock().await;
        self.load(&mut state).await?;
        Ok(state.values.get(key).cloned())
    }

    async fn set(&self, key: &str, value: &str) -> TransportResult<()> {
        let mut state = self.state.lock().await;
        let line = Line::Value {
            key: key.to_owned(),
            value: value.to_owned(),
        };
        self.append(&mut state, vec![line]).await
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
    use crate::journal::NoteJournal;

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
            version: None,
            wants_reply: false,
            awaits_receipt: true,
            is_gone: false,
        }
    }

    fn folder() -> (tempfile::TempDir, Arc<dyn Files>) {
        let root = tempfile::tempdir().expect("a folder");
        let files = LocalFiles::open("s3://bucket/in", root.path()).expect("opens");
        (root, Arc::new(files))
    }

    async fn known(files: &Arc<dyn Files>) -> Vec<SourceRecord> {
        let journal = SegmentJournal::new(files.clone(), true);
        journal.sources("").await.expect("read")
    }

    #[tokio::test]
    async fn what_was_announced_outlives_the_process_and_many_files_become_one() {
        let (root, files) = folder();
        let journal = SegmentJournal::new(files.clone(), true);
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
        // What became of them is not known yet.
        assert!(known(&files).await.iter().all(|record| record.is_gone));
        for record in &sources {
            let receipt = receipt_of(record, SourceState::Restored);
            journal.record_receipt(&receipt).await.expect("kept");
        }
        journal.forget_sources(&sources).await.expect("written");
        assert!(known(&files).await.is_empty());
    }

    #[tokio::test]
    async fn a_process_that_lost_its_slot_does_not_write_over_its_successor() {
        let (_root, files) = folder();
        let (old, new) = (
            SegmentJournal::new(files.clone(), true),
            SegmentJournal::new(files.clone(), true),
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

    fn receipt_of(record: &SourceRecord, state: SourceState) -> SourceReceipt {
        SourceReceipt {
            location: record.location.clone(),
            name: record.name.clone(),
            file_id: record.file_id.clone(),
            announcement: record.announcement.clone(),
            state,
            fingerprint: Some(record.fingerprint.clone()),
        }
    }

    /// As if its content were another one.
    fn with_content(record: SourceRecord, hash: &str) -> SourceRecord {
        SourceRecord {
            hash: hash.into(),
            ..record
        }
    }

    async fn announce(journal: &dyn SourceJournal, record: &SourceRecord) {
        let announced = journal
            .record_announcements(std::slice::from_ref(record))
            .await;
        announced.expect("recorded");
    }

    async fn state_of(journal: &SegmentJournal, name: &str) -> Option<SourceState> {
        let record = journal.source("", name).await.expect("read");
        record.map(|record| record.state)
    }

    #[tokio::test]
    async fn what_several_processes_note_reaches_the_journal_once_and_their_notes_go() {
        let (_root, files) = folder();
        let journal = SegmentJournal::new(files.clone(), true);
        let (submit, compressor) = (
            NoteJournal::new(files.clone()),
            NoteJournal::new(files.clone()),
        );
        let (mine, theirs) = (record("a.csv", "mine"), record("b.csv", "theirs"));
        announce(&journal, &mine).await;
        announce(&submit, &theirs).await;
        let sent = SourceRecord {
            version: Some("files:1:7".parse().expect("a version")),
            ..theirs.clone()
        };
        submit.record_sent(&[sent]).await.expect("kept");
        submit.flush_sources().await.expect("written");
        for record in [&mine, &theirs] {
            let receipt = receipt_of(record, SourceState::Restored);
            compressor.record_receipt(&receipt).await.expect("kept");
        }
        compressor.flush_sources().await.expect("written");
        let changed = journal.take_in().await.expect("taken in");
        assert_eq!(changed.len(), 2);
        assert!(journal.take_in().await.expect("taken in").is_empty());
        let folder = notes::folder().expect("a valid name");
        let left = files.list_reserved(&folder).expect("listed");
        assert_eq!(left, Vec::<String>::new());
        // Another process sees the same.
        let known = known(&files).await;
        let states: Vec<_> = known.iter().map(|it| (&*it.name, it.state)).collect();
        let restored = SourceState::Restored;
        assert_eq!(states, [("a.csv", restored), ("b.csv", restored)]);
        let version = known[1].version.as_ref().map(ToString::to_string);
        assert_eq!(version.as_deref(), Some("files:1:7"));
        assert!(!journal.may_have_unconfirmed().await.expect("known"));
    }

    #[tokio::test]
    async fn a_process_killed_while_it_takes_notes_in_loses_none_and_takes_none_twice() {
        let (root, files) = folder();
        let submit = NoteJournal::new(files.clone());
        announce(&submit, &record("a.csv", "first")).await;
        let notes = root.path().join(".streampress/sources/notes");
        let note = std::fs::read_dir(&notes).expect("listed").next();
        let note = note.expect("a note").expect("listed").path();
        let kept = std::fs::read(&note).expect("read");
        let killed = SegmentJournal::new(files.clone(), true);
        assert_eq!(killed.take_in().await.expect("taken in").len(), 1);
        // It had written its own file, and had not yet removed the note.
        std::fs::write(&note, kept).expect("written");
        let next = SegmentJournal::new(files.clone(), true);
        next.record_receipt(&receipt_of(
            &record("a.csv", "first"),
            SourceState::Restored,
        ))
        .await
        .expect("kept");
        assert!(next.take_in().await.expect("taken in").is_empty());
        assert_eq!(state_of(&next, "a.csv").await, Some(SourceState::Restored));
        assert_eq!(std::fs::read_dir(&notes).expect("listed").count(), 0);
    }

    #[tokio::test]
    async fn of_two_processes_announcements_the_later_is_the_newest_where_that_is_known() {
        let (_root, files) = folder();
        let journal = SegmentJournal::new(files.clone(), true);
        let (submit, compressor) = (
            NoteJournal::new(files.clone()),
            NoteJournal::new(files.clone()),
        );
        let first = with_content(record("a.csv", "first"), "one");
        announce(&journal, &first).await;
        // Nothing is known of the first: either may be the later one.
        let second = with_content(record("a.csv", "second"), "two");
        announce(&submit, &second).await;
        let changed = journal.take_in().await.expect("taken in");
        assert_eq!(changed[0].announcement, "second");
        assert_eq!((&*changed[0].hash, changed[0].is_settled), ("", false));
        // A third is announced and confirmed; what comes afterwards is later.
        let third = with_content(record("a.csv", "third"), "three");
        announce(&journal, &third).await;
        let receipt = receipt_of(&third, SourceState::Restored);
        compressor.record_receipt(&receipt).await.expect("kept");
        compressor.flush_sources().await.expect("written");
        journal.take_in().await.expect("taken in");
        let fourth = with_content(record("a.csv", "fourth"), "four");
        announce(&submit, &fourth).await;
        let changed = journal.take_in().await.expect("taken in");
        assert_eq!(&*changed[0].hash, "four");
        assert_eq!(changed[0].state, SourceState::Writing);
    }

    #[tokio::test]
    async fn a_file_that_is_gone_is_noted_without_its_receipt_being_lost() {
        let (_root, files) = folder();
        let journal = SegmentJournal::new(files, true);
        let announced = record("a.csv", "first");
        announce(&journal, &announced).await;
        let receipt = receipt_of(&announced, SourceState::Restored);
        journal.record_receipt(&receipt).await.expect("kept");
        let gone = with_content(announced, "");
        journal.record_sources(&[gone]).await.expect("kept");
        let outdated = with_content(record("a.csv", "before"), "other");
        journal.record_sources(&[outdated]).await.expect("kept");
        let known = journal.source("", "a.csv").await.expect("read");
        let known = known.expect("known");
        assert_eq!((&*known.announcement, &*known.hash), ("first", ""));
        assert_eq!(known.state, SourceState::Restored);
    }

    #[tokio::test]
    async fn a_note_that_cannot_be_read_holds_up_no_other() {
        let (root, files) = folder();
        let journal = SegmentJournal::new(files.clone(), true);
        let submit = NoteJournal::new(files.clone());
        announce(&submit, &record("a.csv", "first")).await;
        let damaged = root
            .path()
            .join(".streampress/sources/notes/0000000000000001-0000000000000001-0");
        std::fs::write(&damaged, "{").expect("written");
        assert_eq!(journal.take_in().await.expect("taken in").len(), 1);
        assert!(damaged.exists());
    }

    #[tokio::test]
    async fn what_an_earlier_release_announced_is_never_unconfirmed() {
        let (root, files) = folder();
        let sources = root.path().join(".streampress/sources");
        std::fs::create_dir_all(&sources).expect("made");
        let line = r#"{"put":{"location":"s3://bucket/in","name":"a.csv","announcement":"a","fileId":"f","hash":"h","bytes":1,"modifiedNanos":2,"fingerprint":"p","isSettled":true,"state":"Sent"}}"#;
        let text = format!("{{\"version\":1}}\n{line}");
        std::fs::write(sources.join("0000000000000000"), text).expect("written");
        let journal = SegmentJournal::new(files, true);
        assert_eq!(state_of(&journal, "a.csv").await, Some(SourceState::Sent));
        assert!(!journal.may_have_unconfirmed().await.expect("known"));
        journal.set("incarnations", "1 2").await.expect("written");
        let value = journal.get("incarnations").await.expect("read");
        assert_eq!(value.as_deref(), Some("1 2"));
    }

    #[tokio::test]
    async fn a_damaged_file_is_named_with_the_remedy() {
        let (root, files) = folder();
        let sources = root.path().join(".streampress/sources");
        std::fs::create_dir_all(&sources).expect("made");
        std::fs::write(sources.join("0000000000000000"), "{\"version\":1}\nhalf").expect("written");
        let error = SegmentJournal::new(files, true).sources("").await;
        let error = streampress_transport::error_chain(&error.expect_err("damaged"));
        assert!(
            error.contains("0000000000000000") && error.contains("remove"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_late_merge_is_not_written_over_that_of_a_successor() {
        let (_root, files) = folder();
        let late = SegmentJournal::new(files.clone(), true);
        let number_of = |number: u64| record(&format!("{number}.csv"), &number.to_string());
        for number in 0..MERGED_FILES - 1 {
            let announced = late.record_announcements(&[number_of(number)]).await;
            announced.expect("written");
        }
        // It loses its slot here: the successor appends, merges, and appends again.
        let successor = SegmentJournal::new(files.clone(), true);
        for number in MERGED_FILES - 1..2 * MERGED_FILES + 5 {
            let announced = successor.record_announcements(&[number_of(number)]).await;
            announced.expect("written");
        }
        let all = successor.sources("").await.expect("read");
        let mut state = late.state.lock().await;
        let merged = late.merge(&mut state).await;
        merged.expect_err("another process has merged");
        drop(state);
        assert_eq!(known(&files).await, all);
        // It goes on with what the successor wrote.
        assert_eq!(late.sources("").await.expect("read"), all);
    }

    #[tokio::test]
    async fn what_waits_is_written_after_a_failed_write_unless_the_file_was_announced_again() {
        let (_root, files) = folder();
        let journal = SegmentJournal::new(files.clone(), true);
        let records = [record("a.csv", "1"), record("b.csv", "1")];
        journal
            .record_announcements(&records)
            .await
            .expect("written");
        journal.record_sent(&records).await.expect("kept");
        journal.record_sources(&records).await.expect("kept");
        let other = SegmentJournal::new(files.clone(), true);
        let again = [record("b.csv", "2")];
        other.record_announcements(&again).await.expect("written");
        journal
            .flush_sources()
            .await
            .expect_err("the number is taken");
        journal.flush_sources().await.expect("written");
        let states: Vec<_> = known(&files)
            .await
            .into_iter()
            .map(|it| (it.announcement, it.state))
            .collect();
        let expected = [("1", SourceState::Sent), ("2", SourceState::Writing)];
        assert_eq!(states, expected.map(|(it, state)| (it.to_owned(), state)));
    }
}
