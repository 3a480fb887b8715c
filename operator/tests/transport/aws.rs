//! What only AWS does: it is slow, loses answers, refuses, counts late.

use std::process::Command;
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use streampress_crds::Reason;
use streampress_crds::api::pipeline::{DeletionPolicy, TransportPolicy};
use streampress_operator::transport::TransportPlan;
use streampress_operator::transport::aws::AwsProvisioner;
use streampress_operator::transport::problem::{Problem, Retry};
use streampress_operator::transport::{Contents, Depths, Provisioner, RetentionPlan};
use streampress_tests::fake_aws::clock::{FakeClock, millis};
use streampress_tests::fake_aws::faults::Faults;
use tokio::time::timeout;

use crate::backends::{
    AwsBackend, OTHERS, OURS, PROVISIONING_CALLS, ProvisionerBackend, keys, names,
};

/// Set in the process that takes its endpoint from the SDK's own variables.
const AS_AT_AWS: &str = "STREAMPRESS_AS_AT_AWS";

async fn provide(backend: &AwsBackend, plan: &TransportPlan) -> Result<(), Problem> {
    let provided = backend.provisioner().provide(plan, Some(&keys())).await;
    provided.map(drop)
}

async fn remove(
    backend: &AwsBackend,
    plan: &TransportPlan,
    policy: DeletionPolicy,
) -> Result<Vec<String>, Problem> {
    backend
        .provisioner()
        .remove(plan, policy, Some(&keys()))
        .await
}

/// Repeated, as the operator does; a fault that may pass is none that lasts.
async fn repeated<T>(attempt: impl AsyncFn() -> Result<T, Problem>) -> T {
    for _ in 0..20 {
        match attempt().await {
            Ok(done) => return done,
            Err(problem) => assert!(problem.retry == Retry::Transient, "{problem:?}"),
        }
    }
    panic!("never came to an end");
}

fn queues(backend: &AwsBackend) -> usize {
    let all = backend.fake_aws.ask_sqs("ListQueues", &json!({})).unwrap();
    all["QueueUrls"].as_array().unwrap().len()
}

