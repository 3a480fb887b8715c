//! CSV and its kin: one column per field, by place. Fields keep their quotes; rows may be ragged.
//! The first row, mostly a header, stands apart.

use super::{Table, values::Values};
use crate::{
    Damage,
    bytes::{Reader, put_varint},
};

const DELIMITERS: [u8; 4] = [b',', b'\t', b';', b'|'];
const MOST_COLUMNS: usize = 1024;
/// Rows looked at to find the delimiter.
const LOOKED_AT: usize = 50;

/// The end of the field at the start of `text`: behind a closing quote, or before the next border.
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

/// Calls `field` with every field of a row; answers what is left behind the row's newline.
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

/// The delimiter that gives the most columns, the same in nearly all rows.
fn delimiter(raw: &[u8]) -> Option<u8> {
    DELIMITERS
        .into_iter()
        .filter_map(|delimiter| {
            let mut counts = Vec::new();
            let mut rest = raw;
            while !rest.is_empty() && counts.len() < LOOKED_AT {
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

/// Cuts CSV into columns: the fields' number in each row, then the fields by place.
pub fn split(raw: &[u8]) -> Option<Table> {
    let delimiter = delimiter(raw)?;
    let mut first = Vec::new();
    let mut rest = each_field(raw, delimiter, |field| first.push(field));
    let first_len = raw.len() - rest.len();
    let mut counts = Values::default();
    let mut columns: Vec<Values> = Vec::new();
    let ended = raw.last() == Some(&b'\n');
    // With every row ending in a carriage return it belongs to the rows, not to the last column.
    let carriage = !rest.is_empty() && lines_end_in_carriage_return(rest);
    while !rest.is_empty() {
        let mut fields = Vec::new();
        rest = each_field(rest, delimiter, |field| fields.push(field));
        if let Some(last) = fields.last_mut().filter(|_| carriage) {
            *last = last.strip_suffix(b"\r")?;
        }
        counts.push_number(fields.len());
        if fields.len() > MOST_COLUMNS {
            return None;
        }
        columns.resize(columns.len().max(fields.len()), Values::default());
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
    Some(Table {
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

/// The names of the columns, from the head; for reports.
pub fn names(head: &[u8]) -> Vec<String> {
    let Some((&[delimiter, ..], rest)) = head.split_first_chunk::<3>() else {
        return Vec::new();
    };
    let mut reader = Reader::new(rest);
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

/// Puts the rows together again.
pub fn join(head: &[u8], columns: &[Values], limit: usize) -> Result<Vec<u8>, Damage> {
    let mut reader = Reader::new(head);
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
