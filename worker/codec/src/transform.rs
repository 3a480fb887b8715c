//! The lossless rearrangements that a block may go through before it is coded: a table of columns,
//! each column written in its best way, and all streams behind a directory.

mod column;
mod csv;
mod json;
pub mod streams;
mod text;
mod values;

use rayon::prelude::*;

use self::{
    column::{Known, Refs, Scope},
    streams::{RawStream, Source},
    values::Values,
};
use super::{
    Damage,
    block::Stream,
    bytes::{Reader, put_varint},
    hybrid::Effort,
};

/// Which rearrangement. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Transform {
    /// The bytes as they are.
    None = 0,
    /// JSON by paths.
    Json = 1,
    /// CSV by places.
    Csv = 2,
    /// Lines of text by templates.
    Text = 3,
}

/// A block as columns.
struct Table {
    /// What it takes to put the columns together again.
    head: Vec<u8>,
    columns: Vec<Values>,
    /// The columns' names for people.
    names: Vec<String>,
}

impl Transform {
    /// Every transform, by number.
    pub const ALL: [Self; 4] = [Self::None, Self::Json, Self::Csv, Self::Text];

    /// The transform of a format byte.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|&transform| transform as u8 == byte)
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Text => "text",
        }
    }

    fn split(self, raw: &[u8]) -> Option<Table> {
        match self {
            Self::None => None,
            Self::Json => json::split(raw),
            Self::Csv => csv::split(raw),
            Self::Text => text::split(raw),
        }
    }

    fn join(
        self,
        head: &[u8],
        columns: &[Values],
        limit: usize,
    ) -> Result<(Vec<u8>, Vec<String>), Damage> {
        match self {
            Self::None => Err(Damage::new("columns without a transform")),
            Self::Json => json::join(head, columns, limit),
            Self::Csv => Ok((csv::join(head, columns, limit)?, csv::names(head))),
            Self::Text => Ok((text::join(head, columns, limit)?, vec!["line".into()])),
        }
    }
}

/// A block's payload, and where its bytes went.
#[derive(Debug)]
pub struct Encoded {
    /// The payload.
    pub payload: Vec<u8>,
    /// Its streams.
    pub streams: Vec<Stream>,
}

/// The most columns of a block.
const MOST_COLUMNS: usize = 20_000;

/// Rearranges and codes a block; nothing if the transform does not fit it. What is answered was
/// decoded again and found equal.
pub fn encode(transform: Transform, raw: &[u8], effort: Effort) -> Option<Encoded> {
    let table = transform.split(raw)?;
    if table.columns.len() > MOST_COLUMNS {
        return None;
    }
    let ids: Vec<(Vec<u32>, usize)> = match effort {
        Effort::Fast => Vec::new(),
        Effort::Balanced | Effort::Max => table.columns.par_iter().map(Values::ids).collect(),
    };
    let nodes: Vec<column::Node> = table
        .columns
        .par_iter()
        .enumerate()
        .map(|(number, values)| {
            let refs = Refs::before(number, values.len(), &table.columns, &ids);
            column::encode(values, &Scope::new(effort, refs))
        })
        .collect();
    let mut plan = Vec::new();
    put_varint(&mut plan, table.head.len() as u64);
    plan.extend_from_slice(&table.head);
    put_varint(&mut plan, table.columns.len() as u64);
    for values in &table.columns {
        put_varint(&mut plan, values.len() as u64);
    }
    let mut raw_streams: Vec<RawStream> = Vec::new();
    let mut owners = Vec::new();
    for (number, node) in nodes.into_iter().enumerate() {
        plan.extend(node.plan);
        owners.extend(node.streams.iter().map(|_| number));
        raw_streams.extend(node.streams);
    }
    let size: usize = plan.len()
        + raw_streams
            .iter()
            .map(|stream| stream.bytes.len())
            .sum::<usize>();
    if size > streams::raw_limit(raw.len()) {
        return None;
    }
    let (payload, placed) = streams::write(&plan, &raw_streams, effort);
    // Nothing is left to hope: what does not come back is not written.
    let back = decode(transform, &payload, raw.len());
    let comes_back = back.as_deref() == Ok(raw);
    debug_assert!(
        comes_back,
        "{} transform: {:?}",
        transform.name(),
        back.err()
    );
    if !comes_back {
        return None;
    }
    let streams = placed
        .iter()
        .zip(&raw_streams)
        .zip(owners)
        .map(|((placed, stream), owner)| Stream {
            name: table.names.get(owner).cloned().unwrap_or_default(),
            coding: stream.coding.into(),
            codec: placed.codec,
            raw_bytes: placed.raw_bytes,
            packed_bytes: placed.packed_bytes,
        })
        .collect();
    Some(Encoded {
        streams: with_directory(streams, payload.len()),
        payload,
    })
}

