//! Searches for the shape of file that takes the longest to pack compared with xz -6 on the same bytes, and prints the slowest:
//! `cargo run --release -p streampress-codec --example slowest_shapes -- [fast|balanced|max] [SECONDS]`.
//!
//! Shapes that earlier searches found are measured first. Processor times are compared, of one thread and of the slower version of
//! the format.

use std::error::Error;
use std::fmt;
use std::io::Write as _;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::time::{ClockId, clock_gettime};
use streampress_codec::FormatVersion;
use streampress_codec::hybrid::{CodecOptions, Effort, Packer};

/// The slowest of earlier searches, and shapes that were slow in earlier releases.
const FOUND: &[&str] = &[
    "lines 64 float,float,float,quoted,word,float,float",
    "csv 64 float,constant,float",
    "lines 64 float,word,float,constant,float",
    "csv 64 float,empty,float,constant,float",
    "csv ragged 64 empty,float",
    "csv 64 counter,float,constant,float",
    "csv 1024 digit,number",
    "csv 1024 empty,empty",
    "csv 1024 digit*600",
    "csv 1024 word*400",
    "csv 256 empty*800",
    "ndjson 1024 digit*400",
    "csv 4096 related*400",
    "csv 1024 quoted",
    "csv ragged 1024 word,empty,digit",
    "json 1024 digit",
    "ndjson 1024 hex,time,float,word",
    "ndjson ragged 1024 nested,letters",
    "lines 1024 time,word,number,letters",
    "pairs ragged 1024 word,counter,float",
    "lines 64 float*3,word,float*5,word,float*5,word,float*5,word,float*5,word,float*5,word,float*5,word,float*5,word",
    "csv ragged 64 empty*529,hex,empty*269",
    "csv 64 empty*70,letters,empty*275,quoted,empty*51,time,empty*78,quoted,empty*53,related,empty*268",
    "csv 64 empty*70,letters,empty*74,digit,empty*201,quoted,empty*51,time,empty*78,quoted,empty*22,quoted,empty*30,related,empty*268",
    "lines 128 x65 counter,constant,counter,constant,counter,constant,digit,quoted,constant,counter,constant,counter",
    "lines ragged 64 x146 float,word,float,constant,float*2",
];
/// How many of the slowest are kept, printed and varied.
const KEPT: usize = 8;
const MOST_FIELDS: usize = 1000;
const WORDS: [&str; 8] = ["alpha", "be", "gamma ray", "", "d", "epsilon", "zeta", "e"];

#[derive(Debug, Clone, Copy, PartialEq)]
enum CellKind {
    Empty,
    Digit,
    Number,
    Counter,
    Float,
    Hex,
    Word,
    Letters,
    Quoted,
    Time,
    Nested,
    Constant,
    /// Few values, which mostly follow from those of the other fields of its kind.
    Related,
}

const FIELDS: [(&str, CellKind); 13] = [
    ("empty", CellKind::Empty),
    ("digit", CellKind::Digit),
    ("number", CellKind::Number),
    ("counter", CellKind::Counter),
    ("float", CellKind::Float),
    ("hex", CellKind::Hex),
    ("word", CellKind::Word),
    ("letters", CellKind::Letters),
    ("quoted", CellKind::Quoted),
    ("time", CellKind::Time),
    ("nested", CellKind::Nested),
    ("constant", CellKind::Constant),
    ("related", CellKind::Related),
];
const LAYOUTS: [&str; 5] = ["csv", "json", "ndjson", "lines", "pairs"];

/// A file: rows of fields, as text for people: `LAYOUT [ragged] KIB [xTIMES] FIELD,FIELD*COUNT…`, all fields so many times.
#[derive(Debug, Clone)]
struct Shape {
    layout: &'static str,
    /// Each row leaves out some of the fields.
    is_ragged: bool,
    kib: usize,
    fields: Vec<CellKind>,
}

