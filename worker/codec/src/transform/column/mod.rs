//! One column: the smallest of several exactly reversible codings of its values.
//!
//! Codings nest: a column of dates with gaps is split into classes, one of which is times. Each
//! coding has a file in this folder. A coding that does not fit a column returns `None`; [`text`]
//! always fits. The encoder compares the codings on a sample, by [`EncodedColumn::cost`].

mod classes;
mod context;
mod copied;
mod decimal;
mod dictionary;
mod exceptions;
mod hex;
mod mapped;
mod number;
mod recalled;
mod references;
mod sorted;
mod sparse;
mod template;
mod text;
mod time;

use rayon::prelude::*;

use self::context::Tag;
pub(super) use self::{
    context::{DecodeContext, EncodeContext, EncodedColumn},
    references::{ColumnRefs, TableLookup},
    sorted::adaptive_bits,
};
use super::{
    choices::{Candidate, Choice, Choices},
    streams::StreamSource,
    values::ColumnValues,
};
use crate::{
    Damage, Effort, FormatVersion,
    bytes::{FieldReader, put_varint},
};

/// Shorter columns do not repay a list of exceptions.
const MIN_SPARSE: usize = 64;
/// The largest depth of nested codings.
const DEPTH_LIMIT: usize = 6;
/// The longest constant value in the plan, in bytes.
const CONSTANT_LIMIT: usize = 4096;

/// The size of the sample of a column on which codings are compared, in bytes.
fn sample_bytes(effort: Effort, all: usize) -> usize {
    match effort {
        Effort::Fast => (all / 8).clamp(6 << 10, 16 << 10),
        Effort::Balanced => (all / 4).clamp(24 << 10, 160 << 10),
        Effort::Max => 160 << 10,
    }
}

/// Encodes a column in its smallest known coding.
pub(super) fn encode(values: &ColumnValues, context: &EncodeContext<'_>) -> EncodedColumn {
    if values.is_empty() {
        return match context.version {
            FormatVersion::V1 => EncodedColumn::of(Tag::Empty),
            FormatVersion::V2 => EncodedColumn::default(),
        };
    }
    let first = values.get(0);
    if first.len() <= CONSTANT_LIMIT && values.iter().all(|value| value == first) {
        let mut column = EncodedColumn::of(Tag::Constant);
        put_varint(&mut column.plan, first.len() as u64);
        column.plan.extend_from_slice(first);
        return column;
    }
    if let Some(Choice::Coding(candidate)) = context.choice(CODING)
        && let Some(column) = encode_as(candidate, values, context)
    {
        return column;
    }
    search(values, context)
}

/// Whether all values are numbers, times or identifiers, in quotes or not, which have codings that one other value rules out.
pub(super) fn is_typed(values: &ColumnValues) -> bool {
    fn is_typed_without_quotes(values: &ColumnValues) -> bool {
        let is_number =
            |value: &[u8]| decimal::is_number(value) || value.iter().all(u8::is_ascii_digit);
        values.iter().all(is_number) || time::fits_all(values) || hex::fits(values)
    }
    fn inner(value: &[u8]) -> Option<&[u8]> {
        match value {
            [b'"', inner @ .., b'"'] => Some(inner),
            _ => None,
        }
    }
    if values.is_empty() {
        return false;
    }
    let Some(first) = inner(values.get(0)) else {
        return is_typed_without_quotes(values);
    };
    // Most are words, as the first one shows.
    let first: ColumnValues = std::iter::once(first).collect();
    is_typed_without_quotes(&first)
        && values
            .iter()
            .map(inner)
            .collect::<Option<ColumnValues>>()
            .is_some_and(|values| is_typed_without_quotes(&values))
}

/// The place of the coding in a column. Streams and nested columns have places in the candidate.
const CODING: u64 = u64::MAX;

/// Encodes a column in its smallest coding on a sample, with the choices inside it.
fn search(values: &ColumnValues, context: &EncodeContext<'_>) -> EncodedColumn {
    let candidates = candidates(values, context);
    let found = if candidates.len() == 1 {
        encode_as(&candidates[0], values, context).map(|column| (&candidates[0], column))
    } else {
        search_among(&candidates, values, context)
    };
    let (candidate, mut column) = match found {
        Some((candidate, column)) => (candidate.clone(), column),
        None => (Candidate::Text, encode_text(values, context)),
    };
    column
        .choices
        .push((context.key.child(CODING), Choice::Coding(candidate)));
    column
}

/// A column in each coding that fits it, with the choices inside.
pub(super) fn in_each_coding(
    values: &ColumnValues,
    context: &EncodeContext<'_>,
) -> Vec<EncodedColumn> {
    if values.is_empty() {
        return Vec::new();
    }
    let candidates = candidates(values, context);
    let codings = candidates.into_par_iter().filter_map(|candidate| {
        let mut column = encode_as(&candidate, values, context)?;
        let place = context.key.child(CODING);
        column.choices.push((place, Choice::Coding(candidate)));
        Some(column)
    });
    codings.collect()
}

