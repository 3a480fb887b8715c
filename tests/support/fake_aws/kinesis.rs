//! Kinesis streams as AWS documents them: shards and their hash ranges, sequence numbers, iterators that expire,
//! retention, resharding and limits. Plain state and time in, answers out; knows no HTTP.

use std::collections::{BTreeMap, VecDeque};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::Refusal;
use super::clock::Millis;
use super::faults::Mischief;
use super::rate::Bucket;

const ITERATOR_MILLIS: Millis = 5 * 60 * 1000;
const MIB: f64 = 1_048_576.0;
/// 1 MB/s in, taken at its word; large records need a full MiB at once.
const WRITE_BYTES_PER_SECOND: f64 = 1_000_000.0;
const WRITE_RECORDS_PER_SECOND: f64 = 1000.0;
const READ_BYTES_PER_SECOND: f64 = 2.0 * MIB;
const READS_PER_SECOND: f64 = 5.0;
const LARGEST_REQUEST: usize = 10 << 20;
const LARGEST_ANSWER: usize = 10 << 20;
/// Sequence numbers grow by a digit early on, so that whoever sorts them as text is found out.
const FIRST_SEQUENCE: u128 = 99_999_999_999_999_999_999_999_999_999_900;

/// All streams of the account.
#[derive(Debug)]
pub struct Kinesis {
    streams: BTreeMap<String, Stream>,
    next_sequence: u128,
    enforce_rates: bool,
    change_takes: Millis,
    /// What was asked and answered, for figures.
    pub counts: Counts,
}

/// What went over the wire.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Records offered, however often.
    pub offered: u64,
    /// Records taken.
    pub taken: u64,
    /// Records refused for their shard's rate, injected throttling not included.
    pub over_rate: u64,
    /// Bytes of records taken.
    pub bytes_in: u64,
    /// Bytes of records handed out.
    pub bytes_out: u64,
    /// Calls of GetRecords that were answered.
    pub reads: u64,
    /// Calls of GetRecords refused for their shard's rate.
    pub reads_over_rate: u64,
    /// Calls of GetShardIterator that were answered.
    pub seeks: u64,
}

#[derive(Debug)]
struct Stream {
    shards: Vec<Shard>,
    retention_hours: u64,
    tags: Map<String, Value>,
    encryption: String,
    largest_record: usize,
    creating_until: Millis,
    updating_until: Millis,
    list_rate: Bucket,
}

#[derive(Debug)]
struct Shard {
    id: String,
    range: (u128, u128),
    parents: Vec<String>,
    first: u128,
    closed: Option<u128>,
    records: VecDeque<Stored>,
    write_bytes: Bucket,
    write_records: Bucket,
    read_bytes: Bucket,
    reads: Bucket,
    seeks: Bucket,
}

#[derive(Debug)]
struct Stored {
    sequence: u128,
    at: Millis,
    key: String,
    data: String,
    bytes: usize,
}

impl Kinesis {
    /// With or without AWS's rates.
    pub fn new(enforce_rates: bool) -> Self {
        Self {
            streams: BTreeMap::new(),
            next_sequence: FIRST_SEQUENCE,
            enforce_rates,
            change_takes: 0,
            counts: Counts::default(),
        }
    }

    /// Making a stream, its retention and its encryption take so long from now on, as at AWS; meanwhile the next change is
    /// refused.
    pub fn take_time(&mut self, millis: Millis) {
        self.change_takes = millis;
    }

