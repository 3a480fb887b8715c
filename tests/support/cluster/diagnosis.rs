//! The events, objects and logs of a namespace, collected when a wait fails: they explain the failure on a machine
//! without access to it.

use serde_json::Value;

use super::{Cluster, condition_is_true};

/// How much log to show of each container that is not healthy.
const LOG_LINES: &str = "--tail=40";

/// Events, objects, and for every pod that is not healthy its description and the end of its logs.
pub(super) fn of_namespace(cluster: &Cluster, namespace: &str) -> String {
    let mut text = String::new();
    let mut show = |title: &str, args: &[&str]| {
        let output = match cluster.try_kubectl(args, None) {
            Ok(output) => format!("{}{}", output.stdout, output.stderr),
            Err(error) => format!("{error:#}\n"),
        };
        text.push_str(&format!("--- {title}\n{output}"));
    };
    show(
        "events",
        &["-n", namespace, "get", "events", "--sort-by=.lastTimestamp"],
    );
    show(
        "objects",
        &["-n", namespace, "get", "all,pvc,leases", "-o", "wide"],
    );
    for pod in cluster
        .list(namespace, &["pods"])
        .unwrap_or_default()
        .iter()
        .filter(|p| !is_healthy(p))
    {
        let name = pod
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        show(
            &format!("pod {name}"),
            &["-n", namespace, "describe", "pod", name],
        );
        show(
            &format!("log of {name}"),
            &["-n", namespace, "logs", name, "--all-containers", LOG_LINES],
        );
        if has_restarted(pod) {
            show(
                &format!("log of {name} before it restarted"),
                &[
                    "-n",
                    namespace,
                    "logs",
                    name,
                    "--all-containers",
                    "--previous",
                    LOG_LINES,
                ],
            );
        }
    }
    show("node", &["describe", "nodes"]);
    text
}

fn is_healthy(pod: &Value) -> bool {
    !has_restarted(pod)
        && (condition_is_true(pod, "Ready")
            || pod
                .pointer("/status/phase")
                .is_some_and(|p| p == "Succeeded"))
}

fn has_restarted(pod: &Value) -> bool {
    let containers = pod
        .pointer("/status/containerStatuses")
        .and_then(Value::as_array);
    containers
        .into_iter()
        .flatten()
        .any(|c| c.get("restartCount").and_then(Value::as_i64).unwrap_or(0) > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::is_healthy;

    #[test]
    fn a_pod_that_restarted_is_shown_even_when_it_is_ready_again() {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        assert!(is_healthy(
            &json!({"status": {"conditions": ready, "containerStatuses": [{"restartCount": 0}]}})
        ));
        assert!(!is_healthy(
            &json!({"status": {"conditions": ready, "containerStatuses": [{"restartCount": 1}]}})
        ));
        assert!(is_healthy(&json!({"status": {"phase": "Succeeded"}})));
        assert!(!is_healthy(&json!({"status": {"phase": "Pending"}})));
    }
}
