//! Random walks: prices, temperatures. Each file starts at the value that a slow random curve has at the file's index, and
//! is drawn towards the value at the next index, so that files join without being made one after another.

use crate::error::SchemaError;
use crate::kinds::{Cell, TableNames, TickPart, read_decimals, scale};
use crate::random::{Random, drift, mix};
use crate::reader::{MAX_NUMBER, ObjectReader, number};
use crate::tree::JsonTree;

/// How strongly each tick is drawn to the curve: a walk is never more than a few steps away from it.
const PULL: f64 = 0.02;

/// A random walk as the schema describes it.
#[derive(Debug, Clone)]
pub(crate) struct RandomWalk {
    /// The table of which every row has a walk of its own.
    pub(crate) per: Option<usize>,
    base: WalkBase,
    /// How far the slow curve goes from the base, and how far one tick goes.
    swing: f64,
    step: f64,
    /// Whether both are fractions of the base.
    relative: bool,
    pub(crate) decimals: u32,
    min: f64,
    max: f64,
}

/// The value that a walk stays around.
#[derive(Debug, Clone)]
enum WalkBase {
    Fixed(f64),
    /// A column of the table `per`.
    Column(usize),
}

/// One step of a walk.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tick {
    open: f64,
    high: f64,
    low: f64,
    close: f64,
}

impl Tick {
    pub(crate) fn part(&self, part: TickPart) -> f64 {
        match part {
            TickPart::Open => self.open,
            TickPart::High => self.high,
            TickPart::Low => self.low,
            TickPart::Close => self.close,
            TickPart::Change => self.close - self.open,
        }
    }
}

/// The state of one row's walk within a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WalkState {
    value: f64,
    from: f64,
    to: f64,
}

impl RandomWalk {
    pub(crate) fn read(
        mut reader: ObjectReader<'_>,
        tables: &[TableNames],
    ) -> Result<Self, SchemaError> {
        let per = match reader.text("per")? {
            None => None,
            Some(table) => {
                let known: Vec<_> = tables.iter().map(|table| table.name.as_str()).collect();
                Some(reader.position_of("per", table, &known)?)
            }
        };
        let found = reader.member("base");
        let base = match reader.require("base", found)? {
            JsonTree::Text(column) => {
                let table = per.and_then(|per| tables.get(per));
                let known = table.map(TableNames::columns).unwrap_or_default();
                WalkBase::Column(reader.position_of("base", column, &known)?)
            }
            other => WalkBase::Fixed(number(&reader.path("base"), other)?),
        };
        let step = reader.number_in("step", 0.0, MAX_NUMBER)?;
        let walk = Self {
            per,
            base,
            swing: reader.number_in("swing", 0.0, MAX_NUMBER)?.unwrap_or(0.0),
            step: reader.require("step", step)?,
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

    /// The value that the walk of a row stays around.
    pub(crate) fn base(&self, row: Option<&[Cell]>) -> f64 {
        match self.base {
            WalkBase::Fixed(value) => value,
            WalkBase::Column(column) => {
                let cell = row.and_then(|cells| cells.get(column));
                let text = cell.and_then(|cell| std::str::from_utf8(&cell.text).ok());
                let value: Option<f64> = text.and_then(|text| text.parse().ok());
                // Infinity and the like do not count as numbers.
                let value = value.filter(|value| value.abs() <= MAX_NUMBER);
                value.unwrap_or(0.0)
            }
        }
    }

    /// The state of the walk of the row numbered `row` at the start of the file `index`.
    pub(crate) fn start(&self, seed: u64, base: f64, row: u64, index: u64) -> WalkState {
        let swing = self.swing * self.unit(base);
        let seed = mix(seed, row);
        let level = |index| self.clamp(base + swing * drift(seed, index));
        WalkState {
            value: self.rounded(level(index)),
            from: level(index),
            to: level(index.wrapping_add(1)),
        }
    }

    /// Takes one step; `progress` says how much of the file is done, from 0 to 1.
    pub(crate) fn tick(
        &self,
        state: &mut WalkState,
        base: f64,
        progress: f64,
        rng: &mut Random,
    ) -> Tick {
        let step = self.step * self.unit(base);
        let target = state.from + (state.to - state.from) * progress;
        let open = state.value;
        let moved = open + step * rng.around_zero() + PULL * (target - open);
        let close = self.rounded(self.clamp(moved));
        let above = 0.5 * step * rng.unit();
        state.value = close;
        Tick {
            open,
            high: self.clamp(open.max(close) + above),
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
