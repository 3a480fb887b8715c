//! The entropy stage: one stream of bytes through the smallest of LZMA, BZ2 and stored.
//!
//! LZMA is raw LZMA2 (no container; the frame holds length and hash) with a dictionary sized to the
//! stream, so that memory follows the data and not the preset. BZ2 is a plain bzip2 stream.

mod bz2;
mod literals;
mod lzma;

pub use bz2::bz2;
pub use literals::literals;
pub use lzma::{LzmaProps, Search, lzma};

use super::{Damage, hybrid::Effort};

/// How one stream is coded. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Codec {
    /// The bytes as they are.
    Stored = 0,
    /// Raw LZMA2; the parameter byte is `(pb * 5 + lp) * 9 + lc`.
    Lzma = 1,
    /// A bzip2 stream; the parameter byte is 0.
    Bz2 = 2,
    /// Several streams, each with a codec of its own, behind a directory.
    Columns = 3,
    /// One byte again and again: the parameter byte. No payload.
    Fill = 4,
}

impl Codec {
    /// The codec of a format byte.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Stored,
            Self::Lzma,
            Self::Bz2,
            Self::Columns,
            Self::Fill,
        ]
        .into_iter()
        .find(|&codec| codec as u8 == byte)
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Lzma => "lzma",
            Self::Bz2 => "bz2",
            Self::Columns => "columns",
            Self::Fill => "fill",
        }
    }
}

/// A coded stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coded {
    /// Which codec.
    pub codec: Codec,
    /// Its parameter byte.
    pub params: u8,
    /// The coded bytes.
    pub bytes: Vec<u8>,
}

impl Coded {
    /// `raw` as it is.
    pub fn stored(raw: &[u8]) -> Self {
        Self {
            codec: Codec::Stored,
            params: 0,
            bytes: raw.to_vec(),
        }
    }
}

/// Below this many bytes nothing is worth its headers.
const SMALLEST_CODED: usize = 12;
/// What a probe looks at before a loser is tried in full.
const PROBE_BYTES: usize = 48 << 10;
/// A loser this much worse on the probe is not tried in full.
const PROBE_MARGIN: f64 = 1.06;

/// Codes `raw` with what `effort` allows to be tried; never more than `raw.len()` bytes.
pub fn encode(raw: &[u8], effort: Effort, props: &[LzmaProps], search: Search) -> Coded {
    let mut best = Coded::stored(raw);
    if raw.len() < SMALLEST_CODED {
        return best;
    }
    let (try_lzma, try_bz2) = candidates(raw, effort, search);
    if try_bz2 {
        keep_smaller(&mut best, bz2(raw));
    }
    if try_lzma {
        for &props in props {
            keep_smaller(&mut best, lzma(raw, props, effort, search));
        }
    }
    best
}

fn keep_smaller(best: &mut Coded, coded: Option<Coded>) {
    if let Some(coded) = coded.filter(|coded| coded.bytes.len() < best.bytes.len()) {
        *best = coded;
    }
}

/// As [`encode`] for bytes that hardly depend on those before them. Literals alone are quick to try;
/// the full search follows only where a piece gains by it.
pub fn encode_bytes(raw: &[u8], effort: Effort, props: &[LzmaProps]) -> Coded {
    /// What is tried on a piece, and how much less makes the search worth its time.
    const PIECE: usize = 16 << 10;
    const WORTH: (usize, usize) = (97, 100);
    let mut best = Coded::stored(raw);
    if raw.len() < SMALLEST_CODED {
        return best;
    }
    let contexts: &[u8] = if effort == Effort::Max {
        &[0, 2, 4]
    } else {
        &[0]
    };
    for &lc in contexts {
        keep_smaller(&mut best, Some(literals(raw, lc)));
    }
    let start = raw.len().saturating_sub(PIECE) / 2;
    let piece = &raw[start..raw.len().min(start + PIECE)];
    let alone = literals(piece, 0).bytes.len();
    let gains = |coded: Option<Coded>| {
        coded.is_some_and(|coded| coded.bytes.len() * WORTH.1 < alone.min(piece.len()) * WORTH.0)
    };
    if effort == Effort::Max || gains(bz2(piece)) {
        keep_smaller(&mut best, bz2(raw));
    }
    let first = props.first().copied().unwrap_or(LzmaProps::BYTES);
    if effort == Effort::Max || gains(lzma(piece, first, effort, Search::Short)) {
        for &props in props {
            keep_smaller(&mut best, lzma(raw, props, effort, Search::Short));
        }
    }
    best
}

