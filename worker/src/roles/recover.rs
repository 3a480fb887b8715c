//! Makes manifests anew from the stream alone, where the queues are lost: the first record of a file describes it, the last
//! says that it is the last. Of each name the newest version goes to the chunks queue, with the version that it had, so that
//! it replaces nothing that is newer.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::Arc;

use anyhow::{Context, Result};
use futures::TryStreamExt;
use streampress_transport::{
    ChunkStream, FileName, FileVersion, Files, Outgoing, Position, Queue, ScannedRecord,
};

use crate::destination::is_folder;
use crate::journal::{FileJournal, JournalFile, RECOVERED, SourceRecord, SourceState};
use crate::message::record::{FoundRecord, RecordOwner};
use crate::message::trace_context::TraceContext;
use crate::message::{
    BundlePlace, DESCRIBED_VERSION, DescribedContent, DescribedFile, Digest, FileRef, Manifest,
    hash,
};
use crate::roles::announce::{self, ReadSource};
use crate::roles::bundler::share;
use crate::roles::record_writer::RecordWriter;
use crate::roles::redrive::passing;
use crate::runtime::{self, blocking};

/// Manifests that are sent at once.
const BATCH: usize = 100;
/// Missing records that are named.
const MOST_NAMED: usize = 3;

/// What recovers the files of a pipeline.
#[derive(Debug)]
pub struct Recovery {
    /// Where the records are.
    pub stream: Arc<dyn ChunkStream>,
    /// Where manifests go.
    pub chunks_queue: Arc<dyn Queue>,
    /// Whether all files go one after another.
    pub strict: bool,
    /// May know that a file was restored.
    pub journal: Arc<dyn FileJournal>,
    /// Largest record with its header, in bytes.
    pub record_bytes: usize,
    /// The destination, where it can be read from here.
    pub destination: Option<Arc<dyn Files>>,
    /// Whether files that were restored and are not at the destination any more are sent, too.
    pub with_gone: bool,
    /// Whether nothing is sent.
    pub list_only: bool,
}

/// A file of the stream and what was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredFile {
    /// Its name.
    pub name: String,
    /// Its newest version.
    pub version: FileVersion,
    /// With how many others it was packed into a bundle.
    pub others: u32,
    /// What was done with that version.
    pub outcome: RecoveryOutcome,
}

/// What was done with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoveryOutcome {
    /// Its manifest was sent to the chunks queue, unless it is only listed.
    Sent,
    /// Nothing: it was restored.
    Restored,
    /// Nothing: it was restored, and no file of its name is at the destination any more.
    RestoredAndGone,
    /// Nothing, for this cause.
    NotSent(String),
    /// Its newest version cannot be had from the stream, for this cause.
    Incomplete {
        /// What is missing.
        cause: String,
        /// Whether the manifest of a version before was sent.
        sent_earlier: bool,
    },
}

/// What was found in the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Each name once, by location and name.
    pub files: Vec<RecoveredFile>,
    /// Files and bundles whose first record is not in the stream any more.
    pub without_first: usize,
    /// Files and bundles whose records an earlier release wrote, which do not describe them.
    pub undescribed: usize,
    /// Records of the original's format, which do not say which file they hold.
    pub of_original: usize,
    /// Stretches of the stream that are damaged: what they held is not known.
    pub damaged: Vec<Position>,
}

impl RecoveryReport {
    /// Whether something in the stream could not be recovered.
    pub fn is_partial(&self) -> bool {
        let is_incomplete = |file: &RecoveredFile| match file.outcome {
            RecoveryOutcome::Incomplete { .. } | RecoveryOutcome::NotSent(_) => true,
            RecoveryOutcome::Sent
            | RecoveryOutcome::Restored
            | RecoveryOutcome::RestoredAndGone => false,
        };
        self.without_first + self.undescribed + self.of_original + self.damaged.len() > 0
            || self.files.iter().any(is_incomplete)
    }
}

