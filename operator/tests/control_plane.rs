//! The operator against a real API server without nodes: what it makes, leaves alone, puts right and takes away.
//! `tests/cluster up --control-plane`, then `tests/cluster exec cargo test -p streampress-operator --features cluster`.
//! Every test has an operator of its own that looks after a namespace of its own.
#![expect(clippy::unwrap_used, reason = "tests end by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use streampress_operator::apply::{pipelines, resource};
use streampress_operator::build::Platform;
use streampress_operator::child::Kind;
use streampress_operator::http::Pulses;
use streampress_operator::leader::Times;
use streampress_operator::metrics::Metrics;
use streampress_operator::run::{Options, run};
use streampress_operator::transport::desk::DeskOptions;
use streampress_operator::transport::memory::Memory;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(30);

/// A namespace and an operator for it.
struct Site {
    client: Client,
    namespace: String,
    transport: Arc<Memory>,
    metrics: Metrics,
    stop: CancellationToken,
    operator: Option<JoinHandle<()>>,
}

impl Site {
    async fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static CRD: OnceCell<()> = OnceCell::const_new();
        let client = Client::try_default()
            .await
            .expect("an API server: run this inside `tests/cluster exec`");
        CRD.get_or_init(|| install_crd(client.clone())).await;
        let namespace = format!(
            "op-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let object = Namespace {
            metadata: ObjectMeta {
                name: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        Api::all(client.clone())
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
        let mut site = Self {
            client,
            namespace,
            transport: Arc::new(Memory::default()),
            metrics: Metrics::default(),
            stop: CancellationToken::new(),
            operator: None,
        };
        site.start();
        site
    }

    fn start(&mut self) {
        let options = Options {
            namespace: Some(self.namespace.clone()),
            lease_namespace: self.namespace.clone(),
            lease_name: "streampress-operator".into(),
            identity: format!("test-{}", std::process::id()),
            times: Times::default(),
            platform: Platform {
                worker_image: "streampress:test".into(),
                network_policies: true,
            },
            desk: DeskOptions {
                look_every: Duration::from_millis(200),
                look_rarely: Duration::from_millis(200),
                removal_deadline: Duration::from_secs(2),
                own_identity_endpoints: vec!["http://memory".into()],
                ..DeskOptions::default()
            },
            at_once: 8,
            debounce: Duration::from_millis(10),
        };
        self.stop = CancellationToken::new();
        self.metrics = Metrics::default();
        let run = run(
            self.client.clone(),
            self.transport.clone(),
            options,
            self.metrics.clone(),
            Pulses::default(),
            self.stop.clone(),
        );
        self.operator = Some(tokio::spawn(run));
    }

    async fn stop(&mut self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.operator.take().unwrap())
            .await
            .expect("the operator ends in order")
            .unwrap();
    }

