//! The Python original's two messages, field by field and space by space as its `json.dumps` writes
//! them.

use serde::Deserialize;

use streampress_codec::legacy::{StageCount, json::put_string};

/// Announces a file on the files queue.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LegacyAnnouncement {
    /// A UUID; the original ignores it.
    #[serde(rename = "ID", default)]
    pub id: String,
    /// The file's name without its folder.
    pub file_name: String,
}

/// Announces a compressed file on the chunks queue.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LegacyManifest {
    /// A UUID; the original ignores it.
    #[serde(rename = "ID", default)]
    pub id: String,
    /// `test_location/<name>`.
    pub file_name: String,
    /// How many records; the original ignores it.
    #[serde(default)]
    pub file_total_chunk: u64,
    /// The shard that holds the records.
    pub shard_id: String,
    /// The records' sequence numbers; their order is by number, not by this list.
    pub sequence_number: Vec<String>,
    /// JSON inside a string: `{"name": "lzma"}` or `{"name": "lzma + bz2"}`.
    pub metadata: String,
}

/// A message that is not one of the original's.
#[derive(Debug, thiserror::Error)]
pub enum SeedMessageError {
    /// Not JSON, or a field is missing or of another type.
    #[error("the {kind} message is not readable")]
    Json {
        /// `file` or `chunk`.
        kind: &'static str,
        /// What serde says.
        #[source]
        source: serde_json::Error,
    },
    /// `metadata.name` is neither of the two.
    #[error(
        "metadata {0:?} names no known codec: expected {{\"name\": \"lzma\"}} or {{\"name\": \"lzma + bz2\"}}"
    )]
    Metadata(String),
}

impl LegacyAnnouncement {
    /// Reads a message of the files queue.
    pub fn parse(text: &str) -> Result<Self, SeedMessageError> {
        serde_json::from_str(text).map_err(|source| SeedMessageError::Json {
            kind: "file",
            source,
        })
    }

    /// As Python's `json.dumps` writes it.
    pub fn to_json(&self) -> String {
        let mut out = String::from("{");
        put_field(&mut out, "ID", &self.id);
        out.push_str(", ");
        put_field(&mut out, "file_name", &self.file_name);
        out.push('}');
        out
    }
}

impl LegacyManifest {
    /// Reads a message of the chunks queue.
    pub fn parse(text: &str) -> Result<Self, SeedMessageError> {
        serde_json::from_str(text).map_err(|source| SeedMessageError::Json {
            kind: "chunk",
            source,
        })
    }

    /// As Python's `json.dumps` writes it.
    pub fn to_json(&self) -> String {
        let mut out = String::from("{");
        put_field(&mut out, "ID", &self.id);
        out.push_str(", ");
        put_field(&mut out, "file_name", &self.file_name);
        out.push_str(&format!(
            ", \"file_total_chunk\": {}, ",
            self.file_total_chunk
        ));
        put_field(&mut out, "shard_id", &self.shard_id);
        out.push_str(", \"sequence_number\": [");
        for (number, sequence) in self.sequence_number.iter().enumerate() {
            if number > 0 {
                out.push_str(", ");
            }
            put_string(&mut out, sequence);
        }
        out.push_str("], ");
        put_field(&mut out, "metadata", &self.metadata);
        out.push('}');
        out
    }

    /// The `metadata` text for so many stages.
    pub fn metadata_for(stages: StageCount) -> String {
        match stages {
            StageCount::One => r#"{"name": "lzma"}"#.into(),
            StageCount::Two => r#"{"name": "lzma + bz2"}"#.into(),
        }
    }

    /// The stages that `metadata` names, with or without spaces around the plus.
    pub fn stages(&self) -> Result<StageCount, SeedMessageError> {
        #[derive(Deserialize)]
        struct Metadata {
            name: String,
        }
        let unknown = || SeedMessageError::Metadata(self.metadata.clone());
        let metadata: Metadata = serde_json::from_str(&self.metadata).map_err(|_| unknown())?;
        match metadata.name.replace(' ', "").as_str() {
            "lzma" => Ok(StageCount::One),
            "lzma+bz2" => Ok(StageCount::Two),
            _ => Err(unknown()),
        }
    }
}

fn put_field(out: &mut String, key: &str, value: &str) {
    put_string(out, key);
    out.push_str(": ");
    put_string(out, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: &str = r#"{"ID": "eb2e", "file_name": "test_location/\u00e9.json", "file_total_chunk": 1, "shard_id": "shardId-000000000004", "sequence_number": ["4968", "4969"], "metadata": "{\"name\": \"lzma + bz2\"}"}"#;

    #[test]
    fn messages_come_back_letter_by_letter() {
        let chunk = LegacyManifest::parse(CHUNK).expect("readable");
        assert_eq!(chunk.to_json(), CHUNK);
        assert_eq!(chunk.stages().ok(), Some(StageCount::Two));
        assert_eq!(
            LegacyManifest::metadata_for(StageCount::Two),
            chunk.metadata
        );
        let file = r#"{"ID": "5348", "file_name": "multi.json"}"#;
        assert_eq!(
            LegacyAnnouncement::parse(file).expect("readable").to_json(),
            file
        );
    }

    #[test]
    fn other_messages_are_refused() {
        assert!(LegacyAnnouncement::parse("{}").is_err());
        assert!(LegacyManifest::parse("not json").is_err());
        let mut chunk = LegacyManifest::parse(CHUNK).expect("readable");
        chunk.metadata = r#"{"name": "lzma+bz2"}"#.into();
        assert_eq!(chunk.stages().ok(), Some(StageCount::Two));
        chunk.metadata = r#"{"name": "zstd"}"#.into();
        assert!(chunk.stages().is_err());
    }
}
