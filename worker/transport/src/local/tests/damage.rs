//! Folders that cannot be used, records that are not whole, disks that are full.

use std::fs;
use std::path::Path;
use std::process::Command;

use futures::TryStreamExt;

use crate::contract_tests::eventually;
use crate::contract_tests::queue::{message, next};
use crate::contract_tests::stream::record;
use crate::error_chain;
use crate::local::{Local, LocalOptions};
use crate::{Position, Sequence, TransportError};

fn open(dir: &Path) -> Local {
    Local::open(dir, LocalOptions::default()).unwrap()
}

/// The chain of causes, as a user sees it.
fn refusal(dir: &Path) -> String {
    let error = Local::open(dir, LocalOptions::default()).expect_err("should be refused");
    error_chain(&error)
}

fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
}

#[test]
fn a_file_that_is_no_database_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("streampress.db");
    let text = "these are the user's notes ".repeat(100);
    fs::write(&path, &text).unwrap();
    assert_says(
        &refusal(dir.path()),
        &[
            "streampress.db is not a database of streampress",
            "move it and its -wal and -shm files away",
            "damaged && mv ",
        ],
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn the_command_that_moves_a_damaged_database_away_can_be_typed() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("it's my data");
    for aside in ["damaged", "damaged-2"] {
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("streampress.db"), "notes ".repeat(1000)).unwrap();
        let text = refusal(&dir);
        let (_, command) = text.split_once("moves it: ").unwrap();
        let typed = Command::new("sh").args(["-c", command]).output().unwrap();
        assert!(typed.status.success(), "{command}: {typed:?}");
        assert!(dir.join(aside).join("streampress.db").exists(), "{command}");
        assert!(!dir.join("streampress.db").exists(), "{command}");
    }
}

#[test]
fn a_folder_in_the_place_of_a_file_of_the_database_is_named_and_the_cause_is_said_once() {
    for (name, cause) in [
        ("streampress.db", "unable to open database file"),
        ("streampress.db-wal", "disk I/O error"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(name)).unwrap();
        let text = refusal(dir.path());
        let words = format!("{name} is a folder where a file of the database belongs; move it");
        assert_says(&text, &[&words]);
        assert_eq!(text.matches(cause).count(), 1, "{text}");
    }
}

#[test]
fn a_fault_without_a_remedy_is_said_with_its_cause_alone() {
    let text = refusal(Path::new("/proc/streampress-data"));
    assert_says(
        &text,
        &["creating the data folder /proc/streampress-data: No such file"],
    );
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("sessions/opening")).unwrap();
    assert_says(
        &refusal(dir.path()),
        &["sessions/opening: a folder is in the way of a file; move it"],
    );
}

#[test]
fn a_database_of_another_program_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("streampress.db");
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE theirs(x)").unwrap();
    drop(other);
    let before = fs::read(&path).unwrap();
    assert_says(
        &refusal(dir.path()),
        &["database of another program", "choose another data folder"],
    );
    assert!(fs::read(&path).unwrap() == before);
}

#[test]
fn a_newer_schema_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let newer = rusqlite::Connection::open(dir.path().join("streampress.db")).unwrap();
    newer.execute_batch("PRAGMA user_version = 99").unwrap();
    assert_says(
        &refusal(dir.path()),
        &["newer streampress", "its schema is 99, this one knows 1"],
    );
}

#[test]
fn a_file_in_place_of_the_folder_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    fs::write(&path, "").unwrap();
    let shown = path.display().to_string();
    assert_says(&refusal(&path), &[&shown, "a file is in the way"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_named_with_the_remedy() {
    // Not even root may create folders here.
    let text = refusal(Path::new("/sys/streampress-data"));
    assert_says(&text, &["/sys/streampress-data", "make it writable"]);
}

#[tokio::test]
async fn a_damaged_database_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let local = open(dir.path());
    let bodies: Vec<String> = (0..200).map(|n| format!("{n:0>500}")).collect();
    let messages = bodies.iter().map(|b| message("g", b)).collect();
    local.files_queue().send(messages).await.unwrap();
    drop(local);
    let path = dir.path().join("streampress.db");
    // The last handle writes the pages of the -wal file back when it is dropped.
    while dir.path().join("streampress.db-wal").exists() {
        tokio::task::yield_now().await;
    }
    let mut bytes = fs::read(&path).unwrap();
    // The pages of the messages; the schema in front of them stays as it is.
    let half = bytes.len() / 2;
    bytes[half..].fill(0x5a);
    fs::write(&path, bytes).unwrap();
    let queue = open(dir.path()).files_queue();
    let drained = async {
        for _ in 0..200 {
            let delivery = queue.receive(1, std::time::Duration::ZERO).await?;
            queue.delete(&delivery[0].receipt).await?;
        }
        Ok::<(), TransportError>(())
    };
    let text = drained.await.expect_err("should be refused").to_string();
    assert_says(&text, &["streampress.db is damaged", "move it"]);
}

#[tokio::test]
async fn a_full_disk_fails_the_call_and_only_until_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let local = open(dir.path());
    let queue = local.files_queue();
    queue.send(vec![message("g", "before")]).await.unwrap();
    let limit = |pages: &'static str| {
        local.store.call(move |step| {
            let pragma = format!("PRAGMA max_page_count = {pages}");
            Ok(step.conn.query_row(&pragma, [], |_| Ok(()))?)
        })
    };
    // SQLite lowers this to what the database has: the next page does not fit.
    limit("1").await.unwrap();
    let large = message("h", &"x".repeat(100_000));
    let error = queue
        .send(vec![large.clone()])
        .await
        .expect_err("should not fit");
    assert_says(&error.to_string(), &["is full", "nothing is lost"]);
    assert_eq!(queue.depth().await.unwrap().total(), 1);
    limit("1000000").await.unwrap();
    queue.send(vec![large]).await.unwrap();
    assert_eq!(next(&queue).await.body, "before");
    assert_eq!(queue.depth().await.unwrap().total(), 2);
}

