//! The streams that a transform leaves, grouped, coded, and behind a directory; and back.
//!
//! Small streams of one kind share a group, so that none pays for its own headers. With effort max
//! all text is also tried as one solid group, where equal text in several columns is found.

mod groups;
mod source;

use std::sync::OnceLock;

pub use source::{Source, raw_limit};

use self::groups::{Group, choose_groups};
use crate::{
    bytes::put_varint,
    entropy::{self, Codec, LzmaProps, Search},
    hybrid::Effort,
};

/// What a stream's bytes look like; decides the LZMA settings to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Text of any sort.
    Text,
    /// Single bytes: indexes, planes.
    Bytes,
    /// Numbers of so many bytes each, 2, 4 or 8.
    Rows(u8),
    /// Bits that are random for all we know: stored.
    Packed,
}

impl Kind {
    fn search(self) -> Search {
        match self {
            Self::Text => Search::Preset,
            Self::Bytes | Self::Rows(_) | Self::Packed => Search::Short,
        }
    }

    fn props(self, effort: Effort) -> Vec<LzmaProps> {
        let few = effort != Effort::Max;
        match self {
            Self::Text if few => vec![LzmaProps {
                lc: 3,
                lp: 0,
                pb: 0,
            }],
            Self::Text => vec![
                LzmaProps {
                    lc: 3,
                    lp: 0,
                    pb: 0,
                },
                LzmaProps::PROSE,
            ],
            Self::Bytes if few => vec![LzmaProps::BYTES],
            Self::Bytes => vec![LzmaProps::BYTES, LzmaProps::PROSE],
            Self::Rows(width) => {
                let bits = width.clamp(1, 8).ilog2() as u8;
                vec![LzmaProps {
                    lc: 0,
                    lp: bits,
                    pb: bits,
                }]
            }
            Self::Packed => Vec::new(),
        }
    }
}

/// One stream before coding.
#[derive(Debug, Clone)]
pub struct RawStream {
    /// How its bytes came about, for reports.
    pub coding: &'static str,
    /// What they look like.
    pub kind: Kind,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Asked for at every level of nesting, and measured once.
    cost: OnceLock<usize>,
}

impl RawStream {
    /// `bytes` that look like `kind`.
    pub fn new(coding: &'static str, kind: Kind, bytes: Vec<u8>) -> Self {
        Self {
            coding,
            kind,
            bytes,
            cost: OnceLock::new(),
        }
    }

    /// The size that this stream would take alone: measured with effort balanced and max, estimated
    /// with fast. A stream is asked with one effort only.
    pub fn cost(&self, effort: Effort) -> usize {
        *self.cost.get_or_init(|| self.measure(effort))
    }

    fn measure(&self, effort: Effort) -> usize {
        const HEADERS: usize = 3;
        if self.kind == Kind::Packed {
            return self.bytes.len() + HEADERS;
        }
        if self.bytes.len() <= TINY {
            // It will share a group: what matters is what it adds.
            return self.bytes.len().min(order0_bytes(&self.bytes) + 4);
        }
        if is_fill(&self.bytes) {
            return HEADERS;
        }
        HEADERS
            + match (effort, self.kind) {
                (_, Kind::Packed) => self.bytes.len(),
                (Effort::Fast, _) => order0_bytes(&self.bytes),
                (Effort::Balanced | Effort::Max, Kind::Text) => self.bz2_bytes(),
                (Effort::Balanced, Kind::Bytes) => {
                    bytes_cost(&self.bytes).min(repeats_cost(&self.bytes))
                }
                // Whole numbers that come again, such as points on a border, are what BZ2 finds.
                (Effort::Balanced, Kind::Rows(_)) | (Effort::Max, Kind::Bytes | Kind::Rows(_)) => {
                    self.bz2_bytes().min(bytes_cost(&self.bytes))
                }
            }
    }

    fn bz2_bytes(&self) -> usize {
        entropy::bz2(&self.bytes).map_or(self.bytes.len(), |coded| {
            coded.bytes.len().min(self.bytes.len())
        })
    }
}

