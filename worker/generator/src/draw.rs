//! Draws single values as text. It runs once per value of every record, so it writes into a buffer and allocates nothing.

use crate::clock;
use crate::kinds::{
    Cell, Distribution, TemplatePart, TextClass, TextTemplate, ValueKind, WeightedChoice, scale,
};
use crate::pools::WORDS;
use crate::random::Random;
use crate::text::{self, JsonStyle};
use crate::walk::{RandomWalk, Tick};

/// The values of one record so far: their texts one after another, and where each begins.
#[derive(Debug, Default)]
pub(crate) struct RecordValues {
    text: Vec<u8>,
    spans: Vec<ValueSpan>,
}

#[derive(Debug, Clone, Copy)]
struct ValueSpan {
    start: usize,
    end: usize,
    class: TextClass,
}

/// What the values of one record have in common.
pub(crate) struct RecordContext<'a> {
    pub(crate) position: u64,
    pub(crate) millis: u64,
    /// The row of each table.
    pub(crate) rows: &'a [usize],
    /// Rows of cells, by table.
    pub(crate) tables: &'a [Vec<Vec<Cell>>],
    pub(crate) walks: &'a [RandomWalk],
    /// The tick of each walk.
    pub(crate) ticks: &'a [Tick],
    pub(crate) style: ValueStyle,
}

/// What a format decides about values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ValueStyle {
    /// How lists are written: they are JSON in every format.
    pub(crate) json: JsonStyle,
    /// Whether numbers lose trailing zeros, as programs print floats.
    pub(crate) short: bool,
}

impl RecordValues {
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.spans.clear();
    }

    /// The text and class of one field's value.
    pub(crate) fn get(&self, field: usize) -> (&[u8], TextClass) {
        let span = self.spans.get(field);
        let text = span.and_then(|span| self.text.get(span.start..span.end));
        (
            text.unwrap_or_default(),
            span.map_or(TextClass::Null, |span| span.class),
        )
    }

    /// Draws the next value.
    pub(crate) fn draw(
        &mut self,
        kind: &ValueKind,
        null_ratio: f64,
        context: &RecordContext<'_>,
        rng: &mut Random,
    ) {
        let start = self.text.len();
        let class = if null_ratio > 0.0 && rng.chance(null_ratio) {
            TextClass::Null
        } else if let ValueKind::Template(template) = kind {
            self.fill(template);
            TextClass::Text
        } else {
            draw(kind, context, rng, &mut self.text)
        };
        let end = self.text.len();
        self.spans.push(ValueSpan { start, end, class });
    }

    fn fill(&mut self, template: &TextTemplate) {
        for part in &template.0 {
            match part {
                TemplatePart::Literal(literal) => self.text.extend_from_slice(literal),
                TemplatePart::Field(field) => match self.spans.get(*field).copied() {
                    Some(span) if span.class != TextClass::Null => {
                        self.text.extend_from_within(span.start..span.end);
                    }
                    _ => self.text.push(b'-'),
                },
            }
        }
    }
}

