//! Sample records, the Python original's kind of schema: rows are drawn at random and written as they are. Every row is
//! rendered once for the chosen format, so that making a file is copying.

use std::collections::HashMap;

use crate::error::SchemaError;
use crate::options::FileFormat;
use crate::random::Random;
use crate::text::{self, JsonStyle};
use crate::tree::{JsonTree, join};

/// More cells, most of them empty, are refused for CSV.
const MAX_CELLS: usize = 16 << 20;

/// The sample rows, and the object that contained them.
#[derive(Debug, Clone)]
pub(crate) struct Samples {
    rows: Vec<JsonTree>,
    /// The other members of a GeoJSON-like object.
    wrapper: Option<Vec<(String, JsonTree)>>,
}

impl Samples {
    pub(crate) fn new(
        rows: Vec<JsonTree>,
        wrapper: Option<Vec<(String, JsonTree)>>,
    ) -> Result<Self, SchemaError> {
        if rows.is_empty() {
            let field = if wrapper.is_some() { "features" } else { "" };
            let problem = "no sample records".to_owned();
            return Err(SchemaError::at(field, problem, "give at least one"));
        }
        Ok(Self { rows, wrapper })
    }

    /// Reads `{"type", "features": [...]}`.
    pub(crate) fn from_features(entries: Vec<(String, JsonTree)>) -> Result<Self, SchemaError> {
        let mut wrapper = Vec::new();
        let mut rows = Vec::new();
        for (key, value) in entries {
            match (key.as_str(), value) {
                ("features", JsonTree::List(features)) => rows = features,
                ("features", other) => {
                    let problem = format!("{} where a list belongs", other.describe());
                    return Err(SchemaError::at("features", problem, "give a list"));
                }
                (_, value) => wrapper.push((key, value)),
            }
        }
        Self::new(rows, Some(wrapper))
    }

    /// What a JSON file begins with if an object contained the samples: `{"type": …, "features": [`.
    pub(crate) fn wrapped(&self) -> Option<Vec<u8>> {
        let wrapper = self.wrapper.as_ref()?;
        let mut head = vec![b'{'];
        for (key, value) in wrapper {
            json_entry(&mut head, key, value, JsonStyle::Python);
            head.extend_from_slice(b", ");
        }
        head.extend_from_slice(b"\"features\": [");
        Some(head)
    }
}

/// The rows as files contain them.
#[derive(Debug)]
pub(crate) struct RenderedSamples {
    header: Vec<u8>,
    bytes: Vec<u8>,
    /// Where each row ends in `bytes`.
    ends: Vec<usize>,
}

impl RenderedSamples {
    pub(crate) fn new(samples: &Samples, format: FileFormat) -> Result<Self, SchemaError> {
        let columns = match format {
            FileFormat::Csv => SampleColumns::of(&samples.rows)?,
            FileFormat::Json | FileFormat::Ndjson | FileFormat::Txt => SampleColumns::default(),
        };
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(samples.rows.len());
        for row in &samples.rows {
            match format {
                FileFormat::Json => json(&mut bytes, row, JsonStyle::Python),
                FileFormat::Ndjson => json(&mut bytes, row, JsonStyle::Compact),
                FileFormat::Csv => columns.write(&mut bytes, row),
                FileFormat::Txt => pairs(&mut bytes, row),
            }
            if format != FileFormat::Json {
                bytes.push(b'\n');
            }
            ends.push(bytes.len());
        }
        Ok(Self {
            header: columns.header(),
            bytes,
            ends,
        })
    }

    pub(crate) fn header(&self) -> Vec<u8> {
        self.header.clone()
    }

    pub(crate) fn write_one(&self, rng: &mut Random, out: &mut Vec<u8>) {
        let row = rng.index(self.ends.len());
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        out.extend_from_slice(&self.bytes[start..self.ends[row]]);
    }
}

/// The columns of all rows together, in the order of their first occurrence.
#[derive(Default)]
struct SampleColumns {
    names: Vec<String>,
    index: HashMap<String, usize>,
}

