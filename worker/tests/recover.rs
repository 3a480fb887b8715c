//! `streampress recover` after the database of a data folder, and with it all queues, is lost.

#[path = "support/recovered.rs"]
mod recovered;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use recovered::line_of;
use serde_json::{Value, json};
use streampress_transport::contract_tests::eventually_blocking;
use support::{WorkFolder, text};

const DATA: [&str; 3] = ["pipeline.yaml", "--data", "data"];
const SUBMIT: [&str; 4] = ["-p", "pipeline.yaml", "--data", "data"];

fn role(name: &'static str) -> Vec<&'static str> {
    [&[name][..], &DATA].concat()
}

fn compress(folder: &WorkFolder, files: usize) {
    let before = folder.log().matches("File compressed").count();
    let compressor = folder.start(&role("compress"));
    eventually_blocking("all files are packed", || {
        folder.log().matches("File compressed").count() == before + files
    });
    assert_eq!(compressor.stop(), Some(0), "{}", folder.log());
}

/// Restores until all messages are processed.
fn decompress(folder: &WorkFolder, is_done: impl Fn() -> bool) {
    let decompressor = folder.start(&role("decompress"));
    eventually_blocking("all files are restored", is_done);
    assert_eq!(decompressor.stop(), Some(0), "{}", folder.log());
}

fn lose_database(folder: &WorkFolder) {
    for name in ["streampress.db", "streampress.db-wal", "streampress.db-shm"] {
        let _ = fs::remove_file(folder.path("data").join(name));
    }
    assert!(!folder.path("data/streampress.db").exists());
}

/// The manifests in the queues.
fn manifests(folder: &WorkFolder) -> Vec<Value> {
    let database = rusqlite::Connection::open(folder.path("data/streampress.db")).expect("opens");
    let mut bodies = database
        .prepare("SELECT body FROM messages")
        .expect("a table");
    let bodies = bodies.query_map([], |row| row.get::<_, String>(0));
    let bodies = bodies.expect("readable").map(|body| body.expect("text"));
    let messages = bodies.map(|body| serde_json::from_str(&body).expect("JSON"));
    messages
        .filter(|message: &Value| message["records"].is_object())
        .collect()
}

fn recover(folder: &WorkFolder) -> (Option<i32>, String) {
    recover_with(folder, &[])
}

fn recover_with(folder: &WorkFolder, options: &[&str]) -> (Option<i32>, String) {
    let output = folder.run(&[&role("recover")[..], options].concat());
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    (output.status.code(), said)
}

fn restored(folder: &WorkFolder) -> usize {
    let names = folder.files("data/out").into_keys();
    names.filter(|name| !name.starts_with('.')).count()
}

#[test]
fn every_packed_file_is_restored_from_the_stream_alone() {
    let folder = WorkFolder::with_generator(12);
    folder.run_well(&[&role("generate")[..], &["--files", "12"]].concat());
    // More than a record, packed alone.
    let large: String = (0..200_000u64)
        .map(|row| format!("{}\n", row * row))
        .collect();
    folder.write("mine/large.txt", &large);
    folder.run_well(&[&["submit", "mine/large.txt"][..], &SUBMIT].concat());
    compress(&folder, 13);
    let packed = manifests(&folder);
    lose_database(&folder);
    let (code, said) = recover(&folder);
    assert!(said.contains("13 file(s) in the stream: 13 sent"), "{said}");
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(packed.len(), 13);
    for manifest in &packed {
        let line = line_of(manifest);
        assert!(said.contains(&line), "{line}{said}");
    }
    let bundled = packed.iter().filter(|it| it["bundle"].is_object());
    assert!(bundled.count() > 1, "no files were packed together: {said}");
    // The manifests of now are those of before, each with its version and its place in the bundle.
    let facts = |manifests: &[Value]| -> BTreeMap<String, Value> {
        let fact = |it: &Value| {
            let facts = ["file", "fileVersion", "records", "bundle"].map(|field| &it[field]);
            (it["file"]["name"].to_string(), json!(facts))
        };
        manifests.iter().map(fact).collect()
    };
    assert_eq!(facts(&manifests(&folder)), facts(&packed));
    decompress(&folder, || restored(&folder) == 13);
    assert_eq!(folder.files("data/in"), folder.files("data/out"));

    // Again: what is in place stays as it is.
    let inode = || fs::metadata(folder.path("data/out/large.txt")).map(|it| it.ino());
    let before = inode().expect("restored");
    let (code, said) = recover(&folder);
    assert_eq!(code, Some(0), "{said}");
    folder.write("mine/after.txt", "after all");
    folder.run_well(&[&["submit", "mine/after.txt"][..], &SUBMIT].concat());
    compress(&folder, 1);
    decompress(&folder, || restored(&folder) == 14);
    assert_eq!(inode().expect("there"), before);
    assert_eq!(folder.files("data/in"), folder.files("data/out"));
}

#[test]
fn a_damaged_database_is_named_with_its_damage_and_the_remedy_works() {
    let folder = WorkFolder::with_spec("  codec: {effort: Fast}");
    for name in ["a", "b"] {
        folder.write(&format!("data/in/{name}.txt"), name.repeat(1000));
    }
    folder.run_summary(&[]);
    let path = folder.path("data/streampress.db");
    let database = rusqlite::Connection::open(&path).expect("opens");
    let written = database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    written.expect("all is in the one file");
    let page_of = |table: &str| -> usize {
        let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
        let page: i64 = database
            .query_row(sql, [table], |row| row.get(0))
            .expect("a table");
        4096 * (usize::try_from(page).expect("a number") - 1)
    };
    // Of a queue, of the journal, of an index: the commands that only read other pages do not notice.
    let pages = ["messages", "files", "sources_file"].map(page_of);
    drop(database);
    let whole = fs::read(&path).expect("readable");
    let page = fs::read(folder.path("data/reports/results.html")).expect("a page");
    for (at, what) in [(0, "is not a database"), (100, "is damaged")]
        .into_iter()
        .chain(pages.map(|page| (page, "is damaged")))
    {
        let mut bytes = whole.clone();
        bytes[at..at + 16].fill(0xab);
        fs::write(&path, bytes).expect("written");
        let (code, said) = recover(&folder);
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains("data/streampress.db") && said.contains(what),
            "{at}: {said}"
        );
        assert!(
            said.contains("move it and its -wal and -shm files away")
                && said.contains("mkdir data/damaged && mv data/streampress.db* data/damaged/"),
            "{said}"
        );
        assert!(!said.contains("sent"), "{said}");
        // A page with false counts would take the place of the good one.
        let report = folder.run(&role("report"));
        assert_eq!(report.status.code(), Some(1), "{at}");
        assert!(text(&report.stderr).contains(what), "{at}");
        let kept = fs::read(folder.path("data/reports/results.html"));
        assert_eq!(kept.expect("the page"), page, "{at}");
    }
    lose_database(&folder);
    fs::remove_dir_all(folder.path("data/out")).expect("removed");
    let (code, said) = recover(&folder);
    assert_eq!(code, Some(0), "{said}");
    decompress(&folder, || restored(&folder) == 2);
    assert_eq!(folder.files("data/in"), folder.files("data/out"));
    // What was recovered counts as before.
    let database = rusqlite::Connection::open(&path).expect("opens");
    let sql = "SELECT announced, compressed, restored, bytes_raw FROM totals";
    let totals = database.query_row(sql, [], |row| {
        let number = |column: usize| row.get::<_, i64>(column);
        Ok([number(0)?, number(1)?, number(2)?, number(3)?])
    });
    assert_eq!(totals.expect("readable"), [2, 2, 2, 2000]);
}

