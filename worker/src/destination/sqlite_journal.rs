//! The journal in a data folder's database. Several pipelines, each with a destination of its own, may share the folder: each
//! name has an entry for each destination. What an earlier release wrote is of an unknown destination, and counts for each
//! until that has an entry of its own; names in another one are then told apart by their content.

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
use streampress_transport::{FileName, FileVersion, TransportResult};

/// A destination's part of a data folder's journal.
#[derive(Debug, Clone)]
pub struct DatabaseJournal {
    journal: SqliteJournal,
    locks: NameLocks,
    location: String,
}

impl DatabaseJournal {
    /// Of the destination `location` in the journal of the data folder `data`, which the processes with the same journal
    /// share.
    pub fn new(journal: SqliteJournal, data: &Path, location: &str) -> Self {
        Self {
            journal,
            locks: NameLocks::in_location(data),
            location: location.to_owned(),
        }
    }

    /// Whether files were restored to exactly this destination.
    pub(crate) async fn knows_its_location(&self) -> TransportResult<bool> {
        let location = self.location.clone();
        self.journal
            .database()
            .read(move |step| {
                step.prepare_cached(
                    "SELECT EXISTS(SELECT 1 FROM destination WHERE location = ?1)
                       OR EXISTS(SELECT 1 FROM other_destinations WHERE location = ?1)",
                )?
                .query_row([location], |row| row.get(0))
            })
            .await
    }
}

#[async_trait]
impl DestinationJournal for DatabaseJournal {
    async fn lock(&self, name: &FileName) -> io::Result<NameLock> {
        self.locks.lock(name).await
    }

    async fn load(&self, name: &FileName) -> TransportResult<Option<StoredEntry>> {
        let key = [self.location.clone(), name.as_str().to_owned()];
        self.journal
            .database()
            .read(move |step| {
                step.prepare_cached(&format!(
                    "{LAST} AND name = ?2 UNION ALL {OTHERS} AND name = ?2 ORDER BY written_at DESC LIMIT 1"
                ))?
                .query_row(key, read_entry)
                .optional()
                .map(Option::flatten)
            })
            .await
    }

    async fn entries(&self) -> TransportResult<Option<HashMap<String, JournalEntry>>> {
        let location = self.location.clone();
        self.journal
            .database()
            .read(move |step| {
                let mut entries: HashMap<String, JournalEntry> = HashMap::new();
                let mut select = step.prepare_cached(&format!("{LAST} UNION ALL {OTHERS}"))?;
                let mut rows = select.query([location])?;
                while let Some(row) = rows.next()? {
                    let (Some(StoredEntry { entry, .. }), name) = (read_entry(row)?, row.get(8)?)
                    else {
                        continue;
                    };
                    let known = entries.get(&name);
                    if known.is_none_or(|known| known.written_millis < entry.written_millis) {
                        entries.insert(name, entry);
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
        let (name, location) = (name.as_str().to_owned(), self.location.clone());
        let stored = entry.clone();
        let entry = stored.clone();
        self.journal
            .database()
            .write_unsynced(move |step| {
                // The row of another destination is kept; releases that know one destination read the last row.
                for sql in [
                    "INSERT OR REPLACE INTO other_destinations
                       SELECT location, name, version, hash, bytes, visible, fingerprint, replaces, written_at, original
                       FROM destination WHERE name = ?1 AND location <> ?2",
                    "DELETE FROM other_destinations WHERE name = ?1 AND location = ?2",
                ] {
                    step.prepare_cached(sql)?.execute([&name, &location])?;
                }
                step.prepare_cached(
                    "INSERT OR REPLACE INTO destination
                       (name, version, hash, bytes, visible, fingerprint, replaces, written_at, location, original)
                     VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                )?
                .execute(params![
                    name,
                    entry.version.map(String::from),
                    entry.hash.as_str(),
                    to_i64(entry.bytes),
                    entry.state == EntryState::Visible,
                    entry.fingerprint,
                    entry.replaces.map(String::from),
                    to_i64(entry.written_millis),
                    location,
                    entry.original.map(String::from),
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

/// The last rows, of the location or of an unknown one.
const LAST: &str =
    "SELECT version, hash, bytes, visible, fingerprint, replaces, written_at, original, name
  FROM destination WHERE (location = ?1 OR location IS NULL)";
/// The location's rows of names that were written to another one since.
const OTHERS: &str =
    "SELECT version, hash, bytes, visible, fingerprint, replaces, written_at, original, name
  FROM other_destinations WHERE location = ?1";

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
        original: digest(row.get(7)?),
    };
    Ok(Some(StoredEntry { entry, file: None }))
}

fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn to_u64(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use streampress_transport::local::{Local, LocalOptions};

    use super::*;

    fn entry(content: &str, written_millis: u64) -> JournalEntry {
        JournalEntry {
            version: None,
            hash: Digest::of(content.as_bytes()),
            bytes: content.len() as u64,
            state: EntryState::Visible,
            fingerprint: None,
            replaces: None,
            written_millis,
            original: Some(Digest::of(b"original")),
        }
    }

    #[tokio::test]
    async fn each_destination_has_its_own_entry_of_a_name() {
        let root = tempfile::tempdir().expect("a folder");
        let local = Local::open(root.path(), LocalOptions::default()).expect("opens");
        let journal = SqliteJournal::open(&local).expect("opens");
        let of = |location: &str| DatabaseJournal::new(journal.clone(), root.path(), location);
        let name = FileName::parse("a.csv").expect("a valid name");
        let known = async |location: &str| {
            let journal = of(location);
            let loaded = journal.load(&name).await.expect("read").map(|it| it.entry);
            let all = journal.entries().await.expect("read").unwrap_or_default();
            assert_eq!(all.get("a.csv"), loaded.as_ref());
            loaded
        };
        for (millis, (location, content)) in
            [("one", "a"), ("two", "b"), ("one", "c"), ("two", "d")]
                .into_iter()
                .enumerate()
        {
            // Clocks may go back.
            let entry = entry(content, 10 - millis as u64);
            let stored = of(location).store(&name, &entry, None).await;
            stored.expect("stored");
            assert_eq!(known(location).await, Some(entry));
        }
        assert_eq!(known("one").await, Some(entry("c", 8)));
        assert_eq!(known("two").await, Some(entry("d", 7)));
        assert_eq!(known("three").await, None);
        for (location, is_known) in [("one", true), ("two", true), ("three", false)] {
            let found = of(location).knows_its_location().await;
            assert_eq!(found.expect("read"), is_known, "{location}");
        }
        // As a release that knows one destination writes it.
        let written = journal.database().write(|step| {
            step.prepare_cached(
                "INSERT OR REPLACE INTO destination(name, version, hash, bytes, visible, fingerprint, replaces, written_at)
                 SELECT name, version, hash, bytes, visible, fingerprint, replaces, 20 FROM destination",
            )?
            .execute([])
        });
        written.await.expect("written");
        let of_before = JournalEntry {
            original: None,
            ..entry("d", 20)
        };
        for location in ["one", "two", "three"] {
            assert_eq!(known(location).await, Some(of_before.clone()), "{location}");
        }
    }
}