impl Recovery {
    /// Reads the whole stream and sends the manifests of its files.
    pub async fn run(&self) -> Result<RecoveryReport> {
        if let Some(destination) = self.destination.clone().filter(|_| self.with_gone) {
            // Where all of it is away, that is said once.
            let looked = blocking(move || destination.sample(1)).await;
            looked.context("looking which restored files are gone")?;
        }
        let mut found = FoundPackings::default();
        let mut pages = self.stream.scan();
        while let Some(page) = pages.try_next().await.context("reading the stream")? {
            page.into_iter().for_each(|record| found.add(record));
        }
        let mut report = RecoveryReport {
            undescribed: found.undescribed(),
            of_original: found.of_original,
            damaged: std::mem::take(&mut found.damaged),
            ..RecoveryReport::default()
        };
        let mut names = BTreeMap::<_, Vec<FoundVersion>>::new();
        for packing in found.packings.into_values() {
            match packing.content {
                None => report.without_first += 1,
                Some(_) => {
                    for version in packing.versions() {
                        let (file, queue) = (&version.described.file, &version.described.version);
                        let queue = queue.queue().to_owned();
                        let key = (file.location.clone(), file.name.to_string(), queue);
                        names.entry(key).or_default().push(version);
                    }
                }
            }
        }
        // What is unknown may be the newest version of any file.
        let is_doubtful = report.without_first + report.damaged.len() > 0;
        let mut to_send = Vec::new();
        for ((_, name, _), versions) in names {
            let Some(newest) = versions.iter().max_by(|a, b| a.order(b)).cloned() else {
                continue;
            };
            let (outcome, sent) = self.choose(&newest, versions, is_doubtful).await?;
            to_send.extend(sent);
            let bundle = newest.place.as_ref();
            report.files.push(RecoveredFile {
                name,
                others: bundle.map_or(0, |place| place.files.saturating_sub(1)),
                version: newest.described.version,
                outcome,
            });
        }
        if !self.list_only && !to_send.is_empty() {
            let now = runtime::now_millis().to_string();
            self.journal.set(RECOVERED, &now).await?;
            self.send(to_send).await?;
        }
        Ok(report)
    }

    /// What to do for a name whose newest version is this, and the version to send. Where it is doubtful whether there was a
    /// newer one, what lies at the destination stays.
    async fn choose(
        &self,
        newest: &FoundVersion,
        versions: Vec<FoundVersion>,
        is_doubtful: bool,
    ) -> Result<(RecoveryOutcome, Option<FoundVersion>)> {
        let whole = versions.into_iter().filter(|it| it.records.is_ok());
        let whole = whole.max_by(FoundVersion::order);
        // Several attempts may have packed the newest.
        let is_whole = whole.as_ref().is_some_and(|it| it.order(newest).is_eq());
        if self.was_restored(newest).await? {
            match self.is_gone(&newest.described.file).await {
                Ok(true) if self.with_gone => {}
                Ok(true) => return Ok((RecoveryOutcome::RestoredAndGone, None)),
                // Something else than a file may lie there: it stops no other file.
                Err(error) if self.with_gone => {
                    let cause = format!("{error:#}; make the name free, then the same again");
                    return Ok((RecoveryOutcome::NotSent(cause), None));
                }
                Ok(false) | Err(_) => return Ok((RecoveryOutcome::Restored, None)),
            }
        }
        let there = match is_doubtful || !is_whole {
            true => self.at_destination(&newest.described.file).await?,
            false => None,
        };
        if there.as_ref() == Some(&newest.described.file.hash) {
            return Ok((RecoveryOutcome::Restored, None));
        }
        if is_doubtful && there.is_some() {
            let cause = "the stream is damaged, and the file at the destination, which may be a later version, stays";
            let outcome = RecoveryOutcome::Incomplete {
                cause: cause.to_owned(),
                sent_earlier: false,
            };
            return Ok((outcome, None));
        }
        let outcome = match &newest.records {
            Err(cause) if !is_whole => RecoveryOutcome::Incomplete {
                cause: cause.clone(),
                sent_earlier: whole.is_some(),
            },
            Ok(_) | Err(_) => RecoveryOutcome::Sent,
        };
        Ok((outcome, whole))
    }

