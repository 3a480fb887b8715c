//! A namespace of its own on the test cluster, with an operator for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams,
};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use streampress_crds::CompressionPipeline;
use streampress_crds::lease::Times;
use streampress_operator::http::OperatorHealth;
use streampress_operator::http::metrics::OperatorMetrics;
use streampress_operator::resources::{ObjectKind, WorkerDefaults};
use streampress_operator::run::{OperatorOptions, run};
use streampress_operator::transport::manager::ManagerOptions;
use streampress_operator::transport::memory::MemoryProvisioner;
use streampress_tests::eventually;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// How long a test waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// The leader's Lease.
pub const LEASE: &str = "streampress-operator";
/// The Lease that says which installation runs the pipelines.
const CLAIM: &str = "streampress-installation";

/// A namespace, and an operator for it.
pub struct TestCluster {
    /// A client of the API server, without a proxy.
    pub client: Client,
    /// The namespace; only this test uses it.
    pub namespace: String,
    /// Queues and streams; they outlive operators.
    pub transport: Arc<MemoryProvisioner>,
    /// Metrics of the running operator.
    pub metrics: OperatorMetrics,
    /// Health of the running operator.
    pub health: OperatorHealth,
    /// For the next operator.
    pub options: OperatorOptions,
    /// How often the operator ended by itself and was started again, as Kubernetes does.
    pub restarts: Arc<AtomicU32>,
    stop: CancellationToken,
    operator: Option<JoinHandle<()>>,
}

impl TestCluster {
    /// With an operator.
    pub async fn new() -> Self {
        let mut cluster = Self::empty().await;
        cluster.start();
        cluster
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
        let options = OperatorOptions {
            namespace: Some(namespace.clone()),
            lease_namespace: namespace.clone(),
            lease_name: LEASE.into(),
            identity: format!("test-{}", std::process::id()),
            times: Times::default(),
            over_after: Duration::from_secs(1),
            defaults: WorkerDefaults {
                image: "streampress:test".into(),
                network_policies: true,
            },
            transport: ManagerOptions {
                busy_interval: Duration::from_millis(200),
                quiet_interval: Duration::from_millis(200),
                call_deadline: Duration::from_secs(2),
                removal_deadline: Duration::from_secs(2),
                empty_for: Duration::ZERO,
                own_identity_endpoints: vec!["http://memory".into()],
                ..ManagerOptions::default()
            },
            concurrency: 8,
            debounce: Duration::from_millis(10),
        };
        Self {
            client,
            namespace,
            transport: Arc::new(MemoryProvisioner::default()),
            metrics: OperatorMetrics::default(),
            health: OperatorHealth::default(),
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

    /// Starts an operator with this client. When it loses the lead it is started again, as Kubernetes does.
    pub fn start_through(&mut self, client: Client) {
        self.stop = CancellationToken::new();
        self.metrics = OperatorMetrics::default();
        self.health = OperatorHealth::default();
        let (transport, options) = (self.transport.clone(), self.options.clone());
        let (metrics, health, stop) =
            (self.metrics.clone(), self.health.clone(), self.stop.clone());
        let restarts = self.restarts.clone();
        self.operator = Some(tokio::spawn(async move {
            while !stop.is_cancelled() {
                run(
                    client.clone(),
                    transport.clone(),
                    options.clone(),
                    metrics.clone(),
                    health.clone(),
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

    /// Ends the operator as kill -9 does, and deletes its Lease, so that no test waits until that expires.
    pub async fn kill(&mut self) {
        let operator = self.operator.take().unwrap();
        operator.abort();
        let _ = operator.await;
        let leases: Api<DynamicObject> = self.of(ObjectKind::Lease);
        let _ = leases.delete(LEASE, &DeleteParams::background()).await;
    }

    /// The pipelines.
    pub fn pipelines(&self) -> Api<DynamicObject> {
        let resource = ApiResource::erase::<CompressionPipeline>(&());
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    /// The objects of a kind.
    pub fn of(&self, kind: ObjectKind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &kind.resource())
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

    /// Waits until the status has the generation of the latest spec and a ready transport.
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
            self.names(ObjectKind::Deployment).await.len() == count
        })
        .await;
    }

    /// The replicas in a Deployment's spec; null where there is no Deployment.
    pub async fn replicas(&self, deployment: &str) -> Value {
        let found = self
            .of(ObjectKind::Deployment)
            .get_opt(deployment)
            .await
            .unwrap();
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
        let found = self
            .of(ObjectKind::Deployment)
            .get(deployment)
            .await
            .unwrap();
        found.metadata.generation.unwrap()
    }

    /// The same of all Deployments, by name.
    pub async fn generations(&self) -> Vec<(String, i64)> {
        let mut all = Vec::new();
        for name in self.names(ObjectKind::Deployment).await {
            let generation = self.generation(&name).await;
            all.push((name, generation));
        }
        all
    }

    /// Waits until a condition holds for a pipeline; gives the pipeline as it is then.
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
            // Between two reads of the pipeline.
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The names of all objects of a kind that belong to pipelines.
    pub async fn names(&self, kind: ObjectKind) -> Vec<String> {
        let all = self.of(kind).list(&Default::default()).await.unwrap();
        let mut names: Vec<String> = all
            .items
            .iter()
            .map(ResourceExt::name_any)
            .filter(|name| !matches!(name.as_str(), "default" | LEASE | CLAIM))
            .collect();
        names.sort();
        names
    }

    /// How many writes the operator has made.
    pub fn writes(&self) -> u64 {
        self.counted("streampress_operator_writes_total")
    }

    /// How many writes the operator has made to objects of this kind.
    pub fn writes_to(&self, kind: ObjectKind) -> u64 {
        let kind = kind.name();
        self.counted(&format!(
            "streampress_operator_writes_total{{kind=\"{kind}\"}}"
        ))
    }

    /// The sum of the operator's metrics that begin like this.
    fn counted(&self, beginning: &str) -> u64 {
        let text = self.metrics.text();
        let lines = text.lines().filter(|line| line.starts_with(beginning));
        let values = lines.map(|line| line.rsplit(' ').next().unwrap());
        values.map(|value| value.parse::<u64>().unwrap()).sum()
    }

    /// How many reconciles the operator has finished.
    pub fn reconciles(&self) -> u64 {
        self.counted("streampress_operator_reconciles_total")
    }

    /// Waits until the operator has written nothing for so long; gives how many writes it has made.
    pub async fn rest(&self, time: Duration) -> u64 {
        let (mut writes, mut since) = (self.writes(), Instant::now());
        eventually("the operator writes nothing", async || {
            if self.writes() != writes {
                (writes, since) = (self.writes(), Instant::now());
            }
            since.elapsed() >= time
        })
        .await;
        writes
    }
}

impl Drop for TestCluster {
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

/// As `eventually`, for conditions that must hold sooner or may take longer; gives how long that took.
pub async fn eventually_within(
    patience: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> bool,
) -> Duration {
    let began = Instant::now();
    while !probe().await {
        assert!(began.elapsed() < patience, "never came true: {what}");
        // Between two probes.
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
