//! Metrics, logs and traces of workers on the fake AWS: counters that add up at any time, log lines that name the file,
//! and one trace from the announcement to the restored file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use serde_json::json;
use streampress::consume::{Handled, Handler, HandlerError, MessageContext};
use streampress::message::record::trace_of;
use streampress::message::trace_context::TraceContext;
use streampress::message::{
    Announcement, DeadLetterReason, Digest, FileRef, Message, Records, VERSION,
};
use streampress::telemetry::metrics::{Meter, RetryCause};
use streampress::telemetry::trace;
use streampress_tests::aws::{Cloud, UnlimitedSlots};
use streampress_tests::fake_aws::faults::Faults;
use streampress_tests::pipeline::{CHUNKS, FILES, Role, STREAM, TestPipeline, TestWorker};
use streampress_tests::sandbox::{Sandbox, metric};
use streampress_tests::slow::{body, consumer};
use streampress_tests::{eventually, eventually_blocking};
use streampress_transport::contract_tests::queue::message;
use streampress_transport::contract_tests::{QueueTap, TappedQueue};
use streampress_transport::{ChunkStream, Delivery, Queue};
use tokio_util::sync::CancellationToken;

const PROGRAM: &str = env!("CARGO_BIN_EXE_streampress-program");
const MINUTE: Duration = Duration::from_secs(60);
const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const EXAMPLE_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

const ALL_FAULTS: Faults = Faults {
    throttle: 0.1,
    server_error: 0.02,
    lost_request: 0.02,
    lost_response: 0.05,
    duplicate: 0.05,
    entry_failure: 0.1,
    empty_read: 0.0,
    unseen_record: 0.0,
    delay: 0.1,
    delay_for: Duration::from_millis(50),
};

/// Counts a consumer's calls, independently of the consumer's own metrics.
#[derive(Debug, Default)]
struct CountedCalls {
    received: AtomicU64,
    deleted: AtomicU64,
    dead_lettered: AtomicU64,
}

impl QueueTap for CountedCalls {
    fn received(&self, deliveries: &[Delivery]) {
        let count = deliveries.len() as u64;
        self.received.fetch_add(count, Ordering::SeqCst);
    }

    fn deleted(&self) {
        self.deleted.fetch_add(1, Ordering::SeqCst);
    }

    fn dead_lettered(&self) {
        self.dead_lettered.fetch_add(1, Ordering::SeqCst);
    }
}

/// Its outcomes are all that a handler can have.
struct MixedOutcomes;

#[async_trait]
impl Handler for MixedOutcomes {
    async fn handle(
        &self,
        message: &Message,
        context: MessageContext<'_>,
    ) -> Result<Handled, HandlerError> {
        let name = message.subject().file_name.expect("a name");
        let number: u64 = name.parse().expect("a number");
        tokio::select! {
            () = context.stop.cancelled() => return Err(HandlerError::Interrupted),
            () = tokio::time::sleep(Duration::from_millis(number % 40)) => {} // The work itself.
        }
        match number % 5 {
            0 => {
                let reason = DeadLetterReason::BadName;
                Err(HandlerError::permanent(reason, "injected"))
            }
            1 if context.delivery.receive_count == 1 => {
                Err(HandlerError::Transient(anyhow::anyhow!("not this time")))
            }
            _ => Ok(Handled::default()),
        }
    }
}

/// Received messages are acknowledged, retried, dead-lettered or in progress; sent records likewise.
fn assert_sums_hold(page: &str) {
    let of = |name: &str| metric(page, &format!("streampress_{name}"));
    assert_eq!(
        of("messages_received_total"),
        of("messages_acknowledged_total")
            + of("messages_retried_total")
            + of("messages_dead_total")
            + of("messages_in_flight"),
        "{page}"
    );
    assert_eq!(
        of("stream_records_sent_total"),
        of("stream_records_acknowledged_total")
            + of("stream_records_resent_total")
            + of("stream_records_dead_total")
            + of("stream_records_under_way"),
        "{page}"
    );
}

/// Scrapes a meter continuously until it is stopped; returns how often.
fn scrape(meter: &Meter) -> (Arc<AtomicBool>, std::thread::JoinHandle<u64>) {
    let (stop, meter) = (Arc::new(AtomicBool::new(false)), meter.clone());
    let stopped = stop.clone();
    let scraping = std::thread::spawn(move || {
        let mut scrapes = 0;
        while !stopped.load(Ordering::SeqCst) {
            assert_sums_hold(&meter.page(&[]));
            scrapes += 1;
            // Leaves the processor to the consumer under test.
            std::thread::sleep(Duration::from_millis(1));
        }
        scrapes
    });
    (stop, scraping)
}

