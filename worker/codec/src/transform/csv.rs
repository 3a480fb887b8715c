//! Delimited text: one column per field position. Fields keep their quotes, and rows may differ in
//! length. The first row, usually a header, is kept apart.

use super::{ColumnTable, values::ColumnValues};
use crate::{
    Damage,
    bytes::{FieldReader, put_varint},
    hash::mix,
};

const DELIMITERS: [u8; 4] = [b',', b'\t', b';', b'|'];
const MAX_COLUMNS: usize = 1024;
/// The number of rows in which delimiters are searched.
const SAMPLE_ROWS: usize = 50;

/// How rows are split into fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowLayout {
    pub(crate) delimiter: u8,
    /// The last of this many fields is the rest of the row.
    pub(crate) max_fields: u16,
}

/// The length of the field at the start of `text`: up to the delimiter after a quoted part, or up to
/// the next delimiter. In fields between spaces the quoted part may follow a key and `=`.
fn field_len(text: &[u8], delimiter: u8) -> usize {
    let quote = match delimiter {
        b' ' => quoted_value(text),
        _ => 0,
    };
    let mut at = quote;
    if text.get(quote) == Some(&b'"') {
        at = closing_quote(text, quote)
            .filter(|&end| {
                matches!(text.get(end), None | Some(b'\n' | b'\r'))
                    || text.get(end) == Some(&delimiter)
            })
            .unwrap_or(quote);
    } else if delimiter == b' ' && text.first() == Some(&b'[') {
        at = bracketed(text);
    }
    at + text[at..]
        .iter()
        .position(|&byte| byte == delimiter || byte == b'\n')
        .unwrap_or(text.len() - at)
}

/// The end of the quoted part that begins at `start`, after its closing quote. Two quotes are a quote.
fn closing_quote(text: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        at += text[at..].iter().position(|&byte| byte == b'"')? + 1;
        if text.get(at) != Some(&b'"') {
            return Some(at);
        }
        at += 1;
    }
}

/// The longest key before a quoted value.
const MAX_KEY: usize = 40;

/// The position of the quote in `key="…`, or 0.
fn quoted_value(text: &[u8]) -> usize {
    let key = text
        .iter()
        .take(MAX_KEY)
        .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    let len = key.count();
    match text.get(len..len + 2) {
        Some(b"=\"") if len > 0 => len + 1,
        _ => 0,
    }
}

/// The length of `[…]` within a row, or 0.
fn bracketed(text: &[u8]) -> usize {
    const LONGEST: usize = 64;
    let inside = text.iter().take(LONGEST);
    let len = inside
        .take_while(|&&byte| byte != b']' && byte != b'\n')
        .count();
    if text.get(len) == Some(&b']') { len } else { 0 }
}

/// Calls `field` with every field of a row and returns the text after the row's newline.
fn each_field<'a>(
    mut text: &'a [u8],
    delimiter: u8,
    max_fields: usize,
    mut field: impl FnMut(&'a [u8]),
) -> &'a [u8] {
    for number in 1.. {
        let len = if number >= max_fields {
            line_len(text)
        } else {
            field_len(text, delimiter)
        };
        field(&text[..len]);
        match text.get(len) {
            Some(b'\n') => return &text[len + 1..],
            Some(_) => text = &text[len + 1..],
            None => break,
        }
    }
    &[]
}

fn line_len(text: &[u8]) -> usize {
    text.iter()
        .position(|&byte| byte == b'\n')
        .unwrap_or(text.len())
}

/// The number of fields in each row of a sample.
fn field_counts(raw: &[u8], delimiter: u8) -> Vec<usize> {
    let mut counts = Vec::new();
    let mut rest = raw;
    while !rest.is_empty() && counts.len() < SAMPLE_ROWS {
        let mut fields = 0;
        rest = each_field(rest, delimiter, usize::MAX, |_| fields += 1);
        counts.push(fields);
    }
    counts
}

/// The most frequent number of fields, if nearly all rows have it and it is more than one.
fn uniform(counts: &[usize]) -> Option<usize> {
    let usual = *counts.get(counts.len() / 2)?;
    let same = counts.iter().filter(|&&count| count == usual).count();
    (usual > 1 && same * 10 >= counts.len() * 8).then_some(usual)
}

/// The layouts that fit nearly all rows of a sample: the delimiter with the most columns, and spaces
/// between a fixed number of fields and the rest of the row.
pub(super) fn layouts(raw: &[u8]) -> RowLayouts {
    let layout = |delimiter, max_fields: usize| RowLayout {
        delimiter,
        max_fields: max_fields.min(MAX_COLUMNS) as u16,
    };
    let best = DELIMITERS
        .into_iter()
        .filter_map(|delimiter| {
            let counts = field_counts(raw, delimiter);
            let usual = uniform(&counts)?;
            // The last row may be cut.
            let others = &counts[..counts.len() - 1];
            let is_table = usual >= TABLE_FIELDS && others.iter().all(|&count| count == usual);
            Some((usual, is_table, layout(delimiter, MAX_COLUMNS)))
        })
        .max_by_key(|&(usual, ..)| usual);
    let mut found: Vec<RowLayout> = best.iter().map(|(.., layout)| *layout).collect();
    let mut counts = field_counts(raw, b' ');
    let usual = uniform(&counts);
    counts.sort_unstable();
    let fewest = counts.get(counts.len() / 20).copied().unwrap_or(0);
    if let Some(usual) = usual {
        found.push(layout(b' ', usual));
    }
    if fewest > 1 && usual != Some(fewest) {
        found.push(layout(b' ', fewest));
    }
    RowLayouts {
        found,
        fields: best.map_or(0, |(usual, ..)| usual),
        is_table: best.is_some_and(|(_, is_table, _)| is_table),
    }
}

/// Rows of at least so many fields between delimiters are a table if all have as many.
const TABLE_FIELDS: usize = 3;

/// The layouts that fit nearly all rows.
pub(super) struct RowLayouts {
    /// That with the most columns first.
    pub(super) found: Vec<RowLayout>,
    /// The number of its columns.
    pub(super) fields: usize,
    /// It fits all rows, and its delimiter is no space.
    pub(super) is_table: bool,
}

/// Splits CSV into columns: the number of fields in each row, then the fields by position.
pub(super) fn split(raw: &[u8], layout: RowLayout) -> Option<ColumnTable> {
    let (delimiter, max_fields) = (layout.delimiter, usize::from(layout.max_fields));
    let mut first = Vec::new();
    let mut rest = each_field(raw, delimiter, max_fields, |field| first.push(field));
    let first_len = raw.len() - rest.len();
    let mut counts = ColumnValues::default();
    let mut columns: Vec<ColumnValues> = Vec::new();
    let ended = raw.last() == Some(&b'\n');
    // A carriage return at the end of every row belongs to the rows, not to the last column.
    let carriage = !rest.is_empty() && lines_end_in_carriage_return(rest);
    while !rest.is_empty() {
        let mut fields = Vec::new();
        rest = each_field(rest, delimiter, max_fields, |field| fields.push(field));
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
    let place = mix(delimiter.into(), max_fields as u64);
    let keys = (0..=columns.len() as u64)
        .map(|column| mix(place, column))
        .collect();
    columns.insert(0, counts);
    Some(ColumnTable {
        head,
        columns,
        names,
        keys,
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
    each_field(reader.rest(), delimiter, usize::MAX, |field| {
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
