//! Some of a column's rows, as the gaps between them.

use super::{Damage, Reader, Source, number};

/// How many rows lie before each, from the one before.
pub fn gaps(rows: &[u32]) -> Vec<i64> {
    let mut next = 0;
    rows.iter()
        .map(|&row| {
            let gap = i64::from(row) - next;
            next = i64::from(row) + 1;
            gap
        })
        .collect()
}

/// Reads `count` rows of a column of `rows`.
pub fn read(
    count: usize,
    rows: usize,
    plan: &mut Reader<'_>,
    source: &mut Source,
) -> Result<Vec<u32>, Damage> {
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
