//! The journal: forward only, repeatable, and kept over an upgrade.
#![expect(clippy::unwrap_used, reason = "tests end by panicking")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use streampress_transport::local::{Local, LocalOptions};
use streampress_transport::{DeadLetterReason, Failure};

use super::{
    FileJournal, JournalFile, JournalProgress, NoJournal, SourceJournal, SourceRecord, SourceState,
    SqliteJournal,
};

fn file(id: &str, raw_bytes: u64) -> JournalFile {
    JournalFile {
        file_id: id.into(),
        name: format!("{id}.json"),
        raw_bytes,
        modified: UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789),
        hash: format!("hash of {id}"),
    }
}

fn failure(reason: DeadLetterReason) -> Failure {
    Failure::new(reason, "record 3: not found")
}

/// The folder has to live as long as the journal is used.
fn journal() -> (tempfile::TempDir, SqliteJournal) {
    let dir = tempfile::tempdir().unwrap();
    let local = Local::open(dir.path(), LocalOptions::default()).unwrap();
    let journal = SqliteJournal::open(&local).unwrap();
    (dir, journal)
}

#[tokio::test]
async fn a_file_whose_packed_size_is_not_known_counts_in_neither_size() {
    let (_dir, journal) = journal();
    for (id, bytes) in [("a", 1000), ("b", 500)] {
        journal.record_announced(&file(id, bytes)).await.unwrap();
    }
    journal.record_restored("a", 0).await.unwrap();
    journal.record_restored("b", 60).await.unwrap();
    let progress = journal.progress().await.unwrap();
    assert_eq!((progress.compressed, progress.restored), (2, 2));
    assert_eq!((progress.bytes_raw, progress.bytes_packed), (500, 60));
    journal.record_compressed("a", 100).await.unwrap();
    let progress = journal.progress().await.unwrap();
    assert_eq!((progress.bytes_raw, progress.bytes_packed), (1500, 160));
}

