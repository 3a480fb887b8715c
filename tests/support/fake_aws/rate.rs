//! Token buckets: how AWS meters calls, records and bytes.

use super::clock::Millis;

/// Fills at a rate up to a burst. May be overdrawn by [`Bucket::overdraw`], as a large GetRecords answer does.
#[derive(Debug, Clone)]
pub struct Bucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    filled_at: Option<Millis>,
}

impl Bucket {
    /// A full bucket.
    pub fn new(per_second: f64, burst: f64) -> Self {
        Self {
            per_second,
            burst,
            tokens: burst,
            filled_at: None,
        }
    }

    /// Takes `amount` when there is that much.
    pub fn take(&mut self, amount: f64, now: Millis) -> bool {
        self.fill(now);
        let enough = self.tokens >= amount;
        if enough {
            self.tokens -= amount;
        }
        enough
    }

    /// Whether anything is left.
    pub fn is_open(&mut self, now: Millis) -> bool {
        self.fill(now);
        self.tokens > 0.0
    }

    /// Takes `amount`, going below zero where need be: what follows has to wait for it.
    pub fn overdraw(&mut self, amount: f64) {
        self.tokens -= amount;
    }

    fn fill(&mut self, now: Millis) {
        let passed = now.saturating_sub(self.filled_at.unwrap_or(now));
        self.tokens = (self.tokens + self.per_second * passed as f64 / 1000.0).min(self.burst);
        self.filled_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_then_its_rate() {
        let mut bucket = Bucket::new(10.0, 5.0);
        assert!((0..5).all(|_| bucket.take(1.0, 0)));
        assert!(!bucket.take(1.0, 0));
        assert!(bucket.take(1.0, 100));
        assert!(!bucket.take(1.0, 150));
    }

    #[test]
    fn what_is_overdrawn_has_to_be_waited_for() {
        let mut bucket = Bucket::new(2.0, 2.0);
        bucket.overdraw(10.0);
        assert!(!bucket.is_open(0));
        assert!(!bucket.is_open(3_900));
        assert!(bucket.is_open(4_100));
    }
}
