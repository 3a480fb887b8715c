//! The operator on a cluster with a node and LocalStack: from `helm install` to files restored byte for byte.
//! Needs `tests/cluster up` and `tests/cluster load-image`; runs through `tests/cluster exec`.
//!
//! Every test has its own namespace with its own operator, which has no permissions outside it, and applies the examples
//! for users. The exceptions are `install` and `previous`: an operator for all namespaces, with the CRD in its chart, runs alone.

mod buckets;
mod counts;
mod documentation;
mod examples;
mod install;
mod kills;
mod life;
mod previous;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use streampress_tests::cluster::{Cluster, TestNamespace};

const SOON: Duration = Duration::from_secs(180);
const LONG: Duration = Duration::from_secs(420);
const CRD_NAME: &str = "compressionpipelines.streampress.dev";
/// The label of all pods of pipelines.
const WORKERS: &str = "app.kubernetes.io/name=streampress";

/// A namespace with an operator.
struct OperatorFixture {
    cluster: Cluster,
    /// The namespace of its pipelines.
    namespace: TestNamespace,
    /// The namespace of the operator, if that is another.
    operator_namespace: Option<TestNamespace>,
}

/// The repository.
fn root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the tests are in the repository")
}

fn chart() -> Result<String> {
    let chart = root()?.join("charts/streampress");
    Ok(chart.to_string_lossy().into_owned())
}

impl OperatorFixture {
    /// Installs the operator as a user with permissions in one namespace only does.
    fn install(prefix: &str) -> Result<Self> {
        let cluster = Cluster::connect()?;
        let namespace = TestNamespace::create(&cluster, prefix)?;
        let crd = root()?.join("crds/compressionpipeline.yaml");
        cluster.kubectl(&["apply", "--server-side", "-f", &crd.to_string_lossy()])?;
        let fixture = Self {
            cluster,
            namespace,
            operator_namespace: None,
        };
        fixture.helm_install(&["--set", "namespaced=true,crds.install=false"])?;
        Ok(fixture)
    }

    /// Creates a namespace for pipelines and another for an operator of the whole cluster, and deletes the CRD. No other
    /// test may run meanwhile: `.config/nextest.toml` sees to it.
    fn alone(prefix: &str) -> Result<Self> {
        let cluster = Cluster::connect()?;
        cluster.kubectl(&[
            "delete",
            "crd",
            CRD_NAME,
            "--ignore-not-found",
            "--timeout=170s",
        ])?;
        Ok(Self {
            namespace: TestNamespace::create(&cluster, prefix)?,
            operator_namespace: Some(TestNamespace::create(
                &cluster,
                &format!("{prefix}-system"),
            )?),
            cluster,
        })
    }

    /// Installs the chart with the image that is on the node, its default values and `options`.
    fn helm_install(&self, options: &[&str]) -> Result<String> {
        let image = self.cluster.project_image()?;
        let (repository, tag) = image.rsplit_once(':').context("the image has a tag")?;
        let image = format!("image.repository={repository},image.tag={tag},image.pullPolicy=Never");
        let chart = chart()?;
        let install = ["install", "streampress", &chart, "--set", &image];
        self.helm(&[&install, options, &["--wait", "--timeout=300s"]].concat())
    }

    fn helm(&self, args: &[&str]) -> Result<String> {
        let namespace = self.operator_namespace.as_ref().unwrap_or(&self.namespace);
        let all = [&["-n", &namespace.name], args].concat();
        self.cluster.helm(&all, SOON * 2)
    }

    fn kubectl(&self, args: &[&str]) -> Result<String> {
        let all = [&["-n", &self.namespace.name], args].concat();
        self.cluster.kubectl(&all)
    }

    /// Applies one of deploy/examples/kind with the image that is on the node; `overrides` replaces keys of its spec.
    /// A patch after applying would roll the first pods.
    fn apply_example(&self, name: &str, mut overrides: Value) -> Result<()> {
        let path = root()?.join(format!("deploy/examples/kind/{name}.yaml"));
        let yaml = std::fs::read_to_string(path)?;
        let (others, pipeline) = yaml
            .split_once("---\napiVersion: streampress.dev/")
            .with_context(|| format!("{name}.yaml ends with a pipeline"))?;
        overrides["image"] = json!({"pullPolicy": "Never"});
        let mut pipeline = pipeline.to_owned();
        for (key, value) in overrides.as_object().into_iter().flatten() {
            pipeline = without_key(&pipeline, key) + &format!("  {key}: {value}\n");
        }
        let all = format!("{others}---\napiVersion: streampress.dev/{pipeline}");
        self.cluster.apply(&self.namespace.name, &all).map(drop)
    }

