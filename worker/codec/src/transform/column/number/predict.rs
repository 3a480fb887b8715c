//! Predictions of an integer: from those above it, from its row number, or from other columns.

use std::{collections::HashMap, ops::Range};

use super::{
    super::{
        context::{EncodeContext, EncodedColumn},
        decimal,
        references::ColumnRefs,
    },
    layout,
    ratio::ScaledColumn,
};
use crate::transform::choices::{CellChoice, Choice, PredictionChoice};
use crate::{
    Damage, Effort, FormatVersion,
    bytes::{FieldReader, put_varint, unzigzag, zigzag},
    transform::values::ColumnValues,
};

/// A number of another column, in this row or the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct CellRef {
    column: u32,
    next: bool,
}

/// The expected value of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prediction {
    /// Zero.
    Zero,
    /// The number above.
    Delta,
    /// The number above plus its difference from the one before.
    DeltaOfDelta,
    /// Another column's number.
    Other(CellRef),
    /// The number above plus the difference of another column from the row above.
    OtherDelta(u32),
    /// The larger of two others.
    Highest(CellRef, CellRef),
    /// The smaller of two others.
    Lowest(CellRef, CellRef),
    /// The row number times this step, in units of 2^-32.
    Line(i64),
    /// Another column's number times a ratio. Only in version 2.
    Ratio(ScaledColumn),
}

impl Prediction {
    /// Appends the prediction to the plan.
    pub(super) fn put(self, plan: &mut Vec<u8>) {
        let mut put = |tag: u8, numbers: &[u64]| {
            plan.push(tag);
            numbers.iter().for_each(|&number| put_varint(plan, number));
        };
        let cell = |cell: CellRef| u64::from(cell.column) * 2 + u64::from(cell.next);
        match self {
            Self::Zero => put(0, &[]),
            Self::Delta => put(1, &[]),
            Self::DeltaOfDelta => put(2, &[]),
            Self::Other(from) => put(3, &[cell(from)]),
            Self::OtherDelta(column) => put(4, &[u64::from(column)]),
            Self::Highest(a, b) => put(5, &[cell(a), cell(b)]),
            Self::Lowest(a, b) => put(6, &[cell(a), cell(b)]),
            Self::Line(step) => put(7, &[zigzag(step)]),
            Self::Ratio(scaled) => put(8, &scaled.fields()),
        }
    }

