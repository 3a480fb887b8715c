//! Logs and other text: one column of lines. The column codings find templates and variable parts.

use super::{ColumnTable, values::ColumnValues};
use crate::Damage;

/// Splits text into lines; `None` for fewer than four.
pub(super) fn split(raw: &[u8]) -> Option<ColumnTable> {
    let ended = raw.last() == Some(&b'\n');
    let body = if ended { &raw[..raw.len() - 1] } else { raw };
    let count = body.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let mut lines = ColumnValues::with_capacity(count, body.len());
    body.split(|&byte| byte == b'\n')
        .for_each(|line| lines.push(line));
    (lines.len() >= 4).then(|| ColumnTable {
        head: vec![u8::from(ended)],
        columns: vec![lines],
        names: vec!["line".into()],
        keys: vec![0],
    })
}

/// Joins the lines.
pub(super) fn join(head: &[u8], columns: &[ColumnValues], limit: usize) -> Result<Vec<u8>, Damage> {
    let ([ended], [lines]) = (head, columns) else {
        return Err(Damage::new("text needs exactly one column"));
    };
    let newlines = lines.len().saturating_sub(1) + usize::from(*ended == 1);
    if lines.byte_len() + newlines > limit {
        return Err(Damage::new("the lines are longer than their block"));
    }
    let mut raw = Vec::with_capacity((lines.byte_len() + lines.len()).min(limit));
    for (number, line) in lines.iter().enumerate() {
        if number > 0 {
            raw.push(b'\n');
        }
        raw.extend_from_slice(line);
    }
    if *ended == 1 {
        raw.push(b'\n');
    }
    Ok(raw)
}
