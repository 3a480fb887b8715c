//! How many bytes a walk through what was asked for late may read in vain. What lies between two wanted records is not known
//! before it is read: large answers save calls where they lie together and cost bytes where they lie apart. So a share of
//! what was wanted may be wasted: bytes that are read late stay within 1.5 of those needed, whatever the pattern.

/// May be wasted before anything went well: nothing beside one record of the usual 400 KiB, a few small ones.
const TO_BEGIN: usize = 16 << 10;
/// More than one answer cannot waste.
const MOST: usize = 2 << 20;
/// What may be wasted of what was wanted.
const SHARE: f64 = 0.4;
/// And less of it where records are larger than this: a shard gives out no more than five of 400 KB a second, so that it
/// costs no time to seek each.
const LARGE_BYTES: f64 = 100_000.0;

#[derive(Debug)]
pub(super) struct Credit {
    bytes: f64,
}

impl Default for Credit {
    fn default() -> Self {
        Self {
            bytes: TO_BEGIN as f64,
        }
    }
}

impl Credit {
    /// How many records to ask for at one that is wanted for certain, where `wanted` may lie.
    pub(super) fn after_a_seek(&self, wanted: usize, record_bytes: f64) -> i32 {
        (1 + self.affordable(record_bytes)).min(wanted.max(1)) as i32
    }

    /// How many to ask for where the walk is, and what comes next may be nobody's; none: seek instead.
    pub(super) fn going_on(&self, wanted: usize, record_bytes: f64) -> i32 {
        self.affordable(record_bytes).min(wanted) as i32
    }

    fn affordable(&self, record_bytes: f64) -> usize {
        (self.bytes.max(0.0) / record_bytes.max(1.0)) as usize
    }

    /// Reckons up an answer.
    pub(super) fn settle(&mut self, wanted_bytes: usize, other_bytes: usize, record_bytes: f64) {
        let share = SHARE * (LARGE_BYTES / record_bytes.max(1.0)).min(1.0);
        self.bytes += share * wanted_bytes as f64 - other_bytes as f64;
        self.bytes = self.bytes.min(MOST as f64);
    }

    /// Whether the walk itself may move here, where it reads a whole answer ahead.
    pub(super) fn spend_for_a_move(&mut self) -> bool {
        let enough = self.bytes >= MOST as f64;
        if enough {
            self.bytes = 0.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads records of one size, of which every `apart`-th is wanted and there are `wanted`; bytes and answers.
    fn read(apart: usize, wanted: usize, record_bytes: usize) -> (usize, usize) {
        let mut credit = Credit::default();
        let (mut at, mut bytes, mut answers, mut was_idle) = (0, 0, 0, false);
        while at < apart * wanted {
            let left = wanted - at.div_ceil(apart);
            if left == 0 {
                break;
            }
            let mut count = credit.going_on(left, record_bytes as f64) as usize;
            if answers == 0 || was_idle || count == 0 {
                at = at.next_multiple_of(apart);
                count = credit.after_a_seek(left, record_bytes as f64) as usize;
            }
            let hits = (at..at + count).filter(|place| place % apart == 0).count();
            was_idle = hits == 0;
            credit.settle(
                hits * record_bytes,
                (count - hits) * record_bytes,
                record_bytes as f64,
            );
            (at, bytes, answers) = (at + count, bytes + count * record_bytes, answers + 1);
        }
        (bytes, answers)
    }

    #[test]
    fn bytes_read_stay_within_half_more_than_needed_however_far_apart_the_wanted_lie() {
        for record_bytes in [1000, 50_000, 409_600] {
            for apart in 1..20 {
                let wanted = 200;
                let (bytes, answers) = read(apart, wanted, record_bytes);
                let most = wanted * record_bytes * 3 / 2;
                assert!(bytes <= most, "{apart} apart, {record_bytes}: {bytes}");
                assert!(answers <= 2 * wanted, "{apart} apart: {answers}");
            }
        }
    }

    #[test]
    fn what_lies_together_is_read_in_few_answers() {
        let (bytes, answers) = read(1, 200, 50_000);
        assert_eq!(bytes, 200 * 50_000);
        assert!(answers <= 20, "{answers}");
    }
}
