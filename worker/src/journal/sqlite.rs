//! The journal as tables of the embedded transport's database, written in the same transactions as its queues.

use std::time::SystemTime;

use async_trait::async_trait;
use rusqlite::{OptionalExtension, ToSql, params};
use streampress_transport::local::{Database, DatabaseStep, Local, Migrations};
use streampress_transport::{Failure, TransportResult};

use crate::message::Digest;

use super::sqlite_values::{failure_in, nanos, to_i64};
use super::sqlite_versions::settle_versions;
use super::{
    CheckedFile, FileJournal, FileStatus, JournalFile, JournalProgress, OpenFile, SourceJournal,
    SourceReceipt, SourceRecord, sqlite_sources,
};

/// The journal's tables. `totals` is kept by the triggers of [`TOTALS`]: progress is read often, and files may be many.
///
/// Of the files of one name, `announced_at` and `restored_at` are in the order of events: an event is later than the one
/// before also where the clock was set back in between.
const MIGRATIONS: Migrations = Migrations {
    module: "journal",
    steps: &[TABLES, DESTINATION],
};

/// The first version creates what is missing only: databases from before modules had versions hold these tables already.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS files(
  file_id TEXT PRIMARY KEY,
  name TEXT NOT NULL DEFAULT '',
  raw_bytes INTEGER NOT NULL DEFAULT 0,
  packed_bytes INTEGER NOT NULL DEFAULT 0,
  modified INTEGER NOT NULL DEFAULT 0,
  hash TEXT NOT NULL DEFAULT '',
  announced_at INTEGER,
  compressed_at INTEGER,
  restored_at INTEGER,
  superseded_at INTEGER,
  failed_at INTEGER,
  reason TEXT,
  verified INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_name ON files(name);
CREATE INDEX IF NOT EXISTS files_open ON files(announced_at) WHERE restored_at IS NULL AND superseded_at IS NULL;
CREATE TABLE IF NOT EXISTS totals(
  announced INTEGER NOT NULL,
  compressed INTEGER NOT NULL,
  restored INTEGER NOT NULL,
  superseded INTEGER NOT NULL,
  failed INTEGER NOT NULL,
  bytes_announced INTEGER NOT NULL,
  bytes_raw INTEGER NOT NULL,
  bytes_packed INTEGER NOT NULL,
  bytes_restored INTEGER NOT NULL
);
INSERT INTO totals SELECT 0, 0, 0, 0, 0, 0, 0, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM totals);
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
";

/// A module of its own, which programs that do not know it leave alone.
const TOTALS_MIGRATIONS: Migrations = Migrations {
    module: "totals",
    steps: &[TOTALS],
};

/// Of a file whose manifest the database lost, the packed size is not known: neither size counts. Earlier releases made the triggers
/// with the tables, and counted the size before packing.
const TOTALS: &str = "
DROP TRIGGER IF EXISTS files_inserted;
DROP TRIGGER IF EXISTS files_updated;
CREATE TRIGGER files_inserted AFTER INSERT ON files BEGIN UPDATE totals SET
  announced = announced + 1,
  compressed = compressed + (NEW.compressed_at IS NOT NULL),
  restored = restored + (NEW.restored_at IS NOT NULL),
  superseded = superseded + (NEW.superseded_at IS NOT NULL),
  failed = failed + (NEW.failed_at IS NOT NULL),
  bytes_announced = bytes_announced + NEW.raw_bytes,
  bytes_raw = bytes_raw + NEW.raw_bytes * (NEW.compressed_at IS NOT NULL AND NEW.packed_bytes > 0),
  bytes_packed = bytes_packed + NEW.packed_bytes,
  bytes_restored = bytes_restored + NEW.raw_bytes * (NEW.restored_at IS NOT NULL);
