//! Checks a document against the CRD's schema: unknown fields, types, ranges, patterns, choices. What an API server would
//! refuse is reported here without one, in plain words.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::OnceLock;

use regex_lite::Regex;
use serde_json::{Map, Value};

use crate::api::patterns;
use crate::document::field_path::join;
use crate::document::{pod_restrictions, pod_template};
use crate::invalid::{Invalid, shorten};
use crate::limits;
use crate::quantity::{self, ByteSize};

/// A part of a document that breaks the schema.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SchemaViolation {
    /// What is wrong.
    pub invalid: Invalid,
    /// Whether the field's name is wrong, not its value.
    pub name: bool,
}

/// Everything in a document that breaks the schema.
pub(crate) fn check(document: &Value) -> Vec<SchemaViolation> {
    let mut violations = Vec::new();
    visit(schema(), document, "", &mut violations);
    violations
}

/// The schema of a whole document, generated from the types by `crdgen` (see `crd.rs`).
fn schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        serde_json::from_str(include_str!("schema.json")).expect("crdgen writes JSON")
    })
}

/// A shorter part of a name says little.
const SHORTEST_PART: usize = 3;

/// The name that is most similar to one that is not among them; nothing where none is similar.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A long name is not a typing error, and comparing it would take long.
    if name.len() > 64 {
        return None;
    }
    let name = name.to_lowercase();
    let measured = known.filter_map(|candidate| {
        let distance = strsim::damerau_levenshtein(&name, &candidate.to_lowercase());
        (distance <= 1 + candidate.len() / 4).then_some((distance, candidate))
    });
    measured
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The name that is meant by one that is not among them: the most similar one, or the only one of which it is a part.
fn meant<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    nearest(name, known.clone()).or_else(|| {
        let name = name.to_lowercase();
        let mut whole = known.filter(|known| known.to_lowercase().contains(&name));
        let first = whole.next().filter(|_| name.len() >= SHORTEST_PART)?;
        whole.next().is_none().then_some(first)
    })
}

/// The kind of file among the `known` ones that includes this ending, which is no kind of its own.
fn of_ending<'a>(text: &str, mut known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let kind = match text.trim_start_matches('.') {
        "log" => "txt",
        "ndjson" => "json",
        _ => return None,
    };
    known.find(|known| *known == kind)
}

fn visit(schema: &Value, value: &Value, path: &str, violations: &mut Vec<SchemaViolation>) {
    if schema.get("$ref").is_some() {
        let mut report = |path: &str, value: &Value, rule: &str, help: &str| {
            violations.push(wrong(path, value, rule, help));
        };
        pod_template::check(value, path, &mut report);
        return pod_restrictions::check(value, path, &mut report);
    }
    let mut report = |rule: &str, help: &str| violations.push(wrong(path, value, rule, help));
    if value.is_null() {
        if schema.get("nullable").is_none() {
            let help = example(path).map(|example| format!("write {example}"));
            report(
                "has no value",
                help.as_deref().unwrap_or("give it one, or remove the line"),
            );
        }
        return;
    }
    if schema.get("x-kubernetes-int-or-string").is_some() {
        let range = byte_range(path);
        return check_amount(schema, value, range, &mut report);
    }
    match (schema.get("type").and_then(Value::as_str), value) {
        (Some("object"), Value::Object(fields)) => visit_fields(schema, fields, path, violations),
        (Some("array"), Value::Array(items)) => {
            check_items(schema, items, &mut report);
            let inner = schema.get("items").unwrap_or(&Value::Null);
            for (index, item) in items.iter().enumerate() {
                visit(inner, item, &format!("{path}[{index}]"), violations);
            }
        }
        (Some("string"), Value::String(text)) => check_text(schema, text, &mut report),
        (Some("integer"), _) => check_integer(schema, value, &mut report),
        (Some("boolean"), Value::Bool(_)) | (None, _) => {}
        (Some("object"), _) => report(
            "must be a group of fields",
            "write its fields on the lines below, indented",
        ),
        (Some("array"), Value::Object(_)) => report("must be a list", "write it as [a, b]"),
        (Some("array"), one) => {
            report("must be a list", &format!("write it as [{}]", written(one)));
        }
        (Some("string"), Value::Bool(_) | Value::Number(_)) => {
            check_unquoted(schema, &value.to_string(), &mut report);
        }
        (Some("string"), _) => report("must be text", "write one text"),
        (Some("boolean"), Value::String(text)) => {
            let help = match text.to_ascii_lowercase() {
                meant if meant == "true" || meant == "false" => {
                    format!("write {meant} without quotes")
                }
                _ => "write true or false".to_owned(),
            };
            report("must be true or false", &help);
        }
        (Some("boolean"), _) => report("must be true or false", "write true or false"),
        (Some(_), _) => {}
    }
}

