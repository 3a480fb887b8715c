//! Reads pipelines from a YAML file and reports every problem at once, each with line and column. A file may contain
//! several documents, and lists of them as `kubectl get -o yaml` writes; those of other kinds are ignored with a notice.
//!
//! - `yaml`: reads YAML with the position of every value.
//! - `field_path`: paths of fields.
//! - `structure`: checks a document against the schema in `schema.json`; `pod_template` does so for pod templates,
//!   and `pod_restrictions` says what they must not have.

mod field_path;
mod pod_restrictions;
mod pod_template;
pub(crate) mod structure;
pub(crate) mod yaml;

use std::fmt;

use serde_json::{Map, Value};

use crate::api::pipeline::CompressionPipeline;
use crate::api::{API_VERSION, KIND};
use crate::checked::CheckedPipeline;
use crate::invalid::Invalid;
use crate::notices::notices;
use crate::rules::{self, RuleScope};
use structure::{SchemaViolation, nearest};
use yaml::{LineColumn, YamlDocument, YamlError};

/// The most problems that are reported of one file.
const MOST_PROBLEMS: usize = 100;

/// An error or a notice about a place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file's name, as it was given.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong.
    pub invalid: Invalid,
}

/// The pipelines of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Documents {
    /// The pipelines, all of them valid outside a cluster.
    pub pipelines: Vec<CheckedPipeline>,
    /// Where the fields of each of them are written.
    pub places: Vec<FieldPlaces>,
    /// What is no error: ignored documents, deliberate risks, what a cluster requires in addition.
    pub notices: Vec<Diagnostic>,
    /// What the file has in place of pipelines, where it has none: an empty list, or an answer of the API server.
    pub in_place: Vec<Diagnostic>,
}

/// Where the fields of a pipeline are written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldPlaces(YamlDocument);

impl FieldPlaces {
    /// Line and column, from 1, of the value of the field with this path, such as `spec.codec.effort` or `a.items[2]`; of the
    /// nearest group around it where there is no such field.
    pub fn of(&self, path: &str) -> (usize, usize) {
        let LineColumn { line, column } = self.0.place(path);
        (line, column)
    }
}

/// Reads a file's pipelines.
///
/// # Errors
/// Everything that is wrong with the file, at most 100 problems, in their order.
pub fn load(text: &str, file_name: &str) -> Result<Documents, Vec<Diagnostic>> {
    let (documents, errors) = read_all(text);
    let mut loader = Loader {
        file: file_name,
        problems: Vec::new(),
        found: Documents::default(),
    };
    for error in errors {
        let invalid = Invalid::new("", "", error.rule, error.help);
        let problem = loader.problem(error.place, invalid);
        loader.problems.push(problem);
    }
    for document in &documents {
        loader.take(document);
    }
    let Loader {
        mut problems,
        mut found,
        ..
    } = loader;
    if !found.pipelines.is_empty() {
        found.notices.append(&mut found.in_place);
    }
    problems.sort_by_key(|problem| (problem.line, problem.column));
    limit_problems(&mut problems);
    if problems.is_empty() {
        Ok(found)
    } else {
        Err(problems)
    }
}

/// The file's documents, and those in its lists.
fn read_all(text: &str) -> (Vec<YamlDocument>, Vec<YamlError>) {
    let (documents, errors) = yaml::read(text);
    (documents.into_iter().flat_map(flat).collect(), errors)
}

/// The document, or what is in it where it is a list, however deep. An empty list stays.
fn flat(document: YamlDocument) -> Vec<YamlDocument> {
    let items = match is_list(&document.value) {
        true => document.items().filter(|items| !items.is_empty()),
        false => None,
    };
    match items {
        Some(items) => items.into_iter().flat_map(flat).collect(),
        None => vec![document],
    }
}

/// Whether it is a list as `kubectl get -o yaml` and the API server write one.
fn is_list(document: &Value) -> bool {
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    let (version, kind) = (text("apiVersion"), text("kind").unwrap_or_default());
    let is_of_pipelines = version == Some(API_VERSION) && kind.strip_suffix("List") == Some(KIND);
    is_of_pipelines || (version, kind) == (Some("v1"), "List")
}

/// Keeps the first problems of very many, and reports how many there were.
fn limit_problems(problems: &mut Vec<Diagnostic>) {
    let more = problems.len().saturating_sub(MOST_PROBLEMS);
    if let Some(first_left_out) = problems.get(MOST_PROBLEMS).filter(|_| more > 0).cloned() {
        problems.truncate(MOST_PROBLEMS);
        let rule = format!("and {more} more problems from here on");
        problems.push(Diagnostic {
            invalid: Invalid::new("", "", rule, "correct the first ones, then validate again"),
            ..first_left_out
        });
    }
}

