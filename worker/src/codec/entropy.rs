//! The entropy stage: one stream of bytes through the smallest of LZMA, BZ2 and stored.
//!
//! LZMA is raw LZMA2 (no container; the frame holds length and hash) with a dictionary sized to the
//! stream, so that memory follows the data and not the preset. BZ2 is a plain bzip2 stream.

use xz2::stream::{Action, Filters, LzmaOptions, MatchFinder, Mode, Status, Stream};

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

/// The LZMA literal and position settings: `lc + lp <= 4`, `pb <= 4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LzmaProps {
    /// High bits of the previous byte that choose the literal coder.
    pub lc: u8,
    /// Low bits of the position that choose the literal coder.
    pub lp: u8,
    /// Low bits of the position that choose the match coder.
    pub pb: u8,
}

impl LzmaProps {
    /// What xz uses; good for text.
    pub const TEXT: Self = Self {
        lc: 3,
        lp: 0,
        pb: 2,
    };
    /// Text without any alignment.
    pub const PROSE: Self = Self {
        lc: 4,
        lp: 0,
        pb: 0,
    };
    /// Bytes that do not depend on the byte before: indexes, planes.
    pub const BYTES: Self = Self {
        lc: 0,
        lp: 0,
        pb: 0,
    };

    fn to_byte(self) -> u8 {
        (self.pb * 5 + self.lp) * 9 + self.lc
    }

    fn from_byte(byte: u8) -> Option<Self> {
        let props = Self {
            lc: byte % 9,
            lp: byte / 9 % 5,
            pb: byte / 45,
        };
        (props.lc + props.lp <= 4 && props.pb <= 4).then_some(props)
    }
}

/// How hard LZMA looks for matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// As the effort's preset says.
    Preset,
    /// Less: single bytes gain little from long matches, and looking for them is most of the time.
    Short,
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

/// `raw` as raw LZMA2, or nothing if the library refuses.
pub fn lzma(raw: &[u8], props: LzmaProps, effort: Effort, search: Search) -> Option<Coded> {
    let options = encoder_options(raw.len(), props, effort, search)?;
    let mut filters = Filters::new();
    filters.lzma2(&options);
    let mut stream = Stream::new_raw_encoder(&filters).ok()?;
    let mut bytes = Vec::with_capacity(raw.len() / 2 + 128);
    loop {
        let done = stream.total_in() as usize;
        let status = stream
            .process_vec(&raw[done..], &mut bytes, Action::Finish)
            .ok()?;
        if status == Status::StreamEnd {
            break;
        }
        // Whoever outgrows the raw bytes has lost to `stored` already.
        if bytes.len() > raw.len() {
            return None;
        }
        bytes.reserve(raw.len() / 4 + 128);
    }
    Some(Coded {
        codec: Codec::Lzma,
        params: props.to_byte(),
        bytes,
    })
}

fn encoder_options(
    raw_len: usize,
    props: LzmaProps,
    effort: Effort,
    search: Search,
) -> Option<LzmaOptions> {
    let mut options = match effort {
        Effort::Fast => LzmaOptions::new_preset(1),
        Effort::Balanced => LzmaOptions::new_preset(6),
        Effort::Max => LzmaOptions::new_preset(9 | xz2::stream::PRESET_EXTREME),
    }
    .ok()?;
    options
        .dict_size(dict_size(raw_len))
        .literal_context_bits(u32::from(props.lc))
        .literal_position_bits(u32::from(props.lp))
        .position_bits(u32::from(props.pb));
    match (effort, search) {
        (Effort::Max, Search::Preset) => {
            options
                .mode(Mode::Normal)
                .match_finder(MatchFinder::BinaryTree4)
                .nice_len(273)
                .depth(512);
        }
        (Effort::Max, Search::Short) => {
            options
                .mode(Mode::Normal)
                .match_finder(MatchFinder::BinaryTree4)
                .nice_len(64)
                .depth(24);
        }
        (Effort::Balanced, Search::Short) => {
            options
                .mode(Mode::Normal)
                .match_finder(MatchFinder::HashChain4)
                .nice_len(24)
                .depth(6);
        }
        (Effort::Fast | Effort::Balanced, _) => {}
    }
    Some(options)
}

