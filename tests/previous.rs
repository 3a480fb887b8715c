//! This program beside that of the release before, on one data folder and on one AWS: a decompressor of the one restores what a
//! compressor of the other packs, receipts come back, and either goes on where the other was killed. `tests/previous` builds the
//! program of before, and says which release that is; messages and records of before are read in `streampress::message`. What
//! needs the program of before with AWS (`tests/previous --all`, minutes of building) is ignored by default, and run by
//! `tests/run --long`. Operators and workers of both are in `operator_e2e`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use streampress_tests::aws::Cloud;
use streampress_tests::eventually_blocking;
use tokio::runtime::Runtime;

const THIS: &str = env!("CARGO_BIN_EXE_streampress-program");
/// Several blocks and records of a file.
const SMALL_BLOCKS: &str = "  codec: {blockSize: 64Ki, recordSize: 16Ki}";
/// What the source deletes was confirmed by a receipt.
const WITH_RECEIPTS: &str = "  source: {onRestored: Delete, writersRename: true, settleSeconds: 1}\n  codec: {blockSize: 64Ki, recordSize: 16Ki}";

type FilesByName = BTreeMap<String, Vec<u8>>;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Release {
    Before,
    This,
}

/// Each one first, the other second.
const BOTH_WAYS: [(Release, Release); 2] = [
    (Release::Before, Release::This),
    (Release::This, Release::Before),
];

/// Where the queues and the stream are that both releases use.
#[derive(Clone, Copy, Debug)]
enum Transport {
    DataFolder,
    FakeAws,
}

impl Transport {
    /// What `/data` stands for.
    fn root(self) -> &'static str {
        match self {
            Transport::DataFolder => "data",
            Transport::FakeAws => "streampress-data/both",
        }
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Transport::DataFolder => &["--data", "data"],
            Transport::FakeAws => &["--aws"],
        }
    }

    fn program(self, release: Release) -> PathBuf {
        let before = |variable| PathBuf::from(std::env::var_os(variable).expect(variable));
        match (release, self) {
            (Release::This, _) => THIS.into(),
            // STREAMPRESS_PREVIOUS=$(tests/previous)
            (Release::Before, Transport::DataFolder) => before("STREAMPRESS_PREVIOUS"),
            // STREAMPRESS_PREVIOUS_ALL=$(tests/previous --all)
            (Release::Before, Transport::FakeAws) => {
                before("STREAMPRESS_PREVIOUS_ALL").join("streampress")
            }
        }
    }
}

/// A fake AWS, and what it runs on.
struct RunningAws {
    _runtime: Runtime,
    cloud: Cloud,
}

impl RunningAws {
    fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let cloud = runtime.block_on(Cloud::start());
        Self {
            _runtime: runtime,
            cloud,
        }
    }

    /// YAML of the queues and the stream.
    fn spec(&self) -> String {
        let url = &self.cloud.fake_aws.url;
        let queue = |field: &str, name: &str| format!("    {field}: {{name: both-{name}.fifo}}\n");
        let queues = [
            ("filesQueue", "files"),
            ("chunksQueue", "chunks"),
            ("receiptsQueue", "receipts"),
        ];
        let queues: String = queues.map(|(field, name)| queue(field, name)).concat();
        format!(
            "  aws: {{endpointURL: \"{url}\"}}\n  transport:\n    stream: {{name: both-stream}}\n{queues}"
        )
    }
}

/// A folder with a pipeline's YAML and its data, and a fake AWS where the transport is there.
struct SharedFolder {
    folder: tempfile::TempDir,
    transport: Transport,
    aws: Option<RunningAws>,
}

impl SharedFolder {
    /// `spec` is YAML below `spec:`, indented by two spaces.
    fn new(transport: Transport, spec: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let aws = match transport {
            Transport::DataFolder => None,
            Transport::FakeAws => Some(RunningAws::start()),
        };
        let place = aws.as_ref().map(RunningAws::spec).unwrap_or_default();
        let yaml = format!(
            "apiVersion: streampress.dev/v1alpha1\nkind: CompressionPipeline\nmetadata: {{name: both}}\nspec:\n{place}{spec}\n"
        );
        fs::write(folder.path().join("pipeline.yaml"), yaml).expect("the YAML can be written");
        let shared = Self {
            folder,
            transport,
            aws,
        };
        if shared.aws.is_some() {
            // Each finds what the other made as it would make it.
            for release in [Release::Before, Release::This, Release::Before] {
                let setup = shared.start_with(release, "setup", &["pipeline.yaml"], &[]);
                setup.succeeds();
            }
        }
        shared
    }

    fn source(&self) -> String {
        format!("{}/in", self.transport.root())
    }

    fn destination(&self) -> String {
        format!("{}/out", self.transport.root())
    }

