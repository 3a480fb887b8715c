//! What crosses a process: messages, and the header of a record. A leaf: it knows no queue, no stream and no role, only
//! names and positions of files and records.
//!
//! A message body is parsed once, by [`Message::parse`], where it is received. Everything after that works on [`Message`].

mod announcement;
mod bundle;
mod description;
mod file;
#[cfg(test)]
mod fuzz;
mod legacy;
mod manifest;
mod receipt;
pub mod record;
mod s3_event;
pub mod trace_context;

use serde::Serialize;
use serde_json::Value;

pub use self::announcement::{Announcement, SourceObservation};
pub use self::bundle::{BundlePlace, MOST_BUNDLE_BYTES};
pub use self::description::{DescribedContent, DescribedFile};
pub use self::file::{Digest, FileRef, hash};
pub use self::legacy::{LegacyAnnouncement, LegacyManifest};
pub use self::manifest::{Manifest, Records, Share, StageNumbers};
pub use self::receipt::{FileReceipt, ReceiptFile, Verdict};
pub use self::s3_event::S3Event;
pub use streampress_crds::DeadLetterReason;

/// The version that announcements, manifests and receipts are written in. Readers name others and leave them to another
/// release.
pub const VERSION: u32 = 1;
/// The version of a manifest of the release before, whose file is in a bundle, and of a receipt that holds such a manifest.
pub const BUNDLED_VERSION: u32 = 2;
/// The version of a manifest whose records describe their file, as all do that are written now, and of a receipt that holds
/// such a manifest.
pub const DESCRIBED_VERSION: u32 = 3;
/// The version of a manifest without records.
pub const MISSING_VERSION: u32 = 4;
/// The newest version that is read.
pub const NEWEST_VERSION: u32 = MISSING_VERSION;

/// Group of every message when files go strictly one after another.
pub const STRICT_GROUP: &str = "strict";

/// How details of dead letters name the command that sends them again: who writes them does not know from where they are read.
/// What lists them has the command itself in its place.
pub(crate) const REDRIVE_COMMAND: &str =
    "'streampress redrive' with the same FILE and --data or --aws";

/// A message of any queue.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// A file is to be compressed.
    Announcement(Announcement),
    /// The same in the Python original's form, which only has the file's name.
    LegacyAnnouncement(LegacyAnnouncement),
    /// Something happened to an object of a bucket.
    S3Event(S3Event),
    /// A file is packed and in the stream.
    Manifest(Manifest),
    /// The same in the Python original's form.
    LegacyManifest(LegacyManifest),
    /// This became of a file.
    Receipt(FileReceipt),
}

/// Why a message cannot be used. Permanent: another delivery has the same content.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Not JSON, or a field is missing or of the wrong type.
    #[error("not a message of Streampress")]
    Unreadable(#[source] serde_json::Error),
    /// Written by another version.
    #[error(
        "message version {0} is not supported by this release (it reads versions {VERSION} to {NEWEST_VERSION}); update the workers"
    )]
    Version(u64),
    /// A field contradicts another.
    #[error("message field {field} {problem}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The original's `metadata` names no codec that it has.
    #[error(
        "metadata {0:?} names no known codec: expected {{\"name\": \"lzma\"}} or {{\"name\": \"lzma + bz2\"}}"
    )]
    Metadata(String),
}

/// What a message is about, for logs and traces. A field is `None` where the message does not say it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// The file's id.
    pub file_id: Option<String>,
    /// The file's name.
    pub file_name: Option<String>,
    /// The W3C trace context that the body names.
    pub traceparent: Option<String>,
}

impl Message {
    /// Reads a message body of any kind. Of our own messages the version is judged before the other fields, so that a
    /// newer message is named as such.
    pub fn parse(body: &str) -> Result<Self, MessageError> {
        #[cfg(test)]
        parse_count::add_one();
        let value: Value = serde_json::from_str(body).map_err(MessageError::Unreadable)?;
        let parsed = match Kind::of(&value)? {
            Kind::Announcement => serde_json::from_value(value).map(Self::Announcement),
            Kind::LegacyAnnouncement => serde_json::from_value(value).map(Self::LegacyAnnouncement),
            Kind::S3Event => S3Event::from_value(value).map(Self::S3Event),
            Kind::Manifest => {
                let manifest: Manifest =
                    serde_json::from_value(value).map_err(MessageError::Unreadable)?;
                manifest.check()?;
                return Ok(Self::Manifest(manifest));
            }
            Kind::LegacyManifest => serde_json::from_value(value).map(Self::LegacyManifest),
            Kind::Receipt => {
                let receipt: FileReceipt =
                    serde_json::from_value(value).map_err(MessageError::Unreadable)?;
                receipt.check()?;
                return Ok(Self::Receipt(receipt));
            }
        };
        parsed.map_err(MessageError::Unreadable)
    }

