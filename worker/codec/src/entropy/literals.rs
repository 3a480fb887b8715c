//! Raw LZMA2 of literals alone. Where bytes do not depend on bytes before them (indexes, buckets,
//! planes), LZMA's own encoder takes short matches that turn out to cost more: up to 15 % on small
//! alphabets. Any LZMA2 decoder reads this; the writer is short because it never looks for a match.

use super::{Codec, Coded, LzmaProps};

/// LZMA's probabilities have 11 bits and move by a 32nd.
const SCALE_BITS: u32 = 11;
const MOVE: u32 = 5;
/// A chunk's packed bytes are counted in 16 bits, its raw bytes in 21.
const CHUNK_PACKED: usize = (64 << 10) - 64;
const CHUNK_RAW: usize = 2 << 20;
/// Chunk marks: all is new, and nothing is new.
const FIRST_CHUNK: u8 = 0xe0;
const NEXT_CHUNK: u8 = 0x80;

/// LZMA's range coder.
struct Range {
    low: u64,
    range: u32,
    cache: u8,
    cached: usize,
    bytes: Vec<u8>,
}

impl Range {
    fn new() -> Self {
        Self {
            low: 0,
            range: u32::MAX,
            cache: 0,
            cached: 1,
            bytes: Vec::with_capacity(CHUNK_PACKED + 64),
        }
    }

    fn put(&mut self, chance: &mut u16, bit: u32) {
        let bound = (self.range >> SCALE_BITS) * u32::from(*chance);
        if bit == 0 {
            self.range = bound;
            *chance += ((1 << SCALE_BITS) - *chance) >> MOVE;
        } else {
            self.low += u64::from(bound);
            self.range -= bound;
            *chance -= *chance >> MOVE;
        }
        while self.range < 1 << 24 {
            self.range <<= 8;
            self.shift();
        }
    }

    fn shift(&mut self) {
        let carry = (self.low >> 32) as u8;
        if carry > 0 || (self.low as u32) < 0xff00_0000 {
            let mut byte = self.cache;
            for _ in 0..self.cached {
                self.bytes.push(byte.wrapping_add(carry));
                byte = 0xff;
            }
            self.cached = 0;
            self.cache = (self.low >> 24) as u8;
        }
        self.cached += 1;
        self.low = (self.low & 0x00ff_ffff) << 8;
    }

    fn len(&self) -> usize {
        self.bytes.len() + self.cached
    }

    fn finish(mut self) -> Vec<u8> {
        for _ in 0..5 {
            self.shift();
        }
        self.bytes
    }
}

/// `raw` as literals whose coder is chosen by the highest `lc` bits of the byte before.
pub fn literals(raw: &[u8], lc: u8) -> Coded {
    const HALF: u16 = 1 << (SCALE_BITS - 1);
    let props = LzmaProps { lc, lp: 0, pb: 0 };
    let mut is_match = HALF;
    let mut trees = vec![[HALF; 256]; 1 << lc];
    let mut bytes = Vec::with_capacity(raw.len() / 2 + 64);
    let (mut at, mut before) = (0, 0u8);
    while at < raw.len() {
        let start = at;
        let mut range = Range::new();
        while at < raw.len() && at - start < CHUNK_RAW && range.len() < CHUNK_PACKED {
            let byte = raw[at];
            range.put(&mut is_match, 0);
            let tree = &mut trees[usize::from(u16::from(before) >> (8 - lc))];
            let mut node = 1usize;
            for shift in (0..8).rev() {
                let bit = u32::from(byte >> shift & 1);
                range.put(&mut tree[node], bit);
                node = node << 1 | bit as usize;
            }
            before = byte;
            at += 1;
        }
        let (raw_len, packed) = (at - start - 1, range.finish());
        let mark = if start == 0 { FIRST_CHUNK } else { NEXT_CHUNK };
        bytes.push(mark | (raw_len >> 16) as u8);
        bytes.extend((raw_len as u16).to_be_bytes());
        bytes.extend(((packed.len() - 1) as u16).to_be_bytes());
        if start == 0 {
            bytes.push(props.to_byte());
        }
        bytes.extend(packed);
    }
    bytes.push(0);
    Coded {
        codec: Codec::Lzma,
        params: props.to_byte(),
        bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{entropy::decode, transform::streams::bytes_cost};

    fn check(raw: &[u8]) {
        for lc in 0..=4 {
            let coded = literals(raw, lc);
            let back = decode(coded.codec, coded.params, &coded.bytes, raw.len());
            assert!(back.as_deref() == Ok(raw), "{} bytes, lc {lc}", raw.len());
        }
    }

    #[test]
    fn a_stock_decoder_reads_literals_of_any_length() {
        let mut dice = fastrand::Rng::with_seed(7);
        for len in [1, 2, 100, 65_535, 65_536, 70_000, 200_000] {
            check(&(0..len).map(|_| dice.u8(..)).collect::<Vec<_>>());
            check(&(0..len).map(|_| dice.u8(0..3)).collect::<Vec<_>>());
            check(&vec![255; len]);
        }
        check(&vec![0; (2 << 20) + 5]);
    }

    #[test]
    fn their_cost_is_known_before() {
        let mut dice = fastrand::Rng::with_seed(7);
        for top in [2, 5, 30, 100, 255] {
            let raw: Vec<u8> = (0..30_000)
                .map(|_| dice.u8(0..top).min(dice.u8(0..top)))
                .collect();
            let (known, real) = (
                bytes_cost(&raw) as f64,
                literals(&raw, 0).bytes.len() as f64,
            );
            assert!(
                (known - real).abs() < 0.01 * real + 20.0,
                "{top}: {known} {real}"
            );
        }
    }
}
