//! A column in the order of others: rows with the same value there come together, so that what the
//! other columns tell about this one turns into runs and near matches. The decoder has those columns
//! already and knows the order without being told.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use super::{Damage, Known, Node, Reader, Refs, Scope, Source, Tag, Values};
use crate::{bytes::put_varint, hybrid::Effort};

/// The most columns that give an order.
const MOST_KEYS: usize = 3;
/// Rows and nearest columns looked at to find the best order.
fn looked_at(effort: Effort) -> (usize, usize) {
    match effort {
        Effort::Fast | Effort::Balanced => (4000, 20),
        Effort::Max => (12_000, 32),
    }
}

/// Numbers of distinct values, which are small and never hostile: the quickest of hashes will do.
type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u32(byte.into()));
    }

    fn write_u32(&mut self, id: u32) {
        // Fibonacci hashing; the table takes its bits from both ends.
        let mixed = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 29;
    }
}

/// The rows in the order of the columns `keys`; equal ones stay in their order.
fn order(count: usize, keys: &[u32], refs: &Refs<'_>) -> Vec<u32> {
    let mut rows: Vec<u32> = (0..count as u32).collect();
    rows.sort_by(|&a, &b| {
        keys.iter()
            .map(|&key| refs.value(key, a as usize).cmp(refs.value(key, b as usize)))
            .find(|order| order.is_ne())
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    rows
}

/// Fits any column whose keys are known before it.
pub fn encode(values: &Values, keys: &[u32], scope: &Scope<'_>) -> Option<Node> {
    let rows = order(values.len(), keys, &scope.refs);
    let mut node = Node::of(Tag::Sorted);
    put_varint(&mut node.plan, keys.len() as u64);
    for &key in keys {
        put_varint(&mut node.plan, u64::from(key));
    }
    node.append(scope.rows(Tag::Sorted, values, &rows));
    Some(node)
}

/// Reads `count` values.
pub fn decode(
    count: usize,
    plan: &mut Reader<'_>,
    source: &mut Source,
    known: &Known<'_>,
) -> Result<Values, Damage> {
    let mut keys = Vec::new();
    for _ in 0..plan.size(MOST_KEYS, "the number of sort keys")? {
        let key = plan.size(u32::MAX as usize, "a sort key")? as u32;
        if !known.refs.has(key) {
            return Err(Damage::new(
                "a sort key is not a column of as many rows before this one",
            ));
        }
        keys.push(key);
    }
    let rows = order(count, &keys, &known.refs);
    let sorted = known.rows(&rows, plan, source)?;
    let mut places = vec![0u32; count];
    for (place, &row) in rows.iter().enumerate() {
        places[row as usize] = place as u32;
    }
    Ok(sorted.select(&places))
}

/// The orders worth trying: the column that tells most about this one, and that with a second.
pub fn best_refs(values: &Values, scope: &Scope<'_>) -> Vec<Vec<u32>> {
    let refs = &scope.refs;
    if values.len() < 64 || refs.usable().is_empty() {
        return Vec::new();
    }
    let (most_rows, nearest) = looked_at(scope.effort);
    let looked_at = values.len().min(most_rows);
    let start = (values.len() - looked_at) / 2;
    let rows: Vec<u32> = (start as u32..(start + looked_at) as u32).collect();
    let (ids, distinct) = values.select(&rows).ids();
    if distinct < 2 {
        return Vec::new();
    }
    let nearest: Vec<u32> = refs.usable().iter().rev().take(nearest).copied().collect();
    let mut keys: Vec<u32> = Vec::new();
    let mut contexts = vec![0u32; ids.len()];
    let mut bits = adaptive_bits(&ids, distinct, &contexts);
    let mut found = Vec::new();
    let most = if scope.effort == Effort::Max {
        MOST_KEYS
    } else {
        2
    };
    while keys.len() < most {
        let best = nearest
            .iter()
            .filter(|key| {
                !keys.contains(key) && refs.distinct(**key).is_none_or(|distinct| distinct > 1)
            })
            .map(|&key| {
                let finer = refine(
                    &contexts,
                    rows.iter()
                        .map(|&row| refs.id(key, row as usize).unwrap_or_default()),
                );
                (adaptive_bits(&ids, distinct, &finer), key, finer)
            })
            .min_by(|a, b| a.0.total_cmp(&b.0));
        let Some((fewer, key, finer)) = best.filter(|(fewer, ..)| *fewer < bits * 0.97) else {
            break;
        };
        (bits, contexts) = (fewer, finer);
        keys.push(key);
        found.push(keys.clone());
    }
    found
}

fn refine(contexts: &[u32], ids: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut known: IdMap<(u32, u32), u32> = IdMap::default();
    contexts
        .iter()
        .zip(ids)
        .map(|(&context, id)| {
            let next = known.len() as u32;
            *known.entry((context, id)).or_insert(next)
        })
        .collect()
}

/// What an adaptive coder would need for `ids` given `contexts`, learning as it goes: a value seen
/// in its context is cheap, one only seen elsewhere costs an escape.
fn adaptive_bits(ids: &[u32], distinct: usize, contexts: &[u32]) -> f64 {
    let mut pairs: IdMap<(u32, u32), u32> = IdMap::default();
    let mut totals: IdMap<u32, u32> = IdMap::default();
    let mut singles = vec![0u32; distinct];
    let mut bits = 0.0;
    for (seen, (&id, &context)) in ids.iter().zip(contexts).enumerate() {
        let pair = pairs.entry((context, id)).or_default();
        let total = totals.entry(context).or_default();
        let single = &mut singles[id as usize];
        let general = (f64::from(*single) + 0.5) / (seen as f64 + 0.5 * distinct as f64);
        let probability = (f64::from(*pair) + general) / (f64::from(*total) + 1.0);
        bits -= probability.log2();
        *pair += 1;
        *total += 1;
        *single += 1;
    }
    bits
}
