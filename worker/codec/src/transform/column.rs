//! One column: the best of several exactly reversible ways to write its values as streams.
//!
//! Ways nest: a column of dates with gaps is split into classes, of which one is times. Each way is
//! a file beside this one. A way that does not fit a column answers `None` and another is taken;
//! [`text`] always fits. Which way is best is found on a sample, by measuring (see
//! [`RawStream::cost`]).

mod classes;
mod copied;
mod decimal;
mod dictionary;
mod exceptions;
mod mapped;
mod mostly;
mod number;
mod refs;
mod sorted;
mod template;
mod text;
mod time;
mod uuid;

use rayon::prelude::*;
pub use refs::Refs;

use super::{
    streams::{RawStream, Source},
    values::Values,
};
use crate::{
    Damage,
    bytes::{Reader, put_varint},
    hybrid::Effort,
};

/// A coded column: what to do, and the streams to do it with, in the order of their use.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// Tags and parameters.
    pub plan: Vec<u8>,
    /// Streams, in the order in which decoding takes them.
    pub streams: Vec<RawStream>,
}

impl Node {
    fn of(tag: Tag) -> Self {
        Self {
            plan: vec![tag as u8],
            streams: Vec::new(),
        }
    }

    fn append(&mut self, other: Self) {
        self.plan.extend(other.plan);
        self.streams.extend(other.streams);
    }

    fn cost(&self, effort: Effort) -> usize {
        self.plan.len()
            + self
                .streams
                .iter()
                .map(|stream| stream.cost(effort))
                .sum::<usize>()
    }
}

/// The ways to write a column. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Tag {
    /// No value at all.
    Empty = 0,
    /// All values are the same.
    Constant = 1,
    Text = 2,
    Dictionary = 3,
    Number = 4,
    Time = 5,
    Uuid = 6,
    Classes = 7,
    Template = 8,
    Sorted = 9,
    Copied = 10,
    Ranked = 11,
    Mostly = 12,
    Mapped = 13,
}

impl Tag {
    fn from_byte(byte: u8) -> Result<Self, Damage> {
        [
            Self::Empty,
            Self::Constant,
            Self::Text,
            Self::Dictionary,
            Self::Number,
            Self::Time,
            Self::Uuid,
            Self::Classes,
            Self::Template,
            Self::Sorted,
            Self::Copied,
            Self::Ranked,
            Self::Mostly,
            Self::Mapped,
        ]
        .into_iter()
        .find(|&tag| tag as u8 == byte)
        .ok_or_else(|| Damage::new(format!("unknown column coding {byte}")))
    }
}

/// What may be tried inside the column at hand.
#[derive(Debug, Clone)]
pub struct Scope<'a> {
    /// How much is tried.
    pub effort: Effort,
    /// Columns that the decoder knows before this one.
    pub refs: Refs<'a>,
    /// Ways that do not nest in themselves.
    taken: Vec<Tag>,
}

impl<'a> Scope<'a> {
    /// The scope of a column of a table.
    pub fn new(effort: Effort, refs: Refs<'a>) -> Self {
        Self {
            effort,
            refs,
            taken: Vec::new(),
        }
    }

    fn inside(&self, tag: Tag, refs: Refs<'a>) -> Self {
        let mut taken = self.taken.clone();
        taken.push(tag);
        Self {
            effort: self.effort,
            refs,
            taken,
        }
    }

    /// Writes some rows of the column at hand as a column of their own, within the way `tag`.
    fn rows(&self, tag: Tag, values: &Values, rows: &[u32]) -> Node {
        encode(
            &values.select(rows),
            &self.inside(tag, self.refs.select(rows)),
        )
    }
}

/// Fewer values need no list of exceptions.
const LEAST_MOSTLY: usize = 64;
/// How deep ways may nest.
const DEPTH_LIMIT: usize = 6;
/// The longest constant value that goes into the plan.
const CONSTANT_LIMIT: usize = 4096;

/// Bytes of values that ways are compared on.
fn sample_bytes(effort: Effort) -> usize {
    match effort {
        Effort::Fast => 8 << 10,
        Effort::Balanced => 24 << 10,
        Effort::Max => 160 << 10,
    }
}

