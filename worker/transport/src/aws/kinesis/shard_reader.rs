//! Reads one shard for all callers. It goes forward with the iterator that each answer brings and serves every request for
//! a record of that shard; it seeks with AT_SEQUENCE_NUMBER only to begin, to go back, or when nothing that lies ahead was
//! requested. Records that it passes are cached for a while.
//!
//! A record that is requested behind the forward cursor is read with a second cursor, which has an [`OverreadBudget`] and
//! never reads ahead. Where other processes read the same shard and the records ahead are theirs, the reader seeks each
//! time and reads no further than the last request; [`ReadAhead`] decides that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::types::Record;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant};
use tracing::{debug, warn};

use super::cache::{CacheBudget, RecordCache};
use super::cursor::Cursor;
use super::limits::{ANSWER_BYTES, ANSWER_RECORDS};
use super::overread_budget::OverreadBudget;
use super::read_ahead::{AnswerStats, ReadAhead};
use super::shard_calls::ShardCalls;
use crate::aws::ServiceError;
use crate::{Backoff, Position, Sequence, TransportError, TransportResult};

/// Before it reads, it waits so long for other callers' requests on the same shard, perhaps further back.
const GATHER: Duration = Duration::from_millis(5);
/// A record that was acknowledged can be read at once, but for moments; after this it is missing.
const APPEARS_WITHIN: Duration = Duration::from_secs(10);
/// No answer without a record accounts for more than this of the time before it: while nothing is answered, it is unknown
/// whether the record has appeared.
const ANSWER_ACCOUNTS_FOR: Duration = Duration::from_secs(1);
/// After so long without a success, callers get the fault.
const PATIENCE: Duration = Duration::from_secs(60);
/// After a fault, besides [`SHORTEST_PAUSE`].
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// The limit of the first read, while the size of a record is unknown.
const FIRST_LIMIT: f64 = 16.0;

/// One caller's request for one record.
#[derive(Debug)]
pub(super) struct RecordRequest {
    pub(super) position: Position,
    pub(super) answer: oneshot::Sender<TransportResult<Bytes>>,
    /// When it was requested, or last looked for in vain at the tip of the shard.
    pub(super) checked_at: Instant,
    /// How long it has been missing there, according to answers.
    pub(super) missing_for: Duration,
}

/// See the module.
pub(super) struct ShardReader {
    calls: ShardCalls,
    requests: BTreeMap<Sequence, Vec<RecordRequest>>,
    cache: RecordCache,
    /// Where reading goes forward.
    front: Option<Cursor>,
    /// How far `front` reads.
    ahead: ReadAhead,
    /// Where requests behind `front` are read.
    behind: Option<Cursor>,
    budget: OverreadBudget,
    /// Mean bytes of a record; 0 while unknown.
    record_bytes: f64,
    failing_since: Option<Instant>,
    failures: u32,
    /// Without a request for so long it ends.
    idle: Duration,
}

/// How one step ended.
enum ReadStep {
    Done,
    /// Try again after a pause.
    Failed(ServiceError),
}

impl ShardReader {
    pub(super) fn new(calls: ShardCalls, cache: Arc<CacheBudget>, idle: Duration) -> Self {
        Self {
            calls,
            requests: BTreeMap::new(),
            cache: RecordCache::new(cache),
            front: None,
            ahead: ReadAhead::default(),
            behind: None,
            budget: OverreadBudget::default(),
            record_bytes: 0.0,
            failing_since: None,
            failures: 0,
            idle,
        }
    }

