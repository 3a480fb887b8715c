//! Numbers as a ratio of another column's: amounts in cents and in euros, milliseconds and seconds, a price with its tax.

use std::ops::Range;

use super::super::{decimal, references::ColumnRefs};
use crate::{Damage, bytes::FieldReader, transform::choices::Ratio};

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

/// Fewer numbers show no ratio.
const MIN_FITTED: usize = 16;
/// So many points are looked at first.
const FEW_POINTS: usize = 64;
/// The numbers must be nearer to the line than to each other by this factor.
const NEARER: f64 = 3.0;
/// The simplest fraction is taken that is off by this at most, in units of this column, for most numbers.
const EXACT: f64 = 0.125;
/// The same as a share of their distance from the line, where they are not exact.
const INEXACT: f64 = 0.0625;

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
        let count = rows.len();
        let points = rows.filter_map(|row| {
            let other = read(refs.unquoted(column, row), decimals)?;
            Some((other as f64, numbers[row] as f64))
        });
        let points: Vec<(f64, f64)> = points.collect();
        if points.len() < MIN_FITTED || points.len() * 2 < count {
            return None;
        }
        let ratio = ratio_of(&points)?;
        Some(Self { column, ratio })
    }
}

/// The ratio of the second numbers to the first, where they have one and further ones differ from it by little or always as much.
pub(in crate::transform) fn ratio_of(points: &[(f64, f64)]) -> Option<Ratio> {
    // Most columns have none: a few points show it.
    let step = (points.len() / FEW_POINTS).max(1);
    let few: Vec<(f64, f64)> = points.iter().step_by(step).copied().collect();
    FittedLine::through(&few)?;
    let line = FittedLine::through(points)?;
    let tolerance = (line.distance * INEXACT).max(EXACT) / line.range;
    simplest_fraction(line.slope, tolerance)
}

fn read(text: &[u8], decimals: u8) -> Option<i128> {
    decimal::at_decimals(text, decimals.min(MAX_DECIMALS) + MORE_DECIMALS)
}

/// A line through most of some points: the medians do not depend on a few that are elsewhere.
struct FittedLine {
    slope: f64,
    /// The median distance of the second numbers from it.
    distance: f64,
    /// The median distance of the first numbers from their median.
    range: f64,
}

impl FittedLine {
    /// `None` if most points are not near to one.
    fn through(points: &[(f64, f64)]) -> Option<Self> {
        let (first, second) = points.split_at(points.len() / 2);
        let slopes = first.iter().zip(second).filter(|(a, b)| a.0 != b.0);
        let slope = median(slopes.map(|(a, b)| (b.1 - a.1) / (b.0 - a.0)).collect())?;
        let from_line = points.iter().map(|point| point.1 - slope * point.0);
        let line = Self {
            slope,
            distance: median_distance(from_line.collect())?,
            range: median_distance(points.iter().map(|point| point.0).collect())?,
        };
        let all = median_distance(points.iter().map(|point| point.1).collect())?;
        (line.distance * NEARER < all).then_some(line)
    }
}

/// The median distance from the median.
fn median_distance(mut numbers: Vec<f64>) -> Option<f64> {
    let middle = median(numbers.clone())?;
    numbers
        .iter_mut()
        .for_each(|number| *number = (*number - middle).abs());
    median(numbers)
}

fn median(mut numbers: Vec<f64>) -> Option<f64> {
    let middle = numbers.len() / 2;
    (!numbers.is_empty()).then(|| *numbers.select_nth_unstable_by(middle, f64::total_cmp).1)
}

/// The largest denominator.
const MAX_DENOMINATOR: f64 = (1u64 << 50) as f64;

/// The first convergent of the continued fraction that is nearer than `tolerance`.
fn simplest_fraction(number: f64, tolerance: f64) -> Option<Ratio> {
    let (mut before, mut last) = ((0.0, 1.0), (1.0, 0.0));
    let mut rest = number;
    while rest.is_finite() {
        let whole = rest.floor();
        let next = (whole * last.0 + before.0, whole * last.1 + before.1);
        (before, last) = (last, next);
        let (numerator, denominator): (f64, f64) = next;
        if denominator > MAX_DENOMINATOR || numerator.abs() > f64::from(i32::MAX) {
            return None;
        }
        if (numerator / denominator - number).abs() <= tolerance {
            let is_some = numerator != 0.0;
            return is_some.then_some(Ratio {
                numerator: numerator as i32,
                denominator: denominator as u64,
            });
        }
        rest = (rest - whole).recip();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::values::ColumnValues;

    fn ratio(numerator: i32, denominator: u64) -> Option<Ratio> {
        Some(Ratio {
            numerator,
            denominator,
        })
    }

    #[test]
    fn a_number_is_the_simplest_fraction_that_is_near_enough() {
        assert_eq!(simplest_fraction(0.333_333_1, 1e-6), ratio(1, 3));
        assert_eq!(simplest_fraction(-2.0, 1e-9), ratio(-2, 1));
        assert_eq!(simplest_fraction(1.19, 1e-9), ratio(119, 100));
        assert_eq!(simplest_fraction(0.0, 1e-9), None);
        assert_eq!(simplest_fraction(1e300, 1e-9), None);
        assert_eq!(simplest_fraction(f64::NAN, 1e-9), None);
    }

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
