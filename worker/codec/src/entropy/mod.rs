//! The entropy stage: the smallest of LZMA, BZ2 and stored for one stream of bytes.
//!
//! LZMA is raw LZMA2 (no container; the frame holds length and hash) with a dictionary as large as
//! the stream, but not larger than three eighths of the block size, so that memory follows the data and not the
//! preset. BZ2 is a plain bzip2 stream.

mod bz2;
pub(crate) mod cost;
mod literals;
mod lzma;
mod primed;
mod short;

pub use bz2::bz2;
pub(crate) use bz2::bz2_bytes;
pub(crate) use lzma::{LzmaProps, Search, lzma};

use crate::{Codec, Damage, Effort, FormatVersion};
use literals::literals;

/// How streams are encoded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EncodeOptions {
    /// How much is tried.
    pub(crate) effort: Effort,
    /// The version of the streams.
    pub(crate) version: FormatVersion,
    /// The largest distance of a match of LZMA in bytes. Its encoder takes eleven times as much memory.
    max_dictionary: u32,
}

impl EncodeOptions {
    /// Without a limit of memory.
    pub(crate) fn new(effort: Effort, version: FormatVersion) -> Self {
        Self {
            effort,
            version,
            max_dictionary: u32::MAX,
        }
    }

    /// How many bytes may be coded to try the codings of a new table of `raw_len` bytes in the whole; `None`: they are not
    /// tried, since that takes longer than the time that less effort may take. A table whose streams have `stream_bytes`, more
    /// than a quarter of the block, would take too much memory.
    pub(crate) fn refinement(&self, raw_len: usize, stream_bytes: usize) -> Option<usize> {
        const SMALL: usize = 8 << 10;
        let may_refine = self.effort == Effort::Max && self.version == FormatVersion::V2;
        match raw_len {
            _ if !may_refine => None,
            ..=SMALL => Some(usize::MAX),
            _ if stream_bytes > raw_len / 4 => None,
            _ => Some(8 * raw_len),
        }
    }

    /// Whether LZMA may begin with the primer. Of many bytes it gains little.
    pub(crate) fn may_prime(&self, raw_len: usize) -> bool {
        const MOST: usize = 128 << 10;
        raw_len <= MOST && self.version == FormatVersion::V2
    }

    /// For blocks of at most `block_size` bytes: matches reach over three eighths of a block, which costs few bytes and
    /// saves more than half of the memory.
    pub(crate) fn for_blocks(self, block_size: usize) -> Self {
        Self {
            max_dictionary: (block_size / 8 * 3).clamp(4096, 1 << 30) as u32,
            ..self
        }
    }
}

/// A way to code a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coder {
    /// The bytes unchanged.
    Stored,
    /// One bzip2 stream.
    Bz2,
    /// LZMA2 without matches; the highest bits of the previous byte select the literal coder.
    Literals(u8),
    /// LZMA2.
    Lzma(LzmaProps, Search),
    /// LZMA after the primer. In version 1, and of many bytes, LZMA2 instead.
    Primed,
}

impl Coder {
    /// A tag and a parameter, for plans.
    pub(crate) fn to_bytes(self) -> [u8; 2] {
        match self {
            Self::Stored => [0, 0],
            Self::Bz2 => [1, 0],
            Self::Literals(lc) => [2, lc],
            Self::Lzma(props, Search::Preset) => [3, props.to_byte()],
            Self::Lzma(props, Search::Short) => [4, props.to_byte()],
            Self::Primed => [5, 0],
        }
    }

    /// The coder of [`Self::to_bytes`].
    pub(crate) fn from_bytes(bytes: [u8; 2]) -> Option<Self> {
        match bytes {
            [0, _] => Some(Self::Stored),
            [1, _] => Some(Self::Bz2),
            [2, lc] if lc <= 4 => Some(Self::Literals(lc)),
            [3, props] => Some(Self::Lzma(LzmaProps::from_byte(props)?, Search::Preset)),
            [4, props] => Some(Self::Lzma(LzmaProps::from_byte(props)?, Search::Short)),
            [5, _] => Some(Self::Primed),
            _ => None,
        }
    }
}

