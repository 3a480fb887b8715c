//! LocalStack, as a pod of another namespace sees it.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{SOON, begin, one_shot};

/// Calls of each service in its own protocol, with nothing but Python's own library: the image's AWS packages lie
/// elsewhere in the public one.
const SCRIPT: &str = include_str!("aws.py");

#[test]
fn queues_streams_and_buckets_answer_by_service_name_from_another_pod() -> Result<()> {
    let (cluster, ns) = begin("aws")?;
    cluster.wait_condition("localstack", "deployment/localstack", "Available", SOON)?;
    let tools = json!({"image": "localstack/localstack:4.9.2", "command": ["python3", "-c", SCRIPT], "env": [{"name": "NAME", "value": ns.name}]});
    cluster.apply(&ns.name, &one_shot("calls", "", tools).to_string())?;
    let (code, log) = cluster.wait_pod_end(&ns.name, "calls", SOON)?;
    ensure!(code == 0, "exit code {code}:\n{log}");
    for said in ["queue: hello", "stream: hello", "bucket: hello"] {
        ensure!(log.contains(said), "no {said:?} in:\n{log}");
    }
    Ok(())
}
