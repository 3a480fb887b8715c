//! Whether a walk should read ahead of what is asked for, and how far. Alone on a shard it should, as far as an answer
//! goes: all that lies ahead will be asked for. Where several processes share the work, most of it is for the others, and a
//! shard gives out 2 MB and 5 answers a second to all of them together. Small records are then still read over, since a
//! call is dearer than what is read in vain; large ones are read each by itself.

use super::cache::Cache;
use super::reader::ANSWER_BYTES;
use crate::doors::Sequence;

/// A walk is alone when this share of what it comes past is asked for.
const ALONE: f64 = 0.75;
/// Half of what a shard gives out in the time that one call of five a second stands for: what is read in vain to save a
/// call should be less.
const WORTH_A_CALL_BYTES: f64 = 200_000.0;
/// How far an answer reaches ahead at first.
const TO_BEGIN: usize = 256 << 10;
/// How much of what was seen before counts beside the next.
const MEMORY: f64 = 0.9;

#[derive(Debug)]
pub(super) struct Ahead {
    /// How far behind the last record that is wanted for certain.
    bytes: usize,
    /// Records asked for, and all in between that were read too; what is longer ago counts less.
    asked: f64,
    passed: f64,
    /// The furthest record asked for.
    furthest: Option<Sequence>,
    /// What was last said: only who reads ahead sees what lies between.
    paid: bool,
}

impl Default for Ahead {
    fn default() -> Self {
        Self {
            bytes: TO_BEGIN,
            asked: 1.0,
            passed: 1.0,
            furthest: None,
            paid: true,
        }
    }
}

impl Ahead {
    /// A record was handed out. `cache` has what was come past and not asked for so far.
    pub(super) fn served(&mut self, sequence: &Sequence, cache: &Cache) {
        if !self.paid {
            return;
        }
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

    /// Whether to read ahead at all.
    pub(super) fn pays(&mut self, record_bytes: f64) -> bool {
        let share = self.asked / self.passed.max(1.0);
        let is_alone = share >= ALONE;
        self.paid = is_alone || share >= record_bytes / WORTH_A_CALL_BYTES;
        if !is_alone {
            // It is known then: nothing has to be tried little by little.
            self.bytes = if self.paid { ANSWER_BYTES } else { 0 };
        }
        self.paid
    }

    /// How many records to ask for when so many are wanted.
    pub(super) fn limit(&self, wanted: usize, record_bytes: f64) -> i32 {
        let further = self.bytes as f64 / record_bytes.max(1.0);
        (wanted as f64 + further).clamp(1.0, 10_000.0) as i32
    }

    /// An answer had all that it was asked for, and there is more behind it.
    pub(super) fn widen(&mut self, answer_bytes: usize) {
        self.bytes = (self.bytes + answer_bytes).min(ANSWER_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::cache::Budget;
    use super::*;

    /// After a walk past 200 records of which every `apart`-th was asked for.
    fn walked(apart: u64) -> Ahead {
        let mut cache = Cache::new(Budget::new(1 << 20));
        let mut ahead = Ahead::default();
        for number in 0..200u64 {
            if number % apart == 0 {
                ahead.served(&number.into(), &cache);
            } else {
                cache.keep(number.into(), Bytes::from_static(b"record"));
            }
        }
        ahead
    }

    #[test]
    fn alone_on_a_shard_a_walk_reads_ahead_of_records_of_any_size() {
        for bytes in [100.0, 400_000.0, 10e6] {
            assert!(walked(1).pays(bytes), "{bytes}");
        }
    }

    #[test]
    fn among_others_only_small_records_are_read_over() {
        assert!(walked(4).pays(10_000.0));
        assert!(!walked(40).pays(10_000.0));
        assert!(!walked(2).pays(400_000.0));
    }

    #[test]
    fn what_was_passed_and_is_asked_for_later_was_not_in_vain() {
        let mut cache = Cache::new(Budget::new(1 << 20));
        let mut ahead = Ahead::default();
        for number in 0..100u64 {
            cache.keep(number.into(), Bytes::from_static(b"record"));
        }
        // Two files in turn: the second is asked for some records after the first.
        for number in 0..100u64 {
            let asked = if number % 2 == 0 {
                number
            } else {
                number.saturating_sub(5) | 1
            };
            cache.take(&asked.into());
            ahead.served(&asked.into(), &cache);
        }
        assert!(ahead.pays(400_000.0), "{ahead:?}");
    }

    #[test]
    fn an_answer_grows_from_what_is_wanted_to_all_it_may_hold() {
        let mut ahead = Ahead::default();
        assert_eq!(ahead.limit(3, 400_000.0), 3);
        let mut answers = 0;
        while ahead.bytes < ANSWER_BYTES {
            let limit = ahead.limit(3, 1000.0);
            ahead.widen(limit as usize * 1000);
            answers += 1;
        }
        assert!(answers < 12, "{answers}");
        assert_eq!(ahead.limit(3, 1000.0), 3 + (ANSWER_BYTES / 1000) as i32);
    }
}
