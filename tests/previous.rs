//! This program beside that of the release before, on one data folder: a decompressor of the one restores what a compressor of the
//! other packs, receipts come back, and either goes on where the other was killed. `tests/previous` builds the program of
//! before, and says which release that is; messages and records of before are read in `streampress::message`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use streampress_tests::eventually_blocking;

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

impl Release {
    fn program(self) -> PathBuf {
        match self {
            Release::This => THIS.into(),
            Release::Before => std::env::var_os("STREAMPRESS_PREVIOUS")
                .expect("STREAMPRESS_PREVIOUS=$(tests/previous)")
                .into(),
        }
    }
}

/// A folder with a pipeline's YAML and its data.
struct SharedFolder {
    folder: tempfile::TempDir,
}

impl SharedFolder {
    /// `spec` is YAML below `spec:`, indented by two spaces.
    fn new(spec: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let yaml = format!(
            "apiVersion: streampress.dev/v1alpha1\nkind: CompressionPipeline\nmetadata: {{name: both}}\nspec:\n{spec}\n"
        );
        fs::write(folder.path().join("pipeline.yaml"), yaml).expect("the YAML can be written");
        Self { folder }
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
        for (name, content) in &files {
            let path = self.folder.path().join(folder).join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("folders can be made");
            fs::write(path, content).expect("a file can be written");
        }
        files
    }

    fn files(&self, folder: &str) -> FilesByName {
        let mut found = FilesByName::new();
        collect(&self.folder.path().join(folder), "", &mut found);
        found
    }

    /// Starts the command on the folder `data`.
    fn start(&self, release: Release, command: &str, args: &[&str]) -> ReleaseProcess {
        let log = self
            .folder
            .path()
            .join(format!("{release:?}-{command}.log"));
        let child = Command::new(release.program())
            .current_dir(self.folder.path())
            .arg(command)
            .args(args)
            .args(["--data", "data"])
            .env_clear()
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
    fn succeeds(mut self) {
        let status = self.child.wait().expect("it ends");
        let log = fs::read_to_string(&self.log).unwrap_or_default();
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

/// Announces the files of the source and waits until all are restored.
fn submit(shared: &SharedFolder, release: Release, files: &FilesByName) {
    let paths: Vec<String> = files.keys().map(|name| format!("data/in/{name}")).collect();
    let paths = paths.iter().map(String::as_str);
    let args: Vec<&str> = paths.chain(["-p", "pipeline.yaml", "--wait"]).collect();
    shared.start(release, "submit", &args).succeeds();
}

#[test]
fn one_release_restores_what_another_packs_and_its_receipts_are_taken() {
    for (compressor, decompressor) in BOTH_WAYS {
        for submitter in [Release::Before, Release::This] {
            let shared = SharedFolder::new(WITH_RECEIPTS);
            let files = shared.fill("data/in");
            let _compress = shared.start(compressor, "compress", PIPELINE);
            let _decompress = shared.start(decompressor, "decompress", PIPELINE);
            submit(&shared, submitter, &files);
            assert_eq!(shared.files("data/out"), files, "{compressor:?} first");
            eventually_blocking("receipts delete the source's files", || {
                shared.files("data/in").is_empty()
            });
        }
    }
}

#[test]
fn one_release_goes_on_where_another_was_killed() {
    for (first, second) in BOTH_WAYS {
        let shared = SharedFolder::new(SMALL_BLOCKS);
        let files = shared.fill("source");
        let run = ["pipeline.yaml", "--input", "source"];
        let killed = shared.start(first, "run", &run);
        eventually_blocking("files are restored", || {
            !shared.files("data/out").is_empty()
        });
        drop(killed);
        shared.start(second, "run", &run).succeeds();
        assert_eq!(shared.files("data/out"), files, "{first:?} first");
    }
}

#[test]
fn workers_of_both_releases_share_the_slots_of_a_pipeline() {
    let shared = SharedFolder::new(WITH_RECEIPTS);
    let files = shared.fill("data/in");
    let _workers = BOTH_WAYS.map(|(release, _)| {
        let compress = shared.start(release, "compress", PIPELINE);
        (compress, shared.start(release, "decompress", PIPELINE))
    });
    submit(&shared, Release::This, &files);
    assert_eq!(shared.files("data/out"), files);
}
