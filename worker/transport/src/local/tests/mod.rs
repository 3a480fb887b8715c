//! The contracts over the embedded implementation, and what only this one promises.
#![expect(clippy::unwrap_used, reason = "tests end by panicking")]

mod damage;
mod model;
mod processes;
mod time;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;

use super::{Local, LocalOptions, Migrations};
use crate::contract_tests::{self, Implementation};
use crate::{ChunkStream, Queue, SlotLock};

/// Every queue and stream in a folder of its own; every participant of a lock as if in a process of its own.
#[derive(Default)]
struct Embedded {
    folders: Mutex<Vec<TempDir>>,
}

impl Embedded {
    fn folder(&self) -> std::path::PathBuf {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        self.folders.lock().unwrap().push(folder);
        path
    }
}

/// Tables of another module, as these tests keep them.
const NOTES: Migrations = Migrations {
    module: "notes",
    steps: &["CREATE TABLE notes(key TEXT PRIMARY KEY, value TEXT NOT NULL)"],
};

async fn note(local: &Local, key: &'static str, value: &'static str) {
    let notes = local.database(&NOTES).unwrap();
    notes
        .write(move |step| {
            step.prepare_cached("INSERT INTO notes(key, value) VALUES(?1, ?2)")?
                .execute([key, value])
        })
        .await
        .unwrap();
}

async fn noted(local: &Local, key: &'static str) -> Option<String> {
    let notes = local.database(&NOTES).unwrap();
    notes
        .read(move |step| {
            step.prepare_cached("SELECT max(value) FROM notes WHERE key = ?1")?
                .query_row([key], |row| row.get(0))
        })
        .await
        .unwrap()
}

/// A folder in memory where the machine has one: for tests of order and time, which slow syncs only disturb.
fn memory_folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

#[async_trait]
impl Implementation for Embedded {
    fn short(&self) -> Duration {
        Duration::from_millis(200)
    }

    async fn queue(&self, visibility_timeout: Duration, max_receive_count: u32) -> Arc<dyn Queue> {
        let options = LocalOptions {
            visibility_timeout,
            max_receive_count,
            ..LocalOptions::default()
        };
        Local::open(&self.folder(), options).unwrap().chunks_queue()
    }

    async fn stream(&self) -> Arc<dyn ChunkStream> {
        let options = LocalOptions {
            segment_bytes: 50_000,
            ..LocalOptions::default()
        };
        Local::open(&self.folder(), options).unwrap().stream()
    }

    async fn locks(&self, participants: usize, slots: u32) -> Vec<Arc<dyn SlotLock>> {
        let folder = self.folder();
        (0..participants)
            .map(|_| {
                Local::open(&folder, LocalOptions::default())
                    .unwrap()
                    .lock("role", slots)
            })
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_keeps_its_contract() {
    contract_tests::queue::all(&Embedded::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_keeps_its_contract() {
    contract_tests::stream::all(&Embedded::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lock_keeps_its_contract() {
    contract_tests::lock::all(&Embedded::default()).await;
}

#[test]
fn processes_that_work_in_a_folder_work_for_one_purpose_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Local::open(folder.path(), LocalOptions::default()).unwrap();
    let [one, two, three] = [open(), open(), open()];
    assert_eq!(one.work_for("a longer purpose").unwrap(), Ok(()));
    assert_eq!(two.work_for("a longer purpose").unwrap(), Ok(()));
    let refused = three.work_for("another").unwrap();
    assert_eq!(refused, Err("a longer purpose".to_owned()));
    drop(one);
    assert!(three.work_for("another").unwrap().is_err());
    drop(two);
    assert_eq!(three.work_for("another").unwrap(), Ok(()));
    let refused = open().work_for("a longer purpose").unwrap();
    assert_eq!(refused, Err("another".to_owned()));
}
