//! What hundreds of pipelines cost, measured on a real API server without nodes: the operator is a process of its own,
//! built for release, behind a proxy that counts. All tests are ignored by default:
//! `tests/cluster up --control-plane`, then
//! `tests/cluster exec cargo test --release -p streampress-operator --features cluster --test scale -- --ignored --nocapture`.
//! STREAMPRESS_SCALE (500) pipelines, STREAMPRESS_REST_SECONDS (600) at rest.
#![expect(clippy::unwrap_used, reason = "tests end by panicking")]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
    WatchEvent, WatchParams,
};
use kube::{Client, ResourceExt};
use serde_json::json;
use streampress_crds::{CheckedPipeline, CompressionPipeline, Role};
use streampress_operator::resources::{ObjectKind, Replicas, WorkerDefaults, build};
use tokio::time::{Instant, sleep};

use support::Proxy;
use support::adopted::Adopted;
use support::cluster::{eventually_within, install_crd, make_namespace};
use support::process::Process;
use support::proxy::ProxiedRequest;

/// As many at once as the operator reconciles.
const AT_ONCE: usize = 16;
const LONG: Duration = Duration::from_secs(900);

fn setting(name: &str, or: usize) -> usize {
    std::env::var(name).map_or(or, |text| text.parse().unwrap())
}

/// A pipeline without pods: in a cluster without nodes they would only wait, and keep its controllers busy.
fn pipeline(number: usize, aws: &str) -> DynamicObject {
    let object = json!({
        "apiVersion": "streampress.dev/v1alpha1", "kind": "CompressionPipeline",
        "metadata": {"name": format!("p{number}")},
        "spec": {
            "aws": {"endpointURL": aws},
            "transport": {
                "policy": "Adopt", "stream": {"name": format!("s{number}")},
                "filesQueue": {"name": format!("f{number}.fifo")}, "chunksQueue": {"name": format!("c{number}.fifo")},
            },
            "volume": {"persistentVolumeClaim": {"claimName": "files"}},
            "compressor": {"replicas": 0}, "decompressor": {"replicas": 0},
        },
    });
    serde_json::from_value(object).unwrap()
}

/// The API of one namespace.
#[derive(Clone)]
struct ScaleNamespace {
    client: Client,
    namespace: String,
}

impl ScaleNamespace {
    async fn new(client: &Client, name: &str) -> Self {
        let namespace = format!("scale-{name}-{}", std::process::id());
        make_namespace(client, &namespace).await;
        Self {
            client: client.clone(),
            namespace,
        }
    }

    fn pipelines(&self) -> Api<DynamicObject> {
        let resource = ApiResource::erase::<CompressionPipeline>(&());
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    fn of(&self, kind: ObjectKind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &kind.resource())
    }

    async fn create(&self, numbers: std::ops::Range<usize>, aws: &str) {
        stream::iter(numbers)
            .for_each_concurrent(AT_ONCE, async |number| {
                self.pipelines()
                    .create(&PostParams::default(), &pipeline(number, aws))
                    .await
                    .unwrap();
            })
            .await;
    }

    /// Objects of a kind; counted by the server's cache.
    async fn count(&self, kind: ObjectKind) -> usize {
        let params = ListParams::default()
            .labels("app.kubernetes.io/managed-by=streampress-operator")
            .match_any();
        self.of(kind)
            .list_metadata(&params)
            .await
            .unwrap()
            .items
            .len()
    }

    /// Waits until so many pipelines have all their objects; Deployments are made last.
    async fn made(&self, count: usize) {
        eventually_within(LONG, "all objects are there", async || {
            // A listing of all objects is work for the API server that is measured.
            sleep(Duration::from_millis(300)).await;
            self.count(ObjectKind::Deployment).await == 2 * count
        })
        .await;
    }

    /// Waits until each of them has a status of its latest spec too.
    async fn complete(&self, count: usize) {
        self.made(count).await;
        self.all(count, "statuses are there", |pipeline| {
            let observed = pipeline.data["status"]["observedGeneration"].as_i64();
            observed == pipeline.metadata.generation
        })
        .await;
    }