#[tokio::test]
async fn the_write_ahead_log_gives_its_space_back_when_the_folder_is_idle() {
    let dir = tempfile::tempdir().unwrap();
    let local = open(dir.path());
    let queue = local.files_queue();
    let log = dir.path().join("streampress.db-wal");
    let log_bytes = || fs::metadata(&log).map_or(0, |meta| meta.len());
    for receives in [false, true] {
        let large = message("g", &"x".repeat(200_000 + usize::from(receives)));
        queue.send(vec![large]).await.unwrap();
        assert!(log_bytes() > 100_000);
        let idle = eventually("its space is back", async || log_bytes() == 0);
        match receives {
            false => idle.await,
            true => {
                let waiting = local.chunks_queue();
                let receiving = waiting.receive(1, std::time::Duration::from_secs(600));
                tokio::select! {
                    () = idle => {}
                    _ = receiving => panic!("nothing was sent"),
                }
            }
        }
    }
    assert_eq!(queue.depth().await.unwrap().total(), 2);
}

#[tokio::test]
async fn on_a_full_disk_the_write_ahead_log_gives_its_space_back_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let local = open(dir.path());
    let queue = local.files_queue();
    let log = dir.path().join("streampress.db-wal");
    let log_bytes = || fs::metadata(&log).map_or(0, |meta| meta.len());
    let text = "x".repeat(200_000);
    queue.send(vec![message("g", &text)]).await.unwrap();
    assert!(log_bytes() > 100_000);
    local.store.release_space();
    // Answered after what the thread did before.
    assert_eq!(queue.depth().await.unwrap().total(), 1);
    assert_eq!(queue.depth().await.unwrap().total(), 1);
    assert!(log_bytes() < 10_000, "{} bytes", log_bytes());
}