/// Streams of at most so many bytes share a group with others of their kind.
const TINY: usize = 400;

/// Roughly the bytes that LZMA needs where there is nothing but single bytes to code.
pub fn bytes_cost(bytes: &[u8]) -> usize {
    let mut coder = Literals::default();
    bytes.iter().for_each(|&byte| coder.put(byte));
    coder.bytes()
}

/// Roughly the bytes that LZMA needs where long runs come again.
fn repeats_cost(bytes: &[u8]) -> usize {
    /// Shorter repeats save nothing to speak of.
    const LEAST: usize = 8;
    /// What a repeat takes: that it is one, how far back, how long.
    const REPEAT_BITS: usize = 26;
    let slots = bytes.len().clamp(1 << 8, 1 << 16).ilog2();
    let slot = |at: usize| {
        let four = u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        (four.wrapping_mul(0x9e37_79b1) >> (32 - slots)) as usize
    };
    let mut seen = vec![u32::MAX; 1 << slots];
    let mut coder = Literals::default();
    let (mut at, mut repeats) = (0, 0);
    while at + 4 <= bytes.len() {
        let before = std::mem::replace(&mut seen[slot(at)], at as u32);
        let from = bytes.get(before as usize..).unwrap_or_default();
        let same = from
            .iter()
            .zip(&bytes[at..])
            .take_while(|(a, b)| a == b)
            .count();
        if same >= LEAST {
            repeats += 1;
            at += same;
        } else {
            coder.put(bytes[at]);
            at += 1;
        }
    }
    coder.bytes() + repeats * REPEAT_BITS / 8
}

/// LZMA's literal coder of eight binary decisions, each with a probability that follows the last
/// ones; it counts bits and writes none.
struct Literals {
    chances: [u16; 256],
    /// In parts of a bit.
    cost: u64,
}

impl Default for Literals {
    fn default() -> Self {
        Self {
            chances: [Self::SCALE / 2; 256],
            cost: 40 * Self::BIT,
        }
    }
}

impl Literals {
    /// LZMA's probabilities have 11 bits, and move by a 32nd.
    const SCALE: u16 = 1 << 11;
    const MOVE: u32 = 5;
    /// What a bit counts: fine enough that rounding does not add up.
    const BIT: u64 = 1 << 12;
    /// That each byte is no match is told too: 0.023 bits.
    const LITERAL: u64 = 94;

    fn put(&mut self, byte: u8) {
        static COSTS: std::sync::LazyLock<[u32; 1 << 11]> = std::sync::LazyLock::new(|| {
            std::array::from_fn(|chance| {
                (Literals::BIT as f32 * (2048.0 / chance.max(1) as f32).log2()) as u32
            })
        });
        let costs = &*COSTS;
        let (mut cost, mut node) = (Self::LITERAL, 1usize);
        // Which way a bit goes is hard to guess for a processor too: both ways are worked out, and
        // one is taken.
        for shift in (0..8).rev() {
            let bit = u16::from(byte >> shift & 1);
            let chance = &mut self.chances[node & 0xff];
            let ones = bit.wrapping_neg();
            let taken = (*chance & !ones) | ((Self::SCALE - *chance) & ones);
            cost += u64::from(costs[usize::from(taken) & 0x7ff]);
            let (up, down) = ((Self::SCALE - *chance) >> Self::MOVE, *chance >> Self::MOVE);
            *chance = chance.wrapping_add(up & !ones).wrapping_sub(down & ones);
            node = node << 1 | usize::from(bit);
        }
        self.cost += cost;
    }

    fn bytes(&self) -> usize {
        (self.cost / Self::BIT / 8) as usize
    }
}

/// The bytes that an ideal coder of single bytes needs.
pub fn order0_bytes(bytes: &[u8]) -> usize {
    let mut counts = [0u32; 256];
    for &byte in bytes {
        counts[usize::from(byte)] += 1;
    }
    let total = bytes.len() as f64;
    let bits: f64 = counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| f64::from(count) * (total / f64::from(count)).log2())
        .sum();
    (bits / 8.0) as usize + 1
}

