//! The real Kubernetes that `tests/cluster up` starts, as tests use it: through `kubectl` and `helm`, as users do, so
//! that no second client has to be kept in step. It knows how to ask, to wait with an end, and to say why a wait
//! failed; it knows nothing of Streampress.
//!
//! Tests run inside the cluster's network: `tests/cluster exec cargo test -p streampress-tests --features cluster`.

mod command;
mod diagnosis;
mod namespace;

use std::env;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

pub use command::Output;
pub use namespace::{PortForward, TestNamespace};

/// How long one `kubectl` call may take that is not itself a wait.
const ONE_CALL: Duration = Duration::from_secs(60);
/// How soon a condition is looked at again, at first and in the end: every look is a process.
const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(2)];

/// A running cluster. Cheap to make and to copy; any number of tests may share the one cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    state: PathBuf,
}

impl Cluster {
    /// The cluster inside whose network this process runs. An error says how to get into one.
    pub fn connect() -> Result<Self> {
        let Some(state) = env::var_os("STREAMPRESS_CLUSTER") else {
            bail!(
                "cluster tests run inside a cluster's network; start one with `tests/cluster up`, \
                 then run `tests/cluster exec cargo test -p streampress-tests --features cluster`"
            );
        };
        let cluster = Self {
            state: PathBuf::from(state),
        };
        cluster
            .kubectl(&["get", "--raw", "/readyz"])
            .context("asking the cluster whether it is ready")?;
        Ok(cluster)
    }

    /// True where the tests run on kind and not on the cluster of `tests/cluster up`.
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

    /// Runs kubectl; gives what it printed. The error has the whole command and all it said.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.try_kubectl(args, None)?.success()
    }

    /// Runs kubectl with something on its standard input; the caller judges how it ended.
    pub fn try_kubectl(&self, args: &[&str], input: Option<&str>) -> Result<Output> {
        command::run("kubectl", &self.kubeconfig_first(args), input, ONE_CALL)
    }

    /// Runs helm; it may wait for up to `limit`.
    pub fn helm(&self, args: &[&str], limit: Duration) -> Result<String> {
        command::run("helm", &self.kubeconfig_first(args), None, limit)?.success()
    }

    /// Applies YAML, any number of documents. Objects without a namespace go into `namespace`.
    pub fn apply(&self, namespace: &str, yaml: &str) -> Result<String> {
        self.try_kubectl(&["-n", namespace, "apply", "-f", "-"], Some(yaml))?
            .success()
            .with_context(|| format!("applying:\n{yaml}"))
    }

    /// One object, or none if there is no such object.
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

    /// One object, which must be there: `deployment/web`.
    pub fn get(&self, namespace: &str, object: &str) -> Result<Value> {
        self.find(namespace, object)?
            .with_context(|| format!("there is no {object} in namespace {namespace}"))
    }

    /// Everything of a kind in a namespace: `pods`, or `pods -l app=web` as several words.
    pub fn list(&self, namespace: &str, what: &[&str]) -> Result<Vec<Value>> {
        let text = self.kubectl(&[&["-n", namespace, "get", "-o", "json"], what].concat())?;
        let mut list: Value = serde_json::from_str(&text).context("reading a list as JSON")?;
        match list.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => Ok(items),
            _ => bail!("kubectl get {} gave no list", what.join(" ")),
        }
    }

    /// Looks, less and less often, until `look` finds something, and gives that. `look` answers `Err` for "not yet",
    /// saying what it saw: on timeout that is printed, and with it the events, pods and logs of the namespace.
    pub fn wait_for<T>(
        &self,
        namespace: &str,
        what: &str,
        limit: Duration,
        mut look: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        let began = Instant::now();
        let [mut pause, longest] = LOOK_AGAIN;
        loop {
            let not_yet = match look() {
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

    /// Waits until a pod has ended, well or not, and gives its log and its exit code.
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

    /// Runs a command in a pod's first container and gives what it printed.
    pub fn exec(&self, namespace: &str, pod: &str, words: &[&str]) -> Result<String> {
        self.kubectl(&[&["-n", namespace, "exec", pod, "--"], words].concat())
    }

    fn kubeconfig_first<'a>(&self, args: &[&'a str]) -> Vec<std::borrow::Cow<'a, str>> {
        let mut all =
            vec![format!("--kubeconfig={}", self.state.join("kubeconfig").display()).into()];
        all.extend(args.iter().map(|&a| a.into()));
        all
    }
}

/// Whether an object says of itself that a condition holds.
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
