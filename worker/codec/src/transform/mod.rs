//! A block as a table of columns: the transforms split it, each column gets its smallest coding, and
//! the streams follow a directory.

mod column;
mod csv;
mod json;
mod streams;
mod text;
mod values;

use rayon::prelude::*;

use self::{
    column::{ColumnRefs, DecodeContext, EncodeContext, EncodedColumn},
    streams::{Placed, RawStream, StreamSource},
    values::ColumnValues,
};
use crate::{
    Codec, Damage, Effort, StreamInfo, Transform,
    bytes::{FieldReader, put_varint},
};

/// A block as columns.
struct ColumnTable {
    /// What joining needs besides the columns.
    head: Vec<u8>,
    columns: Vec<ColumnValues>,
    /// The names of the columns, for reports.
    names: Vec<String>,
}

fn split(transform: Transform, raw: &[u8]) -> Option<ColumnTable> {
    match transform {
        Transform::None => None,
        Transform::Json => json::split(raw),
        Transform::Csv => csv::split(raw),
        Transform::Text => text::split(raw),
    }
}

/// The raw block and the names of the columns.
fn join(
    transform: Transform,
    head: &[u8],
    columns: &[ColumnValues],
    limit: usize,
) -> Result<(Vec<u8>, Vec<String>), Damage> {
    match transform {
        Transform::None => Err(Damage::new("columns without a transform")),
        Transform::Json => json::join(head, columns, limit),
        Transform::Csv => Ok((csv::join(head, columns, limit)?, csv::names(head))),
        Transform::Text => Ok((text::join(head, columns, limit)?, vec!["line".into()])),
    }
}

/// The payload of a block and the sizes of its streams.
#[derive(Debug)]
pub struct EncodedTable {
    /// The payload.
    pub payload: Vec<u8>,
    /// Its streams.
    pub streams: Vec<StreamInfo>,
}

/// The largest number of columns of a block.
const MAX_COLUMNS: usize = 20_000;