fn is_fill(bytes: &[u8]) -> bool {
    bytes.len() > 1 && bytes.iter().all(|byte| *byte == bytes[0])
}

/// Where one stream went.
#[derive(Debug, Clone, Copy)]
pub struct Placed {
    /// Its group's codec.
    pub codec: Codec,
    /// Its bytes before coding.
    pub raw_bytes: u64,
    /// Its part of the group's coded bytes.
    pub packed_bytes: u64,
}

/// Codes all streams; answers the payload and where each stream went.
pub fn write(plan: &[u8], streams: &[RawStream], effort: Effort) -> (Vec<u8>, Vec<Placed>) {
    let groups = choose_groups(streams, effort);
    let mut of_stream = vec![0; streams.len()];
    let mut directory = Vec::new();
    put_varint(&mut directory, plan.len() as u64);
    directory.extend_from_slice(plan);
    put_varint(&mut directory, groups.len() as u64);
    for (number, group) in groups.iter().enumerate() {
        directory.extend([group.coded.codec as u8, group.coded.params]);
        put_varint(&mut directory, group.coded.bytes.len() as u64);
        for &member in &group.members {
            of_stream[member] = number;
        }
    }
    put_varint(&mut directory, streams.len() as u64);
    for (stream, group) in streams.iter().zip(&of_stream) {
        put_varint(&mut directory, *group as u64);
        put_varint(&mut directory, stream.bytes.len() as u64);
    }
    let coded = entropy::encode(
        &directory,
        effort,
        &[LzmaProps::BYTES, LzmaProps::TEXT],
        Search::Preset,
    );
    let mut payload = vec![coded.codec as u8, coded.params];
    put_varint(&mut payload, directory.len() as u64);
    put_varint(&mut payload, coded.bytes.len() as u64);
    payload.extend(coded.bytes);
    for group in &groups {
        payload.extend_from_slice(&group.coded.bytes);
    }
    let placed = place(streams, &groups, &of_stream);
    (payload, placed)
}

fn place(streams: &[RawStream], groups: &[Group], of_stream: &[usize]) -> Vec<Placed> {
    let lengths: Vec<u64> = streams
        .iter()
        .map(|stream| stream.bytes.len() as u64)
        .collect();
    let raw_of = |group: &Group| {
        group
            .members
            .iter()
            .map(|&member| lengths[member])
            .sum::<u64>()
    };
    let totals: Vec<u64> = groups.iter().map(raw_of).collect();
    of_stream
        .iter()
        .zip(&lengths)
        .map(|(&group, &raw_bytes)| Placed {
            codec: groups[group].coded.codec,
            raw_bytes,
            packed_bytes: groups[group].coded.bytes.len() as u64 * raw_bytes / totals[group].max(1),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_come_back_whatever_their_groups() {
        let mut dice = fastrand::Rng::with_seed(5);
        let streams: Vec<RawStream> = [0usize, 1, 10, 300, 5000, 20_000, 5000]
            .into_iter()
            .enumerate()
            .flat_map(|(number, len)| {
                [Kind::Text, Kind::Bytes, Kind::Rows(4)].map(|kind| (number, len, kind))
            })
            .map(|(number, len, kind)| {
                let letter = |_| match number % 3 {
                    1 => 7,
                    _ => dice.u8(b'a'..b'f'),
                };
                RawStream::new("test", kind, (0..len).map(letter).collect())
            })
            .collect();
        for effort in Effort::ALL {
            let (payload, placed) = write(b"plan", &streams, effort);
            assert_eq!(placed.len(), streams.len());
            let mut source = Source::read(&payload, 100_000).expect("reads");
            assert_eq!(source.plan, b"plan");
            for stream in &streams {
                assert_eq!(source.next("test").as_ref(), Ok(&stream.bytes));
            }
            assert_eq!(source.finish(), Ok(()));
            assert!(Source::read(&payload[..payload.len() - 1], 100_000).is_err());
            assert!(Source::read(&payload, 100).is_err());
        }
    }
}
