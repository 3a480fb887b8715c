//! The kinds of values that a field may have. `reading.rs` reads them from a schema, `template.rs` reads texts with the
//! values of other fields.

mod reading;
mod template;

use crate::clock::TimeFormat;
use crate::pools::NamePool;

pub(crate) use reading::{read_decimals, scale};

/// Longer texts are refused, so that no record grows beyond reason.
const MAX_TEXT_BYTES: usize = 16 << 10;

/// What a field holds.
#[derive(Debug, Clone)]
pub(crate) enum ValueKind {
    Sequence {
        start: i64,
        step: i64,
        width: usize,
        prefix: String,
    },
    Time {
        format: TimeFormat,
        offset_millis: i64,
    },
    /// A part of a tick of the random walk numbered `walk`.
    Walk {
        walk: usize,
        show: TickPart,
        offset: f64,
    },
    /// From `min` on, one of `count` numbers of `decimals` decimals, given without the point.
    Number {
        min: i64,
        count: u64,
        decimals: u32,
        distribution: Distribution,
    },
    Bool {
        ratio: f64,
    },
    Choice(WeightedChoice),
    Name(NamePool),
    Words {
        min: u32,
        max: u32,
    },
    Uuid,
    Hex {
        digits: usize,
    },
    Ipv4 {
        base: u32,
        hosts: u64,
    },
    Column {
        table: usize,
        column: usize,
    },
    Array {
        item: Box<ValueKind>,
        min: u32,
        max: u32,
    },
    /// Only inside an array; elsewhere an object's fields are fields of the record.
    Object(Vec<(String, ValueKind)>),
    Template(TextTemplate),
}

/// How numbers are distributed over their range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Distribution {
    Uniform,
    /// Mostly near the smallest, as sizes and durations are.
    Low,
    /// Mostly in the middle.
    Bell,
}

impl Distribution {
    const NAMES: [(&'static str, Self); 3] = [
        ("uniform", Self::Uniform),
        ("low", Self::Low),
        ("bell", Self::Bell),
    ];
}

/// Which part of a random walk's tick a field shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TickPart {
    Open,
    High,
    Low,
    Close,
    Change,
}

impl TickPart {
    const NAMES: [(&'static str, Self); 5] = [
        ("open", Self::Open),
        ("high", Self::High),
        ("low", Self::Low),
        ("close", Self::Close),
        ("change", Self::Change),
    ];
}

/// What class of text a value is, which decides how it is quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextClass {
    Null,
    /// Numbers, true and false, lists: JSON already.
    Raw,
    /// A text that needs no escape in any format.
    Plain,
    Text,
}

/// A constant value.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub(crate) text: Vec<u8>,
    pub(crate) class: TextClass,
}

/// One of several constants.
#[derive(Debug, Clone)]
pub(crate) struct WeightedChoice {
    pub(crate) cells: Vec<Cell>,
    /// Sum of the weights up to each one; empty if all weights are equal.
    pub(crate) cumulative: Vec<u64>,
}

/// A text with the values of other fields in it.
#[derive(Debug, Clone)]
pub(crate) struct TextTemplate(pub(crate) Vec<TemplatePart>);

#[derive(Debug, Clone)]
pub(crate) enum TemplatePart {
    Literal(Vec<u8>),
    /// The value of the field of this number.
    Field(usize),
}

/// A name that a kind may refer to, and the most bytes of its value.
#[derive(Debug, Clone)]
pub(crate) struct BoundedName {
    pub(crate) name: String,
    pub(crate) most_bytes: u64,
}

/// A table that a kind may refer to.
#[derive(Debug, Clone)]
pub(crate) struct TableNames {
    pub(crate) name: String,
    pub(crate) columns: Vec<BoundedName>,
}

impl TableNames {
    /// The columns' names.
    pub(crate) fn columns(&self) -> Vec<&str> {
        self.columns
            .iter()
            .map(|column| column.name.as_str())
            .collect()
    }
}

/// What a field may refer to.
#[derive(Default)]
pub(crate) struct ReadScope<'a> {
    tables: &'a [TableNames],
    walks: &'a [String],
    /// The fields before it, by their dotted paths.
    pub(crate) fields: Vec<BoundedName>,
    in_table: bool,
    in_array: bool,
}

impl<'a> ReadScope<'a> {
    pub(crate) fn new(tables: &'a [TableNames], walks: &'a [String]) -> Self {
        Self {
            tables,
            walks,
            ..Self::default()
        }
    }

    pub(crate) fn inside_table() -> Self {
        Self {
            in_table: true,
            ..Self::default()
        }
    }
}

impl ValueKind {
    /// Bytes of the longest value of this kind; bounds what a hostile schema can cost.
    pub(crate) fn most_bytes(&self, scope: &ReadScope<'_>) -> u64 {
        // In a list, a byte may become `\u00xx`, with quotes and a comma around the text.
        let in_json = |bytes: u64| bytes.saturating_mul(6).saturating_add(4);
        match self {
            Self::Sequence { width, prefix, .. } => (prefix.len() + width + 20) as u64,
            Self::Time { .. } | Self::Walk { .. } | Self::Number { .. } | Self::Bool { .. } => 40,
            Self::Choice(choice) => {
                let lengths = choice.cells.iter().map(|cell| cell.text.len());
                lengths.max().unwrap_or(0) as u64
            }
            Self::Name(_) => 256,
            Self::Words { max, .. } => 16 * u64::from(*max),
            Self::Uuid | Self::Ipv4 { .. } => 36,
            Self::Hex { digits } => *digits as u64,
            Self::Column { table, column } => {
                let columns = scope.tables.get(*table).map(|table| &table.columns);
                let column = columns.and_then(|columns| columns.get(*column));
                column.map_or(0, |column| column.most_bytes)
            }
            Self::Array { item, max, .. } => in_json(item.most_bytes(scope))
                .saturating_mul(u64::from(*max))
                .saturating_add(2),
            Self::Object(members) => members.iter().fold(2, |sum, (name, kind)| {
                let value = in_json(kind.most_bytes(scope));
                let member = value.saturating_add(in_json(name.len() as u64));
                member.saturating_add(sum)
            }),
            Self::Template(template) => template.0.iter().fold(0, |sum, part| {
                let bytes = match part {
                    TemplatePart::Literal(literal) => literal.len() as u64,
                    TemplatePart::Field(field) => {
                        scope.fields.get(*field).map_or(0, |field| field.most_bytes)
                    }
                };
                bytes.max(1).saturating_add(sum)
            }),
        }
    }
}
