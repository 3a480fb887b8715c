//! What a power cut leaves is opened again. A command is recorded call by call; then, at moments all over it, a disk is made as
//! a power cut could have left it there: what was not synced is lost, in part or as a whole and in any order. The program must go
//! on from there as from a kill. With as many disks as `tests/run --long` wants, the moments are all of them: after each call.
//!
//! Times and extended attributes of files count as lost. SQLite's own files are part of the disk.

mod disk;
mod trace;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use disk::{Disk, Survivors};

const PROGRAM: &str = env!("CARGO_BIN_EXE_streampress-program");
/// Different disks that are tried of a recorded run; STREAMPRESS_POWER_CUTS names another number.
const DISKS: usize = 200;
/// Of a command so many times fewer.
const SHARE_OF_COMMAND: usize = 5;
/// What survives, in turn.
const SURVIVORS: [Survivors; 5] = [
    Survivors::Any,
    Survivors::Synced,
    Survivors::Oldest,
    Survivors::All,
    Survivors::Any,
];
/// So many times each moment is tried at most.
const MOST_ROUNDS: usize = 500;

const RUN: &[&str] = &["run", "--json"];

type Tree = BTreeMap<String, Vec<u8>>;

/// A folder with a pipeline's YAML, and beside it `world` with its data, which loses its power.
struct Scene {
    folder: tempfile::TempDir,
    /// What the last run printed.
    last_run: RefCell<String>,
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
        Self {
            folder,
            last_run: RefCell::default(),
        }
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

    /// A command about the pipeline, with further arguments.
    fn command(&self, words: &[&str]) -> Command {
        let (name, further) = words.split_first().expect("a command");
        let pipeline: &[&str] = match *name {
            "submit" => &["-p"],
            _ => &[],
        };
        let mut command = Command::new(PROGRAM);
        command
            .current_dir(self.folder.path())
            .arg(name)
            .args(pipeline)
            .arg(self.folder.path().join("pipeline.yaml"))
            .arg("--data")
            .arg(self.world())
            .args(further)
            .env_clear()
            .stdin(Stdio::null());
        command
    }

    fn succeed(&self, words: &[&str]) {
        let output = self.command(words).output().expect("the program starts");
        assert!(output.status.success(), "{words:?}: {}", text_of(&output));
    }

    fn run_well(&self) {
        let output = self.command(RUN).output().expect("the program starts");
        self.last_run.replace(text_of(&output));
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

/// How many different disks are wanted of a run; a command is shorter.
fn wanted_disks() -> usize {
    let number = std::env::var("STREAMPRESS_POWER_CUTS");
    number.map_or(DISKS, |number| number.parse().expect("a number"))
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

/// Records a command in the scene, cuts its power many times, and goes on from each disk that was not tried before.
///
/// `at_once` judges the disk right after the cut, `at_last` when `go_on` and the program have run with success.
fn cut_power_of(
    scene: &Scene,
    (recorded, wanted): (&[&str], usize),
    at_once: impl Fn(&Scene),
    go_on: impl Fn(&Scene),
    at_last: impl Fn(&Scene),
) {
    let before = Disk::load(&scene.world());
    let log = scene.folder.path().join("strace.log");
    let (status, calls) = trace::record(&scene.command(recorded), &log);
    assert!(status.success(), "the recorded command ended with {status}");

    let seed = std::env::var("STREAMPRESS_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let mut random = fastrand::Rng::with_seed(seed);
    // Each round has every so many-th moment, one later than the round before.
    let stride = (calls.len() * SURVIVORS.len() / wanted.max(1)).max(1);
    let mut tried = HashSet::new();
    'rounds: for round in 0..stride * MOST_ROUNDS {
        let mut disk = before.clone();
        for (moment, call) in calls.iter().enumerate() {
            disk.apply(call);
            if moment % stride != round % stride {
                continue;
            }
            // Of one moment another in each pass over all of them.
            let survivors = SURVIVORS[(round / stride + moment) % SURVIVORS.len()];
            let left = disk.after_power_cut(survivors, &mut random);
            if !tried.insert(digest(&left)) {
                continue;
            }
            scene.restore(&left);
            let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                at_once(scene);
                go_on(scene);
                scene.run_well();
                at_last(scene);
            }));
            if let Err(reason) = judged {
                scene.restore(&left);
                let kept = scene.keep();
                eprintln!(
                    "power cut with seed {seed} in round {round}, after call {moment} of {}, {survivors:?} survives; the disk is kept in {}; \
                     not durable: {:#?}\nthe run after it: {}",
                    calls.len(),
                    kept.display(),
                    disk.not_durable(),
                    scene.last_run.borrow(),
                );
                std::panic::resume_unwind(reason);
            }
            if tried.len() >= wanted {
                break 'rounds;
            }
        }
    }
    println!(
        "FIGURE {} different disks after power cuts at {} calls of {recorded:?}",
        tried.len(),
        calls.len()
    );
    assert!(
        tried.len() >= wanted,
        "only {} different disks",
        tried.len()
    );
}

