//! Log lines, URLs, identifiers: the text around the changing parts as a template, and the changing
//! parts as columns. A changing part is a run with digits, or a whole date, time, address or UUID.

use std::collections::HashMap;

use super::{
    Damage, Known, Node, Reader, Scope, Source, Tag, Values, decode as decode_column,
    encode as encode_column,
};
use crate::{bytes::put_varint, hybrid::Effort};

/// Which parts share a column, and how finely values are cut. Only the first is needed to decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    border: Border,
    /// Dates and addresses are cut into their numbers.
    fine: bool,
}

/// Which changing parts share a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Border {
    /// Those behind the same beginning of the template.
    Prefix = 0,
    /// Those behind the same word.
    Word = 1,
}

/// The cuts to try inside `around` other templates.
pub fn cuts(around: usize, effort: Effort) -> &'static [Cut] {
    const COARSE: Cut = Cut {
        border: Border::Prefix,
        fine: false,
    };
    const FINE: Cut = Cut {
        border: Border::Prefix,
        fine: true,
    };
    const BY_WORD: Cut = Cut {
        border: Border::Word,
        fine: false,
    };
    match (around, effort) {
        (0, Effort::Fast) => &[COARSE],
        (0, Effort::Balanced | Effort::Max) => &[COARSE, BY_WORD],
        (_, Effort::Fast) => &[],
        _ => &[FINE],
    }
}

/// Stands for a changing part in a template.
const HOLE: u8 = 0;
const MOST_TEMPLATES: usize = 4096;
const MOST_COLUMNS: usize = 4096;
/// Few templates are all kept; of many, only those used at least so often.
const FEW_TEMPLATES: usize = 12;
const LEAST_USES: u32 = 3;

/// Whether a look at some values shows digits among other text.
pub fn fits(values: &Values) -> bool {
    let step = values.len().div_ceil(64).max(1);
    let looked_at = (0..values.len()).step_by(step);
    let all = looked_at.len();
    let mixed = |value: &[u8]| {
        value.iter().any(u8::is_ascii_digit) && value.iter().any(|byte| !byte.is_ascii_digit())
    };
    looked_at.filter(|&row| mixed(values.get(row))).count() * 4 >= all
}

