//! Announces the files at the source: once for the user's own files, or repeatedly for files that arrive.
//!
//! What was announced of each name is in the journal, so a file that did not change is neither announced nor read again,
//! whichever process announced it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::journal::{SourceRecord, SourceState};
use crate::roles::announce::{Announcer, ReadSource};
use crate::roles::outage_report::{Activity, OutageReport};
use crate::roles::source::{LIKE_RENAMED, SourceFilter, is_no_plain_file, is_users_own};
use crate::roles::source_links::SourceLinks;
use crate::runtime::{self, blocking};
use crate::telemetry::metrics::Meter;
use streampress_transport::{FileEntry, FileName, Listing};

/// Files are announced in batches of at most this many.
const BATCH_FILES: usize = 64;
/// And of about this many bytes, so that a compressor has work while the next batch is read.
const BATCH_BYTES: u64 = 8 << 20;

/// The result of one scan.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ScanResult {
    /// Files announced now.
    pub(crate) announced: u64,
    /// Files that were announced before and have not changed.
    pub(crate) known: u64,
    /// Files that the filter does not take.
    pub(crate) not_taken: Vec<FileName>,
    /// Data folders of Streampress below the source, which are not read.
    pub(crate) data_folders: Vec<String>,
    /// Where no file is known: how many were, and were discarded.
    pub(crate) discarded: u64,
}

impl ScanResult {
    /// One of the files that are not taken, with the reason.
    pub(crate) fn example_of_not_taken(&self) -> Option<String> {
        let has_ending = |name: &&FileName| {
            let (_, base) = name
                .as_str()
                .rsplit_once('/')
                .unwrap_or(("", name.as_str()));
            base.trim_start_matches('.').contains('.')
        };
        let with_ending = self.not_taken.iter().find(has_ending);
        Some(match with_ending {
            Some(name) => {
                format!("for example {name}; source.formats says which kinds are taken")
            }
            None => format!(
                "for example {}, whose name has no ending",
                self.not_taken.first()?
            ),
        })
    }
}

/// Files that cannot be taken, each with the reason. Shared with the process that counts them.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeftOutFiles(Arc<Mutex<BTreeMap<String, String>>>);

impl LeftOutFiles {
    /// Name and reason of each, by name.
    pub(crate) fn all(&self) -> Vec<(String, String)> {
        let files = self.0.lock();
        files
            .iter()
            .map(|(name, reason)| (name.clone(), reason.clone()))
            .collect()
    }

    /// Adds a file; the log says each reason once.
    pub(crate) fn add(&self, name: &str, reason: &str) {
        let before = self.0.lock().insert(name.to_owned(), reason.to_owned());
        if before.as_deref() != Some(reason) {
            warn!(file_name = name, reason, "Left out.");
        }
    }

    /// The file can be taken, or was.
    fn remove(&self, name: &str) {
        self.0.lock().remove(name);
    }

    fn count(&self) -> u64 {
        self.0.lock().len() as u64
    }

    fn retain(&self, present: &PresentNames) {
        self.0.lock().retain(|name, _| present.has(name));
    }
}

/// Scans the source.
pub(crate) struct Scanner {
    /// How files are announced, and where they are.
    pub(crate) announcer: Announcer,
    /// Which of the files are taken.
    pub(crate) filter: SourceFilter,
    /// The links that are left out; none where they are taken as files.
    pub(crate) links: Option<SourceLinks>,
    /// How long a file must hold still before a repeated scan takes it.
    pub(crate) settle: Duration,
    /// Whether packed files are renamed or deleted.
    pub(crate) renames_or_deletes: bool,
    /// What cannot be taken.
    pub(crate) left_out: LeftOutFiles,
    /// Held by this process while it makes a file and announces it: a listing has no such file.
    pub(crate) making: Arc<tokio::sync::Mutex<()>>,
    /// How many files the last repeated scan did not take, because they had not held still for long enough.
    pub(crate) waiting: Arc<AtomicU64>,
    /// Told that the scan goes on.
    pub(crate) meter: Meter,
}

/// What a scan knows of each name.
type Known = BTreeMap<String, SourceRecord>;

/// What a repeated scan keeps from one time to the next.
#[derive(Default)]
struct ScanMemory {
    known: Option<Known>,
    /// Files that may be announced once they hold still.
    still: BTreeMap<String, Stillness>,
    /// Files that the filter does not take.
    skipped: BTreeSet<String>,
    /// Announcements that other processes had recorded and not sent when the last scan saw them, by name.
    unsent: BTreeMap<String, String>,
}

