//! A journal kept at the destination itself, one small file per name below the reserved folder: for workers that share a
//! volume or a bucket and nothing else.

use std::io::{self, Read, Write};
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::decide::JournalEntry;
use super::journal::{DestinationJournal, StoredEntry};
use super::locks::{NameLock, NameLocks};
use crate::message::Digest;
use crate::runtime::{self, blocking};
use streampress_transport::{FileName, Files, ReservedEntry, TransportError, TransportResult};

/// An entry's file is some hundred bytes; a name has up to 3 KiB.
const LONGEST_ENTRY_BYTES: u64 = 64 << 10;

/// See the file's head.
#[derive(Debug, Clone)]
pub struct FilesJournal {
    files: Arc<dyn Files>,
    /// Without locks, writes are conditional.
    locks: Option<NameLocks>,
}

/// The content of an entry's file.
#[derive(Debug, Serialize, Deserialize)]
struct NamedEntry {
    name: FileName,
    #[serde(flatten)]
    entry: JournalEntry,
}

impl FilesJournal {
    /// A journal at the location. A folder needs locks; a bucket has conditional writes instead.
    pub fn new(files: Arc<dyn Files>, locks: Option<NameLocks>) -> Self {
        Self { files, locks }
    }
}

/// The name of a name's entry.
fn file_name(name: &FileName) -> io::Result<FileName> {
    let digest = Digest::of(name.as_str().as_bytes());
    let (shard, rest) = digest.as_str().split_at(2);
    ReservedEntry::Journal.file(&format!("{shard}/{rest}.json"))
}

fn load(files: &dyn Files, name: &FileName) -> io::Result<Option<StoredEntry>> {
    let at = file_name(name)?;
    let Some(file) = files.stat(&at)? else {
        return Ok(None);
    };
    let mut json = Vec::new();
    files
        .read(&at)?
        .take(LONGEST_ENTRY_BYTES)
        .read_to_end(&mut json)?;
    match serde_json::from_slice::<NamedEntry>(&json) {
        Ok(named) => Ok(Some(StoredEntry {
            entry: named.entry,
            file: Some(file),
        })),
        // Only the entry knows which version was restored last: without it an older one would be written over a newer one.
        Err(error) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{at} cannot be read: {error}; a newer release may have written it; if it is damaged, remove it, and what \
                 lies under the name is set aside as another program's file"
            ),
        )),
    }
}

fn store(
    files: &dyn Files,
    name: &FileName,
    entry: &JournalEntry,
    over: Option<&StoredEntry>,
) -> io::Result<StoredEntry> {
    let named = NamedEntry {
        name: name.clone(),
        entry: entry.clone(),
    };
    let json = serde_json::to_vec(&named)?;
    let mut pending = files.create(&file_name(name)?)?;
    pending.write_all(&json)?;
    let seen = over.and_then(|stored| stored.file.as_ref());
    let file = pending.commit_over(runtime::now(), seen)?;
    Ok(StoredEntry {
        entry: named.entry,
        file: Some(file),
    })
}

#[async_trait]
impl DestinationJournal for FilesJournal {
    async fn lock(&self, name: &FileName) -> io::Result<NameLock> {
        match &self.locks {
            Some(locks) => locks.lock(name).await,
            None => Ok(NameLock::none()),
        }
    }

    async fn load(&self, name: &FileName) -> TransportResult<Option<StoredEntry>> {
        let (files, wanted) = (self.files.clone(), name.clone());
        let loaded = blocking(move || load(&*files, &wanted)).await;
        loaded.map_err(|error| {
            TransportError::unavailable(format!("reading the journal's entry of {name}"), error)
        })
    }

    async fn store(
        &self,
        name: &FileName,
        entry: &JournalEntry,
        over: Option<&StoredEntry>,
    ) -> TransportResult<StoredEntry> {
        let (files, wanted) = (self.files.clone(), name.clone());
        let (entry, over) = (entry.clone(), over.cloned());
        let stored = blocking(move || store(&*files, &wanted, &entry, over.as_ref())).await;
        stored.map_err(|error| {
            TransportError::unavailable(format!("writing the journal's entry of {name}"), error)
        })
    }
}

#[cfg(test)]
mod tests {
    use streampress_transport::FileVersion;
    use streampress_transport::local::files::LocalFiles;

    use super::*;
    use crate::destination::decide::EntryState;

    #[tokio::test]
    async fn an_entry_that_cannot_be_read_is_kept_and_named_with_the_remedy() {
        let root = tempfile::tempdir().expect("a folder");
        let files = LocalFiles::open("file:///data/out", root.path()).expect("opens");
        let journal = FilesJournal::new(Arc::new(files), None);
        let name = FileName::parse("a.csv").expect("a name");
        let entry = JournalEntry {
            version: Some(FileVersion::new("files", 1, 1.into())),
            hash: Digest::of(b"a"),
            state: EntryState::Visible,
            bytes: 1,
            replaces: None,
            fingerprint: None,
            written_millis: 1,
            original: None,
        };
        let stored = journal.store(&name, &entry, None).await.expect("stored");
        assert_eq!(journal.load(&name).await.expect("read"), Some(stored));

        let at = root.path().join(file_name(&name).expect("a name").as_str());
        for damaged in ["", "{", r#"{"state": "archived"}"#] {
            std::fs::write(&at, damaged).expect("written");
            let error = journal.load(&name).await.expect_err("damaged");
            let error = streampress_transport::error_chain(&error);
            assert!(error.contains("remove it"), "{error}");
            assert_eq!(std::fs::read_to_string(&at).expect("kept"), damaged);
        }
    }
}
