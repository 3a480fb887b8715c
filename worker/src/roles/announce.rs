//! Announces a file: hashes it and sends a message for it to the files queue. Generated, submitted, scanned and changed
//! files are all announced here.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use tracing::{Span, field, info, info_span};

use crate::consume::HandlerError;
use crate::journal::{FileJournal, SourceReceipt, SourceRecord, SourceState};
pub use crate::message::hash;
use crate::message::trace_context::TraceContext;
use crate::message::{
    Announcement, DeadLetterReason, Digest, FileRef, LegacyAnnouncement, REDRIVE_COMMAND,
    STRICT_GROUP, SourceObservation, VERSION,
};
use crate::roles::source::is_no_plain_file;
use crate::runtime::{self, CLOCK_TICK, blocking};
use crate::telemetry::trace;
use streampress_crds::Location;
use streampress_transport::local::files::LocalFiles;
use streampress_transport::{
    ATTR_VERSION, FileEntry, FileName, FileVersion, Files, Outgoing, Queue, TransportResult,
};

/// A file is read again when it changed meanwhile, this often in all.
const READ_ATTEMPTS: usize = 3;

/// The form that announcements are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnnouncementFormat {
    /// Streampress's own, versioned.
    Native,
    /// The Python original's `{"ID", "file_name"}`.
    Legacy,
}

/// Sends announcements to the files queue.
#[derive(Debug, Clone)]
pub struct Announcer {
    /// Where the files are.
    pub source: Arc<dyn Files>,
    /// Where announcements go.
    pub files_queue: Arc<dyn Queue>,
    /// Whether all files go one after another.
    pub strict: bool,
    /// How announcements are written.
    pub format: AnnouncementFormat,
    /// Where what is announced is recorded.
    pub journal: Arc<dyn FileJournal>,
}

/// A source file as it was read.
#[derive(Debug, Clone)]
pub(crate) struct ReadSource {
    /// What it is.
    pub(crate) file: FileRef,
    /// Its fingerprint before it was read.
    pub(crate) fingerprint: String,
    /// Whether an equal fingerprint proves equal content.
    pub(crate) is_settled: bool,
}

/// How a version is announced again.
#[derive(Debug, Clone)]
pub(crate) struct Repeat {
    /// Its own id: the same repeat sent twice is one message.
    pub(crate) id: String,
    /// As the first announcement had it, where that is known.
    pub(crate) observed: Option<SourceObservation>,
    /// How often it was announced again because its records could not be used.
    pub(crate) repeats: u32,
}

impl Repeat {
    /// At a person's request: what was tried before does not count.
    pub(crate) fn on_request(observed: Option<SourceObservation>) -> Self {
        Self {
            id: random_id(),
            observed,
            repeats: 0,
        }
    }
}

/// An announcement to be sent.
struct NewAnnouncement {
    record: SourceRecord,
    file: FileRef,
}

impl Announcer {
    /// Hashes the file as it is now and announces it. The same file of the same modification time is one announcement
    /// within five minutes, as a bucket's event that is delivered twice must be.
    pub async fn announce(&self, entry: &FileEntry) -> Result<FileRef> {
        let read = self.read(entry).await?;
        self.announce_known(&read).await?;
        Ok(read.file)
    }

    /// Announces files that were read, each as a new announcement.
    pub(crate) async fn announce_all(&self, read: &[ReadSource]) -> Result<Vec<SourceRecord>> {
        let new = read.iter().map(|read| new_announcement(read, random_id()));
        self.send_all(new.collect()).await
    }

    /// Announces a file that was read, as a new announcement. With `wants_reply`, the compressor that takes the receipt
    /// leaves a reply at the source (see [`super::replies`]).
    pub(crate) async fn announce_submitted(
        &self,
        read: &ReadSource,
        wants_reply: bool,
    ) -> Result<SourceRecord> {
        let mut announcement = new_announcement(read, random_id());
        announcement.record.wants_reply = wants_reply;
        let sent = self.send_all(vec![announcement]).await?;
        sent.into_iter().next().context("nothing was sent")
    }

    /// Hashes the file as it is now.
    pub async fn identify(&self, entry: &FileEntry) -> Result<FileRef> {
        Ok(self.read(entry).await?.file)
    }

