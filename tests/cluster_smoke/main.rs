//! The cluster enforces what the other tests rely on, and differs from kind only as documented. Nothing here knows
//! Streampress except the test of its image.

mod access;
mod aws;
mod pods;
mod service;
mod storage;
mod tools;

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use streampress_tests::cluster::{Cluster, TestNamespace};

/// The image with a shell that `tests/cluster up` gives every cluster.
const TOOLBOX: &str = "localhost/streampress-toolbox:1";

/// Bounds a hang; a pod on a machine that is busy with builds may need most of it.
const SOON: Duration = Duration::from_secs(120);

/// The cluster and a new namespace.
fn begin(prefix: &str) -> Result<(Cluster, TestNamespace)> {
    let cluster = Cluster::connect()?;
    let namespace = TestNamespace::create(&cluster, prefix)?;
    Ok((cluster, namespace))
}

/// The spec of a restricted pod that runs a script; `more` overrides fields of its only container.
fn pod_spec(script: &str, more: Value) -> Value {
    let mut container = json!({
        "name": "main",
        "image": TOOLBOX,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", script],
        "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
    });
    if let (Some(container), Value::Object(more)) = (container.as_object_mut(), more) {
        container.extend(more);
    }
    json!({
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
    })
}

/// A pod of that spec with restartPolicy Never, labelled with its name.
fn one_shot(name: &str, script: &str, more: Value) -> Value {
    let mut spec = pod_spec(script, more);
    spec["restartPolicy"] = "Never".into();
    pod(name, spec)
}

/// A pod, labelled with its name.
fn pod(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec})
}

/// A Deployment, its pods labelled with its name.
fn deployment(name: &str, replicas: u32, spec: Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
        },
    })
}