    /// Makes messages visible that a killed worker had received.
    fn let_receives_expire(&self) {
        if let Some(aws) = &self.aws {
            aws.cloud.fake_aws.advance(Duration::from_secs(65));
        }
    }

    /// Files as users have them, large and small.
    fn fill(&self, folder: &str) -> FilesByName {
        let mut files = FilesByName::new();
        for number in 0..40 {
            let rows =
                (0..=number * 40).map(|row| format!("{row},sensor-{},{}.5\n", row % 7, row * 3));
            let rows: String = rows.collect();
            files.insert(
                format!("csv/{number}.csv"),
                format!("id,name,value\n{rows}").into(),
            );
        }
        let object = |id: u32| format!("{{\"id\": {id}, \"name\": \"stock {}\"}}", id % 9);
        let objects: Vec<_> = (0..5000).map(object).collect();
        files.insert(
            "large.json".into(),
            format!("[{}]", objects.join(", ")).into(),
        );
        files.insert("empty.txt".into(), Vec::new());
        self.write(folder, &files);
        files
    }

    fn write(&self, folder: &str, files: &FilesByName) {
        for (name, content) in files {
            let path = self.folder.path().join(folder).join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("folders can be made");
            fs::write(path, content).expect("a file can be written");
        }
    }

    fn rename(&self, from: &str, to: &str) {
        let path = |name: &str| self.folder.path().join(name);
        fs::rename(path(from), path(to)).expect("it can be renamed");
    }

    fn files(&self, folder: &str) -> FilesByName {
        let mut found = FilesByName::new();
        collect(&self.folder.path().join(folder), "", &mut found);
        found
    }

    /// Starts the command on the data and the transport of both.
    fn start(&self, release: Release, command: &str, args: &[&str]) -> ReleaseProcess {
        self.start_with(release, command, args, self.transport.options())
    }

    fn start_with(
        &self,
        release: Release,
        command: &str,
        args: &[&str],
        options: &[&str],
    ) -> ReleaseProcess {
        let log = self
            .folder
            .path()
            .join(format!("{release:?}-{command}.log"));
        let child = Command::new(self.transport.program(release))
            .current_dir(self.folder.path())
            .arg(command)
            .args(args)
            .args(options)
            .env_clear()
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).expect("a log"))
            .spawn()
            .expect("the program starts");
        ReleaseProcess { child, log }
    }
}

/// Without what is reserved or unfinished.
fn collect(folder: &Path, prefix: &str, found: &mut FilesByName) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        let base = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if base.contains(".streampress") {
            continue;
        }
        let name = format!("{prefix}{base}");
        if path.is_dir() {
            collect(&path, &format!("{name}/"), found);
        } else if let Ok(content) = fs::read(&path) {
            // What a worker renamed or deleted just now is no file.
            found.insert(name, content);
        }
    }
}

/// Killed when dropped, which is how a program ends whose machine fails.
struct ReleaseProcess {
    child: Child,
    log: PathBuf,
}

impl ReleaseProcess {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The processor time in seconds that it has taken.
    fn processor_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        // After the name, which may have spaces: user and system time are the 14th and 15th field.
        let (_, fields) = stat.rsplit_once(") ").expect("a name");
        let fields = fields.split(' ').skip(11).take(2);
        let ticks: u64 = fields
            .map(|ticks| ticks.parse::<u64>().expect("a number"))
            .sum();
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64
    }

    fn succeeds(mut self) {
        let status = self.child.wait().expect("it ends");
        let log = self.log();
        assert!(status.success(), "{}: {log}", self.log.display());
    }
}

impl Drop for ReleaseProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PIPELINE: &[&str] = &["pipeline.yaml"];

/// Announces files of the source.
fn submit(shared: &SharedFolder, release: Release, files: &FilesByName, options: &[&str]) {
    let source = shared.source();
    let paths: Vec<String> = files
        .keys()
        .map(|name| format!("{source}/{name}"))
        .collect();
    let paths = paths.iter().map(String::as_str);
    let args: Vec<&str> = paths.chain(["-p", "pipeline.yaml"]).collect();
    let submit = shared.start(release, "submit", &[&args, options].concat());
    submit.succeeds();
}

/// Announces files of the source and waits until all are restored.
fn submit_and_wait(shared: &SharedFolder, release: Release, files: &FilesByName) {
    submit(shared, release, files, &["--wait"]);
}

fn one_restores_what_another_packs(transport: Transport) {
    for (compressor, decompressor) in BOTH_WAYS {
        for submitter in [Release::Before, Release::This] {
            let shared = SharedFolder::new(transport, WITH_RECEIPTS);
            let files = shared.fill(&shared.source());
            let _compress = shared.start(compressor, "compress", PIPELINE);
            let _decompress = shared.start(decompressor, "decompress", PIPELINE);
            submit_and_wait(&shared, submitter, &files);
            let restored = shared.files(&shared.destination());
            assert_eq!(restored, files, "{compressor:?} first");
            eventually_blocking("receipts delete the source's files", || {
                shared.files(&shared.source()).is_empty()
            });
        }
    }
}

