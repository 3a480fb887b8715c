//! What users get wrong, and what they are told.

mod support;

use support::{Place, text};

/// The command fails with this code and says this.
fn says(place: &Place, args: &[&str], code: i32, words: &[&str]) {
    let output = place.run(args);
    let said = text(&output.stderr) + &text(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{args:?} said {said}");
    for word in words {
        assert!(said.contains(word), "{args:?} said {said}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let place = Place::with_spec("  suspend: false");
    says(&place, &["run", "nope.yaml"], 64, &["nope.yaml"]);
    says(&place, &["pack", "nope.csv"], 1, &["nope.csv"]);
    says(&place, &["inspect", "nope.spk"], 1, &["nope.spk"]);
    says(&place, &["bench", "nope.csv"], 1, &["nope.csv"]);
    let submit = [
        "submit",
        "nope.csv",
        "-p",
        "pipeline.yaml",
        "--data",
        "data",
    ];
    says(&place, &submit, 1, &["nope.csv"]);
}

#[test]
fn a_file_of_another_kind_is_said_to_be_one() {
    let place = Place::with_spec("  suspend: false");
    place.write("words.txt", "not packed");
    says(
        &place,
        &["inspect", "words.txt"],
        1,
        &["words.txt", "not a packed file"],
    );
    says(
        &place,
        &["unpack", "words.txt", "-o", "out"],
        1,
        &["words.txt", "not a packed file"],
    );
    says(
        &place,
        &["validate", "words.txt"],
        64,
        &["words.txt:1:1", "apiVersion"],
    );
    assert!(
        !place.path("out").exists(),
        "something was written all the same"
    );
}

#[test]
fn a_report_of_nothing_is_no_page() {
    let place = Place::with_spec("  suspend: false");
    says(
        &place,
        &["report", "pipeline.yaml", "--data", "data"],
        1,
        &["nothing to report"],
    );
    assert!(
        !place.path("data").exists(),
        "a folder was made for nothing"
    );
}

#[test]
fn missing_credentials_are_asked_for_by_name() {
    let place = Place::with_spec("  aws: {endpointURL: \"http://127.0.0.1:9\"}");
    let output = place
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

#[test]
fn without_variables_the_originals_own_keys_and_endpoint_are_used() {
    let place = Place::with_spec("  suspend: false");
    // Nothing listens there: what matters is that it is asked, and not for credentials.
    let output = place.run(&["setup"]);
    let said = text(&output.stderr);
    assert!(
        said.contains("http://localhost:4566") && !said.contains("AWS_PROFILE"),
        "{said}"
    );
}