END;
CREATE TRIGGER files_updated AFTER UPDATE ON files BEGIN UPDATE totals SET
  compressed = compressed + (NEW.compressed_at IS NOT NULL) - (OLD.compressed_at IS NOT NULL),
  restored = restored + (NEW.restored_at IS NOT NULL) - (OLD.restored_at IS NOT NULL),
  superseded = superseded + (NEW.superseded_at IS NOT NULL) - (OLD.superseded_at IS NOT NULL),
  failed = failed + (NEW.failed_at IS NOT NULL) - (OLD.failed_at IS NOT NULL),
  bytes_announced = bytes_announced + NEW.raw_bytes - OLD.raw_bytes,
  bytes_raw = bytes_raw + NEW.raw_bytes * (NEW.compressed_at IS NOT NULL AND NEW.packed_bytes > 0)
    - OLD.raw_bytes * (OLD.compressed_at IS NOT NULL AND OLD.packed_bytes > 0),
  bytes_packed = bytes_packed + NEW.packed_bytes - OLD.packed_bytes,
  bytes_restored = bytes_restored + NEW.raw_bytes * (NEW.restored_at IS NOT NULL) - OLD.raw_bytes * (OLD.restored_at IS NOT NULL);
END;
UPDATE totals SET (announced, compressed, restored, superseded, failed,
    bytes_announced, bytes_raw, bytes_packed, bytes_restored) =
  (SELECT count(*), count(compressed_at), count(restored_at), count(superseded_at), count(failed_at),
    coalesce(sum(raw_bytes), 0),
    coalesce(sum(raw_bytes) FILTER (WHERE compressed_at IS NOT NULL AND packed_bytes > 0), 0),
    coalesce(sum(packed_bytes), 0), coalesce(sum(raw_bytes) FILTER (WHERE restored_at IS NOT NULL), 0) FROM files);
";

/// What is visible at the destination, by name. What earlier releases restored has no version: any version is newer.
/// SQLite takes the other columns from the row that has the maximum.
const DESTINATION: &str = "
CREATE TABLE IF NOT EXISTS destination(
  name TEXT PRIMARY KEY,
  version TEXT,
  hash TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  visible INTEGER NOT NULL,
  fingerprint TEXT,
  replaces TEXT,
  written_at INTEGER NOT NULL
) WITHOUT ROWID;
INSERT OR IGNORE INTO destination(name, hash, bytes, visible, written_at)
  SELECT name, hash, raw_bytes, 1, max(restored_at) FROM files
  WHERE restored_at IS NOT NULL AND name <> '' AND hash <> '' GROUP BY name;
";

/// A module of its own, which programs that do not know it leave alone: a row that they write has no location.
const LOCATIONS_MIGRATIONS: Migrations = Migrations {
    module: "destinations",
    steps: &[LOCATIONS],
};

/// `destination` has the last row of each name, of whichever location; `other_destinations` has those of the locations that
/// the name was written to before. `original` is the hash of the file whose normal form was restored.
const LOCATIONS: &str = "
ALTER TABLE destination ADD COLUMN location TEXT;
ALTER TABLE destination ADD COLUMN original TEXT;
CREATE TABLE IF NOT EXISTS other_destinations(
  location TEXT NOT NULL,
  name TEXT NOT NULL,
  version TEXT,
  hash TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  visible INTEGER NOT NULL,
  fingerprint TEXT,
  replaces TEXT,
  written_at INTEGER NOT NULL,
  original TEXT,
  PRIMARY KEY(location, name)
) WITHOUT ROWID;
";

/// A module of its own, too.
const CHECKED_MIGRATIONS: Migrations = Migrations {
    module: "checked",
    steps: &[CHECKED, CHECKED_OF_LOCATIONS],
};

/// What was read at the destination.
const CHECKED: &str = "
CREATE TABLE IF NOT EXISTS checked(name TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, hash TEXT NOT NULL) WITHOUT ROWID;
";

const CHECKED_OF_LOCATIONS: &str = "
DROP TABLE checked;
CREATE TABLE checked(
  location TEXT NOT NULL,
  name TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  hash TEXT NOT NULL,
  PRIMARY KEY(location, name)
) WITHOUT ROWID;
";

/// A module of its own too.
const EARLIER_MIGRATIONS: Migrations = Migrations {
    module: "earlier",
    steps: &[EARLIER],
};

