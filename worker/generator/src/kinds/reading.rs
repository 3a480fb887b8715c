//! Reads the kinds from a schema: which members each has, and within which bounds.

use super::{
    Cell, Distribution, MAX_TEXT_BYTES, ReadScope, TextClass, TextTemplate, TickPart, ValueKind,
    WeightedChoice,
};
use crate::clock::{MAX_STEP_MILLIS, TimeFormat};
use crate::error::SchemaError;
use crate::pools::NamePool;
use crate::reader::{self, MAX_INTEGER, ObjectReader, mismatch};
use crate::tree::JsonTree;

/// Bounds, so that no record grows beyond reason.
const MAX_CHOICES: usize = 10_000;
const MAX_ARRAY: u32 = 1_000;
/// Six decimals keep every number up to a thousand million exact in a float.
const MAX_DECIMALS: u32 = 6;

const KINDS: &str = "sequence, timestamp, walk, int, float, bool, enum, name, words, uuid, hex, \
                     ipv4, column, array, object, template";

impl ValueKind {
    /// Reads the members that belong to the field's kind; others are errors.
    pub(crate) fn read(
        mut reader: ObjectReader<'_>,
        scope: &mut ReadScope<'_>,
    ) -> Result<Self, SchemaError> {
        let found = reader.text("kind")?;
        let kind = match reader.require("kind", found)? {
            "sequence" => read_sequence(&mut reader)?,
            "timestamp" => read_time(&mut reader, scope)?,
            "walk" => read_walk(&mut reader, scope)?,
            "int" => read_int(&mut reader)?,
            "float" => read_float(&mut reader)?,
            "bool" => Self::Bool {
                ratio: reader.number_in("ratio", 0.0, 1.0)?.unwrap_or(0.5),
            },
            "enum" => Self::Choice(WeightedChoice::read(&mut reader)?),
            "name" => {
                let pool = reader.choice("pool", &NamePool::NAMES)?;
                Self::Name(reader.require("pool", pool)?)
            }
            "words" => {
                let (min, max) = read_lengths(&mut reader, (3, 12))?;
                Self::Words { min, max }
            }
            "uuid" => Self::Uuid,
            "hex" => Self::Hex {
                digits: reader.count_in("digits", 1, 1024)?.unwrap_or(16) as usize,
            },
            "ipv4" => read_ipv4(&mut reader)?,
            "column" => read_column(&mut reader, scope)?,
            "array" => read_array(&mut reader, scope)?,
            "object" if scope.in_array => read_object(&mut reader, scope)?,
            "template" if scope.in_array => {
                let problem = "a template cannot be inside an array".to_owned();
                return Err(reader.error("kind", problem, "use words or enum there"));
            }
            "template" => {
                let text = reader.text("text")?;
                let text = reader.require("text", text)?;
                Self::Template(TextTemplate::read(
                    &reader.path("text"),
                    text,
                    &scope.fields,
                )?)
            }
            other => {
                let remedy = format!("use one of: {KINDS}");
                return Err(reader.error("kind", format!("{other:?} is not known"), &remedy));
            }
        };
        reader.finish()?;
        Ok(kind)
    }
}

fn read_sequence(reader: &mut ObjectReader<'_>) -> Result<ValueKind, SchemaError> {
    let prefix = reader.text("prefix")?.unwrap_or_default();
    Ok(ValueKind::Sequence {
        start: reader
            .integer_in("start", -MAX_INTEGER, MAX_INTEGER)?
            .unwrap_or(1),
        step: reader
            .integer_in("step", -1_000_000, 1_000_000)?
            .unwrap_or(1),
        width: reader.count_in("width", 1, 20)?.unwrap_or(1) as usize,
        prefix: bounded_text(reader, "prefix", prefix)?.to_owned(),
    })
}

fn read_time(
    reader: &mut ObjectReader<'_>,
    scope: &ReadScope<'_>,
) -> Result<ValueKind, SchemaError> {
    not_in_table(reader, scope)?;
    let format = reader
        .choice("format", &TimeFormat::NAMES)?
        .unwrap_or(TimeFormat::Rfc3339);
    let offset = reader.integer_in("offsetMillis", -MAX_STEP_MILLIS, MAX_STEP_MILLIS)?;
    Ok(ValueKind::Time {
        format,
        offset_millis: offset.unwrap_or(0),
    })
}