    /// Answers one call.
    pub fn call(
        &mut self,
        action: &str,
        ask: &Value,
        now: Millis,
        mischief: &Mischief,
    ) -> Result<Value, Refusal> {
        let name = stream_name(ask);
        self.may_change(&name, action, now)?;
        match action {
            "CreateStream" => self.create(&name, ask, now),
            "DeleteStream" => self
                .streams
                .remove(&name)
                .map(|_| json!({}))
                .ok_or_else(|| no_stream(&name)),
            "DescribeStreamSummary" => self.describe(&name, now),
            "ListShards" => self.list_shards(&name, ask, now),
            "ListTagsForStream" => {
                let tags: Vec<_> = self
                    .stream(&name)?
                    .tags
                    .iter()
                    .map(|(k, v)| json!({"Key": k, "Value": v}))
                    .collect();
                Ok(json!({"Tags": tags, "HasMoreTags": false}))
            }
            "AddTagsToStream" => {
                let tags = ask["Tags"].as_object().cloned().unwrap_or_default();
                self.stream(&name)?.tags.extend(tags);
                Ok(json!({}))
            }
            "IncreaseStreamRetentionPeriod" | "DecreaseStreamRetentionPeriod" => {
                let until = now + self.change_takes;
                let stream = self.stream(&name)?;
                stream.retention_hours = ask["RetentionPeriodHours"].as_u64().unwrap_or(24);
                stream.updating_until = stream.updating_until.max(until);
                Ok(json!({}))
            }
            "StartStreamEncryption" => {
                let until = now + self.change_takes;
                let stream = self.stream(&name)?;
                stream.encryption = "KMS".into();
                stream.updating_until = stream.updating_until.max(until);
                Ok(json!({}))
            }
            "PutRecords" => self.put(&name, ask, now, mischief),
            "GetShardIterator" => self.seek(&name, ask, now),
            "GetRecords" => self.read(ask, now, mischief),
            "UpdateShardCount" => {
                let target = ask["TargetShardCount"].as_u64().unwrap_or(1);
                self.reshard(&name, usize::try_from(target).unwrap_or(1), now)?;
                Ok(json!({"StreamName": name, "TargetShardCount": target}))
            }
            other => Err(Refusal::client(
                "UnknownOperationException",
                &format!("the stand-in does not know {other}"),
            )),
        }
    }

    /// A stream takes one change at a time, and before it is up not even tags.
    fn may_change(&self, name: &str, action: &str, now: Millis) -> Result<(), Refusal> {
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
        Err(Refusal::client(
            "ResourceInUseException",
            &format!(
                "Stream {name} is not ACTIVE, instead in state {}.",
                status.unwrap_or_default()
            ),
        ))
    }

    /// Splits or merges until there are `target` open shards.
    pub fn reshard(&mut self, name: &str, target: usize, now: Millis) -> Result<(), Refusal> {
        let sequence = self.sequence();
        let stream = self.streams.get_mut(name).ok_or_else(|| no_stream(name))?;
        let open: Vec<usize> = (0..stream.shards.len())
            .filter(|i| stream.shards[*i].closed.is_none())
            .collect();
        if target == 0 || target > open.len() * 2 || target * 2 < open.len() {
            return Err(Refusal::client(
                "InvalidArgumentException",
                "the count can be doubled or halved at most",
            ));
        }
        let ranges = ranges(target);
        let parents: Vec<(String, (u128, u128))> = open
            .iter()
            .map(|i| (stream.shards[*i].id.clone(), stream.shards[*i].range))
            .collect();
        for index in open {
            stream.shards[index].closed = Some(sequence);
        }
        for range in ranges {
            let overlapping = parents
                .iter()
                .filter(|(_, old)| old.0 <= range.1 && range.0 <= old.1);
            let parents = overlapping.map(|(id, _)| id.clone()).take(2).collect();
            let id = stream.shards.len();
            stream
                .shards
                .push(Shard::new(id, range, parents, sequence + 1));
        }
        stream.updating_until = now + 300;
        Ok(())
    }

    /// Lowers the largest record that a stream takes.
    pub fn limit_records(&mut self, name: &str, bytes: usize) {
        if let Some(stream) = self.streams.get_mut(name) {
            stream.largest_record = bytes;
        }
    }

    /// Ids of all shards, closed ones too.
    pub fn shard_ids(&self, name: &str) -> Vec<String> {
        self.streams
            .get(name)
            .into_iter()
            .flat_map(|stream| &stream.shards)
            .map(|shard| shard.id.clone())
            .collect()
    }

    fn sequence(&mut self) -> u128 {
        self.next_sequence += 7;
        self.next_sequence
    }

    fn stream(&mut self, name: &str) -> Result<&mut Stream, Refusal> {
        self.streams.get_mut(name).ok_or_else(|| no_stream(name))
    }