/// Appends one value's text to `out`.
fn draw(
    kind: &ValueKind,
    context: &RecordContext<'_>,
    rng: &mut Random,
    out: &mut Vec<u8>,
) -> TextClass {
    match kind {
        ValueKind::Sequence {
            start,
            step,
            width,
            prefix,
        } => {
            let number = start.wrapping_add(step.wrapping_mul(context.position as i64));
            draw_sequence(number, *width, prefix, out)
        }
        ValueKind::Time {
            format,
            offset_millis,
        } => {
            clock::write(
                out,
                context.millis.saturating_add_signed(*offset_millis),
                *format,
            );
            match format {
                clock::TimeFormat::Unix | clock::TimeFormat::UnixMillis => TextClass::Raw,
                _ => TextClass::Plain,
            }
        }
        ValueKind::Walk { walk, show, offset } => {
            let decimals = context.walks.get(*walk).map_or(0, |walk| walk.decimals);
            let value = context
                .ticks
                .get(*walk)
                .map_or(0.0, |tick| tick.part(*show));
            text::decimal(
                out,
                scale(value + offset, decimals),
                decimals,
                context.style.short,
            );
            TextClass::Raw
        }
        ValueKind::Number {
            min,
            count,
            decimals,
            distribution,
        } => {
            let above = distributed(*distribution, *count, rng);
            text::decimal(
                out,
                min.saturating_add_unsigned(above),
                *decimals,
                context.style.short,
            );
            TextClass::Raw
        }
        ValueKind::Bool { ratio } => {
            let text: &[u8] = if rng.chance(*ratio) {
                b"true"
            } else {
                b"false"
            };
            out.extend_from_slice(text);
            TextClass::Raw
        }
        ValueKind::Choice(choice) => match choice.draw(rng) {
            Some(cell) => cell.write(out),
            None => TextClass::Null,
        },
        ValueKind::Name(pool) => {
            joined(out, pool.parts().iter().copied(), rng);
            TextClass::Text
        }
        ValueKind::Words { min, max } => {
            let count = u64::from(*min) + rng.below(u64::from(max - min) + 1);
            joined(out, (0..count).map(|_| WORDS), rng);
            TextClass::Plain
        }
        ValueKind::Uuid => {
            draw_uuid(rng, out);
            TextClass::Plain
        }
        ValueKind::Hex { digits } => {
            let mut left = *digits;
            while left > 0 {
                text::hex(out, rng.next(), left);
                left = left.saturating_sub(16);
            }
            TextClass::Plain
        }
        ValueKind::Ipv4 { base, hosts } => {
            draw_ipv4(base.wrapping_add(rng.below(*hosts) as u32), out);
            TextClass::Plain
        }
        ValueKind::Column { table, column } => {
            let row = context.rows.get(*table).copied().unwrap_or(0);
            let cells = context.tables.get(*table).and_then(|rows| rows.get(row));
            match cells.and_then(|cells| cells.get(*column)) {
                Some(cell) => cell.write(out),
                None => TextClass::Null,
            }
        }
        ValueKind::Array { item, min, max } => {
            let count = min + rng.below(u64::from(max - min) + 1) as u32;
            out.push(b'[');
            for n in 0..count {
                if n > 0 {
                    out.extend_from_slice(context.style.json.comma().as_bytes());
                }
                draw_json(item, context, rng, out);
            }
            out.push(b']');
            TextClass::Raw
        }
        ValueKind::Object(members) => {
            draw_object(members, context, rng, out);
            TextClass::Raw
        }
        // `RecordValues::draw` fills templates, which need the values before them.
        ValueKind::Template(_) => TextClass::Null,
    }
}

/// Appends one value as JSON.
fn draw_json(kind: &ValueKind, context: &RecordContext<'_>, rng: &mut Random, out: &mut Vec<u8>) {
    let start = out.len();
    match draw(kind, context, rng, out) {
        TextClass::Null => out.extend_from_slice(b"null"),
        TextClass::Raw => {}
        TextClass::Plain => {
            out.insert(start, b'"');
            out.push(b'"');
        }
        TextClass::Text => {
            let text = out.split_off(start);
            text::json_string(out, &text, context.style.json);
        }
    }
}

fn draw_object(
    members: &[(String, ValueKind)],
    context: &RecordContext<'_>,
    rng: &mut Random,
    out: &mut Vec<u8>,
) {
    let style = context.style.json;
    out.push(b'{');
    for (n, (name, kind)) in members.iter().enumerate() {
        if n > 0 {
            out.extend_from_slice(style.comma().as_bytes());
        }
        text::json_string(out, name.as_bytes(), style);
        out.extend_from_slice(style.colon().as_bytes());
        draw_json(kind, context, rng, out);
    }
    out.push(b'}');
}

/// A number, or a text when it has a prefix or leading zeros.
fn draw_sequence(number: i64, width: usize, prefix: &str, out: &mut Vec<u8>) -> TextClass {
    if prefix.is_empty() && width <= 1 {
        text::integer(out, number);
        return TextClass::Raw;
    }
    out.extend_from_slice(prefix.as_bytes());
    if number < 0 {
        out.push(b'-');
    }
    text::padded(out, number.unsigned_abs(), width);
    TextClass::Text
}

/// A number below `count`.
fn distributed(distribution: Distribution, count: u64, rng: &mut Random) -> u64 {
    let fraction = match distribution {
        Distribution::Uniform => return rng.below(count),
        Distribution::Low => {
            let unit = rng.unit();
            unit * unit * unit
        }
        Distribution::Bell => (rng.unit() + rng.unit() + rng.unit()) / 3.0,
    };
    ((fraction * count as f64) as u64).min(count.saturating_sub(1))
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
    fn write(&self, out: &mut Vec<u8>) -> TextClass {
        out.extend_from_slice(&self.text);
        self.class
    }
}

impl WeightedChoice {
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