impl fmt::Display for Shape {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ragged = if self.is_ragged { " ragged" } else { "" };
        let name = |field: &CellKind| {
            FIELDS
                .iter()
                .find(|it| it.1 == *field)
                .map_or("", |it| it.0)
        };
        let equal = self.fields.chunk_by(|a, b| a == b);
        let fields: Vec<String> = equal
            .map(|equal| match equal {
                [field] => name(field).to_owned(),
                _ => format!("{}*{}", name(&equal[0]), equal.len()),
            })
            .collect();
        write!(
            out,
            "{}{ragged} {} {}",
            self.layout,
            self.kib,
            fields.join(",")
        )
    }
}

impl Shape {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let layout = words.next()?;
        let mut next = words.next()?;
        let is_ragged = next == "ragged";
        if is_ragged {
            next = words.next()?;
        }
        let equal = |text: &str| {
            let (name, count) = text.split_once('*').unwrap_or((text, "1"));
            let (_, field) = FIELDS.iter().find(|it| it.0 == name)?;
            Some(vec![*field; count.parse().ok()?])
        };
        let kib = next.parse().ok()?;
        next = words.next()?;
        let mut times = 1;
        if let Some(number) = next.strip_prefix('x') {
            times = number.parse().ok()?;
            next = words.next()?;
        }
        let fields: Option<Vec<_>> = next.split(',').map(equal).collect();
        Some(Self {
            layout: LAYOUTS.into_iter().find(|it| *it == layout)?,
            is_ragged,
            kib,
            fields: fields?.concat().repeat(times),
        })
    }

    /// The same with one thing changed.
    fn varied(&self, random: &mut Rng) -> Self {
        let mut shape = self.clone();
        let place = random.usize(0..shape.fields.len());
        let field = FIELDS[random.usize(0..FIELDS.len())].1;
        match random.u8(0..7) {
            0 => shape.layout = LAYOUTS[random.usize(0..LAYOUTS.len())],
            1 => shape.is_ragged = !shape.is_ragged,
            2 => shape.kib = 1 << random.u32(6..12),
            3 if shape.fields.len() > 1 => drop(shape.fields.remove(place)),
            4 => shape.fields[place] = field,
            5 => {
                let most = MOST_FIELDS / shape.fields.len();
                shape.fields = shape.fields.repeat(random.usize(1..=most.clamp(1, 40)));
            }
            _ if shape.fields.len() < MOST_FIELDS => shape.fields.insert(place, field),
            _ => shape.fields[place] = field,
        }
        shape
    }

    fn content(&self) -> Vec<u8> {
        let mut random = Rng::with_seed(1);
        let mut content = Vec::with_capacity((self.kib << 10) + 4096);
        let mut row = 0_u64;
        while content.len() < self.kib << 10 {
            self.row(&mut content, row, &mut random);
            row += 1;
        }
        if self.layout == "json" {
            content.push(b']');
        }
        content
    }

    fn row(&self, out: &mut Vec<u8>, row: u64, random: &mut Rng) {
        let fields = self.fields.iter().enumerate();
        let fields: Vec<_> = fields
            .filter(|_| !self.is_ragged || random.bool())
            .collect();
        let values: Vec<(usize, String)> = fields
            .into_iter()
            .map(|(number, field)| (number, value(*field, number, row, random)))
            .collect();
        let (before, between, after) = match self.layout {
            "csv" => ("", ",", "\n"),
            "json" if row == 0 => ("[{", ",", "}"),
            "json" => (",{", ",", "}"),
            "ndjson" => ("{", ",", "}\n"),
            _ => ("", " ", "\n"),
        };
        let shown: Vec<String> = values
            .into_iter()
            .map(|(number, value)| match self.layout {
                "csv" | "lines" => value,
                "pairs" => format!("key{number}={value}"),
                _ if value.starts_with(|first: char| first.is_ascii_digit())
                    && value.parse::<f64>().is_ok() =>
                {
                    format!("\"key{number}\":{value}")
                }
                _ => format!("\"key{number}\":\"{}\"", value.replace('"', "\\\"")),
            })
            .collect();
        out.extend_from_slice(before.as_bytes());
        out.extend_from_slice(shown.join(between).as_bytes());
        out.extend_from_slice(after.as_bytes());
    }
}

