//! What depends on time: leases, retention, visibility across sessions, and receive counts.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::TryStreamExt;
use tokio::time::Instant;

use super::{NOTES, memory_folder, note, noted};
use crate::contract_tests::queue::{message, next};
use crate::contract_tests::stream::record;
use crate::contract_tests::{PATIENCE, eventually};
use crate::local::{Local, LocalOptions};
use crate::{ATTR_DETAIL, ATTR_REASON, Position, Queue, TransportError};

/// Short for a test; the folder in memory has no slow syncs that could use it up.
const LEASE: Duration = Duration::from_secs(3);
/// Shorter than a write waits for another process's transaction, and far longer than a holder's deadline.
const WHILE_BLOCKED: Duration = Duration::from_secs(15);

fn open(dir: &Path) -> Local {
    Local::open(dir, LocalOptions::default()).unwrap()
}

fn open_with_visibility(dir: &Path, visibility_timeout: Duration) -> Local {
    let options = LocalOptions {
        visibility_timeout,
        ..LocalOptions::default()
    };
    Local::open(dir, options).unwrap()
}

fn open_with_short_lease(dir: &Path) -> Local {
    let options = LocalOptions {
        lease: LEASE,
        ..LocalOptions::default()
    };
    Local::open(dir, options).unwrap()
}

