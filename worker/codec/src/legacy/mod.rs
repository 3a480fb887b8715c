//! The Python original's format, byte for byte: normalise, LZMA per 400 KiB, base64, `|`, BZ2.
//!
//! Its normalising is part of the format: "restored" means equal to the normalised form. The one
//! fault that is not kept is the original's lost file: where the joined text is shorter than a
//! record, the LZMA chunks go out as records of one stage, and a message does name them.

mod base64;
mod csv;
pub mod json;
mod text;

use std::io::{Read, Write};

use super::Damage;

/// The original's chunk and record size: 400 KiB.
pub const DEFAULT_BREAK_BYTES: usize = 400 << 10;
/// The level of BZ2 that the original uses.
const BZ2_LEVEL: u32 = 2;
/// The preset of LZMA that Python uses unless told.
const LZMA_PRESET: u32 = 6;
const DIVIDER: u8 = b'|';

/// What the original can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Parsed and dumped again by Python's `json`.
    Json,
    /// Parsed by Python's `csv` and joined without quotes.
    Csv,
    /// Split at white space and joined with single spaces.
    Txt,
}

impl Format {
    /// The format of a file name, by its ending; logs count as text.
    pub fn of_name(name: &str) -> Option<Self> {
        let (_, ending) = name.rsplit_once('.')?;
        match ending.to_ascii_lowercase().as_str() {
            "json" => Some(Self::Json),
            "csv" => Some(Self::Csv),
            "txt" | "log" => Some(Self::Txt),
            _ => None,
        }
    }
}

/// How many codecs lie over each other; the `metadata` of a chunk message says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stages {
    /// `lzma`: each record is one .xz stream.
    One,
    /// `lzma + bz2`: the records, unpacked and joined, are base64 of .xz streams between bars.
    Two,
}

/// A packed file: its records in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// One or two stages.
    pub stages: Stages,
    /// The records.
    pub records: Vec<Vec<u8>>,
}

/// Why a file does not go into this format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The original reads text only.
    #[error("not UTF-8 at byte {0}: the seed format carries UTF-8 text only (use format hybrid)")]
    Utf8(usize),
    /// Not what Python's parser takes.
    #[error(
        "{what} at byte {offset}: the seed format must parse the file (mend it, or use format hybrid)"
    )]
    Syntax {
        /// What is wrong.
        what: String,
        /// Where, in bytes of the input.
        offset: usize,
    },
    /// The library refused; not expected.
    #[error("packing: {0}")]
    Codec(String),
}

/// The form in which the original carries a file.
pub fn normalise(format: Format, bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
    let text = std::str::from_utf8(bytes).map_err(|error| Refusal::Utf8(error.valid_up_to()))?;
    match format {
        Format::Json => json::redump(text).map(String::into_bytes),
        Format::Csv => csv::rejoin(text).map(String::into_bytes),
        Format::Txt => Ok(text::single_spaced(text).into_bytes()),
    }
}

/// Packs a normalised file with records of `break_bytes`, as the original does.
pub fn pack(normalised: &[u8], break_bytes: usize) -> Result<Packed, Refusal> {
    second_step(first_step(normalised, break_bytes)?, break_bytes)
}

/// Step 01: LZMA over each piece of `break_bytes`; a small file is one piece.
pub fn first_step(normalised: &[u8], break_bytes: usize) -> Result<Vec<Vec<u8>>, Refusal> {
    if normalised.is_empty() {
        return Ok(vec![to_xz(normalised)?]);
    }
    normalised.chunks(break_bytes.max(1)).map(to_xz).collect()
}

/// Step 02: base64, bars and BZ2 over the pieces of the first step, where there are several and they fill a record.
pub fn second_step(pieces: Vec<Vec<u8>>, break_bytes: usize) -> Result<Packed, Refusal> {
    let break_bytes = break_bytes.max(1);
    let mut joined = Vec::new();
    for (number, piece) in pieces.iter().enumerate() {
        if number > 0 {
            joined.push(DIVIDER);
        }
        base64::encode(piece, &mut joined);
    }
    if pieces.len() == 1 || joined.len() < break_bytes {
        return Ok(Packed {
            stages: Stages::One,
            records: pieces,
        });
    }
    Ok(Packed {
        stages: Stages::Two,
        records: joined
            .chunks(break_bytes)
            .map(to_bz2)
            .collect::<Result<_, _>>()?,
    })
}

