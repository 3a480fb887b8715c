//! A block as a table of columns: the transforms split it, each column gets its smallest coding, and
//! the streams follow a directory.

mod choices;
mod column;
mod csv;
mod json;
mod order;
pub(crate) mod plan;
mod ratio;
mod relations;
mod sampled_entropy;
mod sketch;
mod streams;
mod text;
mod values;

use std::collections::BTreeMap;

use rayon::prelude::*;

use self::{
    choices::{Choice, ChoiceKey, Choices},
    column::{ColumnRefs, DecodeContext, EncodeContext, EncodedColumn, TableLookup},
    csv::RowLayout,
    order::ColumnMove,
    plan::{ColumnStats, PlanUse, SchemaPlan},
    relations::ColumnSample,
    sampled_entropy::sampled_entropy,
    streams::{CodedCache, Placed, RawStream, StreamSource, WrittenStreams},
    values::ColumnValues,
};
use crate::{
    Codec, Damage, Effort, FormatVersion, StreamInfo, Transform,
    bytes::{FieldReader, put_varint},
    entropy::{
        EncodeOptions,
        cost::{CostBasis, MeasuredSizes},
    },
};

/// A block as columns.
pub(crate) struct ColumnTable {
    /// What joining needs besides the columns.
    head: Vec<u8>,
    columns: Vec<ColumnValues>,
    /// The names of the columns, for reports.
    names: Vec<String>,
    /// For each column a hash that is equal in other blocks of the same schema.
    keys: Vec<u64>,
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
    /// What this block adds to its plan, if anything.
    pub(crate) learned: Option<SchemaPlan>,
    /// How a plan was used.
    pub plan_use: PlanUse,
}

/// The largest number of columns of a block.
const MAX_COLUMNS: usize = 20_000;

/// The table of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableLayout {
    /// Values by path.
    Json,
    /// Fields by position.
    Rows(RowLayout),
    /// One column of lines.
    Lines,
}

impl TableLayout {
    /// Its transform.
    pub(crate) fn transform(self) -> Transform {
        match self {
            Self::Json => Transform::Json,
            Self::Rows(_) => Transform::Csv,
            Self::Lines => Transform::Text,
        }
    }
}

/// What reading a block shows.
pub(crate) struct Structure {
    /// The tables that fit it.
    pub(crate) layouts: Vec<TableLayout>,
    /// The first of them fits all of it.
    pub(crate) is_table: bool,
    /// Hashes of features of its schema, sorted.
    pub(crate) sketch: Vec<u64>,
    /// The table of JSON, which that reading has split already.
    json: Option<ColumnTable>,
}

impl Structure {
    /// The structure of JSON, or of lines.
    pub(crate) fn of(raw: &[u8]) -> Self {
        match json::split(raw) {
            Some((table, sketch)) if table.columns.len() <= MAX_COLUMNS => Self {
                layouts: vec![TableLayout::Json],
                is_table: true,
                sketch,
                json: Some(table),
            },
            _ => Self::of_lines(raw),
        }
    }

    /// The structure of lines.
    pub(crate) fn of_lines(raw: &[u8]) -> Self {
        let rows = csv::layouts(raw);
        let sketch = sketch::of_lines(raw, &rows.found, rows.fields);
        let mut layouts: Vec<TableLayout> = rows.found.into_iter().map(TableLayout::Rows).collect();
        layouts.push(TableLayout::Lines);
        Self {
            layouts,
            is_table: rows.is_table,
            sketch,
            json: None,
        }
    }

    /// The table of `raw`; `None` if the layout does not fit.
    pub(crate) fn split(&mut self, layout: TableLayout, raw: &[u8]) -> Option<ColumnTable> {
        match layout {
            TableLayout::Json => self.json.take(),
            _ => split_lines(layout, raw),
        }
    }
}

