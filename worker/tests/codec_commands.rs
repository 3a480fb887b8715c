//! `pack`, `unpack`, `inspect` and `bench` as a user runs them.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::AtomicBool,
};

use streampress_codec::{
    FormatVersion,
    hybrid::{CodecOptions, Packer, PlanStore},
};

/// A folder to work in.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        fs::write(self.path(name), bytes).expect("written");
        self.path(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect("read")
    }

    fn run(&self, args: &[&str], stdin: &[u8]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_streampress"))
            .current_dir(self.0.path())
            .args(args)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("streampress starts");
        let mut input = child.stdin.take().expect("a pipe");
        let bytes = stdin.to_vec();
        // Beside the reading of the output, or both pipes could be full. It may end early: no error.
        let writing = std::thread::spawn(move || drop(input.write_all(&bytes)));
        let output = child.wait_with_output().expect("it ends");
        writing.join().expect("written");
        output
    }

    fn well(&self, args: &[&str]) -> Output {
        let output = self.run(args, b"");
        assert!(output.status.success(), "{args:?}: {}", said(&output));
        output
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.0.path())
            .expect("a folder")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn table(rows: usize) -> Vec<u8> {
    let mut text = b"id,name,price\n".to_vec();
    for row in 0..rows {
        text.extend(
            format!(
                "{row},name {},{}.{:02}\n",
                row % 13,
                row * 7 % 900,
                row % 100
            )
            .bytes(),
        );
    }
    text
}

/// Where each block of a packed file begins.
fn blocks(packed: &[u8]) -> Vec<usize> {
    (0..packed.len())
        .filter(|&at| packed[at..].starts_with(b"SPKB"))
        .collect()
}

#[test]
fn a_file_comes_back_under_its_own_name() {
    let folder = Folder::new();
    let raw = table(5000);
    folder.write("prices.csv", &raw);
    folder.well(&["pack", "prices.csv"]);
    fs::remove_file(folder.path("prices.csv")).expect("removed");
    assert!(folder.read("prices.csv.spk").len() * 4 < raw.len());
    folder.well(&["unpack", "prices.csv.spk"]);
    assert!(folder.read("prices.csv") == raw);
    folder.well(&[
        "pack",
        "prices.csv",
        "--effort",
        "max",
        "-o",
        "small",
        "--threads",
        "1",
    ]);
    folder.well(&["unpack", "small", "-o", "again"]);
    assert!(folder.read("again") == raw);
    folder.write("empty.txt", b"");
    folder.well(&["pack", "empty.txt"]);
    folder.well(&["unpack", "empty.txt.spk", "-o", "empty"]);
    assert!(folder.read("empty").is_empty());
}

#[test]
fn a_pipe_comes_back() {
    let folder = Folder::new();
    let raw = table(20_000);
    let packed = folder.run(
        &["pack", "-", "--block-size", "64Ki", "--effort", "fast"],
        &raw,
    );
    assert!(packed.status.success(), "{}", said(&packed));
    assert!(said(&packed).is_empty(), "{}", said(&packed));
    let back = folder.run(&["unpack", "-"], &packed.stdout);
    assert!(
        back.status.success() && back.stdout == raw,
        "{}",
        said(&back)
    );
    assert!(folder.names().is_empty());
}

#[test]
fn an_existing_output_stays_unless_forced() {
    let folder = Folder::new();
    folder.write("a.csv", &table(100));
    folder.write("a.csv.spk", b"mine");
    for args in [
        &["pack", "a.csv"][..],
        &["pack", "a.csv", "-o", "a.csv.spk"],
    ] {
        let output = folder.run(args, b"");
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("--force"), "{}", said(&output));
        assert_eq!(folder.read("a.csv.spk"), b"mine");
    }
    folder.well(&["pack", "a.csv", "--force"]);
    let output = folder.run(&["unpack", "a.csv.spk"], b"");
    assert_eq!(output.status.code(), Some(1));
    folder.well(&["unpack", "a.csv.spk", "--force"]);
    assert_eq!(folder.names(), ["a.csv", "a.csv.spk"]);
}

