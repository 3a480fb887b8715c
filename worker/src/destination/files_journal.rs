//! A journal kept at the destination itself, one small file per name below the reserved folder: for workers that share a
//! volume or a bucket and nothing else.

use std::io::{self, Read, Write};
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tracing::warn;

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
        Err(error) => {
            // Without its entry the restored file counts as another program's, which is kept.
            warn!(file_name = name.as_str(), %error, "The journal's entry of a restored file cannot be read.");
            files.remove(&at)?;
            Ok(None)
        }
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
