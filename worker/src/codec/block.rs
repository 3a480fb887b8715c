//! One block: the smallest of the lossless ways that the effort allows, and back.

use super::{
    Damage,
    entropy::{self, Codec, LzmaProps},
    frame::{BlockHeader, block_hash},
    hybrid::Effort,
    transform::{self, Transform},
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
    let mut tried = Vec::new();
    let mut best = None;
    for (transform, encoded) in columns(raw, effort) {
        let size = encoded.payload.len();
        tried.push(format!(
            "{}: {} streams, {size} bytes",
            transform.name(),
            encoded.streams.len()
        ));
        if best
            .as_ref()
            .is_none_or(|(_, smallest): &(_, transform::Encoded)| size < smallest.payload.len())
        {
            best = Some((transform, encoded));
        }
    }
    let hopeless = best
        .as_ref()
        .is_some_and(|(_, encoded)| plain_cannot_win(raw, encoded.payload.len(), effort));
    if hopeless {
        tried.push("none: left out after a probe".into());
    } else {
        let plain = entropy::encode(raw, effort, plain_props(effort));
        tried.push(format!(
            "none: {} {} bytes",
            plain.codec.name(),
            plain.bytes.len()
        ));
        if best
            .as_ref()
            .is_none_or(|(_, encoded)| plain.bytes.len() <= encoded.payload.len())
        {
            return pack_plain(index, raw, plain, tried);
        }
    }
    match best {
        Some((transform, encoded)) => Packed {
            header: header(
                index,
                raw,
                transform,
                Codec::Columns,
                0,
                encoded.payload.len(),
            ),
            payload: encoded.payload,
            streams: encoded.streams,
            tried,
        },
        None => pack_plain(index, raw, entropy::Coded::stored(raw), tried),
    }
}

/// The block in every transform that is tried. The first that fits is taken; with effort max text
/// is tried besides.
fn columns(raw: &[u8], effort: Effort) -> Vec<(Transform, transform::Encoded)> {
    if raw.len() < SMALLEST_TABLE {
        return Vec::new();
    }
    let encode =
        |transform| transform::encode(transform, raw, effort).map(|encoded| (transform, encoded));
    let mut found: Vec<_> = [Transform::Json, Transform::Csv]
        .into_iter()
        .find_map(encode)
        .into_iter()
        .collect();
    let is_json = found
        .iter()
        .any(|(transform, _)| *transform == Transform::Json);
    if found.is_empty() || (effort == Effort::Max && !is_json) {
        found.extend(encode(Transform::Text));
    }
    found
}

/// Smaller blocks are not worth a directory.
const SMALLEST_TABLE: usize = 200;

/// Whether a piece from the middle, coded as it is, says that the whole as it is would be larger
/// than `columns_len`. Far matches may make the whole better than its piece, hence the margin.
fn plain_cannot_win(raw: &[u8], columns_len: usize, effort: Effort) -> bool {
    const PROBE: usize = 64 << 10;
    const MARGIN: f64 = 0.6;
    if effort == Effort::Max || raw.len() < 2 * PROBE {
        return false;
    }
    let start = (raw.len() - PROBE) / 2;
    let probe = entropy::bz2(&raw[start..start + PROBE]).map_or(PROBE, |coded| coded.bytes.len());
    let expected = probe as f64 / PROBE as f64 * raw.len() as f64;
    (columns_len as f64) < expected * MARGIN
}

fn pack_plain(index: u32, raw: &[u8], plain: entropy::Coded, tried: Vec<String>) -> Packed {
    Packed {
        header: header(
            index,
            raw,
            Transform::None,
            plain.codec,
            plain.params,
            plain.bytes.len(),
        ),
        streams: vec![Stream {
            name: "block".into(),
            coding: "as is".into(),
            codec: plain.codec,
            raw_bytes: raw.len() as u64,
            packed_bytes: plain.bytes.len() as u64,
        }],
        payload: plain.bytes,
        tried,
    }
}

fn header(
    index: u32,
    raw: &[u8],
    transform: Transform,
    codec: Codec,
    params: u8,
    packed_len: usize,
) -> BlockHeader {
    BlockHeader {
        transform,
        codec,
        params,
        index,
        raw_len: raw.len() as u32,
        packed_len: packed_len as u32,
        hash: block_hash(raw),
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
    let raw_len = header.raw_len as usize;
    let raw = match header.transform {
        Transform::None => entropy::decode(header.codec, header.params, payload, raw_len)?,
        transform => transform::decode(transform, payload, raw_len)?,
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
        transform => transform::inspect(transform, payload, header.raw_len as usize),
    }
}
