//! Reads records back. One walker a shard goes forward with the iterator that each answer hands on and serves whoever
//! waits for a record of that shard; it seeks with AT_SEQUENCE_NUMBER only to begin, to go back, or when what lies ahead is
//! nobody's. What it comes past is kept for a while.
//!
//! What is asked for late, behind the walk, is read by a second walk, which has [`Credit`] and never reads ahead. Where other
//! processes read the same shard and what lies ahead is theirs, the walk seeks each time and reads no further than what is
//! wanted; [`Ahead`] says when.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::types::ShardIteratorType;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Duration, Instant};
use tracing::{debug, warn};

use super::cache::{Budget, Cache};
use super::overread_budget::Credit;
use super::read_ahead::{Ahead, Seen};
use super::shards::Shards;
use super::writer::BACKOFF;
use crate::aws::service_error::ServiceError;
use crate::{Position, Sequence, TransportError, TransportResult, error_chain};

/// Records that were read ahead, over all shards.
const CACHE_BYTES: usize = 16 << 20;
/// One answer should hold about this much.
pub(super) const ANSWER_BYTES: usize = 2 << 20;
/// Answers being received at once, over all shards: each takes several times its bytes while it is decoded.
const ANSWERS_AT_ONCE: usize = 3;
/// Kinesis takes five reads and five seeks a second and shard, from all readers together.
const CALLS_PER_SECOND: f64 = 5.0;
/// Before a walk begins it waits so long for others who want something of the same shard, perhaps further back.
const GATHER: Duration = Duration::from_millis(5);
/// Iterators live five minutes.
const ITERATOR_LIFE: Duration = Duration::from_secs(270);
/// A walker without work ends.
const IDLE: Duration = Duration::from_secs(300);
/// A record that was acknowledged can be read at once, but for moments; then it is missing.
const APPEARS_WITHIN: Duration = Duration::from_secs(10);
/// No answer without a record stands for more than this of the time before it: while nothing is answered, nobody knows
/// whether the record has appeared.
const ANSWER_STANDS_FOR: Duration = Duration::from_secs(1);
/// Faults on end for so long are told to those who wait.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was read so far.
#[derive(Debug, Default)]
pub struct ReadCounts {
    /// Answers of GetRecords.
    pub reads: AtomicU64,
    /// Calls of GetShardIterator.
    pub seeks: AtomicU64,
    /// Bytes of all records received.
    pub bytes_read: AtomicU64,
    /// Bytes of records that somebody asked for.
    pub bytes_served: AtomicU64,
    /// Reads and seeks refused for the shard's rate.
    pub throttled: AtomicU64,
}

/// The way to the walkers.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    shared: Arc<Shared>,
    walkers: Arc<Walkers>,
}

/// By shard.
type Walkers = Mutex<HashMap<String, mpsc::UnboundedSender<Want>>>;

#[derive(Debug)]
struct Shared {
    client: Client,
    stream: String,
    budget: Arc<Budget>,
    answers: Semaphore,
    counts: Arc<ReadCounts>,
    /// See [`IDLE`].
    idle: Duration,
}

#[derive(Debug)]
struct Want {
    position: Position,
    answer: oneshot::Sender<TransportResult<Bytes>>,
    /// Asked for, or last looked for in vain at the tip of the shard.
    looked_for: Instant,
    /// How long it has been looked for there, with answers.
    not_seen_for: Duration,
}

impl Reader {
    pub(super) fn new(client: Client, stream: String) -> Self {
        Self::with_idle(client, stream, IDLE)
    }

    fn with_idle(client: Client, stream: String, idle: Duration) -> Self {
        let shared = Shared {
            client,
            stream,
            budget: Budget::new(CACHE_BYTES),
            answers: Semaphore::new(ANSWERS_AT_ONCE),
            counts: Arc::default(),
            idle,
        };
        Self {
            shared: Arc::new(shared),
            walkers: Arc::default(),
        }
    }

    pub(super) fn counts(&self) -> &Arc<ReadCounts> {
        &self.shared.counts
    }

