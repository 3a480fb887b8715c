//! The calls that read one shard: within its rate, and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::types::ShardIteratorType;
use tokio::sync::Semaphore;
use tokio::time::{Duration, Instant};

use super::cursor::Cursor;
use super::limits::CALLS_PER_SECOND;
use super::shards::Shards;
use crate::aws::ServiceError;
use crate::{Sequence, TransportError, TransportResult, error_chain};

/// Answers that are received at once, over all shards: each takes several times its bytes while it is decoded.
const CONCURRENT_ANSWERS: usize = 3;

/// What was read so far.
#[derive(Debug, Default)]
pub(super) struct ReadCounts {
    /// Answers of GetRecords.
    pub(super) reads: AtomicU64,
    /// Calls of GetShardIterator.
    pub(super) seeks: AtomicU64,
    /// Bytes of all records received.
    pub(super) bytes_read: AtomicU64,
    /// Bytes of the records that callers fetched.
    pub(super) bytes_served: AtomicU64,
    /// Reads and seeks refused for the shard's rate.
    pub(super) throttled: AtomicU64,
}

/// What the readers of all shards of a stream share.
#[derive(Debug)]
pub(super) struct StreamCalls {
    client: Client,
    stream: String,
    answers: Semaphore,
    pub(super) counts: ReadCounts,
}

