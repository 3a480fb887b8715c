//! How far to read. Alone on a shard a reader reads ahead of the requests, a whole answer at a time: all that lies there will
//! be requested. Where several processes share the work, most of it is for the others, and a shard gives out 2 MB and
//! 5 answers a second to all of them together. Then an answer spans from the first requested record to the last, over other
//! processes' records in between where that costs less than another call, and no further.
//!
//! Whether other processes read the shard is probed: now and then one record more is read than was requested. Where the reader
//! is alone, that record is requested later.

use super::cache::RecordCache;
use super::limits::{ANSWER_BYTES, ANSWER_RECORDS};
use crate::Sequence;

/// A reader is alone while this share of the records that it passes is requested.
const ALONE_SHARE: f64 = 0.75;
/// And once so many probes in a row were requested.
const PROBES_TO_BE_ALONE: u32 = 2;
/// A probe that was not requested before so many other records is another process's; after so many more the next follows.
const PROBE_EVERY: usize = 32;
/// May be read in vain to save a call: an eighth of what a shard gives out in the time of one call of five a second.
const WORTH_A_CALL_BYTES: f64 = 50_000.0;
/// May be read in vain beyond the span that is known: at first, and as a share of what was requested since.
const SPARE_BYTES: f64 = 50_000.0;
const SPARE_SHARE: f64 = 0.1;
/// The weight of what was observed before beside the next observation.
const DECAY: f64 = 0.9;

/// See the module.
#[derive(Debug)]
pub(super) struct ReadAhead {
    /// No other process reads the shard, as far as observed.
    alone: Option<Alone>,
    /// How many records lie together, and how many of them there are for each requested one.
    span: f64,
    spacing: f64,
    spare_bytes: f64,
    /// The record that was read beyond the requests, and not requested so far.
    probe: Option<Sequence>,
    probes_requested: u32,
    requests_until_probe: usize,
}

#[derive(Debug)]
struct Alone {
    /// How far to read beyond the last requested record, in bytes.
    bytes: usize,
    /// Records requested, and all in between that were read too; older ones weigh less.
    requested: f64,
    passed: f64,
    /// The furthest record requested.
    furthest: Sequence,
}

impl Default for ReadAhead {
    fn default() -> Self {
        Self {
            alone: None,
            span: 1.0,
            spacing: 1.0,
            spare_bytes: SPARE_BYTES,
            probe: None,
            probes_requested: 0,
            requests_until_probe: 0,
        }
    }
}

/// What an answer held.
#[derive(Debug, Default)]
pub(super) struct AnswerStats {
    pub(super) records: usize,
    pub(super) requested_bytes: usize,
    pub(super) other_bytes: usize,
    requests: usize,
    /// Records, and requested ones among them, up to the first gap that is worth a call.
    together: usize,
    requests_together: usize,
    /// There was such a gap.
    ended: bool,
    /// The gap since the last requested record: its bytes, and its first record.
    gap_bytes: usize,
    gap_start: Option<Sequence>,
}

impl AnswerStats {
    /// The next record was requested.
    pub(super) fn requested(&mut self, bytes: usize) {
        self.records += 1;
        self.requests += 1;
        self.requested_bytes += bytes;
        (self.gap_bytes, self.gap_start) = (0, None);
        if !self.ended {
            (self.together, self.requests_together) = (self.records, self.requests);
        }
    }

    /// The next record was not requested so far.
    pub(super) fn other(&mut self, sequence: &Sequence, bytes: usize) {
        self.records += 1;
        self.other_bytes += bytes;
        self.gap_bytes += bytes;
        self.gap_start.get_or_insert_with(|| sequence.clone());
        self.ended |= self.gap_bytes as f64 > WORTH_A_CALL_BYTES;
    }

    /// None of its records was requested.
    pub(super) fn is_idle(&self) -> bool {
        self.records > 0 && self.requests == 0
    }
}

impl ReadAhead {
    /// Whether to read ahead of the requests.
    pub(super) fn is_alone(&self) -> bool {
        self.alone.is_some()
    }

