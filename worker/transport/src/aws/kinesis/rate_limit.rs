//! How fast a shard may be written to: a token bucket a little below Kinesis's quota. Other writers share that quota, so
//! a throttled record slows the shard down, and time without one speeds it up again.

use tokio::time::{Duration, Instant};

/// Below 1 MB/s, so that neither rounding to whole KiB nor clocks that differ a little lead over it.
const FULL_BYTES_PER_SECOND: f64 = 940_000.0;
/// Below 1,000 records a second.
const FULL_RECORDS_PER_SECOND: f64 = 940.0;
/// What may go out at once after a pause; one record may go beyond it.
const BURST_SECONDS: f64 = 0.2;
/// A throttled shard keeps this share of its rate, and loses it at most once in `CUT_EVERY`.
const CUT: f64 = 0.8;
const CUT_EVERY: Duration = Duration::from_millis(500);
/// Never slower than this share of the full rate: a shard without other writers must recover.
const SLOWEST: f64 = 0.1;
/// Share of the full rate that comes back each second.
const RECOVERY_PER_SECOND: f64 = 0.15;

/// One shard's limit.
#[derive(Debug, Clone)]
pub(super) struct RateLimit {
    share: f64,
    bytes: f64,
    records: f64,
    at: Instant,
    cut_at: Option<Instant>,
}

impl RateLimit {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            share: 1.0,
            bytes: FULL_BYTES_PER_SECOND * BURST_SECONDS,
            records: FULL_RECORDS_PER_SECOND * BURST_SECONDS,
            at: now,
            cut_at: None,
        }
    }

    /// Seconds until this part of a burst is free; below zero if more is. For none of it, until the next record may go: at
    /// once if any token is left. A record takes as many tokens as it has bytes, and the next one waits for them.
    pub(super) fn seconds_until(&mut self, now: Instant, burst: f64) -> f64 {
        self.fill(now);
        let missing = |tokens: f64, full_per_second: f64| {
            let per_second = full_per_second * self.share;
            ((burst * per_second * BURST_SECONDS).max(1.0) - tokens) / per_second
        };
        let bytes_missing = missing(self.bytes, FULL_BYTES_PER_SECOND);
        bytes_missing.max(missing(self.records, FULL_RECORDS_PER_SECOND))
    }

    /// A record of so many bytes is sent.
    pub(super) fn take(&mut self, bytes: usize) {
        // Kinesis counts whole KiB.
        self.bytes -= (bytes.div_ceil(1024) * 1024) as f64;
        self.records -= 1.0;
    }

    /// The shard refused a record for its rate.
    pub(super) fn throttled(&mut self, now: Instant) {
        self.fill(now);
        if self
            .cut_at
            .is_none_or(|at| now.duration_since(at) >= CUT_EVERY)
        {
            self.share = (self.share * CUT).max(SLOWEST);
            self.cut_at = Some(now);
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.share = (self.share + RECOVERY_PER_SECOND * passed).min(1.0);
        let (bytes, records) = (
            FULL_BYTES_PER_SECOND * self.share,
            FULL_RECORDS_PER_SECOND * self.share,
        );
        self.bytes = (self.bytes + bytes * passed).min(bytes * BURST_SECONDS);
        self.records = (self.records + records * passed).min(records * BURST_SECONDS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that pass in ten seconds when a record of `record` bytes always waits.
    fn pass(limit: &mut RateLimit, start: Instant, record: usize) -> f64 {
        let (mut now, mut passed) = (start, 0);
        loop {
            now += Duration::from_secs_f64(limit.seconds_until(now, 0.0).max(0.0));
            if now >= start + Duration::from_secs(10) {
                break;
            }
            limit.take(record);
            passed += record;
        }
        passed as f64
    }

    #[test]
    fn a_shard_is_used_to_nine_tenths_and_never_over_its_quota() {
        for record in [400 * 1024, 1 << 20, 2000] {
            let start = Instant::now();
            let bytes = pass(&mut RateLimit::new(start), start, record);
            // One record and one burst may stand out at the end.
            let most = 10_000_000.0 + record as f64;
            assert!((9_000_000.0..=most).contains(&bytes), "{record}: {bytes}");
        }
    }

    #[test]
    fn small_records_are_limited_by_their_number() {
        let start = Instant::now();
        let records = pass(&mut RateLimit::new(start), start, 10) / 10.0;
        assert!((9_000.0..10_000.0).contains(&records), "{records}");
    }

    #[test]
    fn a_throttled_shard_slows_down_once_and_recovers() {
        let start = Instant::now();
        let mut limit = RateLimit::new(start);
        limit.throttled(start);
        limit.throttled(start);
        assert!((limit.share - CUT).abs() < 1e-9, "{}", limit.share);
        for second in 1..100 {
            limit.throttled(start + Duration::from_secs(second));
        }
        assert!(limit.share >= SLOWEST);
        limit.fill(start + Duration::from_secs(120));
        assert!((limit.share - 1.0).abs() < 1e-9);
    }
}
