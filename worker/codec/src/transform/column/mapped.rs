//! A column that another column determines (a functional dependency): its value for each distinct
//! value of the key column, in order of first appearance, and the rows that differ.

use super::{
    context::{DecodeContext, EncodeContext, EncodedColumn, Tag},
    decode_rows, encode_rows, exceptions,
    references::ColumnRefs,
};
use crate::{
    Damage,
    bytes::{FieldReader, put_varint},
    transform::{streams::StreamSource, values::ColumnValues},
};

/// The number of rows in which the key column is searched.
const SAMPLE_ROWS: usize = 4096;
/// The number of nearest columns that are searched.
const NEAREST: usize = 32;
/// At most one in this many rows may differ.
const MIN_AGREEING: usize = 16;

/// The column with the fewest distinct values that determines nearly all rows of this one.
pub(super) fn best_ref(values: &ColumnValues, refs: &ColumnRefs<'_>) -> Option<u32> {
    let sampled = values.len().min(SAMPLE_ROWS);
    let rows: Vec<u32> = (0..sampled as u32).collect();
    let (ids, distinct) = values.select(&rows).ids();
    if distinct < 2 {
        return None;
    }
    let determines = |&key: &u32| {
        let keys = refs.distinct(key)?;
        if keys < 2 || keys * 2 > values.len() {
            return None;
        }
        let mut firsts = vec![u32::MAX; keys];
        let (mut repeats, mut wrong) = (0usize, 0usize);
        for (row, &id) in ids.iter().enumerate() {
            let first = firsts.get_mut(refs.id(key, row)? as usize)?;
            if *first == u32::MAX {
                *first = id;
                continue;
            }
            repeats += 1;
            wrong += usize::from(*first != id);
            if wrong * MIN_AGREEING > sampled {
                return None;
            }
        }
        (wrong * MIN_AGREEING < repeats).then_some((wrong * 4 + keys, key))
    };
    let nearest = refs.usable().iter().rev().take(NEAREST);
    nearest.filter_map(determines).min().map(|(_, key)| key)
}

/// Fits any column after its key.
pub(super) fn encode(
    values: &ColumnValues,
    key: u32,
    context: &EncodeContext<'_>,
) -> Option<EncodedColumn> {
    let (groups, firsts) = context.refs.groups(key, values.len());
    let mapped = |row: usize| values.get(firsts[groups[row] as usize] as usize);
    let rows: Vec<u32> = (0..values.len())
        .filter(|&row| values.get(row) != mapped(row))
        .map(|row| row as u32)
        .collect();
    let mut column = EncodedColumn::of(Tag::Mapped);
    put_varint(&mut column.plan, u64::from(key));
    exceptions::put(&rows, context, &mut column);
    for (position, rows) in [&firsts, &rows].into_iter().enumerate() {
        column.append(encode_rows(
            Tag::Mapped,
            position as u64,
            values,
            rows,
            context,
        ));
    }
    Some(column)
}

/// Reads `count` values.
pub(super) fn decode(
    count: usize,
    plan: &mut FieldReader<'_>,
    source: &mut StreamSource,
    context: &DecodeContext<'_>,
) -> Result<ColumnValues, Damage> {
    let key = plan.size(u32::MAX as usize, "a key column")? as u32;
    if !context.refs.has(key) {
        return Err(Damage::new(
            "a key that is not a column of as many rows before this one",
        ));
    }
    let rows = exceptions::read(count, plan, source)?;
    let (groups, firsts) = context.refs.groups(key, count);
    let mapped = decode_rows(&firsts, plan, source, context)?;
    let others = decode_rows(&rows, plan, source, context)?;
    let mapped = groups.iter().map(|&group| mapped.get(group as usize));
    exceptions::merge(mapped, &rows, &others, context.limit)
}
