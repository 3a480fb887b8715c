//! Making, checking and removing what a pipeline needs, against the stand-in.

use std::time::Duration;

use serde_json::json;
use streampress_tests::aws::Cloud;
use streampress_transport::Queue;
use streampress_transport::aws::provision::{
    Done, Outcome, Wanted, WantedQueue, WantedStream, check, make, remove,
};

fn queue(name: &str) -> WantedQueue {
    WantedQueue {
        name: format!("{name}.fifo"),
        dead_letter_name: format!("{name}-dlq.fifo"),
        visibility_timeout_seconds: 60,
        max_receive_count: 20,
        event_rule: None,
    }
}

fn wanted() -> Wanted {
    Wanted {
        files_queue: queue("files"),
        chunks_queue: queue("chunks"),
        stream: WantedStream {
            name: "stream".into(),
            shards: 2,
            retention_hours: 48,
            encrypted: true,
        },
        record_bytes: 400 * 1024,
        owner: ("streampress.dev/owner".into(), "me".into()),
        tags: [("team".to_owned(), "ours".to_owned())].into(),
    }
}

fn outcomes(done: &[Done]) -> Vec<&Outcome> {
    done.iter().map(|done| &done.outcome).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_makes_what_is_missing_and_nothing_twice() {
    let cloud = Cloud::start().await;
    let first = make(&cloud.aws, &wanted()).await.expect("made");
    assert!(
        outcomes(&first)
            .iter()
            .all(|outcome| **outcome == Outcome::Made),
        "{first:?}"
    );
    assert_eq!(check(&cloud.aws, &wanted()).await.expect("looked"), []);
    let second = make(&cloud.aws, &wanted()).await.expect("made");
    assert!(
        outcomes(&second)
            .iter()
            .all(|outcome| **outcome == Outcome::Kept),
        "{second:?}"
    );
    let opened = cloud
        .aws
        .queue("files.fifo", Duration::from_secs(60))
        .await
        .expect("opens");
    assert_eq!(
        (opened.max_receive_count(), opened.dead_letters().is_some()),
        (Some(20), true)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ours_is_brought_to_what_is_wanted() {
    let cloud = Cloud::start().await;
    make(&cloud.aws, &wanted()).await.expect("made");
    let mut changed = wanted();
    changed.files_queue.max_receive_count = 7;
    // More than the double, which takes AWS more than one call.
    changed.stream.shards = 9;
    changed.stream.retention_hours = 24;
    let findings = check(&cloud.aws, &changed).await.expect("looked");
    assert_eq!(findings.len(), 2, "{findings:?}");
    let done = make(&cloud.aws, &changed).await.expect("made");
    assert_eq!(
        done[1].outcome,
        Outcome::Changed(vec!["RedrivePolicy".into()])
    );
    assert_eq!(
        done[4].outcome,
        Outcome::Changed(vec!["retention".into(), "shards".into()])
    );
    assert_eq!(check(&cloud.aws, &changed).await.expect("looked"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_somebody_elses_is_neither_changed_nor_removed() {
    let cloud = Cloud::start().await;
    cloud.make_queue("files", 5);
    cloud.make_stream("stream", 1);
    let done = make(&cloud.aws, &wanted()).await.expect("made");
    assert_eq!(
        outcomes(&done),
        [
            &Outcome::Foreign,
            &Outcome::Foreign,
            &Outcome::Made,
            &Outcome::Made,
            &Outcome::Foreign
        ]
    );
    let findings = check(&cloud.aws, &wanted()).await.expect("looked");
    assert!(
        findings
            .iter()
            .any(|finding| finding.problem.contains("maxReceiveCount is 5")),
        "{findings:?}"
    );
    let removed = remove(&cloud.aws, &wanted()).await.expect("removed");
    assert_eq!(
        outcomes(&removed),
        [
            &Outcome::Foreign,
            &Outcome::Foreign,
            &Outcome::Removed,
            &Outcome::Removed,
            &Outcome::Foreign
        ]
    );
    assert!(
        cloud
            .fake_aws
            .ask_sqs("GetQueueUrl", &json!({"QueueName": "files.fifo"}))
            .is_ok()
    );
    assert!(
        cloud
            .fake_aws
            .ask_sqs("GetQueueUrl", &json!({"QueueName": "chunks.fifo"}))
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named_with_the_way_out() {
    let cloud = Cloud::start().await;
    let findings = check(&cloud.aws, &wanted()).await.expect("looked");
    assert_eq!(
        findings
            .iter()
            .filter(|finding| finding.fatal && finding.problem.contains("streampress setup"))
            .count(),
        3
    );
    let mut large = wanted();
    large.record_bytes = 2 << 20;
    make(&cloud.aws, &large).await.expect("made");
    let findings = check(&cloud.aws, &large).await.expect("looked");
    assert!(
        findings
            .iter()
            .any(|finding| finding.fatal && finding.problem.contains("codec.recordSize")),
        "{findings:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buckets_rule_may_send_to_the_files_queue() {
    let cloud = Cloud::start().await;
    let mut fed = wanted();
    fed.files_queue.event_rule = Some("arn:aws:events:us-east-1:1:rule/bucket".into());
    make(&cloud.aws, &fed).await.expect("made");
    let url = json!({"QueueUrl": "files.fifo"});
    let attributes = cloud
        .fake_aws
        .ask_sqs("GetQueueAttributes", &url)
        .expect("there");
    let policy = attributes["Attributes"]["Policy"]
        .as_str()
        .expect("a policy");
    assert!(
        policy.contains("events.amazonaws.com") && policy.contains("rule/bucket"),
        "{policy}"
    );
    assert_eq!(
        attributes["Attributes"]["ContentBasedDeduplication"],
        "true"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buckets_rule_is_added_to_a_queues_policy_and_others_stay() {
    let cloud = Cloud::start().await;
    make(&cloud.aws, &wanted()).await.expect("made");
    // Somebody let another account send; a policy may hold its one statement without a list.
    let others = json!({"Sid": "Partner", "Effect": "Allow", "Principal": {"AWS": "111122223333"}, "Action": "sqs:SendMessage", "Resource": "*"});
    let policy = json!({"Version": "2008-10-17", "Id": "ours", "Statement": others});
    let ask = json!({"QueueUrl": "files.fifo", "Attributes": {"Policy": policy.to_string()}});
    cloud
        .fake_aws
        .ask_sqs("SetQueueAttributes", &ask)
        .expect("set");
    for (rule, outcome) in [
        (
            "rule/first",
            Outcome::Changed(vec!["ContentBasedDeduplication".into(), "Policy".into()]),
        ),
        ("rule/first", Outcome::Kept),
        // Another rule takes the place of the first.
        ("rule/second", Outcome::Changed(vec!["Policy".into()])),
    ] {
        let mut fed = wanted();
        fed.files_queue.event_rule = Some(format!("arn:aws:events:us-east-1:1:{rule}"));
        let done = make(&cloud.aws, &fed).await.expect("made");
        assert_eq!(done[1].outcome, outcome, "{rule}");
        let url = json!({"QueueUrl": "files.fifo"});
        let there = cloud
            .fake_aws
            .ask_sqs("GetQueueAttributes", &url)
            .expect("there");
        let policy = there["Attributes"]["Policy"].as_str().expect("a policy");
        let policy: serde_json::Value = serde_json::from_str(policy).expect("JSON");
        let statements = policy["Statement"].as_array().expect("a list");
        assert_eq!(statements.len(), 2, "{policy}");
        assert_eq!((&statements[0], &policy["Id"]), (&others, &json!("ours")));
        assert!(statements[1].to_string().contains(rule), "{policy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_that_lacks_is_named_with_its_resource_and_the_way_out() {
    let cloud = Cloud::start().await;
    make(&cloud.aws, &wanted()).await.expect("made");
    let mut denials = vec![
        ("kinesis", "ListShards", "stream"),
        ("kinesis", "GetShardIterator", "stream"),
        ("kinesis", "GetRecords", "stream"),
        ("kinesis", "PutRecords", "stream"),
    ];
    for queue in ["files.fifo", "chunks.fifo"] {
        let actions = [
            "ReceiveMessage",
            "ChangeMessageVisibility",
            "DeleteMessage",
            "SendMessage",
        ];
        for action in actions {
            denials.push(("sqs", action, queue));
        }
    }
    for dead_letters in ["files-dlq.fifo", "chunks-dlq.fifo"] {
        denials.push(("sqs", "SendMessage", dead_letters));
    }
    for (service, action, resource) in denials {
        cloud.fake_aws.deny(action, resource);
        let kind = if service == "sqs" { "queue" } else { "stream" };
        let expected = format!(
            "error: {kind} {resource}: the credentials lack the permission {service}:{action}; add it to their policy"
        );
        let findings = check(&cloud.aws, &wanted()).await.expect("looked");
        let findings: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(findings, [expected]);
        cloud.fake_aws.allow_all();
    }
    assert_eq!(check(&cloud.aws, &wanted()).await.expect("looked"), []);
}
