//! The generated CustomResourceDefinition: the schema of the types, with the rules across fields in it.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::api::patterns::DNS_LABEL;
use crate::api::pipeline::CompressionPipeline;
use crate::rules::{RULES, Rule};

/// The CustomResourceDefinition, with the rules across fields in its schema.
pub fn crd() -> CustomResourceDefinition {
    let derived = CompressionPipeline::crd();
    let Ok(mut value) = serde_json::to_value(&derived) else {
        return derived;
    };
    if let Some(schema) = value.pointer_mut("/spec/versions/0/schema/openAPIV3Schema") {
        finish(schema);
    }
    serde_json::from_value(value).unwrap_or(derived)
}

/// The command that refreshes every committed file that is generated from the types.
const REFRESH: &str = "cargo run -p streampress-crds --features kubernetes --bin crdgen -- --write";

/// A file could not be generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// As JSON.
    #[error("writing as JSON")]
    Json(#[from] serde_json::Error),
    /// As YAML.
    #[error("writing as YAML")]
    Yaml(#[from] serde_yaml::ser::Error),
}

/// The CustomResourceDefinition as YAML, as it is committed.
///
/// # Errors
/// When the types contain what YAML cannot express.
pub fn crd_yaml() -> Result<String, GenerateError> {
    let mut value = serde_json::to_value(crd())?;
    write_whole_numbers(&mut value);
    let yaml = serde_yaml::to_string(&value)?;
    Ok(format!("# Generated; refresh it with: {REFRESH}\n{yaml}"))
}

/// Every committed file that is generated from the types: its path from the repository's root, and its text.
///
/// # Errors
/// When the types contain what YAML or JSON cannot express.
pub fn generated_files() -> Result<Vec<(&'static str, String)>, GenerateError> {
    let crd = crd_yaml()?;
    let schema = serde_json::to_string_pretty(&document_schema()?)?;
    Ok(vec![
        ("crds/compressionpipeline.yaml", crd.clone()),
        // A chart cannot contain links, so it has a copy.
        ("charts/streampress/files/compressionpipeline.yaml", crd),
        ("crds/src/document/schema.json", format!("{schema}\n")),
    ])
}

/// The schema that a whole document is checked against: the CRD's, with an object's metadata.
/// Committed as `src/document/schema.json`, so that checking a document needs no Kubernetes library.
fn document_schema() -> Result<Value, serde_json::Error> {
    let crd = serde_json::to_value(crd())?;
    let schema = crd.pointer("/spec/versions/0/schema/openAPIV3Schema");
    let mut schema = schema.cloned().unwrap_or_default();
    let texts = json!({"type": "object", "additionalProperties": {"type": "string"}});
    let properties = json!({
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": {"type": "string", "minLength": 1},
                "namespace": {"type": "string", "minLength": 1, "maxLength": 63, "pattern": DNS_LABEL},
                "labels": texts,
                "annotations": texts,
                "generateName": {"type": "string"},
                "finalizers": {"type": "array", "items": {"type": "string"}},
                "uid": {"type": "string"},
                "resourceVersion": {"type": "string"},
                "generation": {"type": "integer"},
                "creationTimestamp": {"nullable": true},
                "deletionTimestamp": {},
                "deletionGracePeriodSeconds": {},
                "managedFields": {},
                "ownerReferences": {},
                "selfLink": {}
            }
        },
        // The operator writes it; a copy from a cluster contains it.
        "status": {"nullable": true}
    });
    if let (Some(known), Value::Object(more)) = (
        schema.get_mut("properties").and_then(Value::as_object_mut),
        properties,
    ) {
        known.extend(more);
    }
    schema["required"] = json!(["metadata", "spec"]);
    for role in ["generator", "compressor", "decompressor"] {
        if let Some(template) = schema.pointer_mut(&format!(
            "/properties/spec/properties/{role}/properties/podTemplate"
        )) {
            // The CRD leaves it untyped; its types are in a file of their own.
            *template = json!({"$ref": "pod_template.json"});
        }
    }
    strip(
        &mut schema,
        &["description", "default", "x-kubernetes-validations"],
    );
    write_whole_numbers(&mut schema);
    Ok(schema)
}

