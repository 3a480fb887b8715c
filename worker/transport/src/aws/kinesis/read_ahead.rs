//! How far to read. Alone on a shard a walk reads ahead of what is asked for, as far as an answer goes: all that lies there
//! will be asked for. Where several processes share the work, most of it is for the others, and a shard gives out 2 MB and
//! 5 answers a second to all of them together. Then an answer reaches from the first record that is wanted to the last, over
//! what is others' in between where that costs less than another call, and no further.
//!
//! Whether others are there is tried: now and then one record more is read than is wanted. One that is alone will ask for it.

use super::cache::Cache;
use super::reader::ANSWER_BYTES;
use crate::Sequence;

/// A walk is alone while this share of what it comes past is asked for.
const ALONE: f64 = 0.75;
/// And once so many records that were read beyond what was wanted were asked for, one after the other.
const WON: u32 = 2;
/// What was not asked for before so many others were is somebody else's; and after so many more another is tried.
const TRY_EVERY: usize = 32;
/// What may be read in vain to save a call: an eighth of what a shard gives out in the time of one call of five a second.
const WORTH_A_CALL_BYTES: f64 = 50_000.0;
/// May be read in vain beyond what is known to lie together: at first, and of what was wanted since.
const SPARE_BYTES: f64 = 50_000.0;
const SPARE_SHARE: f64 = 0.1;
/// How much of what was seen before counts beside the next.
const MEMORY: f64 = 0.9;

#[derive(Debug)]
pub(super) struct Ahead {
    /// Nobody else reads the shard, as it seems.
    alone: Option<Alone>,
    /// How many records lie together, and how many of them there are for each that is wanted.
    reach: f64,
    apart: f64,
    spare_bytes: f64,
    /// Was read beyond what was wanted, and not asked for so far.
    tried: Option<Sequence>,
    won: u32,
    wanted_until_try: usize,
}

#[derive(Debug)]
struct Alone {
    /// How far to read behind the last record that is wanted for certain.
    bytes: usize,
    /// Records asked for, and all in between that were read too; what is longer ago counts less.
    asked: f64,
    passed: f64,
    /// The furthest record asked for.
    furthest: Sequence,
}

impl Default for Ahead {
    fn default() -> Self {
        Self {
            alone: None,
            reach: 1.0,
            apart: 1.0,
            spare_bytes: SPARE_BYTES,
            tried: None,
            won: 0,
            wanted_until_try: 0,
        }
    }
}

/// What an answer held.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) records: usize,
    pub(super) wanted_bytes: usize,
    pub(super) other_bytes: usize,
    wanted: usize,
    /// Those that lie together: records and wanted ones up to the first piece of others' that is worth a call.
    together: usize,
    wanted_together: usize,
    /// There was such a piece.
    ended: bool,
    /// Others' since the last that was wanted; the first of them.
    others_bytes: usize,
    behind: Option<Sequence>,
}

impl Seen {
    /// The next is one that was wanted.
    pub(super) fn hit(&mut self, bytes: usize) {
        self.records += 1;
        self.wanted += 1;
        self.wanted_bytes += bytes;
        (self.others_bytes, self.behind) = (0, None);
        if !self.ended {
            (self.together, self.wanted_together) = (self.records, self.wanted);
        }
    }

    /// The next is nobody's so far.
    pub(super) fn miss(&mut self, sequence: &Sequence, bytes: usize) {
        self.records += 1;
        self.other_bytes += bytes;
        self.others_bytes += bytes;
        self.behind.get_or_insert_with(|| sequence.clone());
        self.ended |= self.others_bytes as f64 > WORTH_A_CALL_BYTES;
    }

    /// Nothing of it was wanted.
    pub(super) fn is_idle(&self) -> bool {
        self.records > 0 && self.wanted == 0
    }
}

impl Ahead {
    /// Whether to read ahead of what is wanted.
    pub(super) fn is_alone(&self) -> bool {
        self.alone.is_some()
    }

    /// A record was handed out. `cache` has what was come past and not asked for so far.
    pub(super) fn served(&mut self, sequence: &Sequence, cache: &Cache) {
        if let Some(alone) = &mut self.alone {
            alone.served(sequence, cache);
            if alone.asked < ALONE * alone.passed {
                self.alone = None;
                self.lost();
            }
        } else if self.tried.as_ref() == Some(sequence) {
            self.tried = None;
            self.won += 1;
            self.wanted_until_try = 0;
            if self.won == WON {
                self.alone = Some(Alone::at(sequence));
            }
        }
    }

    /// There was no room to keep what was passed.
    pub(super) fn could_not_keep(&mut self) {
        if let Some(alone) = &mut self.alone {
            alone.passed += 1.0;
        }
    }

