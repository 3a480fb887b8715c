//! The contract of a stream of records.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use serde::{Deserialize, Serialize};

use crate::{TransportError, TransportResult};

/// A record to be appended.
#[derive(Debug, Clone)]
pub struct Record {
    /// Records are spread over the shards by a hash of this; empty is any shard.
    pub key: String,
    /// At most [`ChunkStream::max_record_bytes`].
    pub data: Bytes,
}

/// A sequence number: a decimal number of up to 129 digits, ordered as a number, not as text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Sequence(String);

impl Sequence {
    /// `None` unless it is 1 to 129 decimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=129).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        let trimmed = text.trim_start_matches('0');
        fits.then(|| {
            Self(if trimmed.is_empty() {
                "0".into()
            } else {
                trimmed.into()
            })
        })
    }

    /// The digits, without leading zeros.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<u64> for Sequence {
    fn from(number: u64) -> Self {
        Self(number.to_string())
    }
}

impl Ord for Sequence {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0.len(), &self.0).cmp(&(other.0.len(), &other.0))
    }
}

impl PartialOrd for Sequence {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<'de> Deserialize<'de> for Sequence {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom("a sequence number is 1 to 129 decimal digits"))
    }
}

/// Where a record lies in the stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The shard that took the record, as the stream named it.
    pub shard: String,
    /// The record's sequence number there.
    #[serde(rename = "seq")]
    pub sequence: Sequence,
    /// The record's size in bytes; 0 where it is not known, as in the Python original's messages.
    pub bytes: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.shard, self.sequence.as_str())
    }
}

/// A record as it lies in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScannedRecord {
    /// Where.
    pub position: Position,
    /// Its bytes; `None` for a stretch of the position's bytes that holds no whole record.
    pub data: Option<Bytes>,
}

/// Records of a stream, some at a time. After an error it ends.
pub type StreamScan = BoxStream<'static, TransportResult<Vec<ScannedRecord>>>;

/// A metered stream of records that keeps them for a time.
///
/// Contract of every implementation: what `append` answered is durable, and `fetch` returns the same bytes until the
/// retention time has passed, then [`TransportError::Expired`]. A record may be written twice after a lost response:
/// only the position answered counts. Limits, batches, retries, iterators and resharding are the implementation's.
#[async_trait]
pub trait ChunkStream: Send + Sync + fmt::Debug {
    /// The largest record it takes, in bytes.
    fn max_record_bytes(&self) -> usize;
    /// Writes all records; the answer is index-aligned.
    async fn append(&self, records: Vec<Record>) -> TransportResult<Vec<Position>>;
    /// Reads records back; the answer is index-aligned.
    async fn fetch(&self, positions: &[Position]) -> TransportResult<Vec<Bytes>>;
    /// Reads every record that the stream still has, those of a shard from the oldest to the newest at the time of the call or
    /// somewhat later. What is damaged there is answered as such, what has expired is left out.
    fn scan(&self) -> StreamScan {
        let cannot = "this stream cannot be read from its oldest record";
        stream::iter([Err(TransportError::Invalid(cannot.to_owned()))]).boxed()
    }
    /// Tests whether it takes records now, with a small one that no manifest names.
    async fn probe_append(&self) -> TransportResult<()> {
        let data = Bytes::from_static(b"streampress probe");
        let record = Record {
            key: String::new(),
            data,
        };
        self.append(vec![record]).await.map(drop)
    }
    /// Tests whether records can be read now. An implementation that cannot tell says that they can.
    async fn probe_fetch(&self) -> TransportResult<()> {
        Ok(())
    }
    /// Another text once the stream was deleted and made again, and its records with it. Asked of the service at each call;
    /// always the same from an implementation that cannot tell.
    async fn incarnation(&self) -> TransportResult<String> {
        Ok(String::new())
    }
    /// Whether the task or thread that writes has ended, so that no call can succeed any more in this process.
    fn has_ended(&self) -> bool {
        false
    }
    /// What this handle wrote and read so far.
    fn counts(&self) -> StreamCounts;
}

/// What a stream handle wrote and read so far. At any time: sent = acknowledged + retried + dead + under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamCounts {
    /// Records in put requests, however often.
    pub sent: u64,
    /// Records taken.
    pub acknowledged: u64,
    /// Records that failed and were or will be sent again.
    pub retried: u64,
    /// Of the failed, refused for their shard's rate.
    pub throttled: u64,
    /// Records given up.
    pub dead: u64,
    /// Records in requests that are not answered yet.
    pub under_way: u64,
    /// Answers to reads of a shard.
    pub reads: u64,
    /// Requests for a shard iterator.
    pub seeks: u64,
    /// Bytes of all records read.
    pub bytes_read: u64,
    /// Bytes of the records that callers fetched.
    pub bytes_served: u64,
    /// Reads and seeks refused for their shard's rate.
    pub reads_throttled: u64,
}
