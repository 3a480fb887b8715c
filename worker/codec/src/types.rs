//! The types that every module shares: effort, the format's transform and codec numbers, and the
//! report of a stream. This module depends on no other.

/// How much is tried to make a block small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Effort {
    /// Estimates decide; for input that must not wait.
    Fast,
    /// Samples decide, and a probe excludes clear losers.
    #[default]
    Balanced,
    /// Every candidate is coded in full.
    Max,
}

impl Effort {
    /// All efforts, from the fastest.
    pub const ALL: [Self; 3] = [Self::Fast, Self::Balanced, Self::Max];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Balanced => "balanced",
            Self::Max => "max",
        }
    }

    /// The number in a plan file, from the fastest.
    pub(crate) fn number(self) -> u8 {
        self as u8
    }
}

/// How a block is rearranged before coding. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Transform {
    /// The bytes in their order.
    None = 0,
    /// JSON values by path.
    Json = 1,
    /// CSV fields by position.
    Csv = 2,
    /// Lines of text by template.
    Text = 3,
}

impl Transform {
    /// Every transform, by number.
    pub const ALL: [Self; 4] = [Self::None, Self::Json, Self::Csv, Self::Text];

    /// The transform of a format byte.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|&transform| transform as u8 == byte)
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Text => "text",
        }
    }
}

/// How one stream of bytes is coded. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Codec {
    /// The bytes unchanged.
    Stored = 0,
    /// Raw LZMA2; the parameter byte is `(pb * 5 + lp) * 9 + lc`.
    Lzma = 1,
    /// One bzip2 stream; the parameter byte is 0.
    Bz2 = 2,
    /// Several streams, each with a codec of its own, after a directory.
    Columns = 3,
    /// One repeated byte, which is the parameter byte. The payload is empty.
    Fill = 4,
    /// As columns, with a compact directory. Only in version 2.
    CompactColumns = 5,
}

impl Codec {
    /// Every codec, by number.
    pub const ALL: [Self; 6] = [
        Self::Stored,
        Self::Lzma,
        Self::Bz2,
        Self::Columns,
        Self::Fill,
        Self::CompactColumns,
    ];

    /// The codec of a format byte.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&codec| codec as u8 == byte)
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Lzma => "lzma",
            Self::Bz2 => "bz2",
            Self::Columns => "columns",
            Self::Fill => "fill",
            Self::CompactColumns => "compact columns",
        }
    }
}

/// A version of the packed format. Readers accept both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum FormatVersion {
    /// The first version.
    #[default]
    V1,
    /// Smaller frames and directories, and further column codings.
    V2,
}

impl FormatVersion {
    /// The version byte.
    pub fn number(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}

impl TryFrom<u8> for FormatVersion {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        [Self::V1, Self::V2]
            .into_iter()
            .find(|version| version.number() == number)
            .ok_or_else(|| format!("there is no version {number} of the format"))
    }
}

/// Size of one stream of a block before and after its codec, for reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// The content of the stream: `block`, or the path of a column.
    pub name: String,
    /// How the stream is written before its codec, e.g. `text` or `plane`.
    pub coding: String,
    /// Its codec.
    pub codec: Codec,
    /// Bytes before the codec.
    pub raw_bytes: u64,
    /// Bytes after the codec.
    pub packed_bytes: u64,
}
