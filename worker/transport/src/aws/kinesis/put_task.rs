//! The task that puts records: gathered by count, bytes and age, limited by their shards' rates; of a request only the
//! failed records are put again, each after a full-jitter delay of its own.
//!
//! One task owns all state. A record is forgotten only when it is acknowledged, refused for good, or has failed for so long
//! that its message had better be redelivered.

use std::collections::VecDeque;
use std::sync::Arc;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, PutRecordsResultEntry};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};
use tracing::{debug, warn};

use super::limits::{REQUEST_BYTES, REQUEST_RECORDS};
use super::placement::{Placement, PutSelection};
use super::put_counts::PutCounts;
use super::shards::Shards;
use super::waiting_record::{ANY_KEY, WaitingRecord};
use crate::aws::ServiceError;
use crate::{Backoff, Position, Sequence, TransportResult};

/// A record waits this long for others.
const LINGER: Duration = Duration::from_millis(5);
const CONCURRENT_REQUESTS: usize = 4;
/// Before a failed record is put again.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// Then the caller gets the fault; its message is redelivered later.
const PATIENCE: Duration = Duration::from_secs(120);
/// Shards are listed again at most this often.
const LIST_EVERY: Duration = Duration::from_secs(2);
/// With nothing to send, the task waits for the next record.
const IDLE: Duration = Duration::from_secs(3600);

/// See the module.
pub(super) struct PutTask {
    client: Client,
    stream: String,
    placement: Placement,
    listed_at: Instant,
    stale_shards: bool,
    waiting: VecDeque<WaitingRecord>,
    counts: Arc<PutCounts>,
}

/// A record of a request.
struct Addressed {
    item: WaitingRecord,
    /// The shard that it was meant for, by its id.
    shard: Option<String>,
    explicit_hash: Option<u128>,
}

/// A request's records, and its answer.
type Concluded = (
    Vec<Addressed>,
    Result<Vec<PutRecordsResultEntry>, ServiceError>,
);

impl PutTask {
    pub(super) fn new(
        client: Client,
        stream: String,
        shards: Shards,
        counts: Arc<PutCounts>,
    ) -> Self {
        Self {
            client,
            stream,
            placement: Placement::new(shards),
            listed_at: Instant::now(),
            stale_shards: false,
            waiting: VecDeque::new(),
            counts,
        }
    }

