//! Headers as bytes: the choice of the layout, and that of version 1. `FORMAT.md` specifies both. All numbers are
//! little-endian.

use super::compact_frame;
pub use super::header::{BlockHeader, EndFrame, FILE_MAGIC, HashPrefix};
use crate::{Codec, CodecError, Damage, FormatVersion, Transform, block::BlockCoding};

/// The first bytes of every block.
pub(super) const BLOCK_MAGIC: [u8; 4] = *b"SPKB";
/// The first bytes of the end frame.
pub(super) const END_MAGIC: [u8; 4] = *b"SPKE";
/// The last bytes of the end frame, and so of the file.
pub(super) const TAIL_MAGIC: [u8; 4] = *b"SPKX";
/// The newest version. Readers accept every version up to it.
pub const NEWEST_VERSION: u8 = 2;
/// The version of the layout in this file.
const VERSION: u8 = 1;

/// Bytes of the file header.
pub(super) const FILE_HEADER_BYTES: usize = 16;
/// Bytes of a block header.
pub(super) const BLOCK_HEADER_BYTES: usize = 40;
/// Bytes of the fixed part of the end frame, before the index.
pub(super) const END_FIXED_BYTES: usize = 52;
/// Bytes of one entry of the index.
const INDEX_ENTRY_BYTES: usize = 8;
/// Bytes after the index: check, length, magic.
pub(super) const END_TAIL_BYTES: usize = 12;

/// The smallest block size, in bytes.
pub(super) const MIN_BLOCK_BYTES: usize = 4 << 10;
/// The largest block that is written and, by default, read, in bytes.
pub const MAX_BLOCK_BYTES: usize = 64 << 20;

/// The first four bytes of a BLAKE3 hash, which separate a damaged header from a damaged payload.
fn check(bytes: &[u8]) -> [u8; 4] {
    let hash = blake3::hash(bytes);
    let [a, b, c, d, ..] = *hash.as_bytes();
    [a, b, c, d]
}

/// Bytes of the hash of a block.
const BLOCK_HASH_BYTES: usize = 16;

/// The hash of a block's raw bytes.
pub(super) fn block_hash(raw: &[u8]) -> HashPrefix {
    HashPrefix::of(&blake3::hash(raw), BLOCK_HASH_BYTES)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

/// The file header of a file with blocks of at most `block_size` bytes.
pub fn file_header(block_size: u32) -> [u8; FILE_HEADER_BYTES] {
    let mut bytes = [0; FILE_HEADER_BYTES];
    bytes[..4].copy_from_slice(&FILE_MAGIC);
    bytes[4] = VERSION;
    bytes[8..12].copy_from_slice(&block_size.to_le_bytes());
    let sum = check(&bytes[..12]);
    bytes[12..].copy_from_slice(&sum);
    bytes
}

/// Fails if the first bytes of a file name a version that this program does not read. A file may be
/// shorter than the header of version 1.
pub(super) fn check_version(first: &[u8]) -> Result<(), CodecError> {
    match first.strip_prefix(&FILE_MAGIC) {
        // No program ever wrote it.
        Some(&[0, ..]) => Err(CodecError::Damaged {
            offset: FILE_MAGIC.len() as u64,
            block: None,
            reason: "there is no format version 0".to_owned(),
        }),
        Some(&[found, ..]) if !(1..=NEWEST_VERSION).contains(&found) => Err(CodecError::Version {
            found,
            known: NEWEST_VERSION,
        }),
        _ => Ok(()),
    }
}

/// Reads the file header of version 1 and returns the block size in bytes.
pub(super) fn parse_file_header(bytes: &[u8; FILE_HEADER_BYTES]) -> Result<u32, CodecError> {
    if bytes[..4] != FILE_MAGIC {
        return Err(CodecError::NotPacked);
    }
    check_version(bytes)?;
    if bytes[12..] != check(&bytes[..12]) || bytes[5..8] != [0; 3] {
        return Err(CodecError::Damaged {
            offset: 0,
            block: None,
            reason: "the file header does not match its check".into(),
        });
    }
    Ok(u32_at(bytes, 8))
}

impl BlockHeader {
    /// The bytes of this header.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        match self.version {
            FormatVersion::V1 => self.to_fixed_bytes().to_vec(),
            FormatVersion::V2 => compact_frame::block_header(&self),
        }
    }

    fn to_fixed_bytes(self) -> [u8; BLOCK_HEADER_BYTES] {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        bytes[..4].copy_from_slice(&BLOCK_MAGIC);
        bytes[4] = VERSION;
        bytes[5] = self.coding.transform as u8;
        bytes[6] = self.coding.codec as u8;
        bytes[7] = self.coding.params;
        bytes[8..12].copy_from_slice(&self.index.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.raw_len.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.packed_len.to_le_bytes());
        bytes[20..36].copy_from_slice(self.hash.bytes());
        let sum = check(&bytes[..36]);
        bytes[36..].copy_from_slice(&sum);
        bytes
    }

    /// Reads a header whose magic was checked.
    pub(super) fn parse(bytes: &[u8; BLOCK_HEADER_BYTES]) -> Result<Self, Damage> {
        if bytes[36..] != check(&bytes[..36]) {
            return Err(Damage::new("the block header does not match its check"));
        }
        if bytes[4] != VERSION {
            return Err(Damage::new(format!(
                "the block has format version {} in a file of version {VERSION}",
                bytes[4]
            )));
        }
        Ok(Self {
            version: FormatVersion::V1,
            coding: BlockCoding {
                transform: Transform::from_byte(bytes[5])
                    .ok_or_else(|| Damage::new(format!("unknown transform {}", bytes[5])))?,
                codec: Codec::from_byte(bytes[6])
                    .filter(|codec| *codec != Codec::CompactColumns)
                    .ok_or_else(|| Damage::new(format!("unknown codec {}", bytes[6])))?,
                params: bytes[7],
            },
            index: u32_at(bytes, 8),
            raw_len: u32_at(bytes, 12),
            packed_len: u32_at(bytes, 16),
            hash: HashPrefix::from_bytes(&bytes[20..36]),
            is_single: false,
        })
    }
}

