//! A column in the order of other columns: rows with equal keys become adjacent, so that the
//! dependence on the keys turns into runs and near matches. The decoder has the key columns and
//! computes the same order.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use super::{
    context::{DecodeContext, EncodeContext, EncodedColumn, Tag},
    decode_rows, encode_rows,
    references::ColumnRefs,
};
use crate::{
    Damage, Effort,
    bytes::{FieldReader, put_varint},
    transform::{sampled_entropy::number, streams::StreamSource, values::ColumnValues},
};

/// The largest number of key columns.
const MAX_KEYS: usize = 3;
/// The number of rows and of nearest columns in which keys are searched.
fn search_size(effort: Effort) -> (usize, usize) {
    match effort {
        Effort::Fast => (1500, 12),
        Effort::Balanced => (4000, 20),
        Effort::Max => (12_000, 32),
    }
}

/// The keys are numbers of distinct values, which input cannot choose: a fast hash is safe.
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
        // Fibonacci hashing; the hash table uses bits from both ends.
        let mixed = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 29;
    }
}

/// Fits any column after its keys.
pub(super) fn encode(
    values: &ColumnValues,
    keys: &[u32],
    context: &EncodeContext<'_>,
) -> Option<EncodedColumn> {
    let rows = context.refs.order(keys, values.len());
    let mut column = EncodedColumn::of(Tag::Sorted);
    put_keys(keys, &mut column.plan);
    column.append(encode_rows(Tag::Sorted, 0, values, &rows, context));
    Some(column)
}

/// Appends the number of the keys and the keys to the plan.
pub(super) fn put_keys(keys: &[u32], plan: &mut Vec<u8>) {
    put_varint(plan, keys.len() as u64);
    keys.iter().for_each(|&key| put_varint(plan, key.into()));
}

/// Reads what [`put_keys`] appended.
pub(super) fn read_keys(
    plan: &mut FieldReader<'_>,
    context: &DecodeContext<'_>,
) -> Result<Vec<u32>, Damage> {
    let count = plan.size(MAX_KEYS, "the number of sort keys")?;
    let keys = (0..count).map(|_| {
        let key = plan.size(u32::MAX as usize, "a sort key")? as u32;
        match context.refs.has(key) {
            true => Ok(key),
            false => Err(Damage::new(
                "a sort key is not a column of as many rows before this one",
            )),
        }
    });
    keys.collect()
}

/// Reads `count` values.
pub(super) fn decode(
    count: usize,
    plan: &mut FieldReader<'_>,
    source: &mut StreamSource,
    context: &DecodeContext<'_>,
) -> Result<ColumnValues, Damage> {
    let keys = read_keys(plan, context)?;
    let rows = context.refs.order(&keys, count);
    let sorted = decode_rows(&rows, plan, source, context)?;
    let mut positions = vec![0u32; count];
    for (position, &row) in rows.iter().enumerate() {
        positions[row as usize] = position as u32;
    }
    Ok(sorted.select(&positions))
}

/// The candidate orders: by the column that determines most of this one, and with further keys.
pub(super) fn best_refs(values: &ColumnValues, context: &EncodeContext<'_>) -> Vec<Vec<u32>> {
    let refs = &context.refs;
    if values.len() < 64 || refs.usable().is_empty() {
        return Vec::new();
    }
    let (max_rows, nearest) = search_size(context.effort);
    let sampled = values.len().min(max_rows);
    let start = (values.len() - sampled) / 2;
    let rows: Vec<u32> = (start as u32..(start + sampled) as u32).collect();
    let (ids, distinct) = values.select(&rows).ids();
    if distinct < 2 {
        return Vec::new();
    }
    let nearest: Vec<u32> = refs.usable().iter().rev().take(nearest).copied().collect();
    let mut keys: Vec<u32> = Vec::new();
    let mut contexts = vec![0u32; ids.len()];
    let mut bits = adaptive_bits(&ids, distinct, &contexts);
    let mut found = Vec::new();
    let max = if context.effort == Effort::Max {
        MAX_KEYS
    } else {
        2
    };
    while keys.len() < max {
        let finer_by = |key: u32| {
            let ids = rows.iter().map(|&row| refs.id(key, row as usize));
            refine(&contexts, ids.map(Option::unwrap_or_default))
        };
        let others = nearest.iter().copied().filter(|key| {
            !keys.contains(key) && refs.distinct(*key).is_none_or(|distinct| distinct > 1)
        });
        let rated: Vec<(f64, u32)> = others
            .map(|key| (adaptive_bits(&ids, distinct, &finer_by(key)), key))
            .collect();
        let best = rated.iter().min_by(|a, b| a.0.total_cmp(&b.0)).copied();
        let Some((fewer, best)) = best.filter(|(fewer, _)| *fewer < bits * 0.97) else {
            break;
        };
        // Columns that follow from each other say the same. What is near in the order of one may be far in that of another.
        let equal = rated.iter().filter(|(bits, _)| *bits <= fewer * 1.001);
        let equal: Vec<u32> = equal.map(|(_, key)| *key).collect();
        let key = match keys.is_empty() {
            true => smoother(best, &equal, values, &rows, refs).unwrap_or(best),
            false => best,
        };
        (bits, contexts) = (fewer, finer_by(key));
        keys.push(key);
        found.push(keys.clone());
    }
    found
}

