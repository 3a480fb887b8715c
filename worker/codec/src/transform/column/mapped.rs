//! A column that another one determines: its value for each distinct value there, in the order in
//! which those appear, and the rows where it differs after all.

use std::collections::HashMap;

use super::{Damage, Known, Node, Reader, Refs, Scope, Source, Tag, Values, exceptions};
use crate::bytes::put_varint;

/// Rows looked at to find the column.
const LOOKED_AT: usize = 4096;
/// The nearest columns that are looked at.
const NEAREST: usize = 32;
/// Of so many rows that repeat a value there, one may differ.
const LEAST_AGREEING: usize = 16;

/// The column with the fewest distinct values that tells nearly all of this one.
pub fn best_ref(values: &Values, refs: &Refs<'_>) -> Option<u32> {
    let looked_at = values.len().min(LOOKED_AT);
    let rows: Vec<u32> = (0..looked_at as u32).collect();
    let (ids, distinct) = values.select(&rows).ids();
    if distinct < 2 {
        return None;
    }
    let tells = |&key: &u32| {
        let keys = refs.distinct(key)?;
        if keys < 2 || keys * 2 > values.len() {
            return None;
        }
        let mut firsts = vec![u32::MAX; keys];
        let (mut repeats, mut wrong) = (0usize, 0usize);
        for (row, &id) in ids.iter().enumerate() {
            let first = firsts.get_mut(refs.id(key, row)? as usize)?;
            if *first == u32::MAX {
                *first = id;
                continue;
            }
            repeats += 1;
            wrong += usize::from(*first != id);
            if wrong * LEAST_AGREEING > looked_at {
                return None;
            }
        }
        (wrong * LEAST_AGREEING < repeats).then_some((wrong * 4 + keys, key))
    };
    let nearest = refs.usable().iter().rev().take(NEAREST);
    nearest.filter_map(tells).min().map(|(_, key)| key)
}

/// For every row the number of its first equal one among the distinct values of `key`, and the rows
/// of those.
fn groups(count: usize, key: u32, refs: &Refs<'_>) -> (Vec<u32>, Vec<u32>) {
    let mut known: HashMap<&[u8], u32> = HashMap::new();
    let mut firsts = Vec::new();
    let groups = (0..count)
        .map(|row| {
            *known.entry(refs.value(key, row)).or_insert_with(|| {
                firsts.push(row as u32);
                firsts.len() as u32 - 1
            })
        })
        .collect();
    (groups, firsts)
}

/// Fits any column whose key is known before it.
pub fn encode(values: &Values, key: u32, scope: &Scope<'_>) -> Option<Node> {
    let (groups, firsts) = groups(values.len(), key, &scope.refs);
    let told = |row: usize| values.get(firsts[groups[row] as usize] as usize);
    let rows: Vec<u32> = (0..values.len())
        .filter(|&row| values.get(row) != told(row))
        .map(|row| row as u32)
        .collect();
    let mut node = Node::of(Tag::Mapped);
    put_varint(&mut node.plan, u64::from(key));
    exceptions::put(&rows, scope.effort, &mut node);
    for rows in [&firsts, &rows] {
        node.append(scope.rows(Tag::Mapped, values, rows));
    }
    Some(node)
}

/// Reads `count` values.
pub fn decode(
    count: usize,
    plan: &mut Reader<'_>,
    source: &mut Source,
    known: &Known<'_>,
) -> Result<Values, Damage> {
    let key = plan.size(u32::MAX as usize, "a key column")? as u32;
    if !known.refs.has(key) {
        return Err(Damage::new(
            "a key that is not a column of as many rows before this one",
        ));
    }
    let rows = exceptions::read(count, plan, source)?;
    let (groups, firsts) = groups(count, key, &known.refs);
    let told = known.rows(&firsts, plan, source)?;
    let others = known.rows(&rows, plan, source)?;
    let told = groups.iter().map(|&group| told.get(group as usize));
    exceptions::merge(told, &rows, &others, known.limit)
}
