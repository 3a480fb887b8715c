//! A record that waits to be put, and the hash of its key.

use bytes::Bytes;
use md5::{Digest, Md5};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::{Position, TransportResult};

/// A partition key for records that may lie anywhere; the hash key decides.
pub(super) const ANY_KEY: &str = "-";

/// A record that waits to be put.
#[derive(Debug)]
pub(super) struct WaitingRecord {
    pub(super) key: String,
    pub(super) data: Bytes,
    /// Of its key; a record without one may lie anywhere.
    pub(super) hash: Option<u128>,
    /// A file's only record, as far as known.
    pub(super) single: bool,
    pub(super) since: Instant,
    pub(super) not_before: Instant,
    pub(super) failures: u32,
    /// Sent by itself, after a request that held it was refused as a whole.
    pub(super) alone: bool,
    pub(super) answer: oneshot::Sender<TransportResult<Position>>,
    /// Its share of the bytes that may wait.
    pub(super) _budget: OwnedSemaphorePermit,
}

impl WaitingRecord {
    /// The bytes that Kinesis counts.
    pub(super) fn weight(&self) -> usize {
        self.data.len() + self.key.len().max(ANY_KEY.len())
    }
}

/// How Kinesis hashes a partition key.
pub(super) fn hash(key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(key.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_hashed_as_kinesis_does() {
        // From AWS's documentation: MD5 as a number, the first byte being the highest.
        assert_eq!(hash("a"), 0x0cc1_75b9_c0f1_b6a8_31c3_99e2_6977_2661);
    }
}
