//! Networking between pods (services, DNS, policies), and drain and uncordon.

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use streampress_tests::cluster::Cluster;

use super::{SOON, begin, deployment, one_shot, pod_spec};

/// A web server whose index page is `text`, as a Deployment and a Service of that name.
fn web(name: &str, text: &str) -> String {
    let script = format!(
        "mkdir /tmp/www; echo {text} >/tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www"
    );
    let mut spec = pod_spec(
        &script,
        json!({
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
        }),
    );
    spec["volumes"] = json!([{"name": "tmp", "emptyDir": {}}]);
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    format!("{}\n---\n{service}", deployment(name, 1, spec))
}

#[test]
fn a_service_is_reached_by_its_name_from_another_pod() -> Result<()> {
    let (cluster, ns) = begin("service")?;
    cluster.apply(&ns.name, &web("web", "found"))?;
    cluster.wait_condition(&ns.name, "deployment/web", "Available", SOON)?;
    let script = format!(
        "timeout 20 wget -qO- http://web && nslookup web.{}.svc.cluster.local",
        ns.name
    );
    cluster.apply(&ns.name, &one_shot("asks", &script, json!({})).to_string())?;
    let (code, log) = cluster.wait_pod_end(&ns.name, "asks", SOON)?;
    let address = cluster.get(&ns.name, "service/web")?["spec"]["clusterIP"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    ensure!(
        code == 0 && log.starts_with("found\n") && log.contains(&address),
        "exit code {code}:\n{log}"
    );
    Ok(())
}

#[test]
fn an_unknown_name_gets_nxdomain_at_once() -> Result<()> {
    let (cluster, ns) = begin("noname")?;
    let script = "time nslookup missing.missing.svc.cluster.local";
    cluster.apply(&ns.name, &one_shot("asks", script, json!({})).to_string())?;
    let (code, log) = cluster.wait_pod_end(&ns.name, "asks", SOON)?;
    ensure!(
        code != 0 && log.contains("NXDOMAIN"),
        "exit code {code}:\n{log}"
    );
    Ok(())
}

/// This cluster accepts policies and does not enforce them; kind's network does since 0.24. A test of a policy's effect
/// must run on kind.
#[test]
fn network_policies_are_not_enforced_here_but_are_on_kind() -> Result<()> {
    let (cluster, ns) = begin("policy")?;
    cluster.apply(&ns.name, &web("web", "reached"))?;
    let deny_all = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny-all"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]},
    });
    cluster.apply(&ns.name, &deny_all.to_string())?;
    cluster.wait_condition(&ns.name, "deployment/web", "Available", SOON)?;
    cluster.apply(
        &ns.name,
        &one_shot("asks", "timeout 20 wget -qO- http://web", json!({})).to_string(),
    )?;
    let (code, log) = cluster.wait_pod_end(&ns.name, "asks", SOON)?;
    ensure!(
        (code == 0) != cluster.is_kind(),
        "exit code {code}, kind: {}:\n{log}",
        cluster.is_kind()
    );
    Ok(())
}

/// Uncordons the node, however the test ends.
struct Cordoned<'a>(&'a Cluster, String);

impl Drop for Cordoned<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.kubectl(&["uncordon", &self.1]) {
            eprintln!("node {} stays cordoned: {error:#}", self.1);
        }
    }
}

#[test]
fn pods_of_a_drained_node_are_scheduled_again_after_uncordon() -> Result<()> {
    let (cluster, ns) = begin("drained")?;
    cluster.apply(&ns.name, &web("drained", "moved"))?;
    cluster.wait_condition(&ns.name, "deployment/drained", "Available", SOON)?;
    let before = pod_uid(&cluster, &ns.name)?;
    let node = cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"])?;
    {
        let _cordoned = Cordoned(&cluster, node.clone());
        // Only this test's pods: other tests' pods are on the same node.
        cluster.kubectl(&[
            "drain",
            &node,
            "--pod-selector=app=drained",
            "--delete-emptydir-data",
            "--timeout=170s",
        ])?;
        cluster.wait_for(
            &ns.name,
            "the evicted pod's replacement to be unschedulable",
            SOON,
            || {
                let pods = cluster.list(&ns.name, &["pods"])?;
                let waits = |p: &Value| {
                    p.pointer("/status/conditions/0/reason")
                        .is_some_and(|r| r == "Unschedulable")
                };
                if pods.len() == 1 && pods.iter().all(waits) {
                    return Ok(());
                }
                bail!(
                    "the pods' statuses are {:?}",
                    pods.iter()
                        .map(|p| p["status"].to_string())
                        .collect::<Vec<_>>()
                )
            },
        )?;
    }
    cluster.wait_condition(&ns.name, "deployment/drained", "Available", SOON)?;
    ensure!(
        pod_uid(&cluster, &ns.name)? != before,
        "it is still the pod from before the drain"
    );
    Ok(())
}

fn pod_uid(cluster: &Cluster, namespace: &str) -> Result<String> {
    cluster.kubectl(&[
        "-n",
        namespace,
        "get",
        "pods",
        "-o",
        "jsonpath={.items[*].metadata.uid}",
    ])
}
