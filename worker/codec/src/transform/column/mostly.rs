//! A column that is nearly always the same value: how far it is from one exception to the next, and
//! the exceptions.

use std::collections::HashMap;

use super::{CONSTANT_LIMIT, Damage, Known, Node, Reader, Scope, Source, Tag, Values, exceptions};
use crate::bytes::put_varint;

/// The share that the usual value must have: of 4 rows 3.
const LEAST_SHARE: (usize, usize) = (3, 4);

/// The value that most rows have, if they are enough.
fn usual(values: &Values) -> Option<&[u8]> {
    let mut counts: HashMap<&[u8], usize> = HashMap::new();
    for value in values.iter() {
        *counts.entry(value).or_default() += 1;
    }
    let (value, count) = counts
        .into_iter()
        .max_by_key(|&(value, count)| (count, value))?;
    let enough = count * LEAST_SHARE.1 >= values.len() * LEAST_SHARE.0;
    (enough && value.len() <= CONSTANT_LIMIT).then_some(value)
}

/// Whether a look at some values shows one again and again.
pub fn fits(values: &Values) -> bool {
    let step = values.len().div_ceil(64).max(1);
    let rows: Vec<u32> = (0..values.len() as u32).step_by(step).collect();
    usual(&values.select(&rows)).is_some()
}

/// Fits where one value has most of the rows.
pub fn encode(values: &Values, scope: &Scope<'_>) -> Option<Node> {
    let usual = usual(values)?;
    let rows: Vec<u32> = (0..values.len() as u32)
        .filter(|&row| values.get(row as usize) != usual)
        .collect();
    let mut node = Node::of(Tag::Mostly);
    put_varint(&mut node.plan, usual.len() as u64);
    node.plan.extend_from_slice(usual);
    exceptions::put(&rows, scope.effort, &mut node);
    node.append(scope.rows(Tag::Mostly, values, &rows));
    Some(node)
}

/// Reads `count` values.
pub fn decode(
    count: usize,
    plan: &mut Reader<'_>,
    source: &mut Source,
    known: &Known<'_>,
) -> Result<Values, Damage> {
    let len = plan.size(CONSTANT_LIMIT, "a usual value")?;
    let usual = plan.take(len)?;
    let rows = exceptions::read(count, plan, source)?;
    let others = known.rows(&rows, plan, source)?;
    exceptions::merge((0..count).map(|_| usual), &rows, &others, known.limit)
}