    /// Whether the journal knows that the version was restored. One that was put back to an earlier state may know the same
    /// content from an announcement before, after which others came.
    async fn was_restored(&self, version: &FoundVersion) -> Result<bool> {
        let DescribedFile { file, version, .. } = &version.described;
        let (name, id) = (file.name.as_str(), file.id());
        let noted = self.journal.source(&file.location, name).await?;
        let newest_known = noted.as_ref().and_then(|noted| noted.version.as_ref());
        if newest_known.is_some_and(|newest| newest < version) {
            return Ok(false);
        }
        let is_noted = noted.is_some_and(|noted| {
            noted.state == SourceState::Restored && noted.hash == file.hash.as_str()
        });
        Ok(is_noted || self.journal.was_restored(name, id.as_str()).await?)
    }

    /// Whether no file of the name is at the destination, where that can be read from here. A bucket is asked only where something
    /// depends on it: each of its answers takes a while.
    async fn is_gone(&self, file: &FileRef) -> Result<bool> {
        let is_asked = |files: &Arc<dyn Files>| self.with_gone || is_folder(files.location());
        let Some(destination) = self.destination.clone().filter(is_asked) else {
            return Ok(false);
        };
        let name = file.name.clone();
        let is_gone = blocking(move || {
            let found = destination.stat(&name)?;
            if found.is_none() && is_folder(destination.location()) {
                ensure_no_file_above(&*destination, &name)?;
            }
            io::Result::Ok(found.is_none())
        });
        let is_gone = is_gone.await;
        is_gone.with_context(|| format!("looking for {} at the destination", file.name))
    }

    /// The hash of the file's namesake at the destination, where that can be read from here.
    async fn at_destination(&self, file: &FileRef) -> Result<Option<Digest>> {
        let Some(destination) = self.destination.clone() else {
            return Ok(None);
        };
        let name = file.name.clone();
        let found = blocking(move || content_of(&*destination, &name)).await;
        found.with_context(|| format!("reading {} at the destination", file.name))
    }

    /// Sends manifests in the order in which the versions were announced.
    async fn send(&self, mut versions: Vec<FoundVersion>) -> Result<()> {
        versions.sort_by(|a, b| {
            let (a, b) = (&a.described.version, &b.described.version);
            a.queue()
                .cmp(b.queue())
                .then(a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal))
        });
        for batch in versions.chunks(BATCH) {
            let mut messages = Vec::with_capacity(batch.len());
            for version in batch {
                let file = &version.described.file;
                self.record_newest(&version.described).await?;
                self.journal.record_announced(&known(file)).await?;
                self.journal.record_recovered(file.id().as_str()).await?;
                messages.push(self.message(version).await?);
            }
            let sent = self.chunks_queue.send(messages).await;
            sent.context("sending manifests to the chunks queue")?;
        }
        Ok(())
    }

    /// A journal that was put back to an earlier state takes a version before this for the newest of its name.
    async fn record_newest(&self, described: &DescribedFile) -> Result<()> {
        let (file, version) = (&described.file, &described.version);
        let newest = self.journal.source(&file.location, file.name.as_str());
        let newest = newest.await?.and_then(|newest| newest.version);
        if newest.is_none_or(|newest| newest >= *version) {
            return Ok(());
        }
        let observed = described.observed.as_ref();
        let announcement = observed.map(|observed| observed.announcement.clone());
        let read = ReadSource {
            file: file.clone(),
            // Not known: what lies at the source is read before anything follows from it.
            fingerprint: String::new(),
            is_settled: false,
        };
        let record = SourceRecord {
            version: Some(version.clone()),
            ..read.record(announcement.unwrap_or_else(|| version.to_string()))
        };
        self.journal
            .record_announcements(std::slice::from_ref(&record))
            .await?;
        Ok(self.journal.record_sent(&[record]).await?)
    }

    async fn message(&self, version: &FoundVersion) -> Result<Outgoing> {
        let file = &version.described.file;
        let manifest = self.manifest(version).await?;
        Ok(Outgoing {
            group: announce::group(file, self.strict),
            // None of before: the queue may remember the first manifest, and have lost it.
            dedup_id: format!("{}-r{:x}", &file.id().as_str()[..40], runtime::random_u64()),
            body: manifest.to_json(),
            attributes: BTreeMap::new(),
        })
    }

    async fn manifest(&self, version: &FoundVersion) -> Result<Manifest> {
        let writer = RecordWriter {
            stream: self.stream.clone(),
            record_bytes: self.record_bytes,
        };
        let positions = version.records.clone().unwrap_or_default();
        let records = writer.list(positions.to_vec(), &version.owner).await;
        let records = records
            .map_err(passing)
            .context("writing a list of records to the stream")?;
        let described = version.described.clone();
        Ok(Manifest {
            version: DESCRIBED_VERSION,
            file: described.file,
            file_version: Some(described.version),
            observed: described.observed,
            repeats: 0,
            attempt: version.attempt.clone(),
            records,
            bundle: version.place.clone(),
            packed_bytes: version.packed_bytes,
            effort: None,
            stages: Vec::new(),
            shares: Vec::new(),
            announced_millis: described.announced_millis,
            compressed_millis: runtime::now_millis(),
            traceparent: version.trace.map(|trace| trace.to_string()),
        })
    }
}