fn read_walk(
    reader: &mut ObjectReader<'_>,
    scope: &ReadScope<'_>,
) -> Result<ValueKind, SchemaError> {
    not_in_table(reader, scope)?;
    let known: Vec<_> = scope.walks.iter().map(String::as_str).collect();
    let walk = reader.required_position("walk", &known)?;
    let show = reader
        .choice("show", &TickPart::NAMES)?
        .unwrap_or(TickPart::Close);
    let offset = reader.number("offset")?.unwrap_or(0.0);
    Ok(ValueKind::Walk { walk, show, offset })
}

fn read_int(reader: &mut ObjectReader<'_>) -> Result<ValueKind, SchemaError> {
    let min = reader
        .integer_in("min", -MAX_INTEGER, MAX_INTEGER)?
        .unwrap_or(0);
    let max = reader.integer_in("max", min, MAX_INTEGER)?;
    let max = reader.require("max", max)?;
    let distribution = reader
        .choice("shape", &Distribution::NAMES)?
        .unwrap_or(Distribution::Uniform);
    Ok(ValueKind::Number {
        min,
        count: min.abs_diff(max) + 1,
        decimals: 0,
        distribution,
    })
}

fn read_float(reader: &mut ObjectReader<'_>) -> Result<ValueKind, SchemaError> {
    let decimals = read_decimals(reader)?;
    let min = reader.number("min")?.unwrap_or(0.0);
    let max = reader.number_in("max", min, reader::MAX_NUMBER)?;
    let (min, max) = (
        scale(min, decimals),
        scale(reader.require("max", max)?, decimals),
    );
    let distribution = reader
        .choice("shape", &Distribution::NAMES)?
        .unwrap_or(Distribution::Uniform);
    Ok(ValueKind::Number {
        min,
        count: min.abs_diff(max) + 1,
        decimals,
        distribution,
    })
}

pub(crate) fn read_decimals(reader: &mut ObjectReader<'_>) -> Result<u32, SchemaError> {
    Ok(reader.count_in("decimals", 0, MAX_DECIMALS)?.unwrap_or(2))
}

/// The number without its point: 143.2 with 2 decimals is 14320.
pub(crate) fn scale(value: f64, decimals: u32) -> i64 {
    (value * 10_f64.powi(decimals as i32)).round() as i64
}

fn read_lengths(
    reader: &mut ObjectReader<'_>,
    default: (u32, u32),
) -> Result<(u32, u32), SchemaError> {
    let min = reader.count_in("min", 0, MAX_ARRAY)?.unwrap_or(default.0);
    let max = reader
        .count_in("max", min, MAX_ARRAY)?
        .unwrap_or(default.1.max(min));
    Ok((min, max))
}

fn read_ipv4(reader: &mut ObjectReader<'_>) -> Result<ValueKind, SchemaError> {
    let range = reader.text("range")?.unwrap_or("10.0.0.0/8");
    let parsed = range.split_once('/').and_then(|(address, bits)| {
        let address: std::net::Ipv4Addr = address.parse().ok()?;
        let bits: u32 = bits.parse().ok().filter(|bits| *bits <= 32)?;
        Some((u32::from(address), 1_u64 << (32 - bits)))
    });
    let (address, hosts) = parsed.ok_or_else(|| {
        let problem = format!("{range:?} is not a range of addresses");
        reader.error("range", problem, "write it like 10.1.0.0/16")
    })?;
    let base = address - (u64::from(address) % hosts) as u32;
    Ok(ValueKind::Ipv4 { base, hosts })
}

fn read_column(
    reader: &mut ObjectReader<'_>,
    scope: &ReadScope<'_>,
) -> Result<ValueKind, SchemaError> {
    not_in_table(reader, scope)?;
    let known: Vec<_> = scope
        .tables
        .iter()
        .map(|table| table.name.as_str())
        .collect();
    let table = reader.required_position("table", &known)?;
    let known = scope.tables.get(table).map(|table| table.columns());
    let known = known.unwrap_or_default();
    let column = reader.required_position("column", &known)?;
    Ok(ValueKind::Column { table, column })
}

fn read_array(
    reader: &mut ObjectReader<'_>,
    scope: &mut ReadScope<'_>,
) -> Result<ValueKind, SchemaError> {
    not_in_table(reader, scope)?;
    let (min, max) = read_lengths(reader, (0, 4))?;
    let item = reader.member("item");
    let item = ObjectReader::of(&reader.path("item"), reader.require("item", item)?)?;
    let outer = std::mem::replace(&mut scope.in_array, true);
    let item = ValueKind::read(item, scope);
    scope.in_array = outer;
    let item = Box::new(item?);
    Ok(ValueKind::Array { item, min, max })
}