/// As if another process had a very long transaction: no other can write before this is committed.
fn blocked(dir: &Path) -> rusqlite::Connection {
    let blocker = rusqlite::Connection::open(dir.join("streampress.db")).unwrap();
    blocker.busy_timeout(PATIENCE).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    blocker
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_cannot_renew_is_told_before_another_may_follow() {
    let dir = memory_folder();
    let held = open_with_short_lease(dir.path()).lock("role", 1);
    let held = held.try_acquire().await.unwrap().unwrap();
    let blocker = blocked(dir.path());
    tokio::time::timeout(WHILE_BLOCKED, held.lost().cancelled())
        .await
        .expect("told while the database is blocked");
    assert!(!held.ensure_owner());
    blocker.execute_batch("COMMIT").unwrap();
    assert!(
        !held.flush().await,
        "a lost slot's ledger must not be written"
    );
    let follower = open_with_short_lease(dir.path()).lock("role", 1);
    eventually("another follows after the lease", || async {
        follower.try_acquire().await.unwrap().is_some()
    })
    .await;
}

#[test]
fn a_holder_that_hangs_is_followed_when_its_record_has_not_changed_for_a_lease() {
    let dir = memory_folder();
    let holder = open_with_short_lease(dir.path());
    let observer = open_with_short_lease(dir.path());
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let hangs = runtime();
    let held = hangs
        .block_on(holder.lock("role", 1).try_acquire())
        .unwrap()
        .unwrap();
    // Its process lives on, but nothing renews.
    hangs.shutdown_background();
    runtime().block_on(async {
        let lock = observer.lock("role", 1);
        let not_before = Instant::now() + LEASE;
        assert!(lock.all_held_by_others().await.unwrap());
        eventually("the lease runs out", || async {
            !lock.all_held_by_others().await.unwrap()
        })
        .await;
        assert!(Instant::now() >= not_before, "followed too early");
        let follower = lock.try_acquire().await.unwrap().unwrap();
        assert_ne!(follower.attempt(), held.attempt());
        assert!(follower.flush().await);
    });
}

/// How often the only slot was renewed.
fn renewals(dir: &Path) -> i64 {
    let database = rusqlite::Connection::open(dir.join("streampress.db")).unwrap();
    database.busy_timeout(PATIENCE).unwrap();
    database
        .query_row("SELECT renewals FROM slots", [], |row| row.get(0))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_in_use_outlives_its_lease() {
    let dir = memory_folder();
    let held = open_with_short_lease(dir.path())
        .lock("role", 1)
        .try_acquire()
        .await
        .unwrap()
        .unwrap();
    let other = open_with_short_lease(dir.path()).lock("role", 1);
    // Eight renewals take longer than a lease.
    while renewals(dir.path()) < 8 {
        assert!(other.all_held_by_others().await.unwrap());
        // Between two reads; each is a transaction of its own.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!held.lost().is_cancelled());
    assert!(held.release().await);
}

#[tokio::test]
async fn an_ended_session_releases_what_it_held_at_once() {
    let dir = tempfile::tempdir().unwrap();
    // Longer than a test waits, so that only the end of the session can make the message visible.
    let open = |dir| open_with_visibility(dir, Duration::from_secs(3600));
    let first = open(dir.path());
    first
        .files_queue()
        .send(vec![message("g", "held")])
        .await
        .unwrap();
    let second = open(dir.path());
    assert_eq!(next(&second.files_queue()).await.receive_count, 1);
    drop(second);
    let again = next(&first.files_queue()).await;
    assert_eq!((again.body.as_str(), again.receive_count), ("held", 2));
}

#[tokio::test]
async fn a_living_session_keeps_what_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    first
        .files_queue()
        .send(vec![message("g", "held")])
        .await
        .unwrap();
    let held = next(&first.files_queue()).await;
    let second = open(dir.path());
    // That nothing comes shows only over a time: longer than between two checks for ended sessions.
    let got = second
        .files_queue()
        .receive(1, Duration::from_millis(1500))
        .await
        .unwrap();
    assert!(got.is_empty(), "{got:?}");
    first.files_queue().delete(&held.receipt).await.unwrap();
}

#[tokio::test]
async fn a_release_does_not_count_towards_the_dead_letters_but_expiry_does() {
    let dir = tempfile::tempdir().unwrap();
    let options = LocalOptions {
        max_receive_count: 2,
        ..LocalOptions::default()
    };
    let queue = Local::open(dir.path(), options).unwrap().files_queue();
    queue.send(vec![message("g", "patient")]).await.unwrap();
    for count in 1..=10 {
        let delivery = next(&queue).await;
        assert_eq!(delivery.receive_count, count);
        queue.release(&delivery.receipt).await.unwrap();
    }
    for _ in 0..2 {
        let delivery = next(&queue).await;
        queue
            .extend(&delivery.receipt, Duration::ZERO)
            .await
            .unwrap();
    }
    assert!(queue.receive(1, Duration::ZERO).await.unwrap().is_empty());
    let dead = next(&queue.dead_letters().unwrap()).await;
    assert_eq!(dead.attributes[ATTR_REASON], "ReceivedTooOften");
    assert!(dead.attributes[ATTR_DETAIL].contains("received 12 times"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receive_dropped_half_way_does_not_even_count() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path()).files_queue();
    queue
        .send(vec![message("g", "counted once")])
        .await
        .unwrap();
    // The writer thread has taken the call and cannot begin it when the caller is dropped.
    let blocker = blocked(dir.path());
    let receive = queue.receive(1, Duration::ZERO);
    let gone = tokio::time::timeout(Duration::from_millis(200), receive).await;
    assert!(gone.is_err(), "should have been blocked");
    blocker.execute_batch("COMMIT").unwrap();
    assert_eq!(next(&queue).await.receive_count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_granted_to_a_dropped_caller_is_free_again() {
    let dir = tempfile::tempdir().unwrap();
    let lock = open(dir.path()).lock("role", 1);
    assert!(!lock.all_held_by_others().await.unwrap());
    let blocker = blocked(dir.path());
    let gone = tokio::time::timeout(Duration::from_millis(200), lock.try_acquire()).await;
    assert!(gone.is_err(), "should have been blocked");
    blocker.execute_batch("COMMIT").unwrap();
    eventually("the slot is free", || async {
        lock.try_acquire().await.unwrap().is_some()
    })
    .await;
}

#[tokio::test]
async fn a_step_that_fails_is_rolled_back_alone() {
    let dir = tempfile::tempdir().unwrap();
    let local = open(dir.path());
    local.database(&NOTES).unwrap();
    let write = |key: &'static str, outcome: Result<(), TransportError>| {
        local.store.call(move |step| {
            step.conn
                .execute("INSERT INTO notes VALUES(?1, 'written')", [key])?;
            Ok(outcome?)
        })
    };
    // Called at once, so that they share a transaction.
    let (before, failed, after) = tokio::join!(
        write("before", Ok(())),
        write("failed", Err(TransportError::Stale)),
        write("after", Ok(()))
    );
    assert!(before.is_ok() && matches!(failed, Err(TransportError::Stale)) && after.is_ok());
    for (key, written) in [("before", true), ("failed", false), ("after", true)] {
        assert_eq!(noted(&local, key).await.is_some(), written, "{key}");
    }
}

#[tokio::test]
async fn what_was_sent_and_appended_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let local = open(dir.path());
    let records = vec![record(1, 5000)];
    let positions = local.stream().append(records.clone()).await.unwrap();
    local
        .chunks_queue()
        .send(vec![message("g", "kept")])
        .await
        .unwrap();
    note(&local, "key", "value").await;
    drop(local);
    let local = open(dir.path());
    assert_eq!(next(&local.chunks_queue()).await.body, "kept");
    assert!(local.stream().fetch(&positions).await.unwrap()[0] == records[0].data);
    assert_eq!(noted(&local, "key").await.as_deref(), Some("value"));
}

#[tokio::test]
async fn segments_go_after_their_retention_time_but_never_under_a_living_process() {
    let dir = tempfile::tempdir().unwrap();
    let options = |retention| LocalOptions {
        retention,
        segment_bytes: 1000,
        ..LocalOptions::default()
    };
    let lives = Local::open(dir.path(), options(Duration::from_secs(3600))).unwrap();
    let positions = lives.stream().append(vec![record(1, 100)]).await.unwrap();
    // Each append fills a segment of 1000 bytes.
    let rotated = lives.stream().append(vec![record(2, 2000)]).await.unwrap();
    let rotated_again = lives.stream().append(vec![record(3, 2000)]).await.unwrap();
    assert_eq!(positions[0].shard, rotated[0].shard);
    assert_ne!(rotated[0].shard, rotated_again[0].shard);
    drop(Local::open(dir.path(), options(Duration::ZERO)).unwrap());
    assert_eq!(lives.stream().fetch(&rotated).await.unwrap().len(), 1);
    drop(lives);
    sessions_end(dir.path()).await;
    let later = Local::open(dir.path(), options(Duration::ZERO)).unwrap();
    for gone in [&positions, &rotated, &rotated_again] {
        until_expired(&later, gone).await;
    }
}

/// Waits until all handles of a data folder are closed.
async fn sessions_end(dir: &Path) {
    let sessions = dir.join("sessions");
    eventually("all sessions end", || async {
        let open = fs::read_dir(&sessions).unwrap().flatten();
        open.filter(|entry| entry.path().extension().is_some_and(|e| e == "lock"))
            .count()
            == 0
    })
    .await;
}

#[tokio::test]
async fn a_segment_that_was_deleted_before_its_time_is_missing_and_not_expired() {
    let dir = tempfile::tempdir().unwrap();
    let local = Local::open(dir.path(), LocalOptions::default()).unwrap();
    let positions = local.stream().append(vec![record(1, 100)]).await.unwrap();
    for entry in fs::read_dir(dir.path().join("stream")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let fetched = local.stream().fetch(&positions).await;
    assert!(
        matches!(fetched, Err(TransportError::Missing(_))),
        "{fetched:?}"
    );
}

#[tokio::test]
async fn a_stream_whose_folder_is_missing_is_an_outage_and_goes_on_once_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let local = Local::open(dir.path(), LocalOptions::default()).unwrap();
    let stream = local.stream();
    let positions = stream.append(vec![record(1, 100)]).await.unwrap();
    let (folder, away) = (dir.path().join("stream"), dir.path().join("away"));
    fs::rename(&folder, &away).unwrap();
    let is_outage = |error| matches!(error, Err(TransportError::Unavailable { .. }));
    assert!(is_outage(stream.fetch(&positions).await.map(drop)));
    assert!(is_outage(stream.probe_fetch().await));
    assert!(is_outage(
        stream.append(vec![record(2, 100)]).await.map(drop)
    ));
    fs::rename(&away, &folder).unwrap();
    stream.probe_fetch().await.unwrap();
    assert_eq!(stream.fetch(&positions).await.unwrap().len(), 1);
    stream.append(vec![record(2, 100)]).await.unwrap();
}

#[tokio::test]
async fn a_database_that_was_removed_or_replaced_is_not_written_until_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let local = Local::open(dir.path(), LocalOptions::default()).unwrap();
    let queue = local.files_queue();
    let send = async |id: &str| queue.send(vec![message("g", id)]).await;
    send("before").await.unwrap();
    let is_refused = async || matches!(send("lost").await, Err(TransportError::Unavailable { .. }));
    let is_used = async || send("after").await.is_ok();
    let away = dir.path().join("away");
    // Its log is another one, too, where a new database was begun and only the old file is put back.
    for name in ["streampress.db", "streampress.db-wal"] {
        let path = dir.path().join(name);
        // The log is known once a while has passed.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert!(is_used().await, "{name}");
        fs::rename(&path, &away).unwrap();
        eventually("a removed file is refused", is_refused).await;
        fs::copy(&away, &path).unwrap();
        eventually("another one of its name is refused", is_refused).await;
        fs::rename(&away, &path).unwrap();
        eventually("it is used again", is_used).await;
    }
}

#[tokio::test]
async fn a_folder_whose_stream_was_moved_away_is_not_opened_while_messages_need_it() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, away) = (dir.path().join("stream"), dir.path().join("away"));
    let opened = || Local::open(dir.path(), LocalOptions::default());
    let local = opened().unwrap();
    let positions = local.stream().append(vec![record(1, 100)]).await.unwrap();
    drop(local);
    // Nothing names what it held.
    fs::rename(&folder, &away).unwrap();
    let local = opened().unwrap();
    local
        .chunks_queue()
        .send(vec![message("a", "1")])
        .await
        .unwrap();
    drop(local);
    fs::remove_dir_all(&folder).unwrap();
    let refused = opened().err().map(|error| error.to_string());
    let refused = refused.expect("refused");
    assert!(refused.contains("1 packed file(s)"), "{refused}");
    assert!(!folder.exists());
    fs::rename(&away, &folder).unwrap();
    let local = opened().unwrap();
    assert_eq!(local.stream().fetch(&positions).await.unwrap().len(), 1);
    drop(local);
    // As the refusal says.
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    opened().unwrap();
}

