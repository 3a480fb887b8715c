//! Operators come and go: upgrades roll no worker, and nothing hangs when the operator is uninstalled first.

use serde_json::json;
use streampress_operator::controller::release::{Place, release_pipelines};
use streampress_operator::resources::owned_object::Kind;

use crate::support::site::LEASE;
use crate::support::{Site, eventually, full};

#[tokio::test(flavor = "multi_thread")]
async fn another_operator_of_the_same_make_rolls_no_worker() {
    let mut site = Site::new().await;
    site.create("stock", full()).await;
    site.settled("stock").await;
    site.has_deployments(3).await;
    let before = site.generations().await;
    // Forth and back, as an upgrade of the chart and its rollback do: other settings of the operator, not of the workers.
    for (at_once, identity) in [(1, "new"), (8, "old")] {
        site.stop().await;
        site.options.at_once = at_once;
        site.options.identity = identity.into();
        site.start();
        site.edit("stock", json!({"transport": {"deletionPolicy": if at_once == 1 { "Retain" } else { "WhenEmpty" }}})).await;
        site.settled("stock").await;
        assert_eq!(site.generations().await, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelines_outlive_an_operator_that_was_uninstalled_and_can_be_deleted_without_it() {
    let mut site = Site::new().await;
    for name in ["one", "two"] {
        site.create(name, json!({"transport": {"deletionPolicy": "Delete"}}))
            .await;
        site.settled(name).await;
    }
    site.has_deployments(4).await;
    site.stop().await;
    // The chart's hook; there is no Deployment of the operator here.
    let place = Place {
        lease_namespace: site.namespace.clone(),
        lease_name: LEASE.into(),
        deployment: "streampress-operator".into(),
        namespace: Some(site.namespace.clone()),
        identity: "cleanup".into(),
    };
    release_pipelines(site.client.clone(), place).await.unwrap();
    assert_eq!(
        site.names(Kind::Deployment).await.len(),
        4,
        "workers run on"
    );
    for name in ["one", "two"] {
        site.delete(name).await;
    }
    eventually("their objects are gone", async || {
        for kind in Kind::ALL {
            if !site.names(kind).await.is_empty() {
                return false;
            }
        }
        true
    })
    .await;
    assert_eq!(
        site.transport.names().len(),
        10,
        "queues and streams are kept"
    );
}