    /// Hashes the file as it is now.
    pub(crate) async fn read(&self, entry: &FileEntry) -> Result<ReadSource> {
        let source = self.source.clone();
        let (entry, location) = (entry.clone(), self.source.location().to_owned());
        blocking(move || -> Result<ReadSource> {
            let (mut entry, name) = (entry.clone(), entry.name);
            for _ in 0..READ_ATTEMPTS {
                let observed_at = runtime::now();
                let reader = source
                    .read(&name)
                    .with_context(|| format!("opening {name}"))?;
                let (hash, bytes) = hash(reader).with_context(|| format!("reading {name}"))?;
                let now = source.stat(&name)?;
                let now = now.with_context(|| format!("{name} was removed while it was read"))?;
                if now.fingerprint == entry.fingerprint && now.size == bytes {
                    return Ok(ReadSource {
                        file: FileRef {
                            location,
                            name,
                            bytes,
                            hash,
                            modified_nanos: runtime::nanos(entry.modified),
                        },
                        is_settled: is_settled(&entry, observed_at),
                        fingerprint: entry.fingerprint,
                    });
                }
                entry = now;
            }
            bail!("{name} changes while it is read; it can be taken once its writer has ended")
        })
        .await
    }

    /// Announces a file whose content is known. The same file again within five minutes is one message.
    pub(crate) async fn announce_known(&self, read: &ReadSource) -> Result<()> {
        let id = announcement_of(&read.file);
        self.send_all(vec![new_announcement(read, id)])
            .await
            .map(drop)
    }

    /// Announces a file whose content is known, unless the journal says that it was announced.
    pub(crate) async fn announce_once(&self, read: &ReadSource) -> Result<()> {
        let newest = self.newest(&read.file.name).await?;
        let announced = newest.filter(|newest| {
            // What was restored and lies there anew is to be renamed or deleted again.
            newest.is_of(&read.file) && !newest.was_restored_as_other(&read.fingerprint)
        });
        match announced {
            Some(announced) => self.sent(announced).await.map(drop),
            None => self.announce_known(read).await,
        }
    }

    /// The announcement after it was sent. The process that recorded it may have ended before it sent it, or failed; under
    /// its own id it is one message, although that process may send it at this moment.
    pub(crate) async fn sent(&self, mut newest: SourceRecord) -> Result<SourceRecord> {
        if newest.state == SourceState::Writing {
            self.send_recorded(std::slice::from_ref(&newest)).await?;
            newest.state = SourceState::Sent;
        }
        Ok(newest)
    }

    /// Announces a version again, so that it never replaces a later one. Without its version it is announced as new.
    pub(crate) async fn announce_repeat(
        &self,
        file: &FileRef,
        version: Option<FileVersion>,
        repeat: Repeat,
    ) -> Result<()> {
        let (span, context) = announcing_span(file);
        let dedup_id = dedup_id(file, &repeat.id);
        let (observed, repeats) = (repeat.observed, repeat.repeats);
        let mut message = self.message(file, dedup_id, (observed, repeats), context);
        if let Some(version) = version {
            let attributes = &mut message.attributes;
            attributes.insert(ATTR_VERSION.to_owned(), version.to_string());
        }
        let sent = self.files_queue.send(vec![message]).await;
        sent.with_context(|| format!("announcing {} again", file.name))?;
        span.in_scope(|| info!(raw_bytes = file.bytes, "File announced again."));
        Ok(())
    }

    /// Announces versions again of which nothing is known, under the ids of their announcements with `id`: the same repeat sent
    /// twice is one message. Each record must say its content and its version.
    pub(crate) async fn announce_unconfirmed(
        &self,
        records: &[SourceRecord],
        id: &str,
    ) -> Result<()> {
        let repeats = records.iter().filter_map(|record| {
            let file = file_of(record)?;
            let (span, context) = announcing_span(&file);
            let dedup_id = dedup_id(&file, &format!("{}-{id}", record.announcement));
            let mut message = self.message(&file, dedup_id, (observation(record), 0), context);
            let version = record.version.as_ref()?.to_string();
            message.attributes.insert(ATTR_VERSION.to_owned(), version);
            Some((message, span))
        });
        let (messages, spans): (Vec<_>, Vec<_>) = repeats.unzip();
        if messages.is_empty() {
            return Ok(());
        }
        let sent = self.files_queue.send(messages).await;
        sent.context("announcing files again")?;
        for span in spans {
            span.in_scope(|| info!("File announced again: nothing is known of what became of it."));
        }
        Ok(())
    }