async fn until_expired(local: &Local, positions: &[Position]) {
    eventually("the segment is removed", || async {
        let fetched = local.stream().fetch(positions).await;
        matches!(fetched, Err(TransportError::Expired(_)))
    })
    .await;
}

#[tokio::test]
async fn a_segment_that_a_waiting_or_dead_message_needs_is_kept_whatever_its_age() {
    let dir = tempfile::tempdir().unwrap();
    let options = |retention| LocalOptions {
        retention,
        segment_bytes: 1000,
        ..LocalOptions::default()
    };
    let opened = || Local::open(dir.path(), options(Duration::ZERO)).unwrap();
    let first = Local::open(dir.path(), options(Duration::from_secs(3600))).unwrap();
    let mut positions = Vec::new();
    // Each append fills a segment.
    for number in 0..3 {
        let record = record(number, 2000);
        positions.push(first.stream().append(vec![record]).await.unwrap());
    }
    let [waits, dies, unneeded] = &positions[..] else {
        panic!("three appends");
    };
    let body = |kind: &str, of: &[Position]| {
        format!(
            r#"{{"records":{{"{kind}":{}}}}}"#,
            serde_json::to_string(of).unwrap()
        )
    };
    let queue = first.chunks_queue();
    for (group, body) in [("dies", body("here", dies)), ("waits", body("here", waits))] {
        queue.send(vec![message(group, &body)]).await.unwrap();
    }
    let dead = next(&queue).await;
    let failure = crate::Failure::new(crate::DeadLetterReason::GaveUp, "because");
    queue.dead_letter(&dead, &failure).await.unwrap();
    drop((first, queue));
    sessions_end(dir.path()).await;

    let second = opened();
    until_expired(&second, unneeded).await;
    for needed in [waits, dies] {
        assert_eq!(second.stream().fetch(needed).await.unwrap().len(), 1);
    }
    let waiting = next(&second.chunks_queue()).await;
    second
        .chunks_queue()
        .delete(&waiting.receipt)
        .await
        .unwrap();
    drop(second);
    sessions_end(dir.path()).await;
    let third = opened();
    until_expired(&third, waits).await;
    assert_eq!(third.stream().fetch(dies).await.unwrap().len(), 1);
}

