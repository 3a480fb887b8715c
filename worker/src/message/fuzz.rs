//! Any bytes in a queue or a stream are read or refused: no panic, and what is read is written as it was read.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use streampress_transport::contract_tests::{fuzz, kind_of_error, read_corpus};

use super::record::{FoundRecord, RecordError, RecordHead, RecordOwner, trace_of};
use super::*;

/// As earlier releases wrote them.
#[test]
fn messages_and_records_of_earlier_releases_are_read() {
    for target in [
        "announcement",
        "manifest",
        "receipt",
        "s3_event",
        "legacy_message",
    ] {
        for (path, bytes) in inputs(target) {
            let body = String::from_utf8(bytes).expect("text");
            Message::parse(&body).unwrap_or_else(|error| panic!("{path:?}: {error:?}"));
        }
    }
    for (path, bytes) in inputs("record") {
        assert!(FoundRecord::read(&bytes.into()).is_some(), "{path:?}");
    }
    for (path, bytes) in inputs("description") {
        assert!(DescribedContent::from_bytes(&bytes).is_some(), "{path:?}");
    }
}

/// Finds of the fuzzer are kept beside them.
fn inputs(target: &str) -> impl Iterator<Item = (PathBuf, Vec<u8>)> {
    let is_written = |path: &Path| !path.to_string_lossy().contains("find-");
    let inputs = read_corpus(&corpus(target)).into_iter();
    inputs.filter(move |(path, _)| is_written(path))
}

const LOCATIONS: [&str; 3] = ["s3://amzn-s3-demo-bucket1", "s3://b/in/", "file:///data/in"];

fn corpus(target: &str) -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.join("testdata/fuzz").join(target)
}

fn check_message(bytes: &[u8]) -> String {
    let Ok(body) = std::str::from_utf8(bytes) else {
        return "no text".into();
    };
    match Message::parse(body) {
        Ok(message) => {
            check_parsed(&message);
            message.kind().into()
        }
        Err(error) => kind_of_error(&streampress_transport::error_chain(&error)),
    }
}

fn check_parsed(message: &Message) {
    let subject = message.subject();
    assert_eq!(message.file().is_some(), subject.file_id.is_some());
    let written = match message {
        Message::Announcement(it) => it.to_json(),
        Message::LegacyAnnouncement(it) => it.to_json(),
        Message::Manifest(it) => {
            let _ = it.record_owner();
            it.to_json()
        }
        Message::LegacyManifest(it) => {
            let _ = it.stages();
            it.to_json()
        }
        // One that names another version than that of its verdict is read, but never written.
        Message::Receipt(it) if it.version != it.verdict.version() => return,
        Message::Receipt(it) => it.to_json(),
        Message::S3Event(event) => return check_event(event),
    };
    let read = Message::parse(&written).unwrap_or_else(|error| panic!("{error:?}: {written}"));
    assert_eq!(without_seconds(read), without_seconds(message.clone()));
}

/// Fractions are read to the last digit but one.
fn without_seconds(mut message: Message) -> Message {
    let manifest = match &mut message {
        Message::Manifest(manifest) => manifest,
        Message::Receipt(FileReceipt {
            verdict: Verdict::SendAgain { manifest, .. },
            ..
        }) => manifest,
        _ => return message,
    };
    for stage in &mut manifest.stages {
        stage.seconds = 0.0;
    }
    message
}

fn check_event(event: &S3Event) {
    for location in LOCATIONS {
        if let Ok(Some(name)) = event.name_below(location) {
            assert!(event.key.ends_with(name.as_str()));
        }
    }
}

#[test]
fn any_announcement_is_read_or_refused() {
    fuzz(&corpus("announcement"), check_message);
}

#[test]
fn any_manifest_is_read_or_refused() {
    fuzz(&corpus("manifest"), check_message);
}

#[test]
fn any_receipt_is_read_or_refused() {
    fuzz(&corpus("receipt"), check_message);
}

#[test]
fn any_event_of_a_bucket_is_read_or_refused() {
    fuzz(&corpus("s3_event"), check_message);
}

#[test]
fn any_message_of_the_original_is_read_or_refused() {
    fuzz(&corpus("legacy_message"), check_message);
}

#[test]
fn any_record_is_read_or_refused() {
    fuzz(&corpus("record"), |bytes| {
        let as_it_is = check_record(&Bytes::copy_from_slice(bytes));
        let hashed = check_record(&with_right_hash(bytes));
        format!("{as_it_is}, {hashed}")
    });
}

/// The record with length and hash of what follows its header, which no mutation finds.
fn with_right_hash(bytes: &[u8]) -> Bytes {
    let mut record = bytes.to_vec();
    if let Some((header, rest)) = record.split_at_mut_checked(60) {
        header[40..44].copy_from_slice(&u32::try_from(rest.len()).expect("short").to_be_bytes());
        header[44..].copy_from_slice(&blake3::hash(rest).as_bytes()[..16]);
    }
    record.into()
}

fn check_record(record: &Bytes) -> String {
    let _ = trace_of(record);
    let Some(found) = FoundRecord::read(record) else {
        return "refused".into();
    };
    let opened = found.owner.open(found.index, record);
    assert_eq!(opened.as_ref(), Ok(&found.payload));
    let stranger = RecordOwner::new(&Digest::of(b"another"), "attempt");
    let refused = Err(RecordError::Misplaced { index: found.index });
    assert_eq!(stranger.open(found.index, record), refused);
    let described = found
        .head
        .as_ref()
        .and_then(|head| head.description.clone());
    let described = described.map(|description| check_description(&description));
    let head = found.head.map(|head| {
        check_head(&found.owner, found.index, &head, &found.payload);
        (head.is_last, head.trace.is_some())
    });
    format!("{head:?} {described:?}")
}

fn check_head(owner: &RecordOwner, index: u32, head: &RecordHead, payload: &Bytes) {
    let sealed = owner.seal_packed(index, payload, head);
    let read = FoundRecord::read(&sealed).expect("read as written");
    assert_eq!(read.head.as_ref(), Some(head));
    assert_eq!(&read.payload, payload);
}

#[test]
fn any_description_of_a_file_is_read_or_refused() {
    fuzz(&corpus("description"), check_description);
}

fn check_description(bytes: &[u8]) -> String {
    let Some(content) = DescribedContent::from_bytes(bytes) else {
        return "refused".into();
    };
    let again = DescribedContent::from_bytes(&content.to_bytes());
    assert_eq!(again.as_ref(), Some(&content));
    match content {
        DescribedContent::Alone { .. } => "alone".into(),
        DescribedContent::Bundle(files) => format!("{} files", files.len()),
    }
}