fn visit_fields(
    schema: &Value,
    fields: &Map<String, Value>,
    path: &str,
    violations: &mut Vec<SchemaViolation>,
) {
    let empty = Map::new();
    let known = schema
        .get("properties")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    let open = schema.get("x-kubernetes-preserve-unknown-fields").is_some();
    for name in required(schema).filter(|name| !fields.contains_key(*name)) {
        let path = join(path, name);
        let example = example(&path).map_or_else(|| format!("{name}: …"), str::to_owned);
        let help = format!("add {example}");
        violations.push(wrong(&path, &Value::Null, "is missing", &help));
    }
    for (name, value) in fields {
        let path = join(path, name);
        match (known.get(name), schema.get("additionalProperties")) {
            (Some(schema), _) | (None, Some(schema)) => visit(schema, value, &path, violations),
            (None, None) if open => {}
            (None, None) => violations.push(unknown(&path, name, (known, fields))),
        }
    }
    let most = schema.get("maxProperties").and_then(Value::as_u64);
    if most.is_some_and(|most| fields.len() as u64 > most) {
        let rule = format!("must have at most {} entries", most.unwrap_or_default());
        violations.push(wrong(path, &fields.len().into(), &rule, "remove some"));
    }
}

/// What to write for a field that must be there.
fn example(path: &str) -> Option<&'static str> {
    let last_two = path
        .rmatch_indices('.')
        .nth(1)
        .map_or(0, |(dot, _)| dot + 1);
    match path {
        "metadata" => return Some("metadata: {name: my-pipeline}"),
        "metadata.name" => return Some("name: my-pipeline"),
        "spec" => return Some("spec: {}"),
        _ => {}
    }
    match path.get(last_two..).unwrap_or_default() {
        "volume.persistentVolumeClaim" => Some("persistentVolumeClaim: {claimName: my-claim}"),
        "persistentVolumeClaim.claimName" => Some("claimName: my-claim"),
        "credentialsSecretRef.name" => Some("name: my-secret"),
        of if of.starts_with("pullSecrets[") && of.ends_with("].name") => Some("name: my-secret"),
        _ => None,
    }
}

fn wrong(path: &str, value: &Value, rule: &str, help: &str) -> SchemaViolation {
    SchemaViolation {
        invalid: Invalid::new(path, written(value), rule, help),
        name: false,
    }
}

/// A field that is not among the `known` ones, beside those that are written.
fn unknown(
    path: &str,
    name: &str,
    (known, written): (&Map<String, Value>, &Map<String, Value>),
) -> SchemaViolation {
    let names = known.keys().map(String::as_str);
    let help = match meant(name, names.clone()) {
        Some(near) if written.contains_key(near) => {
            format!("{near} is there too: keep one of them, under that name")
        }
        Some(near) => format!("did you mean {near}?"),
        None => format!("known here: {}", names.collect::<Vec<_>>().join(", ")),
    };
    SchemaViolation {
        invalid: Invalid::new(path, "", "is not a field", help),
        name: true,
    }
}

