//! The pipeline's own versions that the journal does not know. A database that was put back to an earlier state has lost what
//! was restored since; the records of the stream still describe it.

use std::collections::HashMap;
use std::sync::Arc;

use futures::TryStreamExt;
use tokio::sync::OnceCell;

use super::decide::{EntryState, JournalEntry};
use super::journal::DestinationJournal;
use crate::message::{DescribedFile, Digest};
use streampress_transport::{ChunkStream, FileName, FileVersion, TransportResult};

/// The versions whose records the stream has, and that are newer than all that the journal knew of their names.
#[derive(Debug, Clone)]
pub(super) struct OwnVersions {
    stream: Arc<dyn ChunkStream>,
    /// Read once, where a name holds what the journal does not know: every later version is in the journal.
    newer: Arc<OnceCell<NewerVersions>>,
}

/// By name and content.
type NewerVersions = HashMap<(String, Digest), DescribedVersion>;

/// A version, with its size in bytes.
#[derive(Debug, Clone)]
struct DescribedVersion {
    version: FileVersion,
    bytes: u64,
}

impl OwnVersions {
    pub(super) fn new(stream: Arc<dyn ChunkStream>) -> Self {
        Self {
            stream,
            newer: Arc::default(),
        }
    }

    /// The entry that the journal had for this content, if it is a newer version than the journal knows.
    pub(super) async fn find(
        &self,
        journal: &dyn DestinationJournal,
        name: &FileName,
        hash: &Digest,
    ) -> TransportResult<Option<JournalEntry>> {
        let newer = self.newer.get_or_try_init(|| self.read(journal)).await?;
        let Some(own) = newer.get(&(name.as_str().to_owned(), hash.clone())) else {
            return Ok(None);
        };
        // Others may put bytes back that were restored and replaced since they were read here.
        let stored = journal.load(name).await?;
        let is_newer = stored.is_none_or(|stored| is_newer(&own.version, Some(&stored.entry)));
        Ok(is_newer.then(|| JournalEntry {
            version: Some(own.version.clone()),
            hash: hash.clone(),
            bytes: own.bytes,
            state: EntryState::Visible,
            fingerprint: None,
            replaces: None,
            written_millis: 0,
            original: None,
        }))
    }

    async fn read(&self, journal: &dyn DestinationJournal) -> TransportResult<NewerVersions> {
        let known = journal.entries().await?.unwrap_or_default();
        let mut newer = NewerVersions::new();
        let mut pages = self.stream.scan();
        while let Some(page) = pages.try_next().await? {
            let found = page.iter().filter_map(|record| record.data.as_ref());
            for described in found.flat_map(DescribedFile::all_of) {
                let DescribedFile { file, version, .. } = described;
                let name = file.name.to_string();
                if !is_newer(&version, known.get(&name)) {
                    continue;
                }
                let bytes = file.bytes;
                let found = DescribedVersion { version, bytes };
                let same = newer.entry((name, file.hash)).or_insert(found.clone());
                if found.version > same.version {
                    *same = found;
                }
            }
        }
        Ok(newer)
    }
}

fn is_newer(version: &FileVersion, entry: Option<&JournalEntry>) -> bool {
    let known = entry.and_then(|entry| entry.version.as_ref());
    known.is_none_or(|known| version > known)
}