/// Copies the database, as a backup does while nothing works.
fn copy_database(from: &Path, to: &Path) {
    for name in ["streampress.db", "streampress.db-wal", "streampress.db-shm"] {
        let _ = fs::remove_file(to.join(name));
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name)).expect("copied");
        }
    }
}

#[test]
fn a_version_that_failed_after_an_earlier_state_was_put_back_is_superseded_by_the_recovered_one() {
    for on_restored in ["Rename", "Delete"] {
        let folder = WorkFolder::with_spec(&format!(
            "  source: {{onRestored: {on_restored}, settleSeconds: 0}}"
        ));
        let submit = |content: &str| {
            folder.write("data/in/a.txt", content);
            folder.run_well(&[&["submit", "data/in/a.txt"][..], &SUBMIT].concat());
        };
        submit("version 1");
        fs::create_dir(folder.path("backup")).expect("made");
        copy_database(&folder.path("data"), &folder.path("backup"));
        submit("version 2 is longer");
        folder.run_summary(&[]);
        copy_database(&folder.path("backup"), &folder.path("data"));
        // The source of version 1 is not there any more.
        let output = folder.run(&role("run"));
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{said}");
        let (code, said) = recover(&folder);
        assert_eq!(code, Some(0), "{said}");
        let summary = folder.run_summary(&[]);
        let counts = ["filesFailed", "filesSuperseded", "filesRestored"].map(|it| &summary[it]);
        assert_eq!(counts, [0, 1, 1], "{summary}");
        let restored = folder.files("data/out")["a.txt"].clone();
        assert_eq!(text(&restored), "version 2 is longer");
        let output = folder.run(&role("run"));
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
}

#[test]
fn a_database_put_back_to_between_announcing_and_packing_is_said_and_its_files_are_recovered() {
    let folder = WorkFolder::with_spec("  source: {onRestored: Delete, settleSeconds: 0}");
    folder.write("data/in/a.txt", "words");
    folder.run_well(&[&["submit", "data/in/a.txt"][..], &SUBMIT].concat());
    fs::create_dir(folder.path("backup")).expect("made");
    copy_database(&folder.path("data"), &folder.path("backup"));
    folder.run_summary(&[]);
    assert!(!folder.path("data/in/a.txt").exists());
    // A consumer took it: only the stream has it.
    fs::remove_file(folder.path("data/out/a.txt")).expect("removed");
    copy_database(&folder.path("backup"), &folder.path("data"));
    let output = folder.run(&role("run"));
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("was put back to an earlier state"), "{said}");
    let recovered = folder.type_last(&said);
    let said = text(&recovered.stderr);
    assert_eq!(recovered.status.code(), Some(0), "{said}");
    let summary = folder.run_summary(&[]);
    let counts = ["filesFailed", "filesRestored"].map(|it| &summary[it]);
    assert_eq!(counts, [0, 1], "{summary}");
    assert_eq!(text(&folder.files("data/out")["a.txt"]), "words");
}

