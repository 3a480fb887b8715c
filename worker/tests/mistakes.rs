//! Users' mistakes, and the messages that follow.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use streampress_transport::contract_tests::eventually_blocking;
use support::{WorkFolder, text};

/// The command fails with this code and these words.
fn says(folder: &WorkFolder, args: &[&str], code: i32, words: &[&str]) {
    let output = folder.run(args);
    let said = text(&output.stderr) + &text(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{args:?} said {said}");
    for word in words {
        assert!(said.contains(word), "{args:?} said {said}");
    }
}

#[test]
fn a_file_that_does_not_exist_is_named() {
    let folder = WorkFolder::with_spec("  suspend: false");
    says(&folder, &["run", "nope.yaml"], 64, &["nope.yaml"]);
    says(&folder, &["pack", "nope.csv"], 1, &["nope.csv"]);
    says(&folder, &["inspect", "nope.spk"], 1, &["nope.spk"]);
    says(&folder, &["bench", "nope.csv"], 1, &["nope.csv"]);
    let submit = [
        "submit",
        "nope.csv",
        "-p",
        "pipeline.yaml",
        "--data",
        "data",
    ];
    says(&folder, &submit, 1, &["nope.csv"]);
}

#[test]
fn a_submitted_file_of_a_kind_that_a_scan_leaves_out_is_refused_with_the_remedy() {
    let folder = WorkFolder::with_spec("  source: {formats: [json, csv]}");
    for (name, words) in [
        ("data/in/a.txt", "add txt to source.formats"),
        ("mine/b.LOG", "add txt to source.formats"),
        ("data/in/c.bin", "taken: .json, .ndjson, .jsonl, .csv"),
        ("data/in/.json", "put a name in front of it"),
    ] {
        folder.write(name, "words");
        let submit = ["submit", name, "-p", "pipeline.yaml", "--data", "data"];
        says(
            &folder,
            &submit,
            1,
            &[name, "source.formats has json, csv", words],
        );
    }
    assert!(
        !folder.path("data/in/b.LOG").exists(),
        "copied all the same"
    );
    folder.write("data/in/d.ndjson", "{}");
    folder.run_well(&[
        "submit",
        "data/in/d.ndjson",
        "-p",
        "pipeline.yaml",
        "--data",
        "data",
    ]);
}

/// The command in a process that may take no more address space than this.
fn limited(folder: &WorkFolder, kib: u64, args: &[&str]) -> (Option<i32>, String, String) {
    within(folder, &format!("ulimit -v {kib}"), args)
}

/// The command in a process with a limit.
fn within(folder: &WorkFolder, limit: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let program = folder.command(args);
    let limited = format!("{limit}; exec \"$0\" \"$@\"");
    let mut shell = std::process::Command::new("sh");
    let output = shell
        .current_dir(folder.path(""))
        .args(["-c", &limited])
        .arg(program.get_program())
        .args(program.get_args())
        .output()
        .expect("a shell");
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    (output.status.code(), said, errors)
}

#[cfg(target_os = "linux")]
#[test]
fn a_limit_of_address_space_that_holds_no_block_is_said_before_anything_begins() {
    let folder = WorkFolder::with_spec("  codec: {blockSize: 64Mi}");
    folder.write("in/a.txt", "words");
    folder.write("a.txt", "words");
    let role = ["pipeline.yaml", "--data", "data"];
    let run = ["run", "pipeline.yaml", "--data", "data", "--input", "in"];
    for args in [
        &[&run[..], &["--json"]].concat()[..],
        &run,
        &[&["compress"], &role[..]].concat(),
        &["pack", "a.txt", "--block-size", "64Mi"],
        &["train", "a.txt", "-o", "plan", "--block-size", "64Mi"],
    ] {
        let (code, said, errors) = limited(&folder, 400_000, args);
        assert_eq!(code, Some(2), "{args:?}: {errors}");
        for words in ["may take 400000 KiB", "set 'ulimit -v "] {
            assert!(errors.contains(words), "{args:?}: {errors}");
        }
        if args.contains(&"--json") {
            let summary: serde_json::Value = serde_json::from_str(&said).expect("JSON");
            let error = summary["error"].as_str().unwrap_or_default();
            assert!(error.contains("ulimit -v"), "{summary}");
        }
    }
    assert!(!folder.path("data").exists(), "something was begun");
    folder.run_well(&["pack", "a.txt", "--block-size", "64Mi"]);
    let (code, _, errors) = limited(&folder, 4_000_000, &run);
    assert_eq!(code, Some(0), "what is said to do is enough: {errors}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_limit_of_open_files_that_is_too_low_is_said_before_anything_begins_and_the_advised_one_is_enough()
 {
    let folder = WorkFolder::with_spec("  codec: {effort: Fast}");
    folder.write("a.txt", "words");
    for number in 0..300 {
        folder.write(&format!("in/{number}.txt"), format!("{number}"));
    }
    let run = [
        "run",
        "pipeline.yaml",
        "--data",
        "data",
        "--json",
        "--input",
        "in",
    ];
    let of_transport = |command| [command, "pipeline.yaml", "--data", "data"];
    for args in [
        &["pack", "a.txt"][..],
        &["unpack", "a.txt.spk", "-o", "b.txt"],
        &["train", "a.txt", "-o", "plan"],
        &run,
        &[
            "submit",
            "in/1.txt",
            "-p",
            "pipeline.yaml",
            "--data",
            "data",
        ],
        &of_transport("redrive"),
        &of_transport("recover"),
        &of_transport("report"),
    ] {
        let needed = (4..1000).find_map(|limit| {
            let (code, said, errors) = within(&folder, &format!("ulimit -n {limit}"), args);
            assert!(!errors.contains("panicked"), "{args:?} {limit}: {errors}");
            let advised = errors.split("set 'ulimit -n ").nth(1);
            assert_eq!(code, Some(2), "{args:?} {limit}: {errors}");
            if args.contains(&"--json") {
                let summary: serde_json::Value = serde_json::from_str(&said).expect("JSON");
                let error = summary["error"].as_str().unwrap_or_default();
                assert!(error.contains("ulimit -n"), "{summary}");
            }
            advised?.split('\'').next()?.parse::<u64>().ok()
        });
        let needed = needed.expect("a value is advised");
        let lower = within(&folder, &format!("ulimit -n {}", needed - 1), args);
        assert_eq!(lower.0, Some(2), "{args:?}");
        let (code, said, errors) = within(&folder, &format!("ulimit -n {needed}"), args);
        assert_eq!(code, Some(0), "{args:?} with {needed}: {errors}");
        assert!(
            !errors.contains("Too many open files"),
            "{args:?}: {errors}"
        );
        if args.contains(&"--json") {
            assert!(said.contains("\"filesRestored\":300"), "{said}");
        }
    }
}

#[test]
fn all_mistakes_of_an_inline_schema_are_named_with_their_lines() {
    let folder = WorkFolder::with_spec(
        "  generator:
    schema:
      inline:
        fields:
        - {name: a, kind: int, maxx: 5}
        - {name: b, kind: imt}
        - {name: a, kind: uuid}",
    );
    let text = fs::read_to_string(folder.path("pipeline.yaml")).expect("read");
    let first = text
        .lines()
        .position(|line| line.contains("maxx"))
        .expect("there")
        + 1;
    let places = [0, 1, 2].map(|n| format!("pipeline.yaml:{}:", first + n));
    let mut words: Vec<&str> = places.iter().map(String::as_str).collect();
    words.extend([
        "rename maxx, which stands there",
        "\"imt\" is not known",
        "\"a\" is there twice",
    ]);
    says(&folder, &["validate", "pipeline.yaml"], 64, &words);
    says(
        &folder,
        &["run", "pipeline.yaml", "--data", "data"],
        64,
        &words[3..],
    );
}

#[test]
fn a_mistake_in_an_inline_schema_is_named_with_its_line() {
    let folder = WorkFolder::with_spec(
        "  generator:
    files: 1
    schema:
      inline:
        fields:
        - {name: a, kind: int, min: 1, max: 5}
        - name: b
          kind: int
          min: 5
          max: 1",
    );
    let text = fs::read_to_string(folder.path("pipeline.yaml")).expect("read");
    let line = text.lines().position(|line| line.trim() == "max: 1");
    let place = format!("pipeline.yaml:{}:", line.expect("it is there") + 1);
    says(
        &folder,
        &["validate", "pipeline.yaml"],
        64,
        &[&place, "fields[1]"],
    );
}

#[test]
fn a_byte_size_is_read_as_kubernetes_reads_it_and_a_wrong_one_says_the_forms() {
    for size in [
        "1e5",
        "\"1e5\"",
        "100k",
        "0.1M",
        "100000",
        "\"100000\"",
        "+97.65625Ki",
    ] {
        let spec = format!("  codec: {{recordSize: {size}}}");
        let folder = WorkFolder::with_spec(&spec);
        folder.run_well(&["validate", "pipeline.yaml"]);
    }
    for (size, words) in [
        ("1e", "from 4Ki to 1023Ki, such as 400Ki, 500k, 0.1M, 1e5"),
        ("100 k", "write 100k"),
        ("1.5", "write a number and a unit"),
        ("1e-1", "write a number and a unit"),
        ("9e99", "write a number and a unit"),
        ("100000000m", "write 100000; m stands for thousandths"),
        ("1m", "write 1M (powers of 1000); m stands for thousandths"),
        ("100KB", "write 100k (powers of 1000) or 100Ki"),
    ] {
        let spec = format!("  codec: {{recordSize: {size}}}");
        let folder = WorkFolder::with_spec(&spec);
        let place = "spec.codec.recordSize";
        says(&folder, &["validate", "pipeline.yaml"], 64, &[place, words]);
    }
}

#[test]
fn what_is_said_to_write_is_right_as_it_is_typed() {
    for (spec, words, right) in [
        (
            "suspend: \"true\"",
            "write true without quotes",
            "suspend: true",
        ),
        ("suspend: yes", "write true or false", "suspend: true"),
        (
            "source: {scanSeconds: 010}",
            "write 10\n",
            "source: {scanSeconds: 10}",
        ),
        (
            "source: {scanSeconds: \"5\"}",
            "leave the quotes out",
            "source: {scanSeconds: 5}",
        ),
        (
            "source: {scanSeconds: 1e1}",
            "write 10\n",
            "source: {scanSeconds: 10}",
        ),
        (
            "source: {scanSeconds: 1_0}",
            "write 10\n",
            "source: {scanSeconds: 10}",
        ),
        (
            "source: {scanSeconds: \"-5\"}",
            "must be from 0 to",
            "source: {scanSeconds: 0}",
        ),
        (
            "source: {scanSeconds: 99999999999999999999}",
            "must be from 0 to",
            "source: {scanSeconds: 0}",
        ),
        (
            "source: {formats: csv}",
            "write it as [csv]",
            "source: {formats: [csv]}",
        ),
        (
            "source: {formats: [log]}",
            "must be one of json, csv, txt; write txt, which includes .log",
            "source: {formats: [txt]}",
        ),
        (
            "source: {formats: [ndjson]}",
            "must be one of json, csv, txt; write json, which includes .ndjson",
            "source: {formats: [json]}",
        ),
        (
            "generator: {schema: {example: stock}}",
            "did you mean stock-market?",
            "generator: {schema: {example: stock-market}}",
        ),
        (
            "codec: {effort: 9}",
            "must be one of Fast, Balanced, Max",
            "codec: {effort: Max}",
        ),
        (
            "codec: {bundle: true}",
            "must be one of Auto, Off",
            "codec: {bundle: Auto}",
        ),
        (
            "codec: {recordSize: 100000000m}",
            "write 100000;",
            "codec: {recordSize: 100000}",
        ),
    ] {
        let folder = WorkFolder::with_spec(&format!("  {spec}"));
        says(&folder, &["validate", "pipeline.yaml"], 64, &[words]);
        let folder = WorkFolder::with_spec(&format!("  {right}"));
        folder.run_well(&["validate", "pipeline.yaml"]);
    }
}

#[test]
fn a_folder_where_a_file_belongs_is_said_to_be_one() {
    let folder = WorkFolder::with_spec("  suspend: false");
    folder.write("a.txt", "words");
    folder.write("sub/b.txt", "words");
    folder.run_well(&["pack", "a.txt"]);
    let is_folder = "is a folder: name a file";
    let ends_in_slash = "leave out the / at its end";
    for (args, words) in [
        (&["pack", "."][..], is_folder),
        (&["pack", ".."], is_folder),
        (&["pack", "/"], is_folder),
        (&["unpack", "sub"], is_folder),
        (&["pack", "a.txt", "-o", "sub"], is_folder),
        (&["unpack", "a.txt.spk", "-o", "sub/"], is_folder),
        (&["train", "a.txt", "-o", "sub"], is_folder),
        (&["pack", "a.txt", "-o", "none/"], ends_in_slash),
        (&["unpack", "a.txt.spk", "-o", "none/"], ends_in_slash),
        (&["train", "a.txt", "-o", "none/"], ends_in_slash),
    ] {
        says(&folder, args, 1, &[words]);
    }
    folder.run_well(&["unpack", "a.txt.spk", "-o", "none"]);
    says(
        &folder,
        &["pack", "a.txt", "--threads", "-1"],
        2,
        &["write a whole number from 1 to 1024"],
    );
    let size = "write a number and a unit from 64Ki to 64Mi";
    for (args, words) in [
        (&["pack", "a.txt", "--block-size", "-1"][..], size),
        (
            &["pack", "a.txt", "--block-size", "64kb"],
            "write 64Ki (powers of 1024)",
        ),
        (&["pack", "a.txt", "--format-version", "3"], "write 1 or 2"),
        (
            &["run", "pipeline.yaml", "--files", "x"],
            "write a whole number, 1 or more",
        ),
        (
            &["run", "pipeline.yaml", "--files", "0"],
            "write a whole number, 1 or more",
        ),
        (
            &["compress", "pipeline.yaml", "--listen", "99"],
            "write an IP address and a port",
        ),
        (
            &["submit", "a.txt", "--wait", "--timeout", "-1"],
            "write a whole number, 0 or more",
        ),
    ] {
        says(&folder, args, 2, &[words]);
    }
    folder.write("empty.csv", b"");
    let nothing = ["train", "empty.csv", "-o", "empty.plan"];
    says(
        &folder,
        &nothing,
        0,
        &["nothing was learned: the files are empty"],
    );
    let numbers: String = (0..2000_u64)
        .map(|n| format!("{}\n", n * 7919 % 10_007))
        .collect();
    folder.write("numbers.csv", numbers);
    let numbers = ["train", "numbers.csv", "-o", "numbers.plan"];
    let shared = "their lines share no words and no fields";
    says(&folder, &numbers, 0, &["nothing was learned", shared]);
    folder.run_well(&["pack", "empty.csv"]);
    let block = ["unpack", "empty.csv.spk", "--block", "0"];
    says(&folder, &block, 1, &["the file is empty and has none"]);
}

#[test]
fn a_file_of_the_database_that_may_not_be_written_is_named() {
    let folder = WorkFolder::with_spec("  suspend: false");
    folder.write("data/in/a.txt", "words");
    folder.run_summary(&[]);
    fs::set_permissions(
        folder.path("data/streampress.db"),
        fs::Permissions::from_mode(0o444),
    )
    .expect("changed");
    let run = ["run", "pipeline.yaml", "--data", "data"];
    let output = folder.ordinary_command(&run).output().expect("it starts");
    let said = text(&output.stderr);
    assert!(
        said.contains("cannot write data/streampress.db; make this file writable for this user"),
        "{said}"
    );
    assert_eq!(said.matches("readonly database").count(), 1, "{said}");
}

#[test]
fn a_folder_that_is_no_data_folder_yet_is_not_called_missing() {
    let folder = WorkFolder::with_spec("  suspend: false");
    fs::create_dir(folder.path("em")).expect("made");
    for command in [&["redrive", "--list"][..], &["recover"]] {
        for (data, words) in [
            ("em", "em is no data folder yet: nothing ran there"),
            (
                "none",
                "there is no data folder none: nothing ran there yet",
            ),
        ] {
            let args = [command, &["pipeline.yaml", "--data", data]].concat();
            says(&folder, &args, 1, &[words]);
        }
    }
}

#[test]
fn a_block_of_a_file_of_the_seed_format_is_refused_with_the_reason() {
    let folder = WorkFolder::with_spec("  suspend: false");
    folder.write("a.csv", "a,b\n1,2\n");
    folder.run_well(&["pack", "a.csv", "--format", "seed"]);
    let block = ["unpack", "a.csv.seed", "--block", "0"];
    let words = "has no blocks: --block is of the Hybrid format";
    says(&folder, &block, 1, &["a.csv.seed", words]);
}

#[test]
fn what_lists_and_answers_of_the_api_server_have_in_place_of_a_pipeline_is_said() {
    let folder = WorkFolder::with_spec("  suspend: false");
    let yaml = fs::read_to_string(folder.path("pipeline.yaml")).expect("read");
    let indented = |yaml: &str| yaml.replace('\n', "\n  ").trim_end().to_owned();
    let list = |inner: &str| {
        format!(
            "apiVersion: v1\nkind: List\nitems:\n- {}\n",
            indented(inner)
        )
    };
    folder.write("nested.yaml", list(&list(&yaml)));
    folder.run_well(&["validate", "nested.yaml"]);
    let empty = "is an empty list: there was no pipeline";
    let refused = "compressionpipelines.streampress.dev \\\"shop\\\" not found";
    for (name, text, words) in [
        (
            "empty",
            "apiVersion: v1\nkind: List\nitems: []\n".to_owned(),
            ["empty.yaml:3:8: items:", empty],
        ),
        (
            "null",
            "apiVersion: v1\nkind: List\nitems: null\n".to_owned(),
            ["null.yaml:3:8: items:", empty],
        ),
        (
            "status",
            format!("apiVersion: v1\nkind: Status\nmessage: \"{refused}\"\n"),
            [
                "status.yaml:2:7: kind: Status: is an answer of the API server",
                "\"shop\" not found",
            ],
        ),
    ] {
        let file = format!("{name}.yaml");
        folder.write(&file, text);
        says(&folder, &["validate", &file], 64, &words);
        says(&folder, &["run", &file, "--data", "data"], 64, &words);
    }
}

#[test]
fn standard_input_is_measured_and_not_submitted() {
    let folder = WorkFolder::with_spec("  suspend: false");
    folder.write("a.csv", "a,b\n1,2\n".repeat(100));
    let input = fs::File::open(folder.path("a.csv")).expect("opened");
    let bench = ["bench", "-", "--codec", "hybrid fast"];
    let output = folder.command(&bench).stdin(input).output();
    let output = output.expect("it starts");
    let said = text(&output.stdout);
    assert!(
        said.starts_with("-: 800 bytes\n"),
        "{said}{}",
        text(&output.stderr)
    );
    let submit = ["submit", "-", "-p", "pipeline.yaml", "--data", "data"];
    says(
        &folder,
        &submit,
        1,
        &["standard input has no name", "write it to a file"],
    );
}

#[test]
fn a_file_of_another_kind_is_refused_by_name() {
    let folder = WorkFolder::with_spec("  suspend: false");
    folder.write("words.txt", "not packed");
    says(
        &folder,
        &["inspect", "words.txt"],
        1,
        &["words.txt", "not a packed file"],
    );
    says(
        &folder,
        &["unpack", "words.txt", "-o", "out"],
        1,
        &["words.txt", "not a packed file"],
    );
    says(
        &folder,
        &["validate", "words.txt"],
        64,
        &["words.txt:1:1", "apiVersion"],
    );
    assert!(!folder.path("out").exists(), "an output was written");
}

#[test]
fn without_restored_files_no_report_is_made() {
    let folder = WorkFolder::with_spec("  suspend: false");
    says(
        &folder,
        &["report", "pipeline.yaml", "--data", "data"],
        1,
        &["nothing to report"],
    );
    assert!(!folder.path("data").exists(), "a folder was created");
}

#[cfg(feature = "aws")]
#[test]
fn missing_credentials_are_named() {
    let folder = WorkFolder::with_spec("  aws: {endpointURL: \"http://127.0.0.1:9\"}");
    let output = folder
        .command(&["setup", "pipeline.yaml"])
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .output()
        .expect("streampress starts");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        "{said}"
    );
}

#[cfg(feature = "aws")]
#[test]
fn without_variables_the_originals_own_keys_and_endpoint_are_used() {
    let folder = WorkFolder::with_spec("  suspend: false");
    // Nothing listens there: the command must try it, and must not ask for credentials.
    let output = folder.run(&["setup"]);
    let said = text(&output.stderr);
    assert!(
        said.contains("http://localhost:4566") && !said.contains("AWS_PROFILE"),
        "{said}"
    );
}

/// One line each, with the command that installs a build with AWS.
#[cfg(not(feature = "aws"))]
#[test]
fn a_build_without_aws_says_how_to_get_one() {
    let folder = WorkFolder::with_spec("  source: {location: 's3://bucket/in'}");
    let yaml = "pipeline.yaml";
    for args in [
        &["setup", yaml][..],
        &["validate", "--live", yaml],
        &["compress", yaml, "--aws"],
        &["run", yaml, "--aws"],
        &["run", yaml],
        &["submit", "s3://bucket/in/a.json", "-p", yaml],
        &["decompress"],
    ] {
        let output = folder.run(args);
        let said = text(&output.stderr);
        let lines = said
            .lines()
            .filter(|line| line.contains("cargo install --path worker --features aws"));
        assert_eq!(lines.count(), 1, "{args:?} said {said}");
        assert_eq!(output.status.code(), Some(1), "{args:?} said {said}");
    }
}

#[test]
fn a_location_in_the_transports_own_folder_is_refused() {
    let folder = WorkFolder::with_spec("  destination: {location: 'file:///data/stream/out'}");
    let args = ["run", "pipeline.yaml", "--data", "data"];
    says(
        &folder,
        &args,
        64,
        &["file:///data/stream/out", "choose another folder"],
    );
    let expected = [
        "pipeline.yaml:5:",
        "file:///data/stream/out",
        "choose another folder",
    ];
    says(&folder, &["validate", "pipeline.yaml"], 0, &expected);
}

#[test]
fn two_pipelines_of_one_name_are_refused_with_both_places() {
    let folder = WorkFolder::with_spec("  suspend: false");
    let document = |name: &str| {
        format!(
            "apiVersion: streampress.dev/v1alpha1\nkind: CompressionPipeline\nmetadata: {{name: {name}}}\nspec: {{}}\n"
        )
    };
    let both = format!("{}---\n{}", document("one"), document("one"));
    folder.write("both.yaml", both);
    let places = ["both.yaml:8:18", "both.yaml:3:18"];
    says(&folder, &["validate", "both.yaml"], 64, &places);
    folder.write("a.yaml", document("two"));
    folder.write("b.yaml", document("two"));
    let places = ["a.yaml: good", "b.yaml:3:18", "a.yaml:3:18"];
    says(&folder, &["validate", "a.yaml", "b.yaml"], 64, &places);
    // A file that cannot be read hides no other mistake.
    let args = ["validate", "missing.yaml", "both.yaml", "b.yaml"];
    let places = [
        "missing.yaml: cannot be read",
        "both.yaml:8:18",
        "b.yaml: good",
    ];
    says(&folder, &args, 64, &places);
    folder.write("c.yaml", document("two, namespace: other"));
    says(
        &folder,
        &["validate", "a.yaml", "c.yaml"],
        0,
        &["c.yaml: good"],
    );
}

#[test]
fn a_file_that_is_not_utf_8_is_refused_with_the_place() {
    let folder = WorkFolder::with_spec("  suspend: false");
    folder.write("latin.yaml", b"a: b\n# \xc3\xa4 \xe4\n");
    let words = ["latin.yaml:2:5", "0xe4 at offset 10", "as UTF-8"];
    says(&folder, &["validate", "latin.yaml"], 64, &words);
}

#[cfg(target_os = "linux")]
#[test]
fn what_runs_out_of_address_space_says_which_limit_would_do() {
    let folder = WorkFolder::with_spec("  suspend: false");
    folder.write("a.csv", "id,name\n1,one\n".repeat(1000));
    folder.run_well(&["pack", "a.csv"]);
    let seed = ["pack", "--format", "seed", "a.csv"];
    for args in [&seed[..], &["inspect", "a.csv.spk"]] {
        let mut kib = 100_000;
        // The first advice may be that of what every command needs.
        let outcome = (0..6).find_map(|_| {
            let (code, _, errors) = limited(&folder, kib, args);
            if code == Some(0) {
                return Some(kib);
            }
            let advised = errors.split("'ulimit -v ").nth(1).unwrap_or_default();
            let digits: String = advised.chars().take_while(char::is_ascii_digit).collect();
            kib = digits.parse().unwrap_or_else(|_| panic!("{errors}"));
            None
        });
        assert!(outcome.is_some_and(|kib| kib > 100_000), "{args:?}");
    }
}

#[test]
fn all_mistakes_of_a_pipeline_and_of_its_inline_schema_are_in_one_answer() {
    let folder = WorkFolder::with_spec(
        "  codec: {effort: Fst, blockSize: 01000000, recordSize: 2mb}\n  generator:\n    fileSize: 1500m\n    schema: {inline: {feilds: [], clock: {every: 0}}}",
    );
    says(
        &folder,
        &["validate", "pipeline.yaml"],
        64,
        &[
            "did you mean Fast?",
            "which kubectl reads as 262144; write 1000000; where text is meant, \"01000000\" in quotes",
            "write a number and a unit from 4Ki to 1023Ki",
            "write a number and a unit from 1Ki to 1Gi, such as 400Ki, 1Mi, 500k, 0.1M, 1e5, 1048576; m stands for thousandths",
            "rename feilds, which stands there",
            "clock.every",
        ],
    );
    let quoted = WorkFolder::with_spec("  codec: {blockSize: \"01000000\"}");
    quoted.run_well(&["validate", "pipeline.yaml"]);
}

#[test]
fn what_is_at_work_in_a_data_folder_is_not_joined_by_another_source_or_destination() {
    let folder = WorkFolder::with_spec("  suspend: false");
    folder.write("data/in/a.json", "{\"a\":1}");
    folder.write("other/a.json", "{\"a\":2}");
    let pipeline = fs::read_to_string(folder.path("pipeline.yaml")).expect("read");
    let elsewhere = "  destination: {location: \"file:///data/out2\"}\n";
    folder.write(
        "elsewhere.yaml",
        format!(
            "{}{elsewhere}",
            pipeline.replace("name: test", "name: other")
        ),
    );
    let data = ["--data", "data"];
    let worker = folder.start(&["decompress", "pipeline.yaml", "--data", "data"]);
    eventually_blocking("the worker has the folder open", || {
        folder.log().contains("Opened the data folder")
    });
    let words = [
        "pipeline test from file:///data/in to file:///data/out is at work in the data folder data",
        "wait until it ends",
        "--data",
    ];
    let run_elsewhere = [&["run", "elsewhere.yaml"][..], &data].concat();
    says(&folder, &run_elsewhere, 64, &words);
    let run_of_input = [&["run", "pipeline.yaml", "--input", "other"][..], &data].concat();
    says(&folder, &run_of_input, 64, &words);
    // The same pipeline may be at work in several processes.
    folder.run_well(&[&["run", "pipeline.yaml"][..], &data].concat());
    assert_eq!(worker.stop(), Some(0));
    folder.run_well(&run_elsewhere);
    assert_eq!(folder.files("data/out2"), folder.files("data/in"));
    folder.run_well(&run_of_input);
    assert_eq!(folder.files("data/out"), folder.files("other"));
}

#[test]
fn a_role_does_not_take_the_messages_of_the_pipeline_whose_data_folder_it_is() {
    let folder = WorkFolder::with_spec("  suspend: false");
    folder.write("data/in/a.json", "{\"a\":1.50}");
    let pipeline = fs::read_to_string(folder.path("pipeline.yaml")).expect("read");
    let other = pipeline.replace("name: test", "name: other") + "  codec: {format: Seed}\n";
    folder.write("other.yaml", other);
    let submit = ["submit", "data/in/a.json", "--data", "data", "-p"];
    folder.run_well(&[&submit[..], &["pipeline.yaml"]].concat());
    let words = ["data folder of pipeline test", "FILE.yaml", "--data"];
    for role in ["compress", "decompress"] {
        says(&folder, &[role, "--data", "data"], 64, &words);
        says(&folder, &[role, "other.yaml", "--data", "data"], 64, &words);
    }
    says(
        &folder,
        &[&submit[..], &["other.yaml"]].concat(),
        64,
        &words,
    );
    folder.run_well(&["run", "pipeline.yaml", "--data", "data"]);
    assert_eq!(folder.files("data/out")["a.json"], b"{\"a\":1.50}".to_vec());
    // To run another one in its place is no mistake: what is in the folder is compared, and said.
    folder.run_well(&["run", "other.yaml", "--data", "data"]);
    let words = ["data folder of pipeline other"];
    says(
        &folder,
        &["compress", "pipeline.yaml", "--data", "data"],
        64,
        &words,
    );
}
