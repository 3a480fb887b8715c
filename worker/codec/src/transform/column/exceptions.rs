//! The rows of a column that are not as a rule says: written as the gaps between them, and put back among the others.

use super::{Damage, Node, Reader, Source, Values, number};
use crate::{bytes::put_varint, hybrid::Effort};

/// Writes which rows they are, and how many.
pub fn put(rows: &[u32], effort: Effort, node: &mut Node) {
    put_varint(&mut node.plan, rows.len() as u64);
    number::put_integers(&gaps(rows), effort, node);
}

/// How many rows lie before each, from the one before.
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

/// Reads what [`put`] wrote of a column of `rows`.
pub fn read(rows: usize, plan: &mut Reader<'_>, source: &mut Source) -> Result<Vec<u32>, Damage> {
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

/// The column: what the rule says for each row, and `others` at the rows that are exceptions.
pub fn merge<'v>(
    ruled: impl Iterator<Item = &'v [u8]>,
    rows: &[u32],
    others: &Values,
    limit: usize,
) -> Result<Values, Damage> {
    let mut values = Values::default();
    let mut exceptions = rows.iter().zip(others.iter()).peekable();
    for (row, usual) in ruled.enumerate() {
        let exception = exceptions.next_if(|&(&exception, _)| exception as usize == row);
        values.push_bounded(exception.map_or(usual, |(_, value)| value), limit)?;
    }
    Ok(values)
}
