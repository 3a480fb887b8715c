//! A column that mostly repeats another one of the same rows: where it does, and the rest.

use super::{Damage, Known, Node, RawStream, Reader, Refs, Scope, Source, Tag, Values};
use crate::{bytes::put_varint, transform::streams::Kind};

/// Less than this share of equal rows is not worth the marks.
const LEAST_SHARE: f64 = 0.3;
/// Rows looked at to find the column.
const LOOKED_AT: usize = 512;

/// The values around which JSON puts quotes count as equal to the same without.
fn bare(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}

/// The column that this one repeats most, if any.
pub fn best_ref(values: &Values, refs: &Refs<'_>) -> Option<u32> {
    let step = values.len().div_ceil(LOOKED_AT).max(1);
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
        .filter(|(share, _)| *share >= LEAST_SHARE)
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
pub fn encode(values: &Values, from: u32, scope: &Scope<'_>) -> Option<Node> {
    let marks: Vec<u8> = values
        .iter()
        .enumerate()
        .map(|(row, value)| mark(value, scope.refs.value(from, row)))
        .collect();
    let rows: Vec<u32> = (0..values.len() as u32)
        .filter(|&row| marks[row as usize] == OTHER)
        .collect();
    let mut node = Node::of(Tag::Copied);
    put_varint(&mut node.plan, u64::from(from));
    put_varint(&mut node.plan, rows.len() as u64);
    node.streams
        .push(RawStream::new("copy marks", Kind::Bytes, marks));
    node.append(scope.rows(Tag::Copied, values, &rows));
    Some(node)
}

/// Reads `count` values.
pub fn decode(
    count: usize,
    plan: &mut Reader<'_>,
    source: &mut Source,
    known: &Known<'_>,
) -> Result<Values, Damage> {
    let from = plan.size(u32::MAX as usize, "a copied column")? as u32;
    let others = plan.size(count, "the values that are not copied")?;
    let marks = source.next("copy marks")?;
    let rows: Vec<u32> = (0..marks.len() as u32)
        .filter(|&row| marks[row as usize] == OTHER)
        .collect();
    if !known.refs.has(from) || marks.len() != count || rows.len() != others {
        return Err(Damage::new("copy marks do not fit their columns"));
    }
    let rest = known.rows(&rows, plan, source)?;
    let mut used = 0;
    let mut values = Values::default();
    for (row, mark) in marks.into_iter().enumerate() {
        let copied = known.refs.value(from, row);
        match mark {
            OTHER => {
                values.push_bounded(rest.get(used), known.limit)?;
                used += 1;
            }
            SAME => values.push_bounded(copied, known.limit)?,
            BARE => values.push_bounded(bare(copied), known.limit)?,
            QUOTED => values.push_bounded(&[b"\"", copied, b"\""].concat(), known.limit)?,
            _ => return Err(Damage::new("an unknown copy mark")),
        }
    }
    Ok(values)
}