/// What a journal that was lost with the queues knew of the file.
fn known(file: &FileRef) -> JournalFile {
    JournalFile {
        file_id: file.id().as_str().to_owned(),
        name: file.name.as_str().to_owned(),
        raw_bytes: file.bytes,
        modified: runtime::from_nanos(file.modified_nanos),
        hash: file.hash.as_str().to_owned(),
    }
}

/// Fails where a file lies in place of a folder around the name.
fn ensure_no_file_above(destination: &dyn Files, name: &FileName) -> io::Result<()> {
    for (end, _) in name.as_str().match_indices('/') {
        let Ok(folder) = FileName::parse(&name.as_str()[..end]) else {
            continue;
        };
        // A folder is an error, or no file.
        if matches!(destination.stat(&folder), Ok(Some(_))) {
            let why = format!("{folder} is a file");
            return Err(io::Error::new(io::ErrorKind::NotADirectory, why));
        }
    }
    Ok(())
}

/// The hash of the file at the destination, if there is one.
fn content_of(destination: &dyn Files, name: &FileName) -> io::Result<Option<Digest>> {
    if destination.stat(name)?.is_none() {
        return Ok(None);
    }
    match destination.read(name) {
        Ok(content) => Ok(Some(hash(content)?.0)),
        // Removed in this moment.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A version of a file, as its records in the stream describe it.
#[derive(Debug, Clone)]
struct FoundVersion {
    described: DescribedFile,
    owner: RecordOwner,
    attempt: String,
    place: Option<BundlePlace>,
    /// All of them, or what is missing.
    records: Result<Arc<[Position]>, String>,
    packed_bytes: u64,
    trace: Option<TraceContext>,
}

impl FoundVersion {
    /// Of two versions from one queue.
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        let (one, other) = (&self.described.version, &other.described.version);
        one.partial_cmp(other).unwrap_or(std::cmp::Ordering::Equal)
    }
}

/// All that the stream has, by who packed it.
#[derive(Debug, Default)]
struct FoundPackings {
    packings: HashMap<(RecordOwner, u32), FoundPacking>,
    /// Owners of records without a head: of lists, and of files of earlier releases.
    plain: HashSet<RecordOwner>,
    of_original: usize,
    damaged: Vec<Position>,
}

impl FoundPackings {
    fn add(&mut self, stored: ScannedRecord) {
        let Some(data) = stored.data else {
            self.damaged.push(stored.position);
            return;
        };
        let Some(found) = FoundRecord::read(&data) else {
            self.of_original += usize::from(is_of_original(&data));
            return;
        };
        let Some(head) = found.head else {
            self.plain.insert(found.owner);
            return;
        };
        let packing = self.packings.entry((found.owner.clone(), head.packing));
        let packing = packing.or_insert_with(|| FoundPacking::new(found.owner.clone()));
        if head.is_last {
            packing.last = Some(found.index);
        }
        if let Some(description) = head.description {
            let content = DescribedContent::from_bytes(&description);
            let is_of_these = |it: &DescribedContent| it.record_owner() == Some(found.owner);
            packing.content = content.filter(is_of_these);
            packing.trace = head.trace;
        }
        let bytes = found.payload.len() as u64;
        packing
            .records
            .insert(found.index, (stored.position, bytes));
    }

    fn undescribed(&self) -> usize {
        let described: HashSet<_> = self.packings.keys().map(|(owner, _)| owner).collect();
        let plain = self.plain.iter();
        plain.filter(|owner| !described.contains(owner)).count()
    }
}

/// Whether a record is one of the original's: a whole LZMA or BZ2 stream.
fn is_of_original(data: &[u8]) -> bool {
    data.starts_with(b"\xfd7zXZ") || data.starts_with(b"BZh")
}

/// The records that were packed at once.
#[derive(Debug)]
struct FoundPacking {
    owner: RecordOwner,
    content: Option<DescribedContent>,
    trace: Option<TraceContext>,
    /// By index: position, and bytes of the payload. Of a record that was written twice, either.
    records: BTreeMap<u32, (Position, u64)>,
    /// The index of the last record.
    last: Option<u32>,
}

impl FoundPacking {
    fn new(owner: RecordOwner) -> Self {
        Self {
            owner,
            content: None,
            trace: None,
            records: BTreeMap::new(),
            last: None,
        }
    }

    /// The positions of all records, or what is missing.
    fn positions(&self) -> Result<Arc<[Position]>, String> {
        let Some(last) = self.last else {
            let count = self.records.len();
            return Err(format!(
                "the stream has {count} of its records and not the last: packing it did not end, or they were removed"
            ));
        };
        let records = || self.records.range(..=last).map(|(_, (at, _))| at.clone());
        let all = u64::from(last) + 1;
        let missing_count = all - records().count() as u64;
        if missing_count == 0 {
            return Ok(records().collect());
        }
        let missing = (0..=last).filter(|index| !self.records.contains_key(index));
        let named: Vec<_> = missing
            .take(MOST_NAMED)
            .map(|index| index.to_string())
            .collect();
        let more = if missing_count > MOST_NAMED as u64 {
            ", …"
        } else {
            ""
        };
        Err(format!(
            "the stream has not {missing_count} of its {all} records (number {}{more}, counted from 0)",
            named.join(", ")
        ))
    }

    /// Each file that the records hold.
    fn versions(self) -> Vec<FoundVersion> {
        let records = self.positions();
        let packed: u64 = self.records.values().map(|(_, bytes)| bytes).sum();
        let version = |described, attempt, place, packed_bytes| FoundVersion {
            described,
            owner: self.owner.clone(),
            attempt,
            place,
            records: records.clone(),
            packed_bytes,
            trace: self.trace,
        };
        match self.content {
            None => Vec::new(),
            Some(DescribedContent::Alone { attempt, file }) => {
                vec![version(*file, attempt, None, packed)]
            }
            Some(DescribedContent::Bundle(files)) => {
                let all = files.iter().map(|(file, _)| file.file.bytes).sum();
                let mut before = 0;
                let each = files.into_iter().map(|(file, place)| {
                    let bytes = file.file.bytes;
                    let packed_bytes = share(packed, (before, bytes), all);
                    before += bytes;
                    // Its records do not carry an attempt.
                    let attempt = place.id.as_str().to_owned();
                    version(file, attempt, Some(place), packed_bytes)
                });
                each.collect()
            }
        }
    }
}

#[cfg(test)]
mod tests;