    /// Waits until each of them runs. The Deployments' own controller may take minutes for hundreds: until then there is
    /// news.
    async fn running(&self, count: usize) {
        self.all(count, "pipelines run", |pipeline| {
            pipeline.data["status"]["phase"] == "Running"
        })
        .await;
    }

    async fn all(&self, count: usize, what: &str, holds: impl Fn(&DynamicObject) -> bool) {
        let params = ListParams::default().match_any();
        eventually_within(LONG, &format!("all {what}"), async || {
            // A listing of all objects is work for the API server that is measured.
            sleep(Duration::from_millis(300)).await;
            let all = self.pipelines().list(&params).await.unwrap();
            all.items.iter().filter(|pipeline| holds(pipeline)).count() == count
        })
        .await;
    }
}

/// The writes that an operator makes for these pipelines, one after another for each, and nothing else.
async fn bare_loop(namespace: &ScaleNamespace, numbers: std::ops::Range<usize>, aws: &str) -> u64 {
    let writes = AtomicU64::new(0);
    let defaults = WorkerDefaults {
        image: "streampress:test".into(),
        network_policies: true,
    };
    let params = PatchParams::apply("streampress-operator").force();
    stream::iter(numbers)
        .for_each_concurrent(AT_ONCE, async |number| {
            let made = namespace
                .pipelines()
                .create(&PostParams::default(), &pipeline(number, aws))
                .await
                .unwrap();
            let typed: CompressionPipeline =
                serde_json::from_value(serde_json::to_value(&made).unwrap()).unwrap();
            let checked = CheckedPipeline::in_cluster(typed).unwrap();
            let replicas = Replicas::from([(Role::Compressor, 0), (Role::Decompressor, 0)]);
            for object in build(&checked, &replicas, &defaults) {
                namespace
                    .of(object.kind())
                    .patch(object.name(), &params, &Patch::Apply(&object))
                    .await
                    .unwrap();
                writes.fetch_add(1, Ordering::Relaxed);
            }
            let status = json!({
                "apiVersion": "streampress.dev/v1alpha1", "kind": "CompressionPipeline",
                "status": {"phase": "Pending", "observedGeneration": 1},
            });
            namespace
                .pipelines()
                .patch_status(&made.name_any(), &params, &Patch::Apply(&status))
                .await
                .unwrap();
            writes.fetch_add(1, Ordering::Relaxed);
        })
        .await;
    writes.into_inner()
}

/// Requests, by what they do.
fn sorted(log: &[ProxiedRequest]) -> BTreeMap<&'static str, usize> {
    let mut sorted = BTreeMap::from([
        ("writes", 0),
        ("Events", 0),
        ("lists", 0),
        ("watches begun", 0),
        ("about the lead", 0),
        ("other reads", 0),
    ]);
    for seen in log {
        let what = if seen.elects() {
            "about the lead"
        } else if seen.path.contains("/events") {
            "Events"
        } else if seen.writes() {
            "writes"
        } else if seen.watches() {
            "watches begun"
        } else if seen.lists() {
            "lists"
        } else {
            "other reads"
        };
        *sorted.get_mut(what).unwrap() += 1;
    }
    sorted
}

/// Objects that were written more than once.
fn twice(log: &[ProxiedRequest]) -> Vec<(String, usize)> {
    let mut counts = BTreeMap::<String, usize>::new();
    for seen in log
        .iter()
        .filter(|seen| seen.writes() && !seen.path.contains("/events"))
    {
        *counts
            .entry(format!(
                "{} {}",
                seen.method,
                seen.path.split('?').next().unwrap()
            ))
            .or_default() += 1;
    }
    counts.retain(|_, count| *count > 1);
    counts.into_iter().collect()
}

/// Waits until there was no write for so long.
async fn quiet(proxy: &Proxy, time: Duration) {
    let began = Instant::now();
    let mut last = Instant::now();
    while last.elapsed() < time {
        // Between two reads of the log.
        sleep(Duration::from_millis(500)).await;
        if proxy.take_log().iter().any(ProxiedRequest::writes) {
            last = Instant::now();
        }
        assert!(began.elapsed() < LONG, "the operator never stops writing");
    }
}