    /// Reads a prediction. It may name only columns before this one.
    pub(super) fn read(
        version: FormatVersion,
        plan: &mut FieldReader<'_>,
        refs: &ColumnRefs<'_>,
    ) -> Result<Self, Damage> {
        let known = |column: u64| {
            u32::try_from(column)
                .ok()
                .filter(|&column| refs.has(column))
                .ok_or_else(|| {
                    Damage::new("a prediction from a column that is not before this one")
                })
        };
        let cell = |plan: &mut FieldReader<'_>| {
            let number = plan.varint()?;
            Ok(CellRef {
                column: known(number / 2)?,
                next: number % 2 == 1,
            })
        };
        Ok(match plan.byte()? {
            0 => Self::Zero,
            1 => Self::Delta,
            2 => Self::DeltaOfDelta,
            3 => Self::Other(cell(plan)?),
            4 => Self::OtherDelta(known(plan.varint()?)?),
            5 => Self::Highest(cell(plan)?, cell(plan)?),
            6 => Self::Lowest(cell(plan)?, cell(plan)?),
            7 => Self::Line(unzigzag(plan.varint()?)),
            8 if version == FormatVersion::V2 => {
                let column = known(plan.varint()?)?;
                Self::Ratio(ScaledColumn::read(column, plan)?)
            }
            _ => return Err(Damage::new("an unknown prediction")),
        })
    }

    /// The weights of the number above and of the one before it.
    fn weights(self) -> (i64, i64) {
        match self {
            Self::Delta | Self::OtherDelta(_) => (1, 0),
            Self::DeltaOfDelta => (2, -1),
            Self::Zero
            | Self::Other(_)
            | Self::Highest(..)
            | Self::Lowest(..)
            | Self::Line(_)
            | Self::Ratio(_) => (0, 0),
        }
    }

    /// The part of the prediction that does not depend on the numbers above.
    fn base(self, rows: Range<usize>, others: &mut OtherColumns<'_>) -> Vec<i64> {
        match self {
            Self::Zero | Self::Delta | Self::DeltaOfDelta => vec![0; rows.len()],
            Self::Other(cell) => others.at(cell, rows),
            Self::OtherDelta(column) => {
                let numbers = others.at(
                    CellRef {
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
            Self::Ratio(scaled) => rows
                .map(|row| scaled.number(others.refs, others.reading.decimals, row))
                .collect(),
        }
    }

    /// The differences of `numbers` from the prediction in `rows`.
    fn residuals(
        self,
        numbers: &[i64],
        rows: Range<usize>,
        others: &mut OtherColumns<'_>,
    ) -> Vec<i64> {
        let (once, twice) = self.weights();
        let base = self.base(rows.clone(), others);
        let back = |row: usize, steps| row.checked_sub(steps).map_or(0, |row| numbers[row]);
        rows.zip(base)
            .map(|(row, base)| {
                let above = weigh(once, back(row, 1)).wrapping_add(weigh(twice, back(row, 2)));
                numbers[row].wrapping_sub(base.wrapping_add(above))
            })
            .collect()
    }

    /// The numbers from their differences.
    pub(super) fn restore(self, mut numbers: Vec<i64>, others: &mut OtherColumns<'_>) -> Vec<i64> {
        let (once, twice) = self.weights();
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

/// How the text of other columns is read.
#[derive(Clone, Copy)]
pub(in crate::transform::column) struct OtherReading<'a> {
    /// As a number at the scale of this column.
    pub(in crate::transform::column) at_scale: &'a dyn Fn(&[u8]) -> Option<i64>,
    /// The decimals of this column.
    pub(in crate::transform::column) decimals: u8,
}

/// The numbers of other columns; each column is read once.
pub(super) struct OtherColumns<'a> {
    refs: &'a ColumnRefs<'a>,
    /// The number of rows of the current column.
    count: usize,
    reading: OtherReading<'a>,
    known: HashMap<u32, NumberColumn>,
}

struct NumberColumn {
    numbers: Vec<i64>,
    /// The number of texts that are numbers; the others count as 0.
    readable: usize,
}

impl<'a> OtherColumns<'a> {
    /// The columns of `refs` with `count` rows.
    pub(super) fn new(refs: &'a ColumnRefs<'a>, count: usize, reading: OtherReading<'a>) -> Self {
        Self {
            refs,
            count,
            reading,
            known: HashMap::new(),
        }
    }

    fn column(&mut self, column: u32) -> &NumberColumn {
        self.known.entry(column).or_insert_with(|| {
            let mut readable = 0;
            let numbers = (0..self.count)
                .map(|row| {
                    let number = (self.reading.at_scale)(self.refs.unquoted(column, row));
                    readable += usize::from(number.is_some());
                    number.unwrap_or(0)
                })
                .collect();
            NumberColumn { numbers, readable }
        })
    }

    /// The numbers of a cell for each of `rows`. The row after the last one is the last one.
    fn at(&mut self, cell: CellRef, rows: Range<usize>) -> Vec<i64> {
        let last = self.count.saturating_sub(1);
        let numbers = &self.column(cell.column).numbers;
        rows.map(|row| numbers[(row + usize::from(cell.next)).min(last)])
            .collect()
    }
}

/// The number of nearest columns to try as predictions.
const NEAREST: usize = 16;
/// The numbers that are worth the try of a column.
const ROWS_OF_A_TRY: usize = 6;
/// The number of those to try in pairs.
const PAIRED: usize = 4;

/// The place of the choice of a prediction.
const PREDICTION: u64 = u64::MAX - 3;

/// The differences from the prediction that was chosen before, or from the best one, which is
/// appended to the plan.
pub(super) fn differences(
    numbers: &[i64],
    context: &EncodeContext<'_>,
    others: &mut OtherColumns<'_>,
    column: &mut EncodedColumn,
) -> Vec<i64> {
    let prediction = match context.choice(PREDICTION) {
        Some(&Choice::Prediction(choice)) => Prediction::chosen(choice, numbers, context),
        _ => None,
    };
    let prediction = prediction.unwrap_or_else(|| {
        let best = best(numbers, context, others);
        if let Some(choice) = best.choice(numbers, context) {
            column
                .choices
                .push((context.key.child(PREDICTION), Choice::Prediction(choice)));
        }
        best
    });
    prediction.put(&mut column.plan);
    prediction.residuals(numbers, 0..numbers.len(), others)
}

impl Prediction {
    /// The prediction of a choice, if its columns may be referenced.
    fn chosen(
        choice: PredictionChoice,
        numbers: &[i64],
        context: &EncodeContext<'_>,
    ) -> Option<Self> {
        let cell = |cell: CellChoice| {
            Some(CellRef {
                column: context.refs.column(cell.column)?,
                next: cell.next,
            })
        };
        Some(match choice {
            PredictionChoice::Zero => Self::Zero,
            PredictionChoice::Delta => Self::Delta,
            PredictionChoice::DeltaOfDelta => Self::DeltaOfDelta,
            PredictionChoice::Other(from) => Self::Other(cell(from)?),
            PredictionChoice::OtherDelta(key) => Self::OtherDelta(context.refs.column(key)?),
            PredictionChoice::Highest(a, b) => Self::Highest(cell(a)?, cell(b)?),
            PredictionChoice::Lowest(a, b) => Self::Lowest(cell(a)?, cell(b)?),
            PredictionChoice::Line(integer) => {
                Self::Line(*lines(numbers).get(usize::from(integer))?)
            }
            PredictionChoice::Ratio(column, ratio) => Self::Ratio(ScaledColumn {
                column: context.refs.column(column)?,
                ratio,
            }),
        })
    }

    /// The choice of this prediction.
    fn choice(self, numbers: &[i64], context: &EncodeContext<'_>) -> Option<PredictionChoice> {
        let cell = |cell: CellRef| {
            Some(CellChoice {
                column: context.refs.key(cell.column)?,
                next: cell.next,
            })
        };
        Some(match self {
            Self::Zero => PredictionChoice::Zero,
            Self::Delta => PredictionChoice::Delta,
            Self::DeltaOfDelta => PredictionChoice::DeltaOfDelta,
            Self::Other(from) => PredictionChoice::Other(cell(from)?),
            Self::OtherDelta(column) => PredictionChoice::OtherDelta(context.refs.key(column)?),
            Self::Highest(a, b) => PredictionChoice::Highest(cell(a)?, cell(b)?),
            Self::Lowest(a, b) => PredictionChoice::Lowest(cell(a)?, cell(b)?),
            Self::Line(step) => PredictionChoice::Line(lines(numbers).first() != Some(&step)),
            Self::Ratio(scaled) => {
                PredictionChoice::Ratio(context.refs.key(scaled.column)?, scaled.ratio)
            }
        })
    }
}

/// The prediction with the smallest estimate on a sample.
fn best(numbers: &[i64], context: &EncodeContext<'_>, others: &mut OtherColumns<'_>) -> Prediction {
    let sampled = match context.effort {
        Effort::Fast => 512,
        Effort::Balanced => 1024,
        Effort::Max => 8192,
    };
    let start = numbers.len().saturating_sub(sampled) / 2;
    let rows = start..(start + sampled).min(numbers.len());
    let few = spread(rows.clone());
    let mut rated = Vec::new();
    let cost_of_few = |prediction: Prediction, others: &mut OtherColumns<'_>| {
        let left = few
            .iter()
            .flat_map(|rows| prediction.residuals(numbers, rows.clone(), others));
        layout::estimate(&left.collect::<Vec<_>>())
    };
    let simple = [
        Prediction::Zero,
        Prediction::Delta,
        Prediction::DeltaOfDelta,
    ];
    let lines = lines(numbers).into_iter().map(Prediction::Line);
    let (mut simplest, mut fewest_bits) = (usize::MAX, usize::MAX);
    for prediction in simple.into_iter().chain(lines) {
        let left = prediction.residuals(numbers, rows.clone(), others);
        rated.push((layout::estimate(&left), prediction));
        match few.is_empty() {
            true => fewest_bits = fewest_bits.min(layout::bits(&left)),
            false => simplest = simplest.min(cost_of_few(prediction, others)),
        }
    }
    let mut rate = |prediction: Prediction, others: &mut OtherColumns<'_>| {
        // Most columns say nothing of each other: some rows show it, or the bits where there are few rows.
        if !few.is_empty() && cost_of_few(prediction, others) >= simplest {
            return None;
        }
        let left = prediction.residuals(numbers, rows.clone(), others);
        if few.is_empty() && layout::bits(&left) >= fewest_bits && is_varied(&left) {
            return None;
        }
        let cost = layout::estimate(&left);
        rated.push((cost, prediction));
        Some(cost)
    };
    let nearest = nearest(numbers.len());
    let mut cells = Vec::new();
    for column in neighbours(nearest, context, others) {
        rate(Prediction::OtherDelta(column), others);
        for next in [false, true] {
            let cell = CellRef { column, next };
            cells.extend(rate(Prediction::Other(cell), others).map(|cost| (cost, cell)));
        }
    }
    if context.version == FormatVersion::V2 {
        for column in varying(context).take(nearest) {
            let scaled = ScaledColumn::fit(
                column,
                numbers,
                rows.clone(),
                others.refs,
                others.reading.decimals,
            );
            if let Some(scaled) = scaled {
                rate(Prediction::Ratio(scaled), others);
            }
        }
    }
    cells.sort_by_key(|(cost, _)| *cost);
    cells.truncate(PAIRED);
    for (number, &(_, a)) in cells.iter().enumerate() {
        for &(_, b) in &cells[..number] {
            rate(Prediction::Highest(a, b), others);
            rate(Prediction::Lowest(a, b), others);
        }
    }
    let best = rated.into_iter().min_by_key(|(cost, _)| *cost);
    best.map_or(Prediction::Zero, |(_, prediction)| prediction)
}

