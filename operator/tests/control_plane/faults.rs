//! Harm between the operator and the API server: whatever happens on the way, the state in the end is the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kube::ResourceExt;
use serde_json::{Value, json};
use streampress_operator::resources::names;
use streampress_operator::resources::owned_object::Kind;
use tokio::time::{Instant, sleep};

use crate::support::proxy::{Outage, Seen};
use crate::support::site::eventually_within;
use crate::support::{Fault, PATIENCE, Proxy, Site, condition, full};

/// A watch whose connection has fallen silent is given up after 33 s, and another one begun.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);
/// Longer than the leader goes on without having renewed its lead.
const LEAD_IS_LOST: Duration = Duration::from_secs(12);

/// What is done to the pipeline `stock`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Deed {
    Create,
    Update,
    Suspend,
    Delete,
}

const DEEDS: [Deed; 4] = [Deed::Create, Deed::Update, Deed::Suspend, Deed::Delete];

impl Deed {
    /// Asks for it.
    async fn ask(self, site: &Site) {
        match self {
            Deed::Create => site.create("stock", full()).await,
            // A role goes, a slot goes, a template changes.
            Deed::Update => {
                site.edit("stock", json!({"generator": null, "compressor": {"replicas": 3, "slots": 1}, "codec": {"effort": "Max"}})).await;
            }
            Deed::Suspend => site.edit("stock", json!({"suspend": true})).await,
            Deed::Delete => {
                let pipelines = site.pipelines();
                // A second one of the same is no error.
                let _ = pipelines.delete("stock", &Default::default()).await;
            }
        }
    }

    /// Whether all of it has come about, as far as the status tells.
    fn is_done(self, pipeline: &Value) -> bool {
        let status = &pipeline["status"];
        let looked = status["observedGeneration"] == pipeline["metadata"]["generation"]
            && condition(pipeline, "TransportReady") == "True";
        looked
            && match self {
                Deed::Create | Deed::Update => {
                    condition(pipeline, "Reconciling") == "True" && status["phase"] == "Pending"
                }
                // Being sure takes a minute more, in which nothing is written.
                Deed::Suspend => reason(pipeline, "Drained") == "Settling",
                Deed::Delete => false,
            }
    }

    async fn wait(self, site: &Site) {
        if self == Deed::Delete {
            eventually_within(
                PATIENCE,
                "the pipeline and its objects are gone",
                async || {
                    for kind in Kind::ALL {
                        if !site.names(kind).await.is_empty() {
                            return false;
                        }
                    }
                    site.pipelines().get_opt("stock").await.unwrap().is_none()
                },
            )
            .await;
            return;
        }
        site.until("stock", "to be done", |pipeline| self.is_done(pipeline))
            .await;
    }
}

fn reason(pipeline: &Value, type_: &str) -> Value {
    let conditions = pipeline["status"]["conditions"].as_array();
    let found = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == type_);
    found.map_or(Value::Null, |found| found["reason"].clone())
}

/// Everything there is of the pipeline, in the cluster and outside, without what differs from run to run: times,
/// versions, UIDs and what the cluster's own controllers write.
async fn state(site: &Site) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let pipeline = site.pipelines().get_opt("stock").await.unwrap();
    let uid = pipeline.as_ref().and_then(ResourceExt::uid);
    let plain = |object: Value| {
        let text = serde_json::to_string_pretty(&object).unwrap();
        let text = text.replace(&site.namespace, "NAMESPACE");
        match &uid {
            Some(uid) => text.replace(uid, "UID").replace(&uid[..8], "UID8"),
            None => text,
        }
    };
    for kind in Kind::ALL {
        for object in site.of(kind).list(&Default::default()).await.unwrap() {
            if object.labels().get(names::MANAGED_BY).is_none() {
                continue;
            }
            let name = object.name_any();
            let mut object = ours(serde_json::to_value(&object).unwrap());
            object.as_object_mut().unwrap().remove("status");
            all.insert(format!("{} {name}", kind.name()), plain(object));
        }
    }
    if let Some(pipeline) = pipeline {
        all.insert(
            "pipeline".into(),
            plain(ours(serde_json::to_value(&pipeline).unwrap())),
        );
    }
    all.insert("transport".into(), plain(json!(site.transport.names())));
    all
}

