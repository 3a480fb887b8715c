//! Puts records: gathered by count, bytes and age, paced by shard, and of a request only what failed goes out again, each
//! record after a full-jitter pause of its own.
//!
//! One task owns all state. A record is forgotten only when it is acknowledged, refused for good, or has failed for
//! so long that the message behind it had better be redelivered.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, PutRecordsResultEntry};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};
use tracing::{debug, warn};

use super::rate_limit::Pace;
use super::shards::{Shards, hash};
use crate::aws::service_error::ServiceError;
use crate::{Backoff, Position, Record, Sequence, StreamCounts, TransportError, TransportResult};

/// Kinesis takes 500 records a request.
const REQUEST_RECORDS: usize = 500;
/// And 10 MiB since 2025, 5 MiB before; half of that keeps memory small and loses nothing.
const REQUEST_BYTES: usize = 4 << 20;
/// A record waits this long for company.
const LINGER: Duration = Duration::from_millis(5);
const REQUESTS_AT_ONCE: usize = 4;
/// Bytes that wait or are under way; who brings more waits.
const BUDGET_BYTES: usize = 16 << 20;
/// How far into the waiting records we look for some whose shard is free.
const LOOK_AHEAD: usize = 4096;
/// Before a failed record is put again, and before a shard is read again.
pub(super) const BACKOFF: Backoff =
    Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// Then the caller is told; its message comes back later.
const PATIENCE: Duration = Duration::from_secs(120);
/// Records of several small files lie behind each other in one shard, so that who has some of these files in hand reads them
/// in one call: a few times what one receive brings. Then the next shard has its turn.
const RUN_RECORDS: usize = 32;
const RUN_BYTES: usize = 1 << 20;
/// A run begins where this part of a burst is free, or else it would end at once while all shards are at their limit. Who
/// has waited for that so long goes anywhere: others may leave no shard any rest.
const FREE_FOR_A_RUN: f64 = 0.5;
const WAIT_FOR_A_RUN: Duration = Duration::from_millis(250);
/// Shards are listed anew at most this often.
const LIST_EVERY: Duration = Duration::from_secs(2);
/// A partition key for records that may lie anywhere; the hash key decides.
const ANY_KEY: &str = "-";

/// What was put so far. A record moves from one count to another in one step, so that the sum holds at any time.
#[derive(Debug, Default)]
pub(super) struct PutCounts(Mutex<StreamCounts>);

impl PutCounts {
    /// As of one moment.
    pub(super) fn so_far(&self) -> StreamCounts {
        *self.0.lock()
    }

    fn change(&self, change: impl FnOnce(&mut StreamCounts)) {
        change(&mut self.0.lock());
    }

    fn sent(&self, records: usize) {
        self.change(|counts| {
            counts.sent += records as u64;
            counts.under_way += records as u64;
        });
    }

    /// One record of a request was answered.
    fn answered(&self, outcome: impl FnOnce(&mut StreamCounts)) {
        self.change(|counts| {
            counts.under_way -= 1;
            outcome(counts);
        });
    }

    fn throttled(&self) {
        self.change(|counts| counts.throttled += 1);
    }
}

/// The way to the task.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    asks: mpsc::UnboundedSender<Item>,
    budget: Arc<Semaphore>,
    pub(super) counts: Arc<PutCounts>,
}

#[derive(Debug)]
struct Item {
    key: String,
    data: Bytes,
    /// Of its key; without one it may lie anywhere.
    hash: Option<u128>,
    /// A file's only record, as far as we know.
    single: bool,
    since: Instant,
    not_before: Instant,
    tries: u32,
    /// Sent by itself, after a request that held it was refused as a whole.
    alone: bool,
    answer: oneshot::Sender<TransportResult<Position>>,
    _room: OwnedSemaphorePermit,
}

impl Item {
    fn weight(&self) -> usize {
        self.data.len() + self.key.len().max(ANY_KEY.len())
    }
}

impl Writer {
    /// Starts the task; it ends when the last handle is dropped and all is answered.
    pub(super) fn start(client: Client, stream: String, shards: Shards) -> Self {
        let (asks, asked) = mpsc::unbounded_channel();
        let counts = Arc::new(PutCounts::default());
        let now = Instant::now();
        let task = Task {
            client,
            stream,
            shards,
            listed_at: now,
            stale_shards: false,
            paces: HashMap::new(),
            run: None,
            waiting: VecDeque::new(),
            counts: counts.clone(),
        };
        tokio::spawn(task.run(asked));
        Self {
            asks,
            budget: Arc::new(Semaphore::new(BUDGET_BYTES / 1024)),
            counts,
        }
    }

