//! Our forms of the Python original's messages, byte for byte against those that it wrote.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use serde_json::Value;
use streampress::message::Message;

fn golden(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("codec/testdata/legacy")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn cases() -> Vec<Value> {
    let manifest: Value = serde_json::from_slice(&golden("manifest.json")).expect("manifest");
    manifest["cases"].as_array().expect("cases").clone()
}

#[test]
fn messages_are_the_originals_byte_for_byte() {
    let mut chunks = 0;
    for case in cases() {
        let body = case["file_queue_message_body"].as_str().expect("body");
        match Message::parse(body) {
            Ok(Message::LegacyAnnouncement(message)) => assert_eq!(message.to_json(), body),
            other => panic!("{other:?}"),
        }
        if let Some(name) = case["sqs_body_file"].as_str() {
            let body = String::from_utf8(golden(name)).expect("UTF-8");
            let Ok(Message::LegacyManifest(message)) = Message::parse(&body) else {
                panic!("{name} is not read as a manifest");
            };
            assert_eq!(message.to_json(), body);
            assert_eq!(
                message.sequence_number.len() as u64,
                message.file_total_chunk
            );
            chunks += 1;
        }
    }
    assert!(chunks >= 5);
}
