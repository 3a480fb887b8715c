//! A column with one value in most rows: the gaps between the exceptions, and the exceptions.

use std::collections::HashMap;

use super::{
    CONSTANT_LIMIT,
    context::{DecodeContext, EncodeContext, EncodedColumn, Tag},
    decode_rows, encode_rows, exceptions,
};
use crate::{
    Damage,
    bytes::{FieldReader, put_varint},
    hash::SeededState,
    transform::{streams::StreamSource, values::ColumnValues},
};

/// The smallest share of the most frequent value: 3 of 4 rows.
const MIN_SHARE: (usize, usize) = (3, 4);

/// The most frequent value, if its share is large enough.
fn default_value(values: &ColumnValues) -> Option<&[u8]> {
    let mut counts: HashMap<&[u8], usize, SeededState> = HashMap::default();
    for value in values.iter() {
        *counts.entry(value).or_default() += 1;
    }
    let (value, count) = counts
        .into_iter()
        .max_by_key(|&(value, count)| (count, value))?;
    let enough = count * MIN_SHARE.1 >= values.len() * MIN_SHARE.0;
    (enough && value.len() <= CONSTANT_LIMIT).then_some(value)
}

/// Whether a sample of the values has a frequent value.
pub(super) fn fits(values: &ColumnValues) -> bool {
    let step = values.len().div_ceil(64).max(1);
    let rows: Vec<u32> = (0..values.len() as u32).step_by(step).collect();
    default_value(&values.select(&rows)).is_some()
}

/// Fits if one value has most rows.
pub(super) fn encode(values: &ColumnValues, context: &EncodeContext<'_>) -> Option<EncodedColumn> {
    let default = default_value(values)?;
    let rows: Vec<u32> = (0..values.len() as u32)
        .filter(|&row| values.get(row as usize) != default)
        .collect();
    let mut column = EncodedColumn::of(Tag::Sparse);
    put_varint(&mut column.plan, default.len() as u64);
    column.plan.extend_from_slice(default);
    exceptions::put(&rows, context, &mut column);
    column.append(encode_rows(Tag::Sparse, 0, values, &rows, context));
    Some(column)
}

/// Reads `count` values.
pub(super) fn decode(
    count: usize,
    plan: &mut FieldReader<'_>,
    source: &mut StreamSource,
    context: &DecodeContext<'_>,
) -> Result<ColumnValues, Damage> {
    let len = plan.size(CONSTANT_LIMIT, "a default value")?;
    let default = plan.take(len)?;
    let rows = exceptions::read(count, plan, source)?;
    let others = decode_rows(&rows, plan, source, context)?;
    exceptions::merge((0..count).map(|_| default), &rows, &others, context.limit)
}
