//! Values of several classes in one column, such as numbers with gaps or strings with `null`: the
//! class of every value, then a column for each class. Strings lose their quotes.

use super::{
    context::{DecodeContext, EncodeContext, EncodedColumn, Tag},
    decimal, decode as decode_column, decode_rows, encode as encode_column,
};
use crate::{
    Damage,
    bytes::{FieldReader, put_varint},
    transform::{streams::StreamSource, values::ColumnValues},
};

const EMPTY: u8 = 0;
const NUMBER: u8 = 1;
const QUOTED: u8 = 2;
const KEYWORD: u8 = 3;
const OTHER: u8 = 4;
const CLASSES: usize = 5;

fn class(value: &[u8]) -> u8 {
    match value {
        [] => EMPTY,
        [b'"', .., b'"'] => QUOTED,
        b"true" | b"false" | b"null" | b"NA" | b"N/A" | b"NULL" | b"None" | b"NaN" | b"nan"
        | b"-" | b"\\N" => KEYWORD,
        _ if decimal::is_number(value) => NUMBER,
        _ => OTHER,
    }
}

/// Whether there are several classes, or quotes to remove.
pub(super) fn fits(values: &ColumnValues) -> bool {
    let first = class(values.get(0));
    first == QUOTED || values.iter().any(|value| class(value) != first)
}

/// Fits any column.
pub(super) fn encode(values: &ColumnValues, context: &EncodeContext<'_>) -> Option<EncodedColumn> {
    let classes: Vec<u8> = values.iter().map(class).collect();
    let mut column = EncodedColumn::of(Tag::Classes);
    let marks: ColumnValues = classes.iter().map(std::slice::from_ref).collect();
    column.append(encode_column(
        &marks,
        &context.inside(Tag::Classes, u64::from(EMPTY), context.refs.clone()),
    ));
    drop(marks);
    for wanted in EMPTY + 1..CLASSES as u8 {
        let rows: Vec<u32> = (0..values.len() as u32)
            .filter(|&row| classes[row as usize] == wanted)
            .collect();
        put_varint(&mut column.plan, rows.len() as u64);
        let members: ColumnValues = rows
            .iter()
            .map(|&row| strip(wanted, values.get(row as usize)))
            .collect();
        column.append(encode_column(
            &members,
            &context.inside(Tag::Classes, wanted.into(), context.refs.select(&rows)),
        ));
    }
    Some(column)
}

fn strip(class: u8, value: &[u8]) -> &[u8] {
    match (class, value) {
        (QUOTED, [_, inner @ .., _]) => inner,
        _ => value,
    }
}

/// Reads `count` values.
pub(super) fn decode(
    count: usize,
    plan: &mut FieldReader<'_>,
    source: &mut StreamSource,
    context: &DecodeContext<'_>,
) -> Result<ColumnValues, Damage> {
    let marks = decode_column(count, plan, source, &context.inside(context.refs.clone()))?;
    let classes: Vec<u8> = marks
        .iter()
        .map(|mark| mark.first().copied().unwrap_or(u8::MAX))
        .collect();
    drop(marks);
    let mut columns = vec![ColumnValues::default()];
    for wanted in EMPTY + 1..CLASSES as u8 {
        let rows: Vec<u32> = (0..count as u32)
            .filter(|&row| classes[row as usize] == wanted)
            .collect();
        if plan.size(context.limit + 1, "a class")? != rows.len() {
            return Err(Damage::new("the size of a class does not match its marks"));
        }
        columns.push(decode_rows(&rows, plan, source, context)?);
    }
    let mut values = ColumnValues::default();
    let mut used = [0; CLASSES];
    let mut quoted = Vec::new();
    for class in classes {
        let Some(column) = columns.get(usize::from(class)) else {
            return Err(Damage::new("an unknown class"));
        };
        let value = column.get(used[usize::from(class)]);
        used[usize::from(class)] += 1;
        if class == QUOTED {
            quoted.clear();
            quoted.push(b'"');
            quoted.extend_from_slice(value);
            quoted.push(b'"');
            values.push_bounded(&quoted, context.limit)?;
        } else {
            values.push_bounded(value, context.limit)?;
        }
    }
    Ok(values)
}
