//! `streampress run` as a user runs it: from the first file to the last, interrupted, killed and resumed.

mod support;

use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use streampress_transport::contract_tests::eventually_blocking;
use support::{WorkFolder, text};

#[test]
fn a_run_restores_every_generated_file_and_reports_it() {
    let folder = WorkFolder::with_generator(6);
    let summary = folder.run_summary(&[]);
    assert_eq!(summary["filesGenerated"], 6, "{summary}");
    assert_eq!(summary["filesCompressed"], 6, "{summary}");
    assert_eq!(summary["filesRestored"], 6, "{summary}");
    assert_eq!(summary["filesFailed"], 0, "{summary}");
    assert_eq!(folder.files("data/in"), folder.files("data/out"));
    assert!(
        summary["bytesCompressed"].as_u64() < summary["bytesRaw"].as_u64(),
        "{summary}"
    );
    let report = summary["report"].as_str().expect("a report");
    assert!(
        text(&fs::read(folder.path(report)).expect("the page is there"))
            .contains("test-000005.json")
    );
}

#[test]
fn a_second_run_finds_all_done_and_files_n_generates_more() {
    let folder = WorkFolder::with_generator(2);
    folder.run_summary(&[]);
    assert_eq!(folder.run_summary(&[])["filesRestored"], 2);
    assert_eq!(folder.run_summary(&["--files", "4"])["filesRestored"], 4);
    assert_eq!(folder.files("data/out").len(), 4);
}

#[test]
fn the_same_seed_makes_the_same_files() {
    let (one, other) = (WorkFolder::with_generator(3), WorkFolder::with_generator(3));
    one.run_summary(&[]);
    other.run_summary(&[]);
    assert_eq!(one.files("data/out"), other.files("data/out"));
}

#[test]
fn the_users_own_files_are_restored_under_their_names_and_only_read() {
    let folder = WorkFolder::with_spec("  source: {onCompressed: Delete}");
    let long = format!("in/{}.csv", "n".repeat(251));
    folder.write("in/plain.json", b"{\"a\":  1}\n");
    folder.write(
        "in/deep/er/Ordner \u{e4} #%&?.txt",
        b"\xff\xfe not utf-8 \x00\n",
    );
    folder.write("in/empty.log", b"");
    folder.write(&long, b"a,b\r\n1,\"x\ny\"\n");
    let before = folder.files("in");
    folder.write("in/picture.png", b"not ours");
    let summary = folder.run_summary(&["--input", "in"]);
    assert_eq!(summary["filesRestored"], 4, "{summary}");
    assert_eq!(folder.files("data/out"), before);
    assert_eq!(folder.files("in").len(), 5);
}

