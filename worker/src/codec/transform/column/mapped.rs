//! A column that another one determines: its value for each distinct value there, in the order in
//! which those appear, and the rows where it differs after all.

use std::collections::HashMap;

use super::{
    Damage, Known, Node, Reader, Refs, Scope, Source, Tag, Values, decode as decode_column,
    encode as encode_column, number, rows_of,
};
use crate::codec::bytes::put_varint;

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
    let exceptions: Vec<u32> = (0..values.len())
        .filter(|&row| values.get(row) != told(row))
        .map(|row| row as u32)
        .collect();
    let mut node = Node::of(Tag::Mapped);
    put_varint(&mut node.plan, u64::from(key));
    put_varint(&mut node.plan, exceptions.len() as u64);
    number::put_integers(&rows_of::gaps(&exceptions), scope.effort, &mut node);
    for rows in [&firsts, &exceptions] {
        node.append(encode_column(
            &values.select(rows),
            &scope.inside(Tag::Mapped, scope.refs.select(rows)),
        ));
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
    let exceptions = plan.size(count, "the exceptions")?;
    let exceptions = rows_of::read(exceptions, count, plan, source)?;
    let (groups, firsts) = groups(count, key, &known.refs);
    let mut column = |rows: &[u32]| {
        decode_column(
            rows.len(),
            plan,
            source,
            &known.inside(known.refs.select(rows)),
        )
    };
    let (told, others) = (column(&firsts)?, column(&exceptions)?);
    let mut values = Values::default();
    let mut exceptions = exceptions.into_iter().enumerate().peekable();
    for (row, group) in groups.into_iter().enumerate() {
        match exceptions.next_if(|&(_, exception)| exception as usize == row) {
            Some((number, _)) => values.push_bounded(others.get(number), known.limit)?,
            None => values.push_bounded(told.get(group as usize), known.limit)?,
        }
    }
    Ok(values)
}
