//! Tests of the services that every message of a role needs: whether a failed file is the only one, or a location, the
//! stream or a queue is down for all.

use std::io::{self, Read};
use std::sync::Arc;

use crate::consume::ServiceOutage;
use crate::message::Message;
use crate::runtime::blocking;
use streampress_crds::slot_health::NeededService;
use streampress_transport::{ChunkStream, FileName, Files, Queue};

/// Files of a source among which a probe chooses, and so many that it tries.
const LISTED: usize = 1000;
const TRIED: usize = 16;

/// The destination takes a file of `bytes` bytes.
pub(crate) async fn destination(files: &Arc<dyn Files>, bytes: u64) -> Result<(), ServiceOutage> {
    let files = files.clone();
    let probed = blocking(move || files.probe(bytes)).await;
    probed.map_err(|error| ServiceOutage::new(NeededService::Destination, &error))
}

/// The source takes files, for the generator that makes them.
pub(crate) async fn writable_source(files: &Arc<dyn Files>) -> Result<(), ServiceOutage> {
    let files = files.clone();
    let probed = blocking(move || files.probe(1)).await;
    probed.map_err(|error| ServiceOutage::new(NeededService::Source, &error))
}

/// The stream takes records.
pub(crate) async fn append(stream: &dyn ChunkStream) -> Result<(), ServiceOutage> {
    let probed = stream.probe_append().await;
    probed.map_err(|error| ServiceOutage::new(NeededService::Stream, &error))
}

/// The stream's records can be read.
pub(crate) async fn fetch(stream: &dyn ChunkStream) -> Result<(), ServiceOutage> {
    let probed = stream.probe_fetch().await;
    probed.map_err(|error| ServiceOutage::new(NeededService::Stream, &error))
}

/// The queue answers.
pub(crate) async fn queue(queue: &dyn Queue) -> Result<(), ServiceOutage> {
    let probed = queue.depth().await;
    probed
        .map(drop)
        .map_err(|error| ServiceOutage::new(NeededService::Queue, &error))
}

/// Whether another file of the source can be read than that of the message that failed; true where there is no other.
pub(crate) async fn source(
    source: &Arc<dyn Files>,
    failed: Option<&Message>,
) -> Result<bool, ServiceOutage> {
    let source = source.clone();
    let failed = failed.and_then(|message| message.subject().file_name);
    let probed = blocking(move || -> io::Result<bool> {
        let mut names = source.sample(LISTED)?;
        names.retain(|name| Some(name.as_str()) != failed.as_deref());
        fastrand::shuffle(&mut names);
        names.truncate(TRIED);
        let none_left = names.is_empty();
        Ok(none_left || names.iter().any(|name| can_be_read(&*source, name)))
    });
    probed
        .await
        .map_err(|error| ServiceOutage::new(NeededService::Source, &error))
}

fn can_be_read(source: &dyn Files, name: &FileName) -> bool {
    let read = source.read(name);
    read.and_then(|mut reader| reader.read(&mut [0])).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Cursor;

    use super::*;
    use streampress_transport::{ExactFile, ExactOutcome, FileEntry, Listing, PendingFile};

    /// A source with a file of this name cannot be listed.
    const UNLISTABLE: &str = "unlistable";

    /// Names, and whether they can be read.
    #[derive(Debug)]
    struct ProbedFiles(BTreeMap<&'static str, bool>);

    impl Files for ProbedFiles {
        fn location(&self) -> &str {
            "file:///data/in"
        }
        fn list(&self) -> io::Result<Listing> {
            if self.0.contains_key(UNLISTABLE) {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            let entry = |found: &&str| FileEntry {
                name: name(found),
                size: 1,
                modified: std::time::UNIX_EPOCH,
                fingerprint: String::new(),
                changed: None,
            };
            Ok(Listing {
                files: self.0.keys().map(entry).collect(),
                ..Listing::default()
            })
        }
        fn stat(&self, _name: &FileName) -> io::Result<Option<FileEntry>> {
            Ok(None)
        }
        fn read(&self, name: &FileName) -> io::Result<Box<dyn Read + Send>> {
            match self.0.get(name.as_str()) {
                Some(true) => Ok(Box::new(Cursor::new("words"))),
                Some(false) => Err(io::ErrorKind::PermissionDenied.into()),
                None => Err(io::ErrorKind::NotFound.into()),
            }
        }
        fn create(&self, _name: &FileName) -> io::Result<Box<dyn PendingFile>> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn remove(&self, _name: &FileName) -> io::Result<()> {
            Ok(())
        }
        fn rename(&self, _from: &FileName, _to: &FileName) -> io::Result<()> {
            Ok(())
        }
        fn list_reserved(&self, _folder: &FileName) -> io::Result<Vec<String>> {
            Ok(Vec::new())
        }
        fn remove_exact(&self, _file: &ExactFile<'_>) -> io::Result<ExactOutcome> {
            Ok(ExactOutcome::Changed)
        }
        fn rename_exact(&self, _file: &ExactFile<'_>, _to: &FileName) -> io::Result<ExactOutcome> {
            Ok(ExactOutcome::Changed)
        }
    }

    fn name(text: &str) -> FileName {
        FileName::parse(text).expect("a valid name")
    }

    /// What a probe says after `failed` could not be read.
    async fn probed(files: &[(&'static str, bool)], failed: &str) -> Result<bool, ServiceOutage> {
        let files: Arc<dyn Files> = Arc::new(ProbedFiles(files.iter().copied().collect()));
        let body = format!(r#"{{"ID": "1", "file_name": "{failed}"}}"#);
        let message = Message::parse(&body).expect("readable");
        source(&files, Some(&message)).await
    }

    #[tokio::test]
    async fn a_source_is_probed_with_another_file_than_the_one_that_failed() {
        for (files, another_can_be_read) in [
            (&[("a", false), ("b", true)][..], true),
            (&[("a", true), ("b", false)], false),
            (&[("a", false)], true),
            (&[], true),
        ] {
            assert_eq!(
                probed(files, "a").await,
                Ok(another_can_be_read),
                "{files:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_source_that_cannot_be_listed_is_down() {
        let outage = probed(&[(UNLISTABLE, true)], "a").await.expect_err("down");
        assert_eq!(outage.service, NeededService::Source);
    }
}
