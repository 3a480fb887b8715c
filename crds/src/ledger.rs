//! A slot's ledger: the counters that its holders keep in an annotation of the Lease, and that the operator adds up.

use serde::{Deserialize, Serialize};

/// The annotation of a slot's Lease that holds its [`Ledger`] as JSON.
pub const LEDGER: &str = "streampress.dev/ledger";

/// A slot's cumulative counters. They outlive a holder: the next one continues them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ledger {
    /// Files that this role finished.
    pub files: u64,
    /// Bytes of input.
    pub bytes_in: u64,
    /// Bytes of output.
    pub bytes_out: u64,
    /// Files that went to the dead-letter queue.
    pub failures: u64,
    /// Versions of files that were not restored because a newer version had been.
    pub superseded: u64,
    /// Packed files whose records could not be used, so that they are packed and sent again.
    pub sent_again: u64,
    /// The number of the generator's next file.
    pub index: u64,
}

impl Ledger {
    /// The sum of two slots' counters; `index` is the higher one.
    pub fn plus(self, other: Self) -> Self {
        Self {
            files: self.files.saturating_add(other.files),
            bytes_in: self.bytes_in.saturating_add(other.bytes_in),
            bytes_out: self.bytes_out.saturating_add(other.bytes_out),
            failures: self.failures.saturating_add(other.failures),
            superseded: self.superseded.saturating_add(other.superseded),
            sent_again: self.sent_again.saturating_add(other.sent_again),
            index: self.index.max(other.index),
        }
    }
}
