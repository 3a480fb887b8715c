//! The Kubernetes that `tests/cluster up` starts, used through `kubectl` and `helm` as users do, so that no second
//! client needs maintenance. It queries, waits with a limit and reports why a wait failed; it knows nothing of
//! Streampress.
//!
//! Tests run inside the cluster's network, through `tests/cluster exec`.

mod command;
mod diagnosis;
mod namespace;

use std::env;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

pub use command::ToolOutput;
pub use namespace::{PortForward, TestNamespace};

/// How long one `kubectl` call may take that is not itself a wait; deleting a pipeline watches its queues for a minute.
const ONE_CALL: Duration = Duration::from_secs(180);
/// The pause between two probes, at first and in the end: every probe starts a process.
const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(2)];

/// A running cluster. Cheap to create and to clone; any number of tests may share it.
#[derive(Clone, Debug)]
pub struct Cluster {
    state: PathBuf,
}

impl Cluster {
    /// The cluster inside whose network this process runs. The error says how to start one.
    pub fn connect() -> Result<Self> {
        let Some(state) = env::var_os("STREAMPRESS_CLUSTER") else {
            bail!(
                "cluster tests run inside a cluster's network; start one with `tests/cluster up`, \
                 then run `tests/cluster exec cargo nextest run --workspace --all-features -E 'binary(cluster_smoke)'`"
            );
        };
        let cluster = Self {
            state: PathBuf::from(state),
        };
        cluster
            .kubectl(&["get", "--raw", "/readyz"])
            .context("checking that the cluster is ready")?;
        Ok(cluster)
    }

    /// True if the tests run on kind instead of the cluster of `tests/cluster up`.
    pub fn is_kind(&self) -> bool {
        self.state.join("kind").exists()
    }

    /// The image of the project's programs, as `tests/cluster load-image` named it.
    pub fn project_image(&self) -> Result<String> {
        env::var("STREAMPRESS_IMAGE")
            .context("STREAMPRESS_IMAGE is set by `tests/cluster exec`; run the tests through it")
    }