fn check_items(schema: &Value, items: &[Value], report: &mut impl FnMut(&str, &str)) {
    let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
    let count = items.len() as u64;
    if let Some(least) = bound("minItems").filter(|least| count < *least) {
        report(
            &format!(
                "must have at least {least} item{}",
                if least == 1 { "" } else { "s" }
            ),
            "add one",
        );
    }
    if let Some(most) = bound("maxItems").filter(|most| count > *most) {
        report(&format!("must have at most {most} items"), "remove some");
        return;
    }
    let set = schema.get("x-kubernetes-list-type").and_then(Value::as_str) == Some("set");
    let repeated = items
        .iter()
        .enumerate()
        .find(|(index, item)| items.iter().take(*index).any(|earlier| earlier == *item));
    if let Some((_, item)) = repeated.filter(|_| set) {
        report(
            "must not contain a value twice",
            &format!("write {} once", written(item)),
        );
    }
}

/// Checks a value that is no text without quotes: they help only where the text is right.
fn check_unquoted(schema: &Value, text: &str, report: &mut impl FnMut(&str, &str)) {
    let mut is_right = true;
    check_text(schema, text, &mut |rule, help| {
        is_right = false;
        report(rule, help);
    });
    if is_right {
        report("must be text", "write it in quotes");
    }
}

fn check_text(schema: &Value, text: &str, report: &mut impl FnMut(&str, &str)) {
    if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
        let choices = choices.iter().filter_map(Value::as_str);
        if !choices.clone().any(|choice| choice == text) {
            let rule = format!(
                "must be one of {}",
                choices.clone().collect::<Vec<_>>().join(", ")
            );
            let help = match (of_ending(text, choices.clone()), meant(text, choices)) {
                (Some(kind), _) => {
                    format!(
                        "write {kind}, which includes .{}",
                        text.trim_start_matches('.')
                    )
                }
                (None, Some(near)) => format!("did you mean {near}?"),
                (None, None) => "write one of these".to_owned(),
            };
            report(&rule, &help);
        }
        return;
    }
    let length = text.chars().count() as u64;
    let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
    if let Some(most) = bound("maxLength").filter(|most| length > *most) {
        return report(
            &format!("must be at most {most} characters"),
            "use a shorter one",
        );
    }
    if bound("minLength").is_some_and(|least| length < least) {
        return report("must not be empty", "give it a value, or remove the line");
    }
    let Some(pattern) = schema.get("pattern").and_then(Value::as_str) else {
        return;
    };
    if !matches(pattern, text) {
        let (rule, help) = patterns::pattern_in_words(pattern);
        report(rule, help);
    }
}

fn check_integer(schema: &Value, value: &Value, report: &mut impl FnMut(&str, &str)) {
    let bound = |name: &str| {
        schema
            .get(name)
            .and_then(Value::as_f64)
            .map(|bound| bound as i64)
    };
    let widest = match schema.get("format").and_then(Value::as_str) {
        Some("int32") => i64::from(i32::MAX),
        _ => i64::MAX,
    };
    let least = bound("minimum").unwrap_or(-widest);
    let most = bound("maximum").unwrap_or(widest);
    let meant = meant_integer(value);
    match (value, meant) {
        (_, Some(meant)) if !meant.is_some_and(|number| (least..=most).contains(&number)) => {
            let range = format!("must be from {least} to {most}");
            report(&range, "use a number in that range");
        }
        (Value::Number(number), Some(_)) if !number.is_f64() => {}
        (Value::String(text), Some(Some(number))) if *text == number.to_string() => {
            report("must be a whole number", "leave the quotes out")
        }
        // As 010, which is 8 for some programs, 1e3 or 1_000.
        (_, Some(Some(number))) => report("must be a whole number", &format!("write {number}")),
        _ => report(
            "must be a whole number",
            "write only digits; the unit is in the field's name",
        ),
    }
}

