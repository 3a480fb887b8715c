//! Estimates of coded sizes without coding.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{LazyLock, Mutex, PoisonError};

use super::literals::{ADAPT_SHIFT, SCALE_BITS};
use crate::{Effort, FormatVersion, hash::wide_hash};

/// What the estimated size of a column depends on besides its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CostBasis<'m> {
    pub(crate) effort: Effort,
    pub(crate) version: FormatVersion,
    pub(crate) measured: &'m MeasuredSizes,
}

impl CostBasis<'_> {
    /// Whether plan and small text cost less than they would alone: in version 2 they are coded after the primer, with those of
    /// other columns. With less effort, too few codings are compared for that to pay.
    fn counts_context(self) -> bool {
        self.effort == Effort::Max && self.version == FormatVersion::V2
    }

    /// The coded size of `bytes` bytes of a plan.
    pub(crate) fn of_plan(self, bytes: usize) -> usize {
        match self.counts_context() {
            true => bytes / 2,
            false => bytes,
        }
    }

    /// The coded size of text that has this entropy, in bytes, and shares a group.
    pub(crate) fn of_small_text(self, entropy: usize) -> usize {
        match self.counts_context() {
            true => entropy * 3 / 4,
            false => entropy,
        }
    }
}

/// The sizes of streams of one block that were measured. Codings inside of codings ask for equal streams again and again.
#[derive(Debug, Default)]
pub(crate) struct MeasuredSizes(Mutex<HashMap<u128, usize>>);

impl MeasuredSizes {
    /// So many are kept: a few megabytes.
    const MOST: usize = 1 << 16;

    /// The size of `bytes`, which `measure` finds out where it is not known. `kind` says what else it depends on.
    ///
    /// A stream that was made to have another's hash gets a wrong estimate: its block may be larger, and is as right.
    pub(crate) fn of(&self, kind: u64, bytes: &[u8], measure: impl FnOnce() -> usize) -> usize {
        let key = wide_hash(kind, bytes);
        let sizes = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = sizes().get(&key).copied();
        known.unwrap_or_else(|| {
            let size = measure();
            let mut sizes = sizes();
            if sizes.len() < Self::MOST {
                sizes.insert(key, size);
            }
            size
        })
    }
}

/// The size of `bytes` as LZMA literals, headers included.
pub(crate) fn literals_bytes(bytes: &[u8]) -> usize {
    let mut coder = LiteralPrices::default();
    coder.put_all(bytes);
    coder.bytes()
}

/// The size of `bytes` as LZMA literals, or as literals and long matches where that is smaller.
pub(crate) fn lzma_bytes(bytes: &[u8]) -> usize {
    /// The price of a match: flag, distance and length.
    const MATCH_BITS: usize = 26;
    let matches = long_matches(bytes);
    let all = literals_bytes(bytes);
    if matches.is_empty() {
        return all;
    }
    let mut coder = LiteralPrices::default();
    let mut literals_from = 0;
    for matched in &matches {
        coder.put_all(&bytes[literals_from..matched.start]);
        literals_from = matched.end;
    }
    coder.put_all(&bytes[literals_from..]);
    all.min(coder.bytes() + matches.len() * MATCH_BITS / 8)
}

/// Where bytes repeat the latest ones that begin with the same four.
fn long_matches(bytes: &[u8]) -> Vec<Range<usize>> {
    /// Shorter matches save nearly nothing.
    const MIN_MATCH: usize = 8;
    let slots = bytes.len().clamp(1 << 8, 1 << 16).ilog2();
    let slot = |at: usize| {
        let four = u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        (four.wrapping_mul(0x9e37_79b1) >> (32 - slots)) as usize
    };
    let mut seen = vec![u32::MAX; 1 << slots];
    let (mut at, mut matches) = (0, Vec::new());
    while at + 4 <= bytes.len() {
        let before = std::mem::replace(&mut seen[slot(at)], at as u32);
        let from = bytes.get(before as usize..).unwrap_or_default();
        let same = from
            .iter()
            .zip(&bytes[at..])
            .take_while(|(a, b)| a == b)
            .count();
        if same >= MIN_MATCH {
            matches.push(at..at + same);
            at += same;
        } else {
            at += 1;
        }
    }
    matches
}

/// The literal coder of LZMA, eight adaptive binary decisions a byte. It adds up prices and writes
/// nothing.
struct LiteralPrices {
    decisions: &'static Decisions,
    chances: [u16; 256],
    /// In units of 1 / [`Self::BIT`] bit.
    cost: u64,
}

impl Default for LiteralPrices {
    fn default() -> Self {
        Self {
            decisions: &DECISIONS,
            chances: [Self::SCALE / 2; 256],
            cost: 40 * Self::BIT,
        }
    }
}

