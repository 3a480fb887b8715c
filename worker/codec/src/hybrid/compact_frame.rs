//! The frames of version 2, which are as small as small files need. `FORMAT.md` specifies them.

use super::header::{BlockHeader, EndFrame, FILE_MAGIC, HashPrefix};
use crate::{
    Codec, Damage, FormatVersion, Transform,
    block::BlockCoding,
    bytes::{FieldReader, put_varint},
};

/// Bytes of the file header: magic and version.
pub(super) const FILE_HEADER_BYTES: usize = 5;
/// Bytes of the longest block header.
pub(super) const MAX_HEADER_BYTES: usize = 40;
/// Bytes of the longest end frame.
const MAX_END_BYTES: usize = 32;
/// Bytes of the hash of one of several blocks.
const BLOCK_HASH_BYTES: usize = 8;
/// Bytes of the hash of the file.
const FILE_HASH_BYTES: usize = 16;
/// Bytes of the check of a header.
const CHECK_BYTES: usize = 3;
/// Bytes of the check of the end frame.
const END_CHECK_BYTES: usize = 4;

/// Set in the first byte of a block header.
const BLOCK: u8 = 0x80;
/// Set if the block is the only one: no end frame follows.
const SINGLE: u8 = 0x40;
/// The first byte of an end frame.
const END: u8 = 0x40;

/// The file header.
pub(super) fn file_header() -> [u8; FILE_HEADER_BYTES] {
    let [a, b, c, d] = FILE_MAGIC;
    [a, b, c, d, FormatVersion::V2.number()]
}

/// The hash of a block, of the length that its header has.
pub(super) fn block_hash(raw: &[u8], single: bool) -> HashPrefix {
    let len = if single {
        FILE_HASH_BYTES
    } else {
        BLOCK_HASH_BYTES
    };
    HashPrefix::of(&blake3::hash(raw), len)
}

/// The hash of a file.
pub(super) fn file_hash(hash: &blake3::Hash) -> HashPrefix {
    HashPrefix::of(hash, FILE_HASH_BYTES)
}

/// Whether the packed length follows from the other fields.
fn packed_len_of(codec: Codec, raw_len: u32) -> Option<u32> {
    match codec {
        Codec::Stored => Some(raw_len),
        Codec::Fill => Some(0),
        Codec::Lzma | Codec::Bz2 | Codec::Columns | Codec::CompactColumns => None,
    }
}

/// Whether the header has a parameter byte.
fn has_params(codec: Codec) -> bool {
    matches!(codec, Codec::Lzma | Codec::Fill)
}

/// The bytes of a block header.
pub(super) fn block_header(header: &BlockHeader) -> Vec<u8> {
    let coding = header.coding;
    let single = if header.is_single { SINGLE } else { 0 };
    let mut bytes =
        vec![BLOCK | single | (coding.transform as u8) << 4 | (coding.codec as u8) << 1];
    if has_params(coding.codec) {
        bytes.push(coding.params);
    }
    put_varint(&mut bytes, header.raw_len.into());
    if packed_len_of(coding.codec, header.raw_len).is_none() {
        put_varint(&mut bytes, header.packed_len.into());
    }
    bytes.extend_from_slice(header.hash.bytes());
    put_check(&mut bytes, CHECK_BYTES);
    bytes
}

fn put_check(bytes: &mut Vec<u8>, len: usize) {
    let hash = blake3::hash(bytes);
    bytes.extend_from_slice(&hash.as_bytes()[..len]);
}

fn ends_in_check(bytes: &[u8], len: usize) -> bool {
    let (body, check) = bytes.split_at(bytes.len() - len);
    blake3::hash(body).as_bytes()[..len] == *check
}

/// A frame that begins at some bytes, and the length of its header.
pub(super) enum CompactFrame {
    Block(BlockHeader, usize),
    End(CompactEnd, usize),
}

/// The fields of an end frame.
pub(super) struct CompactEnd {
    pub(super) blocks: u32,
    pub(super) hash: HashPrefix,
}

