//! Draws single values as text. Everything here runs once per value of every record, so it
//! writes straight into a buffer and allocates nothing.

use super::clock;
use super::kinds::{Cell, Choice, Class, Kind, Part, Shape, Template, scale};
use super::pools::WORDS;
use super::random::Random;
use super::text::{self, JsonStyle};
use super::walk::{Tick, Walk};

/// The values of one record so far: their texts one after another, and where each begins.
#[derive(Debug, Default)]
pub(super) struct Values {
    pub(super) text: Vec<u8>,
    spans: Vec<Span>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
    class: Class,
}

/// What values of a record have in common.
pub(super) struct Moment<'a> {
    pub(super) position: u64,
    pub(super) millis: u64,
    /// The row each table stands at.
    pub(super) rows: &'a [usize],
    /// Rows of cells, by table.
    pub(super) tables: &'a [Vec<Vec<Cell>>],
    pub(super) walks: &'a [Walk],
    /// The tick of each walk.
    pub(super) ticks: &'a [Tick],
    pub(super) style: Style,
}

/// What a format decides about values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    /// How lists are written, which are JSON in every format.
    pub(super) json: JsonStyle,
    /// Numbers lose trailing zeros, as programs print floats.
    pub(super) short: bool,
}

impl Values {
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.spans.clear();
    }

    /// The text and class of one value.
    pub(super) fn get(&self, leaf: usize) -> (&[u8], Class) {
        let span = self.spans.get(leaf);
        let text = span.and_then(|span| self.text.get(span.start..span.end));
        (
            text.unwrap_or_default(),
            span.map_or(Class::Null, |span| span.class),
        )
    }

    /// Draws the next value.
    pub(super) fn draw(
        &mut self,
        kind: &Kind,
        null_ratio: f64,
        moment: &Moment<'_>,
        rng: &mut Random,
    ) {
        let start = self.text.len();
        let class = if null_ratio > 0.0 && rng.chance(null_ratio) {
            Class::Null
        } else if let Kind::Template(template) = kind {
            self.fill(template);
            Class::Text
        } else {
            draw(kind, moment, rng, &mut self.text)
        };
        let end = self.text.len();
        self.spans.push(Span { start, end, class });
    }

    fn fill(&mut self, template: &Template) {
        for part in &template.0 {
            match part {
                Part::Literal(literal) => self.text.extend_from_slice(literal),
                Part::Leaf(leaf) => match self.spans.get(*leaf).copied() {
                    Some(span) if span.class != Class::Null => {
                        self.text.extend_from_within(span.start..span.end);
                    }
                    _ => self.text.push(b'-'),
                },
            }
        }
    }
}

/// Appends one value's text to `out`.
fn draw(kind: &Kind, moment: &Moment<'_>, rng: &mut Random, out: &mut Vec<u8>) -> Class {
    match kind {
        Kind::Sequence {
            start,
            step,
            width,
            prefix,
        } => {
            let number = start.wrapping_add(step.wrapping_mul(moment.position as i64));
            draw_sequence(number, *width, prefix, out)
        }
        Kind::Time {
            format,
            offset_millis,
        } => {
            clock::write(
                out,
                moment.millis.saturating_add_signed(*offset_millis),
                *format,
            );
            match format {
                clock::TimeFormat::Unix | clock::TimeFormat::UnixMillis => Class::Raw,
                _ => Class::Plain,
            }
        }
        Kind::Walk { walk, show, offset } => {
            let decimals = moment.walks.get(*walk).map_or(0, |walk| walk.decimals);
            let value = moment.ticks.get(*walk).map_or(0.0, |tick| tick.show(*show));
            text::decimal(
                out,
                scale(value + offset, decimals),
                decimals,
                moment.style.short,
            );
            Class::Raw
        }
        Kind::Number {
            min,
            count,
            decimals,
            shape,
        } => {
            let above = shaped(*shape, *count, rng);
            text::decimal(
                out,
                min.saturating_add_unsigned(above),
                *decimals,
                moment.style.short,
            );
            Class::Raw
        }
        Kind::Bool { ratio } => {
            let text: &[u8] = if rng.chance(*ratio) {
                b"true"
            } else {
                b"false"
            };
            out.extend_from_slice(text);
            Class::Raw
        }
        Kind::Choice(choice) => match choice.draw(rng) {
            Some(cell) => cell.write(out),
            None => Class::Null,
        },
        Kind::Name(pool) => {
            joined(out, pool.parts().iter().copied(), rng);
            Class::Text
        }
        Kind::Words { min, max } => {
            let count = u64::from(*min) + rng.below(u64::from(max - min) + 1);
            joined(out, (0..count).map(|_| WORDS), rng);
            Class::Plain
        }
        Kind::Uuid => {
            draw_uuid(rng, out);
            Class::Plain
        }
        Kind::Hex { digits } => {
            let mut left = *digits;
            while left > 0 {
                text::hex(out, rng.next(), left);
                left = left.saturating_sub(16);
            }
            Class::Plain
        }
        Kind::Ipv4 { base, hosts } => {
            draw_ipv4(base.wrapping_add(rng.below(*hosts) as u32), out);
            Class::Plain
        }
        Kind::Column { table, column } => {
            let row = moment.rows.get(*table).copied().unwrap_or(0);
            let cells = moment.tables.get(*table).and_then(|rows| rows.get(row));
            match cells.and_then(|cells| cells.get(*column)) {
                Some(cell) => cell.write(out),
                None => Class::Null,
            }
        }
        Kind::Array { item, min, max } => {
            let count = min + rng.below(u64::from(max - min) + 1) as u32;
            out.push(b'[');
            for n in 0..count {
                if n > 0 {
                    out.extend_from_slice(moment.style.json.comma().as_bytes());
                }
                draw_json(item, moment, rng, out);
            }
            out.push(b']');
            Class::Raw
        }
        Kind::Object(members) => {
            draw_object(members, moment, rng, out);
            Class::Raw
        }
        // Templates need the values before them: see `Values::draw`. None reaches this point.
        Kind::Template(_) => Class::Null,
    }
}

