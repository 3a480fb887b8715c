//! How many bytes may be read in vain for requests behind the forward cursor. What lies between two requested records is not
//! known before it is read: large answers save calls where they lie together and cost bytes where they lie apart. So a share
//! of what was requested may be wasted: bytes read there stay within 1.5 of those needed, whatever the pattern.

/// May be wasted before the first success: nothing beside one record of the usual 400 KiB, a few small ones.
const INITIAL: usize = 16 << 10;
/// The most that can be saved up: one answer cannot waste more.
const MAXIMUM: usize = 2 << 20;
/// What may be wasted of what was requested.
const SHARE: f64 = 0.4;
/// And less of it where records are larger than this: a shard gives out no more than five of 400 KB a second, so that it
/// costs no time to seek each.
const LARGE_BYTES: f64 = 100_000.0;

#[derive(Debug)]
pub(super) struct OverreadBudget {
    bytes: f64,
}

impl Default for OverreadBudget {
    fn default() -> Self {
        Self {
            bytes: INITIAL as f64,
        }
    }
}

impl OverreadBudget {
    /// How many records to read at one that is requested for certain, where `requested` may lie.
    pub(super) fn limit_after_seek(&self, requested: usize, record_bytes: f64) -> i32 {
        (1 + self.affordable(record_bytes)).min(requested.max(1)) as i32
    }

    /// How many records to read at the cursor, where the next may not be requested; with none, seek instead.
    pub(super) fn limit_onward(&self, requested: usize, record_bytes: f64) -> i32 {
        self.affordable(record_bytes).min(requested) as i32
    }

    fn affordable(&self, record_bytes: f64) -> usize {
        (self.bytes.max(0.0) / record_bytes.max(1.0)) as usize
    }

    /// Takes one answer into account.
    pub(super) fn account(
        &mut self,
        requested_bytes: usize,
        other_bytes: usize,
        record_bytes: f64,
    ) {
        let share = SHARE * (LARGE_BYTES / record_bytes.max(1.0)).min(1.0);
        self.bytes += share * requested_bytes as f64 - other_bytes as f64;
        self.bytes = self.bytes.min(MAXIMUM as f64);
    }

    /// Whether the forward cursor may move back, where it reads a whole answer ahead; that costs the whole budget.
    pub(super) fn spend_on_move(&mut self) -> bool {
        let enough = self.bytes >= MAXIMUM as f64;
        if enough {
            self.bytes = 0.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads records of one size, of which every `apart`-th is requested, `requested` in all; bytes and answers.
    fn read(apart: usize, requested: usize, record_bytes: usize) -> (usize, usize) {
        let mut budget = OverreadBudget::default();
        let (mut at, mut bytes, mut answers, mut was_idle) = (0, 0, 0, false);
        while at < apart * requested {
            let left = requested - at.div_ceil(apart);
            if left == 0 {
                break;
            }
            let mut count = budget.limit_onward(left, record_bytes as f64) as usize;
            if answers == 0 || was_idle || count == 0 {
                at = at.next_multiple_of(apart);
                count = budget.limit_after_seek(left, record_bytes as f64) as usize;
            }
            let hits = (at..at + count).filter(|place| place % apart == 0).count();
            was_idle = hits == 0;
            budget.account(
                hits * record_bytes,
                (count - hits) * record_bytes,
                record_bytes as f64,
            );
            (at, bytes, answers) = (at + count, bytes + count * record_bytes, answers + 1);
        }
        (bytes, answers)
    }

    #[test]
    fn bytes_read_stay_within_half_more_than_needed_however_far_apart_requests_lie() {
        for record_bytes in [1000, 50_000, 409_600] {
            for apart in 1..20 {
                let requested = 200;
                let (bytes, answers) = read(apart, requested, record_bytes);
                let most = requested * record_bytes * 3 / 2;
                assert!(bytes <= most, "{apart} apart, {record_bytes}: {bytes}");
                assert!(answers <= 2 * requested, "{apart} apart: {answers}");
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
