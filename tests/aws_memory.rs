//! Memory stays within a budget however many files wait and however large a file is: 64 MiB and 16 blocks a worker slot
//! at effort balanced. Each worker is a process in a cgroup that kills it above the budget. Needs root for the cgroups
//! and a release build to finish in minutes; `tests/run --long` runs it.

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use futures::{StreamExt, stream};
use streampress::journal::NoJournal;
use streampress::roles::announce::AnnouncementFormat;
use streampress::roles::announce::Announcer;
use streampress_tests::aws::Cloud;
use streampress_tests::cgroup::{Cgroup, peak_memory};
use streampress_tests::eventually;
use streampress_tests::sandbox::Sandbox;
use streampress_transport::FileName;
use streampress_transport::local::files::LocalFiles;

const PROGRAM: &str = env!("CARGO_BIN_EXE_streampress-program");
const MIB: u64 = 1 << 20;
/// The default of `codec.blockSize`.
const BLOCK_BYTES: u64 = 4 * MIB;
/// A worker has one slot.
const BUDGET_BYTES: u64 = 64 * MIB + 16 * BLOCK_BYTES;

struct MemoryFixture {
    cloud: Cloud,
    sandbox: Sandbox,
    announcer: Announcer,
    groups: [Cgroup; 2],
}

impl MemoryFixture {
    async fn new() -> Self {
        let cloud = Cloud::start().await;
        let spec = "  codec: {effort: Balanced}\n  report: {enabled: false}";
        let sandbox = Sandbox::new(PROGRAM, &cloud.fake_aws.url, "memory", spec);
        sandbox.run(&["setup", "pipeline.yaml"]).success();
        let source = LocalFiles::open("file:///data/in", &sandbox.data("in")).expect("opens");
        let queue = cloud
            .aws
            .queue("memory-files.fifo", Duration::from_secs(60));
        let announcer = Announcer {
            source: std::sync::Arc::new(source),
            files_queue: std::sync::Arc::new(queue.await.expect("opens")),
            strict: false,
            format: AnnouncementFormat::Native,
            journal: std::sync::Arc::new(NoJournal),
        };
        Self {
            cloud,
            sandbox,
            announcer,
            groups: ["compressor", "decompressor"].map(|name| Cgroup::new(name, BUDGET_BYTES)),
        }
    }

    fn write(&self, name: &str, parts: impl Iterator<Item = Vec<u8>>) -> FileName {
        let name = FileName::parse(name).expect("a good name");
        let mut pending = self.announcer.source.create(&name).expect("begun");
        for part in parts {
            pending.write_all(&part).expect("written");
        }
        pending.commit(SystemTime::now()).expect("visible");
        name
    }

    async fn announce(&self, name: &FileName) {
        let entry = self.announcer.source.stat(name).expect("readable");
        let entry = entry.expect("there");
        self.announcer.announce(&entry).await.expect("announced");
    }

    /// Runs a compressor and a decompressor until `files` are restored and checks their peak memory.
    async fn work(&self, what: &str, files: usize) {
        let began = Instant::now();
        let [compress, decompress] = [("compress", 0), ("decompress", 1)].map(|(role, group)| {
            let processes = self.groups[group].processes();
            let args = [role, "pipeline.yaml", "--aws"];
            self.sandbox
                .start_within(&processes, &format!("{role}.log"), &args)
        });
        let out = self.sandbox.data("out");
        let restored = || {
            let names = fs::read_dir(&out).into_iter().flatten().flatten();
            let whole = |name: String| !name.contains(".streampress-");
            names
                .filter(|entry| whole(entry.file_name().to_string_lossy().into()))
                .count()
        };
        // A large file takes minutes: what must not stop is the traffic on the stream.
        let progress = || {
            let counts = self.cloud.fake_aws.kinesis().counts;
            counts.bytes_in + counts.bytes_out + restored() as u64
        };
        while restored() < files {
            let before = progress();
            eventually("work progresses", async || {
                // Fails if one of them was killed.
                peak_memory(&compress);
                peak_memory(&decompress);
                restored() == files || progress() > before
            })
            .await;
        }
        let most = [peak_memory(&compress), peak_memory(&decompress)];
        println!(
            "FIGURE memory, {what}: compressor {:.1} MiB, decompressor {:.1} MiB at most (budget {} MiB), {:.0} s",
            most[0] as f64 / MIB as f64,
            most[1] as f64 / MIB as f64,
            BUDGET_BYTES / MIB,
            began.elapsed().as_secs_f64()
        );
        assert!(most.iter().all(|bytes| *bytes <= BUDGET_BYTES), "{most:?}");
        assert_eq!((compress.stop(), decompress.stop()), (Some(0), Some(0)));
    }
}

/// Made-up trades.
fn rows(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rows = Vec::with_capacity(bytes + 100);
    while rows.len() < bytes {
        let row = format!(
            "{{\"symbol\":\"S{:03}\",\"price\":{}.{:02},\"volume\":{},\"note\":\"{:x}\"}}\n",
            random.u32(0..300),
            random.u32(1..900),
            random.u32(0..100),
            random.u32(1..100_000),
            random.u64(..)
        );
        rows.extend_from_slice(row.as_bytes());
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes, root and an optimised build; tests/run --long runs it"]
async fn ten_thousand_waiting_files_stay_within_the_memory_budget() {
    let fixture = MemoryFixture::new().await;
    let names: Vec<FileName> = (0..10_000u64)
        .map(|number| {
            fixture.write(
                &format!("{number}.json"),
                std::iter::once(rows(number, 2000)),
            )
        })
        .collect();
    stream::iter(&names)
        .for_each_concurrent(32, |name| fixture.announce(name))
        .await;
    assert_eq!(
        fixture.cloud.fake_aws.sqs().len("memory-files.fifo"),
        10_000
    );
    fixture.work("10,000 queued files", 10_000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes, root and an optimised build; tests/run --long runs it"]
async fn a_file_of_a_gibibyte_stays_within_the_memory_budget() {
    let fixture = MemoryFixture::new().await;
    let parts = (0..256).map(|seed| rows(seed, 4 << 20));
    let name = fixture.write("large.json", parts);
    fixture.announce(&name).await;
    fixture.work("one file of 1 GiB", 1).await;
}