    /// The walk begins anew further back.
    pub(super) fn moved_back(&mut self, to: &Sequence) {
        if self.alone.is_some() {
            self.alone = Some(Alone::at(to));
        }
    }

    fn lost(&mut self) {
        self.tried = None;
        self.won = 0;
        self.wanted_until_try = TRY_EVERY;
    }

    /// How many records to ask for when so many are wanted, from the first of them on.
    pub(super) fn limit(&mut self, wanted: usize, record_bytes: f64) -> i32 {
        let record_bytes = record_bytes.max(1.0);
        if let Some(alone) = &self.alone {
            let further = alone.bytes as f64 / record_bytes;
            return (wanted as f64 + further).clamp(1.0, 10_000.0) as i32;
        }
        if self.tried.is_some() && self.wanted_until_try == 0 {
            self.lost();
        }
        let all = 1.0 + wanted.saturating_sub(1) as f64 * self.apart;
        let reach = self.reach + (self.spare_bytes / record_bytes).floor();
        let limit = all.min(reach).round().clamp(1.0, 10_000.0) as i32;
        limit + i32::from(self.tries())
    }

    fn tries(&self) -> bool {
        self.tried.is_none() && self.wanted_until_try == 0
    }

    /// Reckons up an answer to `limit` records, when so many are wanted still.
    pub(super) fn learn(&mut self, seen: &Seen, limit: usize, left: usize) {
        if let Some(alone) = &mut self.alone {
            if seen.records >= limit {
                let answer_bytes = seen.wanted_bytes + seen.other_bytes;
                alone.bytes = (alone.bytes + answer_bytes).min(ANSWER_BYTES);
            }
            return;
        }
        let mean_bytes = (seen.wanted_bytes + seen.other_bytes) as f64 / seen.records.max(1) as f64;
        let together = seen.together as f64;
        self.spare_bytes += SPARE_SHARE * seen.wanted_bytes as f64;
        if left == 0 {
            self.reach = self.reach.max(together);
        } else if seen.ended {
            self.spare_bytes -= (seen.records as f64 - together) * mean_bytes;
            let reach = MEMORY * self.reach + (1.0 - MEMORY) * together;
            self.reach = reach.max(together).max(1.0);
        } else {
            // What is scattered so far goes on so, as it seems.
            let further = if seen.wanted < seen.records { 1.5 } else { 1.0 };
            self.reach = self.reach.max(further * seen.records as f64);
        }
        self.spare_bytes = self.spare_bytes.clamp(0.0, 2.0 * SPARE_BYTES);
        if seen.wanted_together > 1 {
            let apart = (together - 1.0) / (seen.wanted_together as f64 - 1.0);
            self.apart = (self.apart + apart) / 2.0;
        }
        self.wanted_until_try = self.wanted_until_try.saturating_sub(seen.wanted);
        if let (None, Some(behind)) = (&self.tried, &seen.behind) {
            self.tried = Some(behind.clone());
            self.wanted_until_try = TRY_EVERY;
        }
    }
}

impl Alone {
    fn at(furthest: &Sequence) -> Self {
        Self {
            bytes: 0,
            asked: 1.0,
            passed: 1.0,
            furthest: furthest.clone(),
        }
    }

    fn served(&mut self, sequence: &Sequence, cache: &Cache) {
        self.asked = MEMORY * self.asked + 1.0;
        self.passed *= MEMORY;
        // What is asked for late was counted when it was passed.
        if *sequence > self.furthest {
            self.passed += 1.0 + cache.count_between(&self.furthest, sequence) as f64;
            self.furthest = sequence.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::cache::Budget;
    use super::*;

    /// Bytes read over bytes needed, and records for each call, of a process that asks for every record of `its`, ten at
    /// once, on a shard of so many.
    fn read(records: u64, record_bytes: usize, its: impl Fn(u64) -> bool) -> (f64, f64) {
        let mut ahead = Ahead::default();
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
                        ahead.served(&(*number).into(), &cache);
                    }
                    !is_there
                });
                let Some(target) = wanted.first().copied() else {
                    break;
                };
                if !ahead.is_alone() || walk > target {
                    walk = target;
                }
                let limit = ahead.limit(wanted.len(), mean) as u64;
                let limit = limit.clamp(1, (ANSWER_BYTES / record_bytes) as u64);
                let mut seen = Seen::default();
                for number in walk..records.min(walk + limit) {
                    let data = Bytes::from(vec![0; record_bytes]);
                    if wanted.contains(&number) {
                        wanted.retain(|other| *other != number);
                        seen.hit(record_bytes);
                        ahead.served(&number.into(), &cache);
                    } else {
                        seen.miss(&number.into(), record_bytes);
                        cache.keep(number.into(), data);
                    }
                }
                ahead.learn(&seen, limit as usize, wanted.len());
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