    /// Runs until the last sender is dropped and all records are answered.
    pub(super) async fn run(mut self, mut items: mpsc::UnboundedReceiver<WaitingRecord>) {
        let mut under_way: JoinSet<Concluded> = JoinSet::new();
        // The shards are only a guess: nothing waits for the call that lists them.
        let mut listing: JoinSet<TransportResult<Shards>> = JoinSet::new();
        let mut open = true;
        while open || !self.waiting.is_empty() || !under_way.is_empty() {
            let is_due = self.stale_shards && self.listed_at.elapsed() >= LIST_EVERY;
            if is_due && listing.is_empty() {
                self.listed_at = Instant::now();
                let (client, stream) = (self.client.clone(), self.stream.clone());
                listing.spawn(async move { Shards::list(&client, &stream).await });
            }
            let wake = self.send_requests(&mut under_way);
            tokio::select! {
                item = items.recv(), if open => match item {
                    Some(item) => {
                        self.waiting.push_back(item);
                        while let Ok(more) = items.try_recv() {
                            self.waiting.push_back(more);
                        }
                    }
                    None => open = false,
                },
                Some(concluded) = under_way.join_next() => {
                    if let Ok((batch, outcome)) = concluded {
                        self.conclude(batch, outcome);
                    }
                }
                Some(listed) = listing.join_next() => {
                    if let Ok(listed) = listed {
                        self.replace_shards(listed);
                    }
                }
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Starts requests while there are full or ripe ones; answers when to check again.
    fn send_requests(&mut self, under_way: &mut JoinSet<Concluded>) -> Instant {
        let far = Instant::now() + IDLE;
        self.waiting.retain(|item| !item.answer.is_closed());
        while under_way.len() < CONCURRENT_REQUESTS {
            let now = Instant::now();
            let choice = self.placement.choose(self.waiting.iter(), now);
            let items = || {
                let chosen = choice.chosen.iter();
                chosen.filter_map(|(index, _)| self.waiting.get(*index))
            };
            let bytes: usize = items().map(WaitingRecord::weight).sum();
            let full = choice.chosen.len() >= REQUEST_RECORDS || bytes >= REQUEST_BYTES * 3 / 4;
            let ripe_at = items().map(|item| item.since + LINGER).min();
            let Some(ripe_at) = ripe_at else {
                return choice.next_at.unwrap_or(far);
            };
            if !full && ripe_at > now {
                return ripe_at;
            }
            let batch = self.take_out(choice);
            let (client, stream) = (self.client.clone(), self.stream.clone());
            self.counts.sent(batch.len());
            under_way.spawn(async move {
                let outcome = request(&client, &stream, &batch).await;
                (batch, outcome)
            });
        }
        far
    }

    fn take_out(&mut self, choice: PutSelection) -> Vec<Addressed> {
        let mut batch = Vec::with_capacity(choice.chosen.len());
        // From the end, so that the indexes before stay what they were.
        for (index, target) in choice.chosen.into_iter().rev() {
            let Some(item) = self.waiting.remove(index) else {
                continue;
            };
            let (shard, explicit_hash) = self.placement.send(&target, item.data.len());
            batch.push(Addressed {
                item,
                shard,
                explicit_hash,
            });
        }
        batch.reverse();
        self.placement.go_on(choice.run);
        batch
    }

    fn conclude(
        &mut self,
        batch: Vec<Addressed>,
        outcome: Result<Vec<PutRecordsResultEntry>, ServiceError>,
    ) {
        match outcome {
            Ok(answers) if answers.len() == batch.len() => {
                for (addressed, answer) in batch.into_iter().zip(answers) {
                    self.conclude_one(addressed, &answer);
                }
            }
            Ok(answers) => {
                let error = ServiceError::without_code(format!(
                    "{} answers to {} records",
                    answers.len(),
                    batch.len()
                ));
                self.retry_all(batch, &error);
            }
            Err(error) => self.retry_all(batch, &error),
        }
    }

    fn conclude_one(&mut self, addressed: Addressed, answer: &PutRecordsResultEntry) {
        let Addressed { item, shard, .. } = addressed;
        let taken = answer
            .shard_id()
            .zip(answer.sequence_number().and_then(Sequence::parse));
        if let (Some((taken_by, sequence)), None) = (taken, answer.error_code()) {
            if shard.as_deref() != Some(taken_by) {
                self.stale_shards = true;
            }
            self.counts.answered(|counts| counts.acknowledged += 1);
            let bytes = u32::try_from(item.data.len()).unwrap_or(u32::MAX);
            let _ = item.answer.send(Ok(Position {
                shard: taken_by.to_owned(),
                sequence,
                bytes,
            }));
            return;
        }
        let error = ServiceError {
            code: answer.error_code().unwrap_or("NoSequenceNumber").to_owned(),
            message: answer
                .error_message()
                .unwrap_or("the record was not taken")
                .to_owned(),
        };
        self.note_throttling(&error, shard.as_deref());
        self.retry(item, error);
    }

    /// The request as a whole failed.
    fn retry_all(&mut self, batch: Vec<Addressed>, error: &ServiceError) {
        let several = batch.len() > 1;
        warn!(stream = self.stream, records = batch.len(), %error, "Records were not put; trying again.");
        for Addressed {
            mut item, shard, ..
        } in batch
        {
            self.note_throttling(error, shard.as_deref());
            if error.is_refusal() && several {
                // One of them is to blame; the others must not fail with it.
                item.alone = true;
                self.counts.answered(|counts| counts.retried += 1);
                self.waiting.push_back(item);
            } else {
                self.retry(item, error.clone());
            }
        }
    }

    fn note_throttling(&mut self, error: &ServiceError, shard: Option<&str>) {
        if error.is_throttling() {
            self.counts.throttled();
            if let Some(shard) = shard {
                self.placement.throttled(shard, Instant::now());
            }
        }
    }

    fn retry(&mut self, mut item: WaitingRecord, error: ServiceError) {
        let hopeless = error.is_refusal()
            || error.is_absent()
            || error.is_denied()
            || item.since.elapsed() > PATIENCE;
        if hopeless {
            self.counts.answered(|counts| counts.dead += 1);
            let step = format!(
                "putting a record of {} bytes to {}",
                item.data.len(),
                self.stream
            );
            let _ = item.answer.send(Err(error.into_transport_error(step)));
            return;
        }
        self.counts.answered(|counts| counts.retried += 1);
        item.failures += 1;
        item.not_before = Instant::now() + BACKOFF.full_jitter(item.failures);
        self.waiting.push_back(item);
    }

    fn replace_shards(&mut self, listed: TransportResult<Shards>) {
        match listed {
            Ok(shards) if !shards.open.is_empty() => {
                let open = shards.open.len();
                if self.placement.replace(shards) {
                    debug!(
                        stream = self.stream,
                        shards = open,
                        "The stream's shards have changed."
                    );
                }
                self.stale_shards = false;
            }
            Ok(_) => {}
            Err(error) => {
                debug!(stream = self.stream, %error, "Could not list the shards; trying again.")
            }
        }
    }
}

async fn request(
    client: &Client,
    stream: &str,
    batch: &[Addressed],
) -> Result<Vec<PutRecordsResultEntry>, ServiceError> {
    let mut entries = Vec::with_capacity(batch.len());
    for Addressed {
        item,
        explicit_hash,
        ..
    } in batch
    {
        let entry = PutRecordsRequestEntry::builder()
            .data(Blob::new(item.data.to_vec()))
            .partition_key(if item.key.is_empty() {
                ANY_KEY
            } else {
                &item.key
            })
            .set_explicit_hash_key(explicit_hash.map(|hash| hash.to_string()))
            .build();
        entries.push(entry.map_err(|error| ServiceError {
            code: "ValidationException".into(),
            message: error.to_string(),
        })?);
    }
    let answer = client
        .put_records()
        .stream_name(stream)
        .set_records(Some(entries))
        .send()
        .await;
    answer
        .map(|answer| answer.records)
        .map_err(|error| ServiceError::from_sdk(&error))
}
