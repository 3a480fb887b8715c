//! Source, destination and report in a bucket, through the program, and a bucket whose events announce its files.
//! Needs a LocalStack (see `aws_localstack`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use streampress_tests::aws::{connect, make_bucket};
use streampress_tests::eventually;
use streampress_tests::sandbox::Sandbox;
use streampress_transport::contract_tests::files::read;
use streampress_transport::{FileName, Files, Outgoing, Queue};

const PROGRAM: &str = env!("CARGO_BIN_EXE_streampress-program");
const MINUTE: Duration = Duration::from_secs(60);

fn url() -> String {
    std::env::var("STREAMPRESS_LOCALSTACK").unwrap_or_else(|_| "http://localhost:4566".into())
}

/// A pipeline whose files are all in one new bucket.
struct BucketFixture {
    bucket: String,
    name: String,
    sandbox: Sandbox,
    files: BTreeMap<&'static str, Arc<dyn Files>>,
}

impl BucketFixture {
    async fn new(more: &str) -> Self {
        let name = format!("b{:08x}", fastrand::u32(..));
        let bucket = format!("bucket-{name}");
        make_bucket(&url(), &bucket).await.expect("created");
        let spec = format!(
            "  source: {{location: \"s3://{bucket}/in\"}}\n  destination: {{location: \"s3://{bucket}/out\"}}\n  report: {{location: \"s3://{bucket}/reports/page.html\"}}\n{more}"
        );
        let sandbox = Sandbox::new(PROGRAM, &url(), &name, &spec);
        sandbox.run(&["setup", "pipeline.yaml"]).success();
        let aws = connect(&url()).await;
        let open = |folder: &'static str| {
            let files = aws.files(&format!("s3://{bucket}/{folder}"), &bucket, folder);
            (folder, Arc::new(files.expect("opens")) as Arc<dyn Files>)
        };
        let files = ["in", "out", "reports"].map(open).into();
        Self {
            bucket,
            name,
            sandbox,
            files,
        }
    }

    /// The number of files at the source, if each is at the destination byte for byte.
    async fn restored(&self) -> Option<usize> {
        let (source, destination) = (self.files["in"].clone(), self.files["out"].clone());
        let compared = tokio::task::spawn_blocking(move || {
            let all = source.list().expect("listed").files;
            let same = all.iter().all(|entry| {
                let there = destination.stat(&entry.name).expect("readable");
                there.is_some_and(|there| {
                    there.size == entry.size
                        && read(&*destination, &entry.name) == read(&*source, &entry.name)
                })
            });
            same.then_some(all.len())
        });
        compared.await.expect("compared")
    }

    async fn wait_for(&self, files: usize) {
        eventually("all files are restored", async || {
            self.restored().await == Some(files)
        })
        .await;
    }

    async fn put(&self, name: &'static str, content: &'static [u8]) {
        let source = self.files["in"].clone();
        let put = tokio::task::spawn_blocking(move || {
            let name = FileName::parse(name).expect("a good name");
            let mut pending = source.create(&name).expect("begun");
            std::io::Write::write_all(&mut pending, content).expect("written");
            pending.commit(std::time::SystemTime::now()).expect("put");
        });
        put.await.expect("put");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_restored_from_bucket_to_bucket_with_a_report() {
    let fixture = BucketFixture::new(
        "  generator: {schema: {example: stock-market}, fileSize: 64Ki, filesPerMinute: 0, files: 3}",
    )
    .await;
    let sandbox = &fixture.sandbox;
    let compress = sandbox.start("compress.log", &["compress", "pipeline.yaml", "--aws"]);
    let decompress = sandbox.start("decompress.log", &["decompress", "pipeline.yaml", "--aws"]);
    sandbox
        .run(&["generate", "pipeline.yaml", "--aws", "--files", "3"])
        .success();
    sandbox.write(&sandbox.path("mine #1.txt"), "a line\n");
    let output = sandbox
        .run(&["submit", "mine #1.txt", "-p", "pipeline.yaml", "--aws"])
        .success();
    assert!(
        output.contains("copied to the source and announced"),
        "{output}"
    );
    fixture.put("existing file.csv", b"a,b\n1,2\n").await;
    let object = format!("s3://{}/in/existing file.csv", fixture.bucket);
    sandbox
        .run(&["submit", &object, "-p", "pipeline.yaml", "--aws"])
        .success();
    let elsewhere = sandbox.run(&["submit", "s3://other/x", "-p", "pipeline.yaml", "--aws"]);
    assert_eq!(elsewhere.code, Some(1));
    assert!(
        elsewhere.stderr.contains("is not at the source"),
        "{}",
        elsewhere.stderr
    );
    fixture.wait_for(5).await;
    assert_eq!((compress.stop(), decompress.stop()), (Some(0), Some(0)));
    let output = sandbox.run(&["report", "pipeline.yaml"]).success();
    assert!(output.contains("page.html: 5 file(s)"), "{output}");
    let reports = fixture.files["reports"].clone();
    let page = tokio::task::spawn_blocking(move || {
        read(
            &*reports,
            &FileName::parse("page.html").expect("a good name"),
        )
    });
    let page = String::from_utf8(page.await.expect("read")).expect("UTF-8");
    assert!(
        page.contains("mine #1.txt"),
        "the page does not name a file"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buckets_events_feed_a_pipeline() {
    let fixture = BucketFixture::new("").await;
    let sandbox = &fixture.sandbox;
    let rule = "arn:aws:events:us-east-1:000000000000:rule/bucket";
    sandbox
        .run(&["setup", "pipeline.yaml", "--event-rule", rule])
        .success();
    let files_queue = format!("{}-files.fifo", fixture.name);
    let queue = connect(&url()).await.queue(&files_queue, MINUTE).await;
    let queue = queue.expect("opens");
    let workers = ["compress", "decompress"]
        .map(|role| sandbox.start(&format!("{role}.log"), &[role, "pipeline.yaml", "--aws"]));
    for (name, content) in [
        ("trades.json", &b"[{\"price\": 1.50}]\n"[..]),
        ("sub/notes.txt", b"one\ntwo\n"),
    ] {
        fixture.put(name, content).await;
        // AWS's documented EventBridge message with this bucket and key; one group for all.
        let event = json!({
            "version": "0", "id": "17793124-05d4-b198-2fde-7ededc63b103", "detail-type": "Object Created",
            "source": "aws.s3", "account": "111122223333", "time": "2021-11-12T00:00:00Z", "region": "us-east-1",
            "resources": [format!("arn:aws:s3:::{}", fixture.bucket)],
            "detail": {
                "version": "0", "bucket": {"name": fixture.bucket},
                "object": {"key": format!("in/{name}"), "size": content.len(), "etag": "b1946ac92492d2347c6235b4d2611184", "sequencer": "617f08299329d189"},
                "request-id": "N4N7GDK58NMKJ12R", "requester": "123456789012", "source-ip-address": "1.2.3.4", "reason": "PutObject",
            },
        });
        let message = Outgoing {
            group: "bucket-events".into(),
            dedup_id: content_dedup_id(&event.to_string()),
            body: event.to_string(),
            attributes: Default::default(),
        };
        queue.send(vec![message]).await.expect("sent");
    }
    fixture.wait_for(2).await;
    for worker in workers {
        assert_eq!(worker.stop(), Some(0));
    }
    assert_eq!(queue.depth().await.expect("known").total(), 0);
}

/// The id that content-based deduplication derives from a body: its SHA-256.
fn content_dedup_id(body: &str) -> String {
    let digest = <sha2::Sha256 as sha2::Digest>::digest(body.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn run_restores_from_bucket_to_bucket_and_reports_the_locations() {
    let fixture = BucketFixture::new(
        "  generator: {schema: {example: stock-market}, fileSize: 64Ki, filesPerMinute: 0, files: 3}",
    )
    .await;
    let output = fixture
        .sandbox
        .run(&["run", "pipeline.yaml", "--aws", "--json"]);
    let summary: serde_json::Value =
        serde_json::from_str(&output.success()).expect("a summary as JSON");
    assert_eq!(summary["filesRestored"], 3, "{summary}");
    assert_eq!(summary["output"], format!("s3://{}/out", fixture.bucket));
    assert_eq!(
        summary["report"],
        format!("s3://{}/reports/page.html", fixture.bucket)
    );
    fixture.wait_for(3).await;
}
