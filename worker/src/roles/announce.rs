//! Announcing a file: hash it, put a message for it on the files queue. The one way in for generated, submitted,
//! scanned and changed files.

use std::io::{self, Read};
use std::sync::Arc;

use anyhow::{Context, Result};
use tracing::{Instrument, field, info_span};

use crate::blocking;
use crate::clock;
use crate::journal::{FileJournal, JournalFile};
use crate::legacy::messages::LegacyAnnouncement;
use crate::message::{Announcement, Digest, FileRef, STRICT_GROUP, VERSION};
use crate::telemetry::trace;
use streampress_transport::{FileEntry, Files, Outgoing, Queue, TransportResult};

/// The form that announcements are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnnouncementFormat {
    /// Ours, versioned.
    Native,
    /// The Python original's `{"ID", "file_name"}`.
    Legacy,
}

/// Puts announcements on the files queue.
#[derive(Debug, Clone)]
pub struct Announcer {
    /// Where the files are.
    pub source: Arc<dyn Files>,
    /// Where the announcement goes.
    pub files_queue: Arc<dyn Queue>,
    /// Whether all files go one after another.
    pub strict: bool,
    /// How announcements are written.
    pub dialect: AnnouncementFormat,
    /// What this machine knows of its files, on the embedded transport.
    pub journal: Option<Arc<dyn FileJournal>>,
}

impl Announcer {
    /// Hashes the file as it is now and announces it.
    pub async fn announce(&self, entry: &FileEntry) -> Result<FileRef> {
        let file = self.look(entry).await?;
        self.announce_known(&file).await?;
        Ok(file)
    }

    /// Hashes the file as it is now.
    pub async fn look(&self, entry: &FileEntry) -> Result<FileRef> {
        let source = self.source.clone();
        let (name, location) = (entry.name.clone(), self.source.location().to_owned());
        let modified_nanos = clock::nanos(entry.modified);
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

    /// Announces a file whose content is known. Sending the same one again within five minutes is one message.
    pub async fn announce_known(&self, file: &FileRef) -> Result<()> {
        self.send(file, file.dedup_id()).await
    }

    /// Announces the file again although it was announced before, as after a redrive.
    pub async fn announce_again(&self, file: &FileRef) -> Result<()> {
        self.send(file, format!("{}-{:x}", file.dedup_id(), fastrand::u64(..)))
            .await
    }

    async fn note(&self, journal: &dyn FileJournal, file: &FileRef) -> TransportResult<()> {
        let indexed = JournalFile {
            file_id: file.id().as_str().to_owned(),
            name: file.name.as_str().to_owned(),
            raw_bytes: file.bytes,
            modified: clock::from_nanos(file.modified_nanos),
            hash: file.hash.as_str().to_owned(),
        };
        journal.record_announced(&indexed).await?;
        match self.dialect {
            AnnouncementFormat::Native => Ok(()),
            AnnouncementFormat::Legacy => {
                journal
                    .set(&legacy_index_key(&legacy_id(file)), file.id().as_str())
                    .await
            }
        }
    }

    /// A trace begins here unless it did before, as with a generated file.
    async fn send(&self, file: &FileRef, dedup_id: String) -> Result<()> {
        if trace::current().is_some() {
            return self.send_within(file, dedup_id).await;
        }
        let span = info_span!(
            "announce",
            file_id = file.id().as_str(),
            file_name = file.name.as_str(),
            trace_id = field::Empty,
        );
        let context = trace::place(&span, None);
        trace::scope(context, self.send_within(file, dedup_id))
            .instrument(span)
            .await
    }

    async fn send_within(&self, file: &FileRef, dedup_id: String) -> Result<()> {
        if let Some(journal) = &self.journal {
            self.note(&**journal, file)
                .await
                .context("recording the file in the journal")?;
        }
        let context = trace::current_or_new();
        let attributes = trace::attributes(context);
        let message = match self.dialect {
            AnnouncementFormat::Native => Outgoing {
                group: if self.strict {
                    STRICT_GROUP.to_owned()
                } else {
                    file.group()
                },
                dedup_id,
                body: Announcement {
                    version: VERSION,
                    file: file.clone(),
                    announced_millis: clock::now_millis(),
                    traceparent: Some(context.to_string()),
                }
                .to_json(),
                attributes,
            },
            AnnouncementFormat::Legacy => {
                let id = legacy_id(file);
                let body = LegacyAnnouncement {
                    id: id.clone(),
                    file_name: file.name.as_str().to_owned(),
                }
                .to_json();
                Outgoing {
                    group: id,
                    dedup_id,
                    body,
                    attributes,
                }
            }
        };
        self.files_queue
            .send(vec![message])
            .await
            .with_context(|| format!("announcing {}", file.name))
    }
}

/// The original gives every file a random UUID; ours follows from the file, so that sending it twice is one file.
pub fn legacy_id(file: &FileRef) -> String {
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, file.dedup_id().as_bytes()).to_string()
}

/// The journal's key for the file that a legacy announcement means.
pub fn legacy_index_key(id: &str) -> String {
    format!("seed-file/{id}")
}

/// BLAKE3 and length of everything `reader` gives.
pub fn hash(mut reader: impl Read) -> io::Result<(Digest, u64)> {
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut reader, &mut hasher)?;
    Ok((hasher.finalize().into(), hasher.count()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use streampress_transport::FileName;
    use streampress_transport::local::files::LocalFiles;
    use streampress_transport::local::{Local, LocalOptions};

    #[tokio::test]
    async fn a_file_announced_again_is_a_second_message_and_one_announced_twice_is_not() {
        for dialect in [AnnouncementFormat::Native, AnnouncementFormat::Legacy] {
            let root = tempfile::tempdir().expect("a folder");
            let local =
                Local::open(&root.path().join("data"), LocalOptions::default()).expect("opens");
            let folder = root.path().join("in");
            let source = LocalFiles::open("file:///data/in", &folder).expect("opens");
            std::fs::write(folder.join("a.txt"), "words").expect("written");
            let name = FileName::parse("a.txt").expect("a good name");
            let entry = source.stat(&name).expect("looked").expect("there");
            let announcer = Announcer {
                source: Arc::new(source),
                files_queue: local.files_queue(),
                strict: false,
                dialect,
                journal: None,
            };
            let waiting = async || announcer.files_queue.depth().await.expect("known").total();
            let file = announcer.announce(&entry).await.expect("announced");
            announcer.announce_known(&file).await.expect("announced");
            assert_eq!(waiting().await, 1, "{dialect:?}");
            announcer.announce_again(&file).await.expect("announced");
            assert_eq!(waiting().await, 2, "{dialect:?}");
        }
    }
}
