//! What a worker tells while it works, on the stand-in: figures whose sums hold at any time, logs that name the file, and
//! one trace from announcement to restored file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use serde_json::json;
use streampress::consume::{Fault, Handler, MessageContext, Subject};
use streampress::message::record::trace_of;
use streampress::message::{Announcement, Digest, FileRef, Manifest, Records, VERSION};
use streampress::telemetry::metrics::Meter;
use streampress::telemetry::trace::{self, TraceContext};
use streampress_tests::aws::{Cloud, FreeSlots};
use streampress_tests::desk::{Desk, eventually, figure};
use streampress_tests::fake_aws::faults::Faults;
use streampress_tests::pipeline::{CHUNKS, FILES, Place, Role, STREAM, Worker};
use streampress_tests::slow::consumer;
use streampress_transport::aws::SqsQueue;
use streampress_transport::contract_tests::queue::message;
use streampress_transport::{
    ChunkStream, Delivery, Depth, Outgoing, Queue, Receipt, TransportResult,
};
use tokio_util::sync::CancellationToken;

const PROGRAM: &str = env!("CARGO_BIN_EXE_streampress-program");
const MINUTE: Duration = Duration::from_secs(60);
const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const EXAMPLE_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

const BAD_DAY: Faults = Faults {
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

/// A queue that counts what its consumer is given and does, independently of the consumer.
#[derive(Debug)]
struct Watched {
    inner: SqsQueue,
    received: AtomicU64,
    deleted: AtomicU64,
    buried: AtomicU64,
}

#[async_trait]
impl Queue for Watched {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn visibility_timeout(&self) -> Duration {
        self.inner.visibility_timeout()
    }
    async fn send(&self, messages: Vec<Outgoing>) -> TransportResult<()> {
        self.inner.send(messages).await
    }
    async fn receive(&self, max: usize, wait: Duration) -> TransportResult<Vec<Delivery>> {
        let got = self.inner.receive(max, wait).await?;
        self.received.fetch_add(got.len() as u64, Ordering::SeqCst);
        Ok(got)
    }
    async fn extend(&self, receipt: &Receipt, visibility_timeout: Duration) -> TransportResult<()> {
        self.inner.extend(receipt, visibility_timeout).await
    }
    async fn delete(&self, receipt: &Receipt) -> TransportResult<()> {
        self.inner.delete(receipt).await?;
        self.deleted.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    async fn release(&self, receipt: &Receipt) -> TransportResult<()> {
        self.inner.release(receipt).await
    }
    async fn dead_letter(
        &self,
        delivery: &Delivery,
        reason: &str,
        detail: &str,
    ) -> TransportResult<()> {
        self.inner.dead_letter(delivery, reason, detail).await?;
        self.buried.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    async fn drain(&self, patience: Duration) -> bool {
        self.inner.drain(patience).await
    }
    async fn depth(&self) -> TransportResult<Depth> {
        self.inner.depth().await
    }
    fn dead_letters(&self) -> Option<Arc<dyn Queue>> {
        self.inner.dead_letters()
    }
}

/// Ends in every way that work can end.
struct Moody;

#[async_trait]
impl Handler for Moody {
    async fn handle(&self, job: MessageContext<'_>) -> Result<(), Fault> {
        let number: u64 = job.delivery.body.parse().expect("a number");
        tokio::select! {
            () = job.stop.cancelled() => return Err(Fault::Interrupted),
            () = tokio::time::sleep(Duration::from_millis(number % 40)) => {}
        }
        match number % 5 {
            0 => Err(Fault::permanent("Hopeless", "as the test wants it")),
            1 if job.delivery.receive_count == 1 => {
                Err(Fault::Transient(anyhow::anyhow!("not this time")))
            }
            _ => Ok(()),
        }
    }
    fn subject(&self, _delivery: &Delivery) -> Subject {
        Subject::default()
    }
    fn is_small(&self, _delivery: &Delivery) -> bool {
        false
    }
    async fn acknowledged(&self, _delivery: &Delivery) {}
    async fn on_dead_lettered(&self, _delivery: &Delivery, _reason: &str, _detail: &str) {}
}

/// Received is what was acknowledged, retried, set aside or is in hand; sent records likewise.
fn assert_sums_hold(page: &str) {
    let of = |name: &str| figure(page, &format!("streampress_{name}"));
    assert_eq!(
        of("messages_received_total"),
        of("messages_acknowledged_total")
            + of("messages_retried_total")
            + of("messages_dead_total")
            + of("messages_in_hand"),
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

/// Looks at a meter all the time, until told to stop; how often it did.
fn scrape(meter: &Meter) -> (Arc<AtomicBool>, std::thread::JoinHandle<u64>) {
    let (stop, meter) = (Arc::new(AtomicBool::new(false)), meter.clone());
    let stopped = stop.clone();
    let looking = std::thread::spawn(move || {
        let mut looks = 0;
        while !stopped.load(Ordering::SeqCst) {
            assert_sums_hold(&meter.page(&[]));
            looks += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
        looks
    });
    (stop, looking)
}

#[tokio::test(flavor = "multi_thread")]
async fn received_is_acknowledged_retried_dead_and_in_hand_at_any_time() {
    let cloud = Cloud::start().await;
    let queue = Arc::new(Watched {
        inner: cloud.queue(MINUTE, 20).await,
        received: AtomicU64::new(0),
        deleted: AtomicU64::new(0),
        buried: AtomicU64::new(0),
    });
    let messages = (0..200).map(|n| message(&format!("g{}", n % 50), &n.to_string()));
    queue.send(messages.collect()).await.expect("sent");
    cloud.fake_aws.set_faults(BAD_DAY);
    let (meter, shutdown) = (Meter::default(), CancellationToken::new());
    let mut consumer = consumer(
        queue.clone(),
        Arc::new(FreeSlots),
        Arc::new(Moody),
        8,
        &shutdown,
    );
    consumer.meter = meter.clone();
    let (stop, looking) = scrape(&meter);
    let working = tokio::spawn(async move { consumer.run().await });
    // Stopped in the middle of it: what is in hand then is given back.
    while meter.counts().acknowledged < 100 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    shutdown.cancel();
    working.await.expect("no panic");
    stop.store(true, Ordering::SeqCst);
    let looks = looking.join().expect("the sums held at every look");
    let counts = meter.counts();
    println!("FIGURE sums held at {looks} looks: {counts:?}");
    let sum = |of: &std::collections::BTreeMap<&str, u64>| of.values().sum::<u64>();
    let seen = (
        queue.received.load(Ordering::SeqCst),
        queue.deleted.load(Ordering::SeqCst),
        queue.buried.load(Ordering::SeqCst),
    );
    // A burial deletes too, by the queue's own hand.
    assert_eq!(
        (counts.received, counts.acknowledged, sum(&counts.dead)),
        seen
    );
    assert_eq!((counts.in_hand, counts.slots_held), (0, 0));
    assert!(counts.retried["fault"] > 0 && counts.dead["Hopeless"] > 0);
    assert!(looks > 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_of_a_pipeline_add_up_while_records_are_throttled_and_lost() {
    let cloud = Cloud::start().await;
    cloud.make_queue("files", 20);
    cloud.make_queue("chunks", 20);
    cloud.make_stream(STREAM, 2);
    let root = tempfile::tempdir().expect("a folder");
    let compressing = Place::new(root.path(), &cloud.fake_aws.url, MINUTE).expect("folders");
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
    cloud.fake_aws.set_faults(BAD_DAY);
    let (stop, looking) = scrape(&compressing.meter);
    let compressor = Worker::start(&compressing, Role::Compressor, 2);
    let decompressor = Worker::start(&restoring, Role::Decompressor, 2);
    while compressing.commits().len() < 20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cloud.fake_aws.set_faults(Faults::default());
    futures::future::join(compressor.drain(), decompressor.drain()).await;
    stop.store(true, Ordering::SeqCst);
    looking.join().expect("the sums held at every look");
    let (packed, restored) = (compressing.meter.page(&[]), restoring.meter.page(&[]));
    assert_sums_hold(&packed);
    assert_sums_hold(&restored);
    // Whoever was not heard to have deleted a message does its file again.
    assert!(compressing.meter.counts().raw_bytes >= raw_bytes);
    assert!(figure(&packed, "streampress_stream_records_sent_total") >= 20.0);
    assert!(figure(&restored, "streampress_stream_read_bytes_total") > 0.0);
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
    let place = Place::new(root.path(), &cloud.fake_aws.url, MINUTE).expect("folders");
    let announcer = place.announcer(&cloud.aws).await;
    let began = TraceContext::parse(EXAMPLE).expect("well-formed");
    // More than one record, and nothing in it to pack.
    let mut random = fastrand::Rng::with_seed(1);
    let content: Vec<u8> = (0..900_000).map(|_| random.u8(..)).collect();
    let entry = place.write("a.txt", &content, SystemTime::now());
    trace::scope(began, announcer.announce(&entry.expect("written")))
        .await
        .expect("announced");
    let carried = |attributes: &serde_json::Value| {
        let text = attributes["traceparent"]["StringValue"].as_str();
        TraceContext::parse(text.expect("an attribute")).expect("well-formed")
    };
    assert_eq!(carried(&cloud.fake_aws.sqs().peek(FILES)[0].1), began);
    let compressor = Worker::start(&place, Role::Compressor, 1);
    while cloud.fake_aws.sqs().len(CHUNKS) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    compressor.kill();
    let (body, attributes) = cloud.fake_aws.sqs().peek(CHUNKS).remove(0);
    let sent = carried(&attributes);
    assert_eq!(sent.trace_id(), EXAMPLE_TRACE);
    assert_ne!(sent, began, "the compressor's work is a span of its own");
    let manifest = Manifest::parse(&body).expect("a manifest");
    assert_eq!(manifest.traceparent, Some(sent.to_string()));
    let Records::Inline(positions) = manifest.records else {
        panic!("so few records are in the message")
    };
    // The trace takes its room from the payload: no record is larger for it.
    let full = 400 * 1024;
    let sizes: Vec<u32> = positions.iter().map(|position| position.bytes).collect();
    assert_eq!(sizes[..2], [full, full]);
    let stream = cloud.aws.stream(STREAM).await.expect("opens");
    let records = stream.fetch(&positions).await.expect("there");
    let carried: Vec<_> = records.iter().map(|record| trace_of(record)).collect();
    assert_eq!(carried, [Some(sent), None, None]);
}

/// A file at the source, and its announcement as somebody else might write it.
fn announcement(desk: &Desk, name: &str, traceparent: Option<&str>) -> Announcement {
    let content = format!("content of {name}\n");
    desk.write(&desk.data("in").join(name), &content);
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
        traceparent: traceparent.map(str::to_owned),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_traceparent_in_an_announcement_comes_out_at_the_decompressor() {
    let cloud = Cloud::start().await;
    let desk = Desk::new(PROGRAM, &cloud.fake_aws.url, "traced", "");
    desk.run(&["setup", "pipeline.yaml"]).well();
    let workers = ["compress", "decompress"]
        .map(|role| desk.start(&format!("{role}.log"), &[role, "pipeline.yaml", "--aws"]));
    let of_another = EXAMPLE.replace("4bf9", "0bf9");
    let attribute = json!({"traceparent": {"DataType": "String", "StringValue": of_another}});
    for (name, in_body, attributes) in [
        ("body.txt", Some(EXAMPLE), json!({})),
        // The attribute is nearer to whoever sent the message last.
        ("attribute.txt", Some(EXAMPLE), attribute),
    ] {
        let body = announcement(&desk, name, in_body).to_json();
        let ask = json!({"QueueUrl": "traced-files.fifo", "MessageBody": body, "MessageGroupId": name, "MessageDeduplicationId": name, "MessageAttributes": attributes});
        cloud.fake_aws.ask_sqs("SendMessage", &ask).expect("sent");
    }
    eventually("both are restored", || {
        (workers[1].log().matches("File restored.").count() == 2).then_some(())
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
async fn a_worker_that_listens_tells_how_it_is_and_logs_lines_that_collectors_read() {
    let cloud = Cloud::start().await;
    let desk = Desk::new(PROGRAM, &cloud.fake_aws.url, "watched", "");
    desk.run(&["setup", "pipeline.yaml"]).well();
    let listen = ["--listen", "127.0.0.1:0"];
    let role = |role: &'static str| [&[role, "pipeline.yaml", "--aws"][..], &listen].concat();
    let compress = desk.start("compress.log", &role("compress"));
    let json_lines = [&role("decompress")[..], &["--log-format", "json"]].concat();
    let mut decompress = desk.start("decompress.log", &json_lines);
    desk.write(&desk.path("mine.txt"), "a line\n".repeat(100));
    desk.run(&["submit", "mine.txt", "-p", "pipeline.yaml", "--aws"])
        .well();
    eventually("it is restored", || {
        desk.files("out").contains_key("mine.txt").then_some(())
    });
    let page = eventually("it is counted", || {
        let page = compress.ask("/metrics");
        (figure(&page, "streampress_messages_acknowledged_total") == 1.0).then_some(page)
    });
    assert_sums_hold(&page);
    let labels = "{pipeline=\"watched\",namespace=\"default\",role=\"compressor\"}";
    assert!(
        page.contains(&format!("streampress_files_raw_bytes_total{labels}")),
        "{page}"
    );
    assert_eq!(figure(&page, "streampress_files_raw_bytes_total"), 700.0);
    assert!(figure(&page, "streampress_last_success_timestamp_seconds") > 1.7e9);
    for path in ["/livez", "/readyz"] {
        assert!(compress.ask(path).starts_with("HTTP/1.1 200"), "{path}");
    }
    // A file is visible a moment before it is told of.
    eventually("it says so", || {
        decompress.log().contains("File restored.").then_some(())
    });
    decompress.terminate();
    assert_eq!((compress.stop(), decompress.wait()), (Some(0), Some(0)));
    let log = decompress.log();
    let restored = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("each line is JSON"))
        .find(|line| line["fields"]["message"] == "File restored.")
        .expect("it says so");
    assert_eq!(restored["span"]["file_name"], "mine.txt");
    assert_eq!(
        restored["span"]["file_id"].as_str().map(str::len),
        Some(64),
        "{restored}"
    );
}

#[cfg(not(feature = "otlp"))]
#[test]
fn a_program_without_the_export_of_traces_says_so_once_where_a_collector_is_named() {
    let spec = "  generator: {schema: {example: iot-sensors}, fileSize: 64Ki, files: 2}";
    let desk = Desk::new(PROGRAM, "http://nowhere", "traced", spec);
    let mut command = desk.command(&["generate", "pipeline.yaml", "--data", "d", "--files", "1"]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    let mut generate = desk.start_command("generate.log", command);
    assert_eq!(generate.wait(), Some(0), "{}", generate.log());
    let log = generate.log();
    assert_eq!(
        log.matches("built without the export of traces").count(),
        1,
        "{log}"
    );
}
