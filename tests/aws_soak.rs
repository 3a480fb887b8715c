//! Many small files through real compressors and decompressors under all faults at once: workers killed at random, lost
//! responses, duplicates, throttling, resharding. No file may be lost, altered, half-written, restored twice or out of
//! order, whatever its modification time, and no source is deleted before it is restored.
//!
//! 500 files; STREAMPRESS_SOAK_FILES=10000 for the long run. STREAMPRESS_SOAK_SEED repeats a run.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use streampress::message::{Digest, Message};
use streampress::roles::announce::Announcer;
use streampress::roles::connect::CompressorConnections;
use streampress::roles::redrive::{RedriveRequest, redrive};
use streampress_tests::aws::{Cloud, connect};
use streampress_tests::eventually;
use streampress_tests::fake_aws::faults::Faults;
use streampress_tests::fake_aws::{FakeAws, FakeAwsOptions};
use streampress_tests::pipeline::{CHUNKS, FILES, Role, STREAM, TestPipeline, TestWorker};
use streampress_transport::aws::SqsQueue;
use streampress_transport::contract_tests::queue::message;
use streampress_transport::{ATTR_DETAIL, ATTR_REASON, FileEntry, Queue};

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

const ALL_FAULTS: Faults = Faults {
    throttle: 0.2,
    server_error: 0.01,
    lost_request: 0.01,
    lost_response: 0.05,
    duplicate: 0.05,
    entry_failure: 0.02,
    empty_read: 0.1,
    unseen_record: 0.1,
    delay: 0.02,
    delay_for: Duration::from_millis(200),
};
/// For consumers that are not killed.
const LONG: Duration = Duration::from_secs(60);
/// Short, so that a killed worker's messages are redelivered soon.
const VISIBILITY: Duration = Duration::from_secs(5);
/// Files whose source is removed before the compressors start: they become dead letters, and redrive restores them.
const REMOVED: u64 = 5;

const RECEIPTS: &str = "receipts.fifo";
const POISON: &str = "not a message";

fn content(seed: u64, version: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed * 31 + version);
    let rows = random.usize(5..60);
    let row = |i| {
        format!(
            "{{\"id\":{i},\"version\":{version},\"price\":{}.{:02},\"note\":\"file {seed}\"}}\n",
            random.u32(1..500),
            random.u32(0..100)
        )
    };
    (0..rows).map(row).collect::<String>().into_bytes()
}

/// Hashes of the versions at the source by name, oldest first.
type ExpectedFiles = HashMap<String, Vec<Digest>>;
/// Hashes of the visible files at the destination by name.
type RestoredFiles = HashMap<String, Digest>;

/// The modification time of a version: at random, so that a newer version is often older by it.
fn modified(file: u64, version: u64) -> SystemTime {
    let mut random = fastrand::Rng::with_seed(file * 31 + version + 7);
    let millis = random.u64(1_000_000_000_000..2_000_000_000_000);
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}

fn name_of(file: u64) -> String {
    format!("folder {}/file-{file}.json", file % 7)
}

/// The number of a file by its name.
fn number_in(name: &str) -> u64 {
    let digits = name
        .rsplit_once('-')
        .and_then(|(_, rest)| rest.strip_suffix(".json"));
    digits
        .and_then(|digits| digits.parse().ok())
        .expect("a number")
}

struct Soak {
    cloud: Cloud,
    announcer: Announcer,
    pipeline: TestPipeline,
    expected: ExpectedFiles,
}

impl Soak {
    /// Writes a version of a file and announces it until the queue accepts it.
    async fn announce(&mut self, file: u64, version: u64) {
        let entry = self.write(file, version);
        let hash = Digest::of(&content(file, version));
        self.expected.entry(name_of(file)).or_default().push(hash);
        while let Err(error) = self.announcer.announce(&entry).await {
            println!("announcing again: {error:#}");
        }
    }

