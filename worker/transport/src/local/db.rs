//! Opens the one database of a data folder: its settings, its schema, and the checks that it is ours.
//! Knows what the tables look like, not what they mean.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::Access;

use super::shell_word;
use crate::{TOO_MANY_OPEN_FILES, TransportError, TransportResult, has_too_many_open_files};

/// The database's name in the data folder.
pub(crate) const FILE_NAME: &str = "streampress.db";
/// Distinguishes our databases from other programs': `SPdb`.
const APPLICATION_ID: i64 = 0x5350_6462;
/// The schema this program writes. A higher one in the file was made by a newer program.
const SCHEMA_VERSION: i64 = 1;
/// The database, its -wal and its -shm file, and its folder while it is synced.
const FILES_OF_A_DATABASE: usize = 4;
/// SQLite's write-ahead log takes no more than this part of its disk, as far as transactions are small: it stays as large as
/// it ever was, and nothing else can use its space.
const LOG_PART_OF_DISK: u64 = 16;
/// As SQLite itself bounds it (https://www.sqlite.org/wal.html#avoiding_excessively_large_wal_files).
const MOST_LOG_PAGES: u64 = 1000;
/// So many pages a few transactions need.
const LEAST_LOG_PAGES: u64 = 32;
/// Of a database.
const PAGE_BYTES: u64 = 4096;
/// How long a write waits for other processes before it gives up.
const BUSY_PATIENCE: Duration = Duration::from_secs(20);
/// How long it sleeps between two attempts: short, so that it finds the gaps between a busy process's transactions.
const BUSY_SLEEP: Duration = Duration::from_millis(1);

/// `state` of a message: 0 waits behind another of its group, 1 can be received, 2 is in flight.
/// At most one message of a group, its oldest, has a state other than 0, so every query is one index look-up.
/// `hidden_since` and `hidden_until` bound the visibility timeout; `given_back` counts releases. Data folders exist with
/// these names, so they stay.
const SCHEMA: &str = "
CREATE TABLE messages(
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  queue INTEGER NOT NULL,
  group_id TEXT NOT NULL,
  state INTEGER NOT NULL,
  message_id TEXT NOT NULL,
  dedup_id TEXT NOT NULL,
  body TEXT NOT NULL,
  attributes TEXT NOT NULL,
  sent_at INTEGER NOT NULL,
  receives INTEGER NOT NULL DEFAULT 0,
  given_back INTEGER NOT NULL DEFAULT 0,
  delivery INTEGER NOT NULL DEFAULT 0,
  session TEXT,
  hidden_since INTEGER,
  hidden_until INTEGER
);
CREATE INDEX messages_group ON messages(queue, group_id, seq);
CREATE INDEX messages_ready ON messages(queue, seq) WHERE state = 1;
CREATE INDEX messages_held ON messages(queue, hidden_until) WHERE state = 2;
CREATE TABLE dedup(
  queue INTEGER NOT NULL,
  dedup_id TEXT NOT NULL,
  sent_at INTEGER NOT NULL,
  PRIMARY KEY(queue, dedup_id)
) WITHOUT ROWID;
CREATE INDEX dedup_age ON dedup(sent_at);
CREATE TABLE slots(
  role TEXT NOT NULL,
  slot INTEGER NOT NULL,
  attempt TEXT,
  session TEXT,
  transitions INTEGER NOT NULL,
  renewals INTEGER NOT NULL,
  lease_ms INTEGER NOT NULL,
  ledger TEXT NOT NULL,
  PRIMARY KEY(role, slot)
) WITHOUT ROWID;
";

/// What is known of the stream's segments; see `stream::known`. An earlier release does not know the table.
const SEGMENTS: &str = "CREATE TABLE IF NOT EXISTS segments(
  name TEXT PRIMARY KEY, bytes INTEGER NOT NULL, known_at INTEGER NOT NULL) WITHOUT ROWID";

