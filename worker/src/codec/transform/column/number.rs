//! Numbers: what remains after the best of several predictions, as zigzag integers in byte planes or
//! rows of a fixed width.

use super::{Damage, Known, Node, RawStream, Reader, Refs, Scope, Source, Tag, Values, decimal};
use crate::codec::{
    bytes::{put_varint, unzigzag, zigzag},
    hybrid::Effort,
    transform::streams::{Kind, order0_bytes},
};

/// What a number is expected to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prediction {
    /// Nothing.
    Zero,
    /// The number above.
    Above,
    /// The number above and its step.
    Slope,
    /// The number of another column in this row.
    Other(u32),
    /// The number above, and the step of another column.
    OtherStep(u32),
}

impl Prediction {
    fn put(self, plan: &mut Vec<u8>) {
        let (tag, column) = match self {
            Self::Zero => (0, None),
            Self::Above => (1, None),
            Self::Slope => (2, None),
            Self::Other(column) => (3, Some(column)),
            Self::OtherStep(column) => (4, Some(column)),
        };
        plan.push(tag);
        if let Some(column) = column {
            put_varint(plan, u64::from(column));
        }
    }

    fn read(plan: &mut Reader<'_>, refs: &Refs<'_>) -> Result<Self, Damage> {
        let tag = plan.byte()?;
        if tag < 3 {
            return Ok([Self::Zero, Self::Above, Self::Slope][usize::from(tag)]);
        }
        let column = plan.size(u32::MAX as usize, "a column")? as u32;
        if !refs.has(column) {
            return Err(Damage::new(
                "a prediction from a column that is not before this one",
            ));
        }
        match tag {
            3 => Ok(Self::Other(column)),
            4 => Ok(Self::OtherStep(column)),
            _ => Err(Damage::new("an unknown prediction")),
        }
    }

    fn column(self) -> Option<u32> {
        match self {
            Self::Other(column) | Self::OtherStep(column) => Some(column),
            Self::Zero | Self::Above | Self::Slope => None,
        }
    }

    /// The expectation for `row`, from numbers above it and from the other column.
    fn at(self, row: usize, above: &[i64], other: &[i64]) -> i64 {
        let back = |steps: usize| {
            row.checked_sub(steps)
                .and_then(|row| above.get(row))
                .copied()
                .unwrap_or(0)
        };
        let other_back = |steps: usize| {
            row.checked_sub(steps)
                .and_then(|row| other.get(row))
                .copied()
                .unwrap_or(0)
        };
        match self {
            Self::Zero => 0,
            Self::Above => back(1),
            Self::Slope => back(1).wrapping_mul(2).wrapping_sub(back(2)),
            Self::Other(_) => other_back(0),
            Self::OtherStep(_) => back(1)
                .wrapping_add(other_back(0))
                .wrapping_sub(other_back(1)),
        }
    }
}

fn residuals(numbers: &[i64], prediction: Prediction, other: &[i64]) -> Vec<u64> {
    (0..numbers.len())
        .map(|row| zigzag(numbers[row].wrapping_sub(prediction.at(row, numbers, other))))
        .collect()
}

/// Fits where every value is a number in one spelling.
pub fn encode(values: &Values, scope: &Scope<'_>) -> Option<Node> {
    let scaled = decimal::scale(values)?;
    let mut node = Node::of(Tag::Number);
    scaled.form.put(&mut node.plan);
    if scaled.form.is_listed() {
        node.streams.push(RawStream {
            coding: "decimals or noise",
            kind: Kind::Bytes,
            bytes: scaled.listed,
        });
    }
    let others = |column: u32| {
        other_numbers(column, values.len(), &scope.refs, |text| {
            decimal::at_scale(text, scaled.form)
        })
    };
    encode_numbers(&scaled.numbers, scope, others, &mut node);
    Some(node)
}

fn other_numbers(
    column: u32,
    count: usize,
    refs: &Refs<'_>,
    read: impl Fn(&[u8]) -> Option<i64>,
) -> Vec<i64> {
    (0..count)
        .map(|row| read(unquoted(refs.value(column, row))).unwrap_or(0))
        .collect()
}

fn unquoted(text: &[u8]) -> &[u8] {
    match text {
        [b'"', inner @ .., b'"'] => inner,
        _ => text,
    }
}

/// Numbers looked at to find the best prediction.
const LOOKED_AT: usize = 4096;
/// The nearest columns that are looked at as predictions.
const NEAREST: usize = 16;

/// Appends integers with the best prediction and layout.
pub fn encode_numbers(
    numbers: &[i64],
    scope: &Scope<'_>,
    others: impl Fn(u32) -> Vec<i64>,
    node: &mut Node,
) {
    let mut predictions = vec![Prediction::Zero, Prediction::Above, Prediction::Slope];
    if scope.effort != Effort::Fast {
        for &column in scope.refs.usable().iter().rev().take(NEAREST) {
            predictions.extend([Prediction::Other(column), Prediction::OtherStep(column)]);
        }
    }
    let best = predictions
        .into_iter()
        .map(|prediction| {
            let other = prediction.column().map(&others).unwrap_or_default();
            (
                estimate(&residuals(numbers, prediction, &other)),
                prediction,
            )
        })
        .min_by_key(|(cost, _)| *cost);
    let prediction = best.map_or(Prediction::Zero, |(_, prediction)| prediction);
    prediction.put(&mut node.plan);
    let other = prediction.column().map(&others).unwrap_or_default();
    put_layout(&residuals(numbers, prediction, &other), scope.effort, node);
}