/// Which codecs to try in full: (LZMA, BZ2). Max tries both; the others code a piece from the middle
/// first and drop the clear loser.
fn candidates(raw: &[u8], effort: Effort, search: Search) -> (bool, bool) {
    if effort == Effort::Max || raw.len() <= 2 * PROBE_BYTES {
        return (true, true);
    }
    let start = (raw.len() - PROBE_BYTES) / 2;
    let probe = &raw[start..start + PROBE_BYTES];
    let size = |coded: Option<Coded>| coded.map_or(usize::MAX, |coded| coded.bytes.len()) as f64;
    let by_lzma = size(lzma(probe, LzmaProps::TEXT, effort, search));
    let by_bz2 = size(bz2(probe));
    if by_lzma.min(by_bz2) > 0.99 * PROBE_BYTES as f64 {
        return (false, false);
    }
    // A probe cannot see far matches, which only LZMA finds: it flatters BZ2 a little.
    (
        by_lzma <= by_bz2 * PROBE_MARGIN,
        by_bz2 <= by_lzma * PROBE_MARGIN,
    )
}

/// Restores exactly `raw_len` bytes. Memory grows with what really comes out, so a lying length
/// costs nothing.
pub fn decode(codec: Codec, params: u8, packed: &[u8], raw_len: usize) -> Result<Vec<u8>, Damage> {
    match codec {
        Codec::Stored if packed.len() == raw_len => Ok(packed.to_vec()),
        Codec::Stored => Err(Damage::new("stored bytes are not as long as they say")),
        Codec::Lzma => lzma::decode(params, packed, raw_len),
        Codec::Bz2 => bz2::decode(packed, raw_len),
        Codec::Fill if packed.is_empty() => Ok(vec![params; raw_len]),
        Codec::Fill => Err(Damage::new("a fill with a payload")),
        Codec::Columns => Err(Damage::new("columns inside a single stream")),
    }
}

/// How far the output may grow ahead of what was decoded.
const GROWTH: usize = 256 << 10;

/// Room for the next step: all that is missing, or as much again as there is, at least 256 KiB.
/// One byte more than the length lets a stream that is too long be seen.
fn make_room(out: &mut Vec<u8>, raw_len: usize) {
    let missing = raw_len + 1 - out.len().min(raw_len);
    if out.capacity() == out.len() {
        out.reserve_exact(missing.min(GROWTH.max(out.len())));
    }
}

fn finished(ended: bool, stalled: bool, out_len: usize, raw_len: usize) -> Result<bool, Damage> {
    if out_len > raw_len {
        return Err(Damage::new(format!(
            "more than the promised {raw_len} bytes come out"
        )));
    }
    if ended && out_len == raw_len {
        return Ok(true);
    }
    if ended || stalled {
        return Err(Damage::new(format!(
            "only {out_len} of {raw_len} bytes come out"
        )));
    }
    Ok(false)
}

fn exact(out: Vec<u8>, used: usize, given: usize) -> Result<Vec<u8>, Damage> {
    if used != given {
        return Err(Damage::new(format!(
            "{} bytes too many behind a stream",
            given - used
        )));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &[u8]) {
        for effort in Effort::ALL {
            let coded = encode(
                raw,
                effort,
                &[LzmaProps::TEXT, LzmaProps::BYTES],
                Search::Preset,
            );
            assert!(coded.bytes.len() <= raw.len());
            assert_eq!(
                decode(coded.codec, coded.params, &coded.bytes, raw.len()).as_deref(),
                Ok(raw)
            );
        }
        for coded in [
            lzma(raw, LzmaProps::PROSE, Effort::Fast, Search::Preset),
            bz2(raw),
        ]
        .into_iter()
        .flatten()
        {
            assert_eq!(
                decode(coded.codec, coded.params, &coded.bytes, raw.len()).as_deref(),
                Ok(raw)
            );
        }
    }

    #[test]
    fn every_codec_restores_what_it_packed() {
        check(b"");
        check(b"a");
        check(b"The same words, the same words, the same words, the same words.");
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
    fn a_wrong_length_or_a_cut_stream_is_damage() {
        let raw = b"some words some words some words some words".repeat(50);
        for coded in [
            lzma(&raw, LzmaProps::TEXT, Effort::Fast, Search::Preset),
            bz2(&raw),
        ]
        .into_iter()
        .flatten()
        {
            let decode = |bytes: &[u8], len| decode(coded.codec, coded.params, bytes, len);
            assert!(decode(&coded.bytes, raw.len() - 1).is_err());
            assert!(decode(&coded.bytes, raw.len() + 1).is_err());
            assert!(decode(&coded.bytes[..coded.bytes.len() - 1], raw.len()).is_err());
            assert!(decode(&[&coded.bytes[..], b"x"].concat(), raw.len()).is_err());
        }
    }
}
