//! The format of the Python original: normalise, LZMA per 400 KiB, base64, `|`, BZ2.
//!
//! Normalising is part of the format: the restored file equals the normalised form. The original loses a
//! file whose joined text is shorter than a record; here its LZMA chunks become records of one stage,
//! and a message names them.

mod base64;
mod csv;
pub mod json;
mod text;

use std::io::{Read, Write};

use crate::Damage;

/// The chunk and record size of the original, in bytes.
pub const DEFAULT_CHUNK_BYTES: usize = 400 << 10;
/// The BZ2 level of the original.
const BZ2_LEVEL: u32 = 2;
/// The default LZMA preset of Python.
const LZMA_PRESET: u32 = 6;
const DIVIDER: u8 = b'|';

/// The input formats of the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LegacyFormat {
    /// Parsed and dumped by Python's `json`.
    Json,
    /// Parsed by Python's `csv` and joined without quotes.
    Csv,
    /// Split at white space and joined with single spaces.
    Txt,
}

impl LegacyFormat {
    /// The format of a file name by its extension; logs count as text.
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

/// The number of codec stages; the `metadata` of a chunk message names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageCount {
    /// `lzma`: each record is one .xz stream.
    One,
    /// `lzma + bz2`: the unpacked and joined records are base64 of .xz streams, separated by `|`.
    Two,
}

/// A packed file: its records in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedRecords {
    /// One or two codec stages.
    pub stages: StageCount,
    /// The records.
    pub records: Vec<Vec<u8>>,
}

/// Why a file cannot be packed in this format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LegacyError {
    /// The file is not UTF-8.
    #[error("not UTF-8 at byte {0}: the seed format carries UTF-8 text only (use format hybrid)")]
    Utf8(usize),
    /// Python's parser refuses the file.
    #[error(
        "{what} at byte {offset}: the seed format must parse the file (repair it, or use format hybrid)"
    )]
    Syntax {
        /// What is wrong.
        what: String,
        /// Where, in bytes of the input.
        offset: usize,
    },
    /// The compression library failed.
    #[error("packing: {0}")]
    Codec(String),
}

/// The normalised form of a file.
pub fn normalise(format: LegacyFormat, bytes: &[u8]) -> Result<Vec<u8>, LegacyError> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| LegacyError::Utf8(error.valid_up_to()))?;
    match format {
        LegacyFormat::Json => json::redump(text).map(String::into_bytes),
        LegacyFormat::Csv => csv::rejoin(text).map(String::into_bytes),
        LegacyFormat::Txt => Ok(text::single_spaced(text).into_bytes()),
    }
}

/// Packs a normalised file into records of `chunk_bytes` bytes.
///
/// # Errors
/// If a compression library fails.
pub fn pack(normalised: &[u8], chunk_bytes: usize) -> Result<PackedRecords, LegacyError> {
    second_step(first_step(normalised, chunk_bytes)?, chunk_bytes)
}

/// Step 01: LZMA over each chunk of `chunk_bytes` bytes; a small file is one chunk.
///
/// # Errors
/// If the compression library fails.
pub fn first_step(normalised: &[u8], chunk_bytes: usize) -> Result<Vec<Vec<u8>>, LegacyError> {
    if normalised.is_empty() {
        return Ok(vec![to_xz(normalised)?]);
    }
    normalised.chunks(chunk_bytes.max(1)).map(to_xz).collect()
}

/// Step 02: base64, `|` and BZ2 over the chunks of step 01, if there are several and they fill a record.
///
/// # Errors
/// If the compression library fails.
pub fn second_step(chunks: Vec<Vec<u8>>, chunk_bytes: usize) -> Result<PackedRecords, LegacyError> {
    let chunk_bytes = chunk_bytes.max(1);
    let mut joined = Vec::new();
    for (number, chunk) in chunks.iter().enumerate() {
        if number > 0 {
            joined.push(DIVIDER);
        }
        base64::encode(chunk, &mut joined);
    }
    if chunks.len() == 1 || joined.len() < chunk_bytes {
        return Ok(PackedRecords {
            stages: StageCount::One,
            records: chunks,
        });
    }
    Ok(PackedRecords {
        stages: StageCount::Two,
        records: joined
            .chunks(chunk_bytes)
            .map(to_bz2)
            .collect::<Result<_, _>>()?,
    })
}

