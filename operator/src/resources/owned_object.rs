//! An object that belongs to a pipeline, as it should be, and whether what is there is so. Pure.

use serde_json::{Map, Value};

/// The kinds of objects the operator makes. Applied in this order: what a worker needs comes before the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The identity of the workers.
    ServiceAccount,
    /// What they may do.
    Role,
    /// Who may do it.
    RoleBinding,
    /// A slot.
    Lease,
    /// Where metrics are found.
    Service,
    /// Who may reach the workers.
    NetworkPolicy,
    /// How many pods a drained node may take away.
    PodDisruptionBudget,
    /// The pods of a role.
    Deployment,
}

impl Kind {
    /// All of them, in order.
    pub const ALL: [Kind; 8] = [
        Kind::ServiceAccount,
        Kind::Role,
        Kind::RoleBinding,
        Kind::Lease,
        Kind::Service,
        Kind::NetworkPolicy,
        Kind::PodDisruptionBudget,
        Kind::Deployment,
    ];

    /// API group, version and plural.
    pub const fn resource(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Kind::ServiceAccount => ("", "v1", "serviceaccounts"),
            Kind::Role => ("rbac.authorization.k8s.io", "v1", "roles"),
            Kind::RoleBinding => ("rbac.authorization.k8s.io", "v1", "rolebindings"),
            Kind::Lease => ("coordination.k8s.io", "v1", "leases"),
            Kind::Service => ("", "v1", "services"),
            Kind::NetworkPolicy => ("networking.k8s.io", "v1", "networkpolicies"),
            Kind::PodDisruptionBudget => ("policy", "v1", "poddisruptionbudgets"),
            Kind::Deployment => ("apps", "v1", "deployments"),
        }
    }

    /// The kind as YAML writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::ServiceAccount => "ServiceAccount",
            Kind::Role => "Role",
            Kind::RoleBinding => "RoleBinding",
            Kind::Lease => "Lease",
            Kind::Service => "Service",
            Kind::NetworkPolicy => "NetworkPolicy",
            Kind::PodDisruptionBudget => "PodDisruptionBudget",
            Kind::Deployment => "Deployment",
        }
    }

    /// `group/version`, or the version alone.
    pub fn api_version(self) -> String {
        match self.resource() {
            ("", version, _) => version.to_owned(),
            (group, version, _) => format!("{group}/{version}"),
        }
    }
}

/// An object as it should be: only the fields that are ours.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The whole object, ready to be applied.
    pub object: Value,
}

/// Fields that the API server takes whole, so that who applies one owns all of it, foreign members too. Source:
/// `x-kubernetes-list-type: atomic` and `x-kubernetes-map-type: atomic` in the schemas of the kinds that are made here.
const ATOMIC: [&str; 8] = [
    "rules",
    "subjects",
    "selector",
    "podSelector",
    "ingress",
    "policyTypes",
    "nodeSelector",
    "tolerations",
];

/// What stands in `live` where `desired` says something: the same shape, with live's values. Members of lists are
/// found by `name` (or `mountPath`, `containerPort`, `port`) where they have one, so that foreign members do no harm; lists of
/// plain values, and what the API server takes whole, are taken whole.
pub fn projection(live: &Value, desired: &Value) -> Value {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => Value::Object(
            desired
                .iter()
                .filter_map(|(key, wanted)| {
                    let there = live.get(key)?;
                    let there = match ATOMIC.contains(&key.as_str()) {
                        true => there.clone(),
                        false => projection(there, wanted),
                    };
                    Some((key.clone(), there))
                })
                .collect::<Map<_, _>>(),
        ),
        (Value::Array(live), Value::Array(desired)) => match list_key(desired) {
            Some(key) => Value::Array(
                desired
                    .iter()
                    .filter_map(|wanted| {
                        let there = live.iter().find(|item| item.get(key) == wanted.get(key))?;
                        Some(projection(there, wanted))
                    })
                    .collect(),
            ),
            None if live.len() == desired.len() => Value::Array(
                live.iter()
                    .zip(desired)
                    .map(|(live, wanted)| projection(live, wanted))
                    .collect(),
            ),
            None => Value::Array(live.clone()),
        },
        // The API server leaves empty objects and lists out.
        (live, _) => live.clone(),
    }
}

