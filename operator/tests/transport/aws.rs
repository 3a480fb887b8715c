//! What only AWS does: it is slow, forgets to answer, refuses, counts late.

use std::process::Command;
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use streampress_crds::Reason;
use streampress_crds::api::pipeline::{DeletionPolicy, TransportPolicy};
use streampress_operator::transport::Plan;
use streampress_operator::transport::aws::Aws;
use streampress_operator::transport::problem::{Problem, Retry};
use streampress_operator::transport::{Depths, Provisioner};
use streampress_tests::fake_aws::clock::Clock;
use streampress_tests::fake_aws::faults::Faults;
use tokio::time::timeout;

use crate::sides::{AwsSide, OTHERS, OURS, Side, keys, names};

/// Set in the process that finds its AWS by the SDK's own variables.
const AS_AT_AWS: &str = "STREAMPRESS_AS_AT_AWS";

async fn provide(side: &AwsSide, plan: &Plan) -> Result<(), Problem> {
    let provided = side.provisioner().provide(plan, Some(&keys())).await;
    provided.map(drop)
}

async fn remove(
    side: &AwsSide,
    plan: &Plan,
    policy: DeletionPolicy,
) -> Result<Vec<String>, Problem> {
    side.provisioner().remove(plan, policy, Some(&keys())).await
}

/// Again and again, as the operator does; what AWS cannot do at the moment is nothing that lasts.
async fn at_last<T>(attempt: impl AsyncFn() -> Result<T, Problem>) -> T {
    for _ in 0..20 {
        match attempt().await {
            Ok(done) => return done,
            Err(problem) => assert!(problem.retry == Retry::Transient, "{problem:?}"),
        }
    }
    panic!("never came to an end");
}

fn queues(side: &AwsSide) -> usize {
    let all = side.fake_aws.ask_sqs("ListQueues", &json!({})).unwrap();
    all["QueueUrls"].as_array().unwrap().len()
}

