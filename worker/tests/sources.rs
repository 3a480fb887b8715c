//! What `streampress run` and `submit` do with the files of a source: which they announce, which they leave out, and that
//! what they say is true.

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{Command, Output};

use serde_json::Value;
use streampress_transport::contract_tests::eventually_blocking;
use support::{WorkFolder, text};

const SUBMIT: [&str; 4] = ["-p", "pipeline.yaml", "--data", "data"];

fn folder() -> WorkFolder {
    WorkFolder::with_spec("  suspend: false")
}

fn run(folder: &WorkFolder, args: &[&str]) -> Output {
    let all = [&["run", "pipeline.yaml", "--data", "data", "--json"], args].concat();
    folder.run(&all)
}

fn summary(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)))
}

fn submit(folder: &WorkFolder, files: &[&str]) -> Output {
    folder.run(&[&["submit"], files, &SUBMIT].concat())
}

#[test]
fn content_that_comes_back_is_restored_again_each_time() {
    let folder = folder();
    for content in ["first", "second", "first", "second, longer", "first"] {
        folder.write("in/a.txt", content);
        let output = run(&folder, &["--input", "in"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&folder.files("data/out")["a.txt"]), content);
    }
}

#[test]
fn a_run_without_changes_announces_nothing() {
    let folder = folder();
    folder.write("in/a.txt", "words");
    folder.run_summary(&["--input", "in"]);
    let inode = || {
        fs::metadata(folder.path("data/out/a.txt"))
            .expect("restored")
            .ino()
    };
    let before = inode();
    let summary = folder.run_summary(&["--input", "in"]);
    assert_eq!(summary["filesGenerated"], 1, "{summary}");
    assert_eq!(inode(), before, "the file was restored a second time");
}

#[test]
fn what_is_gone_from_the_destination_is_restored_again() {
    let folder = folder();
    folder.write("in/a.txt", "one");
    folder.write("in/b.txt", "two");
    folder.run_summary(&["--input", "in"]);
    fs::remove_dir_all(folder.path("data/out")).expect("removed");
    assert_eq!(folder.run_summary(&["--input", "in"])["filesRestored"], 2);
    assert_eq!(folder.files("data/out"), folder.files("in"));
}

#[test]
fn generated_files_that_are_gone_from_the_destination_are_restored_again() {
    let folder = WorkFolder::with_generator(3);
    folder.run_summary(&[]);
    fs::remove_dir_all(folder.path("data/out")).expect("removed");
    assert_eq!(folder.run_summary(&[])["filesRestored"], 3);
    assert_eq!(folder.files("data/out"), folder.files("data/in"));
}

#[test]
fn generated_files_are_renamed_or_deleted_as_others_are_once_they_are_restored() {
    for (on_restored, left) in [("Rename", 2), ("Delete", 0)] {
        let folder = WorkFolder::with_spec(&format!(
            "  generator: {{schema: {{example: iot-sensors}}, fileSize: 4Ki, filesPerMinute: 0, files: 2}}\n  source: {{onRestored: {on_restored}}}"
        ));
        for files in ["2", "3"] {
            folder.run_summary(&["--files", files]);
        }
        let sources = folder.files("data/in");
        let is_renamed = |name: &String| name.contains("_delete.");
        assert!(sources.keys().all(is_renamed), "{:?}", sources.keys());
        assert_eq!(sources.len(), left + left / 2, "{on_restored}");
        assert_eq!(folder.files("data/out").len(), 3);
    }
}

#[test]
fn a_folder_under_the_name_of_a_restored_file_counts_as_no_source() {
    let folder = folder();
    folder.write("in/a.txt", "one");
    folder.run_summary(&["--input", "in"]);
    for gone in ["data/out/a.txt", "in/a.txt"] {
        fs::remove_file(folder.path(gone)).expect("removed");
    }
    fs::create_dir(folder.path("in/a.txt")).expect("made");
    let summary = folder.run_summary(&["--input", "in"]);
    let counts = ["filesGone", "filesLeftOut", "filesFailed"].map(|count| &summary[count]);
    assert_eq!(counts, [1, 0, 0], "{summary}");
}

