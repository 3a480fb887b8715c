//! Real HorizontalPodAutoscalers, of the cluster's own controller, over a metric that the test sets: one scales the
//! pipeline through its scale subresource, one scales a Deployment whose replicas the operator does not write.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams,
};
use serde_json::{Value, json};
use streampress_operator::resources::ObjectKind;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::support::TestCluster;
use crate::support::cluster::eventually_within;

/// The controller syncs every 15 s, and at first does not know the kind CompressionPipeline yet.
const SEVERAL_SYNCS: Duration = Duration::from_secs(300);
/// There is one API group for the whole cluster.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// The metric. Its objects in the cluster are deleted when it is dropped.
struct Metric {
    dir: tempfile::TempDir,
    address: String,
    server: Child,
}

impl Metric {
    /// Serves `external.metrics.k8s.io`. There is no proxy for Services on a cluster without nodes: the Service's own
    /// address is put on the loopback device, where the API server finds it.
    async fn start(cluster: &TestCluster) -> Self {
        let name = "external-metrics";
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"name": "https", "port": 443}]}});
        let service = apply(cluster, Some(&cluster.namespace), service).await;
        let address = service.data["spec"]["clusterIP"]
            .as_str()
            .unwrap()
            .to_owned();
        apply(
            cluster,
            Some(&cluster.namespace),
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4", "ports": [{"name": "https", "port": 443}],
                "endpoints": [{"addresses": ["10.89.0.1"], "conditions": {"ready": true}}],
            }),
        )
        .await;
        run(
            "ip",
            &["addr", "add", &format!("{address}/32"), "dev", "lo"],
        );
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        run(
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=external-metrics",
                "-keyout",
                &file("key"),
                "-out",
                &file("certificate"),
            ],
        );
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/external_metrics.py");
        let server = Command::new("python3")
            .arg(script)
            .args([&address, &file("key"), &file("certificate"), &file("value")])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let metric = Self {
            dir,
            address,
            server,
        };
        metric.set(20);
        apply(cluster, None, json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": "v1beta1.external.metrics.k8s.io"},
            "spec": {
                "group": "external.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
                "insecureSkipTLSVerify": true, "service": {"name": name, "namespace": cluster.namespace, "port": 443},
            },
        }))
        .await;
        metric
    }

    /// From now on so many messages wait.
    fn set(&self, value: u32) {
        let (new, file) = (self.dir.path().join("new"), self.dir.path().join("value"));
        std::fs::write(&new, value.to_string()).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    /// An autoscaler of 1 to 10 pods, one for 20 messages.
    async fn autoscale(&self, cluster: &TestCluster, name: &str, target: Value) {
        apply(cluster, Some(&cluster.namespace), json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name},
            "spec": {
                "scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 10,
                "metrics": [{"type": "External", "external": {"metric": {"name": "backlog"}, "target": {"type": "AverageValue", "averageValue": "20"}}}],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
            },
        }))
        .await;
    }
}

impl Drop for Metric {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        run(
            "ip",
            &["addr", "del", &format!("{}/32", self.address), "dev", "lo"],
        );
    }
}

async fn end(cluster: &TestCluster) {
    let services: Api<DynamicObject> = Api::all_with(
        cluster.client.clone(),
        &resource("apiregistration.k8s.io", "v1", "APIService", "apiservices"),
    );
    let _ = services
        .delete("v1beta1.external.metrics.k8s.io", &DeleteParams::default())
        .await;
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

async fn apply(cluster: &TestCluster, namespace: Option<&str>, object: Value) -> DynamicObject {
    let (group, version) = object["apiVersion"]
        .as_str()
        .unwrap()
        .split_once('/')
        .unwrap_or(("", "v1"));
    let kind = object["kind"].as_str().unwrap();
    let resource = resource(group, version, kind, &format!("{}s", kind.to_lowercase()));
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(cluster.client.clone(), namespace, &resource),
        None => Api::all_with(cluster.client.clone(), &resource),
    };
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    api.patch(
        &name,
        &PatchParams::apply("tests").force(),
        &Patch::Apply(&object),
    )
    .await
    .unwrap()
}