/// Creates and deletes with faults: then the same exists as without, then nothing, and another pipeline's all the while.
async fn create_and_delete(faults: Faults, seed: u64) {
    let good = AwsBackend::start().await;
    let plan = good.plan(OURS);
    provide(&good, &plan).await.unwrap();
    let wanted = good.resources(&plan);

    let backend = AwsBackend::start_with(seed).await;
    let (plan, other) = (backend.plan(OURS), backend.plan(OTHERS));
    provide(&backend, &other).await.unwrap();
    let others = backend.resources(&other);
    backend.fake_aws.set_faults(faults);
    repeated(async || provide(&backend, &plan).await).await;
    backend.fake_aws.set_faults(Faults::default());
    assert_eq!(backend.resources(&plan), wanted);
    assert_eq!(queues(&backend), 12);
    backend.fake_aws.set_faults(faults);
    let left = repeated(async || remove(&backend, &plan, DeletionPolicy::Delete).await).await;
    backend.fake_aws.set_faults(Faults::default());
    assert_eq!(left, Vec::<String>::new());
    assert!(backend.resources(&plan).is_empty());
    assert_eq!((backend.resources(&other), queues(&backend)), (others, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_faults_the_same_exists_in_the_end_and_nothing_of_others_is_deleted() {
    let nothing = Faults::default();
    let kinds = [
        Faults {
            throttle: 0.2,
            ..nothing
        },
        Faults {
            server_error: 0.2,
            ..nothing
        },
        Faults {
            lost_request: 0.2,
            ..nothing
        },
        Faults {
            lost_response: 0.2,
            ..nothing
        },
        Faults {
            throttle: 0.1,
            server_error: 0.1,
            lost_request: 0.1,
            lost_response: 0.1,
            ..nothing
        },
    ];
    let runs = kinds.iter().zip(1..).flat_map(|(kind, seed)| {
        [
            create_and_delete(*kind, seed),
            create_and_delete(*kind, 100 + seed),
        ]
    });
    join_all(runs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_leaves_nothing_behind_and_is_no_error() {
    join_all(PROVISIONING_CALLS.map(async |call| {
        let backend = AwsBackend::start().await;
        let plan = backend.plan(OURS);
        backend.fake_aws.lose_next(call);
        provide(&backend, &plan)
            .await
            .unwrap_or_else(|problem| panic!("{call}: {problem:?}"));
        assert_eq!(backend.resources(&plan).len(), 7, "{call}");
        backend.fake_aws.lose_next(call);
        let left = remove(&backend, &plan, DeletionPolicy::Delete)
            .await
            .unwrap_or_else(|problem| panic!("{call}: {problem:?}"));
        assert_eq!(left, Vec::<String>::new(), "{call}");
        assert!(backend.resources(&plan).is_empty(), "{call}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_refused_is_named_with_its_permission_and_the_remedy() {
    let policy = include_str!("../../../deploy/aws/operator-policy.json");
    let policy: Value = serde_json::from_str(policy).unwrap();
    let granted = |permission: &str| {
        let mut statements = policy["Statement"].as_array().unwrap().iter();
        statements.any(|it| {
            it["Action"]
                .as_array()
                .unwrap()
                .contains(&json!(permission))
        })
    };
    let backend = AwsBackend::start().await;
    let plan = backend.plan(OURS);
    let (queue, stream) = (&*plan.parts.files_queue.name, &*plan.parts.stream.name);
    let refused = |permission: &str, problem: Problem| {
        let remedy = format!("Give the identity of spec.aws the permission {permission};");
        assert!(
            problem.reason == Reason::AccessDenied
                && problem.retry == Retry::AfterCorrection
                && problem.message.contains(&remedy),
            "{permission}: {problem:?}"
        );
        assert!(granted(permission), "{permission} is not in the policy");
    };
    let mut changed = plan.clone();
    changed.parts.files_queue.visibility_timeout_seconds += 1;
    for (service, action, part) in [
        ("kinesis", "DescribeStreamSummary", stream),
        ("kinesis", "CreateStream", stream),
        ("kinesis", "AddTagsToStream", stream),
        ("sqs", "GetQueueUrl", queue),
        ("sqs", "CreateQueue", queue),
        ("sqs", "ListQueueTags", queue),
        ("kinesis", "ListTagsForStream", stream),
        ("kinesis", "IncreaseStreamRetentionPeriod", stream),
        ("sqs", "GetQueueAttributes", queue),
    ] {
        backend.fake_aws.deny(action, part);
        let problem = provide(&backend, &plan).await.unwrap_err();
        refused(&format!("{service}:{action}"), problem);
        backend.fake_aws.allow_all();
    }
    provide(&backend, &plan).await.unwrap();
    backend.fake_aws.deny("SetQueueAttributes", queue);
    let problem = provide(&backend, &changed).await.unwrap_err();
    refused("sqs:SetQueueAttributes", problem);
    backend.fake_aws.allow_all();
    // What cannot be found out is not deleted.
    for (service, action, part) in [
        ("sqs", "GetQueueUrl", queue),
        ("sqs", "ListQueueTags", queue),
        ("sqs", "DeleteQueue", queue),
        ("kinesis", "DescribeStreamSummary", stream),
        ("kinesis", "ListTagsForStream", stream),
        ("kinesis", "DeleteStream", stream),
    ] {
        provide(&backend, &plan).await.unwrap();
        backend.fake_aws.deny(action, part);
        let problem = remove(&backend, &plan, DeletionPolicy::Delete)
            .await
            .unwrap_err();
        refused(&format!("{service}:{action}"), problem);
        assert_eq!(
            backend.resource(part).map(|part| part.owner),
            Some(OURS.into())
        );
        backend.fake_aws.allow_all();
    }
    assert!(granted("sqs:TagQueue"), "CreateQueue with tags needs it");
    // Called only after all queues were empty for a minute.
    assert!(granted("kinesis:DecreaseStreamRetentionPeriod"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_extension_of_the_retention_is_named_and_fails_nothing_else() {
    let backend = AwsBackend::start().await;
    let mut plan = backend.plan(OURS);
    provide(&backend, &plan).await.unwrap();
    let stream = &plan.parts.stream.name;
    backend
        .fake_aws
        .deny("IncreaseStreamRetentionPeriod", stream);
    plan.retention.extend_to = Some(96);
    let keys = keys();
    let ready = backend.provisioner().provide(&plan, Some(&keys));
    let ready = ready.await.unwrap();
    assert_eq!(ready.retention_hours, Some(48));
    let why = ready.not_extended.unwrap();
    assert!(
        why.contains("permission kinesis:IncreaseStreamRetentionPeriod"),
        "{why}"
    );
    backend.fake_aws.allow_all();
    let ready = backend.provisioner().provide(&plan, Some(&keys));
    let ready = ready.await.unwrap();
    assert_eq!(
        (ready.retention_hours, ready.not_extended),
        (Some(96), None)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_being_changed_is_not_waited_for_to_extend_its_retention() {
    let backend = AwsBackend::start().await;
    let mut plan = backend.plan(OURS);
    provide(&backend, &plan).await.unwrap();
    backend.fake_aws.kinesis().take_time(600_000);
    let ask = json!({"StreamName": plan.parts.stream.name});
    backend
        .fake_aws
        .ask_kinesis("StartStreamEncryption", &ask)
        .unwrap();
    plan.retention.extend_to = Some(96);
    let keys = keys();
    let ready = backend.provisioner().provide(&plan, Some(&keys));
    let ready = timeout(Duration::from_secs(30), ready).await;
    let ready = ready.expect("waits for the change").unwrap();
    assert_eq!(ready.retention_hours, Some(48));
    let why = ready.not_extended.unwrap();
    assert!(why.contains("is being changed"), "{why}");
}

/// Lets a minute pass for the provisioner, which the fake AWS does not notice.
async fn pass_a_minute() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn an_extended_retention_goes_back_only_after_all_queues_were_empty_for_a_minute() {
    let backend = AwsBackend::start().await;
    let mut plan = backend.plan(OURS);
    let keys = keys();
    let hours = async |plan: &TransportPlan| {
        let ready = backend.provisioner().provide(plan, Some(&keys)).await;
        ready.unwrap().retention_hours.unwrap()
    };
    let dead_letters = plan.parts.chunks_queue.dead_letter_name.clone();
    plan.retention.extend_to = Some(96);
    assert_eq!(hours(&plan).await, 96);
    backend.fill(&dead_letters, 1);
    plan.retention = RetentionPlan {
        extend_to: None,
        lower_from: Some(96),
    };
    let read = async || backend.provisioner().depths(&plan, Some(&keys)).await;
    assert_eq!(read().await.dead_chunks, Some(1));
    pass_a_minute().await;
    assert_eq!(hours(&plan).await, 96, "a dead letter needs its records");
    backend.delete(&dead_letters);
    assert_eq!(hours(&plan).await, 96, "the queue is created again");
    assert_eq!(read().await.dead_chunks, Some(0));
    assert_eq!(hours(&plan).await, 96, "seen empty once");
    pass_a_minute().await;
    let others = TransportPlan {
        retention: RetentionPlan {
            extend_to: None,
            lower_from: Some(72),
        },
        ..plan.clone()
    };
    assert_eq!(hours(&others).await, 96, "others gave it these hours");
    assert_eq!(hours(&plan).await, 48);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_cannot_be_read_is_neither_empty_nor_deleted() {
    let backend = AwsBackend::start().await;
    let plan = backend.plan(OURS);
    provide(&backend, &plan).await.unwrap();
    let name = &plan.parts.chunks_queue.dead_letter_name;
    backend.fake_aws.deny("GetQueueAttributes", name);
    let depths = backend.provisioner().depths(&plan, Some(&keys())).await;
    let known = Some(Default::default());
    assert_eq!(
        depths,
        Depths {
            files: known,
            chunks: known,
            receipts: known,
            dead: None,
            dead_chunks: None,
        }
    );
    let left = remove(&backend, &plan, DeletionPolicy::WhenEmpty)
        .await
        .unwrap();
    assert_eq!(
        left[0],
        format!("whether {name} is empty is not known: it cannot be read")
    );
    assert_eq!(backend.resources(&plan).len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_sqs_counts_late_is_seen_by_a_later_look() {
    let backend = AwsBackend::start().await;
    let plan = backend.plan(OURS);
    provide(&backend, &plan).await.unwrap();
    // By the fake's clock, so that the first read is never too late.
    let late = Duration::from_secs(3600);
    backend.fake_aws.sqs().count_late(millis(late));
    let name = &plan.parts.files_queue.name;
    backend.fill(name, 1);
    let keys = keys();
    let read = async || {
        let provisioner = backend.provisioner();
        provisioner.contents(&plan, Some(&keys)).await.unwrap()
    };
    assert_eq!(read().await, Contents::Empty);
    backend.fake_aws.advance(late);
    let Contents::Filled(left) = read().await else {
        panic!("it is not counted");
    };
    assert_eq!(left[0], format!("{name} is not empty"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_flight_keeps_its_queue() {
    let backend = AwsBackend::start().await;
    let plan = backend.plan(OURS);
    provide(&backend, &plan).await.unwrap();
    let name = &plan.parts.chunks_queue.name;
    backend.fill(name, 1);
    let now = FakeClock::default().now();
    let ask = json!({"QueueUrl": name});
    backend.fake_aws.sqs().receive(&ask, now, true).unwrap();
    let depths = backend.provisioner().depths(&plan, Some(&keys())).await;
    let chunks = depths.chunks.unwrap();
    assert_eq!((chunks.visible, chunks.in_flight), (0, 1));
    let left = remove(&backend, &plan, DeletionPolicy::WhenEmpty)
        .await
        .unwrap();
    assert_eq!(left[0], format!("{name} is not empty"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_takes_its_time_is_waited_for() {
    let backend = AwsBackend::start().await;
    backend.fake_aws.kinesis().take_time(1500);
    let plan = backend.plan(OURS);
    provide(&backend, &plan).await.unwrap();
    let stream = backend.resource(&plan.parts.stream.name).unwrap();
    assert!(stream.is("RetentionPeriodHours", "48"), "{stream:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_changes_for_minutes_is_used_meanwhile() {
    let backend = AwsBackend::start().await;
    let plan = backend.plan(OURS);
    provide(&backend, &plan).await.unwrap();
    backend.fake_aws.kinesis().take_time(600_000);
    let stream = &plan.parts.stream.name;
    let ask = json!({"StreamName": stream});
    backend
        .fake_aws
        .ask_kinesis("StartStreamEncryption", &ask)
        .unwrap();
    let adopting = TransportPlan {
        policy: TransportPolicy::Adopt,
        ..plan.clone()
    };
    for plan in [&plan, &adopting] {
        let provided = timeout(Duration::from_secs(30), provide(&backend, plan)).await;
        provided.expect("waits for the change").unwrap();
    }
    assert!(
        backend
            .resource(stream)
            .unwrap()
            .is("StreamStatus", "UPDATING")
    );
}

/// Emulators keep no keys, so a stream is encrypted only where no endpoint is named: in a process of its own, where the
/// SDK's own variable names the fake.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_at_aws_itself_is_encrypted() {
    let name = "aws::a_stream_at_aws_itself_is_encrypted";
    let backend = AwsBackend::start().await;
    let plan = TransportPlan {
        endpoint: None,
        ..backend.plan(OURS)
    };
    if std::env::var_os(AS_AT_AWS).is_some() {
        for _ in 0..2 {
            AwsProvisioner::default()
                .provide(&plan, Some(&keys()))
                .await
                .unwrap();
        }
        return;
    }
    backend.fake_aws.kinesis().take_time(1000);
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", name])
        .env(AS_AT_AWS, "1")
        .env("AWS_ENDPOINT_URL", &backend.fake_aws.url);
    let ended = tokio::task::spawn_blocking(move || child.output());
    let ended = ended.await.unwrap().unwrap();
    assert!(
        ended.status.success(),
        "{}",
        String::from_utf8_lossy(&ended.stdout)
    );
    let stream = backend.resource(&plan.parts.stream.name).unwrap();
    assert!(stream.is("EncryptionType", "KMS"), "{stream:?}");
    let calls = |action: &str| {
        (
            backend.fake_aws.calls(action),
            backend.fake_aws.refused(action),
        )
    };
    assert_eq!(calls("IncreaseStreamRetentionPeriod"), (1, 0));
    assert_eq!(calls("StartStreamEncryption"), (1, 0));
    assert_eq!(names(&plan).len(), backend.resources(&plan).len());
}