/// Reads the only pipeline of a file, with its notices.
///
/// # Errors
/// Everything that is wrong with the file; also when it contains no pipeline or several.
pub fn load_one(
    text: &str,
    file_name: &str,
) -> Result<(CheckedPipeline, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut documents = load(text, file_name)?;
    let count = documents.pipelines.len();
    match documents.pipelines.pop() {
        Some(pipeline) if count == 1 => Ok((pipeline, documents.notices)),
        None if !documents.in_place.is_empty() => Err(documents.in_place),
        _ => Err(vec![Diagnostic {
            file: file_name.to_owned(),
            line: 1,
            column: 1,
            invalid: Invalid::new(
                "",
                "",
                format!("contains {count} pipelines, must contain one"),
                match count {
                    0 => format!("add a document with apiVersion {API_VERSION} and kind {KIND}"),
                    _ => "write each pipeline to a file of its own".into(),
                },
            ),
        }]),
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Diagnostic {
            file,
            line,
            column,
            invalid,
        } = self;
        write!(f, "{file}:{line}:{column}: {invalid}")
    }
}

impl std::error::Error for Diagnostic {}

struct Loader<'a> {
    file: &'a str,
    problems: Vec<Diagnostic>,
    found: Documents,
}

impl Loader<'_> {
    fn take(&mut self, document: &YamlDocument) {
        // After a last `---` there is no document.
        if document.value.is_null() {
            return;
        }
        if let Some(invalid) = in_place_of_pipelines(&document.value) {
            let problem = self.problem(document.place(&invalid.field), invalid);
            self.found.in_place.push(problem);
            return;
        }
        match kind_of(&document.value) {
            DocumentKind::Pipeline => self.take_pipeline(document),
            DocumentKind::Other(kind) => {
                let notice = Invalid::new(
                    "kind",
                    kind,
                    "is ignored",
                    format!("only {KIND} is read here"),
                );
                let notice = self.problem(document.place("kind"), notice);
                self.found.notices.push(notice);
            }
            DocumentKind::Misspelt(invalid) => {
                let problem = self.problem(document.place(&invalid.field), invalid);
                self.problems.push(problem);
                // What else is wrong with it is said in the same answer.
                self.take(&with_right_kind(document));
            }
            DocumentKind::Unclear(invalid) => {
                let problem = self.problem(document.place(&invalid.field), invalid);
                self.problems.push(problem);
            }
        }
    }

    fn take_pipeline(&mut self, document: &YamlDocument) {
        let findings = structure::check(&document.value);
        let read = read_what_is_right(&document.value, &findings);
        let before = self.problems.len();
        for SchemaViolation { invalid, name } in &findings {
            let place = match name {
                true => document.name_place(&invalid.field),
                false => document.place(&invalid.field),
            };
            let problem = self.problem(place, invalid.clone());
            self.problems.push(problem);
        }
        for (field, text) in &document.padded {
            let is_named = |found: &SchemaViolation| overlap(&found.invalid.field, field);
            if !findings.iter().any(is_named) {
                let problem = self.problem(document.place(field), padded(field, text));
                self.problems.push(problem);
            }
        }
        let Some(pipeline) = read else {
            return self.refuse_unread(document, before);
        };
        for invalid in rules::broken(&pipeline, RuleScope::Everywhere) {
            if !findings
                .iter()
                .any(|finding| overlap(&finding.invalid.field, &invalid.field))
            {
                let problem = self.problem(document.place(&invalid.field), invalid);
                self.problems.push(problem);
            }
        }
        if self.problems.len() > before {
            return;
        }
        match CheckedPipeline::resolve(pipeline) {
            Ok(checked) => {
                for notice in notices(checked.pipeline()) {
                    let notice = self.problem(document.place(&notice.field), notice);
                    self.found.notices.push(notice);
                }
                self.found.places.push(FieldPlaces(document.clone()));
                self.found.pipelines.push(checked);
            }
            Err(invalid) => {
                for invalid in invalid {
                    let problem = self.problem(document.place(&invalid.field), invalid);
                    self.problems.push(problem);
                }
            }
        }
    }

    /// Reports a document that cannot be read although it fits the schema.
    fn refuse_unread(&mut self, document: &YamlDocument, before: usize) {
        if self.problems.len() > before {
            return;
        }
        let error = serde_json::from_value::<CompressionPipeline>(document.value.clone());
        let error = error
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        let invalid = Invalid::new(
            "metadata",
            "",
            format!("cannot be read: {error}"),
            "correct the field it names",
        );
        let problem = self.problem(document.start, invalid);
        self.problems.push(problem);
    }

    fn problem(&self, place: LineColumn, invalid: Invalid) -> Diagnostic {
        Diagnostic {
            file: self.file.to_owned(),
            line: place.line,
            column: place.column,
            invalid,
        }
    }
}

/// The problem of a number with a zero in front: kubectl reads another one, and here it is text.
fn padded(field: &str, text: &str) -> Invalid {
    let digits = text.trim_start_matches(['-', '+']);
    let meant = digits.trim_start_matches('0');
    let plain = match (meant, text.starts_with('-')) {
        ("", _) => "0".to_owned(),
        (meant, true) => format!("-{meant}"),
        (meant, false) => meant.to_owned(),
    };
    let read_as = match i64::from_str_radix(text, 8) {
        Ok(octal) => format!("which kubectl reads as {octal}"),
        Err(_) => format!("which kubectl reads as {plain}"),
    };
    Invalid::new(
        field,
        text,
        format!("is a number with a zero in front, {read_as}"),
        format!("write {plain}; where text is meant, \"{text}\" in quotes"),
    )
}

