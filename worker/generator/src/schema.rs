//! A schema, in any of its three shapes: a list of sample records, a GeoJSON-like object with `features` (see
//! `samples.rs`), or a document with `fields` (see `document.rs`). The outermost value tells which.

use crate::document::SchemaDocument;
use crate::error::SchemaError;
use crate::samples::Samples;
use crate::tree::JsonTree;

/// Larger schemas are refused; the sample collections of the Python original have a few MB.
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

/// Members that only a document has.
const DOCUMENT_ONLY: [&str; 4] = ["clock", "tables", "walks", "line"];

/// A schema that was read and is valid.
#[derive(Debug, Clone)]
pub struct Schema {
    pub(crate) name: String,
    pub(crate) shape: SchemaShape,
}

#[derive(Debug, Clone)]
pub(crate) enum SchemaShape {
    Samples(Samples),
    Document(SchemaDocument),
}

impl Schema {
    /// Reads a schema; `name` is for error messages only, e.g. a file's name.
    ///
    /// # Errors
    /// Names the field, what is wrong with it and what to do.
    pub fn parse(json: &[u8], name: &str) -> Result<Self, SchemaError> {
        Self::parse_all(json, name).map_err(|errors| {
            let first = errors.into_iter().next();
            first.unwrap_or_else(|| {
                SchemaError::at("", "no schema".to_owned(), "correct it").of(name)
            })
        })
    }

    /// The same, with all that is wrong with it.
    ///
    /// # Errors
    /// At least one.
    pub fn parse_all(json: &[u8], name: &str) -> Result<Self, Vec<SchemaError>> {
        let named = |errors: Vec<SchemaError>| errors.into_iter().map(|error| error.of(name));
        let shape = parse_shape(json).map_err(|errors| named(errors).collect::<Vec<_>>())?;
        Ok(Self {
            name: name.to_owned(),
            shape,
        })
    }

    /// One of the schemas that come with the program; see [`Schema::example_names`].
    ///
    /// # Errors
    /// If there is no example of that name; the message lists the names.
    pub fn example(name: &str) -> Result<Self, SchemaError> {
        let found = EXAMPLES.iter().find(|(known, _)| *known == name);
        let Some((_, json)) = found else {
            let known: Vec<_> = Self::example_names().collect();
            let remedy = format!("use one of: {}", known.join(", "));
            let problem = "there is no example of this name".to_owned();
            return Err(SchemaError::at("", problem, remedy).of(name));
        };
        Self::parse(json.as_bytes(), name)
    }

    /// The names of the schemas that come with the program.
    pub fn example_names() -> impl Iterator<Item = &'static str> {
        EXAMPLES.iter().map(|(name, _)| *name)
    }
}

fn parse_shape(json: &[u8]) -> Result<SchemaShape, Vec<SchemaError>> {
    if json.len() > MAX_SCHEMA_BYTES {
        let problem = format!("{} bytes, more than {MAX_SCHEMA_BYTES}", json.len());
        let remedy = "keep fewer sample records: each is drawn many times anyway";
        return Err(SchemaError::at("", problem, remedy).into());
    }
    match JsonTree::parse(json)? {
        JsonTree::List(rows) => Ok(SchemaShape::Samples(Samples::new(rows, None)?)),
        JsonTree::Object(entries) if has(&entries, "fields") => {
            SchemaDocument::read(&entries).map(SchemaShape::Document)
        }
        JsonTree::Object(entries) if has(&entries, "features") => {
            Ok(SchemaShape::Samples(Samples::from_features(entries)?))
        }
        // Its fields may have another name by mistake.
        JsonTree::Object(entries) if DOCUMENT_ONLY.iter().any(|key| has(&entries, key)) => {
            SchemaDocument::read(&entries).map(SchemaShape::Document)
        }
        other => Err(SchemaError::at(
            "",
            format!("{} that is no schema", other.describe()),
            "give an object with `fields`, an object with sample records in its list `features`, or, in a file of its own, a list of sample records",
        )
        .into()),
    }
}

fn has(entries: &[(String, JsonTree)], key: &str) -> bool {
    entries.iter().any(|(name, _)| name == key)
}
