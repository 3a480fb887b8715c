//! The errors of packing and unpacking.

use std::io;

/// Why some bytes cannot be decoded. The caller adds their offset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damage(pub String);

impl Damage {
    /// A reason in a few lower-case terms.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// A failed pack or unpack. Offsets count bytes from the start of the packed file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The input could not be read.
    #[error("reading the input")]
    Read(#[source] io::Error),
    /// The output could not be written.
    #[error("writing the output")]
    Write(#[source] io::Error),
    /// The first bytes are not those of a packed file.
    #[error(
        "not a packed file: it does not begin with the bytes 89 53 50 4B (pack it first, or name a file made by `streampress pack`)"
    )]
    NotPacked,
    /// A later version of the format.
    #[error(
        "packed with format version {found}; this program reads up to version {known} (unpack it with a newer streampress)"
    )]
    Version {
        /// The version in the file.
        found: u8,
        /// The newest version that this program reads.
        known: u8,
    },
    /// The packed bytes are not those that were written.
    #[error("damaged at byte {offset}{}: {reason}", .block.map(|n| format!(" (block {n})")).unwrap_or_default())]
    Damaged {
        /// Offset of the damaged header, block or end frame.
        offset: u64,
        /// The number of the block, from 0, if it is known.
        block: Option<u32>,
        /// What is wrong.
        reason: String,
    },
    /// More than the caller allows.
    #[error(
        "{what} is {value} bytes at byte {offset}, over the limit of {limit} (raise the limit if the file is trusted)"
    )]
    TooLarge {
        /// The field over the limit.
        what: &'static str,
        /// Its value in bytes.
        value: u64,
        /// The limit in bytes.
        limit: u64,
        /// The offset of the field's header.
        offset: u64,
    },
    /// A plan file that cannot be read.
    #[error("{0}")]
    Plan(String),
    /// A setting outside its range.
    #[error("{0}")]
    Options(String),
    /// The caller set its cancel flag.
    #[error("cancelled at a block boundary")]
    Cancelled,
}
