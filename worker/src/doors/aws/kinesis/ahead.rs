//! How far to read. Alone on a shard a walk reads ahead of what is asked for, as far as an answer goes: all that lies there
//! will be asked for. Where several processes share the work, most of it is for the others, and a shard gives out 2 MB and
//! 5 answers a second to all of them together. Then an answer reaches from the first record that is wanted to the last, and
//! no further. Only while calls are short and bring little each, since records are tiny or lie scattered, all is read over
//! up to the tip of the shard.
//!
//! Whether others are there is tried: now and then one record more is read than is wanted. One that is alone will ask for it.

use super::cache::Cache;
use super::credit::Credit;
use super::reader::ANSWER_BYTES;
use crate::doors::Sequence;

/// A walk is alone while this share of what it comes past is asked for.
const ALONE: f64 = 0.75;
/// And once so many records that were read beyond what was wanted were asked for, one after the other.
const WON: u32 = 3;
/// Where others are, another is tried after so many that were wanted.
const TRY_EVERY: usize = 16;
/// What may be read in vain to save a call: an eighth of what a shard gives out in the time of one call of five a second.
/// A call that brings less than this is a poor one.
const WORTH_A_CALL_BYTES: f64 = 50_000.0;
/// Reading over stops to pay when each record costs so much in vain: half of what a shard gives out in the time of a call.
const COSTS_A_CALL_BYTES: f64 = 200_000.0;
/// So many calls are judged together, about.
const CALLS: f64 = 4.0;
/// How much of what was seen before counts beside the next.
const MEMORY: f64 = 0.9;

#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Reads ahead.
    over: Option<Over>,
    /// Records to read for each that is wanted, from the first wanted to the last; unknown at first.
    apart: Option<f64>,
    /// Calls, those of them that had to wait for their turn, and the wanted bytes that they brought; what is longer ago counts
    /// less.
    calls: f64,
    waited: f64,
    brought_bytes: f64,
    /// Was read beyond what was wanted, and not asked for so far.
    tried: Option<Sequence>,
    won: u32,
    wanted_until_try: usize,
}

/// A walk over all there is.
#[derive(Debug)]
struct Over {
    /// As it is alone; else since calls are short.
    alone: bool,
    /// How far to read behind the last record that is wanted for certain.
    bytes: usize,
    /// Records asked for, and all in between that were read too; what is longer ago counts less.
    asked: f64,
    passed: f64,
    /// The furthest record asked for.
    furthest: Option<Sequence>,
}

/// What an answer held.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) records: usize,
    pub(super) wanted: usize,
    /// Up to the last that was wanted, with it.
    pub(super) until_last_wanted: usize,
    /// The one behind that.
    pub(super) behind: Option<Sequence>,
    pub(super) wanted_bytes: usize,
    pub(super) other_bytes: usize,
}

impl Seen {
    /// The next is one that was wanted.
    pub(super) fn hit(&mut self, bytes: usize) {
        self.records += 1;
        self.wanted += 1;
        self.until_last_wanted = self.records;
        self.behind = None;
        self.wanted_bytes += bytes;
    }

    /// The next is nobody's so far.
    pub(super) fn miss(&mut self, sequence: &Sequence, bytes: usize) {
        self.records += 1;
        self.behind.get_or_insert_with(|| sequence.clone());
        self.other_bytes += bytes;
    }
}

impl Ahead {
    /// Whether to read ahead of what is wanted.
    pub(super) fn reads_over(&self) -> bool {
        self.over.is_some()
    }

    /// A record was handed out. `cache` has what was come past and not asked for so far.
    pub(super) fn served(&mut self, sequence: &Sequence, cache: &Cache, record_bytes: f64) {
        if let Some(over) = &mut self.over {
            over.served(sequence, cache);
            if !over.pays(record_bytes) {
                self.stop_reading_over();
            }
        } else if self.tried.as_ref() == Some(sequence) {
            self.tried = None;
            self.won += 1;
            self.wanted_until_try = 0;
            if self.won == WON {
                self.over = Some(Over::new(true, Some(sequence.clone())));
            }
        }
    }

