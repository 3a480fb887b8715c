//! What a test takes from the cluster and releases when it ends: a namespace, a forwarded port.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Cluster;

/// How long kubectl may take to open a forwarded port.
const FORWARD: Duration = Duration::from_secs(120);

/// A namespace of one test, of the `restricted` pod security level. Dropping it deletes it without waiting.
#[derive(Debug)]
pub struct TestNamespace {
    cluster: Cluster,
    /// Its name: the prefix, the process id and a number, so that no two tests share it.
    pub name: String,
}

impl TestNamespace {
    /// Creates it and waits until pods may be created in it.
    pub fn create(cluster: &Cluster, prefix: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "{prefix}-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        cluster.kubectl(&["create", "namespace", &name])?;
        let created = Self {
            cluster: cluster.clone(),
            name,
        };
        cluster.kubectl(&[
            "label",
            "namespace",
            &created.name,
            "pod-security.kubernetes.io/enforce=restricted",
        ])?;
        cluster.wait_for(
            &created.name,
            "the default service account",
            Duration::from_secs(120),
            || cluster.get(&created.name, "serviceaccount/default"),
        )?;
        Ok(created)
    }
}

impl Drop for TestNamespace {
    fn drop(&mut self) {
        if let Err(error) =
            self.cluster
                .kubectl(&["delete", "namespace", &self.name, "--wait=false"])
        {
            eprintln!("namespace {} stays: {error:#}", self.name);
        }
    }
}

/// A port of a pod or service, forwarded to a free port of loopback for as long as this value lives.
#[derive(Debug)]
pub struct PortForward {
    child: Child,
    /// The port on 127.0.0.1.
    pub port: u16,
}

impl PortForward {
    /// Opens it: `("service/web", 80)`.
    pub fn open(cluster: &Cluster, namespace: &str, target: &str, port: u16) -> Result<Self> {
        let mut child = Command::new("kubectl")
            .arg(format!(
                "--kubeconfig={}",
                cluster.state().join("kubeconfig").display()
            ))
            .args([
                "-n",
                namespace,
                "port-forward",
                "--address=127.0.0.1",
                target,
                &format!(":{port}"),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting kubectl port-forward")?;
        let (sender, lines) = mpsc::channel();
        let pipe = child.stdout.take();
        // Read to the end: kubectl prints each connection, and a full pipe would block it.
        std::thread::spawn(move || {
            for line in pipe
                .into_iter()
                .flat_map(|p| BufReader::new(p).lines())
                .map_while(Result::ok)
            {
                let _ = sender.send(line);
            }
        });
        let mut forward = Self { child, port: 0 };
        let line = lines
            .recv_timeout(FORWARD)
            .with_context(|| format!("waiting for the forwarded port of {target}"))?;
        // "Forwarding from 127.0.0.1:40123 -> 80"
        let port = line
            .split_once("127.0.0.1:")
            .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        let Some(port) = port else {
            bail!("kubectl port-forward says {line:?}, which names no port")
        };
        forward.port = port;
        Ok(forward)
    }
}

impl Drop for PortForward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
