//! The transport on LocalStack, which implements the wire protocol independently of the fake AWS. Needs one running
//! (`tests/localstack up`), at STREAMPRESS_LOCALSTACK or http://localhost:4566. Small data, new names for every run.
//!
//! LocalStack enforces no limits and differs from AWS in details; the fake AWS covers those (`aws_contract`,
//! `aws_faults`, `aws_soak`).

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use streampress_crds::settings::{QueueSettings, StreamSettings, TransportSettings};
use streampress_tests::aws::make_bucket;
use streampress_tests::eventually;
use streampress_tests::pipeline::{Role, STREAM, TestPipeline, TestWorker};
use streampress_transport::aws::Aws;
use streampress_transport::aws::provision::{
    ProvisionOutcome, ProvisionPlan, check, create, delete,
};
use streampress_transport::contract_tests::{self, Implementation};
use streampress_transport::{ChunkStream, Queue, SlotLock};

fn url() -> String {
    std::env::var("STREAMPRESS_LOCALSTACK").unwrap_or_else(|_| "http://localhost:4566".into())
}

async fn connect() -> Aws {
    streampress_tests::aws::connect(&url()).await
}

fn unique(what: &str) -> String {
    format!("{what}-{:x}", fastrand::u64(..))
}

fn plan(files: &str, chunks: &str, stream: &str, max_receive_count: u32) -> ProvisionPlan {
    let queue = |name: &str| QueueSettings {
        name: format!("{name}.fifo"),
        dead_letter_name: format!("{name}-dlq.fifo"),
        visibility_timeout_seconds: 60,
        max_receive_count,
    };
    let transport = TransportSettings {
        files_queue: queue(files),
        chunks_queue: queue(chunks),
        receipts_queue: None,
        stream: StreamSettings {
            name: stream.into(),
            shards: 2,
            retention_hours: 24,
        },
    };
    let mut plan = ProvisionPlan {
        encrypted: false,
        ..ProvisionPlan::new(transport.clone(), ("streampress.dev/owner", "tests"))
    };
    // The contract is tried with few receives.
    plan.transport = transport;
    plan
}

struct OnLocalStack {
    aws: Aws,
}

#[async_trait]
impl Implementation for OnLocalStack {
    fn short(&self) -> Duration {
        Duration::from_secs(2)
    }

    async fn queue(&self, visibility: Duration, max_receive_count: u32) -> Arc<dyn Queue> {
        let (name, spare) = (unique("queue"), unique("spare"));
        let mut plan = plan(&name, &spare, "unused", max_receive_count);
        plan.transport.chunks_queue = plan.transport.files_queue.clone();
        streampress_transport::aws::provision::create_queues(&self.aws, &plan)
            .await
            .expect("made");
        Arc::new(
            self.aws
                .queue(&format!("{name}.fifo"), visibility)
                .await
                .expect("opens"),
        )
    }

    async fn stream(&self) -> Arc<dyn ChunkStream> {
        let name = unique("stream");
        let plan = plan("unused", "unused", &name, 5);
        streampress_transport::aws::provision::create_stream(&self.aws, &plan)
            .await
            .expect("made");
        Arc::new(self.aws.stream(&name).await.expect("opens"))
    }

    async fn locks(&self, _participants: usize, _slots: u32) -> Vec<Arc<dyn SlotLock>> {
        Vec::new()
    }
}

