//! Access to pods, and permissions.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use streampress_tests::cluster::PortForward;

use super::{SOON, begin, pod, pod_spec};

#[test]
fn logs_exec_and_port_forward_reach_a_pod() -> Result<()> {
    let (cluster, ns) = begin("reach")?;
    let mut spec = pod_spec(
        "echo started; mkdir /tmp/www; echo forwarded >/tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www",
        json!({
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        }),
    );
    spec["volumes"] = json!([{"name": "tmp", "emptyDir": {}}]);
    cluster.apply(&ns.name, &pod("web", spec).to_string())?;
    cluster.wait_condition(&ns.name, "pod/web", "Ready", SOON)?;

    ensure!(cluster.kubectl(&["-n", &ns.name, "logs", "web"])? == "started\n");
    ensure!(cluster.exec(&ns.name, "web", &["cat", "/tmp/www/index.html"])? == "forwarded\n");

    let forward = PortForward::open(&cluster, &ns.name, "pod/web", 8080)?;
    let mut stream = TcpStream::connect(("127.0.0.1", forward.port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(
        answer.ends_with("forwarded\n"),
        "the forwarded port answered {answer:?}"
    );
    Ok(())
}

#[test]
fn a_failed_exec_reports_the_exit_code() -> Result<()> {
    let (cluster, ns) = begin("fails")?;
    cluster.apply(
        &ns.name,
        &pod("sleeps", pod_spec("exec sleep 100000", json!({}))).to_string(),
    )?;
    cluster.wait_condition(&ns.name, "pod/sleeps", "Ready", SOON)?;
    let error = cluster
        .exec(&ns.name, "sleeps", &["sh", "-c", "exit 7"])
        .expect_err("exit code 7")
        .to_string();
    ensure!(error.contains("exit code 7"), "{error}");
    Ok(())
}

#[test]
fn a_service_account_has_the_permissions_of_its_role_and_no_others() -> Result<()> {
    let (cluster, ns) = begin("rights")?;
    let rules = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "worker"}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "worker"},
         "rules": [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["mine"], "verbs": ["get", "update"]}]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "worker"},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "worker"},
         "subjects": [{"kind": "ServiceAccount", "name": "worker"}]},
        {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "mine"}},
        {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "other"}},
    ]});
    cluster.apply(&ns.name, &rules.to_string())?;
    let token = cluster.kubectl(&["-n", &ns.name, "create", "token", "worker"])?;
    // A kubeconfig with only the token: with the administrator's certificate in it, kubectl would send that.
    let server = cluster.kubectl(&[
        "config",
        "view",
        "--minify",
        "-o",
        "jsonpath={.clusters[0].cluster.server}",
    ])?;
    let config = tempfile::NamedTempFile::new()?;
    let yaml = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "w",
        "clusters": [{"name": "w", "cluster": {"server": server, "insecure-skip-tls-verify": true}}],
        "users": [{"name": "w", "user": {"token": token.trim()}}],
        "contexts": [{"name": "w", "context": {"cluster": "w", "user": "w"}}],
    });
    std::fs::write(config.path(), yaml.to_string())?;
    let kubeconfig = format!("--kubeconfig={}", config.path().display());
    let as_worker = |args: &[&str]| {
        cluster.try_kubectl(
            &[&[kubeconfig.as_str(), "-n", &ns.name], args].concat(),
            None,
        )
    };

    let mine = as_worker(&["get", "lease", "mine", "-o", "name"])?.success()?;
    ensure!(mine.trim() == "lease.coordination.k8s.io/mine", "{mine}");
    for args in [
        ["get", "lease", "other"],
        ["get", "secrets", "-A"],
        ["delete", "lease", "mine"],
        ["get", "pods", "-A"],
    ] {
        let output = as_worker(&args)?;
        ensure!(
            !output.ok && output.stderr.contains("Forbidden"),
            "{args:?} was not refused: {output:?}"
        );
    }
    Ok(())
}