#[test]
fn what_is_gone_from_both_sides_is_not_called_restored() {
    let folder = folder();
    folder.write("in/a.txt", "one");
    folder.write("in/b.txt", "two");
    folder.run_summary(&["--input", "in"]);
    for gone in ["data/out/a.txt", "in/a.txt"] {
        fs::remove_file(folder.path(gone)).expect("removed");
    }
    let summary = folder.run_summary(&["--input", "in"]);
    assert_eq!(summary["filesRestored"], 1, "{summary}");
    assert_eq!(summary["filesGone"], 1, "{summary}");
}

#[test]
fn a_restored_copy_that_others_changed_stays_and_is_named() {
    let folder = folder();
    folder.write("in/a.txt", "one");
    folder.run_summary(&["--input", "in"]);
    folder.write("data/out/a.txt", "edited by a user");
    let output = run(&folder, &["--input", "in"]);
    let said = text(&output.stderr);
    assert!(
        said.contains("changed at the destination by others") && said.contains("a.txt"),
        "{said}"
    );
    assert_eq!(text(&folder.files("data/out")["a.txt"]), "edited by a user");
}

#[test]
fn another_input_folder_is_another_source() {
    let folder = folder();
    folder.write("A/app.log", "host A\n");
    folder.run_summary(&["--input", "A"]);
    folder.write("B/app.log", "host B\n");
    folder.run_summary(&["--input", "B"]);
    assert_eq!(text(&folder.files("data/out")["app.log"]), "host B\n");
}

#[test]
fn a_source_that_changed_after_it_was_announced_is_no_failure() {
    let folder = folder();
    folder.write("data/in/a.csv", "one\n");
    assert!(submit(&folder, &["data/in/a.csv"]).status.success());
    folder.write("data/in/a.csv", "two, longer\n");
    let summary = folder.run_summary(&[]);
    assert_eq!(summary["filesFailed"], 0, "{summary}");
    assert_eq!(summary["filesSuperseded"], 1, "{summary}");
    assert_eq!(summary["filesRestored"], 1, "{summary}");
    assert_eq!(text(&folder.files("data/out")["a.csv"]), "two, longer\n");
    folder.run_well(&["redrive", "pipeline.yaml", "--data", "data"]);
    assert_eq!(folder.run_summary(&[])["filesRestored"], 1);
}

