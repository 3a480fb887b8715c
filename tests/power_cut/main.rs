//! What a power cut leaves is opened again. A run of the program is recorded call by call; then, at random moments of it, a
//! disk is made as a power cut could have left it there: what was not synced is lost, in part or as a whole and in any
//! order. The program must go on from there as from a kill.
//!
//! Times and extended attributes of files count as lost. SQLite's own files are part of the disk.

mod disk;
mod trace;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use disk::{Disk, Survivors};
use trace::SystemCall;

const PROGRAM: &str = env!("CARGO_BIN_EXE_streampress-program");
/// Power cuts of a recorded run; STREAMPRESS_POWER_CUTS names another number.
const POWER_CUTS: usize = 240;

type Tree = BTreeMap<String, Vec<u8>>;

/// A folder with a pipeline's YAML, and beside it `world` with its data, which loses its power.
struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    /// `spec` is YAML below `spec:`, indented by two spaces.
    fn new(spec: &str) -> Self {
        // The model says what is durable: to wait for a real disk would prove nothing.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let folder = folder.expect("a temporary folder");
        let yaml = format!(
            "apiVersion: streampress.dev/v1alpha1\nkind: CompressionPipeline\nmetadata: {{name: test}}\nspec:\n{spec}\n"
        );
        fs::write(folder.path().join("pipeline.yaml"), yaml).expect("the YAML can be written");
        fs::create_dir(folder.path().join("world")).expect("a folder can be made");
        Self { folder }
    }

    fn world(&self) -> PathBuf {
        self.folder.path().join("world")
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.world().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders can be made");
        fs::write(path, content).expect("a file can be written");
    }

    /// The files below a folder of the world, but for what is reserved.
    fn files(&self, folder: &str) -> Tree {
        let mut found = Tree::new();
        collect(&self.world().join(folder), "", &mut found);
        found.retain(|name, _| !name.contains(".streampress"));
        found
    }

    /// All files below a folder, whatever their names.
    fn contents(&self, folder: &str) -> Vec<Vec<u8>> {
        let mut found = Tree::new();
        collect(&self.world().join(folder), "", &mut found);
        found.into_values().collect()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .current_dir(self.folder.path())
            .arg("run")
            .arg(self.folder.path().join("pipeline.yaml"))
            .arg("--data")
            .arg(self.world())
            .arg("--json")
            .env_clear()
            .stdin(Stdio::null());
        command
    }

    fn run_well(&self) {
        let output = self.command().output().expect("the program starts");
        assert!(output.status.success(), "{}", text_of(&output));
        let summary: Value = serde_json::from_slice(&output.stdout).expect("the summary is JSON");
        for nothing in ["filesFailed", "filesLeftOut", "filesAltered", "filesGone"] {
            assert_eq!(summary[nothing], 0, "{nothing}\n{}", text_of(&output));
        }
    }

    /// Copies the world to where it outlives the test.
    fn keep(&self) -> PathBuf {
        let kept = tempfile::tempdir().expect("a temporary folder").keep();
        for (name, content) in {
            let mut found = Tree::new();
            collect(&self.world(), "", &mut found);
            found
        } {
            let path = kept.join("world").join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("folders can be made");
            fs::write(path, content).expect("a file can be written");
        }
        kept
    }

    /// Makes the world anew.
    fn restore(&self, tree: &BTreeMap<PathBuf, Option<Vec<u8>>>) {
        let world = self.world();
        fs::remove_dir_all(&world).expect("the world can be removed");
        fs::create_dir(&world).expect("a folder can be made");
        for (path, content) in tree {
            let path = world.join(path);
            match content {
                Some(content) => fs::write(path, content).expect("a file can be written"),
                None => fs::create_dir(path).expect("a folder can be made"),
            }
        }
    }
}

fn collect(folder: &Path, prefix: &str, found: &mut Tree) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.map(|entry| entry.expect("a readable folder")) {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        match entry.path().is_dir() {
            true => collect(&entry.path(), &format!("{name}/"), found),
            false => {
                let content = fs::read(entry.path()).expect("a readable file");
                found.insert(name, content);
            }
        }
    }
}

fn text_of(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A few small files, and one of two blocks and several records.
fn write_files(scene: &Scene, folder: &str, seed: u64) -> Tree {
    let mut random = fastrand::Rng::with_seed(seed);
    for (name, lines) in [
        ("a.csv", 3),
        ("deep/er/b.csv", 200),
        ("c.json", 40),
        ("d.txt", 0),
    ] {
        let lines = (0..lines).map(|_| format!("{},{}\n", random.u16(..), random.u64(..)));
        scene.write(&format!("{folder}/{name}"), lines.collect::<String>());
    }
    let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
        .take(80_000)
        .collect();
    scene.write(&format!("{folder}/noise.txt"), noise);
    scene.files(folder)
}

/// Small blocks and records, so that a file has several.
const CODEC: &str = "  codec: {effort: Fast, blockSize: 64Ki, recordSize: 16Ki}";

/// How many power cuts a recorded run gets.
fn power_cuts() -> usize {
    let number = std::env::var("STREAMPRESS_POWER_CUTS");
    number.map_or(POWER_CUTS, |number| number.parse().expect("a number"))
}

/// What tells one disk from another.
fn digest(disk: &BTreeMap<PathBuf, Option<Vec<u8>>>) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for (path, content) in disk {
        let path = path.as_os_str().as_encoded_bytes();
        let kind = if content.is_some() { b'f' } else { b'd' };
        let content = content.as_deref().unwrap_or_default();
        for field in [path, &[kind], content] {
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field);
        }
    }
    hasher.finalize()
}