    /// The entry of a source file; an error with a dead letter's reason where it does not exist.
    pub(crate) async fn source_entry(&self, name: &FileName) -> Result<FileEntry, HandlerError> {
        let (source, wanted) = (self.source.clone(), name.clone());
        let stat = move || match source.stat(&wanted)? {
            None => source.ensure_exists().map(|()| None),
            found => Ok(found),
        };
        match blocking(stat).await {
            Ok(Some(entry)) => Ok(entry),
            Ok(None) => Err(source_missing(name, self.source.location())),
            // A folder or a pipe took its place: waiting does not help.
            Err(error) if is_no_plain_file(&error) => {
                Err(missing(&format!("{error}; put the file back")))
            }
            Err(error) => Err(HandlerError::transient(
                error,
                format!("looking for {name}"),
            )),
        }
    }

    /// Announces what the source now holds under this name, even if that was announced a moment ago.
    pub(crate) async fn announce_current(&self, name: &FileName) -> Result<(), HandlerError> {
        let entry = self.source_entry(name).await?;
        let announcing = async {
            let read = self.read(&entry).await?;
            self.announce_all(&[read]).await.map(drop)
        };
        announcing.await.map_err(HandlerError::Transient)
    }

    /// Announces what the source holds in place of the announced file, unless the journal says that it was sent. An
    /// error where the source holds the announced content again: then that is to be taken. In place of several versions
    /// that wait, or of one that is received again and again, it is one message within five minutes. Where nothing newer
    /// than the announced version was announced and it is too `early` for that, [`HandlerError::NotYet`].
    pub(crate) async fn announce_successor(
        &self,
        announced: &FileRef,
        early: Option<TooEarly>,
    ) -> Result<(), HandlerError> {
        let entry = self.source_entry(&announced.name).await?;
        if let Some(early) = early {
            let newest = self.newest(&announced.name).await?;
            if newest.is_none_or(|newest| newest.hash == announced.hash.as_str()) {
                return Err(early.error(&announced.name));
            }
        }
        let announcing = async {
            let read = self.read(&entry).await?;
            if read.file.hash == announced.hash {
                bail!("{} changed while it was read", announced.name);
            }
            let newest = self.newest(&announced.name).await?;
            let newest = newest.filter(|newest| newest.hash == read.file.hash.as_str());
            match newest {
                // Without a scan nothing else would send what is recorded only.
                Some(newest)
                    if matches!(newest.state, SourceState::Sent | SourceState::Writing) =>
                {
                    self.sent(newest).await.map(drop)
                }
                Some(_) | None => {
                    let new = new_announcement(&read, successor_id(&read));
                    self.send_all(vec![new]).await.map(drop)
                }
            }
        };
        announcing.await.map_err(HandlerError::Transient)
    }

    /// Records what became of an announcement of the file. Without `observed` it is a generated file's, which follows from the
    /// file.
    pub(crate) async fn record_end(
        &self,
        file: &FileRef,
        observed: Option<&SourceObservation>,
        state: SourceState,
    ) -> TransportResult<()> {
        let announcement = observed.map(|observed| observed.announcement.clone());
        let receipt = SourceReceipt {
            location: file.location.clone(),
            name: file.name.as_str().to_owned(),
            file_id: file.id().as_str().to_owned(),
            announcement: announcement.unwrap_or_else(|| announcement_of(file)),
            state,
            fingerprint: observed.map(|observed| observed.fingerprint.clone()),
        };
        self.journal.record_receipt(&receipt).await
    }

    /// The newest announcement of the name, as far as the journal knows.
    pub(crate) async fn newest(&self, name: &FileName) -> TransportResult<Option<SourceRecord>> {
        let location = self.source.location();
        self.journal.source(location, name.as_str()).await
    }

    /// Sends announcements that a process recorded before it ended, under their own ids: each is one message, whether or
    /// not it had been sent.
    pub(crate) async fn send_recorded(&self, records: &[SourceRecord]) -> Result<()> {
        let recorded = records.iter().filter_map(|record| {
            Some(NewAnnouncement {
                record: record.clone(),
                file: file_of(record)?,
            })
        });
        self.send_all(recorded.collect()).await.map(drop)
    }

