//! The sources' part of a data folder's journal. How far a file is stands in the table `files`; this one has what was last
//! announced of each name.

use rusqlite::{OptionalExtension, Row, params};
use streampress_transport::TransportResult;
use streampress_transport::local::{Database, DatabaseStep, Migrations};

use super::sqlite_values::{failure_in, to_i64};
use super::sqlite_versions::{IS_REPLACED, keep_earlier, settle_versions};
use super::{OpenFile, SourceReceipt, SourceRecord, SourceState};

/// The sources' table, a module of its own: other parts of the journal have versions of their own.
pub(super) const MIGRATIONS: Migrations = Migrations {
    module: "sources",
    steps: &[TABLES, VERSIONS],
};

/// `sent` is 0 while the announcement may not have been sent; `settled` is 0 where an equal fingerprint proves nothing.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS sources(
  location TEXT NOT NULL,
  name TEXT NOT NULL,
  announcement TEXT NOT NULL,
  file_id TEXT NOT NULL,
  hash TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  modified INTEGER NOT NULL,
  fingerprint TEXT NOT NULL,
  settled INTEGER NOT NULL,
  sent INTEGER NOT NULL,
  PRIMARY KEY(location, name)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sources_file ON sources(file_id);
";

const VERSIONS: &str = "ALTER TABLE sources ADD COLUMN version TEXT";

/// A restored file whose name another file has been restored under since is no longer there.
const SELECT: &str = "
SELECT s.location, s.name, s.announcement, s.file_id, s.hash, s.bytes, s.modified, s.fingerprint, s.settled, s.sent,
  f.restored_at IS NOT NULL, f.superseded_at IS NOT NULL, f.failed_at IS NOT NULL,
  EXISTS(SELECT 1 FROM files o WHERE o.name = s.name AND o.file_id <> s.file_id AND o.restored_at > f.restored_at),
  s.version
FROM sources s LEFT JOIN files f ON f.file_id = s.file_id
";

fn read_record(row: &Row<'_>) -> rusqlite::Result<SourceRecord> {
    let number = |column| {
        row.get::<_, i64>(column)
            .map(|number| u64::try_from(number).unwrap_or(0))
    };
    let flag = |column| row.get::<_, bool>(column);
    let state = match (flag(9)?, flag(10)?, flag(11)?, flag(12)?, flag(13)?) {
        (_, true, _, _, true) => SourceState::Superseded,
        (_, true, _, _, false) => SourceState::Restored,
        (_, _, true, _, _) => SourceState::Superseded,
        (_, _, _, true, _) => SourceState::Dead,
        (true, ..) => SourceState::Sent,
        (false, ..) => SourceState::Writing,
    };
    Ok(SourceRecord {
        location: row.get(0)?,
        name: row.get(1)?,
        announcement: row.get(2)?,
        file_id: row.get(3)?,
        hash: row.get(4)?,
        bytes: number(5)?,
        modified_nanos: number(6)?,
        fingerprint: row.get(7)?,
        is_settled: flag(8)?,
        state,
        version: row
            .get::<_, Option<String>>(14)?
            .and_then(|text| text.parse().ok()),
        wants_reply: false,
        awaits_receipt: true,
        is_gone: false,
    })
}

/// See [`super::FileJournal::locations`].
pub(super) async fn locations(database: &Database) -> TransportResult<Vec<String>> {
    database
        .read(|step| {
            step.prepare_cached("SELECT DISTINCT location FROM sources ORDER BY location")?
                .query_map([], |row| row.get(0))?
                .collect()
        })
        .await
}

/// See [`super::FileJournal::sources`].
pub(super) async fn all(
    database: &Database,
    location: String,
) -> TransportResult<Vec<SourceRecord>> {
    database
        .read(move |step| {
            step.prepare_cached(&format!("{SELECT} WHERE s.location = ?1"))?
                .query_map([&location], read_record)?
                .collect()
        })
        .await
}

/// See [`super::FileJournal::source`].
pub(super) async fn one(
    database: &Database,
    location: String,
    name: String,
) -> TransportResult<Option<SourceRecord>> {
    database
        .read(move |step| newest(step, &location, &name))
        .await
}

