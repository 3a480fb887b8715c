//! Fetches records by their positions: each shard has a reader of its own, which serves all callers.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use aws_sdk_kinesis::Client;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant};

use super::cache::CacheBudget;
use super::scan;
use super::shard_calls::{ReadCounts, ShardCalls, StreamCalls};
use super::shard_reader::{RecordRequest, ShardReader};
use crate::{Position, StreamScan, TransportError, TransportResult};

/// Records that were read and not yet requested, over all shards, in bytes.
const CACHE_BYTES: usize = 16 << 20;
/// A shard's reader without requests ends.
const IDLE: Duration = Duration::from_secs(300);

/// Access to the readers of all shards.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    calls: Arc<StreamCalls>,
    cache: Arc<CacheBudget>,
    /// See [`IDLE`].
    idle: Duration,
    shard_readers: Arc<ShardReaders>,
}

/// By shard.
type ShardReaders = Mutex<HashMap<String, mpsc::UnboundedSender<RecordRequest>>>;

impl Reader {
    pub(super) fn new(client: Client, stream: String) -> Self {
        Self::with_idle(client, stream, IDLE)
    }

    fn with_idle(client: Client, stream: String, idle: Duration) -> Self {
        Self {
            calls: StreamCalls::new(client, stream),
            cache: CacheBudget::new(CACHE_BYTES),
            idle,
            shard_readers: Arc::default(),
        }
    }

    pub(super) fn counts(&self) -> &ReadCounts {
        &self.calls.counts
    }

    /// Reads all; the answer is index-aligned.
    pub(super) async fn fetch(&self, positions: &[Position]) -> TransportResult<Vec<Bytes>> {
        let answers: Vec<_> = positions
            .iter()
            .map(|position| self.request(position.clone()))
            .collect();
        let mut records = Vec::with_capacity(answers.len());
        for (answered, position) in answers.into_iter().zip(positions) {
            let stopped =
                |_| TransportError::unavailable("reading records", "the worker is shutting down");
            let record = answered.await.map_err(stopped)??;
            // A position is as good as its message: what it says bounds what a caller takes into memory.
            if position.bytes != 0 && record.len() != position.bytes as usize {
                return Err(TransportError::Missing(position.clone()));
            }
            records.push(record);
        }
        Ok(records)
    }

    /// Reads all records from the oldest on.
    pub(super) fn scan(&self) -> StreamScan {
        scan::scan(self.calls.clone())
    }

    /// Reads at the end of some shard.
    pub(super) async fn probe(&self) -> TransportResult<()> {
        let shard = self.calls.some_shard().await?;
        let read = ShardCalls::new(self.calls.clone(), shard).probe().await;
        read.map_err(|error| {
            TransportError::unavailable(format!("reading from {}", self.calls.stream()), error)
        })
    }

    fn request(&self, position: Position) -> oneshot::Receiver<TransportResult<Bytes>> {
        let (answer, answered) = oneshot::channel();
        let mut shard_readers = self.shard_readers.lock();
        let shard = position.shard.clone();
        let mut request = RecordRequest {
            position,
            answer,
            checked_at: Instant::now(),
            missing_for: Duration::ZERO,
        };
        if let Some(shard_reader) = shard_readers.get(&shard) {
            match shard_reader.send(request) {
                Ok(()) => return answered,
                // It ended, idle.
                Err(back) => request = back.0,
            }
        }
        let (sender, requests) = mpsc::unbounded_channel();
        // The receiver exists, so this cannot fail.
        let _ = sender.send(request);
        let calls = ShardCalls::new(self.calls.clone(), shard.clone());
        let reading = ShardReader::new(calls, self.cache.clone(), self.idle).run(requests);
        let (all, of_shard) = (Arc::downgrade(&self.shard_readers), shard.clone());
        tokio::spawn(async move {
            reading.await;
            forget_ended(&all, &of_shard);
        });
        shard_readers.insert(shard, sender);
        answered
    }
}

/// Shards come and go, and their names come from messages: a reader that has ended must not stay in the map for ever.
/// Another may have begun on the shard meanwhile. Weak, since a reader also ends when the stream is dropped.
fn forget_ended(shard_readers: &Weak<ShardReaders>, shard: &str) {
    let Some(shard_readers) = shard_readers.upgrade() else {
        return;
    };
    let mut shard_readers = shard_readers.lock();
    if shard_readers
        .get(shard)
        .is_some_and(mpsc::UnboundedSender::is_closed)
    {
        shard_readers.remove(shard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::{Aws, AwsOptions};
    use crate::contract_tests::eventually;

    #[tokio::test]
    async fn a_shards_reader_that_ended_is_forgotten() {
        let aws = Aws::connect(&AwsOptions {
            // No service listens there.
            endpoint: Some("http://127.0.0.1:1".into()),
            ..AwsOptions::default()
        })
        .await;
        let soon = Duration::from_millis(1);
        let reader = Reader::with_idle(aws.kinesis.clone(), "stream".into(), soon);
        let position = Position {
            shard: "shardId-named-by-a-message".into(),
            sequence: 1.into(),
            bytes: 0,
        };
        let answered = reader.request(position);
        assert_eq!(reader.shard_readers.lock().len(), 1);
        drop(answered);
        eventually("it ended and is forgotten", || async {
            reader.shard_readers.lock().is_empty()
        })
        .await;
    }
}
