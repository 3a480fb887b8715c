use serde_json::Value;

use crate::{code, table};

pub fn page() -> String {
    let crd = serde_json::to_value(streampress_crds::crd()).expect("the CRD is JSON");
    let version = &crd["spec"]["versions"][0];
    let schema = &version["schema"]["openAPIV3Schema"];
    let names = &crd["spec"]["names"];
    let mut text = format!(
        "`apiVersion: {}/{}`, `kind: {}`, short name `{}`. {}\n\nExamples are in `deploy/examples`; `streampress validate` checks a \
         file. All fields are optional unless the column *default* says otherwise.\n\n",
        str(&crd["spec"]["group"]),
        str(&version["name"]),
        str(&names["kind"]),
        str(&names["shortNames"][0]),
        str(&schema["description"]),
    );
    for part in ["spec", "status"] {
        section(part, &schema["properties"][part], &mut text);
    }
    let columns = version["additionalPrinterColumns"]
        .as_array()
        .expect("columns");
    text += "## Columns of kubectl get\n\n";
    text += &table(
        &["column", "from", "with"],
        columns.iter().map(|column| {
            let is_wide = column["priority"].as_i64().unwrap_or_default() > 0;
            let with = if is_wide { "`-o wide`" } else { "" };
            vec![
                str(&column["name"]).to_owned(),
                code(str(&column["jsonPath"])),
                with.to_owned(),
            ]
        }),
    );
    text
}

/// The fields of an object, then those of the objects in it.
fn section(path: &str, schema: &Value, text: &mut String) {
    let Some(fields) = schema["properties"].as_object() else {
        return;
    };
    *text += &format!("## {path}\n\n");
    if let Some(description) = schema["description"].as_str() {
        *text += &format!("{description}\n\n");
    }
    let required = schema["required"].as_array();
    let is_required = |name: &str| required.is_some_and(|names| names.iter().any(|n| n == name));
    let rows = fields.iter().map(|(name, field)| {
        let default = match &field["default"] {
            _ if is_required(name) => "required".to_owned(),
            Value::Null | Value::Object(_) => String::new(),
            Value::String(text) => code(text),
            value => code(&value.to_string()),
        };
        vec![
            code(name),
            type_of(&format!("{path}.{name}"), field),
            default,
            str(&field["description"]).to_owned(),
        ]
    });
    *text += &table(&["field", "type", "default", "meaning"], rows);
    text.push('\n');
    if let Some(rules) = schema["x-kubernetes-validations"].as_array() {
        for rule in rules {
            *text += &format!("- {}\n", str(&rule["message"]));
        }
        text.push('\n');
    }
    for (name, field) in fields {
        let path = format!("{path}.{name}");
        section(&path, field, text);
        section(&format!("{path}[]"), &field["items"], text);
        section(&format!("{path}.*"), &field["additionalProperties"], text);
    }
}

fn type_of(path: &str, schema: &Value) -> String {
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values
            .iter()
            .filter(|value| !value.is_null())
            .map(|value| code(str(value)))
            .collect();
        return values.join(", ");
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return "integer or string".to_owned();
    }
    let bounds = match (schema["minimum"].as_f64(), schema["maximum"].as_f64()) {
        (Some(low), Some(high)) => format!(", {low} to {high}"),
        (Some(low), None) => format!(", at least {low}"),
        (None, Some(high)) => format!(", at most {high}"),
        (None, None) => String::new(),
    };
    let has_section = |schema: &Value| schema["properties"].is_object();
    match str(&schema["type"]) {
        "object" if has_section(schema) => format!("object, see {}", link(path)),
        "object" if schema["additionalProperties"].is_object() => {
            let inner = &schema["additionalProperties"];
            format!("map of {}", type_of(&format!("{path}.*"), inner))
        }
        "object" => "object of Kubernetes".to_owned(),
        "array" => format!(
            "array of {}",
            type_of(&format!("{path}[]"), &schema["items"])
        ),
        kind => format!("{kind}{bounds}"),
    }
}

/// A link to an object's own section.
fn link(path: &str) -> String {
    let anchor: String = path.chars().filter(|c| c.is_alphanumeric()).collect();
    format!("[{path}](#{})", anchor.to_lowercase())
}

fn str(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
