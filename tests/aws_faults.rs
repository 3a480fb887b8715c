//! Each fault of AWS by itself: throttling, partial failures, lost responses, expiry, resharding. `aws_others` lists
//! the faults of other programs among them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use streampress_tests::aws::{Cloud, UnlimitedSlots, connect};
use streampress_tests::eventually;
use streampress_tests::fake_aws::FakeAwsOptions;
use streampress_tests::fake_aws::faults::Faults;
use streampress_tests::slow::{SlowHandler, body, consumer};
use streampress_transport::aws::{KinesisStream, SqsQueue};
use streampress_transport::contract_tests::queue::{message, next};
use streampress_transport::contract_tests::stream::record;
use streampress_transport::{
    ChunkStream, Position, Queue, Record, Sequence, StreamCounts, TransportError,
};
use tokio_util::sync::CancellationToken;

const MINUTE: Duration = Duration::from_secs(60);

fn with_faults(faults: Faults) -> FakeAwsOptions {
    FakeAwsOptions {
        faults,
        seed: 7,
        ..FakeAwsOptions::default()
    }
}

fn records(numbers: std::ops::Range<u64>, bytes: usize) -> Vec<Record> {
    numbers.map(|seed| record(seed, bytes)).collect()
}

async fn assert_readable(stream: &dyn ChunkStream, positions: &[Position], written: &[Record]) {
    let read = stream.fetch(positions).await.expect("all can be read");
    assert!(
        read.iter()
            .zip(written)
            .all(|(read, written)| *read == written.data),
        "a record was altered"
    );
    assert_eq!(read.len(), written.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_record_in_a_successful_response_is_the_only_one_sent_again() {
    let cloud = Cloud::with(with_faults(Faults {
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
    assert_readable(&stream, &positions, &written).await;
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
async fn failed_entries_of_batches_are_noticed() {
    let cloud = Cloud::with(with_faults(Faults {
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
            // One in 0.3^4 fails four times; the caller learns of it and repeats the delete. How often depends on how the
            // deletes are batched.
            if deleted.is_err() {
                eventually("deleted by another call", async || {
                    queue.delete(&delivery.receipt).await.is_ok()
                })
                .await;
            }
            seen.push(delivery.body.clone());
        }
    }
    assert_eq!(
        queue.depth().await.expect("known").total(),
        0,
        "a failed delete counted as done"
    );
    cloud.fake_aws.set_faults(Faults {
        entry_failure: 1.0,
        ..Faults::default()
    });
    assert!(queue.send(vec![message("g", "never")]).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_stays_in_order_when_entries_of_its_batches_fail() {
    let cloud = Cloud::with(with_faults(Faults {
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
async fn a_stream_that_is_down_gets_few_requests_and_recovers() {
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
    let calls = || cloud.fake_aws.calls("PutRecords");
    eventually("it is tried again", async || calls() >= 2).await;
    let (began, before) = (Instant::now(), calls());
    // The rate is measured over real time, because the client's pauses are real.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let rate = (calls() - before) as f64 / began.elapsed().as_secs_f64();
    println!("FIGURE requests while the stream is down, 20 records waiting: {rate:.1} a second");
    assert!(rate <= 50.0, "{rate:.1} requests a second");
    cloud.fake_aws.set_faults(Faults::default());
    let positions = putting
        .await
        .expect("no panic")
        .expect("put once the stream is back");
    assert_readable(&stream, &positions, &written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_while_the_stream_is_down() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(2).await;
    cloud.fake_aws.set_faults(Faults {
        server_error: 1.0,
        ..Faults::default()
    });
    let putting: Vec<_> = (0..64)
        .map(|seed| {
            let stream = stream.clone();
            tokio::spawn(async move { stream.append(records(seed..seed + 1, 1_000_000)).await })
        })
        .collect();
    let waiting = || stream.waiting_bytes();
    eventually("records wait", async || waiting() >= 1 << 20).await;
    let enough = cloud.fake_aws.calls("PutRecords") + 10;
    eventually("they are tried several times", async || {
        assert!(waiting() <= 16 << 20, "{} bytes wait", waiting());
        cloud.fake_aws.calls("PutRecords") >= enough
    })
    .await;
    for append in putting {
        assert!(
            !append.is_finished(),
            "an append ended while the stream was down"
        );
        append.abort();
    }
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
    assert_readable(&stream, &positions, &anywhere).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_response_or_a_second_copy_alters_nothing() {
    let faults = Faults {
        lost_response: 0.2,
        lost_request: 0.1,
        duplicate: 0.2,
        server_error: 0.1,
        ..Faults::default()
    };
    let cloud = Cloud::with(with_faults(faults)).await;
    let stream = cloud.stream(3).await;
    let written = records(0..300, 3000);
    let appends = written.chunks(10).map(|some| stream.append(some.to_vec()));
    let positions: Vec<Position> = join_all(appends)
        .await
        .into_iter()
        .flat_map(|positions| positions.expect("put"))
        .collect();
    assert_readable(&stream, &positions, &written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_throttles_returns_nothing_or_fails_never_stalls() {
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
    assert_readable(&stream, &positions, &written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_iterator_is_replaced() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(1).await;
    let written = records(0..4, 700_000);
    let positions = stream.append(written.clone()).await.expect("put");
    assert_readable(&stream, &positions[..1], &written[..1]).await;
    cloud.fake_aws.advance(6 * MINUTE);
    assert_readable(&stream, &positions[3..], &written[3..]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_older_than_the_retention_is_expired_and_not_missing() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(1).await;
    let old = stream.append(records(0..2, 100)).await.expect("put");
    cloud.fake_aws.advance(Duration::from_secs(25 * 3600));
    let new = records(2..3, 100);
    let kept = stream.append(new.clone()).await.expect("put");
    assert!(
        matches!(stream.fetch(&old[1..]).await, Err(TransportError::Expired(position)) if position == old[1])
    );
    assert_readable(&stream, &kept, &new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_an_emptied_shard_is_expired_too() {
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

/// GetRecords does not return the newest records yet.
fn unseen() -> Faults {
    Faults {
        unseen_record: 1.0,
        ..Faults::default()
    }
}

/// Waits until the stream was read `times` more times.
async fn read_again(cloud: &Cloud, times: u64) {
    let reads = || cloud.fake_aws.kinesis().counts.reads;
    let enough = reads() + times;
    eventually("it is read again", async || reads() >= enough).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_while_a_record_is_awaited_does_not_make_it_missing() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(1).await;
    let written = records(0..1, 100);
    let positions = stream.append(written.clone()).await.expect("put");
    cloud.fake_aws.set_faults(unseen());
    let fetching = tokio::spawn({
        let (stream, positions) = (stream.clone(), positions.clone());
        async move { stream.fetch(&positions).await }
    });
    // More than five responses, so that their number does not decide.
    read_again(&cloud, 8).await;
    cloud.fake_aws.set_faults(Faults {
        server_error: 1.0,
        ..unseen()
    });
    // Longer than a record may take to appear, by the client's clock, which is real.
    tokio::time::sleep(Duration::from_secs(11)).await;
    cloud.fake_aws.set_faults(unseen());
    read_again(&cloud, 2).await;
    cloud.fake_aws.set_faults(Faults::default());
    let read = fetching.await.expect("no panic").expect("found");
    assert_eq!(read, [written[0].data.clone()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn awaiting_another_record_first_does_not_make_a_record_missing() {
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
    read_again(&cloud, 3).await;
    // Half of the time that a record may take to appear, by the client's clock, which is real: on a busy machine so many
    // reads would take all of it.
    tokio::time::sleep(Duration::from_secs(4)).await;
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
async fn records_are_put_while_the_shards_are_listed() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(1).await;
    cloud.fake_aws.reshard("stream-0", 2).expect("split");
    cloud.fake_aws.hold("ListShards", true);
    let (fake_aws, mut number) = (&cloud.fake_aws, 0);
    let mut put = async || {
        number += 1;
        let written = records(number - 1..number, 100);
        let positions = stream.append(written.clone()).await.expect("put");
        (positions, written)
    };
    // The answers name other shards; from then on the present ones are requested.
    let deadline = tokio::time::Instant::now() + streampress_transport::contract_tests::PATIENCE;
    while fake_aws.waiting() == 0 {
        put().await;
        assert!(tokio::time::Instant::now() < deadline, "never listed");
    }
    let calls = fake_aws.calls("ListShards");
    let (positions, written) = put().await;
    let still = (fake_aws.waiting(), fake_aws.calls("ListShards"));
    assert_eq!(still, (1, calls), "the put waited for the list");
    fake_aws.hold("ListShards", false);
    assert_readable(&stream, &positions, &written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resharding_during_traffic_loses_and_replays_nothing() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(2).await;
    let (mut positions, mut written) = (Vec::new(), Vec::new());
    for (round, target) in [(0, 4), (1, 8), (2, 4), (3, 2)] {
        let some = records(round * 100..round * 100 + 100, 2000);
        let (put, ()) = tokio::join!(stream.append(some.clone()), async {
            let taken = || cloud.fake_aws.kinesis().counts.taken;
            eventually("the first records are put", async || taken() > round * 100).await;
            cloud
                .fake_aws
                .reshard("stream-0", target)
                .expect("resharded");
        });
        positions.extend(put.expect("put"));
        written.extend(some);
    }
    let fresh = cloud.aws.stream("stream-0").await.expect("opens");
    assert_readable(&fresh, &positions, &written).await;
    assert_read_at_most(1.05, "in order, over five generations of shards", &fresh);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_record_does_not_fail_the_records_beside_it() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(1).await;
    // Lowered after the stream was opened: it now refuses every request that holds such a record.
    cloud.fake_aws.kinesis().limit_records("stream-0", 5000);
    let (good, bad) = (records(0..20, 1000), records(20..21, 6000));
    let (put, refused) = tokio::join!(stream.append(good.clone()), stream.append(bad));
    assert_readable(&stream, &put.expect("the others are put"), &good).await;
    assert!(
        matches!(refused, Err(TransportError::Invalid(_))),
        "{refused:?}"
    );
}

/// On one thread, so that all readers have sent their requests before the first read, however busy the machine is.
#[tokio::test]
async fn many_readers_of_the_same_files_read_a_shard_once() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(4).await;
    let written = records(0..400, 10_000);
    let positions = stream.append(written.clone()).await.expect("put");
    let reader = cloud.aws.stream("stream-0").await.expect("opens");
    // Eight decompressors; each file's record goes to one of them, as a queue delivers them.
    let readers = (0..8).map(|which| {
        let (reader, positions, written) = (&reader, &positions, &written);
        async move {
            for index in (which..400).step_by(8) {
                assert_readable(reader, &positions[index..=index], &written[index..=index]).await;
            }
        }
    });
    join_all(readers).await;
    assert_read_at_most(1.1, "eight readers in one process", &reader);
}

/// Records of small files on a stream with four shards, which several processes read independently.
struct SmallRecords {
    cloud: Cloud,
    stream: KinesisStream,
    written: Vec<Record>,
    positions: Vec<Position>,
}

/// Messages in one receive.
const RECEIVE: usize = 10;

impl SmallRecords {
    /// Puts them one by one, as files arrive.
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

    /// One process that has the messages of two receives in progress.
    async fn run_process(&self, order: &[usize], next: &AtomicUsize) -> StreamCounts {
        let reader = self.cloud.aws.stream(self.stream.name()).await;
        let reader = reader.expect("opens");
        let consumers = (0..2).map(|_| self.consume(&reader, order, next));
        join_all(consumers).await;
        reader.counts()
    }

    /// Receives the next messages whenever those before are done.
    async fn consume(&self, reader: &KinesisStream, order: &[usize], next: &AtomicUsize) {
        loop {
            let from = next.fetch_add(RECEIVE, Ordering::SeqCst);
            // The first receive is smaller: messages received together need not have been put together.
            let messages = from.saturating_sub(3)..(from + RECEIVE - 3).min(order.len());
            if messages.is_empty() {
                return;
            }
            let files = order[messages]
                .iter()
                .map(|i| assert_readable(reader, &self.positions[*i..=*i], &self.written[*i..=*i]));
            join_all(files).await;
        }
    }

    /// Reads all records in several processes; bytes read over bytes needed, and the number of reads.
    async fn read_in(&self, processes: usize, what: &str, order: &[usize]) -> (f64, u64) {
        let (began, next) = (Instant::now(), AtomicUsize::new(0));
        let counts = join_all((0..processes).map(|_| self.run_process(order, &next))).await;
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
async fn records_of_small_files_are_adjacent_and_still_fill_all_shards() {
    let small = SmallRecords::new(128, 1000).await;
    let shards: Vec<_> = small.positions.iter().map(|at| at.shard.as_str()).collect();
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
        let records = SmallRecords::new(count, bytes).await;
        for processes in [2, 4] {
            let (ratio, reads) = records.read_in(processes, "", &records.in_order()).await;
            assert!(ratio <= 1.5, "{ratio}");
            // A response holds many small records, but seldom several large ones.
            assert!(bytes > 10_000 || reads < count / 3, "{reads}");
        }
    }
}

/// A shard returns hundreds of small records in a response, but allows only five reads a second. Where a queue delivers
/// files out of order, a read costs more than the records between two wanted ones.
#[tokio::test(flavor = "multi_thread")]
async fn scattered_small_records_are_not_read_one_by_one() {
    let records = SmallRecords::new(400, 10_000).await;
    let mut order = records.in_order();
    for window in order.chunks_mut(80) {
        fastrand::Rng::with_seed(7).shuffle(window);
    }
    for processes in [2, 4] {
        let (ratio, reads) = records.read_in(processes, ", scattered", &order).await;
        assert!(ratio <= 1.05 * processes as f64, "{ratio}");
        assert!(reads < 300, "{reads}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn late_requests_for_older_records_skip_most_records_between() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(1).await;
    let written = records(0..200, 10_000);
    let positions = stream.append(written.clone()).await.expect("put");
    // Sequence numbers define the order in the shard.
    let mut in_shard_order: Vec<usize> = (0..200).collect();
    in_shard_order.sort_by(|a, b| positions[*a].sequence.cmp(&positions[*b].sequence));
    for (what, wanted) in [
        ("every fourth", (0..80).step_by(4).collect::<Vec<_>>()),
        ("all", (0..80).collect()),
    ] {
        let reader = cloud.aws.stream("stream-0").await.expect("opens");
        let fetch = async |ranks: &[usize]| {
            let pick = |rank: &usize| in_shard_order[*rank];
            let at: Vec<_> = ranks.iter().map(|r| positions[pick(r)].clone()).collect();
            let expected: Vec<_> = ranks.iter().map(|r| written[pick(r)].clone()).collect();
            assert_readable(&reader, &at, &expected).await;
        };
        // It finds itself the only reader, and its read position is far ahead.
        for some in (100..200).collect::<Vec<_>>().chunks(5) {
            fetch(some).await;
        }
        let before = reader.counts();
        // The later records first, a few at a time.
        for some in wanted.chunks(wanted.len() / 4).rev() {
            fetch(some).await;
        }
        let after = reader.counts();
        let read = after.bytes_read - before.bytes_read;
        let ratio = read as f64 / (after.bytes_served - before.bytes_served) as f64;
        println!("FIGURE bytes read over needed, requested late, {what}: {ratio:.3} (at most 1.5)");
        assert!(ratio <= 1.5, "{what}: {ratio}");
    }
}

/// The only message is visible to others when the process ends.
async fn assert_released(queue: &SqsQueue, cloud: &Cloud) {
    assert!(queue.drain(MINUTE).await, "did not drain");
    let (name, fake_aws) = ("queue-0.fifo", &cloud.fake_aws);
    assert_eq!((fake_aws.in_flight(name), fake_aws.sqs().len(name)), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receive_that_is_dropped_at_shutdown_leaves_nothing_in_flight() {
    let cloud = Cloud::start().await;
    let queue = cloud.queue(MINUTE, 20).await;
    let waiting = tokio::spawn({
        let queue = queue.clone();
        async move { queue.receive(10, Duration::from_secs(5)).await }
    });
    eventually("its long poll is open", async || {
        cloud.fake_aws.calls("ReceiveMessage") > 0
    })
    .await;
    waiting.abort();
    queue.send(vec![message("g", "late")]).await.expect("sent");
    assert_released(&queue, &cloud).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_held_back_behind_their_group_are_released_with_it() {
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
    assert_eq!(
        (got.len(), cloud.fake_aws.in_flight("queue-0.fifo")),
        (1, 3)
    );
    queue.release(&got[0].receipt).await.expect("released");
    assert_eq!(cloud.fake_aws.in_flight("queue-0.fifo"), 0);
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

/// A queue whose second message of a group becomes deliverable late in its visibility timeout, after the first was
/// deleted: before it is delivered its visibility is extended.
async fn nearly_expired(cloud: &Cloud) -> SqsQueue {
    let queue = cloud.queue(MINUTE, 20).await;
    queue
        .send(["1", "2"].map(|body| message("g", body)).into())
        .await
        .expect("sent");
    let got = queue
        .receive(10, Duration::from_secs(1))
        .await
        .expect("received");
    assert_eq!(
        (got.len(), cloud.fake_aws.in_flight("queue-0.fifo")),
        (1, 2)
    );
    queue
        .extend(&got[0].receipt, Duration::from_secs(40))
        .await
        .expect("extended to the last 40 of its 60 seconds");
    queue.delete(&got[0].receipt).await.expect("deleted");
    queue
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receive_that_is_dropped_while_it_extends_a_message_leaves_nothing_in_flight() {
    let cloud = Cloud::start().await;
    let queue = nearly_expired(&cloud).await;
    cloud.fake_aws.set_faults(Faults {
        delay: 1.0,
        // Longer than it takes to drop the receive.
        delay_for: Duration::from_secs(10),
        ..Faults::default()
    });
    let changes = || cloud.fake_aws.calls("ChangeMessageVisibilityBatch");
    let before = changes();
    let waiting = tokio::spawn({
        let queue = queue.clone();
        async move { queue.receive(10, Duration::from_secs(5)).await }
    });
    eventually("it is being extended", async || changes() > before).await;
    waiting.abort();
    assert!(waiting.await.is_err(), "it was delivered");
    cloud.fake_aws.set_faults(Faults::default());
    assert_released(&queue, &cloud).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_visibility_cannot_be_extended_yet_is_delivered_later() {
    let cloud = Cloud::start().await;
    let queue = nearly_expired(&cloud).await;
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
async fn a_message_whose_visibility_cannot_be_extended_any_more_is_stale() {
    let cloud = Cloud::start().await;
    let hour = Duration::from_secs(3600);
    let queue = cloud.queue(11 * hour, 20).await;
    queue.send(vec![message("g", "1")]).await.expect("sent");
    let got = queue
        .receive(1, Duration::from_secs(1))
        .await
        .expect("received");
    cloud.fake_aws.advance(2 * hour);
    // Thirteen hours after its receive; SQS allows twelve.
    let extended = queue.extend(&got[0].receipt, 11 * hour).await;
    assert!(
        matches!(extended, Err(TransportError::Stale)),
        "{extended:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_response_to_a_receive_does_not_keep_messages_in_flight() {
    let cloud = Cloud::start().await;
    // Longer than `eventually` waits: a message that stays in flight fails the test.
    let queue = cloud.queue(60 * MINUTE, 20).await;
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
    let mut seen = 0;
    eventually("all messages are received and deleted", async || {
        // Whole calls may fail; the next receive repeats them.
        let received = queue.receive(10, Duration::from_secs(1)).await;
        for delivery in received.unwrap_or_default() {
            seen += usize::from(queue.delete(&delivery.receipt).await.is_ok());
        }
        seen >= 30
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_longer_than_the_visibility_timeout_stays_in_flight_under_backlog() {
    let cloud = Cloud::start().await;
    // The queue's own default is 30 s; the receive's 5 s count. Long enough for a heartbeat on a busy machine.
    let queue = Arc::new(cloud.queue(Duration::from_secs(5), 20).await);
    queue
        .send(
            (0..6)
                .map(|i| message(&format!("g{}", i % 3), &body(&format!("{i}"))))
                .collect(),
        )
        .await
        .expect("sent");
    let handler = SlowHandler::new(Duration::from_secs(7));
    let shutdown = CancellationToken::new();
    let worker = consumer(
        queue.clone(),
        Arc::new(UnlimitedSlots),
        handler.clone(),
        3,
        &shutdown,
    );
    let working = tokio::spawn(async move { worker.run().await });
    eventually("all messages are handled", async || {
        cloud.fake_aws.sqs().len("queue-0.fifo") == 0
    })
    .await;
    shutdown.cancel();
    working.await.expect("no panic");
    assert_eq!(
        handler.handled.load(Ordering::SeqCst),
        6,
        "a message was lost or handled twice"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_worker_leaves_no_message_in_flight_and_another_continues_at_once() {
    let cloud = Cloud::start().await;
    // Longer than any wait here: only a release makes a message visible again.
    let visibility = 60 * MINUTE;
    let queue = Arc::new(cloud.queue(visibility, 20).await);
    queue
        .send(
            (0..20)
                .map(|i| message(&format!("g{}", i % 4), &body(&format!("{i}"))))
                .collect(),
        )
        .await
        .expect("sent");
    let handler = SlowHandler::new(Duration::from_secs(600));
    let shutdown = CancellationToken::new();
    let worker = consumer(
        queue.clone(),
        Arc::new(UnlimitedSlots),
        handler,
        4,
        &shutdown,
    );
    let working = tokio::spawn(async move { worker.run().await });
    eventually("four messages are being handled", async || {
        cloud.fake_aws.in_flight("queue-0.fifo") >= 4
    })
    .await;
    let began = Instant::now();
    shutdown.cancel();
    working.await.expect("no panic");
    assert!(queue.drain(MINUTE).await, "did not drain");
    assert_eq!(cloud.fake_aws.in_flight("queue-0.fifo"), 0);
    let other: Arc<dyn Queue> = Arc::new(
        connect(&cloud.fake_aws.url)
            .await
            .queue("queue-0.fifo", visibility)
            .await
            .expect("opens"),
    );
    next(&other).await;
    println!(
        "FIGURE drain, from the signal to another worker's first message: {:.3} s (goal: 3)",
        began.elapsed().as_secs_f64()
    );
}
