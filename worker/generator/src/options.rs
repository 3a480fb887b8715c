//! How files are made: format, size and seed.

/// The format of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// One JSON array on one line, spaced and escaped as Python's `json.dumps` does.
    Json,
    /// One compact JSON object per line.
    Ndjson,
    /// A header line, then one line per record; nested objects become dotted columns.
    Csv,
    /// One log line per record: the schema's `line` template, or else `key=value` pairs.
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

/// How the files are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GeneratorOptions {
    /// The format of the files.
    pub format: FileFormat,
    /// Size of each file in bytes. A file is never larger, and less than one record smaller; a single record that is
    /// larger makes a file of its own.
    pub file_size_bytes: u64,
    /// Seed of the random numbers: the same seed gives the same files.
    pub seed: u64,
}