    /// The folder with the cluster's kubeconfig and logs.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Runs kubectl and returns its output. The error has the whole command and everything it printed.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.try_kubectl(args, None)?.success()
    }

    /// Runs kubectl with `input` on its standard input; the caller checks how it ended.
    pub fn try_kubectl(&self, args: &[&str], input: Option<&str>) -> Result<ToolOutput> {
        command::run("kubectl", &self.kubeconfig_first(args), input, ONE_CALL)
    }

    /// Runs helm; it may wait for up to `limit`. The error has the state of the namespace that `-n` names: helm itself
    /// only says that its time is over.
    pub fn helm(&self, args: &[&str], limit: Duration) -> Result<String> {
        let namespace = args.iter().skip_while(|arg| **arg != "-n").nth(1);
        command::run("helm", &self.kubeconfig_first(args), None, limit)
            .and_then(ToolOutput::success)
            .with_context(|| diagnosis::of_namespace(self, namespace.unwrap_or(&"default")))
    }

    /// Applies any number of YAML documents. Objects without a namespace go into `namespace`.
    pub fn apply(&self, namespace: &str, yaml: &str) -> Result<String> {
        self.try_kubectl(&["-n", namespace, "apply", "-f", "-"], Some(yaml))?
            .success()
            .with_context(|| format!("applying:\n{yaml}"))
    }

    /// One object, or `None` if it does not exist.
    pub fn find(&self, namespace: &str, object: &str) -> Result<Option<Value>> {
        let text = self.kubectl(&[
            "-n",
            namespace,
            "get",
            object,
            "--ignore-not-found",
            "-o",
            "json",
        ])?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&text)
            .with_context(|| format!("reading {object} as JSON"))
            .map(Some)
    }

    /// One object that must exist: `deployment/web`.
    pub fn get(&self, namespace: &str, object: &str) -> Result<Value> {
        self.find(namespace, object)?
            .with_context(|| format!("there is no {object} in namespace {namespace}"))
    }

    /// All objects of a kind in a namespace: `["pods"]`, or `["pods", "-l", "app=web"]`.
    pub fn list(&self, namespace: &str, what: &[&str]) -> Result<Vec<Value>> {
        let text = self.kubectl(&[&["-n", namespace, "get", "-o", "json"], what].concat())?;
        let mut list: Value = serde_json::from_str(&text).context("reading a list as JSON")?;
        match list.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => Ok(items),
            _ => bail!("kubectl get {} gave no list", what.join(" ")),
        }
    }

    /// Probes with growing pauses until `probe` returns a value. Its `Err` means "not yet" and describes what it saw:
    /// after `limit` that becomes the error, with the events, pods and logs of the namespace.
    pub fn wait_for<T>(
        &self,
        namespace: &str,
        what: &str,
        limit: Duration,
        mut probe: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        let began = Instant::now();
        let [mut pause, longest] = PAUSES;
        loop {
            let not_yet = match probe() {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            if began.elapsed() >= limit {
                return Err(not_yet.context(format!(
                    "gave up after {} s waiting for {what} in namespace {namespace}\n{}",
                    limit.as_secs(),
                    diagnosis::of_namespace(self, namespace)
                )));
            }
            // Between two reads, each of which starts kubectl.
            std::thread::sleep(pause);
            pause = (pause * 5 / 4).min(longest);
        }
    }

    /// Waits for one of `status.conditions` to be `True`: `("deployment/web", "Available")`.
    pub fn wait_condition(
        &self,
        namespace: &str,
        object: &str,
        condition: &str,
        limit: Duration,
    ) -> Result<Value> {
        self.wait_for(
            namespace,
            &format!("{object} to be {condition}"),
            limit,
            || {
                let found = self.get(namespace, object)?;
                if condition_is_true(&found, condition) {
                    return Ok(found);
                }
                bail!(
                    "its conditions are {}",
                    found.pointer("/status/conditions").unwrap_or(&Value::Null)
                )
            },
        )
    }

    /// Waits until a pod has ended and returns its exit code and its log.
    pub fn wait_pod_end(
        &self,
        namespace: &str,
        pod: &str,
        limit: Duration,
    ) -> Result<(i64, String)> {
        let code = self.wait_for(namespace, &format!("pod {pod} to end"), limit, || {
            let found = self.get(namespace, &format!("pod/{pod}"))?;
            found
                .pointer("/status/containerStatuses/0/state/terminated/exitCode")
                .and_then(Value::as_i64)
                .with_context(|| {
                    format!(
                        "its phase is {}",
                        found.pointer("/status/phase").unwrap_or(&Value::Null)
                    )
                })
        })?;
        Ok((code, self.kubectl(&["-n", namespace, "logs", pod])?))
    }

    /// Runs a command in a pod's first container and returns its output.
    pub fn exec(&self, namespace: &str, pod: &str, command: &[&str]) -> Result<String> {
        self.kubectl(&[&["-n", namespace, "exec", pod, "--"], command].concat())
    }

    fn kubeconfig_first<'a>(&self, args: &[&'a str]) -> Vec<std::borrow::Cow<'a, str>> {
        let mut all =
            vec![format!("--kubeconfig={}", self.state.join("kubeconfig").display()).into()];
        all.extend(args.iter().map(|&a| a.into()));
        all
    }
}

/// Whether a condition in an object's status is `True`.
pub fn condition_is_true(object: &Value, condition: &str) -> bool {
    let conditions = object
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| {
        c.get("type").is_some_and(|t| t == condition)
            && c.get("status").is_some_and(|s| s == "True")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::condition_is_true;

    #[test]
    fn a_condition_counts_only_when_its_status_is_true() {
        let object = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "Available", "status": "True"}]}});
        assert!(condition_is_true(&object, "Available"));
        assert!(!condition_is_true(&object, "Ready"));
        assert!(!condition_is_true(&object, "Progressing"));
        assert!(!condition_is_true(&json!({}), "Ready"));
    }
}