/// Writes a column in the best way found.
pub fn encode(values: &Values, scope: &Scope<'_>) -> Node {
    if values.is_empty() {
        return Node::of(Tag::Empty);
    }
    let first = values.get(0);
    if first.len() <= CONSTANT_LIMIT && values.iter().all(|value| value == first) {
        let mut node = Node::of(Tag::Constant);
        put_varint(&mut node.plan, first.len() as u64);
        node.plan.extend_from_slice(first);
        return node;
    }
    let ways = ways(values, scope);
    if ways.len() == 1 {
        return encode_as(&ways[0], values, scope).unwrap_or_else(|| text::encode(values));
    }
    let sample = sample_rows(values, scope.effort);
    let whole = sample.len() == values.len();
    let (part, part_scope);
    let (tried_values, tried_scope) = if whole {
        (values, scope)
    } else {
        part = values.select(&sample);
        part_scope = Scope {
            refs: scope.refs.select(&sample),
            ..scope.clone()
        };
        (&part, &part_scope)
    };
    let mut tried: Vec<(usize, usize, Node)> = ways
        .par_iter()
        .enumerate()
        .filter_map(|(number, way)| {
            let node = encode_as(way, tried_values, tried_scope)?;
            Some((node.cost(scope.effort), number, node))
        })
        .collect();
    tried.sort_by_key(|&(cost, number, _)| (cost, number));
    if whole {
        return tried
            .into_iter()
            .next()
            .map_or_else(|| text::encode(values), |(_, _, node)| node);
    }
    tried
        .into_iter()
        .find_map(|(_, number, _)| encode_as(&ways[number], values, scope))
        .unwrap_or_else(|| text::encode(values))
}

/// The pieces that a sample has: one alone may miss what changes seldom.
const PIECES: usize = 3;

/// Rows from several places, as many as hold a sample's bytes. All of them, if those are all alike.
fn sample_rows(values: &Values, effort: Effort) -> Vec<u32> {
    let wanted = sample_bytes(effort);
    let all = values.byte_len() + values.len();
    if all <= wanted {
        return (0..values.len() as u32).collect();
    }
    let count = (wanted * values.len() / all / PIECES).max(1);
    let gap = (values.len() - count * PIECES) / (PIECES + 1);
    let rows: Vec<u32> = (0..PIECES)
        .flat_map(|piece| {
            let start = gap + piece * (gap + count);
            start as u32..(start + count) as u32
        })
        .collect();
    let first = values.get(rows[0] as usize);
    if rows.iter().all(|&row| values.get(row as usize) == first) {
        return (0..values.len() as u32).collect();
    }
    rows
}

/// A way with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    Text,
    Dictionary,
    Ranked,
    Mostly,
    Number,
    Time,
    Uuid,
    Classes,
    Template(template::Cut),
    Sorted(Vec<u32>),
    Copied(u32),
    Mapped(u32),
}

fn ways(values: &Values, scope: &Scope<'_>) -> Vec<Way> {
    let mut ways = vec![Way::Text];
    let free = |tag| !scope.taken.contains(&tag);
    if values.len() < 4 || scope.taken.len() + 1 >= DEPTH_LIMIT {
        return ways;
    }
    if free(Tag::Dictionary) {
        ways.push(Way::Dictionary);
        if scope.effort != Effort::Fast {
            ways.push(Way::Ranked);
        }
    }
    if free(Tag::Mostly) && values.len() >= LEAST_MOSTLY && mostly::fits(values) {
        ways.push(Way::Mostly);
    }
    if uuid::fits(values) {
        // Dictionaries stay: few numbers may come again and again.
        ways.push(Way::Uuid);
        return ways;
    }
    ways.push(Way::Number);
    if time::fits(values) {
        ways.push(Way::Time);
    }
    if free(Tag::Classes) && classes::fits(values) {
        ways.push(Way::Classes);
    }
    let around = scope
        .taken
        .iter()
        .filter(|tag| **tag == Tag::Template)
        .count();
    let reordered = [Tag::Sorted, Tag::Copied, Tag::Mapped]
        .iter()
        .any(|tag| !free(*tag));
    if around < 2 && !reordered && template::fits(values) {
        ways.extend(
            template::cuts(around, scope.effort)
                .iter()
                .map(|&cut| Way::Template(cut)),
        );
    }
    if scope.effort != Effort::Fast {
        if scope.taken.is_empty() {
            ways.extend(copied::best_ref(values, &scope.refs).map(Way::Copied));
            ways.extend(mapped::best_ref(values, &scope.refs).map(Way::Mapped));
        }
        if !reordered && around == 0 && scope.taken.len() <= 1 {
            let mut orders = sorted::best_refs(values, scope);
            if let Some(key) = number::best_key(values, scope) {
                orders.retain(|keys| *keys != [key]);
                orders.push(vec![key]);
            }
            ways.extend(orders.into_iter().map(Way::Sorted));
        }
    }
    ways
}