    fn pipelines(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &pipelines())
    }

    fn of(&self, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource(kind))
    }

    async fn create(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["volume"] = json!({"persistentVolumeClaim": {"claimName": "files"}});
        spec["aws"]["endpointURL"] = "http://memory".into();
        let object = json!({"apiVersion": "streampress.dev/v1alpha1", "kind": "CompressionPipeline", "metadata": {"name": name}, "spec": spec});
        self.pipelines()
            .create(
                &PostParams::default(),
                &serde_json::from_value(object).unwrap(),
            )
            .await
            .unwrap();
    }

    async fn edit(&self, name: &str, spec: Value) {
        self.pipelines()
            .patch(
                name,
                &PatchParams::default(),
                &Patch::Merge(json!({"spec": spec})),
            )
            .await
            .unwrap();
    }

    /// Waits until the status speaks of the latest spec and the transport, and all objects are there.
    async fn settled(&self, name: &str) -> Value {
        self.until(name, "to be settled", |pipeline| {
            let status = &pipeline["status"];
            status["observedGeneration"] == pipeline["metadata"]["generation"]
                && condition(pipeline, "TransportReady") == "True"
        })
        .await
    }

    async fn until(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let pipeline = serde_json::to_value(self.pipelines().get(name).await.unwrap()).unwrap();
            if holds(&pipeline) {
                return pipeline;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "gave up waiting for {name} {what}: {:#}",
                pipeline["status"]
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn names(&self, kind: Kind) -> Vec<String> {
        let all = self.of(kind).list(&Default::default()).await.unwrap();
        let mut names: Vec<String> = all
            .items
            .iter()
            .map(ResourceExt::name_any)
            .filter(|name| !matches!(name.as_str(), "default" | "streampress-operator"))
            .collect();
        names.sort();
        names
    }

    fn writes(&self) -> u64 {
        let kinds = Kind::ALL
            .map(Kind::name)
            .into_iter()
            .chain(["CompressionPipeline", "CompressionPipeline/status"]);
        kinds.map(|kind| self.metrics.writes(kind)).sum()
    }

    /// No write for so long; gives how many there were before.
    async fn quiet_for(&self, time: Duration) -> u64 {
        let before = self.writes();
        sleep(time).await;
        assert_eq!(
            self.writes(),
            before,
            "writes at rest:\n{}",
            self.metrics.text()
        );
        before
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn install_crd(client: Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client);
    let crd = streampress_crds::crd();
    let params = PatchParams::apply("tests").force();
    api.patch(
        "compressionpipelines.streampress.dev",
        &params,
        &Patch::Apply(&crd),
    )
    .await
    .unwrap();
    eventually("the CRD is established", async || {
        let crd = api
            .get_status("compressionpipelines.streampress.dev")
            .await
            .unwrap();
        crd.status
            .and_then(|status| status.conditions)
            .into_iter()
            .flatten()
            .any(|condition| condition.type_ == "Established" && condition.status == "True")
    })
    .await;
}

async fn eventually(what: &str, probe: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !probe().await {
        assert!(began.elapsed() < PATIENCE, "never came true: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn condition(pipeline: &Value, type_: &str) -> String {
    let conditions = pipeline["status"]["conditions"].as_array();
    let found = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == type_);
    found
        .and_then(|condition| condition["status"].as_str())
        .unwrap_or_default()
        .to_owned()
}

fn full() -> Value {
    json!({
        "generator": {"schema": {"example": "stock-market"}},
        "compressor": {"replicas": 2, "slots": 2, "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}}},
    })
}

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
    eventually("the Deployment is there", async || {
        site.names(Kind::Deployment).await.len() == 3
    })
    .await;
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
    site.pipelines()
        .delete("one", &DeleteParams::background())
        .await
        .unwrap();
    eventually("the pipeline is gone", async || {
        site.pipelines().get_opt("one").await.unwrap().is_none()
    })
    .await;
    println!("deleted after {:?}", began.elapsed());
    assert_eq!(site.transport.names().len(), 5);
    site.transport.hang(true);
    site.pipelines()
        .delete("two", &DeleteParams::background())
        .await
        .unwrap();
    eventually("the second is gone too", async || {
        site.pipelines().get_opt("two").await.unwrap().is_none()
    })
    .await;
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
    site.pipelines()
        .delete("one", &DeleteParams::background())
        .await
        .unwrap();
    eventually("the pipeline is gone", async || {
        site.pipelines().get_opt("one").await.unwrap().is_none()
    })
    .await;
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
async fn a_foreign_object_of_the_same_name_is_left_alone_and_named() {
    let site = Site::new().await;
    let foreign = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "stock-metrics"}, "spec": {"ports": [{"name": "metrics", "port": 8080, "targetPort": 1}]}});
    site.of(Kind::Service)
        .create(
            &PostParams::default(),
            &serde_json::from_value(foreign).unwrap(),
        )
        .await
        .unwrap();
    site.create("stock", json!({})).await;
    let stock = site
        .until("stock", "to be stalled", |pipeline| {
            condition(pipeline, "Stalled") == "True"
        })
        .await;
    assert!(
        stock["status"]["message"]
            .as_str()
            .unwrap()
            .contains("Service stock-metrics"),
        "{stock:#}"
    );
    assert!(
        site.of(Kind::Service)
            .get("stock-metrics")
            .await
            .unwrap()
            .owner_references()
            .is_empty()
    );
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
    eventually("the workers are there", async || {
        site.names(Kind::Deployment).await.len() == 3
    })
    .await;
    site.transport.put(&queue, 3);
    site.edit("stock", json!({"suspend": true})).await;
    let replicas = async |name: &str| {
        site.of(Kind::Deployment).get(name).await.unwrap().data["spec"]["replicas"].clone()
    };
    site.until("stock", "to count what is left", |pipeline| {
        pipeline["status"]["message"]
            .as_str()
            .is_some_and(|message| message.contains("3 packed files"))
    })
    .await;
    assert_eq!(
        (
            replicas("stock-generator").await,
            replicas("stock-compressor").await,
            replicas("stock-decompressor").await
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
        replicas("stock-generator").await == 1 && replicas("stock-compressor").await == 1
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
    let replicas = async |name: &str| {
        site.of(Kind::Deployment)
            .get_opt(name)
            .await
            .unwrap()
            .map(|deployment| deployment.data["spec"]["replicas"].clone())
    };
    eventually("nobody works while there is no work", async || {
        replicas("inner-compressor").await == Some(json!(0))
    })
    .await;
    let queue = inner["status"]["transport"]["filesQueueURL"]
        .as_str()
        .unwrap()
        .replace("memory://", "");
    let began = Instant::now();
    site.transport.put(&queue, 1);
    eventually("the first pod is asked for", async || {
        replicas("inner-compressor").await == Some(json!(1))
    })
    .await;
    println!("the first pod was asked for after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(3));
    eventually("the other's workers are there", async || {
        replicas("outer-compressor").await.is_some()
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
    assert_eq!(replicas("outer-compressor").await, Some(json!(5)));
    assert_eq!(site.metrics.writes("Deployment"), writes);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scale_subresource_scales_the_compressor() {
    let site = Site::new().await;
    site.create("stock", json!({})).await;
    site.settled("stock").await;
    eventually("the workers are there", async || {
        site.names(Kind::Deployment).await.len() == 2
    })
    .await;
    let scale = json!({"spec": {"replicas": 4}});
    site.pipelines()
        .patch_scale("stock", &PatchParams::default(), &Patch::Merge(scale))
        .await
        .unwrap();
    eventually("the Deployment follows", async || {
        site.of(Kind::Deployment)
            .get("stock-compressor")
            .await
            .unwrap()
            .data["spec"]["replicas"]
            == 4
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_operator_takes_over_at_once_and_writes_nothing_again() {
    let mut site = Site::new().await;
    site.create("stock", full()).await;
    site.settled("stock").await;
    eventually("the workers are there", async || {
        site.names(Kind::Deployment).await.len() == 3
    })
    .await;
    sleep(Duration::from_secs(2)).await;
    site.stop().await;
    let began = Instant::now();
    site.start();
    site.edit("stock", json!({"compressor": {"replicas": 3}}))
        .await;
    eventually("the successor works", async || {
        site.of(Kind::Deployment)
            .get("stock-compressor")
            .await
            .unwrap()
            .data["spec"]["replicas"]
            == 3
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
    eventually("the first is gone", async || {
        site.pipelines().get_opt("stock").await.unwrap().is_none()
    })
    .await;
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