    /// A record was served. `cache` has what was passed and not requested so far.
    pub(super) fn served(&mut self, sequence: &Sequence, cache: &RecordCache) {
        if let Some(alone) = &mut self.alone {
            alone.served(sequence, cache);
            if alone.requested < ALONE_SHARE * alone.passed {
                self.alone = None;
                self.lost();
            }
        } else if self.probe.as_ref() == Some(sequence) {
            self.probe = None;
            self.probes_requested += 1;
            self.requests_until_probe = 0;
            if self.probes_requested == PROBES_TO_BE_ALONE {
                self.alone = Some(Alone::at(sequence));
            }
        }
    }

    /// A record that was passed could not be cached.
    pub(super) fn could_not_keep(&mut self) {
        if let Some(alone) = &mut self.alone {
            alone.passed += 1.0;
        }
    }

    /// Reading begins again further back.
    pub(super) fn moved_back(&mut self, to: &Sequence) {
        if self.alone.is_some() {
            self.alone = Some(Alone::at(to));
        }
    }

    fn lost(&mut self) {
        self.probe = None;
        self.probes_requested = 0;
        self.requests_until_probe = PROBE_EVERY;
    }

    /// How many records to read for so many requests, from the first of them on.
    pub(super) fn limit(&mut self, requests: usize, record_bytes: f64) -> i32 {
        let record_bytes = record_bytes.max(1.0);
        if let Some(alone) = &self.alone {
            let further = alone.bytes as f64 / record_bytes;
            return (requests as f64 + further).clamp(1.0, ANSWER_RECORDS) as i32;
        }
        if self.probe.is_some() && self.requests_until_probe == 0 {
            self.lost();
        }
        let all = 1.0 + requests.saturating_sub(1) as f64 * self.spacing;
        let span = self.span + (self.spare_bytes / record_bytes).floor();
        let limit = all.min(span).round().clamp(1.0, ANSWER_RECORDS) as i32;
        limit + i32::from(self.probes())
    }

    fn probes(&self) -> bool {
        self.probe.is_none() && self.requests_until_probe == 0
    }

    /// Takes into account an answer to a read of `limit` records, with so many requests left.
    pub(super) fn learn(&mut self, stats: &AnswerStats, limit: usize, left: usize) {
        if let Some(alone) = &mut self.alone {
            if stats.records >= limit {
                let answer_bytes = stats.requested_bytes + stats.other_bytes;
                alone.bytes = (alone.bytes + answer_bytes).min(ANSWER_BYTES);
            }
            return;
        }
        let bytes = (stats.requested_bytes + stats.other_bytes) as f64;
        let mean_bytes = bytes / stats.records.max(1) as f64;
        let together = stats.together as f64;
        self.spare_bytes += SPARE_SHARE * stats.requested_bytes as f64;
        if left == 0 {
            self.span = self.span.max(together);
        } else if stats.ended {
            self.spare_bytes -= (stats.records as f64 - together) * mean_bytes;
            let span = DECAY * self.span + (1.0 - DECAY) * together;
            self.span = span.max(together).max(1.0);
        } else {
            // Requests that lie scattered so far probably go on like that.
            let further = if stats.requests < stats.records {
                1.5
            } else {
                1.0
            };
            self.span = self.span.max(further * stats.records as f64);
        }
        self.spare_bytes = self.spare_bytes.clamp(0.0, 2.0 * SPARE_BYTES);
        if stats.requests_together > 1 {
            let spacing = (together - 1.0) / (stats.requests_together as f64 - 1.0);
            self.spacing = (self.spacing + spacing) / 2.0;
        }
        self.requests_until_probe = self.requests_until_probe.saturating_sub(stats.requests);
        if let (None, Some(first)) = (&self.probe, &stats.gap_start) {
            self.probe = Some(first.clone());
            self.requests_until_probe = PROBE_EVERY;
        }
    }
}

impl Alone {
    fn at(furthest: &Sequence) -> Self {
        Self {
            bytes: 0,
            requested: 1.0,
            passed: 1.0,
            furthest: furthest.clone(),
        }
    }

