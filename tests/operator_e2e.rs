//! The operator on a whole cluster with nodes and LocalStack: from `helm install` to files restored byte for byte, with
//! workers and operator killed on the way, suspended, resumed and deleted. `tests/cluster up`, `tests/cluster load-image`,
//! then `tests/cluster exec cargo test -p streampress-tests --features cluster --test operator_e2e`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use streampress_tests::cluster::{Cluster, TestNamespace};

const SOON: Duration = Duration::from_secs(120);
const LONG: Duration = Duration::from_secs(420);

/// A namespace with an operator of its own that may do nothing outside it.
fn begin(word: &str) -> Result<(Cluster, TestNamespace)> {
    let cluster = Cluster::connect()?;
    let namespace = TestNamespace::create(&cluster, word)?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the tests stand in the repository")?;
    let crd = root.join("crds/compressionpipeline.yaml");
    cluster.kubectl(&["apply", "-f", &crd.to_string_lossy()])?;
    let image = cluster.project_image()?;
    let (repository, tag) = image.rsplit_once(':').context("the image has a tag")?;
    let values = format!(
        "namespaced=true,crds.install=false,image.repository={repository},image.tag={tag},image.pullPolicy=Never"
    );
    let chart = root.join("charts/streampress");
    cluster.helm(
        &[
            "-n",
            &namespace.name,
            "install",
            "streampress",
            &chart.to_string_lossy(),
            "--set",
            &values,
            "--wait",
            "--timeout",
            "120s",
        ],
        SOON * 2,
    )?;
    Ok((cluster, namespace))
}

/// One of deploy/examples/kind, with the image that is on the node.
fn apply_example(cluster: &Cluster, namespace: &str, name: &str, files: u32) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the tests stand in the repository")?;
    let yaml = std::fs::read_to_string(root.join(format!("deploy/examples/kind/{name}.yaml")))?;
    cluster.apply(namespace, &yaml)?;
    let patch = format!(
        r#"{{"spec":{{"image":{{"pullPolicy":"Never"}},"generator":{{"files":{files},"filesPerMinute":120}}}}}}"#
    );
    cluster.kubectl(&[
        "-n",
        namespace,
        "patch",
        "cpl",
        name,
        "--type=merge",
        "-p",
        &patch,
    ])?;
    Ok(())
}

fn status<'a>(pipeline: &'a Value, path: &str) -> &'a Value {
    pipeline
        .pointer(&format!("/status{path}"))
        .unwrap_or(&Value::Null)
}

fn wait_phase(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    phase: &str,
    limit: Duration,
) -> Result<Value> {
    cluster.wait_for(namespace, &format!("{name} to be {phase}"), limit, || {
        let found = cluster.get(namespace, &format!("cpl/{name}"))?;
        ensure!(
            status(&found, "/phase") == phase,
            "its status is {:#}",
            found["status"]
        );
        Ok(found)
    })
}

/// The folder on this machine behind a claim.
fn volume(cluster: &Cluster, namespace: &str, claim: &str) -> Result<PathBuf> {
    let claim = cluster.get(namespace, &format!("pvc/{claim}"))?;
    let volume = claim["spec"]["volumeName"]
        .as_str()
        .context("the claim is bound")?;
    let volume = cluster.get(namespace, &format!("pv/{volume}"))?;
    let path = volume["spec"]["local"]["path"]
        .as_str()
        .context("the volume is a folder")?;
    Ok(path.into())
}

fn files(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    entries
        .map(|entry| {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            Ok((name, std::fs::read(path)?))
        })
        .collect()
}

/// Every file that went in came out, the same.
fn check_restored(folder: &Path, expected: usize) -> Result<()> {
    let (sources, restored) = (files(&folder.join("in"))?, files(&folder.join("out"))?);
    ensure!(
        sources.len() == expected,
        "{} files were made, {expected} were asked for",
        sources.len()
    );
    for (name, bytes) in &sources {
        ensure!(
            restored.get(name) == Some(bytes),
            "{name} was not restored as it was"
        );
    }
    Ok(())
}

fn kill_pods(cluster: &Cluster, namespace: &str, label: &str) -> Result<()> {
    cluster
        .kubectl(&[
            "-n",
            namespace,
            "delete",
            "pod",
            "-l",
            label,
            "--grace-period=0",
            "--force",
            "--wait=false",
        ])
        .map(drop)
}

#[test]
fn files_are_generated_streamed_and_restored_while_everything_is_killed() -> Result<()> {
    let (cluster, namespace) = begin("op-e2e")?;
    let name = &namespace.name;
    apply_example(&cluster, name, "stock-market", 40)?;
    cluster.kubectl(&[
        "-n",
        name,
        "wait",
        "cpl/stock-market",
        "--for=condition=Ready",
        "--timeout=50s",
    ])?;
    for role in ["compressor", "decompressor", "generator"] {
        kill_pods(
            &cluster,
            name,
            &format!("app.kubernetes.io/component={role}"),
        )?;
        kill_pods(
            &cluster,
            name,
            "app.kubernetes.io/name=streampress-operator",
        )?;
    }
    let done = wait_phase(&cluster, name, "stock-market", "Completed", LONG)?;
    println!(
        "{}",
        cluster.kubectl(&["-n", name, "get", "cpl", "-o", "wide"])?
    );
    ensure!(
        status(&done, "/progress/filesRestored") == 40,
        "{:#}",
        done["status"]
    );
    ensure!(status(&done, "/backlog/dead") == 0, "{:#}", done["status"]);
    let folder = volume(&cluster, name, "stock-market")?;
    check_restored(&folder, 40)?;
    cluster.kubectl(&[
        "-n",
        name,
        "patch",
        "cpl",
        "stock-market",
        "--type=merge",
        "-p",
        r#"{"spec":{"suspend":true}}"#,
    ])?;
    let suspended = wait_phase(&cluster, name, "stock-market", "Suspended", SOON * 2)?;
    println!("{}", status(&suspended, "/message"));
    cluster.kubectl(&["-n", name, "delete", "cpl", "stock-market", "--timeout=50s"])?;
    ensure!(
        cluster
            .list(
                name,
                &["leases", "-l", "app.kubernetes.io/instance=stock-market"]
            )
            .is_ok()
    );
    cluster.helm(
        &[
            "-n",
            name,
            "uninstall",
            "streampress",
            "--wait",
            "--timeout",
            "120s",
        ],
        SOON * 2,
    )?;
    Ok(())
}