/// By the bit and the chance that it is 0, of [`LiteralPrices::SCALE`]: the price of the bit in the upper half, the chance after it
/// in the lower. A processor cannot predict the bits: one table has both cases.
type Decisions = [u32; 2 << SCALE_BITS];

static DECISIONS: LazyLock<Decisions> = LazyLock::new(|| {
    const SCALE: u16 = LiteralPrices::SCALE;
    std::array::from_fn(|decision| {
        let (bit, chance) = (decision >> SCALE_BITS, decision as u16 % SCALE);
        let (taken, next) = match bit {
            0 => (chance, chance + ((SCALE - chance) >> ADAPT_SHIFT)),
            _ => (SCALE - chance, chance - (chance >> ADAPT_SHIFT)),
        };
        // No bit costs more than eleven.
        let bits = (f32::from(SCALE) / f32::from(taken.max(1))).log2();
        let price = (LiteralPrices::BIT as f32 * bits) as u32;
        price << 16 | u32::from(next)
    })
});

impl LiteralPrices {
    const SCALE: u16 = 1 << SCALE_BITS;
    /// One bit; fine enough that rounding errors do not add up.
    const BIT: u64 = 1 << 12;
    /// The flag that a byte is no match: 0.023 bits.
    const LITERAL: u64 = 94;

    fn put_all(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.put(byte));
    }

    fn put(&mut self, byte: u8) {
        const LOWER: u32 = u16::MAX as u32;
        let (mut price, mut node) = (0, 1);
        for shift in (0..8).rev() {
            let bit = usize::from(byte >> shift & 1);
            let chance = &mut self.chances[node & 0xff];
            let decision =
                self.decisions[(bit << SCALE_BITS | usize::from(*chance)) % (2 << SCALE_BITS)];
            price += decision >> 16;
            *chance = (decision & LOWER) as u16;
            node = node << 1 | bit;
        }
        self.cost += Self::LITERAL + u64::from(price);
    }

    fn bytes(&self) -> usize {
        (self.cost / Self::BIT / 8) as usize
    }
}

/// The size of `bytes` at their order-0 entropy.
pub(crate) fn entropy_bytes(bytes: &[u8]) -> usize {
    entropy_bytes_of(bytes.iter().copied())
}

/// The size of bytes at their order-0 entropy.
pub(crate) fn entropy_bytes_of(bytes: impl Iterator<Item = u8>) -> usize {
    let mut entropy = Entropy::default();
    bytes.for_each(|byte| entropy.add(byte));
    (entropy.bits() / 8.0) as usize + 1
}

/// The order-0 entropy of symbols. It is added up symbol by symbol: most samples are shorter than a pass over all counts.
pub(crate) struct Entropy {
    counts: [u32; 256],
    symbols: u32,
    /// The sum over all counts, as far as they are below [`Self::KNOWN`], of the count times its logarithm, in units of
    /// 1 / [`Self::BIT`] bit.
    sum: u64,
}

impl Default for Entropy {
    fn default() -> Self {
        Self {
            counts: [0; 256],
            symbols: 0,
            sum: 0,
        }
    }
}

impl Entropy {
    const BIT: f64 = 65536.0;
    /// Few counts are larger. What those add is computed once, at the end.
    const KNOWN: u32 = 2048;

    /// Adds a symbol.
    pub(crate) fn add(&mut self, symbol: u8) {
        /// What one more adds to a count times its logarithm.
        static STEPS: LazyLock<[u32; Entropy::KNOWN as usize]> = LazyLock::new(|| {
            std::array::from_fn(|count| {
                let count = count as u32;
                let step = times_its_logarithm(count + 1) - times_its_logarithm(count);
                (step * Entropy::BIT) as u32
            })
        });
        let count = &mut self.counts[usize::from(symbol)];
        self.sum += u64::from(STEPS.get(*count as usize).copied().unwrap_or_default());
        *count += 1;
        self.symbols += 1;
    }

    /// The size of all symbols in bits.
    pub(crate) fn bits(&self) -> f64 {
        let mut sum = self.sum as f64 / Self::BIT;
        if self.symbols > Self::KNOWN {
            let known = times_its_logarithm(Self::KNOWN);
            let larger = self.counts.iter().filter(|count| **count > Self::KNOWN);
            sum += larger
                .map(|&count| times_its_logarithm(count) - known)
                .sum::<f64>();
        }
        times_its_logarithm(self.symbols) - sum
    }
}

fn times_its_logarithm(count: u32) -> f64 {
    f64::from(count) * f64::from(count.max(1)).log2()
}