    /// What it is about.
    pub fn subject(&self) -> Subject {
        let of_file = |file: &FileRef, traceparent: &Option<String>| Subject {
            file_id: Some(file.id().as_str().to_owned()),
            file_name: Some(file.name.to_string()),
            traceparent: traceparent.clone(),
        };
        let named = |name: &str| Subject {
            file_name: Some(name.to_owned()),
            ..Subject::default()
        };
        match self {
            Self::Announcement(it) => of_file(&it.file, &it.traceparent),
            Self::Manifest(it) => of_file(&it.file, &it.traceparent),
            Self::Receipt(it) => of_file(it.file(), &it.traceparent),
            Self::LegacyAnnouncement(it) => named(&it.file_name),
            Self::LegacyManifest(it) => named(&it.file_name),
            Self::S3Event(it) => named(&it.key),
        }
    }

    /// The file, where the message identifies it by its content.
    pub fn file(&self) -> Option<&FileRef> {
        match self {
            Self::Announcement(it) => Some(&it.file),
            Self::Manifest(it) => Some(&it.file),
            Self::Receipt(it) => Some(it.file()),
            Self::LegacyAnnouncement(_) | Self::LegacyManifest(_) | Self::S3Event(_) => None,
        }
    }

    /// What kind of message it is, for people.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Announcement(_) => "announcement",
            Self::LegacyAnnouncement(_) => "announcement of the original",
            Self::S3Event(_) => "bucket event",
            Self::Manifest(_) => "manifest",
            Self::LegacyManifest(_) => "manifest of the original",
            Self::Receipt(_) => "receipt",
        }
    }
}

enum Kind {
    Announcement,
    LegacyAnnouncement,
    S3Event,
    Manifest,
    LegacyManifest,
    Receipt,
}

impl Kind {
    /// Ours have a numeric version, which neither the original's messages nor a bucket's events have.
    fn of(value: &Value) -> Result<Self, MessageError> {
        if let Some(version) = value.get("version").and_then(Value::as_u64) {
            return Self::of_ours(value, version);
        }
        let event = value.get("Event").and_then(Value::as_str);
        if value.get("Records").is_some() || event == Some("s3:TestEvent") {
            return Err(MessageError::Field {
                field: "Records",
                problem: "is of a bucket's own notifications: send its events through EventBridge"
                    .to_owned(),
            });
        }
        Ok(if S3Event::is_kind_of(value) {
            Self::S3Event
        } else if value.get("sequence_number").is_some() {
            Self::LegacyManifest
        } else if value.get("file_name").is_some() {
            Self::LegacyAnnouncement
        } else {
            // The error then names the fields that ours have.
            Self::Announcement
        })
    }

    /// The kind of one of our messages follows from its version and parts. One of a known version without the parts of any
    /// kind is damaged.
    fn of_ours(value: &Value, version: u64) -> Result<Self, MessageError> {
        let has = |field| value.get(field).is_some();
        let manifest = value.get("manifest");
        let with = |version, part: &'static str| {
            let holds = manifest.is_some_and(|manifest| manifest.get(part).is_some());
            match (holds, has(part)) {
                (true, _) if version != MISSING_VERSION => Ok(Self::Receipt),
                (_, true) => Ok(Self::Manifest),
                (_, false) => Err(MessageError::Field {
                    field: part,
                    problem: format!("is missing in a message of version {version}"),
                }),
            }
        };
        match u32::try_from(version) {
            Ok(VERSION) => Ok(match (has("verdict"), has("records")) {
                (true, _) => Self::Receipt,
                (false, true) => Self::Manifest,
                (false, false) => Self::Announcement,
            }),
            Ok(BUNDLED_VERSION) => with(BUNDLED_VERSION, "bundle"),
            Ok(DESCRIBED_VERSION) => with(DESCRIBED_VERSION, "records"),
            Ok(MISSING_VERSION) => with(MISSING_VERSION, "records"),
            Ok(_) | Err(_) => Err(MessageError::Version(version)),
        }
    }
}

fn to_json<T: Serialize>(message: &T) -> String {
    serde_json::to_string(message).expect("our messages hold only strings, numbers and lists")
}

/// Counts the bodies that a test's thread has parsed.
#[cfg(test)]
pub(crate) mod parse_count {
    use std::cell::Cell;

    thread_local! {
        static COUNT: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn add_one() {
        COUNT.set(COUNT.get() + 1);
    }

    /// Bodies parsed by this thread so far.
    pub(crate) fn get() -> usize {
        COUNT.get()
    }
}

#[cfg(test)]
mod tests {
    use streampress_transport::{FileVersion, Position};