/// The table of lines; `None` if the layout does not fit.
pub(crate) fn split_lines(layout: TableLayout, raw: &[u8]) -> Option<ColumnTable> {
    let table = match layout {
        TableLayout::Json => None,
        TableLayout::Rows(layout) => csv::split(raw, layout),
        TableLayout::Lines => text::split(raw),
    }?;
    (table.columns.len() <= MAX_COLUMNS).then_some(table)
}

/// Splits and codes a block without a plan, in the first layout of the transform.
pub fn encode(
    transform: Transform,
    raw: &[u8],
    effort: Effort,
    version: FormatVersion,
) -> Option<EncodedTable> {
    let mut structure = match transform {
        Transform::Json => Structure::of(raw),
        _ => Structure::of_lines(raw),
    };
    let mut layouts = structure.layouts.clone().into_iter();
    let layout = layouts.find(|layout| layout.transform() == transform)?;
    let table = structure.split(layout, raw)?;
    let settings = TableSettings {
        options: EncodeOptions::new(effort, version),
        base: None,
        refresh: None,
    };
    encode_table(layout, table, raw, settings)
}

/// Codes the table of a block with the choices of `base`, searches what it has no choice for, what has
/// drifted, and the column `refresh`. The payload was decoded and compared. `None` if the table takes
/// too much memory.
pub(crate) fn encode_table(
    layout: TableLayout,
    table: ColumnTable,
    raw: &[u8],
    settings: TableSettings<'_>,
) -> Option<EncodedTable> {
    let none = Choices::default();
    let TableSettings {
        options,
        base,
        refresh,
    } = settings;
    let transform = layout.transform();
    let (moves, order_choice) = order_of(&table, options, base);
    let mut table = table;
    order::arrange(&moves, &mut table);
    let mut encoder = TableEncoder {
        lookup: TableLookup::new(&table.keys, true),
        counts: table.columns.iter().map(ColumnValues::len).collect(),
        entropies: table.columns.par_iter().map(sampled_entropy).collect(),
        typed: match base {
            None => table.columns.par_iter().map(column::is_typed).collect(),
            Some(_) => Vec::new(),
        },
        table,
        moves,
        options,
        choices: base.map_or(&none, |plan| &plan.choices),
        related: BTreeMap::new(),
        measured: MeasuredSizes::default(),
        raw_limit: streams::raw_limit(raw.len()),
    };
    let newly_typed = base.map_or_else(Vec::new, |plan| encoder.newly_typed(plan));
    let columns = encoder.encode_columns(&newly_typed);
    let streams = columns.iter().flat_map(|column| &column.streams);
    let stream_bytes = streams.map(|stream| stream.bytes.len()).sum();
    let refinement = match base {
        None => options.refinement(raw.len(), stream_bytes),
        Some(_) => None,
    };
    if base.is_none() {
        let basis = encoder.cost_basis();
        let sizes: Vec<u64> = columns.iter().map(|it| it.cost(basis) as u64).collect();
        encoder.related = encoder.relations_of(&sizes);
    }
    if base.is_none() && refinement.is_none() {
        encoder.drop_values();
    }
    let mut attempt = encoder.write(columns)?;
    if let Some(work) = refinement {
        attempt = encoder.refined(attempt, work, CodedCache::new(raw.len() / 4))?;
    }
    let mut plan_use = attempt.plan_use(base.is_some());
    let mut drifted = Vec::new();
    if let Some(plan) = base {
        let packed = attempt.packed_columns(encoder.cost_basis());
        let payload = attempt.written.payload.len() as u64;
        drifted = encoder.drifted(&packed, payload, plan);
        drifted.extend(encoder.newly_related(&packed, payload, plan, &drifted));
        drifted.retain(|number| newly_typed.binary_search(number).is_err());
        plan_use.drifted_columns = (newly_typed.len() + drifted.len()) as u32;
        if let Some(number) = refresh.map(|number| number % attempt.columns.len().max(1))
            && !drifted.contains(&number)
            && newly_typed.binary_search(&number).is_err()
        {
            drifted.push(number);
        }
        attempt = encoder.search_again(attempt, &drifted)?;
    }
    let mut learned = encoder.learned(&attempt, base, &drifted);
    if let Some(learned) = &mut learned {
        learned.choices.extend(order_choice);
    }
    let streams = encoder.stream_infos(&attempt);
    let payload = attempt.written.payload;
    drop(attempt.columns);
    // Decoding makes all columns again: both tables at once would be the peak of memory.
    drop(encoder);
    if !decodes_to(transform, options.version, &payload, raw) {
        return None;
    }
    Some(EncodedTable {
        streams: with_directory(streams, payload.len()),
        payload,
        learned,
        plan_use,
    })
}

