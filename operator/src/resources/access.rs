//! What workers may do (their own pipeline's Leases, by name, and nothing else) and who may reach them (metrics).

use serde_json::json;

use super::{Site, slot_names};
use crate::resources::names;
use crate::resources::owned_object::{Child, Kind};

/// The port of health and metrics in every worker.
pub const METRICS_PORT: u16 = 8080;

pub(super) fn children(site: &Site<'_>) -> Vec<Child> {
    let mut children = vec![role(site), role_binding(site), metrics_service(site)];
    if site.pipeline.spec.aws.service_account_name.is_none() {
        children.push(site.child(
            Kind::ServiceAccount,
            names::workers(site.name),
            names::SHARED,
            json!({}),
        ));
    }
    if site.platform.network_policies {
        children.push(network_policy(site));
    }
    children
}

/// The account the workers run as.
pub(super) fn service_account(site: &Site<'_>) -> String {
    let given = site.pipeline.spec.aws.service_account_name.clone();
    given.unwrap_or_else(|| names::workers(site.name))
}

fn role(site: &Site<'_>) -> Child {
    let leases: Vec<String> = slot_names(site.name, site.resolved)
        .into_iter()
        .map(|(_, name)| name)
        .collect();
    let rules = json!([{
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": leases,
        "verbs": ["get", "watch", "update"],
    }]);
    site.child(
        Kind::Role,
        names::workers(site.name),
        names::SHARED,
        json!({"rules": rules}),
    )
}

fn role_binding(site: &Site<'_>) -> Child {
    let name = names::workers(site.name);
    let content = json!({
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": service_account(site), "namespace": site.pipeline.metadata.namespace}],
    });
    site.child(Kind::RoleBinding, name, names::SHARED, content)
}

/// Headless: it only lists the pods, for whoever collects metrics.
fn metrics_service(site: &Site<'_>) -> Child {
    let content = json!({"spec": {
        "clusterIP": "None",
        "publishNotReadyAddresses": true,
        "selector": names::selector(site.name, None),
        "ports": [{"name": "metrics", "port": METRICS_PORT, "targetPort": "metrics", "protocol": "TCP"}],
    }});
    site.child(
        Kind::Service,
        names::metrics(site.name),
        names::SHARED,
        content,
    )
}

/// Nothing may be opened to a worker but its metrics port. Where a worker itself goes (AWS, the API server, name
/// servers) has no addresses that could be listed here.
fn network_policy(site: &Site<'_>) -> Child {
    let content = json!({"spec": {
        "podSelector": {"matchLabels": names::selector(site.name, None)},
        "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"port": METRICS_PORT, "protocol": "TCP"}]}],
    }});
    site.child(
        Kind::NetworkPolicy,
        names::workers(site.name),
        names::SHARED,
        content,
    )
}
