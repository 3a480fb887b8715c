//! The journal in a data folder's database. A data folder has one destination at a time; names in another one are told
//! apart by their content.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use async_trait::async_trait;
use rusqlite::{OptionalExtension, params};

use super::decide::{EntryState, JournalEntry};
use super::journal::{DestinationJournal, StoredEntry};
use super::locks::{NameLock, NameLocks};
use crate::journal::SqliteJournal;
use crate::message::Digest;
use streampress_transport::{FileName, FileVersion, RESERVED_FOLDER, TransportResult};

/// The destination's part of a data folder's journal.
#[derive(Debug, Clone)]
pub struct DatabaseJournal {
    journal: SqliteJournal,
    locks: NameLocks,
}

impl DatabaseJournal {
    /// Of the journal in the data folder `data`, which the processes with the same journal share.
    pub fn new(journal: SqliteJournal, data: &Path) -> Self {
        Self {
            journal,
            locks: NameLocks::in_folder(&data.join(RESERVED_FOLDER)),
        }
    }
}

#[async_trait]
impl DestinationJournal for DatabaseJournal {
    async fn lock(&self, name: &FileName) -> io::Result<NameLock> {
        self.locks.lock(name).await
    }

    async fn load(&self, name: &FileName) -> TransportResult<Option<StoredEntry>> {
        let name = name.as_str().to_owned();
        self.journal
            .database()
            .read(move |step| {
                step.prepare_cached(&format!("{SELECT} WHERE name = ?1"))?
                    .query_row([name], read_entry)
                    .optional()
                    .map(Option::flatten)
            })
            .await
    }

    async fn entries(&self) -> TransportResult<Option<HashMap<String, JournalEntry>>> {
        self.journal
            .database()
            .read(|step| {
                let mut entries = HashMap::new();
                let mut select = step.prepare_cached(SELECT)?;
                let mut rows = select.query([])?;
                while let Some(row) = rows.next()? {
                    if let Some(stored) = read_entry(row)? {
                        entries.insert(row.get(7)?, stored.entry);
                    }
                }
                Ok(Some(entries))
            })
            .await
    }

    /// Without a sync of its own: the file's later steps (restored, acknowledged) are synced, and with them all that was
    /// written to the same database before. After a loss of power in between, the message comes again and finds its bytes.
    async fn store(
        &self,
        name: &FileName,
        entry: &JournalEntry,
        _over: Option<&StoredEntry>,
    ) -> TransportResult<StoredEntry> {
        let (name, stored) = (name.as_str().to_owned(), entry.clone());
        let entry = stored.clone();
        self.journal
            .database()
            .write_unsynced(move |step| {
                step.prepare_cached(
                    "INSERT OR REPLACE INTO destination(name, version, hash, bytes, visible, fingerprint, replaces, written_at)
                     VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                )?
                .execute(params![
                    name,
                    entry.version.map(String::from),
                    entry.hash.as_str(),
                    to_i64(entry.bytes),
                    entry.state == EntryState::Visible,
                    entry.fingerprint,
                    entry.replaces.map(String::from),
                    to_i64(entry.written_millis)
                ])?;
                Ok(())
            })
            .await?;
        Ok(StoredEntry {
            entry: stored,
            file: None,
        })
    }
}

const SELECT: &str = "SELECT version, hash, bytes, visible, fingerprint, replaces, written_at, name FROM destination";

/// `None` for a row whose hash is none: it says nothing of any content.
fn read_entry(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<StoredEntry>> {
    let digest = |text: Option<String>| text.and_then(|text| Digest::try_from(text).ok());
    let version: Option<String> = row.get(0)?;
    let Some(hash) = digest(row.get(1)?) else {
        return Ok(None);
    };
    let entry = JournalEntry {
        version: version.and_then(|text| text.parse::<FileVersion>().ok()),
        hash,
        bytes: to_u64(row.get(2)?),
        state: match row.get(3)? {
            true => EntryState::Visible,
            false => EntryState::Intent,
        },
        fingerprint: row.get(4)?,
        replaces: digest(row.get(5)?),
        written_millis: to_u64(row.get(6)?),
    };
    Ok(Some(StoredEntry { entry, file: None }))
}

fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn to_u64(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