/// The order of the columns of a table: the one that was chosen before, or that of a search, with the choice.
fn order_of(
    table: &ColumnTable,
    options: EncodeOptions,
    base: Option<&SchemaPlan>,
) -> (Vec<ColumnMove>, Option<(ChoiceKey, Choice)>) {
    match (options.version, base) {
        (FormatVersion::V1, _) => (Vec::new(), None),
        (FormatVersion::V2, Some(plan)) => (order::known(table, &plan.choices), None),
        (FormatVersion::V2, None) => {
            let moves = order::best(table, options.effort);
            let choice = order::choice(table, &moves);
            (moves, choice)
        }
    }
}

/// How a table is encoded.
#[derive(Clone, Copy)]
pub(crate) struct TableSettings<'a> {
    /// How its streams are encoded.
    pub(crate) options: EncodeOptions,
    /// The choices to use.
    pub(crate) base: Option<&'a SchemaPlan>,
    /// A column to search again.
    pub(crate) refresh: Option<usize>,
}

/// Encodes the columns of one table.
struct TableEncoder<'a> {
    /// The columns in the order in which they are coded.
    table: ColumnTable,
    /// How that order was made.
    moves: Vec<ColumnMove>,
    /// The number of values of each column.
    counts: Vec<usize>,
    /// The sampled entropy of each column.
    entropies: Vec<u64>,
    /// Whether the values of each column are of a type that has a coding; empty if there is a plan, which tells of nearly all of them.
    typed: Vec<bool>,
    lookup: TableLookup,
    options: EncodeOptions,
    choices: &'a Choices<'a>,
    /// What the values of large columns may save beside those of another, in 1/256 of a bit a value.
    related: BTreeMap<usize, u64>,
    measured: MeasuredSizes,
    raw_limit: usize,
}

/// The columns and the payload that they make.
struct Attempt {
    columns: Vec<EncodedColumn>,
    written: WrittenStreams,
}

impl Attempt {
    fn plan_use(&self, planned: bool) -> PlanUse {
        let searched = self
            .columns
            .iter()
            .filter(|column| !column.choices.is_empty());
        let searched = searched.count() as u32;
        PlanUse {
            searched_columns: searched,
            planned_columns: if planned {
                self.columns.len() as u32 - searched
            } else {
                0
            },
            drifted_columns: 0,
        }
    }

    /// The packed size of each column in bytes: its streams, and half of its plan. Of small streams an estimate counts, which
    /// does not depend on what they are coded with.
    fn packed_columns(&self, basis: CostBasis<'_>) -> Vec<u64> {
        let mut placed = self.written.placed.iter();
        self.columns
            .iter()
            .map(|column| {
                let streams = column.streams.iter().zip(placed.by_ref());
                let packed = streams.map(|(stream, placed)| match stream.is_small() {
                    true => stream.cost(basis) as u64,
                    false => placed.packed_bytes,
                });
                packed.sum::<u64>() + column.plan.len() as u64 / 2
            })
            .collect()
    }
}