    /// Runs until it is idle, or its sender is dropped.
    pub(super) async fn run(mut self, mut incoming: mpsc::UnboundedReceiver<RecordRequest>) {
        loop {
            if self.requests.is_empty() {
                match tokio::time::timeout(self.idle, incoming.recv()).await {
                    Ok(Some(request)) => self.accept(request),
                    Ok(None) => return,
                    Err(_) => {
                        // Closed first, so that a caller meanwhile notices and starts another reader.
                        incoming.close();
                        match incoming.try_recv() {
                            Ok(request) => self.accept(request),
                            Err(_) => return,
                        }
                    }
                }
            }
            if !self.ahead.is_alone() {
                tokio::time::sleep(GATHER).await;
            }
            // More requests may arrive meanwhile.
            self.calls.read_due().await;
            while let Ok(request) = incoming.try_recv() {
                self.accept(request);
            }
            self.forget_dropped();
            let Some(target) = self.requests.keys().next().cloned() else {
                continue;
            };
            match self.step(&target).await {
                ReadStep::Done => {
                    self.failing_since = None;
                    self.failures = 0;
                }
                ReadStep::Failed(error) => self.pause(error).await,
            }
        }
    }

    fn accept(&mut self, request: RecordRequest) {
        let sequence = request.position.sequence.clone();
        if let Some(data) = self.cache.take(&sequence) {
            self.ahead.served(&sequence, &self.cache);
            self.serve(request, data);
            return;
        }
        if request.position.bytes > 0 && self.record_bytes == 0.0 {
            self.record_bytes = f64::from(request.position.bytes);
        }
        self.requests.entry(sequence).or_default().push(request);
    }

    fn serve(&self, request: RecordRequest, data: Bytes) {
        let served = &self.calls.stream.counts.bytes_served;
        served.fetch_add(data.len() as u64, Ordering::Relaxed);
        let _ = request.answer.send(Ok(data));
    }

    /// Requests whose callers are gone.
    fn forget_dropped(&mut self) {
        self.requests.retain(|_, requests| {
            requests.retain(|request| !request.answer.is_closed());
            !requests.is_empty()
        });
    }

    /// Seeks where necessary, reads once, serves.
    async fn step(&mut self, target: &Sequence) -> ReadStep {
        if !self.ahead.is_alone() {
            return self.read_requested(target).await;
        }
        let front = self.front.as_ref();
        if front.is_some_and(|front| !front.is_before(target)) {
            return self.read_behind(target).await;
        }
        if !front.is_some_and(|front| front.leads_to(target)) {
            match self.calls.seek_to(target).await {
                Ok(Some(cursor)) => self.front = Some(cursor),
                Ok(None) => return self.fail_missing(target).await,
                Err(error) => return ReadStep::Failed(error),
            }
        }
        match self.front.take() {
            Some(cursor) => self.read_forward(cursor, target).await,
            None => ReadStep::Done,
        }
    }

    /// Where other processes read too, or may: seeks, and reads from the first requested record to the last.
    async fn read_requested(&mut self, target: &Sequence) -> ReadStep {
        let kept = self.front.take();
        let cursor = match kept.filter(|kept| kept.unread && kept.leads_to(target)) {
            Some(cursor) => cursor,
            None => match self.calls.seek_to(target).await {
                Ok(Some(cursor)) => cursor,
                Ok(None) => return self.fail_missing(target).await,
                Err(error) => return ReadStep::Failed(error),
            },
        };
        self.read_forward(cursor, target).await
    }

    /// Reads once at the forward cursor, and serves.
    async fn read_forward(&mut self, cursor: Cursor, target: &Sequence) -> ReadStep {
        let Some(iterator) = &cursor.iterator else {
            // The shard is closed: nothing follows, ever.
            self.front = Some(cursor);
            return self.fail_missing(target).await;
        };
        let limit = self.forward_limit(target);
        match self.calls.read(iterator, limit).await {
            Ok(answer) => {
                let (step, cursor, stats) = self.take_in(cursor, answer).await;
                self.ahead
                    .learn(&stats, limit as usize, self.requests.len());
                self.front = Some(cursor);
                step
            }
            // Without a cursor the next step seeks.
            Err(error) if is_expired_iterator(&error) => {
                debug!(
                    shard = self.calls.shard,
                    "An iterator expired; seeking again."
                );
                ReadStep::Done
            }
            Err(error) if error.is_absent() => self.fail_missing(target).await,
            Err(error) => {
                self.front = Some(cursor);
                ReadStep::Failed(error)
            }
        }
    }