    fn stop_reading_over(&mut self) {
        self.over = None;
        (self.calls, self.waited, self.brought_bytes) = (0.0, 0.0, 0.0);
        self.lost();
    }

    fn lost(&mut self) {
        self.tried = None;
        self.won = 0;
        self.wanted_until_try = TRY_EVERY;
    }

    /// How many records to ask for at `target` when so many are wanted, it and others behind it.
    pub(super) fn limit(
        &mut self,
        target: &Sequence,
        wanted: usize,
        record_bytes: f64,
        credit: &Credit,
    ) -> i32 {
        if let Some(over) = &self.over {
            let further = over.bytes as f64 / record_bytes.max(1.0);
            return (wanted as f64 + further).clamp(1.0, 10_000.0) as i32;
        }
        if self.tried.as_ref().is_some_and(|tried| tried < target) {
            self.lost();
        }
        let behind = wanted.saturating_sub(1);
        let (apart, in_vain) = match self.apart {
            Some(apart) => (apart, apart - 1.0),
            // Together, if all goes well.
            None => (1.0, behind as f64),
        };
        let behind = match in_vain * record_bytes <= WORTH_A_CALL_BYTES {
            true => (behind as f64 * apart).ceil() as i32,
            false => credit.going_on(behind, record_bytes),
        };
        1 + behind + i32::from(self.wanted_until_try == 0)
    }

    /// Reckons up an answer to `limit` records, when so many had been wanted, and whether it had to wait for its turn.
    pub(super) fn learn(&mut self, seen: &Seen, wanted: usize, limit: usize, waited: bool) {
        let is_full = seen.records >= limit;
        if let Some(over) = &mut self.over {
            if is_full {
                let answer_bytes = seen.wanted_bytes + seen.other_bytes;
                over.bytes = (over.bytes + answer_bytes).min(ANSWER_BYTES);
            } else if !over.alone {
                // The tip: there are calls enough again.
                self.stop_reading_over();
            }
            return;
        }
        self.wanted_until_try = self.wanted_until_try.saturating_sub(seen.wanted);
        if self.tried.is_none() {
            self.tried = seen.behind.clone();
        }
        self.calls = MEMORY * self.calls + 1.0;
        self.waited = MEMORY * self.waited + if waited { 1.0 } else { 0.0 };
        self.brought_bytes = MEMORY * self.brought_bytes + seen.wanted_bytes as f64;
        let bring_little = self.brought_bytes <= self.calls * WORTH_A_CALL_BYTES;
        if self.calls >= CALLS && 2.0 * self.waited >= self.calls && bring_little {
            self.over = Some(Over::new(false, None));
        }
        if seen.records > 1 && wanted > 1 {
            let passed = match seen.wanted >= wanted {
                true => seen.until_last_wanted,
                false => seen.records,
            };
            let apart = passed as f64 / seen.wanted.max(1) as f64;
            self.apart = Some(self.apart.map_or(apart, |before| (before + apart) / 2.0));
        }
    }
}

impl Over {
    fn new(alone: bool, furthest: Option<Sequence>) -> Self {
        Self {
            alone,
            bytes: if alone { 0 } else { ANSWER_BYTES },
            asked: 1.0,
            passed: 1.0,
            furthest,
        }
    }

    fn served(&mut self, sequence: &Sequence, cache: &Cache) {
        self.asked = MEMORY * self.asked + 1.0;
        self.passed *= MEMORY;
        let Some(before) = &self.furthest else {
            self.passed += 1.0;
            self.furthest = Some(sequence.clone());
            return;
        };
        // What is asked for late was counted when it was passed.
        if sequence > before {
            self.passed += 1.0 + cache.count_between(before, sequence) as f64;
            self.furthest = Some(sequence.clone());
        }
    }