/// Opens `dir`'s database and brings its schema up to date; answers its epoch too, the second in which it was created, and
/// not before `earliest`. The caller holds the folder's opening lock.
pub(super) fn open(dir: &Path, earliest: u64) -> TransportResult<(Connection, u64)> {
    let path = dir.join(FILE_NAME);
    let mut conn = connect(dir)?;
    prepare(&mut conn, &path)?;
    let epoch = epoch(&conn, earliest).map_err(|e| explain(&path, e))?;
    conn.execute_batch(SEGMENTS)
        .map_err(|e| explain(&path, e))?;
    Ok((conn, epoch))
}

/// The database's own epoch. Databases of earlier releases get it when they are first opened by this one: their sequence
/// numbers go on.
fn epoch(conn: &Connection, earliest: u64) -> rusqlite::Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    let seconds = i64::try_from(now.max(earliest)).unwrap_or(i64::MAX);
    conn.execute_batch("CREATE TABLE IF NOT EXISTS epoch(seconds INTEGER NOT NULL)")?;
    conn.execute(
        "INSERT INTO epoch SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM epoch)",
        [seconds],
    )?;
    let epoch = conn.query_row("SELECT min(seconds) FROM epoch", [], |row| {
        row.get::<_, i64>(0)
    })?;
    Ok(u64::try_from(epoch).unwrap_or(0))
}

/// A connection that waits for other writers, to a database that may not be ours yet.
pub(super) fn connect(dir: &Path) -> TransportResult<Connection> {
    connect_with(dir, OpenFlags::SQLITE_OPEN_CREATE)
}

/// The same to one that is there.
pub(super) fn connect_existing(dir: &Path) -> TransportResult<Connection> {
    connect_with(dir, OpenFlags::empty())
}

fn connect_with(dir: &Path, more: OpenFlags) -> TransportResult<Connection> {
    let path = dir.join(FILE_NAME);
    let fault = |e| explain(&path, e);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
    let mut conn = Connection::open_with_flags(&path, flags).map_err(fault)?;
    wait_for_others(&mut conn).map_err(fault)?;
    Ok(conn)
}

fn wait_for_others(conn: &mut Connection) -> rusqlite::Result<()> {
    let mut waiting_since = Instant::now();
    conn.busy_handler(Some(move |attempt| {
        if attempt == 0 {
            waiting_since = Instant::now();
        }
        std::thread::sleep(BUSY_SLEEP);
        waiting_since.elapsed() < BUSY_PATIENCE
    }))
}

/// Moves what the write-ahead log holds into the database and releases the log's space. Waits for no other
/// process: one that reads or writes at this moment keeps the log as it is.
pub(super) fn empty_log(conn: &mut Connection) -> rusqlite::Result<()> {
    conn.busy_handler(None::<fn(i32) -> bool>)?;
    let emptied = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    wait_for_others(conn)?;
    emptied
}

/// The write-ahead log of a database.
pub(super) fn log_path(database: &Path) -> PathBuf {
    beside(database, "-wal")
}

/// The file of a database whose name has this ending.
fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

/// Whether the write-ahead log takes any space.
pub(super) fn has_log(conn: &Connection) -> bool {
    let log = conn.path().map(|path| log_path(Path::new(path)));
    log.is_none_or(|log| fs::metadata(log).is_ok_and(|log| log.len() > 0))
}

/// How many pages of the write-ahead log make SQLite move them into the database.
fn log_pages(disk_bytes: Option<u64>) -> u64 {
    let pages = disk_bytes.map_or(MOST_LOG_PAGES, |bytes| {
        bytes / LOG_PART_OF_DISK / PAGE_BYTES
    });
    pages.clamp(LEAST_LOG_PAGES, MOST_LOG_PAGES)
}

/// The size of the disk that the folder lies on, where that is known.
fn disk_bytes(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_blocks.saturating_mul(disk.f_frsize)).filter(|bytes| *bytes > 0)
}