fn one_goes_on_where_another_was_killed(transport: Transport) {
    for (first, second) in BOTH_WAYS {
        let shared = SharedFolder::new(transport, SMALL_BLOCKS);
        let files = shared.fill("source");
        let run = ["pipeline.yaml", "--input", "source"];
        let killed = shared.start(first, "run", &run);
        eventually_blocking("files are restored", || {
            !shared.files(&shared.destination()).is_empty()
        });
        drop(killed);
        shared.let_receives_expire();
        shared.start(second, "run", &run).succeeds();
        let restored = shared.files(&shared.destination());
        assert_eq!(restored, files, "{first:?} first");
    }
}

fn workers_of_both_share_the_slots(transport: Transport) {
    let shared = SharedFolder::new(transport, WITH_RECEIPTS);
    let files = shared.fill(&shared.source());
    let _workers = BOTH_WAYS.map(|(release, _)| {
        let compress = shared.start(release, "compress", PIPELINE);
        (compress, shared.start(release, "decompress", PIPELINE))
    });
    submit_and_wait(&shared, Release::This, &files);
    assert_eq!(shared.files(&shared.destination()), files);
}

/// A source that one does not find becomes a dead letter, which the other lists and sends again.
fn one_redrives_what_another_set_aside(transport: Transport) {
    for (first, second) in BOTH_WAYS {
        let shared = SharedFolder::new(transport, SMALL_BLOCKS);
        let files = FilesByName::from([("late.csv".into(), b"a,b\n1,2\n".to_vec())]);
        let (source, aside) = (shared.source() + "/late.csv", "aside");
        shared.write(&shared.source(), &files);
        submit(&shared, first, &files, &[]);
        shared.rename(&source, aside);
        let compress = shared.start(first, "compress", PIPELINE);
        eventually_blocking("it is a dead letter", || {
            compress.log().contains("SourceMissing")
        });
        drop(compress);
        shared.let_receives_expire();
        shared.rename(aside, &source);
        let _compress = shared.start(second, "compress", PIPELINE);
        let _decompress = shared.start(second, "decompress", PIPELINE);
        eventually_blocking("it is sent again", || {
            shared.start(second, "redrive", PIPELINE).succeeds();
            shared.files(&shared.destination()) == files
        });
    }
}

/// Versions that both restored in turn replace each other: neither takes the other's bytes for those of a stranger.
fn versions_of_both_replace_each_other(transport: Transport) {
    for (first, second) in BOTH_WAYS {
        let shared = SharedFolder::new(transport, SMALL_BLOCKS);
        for (number, release) in [first, second, first].into_iter().enumerate() {
            let content = format!("version {number}\n").repeat(1000 * (number + 1));
            let files = FilesByName::from([("stock.txt".into(), content.into_bytes())]);
            shared.write(&shared.source(), &files);
            let _compress = shared.start(release, "compress", PIPELINE);
            let _decompress = shared.start(release, "decompress", PIPELINE);
            submit_and_wait(&shared, release, &files);
            assert_eq!(
                shared.files(&shared.destination()),
                files,
                "{first:?} first"
            );
        }
        let displaced = shared.destination() + "/.streampress/displaced";
        assert_eq!(shared.files(&displaced), FilesByName::new());
    }
}

#[test]
fn one_release_makes_the_queues_anew_from_the_stream_of_another() {
    for (first, second) in BOTH_WAYS {
        let shared = SharedFolder::new(Transport::DataFolder, SMALL_BLOCKS);
        let files = shared.fill(&shared.source());
        submit(&shared, first, &files, &[]);
        let compress = shared.start(first, "compress", PIPELINE);
        eventually_blocking("all files are packed", || {
            compress.log().matches("File compressed").count() == files.len()
        });
        drop(compress);
        for name in ["streampress.db", "streampress.db-wal", "streampress.db-shm"] {
            let _ = fs::remove_file(shared.folder.path().join("data").join(name));
        }
        shared.start(second, "recover", PIPELINE).succeeds();
        let _decompress = shared.start(second, "decompress", PIPELINE);
        eventually_blocking("all files are restored", || {
            shared.files(&shared.destination()) == files
        });
    }
}

#[test]
fn one_release_sends_again_what_another_set_aside() {
    one_redrives_what_another_set_aside(Transport::DataFolder);
}

#[test]
fn versions_that_both_releases_restored_replace_each_other() {
    versions_of_both_replace_each_other(Transport::DataFolder);
}

