//! Programs in Python opposite ours on LocalStack. `tests/peer/peer.py` speaks the formats of the Python original, as compressor or
//! decompressor; the original's recorded messages and records and its variables are tried too. `tests/peer/consumer.py` restores files
//! of our own format. Also a throughput comparison.
//!
//! Needs a LocalStack (see `aws_localstack`) and a Python with boto3 in STREAMPRESS_PYTHON (`tests/localstack python`
//! prints one).

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use streampress::consume::{Consumer, Handler};
use streampress::destination::Destination;
use streampress::journal::NoJournal;
use streampress::legacy::READ_LOCATION;
use streampress::legacy::compressor::LegacyCompressor;
use streampress::message::Digest;
use streampress::roles::announce::{AnnouncementFormat, Announcer};
use streampress::roles::decompress::Decompressor;
use streampress::roles::source::{SettleTime, SourceFilter};
use streampress_codec::hybrid;
use streampress_crds::Role;
use streampress_crds::api::pipeline::{OnCompressed, SourceFormat};
use streampress_crds::settings::{QueueSettings, StreamSettings, TransportSettings};
use streampress_tests::aws::{UnlimitedSlots, connect};
use streampress_tests::eventually;
use streampress_tests::pipeline::{PipelineNames, TestPipeline, TestWorker};
use streampress_tests::sandbox::Sandbox;
use streampress_transport::aws::Aws;
use streampress_transport::aws::provision::{ProvisionPlan, create};
use streampress_transport::local::files::LocalFiles;
use streampress_transport::{ChunkStream, FileName, Files, Outgoing, Queue, Record};
use tokio_util::sync::CancellationToken;

const PROGRAM: &str = env!("CARGO_BIN_EXE_streampress-program");
const MINUTE: Duration = Duration::from_secs(60);
/// Bounds a hang: on a busy machine Python and LocalStack take their time.
const PEER_ENDS: Duration = Duration::from_secs(600);

fn url() -> String {
    std::env::var("STREAMPRESS_LOCALSTACK").unwrap_or_else(|_| "http://localhost:4566".into())
}

/// A pipeline with new names on LocalStack, and folders for source and destination.
struct PeerFixture {
    aws: Aws,
    names: [String; 3],
    root: tempfile::TempDir,
}

