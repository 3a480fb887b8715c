//! Faults of other programs that move data through SQS and Kinesis, each with a test that ours has it not:
//!
//! | fault | where | test |
//! |---|---|---|
//! | a throttled record in a 200 answer counts as delivered | Vector | `aws_faults::a_throttled_record_in_an_answer_that_succeeds_is_sent_again_and_only_it` |
//! | its figures are wrong after retries | Vector | `aws_observed::the_figures_of_a_pipeline_add_up_while_records_are_throttled_and_lost` |
//! | shutdown drops a receive and leaves its messages hidden | Vector | `aws_faults::a_receive_that_is_dropped_at_shutdown_leaves_nothing_hidden`, `aws_drain` |
//! | a body that cannot be read is deleted | Vector | here |
//! | failed entries of a delete batch go unread | Vector | `aws_faults::failed_entries_of_batches_are_heard` |
//! | a request that fails is repeated without a pause | Redpanda Connect | `aws_faults::a_stream_that_is_down_is_not_hammered_and_comes_back` |
//! | only the first page of shards is read | Redpanda Connect | `aws_faults::all_pages_of_shards_are_read` |
//! | a sequence number without an iterator is read from the beginning | Redpanda Connect | here |
//! | the heartbeat does not fit the hiding time | Bento | `aws_faults::work_longer_than_the_hiding_time_is_kept_hidden_under_backlog` |
//! | no growing pauses; out of memory | Kinesis producer library | `aws_faults::a_stream_that_is_down…`, `aws_faults::memory_is_bounded_while_the_stream_is_down`, `aws_memory` |
//! | records expire after 30 s | Kinesis producer library | here |
//! | a shard stalls without a word | Kinesis client library | `aws_faults::a_shard_that_throttles_answers_nothing_or_fails_never_stalls` |
//! | work goes on after the lease was lost | Kinesis client library, Cilium | here; `lease` |
//! | all is replayed after a reshard | Kinesis client library | `aws_faults::resharding_during_traffic_loses_and_replays_nothing` |
//! | parallel puts are lost | kinesis-mock | `aws_faults::a_lost_answer_or_a_second_copy_alters_nothing`, hashes everywhere |
//! | a lease's expiry is judged by the wall clock | kube-lease-manager | `lease` |

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use streampress_tests::aws::Cloud;
use streampress_tests::fake_aws::faults::Faults;
use streampress_tests::pipeline::{CHUNKS, FILES, Place, Role, STREAM, Worker};
use streampress_tests::slow::{Slow, consumer};
use streampress_transport::contract_tests::queue::message;
use streampress_transport::contract_tests::stream::record;
use streampress_transport::slot_lock::HolderRequest;
use streampress_transport::{
    ChunkStream, Ledger, Position, Queue, Sequence, SharedLedger, SlotGuard, SlotLock,
    TransportError, TransportResult,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const MINUTE: Duration = Duration::from_secs(60);

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < MINUTE, "still waiting: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_cannot_be_read_is_a_dead_letter_at_once_while_files_go_on() {
    let cloud = Cloud::start().await;
    cloud.make_queue("files", 20);
    cloud.make_queue("chunks", 20);
    cloud.make_stream(STREAM, 1);
    let root = tempfile::tempdir().expect("a folder");
    let place = Place::new(root.path(), &cloud.fake_aws.url, MINUTE).expect("folders");
    let announcer = place.announcer(&cloud.aws).await;
    for name in [FILES, CHUNKS] {
        let queue = cloud.aws.queue(name, MINUTE).await.expect("opens");
        let poison = [("a", "{"), ("b", "{\"version\": 99}")];
        let poison = poison.map(|(group, body)| message(group, body));
        queue.send(poison.into()).await.expect("sent");
    }
    let entry = place.write("good.txt", b"words", SystemTime::now());
    announcer
        .announce(&entry.expect("written"))
        .await
        .expect("announced");
    let _workers =
        [Role::Compressor, Role::Decompressor].map(|role| Worker::start(&place, role, 2));
    until("the good file is restored", || {
        place.commits().contains_key("good.txt")
    })
    .await;
    for dead in ["files-dlq.fifo", "chunks-dlq.fifo"] {
        until("both are dead letters", || {
            cloud.fake_aws.sqs().len(dead) == 2
        })
        .await;
        for (body, attributes) in cloud.fake_aws.sqs().peek(dead) {
            let reason = &attributes["streampress-reason"]["StringValue"];
            assert_eq!(reason, "UnreadableMessage", "{body}");
        }
    }
    for name in [FILES, CHUNKS] {
        // What is put back or set aside is deleted after that.
        until("all is deleted", || cloud.fake_aws.sqs().len(name) == 0).await;
        assert_eq!(cloud.fake_aws.sqs().most_receives(name), 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_without_a_record_is_missing_and_nothing_is_read_in_its_place() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(1).await;
    let written = (0..50).map(|seed| record(seed, 10_000)).collect();
    let positions = stream.append(written).await.expect("put");
    let never = Position {
        sequence: Sequence::parse("5").expect("digits"),
        ..positions[0].clone()
    };
    let fetched = stream.fetch(std::slice::from_ref(&never)).await;
    assert!(
        matches!(&fetched, Err(TransportError::Missing(position) | TransportError::Expired(position)) if *position == never),
        "{fetched:?}"
    );
    // One record is looked at to tell how far back the shard goes.
    let bytes_out = cloud.fake_aws.kinesis().counts.bytes_out;
    assert!(bytes_out <= 10_000, "{bytes_out} bytes were read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_not_given_up_in_an_outage_of_half_a_minute() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(1).await;
    cloud.fake_aws.set_faults(Faults {
        server_error: 1.0,
        ..Faults::default()
    });
    let putting = tokio::spawn({
        let stream = stream.clone();
        async move { stream.append(vec![record(1, 1000)]).await }
    });
    tokio::time::sleep(Duration::from_secs(32)).await;
    assert!(!putting.is_finished(), "it was given up");
    cloud.fake_aws.set_faults(Faults::default());
    let positions = putting.await.expect("no panic").expect("put in the end");
    let read = stream.fetch(&positions).await.expect("read");
    assert_eq!(read[0], record(1, 1000).data);
}

/// One slot, which a test can take away.
#[derive(Debug, Default)]
struct Fragile {
    lost: Mutex<CancellationToken>,
    taken: Mutex<u32>,
}

#[async_trait]
impl SlotLock for Fragile {
    async fn try_acquire(&self) -> TransportResult<Option<SlotGuard>> {
        let taken = {
            let mut taken = self.taken.lock().expect("no panic");
            *taken += 1;
            *taken
        };
        // Whoever has it now keeps it.
        if taken > 1 {
            return Ok(None);
        }
        let (requests, mut asked) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(request) = asked.recv().await {
                let (HolderRequest::Flush(answer) | HolderRequest::Release(answer)) = request;
                let _ = answer.send(false);
            }
        });
        let lost = self.lost.lock().expect("no panic").clone();
        Ok(Some(SlotGuard::new(
            "slot".into(),
            "attempt".into(),
            lost,
            SharedLedger::default(),
            requests,
        )))
    }
    async fn all_held_by_others(&self) -> TransportResult<bool> {
        Ok(*self.taken.lock().expect("no panic") > 0)
    }
    async fn ledger(&self) -> TransportResult<Ledger> {
        Ok(Ledger::default())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_ends_without_an_effect_when_the_slot_is_lost_and_its_message_is_free() {
    let cloud = Cloud::start().await;
    let queue = Arc::new(cloud.queue(MINUTE, 20).await);
    queue.send(vec![message("g", "1")]).await.expect("sent");
    let (handler, lock) = (Slow::new(MINUTE), Arc::new(Fragile::default()));
    let shutdown = CancellationToken::new();
    let worker = consumer(queue.clone(), lock.clone(), handler.clone(), 1, &shutdown);
    let meter = worker.meter.clone();
    let working = tokio::spawn(async move { worker.run().await });
    until("it is at work", || meter.counts().in_hand == 1).await;
    lock.lost.lock().expect("no panic").cancel();
    until("it has stopped", || meter.counts().in_hand == 0).await;
    assert_eq!(cloud.fake_aws.hidden("queue-0.fifo"), 0);
    assert_eq!(handler.handled.load(Ordering::SeqCst), 0);
    let counts = meter.counts();
    assert_eq!((counts.slots_held, counts.slots_lost), (0, 1));
    assert_eq!(counts.retried["interrupted"], 1);
    shutdown.cancel();
    working.await.expect("no panic");
}
