//! Lays the user's pod template over ours, as JSON: a later Kubernetes may have fields that no type here has. Pure.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Map, Value};

/// `base` with the user's template over it: objects member by member, items of lists by name or at the end, everything else
/// replaced. What is empty stays in the user's part only, where it may have a meaning: `namespaceSelector: {}` is all
/// namespaces.
pub(super) fn laid_over(base: &PodTemplateSpec, users: Option<&Map<String, Value>>) -> Value {
    let mut template = without_empty(serde_json::to_value(base).unwrap_or_default());
    if let Some(users) = users {
        merge(&mut template, &Value::Object(users.clone()));
    }
    template
}

/// Lays `over` over `base`.
pub(super) fn merge(base: &mut Value, over: &Value) {
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

/// Drops null, `{}` and `[]`, with which our types say that nothing is set.
fn without_empty(value: Value) -> Value {
    match value {
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .map(|(key, member)| (key, without_empty(member)))
                // An emptyDir needs no members to mean something.
                .filter(|(key, member)| key == "emptyDir" || !is_empty(member))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(without_empty).collect()),
        plain => plain,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(members) => members.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
    fn empty_members_are_left_out() {
        assert_eq!(
            without_empty(json!({"a": {}, "b": {"c": []}, "d": 0, "e": "", "emptyDir": {}})),
            json!({"d": 0, "e": "", "emptyDir": {}})
        );
    }

    #[test]
    fn what_is_empty_in_the_users_template_is_kept() {
        let users = json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {}, "namespaceSelector": {}}
        ]}}}});
        let laid = laid_over(&PodTemplateSpec::default(), users.as_object());
        assert_eq!(laid, users);
    }

    #[test]
    fn a_field_that_no_type_has_is_kept() {
        let users = json!({"spec": {"fieldOfTomorrow": 1}});
        let laid = laid_over(&PodTemplateSpec::default(), users.as_object());
        assert_eq!(laid, users);
    }
}
