//! Lays the user's pod template over ours. Pure.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Map, Value};
use streampress_crds::Role;

/// A pod template that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It has fields that this release does not know, and would leave out.
    #[error(
        "spec.{role}.podTemplate: unknown field {}; see `kubectl explain deployment.spec.template`",
        .fields.join(", ")
    )]
    UnknownFields {
        /// Whose template.
        role: Role,
        /// Paths of the fields.
        fields: Vec<String>,
    },
    /// It is no pod template.
    #[error("spec.{role}.podTemplate: {error}; see `kubectl explain deployment.spec.template`")]
    Malformed {
        /// Whose template.
        role: Role,
        /// What is wrong.
        error: String,
    },
}

/// `base` with the user's template over it: objects member by member, lists of named things by name, everything else
/// replaced.
pub(super) fn laid_over(
    base: &PodTemplateSpec,
    role: Role,
    users: &Map<String, Value>,
) -> Result<PodTemplateSpec, TemplateError> {
    let malformed = |error: serde_json::Error| TemplateError::Malformed {
        role,
        error: error.to_string(),
    };
    let mut template = serde_json::to_value(base).map_err(malformed)?;
    merge(&mut template, &Value::Object(users.clone()));
    let mut fields = Vec::new();
    let template = serde_ignored::deserialize(without_empty(template), |path| {
        // A `?` stands for each optional value on the way.
        let path = path.to_string();
        let members: Vec<_> = path.split('.').filter(|member| *member != "?").collect();
        fields.push(members.join("."));
    })
    .map_err(malformed)?;
    match fields.is_empty() {
        true => Ok(template),
        false => Err(TemplateError::UnknownFields { role, fields }),
    }
}

/// Lays `over` over `base`.
fn merge(base: &mut Value, over: &Value) {
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

/// Drops null, `{}` and `[]`, which the API server does not keep either.
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
    fn a_field_that_is_not_known_is_named() {
        let users = json!({"spec": {"containers": [{"name": "worker", "colour": "red"}], "nodeSelectors": {"a": "b"}}});
        let laid = laid_over(
            &PodTemplateSpec::default(),
            Role::Compressor,
            users.as_object().expect("an object"),
        );
        let error = laid.expect_err("two unknown fields").to_string();
        assert!(
            error.starts_with("spec.compressor.podTemplate: unknown field spec.containers.0.colour, spec.nodeSelectors; "),
            "{error}"
        );
    }
}
