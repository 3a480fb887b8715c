//! The roles as separate processes on one data folder, as pods would share a transport.

mod support;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use streampress_transport::contract_tests::eventually_blocking;
use support::{WorkFolder, text};

const DATA: [&str; 3] = ["pipeline.yaml", "--data", "data"];

fn role(name: &'static str) -> Vec<&'static str> {
    [&[name][..], &DATA].concat()
}

#[test]
fn three_processes_move_files_through_one_data_folder() {
    let folder = WorkFolder::with_generator(8);
    let (mut compressor, mut decompressor) = (
        folder.start(&role("compress")),
        folder.start(&role("decompress")),
    );
    folder.run_well(&[&role("generate")[..], &["--files", "8"]].concat());
    eventually_blocking("all files are restored", || {
        folder.files("data/out").len() == 8
    });
    assert!(compressor.is_running() && decompressor.is_running());
    assert_eq!(
        (compressor.stop(), decompressor.stop()),
        (Some(0), Some(0)),
        "{}",
        folder.log()
    );
    assert_eq!(folder.files("data/in"), folder.files("data/out"));
}

#[test]
fn two_compressors_on_two_slots_never_compress_one_file_twice() {
    let folder = WorkFolder::with_spec(
        "  generator: {schema: {example: stock-market}, fileSize: 256Ki, filesPerMinute: 0, files: 24}\n  compressor: {slots: 2, replicas: 2}",
    );
    let started = [
        folder.start(&role("compress")),
        folder.start(&role("compress")),
    ];
    let decompressor = folder.start(&role("decompress"));
    folder.run_well(&[&role("generate")[..], &["--files", "24"]].concat());
    eventually_blocking("all files are restored", || {
        folder.files("data/out").len() == 24
    });
    for running in started {
        assert_eq!(running.stop(), Some(0));
    }
    decompressor.stop();
    let log = folder.log();
    for name in folder.files("data/in").keys() {
        let times = log
            .lines()
            .filter(|line| line.contains("File compressed") && line.contains(name.as_str()))
            .count();
        assert_eq!(times, 1, "{name} was compressed {times} times\n{log}");
    }
}

#[test]
fn with_one_slot_the_second_compressor_takes_over_when_the_first_is_killed() {
    let folder = WorkFolder::with_spec(
        "  codec: {effort: Fast}\n  generator: {schema: {example: stock-market}, fileSize: 256Ki, filesPerMinute: 0, files: 30}",
    );
    let first = folder.start(&role("compress"));
    let decompressor = folder.start(&role("decompress"));
    folder.run_well(&[&role("generate")[..], &["--files", "30"]].concat());
    eventually_blocking("the first compresses", || {
        !folder.files("data/out").is_empty()
    });
    let second = folder.start(&role("compress"));
    first.kill();
    eventually_blocking("the second has done the rest", || {
        folder.files("data/out").len() == 30
    });
    assert_eq!(folder.files("data/in"), folder.files("data/out"));
    second.stop();
    decompressor.stop();
}

#[test]
fn a_file_is_announced_each_time_that_it_is_submitted() {
    let folder = WorkFolder::with_spec("  suspend: false");
    let workers = [
        folder.start(&role("compress")),
        folder.start(&role("decompress")),
    ];
    folder.write("mine/note.txt", b"a note\n");
    for _ in 0..2 {
        let said = folder.run_well(&[
            "submit",
            "mine/note.txt",
            "-p",
            "pipeline.yaml",
            "--data",
            "data",
        ]);
        assert!(said.contains("announced as note.txt"), "{said}");
    }
    eventually_blocking("it is restored", || {
        folder.log().matches("File compressed").count() == 2
            && folder.files("data/out").contains_key("note.txt")
    });
    assert_eq!(folder.files("data/out")["note.txt"], b"a note\n");
    workers.into_iter().for_each(|worker| {
        worker.stop();
    });
}

#[test]
fn two_submits_of_one_file_at_once_both_end_with_its_outcome_and_nothing_is_called_a_later_version()
{
    let folder = WorkFolder::with_spec("  source: {onRestored: Delete, settleSeconds: 0}");
    folder.write("data/in/a.txt", b"a note\n");
    let submit = [
        "submit",
        "data/in/a.txt",
        "--wait",
        "-p",
        "pipeline.yaml",
        "--data",
        "data",
    ];
    let waiting = [(); 2].map(|()| {
        let mut command = folder.command(&submit);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("streampress starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("readable");
        assert!(line.contains("announced as a.txt"), "{line}");
        (child, stdout)
    });
    let workers = ["compress", "decompress"].map(|name| folder.start(&role(name)));
    for (mut child, stdout) in waiting {
        let said: Vec<_> = stdout.lines().map(|line| line.expect("readable")).collect();
        assert!(child.wait().expect("ended").success());
        assert_eq!(said, ["data/in/a.txt: restored"]);
    }
    eventually_blocking("the source is deleted", || {
        folder.files("data/in").is_empty()
    });
    workers.into_iter().for_each(|worker| {
        worker.stop();
    });
    let log = folder.log();
    assert!(log.contains("The file was announced again since"), "{log}");
    assert!(
        !log.contains("later version") && !log.contains("newer version"),
        "{log}"
    );
}

#[test]
fn a_submit_that_waits_ends_with_what_became_of_each_file() {
    let folder = WorkFolder::with_spec("  suspend: false");
    folder.write("mine/note.txt", b"a note\n");
    let submit = |file, more: &[&str]| {
        folder.run(
            &[
                &[
                    "submit",
                    file,
                    "-p",
                    "pipeline.yaml",
                    "--data",
                    "data",
                    "--wait",
                ],
                more,
            ]
            .concat(),
        )
    };
    let output = submit("mine/note.txt", &["--timeout", "0"]);
    assert_eq!(output.status.code(), Some(1), "no worker is there");
    let said = text(&output.stderr);
    assert!(
        said.contains("note.txt: still under way after 0 s"),
        "{said}"
    );
    folder.write("data/in/gone.txt", b"gone soon\n");
    let gone = [
        "submit",
        "data/in/gone.txt",
        "--wait",
        "-p",
        "pipeline.yaml",
        "--data",
        "data",
    ];
    let mut command = folder.command(&gone);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut waiting = command.spawn().expect("streampress starts");
    let mut line = String::new();
    let stdout = waiting.stdout.take().expect("piped");
    let read = BufReader::new(stdout).read_line(&mut line);
    assert!(
        read.is_ok() && line.contains("announced as gone.txt"),
        "{line}"
    );
    std::fs::remove_file(folder.path("data/in/gone.txt")).expect("removed");
    let workers = [
        folder.start(&role("compress")),
        folder.start(&role("decompress")),
    ];
    let output = waiting.wait_with_output().expect("ended");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("gone.txt: dead letter: SourceMissing"),
        "{said}"
    );
    let output = submit("mine/note.txt", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("mine/note.txt: restored"), "{said}");
    assert_eq!(folder.files("data/out")["note.txt"], b"a note\n");
    workers.into_iter().for_each(|worker| {
        worker.stop();
    });
}

#[test]
fn a_missing_source_is_a_dead_letter_with_a_reason_and_redrive_sends_it_again() {
    let folder = WorkFolder::with_spec("  suspend: false");
    folder.write("data/in/late.csv", b"a,b\n1,2\n");
    folder.run_well(&[
        "submit",
        "data/in/late.csv",
        "-p",
        "pipeline.yaml",
        "--data",
        "data",
    ]);
    std::fs::rename(folder.path("data/in/late.csv"), folder.path("aside")).expect("moved away");
    let workers = [
        folder.start(&role("compress")),
        folder.start(&role("decompress")),
    ];
    eventually_blocking("it is a dead letter", || {
        folder.log().contains("SourceMissing")
    });
    let listed = folder.run_well(&[&["redrive"][..], &DATA, &["--list"]].concat());
    assert!(
        listed.contains("late.csv") && listed.contains("SourceMissing"),
        "{listed}"
    );
    std::fs::rename(folder.path("aside"), folder.path("data/in/late.csv")).expect("moved back");
    let said = folder.run_well(&[&["redrive"][..], &DATA].concat());
    // The advice of the dead letter is done.
    assert_eq!(said, "late.csv: sent again (SourceMissing)\n");
    eventually_blocking("it is restored", || {
        folder.files("data/out").contains_key("late.csv")
    });
    workers.into_iter().for_each(|worker| {
        worker.stop();
    });
}

#[test]
fn a_source_that_changed_after_it_was_announced_is_announced_anew() {
    let folder = WorkFolder::with_spec("  suspend: false");
    folder.write("data/in/a.txt", b"as announced");
    folder.run_well(&[
        "submit",
        "data/in/a.txt",
        "-p",
        "pipeline.yaml",
        "--data",
        "data",
    ]);
    folder.write("data/in/a.txt", b"as it is now");
    let workers = [
        folder.start(&role("compress")),
        folder.start(&role("decompress")),
    ];
    eventually_blocking("the new content is restored", || {
        folder.files("data/out").contains_key("a.txt")
    });
    assert_eq!(text(&folder.files("data/out")["a.txt"]), "as it is now");
    workers.into_iter().for_each(|worker| {
        worker.stop();
    });
    assert!(folder.log().contains("SourceChanged"), "{}", folder.log());
}

#[test]
fn a_folder_is_scanned_by_the_generator_role() {
    let folder = WorkFolder::with_spec("  source: {scanSeconds: 1, settleSeconds: 1}");
    let workers = [
        folder.start(&role("compress")),
        folder.start(&role("decompress")),
    ];
    for (name, content) in [
        ("first.log", &b"one line\n"[..]),
        ("sub/second.json", b"[1, 2]\n"),
    ] {
        // A scanner that starts anew announces nothing that was announced.
        let scanner = folder.start(&role("generate"));
        folder.write(&format!("data/in/{name}"), content);
        eventually_blocking("it is restored", || {
            folder.files("data/out").contains_key(name)
        });
        assert_eq!(scanner.stop(), Some(0), "{}", folder.log());
    }
    workers.into_iter().for_each(|worker| {
        worker.stop();
    });
    assert_eq!(folder.files("data/out"), folder.files("data/in"));
    let log = folder.log();
    assert_eq!(log.matches("File announced").count(), 2, "{log}");
}
