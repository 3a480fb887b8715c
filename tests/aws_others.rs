//! Faults of other programs that move data through SQS and Kinesis, each with a test that Streampress does not have it:
//!
//! | fault | where | test |
//! |---|---|---|
//! | a throttled record in a 200 response counts as delivered | Vector | `aws_faults::a_throttled_record_in_a_successful_response_is_the_only_one_sent_again` |
//! | metrics are wrong after retries | Vector | `aws_observed::the_metrics_of_a_pipeline_add_up_while_records_are_throttled_and_lost` |
//! | shutdown drops a receive and leaves its messages in flight | Vector | `aws_faults::a_receive_that_is_dropped_at_shutdown_leaves_nothing_in_flight`, `aws_drain` |
//! | a body that cannot be read is deleted | Vector | here |
//! | failed entries of a delete batch go unread | Vector | `aws_faults::failed_entries_of_batches_are_noticed` |
//! | a failing request is repeated without a pause | Redpanda Connect | `aws_faults::a_stream_that_is_down_gets_few_requests_and_recovers` |
//! | only the first page of shards is read | Redpanda Connect | `aws_faults::all_pages_of_shards_are_read` |
//! | a sequence number without an iterator is read from the beginning | Redpanda Connect | here |
//! | the heartbeat does not fit the visibility timeout | Bento | `aws_faults::work_longer_than_the_visibility_timeout_stays_in_flight_under_backlog` |
//! | no growing pauses; out of memory | Kinesis producer library | `aws_faults::a_stream_that_is_down…`, `aws_faults::memory_is_bounded_while_the_stream_is_down`, `aws_memory` |
//! | records expire after 30 s | Kinesis producer library | here |
//! | a shard stalls silently | Kinesis client library | `aws_faults::a_shard_that_throttles_returns_nothing_or_fails_never_stalls` |
//! | work continues after the lease was lost | Kinesis client library, Cilium | here; `lease` |
//! | everything is replayed after a reshard | Kinesis client library | `aws_faults::resharding_during_traffic_loses_and_replays_nothing` |
//! | parallel puts are lost | kinesis-mock | `aws_faults::a_lost_response_or_a_second_copy_alters_nothing`, hashes everywhere |
//! | a lease's expiry is judged by the wall clock | kube-lease-manager | `lease` |

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use streampress::telemetry::metrics::RetryCause;
use streampress_tests::aws::Cloud;
use streampress_tests::eventually;
use streampress_tests::fake_aws::faults::Faults;
use streampress_tests::pipeline::{CHUNKS, FILES, Role, STREAM, TestPipeline, TestWorker};
use streampress_tests::slow::{SlowHandler, body, consumer};
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

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_body_is_dead_lettered_at_once_while_files_continue() {
    let cloud = Cloud::start().await;
    cloud.make_queue("files", 20);
    cloud.make_queue("chunks", 20);
    cloud.make_stream(STREAM, 1);
    let root = tempfile::tempdir().expect("a folder");
    let pipeline = TestPipeline::new(root.path(), &cloud.fake_aws.url, MINUTE).expect("folders");
    let announcer = pipeline.announcer(&cloud.aws).await;
    for name in [FILES, CHUNKS] {
        let queue = cloud.aws.queue(name, MINUTE).await.expect("opens");
        let poison = [("a", "{"), ("b", "[]")];
        let poison = poison.map(|(group, body)| message(group, body));
        queue.send(poison.into()).await.expect("sent");
    }
    let entry = pipeline.write("good.txt", b"words", SystemTime::now());
    announcer
        .announce(&entry.expect("written"))
        .await
        .expect("announced");
    let _workers =
        [Role::Compressor, Role::Decompressor].map(|role| TestWorker::start(&pipeline, role, 2));
    eventually("the good file is restored", async || {
        pipeline.commits().contains_key("good.txt")
    })
    .await;
    for dead in ["files-dlq.fifo", "chunks-dlq.fifo"] {
        eventually("both are dead letters", async || {
            cloud.fake_aws.sqs().len(dead) == 2
        })
        .await;
        for (body, attributes) in cloud.fake_aws.sqs().peek(dead) {
            let reason = &attributes["streampress-reason"]["StringValue"];
            assert_eq!(reason, "UnreadableMessage", "{body}");
        }
    }
    for name in [FILES, CHUNKS] {
        // Deleting follows after sending to the dead-letter queue.
        eventually("all is deleted", async || {
            cloud.fake_aws.sqs().len(name) == 0
        })
        .await;
        assert_eq!(cloud.fake_aws.sqs().most_receives(name), 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_without_a_record_is_missing_and_nothing_else_is_read_instead() {
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
    // One record is read to learn how far back the shard goes.
    let bytes_out = cloud.fake_aws.kinesis().counts.bytes_out;
    assert!(bytes_out <= 10_000, "{bytes_out} bytes were read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_survives_an_outage_of_half_a_minute() {
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
    // The client counts real time: the fake AWS's clock cannot shorten this.
    tokio::time::sleep(Duration::from_secs(32)).await;
    assert!(!putting.is_finished(), "the put was abandoned");
    cloud.fake_aws.set_faults(Faults::default());
    let positions = putting.await.expect("no panic").expect("put in the end");
    let read = stream.fetch(&positions).await.expect("read");
    assert_eq!(read[0], record(1, 1000).data);
}

/// One slot, which a test can revoke.
#[derive(Debug, Default)]
struct RevocableSlot {
    lost: Mutex<CancellationToken>,
    taken: Mutex<u32>,
}

#[async_trait]
impl SlotLock for RevocableSlot {
    async fn try_acquire(&self) -> TransportResult<Option<SlotGuard>> {
        let taken = {
            let mut taken = self.taken.lock().expect("no panic");
            *taken += 1;
            *taken
        };
        // Only the first request is granted.
        if taken > 1 {
            return Ok(None);
        }
        let (requests, mut received) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(request) = received.recv().await {
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
async fn work_ends_without_an_effect_when_the_slot_is_lost_and_its_message_is_released() {
    let cloud = Cloud::start().await;
    let queue = Arc::new(cloud.queue(MINUTE, 20).await);
    queue
        .send(vec![message("g", &body("1"))])
        .await
        .expect("sent");
    let (handler, lock) = (SlowHandler::new(MINUTE), Arc::new(RevocableSlot::default()));
    let shutdown = CancellationToken::new();
    let worker = consumer(queue.clone(), lock.clone(), handler.clone(), 1, &shutdown);
    let meter = worker.meter.clone();
    let working = tokio::spawn(async move { worker.run().await });
    eventually("it processes the message", async || {
        meter.counts().in_flight == 1
    })
    .await;
    lock.lost.lock().expect("no panic").cancel();
    // The message is released before the slot is left.
    eventually("it has stopped", async || {
        let counts = meter.counts();
        (counts.in_flight, counts.slots_held) == (0, 0)
    })
    .await;
    assert_eq!(cloud.fake_aws.in_flight("queue-0.fifo"), 0);
    assert_eq!(handler.handled.load(Ordering::SeqCst), 0);
    let counts = meter.counts();
    assert_eq!((counts.slots_held, counts.slots_lost), (0, 1));
    assert_eq!(counts.retried[&RetryCause::Interrupted], 1);
    shutdown.cancel();
    working.await.expect("no panic");
}