    /// Reads all; the answer is index-aligned.
    pub(super) async fn fetch(&self, positions: &[Position]) -> TransportResult<Vec<Bytes>> {
        let answers: Vec<_> = positions
            .iter()
            .map(|position| self.want(position.clone()))
            .collect();
        let mut records = Vec::with_capacity(answers.len());
        for answered in answers {
            let stopped =
                |_| TransportError::unavailable("reading records", "the worker is shutting down");
            records.push(answered.await.map_err(stopped)??);
        }
        Ok(records)
    }

    fn want(&self, position: Position) -> oneshot::Receiver<TransportResult<Bytes>> {
        let (answer, answered) = oneshot::channel();
        let mut walkers = self.walkers.lock();
        let shard = position.shard.clone();
        let mut want = Want {
            position,
            answer,
            looked_for: Instant::now(),
            not_seen_for: Duration::ZERO,
        };
        if let Some(walker) = walkers.get(&shard) {
            match walker.send(want) {
                Ok(()) => return answered,
                // It ended for want of work.
                Err(back) => want = back.0,
            }
        }
        let (walker, wants) = mpsc::unbounded_channel();
        // The receiver is at hand below, so this cannot fail.
        let _ = walker.send(want);
        let walk = Walker::new(self.shared.clone(), shard.clone()).run(wants);
        let (all, of_shard) = (Arc::downgrade(&self.walkers), shard.clone());
        tokio::spawn(async move {
            walk.await;
            forget_the_ended(&all, &of_shard);
        });
        walkers.insert(shard, walker);
        answered
    }
}

/// Shards come and go, and their names come from messages: who has ended must not stay for ever. Another walker may have
/// begun on the shard meanwhile. Weak, since a walker also ends when nobody can ask it any more.
fn forget_the_ended(walkers: &Weak<Walkers>, shard: &str) {
    let Some(walkers) = walkers.upgrade() else {
        return;
    };
    let mut walkers = walkers.lock();
    if walkers
        .get(shard)
        .is_some_and(mpsc::UnboundedSender::is_closed)
    {
        walkers.remove(shard);
    }
}

/// Where a walk stands.
struct Cursor {
    /// `None` at the end of a closed shard.
    iterator: Option<String>,
    issued: Instant,
    /// Everything after this is still ahead, and this too where it is `inclusive`.
    from: Sequence,
    inclusive: bool,
    /// Nothing was read yet where it stands.
    unread: bool,
    /// It held nothing that anyone wanted.
    idle: bool,
}

struct Walker {
    shared: Arc<Shared>,
    shard: String,
    wants: BTreeMap<Sequence, Vec<Want>>,
    cache: Cache,
    cursor: Option<Cursor>,
    /// Mean bytes of a record.
    record_bytes: f64,
    reads: Turns,
    seeks: Turns,
    /// How far `cursor` reads.
    ahead: Ahead,
    /// The walk through what is asked for behind `cursor`.
    behind: Option<Cursor>,
    credit: Credit,
    failing_since: Option<Instant>,
    faults: u32,
}

impl Cursor {
    fn is_before(&self, sequence: &Sequence) -> bool {
        self.from < *sequence || (self.inclusive && self.from == *sequence)
    }

    /// Whether going on from here is the way to it.
    fn leads_to(&self, target: &Sequence) -> bool {
        let usable = !self.idle && self.issued.elapsed() < ITERATOR_LIFE;
        self.is_before(target) && (self.iterator.is_none() || usable)
    }
}

/// Five calls of a kind a second, after a pause five at once.
struct Turns {
    left: f64,
    counted_at: Instant,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            left: CALLS_PER_SECOND,
            counted_at: Instant::now(),
        }
    }
}

impl Turns {
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

    /// Takes the next when it is due.
    async fn take(&mut self) {
        self.due().await;
        self.left -= 1.0;
    }
}

/// What one step came to.
enum Step {
    Went,
    /// Try again after a pause.
    Failed(ServiceError),
}

