//! Few distinct values: each once, sorted, and an index for every row, in one or two bytes.

use std::collections::HashMap;

use super::{
    Damage, Known, Node, RawStream, Reader, Scope, Source, Tag, Values, decode as decode_column,
    encode as encode_column,
};
use crate::codec::{bytes::put_varint, transform::streams::Kind};

/// Indexes take at most two bytes.
const MOST_ENTRIES: usize = 1 << 16;

/// Fits where values repeat.
pub fn encode(values: &Values, scope: &Scope<'_>) -> Option<Node> {
    let mut index: HashMap<&[u8], u32> = HashMap::new();
    let most = MOST_ENTRIES.min(values.len() * 3 / 4);
    for value in values.iter() {
        index.insert(value, 0);
        if index.len() > most {
            return None;
        }
    }
    let mut entries: Vec<&[u8]> = index.keys().copied().collect();
    entries.sort_unstable();
    for (number, entry) in entries.iter().enumerate() {
        index.insert(entry, number as u32);
    }
    let indexes: Vec<u32> = values.iter().map(|value| index[value]).collect();
    let mut node = Node::of(Tag::Dictionary);
    put_varint(&mut node.plan, entries.len() as u64);
    let entries: Values = entries.into_iter().collect();
    node.append(encode_column(
        &entries,
        &scope.inside(Tag::Dictionary, Default::default()),
    ));
    let mut stream = |shift: u32| {
        node.streams.push(RawStream {
            coding: "index",
            kind: Kind::Bytes,
            bytes: indexes.iter().map(|index| (index >> shift) as u8).collect(),
        });
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
    plan: &mut Reader<'_>,
    source: &mut Source,
    known: &Known<'_>,
) -> Result<Values, Damage> {
    let entries = plan.size(MOST_ENTRIES, "a dictionary")?;
    let entries = decode_column(entries, plan, source, &known.inside(Default::default()))?;
    let high = if entries.len() > 256 {
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
    let mut values = Values::default();
    for (&high, &low) in high.iter().zip(&low) {
        let index = usize::from(high) << 8 | usize::from(low);
        if index >= entries.len() {
            return Err(Damage::new("an index outside its dictionary"));
        }
        values.push_bounded(entries.get(index), known.limit)?;
    }
    Ok(values)
}
