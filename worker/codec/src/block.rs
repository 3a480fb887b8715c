//! One block: the smallest of the lossless ways that the effort allows, and back.

use super::{
    Damage,
    entropy::{self, Codec, Coded, LzmaProps, Search},
    frame::{BlockHeader, block_hash},
    hybrid::Effort,
    transform::{self, Encoded, Transform},
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
    let mut best = tables(raw, effort, &mut tried);
    let smallest = |best: &Option<(Transform, Encoded)>| {
        best.as_ref()
            .map_or(usize::MAX, |(_, encoded)| encoded.payload.len())
    };
    if plain_cannot_win(raw, smallest(&best), effort) {
        tried.push("none: left out after a probe".into());
    } else {
        let plain = plain(raw, smallest(&best), effort);
        tried.push(format!(
            "none: {} {} bytes",
            plain.codec.name(),
            plain.bytes.len()
        ));
        let csv = best
            .as_ref()
            .is_some_and(|(transform, _)| *transform == Transform::Csv);
        // A log with commas may be better off as text; a table that halves its size is a table.
        if effort == Effort::Max && csv && smallest(&best) * 2 > plain.bytes.len() {
            let text = table(Transform::Text, raw, effort, &mut tried);
            best = text
                .filter(|(_, encoded)| encoded.payload.len() < smallest(&best))
                .or(best);
        }
        if plain.bytes.len() <= smallest(&best) {
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
        None => pack_plain(index, raw, Coded::stored(raw), tried),
    }
}

/// The block in the first transform that fits it.
fn tables(raw: &[u8], effort: Effort, tried: &mut Vec<String>) -> Option<(Transform, Encoded)> {
    if raw.len() < SMALLEST_TABLE {
        return None;
    }
    [Transform::Json, Transform::Csv, Transform::Text]
        .into_iter()
        .find_map(|transform| table(transform, raw, effort, tried))
}

fn table(
    transform: Transform,
    raw: &[u8],
    effort: Effort,
    tried: &mut Vec<String>,
) -> Option<(Transform, Encoded)> {
    let encoded = transform::encode(transform, raw, effort)?;
    tried.push(format!(
        "{}: {} streams, {} bytes",
        transform.name(),
        encoded.streams.len(),
        encoded.payload.len()
    ));
    Some((transform, encoded))
}

/// The bytes as they are. LZMA's second setting is tried only where it could matter.
fn plain(raw: &[u8], columns_len: usize, effort: Effort) -> Coded {
    let first = entropy::encode(raw, effort, &[LzmaProps::TEXT], Search::Preset);
    if effort != Effort::Max || first.bytes.len() > columns_len.saturating_add(columns_len / 20) {
        return first;
    }
    let second = entropy::lzma(raw, LzmaProps::PROSE, effort, Search::Preset);
    second
        .filter(|second| second.bytes.len() < first.bytes.len())
        .unwrap_or(first)
}

/// Smaller blocks are not worth a directory.
const SMALLEST_TABLE: usize = 200;

/// Whether a piece from the middle, coded as it is, says that the whole as it is would be larger
/// than `columns_len`. Far matches may make the whole better than its piece, hence the margin.
fn plain_cannot_win(raw: &[u8], columns_len: usize, effort: Effort) -> bool {
    const PROBE: usize = 64 << 10;
    const MARGIN: f64 = 0.9;
    if effort == Effort::Max || raw.len() < 2 * PROBE {
        return false;
    }
    let start = (raw.len() - PROBE) / 2;
    let probe = entropy::bz2(&raw[start..start + PROBE]).map_or(PROBE, |coded| coded.bytes.len());
    let expected = probe as f64 / PROBE as f64 * raw.len() as f64;
    (columns_len as f64) < expected * MARGIN
}

fn pack_plain(index: u32, raw: &[u8], plain: Coded, tried: Vec<String>) -> Packed {
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
