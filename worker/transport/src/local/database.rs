//! Tables of other modules in the folder's database. Their statements run on the same thread and in the same transactions
//! as the queues', so one sync of the disk serves both.

use std::sync::Arc;

use rusqlite::{CachedStatement, Connection};

use super::db;
use super::store::{Step, Store};
use crate::{TransportError, TransportResult};

/// The tables of one module, and how they came to be.
#[derive(Debug, Clone, Copy)]
pub struct Migrations {
    /// Names the module in the database; must never change.
    pub module: &'static str,
    /// Batches of SQL. The first creates the tables, each further one changes them; once released a batch must not be
    /// changed, only followed by another.
    pub steps: &'static [&'static str],
}

/// One module's access to the database. Cheap to clone; keeps the folder open.
#[derive(Debug, Clone)]
pub struct Database {
    store: Arc<Store>,
}

/// One step of a transaction. It can neither begin nor end one: steps of other callers share it.
#[derive(Debug)]
pub struct DatabaseStep<'a> {
    conn: &'a Connection,
    now_millis: i64,
}

impl Database {
    pub(super) fn open(store: &Arc<Store>, migrations: &Migrations) -> TransportResult<Self> {
        migrate(store, migrations)?;
        Ok(Self {
            store: Arc::clone(store),
        })
    }

    /// Runs `step` in the next transaction and answers when it is durable. When `step` fails, what it wrote is rolled back;
    /// when the caller is dropped, it is done all the same.
    pub async fn write<T: Send + 'static>(
        &self,
        step: impl FnOnce(&DatabaseStep<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> TransportResult<T> {
        self.store
            .call(move |of_store| Ok(step(&DatabaseStep::of(of_store))?))
            .await
    }

    /// The same without waiting for the disk, for what may be lost with the power.
    pub async fn write_unsynced<T: Send + 'static>(
        &self,
        step: impl FnOnce(&DatabaseStep<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> TransportResult<T> {
        self.read(step).await
    }

    /// Runs `step`, which only reads, in the next transaction.
    pub async fn read<T: Send + 'static>(
        &self,
        step: impl FnOnce(&DatabaseStep<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> TransportResult<T> {
        self.store
            .call_unsynced(move |of_store| Ok(step(&DatabaseStep::of(of_store))?))
            .await
    }
}

impl<'a> DatabaseStep<'a> {
    fn of(step: &Step<'a>) -> Self {
        Self {
            conn: step.conn,
            now_millis: step.now,
        }
    }

    /// Prepares a statement, or takes it from the cache.
    pub fn prepare_cached(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        self.conn.prepare_cached(sql)
    }

    /// Milliseconds since 1970, the same for all of a transaction.
    pub fn now_millis(&self) -> i64 {
        self.now_millis
    }
}

/// Brings the module's tables up to date, in one transaction.
fn migrate(store: &Store, migrations: &Migrations) -> TransportResult<()> {
    let path = store.dir().join(db::FILE_NAME);
    let mut conn = db::connect(store.dir())?;
    let known = i64::try_from(migrations.steps.len()).unwrap_or(i64::MAX);
    let found = version(&mut conn, migrations).map_err(|e| db::explain(&path, e))?;
    if found > known {
        return Err(TransportError::Invalid(format!(
            "{} was written by a newer streampress (its {} is {found}, this one knows {known}); use that version, or \
             choose another data folder",
            path.display(),
            migrations.module
        )));
    }
    Ok(())
}

/// The version of the module's tables, after all steps that this program knows.
fn version(conn: &mut Connection, migrations: &Migrations) -> rusqlite::Result<i64> {
    let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    tx.execute_batch(
        "CREATE TABLE IF NOT EXISTS modules(module TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID",
    )?;
    let before: i64 = tx.query_row(
        "SELECT coalesce(max(version), 0) FROM modules WHERE module = ?1",
        [migrations.module],
        |row| row.get(0),
    )?;
    let done = usize::try_from(before).unwrap_or(0);
    let steps = migrations.steps.get(done..).unwrap_or_default();
    for step in steps {
        tx.execute_batch(step)?;
    }
    let version = before + i64::try_from(steps.len()).unwrap_or(0);
    tx.execute(
        "INSERT OR REPLACE INTO modules(module, version) VALUES(?1, ?2)",
        rusqlite::params![migrations.module, version],
    )?;
    tx.commit()?;
    Ok(version)
}