fn encode_as(way: &Way, values: &Values, scope: &Scope<'_>) -> Option<Node> {
    match way {
        Way::Text => Some(text::encode(values)),
        Way::Dictionary => dictionary::encode(values, dictionary::Order::Sorted, scope),
        Way::Ranked => dictionary::encode(values, dictionary::Order::Ranked, scope),
        Way::Mostly => mostly::encode(values, scope),
        Way::Number => number::encode(values, scope),
        Way::Time => time::encode(values, scope),
        Way::Uuid => uuid::encode(values, scope.effort),
        Way::Classes => classes::encode(values, scope),
        Way::Template(cut) => template::encode(values, *cut, scope),
        Way::Sorted(refs) => sorted::encode(values, refs, scope),
        Way::Copied(from) => copied::encode(values, *from, scope),
        Way::Mapped(key) => mapped::encode(values, *key, scope),
    }
}

/// What a decoder needs besides plan and streams.
#[derive(Debug, Clone)]
pub struct Known<'a> {
    /// The most bytes that a column may hold: the block's length.
    pub limit: usize,
    /// Columns decoded before.
    pub refs: Refs<'a>,
    /// Ways around this one.
    pub depth: usize,
}

impl<'a> Known<'a> {
    fn inside(&self, refs: Refs<'a>) -> Self {
        Self {
            limit: self.limit,
            refs,
            depth: self.depth + 1,
        }
    }

    /// Reads what [`Scope::rows`] wrote.
    fn rows(
        &self,
        rows: &[u32],
        plan: &mut Reader<'_>,
        source: &mut Source,
    ) -> Result<Values, Damage> {
        decode(
            rows.len(),
            plan,
            source,
            &self.inside(self.refs.select(rows)),
        )
    }
}

/// Reads a column of `count` values back.
pub fn decode(
    count: usize,
    plan: &mut Reader<'_>,
    source: &mut Source,
    known: &Known<'_>,
) -> Result<Values, Damage> {
    if known.depth > DEPTH_LIMIT {
        return Err(Damage::new("columns are nested too deep"));
    }
    if count > known.limit + 1 {
        return Err(Damage::new(
            "a column has more values than its block has bytes",
        ));
    }
    match Tag::from_byte(plan.byte()?)? {
        Tag::Empty if count == 0 => Ok(Values::default()),
        Tag::Empty => Err(Damage::new("an empty column that should hold values")),
        Tag::Constant => {
            let len = plan.size(CONSTANT_LIMIT, "a constant")?;
            let value = plan.take(len)?;
            if len.saturating_mul(count) > known.limit {
                return Err(Damage::new("a column holds more bytes than its block"));
            }
            Ok(std::iter::repeat_n(value, count).collect())
        }
        Tag::Text => text::decode(count, source, known),
        Tag::Dictionary => {
            dictionary::decode(count, dictionary::Order::Sorted, plan, source, known)
        }
        Tag::Ranked => dictionary::decode(count, dictionary::Order::Ranked, plan, source, known),
        Tag::Mostly => mostly::decode(count, plan, source, known),
        Tag::Number => number::decode(count, plan, source, known),
        Tag::Time => time::decode(count, plan, source, known),
        Tag::Uuid => uuid::decode(count, plan, source, known),
        Tag::Classes => classes::decode(count, plan, source, known),
        Tag::Template => template::decode(count, plan, source, known),
        Tag::Sorted => sorted::decode(count, plan, source, known),
        Tag::Copied => copied::decode(count, plan, source, known),
        Tag::Mapped => mapped::decode(count, plan, source, known),
    }
}