/// Reads the header that begins at `bytes`, of block `index`. Needs [`MAX_HEADER_BYTES`] unless the
/// file ends before.
pub(super) fn parse(bytes: &[u8], index: u32) -> Result<CompactFrame, Damage> {
    let mut fields = FieldReader::new(bytes);
    let first = fields.byte()?;
    if first == END {
        return parse_end(bytes);
    }
    let broken = || Damage::new("neither a block nor the end frame begins here");
    if first & BLOCK == 0 || first & 1 != 0 {
        return Err(broken());
    }
    let coding = BlockCoding {
        transform: Transform::from_byte(first >> 4 & 3).ok_or_else(broken)?,
        codec: Codec::from_byte(first >> 1 & 7).ok_or_else(broken)?,
        params: 0,
    };
    let is_table = coding.transform != Transform::None;
    if is_table != (coding.codec == Codec::CompactColumns) || coding.codec == Codec::Columns {
        return Err(broken());
    }
    let params = if has_params(coding.codec) {
        fields.byte()?
    } else {
        0
    };
    let size = |fields: &mut FieldReader<'_>| {
        fields
            .size(u32::MAX as usize, "a block")
            .map(|size| size as u32)
    };
    let raw_len = size(&mut fields)?;
    let packed_len = match packed_len_of(coding.codec, raw_len) {
        Some(len) => len,
        None => size(&mut fields)?,
    };
    let is_single = first & SINGLE != 0;
    let hash_len = if is_single {
        FILE_HASH_BYTES
    } else {
        BLOCK_HASH_BYTES
    };
    let hash = HashPrefix::from_bytes(fields.take(hash_len)?);
    fields.take(CHECK_BYTES)?;
    let len = bytes.len() - fields.remaining();
    if !ends_in_check(&bytes[..len], CHECK_BYTES) {
        return Err(Damage::new("the block header does not match its check"));
    }
    let header = BlockHeader {
        version: FormatVersion::V2,
        coding: BlockCoding { params, ..coding },
        index,
        raw_len,
        packed_len,
        hash,
        is_single,
    };
    Ok(CompactFrame::Block(header, len))
}

/// The bytes of an end frame.
pub(super) fn end_frame(end: &EndFrame) -> Vec<u8> {
    let mut bytes = vec![END];
    put_varint(&mut bytes, end.index.len() as u64);
    bytes.extend_from_slice(end.hash.bytes());
    put_check(&mut bytes, END_CHECK_BYTES);
    bytes.push(bytes.len() as u8 + 1);
    bytes
}

fn parse_end(bytes: &[u8]) -> Result<CompactFrame, Damage> {
    let mut fields = FieldReader::new(bytes);
    fields.byte()?;
    let blocks = fields.size(u32::MAX as usize, "the number of blocks")? as u32;
    let hash = HashPrefix::from_bytes(fields.take(FILE_HASH_BYTES)?);
    fields.take(END_CHECK_BYTES)?;
    let checked = bytes.len() - fields.remaining();
    let len = usize::from(fields.byte()?);
    if !ends_in_check(&bytes[..checked], END_CHECK_BYTES) || len != checked + 1 {
        return Err(Damage::new("the end frame does not match its check"));
    }
    debug_assert!(len <= MAX_END_BYTES);
    Ok(CompactFrame::End(CompactEnd { blocks, hash }, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(codec: Codec, transform: Transform, is_single: bool) -> BlockHeader {
        BlockHeader {
            version: FormatVersion::V2,
            coding: BlockCoding {
                transform,
                codec,
                params: if has_params(codec) { 93 } else { 0 },
            },
            index: 7,
            raw_len: 60 << 20,
            packed_len: packed_len_of(codec, 60 << 20).unwrap_or(50 << 20),
            hash: block_hash(b"raw", is_single),
            is_single,
        }
    }

    #[test]
    fn headers_round_trip_and_are_small() {
        for is_single in [false, true] {
            for (codec, transform) in [
                (Codec::Stored, Transform::None),
                (Codec::Lzma, Transform::None),
                (Codec::Bz2, Transform::None),
                (Codec::Fill, Transform::None),
                (Codec::CompactColumns, Transform::Json),
                (Codec::CompactColumns, Transform::Text),
            ] {
                let header = header(codec, transform, is_single);
                let bytes = block_header(&header);
                assert!(FILE_HEADER_BYTES + bytes.len() <= 40);
                match parse(&[&bytes[..], b"payload"].concat(), 7) {
                    Ok(CompactFrame::Block(back, len)) => {
                        assert_eq!((back, len), (header, bytes.len()));
                    }
                    _ => panic!("{header:?}"),
                }
            }
        }
        assert_eq!(
            block_header(&header(Codec::Stored, Transform::None, false)).len(),
            16
        );
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_detected() {
        let end = end_frame(&EndFrame {
            version: FormatVersion::V2,
            raw_bytes: 0,
            hash: file_hash(&blake3::hash(b"raw")),
            index: vec![(1, 2); 300],
        });
        for good in [
            block_header(&header(Codec::Lzma, Transform::None, false)),
            block_header(&header(Codec::CompactColumns, Transform::Csv, true)),
            end,
        ] {
            assert!(parse(&good, 7).is_ok());
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(parse(&bad, 7).is_err(), "bit {bit}");
            }
        }
    }
}