impl Walker {
    fn new(shared: Arc<Shared>, shard: String) -> Self {
        Self {
            cache: Cache::new(shared.budget.clone()),
            shared,
            shard,
            wants: BTreeMap::new(),
            cursor: None,
            record_bytes: 0.0,
            reads: Turns::default(),
            seeks: Turns::default(),
            ahead: Ahead::default(),
            behind: None,
            credit: Credit::default(),
            failing_since: None,
            faults: 0,
        }
    }

    async fn run(mut self, mut asked: mpsc::UnboundedReceiver<Want>) {
        loop {
            if self.wants.is_empty() {
                match tokio::time::timeout(self.shared.idle, asked.recv()).await {
                    Ok(Some(want)) => self.take_in(want),
                    Ok(None) => return,
                    Err(_) => {
                        // Closed first, so that whoever asks meanwhile finds out and starts another walker.
                        asked.close();
                        match asked.try_recv() {
                            Ok(want) => self.take_in(want),
                            Err(_) => return,
                        }
                    }
                }
            }
            if !self.ahead.is_alone() {
                tokio::time::sleep(GATHER).await;
            }
            // Meanwhile others may want something too.
            self.reads.due().await;
            while let Ok(want) = asked.try_recv() {
                self.take_in(want);
            }
            self.forget_the_dropped();
            let Some(target) = self.wants.keys().next().cloned() else {
                continue;
            };
            match self.step(&target).await {
                Step::Went => {
                    self.failing_since = None;
                    self.faults = 0;
                }
                Step::Failed(said) => self.endure(said).await,
            }
        }
    }

    fn take_in(&mut self, want: Want) {
        let sequence = want.position.sequence.clone();
        if let Some(data) = self.cache.take(&sequence) {
            self.ahead.served(&sequence, &self.cache);
            self.serve(want, data);
            return;
        }
        if want.position.bytes > 0 && self.record_bytes == 0.0 {
            self.record_bytes = f64::from(want.position.bytes);
        }
        self.wants.entry(sequence).or_default().push(want);
    }

    fn serve(&self, want: Want, data: Bytes) {
        self.shared
            .counts
            .bytes_served
            .fetch_add(data.len() as u64, Ordering::Relaxed);
        let _ = want.answer.send(Ok(data));
    }

    fn forget_the_dropped(&mut self) {
        self.wants.retain(|_, wants| {
            wants.retain(|want| !want.answer.is_closed());
            !wants.is_empty()
        });
    }

    /// Seeks where need be, reads once, hands out.
    async fn step(&mut self, target: &Sequence) -> Step {
        if !self.ahead.is_alone() {
            return self.read_what_is_wanted(target).await;
        }
        let is_behind = self
            .cursor
            .as_ref()
            .is_some_and(|front| !front.is_before(target));
        if is_behind {
            return self.go_back(target).await;
        }
        if !self
            .cursor
            .as_ref()
            .is_some_and(|front| front.leads_to(target))
        {
            match self.seek_to(target).await {
                Ok(Some(cursor)) => self.cursor = Some(cursor),
                Ok(None) => return self.judge(target).await,
                Err(said) => return Step::Failed(said),
            }
        }
        match self.cursor.take() {
            Some(cursor) => self.read_on(cursor, target).await,
            None => Step::Went,
        }
    }

    /// Where others are too, or may be: seeks and reads from the first record that is wanted to the last.
    async fn read_what_is_wanted(&mut self, target: &Sequence) -> Step {
        let kept = self.cursor.take();
        let cursor = match kept.filter(|kept| kept.unread && kept.leads_to(target)) {
            Some(cursor) => cursor,
            None => match self.seek_to(target).await {
                Ok(Some(cursor)) => cursor,
                Ok(None) => return self.judge(target).await,
                Err(said) => return Step::Failed(said),
            },
        };
        self.read_on(cursor, target).await
    }

