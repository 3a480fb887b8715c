//! The durations of leader election and of slots, which are client-go's. Others wait a whole lease duration after the
//! last renewal that they saw; a holder stops before that, by the renew deadline.

use std::time::Duration;

/// The durations that a Lease is held by.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// How long others wait after the last renewal that they saw. Whole seconds, as a Lease has it.
    pub lease: Duration,
    /// How long a holder may act after its last renewal.
    pub deadline: Duration,
    /// Time between two renewals.
    pub period: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            deadline: Duration::from_secs(10),
            period: Duration::from_secs(2),
        }
    }
}

impl Times {
    /// The timeout of one request: two of them fit between a renewal and the deadline.
    pub fn request(&self) -> Duration {
        self.deadline.saturating_sub(self.period) / 2
    }

    /// The lease duration in seconds, as a Lease has it.
    pub fn lease_seconds(&self) -> i32 {
        i32::try_from(self.lease.as_secs())
            .unwrap_or(i32::MAX)
            .max(1)
    }
}