/// Records a run in the scene, cuts its power many times, and runs it again for each disk that was not tried before.
///
/// `at_once` judges the disk right after the cut, `at_last` when the program has run again with success.
fn cut_power(scene: &Scene, cuts: usize, at_once: impl Fn(&Scene), at_last: impl Fn(&Scene)) {
    let mut disk = Disk::load(&scene.world());
    let log = scene.folder.path().join("strace.log");
    let (status, calls) = trace::record(&scene.command(), &log);
    assert!(status.success(), "the recorded run ended with {status}");
    at_last(scene);
    let writes = calls
        .iter()
        .filter(|it| matches!(it.call, SystemCall::Write { .. }));
    assert!(writes.count() > 50, "the recording has hardly any writes");

    let seed = std::env::var("STREAMPRESS_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut moments: Vec<usize> = (0..cuts).map(|_| random.usize(..=calls.len())).collect();
    moments.sort_unstable();
    let mut done = 0;
    let mut tried = HashSet::new();
    for (number, moment) in moments.into_iter().enumerate() {
        for call in &calls[done..moment] {
            disk.apply(call);
        }
        done = moment;
        let survivors = [
            Survivors::Synced,
            Survivors::All,
            Survivors::Oldest,
            Survivors::Any,
            Survivors::Any,
        ][number % 5];
        let left = disk.after_power_cut(survivors, &mut random);
        if !tried.insert(digest(&left)) {
            continue;
        }
        scene.restore(&left);
        let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            at_once(scene);
            scene.run_well();
            at_last(scene);
        }));
        if let Err(reason) = judged {
            scene.restore(&left);
            let kept = scene.keep();
            eprintln!(
                "power cut {number} with seed {seed}, after call {moment} of {}, {survivors:?} survives; the disk is kept in {}; \
                 not durable: {:#?}",
                calls.len(),
                kept.display(),
                disk.not_durable(),
            );
            std::panic::resume_unwind(reason);
        }
    }
    println!("{cuts} power cuts left {} different disks", tried.len());
}

/// Every visible file of the destination has the content of one of `versions`.
fn assert_whole(scene: &Scene, versions: &[&Tree]) {
    for (name, content) in scene.files("out") {
        let is_whole = versions
            .iter()
            .any(|tree| tree.get(&name) == Some(&content));
        assert!(
            is_whole,
            "{name} is visible with {} bytes of no version",
            content.len()
        );
    }
}

/// The content of each file lies in one of `folders`, under any name.
fn assert_bytes_exist(scene: &Scene, folders: &[&str], files: &Tree) {
    let found: Vec<_> = folders.iter().flat_map(|it| scene.contents(it)).collect();
    for (name, content) in files {
        assert!(
            found.contains(content),
            "the bytes of {name} are gone from {folders:?}"
        );
    }
}

#[test]
fn a_first_run_goes_on_after_a_power_cut() {
    let scene = Scene::new(CODEC);
    let files = write_files(&scene, "in", 1);
    cut_power(
        &scene,
        power_cuts(),
        |scene| assert_whole(scene, &[&files]),
        |scene| {
            assert_eq!(scene.files("out"), files);
            assert_eq!(scene.files("in"), files);
        },
    );
}

#[test]
fn a_run_that_replaces_files_goes_on_after_a_power_cut() {
    let scene = Scene::new(CODEC);
    let old = write_files(&scene, "in", 1);
    scene.run_well();
    let new = write_files(&scene, "in", 2);
    cut_power(
        &scene,
        power_cuts(),
        |scene| {
            assert_whole(scene, &[&old, &new]);
            // A file that was there is there.
            assert_eq!(scene.files("out").len(), old.len());
        },
        |scene| assert_eq!(scene.files("out"), new),
    );
}

#[test]
fn bytes_of_others_in_the_way_survive_a_power_cut() {
    let scene = Scene::new(CODEC);
    let files = write_files(&scene, "in", 1);
    scene.write("out/a.csv", "a user's\n");
    scene.write("out/deep/er/b.csv", "another user's\n");
    let foreign = scene.files("out");
    let foreign_is_kept = |scene: &Scene| {
        let found = scene.contents("out");
        for content in foreign.values() {
            assert!(found.contains(content), "{content:?} is gone");
        }
    };
    cut_power(
        &scene,
        power_cuts(),
        |scene| {
            assert_whole(scene, &[&files, &foreign]);
            foreign_is_kept(scene);
        },
        |scene| {
            assert_eq!(scene.files("out"), files);
            foreign_is_kept(scene);
        },
    );
}

#[test]
fn a_source_is_deleted_only_when_its_restored_copy_survives_a_power_cut() {
    let scene = Scene::new(&format!(
        "{CODEC}\n  source: {{onRestored: Delete, settleSeconds: 0}}"
    ));
    let files = write_files(&scene, "in", 1);
    let all_bytes_exist = |scene: &Scene| assert_bytes_exist(scene, &["in", "out"], &files);
    cut_power(
        &scene,
        power_cuts(),
        |scene| {
            assert_whole(scene, &[&files]);
            all_bytes_exist(scene);
        },
        |scene| {
            assert_eq!(scene.files("out"), files);
            assert!(scene.files("in").is_empty());
        },
    );
}

#[test]
fn a_put_aside_source_survives_a_power_cut() {
    let scene = Scene::new(&format!("{CODEC}\n  source: {{onRestored: Rename}}"));
    let files = write_files(&scene, "in", 1);
    let all_bytes_exist = |scene: &Scene| assert_bytes_exist(scene, &["in"], &files);
    cut_power(
        &scene,
        power_cuts(),
        |scene| {
            assert_whole(scene, &[&files]);
            all_bytes_exist(scene);
        },
        |scene| {
            assert_eq!(scene.files("out"), files);
            all_bytes_exist(scene);
        },
    );
}