#[test]
fn restored_files_that_were_taken_away_are_recovered_only_where_that_is_requested() {
    let folder = WorkFolder::with_spec("  source: {onRestored: Delete, settleSeconds: 0}");
    for name in ["kept", "taken"] {
        folder.write(&format!("data/in/{name}.txt"), name);
    }
    folder.run_summary(&[]);
    assert_eq!(folder.files("data/in").len(), 0);
    fs::remove_file(folder.path("data/out/taken.txt")).expect("removed");
    let output = folder.run(&role("run"));
    let said = text(&output.stderr);
    assert!(said.contains(": streampress recover --gone"), "{said}");
    let (code, said) = recover(&folder);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("taken.txt: restored before, and not at the destination any more"),
        "{said}"
    );
    assert!(said.contains("kept.txt: restored before ("), "{said}");
    assert!(said.contains("1 of those restored before"), "{said}");
    let summary = folder.run_summary(&[]);
    assert_eq!(summary["filesGone"], 1, "{summary}");
    let typed = folder.type_last(&said);
    let said = text(&typed.stderr);
    assert_eq!(typed.status.code(), Some(0), "{said}");
    let summary = folder.run_summary(&[]);
    let counts = ["filesGone", "filesRestored", "filesFailed"].map(|it| &summary[it]);
    assert_eq!(counts, [0, 2, 0], "{summary}");
    assert_eq!(text(&folder.files("data/out")["taken.txt"]), "taken");
}

