//! The contracts over the services in simulated time, and what only these promise. Every test runs on the paused clock.
#![expect(clippy::unwrap_used, reason = "tests end by panicking")]

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::contract_tests::{self, Implementation, files, queue, stream};
use crate::{ChunkStream, Files, Queue, Record, SlotLock, TransportError, TransportResult};

const DAY: Duration = Duration::from_secs(24 * 3600);
const MINUTE: Duration = Duration::from_secs(60);

struct Simulated(World);

impl Simulated {
    fn new() -> Self {
        Self(World::new(1))
    }
}

#[async_trait]
impl Implementation for Simulated {
    fn short(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn queue(&self, visibility_timeout: Duration, max_receive_count: u32) -> Arc<dyn Queue> {
        let options = QueueOptions {
            visibility_timeout,
            max_receive_count,
            retention: 14 * DAY,
        };
        let queues = SimQueues::new(&self.0, "queue", options);
        Arc::new(queues.open(&SimProcess::new("process")))
    }

    async fn stream(&self) -> Arc<dyn ChunkStream> {
        Arc::new(SimStreams::new(&self.0, "stream", 2, DAY).open(&SimProcess::new("process")))
    }

    async fn locks(&self, participants: usize, slots: u32) -> Vec<Arc<dyn SlotLock>> {
        let slots = SimSlots::new(&self.0, "role", slots);
        let open = |number| slots.open(&SimProcess::new(&format!("process-{number}")));
        (0..participants)
            .map(|number| Arc::new(open(number)) as Arc<dyn SlotLock>)
            .collect()
    }
}

#[tokio::test(start_paused = true)]
async fn the_queue_keeps_its_contract() {
    queue::all(&Simulated::new()).await;
}

#[tokio::test(start_paused = true)]
async fn the_stream_keeps_its_contract() {
    stream::all(&Simulated::new()).await;
}

#[tokio::test(start_paused = true)]
async fn the_lock_keeps_its_contract() {
    contract_tests::lock::all(&Simulated::new()).await;
}

#[tokio::test(start_paused = true)]
async fn the_files_keep_their_contract() {
    for granularity in [Duration::from_nanos(1), Duration::from_secs(1)] {
        let disk = SimDisk::new(&World::new(1), granularity);
        files::all(&disk.open("file:///data", &SimProcess::new("process")));
        assert_eq!(disk.used_bytes(), 0);
    }
}

fn options(visibility_timeout: Duration) -> QueueOptions {
    QueueOptions {
        visibility_timeout,
        max_receive_count: 20,
        retention: 4 * DAY,
    }
}

#[tokio::test(start_paused = true)]
async fn a_deduplication_id_counts_for_five_minutes_and_a_message_for_its_retention() {
    let queues = SimQueues::new(&World::new(1), "queue", options(MINUTE));
    let open = queues.open(&SimProcess::new("process"));
    let send = async || open.send(vec![queue::message("g", "body")]).await.unwrap();
    send().await;
    tokio::time::advance(5 * MINUTE - Duration::from_millis(1)).await;
    send().await;
    assert_eq!(queues.messages().len(), 1);
    tokio::time::advance(Duration::from_millis(1)).await;
    send().await;
    assert_eq!(queues.messages().len(), 2);
    tokio::time::advance(4 * DAY - 5 * MINUTE).await;
    assert_eq!(queues.messages().len(), 1);
    assert_eq!(open.depth().await.unwrap().total(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_request_has_no_effect_and_a_lost_answer_has_one() {
    let queues = SimQueues::new(&World::new(1), "queue", options(MINUTE));
    let open = queues.open(&SimProcess::new("process"));
    let send = async |body| open.send(vec![queue::message("g", body)]).await;
    let is_lost =
        |outcome: TransportResult<()>| matches!(outcome, Err(TransportError::Unavailable { .. }));
    queues
        .service()
        .set_faults(|faults| faults.lost_requests = 1.0);
    assert!(is_lost(send("one").await) && queues.messages().is_empty());
    queues.service().set_faults(|faults| {
        (faults.lost_requests, faults.lost_answers) = (0.0, 1.0);
    });
    assert!(is_lost(send("two").await) && queues.messages().len() == 1);
    // The message of a lost answer stays in flight until its time has run out.
    open.receive(1, MINUTE).await.unwrap_err();
    queues
        .service()
        .set_faults(|faults| faults.lost_answers = 0.0);
    assert!(open.receive(1, Duration::ZERO).await.unwrap().is_empty());
    assert_eq!(open.receive(1, MINUTE).await.unwrap()[0].receive_count, 2);
}

#[tokio::test(start_paused = true)]
async fn a_remade_queue_is_empty_and_knows_no_receipt_of_before() {
    let queues = SimQueues::new(&World::new(1), "queue", options(MINUTE));
    let open = queues.open(&SimProcess::new("process"));
    open.send(vec![queue::message("g", "old")]).await.unwrap();
    let old = queue::next(&(Arc::new(open.clone()) as Arc<dyn Queue>)).await;
    queues.remake();
    open.send(vec![queue::message("g", "new")]).await.unwrap();
    let new = &open.receive(1, MINUTE).await.unwrap()[0];
    assert!(new.version() > old.version());
    let stale = open.delete(&old.receipt).await;
    assert!(matches!(stale, Err(TransportError::Stale)), "{stale:?}");
    assert_eq!(queues.messages()[0].message.body, "new");
}

#[tokio::test(start_paused = true)]
async fn a_killed_process_has_no_effect_and_a_frozen_one_has_it_later() {
    let queues = SimQueues::new(&World::new(1), "queue", options(MINUTE));
    let process = SimProcess::new("process");
    let open = queues.open(&process);
    process.freeze(MINUTE);
    let frozen = tokio::time::Instant::now();
    open.send(vec![queue::message("g", "frozen")])
        .await
        .unwrap();
    assert_eq!(frozen.elapsed(), MINUTE);
    process.freeze(DAY);
    let thawing = async {
        tokio::time::sleep(MINUTE).await;
        process.thaw();
    };
    let sending = open.send(vec![queue::message("g", "thawed")]);
    tokio::join!(sending, thawing).0.unwrap();
    assert_eq!(frozen.elapsed(), 2 * MINUTE);
    process.kill_after(1);
    open.send(vec![queue::message("g", "last")]).await.unwrap();
    let dead = open.send(vec![queue::message("g", "dead")]);
    assert!(tokio::time::timeout(DAY, dead).await.is_err());
    assert!(process.killed().is_cancelled());
    assert_eq!(queues.messages().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_record_expires_and_a_remade_stream_has_none() {
    let streams = SimStreams::new(&World::new(1), "stream", 1, DAY);
    let open = streams.open(&SimProcess::new("process"));
    let append = async |seed| {
        let appended = open.append(vec![stream::record(seed, 10)]).await.unwrap();
        appended[0].clone()
    };
    let old = append(1).await;
    streams.reshard(3);
    tokio::time::advance(DAY).await;
    let expired = open.fetch(std::slice::from_ref(&old)).await;
    assert!(matches!(expired, Err(TransportError::Expired(at)) if at == old));
    streams.set_retention(2 * DAY);
    open.fetch(std::slice::from_ref(&old)).await.unwrap();
    let new = append(2).await;
    assert_ne!(new.shard, old.shard);
    streams.remake();
    let missing = open.fetch(&[new]).await;
    assert!(matches!(missing, Err(TransportError::Missing(_))));
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_cannot_renew_is_told_before_another_can_take_over() {
    let slots = SimSlots::new(&World::new(1), "role", 1);
    let [first, second] = ["first", "second"].map(SimProcess::new);
    let held = slots.open(&first).try_acquire().await.unwrap().unwrap();
    tokio::time::sleep(MINUTE).await;
    assert!(held.ensure_owner(), "it is renewed");
    slots.service().set_faults(|faults| faults.down = true);
    held.lost().cancelled().await;
    slots.service().set_faults(|faults| faults.down = false);
    let other = slots.open(&second);
    assert!(other.try_acquire().await.unwrap().is_none());
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(other.try_acquire().await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_frozen_holder_knows_by_the_clock_and_a_killed_one_is_followed() {
    let slots = SimSlots::new(&World::new(1), "role", 1);
    let [first, second, third] = ["first", "second", "third"].map(SimProcess::new);
    let held = slots.open(&first).try_acquire().await.unwrap().unwrap();
    first.freeze(MINUTE);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(!held.ensure_owner());
    let taken = slots.open(&second).try_acquire().await.unwrap().unwrap();
    second.kill();
    drop(taken);
    tokio::time::sleep(Duration::from_secs(14)).await;
    assert!(slots.open(&third).all_held_by_others().await.unwrap());
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(slots.open(&third).try_acquire().await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_slot_taken_away_is_lost_at_the_next_renewal() {
    let slots = SimSlots::new(&World::new(1), "role", 1);
    let lock = slots.open(&SimProcess::new("process"));
    let held = lock.try_acquire().await.unwrap().unwrap();
    slots.take_away();
    held.lost().cancelled().await;
    assert!(!held.release().await);
}

fn create(files: &SimFiles, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut pending = files.create(&files::name(name))?;
    pending.write_all(bytes)?;
    pending.commit(files::version(1))
}

#[tokio::test(start_paused = true)]
async fn a_disk_fills_and_an_unfinished_file_needs_its_space_too() {
    let disk = SimDisk::new(&World::new(1), Duration::from_nanos(1));
    let open = disk.open("file:///data", &SimProcess::new("process"));
    disk.set_faults(|faults| faults.capacity_bytes = Some(10));
    create(&open, "a", b"123456").unwrap();
    let mut pending = open.create(&files::name("b")).unwrap();
    pending.write_all(b"1234").unwrap();
    let full = create(&open, "c", b"1").unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    drop(pending);
    create(&open, "c", b"1").unwrap();
    let changes: Vec<_> = disk.take_changes().into_iter().map(|it| it.name).collect();
    assert_eq!(changes, ["a", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_down_read_only_or_protected_refuses() {
    let disk = SimDisk::new(&World::new(1), Duration::from_nanos(1));
    let open = disk.open("file:///data", &SimProcess::new("process"));
    create(&open, "a", b"1").unwrap();
    disk.touch("a", |node| node.is_readable = false);
    let refused = open.read(&files::name("a")).map(drop).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    disk.set_faults(|faults| faults.is_read_only = true);
    assert!(create(&open, "a", b"2").is_err() && open.remove(&files::name("a")).is_err());
    open.stat(&files::name("a")).unwrap().unwrap();
    disk.set_faults(|faults| faults.is_down = true);
    open.stat(&files::name("a")).unwrap_err();
    open.list().unwrap_err();
    assert_eq!(disk.node("a").unwrap().bytes, Bytes::from_static(b"1"));
}

#[tokio::test(start_paused = true)]
async fn inodes_and_times_follow_what_a_program_does_to_a_file() {
    let world = World::new(1);
    let disk = SimDisk::new(&world, Duration::from_secs(1));
    let write = |write| disk.write("a", write, Some(files::version(5)));
    let node = || disk.node("a").unwrap();
    write(Write::Replace(Bytes::from_static(b"first")));
    let first = node();
    tokio::time::advance(MINUTE).await;
    write(Write::InPlace(Bytes::from_static(b"other")));
    let second = node();
    assert_eq!(
        (second.inode, second.modified),
        (first.inode, first.modified)
    );
    assert!(second.changed > first.changed);
    write(Write::Append(Bytes::from_static(b" and more")));
    assert_eq!(node().bytes, Bytes::from_static(b"other and more"));
    write(Write::Truncate(2));
    assert_eq!(
        (node().bytes, node().inode),
        (Bytes::from_static(b"ot"), first.inode)
    );
    write(Write::Replace(Bytes::from_static(b"new")));
    assert_ne!(node().inode, first.inode);
    disk.touch("a", |node| {
        node.modified = UNIX_EPOCH + Duration::from_millis(1500)
    });
    assert_eq!(node().modified, UNIX_EPOCH + Duration::from_secs(1));
    let before = world.now();
    world.jump(-3_600_000);
    assert_eq!(before.duration_since(world.now()).unwrap(), 60 * MINUTE);
    disk.rename("a", "b");
    assert!(disk.node("a").is_none() && disk.node("b").unwrap().changed < before);
}

#[tokio::test(start_paused = true)]
async fn a_file_can_be_in_the_way_of_a_folder_and_a_folder_of_a_file() {
    let disk = SimDisk::new(&World::new(1), Duration::from_nanos(1));
    let open = disk.open("file:///data", &SimProcess::new("process"));
    create(&open, "a/b", b"1").unwrap();
    let folder = create(&open, "a", b"1").unwrap_err();
    assert_eq!(folder.kind(), io::ErrorKind::IsADirectory);
    let file = create(&open, "a/b/c", b"1").unwrap_err();
    assert_eq!(file.kind(), io::ErrorKind::NotADirectory);
    assert!(open.stat(&files::name("a/b/c")).unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_makes_the_same_faults() {
    let run = async |seed| {
        let streams = SimStreams::new(&World::new(seed), "stream", 1, DAY);
        streams.service().set_faults(|faults| {
            (faults.lost_answers, faults.latency) = (0.5, (Duration::ZERO, MINUTE));
        });
        let open = streams.open(&SimProcess::new("process"));
        let began = tokio::time::Instant::now();
        let mut outcomes = Vec::new();
        for _ in 0..32 {
            let record = Record {
                key: String::new(),
                data: Bytes::from_static(b"1"),
            };
            let outcome = open.append(vec![record]).await;
            outcomes.push((outcome.is_ok(), began.elapsed()));
        }
        outcomes
    };
    assert_eq!(run(1).await, run(1).await);
    assert_ne!(run(1).await, run(2).await);
}
