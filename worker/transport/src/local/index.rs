//! What became of every file, in one table: for progress, for resuming, and for knowing what was announced already.
//! A file only ever moves forward (announced, compressed, restored or superseded or failed); repeating a step changes
//! nothing. The one way back is [`Index::redriven`].

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{OptionalExtension, ToSql, params};
use serde::Serialize;

use super::store::Store;
use crate::TransportResult;

/// The folder's index of files.
#[derive(Debug, Clone)]
pub struct Index {
    store: Arc<Store>,
}

/// What is known of a file when it is announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedFile {
    /// See the design: location, name and content hash.
    pub file_id: String,
    /// Below its location.
    pub name: String,
    /// Bytes of the original.
    pub raw_bytes: u64,
    /// The original's version.
    pub modified: SystemTime,
    /// Hash of the original.
    pub hash: String,
}

/// How far the files are. A file counts once in each step that it has behind it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Files known at all.
    pub announced: u64,
    /// Files that have been compressed.
    pub compressed: u64,
    /// Files that came back and were checked.
    pub restored: u64,
    /// Files that a newer version of the same name overtook.
    pub superseded: u64,
    /// Files that are dead letters now.
    pub failed: u64,
    /// Bytes of all announced files.
    pub bytes_announced: u64,
    /// Bytes of the originals of compressed files.
    pub bytes_raw: u64,
    /// Bytes they were compressed to.
    pub bytes_packed: u64,
    /// Bytes of restored files.
    pub bytes_restored: u64,
}

impl Progress {
    /// Files neither restored, nor superseded, nor failed.
    pub fn unfinished(&self) -> u64 {
        self.announced
            .saturating_sub(self.restored + self.superseded + self.failed)
    }
}

/// A file that is still on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// See [`IndexedFile::file_id`].
    pub file_id: String,
    /// See [`IndexedFile::name`].
    pub name: String,
    /// Whether it has been compressed.
    pub compressed: bool,
}

impl Index {
    pub(super) fn new(store: &Arc<Store>) -> Self {
        Self {
            store: Arc::clone(store),
        }
    }

    /// The file is known. Keeps what is known already, and how far it is.
    pub async fn announced(&self, file: &IndexedFile) -> TransportResult<()> {
        let file = file.clone();
        self.store
            .call(move |step| {
                step.conn
                    .prepare_cached(
                        "INSERT INTO files(file_id, name, raw_bytes, modified, hash, announced_at) VALUES(?1, ?2, ?3, ?4, ?5, ?6)
                         ON CONFLICT(file_id) DO UPDATE SET name = ?2, raw_bytes = ?3, modified = max(modified, ?4), hash = ?5,
                           announced_at = coalesce(announced_at, ?6)",
                    )?
                    .execute(params![
                        file.file_id,
                        file.name,
                        to_i64(file.raw_bytes),
                        nanos(file.modified),
                        file.hash,
                        step.now
                    ])?;
                Ok(())
            })
            .await
    }

    /// The file's bytes are in the stream.
    pub async fn compressed(&self, file_id: &str, packed_bytes: u64) -> TransportResult<()> {
        self.mark(
            file_id,
            "UPDATE files SET compressed_at = coalesce(compressed_at, ?2), packed_bytes = ?3 WHERE file_id = ?1",
            Box::new(to_i64(packed_bytes)),
        )
        .await
    }

    /// The file is at its destination and its hash is right. A failure noted before is over.
    pub async fn restored(&self, file_id: &str) -> TransportResult<()> {
        self.mark(
            file_id,
            "UPDATE files SET restored_at = coalesce(restored_at, ?2), verified = ?3, failed_at = NULL, reason = NULL,
               superseded_at = NULL WHERE file_id = ?1",
            Box::new(1),
        )
        .await
    }

    /// A newer version of the same name is at the destination already.
    pub async fn superseded(&self, file_id: &str) -> TransportResult<()> {
        self.mark(
            file_id,
            "UPDATE files SET superseded_at = coalesce(superseded_at, ?2), failed_at = NULL, reason = NULL
             WHERE file_id = ?1 AND restored_at IS NULL AND ?3 = 0",
            Box::new(0),
        )
        .await
    }

    /// The file is a dead letter now. A file that is done already stays done.
    pub async fn failed(&self, file_id: &str, reason: &str) -> TransportResult<()> {
        self.mark(
            file_id,
            "UPDATE files SET failed_at = coalesce(failed_at, ?2), reason = ?3
             WHERE file_id = ?1 AND restored_at IS NULL AND superseded_at IS NULL",
            Box::new(reason.to_owned()),
        )
        .await
    }

    /// The dead letter was sent again: the file is on its way once more.
    pub async fn redriven(&self, file_id: &str) -> TransportResult<()> {
        self.mark(
            file_id,
            "UPDATE files SET failed_at = NULL, reason = NULL, announced_at = coalesce(announced_at, ?2)
             WHERE file_id = ?1 AND ?3 = 0",
            Box::new(0),
        )
        .await
    }