/// The names that a scan found at the source, and what it could not look into.
#[derive(Default)]
struct PresentNames {
    found: BTreeSet<String>,
    /// Of what is below them nothing is known: it counts as present. A folder that cannot be listed for a moment still has its
    /// files.
    left_out: BTreeSet<String>,
}

impl PresentNames {
    fn has(&self, name: &str) -> bool {
        let mut folders = name.match_indices('/').map(|(end, _)| &name[..end]);
        self.found.contains(name)
            || self.left_out.contains(name)
            || folders.any(|folder| self.left_out.contains(folder))
    }
}

/// Since when a file that is to be announced has had its fingerprint.
struct Stillness {
    fingerprint: String,
    since: Instant,
}

impl Scanner {
    /// Announces every file that is new or changed. Stops early on shutdown.
    pub(crate) async fn once(&self, shutdown: &CancellationToken) -> Result<ScanResult> {
        let mut known = self.load().await?;
        let mut result = ScanResult::default();
        let listing = self.list().await?;
        self.leave_out(&listing).await?;
        result.data_folders = listing.data_folders;
        let mut batch = Batch::default();
        for entry in listing.files {
            if shutdown.is_cancelled() {
                break;
            }
            if !self.filter.takes(&entry.name) {
                self.leave_out_like_renamed(&entry).await?;
                if !self.filter.takes_kind(entry.name.as_str()) {
                    result.not_taken.push(entry.name);
                }
                continue;
            }
            match self.new_content(&entry, &mut known).await? {
                Some(read) => {
                    result.announced += 1;
                    batch.add(read);
                }
                None => result.known += 1,
            }
            if batch.is_full() {
                self.announce(&mut batch, &mut known).await?;
            }
        }
        self.announce(&mut batch, &mut known).await?;
        Ok(result)
    }

    /// Scans every `interval`. Errors are logged and retried, and outages reported where there is a slot to report them in.
    pub(crate) async fn run(
        &self,
        interval: Duration,
        report: Option<&OutageReport<'_>>,
        shutdown: &CancellationToken,
    ) {
        let mut memory = ScanMemory::default();
        while !shutdown.is_cancelled() {
            self.meter.ticked();
            match self.scan(&mut memory, shutdown).await {
                Ok(()) => {
                    if let Some(report) = report {
                        report.succeeded(Activity::Scanning);
                        report.left_out(self.left_out.count());
                    }
                }
                Err(error) => {
                    warn!(
                        error = format!("{error:#}"),
                        "Could not scan the source; retrying."
                    );
                    // What was recorded and not sent is sent when it is loaded.
                    memory.known = None;
                    if let Some(report) = report {
                        report.failed(Activity::Scanning, &self.announcer).await;
                    }
                }
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(interval) => {}
            }
        }
    }

    async fn scan(&self, memory: &mut ScanMemory, shutdown: &CancellationToken) -> Result<()> {
        let ScanMemory {
            known,
            still,
            skipped,
            unsent,
        } = memory;
        let known = match known {
            Some(known) => known,
            None => known.insert(self.load().await?),
        };
        self.take_in(known, unsent).await?;
        let listing = self.list().await?;
        let mut present = PresentNames {
            left_out: self.leave_out(&listing).await?,
            ..PresentNames::default()
        };
        let (mut batch, mut waiting) = (Batch::default(), 0);
        for entry in listing.files {
            if shutdown.is_cancelled() {
                break;
            }
            let name = entry.name.as_str().to_owned();
            if !self.filter.takes(&entry.name) {
                if !skipped.contains(&name) {
                    self.leave_out_like_renamed(&entry).await?;
                    skipped.insert(name.clone());
                }
                present.found.insert(name);
                continue;
            }
            let is_new = !is_known(&entry, known.get(&name));
            if !is_new {
                self.left_out.remove(&name);
            }
            let is_still = is_new && self.holds_still(&entry, still);
            waiting += u64::from(is_new && !is_still);
            if is_still {
                if let Some(read) = self.new_content(&entry, known).await? {
                    batch.add(read);
                }
                if batch.is_full() {
                    self.announce(&mut batch, known).await?;
                }
            }
            present.found.insert(name);
        }
        self.announce(&mut batch, known).await?;
        // A scan that was stopped has not seen all that is present.
        if !shutdown.is_cancelled() {
            self.waiting.store(waiting, Relaxed);
            self.note_gone(&present, known).await?;
        }
        self.announcer.journal.flush_sources().await?;
        still.retain(|name, _| present.has(name));
        skipped.retain(|name| present.has(name));
        self.left_out.retain(&present);
        self.meter.left_out(self.left_out.count());
        Ok(())
    }

