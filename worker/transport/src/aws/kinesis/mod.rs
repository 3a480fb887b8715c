//! The stream on Kinesis: `writer` puts records by way of `put_task`, `reader` fetches them by way of a `shard_reader` for
//! each shard; `scan` reads them all without a position.

mod cache;
mod cursor;
mod limits;
mod overread_budget;
mod placement;
mod put_counts;
mod put_task;
mod rate_limit;
mod read_ahead;
mod reader;
mod scan;
mod shard_calls;
mod shard_reader;
mod shards;
mod waiting_record;
mod writer;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use tracing::debug;

use self::limits::{DEFAULT_RECORD_BYTES, MAX_KEY_CHARS};
use self::reader::Reader;
use self::shards::Shards;
use self::writer::StreamWriter;
use super::Aws;
use super::service_error::{ServiceError, transport_error};
use crate::{
    ChunkStream, Position, Record, StreamCounts, StreamScan, TransportError, TransportResult,
};

/// One stream. Cloning shares its writer, its readers and its cache.
#[derive(Clone)]
pub struct KinesisStream {
    name: String,
    admin: aws_sdk_kinesis::Client,
    largest_record: usize,
    writer: StreamWriter,
    reader: Reader,
}

impl fmt::Debug for KinesisStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KinesisStream")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Aws {
    /// Opens a stream by name.
    pub async fn stream(&self, name: &str) -> TransportResult<KinesisStream> {
        let shards = Shards::list(&self.kinesis_admin, name).await?;
        if shards.open.is_empty() {
            return Err(TransportError::unavailable(
                format!("opening the stream {name} at {}", self.describe_endpoint()),
                "it has no open shard yet",
            ));
        }
        let summary = self
            .kinesis_admin
            .describe_stream_summary()
            .stream_name(name)
            .send()
            .await;
        let largest_record = match summary {
            Ok(answer) => {
                let kib = answer
                    .stream_description_summary
                    .and_then(|summary| summary.max_record_size_in_kib);
                kib.and_then(|kib| usize::try_from(kib).ok())
                    .filter(|kib| *kib > 0)
                    .map_or(DEFAULT_RECORD_BYTES, |kib| kib * 1024)
            }
            Err(error) => {
                // It takes one permission more than reading and writing.
                debug!(stream = name, error = %transport_error("describing the stream", &error), "Assuming the default record size.");
                DEFAULT_RECORD_BYTES
            }
        };
        Ok(KinesisStream {
            name: name.to_owned(),
            admin: self.kinesis_admin.clone(),
            largest_record,
            writer: StreamWriter::start(self.kinesis.clone(), name.to_owned(), shards),
            reader: Reader::new(self.kinesis.clone(), name.to_owned()),
        })
    }
}

impl KinesisStream {
    /// The stream's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of records that wait to be put or are under way, in whole KiB each. Bounded, and with it memory.
    pub fn waiting_bytes(&self) -> usize {
        self.writer.waiting_bytes()
    }
}

#[async_trait]
impl ChunkStream for KinesisStream {
    fn max_record_bytes(&self) -> usize {
        self.largest_record.saturating_sub(MAX_KEY_CHARS)
    }

    async fn append(&self, records: Vec<Record>) -> TransportResult<Vec<Position>> {
        for record in &records {
            if record.data.len() > self.max_record_bytes()
                || record.key.chars().count() > MAX_KEY_CHARS
            {
                return Err(TransportError::Invalid(format!(
                    "a record of {} bytes with a key of {} characters does not fit the stream {}: it takes up to {} bytes and keys up to {MAX_KEY_CHARS}; set codec.recordSize lower",
                    record.data.len(),
                    record.key.chars().count(),
                    self.name,
                    self.max_record_bytes()
                )));
            }
        }
        self.writer.put(records).await
    }

    async fn fetch(&self, positions: &[Position]) -> TransportResult<Vec<Bytes>> {
        self.reader.fetch(positions).await
    }

    async fn probe_fetch(&self) -> TransportResult<()> {
        self.reader.probe().await
    }

    fn scan(&self) -> StreamScan {
        self.reader.scan()
    }

    async fn incarnation(&self) -> TransportResult<String> {
        let summary = self
            .admin
            .describe_stream_summary()
            .stream_name(&self.name)
            .send()
            .await;
        let summary = match summary {
            Ok(answer) => answer.stream_description_summary,
            Err(error) => {
                let error = ServiceError::from_sdk(&error);
                if error.is_denied() {
                    debug!(stream = self.name, %error, "The stream's creation time cannot be read.");
                    return Ok(String::new());
                }
                return Err(error.into_transport_error(format!("describing {}", self.name)));
            }
        };
        let created = summary.map(|summary| summary.stream_creation_timestamp.secs());
        Ok(created.unwrap_or_default().to_string())
    }

    fn has_ended(&self) -> bool {
        self.writer.has_ended()
    }

    fn counts(&self) -> StreamCounts {
        let read = self.reader.counts();
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StreamCounts {
            reads: of(&read.reads),
            seeks: of(&read.seeks),
            bytes_read: of(&read.bytes_read),
            bytes_served: of(&read.bytes_served),
            reads_throttled: of(&read.throttled),
            ..self.writer.counts.so_far()
        }
    }
}