    /// Reads once where the walk stands, and hands out.
    async fn read_on(&mut self, cursor: Cursor, target: &Sequence) -> Step {
        let Some(iterator) = &cursor.iterator else {
            // Nothing follows, ever.
            self.cursor = Some(cursor);
            return self.judge(target).await;
        };
        let limit = self.how_far(target);
        match self.read(iterator, limit).await {
            Ok(answer) => {
                let (step, cursor, seen) = self.walk(cursor, answer).await;
                self.ahead.learn(&seen, limit as usize, self.wants.len());
                self.cursor = Some(cursor);
                step
            }
            // The cursor is gone: the next step seeks.
            Err(said) if said.is(&["ExpiredIteratorException"]) => {
                debug!(shard = self.shard, "An iterator expired; seeking anew.");
                Step::Went
            }
            Err(said) if said.is_absent() => self.judge(target).await,
            Err(said) => {
                self.cursor = Some(cursor);
                Step::Failed(said)
            }
        }
    }

    /// How many records to read at the first that is wanted. What was read before is not read again: who is wanted behind that
    /// has an answer of its own.
    fn how_far(&mut self, target: &Sequence) -> i32 {
        let wanted = match self.cache.first_after(target) {
            Some(known) if !self.ahead.is_alone() => self.wants.range(..known).count(),
            _ => self.wants.len(),
        };
        self.ahead
            .limit(wanted, self.record_bytes)
            .min(self.limit())
    }

    /// Reads what is wanted behind the walk and leaves the walk where it is: whoever is ahead does not wait for all that lies
    /// between to be read again. Only when nobody is ahead any more, and it has long gone well, the walk itself moves back.
    async fn go_back(&mut self, target: &Sequence) -> Step {
        let is_behind = |sequence: &&Sequence| {
            let front = self.cursor.as_ref();
            front.is_none_or(|front| !front.is_before(sequence))
        };
        let wanted = self.wants.keys().filter(is_behind).count();
        let mut limit = self.credit.going_on(wanted, self.record_bytes);
        let kept = self.behind.take();
        let cursor = match kept.filter(|behind| limit > 0 && behind.leads_to(target)) {
            Some(cursor) => cursor,
            None => match self.seek_to(target).await {
                Ok(Some(cursor)) => {
                    limit = self.credit.after_a_seek(wanted, self.record_bytes);
                    cursor
                }
                Ok(None) => return self.judge(target).await,
                Err(said) => return Step::Failed(said),
            },
        };
        let Some(iterator) = &cursor.iterator else {
            return self.judge(target).await;
        };
        match self.read(iterator, limit.min(self.limit())).await {
            Ok(answer) => {
                let (step, behind, seen) = self.walk(cursor, answer).await;
                self.credit
                    .settle(seen.wanted_bytes, seen.other_bytes, self.record_bytes);
                let is_last = self.wants.keys().next_back().is_none_or(|last| {
                    let front = self.cursor.as_ref();
                    front.is_none_or(|front| !front.is_before(last))
                });
                if is_last && !behind.idle && self.credit.spend_for_a_move() {
                    self.ahead.moved_back(&behind.from);
                    self.cursor = Some(behind);
                } else {
                    self.behind = Some(behind);
                }
                step
            }
            Err(said) if said.is(&["ExpiredIteratorException"]) => Step::Went,
            Err(said) if said.is_absent() => self.judge(target).await,
            Err(said) => Step::Failed(said),
        }
    }

    /// `None` when there can be no such record.
    async fn seek_to(&mut self, target: &Sequence) -> Result<Option<Cursor>, ServiceError> {
        let sought = self
            .seek(ShardIteratorType::AtSequenceNumber, Some(target))
            .await;
        match sought {
            Ok(None) => Ok(None),
            Ok(iterator) => Ok(Some(Cursor {
                iterator,
                issued: Instant::now(),
                from: target.clone(),
                inclusive: true,
                unread: true,
                idle: false,
            })),
            Err(said) if said.is_absent() || said.is_refusal() => Ok(None),
            Err(said) => Err(said),
        }
    }