    /// Takes in what other processes recorded. What one of them recorded and has not sent by the next scan is sent here: that
    /// process may have ended.
    async fn take_in(
        &self,
        known: &mut Known,
        unsent: &mut BTreeMap<String, String>,
    ) -> Result<()> {
        let changed = self.announcer.journal.take_in().await?;
        known.extend(changed.iter().map(|it| (it.name.clone(), it.clone())));
        let is_unsent = |(name, announcement): (String, String)| {
            let record = known.get(&name)?;
            let is_newest = record.announcement == announcement;
            (is_newest && record.state == SourceState::Writing).then(|| record.clone())
        };
        let late = std::mem::take(unsent);
        let late: Vec<_> = late.into_iter().filter_map(is_unsent).collect();
        for batch in late.chunks(BATCH_FILES) {
            self.announcer.send_recorded(batch).await?;
        }
        for record in late {
            if let Some(record) = known.get_mut(&record.name) {
                record.state = SourceState::Sent;
            }
        }
        let new = changed.into_iter();
        unsent.extend(
            new.filter(|record| record.state == SourceState::Writing)
                .map(|record| (record.name, record.announcement)),
        );
        Ok(())
    }

    /// A name whose file is gone is free: the same content that comes later is a new file.
    async fn note_gone(&self, present: &PresentNames, known: &mut Known) -> Result<()> {
        let journal = &self.announcer.journal;
        if self.renames_or_deletes {
            let gone = known.extract_if(.., |name, _| !present.has(name));
            let gone: Vec<_> = gone.map(|(_, record)| record).collect();
            return Ok(journal.forget_sources(&gone).await?);
        }
        // The fingerprints stay: a location that was not mounted for a while holds the same files afterwards.
        let mut gone = Vec::new();
        for (name, record) in known {
            if !present.has(name) && !record.hash.is_empty() {
                record.hash.clear();
                gone.push(record.clone());
            }
        }
        if !gone.is_empty() {
            journal.record_sources(&gone).await?;
        }
        Ok(())
    }

    /// What the journal knows, after sending what an ended process had recorded and may not have sent.
    async fn load(&self) -> Result<Known> {
        let location = self.announcer.source.location();
        let journal = &self.announcer.journal;
        journal.take_in().await?;
        let records = journal.sources(location).await;
        let mut records = records.context("reading the journal of the source")?;
        let unsent: Vec<_> = records
            .iter()
            .filter(|record| record.state == SourceState::Writing)
            .cloned()
            .collect();
        for batch in unsent.chunks(BATCH_FILES) {
            self.announcer.send_recorded(batch).await?;
        }
        for record in &mut records {
            if record.state == SourceState::Writing {
                record.state = SourceState::Sent;
            }
        }
        let by_name = records
            .into_iter()
            .map(|record| (record.name.clone(), record));
        Ok(by_name.collect())
    }

    async fn list(&self) -> Result<Listing> {
        let (source, links) = (self.announcer.source.clone(), self.links.clone());
        let filter = self.filter.clone();
        let list = move || -> io::Result<Listing> {
            let mut listing = source.list()?;
            if let Some(links) = links {
                links.leave_out(&mut listing, &filter);
            }
            Ok(listing)
        };
        let _no_file_is_being_made = self.making.lock().await;
        blocking(list)
            .await
            .with_context(|| format!("listing {}", self.announcer.source.location()))
    }