/// The whole number that a value is or may be meant as; `Some(None)` where that is too large.
fn meant_integer(value: &Value) -> Option<Option<i64>> {
    match value {
        Value::Number(number) if !number.is_f64() => Some(number.as_i64()),
        Value::Number(number) => {
            let number = number.as_f64().filter(|number| number.fract() == 0.0)?;
            let is_small = number.abs() < (1u64 << 53) as f64;
            Some(is_small.then_some(number as i64))
        }
        Value::String(text) => Some(Some(text.replace('_', "").parse().ok()?)),
        _ => None,
    }
}

/// The range of a field that is a byte size, which the rules check.
fn byte_range(path: &str) -> Option<&'static RangeInclusive<u64>> {
    match path {
        "spec.codec.blockSize" => Some(&limits::BLOCK_BYTES),
        "spec.codec.recordSize" => Some(&limits::RECORD_BYTES),
        "spec.generator.fileSize" => Some(&limits::FILE_BYTES),
        _ => None,
    }
}

/// Checks a byte size or a resource amount: a whole number, or text with a unit.
fn check_amount(
    schema: &Value,
    value: &Value,
    range: Option<&RangeInclusive<u64>>,
    report: &mut impl FnMut(&str, &str),
) {
    let pattern = schema.get("pattern").and_then(Value::as_str);
    let is_byte_size = pattern == Some(quantity::PATTERN);
    match value {
        Value::Number(number) if number.is_u64() => {}
        Value::String(text) => {
            if is_byte_size {
                let size = ByteSize::written(text);
                if let Err(error) = size.bytes() {
                    let within = range.and_then(|range| size.bytes_within(range).err());
                    report("must be a byte size", &within.unwrap_or(error.help));
                }
            } else {
                check_text(schema, text, report);
            }
        }
        // As 1e5 without quotes, which Kubernetes reads as 100000.
        Value::Number(number) if number.as_f64().and_then(quantity::whole).is_some() => {}
        _ if is_byte_size => {
            let help = range.map(quantity::forms_within);
            report(
                "must be a byte size",
                help.as_deref().unwrap_or(quantity::FORM),
            );
        }
        Value::Number(number) if number.is_f64() => {
            report("must be a whole number or text", "write it in quotes");
        }
        _ => report(
            "must be a number, or text with a unit",
            "write it as 400Ki, 1Mi, 0.1M, 1e5 or 1048576",
        ),
    }
}

fn required(schema: &Value) -> impl Iterator<Item = &str> {
    schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// A value as a message shows it: text without quotes; a group of fields is not shown.
fn written(value: &Value) -> String {
    match value {
        Value::String(text) => shorten(text.clone()),
        Value::Null | Value::Object(_) => String::new(),
        other => shorten(other.to_string()),
    }
}

/// Whether a text matches a pattern of the schema. Each pattern is compiled once.
fn matches(pattern: &str, text: &str) -> bool {
    static COMPILED: OnceLock<HashMap<&'static str, Regex>> = OnceLock::new();
    let compiled = COMPILED.get_or_init(|| {
        let patterns = patterns::PATTERNS.iter().map(|(pattern, ..)| *pattern);
        patterns
            .filter_map(|pattern| Some((pattern, Regex::new(pattern).ok()?)))
            .collect()
    });
    // A test finds a pattern that is not in the table; the API server would still check it.
    compiled
        .get(pattern)
        .is_none_or(|regex| regex.is_match(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit_required(schema: &Value, path: &str, each: &mut impl FnMut(&str)) {
        required(schema).for_each(|name| each(&join(path, name)));
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            visit_required(inner, &join(path, name), each);
        }
        if let Some(inner) = schema.get("items") {
            visit_required(inner, &format!("{path}[0]"), each);
        }
    }

    #[test]
    fn what_to_write_is_known_for_every_field_that_must_be_there() {
        let mut seen = 0;
        visit_required(schema(), "", &mut |path| {
            assert!(example(path).is_some(), "{path}");
            seen += 1;
        });
        assert!(seen >= 7, "{seen} fields");
    }
}
