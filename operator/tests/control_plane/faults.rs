//! Faults between the operator and the API server: whatever happens on the way, the final state is the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kube::ResourceExt;
use serde_json::{Value, json};
use streampress_operator::resources::ObjectKind;
use streampress_operator::resources::names;
use tokio::time::{Instant, sleep};

use crate::support::cluster::eventually_within;
use crate::support::proxy::{ApiOutage, ProxiedRequest};
use crate::support::{Fault, PATIENCE, Proxy, TestCluster, condition, eventually, full};

/// A watch whose connection is silent is replaced after 30 s.
const LONGEST_SILENCE: Duration = Duration::from_secs(120);
/// Longer than a leader that cannot renew its lead keeps it.
const LEAD_IS_LOST: Duration = Duration::from_secs(12);
/// So many faults happen during each step that fails at random.
const FAULTS_PER_STEP: usize = 30;

/// A change of the pipeline `stock`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum LifeStep {
    Create,
    Update,
    Suspend,
    Delete,
}

const STEPS: [LifeStep; 4] = [
    LifeStep::Create,
    LifeStep::Update,
    LifeStep::Suspend,
    LifeStep::Delete,
];

impl LifeStep {
    /// Makes the change.
    async fn make(self, cluster: &TestCluster) {
        match self {
            LifeStep::Create => cluster.create("stock", full()).await,
            // A role and a slot are removed, a template changes.
            LifeStep::Update => {
                cluster.edit("stock", json!({"generator": null, "compressor": {"replicas": 3, "slots": 1}, "codec": {"effort": "Max"}})).await;
            }
            LifeStep::Suspend => cluster.edit("stock", json!({"suspend": true})).await,
            LifeStep::Delete => {
                let pipelines = cluster.pipelines();
                // It may have been deleted already.
                let _ = pipelines.delete("stock", &Default::default()).await;
            }
        }
    }

    /// Whether the change is carried out, by the status.
    fn is_done(self, pipeline: &Value) -> bool {
        let status = &pipeline["status"];
        let is_observed = status["observedGeneration"] == pipeline["metadata"]["generation"]
            && condition(pipeline, "TransportReady") == "True";
        is_observed
            && match self {
                LifeStep::Create | LifeStep::Update => {
                    condition(pipeline, "Reconciling") == "True" && status["phase"] == "Pending"
                }
                // Settling takes a minute more, in which nothing is written.
                LifeStep::Suspend => reason(pipeline, "Drained") == "Settling",
                LifeStep::Delete => false,
            }
    }

