//! A schema document compiled for one format, size and seed, and the making of records from it.

use crate::clock::RecordClock;
use crate::document::{RowOrder, RowTable, SchemaDocument, TableRows, ValueField};
use crate::draw::{RecordContext, RecordValues, ValueStyle};
use crate::kinds::Cell;
use crate::layout::{self, RecordLayout};
use crate::options::{FileFormat, GeneratorOptions};
use crate::random::{Random, mix};
use crate::text::JsonStyle;
use crate::walk::{RandomWalk, Tick, WalkState};

/// Salts, so that tables, walks and files have random numbers of their own.
const TABLE_SALT: u64 = 0x7461_626c_6573;
const WALK_SALT: u64 = 0x7761_6c6b_7300;

/// Records that are made once to measure their size.
const TRIAL_RECORDS: u64 = 200;
const TRIAL_BYTES: usize = 1 << 20;

/// Everything about records that is the same in every file.
#[derive(Debug)]
pub(crate) struct CompiledDocument {
    clock: RecordClock,
    tables: Vec<Vec<Vec<Cell>>>,
    orders: Vec<RowOrder>,
    walks: Vec<RandomWalk>,
    /// For each walk, the base of each of its rows.
    bases: Vec<Vec<f64>>,
    fields: Vec<ValueField>,
    layout: RecordLayout,
    header: Vec<u8>,
    style: ValueStyle,
    seed: u64,
    /// Positions of each file: a little more than the records that fit.
    stride: u64,
}

/// The state of a file that is being made.
#[derive(Debug)]
pub(crate) struct FileState {
    index: u64,
    made: u64,
    rng: Random,
    values: RecordValues,
    rows: Vec<usize>,
    ticks: Vec<Tick>,
    /// For each walk, the state of each of its rows, once it was needed.
    walk_states: Vec<Vec<Option<WalkState>>>,
}

impl CompiledDocument {
    pub(crate) fn new(document: &SchemaDocument, options: &GeneratorOptions) -> Self {
        let style = match options.format {
            FileFormat::Json => ValueStyle {
                json: JsonStyle::Python,
                short: true,
            },
            FileFormat::Ndjson => ValueStyle {
                json: JsonStyle::Compact,
                short: true,
            },
            FileFormat::Csv | FileFormat::Txt => ValueStyle {
                json: JsonStyle::Compact,
                short: false,
            },
        };
        let numbered = document.tables.iter().zip(0..);
        let make = |(table, n)| make_table(table, mix(options.seed ^ TABLE_SALT, n), style);
        let tables: Vec<_> = numbered.map(make).collect();
        let bases = document
            .walks
            .iter()
            .map(|walk| bases(walk, &tables))
            .collect();
        let mut compiled = Self {
            clock: document.clock.clone(),
            orders: document.tables.iter().map(|table| table.order).collect(),
            tables,
            walks: document.walks.clone(),
            bases,
            fields: document.fields.clone(),
            layout: RecordLayout::new(document, options.format),
            header: match options.format {
                FileFormat::Csv => layout::csv_header(document),
                FileFormat::Json | FileFormat::Ndjson | FileFormat::Txt => Vec::new(),
            },
            style,
            seed: options.seed,
            stride: TRIAL_RECORDS,
        };
        compiled.stride = compiled.fitting_stride(options.file_size_bytes);
        compiled
    }

    pub(crate) fn header(&self) -> Vec<u8> {
        self.header.clone()
    }

    /// Begins file number `index`.
    pub(crate) fn start(&self, index: u64) -> FileState {
        FileState {
            index,
            made: 0,
            rng: Random::new(mix(self.seed, index)),
            values: RecordValues::default(),
            rows: vec![0; self.tables.len()],
            ticks: vec![Tick::default(); self.walks.len()],
            walk_states: self
                .bases
                .iter()
                .map(|rows| vec![None; rows.len()])
                .collect(),
        }
    }