#[tokio::test(flavor = "multi_thread")]
async fn received_messages_are_acknowledged_retried_dead_or_in_progress_at_any_time() {
    let cloud = Cloud::start().await;
    let queue = Arc::new(cloud.queue(MINUTE, 20).await);
    let queue = TappedQueue::new(queue, CountedCalls::default());
    let messages = (0..200).map(|n| message(&format!("g{}", n % 50), &body(&n.to_string())));
    queue.send(messages.collect()).await.expect("sent");
    cloud.fake_aws.set_faults(ALL_FAULTS);
    let (meter, shutdown) = (Meter::default(), CancellationToken::new());
    let mut consumer = consumer(
        queue.clone(),
        Arc::new(UnlimitedSlots),
        Arc::new(MixedOutcomes),
        8,
        &shutdown,
    );
    consumer.meter = meter.clone();
    let (stop, scraping) = scrape(&meter);
    let working = tokio::spawn(async move { consumer.run().await });
    // Stopped in the middle: messages in progress are released.
    eventually("half of the messages are handled", async || {
        meter.counts().acknowledged >= 100
    })
    .await;
    shutdown.cancel();
    working.await.expect("no panic");
    stop.store(true, Ordering::SeqCst);
    let scrapes = scraping.join().expect("the sums held at every scrape");
    let counts = meter.counts();
    println!("FIGURE sums held at {scrapes} scrapes: {counts:?}");
    let seen = (
        queue.tap.received.load(Ordering::SeqCst),
        queue.tap.deleted.load(Ordering::SeqCst),
        queue.tap.dead_lettered.load(Ordering::SeqCst),
    );
    // Dead-lettering deletes too, but within the queue, past this count.
    assert_eq!(
        (
            counts.received,
            counts.acknowledged,
            counts.dead.values().sum::<u64>()
        ),
        seen
    );
    assert_eq!((counts.in_flight, counts.slots_held), (0, 0));
    assert!(counts.retried[&RetryCause::Fault] > 0 && counts.dead[&DeadLetterReason::BadName] > 0);
    assert!(scrapes > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_of_a_pipeline_add_up_while_records_are_throttled_and_lost() {
    let cloud = Cloud::start().await;
    cloud.make_queue("files", 20);
    cloud.make_queue("chunks", 20);
    cloud.make_stream(STREAM, 2);
    let root = tempfile::tempdir().expect("a folder");
    let compressing = TestPipeline::new(root.path(), &cloud.fake_aws.url, MINUTE).expect("folders");
    let mut restoring = compressing.clone();
    restoring.meter = Meter::default();
    let announcer = compressing.announcer(&cloud.aws).await;
    let mut raw_bytes = 0;
    for number in 0..20u8 {
        let content = vec![number; 3000];
        raw_bytes += content.len() as u64;
        let name = format!("{number}.txt");
        let entry = compressing.write(&name, &content, SystemTime::now());
        announcer
            .announce(&entry.expect("written"))
            .await
            .expect("announced");
    }
    cloud.fake_aws.set_faults(ALL_FAULTS);
    let (stop, scraping) = scrape(&compressing.meter);
    let compressor = TestWorker::start(&compressing, Role::Compressor, 2);
    let decompressor = TestWorker::start(&restoring, Role::Decompressor, 2);
    eventually("all files are restored", async || {
        compressing.commits().len() == 20
    })
    .await;
    cloud.fake_aws.set_faults(Faults::default());
    futures::future::join(compressor.drain(), decompressor.drain()).await;
    stop.store(true, Ordering::SeqCst);
    scraping.join().expect("the sums held at every scrape");
    let (packed, restored) = (compressing.meter.page(&[]), restoring.meter.page(&[]));
    assert_sums_hold(&packed);
    assert_sums_hold(&restored);
    // A worker whose delete was lost compresses the file again.
    assert!(compressing.meter.counts().raw_bytes >= raw_bytes);
    assert!(metric(&packed, "streampress_stream_records_sent_total") >= 20.0);
    assert!(metric(&restored, "streampress_stream_read_bytes_total") > 0.0);
    for (page, stage) in [(&packed, "pack"), (&restored, "unpack")] {
        let count = format!("streampress_stage_duration_seconds_count{{stage=\"{stage}\"}}");
        assert!(page.contains(&count), "{count}\n{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_announcement_to_the_first_record_and_the_manifest() {
    let cloud = Cloud::start().await;
    cloud.make_queue("files", 20);
    cloud.make_queue("chunks", 20);
    cloud.make_stream(STREAM, 1);
    let root = tempfile::tempdir().expect("a folder");
    let pipeline = TestPipeline::new(root.path(), &cloud.fake_aws.url, MINUTE).expect("folders");
    let announcer = pipeline.announcer(&cloud.aws).await;
    let began = TraceContext::parse(EXAMPLE).expect("well-formed");
    // Incompressible, so more than one record.
    let mut random = fastrand::Rng::with_seed(1);
    let content: Vec<u8> = (0..900_000).map(|_| random.u8(..)).collect();
    let entry = pipeline.write("a.txt", &content, SystemTime::now());
    trace::scope(began, announcer.announce(&entry.expect("written")))
        .await
        .expect("announced");
    let carried = |attributes: &serde_json::Value| {
        let text = attributes["traceparent"]["StringValue"].as_str();
        TraceContext::parse(text.expect("an attribute")).expect("well-formed")
    };
    assert_eq!(carried(&cloud.fake_aws.sqs().peek(FILES)[0].1), began);
    let compressor = TestWorker::start(&pipeline, Role::Compressor, 1);
    eventually("the manifest is sent", async || {
        cloud.fake_aws.sqs().len(CHUNKS) > 0
    })
    .await;
    compressor.kill();
    let (body, attributes) = cloud.fake_aws.sqs().peek(CHUNKS).remove(0);
    let sent = carried(&attributes);
    assert_eq!(sent.trace_id(), EXAMPLE_TRACE);
    assert_ne!(sent, began, "the compressor's work is a span of its own");
    let Ok(Message::Manifest(manifest)) = Message::parse(&body) else {
        panic!("not a manifest: {body}");
    };
    assert_eq!(manifest.traceparent, Some(sent.to_string()));
    let Records::Inline(positions) = manifest.records else {
        panic!("so few records are in the message")
    };
    // The trace context counts against the payload: it makes no record larger.
    let full = 400 * 1024;
    let sizes: Vec<u32> = positions.iter().map(|position| position.bytes).collect();
    assert_eq!(sizes[..2], [full, full]);
    let stream = cloud.aws.stream(STREAM).await.expect("opens");
    let records = stream.fetch(&positions).await.expect("there");
    let carried: Vec<_> = records.iter().map(|record| trace_of(record)).collect();
    assert_eq!(carried, [Some(sent), None, None]);
}

/// A file at the source, and its announcement as another producer may write it.
fn announcement(sandbox: &Sandbox, name: &str, traceparent: Option<&str>) -> Announcement {
    let content = format!("content of {name}\n");
    sandbox.write(&sandbox.data("in").join(name), &content);
    let name = serde_json::from_value(json!(name)).expect("a good name");
    Announcement {
        version: VERSION,
        file: FileRef {
            location: "file:///data/in".into(),
            name,
            bytes: content.len() as u64,
            hash: Digest::of(content.as_bytes()),
            modified_nanos: 1,
        },
        announced_millis: 1,
        observed: None,
        repeats: 0,
        traceparent: traceparent.map(str::to_owned),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_traceparent_in_an_announcement_reaches_the_decompressor() {
    let cloud = Cloud::start().await;
    let sandbox = Sandbox::new(PROGRAM, &cloud.fake_aws.url, "traced", "");
    sandbox.run(&["setup", "pipeline.yaml"]).success();
    let workers = ["compress", "decompress"]
        .map(|role| sandbox.start(&format!("{role}.log"), &[role, "pipeline.yaml", "--aws"]));
    let of_another = EXAMPLE.replace("4bf9", "0bf9");
    let attribute = json!({"traceparent": {"DataType": "String", "StringValue": of_another}});
    for (name, in_body, attributes) in [
        ("body.txt", Some(EXAMPLE), json!({})),
        // The attribute wins: the last sender of the message set it.
        ("attribute.txt", Some(EXAMPLE), attribute),
    ] {
        let body = announcement(&sandbox, name, in_body).to_json();
        let request = json!({"QueueUrl": "traced-files.fifo", "MessageBody": body, "MessageGroupId": name, "MessageDeduplicationId": name, "MessageAttributes": attributes});
        cloud
            .fake_aws
            .ask_sqs("SendMessage", &request)
            .expect("sent");
    }
    // A file may be restored before the compressor has logged that it packed it.
    eventually_blocking("both are packed and restored", || {
        let logged = ["File compressed.", "File restored."];
        let counts = [0, 1].map(|at| workers[at].log().matches(logged[at]).count());
        counts == [2, 2]
    });
    for (name, trace) in [
        ("body.txt", EXAMPLE_TRACE.to_owned()),
        ("attribute.txt", EXAMPLE_TRACE.replace("4bf9", "0bf9")),
    ] {
        for worker in &workers {
            let log = worker.log();
            let line = log
                .lines()
                .find(|line| line.contains(name) && line.contains("File "));
            let line = line.expect("a line about the file");
            assert!(line.contains(&format!("trace_id={trace:?}")), "{line}");
            assert!(
                line.contains("file_id=") && line.contains("attempt=1"),
                "{line}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_listens_serves_health_and_metrics_and_logs_json() {
    let cloud = Cloud::start().await;
    let sandbox = Sandbox::new(PROGRAM, &cloud.fake_aws.url, "watched", "");
    sandbox.run(&["setup", "pipeline.yaml"]).success();
    let listen = ["--listen", "127.0.0.1:0"];
    let role = |role: &'static str| [&[role, "pipeline.yaml", "--aws"][..], &listen].concat();
    let compress = sandbox.start("compress.log", &role("compress"));
    let json_lines = [&role("decompress")[..], &["--log-format", "json"]].concat();
    let mut decompress = sandbox.start("decompress.log", &json_lines);
    sandbox.write(&sandbox.path("mine.txt"), "a line\n".repeat(100));
    sandbox
        .run(&["submit", "mine.txt", "-p", "pipeline.yaml", "--aws"])
        .success();
    eventually_blocking("it is restored", || {
        sandbox.files("out").contains_key("mine.txt")
    });
    // Its announcement and its receipt: nothing comes after them.
    let page = eventually_blocking("it is counted", || {
        let page = compress.get("/metrics");
        (metric(&page, "streampress_messages_acknowledged_total") == 2.0).then_some(page)
    });
    assert_sums_hold(&page);
    let labels = "{pipeline=\"watched\",namespace=\"default\",role=\"compressor\"}";
    assert!(
        page.contains(&format!("streampress_files_raw_bytes_total{labels}")),
        "{page}"
    );
    assert_eq!(metric(&page, "streampress_files_raw_bytes_total"), 700.0);
    assert!(metric(&page, "streampress_last_success_timestamp_seconds") > 1.7e9);
    for path in ["/livez", "/readyz"] {
        assert!(compress.get(path).starts_with("HTTP/1.1 200"), "{path}");
    }
    // A file becomes visible before it is logged.
    eventually_blocking("it is logged", || {
        decompress.log().contains("File restored.")
    });
    decompress.terminate();
    assert_eq!((compress.stop(), decompress.wait()), (Some(0), Some(0)));
    let log = decompress.log();
    let restored = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("each line is JSON"))
        .find(|line| line["fields"]["message"] == "File restored.")
        .expect("it is logged");
    assert_eq!(restored["span"]["file_name"], "mine.txt");
    assert_eq!(
        restored["span"]["file_id"].as_str().map(str::len),
        Some(64),
        "{restored}"
    );
}

#[cfg(not(feature = "otlp"))]
#[test]
fn a_program_built_without_trace_export_warns_once_when_a_collector_is_configured() {
    let spec = "  generator: {schema: {example: iot-sensors}, fileSize: 64Ki, files: 2}";
    let sandbox = Sandbox::new(PROGRAM, "http://endpoint.invalid", "traced", spec);
    let mut command =
        sandbox.command(&["generate", "pipeline.yaml", "--data", "d", "--files", "1"]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    let mut generate = sandbox.start_command("generate.log", command);
    assert_eq!(generate.wait(), Some(0), "{}", generate.log());
    let log = generate.log();
    assert_eq!(
        log.matches("built without the export of traces").count(),
        1,
        "{log}"
    );
}