    /// How many records to read from the first requested one on. What is cached is not read again: requests behind it get
    /// an answer of their own.
    fn forward_limit(&mut self, target: &Sequence) -> i32 {
        let requested = match self.cache.first_after(target) {
            Some(cached) if !self.ahead.is_alone() => self.requests.range(..cached).count(),
            _ => self.requests.len(),
        };
        self.ahead
            .limit(requested, self.record_bytes)
            .min(self.answer_limit())
    }

    /// Reads requests behind the forward cursor and leaves that where it is, so that requests ahead need not wait until all
    /// in between was read again. Only when no request is ahead any more, and after long success, the forward cursor moves
    /// back.
    async fn read_behind(&mut self, target: &Sequence) -> ReadStep {
        let is_behind = |sequence: &&Sequence| {
            let front = self.front.as_ref();
            front.is_none_or(|front| !front.is_before(sequence))
        };
        let requested = self.requests.keys().filter(is_behind).count();
        let mut limit = self.budget.limit_onward(requested, self.record_bytes);
        let kept = self.behind.take();
        let cursor = match kept.filter(|behind| limit > 0 && behind.leads_to(target)) {
            Some(cursor) => cursor,
            None => match self.calls.seek_to(target).await {
                Ok(Some(cursor)) => {
                    limit = self.budget.limit_after_seek(requested, self.record_bytes);
                    cursor
                }
                Ok(None) => return self.fail_missing(target).await,
                Err(error) => return ReadStep::Failed(error),
            },
        };
        let Some(iterator) = &cursor.iterator else {
            return self.fail_missing(target).await;
        };
        match self
            .calls
            .read(iterator, limit.min(self.answer_limit()))
            .await
        {
            Ok(answer) => {
                let (step, behind, stats) = self.take_in(cursor, answer).await;
                self.budget
                    .account(stats.requested_bytes, stats.other_bytes, self.record_bytes);
                let is_last = self.requests.keys().next_back().is_none_or(|last| {
                    let front = self.front.as_ref();
                    front.is_none_or(|front| !front.is_before(last))
                });
                if is_last && !behind.idle && self.budget.spend_on_move() {
                    self.ahead.moved_back(&behind.from);
                    self.front = Some(behind);
                } else {
                    self.behind = Some(behind);
                }
                step
            }
            Err(error) if is_expired_iterator(&error) => ReadStep::Done,
            Err(error) if error.is_absent() => self.fail_missing(target).await,
            Err(error) => ReadStep::Failed(error),
        }
    }

    /// Serves requests from one answer and caches the rest; answers where reading goes on from there.
    async fn take_in(
        &mut self,
        cursor: Cursor,
        answer: GetRecordsOutput,
    ) -> (ReadStep, Cursor, AnswerStats) {
        let at_tip = answer.millis_behind_latest.unwrap_or(0) == 0;
        let next = answer.next_shard_iterator;
        let (last, stats) = self.take_records(answer.records);
        let closed = next.is_none();
        // An empty answer says nothing of what lies ahead.
        let empty = stats.records == 0;
        let (from, inclusive) = match &last {
            Some(last) => (last.clone(), false),
            None => (cursor.from.clone(), cursor.inclusive),
        };
        let onward = Cursor {
            iterator: next,
            issued_at: Instant::now(),
            from,
            inclusive,
            unread: empty,
            idle: stats.is_idle(),
        };
        // A request between the cursor and the last record read, that was not among the records, never appears.
        let passed = |sequence: &&Sequence| {
            cursor.is_before(sequence)
                && (closed || last.as_ref().is_some_and(|last| *sequence <= last))
        };
        let missing: Vec<Sequence> = self.requests.keys().filter(passed).cloned().collect();
        for sequence in missing {
            if let ReadStep::Failed(error) = self.fail_missing(&sequence).await {
                return (ReadStep::Failed(error), onward, stats);
            }
        }
        let step = if empty && at_tip && !closed {
            self.missing_at_tip(&onward).await
        } else {
            ReadStep::Done
        };
        (step, onward, stats)
    }