fn prepare(conn: &mut Connection, path: &Path) -> TransportResult<()> {
    let fault = |e| explain(path, e);
    conn.set_prepared_statement_cache_capacity(64);
    // The version is read before anything is changed: another program's database stays as it is.
    let version = guard(conn, path)?;
    // With these settings a commit that was acknowledged survives a power cut, and one that was not is rolled back as a whole
    // (https://www.sqlite.org/pragma.html#pragma_synchronous). On macOS an ordinary fsync leaves bytes in the drive's cache
    // (https://www.sqlite.org/pragma.html#pragma_fullfsync); elsewhere the last two change nothing.
    let log_pages = log_pages(path.parent().and_then(disk_bytes));
    conn.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY;
         PRAGMA wal_autocheckpoint = {log_pages}; PRAGMA journal_size_limit = {};
         PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON;",
        log_pages * PAGE_BYTES
    ))
    .map_err(fault)?;
    if version == 0 {
        create_schema(conn).map_err(fault)?;
    }
    Ok(())
}

/// The schema's version, 0 for a new database; refuses what is not ours or too new.
fn guard(conn: &Connection, path: &Path) -> TransportResult<i64> {
    let number = |sql: &str| {
        conn.query_row(sql, [], |row| row.get::<_, i64>(0))
            .map_err(|e| explain(path, e))
    };
    let version = number("PRAGMA user_version")?;
    let application = number("PRAGMA application_id")?;
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    let shown = path.display();
    if application != APPLICATION_ID && (tables > 0 || version != 0) {
        return Err(TransportError::Invalid(format!(
            "{shown} is a database of another program; choose another data folder"
        )));
    }
    if version > SCHEMA_VERSION {
        return Err(TransportError::Invalid(format!(
            "{shown} was written by a newer streampress (its schema is {version}, this one knows {SCHEMA_VERSION}); \
             use that version, or choose another data folder"
        )));
    }
    Ok(version)
}

fn create_schema(conn: &mut Connection) -> rusqlite::Result<()> {
    let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    tx.execute_batch(SCHEMA)?;
    tx.execute_batch(&format!(
        "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
    ))?;
    tx.commit()
}

/// Fails where the database of `dir` is there and damaged: reads all of it.
pub(super) fn check(dir: &Path) -> TransportResult<()> {
    let path = dir.join(FILE_NAME);
    if !path.exists() {
        return Ok(());
    }
    let fault = |e| explain(&path, e);
    let conn = connect(dir)?;
    let mut check = conn.prepare("PRAGMA integrity_check(1)").map_err(fault)?;
    let mut rows = check.query([]).map_err(fault)?;
    let found = match rows.next().map_err(fault)? {
        Some(row) => row.get::<_, String>(0).map_err(fault)?,
        None => return Ok(()),
    };
    match found.as_str() {
        "ok" => Ok(()),
        found => Err(damaged(&path, found)),
    }
}

/// What to do about a database that cannot be used, with the command that moves it away as it can be typed.
fn remedy(path: &Path) -> String {
    let folder = path.parent().unwrap_or(path);
    let first = folder.join("damaged");
    let others = (2..).map(|number| folder.join(format!("damaged-{number}")));
    let mut names = std::iter::once(first.clone()).chain(others);
    let aside = names.find(|name| name.symlink_metadata().is_err());
    let (folder, aside) = (shell_word(folder), shell_word(&aside.unwrap_or(first)));
    format!(
        "choose another data folder, or move it and its -wal and -shm files away: 'streampress recover' with the same FILE \
         and --data then sends the files in its stream, and announce the others again. The command that moves it: \
         mkdir {aside} && mv {folder}/{FILE_NAME}* {aside}/"
    )
}

fn damaged(path: &Path, what: &str) -> TransportError {
    let (shown, what) = (path.display(), what.replace('\n', " "));
    let remedy = remedy(path);
    TransportError::Invalid(format!("{shown} is damaged ({what}); {remedy}"))
}

/// Whether a value is not one that was written: of another type, or no UTF-8.
fn is_of_a_value(error: &rusqlite::Error) -> bool {
    use rusqlite::Error;
    matches!(
        error,
        Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::InvalidColumnType(..)
            | Error::Utf8Error(..)
    )
}

/// The database and the files beside it.
fn files_of(path: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|ending| beside(path, ending))
}