/// Cuts a value into its template and its changing parts.
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
            template.push(HOLE);
            parts.push(&value[at..at + whole]);
            at += whole;
        } else if run == 0 {
            let signed = value[at] == b'-' && fresh && all_digits(&value[at + 1..]);
            if signed {
                let digits = value[at + 1..]
                    .iter()
                    .take_while(|byte| byte.is_ascii_digit())
                    .count();
                template.push(HOLE);
                parts.push(&value[at..at + 1 + digits]);
                at += 1 + digits;
            } else {
                template.push(value[at]);
                at += 1;
            }
        } else {
            let (before, inside) = changing(&value[at..at + run]);
            template.extend_from_slice(&value[at..at + before]);
            if inside > 0 {
                template.push(HOLE);
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

/// Where the changing part of a run of letters and digits begins, and its length.
fn changing(run: &[u8]) -> (usize, usize) {
    let letters = run.iter().take_while(|byte| !byte.is_ascii_digit()).count();
    let digits = run[letters..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let tail = run.len() - letters - digits;
    match (digits, tail) {
        (0, _) => (run.len(), 0),
        (_, 0) => (letters, digits),
        (_, 1..=2) if letters == 0 && run[digits..].iter().all(u8::is_ascii_alphabetic) => {
            (0, digits)
        }
        _ => (0, run.len()),
    }
}

/// The length of a date, time, address or UUID at the start of `text`; 0 if there is none.
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

/// The length of four numbers with dots between.
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

/// Bytes of keys that are compared at most: templates with holes without end are a trick to take time.
const MOST_KEY_BYTES: usize = 1 << 26;

/// For every template the columns of its holes, in order, and how many columns there are in all;
/// nothing if they are too many.
fn hole_columns(templates: &Values, border: Border) -> Option<(Vec<Vec<usize>>, usize)> {
    let key_bytes = templates.iter().try_fold(0usize, |sum, template| {
        let holes = template.iter().filter(|byte| **byte == HOLE).count();
        sum.checked_add(template.len().checked_mul(holes)?)
    })?;
    if key_bytes > MOST_KEY_BYTES {
        return None;
    }
    let mut known: HashMap<&[u8], usize> = HashMap::new();
    let columns = templates
        .iter()
        .map(|template| {
            let holes = template
                .iter()
                .enumerate()
                .filter(|(_, byte)| **byte == HOLE);
            holes
                .map(|(at, _)| {
                    let key = match border {
                        Border::Prefix => &template[..at],
                        Border::Word => word_before(&template[..at]),
                    };
                    let next = known.len();
                    *known.entry(key).or_insert(next)
                })
                .collect()
        })
        .collect();
    (known.len() <= MOST_COLUMNS).then_some((columns, known.len()))
}

/// The last word of a text, with what stands behind it.
fn word_before(text: &[u8]) -> &[u8] {
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

/// Fits where most values share few templates.
pub fn encode(values: &Values, cut: Cut, scope: &Scope<'_>) -> Option<Node> {
    if values.joined().contains(&HOLE) {
        return None;
    }
    let templates = common_templates(values, cut.fine)?;
    let numbers: HashMap<&[u8], usize> = templates
        .iter()
        .enumerate()
        .map(|(number, text)| (text, number + 1))
        .collect();
    let (columns, column_count) = hole_columns(&templates, cut.border)?;
    let mut ids = Values::default();
    let mut parts_of = vec![(Values::default(), Vec::new()); column_count];
    let (mut rare, mut rare_rows) = (Values::default(), Vec::new());
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
        for (part, &column) in parts.iter().zip(&columns[number - 1]) {
            parts_of[column].0.push(part);
            parts_of[column].1.push(row as u32);
        }
    }
    let mut node = Node::of(Tag::Template);
    node.plan.push(cut.border as u8);
    put_varint(&mut node.plan, templates.len() as u64);
    node.append(super::text::encode(&templates));
    let inside = |rows: Option<&[u32]>| {
        let refs = rows.map_or_else(|| scope.refs.clone(), |rows| scope.refs.select(rows));
        scope.inside(Tag::Template, refs)
    };
    node.append(encode_column(&ids, &inside(None)));
    node.append(encode_column(&rare, &inside(Some(&rare_rows))));
    for (parts, rows) in &parts_of {
        node.append(encode_column(parts, &inside(Some(rows))));
    }
    Some(node)
}

/// The templates worth keeping, the most used first.
fn common_templates(values: &Values, fine: bool) -> Option<Values> {
    let mut uses: HashMap<Vec<u8>, u32> = HashMap::new();
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
    let least = if uses.len() <= FEW_TEMPLATES {
        1
    } else {
        LEAST_USES
    };
    let mut common: Vec<(Vec<u8>, u32)> = uses
        .into_iter()
        .filter(|(_, count)| *count >= least)
        .collect();
    common.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    common.truncate(MOST_TEMPLATES);
    let covered: usize = common.iter().map(|(_, count)| *count as usize).sum();
    (covered * 2 >= values.len())
        .then(|| common.iter().map(|(template, _)| &template[..]).collect())
}

/// Reads `count` values.
pub fn decode(
    count: usize,
    plan: &mut Reader<'_>,
    source: &mut Source,
    known: &Known<'_>,
) -> Result<Values, Damage> {
    let border = match plan.byte()? {
        0 => Border::Prefix,
        1 => Border::Word,
        _ => return Err(Damage::new("an unknown border of templates")),
    };
    let templates = plan.size(MOST_TEMPLATES, "the number of templates")?;
    let templates = decode_column(templates, plan, source, &known.inside(Default::default()))?;
    let (columns, column_count) = hole_columns(&templates, border)
        .ok_or_else(|| Damage::new("templates with too many holes"))?;
    let ids = decode_column(count, plan, source, &known.inside(known.refs.clone()))?;
    let ids = ids
        .iter()
        .map(|id| number_of(id, templates.len()))
        .collect::<Result<Vec<_>, _>>()?;
    // A hole holds a byte at least: more holes than bytes are a trick to take memory.
    let holes = ids.iter().filter_map(|&id| columns.get(id.checked_sub(1)?));
    if holes.map(Vec::len).sum::<usize>() > known.limit {
        return Err(Damage::new(
            "templates with more holes than their block has bytes",
        ));
    }
    let mut rows_of: Vec<Vec<u32>> = vec![Vec::new(); column_count + 1];
    for (row, &id) in ids.iter().enumerate() {
        match id.checked_sub(1) {
            None => rows_of[column_count].push(row as u32),
            Some(template) => columns[template]
                .iter()
                .for_each(|&column| rows_of[column].push(row as u32)),
        }
    }
    let rare = known.rows(&rows_of[column_count], plan, source)?;
    let parts = rows_of[..column_count]
        .iter()
        .map(|rows| known.rows(rows, plan, source))
        .collect::<Result<Vec<_>, _>>()?;
    let mut used = vec![0; column_count];
    let mut rare_used = 0;
    let mut values = Values::default();
    let mut text = Vec::new();
    #[expect(clippy::explicit_counter_loop, reason = "it counts the rare rows only")]
    for id in ids {
        let Some(template) = id.checked_sub(1) else {
            values.push_bounded(rare.get(rare_used), known.limit)?;
            rare_used += 1;
            continue;
        };
        text.clear();
        let mut holes = columns[template].iter();
        for &byte in templates.get(template) {
            match holes.as_slice().first().filter(|_| byte == HOLE) {
                Some(&column) => {
                    holes.next();
                    text.extend_from_slice(parts[column].get(used[column]));
                    used[column] += 1;
                }
                None => text.push(byte),
            }
        }
        values.push_bounded(&text, known.limit)?;
    }
    Ok(values)
}

fn number_of(id: &[u8], templates: usize) -> Result<usize, Damage> {
    std::str::from_utf8(id)
        .ok()
        .and_then(|id| id.parse().ok())
        .filter(|&id| id <= templates)
        .ok_or_else(|| Damage::new("a template that does not exist"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::column::Refs;

    fn decode_templates(templates: &[&[u8]], uses: &[&[u8]]) -> Result<Values, Damage> {
        let mut node = Node::default();
        node.plan.push(Border::Prefix as u8);
        put_varint(&mut node.plan, templates.len() as u64);
        for column in [templates, uses] {
            node.append(super::super::text::encode(
                &column.iter().copied().collect(),
            ));
        }
        let mut plan = Reader::new(&node.plan);
        let mut source = Source::of_raw(&[], &node.streams);
        let known = Known {
            limit: 1000,
            refs: Refs::default(),
            depth: 0,
        };
        decode(uses.len(), &mut plan, &mut source, &known)
    }

    #[test]
    fn holes_without_end_are_refused_at_once() {
        let damage = |result: Result<Values, Damage>| result.expect_err("refused").0;
        assert!(
            damage(decode_templates(&[&[HOLE; 999]], &[&b"1"[..]; 300]))
                .contains("more holes than")
        );
        let many = hole_columns(&[&[HOLE; 9000][..]].into_iter().collect(), Border::Prefix);
        assert_eq!(many, None);
        let few = hole_columns(
            &[&b"a\0b\0"[..], &b"a\0c\0"[..]].into_iter().collect(),
            Border::Prefix,
        );
        assert_eq!(few, Some((vec![vec![0, 1], vec![0, 2]], 3)));
    }
}
