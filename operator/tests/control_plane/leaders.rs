//! Two operators, as processes of their own: only one of them ever writes.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use rustix::process::Signal;
use serde_json::json;
use streampress_operator::release::{Installation, release_pipelines};
use streampress_operator::resources::ObjectKind;

use crate::support::cluster::{LEASE, eventually_within};
use crate::support::process::Process;
use crate::support::{PATIENCE, Proxy, TestCluster, eventually};

async fn leader(cluster: &TestCluster) -> Option<String> {
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    leases.get_opt(LEASE).await.unwrap()?.spec?.holder_identity
}

async fn leads(cluster: &TestCluster, identity: &str) -> Duration {
    eventually_within(PATIENCE, "the successor leads", async || {
        leader(cluster).await.as_deref() == Some(identity)
    })
    .await
}

/// Waits until an operator has read the leader's Lease twice: a leader writes it, and reads it only when it loses it.
async fn stands_by(proxy: &Proxy) {
    let mut reads = 0;
    eventually("the next operator stands by", async || {
        let log = proxy.take_log();
        reads += log
            .iter()
            .filter(|seen| seen.elects() && !seen.writes_lease())
            .count();
        reads >= 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_frozen_past_its_lease_writes_nothing_after_it_wakes() {
    let cluster = TestCluster::empty().await;
    let dir = tempfile::tempdir().unwrap();
    let (first_proxy, second_proxy) = (Proxy::start().await, Proxy::start().await);
    let start = |identity: &str, proxy: &Proxy| {
        Process::start(
            dir.path(),
            identity,
            &proxy.kubeconfig(),
            Some(&cluster.namespace),
            &[],
        )
    };
    let mut first = start("first", &first_proxy);
    leads(&cluster, "first").await;
    let names: Vec<String> = (0..10).map(|number| format!("stock-{number}")).collect();
    for name in &names {
        cluster.create(name, json!({})).await;
    }
    let slots = async || cluster.names(ObjectKind::Lease).await.len();
    eventually("the first one has made all slots", async || {
        slots().await == 20
    })
    .await;
    let _second = start("second", &second_proxy);
    stands_by(&second_proxy).await;
    // Frozen just when there is a lot to do.
    for name in &names {
        cluster
            .edit(name, json!({"compressor": {"slots": 3}}))
            .await;
    }
    first.signal(Signal::STOP);
    let took = leads(&cluster, "second").await;
    println!("a frozen leader was followed after {took:?}");
    eventually("the second one has made all slots", async || {
        slots().await == 40
    })
    .await;
    for name in &names {
        cluster
            .edit(name, json!({"compressor": {"slots": 1}}))
            .await;
    }
    eventually("the second one has deleted slots", async || {
        slots().await == 20
    })
    .await;
    first_proxy.take_log();
    first.signal(Signal::CONT);
    eventually("it has ended", async || first.has_ended()).await;
    let writes = first_proxy
        .take_log()
        .iter()
        .filter(|seen| seen.writes())
        .count();
    assert_eq!(writes, 0, "writes after it woke");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_of_another_release_does_nothing_and_says_so_until_the_first_one_is_gone() {
    let mut first = TestCluster::new().await;
    first.create("stock", json!({})).await;
    first.settled("stock").await;
    let before = first.generations().await;
    let mut second = TestCluster::empty().await;
    second.namespace.clone_from(&first.namespace);
    second.options.namespace = Some(first.namespace.clone());
    second.options.lease_namespace.clone_from(&first.namespace);
    second.options.lease_name = "other".into();
    second.options.defaults.image = "streampress:other".into();
    second.start();
    let own = format!("{}/{LEASE}", first.namespace);
    eventually("it says whose the pipelines are", async || {
        second.health.ready().is_err_and(|why| why.contains(&own))
    })
    .await;
    let events: Api<k8s_openapi::api::events::v1::Event> =
        Api::namespaced(first.client.clone(), &first.namespace);
    eventually("there is an Event", async || {
        let events = events.list(&Default::default()).await.unwrap();
        events.iter().any(|event| {
            let note = event.note.as_deref().unwrap_or_default();
            event.reason.as_deref() == Some("AnotherOperator") && note.contains(&own)
        })
    })
    .await;
    assert_eq!(first.generations().await, before);
    // Uninstalling it leaves the first one's pipelines alone.
    second.stop().await;
    let installation = Installation {
        lease_namespace: first.namespace.clone(),
        lease_name: "other".into(),
        deployment: "other".into(),
        namespace: Some(first.namespace.clone()),
        identity: "cleanup".into(),
    };
    let released = release_pipelines(first.client.clone(), installation).await;
    released.unwrap();
    let stock = first.pipelines().get("stock").await.unwrap();
    assert!(stock.metadata.finalizers.is_some());
    second.start();
    first.stop().await;
    eventually("the other one works now", async || {
        first.generations().await != before && second.health.ready().is_ok()
    })
    .await;
    // The first one comes back, and is the other one now.
    first.start();
    eventually("it says whose the pipelines are", async || {
        first
            .health
            .ready()
            .is_err_and(|why| why.contains("/other,"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_ends_releases_its_lease_at_once() {
    let cluster = TestCluster::empty().await;
    let dir = tempfile::tempdir().unwrap();
    let proxy = Proxy::start().await;
    let start = |number: usize| {
        let identity = format!("operator-{number}");
        Process::start(
            dir.path(),
            &identity,
            &proxy.kubeconfig(),
            Some(&cluster.namespace),
            &[],
        )
    };
    let mut leading = start(0);
    leads(&cluster, "operator-0").await;
    let mut took = Vec::new();
    for number in 1..=5 {
        proxy.take_log();
        let next = start(number);
        stands_by(&proxy).await;
        leading.signal(Signal::TERM);
        took.push(leads(&cluster, &format!("operator-{number}")).await);
        eventually("it has ended", async || leading.has_ended()).await;
        leading = next;
    }
    took.sort();
    println!(
        "after SIGTERM the next one led after {:?} (median), {:?} (longest of {})",
        took[2],
        took[4],
        took.len()
    );
}
