//! Raw LZMA2.

use xz2::stream::{Action, Filters, LzmaOptions, MatchFinder, Mode, Status, Stream};

use super::{Coded, Coder, EncodeOptions, exact, finished, reserve_output};
use crate::{Codec, Damage, Effort};

/// The literal and position parameters of LZMA: `lc + lp <= 4`, `pb <= 4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LzmaProps {
    /// High bits of the previous byte that select the literal coder.
    pub lc: u8,
    /// Low bits of the position that select the literal coder.
    pub lp: u8,
    /// Low bits of the position that select the match coder.
    pub pb: u8,
}

impl LzmaProps {
    /// The defaults of xz.
    pub(crate) const TEXT: Self = Self {
        lc: 3,
        lp: 0,
        pb: 2,
    };
    /// Text without alignment.
    pub(crate) const PROSE: Self = Self {
        lc: 4,
        lp: 0,
        pb: 0,
    };
    /// Bytes that do not depend on the previous byte: indexes, planes.
    pub(crate) const BYTES: Self = Self {
        lc: 0,
        lp: 0,
        pb: 0,
    };

    /// For few bytes, where each setting is quickly tried: contexts learn slowly, so that fewer of them
    /// can be smaller.
    pub(crate) const SMALL: [Self; 5] = [
        Self::BYTES,
        Self::with_contexts(1),
        Self::with_contexts(2),
        Self::with_contexts(3),
        Self::PROSE,
    ];

    /// With this many bits of the previous byte.
    pub(crate) const fn with_contexts(lc: u8) -> Self {
        Self { lc, lp: 0, pb: 0 }
    }

    pub(super) fn to_byte(self) -> u8 {
        (self.pb * 5 + self.lp) * 9 + self.lc
    }

    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        let props = Self {
            lc: byte % 9,
            lp: byte / 9 % 5,
            pb: byte / 45,
        };
        (props.lc + props.lp <= 4 && props.pb <= 4).then_some(props)
    }
}

/// How long LZMA searches for matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Search {
    /// As in the preset of the effort.
    Preset,
    /// Less: single bytes gain little from long matches, and the search takes most of the time.
    Short,
}

/// `raw` as raw LZMA2, or `None` if the result is longer than `raw`.
pub(crate) fn lzma(
    raw: &[u8],
    props: LzmaProps,
    options: EncodeOptions,
    search: Search,
) -> Option<Coded> {
    let options = encoder_options(raw.len(), props, options, search)?;
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
        // A longer result has already lost to `stored`.
        if bytes.len() > raw.len() {
            return None;
        }
        // Doubling would take twice the memory.
        bytes.reserve_exact(raw.len() / 4 + 128);
    }
    Some(Coded {
        coder: Coder::Lzma(props, search),
        codec: Codec::Lzma,
        params: props.to_byte(),
        bytes,
    })
}

fn encoder_options(
    raw_len: usize,
    props: LzmaProps,
    EncodeOptions {
        effort,
        max_dictionary,
        ..
    }: EncodeOptions,
    search: Search,
) -> Option<LzmaOptions> {
    let mut options = match effort {
        Effort::Fast => LzmaOptions::new_preset(5),
        Effort::Balanced | Effort::Max => LzmaOptions::new_preset(9 | xz2::stream::PRESET_EXTREME),
    }
    .ok()?;
    options
        .dict_size(dict_size(raw_len).min(max_dictionary))
        .literal_context_bits(u32::from(props.lc))
        .literal_position_bits(u32::from(props.lp))
        .position_bits(u32::from(props.pb));
    match (effort, search) {
        (Effort::Max, Search::Preset) => {
            options
                .mode(Mode::Normal)
                .match_finder(MatchFinder::BinaryTree4)
                .nice_len(NICE_LEN)
                .depth(512);
        }
        (Effort::Max, Search::Short) => {
            options
                .mode(Mode::Normal)
                .match_finder(MatchFinder::BinaryTree4)
                .nice_len(64)
                .depth(24);
        }
        (Effort::Fast | Effort::Balanced, Search::Short) => {
            options
                .mode(Mode::Normal)
                .match_finder(MatchFinder::HashChain4)
                .nice_len(24)
                .depth(6);
        }
        (Effort::Balanced, Search::Preset) => {
            options.nice_len(NICE_LEN);
        }
        (Effort::Fast, Search::Preset) => {}
    }
    Some(options)
}

/// The length of a match that is taken at once, bytes, at efforts balanced and max. The preset's 273 is the most that there is: with it,
/// bytes that repeat at a short distance take many times longer, since each length of each match is priced, and files are about 0.1 %
/// smaller at most.
const NICE_LEN: u32 = 96;

/// The dictionary size that covers the whole stream. It is part of the format: a decoder has as much, and an encoder may use
/// less.
fn dict_size(raw_len: usize) -> u32 {
    raw_len.clamp(4096, 1 << 30).next_power_of_two() as u32
}

/// Restores exactly `raw_len` bytes.
pub(super) fn decode(params: u8, packed: &[u8], raw_len: usize) -> Result<Vec<u8>, Damage> {
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
        reserve_output(&mut out, raw_len);
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
