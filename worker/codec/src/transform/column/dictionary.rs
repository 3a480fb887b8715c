//! Few distinct values: each once, and an index for every row. Sorted, indexes take one or two bytes;
//! in the order of their use they are numbers, of which small ones are many.

use std::collections::HashMap;

use super::{
    Damage, Known, Node, RawStream, Reader, Scope, Source, Tag, Values, decode as decode_column,
    encode as encode_column, number,
};
use crate::{bytes::put_varint, transform::streams::Kind};

/// Indexes take at most two bytes.
const MOST_ENTRIES: usize = 1 << 16;

/// The order of the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By their bytes.
    Sorted,
    /// The most used first.
    Ranked,
}

/// Fits where values repeat.
pub fn encode(values: &Values, order: Order, scope: &Scope<'_>) -> Option<Node> {
    let mut index: HashMap<&[u8], u32> = HashMap::new();
    let most = MOST_ENTRIES.min(values.len() * 3 / 4);
    for value in values.iter() {
        *index.entry(value).or_default() += 1;
        if index.len() > most {
            return None;
        }
    }
    let mut entries: Vec<&[u8]> = index.keys().copied().collect();
    match order {
        Order::Sorted => entries.sort_unstable(),
        Order::Ranked => {
            entries.sort_unstable_by(|a, b| index[b].cmp(&index[a]).then_with(|| a.cmp(b)));
        }
    }
    for (number, entry) in entries.iter().enumerate() {
        index.insert(entry, number as u32);
    }
    let indexes: Vec<u32> = values.iter().map(|value| index[value]).collect();
    let tag = match order {
        Order::Sorted => Tag::Dictionary,
        Order::Ranked => Tag::Ranked,
    };
    let mut node = Node::of(tag);
    put_varint(&mut node.plan, entries.len() as u64);
    let entries: Values = entries.into_iter().collect();
    node.append(encode_column(
        &entries,
        &scope.inside(Tag::Dictionary, Default::default()),
    ));
    if order == Order::Ranked {
        let ranks: Vec<i64> = indexes.into_iter().map(i64::from).collect();
        number::put_integers(&ranks, scope.effort, &mut node);
        return Some(node);
    }
    let mut stream = |shift: u32| {
        node.streams.push(RawStream::new(
            "index",
            Kind::Bytes,
            indexes.iter().map(|index| (index >> shift) as u8).collect(),
        ));
    };
    if entries.len() > 256 {
        stream(8);
    }
    stream(0);
    Some(node)
}

/// Reads `count` values.
pub fn decode(
    count: usize,
    order: Order,
    plan: &mut Reader<'_>,
    source: &mut Source,
    known: &Known<'_>,
) -> Result<Values, Damage> {
    let entries = plan.size(MOST_ENTRIES, "a dictionary")?;
    let entries = decode_column(entries, plan, source, &known.inside(Default::default()))?;
    let indexes = match order {
        Order::Sorted => read_bytes(count, entries.len() > 256, source)?,
        Order::Ranked => number::read_integers(count, plan, source)?,
    };
    let mut values = Values::default();
    for index in indexes {
        let index = usize::try_from(index)
            .ok()
            .filter(|&index| index < entries.len())
            .ok_or_else(|| Damage::new("an index outside its dictionary"))?;
        values.push_bounded(entries.get(index), known.limit)?;
    }
    Ok(values)
}

fn read_bytes(count: usize, two: bool, source: &mut Source) -> Result<Vec<i64>, Damage> {
    let high = if two {
        source.next("index")?
    } else {
        vec![0; count]
    };
    let low = source.next("index")?;
    if high.len() != count || low.len() != count {
        return Err(Damage::new(
            "a dictionary's indexes are not as many as its values",
        ));
    }
    let both = high.into_iter().zip(low);
    Ok(both
        .map(|(high, low)| i64::from(high) << 8 | i64::from(low))
        .collect())
}