#[test]
#[ignore = "needs tests/previous --all: tests/run --long"]
fn on_aws_one_release_sends_again_what_another_set_aside() {
    one_redrives_what_another_set_aside(Transport::FakeAws);
}

#[test]
#[ignore = "needs tests/previous --all: tests/run --long"]
fn on_aws_versions_that_both_releases_restored_replace_each_other() {
    versions_of_both_replace_each_other(Transport::FakeAws);
}

#[test]
fn one_release_restores_what_another_packs_and_its_receipts_are_taken() {
    one_restores_what_another_packs(Transport::DataFolder);
}

#[test]
fn one_release_goes_on_where_another_was_killed() {
    one_goes_on_where_another_was_killed(Transport::DataFolder);
}

#[test]
fn workers_of_both_releases_share_the_slots_of_a_pipeline() {
    workers_of_both_share_the_slots(Transport::DataFolder);
}

#[test]
#[ignore = "needs tests/previous --all: tests/run --long"]
fn on_aws_one_release_restores_what_another_packs_and_its_receipts_are_taken() {
    one_restores_what_another_packs(Transport::FakeAws);
}

#[test]
#[ignore = "needs tests/previous --all: tests/run --long"]
fn on_aws_one_release_goes_on_where_another_was_killed() {
    one_goes_on_where_another_was_killed(Transport::FakeAws);
}

#[test]
#[ignore = "needs tests/previous --all: tests/run --long"]
fn on_aws_workers_of_both_releases_share_the_queues_of_a_pipeline() {
    workers_of_both_share_the_slots(Transport::FakeAws);
}

/// Printed and not asserted, because they depend on the machine: files per second, and how long a lone file takes.
#[test]
#[ignore = "needs tests/previous --all: tests/run --long"]
fn on_aws_figures_beside_the_release_before() {
    const FILES: u32 = 1000;
    let mut seconds = [const { Vec::new() }; 2];
    let mut packing = [const { Vec::new() }; 2];
    let mut restoring = [const { Vec::new() }; 2];
    let mut latencies = [const { Vec::new() }; 2];
    for round in 0..6 {
        // In alternating order, so that a machine that grows slower harms neither.
        let release = BOTH_WAYS[(round + round / 2) % 2].0;
        let shared = SharedFolder::new(Transport::FakeAws, "  source: {settleSeconds: 1}");
        let files: FilesByName = (0..FILES).map(ten_kib).collect();
        shared.write(&shared.source(), &files);
        submit(&shared, release, &files, &[]);
        let began = Instant::now();
        let compress = shared.start(release, "compress", PIPELINE);
        let decompress = shared.start(release, "decompress", PIPELINE);
        eventually_blocking("all files are restored", || {
            shared.files(&shared.destination()).len() == files.len()
        });
        seconds[release as usize].push(began.elapsed().as_secs_f64());
        packing[release as usize].push(compress.processor_seconds());
        restoring[release as usize].push(decompress.processor_seconds());
        assert_eq!(shared.files(&shared.destination()), files);
        for number in FILES..FILES + 10 {
            latencies[release as usize].push(time_of_a_lone_file(&shared, release, number));
        }
    }
    for release in [Release::Before, Release::This] {
        let of = |times: &mut Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        println!(
            "FIGURE {release:?}: {FILES} files of 10 KiB on the fake AWS, median of 3: {:.0} files/s, processor time {:.2} s to pack and {:.2} s to restore; a lone file, submitted to restored, median: {:.3} s",
            f64::from(FILES) / of(&mut seconds[release as usize]),
            of(&mut packing[release as usize]),
            of(&mut restoring[release as usize]),
            of(&mut latencies[release as usize]),
        );
    }
}

/// Rows of one schema.
fn ten_kib(number: u32) -> (String, Vec<u8>) {
    let mut random = fastrand::Rng::with_seed(number.into());
    let row = |id: u32| {
        let (price, stock) = (random.u32(100..90_000), random.u32(0..500));
        format!(
            "{id},sensor-{},{}.{:02},{stock}\n",
            id % 7,
            price / 100,
            price % 100
        )
    };
    let rows: String = (0..450).map(row).collect();
    (
        format!("{number}.csv"),
        format!("id,name,price,stock\n{rows}").into(),
    )
}

/// Seconds from the end of `submit` until the file is at the destination.
fn time_of_a_lone_file(shared: &SharedFolder, release: Release, number: u32) -> f64 {
    let (name, content) = ten_kib(number);
    let restored = shared.folder.path().join(shared.destination()).join(&name);
    let files = FilesByName::from([(name, content)]);
    shared.write(&shared.source(), &files);
    submit(shared, release, &files, &[]);
    let began = Instant::now();
    while !restored.exists() {
        // The time until then is what is measured: looking more often would take from it.
        std::thread::sleep(Duration::from_millis(1));
    }
    began.elapsed().as_secs_f64()
}
