//! The kinds of values a field may hold, and how they are read from a schema.

mod reading;
mod template;

use super::clock::TimeFormat;
use super::fields::{Leaf, Table};
use super::pools::Pool;
use super::walk::Show;
use super::walk::Walk;

pub(super) use reading::{position_of, read_decimals, scale};

/// Longer texts are refused, so that no record grows beyond reason.
const MAX_TEXT_BYTES: usize = 16 << 10;

/// What a field holds.
#[derive(Debug, Clone)]
pub(super) enum Kind {
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
    Walk {
        walk: usize,
        show: Show,
        offset: f64,
    },
    /// From `min` on, one of `count` numbers of `decimals` decimals, given without the point.
    Number {
        min: i64,
        count: u64,
        decimals: u32,
        shape: Shape,
    },
    Bool {
        ratio: f64,
    },
    Choice(Choice),
    Name(Pool),
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
        item: Box<Kind>,
        min: u32,
        max: u32,
    },
    /// Only inside an array; elsewhere objects are spread over their fields.
    Object(Vec<(String, Kind)>),
    Template(Template),
}

/// How numbers are spread over their range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Uniform,
    /// Mostly near the smallest, as sizes and durations are.
    Low,
    /// Mostly in the middle.
    Bell,
}

impl Shape {
    const NAMES: [(&'static str, Self); 3] = [
        ("uniform", Self::Uniform),
        ("low", Self::Low),
        ("bell", Self::Bell),
    ];
}

/// What kind of text a value is, which decides how it is quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Null,
    /// Numbers, true and false, lists: JSON as it stands.
    Raw,
    /// A text known to need no escape anywhere.
    Plain,
    Text,
}

/// A constant value.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    pub(super) text: Vec<u8>,
    pub(super) class: Class,
}

/// One of several constants.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    pub(super) cells: Vec<Cell>,
    /// Sum of the weights up to each one; empty when all weigh the same.
    pub(super) cumulative: Vec<u64>,
}

/// A text with the values of other fields in it.
#[derive(Debug, Clone)]
pub(super) struct Template(pub(super) Vec<Part>);

#[derive(Debug, Clone)]
pub(super) enum Part {
    Literal(Vec<u8>),
    Leaf(usize),
}

/// What a field may refer to.
pub(super) struct Scope<'a> {
    tables: &'a [Table],
    walks: &'a [Walk],
    /// The fields before it.
    pub(super) leaves: Vec<Leaf>,
    in_table: bool,
    in_array: bool,
}

impl<'a> Scope<'a> {
    pub(super) fn new(tables: &'a [Table], walks: &'a [Walk]) -> Self {
        Self {
            tables,
            walks,
            leaves: Vec::new(),
            in_table: false,
            in_array: false,
        }
    }

    pub(super) fn inside_table() -> Self {
        Self {
            in_table: true,
            ..Self::new(&[], &[])
        }
    }
}

impl Kind {
    /// Bytes the longest value of this kind may have; bounds what a hostile schema can ask for.
    pub(super) fn most_bytes(&self, scope: &Scope<'_>) -> u64 {
        // A byte may become `\u00xx` in a list, and has quotes and a comma around it there.
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
                let table = scope.tables.get(*table);
                table.map_or(0, |table| table.most_bytes(*column))
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
                    Part::Literal(literal) => literal.len() as u64,
                    Part::Leaf(leaf) => scope.leaves.get(*leaf).map_or(0, |leaf| leaf.most_bytes),
                };
                bytes.max(1).saturating_add(sum)
            }),
        }
    }
}
