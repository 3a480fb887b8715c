//! What an integer is expected to be: from those above it, from its row, or from other columns.

use std::{collections::HashMap, ops::Range};

use super::{
    super::{Damage, Reader, Refs, Scope, Values, decimal},
    layout,
};
use crate::{
    bytes::{put_varint, unzigzag, zigzag},
    hybrid::Effort,
};

/// Another column's number: in this row, or in the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    column: u32,
    next: bool,
}

/// What a number is expected to be. In the plan, its number as [`Prediction::put`] writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prediction {
    /// Nothing.
    Zero,
    /// The number above.
    Above,
    /// The number above and its step.
    Slope,
    /// Another column's number.
    Other(Place),
    /// The number above, and the step of another column to this row.
    OtherStep(u32),
    /// The larger of two others.
    Highest(Place, Place),
    /// The smaller of two others.
    Lowest(Place, Place),
    /// A line through the rows' numbers: so much a row, in units of 2 to the power of -32.
    Line(i64),
}

impl Prediction {
    /// Appends the prediction to the plan.
    pub fn put(self, plan: &mut Vec<u8>) {
        let mut put = |tag: u8, numbers: &[u64]| {
            plan.push(tag);
            numbers.iter().for_each(|&number| put_varint(plan, number));
        };
        let place = |place: Place| u64::from(place.column) * 2 + u64::from(place.next);
        match self {
            Self::Zero => put(0, &[]),
            Self::Above => put(1, &[]),
            Self::Slope => put(2, &[]),
            Self::Other(from) => put(3, &[place(from)]),
            Self::OtherStep(column) => put(4, &[u64::from(column)]),
            Self::Highest(a, b) => put(5, &[place(a), place(b)]),
            Self::Lowest(a, b) => put(6, &[place(a), place(b)]),
            Self::Line(step) => put(7, &[zigzag(step)]),
        }
    }

    /// Reads a prediction that names only columns that are known.
    pub fn read(plan: &mut Reader<'_>, refs: &Refs<'_>) -> Result<Self, Damage> {
        let known = |column: u64| {
            u32::try_from(column)
                .ok()
                .filter(|&column| refs.has(column))
                .ok_or_else(|| {
                    Damage::new("a prediction from a column that is not before this one")
                })
        };
        let place = |plan: &mut Reader<'_>| {
            let number = plan.varint()?;
            Ok(Place {
                column: known(number / 2)?,
                next: number % 2 == 1,
            })
        };
        Ok(match plan.byte()? {
            0 => Self::Zero,
            1 => Self::Above,
            2 => Self::Slope,
            3 => Self::Other(place(plan)?),
            4 => Self::OtherStep(known(plan.varint()?)?),
            5 => Self::Highest(place(plan)?, place(plan)?),
            6 => Self::Lowest(place(plan)?, place(plan)?),
            7 => Self::Line(unzigzag(plan.varint()?)),
            _ => return Err(Damage::new("an unknown prediction")),
        })
    }

    /// How often the number above counts, and that above it.
    fn above(self) -> (i64, i64) {
        match self {
            Self::Above | Self::OtherStep(_) => (1, 0),
            Self::Slope => (2, -1),
            Self::Zero | Self::Other(_) | Self::Highest(..) | Self::Lowest(..) | Self::Line(_) => {
                (0, 0)
            }
        }
    }

    /// The part of the expectation that does not come from the numbers above.
    fn base(self, rows: Range<usize>, others: &mut Others<'_>) -> Vec<i64> {
        match self {
            Self::Zero | Self::Above | Self::Slope => vec![0; rows.len()],
            Self::Other(place) => others.at(place, rows),
            Self::OtherStep(column) => {
                let numbers = others.at(
                    Place {
                        column,
                        next: false,
                    },
                    0..rows.end,
                );
                rows.map(|row| {
                    let before = row.checked_sub(1).map_or(0, |row| numbers[row]);
                    numbers[row].wrapping_sub(before)
                })
                .collect()
            }
            Self::Highest(a, b) => {
                let (a, b) = (others.at(a, rows.clone()), others.at(b, rows));
                a.into_iter().zip(b).map(|(a, b)| a.max(b)).collect()
            }
            Self::Lowest(a, b) => {
                let (a, b) = (others.at(a, rows.clone()), others.at(b, rows));
                a.into_iter().zip(b).map(|(a, b)| a.min(b)).collect()
            }
            Self::Line(step) => rows
                .map(|row| ((row as i128 * i128::from(step)) >> 32) as i64)
                .collect(),
        }
    }

    /// What is left of `numbers` in `rows`.
    fn residuals(self, numbers: &[i64], rows: Range<usize>, others: &mut Others<'_>) -> Vec<i64> {
        let (once, twice) = self.above();
        let base = self.base(rows.clone(), others);
        let back = |row: usize, steps| row.checked_sub(steps).map_or(0, |row| numbers[row]);
        rows.zip(base)
            .map(|(row, base)| {
                let above = weigh(once, back(row, 1)).wrapping_add(weigh(twice, back(row, 2)));
                numbers[row].wrapping_sub(base.wrapping_add(above))
            })
            .collect()
    }

    /// The numbers again, from what is left of them.
    pub fn restore(self, mut numbers: Vec<i64>, others: &mut Others<'_>) -> Vec<i64> {
        let (once, twice) = self.above();
        let base = self.base(0..numbers.len(), others);
        let (mut first, mut second) = (0i64, 0i64);
        for (number, base) in numbers.iter_mut().zip(base) {
            let above = weigh(once, first).wrapping_add(weigh(twice, second));
            *number = number.wrapping_add(base.wrapping_add(above));
            (first, second) = (*number, first);
        }
        numbers
    }
}

