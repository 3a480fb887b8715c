//! How long to wait before the next attempt: the one back-off of all of Streampress.

use std::time::Duration;

/// Delays that double from the first to the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// Delays from `first`, after one failure, up to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The delay after so many failures in a row; the first delay after none or one.
    pub fn delay(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }

    /// Full jitter: anything from nothing up to [`Backoff::delay`]. Spreads callers that failed at the same moment.
    #[cfg(any(feature = "aws", test))]
    pub(crate) fn full_jitter(&self, failures: u32) -> Duration {
        self.delay(failures).mul_f64(fastrand::f64())
    }

    /// Equal jitter: between half of [`Backoff::delay`] and all of it. Never comes at once.
    pub fn equal_jitter(&self, failures: u32) -> Duration {
        self.delay(failures).mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

    #[test]
    fn delays_double_up_to_the_longest() {
        for (failures, seconds) in [(0, 1), (1, 1), (2, 2), (5, 16), (7, 60), (u32::MAX, 60)] {
            assert_eq!(BACKOFF.delay(failures), Duration::from_secs(seconds));
        }
    }

    #[test]
    fn jitter_spreads_delays_over_the_whole_range_and_never_beyond() {
        for failures in [1, 2, 7, u32::MAX] {
            let longest = BACKOFF.delay(failures);
            let full: Vec<_> = (0..200).map(|_| BACKOFF.full_jitter(failures)).collect();
            assert!(full.iter().all(|delay| *delay <= longest));
            assert!(full.iter().any(|delay| *delay < longest / 4));
            assert!(full.iter().any(|delay| *delay > longest / 2));
            let equal: Vec<_> = (0..200).map(|_| BACKOFF.equal_jitter(failures)).collect();
            assert!(
                equal
                    .iter()
                    .all(|delay| (longest / 2..=longest).contains(delay))
            );
            assert!(equal.iter().any(|delay| *delay < longest * 3 / 4));
        }
    }
}