/// Restores a block from its payload.
pub fn decode(transform: Transform, payload: &[u8], raw_len: usize) -> Result<Vec<u8>, Damage> {
    let mut source = Source::read(payload, raw_len)?;
    Ok(rebuild(transform, &mut source, raw_len)?.0)
}

/// Where a payload's bytes lie.
pub fn inspect(
    transform: Transform,
    payload: &[u8],
    raw_len: usize,
) -> Result<Vec<Stream>, Damage> {
    let mut source = Source::read(payload, raw_len)?;
    let (_, names) = rebuild(transform, &mut source, raw_len)?;
    let streams = source
        .taken
        .iter()
        .zip(&source.placed)
        .map(|((column, coding), placed)| Stream {
            name: names
                .get(*column)
                .cloned()
                .unwrap_or_else(|| format!("column {column}")),
            coding: (*coding).into(),
            codec: placed.codec,
            raw_bytes: placed.raw_bytes,
            packed_bytes: placed.packed_bytes,
        })
        .collect();
    Ok(with_directory(streams, payload.len()))
}

/// What the streams do not account for is the directory.
fn with_directory(mut streams: Vec<Stream>, payload_len: usize) -> Vec<Stream> {
    let packed: u64 = streams.iter().map(|stream| stream.packed_bytes).sum();
    streams.push(Stream {
        name: "directory".into(),
        coding: "plan".into(),
        codec: super::entropy::Codec::Columns,
        raw_bytes: 0,
        packed_bytes: (payload_len as u64).saturating_sub(packed),
    });
    streams
}

fn rebuild(
    transform: Transform,
    source: &mut Source,
    raw_len: usize,
) -> Result<(Vec<u8>, Vec<String>), Damage> {
    let plan = std::mem::take(&mut source.plan);
    let mut plan = Reader::new(&plan);
    let head_len = plan.size(plan.remaining(), "the head")?;
    let head = plan.take(head_len)?;
    let count = plan.size(MOST_COLUMNS, "the number of columns")?;
    let counts = (0..count)
        .map(|_| plan.size(raw_len + 1, "a column"))
        .collect::<Result<Vec<_>, _>>()?;
    // Every value comes from a byte of the block, or from the border before it, and is in three
    // columns at most. Values without bytes would cost memory all the same.
    let values = counts.iter().sum::<usize>();
    if values > raw_len * 4 + MOST_COLUMNS {
        return Err(Damage::new(format!(
            "{values} values in a block of {raw_len} bytes"
        )));
    }
    let mut columns: Vec<Values> = Vec::with_capacity(count);
    for (number, count) in counts.into_iter().enumerate() {
        source.column = number;
        let known = Known {
            limit: raw_len * 2 + 64,
            refs: Refs::before(number, count, &columns, &[]),
            depth: 0,
        };
        let values = column::decode(count, &mut plan, source, &known)?;
        columns.push(values);
    }
    source.finish()?;
    if plan.remaining() > 0 {
        return Err(Damage::new("the plan is longer than its columns"));
    }
    transform.join(head, &columns, raw_len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_nothing_cost_no_memory() {
        let mut plan = vec![0];
        put_varint(&mut plan, MOST_COLUMNS as u64);
        for _ in 0..MOST_COLUMNS {
            put_varint(&mut plan, 1_000_000);
        }
        // Each of them constant, and the constant empty.
        plan.extend([1, 0].repeat(MOST_COLUMNS));
        let mut source = Source::of_raw(&plan, &[]);
        let result = rebuild(Transform::Csv, &mut source, 1_000_000);
        assert!(matches!(result, Err(Damage(reason)) if reason.contains("20000000000 values")));
    }
}