fn search_among<'c>(
    candidates: &'c [Candidate],
    values: &ColumnValues,
    context: &EncodeContext<'_>,
) -> Option<(&'c Candidate, EncodedColumn)> {
    let sample = sample_rows(values, context.effort);
    if sample.len() == values.len() {
        let first = tried(candidates, values, context).into_iter().next()?;
        return Some((&candidates[first.number], first.column));
    }
    let sample_context = EncodeContext {
        refs: context.refs.select(&sample),
        ..context.clone()
    };
    tried(candidates, &values.select(&sample), &sample_context)
        .into_iter()
        .find_map(|found| {
            // The choices inside the candidate were made on the sample. Layouts of integers need
            // more values, since numbers repeat over long distances.
            let mut chosen = found.column.choices;
            chosen.retain(|(_, choice)| !matches!(choice, Choice::Integers(..)));
            let choices = Choices::before(&chosen, context.choices);
            let context = EncodeContext {
                choices: &choices,
                ..context.clone()
            };
            let candidate = &candidates[found.number];
            let mut column = encode_as(candidate, values, &context)?;
            column.choices.splice(0..0, chosen);
            Some((candidate, column))
        })
}

fn encode_text(values: &ColumnValues, context: &EncodeContext<'_>) -> EncodedColumn {
    let mut column = text::encode(values, context.version);
    column.set_stream_keys(context.key.child(Candidate::Text.position()));
    column
}

/// A candidate that fits.
struct TriedCandidate {
    number: usize,
    cost: usize,
    column: EncodedColumn,
}

/// The candidates that fit, the smallest first.
fn tried(
    candidates: &[Candidate],
    values: &ColumnValues,
    context: &EncodeContext<'_>,
) -> Vec<TriedCandidate> {
    let mut tried: Vec<TriedCandidate> = candidates
        .par_iter()
        .enumerate()
        .filter_map(|(number, candidate)| {
            let column = encode_as(candidate, values, context)?;
            Some(TriedCandidate {
                number,
                cost: column.cost(context.cost_basis()),
                column,
            })
        })
        .collect();
    tried.sort_by_key(|candidate| (candidate.cost, candidate.number));
    tried
}

/// The sections of a sample; a single section may miss rare changes.
const SECTIONS: usize = 3;

/// The rows of a sample from several places; all rows if those are equal.
fn sample_rows(values: &ColumnValues, effort: Effort) -> Vec<u32> {
    let all = values.byte_len() + values.len();
    let wanted = sample_bytes(effort, all);
    if all <= wanted {
        return (0..values.len() as u32).collect();
    }
    let count = (wanted * values.len() / all / SECTIONS).max(1);
    let gap = (values.len() - count * SECTIONS) / (SECTIONS + 1);
    let rows: Vec<u32> = (0..SECTIONS)
        .flat_map(|section| {
            let start = gap + section * (gap + count);
            start as u32..(start + count) as u32
        })
        .collect();
    let first = values.get(rows[0] as usize);
    if rows.iter().all(|&row| values.get(row as usize) == first) {
        return (0..values.len() as u32).collect();
    }
    rows
}

/// The candidates for a column.
fn candidates(values: &ColumnValues, context: &EncodeContext<'_>) -> Vec<Candidate> {
    let mut found = vec![Candidate::Text];
    let allowed = |tag| !context.outer.contains(&tag);
    if values.len() < 4 || context.outer.len() + 1 >= DEPTH_LIMIT {
        return found;
    }
    if allowed(Tag::Dictionary) {
        found.push(Candidate::Dictionary);
        found.push(Candidate::Ranked);
    }
    if allowed(Tag::Sparse) && values.len() >= MIN_SPARSE && sparse::fits(values) {
        found.push(Candidate::Sparse);
    }
    if hex::fits(values) {
        // Dictionaries stay: a few numbers may repeat.
        found.push(Candidate::Hex);
        return found;
    }
    found.push(Candidate::Number);
    if time::fits(values) {
        found.push(Candidate::Time);
    }
    if allowed(Tag::Classes) && classes::fits(values) {
        found.push(Candidate::Classes);
    }
    let templates = context
        .outer
        .iter()
        .filter(|tag| **tag == Tag::Template)
        .count();
    let reordered = [Tag::Sorted, Tag::Recalled, Tag::Copied, Tag::Mapped]
        .iter()
        .any(|tag| !allowed(*tag));
    if templates < 2 && !reordered && template::fits(values) {
        found.extend(
            template::cuts(templates, context.effort)
                .iter()
                .map(|&cut| Candidate::Template(cut)),
        );
    }
    let key = |column: u32| context.refs.key(column);
    {
        if context.outer.is_empty() {
            let copied = copied::best_ref(values, &context.refs).and_then(key);
            found.extend(copied.map(Candidate::Copied));
            let mapped = mapped::best_ref(values, &context.refs).and_then(key);
            found.extend(mapped.map(Candidate::Mapped));
        }
        if !reordered && templates == 0 && context.outer.len() <= 1 {
            let mut orders = sorted::best_refs(values, context);
            if let Some(key) = number::best_key(values, context) {
                orders.retain(|keys| *keys != [key]);
                orders.push(vec![key]);
            }
            let keys = |order: Vec<u32>| order.into_iter().map(key).collect::<Option<_>>();
            let orders: Vec<Vec<u64>> = orders.into_iter().filter_map(keys).collect();
            if context.version == FormatVersion::V2 {
                found.extend(orders.iter().cloned().map(Candidate::Recalled));
            }
            found.extend(orders.into_iter().map(Candidate::Sorted));
        }
    }
    found
}

