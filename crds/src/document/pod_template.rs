//! Checks a pod template: the type of every field that Kubernetes has, at any depth.
//!
//! The CRD leaves pod templates untyped: their schema would make it larger than `kubectl apply` can store. The types stand
//! in `pod_template.json`, taken from the `PodTemplateSpec` of Kubernetes 1.33 in k8s-openapi; tests compare the two. A field
//! that is not among them passes: a newer Kubernetes may have it.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::Value;

use super::field_path::join;

/// The type of a field.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum FieldType {
    /// A plain type, or the name of a type with fields.
    Named(String),
    /// A list of one item's type.
    List([Box<FieldType>; 1]),
    /// A type with fields; `*` is the type of every field whose name is free.
    Fields(HashMap<String, FieldType>),
}

/// Every type with fields, by its name.
fn types() -> &'static HashMap<String, FieldType> {
    static TYPES: OnceLock<HashMap<String, FieldType>> = OnceLock::new();
    TYPES.get_or_init(|| {
        serde_json::from_str(include_str!("pod_template.json")).expect("the types are JSON")
    })
}

/// Reports every value of a wrong type, by its path: path, value, rule and remedy.
pub(super) fn check(
    template: &Value,
    path: &str,
    report: &mut impl FnMut(&str, &Value, &str, &str),
) {
    if let Some(root) = types().get("PodTemplateSpec") {
        visit(root, template, path, report);
    }
}

fn visit(
    expected: &FieldType,
    value: &Value,
    path: &str,
    report: &mut impl FnMut(&str, &Value, &str, &str),
) {
    match (expected, value) {
        // As good as left out.
        (_, Value::Null) => {}
        (FieldType::List([item]), Value::Array(items)) => {
            for (index, value) in items.iter().enumerate() {
                visit(item, value, &format!("{path}[{index}]"), report);
            }
        }
        (FieldType::Fields(fields), Value::Object(values)) => {
            for (name, value) in values {
                if let Some(field) = fields.get(name).or_else(|| fields.get("*")) {
                    visit(field, value, &join(path, name), report);
                }
            }
        }
        (FieldType::List(_), _) => report(path, value, "must be a list", "write it as [a, b]"),
        (FieldType::Fields(_), _) => report(
            path,
            value,
            "must be a group of fields",
            "write its fields on the lines below, indented",
        ),
        (FieldType::Named(name), _) => match types().get(name) {
            Some(named) => visit(named, value, path, report),
            None => {
                if let Some((rule, help)) = plain_mismatch(name, value) {
                    report(path, value, rule, help);
                }
            }
        },
    }
}

