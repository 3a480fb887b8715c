//! The state of a stream and its shards, and the rates of a shard.

use std::collections::VecDeque;

use serde_json::{Map, Value, json};

use crate::fake_aws::clock::Millis;
use crate::fake_aws::rate::TokenBucket;

const MIB: f64 = 1_048_576.0;
/// "1 MB/s" taken literally; a large record needs a full MiB at once.
const WRITE_BYTES_PER_SECOND: f64 = 1_000_000.0;
const WRITE_RECORDS_PER_SECOND: f64 = 1000.0;
const READ_BYTES_PER_SECOND: f64 = 2.0 * MIB;
const READS_PER_SECOND: f64 = 5.0;

#[derive(Debug)]
pub(super) struct FakeStream {
    pub(super) shards: Vec<FakeShard>,
    pub(super) retention_hours: u64,
    pub(super) tags: Map<String, Value>,
    pub(super) encryption: String,
    pub(super) largest_record: usize,
    pub(super) creating_until: Millis,
    pub(super) updating_until: Millis,
    pub(super) list_rate: TokenBucket,
}

#[derive(Debug)]
pub(super) struct FakeShard {
    pub(super) id: String,
    /// First and last hash key.
    pub(super) range: (u128, u128),
    pub(super) parents: Vec<String>,
    pub(super) first: u128,
    pub(super) closed: Option<u128>,
    pub(super) records: VecDeque<StoredRecord>,
    write_bytes: TokenBucket,
    write_records: TokenBucket,
    pub(super) read_bytes: TokenBucket,
    pub(super) reads: TokenBucket,
    pub(super) seeks: TokenBucket,
}

#[derive(Debug)]
pub(super) struct StoredRecord {
    pub(super) sequence: u128,
    pub(super) at: Millis,
    pub(super) key: String,
    /// Base64, as it came.
    pub(super) data: String,
    pub(super) bytes: usize,
}

impl FakeStream {
    pub(super) fn status(&self, now: Millis) -> &'static str {
        if self.creating_until > now {
            "CREATING"
        } else if self.updating_until > now {
            "UPDATING"
        } else {
            "ACTIVE"
        }
    }

    /// Drops records that are older than the retention time.
    pub(super) fn trim(&mut self, now: Millis) {
        let oldest = now.saturating_sub(self.retention_hours * 3_600_000);
        for shard in &mut self.shards {
            let is_old = |record: &StoredRecord| record.at < oldest;
            while shard.records.front().is_some_and(is_old) {
                shard.records.pop_front();
            }
        }
    }
}

impl FakeShard {
    pub(super) fn new(id: usize, range: (u128, u128), parents: Vec<String>, first: u128) -> Self {
        Self {
            id: format!("shardId-{id:012}"),
            range,
            parents,
            first,
            closed: None,
            records: VecDeque::new(),
            write_bytes: TokenBucket::new(WRITE_BYTES_PER_SECOND, MIB),
            write_records: TokenBucket::new(WRITE_RECORDS_PER_SECOND, WRITE_RECORDS_PER_SECOND),
            read_bytes: TokenBucket::new(READ_BYTES_PER_SECOND, READ_BYTES_PER_SECOND),
            reads: TokenBucket::new(READS_PER_SECOND, READS_PER_SECOND),
            seeks: TokenBucket::new(READS_PER_SECOND, READS_PER_SECOND),
        }
    }

    /// Charges a record to the write rates; false if it exceeds them.
    pub(super) fn charge_write(&mut self, bytes: usize, now: Millis) -> bool {
        // AWS counts a record's bytes in whole KiB.
        let counted = bytes.div_ceil(1024) * 1024;
        self.write_records.is_open(now)
            && self.write_bytes.take(counted as f64, now)
            && self.write_records.take(1.0, now)
    }

    pub(super) fn is_open_for(&self, hash: u128) -> bool {
        self.closed.is_none() && self.range.0 <= hash && hash <= self.range.1
    }

    pub(super) fn hash_range(&self) -> Value {
        json!({"StartingHashKey": self.range.0.to_string(), "EndingHashKey": self.range.1.to_string()})
    }

    pub(super) fn describe(&self) -> Value {
        let mut sequences = json!({"StartingSequenceNumber": self.first.to_string()});
        if let Some(closed) = self.closed {
            sequences["EndingSequenceNumber"] = json!(closed.to_string());
        }
        let mut shard = json!({"ShardId": self.id, "HashKeyRange": self.hash_range(), "SequenceNumberRange": sequences});
        for (key, parent) in ["ParentShardId", "AdjacentParentShardId"]
            .iter()
            .zip(&self.parents)
        {
            shard[*key] = json!(parent);
        }
        shard
    }
}
