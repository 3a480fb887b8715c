//! The types that all column codings share: the coding tags, an encoded column, and what encoder and
//! decoder know about the current column.

use super::references::ColumnRefs;
use crate::transform::choices::{Choice, ChoiceKey, Choices};
use crate::{
    Damage, Effort, FormatVersion,
    entropy::cost::{CostBasis, MeasuredSizes},
    transform::streams::RawStream,
};

/// The codings of a column. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Tag {
    /// No values.
    Empty = 0,
    /// All values are equal.
    Constant = 1,
    Text = 2,
    Dictionary = 3,
    Number = 4,
    Time = 5,
    Hex = 6,
    Classes = 7,
    Template = 8,
    Sorted = 9,
    Copied = 10,
    Ranked = 11,
    Sparse = 12,
    Mapped = 13,
    /// Text with lengths; only in version 2.
    LongText = 14,
    /// Only in version 2.
    Recalled = 15,
}

impl Tag {
    const ALL: [Self; 16] = [
        Self::Empty,
        Self::Constant,
        Self::Text,
        Self::Dictionary,
        Self::Number,
        Self::Time,
        Self::Hex,
        Self::Classes,
        Self::Template,
        Self::Sorted,
        Self::Copied,
        Self::Ranked,
        Self::Sparse,
        Self::Mapped,
        Self::LongText,
        Self::Recalled,
    ];

    /// The coding of a format byte.
    pub(crate) fn from_byte(byte: u8) -> Result<Self, Damage> {
        Self::ALL
            .into_iter()
            .find(|&tag| tag as u8 == byte)
            .ok_or_else(|| Damage::new(format!("unknown column coding {byte}")))
    }
}

/// An encoded column: its part of the plan, and its streams in the order in which decoding takes
/// them.
#[derive(Debug, Clone, Default)]
pub(crate) struct EncodedColumn {
    /// Tags and parameters.
    pub plan: Vec<u8>,
    /// The streams.
    pub streams: Vec<RawStream>,
    /// The choices that a search made.
    pub choices: Vec<(ChoiceKey, Choice)>,
}

impl EncodedColumn {
    /// A column with this coding, and no parameters or streams yet.
    pub(crate) fn of(tag: Tag) -> Self {
        Self {
            plan: vec![tag as u8],
            ..Self::default()
        }
    }

    /// Appends a nested column.
    pub(crate) fn append(&mut self, nested: Self) {
        self.plan.extend(nested.plan);
        self.streams.extend(nested.streams);
        self.choices.extend(nested.choices);
    }

    /// Gives the streams without a key the places in `key`.
    pub(crate) fn set_stream_keys(&mut self, key: ChoiceKey) {
        let own = self
            .streams
            .iter_mut()
            .filter(|stream| stream.key.is_none());
        for (position, stream) in own.enumerate() {
            stream.key = Some(key.child(position as u64));
        }
    }

    /// The coded size in bytes, unless it reaches `limit`: then the remaining streams are not measured.
    pub(crate) fn cost_below(&self, limit: usize, basis: CostBasis<'_>) -> Option<usize> {
        let below = |cost: usize| (cost < limit).then_some(cost);
        let plan = below(basis.of_plan(self.plan.len()))?;
        self.streams
            .iter()
            .try_fold(plan, |cost, stream| below(cost + stream.cost(basis)))
    }

    /// The coded size in bytes.
    pub(crate) fn cost(&self, basis: CostBasis<'_>) -> usize {
        let streams = self.streams.iter().map(|stream| stream.cost(basis));
        basis.of_plan(self.plan.len()) + streams.sum::<usize>()
    }
}

/// What the encoder knows about the current column.
#[derive(Debug, Clone)]
pub(crate) struct EncodeContext<'a> {
    /// How much is tried.
    pub effort: Effort,
    /// The version of the payload.
    pub version: FormatVersion,
    /// Columns that the decoder has before this one.
    pub refs: ColumnRefs<'a>,
    /// The codings around this column, outermost first.
    pub outer: Vec<Tag>,
    /// The place of this column.
    pub key: ChoiceKey,
    /// Choices that were made before.
    pub choices: &'a Choices<'a>,
    /// The sizes of streams of this block.
    pub measured: &'a MeasuredSizes,
}

impl<'a> EncodeContext<'a> {
    /// The context of a column of the table.
    pub(crate) fn new(
        effort: Effort,
        version: FormatVersion,
        refs: ColumnRefs<'a>,
        key: ChoiceKey,
        choices: &'a Choices<'a>,
        measured: &'a MeasuredSizes,
    ) -> Self {
        Self {
            effort,
            version,
            refs,
            outer: Vec::new(),
            key,
            choices,
            measured,
        }
    }

    /// The context of the column at `position` in the coding `tag`.
    pub(crate) fn inside(&self, tag: Tag, position: u64, refs: ColumnRefs<'a>) -> Self {
        let mut outer = self.outer.clone();
        outer.push(tag);
        Self {
            effort: self.effort,
            version: self.version,
            refs,
            outer,
            key: self.key.child(position),
            choices: self.choices,
            measured: self.measured,
        }
    }

    /// How sizes are estimated.
    pub(crate) fn cost_basis(&self) -> CostBasis<'a> {
        CostBasis {
            effort: self.effort,
            version: self.version,
            measured: self.measured,
        }
    }

    /// The choice at `position` in this column that was made before.
    pub(crate) fn choice(&self, position: u64) -> Option<&'a Choice> {
        self.choices.get(self.key.child(position))
    }
}

/// What the decoder knows about the current column, besides plan and streams.
#[derive(Debug, Clone)]
pub(crate) struct DecodeContext<'a> {
    /// The largest number of bytes in a column.
    pub limit: usize,
    /// Columns decoded before this one.
    pub refs: ColumnRefs<'a>,
    /// The number of codings around this column.
    pub depth: usize,
}

impl<'a> DecodeContext<'a> {
    /// The context of a nested column.
    pub(crate) fn inside(&self, refs: ColumnRefs<'a>) -> Self {
        Self {
            limit: self.limit,
            refs,
            depth: self.depth + 1,
        }
    }
}
