//! Whether restored files still have the bytes that they were made with, for a run that finds them done.
//!
//! A fingerprint that was taken with the content, and that every later write changes, stands for the content: inode and
//! change time of a local file, the tag of an object. A file with another fingerprint (changed, touched, copied with its
//! folder) is read once, and its new fingerprint is kept in the journal. Size and modification time alone prove nothing:
//! `rsync -t` and editors keep them.
//!
//! That a file was restored does not say to which destination: pipelines with several may share a data folder. The
//! destination's own journal says what was made there.

use std::collections::HashMap;
use std::io;
use std::time::SystemTime;

use anyhow::Result;
use streampress_crds::api::pipeline::CodecFormat;
use streampress_transport::{FileEntry, FileName};
use tokio_util::sync::CancellationToken;

use crate::destination::{Destination, EntryState, JournalEntry};
use crate::journal::{CheckedFile, FileJournal, SourceRecord};
use crate::message::{Digest, FileRef, hash};
use crate::runtime::{self, CLOCK_TICK, blocking};

/// Files are noted as checked in batches of this many.
const BATCH: usize = 256;
/// To read more than this takes a while, and is said.
const SAID_BYTES: u64 = 256 << 20;
const SAID_FILES: usize = 10_000;

/// The restored files of a destination, as a listing found them.
pub(crate) struct RestoredCopies<'a> {
    destination: Destination,
    journal: &'a dyn FileJournal,
    format: CodecFormat,
    /// What the destination's journal says of all names, where it can be read at once.
    made: Option<HashMap<String, JournalEntry>>,
    /// What earlier checks found.
    checked: HashMap<String, CheckedFile>,
    /// Before the files were listed.
    listed_at: SystemTime,
    news: Vec<CheckedFile>,
}

/// Of restored files, those whose copy is not what was restored last.
#[derive(Debug, Default)]
pub(crate) struct DifferingCopies {
    /// Others changed it since.
    pub(crate) altered: Vec<SourceRecord>,
    /// That content was never at this destination, but at another one.
    pub(crate) elsewhere: Vec<SourceRecord>,
    /// Names of copies that cannot be read, which were not compared, each with the reason.
    pub(crate) unreadable: Vec<(String, String)>,
}

/// What is known of a file without reading it.
enum CopyState {
    Same,
    Other,
    Elsewhere,
    /// Its bytes must be read, and compared with these of the original's format.
    Unread(Option<Digest>),
}

impl<'a> RestoredCopies<'a> {
    /// What is known of the files at the destination; call it before they are listed.
    pub(crate) async fn load(
        destination: Destination,
        journal: &'a dyn FileJournal,
        format: CodecFormat,
    ) -> Result<Self> {
        let made = destination.journal().entries().await?;
        let location = destination.files().location();
        let checked = journal.checked_files(location).await?.into_iter();
        Ok(Self {
            destination,
            journal,
            format,
            made,
            checked: checked.map(|it| (it.name.clone(), it)).collect(),
            listed_at: runtime::now(),
            news: Vec::new(),
        })
    }

    /// Whether a file that was restored, and of which the destination has no copy, may have been restored there.
    pub(crate) fn may_have_been_here(&self, record: &SourceRecord) -> bool {
        let (Some(made), Ok(name)) = (&self.made, FileName::parse(&record.name)) else {
            return true;
        };
        let made = made.get(name.as_str());
        made.is_some_and(|made| is_made_of(made, &name, record, self.format))
    }

    /// Those of the files whose bytes are others than they were made with. `notice` is told where many are to be read. Stops
    /// early on shutdown.
    pub(crate) async fn differing(
        &mut self,
        files: Vec<(SourceRecord, FileEntry)>,
        notice: impl Fn(&str),
        stop: &CancellationToken,
    ) -> Result<DifferingCopies> {
        let (mut differing, mut unread) = (DifferingCopies::default(), Vec::new());
        for (record, entry) in files {
            match self.known(&record, &entry).await? {
                CopyState::Same => {}
                CopyState::Other => self.add_other(record, &entry, &mut differing).await?,
                CopyState::Elsewhere => differing.elsewhere.push(record),
                CopyState::Unread(made) => unread.push((record, entry, made)),
            }
        }
        let bytes: u64 = unread.iter().map(|(_, entry, _)| entry.size).sum();
        if bytes > SAID_BYTES || unread.len() > SAID_FILES {
            notice(&format!(
                "reading {} restored file(s), {} MB, once: they were changed, touched or copied since they were last looked at",
                unread.len(),
                bytes / 1_000_000
            ));
        }
        for (record, entry, made) in unread {
            if stop.is_cancelled() {
                break;
            }
            match self.is_same(&record, &entry, made.as_ref()).await? {
                Ok(true) => {}
                Ok(false) => self.add_other(record, &entry, &mut differing).await?,
                Err(error) => differing.unreadable.push((record.name, error.to_string())),
            }
        }
        self.store_news(1).await?;
        Ok(differing)
    }

