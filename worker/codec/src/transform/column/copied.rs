//! A column that mostly equals another column of the same rows: a mark for each row, and the rows
//! that differ.

use super::{
    context::{DecodeContext, EncodeContext, EncodedColumn, Tag},
    decode_rows, encode_rows,
    references::ColumnRefs,
};
use crate::{
    Damage,
    bytes::{FieldReader, put_varint},
    transform::{
        streams::{Extent, RawStream, StreamKind, StreamSource},
        values::ColumnValues,
    },
};

/// A smaller share of equal rows does not repay the marks.
const MIN_SHARE: f64 = 0.3;
/// The number of rows in which the column is searched.
const SAMPLE_ROWS: usize = 512;

/// The value without JSON's quotes: with and without quotes count as equal.
fn bare(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}

/// The column that equals this one in most rows, if any.
pub(super) fn best_ref(values: &ColumnValues, refs: &ColumnRefs<'_>) -> Option<u32> {
    let step = values.len().div_ceil(SAMPLE_ROWS).max(1);
    let share = |from: u32| {
        let rows = (0..values.len()).step_by(step);
        let all = rows.len();
        rows.filter(|&row| bare(refs.value(from, row)) == bare(values.get(row)))
            .count() as f64
            / all as f64
    };
    refs.usable()
        .iter()
        .map(|&from| (share(from), from))
        .filter(|(share, _)| *share >= MIN_SHARE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, from)| from)
}

const OTHER: u8 = 0;
const SAME: u8 = 1;
const BARE: u8 = 2;
const QUOTED: u8 = 3;

fn mark(value: &[u8], from: &[u8]) -> u8 {
    if value == from {
        SAME
    } else if value == bare(from) {
        BARE
    } else if bare(value) == from {
        QUOTED
    } else {
        OTHER
    }
}

/// Fits any column.
pub(super) fn encode(
    values: &ColumnValues,
    from: u32,
    context: &EncodeContext<'_>,
) -> Option<EncodedColumn> {
    let marks: Vec<u8> = values
        .iter()
        .enumerate()
        .map(|(row, value)| mark(value, context.refs.value(from, row)))
        .collect();
    let rows: Vec<u32> = (0..values.len() as u32)
        .filter(|&row| marks[row as usize] == OTHER)
        .collect();
    let mut column = EncodedColumn::of(Tag::Copied);
    put_varint(&mut column.plan, u64::from(from));
    put_varint(&mut column.plan, rows.len() as u64);
    column
        .streams
        .push(RawStream::new("copy marks", StreamKind::Bytes, marks));
    column.append(encode_rows(Tag::Copied, 0, values, &rows, context));
    Some(column)
}

/// Reads `count` values.
pub(super) fn decode(
    count: usize,
    plan: &mut FieldReader<'_>,
    source: &mut StreamSource,
    context: &DecodeContext<'_>,
) -> Result<ColumnValues, Damage> {
    let from = plan.size(u32::MAX as usize, "a copied column")? as u32;
    let others = plan.size(count, "the values that are not copied")?;
    let marks = source.next("copy marks", StreamKind::Bytes, Extent::Bytes(count))?;
    let rows: Vec<u32> = (0..marks.len() as u32)
        .filter(|&row| marks[row as usize] == OTHER)
        .collect();
    if !context.refs.has(from) || marks.len() != count || rows.len() != others {
        return Err(Damage::new("copy marks do not fit their columns"));
    }
    let rest = decode_rows(&rows, plan, source, context)?;
    let mut used = 0;
    let mut values = ColumnValues::default();
    for (row, mark) in marks.into_iter().enumerate() {
        let copied = context.refs.value(from, row);
        match mark {
            OTHER => {
                values.push_bounded(rest.get(used), context.limit)?;
                used += 1;
            }
            SAME => values.push_bounded(copied, context.limit)?,
            BARE => values.push_bounded(bare(copied), context.limit)?,
            QUOTED => values.push_bounded(&[b"\"", copied, b"\""].concat(), context.limit)?,
            _ => return Err(Damage::new("an unknown copy mark")),
        }
    }
    Ok(values)
}
