//! Kinesis streams as AWS documents them: shards and their hash ranges, sequence numbers, iterators that expire,
//! retention, resharding and limits. State and time in, answers out; no HTTP.
//!
//! - `manage`: creating, describing and resharding streams.
//! - `put`: PutRecords. `read`: iterators and GetRecords.
//! - `shard`: the state of a stream and its shards.

mod manage;
mod put;
mod read;
mod shard;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::clock::Millis;
use super::error::FakeError;
use super::faults::FaultInjector;
use shard::FakeStream;

pub use manage::arn;
pub use read::stream_of_iterator;

/// Sequence numbers grow by a digit early on, which exposes code that sorts them as text.
const FIRST_SEQUENCE: u128 = 99_999_999_999_999_999_999_999_999_999_900;

/// All streams of the account.
#[derive(Debug)]
pub struct Kinesis {
    streams: BTreeMap<String, FakeStream>,
    next_sequence: u128,
    enforce_rates: bool,
    change_millis: Millis,
    /// Requests and answers so far, for figures.
    pub counts: KinesisCounts,
}

/// What went over the wire.
#[derive(Debug, Clone, Copy, Default)]
pub struct KinesisCounts {
    /// Records offered, each attempt counted.
    pub offered: u64,
    /// Records accepted.
    pub taken: u64,
    /// Records refused for their shard's rate, without injected throttling.
    pub over_rate: u64,
    /// Bytes of records accepted.
    pub bytes_in: u64,
    /// Bytes of records returned.
    pub bytes_out: u64,
    /// Calls of GetRecords that were answered.
    pub reads: u64,
    /// Calls of GetRecords refused for their shard's rate.
    pub reads_over_rate: u64,
    /// Calls of GetShardIterator that were answered.
    pub seeks: u64,
}

impl Kinesis {
    /// With or without AWS's rates.
    pub fn new(enforce_rates: bool) -> Self {
        Self {
            streams: BTreeMap::new(),
            next_sequence: FIRST_SEQUENCE,
            enforce_rates,
            change_millis: 0,
            counts: KinesisCounts::default(),
        }
    }

    /// Lets the creation of a stream and the changes of its retention and encryption take so long from now on, as on
    /// AWS; meanwhile the next change is refused.
    pub fn take_time(&mut self, millis: Millis) {
        self.change_millis = millis;
    }

    /// Answers one call.
    pub fn call(
        &mut self,
        action: &str,
        request: &Value,
        now: Millis,
        faults: &FaultInjector,
    ) -> Result<Value, FakeError> {
        let name = stream_name(request);
        self.check_status(&name, action, now)?;
        match action {
            "CreateStream" => self.create(&name, request, now),
            "DeleteStream" => self
                .streams
                .remove(&name)
                .map(|_| json!({}))
                .ok_or_else(|| no_stream(&name)),
            "DescribeStreamSummary" => self.describe(&name, now),
            "ListShards" => self.list_shards(&name, request, now),
            "ListTagsForStream" => self.tags(&name),
            "AddTagsToStream" => {
                let tags = request["Tags"].as_object().cloned().unwrap_or_default();
                self.stream(&name)?.tags.extend(tags);
                Ok(json!({}))
            }
            "IncreaseStreamRetentionPeriod" | "DecreaseStreamRetentionPeriod" => {
                let hours = request["RetentionPeriodHours"].as_u64().unwrap_or(24);
                self.change(&name, now, |stream| stream.retention_hours = hours)
            }
            "StartStreamEncryption" => {
                self.change(&name, now, |stream| stream.encryption = "KMS".into())
            }
            "PutRecords" => self.put(&name, request, now, faults),
            "GetShardIterator" => self.seek(&name, request, now),
            "GetRecords" => self.read(request, now, faults),
            "UpdateShardCount" => {
                let target = request["TargetShardCount"].as_u64().unwrap_or(1);
                self.reshard(&name, usize::try_from(target).unwrap_or(1), now)?;
                Ok(json!({"StreamName": name, "TargetShardCount": target}))
            }
            other => Err(FakeError::client(
                "UnknownOperationException",
                &format!("the fake AWS does not implement {other}"),
            )),
        }
    }

    /// Lowers the largest record that a stream accepts.
    pub fn limit_records(&mut self, name: &str, bytes: usize) {
        if let Some(stream) = self.streams.get_mut(name) {
            stream.largest_record = bytes;
        }
    }

    /// Ids of all shards, closed ones included.
    pub fn shard_ids(&self, name: &str) -> Vec<String> {
        self.streams
            .get(name)
            .into_iter()
            .flat_map(|stream| &stream.shards)
            .map(|shard| shard.id.clone())
            .collect()
    }

    fn next_sequence(&mut self) -> u128 {
        self.next_sequence += 7;
        self.next_sequence
    }

    fn stream(&mut self, name: &str) -> Result<&mut FakeStream, FakeError> {
        self.streams.get_mut(name).ok_or_else(|| no_stream(name))
    }
}

fn stream_name(request: &Value) -> String {
    let by_arn = request["StreamARN"]
        .as_str()
        .and_then(|arn| arn.rsplit('/').next());
    by_arn
        .or(request["StreamName"].as_str())
        .unwrap_or_default()
        .to_owned()
}

fn no_stream(name: &str) -> FakeError {
    FakeError::client(
        "ResourceNotFoundException",
        &format!("Stream {name} under account 000000000000 not found."),
    )
}
