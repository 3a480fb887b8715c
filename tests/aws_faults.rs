//! What goes wrong on AWS, each by itself: throttling, failures in part, lost answers, expiry, resharding. Among them
//! are the faults of other programs that this one must not have.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use streampress_tests::aws::{Cloud, FreeSlots, connect};
use streampress_tests::fake_aws::Options;
use streampress_tests::fake_aws::faults::Faults;
use streampress_tests::slow::{Slow, body, consumer};
use streampress_transport::aws::{KinesisStream, SqsQueue};
use streampress_transport::contract_tests::queue::{message, next};
use streampress_transport::contract_tests::stream::record;
use streampress_transport::{
    ChunkStream, Position, Queue, Record, Sequence, StreamCounts, TransportError,
};
use tokio_util::sync::CancellationToken;

const MINUTE: Duration = Duration::from_secs(60);

fn faulty(faults: Faults) -> Options {
    Options {
        faults,
        seed: 7,
        ..Options::default()
    }
}

fn records(numbers: std::ops::Range<u64>, bytes: usize) -> Vec<Record> {
    numbers.map(|seed| record(seed, bytes)).collect()
}

async fn assert_there(stream: &dyn ChunkStream, positions: &[Position], written: &[Record]) {
    let read = stream.fetch(positions).await.expect("all can be read");
    assert!(
        read.iter()
            .zip(written)
            .all(|(read, written)| *read == written.data),
        "a record came back altered"
    );
    assert_eq!(read.len(), written.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_record_in_an_answer_that_succeeds_is_sent_again_and_only_it() {
    let cloud = Cloud::with(faulty(Faults {
        throttle: 0.2,
        ..Faults::default()
    }))
    .await;
    let stream = cloud.stream(4).await;
    let written = records(0..1000, 2000);
    let positions = stream
        .append(written.clone())
        .await
        .expect("all are put in the end");
    cloud.fake_aws.set_faults(Faults::default());
    assert_there(&stream, &positions, &written).await;
    let counts = stream.counts();
    assert_eq!(counts.acknowledged, 1000);
    assert_eq!(
        counts.sent,
        counts.acknowledged + counts.retried + counts.dead
    );
    assert!(counts.throttled > 100, "{counts:?}");
    let amplification = counts.sent as f64 / 1000.0;
    println!("FIGURE amplification at 20 % throttling: {amplification:.3} (at most 1.3)");
    assert!(amplification <= 1.3, "{amplification}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_entries_of_batches_are_heard() {
    let cloud = Cloud::with(faulty(Faults {
        entry_failure: 0.3,
        ..Faults::default()
    }))
    .await;
    let queue = cloud.queue(MINUTE, 20).await;
    let bodies: Vec<String> = (0..60).map(|i| format!("{i}")).collect();
    queue
        .send(bodies.iter().map(|body| message(body, body)).collect())
        .await
        .expect("all are sent in the end");
    let mut seen = Vec::new();
    while seen.len() < 60 {
        let got = queue
            .receive(10, Duration::from_secs(5))
            .await
            .expect("received");
        let deletes = join_all(got.iter().map(|delivery| queue.delete(&delivery.receipt))).await;
        for (delivery, deleted) in got.iter().zip(deletes) {
            // One in 0.3^4 fails four times; whoever asked then knows, and asks again.
            if deleted.is_err() {
                queue
                    .delete(&delivery.receipt)
                    .await
                    .expect("deleted at the second asking");
            }
            seen.push(delivery.body.clone());
        }
    }
    assert_eq!(
        queue.depth().await.expect("known").total(),
        0,
        "a delete was believed that had failed"
    );
    cloud.fake_aws.set_faults(Faults {
        entry_failure: 1.0,
        ..Faults::default()
    });
    assert!(queue.send(vec![message("g", "never")]).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_stays_in_order_when_entries_of_its_batches_fail() {
    let cloud = Cloud::with(faulty(Faults {
        entry_failure: 0.3,
        ..Faults::default()
    }))
    .await;
    let queue = cloud.queue(MINUTE, 20).await;
    let bodies: Vec<String> = (0..20).map(|i| format!("{i}")).collect();
    queue
        .send(bodies.iter().map(|body| message("g", body)).collect())
        .await
        .expect("sent");
    cloud.fake_aws.set_faults(Faults::default());
    for body in &bodies {
        let got = queue
            .receive(10, Duration::from_secs(5))
            .await
            .expect("received");
        assert_eq!(got.iter().map(|d| &d.body).collect::<Vec<_>>(), [body]);
        queue.delete(&got[0].receipt).await.expect("deleted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_down_is_not_hammered_and_comes_back() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(2).await;
    cloud.fake_aws.set_faults(Faults {
        server_error: 1.0,
        ..Faults::default()
    });
    let written = records(0..20, 500);
    let putting = tokio::spawn({
        let (stream, written) = (stream.clone(), written.clone());
        async move { stream.append(written).await }
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    let calls = cloud.fake_aws.calls("PutRecords");
    println!("FIGURE requests in 3 s of failure with 20 records waiting: {calls}");
    assert!(
        (2..=150).contains(&calls),
        "{calls} requests in three seconds"
    );
    cloud.fake_aws.set_faults(Faults::default());
    let positions = putting
        .await
        .expect("no panic")
        .expect("put once the stream is back");
    assert_there(&stream, &positions, &written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_while_the_stream_is_down() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(2).await;
    cloud.fake_aws.set_faults(Faults {
        server_error: 1.0,
        ..Faults::default()
    });
    let taken = Arc::new(AtomicU32::new(0));
    let putting: Vec<_> = (0..64)
        .map(|seed| {
            let (stream, taken) = (stream.clone(), taken.clone());
            tokio::spawn(async move {
                // Counted once the writer has taken the record in: the second of a pair is only offered then.
                let first = tokio::time::timeout(
                    Duration::from_secs(2),
                    stream.append(records(seed..seed + 1, 1_000_000)),
                );
                taken.fetch_add(u32::from(first.await.is_ok()), Ordering::Relaxed);
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let waiting = stream.waiting_bytes();
    assert!(
        (1 << 20..=16 << 20).contains(&waiting),
        "{waiting} bytes wait"
    );
    join_all(putting).await;
    assert_eq!(taken.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pages_of_shards_are_read() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(10).await;
    let positions = stream.append(records(0..300, 100)).await.expect("put");
    let shards: std::collections::BTreeSet<_> =
        positions.iter().map(|position| &position.shard).collect();
    assert_eq!(shards.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_without_a_key_fill_all_shards_evenly() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(5).await;
    let anywhere = records(0..100, 100_000)
        .into_iter()
        .map(|record| Record {
            key: String::new(),
            ..record
        })
        .collect::<Vec<_>>();
    let positions = stream.append(anywhere.clone()).await.expect("put");
    for shard in cloud.fake_aws.kinesis().shard_ids("stream-0") {
        let share = positions
            .iter()
            .filter(|position| position.shard == shard)
            .count();
        assert!((10..=30).contains(&share), "{shard} has {share} of 100");
    }
    assert_there(&stream, &positions, &anywhere).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_or_a_second_copy_alters_nothing() {
    let faults = Faults {
        lost_response: 0.2,
        lost_request: 0.1,
        duplicate: 0.2,
        server_error: 0.1,
        ..Faults::default()
    };
    let cloud = Cloud::with(faulty(faults)).await;
    let stream = cloud.stream(3).await;
    let written = records(0..300, 3000);
    let appends = written.chunks(10).map(|some| stream.append(some.to_vec()));
    let positions: Vec<Position> = join_all(appends)
        .await
        .into_iter()
        .flat_map(|positions| positions.expect("put"))
        .collect();
    assert_there(&stream, &positions, &written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_throttles_answers_nothing_or_fails_never_stalls() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(2).await;
    let written = records(0..100, 1000);
    let positions = stream.append(written.clone()).await.expect("put");
    cloud.fake_aws.set_faults(Faults {
        throttle: 0.3,
        empty_read: 0.4,
        server_error: 0.1,
        lost_response: 0.1,
        ..Faults::default()
    });
    assert_there(&stream, &positions, &written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_iterator_that_expired_is_replaced() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(1).await;
    let written = records(0..4, 700_000);
    let positions = stream.append(written.clone()).await.expect("put");
    assert_there(&stream, &positions[..1], &written[..1]).await;
    cloud.fake_aws.advance(6 * MINUTE);
    assert_there(&stream, &positions[3..], &written[3..]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_the_retention_is_expired_and_not_missing() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(1).await;
    let old = stream.append(records(0..2, 100)).await.expect("put");
    cloud.fake_aws.advance(Duration::from_secs(25 * 3600));
    let new = records(2..3, 100);
    let kept = stream.append(new.clone()).await.expect("put");
    assert!(
        matches!(stream.fetch(&old[1..]).await, Err(TransportError::Expired(position)) if position == old[1])
    );
    assert_there(&stream, &kept, &new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_shard_says_expired_too() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(1).await;
    let old = stream.append(records(0..1, 100)).await.expect("put");
    cloud.fake_aws.reshard("stream-0", 2).expect("split");
    cloud.fake_aws.advance(Duration::from_secs(25 * 3600));
    assert!(matches!(
        stream.fetch(&old).await,
        Err(TransportError::Expired(_))
    ));
}

/// Kinesis does not show the newest records yet.
fn unseen() -> Faults {
    Faults {
        unseen_record: 1.0,
        ..Faults::default()
    }
}

/// Returns after the stream was read so many times more.
async fn read_again(cloud: &Cloud, times: u64) {
    let reads = || cloud.fake_aws.kinesis().counts.reads;
    let enough = reads() + times;
    let read = async {
        while reads() < enough {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let read = tokio::time::timeout(MINUTE, read).await;
    read.expect("it is still asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_not_missing_because_the_stream_was_down_while_it_was_waited_for() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(1).await;
    let written = records(0..1, 100);
    let positions = stream.append(written.clone()).await.expect("put");
    cloud.fake_aws.set_faults(unseen());
    let fetching = tokio::spawn({
        let (stream, positions) = (stream.clone(), positions.clone());
        async move { stream.fetch(&positions).await }
    });
    // More answers than five, so that it is not their number that counts.
    read_again(&cloud, 8).await;
    cloud.fake_aws.set_faults(Faults {
        server_error: 1.0,
        ..unseen()
    });
    // Longer than a record may take to appear.
    tokio::time::sleep(Duration::from_secs(11)).await;
    cloud.fake_aws.set_faults(unseen());
    read_again(&cloud, 2).await;
    cloud.fake_aws.set_faults(Faults::default());
    let read = fetching.await.expect("no panic").expect("found");
    assert_eq!(read, [written[0].data.clone()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_not_missing_because_another_was_waited_for_before_it() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(1).await;
    let written = records(0..2, 100);
    let positions = stream.append(written.clone()).await.expect("put");
    let first: u128 = positions[0].sequence.as_str().parse().expect("a number");
    let never = Position {
        sequence: Sequence::parse(&(first + 1).to_string()).expect("digits"),
        ..positions[0].clone()
    };
    cloud.fake_aws.set_faults(unseen());
    let fetch = |position: &Position| {
        let (stream, position) = (stream.clone(), position.clone());
        tokio::spawn(async move { stream.fetch(&[position]).await })
    };
    let in_vain = fetch(&never);
    read_again(&cloud, 20).await;
    let fetching = fetch(&positions[1]);
    let in_vain = in_vain.await.expect("no panic");
    assert!(
        matches!(&in_vain, Err(TransportError::Missing(position) | TransportError::Expired(position)) if *position == never),
        "{in_vain:?}"
    );
    cloud.fake_aws.set_faults(Faults::default());
    let read = fetching.await.expect("no panic").expect("found");
    assert_eq!(read, [written[1].data.clone()]);
}

/// Bytes read over bytes needed.
#[track_caller]
fn assert_read_at_most(most: f64, what: &str, reader: &impl ChunkStream) {
    let counts = reader.counts();
    let ratio = counts.bytes_read as f64 / counts.bytes_served as f64;
    println!(
        "FIGURE bytes read over needed, {what}: {ratio:.3} with {} reads and {} seeks (at most {most})",
        counts.reads, counts.seeks
    );
    assert!(ratio <= most, "{what}: {ratio} {counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn resharding_during_traffic_loses_and_replays_nothing() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(2).await;
    let (mut positions, mut written) = (Vec::new(), Vec::new());
    for (round, target) in [(0, 4), (1, 8), (2, 4), (3, 2)] {
        let some = records(round * 100..round * 100 + 100, 2000);
        let (put, ()) = tokio::join!(stream.append(some.clone()), async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            cloud
                .fake_aws
                .reshard("stream-0", target)
                .expect("resharded");
        });
        positions.extend(put.expect("put"));
        written.extend(some);
    }
    let fresh = cloud.aws.stream("stream-0").await.expect("opens");
    assert_there(&fresh, &positions, &written).await;
    assert_read_at_most(1.05, "in order, over five generations of shards", &fresh);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_refused_takes_no_other_along() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(1).await;
    // Lowered while we are at work: the stream now refuses requests that hold such a record, as a whole.
    cloud.fake_aws.kinesis().limit_records("stream-0", 5000);
    let (good, bad) = (records(0..20, 1000), records(20..21, 6000));
    let (put, refused) = tokio::join!(stream.append(good.clone()), stream.append(bad));
    assert_there(&stream, &put.expect("the others are put"), &good).await;
    assert!(
        matches!(refused, Err(TransportError::Invalid(_))),
        "{refused:?}"
    );
}

/// On one thread, so that all readers have asked before the first walk begins, however busy the machine is.
#[tokio::test]
async fn many_readers_of_the_same_files_read_a_shard_once() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(4).await;
    let written = records(0..400, 10_000);
    let positions = stream.append(written.clone()).await.expect("put");
    let reader = cloud.aws.stream("stream-0").await.expect("opens");
    // Eight decompressors, each file's record with one of them, as a queue deals them out.
    let readers = (0..8).map(|which| {
        let (reader, positions, written) = (&reader, &positions, &written);
        async move {
            for index in (which..400).step_by(8) {
                assert_there(reader, &positions[index..=index], &written[index..=index]).await;
            }
        }
    });
    join_all(readers).await;
    assert_read_at_most(1.1, "eight readers in one process", &reader);
}

/// Records of small files on a stream with four shards, to be dealt among processes that walk each by itself.
struct Dealt {
    cloud: Cloud,
    stream: KinesisStream,
    written: Vec<Record>,
    positions: Vec<Position>,
}

/// What one receive brings.
const RECEIVE: usize = 10;

impl Dealt {
    /// Put one by one, as files come.
    async fn new(count: u64, bytes: usize) -> Self {
        let cloud = Cloud::start().await;
        let stream = cloud.stream(4).await;
        let mut written = records(0..count, bytes);
        written.iter_mut().for_each(|record| record.key.clear());
        let mut positions = Vec::new();
        for some in written.chunks(4) {
            let puts = some
                .iter()
                .map(|record| stream.append(vec![record.clone()]));
            for put in join_all(puts).await {
                positions.extend(put.expect("put"));
            }
        }
        Self {
            cloud,
            stream,
            written,
            positions,
        }
    }

    /// One process, with two receives' messages in hand.
    async fn work_off(&self, order: &[usize], dealt: &AtomicUsize) -> StreamCounts {
        let reader = self.cloud.aws.stream(self.stream.name()).await;
        let reader = reader.expect("opens");
        let hands = (0..2).map(|_| self.hand(&reader, order, dealt));
        join_all(hands).await;
        reader.counts()
    }

    /// Takes the next messages whenever it is done with those before.
    async fn hand(&self, reader: &KinesisStream, order: &[usize], dealt: &AtomicUsize) {
        loop {
            let from = dealt.fetch_add(RECEIVE, Ordering::SeqCst);
            // The first brings fewer: what is received together need not be what was put together.
            let messages = from.saturating_sub(3)..(from + RECEIVE - 3).min(order.len());
            if messages.is_empty() {
                return;
            }
            let files = order[messages]
                .iter()
                .map(|i| assert_there(reader, &self.positions[*i..=*i], &self.written[*i..=*i]));
            join_all(files).await;
        }
    }

    /// Reads all of it; bytes read over bytes needed, and how many answers that took.
    async fn among(&self, processes: usize, what: &str, order: &[usize]) -> (f64, u64) {
        let (began, dealt) = (Instant::now(), AtomicUsize::new(0));
        let counts = join_all((0..processes).map(|_| self.work_off(order, &dealt))).await;
        let sum = |of: fn(&StreamCounts) -> u64| counts.iter().map(of).sum::<u64>();
        let needed: usize = self.written.iter().map(|record| record.data.len()).sum();
        assert_eq!(sum(|c| c.bytes_served), needed as u64);
        let ratio = sum(|c| c.bytes_read) as f64 / needed as f64;
        let (reads, seeks) = (sum(|c| c.reads), sum(|c| c.seeks));
        println!(
            "FIGURE bytes read over needed, {processes} processes, {} records of {}{what}: {ratio:.2} in {:.1} s with {reads} reads and {seeks} seeks",
            self.written.len(),
            self.written[0].data.len(),
            began.elapsed().as_secs_f64()
        );
        (ratio, reads)
    }

    fn in_order(&self) -> Vec<usize> {
        (0..self.written.len()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_small_files_lie_together_and_still_fill_all_shards() {
    let dealt = Dealt::new(128, 1000).await;
    let shards: Vec<_> = dealt.positions.iter().map(|at| at.shard.as_str()).collect();
    let runs: Vec<_> = shards.chunk_by(|a, b| a == b).collect();
    assert_eq!(
        runs.iter().map(|run| run.len()).collect::<Vec<_>>(),
        [32; 4]
    );
    assert_eq!(
        runs.iter().map(|run| run[0]).collect::<HashSet<_>>().len(),
        4
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_read_records_of_any_size_once() {
    for (count, bytes) in [(600, 10_000), (200, 100_000), (80, 400_000)] {
        let dealt = Dealt::new(count, bytes).await;
        for processes in [2, 4] {
            let (ratio, reads) = dealt.among(processes, "", &dealt.in_order()).await;
            assert!(ratio <= 1.5, "{ratio}");
            // Many small ones in an answer, and of large ones seldom several.
            assert!(bytes > 10_000 || reads < count / 3, "{reads}");
        }
    }
}

/// A shard gives out small records of everybody by the hundred, but five answers a second only. Where a queue does not deal
/// files of different names in their order, a call is dearer than what lies between.
#[tokio::test(flavor = "multi_thread")]
async fn small_records_that_lie_scattered_are_not_read_one_by_one() {
    let dealt = Dealt::new(400, 10_000).await;
    let mut order = dealt.in_order();
    for window in order.chunks_mut(80) {
        fastrand::Rng::with_seed(7).shuffle(window);
    }
    for processes in [2, 4] {
        let (ratio, reads) = dealt.among(processes, ", scattered", &order).await;
        assert!(ratio <= 1.05 * processes as f64, "{ratio}");
        assert!(reads < 300, "{reads}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_late_further_back_is_read_without_most_of_what_lies_between() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(1).await;
    let written = records(0..200, 10_000);
    let positions = stream.append(written.clone()).await.expect("put");
    // The order of the shard is the stream's to say.
    let mut by_place: Vec<usize> = (0..200).collect();
    by_place.sort_by(|a, b| positions[*a].sequence.cmp(&positions[*b].sequence));
    for (what, wanted) in [
        ("every fourth", (0..80).step_by(4).collect::<Vec<_>>()),
        ("all", (0..80).collect()),
    ] {
        let reader = cloud.aws.stream("stream-0").await.expect("opens");
        let fetch = async |places: &[usize]| {
            let pick = |place: &usize| by_place[*place];
            let asked: Vec<_> = places.iter().map(|p| positions[pick(p)].clone()).collect();
            let there: Vec<_> = places.iter().map(|p| written[pick(p)].clone()).collect();
            assert_there(&reader, &asked, &there).await;
        };
        // It finds itself alone, and its walk is far ahead.
        for some in (100..200).collect::<Vec<_>>().chunks(5) {
            fetch(some).await;
        }
        let before = reader.counts();
        // The later of them first, and each time only a few.
        for some in wanted.chunks(wanted.len() / 4).rev() {
            fetch(some).await;
        }
        let after = reader.counts();
        let read = after.bytes_read - before.bytes_read;
        let ratio = read as f64 / (after.bytes_served - before.bytes_served) as f64;
        println!("FIGURE bytes read over needed, asked for late, {what}: {ratio:.3} (at most 1.5)");
        assert!(ratio <= 1.5, "{what}: {ratio}");
    }
}

/// The one message there is can be received by others when the process ends.
async fn assert_given_back(queue: &SqsQueue, cloud: &Cloud) {
    assert!(queue.drain(Duration::from_secs(10)).await, "did not settle");
    let (name, fake_aws) = ("queue-0.fifo", &cloud.fake_aws);
    assert_eq!((fake_aws.hidden(name), fake_aws.sqs().len(name)), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receive_that_is_dropped_at_shutdown_leaves_nothing_hidden() {
    let cloud = Cloud::start().await;
    let queue = cloud.queue(MINUTE, 20).await;
    let waiting = tokio::spawn({
        let queue = queue.clone();
        async move { queue.receive(10, Duration::from_secs(5)).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    waiting.abort();
    queue.send(vec![message("g", "late")]).await.expect("sent");
    assert_given_back(&queue, &cloud).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_back_behind_its_group_is_given_back_with_it() {
    let cloud = Cloud::start().await;
    let queue = cloud.queue(MINUTE, 20).await;
    queue
        .send(["1", "2", "3"].map(|body| message("g", body)).into())
        .await
        .expect("sent");
    let got = queue
        .receive(10, Duration::from_secs(1))
        .await
        .expect("received");
    assert_eq!((got.len(), cloud.fake_aws.hidden("queue-0.fifo")), (1, 3));
    queue.release(&got[0].receipt).await.expect("given back");
    assert_eq!(cloud.fake_aws.hidden("queue-0.fifo"), 0);
    let other = connect(&cloud.fake_aws.url)
        .await
        .queue("queue-0.fifo", MINUTE)
        .await
        .expect("opens");
    assert_eq!(
        other
            .receive(1, Duration::from_secs(1))
            .await
            .expect("received")[0]
            .body,
        "1"
    );
}

/// The second of a group, ready since the first was deleted late in their hiding: it is handed out hidden anew.
async fn ready_late(cloud: &Cloud) -> SqsQueue {
    let queue = cloud.queue(MINUTE, 20).await;
    queue
        .send(["1", "2"].map(|body| message("g", body)).into())
        .await
        .expect("sent");
    let got = queue
        .receive(10, Duration::from_secs(1))
        .await
        .expect("received");
    assert_eq!((got.len(), cloud.fake_aws.hidden("queue-0.fifo")), (1, 2));
    queue
        .extend(&got[0].receipt, Duration::from_secs(40))
        .await
        .expect("hidden for the last 40 of its 60 seconds");
    queue.delete(&got[0].receipt).await.expect("deleted");
    queue
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receive_that_is_dropped_while_it_hides_a_message_anew_leaves_nothing_hidden() {
    let cloud = Cloud::start().await;
    let queue = ready_late(&cloud).await;
    cloud.fake_aws.set_faults(Faults {
        delay: 1.0,
        delay_for: Duration::from_secs(2),
        ..Faults::default()
    });
    let changes = || cloud.fake_aws.calls("ChangeMessageVisibilityBatch");
    let before = changes();
    let waiting = tokio::spawn({
        let queue = queue.clone();
        async move { queue.receive(10, Duration::from_secs(5)).await }
    });
    while changes() == before {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    waiting.abort();
    assert!(waiting.await.is_err(), "it was handed out");
    cloud.fake_aws.set_faults(Faults::default());
    assert_given_back(&queue, &cloud).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_hidden_anew_for_now_is_not_forgotten() {
    let cloud = Cloud::start().await;
    let queue = ready_late(&cloud).await;
    cloud.fake_aws.set_faults(Faults {
        server_error: 1.0,
        ..Faults::default()
    });
    let outcome = queue.receive(10, Duration::from_secs(1)).await;
    assert!(
        matches!(outcome, Err(TransportError::Unavailable { .. })),
        "{outcome:?}"
    );
    cloud.fake_aws.set_faults(Faults::default());
    let queue: Arc<dyn Queue> = Arc::new(queue);
    assert_eq!(next(&queue).await.body, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_hidden_any_longer_is_not_ours_any_more() {
    let cloud = Cloud::start().await;
    let hour = Duration::from_secs(3600);
    let queue = cloud.queue(11 * hour, 20).await;
    queue.send(vec![message("g", "1")]).await.expect("sent");
    let got = queue
        .receive(1, Duration::from_secs(1))
        .await
        .expect("received");
    cloud.fake_aws.advance(2 * hour);
    // Thirteen hours from its receive; SQS hides for twelve.
    let extended = queue.extend(&got[0].receipt, 11 * hour).await;
    assert!(
        matches!(extended, Err(TransportError::Stale)),
        "{extended:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_a_receive_hides_nothing_for_long() {
    let cloud = Cloud::start().await;
    let queue = cloud.queue(MINUTE, 20).await;
    queue
        .send(
            (0..30)
                .map(|i| message(&format!("g{i}"), &format!("{i}")))
                .collect(),
        )
        .await
        .expect("sent");
    cloud.fake_aws.set_faults(Faults {
        lost_response: 0.3,
        ..Faults::default()
    });
    let (mut seen, began) = (0, Instant::now());
    while seen < 30 {
        // Whole calls may fail; the message is then asked for again.
        for delivery in queue
            .receive(10, Duration::from_secs(1))
            .await
            .unwrap_or_default()
        {
            seen += usize::from(queue.delete(&delivery.receipt).await.is_ok());
        }
        assert!(
            began.elapsed() < MINUTE,
            "{seen} of 30 within the hiding time"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_longer_than_the_hiding_time_is_kept_hidden_under_backlog() {
    let cloud = Cloud::start().await;
    // The queue's own default is 30 s; what counts is the 2 s that we ask for.
    let queue = Arc::new(cloud.queue(Duration::from_secs(2), 20).await);
    queue
        .send(
            (0..12)
                .map(|i| message(&format!("g{}", i % 3), &body(&format!("{i}"))))
                .collect(),
        )
        .await
        .expect("sent");
    let handler = Slow::new(Duration::from_secs(3));
    let shutdown = CancellationToken::new();
    let worker = consumer(
        queue.clone(),
        Arc::new(FreeSlots),
        handler.clone(),
        3,
        &shutdown,
    );
    let working = tokio::spawn(async move { worker.run().await });
    let began = Instant::now();
    while cloud.fake_aws.sqs().len("queue-0.fifo") > 0 && began.elapsed() < MINUTE {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    shutdown.cancel();
    working.await.expect("no panic");
    assert_eq!(
        handler.handled.load(Ordering::SeqCst),
        12,
        "a message was lost or worked on twice"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_leaves_no_message_hidden_and_another_goes_on_at_once() {
    let cloud = Cloud::start().await;
    let queue = Arc::new(cloud.queue(MINUTE, 20).await);
    queue
        .send(
            (0..20)
                .map(|i| message(&format!("g{}", i % 4), &body(&format!("{i}"))))
                .collect(),
        )
        .await
        .expect("sent");
    let handler = Slow::new(Duration::from_secs(600));
    let shutdown = CancellationToken::new();
    let worker = consumer(queue.clone(), Arc::new(FreeSlots), handler, 4, &shutdown);
    let working = tokio::spawn(async move { worker.run().await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(cloud.fake_aws.hidden("queue-0.fifo") >= 4);
    let began = Instant::now();
    shutdown.cancel();
    working.await.expect("no panic");
    assert!(queue.drain(Duration::from_secs(5)).await);
    assert_eq!(cloud.fake_aws.hidden("queue-0.fifo"), 0);
    let other: Arc<dyn Queue> = Arc::new(
        connect(&cloud.fake_aws.url)
            .await
            .queue("queue-0.fifo", MINUTE)
            .await
            .expect("opens"),
    );
    next(&other).await;
    println!(
        "FIGURE drain, from the signal to another worker's first message: {:.3} s (at most 3)",
        began.elapsed().as_secs_f64()
    );
    assert!(began.elapsed() < Duration::from_secs(3));
}