impl PeerFixture {
    async fn new() -> Self {
        let aws = connect(&url()).await;
        let run = format!("{:x}", fastrand::u64(..));
        let names = [
            format!("files-{run}"),
            format!("chunks-{run}"),
            format!("stream-{run}"),
        ];
        let queue = |name: &str| QueueSettings {
            name: format!("{name}.fifo"),
            dead_letter_name: format!("{name}-dlq.fifo"),
            visibility_timeout_seconds: 60,
            max_receive_count: 5,
        };
        let transport = TransportSettings {
            files_queue: queue(&names[0]),
            chunks_queue: queue(&names[1]),
            receipts_queue: None,
            stream: StreamSettings {
                name: names[2].clone(),
                shards: 4,
                retention_hours: 24,
            },
        };
        let plan = ProvisionPlan {
            encrypted: false,
            ..ProvisionPlan::new(transport, ("streampress.dev/owner", "tests"))
        };
        create(&aws, &plan).await.expect("made");
        let root = tempfile::tempdir().expect("a folder");
        for folder in ["in", "out"] {
            std::fs::create_dir(root.path().join(folder)).expect("made");
        }
        Self { aws, names, root }
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn files(&self, name: &str) -> Arc<dyn Files> {
        Arc::new(
            LocalFiles::open(&format!("file:///data/{name}"), &self.folder(name)).expect("opens"),
        )
    }

    async fn queue(&self, index: usize) -> Arc<dyn Queue> {
        Arc::new(
            self.aws
                .queue(&format!("{}.fifo", self.names[index]), MINUTE)
                .await
                .expect("opens"),
        )
    }

    async fn announcer(&self) -> Announcer {
        Announcer {
            source: self.files("in"),
            files_queue: self.queue(0).await,
            strict: false,
            format: AnnouncementFormat::Legacy,
            journal: Arc::new(NoJournal),
        }
    }

    /// The same folders and queues for workers of the hybrid format.
    fn pipeline(&self) -> TestPipeline {
        let [files, chunks, stream] = &self.names;
        let names = PipelineNames {
            files: format!("{files}.fifo"),
            chunks: format!("{chunks}.fifo"),
            stream: stream.clone(),
        };
        let mut pipeline = TestPipeline::new(self.root.path(), &url(), MINUTE).expect("opens");
        (pipeline.names, pipeline.effort) = (names, hybrid::Effort::Balanced);
        pipeline
    }

    /// Puts a file at the source and announces it as the original does.
    async fn announce(&self, announcer: &Announcer, name: &str, content: &[u8]) {
        std::fs::write(self.folder("in").join(name), content).expect("written");
        let name = FileName::parse(name).expect("a good name");
        let entry = announcer
            .source
            .stat(&name)
            .expect("readable")
            .expect("there");
        announcer.announce(&entry).await.expect("announced");
    }

    async fn compressor(&self, shutdown: &CancellationToken) -> Consumer {
        let handler = LegacyCompressor {
            announcer: self.announcer().await,
            stream: Arc::new(self.aws.stream(&self.names[2]).await.expect("opens")),
            chunks_queue: self.queue(1).await,
            break_bytes: 400 * 1024,
            read_location: READ_LOCATION.into(),
            on_compressed: OnCompressed::Keep,
            settle: SettleTime::default(),
            filter: SourceFilter {
                formats: vec![SourceFormat::Json, SourceFormat::Csv, SourceFormat::Txt],
                skips_renamed: false,
            },
            keeps_single_chunk_files: true,
            push: true,
            report: None,
            dead_letter_report: None,
            journal: Arc::new(NoJournal),
        };
        consumer(self.queue(0).await, Arc::new(handler), shutdown)
    }

    async fn decompressor(&self, shutdown: &CancellationToken) -> Consumer {
        let stream = Arc::new(self.aws.stream(&self.names[2]).await.expect("opens"));
        let journal = Arc::new(NoJournal);
        let folder = self.root.path().join("out");
        let destination = Destination::with_own_journal(self.files("out"), Some(&folder));
        let handler = Decompressor::new(destination, stream, 1, None, journal);
        consumer(self.queue(1).await, Arc::new(handler), shutdown)
    }

    /// Starts the peer in one of its roles; it exits after `count` files.
    fn peer(&self, role: &str, folder: &str, count: usize, more: &[&str]) -> tokio::process::Child {
        let [files, chunks, stream] = &self.names;
        python("peer.py")
            .args([
                role,
                "--endpoint",
                &url(),
                "--stream",
                stream,
                "--count",
                &count.to_string(),
            ])
            .args([
                "--files-queue",
                &format!("{files}.fifo"),
                "--chunks-queue",
                &format!("{chunks}.fifo"),
            ])
            .arg("--folder")
            .arg(self.folder(folder))
            .args(more)
            .stdout(Stdio::null())
            .spawn()
            .expect("the peer starts")
    }

    /// Each of these files was restored as the original normalises it.
    fn assert_restored(&self, cases: &[Value], when: &str) {
        for case in cases {
            let name = name_of(case);
            let restored = sha256(&self.folder("out").join(name));
            assert_eq!(restored, hash_of(case), "{name}, {when}");
        }
    }

    /// Waits until `count` files are restored. It waits for each in turn, so that a slow peer does not time out.
    async fn wait_for(&self, count: usize) {
        let out = self.files("out");
        for number in 1..=count {
            eventually("one more file is restored", async || {
                out.list().expect("listed").files.len() >= number
            })
            .await;
        }
    }
}

/// A command that runs a program of `tests/peer`.
fn python(program: &str) -> tokio::process::Command {
    let python = std::env::var("STREAMPRESS_PYTHON").expect(
        "STREAMPRESS_PYTHON names a Python with boto3; 'tests/localstack python' prints one",
    );
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("peer");
    let mut command = tokio::process::Command::new(python);
    command
        .arg(peers.join(program))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .kill_on_drop(true);
    command
}

fn consumer(
    queue: Arc<dyn Queue>,
    handler: Arc<dyn Handler>,
    shutdown: &CancellationToken,
) -> Consumer {
    Consumer {
        role: Role::Compressor,
        queue,
        lock: Arc::new(UnlimitedSlots),
        handler,
        threads: 2,
        strict: false,
        interval: Duration::from_secs(1),
        linger: Duration::from_secs(1),
        max_receive_count: 5,
        meter: Default::default(),
        shutdown: shutdown.clone(),
    }
}

fn seed_data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../worker/codec/testdata/legacy")
}

fn cases() -> Vec<Value> {
    let manifest = std::fs::read(seed_data().join("manifest.json")).expect("there");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    manifest["cases"].as_array().cloned().expect("cases")
}

