//! Files that never lie in a folder: source, destination and report in a bucket, from the program itself, and a bucket that
//! announces its files itself. Needs a LocalStack (see `aws_localstack`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use streampress_tests::aws::{connect, make_bucket};
use streampress_tests::desk::{Desk, eventually};
use streampress_transport::contract_tests::files::read;
use streampress_transport::{FileName, Files, Outgoing, Queue};

const PROGRAM: &str = env!("CARGO_BIN_EXE_streampress-program");
const MINUTE: Duration = Duration::from_secs(60);

fn url() -> String {
    std::env::var("STREAMPRESS_LOCALSTACK").unwrap_or_else(|_| "http://localhost:4566".into())
}

/// A pipeline whose files are all in one fresh bucket.
struct Place {
    bucket: String,
    name: String,
    desk: Desk,
    files: BTreeMap<&'static str, Arc<dyn Files>>,
}

impl Place {
    async fn new(more: &str) -> Self {
        let name = format!("b{:08x}", fastrand::u32(..));
        let bucket = format!("bucket-{name}");
        make_bucket(&url(), &bucket).await.expect("made");
        let spec = format!(
            "  source: {{location: \"s3://{bucket}/in\"}}\n  destination: {{location: \"s3://{bucket}/out\"}}\n  report: {{location: \"s3://{bucket}/reports/page.html\"}}\n{more}"
        );
        let desk = Desk::new(PROGRAM, &url(), &name, &spec);
        desk.run(&["setup", "pipeline.yaml"]).well();
        let aws = connect(&url()).await;
        let open = |folder: &'static str| {
            let files = aws.files(&format!("s3://{bucket}/{folder}"), &bucket, folder);
            (folder, Arc::new(files.expect("opens")) as Arc<dyn Files>)
        };
        let files = ["in", "out", "reports"].map(open).into();
        Self {
            bucket,
            name,
            desk,
            files,
        }
    }

    /// Whether everything at the source is at the destination, byte for byte, and how many files that are.
    async fn restored(&self) -> Option<usize> {
        let (source, destination) = (self.files["in"].clone(), self.files["out"].clone());
        let compared = tokio::task::spawn_blocking(move || {
            let all = source.list().expect("listed");
            let same = all.iter().all(|entry| {
                let there = destination.stat(&entry.name).expect("looked");
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
        let began = std::time::Instant::now();
        while self.restored().await != Some(files) {
            assert!(
                began.elapsed() < 2 * MINUTE,
                "{files} files never came back"
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
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
async fn files_go_from_bucket_to_bucket_with_their_report() {
    let place = Place::new(
        "  generator: {schema: {example: stock-market}, fileSize: 64Ki, filesPerMinute: 0, files: 3}",
    )
    .await;
    let desk = &place.desk;
    let compress = desk.start("compress.log", &["compress", "pipeline.yaml", "--aws"]);
    let decompress = desk.start("decompress.log", &["decompress", "pipeline.yaml", "--aws"]);
    desk.run(&["generate", "pipeline.yaml", "--aws", "--files", "3"])
        .well();
    desk.write(&desk.path("mine #1.txt"), "a line\n");
    let said = desk
        .run(&["submit", "mine #1.txt", "-p", "pipeline.yaml", "--aws"])
        .well();
    assert!(
        said.contains("copied to the source and announced"),
        "{said}"
    );
    place.put("lies there.csv", b"a,b\n1,2\n").await;
    let object = format!("s3://{}/in/lies there.csv", place.bucket);
    desk.run(&["submit", &object, "-p", "pipeline.yaml", "--aws"])
        .well();
    let elsewhere = desk.run(&["submit", "s3://other/x", "-p", "pipeline.yaml", "--aws"]);
    assert_eq!(elsewhere.code, Some(1));
    assert!(
        elsewhere.err.contains("is not at the source"),
        "{}",
        elsewhere.err
    );
    place.wait_for(5).await;
    assert_eq!((compress.stop(), decompress.stop()), (Some(0), Some(0)));
    let said = desk.run(&["report", "pipeline.yaml"]).well();
    assert!(said.contains("page.html: 5 file(s)"), "{said}");
    let reports = place.files["reports"].clone();
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
async fn a_bucket_feeds_a_pipeline_without_a_producer_of_ours() {
    let place = Place::new("").await;
    let desk = &place.desk;
    let rule = "arn:aws:events:us-east-1:000000000000:rule/bucket";
    desk.run(&["setup", "pipeline.yaml", "--event-rule", rule])
        .well();
    let files_queue = format!("{}-files.fifo", place.name);
    let queue = connect(&url()).await.queue(&files_queue, MINUTE).await;
    let queue = queue.expect("opens");
    let workers = ["compress", "decompress"]
        .map(|role| desk.start(&format!("{role}.log"), &[role, "pipeline.yaml", "--aws"]));
    for (name, content) in [
        ("trades.json", &b"[{\"price\": 1.50}]\n"[..]),
        ("sub/notes.txt", b"one\ntwo\n"),
    ] {
        place.put(name, content).await;
        // As EventBridge delivers it: AWS's documented message with this bucket and key, one group for all.
        let event = json!({
            "version": "0", "id": "17793124-05d4-b198-2fde-7ededc63b103", "detail-type": "Object Created",
            "source": "aws.s3", "account": "111122223333", "time": "2021-11-12T00:00:00Z", "region": "us-east-1",
            "resources": [format!("arn:aws:s3:::{}", place.bucket)],
            "detail": {
                "version": "0", "bucket": {"name": place.bucket},
                "object": {"key": format!("in/{name}"), "size": content.len(), "etag": "b1946ac92492d2347c6235b4d2611184", "sequencer": "617f08299329d189"},
                "request-id": "N4N7GDK58NMKJ12R", "requester": "123456789012", "source-ip-address": "1.2.3.4", "reason": "PutObject",
            },
        });
        let message = Outgoing {
            group: "bucket-events".into(),
            dedup_id: Digest(event.to_string()).hex(),
            body: event.to_string(),
            attributes: Default::default(),
        };
        queue.send(vec![message]).await.expect("sent");
    }
    place.wait_for(2).await;
    for worker in workers {
        assert_eq!(worker.stop(), Some(0));
    }
    assert_eq!(queue.depth().await.expect("known").total(), 0);
}

/// What a queue with content-based deduplication takes in place of an id: SHA-256 of the body.
struct Digest(String);

impl Digest {
    fn hex(&self) -> String {
        let digest = <sha2::Sha256 as sha2::Digest>::digest(self.0.as_bytes());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn run_works_from_bucket_to_bucket_and_says_where_things_are() {
    let place = Place::new(
        "  generator: {schema: {example: stock-market}, fileSize: 64Ki, filesPerMinute: 0, files: 3}",
    )
    .await;
    let said = place.desk.run(&["run", "pipeline.yaml", "--aws", "--json"]);
    let summary: serde_json::Value = serde_json::from_str(&said.well()).expect("a summary as JSON");
    assert_eq!(summary["filesRestored"], 3, "{summary}");
    assert_eq!(summary["output"], format!("s3://{}/out", place.bucket));
    assert_eq!(
        summary["report"],
        format!("s3://{}/reports/page.html", place.bucket)
    );
    eventually("it is all there", || {
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(place.restored()))
            .filter(|files| *files == 3)
    });
}