/// Waits until the autoscaler has brought a Deployment to so many pods.
async fn scaled(cluster: &TestCluster, deployment: &str, pods: u32) {
    eventually_within(
        SEVERAL_SYNCS,
        &format!("{deployment} has {pods} pods"),
        async || cluster.replicas(deployment).await == pods,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_autoscaler_scales_a_pipeline_through_its_scale_subresource() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let cluster = TestCluster::new().await;
    let metric = Metric::start(&cluster).await;
    cluster
        .create("stock", json!({"compressor": {"slots": 4}}))
        .await;
    cluster.settled("stock").await;
    let target = json!({"apiVersion": "streampress.dev/v1alpha1", "kind": "CompressionPipeline", "name": "stock"});
    metric.autoscale(&cluster, "stock", target).await;
    for (waiting, pods) in [(60, 3), (140, 7), (20, 1)] {
        metric.set(waiting);
        let began = Instant::now();
        scaled(&cluster, "stock-compressor", pods).await;
        println!(
            "{waiting} messages: {pods} pods after {:?}",
            began.elapsed()
        );
        let pipeline = cluster.pipelines().get("stock").await.unwrap();
        assert_eq!(pipeline.data["spec"]["compressor"]["replicas"], pods);
    }
    end(&cluster).await;
}

/// The autoscaler changes its Deployment again and again for so long; the operator writes none of it.
async fn left_to_its_autoscaler(time: Duration) {
    let _alone = ONE_AT_A_TIME.lock().await;
    let cluster = TestCluster::new().await;
    let metric = Metric::start(&cluster).await;
    cluster
        .create(
            "stock",
            json!({"compressor": {"autoscaling": {"mode": "External"}}}),
        )
        .await;
    cluster.settled("stock").await;
    cluster.has_deployments(2).await;
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "stock-compressor"});
    metric.autoscale(&cluster, "stock", target).await;
    cluster.rest(Duration::from_secs(2)).await;
    let before = cluster.writes_to(ObjectKind::Deployment);
    let began = Instant::now();
    let mut changes = 0;
    for (waiting, pods) in [(60, 3), (140, 7)].into_iter().cycle() {
        metric.set(waiting);
        scaled(&cluster, "stock-compressor", pods).await;
        changes += 1;
        if began.elapsed() >= time && changes >= 3 {
            break;
        }
    }
    // An edit of something else leaves the number alone too.
    let pods = cluster.replicas("stock-compressor").await;
    assert_eq!(
        cluster.writes_to(ObjectKind::Deployment),
        before,
        "writes while the autoscaler scales"
    );
    cluster
        .edit("stock", json!({"codec": {"effort": "Max"}}))
        .await;
    eventually_within(SEVERAL_SYNCS, "the edit is rolled out", async || {
        cluster.writes_to(ObjectKind::Deployment) > before
    })
    .await;
    assert_eq!(cluster.replicas("stock-compressor").await, pods);
    let deployment = cluster
        .of(ObjectKind::Deployment)
        .get("stock-compressor")
        .await
        .unwrap();
    let ours = deployment.metadata.managed_fields.unwrap().into_iter();
    for entry in ours.filter(|entry| entry.manager.as_deref() == Some("streampress-operator")) {
        let fields = serde_json::to_string(&entry.fields_v1).unwrap();
        assert!(
            !fields.contains("f:replicas"),
            "replicas are ours: {fields}"
        );
    }
    println!(
        "{changes} changes by the autoscaler in {:?}, none by the operator",
        began.elapsed()
    );
    end(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_is_left_to_its_autoscaler() {
    left_to_its_autoscaler(Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes ten minutes"]
async fn a_deployment_is_left_to_its_autoscaler_for_ten_minutes() {
    left_to_its_autoscaler(Duration::from_secs(600)).await;
}