impl EndFrame {
    /// The bytes of this frame.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        if self.version == FormatVersion::V2 {
            return compact_frame::end_frame(self);
        }
        let mut bytes = Vec::with_capacity(Self::byte_len(self.index.len()));
        bytes.extend(END_MAGIC);
        bytes.extend([VERSION, 0, 0, 0]);
        bytes.extend((self.index.len() as u32).to_le_bytes());
        bytes.extend(self.raw_bytes.to_le_bytes());
        bytes.extend_from_slice(self.hash.bytes());
        for (raw, packed) in &self.index {
            bytes.extend(raw.to_le_bytes());
            bytes.extend(packed.to_le_bytes());
        }
        bytes.extend(check(&bytes));
        bytes.extend((Self::byte_len(self.index.len()) as u32).to_le_bytes());
        bytes.extend(TAIL_MAGIC);
        bytes
    }

    /// Bytes of an end frame of version 1 over `blocks` blocks.
    pub(super) fn byte_len(blocks: usize) -> usize {
        END_FIXED_BYTES + blocks * INDEX_ENTRY_BYTES + END_TAIL_BYTES
    }

    /// The number of blocks, from the fixed part of an end frame.
    pub(super) fn block_count(fixed: &[u8; END_FIXED_BYTES]) -> u32 {
        u32_at(fixed, 8)
    }

    /// Reads a whole end frame.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Damage> {
        if bytes.len() < Self::byte_len(0) || bytes[..4] != END_MAGIC {
            return Err(Damage::new("the end frame is missing"));
        }
        let blocks = u32_at(bytes, 8) as usize;
        if bytes.len() != Self::byte_len(blocks) {
            return Err(Damage::new(
                "the end frame is not as long as its index needs",
            ));
        }
        let (body, tail) = bytes.split_at(bytes.len() - END_TAIL_BYTES);
        if tail[..4] != check(body)
            || u32_at(tail, 4) as usize != bytes.len()
            || tail[8..] != TAIL_MAGIC
        {
            return Err(Damage::new("the end frame does not match its check"));
        }
        if body[4] != VERSION {
            return Err(Damage::new(format!(
                "the end frame has format version {} in a file of version {VERSION}",
                body[4]
            )));
        }
        let index = body[END_FIXED_BYTES..]
            .chunks_exact(INDEX_ENTRY_BYTES)
            .map(|entry| (u32_at(entry, 0), u32_at(entry, 4)))
            .collect();
        Ok(Self {
            version: FormatVersion::V1,
            raw_bytes: u64::from(u32_at(body, 12)) | u64::from(u32_at(body, 16)) << 32,
            hash: HashPrefix::from_bytes(&body[20..52]),
            index,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> BlockHeader {
        BlockHeader {
            version: FormatVersion::V1,
            is_single: false,
            coding: BlockCoding {
                transform: Transform::None,
                codec: Codec::Lzma,
                params: 93,
            },
            index: 7,
            raw_len: 4 << 20,
            packed_len: 12_345,
            hash: block_hash(b"raw"),
        }
    }

    #[test]
    fn headers_round_trip() {
        assert_eq!(parse_file_header(&file_header(4 << 20)).ok(), Some(4 << 20));
        assert_eq!(BlockHeader::parse(&header().to_fixed_bytes()), Ok(header()));
        let end = EndFrame {
            version: FormatVersion::V1,
            raw_bytes: 1 << 40,
            hash: HashPrefix::from_bytes(&[9; 32]),
            index: vec![(1, 2), (3, 4)],
        };
        assert_eq!(EndFrame::parse(&end.to_bytes()), Ok(end));
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_detected() {
        let good = header().to_fixed_bytes();
        for bit in 32..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(BlockHeader::parse(&bad).is_err(), "bit {bit}");
        }
        let good = file_header(1 << 20);
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(parse_file_header(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut bytes = file_header(1 << 20);
        bytes[4] = NEWEST_VERSION + 1;
        assert!(matches!(
            parse_file_header(&bytes),
            Err(CodecError::Version { found: 3, known: 2 })
        ));
        bytes[4] = 0;
        let error = parse_file_header(&bytes).expect_err("no version");
        assert_eq!(
            error.to_string(),
            "damaged at byte 4: there is no format version 0"
        );
    }
}