    /// Bytes that wait or are under way.
    pub(super) fn waiting_bytes(&self) -> usize {
        BUDGET_BYTES - self.budget.available_permits() * 1024
    }

    /// Puts all; the answer is index-aligned.
    pub(super) async fn put(&self, records: Vec<Record>) -> TransportResult<Vec<Position>> {
        let mut answers = Vec::with_capacity(records.len());
        let single = records.len() == 1;
        for record in records {
            let kib = u32::try_from(
                record
                    .data
                    .len()
                    .div_ceil(1024)
                    .clamp(1, BUDGET_BYTES / 1024),
            )
            .unwrap_or(1);
            let stopped =
                || TransportError::unavailable("putting records", "the worker is shutting down");
            let room = self
                .budget
                .clone()
                .acquire_many_owned(kib)
                .await
                .map_err(|_| stopped())?;
            let (answer, answered) = oneshot::channel();
            let now = Instant::now();
            let item = Item {
                hash: (!record.key.is_empty()).then(|| hash(&record.key)),
                single,
                key: record.key,
                data: record.data,
                since: now,
                not_before: now,
                tries: 0,
                alone: false,
                answer,
                _room: room,
            };
            self.asks.send(item).map_err(|_| stopped())?;
            answers.push(answered);
        }
        let mut positions = Vec::with_capacity(answers.len());
        for answered in answers {
            let stopped =
                |_| TransportError::unavailable("putting records", "the worker is shutting down");
            positions.push(answered.await.map_err(stopped)??);
        }
        Ok(positions)
    }
}

struct Task {
    client: Client,
    stream: String,
    shards: Shards,
    listed_at: Instant,
    stale_shards: bool,
    paces: HashMap<String, Pace>,
    run: Option<Run>,
    waiting: VecDeque<Item>,
    counts: Arc<PutCounts>,
}

/// Where records without a key went last.
#[derive(Debug, Clone)]
struct Run {
    /// By the place in the list of open shards.
    shard: usize,
    records: usize,
    bytes: usize,
}

impl Run {
    /// After another record went to a shard.
    fn with(before: Option<Self>, shard: usize, bytes: usize) -> Self {
        let goes_on = before.filter(|run| run.shard == shard && !run.is_expired());
        let (records_before, bytes_before) = goes_on.map_or((0, 0), |run| (run.records, run.bytes));
        Self {
            shard,
            records: records_before + 1,
            bytes: bytes_before + bytes,
        }
    }

    fn is_expired(&self) -> bool {
        self.records >= RUN_RECORDS || self.bytes >= RUN_BYTES
    }
}

/// A request's items with the shard each was meant for, and what came of it.
type Done = (
    Vec<(Item, Option<String>)>,
    Result<Vec<PutRecordsResultEntry>, ServiceError>,
);

