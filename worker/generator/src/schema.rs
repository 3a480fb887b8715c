//! What a schema may look like, and the errors of reading one.
//!
//! Three shapes are told apart by their outermost value: a list of sample records, a GeoJSON-like
//! object with `features`, or our own document with `fields` (see `fields.rs`).

use super::fields::Document;
use super::samples::Samples;
use super::tree::Tree;

/// Larger schema documents are refused; sample collections of the original are a few MB.
const MAX_SCHEMA_BYTES: usize = 64 << 20;

/// The schemas that come with the program, by name.
const EXAMPLES: [(&str, &str); 4] = [
    ("stock-market", include_str!("../schemas/stock-market.json")),
    ("iot-sensors", include_str!("../schemas/iot-sensors.json")),
    ("access-log", include_str!("../schemas/access-log.json")),
    (
        "orders-sample",
        include_str!("../schemas/orders-sample.json"),
    ),
];

/// A schema that was read and found good.
#[derive(Debug, Clone)]
pub struct Schema {
    pub(super) name: String,
    pub(super) shape: Shape,
}

#[derive(Debug, Clone)]
pub(super) enum Shape {
    Samples(Samples),
    Document(Document),
}

/// What is wrong with a schema, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("schema {schema}: {}{problem}; {way_out}", place(.field))]
pub struct SchemaError {
    /// The schema's name as it was given.
    pub schema: String,
    /// Path of the field, such as `fields[3].weights`; empty for the document as a whole.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub way_out: String,
}

impl SchemaError {
    pub(super) fn at(field: &str, problem: String, way_out: impl Into<String>) -> Self {
        Self {
            schema: String::new(),
            field: field.to_owned(),
            problem,
            way_out: way_out.into(),
        }
    }

    pub(super) fn of(mut self, schema: &str) -> Self {
        schema.clone_into(&mut self.schema);
        self
    }
}

fn place(field: &str) -> String {
    if field.is_empty() {
        String::new()
    } else {
        format!("{field}: ")
    }
}

impl Schema {
    /// Reads a schema document; `name` is only for messages (a file name, say).
    ///
    /// # Errors
    /// Names the field, what is wrong with it and the way out.
    pub fn parse(json: &[u8], name: &str) -> Result<Self, SchemaError> {
        let shape = parse_shape(json).map_err(|error| error.of(name))?;
        Ok(Self {
            name: name.to_owned(),
            shape,
        })
    }

    /// One of the schemas that come with the program; see [`Schema::example_names`].
    ///
    /// # Errors
    /// When there is no example of that name; the message lists those there are.
    pub fn example(name: &str) -> Result<Self, SchemaError> {
        let found = EXAMPLES.iter().find(|(known, _)| *known == name);
        let Some((_, json)) = found else {
            let known: Vec<_> = Self::example_names().collect();
            let way_out = format!("use one of: {}", known.join(", "));
            let problem = "there is no example of this name".to_owned();
            return Err(SchemaError::at("", problem, way_out).of(name));
        };
        Self::parse(json.as_bytes(), name)
    }

    /// The names of the schemas that come with the program.
    pub fn example_names() -> impl Iterator<Item = &'static str> {
        EXAMPLES.iter().map(|(name, _)| *name)
    }

    /// The name it was read under.
    pub fn name(&self) -> &str {
        &self.name
    }
}

fn parse_shape(json: &[u8]) -> Result<Shape, SchemaError> {
    if json.len() > MAX_SCHEMA_BYTES {
        let problem = format!("{} bytes, more than {MAX_SCHEMA_BYTES}", json.len());
        let way_out = "keep fewer sample records: they are drawn again and again anyway";
        return Err(SchemaError::at("", problem, way_out));
    }
    match Tree::parse(json)? {
        Tree::List(rows) => Samples::new(rows, None).map(Shape::Samples),
        Tree::Object(entries) if has(&entries, "fields") => {
            Document::read(&entries).map(Shape::Document)
        }
        Tree::Object(entries) if has(&entries, "features") => {
            Samples::from_features(entries).map(Shape::Samples)
        }
        other => Err(SchemaError::at(
            "",
            format!("{} that is no schema", other.describe()),
            "give a list of sample records, an object with `features`, or an object with `fields`",
        )),
    }
}

fn has(entries: &[(String, Tree)], key: &str) -> bool {
    entries.iter().any(|(name, _)| name == key)
}