    fn pays(&self, record_bytes: f64) -> bool {
        match self.alone {
            true => self.asked >= ALONE * self.passed,
            false => (self.passed / self.asked - 1.0) * record_bytes <= COSTS_A_CALL_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::cache::Budget;
    use super::*;

    /// Bytes read over bytes needed, and records for each call, of a process that asks for every record of `its`, ten at
    /// once, on a shard of so many. Calls are as short as can be.
    fn read(records: u64, record_bytes: usize, its: impl Fn(u64) -> bool) -> (f64, f64) {
        let (mut ahead, mut credit) = (Ahead::default(), Credit::default());
        let mut cache = Cache::new(Budget::new(16 << 20));
        let mean = record_bytes as f64;
        let needed: Vec<u64> = (0..records).filter(|number| its(*number)).collect();
        let (mut walk, mut read, mut calls) = (0, 0, 0);
        for batch in needed.chunks(10) {
            let mut wanted: Vec<u64> = batch.to_vec();
            loop {
                wanted.retain(|number| {
                    let is_there = cache.take(&(*number).into()).is_some();
                    if is_there {
                        ahead.served(&(*number).into(), &cache, mean);
                    }
                    !is_there
                });
                let Some(target) = wanted.first().copied() else {
                    break;
                };
                if !ahead.reads_over() || walk > target {
                    walk = target;
                }
                let asked = wanted.len();
                let limit = ahead.limit(&target.into(), asked, mean, &credit) as u64;
                let limit = limit.clamp(1, (ANSWER_BYTES / record_bytes) as u64);
                let mut seen = Seen::default();
                for number in walk..records.min(walk + limit) {
                    let data = Bytes::from(vec![0; record_bytes]);
                    if wanted.contains(&number) {
                        wanted.retain(|other| *other != number);
                        seen.hit(record_bytes);
                        ahead.served(&number.into(), &cache, mean);
                    } else {
                        seen.miss(&number.into(), record_bytes);
                        cache.keep(number.into(), data);
                    }
                }
                ahead.learn(&seen, asked, limit as usize, true);
                credit.settle(seen.wanted_bytes, seen.other_bytes, mean);
                (walk, read, calls) = (walk + seen.records as u64, read + seen.records, calls + 1);
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
    fn alone_on_a_shard_a_walk_reads_once_and_whole_answers() {
        for bytes in [1000, 10_000, 100_000, 400_000] {
            let (ratio, by_call) = read(1000, bytes, |_| true);
            assert!(ratio <= 1.01, "{bytes}: {ratio}");
            let most = ANSWER_BYTES / bytes;
            assert!(by_call >= 0.5 * most.min(100) as f64, "{bytes}: {by_call}");
        }
    }

    #[test]
    fn what_is_dealt_by_the_ten_is_read_once_by_each_of_several() {
        for (processes, bytes) in [(2, 10_000), (4, 10_000), (2, 100_000), (4, 400_000)] {
            // Not in step with the answers: the first ten begin somewhere.
            let (ratio, by_call) = read(2000, bytes, |number| (number + 3) / 10 % processes == 1);
            assert!(ratio <= 1.2, "{processes}, {bytes}: {ratio}");
            let most = (ANSWER_BYTES / bytes).min(10);
            assert!(
                by_call >= 0.7 * most as f64,
                "{processes}, {bytes}: {by_call}"
            );
        }
    }

    #[test]
    fn small_records_that_lie_scattered_are_read_over_in_few_calls() {
        for bytes in [1000, 10_000] {
            let (ratio, by_call) = read(2000, bytes, scattered);
            assert!(ratio <= 3.5, "{bytes}: {ratio}");
            assert!(by_call >= 12.0, "{bytes}: {by_call}");
        }
    }

    #[test]
    fn large_records_that_lie_scattered_are_read_one_by_one() {
        let (ratio, by_call) = read(1000, 400_000, scattered);
        assert!(ratio <= 1.2, "{ratio}");
        assert!(by_call >= 0.9, "{by_call}");
    }

    #[test]
    fn tiny_records_are_read_over_whoever_else_is_there() {
        let (ratio, by_call) = read(4000, 1000, |number| number / 10 % 4 == 1);
        assert!(ratio <= 4.2, "{ratio}");
        assert!(by_call >= 50.0, "{by_call}");
    }
}