#[test]
fn an_input_folder_without_files_to_take_is_an_error_with_a_remedy() {
    let folder = WorkFolder::with_spec("  suspend: false");
    folder.write("in/picture.png", b"not ours");
    let output = folder.run(&["run", "pipeline.yaml", "--data", "data", "--input", "in"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("no file to take"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_stopped_run_continues_where_it_stopped() {
    // Ten files a second: it has not made all of them when the signal arrives, however quick the machine is.
    let folder = WorkFolder::with_spec(
        "  generator: {schema: {example: stock-market}, fileSize: 64Ki, filesPerMinute: 600, files: 60}",
    );
    let running = folder.start(&["run", "pipeline.yaml", "--data", "data"]);
    eventually_blocking("a file is restored", || {
        !folder.files("data/out").is_empty()
    });
    assert_eq!(running.stop(), Some(1));
    assert!(
        folder.log().contains("goes on where it stopped"),
        "{}",
        folder.log()
    );
    assert_eq!(folder.run_summary(&[])["filesRestored"], 60);
    assert_eq!(folder.files("data/in"), folder.files("data/out"));
}

#[cfg(target_os = "linux")]
#[test]
fn the_end_of_the_terminal_stops_a_run_in_order_and_not_one_that_is_to_outlive_it() {
    for (disposition, is_stopped) in [("--default-signal", true), ("--ignore-signal", false)] {
        let folder = WorkFolder::with_spec(
            "  generator: {schema: {example: stock-market}, fileSize: 4Ki, filesPerMinute: 1200, files: 60}",
        );
        let command = folder.command(&["run", "pipeline.yaml", "--data", "data", "--json"]);
        let mut child = Command::new("env")
            .arg(format!("{disposition}=HUP"))
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir(folder.path("."))
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        eventually_blocking("a file is restored", || {
            !folder.files("data/out").is_empty()
        });
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("sent");
        let mut json = String::new();
        let stdout = child.stdout.as_mut().expect("a pipe");
        stdout.read_to_string(&mut json).expect("readable");
        child.wait().expect("it ends");
        let summary: serde_json::Value = serde_json::from_str(&json).expect("the summary is JSON");
        assert_eq!(summary["interrupted"], is_stopped, "{summary}");
    }
}

#[test]
fn a_run_killed_at_any_moment_loses_and_alters_no_file() {
    let folder = WorkFolder::with_generator(60);
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..12 {
        let running = folder.start(&["run", "pipeline.yaml", "--data", "data"]);
        // A random moment: what is visible must be whole at any of them.
        std::thread::sleep(Duration::from_millis(random.u64(20..900)));
        running.kill();
        // Every visible file is whole.
        let made = folder.files("data/in");
        for (name, content) in folder.files("data/out") {
            assert_eq!(made.get(&name), Some(&content), "{name} was altered");
        }
    }
    let summary = folder.run_summary(&[]);
    assert_eq!(
        (&summary["filesRestored"], &summary["filesFailed"]),
        (&60.into(), &0.into()),
        "{summary}"
    );
    assert_eq!(folder.files("data/in"), folder.files("data/out"));
    let leftovers = fs::read_dir(folder.path("data/out"))
        .expect("out")
        .filter(|entry| {
            entry.as_ref().is_ok_and(|entry| {
                entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with(".streampress")
            })
        });
    assert_eq!(leftovers.count(), 0, "unfinished files are left");
}

#[test]
fn a_seed_pipeline_restores_the_normalised_form() {
    let folder = WorkFolder::with_spec("  codec: {format: Seed, recordSize: 8Ki}");
    folder.write("in/a.json", b"{\"a\" :  1.50, \"b\": \"\xc3\xa9\"}\n");
    folder.write("in/b.txt", b"two  spaces\n and\ta tab ");
    folder.write("in/c.csv", b"a,\"b\"\r\n1,2\r\n");
    folder.write(
        "in/large.txt",
        "words and more words of all kinds ".repeat(4000),
    );
    let summary = folder.run_summary(&["--input", "in"]);
    assert_eq!(summary["filesRestored"], 4, "{summary}");
    assert_eq!(summary["normalised"], true, "{summary}");
    let restored = folder.files("data/out");
    assert_eq!(text(&restored["a.json"]), "{\"a\":1.5,\"b\":\"\\u00e9\"}");
    assert_eq!(text(&restored["b.txt"]), "two spaces and a tab");
    assert_eq!(
        text(&restored["large.txt"]),
        "words and more words of all kinds ".repeat(4000).trim_end()
    );
}

#[test]
fn the_report_of_a_seed_pipeline_has_both_steps_and_the_improvement() {
    let folder = WorkFolder::with_spec("  codec: {format: Seed, recordSize: 4Ki}");
    let mut random = fastrand::Rng::with_seed(3);
    let words: String = (0..20_000)
        .map(|_| format!("{:x} ", random.u32(..)))
        .collect();
    folder.write("in/long.txt", words);
    let summary = folder.run_summary(&["--input", "in"]);
    let report = summary["report"].as_str().expect("a report");
    let page = text(&fs::read(folder.path(report)).expect("the page is there"));
    for row in [
        "<th scope=\"row\">Step 01</th><td>LZMA</td>",
        "<th scope=\"row\">Step 02</th><td>BZ2</td>",
        "<th scope=\"row\">Improvement</th>",
    ] {
        assert!(page.contains(row), "{row} is missing from the page");
    }
}

#[test]
fn strict_ordering_restores_all_files_too() {
    let folder = WorkFolder::with_spec(
        "  ordering: Strict\n  generator: {schema: {example: iot-sensors}, format: csv, fileSize: 16Ki, filesPerMinute: 0, files: 8}\n  source: {formats: [csv]}",
    );
    assert_eq!(folder.run_summary(&[])["filesRestored"], 8);
}

#[test]
fn bad_yaml_ends_with_code_64_and_names_line_and_field() {
    let folder = WorkFolder::with_spec("  codec: {blocksize: 4Mi}");
    let output = folder.run(&["run", "pipeline.yaml"]);
    assert_eq!(output.status.code(), Some(64), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    assert!(
        said.contains("pipeline.yaml:5:") && said.contains("blockSize"),
        "{said}"
    );
}

#[test]
fn a_run_that_makes_fewer_files_than_the_one_before_says_how_many_are_known() {
    let folder = WorkFolder::with_generator(1);
    // Whether the second run says a total depends on whether it has one when it says its first line.
    for (files, lines) in [
        ("3", &["announced 3 of 3, compressed 3 ("][..]),
        (
            "2",
            &[
                "announced 3, compressed 3 (",
                "announced 3 of 3, compressed 3 (",
            ],
        ),
    ] {
        let output = folder.run(&["run", "pipeline.yaml", "--data", "data", "--files", files]);
        let said = text(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(lines.iter().any(|line| said.contains(line)), "{said}");
        assert!(!said.contains("3 of 2"), "{said}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn results_that_are_lost_are_an_error_and_a_closed_pipe_is_none() {
    let folder = WorkFolder::with_spec("  suspend: false");
    folder.write("data/in/a.txt", "words");
    folder.write("data/out/a.txt/in-the-way.txt", "theirs");
    folder.run(&["run", "pipeline.yaml", "--data", "data"]);
    folder.write("good/in/a.txt", "words");
    for args in [
        &["validate", "pipeline.yaml"][..],
        &["run", "pipeline.yaml", "--data", "good", "--json"],
        &["run", "pipeline.yaml", "--data", "good"],
        &["redrive", "pipeline.yaml", "--data", "data", "--list"],
    ] {
        let printed = folder.run(args);
        assert!(printed.status.success(), "{}", text(&printed.stderr));
        assert!(!printed.stdout.is_empty(), "{args:?} prints nothing");
        let full = fs::File::options().write(true).open("/dev/full");
        let mut command = folder.command(args);
        let lost = command.stdout(full.expect("opens")).stderr(Stdio::piped());
        let lost = lost.output().expect("it ends");
        let said = text(&lost.stderr);
        assert_eq!(lost.status.code(), Some(1), "{args:?}: {said}");
        assert!(
            said.contains("writing to standard output"),
            "{args:?}: {said}"
        );
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let closed = folder
            .command(args)
            .stdout(writer)
            .status()
            .expect("it ends");
        assert!(closed.success(), "{args:?}");
    }
}

/// A destination of 512 KiB that is full, below `data/out` of a folder.
#[cfg(target_os = "linux")]
const ON_A_FULL_DISK: &str = "mount -t tmpfs -o size=512k tmpfs data/out || exit 77
head -c 512k /dev/zero >data/out/filler
exec \"$0\" \"$@\"";

#[cfg(target_os = "linux")]
#[test]
fn a_run_with_a_full_disk_says_so_once_and_goes_on_when_there_is_space() {
    let folder = WorkFolder::with_spec("  suspend: false");
    folder.write("data/in/a.txt", "words\n".repeat(20_000));
    fs::create_dir(folder.path("data/out")).expect("made");
    let log = fs::File::create(folder.path("log")).expect("made");
    let outer = ["/usr/bin/unshare", "-m", "/bin/sh", "-c", ON_A_FULL_DISK];
    let mut command = folder.command_under(&outer, &["run", "pipeline.yaml", "--data", "data"]);
    let mut running = command
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("it starts");
    let full = "No space left on device";
    eventually_blocking("the full disk is said", || {
        folder.log().contains(full) || running.try_wait().is_ok_and(|ended| ended.is_some())
    });
    if let Ok(Some(ended)) = running.try_wait() {
        let said = folder.log();
        // A user who may make no namespace, or mount nothing in it.
        assert!(
            ended.code() == Some(77) || said.contains("unshare"),
            "{said}"
        );
        return;
    }
    let filler = format!(
        "/proc/{}/root/{}",
        running.id(),
        folder.path("data/out/filler").display()
    );
    fs::remove_file(filler).expect("removed");
    let ended = running.wait().expect("it ends");
    let said = folder.log();
    assert!(ended.success(), "{said}");
    let lines: Vec<&str> = said.lines().filter(|line| line.contains(full)).collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(lines[0].contains("data/out"), "{said}");
}

/// Runs the command on a terminal of its own; what it wrote there.
#[cfg(target_os = "linux")]
fn on_a_terminal(folder: &WorkFolder, args: &[&str], variables: &[(&str, &str)]) -> Vec<u8> {
    let line = [&[env!("CARGO_BIN_EXE_streampress")], args]
        .concat()
        .join(" ");
    let script = ["-qec", &line, "/dev/null"];
    let output = Command::new("/usr/bin/script")
        .args(script)
        .current_dir(folder.path(""))
        .env_clear()
        .env("TERM", "xterm")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output();
    output.expect("script runs").stdout
}

/// Whether it has a sequence that sets a colour or a style.
fn has_colour(written: &[u8]) -> bool {
    text(written).split("\u{1b}[").skip(1).any(|sequence| {
        let end = sequence.find(|c: char| !c.is_ascii_digit() && c != ';');
        end.is_some_and(|end| sequence[end..].starts_with('m'))
    })
}

/// Generates a file in the data folder that stands for DATA.
const GENERATE: [&str; 6] = [
    "generate",
    "pipeline.yaml",
    "--data",
    "DATA",
    "--files",
    "1",
];

/// The arguments with a data folder in place of DATA.
fn with_data<'a>(args: &[&'a str], data: &'a str) -> Vec<&'a str> {
    let given = args.iter();
    given
        .map(|&arg| if arg == "DATA" { data } else { arg })
        .collect()
}

#[cfg(target_os = "linux")]
#[test]
fn everything_has_colours_on_a_terminal_unless_no_color_or_the_option_says_otherwise() {
    let folder = WorkFolder::with_generator(2);
    let no_color = [("NO_COLOR", "1")];
    for (number, args) in [
        &["--help"][..],
        &["runn"],
        &["run", "missing.yaml"],
        &["run", "pipeline.yaml", "--data", "DATA"],
        &GENERATE,
    ]
    .into_iter()
    .enumerate()
    {
        for (case, (variables, option, expected)) in [
            (&[][..], &[][..], true),
            (&no_color, &[], false),
            (&[], &["--color=never"], false),
            (&[("TERM", "dumb")], &[], false),
        ]
        .into_iter()
        .enumerate()
        {
            let data = format!("data-{number}-{case}");
            let args = [&with_data(args, &data)[..], option].concat();
            let written = on_a_terminal(&folder, &args, variables);
            assert!(!written.is_empty(), "{args:?}");
            let said = text(&written);
            assert_eq!(
                has_colour(&written),
                expected,
                "{args:?} {variables:?}: {said}"
            );
        }
    }
}

#[test]
fn what_goes_to_a_file_or_a_pipe_has_colours_only_if_the_option_says_so() {
    let folder = WorkFolder::with_generator(1);
    for (number, args) in [
        &["--help"][..],
        &["runn"],
        &["run", "missing.yaml"],
        &GENERATE,
    ]
    .into_iter()
    .enumerate()
    {
        for (case, (option, expected)) in [
            (&[][..], false),
            (&["--color", "auto"], false),
            (&["--color", "always"], true),
        ]
        .into_iter()
        .enumerate()
        {
            let data = format!("data-{number}-{case}");
            let args = [option, &with_data(args, &data)[..]].concat();
            let output = folder
                .command(&args)
                .env("NO_COLOR", "1")
                .output()
                .expect("it ends");
            let written = [output.stdout, output.stderr].concat();
            assert!(!written.is_empty(), "{args:?}");
            assert_eq!(
                has_colour(&written),
                expected,
                "{args:?}: {}",
                text(&written)
            );
        }
    }
}

#[test]
fn a_mistyped_command_ends_with_code_2() {
    let folder = WorkFolder::with_generator(1);
    assert_eq!(
        folder.run(&["runn", "pipeline.yaml"]).status.code(),
        Some(2)
    );
    assert_eq!(
        folder
            .run(&["run", "pipeline.yaml", "--files", "0"])
            .status
            .code(),
        Some(2)
    );
}

#[test]
fn a_run_deletes_a_source_file_once_it_was_restored_if_the_pipeline_says_so() {
    let folder = WorkFolder::with_spec("  source: {onRestored: Delete, settleSeconds: 0}");
    for number in 0..20 {
        folder.write(
            &format!("data/in/{number}.csv"),
            format!("a,b\n{number},2\n"),
        );
    }
    let files = folder.files("data/in");
    let summary = folder.run_summary(&[]);
    assert_eq!(summary["filesRestored"], 20, "{summary}");
    assert_eq!(folder.files("data/out"), files);
    assert!(folder.files("data/in").is_empty());
}

#[test]
fn a_source_that_was_touched_after_it_was_announced_is_deleted_once_it_is_restored() {
    let folder = WorkFolder::with_spec("  source: {onRestored: Delete, settleSeconds: 0}");
    folder.write("data/in/a.csv", b"a,b\n1,2\n");
    folder.run_well(&[
        "submit",
        "-p",
        "pipeline.yaml",
        "--data",
        "data",
        "data/in/a.csv",
    ]);
    touch(&folder, "data/in/a.csv");
    folder.run_summary(&[]);
    assert_eq!(folder.files("data/out").len(), 1);
    assert!(folder.files("data/in").is_empty());
}

#[test]
fn a_restored_file_has_its_sources_time_and_one_of_before_1970_the_beginning_of_1970() {
    let folder = WorkFolder::with_spec("  suspend: false");
    let epoch = std::time::UNIX_EPOCH;
    let moon_landing = epoch - Duration::from_secs(14_182_940);
    let later = epoch + Duration::new(14_182_940, 123_456_789);
    for (name, modified) in [("old.csv", moon_landing), ("new.csv", later)] {
        folder.write(&format!("in/{name}"), name);
        let file = fs::File::options()
            .write(true)
            .open(folder.path(&format!("in/{name}")));
        file.and_then(|file| file.set_modified(modified))
            .expect("touched");
    }
    folder.run_summary(&["--input", "in"]);
    let modified = |name: &str| {
        let metadata = fs::metadata(folder.path(&format!("data/out/{name}")));
        metadata.and_then(|it| it.modified()).expect("restored")
    };
    assert_eq!((modified("old.csv"), modified("new.csv")), (epoch, later));
    let summary = folder.run_summary(&["--input", "in"]);
    assert_eq!(
        (&summary["filesRestored"], &summary["filesAltered"]),
        (&2.into(), &0.into())
    );
}

#[test]
fn a_restored_file_is_changed_only_if_its_bytes_are() {
    let folder = WorkFolder::with_spec("  suspend: false");
    folder.write("data/in/a.csv", b"a,b\n1,2\n");
    folder.run_summary(&[]);
    touch(&folder, "data/out/a.csv");
    assert_eq!(folder.run_summary(&[])["filesAltered"], 0);
    folder.write("data/out/a.csv", b"a,b\n1,3\n");
    touch(&folder, "data/out/a.csv");
    assert_eq!(folder.run_summary(&[])["filesAltered"], 1);
}

#[test]
fn a_copy_of_a_data_folder_without_its_times_is_as_good_as_the_folder() {
    let folder = WorkFolder::with_spec("  source: {onRestored: Rename}");
    for name in ["a.csv", "b.json"] {
        folder.write(&format!("data/in/{name}"), name);
    }
    folder.run_summary(&[]);
    let files = folder.files("data");
    fs::rename(folder.path("data"), folder.path("before")).expect("moved");
    for (name, content) in files {
        folder.write(&format!("data/{name}"), content);
    }
    touch(&folder, "data/out/a.csv");
    touch(&folder, "data/in/a_delete.csv");
    let summary = folder.run_summary(&[]);
    for (field, count) in [
        ("filesRestored", 2),
        ("filesAltered", 0),
        ("filesLeftOut", 0),
    ] {
        assert_eq!(summary[field], count, "{summary}");
    }
}

/// Gives a file another modification time.
fn touch(folder: &WorkFolder, name: &str) {
    let file = fs::File::options().write(true).open(folder.path(name));
    let modified = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    file.and_then(|file| file.set_modified(modified))
        .expect("touched");
}

#[test]
fn a_run_that_scans_and_is_stopped_after_all_is_restored_succeeds() {
    let folder = WorkFolder::with_spec("  source: {scanSeconds: 1, settleSeconds: 1}");
    for name in ["a.json", "b.csv"] {
        folder.write(&format!("data/in/{name}"), b"1\n");
    }
    let running = folder.start(&["run", "pipeline.yaml", "--data", "data"]);
    // Counted by the journal, not only visible.
    eventually_blocking("both files count as restored", || {
        folder.log().contains("restored 2")
    });
    assert_eq!(running.stop(), Some(0), "{}", folder.log());
    assert!(!folder.log().contains("stopped before"), "{}", folder.log());
}

#[test]
fn a_run_that_is_stopped_while_a_file_waits_to_hold_still_says_so_and_is_not_done() {
    let folder = WorkFolder::with_spec("  source: {scanSeconds: 1, settleSeconds: 600}");
    folder.write("data/in/a.json", b"1\n");
    let running = folder.start(&["run", "pipeline.yaml", "--data", "data"]);
    eventually_blocking("the run says that a file waits", || {
        let log = folder.log();
        log.contains("1 file(s) wait: a file is announced once it has not changed for 600 s")
    });
    assert_eq!(running.stop(), Some(1), "{}", folder.log());
    assert!(folder.log().contains("stopped before"), "{}", folder.log());
}

#[cfg(target_os = "linux")]
#[test]
fn messages_that_cannot_be_written_do_not_end_the_run() {
    let folder = WorkFolder::with_generator(3);
    let full = fs::File::options().write(true).open("/dev/full");
    let output = folder
        .command(&["run", "pipeline.yaml", "--data", "data", "--json"])
        .stderr(full.expect("a device that is always full"))
        .output()
        .expect("streampress starts");
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("\"filesRestored\":3"));
}

#[test]
fn the_page_is_no_better_than_the_exit_code() {
    let folder = WorkFolder::with_spec("  suspend: false");
    folder.write("in/good.json", b"[1]\n");
    std::os::unix::fs::symlink("nowhere", folder.path("in/broken.json")).expect("a link");
    let args = ["run", "pipeline.yaml", "--data", "data", "--input", "in"];
    let page = || text(&fs::read(folder.path("data/reports/results.html")).expect("a page"));
    let output = folder.run(&args);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("left out: broken.json: is a symbolic link to nothing"));
    assert!(page().contains("1 left out") && page().contains("broken.json"));
    // A page that is rendered later says the same; a run that takes everything clears it.
    folder.run_well(&["report", "pipeline.yaml", "--data", "data"]);
    assert!(page().contains("1 left out"));
    fs::remove_file(folder.path("in/broken.json")).expect("removed");
    assert_eq!(folder.run(&args).status.code(), Some(0));
    assert!(!page().contains("left out") && page().contains("came back identical"));
}

#[test]
fn a_file_that_the_compressor_cannot_take_is_on_the_page() {
    let folder = WorkFolder::with_spec("  suspend: false");
    for name in ["kept.json", "gone.json"] {
        folder.write(&format!("data/in/{name}"), b"[1]\n");
    }
    let submit = ["submit", "-p", "pipeline.yaml", "--data", "data"];
    folder.run_well(&[&submit[..], &["data/in/kept.json", "data/in/gone.json"]].concat());
    fs::remove_file(folder.path("data/in/gone.json")).expect("removed");
    let output = folder.run(&["run", "pipeline.yaml", "--data", "data"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    let page = fs::read(folder.path("data/reports/results.html")).expect("a page");
    let page = text(&page);
    assert!(page.contains("1 file failed") && page.contains("SourceMissing"));
    assert!(page.contains("gone.json") && !page.contains("came back identical"));
}

#[test]
fn a_file_that_others_changed_is_not_counted_as_restored_identical() {
    let folder = WorkFolder::with_spec("  suspend: false");
    for name in ["a.json", "b.json"] {
        folder.write(&format!("in/{name}"), b"[1]\n");
    }
    let input = ["--input", "in"];
    folder.run_summary(&input);
    folder.write("data/out/a.json", b"theirs, and longer\n");
    let summary = folder.run_summary(&input);
    assert_eq!(summary["filesRestored"], 1, "{summary}");
    assert_eq!(summary["filesAltered"], 1, "{summary}");
    assert_eq!(folder.files("data/out")["a.json"], b"theirs, and longer\n");
    // A new version of the source is restored, and counts.
    folder.write("in/a.json", b"[1, 2]\n");
    let summary = folder.run_summary(&input);
    assert_eq!(summary["filesAltered"], 0, "{summary}");
    assert_eq!(folder.files("data/out")["a.json"], b"[1, 2]\n");
}

#[test]
fn a_second_input_folder_is_announced_before_its_files_take_the_place_of_others() {
    let folder = WorkFolder::with_spec("  suspend: false");
    folder.write("one/a.json", b"[1]\n");
    folder.write("two/a.json", b"[2]\n");
    folder.run_summary(&["--input", "one"]);
    let args = ["run", "pipeline.yaml", "--data", "data", "--input", "two"];
    let output = folder.run(&args);
    assert_eq!(output.status.code(), Some(0));
    let said = text(&output.stderr);
    assert!(
        said.contains("this data folder also has files of") && said.contains("/one"),
        "{said}"
    );
}

#[test]
fn redrive_removes_the_dead_letter_of_a_file_that_was_restored_since() {
    let folder = WorkFolder::with_spec("  suspend: false");
    folder.write("data/in/a.json", b"[1]\n");
    let pipeline = ["pipeline.yaml", "--data", "data"];
    let submit = [
        "submit",
        "-p",
        "pipeline.yaml",
        "--data",
        "data",
        "data/in/a.json",
    ];
    folder.run_well(&submit);
    fs::remove_file(folder.path("data/in/a.json")).expect("removed");
    let run = [&["run"], &pipeline[..]].concat();
    assert_eq!(folder.run(&run).status.code(), Some(1));
    folder.write("data/in/a.json", b"[1]\n");
    assert_eq!(folder.run(&run).status.code(), Some(0));
    let listed = folder.run_well(&[&["redrive", "--list"], &pipeline[..]].concat());
    assert!(listed.contains("a.json: restored since"), "{listed}");
    let redriven = folder.run_well(&[&["redrive"], &pipeline[..]].concat());
    assert!(
        redriven.contains("a.json: restored since; removed"),
        "{redriven}"
    );
    assert_eq!(
        folder.run_well(&[&["redrive", "--list"], &pipeline[..]].concat()),
        ""
    );
    assert_eq!(folder.run(&run).status.code(), Some(0));
}

#[test]
fn a_restored_newer_version_ends_the_failure_of_an_older_one() {
    let folder = WorkFolder::with_spec("  suspend: false");
    let pipeline = ["pipeline.yaml", "--data", "data"];
    folder.write("data/in/a.json", b"[1]\n");
    let [file, data, folder_name] = pipeline;
    folder.run_well(&["submit", "-p", file, data, folder_name, "data/in/a.json"]);
    fs::remove_file(folder.path("data/in/a.json")).expect("removed");
    let run = [&["run"], &pipeline[..]].concat();
    assert_eq!(folder.run(&run).status.code(), Some(1));
    let page = || text(&fs::read(folder.path("data/reports/results.html")).expect("a page"));
    assert!(page().contains("1 file failed"));
    folder.write("data/in/a.json", b"[2]\n");
    let redrive = |option: &[&str]| {
        let all = [&["redrive"], &pipeline[..], option].concat();
        folder.run_well(&all)
    };
    for removes_letter in [false, true] {
        let summary = folder.run_summary(&[]);
        assert_eq!(summary["filesRestored"], 1, "{summary}");
        assert_eq!(summary["filesSuperseded"], 1, "{summary}");
        let page = page();
        assert!(page.contains("1 file came back identical"));
        assert!(page.contains(r#"Superseded</span><span class="value">1<"#));
        assert!(!page.contains("SourceMissing"));
        if !removes_letter {
            let listed = redrive(&["--list"]);
            assert!(listed.contains("a.json: superseded since"), "{listed}");
            let redriven = redrive(&[]);
            assert!(
                redriven.contains("by a newer version; removed"),
                "{redriven}"
            );
        }
    }
    assert_eq!(redrive(&["--list"]), "");
}

#[test]
fn a_file_that_was_packed_announced_again_and_then_changed_is_packed_and_restored() {
    let folder = WorkFolder::with_spec("  suspend: false");
    let pipeline = ["pipeline.yaml", "--data", "data"];
    folder.write("data/in/a.json", b"[1]\n");
    let [file, data, folder_name] = pipeline;
    let submit = ["submit", "-p", file, data, folder_name, "data/in/a.json"];
    folder.run_well(&submit);
    let compressor = folder.start(&[&["compress"], &pipeline[..]].concat());
    eventually_blocking("it is packed", || folder.log().contains("File compressed"));
    assert_eq!(compressor.stop(), Some(0));
    folder.run_well(&submit);
    folder.write("data/in/a.json", b"[1, 2]\n");
    let summary = folder.run_summary(&[]);
    let counts = ["filesRestored", "filesCompressed", "filesSuperseded"];
    assert_eq!(counts.map(|count| summary[count].clone()), [2, 2, 0]);
}

#[test]
fn a_file_that_the_originals_format_cannot_hold_is_on_the_page() {
    let folder = WorkFolder::with_spec("  codec: {format: Seed}");
    folder.write("in/good.json", b"[1]\n");
    folder.write("in/bad.json", b"not json\n");
    let output = folder.run(&["run", "pipeline.yaml", "--data", "data", "--input", "in"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    let page = fs::read(folder.path("data/reports/results.html")).expect("a page");
    let page = text(&page);
    assert!(
        page.contains("1 file failed") && page.contains("NotSeedFormat"),
        "{page}"
    );
}

#[test]
fn every_field_of_the_summary_is_in_the_book() {
    let summary = WorkFolder::with_generator(1).run_summary(&[]);
    let book = include_str!("../../docs/src/guide/laptop.md");
    for field in summary.as_object().expect("an object").keys() {
        assert!(book.contains(&format!("`{field}`")), "{field}");
    }
}

#[test]
fn the_page_of_a_run_that_was_stopped_or_whose_files_were_changed_is_not_green() {
    let folder = WorkFolder::with_spec("  suspend: false");
    folder.write("in/a.json", b"[1]\n");
    folder.run_summary(&["--input", "in"]);
    let page = || text(&fs::read(folder.path("data/reports/results.html")).expect("a page"));
    assert!(page().contains("verdict ok") && page().contains("packed with effort balanced"));
    folder.write("data/out/a.json", b"theirs, and longer\n");
    let is_said = || {
        let page = page();
        assert!(page.contains("verdict wait") && page.contains("1 file changed or gone since"));
        assert!(page.contains(">changed since<") && !page.contains(">identical<"));
        assert!(!page.contains("nothing altered"), "{page}");
    };
    folder.run_summary(&["--input", "in"]);
    is_said();
    folder.run_well(&["report", "pipeline.yaml", "--data", "data"]);
    is_said();
    // Neither here nor there.
    fs::remove_file(folder.path("data/out/a.json")).expect("removed");
    fs::rename(folder.path("in/a.json"), folder.path("in/b.json")).expect("renamed");
    let summary = folder.run_summary(&["--input", "in"]);
    assert_eq!(
        (&summary["filesRestored"], &summary["filesGone"]),
        (&1.into(), &1.into())
    );
    let page = page();
    assert!(page.contains("1 file changed or gone since") && page.contains(">gone since<"));
    assert_eq!(page.matches(">identical<").count(), 1);
}

#[test]
fn a_file_that_is_packed_again_counts_once_in_the_summary_and_on_the_page() {
    let folder = WorkFolder::with_spec("  codec: {bundle: Off, formatVersion: 1}");
    for name in ["a", "b"] {
        let words: String = (0..40).map(|n| format!("{name} {}\n", n * n)).collect();
        folder.write(&format!("in/{name}.txt"), words);
    }
    let input = ["--input", "in"];
    let sizes = |summary: &serde_json::Value| {
        ["bytesRaw", "bytesCompressed"].map(|field| summary[field].as_u64().expect("a number"))
    };
    let before = sizes(&folder.run_summary(&input));
    // In the other version it takes fewer bytes.
    let yaml = text(&fs::read(folder.path("pipeline.yaml")).expect("readable"));
    let smaller = yaml.replace("formatVersion: 1", "formatVersion: 2");
    folder.write("pipeline.yaml", smaller);
    fs::remove_file(folder.path("data/out/a.txt")).expect("removed");
    let after = folder.run_summary(&input);
    assert_eq!(
        (&after["filesCompressed"], &after["filesRestored"]),
        (&2.into(), &2.into())
    );
    let after = sizes(&after);
    assert_eq!(after[0], before[0]);
    assert_ne!(after[1], before[1]);
    let page = text(&fs::read(folder.path("data/reports/results.html")).expect("a page"));
    for (tile, bytes) in ["Original size", "Packed"].into_iter().zip(after) {
        let shown = page
            .split(&format!(">{tile}</span>"))
            .nth(1)
            .expect("a tile");
        let shown = shown
            .split("\"value\">")
            .nth(1)
            .and_then(|rest| rest.split('<').next());
        assert_eq!(shown, Some(format!("{bytes} B").as_str()), "{tile}");
    }
}

#[test]
fn the_counts_of_a_data_folder_with_two_sources_say_that_they_are_of_both() {
    let folder = WorkFolder::with_spec("  suspend: false");
    folder.write("one/a.json", b"[1]\n");
    folder.write("two/b.json", b"[2]\n");
    assert_eq!(folder.run_summary(&["--input", "one"])["sources"], 1);
    let run = ["run", "pipeline.yaml", "--data", "data", "--input", "two"];
    let output = folder.run(&run);
    let said = text(&output.stdout);
    assert!(
        said.contains(
            "2 announced, 2 restored identical, 0 failed; of the 2 sources of this data folder"
        ),
        "{said}"
    );
    let summary = folder.run_summary(&["--input", "two"]);
    assert_eq!(
        (&summary["sources"], &summary["filesRestored"]),
        (&2.into(), &2.into())
    );
    let page = text(&fs::read(folder.path("data/reports/results.html")).expect("a page"));
    assert!(page.contains("The figures are of all 2 sources whose files the data folder has."));
}

#[test]
fn a_normalised_file_that_cannot_be_restored_is_on_the_page() {
    let folder = WorkFolder::with_spec("  codec: {format: Seed}");
    folder.write("in/a.json", b"[1]\n");
    folder.write("data/out/a.json/in-the-way.txt", b"theirs");
    let output = folder.run(&["run", "pipeline.yaml", "--data", "data", "--input", "in"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    let page = text(&fs::read(folder.path("data/reports/results.html")).expect("a page"));
    assert!(
        page.contains("1 file failed") && page.contains("BadName"),
        "{page}"
    );
}

#[test]
fn a_missing_source_folder_is_not_made_anew_while_its_files_wait() {
    let folder = WorkFolder::with_spec("  suspend: false");
    folder.write("data/in/a.json", b"[1]\n");
    let pipeline = ["pipeline.yaml", "--data", "data"];
    folder.run_well(&[
        "submit",
        "-p",
        "pipeline.yaml",
        "--data",
        "data",
        "data/in/a.json",
    ]);
    fs::rename(folder.path("data/in"), folder.path("data/away")).expect("renamed");
    folder.write("other.json", b"[2]\n");
    let submit = ["submit", "other.json", "-p"];
    for command in [&submit[..], &["run"]] {
        let output = folder.run(&[command, &pipeline].concat());
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        let said = text(&output.stderr);
        assert!(
            said.contains("is missing") && said.contains("mount its disk"),
            "{said}"
        );
    }
    // What does not write there goes on, and waits for it.
    folder.run_well(&[&["redrive", "--list"], &pipeline[..]].concat());
    let compressing = folder.start(&[&["compress"], &pipeline[..]].concat());
    eventually_blocking("the compressor says what is missing", || {
        folder.log().contains("mount its disk")
    });
    assert_eq!(compressing.stop(), Some(0));
    assert!(!folder.path("data/in").exists());
    fs::rename(folder.path("data/away"), folder.path("data/in")).expect("its name is free");
    assert_eq!(folder.run_summary(&[])["filesRestored"], 1);
}

#[test]
fn a_discarded_file_ends_the_failure_of_a_run_and_of_its_page() {
    let folder = WorkFolder::with_spec("  suspend: false");
    let pipeline = ["pipeline.yaml", "--data", "data"];
    for name in ["kept.json", "new\nline.json"] {
        let path = format!("data/in/{name}");
        folder.write(&path, b"[1]\n");
        folder.run_well(&["submit", "-p", "pipeline.yaml", "--data", "data", &path]);
    }
    fs::remove_file(folder.path("data/in/new\nline.json")).expect("removed");
    let run = [&["run"], &pipeline[..]].concat();
    assert_eq!(folder.run(&run).status.code(), Some(1));
    let discard = [
        &["redrive", "--discard", "--name", "none.json"],
        &pipeline[..],
    ]
    .concat();
    let refused = folder.run(&discard);
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused.stderr);
    assert!(said.contains("no dead letter of none.json"), "{said}");
    assert!(
        said.contains("1 other dead letter(s) were not chosen"),
        "{said}"
    );
    let listed = folder.run_well(&[&["redrive", "--list"], &pipeline[..]].concat());
    let shown = listed.split(": dead").next().expect("a name");
    folder.run_well(&[&["redrive", "--discard", "--name", shown], &pipeline[..]].concat());
    assert_eq!(folder.run(&run).status.code(), Some(0));
    let page = text(&fs::read(folder.path("data/reports/results.html")).expect("a page"));
    assert!(page.contains("1 file came back identical") && !page.contains("verdict bad"));
}

/// What `redrive` prints, and what it says about the whole.
fn redriven(folder: &WorkFolder, options: &[&str]) -> (String, String) {
    let pipeline = ["pipeline.yaml", "--data", "data"];
    let output = folder.run(&[&["redrive"], options, &pipeline].concat());
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_list_of_dead_letters_counts_files_as_the_summary_does_in_either_format() {
    for format in ["Hybrid", "Seed"] {
        let folder = WorkFolder::with_spec(&format!("  codec: {{format: {format}}}"));
        let run = ["run", "pipeline.yaml", "--data", "data", "--json"];
        let failed = || {
            let output = folder.run(&run);
            let summary: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
            summary["filesFailed"].as_u64().expect("a number")
        };
        folder.write("data/in/a.txt", "first");
        folder.write("data/out/a.txt/in-the-way.txt", "theirs");
        assert_eq!((failed(), failed()), (1, 1));
        let (list, said) = redriven(&folder, &["--list"]);
        assert!(
            list.starts_with("a.txt: dead, 2 times (BadName: "),
            "{list}"
        );
        assert!(said.contains("2 dead letter(s) of 1 file(s)\n"), "{said}");
        folder.write("data/in/a.txt", "second");
        assert_eq!(failed(), 2, "each version counts");
        let (list, said) = redriven(&folder, &["--list", "--name", "a.txt"]);
        assert_eq!(list.lines().count(), 2, "{list}");
        assert!(said.contains("3 dead letter(s) of 2 file(s)\n"), "{said}");
        fs::remove_dir_all(folder.path("data/out/a.txt")).expect("removed");
        assert_eq!(failed(), 0);
        let (list, said) = redriven(&folder, &["--list"]);
        assert!(
            list.contains("a.txt: superseded since by a newer version"),
            "{list}"
        );
        assert!(list.contains("a.txt: restored since"), "{list}");
        assert!(said.contains("of 2 file(s), 0 of them failed"), "{said}");
        let (_, said) = redriven(&folder, &[]);
        assert!(
            said.contains("3 dead letter(s) of 2 file(s), 0 left"),
            "{said}"
        );
        assert_eq!(redriven(&folder, &["--list"]).0, "");
    }
}

#[test]
fn a_discarded_file_of_the_originals_format_is_not_counted_any_more() {
    let folder = WorkFolder::with_spec("  codec: {format: Seed}");
    let run = ["run", "pipeline.yaml", "--data", "data", "--json"];
    folder.write("data/in/a.txt", "words");
    folder.write("data/in/b.txt", "words");
    folder.write("data/out/a.txt/in-the-way.txt", "theirs");
    assert_eq!(folder.run(&run).status.code(), Some(1));
    fs::remove_file(folder.path("data/in/a.txt")).expect("removed");
    let (list, _) = redriven(&folder, &["--discard", "--name", "a.txt"]);
    assert_eq!(list.lines().count(), 1, "{list}");
    let summary = folder.run_summary(&[]);
    assert_eq!(summary["filesFailed"], 0, "{summary}");
}

#[test]
fn a_failed_file_without_a_message_is_listed_too() {
    let folder = WorkFolder::with_spec("  suspend: false");
    let pipeline = ["pipeline.yaml", "--data", "data"];
    folder.write("data/in/a.txt", "words");
    folder.run_well(&[
        "submit",
        "-p",
        "pipeline.yaml",
        "--data",
        "data",
        "data/in/a.txt",
    ]);
    fs::remove_file(folder.path("data/in/a.txt")).expect("removed");
    let database = rusqlite::Connection::open(folder.path("data/streampress.db")).expect("opens");
    database
        .execute("DELETE FROM messages", [])
        .expect("purged");
    drop(database);
    let output = folder.run(&[&["run"], &pipeline[..]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let (list, said) = redriven(&folder, &["--list"]);
    assert!(
        list.starts_with("a.txt: failed, and has no dead letter"),
        "{list}"
    );
    assert!(said.contains("0 dead letter(s) of 1 file(s)\n"), "{said}");
}

#[test]
fn failed_files_that_a_damaged_database_does_not_name_are_said_with_the_damage() {
    let folder = WorkFolder::with_spec("  suspend: false");
    let run = ["run", "pipeline.yaml", "--data", "data", "--json"];
    folder.write("data/in/a.txt", "words");
    folder.write("data/out/a.txt/in-the-way.txt", "theirs");
    assert_eq!(folder.run(&run).status.code(), Some(1));
    let path = folder.path("data/streampress.db");
    let database = rusqlite::Connection::open(&path).expect("opens");
    let written = database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    written.expect("all is in the one file");
    let page_of = |name: &str| -> usize {
        let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
        let page = database.query_row(sql, [name], |row| row.get::<_, i64>(0));
        4096 * (usize::try_from(page.expect("a table")).expect("a number") - 1)
    };
    let pages = ["files", "files_open"].map(page_of);
    // The slots', without which no role does anything.
    let slots = page_of("slots");
    drop(database);
    let whole = fs::read(&path).expect("readable");
    for page in pages {
        let mut bytes = whole.clone();
        // It seems to have no cells.
        bytes[page + 3..page + 5].fill(0);
        fs::write(&path, bytes).expect("written");
        let output = folder.run(&run);
        assert_eq!(output.status.code(), Some(1));
        let summary: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let failures = summary["failures"].as_array().expect("a list").len();
        assert_eq!(summary["filesFailed"], failures, "{summary}");
        assert!(summary.to_string().contains("is damaged"), "{summary}");
    }
    let mut bytes = whole;
    bytes[slots..slots + 16].fill(0xab);
    fs::write(&path, bytes).expect("written");
    fs::remove_dir_all(folder.path("data/out/a.txt")).expect("removed");
    let output = folder.run(&run);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("is damaged"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_file_that_fails_at_every_run_is_listed_once_and_redriven_as_one() {
    let folder = WorkFolder::with_spec("  suspend: false");
    let pipeline = ["pipeline.yaml", "--data", "data"];
    folder.write("data/in/good.json", b"[1]\n");
    folder.write("data/in/bad.json", b"[2]\n");
    folder.write("data/out/bad.json/in-the-way.txt", b"theirs");
    let run = [&["run", "--json"], &pipeline[..]].concat();
    for _ in 0..3 {
        let output = folder.run(&run);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stdout).contains("\"filesFailed\":1"));
    }
    let redrive = |option: &str| {
        let output = folder.run(&[&["redrive", option], &pipeline[..]].concat());
        (text(&output.stdout), text(&output.stderr))
    };
    let (listed, said) = redrive("--list");
    assert_eq!(listed.lines().count(), 1, "{listed}");
    assert!(
        listed.starts_with("bad.json: dead, 3 times (BadName: "),
        "{listed}"
    );
    assert!(said.contains("3 dead letter(s) of 1 file(s)"), "{said}");
    let page = text(&fs::read(folder.path("data/reports/results.html")).expect("a page"));
    assert!(page.contains("1 file failed"));
    fs::remove_dir_all(folder.path("data/out/bad.json")).expect("removed");
    let (redriven, _) = redrive("--reason=BadName");
    assert_eq!(redriven.lines().count(), 1, "{redriven}");
    assert!(
        redriven.starts_with("bad.json: sent again, 3 times"),
        "{redriven}"
    );
    let page = text(&fs::read(folder.path("data/reports/results.html")).expect("a page"));
    assert!(page.contains("1 file not restored yet") && !page.contains("1 file failed"));
    let summary = folder.run_summary(&[]);
    assert_eq!(summary["filesRestored"], 2, "{summary}");
    assert_eq!(folder.files("data/out")["bad.json"], b"[2]\n");
    assert_eq!(redrive("--list").0, "");
}

#[test]
fn contents_of_one_name_that_all_failed_are_listed_apart() {
    let folder = WorkFolder::with_spec("  suspend: false");
    let pipeline = ["pipeline.yaml", "--data", "data"];
    folder.write("data/out/a.json/in-the-way.txt", b"theirs");
    for content in ["[1]\n", "[2]\n", "[1]\n"] {
        folder.write("data/in/a.json", content);
        let output = folder.run(&[&["run"], &pipeline[..]].concat());
        assert_eq!(output.status.code(), Some(1));
    }
    let listed = folder.run_well(&[&["redrive", "--list"], &pipeline[..]].concat());
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(listed.contains("a.json: dead, 2 times"), "{listed}");
    fs::remove_dir_all(folder.path("data/out/a.json")).expect("removed");
    folder.run_well(&[&["redrive"], &pipeline[..]].concat());
    folder.run_summary(&[]);
    // The last that was announced, whichever letter is redriven first.
    assert_eq!(folder.files("data/out")["a.json"], b"[1]\n");
}

#[test]
fn a_run_after_its_only_file_was_discarded_says_so_and_succeeds() {
    let folder = WorkFolder::with_spec("  suspend: false");
    let pipeline = ["pipeline.yaml", "--data", "data"];
    folder.write("data/in/gone.json", b"[1]\n");
    folder.run_well(&[&["submit", "-p"], &pipeline[..], &["data/in/gone.json"]].concat());
    fs::remove_file(folder.path("data/in/gone.json")).expect("removed");
    let run = [&["run"], &pipeline[..]].concat();
    let failed = folder.run(&run);
    assert_eq!(failed.status.code(), Some(1));
    // What it says, typed as it is printed.
    let said = text(&failed.stderr);
    let listed = folder.type_last(&said);
    assert!(
        text(&listed.stdout).starts_with("gone.json: dead"),
        "{said}"
    );
    let discarded = folder.type_last(&said.replace("--list", "--discard --name gone.json"));
    assert!(discarded.status.success(), "{}", text(&discarded.stderr));
    let output = folder.run(&run);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.contains("1 file(s) were discarded; put a file back into"),
        "{said}"
    );
    folder.write("data/in/gone.json", b"[1]\n");
    assert_eq!(folder.run_summary(&[])["filesRestored"], 1);
}

#[test]
fn a_run_that_cannot_go_on_prints_its_error_as_json_too() {
    let folder = WorkFolder::with_spec("  suspend: false");
    folder.write("in/a.json", b"[1]\n");
    folder.run_summary(&["--input", "in"]);
    let failed = |args: &[&str], code: i32| -> serde_json::Value {
        let output = folder.run(&[&["run", "--json"], args].concat());
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        let json = text(&output.stdout);
        assert_eq!(json.lines().count(), 1, "{json}");
        serde_json::from_str(&json).expect("JSON")
    };
    folder.write("empty/picture.png", b"not ours");
    // What is known of the data folder is told all the same.
    let none = failed(&["pipeline.yaml", "--data", "data", "--input", "empty"], 1);
    assert!(
        none["error"]
            .as_str()
            .is_some_and(|error| error.contains("no file to take")),
        "{none}"
    );
    assert_eq!(
        (&none["filesRestored"], &none["interrupted"]),
        (&1.into(), &true.into()),
        "{none}"
    );
    let bad = failed(&["missing.yaml", "--data", "data"], 64);
    assert!(
        bad["error"]
            .as_str()
            .is_some_and(|error| error.contains("missing.yaml")),
        "{bad}"
    );
    assert_eq!(
        bad.as_object().map(|it| it.len()),
        none.as_object().map(|it| it.len())
    );
    let good = folder.run_summary(&["--input", "in"]);
    assert_eq!(good["error"], serde_json::Value::Null);
}

#[test]
fn the_progress_of_a_run_does_not_count_restored_files_that_are_gone() {
    let folder = WorkFolder::with_spec("  source: {onRestored: Delete, settleSeconds: 0}");
    for name in ["a.json", "b.json"] {
        folder.write(&format!("data/in/{name}"), b"[1]\n");
    }
    folder.run_summary(&[]);
    fs::remove_file(folder.path("data/out/b.json")).expect("removed");
    let output = folder.run(&["run", "pipeline.yaml", "--data", "data"]);
    let said = text(&output.stderr);
    let last = said.lines().rfind(|line| line.contains("announced 2"));
    assert!(
        last.is_some_and(|line| line.contains("restored 1,")),
        "{said}"
    );
}

#[test]
fn a_decompressor_waits_for_a_destination_that_vanished_and_makes_a_new_one_otherwise() {
    let folder = WorkFolder::with_spec("  suspend: false");
    let pipeline = ["pipeline.yaml", "--data", "data"];
    let submit = |name: &str| {
        let path = format!("data/in/{name}");
        folder.write(&path, b"[1]\n");
        folder.run_well(&[&["submit", "-p"], &pipeline[..], &[&path]].concat());
    };
    let is_restored = |name: &str| folder.path(&format!("data/out/{name}")).exists();
    submit("a.json");
    let roles =
        || ["compress", "decompress"].map(|role| folder.start(&[&[role], &pipeline[..]].concat()));
    let running = roles();
    eventually_blocking("the first file is restored", || is_restored("a.json"));
    for role in running {
        assert_eq!(role.stop(), Some(0));
    }
    fs::rename(folder.path("data/out"), folder.path("data/away")).expect("renamed");
    submit("b.json");
    let running = roles();
    eventually_blocking("the decompressor waits", || {
        let log = folder.log();
        log.contains("mount its disk") && log.contains("A service is unavailable")
    });
    assert!(!folder.path("data/out").exists());
    fs::rename(folder.path("data/away"), folder.path("data/out")).expect("its name is free");
    eventually_blocking("the second file is restored", || is_restored("b.json"));
    for role in running {
        assert_eq!(role.stop(), Some(0));
    }
    let listed = folder.run_well(&[&["redrive", "--list"], &pipeline[..]].concat());
    assert_eq!(listed, "");
}

/// A run that watches its source, whose files are restored.
fn watching_run(folder: &WorkFolder, names: &[&str]) -> std::process::Child {
    for name in names {
        folder.write(&format!("data/in/{name}"), b"[1]\n");
    }
    let log = fs::File::create(folder.path("said")).expect("a log file");
    let mut command = folder.command(&["run", "pipeline.yaml", "--data", "data", "--json"]);
    command.stdout(std::process::Stdio::piped()).stderr(log);
    let running = command.spawn().expect("streampress starts");
    eventually_blocking("the files are restored", || {
        let said = fs::read_to_string(folder.path("said")).unwrap_or_default();
        said.contains(&format!("restored {},", names.len()))
    });
    running
}

/// Its summary, after so many signals at once.
fn terminated(running: std::process::Child, signals: usize) -> serde_json::Value {
    let pids = vec![running.id().to_string(); signals];
    let mut kill = std::process::Command::new("kill");
    let sent = kill.arg("-TERM").args(pids).status();
    assert!(sent.expect("kill runs").success());
    let output = running.wait_with_output().expect("it ends");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn a_watching_run_counts_at_its_end_what_was_taken_away_or_changed_meanwhile() {
    let folder = WorkFolder::with_spec("  source: {scanSeconds: 1, settleSeconds: 0}");
    let running = watching_run(&folder, &["a.json", "b.json", "c.json"]);
    fs::remove_file(folder.path("data/out/b.json")).expect("a consumer takes it");
    folder.write("data/out/c.json", b"[2]\n");
    let summary = terminated(running, 1);
    assert_eq!(
        ["filesGone", "filesAltered", "filesRestored"].map(|count| &summary[count]),
        [1, 1, 1],
        "{summary}"
    );
}

#[test]
fn a_signal_that_comes_twice_at_once_is_one_request_and_the_run_ends_with_its_summary() {
    let folder = WorkFolder::with_spec("  source: {scanSeconds: 1, settleSeconds: 0}");
    let running = watching_run(&folder, &["a.json"]);
    let summary = terminated(running, 2);
    assert_eq!(summary["filesRestored"], 1, "{summary}");
}

#[test]
fn a_run_waits_for_a_destination_whose_disk_is_not_mounted() {
    let folder = WorkFolder::with_spec("  suspend: false");
    fs::create_dir(folder.path("data")).expect("made");
    std::os::unix::fs::symlink("../disk", folder.path("data/out")).expect("linked");
    let (disk, away) = (folder.path("disk"), folder.path("away"));
    fs::create_dir(&away).expect("made");
    for name in ["a.json", "b.json"] {
        folder.write(&format!("data/in/{name}"), b"[1]\n");
        let said = || fs::read_to_string(folder.path("said")).unwrap_or_default();
        let log = fs::File::create(folder.path("said")).expect("a log file");
        let mut command = folder.command(&["run", "pipeline.yaml", "--data", "data"]);
        let mut running = command.stderr(log).spawn().expect("streampress starts");
        eventually_blocking("the run says that it waits", || {
            said().contains("mount its disk")
        });
        assert!(running.try_wait().expect("known").is_none(), "{}", said());
        fs::rename(&away, &disk).expect("mounted");
        let ended = running.wait().expect("it ends");
        assert!(ended.success(), "{}", said());
        assert!(folder.path(&format!("disk/{name}")).exists());
        fs::rename(&disk, &away).expect("unmounted");
    }
}

#[test]
fn a_restored_file_of_the_same_size_and_time_is_compared_by_its_bytes() {
    let folder = WorkFolder::with_spec("  suspend: false");
    for name in ["a.csv", "b.csv"] {
        folder.write(&format!("in/{name}"), b"a,b\n1,2\n");
        touch(&folder, &format!("in/{name}"));
    }
    let input = ["--input", "in"];
    folder.run_summary(&input);
    folder.write("data/out/a.csv", b"a,b\n1,3\n");
    touch(&folder, "data/out/a.csv");
    for _ in 0..2 {
        let summary = folder.run_summary(&input);
        assert_eq!(summary["filesAltered"], 1, "{summary}");
        assert_eq!(summary["filesRestored"], 1, "{summary}");
        assert_eq!(folder.files("data/out")["a.csv"], b"a,b\n1,3\n");
    }
    // The same bytes again are the restored file.
    folder.write("data/out/a.csv", b"a,b\n1,2\n");
    assert_eq!(folder.run_summary(&input)["filesAltered"], 0);
}

#[test]
fn a_normalised_file_that_others_changed_is_not_counted_as_restored() {
    let folder = WorkFolder::with_spec("  codec: {format: Seed}");
    folder.write("in/a.json", b"[1,  2]\n");
    let input = ["--input", "in"];
    assert_eq!(folder.run_summary(&input)["filesRestored"], 1);
    assert_eq!(folder.run_summary(&input)["filesAltered"], 0);
    folder.write("data/out/a.json", b"[1,3]");
    assert_eq!(folder.run_summary(&input)["filesAltered"], 1);
}

#[test]
fn a_run_to_a_destination_of_another_pipeline_ends_with_1_and_changes_nothing_there() {
    let folder = WorkFolder::with_spec("  suspend: false");
    fs::create_dir(folder.path("shared")).expect("a folder");
    for name in ["one", "two"] {
        let yaml = format!(
            "apiVersion: streampress.dev/v1alpha1\nkind: CompressionPipeline\nmetadata: {{name: {name}}}\nspec: {{}}\n"
        );
        folder.write(&format!("{name}.yaml"), yaml);
        folder.write(&format!("{name}/in/a.json"), format!("[\"{name}\"]\n"));
        let out = folder.path(&format!("{name}/out"));
        std::os::unix::fs::symlink("../shared", out).expect("a link");
    }
    let run = |name: &str| folder.run(&["run", &format!("{name}.yaml"), "--data", name]);
    assert_eq!(run("one").status.code(), Some(0));
    let refused = run("two");
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused.stderr);
    assert!(
        said.contains("belongs to the pipeline default/one"),
        "{said}"
    );
    assert_eq!(folder.files("shared")["a.json"], b"[\"one\"]\n");
    // What it says, typed as it is printed.
    let command = said.rsplit(": ").next().expect("a command");
    let typed = std::process::Command::new("sh")
        .args(["-c", command])
        .current_dir(folder.path(""))
        .status();
    assert!(typed.expect("runs").success(), "{command}");
    assert_eq!(run("two").status.code(), Some(0));
    assert_eq!(folder.files("shared")["a.json"], b"[\"two\"]\n");
}