/// Splits and codes a block; `None` if the transform does not fit it. The payload was decoded and
/// compared.
pub fn encode(transform: Transform, raw: &[u8], effort: Effort) -> Option<EncodedTable> {
    let table = split(transform, raw)?;
    if table.columns.len() > MAX_COLUMNS {
        return None;
    }
    let columns = encode_columns(&table, effort);
    let mut plan = plan_head(&table);
    let mut raw_streams: Vec<RawStream> = Vec::new();
    let mut owners = Vec::new();
    for (number, column) in columns.into_iter().enumerate() {
        plan.extend(column.plan);
        owners.extend(column.streams.iter().map(|_| number));
        raw_streams.extend(column.streams);
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
    if !decodes_to(transform, &payload, raw) {
        return None;
    }
    let streams = placed
        .iter()
        .zip(&raw_streams)
        .zip(owners)
        .map(|((placed, stream), owner)| {
            let name = table.names.get(owner).cloned().unwrap_or_default();
            stream_info(name, stream.coding, placed)
        })
        .collect();
    Some(EncodedTable {
        streams: with_directory(streams, payload.len()),
        payload,
    })
}

fn encode_columns(table: &ColumnTable, effort: Effort) -> Vec<EncodedColumn> {
    let ids: Vec<(Vec<u32>, usize)> = match effort {
        Effort::Fast => Vec::new(),
        Effort::Balanced | Effort::Max => table.columns.par_iter().map(ColumnValues::ids).collect(),
    };
    table
        .columns
        .par_iter()
        .enumerate()
        .map(|(number, values)| {
            let refs = ColumnRefs::before(number, values.len(), &table.columns, &ids);
            column::encode(values, &EncodeContext::new(effort, refs))
        })
        .collect()
}

/// The plan without the codings of the columns.
fn plan_head(table: &ColumnTable) -> Vec<u8> {
    let mut plan = Vec::new();
    put_varint(&mut plan, table.head.len() as u64);
    plan.extend_from_slice(&table.head);
    put_varint(&mut plan, table.columns.len() as u64);
    for values in &table.columns {
        put_varint(&mut plan, values.len() as u64);
    }
    plan
}

/// Whether the payload restores `raw`. A payload that does not is never written.
fn decodes_to(transform: Transform, payload: &[u8], raw: &[u8]) -> bool {
    let restored = decode(transform, payload, raw.len());
    let equal = restored.as_deref() == Ok(raw);
    debug_assert!(
        equal,
        "{} transform: {:?}",
        transform.name(),
        restored.err()
    );
    equal
}

fn stream_info(name: String, coding: &str, placed: &Placed) -> StreamInfo {
    StreamInfo {
        name,
        coding: coding.into(),
        codec: placed.codec,
        raw_bytes: placed.raw_bytes,
        packed_bytes: placed.packed_bytes,
    }
}

/// Restores a block from its payload.
pub fn decode(transform: Transform, payload: &[u8], raw_len: usize) -> Result<Vec<u8>, Damage> {
    let mut source = StreamSource::read(payload, raw_len)?;
    Ok(rebuild(transform, &mut source, raw_len)?.0)
}

/// The sizes of a payload's streams.
pub fn inspect(
    transform: Transform,
    payload: &[u8],
    raw_len: usize,
) -> Result<Vec<StreamInfo>, Damage> {
    let mut source = StreamSource::read(payload, raw_len)?;
    let (_, names) = rebuild(transform, &mut source, raw_len)?;
    let streams = source
        .taken
        .iter()
        .zip(&source.placed)
        .map(|((column, coding), placed)| {
            let name = names
                .get(*column)
                .cloned()
                .unwrap_or_else(|| format!("column {column}"));
            stream_info(name, coding, placed)
        })
        .collect();
    Ok(with_directory(streams, payload.len()))
}

/// Adds the directory, which is the payload without the streams.
fn with_directory(mut streams: Vec<StreamInfo>, payload_len: usize) -> Vec<StreamInfo> {
    let packed: u64 = streams.iter().map(|stream| stream.packed_bytes).sum();
    streams.push(StreamInfo {
        name: "directory".into(),
        coding: "plan".into(),
        codec: Codec::Columns,
        raw_bytes: 0,
        packed_bytes: (payload_len as u64).saturating_sub(packed),
    });
    streams
}

fn rebuild(
    transform: Transform,
    source: &mut StreamSource,
    raw_len: usize,
) -> Result<(Vec<u8>, Vec<String>), Damage> {
    let plan = std::mem::take(&mut source.plan);
    let mut plan = FieldReader::new(&plan);
    let head_len = plan.size(plan.remaining(), "the head")?;
    let head = plan.take(head_len)?;
    let count = plan.size(MAX_COLUMNS, "the number of columns")?;
    let counts = (0..count)
        .map(|_| plan.size(raw_len + 1, "a column"))
        .collect::<Result<Vec<_>, _>>()?;
    // Every value takes a byte of the block or a separator, and is in three columns at most. Empty
    // values take memory too.
    let values = counts.iter().sum::<usize>();
    if values > raw_len * 4 + MAX_COLUMNS {
        return Err(Damage::new(format!(
            "{values} values in a block of {raw_len} bytes"
        )));
    }
    let mut columns: Vec<ColumnValues> = Vec::with_capacity(count);
    for (number, count) in counts.into_iter().enumerate() {
        source.column = number;
        let known = DecodeContext {
            limit: raw_len * 2 + 64,
            refs: ColumnRefs::before(number, count, &columns, &[]),
            depth: 0,
        };
        let values = column::decode(count, &mut plan, source, &known)?;
        columns.push(values);
    }
    source.finish()?;
    if plan.remaining() > 0 {
        return Err(Damage::new("the plan is longer than its columns"));
    }
    join(transform, head, &columns, raw_len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn false_counts_of_empty_values_are_refused() {
        let mut plan = vec![0];
        put_varint(&mut plan, MAX_COLUMNS as u64);
        for _ in 0..MAX_COLUMNS {
            put_varint(&mut plan, 1_000_000);
        }
        // Each column has the constant coding with an empty value.
        plan.extend([1, 0].repeat(MAX_COLUMNS));
        let mut source = StreamSource::of_raw(&plan, &[]);
        let result = rebuild(Transform::Csv, &mut source, 1_000_000);
        assert!(matches!(result, Err(Damage(reason)) if reason.contains("20000000000 values")));
    }
}
