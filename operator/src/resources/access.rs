//! What workers may do (write their own pipeline's Leases, by name, see their namespace's, and nothing else) and who may reach them (metrics).

use k8s_openapi::api::core::v1::{Service, ServiceAccount, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::deployment::users_template;
use super::object::OwnedObject;
use super::slots::slot_names;
use super::{BuildInput, names};

/// The port of health and metrics in every worker.
pub(super) const METRICS_PORT: i32 = 8080;
/// Its name in pods and Services.
pub(super) const METRICS: &str = "metrics";
const RBAC: &str = "rbac.authorization.k8s.io";

pub(super) fn objects(input: &BuildInput<'_>) -> Vec<OwnedObject> {
    let mut objects = vec![role(input), role_binding(input), metrics_service(input)];
    if input.pipeline.spec.aws.service_account_name.is_none() {
        objects.push(OwnedObject::ServiceAccount(ServiceAccount {
            metadata: input.metadata(names::workers(input.name), names::SHARED),
            ..ServiceAccount::default()
        }));
    }
    if input.defaults.network_policies {
        objects.push(network_policy(input));
    }
    objects
}

/// The account the workers run as.
pub(super) fn service_account(input: &BuildInput<'_>) -> String {
    let given = input.pipeline.spec.aws.service_account_name.clone();
    given.unwrap_or_else(|| names::workers(input.name))
}

fn role(input: &BuildInput<'_>) -> OwnedObject {
    let slots = slot_names(input.name, input.resolved);
    let slots = slots.into_iter().map(|(_, name)| name).collect();
    let leases = |names: Option<Vec<String>>, verbs: [&str; 2]| PolicyRule {
        api_groups: Some(vec!["coordination.k8s.io".into()]),
        resources: Some(vec!["leases".into()]),
        resource_names: names,
        verbs: verbs.map(str::to_owned).into(),
        ..PolicyRule::default()
    };
    OwnedObject::Role(Role {
        metadata: input.metadata(names::workers(input.name), names::SHARED),
        rules: Some(vec![
            leases(Some(slots), ["get", "update"]),
            // One watch for all slots. Kubernetes knows no rule for the Leases with a label: it covers the namespace's, which
            // say who holds what.
            leases(None, ["list", "watch"]),
        ]),
    })
}

fn role_binding(input: &BuildInput<'_>) -> OwnedObject {
    let name = names::workers(input.name);
    let subject = |name| Subject {
        kind: "ServiceAccount".into(),
        name,
        namespace: input.pipeline.metadata.namespace.clone(),
        ..Subject::default()
    };
    OwnedObject::RoleBinding(RoleBinding {
        metadata: input.metadata(name.clone(), names::SHARED),
        role_ref: RoleRef {
            api_group: RBAC.into(),
            kind: "Role".into(),
            name,
        },
        subjects: Some(accounts(input).into_iter().map(subject).collect()),
    })
}

/// The accounts of all workers: a pod template may name one of its own.
fn accounts(input: &BuildInput<'_>) -> Vec<String> {
    let mut accounts = vec![service_account(input)];
    for role in streampress_crds::Role::ALL {
        let template = users_template(input, role);
        let account = template.and_then(|template| template.get("spec")?.get("serviceAccountName"));
        let account = account.and_then(Value::as_str).map(str::to_owned);
        accounts.extend(account.filter(|account| !accounts.contains(account)));
    }
    accounts
}

/// Headless: it only lists the pods, for those that collect metrics.
fn metrics_service(input: &BuildInput<'_>) -> OwnedObject {
    OwnedObject::Service(Box::new(Service {
        metadata: input.metadata(names::metrics(input.name), names::SHARED),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".into()),
            publish_not_ready_addresses: Some(true),
            selector: Some(names::selector(input.name, None)),
            ports: Some(vec![ServicePort {
                name: Some(METRICS.into()),
                port: METRICS_PORT,
                target_port: Some(IntOrString::String(METRICS.into())),
                protocol: Some("TCP".into()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }))
}

/// Only the metrics port of a worker can be reached. Egress is not limited: AWS, the API server and name servers have
/// no addresses that could be listed here.
fn network_policy(input: &BuildInput<'_>) -> OwnedObject {
    OwnedObject::NetworkPolicy(NetworkPolicy {
        metadata: input.metadata(names::workers(input.name), names::SHARED),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(names::selector(input.name, None)),
                ..LabelSelector::default()
            }),
            policy_types: Some(vec!["Ingress".into()]),
            ingress: Some(vec![NetworkPolicyIngressRule {
                ports: Some(vec![NetworkPolicyPort {
                    port: Some(IntOrString::Int(METRICS_PORT)),
                    protocol: Some("TCP".into()),
                    end_port: None,
                }]),
                from: None,
            }]),
            egress: None,
        }),
    })
}
