//! Values that walk: prices, temperatures. Each file starts where a slow random curve stands at
//! its index and is drawn towards where the next file starts, so that files join without being
//! made one after another.

use super::fields::Table;
use super::kinds::{position_of, read_decimals, scale};
use super::random::{Random, drift, mix};
use super::reader::{MAX_NUMBER, Reader, number};
use super::schema::SchemaError;
use super::tree::Tree;

/// How strongly each tick is drawn to the curve: a walk strays a few steps from it, no further.
const PULL: f64 = 0.02;

/// A walk as the schema describes it.
#[derive(Debug, Clone)]
pub(super) struct Walk {
    pub(super) name: String,
    /// The table of which every row walks on its own.
    pub(super) per: Option<usize>,
    base: Base,
    /// How far the slow curve goes from the base, and how far one tick goes.
    swing: f64,
    step: f64,
    /// Both are shares of the base.
    relative: bool,
    pub(super) decimals: u32,
    min: f64,
    max: f64,
}

/// Where a walk is at home.
#[derive(Debug, Clone)]
enum Base {
    Fixed(f64),
    /// A column of the table `per`.
    Column(usize),
}

/// Which side of a tick a field shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    Open,
    High,
    Low,
    Close,
    Change,
}

impl Show {
    pub(super) const NAMES: [(&'static str, Self); 5] = [
        ("open", Self::Open),
        ("high", Self::High),
        ("low", Self::Low),
        ("close", Self::Close),
        ("change", Self::Change),
    ];
}

/// One step of a walk.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tick {
    open: f64,
    high: f64,
    low: f64,
    close: f64,
}

impl Tick {
    pub(super) fn show(&self, show: Show) -> f64 {
        match show {
            Show::Open => self.open,
            Show::High => self.high,
            Show::Low => self.low,
            Show::Close => self.close,
            Show::Change => self.close - self.open,
        }
    }
}

/// Where one row's walk stands within a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stand {
    value: f64,
    from: f64,
    to: f64,
}

impl Walk {
    pub(super) fn read(
        name: &str,
        mut reader: Reader<'_>,
        tables: &[Table],
    ) -> Result<Self, SchemaError> {
        let per = match reader.text("per")? {
            None => None,
            Some(table) => {
                let known: Vec<_> = tables.iter().map(|table| table.name.as_str()).collect();
                Some(position_of(&reader, "per", table, &known)?)
            }
        };
        let found = reader.take("base");
        let base = match reader.need("base", found)? {
            Tree::Text(column) => {
                let table = per.and_then(|per| tables.get(per));
                let columns = table.map_or(&[][..], |table| &table.columns);
                let known: Vec<_> = columns.iter().map(String::as_str).collect();
                Base::Column(position_of(&reader, "base", column, &known)?)
            }
            other => Base::Fixed(number(&reader.path("base"), other)?),
        };
        let step = reader.number_in("step", 0.0, MAX_NUMBER)?;
        let walk = Self {
            name: name.to_owned(),
            per,
            base,
            swing: reader.number_in("swing", 0.0, MAX_NUMBER)?.unwrap_or(0.0),
            step: reader.need("step", step)?,
            relative: reader.boolean("relative")?.unwrap_or(false),
            decimals: read_decimals(&mut reader)?,
            min: reader.number("min")?.unwrap_or(-MAX_NUMBER),
            max: reader.number("max")?.unwrap_or(MAX_NUMBER),
        };
        if walk.min > walk.max {
            let problem = format!("{} is below min, {}", walk.max, walk.min);
            return Err(reader.error("max", problem, "swap them"));
        }
        reader.finish()?;
        Ok(walk)
    }

    /// The value a row walks around.
    pub(super) fn base(&self, cells: Option<&[super::kinds::Cell]>) -> f64 {
        match self.base {
            Base::Fixed(value) => value,
            Base::Column(column) => {
                let cell = cells.and_then(|cells| cells.get(column));
                let text = cell.and_then(|cell| std::str::from_utf8(&cell.text).ok());
                let value: Option<f64> = text.and_then(|text| text.parse().ok());
                // Infinity and the like count as no number.
                let value = value.filter(|value| value.abs() <= MAX_NUMBER);
                value.unwrap_or(0.0)
            }
        }
    }

    /// Where the walk of the row numbered `row` stands as the file `index` begins.
    pub(super) fn stand(&self, seed: u64, base: f64, row: u64, index: u64) -> Stand {
        let swing = self.swing * self.unit(base);
        let seed = mix(seed, row);
        let level = |index| self.clamp(base + swing * drift(seed, index));
        Stand {
            value: self.rounded(level(index)),
            from: level(index),
            to: level(index.wrapping_add(1)),
        }
    }

    /// Goes one step; `progress` says how much of the file is done, from 0 to 1.
    pub(super) fn tick(
        &self,
        stand: &mut Stand,
        base: f64,
        progress: f64,
        rng: &mut Random,
    ) -> Tick {
        let step = self.step * self.unit(base);
        let target = stand.from + (stand.to - stand.from) * progress;
        let open = stand.value;
        let moved = open + step * rng.around_zero() + PULL * (target - open);
        let close = self.rounded(self.clamp(moved));
        let reach = 0.5 * step * rng.unit();
        stand.value = close;
        Tick {
            open,
            high: self.clamp(open.max(close) + reach),
            low: self.clamp(open.min(close) - 0.5 * step * rng.unit()),
            close,
        }
    }

    fn unit(&self, base: f64) -> f64 {
        if self.relative { base.abs() } else { 1.0 }
    }

    fn clamp(&self, value: f64) -> f64 {
        value.clamp(self.min, self.max)
    }

    /// As it will be printed, so that the next open equals the last close.
    fn rounded(&self, value: f64) -> f64 {
        scale(value, self.decimals) as f64 / 10_f64.powi(self.decimals as i32)
    }
}
