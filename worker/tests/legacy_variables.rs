//! Our commands in place of the Python original's containers: its variables, its messages, its folders.

mod support;

use streampress_transport::contract_tests::eventually_blocking;
use support::{WorkFolder, text};

#[test]
fn the_originals_variables_move_files_from_generator_to_report() {
    let folder = WorkFolder::with_spec("  suspend: false");
    let variables = [
        ("READ_LOCATION", "test_location"),
        ("ENABLE_DATA_PUSH", "True"),
        ("FILE_NAME_PREFIX", "made"),
        ("STREAM_FILE_BREAK_SIZE_KB", "100"),
    ];
    folder.write(
        "data/json_schema_ref/schema_2.json",
        br#"[{"symbol": "ABC", "price": 1.5}, {"symbol": "XYZ", "price": 2.25, "note": "\u00e9"}]"#,
    );
    let command = |args: &[&str]| {
        let mut command = folder.command(args);
        command.envs(variables).stderr(std::process::Stdio::piped());
        command
    };
    let generated = command(&["generate", "--data", "data", "--files", "2"])
        .output()
        .expect("it runs");
    assert!(generated.status.success(), "{}", text(&generated.stderr));
    let mut workers: Vec<_> = ["compress", "decompress"]
        .map(|role| {
            command(&[role, "--data", "data"])
                .spawn()
                .expect("it starts")
        })
        .into();
    eventually_blocking("both files are restored", || {
        folder.files("data/decompressed_data").len() == 2
    });
    eventually_blocking("sources of several chunks are renamed", || {
        folder
            .files("data/test_location")
            .keys()
            .all(|name| name.contains("_delete"))
    });
    eventually_blocking("the report is written", || {
        folder.path("data/reports/results.html").exists()
    });
    for worker in &mut workers {
        worker.kill().expect("our own child");
        worker.wait().expect("it ends");
    }
    let (sources, restored) = (
        folder.files("data/test_location"),
        folder.files("data/decompressed_data"),
    );
    for (name, content) in restored {
        let source = &sources[&name.replace(".json", "_delete.json")];
        let (source, content): (serde_json::Value, serde_json::Value) = (
            serde_json::from_slice(source).expect("JSON"),
            serde_json::from_slice(&content).expect("JSON"),
        );
        assert!(source == content, "{name} has other data");
    }
}

#[test]
fn without_data_push_nothing_is_sent() {
    let folder = WorkFolder::with_spec("  suspend: false");
    folder.write("data/test_location/a.txt", b"words");
    let run = |args: &[&str]| {
        folder
            .command(args)
            .env("READ_LOCATION", "test_location")
            .output()
            .expect("it runs")
    };
    assert!(
        run(&["submit", "data/test_location/a.txt", "--data", "data"])
            .status
            .success()
    );
    let log = std::fs::File::create(folder.path("log")).expect("a log");
    let mut compress = folder
        .command(&["compress", "--data", "data"])
        .stderr(log)
        .spawn()
        .expect("it starts");
    eventually_blocking("it is compressed", || {
        folder.log().contains("File compressed")
    });
    compress.kill().expect("our own child");
    compress.wait().expect("it ends");
    assert!(
        folder.log().contains("ENABLE_DATA_PUSH is False"),
        "{}",
        folder.log()
    );
    assert!(
        !folder
            .path("data/stream")
            .read_dir()
            .is_ok_and(|mut segments| segments.any(|segment| segment
                .is_ok_and(|segment| segment.metadata().is_ok_and(|data| data.len() > 100)))),
        "records were written"
    );
}

#[test]
fn a_bad_variable_ends_with_code_64_and_is_named() {
    let folder = WorkFolder::with_spec("  suspend: false");
    let output = folder
        .command(&["compress", "--data", "data"])
        .env("STREAM_FILE_BREAK_SIZE_KB", "lots")
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(64));
    assert!(
        text(&output.stderr).contains("STREAM_FILE_BREAK_SIZE_KB"),
        "{}",
        text(&output.stderr)
    );
}