    /// Names what the listing left out, of files only those that the filter takes; answers those names.
    async fn leave_out(&self, listing: &Listing) -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for left_out in &listing.left_out {
            if left_out.is_folder || self.filter.takes_kind(&left_out.name) {
                if !self.took_target(&left_out.name).await? {
                    self.left_out.add(&left_out.name, &left_out.reason);
                }
                names.insert(left_out.name.clone());
            }
        }
        Ok(names)
    }

    /// Whether it is a link to nothing whose target this pipeline renamed or deleted: the content was taken under the target's
    /// name.
    async fn took_target(&self, name: &str) -> Result<bool> {
        let Some(links) = self.links.clone() else {
            return Ok(false);
        };
        let link = name.to_owned();
        match blocking(move || links.missing_target(&link)).await {
            Some(target) => Ok(self.announcer.newest(&target).await?.is_some()),
            None => Ok(false),
        }
    }

    /// Names a file that is not taken only because it has the name of a renamed source, and is none.
    async fn leave_out_like_renamed(&self, entry: &FileEntry) -> Result<()> {
        let like_renamed = self.filter.takes_kind(entry.name.as_str())
            && self.filter.has_renamed_form(&entry.name);
        if !like_renamed || !is_users_own(&self.announcer, entry).await? {
            return Ok(());
        }
        self.left_out.add(entry.name.as_str(), LIKE_RENAMED);
        Ok(())
    }

    /// Whether the file has not changed for the settle time, as far as this scanner or the file's own times tell.
    fn holds_still(&self, entry: &FileEntry, still: &mut BTreeMap<String, Stillness>) -> bool {
        // An object appears as a whole.
        let Some(changed) = entry.changed else {
            return true;
        };
        let age = runtime::now().duration_since(changed);
        if age.is_ok_and(|age| age >= self.settle) {
            return true;
        }
        let since = still.entry(entry.name.as_str().to_owned());
        let seen = since.or_insert_with(|| Stillness {
            fingerprint: entry.fingerprint.clone(),
            since: Instant::now(),
        });
        if seen.fingerprint != entry.fingerprint {
            *seen = Stillness {
                fingerprint: entry.fingerprint.clone(),
                since: Instant::now(),
            };
        }
        seen.since.elapsed() >= self.settle
    }

    /// Announces these names' files as they are now, although the journal knows them; answers the names that are not at the
    /// source or cannot be read.
    pub(crate) async fn announce_names(&self, names: &[String]) -> Result<BTreeSet<String>> {
        let mut missing = BTreeSet::new();
        let mut batch = Batch::default();
        for name in names {
            match self.read_name(name).await? {
                Some(read) => batch.add(read),
                None => {
                    missing.insert(name.clone());
                }
            }
            if batch.is_full() {
                self.announce(&mut batch, &mut Known::new()).await?;
            }
        }
        self.announce(&mut batch, &mut Known::new()).await?;
        Ok(missing)
    }

    async fn read_name(&self, name: &str) -> Result<Option<ReadSource>> {
        let Ok(name) = FileName::parse(name) else {
            return Ok(None);
        };
        if let Some(reason) = self.links.as_ref().and_then(|links| links.refusal(&name)) {
            self.left_out.add(name.as_str(), &reason);
            return Ok(None);
        }
        let (source, wanted) = (self.announcer.source.clone(), name.clone());
        match blocking(move || source.stat(&wanted)).await {
            Ok(Some(entry)) => self.read(&entry).await,
            Ok(None) => Ok(None),
            Err(error) if is_no_plain_file(&error) => Ok(None),
            Err(error) => {
                self.left_out.add(name.as_str(), &error.to_string());
                Ok(None)
            }
        }
    }

    /// Reads a file; `None` where it is gone or cannot be read, which [`Scanner::left_out`] then says.
    async fn read(&self, entry: &FileEntry) -> Result<Option<ReadSource>> {
        match self.announcer.read(entry).await {
            Ok(read) => {
                self.left_out.remove(entry.name.as_str());
                Ok(Some(read))
            }
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => {
                let remedy = match has_too_many_open_files(&error) {
                    true => streampress_transport::TOO_MANY_OPEN_FILES,
                    false => "once it can be read it is taken",
                };
                let reason = format!("{error:#}; {remedy}");
                self.left_out.add(entry.name.as_str(), &reason);
                Ok(None)
            }
        }
    }

    /// Reads the file unless its fingerprint says that it has not changed; `None` where its content was announced already
    /// or it cannot be read.
    async fn new_content(
        &self,
        entry: &FileEntry,
        known: &mut Known,
    ) -> Result<Option<ReadSource>> {
        self.meter.ticked();
        let name = entry.name.as_str();
        if is_known(entry, known.get(name)) {
            return Ok(None);
        }
        let Some(read) = self.read(entry).await? else {
            return Ok(None);
        };
        let journal = &self.announcer.journal;
        let record = loop {
            // Another process may have announced it since this one read the journal.
            let newest = self.announcer.newest(&entry.name).await?;
            let Some(newest) = newest else {
                if !self.was_restored(&read).await? {
                    return Ok(Some(read));
                }
                let record = read.record(String::new());
                let recorded = journal.record_sources(std::slice::from_ref(&record));
                recorded.await?;
                break record;
            };
            // Its receipt did not rename or delete it, since its fingerprint was another by then: the next one does.
            let stays = self.renames_or_deletes && newest.was_restored_as_other(&entry.fingerprint);
            if stays || !newest.is_of(&read.file) {
                return Ok(Some(read));
            }
            let newest = self.announcer.sent(newest).await?;
            let record = SourceRecord {
                state: newest.state,
                version: newest.version,
                wants_reply: newest.wants_reply,
                awaits_receipt: newest.awaits_receipt,
                ..read.record(newest.announcement)
            };
            // A receipt that came meanwhile has judged the file by its earlier fingerprint.
            if journal.record_read_again(&record).await? {
                break record;
            }
        };
        known.insert(name.to_owned(), record);
        Ok(None)
    }

    /// Whether a release that kept no record of sources has restored the file.
    async fn was_restored(&self, read: &ReadSource) -> Result<bool> {
        let (journal, file) = (&self.announcer.journal, &read.file);
        let id = file.id();
        Ok(journal
            .was_restored(file.name.as_str(), id.as_str())
            .await?)
    }

    async fn announce(&self, batch: &mut Batch, known: &mut Known) -> Result<()> {
        let files = std::mem::take(batch).files;
        let announced = self.announcer.announce_all(&files).await?;
        known.extend(announced.into_iter().map(|it| (it.name.clone(), it)));
        Ok(())
    }
}

