//! LocalStack, from a pod of another namespace.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{SOON, begin, one_shot};

/// Calls each service in its own protocol with Python's standard library only: the public image has its AWS packages
/// at another path.
const SCRIPT: &str = include_str!("aws.py");

#[test]
fn queues_streams_and_buckets_answer_by_service_name_from_another_pod() -> Result<()> {
    let (cluster, ns) = begin("aws")?;
    cluster.wait_condition("localstack", "deployment/localstack", "Available", SOON)?;
    let tools = json!({"image": "localstack/localstack:4.9.2", "command": ["python3", "-c", SCRIPT], "env": [{"name": "NAME", "value": ns.name}]});
    cluster.apply(&ns.name, &one_shot("calls", "", tools).to_string())?;
    let (code, log) = cluster.wait_pod_end(&ns.name, "calls", SOON)?;
    ensure!(code == 0, "exit code {code}:\n{log}");
    for line in ["queue: hello", "stream: hello", "bucket: hello"] {
        ensure!(log.contains(line), "no {line:?} in:\n{log}");
    }
    Ok(())
}
