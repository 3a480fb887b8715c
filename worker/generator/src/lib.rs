//! Makes files of realistic records from a schema. Files are pure functions of schema, options and index: file number
//! `index` always has the same bytes, so that an interrupted generator makes the same file again, and any file can be made
//! alone. It knows no folder, no queue and no clock: the time inside the records is the schema's own.
//!
//! ```
//! use streampress_generator::{FileFormat, Generator, GeneratorOptions, Schema};
//!
//! let schema = Schema::example("iot-sensors")?;
//! let options = GeneratorOptions {
//!     format: FileFormat::Csv,
//!     file_size_bytes: 10_000,
//!     seed: 1,
//! };
//! let mut file = Vec::new();
//! Generator::new(&schema, options)?.file(0, &mut file);
//! assert!(file.starts_with(b"message_id,"));
//! # Ok::<(), streampress_generator::SchemaError>(())
//! ```
//!
//! The modules, each of which uses only those above it:
//! - `error`: what is wrong with a schema. `tree`: JSON as it was written. `reader`: reads an object's members.
//! - `random`: random numbers that never change. `text`: escapes, quotes and digits. `pools`: names to draw from.
//! - `options`: format, size and seed. `clock`: the time inside the records.
//! - `kinds`: the kinds of values. `walk`: random walks.
//! - `document`: the native schema. `samples`: sample records as a schema. `schema`: a schema of any shape.
//! - `draw`: draws a value. `layout`: writes the values of a record. `compiled`: a document made ready to write records.

#![warn(unreachable_pub)]

mod clock;
mod compiled;
mod document;
mod draw;
mod error;
mod kinds;
mod layout;
mod options;
mod pools;
mod random;
mod reader;
mod samples;
mod schema;
mod text;
mod tree;
mod walk;

pub use error::SchemaError;
pub use options::{FileFormat, GeneratorOptions};
pub use schema::Schema;

use compiled::CompiledDocument;
use samples::RenderedSamples;
use schema::SchemaShape;

/// Makes the files of one schema; threads may share it.
#[derive(Debug)]
pub struct Generator {
    options: GeneratorOptions,
    records: RecordSource,
    frame: FileFrame,
}

/// Where the records come from.
#[derive(Debug)]
enum RecordSource {
    Samples(RenderedSamples),
    Drawn(Box<CompiledDocument>),
}

/// The constant bytes around and between the records of a file.
#[derive(Debug, Default)]
struct FileFrame {
    head: Vec<u8>,
    separator: &'static [u8],
    tail: &'static [u8],
}

impl Generator {
    /// Compiles the schema for one format, size and seed.
    ///
    /// # Errors
    /// If the schema cannot be written in this format: samples without any column, or with far too many, as CSV.
    pub fn new(schema: &Schema, options: GeneratorOptions) -> Result<Self, SchemaError> {
        let (records, frame) = match &schema.shape {
            SchemaShape::Samples(samples) => {
                let rendered = RenderedSamples::new(samples, options.format)
                    .map_err(|error| error.of(&schema.name))?;
                let frame = FileFrame::new(options.format, rendered.header(), samples.wrapped());
                (RecordSource::Samples(rendered), frame)
            }
            SchemaShape::Document(document) => {
                let compiled = CompiledDocument::new(document, &options);
                let frame = FileFrame::new(options.format, compiled.header(), None);
                (RecordSource::Drawn(Box::new(compiled)), frame)
            }
        };
        Ok(Self {
            options,
            records,
            frame,
        })
    }

    /// Replaces `out` by the bytes of file number `index`; returns the number of its records.
    pub fn file(&self, index: u64, out: &mut Vec<u8>) -> u64 {
        out.clear();
        out.extend_from_slice(&self.frame.head);
        let records = match &self.records {
            RecordSource::Samples(samples) => {
                let mut rng = random::Random::new(random::mix(self.options.seed, index));
                self.fill(out, |out| samples.write_one(&mut rng, out))
            }
            RecordSource::Drawn(compiled) => {
                let mut file = compiled.start(index);
                self.fill(out, |out| compiled.write_one(&mut file, out))
            }
        };
        out.extend_from_slice(self.frame.tail);
        records
    }

    /// The name of file number `index`: `stock-market` and 1 make `stock-market-000001.json`.
    pub fn file_name(&self, prefix: &str, index: u64) -> String {
        format!("{prefix}-{index:06}.{}", self.options.format.extension())
    }

    /// Adds records until the next one would not fit.
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

impl FileFrame {
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
