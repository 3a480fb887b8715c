//! The checks of the fuzz targets on the minimised corpus in `testdata/fuzz`.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use streampress_codec::Transform;

#[path = "../fuzz/src/checks.rs"]
mod checks;

fn replay(target: &str, check: impl Fn(&[u8])) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("testdata/fuzz")
        .join(target);
    let mut inputs: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("a folder of inputs")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{target}");
    for input in inputs {
        // Shown only when a check fails.
        println!("{target}: {}", input.display());
        check(&std::fs::read(&input).expect("an input"));
    }
}

#[test]
fn the_round_trip_corpus_round_trips() {
    replay("round_trip", checks::round_trip);
}

#[test]
fn the_corpus_of_each_transform_round_trips() {
    replay("transform_json", |data| {
        checks::transform(Transform::Json, data)
    });
    replay("transform_csv", |data| {
        checks::transform(Transform::Csv, data)
    });
    replay("transform_text", |data| {
        checks::transform(Transform::Text, data)
    });
}

#[test]
fn hostile_files_and_blocks_are_decoded_or_refused() {
    replay("hostile_file", checks::hostile_file);
    replay("hostile_block", checks::hostile_block);
}

#[test]
fn the_legacy_corpus_round_trips() {
    replay("legacy_format", checks::legacy_format);
}