/// An object without what is new each time.
fn ours(mut object: Value) -> Value {
    let meta = object["metadata"].as_object_mut().unwrap();
    for field in [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generation",
        "namespace",
    ] {
        meta.remove(field);
    }
    if let Some(notes) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
        // A hash over the UID, and the Deployment controller's count.
        notes.remove("streampress.dev/applied");
        notes.remove("deployment.kubernetes.io/revision");
    }
    if let Some(managers) = meta.get_mut("managedFields").and_then(Value::as_array_mut) {
        managers.retain(|entry| entry["manager"] == names::MANAGER);
        managers
            .iter_mut()
            .for_each(|entry| drop(entry.as_object_mut().unwrap().remove("time")));
    }
    for condition in object["status"]["conditions"]
        .as_array_mut()
        .into_iter()
        .flatten()
    {
        condition
            .as_object_mut()
            .unwrap()
            .remove("lastTransitionTime");
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("observedGeneration");
        let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
        conditions.into_iter().flatten().for_each(|condition| {
            drop(
                condition
                    .as_object_mut()
                    .unwrap()
                    .remove("observedGeneration"),
            )
        });
    }
    object
}

#[track_caller]
fn check(found: &BTreeMap<String, String>, expected: &BTreeMap<String, String>, when: &str) {
    let keys = |state: &BTreeMap<String, String>| state.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(found), keys(expected), "{when}");
    for (key, expected) in expected {
        let found = &found[key];
        let differing = |a: &str, b: &str| {
            let lines = a
                .lines()
                .filter(|line| !b.lines().any(|other| other == *line));
            lines.collect::<Vec<_>>().join("\n")
        };
        assert!(
            found == expected,
            "{when}: {key} has\n{}\nand not\n{}",
            differing(found, expected),
            differing(expected, found)
        );
    }
}