/// Restores the normalised file, of at most `limit` bytes.
///
/// # Errors
/// If a record is damaged or the file is over the limit.
pub fn unpack(packed: &PackedRecords, limit: usize) -> Result<Vec<u8>, Damage> {
    let mut out = Vec::new();
    match packed.stages {
        StageCount::One => {
            for (number, record) in packed.records.iter().enumerate() {
                from_xz(record, limit, &mut out)
                    .map_err(|damage| named("record", number, damage))?;
            }
        }
        StageCount::Two => {
            let mut joined = Vec::new();
            // Base64 adds a third to the .xz streams, which are about as long as the file at worst.
            let joined_limit = limit.saturating_mul(2).saturating_add(1 << 20);
            for (number, record) in packed.records.iter().enumerate() {
                read_bounded(
                    bzip2::read::MultiBzDecoder::new(&record[..]),
                    joined_limit,
                    &mut joined,
                )
                .map_err(|damage| named("record", number, damage))?;
            }
            for (number, chunk) in joined.split(|&byte| byte == DIVIDER).enumerate() {
                base64::decode(chunk)
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

fn to_xz(bytes: &[u8]) -> Result<Vec<u8>, LegacyError> {
    let refused = |error: &dyn std::fmt::Display| LegacyError::Codec(error.to_string());
    let stream = xz2::stream::Stream::new_easy_encoder(LZMA_PRESET, xz2::stream::Check::Crc64)
        .map_err(|error| refused(&error))?;
    let mut encoder = xz2::write::XzEncoder::new_stream(Vec::new(), stream);
    encoder.write_all(bytes).map_err(|error| refused(&error))?;
    encoder.finish().map_err(|error| refused(&error))
}

fn to_bz2(bytes: &[u8]) -> Result<Vec<u8>, LegacyError> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(BZ2_LEVEL));
    encoder
        .write_all(bytes)
        .map_err(|error| LegacyError::Codec(error.to_string()))?;
    encoder
        .finish()
        .map_err(|error| LegacyError::Codec(error.to_string()))
}

/// The memory limit for decoding one .xz stream, in bytes: preset 9 needs 65 MiB.
const XZ_MEMORY: u64 = 80 << 20;

fn from_xz(bytes: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Damage> {
    let stream = xz2::stream::Stream::new_stream_decoder(XZ_MEMORY, xz2::stream::CONCATENATED)
        .map_err(|error| Damage::new(format!("LZMA: {error}")))?;
    read_bounded(xz2::read::XzDecoder::new_stream(bytes, stream), limit, out)
}

fn read_bounded(reader: impl Read, limit: usize, out: &mut Vec<u8>) -> Result<(), Damage> {
    let allowed = (limit - out.len().min(limit)) as u64;
    reader
        .take(allowed + 1)
        .read_to_end(out)
        .map_err(|error| Damage::new(error.to_string()))?;
    if out.len() > limit {
        return Err(Damage::new(format!(
            "the records restore more than the limit of {limit} bytes"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(len: usize, chunk_bytes: usize, random: bool) -> PackedRecords {
        let mut rng = fastrand::Rng::with_seed(len as u64);
        let raw: Vec<u8> = (0..len)
            .map(|at| if random { rng.u8(..) } else { (at / 100) as u8 })
            .collect();
        let packed = pack(&raw, chunk_bytes).expect("packs");
        assert_eq!(unpack(&packed, len).as_deref(), Ok(&raw[..]));
        if len > 0 {
            assert!(unpack(&packed, len - 1).is_err(), "over the limit");
        }
        packed
    }

    #[test]
    fn a_file_of_one_record_has_one_stage() {
        assert_eq!(check(0, 1000, true).stages, StageCount::One);
        assert_eq!(check(1000, 1000, true).stages, StageCount::One);
    }

    #[test]
    fn a_long_file_has_two_stages() {
        let packed = check(5000, 1000, true);
        assert_eq!(
            (packed.stages, packed.records.len() > 5),
            (StageCount::Two, true)
        );
    }

    #[test]
    fn a_file_that_the_original_loses_has_one_stage() {
        let packed = check(5000, 1000, false);
        assert_eq!((packed.stages, packed.records.len()), (StageCount::One, 5));
    }

    #[test]
    fn damage_is_named_by_record() {
        let mut packed = check(5000, 1000, false);
        packed.records[3].truncate(30);
        let error = unpack(&packed, 10_000).expect_err("truncated");
        assert!(error.0.starts_with("record 3: "), "{error}");
    }
}
