//! GetShardIterator and GetRecords.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Kinesis, no_stream};
use crate::fake_aws::clock::Millis;
use crate::fake_aws::error::FakeError;
use crate::fake_aws::faults::FaultInjector;
use crate::fake_aws::text;

const ITERATOR_MILLIS: Millis = 5 * 60 * 1000;
const LARGEST_ANSWER: usize = 10 << 20;

impl Kinesis {
    pub(super) fn seek(
        &mut self,
        name: &str,
        request: &Value,
        now: Millis,
    ) -> Result<Value, FakeError> {
        let enforce_rates = self.enforce_rates;
        let shard_id = text(request, "ShardId").to_owned();
        let stream = self.stream(name)?;
        stream.trim(now);
        let shard = stream.shards.iter_mut().find(|shard| shard.id == shard_id);
        let shard = shard.ok_or_else(|| {
            FakeError::client(
                "ResourceNotFoundException",
                &format!("Shard {shard_id} in stream {name} does not exist"),
            )
        })?;
        if enforce_rates && !shard.seeks.take(1.0, now) {
            return Err(FakeError::client(
                "ProvisionedThroughputExceededException",
                "Rate exceeded for GetShardIterator",
            ));
        }
        let sequence = request["StartingSequenceNumber"]
            .as_str()
            .and_then(|digits| digits.parse::<u128>().ok());
        let from = match (text(request, "ShardIteratorType"), sequence) {
            ("AT_SEQUENCE_NUMBER", Some(at)) => at,
            ("AFTER_SEQUENCE_NUMBER", Some(at)) => at + 1,
            ("TRIM_HORIZON", _) => 0,
            ("LATEST", _) => u128::MAX,
            _ => {
                return Err(FakeError::client(
                    "InvalidArgumentException",
                    "no such iterator type, or no sequence number",
                ));
            }
        };
        let beyond = shard
            .closed
            .is_some_and(|closed| from > closed && from != u128::MAX);
        if sequence.is_some() && (from < shard.first || beyond) {
            return Err(FakeError::client(
                "InvalidArgumentException",
                &format!(
                    "StartingSequenceNumber {from} used in GetShardIterator on shard {shard_id} is invalid"
                ),
            ));
        }
        self.counts.seeks += 1;
        let from = if from == u128::MAX {
            self.next_sequence()
        } else {
            from
        };
        Ok(json!({"ShardIterator": iterator(name, &shard_id, from, now)}))
    }

    pub(super) fn read(
        &mut self,
        request: &Value,
        now: Millis,
        faults: &FaultInjector,
    ) -> Result<Value, FakeError> {
        let (name, shard_id, from, issued) = parse_iterator(text(request, "ShardIterator"))?;
        if issued + ITERATOR_MILLIS < now {
            return Err(FakeError::client(
                "ExpiredIteratorException",
                "Iterator expired. It was created more than 5 minutes ago.",
            ));
        }
        let limit = request["Limit"].as_u64().unwrap_or(10_000);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        if !(1..=10_000).contains(&limit) {
            return Err(FakeError::client(
                "ValidationException",
                "Limit is 1 to 10000",
            ));
        }
        let enforce_rates = self.enforce_rates;
        let unseen = faults.draw(|faults| faults.unseen_record);
        let nothing = unseen || faults.draw(|faults| faults.empty_read);
        let stream = self
            .streams
            .get_mut(&name)
            .ok_or_else(|| no_stream(&name))?;
        stream.trim(now);
        let children: Vec<_> = stream
            .shards
            .iter()
            .filter(|shard| shard.parents.contains(&shard_id))
            .map(|shard| json!({"ShardId": shard.id, "ParentShards": shard.parents, "HashKeyRange": shard.hash_range()}))
            .collect();
        let shard = stream.shards.iter_mut().find(|shard| shard.id == shard_id);
        let shard = shard
            .ok_or_else(|| FakeError::client("ResourceNotFoundException", "the shard is gone"))?;
        if enforce_rates && (!shard.read_bytes.is_open(now) || !shard.reads.take(1.0, now)) {
            self.counts.reads_over_rate += 1;
            return Err(FakeError::client(
                "ProvisionedThroughputExceededException",
                &format!("Rate exceeded for shard {shard_id}"),
            ));
        }
        let start = shard
            .records
            .partition_point(|record| record.sequence < from);
        let (mut records, mut bytes, mut next) = (Vec::new(), 0, from);
        let take = if nothing { 0 } else { limit };
        for record in shard.records.iter().skip(start).take(take) {
            if bytes + record.bytes > LARGEST_ANSWER {
                break;
            }
            bytes += record.bytes;
            next = record.sequence + 1;
            records.push(json!({
                "SequenceNumber": record.sequence.to_string(), "PartitionKey": record.key, "Data": record.data,
                "ApproximateArrivalTimestamp": record.at as f64 / 1000.0,
            }));
        }
        shard.read_bytes.overdraw(bytes as f64);
        let oldest_unread = shard
            .records
            .iter()
            .rev()
            .take_while(|record| record.sequence >= next)
            .last();
        let behind = oldest_unread
            .filter(|_| !unseen)
            .map_or(0, |record| now.saturating_sub(record.at));
        let mut answer = json!({"Records": records, "MillisBehindLatest": behind});
        if shard.closed.is_some() && oldest_unread.is_none() {
            answer["ChildShards"] = json!(children);
        } else {
            answer["NextShardIterator"] = json!(iterator(&name, &shard_id, next, now));
        }
        self.counts.reads += 1;
        self.counts.bytes_out += bytes as u64;
        Ok(answer)
    }
}

fn iterator(stream: &str, shard: &str, from: u128, now: Millis) -> String {
    STANDARD.encode(format!("{stream}/{shard}/{from}/{now}"))
}

/// The name of the stream that an iterator reads.
pub fn stream_of_iterator(token: &str) -> Option<String> {
    Some(parse_iterator(token).ok()?.0)
}

/// Stream, shard, next sequence number and time of issue.
fn parse_iterator(token: &str) -> Result<(String, String, u128, Millis), FakeError> {
    let invalid = || FakeError::client("InvalidArgumentException", "Invalid ShardIterator.");
    let decoded =
        String::from_utf8(STANDARD.decode(token).map_err(|_| invalid())?).map_err(|_| invalid())?;
    let parts: Vec<&str> = decoded.split('/').collect();
    let [stream, shard, from, issued] = parts[..] else {
        return Err(invalid());
    };
    Ok((
        stream.into(),
        shard.into(),
        from.parse().map_err(|_| invalid())?,
        issued.parse().map_err(|_| invalid())?,
    ))
}