/// A coded stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coded {
    /// How it was coded.
    pub(crate) coder: Coder,
    /// Its codec.
    pub codec: Codec,
    /// Its parameter byte.
    pub params: u8,
    /// The coded bytes.
    pub bytes: Vec<u8>,
}

impl Coded {
    /// `raw` unchanged.
    pub(crate) fn stored(raw: &[u8]) -> Self {
        Self {
            coder: Coder::Stored,
            codec: Codec::Stored,
            params: 0,
            bytes: raw.to_vec(),
        }
    }
}

/// Fewer bytes do not repay the headers of a codec.
const MIN_CODED_BYTES: usize = 12;
/// The sample on which a clear loser is excluded.
const PROBE_BYTES: usize = 48 << 10;
/// A codec this much larger on the sample is excluded.
const PROBE_MARGIN: f64 = 1.06;

/// So few bytes are coded in all ways.
const FEW_BYTES: usize = 16 << 10;

/// Codes `raw` with the candidates of the effort; the result is never longer than `raw`.
pub(crate) fn encode(
    raw: &[u8],
    options: EncodeOptions,
    props: &[LzmaProps],
    search: Search,
) -> Coded {
    if raw.len() < MIN_CODED_BYTES {
        return Coded::stored(raw);
    }
    let mut best = None;
    let (try_lzma, try_bz2) = candidates(raw, options, search);
    if try_bz2 {
        keep_smaller(&mut best, bz2(raw), raw, options.version);
    }
    if try_lzma {
        let mut props = props;
        if search == Search::Preset && options.may_prime(raw.len()) {
            keep_smaller(&mut best, primed::encode(raw), raw, options.version);
            props = match (options.effort, raw.len()) {
                (Effort::Max, _) | (_, ..=FEW_BYTES) => &props[..props.len().min(1)],
                _ => &[],
            };
        }
        for &props in props {
            let coded = lzma(raw, props, options, search);
            keep_smaller(&mut best, coded, raw, options.version);
        }
    }
    best.unwrap_or_else(|| Coded::stored(raw))
}

/// Codes `raw` with `coder`; the result is never longer than `raw`.
pub(crate) fn encode_as(raw: &[u8], coder: Coder, options: EncodeOptions) -> Coded {
    let coded = match coder {
        _ if raw.len() < MIN_CODED_BYTES => None,
        Coder::Stored => None,
        Coder::Bz2 => bz2(raw),
        Coder::Literals(lc) => Some(literals(raw, lc)),
        Coder::Lzma(props, search) => lzma(raw, props, options, search),
        Coder::Primed if options.may_prime(raw.len()) => primed::encode(raw),
        Coder::Primed => lzma(raw, LzmaProps::with_contexts(3), options, Search::Preset),
    };
    let mut best = None;
    keep_smaller(&mut best, coded, raw, options.version);
    best.unwrap_or_else(|| Coded::stored(raw))
}

/// Keeps `coded`, in the form of `version`, if it is smaller than the best so far and the bytes unchanged.
fn keep_smaller(
    best: &mut Option<Coded>,
    coded: Option<Coded>,
    raw: &[u8],
    version: FormatVersion,
) {
    let coded = coded.and_then(|coded| match version {
        FormatVersion::V1 => Some(coded),
        FormatVersion::V2 => short::shorten(coded, raw.len()),
    });
    let limit = best.as_ref().map_or(raw.len(), |best| best.bytes.len());
    if let Some(coded) = coded.filter(|coded| coded.bytes.len() < limit) {
        *best = Some(coded);
    }
}

