//! What the operator makes, leaves alone, puts right and takes away.

use std::time::Duration;

use kube::ResourceExt;
use kube::api::{Api, DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use streampress_operator::resources::owned_object::Kind;
use tokio::time::{Instant, sleep};

use crate::support::{Site, condition, eventually, full};

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_is_made_once_and_then_nothing_is_written() {
    let site = Site::new().await;
    site.create("stock", full()).await;
    let pipeline = site.settled("stock").await;
    eventually("all Deployments are there", async || {
        site.names(Kind::Deployment).await
            == ["stock-compressor", "stock-decompressor", "stock-generator"]
    })
    .await;
    assert_eq!(
        site.names(Kind::Lease).await,
        [
            "stock-compressor-0",
            "stock-compressor-1",
            "stock-decompressor-0",
            "stock-generator-0"
        ]
    );
    assert_eq!(
        pipeline["metadata"]["finalizers"],
        json!(["streampress.dev/transport"])
    );
    assert_eq!(site.transport.names().len(), 5);
    // The Deployments' own controllers still write their status for a moment.
    sleep(Duration::from_secs(3)).await;
    let writes = site.quiet_for(Duration::from_secs(12)).await;
    // 13 objects, the finalizer, and the status at each step.
    assert!(
        writes <= 13 + 1 + 4,
        "{writes} writes:\n{}",
        site.metrics.text()
    );
    for kind in Kind::ALL {
        let made = site.names(kind).await.len();
        assert!(
            site.metrics.writes(kind.name()) <= made as u64,
            "{} was written more than once",
            kind.name()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_or_deleted_is_put_right_and_foreign_fields_stay() {
    let site = Site::new().await;
    site.create("stock", full()).await;
    site.settled("stock").await;
    site.has_deployments(3).await;
    let deployments = site.of(Kind::Deployment);
    let edit = json!({
        "metadata": {"annotations": {"team": "a"}, "labels": {"team": "a"}},
        "spec": {"replicas": 9, "template": {"spec": {"terminationGracePeriodSeconds": 1, "priorityClassName": "system-node-critical"}}},
    });
    let began = Instant::now();
    deployments
        .patch(
            "stock-compressor",
            &PatchParams::default(),
            &Patch::Merge(edit),
        )
        .await
        .unwrap();
    eventually("the edit is reverted", async || {
        let live = deployments.get("stock-compressor").await.unwrap().data;
        live["spec"]["replicas"] == 2
            && live["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 60
    })
    .await;
    println!("an edit was reverted after {:?}", began.elapsed());
    let live = deployments.get("stock-compressor").await.unwrap();
    assert_eq!(live.annotations()["team"], "a");
    assert_eq!(live.labels()["team"], "a");
    assert_eq!(
        live.data["spec"]["template"]["spec"]["priorityClassName"],
        "system-node-critical"
    );
    for kind in Kind::ALL {
        let name = site
            .names(kind)
            .await
            .into_iter()
            .find(|name| name.starts_with("stock"))
            .unwrap();
        let uid = site.of(kind).get(&name).await.unwrap().uid();
        let began = Instant::now();
        site.of(kind)
            .delete(&name, &DeleteParams::background())
            .await
            .unwrap();
        eventually("a deleted object is made again", async || {
            site.of(kind)
                .get_opt(&name)
                .await
                .unwrap()
                .is_some_and(|made| made.uid() != uid)
        })
        .await;
        println!(
            "{} {name} was made again after {:?}",
            kind.name(),
            began.elapsed()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_taken_out_goes_and_what_it_counted_stays() {
    let site = Site::new().await;
    site.create("stock", full()).await;
    site.settled("stock").await;
    let counted =
        json!({"metadata": {"annotations": {"streampress.dev/ledger": r#"{"files":7}"#}}});
    site.of(Kind::Lease)
        .patch(
            "stock-generator-0",
            &PatchParams::default(),
            &Patch::Merge(counted),
        )
        .await
        .unwrap();
    site.edit(
        "stock",
        json!({"generator": null, "compressor": {"slots": 1}}),
    )
    .await;
    eventually("the generator is gone", async || {
        site.names(Kind::Deployment).await == ["stock-compressor", "stock-decompressor"]
            && site.names(Kind::Lease).await == ["stock-compressor-0", "stock-decompressor-0"]
    })
    .await;
    site.until("stock", "to remember", |pipeline| {
        pipeline["status"]["progress"]["filesGenerated"] == 7
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_takes_the_transport_along_and_ends_even_when_aws_hangs() {
    let site = Site::new().await;
    site.create("one", json!({})).await;
    site.create("two", json!({"transport": {"deletionPolicy": "Delete"}}))
        .await;
    site.settled("one").await;
    site.settled("two").await;
    assert_eq!(site.transport.names().len(), 10);
    let began = Instant::now();
    site.delete("one").await;
    println!("deleted after {:?}", began.elapsed());
    assert_eq!(site.transport.names().len(), 5);
    site.transport.hang(true);
    site.delete("two").await;
    let events: Api<k8s_openapi::api::events::v1::Event> =
        Api::namespaced(site.client.clone(), &site.namespace);
    eventually("an Event names what was left", async || {
        let events = events.list(&Default::default()).await.unwrap();
        events.iter().any(|event| {
            event.reason.as_deref() == Some("TransportLeftBehind")
                && event
                    .note
                    .as_ref()
                    .is_some_and(|note| note.contains("-two-"))
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_queues_of_the_same_name_are_kept() {
    let site = Site::new().await;
    site.create(
        "one",
        json!({"transport": {"deletionPolicy": "Delete", "stream": {"name": "shared"}}}),
    )
    .await;
    site.settled("one").await;
    site.transport.exists("shared", "somebody-else");
    site.delete("one").await;
    assert_eq!(site.transport.names(), ["shared"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_without_transport_gets_no_workers_and_holds_up_nobody() {
    let site = Site::new().await;
    site.create("bad", json!({"transport": {"policy": "Adopt", "filesQueue": {"name": "a.fifo"}, "chunksQueue": {"name": "b.fifo"}, "stream": {"name": "c"}}})).await;
    site.create("good", json!({})).await;
    site.settled("good").await;
    let bad = site
        .until("bad", "to be stalled", |pipeline| {
            condition(pipeline, "Stalled") == "True"
        })
        .await;
    assert_eq!(bad["status"]["phase"], "Failed");
    assert!(
        bad["status"]["message"]
            .as_str()
            .unwrap()
            .contains("a.fifo"),
        "{bad:#}"
    );
    eventually("the good one has workers", async || {
        site.names(Kind::Deployment).await == ["good-compressor", "good-decompressor"]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suspending_drains_in_order_and_says_so() {
    let site = Site::new().await;
    site.create(
        "stock",
        json!({"generator": {"schema": {"example": "stock-market"}}}),
    )
    .await;
    let settled = site.settled("stock").await;
    let queue = settled["status"]["transport"]["chunksQueueURL"]
        .as_str()
        .unwrap()
        .replace("memory://", "");
    site.has_deployments(3).await;
    site.transport.put(&queue, 3);
    site.edit("stock", json!({"suspend": true})).await;
    site.until("stock", "to count what is left", |pipeline| {
        pipeline["status"]["message"]
            .as_str()
            .is_some_and(|message| message.contains("3 packed files"))
    })
    .await;
    assert_eq!(
        (
            site.replicas("stock-generator").await,
            site.replicas("stock-compressor").await,
            site.replicas("stock-decompressor").await
        ),
        (json!(0), json!(0), json!(1))
    );
    site.transport.put(&queue, 0);
    site.until("stock", "to settle", |pipeline| {
        pipeline["status"]["phase"] == "Suspending" && pipeline["status"]["backlog"]["chunks"] == 0
    })
    .await;
    site.edit("stock", json!({"suspend": false})).await;
    eventually("all work again", async || {
        site.replicas("stock-generator").await == 1 && site.replicas("stock-compressor").await == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_message_starts_the_first_pod_and_an_hpas_replicas_are_left_alone() {
    let site = Site::new().await;
    site.create(
        "inner",
        json!({"compressor": {"autoscaling": {"mode": "Internal", "max": 3}}}),
    )
    .await;
    site.create(
        "outer",
        json!({"compressor": {"autoscaling": {"mode": "External"}}}),
    )
    .await;
    let inner = site.settled("inner").await;
    site.settled("outer").await;
    eventually("nobody works while there is no work", async || {
        site.replicas("inner-compressor").await == 0
    })
    .await;
    let queue = inner["status"]["transport"]["filesQueueURL"]
        .as_str()
        .unwrap()
        .replace("memory://", "");
    let began = Instant::now();
    site.transport.put(&queue, 1);
    eventually("the first pod is asked for", async || {
        site.replicas("inner-compressor").await == 1
    })
    .await;
    println!("the first pod was asked for after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(3));
    eventually("the other's workers are there", async || {
        site.replicas("outer-compressor").await != Value::Null
    })
    .await;
    let writes = site.metrics.writes("Deployment");
    let scale = json!({"spec": {"replicas": 5}});
    site.of(Kind::Deployment)
        .patch_scale(
            "outer-compressor",
            &PatchParams::default(),
            &Patch::Merge(scale),
        )
        .await
        .unwrap();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(site.replicas("outer-compressor").await, 5);
    assert_eq!(site.metrics.writes("Deployment"), writes);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scale_subresource_scales_the_compressor() {
    let site = Site::new().await;
    site.create("stock", json!({})).await;
    site.settled("stock").await;
    site.has_deployments(2).await;
    let scale = json!({"spec": {"replicas": 4}});
    site.pipelines()
        .patch_scale("stock", &PatchParams::default(), &Patch::Merge(scale))
        .await
        .unwrap();
    eventually("the Deployment follows", async || {
        site.replicas("stock-compressor").await == 4
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_operator_takes_over_at_once_and_writes_nothing_again() {
    let mut site = Site::new().await;
    site.create("stock", full()).await;
    site.settled("stock").await;
    site.has_deployments(3).await;
    sleep(Duration::from_secs(2)).await;
    site.stop().await;
    let began = Instant::now();
    site.start();
    site.edit("stock", json!({"compressor": {"replicas": 3}}))
        .await;
    eventually("the successor works", async || {
        site.replicas("stock-compressor").await == 3
    })
    .await;
    println!("the successor acted after {:?}", began.elapsed());
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    sleep(Duration::from_secs(2)).await;
    // The edit itself, what the server writes otherwise than we do (1Gi for 1024Mi), and the status.
    assert!(site.writes() <= 5, "{}", site.metrics.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_made_again_under_its_name_begins_anew() {
    let site = Site::new().await;
    site.create("stock", json!({})).await;
    site.settled("stock").await;
    let counted =
        json!({"metadata": {"annotations": {"streampress.dev/ledger": r#"{"files":7}"#}}});
    let leases = site.of(Kind::Lease);
    leases
        .patch(
            "stock-compressor-0",
            &PatchParams::default(),
            &Patch::Merge(counted),
        )
        .await
        .unwrap();
    let first = site.pipelines().get("stock").await.unwrap().uid();
    // Without the collector of orphans: what the first leaves behind is still there when the second comes.
    site.pipelines()
        .delete("stock", &DeleteParams::orphan())
        .await
        .unwrap();
    site.gone("stock").await;
    site.create("stock", json!({})).await;
    let second = site.settled("stock").await;
    assert_ne!(second["metadata"]["uid"].as_str(), first.as_deref());
    eventually("all objects are the second's", async || {
        let leases = leases.list(&Default::default()).await.unwrap();
        let owned = |lease: &DynamicObject| {
            lease
                .owner_references()
                .iter()
                .all(|owner| Some(owner.uid.as_str()) == second["metadata"]["uid"].as_str())
        };
        leases.items.len() == 3 && leases.items.iter().all(owned)
    })
    .await;
    assert_eq!(second["status"]["progress"]["filesCompressed"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_only_looks_like_ours_is_kept() {
    let site = Site::new().await;
    site.create("stock", json!({})).await;
    site.settled("stock").await;
    let mut copy = site.of(Kind::Service).get("stock-metrics").await.unwrap();
    copy.metadata = ObjectMeta {
        name: Some("copied".into()),
        labels: copy.metadata.labels.clone(),
        ..ObjectMeta::default()
    };
    site.of(Kind::Service)
        .create(&PostParams::default(), &copy)
        .await
        .unwrap();
    site.edit("stock", json!({"compressor": {"slots": 2}}))
        .await;
    eventually("the operator has looked", async || {
        site.names(Kind::Lease).await.len() == 3
    })
    .await;
    assert!(
        site.of(Kind::Service)
            .get_opt("copied")
            .await
            .unwrap()
            .is_some()
    );
}