#[tokio::test]
async fn no_flipped_or_missing_byte_of_a_record_goes_unseen() {
    let dir = tempfile::tempdir().unwrap();
    let stream = open(dir.path()).stream();
    let records = vec![record(1, 10), record(2, 40), record(3, 10)];
    let positions = stream.append(records).await.unwrap();
    let position = &positions[1];
    let path = dir
        .path()
        .join("stream")
        .join(format!("{}.seg", position.shard));
    let whole = fs::read(&path).unwrap();
    let start: usize = position.sequence.as_str().parse().unwrap();
    let end: usize = positions[2].sequence.as_str().parse().unwrap();
    for at in start..end {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&path, &damaged).unwrap();
        let outcome = stream.fetch(std::slice::from_ref(position)).await;
        assert!(
            matches!(outcome, Err(TransportError::Missing(_))),
            "flip at {at}: {outcome:?}"
        );
        assert_eq!(
            stream
                .fetch(&[positions[0].clone(), positions[2].clone()])
                .await
                .unwrap()
                .len(),
            2
        );
    }
    for length in 0..end {
        fs::write(&path, &whole[..length]).unwrap();
        let outcome = stream.fetch(std::slice::from_ref(position)).await;
        assert!(
            matches!(outcome, Err(TransportError::Missing(_))),
            "cut at {length}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn positions_that_were_never_answered_are_missing_and_lead_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("outside.seg"), [0; 5000]).unwrap();
    let stream = open(dir.path()).stream();
    let good = stream
        .append(vec![record(1, 3000)])
        .await
        .unwrap()
        .remove(0);
    let at = |shard: &str, sequence: &str, bytes| Position {
        shard: shard.into(),
        sequence: Sequence::parse(sequence).unwrap(),
        bytes,
    };
    let start = good.sequence.as_str();
    let outside = format!("{}/../../outside", dir.path().display());
    for hostile in [
        at(&good.shard, start, 2999),
        at(&good.shard, start, 3001),
        at(&good.shard, start, u32::MAX),
        at(&good.shard, "0", 3000),
        at(&good.shard, "9", 10),
        at(&good.shard, &u64::MAX.to_string(), 10),
        at(&good.shard, &"9".repeat(129), 10),
        at("../outside", "8", 10),
        at(&outside, "8", 10),
        at("", "8", 10),
        at("1-1.x", "8", 10),
    ] {
        let outcome = stream.fetch(std::slice::from_ref(&hostile)).await;
        assert!(
            matches!(outcome, Err(TransportError::Missing(_))),
            "{hostile}: {outcome:?}"
        );
    }
    assert_eq!(stream.fetch(&[good]).await.unwrap()[0].len(), 3000);
}

#[tokio::test]
async fn a_record_copied_to_another_place_is_not_taken_for_the_one_there() {
    let dir = tempfile::tempdir().unwrap();
    let stream = open(dir.path()).stream();
    let positions = stream
        .append(vec![record(1, 100), record(2, 100)])
        .await
        .unwrap();
    let path = dir
        .path()
        .join("stream")
        .join(format!("{}.seg", positions[0].shard));
    let mut bytes = fs::read(&path).unwrap();
    let (first, second) = bytes[8..].split_at_mut(124);
    second[..124].copy_from_slice(first);
    fs::write(&path, &bytes).unwrap();
    assert_eq!(
        stream.fetch(&positions[..1]).await.unwrap(),
        [record(1, 100).data]
    );
    let outcome = stream.fetch(&positions[1..]).await;
    assert!(
        matches!(outcome, Err(TransportError::Missing(_))),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn records_after_a_damaged_one_are_found_without_their_positions() {
    let dir = tempfile::tempdir().unwrap();
    let stream = open(dir.path()).stream();
    let records: Vec<_> = (0..4).map(|seed| record(seed, 100)).collect();
    let positions = stream.append(records).await.unwrap();
    let path = dir
        .path()
        .join("stream")
        .join(format!("{}.seg", positions[0].shard));
    let whole = fs::read(&path).unwrap();
    let at = |index: usize| positions[index].sequence.as_str().parse::<usize>().unwrap();
    // Its length, its hash, its data; and an end that is half-written.
    for damaged in [at(1), at(1) + 20, at(1) + 30, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[damaged] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let found: Vec<_> = stream.scan().try_collect().await.unwrap();
        let (found, unread): (Vec<_>, Vec<_>) =
            found.concat().into_iter().partition(|it| it.data.is_some());
        let found: Vec<_> = found.into_iter().map(|it| it.position).collect();
        let lost = if damaged < at(2) { 1 } else { 3 };
        let mut expected = positions.clone();
        expected.remove(lost);
        assert_eq!(found, expected, "byte {damaged}");
        let unread: Vec<_> = unread.iter().map(|it| &it.position.sequence).collect();
        assert_eq!(unread, [&positions[lost].sequence], "byte {damaged}");
    }
}

#[tokio::test]
async fn versions_after_an_earlier_state_of_the_database_was_put_back_are_newer_than_all_before() {
    let dir = tempfile::tempdir().unwrap();
    let announce = async |id: &str| {
        let local = open(dir.path());
        let queue = local.files_queue();
        let sent = queue.send_numbered(vec![message("g", id)]).await;
        sent.unwrap().remove(0).expect("a new message")
    };
    let copy = |from: &Path, to: &Path| {
        for name in ["streampress.db", "streampress.db-wal"] {
            let _ = fs::remove_file(to.join(name));
            if from.join(name).exists() {
                fs::copy(from.join(name), to.join(name)).unwrap();
            }
        }
        let _ = fs::remove_file(to.join("streampress.db-shm"));
    };
    let first = announce("1").await;
    let backup = tempfile::tempdir().unwrap();
    copy(dir.path(), backup.path());
    let lost = [announce("2").await, announce("3").await];
    assert!(first < lost[0] && lost[0] < lost[1]);
    copy(backup.path(), dir.path());
    let later = announce("4").await;
    assert!(lost[1] < later, "{later} after {}", lost[1]);
}

#[tokio::test]
async fn nothing_is_appended_to_a_segment_that_another_program_has_changed() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 4] = [
        ("appended to", |path| {
            let mut bytes = fs::read(path).unwrap();
            bytes.extend([0; 100]);
            fs::write(path, bytes).unwrap();
        }),
        ("cut", |path| {
            let half = fs::metadata(path).unwrap().len() / 2;
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(half).unwrap();
        }),
        ("removed", |path| fs::remove_file(path).unwrap()),
        ("renamed over", |path| {
            let copy = path.with_extension("copy");
            fs::copy(path, &copy).unwrap();
            fs::rename(copy, path).unwrap();
        }),
    ];
    for (how, change) in changes {
        let dir = tempfile::tempdir().unwrap();
        let local = open(dir.path());
        let before = local.stream().append(vec![record(1, 100)]).await.unwrap();
        for entry in fs::read_dir(dir.path().join("stream")).unwrap() {
            change(&entry.unwrap().path());
        }
        let after = local.stream().append(vec![record(2, 100)]).await.unwrap();
        assert_ne!(before[0].shard, after[0].shard, "{how}");
        let fetched = local.stream().fetch(&after).await.unwrap();
        assert_eq!(fetched.len(), 1, "{how}");
        let next = local.stream().append(vec![record(3, 100)]).await.unwrap();
        assert_eq!(next[0].shard, after[0].shard, "{how}");
    }
}
