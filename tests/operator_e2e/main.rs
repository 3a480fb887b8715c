//! The operator on a whole cluster with a node and LocalStack: from `helm install` to files restored byte for byte.
//! `tests/cluster up`, `tests/cluster load-image`, then
//! `tests/cluster exec cargo test -p streampress-tests --features cluster --test operator_e2e`.
//!
//! Every test has a namespace of its own with an operator of its own, which may do nothing outside it, and applies the
//! examples that users apply. But for one: an operator for all namespaces, with the CRD in its chart, is alone meanwhile.

mod buckets;
mod examples;
mod install;
mod kills;
mod life;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use streampress_tests::cluster::{Cluster, TestNamespace};

const SOON: Duration = Duration::from_secs(120);
const LONG: Duration = Duration::from_secs(420);
const CRD_NAME: &str = "compressionpipelines.streampress.dev";
/// On all pods of pipelines.
const WORKERS: &str = "app.kubernetes.io/name=streampress";

/// SlotGuard for as long as the CRD must stay as it is, or alone by whoever brings another.
static CRD: RwLock<()> = RwLock::new(());

#[expect(dead_code, reason = "held, not read")]
enum Hold {
    WithOthers(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

/// A namespace with an operator.
struct Site {
    cluster: Cluster,
    /// Of its pipelines.
    namespace: TestNamespace,
    /// Of the operator, where that is another.
    of_operator: Option<TestNamespace>,
    _crd: Hold,
}

/// The repository.
fn root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the tests stand in the repository")
}

fn chart() -> Result<String> {
    let chart = root()?.join("charts/streampress");
    Ok(chart.to_string_lossy().into_owned())
}

impl Site {
    /// Installs the operator as a user without rights on the cluster does.
    fn install(word: &str) -> Result<Self> {
        let shared = CRD.read().unwrap_or_else(PoisonError::into_inner);
        let cluster = Cluster::connect()?;
        let namespace = TestNamespace::create(&cluster, word)?;
        let crd = root()?.join("crds/compressionpipeline.yaml");
        cluster.kubectl(&["apply", "--server-side", "-f", &crd.to_string_lossy()])?;
        let site = Self {
            cluster,
            namespace,
            of_operator: None,
            _crd: Hold::WithOthers(shared),
        };
        site.helm_install(&["--set", "namespaced=true,crds.install=false"])?;
        Ok(site)
    }

    /// Makes a namespace for pipelines and another for an operator of the whole cluster; there is no CRD yet.
    fn alone(word: &str) -> Result<Self> {
        let alone = CRD.write().unwrap_or_else(PoisonError::into_inner);
        let cluster = Cluster::connect()?;
        cluster.kubectl(&[
            "delete",
            "crd",
            CRD_NAME,
            "--ignore-not-found",
            "--timeout=50s",
        ])?;
        Ok(Self {
            namespace: TestNamespace::create(&cluster, word)?,
            of_operator: Some(TestNamespace::create(&cluster, &format!("{word}-system"))?),
            cluster,
            _crd: Hold::Alone(alone),
        })
    }

    /// With the image that is on the node, and otherwise as it comes, but for `options`.
    fn helm_install(&self, options: &[&str]) -> Result<String> {
        let image = self.cluster.project_image()?;
        let (repository, tag) = image.rsplit_once(':').context("the image has a tag")?;
        let image = format!("image.repository={repository},image.tag={tag},image.pullPolicy=Never");
        let chart = chart()?;
        let install = ["install", "streampress", &chart, "--set", &image];
        self.helm(&[&install, options, &["--wait", "--timeout=120s"]].concat())
    }

    fn helm(&self, args: &[&str]) -> Result<String> {
        let namespace = self.of_operator.as_ref().unwrap_or(&self.namespace);
        let all = [&["-n", &namespace.name], args].concat();
        self.cluster.helm(&all, SOON * 2)
    }

    fn kubectl(&self, args: &[&str]) -> Result<String> {
        let all = [&["-n", &self.namespace.name], args].concat();
        self.cluster.kubectl(&all)
    }

    /// Applies one of deploy/examples/kind, with the image that is on the node and `over` in place of those keys of
    /// its spec. Before it is applied: what is patched afterwards would roll the first pods.
    fn apply_example(&self, name: &str, mut over: Value) -> Result<()> {
        let path = root()?.join(format!("deploy/examples/kind/{name}.yaml"));
        let yaml = std::fs::read_to_string(path)?;
        let (others, pipeline) = yaml
            .split_once("---\napiVersion: streampress.dev/")
            .with_context(|| format!("{name}.yaml ends with a pipeline"))?;
        over["image"] = json!({"pullPolicy": "Never"});
        let mut pipeline = pipeline.to_owned();
        for (key, value) in over.as_object().into_iter().flatten() {
            pipeline = without_key(&pipeline, key) + &format!("  {key}: {value}\n");
        }
        let all = format!("{others}---\napiVersion: streampress.dev/{pipeline}");
        self.cluster.apply(&self.namespace.name, &all).map(drop)
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

    fn wait<T>(&self, what: &str, limit: Duration, look: impl FnMut() -> Result<T>) -> Result<T> {
        self.cluster
            .wait_for(&self.namespace.name, what, limit, look)
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

    /// As users wait.
    fn wait_ready(&self, name: &str) -> Result<()> {
        let object = format!("cpl/{name}");
        self.kubectl(&["wait", &object, "--for=condition=Ready", "--timeout=55s"])
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

    /// As kill -9: no pod gets a moment to tidy up.
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

/// A pipeline's YAML without one key of its spec, which stands at the end.
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

/// The operator goes with its namespace, and then nobody takes its finalizer off: pipelines go before it.
impl Drop for Site {
    fn drop(&mut self) {
        if let Err(error) = self.kubectl(&["delete", "cpl", "--all", "--timeout=50s"]) {
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

/// Every file that went in came out, the same, and nothing else did.
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
    ensure!(
        restored.len() == sources.len(),
        "more was restored than there was"
    );
    Ok(())
}