fn name_of(case: &Value) -> &str {
    let input = case["input"].as_str().expect("a path");
    input.strip_prefix("inputs/").expect("a name")
}

fn input_of(case: &Value) -> Vec<u8> {
    std::fs::read(seed_data().join("inputs").join(name_of(case))).expect("there")
}

fn hash_of(case: &Value) -> &str {
    case["normalised_sha256"].as_str().expect("a hash")
}

fn sha256(path: &Path) -> String {
    let bytes = std::fs::read(path).expect("restored");
    let digest = <sha2::Sha256 as sha2::Digest>::digest(&bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_messages_and_records_of_the_original_are_restored() {
    let fixture = PeerFixture::new().await;
    let stream = fixture.aws.stream(&fixture.names[2]).await.expect("opens");
    let chunks = fixture.queue(1).await;
    let mut expected = Vec::new();
    for case in cases().into_iter().filter(|case| case["sqs_messages"] == 1) {
        let records = case["records"].as_array().cloned().expect("records");
        let records = records.iter().map(|record| Record {
            key: record["partition_key"].as_str().expect("a key").into(),
            data: std::fs::read(seed_data().join(record["file"].as_str().expect("a file")))
                .expect("there")
                .into(),
        });
        // One request each, as both programs do: sequence numbers within one request need not ascend.
        let mut positions = Vec::new();
        for record in records {
            positions.extend(stream.append(vec![record]).await.expect("put"));
        }
        // The recorded message with the positions of this stream; sorted as text, which is the original's mistake.
        let mut sequences: Vec<&str> = positions
            .iter()
            .map(|position| position.sequence.as_str())
            .collect();
        sequences.sort_unstable();
        let mut body = case["sqs_body"].clone();
        body["shard_id"] = positions[0].shard.clone().into();
        body["sequence_number"] = sequences.into();
        let message = Outgoing {
            group: positions[0].shard.clone(),
            dedup_id: case["sqs_dedup_id"].as_str().expect("an id").into(),
            body: body.to_string(),
            attributes: Default::default(),
        };
        chunks.send(vec![message]).await.expect("sent");
        expected.push(case);
    }
    let shutdown = CancellationToken::new();
    let worker = fixture.decompressor(&shutdown).await;
    let working = tokio::spawn(async move { worker.run().await });
    fixture.wait_for(expected.len()).await;
    fixture.assert_restored(&expected, "recorded by the original");
    println!(
        "FIGURE recorded files of the original restored: {}",
        expected.len()
    );
    shutdown.cancel();
    working.await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_restores_what_our_compressor_packs_and_our_decompressor_what_the_peer_packs() {
    for ours_packs in [true, false] {
        let fixture = PeerFixture::new().await;
        let shutdown = CancellationToken::new();
        let cases = cases();
        let worker = if ours_packs {
            fixture.compressor(&shutdown).await
        } else {
            fixture.decompressor(&shutdown).await
        };
        let role = if ours_packs {
            ("decompress", "out")
        } else {
            ("compress", "in")
        };
        let announcer = fixture.announcer().await;
        for case in &cases {
            fixture
                .announce(&announcer, name_of(case), &input_of(case))
                .await;
        }
        let working = tokio::spawn(async move { worker.run().await });
        let mut peer = fixture.peer(role.0, role.1, cases.len(), &[]);
        let ended = tokio::time::timeout(PEER_ENDS, peer.wait())
            .await
            .expect("the peer ends")
            .expect("known");
        assert!(ended.success(), "{ended}");
        fixture.wait_for(cases.len()).await;
        fixture.assert_restored(&cases, &format!("ours packs: {ours_packs}"));
        shutdown.cancel();
        working.await.expect("no panic");
    }
}

/// Started as the original's container is: its environment is the whole configuration.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_restores_the_files_of_a_compressor_configured_by_the_originals_variables() {
    let fixture = PeerFixture::new().await;
    let aws = url();
    let queue = |index: usize| format!("{aws}/000000000000/{}.fifo", fixture.names[index]);
    let sandbox = Sandbox::legacy(
        PROGRAM,
        &[
            ("AWS_ENDPOINT_OVERRIDE", &aws),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY", "the-access-key"),
            ("AWS_SECRET_KEY", "the-secret-key"),
            ("AWS_SESSION_TOKEN", "the-session-token"),
            ("STREAM_NAME", &fixture.names[2]),
            ("SQS_FIFO_QUEUE", &queue(1)),
            ("FILE_SQS_FIFO_QUEUE", &queue(0)),
            ("READ_LOCATION", READ_LOCATION),
            ("STREAM_FILE_BREAK_SIZE_KB", "400"),
            ("ENABLE_DATA_PUSH", "True"),
            ("ENABLE_REPORT", "False"),
            ("SCHEDULAR_TRIGGER_INTERVAL", "1"),
            ("RUST_LOG", "trace"),
        ],
    );
    let cases = cases();
    let announcer = fixture.announcer().await;
    for case in &cases {
        let (name, content) = (name_of(case), input_of(case));
        sandbox.write(&sandbox.path(READ_LOCATION).join(name), &content);
        fixture.announce(&announcer, name, &content).await;
    }
    let compressor = sandbox.start("compress.log", &["compress"]);
    let mut peer = fixture.peer("decompress", "out", cases.len(), &[]);
    let ended = tokio::time::timeout(PEER_ENDS, peer.wait()).await;
    assert!(
        ended.is_ok_and(|ended| ended.expect("known").success()),
        "the peer did not restore all\n{}",
        compressor.log()
    );
    fixture.wait_for(cases.len()).await;
    fixture.assert_restored(&cases, "packed by the compressor");
    let log = compressor.log();
    // The program never logs the trace lines of its libraries.
    assert!(log.contains("DEBUG"), "the log is not at its most verbose");
    for secret in ["the-secret-key", "the-session-token"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
    assert_eq!(compressor.stop(), Some(0));
}

/// Names and contents of files of all that a manifest and a record can say: small ones that share a block, with a first line that all
/// have and without one; one of many records; one of `longest` bytes, whose records may be too many for a message; an empty one; odd
/// names.
fn files_of_every_shape(longest: usize) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for number in 0..60_usize {
        let rows = (0..20 + number).map(|row| format!("{number},{row},{}\n", row * row % 997));
        let csv = format!("file,row,value\n{}", rows.collect::<String>());
        files.push((format!("tables/{number}.csv"), csv.into_bytes()));
        let json = format!("{{\"number\":{number},\"words\":[\"one\",\"two\"]}}\n");
        files.push((format!("{number}.json"), json.repeat(10).into_bytes()));
    }
    files.push(("lines/of many records.json".into(), rows(1)));
    let mut random = fastrand::Rng::with_seed(1);
    let bytes = std::iter::repeat_with(|| random.u8(..));
    files.push(("a long list.txt".into(), bytes.take(longest).collect()));
    files.push(("empty.txt".into(), Vec::new()));
    files.push(("Zürich/\u{4e2d}\u{6587} %41.txt".into(), b"words".to_vec()));
    files
}

/// In the place of a decompressor: it reads all from the queue and the stream, and its receipts remove the sources.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_was_written_from_the_documents_restores_the_files_of_a_pipeline() {
    // Small records: a list of them is too long for a message, and a description of many files is too long for a record.
    for (version, record_size, longest) in [(1, "4Ki", 8 << 20), (2, "64Ki", 1 << 20)] {
        let name = format!("consumed-{:x}", fastrand::u64(..));
        let spec = format!(
            "  codec: {{formatVersion: {version}, blockSize: 256Ki, recordSize: {record_size}}}\n  source: {{onRestored: Delete, settleSeconds: 0}}"
        );
        let sandbox = Sandbox::new(PROGRAM, &url(), &name, &spec);
        sandbox.run(&["setup", "pipeline.yaml"]).success();
        let files = files_of_every_shape(longest);
        let mut submit = vec!["submit".to_owned(), "-p".into(), "pipeline.yaml".into()];
        submit.push("--aws".into());
        for (name, content) in &files {
            let path = sandbox.data("in").join(name);
            sandbox.write(&path, content);
            submit.push(path.to_str().expect("text").to_owned());
        }
        let submit: Vec<&str> = submit.iter().map(String::as_str).collect();
        sandbox.run(&submit).success();
        let compressor = sandbox.start("compress.log", &["compress", "pipeline.yaml", "--aws"]);
        let out = sandbox.path("restored");
        let consumer = python("consumer.py")
            .args(["--endpoint", &url()])
            .args(["--chunks-queue", &format!("{name}-chunks.fifo")])
            .args(["--receipts-queue", &format!("{name}-receipts.fifo")])
            .args(["--stream", &format!("{name}-stream")])
            .args(["--count", &files.len().to_string()])
            .arg("--folder")
            .arg(&out)
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .output();
        let ended = tokio::time::timeout(PEER_ENDS, consumer).await;
        let ended = ended.expect("the consumer ends").expect("it starts");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{said}{}", compressor.log());
        for (name, content) in &files {
            let restored = std::fs::read(out.join(name)).expect("restored");
            assert!(restored == *content, "{name}, version {version}");
        }
        let met: Value = serde_json::from_slice(&ended.stdout).expect("JSON");
        println!("FIGURE met by the consumer, version {version}: {met}");
        let count = |what: &str| met[what].as_u64().unwrap_or(0);
        assert_eq!(count("restored"), files.len() as u64);
        assert_eq!(count("receipts"), files.len() as u64);
        assert!(count("bundles") > 0 && count("files of bundles") > 2 * count("bundles"));
        assert!(count("here") > 2, "{met}");
        let packed = count("here") + count("listed");
        assert_eq!(count(&format!("packed files of version {version}")), packed);
        let is_small = record_size == "4Ki";
        // The description of a large bundle does not fit into a small record; how many files a bundle has depends on the moment.
        let undescribed = if is_small { count("bundles") } else { 0 };
        assert_eq!(count("listed"), u64::from(is_small), "{met}");
        let described = packed - undescribed..=packed;
        assert!(described.contains(&count("descriptions")), "{met}");
        assert!(count("records") > packed, "{met}");
        eventually("all sources are removed", async || {
            files
                .iter()
                .all(|(name, _)| !sandbox.data("in").join(name).exists())
        })
        .await;
        assert_eq!(compressor.stop(), Some(0));
    }
}

/// About 1 MB of rows.
fn rows(seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let row = |random: &mut fastrand::Rng| {
        format!(
            "{{\"symbol\":\"S{:03}\",\"cents\":{},\"volume\":{}}}",
            random.u32(0..300),
            random.u32(100..90_000),
            random.u32(1..100_000)
        )
    };
    let rows: Vec<String> = (0..20_000).map(|_| row(&mut random)).collect();
    format!("[{}]", rows.join(",")).into_bytes()
}

/// The comparison asserts its factor from this number of files on; `tests/run --long` uses it.
const FILES_AT_LENGTH: usize = 50;

/// Files a minute of three ways: ours, then the original's with and without its sleeps.
#[tokio::test(flavor = "multi_thread")]
async fn ours_moves_many_times_as_many_files_as_the_originals_way() {
    let files: usize = std::env::var("STREAMPRESS_PEER_FILES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(10);
    let mut per_minute = Vec::new();
    for way in ["ours", "theirs, with sleeps", "theirs, without sleeps"] {
        let fixture = PeerFixture::new().await;
        let mut announcer = fixture.announcer().await;
        if way == "ours" {
            announcer.format = AnnouncementFormat::Native;
        }
        let mut hashes = Vec::new();
        for number in 0..files {
            let content = rows(number as u64);
            hashes.push((format!("rows-{number}.json"), Digest::of(&content)));
            fixture
                .announce(&announcer, &format!("rows-{number}.json"), &content)
                .await;
        }
        let (mut peers, mut workers) = (Vec::new(), Vec::<TestWorker>::new());
        let began = SystemTime::now();
        if way == "ours" {
            let pipeline = fixture.pipeline();
            workers = [Role::Compressor, Role::Decompressor]
                .map(|role| TestWorker::start(&pipeline, role, 2))
                .into();
        } else {
            let sleep: &[&str] = if way.contains("with sleeps") {
                &["--sleep"]
            } else {
                &[]
            };
            peers.push(fixture.peer("compress", "in", files, sleep));
            peers.push(fixture.peer("decompress", "out", files, &["--whole-shard"]));
        }
        fixture.wait_for(files).await;
        let seconds = began.elapsed().expect("time goes on").as_secs_f64();
        per_minute.push(files as f64 * 60.0 / seconds);
        println!(
            "FIGURE {files} files of 1 MB, {way}: {:.0} files a minute",
            files as f64 * 60.0 / seconds
        );
        workers.into_iter().for_each(TestWorker::kill);
        for mut peer in peers {
            assert!(peer.wait().await.expect("known").success());
        }
        for (name, hash) in hashes {
            let restored = std::fs::read(fixture.folder("out").join(&name)).expect("restored");
            assert_eq!(Digest::of(&restored), hash, "{name}, {way}");
        }
    }
    let times = per_minute[0] / per_minute[1];
    println!(
        "FIGURE ours over theirs: {times:.1} times with its sleeps (at least 10), {:.1} times without",
        per_minute[0] / per_minute[2]
    );
    // With fewer files, start-up and polling take longer than the work.
    assert!(files < FILES_AT_LENGTH || times >= 10.0, "{times:.1} times");
}