    /// Records the announcements, sends them, and records that. What was recorded and not sent is sent by
    /// [`Announcer::send_recorded`].
    async fn send_all(&self, announcements: Vec<NewAnnouncement>) -> Result<Vec<SourceRecord>> {
        if announcements.is_empty() {
            return Ok(Vec::new());
        }
        let mut records: Vec<_> = announcements.iter().map(|it| it.record.clone()).collect();
        self.journal
            .record_announcements(&records)
            .await
            .context("recording announcements in the journal")?;
        let mut messages = Vec::with_capacity(announcements.len());
        let mut spans = Vec::with_capacity(announcements.len());
        for NewAnnouncement { record, file } in &announcements {
            if self.format == AnnouncementFormat::Legacy {
                let key = legacy_journal_key(&legacy_id(file));
                self.journal.set(&key, file.id().as_str()).await?;
            }
            let (span, context) = announcing_span(file);
            let dedup_id = dedup_id(file, &record.announcement);
            let observed = observation(record);
            messages.push(self.message(file, dedup_id, (observed, 0), context));
            spans.push(span);
        }
        let sent = self.files_queue.send_numbered(messages).await;
        let versions = sent.with_context(|| match &announcements[..] {
            [one] => format!("announcing {}", one.file.name),
            several => format!("announcing {} files", several.len()),
        })?;
        for (record, version) in records.iter_mut().zip(versions) {
            record.version = version.or(record.version.take());
        }
        for (span, announcement) in spans.iter().zip(&announcements) {
            span.in_scope(|| info!(raw_bytes = announcement.file.bytes, "File announced."));
        }
        let recorded = self.journal.record_sent(&records).await;
        recorded.context("recording announcements in the journal")?;
        for record in &mut records {
            record.state = SourceState::Sent;
        }
        Ok(records)
    }

    /// The announcer for the location that the file was announced from, which may be the folder of `run --input`.
    pub(crate) fn for_location_of(&self, file: &FileRef) -> Result<Self> {
        let users_own = Location::parse(&file.location)
            .ok()
            .filter(|location| location.below_data().is_none());
        match users_own {
            Some(Location::File { path }) if file.location != self.source.location() => {
                let files = LocalFiles::open_existing(&file.location, Path::new(&path));
                let source = files.with_context(|| format!("opening {}", file.location))?;
                Ok(Self {
                    source: Arc::new(source),
                    ..self.clone()
                })
            }
            Some(Location::File { .. } | Location::S3 { .. }) | None => Ok(self.clone()),
        }
    }

    fn message(
        &self,
        file: &FileRef,
        dedup_id: String,
        (observed, repeats): (Option<SourceObservation>, u32),
        context: TraceContext,
    ) -> Outgoing {
        let (group, body) = match self.format {
            AnnouncementFormat::Native => {
                let announcement = Announcement {
                    version: VERSION,
                    file: file.clone(),
                    announced_millis: runtime::now_millis(),
                    observed,
                    repeats,
                    traceparent: Some(context.to_string()),
                };
                (group(file, self.strict), announcement.to_json())
            }
            AnnouncementFormat::Legacy => {
                let announcement = LegacyAnnouncement {
                    id: legacy_id(file),
                    file_name: file.name.as_str().to_owned(),
                };
                (announcement.id.clone(), announcement.to_json())
            }
        };
        Outgoing {
            group,
            dedup_id,
            body,
            attributes: trace::attributes(context),
        }
    }
}

/// Continues the trace of the work in progress, as for a generated file; else starts one.
fn announcing_span(file: &FileRef) -> (Span, TraceContext) {
    if let Some(context) = trace::current() {
        return (Span::current(), context);
    }
    let span = info_span!(
        "announce",
        file_id = file.id().as_str(),
        file_name = file.name.as_str(),
        trace_id = field::Empty,
    );
    let context = trace::enter(&span, None);
    (span, context)
}

/// A file that had changed shortly before it was observed may change again within the same tick of its file system's clock.
pub(crate) fn is_settled(entry: &FileEntry, observed_at: SystemTime) -> bool {
    entry.changed.is_none_or(|changed| {
        observed_at
            .duration_since(changed)
            .is_ok_and(|age| age >= CLOCK_TICK)
    })
}

impl ReadSource {
    /// As the journal keeps it under the announcement's id.
    pub(crate) fn record(&self, announcement: String) -> SourceRecord {
        let file = &self.file;
        SourceRecord {
            location: file.location.clone(),
            name: file.name.as_str().to_owned(),
            announcement,
            file_id: file.id().as_str().to_owned(),
            hash: file.hash.as_str().to_owned(),
            bytes: file.bytes,
            modified_nanos: file.modified_nanos,
            fingerprint: self.fingerprint.clone(),
            is_settled: self.is_settled,
            state: SourceState::Writing,
            version: None,
            wants_reply: false,
            awaits_receipt: false,
            is_gone: false,
        }
    }
}