    /// Takes in one answer; says where the walk stands then.
    async fn walk(&mut self, cursor: Cursor, answer: GetRecordsOutput) -> (Step, Cursor, Seen) {
        let at_tip = answer.millis_behind_latest.unwrap_or(0) == 0;
        let next = answer.next_shard_iterator;
        let bytes: usize = answer
            .records
            .iter()
            .map(|record| record.data.as_ref().len())
            .sum();
        self.shared
            .counts
            .bytes_read
            .fetch_add(bytes as u64, Ordering::Relaxed);
        let mut last = None;
        let mut seen = Seen::default();
        for record in answer.records {
            let Some(sequence) = Sequence::parse(&record.sequence_number) else {
                continue;
            };
            let data = Bytes::from(record.data.into_inner());
            match self.wants.remove(&sequence) {
                Some(wants) => {
                    seen.hit(data.len());
                    self.ahead.served(&sequence, &self.cache);
                    wants
                        .into_iter()
                        .for_each(|want| self.serve(want, data.clone()));
                }
                None => {
                    seen.miss(&sequence, data.len());
                    if !self.cache.keep(sequence.clone(), data) {
                        self.ahead.could_not_keep();
                    }
                }
            }
            last = Some(sequence);
        }
        if seen.records > 0 {
            let mean = bytes as f64 / seen.records as f64;
            self.record_bytes = if self.record_bytes == 0.0 {
                mean
            } else {
                0.5 * self.record_bytes + 0.5 * mean
            };
        }
        let closed = next.is_none();
        let (from, inclusive) = match &last {
            Some(last) => (last.clone(), false),
            None => (cursor.from.clone(), cursor.inclusive),
        };
        // An empty answer says nothing of what lies ahead.
        let empty = seen.records == 0;
        let idle = seen.is_idle();
        let ahead = Cursor {
            iterator: next,
            issued: Instant::now(),
            from,
            inclusive,
            unread: empty,
            idle,
        };
        // What was wanted between where we began and what we saw last, and is not there, never comes.
        let passed = |sequence: &Sequence| {
            cursor.is_before(sequence)
                && (closed || last.as_ref().is_some_and(|last| sequence <= last))
        };
        let missing: Vec<Sequence> = self
            .wants
            .keys()
            .filter(|sequence| passed(sequence))
            .cloned()
            .collect();
        for sequence in missing {
            if let Step::Failed(said) = self.judge(&sequence).await {
                return (Step::Failed(said), ahead, seen);
            }
        }
        let step = if empty && at_tip && !closed {
            self.not_seen_at_tip(&ahead).await
        } else {
            Step::Went
        };
        (step, ahead, seen)
    }

    /// At the tip of an open shard with nothing there: records may take a moment to appear, but not for ever.
    async fn not_seen_at_tip(&mut self, at: &Cursor) -> Step {
        let mut late = Vec::new();
        for (sequence, wants) in &mut self.wants {
            if !at.is_before(sequence) {
                continue;
            }
            for want in wants {
                want.not_seen_for += want.looked_for.elapsed().min(ANSWER_STANDS_FOR);
                want.looked_for = Instant::now();
                if want.not_seen_for >= APPEARS_WITHIN {
                    late.push(sequence.clone());
                }
            }
        }
        late.dedup();
        for sequence in late {
            if let Step::Failed(said) = self.judge(&sequence).await {
                return Step::Failed(said);
            }
        }
        Step::Went
    }

    /// Why a record is not there: older than what the shard still has, or never written.
    async fn judge(&mut self, sequence: &Sequence) -> Step {
        let expired = match self.is_expired(sequence).await {
            Ok(expired) => expired,
            Err(said) => return Step::Failed(said),
        };
        for want in self.wants.remove(sequence).unwrap_or_default() {
            let position = want.position.clone();
            let _ = want.answer.send(Err(if expired {
                TransportError::Expired(position)
            } else {
                TransportError::Missing(position)
            }));
        }
        Step::Went
    }