fn weigh(times: i64, number: i64) -> i64 {
    number.wrapping_mul(times)
}

/// The numbers of other columns, each read once.
pub struct Others<'a> {
    refs: &'a Refs<'a>,
    /// Rows of the column at hand.
    count: usize,
    /// Reads another column's text as a number of this column's scale.
    read: &'a dyn Fn(&[u8]) -> Option<i64>,
    known: HashMap<u32, Column>,
}

struct Column {
    numbers: Vec<i64>,
    /// How many texts were numbers; the others count as 0.
    readable: usize,
}

impl<'a> Others<'a> {
    /// The columns of `refs`, of which `count` rows are at hand.
    pub fn new(refs: &'a Refs<'a>, count: usize, read: &'a dyn Fn(&[u8]) -> Option<i64>) -> Self {
        Self {
            refs,
            count,
            read,
            known: HashMap::new(),
        }
    }

    fn column(&mut self, column: u32) -> &Column {
        self.known.entry(column).or_insert_with(|| {
            let mut readable = 0;
            let numbers = (0..self.count)
                .map(|row| {
                    let number = (self.read)(unquoted(self.refs.value(column, row)));
                    readable += usize::from(number.is_some());
                    number.unwrap_or(0)
                })
                .collect();
            Column { numbers, readable }
        })
    }

    /// The numbers at a place seen from `rows`. Behind the last row stands the last again.
    fn at(&mut self, place: Place, rows: Range<usize>) -> Vec<i64> {
        let last = self.count.saturating_sub(1);
        let numbers = &self.column(place.column).numbers;
        rows.map(|row| numbers[(row + usize::from(place.next)).min(last)])
            .collect()
    }
}

fn unquoted(text: &[u8]) -> &[u8] {
    match text {
        [b'"', inner @ .., b'"'] => inner,
        _ => text,
    }
}

/// The nearest columns that are looked at as predictions.
const NEAREST: usize = 16;
/// Of these, as many as are looked at in pairs.
const PAIRED: usize = 4;

/// What is left of `numbers` after the best prediction, which goes into the plan.
pub fn best(
    numbers: &[i64],
    scope: &Scope<'_>,
    others: &mut Others<'_>,
    plan: &mut Vec<u8>,
) -> Vec<i64> {
    let looked_at = match scope.effort {
        Effort::Fast | Effort::Balanced => 1024,
        Effort::Max => 8192,
    };
    let start = numbers.len().saturating_sub(looked_at) / 2;
    let rows = start..(start + looked_at).min(numbers.len());
    let mut rated = Vec::new();
    let mut rate = |prediction: Prediction, others: &mut Others<'_>| {
        let left = prediction.residuals(numbers, rows.clone(), others);
        let cost = layout::estimate(&left);
        rated.push((cost, prediction));
        cost
    };
    for prediction in [Prediction::Zero, Prediction::Above, Prediction::Slope] {
        rate(prediction, others);
    }
    for step in lines(numbers) {
        rate(Prediction::Line(step), others);
    }
    if scope.effort != Effort::Fast {
        let mut places = Vec::new();
        for column in neighbours(scope, others) {
            rate(Prediction::OtherStep(column), others);
            for next in [false, true] {
                let place = Place { column, next };
                places.push((rate(Prediction::Other(place), others), place));
            }
        }
        places.sort_by_key(|(cost, _)| *cost);
        places.truncate(PAIRED);
        for (number, &(_, a)) in places.iter().enumerate() {
            for &(_, b) in &places[..number] {
                rate(Prediction::Highest(a, b), others);
                rate(Prediction::Lowest(a, b), others);
            }
        }
    }
    let best = rated.into_iter().min_by_key(|(cost, _)| *cost);
    let prediction = best.map_or(Prediction::Zero, |(_, prediction)| prediction);
    prediction.put(plan);
    prediction.residuals(numbers, 0..numbers.len(), others)
}

