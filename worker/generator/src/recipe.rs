//! A document made ready for one format, size and seed, and the making of records from it.

use super::clock::Clock;
use super::draw::{Moment, Style, Values};
use super::fields::{Document, Leaf, Order, Rows, Table};
use super::kinds::Cell;
use super::layout::{self, Layout};
use super::random::{Random, mix};
use super::text::JsonStyle;
use super::walk::{Stand, Tick, Walk};
use super::{FileFormat, GeneratorOptions};

/// Salts, so that tables, walks and files draw from streams of their own.
const TABLE_SALT: u64 = 0x7461_626c_6573;
const WALK_SALT: u64 = 0x7761_6c6b_7300;

/// Records made once to learn how large they are.
const TRIAL_RECORDS: u64 = 200;
const TRIAL_BYTES: usize = 1 << 20;

/// Everything about the records that is the same in every file.
#[derive(Debug)]
pub(super) struct Recipe {
    clock: Clock,
    tables: Vec<Vec<Vec<Cell>>>,
    orders: Vec<Order>,
    walks: Vec<Walk>,
    /// For each walk what each of its rows walks around.
    bases: Vec<Vec<f64>>,
    leaves: Vec<Leaf>,
    layout: Layout,
    header: Vec<u8>,
    style: Style,
    seed: u64,
    /// Positions each file may use: a little more than the records that fit.
    stride: u64,
}

/// A file being made.
#[derive(Debug)]
pub(super) struct Draft {
    index: u64,
    made: u64,
    rng: Random,
    values: Values,
    rows: Vec<usize>,
    ticks: Vec<Tick>,
    /// For each walk where each of its rows stands, once it was needed.
    stands: Vec<Vec<Option<Stand>>>,
}

impl Recipe {
    pub(super) fn new(document: &Document, options: &GeneratorOptions) -> Self {
        let style = match options.format {
            FileFormat::Json => Style {
                json: JsonStyle::Python,
                short: true,
            },
            FileFormat::Ndjson => Style {
                json: JsonStyle::Compact,
                short: true,
            },
            FileFormat::Csv | FileFormat::Txt => Style {
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
        let mut recipe = Self {
            clock: document.clock.clone(),
            orders: document.tables.iter().map(|table| table.order).collect(),
            tables,
            walks: document.walks.clone(),
            bases,
            leaves: document.leaves.clone(),
            layout: Layout::new(document, options.format),
            header: match options.format {
                FileFormat::Csv => layout::csv_header(document),
                FileFormat::Json | FileFormat::Ndjson | FileFormat::Txt => Vec::new(),
            },
            style,
            seed: options.seed,
            stride: TRIAL_RECORDS,
        };
        recipe.stride = recipe.fitting_stride(options.file_size_bytes);
        recipe
    }

    pub(super) fn header(&self) -> Vec<u8> {
        self.header.clone()
    }

    /// Begins file number `index`.
    pub(super) fn start(&self, index: u64) -> Draft {
        Draft {
            index,
            made: 0,
            rng: Random::new(mix(self.seed, index)),
            values: Values::default(),
            rows: vec![0; self.tables.len()],
            ticks: vec![Tick::default(); self.walks.len()],
            stands: self
                .bases
                .iter()
                .map(|rows| vec![None; rows.len()])
                .collect(),
        }
    }

    /// Appends the next record.
    pub(super) fn write_one(&self, draft: &mut Draft, out: &mut Vec<u8>) {
        let position = draft
            .index
            .wrapping_mul(self.stride)
            .wrapping_add(draft.made);
        self.choose_rows(position, draft);
        self.tick(draft);
        let moment = Moment {
            position,
            millis: self.clock.at(position, draft.rng.unit()),
            rows: &draft.rows,
            tables: &self.tables,
            walks: &self.walks,
            ticks: &draft.ticks,
            style: self.style,
        };
        draft.values.clear();
        for leaf in &self.leaves {
            draft
                .values
                .draw(&leaf.kind, leaf.null_ratio, &moment, &mut draft.rng);
        }
        self.layout.write(&draft.values, out);
        draft.made += 1;
    }

    fn choose_rows(&self, position: u64, draft: &mut Draft) {
        for ((row, rows), order) in draft.rows.iter_mut().zip(&self.tables).zip(&self.orders) {
            let len = rows.len();
            *row = match order {
                Order::Cycle => (position % len.max(1) as u64) as usize,
                Order::Random => draft.rng.index(len),
                Order::Skewed => {
                    let unit = draft.rng.unit();
                    (unit * unit * unit * len as f64) as usize
                }
            };
        }
    }

    /// Moves every walk one step, for the row its table stands at.
    fn tick(&self, draft: &mut Draft) {
        let progress = (draft.made as f64 / self.stride as f64).min(1.0);
        for (n, walk) in self.walks.iter().enumerate() {
            let row = walk
                .per
                .and_then(|per| draft.rows.get(per))
                .copied()
                .unwrap_or(0);
            let base = self.bases.get(n).and_then(|rows| rows.get(row)).copied();
            let stand = draft.stands.get_mut(n).and_then(|rows| rows.get_mut(row));
            let (Some(base), Some(stand), Some(tick)) = (base, stand, draft.ticks.get_mut(n))
            else {
                continue;
            };
            let stand = stand.get_or_insert_with(|| {
                let seed = mix(self.seed ^ WALK_SALT, n as u64);
                walk.stand(seed, base, row as u64, draft.index)
            });
            *tick = walk.tick(stand, base, progress, &mut draft.rng);
        }
    }

    /// Records that fit into a file, with room to spare: positions of files must not overlap.
    fn fitting_stride(&self, file_size_bytes: u64) -> u64 {
        let mut draft = self.start(0);
        let mut out = Vec::new();
        while draft.made < TRIAL_RECORDS && out.len() < TRIAL_BYTES {
            self.write_one(&mut draft, &mut out);
        }
        let record_bytes = (out.len() as u64 / draft.made.max(1)).max(1);
        let fitting = file_size_bytes / record_bytes;
        fitting + fitting / 16 + 64
    }
}

fn make_table(table: &Table, seed: u64, style: Style) -> Vec<Vec<Cell>> {
    let (count, leaves) = match &table.rows {
        Rows::Given(rows) => return rows.clone(),
        Rows::Made { count, leaves } => (*count, leaves),
    };
    let mut rng = Random::new(seed);
    let mut values = Values::default();
    let mut make_row = |position| {
        let moment = Moment {
            position,
            millis: 0,
            rows: &[],
            tables: &[],
            walks: &[],
            ticks: &[],
            style,
        };
        values.clear();
        for leaf in leaves {
            values.draw(&leaf.kind, leaf.null_ratio, &moment, &mut rng);
        }
        let cell = |leaf| {
            let (text, class) = values.get(leaf);
            Cell {
                text: text.to_vec(),
                class,
            }
        };
        (0..leaves.len()).map(cell).collect()
    };
    (0..count as u64).map(&mut make_row).collect()
}

fn bases(walk: &Walk, tables: &[Vec<Vec<Cell>>]) -> Vec<f64> {
    match walk.per.and_then(|per| tables.get(per)) {
        None => vec![walk.base(None)],
        Some(rows) => rows.iter().map(|cells| walk.base(Some(cells))).collect(),
    }
}