fn newest(
    step: &DatabaseStep<'_>,
    location: &str,
    name: &str,
) -> rusqlite::Result<Option<SourceRecord>> {
    step.prepare_cached(&format!("{SELECT} WHERE s.location = ?1 AND s.name = ?2"))?
        .query_row([location, name], read_record)
        .optional()
}

/// See [`super::FileJournal::record_read_again`].
pub(super) async fn read_again(database: &Database, record: SourceRecord) -> TransportResult<bool> {
    database
        .write(move |step| {
            let newest = newest(step, &record.location, &record.name)?;
            let is_as_known = newest.is_some_and(|newest| record.is_of_same_state(&newest));
            if is_as_known {
                put(step, &record)?;
            }
            Ok(is_as_known)
        })
        .await
}

/// See [`super::FileJournal::record_announcements`].
pub(super) async fn announce(
    database: &Database,
    records: Vec<SourceRecord>,
) -> TransportResult<()> {
    database
        .write(move |step| {
            for record in &records {
                if is_recorded(step, record)? {
                    continue;
                }
                put(step, record)?;
                keep_earlier(step, &record.file_id)?;
                step.prepare_cached(
                    "INSERT INTO files(file_id, name, raw_bytes, modified, hash, announced_at) VALUES(?1, ?2, ?3, ?4, ?5,
                       max(?6, coalesce((SELECT max(announced_at) + 1 FROM files WHERE name = ?2), 0)))
                     ON CONFLICT(file_id) DO UPDATE SET name = ?2, raw_bytes = ?3, modified = ?4, hash = ?5,
                       announced_at = excluded.announced_at, packed_bytes = 0, compressed_at = NULL, restored_at = NULL, superseded_at = NULL, failed_at = NULL,
                       reason = NULL",
                )?
                .execute(params![
                    record.file_id,
                    record.name,
                    to_i64(record.bytes),
                    to_i64(record.modified_nanos),
                    record.hash,
                    step.now_millis()
                ])?;
            }
            Ok(())
        })
        .await
}

fn is_recorded(step: &DatabaseStep<'_>, record: &SourceRecord) -> rusqlite::Result<bool> {
    step.prepare_cached(
        "SELECT EXISTS(SELECT 1 FROM sources WHERE location = ?1 AND name = ?2 AND file_id = ?3 AND announcement = ?4)",
    )?
    .query_row(
        [&record.location, &record.name, &record.file_id, &record.announcement],
        |row| row.get(0),
    )
}

/// See [`super::FileJournal::record_sources`].
pub(super) async fn write(database: &Database, records: Vec<SourceRecord>) -> TransportResult<()> {
    database
        .write(move |step| records.iter().try_for_each(|record| put(step, record)))
        .await
}

