//! The headers of files and blocks, whatever their layout.

use std::fmt;

use crate::{
    Damage, FormatVersion,
    block::{self, BlockCoding},
};

/// The first bytes of every packed file.
pub const FILE_MAGIC: [u8; 4] = *b"\x89SPK";

/// The first bytes of a BLAKE3 hash. It displays as hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashPrefix {
    bytes: [u8; 32],
    len: usize,
}

impl HashPrefix {
    /// The first `len` bytes of a hash.
    pub(super) fn of(hash: &blake3::Hash, len: usize) -> Self {
        Self::from_bytes(&hash.as_bytes()[..len])
    }

    /// At most 32 bytes.
    pub(super) fn from_bytes(prefix: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes[..prefix.len()].copy_from_slice(prefix);
        Self {
            bytes,
            len: prefix.len(),
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Whether `hash` begins with these bytes.
    pub fn matches(&self, hash: &blake3::Hash) -> bool {
        hash.as_bytes().starts_with(self.bytes())
    }
}

impl fmt::Display for HashPrefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes()
            .iter()
            .try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for HashPrefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// The header of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHeader {
    /// The version of the format.
    pub version: FormatVersion,
    /// How the payload is coded.
    pub coding: BlockCoding,
    /// The number of the block, from 0.
    pub index: u32,
    /// Bytes of the raw block.
    pub raw_len: u32,
    /// Bytes of the payload.
    pub packed_len: u32,
    /// The hash of the raw bytes.
    pub hash: HashPrefix,
    /// Version 2: the block is the whole file.
    pub is_single: bool,
}

impl BlockHeader {
    /// The raw bytes of a payload, whose hash matches this header.
    pub(super) fn decode(&self, payload: &[u8]) -> Result<Vec<u8>, Damage> {
        let raw = block::decode(self.version, self.coding, payload, self.raw_len as usize)?;
        if !self.hash.matches(&blake3::hash(&raw)) {
            return Err(Damage::new("the restored bytes do not match their hash"));
        }
        Ok(raw)
    }
}

/// The frame after the last block: the hash of the file and the index of its blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndFrame {
    /// The version of the format.
    pub version: FormatVersion,
    /// Bytes of the whole raw file.
    pub raw_bytes: u64,
    /// The hash of the whole raw file.
    pub hash: HashPrefix,
    /// Raw and packed length of every block, in order. Packed is without the block header.
    pub index: Vec<(u32, u32)>,
}