/// As [`encode`] for bytes that hardly depend on the bytes before them. Literals are fast to code;
/// the match searches run only if a sample gains by them.
pub(crate) fn encode_bytes(raw: &[u8], options: EncodeOptions, props: &[LzmaProps]) -> Coded {
    /// The sample in bytes, and the ratio to its literals below which a search runs.
    const SAMPLE: usize = 16 << 10;
    const GAIN: (usize, usize) = (97, 100);
    if raw.len() < MIN_CODED_BYTES {
        return Coded::stored(raw);
    }
    let EncodeOptions {
        effort, version, ..
    } = options;
    let mut best = None;
    let contexts: &[u8] = if effort == Effort::Max {
        &[0, 2, 4]
    } else {
        &[0]
    };
    for &lc in contexts {
        keep_smaller(&mut best, Some(literals(raw, lc)), raw, version);
    }
    if effort == Effort::Max && options.may_prime(raw.len()) {
        keep_smaller(&mut best, primed::encode(raw), raw, version);
    }
    let start = raw.len().saturating_sub(SAMPLE) / 2;
    let sample = &raw[start..raw.len().min(start + SAMPLE)];
    let alone = literals(sample, 0).bytes.len();
    let gains = |coded: Option<Coded>| {
        coded.is_some_and(|coded| coded.bytes.len() * GAIN.1 < alone.min(sample.len()) * GAIN.0)
    };
    if effort == Effort::Max || gains(bz2(sample)) {
        keep_smaller(&mut best, bz2(raw), raw, version);
    }
    let first = props.first().copied().unwrap_or(LzmaProps::BYTES);
    if effort == Effort::Max || gains(lzma(sample, first, options, Search::Short)) {
        for &props in props {
            let coded = lzma(raw, props, options, Search::Short);
            keep_smaller(&mut best, coded, raw, version);
        }
    }
    best.unwrap_or_else(|| Coded::stored(raw))
}

/// The codecs that code all of `raw`: (LZMA, BZ2). Max runs both; the other efforts code a sample
/// from the middle first and exclude the clear loser.
fn candidates(raw: &[u8], options: EncodeOptions, search: Search) -> (bool, bool) {
    if options.effort == Effort::Max || raw.len() <= 2 * PROBE_BYTES {
        return (true, true);
    }
    let start = (raw.len() - PROBE_BYTES) / 2;
    let probe = &raw[start..start + PROBE_BYTES];
    let size = |coded: Option<Coded>| coded.map_or(usize::MAX, |coded| coded.bytes.len()) as f64;
    let by_lzma = size(lzma(probe, LzmaProps::TEXT, options, search));
    let by_bz2 = size(bz2(probe));
    if by_lzma.min(by_bz2) > 0.99 * PROBE_BYTES as f64 {
        return (false, false);
    }
    // A sample has no distant matches, which only LZMA finds, and so favours BZ2 a little.
    (
        by_lzma <= by_bz2 * PROBE_MARGIN,
        by_bz2 <= by_lzma * PROBE_MARGIN,
    )
}

/// Restores exactly `raw_len` bytes. Memory grows with the decoded bytes, so a false length costs
/// nothing.
pub fn decode(
    codec: Codec,
    params: u8,
    packed: &[u8],
    raw_len: usize,
    version: FormatVersion,
) -> Result<Vec<u8>, Damage> {
    match codec {
        Codec::Stored if packed.len() == raw_len => Ok(packed.to_vec()),
        Codec::Stored => Err(Damage::new("stored bytes do not have the promised length")),
        Codec::Lzma => match version {
            FormatVersion::V1 => lzma::decode(params, packed, raw_len),
            FormatVersion::V2 => short::decode_lzma(params, packed, raw_len),
        },
        Codec::Bz2 => match version {
            FormatVersion::V1 => bz2::decode(packed, raw_len),
            FormatVersion::V2 => short::decode_bz2(packed, raw_len),
        },
        Codec::Fill if packed.is_empty() => Ok(vec![params; raw_len]),
        Codec::Fill => Err(Damage::new("a fill with a payload")),
        Codec::Columns | Codec::CompactColumns => {
            Err(Damage::new("columns inside a single stream"))
        }
    }
}

/// The smallest step by which the output buffer grows, in bytes.
const GROWTH: usize = 256 << 10;

/// Reserves output for the next step: the rest, or as much as there is, at least [`GROWTH`]. One byte
/// more than `raw_len` detects a stream that is too long.
fn reserve_output(out: &mut Vec<u8>, raw_len: usize) {
    let missing = raw_len + 1 - out.len().min(raw_len);
    if out.capacity() == out.len() {
        out.reserve_exact(missing.min(GROWTH.max(out.len())));
    }
}

