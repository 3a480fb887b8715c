//! What the operator makes, leaves alone, restores and deletes.

use std::time::Duration;

use kube::ResourceExt;
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams,
};
use serde_json::{Value, json};
use streampress_operator::resources::ObjectKind;
use tokio::time::Instant;

use crate::support::{TestCluster, condition, eventually, full};

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_is_made_once_and_then_nothing_is_written() {
    let cluster = TestCluster::new().await;
    cluster.create("stock", full()).await;
    let pipeline = cluster.settled("stock").await;
    eventually("all Deployments are there", async || {
        cluster.names(ObjectKind::Deployment).await
            == ["stock-compressor", "stock-decompressor", "stock-generator"]
    })
    .await;
    assert_eq!(
        cluster.names(ObjectKind::Lease).await,
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
    assert_eq!(cluster.transport.names().len(), 7);
    // Longer than the operator keeps a status back.
    let writes = cluster.rest(Duration::from_secs(12)).await;
    // 13 objects, the finalizer, and the status at each step.
    assert!(
        writes <= 13 + 1 + 4,
        "{writes} writes:\n{}",
        cluster.metrics.text()
    );
    for kind in ObjectKind::ALL {
        let made = cluster.names(kind).await.len();
        assert!(
            cluster.writes_to(kind) <= made as u64,
            "{} was written more than once",
            kind.name()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_or_deleted_is_restored_and_foreign_fields_stay() {
    let cluster = TestCluster::new().await;
    cluster.create("stock", full()).await;
    cluster.settled("stock").await;
    cluster.has_deployments(3).await;
    let deployments = cluster.of(ObjectKind::Deployment);
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
    for kind in ObjectKind::ALL {
        let name = cluster
            .names(kind)
            .await
            .into_iter()
            .find(|name| name.starts_with("stock"))
            .unwrap();
        let uid = cluster.of(kind).get(&name).await.unwrap().uid();
        let began = Instant::now();
        cluster
            .of(kind)
            .delete(&name, &DeleteParams::background())
            .await
            .unwrap();
        eventually("a deleted object is made again", async || {
            cluster
                .of(kind)
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
    let cluster = TestCluster::new().await;
    cluster.create("stock", full()).await;
    cluster.settled("stock").await;
    let counted =
        json!({"metadata": {"annotations": {"streampress.dev/ledger": r#"{"files":7}"#}}});
    cluster
        .of(ObjectKind::Lease)
        .patch(
            "stock-generator-0",
            &PatchParams::default(),
            &Patch::Merge(counted),
        )
        .await
        .unwrap();
    cluster
        .edit(
            "stock",
            json!({"generator": null, "compressor": {"slots": 1}}),
        )
        .await;
    eventually("the generator is gone", async || {
        cluster.names(ObjectKind::Deployment).await == ["stock-compressor", "stock-decompressor"]
            && cluster.names(ObjectKind::Lease).await
                == ["stock-compressor-0", "stock-decompressor-0"]
    })
    .await;
    cluster
        .until("stock", "to remember", |pipeline| {
            pipeline["status"]["progress"]["filesGenerated"] == 7
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_stay_and_go_on_where_leases_are_deleted_by_hand() {
    let mut cluster = TestCluster::new().await;
    cluster.create("stock", json!({"suspend": false})).await;
    cluster.settled("stock").await;
    let slots = ["stock-compressor-0", "stock-decompressor-0"];
    let count = async |cluster: &TestCluster, files: u64| {
        for slot in slots {
            let ledger = json!({"files": files, "bytesIn": 100 * files, "bytesOut": files});
            let counted = json!({"metadata": {"annotations": {"streampress.dev/ledger": ledger.to_string()}}});
            let leases = cluster.of(ObjectKind::Lease);
            let params = PatchParams::default();
            let patch = Patch::Merge(counted);
            eventually("the slot is there", async || {
                leases.patch(slot, &params, &patch).await.is_ok()
            })
            .await;
        }
    };
    let has_totals = |files: u64| {
        move |stock: &Value| {
            let progress = &stock["status"]["progress"];
            progress["filesCompressed"] == files
                && progress["filesRestored"] == files
                && progress["bytesRaw"] == 100 * files
        }
    };
    let delete = async |cluster: &TestCluster| {
        for slot in slots {
            let leases = cluster.of(ObjectKind::Lease);
            leases.delete(slot, &DeleteParams::default()).await.unwrap();
        }
    };
    // A change of a counter alone is read within ten minutes; one of the spec at once.
    let look = async |cluster: &TestCluster, suspend: bool| {
        cluster.edit("stock", json!({"suspend": suspend})).await;
    };
    count(&cluster, 7).await;
    look(&cluster, true).await;
    cluster.until("stock", "to have 7", has_totals(7)).await;
    delete(&cluster).await;
    count(&cluster, 2).await;
    look(&cluster, false).await;
    cluster.until("stock", "to have 9", has_totals(9)).await;
    // Also while no operator runs.
    cluster.stop().await;
    delete(&cluster).await;
    cluster.start();
    count(&cluster, 1).await;
    look(&cluster, true).await;
    cluster.until("stock", "to have 10", has_totals(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_the_kubelet_cannot_start_is_named_within_one_interval_of_the_status() {
    let cluster = TestCluster::new().await;
    cluster.create("stock", json!({})).await;
    cluster.settled("stock").await;
    let pods = cluster.of(ObjectKind::Pod);
    let of_compressor = ListParams::default().labels("app.kubernetes.io/component=compressor");
    let mut names = Vec::new();
    eventually("the Deployment has a pod", async || {
        let listed = pods.list(&of_compressor).await.unwrap();
        names = listed.iter().map(ResourceExt::name_any).collect();
        !names.is_empty()
    })
    .await;
    // There is no kubelet here to say so.
    let waiting =
        json!({"reason": "CreateContainerConfigError", "message": "secret \"keys\" not found"});
    let status = json!({"status": {"phase": "Pending", "containerStatuses": [{
        "name": "worker", "image": "a", "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": waiting},
    }]}});
    let patch = Patch::Merge(status);
    pods.patch_status(&names[0], &PatchParams::default(), &patch)
        .await
        .unwrap();
    let stock = cluster
        .until("stock", "to name the pod's problem", |stock| {
            let message = stock["status"]["message"].as_str().unwrap_or_default();
            message.contains("CreateContainerConfigError: secret \"keys\" not found")
        })
        .await;
    assert_eq!(condition(&stock, "Ready"), "False");
    assert_eq!(stock["status"]["phase"], "Degraded");
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_deletes_the_transport_and_ends_even_when_aws_hangs() {
    let cluster = TestCluster::new().await;
    cluster.create("one", json!({})).await;
    cluster
        .create("two", json!({"transport": {"deletionPolicy": "Delete"}}))
        .await;
    cluster.settled("one").await;
    cluster.settled("two").await;
    assert_eq!(cluster.transport.names().len(), 14);
    let began = Instant::now();
    cluster.delete("one").await;
    println!("deleted after {:?}", began.elapsed());
    assert_eq!(cluster.transport.names().len(), 7);
    cluster.transport.hang(true);
    cluster.delete("two").await;
    let events: Api<k8s_openapi::api::events::v1::Event> =
        Api::namespaced(cluster.client.clone(), &cluster.namespace);
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
    let cluster = TestCluster::new().await;
    cluster
        .create(
            "one",
            json!({"transport": {"deletionPolicy": "Delete", "stream": {"name": "shared"}}}),
        )
        .await;
    cluster.settled("one").await;
    cluster.transport.exists("shared", "another-owner");
    cluster.delete("one").await;
    assert_eq!(cluster.transport.names(), ["shared"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_without_transport_gets_no_workers_and_delays_no_other() {
    let cluster = TestCluster::new().await;
    cluster.create("bad", json!({"transport": {"policy": "Adopt", "filesQueue": {"name": "a.fifo"}, "chunksQueue": {"name": "b.fifo"}, "stream": {"name": "c"}}})).await;
    cluster.create("good", json!({})).await;
    cluster.settled("good").await;
    let bad = cluster
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
        cluster.names(ObjectKind::Deployment).await == ["good-compressor", "good-decompressor"]
    })
    .await;
}

/// Suspends the pipeline `stock` once it has so many Deployments, with three packed files that wait; answers their queue.
async fn suspend_with_packed_files(cluster: &TestCluster, deployments: usize) -> String {
    let settled = cluster.settled("stock").await;
    let queue = settled["status"]["transport"]["chunksQueueURL"]
        .as_str()
        .unwrap()
        .replace("memory://", "");
    cluster.has_deployments(deployments).await;
    cluster.transport.put(&queue, 3);
    cluster.edit("stock", json!({"suspend": true})).await;
    cluster
        .until("stock", "to count what is left", |pipeline| {
            pipeline["status"]["message"]
                .as_str()
                .is_some_and(|message| message.contains("3 packed files"))
        })
        .await;
    queue
}

#[tokio::test(flavor = "multi_thread")]
async fn suspending_drains_in_order_and_says_so() {
    let cluster = TestCluster::new().await;
    cluster
        .create(
            "stock",
            json!({"generator": {"schema": {"example": "stock-market"}}}),
        )
        .await;
    let queue = suspend_with_packed_files(&cluster, 3).await;
    assert_eq!(
        (
            cluster.replicas("stock-generator").await,
            cluster.replicas("stock-compressor").await,
            cluster.replicas("stock-decompressor").await
        ),
        // The compressor only takes receipts.
        (json!(0), json!(1), json!(1))
    );
    cluster.transport.put(&queue, 0);
    cluster
        .until("stock", "to be empty", |pipeline| {
            pipeline["status"]["phase"] == "Suspending"
                && pipeline["status"]["backlog"]["chunks"] == 0
        })
        .await;
    cluster.edit("stock", json!({"suspend": false})).await;
    eventually("all work again", async || {
        cluster.replicas("stock-generator").await == 1
            && cluster.replicas("stock-compressor").await == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_pipeline_that_others_scale_has_one_compressor_for_its_receipts() {
    let cluster = TestCluster::new().await;
    let external = json!({"autoscaling": {"mode": "External", "min": 2}});
    cluster
        .create("stock", json!({"compressor": external}))
        .await;
    suspend_with_packed_files(&cluster, 2).await;
    eventually("one compressor runs", async || {
        cluster.replicas("stock-compressor").await == 1
    })
    .await;
    cluster.edit("stock", json!({"suspend": false})).await;
    cluster
        .until("stock", "to go on", |pipeline| {
            condition(pipeline, "Drained") == "False" && pipeline["status"]["phase"] != "Suspending"
        })
        .await;
    // An autoscaler changes no number that is zero.
    assert_ne!(cluster.replicas("stock-compressor").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_begin_to_scale_find_a_pod_where_there_was_none() {
    let cluster = TestCluster::new().await;
    cluster
        .create("stock", json!({"compressor": {"replicas": 0}}))
        .await;
    cluster.settled("stock").await;
    eventually("there is no compressor", async || {
        cluster.replicas("stock-compressor").await == 0
    })
    .await;
    let external = json!({"autoscaling": {"mode": "External", "min": 2}});
    cluster.edit("stock", json!({"compressor": external})).await;
    eventually("there are as many as the least", async || {
        cluster.replicas("stock-compressor").await == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistyped_field_of_a_pod_template_is_named_as_the_spec_has_it() {
    let cluster = TestCluster::new().await;
    let template = json!({"spec": {"nodeSelecter": {"disk": "fast"}}});
    cluster
        .create("stock", json!({"compressor": {"podTemplate": template}}))
        .await;
    let stock = cluster
        .until("stock", "to be stalled", |pipeline| {
            condition(pipeline, "Stalled") == "True"
        })
        .await;
    let message = stock["status"]["message"].as_str().unwrap();
    assert!(
        message.contains("spec.compressor.podTemplate.spec.nodeSelecter is not"),
        "{message}"
    );
    let template = json!({"spec": {"nodeSelecter": null, "nodeSelector": {"disk": "fast"}}});
    cluster
        .edit("stock", json!({"compressor": {"podTemplate": template}}))
        .await;
    cluster.settled("stock").await;
    cluster.has_deployments(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_message_starts_the_first_pod_and_an_hpas_replicas_are_left_alone() {
    let cluster = TestCluster::new().await;
    cluster
        .create(
            "inner",
            json!({"compressor": {"autoscaling": {"mode": "Internal", "max": 3}}}),
        )
        .await;
    cluster
        .create(
            "outer",
            json!({"compressor": {"autoscaling": {"mode": "External"}}}),
        )
        .await;
    let inner = cluster.settled("inner").await;
    cluster.settled("outer").await;
    eventually("no pods run while there is no work", async || {
        cluster.replicas("inner-compressor").await == 0
    })
    .await;
    let queue = inner["status"]["transport"]["filesQueueURL"]
        .as_str()
        .unwrap()
        .replace("memory://", "");
    let began = Instant::now();
    cluster.transport.put(&queue, 1);
    eventually("the first pod is requested", async || {
        cluster.replicas("inner-compressor").await == 1
    })
    .await;
    println!("the first pod was requested after {:?}", began.elapsed());
    eventually("the other's workers are there", async || {
        cluster.replicas("outer-compressor").await != Value::Null
    })
    .await;
    cluster.rest(Duration::from_secs(2)).await;
    let (writes, reconciles) = (
        cluster.writes_to(ObjectKind::Deployment),
        cluster.reconciles(),
    );
    let scale = json!({"spec": {"replicas": 5}});
    cluster
        .of(ObjectKind::Deployment)
        .patch_scale(
            "outer-compressor",
            &PatchParams::default(),
            &Patch::Merge(scale),
        )
        .await
        .unwrap();
    eventually("the operator has seen it", async || {
        cluster.reconciles() > reconciles
    })
    .await;
    assert_eq!(cluster.replicas("outer-compressor").await, 5);
    assert_eq!(cluster.writes_to(ObjectKind::Deployment), writes);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scale_subresource_scales_the_compressor() {
    let cluster = TestCluster::new().await;
    cluster.create("stock", json!({})).await;
    cluster.settled("stock").await;
    cluster.has_deployments(2).await;
    let scale = json!({"spec": {"replicas": 4}});
    cluster
        .pipelines()
        .patch_scale("stock", &PatchParams::default(), &Patch::Merge(scale))
        .await
        .unwrap();
    eventually("the Deployment follows", async || {
        cluster.replicas("stock-compressor").await == 4
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_operator_takes_over_at_once_and_writes_nothing_again() {
    let mut cluster = TestCluster::new().await;
    cluster.create("stock", full()).await;
    cluster.settled("stock").await;
    cluster.has_deployments(3).await;
    cluster.rest(Duration::from_secs(2)).await;
    cluster.stop().await;
    let began = Instant::now();
    cluster.start();
    cluster
        .edit("stock", json!({"compressor": {"replicas": 3}}))
        .await;
    eventually("the successor works", async || {
        cluster.replicas("stock-compressor").await == 3
    })
    .await;
    println!("the successor acted after {:?}", began.elapsed());
    cluster.rest(Duration::from_secs(2)).await;
    // The edit itself, what the server writes otherwise than we do (1Gi for 1024Mi), and the status.
    assert!(cluster.writes() <= 5, "{}", cluster.metrics.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_made_again_under_its_name_begins_anew() {
    let cluster = TestCluster::new().await;
    cluster.create("stock", json!({})).await;
    cluster.settled("stock").await;
    let counted =
        json!({"metadata": {"annotations": {"streampress.dev/ledger": r#"{"files":7}"#}}});
    let leases = cluster.of(ObjectKind::Lease);
    leases
        .patch(
            "stock-compressor-0",
            &PatchParams::default(),
            &Patch::Merge(counted),
        )
        .await
        .unwrap();
    let first = cluster.pipelines().get("stock").await.unwrap().uid();
    // Without the collector of orphans: what the first leaves behind is still there when the second comes.
    cluster
        .pipelines()
        .delete("stock", &DeleteParams::orphan())
        .await
        .unwrap();
    cluster.gone("stock").await;
    cluster.create("stock", json!({})).await;
    let second = cluster.settled("stock").await;
    assert_ne!(second["metadata"]["uid"].as_str(), first.as_deref());
    eventually("all objects are the second's", async || {
        let leases = leases.list(&Default::default()).await.unwrap();
        let owned = |lease: &DynamicObject| {
            lease
                .owner_references()
                .iter()
                .all(|owner| Some(owner.uid.as_str()) == second["metadata"]["uid"].as_str())
        };
        // Two slots, the leader's, and the one that says whose the pipelines are.
        leases.items.len() == 4 && leases.items.iter().all(owned)
    })
    .await;
    assert_eq!(second["status"]["progress"]["filesCompressed"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_only_looks_like_ours_is_kept() {
    let cluster = TestCluster::new().await;
    cluster.create("stock", json!({})).await;
    cluster.settled("stock").await;
    let mut copy = cluster
        .of(ObjectKind::Service)
        .get("stock-metrics")
        .await
        .unwrap();
    copy.metadata = ObjectMeta {
        name: Some("copied".into()),
        labels: copy.metadata.labels.clone(),
        ..ObjectMeta::default()
    };
    cluster
        .of(ObjectKind::Service)
        .create(&PostParams::default(), &copy)
        .await
        .unwrap();
    cluster
        .edit("stock", json!({"compressor": {"slots": 2}}))
        .await;
    eventually("the operator has reconciled", async || {
        cluster.names(ObjectKind::Lease).await.len() == 3
    })
    .await;
    assert!(
        cluster
            .of(ObjectKind::Service)
            .get_opt("copied")
            .await
            .unwrap()
            .is_some()
    );
}
