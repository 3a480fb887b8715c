//! The index of files: forward only, repeatable, and cheap to ask.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::memory_folder;
use crate::local::{Index, IndexedFile, Local, LocalOptions, Progress};

fn file(id: &str, raw_bytes: u64) -> IndexedFile {
    IndexedFile {
        file_id: id.into(),
        name: format!("{id}.json"),
        raw_bytes,
        modified: UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789),
        hash: format!("hash of {id}"),
    }
}

/// The folder has to live as long as the index is used.
fn index() -> (tempfile::TempDir, Index) {
    let dir = memory_folder();
    let index = Local::open(dir.path(), LocalOptions::default())
        .unwrap()
        .index();
    (dir, index)
}

#[tokio::test]
async fn progress_counts_each_step_once_however_often_it_is_told() {
    let (_dir, index) = index();
    for _ in 0..2 {
        for (id, bytes) in [("a", 1000), ("b", 500), ("c", 50), ("d", 7)] {
            index.announced(&file(id, bytes)).await.unwrap();
        }
        index.compressed("a", 100).await.unwrap();
        index.compressed("b", 60).await.unwrap();
        index.restored("a").await.unwrap();
        index.superseded("b").await.unwrap();
        index.failed("c", "HashMismatch").await.unwrap();
    }
    let progress = index.progress().await.unwrap();
    let expected = Progress {
        announced: 4,
        compressed: 2,
        restored: 1,
        superseded: 1,
        failed: 1,
        bytes_announced: 1557,
        bytes_raw: 1500,
        bytes_packed: 160,
        bytes_restored: 1000,
    };
    assert_eq!(progress, expected);
    assert_eq!(progress.unfinished(), 1);
    let unfinished = index.unfinished(10).await.unwrap();
    assert_eq!((unfinished.len(), unfinished[0].file_id.as_str()), (1, "d"));
    let failures = index.failures(10).await.unwrap();
    assert_eq!(failures, [("c.json".to_owned(), "HashMismatch".to_owned())]);
}

#[tokio::test]
async fn a_file_that_is_done_stays_done() {
    let (_dir, index) = index();
    index.announced(&file("a", 10)).await.unwrap();
    index.restored("a").await.unwrap();
    index.failed("a", "TooLate").await.unwrap();
    index.superseded("a").await.unwrap();
    index.announced(&file("a", 10)).await.unwrap();
    let progress = index.progress().await.unwrap();
    assert_eq!(
        (progress.restored, progress.failed, progress.superseded),
        (1, 0, 0)
    );
}

#[tokio::test]
async fn a_redriven_file_is_on_its_way_again_and_a_repeated_announcement_is_no_redrive() {
    let (_dir, index) = index();
    index.announced(&file("a", 10)).await.unwrap();
    index.failed("a", "Expired").await.unwrap();
    index.announced(&file("a", 10)).await.unwrap();
    assert_eq!(index.progress().await.unwrap().failed, 1);
    index.redriven("a").await.unwrap();
    assert_eq!(index.progress().await.unwrap().unfinished(), 1);
    index.failed("a", "Expired").await.unwrap();
    index.restored("a").await.unwrap();
    let progress = index.progress().await.unwrap();
    assert_eq!(
        (progress.failed, progress.restored, progress.unfinished()),
        (0, 1, 0)
    );
}

#[tokio::test]
async fn a_step_told_before_the_announcement_is_not_forgotten() {
    let (_dir, index) = index();
    index.compressed("a", 5).await.unwrap();
    index.announced(&file("a", 10)).await.unwrap();
    let progress = index.progress().await.unwrap();
    assert_eq!(
        (
            progress.compressed,
            progress.bytes_raw,
            progress.bytes_packed
        ),
        (1, 10, 5)
    );
    assert_eq!(index.unfinished(1).await.unwrap()[0].name, "a.json");
}

#[tokio::test]
async fn seen_means_the_same_name_size_and_version() {
    let (_dir, index) = index();
    let known = file("a", 10);
    index.announced(&known).await.unwrap();
    let nanosecond = Duration::from_nanos(1);
    let seen = async |name: &str, bytes, modified: SystemTime| {
        index.seen(name, bytes, modified).await.unwrap()
    };
    assert!(seen("a.json", 10, known.modified).await);
    assert!(!seen("b.json", 10, known.modified).await);
    assert!(!seen("a.json", 11, known.modified).await);
    assert!(!seen("a.json", 10, known.modified + nanosecond).await);
    assert!(!seen("a.json", 10, UNIX_EPOCH - nanosecond).await);
}

#[tokio::test]
async fn small_values_are_kept_and_replaced() {
    let (_dir, index) = index();
    assert_eq!(index.get("seed").await.unwrap(), None);
    index.set("seed", "1").await.unwrap();
    index.set("seed", "2").await.unwrap();
    assert_eq!(index.get("seed").await.unwrap().as_deref(), Some("2"));
}