    /// Serves requests from the records and caches the rest; answers which is the last.
    fn take_records(&mut self, records: Vec<Record>) -> (Option<Sequence>, AnswerStats) {
        let bytes: usize = records.iter().map(|it| it.data.as_ref().len()).sum();
        self.calls.stream.counts.add_read(bytes);
        let mut last = None;
        let mut stats = AnswerStats::default();
        for record in records {
            let Some(sequence) = Sequence::parse(&record.sequence_number) else {
                continue;
            };
            let data = Bytes::from(record.data.into_inner());
            match self.requests.remove(&sequence) {
                Some(requests) => {
                    stats.requested(data.len());
                    self.ahead.served(&sequence, &self.cache);
                    for request in requests {
                        self.serve(request, data.clone());
                    }
                }
                None => {
                    stats.other(&sequence, data.len());
                    if !self.cache.keep(sequence.clone(), data) {
                        self.ahead.could_not_keep();
                    }
                }
            }
            last = Some(sequence);
        }
        self.learn_record_bytes(bytes, stats.records);
        (last, stats)
    }

    fn learn_record_bytes(&mut self, bytes: usize, records: usize) {
        if records == 0 {
            return;
        }
        let mean = bytes as f64 / records as f64;
        self.record_bytes = if self.record_bytes == 0.0 {
            mean
        } else {
            0.5 * self.record_bytes + 0.5 * mean
        };
    }

    /// At the tip of an open shard without a record: records may take a moment to appear, but not for ever.
    async fn missing_at_tip(&mut self, at: &Cursor) -> ReadStep {
        let mut late = Vec::new();
        for (sequence, requests) in &mut self.requests {
            if !at.is_before(sequence) {
                continue;
            }
            for request in requests {
                request.missing_for += request.checked_at.elapsed().min(ANSWER_ACCOUNTS_FOR);
                request.checked_at = Instant::now();
                if request.missing_for >= APPEARS_WITHIN {
                    late.push(sequence.clone());
                }
            }
        }
        late.dedup();
        for sequence in late {
            if let ReadStep::Failed(error) = self.fail_missing(&sequence).await {
                return ReadStep::Failed(error);
            }
        }
        ReadStep::Done
    }

    /// Answers requests for a record that is not there: expired, or never written.
    async fn fail_missing(&mut self, sequence: &Sequence) -> ReadStep {
        let expired = match self.calls.is_expired(sequence).await {
            Ok(expired) => expired,
            Err(error) => return ReadStep::Failed(error),
        };
        for request in self.requests.remove(sequence).unwrap_or_default() {
            let position = request.position.clone();
            let _ = request.answer.send(Err(if expired {
                TransportError::Expired(position)
            } else {
                TransportError::Missing(position)
            }));
        }
        ReadStep::Done
    }

    fn answer_limit(&self) -> i32 {
        let records = if self.record_bytes > 0.0 {
            ANSWER_BYTES as f64 / self.record_bytes
        } else {
            FIRST_LIMIT
        };
        records.clamp(1.0, ANSWER_RECORDS) as i32
    }

    /// After a fault that may pass: waits, and after long enough answers all requests with it.
    async fn pause(&mut self, error: ServiceError) {
        if error.is_throttling() {
            let throttled = &self.calls.stream.counts.throttled;
            throttled.fetch_add(1, Ordering::Relaxed);
        } else {
            warn!(shard = self.calls.shard, %error, "Cannot read the stream; trying again.");
        }
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        if since.elapsed() > PATIENCE || error.is_denied() {
            self.failing_since = None;
            let requests = std::mem::take(&mut self.requests);
            for request in requests.into_values().flatten() {
                let step = format!(
                    "reading {} of {}",
                    request.position,
                    self.calls.stream.stream()
                );
                let fault = TransportError::unavailable(step, error.clone());
                let _ = request.answer.send(Err(fault));
            }
            return;
        }
        self.failures += 1;
        tokio::time::sleep(SHORTEST_PAUSE + BACKOFF.full_jitter(self.failures)).await;
    }
}

fn is_expired_iterator(error: &ServiceError) -> bool {
    error.is(&["ExpiredIteratorException"])
}