    async fn is_expired(&mut self, sequence: &Sequence) -> Result<bool, ServiceError> {
        let oldest = match self.seek(ShardIteratorType::TrimHorizon, None).await {
            Ok(Some(iterator)) => self.oldest(iterator).await?,
            Ok(None) => None,
            // The shard itself is gone, which happens once all it held has expired; unless the stream never had one.
            Err(said) if said.is_absent() => {
                let listed = Shards::list(&self.shared.client, &self.shared.stream).await;
                let listed =
                    listed.map_err(|error| ServiceError::without_code(error_chain(&error)))?;
                return Ok(
                    !listed.readable.contains(&self.shard) && self.shard.starts_with("shardId-")
                );
            }
            Err(said) => return Err(said),
        };
        Ok(oldest.is_none_or(|oldest| *sequence < oldest))
    }

    /// The oldest record that the shard still has; `None` when it has none.
    async fn oldest(&mut self, mut iterator: String) -> Result<Option<Sequence>, ServiceError> {
        // Empty answers do not mean an empty shard, only one that is not behind does.
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

    fn limit(&self) -> i32 {
        let records = if self.record_bytes > 0.0 {
            ANSWER_BYTES as f64 / self.record_bytes
        } else {
            16.0
        };
        records.clamp(1.0, 10_000.0) as i32
    }

    async fn seek(
        &mut self,
        kind: ShardIteratorType,
        at: Option<&Sequence>,
    ) -> Result<Option<String>, ServiceError> {
        self.seeks.take().await;
        self.shared.counts.seeks.fetch_add(1, Ordering::Relaxed);
        let request = self
            .shared
            .client
            .get_shard_iterator()
            .stream_name(&self.shared.stream)
            .shard_id(&self.shard)
            .shard_iterator_type(kind);
        let answer = request
            .set_starting_sequence_number(at.map(|at| at.as_str().to_owned()))
            .send()
            .await;
        answer
            .map(|answer| answer.shard_iterator)
            .map_err(|error| ServiceError::from_sdk(&error))
    }

    async fn read(&mut self, iterator: &str, limit: i32) -> Result<GetRecordsOutput, ServiceError> {
        self.reads.take().await;
        let _turn = self.shared.answers.acquire().await;
        let answer = self
            .shared
            .client
            .get_records()
            .shard_iterator(iterator)
            .limit(limit)
            .send()
            .await;
        self.shared
            .counts
            .reads
            .fetch_add(u64::from(answer.is_ok()), Ordering::Relaxed);
        answer.map_err(|error| ServiceError::from_sdk(&error))
    }

    /// A fault that may pass: waits, and after long enough tells those who wait.
    async fn endure(&mut self, said: ServiceError) {
        if said.is_throttling() {
            self.shared.counts.throttled.fetch_add(1, Ordering::Relaxed);
        } else {
            warn!(shard = self.shard, error = %said, "Cannot read the stream; trying again.");
        }
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        if since.elapsed() > PATIENCE || said.is_denied() {
            self.failing_since = None;
            for want in std::mem::take(&mut self.wants).into_values().flatten() {
                let fault = TransportError::unavailable(
                    format!("reading {} of {}", want.position, self.shared.stream),
                    said.clone(),
                );
                let _ = want.answer.send(Err(fault));
            }
            return;
        }
        self.faults += 1;
        tokio::time::sleep(Duration::from_millis(100) + BACKOFF.full_jitter(self.faults)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::{Aws, AwsOptions};

    #[tokio::test]
    async fn a_walker_that_ended_is_forgotten() {
        let aws = Aws::connect(&AwsOptions {
            // Nothing listens there.
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
        let fetching = tokio::time::timeout(Duration::from_millis(50), async {
            reader.fetch(&[position]).await
        });
        assert!(fetching.await.is_err(), "nobody answers");
        let walkers = || reader.walkers.lock().len();
        assert_eq!(walkers(), 1);
        let gone = tokio::time::timeout(Duration::from_secs(60), async {
            while walkers() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        gone.await.expect("it ended and is forgotten");
    }
}
