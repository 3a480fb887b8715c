//! Few distinct values: each once, and an index for every row. With sorted entries an index takes one
//! or two bytes; ranked by frequency, indexes are integers, most of them small.

use std::collections::HashMap;

use super::{
    context::{DecodeContext, EncodeContext, EncodedColumn, Tag},
    decode as decode_column, encode as encode_column, number,
};
use crate::{
    Damage,
    bytes::{FieldReader, put_varint},
    hash::SeededState,
    transform::{
        streams::{Extent, RawStream, StreamKind, StreamSource},
        values::ColumnValues,
    },
};

/// An index takes at most two bytes.
const MAX_ENTRIES: usize = 1 << 16;

/// The order of the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryOrder {
    /// By their bytes.
    Sorted,
    /// By frequency, the most frequent first.
    Ranked,
}

/// Fits if values repeat.
pub(super) fn encode(
    values: &ColumnValues,
    order: EntryOrder,
    context: &EncodeContext<'_>,
) -> Option<EncodedColumn> {
    let mut index: HashMap<&[u8], u32, SeededState> = HashMap::default();
    let max = MAX_ENTRIES.min(values.len() * 3 / 4);
    for value in values.iter() {
        *index.entry(value).or_default() += 1;
        if index.len() > max {
            return None;
        }
    }
    let mut entries: Vec<&[u8]> = index.keys().copied().collect();
    match order {
        EntryOrder::Sorted => entries.sort_unstable(),
        EntryOrder::Ranked => {
            entries.sort_unstable_by(|a, b| index[b].cmp(&index[a]).then_with(|| a.cmp(b)));
        }
    }
    for (number, entry) in entries.iter().enumerate() {
        index.insert(entry, number as u32);
    }
    let indexes: Vec<u32> = values.iter().map(|value| index[value]).collect();
    let tag = match order {
        EntryOrder::Sorted => Tag::Dictionary,
        EntryOrder::Ranked => Tag::Ranked,
    };
    let mut column = EncodedColumn::of(tag);
    put_varint(&mut column.plan, entries.len() as u64);
    let entries: ColumnValues = entries.into_iter().collect();
    column.append(encode_column(
        &entries,
        &context.inside(Tag::Dictionary, 0, Default::default()),
    ));
    if order == EntryOrder::Ranked {
        let ranks: Vec<i64> = indexes.into_iter().map(i64::from).collect();
        number::put_integers(&ranks, context, &mut column);
        return Some(column);
    }
    let mut stream = |shift: u32| {
        column.streams.push(RawStream::new(
            "index",
            StreamKind::Bytes,
            indexes.iter().map(|index| (index >> shift) as u8).collect(),
        ));
    };
    if entries.len() > 256 {
        stream(8);
    }
    stream(0);
    Some(column)
}

/// Reads `count` values.
pub(super) fn decode(
    count: usize,
    order: EntryOrder,
    plan: &mut FieldReader<'_>,
    source: &mut StreamSource,
    context: &DecodeContext<'_>,
) -> Result<ColumnValues, Damage> {
    let entries = plan.size(MAX_ENTRIES, "a dictionary")?;
    let entries = decode_column(entries, plan, source, &context.inside(Default::default()))?;
    let indexes = match order {
        EntryOrder::Sorted => read_bytes(count, entries.len() > 256, source)?,
        EntryOrder::Ranked => number::read_integers(count, plan, source)?,
    };
    let mut values = ColumnValues::default();
    for index in indexes {
        let index = usize::try_from(index)
            .ok()
            .filter(|&index| index < entries.len())
            .ok_or_else(|| Damage::new("an index outside its dictionary"))?;
        values.push_bounded(entries.get(index), context.limit)?;
    }
    Ok(values)
}

fn read_bytes(count: usize, two: bool, source: &mut StreamSource) -> Result<Vec<i64>, Damage> {
    let high = if two {
        source.next("index", StreamKind::Bytes, Extent::Bytes(count))?
    } else {
        vec![0; count]
    };
    let low = source.next("index", StreamKind::Bytes, Extent::Bytes(count))?;
    if high.len() != count || low.len() != count {
        return Err(Damage::new(
            "a dictionary's indexes are not as many as its values",
        ));
    }
    let both = high.into_iter().zip(low);
    Ok(both
        .map(|(high, low)| i64::from(high) << 8 | i64::from(low))
        .collect())
}
