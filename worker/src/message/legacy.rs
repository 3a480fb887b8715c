//! The Python original's two messages, byte for byte as its `json.dumps` writes them.

use serde::Deserialize;

use streampress_codec::legacy::{StageCount, json::put_string};

use super::MessageError;

/// Announces a file on the files queue.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LegacyAnnouncement {
    /// A UUID; the original ignores it.
    #[serde(rename = "ID", default)]
    pub id: String,
    /// The file's name without its folder.
    pub file_name: String,
}

/// Names the records of a compressed file on the chunks queue.
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

impl LegacyAnnouncement {
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
    pub(crate) fn metadata_for(stages: StageCount) -> String {
        match stages {
            StageCount::One => r#"{"name": "lzma"}"#.into(),
            StageCount::Two => r#"{"name": "lzma + bz2"}"#.into(),
        }
    }

    /// The stages that `metadata` names, with or without spaces around the plus.
    pub fn stages(&self) -> Result<StageCount, MessageError> {
        #[derive(Deserialize)]
        struct Metadata {
            name: String,
        }
        let unknown = || MessageError::Metadata(self.metadata.clone());
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
    use crate::message::Message;

    const CHUNK: &str = r#"{"ID": "eb2e", "file_name": "test_location/\u00e9.json", "file_total_chunk": 1, "shard_id": "shardId-000000000004", "sequence_number": ["4968", "4969"], "metadata": "{\"name\": \"lzma + bz2\"}"}"#;

    fn manifest(body: &str) -> LegacyManifest {
        match Message::parse(body) {
            Ok(Message::LegacyManifest(manifest)) => manifest,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn messages_are_written_as_they_were_read() {
        let chunk = manifest(CHUNK);
        assert_eq!(chunk.to_json(), CHUNK);
        assert_eq!(chunk.stages().ok(), Some(StageCount::Two));
        assert_eq!(
            LegacyManifest::metadata_for(StageCount::Two),
            chunk.metadata
        );
        let body = r#"{"ID": "5348", "file_name": "multi.json"}"#;
        match Message::parse(body) {
            Ok(Message::LegacyAnnouncement(file)) => assert_eq!(file.to_json(), body),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_codec_that_the_original_does_not_have_is_refused() {
        let mut chunk = manifest(CHUNK);
        chunk.metadata = r#"{"name": "lzma+bz2"}"#.into();
        assert_eq!(chunk.stages().ok(), Some(StageCount::Two));
        chunk.metadata = r#"{"name": "zstd"}"#.into();
        assert!(chunk.stages().is_err());
    }
}