/// Makes and deletes ours on a bad day; the same is there as on a good one, then nothing, and the neighbour's all the while.
async fn through(faults: Faults, seed: u64) {
    let good = AwsSide::start().await;
    let plan = good.plan(OURS);
    provide(&good, &plan).await.unwrap();
    let wanted = good.parts(&plan);

    let side = AwsSide::start_with(seed).await;
    let (plan, other) = (side.plan(OURS), side.plan(OTHERS));
    provide(&side, &other).await.unwrap();
    let others = side.parts(&other);
    side.fake_aws.set_faults(faults);
    at_last(async || provide(&side, &plan).await).await;
    side.fake_aws.set_faults(Faults::default());
    assert_eq!(side.parts(&plan), wanted);
    assert_eq!(queues(&side), 8);
    side.fake_aws.set_faults(faults);
    let left = at_last(async || remove(&side, &plan, DeletionPolicy::Delete).await).await;
    side.fake_aws.set_faults(Faults::default());
    assert_eq!(left, Vec::<String>::new());
    assert!(side.parts(&plan).is_empty());
    assert_eq!((side.parts(&other), queues(&side)), (others, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_bad_day_the_same_is_there_in_the_end_and_nothing_of_others_goes() {
    let nothing = Faults::default();
    let days = [
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
    let runs = days
        .iter()
        .zip(1..)
        .flat_map(|(day, seed)| [through(*day, seed), through(*day, 100 + seed)]);
    join_all(runs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_lost_answer_leaves_anything_behind_or_is_even_noticed() {
    let calls = [
        "DescribeStreamSummary",
        "CreateStream",
        "AddTagsToStream",
        "GetQueueUrl",
        "CreateQueue",
        "ListQueueTags",
        "GetQueueAttributes",
        "ListTagsForStream",
        "IncreaseStreamRetentionPeriod",
        "DeleteQueue",
        "DeleteStream",
    ];
    join_all(calls.map(async |call| {
        let side = AwsSide::start().await;
        let plan = side.plan(OURS);
        side.fake_aws.lose_next(call);
        provide(&side, &plan)
            .await
            .unwrap_or_else(|problem| panic!("{call}: {problem:?}"));
        assert_eq!(side.parts(&plan).len(), 5, "{call}");
        side.fake_aws.lose_next(call);
        let left = remove(&side, &plan, DeletionPolicy::Delete)
            .await
            .unwrap_or_else(|problem| panic!("{call}: {problem:?}"));
        assert_eq!(left, Vec::<String>::new(), "{call}");
        assert!(side.parts(&plan).is_empty(), "{call}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_refused_is_named_with_its_permission_and_the_way_out() {
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
    let side = AwsSide::start().await;
    let plan = side.plan(OURS);
    let (queue, stream) = (&*plan.parts.files_queue.name, &*plan.parts.stream.name);
    let refused = |permission: &str, problem: Problem| {
        let way_out = format!("Give the identity of spec.aws the permission {permission};");
        assert!(
            problem.reason == Reason::AccessDenied
                && problem.retry == Retry::AfterCorrection
                && problem.message.contains(&way_out),
            "{permission}: {problem:?}"
        );
        assert!(granted(permission), "{permission} is not in the policy");
    };
    let mut changed = plan.clone();
    changed.parts.files_queue.visibility_timeout_seconds += 1;
    let mut shorter = plan.clone();
    shorter.parts.stream.retention_hours = 24;
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
        side.fake_aws.deny(action, part);
        let problem = provide(&side, &plan).await.unwrap_err();
        refused(&format!("{service}:{action}"), problem);
        side.fake_aws.allow_all();
    }
    provide(&side, &plan).await.unwrap();
    for (service, action, part, wanted) in [
        ("sqs", "SetQueueAttributes", queue, &changed),
        ("kinesis", "DecreaseStreamRetentionPeriod", stream, &shorter),
    ] {
        side.fake_aws.deny(action, part);
        let problem = provide(&side, wanted).await.unwrap_err();
        refused(&format!("{service}:{action}"), problem);
        side.fake_aws.allow_all();
    }
    // What cannot be looked for is not gone.
    for (service, action, part) in [
        ("sqs", "GetQueueUrl", queue),
        ("sqs", "ListQueueTags", queue),
        ("sqs", "DeleteQueue", queue),
        ("kinesis", "DescribeStreamSummary", stream),
        ("kinesis", "ListTagsForStream", stream),
        ("kinesis", "DeleteStream", stream),
    ] {
        provide(&side, &plan).await.unwrap();
        side.fake_aws.deny(action, part);
        let problem = remove(&side, &plan, DeletionPolicy::Delete)
            .await
            .unwrap_err();
        refused(&format!("{service}:{action}"), problem);
        assert_eq!(side.part(part).map(|part| part.owner), Some(OURS.into()));
        side.fake_aws.allow_all();
    }
    assert!(granted("sqs:TagQueue"), "CreateQueue with tags needs it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_cannot_be_read_is_neither_empty_nor_deleted() {
    let side = AwsSide::start().await;
    let plan = side.plan(OURS);
    provide(&side, &plan).await.unwrap();
    let name = &plan.parts.chunks_queue.dead_letter_name;
    side.fake_aws.deny("GetQueueAttributes", name);
    let depths = side.provisioner().depths(&plan, Some(&keys())).await;
    let known = Some(Default::default());
    assert_eq!(
        depths,
        Depths {
            files: known,
            chunks: known,
            dead: None
        }
    );
    let left = remove(&side, &plan, DeletionPolicy::WhenEmpty)
        .await
        .unwrap();
    assert_eq!(
        left[0],
        format!("whether {name} is empty is not known: it cannot be read")
    );
    assert_eq!(side.parts(&plan).len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_sqs_counts_seconds_late_is_not_deleted_with_its_queue() {
    let side = AwsSide::start().await;
    let plan = side.plan(OURS);
    provide(&side, &plan).await.unwrap();
    side.fake_aws.sqs().count_late(2000);
    let name = &plan.parts.files_queue.name;
    side.fill(name, 1);
    let left = remove(&side, &plan, DeletionPolicy::WhenEmpty)
        .await
        .unwrap();
    assert_eq!(left[0], format!("{name} is not empty"));
    assert_eq!(side.parts(&plan).len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_somebodys_hands_keeps_its_queue() {
    let side = AwsSide::start().await;
    let plan = side.plan(OURS);
    provide(&side, &plan).await.unwrap();
    let name = &plan.parts.chunks_queue.name;
    side.fill(name, 1);
    let now = Clock::default().now();
    let ask = json!({"QueueUrl": name});
    side.fake_aws.sqs().receive(&ask, now, true).unwrap();
    let depths = side.provisioner().depths(&plan, Some(&keys())).await;
    let chunks = depths.chunks.unwrap();
    assert_eq!((chunks.visible, chunks.in_flight), (0, 1));
    let left = remove(&side, &plan, DeletionPolicy::WhenEmpty)
        .await
        .unwrap();
    assert_eq!(left[0], format!("{name} is not empty"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_takes_its_time_is_waited_for_without_a_word() {
    let side = AwsSide::start().await;
    side.fake_aws.kinesis().take_time(1500);
    let plan = side.plan(OURS);
    provide(&side, &plan).await.unwrap();
    let stream = side.part(&plan.parts.stream.name).unwrap();
    assert!(stream.is("RetentionPeriodHours", "48"), "{stream:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_somebody_changes_for_minutes_is_used_meanwhile() {
    let side = AwsSide::start().await;
    let plan = side.plan(OURS);
    provide(&side, &plan).await.unwrap();
    side.fake_aws.kinesis().take_time(600_000);
    let stream = &plan.parts.stream.name;
    let ask = json!({"StreamName": stream});
    side.fake_aws
        .ask_kinesis("StartStreamEncryption", &ask)
        .unwrap();
    let adopting = Plan {
        policy: TransportPolicy::Adopt,
        ..plan.clone()
    };
    for plan in [&plan, &adopting] {
        let provided = timeout(Duration::from_secs(30), provide(&side, plan)).await;
        provided.expect("waits for the change").unwrap();
    }
    assert!(side.part(stream).unwrap().is("StreamStatus", "UPDATING"));
}

/// Stand-ins keep no keys, so a stream is encrypted only where no endpoint is named: in a process of its own, where the
/// SDK's own variable leads to the stand-in.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_at_aws_itself_is_encrypted() {
    let name = "aws::a_stream_at_aws_itself_is_encrypted";
    let side = AwsSide::start().await;
    let plan = Plan {
        endpoint: None,
        ..side.plan(OURS)
    };
    if std::env::var_os(AS_AT_AWS).is_some() {
        for _ in 0..2 {
            Aws::default().provide(&plan, Some(&keys())).await.unwrap();
        }
        return;
    }
    side.fake_aws.kinesis().take_time(1000);
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", name])
        .env(AS_AT_AWS, "1")
        .env("AWS_ENDPOINT_URL", &side.fake_aws.url);
    let ended = tokio::task::spawn_blocking(move || child.output());
    let ended = ended.await.unwrap().unwrap();
    assert!(
        ended.status.success(),
        "{}",
        String::from_utf8_lossy(&ended.stdout)
    );
    let stream = side.part(&plan.parts.stream.name).unwrap();
    assert!(stream.is("EncryptionType", "KMS"), "{stream:?}");
    let calls = |action: &str| (side.fake_aws.calls(action), side.fake_aws.refused(action));
    assert_eq!(calls("IncreaseStreamRetentionPeriod"), (1, 0));
    assert_eq!(calls("StartStreamEncryption"), (1, 0));
    assert_eq!(names(&plan).len(), side.parts(&plan).len());
}