/// A column has drifted if it is larger than planned by more than this share and these bytes.
const DRIFT_SHARE: u64 = 32;
const DRIFT_BYTES: u64 = 32;
/// A column has changed, too, if it is smaller than planned by more than this share.
const SHRUNK_SHARE: u64 = 4;
/// What is more than this share larger than its sampled entropy lets expect: a sample is not exact.
const BLIND_SHARE: u64 = 3;
/// Drifted columns are searched if together they may gain this share of the block.
const DRIFT_TOTAL_SHARE: u64 = 128;

/// Columns are large if they take this share of the block.
const RELATED_COLUMN: u64 = 24;
/// So many columns before a large one are looked at.
const RELATED_BEFORE: usize = 32;
/// What a relation must save, as a share of the block.
const RELATED_GAIN: u64 = 64;

/// To write a column in a whole block takes about as long as to code so many bytes.
const COLUMN_WORK: usize = 32;
/// Columns of fewer bytes are not worth the time.
const REFINED_COLUMN: u64 = 6;
/// In a whole small block, a coding that is larger alone by more than these bytes is not tried.
const REFINED_BYTES: usize = 12;

impl TableEncoder<'_> {
    /// Drops what only encoding columns needs: coding their streams takes the most memory.
    fn drop_values(&mut self) {
        self.table.columns = Vec::new();
        self.lookup = TableLookup::of_columns(0);
    }

    fn encode_column(&self, number: usize, choices: &Choices<'_>) -> EncodedColumn {
        column::encode(&self.table.columns[number], &self.context(number, choices))
    }

    fn context<'c>(&'c self, number: usize, choices: &'c Choices<'c>) -> EncodeContext<'c> {
        let values = &self.table.columns[number];
        let refs = ColumnRefs::before(
            number,
            values.len(),
            &self.table.columns,
            Some(&self.lookup),
        );
        let key = plan::column_place(self.table.keys[number]);
        EncodeContext::new(
            self.options.effort,
            self.options.version,
            refs,
            key,
            choices,
            &self.measured,
        )
    }

    /// How sizes are estimated.
    fn cost_basis(&self) -> CostBasis<'_> {
        CostBasis {
            effort: self.options.effort,
            version: self.options.version,
            measured: &self.measured,
        }
    }

    /// Small streams are coded together, and what a column adds differs from its size alone: tries each coding of each column
    /// in the whole, the largest columns first, until `work` bytes were coded.
    fn refined(&self, attempt: Attempt, work: usize, mut cache: CodedCache) -> Option<Attempt> {
        let (none, basis) = (Choices::default(), self.cost_basis());
        let choices = Choices::before(&attempt.written.choices, &none);
        let packed = attempt.packed_columns(basis);
        let mut order: Vec<usize> = (0..attempt.columns.len())
            .filter(|&number| packed[number] >= REFINED_COLUMN)
            .collect();
        order.sort_by_key(|&number| std::cmp::Reverse(packed[number]));
        let mut best: Option<Attempt> = None;
        // To write all columns takes its time too, however few bytes are coded.
        let (each, mut written) = (attempt.columns.len() * COLUMN_WORK, 0);
        for number in order {
            if cache.work() + written >= work {
                break;
            }
            let context = self.context(number, &none);
            let column = &best.as_ref().unwrap_or(&attempt).columns[number];
            let (cost, plan) = (column.cost(basis), column.plan.clone());
            let may_be_smaller = |coding: &EncodedColumn| {
                coding.plan != plan && coding.cost(basis) <= cost + cost / 4 + REFINED_BYTES
            };
            let codings = column::in_each_coding(&self.table.columns[number], &context);
            for coding in codings.into_iter().filter(may_be_smaller) {
                if cache.work() + written >= work {
                    break;
                }
                written += each;
                let before = best.as_ref().unwrap_or(&attempt);
                let mut columns = before.columns.clone();
                columns[number] = coding;
                let tried = self.write_as(columns, &choices, Some(&cache));
                cache.keep_new();
                if let Some(tried) = tried
                    && tried.written.payload.len() < before.written.payload.len()
                {
                    best = Some(tried);
                }
            }
        }
        let Some(mut best) = best else {
            return Some(attempt);
        };
        // The streams are grouped by the choices for the first codings. Others may be smaller for these.
        let again = self.write(best.columns.clone())?;
        if again.written.payload.len() <= best.written.payload.len() {
            return Some(again);
        }
        best.written.choices = [attempt.written.choices, best.written.choices].concat();
        Some(best)
    }

    /// The plan without the codings of the columns.
    fn plan_head(&self) -> Vec<u8> {
        let (head, counts, version) = (&self.table.head, &self.counts, self.options.version);
        let mut plan = Vec::new();
        put_varint(&mut plan, head.len() as u64);
        plan.extend_from_slice(head);
        match version {
            FormatVersion::V1 => put_varint(&mut plan, counts.len() as u64),
            FormatVersion::V2 => {
                let ordered = u64::from(!self.moves.is_empty());
                put_varint(&mut plan, counts.len() as u64 * 2 + ordered);
                order::put(&self.moves, &mut plan);
            }
        }
        put_counts(counts, version, &mut plan);
        plan
    }

    /// The columns by the choices that were made before, but the `searched` ones, in ascending order, without.
    fn encode_columns(&self, searched: &[usize]) -> Vec<EncodedColumn> {
        let encode = |number: usize| match searched.binary_search(&number).is_ok() {
            true => self.encode_anew(number),
            false => self.encode_column(number, self.choices),
        };
        let numbers = 0..self.table.columns.len();
        numbers.into_par_iter().map(encode).collect()
    }

    /// A column without the choices that were made before, those of its coders included.
    fn encode_anew(&self, number: usize) -> EncodedColumn {
        let mut column = self.encode_column(number, &Choices::default());
        for stream in &mut column.streams {
            stream.fresh = true;
        }
        column
    }

    /// Codes the streams; `None` if they are too long.
    fn write(&self, columns: Vec<EncodedColumn>) -> Option<Attempt> {
        self.write_as(columns, self.choices, None)
    }

    fn write_as(
        &self,
        mut columns: Vec<EncodedColumn>,
        choices: &Choices<'_>,
        cache: Option<&CodedCache>,
    ) -> Option<Attempt> {
        let mut plan = self.plan_head();
        let mut raw_streams: Vec<RawStream> = Vec::new();
        let counts: Vec<usize> = columns.iter().map(|column| column.streams.len()).collect();
        for column in &mut columns {
            plan.extend_from_slice(&column.plan);
            raw_streams.append(&mut column.streams);
        }
        let size: usize = plan.len()
            + raw_streams
                .iter()
                .map(|stream| stream.bytes.len())
                .sum::<usize>();
        let written = (size <= self.raw_limit)
            .then(|| streams::write(&plan, &raw_streams, self.options, choices, cache))?;
        let mut raw_streams = raw_streams.into_iter();
        for (column, count) in columns.iter_mut().zip(counts) {
            column.streams.extend(raw_streams.by_ref().take(count));
        }
        Some(Attempt { columns, written })
    }

    /// The columns whose `packed` size differs from what the plan expects, if together they matter in the `payload`.
    fn drifted(&self, packed: &[u64], payload: u64, plan: &SchemaPlan) -> Vec<usize> {
        // What a search may gain: the excess, or half of a column that has become much smaller, for
        // which another coding may be smaller still.
        let gain = |number: usize| {
            let stats = plan.columns.get(&self.table.keys[number])?;
            let expected = stats.expected(self.counts[number]);
            let size = packed[number];
            if size > expected + expected / DRIFT_SHARE + DRIFT_BYTES {
                return Some(size - expected);
            }
            let is_much_smaller = size + expected / SHRUNK_SHARE + DRIFT_BYTES < expected;
            if is_much_smaller {
                return Some(size / 2);
            }
            // Values that have become easier to predict, and a coding that does not see it.
            let expected = stats.expected_of_entropy(self.counts[number], self.entropies[number]);
            let is_blind = size > expected + expected / BLIND_SHARE + DRIFT_BYTES;
            is_blind.then(|| size - expected)
        };
        let changed: Vec<(usize, u64)> = (0..packed.len())
            .filter_map(|number| Some((number, gain(number)?)))
            .collect();
        let sum: u64 = changed.iter().map(|(_, gain)| gain).sum();
        if sum * DRIFT_TOTAL_SHARE < payload {
            return Vec::new();
        }
        changed.into_iter().map(|(number, _)| number).collect()
    }

    /// The large columns that follow from another one before them, did not when they were searched, and do not take less for it: their
    /// coding does not see it.
    fn newly_related(
        &mut self,
        packed: &[u64],
        payload: u64,
        plan: &SchemaPlan,
        drifted: &[usize],
    ) -> Vec<usize> {
        // Bytes of the values of a column, if each has that entropy.
        let bytes = |number: usize, entropy: u64| self.counts[number] as u64 * entropy / (256 * 8);
        let related = self.relations_of(packed);
        let is_new = |&(&number, &gain): &(&usize, &u64)| {
            let takes_all = packed[number] * 4 >= bytes(number, self.entropies[number]) * 3;
            let stats = plan.columns.get(&self.table.keys[number]);
            let before = stats.map_or(0, |stats| stats.related);
            let gain = bytes(number, gain.saturating_sub(before));
            takes_all && gain * RELATED_GAIN >= payload && !drifted.contains(&number)
        };
        let new = related.iter().filter(is_new);
        let new = new.map(|(number, _)| *number).collect();
        self.related = related;
        new
    }

    /// The columns whose values are all numbers, times or identifiers, and were not when they were searched: one odd value rules out the
    /// coding that suits all others.
    fn newly_typed(&self, plan: &SchemaPlan) -> Vec<usize> {
        let is_new = |number: &usize| {
            let stats = plan.columns.get(&self.table.keys[*number]);
            stats.is_some_and(|stats| !stats.is_typed)
                && column::is_typed(&self.table.columns[*number])
        };
        (0..self.table.columns.len()).filter(is_new).collect()
    }

    /// How much less the values of each large column may take beside those of one before it, in 1/256 of a bit a value; `sizes` of
    /// all columns say which are large.
    fn relations_of(&self, sizes: &[u64]) -> BTreeMap<usize, u64> {
        let all: u64 = sizes.iter().sum();
        let is_large = |number: &usize| sizes[*number] * RELATED_COLUMN >= all;
        let numbers: Vec<usize> = (0..sizes.len()).filter(is_large).collect();
        let (Some(&begin), Some(&last)) = (numbers.first(), numbers.last()) else {
            return BTreeMap::new();
        };
        let first = |number: usize| number.saturating_sub(RELATED_BEFORE);
        let begin = first(begin);
        let columns = &self.table.columns[begin..=last];
        let samples: Vec<_> = columns.par_iter().map(ColumnSample::of).collect();
        let sample = |number: usize| &samples[number - begin];
        let best = |&number: &usize| {
            let others =
                (first(number)..number).filter(|&from| self.counts[from] == self.counts[number]);
            let own = self.entropies[number];
            let gains = others.map(|from| {
                relations::gain(sample(from), sample(number), own, self.options.version)
            });
            gains.max().unwrap_or(0)
        };
        numbers
            .iter()
            .map(|number| (*number, best(number)))
            .collect()
    }

    /// Searches the drifted columns without the plan and keeps what is smaller.
    fn search_again(&self, attempt: Attempt, drifted: &[usize]) -> Option<Attempt> {
        let searched: Vec<(usize, EncodedColumn)> = drifted
            .par_iter()
            .map(|&number| (number, self.encode_anew(number)))
            .filter(|(number, column)| {
                let basis = self.cost_basis();
                column.cost(basis) < attempt.columns[*number].cost(basis)
            })
            .collect();
        if searched.is_empty() {
            return Some(attempt);
        }
        let mut columns = attempt.columns.clone();
        for (number, column) in searched {
            columns[number] = column;
        }
        let again = self.write(columns)?;
        let smaller = again.written.payload.len() < attempt.written.payload.len();
        Some(if smaller { again } else { attempt })
    }

    /// The choices that this block made, and the sizes of its searched columns.
    fn learned(
        &self,
        attempt: &Attempt,
        base: Option<&SchemaPlan>,
        drifted: &[usize],
    ) -> Option<SchemaPlan> {
        let packed = attempt.packed_columns(self.cost_basis());
        let changed = |number: &usize| {
            let key = &self.table.keys[*number];
            !attempt.columns[*number].choices.is_empty()
                || drifted.contains(number)
                || base.is_none_or(|plan| !plan.columns.contains_key(key))
        };
        let changed: Vec<usize> = (0..packed.len()).filter(changed).collect();
        if changed.is_empty() && attempt.written.choices.is_empty() {
            return None;
        }
        let mut plan = SchemaPlan::default();
        for number in changed {
            let related = self.related.get(&number).copied().unwrap_or_default();
            plan.choices
                .extend(attempt.columns[number].choices.iter().cloned());
            let (count, entropy) = (self.counts[number], self.entropies[number]);
            let stats = ColumnStats {
                related,
                is_typed: match self.typed.get(number) {
                    Some(typed) => *typed,
                    None => column::is_typed(&self.table.columns[number]),
                },
                ..ColumnStats::new(packed[number], count, entropy)
            };
            plan.columns.insert(self.table.keys[number], stats);
        }
        plan.choices.extend(attempt.written.choices.iter().cloned());
        Some(plan)
    }

    fn stream_infos(&self, attempt: &Attempt) -> Vec<StreamInfo> {
        let mut placed = attempt.written.placed.iter();
        let mut infos = Vec::new();
        for (column, name) in attempt.columns.iter().zip(&self.table.names) {
            for (stream, placed) in column.streams.iter().zip(placed.by_ref()) {
                infos.push(stream_info(name.clone(), stream.coding, placed));
            }
        }
        infos
    }
}

