//! Plans: what a search found for the blocks of a schema, so that further blocks need no search.

use std::{collections::HashMap, ops::RangeInclusive, sync::Arc};

use super::{
    TableLayout,
    choices::{ChoiceKey, Choices, read_flag, read_u64},
    csv::RowLayout,
};
use crate::{
    Damage, Effort, FormatVersion, Transform,
    bytes::{FieldReader, put_varint},
    entropy::Coder,
    hash::IdentityState,
};

/// The plan of the blocks of one schema that are about equally long: codings that suit thousands of rows do not suit a few, and
/// tell nothing about their size.
#[derive(Debug, Clone, Default)]
pub(crate) struct SchemaPlan {
    /// Of the first of its blocks.
    pub(crate) len: BlockLen,
    /// Of the search that found it.
    pub(crate) effort: Effort,
    /// A table fitted all of one of its blocks. If not, the blocks were faulty or have another form than one that is a table.
    pub(crate) is_table: bool,
    /// One of its blocks had no byte 0, which rules out templates.
    pub(crate) is_text: bool,
    /// Hashes of features of the schema, sorted.
    pub(crate) sketch: Vec<u64>,
    /// The choices by place.
    pub(crate) choices: Choices<'static>,
    /// The sizes of columns by key, when they were searched.
    pub(crate) columns: HashMap<u64, ColumnStats, IdentityState>,
    /// The version that it is for: one has codings that the other lacks, and other sizes.
    pub(crate) version: FormatVersion,
    /// The smallest representation of the block.
    pub(crate) representation: Representation,
    /// Packed bytes of 2^16 raw bytes.
    pub(crate) ratio: u64,
    /// When it is compared with a search again.
    pub(crate) check: PlanCheck,
}

/// The number of a file among those that share a store of plans, from 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileNumber(pub(crate) u64);

impl FileNumber {
    /// The column of the file's first block that is searched again, if it is the turn of one. The caller takes it modulo the number of
    /// columns.
    pub(crate) fn refreshed_column(self) -> Option<usize> {
        /// One column of one file in this many.
        const REFRESH_INTERVAL: u64 = 16;
        self.0
            .is_multiple_of(REFRESH_INTERVAL)
            .then_some((self.0 / REFRESH_INTERVAL) as usize)
    }
}

/// When a plan of a store is compared with a whole search: the file that taught it may have been unlike all others. A plan file does
/// not have it, so that a plan that was read is compared with the first file that it is used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PlanCheck {
    /// The number of the file at which it is due.
    due: u64,
    /// The number of files from the last one.
    interval: u64,
}

impl PlanCheck {
    /// Each interval is so many times longer than the one before: thousands of files are searched a few times.
    const GROWTH: u64 = 8;

    pub(crate) fn is_due(self, file: FileNumber) -> bool {
        file.0 >= self.due
    }

    /// The one that follows a search of `file`.
    pub(crate) fn after(self, file: FileNumber) -> Self {
        let interval = self.interval.saturating_mul(Self::GROWTH).max(1);
        Self {
            due: file.0.saturating_add(interval),
            interval,
        }
    }
}

/// The length of a block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BlockLen(pub(crate) u64);

impl BlockLen {
    /// The longer of two that are about equal is at most so many times as long.
    const SPREAD: u64 = 2;

    fn is_about(self, other: Self) -> bool {
        self.0.max(other.0) / Self::SPREAD <= self.0.min(other.0)
    }

    /// The lengths that are about equal.
    pub(crate) fn about(self) -> RangeInclusive<u64> {
        self.0.div_ceil(Self::SPREAD)..=self.0.saturating_mul(Self::SPREAD)
    }
}

/// The smallest representation of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Representation {
    /// A table.
    Table(TableLayout),
    /// The bytes without a transform.
    Plain(Coder),
}

impl Representation {
    /// The transform of the block.
    pub(crate) fn transform(self) -> Transform {
        match self {
            Self::Table(layout) => layout.transform(),
            Self::Plain(_) => Transform::None,
        }
    }
}