fn load() -> String {
    std::fs::read_to_string("/proc/loadavg")
        .unwrap()
        .split(' ')
        .take(2)
        .collect::<Vec<_>>()
        .join(" ")
}

fn percentiles(mut all: Vec<Duration>) -> String {
    all.sort();
    let at = |hundredths: usize| all[(all.len() - 1) * hundredths / 100];
    format!(
        "median {:?}, 90th {:?}, 99th {:?}, longest {:?} of {}",
        at(50),
        at(90),
        at(99),
        at(100),
        all.len()
    )
}

/// Watches Deployments; gives when a change was answered, and the time from then to the first that shows it.
async fn until_shown<F: Future>(
    namespace: &ScaleNamespace,
    change: impl FnOnce() -> F,
    shows: impl Fn(&DynamicObject) -> bool,
) -> (Instant, Duration) {
    let deployments = namespace.of(ObjectKind::Deployment);
    let now = deployments
        .list_metadata(&ListParams::default().match_any())
        .await
        .unwrap();
    let version = now.metadata.resource_version.unwrap();
    let events = deployments
        .watch(&WatchParams::default(), &version)
        .await
        .unwrap();
    futures::pin_mut!(events);
    change().await;
    let began = Instant::now();
    while let Some(event) = events.try_next().await.unwrap() {
        if let WatchEvent::Modified(object) | WatchEvent::Added(object) = event
            && shows(&object)
        {
            return (began, began.elapsed());
        }
    }
    panic!("the watch ended")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half an hour, and a calm machine"]
async fn hundreds_of_pipelines() {
    let count = setting("STREAMPRESS_SCALE", 500);
    let rest = Duration::from_secs(setting("STREAMPRESS_REST_SECONDS", 600) as u64);
    let client = Client::try_default()
        .await
        .expect("an API server: run this inside `tests/cluster exec`");
    install_crd(client.clone()).await;
    let aws = Adopted::start().await;

    println!("load {}", load());
    let bare = ScaleNamespace::new(&client, "bare").await;
    let began = Instant::now();
    let writes = bare_loop(&bare, 0..count, &aws.url()).await;
    let bare_took = began.elapsed();
    println!(
        "bare loop: {count} pipelines, {writes} writes in {bare_took:?} (load {})",
        load()
    );

    let namespace = ScaleNamespace::new(&client, "operator").await;
    let proxy = Proxy::start().await;
    let dir = tempfile::tempdir().unwrap();
    let endpoint = aws.url();
    let more = ["--allow-endpoint", endpoint.as_str()];
    let operator = Process::start(
        dir.path(),
        "operator",
        &proxy.kubeconfig(),
        Some(&namespace.namespace),
        &more,
    );
    namespace.create(0..1, &aws.url()).await;
    namespace.complete(1).await;
    println!("1 pipeline: {} KiB resident", operator.resident_kib().0);
    proxy.take_log();
    let cpu = operator.cpu_ticks();
    let began = Instant::now();
    namespace.create(1..count, &aws.url()).await;
    let created = began.elapsed();
    namespace.made(count).await;
    let took = began.elapsed();
    namespace.complete(count).await;
    let reported = began.elapsed();
    println!(
        "operator: all objects of {count} pipelines {took:?} after the first was applied (the last was after {created:?}), all statuses after {reported:?}; {:.2} times the bare loop; {} ms of processor time (load {})",
        took.as_secs_f64() / bare_took.as_secs_f64(),
        (operator.cpu_ticks() - cpu) * 10,
        load()
    );
    let log = proxy.take_log();
    let by_kind = sorted(&log);
    println!(
        "  {by_kind:?}: {:.2} writes for each pipeline",
        by_kind["writes"] as f64 / (count - 1) as f64
    );
    let again = twice(&log);
    println!(
        "  written more than once: {}, such as {:?}",
        again.len(),
        again.iter().take(3).collect::<Vec<_>>()
    );

    namespace.running(count).await;
    quiet(&proxy, Duration::from_secs(30)).await;
    let (cpu, asked) = (operator.cpu_ticks(), aws.requests());
    // What an operator at rest does is measured over a time.
    sleep(rest).await;
    let log = proxy.take_log();
    println!(
        "at rest for {rest:?}: {:?}; {} ms of processor time, {} requests to AWS, {} KiB resident (load {})",
        sorted(&log),
        (operator.cpu_ticks() - cpu) * 10,
        aws.requests() - asked,
        operator.resident_kib().0,
        load()
    );
    assert_eq!(
        log.iter()
            .filter(|seen| seen.writes() || seen.lists())
            .count(),
        0,
        "writes or lists at rest"
    );

    proxy.take_log();
    let (mut took, mut asked) = (Vec::new(), Vec::new());
    for number in 0..200 {
        let name = format!("p{}", number % count);
        let effort = if (number / count).is_multiple_of(2) {
            "Max"
        } else {
            "Fast"
        };
        let patch = json!({"spec": {"codec": {"effort": effort}}});
        let change = || async {
            namespace
                .pipelines()
                .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
                .await
                .unwrap()
        };
        let deployment = format!("{name}-compressor");
        let (began, after) = until_shown(&namespace, change, |object| {
            object.name_any() == deployment
                && object
                    .data
                    .to_string()
                    .contains(&format!("\\\"{}\\\"", effort))
        })
        .await;
        took.push(after);
        let write = proxy
            .take_log()
            .into_iter()
            .find(|seen| seen.writes() && seen.path.contains(&deployment));
        asked.push(write.unwrap().at.saturating_duration_since(began));
    }
    println!(
        "spec change to Deployment patched, {count} pipelines: {} (load {})\n  of which until the operator wrote it: {}",
        percentiles(took),
        load(),
        percentiles(asked)
    );

    let mut took = Vec::new();
    for number in 0..50 {
        let deployment = format!("p{}-decompressor", number % count);
        let grace = |object: &DynamicObject| {
            object.data["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].clone()
        };
        let patch = json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 7}}}});
        let change = || async {
            namespace
                .of(ObjectKind::Deployment)
                .patch(&deployment, &PatchParams::default(), &Patch::Merge(&patch))
                .await
                .unwrap()
        };
        let wrong = std::cell::Cell::new(false);
        let (_, after) = until_shown(&namespace, change, |object| {
            let ours = object.name_any() == deployment;
            wrong.set(wrong.get() || (ours && grace(object) == 7));
            ours && wrong.get() && grace(object) == 60
        })
        .await;
        took.push(after);
    }
    println!(
        "drift of a Deployment reverted: {} (load {})",
        percentiles(took),
        load()
    );

    namespace.create(count..2 * count, &aws.url()).await;
    namespace.complete(2 * count).await;
    quiet(&proxy, Duration::from_secs(15)).await;
    let (now, most) = operator.resident_kib();
    println!(
        "{} pipelines: {now} KiB resident, {most} KiB at most so far (load {})",
        2 * count,
        load()
    );
    if count >= 500 {
        assert!(
            now <= 64 * 1024,
            "{now} KiB resident: more than the chart allows"
        );
    }

    proxy.take_log();
    let mut took = Vec::new();
    for number in 0..20 {
        let name = format!("p{number}");
        let began = Instant::now();
        namespace
            .pipelines()
            .delete(&name, &DeleteParams::background())
            .await
            .unwrap();
        let children = format!("app.kubernetes.io/instance={name}");
        eventually_within(
            LONG,
            "the pipeline and its Deployments are gone",
            async || {
                let left = namespace
                    .of(ObjectKind::Deployment)
                    .list_metadata(&ListParams::default().labels(&children))
                    .await
                    .unwrap();
                left.items.is_empty()
                    && namespace
                        .pipelines()
                        .get_opt(&name)
                        .await
                        .unwrap()
                        .is_none()
            },
        )
        .await;
        took.push(began.elapsed());
    }
    println!(
        "deleted with all Deployments: {} (load {}); {:?}",
        percentiles(took),
        load(),
        sorted(&proxy.take_log())
    );
    for namespace in [bare, namespace] {
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
        let _ = namespaces
            .delete(&namespace.namespace, &DeleteParams::background())
            .await;
    }
}