    fn served(&mut self, sequence: &Sequence, cache: &RecordCache) {
        self.requested = DECAY * self.requested + 1.0;
        self.passed *= DECAY;
        // A record that is requested late was counted when it was passed.
        if *sequence > self.furthest {
            self.passed += 1.0 + cache.count_between(&self.furthest, sequence) as f64;
            self.furthest = sequence.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::cache::CacheBudget;
    use super::*;

    /// Bytes read over bytes needed, and records for each call, of a process that requests every record of `its`, ten at
    /// once, on a shard of so many.
    fn read(records: u64, record_bytes: usize, its: impl Fn(u64) -> bool) -> (f64, f64) {
        let mut ahead = ReadAhead::default();
        let mut cache = RecordCache::new(CacheBudget::new(16 << 20));
        let mean = record_bytes as f64;
        let needed: Vec<u64> = (0..records).filter(|number| its(*number)).collect();
        let (mut cursor, mut read, mut calls) = (0, 0, 0);
        for batch in needed.chunks(10) {
            let mut requested: Vec<u64> = batch.to_vec();
            loop {
                requested.retain(|number| {
                    let is_there = cache.take(&(*number).into()).is_some();
                    if is_there {
                        ahead.served(&(*number).into(), &cache);
                    }
                    !is_there
                });
                let Some(target) = requested.first().copied() else {
                    break;
                };
                if !ahead.is_alone() || cursor > target {
                    cursor = target;
                }
                let limit = ahead.limit(requested.len(), mean) as u64;
                let limit = limit.clamp(1, (ANSWER_BYTES / record_bytes) as u64);
                let mut stats = AnswerStats::default();
                for number in cursor..records.min(cursor + limit) {
                    let data = Bytes::from(vec![0; record_bytes]);
                    if requested.contains(&number) {
                        requested.retain(|other| *other != number);
                        stats.requested(record_bytes);
                        ahead.served(&number.into(), &cache);
                    } else {
                        stats.other(&number.into(), record_bytes);
                        cache.keep(number.into(), data);
                    }
                }
                ahead.learn(&stats, limit as usize, requested.len());
                cursor += stats.records as u64;
                (read, calls) = (read + stats.records, calls + 1);
            }
        }
        let needed = needed.len() as f64;
        (read as f64 / needed, needed / f64::from(calls))
    }

    /// A third of all.
    fn scattered(number: u64) -> bool {
        fastrand::Rng::with_seed(number).u8(..) < 85
    }

    #[test]
    fn alone_on_a_shard_a_reader_reads_once_and_whole_answers() {
        for bytes in [1000, 10_000, 100_000, 400_000] {
            let (ratio, by_call) = read(1000, bytes, |_| true);
            assert!(ratio <= 1.01, "{bytes}: {ratio}");
            let most = ANSWER_BYTES / bytes;
            assert!(by_call >= 0.5 * most.min(100) as f64, "{bytes}: {by_call}");
        }
    }

    #[test]
    fn records_shared_out_by_tens_are_read_once_by_each_of_several() {
        for (processes, bytes) in [(2, 10_000), (4, 10_000), (2, 100_000), (4, 400_000)] {
            // Not in step with the answers: the first ten begin somewhere.
            let (ratio, by_call) = read(2000, bytes, |number| (number + 3) / 10 % processes == 1);
            assert!(ratio <= 1.2, "{processes}, {bytes}: {ratio}");
            let most = (ANSWER_BYTES / bytes).min(10);
            assert!(
                by_call >= 0.6 * most as f64,
                "{processes}, {bytes}: {by_call}"
            );
        }
    }

    #[test]
    fn small_records_that_lie_scattered_are_read_several_in_a_call() {
        let (ratio, by_call) = read(2000, 10_000, scattered);
        assert!(ratio <= 3.0, "{ratio}");
        assert!(by_call >= 4.0, "{by_call}");
    }

    #[test]
    fn large_records_that_lie_scattered_are_read_one_by_one() {
        let (ratio, by_call) = read(1000, 400_000, scattered);
        assert!(ratio <= 1.2, "{ratio}");
        assert!(by_call >= 0.9, "{by_call}");
    }
}