/// Encodes a column in one coding; `None` if it does not fit.
fn encode_as(
    candidate: &Candidate,
    values: &ColumnValues,
    context: &EncodeContext<'_>,
) -> Option<EncodedColumn> {
    let context = &EncodeContext {
        key: context.key.child(candidate.position()),
        ..context.clone()
    };
    let column = |key: &u64| context.refs.column(*key);
    let mut encoded = match candidate {
        Candidate::Text => Some(text::encode(values, context.version)),
        Candidate::Dictionary => {
            dictionary::encode(values, dictionary::EntryOrder::Sorted, context)
        }
        Candidate::Ranked => dictionary::encode(values, dictionary::EntryOrder::Ranked, context),
        Candidate::Sparse => sparse::encode(values, context),
        Candidate::Number => number::encode(values, context),
        Candidate::Time => time::encode(values, context),
        Candidate::Hex => hex::encode(values, context),
        Candidate::Classes => classes::encode(values, context),
        Candidate::Template(cut) => template::encode(values, *cut, context),
        Candidate::Sorted(keys) => {
            let keys: Vec<u32> = keys.iter().map(column).collect::<Option<_>>()?;
            sorted::encode(values, &keys, context)
        }
        Candidate::Recalled(keys) => {
            let keys: Vec<u32> = keys.iter().map(column).collect::<Option<_>>()?;
            recalled::encode(values, &keys, context)
        }
        Candidate::Copied(from) => copied::encode(values, column(from)?, context),
        Candidate::Mapped(key) => mapped::encode(values, column(key)?, context),
    }?;
    encoded.set_stream_keys(context.key);
    Some(encoded)
}

/// Encodes some rows of the current column as the column at `position` in the coding `tag`.
fn encode_rows(
    tag: Tag,
    position: u64,
    values: &ColumnValues,
    rows: &[u32],
    context: &EncodeContext<'_>,
) -> EncodedColumn {
    encode(
        &values.select(rows),
        &context.inside(tag, position, context.refs.select(rows)),
    )
}

/// Decodes what [`encode_rows`] encoded.
fn decode_rows(
    rows: &[u32],
    plan: &mut FieldReader<'_>,
    source: &mut StreamSource,
    context: &DecodeContext<'_>,
) -> Result<ColumnValues, Damage> {
    decode(
        rows.len(),
        plan,
        source,
        &context.inside(context.refs.select(rows)),
    )
}

/// Decodes a column of `count` values.
pub(super) fn decode(
    count: usize,
    plan: &mut FieldReader<'_>,
    source: &mut StreamSource,
    context: &DecodeContext<'_>,
) -> Result<ColumnValues, Damage> {
    if context.depth > DEPTH_LIMIT {
        return Err(Damage::new("columns are nested too deeply"));
    }
    if count > context.limit + 1 {
        return Err(Damage::new(
            "a column has more values than its block has bytes",
        ));
    }
    if count == 0 && source.version == FormatVersion::V2 {
        return Ok(ColumnValues::default());
    }
    match Tag::from_byte(plan.byte()?)? {
        Tag::Empty if count == 0 => Ok(ColumnValues::default()),
        Tag::Empty => Err(Damage::new("an empty column that should hold values")),
        Tag::Constant => decode_constant(count, plan, context),
        Tag::Text => text::decode(count, source, context),
        Tag::LongText => text::decode_long(count, source, context),
        Tag::Dictionary => {
            dictionary::decode(count, dictionary::EntryOrder::Sorted, plan, source, context)
        }
        Tag::Ranked => {
            dictionary::decode(count, dictionary::EntryOrder::Ranked, plan, source, context)
        }
        Tag::Sparse => sparse::decode(count, plan, source, context),
        Tag::Number => number::decode(count, plan, source, context),
        Tag::Time => time::decode(count, plan, source, context),
        Tag::Hex => hex::decode(count, plan, source, context),
        Tag::Classes => classes::decode(count, plan, source, context),
        Tag::Template => template::decode(count, plan, source, context),
        Tag::Sorted => sorted::decode(count, plan, source, context),
        Tag::Copied => copied::decode(count, plan, source, context),
        Tag::Mapped => mapped::decode(count, plan, source, context),
        Tag::Recalled => recalled::decode(count, plan, source, context),
    }
}

fn decode_constant(
    count: usize,
    plan: &mut FieldReader<'_>,
    context: &DecodeContext<'_>,
) -> Result<ColumnValues, Damage> {
    let len = plan.size(CONSTANT_LIMIT, "a constant")?;
    let value = plan.take(len)?;
    if len.saturating_mul(count) > context.limit {
        return Err(Damage::new("a column holds more bytes than its block"));
    }
    Ok(std::iter::repeat_n(value, count).collect())
}
