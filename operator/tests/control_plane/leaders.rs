//! Two operators, as processes of their own: only one of them ever writes.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use rustix::process::Signal;
use serde_json::json;
use streampress_operator::resources::owned_object::Kind;
use tokio::time::{Instant, sleep};

use crate::support::process::Process;
use crate::support::site::{LEASE, eventually_within};
use crate::support::{PATIENCE, Proxy, Site, eventually};

async fn leader(site: &Site) -> Option<String> {
    let leases: Api<Lease> = Api::namespaced(site.client.clone(), &site.namespace);
    leases.get_opt(LEASE).await.unwrap()?.spec?.holder_identity
}

async fn leads(site: &Site, identity: &str) -> Duration {
    eventually_within(PATIENCE, "the successor leads", async || {
        leader(site).await.as_deref() == Some(identity)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_frozen_past_its_lease_writes_nothing_after_it_wakes() {
    let site = Site::empty().await;
    let dir = tempfile::tempdir().unwrap();
    let (first_way, second_way) = (Proxy::start().await, Proxy::start().await);
    let start = |identity: &str, way: &Proxy| {
        Process::start(
            dir.path(),
            identity,
            &way.kubeconfig(),
            Some(&site.namespace),
            &[],
        )
    };
    let mut first = start("first", &first_way);
    leads(&site, "first").await;
    let names: Vec<String> = (0..10).map(|number| format!("stock-{number}")).collect();
    for name in &names {
        site.create(name, json!({})).await;
    }
    let slots = async || site.names(Kind::Lease).await.len();
    eventually("the first one has made all slots", async || {
        slots().await == 20
    })
    .await;
    let _second = start("second", &second_way);
    sleep(Duration::from_secs(1)).await;
    // Frozen just when there is a lot to do.
    for name in &names {
        site.edit(name, json!({"compressor": {"slots": 3}})).await;
    }
    first.signal(Signal::STOP);
    let took = leads(&site, "second").await;
    println!("a frozen leader was followed after {took:?}");
    eventually("the second one has made all slots", async || {
        slots().await == 40
    })
    .await;
    for name in &names {
        site.edit(name, json!({"compressor": {"slots": 1}})).await;
    }
    eventually("the second one has taken slots away", async || {
        slots().await == 20
    })
    .await;
    first_way.take_log();
    first.signal(Signal::CONT);
    let woke = Instant::now();
    while !first.has_ended() {
        assert!(woke.elapsed() < PATIENCE, "it still runs");
        sleep(Duration::from_millis(50)).await;
    }
    let writes = first_way
        .take_log()
        .iter()
        .filter(|seen| seen.writes())
        .count();
    assert_eq!(writes, 0, "writes after it woke");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_ended_hands_over_at_once() {
    let site = Site::empty().await;
    let dir = tempfile::tempdir().unwrap();
    let way = Proxy::start().await;
    let start = |number: usize| {
        let identity = format!("operator-{number}");
        Process::start(
            dir.path(),
            &identity,
            &way.kubeconfig(),
            Some(&site.namespace),
            &[],
        )
    };
    let mut leading = start(0);
    leads(&site, "operator-0").await;
    let mut took = Vec::new();
    for number in 1..=5 {
        let next = start(number);
        sleep(Duration::from_secs(3)).await;
        leading.signal(Signal::TERM);
        took.push(leads(&site, &format!("operator-{number}")).await);
        let began = Instant::now();
        while !leading.has_ended() {
            assert!(began.elapsed() < PATIENCE, "it still runs");
            sleep(Duration::from_millis(20)).await;
        }
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