/// What is said where a folder is in the place of one of its files.
fn folder_in_place(path: &Path) -> Option<String> {
    let taken = files_of(path).into_iter().find(|file| file.is_dir())?;
    Some(format!(
        "{} is a folder where a file of the database belongs; move it, or choose another data folder",
        taken.display()
    ))
}

/// What is said where the database cannot be written: names the file that this user may not write, or else its folder.
fn unwritable(path: &Path) -> String {
    let may_not_write = |file: &PathBuf| {
        file.exists() && rustix::fs::access(file, Access::READ_OK | Access::WRITE_OK).is_err()
    };
    let refused = files_of(path).into_iter().find(may_not_write);
    let (shown, what) = match &refused {
        Some(refused) => (refused.display(), "this file"),
        None => (path.display(), "the folder"),
    };
    format!(
        "cannot write {shown}; make {what} writable for this user, or choose another data folder"
    )
}

/// Whether the limit of open files is reached, which SQLite does not say: as many more cannot be opened as a database takes.
fn are_files_exhausted(path: &Path) -> bool {
    let folder = path.parent().unwrap_or(path);
    let opened: Result<Vec<_>, _> = (0..FILES_OF_A_DATABASE)
        .map(|_| File::open(folder))
        .collect();
    opened.is_err_and(|error| has_too_many_open_files(&error))
}

/// The limit of the sizes of files that this process writes, which SQLite does not name; `None` without one.
fn largest_file_bytes() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Fsize).current
}

/// What a database fault means for the user, and what to do about it.
pub(super) fn explain(path: &Path, error: rusqlite::Error) -> TransportError {
    let shown = path.display();
    let folder = path.parent().unwrap_or(path).display();
    // The index of the log cannot grow.
    let is_full = |error: &rusqlite::Error| {
        let extended = error.sqlite_error().map(|error| error.extended_code);
        extended == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
    };
    let code = match is_full(&error) {
        true => Some(ErrorCode::DiskFull),
        false => error.sqlite_error_code(),
    };
    let step = match code {
        Some(ErrorCode::DiskFull) => {
            format!("the disk of {folder} is full; free some space, nothing is lost")
        }
        Some(ErrorCode::CannotOpen) if are_files_exhausted(path) => {
            format!("cannot open {shown}: {TOO_MANY_OPEN_FILES}, and start again")
        }
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            folder_in_place(path).unwrap_or_else(|| unwritable(path))
        }
        Some(ErrorCode::NotADatabase) => {
            return TransportError::Invalid(format!(
                "{shown} is not a database of streampress, or its beginning is damaged ({error}); {}",
                remedy(path)
            ));
        }
        Some(ErrorCode::DatabaseCorrupt) => return damaged(path, &error.to_string()),
        None if is_of_a_value(&error) => return damaged(path, &error.to_string()),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => format!(
            "another process held {shown} for more than {} s; look for a stopped streampress",
            BUSY_PATIENCE.as_secs()
        ),
        Some(ErrorCode::OperationAborted) => {
            format!(
                "{shown} rolled back a whole transaction, since another call in it failed; try again"
            )
        }
        _ => match (folder_in_place(path), largest_file_bytes()) {
            (Some(taken), _) => taken,
            (None, Some(bytes)) => format!(
                "using {shown}; this process may write no file above {bytes} bytes: 'ulimit -f unlimited' before it"
            ),
            (None, None) => format!("using {shown}"),
        },
    };
    // Its text alone: SQLite's own error behind it has the same words.
    TransportError::unavailable(step, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_write_ahead_log_takes_a_small_part_of_a_small_disk() {
        const MIB: u64 = 1 << 20;
        for (disk, pages) in [
            (Some(1), LEAST_LOG_PAGES),
            (Some(5 * MIB), 80),
            (Some(32 * MIB), 512),
            (Some(1 << 40), MOST_LOG_PAGES),
            (None, MOST_LOG_PAGES),
        ] {
            assert_eq!(log_pages(disk), pages, "{disk:?}");
        }
        assert!(disk_bytes(Path::new("/")).is_some());
    }
}