fn put(step: &DatabaseStep<'_>, record: &SourceRecord) -> rusqlite::Result<()> {
    step.prepare_cached(
        "INSERT OR REPLACE INTO sources(location, name, announcement, file_id, hash, bytes, modified, fingerprint, settled, sent, version)
         VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(params![
        record.location,
        record.name,
        record.announcement,
        record.file_id,
        record.hash,
        to_i64(record.bytes),
        to_i64(record.modified_nanos),
        record.fingerprint,
        record.is_settled,
        record.state != SourceState::Writing,
        record.version.as_ref().map(ToString::to_string),
    ])?;
    Ok(())
}

/// See [`super::FileJournal::record_sent`].
pub(super) async fn sent(database: &Database, records: &[SourceRecord]) -> TransportResult<()> {
    let versions = records.iter().map(|record| record.version.as_ref());
    let versions = versions.map(|version| version.map(ToString::to_string));
    let sent: Vec<_> = keys(records).into_iter().zip(versions).collect();
    // A loss of this with the power only makes one more message with the same deduplication id.
    database
        .write_unsynced(move |step| {
            for ([location, name, announcement], version) in &sent {
                step.prepare_cached(
                    "UPDATE sources SET sent = 1, version = coalesce(?4, version)
                     WHERE location = ?1 AND name = ?2 AND announcement = ?3",
                )?
                .execute(params![location, name, announcement, version])?;
            }
            Ok(())
        })
        .await
}

/// See [`super::FileJournal::forget_sources`].
pub(super) async fn forget(database: &Database, records: &[SourceRecord]) -> TransportResult<()> {
    let announcements = keys(records);
    database
        .write(move |step| {
            for announcement in &announcements {
                step.prepare_cached(
                    "UPDATE sources SET hash = '', fingerprint = '', settled = 0 WHERE location = ?1 AND name = ?2 AND announcement = ?3",
                )?
                .execute(announcement.each_ref())?;
            }
            Ok(())
        })
        .await
}

/// Location, name and announcement of each.
fn keys(records: &[SourceRecord]) -> Vec<[String; 3]> {
    let key = |record: &SourceRecord| {
        [
            record.location.clone(),
            record.name.clone(),
            record.announcement.clone(),
        ]
    };
    records.iter().map(key).collect()
}

/// See [`super::FileJournal::record_receipt`].
pub(super) async fn receipt(database: &Database, receipt: SourceReceipt) -> TransportResult<()> {
    let sql = match receipt.state {
        SourceState::Restored => {
            "UPDATE files SET restored_at = max(?5, coalesce((SELECT max(o.restored_at) + 1 FROM files o
                 WHERE o.name = files.name), 0)), verified = 1, superseded_at = NULL, failed_at = NULL, reason = NULL
             WHERE file_id = ?4 AND restored_at IS NULL
               AND EXISTS(SELECT 1 FROM sources WHERE location = ?1 AND name = ?2 AND announcement = ?3 AND file_id = ?4)"
        }
        SourceState::Superseded => {
            "UPDATE files SET superseded_at = ?5, failed_at = NULL, reason = NULL
             WHERE file_id = ?4 AND restored_at IS NULL AND superseded_at IS NULL
               AND EXISTS(SELECT 1 FROM sources WHERE location = ?1 AND name = ?2 AND announcement = ?3 AND file_id = ?4)"
        }
        SourceState::Writing | SourceState::Sent | SourceState::Dead => return Ok(()),
    };
    // A loss of this with the power only leaves the file unconfirmed.
    database
        .write_unsynced(move |step| {
            step.prepare_cached(sql)?.execute(params![
                receipt.location,
                receipt.name,
                receipt.announcement,
                receipt.file_id,
                step.now_millis()
            ])?;
            settle_versions(step, &receipt.file_id)
        })
        .await
}

/// See [`super::FileJournal::open_files`].
pub(super) async fn open(database: &Database) -> TransportResult<Vec<OpenFile>> {
    database
        .read(|step| {
            step.prepare_cached(
                "SELECT file_id, name, failed_at IS NOT NULL, reason FROM files
                 WHERE restored_at IS NULL AND superseded_at IS NULL ORDER BY announced_at, file_id",
            )?
            .query_map([], |row| {
                let has_failed: bool = row.get(2)?;
                Ok(OpenFile {
                    file_id: row.get(0)?,
                    name: row.get(1)?,
                    failure: match has_failed {
                        true => Some(failure_in(row, 3)?),
                        false => None,
                    },
                })
            })?
            .collect()
        })
        .await
}

/// See [`super::FileJournal::was_restored`].
pub(super) async fn restored_last(
    database: &Database,
    name: String,
    file_id: String,
) -> TransportResult<bool> {
    database
        .read(move |step| {
            let newest: Option<(String, bool)> = step
                .prepare_cached(
                    "SELECT file_id, restored_at IS NOT NULL FROM files WHERE name = ?1 ORDER BY announced_at DESC LIMIT 1",
                )?
                .query_row([&name], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            Ok(newest == Some((file_id, true)))
        })
        .await
}

/// See [`super::FileJournal::was_replaced`].
pub(super) async fn replaced(database: &Database, file_id: String) -> TransportResult<bool> {
    database
        .read(move |step| {
            step.prepare_cached(&format!(
                "SELECT EXISTS(SELECT 1 FROM files f WHERE f.file_id = ?1 AND {IS_REPLACED})"
            ))?
            .query_row([&file_id], |row| row.get(0))
        })
        .await
}