    use super::*;

    fn file(name: &str) -> FileRef {
        FileRef {
            modified_nanos: 7,
            ..FileRef::with_content(name, b"[]")
        }
    }

    fn observed() -> SourceObservation {
        SourceObservation {
            announcement: "a1".into(),
            fingerprint: "1-2-3".into(),
            is_settled: true,
            wants_reply: true,
        }
    }

    fn manifest(positions: Vec<Position>) -> Manifest {
        Manifest {
            version: VERSION,
            file: file("a.json"),
            file_version: Some(FileVersion::new("files", 5, 7.into())),
            observed: Some(observed()),
            repeats: 2,
            attempt: "compressor-0/a/1".into(),
            records: Records::Inline(positions),
            bundle: None,
            packed_bytes: u64::MAX,
            effort: Some("balanced".into()),
            stages: vec![StageNumbers {
                name: "Step 01 pack".into(),
                bytes_in: 2,
                bytes_out: 1,
                seconds: 0.1,
            }],
            shares: Vec::new(),
            announced_millis: 5,
            compressed_millis: 6,
            traceparent: Some("00-1-2-03".into()),
        }
    }

    fn position() -> Position {
        Position {
            shard: "0".into(),
            sequence: 1.into(),
            bytes: 3,
        }
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let announcement = Announcement {
            version: VERSION,
            file: file("ordner/ä #%.json"),
            announced_millis: 5,
            observed: Some(observed()),
            repeats: 0,
            traceparent: None,
        };
        assert_eq!(
            Message::parse(&announcement.to_json()).expect("readable"),
            Message::Announcement(announcement)
        );
        let manifest = manifest(vec![position()]);
        assert_eq!(
            Message::parse(&manifest.to_json()).expect("readable"),
            Message::Manifest(manifest)
        );
    }

    #[test]
    fn a_receipt_is_read_as_it_was_written() {
        let about = ReceiptFile {
            file: file("a.json"),
            file_version: FileVersion::new("files", 5, 7.into()),
            observed: Some(observed()),
        };
        for verdict in [
            Verdict::Restored(about.clone()),
            Verdict::Superseded(about),
            Verdict::SendAgain {
                manifest: Box::new(manifest(vec![position()])),
                reason: DeadLetterReason::Expired,
                detail: "older than the stream's retention".into(),
            },
        ] {
            let receipt = FileReceipt {
                version: VERSION,
                verdict,
                traceparent: None,
            };
            let read = Message::parse(&receipt.to_json()).expect("readable");
            assert_eq!(read.subject().file_name.as_deref(), Some("a.json"));
            assert_eq!(read, Message::Receipt(receipt));
        }
    }

    #[test]
    fn a_receipt_is_refused_if_its_verdict_is_unknown_or_its_manifest_names_no_record() {
        let empty = FileReceipt {
            version: VERSION,
            verdict: Verdict::SendAgain {
                manifest: Box::new(manifest(Vec::new())),
                reason: DeadLetterReason::Expired,
                detail: String::new(),
            },
            traceparent: None,
        };
        for body in [
            empty.to_json(),
            r#"{"version": 1, "verdict": "eaten"}"#.into(),
        ] {
            Message::parse(&body).expect_err("refused");
        }
    }

    fn bundled(offset: u64) -> Manifest {
        Manifest {
            version: BUNDLED_VERSION,
            bundle: Some(BundlePlace {
                id: Digest::of(b"bundle"),
                files: 2,
                bytes: 7,
                prefix: 1,
                offset,
            }),
            ..manifest(vec![position()])
        }
    }

    #[test]
    fn a_manifest_of_a_file_in_a_bundle_and_the_request_to_send_it_again_are_read_as_written() {
        let manifest = bundled(6);
        assert_eq!(
            Message::parse(&manifest.to_json()).expect("readable"),
            Message::Manifest(manifest.clone())
        );
        assert_is_read_in_a_request_to_send_again(manifest, BUNDLED_VERSION);
    }

    fn assert_is_read_in_a_request_to_send_again(manifest: Manifest, version: u32) {
        let verdict = Verdict::SendAgain {
            manifest: Box::new(manifest),
            reason: DeadLetterReason::Expired,
            detail: String::new(),
        };
        let receipt = FileReceipt {
            version: verdict.version(),
            verdict,
            traceparent: None,
        };
        assert_eq!(receipt.version, version);
        assert_eq!(
            Message::parse(&receipt.to_json()).expect("readable"),
            Message::Receipt(receipt)
        );
    }

    #[test]
    fn a_manifest_whose_place_is_outside_its_bundle_is_refused() {
        let error = Message::parse(&bundled(7).to_json()).expect_err("refused");
        assert!(error.to_string().contains("bundle"), "{error}");
    }

