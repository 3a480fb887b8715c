//! The rows of a column that differ from a rule: the gaps between them, and their merge with the rest.

use super::{
    context::{EncodeContext, EncodedColumn},
    number,
};
use crate::{
    Damage,
    bytes::{FieldReader, put_varint},
    transform::{streams::StreamSource, values::ColumnValues},
};

/// Writes their number and their rows.
pub(super) fn put(rows: &[u32], context: &EncodeContext<'_>, column: &mut EncodedColumn) {
    put_varint(&mut column.plan, rows.len() as u64);
    number::put_integers(&gaps(rows), context, column);
}

/// The number of rows between each exception and the one before.
fn gaps(rows: &[u32]) -> Vec<i64> {
    let mut next = 0;
    rows.iter()
        .map(|&row| {
            let gap = i64::from(row) - next;
            next = i64::from(row) + 1;
            gap
        })
        .collect()
}

/// Reads what [`put`] wrote for a column of `rows` values.
pub(super) fn read(
    rows: usize,
    plan: &mut FieldReader<'_>,
    source: &mut StreamSource,
) -> Result<Vec<u32>, Damage> {
    let count = plan.size(rows, "the exceptions")?;
    let mut next = 0usize;
    number::read_integers(count, plan, source)?
        .into_iter()
        .map(|gap| {
            let row = usize::try_from(gap)
                .ok()
                .and_then(|gap| next.checked_add(gap))
                .filter(|&row| row < rows)
                .ok_or_else(|| Damage::new("a row outside its column"))?;
            next = row + 1;
            Ok(row as u32)
        })
        .collect()
}

/// The column: `others` at the rows of exceptions, `ruled` at the rest.
pub(super) fn merge<'v>(
    ruled: impl Iterator<Item = &'v [u8]>,
    rows: &[u32],
    others: &ColumnValues,
    limit: usize,
) -> Result<ColumnValues, Damage> {
    let mut values = ColumnValues::default();
    let mut exceptions = rows.iter().zip(others.iter()).peekable();
    for (row, usual) in ruled.enumerate() {
        let exception = exceptions.next_if(|&(&exception, _)| exception as usize == row);
        values.push_bounded(exception.map_or(usual, |(_, value)| value), limit)?;
    }
    Ok(values)
}