fn put_counts(counts: &[usize], version: FormatVersion, plan: &mut Vec<u8>) {
    let mut last = 0;
    for &count in counts {
        let count = count as u64;
        match version {
            FormatVersion::V1 => put_varint(plan, count),
            FormatVersion::V2 if count == 0 => plan.push(COUNT_ZERO),
            FormatVersion::V2 if count == last => plan.push(COUNT_AS_BEFORE),
            FormatVersion::V2 => put_varint(plan, count + u64::from(COUNT_AS_BEFORE)),
        }
        if count > 0 {
            last = count;
        }
    }
}

/// Version 2: the count of a column is 0, that of the last column with values, or follows plus 1.
const COUNT_ZERO: u8 = 0;
const COUNT_AS_BEFORE: u8 = 1;

/// Reads the number of values of each column.
fn read_counts(
    count: usize,
    version: FormatVersion,
    plan: &mut FieldReader<'_>,
    raw_len: usize,
) -> Result<Vec<usize>, Damage> {
    let mut last = 0;
    (0..count)
        .map(|_| {
            let limit = raw_len + 1 + usize::from(COUNT_AS_BEFORE);
            let number = plan.size(limit, "a column")?;
            let count = match (version, number) {
                (FormatVersion::V1, number) => number,
                (FormatVersion::V2, 0) => 0,
                (FormatVersion::V2, 1) => last,
                (FormatVersion::V2, number) => number - 1,
            };
            if count > 0 {
                last = count;
            }
            Ok(count)
        })
        .collect()
}

