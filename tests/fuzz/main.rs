//! Any bytes of a file, a packed file or a setting are read or refused: no panic, no hang, and what is read is written as it was
//! read. Messages, records and journals are fuzzed beside the code that reads them.

use std::path::{Path, PathBuf};

use streampress_codec::Transform;
use streampress_crds::{ByteSize, CheckedPipeline, Location, Role, load, settings};
use streampress_transport::contract_tests::{fuzz, kind_of_error};
use streampress_transport::{FileName, FileVersion, Sequence};

#[path = "../../worker/codec/fuzz/src/checks.rs"]
mod checks;
mod differential;

fn below_root(path: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("in the repository").join(path)
}

fn corpus(target: &str) -> PathBuf {
    below_root("tests/fuzz/corpus").join(target)
}

fn fuzz_codec(target: &str, check: impl Fn(&[u8])) {
    let corpus = below_root("worker/codec/testdata/fuzz").join(target);
    fuzz(&corpus, |bytes| {
        check(bytes);
        String::new()
    });
}

#[test]
fn any_bytes_round_trip() {
    fuzz_codec("round_trip", checks::round_trip);
}

#[test]
fn any_json_that_its_transform_accepts_round_trips() {
    fuzz_codec("transform_json", |data| {
        checks::transform(Transform::Json, data)
    });
}

#[test]
fn any_csv_that_its_transform_accepts_round_trips() {
    fuzz_codec("transform_csv", |data| {
        checks::transform(Transform::Csv, data)
    });
}

#[test]
fn any_text_that_its_transform_accepts_round_trips() {
    fuzz_codec("transform_text", |data| {
        checks::transform(Transform::Text, data)
    });
}

#[test]
fn any_packed_file_is_unpacked_or_refused() {
    fuzz_codec("hostile_file", checks::hostile_file);
}

#[test]
fn any_block_is_decoded_or_refused() {
    fuzz_codec("hostile_block", checks::hostile_block);
}

#[test]
fn any_bytes_in_the_format_of_the_original_round_trip_or_are_refused() {
    fuzz_codec("legacy_format", checks::legacy_format);
}

#[test]
fn any_yaml_is_a_pipeline_or_is_refused_with_what_to_write_instead() {
    fuzz(&corpus("yaml"), |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return "no text".into();
        };
        match load(text, "file.yaml") {
            Ok(documents) => {
                documents.pipelines.iter().for_each(check_pipeline);
                format!("{} pipelines", documents.pipelines.len())
            }
            Err(problems) => {
                let lines = text.split('\n').count();
                for problem in &problems {
                    assert!((1..=lines + 1).contains(&problem.line), "{problem}");
                    assert!(!problem.to_string().contains('\n'), "{problem}");
                }
                kind_of_error(&problems[0].invalid.to_string())
            }
        }
    });
}

/// It is read again as it is written, and a worker reads its settings.
fn check_pipeline(pipeline: &CheckedPipeline) {
    let written = serde_json::to_string(pipeline.pipeline()).expect("JSON");
    let read =
        load(&written, "file.yaml").unwrap_or_else(|problems| panic!("{problems:?}: {written}"));
    assert_eq!(read.pipelines[0].pipeline(), pipeline.pipeline());
    for role in [Role::Generator, Role::Compressor, Role::Decompressor] {
        let Some(settings) = pipeline.resolved().for_role(role) else {
            continue;
        };
        let (read, ignored) = settings::read(&settings.to_json()).expect("read as written");
        assert_eq!((read, ignored.len()), (settings, 0));
    }
}

#[test]
fn any_settings_of_a_worker_are_read_or_refused() {
    fuzz(&corpus("settings"), |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return "no text".into();
        };
        match settings::read(text) {
            Ok((settings, ignored)) => {
                let (again, _) = settings::read(&settings.to_json()).expect("read as written");
                assert_eq!(again, settings);
                format!("{} {}", settings.role(), ignored.len())
            }
            Err(error) => kind_of_error(&error.to_string()),
        }
    });
}

/// Sizes, locations, names, versions and sequence numbers: whatever one of them accepts keeps its promise.
#[test]
fn any_quantity_location_or_name_is_read_or_refused() {
    fuzz(&corpus("text"), |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return "no text".into();
        };
        let size = ByteSize::written(text).bytes();
        if let Ok(bytes) = size {
            assert!(i64::try_from(bytes).is_ok());
            assert!(size_as_kubernetes_reads_it(text).is_none_or(|theirs| theirs == bytes));
        }
        let location = Location::parse(text);
        if let Ok(location) = &location {
            assert_eq!(
                Location::parse(&location.to_string()).as_ref(),
                Ok(location)
            );
        }
        let name = FileName::parse(text);
        if let Ok(name) = &name {
            let path = Path::new("/data").join(name.as_str());
            let is_plain = |part| matches!(part, std::path::Component::Normal(_));
            assert!(Path::new(name.as_str()).components().all(is_plain));
            assert!(path.starts_with("/data"));
        }
        let version = text.parse::<FileVersion>();
        if let Ok(version) = &version {
            assert_eq!(
                version.to_string().parse::<FileVersion>().as_ref(),
                Ok(version)
            );
        }
        let sequence = Sequence::parse(text);
        if let Some(sequence) = &sequence {
            assert_eq!(Sequence::parse(sequence.as_str()).as_ref(), Some(sequence));
        }
        let what = (
            size.is_ok(),
            location.is_ok(),
            name.is_ok(),
            version.is_ok(),
        );
        format!("{what:?} {}", sequence.is_some())
    });
}

/// A whole number with a binary unit, computed without the parser under test.
fn size_as_kubernetes_reads_it(text: &str) -> Option<u64> {
    let number: u64 = text.strip_suffix("Ki")?.parse().ok()?;
    number.checked_mul(1024)
}