impl Default for Representation {
    fn default() -> Self {
        Self::Table(TableLayout::Lines)
    }
}

/// The size of a column at its last search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ColumnStats {
    /// Packed bytes of 2^16 values.
    pub(crate) packed: u64,
    /// The sampled entropy of the values.
    pub(crate) entropy: u64,
    /// What another column could save of each value, in 1/256 of a bit.
    pub(crate) related: u64,
    /// All values were numbers, times or identifiers.
    pub(crate) is_typed: bool,
}

impl ColumnStats {
    /// The statistics of `count` values in `packed` bytes.
    pub(crate) fn new(packed: u64, count: usize, entropy: u64) -> Self {
        Self {
            packed: (packed << 16) / (count.max(1) as u64),
            entropy,
            related: 0,
            is_typed: false,
        }
    }

    /// The packed bytes that `count` values should take.
    pub(crate) fn expected(self, count: usize) -> u64 {
        (self.packed.saturating_mul(count as u64)) >> 16
    }

    /// The packed bytes that `count` values of this sampled entropy should take, if a coding follows their entropy.
    pub(crate) fn expected_of_entropy(self, count: usize, entropy: u64) -> u64 {
        // Below a quarter of a bit a sample tells little.
        const LEAST: u64 = 64;
        let (now, then) = (
            entropy.saturating_add(LEAST),
            self.entropy.saturating_add(LEAST),
        );
        let share = u128::from(self.expected(count)) * u128::from(now) / u128::from(then);
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

/// A plan with this many features gets no further ones.
const MAX_FEATURES: usize = 4096;
/// A block has drifted if it is larger than planned by more than this share and these bytes.
const RATIO_SHARE: u64 = 12;
/// It has, too, if it is smaller than planned by more than this share of its own size and [`RATIO_BYTES`]: then what the plan was made
/// for was unlike it.
const SMALLER_SHARE: u64 = 2;
const RATIO_BYTES: u64 = 64;
/// A block that is larger than planned by more than this share and [`RATIO_BYTES`], and has columns that drifted, is searched anew:
/// another layout may be smaller.
const CLOSE_SHARE: u64 = 24;
/// The similarity of sketches below which a schema is another one.
const MIN_SIMILARITY: (usize, usize) = (2, 5);

impl SchemaPlan {
    /// Sets the representation that was smallest for a block.
    pub(crate) fn set_representation(
        &mut self,
        representation: Representation,
        packed: usize,
        raw: usize,
    ) {
        self.representation = representation;
        self.ratio = ((packed as u64) << 16) / (raw.max(1) as u64);
    }

    /// Whether `packed` bytes for `raw` bytes are about as many as planned.
    pub(crate) fn is_as_planned(&self, packed: usize, raw: usize) -> bool {
        let most = packed as u64 + packed as u64 / SMALLER_SHARE + RATIO_BYTES;
        self.is_within(RATIO_SHARE, packed, raw) && self.expected(raw) <= most
    }

    /// Whether `packed` bytes for `raw` bytes are so few that no search can find much less.
    pub(crate) fn is_close(&self, packed: usize, raw: usize) -> bool {
        self.is_within(CLOSE_SHARE, packed, raw)
    }

    /// The packed bytes that `raw` bytes should take.
    fn expected(&self, raw: usize) -> u64 {
        self.ratio.saturating_mul(raw as u64) >> 16
    }

    fn is_within(&self, share: u64, packed: usize, raw: usize) -> bool {
        let expected = self.expected(raw);
        packed as u64 <= expected + expected / share + RATIO_BYTES
    }

    /// Adds what a further block of the schema learned.
    pub(crate) fn merge(&mut self, learned: &SchemaPlan) {
        self.add_features(&learned.sketch);
        self.choices.extend(learned.choices.iter());
        self.columns.extend(&learned.columns);
        self.take_representation(learned);
        self.is_table |= learned.is_table;
        self.is_text |= learned.is_text;
        if learned.check.due > self.check.due {
            self.check = learned.check;
        }
    }

    /// Takes the representation of `other`, with its size.
    pub(crate) fn take_representation(&mut self, other: &SchemaPlan) {
        (self.representation, self.ratio) = (other.representation, other.ratio);
    }

    /// Whether blocks of this effort and version may be packed by it: what a search with less effort found is not as small.
    pub(crate) fn is_for(&self, effort: Effort, version: FormatVersion) -> bool {
        self.effort >= effort && self.version == version
    }

    /// Whether a block that is a table, or is none, and has a byte 0, or has none, may be packed by it.
    pub(crate) fn is_for_form(&self, is_table: bool, is_text: bool) -> bool {
        (self.is_table || !is_table) && (self.is_text || !is_text)
    }

    /// Adds the features of a further block.
    fn add_features(&mut self, sketch: &[u64]) {
        let known = self.sketch.len();
        for feature in sketch {
            if known < MAX_FEATURES && self.sketch[..known].binary_search(feature).is_err() {
                self.sketch.push(*feature);
            }
        }
        self.sketch.sort_unstable();
    }

    /// The memory of the plan in bytes, roughly.
    pub(crate) fn memory(&self) -> usize {
        self.choices.len() * 80 + self.columns.len() * 40 + self.sketch.len() * 8
    }

    /// The number of equal and of all features of two sketches.
    fn similarity(&self, sketch: &[u64]) -> (usize, usize) {
        let (mut ours, mut theirs) = (self.sketch.iter().peekable(), sketch.iter().peekable());
        let (mut equal, mut all) = (0, 0);
        while let (Some(a), Some(b)) = (ours.peek(), theirs.peek()) {
            let order = a.cmp(b);
            equal += usize::from(order.is_eq());
            all += 1;
            if order.is_le() {
                ours.next();
            }
            if order.is_ge() {
                theirs.next();
            }
        }
        (equal, all + ours.count() + theirs.count())
    }

    /// Appends the plan.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.len.0);
        out.push(self.effort.number());
        out.extend([u8::from(self.is_table), u8::from(self.is_text)]);
        out.push(self.version.number());
        match self.representation {
            Representation::Table(TableLayout::Json) => out.push(0),
            Representation::Table(TableLayout::Rows(layout)) => {
                out.extend([1, layout.delimiter]);
                put_varint(out, layout.max_fields.into());
            }
            Representation::Table(TableLayout::Lines) => out.push(2),
            Representation::Plain(coder) => {
                out.push(3);
                out.extend(coder.to_bytes());
            }
        }
        put_varint(out, self.ratio);
        put_varint(out, self.sketch.len() as u64);
        self.sketch
            .iter()
            .for_each(|feature| out.extend(feature.to_le_bytes()));
        self.choices.put(out);
        let mut columns: Vec<_> = self.columns.iter().collect();
        columns.sort_unstable_by_key(|(key, _)| **key);
        put_varint(out, columns.len() as u64);
        for (key, stats) in columns {
            out.extend(key.to_le_bytes());
            put_varint(out, stats.packed);
            put_varint(out, stats.entropy);
            put_varint(out, stats.related);
            out.push(u8::from(stats.is_typed));
        }
    }

    /// Reads what [`Self::put`] wrote.
    pub(crate) fn read(fields: &mut FieldReader<'_>) -> Result<Self, Damage> {
        let len = BlockLen(fields.varint()?);
        let effort = usize::from(fields.byte()?);
        let effort = *Effort::ALL
            .get(effort)
            .ok_or_else(|| Damage::new("an unknown effort"))?;
        let (is_table, is_text) = (read_flag(fields)?, read_flag(fields)?);
        let version = FormatVersion::try_from(fields.byte()?).map_err(Damage::new)?;
        let representation = match fields.byte()? {
            0 => Representation::Table(TableLayout::Json),
            1 => Representation::Table(TableLayout::Rows(RowLayout {
                delimiter: fields.byte()?,
                max_fields: fields.size(u16::MAX.into(), "the number of fields")? as u16,
            })),
            2 => Representation::Table(TableLayout::Lines),
            3 => Representation::Plain(
                Coder::from_bytes([fields.byte()?, fields.byte()?])
                    .ok_or_else(|| Damage::new("an unknown coder"))?,
            ),
            _ => return Err(Damage::new("an unknown representation")),
        };
        let ratio = fields.varint()?;
        let features = fields.size(fields.remaining() / 8, "the number of features")?;
        let sketch = (0..features)
            .map(|_| read_u64(fields))
            .collect::<Result<_, _>>()?;
        let choices = Choices::read(fields)?;
        let mut columns = HashMap::default();
        for _ in 0..fields.size(fields.remaining() / 12, "the number of columns")? {
            let key = read_u64(fields)?;
            let stats = ColumnStats {
                packed: fields.varint()?,
                entropy: fields.varint()?,
                related: fields.varint()?,
                is_typed: read_flag(fields)?,
            };
            columns.insert(key, stats);
        }
        Ok(Self {
            len,
            effort,
            is_table,
            is_text,
            version,
            sketch,
            choices,
            columns,
            representation,
            ratio,
            check: PlanCheck::default(),
        })
    }
}

/// The plan among `plans` whose schema is most similar, of blocks about as long. Blocks without a structure have no schema in common:
/// none fits.
pub(crate) fn most_similar<'p>(
    plans: impl Iterator<Item = &'p Arc<SchemaPlan>>,
    len: BlockLen,
    sketch: &[u64],
) -> Option<&'p Arc<SchemaPlan>> {
    plans
        .filter(|plan| plan.len.is_about(len))
        .enumerate()
        .map(|(index, plan)| (plan.similarity(sketch), index, plan))
        .filter(|((equal, all), ..)| *all > 0 && equal * MIN_SIMILARITY.1 >= all * MIN_SIMILARITY.0)
        // The first one of equals.
        .max_by(|((a, of_a), i, _), ((b, of_b), j, _)| (a * of_b).cmp(&(b * of_a)).then(j.cmp(i)))
        .map(|(_, _, plan)| plan)
}