/// What is wrong with a value of a plain type; nothing where it fits.
fn plain_mismatch(expected: &str, value: &Value) -> Option<(&'static str, &'static str)> {
    let fits_i32 = |number: i64| i32::try_from(number).is_ok();
    let (fits, rule, help) = match expected {
        "string" => (value.is_string(), "must be text", "write it in quotes"),
        "boolean" => (
            value.is_boolean(),
            "must be true or false",
            "write true or false",
        ),
        "int32" => (
            value.as_i64().is_some_and(fits_i32),
            "must be a whole number of at most 32 bits",
            "write only digits",
        ),
        "int64" => (
            value.is_i64(),
            "must be a whole number",
            "write only digits",
        ),
        "amount" => (
            value.is_string() || value.is_i64(),
            "must be a whole number or text",
            "write it in quotes",
        ),
        // A test proves that every name is known.
        _ => return None,
    };
    (!fits).then_some((rule, help))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mismatches(template: &Value) -> Vec<String> {
        let mut found = Vec::new();
        check(template, "podTemplate", &mut |path, value, rule, _| {
            found.push(format!("{path}: {value}: {rule}"));
        });
        found
    }

    #[test]
    fn every_value_of_a_wrong_type_is_named_by_its_path() {
        let template = json!({
            "metadata": {"labels": {"a": 1}},
            "spec": {
                "nodeSelector": ["a"],
                "tolerations": {"operator": "Exists"},
                "priorityClassName": true,
                "terminationGracePeriodSeconds": "5",
                "containers": [{"name": "worker", "env": [{"name": "A", "value": 1}]}],
                "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": 1.5}}],
                "securityContext": {"fsGroup": null, "supplementalGroups": [1, "2"]},
                "aFieldOfALaterKubernetes": 3
            }
        });
        let mut found = mismatches(&template);
        found.sort();
        assert_eq!(
            found,
            [
                "podTemplate.metadata.labels.a: 1: must be text",
                "podTemplate.spec.containers[0].env[0].value: 1: must be text",
                "podTemplate.spec.nodeSelector: [\"a\"]: must be a group of fields",
                "podTemplate.spec.priorityClassName: true: must be text",
                "podTemplate.spec.securityContext.supplementalGroups[1]: \"2\": must be a whole number",
                "podTemplate.spec.terminationGracePeriodSeconds: \"5\": must be a whole number",
                "podTemplate.spec.tolerations: {\"operator\":\"Exists\"}: must be a list",
                "podTemplate.spec.volumes[0].emptyDir.sizeLimit: 1.5: must be a whole number or text",
            ]
        );
    }

    #[test]
    fn a_usual_template_fits() {
        let template = json!({
            "metadata": {"labels": {"team": "data"}, "annotations": {"a": "b"}},
            "spec": {
                "nodeSelector": {"disk": "ssd"},
                "tolerations": [{"key": "spot", "operator": "Exists", "tolerationSeconds": 30}],
                "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 1, "podAffinityTerm": {"topologyKey": "zone"}}
                ]}},
                "containers": [{
                    "name": "worker",
                    "env": [{"name": "A", "value": "1"}],
                    "resources": {"limits": {"cpu": 1, "memory": "1Gi"}},
                    "livenessProbe": {"httpGet": {"port": "metrics"}, "periodSeconds": 5}
                }],
                "hostNetwork": false
            }
        });
        assert_eq!(mismatches(&template), Vec::<String>::new());
    }

    #[test]
    fn every_name_of_a_type_is_a_type() {
        fn names(field: &FieldType, visit: &mut impl FnMut(&str)) {
            match field {
                FieldType::Named(name) => visit(name),
                FieldType::List([item]) => names(item, visit),
                FieldType::Fields(fields) => {
                    fields.values().for_each(|field| names(field, visit));
                }
            }
        }
        let plain = ["string", "boolean", "int32", "int64", "amount"];
        for (owner, fields) in types() {
            names(fields, &mut |name| {
                assert!(
                    plain.contains(&name) || types().contains_key(name),
                    "{owner}: {name}"
                );
            });
        }
    }

    /// Each field of the table, at its place in a template of which nothing else is given: the client's type takes a value
    /// that fits, and no other.
    #[cfg(feature = "kubernetes")]
    #[test]
    fn the_types_are_those_of_the_kubernetes_client() {
        use k8s_openapi::api::core::v1::PodTemplateSpec;

        fn takes(template: &Value) -> bool {
            serde_json::from_value::<PodTemplateSpec>(template.clone()).is_ok()
        }

        /// Calls `visit` with each field's type and path: a name for each group, nothing for each list.
        fn each(
            field: &FieldType,
            path: &mut Vec<Option<String>>,
            visit: &mut impl FnMut(&FieldType, &[Option<String>]),
        ) {
            if let FieldType::Named(name) = field
                && let Some(named) = types().get(name)
            {
                return each(named, path, visit);
            }
            visit(field, path);
            match field {
                FieldType::Named(_) => {}
                FieldType::List([item]) => {
                    path.push(None);
                    each(item, path, visit);
                    path.pop();
                }
                FieldType::Fields(fields) => {
                    for (name, field) in fields {
                        path.push(Some(name.clone()));
                        each(field, path, visit);
                        path.pop();
                    }
                }
            }
        }

        let mut seen = 0;
        let root = types().get("PodTemplateSpec").expect("the root");
        each(root, &mut Vec::new(), &mut |field, path| {
            let samples = [
                json!("2"),
                json!(2),
                json!(i64::from(i32::MAX) + 1),
                json!(true),
                json!([]),
                json!({}),
            ];
            for sample in samples {
                let template = path.iter().rev().fold(sample, |value, step| match step {
                    Some(name) => json!({ name: value }),
                    None => json!([value]),
                });
                let ours = mismatches(&template).is_empty();
                // An API server takes a quantity as a bare number, the client's type does not.
                let tolerated = matches!(field, FieldType::Named(name) if name == "amount");
                let theirs = takes(&template);
                assert!(
                    ours == theirs || (ours && tolerated),
                    "{template}: {ours} {theirs}"
                );
            }
            seen += 1;
        });
        assert!(seen > 1_000, "{seen} fields");
    }
}