fn finished(ended: bool, stalled: bool, out_len: usize, raw_len: usize) -> Result<bool, Damage> {
    if out_len > raw_len {
        return Err(Damage::new(format!(
            "the stream restores more than the promised {raw_len} bytes"
        )));
    }
    if ended && out_len == raw_len {
        return Ok(true);
    }
    if ended || stalled {
        return Err(Damage::new(format!(
            "the stream restores only {out_len} of {raw_len} bytes"
        )));
    }
    Ok(false)
}

fn exact(out: Vec<u8>, used: usize, given: usize) -> Result<Vec<u8>, Damage> {
    if used != given {
        return Err(Damage::new(format!(
            "{} bytes too many after a stream",
            given - used
        )));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: EncodeOptions = EncodeOptions {
        effort: Effort::Fast,
        version: FormatVersion::V1,
        max_dictionary: u32::MAX,
    };

    #[test]
    fn matches_reach_over_three_eighths_of_a_block() {
        let mut random = fastrand::Rng::with_seed(1);
        let part: Vec<u8> = (0..100_000).map(|_| random.u8(..)).collect();
        let coded = |between: usize, block_size| {
            let raw = [&part[..], &vec![0; between], &part].concat();
            let options = FAST.for_blocks(block_size);
            let coded = lzma(&raw, LzmaProps::TEXT, options, Search::Preset).expect("is shorter");
            let back = decode(
                coded.codec,
                coded.params,
                &coded.bytes,
                raw.len(),
                FormatVersion::V1,
            );
            assert_eq!(back.as_ref(), Ok(&raw));
            coded.bytes.len()
        };
        assert!(coded(90_000, 1 << 19) < 110_000);
        assert!(coded(290_000, 1 << 20) < 110_000);
        assert!(coded(100_000, 1 << 19) > 200_000);
    }

    fn check(raw: &[u8]) {
        for effort in Effort::ALL {
            let coded = encode(
                raw,
                EncodeOptions::new(effort, FormatVersion::V1),
                &[LzmaProps::TEXT, LzmaProps::BYTES],
                Search::Preset,
            );
            assert!(coded.bytes.len() <= raw.len());
            assert_eq!(
                decode(
                    coded.codec,
                    coded.params,
                    &coded.bytes,
                    raw.len(),
                    FormatVersion::V1
                )
                .as_deref(),
                Ok(raw)
            );
        }
        for coded in [lzma(raw, LzmaProps::PROSE, FAST, Search::Preset), bz2(raw)]
            .into_iter()
            .flatten()
        {
            assert_eq!(
                decode(
                    coded.codec,
                    coded.params,
                    &coded.bytes,
                    raw.len(),
                    FormatVersion::V1
                )
                .as_deref(),
                Ok(raw)
            );
        }
    }

    #[test]
    fn every_codec_round_trips() {
        check(b"");
        check(b"a");
        check(b"The same text, the same text, the same text, the same text.");
        check(&vec![0; 1_000_000]);
        let mut random = fastrand::Rng::with_seed(1);
        check(&(0..200_000).map(|_| random.u8(..)).collect::<Vec<_>>());
        check(
            &(0..300_000)
                .map(|_| random.u8(b'a'..b'e'))
                .collect::<Vec<_>>(),
        );
    }

    #[test]
    fn a_wrong_length_or_a_truncated_stream_is_damage() {
        let raw = b"some text some text some text some text".repeat(50);
        for coded in [lzma(&raw, LzmaProps::TEXT, FAST, Search::Preset), bz2(&raw)]
            .into_iter()
            .flatten()
        {
            let decode = |bytes: &[u8], len| {
                decode(coded.codec, coded.params, bytes, len, FormatVersion::V1)
            };
            assert!(decode(&coded.bytes, raw.len() - 1).is_err());
            assert!(decode(&coded.bytes, raw.len() + 1).is_err());
            assert!(decode(&coded.bytes[..coded.bytes.len() - 1], raw.len()).is_err());
            assert!(decode(&[&coded.bytes[..], b"x"].concat(), raw.len()).is_err());
        }
    }
}
