//! Makes files of realistic records from a schema: pure functions of schema, options and file index.
//!
//! File number `index` is always the same bytes for the same schema, options and index, so a
//! generator that was interrupted makes the same file again, and any file can be made alone.
//! This room knows no folder, no queue and no clock: time inside the records is the schema's own.

mod clock;
mod draw;
mod fields;
mod kinds;
mod layout;
mod pools;
mod random;
mod reader;
mod recipe;
mod samples;
mod schema;
mod text;
mod tree;
mod walk;

pub use schema::{Schema, SchemaError};

use recipe::Recipe;
use samples::RenderedSamples;

/// The shape of the files made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// One JSON array on one line, spaced and escaped as Python's `json.dumps` does.
    Json,
    /// One compact JSON object a line.
    Ndjson,
    /// A header line, then one line a record; nested objects become dotted columns.
    Csv,
    /// One log line a record: the schema's `line` template, else `key=value` pairs.
    Txt,
}

impl FileFormat {
    /// The file name extension, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Txt => "txt",
        }
    }
}

/// How the files are to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GeneratorOptions {
    /// The shape of the files.
    pub format: FileFormat,
    /// Size of each file in bytes: a file is never larger, and less than one record smaller,
    /// unless a single record is larger than this, which then makes the whole file.
    pub file_size_bytes: u64,
    /// The same seed makes the same files.
    pub seed: u64,
}

/// Makes the files of one schema; cheap to share between threads.
#[derive(Debug)]
pub struct Generator {
    options: GeneratorOptions,
    records: Records,
    frame: Frame,
}

/// Where the records come from.
#[derive(Debug)]
enum Records {
    Samples(RenderedSamples),
    Drawn(Box<Recipe>),
}

/// What stands around and between the records of a file.
#[derive(Debug, Default)]
struct Frame {
    head: Vec<u8>,
    separator: &'static [u8],
    tail: &'static [u8],
}

impl Generator {
    /// Compiles the schema for one format, size and seed.
    ///
    /// # Errors
    /// When the schema cannot be written in this format (samples without any column as CSV, or
    /// far too many columns), naming the way out.
    pub fn new(schema: &Schema, options: GeneratorOptions) -> Result<Self, SchemaError> {
        let (records, frame) = match &schema.shape {
            schema::Shape::Samples(samples) => {
                let rendered = RenderedSamples::new(samples, options.format)
                    .map_err(|error| error.of(&schema.name))?;
                let frame = Frame::new(options.format, rendered.header(), samples.wrapped());
                (Records::Samples(rendered), frame)
            }
            schema::Shape::Document(document) => {
                let recipe = Recipe::new(document, &options);
                let frame = Frame::new(options.format, recipe.header(), None);
                (Records::Drawn(Box::new(recipe)), frame)
            }
        };
        Ok(Self {
            options,
            records,
            frame,
        })
    }

    /// The options this generator was made with.
    pub fn options(&self) -> &GeneratorOptions {
        &self.options
    }

    /// Replaces `out` by the bytes of file number `index`; returns how many records it holds.
    pub fn file(&self, index: u64, out: &mut Vec<u8>) -> u64 {
        out.clear();
        out.extend_from_slice(&self.frame.head);
        let records = match &self.records {
            Records::Samples(samples) => {
                let mut rng = random::Random::new(random::mix(self.options.seed, index));
                self.fill(out, |out| samples.write_one(&mut rng, out))
            }
            Records::Drawn(recipe) => {
                let mut draft = recipe.start(index);
                self.fill(out, |out| recipe.write_one(&mut draft, out))
            }
        };
        out.extend_from_slice(self.frame.tail);
        records
    }

    /// The name of file number `index`: `stock-market` and 1 make `stock-market-000001.json`.
    pub fn file_name(&self, prefix: &str, index: u64) -> String {
        format!("{prefix}-{index:06}.{}", self.options.format.extension())
    }

    /// Adds records until the next one would not fit any more.
    fn fill(&self, out: &mut Vec<u8>, mut write_one: impl FnMut(&mut Vec<u8>)) -> u64 {
        let limit = self.options.file_size_bytes;
        let mut records = 0;
        loop {
            let mark = out.len();
            if records > 0 {
                out.extend_from_slice(self.frame.separator);
            }
            write_one(out);
            let full = (out.len() + self.frame.tail.len()) as u64 > limit;
            if full && records > 0 {
                out.truncate(mark);
                return records;
            }
            records += 1;
            if full {
                return records;
            }
        }
    }
}

impl Frame {
    fn new(format: FileFormat, csv_header: Vec<u8>, json_head: Option<Vec<u8>>) -> Self {
        match (format, json_head) {
            (FileFormat::Json, Some(head)) => Self {
                head,
                separator: b", ",
                tail: b"]}",
            },
            (FileFormat::Json, None) => Self {
                head: b"[".to_vec(),
                separator: b", ",
                tail: b"]",
            },
            (FileFormat::Csv, _) => Self {
                head: csv_header,
                ..Self::default()
            },
            (FileFormat::Ndjson | FileFormat::Txt, _) => Self::default(),
        }
    }
}

#[cfg(test)]
mod tests;