/// Whether the first differences have no few values, which take few bits however large they are.
fn is_varied(left: &[i64]) -> bool {
    const FIRST: usize = 16;
    let mut first = left[..left.len().min(FIRST)].to_vec();
    first.sort_unstable();
    first.dedup();
    first.len() * 2 > FIRST
}

/// How many of the nearest columns are tried for so many numbers: few numbers repay few tries.
fn nearest(numbers: usize) -> usize {
    (numbers / ROWS_OF_A_TRY).clamp(1, NEAREST)
}

/// Short runs from all parts of a sample that is long enough to save time so.
fn spread(sample: Range<usize>) -> Vec<Range<usize>> {
    const RUNS: usize = 8;
    const RUN: usize = 16;
    if sample.len() < 4 * RUNS * RUN {
        return Vec::new();
    }
    let gap = (sample.len() - RUN) / (RUNS - 1);
    let start = |run: usize| sample.start + run * gap;
    (0..RUNS).map(|run| start(run)..start(run) + RUN).collect()
}

/// The columns before this one that vary and hold mostly numbers, the nearest first.
fn neighbours(
    nearest: usize,
    context: &EncodeContext<'_>,
    others: &mut OtherColumns<'_>,
) -> Vec<u32> {
    varying(context)
        .take(nearest)
        .filter(|&column| others.column(column).readable * 2 > others.count)
        .collect()
}

