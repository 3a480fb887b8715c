//! Log lines, URLs, identifiers: the constant text as a template, and the variable parts as columns. A
//! variable part is a run with digits, or a whole date, time, IP address or UUID.

use std::collections::HashMap;

use super::{
    context::{DecodeContext, EncodeContext, EncodedColumn, Tag},
    decode as decode_column, decode_rows, encode as encode_column,
};
use crate::transform::choices::{KeyRule, TemplateCut};
use crate::{
    Damage, Effort,
    bytes::{FieldReader, put_varint},
    hash::{SeededState, hash_bytes},
    transform::{streams::StreamSource, values::ColumnValues},
};

/// The candidates inside `templates` other templates.
pub(super) fn cuts(templates: usize, effort: Effort) -> &'static [TemplateCut] {
    const COARSE: TemplateCut = TemplateCut {
        rule: KeyRule::Prefix,
        fine: false,
    };
    const FINE: TemplateCut = TemplateCut {
        rule: KeyRule::Prefix,
        fine: true,
    };
    const BY_LETTERS: TemplateCut = TemplateCut {
        rule: KeyRule::Letters,
        fine: false,
    };
    match (templates, effort) {
        (0, Effort::Fast) => &[COARSE],
        (0, Effort::Balanced | Effort::Max) => &[COARSE, BY_LETTERS],
        _ => &[FINE],
    }
}

/// A placeholder for a variable in a template.
const PLACEHOLDER: u8 = 0;
const MAX_TEMPLATES: usize = 4096;
const MAX_COLUMNS: usize = 4096;
/// Up to this many templates are all kept.
const FEW_TEMPLATES: usize = 12;
/// Of more, only templates with at least this many uses are kept.
const MIN_USES: u32 = 3;

/// Whether a sample of the values has digits among other text.
pub(super) fn fits(values: &ColumnValues) -> bool {
    let step = values.len().div_ceil(64).max(1);
    let sampled = (0..values.len()).step_by(step);
    let all = sampled.len();
    let mixed = |value: &[u8]| {
        value.iter().any(u8::is_ascii_digit) && value.iter().any(|byte| !byte.is_ascii_digit())
    };
    sampled.filter(|&row| mixed(values.get(row))).count() * 4 >= all
}

/// Splits a value into its template and its variables.
fn split<'a>(value: &'a [u8], fine: bool, template: &mut Vec<u8>, parts: &mut Vec<&'a [u8]>) {
    let mut at = 0;
    while at < value.len() {
        let fresh = at == 0 || !value[at - 1].is_ascii_alphanumeric();
        let whole = if fresh && !fine {
            whole_part(&value[at..])
        } else {
            0
        };
        let run = value[at..]
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric())
            .count();
        if whole > 0 {
            template.push(PLACEHOLDER);
            parts.push(&value[at..at + whole]);
            at += whole;
        } else if run == 0 {
            let signed = value[at] == b'-' && fresh && all_digits(&value[at + 1..]);
            if signed {
                let digits = value[at + 1..]
                    .iter()
                    .take_while(|byte| byte.is_ascii_digit())
                    .count();
                template.push(PLACEHOLDER);
                parts.push(&value[at..at + 1 + digits]);
                at += 1 + digits;
            } else {
                template.push(value[at]);
                at += 1;
            }
        } else {
            let (before, inside) = variable(&value[at..at + run]);
            template.extend_from_slice(&value[at..at + before]);
            if inside > 0 {
                template.push(PLACEHOLDER);
                parts.push(&value[at + before..at + before + inside]);
            }
            template.extend_from_slice(&value[at + before + inside..at + run]);
            at += run;
        }
    }
}

/// Whether the next run is digits only.
fn all_digits(rest: &[u8]) -> bool {
    let run = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric());
    rest.first().is_some_and(u8::is_ascii_digit) && run.clone().all(u8::is_ascii_digit)
}

/// The least number of hexadecimal digits that count as one number.
const MIN_HEX: usize = 8;