/// How far files were when the same content was announced again.
const EARLIER: &str = "
CREATE TABLE IF NOT EXISTS earlier(
  file_id TEXT PRIMARY KEY,
  compressed_at INTEGER,
  packed_bytes INTEGER NOT NULL,
  restored_at INTEGER
) WITHOUT ROWID;
";

/// The journal of a data folder.
#[derive(Debug, Clone)]
pub struct SqliteJournal {
    database: Database,
}

impl SqliteJournal {
    /// Opens the journal in `local`'s folder, creating its tables if they are missing. Blocks for some milliseconds.
    pub fn open(local: &Local) -> TransportResult<Self> {
        let database = local.database(&MIGRATIONS)?;
        local.database(&TOTALS_MIGRATIONS)?;
        local.database(&sqlite_sources::MIGRATIONS)?;
        local.database(&LOCATIONS_MIGRATIONS)?;
        local.database(&CHECKED_MIGRATIONS)?;
        local.database(&EARLIER_MIGRATIONS)?;
        Ok(Self { database })
    }

    /// The tables.
    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// Runs `sql` with the file's id, the time and `value`. A file not known yet gets a row that
    /// [`FileJournal::record_announced`] fills in later: roles may be faster than the one that announced.
    async fn mark(
        &self,
        file_id: &str,
        sql: &'static str,
        value: Box<dyn ToSql + Send>,
    ) -> TransportResult<()> {
        let file_id = file_id.to_owned();
        self.database
            .write(move |step| mark_in(step, &file_id, sql, &*value))
            .await
    }

    /// The same for the end of a file, which may make failed versions of its name superseded.
    async fn mark_end(
        &self,
        file_id: &str,
        sql: &'static str,
        value: Box<dyn ToSql + Send>,
    ) -> TransportResult<()> {
        let file_id = file_id.to_owned();
        self.database
            .write(move |step| {
                mark_in(step, &file_id, sql, &*value)?;
                settle_versions(step, &file_id)
            })
            .await
    }
}

fn mark_in(
    step: &DatabaseStep<'_>,
    file_id: &str,
    sql: &str,
    value: &dyn ToSql,
) -> rusqlite::Result<()> {
    step.prepare_cached("INSERT OR IGNORE INTO files(file_id) VALUES(?1)")?
        .execute([file_id])?;
    step.prepare_cached(sql)?
        .execute(params![file_id, step.now_millis(), value])?;
    Ok(())
}

/// The failed files. They are found by the index of the files that are not done: a report asks often, and a folder may have
/// millions that are.
const FAILED: &str =
    "FROM files WHERE restored_at IS NULL AND superseded_at IS NULL AND failed_at IS NOT NULL";

#[async_trait]
impl SourceJournal for SqliteJournal {
    async fn sources(&self, location: &str) -> TransportResult<Vec<SourceRecord>> {
        sqlite_sources::all(&self.database, location.to_owned()).await
    }

    async fn source(&self, location: &str, name: &str) -> TransportResult<Option<SourceRecord>> {
        sqlite_sources::one(&self.database, location.to_owned(), name.to_owned()).await
    }

    async fn record_announcements(&self, records: &[SourceRecord]) -> TransportResult<()> {
        sqlite_sources::announce(&self.database, records.to_vec()).await
    }

    async fn record_sent(&self, records: &[SourceRecord]) -> TransportResult<()> {
        sqlite_sources::sent(&self.database, records).await
    }

    async fn record_sources(&self, records: &[SourceRecord]) -> TransportResult<()> {
        sqlite_sources::write(&self.database, records.to_vec()).await
    }

    async fn record_read_again(&self, record: &SourceRecord) -> TransportResult<bool> {
        sqlite_sources::read_again(&self.database, record.clone()).await
    }

    async fn forget_sources(&self, records: &[SourceRecord]) -> TransportResult<()> {
        sqlite_sources::forget(&self.database, records).await
    }

    async fn record_receipt(&self, receipt: &SourceReceipt) -> TransportResult<()> {
        sqlite_sources::receipt(&self.database, receipt.clone()).await
    }