#[test]
fn damage_is_named_with_its_offset_and_leaves_no_output() {
    let folder = Folder::new();
    let raw = table(12_000);
    folder.write("a.csv", &raw);
    folder.well(&["pack", "a.csv", "--block-size", "64Ki", "--effort", "fast"]);
    let mut packed = folder.read("a.csv.spk");
    let starts = blocks(&packed);
    assert!(starts.len() >= 4);
    packed[starts[2] + 50] ^= 1;
    folder.write("bad.spk", &packed);
    let output = folder.run(&["unpack", "bad.spk"], b"");
    assert_eq!(output.status.code(), Some(1));
    let named = format!("byte {} (block 2)", starts[2]);
    assert!(said(&output).contains(&named), "{}", said(&output));
    assert_eq!(folder.names(), ["a.csv", "a.csv.spk", "bad.spk"]);

    let output = folder.run(&["unpack", "bad.spk", "--keep-going"], b"");
    assert_eq!(output.status.code(), Some(1));
    let errors = said(&output);
    assert!(
        errors.contains("block 2") && errors.contains("left out"),
        "{errors}"
    );
    let back = folder.read("bad");
    assert!(back.len() > raw.len() / 2 && back.len() < raw.len());
    assert!(raw.starts_with(&back[..60_000]) && raw.ends_with(&back[back.len() - 10_000..]));

    for (name, bytes, reason) in [
        ("cut.spk", &packed[..starts[1] + 60], "ends inside"),
        ("plain.spk", &raw[..100], "not a packed file"),
    ] {
        folder.write(name, bytes);
        let output = folder.run(&["unpack", name], b"");
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains(reason), "{}", said(&output));
    }
}

#[test]
fn one_block_is_unpacked_alone() {
    let folder = Folder::new();
    let raw = table(12_000);
    folder.write("a.csv", &raw);
    folder.well(&["pack", "a.csv", "--block-size", "64Ki", "--effort", "fast"]);
    let mut packed = folder.read("a.csv.spk");
    let starts = blocks(&packed);
    packed[starts[0] + 50] ^= 1;
    folder.write("a.csv.spk", &packed);
    let first = folder.run(&["unpack", "a.csv.spk", "--block", "0"], b"");
    assert_eq!(first.status.code(), Some(1));
    let second = folder.well(&["unpack", "a.csv.spk", "--block", "1"]).stdout;
    let at = raw
        .windows(second.len())
        .position(|window| window == second);
    assert!(at.is_some_and(|at| at > 30_000 && raw[at - 1] == b'\n'));
    folder.well(&["unpack", "a.csv.spk", "--block", "1", "-o", "one"]);
    assert!(folder.read("one") == second);
    let none = folder.run(&["unpack", "a.csv.spk", "--block", "9999"], b"");
    assert_eq!(none.status.code(), Some(1));
    assert!(
        said(&none).contains(&format!("the file has {}", starts.len())),
        "{}",
        said(&none)
    );
}