/// The dictionary that covers the whole stream; part of the format, since a decoder must use at
/// least as much.
fn dict_size(raw_len: usize) -> u32 {
    raw_len.clamp(4096, 1 << 30).next_power_of_two() as u32
}

/// `raw` as a bzip2 stream with blocks no larger than needed.
pub fn bz2(raw: &[u8]) -> Option<Coded> {
    let level = raw.len().div_ceil(100_000).clamp(1, 9) as u32;
    let mut encoder = bzip2::Compress::new(bzip2::Compression::new(level), 0);
    let mut bytes = Vec::with_capacity(raw.len() / 2 + 600);
    loop {
        let done = encoder.total_in() as usize;
        let status = encoder
            .compress_vec(&raw[done..], &mut bytes, bzip2::Action::Finish)
            .ok()?;
        if status == bzip2::Status::StreamEnd {
            break;
        }
        bytes.reserve(raw.len() / 4 + 600);
    }
    Some(Coded {
        codec: Codec::Bz2,
        params: 0,
        bytes,
    })
}

/// Restores exactly `raw_len` bytes. Memory grows with what really comes out, so a lying length
/// costs nothing.
pub fn decode(codec: Codec, params: u8, packed: &[u8], raw_len: usize) -> Result<Vec<u8>, Damage> {
    match codec {
        Codec::Stored if packed.len() == raw_len => Ok(packed.to_vec()),
        Codec::Stored => Err(Damage::new("stored bytes are not as long as they say")),
        Codec::Lzma => decode_lzma(params, packed, raw_len),
        Codec::Bz2 => decode_bz2(packed, raw_len),
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

fn decode_lzma(params: u8, packed: &[u8], raw_len: usize) -> Result<Vec<u8>, Damage> {
    let props =
        LzmaProps::from_byte(params).ok_or_else(|| Damage::new("unknown LZMA parameters"))?;
    let mut options =
        LzmaOptions::new_preset(6).map_err(|error| Damage::new(format!("LZMA: {error}")))?;
    options
        .dict_size(dict_size(raw_len))
        .literal_context_bits(u32::from(props.lc))
        .literal_position_bits(u32::from(props.lp))
        .position_bits(u32::from(props.pb));
    let mut filters = Filters::new();
    filters.lzma2(&options);
    let mut stream =
        Stream::new_raw_decoder(&filters).map_err(|error| Damage::new(format!("LZMA: {error}")))?;
    let mut out = Vec::new();
    loop {
        make_room(&mut out, raw_len);
        let before = (stream.total_in(), stream.total_out());
        let input = &packed[(before.0 as usize).min(packed.len())..];
        let status = stream
            .process_vec(input, &mut out, Action::Run)
            .map_err(|error| Damage::new(format!("LZMA: {error}")))?;
        let stalled = before == (stream.total_in(), stream.total_out());
        if finished(status == Status::StreamEnd, stalled, out.len(), raw_len)? {
            return exact(out, stream.total_in() as usize, packed.len());
        }
    }
}

fn decode_bz2(packed: &[u8], raw_len: usize) -> Result<Vec<u8>, Damage> {
    let mut decoder = bzip2::Decompress::new(false);
    let mut out = Vec::new();
    loop {
        make_room(&mut out, raw_len);
        let before = (decoder.total_in(), decoder.total_out());
        let input = &packed[(before.0 as usize).min(packed.len())..];
        let status = decoder
            .decompress_vec(input, &mut out)
            .map_err(|error| Damage::new(format!("BZ2: {error}")))?;
        let stalled = before == (decoder.total_in(), decoder.total_out());
        if finished(
            status == bzip2::Status::StreamEnd,
            stalled,
            out.len(),
            raw_len,
        )? {
            return exact(out, decoder.total_in() as usize, packed.len());
        }
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
