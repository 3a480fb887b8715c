//! Reads every record of a stream from the oldest on, all shards at the same time.

use std::sync::Arc;

use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use tokio::time::{Duration, Instant};
use tracing::warn;

use super::limits::{ANSWER_BYTES, ANSWER_RECORDS};
use super::shard_calls::{ShardCalls, StreamCalls};
use crate::aws::ServiceError;
use crate::{
    Backoff, Position, ScannedRecord, Sequence, StreamScan, TransportError, TransportResult,
};

/// After so long without an answer, the fault is the caller's.
const PATIENCE: Duration = Duration::from_secs(60);
/// After a fault.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
/// The limit of the first read, while the size of a record is unknown.
const FIRST_LIMIT: i32 = 16;

/// Reads all shards, closed ones too, each up to its end or to its newest record.
pub(super) fn scan(calls: Arc<StreamCalls>) -> StreamScan {
    let listing = async move {
        let shards = calls.readable_shards().await?;
        let scans = shards.into_iter().map(|shard| {
            let scan = ShardScan {
                calls: ShardCalls::new(calls.clone(), shard),
                place: ScanPlace::Oldest,
                limit: FIRST_LIMIT,
            };
            stream::try_unfold(scan, ShardScan::page).boxed()
        });
        Ok::<_, TransportError>(stream::select_all(scans))
    };
    stream::once(listing)
        .flat_map(|listed| match listed {
            Ok(scans) => scans.boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        })
        .boxed()
}

struct ShardScan {
    calls: ShardCalls,
    place: ScanPlace,
    limit: i32,
}

/// Where reading goes on.
enum ScanPlace {
    Oldest,
    After(Sequence),
    At {
        iterator: String,
        last: Option<Sequence>,
    },
    End,
}

impl ShardScan {
    /// The next records of the shard; `None` after the newest.
    async fn page(mut self) -> TransportResult<Option<(Vec<ScannedRecord>, Self)>> {
        let (mut failing_since, mut failures) = (None, 0);
        loop {
            let error = match self.step().await {
                Ok(Some(page)) if page.is_empty() => {
                    (failing_since, failures) = (None, 0);
                    continue;
                }
                Ok(page) => return Ok(page.map(|page| (page, self))),
                Err(error) => error,
            };
            let since = *failing_since.get_or_insert_with(Instant::now);
            if since.elapsed() > PATIENCE || error.is_denied() {
                let stream = self.calls.stream.stream();
                let step = format!("reading the shard {} of {stream}", self.calls.shard);
                return Err(TransportError::unavailable(step, error));
            }
            if !error.is_throttling() {
                warn!(shard = self.calls.shard, %error, "Cannot read the stream; trying again.");
            }
            failures += 1;
            tokio::time::sleep(BACKOFF.equal_jitter(failures)).await;
        }
    }

    /// One call; `None` at the end of the shard.
    async fn step(&mut self) -> Result<Option<Vec<ScannedRecord>>, ServiceError> {
        let (iterator, last) = match &self.place {
            ScanPlace::End => return Ok(None),
            ScanPlace::Oldest => (self.calls.seek_oldest().await?, None),
            ScanPlace::After(last) => {
                let last = last.clone();
                (self.calls.seek_after(&last).await?, Some(last))
            }
            ScanPlace::At { iterator, last } => (Some(iterator.clone()), last.clone()),
        };
        let Some(iterator) = iterator else {
            self.place = ScanPlace::End;
            return Ok(None);
        };
        match self.calls.read(&iterator, self.limit).await {
            Ok(answer) => Ok(Some(self.take_in(answer, last))),
            Err(error) if error.is(&["ExpiredIteratorException"]) => {
                self.place = last.map_or(ScanPlace::Oldest, ScanPlace::After);
                Ok(Some(Vec::new()))
            }
            // All that it held has expired.
            Err(error) if error.is_absent() => {
                self.place = ScanPlace::End;
                Ok(None)
            }
            Err(error) => {
                self.place = ScanPlace::At { iterator, last };
                Err(error)
            }
        }
    }

    fn take_in(
        &mut self,
        answer: GetRecordsOutput,
        before: Option<Sequence>,
    ) -> Vec<ScannedRecord> {
        // An empty answer does not mean the end; only one that is not behind does. LocalStack never says that it is behind:
        // there an answer of as many records as were requested has more behind it.
        let is_newest = answer.millis_behind_latest.unwrap_or(0) == 0;
        let shard = &self.calls.shard;
        let stored = answer.records.into_iter().filter_map(|record| {
            let data = Bytes::from(record.data.into_inner());
            let position = Position {
                shard: shard.clone(),
                sequence: Sequence::parse(&record.sequence_number)?,
                bytes: u32::try_from(data.len()).ok()?,
            };
            let data = Some(data);
            Some(ScannedRecord { position, data })
        });
        let page: Vec<ScannedRecord> = stored.collect();
        let is_full = page.len() >= usize::try_from(self.limit).unwrap_or(usize::MAX);
        let bytes: usize = page.iter().map(|it| it.position.bytes as usize).sum();
        if bytes > 0 {
            let mean = bytes as f64 / page.len() as f64;
            self.limit = (ANSWER_BYTES as f64 / mean).clamp(1.0, ANSWER_RECORDS) as i32;
        }
        self.calls.stream.counts.add_read(bytes);
        let last = page.last().map(|record| record.position.sequence.clone());
        let last = last.or(before);
        self.place = match answer.next_shard_iterator {
            Some(iterator) if !is_newest || is_full => ScanPlace::At { iterator, last },
            _ => ScanPlace::End,
        };
        page
    }
}