    fn write(&self, file: u64, version: u64) -> FileEntry {
        let bytes = content(file, version);
        self.pipeline
            .write(&name_of(file), &bytes, modified(file, version))
            .expect("written")
    }

    fn restored(&self) -> RestoredFiles {
        self.pipeline.restored().expect("listed")
    }

    /// PipelineNames whose visible content is the newest version.
    fn up_to_date(&self, restored: &RestoredFiles) -> usize {
        self.expected
            .iter()
            .filter(|(name, versions)| restored.get(*name) == versions.last())
            .count()
    }

    /// A source that is gone, of all but those in `left` before `restored` was listed, was restored in its last version.
    fn assert_deleted_once_restored(&self, left: &BTreeSet<String>, restored: &RestoredFiles) {
        for (name, versions) in &self.expected {
            let was_removed = (1..=REMOVED).contains(&number_in(name));
            assert!(
                was_removed || left.contains(name) || restored.get(name) == versions.last(),
                "the source of {name} was deleted before its last version was restored"
            );
        }
    }

    /// Every visible file must be a whole version that was announced.
    fn assert_nothing_altered(&self, restored: &RestoredFiles) {
        for (name, hash) in restored {
            assert!(
                self.expected
                    .get(name)
                    .is_some_and(|versions| versions.contains(hash)),
                "{name} is visible with wrong content"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_altered_or_doubled_under_all_faults() {
    let (files, seed) = (
        number("STREAMPRESS_SOAK_FILES", 500),
        number("STREAMPRESS_SOAK_SEED", 1),
    );
    let root = tempfile::tempdir().expect("a folder");
    let cloud = Cloud::with(FakeAwsOptions {
        seed,
        ..FakeAwsOptions::default()
    })
    .await;
    cloud.make_queue("files", 50);
    cloud.make_queue("chunks", 50);
    cloud.make_queue("receipts", 50);
    cloud.make_stream(STREAM, 2);
    let mut pipeline =
        TestPipeline::new(root.path(), &cloud.fake_aws.url, VISIBILITY).expect("folders");
    pipeline.receipts = Some(RECEIPTS.into());
    let announcer = pipeline.announcer(&cloud.aws).await;
    let mut soak = Soak {
        cloud,
        announcer,
        pipeline,
        expected: ExpectedFiles::new(),
    };
    let started = Instant::now();
    for file in 0..files {
        soak.announce(file, 1).await;
    }
    println!(
        "announced {files} files in {:.1} s",
        started.elapsed().as_secs_f64()
    );
    for file in 1..=REMOVED {
        soak.pipeline.remove(&name_of(file)).expect("removed");
    }
    soak.announcer
        .files_queue
        .send(vec![message("poison", POISON)])
        .await
        .expect("sent");
    soak.cloud.fake_aws.set_faults(ALL_FAULTS);

    let roles = [
        Role::Compressor,
        Role::Compressor,
        Role::Decompressor,
        Role::Decompressor,
    ];
    let mut workers: Vec<TestWorker> = roles
        .iter()
        .map(|role| TestWorker::start(&soak.pipeline, *role, 4))
        .collect();
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut kills, mut reshards, mut second_versions) = (0, 0, false);
    // Bounds a hang on a busy machine; alone, 500 files take about two minutes.
    let patience = Duration::from_secs(3600 + files);
    let died = loop {
        // Lets the workers make progress before the next kill.
        tokio::time::sleep(Duration::from_millis(random.u64(1500..4000))).await;
        // Once a round, because it hashes thousands of files.
        let left = soak.pipeline.left().expect("listed");
        let restored = soak.restored();
        soak.assert_nothing_altered(&restored);
        soak.assert_deleted_once_restored(&left, &restored);
        let done = soak.up_to_date(&restored);
        if done * 10 < soak.expected.len() * 9 {
            let victim = random.usize(0..workers.len());
            let replacement = TestWorker::start(&soak.pipeline, roles[victim], 4);
            std::mem::replace(&mut workers[victim], replacement).kill();
            kills += 1;
        }
        if done * 3 > soak.expected.len() && reshards == 0 {
            soak.cloud.fake_aws.reshard(STREAM, 4).expect("split");
            reshards = 1;
        }
        if done * 2 > soak.expected.len() && !second_versions {
            second_versions = true;
            for file in (10..files).step_by(10) {
                soak.announce(file, 2).await;
            }
            soak.cloud.fake_aws.reshard(STREAM, 2).expect("merged");
            reshards = 2;
        }
        if second_versions && queues_empty(&soak.cloud.fake_aws) {
            // Every message has been handled.
            let dead = dead_letters(&soak.cloud.fake_aws);
            let restored = soak.restored();
            let ended = soak.up_to_date(&restored) + count_lost(&soak, &restored, &dead);
            assert_eq!(
                ended,
                soak.expected.len(),
                "some files are neither restored nor dead letters"
            );
            break dead;
        }
        assert!(
            started.elapsed() < patience,
            "{} of {} after {:?}: {}",
            done,
            soak.expected.len(),
            patience,
            describe(&soak.cloud.fake_aws)
        );
    };
    println!(
        "FIGURE soak: {files} files, {kills} kills, {reshards} reshards, {} dead letters, {:.0} s",
        died.len(),
        started.elapsed().as_secs_f64()
    );

    let is_missing = |letter: &&(String, String)| letter.1.starts_with("SourceMissing");
    let missing: Vec<_> = died.iter().filter(is_missing).cloned().collect();
    // An announcement that a slow worker receives once more after its source was deleted is a dead letter beside the restored file:
    // without a journal nothing at the source's side knows of that.
    let lost = count_lost(&soak, &soak.restored(), &missing);
    assert_eq!(lost as u64, REMOVED, "{missing:?}");
    for file in 1..=REMOVED {
        soak.write(file, 1);
    }
    redrive_until_restored(&mut soak, &died).await;
    eventually("all receipts are taken", async || {
        queues_empty(&soak.cloud.fake_aws)
    })
    .await;
    // All at once, as a rollout does: each waits for its last long poll.
    futures::future::join_all(workers.into_iter().map(TestWorker::drain)).await;
    let restored = soak.pipeline.restored().expect("listed");
    for (name, versions) in &soak.expected {
        assert_eq!(
            restored.get(name),
            versions.last(),
            "{name} is not the version announced last"
        );
    }
    assert_eq!(restored.len(), soak.expected.len());
    for (name, commits) in soak.pipeline.commits() {
        let versions = soak.expected[&name].len() as u64;
        let file = number_in(&name);
        let mut in_order = (1..=versions).map(|version| modified(file, version));
        let is_in_order = commits
            .iter()
            .all(|commit| in_order.any(|modified| modified == *commit));
        assert!(
            is_in_order,
            "{name} became visible twice or out of order: {commits:?}"
        );
    }
    // Those that were put back too: they have the time and the bytes of before.
    assert_eq!(soak.pipeline.left().expect("listed"), BTreeSet::new());
    assert_policy_allows(&soak.cloud.fake_aws.called());
}

/// This test makes every call that workers make, also under faults: the policy for users must allow them all.
fn assert_policy_allows(called: &[String]) {
    let policy = include_str!("../deploy/aws/workers-policy.json");
    let policy: serde_json::Value = serde_json::from_str(policy).expect("JSON");
    let allowed: Vec<&str> = policy["Statement"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|statement| statement["Action"].as_array().into_iter().flatten())
        .filter_map(|action| action.as_str()?.split_once(':').map(|(_, name)| name))
        .collect();
    for action in called {
        // IAM has one name for a call and its batch.
        let name = action.trim_end_matches("Batch");
        assert!(
            allowed.contains(&name),
            "deploy/aws/workers-policy.json does not allow {name}"
        );
    }
}

/// Bodies and reasons of all dead letters.
fn dead_letters(fake_aws: &FakeAws) -> Vec<(String, String)> {
    let sqs = fake_aws.sqs();
    let letters = ["files-dlq.fifo", "chunks-dlq.fifo"]
        .into_iter()
        .flat_map(|name| sqs.peek(name));
    letters
        .map(|(body, attributes)| {
            let value = |name: &str| {
                attributes[name]["StringValue"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            };
            (
                body,
                format!("{} {}", value(ATTR_REASON), value(ATTR_DETAIL)),
            )
        })
        .collect()
}

/// PipelineNames that are not up to date and whose newest version is a dead letter.
fn count_lost(soak: &Soak, restored: &RestoredFiles, dead: &[(String, String)]) -> usize {
    let lost = |name: &String, versions: &Vec<Digest>| {
        restored.get(name) != versions.last()
            && dead
                .iter()
                .any(|(body, _)| file_hash(body).as_ref() == versions.last())
    };
    soak.expected
        .iter()
        .filter(|(name, versions)| lost(name, versions))
        .count()
}

fn file_hash(body: &str) -> Option<Digest> {
    let message = Message::parse(body).ok()?;
    Some(message.file()?.hash.clone())
}

fn queues_empty(fake_aws: &FakeAws) -> bool {
    let sqs = fake_aws.sqs();
    sqs.len(FILES) == 0 && sqs.len(CHUNKS) == 0 && sqs.len(RECEIPTS) == 0
}

fn describe(fake_aws: &FakeAws) -> String {
    let sqs = fake_aws.sqs();
    format!(
        "{} file messages, {} chunk messages, most received {} and {} times",
        sqs.len(FILES),
        sqs.len(CHUNKS),
        sqs.most_receives(FILES),
        sqs.most_receives(CHUNKS)
    )
}

/// Every dead letter has a reason, and a redrive within five minutes of the failure restores all files.
async fn redrive_until_restored(soak: &mut Soak, died: &[(String, String)]) {
    for (_, reason) in died {
        println!("dead letter: {reason}");
    }
    for (body, reason) in died {
        assert!(reason.len() > 3, "a dead letter without a reason: {body}");
    }
    soak.cloud.fake_aws.set_faults(Faults::default());
    let aws = connect(&soak.cloud.fake_aws.url).await;
    let files_queue = aws.queue(FILES, LONG).await.expect("opens");
    assert_poison_was_tried_once(&files_queue).await;
    let connections = CompressorConnections {
        files_queue: Arc::new(files_queue),
        chunks_queue: Arc::new(aws.queue(CHUNKS, LONG).await.expect("opens")),
        receipts_queue: Some(Arc::new(aws.queue(RECEIPTS, LONG).await.expect("opens"))),
        stream: Arc::new(aws.stream(STREAM).await.expect("opens")),
    };
    let redriven = redrive(&connections, &soak.announcer, &RedriveRequest::default())
        .await
        .all()
        .expect("redriven");
    println!("FIGURE redriven: {} dead letters", redriven.len());
    eventually("all files are restored after the redrive", async || {
        soak.up_to_date(&soak.restored()) == soak.expected.len()
    })
    .await;
}

/// Removes the poison message from the dead letters: redriven, it would only fail again.
async fn assert_poison_was_tried_once(files_queue: &SqsQueue) {
    let dead = files_queue.dead_letters().expect("wired");
    let (mut others, mut poison) = (Vec::new(), 0);
    loop {
        let letters = dead
            .receive(10, Duration::from_millis(500))
            .await
            .expect("received");
        if letters.is_empty() {
            break;
        }
        for letter in letters {
            if letter.body != POISON {
                others.push(letter.receipt);
                continue;
            }
            poison += 1;
            let reason = letter.attributes.get(ATTR_REASON).map(String::as_str);
            assert_eq!(reason, Some("UnreadableMessage"));
            dead.delete(&letter.receipt).await.expect("deleted");
        }
    }
    for receipt in others {
        dead.release(&receipt).await.expect("released");
    }
    assert_eq!(poison, 1);
}