impl Task {
    async fn run(mut self, mut asked: mpsc::UnboundedReceiver<Item>) {
        let mut under_way: JoinSet<Done> = JoinSet::new();
        let mut open = true;
        while open || !self.waiting.is_empty() || !under_way.is_empty() {
            if self.stale_shards && self.listed_at.elapsed() >= LIST_EVERY {
                self.list_shards().await;
            }
            let wake = self.send_what_can_go(&mut under_way);
            tokio::select! {
                item = asked.recv(), if open => match item {
                    Some(item) => {
                        self.waiting.push_back(item);
                        while let Ok(more) = asked.try_recv() {
                            self.waiting.push_back(more);
                        }
                    }
                    None => open = false,
                },
                Some(done) = under_way.join_next() => {
                    if let Ok((items, outcome)) = done {
                        self.conclude(items, outcome);
                    }
                }
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Starts requests while there are full or ripe ones; says when to look again.
    fn send_what_can_go(&mut self, under_way: &mut JoinSet<Done>) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        self.waiting.retain(|item| !item.answer.is_closed());
        while under_way.len() < REQUESTS_AT_ONCE {
            let now = Instant::now();
            let (chosen, wake, run) = self.choose(now);
            let full =
                chosen.len() >= REQUEST_RECORDS || self.bytes_of(&chosen) >= REQUEST_BYTES * 3 / 4;
            let ripe_at = chosen
                .iter()
                .filter_map(|(index, _)| self.waiting.get(*index))
                .map(|item| item.since + LINGER)
                .min();
            let Some(ripe_at) = ripe_at else {
                return wake.unwrap_or(far);
            };
            if !full && ripe_at > now {
                return ripe_at;
            }
            let batch = self.take_out(chosen);
            self.run = run;
            let (client, stream) = (self.client.clone(), self.stream.clone());
            self.counts.sent(batch.len());
            under_way.spawn(async move {
                let outcome = request(&client, &stream, &batch).await;
                (
                    batch
                        .into_iter()
                        .map(|item| (item.item, item.shard))
                        .collect(),
                    outcome,
                )
            });
        }
        far
    }

    fn bytes_of(&self, chosen: &[(usize, Target)]) -> usize {
        chosen
            .iter()
            .filter_map(|(index, _)| self.waiting.get(*index))
            .map(Item::weight)
            .sum()
    }

    /// Waiting records that may go now, with their shards, when another may, and the run that they make. The paces are not
    /// touched yet.
    fn choose(&mut self, now: Instant) -> (Vec<(usize, Target)>, Option<Instant>, Option<Run>) {
        let mut trial: Vec<Pace> = Vec::with_capacity(self.shards.open.len());
        for shard in &self.shards.open {
            let pace = self
                .paces
                .entry(shard.id.clone())
                .or_insert_with(|| Pace::new(now));
            trial.push(pace.clone());
        }
        let (mut chosen, mut bytes, mut wake) = (Vec::new(), 0, None::<Instant>);
        let mut run = self.run.clone();
        let mut later = |at: Instant| wake = Some(wake.map_or(at, |earliest| earliest.min(at)));
        for (index, item) in self.waiting.iter().enumerate().take(LOOK_AHEAD) {
            if item.not_before > now {
                later(item.not_before);
                continue;
            }
            let full = chosen.len() == REQUEST_RECORDS
                || (bytes + item.weight() > REQUEST_BYTES && !chosen.is_empty());
            if full || (item.alone && !chosen.is_empty()) {
                break;
            }
            let shard = match item.hash {
                Some(hash) => self.shards.of(hash).map(|shard| (shard, 0.0)),
                None => next_shard(&mut trial, run.as_ref(), item, now),
            };
            if let Some((shard, burst)) = shard {
                let wait = trial[shard].seconds_until(now, burst);
                if wait > 0.0 {
                    later(now + Duration::from_secs_f64(wait));
                    continue;
                }
                trial[shard].take(item.data.len());
                if item.hash.is_none() {
                    run = Some(Run::with(run.take(), shard, item.data.len()));
                }
            }
            let shard = shard.map(|(shard, _)| shard);
            bytes += item.weight();
            chosen.push((
                index,
                Target {
                    shard,
                    explicit: item.hash.is_none(),
                },
            ));
            if item.alone {
                break;
            }
        }
        (chosen, wake, run)
    }

    fn take_out(&mut self, chosen: Vec<(usize, Target)>) -> Vec<Addressed> {
        let mut batch = Vec::with_capacity(chosen.len());
        // From behind, so that the places before stay what they were.
        for (index, target) in chosen.into_iter().rev() {
            let Some(item) = self.waiting.remove(index) else {
                continue;
            };
            let shard = target.shard.and_then(|shard| self.shards.open.get(shard));
            if let Some(pace) = shard.and_then(|shard| self.paces.get_mut(&shard.id)) {
                pace.take(item.data.len());
            }
            let explicit_hash = shard
                .filter(|_| target.explicit)
                .map(super::shards::OpenShard::middle);
            batch.push(Addressed {
                shard: shard.map(|shard| shard.id.clone()),
                explicit_hash,
                item,
            });
        }
        batch.reverse();
        batch
    }

    fn conclude(
        &mut self,
        items: Vec<(Item, Option<String>)>,
        outcome: Result<Vec<PutRecordsResultEntry>, ServiceError>,
    ) {
        match outcome {
            Ok(answers) if answers.len() == items.len() => {
                for ((item, meant), answer) in items.into_iter().zip(answers) {
                    self.conclude_one(item, meant, &answer);
                }
            }
            Ok(answers) => {
                let said = ServiceError::without_code(format!(
                    "{} answers to {} records",
                    answers.len(),
                    items.len()
                ));
                self.all_again(items, &said);
            }
            Err(said) => self.all_again(items, &said),
        }
    }

    fn conclude_one(&mut self, item: Item, meant: Option<String>, answer: &PutRecordsResultEntry) {
        let taken = answer
            .shard_id()
            .zip(answer.sequence_number().and_then(Sequence::parse));
        if let (Some((shard, sequence)), None) = (taken, answer.error_code()) {
            if meant.as_deref() != Some(shard) {
                self.stale_shards = true;
            }
            self.counts.answered(|counts| counts.acknowledged += 1);
            let bytes = u32::try_from(item.data.len()).unwrap_or(u32::MAX);
            let _ = item.answer.send(Ok(Position {
                shard: shard.to_owned(),
                sequence,
                bytes,
            }));
            return;
        }
        let said = ServiceError {
            code: answer.error_code().unwrap_or("NoSequenceNumber").to_owned(),
            message: answer
                .error_message()
                .unwrap_or("the record was not taken")
                .to_owned(),
        };
        if said.is_throttling() {
            self.counts.throttled();
            if let Some(pace) = meant.and_then(|shard| self.paces.get_mut(&shard)) {
                pace.throttled(Instant::now());
            }
        }
        self.again(item, said);
    }

    /// The request as a whole failed.
    fn all_again(&mut self, items: Vec<(Item, Option<String>)>, said: &ServiceError) {
        let several = items.len() > 1;
        warn!(stream = self.stream, records = items.len(), error = %said, "Records were not put; trying again.");
        for (mut item, meant) in items {
            if said.is_throttling() {
                self.counts.throttled();
                if let Some(pace) = meant.and_then(|shard| self.paces.get_mut(&shard)) {
                    pace.throttled(Instant::now());
                }
            }
            if said.is_refusal() && several {
                // One of them is to blame; the others must not pay for it.
                item.alone = true;
                self.counts.answered(|counts| counts.retried += 1);
                self.waiting.push_back(item);
            } else {
                self.again(item, said.clone());
            }
        }
    }

    fn again(&mut self, mut item: Item, said: ServiceError) {
        let hopeless = said.is_refusal()
            || said.is_absent()
            || said.is_denied()
            || item.since.elapsed() > PATIENCE;
        if hopeless {
            self.counts.answered(|counts| counts.dead += 1);
            let _ = item.answer.send(Err(said.into_transport_error(format!(
                "putting a record of {} bytes to {}",
                item.data.len(),
                self.stream
            ))));
            return;
        }
        self.counts.answered(|counts| counts.retried += 1);
        item.tries += 1;
        item.not_before = Instant::now() + BACKOFF.full_jitter(item.tries);
        self.waiting.push_back(item);
    }

    async fn list_shards(&mut self) {
        self.listed_at = Instant::now();
        match Shards::list(&self.client, &self.stream).await {
            Ok(shards) if !shards.open.is_empty() => {
                let ids = |shards: &Shards| {
                    shards
                        .open
                        .iter()
                        .map(|shard| shard.id.clone())
                        .collect::<Vec<_>>()
                };
                if ids(&shards) != ids(&self.shards) {
                    debug!(
                        stream = self.stream,
                        shards = shards.open.len(),
                        "The stream's shards have changed."
                    );
                }
                self.paces
                    .retain(|id, _| shards.open.iter().any(|shard| shard.id == *id));
                self.shards = shards;
                self.run = None;
                self.stale_shards = false;
            }
            Ok(_) => {}
            Err(error) => {
                debug!(stream = self.stream, %error, "Could not list the shards; trying again.")
            }
        }
    }
}

/// Where a record without a key goes, and which part of a burst must be free there: a single one goes on with a run while
/// that lasts. Else it is the shard with most to spare; among several, the next in turn.
fn next_shard(
    paces: &mut [Pace],
    run: Option<&Run>,
    item: &Item,
    now: Instant,
) -> Option<(usize, f64)> {
    if let Some(run) = run.filter(|run| item.single && !run.is_expired())
        && paces[run.shard].seconds_until(now, 0.0) <= 0.0
    {
        return Some((run.shard, 0.0));
    }
    let count = paces.len();
    let first = run.map_or_else(|| fastrand::usize(..count.max(1)), |run| run.shard + 1);
    let in_turn = (first..first + count).map(|place| place % count);
    let waits = in_turn.map(|shard| (shard, paces[shard].seconds_until(now, 0.0)));
    let (shard, _) = waits.min_by(|a, b| a.1.total_cmp(&b.1))?;
    let for_a_run = item.single && now < item.since + WAIT_FOR_A_RUN;
    Some((shard, if for_a_run { FREE_FOR_A_RUN } else { 0.0 }))
}

/// Where a record shall go: an index of the open shards, and whether by a hash key of our choice.
struct Target {
    shard: Option<usize>,
    explicit: bool,
}

struct Addressed {
    item: Item,
    shard: Option<String>,
    explicit_hash: Option<u128>,
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