/// How a plan was used for a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlanUse {
    /// Columns that were encoded by the choices of a plan.
    pub planned_columns: u32,
    /// Columns that were searched because the plan had no choice.
    pub searched_columns: u32,
    /// Columns that were searched because their size differed from the plan.
    pub drifted_columns: u32,
}

impl PlanUse {
    /// Adds the figures of another block.
    pub(crate) fn add(&mut self, other: Self) {
        self.planned_columns += other.planned_columns;
        self.searched_columns += other.searched_columns;
        self.drifted_columns += other.drifted_columns;
    }
}

/// The place of the choices of a column of the table.
pub(crate) fn column_place(key: u64) -> ChoiceKey {
    ChoiceKey(0x5350).child(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_of_a_store_is_checked_ever_more_seldom() {
        let mut check = PlanCheck::default().after(FileNumber(1));
        let mut checked = Vec::new();
        for file in (2..5000).map(FileNumber) {
            if check.is_due(file) {
                checked.push(file.0);
                check = check.after(file);
            }
        }
        assert_eq!(checked, [2, 10, 74, 586, 4682]);
    }

    #[test]
    fn a_block_that_is_much_smaller_than_planned_is_not_as_planned() {
        let plan = SchemaPlan {
            ratio: 1 << 15,
            ..SchemaPlan::default()
        };
        assert!(plan.is_as_planned(50_000, 100_000));
        assert!(plan.is_as_planned(35_000, 100_000));
        assert!(!plan.is_as_planned(30_000, 100_000));
        assert!(!plan.is_as_planned(60_000, 100_000));
    }
}
