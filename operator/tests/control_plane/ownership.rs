//! What is ours is put right whatever was done to it; what is somebody else's stays theirs.

use kube::ResourceExt;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use streampress_operator::resources::owned_object::Kind;

use crate::support::site::pipeline;
use crate::support::{Fault, Proxy, Site, condition, eventually, full};

async fn merge(site: &Site, kind: Kind, name: &str, patch: &Value) -> DynamicObject {
    site.of(kind)
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_added_where_the_api_takes_all_as_one_is_taken_away_again() {
    let site = Site::new().await;
    site.create("stock", full()).await;
    site.settled("stock").await;
    site.has_deployments(3).await;
    let binding = site.of(Kind::RoleBinding).get("stock-worker").await;
    let ours = binding.unwrap().data["subjects"][0].clone();
    let mallory =
        json!({"kind": "User", "name": "mallory", "apiGroup": "rbac.authorization.k8s.io"});
    let rules = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]);
    let open = json!([{"ports": [{"port": 1, "endPort": 65535, "protocol": "TCP"}]}]);
    for (kind, name, edit) in [
        (
            Kind::RoleBinding,
            "stock-worker",
            json!({"subjects": [ours, mallory]}),
        ),
        (Kind::Role, "stock-worker", json!({"rules": rules})),
        (
            Kind::NetworkPolicy,
            "stock-worker",
            json!({"spec": {"ingress": open}}),
        ),
        (
            Kind::NetworkPolicy,
            "stock-worker",
            json!({"spec": {"podSelector": {"matchLabels": {"nobody": "has-this"}}}}),
        ),
        (
            Kind::Service,
            "stock-metrics",
            json!({"spec": {"selector": {"nobody": "has-this"}}}),
        ),
    ] {
        let before = site.of(kind).get(name).await.unwrap();
        let edited = merge(&site, kind, name, &edit).await;
        assert_ne!(edited.data, before.data, "{edit} changes nothing");
        eventually("it is as before", async || {
            site.of(kind).get(name).await.unwrap().data == before.data
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_that_are_taken_away_or_changed_are_put_back_and_nothing_is_made_anew() {
    let site = Site::new().await;
    site.create("stock", json!({})).await;
    site.create("other", json!({})).await;
    site.settled("stock").await;
    site.settled("other").await;
    site.has_deployments(4).await;
    let deployments = site.of(Kind::Deployment);
    let before = deployments.get("stock-compressor").await.unwrap();
    for labels in [
        json!({"app.kubernetes.io/instance": "other"}),
        json!({"app.kubernetes.io/instance": null}),
        json!({"app.kubernetes.io/managed-by": "somebody"}),
    ] {
        merge(
            &site,
            Kind::Deployment,
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
async fn objects_of_somebody_else_are_left_alone_and_named() {
    // A Service of theirs contradicts ours; the others say nothing that would.
    let service = json!({"ports": [{"name": "metrics", "port": 8080, "targetPort": 1}]});
    for (kind, name, spec) in [
        (Kind::ServiceAccount, "stock-worker", Value::Null),
        (Kind::Lease, "stock-compressor-0", json!({})),
        (Kind::Service, "stock-metrics", service),
    ] {
        let site = Site::new().await;
        let mut foreign = json!({"apiVersion": kind.api_version(), "kind": kind.name(), "metadata": {"name": name, "annotations": {"a": "theirs"}}});
        if !spec.is_null() {
            foreign["spec"] = spec;
        }
        site.of(kind)
            .create(
                &PostParams::default(),
                &serde_json::from_value(foreign).unwrap(),
            )
            .await
            .unwrap();
        site.create("stock", json!({})).await;
        let stock = site
            .until("stock", "to be stalled", |pipeline| {
                condition(pipeline, "Stalled") == "True"
            })
            .await;
        let said = stock["status"]["message"].as_str().unwrap();
        assert!(said.contains(&format!("{} {name}", kind.name())), "{said}");
        let there = site.of(kind).get(name).await.unwrap();
        assert!(there.owner_references().is_empty() && there.labels().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_came_with_our_finalizer_is_let_go_all_the_same() {
    let site = Site::new().await;
    // As one exports it, deletes it and creates it again.
    let mut exported = pipeline("stock", json!({}));
    exported.metadata.finalizers = Some(vec!["streampress.dev/transport".into()]);
    site.pipelines()
        .create(&PostParams::default(), &exported)
        .await
        .unwrap();
    site.settled("stock").await;
    site.delete("stock").await;
    assert_eq!(site.transport.names(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_stay_as_many_when_somebody_else_begins_to_scale_them() {
    let site = Site::new().await;
    site.create("stock", json!({"compressor": {"replicas": 5}}))
        .await;
    site.settled("stock").await;
    eventually("five are asked for", async || {
        site.replicas("stock-compressor").await == 5
    })
    .await;
    site.edit(
        "stock",
        json!({"compressor": {"autoscaling": {"mode": "External"}}}),
    )
    .await;
    site.settled("stock").await;
    site.edit("stock", json!({"codec": {"effort": "Max"}}))
        .await;
    let generation = site.generation("stock-compressor").await;
    eventually("the edit is carried out", async || {
        let live = site.of(Kind::Deployment).get("stock-compressor").await;
        live.unwrap().data.to_string().contains("Max")
    })
    .await;
    assert_eq!(
        site.replicas("stock-compressor").await,
        5,
        "since generation {generation}"
    );
    let scale = json!({"spec": {"replicas": 3}});
    site.of(Kind::Deployment)
        .patch_scale(
            "stock-compressor",
            &PatchParams::default(),
            &Patch::Merge(scale),
        )
        .await
        .unwrap();
    site.edit("stock", json!({"codec": {"effort": "Fast"}}))
        .await;
    eventually("the edit is carried out", async || {
        let live = site.of(Kind::Deployment).get("stock-compressor").await;
        live.unwrap().data.to_string().contains("Fast")
    })
    .await;
    assert_eq!(site.replicas("stock-compressor").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_whose_holder_died_keeps_nobody_waiting() {
    let site = Site::new().await;
    site.create("stock", json!({"compressor": {"slots": 2}}))
        .await;
    site.settled("stock").await;
    site.has_deployments(2).await;
    for slot in ["stock-compressor-0", "stock-compressor-1"] {
        let held = json!({"spec": {"holderIdentity": "killed_1", "leaseDurationSeconds": 3}});
        merge(&site, Kind::Lease, slot, &held).await;
    }
    site.edit(
        "stock",
        json!({"suspend": true, "compressor": {"slots": 1}}),
    )
    .await;
    // Not Settling as long as somebody is believed to be at work.
    site.until("stock", "to settle", |pipeline| {
        condition(pipeline, "Drained") == "False"
            && pipeline["status"]["message"]
                .as_str()
                .is_some_and(|message| message.contains("making sure"))
    })
    .await;
    eventually("the slot that is not asked for goes", async || {
        site.names(Kind::Lease).await == ["stock-compressor-0", "stock-decompressor-0"]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_for_long_is_said_and_holds_up_no_other_object() {
    let mut site = Site::empty().await;
    let proxy = Proxy::start().await;
    proxy.rule(
        |seen| match seen.writes() && seen.path.contains("/services/") {
            true => Fault::Answer(500),
            false => Fault::None,
        },
    );
    site.start_through(proxy.client());
    site.create("stock", json!({})).await;
    let stock = site
        .until("stock", "to say so", |pipeline| {
            pipeline["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|condition| condition["reason"] == "NotApplied")
        })
        .await;
    let said = stock["status"]["message"].as_str().unwrap();
    assert!(said.contains("Service stock-metrics"), "{said}");
    assert_eq!(condition(&stock, "Ready"), "False");
    proxy.rule(|_| Fault::None);
    site.settled("stock").await;
    site.has_deployments(2).await;
}