impl ReadCounts {
    /// Counts records that were received.
    pub(super) fn add_read(&self, bytes: usize) {
        self.bytes_read.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl StreamCalls {
    pub(super) fn new(client: Client, stream: String) -> Arc<Self> {
        Arc::new(Self {
            client,
            stream,
            answers: Semaphore::new(CONCURRENT_ANSWERS),
            counts: ReadCounts::default(),
        })
    }

    pub(super) fn stream(&self) -> &str {
        &self.stream
    }

    /// All shards that can be read, those that take no more records too.
    pub(super) async fn readable_shards(&self) -> TransportResult<Vec<String>> {
        Ok(Shards::list(&self.client, &self.stream).await?.readable)
    }

    /// A shard that takes records.
    pub(super) async fn some_shard(&self) -> TransportResult<String> {
        let listed = Shards::list(&self.client, &self.stream).await?;
        let shard = listed.open.into_iter().next();
        shard.map(|shard| shard.id).ok_or_else(|| {
            TransportError::unavailable(
                format!("reading from {}", self.stream),
                "it has no open shard",
            )
        })
    }
}

/// The calls on one shard.
pub(super) struct ShardCalls {
    pub(super) stream: Arc<StreamCalls>,
    pub(super) shard: String,
    reads: CallRate,
    seeks: CallRate,
}

impl ShardCalls {
    pub(super) fn new(stream: Arc<StreamCalls>, shard: String) -> Self {
        Self {
            stream,
            shard,
            reads: CallRate::default(),
            seeks: CallRate::default(),
        }
    }

    /// Waits until the next read is due.
    pub(super) async fn read_due(&mut self) {
        self.reads.due().await;
    }

    /// Reads at most `limit` records.
    pub(super) async fn read(
        &mut self,
        iterator: &str,
        limit: i32,
    ) -> Result<GetRecordsOutput, ServiceError> {
        self.reads.take().await;
        let _permit = self.stream.answers.acquire().await;
        let answer = self
            .stream
            .client
            .get_records()
            .shard_iterator(iterator)
            .limit(limit)
            .send()
            .await;
        let reads = &self.stream.counts.reads;
        reads.fetch_add(u64::from(answer.is_ok()), Ordering::Relaxed);
        answer.map_err(|error| ServiceError::from_sdk(&error))
    }

    /// A cursor at a record; `None` when there can be no such record.
    pub(super) async fn seek_to(
        &mut self,
        target: &Sequence,
    ) -> Result<Option<Cursor>, ServiceError> {
        let kind = ShardIteratorType::AtSequenceNumber;
        match self.seek(kind, Some(target)).await {
            Ok(None) => Ok(None),
            Ok(iterator) => Ok(Some(Cursor::at(target, iterator))),
            Err(error) if error.is_absent() || error.is_refusal() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An iterator at the oldest record; `None` when the shard is gone.
    pub(super) async fn seek_oldest(&mut self) -> Result<Option<String>, ServiceError> {
        self.seek_on(ShardIteratorType::TrimHorizon, None).await
    }

    /// An iterator after a record that was read; `None` when the shard is gone.
    pub(super) async fn seek_after(
        &mut self,
        last: &Sequence,
    ) -> Result<Option<String>, ServiceError> {
        let kind = ShardIteratorType::AfterSequenceNumber;
        self.seek_on(kind, Some(last)).await
    }

    async fn seek_on(
        &mut self,
        kind: ShardIteratorType,
        at: Option<&Sequence>,
    ) -> Result<Option<String>, ServiceError> {
        match self.seek(kind, at).await {
            Err(error) if error.is_absent() => Ok(None),
            iterator => iterator,
        }
    }

    /// Reads at the end of the shard.
    pub(super) async fn probe(&mut self) -> Result<(), ServiceError> {
        match self.seek(ShardIteratorType::Latest, None).await? {
            Some(iterator) => self.read(&iterator, 1).await.map(drop),
            None => Ok(()),
        }
    }

    async fn seek(
        &mut self,
        kind: ShardIteratorType,
        at: Option<&Sequence>,
    ) -> Result<Option<String>, ServiceError> {
        self.seeks.take().await;
        let seeks = &self.stream.counts.seeks;
        seeks.fetch_add(1, Ordering::Relaxed);
        let answer = self
            .stream
            .client
            .get_shard_iterator()
            .stream_name(&self.stream.stream)
            .shard_id(&self.shard)
            .shard_iterator_type(kind)
            .set_starting_sequence_number(at.map(|at| at.as_str().to_owned()))
            .send()
            .await;
        answer
            .map(|answer| answer.shard_iterator)
            .map_err(|error| ServiceError::from_sdk(&error))
    }

    /// Whether a record that is not there is older than what the shard still holds; else it was never written.
    pub(super) async fn is_expired(&mut self, sequence: &Sequence) -> Result<bool, ServiceError> {
        let oldest = match self.seek(ShardIteratorType::TrimHorizon, None).await {
            Ok(Some(iterator)) => self.oldest(iterator).await?,
            Ok(None) => None,
            // The shard itself is gone, which happens once all it held has expired; unless the stream never had one.
            Err(error) if error.is_absent() => {
                let listed = Shards::list(&self.stream.client, &self.stream.stream).await;
                let listed =
                    listed.map_err(|error| ServiceError::without_code(error_chain(&error)))?;
                let is_known = listed.readable.contains(&self.shard);
                return Ok(!is_known && self.shard.starts_with("shardId-"));
            }
            Err(error) => return Err(error),
        };
        Ok(oldest.is_none_or(|oldest| *sequence < oldest))
    }

    /// The oldest record that the shard still has; `None` when it has none.
    async fn oldest(&mut self, mut iterator: String) -> Result<Option<Sequence>, ServiceError> {
        // Empty answers do not mean an empty shard; only one that is not behind the latest record does.
        loop {
            let answer = self.read(&iterator, 1).await?;
            if let Some(record) = answer.records.first() {
                return Ok(Sequence::parse(&record.sequence_number));
            }
            match answer.next_shard_iterator {
                Some(next) if answer.millis_behind_latest.unwrap_or(0) > 0 => iterator = next,
                _ => return Ok(None),
            }
        }
    }
}

/// Five calls of a kind a second, after a pause five at once.
struct CallRate {
    left: f64,
    counted_at: Instant,
}

impl Default for CallRate {
    fn default() -> Self {
        Self {
            left: CALLS_PER_SECOND,
            counted_at: Instant::now(),
        }
    }
}

impl CallRate {
    /// Waits until the next call is due.
    async fn due(&mut self) {
        let since = self.counted_at.elapsed().as_secs_f64();
        self.left = (self.left + since * CALLS_PER_SECOND).min(CALLS_PER_SECOND);
        self.counted_at = Instant::now();
        if self.left < 1.0 {
            let missing = (1.0 - self.left) / CALLS_PER_SECOND;
            tokio::time::sleep(Duration::from_secs_f64(missing)).await;
        }
    }

    /// Waits until the next call is due, and takes it.
    async fn take(&mut self) {
        self.due().await;
        self.left -= 1.0;
    }
}
