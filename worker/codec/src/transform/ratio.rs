//! A column of numbers as a ratio of another one: amounts in cents and in euros, milliseconds and seconds, a price with its tax.

use std::ops::Range;

use crate::{
    Damage,
    bytes::{FieldReader, unzigzag, zigzag},
};

/// Fewer numbers show no ratio.
const MIN_FITTED: usize = 16;
/// So many rows are looked at first.
const FEW_ROWS: usize = 32;
/// The numbers must be nearer to the line than to each other by this factor.
const NEARER: f64 = 3.0;
/// The simplest fraction is taken that is off by this at most, in units of this column, for most numbers.
const EXACT: f64 = 0.125;
/// The same as a share of their distance from the line, where they are not exact.
const INEXACT: f64 = 0.0625;

/// A fraction whose denominator is not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ratio {
    pub(super) numerator: i32,
    pub(super) denominator: u64,
}

impl Ratio {
    /// The ratio of the second numbers of most rows to the first, where they have one and differ from it by little or by always as
    /// much. `point` has the numbers of a row, if it has two.
    pub(super) fn fit(
        rows: Range<usize>,
        point: impl Fn(usize) -> Option<(f64, f64)>,
    ) -> Option<Self> {
        let line_of_each = |step: usize| {
            let tried = rows.clone().step_by(step);
            let least = MIN_FITTED.max(tried.len().div_ceil(2));
            let points: Vec<(f64, f64)> = tried.filter_map(&point).collect();
            match points.len() >= least {
                true => FittedLine::through(&points),
                false => None,
            }
        };
        // Most columns have none: a few rows show it.
        let step = (rows.len() / FEW_ROWS).max(1);
        let mut line = line_of_each(step)?;
        if step > 1 {
            line = line_of_each(1)?;
        }
        let tolerance = (line.distance * INEXACT).max(EXACT) / line.range;
        simplest_fraction(line.slope, tolerance)
    }

    /// A number times this, rounded down; it lies within ±2^93.
    pub(super) fn of(self, number: i128) -> i64 {
        let product = number * i128::from(self.numerator);
        // A division of 64 bits takes a fraction of the time.
        match (i64::try_from(product), i64::try_from(self.denominator)) {
            (Ok(product), Ok(denominator)) => product.div_euclid(denominator),
            _ => product.div_euclid(self.denominator.into()) as i64,
        }
    }

    /// The fraction as fields of a plan.
    pub(super) fn fields(self) -> [u64; 2] {
        [zigzag(self.numerator.into()), self.denominator]
    }

    /// Reads the fields.
    pub(super) fn read(plan: &mut FieldReader<'_>) -> Result<Self, Damage> {
        let numerator = i32::try_from(unzigzag(plan.varint()?));
        let denominator = plan.varint()?;
        match numerator {
            Ok(numerator) if denominator > 0 => Ok(Self {
                numerator,
                denominator,
            }),
            _ => Err(Damage::new("a ratio that is none")),
        }
    }
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
        let distance_of = |number: &dyn Fn(&(f64, f64)) -> f64| {
            median_distance(points.iter().map(number).collect())
        };
        let distance = distance_of(&|point| point.1 - slope * point.0)?;
        let is_near = distance * NEARER < distance_of(&|point| point.1)?;
        is_near.then_some(Self {
            slope,
            distance,
            range: distance_of(&|point| point.0)?,
        })
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
}