/// Which member tells the members of this list apart, as the API server merges them.
fn list_key(list: &[Value]) -> Option<&'static str> {
    ["uid", "mountPath", "containerPort", "port", "name"]
        .into_iter()
        .find(|key| !list.is_empty() && list.iter().all(|item| item.get(key).is_some()))
}

/// Drops what says nothing (null, `{}`, `[]`), which the API server does not keep either.
pub fn without_empty(value: Value) -> Value {
    match value {
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .map(|(key, member)| (key, without_empty(member)))
                // An emptyDir says all by being there.
                .filter(|(key, member)| key == "emptyDir" || !says_nothing(member))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(without_empty).collect()),
        plain => plain,
    }
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(members) => members.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Lays `over` over `base`: objects member by member, lists of named things by name, everything else replaced.
pub fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(base), Value::Array(over)) => {
            for item in over {
                let name = item.get("name");
                match base
                    .iter_mut()
                    .find(|there| name.is_some() && there.get("name") == name)
                {
                    Some(there) => merge(there, item),
                    None => base.push(item.clone()),
                }
            }
        }
        (base, over) => *base = over.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(live: Value, desired: Value, in_sync: bool) {
        assert_eq!(
            projection(&live, &desired) == desired,
            in_sync,
            "{live} against {desired}"
        );
    }

    #[test]
    fn foreign_fields_and_members_are_no_drift() {
        check(json!({"a": 1, "b": 2}), json!({"a": 1}), true);
        check(
            json!({"containers": [{"name": "sidecar"}, {"name": "worker", "image": "x", "ttl": 1}]}),
            json!({"containers": [{"name": "worker", "image": "x"}]}),
            true,
        );
    }

    #[test]
    fn a_changed_or_missing_field_is_drift() {
        check(json!({"a": 2}), json!({"a": 1}), false);
        check(json!({}), json!({"a": 1}), false);
        check(
            json!({"containers": []}),
            json!({"containers": [{"name": "worker"}]}),
            false,
        );
        check(
            json!({"verbs": ["get", "list"]}),
            json!({"verbs": ["get"]}),
            false,
        );
        check(json!({"verbs": ["get"]}), json!({"verbs": ["get"]}), true);
    }

    #[test]
    fn a_foreign_member_of_what_is_taken_whole_is_drift() {
        check(
            json!({"subjects": [{"kind": "ServiceAccount", "name": "ours"}, {"kind": "User", "name": "mallory"}]}),
            json!({"subjects": [{"kind": "ServiceAccount", "name": "ours"}]}),
            false,
        );
        check(
            json!({"ingress": [{"ports": [{"port": 8080, "protocol": "TCP", "endPort": 65535}]}]}),
            json!({"ingress": [{"ports": [{"port": 8080, "protocol": "TCP"}]}]}),
            false,
        );
        check(
            json!({"selector": {"a": "1", "b": "2"}}),
            json!({"selector": {"a": "1"}}),
            false,
        );
    }

    #[test]
    fn a_template_is_laid_over_by_name() {
        let mut base = json!({"spec": {"containers": [{"name": "worker", "image": "ours", "env": [{"name": "A", "value": "1"}]}]}});
        merge(
            &mut base,
            &json!({"spec": {"nodeSelector": {"disk": "fast"}, "containers": [{"name": "worker", "env": [{"name": "B", "value": "2"}]}, {"name": "side"}]}}),
        );
        assert_eq!(
            base,
            json!({"spec": {"nodeSelector": {"disk": "fast"}, "containers": [
                {"name": "worker", "image": "ours", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
                {"name": "side"}
            ]}})
        );
    }

    #[test]
    fn what_says_nothing_is_left_out() {
        assert_eq!(
            without_empty(json!({"a": {}, "b": {"c": []}, "d": 0, "e": "", "emptyDir": {}})),
            json!({"d": 0, "e": "", "emptyDir": {}})
        );
    }
}
