//! Values of several sorts in one column, such as numbers with gaps or strings with `null`: the
//! sort of every value, then each sort as a column of its own. Quotes around strings go.

use super::{
    Damage, Known, Node, Reader, Scope, Source, Tag, Values, decimal, decode as decode_column,
    encode as encode_column,
};
use crate::bytes::put_varint;

const EMPTY: u8 = 0;
const NUMBER: u8 = 1;
const QUOTED: u8 = 2;
const WORD: u8 = 3;
const OTHER: u8 = 4;
const CLASSES: usize = 5;

fn class(value: &[u8]) -> u8 {
    match value {
        [] => EMPTY,
        [b'"', .., b'"'] => QUOTED,
        b"true" | b"false" | b"null" | b"NA" | b"N/A" | b"NULL" | b"None" | b"NaN" | b"nan"
        | b"-" | b"\\N" => WORD,
        _ if decimal::is_number(value) => NUMBER,
        _ => OTHER,
    }
}

/// Whether there is more than one class, or quotes to take off.
pub fn fits(values: &Values) -> bool {
    let first = class(values.get(0));
    first == QUOTED || values.iter().any(|value| class(value) != first)
}

/// Fits any column.
pub fn encode(values: &Values, scope: &Scope<'_>) -> Option<Node> {
    let classes: Vec<u8> = values.iter().map(class).collect();
    let mut node = Node::of(Tag::Classes);
    let marks: Values = classes.iter().map(std::slice::from_ref).collect();
    node.append(encode_column(
        &marks,
        &scope.inside(Tag::Classes, scope.refs.clone()),
    ));
    for wanted in EMPTY + 1..CLASSES as u8 {
        let rows: Vec<u32> = (0..values.len() as u32)
            .filter(|&row| classes[row as usize] == wanted)
            .collect();
        put_varint(&mut node.plan, rows.len() as u64);
        let members: Values = rows
            .iter()
            .map(|&row| strip(wanted, values.get(row as usize)))
            .collect();
        node.append(encode_column(
            &members,
            &scope.inside(Tag::Classes, scope.refs.select(&rows)),
        ));
    }
    Some(node)
}

fn strip(class: u8, value: &[u8]) -> &[u8] {
    match (class, value) {
        (QUOTED, [_, inner @ .., _]) => inner,
        _ => value,
    }
}

/// Reads `count` values.
pub fn decode(
    count: usize,
    plan: &mut Reader<'_>,
    source: &mut Source,
    known: &Known<'_>,
) -> Result<Values, Damage> {
    let marks = decode_column(count, plan, source, &known.inside(known.refs.clone()))?;
    let classes: Vec<u8> = marks
        .iter()
        .map(|mark| mark.first().copied().unwrap_or(u8::MAX))
        .collect();
    let mut columns = vec![Values::default()];
    for wanted in EMPTY + 1..CLASSES as u8 {
        let rows: Vec<u32> = (0..count as u32)
            .filter(|&row| classes[row as usize] == wanted)
            .collect();
        if plan.size(known.limit + 1, "a class")? != rows.len() {
            return Err(Damage::new("a class is not as large as its marks say"));
        }
        columns.push(known.rows(&rows, plan, source)?);
    }
    let mut values = Values::default();
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
            values.push_bounded(&quoted, known.limit)?;
        } else {
            values.push_bounded(value, known.limit)?;
        }
    }
    Ok(values)
}