/// As [`cut_power_of`], of a run, which goes on by itself.
fn cut_power(scene: &Scene, at_once: impl Fn(&Scene), at_last: impl Fn(&Scene)) {
    let recorded = (RUN, wanted_disks());
    cut_power_of(scene, recorded, at_once, |_| (), at_last);
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

#[test]
fn files_that_are_packed_alone_go_on_after_a_power_cut() {
    let scene =
        Scene::new("  codec: {effort: Fast, blockSize: 64Ki, recordSize: 16Ki, bundle: Off}");
    let files = write_files(&scene, "in", 1);
    cut_power(
        &scene,
        |scene| assert_whole(scene, &[&files]),
        |scene| assert_eq!(scene.files("out"), files),
    );
}

/// The power of a command is cut, and the command is typed again.
fn cut_power_of_command(scene: &Scene, words: &[&str], files: &Tree) {
    cut_power_of(
        scene,
        (words, wanted_disks() / SHARE_OF_COMMAND),
        |scene| {
            assert_whole(scene, &[files]);
            assert_bytes_exist(scene, &["in", "out", "taken"], files);
        },
        |scene| scene.succeed(words),
        |scene| assert_eq!(scene.files("out"), *files),
    );
}

#[test]
fn files_are_submitted_again_after_a_power_cut() {
    let scene = Scene::new(CODEC);
    let files = write_files(&scene, "in", 1);
    let names = files
        .keys()
        .map(|name| format!("{}/in/{name}", scene.world().display()));
    let names: Vec<String> = names.collect();
    let names = names.iter().map(String::as_str);
    let words: Vec<&str> = ["submit"].into_iter().chain(names).collect();
    cut_power_of_command(&scene, &words, &files);
}

#[test]
fn dead_letters_are_redriven_again_after_a_power_cut() {
    let scene = Scene::new(CODEC);
    let files = write_files(&scene, "in", 1);
    scene.write("out/a.csv/in the way", "of another");
    scene.write("out/noise.txt/in the way", "of another");
    let failed = scene.command(RUN).output().expect("the program starts");
    assert_eq!(failed.status.code(), Some(1), "{}", text_of(&failed));
    for name in ["a.csv", "noise.txt"] {
        fs::remove_dir_all(scene.world().join("out").join(name)).expect("removed");
    }
    cut_power_of_command(&scene, &["redrive"], &files);
}

#[test]
fn what_the_stream_has_is_recovered_again_after_a_power_cut() {
    let scene = Scene::new(CODEC);
    let files = write_files(&scene, "in", 1);
    scene.run_well();
    // The queues are lost, and the restored files: the stream has them, and the sources are elsewhere.
    for entry in fs::read_dir(scene.world()).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            fs::remove_file(path).expect("removed");
        }
    }
    fs::remove_dir_all(scene.world().join("out")).expect("removed");
    fs::rename(scene.world().join("in"), scene.world().join("taken")).expect("renamed");
    cut_power_of_command(&scene, &["recover"], &files);
}
