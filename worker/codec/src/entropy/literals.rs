//! A raw LZMA2 encoder that writes literals only. If bytes do not depend on the bytes before them
//! (indexes, buckets, planes), the encoder of liblzma takes short matches that cost more: up to 15 %
//! on small alphabets. Every LZMA2 decoder reads the result.

use super::{Coded, Coder, LzmaProps};
use crate::Codec;

/// The probabilities of LZMA have 11 bits and adapt by 1/32.
pub(super) const SCALE_BITS: u32 = 11;
pub(super) const ADAPT_SHIFT: u32 = 5;
/// LZMA2 counts the packed bytes of a chunk in 16 bits and the raw bytes in 21 bits.
const CHUNK_PACKED: usize = (64 << 10) - 64;
const CHUNK_RAW: usize = 2 << 20;
/// Control bytes of a chunk: with a reset of all state, and without.
pub(super) const FIRST_CHUNK: u8 = 0xe0;
const NEXT_CHUNK: u8 = 0x80;

/// The range encoder of LZMA.
pub(super) struct RangeEncoder {
    low: u64,
    range: u32,
    cache: u8,
    cached: usize,
    bytes: Vec<u8>,
}

impl RangeEncoder {
    pub(super) fn new() -> Self {
        Self {
            low: 0,
            range: u32::MAX,
            cache: 0,
            cached: 1,
            bytes: Vec::with_capacity(CHUNK_PACKED + 64),
        }
    }

    pub(super) fn put(&mut self, chance: &mut u16, bit: u32) {
        let bound = (self.range >> SCALE_BITS) * u32::from(*chance);
        if bit == 0 {
            self.range = bound;
            *chance += ((1 << SCALE_BITS) - *chance) >> ADAPT_SHIFT;
        } else {
            self.low += u64::from(bound);
            self.range -= bound;
            *chance -= *chance >> ADAPT_SHIFT;
        }
        self.normalize();
    }

    /// A bit of even chances.
    pub(super) fn put_even(&mut self, bit: u32) {
        self.range >>= 1;
        self.low += u64::from(self.range * bit);
        self.normalize();
    }

    fn normalize(&mut self) {
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

    pub(super) fn finish(mut self) -> Vec<u8> {
        for _ in 0..5 {
            self.shift();
        }
        self.bytes
    }
}

/// `raw` as literals; the highest `lc` bits of the previous byte select the coder.
pub(super) fn literals(raw: &[u8], lc: u8) -> Coded {
    const HALF: u16 = 1 << (SCALE_BITS - 1);
    let props = LzmaProps { lc, lp: 0, pb: 0 };
    let mut is_match = HALF;
    let mut trees = vec![[HALF; 256]; 1 << lc];
    let mut bytes = Vec::with_capacity(raw.len() / 2 + 64);
    let (mut at, mut before) = (0, 0u8);
    while at < raw.len() {
        let start = at;
        let mut range = RangeEncoder::new();
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
        coder: Coder::Literals(lc),
        codec: Codec::Lzma,
        params: props.to_byte(),
        bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        FormatVersion,
        entropy::{cost::literals_bytes, decode},
    };

    fn check(raw: &[u8]) {
        for lc in 0..=4 {
            let coded = literals(raw, lc);
            let back = decode(
                coded.codec,
                coded.params,
                &coded.bytes,
                raw.len(),
                FormatVersion::V1,
            );
            assert!(back.as_deref() == Ok(raw), "{} bytes, lc {lc}", raw.len());
        }
    }

    #[test]
    fn liblzma_decodes_literals_of_any_length() {
        let mut rng = fastrand::Rng::with_seed(7);
        for len in [1, 2, 100, 65_535, 65_536, 70_000, 200_000] {
            check(&(0..len).map(|_| rng.u8(..)).collect::<Vec<_>>());
            check(&(0..len).map(|_| rng.u8(0..3)).collect::<Vec<_>>());
            check(&vec![255; len]);
        }
        check(&vec![0; (2 << 20) + 5]);
    }

    #[test]
    fn the_estimate_of_their_size_is_close() {
        let mut rng = fastrand::Rng::with_seed(7);
        for top in [2, 5, 30, 100, 255] {
            let raw: Vec<u8> = (0..30_000)
                .map(|_| rng.u8(0..top).min(rng.u8(0..top)))
                .collect();
            let (estimate, size) = (
                literals_bytes(&raw) as f64,
                literals(&raw, 0).bytes.len() as f64,
            );
            assert!(
                (estimate - size).abs() < 0.01 * size + 20.0,
                "{top}: {estimate} {size}"
            );
        }
    }
}