    /// Others can have changed only what was there.
    async fn add_other(
        &self,
        record: SourceRecord,
        entry: &FileEntry,
        differing: &mut DifferingCopies,
    ) -> Result<()> {
        let made = self.made(entry).await?;
        match made.is_some_and(|made| is_made_of(&made, &entry.name, &record, self.format)) {
            true => differing.altered.push(record),
            false => differing.elsewhere.push(record),
        }
        Ok(())
    }

    /// What the destination's journal says of the file's name.
    async fn made(&self, entry: &FileEntry) -> Result<Option<JournalEntry>> {
        if let Some(made) = &self.made {
            return Ok(made.get(entry.name.as_str()).cloned());
        }
        let stored = self.destination.journal().load(&entry.name).await?;
        Ok(stored.map(|stored| stored.entry))
    }

    async fn known(&mut self, record: &SourceRecord, entry: &FileEntry) -> Result<CopyState> {
        let is_hybrid = self.format == CodecFormat::Hybrid;
        if is_hybrid && entry.size != record.bytes {
            return Ok(CopyState::Other);
        }
        let checked = self.checked.get(entry.name.as_str());
        let checked = checked.filter(|it| it.fingerprint == entry.fingerprint);
        let checked = checked.map(|it| it.hash.clone());
        // Only the original's format needs the entry too: its normal form has a hash of its own.
        if let (true, Some(hash)) = (is_hybrid, &checked) {
            return Ok(self.compare(record, entry, hash, None));
        }
        let made = self.made(entry).await?;
        // Of the original's format the content cannot say of which file it is.
        let is_elsewhere =
            |made: &JournalEntry| !is_made_of(made, &entry.name, record, self.format);
        if !is_hybrid && made.as_ref().is_none_or(is_elsewhere) {
            return Ok(CopyState::Elsewhere);
        }
        let made_hash = made.as_ref().map(|made| made.hash.clone());
        if let Some(hash) = &checked {
            return Ok(self.compare(record, entry, hash, made_hash.as_ref()));
        }
        match made {
            Some(made) if made.fingerprint.as_ref() == Some(&entry.fingerprint) => {
                if self.made.is_none() {
                    // An object's own request, which the next run does not make.
                    self.note(entry, &made.hash).await?;
                }
                Ok(self.compare(record, entry, &made.hash, Some(&made.hash)))
            }
            _ => Ok(CopyState::Unread(made_hash)),
        }
    }

    fn compare(
        &self,
        record: &SourceRecord,
        entry: &FileEntry,
        hash: &Digest,
        made: Option<&Digest>,
    ) -> CopyState {
        let is_same = match self.format {
            // The record's own hash is empty once the source is gone.
            CodecFormat::Hybrid => is_content_of(hash, &entry.name, record),
            CodecFormat::Seed => made.is_none_or(|made| made == hash),
        };
        match is_same {
            true => CopyState::Same,
            false => CopyState::Other,
        }
    }

    /// The inner error is that of a copy that cannot be read.
    async fn is_same(
        &mut self,
        record: &SourceRecord,
        entry: &FileEntry,
        made: Option<&Digest>,
    ) -> Result<io::Result<bool>> {
        let (files, name) = (self.destination.files().clone(), entry.name.clone());
        let hash = match blocking(move || hash(files.read(&name)?)).await {
            Ok((hash, _)) => hash,
            Err(error) => return Ok(Err(error)),
        };
        self.note(entry, &hash).await?;
        let state = self.compare(record, entry, &hash, made);
        Ok(Ok(matches!(state, CopyState::Same)))
    }