#[tokio::test]
async fn progress_counts_each_step_once_however_often_it_is_told() {
    let (_dir, journal) = journal();
    for _ in 0..2 {
        for (id, bytes) in [("a", 1000), ("b", 500), ("c", 50), ("d", 7)] {
            journal.record_announced(&file(id, bytes)).await.unwrap();
        }
        journal.record_compressed("a", 100).await.unwrap();
        journal.record_compressed("b", 60).await.unwrap();
        journal.record_restored("a", 100).await.unwrap();
        journal.record_superseded("b").await.unwrap();
        journal
            .record_failed("c", &failure(DeadLetterReason::HashMismatch))
            .await
            .unwrap();
    }
    let progress = journal.progress().await.unwrap();
    let expected = JournalProgress {
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
    let failures = journal.failures(10).await.unwrap();
    assert_eq!(
        failures,
        [("c.json".to_owned(), failure(DeadLetterReason::HashMismatch))]
    );
}

#[tokio::test]
async fn a_file_that_is_done_stays_done() {
    let (_dir, journal) = journal();
    journal.record_announced(&file("a", 10)).await.unwrap();
    journal.record_restored("a", 100).await.unwrap();
    journal
        .record_failed("a", &failure(DeadLetterReason::GaveUp))
        .await
        .unwrap();
    journal.record_superseded("a").await.unwrap();
    journal.record_announced(&file("a", 10)).await.unwrap();
    let progress = journal.progress().await.unwrap();
    assert_eq!(
        (progress.restored, progress.failed, progress.superseded),
        (1, 0, 0)
    );
}

#[tokio::test]
async fn a_redriven_file_is_on_its_way_again_and_a_repeated_announcement_is_no_redrive() {
    let (_dir, journal) = journal();
    journal.record_announced(&file("a", 10)).await.unwrap();
    journal
        .record_failed("a", &failure(DeadLetterReason::Expired))
        .await
        .unwrap();
    journal.record_announced(&file("a", 10)).await.unwrap();
    assert_eq!(journal.progress().await.unwrap().failed, 1);
    journal.record_redriven("a").await.unwrap();
    assert_eq!(journal.progress().await.unwrap().unfinished(), 1);
    journal
        .record_failed("a", &failure(DeadLetterReason::Expired))
        .await
        .unwrap();
    journal.record_restored("a", 100).await.unwrap();
    let progress = journal.progress().await.unwrap();
    assert_eq!(
        (progress.failed, progress.restored, progress.unfinished()),
        (0, 1, 0)
    );
}

/// A version of a.json.
fn version(id: &str) -> JournalFile {
    JournalFile {
        name: "a.json".into(),
        ..file(id, 10)
    }
}

#[tokio::test]
async fn a_failed_version_is_superseded_once_one_announced_later_is_restored() {
    for fails_late in [false, true] {
        let (_dir, journal) = journal();
        let fail = async || {
            let failed = failure(DeadLetterReason::SourceMissing);
            journal.record_failed("old", &failed).await.unwrap();
        };
        for id in ["old", "new"] {
            journal.record_announced(&version(id)).await.unwrap();
        }
        if !fails_late {
            fail().await;
            assert!(!journal.was_replaced("old").await.unwrap());
        }
        journal.record_restored("new", 5).await.unwrap();
        if fails_late {
            fail().await;
        }
        let progress = journal.progress().await.unwrap();
        assert_eq!(
            (progress.restored, progress.superseded, progress.failed),
            (1, 1, 0)
        );
        assert!(journal.failures(10).await.unwrap().is_empty());
        assert!(journal.was_replaced("old").await.unwrap());
        assert!(!journal.was_replaced("new").await.unwrap());
    }
}

#[tokio::test]
async fn a_restored_version_ends_no_failure_of_a_later_one_or_of_another_name() {
    let (_dir, journal) = journal();
    let others = [file("b", 10), version("old"), version("new")];
    for other in &others {
        journal.record_announced(other).await.unwrap();
    }
    for id in ["b", "new"] {
        let failed = failure(DeadLetterReason::SourceMissing);
        journal.record_failed(id, &failed).await.unwrap();
    }
    journal.record_restored("old", 5).await.unwrap();
    let progress = journal.progress().await.unwrap();
    assert_eq!((progress.superseded, progress.failed), (0, 2));
    let mut failed = journal.failed_ids(10).await.unwrap();
    failed.sort();
    assert_eq!(failed, ["b", "new"]);
}

/// An announcement of a version of a.json.
fn record(id: &str) -> SourceRecord {
    SourceRecord {
        location: "file:///data/in".into(),
        name: "a.json".into(),
        announcement: format!("announcement of {id}"),
        file_id: id.into(),
        hash: format!("hash of {id}"),
        bytes: 10,
        modified_nanos: 0,
        fingerprint: "1".into(),
        is_settled: true,
        state: SourceState::Writing,
        version: None,
        wants_reply: false,
        awaits_receipt: true,
        is_gone: false,
    }
}

#[tokio::test]
async fn a_failed_file_is_not_superseded_by_a_restored_one_of_another_location() {
    let (_dir, journal) = journal();
    let mine = record("mine");
    let other = SourceRecord {
        location: "file:///elsewhere".into(),
        ..record("other")
    };
    for record in [mine, other] {
        journal.record_announcements(&[record]).await.unwrap();
    }
    let failed = failure(DeadLetterReason::SourceMissing);
    journal.record_failed("mine", &failed).await.unwrap();
    journal.record_restored("other", 5).await.unwrap();
    let progress = journal.progress().await.unwrap();
    assert_eq!((progress.superseded, progress.failed), (0, 1));
    assert!(!journal.was_replaced("mine").await.unwrap());
}

#[tokio::test]
async fn what_was_restored_or_packed_stays_so_when_its_next_announcement_is_superseded() {
    for was_restored in [true, false] {
        let (_dir, journal) = journal();
        let counts = async || {
            let it = journal.progress().await.unwrap();
            (it.restored, it.superseded, it.compressed, it.bytes_packed)
        };
        let first = record("first");
        let again = SourceRecord {
            announcement: "another".into(),
            ..first.clone()
        };
        journal.record_announcements(&[first]).await.unwrap();
        journal.record_compressed("first", 5).await.unwrap();
        if was_restored {
            journal.record_restored("first", 5).await.unwrap();
        }
        journal.record_announcements(&[again]).await.unwrap();
        assert_eq!(counts().await, (0, 0, 0, 0));
        let newer = [record("newer")];
        journal.record_announcements(&newer).await.unwrap();
        journal.record_superseded("first").await.unwrap();
        let restored = u64::from(was_restored);
        assert_eq!(counts().await, (restored, 1 - restored, 1, 5));
        journal.record_restored("newer", 4).await.unwrap();
        assert_eq!(counts().await, (restored + 1, 1 - restored, 2, 9));
        let newest = journal.source("file:///data/in", "a.json").await.unwrap();
        assert_eq!(newest.unwrap().state, SourceState::Restored);
    }
}

#[tokio::test]
async fn the_last_announcement_of_a_name_is_superseded_although_its_content_was_restored_before() {
    let (_dir, journal) = journal();
    let again = SourceRecord {
        announcement: "another".into(),
        ..record("first")
    };
    let first = [record("first")];
    journal.record_announcements(&first).await.unwrap();
    journal.record_restored("first", 5).await.unwrap();
    journal.record_announcements(&[again]).await.unwrap();
    journal.record_superseded("first").await.unwrap();
    let newest = journal.source("file:///data/in", "a.json").await.unwrap();
    assert_eq!(newest.unwrap().state, SourceState::Superseded);
}

#[tokio::test]
async fn what_was_announced_last_is_the_newest_although_the_clock_was_set_back() {
    let (dir, journal) = journal();
    journal
        .record_announcements(&[record("first")])
        .await
        .unwrap();
    journal.record_restored("first", 5).await.unwrap();
    let database = rusqlite::Connection::open(dir.path().join("streampress.db")).unwrap();
    database
        .execute_batch(
            "UPDATE files SET announced_at = announced_at + 3600000, restored_at = restored_at + 3600000",
        )
        .unwrap();
    for id in ["second", "third"] {
        journal.record_announcements(&[record(id)]).await.unwrap();
        journal.record_restored(id, 5).await.unwrap();
        let newest = journal.source("file:///data/in", "a.json").await.unwrap();
        assert_eq!(newest.unwrap().state, SourceState::Restored, "{id}");
        assert!(journal.was_restored("a.json", id).await.unwrap(), "{id}");
    }
}

#[tokio::test]
async fn a_step_told_before_the_announcement_is_not_forgotten() {
    let (_dir, journal) = journal();
    journal.record_compressed("a", 5).await.unwrap();
    journal.record_announced(&file("a", 10)).await.unwrap();
    let progress = journal.progress().await.unwrap();
    assert_eq!(
        (
            progress.compressed,
            progress.bytes_raw,
            progress.bytes_packed
        ),
        (1, 10, 5)
    );
    journal
        .record_failed("a", &failure(DeadLetterReason::Expired))
        .await
        .unwrap();
    assert_eq!(journal.failures(1).await.unwrap()[0].0, "a.json");
}

#[tokio::test]
async fn a_file_whose_manifest_came_was_packed_whether_or_not_that_was_recorded() {
    let (_dir, journal) = journal();
    for (id, bytes) in [("a", 1000), ("b", 500), ("c", 50), ("d", 7)] {
        journal.record_announced(&file(id, bytes)).await.unwrap();
    }
    let packed = async || {
        let progress = journal.progress().await.unwrap();
        (
            progress.compressed,
            progress.bytes_raw,
            progress.bytes_packed,
        )
    };
    journal.record_restored("a", 100).await.unwrap();
    journal.record_received("b", 60).await.unwrap();
    journal.record_superseded("b").await.unwrap();
    journal.record_received("c", 40).await.unwrap();
    let failed = failure(DeadLetterReason::HashMismatch);
    journal.record_failed("c", &failed).await.unwrap();
    assert_eq!(packed().await, (3, 1550, 200));
    // As the compressor packed it last, whatever comes first.
    journal.record_compressed("a", 90).await.unwrap();
    journal.record_restored("a", 100).await.unwrap();
    journal.record_received("a", 100).await.unwrap();
    assert_eq!(packed().await, (3, 1550, 190));
}

#[tokio::test]
async fn announced_before_means_the_same_name_size_and_version() {
    let (_dir, journal) = journal();
    let known = file("a", 10);
    journal.record_announced(&known).await.unwrap();
    let nanosecond = Duration::from_nanos(1);
    let seen = async |name: &str, bytes, modified: SystemTime| {
        journal
            .was_announced(name, bytes, modified)
            .await
            .unwrap()
            .unwrap()
    };
    assert!(seen("a.json", 10, known.modified).await);
    assert!(!seen("b.json", 10, known.modified).await);
    assert!(!seen("a.json", 11, known.modified).await);
    assert!(!seen("a.json", 10, known.modified + nanosecond).await);
    assert!(!seen("a.json", 10, UNIX_EPOCH - nanosecond).await);
}

#[tokio::test]
async fn small_values_are_kept_and_replaced() {
    let (_dir, journal) = journal();
    assert_eq!(journal.get("seed").await.unwrap(), None);
    journal.set("seed", "1").await.unwrap();
    journal.set("seed", "2").await.unwrap();
    assert_eq!(journal.get("seed").await.unwrap().as_deref(), Some("2"));
}

#[tokio::test]
async fn a_journal_from_before_modules_had_versions_is_kept() {
    let (dir, journal) = journal();
    journal.record_announced(&file("a", 10)).await.unwrap();
    journal.record_restored("a", 100).await.unwrap();
    drop(journal);
    let database = rusqlite::Connection::open(dir.path().join("streampress.db")).unwrap();
    database
        .execute_batch("DROP TABLE modules; DROP TABLE sources; DROP TABLE destination")
        .unwrap();
    drop(database);
    let local = Local::open(dir.path(), LocalOptions::default()).unwrap();
    let journal = SqliteJournal::open(&local).unwrap();
    journal.record_announced(&file("b", 10)).await.unwrap();
    let progress = journal.progress().await.unwrap();
    assert_eq!((progress.announced, progress.restored), (2, 1));
}

#[tokio::test]
async fn a_journal_of_a_newer_version_is_refused() {
    let (dir, journal) = journal();
    drop(journal);
    let database = rusqlite::Connection::open(dir.path().join("streampress.db")).unwrap();
    database
        .execute_batch("UPDATE modules SET version = version + 1")
        .unwrap();
    drop(database);
    let local = Local::open(dir.path(), LocalOptions::default()).unwrap();
    let refused = SqliteJournal::open(&local).unwrap_err().to_string();
    assert!(
        refused.contains("written by a newer streampress"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_worker_without_a_journal_knows_nothing_and_fails_nothing() {
    let journal = NoJournal;
    journal.record_announced(&file("a", 10)).await.unwrap();
    journal
        .record_failed("a", &failure(DeadLetterReason::Expired))
        .await
        .unwrap();
    journal.set("key", "value").await.unwrap();
    assert_eq!(journal.get("key").await.unwrap(), None);
    let known = journal.was_announced("a.json", 10, UNIX_EPOCH).await;
    assert_eq!(known.unwrap(), None);
    assert_eq!(
        journal.progress().await.unwrap(),
        JournalProgress::default()
    );
    assert!(journal.failures(10).await.unwrap().is_empty());
}
