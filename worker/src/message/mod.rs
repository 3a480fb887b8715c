//! What crosses a process: the file announcement, the chunk manifest and the record's header.
//! The only serde types that travel in messages. Knows no queue, no stream and no codec.
//!
//! Identity: a file is its location, name and content; its group is its location and name, so that versions of
//! one name stay in order; deduplication ids follow from both and are never random.

use serde::{Deserialize, Serialize};

use streampress_transport::{FileName, Position};

pub mod record;
pub mod s3_event;

/// The version that announcements and manifests are written in. Readers refuse others by name.
pub const VERSION: u32 = 1;

/// Group of every message when files go strictly one after another.
pub const STRICT_GROUP: &str = "strict";

/// Why a message cannot be used. Permanent: the message will not get better.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Not JSON, or a field is missing or of the wrong kind.
    #[error("not a message of ours: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// Written by another version.
    #[error(
        "message version {0} is not supported by this release (it reads version {VERSION}); update the workers"
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
}

/// BLAKE3 of some bytes, 32 bytes as hex.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// Of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        blake3::hash(bytes).into()
    }

    /// 64 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Self {
        Self(hash.to_hex().to_string())
    }
}

impl TryFrom<String> for Digest {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let fits = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if fits {
            Ok(Self(text))
        } else {
            Err(format!(
                "{text:?} is not a BLAKE3 hash: 64 small hex digits"
            ))
        }
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

/// A file of a source, one version of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileRef {
    /// Where the file lies, as the pipeline's source names it.
    pub location: String,
    /// Relative to the location.
    pub name: FileName,
    /// Size in bytes.
    pub bytes: u64,
    /// BLAKE3 of the whole content.
    pub hash: Digest,
    /// The version: modification time in nanoseconds since 1970.
    pub modified_nanos: u64,
}

impl FileRef {
    /// Location, name and content: sending the same file twice is one file, a changed one is new.
    pub fn id(&self) -> Digest {
        let mut hasher = self.name_hasher();
        hasher.update(self.hash.as_str().as_bytes());
        hasher.finalize().into()
    }

    /// Location and name: the versions of one name stay in order.
    pub fn group(&self) -> String {
        self.name_hasher().finalize().to_hex()[..32].to_owned()
    }

    /// One version of one file. The version is part of it, so that going back to an earlier content is announced too.
    pub fn dedup_id(&self) -> String {
        format!("{}-{:x}", &self.id().as_str()[..40], self.modified_nanos)
    }

    fn name_hasher(&self) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.location.trim_end_matches('/').as_bytes());
        hasher.update(b"\0");
        hasher.update(self.name.as_str().as_bytes());
        hasher.update(b"\0");
        hasher
    }
}

/// "This file waits to be compressed": the body of a message on the files queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Announcement {
    /// Always [`VERSION`].
    pub version: u32,
    /// The file.
    pub file: FileRef,
    /// Milliseconds since 1970.
    pub announced_millis: u64,
    /// W3C trace context of whoever announced it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub traceparent: Option<String>,
}

/// One step of the work on a file, with what it took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StageNumbers {
    /// The step's name in the report.
    pub name: String,
    /// Bytes in.
    pub bytes_in: u64,
    /// Bytes out.
    pub bytes_out: u64,
    /// Seconds.
    pub seconds: f64,
}

impl StageNumbers {
    /// The same as the report has it.
    pub fn to_report(&self) -> crate::report::StageRow {
        let Self {
            name,
            bytes_in,
            bytes_out,
            seconds,
        } = self.clone();
        crate::report::StageRow {
            name,
            bytes_in,
            bytes_out,
            seconds,
        }
    }
}

/// Bytes of a packed file that went one way (`csv columns: BZ2`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Transform and codec.
    pub label: String,
    /// Packed bytes.
    pub bytes: u64,
}

/// Where a packed file's records lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Records {
    /// In order, in the message itself.
    #[serde(rename = "here")]
    Inline(Vec<Position>),
    /// The list is too long for a message: it lies in the stream as JSON, cut into these records.
    #[serde(rename = "listed")]
    Indirect(Vec<Position>),
}