#[test]
fn a_source_that_vanished_fails_with_its_reason_and_is_taken_when_it_is_back() {
    let folder = folder();
    folder.write("data/in/a.csv", "one\n");
    folder.write("data/in/b.csv", "two\n");
    assert!(
        submit(&folder, &["data/in/a.csv", "data/in/b.csv"])
            .status
            .success()
    );
    fs::rename(folder.path("data/in/a.csv"), folder.path("aside")).expect("moved away");
    let output = run(&folder, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    assert!(
        said.contains("failed: a.csv") && said.contains("SourceMissing"),
        "{said}"
    );
    assert_eq!(summary(&output)["filesRestored"], 1);
    fs::rename(folder.path("aside"), folder.path("data/in/a.csv")).expect("moved back");
    assert_eq!(folder.run_summary(&[])["filesRestored"], 2);
}

#[test]
fn records_that_are_gone_are_made_again_without_a_dead_letter_where_the_source_has_the_file() {
    let folder = folder();
    folder.write("data/in/a.txt", "words and more words");
    folder.write("data/in/moved.txt", "these words are elsewhere");
    let names = ["data/in/a.txt", "data/in/moved.txt"];
    assert!(submit(&folder, &names).status.success());
    let compressor = folder.start(&["compress", "pipeline.yaml", "--data", "data"]);
    streampress_transport::contract_tests::eventually_blocking("they are compressed", || {
        folder.log().matches("File compressed").count() == 2
    });
    compressor.stop();
    let segments = fs::read_dir(folder.path("data/stream")).expect("the stream's folder");
    let mut removed = 0;
    for segment in segments {
        fs::remove_file(segment.expect("an entry").path()).expect("removed");
        removed += 1;
    }
    assert!(removed > 0);
    fs::rename(folder.path("data/in/moved.txt"), folder.path("aside")).expect("moved away");
    let output = run(&folder, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let summary = summary(&output);
    assert_eq!(summary["filesRestored"], 1, "{summary}");
    assert_eq!(summary["filesFailed"], 1, "{summary}");
    let restored = folder.files("data/out");
    assert_eq!(text(&restored["a.txt"]), "words and more words");
    let letters = ["redrive", "--list", "pipeline.yaml", "--data", "data"];
    let listed = folder.run_well(&letters);
    assert!(
        listed.starts_with("moved.txt: dead (RecordMissing: ") && listed.lines().count() == 1,
        "{listed}"
    );
}

#[test]
fn what_cannot_be_taken_is_named_and_the_rest_is_restored() {
    let folder = folder();
    folder.write("in/good.csv", "1,2\n");
    folder.write("in/picture.png", "of no kind that is taken");
    fs::write(
        folder.path("in").join(OsStr::from_bytes(b"bad\xff.csv")),
        "x",
    )
    .expect("written");
    folder.write("outside.csv", "elsewhere");
    symlink(folder.path("outside.csv"), folder.path("in/link.csv")).expect("linked");
    let made = Command::new("mkfifo")
        .arg(folder.path("in/pipe.csv"))
        .status()
        .expect("mkfifo runs");
    assert!(made.success());
    let output = run(&folder, &["--input", "in"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let summary = summary(&output);
    assert_eq!(summary["filesRestored"], 1, "{summary}");
    assert_eq!(summary["filesLeftOut"], 3, "{summary}");
    let said = text(&output.stderr);
    for (name, remedy) in [
        ("bad\u{fffd}.csv", "rename it"),
        ("link.csv", "replace the link"),
        ("pipe.csv", "copy its content"),
    ] {
        let line = said.lines().find(|line| line.contains(name));
        assert!(line.is_some_and(|line| line.contains(remedy)), "{said}");
    }
    fs::remove_file(folder.path("in/pipe.csv")).expect("removed");
    fs::remove_file(folder.path("in/link.csv")).expect("removed");
    fs::remove_file(folder.path("in").join(OsStr::from_bytes(b"bad\xff.csv"))).expect("removed");
    assert_eq!(folder.run_summary(&["--input", "in"])["filesRestored"], 1);
}

#[cfg(target_os = "linux")]
#[test]
fn an_unreadable_file_and_an_unreadable_folder_are_named_and_the_rest_is_restored() {
    let folder = folder();
    for name in ["good.csv", "secret.csv", "locked/inner.csv"] {
        folder.write(&format!("in/{name}"), "1,2\n");
    }
    let permit = |name: &str, mode: u32| {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(folder.path(name), permissions).expect("set");
    };
    permit("in/secret.csv", 0o000);
    permit("in/locked", 0o000);
    let all = [
        "run",
        "pipeline.yaml",
        "--data",
        "data",
        "--json",
        "--input",
        "in",
    ];
    let output = folder.ordinary_command(&all).output().expect("it starts");
    permit("in/secret.csv", 0o600);
    permit("in/locked", 0o700);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let summary = summary(&output);
    assert_eq!(summary["filesRestored"], 1, "{summary}");
    assert_eq!(summary["filesLeftOut"], 2, "{summary}");
    let left_out = summary["leftOut"].as_array().expect("a list");
    for (left, (name, reason)) in left_out.iter().zip([
        ("locked", "make the folder readable"),
        (
            "secret.csv",
            "Permission denied (os error 13); once it can be read it is taken",
        ),
    ]) {
        assert_eq!(left[0], name, "{summary}");
        let why = left[1].as_str().expect("a reason");
        assert!(why.contains(reason), "{summary}");
        let line = said.lines().find(|line| line.contains(name));
        assert!(line.is_some_and(|line| line.contains(reason)), "{said}");
    }
    assert_eq!(folder.run_summary(&["--input", "in"])["filesRestored"], 3);
    assert_eq!(folder.files("data/out"), folder.files("in"));
}

#[test]
fn a_run_over_its_own_working_folder_takes_only_the_users_files() {
    let folder = folder();
    folder.write("mine.csv", "1,2\n");
    for _ in 0..2 {
        folder.run_well(&["run", "pipeline.yaml", "--input", "."]);
        let restored = folder.files("streampress-data/test/out");
        let names: Vec<_> = restored.keys().map(String::as_str).collect();
        assert_eq!(names, ["mine.csv"]);
    }
    let output = run(&folder, &["--input", "data"]);
    assert_eq!(output.status.code(), Some(1), "there is no such folder yet");
    folder.run_summary(&["--input", "."]);
    for own in ["data", "data/out", "data/reports"] {
        let output = run(&folder, &["--input", own]);
        assert_eq!(output.status.code(), Some(64), "{}", text(&output.stderr));
    }
}

#[test]
fn a_renamed_source_replaces_no_file_and_a_file_of_that_form_is_named() {
    let folder = WorkFolder::with_spec("  source: {onCompressed: Rename}");
    folder.write("data/in/users.csv", "all users\n");
    folder.write("data/in/users_delete.csv", "ids to delete: 7,9\n");
    let output = run(&folder, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    assert!(
        said.lines()
            .any(|line| line.contains("users_delete.csv") && line.contains("another name")),
        "{said}"
    );
    // No other way takes it either.
    folder.write("users_delete.csv", "ids to delete: 7,9\n");
    for name in ["data/in/users_delete.csv", "users_delete.csv"] {
        let output = submit(&folder, &[name]);
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        assert!(said.contains("give it another name"), "{said}");
    }
    let sources = folder.files("data/in");
    assert_eq!(text(&sources["users_delete.csv"]), "ids to delete: 7,9\n");
    assert_eq!(text(&sources["users-1_delete.csv"]), "all users\n");
    assert_eq!(sources.len(), 2);
    fs::rename(
        folder.path("data/in/users_delete.csv"),
        folder.path("data/in/ids.csv"),
    )
    .expect("renamed");
    let summary = folder.run_summary(&[]);
    assert_eq!(summary["filesLeftOut"], 0, "{summary}");
    assert_eq!(
        text(&folder.files("data/out")["ids.csv"]),
        "ids to delete: 7,9\n"
    );
}

#[test]
fn a_deleted_source_that_comes_again_is_taken_again() {
    let folder = WorkFolder::with_spec("  source: {onCompressed: Delete, settleSeconds: 0}");
    for _ in 0..2 {
        folder.write("data/in/daily.csv", "1,2\n");
        assert!(run(&folder, &[]).status.success());
        assert!(folder.files("data/in").is_empty());
        assert_eq!(text(&folder.files("data/out")["daily.csv"]), "1,2\n");
        fs::remove_file(folder.path("data/out/daily.csv")).expect("a consumer takes it");
    }
}

#[test]
fn submit_replaces_no_file_of_the_source() {
    let folder = folder();
    folder.write("data/in/x.csv", "mine, at the source");
    folder.write("a/x.csv", "another");
    let output = submit(&folder, &["a/x.csv"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("not replaced"), "{said}");
    assert_eq!(
        text(&folder.files("data/in")["x.csv"]),
        "mine, at the source"
    );
    folder.write("b/x.csv", "mine, at the source");
    let output = submit(&folder, &["b/x.csv"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn of_two_files_of_one_name_neither_is_submitted_and_others_are() {
    let folder = folder();
    folder.write("one/a.txt", "one");
    folder.write("two/a.txt", "two");
    folder.write("one/b.txt", "b");
    let output = submit(&folder, &["one/a.txt", "one/b.txt", "two/a.txt"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for (path, other) in [("one/a.txt", "two/a.txt"), ("two/a.txt", "one/a.txt")] {
        let why = format!("{path}: it would have the same name at the source as {other}");
        assert!(said.contains(&why), "{said}");
    }
    let copied = folder.files("data/in");
    assert_eq!(copied.keys().collect::<Vec<_>>(), ["b.txt"]);
    // One file named twice is one.
    let output = submit(&folder, &["one/a.txt", "one/a.txt"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).matches("announced").count(), 1);
}

#[test]
fn source_and_destination_that_are_one_folder_by_a_link_are_refused_and_nothing_is_deleted() {
    for (link, target) in [
        ("data/out", "in"),
        ("data/out", "in/sub"),
        ("data/in", "out"),
    ] {
        let folder = WorkFolder::with_spec("  source: {onRestored: Delete, settleSeconds: 0}");
        for real in ["in/sub", "out"] {
            fs::create_dir_all(folder.path("data").join(real)).expect("made");
        }
        fs::remove_dir_all(folder.path(link)).expect("removed");
        symlink(target, folder.path(link)).expect("a link");
        folder.write("data/in/a.txt", "words");
        for command in ["run", "compress", "decompress"] {
            let output = folder.run(&[command, "pipeline.yaml", "--data", "data"]);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(64), "{command}: {said}");
            assert!(said.contains("are one folder"), "{command}: {said}");
        }
        assert_eq!(text(&folder.files("data/in")["a.txt"]), "words");
    }
}

#[test]
fn a_link_to_nothing_at_the_destination_stays_and_is_named() {
    let folder = folder();
    folder.write("in/a.txt", "words");
    folder.write("in/b.txt", "others");
    fs::create_dir_all(folder.path("data/out")).expect("made");
    symlink("/nowhere/a.txt", folder.path("data/out/a.txt")).expect("a link");
    let output = run(&folder, &["--input", "in"]);
    assert_eq!(output.status.code(), Some(1));
    let summary = summary(&output);
    let counts = ["filesRestored", "filesFailed"].map(|it| &summary[it]);
    assert_eq!(counts, [1, 1], "{summary}");
    let why = summary["failures"].to_string();
    assert!(why.contains("a symbolic link to nothing"), "{why}");
    fs::read_link(folder.path("data/out/a.txt")).expect("the link is there still");
    fs::remove_file(folder.path("data/out/a.txt")).expect("removed");
    assert_eq!(folder.run_summary(&["--input", "in"])["filesRestored"], 2);
}

#[test]
fn a_failed_file_whose_source_the_pipeline_took_away_is_sent_again_by_the_next_run() {
    for action in ["Rename", "Delete"] {
        let folder = WorkFolder::with_spec(&format!(
            "  source: {{onCompressed: {action}, settleSeconds: 0}}"
        ));
        folder.write("data/in/a.txt", "the only copy");
        fs::create_dir_all(folder.path("data/out/a.txt")).expect("a folder in the way");
        let output = run(&folder, &[]);
        assert_eq!(summary(&output)["filesFailed"], 1, "{action}");
        fs::remove_dir(folder.path("data/out/a.txt")).expect("the name is free");
        let again = folder.run_summary(&[]);
        let counts = ["filesRestored", "filesFailed"].map(|it| &again[it]);
        assert_eq!(counts, [1, 0], "{action}: {again}");
        assert_eq!(text(&folder.files("data/out")["a.txt"]), "the only copy");
    }
}

#[test]
fn a_run_keeps_the_sources_of_copies_that_are_gone_or_changed_when_it_begins() {
    let folder = WorkFolder::with_spec("  source: {onRestored: Delete, settleSeconds: 0}");
    for name in ["gone.txt", "changed.txt", "there.txt"] {
        folder.write(&format!("data/in/{name}"), name);
    }
    let all = [
        "data/in/gone.txt",
        "data/in/changed.txt",
        "data/in/there.txt",
    ];
    assert!(submit(&folder, &all).status.success());
    let compressor = folder.start(&["compress", "pipeline.yaml", "--data", "data"]);
    eventually_blocking("all are packed", || {
        folder.log().matches("File compressed").count() == 3
    });
    compressor.stop();
    // Nothing takes the receipts.
    let decompressor = folder.start(&["decompress", "pipeline.yaml", "--data", "data"]);
    eventually_blocking("all are restored", || folder.files("data/out").len() == 3);
    decompressor.stop();
    fs::remove_file(folder.path("data/out/gone.txt")).expect("removed");
    folder.write("data/out/changed.txt", "edited by hand");
    let output = run(&folder, &[]);
    let summary = summary(&output);
    assert_eq!(summary["filesAltered"], 1, "{summary}");
    let left = folder.files("data/in");
    assert_eq!(left.keys().collect::<Vec<_>>(), ["changed.txt"]);
    assert_eq!(text(&folder.files("data/out")["gone.txt"]), "gone.txt");
}

#[test]
fn submit_announces_every_time_and_a_lost_copy_is_restored() {
    let folder = folder();
    folder.write("data/in/a.txt", "words");
    for _ in 0..2 {
        assert!(submit(&folder, &["data/in/a.txt"]).status.success());
        folder.run_summary(&[]);
        assert_eq!(text(&folder.files("data/out")["a.txt"]), "words");
        fs::remove_file(folder.path("data/out/a.txt")).expect("lost");
    }
}

#[test]
fn a_link_whose_target_may_be_taken_away_is_left_out_and_is_no_new_failure_once_it_is_gone() {
    for option in [
        "onCompressed: Rename",
        "onCompressed: Delete",
        "onRestored: Delete",
    ] {
        let folder = WorkFolder::with_spec(&format!("  source: {{{option}, settleSeconds: 0}}"));
        folder.write("data/in/a.csv", "1,2\n");
        symlink("a.csv", folder.path("data/in/link.csv")).expect("linked");
        let reason = format!("is a symbolic link, and source.{option} may take away the file");
        let refused = submit(&folder, &["data/in/link.csv"]);
        assert_eq!(refused.status.code(), Some(1));
        let said = text(&refused.stderr);
        assert!(said.contains(&format!("link.csv {reason}")), "{said}");
        let output = run(&folder, &[]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        let first = summary(&output);
        let counts = ["filesRestored", "filesFailed", "filesLeftOut"].map(|count| &first[count]);
        assert_eq!(counts, [1, 0, 1], "{first}");
        assert!(first["leftOut"].to_string().contains(&reason), "{first}");
        assert!(!folder.path("data/in/a.csv").exists());
        assert_eq!(folder.run_summary(&[])["filesLeftOut"], 0);
        // A link whose target was never there is one.
        symlink("nowhere.csv", folder.path("data/in/other.csv")).expect("linked");
        assert_eq!(summary(&run(&folder, &[]))["filesLeftOut"], 1);
    }
}

#[test]
fn a_submitted_link_is_announced_under_its_own_name() {
    let folder = folder();
    folder.write("data/in/sub/a.csv", "1,2\n");
    symlink("sub/a.csv", folder.path("data/in/link.csv")).expect("linked");
    symlink("sub", folder.path("data/in/folder")).expect("linked");
    for (path, name) in [
        ("data/in/link.csv", "link.csv"),
        // The folder's own name is the one that a scan takes.
        ("data/in/folder/a.csv", "sub/a.csv"),
    ] {
        let output = submit(&folder, &[path]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let said = text(&output.stdout);
        assert!(said.contains(&format!("announced as {name}, ")), "{said}");
    }
    assert_eq!(folder.run_summary(&[])["filesRestored"], 2);
}

#[test]
fn a_submitted_file_that_waits_to_hold_still_is_said_to_wait_for_that() {
    let folder = WorkFolder::with_spec("  source: {onCompressed: Delete, settleSeconds: 600}");
    folder.write("data/in/a.csv", "1,2\n");
    let options = ["data/in/a.csv", "--wait", "--timeout", "0"];
    let output = submit(&folder, &options);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    let expected =
        "1 file(s) wait: one that will be deleted must not have changed for 600 s before";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn a_name_cannot_write_to_the_terminal() {
    let folder = folder();
    folder.write("data/in/\u{1b}[2Jx.csv", "1");
    let output = submit(&folder, &["data/in/\u{1b}[2Jx.csv"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    fs::remove_file(folder.path("data/in/\u{1b}[2Jx.csv")).expect("removed");
    let ran = folder.run(&["run", "pipeline.yaml", "--data", "data"]);
    let listed = folder.run(&["redrive", "pipeline.yaml", "--data", "data", "--list"]);
    for said in [&output.stdout, &ran.stdout, &ran.stderr, &listed.stdout] {
        // Escaped, not dropped.
        assert!(text(said).contains("[2Jx.csv"), "{}", text(said));
        assert!(!said.contains(&0x1b), "{}", text(said));
    }
}

#[test]
fn a_file_without_a_pipeline_is_not_good() {
    let folder = folder();
    folder.write("empty.yaml", "");
    folder.write(
        "other.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n",
    );
    for file in ["empty.yaml", "other.yaml"] {
        let output = folder.run(&["validate", file]);
        assert_eq!(output.status.code(), Some(64), "{file}");
        assert!(text(&output.stderr).contains("no CompressionPipeline"));
    }
}

#[test]
fn an_inline_schema_that_no_generator_takes_fails_validation_and_run_alike() {
    let folder = WorkFolder::with_spec(
        "  generator: {schema: {inline: {fields: [{name: a, kind: int, min: 5, max: 1}]}}, files: 1}",
    );
    for command in [
        &["validate", "pipeline.yaml"][..],
        &["run", "pipeline.yaml"],
    ] {
        let output = folder.run(command);
        assert_eq!(output.status.code(), Some(64), "{command:?}");
    }
}

#[test]
fn a_report_inside_the_source_or_the_destination_fails_validation() {
    for inside in ["in", "out"] {
        let folder = WorkFolder::with_spec(&format!(
            "  report: {{location: \"file:///data/{inside}/results.html\"}}"
        ));
        let output = folder.run(&["validate", "pipeline.yaml"]);
        assert_eq!(output.status.code(), Some(64), "{inside}");
        assert!(text(&output.stderr).contains("spec.report.location"));
    }
}

#[test]
fn what_was_restored_at_another_destination_only_is_said_and_recovered_as_advised() {
    let spec = |out: &str| {
        format!(
            "  source: {{onRestored: Delete, writersRename: true}}\n  destination: {{location: \"file:///data/{out}\"}}"
        )
    };
    let folder = WorkFolder::with_spec(&spec("out"));
    folder.write("data/in/a.txt", "one");
    folder.write("data/in/b.txt", "two");
    assert_eq!(folder.run_summary(&[])["filesRestored"], 2);
    let yaml = text(&fs::read(folder.path("pipeline.yaml")).expect("the YAML"));
    let elsewhere = yaml.replace(&spec("out"), &spec("out2"));
    fs::write(folder.path("pipeline.yaml"), elsewhere).expect("written");
    let run = ["run", "pipeline.yaml", "--data", "data"];
    let output = folder.run(&run);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    assert!(
        text(&output.stdout).contains("0 restored identical, 2 restored at another destination")
    );
    let page = text(&fs::read(folder.path("data/reports/results.html")).expect("a page"));
    assert!(page.contains("2 files: restored at another destination and not at this one"));
    let said = text(&output.stderr);
    assert!(!said.contains("any more"), "{said}");
    let recovered = folder.type_last(&said);
    assert_eq!(recovered.status.code(), Some(0), "{recovered:?}");
    let summary = folder.run_summary(&[]);
    assert_eq!(summary["filesRestored"], 2, "{summary}");
    assert_eq!(summary["filesElsewhere"], 0, "{summary}");
    assert_eq!(folder.files("data/out2")["a.txt"], b"one");
}

#[test]
fn a_file_in_the_place_of_the_reserved_folder_is_named_before_anything_is_done() {
    for place in ["data/.streampress", "data/out/.streampress"] {
        let folder = WorkFolder::with_spec("  suspend: false");
        folder.write("data/in/a.txt", "one");
        folder.write(place, "theirs");
        let output = folder.run(&["run", "pipeline.yaml", "--data", "data"]);
        assert_eq!(output.status.code(), Some(1), "{place}");
        let said = text(&output.stderr);
        assert!(
            said.contains(&format!(
                "{place} is a file where a folder of streampress belongs; move it"
            )),
            "{said}"
        );
    }
}

#[test]
fn a_file_without_an_ending_is_an_example_only_where_there_is_no_other() {
    let folder = WorkFolder::with_spec("  suspend: false");
    folder.write("data/in/a.txt", "one");
    folder.write("data/in/.json", "{}");
    let said = || {
        text(
            &folder
                .run(&["run", "pipeline.yaml", "--data", "data"])
                .stderr,
        )
    };
    let first = said();
    assert!(
        first.contains(
            "1 file(s) of other kinds were not taken, for example .json, whose name has no ending"
        ),
        "{first}"
    );
    folder.write("data/in/b.pdf", "");
    let second = said();
    assert!(
        second.contains("for example b.pdf; source.formats says"),
        "{second}"
    );
}

#[test]
fn what_was_restored_from_another_folder_and_is_gone_is_not_called_restored() {
    let folder = folder();
    folder.write("in/a.txt", "one");
    folder.write("other/b.txt", "two");
    folder.run_summary(&["--input", "in"]);
    folder.run_summary(&["--input", "other"]);
    fs::remove_dir_all(folder.path("data/out")).expect("removed");
    let summary = folder.run_summary(&["--input", "other"]);
    assert_eq!(summary["filesRestored"], 1, "{summary}");
    assert_eq!(summary["filesGone"], 1, "{summary}");
}

#[test]
fn other_bytes_of_the_same_size_are_found_soon_after_a_restore() {
    let folder = folder();
    folder.write("in/a.txt", "one");
    folder.run_summary(&["--input", "in"]);
    folder.write("data/out/a.txt", "two");
    let summary = folder.run_summary(&["--input", "in"]);
    assert_eq!(summary["filesAltered"], 1, "{summary}");
    assert_eq!(summary["filesRestored"], 0, "{summary}");
}

/// A pipeline with a destination of its own beside the folder's first.
fn second_pipeline(folder: &WorkFolder, destination: &str, codec: &str) {
    let text = format!(
        "apiVersion: streampress.dev/v1alpha1\nkind: CompressionPipeline\nmetadata: {{name: second}}\nspec:\n  destination: {{location: 'file:///data/{destination}'}}\n{codec}"
    );
    folder.write("second.yaml", text);
}

/// Runs one of the folder's pipelines with the files of `input`.
fn run_from(folder: &WorkFolder, pipeline: &str, input: &str) -> Output {
    let args = [
        "run", pipeline, "--data", "data", "--json", "--input", input,
    ];
    folder.run(&args)
}

/// The same with those of `in`; no copy that it finds was changed by others.
fn run_of(folder: &WorkFolder, pipeline: &str) -> Value {
    let output = run_from(folder, pipeline, "in");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let summary = summary(&output);
    assert_eq!(summary["filesAltered"], 0, "{summary}");
    assert_eq!(summary["filesGone"], 0, "{summary}");
    summary
}

#[test]
fn pipelines_of_one_data_folder_each_keep_their_destination_up_to_date() {
    let folder = folder();
    second_pipeline(&folder, "out2", "");
    for content in ["one", "two, longer"] {
        folder.write("in/a.txt", content);
        folder.write("in/b.txt", "the same");
        for _ in 0..2 {
            for pipeline in ["pipeline.yaml", "second.yaml"] {
                let summary = run_of(&folder, pipeline);
                assert_eq!(summary["filesRestored"], summary["filesGenerated"]);
            }
            assert_eq!(folder.files("data/out"), folder.files("in"));
            assert_eq!(folder.files("data/out2"), folder.files("in"));
        }
    }
    // Idle runs announce nothing.
    let restored = || {
        ["data/out/a.txt", "data/out2/a.txt"]
            .map(|name| fs::metadata(folder.path(name)).expect("restored").ino())
    };
    let before = restored();
    run_of(&folder, "second.yaml");
    run_of(&folder, "pipeline.yaml");
    assert_eq!(restored(), before);
    // Each still names what others changed at its own destination.
    folder.write("data/out2/a.txt", "edited by a user");
    run_of(&folder, "pipeline.yaml");
    let altered = summary(&run_from(&folder, "second.yaml", "in"));
    assert_eq!(altered["filesAltered"], 1, "{altered}");
}

#[test]
fn files_in_the_originals_format_and_in_this_one_share_a_data_folder() {
    let folder = folder();
    second_pipeline(&folder, "seed", "  codec: {format: Seed}\n");
    for content in ["{\"a\": 1}", "{\"a\": 2, \"b\": [3]}"] {
        folder.write("in/x.json", content);
        for pipeline in ["second.yaml", "pipeline.yaml", "second.yaml", "second.yaml"] {
            let summary = run_of(&folder, pipeline);
            assert_eq!(summary["filesRestored"], summary["filesGenerated"]);
        }
        assert_eq!(folder.files("data/out"), folder.files("in"));
        let normal: Value =
            serde_json::from_slice(&folder.files("data/seed")["x.json"]).expect("JSON");
        let original: Value = serde_json::from_str(content).expect("JSON");
        assert_eq!(normal, original);
    }
    folder.write("data/seed/x.json", "edited by a user");
    let altered = summary(&run_from(&folder, "second.yaml", "in"));
    assert_eq!(altered["filesAltered"], 1, "{altered}");
}

#[test]
fn files_of_two_sources_and_two_destinations_are_not_gone_from_each_others() {
    let folder = folder();
    second_pipeline(&folder, "out2", "");
    folder.write("in/a.txt", "one");
    folder.write("in2/b.txt", "two");
    run_of(&folder, "pipeline.yaml");
    let second = summary(&run_from(&folder, "second.yaml", "in2"));
    assert_eq!(second["filesGone"], 0, "{second}");
    run_of(&folder, "pipeline.yaml");
    assert_eq!(folder.files("data/out2"), folder.files("in2"));
}

#[test]
fn files_in_a_folder_of_a_reserved_name_are_left_out_and_named() {
    let folder = folder();
    folder.write("in/a.json", "1");
    folder.write("in/.streampress/x.json", "2");
    folder.write("in/sub/.streampress/y.json", "3");
    let output = run(&folder, &["--input", "in"]);
    assert_eq!(output.status.code(), Some(1));
    let summary = summary(&output);
    assert_eq!(summary["filesLeftOut"], 2, "{summary}");
    let left_out = summary["leftOut"].to_string();
    for words in [
        ".streampress/x.json",
        "sub/.streampress/y.json",
        "reserved for Streampress",
    ] {
        assert!(left_out.contains(words), "{left_out}");
    }
    assert_eq!(folder.files("data/out").len(), 1);
}
