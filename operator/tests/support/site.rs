//! A namespace of its own with an operator that looks after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use streampress_operator::apply::applier::{pipelines, resource};
use streampress_operator::apply::election::Times;
use streampress_operator::http::Pulses;
use streampress_operator::http::metrics::Metrics;
use streampress_operator::resources::Platform;
use streampress_operator::resources::owned_object::Kind;
use streampress_operator::run::{Options, run};
use streampress_operator::transport::manager::DeskOptions;
use streampress_operator::transport::memory::Memory;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The leader's Lease.
pub const LEASE: &str = "streampress-operator";

/// A namespace, and an operator for it.
pub struct Site {
    /// Straight to the API server.
    pub client: Client,
    /// All of it is this test's.
    pub namespace: String,
    /// The world outside the cluster; it outlives operators.
    pub transport: Arc<Memory>,
    /// Of the operator that runs.
    pub metrics: Metrics,
    /// Health of the operator that runs.
    pub pulses: Pulses,
    /// For the next operator.
    pub options: Options,
    /// How often the operator ended by itself and was started again, as Kubernetes does.
    pub restarts: Arc<AtomicU32>,
    stop: CancellationToken,
    operator: Option<JoinHandle<()>>,
}

impl Site {
    /// With an operator.
    pub async fn new() -> Self {
        let mut site = Self::empty().await;
        site.start();
        site
    }

    /// Without an operator yet.
    pub async fn empty() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static CRD: OnceCell<()> = OnceCell::const_new();
        let client = Client::try_default()
            .await
            .expect("an API server: run this inside `tests/cluster exec`");
        CRD.get_or_init(|| install_crd(client.clone())).await;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("op-{}-{number}", std::process::id());
        make_namespace(&client, &namespace).await;
        let options = Options {
            namespace: Some(namespace.clone()),
            lease_namespace: namespace.clone(),
            lease_name: LEASE.into(),
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
        Self {
            client,
            namespace,
            transport: Arc::new(Memory::default()),
            metrics: Metrics::default(),
            pulses: Pulses::default(),
            options,
            restarts: Arc::default(),
            stop: CancellationToken::new(),
            operator: None,
        }
    }

    /// Starts an operator.
    pub fn start(&mut self) {
        self.start_through(self.client.clone());
    }