    #[test]
    fn manifests_of_every_version_are_read_and_newer_ones_left_to_newer_workers() {
        let json = manifest(vec![position()]).to_json();
        assert!(json.starts_with(r#"{"version":1,"#), "{json}");
        assert!(!json.contains("bundle"), "{json}");
        let bundled = bundled(6).to_json();
        for described in [json.replacen('1', "3", 1), bundled.replacen('2', "3", 1)] {
            let Ok(Message::Manifest(read)) = Message::parse(&described) else {
                panic!("no manifest: {described}");
            };
            assert_eq!(read.version, DESCRIBED_VERSION);
            assert_is_read_in_a_request_to_send_again(read, DESCRIBED_VERSION);
        }
        for newer in [json.replacen('1', "5", 1), bundled.replacen('2', "5", 1)] {
            let error = Message::parse(&newer).expect_err("refused");
            assert!(matches!(error, MessageError::Version(5)), "{error}");
        }
        for damaged in [
            // Only a manifest with a bundle has the second version.
            json.replacen('1', "2", 1),
            r#"{"version":4,"file":1}"#.to_owned(),
            r#"{"version":3,"file":1}"#.to_owned(),
        ] {
            let error = Message::parse(&damaged).expect_err("refused");
            assert!(matches!(error, MessageError::Field { .. }), "{error}");
        }
    }

    #[test]
    fn only_a_manifest_of_a_missing_file_has_no_records() {
        let missing = Manifest {
            version: MISSING_VERSION,
            ..manifest(Vec::new())
        };
        let read = Message::parse(&missing.to_json()).expect("readable");
        assert_eq!(read, Message::Manifest(missing));
        for refused in [
            manifest(Vec::new()),
            Manifest {
                records: Records::Inline(Vec::new()),
                ..bundled(6)
            },
            Manifest {
                version: MISSING_VERSION,
                ..manifest(vec![position()])
            },
            Manifest {
                version: MISSING_VERSION,
                records: Records::Inline(Vec::new()),
                ..bundled(6)
            },
        ] {
            let error = Message::parse(&refused.to_json()).expect_err("refused");
            assert!(error.to_string().contains("records"), "{error}");
        }
    }

    #[test]
    fn a_manifest_of_a_release_before_receipts_is_read() {
        let json = manifest(vec![position()]).to_json();
        let mut value: Value = serde_json::from_str(&json).expect("JSON");
        for field in ["observed", "repeats"] {
            let removed = value.as_object_mut().expect("an object").remove(field);
            removed.expect("written");
        }
        let Ok(Message::Manifest(read)) = Message::parse(&value.to_string()) else {
            panic!("no manifest: {value}");
        };
        assert_eq!((read.observed, read.repeats), (None, 0));
    }

    #[test]
    fn a_message_of_a_newer_version_is_named_as_such() {
        for body in [
            r#"{"version": 2, "else": true}"#,
            r#"{"file": 1, "records": "many", "version": 2}"#,
            r#"{"verdict": "eaten", "version": 2}"#,
        ] {
            let error = Message::parse(body).expect_err("refused");
            assert!(error.to_string().contains("version 2"), "{error}");
        }
    }

    #[test]
    fn a_manifest_without_records_is_refused() {
        let error = Message::parse(&manifest(Vec::new()).to_json()).expect_err("refused");
        assert!(error.to_string().contains("records"), "{error}");
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for body in [
            "",
            "[]",
            "{}",
            "not json",
            r#"{"version": "1"}"#,
            r#"{"version": 1, "file": {}}"#,
            r#"{"sequence_number": [], "file_name": "a"}"#,
            r#"{"file_name": 7}"#,
            r#"{"source": "aws.s3"}"#,
        ] {
            assert!(
                matches!(Message::parse(body), Err(MessageError::Unreadable(_))),
                "{body}"
            );
        }
    }

    #[test]
    fn each_kind_of_message_says_what_it_is_about() {
        let subject = |body: &str| Message::parse(body).expect("readable").subject();
        let of_manifest = subject(&manifest(vec![position()]).to_json());
        assert_eq!(
            of_manifest.file_id.as_deref(),
            Some(file("a.json").id().as_str())
        );
        assert_eq!(of_manifest.file_name.as_deref(), Some("a.json"));
        assert_eq!(of_manifest.traceparent.as_deref(), Some("00-1-2-03"));
        let of_original = subject(r#"{"ID": "x", "file_name": "b.json"}"#);
        assert_eq!(of_original.file_name.as_deref(), Some("b.json"));
        assert_eq!(of_original.file_id, None);
    }
}