/// "This file is packed, and its records are these": the body of a message on the chunks queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always [`VERSION`].
    pub version: u32,
    /// The file, with the hash that the restored one must have.
    pub file: FileRef,
    /// The attempt that wrote the records: slot, holder and transition. Records of other attempts are not this file's.
    pub attempt: String,
    /// The records, exactly these and in this order.
    pub records: Records,
    /// Sum of the packed bytes, without record headers.
    pub packed_bytes: u64,
    /// What each stage so far took, for the report.
    pub stages: Vec<StageNumbers>,
    /// Where the packed bytes went, for the report.
    pub shares: Vec<Share>,
    /// When the file was announced, milliseconds since 1970.
    pub announced_millis: u64,
    /// When it was packed and safely in the stream, milliseconds since 1970.
    pub compressed_millis: u64,
    /// W3C trace context of the announcement.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub traceparent: Option<String>,
}

impl Announcement {
    /// Reads a message body.
    pub fn parse(body: &str) -> Result<Self, WireError> {
        parse_versioned(body)
    }

    /// The message body.
    pub fn to_json(&self) -> String {
        to_json(self)
    }
}

impl Manifest {
    /// Reads a message body.
    pub fn parse(body: &str) -> Result<Self, WireError> {
        let manifest: Self = parse_versioned(body)?;
        match &manifest.records {
            Records::Inline(list) | Records::Indirect(list) if list.is_empty() => {
                Err(WireError::Field {
                    field: "records",
                    problem: "is empty: even an empty file has a packed form".into(),
                })
            }
            Records::Inline(_) | Records::Indirect(_) => Ok(manifest),
        }
    }

    /// The message body.
    pub fn to_json(&self) -> String {
        to_json(self)
    }
}

/// The version is judged before the fields, so that a newer message is named as such.
fn parse_versioned<T: serde::de::DeserializeOwned>(body: &str) -> Result<T, WireError> {
    #[derive(Deserialize)]
    struct Head {
        version: u64,
    }
    let head: Head = serde_json::from_str(body)?;
    if head.version != u64::from(VERSION) {
        return Err(WireError::Version(head.version));
    }
    Ok(serde_json::from_str(body)?)
}

fn to_json<T: Serialize>(message: &T) -> String {
    serde_json::to_string(message).expect("our messages hold only strings, numbers and lists")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, content: &[u8], modified_nanos: u64) -> FileRef {
        FileRef {
            location: "file:///data/in".into(),
            name: FileName::parse(name).expect("a good name"),
            bytes: content.len() as u64,
            hash: Digest::of(content),
            modified_nanos,
        }
    }

    #[test]
    fn the_same_file_twice_is_one_file_and_a_changed_one_is_new() {
        assert_eq!(file("a", b"x", 1).id(), file("a", b"x", 2).id());
        assert_ne!(file("a", b"x", 1).id(), file("a", b"y", 1).id());
        assert_ne!(file("a", b"x", 1).id(), file("b", b"x", 1).id());
        assert_ne!(file("a", b"x", 1).dedup_id(), file("a", b"x", 2).dedup_id());
        assert!(file("a", b"x", u64::MAX).dedup_id().len() <= 128);
    }

    #[test]
    fn versions_of_one_name_share_a_group() {
        assert_eq!(file("a", b"x", 1).group(), file("a", b"y", 2).group());
        assert_ne!(file("a", b"x", 1).group(), file("b", b"x", 1).group());
    }

    #[test]
    fn an_announcement_comes_back_as_it_was_written() {
        let message = Announcement {
            version: VERSION,
            file: file("ordner/ä #%.json", b"[]", 7),
            announced_millis: 5,
            traceparent: None,
        };
        assert_eq!(
            Announcement::parse(&message.to_json()).expect("readable"),
            message
        );
    }

    #[test]
    fn a_message_of_a_newer_version_is_named_as_such() {
        let error = Announcement::parse(r#"{"version": 2, "else": true}"#).expect_err("refused");
        assert!(error.to_string().contains("version 2"), "{error}");
    }

    #[test]
    fn a_name_that_leaves_the_location_is_refused() {
        let body = file("a", b"", 0);
        let json = serde_json::to_string(&body)
            .expect("json")
            .replace("\"a\"", "\"../../etc/passwd\"");
        assert!(serde_json::from_str::<FileRef>(&json).is_err());
    }
}
