//! Creating, checking and removing a pipeline's queues and stream on the fake AWS.

use std::time::Duration;

use serde_json::json;
use streampress_crds::queue_check::Mismatch;
use streampress_crds::settings::{QueueSettings, StreamSettings, TransportSettings};
use streampress_tests::aws::Cloud;
use streampress_transport::Queue;
use streampress_transport::aws::Aws;
use streampress_transport::aws::provision::{
    self, ProvisionOutcome, ProvisionPlan, ProvisionResult, ResourceOutcome, delete,
};

const RECORD_BYTES: usize = 400 * 1024;

fn queue(name: &str) -> QueueSettings {
    QueueSettings {
        name: format!("{name}.fifo"),
        dead_letter_name: format!("{name}-dlq.fifo"),
        visibility_timeout_seconds: 60,
        max_receive_count: 20,
    }
}

fn plan() -> ProvisionPlan {
    let transport = TransportSettings {
        files_queue: queue("files"),
        chunks_queue: queue("chunks"),
        receipts_queue: Some(queue("receipts")),
        stream: StreamSettings {
            name: "stream".into(),
            shards: 2,
            retention_hours: 48,
        },
    };
    ProvisionPlan {
        tags: [("team".to_owned(), "ours".to_owned())].into(),
        ..ProvisionPlan::new(transport, ("streampress.dev/owner", "me"))
    }
}

async fn create(aws: &Aws, plan: &ProvisionPlan) -> ProvisionResult<Vec<ResourceOutcome>> {
    let provisioned = provision::create(aws, plan).await?;
    Ok(provisioned.outcomes)
}

async fn check(aws: &Aws, plan: &ProvisionPlan) -> ProvisionResult<Vec<Mismatch>> {
    provision::check(aws, plan, RECORD_BYTES).await
}