/// Completes the derived schema: null is not a value, and each object has its rules.
fn finish(schema: &mut Value) {
    tidy(schema);
    // A status says what is known: the API server must not fill in defaults.
    if let Some(status) = schema.pointer_mut("/properties/status") {
        strip(status, &["default"]);
    }
    let paths: BTreeSet<&str> = RULES.iter().flat_map(|rule| rule.at).copied().collect();
    for path in paths {
        let names = path.split('.').filter(|name| !name.is_empty());
        let pointer: String = names.map(|name| format!("/properties/{name}")).collect();
        let validations = validations(path);
        if let Some(object) = schema
            .pointer_mut(&pointer)
            .filter(|_| !validations.is_empty())
        {
            object["x-kubernetes-validations"] = validations.into();
        }
    }
    shorten_defaults(schema);
}

/// Drops the members of an object's default that its fields have as their own: the API server fills those in after it. An
/// object with rules keeps them, since the API server applies the rules to the default as it is written.
fn shorten_defaults(schema: &mut Value) {
    let has_rules = schema.to_string().contains("x-kubernetes-validations");
    let Value::Object(fields) = schema else {
        return;
    };
    if let (false, Some(Value::Object(properties)), Some(Value::Object(default))) = (
        has_rules,
        fields.get("properties").cloned(),
        fields.get_mut("default"),
    ) {
        let own = |name: &String| properties.get(name)?.get("default");
        default.retain(|name, value| own(name) != Some(&*value));
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(shorten_defaults);
    }
}

/// The rules of one object, as the schema has them in `x-kubernetes-validations`.
fn validations(at: &str) -> Vec<Value> {
    let rules = RULES
        .iter()
        .filter(|rule| rule.at.contains(&at) && !rule.cel.is_empty());
    rules.map(validation).collect()
}

fn validation(rule: &Rule) -> Value {
    let mut validation = json!({
        "rule": rule.cel,
        "message": format!("{} {}; {}", rule.field, rule.rule, rule.help).trim(),
    });
    // The API server checks that a field path is in the schema, where metadata has no fields.
    if !rule.field.is_empty() && !rule.field.starts_with("metadata.") {
        validation["fieldPath"] = format!(".{}", rule.field).into();
    }
    validation
}

/// Removes what the derivation adds and the API server does not need.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.remove("nullable");
            // kube leaves the choices empty, and the marker alone says the same.
            if fields.contains_key("x-kubernetes-int-or-string") {
                fields.remove("anyOf");
            }
            fields.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// Removes these keywords from a schema; a property of such a name stays.
fn strip(schema: &mut Value, keywords: &[&str]) {
    let Value::Object(fields) = schema else {
        return;
    };
    fields.retain(|name, _| !keywords.contains(&&**name));
    for (name, value) in fields {
        match value {
            Value::Object(properties) if name == "properties" => properties
                .values_mut()
                .for_each(|property| strip(property, keywords)),
            value => strip(value, keywords),
        }
    }
}