fn read_object(
    reader: &mut ObjectReader<'_>,
    scope: &mut ReadScope<'_>,
) -> Result<ValueKind, SchemaError> {
    let fields = reader.list("fields")?;
    let mut members: Vec<(String, ValueKind)> = Vec::new();
    for (n, field) in reader.require("fields", fields)?.iter().enumerate() {
        let mut member = ObjectReader::of(&reader.path(&format!("fields[{n}]")), field)?;
        let name = member.text("name")?;
        let name = member.require("name", name)?;
        let name = bounded_text(&member, "name", name)?.to_owned();
        if members.iter().any(|(known, _)| *known == name) {
            let problem = format!("{name:?} is there twice");
            return Err(member.error("name", problem, "give each field its own name"));
        }
        members.push((name, ValueKind::read(member, scope)?));
    }
    Ok(ValueKind::Object(members))
}

impl Cell {
    pub(crate) fn read(path: &str, tree: &JsonTree) -> Result<Self, SchemaError> {
        let (text, class) = match tree {
            JsonTree::Null => ("", TextClass::Null),
            JsonTree::Bool(true) => ("true", TextClass::Raw),
            JsonTree::Bool(false) => ("false", TextClass::Raw),
            JsonTree::Number(digits) => (digits.as_str(), TextClass::Raw),
            JsonTree::Text(text) => (text.as_str(), TextClass::Text),
            JsonTree::List(_) | JsonTree::Object(_) => {
                return Err(mismatch(path, tree, "a text, number, true, false or null"));
            }
        };
        if text.len() > MAX_TEXT_BYTES {
            let problem = format!("a text of {} bytes", text.len());
            return Err(SchemaError::at(
                path,
                problem,
                format!("use at most {MAX_TEXT_BYTES}"),
            ));
        }
        Ok(Self {
            text: text.into(),
            class,
        })
    }
}

impl WeightedChoice {
    fn read(reader: &mut ObjectReader<'_>) -> Result<Self, SchemaError> {
        let values = reader.list("values")?;
        let values = reader.require("values", values)?;
        if values.is_empty() || values.len() > MAX_CHOICES {
            let problem = format!("{} values", values.len());
            let remedy = format!("give 1 to {MAX_CHOICES}");
            return Err(reader.error("values", problem, &remedy));
        }
        let path = reader.path("values");
        let cells: Result<_, _> = values
            .iter()
            .map(|value| Cell::read(&path, value))
            .collect();
        let mut cumulative = Vec::new();
        if let Some(weights) = reader.list("weights")? {
            if weights.len() != values.len() {
                let problem = format!("{} weights for {} values", weights.len(), values.len());
                return Err(reader.error("weights", problem, "give one weight per value"));
            }
            let mut sum = 0;
            for (n, weight) in weights.iter().enumerate() {
                sum += read_weight(&reader.path(&format!("weights[{n}]")), weight)?;
                cumulative.push(sum);
            }
            if sum == 0 {
                let problem = "all weights are zero".to_owned();
                return Err(reader.error("weights", problem, "give at least one above zero"));
            }
        }
        Ok(Self {
            cells: cells?,
            cumulative,
        })
    }
}

/// A weight in millionths, which keeps sums whole.
fn read_weight(path: &str, tree: &JsonTree) -> Result<u64, SchemaError> {
    let value = reader::number(path, tree)?;
    if value < 0.0 {
        let problem = format!("{value} is negative");
        return Err(SchemaError::at(path, problem, "use zero or more"));
    }
    Ok((value * 1e6).round() as u64)
}

fn bounded_text<'a>(
    reader: &ObjectReader<'_>,
    key: &str,
    text: &'a str,
) -> Result<&'a str, SchemaError> {
    if text.len() > 256 {
        let problem = format!("a text of {} bytes", text.len());
        return Err(reader.error(key, problem, "use at most 256"));
    }
    Ok(text)
}

fn not_in_table(reader: &ObjectReader<'_>, scope: &ReadScope<'_>) -> Result<(), SchemaError> {
    if scope.in_table {
        let problem = "rows of a table are made once, so nothing in them can change".to_owned();
        return Err(reader.error("kind", problem, "move this field out of the table"));
    }
    Ok(())
}