/// Roughly the bytes that residuals take: the entropy of each plane over some of them.
fn estimate(residuals: &[u64]) -> usize {
    let start = residuals.len().saturating_sub(LOOKED_AT) / 2;
    let some = &residuals[start..(start + LOOKED_AT).min(residuals.len())];
    (0..width_of(some))
        .map(|plane| order0_bytes(&plane_of(some, plane)))
        .sum()
}

fn width_of(residuals: &[u64]) -> usize {
    let all = residuals.iter().fold(0, |all, residual| all | residual);
    (8 - all.leading_zeros() as usize / 8).max(1)
}

fn plane_of(residuals: &[u64], plane: usize) -> Vec<u8> {
    residuals
        .iter()
        .map(|residual| (residual >> (8 * plane)) as u8)
        .collect()
}

const PLANES: u8 = 0;
const ROWS: u8 = 1;

fn put_layout(residuals: &[u64], effort: Effort, node: &mut Node) {
    let width = width_of(residuals);
    let stream = |coding, kind, bytes| RawStream {
        coding,
        kind,
        bytes,
    };
    let planes: Vec<RawStream> = (0..width)
        .rev()
        .map(|plane| stream("plane", Kind::Bytes, plane_of(residuals, plane)))
        .collect();
    node.plan.push(width as u8);
    if effort != Effort::Fast && width > 1 {
        let bytes = residuals
            .iter()
            .flat_map(|residual| residual.to_be_bytes()[8 - width..].to_vec())
            .collect();
        let rows = stream(
            "rows",
            Kind::Rows(if width.is_power_of_two() {
                width as u8
            } else {
                1
            }),
            bytes,
        );
        let cost: usize = planes.iter().map(|plane| plane.cost(effort)).sum();
        if rows.cost(effort) < cost {
            node.plan.push(ROWS);
            node.streams.push(rows);
            return;
        }
    }
    node.plan.push(PLANES);
    node.streams.extend(planes);
}

/// Reads `count` values.
pub fn decode(
    count: usize,
    plan: &mut Reader<'_>,
    source: &mut Source,
    known: &Known<'_>,
) -> Result<Values, Damage> {
    let form = decimal::Form::read(plan)?;
    let listed = if form.is_listed() {
        Some(source.next("decimals or noise")?)
    } else {
        None
    };
    let others = |column: u32| {
        other_numbers(column, count, &known.refs, |text| {
            decimal::at_scale(text, form)
        })
    };
    let numbers = decode_numbers(count, plan, source, &known.refs, others)?;
    let mut values = Values::default();
    for (row, number) in numbers.into_iter().enumerate() {
        let decimals = match &listed {
            Some(listed) => Some(
                *listed
                    .get(row)
                    .ok_or_else(|| Damage::new("a number without its decimals"))?,
            ),
            None => None,
        };
        values.push_bounded(
            decimal::write(form, number, decimals)?.as_bytes(),
            known.limit,
        )?;
    }
    Ok(values)
}

/// Reads `count` integers.
pub fn decode_numbers(
    count: usize,
    plan: &mut Reader<'_>,
    source: &mut Source,
    refs: &Refs<'_>,
    others: impl Fn(u32) -> Vec<i64>,
) -> Result<Vec<i64>, Damage> {
    let prediction = Prediction::read(plan, refs)?;
    let width = usize::from(plan.byte()?);
    if !(1..=8).contains(&width) {
        return Err(Damage::new("numbers of an impossible width"));
    }
    let residuals = match plan.byte()? {
        PLANES => read_planes(count, width, source)?,
        ROWS => read_rows(count, width, source)?,
        _ => return Err(Damage::new("numbers in an unknown layout")),
    };
    let other = prediction.column().map(others).unwrap_or_default();
    let mut numbers: Vec<i64> = Vec::with_capacity(count);
    for (row, residual) in residuals.into_iter().enumerate() {
        let number = prediction
            .at(row, &numbers, &other)
            .wrapping_add(unzigzag(residual));
        numbers.push(number);
    }
    Ok(numbers)
}

fn read_planes(count: usize, width: usize, source: &mut Source) -> Result<Vec<u64>, Damage> {
    let mut residuals = vec![0u64; count];
    for _ in 0..width {
        let plane = source.next("plane")?;
        if plane.len() != count {
            return Err(Damage::new("a plane is not as long as its column"));
        }
        for (residual, byte) in residuals.iter_mut().zip(plane) {
            *residual = *residual << 8 | u64::from(byte);
        }
    }
    Ok(residuals)
}

fn read_rows(count: usize, width: usize, source: &mut Source) -> Result<Vec<u64>, Damage> {
    let bytes = source.next("rows")?;
    if bytes.len() != count * width {
        return Err(Damage::new("rows are not as many as their column's values"));
    }
    Ok(bytes
        .chunks_exact(width)
        .map(|row| {
            row.iter()
                .fold(0, |number, &byte| number << 8 | u64::from(byte))
        })
        .collect())
}