    /// As the guide has it: a compressor's pod has the settings, the credentials and the volume.
    fn list_dead_letters(&self, pipeline: &str) -> Result<String> {
        let deployment = format!("deployment/{pipeline}-compressor");
        let list = ["streampress", "redrive", "--list"];
        self.kubectl(&[&["exec", &deployment, "--"], &list[..]].concat())
    }

    fn patch(&self, name: &str, spec: &Value) -> Result<()> {
        let patch = json!({"spec": spec}).to_string();
        self.kubectl(&["patch", "cpl", name, "--type=merge", "-p", &patch])
            .map(drop)
    }

    fn pipeline(&self, name: &str) -> Result<Value> {
        self.cluster
            .get(&self.namespace.name, &format!("cpl/{name}"))
    }

    fn wait<T>(&self, what: &str, limit: Duration, probe: impl FnMut() -> Result<T>) -> Result<T> {
        self.cluster
            .wait_for(&self.namespace.name, what, limit, probe)
    }

    fn wait_phase(&self, name: &str, phase: &str, limit: Duration) -> Result<Value> {
        self.wait(&format!("{name} to be {phase}"), limit, || {
            let found = self.pipeline(name)?;
            ensure!(
                status(&found, "/phase") == phase,
                "its status is {:#}",
                found["status"]
            );
            Ok(found)
        })
    }

    /// Waits with `kubectl wait`, as users do.
    fn wait_ready(&self, name: &str) -> Result<()> {
        let object = format!("cpl/{name}");
        self.kubectl(&["wait", &object, "--for=condition=Ready", "--timeout=170s"])
            .map(drop)
    }

    fn pods(&self, label: &str) -> Result<Vec<Value>> {
        self.cluster
            .list(&self.namespace.name, &["pods", "-l", label])
    }

    /// The folder on this machine behind a pipeline's claim.
    fn volume(&self, claim: &str) -> Result<PathBuf> {
        let claim = self
            .cluster
            .get(&self.namespace.name, &format!("pvc/{claim}"))?;
        let volume = claim["spec"]["volumeName"]
            .as_str()
            .context("the claim is bound")?;
        let volume = self
            .cluster
            .get(&self.namespace.name, &format!("pv/{volume}"))?;
        let path = volume["spec"]["local"]["path"]
            .as_str()
            .context("the volume is a folder")?;
        Ok(path.into())
    }

    /// Deletes pods without a grace period, like kill -9.
    fn kill(&self, label: &str) -> Result<()> {
        self.kubectl(&[
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
}

/// A pipeline's YAML without one key of its spec; the spec is the last part of the YAML.
fn without_key(yaml: &str, key: &str) -> String {
    let mut dropping = false;
    let mut kept = String::new();
    for line in yaml.lines() {
        if let Some(rest) = line
            .strip_prefix("  ")
            .filter(|rest| !rest.starts_with(' '))
        {
            dropping = rest.split(':').next() == Some(key);
        } else if !line.starts_with(' ') {
            dropping = false;
        }
        if !dropping {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// Deletes the pipelines before the namespace: without the operator their finalizers would remain.
impl Drop for OperatorFixture {
    fn drop(&mut self) {
        if let Err(error) = self.kubectl(&["delete", "cpl", "--all", "--timeout=150s"]) {
            eprintln!("pipelines stay: {error:#}");
        }
    }
}

fn status<'a>(pipeline: &'a Value, path: &str) -> &'a Value {
    pipeline
        .pointer(&format!("/status{path}"))
        .unwrap_or(&Value::Null)
}

fn files(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files = BTreeMap::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // The pipeline's own records are in a reserved folder.
        if name != ".streampress" {
            files.insert(name, std::fs::read(entry.path())?);
        }
    }
    Ok(files)
}

/// Every file of the source was restored unchanged, and no other file.
fn check_restored(folder: &Path, expected: usize) -> Result<()> {
    let (sources, restored) = (files(&folder.join("in"))?, files(&folder.join("out"))?);
    ensure!(
        sources.len() == expected,
        "{} files were generated, {expected} were configured",
        sources.len()
    );
    for (name, bytes) in &sources {
        ensure!(
            restored.get(name) == Some(bytes),
            "{name} was not restored as it was"
        );
    }
    ensure!(
        restored.len() == sources.len(),
        "files were restored that have no source"
    );
    Ok(())
}
