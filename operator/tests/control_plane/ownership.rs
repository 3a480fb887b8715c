//! What is ours is restored whatever was done to it; what has another owner stays as it is.

use kube::ResourceExt;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use streampress_operator::resources::ObjectKind;

use crate::support::cluster::pipeline;
use crate::support::{Fault, Proxy, TestCluster, condition, eventually, full};

async fn merge(
    cluster: &TestCluster,
    kind: ObjectKind,
    name: &str,
    patch: &Value,
) -> DynamicObject {
    cluster
        .of(kind)
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_added_to_an_atomic_field_is_removed_again() {
    let cluster = TestCluster::new().await;
    cluster.create("stock", full()).await;
    cluster.settled("stock").await;
    cluster.has_deployments(3).await;
    let binding = cluster
        .of(ObjectKind::RoleBinding)
        .get("stock-worker")
        .await;
    let ours = binding.unwrap().data["subjects"][0].clone();
    let mallory =
        json!({"kind": "User", "name": "mallory", "apiGroup": "rbac.authorization.k8s.io"});
    let rules = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]);
    let open = json!([{"ports": [{"port": 1, "endPort": 65535, "protocol": "TCP"}]}]);
    for (kind, name, edit) in [
        (
            ObjectKind::RoleBinding,
            "stock-worker",
            json!({"subjects": [ours, mallory]}),
        ),
        (ObjectKind::Role, "stock-worker", json!({"rules": rules})),
        (
            ObjectKind::NetworkPolicy,
            "stock-worker",
            json!({"spec": {"ingress": open}}),
        ),
        (
            ObjectKind::NetworkPolicy,
            "stock-worker",
            json!({"spec": {"podSelector": {"matchLabels": {"no-pod": "has-this"}}}}),
        ),
        (
            ObjectKind::Service,
            "stock-metrics",
            json!({"spec": {"selector": {"no-pod": "has-this"}}}),
        ),
    ] {
        let before = cluster.of(kind).get(name).await.unwrap();
        let edited = merge(&cluster, kind, name, &edit).await;
        assert_ne!(edited.data, before.data, "{edit} changes nothing");
        eventually("it is as before", async || {
            cluster.of(kind).get(name).await.unwrap().data == before.data
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_that_are_removed_or_changed_are_restored_and_nothing_is_made_again() {
    let cluster = TestCluster::new().await;
    cluster.create("stock", json!({})).await;
    cluster.create("other", json!({})).await;
    cluster.settled("stock").await;
    cluster.settled("other").await;
    cluster.has_deployments(4).await;
    let deployments = cluster.of(ObjectKind::Deployment);
    let before = deployments.get("stock-compressor").await.unwrap();
    for labels in [
        json!({"app.kubernetes.io/instance": "other"}),
        json!({"app.kubernetes.io/instance": null}),
        json!({"app.kubernetes.io/managed-by": "another"}),
    ] {
        merge(
            &cluster,
            ObjectKind::Deployment,
            "stock-compressor",
            &json!({"metadata": {"labels": labels}}),
        )
        .await;
        eventually("its labels are back", async || {
            let now = deployments.get("stock-compressor").await.unwrap();
            now.labels() == before.labels() && now.uid() == before.uid()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_another_owner_are_left_alone_and_named() {
    // A Service of theirs contradicts ours; the others contradict nothing.
    let service = json!({"ports": [{"name": "metrics", "port": 8080, "targetPort": 1}]});
    for (kind, name, spec) in [
        (ObjectKind::ServiceAccount, "stock-worker", Value::Null),
        (ObjectKind::Lease, "stock-compressor-0", json!({})),
        (ObjectKind::Service, "stock-metrics", service),
    ] {
        let cluster = TestCluster::new().await;
        let mut foreign = json!({"apiVersion": kind.resource().api_version, "kind": kind.name(), "metadata": {"name": name, "annotations": {"a": "theirs"}}});
        if !spec.is_null() {
            foreign["spec"] = spec;
        }
        cluster
            .of(kind)
            .create(
                &PostParams::default(),
                &serde_json::from_value(foreign).unwrap(),
            )
            .await
            .unwrap();
        cluster.create("stock", json!({})).await;
        let stock = cluster
            .until("stock", "to be stalled", |pipeline| {
                condition(pipeline, "Stalled") == "True"
            })
            .await;
        let message = stock["status"]["message"].as_str().unwrap();
        assert!(
            message.contains(&format!("{} {name}", kind.name())),
            "{message}"
        );
        let there = cluster.of(kind).get(name).await.unwrap();
        assert!(there.owner_references().is_empty() && there.labels().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_was_created_with_our_finalizer_can_be_deleted() {
    let cluster = TestCluster::new().await;
    // As one exports it, deletes it and creates it again.
    let mut exported = pipeline("stock", json!({}));
    exported.metadata.finalizers = Some(vec!["streampress.dev/transport".into()]);
    cluster
        .pipelines()
        .create(&PostParams::default(), &exported)
        .await
        .unwrap();
    cluster.settled("stock").await;
    cluster.delete("stock").await;
    assert_eq!(cluster.transport.names(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_stay_as_many_when_others_begin_to_scale_them() {
    let cluster = TestCluster::new().await;
    cluster
        .create("stock", json!({"compressor": {"replicas": 5}}))
        .await;
    cluster.settled("stock").await;
    eventually("the Deployment has five replicas", async || {
        cluster.replicas("stock-compressor").await == 5
    })
    .await;
    cluster
        .edit(
            "stock",
            json!({"compressor": {"autoscaling": {"mode": "External"}}}),
        )
        .await;
    cluster.settled("stock").await;
    cluster
        .edit("stock", json!({"codec": {"effort": "Max"}}))
        .await;
    let generation = cluster.generation("stock-compressor").await;
    eventually("the edit is carried out", async || {
        let live = cluster
            .of(ObjectKind::Deployment)
            .get("stock-compressor")
            .await;
        live.unwrap().data.to_string().contains("Max")
    })
    .await;
    assert_eq!(
        cluster.replicas("stock-compressor").await,
        5,
        "since generation {generation}"
    );
    let scale = json!({"spec": {"replicas": 3}});
    cluster
        .of(ObjectKind::Deployment)
        .patch_scale(
            "stock-compressor",
            &PatchParams::default(),
            &Patch::Merge(scale),
        )
        .await
        .unwrap();
    cluster
        .edit("stock", json!({"codec": {"effort": "Fast"}}))
        .await;
    eventually("the edit is carried out", async || {
        let live = cluster
            .of(ObjectKind::Deployment)
            .get("stock-compressor")
            .await;
        live.unwrap().data.to_string().contains("Fast")
    })
    .await;
    assert_eq!(cluster.replicas("stock-compressor").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_whose_holder_died_delays_nothing() {
    let cluster = TestCluster::new().await;
    cluster
        .create("stock", json!({"compressor": {"slots": 2}}))
        .await;
    cluster.settled("stock").await;
    cluster.has_deployments(2).await;
    for slot in ["stock-compressor-0", "stock-compressor-1"] {
        let held = json!({"spec": {"holderIdentity": "killed_1", "leaseDurationSeconds": 3}});
        merge(&cluster, ObjectKind::Lease, slot, &held).await;
    }
    cluster
        .edit(
            "stock",
            json!({"suspend": true, "compressor": {"slots": 1}}),
        )
        .await;
    // Not Settling as long as a slot counts as held.
    cluster
        .until("stock", "to be empty", |pipeline| {
            condition(pipeline, "Drained") == "False"
                && pipeline["status"]["message"]
                    .as_str()
                    .is_some_and(|message| message.contains("waiting a minute"))
        })
        .await;
    eventually("the slot that is not needed is deleted", async || {
        cluster.names(ObjectKind::Lease).await == ["stock-compressor-0", "stock-decompressor-0"]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_for_long_is_reported_and_delays_no_other_object() {
    let mut cluster = TestCluster::empty().await;
    let proxy = Proxy::start().await;
    proxy.rule(
        |seen| match seen.writes() && seen.path.contains("/services/") {
            true => Fault::Answer(500),
            false => Fault::None,
        },
    );
    cluster.start_through(proxy.client());
    cluster.create("stock", json!({})).await;
    let stock = cluster
        .until("stock", "to report it", |pipeline| {
            pipeline["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|condition| condition["reason"] == "NotApplied")
        })
        .await;
    let message = stock["status"]["message"].as_str().unwrap();
    assert!(message.contains("Service stock-metrics"), "{message}");
    assert_eq!(condition(&stock, "Ready"), "False");
    proxy.rule(|_| Fault::None);
    cluster.settled("stock").await;
    cluster.has_deployments(2).await;
}

fn named() -> Value {
    json!({"filesQueue": {"name": "a.fifo"}, "chunksQueue": {"name": "b.fifo"}, "receiptsQueue": {"name": "c.fifo"}, "stream": {"name": "s"}})
}

async fn is_refused(cluster: &TestCluster, name: &str, by: &str) {
    let says = format!("The pipeline {}/{by} uses ", cluster.namespace);
    let refused = cluster
        .until(name, "to be refused", |pipeline| {
            let message = pipeline["status"]["message"].as_str();
            message.is_some_and(|message| message.starts_with(&says))
        })
        .await;
    assert_eq!(refused["status"]["phase"], "Failed");
    assert_eq!(condition(&refused, "Stalled"), "True");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_pipelines_that_name_the_same_queues_one_works_and_another_follows_when_it_is_gone() {
    let cluster = TestCluster::new().await;
    let mut spec = json!({"transport": named()});
    spec["transport"]["deletionPolicy"] = "Delete".into();
    let names = ["one", "two", "three"];
    futures::future::join_all(names.map(|name| cluster.create(name, spec.clone()))).await;
    let mut left = names.to_vec();
    while !left.is_empty() {
        let mut works = "";
        eventually("one of them works", async || {
            for name in &left {
                let pipeline = cluster.pipelines().get(name).await.unwrap();
                let pipeline = serde_json::to_value(pipeline).unwrap();
                if condition(&pipeline, "TransportReady") == "True" {
                    works = name;
                }
            }
            !works.is_empty()
        })
        .await;
        for other in left.iter().filter(|name| **name != works) {
            is_refused(&cluster, other, works).await;
        }
        let mut wanted = [
            format!("{works}-compressor"),
            format!("{works}-decompressor"),
        ];
        wanted.sort();
        eventually("only that one has workers", async || {
            cluster.names(ObjectKind::Deployment).await == wanted
        })
        .await;
        cluster.delete(works).await;
        // What the garbage collector would do in its time.
        for deployment in cluster.names(ObjectKind::Deployment).await {
            let deployments = cluster.of(ObjectKind::Deployment);
            let _ = deployments.delete(&deployment, &Default::default()).await;
        }
        left.retain(|name| *name != works);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn adopting_the_queues_of_a_living_pipeline_is_refused_and_those_of_one_that_is_gone_names_the_tag()
 {
    let cluster = TestCluster::new().await;
    let mut transport = named();
    transport["deletionPolicy"] = "Retain".into();
    cluster
        .create("owner", json!({"transport": transport}))
        .await;
    cluster.settled("owner").await;
    let mut adopting = named();
    adopting["policy"] = "Adopt".into();
    cluster
        .create("thief", json!({"transport": adopting}))
        .await;
    is_refused(&cluster, "thief", "owner").await;
    cluster.settled("owner").await;
    cluster.delete("owner").await;
    let thief = cluster
        .until("thief", "to name the tag", |pipeline| {
            let message = pipeline["status"]["message"].as_str();
            message.is_some_and(|message| message.contains("carries the tag of another pipeline"))
        })
        .await;
    assert_eq!(thief["status"]["phase"], "Failed");
    assert_eq!(cluster.replicas("thief-compressor").await, Value::Null);
    // As the commands of the message do.
    for name in cluster.transport.names() {
        let resource = cluster.transport.resource(&name).unwrap();
        let attributes: Vec<_> = resource
            .attributes
            .iter()
            .map(|(key, value)| (&**key, &**value))
            .collect();
        cluster.transport.exists_with(&name, "", &attributes);
    }
    cluster.settled("thief").await;
}
