//! One block: the smallest of the lossless ways that the effort allows, and back.

use super::{
    Damage,
    entropy::{self, Codec, LzmaProps},
    frame::{BlockHeader, block_hash},
    hybrid::Effort,
    transform::Transform,
};

/// Bytes of one transform and codec in a block, for reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// What the stream holds: `block`, or a column's path.
    pub name: String,
    /// How the stream is written before coding, e.g. `text` or `delta`.
    pub coding: String,
    /// Its codec.
    pub codec: Codec,
    /// Bytes before and after its codec.
    pub raw_bytes: u64,
    /// Bytes behind its codec.
    pub packed_bytes: u64,
}

/// A packed block.
#[derive(Debug, Clone)]
pub struct Packed {
    /// Its header.
    pub header: BlockHeader,
    /// What follows the header.
    pub payload: Vec<u8>,
    /// Where its bytes went.
    pub streams: Vec<Stream>,
    /// What was tried, in words, one line each.
    pub tried: Vec<String>,
}

/// Packs one block. Cannot fail: what nothing shrinks is stored.
pub fn encode(index: u32, raw: &[u8], effort: Effort) -> Packed {
    let plain = entropy::encode(raw, effort, plain_props(effort));
    let tried = vec![format!(
        "none: {} {} bytes",
        plain.codec.name(),
        plain.bytes.len()
    )];
    let streams = vec![Stream {
        name: "block".into(),
        coding: "as is".into(),
        codec: plain.codec,
        raw_bytes: raw.len() as u64,
        packed_bytes: plain.bytes.len() as u64,
    }];
    let header = BlockHeader {
        transform: Transform::None,
        codec: plain.codec,
        params: plain.params,
        index,
        raw_len: raw.len() as u32,
        packed_len: plain.bytes.len() as u32,
        hash: block_hash(raw),
    };
    Packed {
        header,
        payload: plain.bytes,
        streams,
        tried,
    }
}

/// The LZMA settings tried on bytes as they are.
fn plain_props(effort: Effort) -> &'static [LzmaProps] {
    match effort {
        Effort::Fast | Effort::Balanced => &[LzmaProps::TEXT],
        Effort::Max => &[LzmaProps::TEXT, LzmaProps::PROSE],
    }
}

/// Restores one block and checks its hash: no byte leaves unverified.
pub fn decode(header: &BlockHeader, payload: &[u8]) -> Result<Vec<u8>, Damage> {
    let raw = match header.transform {
        Transform::None => entropy::decode(
            header.codec,
            header.params,
            payload,
            header.raw_len as usize,
        )?,
    };
    if block_hash(&raw) != header.hash {
        return Err(Damage::new("the restored bytes do not match their hash"));
    }
    Ok(raw)
}

/// Where a packed block's bytes lie, from its directory alone.
pub fn streams(header: &BlockHeader, payload: &[u8]) -> Result<Vec<Stream>, Damage> {
    match header.transform {
        Transform::None => Ok(vec![Stream {
            name: "block".into(),
            coding: "as is".into(),
            codec: header.codec,
            raw_bytes: header.raw_len.into(),
            packed_bytes: payload.len() as u64,
        }]),
    }
}