fn value(field: CellKind, number: usize, row: u64, random: &mut Rng) -> String {
    match field {
        CellKind::Empty => String::new(),
        CellKind::Constant => "the same".to_owned(),
        CellKind::Digit => random.u8(0..10).to_string(),
        CellKind::Number => random.u32(..).to_string(),
        CellKind::Counter => (1_000_000 + row).to_string(),
        CellKind::Float => format!("{:.3}", random.f64() * 1000.0),
        CellKind::Hex => format!("{:016x}", random.u64(..)),
        CellKind::Word => WORDS[random.usize(0..WORDS.len())].to_owned(),
        CellKind::Letters => (0..random.usize(0..40))
            .map(|_| random.alphabetic())
            .collect(),
        CellKind::Quoted => format!("\"{}, \"\"{}\"\"\"", random.u8(..), random.alphabetic()),
        CellKind::Time => format!(
            "2026-01-{:02}T{:02}:{:02}:00Z",
            row / 1440 % 28 + 1,
            row / 60 % 24,
            row % 60
        ),
        CellKind::Nested => format!(
            "{{\"a\":[{},{}],\"b\":\"{}\"}}",
            random.u8(..),
            random.u8(..),
            random.alphabetic()
        ),
        CellKind::Related => {
            let of_row = row.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            let place = match random.u8(..100) {
                0..97 => of_row as usize + number * 7,
                _ => random.usize(..4),
            };
            ["red", "green", "blue", "amber"][place % 4].to_owned()
        }
    }
}

/// How many times longer packing takes than xz -6, in the slower version of the format.
fn slowness(shape: &Shape, effort: Effort) -> Result<f64, Box<dyn Error>> {
    let content = shape.content();
    let options = CodecOptions {
        effort,
        threads: 1,
        ..CodecOptions::default()
    };
    let mut packing = Duration::ZERO;
    for version in [FormatVersion::V1, FormatVersion::V2] {
        let packer = Packer::new(options).with_version(version);
        packing = packing.max(quickest(|| {
            let packed = packer.pack(&content[..], |_: &[u8]| Ok(()), &AtomicBool::new(false));
            packed.map(drop).map_err(Into::into)
        })?);
    }
    let xz = quickest(|| {
        let mut encoder = xz2::write::XzEncoder::new(std::io::sink(), 6);
        encoder.write_all(&content)?;
        Ok(encoder.finish().map(drop)?)
    })?;
    Ok(packing.as_secs_f64() / xz.as_secs_f64())
}

/// The processor time of the quicker of two tries.
fn quickest(
    mut work: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<Duration, Box<dyn Error>> {
    let mut try_once = || {
        let before = processor_time();
        work().map(|()| processor_time() - before)
    };
    Ok(try_once()?.min(try_once()?))
}

/// What this process has used so far.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_else(|| "balanced".to_owned());
    let effort = Effort::ALL.into_iter().find(|effort| effort.name() == name);
    let effort = effort.ok_or("the efforts are fast, balanced and max")?;
    let seconds: u64 = args.next().map_or(Ok(300), |text| text.parse())?;

    let mut slowest: Vec<(f64, Shape)> = Vec::new();
    for text in FOUND {
        let shape = Shape::parse(text).ok_or_else(|| format!("{text} is no shape"))?;
        slowest.push((slowness(&shape, effort)?, shape));
    }
    let (mut random, began, mut tried) = (Rng::new(), Instant::now(), FOUND.len());
    while began.elapsed() < Duration::from_secs(seconds) {
        slowest.sort_by(|a, b| b.0.total_cmp(&a.0));
        slowest.truncate(KEPT);
        let mut shape = slowest[random.usize(0..slowest.len())].1.clone();
        for _ in 0..random.u8(1..4) {
            shape = shape.varied(&mut random);
        }
        slowest.push((slowness(&shape, effort)?, shape));
        tried += 1;
    }
    slowest.sort_by(|a, b| b.0.total_cmp(&a.0));
    println!("{tried} shapes tried at effort {name}; times as long as xz -6:");
    for (times, shape) in slowest.iter().take(KEPT) {
        println!("{times:6.1}  {shape}");
    }
    Ok(())
}
