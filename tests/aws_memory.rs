//! Memory stays within a budget in bytes, however much waits and however large a file is: 64 MiB and 16 blocks a worker
//! slot at effort balanced. Workers run from the program itself, each in a cgroup that would end it above the budget.
//! Needs root for the cgroups, and an optimised build for its time:
//! `cargo test --release -p streampress-tests --features aws --test aws_memory -- --ignored --nocapture --test-threads 1`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use futures::{StreamExt, stream};
use streampress::roles::announce::AnnouncementFormat;
use streampress::roles::announce::Announcer;
use streampress_tests::aws::Cloud;
use streampress_tests::desk::{Desk, Running};
use streampress_transport::FileName;
use streampress_transport::local::files::LocalFiles;

const PROGRAM: &str = env!("CARGO_BIN_EXE_streampress-program");
const MIB: u64 = 1 << 20;
/// The default of `codec.blockSize`.
const BLOCK_BYTES: u64 = 4 * MIB;
/// A worker has one slot.
const BUDGET_BYTES: u64 = 64 * MIB + 16 * BLOCK_BYTES;

/// A cgroup with a limit, removed when dropped.
struct Group(PathBuf);

impl Group {
    /// Below the root of the memory controller, in either version of cgroups.
    fn new(name: &str) -> Self {
        let name = format!("streampress-memory-{}-{name}", std::process::id());
        let (path, limit) = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            (Path::new("/sys/fs/cgroup").join(name), "memory.max")
        } else {
            let path = Path::new("/sys/fs/cgroup/memory").join(name);
            (path, "memory.limit_in_bytes")
        };
        fs::create_dir(&path).expect("a cgroup can be made; run this as root");
        let group = Self(path);
        fs::write(group.0.join(limit), BUDGET_BYTES.to_string()).expect("limits can be set");
        group
    }

    fn processes(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its processes may take a moment to be gone.
        for _ in 0..50 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The most memory that a process ever had resident, in bytes.
fn high_water(worker: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", worker.id()));
    let status = status.expect("the worker is still alive, so the limit was not reached");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.expect("the kernel says it in kB") * 1024
}

struct Bench {
    cloud: Cloud,
    desk: Desk,
    announcer: Announcer,
    // Declared after nothing that runs in them: workers are gone first.
    groups: [Group; 2],
}

impl Bench {
    async fn new() -> Self {
        let cloud = Cloud::start().await;
        let spec = "  codec: {effort: Balanced}\n  report: {enabled: false}";
        let desk = Desk::new(PROGRAM, &cloud.fake_aws.url, "memory", spec);
        desk.run(&["setup", "pipeline.yaml"]).well();
        let source = LocalFiles::open("file:///data/in", &desk.data("in")).expect("opens");
        let queue = cloud
            .aws
            .queue("memory-files.fifo", Duration::from_secs(60));
        let announcer = Announcer {
            source: std::sync::Arc::new(source),
            files_queue: std::sync::Arc::new(queue.await.expect("opens")),
            strict: false,
            dialect: AnnouncementFormat::Native,
            journal: None,
        };
        Self {
            cloud,
            desk,
            announcer,
            groups: ["compressor", "decompressor"].map(Group::new),
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
        let entry = self.announcer.source.stat(name).expect("looked");
        let entry = entry.expect("there");
        self.announcer.announce(&entry).await.expect("announced");
    }

    /// Works until `files` are restored; the most that compressor and decompressor had.
    async fn work(&self, what: &str, files: usize) {
        let began = Instant::now();
        let [compress, decompress] = [("compress", 0), ("decompress", 1)].map(|(role, group)| {
            let processes = self.groups[group].processes();
            let args = [role, "pipeline.yaml", "--aws"];
            self.desk
                .start_within(&processes, &format!("{role}.log"), &args)
        });
        let out = self.desk.data("out");
        let restored = || {
            let names = fs::read_dir(&out).into_iter().flatten().flatten();
            let whole = |name: String| !name.contains(".streampress-");
            names
                .filter(|entry| whole(entry.file_name().to_string_lossy().into()))
                .count()
        };
        while restored() < files {
            // Fails when one of them is gone.
            high_water(&compress);
            high_water(&decompress);
            assert!(
                began.elapsed() < Duration::from_secs(3600),
                "{} of {files}",
                restored()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let most = [high_water(&compress), high_water(&decompress)];
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

/// Rows as a stock market would write them.
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
async fn ten_thousand_files_that_wait_take_no_more_than_a_few() {
    let bench = Bench::new().await;
    let names: Vec<FileName> = (0..10_000u64)
        .map(|number| {
            bench.write(
                &format!("{number}.json"),
                std::iter::once(rows(number, 2000)),
            )
        })
        .collect();
    stream::iter(&names)
        .for_each_concurrent(32, |name| bench.announce(name))
        .await;
    assert_eq!(bench.cloud.fake_aws.sqs().len("memory-files.fifo"), 10_000);
    bench.work("10,000 queued files", 10_000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes, root and an optimised build; tests/run --long runs it"]
async fn a_file_of_a_gibibyte_takes_no_more_than_a_small_one() {
    let bench = Bench::new().await;
    let parts = (0..256).map(|seed| rows(seed, 4 << 20));
    let name = bench.write("large.json", parts);
    bench.announce(&name).await;
    bench.work("one file of 1 GiB", 1).await;
}
