//! PutRecords: limits of records and requests, then record by record into shards.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::shard::StoredRecord;
use super::{Kinesis, no_stream};
use crate::fake_aws::clock::Millis;
use crate::fake_aws::error::FakeError;
use crate::fake_aws::faults::FaultInjector;
use crate::fake_aws::{md5, text};

const LARGEST_REQUEST: usize = 10 << 20;

impl Kinesis {
    pub(super) fn put(
        &mut self,
        name: &str,
        request: &Value,
        now: Millis,
        faults: &FaultInjector,
    ) -> Result<Value, FakeError> {
        let records = request["Records"].as_array().cloned().unwrap_or_default();
        let largest_record = self.stream(name)?.largest_record;
        let sizes = check_records(&records, largest_record)?;
        let mut failed = 0;
        let mut answers = Vec::new();
        for (record, bytes) in records.iter().zip(sizes) {
            self.counts.offered += 1;
            let answer = self.put_one(name, record, bytes, now, faults)?;
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
        faults: &FaultInjector,
    ) -> Result<Value, FakeError> {
        let hash = match record["ExplicitHashKey"].as_str() {
            Some(digits) => digits
                .parse()
                .map_err(|_| FakeError::client("InvalidArgumentException", "ExplicitHashKey"))?,
            None => u128::from_be_bytes(md5(text(record, "PartitionKey").as_bytes())),
        };
        if faults.draw(|faults| faults.entry_failure) {
            return Ok(
                json!({"ErrorCode": "InternalFailure", "ErrorMessage": "Internal Service Failure"}),
            );
        }
        let throttled = faults.draw(|faults| faults.throttle);
        let twice = faults.draw(|faults| faults.duplicate);
        let sequences = [self.next_sequence(), self.next_sequence()];
        let enforce_rates = self.enforce_rates;
        let shards = &mut self.stream(name)?.shards;
        let shard = shards.iter_mut().find(|shard| shard.is_open_for(hash));
        let shard = shard.ok_or_else(|| no_stream(name))?;
        let over_rate = enforce_rates && !throttled && !shard.charge_write(bytes, now);
        if throttled || over_rate {
            let message = format!("Rate exceeded for shard {} in stream {name}", shard.id);
            self.counts.over_rate += u64::from(over_rate);
            return Ok(
                json!({"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": message}),
            );
        }
        let id = shard.id.clone();
        for sequence in &sequences[..1 + usize::from(twice)] {
            shard.records.push_back(StoredRecord {
                sequence: *sequence,
                at: now,
                key: text(record, "PartitionKey").to_owned(),
                data: text(record, "Data").to_owned(),
                bytes,
            });
        }
        self.counts.taken += 1;
        self.counts.bytes_in += bytes as u64;
        // Of two copies the later one is returned, as when a client hears only of its second attempt.
        let answered = sequences[usize::from(twice)];
        Ok(json!({"ShardId": id, "SequenceNumber": answered.to_string()}))
    }
}

/// The limits of a request and its records; the size of each record's data.
fn check_records(records: &[Value], largest: usize) -> Result<Vec<usize>, FakeError> {
    if records.is_empty() || records.len() > 500 {
        return Err(FakeError::client("ValidationException", "1 to 500 records"));
    }
    let (mut sizes, mut total) = (Vec::new(), 0);
    for record in records {
        let data = STANDARD
            .decode(text(record, "Data"))
            .map_err(|_| FakeError::client("SerializationException", "Data is not base64"))?;
        let key = text(record, "PartitionKey");
        if data.len() + key.len() > largest || !(1..=256).contains(&key.len()) {
            return Err(FakeError::client(
                "ValidationException",
                &format!("a record has at most {largest} bytes and a key of 1 to 256 characters"),
            ));
        }
        total += data.len() + key.len();
        sizes.push(data.len());
    }
    if total > LARGEST_REQUEST {
        return Err(FakeError::client(
            "InvalidArgumentException",
            "the request is longer than 10485760 bytes",
        ));
    }
    Ok(sizes)
}
