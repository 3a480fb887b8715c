//! Users' mistakes, and the messages that follow.

mod support;

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
        1,
        &["file:///data/stream/out", "choose another folder"],
    );
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