    fn create(&mut self, name: &str, ask: &Value, now: Millis) -> Result<Value, Refusal> {
        if self.streams.contains_key(name) {
            return Err(Refusal::client(
                "ResourceInUseException",
                &format!("stream {name} already exists"),
            ));
        }
        let on_demand = ask["StreamModeDetails"]["StreamMode"] == "ON_DEMAND";
        let count = ask["ShardCount"]
            .as_u64()
            .unwrap_or(if on_demand { 4 } else { 0 });
        let count = usize::try_from(count)
            .ok()
            .filter(|n| (1..=10_000).contains(n));
        let count =
            count.ok_or_else(|| Refusal::client("ValidationException", "ShardCount is missing"))?;
        let first = self.sequence();
        let shards = ranges(count)
            .into_iter()
            .enumerate()
            .map(|(id, range)| Shard::new(id, range, Vec::new(), first))
            .collect();
        let stream = Stream {
            shards,
            retention_hours: 24,
            tags: ask["Tags"].as_object().cloned().unwrap_or_default(),
            encryption: "NONE".into(),
            largest_record: 1 << 20,
            creating_until: now + self.change_takes,
            updating_until: now,
            list_rate: Bucket::new(1000.0, 1000.0),
        };
        self.streams.insert(name.to_owned(), stream);
        Ok(json!({}))
    }

