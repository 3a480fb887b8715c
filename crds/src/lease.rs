//! Times of holding a Lease, the same for the operator's lead and the workers' slots. Client-go's: others wait a whole
//! lease from the last sign of life, a holder stops before that by its deadline.

use std::time::Duration;

/// Times of a Lease.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// How long others wait from the last sign of life they saw. Whole seconds, as a Lease has it.
    pub lease: Duration,
    /// How long a holder believes itself after its last renewal.
    pub deadline: Duration,
    /// Between two renewals.
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
    /// What one request may take: less than what is left between a renewal and the deadline.
    pub fn request(&self) -> Duration {
        self.deadline.saturating_sub(self.period) / 2
    }

    /// The lease as the record has it.
    pub fn lease_seconds(&self) -> i32 {
        i32::try_from(self.lease.as_secs())
            .unwrap_or(i32::MAX)
            .max(1)
    }
}