/// The columns before this one that vary and hold numbers for the most part, the nearest first.
fn neighbours(scope: &Scope<'_>, others: &mut Others<'_>) -> Vec<u32> {
    let varies = |column: &u32| {
        scope
            .refs
            .distinct(*column)
            .is_none_or(|distinct| distinct > 1)
    };
    let usable = scope.refs.usable().iter().rev().copied().filter(varies);
    usable
        .take(NEAREST)
        .filter(|&column| others.column(column).readable * 2 > others.count)
        .collect()
}

/// Fewer numbers make no line.
const LEAST_ON_A_LINE: usize = 16;

/// The line through all numbers with the least squares, and the nearest that goes by whole numbers.
fn lines(numbers: &[i64]) -> Vec<i64> {
    let count = numbers.len() as f64;
    if numbers.len() < LEAST_ON_A_LINE {
        return Vec::new();
    }
    let middle = (count - 1.0) / 2.0;
    let origin = numbers[0];
    let products: f64 = numbers
        .iter()
        .enumerate()
        .map(|(row, &number)| (row as f64 - middle) * number.wrapping_sub(origin) as f64)
        .sum();
    let step = products * 12.0 / (count * (count * count - 1.0));
    let unit = 2f64.powi(32);
    // Beyond this a step does not fit; below it the line is flat within the rows there are.
    if step.abs() >= unit / 4.0 || step.abs() * count < 1.0 {
        return Vec::new();
    }
    vec![(step * unit) as i64, (step.round() * unit) as i64]
}

/// The nearest columns that are looked at as keys.
const KEYS: usize = 32;

/// The column whose equal values bring numbers together that differ least, if any does better than
/// the rows as they are.
pub fn best_key(values: &Values, scope: &Scope<'_>) -> Option<u32> {
    let refs = &scope.refs;
    if values.len() < LEAST_KEYED || refs.usable().is_empty() {
        return None;
    }
    let looked_at = values.len().min(match scope.effort {
        Effort::Fast | Effort::Balanced => 6144,
        Effort::Max => 16_384,
    });
    let start = (values.len() - looked_at) / 2;
    let rows: Vec<u32> = (start as u32..(start + looked_at) as u32).collect();
    let numbers = decimal::scale(&values.select(&rows))?.numbers;
    let steps: Vec<i64> = numbers
        .windows(2)
        .map(|two| two[1].wrapping_sub(two[0]))
        .collect();
    let as_they_are = layout::estimate(&numbers).min(layout::estimate(&steps));
    let by_key = |key: u32| {
        let mut last: Vec<Option<i64>> = vec![None; refs.distinct(key)?];
        let mut steps = Vec::with_capacity(numbers.len());
        for (&number, &row) in numbers.iter().zip(&rows) {
            let last = last.get_mut(refs.id(key, row as usize)? as usize)?;
            if let Some(before) = last.replace(number) {
                steps.push(number.wrapping_sub(before));
            }
        }
        // What comes for the first time has nothing to differ from.
        (steps.len() * 2 > numbers.len())
            .then(|| layout::estimate(&steps) + (numbers.len() - steps.len()) * FIRST_BYTES)
    };
    let nearest = refs.usable().iter().rev().take(KEYS);
    nearest
        .filter(|key| refs.distinct(**key).is_some_and(|distinct| distinct > 1))
        .filter_map(|&key| Some((by_key(key)?, key)))
        .min()
        .filter(|&(cost, _)| cost * 32 < as_they_are * 31)
        .map(|(_, key)| key)
}

/// Fewer numbers need no order.
const LEAST_KEYED: usize = 256;
/// What a number takes that has nothing to differ from.
const FIRST_BYTES: usize = 2;