    fn describe(&mut self, name: &str, now: Millis) -> Result<Value, Refusal> {
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

    /// Two shards a page at most when asked for pages, so that whoever reads only the first is found out.
    fn list_shards(&mut self, name: &str, ask: &Value, now: Millis) -> Result<Value, Refusal> {
        let token = ask["NextToken"].as_str();
        let (name, from) = match token.and_then(|token| token.split_once('/')) {
            Some((name, from)) => (name.to_owned(), from.parse().unwrap_or(0)),
            None => (name.to_owned(), 0usize),
        };
        let enforce = self.enforce_rates;
        let stream = self.stream(&name)?;
        if enforce && !stream.list_rate.take(1.0, now) {
            return Err(Refusal::client("LimitExceededException", "rate exceeded"));
        }
        stream.trim(now);
        let page = usize::try_from(ask["MaxResults"].as_u64().unwrap_or(1000))
            .unwrap_or(1000)
            .min(3);
        let shards: Vec<_> = stream
            .shards
            .iter()
            .skip(from)
            .take(page)
            .map(Shard::describe)
            .collect();
        let mut answer = json!({"Shards": shards});
        if from + page < stream.shards.len() {
            answer["NextToken"] = json!(format!("{name}/{}", from + page));
        }
        Ok(answer)
    }

    fn put(
        &mut self,
        name: &str,
        ask: &Value,
        now: Millis,
        mischief: &Mischief,
    ) -> Result<Value, Refusal> {
        let records = ask["Records"].as_array().cloned().unwrap_or_default();
        if records.is_empty() || records.len() > 500 {
            return Err(Refusal::client("ValidationException", "1 to 500 records"));
        }
        let largest = self.stream(name)?.largest_record;
        let mut sizes = Vec::new();
        for record in &records {
            let data = STANDARD
                .decode(text(record, "Data"))
                .map_err(|_| Refusal::client("SerializationException", "Data is not base64"))?;
            let key = text(record, "PartitionKey");
            if data.len() + key.len() > largest || !(1..=256).contains(&key.len()) {
                return Err(Refusal::client(
                    "ValidationException",
                    &format!(
                        "a record has at most {largest} bytes and a key of 1 to 256 characters"
                    ),
                ));
            }
            sizes.push(data.len());
        }
        if sizes
            .iter()
            .zip(&records)
            .map(|(size, record)| size + text(record, "PartitionKey").len())
            .sum::<usize>()
            > LARGEST_REQUEST
        {
            return Err(Refusal::client(
                "InvalidArgumentException",
                "the request is longer than 10485760 bytes",
            ));
        }
        let mut failed = 0;
        let mut answers = Vec::new();
        for (record, size) in records.iter().zip(sizes) {
            self.counts.offered += 1;
            let answer = self.put_one(name, record, size, now, mischief)?;
            failed += u64::from(answer.get("ErrorCode").is_some());
            answers.push(answer);
        }
        Ok(json!({"FailedRecordCount": failed, "Records": answers, "EncryptionType": "NONE"}))
    }

    fn put_one(
        &mut self,
        name: &str,
        record: &Value,
        bytes: usize,
        now: Millis,
        mischief: &Mischief,
    ) -> Result<Value, Refusal> {
        let hash = match record["ExplicitHashKey"].as_str() {
            Some(digits) => digits
                .parse()
                .map_err(|_| Refusal::client("InvalidArgumentException", "ExplicitHashKey"))?,
            None => u128::from_be_bytes(super::md5(text(record, "PartitionKey").as_bytes())),
        };
        if mischief.strikes(|faults| faults.entry_failure) {
            return Ok(
                json!({"ErrorCode": "InternalFailure", "ErrorMessage": "Internal Service Failure"}),
            );
        }
        let throttled = mischief.strikes(|faults| faults.throttle);
        let enforce = self.enforce_rates;
        let twice = mischief.strikes(|faults| faults.duplicate);
        let sequences = [self.sequence(), self.sequence()];
        let stream = self.stream(name)?;
        let open = |shard: &&mut Shard| {
            shard.closed.is_none() && shard.range.0 <= hash && hash <= shard.range.1
        };
        let shard = stream
            .shards
            .iter_mut()
            .find(open)
            .ok_or_else(|| no_stream(name))?;
        let over_rate = enforce && !throttled && !shard.take(bytes, now);
        if throttled || over_rate {
            self.counts.over_rate += u64::from(over_rate);
            let message = format!(
                "Rate exceeded for shard {} in stream {name}",
                shard_id(hash)
            );
            return Ok(
                json!({"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": message}),
            );
        }
        let id = shard.id.clone();
        for sequence in &sequences[..1 + usize::from(twice)] {
            shard.records.push_back(Stored {
                sequence: *sequence,
                at: now,
                key: text(record, "PartitionKey").to_owned(),
                data: text(record, "Data").to_owned(),
                bytes,
            });
        }
        self.counts.taken += 1;
        self.counts.bytes_in += bytes as u64;
        // Of two copies the later is answered, as when a client's second try is the one it hears about.
        let answered = sequences[usize::from(twice)];
        Ok(json!({"ShardId": id, "SequenceNumber": answered.to_string()}))
    }

    fn seek(&mut self, name: &str, ask: &Value, now: Millis) -> Result<Value, Refusal> {
        let enforce = self.enforce_rates;
        let shard_id = text(ask, "ShardId").to_owned();
        let stream = self.stream(name)?;
        stream.trim(now);
        let shard = stream.shards.iter_mut().find(|shard| shard.id == shard_id);
        let shard = shard.ok_or_else(|| {
            Refusal::client(
                "ResourceNotFoundException",
                &format!("Shard {shard_id} in stream {name} does not exist"),
            )
        })?;
        if enforce && !shard.seeks.take(1.0, now) {
            return Err(Refusal::client(
                "ProvisionedThroughputExceededException",
                "Rate exceeded for GetShardIterator",
            ));
        }
        let asked = ask["StartingSequenceNumber"]
            .as_str()
            .and_then(|digits| digits.parse::<u128>().ok());
        let from = match (text(ask, "ShardIteratorType"), asked) {
            ("AT_SEQUENCE_NUMBER", Some(at)) => at,
            ("AFTER_SEQUENCE_NUMBER", Some(at)) => at + 1,
            ("TRIM_HORIZON", _) => 0,
            ("LATEST", _) => u128::MAX,
            _ => {
                return Err(Refusal::client(
                    "InvalidArgumentException",
                    "no such iterator type, or no sequence number",
                ));
            }
        };
        let beyond = shard
            .closed
            .is_some_and(|closed| from > closed && from != u128::MAX);
        if asked.is_some() && (from < shard.first || beyond) {
            return Err(Refusal::client(
                "InvalidArgumentException",
                &format!(
                    "StartingSequenceNumber {from} used in GetShardIterator on shard {shard_id} is invalid"
                ),
            ));
        }
        self.counts.seeks += 1;
        let from = if from == u128::MAX {
            self.sequence()
        } else {
            from
        };
        Ok(json!({"ShardIterator": iterator(name, &shard_id, from, now)}))
    }

    fn read(&mut self, ask: &Value, now: Millis, mischief: &Mischief) -> Result<Value, Refusal> {
        let (name, shard_id, from, issued) = parse_iterator(text(ask, "ShardIterator"))?;
        if issued + ITERATOR_MILLIS < now {
            return Err(Refusal::client(
                "ExpiredIteratorException",
                "Iterator expired. It was created more than 5 minutes ago.",
            ));
        }
        let limit = usize::try_from(ask["Limit"].as_u64().unwrap_or(10_000)).unwrap_or(usize::MAX);
        if !(1..=10_000).contains(&limit) {
            return Err(Refusal::client(
                "ValidationException",
                "Limit is 1 to 10000",
            ));
        }
        let enforce = self.enforce_rates;
        let unseen = mischief.strikes(|faults| faults.unseen_record);
        let nothing = unseen || mischief.strikes(|faults| faults.empty_read);
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
            .ok_or_else(|| Refusal::client("ResourceNotFoundException", "the shard is gone"))?;
        if enforce && (!shard.read_bytes.is_open(now) || !shard.reads.take(1.0, now)) {
            self.counts.reads_over_rate += 1;
            return Err(Refusal::client(
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
        let rest = shard
            .records
            .iter()
            .rev()
            .take_while(|record| record.sequence >= next)
            .last();
        let behind = rest
            .filter(|_| !unseen)
            .map_or(0, |record| now.saturating_sub(record.at));
        let mut answer = json!({"Records": records, "MillisBehindLatest": behind});
        if shard.closed.is_some() && rest.is_none() {
            answer["ChildShards"] = json!(children);
        } else {
            answer["NextShardIterator"] = json!(iterator(&name, &shard_id, next, now));
        }
        self.counts.reads += 1;
        self.counts.bytes_out += bytes as u64;
        Ok(answer)
    }
}

impl Stream {
    fn status(&self, now: Millis) -> &'static str {
        if self.creating_until > now {
            "CREATING"
        } else if self.updating_until > now {
            "UPDATING"
        } else {
            "ACTIVE"
        }
    }

    /// Forgets what is older than the retention time, and closed shards that have nothing left.
    fn trim(&mut self, now: Millis) {
        let oldest = now.saturating_sub(self.retention_hours * 3_600_000);
        for shard in &mut self.shards {
            while shard
                .records
                .front()
                .is_some_and(|record| record.at < oldest)
            {
                shard.records.pop_front();
            }
        }
    }
}

impl Shard {
    fn new(id: usize, range: (u128, u128), parents: Vec<String>, first: u128) -> Self {
        Self {
            id: format!("shardId-{id:012}"),
            range,
            parents,
            first,
            closed: None,
            records: VecDeque::new(),
            write_bytes: Bucket::new(WRITE_BYTES_PER_SECOND, MIB),
            write_records: Bucket::new(WRITE_RECORDS_PER_SECOND, WRITE_RECORDS_PER_SECOND),
            read_bytes: Bucket::new(READ_BYTES_PER_SECOND, READ_BYTES_PER_SECOND),
            reads: Bucket::new(READS_PER_SECOND, READS_PER_SECOND),
            seeks: Bucket::new(READS_PER_SECOND, READS_PER_SECOND),
        }
    }

    fn take(&mut self, bytes: usize, now: Millis) -> bool {
        // AWS counts a record's bytes in whole KiB.
        let counted = bytes.div_ceil(1024) * 1024;
        self.write_records.is_open(now)
            && self.write_bytes.take(counted as f64, now)
            && self.write_records.take(1.0, now)
    }

    fn hash_range(&self) -> Value {
        json!({"StartingHashKey": self.range.0.to_string(), "EndingHashKey": self.range.1.to_string()})
    }

    fn describe(&self) -> Value {
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

/// The hash space in `count` even parts.
fn ranges(count: usize) -> Vec<(u128, u128)> {
    let step = u128::MAX / count as u128;
    (0..count as u128)
        .map(|i| {
            (
                i * step,
                if i + 1 == count as u128 {
                    u128::MAX
                } else {
                    (i + 1) * step - 1
                },
            )
        })
        .collect()
}

/// The ARN of a stream here.
pub fn arn(name: &str) -> String {
    format!("arn:aws:kinesis:us-east-1:000000000000:stream/{name}")
}

fn stream_name(ask: &Value) -> String {
    let by_arn = ask["StreamARN"]
        .as_str()
        .and_then(|arn| arn.rsplit('/').next());
    by_arn
        .or(ask["StreamName"].as_str())
        .unwrap_or_default()
        .to_owned()
}

fn no_stream(name: &str) -> Refusal {
    Refusal::client(
        "ResourceNotFoundException",
        &format!("Stream {name} under account 000000000000 not found."),
    )
}

fn shard_id(hash: u128) -> String {
    format!("of hash {hash}")
}

fn iterator(stream: &str, shard: &str, from: u128, now: Millis) -> String {
    STANDARD.encode(format!("{stream}/{shard}/{from}/{now}"))
}

/// The stream that an iterator walks.
pub fn stream_of_iterator(token: &str) -> Option<String> {
    Some(parse_iterator(token).ok()?.0)
}

fn parse_iterator(token: &str) -> Result<(String, String, u128, Millis), Refusal> {
    let invalid = || Refusal::client("InvalidArgumentException", "Invalid ShardIterator.");
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

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_aws::faults::Faults;

    struct Bench {
        kinesis: Kinesis,
        mischief: Mischief,
    }

    impl Bench {
        fn new(shards: usize) -> Self {
            let mut bench = Self {
                kinesis: Kinesis::new(true),
                mischief: Mischief::new(Faults::default(), 1),
            };
            bench
                .call("CreateStream", json!({"ShardCount": shards}), 0)
                .expect("made");
            bench
        }

        fn call(&mut self, action: &str, mut ask: Value, now: Millis) -> Result<Value, Refusal> {
            ask["StreamName"] = json!("s");
            self.kinesis.call(action, &ask, now, &self.mischief)
        }

        fn put(&mut self, sizes: &[usize], now: Millis) -> Result<Value, Refusal> {
            let records: Vec<_> = sizes
                .iter()
                .map(|size| json!({"PartitionKey": "k", "Data": STANDARD.encode(vec![7; *size])}))
                .collect();
            self.call("PutRecords", json!({"Records": records}), now)
        }

        fn seek(&mut self, kind: &str, at: &Value, now: Millis) -> Result<String, Refusal> {
            let ask = json!({"ShardId": "shardId-000000000000", "ShardIteratorType": kind, "StartingSequenceNumber": at});
            self.call("GetShardIterator", ask, now)
                .map(|answer| text(&answer, "ShardIterator").to_owned())
        }

        fn read(&mut self, iterator: &str, limit: u64, now: Millis) -> Result<Value, Refusal> {
            self.call(
                "GetRecords",
                json!({"ShardIterator": iterator, "Limit": limit}),
                now,
            )
        }
    }

    #[test]
    fn a_put_record_is_read_back_from_its_sequence_number() {
        let mut bench = Bench::new(1);
        let put = bench.put(&[3, 4, 5], 0).expect("put");
        let iterator = bench
            .seek(
                "AT_SEQUENCE_NUMBER",
                &put["Records"][1]["SequenceNumber"],
                0,
            )
            .expect("found");
        let answer = bench.read(&iterator, 1, 0).expect("read");
        assert_eq!(answer["Records"][0]["Data"], STANDARD.encode([7; 4]));
        let rest = bench
            .read(text(&answer, "NextShardIterator"), 10, 0)
            .expect("read");
        assert_eq!(rest["Records"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn a_shard_takes_a_megabyte_a_second_and_says_so_by_record() {
        let mut bench = Bench::new(1);
        let answer = bench.put(&[400 * 1024; 4], 0).expect("put");
        assert_eq!(answer["FailedRecordCount"], 2);
        assert_eq!(
            answer["Records"][3]["ErrorCode"],
            "ProvisionedThroughputExceededException"
        );
        assert_eq!(
            bench.put(&[400 * 1024; 4], 1000).expect("put")["FailedRecordCount"],
            2
        );
    }

    #[test]
    fn one_oversize_record_fails_the_whole_request() {
        let mut bench = Bench::new(1);
        assert_eq!(
            bench
                .put(&[10, (1 << 20) + 1], 0)
                .expect_err("refused")
                .kind,
            "ValidationException"
        );
        assert!(bench.put(&[1; 501], 0).is_err());
        assert_eq!(bench.kinesis.counts.taken, 0);
    }

    #[test]
    fn five_reads_and_five_seeks_a_second() {
        let mut bench = Bench::new(1);
        let iterator = bench.seek("TRIM_HORIZON", &Value::Null, 0).expect("found");
        assert_eq!(
            (0..8)
                .filter(|_| bench.read(&iterator, 10, 0).is_ok())
                .count(),
            5
        );
        assert_eq!(
            (0..8)
                .filter(|_| bench.seek("TRIM_HORIZON", &Value::Null, 0).is_ok())
                .count(),
            4
        );
    }

    #[test]
    fn an_iterator_expires_after_five_minutes() {
        let mut bench = Bench::new(1);
        let iterator = bench.seek("TRIM_HORIZON", &Value::Null, 0).expect("found");
        assert!(bench.read(&iterator, 10, 299_000).is_ok());
        assert_eq!(
            bench
                .read(&iterator, 10, 301_000)
                .expect_err("expired")
                .kind,
            "ExpiredIteratorException"
        );
    }

    #[test]
    fn what_is_older_than_the_retention_is_gone() {
        let mut bench = Bench::new(1);
        let put = bench.put(&[3], 0).expect("put");
        let day = 25 * 3_600_000;
        let iterator = bench
            .seek(
                "AT_SEQUENCE_NUMBER",
                &put["Records"][0]["SequenceNumber"],
                day,
            )
            .expect("an iterator all the same");
        assert_eq!(
            bench.read(&iterator, 10, day).expect("read")["Records"],
            json!([])
        );
    }

    #[test]
    fn a_resharded_parent_can_be_read_to_its_end() {
        let mut bench = Bench::new(1);
        bench.put(&[3], 0).expect("put");
        bench.kinesis.reshard("s", 2, 0).expect("split");
        let put = bench.put(&[3], 0).expect("put");
        assert_ne!(put["Records"][0]["ShardId"], "shardId-000000000000");
        let iterator = bench.seek("TRIM_HORIZON", &Value::Null, 0).expect("found");
        let answer = bench.read(&iterator, 10, 0).expect("read");
        assert_eq!(answer["Records"].as_array().map(Vec::len), Some(1));
        assert!(answer.get("NextShardIterator").is_none());
        assert_eq!(answer["ChildShards"].as_array().map(Vec::len), Some(2));
        bench.kinesis.reshard("s", 1, 0).expect("merged");
        assert_eq!(bench.kinesis.shard_ids("s").len(), 4);
        assert!(
            bench.kinesis.reshard("s", 3, 0).is_err(),
            "more than double"
        );
    }

    #[test]
    fn shards_are_listed_in_pages() {
        let mut bench = Bench::new(4);
        let first = bench.call("ListShards", json!({}), 0).expect("listed");
        assert_eq!(first["Shards"].as_array().map(Vec::len), Some(3));
        let rest = bench
            .call("ListShards", json!({"NextToken": first["NextToken"]}), 0)
            .expect("listed");
        assert_eq!(rest["Shards"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn a_sequence_number_that_was_never_given_is_refused() {
        let mut bench = Bench::new(1);
        assert_eq!(
            bench
                .seek("AT_SEQUENCE_NUMBER", &json!("5"), 0)
                .expect_err("refused")
                .kind,
            "InvalidArgumentException"
        );
    }

    #[test]
    fn sequence_numbers_outgrow_their_order_as_text() {
        let mut bench = Bench::new(1);
        let put = bench.put(&[1; 30], 0).expect("put");
        let numbers: Vec<&str> = put["Records"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|r| text(r, "SequenceNumber"))
            .collect();
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        assert_ne!(numbers, sorted);
    }
}