/// The state at which the cluster's controllers have come to rest too.
async fn rested(
    site: &Site,
    expected: Option<&BTreeMap<String, String>>,
) -> BTreeMap<String, String> {
    let began = Instant::now();
    loop {
        let now = state(site).await;
        match expected {
            Some(expected) if now != *expected && began.elapsed() < LONGEST_SILENCE => {}
            None if began.elapsed() < Duration::from_secs(3) => {}
            _ => return now,
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Begins anew up to just before a deed.
async fn prepared(deed: Deed) -> Site {
    let mut site = Site::new().await;
    for before in DEEDS.into_iter().take_while(|before| *before != deed) {
        before.ask(&site).await;
        before.wait(&site).await;
    }
    site.stop().await;
    site
}

/// Does a deed with an operator that is killed after its `k`th write, whose answer it never hears, and then with
/// another one. Gives how many writes the first one came to.
async fn killed_after(
    deed: Deed,
    k: usize,
    expected: Option<&BTreeMap<String, String>>,
) -> (usize, BTreeMap<String, String>) {
    let mut site = prepared(deed).await;
    let proxy = Proxy::start().await;
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    proxy.rule(move |seen: &Seen| {
        let before = if seen.writes() {
            count.fetch_add(1, Ordering::SeqCst)
        } else {
            count.load(Ordering::SeqCst)
        };
        match before {
            // Nothing comes through any more; not even what had been asked for before.
            _ if before >= k => Fault::Hang,
            _ if seen.writes() && before + 1 == k => Fault::Deaf,
            _ => Fault::None,
        }
    });
    site.start_through(proxy.client());
    deed.ask(&site).await;
    if k == usize::MAX {
        deed.wait(&site).await;
        let state = rested(&site, None).await;
        return (written.load(Ordering::SeqCst), state);
    }
    let done = async {
        // How many writes there are may differ by one or two: statuses in between are not always written.
        deed.wait(&site).await;
        sleep(Duration::from_secs(1)).await;
    };
    tokio::select! {
        _ = eventually_within(PATIENCE, "the write at which it dies", async || written.load(Ordering::SeqCst) >= k) => {}
        () = done => {}
    }
    sleep(Duration::from_millis(30)).await;
    site.kill().await;
    drop(proxy);
    site.start();
    deed.wait(&site).await;
    let state = rested(&site, expected).await;
    (k, state)
}

async fn killed_at_every(step: usize) {
    for deed in DEEDS {
        let began = Instant::now();
        let (writes, expected) = killed_after(deed, usize::MAX, None).await;
        let mut tried = 0;
        for k in (1..=writes).step_by(step) {
            let (_, state) = killed_after(deed, k, Some(&expected)).await;
            check(
                &state,
                &expected,
                &format!("{deed:?}, killed after write {k} of {writes}"),
            );
            tried += 1;
        }
        println!(
            "{deed:?}: {writes} writes; killed after {tried} of them, the same state each time ({:?})",
            began.elapsed()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_killed_after_any_fifth_write_leaves_nothing_undone() {
    killed_at_every(5).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn an_operator_killed_after_any_write_leaves_nothing_undone() {
    killed_at_every(1).await;
}

/// What each deed comes to when nothing goes wrong.
async fn undisturbed() -> Vec<BTreeMap<String, String>> {
    let site = Site::new().await;
    let mut states = Vec::new();
    for deed in DEEDS {
        deed.ask(&site).await;
        deed.wait(&site).await;
        states.push(rested(&site, None).await);
    }
    states
}

/// A pipeline's life while requests and watches fail at random. After each deed the harm ends, and the state must come
/// to what it is without harm.
async fn through_faults(seed: u64, expected: &[BTreeMap<String, String>]) {
    let mut site = Site::empty().await;
    let proxy = Proxy::start().await;
    let mut random = fastrand::Rng::with_seed(seed);
    let harmful = Arc::new(AtomicBool::new(true));
    let harm = Arc::clone(&harmful);
    proxy.rule(move |seen: &Seen| {
        if !harm.load(Ordering::SeqCst) {
            return Fault::None;
        }
        let soon = Duration::from_millis(random.u64(0..800));
        if seen.watches() && random.u8(0..10) < 6 {
            return match random.u8(0..6) {
                0 => Fault::Answer(410),
                1 => Fault::Answer(500),
                2 => Fault::Answer(429),
                3 => Fault::Late(soon),
                4 => Fault::Cut(soon),
                _ => Fault::Stall(soon),
            };
        }
        match random.u8(0..20) {
            0 => Fault::Answer(409),
            1 => Fault::Answer(429),
            2 => Fault::Answer(500),
            3 => Fault::Refuse,
            4 => Fault::Deaf,
            5 => Fault::Late(soon),
            6 if seen.lists() => Fault::Answer(410),
            _ => Fault::None,
        }
    });
    site.start_through(proxy.client());
    let mut slowest = Duration::ZERO;
    for (deed, expected) in DEEDS.into_iter().zip(expected) {
        harmful.store(true, Ordering::SeqCst);
        deed.ask(&site).await;
        sleep(Duration::from_secs(4)).await;
        harmful.store(false, Ordering::SeqCst);
        let began = Instant::now();
        let state = rested(&site, Some(expected)).await;
        slowest = slowest.max(began.elapsed());
        check(&state, expected, &format!("{deed:?}, seed {seed}"));
    }
    let requests = proxy.take_log().len();
    let restarts = site.restarts.load(Ordering::Relaxed);
    println!(
        "seed {seed}: {requests} requests, the lead lost {restarts} times, all as it should be at most {slowest:?} after the harm"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_at_random_change_nothing_in_the_end() {
    through_faults(1, &undisturbed().await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn faults_at_random_change_nothing_in_the_end_by_twenty_seeds() {
    // STREAMPRESS_SEED begins with another one, as to see a failure again.
    let first = std::env::var("STREAMPRESS_SEED").map_or(2, |seed| seed.parse().unwrap());
    let expected = undisturbed().await;
    for seed in first..22 {
        through_faults(seed, &expected).await;
    }
}

/// So many times the API server is away for a moment, and every twentieth time for longer than a lead lasts; now and then
/// an edit shows that nothing is stuck.
async fn through_outages(count: u32, checked_every: u32) {
    let mut site = Site::empty().await;
    let proxy = Proxy::start().await;
    site.start_through(proxy.client());
    site.create("stock", json!({})).await;
    site.settled("stock").await;
    site.has_deployments(2).await;
    let mut random = fastrand::Rng::with_seed(7);
    let mut slowest = Duration::ZERO;
    for number in 1..=count {
        let outage = if random.bool() {
            Outage::Refused
        } else {
            Outage::Silent
        };
        proxy.fail(outage);
        let away = Duration::from_millis(random.u64(10..600));
        let longer = if number % 20 == 0 {
            LEAD_IS_LOST
        } else {
            Duration::ZERO
        };
        sleep(away + longer).await;
        proxy.recover();
        sleep(Duration::from_millis(random.u64(0..300))).await;
        if number % checked_every == 0 {
            site.edit("stock", json!({"compressor": {"replicas": number}}))
                .await;
            let took = eventually_within(LONGEST_SILENCE, "the edit is seen", async || {
                site.replicas("stock-compressor").await == number
            })
            .await;
            slowest = slowest.max(took);
        }
    }
    let restarts = site.restarts.load(Ordering::Relaxed);
    assert!(restarts >= count / 20, "the lead was lost {restarts} times");
    println!(
        "{count} outages: an edit was carried out at most {slowest:?} after one; the lead was lost {restarts} times"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn outages_of_the_api_server_leave_nothing_stuck() {
    through_outages(10, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn a_hundred_outages_of_the_api_server_leave_nothing_stuck() {
    through_outages(100, 10).await;
}