/// Appends one value as JSON.
fn draw_json(kind: &Kind, moment: &Moment<'_>, rng: &mut Random, out: &mut Vec<u8>) {
    let start = out.len();
    match draw(kind, moment, rng, out) {
        Class::Null => out.extend_from_slice(b"null"),
        Class::Raw => {}
        Class::Plain => {
            out.insert(start, b'"');
            out.push(b'"');
        }
        Class::Text => {
            let text = out.split_off(start);
            text::json_string(out, &text, moment.style.json);
        }
    }
}

fn draw_object(
    members: &[(String, Kind)],
    moment: &Moment<'_>,
    rng: &mut Random,
    out: &mut Vec<u8>,
) {
    let style = moment.style.json;
    out.push(b'{');
    for (n, (name, kind)) in members.iter().enumerate() {
        if n > 0 {
            out.extend_from_slice(style.comma().as_bytes());
        }
        text::json_string(out, name.as_bytes(), style);
        out.extend_from_slice(style.colon().as_bytes());
        draw_json(kind, moment, rng, out);
    }
    out.push(b'}');
}

/// A number, or a text when it has a prefix or leading zeros.
fn draw_sequence(number: i64, width: usize, prefix: &str, out: &mut Vec<u8>) -> Class {
    if prefix.is_empty() && width <= 1 {
        text::integer(out, number);
        return Class::Raw;
    }
    out.extend_from_slice(prefix.as_bytes());
    if number < 0 {
        out.push(b'-');
    }
    text::padded(out, number.unsigned_abs(), width);
    Class::Text
}

/// A number below `count`.
fn shaped(shape: Shape, count: u64, rng: &mut Random) -> u64 {
    let share = match shape {
        Shape::Uniform => return rng.below(count),
        Shape::Low => {
            let unit = rng.unit();
            unit * unit * unit
        }
        Shape::Bell => (rng.unit() + rng.unit() + rng.unit()) / 3.0,
    };
    ((share * count as f64) as u64).min(count.saturating_sub(1))
}

fn joined<'a>(out: &mut Vec<u8>, lists: impl Iterator<Item = &'a [&'a str]>, rng: &mut Random) {
    for (n, list) in lists.enumerate() {
        if n > 0 {
            out.push(b' ');
        }
        let word = list.get(rng.index(list.len()));
        out.extend_from_slice(word.copied().unwrap_or_default().as_bytes());
    }
}

/// A random UUID: version 4, variant 1.
fn draw_uuid(rng: &mut Random, out: &mut Vec<u8>) {
    let (high, low) = (rng.next(), rng.next());
    text::hex(out, high, 8);
    out.push(b'-');
    text::hex(out, high >> 32, 4);
    out.extend_from_slice(b"-4");
    text::hex(out, high >> 48, 3);
    out.push(b'-');
    out.push(b"89ab"[(high >> 60) as usize & 3]);
    text::hex(out, low, 3);
    out.push(b'-');
    text::hex(out, low >> 12, 12);
}

fn draw_ipv4(address: u32, out: &mut Vec<u8>) {
    for (n, byte) in address.to_be_bytes().into_iter().enumerate() {
        if n > 0 {
            out.push(b'.');
        }
        text::padded(out, u64::from(byte), 1);
    }
}

impl Cell {
    fn write(&self, out: &mut Vec<u8>) -> Class {
        out.extend_from_slice(&self.text);
        self.class
    }
}

impl Choice {
    fn draw(&self, rng: &mut Random) -> Option<&Cell> {
        let index = match self.cumulative.last() {
            None => rng.index(self.cells.len()),
            Some(&sum) => {
                let point = rng.below(sum);
                self.cumulative.partition_point(|&upto| upto <= point)
            }
        };
        self.cells.get(index)
    }
}