    async fn take_in(&self) -> TransportResult<Vec<SourceRecord>> {
        // All processes share the database.
        Ok(Vec::new())
    }

    async fn may_have_unconfirmed(&self) -> TransportResult<bool> {
        let progress = self.progress().await?;
        Ok(progress.unfinished() + progress.failed > 0)
    }

    async fn get(&self, key: &str) -> TransportResult<Option<String>> {
        let key = key.to_owned();
        self.database
            .read(move |step| {
                let value = step
                    .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
                    .query_row([key], |row| row.get(0))
                    .optional()?;
                Ok(value)
            })
            .await
    }

    async fn set(&self, key: &str, value: &str) -> TransportResult<()> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.database
            .write(move |step| {
                step.prepare_cached("INSERT OR REPLACE INTO meta(key, value) VALUES(?1, ?2)")?
                    .execute([key, value])?;
                Ok(())
            })
            .await
    }

    async fn flush_sources(&self) -> TransportResult<()> {
        // Every record is durable at once.
        Ok(())
    }
}

#[async_trait]
impl FileJournal for SqliteJournal {
    async fn record_announced(&self, file: &JournalFile) -> TransportResult<()> {
        let file = file.clone();
        self.database
            .write(move |step| {
                step
                    .prepare_cached(
                        "INSERT INTO files(file_id, name, raw_bytes, modified, hash, announced_at) VALUES(?1, ?2, ?3, ?4, ?5,
                           max(?6, coalesce((SELECT max(announced_at) + 1 FROM files WHERE name = ?2), 0)))
                         ON CONFLICT(file_id) DO UPDATE SET name = ?2, raw_bytes = ?3, modified = max(modified, ?4), hash = ?5,
                           announced_at = coalesce(announced_at, excluded.announced_at)",
                    )?
                    .execute(params![
                        file.file_id,
                        file.name,
                        to_i64(file.raw_bytes),
                        nanos(file.modified),
                        file.hash,
                        step.now_millis()
                    ])?;
                Ok(())
            })
            .await
    }

    async fn record_compressed(&self, file_id: &str, packed_bytes: u64) -> TransportResult<()> {
        self.mark(
            file_id,
            "UPDATE files SET compressed_at = coalesce(compressed_at, ?2), packed_bytes = ?3 WHERE file_id = ?1",
            Box::new(to_i64(packed_bytes)),
        )
        .await
    }

    async fn record_received(&self, file_id: &str, packed_bytes: u64) -> TransportResult<()> {
        self.mark(
            file_id,
            "UPDATE files SET compressed_at = ?2, packed_bytes = ?3 WHERE file_id = ?1 AND compressed_at IS NULL",
            Box::new(to_i64(packed_bytes)),
        )
        .await
    }

    async fn record_restored(&self, file_id: &str, packed_bytes: u64) -> TransportResult<()> {
        self.mark_end(
            file_id,
            "UPDATE files SET restored_at = coalesce(restored_at, max(?2, coalesce((SELECT max(o.restored_at) + 1 FROM files o
                 WHERE o.name = nullif(files.name, '')), 0))), verified = 1, failed_at = NULL, reason = NULL,
               superseded_at = NULL, compressed_at = coalesce(compressed_at, ?2),
               packed_bytes = iif(compressed_at IS NULL, ?3, packed_bytes) WHERE file_id = ?1",
            Box::new(to_i64(packed_bytes)),
        )
        .await
    }

    async fn record_superseded(&self, file_id: &str) -> TransportResult<()> {
        self.mark_end(
            file_id,
            "UPDATE files SET superseded_at = coalesce(superseded_at, ?2), failed_at = NULL, reason = NULL
             WHERE file_id = ?1 AND restored_at IS NULL AND ?3 = 0",
            Box::new(0),
        )
        .await
    }

    async fn record_failed(&self, file_id: &str, failure: &Failure) -> TransportResult<()> {
        self.mark_end(
            file_id,
            "UPDATE files SET failed_at = coalesce(failed_at, ?2), reason = ?3
             WHERE file_id = ?1 AND restored_at IS NULL AND superseded_at IS NULL",
            Box::new(failure.to_string()),
        )
        .await
    }

    async fn record_redriven(&self, file_id: &str) -> TransportResult<()> {
        self.mark(
            file_id,
            "UPDATE files SET failed_at = NULL, reason = NULL, announced_at = coalesce(announced_at, ?2)
             WHERE file_id = ?1 AND ?3 = 0",
            Box::new(0),
        )
        .await
    }

    async fn record_recovered(&self, file_id: &str) -> TransportResult<()> {
        self.mark(
            file_id,
            "UPDATE files SET restored_at = NULL, superseded_at = NULL, failed_at = NULL, reason = NULL,
               announced_at = coalesce(announced_at, ?2)
             WHERE file_id = ?1 AND ?3 = 0",
            Box::new(0),
        )
        .await
    }

    async fn record_discarded(&self, file_id: &str) -> TransportResult<()> {
        let file_id = file_id.to_owned();
        self.database
            .write(move |step| {
                // The table's trigger takes the rest out of the totals.
                let emptied = step
                    .prepare_cached(
                        "UPDATE files SET raw_bytes = 0, packed_bytes = 0, compressed_at = NULL, failed_at = NULL
                         WHERE file_id = ?1 AND failed_at IS NOT NULL",
                    )?
                    .execute([&file_id])?;
                if emptied == 0 {
                    return Ok(());
                }
                for sql in [
                    "DELETE FROM files WHERE file_id = ?1",
                    "DELETE FROM sources WHERE file_id = ?1",
                    "DELETE FROM earlier WHERE file_id = ?1",
                    "UPDATE totals SET announced = announced - 1 WHERE ?1 <> ''",
                    "INSERT INTO meta(key, value) SELECT 'discarded', '1' WHERE ?1 <> ''
                       ON CONFLICT(key) DO UPDATE SET value = value + 1",
                ] {
                    step.prepare_cached(sql)?.execute([&file_id])?;
                }
                Ok(())
            })
            .await
    }

    async fn progress(&self) -> TransportResult<JournalProgress> {
        self.database
            .read(|step| {
                let progress = step.prepare_cached(PROGRESS)?.query_row([], |row| {
                    let number = |column| {
                        row.get::<_, i64>(column)
                            .map(|n| u64::try_from(n).unwrap_or(0))
                    };
                    Ok(JournalProgress {
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

    async fn oldest_packed_millis(&self) -> TransportResult<Option<u64>> {
        self.database
            .read(|step| {
                let oldest: Option<i64> = step
                    .prepare_cached(
                        "SELECT min(compressed_at) FROM files WHERE restored_at IS NULL AND superseded_at IS NULL",
                    )?
                    .query_row([], |row| row.get(0))?;
                Ok(oldest.and_then(|millis| u64::try_from(millis).ok()))
            })
            .await
    }

    async fn failures(&self, limit: u32) -> TransportResult<Vec<(String, Failure)>> {
        self.database
            .read(move |step| {
                let failures = step
                    .prepare_cached(&format!(
                        "SELECT name, reason {FAILED} ORDER BY failed_at LIMIT ?1"
                    ))?
                    .query_map([limit], |row| Ok((row.get(0)?, failure_in(row, 1)?)))?
                    .collect::<rusqlite::Result<Vec<_>>>()?;
                Ok(failures)
            })
            .await
    }

    async fn failed_ids(&self, limit: u32) -> TransportResult<Vec<String>> {
        self.database
            .read(move |step| {
                step.prepare_cached(&format!("SELECT file_id {FAILED} LIMIT ?1"))?
                    .query_map([limit], |row| row.get(0))?
                    .collect()
            })
            .await
    }

    async fn was_announced(
        &self,
        name: &str,
        raw_bytes: u64,
        modified: SystemTime,
    ) -> TransportResult<Option<bool>> {
        let name = name.to_owned();
        self.database
            .read(move |step| {
                let seen = step
                    .prepare_cached(
                        "SELECT EXISTS(SELECT 1 FROM files WHERE name = ?1 AND raw_bytes = ?2 AND modified = ?3)",
                    )?
                    .query_row(params![name, to_i64(raw_bytes), nanos(modified)], |row| row.get(0))?;
                Ok(Some(seen))
            })
            .await
    }

    async fn was_content_announced(&self, name: &str, hash: &str) -> TransportResult<Option<bool>> {
        let (name, hash) = (name.to_owned(), hash.to_owned());
        self.database
            .read(move |step| {
                let seen = step
                    .prepare_cached(
                        "SELECT EXISTS(SELECT 1 FROM files WHERE name = ?1 AND hash = ?2)",
                    )?
                    .query_row(params![name, hash], |row| row.get(0))?;
                Ok(Some(seen))
            })
            .await
    }

    async fn was_name_announced(&self, name: &str) -> TransportResult<Option<bool>> {
        let name = name.to_owned();
        self.database
            .read(move |step| {
                let seen = step
                    .prepare_cached("SELECT EXISTS(SELECT 1 FROM files WHERE name = ?1)")?
                    .query_row([name], |row| row.get(0))?;
                Ok(Some(seen))
            })
            .await
    }

    async fn locations(&self) -> TransportResult<Vec<String>> {
        sqlite_sources::locations(&self.database).await
    }

    async fn was_restored(&self, name: &str, file_id: &str) -> TransportResult<bool> {
        sqlite_sources::restored_last(&self.database, name.to_owned(), file_id.to_owned()).await
    }

    async fn was_replaced(&self, file_id: &str) -> TransportResult<bool> {
        sqlite_sources::replaced(&self.database, file_id.to_owned()).await
    }

    async fn file_status(&self, file_id: &str) -> TransportResult<Option<FileStatus>> {
        let file_id = file_id.to_owned();
        self.database
            .read(move |step| {
                step.prepare_cached(
                    "SELECT restored_at IS NOT NULL, superseded_at IS NOT NULL, failed_at IS NOT NULL
                     FROM files WHERE file_id = ?1",
                )?
                .query_row([file_id], |row| {
                    Ok(match (row.get(0)?, row.get(1)?, row.get(2)?) {
                        (true, _, _) => FileStatus::Restored,
                        (_, true, _) => FileStatus::Superseded,
                        (_, _, true) => FileStatus::Failed,
                        (false, false, false) => FileStatus::UnderWay,
                    })
                })
                .optional()
            })
            .await
    }

    async fn open_files(&self) -> TransportResult<Vec<OpenFile>> {
        sqlite_sources::open(&self.database).await
    }

    async fn checked_files(&self, location: &str) -> TransportResult<Vec<CheckedFile>> {
        let location = location.to_owned();
        self.database
            .read(move |step| {
                let mut files = Vec::new();
                let mut select = step.prepare_cached(
                    "SELECT name, fingerprint, hash FROM checked WHERE location = ?1",
                )?;
                let mut rows = select.query([location])?;
                while let Some(row) = rows.next()? {
                    if let Ok(hash) = Digest::try_from(row.get::<_, String>(2)?) {
                        files.push(CheckedFile {
                            name: row.get(0)?,
                            fingerprint: row.get(1)?,
                            hash,
                        });
                    }
                }
                Ok(files)
            })
            .await
    }

    async fn record_checked(&self, location: &str, files: Vec<CheckedFile>) -> TransportResult<()> {
        let location = location.to_owned();
        // Lost with the power, the files are only read once more.
        self.database
            .write_unsynced(move |step| {
                for file in &files {
                    step.prepare_cached(
                        "INSERT OR REPLACE INTO checked(location, name, fingerprint, hash) VALUES(?1, ?2, ?3, ?4)",
                    )?
                    .execute([&location, &file.name, &file.fingerprint, file.hash.as_str()])?;
                }
                Ok(())
            })
            .await
    }
}

const PROGRESS: &str = "SELECT announced, compressed, restored, superseded, failed,
  bytes_announced, bytes_raw, bytes_packed, bytes_restored FROM totals";
