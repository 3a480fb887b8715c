//! A slot's ledger: what its holders count in an annotation of their Lease, and the operator sums up.

use serde::{Deserialize, Serialize};

/// The annotation.
pub const LEDGER: &str = "streampress.dev/ledger";

/// A slot's cumulative counters. They outlive holders: whoever takes the slot goes on counting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ledger {
    /// Files done by this role.
    pub files: u64,
    /// Bytes that came in.
    pub bytes_in: u64,
    /// Bytes that went out.
    pub bytes_out: u64,
    /// Files that went to the dead-letter queue.
    pub failures: u64,
    /// The generator's next file number.
    pub index: u64,
}

impl Ledger {
    /// The sum over slots; `index` is the highest.
    pub fn plus(self, other: Self) -> Self {
        Self {
            files: self.files.saturating_add(other.files),
            bytes_in: self.bytes_in.saturating_add(other.bytes_in),
            bytes_out: self.bytes_out.saturating_add(other.bytes_out),
            failures: self.failures.saturating_add(other.failures),
            index: self.index.max(other.index),
        }
    }
}