    /// Appends the next record.
    pub(crate) fn write_one(&self, file: &mut FileState, out: &mut Vec<u8>) {
        let position = file.index.wrapping_mul(self.stride).wrapping_add(file.made);
        self.choose_rows(position, file);
        self.tick(file);
        let context = RecordContext {
            position,
            millis: self.clock.at(position, file.rng.unit()),
            rows: &file.rows,
            tables: &self.tables,
            walks: &self.walks,
            ticks: &file.ticks,
            style: self.style,
        };
        file.values.clear();
        for field in &self.fields {
            file.values
                .draw(&field.kind, field.null_ratio, &context, &mut file.rng);
        }
        self.layout.write(&file.values, out);
        file.made += 1;
    }

    fn choose_rows(&self, position: u64, file: &mut FileState) {
        for ((row, rows), order) in file.rows.iter_mut().zip(&self.tables).zip(&self.orders) {
            let len = rows.len();
            *row = match order {
                RowOrder::Cycle => (position % len.max(1) as u64) as usize,
                RowOrder::Random => file.rng.index(len),
                RowOrder::Skewed => {
                    let unit = file.rng.unit();
                    (unit * unit * unit * len as f64) as usize
                }
            };
        }
    }

    /// Takes one step of every walk, each for the present row of its table.
    fn tick(&self, file: &mut FileState) {
        let progress = (file.made as f64 / self.stride as f64).min(1.0);
        for (n, walk) in self.walks.iter().enumerate() {
            let row = walk
                .per
                .and_then(|per| file.rows.get(per))
                .copied()
                .unwrap_or(0);
            let base = self.bases.get(n).and_then(|rows| rows.get(row)).copied();
            let state = file
                .walk_states
                .get_mut(n)
                .and_then(|rows| rows.get_mut(row));
            let (Some(base), Some(state), Some(tick)) = (base, state, file.ticks.get_mut(n)) else {
                continue;
            };
            let state = state.get_or_insert_with(|| {
                let seed = mix(self.seed ^ WALK_SALT, n as u64);
                walk.start(seed, base, row as u64, file.index)
            });
            *tick = walk.tick(state, base, progress, &mut file.rng);
        }
    }

    /// The records that fit into a file and some more: the positions of two files must not overlap.
    fn fitting_stride(&self, file_size_bytes: u64) -> u64 {
        let mut file = self.start(0);
        let mut out = Vec::new();
        while file.made < TRIAL_RECORDS && out.len() < TRIAL_BYTES {
            self.write_one(&mut file, &mut out);
        }
        let record_bytes = (out.len() as u64 / file.made.max(1)).max(1);
        let fitting = file_size_bytes / record_bytes;
        fitting + fitting / 16 + 64
    }
}

fn make_table(table: &RowTable, seed: u64, style: ValueStyle) -> Vec<Vec<Cell>> {
    let (count, fields) = match &table.rows {
        TableRows::Given(rows) => return rows.clone(),
        TableRows::Made { count, fields } => (*count, fields),
    };
    let mut rng = Random::new(seed);
    let mut values = RecordValues::default();
    let mut make_row = |position| {
        let context = RecordContext {
            position,
            millis: 0,
            rows: &[],
            tables: &[],
            walks: &[],
            ticks: &[],
            style,
        };
        values.clear();
        for field in fields {
            values.draw(&field.kind, field.null_ratio, &context, &mut rng);
        }
        let cell = |field| {
            let (text, class) = values.get(field);
            Cell {
                text: text.to_vec(),
                class,
            }
        };
        (0..fields.len()).map(cell).collect()
    };
    (0..count as u64).map(&mut make_row).collect()
}

fn bases(walk: &RandomWalk, tables: &[Vec<Vec<Cell>>]) -> Vec<f64> {
    match walk.per.and_then(|per| tables.get(per)) {
        None => vec![walk.base(None)],
        Some(rows) => rows.iter().map(|cells| walk.base(Some(cells))).collect(),
    }
}
