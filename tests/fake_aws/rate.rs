//! Token buckets: how AWS limits calls, records and bytes.

use super::clock::Millis;

/// Refills at a rate up to a burst. [`TokenBucket::overdraw`] may take it below zero, as a large GetRecords answer does.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    filled_at: Option<Millis>,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(per_second: f64, burst: f64) -> Self {
        Self {
            per_second,
            burst,
            tokens: burst,
            filled_at: None,
        }
    }

    /// Takes `amount` if it holds that much.
    pub fn take(&mut self, amount: f64, now: Millis) -> bool {
        self.refill(now);
        let enough = self.tokens >= amount;
        if enough {
            self.tokens -= amount;
        }
        enough
    }

    /// Whether it holds anything.
    pub fn is_open(&mut self, now: Millis) -> bool {
        self.refill(now);
        self.tokens > 0.0
    }

    /// Takes `amount`, below zero if need be: later calls wait until it is refilled.
    pub fn overdraw(&mut self, amount: f64) {
        self.tokens -= amount;
    }

    fn refill(&mut self, now: Millis) {
        let passed = now.saturating_sub(self.filled_at.unwrap_or(now));
        self.tokens = (self.tokens + self.per_second * passed as f64 / 1000.0).min(self.burst);
        self.filled_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_allows_its_burst_and_then_its_rate() {
        let mut bucket = TokenBucket::new(10.0, 5.0);
        assert!((0..5).all(|_| bucket.take(1.0, 0)));
        assert!(!bucket.take(1.0, 0));
        assert!(bucket.take(1.0, 100));
        assert!(!bucket.take(1.0, 150));
    }

    #[test]
    fn an_overdrawn_bucket_is_closed_until_it_is_refilled() {
        let mut bucket = TokenBucket::new(2.0, 2.0);
        bucket.overdraw(10.0);
        assert!(!bucket.is_open(0));
        assert!(!bucket.is_open(3_900));
        assert!(bucket.is_open(4_100));
    }
}
