//! The behaviour that AWS documents for FIFO queues.

use super::*;
use crate::fake_aws::faults::Faults;

const MINUTE: Millis = 60_000;

struct QueueFixture {
    sqs: Sqs,
    faults: FaultInjector,
}

impl QueueFixture {
    fn new() -> Self {
        let mut fixture = Self {
            sqs: Sqs::new(true),
            faults: FaultInjector::new(Faults::default(), 1),
        };
        fixture
            .call(
                "CreateQueue",
                json!({"QueueName": "d.fifo", "Attributes": {"FifoQueue": "true"}}),
                0,
            )
            .expect("created");
        let policy =
            json!({"deadLetterTargetArn": arn("d.fifo"), "maxReceiveCount": 2}).to_string();
        let attributes = json!({"FifoQueue": "true", "RedrivePolicy": policy});
        fixture
            .call(
                "CreateQueue",
                json!({"QueueName": "q.fifo", "Attributes": attributes}),
                0,
            )
            .expect("created");
        fixture
    }

    fn call(&mut self, action: &str, request: Value, now: Millis) -> Result<Value, FakeError> {
        self.sqs
            .call(action, &request, now, &self.faults, "http://localhost")
    }

    fn send(&mut self, group: &str, dedup: &str, now: Millis) -> Result<Value, FakeError> {
        self.call("SendMessage", json!({"QueueUrl": "q.fifo", "MessageBody": dedup, "MessageGroupId": group, "MessageDeduplicationId": dedup}), now)
    }

    /// Bodies and receipts.
    fn receive(&mut self, max: u64, now: Millis) -> Vec<(String, String)> {
        let answer = self
            .sqs
            .receive(
                &json!({"QueueUrl": "q.fifo", "MaxNumberOfMessages": max}),
                now,
                true,
            )
            .expect("received");
        let messages = answer
            .map(|answer| answer["Messages"].clone())
            .unwrap_or_default();
        messages
            .as_array()
            .into_iter()
            .flatten()
            .map(|m| {
                (
                    text(m, "Body").to_owned(),
                    text(m, "ReceiptHandle").to_owned(),
                )
            })
            .collect()
    }

    fn bodies(&mut self, max: u64, now: Millis) -> Vec<String> {
        self.receive(max, now)
            .into_iter()
            .map(|(body, _)| body)
            .collect()
    }

    fn delete(&mut self, receipt: &str, now: Millis) -> Result<Value, FakeError> {
        self.call(
            "DeleteMessage",
            json!({"QueueUrl": "q.fifo", "ReceiptHandle": receipt}),
            now,
        )
    }

    fn change_visibility(
        &mut self,
        receipt: &str,
        secs: u64,
        now: Millis,
    ) -> Result<Value, FakeError> {
        self.call(
            "ChangeMessageVisibility",
            json!({"QueueUrl": "q.fifo", "ReceiptHandle": receipt, "VisibilityTimeout": secs}),
            now,
        )
    }
}

#[test]
fn a_group_is_blocked_while_one_of_its_messages_is_in_flight() {
    let mut fixture = QueueFixture::new();
    for (group, id) in [("g", "1"), ("g", "2"), ("h", "3")] {
        fixture.send(group, id, 0).expect("sent");
    }
    let first = fixture.receive(1, 0);
    assert_eq!(first[0].0, "1");
    assert_eq!(fixture.bodies(10, 1), ["3"]);
    fixture.delete(&first[0].1, 2).expect("deleted");
    assert_eq!(fixture.bodies(10, 3), ["2"]);
}

#[test]
fn an_extended_first_message_blocks_the_messages_after_it() {
    let mut fixture = QueueFixture::new();
    fixture.send("g", "1", 0).expect("sent");
    fixture.send("g", "2", 0).expect("sent");
    let both = fixture.receive(10, 0);
    assert_eq!(both.len(), 2);
    fixture
        .change_visibility(&both[0].1, 600, 1000)
        .expect("extended");
    assert!(fixture.bodies(10, MINUTE).is_empty());
}

#[test]
fn a_receipt_expires_with_the_visibility_and_with_the_next_receive() {
    let mut fixture = QueueFixture::new();
    fixture.send("g", "1", 0).expect("sent");
    let old = fixture.receive(1, 0).remove(0).1;
    assert_eq!(
        fixture.delete(&old, MINUTE).expect_err("expired").code,
        "InvalidParameterValue"
    );
    let new = fixture.receive(1, MINUTE).remove(0).1;
    assert!(fixture.delete(&old, MINUTE + 1).is_err());
    assert_eq!(
        fixture
            .change_visibility(&old, 5, MINUTE + 1)
            .expect_err("stale")
            .code,
        "MessageNotInflight"
    );
    fixture.delete(&new, MINUTE + 1).expect("deleted");
    fixture
        .delete(&new, MINUTE + 1)
        .expect("deleting twice is harmless");
}

