//! Creating, describing and resharding streams.

use serde_json::{Value, json};

use super::shard::{FakeShard, FakeStream};
use super::{Kinesis, no_stream};
use crate::fake_aws::clock::Millis;
use crate::fake_aws::error::FakeError;
use crate::fake_aws::rate::TokenBucket;

impl Kinesis {
    /// A stream takes one change at a time, and tags only once it is created.
    pub(super) fn check_status(
        &self,
        name: &str,
        action: &str,
        now: Millis,
    ) -> Result<(), FakeError> {
        let status = self.streams.get(name).map(|stream| stream.status(now));
        let refused = match action {
            "AddTagsToStream" | "DeleteStream" => status == Some("CREATING"),
            "IncreaseStreamRetentionPeriod"
            | "DecreaseStreamRetentionPeriod"
            | "StartStreamEncryption"
            | "UpdateShardCount" => status.is_some_and(|status| status != "ACTIVE"),
            _ => false,
        };
        if !refused {
            return Ok(());
        }
        Err(FakeError::client(
            "ResourceInUseException",
            &format!(
                "Stream {name} is not ACTIVE, instead in state {}.",
                status.unwrap_or_default()
            ),
        ))
    }

    /// Makes a change that keeps the stream in state UPDATING for a while.
    pub(super) fn change(
        &mut self,
        name: &str,
        now: Millis,
        apply: impl FnOnce(&mut FakeStream),
    ) -> Result<Value, FakeError> {
        let until = now + self.change_millis;
        let stream = self.stream(name)?;
        apply(stream);
        stream.updating_until = stream.updating_until.max(until);
        Ok(json!({}))
    }

    /// Splits or merges until there are `target` open shards.
    pub fn reshard(&mut self, name: &str, target: usize, now: Millis) -> Result<(), FakeError> {
        let sequence = self.next_sequence();
        let stream = self.streams.get_mut(name).ok_or_else(|| no_stream(name))?;
        let open: Vec<usize> = (0..stream.shards.len())
            .filter(|i| stream.shards[*i].closed.is_none())
            .collect();
        if target == 0 || target > open.len() * 2 || target * 2 < open.len() {
            return Err(FakeError::client(
                "InvalidArgumentException",
                "the count can be doubled or halved at most",
            ));
        }
        let parents: Vec<(String, (u128, u128))> = open
            .iter()
            .map(|i| (stream.shards[*i].id.clone(), stream.shards[*i].range))
            .collect();
        for index in open {
            stream.shards[index].closed = Some(sequence);
        }
        for range in hash_ranges(target) {
            let overlapping = parents
                .iter()
                .filter(|(_, old)| old.0 <= range.1 && range.0 <= old.1);
            let parents = overlapping.map(|(id, _)| id.clone()).take(2).collect();
            let id = stream.shards.len();
            let shard = FakeShard::new(id, range, parents, sequence + 1);
            stream.shards.push(shard);
        }
        stream.updating_until = now + 300;
        Ok(())
    }

    pub(super) fn create(
        &mut self,
        name: &str,
        request: &Value,
        now: Millis,
    ) -> Result<Value, FakeError> {
        if self.streams.contains_key(name) {
            return Err(FakeError::client(
                "ResourceInUseException",
                &format!("stream {name} already exists"),
            ));
        }
        let on_demand = request["StreamModeDetails"]["StreamMode"] == "ON_DEMAND";
        let count = request["ShardCount"]
            .as_u64()
            .unwrap_or(if on_demand { 4 } else { 0 });
        let count = usize::try_from(count)
            .ok()
            .filter(|n| (1..=10_000).contains(n));
        let count = count
            .ok_or_else(|| FakeError::client("ValidationException", "ShardCount is missing"))?;
        let first = self.next_sequence();
        let shards = hash_ranges(count)
            .into_iter()
            .enumerate()
            .map(|(id, range)| FakeShard::new(id, range, Vec::new(), first))
            .collect();
        let stream = FakeStream {
            shards,
            retention_hours: 24,
            tags: request["Tags"].as_object().cloned().unwrap_or_default(),
            encryption: "NONE".into(),
            largest_record: 1 << 20,
            creating_until: now + self.change_millis,
            updating_until: now,
            list_rate: TokenBucket::new(1000.0, 1000.0),
        };
        self.streams.insert(name.to_owned(), stream);
        Ok(json!({}))
    }

    pub(super) fn describe(&mut self, name: &str, now: Millis) -> Result<Value, FakeError> {
        let stream = self.stream(name)?;
        Ok(json!({"StreamDescriptionSummary": {
            "StreamName": name, "StreamARN": arn(name), "StreamCreationTimestamp": 1_700_000_000,
            "StreamStatus": stream.status(now),
            "StreamModeDetails": {"StreamMode": "PROVISIONED"},
            "RetentionPeriodHours": stream.retention_hours, "EncryptionType": stream.encryption,
            "OpenShardCount": stream.shards.iter().filter(|s| s.closed.is_none()).count(),
            "MaxRecordSizeInKiB": stream.largest_record / 1024,
            "EnhancedMonitoring": [],
        }}))
    }

    pub(super) fn tags(&mut self, name: &str) -> Result<Value, FakeError> {
        let tags = self.stream(name)?.tags.iter();
        let tags: Vec<_> = tags.map(|(k, v)| json!({"Key": k, "Value": v})).collect();
        Ok(json!({"Tags": tags, "HasMoreTags": false}))
    }

    /// At most three shards a page, which exposes code that reads only the first page.
    pub(super) fn list_shards(
        &mut self,
        name: &str,
        request: &Value,
        now: Millis,
    ) -> Result<Value, FakeError> {
        let token = request["NextToken"].as_str();
        let (name, from) = match token.and_then(|token| token.split_once('/')) {
            Some((name, from)) => (name.to_owned(), from.parse().unwrap_or(0)),
            None => (name.to_owned(), 0usize),
        };
        let enforce_rates = self.enforce_rates;
        let stream = self.stream(&name)?;
        if enforce_rates && !stream.list_rate.take(1.0, now) {
            return Err(FakeError::client("LimitExceededException", "rate exceeded"));
        }
        stream.trim(now);
        let page = usize::try_from(request["MaxResults"].as_u64().unwrap_or(1000))
            .unwrap_or(1000)
            .min(3);
        let shards = stream.shards.iter().skip(from).take(page);
        let shards: Vec<_> = shards.map(FakeShard::describe).collect();
        let mut answer = json!({"Shards": shards});
        if from + page < stream.shards.len() {
            answer["NextToken"] = json!(format!("{name}/{}", from + page));
        }
        Ok(answer)
    }
}

/// The hash space in `count` even parts.
fn hash_ranges(count: usize) -> Vec<(u128, u128)> {
    let count = count as u128;
    let step = u128::MAX / count;
    let end = |i| {
        if i + 1 == count {
            u128::MAX
        } else {
            (i + 1) * step - 1
        }
    };
    (0..count).map(|i| (i * step, end(i))).collect()
}

/// The ARN of a stream.
pub fn arn(name: &str) -> String {
    format!("arn:aws:kinesis:us-east-1:000000000000:stream/{name}")
}
