//! What can go wrong while packing and unpacking, in words for the person who has to act.

use std::io;

/// Why some bytes cannot be decoded; the caller adds where they lie.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damage(pub String);

impl Damage {
    /// A reason in a few words, lower case.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// A failed pack or unpack. Offsets count bytes of the packed file from its start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
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
    /// Written by a later version of the format.
    #[error(
        "packed with format version {found}; this program reads up to version {known} (unpack it with a newer streampress)"
    )]
    Version {
        /// The version in the file.
        found: u8,
        /// The newest version that this program reads.
        known: u8,
    },
    /// The packed bytes are not what was written.
    #[error("damaged at byte {offset}{}: {reason}", .block.map(|n| format!(" (block {n})")).unwrap_or_default())]
    Damaged {
        /// Where the damaged header, block or end frame begins.
        offset: u64,
        /// The number of the block, from 0, where it is known.
        block: Option<u32>,
        /// What is wrong with it.
        reason: String,
    },
    /// More than the caller allows.
    #[error(
        "{what} is {value} bytes at byte {offset}, over the limit of {limit} (raise the limit if the file is trusted)"
    )]
    TooLarge {
        /// The field that asks for too much.
        what: &'static str,
        /// What it asks for.
        value: u64,
        /// What is allowed.
        limit: u64,
        /// Where it says so.
        offset: u64,
    },
    /// A setting outside its range.
    #[error("{0}")]
    Options(String),
    /// The caller raised its cancel flag.
    #[error("cancelled at a block boundary")]
    Cancelled,
}