/// Files that were read and are to be announced.
#[derive(Default)]
struct Batch {
    files: Vec<ReadSource>,
    bytes: u64,
}

impl Batch {
    fn add(&mut self, read: ReadSource) {
        self.bytes += read.file.bytes;
        self.files.push(read);
    }

    fn is_full(&self) -> bool {
        self.files.len() >= BATCH_FILES || self.bytes >= BATCH_BYTES
    }
}

/// Whether the fingerprint proves that the file's content is what was announced last.
fn is_known(entry: &FileEntry, record: Option<&SourceRecord>) -> bool {
    record.is_some_and(|record| record.is_settled && record.fingerprint == entry.fingerprint)
}

/// Whether it is the process that can open no more files, and not this file that cannot be read.
fn has_too_many_open_files(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref());
    causes.any(streampress_transport::has_too_many_open_files)
}

fn is_not_found(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|cause| cause.kind() == io::ErrorKind::NotFound)
    })
}

#[cfg(test)]
impl Scanner {
    /// Takes the files of one format at once, and keeps them.
    pub(crate) fn of_format(
        announcer: Announcer,
        format: streampress_crds::api::pipeline::SourceFormat,
    ) -> Self {
        Self {
            announcer,
            filter: SourceFilter {
                formats: vec![format],
                skips_renamed: false,
            },
            links: None,
            settle: Duration::ZERO,
            renames_or_deletes: false,
            left_out: LeftOutFiles::default(),
            making: Arc::default(),
            waiting: Arc::default(),
            meter: Meter::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use streampress_crds::api::pipeline::SourceFormat;
    use streampress_crds::slot_health::{NeededService, SlotHealth};
    use streampress_transport::SlotLock;
    use streampress_transport::contract_tests::{FilesTap, TappedFiles, eventually};
    use streampress_transport::in_process_lock::InProcessLock;
    use streampress_transport::local::files::LocalFiles;
    use streampress_transport::local::{Local, LocalOptions};
    use streampress_transport::{Files, LeftOut};

    use super::*;
    use crate::journal::{
        NoteJournal, SegmentJournal, SourceJournal, SourceReceipt, SqliteJournal,
    };
    use crate::roles::announce::AnnouncementFormat;

    struct Source {
        root: tempfile::TempDir,
        journal: SqliteJournal,
        scanner: Scanner,
    }

    impl Source {
        fn open() -> Self {
            let root = tempfile::tempdir().expect("a folder");
            let data = root.path().join("data");
            let local = Local::open(&data, LocalOptions::default()).expect("opens");
            let source = LocalFiles::open("file:///data/in", &data.join("in")).expect("opens");
            let journal = SqliteJournal::open(&local).expect("opens");
            let announcer = Announcer {
                source: Arc::new(source),
                files_queue: local.files_queue(),
                strict: false,
                format: AnnouncementFormat::Native,
                journal: Arc::new(journal.clone()),
            };
            let scanner = Scanner {
                settle: Duration::from_secs(10),
                ..Scanner::of_format(announcer, SourceFormat::Txt)
            };
            Self {
                root,
                journal,
                scanner,
            }
        }

        fn write(&self, name: &str, content: &str) -> FileEntry {
            let path = self.root.path().join("data/in").join(name);
            std::fs::write(path, content).expect("written");
            let name = FileName::parse(name).expect("a valid name");
            let entry = self.scanner.announcer.source.stat(&name);
            entry.expect("read").expect("there")
        }

        async fn scan(&self) -> ScanResult {
            let scanned = self.scanner.once(&CancellationToken::new()).await;
            scanned.expect("scanned")
        }

        async fn messages(&self) -> u64 {
            let depth = self.scanner.announcer.files_queue.depth().await;
            depth.expect("known").total()
        }
    }

    #[tokio::test]
    async fn what_was_recorded_and_not_sent_is_sent_once_by_the_next_scan() {
        let source = Source::open();
        let entry = source.write("a.txt", "words");
        let read = source.scanner.announcer.read(&entry).await.expect("read");
        let record = read.record("an-announcement".into());
        let recorded = source.journal.record_announcements(&[record]).await;
        recorded.expect("recorded");
        assert_eq!(source.messages().await, 0);
        for _ in 0..2 {
            let result = source.scan().await;
            assert_eq!((result.announced, result.known), (0, 1));
            assert_eq!(source.messages().await, 1);
        }
    }

    #[tokio::test]
    async fn what_another_process_recorded_and_did_not_send_is_sent_by_the_second_scan() {
        let mut source = Source::open();
        let files = source.scanner.announcer.source.clone();
        source.scanner.settle = Duration::ZERO;
        source.scanner.announcer.journal = Arc::new(SegmentJournal::new(files.clone(), true));
        let mut memory = ScanMemory::default();
        let mut messages_after_scan = async || {
            let stop = CancellationToken::new();
            let scanned = source.scanner.scan(&mut memory, &stop).await;
            scanned.expect("scanned");
            source.messages().await
        };
        assert_eq!(messages_after_scan().await, 0);
        let entry = source.write("a.txt", "words");
        let read = source.scanner.announcer.read(&entry).await.expect("read");
        let mut record = read.record("an-announcement".into());
        record.is_settled = true;
        let notes = NoteJournal::new(files);
        let noted = notes.record_announcements(&[record]).await;
        noted.expect("noted");
        for messages in [0, 1, 1] {
            assert_eq!(messages_after_scan().await, messages);
        }
    }

    #[tokio::test]
    async fn a_restart_announces_nothing_that_was_announced() {
        let mut source = Source::open();
        let files = source.scanner.announcer.source.clone();
        source.scanner.settle = Duration::ZERO;
        source.write("a.txt", "words");
        for _ in 0..3 {
            source.scanner.announcer.journal = Arc::new(SegmentJournal::new(files.clone(), true));
            let mut memory = ScanMemory::default();
            for _ in 0..2 {
                let scanned = source
                    .scanner
                    .scan(&mut memory, &CancellationToken::new())
                    .await;
                scanned.expect("scanned");
            }
        }
        assert_eq!(source.messages().await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_is_missing_is_reported_in_the_slot_until_it_can_be_scanned() {
        let source = Source::open();
        let slot = InProcessLock::new("generator", 1).try_acquire().await;
        let slot = slot.expect("works").expect("free");
        let meter = &source.scanner.meter;
        let report = OutageReport::new(&slot, meter);
        let outage = || slot.health().outage.map(|outage| outage.service);
        let is_down = || meter.counts().outages.get(&NeededService::Source) == Some(&1);
        let (folder, away) = (
            source.root.path().join("data/in"),
            source.root.path().join("away"),
        );
        std::fs::rename(&folder, &away).expect("renamed");
        let stop = CancellationToken::new();
        let interval = Duration::from_secs(1);
        let changed = async {
            while outage() != Some(NeededService::Source) {
                tokio::time::sleep(interval).await;
            }
            assert!(is_down());
            std::fs::rename(&away, &folder).expect("renamed");
            while outage().is_some() {
                tokio::time::sleep(interval).await;
            }
            assert!(!is_down() && slot.health().worked_at > 0);
            stop.cancel();
        };
        tokio::join!(source.scanner.run(interval, Some(&report), &stop), changed);
    }

    #[tokio::test]
    async fn a_service_is_down_until_every_activity_that_it_failed_succeeds() {
        let source = Source::open();
        let announcer = &source.scanner.announcer;
        let slot = InProcessLock::new("generator", 1).try_acquire().await;
        let slot = slot.expect("works").expect("free");
        let meter = &source.scanner.meter;
        let report = OutageReport::new(&slot, meter);
        // A single file's failure is no outage.
        report.failed(Activity::Making, announcer).await;
        assert_eq!(slot.health(), SlotHealth::default());
        std::fs::remove_dir_all(source.root.path().join("data/in")).expect("removed");
        report.failed(Activity::Making, announcer).await;
        report.failed(Activity::Making, announcer).await;
        report.succeeded(Activity::Scanning);
        let outage = slot.health().outage.map(|outage| outage.service);
        assert_eq!(outage, Some(NeededService::Source));
        assert_eq!(meter.counts().outages[&NeededService::Source], 1);
        report.succeeded(Activity::Making);
        assert_eq!(slot.health().outage, None);
        assert_eq!(meter.counts().outages[&NeededService::Source], 0);
    }

    #[tokio::test]
    async fn what_a_scan_left_out_is_in_the_health_of_its_slot_until_a_scan_takes_it() {
        let source = Source::open();
        let folder = source.root.path().join("data/in");
        std::os::unix::fs::symlink("nowhere", folder.join("broken.txt")).expect("a link");
        let slot = InProcessLock::new("generator", 1).try_acquire().await;
        let slot = slot.expect("works").expect("free");
        let report = OutageReport::new(&slot, &source.scanner.meter);
        let (stop, interval) = (CancellationToken::new(), Duration::from_millis(10));
        let changed = async {
            eventually("it is counted", async || slot.health().left_out == 1).await;
            std::fs::remove_file(folder.join("broken.txt")).expect("removed");
            let is_none = async || slot.health() == SlotHealth::default();
            eventually("none is left out", is_none).await;
            stop.cancel();
        };
        tokio::join!(source.scanner.run(interval, Some(&report), &stop), changed);
    }

    /// A folder of the source that cannot be listed while the flag is set.
    #[derive(Debug, Default)]
    struct LockedFolder(Arc<AtomicBool>);

    impl FilesTap for LockedFolder {
        fn list(&self, files: &dyn Files) -> io::Result<Listing> {
            let mut listing = files.list()?;
            if self.0.load(Relaxed) {
                listing
                    .files
                    .retain(|file| !file.name.as_str().starts_with("sub/"));
                listing.left_out.push(LeftOut {
                    name: "sub".into(),
                    reason: "cannot be listed".into(),
                    is_folder: true,
                });
            }
            Ok(listing)
        }
    }

    #[tokio::test]
    async fn files_in_a_folder_that_cannot_be_listed_for_a_while_are_not_announced_again() {
        for renames_or_deletes in [false, true] {
            let mut source = Source::open();
            let is_locked = Arc::new(AtomicBool::new(false));
            let files = source.scanner.announcer.source.clone();
            source.scanner.announcer.source =
                TappedFiles::new(files, LockedFolder(is_locked.clone()));
            source.scanner.settle = Duration::ZERO;
            source.scanner.renames_or_deletes = renames_or_deletes;
            std::fs::create_dir_all(source.root.path().join("data/in/sub")).expect("made");
            for name in ["sub/a.txt", "subject.txt", "gone.txt"] {
                source.write(name, "words");
            }
            let mut memory = ScanMemory::default();
            for locked in [false, true, false] {
                is_locked.store(locked, Relaxed);
                let stop = CancellationToken::new();
                let scanned = source.scanner.scan(&mut memory, &stop).await;
                scanned.expect("scanned");
                assert_eq!(source.messages().await, 3, "{renames_or_deletes} {locked}");
                let left_out = source.scanner.meter.counts().left_out;
                assert_eq!(left_out, u64::from(locked), "{renames_or_deletes} {locked}");
                let gone = source.root.path().join("data/in/gone.txt");
                let _ = std::fs::remove_file(gone);
            }
            // Of one that is gone the content is new again.
            source.write("gone.txt", "words");
            let stop = CancellationToken::new();
            let scanned = source.scanner.scan(&mut memory, &stop).await;
            scanned.expect("scanned");
            assert_eq!(source.messages().await, 4);
        }
    }

    /// A file that cannot be read while the flag is set.
    #[derive(Debug, Default)]
    struct LockedFile(Arc<AtomicBool>);

    impl FilesTap for LockedFile {
        fn read(&self, files: &dyn Files, name: &FileName) -> io::Result<Box<dyn io::Read + Send>> {
            match self.0.load(Relaxed) {
                true => Err(io::ErrorKind::PermissionDenied.into()),
                false => files.read(name),
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_counted_until_it_can() {
        let mut source = Source::open();
        let is_locked = Arc::new(AtomicBool::new(true));
        let files = source.scanner.announcer.source.clone();
        source.scanner.announcer.source = TappedFiles::new(files, LockedFile(is_locked.clone()));
        source.scanner.settle = Duration::ZERO;
        source.write("a.txt", "words");
        let mut memory = ScanMemory::default();
        for (locked, counts) in [(true, (0, 1)), (true, (0, 1)), (false, (1, 0))] {
            is_locked.store(locked, Relaxed);
            let stop = CancellationToken::new();
            let scanned = source.scanner.scan(&mut memory, &stop).await;
            scanned.expect("scanned");
            let left_out = source.scanner.meter.counts().left_out;
            assert_eq!((source.messages().await, left_out), counts, "{locked}");
        }
    }

    #[tokio::test]
    async fn the_newest_content_of_a_name_decides_what_is_known() {
        let source = Source::open();
        for (content, announced) in [("one", 1), ("one", 0), ("two", 1), ("one", 1), ("one", 0)] {
            source.write("a.txt", content);
            assert_eq!(source.scan().await.announced, announced, "{content}");
        }
        assert_eq!(source.messages().await, 3);
    }

    #[tokio::test]
    async fn a_file_that_is_touched_while_it_is_under_way_is_announced_again_where_its_receipt_left_it()
     {
        for in_one_folder in [true, false] {
            let mut source = Source::open();
            source.scanner.renames_or_deletes = true;
            let files = source.scanner.announcer.source.clone();
            if !in_one_folder {
                source.scanner.announcer.journal =
                    Arc::new(SegmentJournal::new(files.clone(), true));
            }
            let journal = source.scanner.announcer.journal.clone();
            let entry = source.write("a.txt", "words");
            assert_eq!(source.scan().await.announced, 1);
            let sent = journal.source(files.location(), "a.txt").await;
            let sent = sent.expect("read").expect("announced");
            // Only the time is another.
            source.write("a.txt", "words");
            let touched = files.stat(&entry.name).expect("read").expect("there");
            assert_ne!(touched.fingerprint, sent.fingerprint);
            let receipt = SourceReceipt {
                location: sent.location.clone(),
                name: sent.name.clone(),
                file_id: sent.file_id.clone(),
                announcement: sent.announcement.clone(),
                state: SourceState::Restored,
                fingerprint: Some(sent.fingerprint.clone()),
            };
            if in_one_folder {
                // The receipt judges the file by what the journal knows of it, just before the scan records what it read.
                journal.record_receipt(&receipt).await.expect("kept");
                let read_again = SourceRecord {
                    fingerprint: touched.fingerprint.clone(),
                    ..sent
                };
                let recorded = journal.record_read_again(&read_again).await;
                assert!(!recorded.expect("refused"));
            } else {
                // The receipt judges it by what the announcement says, and the scan learns of it later.
                let result = source.scan().await;
                assert_eq!((result.announced, result.known), (0, 1));
                let notes = NoteJournal::new(files.clone());
                notes.record_receipt(&receipt).await.expect("kept");
                notes.flush_sources().await.expect("written");
            }
            assert_eq!(source.scan().await.announced, 1, "{in_one_folder}");
            assert_eq!(source.scan().await.known, 1, "{in_one_folder}");
            assert_eq!(source.messages().await, 2, "{in_one_folder}");
        }
    }

    #[tokio::test]
    async fn other_content_of_the_same_size_and_time_is_announced() {
        let source = Source::open();
        let first = source.write("a.txt", "one");
        source.scan().await;
        let path = source.root.path().join("data/in/a.txt");
        let file = std::fs::File::options().write(true).open(path);
        let mut file = file.expect("opened");
        std::io::Write::write_all(&mut file, b"two").expect("written");
        file.set_modified(first.modified).expect("set");
        assert_eq!(source.scan().await.announced, 1);
    }

    #[tokio::test]
    async fn an_untouched_file_is_not_read_again() {
        let source = Source::open();
        let entry = source.write("a.txt", "words");
        source.scan().await;
        // As if the file had been old when it was read.
        let location = source.scanner.announcer.source.location();
        let mut records = source.journal.sources(location).await.expect("read");
        records[0].is_settled = true;
        let written = source.journal.record_sources(&records).await;
        written.expect("written");
        let mut known: Known = [("a.txt".to_owned(), records.remove(0))].into();
        let path = source.root.path().join("data/in/a.txt");
        std::fs::remove_file(path).expect("removed");
        // A read of it would fail now.
        let new = source.scanner.new_content(&entry, &mut known).await;
        assert!(new.expect("known").is_none());
        assert!(source.scanner.left_out.all().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_grows_is_not_taken_until_it_holds_still() {
        let source = Source::open();
        let mut still = BTreeMap::new();
        let entry = source.write("a.txt", "half");
        let scanner = &source.scanner;
        assert!(!scanner.holds_still(&entry, &mut still));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(!scanner.holds_still(&entry, &mut still));
        let entry = source.write("a.txt", "half and more");
        assert!(!scanner.holds_still(&entry, &mut still));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(!scanner.holds_still(&entry, &mut still));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(scanner.holds_still(&entry, &mut still));
    }
}