impl SampleColumns {
    fn of(rows: &[JsonTree]) -> Result<Self, SchemaError> {
        let mut columns = Self::default();
        for row in rows {
            each_value(row, "", &mut |path, _| {
                if !columns.index.contains_key(path) {
                    columns.index.insert(path.to_owned(), columns.names.len());
                    columns.names.push(path.to_owned());
                }
            });
        }
        let count = columns.names.len();
        if count == 0 || count.saturating_mul(rows.len()) > MAX_CELLS {
            let problem = format!("{} rows of {count} columns cannot be CSV", rows.len());
            return Err(SchemaError::at(
                "",
                problem,
                "use the format json or ndjson",
            ));
        }
        Ok(columns)
    }

    fn header(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (n, name) in self.names.iter().enumerate() {
            if n > 0 {
                out.push(b',');
            }
            text::csv_cell(&mut out, name.as_bytes());
        }
        if !out.is_empty() {
            out.push(b'\n');
        }
        out
    }

    fn write(&self, out: &mut Vec<u8>, row: &JsonTree) {
        let mut cells: Vec<Vec<u8>> = vec![Vec::new(); self.names.len()];
        each_value(row, "", &mut |path, leaf| {
            let cell = self.index.get(path).and_then(|&n| cells.get_mut(n));
            if let (Some(cell), Some(value)) = (cell, flat(leaf)) {
                text::csv_cell(cell, &value);
            }
        });
        out.extend_from_slice(&cells.join(&b','));
    }
}

fn json(out: &mut Vec<u8>, tree: &JsonTree, style: JsonStyle) {
    match tree {
        JsonTree::Null => out.extend_from_slice(b"null"),
        JsonTree::Bool(true) => out.extend_from_slice(b"true"),
        JsonTree::Bool(false) => out.extend_from_slice(b"false"),
        JsonTree::Number(digits) => out.extend_from_slice(digits.as_bytes()),
        JsonTree::Text(text) => text::json_string(out, text.as_bytes(), style),
        JsonTree::List(items) => {
            out.push(b'[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.extend_from_slice(style.comma().as_bytes());
                }
                json(out, item, style);
            }
            out.push(b']');
        }
        JsonTree::Object(entries) => {
            out.push(b'{');
            for (n, (key, value)) in entries.iter().enumerate() {
                if n > 0 {
                    out.extend_from_slice(style.comma().as_bytes());
                }
                json_entry(out, key, value, style);
            }
            out.push(b'}');
        }
    }
}

fn json_entry(out: &mut Vec<u8>, key: &str, value: &JsonTree, style: JsonStyle) {
    text::json_string(out, key.as_bytes(), style);
    out.extend_from_slice(style.colon().as_bytes());
    json(out, value, style);
}

fn pairs(out: &mut Vec<u8>, row: &JsonTree) {
    let mut first = true;
    each_value(row, "", &mut |path, leaf| {
        if !first {
            out.push(b' ');
        }
        first = false;
        text::pair_text(out, path.as_bytes());
        out.push(b'=');
        match flat(leaf) {
            Some(value) => text::pair_text(out, &value),
            None => out.push(b'-'),
        }
    });
}

/// Calls `visit` for everything that is not an object, by its dotted path.
fn each_value(tree: &JsonTree, path: &str, visit: &mut dyn FnMut(&str, &JsonTree)) {
    match tree {
        JsonTree::Object(entries) => {
            for (key, value) in entries {
                each_value(value, &join(path, key), visit);
            }
        }
        leaf if path.is_empty() => visit("value", leaf),
        leaf => visit(path, leaf),
    }
}

/// A value as the text of one cell; a list as JSON.
fn flat(leaf: &JsonTree) -> Option<Vec<u8>> {
    match leaf {
        JsonTree::Null => None,
        JsonTree::Text(text) => Some(text.clone().into_bytes()),
        other => {
            let mut out = Vec::new();
            json(&mut out, other, JsonStyle::Compact);
            Some(out)
        }
    }
}