#[test]
fn what_cannot_be_restored_again_stops_no_other_and_is_a_failure_like_any_other() {
    let folder = WorkFolder::with_spec("  source: {onRestored: Delete, settleSeconds: 0}");
    for name in ["a", "b"] {
        folder.write(&format!("data/in/{name}.txt"), name);
    }
    folder.run_summary(&[]);
    let obstruct = || {
        let _ = fs::remove_file(folder.path("data/out/a.txt"));
        fs::create_dir(folder.path("data/out/a.txt")).expect("made");
    };
    obstruct();
    fs::remove_file(folder.path("data/out/b.txt")).expect("removed");
    let (code, said) = recover_with(&folder, &["--gone"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("a.txt: not sent") && said.contains("b.txt: sent"),
        "{said}"
    );
    fs::remove_dir(folder.path("data/out/a.txt")).expect("removed");
    let (code, said) = recover_with(&folder, &["--gone"]);
    assert_eq!(code, Some(0), "{said}");
    // It is in the way again before the worker comes.
    obstruct();
    let output = folder.run(&[&role("run")[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let list = folder.run_well(&[&role("redrive")[..], &["--list"]].concat());
    assert!(list.contains("a.txt: dead"), "{list}");
    fs::remove_dir(folder.path("data/out/a.txt")).expect("removed");
    folder.run_well(&role("redrive"));
    let summary = folder.run_summary(&[]);
    assert_eq!(summary["filesRestored"], 2, "{summary}");
    assert_eq!(text(&folder.files("data/out")["a.txt"]), "a");
}

#[test]
fn what_lay_in_a_folder_whose_name_a_file_has_by_now_is_not_sent() {
    let folder = WorkFolder::with_spec("  source: {settleSeconds: 0}");
    folder.write("data/in/p.txt/i.txt", "inner");
    folder.run_summary(&[]);
    for side in ["in", "out"] {
        fs::remove_dir_all(folder.path(&format!("data/{side}/p.txt"))).expect("removed");
    }
    folder.write("data/in/p.txt", "outer");
    folder.run_summary(&[]);
    let (code, said) = recover_with(&folder, &["--gone"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("p.txt/i.txt: not sent") && said.contains("p.txt is a file"),
        "{said}"
    );
    assert_eq!(folder.run_summary(&[])["filesFailed"], 0);
}

#[test]
fn the_only_copies_of_files_stay_after_a_database_was_put_back_however_old_they_are() {
    let folder = WorkFolder::with_spec("  source: {onCompressed: Delete, settleSeconds: 0}");
    folder.write("data/in/first.txt", "first");
    folder.run_summary(&[]);
    fs::create_dir(folder.path("backup")).expect("made");
    copy_database(&folder.path("data"), &folder.path("backup"));
    let names = ["a", "b", "c"];
    for name in names {
        let path = format!("data/in/{name}.txt");
        folder.write(&path, name);
        folder.run_well(&[&["submit", &path][..], &SUBMIT].concat());
    }
    compress(&folder, 3);
    assert_eq!(folder.files("data/in").len(), 0);
    copy_database(&folder.path("backup"), &folder.path("data"));
    let old = std::time::SystemTime::now() - Duration::from_secs(3 * 24 * 3600);
    for segment in fs::read_dir(folder.path("data/stream")).expect("readable") {
        let path = segment.expect("readable").path();
        let file = fs::File::options().append(true).open(path).expect("opens");
        file.set_modified(old).expect("set");
    }
    // Whatever is started first.
    folder.run(&role("run"));
    let output = folder.run(&[&role("run")[..], &["--json"]].concat());
    let summary: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("the summary is JSON");
    assert_eq!(summary["databasePutBack"], true, "{summary}");
    let list = folder.run_well(&[&role("recover")[..], &["--list"]].concat());
    for name in names {
        assert!(list.contains(&format!("{name}.txt: to be sent")), "{list}");
    }
    let (code, said) = recover(&folder);
    assert_eq!(code, Some(0), "{said}");
    let summary = folder.run_summary(&[]);
    assert_eq!(summary["databasePutBack"], false, "{summary}");
    let restored = folder.files("data/out");
    for name in names {
        assert_eq!(text(&restored[&format!("{name}.txt")]), name);
    }
}

#[test]
fn all_files_of_a_destination_that_is_new_are_recovered_where_that_is_requested() {
    let folder = WorkFolder::with_spec("  source: {onRestored: Delete, settleSeconds: 0}");
    folder.write("data/in/a.txt", "words");
    folder.run_summary(&[]);
    fs::create_dir(folder.path("data/other")).expect("made");
    let yaml = fs::read_to_string(folder.path("pipeline.yaml")).expect("readable");
    folder.write(
        "pipeline.yaml",
        yaml + "  destination: {location: \"file:///data/other\"}\n",
    );
    let (code, said) = recover_with(&folder, &["--gone"]);
    assert_eq!(code, Some(0), "{said}");
    let summary = folder.run_summary(&[]);
    assert_eq!(summary["filesRestored"], 1, "{summary}");
    assert_eq!(text(&folder.files("data/other")["a.txt"]), "words");
}

#[test]
fn a_version_after_an_earlier_state_of_the_database_was_put_back_is_newer_than_all_in_the_stream() {
    for recovers_first in [true, false] {
        let folder = WorkFolder::with_spec("  codec: {effort: Fast}");
        let submit = |content: &str| {
            folder.write("data/in/a.txt", content);
            folder.run_well(&[&["submit", "data/in/a.txt"][..], &SUBMIT].concat());
        };
        let restore = |content: &str| {
            submit(content);
            compress(&folder, 1);
            decompress(&folder, || {
                folder.files("data/out").get("a.txt").map(Vec::as_slice) == Some(content.as_bytes())
            });
        };
        restore("version 1");
        fs::create_dir(folder.path("backup")).expect("made");
        copy_database(&folder.path("data"), &folder.path("backup"));
        restore("version 2");
        restore("version 3");
        copy_database(&folder.path("backup"), &folder.path("data"));
        let recover_well = || {
            let (code, said) = recover(&folder);
            assert_eq!(code, Some(0), "{said}");
        };
        if recovers_first {
            recover_well();
        }
        let output = folder.run(&role("run"));
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.success(), recovers_first, "{said}");
        let notice = said.matches("put back to an earlier state").count();
        // Once while it runs, once beside the summary.
        assert_eq!(notice, if recovers_first { 0 } else { 2 }, "{said}");
        copy_database(&folder.path("backup"), &folder.path("data"));
        if recovers_first {
            recover_well();
        }
        let first = folder.run(&[&["submit", "data/in/a.txt"][..], &SUBMIT].concat());
        let said = text(&first.stderr).contains("put back to an earlier state");
        assert_eq!(said, !recovers_first, "{}", text(&first.stderr));
        submit("version 4");
        match recovers_first {
            true => assert_eq!(folder.run_summary(&[])["databasePutBack"], false),
            // Until recover ran, although messages were sent since.
            false => run_put_back(&folder),
        }
        let there = || folder.files("data/out")["a.txt"].clone();
        assert_eq!(text(&there()), "version 4", "{recovers_first}");
        recover_well();
        let summary = folder.run_summary(&[]);
        assert_eq!(text(&there()), "version 4", "{recovers_first}");
        assert_eq!(summary["filesAltered"], 0, "{summary}");
        // All that the stream has, without any database.
        lose_database(&folder);
        recover_well();
        folder.run_summary(&[]);
        assert_eq!(text(&there()), "version 4", "{recovers_first}");
    }
}

/// A `run` that restores what it can, says that the database was put back, and exits with 1: what the stream alone has is at
/// neither end.
fn run_put_back(folder: &WorkFolder) {
    let output = folder.run(&[&role("run")[..], &["--json"]].concat());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let summary: Value = serde_json::from_slice(&output.stdout).expect("the summary is JSON");
    assert_eq!(summary["databasePutBack"], true, "{said}");
}

#[test]
fn a_run_beside_the_stream_of_a_lost_database_says_so_until_its_files_are_recovered() {
    let folder = WorkFolder::with_spec(
        "  codec: {effort: Fast}\n  source: {onCompressed: Delete, settleSeconds: 1}",
    );
    folder.write("data/in/a.txt", "only in the stream");
    folder.run_well(&[&["submit", "data/in/a.txt"][..], &SUBMIT].concat());
    compress(&folder, 1);
    lose_database(&folder);
    folder.write("data/in/b.txt", "another");
    let output = folder.run(&role("run"));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("is lost"), "{said}");
    let list = [&role("redrive")[..], &["--list"]].concat();
    let output = folder.run(&list);
    assert!(text(&output.stderr).contains("is lost"), "{output:?}");
    let (code, said) = recover(&folder);
    assert_eq!(code, Some(0), "{said}");
    let summary = folder.run_summary(&[]);
    assert_eq!(summary["databasePutBack"], false);
    let restored = folder.files("data/out");
    assert_eq!(text(&restored["a.txt"]), "only in the stream");
    // Where no source is left, nothing is looked for elsewhere.
    lose_database(&folder);
    let output = folder.run(&role("run"));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("is lost"), "{said}");
    // A source that is still there is announced again: nothing is lost with the database then.
    lose_database(&folder);
    folder.write("data/in/a.txt", "only in the stream");
    folder.write("data/in/b.txt", "another");
    let summary = folder.run_summary(&[]);
    assert_eq!(summary["databasePutBack"], false, "{summary}");
}

#[test]
fn what_was_restored_before_an_earlier_state_was_put_back_is_not_taken_for_a_file_of_others() {
    for sends_at_once in [true, false] {
        let folder = WorkFolder::with_spec("  codec: {effort: Fast}");
        let submit = |content: &str| {
            folder.write("data/in/a.txt", content);
            folder.run_well(&[&["submit", "data/in/a.txt"][..], &SUBMIT].concat());
        };
        let there = || folder.files("data/out")["a.txt"].clone();
        submit("version 1");
        folder.run_summary(&[]);
        fs::create_dir(folder.path("backup")).expect("made");
        copy_database(&folder.path("data"), &folder.path("backup"));
        for content in ["version 2", "version 3 is longer"] {
            submit(content);
            folder.run_summary(&[]);
        }
        copy_database(&folder.path("backup"), &folder.path("data"));
        if !sends_at_once {
            // What is sent hides that the database was put back.
            folder.write("data/in/other.txt", "other");
            run_put_back(&folder);
            folder.write("data/out/b.txt", "theirs");
            folder.write("data/in/b.txt", "ours");
            run_put_back(&folder);
            assert_eq!(text(&there()), "version 3 is longer");
        }
        submit("version 4");
        run_put_back(&folder);
        assert_eq!(text(&there()), "version 4");
        let displaced = folder.files("data/out/.streampress/displaced");
        let theirs: &[&[u8]] = match sends_at_once {
            true => &[],
            false => &[b"theirs"],
        };
        assert_eq!(displaced.values().collect::<Vec<_>>(), theirs);
        let (code, said) = recover(&folder);
        assert_eq!(code, Some(0), "{said}");
        folder.run_summary(&[]);
        assert_eq!(text(&there()), "version 4");
    }
}

#[test]
fn later_versions_are_not_called_changed_by_others_after_an_earlier_state_was_put_back() {
    let folder = WorkFolder::with_spec(
        "  source: {onRestored: Delete, settleSeconds: 0}\n  codec: {effort: Fast}",
    );
    let run = ["run", "pipeline.yaml", "--data", "data"];
    folder.write("data/in/a.txt", "version 1");
    folder.run_well(&run);
    fs::create_dir(folder.path("backup")).expect("made");
    copy_database(&folder.path("data"), &folder.path("backup"));
    folder.write("data/in/a.txt", "version 2");
    folder.run_well(&run);
    copy_database(&folder.path("backup"), &folder.path("data"));
    folder.write("data/in/b.txt", "sent since");
    run_put_back(&folder);
    let output = folder.run(&run);
    let said = text(&output.stderr);
    assert!(
        !said.contains("changed at the destination by others"),
        "{said}"
    );
    assert!(said.contains("use 'streampress recover'"), "{said}");
    let (code, said) = recover(&folder);
    assert_eq!(code, Some(0), "{said}");
    folder.run_well(&run);
    // Not every version is the pipeline's.
    folder.write("data/out/a.txt", "edited");
    let output = folder.run(&run);
    let said = text(&output.stderr);
    assert!(
        said.contains("changed at the destination by others"),
        "{said}"
    );
}

#[test]
fn a_later_announcement_is_newer_than_what_was_recovered() {
    let folder = WorkFolder::with_spec("  codec: {effort: Fast}");
    let submit = |content: &str| {
        folder.write("data/in/a.txt", content);
        folder.run_well(&[&["submit", "data/in/a.txt"][..], &SUBMIT].concat());
    };
    for content in ["first", "second"] {
        submit(content);
        compress(&folder, 1);
    }
    lose_database(&folder);
    submit("third");
    compress(&folder, 1);
    let (code, said) = recover(&folder);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("1 file(s) in the stream: 1 sent"), "{said}");
    let content = || {
        folder
            .files("data/out")
            .get("a.txt")
            .map(|bytes| text(bytes))
    };
    decompress(&folder, || content().as_deref() == Some("third"));
    lose_database(&folder);
    recover(&folder);
    folder.write("mine/b.txt", "after all");
    folder.run_well(&[&["submit", "mine/b.txt"][..], &SUBMIT].concat());
    compress(&folder, 1);
    decompress(&folder, || folder.files("data/out").contains_key("b.txt"));
    assert_eq!(content().as_deref(), Some("third"));
}

#[test]
fn what_cannot_be_recovered_is_said() {
    let folder = WorkFolder::with_spec("  codec: {effort: Fast}");
    let (code, said) = recover(&folder);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("there is no data folder data: nothing ran there yet"),
        "{said}"
    );
    fs::create_dir_all(folder.path("data/stream")).expect("made");
    folder.write("data/streampress.db", "there");
    let (code, said) = recover(&folder);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("the stream of the data folder is empty")
            && said.contains("put what data/stream held back"),
        "{said}"
    );
    fs::remove_dir(folder.path("data/stream")).expect("removed");
    let (code, said) = recover(&folder);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("data/stream is missing, and nothing is recovered without it: put it back"),
        "{said}"
    );
    fs::remove_file(folder.path("data/streampress.db")).expect("removed");
    folder.write("data/stream/1.seg", "");
    let output = folder.run(&role("redrive"));
    let said = text(&output.stderr);
    assert!(
        said.contains("is lost")
            && said.ends_with(": streampress recover pipeline.yaml --data data\n"),
        "{said}"
    );
    let original = WorkFolder::with_spec("  codec: {format: Seed}");
    let (code, said) = recover(&original);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("codec.format Hybrid"), "{said}");
}