/// The columns before this one that vary, the nearest first.
fn varying<'c>(context: &'c EncodeContext<'_>) -> impl Iterator<Item = u32> + 'c {
    let distinct = |column: u32| context.refs.distinct(column);
    let usable = context.refs.usable().iter().rev().copied();
    usable.filter(move |&column| distinct(column).is_none_or(|distinct| distinct > 1))
}

/// Fewer numbers make no line.
const MIN_LINE: usize = 16;

/// The least-squares line through all numbers, and the nearest line with an integer step.
fn lines(numbers: &[i64]) -> Vec<i64> {
    let count = numbers.len() as f64;
    if numbers.len() < MIN_LINE {
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
    // A larger step does not fit; with a smaller one the line is flat over all rows.
    if step.abs() >= unit / 4.0 || step.abs() * count < 1.0 {
        return Vec::new();
    }
    vec![(step * unit) as i64, (step.round() * unit) as i64]
}

/// The number of nearest columns to try as keys.
const KEYS: usize = 32;

/// The key column whose groups have the smallest differences, if they are smaller than those of the
/// rows in order.
pub(crate) fn best_key(values: &ColumnValues, context: &EncodeContext<'_>) -> Option<u32> {
    let refs = &context.refs;
    if values.len() < MIN_KEYED || refs.usable().is_empty() {
        return None;
    }
    let sampled = values.len().min(match context.effort {
        Effort::Fast => 2048,
        Effort::Balanced => 6144,
        Effort::Max => 16_384,
    });
    let start = (values.len() - sampled) / 2;
    let rows: Vec<u32> = (start as u32..(start + sampled) as u32).collect();
    let numbers = decimal::scale(&values.select(&rows), context.version)?.numbers;
    let steps: Vec<i64> = numbers
        .windows(2)
        .map(|two| two[1].wrapping_sub(two[0]))
        .collect();
    let in_order = layout::estimate(&numbers).min(layout::estimate(&steps));
    let by_key = |key: u32| {
        let mut last: Vec<Option<i64>> = vec![None; refs.distinct(key)?];
        let mut steps = Vec::with_capacity(numbers.len());
        for (&number, &row) in numbers.iter().zip(&rows) {
            let last = last.get_mut(refs.id(key, row as usize)? as usize)?;
            if let Some(before) = last.replace(number) {
                steps.push(number.wrapping_sub(before));
            }
        }
        // The first number of each key has no predecessor.
        (steps.len() * 2 > numbers.len())
            .then(|| layout::estimate(&steps) + (numbers.len() - steps.len()) * FIRST_BYTES)
    };
    let nearest = refs.usable().iter().rev().take(KEYS);
    nearest
        .filter(|key| refs.distinct(**key).is_some_and(|distinct| distinct > 1))
        .filter_map(|&key| Some((by_key(key)?, key)))
        .min()
        .filter(|&(cost, _)| cost * 32 < in_order * 31)
        .map(|(_, key)| key)
}

/// Fewer numbers need no order.
const MIN_KEYED: usize = 256;
/// The size of a number without a predecessor, in bytes.
const FIRST_BYTES: usize = 2;
