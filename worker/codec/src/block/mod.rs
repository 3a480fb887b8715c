//! One block: the smallest lossless representation that the effort allows, and its decoder.

use crate::{
    Codec, Damage, Effort, StreamInfo, Transform,
    entropy::{self, Coded, LzmaProps, Search},
    transform::{self, EncodedTable},
};

/// How a block's payload is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockCoding {
    /// How the bytes were rearranged before coding.
    pub transform: Transform,
    /// How the payload is coded.
    pub codec: Codec,
    /// The codec's parameter byte.
    pub params: u8,
}

/// A packed block, before its header.
#[derive(Debug, Clone)]
pub struct EncodedBlock {
    /// How the payload is coded.
    pub coding: BlockCoding,
    /// The coded bytes.
    pub payload: Vec<u8>,
    /// The size of each stream in the payload.
    pub streams: Vec<StreamInfo>,
    /// The candidates that were coded, one line each.
    pub tried: Vec<String>,
}

/// Packs one block. It cannot fail: bytes that nothing shrinks are stored.
pub fn encode(raw: &[u8], effort: Effort) -> EncodedBlock {
    let mut tried = Vec::new();
    let mut best = first_table(raw, effort, &mut tried);
    let table_len = |best: &Option<(Transform, EncodedTable)>| {
        best.as_ref()
            .map_or(usize::MAX, |(_, encoded)| encoded.payload.len())
    };
    if plain_cannot_win(raw, table_len(&best), effort) {
        tried.push("none: excluded by a probe".into());
    } else {
        let plain = code_plain(raw, table_len(&best), effort);
        tried.push(format!(
            "none: {} {} bytes",
            plain.codec.name(),
            plain.bytes.len()
        ));
        let csv = best
            .as_ref()
            .is_some_and(|(transform, _)| *transform == Transform::Csv);
        // A log with commas may be smaller as text. A table that halves the size is a real table.
        if effort == Effort::Max && csv && table_len(&best) * 2 > plain.bytes.len() {
            let text = table(Transform::Text, raw, effort, &mut tried);
            best = text
                .filter(|(_, encoded)| encoded.payload.len() < table_len(&best))
                .or(best);
        }
        if plain.bytes.len() <= table_len(&best) {
            return plain_block(raw, plain, tried);
        }
    }
    match best {
        Some((transform, encoded)) => EncodedBlock {
            coding: BlockCoding {
                transform,
                codec: Codec::Columns,
                params: 0,
            },
            payload: encoded.payload,
            streams: encoded.streams,
            tried,
        },
        None => plain_block(raw, Coded::stored(raw), tried),
    }
}

/// The block in the first transform that fits it.
fn first_table(
    raw: &[u8],
    effort: Effort,
    tried: &mut Vec<String>,
) -> Option<(Transform, EncodedTable)> {
    if raw.len() < MIN_TABLE_BYTES {
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
) -> Option<(Transform, EncodedTable)> {
    let encoded = transform::encode(transform, raw, effort)?;
    tried.push(format!(
        "{}: {} streams, {} bytes",
        transform.name(),
        encoded.streams.len(),
        encoded.payload.len()
    ));
    Some((transform, encoded))
}

/// Codes the bytes without a transform. The second LZMA setting runs only if it could win.
fn code_plain(raw: &[u8], table_len: usize, effort: Effort) -> Coded {
    let first = entropy::encode(raw, effort, &[LzmaProps::TEXT], Search::Preset);
    if effort != Effort::Max || first.bytes.len() > table_len.saturating_add(table_len / 20) {
        return first;
    }
    let second = entropy::lzma(raw, LzmaProps::PROSE, effort, Search::Preset);
    second
        .filter(|second| second.bytes.len() < first.bytes.len())
        .unwrap_or(first)
}

/// Smaller blocks do not repay a directory.
const MIN_TABLE_BYTES: usize = 200;

/// Whether a sample from the middle shows that the block without a transform is larger than
/// `table_len`. The margin allows for matches that are longer than the sample.
fn plain_cannot_win(raw: &[u8], table_len: usize, effort: Effort) -> bool {
    const PROBE: usize = 64 << 10;
    const MARGIN: f64 = 0.9;
    if effort == Effort::Max || raw.len() < 2 * PROBE {
        return false;
    }
    let start = (raw.len() - PROBE) / 2;
    let probe = entropy::bz2(&raw[start..start + PROBE]).map_or(PROBE, |coded| coded.bytes.len());
    let expected = probe as f64 / PROBE as f64 * raw.len() as f64;
    (table_len as f64) < expected * MARGIN
}

fn plain_block(raw: &[u8], plain: Coded, tried: Vec<String>) -> EncodedBlock {
    EncodedBlock {
        coding: BlockCoding {
            transform: Transform::None,
            codec: plain.codec,
            params: plain.params,
        },
        streams: vec![plain_stream(plain.codec, raw.len(), plain.bytes.len())],
        payload: plain.bytes,
        tried,
    }
}

fn plain_stream(codec: Codec, raw_len: usize, packed_len: usize) -> StreamInfo {
    StreamInfo {
        name: "block".into(),
        coding: "as is".into(),
        codec,
        raw_bytes: raw_len as u64,
        packed_bytes: packed_len as u64,
    }
}

/// Restores one block of `raw_len` bytes. The caller compares its hash.
pub(crate) fn decode(
    coding: BlockCoding,
    payload: &[u8],
    raw_len: usize,
) -> Result<Vec<u8>, Damage> {
    match coding.transform {
        Transform::None => entropy::decode(coding.codec, coding.params, payload, raw_len),
        transform => transform::decode(transform, payload, raw_len),
    }
}

/// The streams of a payload, by decoding it.
pub(crate) fn inspect(
    coding: BlockCoding,
    payload: &[u8],
    raw_len: usize,
) -> Result<Vec<StreamInfo>, Damage> {
    match coding.transform {
        Transform::None => Ok(vec![plain_stream(coding.codec, raw_len, payload.len())]),
        transform => transform::inspect(transform, payload, raw_len),
    }
}
