//! Delimited text: one column per field position. Fields keep their quotes, and rows may differ in
//! length. The first row, usually a header, is kept apart.

use super::{ColumnTable, values::ColumnValues};
use crate::{
    Damage,
    bytes::{FieldReader, put_varint},
};

const DELIMITERS: [u8; 4] = [b',', b'\t', b';', b'|'];
const MAX_COLUMNS: usize = 1024;
/// The number of rows in which the delimiter is searched.
const SAMPLE_ROWS: usize = 50;

/// The length of the field at the start of `text`: up to the delimiter after the closing quote, or up
/// to the next delimiter.
fn field_len(text: &[u8], delimiter: u8) -> usize {
    let mut at = 0;
    if text.first() == Some(&b'"') {
        at = 1;
        while at < text.len() {
            let Some(quote) = text[at..].iter().position(|&byte| byte == b'"') else {
                break;
            };
            at += quote + 1;
            if text.get(at) != Some(&b'"') {
                break;
            }
            at += 1;
        }
        let closed =
            matches!(text.get(at), None | Some(b'\n' | b'\r')) || text.get(at) == Some(&delimiter);
        if !closed || text[at - 1] != b'"' || at < 2 {
            at = 0;
        }
    }
    at + text[at..]
        .iter()
        .position(|&byte| byte == delimiter || byte == b'\n')
        .unwrap_or(text.len() - at)
}

/// Calls `field` with every field of a row and returns the text after the row's newline.
fn each_field<'a>(mut text: &'a [u8], delimiter: u8, mut field: impl FnMut(&'a [u8])) -> &'a [u8] {
    loop {
        let len = field_len(text, delimiter);
        field(&text[..len]);
        match text.get(len) {
            Some(b'\n') => return &text[len + 1..],
            Some(_) => text = &text[len + 1..],
            None => return &[],
        }
    }
}

/// The delimiter with the most columns among those with equal columns in nearly all rows.
fn delimiter(raw: &[u8]) -> Option<u8> {
    DELIMITERS
        .into_iter()
        .filter_map(|delimiter| {
            let mut counts = Vec::new();
            let mut rest = raw;
            while !rest.is_empty() && counts.len() < SAMPLE_ROWS {
                let mut fields = 0;
                rest = each_field(rest, delimiter, |_| fields += 1);
                counts.push(fields);
            }
            let usual = *counts.get(counts.len() / 2)?;
            let same = counts.iter().filter(|&&count| count == usual).count();
            (usual > 1 && same * 10 >= counts.len() * 8).then_some((usual, delimiter))
        })
        .max_by_key(|&(usual, _)| usual)
        .map(|(_, delimiter)| delimiter)
}

/// Splits CSV into columns: the number of fields in each row, then the fields by position.
pub(super) fn split(raw: &[u8]) -> Option<ColumnTable> {
    let delimiter = delimiter(raw)?;
    let mut first = Vec::new();
    let mut rest = each_field(raw, delimiter, |field| first.push(field));
    let first_len = raw.len() - rest.len();
    let mut counts = ColumnValues::default();
    let mut columns: Vec<ColumnValues> = Vec::new();
    let ended = raw.last() == Some(&b'\n');
    // A carriage return at the end of every row belongs to the rows, not to the last column.
    let carriage = !rest.is_empty() && lines_end_in_carriage_return(rest);
    while !rest.is_empty() {
        let mut fields = Vec::new();
        rest = each_field(rest, delimiter, |field| fields.push(field));
        if let Some(last) = fields.last_mut().filter(|_| carriage) {
            *last = last.strip_suffix(b"\r")?;
        }
        counts.push_number(fields.len());
        if fields.len() > MAX_COLUMNS {
            return None;
        }
        columns.resize(columns.len().max(fields.len()), ColumnValues::default());
        for (column, field) in columns.iter_mut().zip(fields) {
            column.push(field);
        }
    }
    if counts.len() < 3 {
        return None;
    }
    let mut head = vec![delimiter, u8::from(ended), u8::from(carriage)];
    put_varint(&mut head, first_len as u64);
    head.extend_from_slice(&raw[..first_len]);
    let mut names = vec!["fields".to_string()];
    names.extend((0..columns.len()).map(|place| name(place, first.get(place))));
    columns.insert(0, counts);
    Some(ColumnTable {
        head,
        columns,
        names,
    })
}

fn name(place: usize, header: Option<&&[u8]>) -> String {
    let text = String::from_utf8_lossy(header.copied().unwrap_or_default()).into_owned();
    let text: String = text
        .chars()
        .filter(|letter| !letter.is_control())
        .take(40)
        .collect();
    format!("{}:{text}", place + 1)
}

/// The names of the columns from the head, for reports.
pub(super) fn names(head: &[u8]) -> Vec<String> {
    let Some((&[delimiter, ..], rest)) = head.split_first_chunk::<3>() else {
        return Vec::new();
    };
    let mut reader = FieldReader::new(rest);
    if reader.varint().is_err() {
        return Vec::new();
    }
    let mut names = vec!["fields".to_string()];
    each_field(reader.rest(), delimiter, |field| {
        names.push(name(names.len() - 1, Some(&field)))
    });
    names
}

fn lines_end_in_carriage_return(text: &[u8]) -> bool {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.split(|&byte| byte == b'\n')
        .all(|line| line.ends_with(b"\r"))
}

/// Joins the rows.
pub(super) fn join(head: &[u8], columns: &[ColumnValues], limit: usize) -> Result<Vec<u8>, Damage> {
    let mut reader = FieldReader::new(head);
    let (delimiter, ended, carriage) = (reader.byte()?, reader.byte()? == 1, reader.byte()? == 1);
    let first_len = reader.size(limit, "the first row")?;
    let mut raw = reader.take(first_len)?.to_vec();
    let Some((counts, columns)) = columns.split_first() else {
        return Err(Damage::new("CSV without columns"));
    };
    let mut used = vec![0; columns.len()];
    for (row, count) in counts.iter().enumerate() {
        let fields: usize = std::str::from_utf8(count)
            .ok()
            .and_then(|count| count.parse().ok())
            .filter(|&count| count >= 1 && count <= columns.len())
            .ok_or_else(|| Damage::new("a row with an impossible number of fields"))?;
        for (place, column) in columns.iter().take(fields).enumerate() {
            if place > 0 {
                raw.push(delimiter);
            }
            if used[place] >= column.len() {
                return Err(Damage::new("a field is missing"));
            }
            raw.extend_from_slice(column.get(used[place]));
            used[place] += 1;
        }
        if carriage {
            raw.push(b'\r');
        }
        if row + 1 < counts.len() || ended {
            raw.push(b'\n');
        }
        if raw.len() > limit {
            return Err(Damage::new("the rows are longer than their block"));
        }
    }
    Ok(raw)
}
