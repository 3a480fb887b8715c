//! Announces a file: hashes it and sends a message for it to the files queue. Generated, submitted, scanned and changed
//! files are all announced here.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use anyhow::{Context, Result};
use tracing::{Instrument, field, info_span};

use crate::consume::HandlerError;
use crate::journal::{FileJournal, JournalFile};
use crate::message::{
    Announcement, DeadLetterReason, Digest, FileRef, LegacyAnnouncement, STRICT_GROUP, VERSION,
};
use crate::runtime::{self, blocking};
use crate::telemetry::trace;
use streampress_transport::{FileEntry, FileName, Files, Outgoing, Queue, TransportResult};

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

impl Announcer {
    /// Hashes the file as it is now and announces it.
    pub async fn announce(&self, entry: &FileEntry) -> Result<FileRef> {
        let file = self.identify(entry).await?;
        self.announce_known(&file).await?;
        Ok(file)
    }

    /// Hashes the file as it is now.
    pub async fn identify(&self, entry: &FileEntry) -> Result<FileRef> {
        let source = self.source.clone();
        let (name, location) = (entry.name.clone(), self.source.location().to_owned());
        let modified_nanos = runtime::nanos(entry.modified);
        blocking(move || -> Result<FileRef> {
            let reader = source
                .read(&name)
                .with_context(|| format!("opening {name}"))?;
            let (hash, bytes) = hash(reader).with_context(|| format!("reading {name}"))?;
            Ok(FileRef {
                location,
                name,
                bytes,
                hash,
                modified_nanos,
            })
        })
        .await
    }

    /// Announces a file whose content is known. The same file again within five minutes is one message.
    pub(crate) async fn announce_known(&self, file: &FileRef) -> Result<()> {
        self.send(file, file.dedup_id()).await
    }

    /// Announces the file again although it was announced before, as after a redrive.
    pub(crate) async fn announce_again(&self, file: &FileRef) -> Result<()> {
        let dedup_id = format!("{}-{:x}", file.dedup_id(), runtime::random_u64());
        self.send(file, dedup_id).await
    }

    /// The entry of a source file; an error with a dead letter's reason where it does not exist.
    pub(crate) async fn source_entry(&self, name: &FileName) -> Result<FileEntry, HandlerError> {
        let (source, wanted) = (self.source.clone(), name.clone());
        let found = blocking(move || source.stat(&wanted))
            .await
            .map_err(|error| HandlerError::transient(error, format!("looking for {name}")))?;
        found.ok_or_else(|| source_missing(name, self.source.location()))
    }

    /// Announces what the source now holds under this name, even if that was announced a moment ago.
    pub(crate) async fn announce_current(&self, name: &FileName) -> Result<(), HandlerError> {
        let entry = self.source_entry(name).await?;
        let announcing = async {
            let current = self.identify(&entry).await?;
            self.announce_again(&current).await
        };
        announcing.await.map_err(HandlerError::Transient)
    }

    async fn record(&self, file: &FileRef) -> TransportResult<()> {
        let known = JournalFile {
            file_id: file.id().as_str().to_owned(),
            name: file.name.as_str().to_owned(),
            raw_bytes: file.bytes,
            modified: runtime::from_nanos(file.modified_nanos),
            hash: file.hash.as_str().to_owned(),
        };
        self.journal.record_announced(&known).await?;
        match self.format {
            AnnouncementFormat::Native => Ok(()),
            AnnouncementFormat::Legacy => {
                let key = legacy_journal_key(&legacy_id(file));
                self.journal.set(&key, file.id().as_str()).await
            }
        }
    }

    /// Continues the trace of the work in progress, as for a generated file; else starts one.
    async fn send(&self, file: &FileRef, dedup_id: String) -> Result<()> {
        if trace::current().is_some() {
            return self.send_within_trace(file, dedup_id).await;
        }
        let span = info_span!(
            "announce",
            file_id = file.id().as_str(),
            file_name = file.name.as_str(),
            trace_id = field::Empty,
        );
        let context = trace::enter(&span, None);
        trace::scope(context, self.send_within_trace(file, dedup_id))
            .instrument(span)
            .await
    }

    async fn send_within_trace(&self, file: &FileRef, dedup_id: String) -> Result<()> {
        self.record(file)
            .await
            .context("recording the file in the journal")?;
        let message = self.message(file, dedup_id);
        self.files_queue
            .send(vec![message])
            .await
            .with_context(|| format!("announcing {}", file.name))
    }

    fn message(&self, file: &FileRef, dedup_id: String) -> Outgoing {
        let context = trace::current_or_new();
        let (group, body) = match self.format {
            AnnouncementFormat::Native => {
                let announcement = Announcement {
                    version: VERSION,
                    file: file.clone(),
                    announced_millis: runtime::now_millis(),
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

/// The dead letter of a file that does not exist.
pub(crate) fn source_missing(name: &FileName, location: &str) -> HandlerError {
    HandlerError::permanent(
        DeadLetterReason::SourceMissing,
        format!("{name} is not in {location}; put it back and run 'streampress redrive'"),
    )
}

/// The original gives every file a random UUID; this one follows from the file, so that the same file has the same id.
pub(crate) fn legacy_id(file: &FileRef) -> String {
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, file.dedup_id().as_bytes()).to_string()
}

/// The journal's key for the file of the original's announcement `id`.
pub(crate) fn legacy_journal_key(id: &str) -> String {
    format!("seed-file/{id}")
}

/// BLAKE3 and length of everything that `reader` yields.
pub fn hash(mut reader: impl Read) -> io::Result<(Digest, u64)> {
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut reader, &mut hasher)?;
    Ok((hasher.finalize().into(), hasher.count()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::NoJournal;
    use streampress_transport::local::files::LocalFiles;
    use streampress_transport::local::{Local, LocalOptions};

    #[tokio::test]
    async fn a_file_announced_again_is_a_second_message_and_one_announced_twice_is_not() {
        for format in [AnnouncementFormat::Native, AnnouncementFormat::Legacy] {
            let root = tempfile::tempdir().expect("a folder");
            let local =
                Local::open(&root.path().join("data"), LocalOptions::default()).expect("opens");
            let folder = root.path().join("in");
            let source = LocalFiles::open("file:///data/in", &folder).expect("opens");
            std::fs::write(folder.join("a.txt"), "words").expect("written");
            let name = FileName::parse("a.txt").expect("a valid name");
            let entry = source.stat(&name).expect("looked").expect("there");
            let announcer = Announcer {
                source: Arc::new(source),
                files_queue: local.files_queue(),
                strict: false,
                format,
                journal: Arc::new(NoJournal),
            };
            let waiting = async || announcer.files_queue.depth().await.expect("known").total();
            let file = announcer.announce(&entry).await.expect("announced");
            announcer.announce_known(&file).await.expect("announced");
            assert_eq!(waiting().await, 1, "{format:?}");
            announcer.announce_again(&file).await.expect("announced");
            assert_eq!(waiting().await, 2, "{format:?}");
        }
    }
}
