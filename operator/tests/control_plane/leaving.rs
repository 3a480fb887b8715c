//! Upgrades of the operator roll no worker, and nothing hangs when it is uninstalled first.

use serde_json::json;
use streampress_operator::release::{Installation, release_pipelines};
use streampress_operator::resources::ObjectKind;

use crate::support::cluster::LEASE;
use crate::support::{TestCluster, eventually, full};

#[tokio::test(flavor = "multi_thread")]
async fn another_operator_of_the_same_release_rolls_no_worker() {
    let mut cluster = TestCluster::new().await;
    cluster.create("stock", full()).await;
    cluster.settled("stock").await;
    cluster.has_deployments(3).await;
    let before = cluster.generations().await;
    // Forth and back, as an upgrade of the chart and its rollback do: other settings of the operator, not of the workers.
    for (concurrency, identity) in [(1, "new"), (8, "old")] {
        cluster.stop().await;
        cluster.options.concurrency = concurrency;
        cluster.options.identity = identity.into();
        cluster.start();
        cluster.edit("stock", json!({"transport": {"deletionPolicy": if concurrency == 1 { "Retain" } else { "WhenEmpty" }}})).await;
        cluster.settled("stock").await;
        assert_eq!(cluster.generations().await, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelines_outlive_an_operator_that_was_uninstalled_and_can_be_deleted_without_it() {
    let mut cluster = TestCluster::new().await;
    for name in ["one", "two"] {
        cluster
            .create(name, json!({"transport": {"deletionPolicy": "Delete"}}))
            .await;
        cluster.settled(name).await;
    }
    cluster.has_deployments(4).await;
    cluster.stop().await;
    // The chart's hook; there is no Deployment of the operator here.
    let installation = Installation {
        lease_namespace: cluster.namespace.clone(),
        lease_name: LEASE.into(),
        deployment: "streampress-operator".into(),
        namespace: Some(cluster.namespace.clone()),
        identity: "cleanup".into(),
    };
    release_pipelines(cluster.client.clone(), installation)
        .await
        .unwrap();
    assert_eq!(
        cluster.names(ObjectKind::Deployment).await.len(),
        4,
        "workers run on"
    );
    for name in ["one", "two"] {
        cluster.delete(name).await;
    }
    eventually("their objects are gone", async || {
        for kind in ObjectKind::ALL {
            if !cluster.names(kind).await.is_empty() {
                return false;
            }
        }
        true
    })
    .await;
    assert_eq!(
        cluster.transport.names().len(),
        14,
        "queues and streams are kept"
    );
}