/// Writes whole numbers without a fraction: bounds are floating-point numbers in the API, but `500` reads better than
/// `500.0`.
fn write_whole_numbers(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(write_whole_numbers),
        Value::Array(items) => items.iter_mut().for_each(write_whole_numbers),
        Value::Number(number) => {
            let whole = number
                .as_f64()
                .filter(|float| float.fract() == 0.0 && float.abs() < 1e15);
            if let Some(whole) = whole {
                *value = (whole as i64).into();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::api::patterns::{AMOUNT, PATTERNS};

    fn yaml() -> String {
        crd_yaml().expect("the CRD writes as YAML")
    }

    fn each_field(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            visit(&path, field);
            each_field(field, &path, visit);
            each_field(&field["items"], &format!("{path}[]"), visit);
        }
    }

    fn spec_and_status(visit: &mut impl FnMut(&str, &Value)) {
        let crd = serde_json::to_value(crd()).expect("JSON");
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        each_field(schema, "", visit);
    }

    #[test]
    fn the_committed_files_are_fresh() {
        for (path, text) in generated_files().expect("generated files") {
            let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
            let committed = std::fs::read_to_string(committed).unwrap_or_default();
            assert!(
                committed == text,
                "{path} is stale; refresh it with: {REFRESH}"
            );
        }
    }

    /// The chart's tests render the whole file and need helm; this one needs nothing and tells a forgotten step at once.
    #[test]
    fn the_rendered_operator_has_the_crd_of_now() {
        let rendered = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/operator.yaml");
        let rendered = std::fs::read_to_string(rendered).expect("the rendered operator");
        let mut documents = rendered.split("\n---\n");
        let document = documents
            .find(|document| document.contains("\nkind: CustomResourceDefinition\n"))
            .expect("the CRD");
        let rendered: Value = serde_yaml::from_str(document).expect("YAML");
        let of_now: Value = serde_yaml::from_str(&yaml()).expect("YAML");
        assert!(
            rendered["spec"] == of_now["spec"],
            "deploy/operator.yaml is stale; docs/src/testing.md has the command that renders it"
        );
    }

    #[test]
    fn the_crd_stays_under_64_kib() {
        let bytes = yaml().len();
        assert!(bytes <= 64 << 10, "{bytes} bytes");
    }

    #[test]
    fn every_field_is_described() {
        spec_and_status(&mut |path, field| {
            assert!(
                field["description"]
                    .as_str()
                    .is_some_and(|text| text.len() > 5),
                "{path}: {field}"
            );
        });
    }

    #[test]
    fn every_text_list_and_number_of_the_spec_is_bounded() {
        spec_and_status(&mut |path, field| {
            let bounded = match field["type"].as_str() {
                Some("string") => {
                    field["enum"].is_array()
                        || field["maxLength"].is_u64()
                        || field["format"] == "date-time"
                }
                Some("array") => field["maxItems"].is_u64(),
                Some("integer") => path.starts_with(".status") || field["minimum"].is_number(),
                Some("object") => {
                    field["properties"].is_object()
                        || field["maxProperties"].is_u64()
                        || field["x-kubernetes-preserve-unknown-fields"] == true
                }
                Some(_) => true,
                None => field["x-kubernetes-int-or-string"] == true && field["maxLength"].is_u64(),
            };
            assert!(bounded, "{path}: {field}");
        });
    }

    #[test]
    fn a_status_has_no_defaults() {
        let mut seen = 0;
        spec_and_status(&mut |path, field| {
            if path.starts_with(".status") {
                seen += 1;
                assert!(field.get("default").is_none(), "{path}: {field}");
            }
        });
        assert!(seen > 30, "{seen} fields");
    }

    #[test]
    fn the_api_server_fills_in_the_same_defaults_as_workers() {
        let crd = serde_json::to_value(crd()).expect("JSON");
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let sparse = json!({"generator": {"schema": {"example": "iot-sensors"}}, "transport": {"stream": {}}, "compressor": {"autoscaling": {}}});
        let filled = kube_cel::apply_defaults(schema, &sparse);
        // It does not fill in what it has just added, as the API server does.
        let filled = kube_cel::apply_defaults(schema, &filled);
        let read: crate::CompressionPipelineSpec = serde_json::from_value(sparse).expect("a spec");
        assert_eq!(serde_json::to_value(&read).expect("JSON"), filled);
        let read_again: crate::CompressionPipelineSpec =
            serde_json::from_value(filled).expect("a spec");
        assert_eq!(read_again, read);
    }

    #[test]
    fn every_pattern_compiles_and_has_a_rule_in_words() {
        let mut seen = BTreeSet::from([AMOUNT, DNS_LABEL].map(str::to_owned));
        spec_and_status(&mut |_, field| seen.extend(field["pattern"].as_str().map(str::to_owned)));
        seen.remove(crate::quantity::PATTERN);
        let known: BTreeSet<String> = PATTERNS
            .iter()
            .map(|(pattern, ..)| (*pattern).to_owned())
            .collect();
        assert_eq!(seen, known);
        for pattern in known {
            assert!(regex_lite::Regex::new(&pattern).is_ok(), "{pattern}");
        }
    }

    #[test]
    fn every_rule_with_cel_is_in_the_crd_once_per_object() {
        let crd = serde_json::to_value(crd()).expect("JSON");
        let text = crd.to_string();
        let placed = text.matches("\"rule\":").count();
        let rules = RULES.iter().filter(|rule| !rule.cel.is_empty());
        assert_eq!(placed, rules.map(|rule| rule.at.len()).sum::<usize>());
    }
}