#[test]
fn what_is_damaged_in_the_stream_is_named() {
    let folder = WorkFolder::with_spec("  codec: {effort: Fast}");
    folder.write("data/in/a.txt", "words");
    folder.run_well(&[&["submit", "data/in/a.txt"][..], &SUBMIT].concat());
    compress(&folder, 1);
    lose_database(&folder);
    let mut names = folder.files("data/stream").into_keys();
    let segment = names.find(|name| name.ends_with(".seg"));
    let segment = folder.path("data/stream").join(segment.expect("a segment"));
    let mut bytes = fs::read(&segment).expect("readable");
    // Of the first frame.
    bytes[10] ^= 1;
    fs::write(&segment, bytes).expect("written");
    let (code, said) = recover(&folder);
    assert!(
        said.contains("bytes are damaged; what they held is not recovered"),
        "{said}"
    );
    assert_eq!(code, Some(1), "{said}");
}

#[test]
fn an_older_version_does_not_replace_a_restored_file_where_the_newer_one_is_damaged_in_the_stream()
{
    let folder = WorkFolder::with_spec("  codec: {effort: Fast}");
    let restore = |content: &str| {
        folder.write("data/in/a.txt", content);
        folder.run_well(&[&["submit", "data/in/a.txt"][..], &SUBMIT].concat());
        compress(&folder, 1);
        let restored = || folder.files("data/out").get("a.txt").map(|it| text(it));
        decompress(&folder, || restored().as_deref() == Some(content));
    };
    restore("first");
    let before = folder.files("data/stream");
    restore("second");
    lose_database(&folder);
    let after = folder.files("data/stream").into_iter();
    let newer = after.filter(|(name, bytes)| before.get(name) != Some(bytes));
    for (name, mut bytes) in newer.filter(|(name, _)| name.ends_with(".seg")) {
        *bytes.last_mut().expect("a record") ^= 1;
        fs::write(folder.path("data/stream").join(name), bytes).expect("written");
    }
    let (code, said) = recover(&folder);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("a.txt: incomplete: the stream is damaged"),
        "{said}"
    );
    assert!(said.contains("0 sent to the chunks queue"), "{said}");
}

#[test]
fn sources_that_were_renamed_before_the_database_was_lost_are_no_failure() {
    let folder = WorkFolder::with_spec("  source: {onRestored: Rename}");
    let run = ["run", "pipeline.yaml", "--data", "data"];
    for content in ["first", "second"] {
        folder.write("data/in/1.txt", content);
        folder.run_well(&run);
    }
    let sources = folder.files("data/in");
    assert_eq!(text(&sources["1_delete.txt"]), "first");
    assert_eq!(text(&sources["1-1_delete.txt"]), "second");
    lose_database(&folder);
    let (code, said) = recover(&folder);
    assert_eq!(code, Some(0), "{said}");
    for _ in 0..2 {
        folder.run_well(&run);
    }
    assert_eq!(folder.files("data/in"), sources);
    assert_eq!(text(&folder.files("data/out")["1.txt"]), "second");
    // What comes after is named, and so is what has the name of no file.
    folder.write("data/in/other_delete.txt", "a user's own");
    let output = folder.run(&run);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("other_delete.txt") && !said.contains("1_delete.txt"),
        "{said}"
    );
}