/// What a receipt brings back to the source; nothing where the file was not read for this announcement.
fn observation(record: &SourceRecord) -> Option<SourceObservation> {
    (!record.fingerprint.is_empty()).then(|| SourceObservation {
        announcement: record.announcement.clone(),
        fingerprint: record.fingerprint.clone(),
        is_settled: record.is_settled,
        wants_reply: record.wants_reply,
    })
}

fn new_announcement(read: &ReadSource, announcement: String) -> NewAnnouncement {
    NewAnnouncement {
        record: read.record(announcement),
        file: read.file.clone(),
    }
}

/// The file that was announced; `None` where its content is not known any more.
pub(crate) fn file_of(record: &SourceRecord) -> Option<FileRef> {
    Some(FileRef {
        location: record.location.clone(),
        name: FileName::parse(&record.name).ok()?,
        bytes: record.bytes,
        hash: Digest::try_from(record.hash.clone()).ok()?,
        modified_nanos: record.modified_nanos,
    })
}

/// An announcement after which the next one of the same name has to wait: a file that is being written would be announced, read
/// and found to be another one without end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TooEarly {
    /// Between two announcements of a name.
    settle: Duration,
    left: Duration,
}

impl TooEarly {
    /// Of an announcement that was sent then; `None` where that was long enough ago, or lies so far ahead that a clock was put
    /// back.
    pub(crate) fn after(sent_millis: u64, settle: Duration) -> Option<Self> {
        let now = runtime::now_millis();
        let [age, ahead] = [(now, sent_millis), (sent_millis, now)]
            .map(|(later, earlier)| Duration::from_millis(later.saturating_sub(earlier)));
        let left = settle.saturating_sub(age);
        (!left.is_zero() && ahead <= settle).then_some(Self { settle, left })
    }

    fn error(self, name: &FileName) -> HandlerError {
        let why = anyhow::anyhow!(
            "{name} changed after it was announced; its present content is announced {} s after that at the earliest",
            self.settle.as_secs()
        );
        HandlerError::NotYet(why, self.left)
    }
}

/// The id of an announcement that follows from the file alone.
pub(crate) fn announcement_of(file: &FileRef) -> String {
    format!("{:x}", file.modified_nanos)
}

/// The id of the announcement of what took the place of an announced version. It follows from what the source holds, where that
/// proves its content: the versions that wait before it in its group would else each add a message.
fn successor_id(read: &ReadSource) -> String {
    if !read.is_settled {
        return random_id();
    }
    let state = format!("{}-{}", read.file.modified_nanos, read.fingerprint);
    Digest::of(state.as_bytes()).as_str()[..16].to_owned()
}

/// The id of an announcement that is none of before.
pub(crate) fn random_id() -> String {
    format!("{:016x}", runtime::random_u64())
}

/// File id and announcement id: the same announcement sent twice is one message, the same content announced twice is two.
fn dedup_id(file: &FileRef, announcement: &str) -> String {
    format!("{}-{announcement}", &file.id().as_str()[..40])
}

/// The group of a file's messages.
pub(crate) fn group(file: &FileRef, strict: bool) -> String {
    match strict {
        true => STRICT_GROUP.to_owned(),
        false => file.group(),
    }
}

/// The attributes of a message that continues the trace of the work in progress.
pub(crate) fn trace_attributes() -> BTreeMap<String, String> {
    trace::current().map(trace::attributes).unwrap_or_default()
}

/// Whether the file was announced from another bucket or prefix than `location`, where an object of its name is another file.
/// Folders are known by several paths, so theirs are not compared.
pub(crate) fn is_of_other_bucket(file: &FileRef, location: &str) -> bool {
    let is_bucket = |location: &str| location.starts_with("s3://");
    is_bucket(location) && is_bucket(&file.location) && file.location != location
}

/// The dead letter of a file that does not exist.
pub(crate) fn source_missing(name: &FileName, location: &str) -> HandlerError {
    missing(&format!("{name} is not in {location}; put it back"))
}

/// The dead letter of a file that is not at its source: why, and what to do before a redrive.
fn missing(what: &str) -> HandlerError {
    HandlerError::permanent(
        DeadLetterReason::SourceMissing,
        format!("{what}, then {REDRIVE_COMMAND}"),
    )
}

/// The original gives every file a random UUID; this one follows from the file, so that the same file has the same id.
pub(crate) fn legacy_id(file: &FileRef) -> String {
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, file.version_id().as_bytes()).to_string()
}