/// The one of `keys`, which `key` is among, in whose order the numbers of a column differ least from one to the next, if by much less
/// than in that of `key`.
fn smoother(
    key: u32,
    keys: &[u32],
    values: &ColumnValues,
    rows: &[u32],
    refs: &ColumnRefs<'_>,
) -> Option<u32> {
    const ROWS: usize = 1024;
    if keys.len() < 2 {
        return None;
    }
    let rows = &rows[..rows.len().min(ROWS)];
    let numbers = rows.iter().map(|&row| number(values.get(row as usize)));
    let numbers: Vec<u64> = numbers.collect::<Option<_>>()?;
    let cost = |key: u32| {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|&at| refs.value(key, rows[at] as usize));
        let steps = order.windows(2).map(|two| {
            let step = numbers[two[1]].wrapping_sub(numbers[two[0]]) as i64;
            u64::BITS - step.unsigned_abs().leading_zeros()
        });
        steps.sum::<u32>()
    };
    let others = keys.iter().filter(|&&other| other != key);
    let best = others.map(|&other| (cost(other), other)).min();
    best.filter(|(bits, _)| bits * 8 < cost(key) * 7)
        .map(|(_, best)| best)
}

fn refine(contexts: &[u32], ids: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut known: IdMap<(u32, u32), u32> =
        IdMap::with_capacity_and_hasher(contexts.len(), BuildHasherDefault::default());
    contexts
        .iter()
        .zip(ids)
        .map(|(&context, id)| {
            let next = known.len() as u32;
            *known.entry((context, id)).or_insert(next)
        })
        .collect()
}

/// How often each value was seen in each context.
enum PairCounts {
    /// Of all pairs, where those are few; the values of a context are together.
    All { counts: Vec<u32>, distinct: usize },
    /// Of the pairs that occur.
    Some(IdMap<(u32, u32), u32>),
}

impl PairCounts {
    /// A table has at most so many times more pairs than there are values.
    const SPARSE: usize = 16;

    fn new(contexts: usize, distinct: usize, values: usize) -> Self {
        match contexts.saturating_mul(distinct) {
            all if all <= values * Self::SPARSE => Self::All {
                counts: vec![0; all],
                distinct,
            },
            _ => Self::Some(IdMap::with_capacity_and_hasher(
                values,
                BuildHasherDefault::default(),
            )),
        }
    }

    fn count(&mut self, context: u32, id: u32) -> &mut u32 {
        match self {
            Self::All { counts, distinct } => {
                &mut counts[context as usize * *distinct + id as usize]
            }
            Self::Some(counts) => counts.entry((context, id)).or_default(),
        }
    }
}

/// The size of `ids` in bits for an adaptive coder with `contexts`: a value that its context has seen
/// is cheap, a value that only others have seen costs an escape.
pub(crate) fn adaptive_bits(ids: &[u32], distinct: usize, contexts: &[u32]) -> f64 {
    let context_count = contexts.iter().max().map_or(0, |&last| last as usize + 1);
    let mut pairs = PairCounts::new(context_count, distinct, ids.len());
    let mut totals = vec![0u32; context_count];
    let mut singles = vec![0u32; distinct];
    let (mut bits, mut product) = (0.0, 1.0f64);
    for (seen, (&id, &context)) in ids.iter().zip(contexts).enumerate() {
        let pair = pairs.count(context, id);
        let total = &mut totals[context as usize];
        let single = &mut singles[id as usize];
        let general = (f64::from(*single) + 0.5) / (seen as f64 + 0.5 * distinct as f64);
        let probability = (f64::from(*pair) + general) / (f64::from(*total) + 1.0);
        // A logarithm takes longer than all else here.
        product *= probability;
        if product < 1e-250 {
            bits -= product.log2();
            product = 1.0;
        }
        *pair += 1;
        *total += 1;
        *single += 1;
    }
    bits - product.log2()
}