fn outcomes(done: &[ResourceOutcome]) -> Vec<&ProvisionOutcome> {
    done.iter().map(|done| &done.outcome).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_creates_what_is_missing_and_nothing_twice() {
    let cloud = Cloud::start().await;
    let first = create(&cloud.aws, &plan()).await.expect("made");
    assert!(
        outcomes(&first)
            .iter()
            .all(|outcome| **outcome == ProvisionOutcome::Created),
        "{first:?}"
    );
    assert_eq!(check(&cloud.aws, &plan()).await.expect("readable"), []);
    let second = create(&cloud.aws, &plan()).await.expect("made");
    assert!(
        outcomes(&second)
            .iter()
            .all(|outcome| **outcome == ProvisionOutcome::Unchanged),
        "{second:?}"
    );
    let opened = cloud
        .aws
        .queue("files.fifo", Duration::from_secs(60))
        .await
        .expect("opens");
    assert_eq!(
        (opened.max_receive_count(), opened.dead_letters().is_some()),
        (Some(1000), true)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tagged_queues_and_streams_are_changed_to_the_planned_settings() {
    let cloud = Cloud::start().await;
    create(&cloud.aws, &plan()).await.expect("made");
    let mut changed = plan();
    changed.transport.files_queue.max_receive_count = 7;
    // More than double, which takes more than one call.
    changed.transport.stream.shards = 9;
    changed.transport.stream.retention_hours = 24;
    let findings = check(&cloud.aws, &changed).await.expect("readable");
    assert_eq!(findings.len(), 1, "{findings:?}");
    let done = create(&cloud.aws, &changed).await.expect("made");
    assert_eq!(
        done[1].outcome,
        ProvisionOutcome::Changed(vec!["RedrivePolicy".into()])
    );
    assert_eq!(
        done[6].outcome,
        ProvisionOutcome::Changed(vec!["shards".into()]),
        "a waiting message may need what is older than the lower retention"
    );
    changed.lower_retention_from = Some(48);
    let done = create(&cloud.aws, &changed).await.expect("made");
    let lowered = ProvisionOutcome::Changed(vec!["retention".into()]);
    assert_eq!(done[6].outcome, lowered);
    assert_eq!(check(&cloud.aws, &changed).await.expect("readable"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_and_streams_without_our_tag_are_neither_changed_nor_removed() {
    let cloud = Cloud::start().await;
    cloud.make_queue("files", 5);
    cloud.make_stream("stream", 1);
    let done = create(&cloud.aws, &plan()).await.expect("made");
    assert_eq!(
        outcomes(&done),
        [
            &ProvisionOutcome::NotOwned,
            &ProvisionOutcome::NotOwned,
            &ProvisionOutcome::Created,
            &ProvisionOutcome::Created,
            &ProvisionOutcome::Created,
            &ProvisionOutcome::Created,
            &ProvisionOutcome::NotOwned
        ]
    );
    let findings = check(&cloud.aws, &plan()).await.expect("readable");
    assert!(
        findings
            .iter()
            .any(|finding| finding.problem.contains("maxReceiveCount is 5")),
        "{findings:?}"
    );
    let removed = delete(&cloud.aws, &plan()).await.expect("removed");
    assert_eq!(
        outcomes(&removed),
        [
            &ProvisionOutcome::NotOwned,
            &ProvisionOutcome::NotOwned,
            &ProvisionOutcome::Deleted,
            &ProvisionOutcome::Deleted,
            &ProvisionOutcome::Deleted,
            &ProvisionOutcome::Deleted,
            &ProvisionOutcome::NotOwned
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
async fn missing_queues_and_streams_are_reported_with_the_remedy() {
    let cloud = Cloud::start().await;
    let findings = check(&cloud.aws, &plan()).await.expect("readable");
    assert_eq!(
        findings
            .iter()
            .filter(|finding| finding.fatal && finding.problem.contains("streampress setup"))
            .count(),
        4
    );
    create(&cloud.aws, &plan()).await.expect("made");
    let findings = provision::check(&cloud.aws, &plan(), 2 << 20).await;
    let findings = findings.expect("readable");
    assert!(
        findings
            .iter()
            .any(|finding| finding.fatal && finding.problem.contains("codec.recordSize")),
        "{findings:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_rule_may_send_to_the_files_queue() {
    let cloud = Cloud::start().await;
    let mut fed = plan();
    fed.event_rule = Some("arn:aws:events:us-east-1:1:rule/bucket".into());
    create(&cloud.aws, &fed).await.expect("made");
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
async fn an_event_rule_is_added_to_a_queues_policy_and_other_statements_stay() {
    let cloud = Cloud::start().await;
    create(&cloud.aws, &plan()).await.expect("made");
    // A user allowed another account to send; a policy may hold a single statement without a list.
    let others = json!({"Sid": "Partner", "Effect": "Allow", "Principal": {"AWS": "111122223333"}, "Action": "sqs:SendMessage", "Resource": "*"});
    let policy = json!({"Version": "2008-10-17", "Id": "ours", "Statement": others});
    let request = json!({"QueueUrl": "files.fifo", "Attributes": {"Policy": policy.to_string()}});
    cloud
        .fake_aws
        .ask_sqs("SetQueueAttributes", &request)
        .expect("set");
    for (rule, outcome) in [
        (
            "rule/first",
            ProvisionOutcome::Changed(vec!["ContentBasedDeduplication".into(), "Policy".into()]),
        ),
        ("rule/first", ProvisionOutcome::Unchanged),
        // Another rule replaces the first.
        (
            "rule/second",
            ProvisionOutcome::Changed(vec!["Policy".into()]),
        ),
    ] {
        let mut fed = plan();
        fed.event_rule = Some(format!("arn:aws:events:us-east-1:1:{rule}"));
        let done = create(&cloud.aws, &fed).await.expect("made");
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
async fn a_missing_permission_is_reported_with_its_resource_and_the_remedy() {
    let cloud = Cloud::start().await;
    create(&cloud.aws, &plan()).await.expect("made");
    let mut denials = vec![
        ("kinesis", "ListShards", "stream"),
        ("kinesis", "GetShardIterator", "stream"),
        ("kinesis", "GetRecords", "stream"),
        ("kinesis", "PutRecords", "stream"),
    ];
    for queue in ["files.fifo", "chunks.fifo", "receipts.fifo"] {
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
    for dead_letters in ["files-dlq.fifo", "chunks-dlq.fifo", "receipts-dlq.fifo"] {
        denials.push(("sqs", "SendMessage", dead_letters));
    }
    for (service, action, resource) in denials {
        cloud.fake_aws.deny(action, resource);
        let kind = if service == "sqs" { "queue" } else { "stream" };
        let expected = format!(
            "error: {kind} {resource}: the credentials lack the permission {service}:{action}; add it to their policy"
        );
        let findings = check(&cloud.aws, &plan()).await.expect("readable");
        let findings: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(findings, [expected]);
        cloud.fake_aws.allow_all();
    }
    assert_eq!(check(&cloud.aws, &plan()).await.expect("readable"), []);
}