/// The whole contract except `the_old_receipt_is_stale`: LocalStack accepts every receipt that a message ever had, while
/// AWS and the fake AWS refuse the old ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_keeps_the_contract() {
    use contract_tests::queue::*;
    let implementation = &OnLocalStack {
        aws: connect().await,
    };
    futures::join!(
        a_group_comes_in_order_and_one_at_a_time(implementation),
        another_group_passes_one_in_flight(implementation),
        a_message_comes_back_after_its_visibility_timeout_with_a_new_receipt(implementation),
        extending_counts_from_now(implementation),
        a_released_message_comes_at_once_and_before_its_group(implementation),
        a_message_received_too_often_is_a_dead_letter_and_its_group_goes_on(implementation),
        a_dead_letter_says_why_and_is_there_once(implementation),
        the_same_deduplication_id_is_one_message_even_after_delete(implementation),
        a_waiting_receive_wakes_when_something_is_sent(implementation),
        an_empty_receive_waits_for_its_time(implementation),
        a_dropped_receive_loses_no_message(implementation),
        what_can_never_be_sent_is_refused_and_nothing_is_sent(implementation),
        bodies_and_attributes_come_back_as_they_were(implementation),
        depth_tells_visible_from_in_flight(implementation),
        the_dead_letters_have_no_dead_letters(implementation),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_keeps_the_contract() {
    contract_tests::stream::all(&OnLocalStack {
        aws: connect().await,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_keeps_the_contract_of_files() {
    let bucket = unique("bucket");
    make_bucket(&url(), &bucket).await.expect("made");
    let files = connect()
        .await
        .files(
            &format!("s3://{bucket}/some/prefix"),
            &bucket,
            "some/prefix",
        )
        .expect("opens");
    let checks = tokio::task::spawn_blocking(move || {
        contract_tests::files::all(&files);
        contract_tests::files::a_large_file_is_visible_only_as_a_whole_and_carries_its_version(
            &files,
        );
        contract_tests::files::a_large_file_is_replaced_only_if_it_is_the_one_that_was_seen(&files);
    });
    checks.await.expect("the checks hold");
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_makes_checks_and_removes() {
    let aws = connect().await;
    let plan = plan(&unique("files"), &unique("chunks"), &unique("stream"), 5);
    let done = create(&aws, &plan).await.expect("made").outcomes;
    assert!(
        done.iter()
            .all(|done| done.outcome == ProvisionOutcome::Created),
        "{done:?}"
    );
    let again = create(&aws, &plan).await.expect("made").outcomes;
    assert!(
        again
            .iter()
            .all(|done| done.outcome == ProvisionOutcome::Unchanged),
        "{again:?}"
    );
    assert_eq!(check(&aws, &plan, 400 * 1024).await.expect("readable"), []);
    let removed = delete(&aws, &plan).await.expect("removed");
    assert!(
        removed
            .iter()
            .all(|done| done.outcome == ProvisionOutcome::Deleted),
        "{removed:?}"
    );
    let findings = check(&aws, &plan, 400 * 1024).await.expect("readable");
    assert!(
        findings
            .iter()
            .any(|finding| finding.resource.starts_with("queue")
                && finding.problem.contains("setup")),
        "{findings:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn files_announced_on_an_idle_system_are_restored() {
    let aws = connect().await;
    create(&aws, &plan("files", "chunks", STREAM, 20))
        .await
        .expect("made");
    let root = tempfile::tempdir().expect("a folder");
    let pipeline =
        TestPipeline::new(root.path(), &url(), Duration::from_secs(60)).expect("folders");
    let workers =
        [Role::Compressor, Role::Decompressor].map(|role| TestWorker::start(&pipeline, role, 2));
    let announcer = pipeline.announcer(&aws).await;
    let mut times = Vec::new();
    for number in 0..9u64 {
        let name = format!("one-mib-{number}-{:x}.json", fastrand::u64(..));
        let entry = pipeline
            .write(&name, &one_mib(number), SystemTime::now())
            .expect("written");
        let began = Instant::now();
        announcer.announce(&entry).await.expect("announced");
        eventually("it is restored", async || {
            pipeline.commits().contains_key(&name)
        })
        .await;
        times.push(began.elapsed());
    }
    times.sort();
    let (median, slowest) = (times[4].as_secs_f64(), times[8].as_secs_f64());
    println!(
        "FIGURE announced to restored, 1 MiB, idle, LocalStack: median {median:.3} s (goal 1.5, in a release build), slowest {slowest:.3} s"
    );
    // Not drained: their last long polls would take twenty seconds.
    workers.into_iter().for_each(TestWorker::kill);
}

/// About 1 MiB of made-up trades.
fn one_mib(seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut text = String::from("[");
    while text.len() < 1 << 20 {
        let separator = if text.len() > 1 { "," } else { "" };
        text.push_str(&format!(
            "{separator}{{\"symbol\":\"S{:03}\",\"price\":{}.{:02},\"volume\":{},\"at\":\"2026-01-{:02}T10:{:02}:{:02}Z\"}}",
            random.u32(0..300),
            random.u32(1..900),
            random.u32(0..100),
            random.u32(1..100_000),
            random.u32(1..29),
            random.u32(0..60),
            random.u32(0..60)
        ));
    }
    text.push(']');
    text.into_bytes()
}