/// The journal's key for the file of the original's announcement `id`.
pub(crate) fn legacy_journal_key(id: &str) -> String {
    format!("seed-file/{id}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::journal::NoJournal;
    use streampress_transport::local::files::LocalFiles;
    use streampress_transport::local::{Local, LocalOptions};

    /// What announces the files of a folder "in" of `root`, into queues beside it.
    fn announcer(root: &Path, format: AnnouncementFormat) -> Announcer {
        let local = Local::open(&root.join("data"), LocalOptions::default()).expect("opens");
        let source = LocalFiles::open("file:///data/in", &root.join("in")).expect("opens");
        Announcer {
            source: Arc::new(source),
            files_queue: local.files_queue(),
            strict: false,
            format,
            journal: Arc::new(NoJournal),
        }
    }

    #[tokio::test]
    async fn what_took_the_place_of_several_announced_versions_is_announced_once() {
        let root = tempfile::tempdir().expect("a folder");
        let announcer = announcer(root.path(), AnnouncementFormat::Native);
        let path = root.path().join("in/a.txt");
        let waiting = async || announcer.files_queue.depth().await.expect("known").total();
        let replace = async |content: &str| {
            let announced = FileRef {
                location: "file:///data/in".into(),
                ..FileRef::with_content("a.txt", content.as_bytes())
            };
            let replaced = announcer.announce_successor(&announced, None).await;
            replaced.expect("announced");
        };
        std::fs::write(&path, "newest").expect("written");
        // Changed a moment ago, it may change again without a trace.
        replace("first").await;
        assert_eq!(waiting().await, 1);
        let name = FileName::parse("a.txt").expect("a valid name");
        let entry = announcer.source.stat(&name).expect("read").expect("there");
        while !is_settled(&entry, runtime::now()) {
            // File systems' clocks are not simulated.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for earlier in ["first", "second", "second"] {
            replace(earlier).await;
        }
        assert_eq!(waiting().await, 2);
        std::fs::write(&path, "another").expect("written");
        replace("newest").await;
        assert_eq!(waiting().await, 3);
    }

    #[tokio::test]
    async fn what_changes_a_moment_after_its_announcement_is_announced_anew_later() {
        let root = tempfile::tempdir().expect("a folder");
        let announcer = announcer(root.path(), AnnouncementFormat::Native);
        std::fs::write(root.path().join("in/a.txt"), "now").expect("written");
        let announced = FileRef {
            location: "file:///data/in".into(),
            ..FileRef::with_content("a.txt", b"before")
        };
        let settle = Duration::from_secs(60);
        let millis_ago = |millis: u64| runtime::now_millis().saturating_sub(millis);
        let outcome =
            announcer.announce_successor(&announced, TooEarly::after(millis_ago(0), settle));
        match outcome.await {
            Err(HandlerError::NotYet(why, left)) => {
                assert!(why.to_string().starts_with("a.txt changed"), "{why}");
                assert!(left <= settle, "{left:?}");
            }
            outcome => panic!("{outcome:?}"),
        }
        assert!(TooEarly::after(millis_ago(60_000), settle).is_none());
        assert!(TooEarly::after(runtime::now_millis() + 100_000, settle).is_none());
        assert!(TooEarly::after(millis_ago(0), Duration::ZERO).is_none());
        let waiting = announcer.files_queue.depth().await.expect("known").total();
        assert_eq!(waiting, 0);
    }

    #[tokio::test]
    async fn a_file_announced_again_is_a_second_message_and_one_announced_twice_is_not() {
        for format in [AnnouncementFormat::Native, AnnouncementFormat::Legacy] {
            let root = tempfile::tempdir().expect("a folder");
            let announcer = announcer(root.path(), format);
            std::fs::write(root.path().join("in/a.txt"), "words").expect("written");
            let name = FileName::parse("a.txt").expect("a valid name");
            let entry = announcer.source.stat(&name).expect("read").expect("there");
            let waiting = async || announcer.files_queue.depth().await.expect("known").total();
            announcer.announce(&entry).await.expect("announced");
            let read = announcer.read(&entry).await.expect("read");
            announcer.announce_known(&read).await.expect("announced");
            assert_eq!(waiting().await, 1, "{format:?}");
            announcer.announce_current(&name).await.expect("announced");
            assert_eq!(waiting().await, 2, "{format:?}");
        }
    }
}