#[test]
fn inspect_and_explain_say_where_the_bytes_went() {
    let folder = Folder::new();
    folder.write("a.csv", &table(4000));
    let explained = said(&folder.well(&["pack", "a.csv", "--explain"]));
    for words in ["block 0", "tried csv", "won ", "price"] {
        assert!(explained.contains(words), "{words}: {explained}");
    }
    let output = folder.well(&["inspect", "a.csv.spk"]);
    let shown = String::from_utf8(output.stdout).expect("text");
    for words in ["transform csv", "2:name", "3:price", "directory", "blake3"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let packed_len = folder.read("a.csv.spk").len();
    assert!(
        shown.contains(&format!("-> {packed_len} packed bytes")),
        "{shown}"
    );
    let share: f64 = shown
        .lines()
        .filter_map(|line| {
            line.strip_suffix(" % of the block")?
                .split_whitespace()
                .next_back()
        })
        .filter_map(|share| share.parse::<f64>().ok())
        .sum();
    assert!((99.0..101.0).contains(&share), "{share}: {shown}");
    let output = folder.run(&["inspect", "a.csv"], b"");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_plan_made_from_one_file_packs_others_and_inspect_shows_it() {
    let folder = Folder::new();
    folder.write("first.csv", &table(4000));
    folder.write("second.csv", &table(5000));
    folder.well(&["train", "first.csv", "-o", "prices.plan"]);
    let shown = folder.well(&["inspect", "prices.plan"]).stdout;
    let shown = String::from_utf8(shown).expect("text");
    assert!(
        shown.contains("plan of 2 kind(s) of block") && shown.contains("version 2, transform csv"),
        "{shown}"
    );
    let planned = said(&folder.well(&["pack", "second.csv", "--plan", "prices.plan", "--explain"]));
    assert!(planned.contains("by a plan, 0 searched"), "{planned}");
    let searched = said(&folder.well(&["pack", "second.csv", "--explain", "--force"]));
    assert!(searched.contains("columns: 0 by a plan"), "{searched}");
    folder.well(&["unpack", "second.csv.spk", "-o", "back"]);
    assert!(folder.read("back") == table(5000));
    folder.write("no.plan", b"id,name\n");
    let refused = folder.run(&["pack", "first.csv", "--plan", "no.plan"], b"");
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("no.plan"), "{}", said(&refused));
}

#[test]
fn a_plan_is_not_replaced_by_what_is_packed_with_it() {
    let folder = Folder::new();
    folder.write("first.csv", &table(3000));
    folder.well(&["train", "first.csv", "-o", "prices.plan"]);
    let plan = folder.read("prices.plan");
    let args = ["pack", "first.csv", "--plan", "prices.plan", "--force"];
    let refused = folder.run(&[&args[..], &["-o", "prices.plan"]].concat(), b"");
    assert_eq!(refused.status.code(), Some(1));
    assert!(folder.read("prices.plan") == plan);
    // From standard input, too, unless the file comes from there.
    folder.well(&["pack", "first.csv", "--plan", "prices.plan"]);
    let piped = ["pack", "first.csv", "--plan", "-", "-o", "piped.spk"];
    let packed = folder.run(&piped, &plan);
    assert!(packed.status.success(), "{}", said(&packed));
    assert!(folder.read("piped.spk") == folder.read("first.csv.spk"));
    let both = folder.run(&["pack", "-", "--plan", "-"], &plan);
    assert_eq!(both.status.code(), Some(1));
    assert!(said(&both).contains("both the plan and the input"));
}

#[test]
fn a_plan_of_a_lower_effort_is_not_used_and_the_command_says_so() {
    let folder = Folder::new();
    folder.write("first.csv", &table(3000));
    folder.well(&["train", "first.csv", "--effort", "fast", "-o", "fast.plan"]);
    let with = ["pack", "first.csv", "--plan", "fast.plan", "--explain"];
    let searched = said(&folder.well(&[&with[..], &["-o", "1.spk"]].concat()));
    assert!(searched.contains("columns: 0 by a plan"), "{searched}");
    // The advice, as it is printed.
    let (_, advised) = searched
        .split_once(": streampress train ")
        .expect("a command");
    let words = advised.lines().next().unwrap_or_default().split(' ');
    folder.well(&["train"].into_iter().chain(words).collect::<Vec<_>>());
    let again = said(&folder.well(&[&with[..], &["-o", "3.spk"]].concat()));
    assert!(again.contains("by a plan, 0 searched"), "{again}");
    let fast = [&with[..], &["--effort", "fast", "-o", "2.spk"]].concat();
    let planned = said(&folder.well(&fast));
    assert!(planned.contains("by a plan, 0 searched"), "{planned}");
    assert!(!planned.contains("streampress train"), "{planned}");
}

#[test]
fn a_plan_holds_what_both_versions_of_the_format_need() {
    let folder = Folder::new();
    folder.write("small.csv", &table(60));
    folder.well(&["train", "small.csv", "-o", "both.plan"]);
    let store = PlanStore::default();
    let packer = Packer::new(CodecOptions::default()).with_store(&store);
    for version in [FormatVersion::V1, FormatVersion::V2] {
        let packer = packer.clone().with_version(version);
        let never = AtomicBool::new(false);
        packer
            .pack(&table(60)[..], |_| Ok(()), &never)
            .expect("packs");
    }
    assert!(folder.read("both.plan") == store.plan().to_bytes());
    let piped = folder.run(&["train", "-", "-o", "piped.plan"], &table(60));
    assert_eq!(piped.status.code(), Some(0), "{}", said(&piped));
    assert!(folder.read("piped.plan") == folder.read("both.plan"));
}

#[test]
fn a_file_that_cannot_be_read_is_named_and_the_plan_is_made_from_the_others() {
    let folder = Folder::new();
    folder.write("first.csv", &table(4000));
    folder.write("third.csv", &table(5000));
    let files = ["train", "first.csv", "gone.csv", "third.csv"];
    let trained = folder.run(&[&files[..], &["-o", "prices.plan"]].concat(), b"");
    assert_eq!(trained.status.code(), Some(1), "{}", said(&trained));
    assert!(said(&trained).contains("gone.csv"), "{}", said(&trained));
    folder.well(&["train", "first.csv", "third.csv", "-o", "same.plan"]);
    assert!(folder.read("prices.plan") == folder.read("same.plan"));
    let none = folder.run(&["train", "gone.csv", "-o", "no.plan"], b"");
    assert_eq!(none.status.code(), Some(1));
    assert!(
        said(&none).contains("no plan was written"),
        "{}",
        said(&none)
    );
    let packed = folder.run(&["pack", "first.csv", "--plan", "no.plan"], b"");
    assert_eq!(packed.status.code(), Some(1), "a plan was written");
}

#[test]
fn version_2_is_smaller_and_both_versions_unpack() {
    let folder = Folder::new();
    folder.write("a.csv", &table(100));
    let mut sizes = Vec::new();
    for version in ["1", "2"] {
        folder.well(&["pack", "a.csv", "--format-version", version, "--force"]);
        sizes.push(folder.read("a.csv.spk").len());
        let shown = folder.well(&["inspect", "a.csv.spk"]).stdout;
        let shown = String::from_utf8(shown).expect("text");
        let words = format!("hybrid format version {version}, 1 blocks");
        assert!(shown.contains(&words), "{shown}");
        folder.well(&["unpack", "a.csv.spk", "-o", "back", "--force"]);
        assert!(folder.read("back") == table(100));
    }
    assert!(sizes[1] + 80 < sizes[0], "{sizes:?}");
}

#[test]
fn bench_compares_the_codecs_that_the_command_line_names() {
    let folder = Folder::new();
    folder.write("a.csv", &table(2000));
    let output = folder.well(&[
        "bench",
        "a.csv",
        "--codec",
        "hybrid fast",
        "--codec",
        "xz -9e",
    ]);
    let shown = String::from_utf8(output.stdout).expect("text");
    for name in ["hybrid fast ", "hybrid fast, version 2", "xz -9e "] {
        assert_eq!(shown.matches(&format!("\n  {name}")).count(), 2, "{shown}");
    }
    assert!(!shown.contains("bzip2"), "{shown}");
    // What another codec has freed is used again, so that only the first one's peak is known.
    assert!(
        shown.contains("The peak is that of packing with hybrid fast alone"),
        "{shown}"
    );
}

#[test]
fn the_seed_format_comes_back_normalised() {
    let folder = Folder::new();
    folder.write("a.csv", &table(300));
    folder.well(&["pack", "a.csv", "--format", "seed"]);
    folder.well(&["unpack", "a.csv.seed", "-o", "back"]);
    assert!(!folder.read("back").is_empty());
    assert!(Path::new(&folder.path("a.csv.seed")).exists());
}

#[test]
fn output_that_is_lost_is_an_error_and_a_closed_pipe_is_none() {
    let folder = Folder::new();
    folder.write("a.csv", b"1\n");
    folder.well(&["pack", "a.csv"]);
    for args in [
        &["inspect", "a.csv.spk"][..],
        &["completion", "bash"],
        &["--help"],
        &["help", "run"],
        &["--version"],
    ] {
        let start = |stdout: Stdio| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_streampress"));
            command.current_dir(folder.0.path()).args(args);
            command
                .stdout(stdout)
                .stderr(Stdio::piped())
                .output()
                .expect("it ends")
        };
        let full = fs::File::options().write(true).open("/dev/full");
        let lost = start(full.expect("opens").into());
        assert_eq!(lost.status.code(), Some(1), "{args:?}");
        assert!(said(&lost).contains("standard output"), "{}", said(&lost));
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        assert!(start(writer.into()).status.success(), "{args:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_file_has_no_more_permissions_than_its_input_and_a_pipe_is_not_replaced() {
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
    let folder = Folder::new();
    let mode = |name: &str| {
        let data = fs::metadata(folder.path(name)).expect("there");
        data.permissions().mode() & 0o777
    };
    folder.write("secret.json", b"{}");
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(folder.path("secret.json"), private).expect("set");
    folder.well(&["pack", "secret.json"]);
    folder.well(&["unpack", "secret.json.spk", "-o", "back.json"]);
    assert_eq!((mode("secret.json.spk"), mode("back.json")), (0o600, 0o600));
    folder.well(&["pack", "secret.json", "-o", "/dev/null", "--force"]);
    let kind = fs::metadata("/dev/null").expect("there").file_type();
    assert!(kind.is_char_device());
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = Folder::new();
    for (args, words) in [
        (&["man"][..], ["TH streampress 1", "redrive"]),
        (&["man", "redrive"], ["TH streampress-redrive 1", "discard"]),
    ] {
        let printed = folder.well(args);
        let page = String::from_utf8_lossy(&printed.stdout).into_owned();
        assert!(words.iter().all(|word| page.contains(word)), "{page}");
    }
    let refused = folder.run(&["man", "nothing"], b"");
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("no command nothing"));
}

#[test]
fn a_command_that_waits_for_its_input_ends_with_the_first_signal_and_says_so() {
    let folder = Folder::new();
    for args in [
        &["pack", "-", "-o", "out.spk"][..],
        &["unpack", "-", "-o", "out"],
        &["train", "-", "-o", "out.plan"],
    ] {
        let mut waiting = Command::new(env!("CARGO_BIN_EXE_streampress"))
            .current_dir(folder.0.path())
            .args(args)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("streampress starts");
        let input = waiting.stdin.take();
        let id = waiting.id();
        // Until it listens to SIGTERM, which would end it before that.
        let listens = || {
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let mask = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
            mask.is_some_and(|mask| mask & 1 << 14 != 0)
        };
        while !listens() {
            std::thread::yield_now();
        }
        let pid = rustix::process::Pid::from_child(&waiting);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("our own child");
        let output = waiting.wait_with_output().expect("it ends");
        drop(input);
        assert_eq!(output.status.code(), Some(130), "{args:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("waited for its input"), "{said}");
        assert!(folder.names().is_empty(), "{:?}", folder.names());
    }
}

#[test]
fn a_command_that_is_killed_leaves_no_file() {
    let folder = Folder::new();
    // What does not get smaller.
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
        state.to_le_bytes()[7]
    });
    folder.write("in.csv", &noise.take(100_000).collect::<Vec<_>>());
    let command = format!(
        "ulimit -f 8; {} pack in.csv -o out.spk",
        env!("CARGO_BIN_EXE_streampress")
    );
    let limited = Command::new("sh")
        .current_dir(folder.0.path())
        .args(["-c", &command])
        .output()
        .expect("sh starts");
    assert!(!limited.status.success(), "{}", said(&limited));
    assert_eq!(folder.names(), ["in.csv"]);
    let mut reading = Command::new(env!("CARGO_BIN_EXE_streampress"))
        .current_dir(folder.0.path())
        .args(["pack", "-", "-o", "out.spk"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("streampress starts");
    let open_files = PathBuf::from(format!("/proc/{}/fd", reading.id()));
    // Until it has made its output.
    let has_output = || {
        let entries = fs::read_dir(&open_files).into_iter().flatten().flatten();
        let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
        targets
            .into_iter()
            .any(|target| target.starts_with(folder.0.path()))
    };
    while !has_output() {
        std::thread::yield_now();
    }
    reading.kill().expect("our own child can be killed");
    reading.wait().expect("it ends");
    assert_eq!(folder.names(), ["in.csv"]);
}

#[test]
fn an_output_replaces_another_only_with_force_and_keeps_the_permissions_of_its_input() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    let input = folder.write("in.csv", &table(10));
    fs::set_permissions(&input, fs::Permissions::from_mode(0o600)).expect("set");
    folder.well(&["pack", "in.csv"]);
    let again = folder.run(&["pack", "in.csv"], b"");
    assert_eq!(again.status.code(), Some(1), "{}", said(&again));
    folder.write("in.csv.spk", b"other");
    folder.well(&["pack", "in.csv", "--force"]);
    folder.well(&["unpack", "in.csv.spk", "-o", "back.csv"]);
    assert_eq!(folder.read("back.csv"), table(10));
    assert_eq!(folder.names(), ["back.csv", "in.csv", "in.csv.spk"]);
    let mode = |name| {
        fs::metadata(folder.path(name))
            .expect("there")
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode("in.csv.spk"), 0o600);
}

#[test]
fn a_name_does_not_write_to_the_terminal_and_an_empty_file_has_no_share() {
    let folder = Folder::new();
    folder.write("a\u{1b}[31m.csv", &table(100));
    let output = folder.well(&["bench", "a\u{1b}[31m.csv", "--codec", "xz -6"]);
    let shown = String::from_utf8(output.stdout).expect("text");
    assert!(
        shown.contains("a\\u{1b}[31m.csv: ") && !shown.contains('\u{1b}'),
        "{shown}"
    );
    folder.write("empty.csv", b"");
    let packed = said(&folder.well(&["pack", "empty.csv"]));
    assert!(
        packed.contains(": 0 to ") && !packed.contains('%'),
        "{packed}"
    );
}
