//! The identity of a file. A file is its location, name and content; its group is its location and name, so that
//! versions of one name stay in order.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use streampress_transport::FileName;

/// BLAKE3 of some bytes, 32 bytes as hex.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// Of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        blake3::hash(bytes).into()
    }

    /// From its 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        blake3::Hash::from_bytes(bytes).into()
    }

    /// Its 32 bytes.
    pub fn to_bytes(&self) -> [u8; 32] {
        blake3::Hash::from_hex(&self.0).map_or([0; 32], |hash| *hash.as_bytes())
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
                "{text:?} is not a BLAKE3 hash: 64 lower-case hex digits"
            ))
        }
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

/// BLAKE3 and length of everything that `reader` yields.
pub fn hash(mut reader: impl Read) -> io::Result<(Digest, u64)> {
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut reader, &mut hasher)?;
    Ok((hasher.finalize().into(), hasher.count()))
}

/// One version of a source's file.
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
    /// Location, name and content: the same file sent twice has one id, a changed file has another.
    pub fn id(&self) -> Digest {
        let mut hasher = self.name_hasher();
        hasher.update(self.hash.as_str().as_bytes());
        hasher.finalize().into()
    }

    /// Location and name: the versions of one name stay in order.
    pub fn group(&self) -> String {
        self.name_hasher().finalize().to_hex()[..32].to_owned()
    }

    /// Names this content with this modification time: the original's announcements have their ids from it.
    pub fn version_id(&self) -> String {
        format!("{}-{:x}", &self.id().as_str()[..40], self.modified_nanos)
    }

    /// A file of tests with this content.
    #[cfg(test)]
    pub(crate) fn with_content(name: &str, content: &[u8]) -> Self {
        Self {
            location: "file:///data/in".into(),
            name: FileName::parse(name).expect("a valid name"),
            bytes: content.len() as u64,
            hash: Digest::of(content),
            modified_nanos: 0,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, content: &[u8], modified_nanos: u64) -> FileRef {
        FileRef {
            modified_nanos,
            ..FileRef::with_content(name, content)
        }
    }

    #[test]
    fn the_same_file_twice_is_one_file_and_a_changed_one_is_new() {
        assert_eq!(file("a", b"x", 1).id(), file("a", b"x", 2).id());
        assert_ne!(file("a", b"x", 1).id(), file("a", b"y", 1).id());
        assert_ne!(file("a", b"x", 1).id(), file("b", b"x", 1).id());
        assert_ne!(
            file("a", b"x", 1).version_id(),
            file("a", b"x", 2).version_id()
        );
        assert!(file("a", b"x", u64::MAX).version_id().len() <= 128);
    }

    #[test]
    fn versions_of_one_name_share_a_group() {
        assert_eq!(file("a", b"x", 1).group(), file("a", b"y", 2).group());
        assert_ne!(file("a", b"x", 1).group(), file("b", b"x", 1).group());
    }

    #[test]
    fn a_name_that_leaves_the_location_is_refused() {
        let json = serde_json::to_string(&file("a", b"", 0))
            .expect("json")
            .replace("\"a\"", "\"../../etc/passwd\"");
        assert!(serde_json::from_str::<FileRef>(&json).is_err());
    }
}
