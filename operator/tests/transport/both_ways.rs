//! `streampress setup` and the operator create, correct and delete the same queues and stream.

use std::time::Duration;

use futures::future::join_all;
use serde_json::json;
use streampress_crds::api::pipeline::DeletionPolicy;
use streampress_crds::queue_check::LAST_RESORT_RECEIVES;
use streampress_operator::transport::TransportPlan;
use streampress_operator::transport::aws::provision_plan;
use streampress_transport::aws::provision::{self, NotOwned, ProvisionOutcome, ProvisionPlan};
use streampress_transport::aws::{Aws, AwsOptions};

use crate::backends::{
    AwsBackend, OTHERS, OURS, PROVISIONING_CALLS, ProvisionerBackend, keys, names,
};

/// One way to provision.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Setup,
    Operator,
}

const WAYS: [Way; 2] = [Way::Setup, Way::Operator];

/// As `streampress setup` plans; the tag differs from the operator's, so that both can be compared without it.
fn setup_plan(plan: &TransportPlan) -> ProvisionPlan {
    ProvisionPlan {
        not_owned: NotOwned::UseAsIs,
        waits: true,
        ..provision_plan(plan)
    }
}

async fn connect(backend: &AwsBackend) -> Aws {
    let options = AwsOptions {
        region: Some("us-east-1".into()),
        endpoint: Some(backend.fake_aws.url.clone()),
        credentials: Some(keys()),
        ..AwsOptions::default()
    };
    Aws::connect(&options).await
}

