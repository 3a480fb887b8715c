//! The behaviour that AWS documents for streams.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::fake_aws::faults::Faults;
use crate::fake_aws::text;

struct StreamFixture {
    kinesis: Kinesis,
    faults: FaultInjector,
}

impl StreamFixture {
    fn new(shards: usize) -> Self {
        let mut fixture = Self {
            kinesis: Kinesis::new(true),
            faults: FaultInjector::new(Faults::default(), 1),
        };
        fixture
            .call("CreateStream", json!({"ShardCount": shards}), 0)
            .expect("created");
        fixture
    }

    fn call(&mut self, action: &str, mut request: Value, now: Millis) -> Result<Value, FakeError> {
        request["StreamName"] = json!("s");
        self.kinesis.call(action, &request, now, &self.faults)
    }

    fn put(&mut self, sizes: &[usize], now: Millis) -> Result<Value, FakeError> {
        let records: Vec<_> = sizes
            .iter()
            .map(|size| json!({"PartitionKey": "k", "Data": STANDARD.encode(vec![7; *size])}))
            .collect();
        self.call("PutRecords", json!({"Records": records}), now)
    }

    fn seek(&mut self, kind: &str, at: &Value, now: Millis) -> Result<String, FakeError> {
        let request = json!({"ShardId": "shardId-000000000000", "ShardIteratorType": kind, "StartingSequenceNumber": at});
        self.call("GetShardIterator", request, now)
            .map(|answer| text(&answer, "ShardIterator").to_owned())
    }

    fn read(&mut self, iterator: &str, limit: u64, now: Millis) -> Result<Value, FakeError> {
        self.call(
            "GetRecords",
            json!({"ShardIterator": iterator, "Limit": limit}),
            now,
        )
    }
}

#[test]
fn a_put_record_is_read_back_from_its_sequence_number() {
    let mut fixture = StreamFixture::new(1);
    let put = fixture.put(&[3, 4, 5], 0).expect("put");
    let iterator = fixture
        .seek(
            "AT_SEQUENCE_NUMBER",
            &put["Records"][1]["SequenceNumber"],
            0,
        )
        .expect("found");
    let answer = fixture.read(&iterator, 1, 0).expect("read");
    assert_eq!(answer["Records"][0]["Data"], STANDARD.encode([7; 4]));
    let rest = fixture
        .read(text(&answer, "NextShardIterator"), 10, 0)
        .expect("read");
    assert_eq!(rest["Records"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_shard_takes_a_megabyte_a_second_and_refuses_single_records() {
    let mut fixture = StreamFixture::new(1);
    let answer = fixture.put(&[400 * 1024; 4], 0).expect("put");
    assert_eq!(answer["FailedRecordCount"], 2);
    assert_eq!(
        answer["Records"][3]["ErrorCode"],
        "ProvisionedThroughputExceededException"
    );
    assert_eq!(
        fixture.put(&[400 * 1024; 4], 1000).expect("put")["FailedRecordCount"],
        2
    );
}

#[test]
fn one_oversize_record_fails_the_whole_request() {
    let mut fixture = StreamFixture::new(1);
    assert_eq!(
        fixture
            .put(&[10, (1 << 20) + 1], 0)
            .expect_err("refused")
            .code,
        "ValidationException"
    );
    assert!(fixture.put(&[1; 501], 0).is_err());
    assert_eq!(fixture.kinesis.counts.taken, 0);
}

#[test]
fn a_shard_allows_five_reads_and_five_seeks_a_second() {
    let mut fixture = StreamFixture::new(1);
    let iterator = fixture
        .seek("TRIM_HORIZON", &Value::Null, 0)
        .expect("found");
    assert_eq!(
        (0..8)
            .filter(|_| fixture.read(&iterator, 10, 0).is_ok())
            .count(),
        5
    );
    assert_eq!(
        (0..8)
            .filter(|_| fixture.seek("TRIM_HORIZON", &Value::Null, 0).is_ok())
            .count(),
        4
    );
}

#[test]
fn an_iterator_expires_after_five_minutes() {
    let mut fixture = StreamFixture::new(1);
    let iterator = fixture
        .seek("TRIM_HORIZON", &Value::Null, 0)
        .expect("found");
    assert!(fixture.read(&iterator, 10, 299_000).is_ok());
    assert_eq!(
        fixture
            .read(&iterator, 10, 301_000)
            .expect_err("expired")
            .code,
        "ExpiredIteratorException"
    );
}

#[test]
fn records_older_than_the_retention_are_gone() {
    let mut fixture = StreamFixture::new(1);
    let put = fixture.put(&[3], 0).expect("put");
    let day = 25 * 3_600_000;
    let iterator = fixture
        .seek(
            "AT_SEQUENCE_NUMBER",
            &put["Records"][0]["SequenceNumber"],
            day,
        )
        .expect("an iterator all the same");
    assert_eq!(
        fixture.read(&iterator, 10, day).expect("read")["Records"],
        json!([])
    );
}

#[test]
fn a_resharded_parent_can_be_read_to_its_end() {
    let mut fixture = StreamFixture::new(1);
    fixture.put(&[3], 0).expect("put");
    fixture.kinesis.reshard("s", 2, 0).expect("split");
    let put = fixture.put(&[3], 0).expect("put");
    assert_ne!(put["Records"][0]["ShardId"], "shardId-000000000000");
    let iterator = fixture
        .seek("TRIM_HORIZON", &Value::Null, 0)
        .expect("found");
    let answer = fixture.read(&iterator, 10, 0).expect("read");
    assert_eq!(answer["Records"].as_array().map(Vec::len), Some(1));
    assert!(answer.get("NextShardIterator").is_none());
    assert_eq!(answer["ChildShards"].as_array().map(Vec::len), Some(2));
    fixture.kinesis.reshard("s", 1, 0).expect("merged");
    assert_eq!(fixture.kinesis.shard_ids("s").len(), 4);
    assert!(
        fixture.kinesis.reshard("s", 3, 0).is_err(),
        "more than double"
    );
}

#[test]
fn shards_are_listed_in_pages() {
    let mut fixture = StreamFixture::new(4);
    let first = fixture.call("ListShards", json!({}), 0).expect("listed");
    assert_eq!(first["Shards"].as_array().map(Vec::len), Some(3));
    let rest = fixture
        .call("ListShards", json!({"NextToken": first["NextToken"]}), 0)
        .expect("listed");
    assert_eq!(rest["Shards"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_sequence_number_that_was_never_issued_is_refused() {
    let mut fixture = StreamFixture::new(1);
    assert_eq!(
        fixture
            .seek("AT_SEQUENCE_NUMBER", &json!("5"), 0)
            .expect_err("refused")
            .code,
        "InvalidArgumentException"
    );
}

#[test]
fn sequence_numbers_do_not_sort_as_text() {
    let mut fixture = StreamFixture::new(1);
    let put = fixture.put(&[1; 30], 0).expect("put");
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
