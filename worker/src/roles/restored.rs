//! Whether restored files still have the bytes that they were made with, for a run that finds them done.
//!
//! A fingerprint that was taken with the content, and that every later write changes, stands for the content: inode and
//! change time of a local file, the tag of an object. A file with another fingerprint (changed, touched, copied with its
//! folder) is read once, and its new fingerprint is kept in the journal. Size and modification time alone prove nothing:
//! `rsync -t` and editors keep them.

use std::collections::HashMap;
use std::time::SystemTime;

use anyhow::Result;
use streampress_crds::api::pipeline::CodecFormat;
use streampress_transport::FileEntry;
use tokio_util::sync::CancellationToken;

use crate::destination::{Destination, JournalEntry};
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

/// What is known of a file without reading it.
enum CopyState {
    Same,
    Other,
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
        let checked = journal.checked_files().await?.into_iter();
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

    /// Those of the files whose bytes are others than they were made with. `notice` is told where many are to be read. Stops
    /// early on shutdown.
    pub(crate) async fn altered(
        &mut self,
        files: Vec<(SourceRecord, FileEntry)>,
        notice: impl Fn(&str),
        stop: &CancellationToken,
    ) -> Result<Vec<SourceRecord>> {
        let (mut altered, mut unread) = (Vec::new(), Vec::new());
        for (record, entry) in files {
            match self.known(&record, &entry).await? {
                CopyState::Same => {}
                CopyState::Other => altered.push(record),
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
            if !self.is_same(&record, &entry, made.as_ref()).await? {
                altered.push(record);
            }
        }
        self.store_news(1).await?;
        Ok(altered)
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
        let made = match &self.made {
            Some(made) => made.get(entry.name.as_str()).cloned(),
            None => {
                let stored = self.destination.journal().load(&entry.name).await?;
                stored.map(|stored| stored.entry)
            }
        };
        if !is_hybrid && made.is_none() {
            return Ok(CopyState::Same);
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
            CodecFormat::Hybrid => {
                let file = FileRef {
                    location: record.location.clone(),
                    name: entry.name.clone(),
                    bytes: entry.size,
                    hash: hash.clone(),
                    modified_nanos: record.modified_nanos,
                };
                file.id().as_str() == record.file_id
            }
            CodecFormat::Seed => made.is_none_or(|made| made == hash),
        };
        match is_same {
            true => CopyState::Same,
            false => CopyState::Other,
        }
    }

    async fn is_same(
        &mut self,
        record: &SourceRecord,
        entry: &FileEntry,
        made: Option<&Digest>,
    ) -> Result<bool> {
        let (files, name) = (self.destination.files().clone(), entry.name.clone());
        let Ok((hash, _)) = blocking(move || hash(files.read(&name)?)).await else {
            return Ok(false);
        };
        self.note(entry, &hash).await?;
        Ok(matches!(
            self.compare(record, entry, &hash, made),
            CopyState::Same
        ))
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
            self.journal.record_checked(news).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use std::time::Duration;

    use streampress_transport::contract_tests::{FilesTap, TappedFiles};
    use streampress_transport::local::files::LocalFiles;
    use streampress_transport::local::{Local, LocalOptions};
    use streampress_transport::{FileName, Files};

    use super::*;
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

    #[tokio::test]
    async fn a_file_is_read_once_for_each_fingerprint_that_proves_its_content() {
        let folder = tempfile::tempdir().expect("a folder");
        let local = Local::open(&folder.path().join("data"), LocalOptions::default());
        let journal = SqliteJournal::open(&local.expect("opens")).expect("opens");
        let out = folder.path().join("out");
        let files = LocalFiles::open("file:///out", &out).expect("opens");
        let reads = Arc::new(AtomicU32::new(0));
        let tapped = TappedFiles::new(Arc::new(files), CountedReads(reads.clone()));
        let destination = Destination::with_own_journal(tapped, Some(&out));
        let altered = async |fingerprint: &str, age: u64, content: &[u8]| {
            std::fs::write(out.join("a.csv"), content).expect("written");
            let entry = FileEntry {
                name: FileName::parse("a.csv").expect("a valid name"),
                size: content.len() as u64,
                modified: SystemTime::UNIX_EPOCH,
                fingerprint: fingerprint.to_owned(),
                changed: runtime::now().checked_sub(Duration::from_secs(age)),
            };
            let loaded =
                RestoredCopies::load(destination.clone(), &journal, CodecFormat::Hybrid).await;
            let made = record(&entry, b"ours");
            let stop = CancellationToken::new();
            let mut restored = loaded.expect("loaded");
            let found = restored.altered(vec![(made, entry)], |_| {}, &stop);
            let is_altered = !found.await.expect("compared").is_empty();
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