    /// Keeps the content of a fingerprint that every write from now on changes.
    async fn note(&mut self, entry: &FileEntry, hash: &Digest) -> Result<()> {
        let is_settled = entry.changed.is_none_or(|changed| {
            let age = self.listed_at.duration_since(changed);
            age.is_ok_and(|age| age >= CLOCK_TICK)
        });
        if is_settled {
            self.news.push(CheckedFile {
                name: entry.name.as_str().to_owned(),
                fingerprint: entry.fingerprint.clone(),
                hash: hash.clone(),
            });
        }
        self.store_news(BATCH).await
    }

    async fn store_news(&mut self, least: usize) -> Result<()> {
        if self.news.len() >= least {
            let news = std::mem::take(&mut self.news);
            let location = self.destination.files().location();
            self.journal.record_checked(location, news).await?;
        }
        Ok(())
    }
}

/// Whether the file that was announced had this hash.
fn is_content_of(hash: &Digest, name: &FileName, record: &SourceRecord) -> bool {
    let file = FileRef {
        location: record.location.clone(),
        name: name.clone(),
        bytes: record.bytes,
        hash: hash.clone(),
        modified_nanos: record.modified_nanos,
    };
    file.id().as_str() == record.file_id
}

/// Whether what was made visible is the file that was announced, or its normal form. An entry that does not say of which file
/// its normal form is counts as this one's.
fn is_made_of(
    made: &JournalEntry,
    name: &FileName,
    record: &SourceRecord,
    format: CodecFormat,
) -> bool {
    let of = match format {
        CodecFormat::Hybrid => Some(&made.hash),
        CodecFormat::Seed => made.original.as_ref(),
    };
    made.state == EntryState::Visible && of.is_none_or(|hash| is_content_of(hash, name, record))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use std::time::Duration;

    use streampress_transport::contract_tests::{DeniedReads, FilesTap, TappedFiles};
    use streampress_transport::local::files::LocalFiles;
    use streampress_transport::local::{Local, LocalOptions};
    use streampress_transport::{FileName, Files};

    use super::*;
    use crate::destination::DatabaseJournal;
    use crate::journal::{SourceState, SqliteJournal};

    /// Counts what is read.
    #[derive(Debug, Default)]
    struct CountedReads(Arc<AtomicU32>);

    impl FilesTap for CountedReads {
        fn read(&self, files: &dyn Files, name: &FileName) -> io::Result<Box<dyn Read + Send>> {
            self.0.fetch_add(1, Relaxed);
            files.read(name)
        }
    }

    fn record(entry: &FileEntry, content: &[u8]) -> SourceRecord {
        let file = FileRef {
            location: "file:///in".into(),
            name: entry.name.clone(),
            bytes: content.len() as u64,
            hash: Digest::of(content),
            modified_nanos: 1,
        };
        SourceRecord {
            location: file.location.clone(),
            name: entry.name.as_str().into(),
            announcement: "a".into(),
            file_id: file.id().as_str().into(),
            hash: String::new(),
            bytes: file.bytes,
            modified_nanos: 1,
            fingerprint: String::new(),
            is_settled: true,
            state: SourceState::Restored,
            version: None,
            wants_reply: false,
            awaits_receipt: true,
            is_gone: false,
        }
    }

    fn made(content: &[u8]) -> JournalEntry {
        JournalEntry {
            version: None,
            hash: Digest::of(content),
            bytes: content.len() as u64,
            state: EntryState::Visible,
            fingerprint: None,
            replaces: None,
            written_millis: 1,
            original: None,
        }
    }

    #[test]
    fn what_was_made_visible_is_a_file_or_its_normal_form() {
        let name = FileName::parse("a.csv").expect("a valid name");
        let entry = FileEntry {
            name: name.clone(),
            size: 4,
            modified: SystemTime::UNIX_EPOCH,
            fingerprint: "f".into(),
            changed: None,
        };
        let record = record(&entry, b"ours");
        let normal = |original: Option<&[u8]>| JournalEntry {
            original: original.map(Digest::of),
            ..made(b"normal")
        };
        let begun = JournalEntry {
            state: EntryState::Intent,
            ..made(b"ours")
        };
        use CodecFormat::{Hybrid, Seed};
        for (made, format, is_of) in [
            (made(b"ours"), Hybrid, true),
            (made(b"older"), Hybrid, false),
            (begun, Hybrid, false),
            (normal(Some(b"ours")), Seed, true),
            (normal(Some(b"older")), Seed, false),
            (normal(None), Seed, true),
        ] {
            assert_eq!(is_made_of(&made, &name, &record, format), is_of, "{made:?}");
        }
    }

    fn data_folder() -> (tempfile::TempDir, SqliteJournal) {
        let folder = tempfile::tempdir().expect("a folder");
        let local = Local::open(&folder.path().join("data"), LocalOptions::default());
        let journal = SqliteJournal::open(&local.expect("opens")).expect("opens");
        (folder, journal)
    }

    #[tokio::test]
    async fn a_copy_that_cannot_be_read_is_neither_the_same_nor_changed() {
        let (folder, journal) = data_folder();
        let out = folder.path().join("out");
        let files = LocalFiles::open("file:///out", &out).expect("opens");
        std::fs::write(out.join("a.csv"), "ours").expect("written");
        let listed = files.list().expect("listed").files;
        let files = TappedFiles::new(Arc::new(files), DeniedReads);
        let own = DatabaseJournal::new(journal.clone(), folder.path(), files.location());
        let destination = Destination::new(files, Arc::new(own));
        let loaded = RestoredCopies::load(destination, &journal, CodecFormat::Hybrid).await;
        let present = listed
            .into_iter()
            .map(|entry| (record(&entry, b"ours"), entry))
            .collect();
        let stop = CancellationToken::new();
        let mut restored = loaded.expect("loaded");
        let found = restored.differing(present, |_| {}, &stop).await;
        let found = found.expect("compared");
        assert!(found.altered.is_empty() && found.elsewhere.is_empty());
        let [(name, reason)] = &found.unreadable[..] else {
            panic!("{found:?}");
        };
        assert!(
            name == "a.csv" && reason.contains("permission denied"),
            "{reason}"
        );
    }

    #[tokio::test]
    async fn a_file_is_read_once_for_each_fingerprint_that_proves_its_content() {
        let (folder, journal) = data_folder();
        let out = folder.path().join("out");
        let files = LocalFiles::open("file:///out", &out).expect("opens");
        let reads = Arc::new(AtomicU32::new(0));
        let tapped = TappedFiles::new(Arc::new(files), CountedReads(reads.clone()));
        let name = FileName::parse("a.csv").expect("a valid name");
        let own = DatabaseJournal::new(journal.clone(), folder.path(), tapped.location());
        let destination = Destination::new(tapped, Arc::new(own));
        let ours = made(b"ours");
        let stored = destination.journal().store(&name, &ours, None);
        stored.await.expect("stored");
        let altered = async |fingerprint: &str, age: u64, content: &[u8]| {
            std::fs::write(out.join("a.csv"), content).expect("written");
            let entry = FileEntry {
                name: name.clone(),
                size: content.len() as u64,
                modified: SystemTime::UNIX_EPOCH,
                fingerprint: fingerprint.to_owned(),
                changed: runtime::now().checked_sub(Duration::from_secs(age)),
            };
            let loaded =
                RestoredCopies::load(destination.clone(), &journal, CodecFormat::Hybrid).await;
            let restored_before = record(&entry, b"ours");
            let stop = CancellationToken::new();
            let mut restored = loaded.expect("loaded");
            let found = restored.differing(vec![(restored_before, entry)], |_| {}, &stop);
            let found = found.await.expect("compared");
            assert!(found.elsewhere.is_empty());
            let is_altered = !found.altered.is_empty();
            (is_altered, reads.swap(0, Relaxed))
        };
        assert_eq!(altered("one", 10, b"ours").await, (false, 1));
        assert_eq!(altered("one", 10, b"ours").await, (false, 0));
        assert_eq!(altered("two", 10, b"them").await, (true, 1));
        assert_eq!(altered("two", 10, b"them").await, (true, 0));
        // Another write in the same tick of the clock leaves the fingerprint as it is.
        assert_eq!(altered("three", 1, b"ours").await, (false, 1));
        assert_eq!(altered("three", 1, b"them").await, (true, 1));
        // The size alone tells.
        assert_eq!(altered("four", 10, b"longer").await, (true, 0));
    }
}