/// Restores the normalised file; at most `limit` bytes.
pub fn unpack(packed: &Packed, limit: usize) -> Result<Vec<u8>, Damage> {
    let mut out = Vec::new();
    match packed.stages {
        Stages::One => {
            for (number, record) in packed.records.iter().enumerate() {
                from_xz(record, limit, &mut out)
                    .map_err(|damage| named("record", number, damage))?;
            }
        }
        Stages::Two => {
            let mut joined = Vec::new();
            // Base64 is a third longer than what it carries, which is about as long as the file at worst.
            let joined_limit = limit.saturating_mul(2).saturating_add(1 << 20);
            for (number, record) in packed.records.iter().enumerate() {
                read_bounded(
                    bzip2::read::MultiBzDecoder::new(&record[..]),
                    joined_limit,
                    &mut joined,
                )
                .map_err(|damage| named("record", number, damage))?;
            }
            for (number, piece) in joined.split(|&byte| byte == DIVIDER).enumerate() {
                base64::decode(piece)
                    .and_then(|chunk| from_xz(&chunk, limit, &mut out))
                    .map_err(|damage| named("chunk", number, damage))?;
            }
        }
    }
    Ok(out)
}

fn named(what: &str, number: usize, damage: Damage) -> Damage {
    Damage::new(format!("{what} {number}: {damage}"))
}

fn to_xz(bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
    let refused = |error: &dyn std::fmt::Display| Refusal::Codec(error.to_string());
    let stream = xz2::stream::Stream::new_easy_encoder(LZMA_PRESET, xz2::stream::Check::Crc64)
        .map_err(|error| refused(&error))?;
    let mut encoder = xz2::write::XzEncoder::new_stream(Vec::new(), stream);
    encoder.write_all(bytes).map_err(|error| refused(&error))?;
    encoder.finish().map_err(|error| refused(&error))
}

fn to_bz2(bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(BZ2_LEVEL));
    encoder
        .write_all(bytes)
        .map_err(|error| Refusal::Codec(error.to_string()))?;
    encoder
        .finish()
        .map_err(|error| Refusal::Codec(error.to_string()))
}

/// Most memory that one .xz stream may ask for while it is decoded: preset 9 needs 65 MiB.
const XZ_MEMORY: u64 = 80 << 20;

fn from_xz(bytes: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Damage> {
    let stream = xz2::stream::Stream::new_stream_decoder(XZ_MEMORY, xz2::stream::CONCATENATED)
        .map_err(|error| Damage::new(format!("LZMA: {error}")))?;
    read_bounded(xz2::read::XzDecoder::new_stream(bytes, stream), limit, out)
}

fn read_bounded(reader: impl Read, limit: usize, out: &mut Vec<u8>) -> Result<(), Damage> {
    let room = (limit - out.len().min(limit)) as u64;
    reader
        .take(room + 1)
        .read_to_end(out)
        .map_err(|error| Damage::new(error.to_string()))?;
    if out.len() > limit {
        return Err(Damage::new(format!(
            "more than the limit of {limit} bytes come out"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(len: usize, break_bytes: usize, random: bool) -> Packed {
        let mut dice = fastrand::Rng::with_seed(len as u64);
        let raw: Vec<u8> = (0..len)
            .map(|at| {
                if random {
                    dice.u8(..)
                } else {
                    (at / 100) as u8
                }
            })
            .collect();
        let packed = pack(&raw, break_bytes).expect("packs");
        assert_eq!(unpack(&packed, len).as_deref(), Ok(&raw[..]));
        if len > 0 {
            assert!(unpack(&packed, len - 1).is_err(), "the limit holds");
        }
        packed
    }

    #[test]
    fn a_file_of_one_record_has_one_stage() {
        assert_eq!(check(0, 1000, true).stages, Stages::One);
        assert_eq!(check(1000, 1000, true).stages, Stages::One);
    }

    #[test]
    fn a_long_file_has_two_stages() {
        let packed = check(5000, 1000, true);
        assert_eq!(
            (packed.stages, packed.records.len() > 5),
            (Stages::Two, true)
        );
    }

    #[test]
    fn a_file_that_the_original_loses_goes_out_in_one_stage() {
        let packed = check(5000, 1000, false);
        assert_eq!((packed.stages, packed.records.len()), (Stages::One, 5));
    }

    #[test]
    fn damage_is_named_by_record() {
        let mut packed = check(5000, 1000, false);
        packed.records[3].truncate(30);
        let error = unpack(&packed, 10_000).expect_err("cut");
        assert!(error.0.starts_with("record 3: "), "{error}");
    }
}