    /// How far the files are.
    pub async fn progress(&self) -> TransportResult<Progress> {
        self.store
            .call_unsynced(|step| {
                let progress = step.conn.prepare_cached(PROGRESS)?.query_row([], |row| {
                    let number = |column| {
                        row.get::<_, i64>(column)
                            .map(|n| u64::try_from(n).unwrap_or(0))
                    };
                    Ok(Progress {
                        announced: number(0)?,
                        compressed: number(1)?,
                        restored: number(2)?,
                        superseded: number(3)?,
                        failed: number(4)?,
                        bytes_announced: number(5)?,
                        bytes_raw: number(6)?,
                        bytes_packed: number(7)?,
                        bytes_restored: number(8)?,
                    })
                })?;
                Ok(progress)
            })
            .await
    }

    /// At most `limit` files that are still on their way, oldest first; failed ones are not among them.
    pub async fn unfinished(&self, limit: u32) -> TransportResult<Vec<Unfinished>> {
        self.store
            .call_unsynced(move |step| {
                let files = step
                    .conn
                    .prepare_cached(
                        "SELECT file_id, name, compressed_at IS NOT NULL FROM files
                         WHERE restored_at IS NULL AND superseded_at IS NULL AND failed_at IS NULL
                         ORDER BY announced_at LIMIT ?1",
                    )?
                    .query_map([limit], |row| {
                        Ok(Unfinished {
                            file_id: row.get(0)?,
                            name: row.get(1)?,
                            compressed: row.get(2)?,
                        })
                    })?
                    .collect::<rusqlite::Result<Vec<_>>>()?;
                Ok(files)
            })
            .await
    }

    /// The reasons of failed files, at most `limit`: name and reason.
    pub async fn failures(&self, limit: u32) -> TransportResult<Vec<(String, String)>> {
        self.store
            .call_unsynced(move |step| {
                let failures = step
                    .conn
                    .prepare_cached(
                        "SELECT name, coalesce(reason, '') FROM files WHERE failed_at IS NOT NULL ORDER BY failed_at LIMIT ?1",
                    )?
                    .query_map([limit], |row| Ok((row.get(0)?, row.get(1)?)))?
                    .collect::<rusqlite::Result<Vec<_>>>()?;
                Ok(failures)
            })
            .await
    }

    /// Whether a file of this name, size and version was announced before.
    pub async fn seen(
        &self,
        name: &str,
        raw_bytes: u64,
        modified: SystemTime,
    ) -> TransportResult<bool> {
        let name = name.to_owned();
        self.store
            .call_unsynced(move |step| {
                let seen = step
                    .conn
                    .prepare_cached(
                        "SELECT EXISTS(SELECT 1 FROM files WHERE name = ?1 AND raw_bytes = ?2 AND modified = ?3)",
                    )?
                    .query_row(params![name, to_i64(raw_bytes), nanos(modified)], |row| row.get(0))?;
                Ok(seen)
            })
            .await
    }

    /// A small value kept under `key`.
    pub async fn get(&self, key: &str) -> TransportResult<Option<String>> {
        let key = key.to_owned();
        self.store
            .call_unsynced(move |step| {
                let value = step
                    .conn
                    .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
                    .query_row([key], |row| row.get(0))
                    .optional()?;
                Ok(value)
            })
            .await
    }

    /// Keeps a small value under `key`.
    pub async fn set(&self, key: &str, value: &str) -> TransportResult<()> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.store
            .call(move |step| {
                step.conn
                    .prepare_cached("INSERT OR REPLACE INTO meta(key, value) VALUES(?1, ?2)")?
                    .execute([key, value])?;
                Ok(())
            })
            .await
    }

    /// Runs `sql` with the file's id, the time and `value`. A file not known yet gets a row that
    /// [`Index::announced`] fills in later: roles may be faster than the one that announced.
    async fn mark(
        &self,
        file_id: &str,
        sql: &'static str,
        value: Box<dyn ToSql + Send>,
    ) -> TransportResult<()> {
        let file_id = file_id.to_owned();
        self.store
            .call(move |step| {
                step.conn
                    .prepare_cached("INSERT OR IGNORE INTO files(file_id) VALUES(?1)")?
                    .execute([&file_id])?;
                step.conn
                    .prepare_cached(sql)?
                    .execute(params![file_id, step.now, value])?;
                Ok(())
            })
            .await
    }
}

const PROGRESS: &str = "SELECT announced, compressed, restored, superseded, failed,
  bytes_announced, bytes_raw, bytes_packed, bytes_restored FROM totals";

fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Nanoseconds since 1970, before it negative.
fn nanos(time: SystemTime) -> i64 {
    let signed = |d: Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => signed(after),
        Err(before) => -signed(before.duration()),
    }
}