/// The start and the length of the variable in a run of letters and digits.
fn variable(run: &[u8]) -> (usize, usize) {
    let letters = run.iter().take_while(|byte| !byte.is_ascii_digit()).count();
    let digits = run[letters..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let tail = run.len() - letters - digits;
    let hex = run.len() >= MIN_HEX && run.iter().all(u8::is_ascii_hexdigit);
    match (digits, tail) {
        (0, _) => (run.len(), 0),
        _ if hex => (0, run.len()),
        (_, 0) => (letters, digits),
        (_, 1..=2) if letters == 0 && run[digits..].iter().all(u8::is_ascii_alphabetic) => {
            (0, digits)
        }
        _ => (0, run.len()),
    }
}

/// The length of a date, time, IP address or UUID at the start of `text`, or 0.
fn whole_part(text: &[u8]) -> usize {
    const SHAPES: [&[u8]; 7] = [
        b"xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx",
        b"0000-00-00?00:00:00",
        b"0000/00/00?00:00:00",
        b"00/Aaa/0000:00:00:00",
        b"0000-00-00",
        b"0000/00/00",
        b"00:00:00",
    ];
    for shape in SHAPES {
        if text.len() >= shape.len()
            && shape
                .iter()
                .zip(text)
                .all(|(&shape, &byte)| matches_shape(shape, byte))
        {
            let mut len = shape.len();
            if shape.ends_with(b":00:00") && matches!(text.get(len), Some(b'.' | b',')) {
                let digits = text[len + 1..]
                    .iter()
                    .take_while(|byte| byte.is_ascii_digit())
                    .count();
                len += if (1..=9).contains(&digits) {
                    1 + digits
                } else {
                    0
                };
            }
            return if text.get(len).is_some_and(u8::is_ascii_alphanumeric) {
                0
            } else {
                len
            };
        }
    }
    address(text)
}

fn matches_shape(shape: u8, byte: u8) -> bool {
    match shape {
        b'0' => byte.is_ascii_digit(),
        b'x' => byte.is_ascii_hexdigit(),
        b'A' => byte.is_ascii_uppercase(),
        b'a' => byte.is_ascii_lowercase(),
        b'?' => byte == b' ' || byte == b'T',
        _ => byte == shape,
    }
}

/// The length of an IPv4 address at the start of `text`, or 0.
fn address(text: &[u8]) -> usize {
    let mut at = 0;
    for octet in 0..4 {
        let digits = text[at..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if !(1..=3).contains(&digits) {
            return 0;
        }
        at += digits;
        if octet < 3 {
            if text.get(at) != Some(&b'.') {
                return 0;
            }
            at += 1;
        }
    }
    let goes_on = text
        .get(at)
        .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'.');
    if goes_on { 0 } else { at }
}

/// The largest number of key bytes to compare: crafted templates with very many placeholders would take
/// too long.
const MAX_KEY_BYTES: usize = 1 << 26;

/// The columns of the placeholders of all templates.
#[derive(Debug, PartialEq, Eq)]
struct Slots {
    /// For each template the columns of its placeholders in order.
    columns: Vec<Vec<usize>>,
    /// For each column a hash of the key that its placeholders share.
    keys: Vec<u64>,
}

/// The places of nested columns; the columns of placeholders have the hash of their key.
const IDS: u64 = 0;
const RARE: u64 = 1;
const TEMPLATES: u64 = 2;

/// Numbers the columns of placeholders; `None` if there are too many.
fn placeholder_columns(templates: &ColumnValues, rule: KeyRule) -> Option<Slots> {
    let key_bytes = templates.iter().try_fold(0usize, |sum, template| {
        let slots = template.iter().filter(|byte| **byte == PLACEHOLDER).count();
        sum.checked_add(template.len().checked_mul(slots)?)
    })?;
    if key_bytes > MAX_KEY_BYTES {
        return None;
    }
    let mut known: HashMap<&[u8], usize, SeededState> = HashMap::default();
    let mut keys = Vec::new();
    let columns = templates
        .iter()
        .map(|template| {
            let slots = template
                .iter()
                .enumerate()
                .filter(|(_, byte)| **byte == PLACEHOLDER);
            slots
                .map(|(at, _)| {
                    let key = match rule {
                        KeyRule::Prefix => &template[..at],
                        KeyRule::Letters => last_letters(&template[..at]),
                    };
                    *known.entry(key).or_insert_with(|| {
                        keys.push(hash_bytes(key));
                        keys.len() - 1
                    })
                })
                .collect()
        })
        .collect();
    (keys.len() <= MAX_COLUMNS).then_some(Slots { columns, keys })
}

/// The last run of letters in `text`, and the text after it.
fn last_letters(text: &[u8]) -> &[u8] {
    let end = text
        .iter()
        .rposition(u8::is_ascii_alphabetic)
        .map_or(0, |at| at + 1);
    let start = text[..end]
        .iter()
        .rposition(|byte| !byte.is_ascii_alphabetic())
        .map_or(0, |at| at + 1);
    &text[start..]
}

/// Fits if most values share a few templates.
pub(super) fn encode(
    values: &ColumnValues,
    cut: TemplateCut,
    context: &EncodeContext<'_>,
) -> Option<EncodedColumn> {
    if values.joined().contains(&PLACEHOLDER) {
        return None;
    }
    let templates = common_templates(values, cut.fine)?;
    let numbers: HashMap<&[u8], usize, SeededState> = templates
        .iter()
        .enumerate()
        .map(|(number, text)| (text, number + 1))
        .collect();
    let slots = placeholder_columns(&templates, cut.rule)?;
    let mut ids = ColumnValues::default();
    let mut parts_of = vec![(ColumnValues::default(), Vec::new()); slots.keys.len()];
    let (mut rare, mut rare_rows) = (ColumnValues::default(), Vec::new());
    let (mut template, mut parts) = (Vec::new(), Vec::new());
    for (row, value) in values.iter().enumerate() {
        template.clear();
        parts.clear();
        split(value, cut.fine, &mut template, &mut parts);
        let number = numbers.get(&template[..]).copied().unwrap_or(0);
        ids.push_number(number);
        if number == 0 {
            rare.push(value);
            rare_rows.push(row as u32);
            continue;
        }
        for (part, &column) in parts.iter().zip(&slots.columns[number - 1]) {
            parts_of[column].0.push(part);
            parts_of[column].1.push(row as u32);
        }
    }
    let mut column = EncodedColumn::of(Tag::Template);
    column.plan.push(cut.rule as u8);
    put_varint(&mut column.plan, templates.len() as u64);
    let mut texts = super::text::encode(&templates, context.version);
    texts.set_stream_keys(context.key.child(TEMPLATES));
    column.append(texts);
    let inside = |position: u64, refs| context.inside(Tag::Template, position, refs);
    column.append(encode_column(&ids, &inside(IDS, context.refs.clone())));
    // Each column is dropped as soon as it is encoded: together they may take more memory than the values.
    drop(ids);
    column.append(encode_column(
        &rare,
        &inside(RARE, context.refs.select(&rare_rows)),
    ));
    drop((rare, rare_rows));
    for ((parts, rows), &key) in parts_of.into_iter().zip(&slots.keys) {
        let refs = context.refs.select(&rows);
        drop(rows);
        column.append(encode_column(&parts, &inside(key, refs)));
    }
    Some(column)
}

/// The templates to keep, the most frequent first.
fn common_templates(values: &ColumnValues, fine: bool) -> Option<ColumnValues> {
    let mut uses: HashMap<Vec<u8>, u32, SeededState> = HashMap::default();
    let (mut template, mut parts) = (Vec::new(), Vec::new());
    for value in values.iter() {
        template.clear();
        parts.clear();
        split(value, fine, &mut template, &mut parts);
        match uses.get_mut(&template) {
            Some(count) => *count += 1,
            None => {
                uses.insert(template.clone(), 1);
            }
        }
    }
    let min_uses = if uses.len() <= FEW_TEMPLATES {
        1
    } else {
        MIN_USES
    };
    let mut common: Vec<(Vec<u8>, u32)> = uses
        .into_iter()
        .filter(|(_, count)| *count >= min_uses)
        .collect();
    common.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    common.truncate(MAX_TEMPLATES);
    let covered: usize = common.iter().map(|(_, count)| *count as usize).sum();
    (covered * 2 >= values.len())
        .then(|| common.iter().map(|(template, _)| &template[..]).collect())
}

/// Reads `count` values.
pub(super) fn decode(
    count: usize,
    plan: &mut FieldReader<'_>,
    source: &mut StreamSource,
    context: &DecodeContext<'_>,
) -> Result<ColumnValues, Damage> {
    let rule = match plan.byte()? {
        0 => KeyRule::Prefix,
        1 => KeyRule::Letters,
        _ => return Err(Damage::new("an unknown key rule of templates")),
    };
    let templates = plan.size(MAX_TEMPLATES, "the number of templates")?;
    let templates = decode_column(templates, plan, source, &context.inside(Default::default()))?;
    let Slots { columns, keys } = placeholder_columns(&templates, rule)
        .ok_or_else(|| Damage::new("templates with too many placeholders"))?;
    let column_count = keys.len();
    let ids = decode_numbers((count, templates.len()), plan, source, context)?;
    let template_of = |id: u16| usize::from(id).checked_sub(1);
    // A placeholder holds at least one byte: crafted templates with more would take too much memory.
    let slots = ids.iter().filter_map(|&id| columns.get(template_of(id)?));
    if slots.map(Vec::len).sum::<usize>() > context.limit {
        return Err(Damage::new(
            "templates with more placeholders than their block has bytes",
        ));
    }
    let mut rows_of: Vec<Vec<u32>> = vec![Vec::new(); column_count + 1];
    for (row, &id) in ids.iter().enumerate() {
        match template_of(id) {
            None => rows_of[column_count].push(row as u32),
            Some(template) => columns[template]
                .iter()
                .for_each(|&column| rows_of[column].push(row as u32)),
        }
    }
    let rare_rows = rows_of.pop().unwrap_or_default();
    let rare = decode_rows(&rare_rows, plan, source, context)?;
    drop(rare_rows);
    // The rows of each column are dropped as soon as it is decoded.
    let parts = rows_of
        .into_iter()
        .map(|rows| decode_rows(&rows, plan, source, context))
        .collect::<Result<Vec<_>, _>>()?;
    let mut used = vec![0; column_count];
    let mut rare_used = 0;
    let mut values = ColumnValues::default();
    let mut text = Vec::new();
    #[expect(clippy::explicit_counter_loop, reason = "it counts the rare rows only")]
    for id in ids {
        let Some(template) = template_of(id) else {
            values.push_bounded(rare.get(rare_used), context.limit)?;
            rare_used += 1;
            continue;
        };
        text.clear();
        let mut slots = columns[template].iter();
        for &byte in templates.get(template) {
            match slots.as_slice().first().filter(|_| byte == PLACEHOLDER) {
                Some(&column) => {
                    slots.next();
                    text.extend_from_slice(parts[column].get(used[column]));
                    used[column] += 1;
                }
                None => text.push(byte),
            }
        }
        values.push_bounded(&text, context.limit)?;
    }
    Ok(values)
}

/// Reads the number of the template of each of `count` values; 0 for a value without one.
fn decode_numbers(
    (count, templates): (usize, usize),
    plan: &mut FieldReader<'_>,
    source: &mut StreamSource,
    context: &DecodeContext<'_>,
) -> Result<Vec<u16>, Damage> {
    let ids = decode_column(count, plan, source, &context.inside(context.refs.clone()))?;
    ids.iter().map(|id| number_of(id, templates)).collect()
}

fn number_of(id: &[u8], templates: usize) -> Result<u16, Damage> {
    std::str::from_utf8(id)
        .ok()
        .and_then(|id| id.parse().ok())
        .filter(|&id| usize::from(id) <= templates)
        .ok_or_else(|| Damage::new("a template that does not exist"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FormatVersion;
    use crate::transform::column::ColumnRefs;

    fn decode_templates(templates: &[&[u8]], uses: &[&[u8]]) -> Result<ColumnValues, Damage> {
        let mut column = EncodedColumn::default();
        column.plan.push(KeyRule::Prefix as u8);
        put_varint(&mut column.plan, templates.len() as u64);
        for values in [templates, uses] {
            column.append(super::super::text::encode(
                &values.iter().copied().collect(),
                FormatVersion::V1,
            ));
        }
        let mut plan = FieldReader::new(&column.plan);
        let mut source = StreamSource::of_raw(&[], &column.streams);
        let known = DecodeContext {
            limit: 1000,
            refs: ColumnRefs::default(),
            depth: 0,
        };
        decode(uses.len(), &mut plan, &mut source, &known)
    }

    #[test]
    fn too_many_placeholders_are_refused() {
        let damage = |result: Result<ColumnValues, Damage>| result.expect_err("refused").0;
        assert!(
            damage(decode_templates(&[&[PLACEHOLDER; 999]], &[&b"1"[..]; 300]))
                .contains("more placeholders than")
        );
        let many = placeholder_columns(
            &[&[PLACEHOLDER; 9000][..]].into_iter().collect(),
            KeyRule::Prefix,
        );
        assert_eq!(many, None);
        let few = placeholder_columns(
            &[&b"a\0b\0"[..], &b"a\0c\0"[..]].into_iter().collect(),
            KeyRule::Prefix,
        );
        let columns = few.map(|slots| slots.columns);
        assert_eq!(columns, Some(vec![vec![0, 1], vec![0, 2]]));
    }
}