impl Way {
    /// Until a run changes nothing more: the operator changes a stream's shards step by step, and does not wait for one.
    async fn create(self, backend: &AwsBackend, plan: &TransportPlan) {
        let is_updating = || {
            let stream = backend.resource(&plan.parts.stream.name);
            stream.is_some_and(|stream| stream.is("StreamStatus", "UPDATING"))
        };
        loop {
            while is_updating() {
                // AWS's own time for a change; the clock of the fake AWS is the machine's.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let before = backend.changes();
            match self {
                Way::Setup => {
                    let aws = connect(backend).await;
                    provision::create(&aws, &setup_plan(plan)).await.unwrap();
                }
                Way::Operator => {
                    let keys = keys();
                    let provided = backend.provisioner().provide(plan, Some(&keys));
                    provided.await.unwrap();
                }
            }
            if backend.changes() == before {
                return;
            }
        }
    }

    /// Names of what was left.
    async fn delete(self, backend: &AwsBackend, plan: &TransportPlan) -> usize {
        match self {
            Way::Setup => {
                let aws = connect(backend).await;
                let outcomes = provision::delete(&aws, &setup_plan(plan)).await.unwrap();
                let left = outcomes
                    .iter()
                    .filter(|it| it.outcome == ProvisionOutcome::NotOwned);
                left.count()
            }
            Way::Operator => {
                let keys = keys();
                let provisioner = backend.provisioner();
                let left = provisioner.remove(plan, DeletionPolicy::Delete, Some(&keys));
                left.await.unwrap().len()
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ways_create_the_same() {
    let created = join_all(WAYS.map(async |way| {
        let backend = AwsBackend::start().await;
        let plan = backend.plan(OURS);
        way.create(&backend, &plan).await;
        backend.resources(&plan)
    }));
    let created = created.await;
    assert_eq!(created[0].len(), 7);
    assert_eq!(created[0], created[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ways_correct_every_setting_of_queues_and_stream() {
    let queue_settings = [
        ("VisibilityTimeout", "1"),
        ("MessageRetentionPeriod", "60"),
        ("DeduplicationScope", "queue"),
        ("FifoThroughputLimit", "perQueue"),
    ];
    join_all(WAYS.map(async |way| {
        let backend = AwsBackend::start().await;
        let plan = backend.plan(OURS);
        way.create(&backend, &plan).await;
        let planned = backend.resources(&plan);
        for name in plan.queues() {
            for (attribute, value) in queue_settings {
                let ask = json!({"QueueUrl": name, "Attributes": {attribute: value}});
                backend
                    .fake_aws
                    .ask_sqs("SetQueueAttributes", &ask)
                    .unwrap();
                assert_ne!(backend.resources(&plan), planned, "{name} {attribute}");
                way.create(&backend, &plan).await;
                assert_eq!(
                    backend.resources(&plan),
                    planned,
                    "{way:?}: {name} {attribute}"
                );
            }
        }
        for queue in plan.parts.queues() {
            let policy = backend.redrive(&queue.dead_letter_name, LAST_RESORT_RECEIVES - 1);
            let ask = json!({"QueueUrl": queue.name, "Attributes": {"RedrivePolicy": policy}});
            backend
                .fake_aws
                .ask_sqs("SetQueueAttributes", &ask)
                .unwrap();
            way.create(&backend, &plan).await;
            assert_eq!(backend.resources(&plan), planned, "{way:?}: {}", queue.name);
        }
        let stream = &plan.parts.stream.name;
        for (action, key, value) in [
            ("DecreaseStreamRetentionPeriod", "RetentionPeriodHours", 24),
            ("UpdateShardCount", "TargetShardCount", 4),
            ("UpdateShardCount", "TargetShardCount", 1),
        ] {
            let ask = json!({"StreamName": stream, key: value});
            backend.fake_aws.ask_kinesis(action, &ask).unwrap();
            assert_ne!(backend.resources(&plan), planned, "{action} {value}");
            way.create(&backend, &plan).await;
            assert_eq!(
                backend.resources(&plan),
                planned,
                "{way:?}: {action} {value}"
            );
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ways_leave_a_retention_that_was_raised() {
    join_all(WAYS.map(async |way| {
        let backend = AwsBackend::start().await;
        let plan = backend.plan(OURS);
        way.create(&backend, &plan).await;
        let name = &plan.parts.stream.name;
        let raised = json!({"StreamName": name, "RetentionPeriodHours": 336});
        let action = "IncreaseStreamRetentionPeriod";
        backend.fake_aws.ask_kinesis(action, &raised).unwrap();
        way.create(&backend, &plan).await;
        let stream = backend.resource(name).unwrap();
        assert!(
            stream.is("RetentionPeriodHours", "336"),
            "{way:?}: {stream:?}"
        );
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ways_reach_any_number_of_shards() {
    join_all(WAYS.map(async |way| {
        let backend = AwsBackend::start().await;
        let mut plan = backend.plan(OURS);
        for shards in [2, 9, 1] {
            plan.parts.stream.shards = shards;
            way.create(&backend, &plan).await;
            let stream = backend.resource(&plan.parts.stream.name).unwrap();
            assert!(
                stream.is("OpenShardCount", &shards.to_string()),
                "{way:?}: {stream:?}"
            );
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ways_survive_lost_answers() {
    let cases = WAYS
        .into_iter()
        .flat_map(|way| PROVISIONING_CALLS.map(|call| (way, call)));
    join_all(cases.map(async |(way, call)| {
        let backend = AwsBackend::start().await;
        let plan = backend.plan(OURS);
        backend.fake_aws.lose_next(call);
        way.create(&backend, &plan).await;
        assert_eq!(backend.resources(&plan).len(), 7, "{way:?}: {call}");
        backend.fake_aws.lose_next(call);
        assert_eq!(way.delete(&backend, &plan).await, 0, "{way:?}: {call}");
        assert!(backend.resources(&plan).is_empty(), "{way:?}: {call}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ways_delete_nothing_of_another_owner() {
    join_all(WAYS.map(async |way| {
        let backend = AwsBackend::start().await;
        let others = backend.plan(OTHERS);
        way.create(&backend, &others).await;
        let before = backend.resources(&others);
        // The same names, as of a pipeline that was deleted and created again.
        let ours = TransportPlan {
            uid: OURS.into(),
            ..others.clone()
        };
        assert_eq!(way.delete(&backend, &ours).await, names(&ours).len());
        assert_eq!(backend.resources(&others), before);
    }))
    .await;
}