/// Whether the payload restores `raw`. A payload that does not is never written.
fn decodes_to(transform: Transform, version: FormatVersion, payload: &[u8], raw: &[u8]) -> bool {
    let restored = decode(transform, version, payload, raw.len());
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
pub fn decode(
    transform: Transform,
    version: FormatVersion,
    payload: &[u8],
    raw_len: usize,
) -> Result<Vec<u8>, Damage> {
    let mut source = read_source(version, payload, raw_len)?;
    Ok(rebuild(transform, &mut source, raw_len)?.0)
}

fn read_source(
    version: FormatVersion,
    payload: &[u8],
    raw_len: usize,
) -> Result<StreamSource, Damage> {
    match version {
        FormatVersion::V1 => StreamSource::read(payload, raw_len),
        FormatVersion::V2 => StreamSource::read_compact(payload, raw_len),
    }
}

/// The sizes of a payload's streams.
pub fn inspect(
    transform: Transform,
    version: FormatVersion,
    payload: &[u8],
    raw_len: usize,
) -> Result<Vec<StreamInfo>, Damage> {
    let mut source = read_source(version, payload, raw_len)?;
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
    let (count, moves) = read_order(source.version, &mut plan)?;
    let counts = read_counts(count, source.version, &mut plan, raw_len)?;
    // Every value takes a byte of the block or a separator, and is in three columns at most. Empty
    // values take memory too.
    let values = counts.iter().sum::<usize>();
    if values > raw_len * 4 + MAX_COLUMNS {
        return Err(Damage::new(format!(
            "{values} values in a block of {raw_len} bytes"
        )));
    }
    let lookup = TableLookup::of_columns(count);
    // A column may be a copy of others, so that a few bytes make columns without end.
    let mut left = raw_len * 8 + 64 * count;
    let mut columns: Vec<ColumnValues> = Vec::with_capacity(count);
    for (number, count) in counts.into_iter().enumerate() {
        source.column = number;
        let known = DecodeContext {
            limit: left.min(raw_len * 2 + 64),
            refs: ColumnRefs::before(number, count, &columns, Some(&lookup)),
            depth: 0,
        };
        let values = column::decode(count, &mut plan, source, &known)?;
        left = left.saturating_sub(values.byte_len());
        columns.push(values);
    }
    source.finish()?;
    if plan.remaining() > 0 {
        return Err(Damage::new("the plan is longer than its columns"));
    }
    order::restore(&moves, &mut columns);
    let (raw, mut names) = join(transform, head, &columns, raw_len)?;
    moves.iter().for_each(|step| step.apply(&mut names));
    Ok((raw, names))
}

/// Reads the number of columns and how their order was made.
fn read_order(
    version: FormatVersion,
    plan: &mut FieldReader<'_>,
) -> Result<(usize, Vec<ColumnMove>), Damage> {
    match version {
        FormatVersion::V1 => Ok((plan.size(MAX_COLUMNS, "the number of columns")?, Vec::new())),
        FormatVersion::V2 => {
            let number = plan.size(2 * MAX_COLUMNS + 1, "the number of columns")?;
            let moves = match number % 2 {
                0 => Vec::new(),
                _ => order::read(plan, number / 2)?,
            };
            Ok((number / 2, moves))
        }
    }
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

    #[test]
    fn columns_that_together_hold_many_times_their_block_are_refused() {
        const COLUMNS: usize = 100;
        let mut plan = vec![0];
        put_varint(&mut plan, COLUMNS as u64);
        for _ in 0..COLUMNS {
            put_varint(&mut plan, 400);
        }
        // Each column has the constant coding with a value of 4,096 bytes: less than twice the block.
        for _ in 0..COLUMNS {
            plan.push(1);
            put_varint(&mut plan, 4096);
            plan.extend([b'x'; 4096]);
        }
        let mut source = StreamSource::of_raw(&plan, &[]);
        let result = rebuild(Transform::Csv, &mut source, 1_000_000);
        let reason = result.expect_err("refused").0;
        assert!(reason.contains("more bytes than its block"), "{reason}");
        assert!(source.column < 10, "column {}", source.column);
    }
}