#[tokio::test]
async fn appends_do_not_wait_for_the_removal_of_old_segments_nor_that_for_a_backlog() {
    let dir = tempfile::tempdir().unwrap();
    let options = LocalOptions {
        retention: Duration::ZERO,
        segment_bytes: 1000,
        ..LocalOptions::default()
    };
    let local = Local::open(dir.path(), options).unwrap();
    let queue = local.chunks_queue();
    for number in 0..300 {
        let body = format!("{{\"n\": {number}}}");
        let sent = queue.send(vec![message(&number.to_string(), &body)]).await;
        sent.unwrap();
    }
    let kept = local.stream().append(vec![record(1, 10)]).await.unwrap();
    let needed = format!("{{\"records\": [\"{}\"]}}", kept[0].shard);
    queue.send(vec![message("needs", &needed)]).await.unwrap();
    // Another process that writes: meanwhile it cannot be known which segments are old.
    let other = rusqlite::Connection::open(dir.path().join("streampress.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let path = |of: &[Position]| dir.path().join(format!("stream/{}.seg", of[0].shard));
    // Each fills a segment, after which the old ones are looked at.
    let fill = || async { local.stream().append(vec![record(2, 2000)]).await.unwrap() };
    fill().await;
    let first = fill().await;
    fill().await;
    assert!(path(&first).exists());
    other.execute_batch("ROLLBACK").unwrap();
    eventually("the old segment is removed", || async {
        fill().await;
        !path(&first).exists()
    })
    .await;
    assert!(path(&kept).exists(), "a message needs it");
}

#[tokio::test]
async fn segments_that_a_database_which_was_put_back_does_not_know_stay_whatever_their_age() {
    let dir = tempfile::tempdir().unwrap();
    let options = LocalOptions {
        retention: Duration::from_secs(3600),
        ..LocalOptions::default()
    };
    let opened = || Local::open(dir.path(), options.clone()).unwrap();
    let append = async |number, bytes| {
        let local = opened();
        let appended = local.stream().append(vec![record(number, bytes)]).await;
        drop(local);
        sessions_end(dir.path()).await;
        appended.unwrap()
    };
    let known = append(1, 100).await;
    let grown = append(2, 100).await;
    let path = |of: &[Position]| dir.path().join(format!("stream/{}.seg", of[0].shard));
    let database = dir.path().join("streampress.db");
    let rows = || -> i64 {
        let connection = rusqlite::Connection::open(&database).unwrap();
        let count = connection.query_row("SELECT count(*) FROM segments", [], |row| row.get(0));
        count.unwrap()
    };
    let local = opened();
    eventually("both are known", || async { rows() == 2 }).await;
    drop(local);
    sessions_end(dir.path()).await;
    // Hours before the backup is put back.
    let connection = rusqlite::Connection::open(&database).unwrap();
    let earlier = "UPDATE segments SET known_at = known_at - 2 * 3600000";
    assert_eq!(connection.execute(earlier, []).unwrap(), 2);
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    connection.query_row(checkpoint, [], |_| Ok(())).unwrap();
    drop(connection);
    let backup = fs::read(&database).unwrap();
    let unknown = append(3, 100).await;
    let mut file = fs::File::options().append(true).open(path(&grown)).unwrap();
    file.write_all(b"more records").unwrap();
    for ending in ["-wal", "-shm"] {
        let _ = fs::remove_file(dir.path().join(format!("streampress.db{ending}")));
    }
    fs::write(&database, backup).unwrap();
    for of in [&known, &grown, &unknown] {
        let old = SystemTime::now() - Duration::from_secs(7200);
        let file = fs::File::options().append(true).open(path(of)).unwrap();
        file.set_modified(old).unwrap();
    }
    let local = opened();
    eventually("what is known is removed", || async {
        !path(&known).exists()
    })
    .await;
    drop(local);
    sessions_end(dir.path()).await;
    drop(opened());
    assert!(path(&grown).exists() && path(&unknown).exists());
}

#[tokio::test]
async fn segments_before_a_needed_list_of_records_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let options = |retention| LocalOptions {
        retention,
        segment_bytes: 1000,
        ..LocalOptions::default()
    };
    let first = Local::open(dir.path(), options(Duration::from_secs(3600))).unwrap();
    let mut positions = Vec::new();
    for number in 0..3 {
        let record = record(number, 2000);
        positions.push(first.stream().append(vec![record]).await.unwrap());
    }
    let body = format!(
        r#"{{"records":{{"listed":{}}}}}"#,
        serde_json::to_string(&positions[1]).unwrap()
    );
    let queue = first.chunks_queue();
    queue.send(vec![message("g", &body)]).await.unwrap();
    drop((first, queue));
    sessions_end(dir.path()).await;
    let later = Local::open(dir.path(), options(Duration::ZERO)).unwrap();
    until_expired(&later, &positions[2]).await;
    for needed in &positions[..2] {
        assert_eq!(later.stream().fetch(needed).await.unwrap().len(), 1);
    }
}

fn lose_database(dir: &Path) {
    for name in ["streampress.db", "streampress.db-wal", "streampress.db-shm"] {
        let _ = fs::remove_file(dir.join(name));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_of_a_lost_database_stay_and_what_is_sent_afterwards_counts_as_later() {
    let dir = memory_folder();
    let options = LocalOptions {
        retention: Duration::from_secs(3600),
        ..LocalOptions::default()
    };
    let local = Local::open(dir.path(), options.clone()).unwrap();
    let positions = local.stream().append(vec![record(1, 100)]).await.unwrap();
    let version = async |local: &Local| {
        let queue = local.files_queue();
        let sent = queue.send_numbered(vec![message("g", "a")]);
        sent.await.unwrap()[0].clone().unwrap()
    };
    let before = version(&local).await;
    drop(local);
    let segment = dir
        .path()
        .join("stream")
        .join(format!("{}.seg", positions[0].shard));
    let old = SystemTime::now() - Duration::from_secs(7200);
    let file = fs::File::options().append(true).open(segment).unwrap();
    file.set_modified(old).unwrap();
    lose_database(dir.path());
    let local = Local::open(dir.path(), options).unwrap();
    let found: Vec<_> = local.stream().scan().try_collect().await.unwrap();
    assert_eq!(found.concat()[0].position, positions[0]);
    assert!(version(&local).await > before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_lost_again_and_again_at_once_has_later_versions_each_time() {
    let dir = memory_folder();
    let mut last = None;
    for lost in 0..3 {
        let local = Local::open(dir.path(), LocalOptions::default()).unwrap();
        let sent = local
            .files_queue()
            .send_numbered(vec![message("g", "a")])
            .await;
        let version = sent.unwrap()[0].clone().unwrap();
        assert!(last.is_none_or(|last| version > last), "{lost}");
        local.stream().append(vec![record(1, 100)]).await.unwrap();
        last = Some(version);
        drop(local);
        lose_database(dir.path());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_waiting_receivers_each_get_their_message() {
    let dir = tempfile::tempdir().unwrap();
    let queue: Arc<dyn Queue> = open(dir.path()).files_queue();
    let waiting: Vec<_> = (0..30)
        .map(|_| {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move { next(&queue).await.body })
        })
        .collect();
    let bodies: Vec<String> = (0..30).map(|n| format!("{n:02}")).collect();
    queue
        .send(bodies.iter().map(|b| message(b, b)).collect())
        .await
        .unwrap();
    let mut got: Vec<String> = futures::future::try_join_all(waiting).await.unwrap();
    got.sort();
    assert_eq!(got, bodies);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_receives_never_take_the_wake_up_of_waiting_ones() {
    let dir = memory_folder();
    let queue = open(dir.path()).files_queue();
    let (sender, mut got) = tokio::sync::mpsc::unbounded_channel();
    let receive = |patience: fn() -> Duration| {
        let (queue, sender) = (Arc::clone(&queue), sender.clone());
        tokio::spawn(async move {
            loop {
                let receiving = queue.receive(1, Duration::from_secs(600));
                if let Ok(deliveries) = tokio::time::timeout(patience(), receiving).await {
                    for delivery in deliveries.unwrap() {
                        queue.delete(&delivery.receipt).await.unwrap();
                        sender.send(delivery.body).unwrap();
                    }
                }
            }
        })
    };
    let mut tasks = vec![receive(|| Duration::from_secs(600))];
    tasks.extend((0..10).map(|_| receive(|| Duration::from_micros(fastrand::u64(0..3000)))));
    for number in 0..200 {
        let body = number.to_string();
        queue.send(vec![message("g", &body)]).await.unwrap();
        let received = tokio::time::timeout(PATIENCE, got.recv()).await;
        assert_eq!(received.expect("no receive was woken").unwrap(), body);
    }
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Runs one statement on the folder's database, to make entries look old.
async fn execute(local: &Local, sql: &'static str) {
    local
        .store
        .call(move |step| Ok(step.conn.execute(sql, []).map(drop)?))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_deduplication_id_is_free_again_after_five_minutes_and_not_before() {
    let dir = memory_folder();
    let local = open(dir.path());
    let queue = local.files_queue();
    // A minute before the end, which a busy machine does not use up.
    for (age, expected) in [("0", 1), ("240000", 1), ("61000", 2)] {
        let older: &'static str = format!("UPDATE dedup SET sent_at = sent_at - {age}").leak();
        execute(&local, older).await;
        queue.send(vec![message("g", "again")]).await.unwrap();
        assert_eq!(
            queue.depth().await.unwrap().total(),
            expected,
            "{age} ms later"
        );
    }
}

#[tokio::test]
async fn a_clock_that_was_set_back_does_not_hide_messages_for_hours() {
    let dir = memory_folder();
    let local = open(dir.path());
    let queue = local.files_queue();
    queue
        .send(vec![message("g", "from the future")])
        .await
        .unwrap();
    next(&queue).await;
    execute(&local, "UPDATE messages SET hidden_since = hidden_since + 7200000, hidden_until = hidden_until + 7200000")
        .await;
    assert_eq!(next(&queue).await.receive_count, 2);
}

#[tokio::test]
async fn messages_and_dead_letters_stay_whatever_their_age() {
    let dir = memory_folder();
    let local = open(dir.path());
    let queue = local.files_queue();
    let dead = queue.dead_letters().unwrap();
    dead.send(vec![message("g", "old"), message("g", "young")])
        .await
        .unwrap();
    queue
        .send(vec![message("g", "never removed")])
        .await
        .unwrap();
    execute(
        &local,
        "UPDATE messages SET sent_at = sent_at - 1209700000 WHERE body <> 'young'",
    )
    .await;
    drop((dead, queue, local));
    // The first transaction of a process removes what is old.
    let queue = open(dir.path()).files_queue();
    let dead = queue.dead_letters().unwrap();
    assert_eq!(dead.depth().await.unwrap().total(), 2);
    assert_eq!(next(&dead).await.body, "old");
    assert_eq!(next(&queue).await.body, "never removed");
}

#[test]
fn many_may_open_a_new_folder_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let open_and_send = &|number: usize| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let queue = open(dir.path()).files_queue();
        let own = number.to_string();
        runtime
            .block_on(queue.send(vec![message(&own, &own)]))
            .unwrap();
    };
    std::thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || open_and_send(number));
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let queue = open(dir.path()).files_queue();
    assert_eq!(runtime.block_on(queue.depth()).unwrap().total(), 8);
}

#[tokio::test]
async fn only_what_must_survive_power_loss_waits_for_the_disk() {
    let dir = memory_folder();
    let store = open(dir.path()).store;
    let level = |step: &mut crate::local::store::Step<'_>| {
        Ok(step
            .conn
            .query_row("PRAGMA synchronous", [], |row| row.get::<_, i64>(0))?)
    };
    const NORMAL: i64 = 1;
    const FULL: i64 = 2;
    for _ in 0..2 {
        assert_eq!(store.call_unsynced(level).await.unwrap(), NORMAL);
        assert_eq!(store.call(level).await.unwrap(), FULL);
    }
    // In one transaction with what must survive, everything does.
    let (unsynced, synced) = tokio::join!(store.call_unsynced(level), store.call(level));
    assert_eq!(synced.unwrap(), FULL);
    assert!(unsynced.unwrap() >= NORMAL);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_to_a_queue_wakes_who_waits_there_in_the_same_process() {
    const LONG: Duration = Duration::from_secs(3600);
    let folder = memory_folder();
    let local = open(folder.path());
    let queues = [
        local.files_queue(),
        local.chunks_queue(),
        local.receipts_queue(),
    ];
    let dead: Vec<_> = queues.iter().filter_map(|it| it.dead_letters()).collect();
    assert_eq!(dead.len(), queues.len());
    for queue in queues.iter().chain(&dead) {
        let waiting = tokio::spawn({
            let queue = Arc::clone(queue);
            async move { queue.receive(1, LONG).await }
        });
        // It waits: there is nothing to receive.
        tokio::time::sleep(Duration::from_millis(200)).await;
        queue.send(vec![message("g", queue.name())]).await.unwrap();
        let received = tokio::time::timeout(PATIENCE, waiting).await;
        let received = received.unwrap_or_else(|_| panic!("{} woke no receiver", queue.name()));
        assert_eq!(received.unwrap().unwrap().len(), 1, "{}", queue.name());
    }
}
