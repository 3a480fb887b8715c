//! The prediction of numbers by a ratio of another column's.

use std::ops::Range;

use super::super::{decimal, references::ColumnRefs};
use crate::{Damage, bytes::FieldReader, transform::ratio::Ratio};

/// The numbers of a column times a ratio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ScaledColumn {
    pub(super) column: u32,
    pub(super) ratio: Ratio,
}

/// The numbers of the other column are read with so many more decimals than this column has.
const MORE_DECIMALS: u8 = 3;
/// The decimals of this column that count at most: no product exceeds 128 bits.
const MAX_DECIMALS: u8 = 6;

impl ScaledColumn {
    /// The column and the fields of the ratio.
    pub(super) fn fields(self) -> [u64; 3] {
        let [numerator, denominator] = self.ratio.fields();
        [self.column.into(), numerator, denominator]
    }

    /// Reads the ratio of `column`.
    pub(super) fn read(column: u32, plan: &mut FieldReader<'_>) -> Result<Self, Damage> {
        let ratio = Ratio::read(plan)?;
        Ok(Self { column, ratio })
    }

    /// The number that the value in a row predicts for a column with these decimals.
    pub(super) fn number(self, refs: &ColumnRefs<'_>, decimals: u8, row: usize) -> i64 {
        let other = read(refs.unquoted(self.column, row), decimals).unwrap_or(0);
        self.ratio.of(other)
    }

    /// The ratio that predicts `numbers` best in `rows`, if one predicts them at all.
    pub(super) fn fit(
        column: u32,
        numbers: &[i64],
        rows: Range<usize>,
        refs: &ColumnRefs<'_>,
        decimals: u8,
    ) -> Option<Self> {
        let point = |row: usize| {
            let other = read(refs.unquoted(column, row), decimals)?;
            Some((other as f64, numbers[row] as f64))
        };
        let ratio = Ratio::fit(rows, point)?;
        Some(Self { column, ratio })
    }
}

fn read(text: &[u8], decimals: u8) -> Option<i128> {
    decimal::at_decimals(text, decimals.min(MAX_DECIMALS) + MORE_DECIMALS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::values::ColumnValues;

    #[test]
    fn the_ratio_of_two_columns_is_found_and_exact() {
        let mut random = fastrand::Rng::with_seed(2);
        let cents: Vec<i64> = (0..500).map(|_| random.i64(100..10_000_000)).collect();
        let texts = cents
            .iter()
            .map(|cents| format!("\"{}.{:02}\"", cents / 100, cents % 100));
        let texts: Vec<String> = texts.collect();
        let table: [ColumnValues; 1] = [texts.iter().map(|text| text.as_bytes()).collect()];
        let refs = ColumnRefs::before(1, cents.len(), &table, None);
        // The ratio, and how many different numbers are left.
        let found = |of: &dyn Fn(i64) -> i64| {
            let numbers: Vec<i64> = cents.iter().map(|&cents| of(cents)).collect();
            let rows = 0..numbers.len();
            let scaled = ScaledColumn::fit(0, &numbers, rows.clone(), &refs, 0)?;
            let left = rows.map(|row| numbers[row] - scaled.number(&refs, 0, row));
            let left: std::collections::HashSet<i64> = left.collect();
            let Ratio {
                numerator,
                denominator,
            } = scaled.ratio;
            Some((numerator, denominator, left.len()))
        };
        assert_eq!(found(&|cents| cents), Some((1, 10, 1)));
        assert_eq!(found(&|cents| 5000 - cents * 12), Some((-6, 5, 1)));
        assert_eq!(found(&|cents| cents / 7 + 3), Some((1, 70, 1)));
        assert_eq!(found(&|_| 7), None);
        assert_eq!(found(&|cents| cents * cents % 7919), None);
    }
}