/// The inline schemas of a file's pipelines, whatever else is wrong with these, and where their members are written.
pub fn inline_schemas(text: &str) -> Vec<(Value, FieldPlaces)> {
    let (documents, _) = read_all(text);
    let schemas = documents.into_iter().filter_map(|document| {
        let kind = kind_of(&document.value);
        let is_pipeline = matches!(kind, DocumentKind::Pipeline | DocumentKind::Misspelt(_));
        let inline = document.value.pointer("/spec/generator/schema/inline");
        let inline = inline.filter(|inline| is_pipeline && inline.is_object())?;
        Some((inline.clone(), FieldPlaces(document)))
    });
    schemas.collect()
}

/// What a document is that kubectl or the API server wrote in place of pipelines; `None` for any other.
fn in_place_of_pipelines(document: &Value) -> Option<Invalid> {
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    if is_list(document) {
        let items = document.get("items")?;
        let is_empty = items.is_null() || items.as_array().is_some_and(Vec::is_empty);
        return is_empty.then(|| {
            Invalid::new(
                "items",
                "",
                "is an empty list: there was no pipeline",
                "get one by its name, or those of another namespace (-n, or -A for all)",
            )
        });
    }
    let is_answer = (text("apiVersion"), text("kind")) == (Some("v1"), Some("Status"));
    is_answer.then(|| {
        let message = text("message").unwrap_or("without a message");
        Invalid::new(
            "kind",
            "Status",
            format!("is an answer of the API server, not a pipeline: {message}"),
            "do what it says, and get the pipeline again",
        )
    })
}

/// What kind of document it is.
enum DocumentKind {
    Pipeline,
    /// A pipeline whose `kind` is spelt in another way.
    Misspelt(Invalid),
    Other(String),
    Unclear(Invalid),
}

fn kind_of(document: &Value) -> DocumentKind {
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    let head = format!("begin with apiVersion: {API_VERSION} and kind: {KIND}");
    match (text("kind"), text("apiVersion")) {
        _ if !document.is_object() => {
            DocumentKind::Unclear(Invalid::new("", "", "must be a group of fields", head))
        }
        (Some(KIND), Some(API_VERSION)) => DocumentKind::Pipeline,
        (Some(KIND), None) => DocumentKind::Unclear(Invalid::new(
            "apiVersion",
            "",
            "is missing",
            format!("write {API_VERSION}"),
        )),
        (Some(KIND), Some(version)) => DocumentKind::Unclear(Invalid::new(
            "apiVersion",
            version,
            "is not known",
            format!("write {API_VERSION}"),
        )),
        (Some(kind), version)
            if version == Some(API_VERSION) || nearest(kind, [KIND].into_iter()).is_some() =>
        {
            let invalid = Invalid::new(
                "kind",
                kind,
                "is not known",
                format!("did you mean {KIND}?"),
            );
            match nearest(kind, [KIND].into_iter()) {
                Some(_) => DocumentKind::Misspelt(invalid),
                None => DocumentKind::Unclear(invalid),
            }
        }
        (Some(kind), _) => DocumentKind::Other(kind.to_owned()),
        (None, _) => DocumentKind::Unclear(Invalid::new("kind", "", "is missing", head)),
    }
}

/// The document as a pipeline, with every value at its place.
fn with_right_kind(document: &YamlDocument) -> YamlDocument {
    let mut right = document.clone();
    if let Value::Object(fields) = &mut right.value {
        fields.insert("kind".to_owned(), KIND.into());
    }
    right
}

/// Reads a document without its wrong fields, so that the rules can be checked for the others.
fn read_what_is_right(
    document: &Value,
    findings: &[SchemaViolation],
) -> Option<CompressionPipeline> {
    let mut right = document.clone();
    for finding in findings {
        remove_field(&mut right, &finding.invalid.field);
    }
    // The operator writes the status; what a file says of it does not count.
    remove_field(&mut right, "status");
    // Without a spec the name can still be wrong.
    if let Value::Object(fields) = &mut right {
        let empty = || Value::Object(Map::new());
        fields.entry("spec").or_insert_with(empty);
    }
    serde_json::from_value(right).ok()
}

/// Removes a field by its path; a whole list for one of its items.
fn remove_field(value: &mut Value, path: &str) {
    let path = path.split('[').next().unwrap_or(path);
    let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
    let pointer: String = parent
        .split('.')
        .filter(|part| !part.is_empty())
        .map(|part| format!("/{part}"))
        .collect();
    if let Some(Value::Object(fields)) = value.pointer_mut(&pointer) {
        fields.remove(name);
    }
}

/// Whether one path equals the other or contains it.
fn overlap(one: &str, other: &str) -> bool {
    let within = |outer: &str, inner: &str| {
        inner
            .strip_prefix(outer)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    within(one, other) || within(other, one)
}