    async fn wait(self, cluster: &TestCluster) {
        if self == LifeStep::Delete {
            eventually_within(
                PATIENCE,
                "the pipeline and its objects are gone",
                async || {
                    for kind in ObjectKind::ALL {
                        if !cluster.names(kind).await.is_empty() {
                            return false;
                        }
                    }
                    cluster
                        .pipelines()
                        .get_opt("stock")
                        .await
                        .unwrap()
                        .is_none()
                },
            )
            .await;
            return;
        }
        cluster
            .until("stock", "to be done", |pipeline| self.is_done(pipeline))
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

/// How a status begins that waits for pods. Which role it names first, and whether with the scheduler's words, depends on the pods
/// that the scheduler has seen: there are no nodes.
const WAITING: &str = "Waiting for the ";

/// Everything that exists of the pipeline, in the cluster and outside, without what differs from run to run: times,
/// versions, UIDs and what the cluster's own controllers write.
async fn state(cluster: &TestCluster) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let pipeline = cluster.pipelines().get_opt("stock").await.unwrap();
    let uid = pipeline.as_ref().and_then(ResourceExt::uid);
    let plain = |object: Value| {
        let text = serde_json::to_string_pretty(&object).unwrap();
        let text = text.replace(&cluster.namespace, "NAMESPACE");
        let lines = text.lines().map(|line| match line.split_once(WAITING) {
            Some((before, _)) => format!("{before}{WAITING}pods"),
            None => line.to_owned(),
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        match &uid {
            Some(uid) => text.replace(uid, "UID").replace(&uid[..8], "UID8"),
            None => text,
        }
    };
    for kind in ObjectKind::ALL {
        for object in cluster.of(kind).list(&Default::default()).await.unwrap() {
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
    all.insert("transport".into(), plain(json!(cluster.transport.names())));
    all
}

/// An object without what differs from run to run.
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
        // The Deployment controller's count.
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

/// The state when the cluster's controllers are at rest too.
async fn rested(
    cluster: &TestCluster,
    expected: Option<&BTreeMap<String, String>>,
) -> BTreeMap<String, String> {
    let began = Instant::now();
    let (mut before, mut unchanged_since) = (BTreeMap::new(), began);
    loop {
        let now = state(cluster).await;
        if now != before {
            (before, unchanged_since) = (now.clone(), Instant::now());
        }
        let is_awaited = match expected {
            Some(expected) => now != *expected,
            // No signal says when the controllers are at rest.
            None => unchanged_since.elapsed() < Duration::from_secs(3),
        };
        if !is_awaited || began.elapsed() >= LONGEST_SILENCE {
            return now;
        }
        // Between two reads of the state.
        sleep(Duration::from_millis(100)).await;
    }
}

/// A pipeline just before a step, without an operator.
async fn prepared(step: LifeStep) -> TestCluster {
    let mut cluster = TestCluster::new().await;
    for before in STEPS.into_iter().take_while(|before| *before != step) {
        before.make(&cluster).await;
        before.wait(&cluster).await;
    }
    cluster.stop().await;
    cluster
}

/// Makes a step with an operator that is killed after its `k`th write, whose answer it never gets, and then with
/// another one. Gives how many writes the first one made.
async fn killed_after(
    step: LifeStep,
    k: usize,
    expected: Option<&BTreeMap<String, String>>,
) -> (usize, BTreeMap<String, String>) {
    let mut cluster = prepared(step).await;
    let proxy = Proxy::start().await;
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    proxy.rule(move |seen: &ProxiedRequest| {
        let before = if seen.writes() {
            count.fetch_add(1, Ordering::SeqCst)
        } else {
            count.load(Ordering::SeqCst)
        };
        match before {
            // Nothing is forwarded any more, not even requests that were made before.
            _ if before >= k => Fault::Hang,
            _ if seen.writes() && before + 1 == k => Fault::AnswerLost,
            _ => Fault::None,
        }
    });
    cluster.start_through(proxy.client());
    step.make(&cluster).await;
    if k == usize::MAX {
        step.wait(&cluster).await;
        let state = rested(&cluster, None).await;
        return (written.load(Ordering::SeqCst), state);
    }
    let done = async {
        // The number of writes may differ by one or two: statuses in between are not always written.
        step.wait(&cluster).await;
        cluster.rest(Duration::from_secs(1)).await;
    };
    tokio::select! {
        _ = eventually_within(PATIENCE, "the write at which it dies", async || written.load(Ordering::SeqCst) >= k) => {}
        () = done => {}
    }
    // The operator goes on for a moment without an answer.
    sleep(Duration::from_millis(30)).await;
    cluster.kill().await;
    drop(proxy);
    cluster.start();
    step.wait(&cluster).await;
    let state = rested(&cluster, expected).await;
    (k, state)
}

async fn killed_at_every(nth: usize) {
    for step in STEPS {
        let began = Instant::now();
        let (writes, expected) = killed_after(step, usize::MAX, None).await;
        let mut tried = 0;
        for k in (1..=writes).step_by(nth) {
            let (_, state) = killed_after(step, k, Some(&expected)).await;
            check(
                &state,
                &expected,
                &format!("{step:?}, killed after write {k} of {writes}"),
            );
            tried += 1;
        }
        println!(
            "{step:?}: {writes} writes; killed after {tried} of them, the same state each time ({:?})",
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

/// The state after each step when nothing fails.
async fn undisturbed() -> Vec<BTreeMap<String, String>> {
    let cluster = TestCluster::new().await;
    let mut states = Vec::new();
    for step in STEPS {
        step.make(&cluster).await;
        step.wait(&cluster).await;
        states.push(rested(&cluster, None).await);
    }
    states
}

/// All steps while requests and watches fail at random. After each step the faults end, and the state must become what it
/// is without faults.
async fn through_faults(seed: u64, expected: &[BTreeMap<String, String>]) {
    let mut cluster = TestCluster::empty().await;
    let proxy = Proxy::start().await;
    let mut random = fastrand::Rng::with_seed(seed);
    let (faulty, injected) = (
        Arc::new(AtomicBool::new(true)),
        Arc::new(AtomicUsize::new(0)),
    );
    let (is_faulty, count) = (Arc::clone(&faulty), Arc::clone(&injected));
    let mut fault = move |seen: &ProxiedRequest| {
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
            4 => Fault::AnswerLost,
            5 => Fault::Late(soon),
            6 if seen.lists() => Fault::Answer(410),
            _ => Fault::None,
        }
    };
    proxy.rule(move |seen: &ProxiedRequest| {
        let fault = match is_faulty.load(Ordering::SeqCst) {
            true => fault(seen),
            false => Fault::None,
        };
        if !matches!(fault, Fault::None) {
            count.fetch_add(1, Ordering::SeqCst);
        }
        fault
    });
    cluster.start_through(proxy.client());
    let mut slowest = Duration::ZERO;
    for (step, expected) in STEPS.into_iter().zip(expected) {
        faulty.store(true, Ordering::SeqCst);
        step.make(&cluster).await;
        let before = injected.load(Ordering::SeqCst);
        eventually("faults were injected", async || {
            injected.load(Ordering::SeqCst) >= before + FAULTS_PER_STEP
        })
        .await;
        faulty.store(false, Ordering::SeqCst);
        let began = Instant::now();
        let state = rested(&cluster, Some(expected)).await;
        slowest = slowest.max(began.elapsed());
        check(&state, expected, &format!("{step:?}, seed {seed}"));
    }
    let requests = proxy.take_log().len();
    let restarts = cluster.restarts.load(Ordering::Relaxed);
    println!(
        "seed {seed}: {requests} requests, the lead lost {restarts} times, all as it should be at most {slowest:?} after the faults"
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

/// The API server is unreachable so many times for a moment, and every twentieth time for longer than a lead lasts; now
/// and then an edit shows that nothing is stuck.
async fn through_outages(count: u32, checked_every: u32) {
    let mut cluster = TestCluster::empty().await;
    let proxy = Proxy::start().await;
    cluster.start_through(proxy.client());
    cluster.create("stock", json!({})).await;
    cluster.settled("stock").await;
    cluster.has_deployments(2).await;
    let mut random = fastrand::Rng::with_seed(7);
    let mut slowest = Duration::ZERO;
    for number in 1..=count {
        let outage = if random.bool() {
            ApiOutage::Refused
        } else {
            ApiOutage::Silent
        };
        proxy.fail(outage);
        let away = Duration::from_millis(random.u64(10..600));
        let longer = if number % 20 == 0 {
            LEAD_IS_LOST
        } else {
            Duration::ZERO
        };
        // The length of the outage.
        sleep(away + longer).await;
        proxy.recover();
        // The time until the next one.
        sleep(Duration::from_millis(random.u64(0..300))).await;
        if number % checked_every == 0 {
            cluster
                .edit("stock", json!({"compressor": {"replicas": number}}))
                .await;
            let took = eventually_within(LONGEST_SILENCE, "the edit is seen", async || {
                cluster.replicas("stock-compressor").await == number
            })
            .await;
            slowest = slowest.max(took);
        }
    }
    let restarts = cluster.restarts.load(Ordering::Relaxed);
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
