//! How often a status is written.

use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use streampress_operator::resources::ObjectKind;
use streampress_operator::resources::names::MANAGER;
use tokio::time::{Instant, sleep};

use crate::support::{Proxy, TestCluster, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_written_at_most_once_in_ten_seconds_and_not_at_all_when_nothing_changed() {
    let mut cluster = TestCluster::empty().await;
    let proxy = Proxy::start().await;
    let began = Instant::now();
    cluster.start_through(proxy.client());
    let spec = json!({"generator": {"schema": {"example": "stock-market"}}});
    cluster.create("stock", spec).await;
    let stock = cluster.settled("stock").await;
    let queue = stock["status"]["transport"]["chunksQueueURL"]
        .as_str()
        .unwrap()
        .replace("memory://", "");
    let (mut written, mut round) = (Vec::new(), 0_u64);
    let mut take_writes = || {
        let log = proxy.take_log().into_iter();
        written.extend(log.filter(|seen| seen.path.contains("/stock/status")));
        written.len()
    };
    // Everything that a status contains changes all the time.
    while take_writes() < 4 {
        round += 1;
        cluster.transport.put(&queue, round);
        cluster
            .edit("stock", json!({"suspend": round.is_multiple_of(2)}))
            .await;
        let counted = json!({"metadata": {"annotations": {"streampress.dev/ledger": json!({"files": round}).to_string()}}});
        let _ = cluster
            .of(ObjectKind::Lease)
            .patch(
                "stock-generator-0",
                &PatchParams::default(),
                &Patch::Merge(counted),
            )
            .await;
        // Not more changes than the API server takes.
        sleep(Duration::from_millis(300)).await;
    }
    cluster.transport.put(&queue, 0);
    cluster.edit("stock", json!({"suspend": false})).await;
    cluster.settled("stock").await;
    // The last change is written too, and then nothing more.
    cluster.rest(Duration::from_secs(15)).await;
    take_writes();
    // A write may reach the proxy late, so that it comes nearer to the next one; all of them together never take less time.
    let intervals = u32::try_from(written.len() - 1).unwrap();
    let last = written.last().unwrap().at;
    assert!(
        last.duration_since(began) >= Duration::from_secs(10) * intervals,
        "{} writes in {:?}",
        written.len(),
        last.duration_since(began)
    );
    println!("{} status writes of {round} changes", written.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_retention_is_extended_for_what_has_waited_and_a_pipeline_at_rest_writes_nothing() {
    let mut cluster = TestCluster::new().await;
    cluster.create("stock", json!({"suspend": true})).await;
    let stock = cluster.settled("stock").await;
    let name = |field: &str| {
        let address = stock["status"]["transport"][field].as_str().unwrap();
        address.replace("memory://", "")
    };
    let (queue, stream) = (name("chunksQueueURL"), name("streamARN"));
    cluster.transport.put(&queue, 1);
    cluster
        .until("stock", "to say what waits", |stock| {
            stock["status"]["backlog"]["waitingSince"].is_string()
        })
        .await;
    // An operator that was away for most of a day.
    cluster.stop().await;
    let since = Timestamp::now() - SignedDuration::from_hours(20);
    let mut status = stock["status"].clone();
    status["backlog"]["waitingSince"] = json!(since.to_string());
    let waited = json!({
        "apiVersion": stock["apiVersion"], "kind": stock["kind"],
        "metadata": {"name": "stock"}, "status": status,
    });
    let as_operator = PatchParams::apply(MANAGER).force();
    cluster
        .pipelines()
        .patch_status("stock", &as_operator, &Patch::Apply(waited))
        .await
        .unwrap();
    cluster.start();
    let hours = |cluster: &TestCluster| {
        let stream = cluster.transport.resource(&stream).unwrap();
        stream.attributes["RetentionPeriodHours"].clone()
    };
    eventually("the retention is extended", async || {
        hours(&cluster) == "48"
    })
    .await;
    let stock = cluster
        .until("stock", "to have 48 hours", |stock| {
            stock["status"]["retention"]
                == json!({"hours": 48, "plannedHours": 48, "atRisk": false})
        })
        .await;
    assert_eq!(stock["status"]["backlog"]["chunks"], 1);
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    eventually("there is an Event", async || {
        let events = events.list(&Default::default()).await.unwrap();
        events.items.iter().any(|event| {
            let note = event.note.as_deref().unwrap_or_default();
            event.reason.as_deref() == Some("RetentionAtRisk") && note.contains("to 48 hours")
        })
    })
    .await;
    // Its age grows; nothing is written for that.
    let before = cluster.rest(Duration::from_secs(25)).await;
    assert_eq!(cluster.writes(), before);
    cluster.transport.put(&queue, 0);
    cluster
        .until("stock", "to have 24 hours again", |stock| {
            stock["status"]["retention"]
                == json!({"hours": 24, "plannedHours": 24, "atRisk": false})
        })
        .await;
    assert_eq!(hours(&cluster), "24");
}

/// The API server refuses an object whose last members are taken away while it is applied itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_written_also_when_depths_that_were_known_are_known_no_more() {
    let mut cluster = TestCluster::new().await;
    cluster.create("stock", json!({})).await;
    let is_known = |stock: &Value| stock["status"]["backlog"]["files"].is_number();
    cluster.until("stock", "to know its depths", is_known).await;
    cluster.stop().await;
    cluster.transport.hang(true);
    cluster.start();
    cluster
        .until("stock", "to say that nothing answers", |stock| {
            stock["status"]["backlog"].is_null() && stock["status"]["phase"] == "Degraded"
        })
        .await;
    cluster.transport.hang(false);
    cluster.until("stock", "to know them again", is_known).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_operator_writes_no_status_until_something_has_changed() {
    let mut cluster = TestCluster::new().await;
    cluster.create("stock", json!({})).await;
    let settled = cluster.settled("stock").await;
    let queue = settled["status"]["transport"]["filesQueueURL"].as_str();
    let queue = queue.unwrap().replace("memory://", "");
    cluster.transport.put(&queue, 3);
    cluster
        .until("stock", "to count its files", |pipeline| {
            pipeline["status"]["backlog"]["files"] == 3
        })
        .await;
    cluster.rest(Duration::from_secs(12)).await;
    let before = cluster.pipelines().get("stock").await.unwrap();
    cluster.stop().await;
    // The new operator's first call is not answered while this test reads the status.
    cluster.options.transport.call_deadline = Duration::from_secs(600);
    cluster.transport.hang(true);
    let calls = cluster.transport.calls();
    cluster.start();
    eventually("the operator looks the queues up", async || {
        cluster.transport.calls() > calls && cluster.reconciles() > 0
    })
    .await;
    cluster.rest(Duration::from_secs(3)).await;
    let after = cluster.pipelines().get("stock").await.unwrap();
    assert_eq!(after.resource_version(), before.resource_version());
}