#[test]
fn a_second_message_with_the_same_id_is_dropped_for_five_minutes_even_after_the_delete() {
    let mut fixture = QueueFixture::new();
    let first = fixture.send("g", "1", 0).expect("sent");
    let receipt = fixture.receive(1, 0).remove(0).1;
    fixture.delete(&receipt, 1).expect("deleted");
    assert_eq!(
        fixture.send("g", "1", 4 * MINUTE).expect("sent")["MessageId"],
        first["MessageId"]
    );
    assert!(fixture.bodies(10, 4 * MINUTE).is_empty());
    fixture.send("g", "1", 6 * MINUTE).expect("sent");
    assert_eq!(fixture.bodies(10, 6 * MINUTE), ["1"]);
}

#[test]
fn a_message_received_too_often_goes_to_the_dead_letters() {
    let mut fixture = QueueFixture::new();
    fixture.send("g", "1", 0).expect("sent");
    for round in 0..2 {
        assert_eq!(fixture.bodies(1, round * MINUTE), ["1"]);
    }
    assert!(fixture.bodies(1, 2 * MINUTE).is_empty());
    assert_eq!(
        (fixture.sqs.len("q.fifo"), fixture.sqs.len("d.fifo")),
        (0, 1)
    );
}

#[test]
fn a_dead_letter_queue_must_be_named_by_the_arn_of_a_fifo_queue() {
    let mut fixture = QueueFixture::new();
    for target in [
        "http://here/000000000000/d.fifo".to_owned(),
        arn("none.fifo"),
        arn("standard"),
    ] {
        let policy = json!({"deadLetterTargetArn": target, "maxReceiveCount": 2}).to_string();
        let request = json!({"QueueName": "x.fifo", "Attributes": {"FifoQueue": "true", "RedrivePolicy": policy}});
        assert!(fixture.call("CreateQueue", request, 0).is_err(), "{target}");
    }
}

#[test]
fn sizes_counts_and_rates_are_limited_as_on_aws() {
    let mut fixture = QueueFixture::new();
    let message = |bytes: usize| json!({"QueueUrl": "q.fifo", "MessageBody": "x".repeat(bytes), "MessageGroupId": "g", "MessageDeduplicationId": bytes.to_string()});
    assert!(fixture.call("SendMessage", message(1 << 20), 0).is_ok());
    assert!(
        fixture
            .call("SendMessage", message((1 << 20) + 1), 0)
            .is_err()
    );
    let entries: Vec<_> = (0..11).map(|id| json!({"Id": id.to_string()})).collect();
    let batch = json!({"QueueUrl": "q.fifo", "Entries": entries});
    assert_eq!(
        fixture
            .call("DeleteMessageBatch", batch, 0)
            .expect_err("eleven")
            .code,
        "TooManyEntriesInBatchRequest"
    );
    let refused = (0..400)
        .filter(|_| {
            fixture
                .change_visibility("none", 1, 5)
                .is_err_and(|e| e.code == "RequestThrottled")
        })
        .count();
    assert_eq!(refused, 100);
}

#[test]
fn visibility_ends_twelve_hours_after_the_receive() {
    let mut fixture = QueueFixture::new();
    fixture.send("g", "1", 0).expect("sent");
    let receipt = fixture.receive(1, 0).remove(0).1;
    fixture
        .change_visibility(&receipt, 43_200, 0)
        .expect("twelve hours");
    assert!(fixture.change_visibility(&receipt, 43_200, 1000).is_err());
}

#[test]
fn the_same_receive_attempt_gets_the_same_messages() {
    let mut fixture = QueueFixture::new();
    fixture.send("g", "1", 0).expect("sent");
    let request =
        json!({"QueueUrl": "q.fifo", "MaxNumberOfMessages": 10, "ReceiveRequestAttemptId": "a"});
    let mut receive = |now| {
        fixture
            .sqs
            .receive(&request, now, true)
            .expect("received")
            .map(|answer| text(&answer["Messages"][0], "Body").to_owned())
    };
    assert_eq!(receive(0).as_deref(), Some("1"));
    assert_eq!(receive(10).as_deref(), Some("1"));
}

#[test]
fn nothing_is_received_beyond_the_limit_in_flight() {
    let mut fixture = QueueFixture::new();
    fixture.sqs.limit_in_flight(1);
    fixture.send("g", "1", 0).expect("sent");
    fixture.send("h", "2", 0).expect("sent");
    assert_eq!(fixture.bodies(1, 0).len(), 1);
    assert!(fixture.bodies(1, 0).is_empty());
}