    /// Starts an operator that reaches the API server in its own way. When it loses the lead it begins anew.
    pub fn start_through(&mut self, client: Client) {
        self.stop = CancellationToken::new();
        self.metrics = Metrics::default();
        self.pulses = Pulses::default();
        let (transport, options) = (self.transport.clone(), self.options.clone());
        let (metrics, pulses, stop) =
            (self.metrics.clone(), self.pulses.clone(), self.stop.clone());
        let restarts = self.restarts.clone();
        self.operator = Some(tokio::spawn(async move {
            while !stop.is_cancelled() {
                run(
                    client.clone(),
                    transport.clone(),
                    options.clone(),
                    metrics.clone(),
                    pulses.clone(),
                    stop.child_token(),
                )
                .await;
                restarts.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }

    /// Ends the operator in order.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.operator.take().unwrap())
            .await
            .expect("the operator ends in order")
            .unwrap();
    }

    /// Ends the operator as kill -9 does. Nobody waits for its Lease to run out: it is taken away.
    pub async fn kill(&mut self) {
        let operator = self.operator.take().unwrap();
        operator.abort();
        let _ = operator.await;
        let leases: Api<DynamicObject> = self.of(Kind::Lease);
        let _ = leases.delete(LEASE, &DeleteParams::background()).await;
    }

    /// The pipelines.
    pub fn pipelines(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &pipelines())
    }

    /// The objects of a kind.
    pub fn of(&self, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource(kind))
    }

    /// Makes a pipeline whose queues are in memory.
    pub async fn create(&self, name: &str, spec: Value) {
        self.pipelines()
            .create(&PostParams::default(), &pipeline(name, spec))
            .await
            .unwrap();
    }

    /// Changes a pipeline.
    pub async fn edit(&self, name: &str, spec: Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.pipelines()
            .patch(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    /// Deletes a pipeline, and waits until it is gone.
    pub async fn delete(&self, name: &str) {
        self.pipelines()
            .delete(name, &DeleteParams::background())
            .await
            .unwrap();
        self.gone(name).await;
    }

    /// Waits until a pipeline is gone.
    pub async fn gone(&self, name: &str) {
        eventually("the pipeline is gone", async || {
            self.pipelines().get_opt(name).await.unwrap().is_none()
        })
        .await;
    }

    /// Waits until the status speaks of the latest spec and the transport.
    pub async fn settled(&self, name: &str) -> Value {
        self.until(name, "to be settled", |pipeline| {
            let status = &pipeline["status"];
            status["observedGeneration"] == pipeline["metadata"]["generation"]
                && condition(pipeline, "TransportReady") == "True"
        })
        .await
    }

    /// Waits until so many Deployments are there.
    pub async fn has_deployments(&self, count: usize) {
        eventually("all Deployments are there", async || {
            self.names(Kind::Deployment).await.len() == count
        })
        .await;
    }

    /// What a Deployment asks for; nothing where there is none.
    pub async fn replicas(&self, deployment: &str) -> Value {
        let found = self.of(Kind::Deployment).get_opt(deployment).await.unwrap();
        found.map_or(Value::Null, |found| found.data["spec"]["replicas"].clone())
    }

    /// Waits until a Deployment is there.
    pub async fn until_made(&self, deployment: &str) {
        eventually("the Deployment is there", async || {
            self.replicas(deployment).await != Value::Null
        })
        .await;
    }

    /// How often a Deployment's spec was changed.
    pub async fn generation(&self, deployment: &str) -> i64 {
        let found = self.of(Kind::Deployment).get(deployment).await.unwrap();
        found.metadata.generation.unwrap()
    }

    /// The same of all Deployments, by name.
    pub async fn generations(&self) -> Vec<(String, i64)> {
        let mut all = Vec::new();
        for name in self.names(Kind::Deployment).await {
            let generation = self.generation(&name).await;
            all.push((name, generation));
        }
        all
    }

    /// Waits until something holds for a pipeline; gives it as it is then.
    pub async fn until(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
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

    /// The names of all objects of a kind that belong to pipelines.
    pub async fn names(&self, kind: Kind) -> Vec<String> {
        let all = self.of(kind).list(&Default::default()).await.unwrap();
        let mut names: Vec<String> = all
            .items
            .iter()
            .map(ResourceExt::name_any)
            .filter(|name| !matches!(name.as_str(), "default" | LEASE))
            .collect();
        names.sort();
        names
    }

    /// How many writes the operator has made.
    pub fn writes(&self) -> u64 {
        let kinds = Kind::ALL
            .map(Kind::name)
            .into_iter()
            .chain(["CompressionPipeline", "CompressionPipeline/status"]);
        kinds.map(|kind| self.metrics.writes(kind)).sum()
    }

    /// No write for so long; gives how many there were before.
    pub async fn quiet_for(&self, time: Duration) -> u64 {
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

/// A pipeline whose queues are in memory.
pub fn pipeline(name: &str, mut spec: Value) -> DynamicObject {
    spec["volume"] = json!({"persistentVolumeClaim": {"claimName": "files"}});
    spec["aws"]["endpointURL"] = "http://memory".into();
    let object = json!({
        "apiVersion": "streampress.dev/v1alpha1", "kind": "CompressionPipeline",
        "metadata": {"name": name}, "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

/// A spec with all roles.
pub fn full() -> Value {
    json!({
        "generator": {"schema": {"example": "stock-market"}},
        "compressor": {"replicas": 2, "slots": 2, "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}}},
    })
}

/// Makes a namespace.
pub async fn make_namespace(client: &Client, name: &str) {
    let object = Namespace {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    Api::all(client.clone())
        .create(&PostParams::default(), &object)
        .await
        .unwrap();
}

/// Installs the CRD and waits until the server takes pipelines.
pub async fn install_crd(client: Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client);
    let crd = streampress_crds::crd();
    let params = PatchParams::apply("tests").force();
    let name = "compressionpipelines.streampress.dev";
    api.patch(name, &params, &Patch::Apply(&crd)).await.unwrap();
    eventually("the CRD is established", async || {
        let crd = api.get_status(name).await.unwrap();
        crd.status
            .and_then(|status| status.conditions)
            .into_iter()
            .flatten()
            .any(|condition| condition.type_ == "Established" && condition.status == "True")
    })
    .await;
}

/// Waits until something holds.
pub async fn eventually(what: &str, probe: impl AsyncFn() -> bool) {
    eventually_within(PATIENCE, what, probe).await;
}

/// Waits until something holds; gives how long that took.
pub async fn eventually_within(
    patience: Duration,
    what: &str,
    probe: impl AsyncFn() -> bool,
) -> Duration {
    let began = Instant::now();
    while !probe().await {
        assert!(began.elapsed() < patience, "never came true: {what}");
        sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

/// A condition's status.
pub fn condition(pipeline: &Value, type_: &str) -> String {
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
