//! Estimates of coded sizes without coding.

use super::literals::{ADAPT_SHIFT, SCALE_BITS};
use crate::{Effort, FormatVersion};

/// What the estimated size of a column depends on besides its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CostBasis {
    pub(crate) effort: Effort,
    pub(crate) version: FormatVersion,
}

impl CostBasis {
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

/// The size of `bytes` as LZMA literals, headers included.
pub(crate) fn literals_bytes(bytes: &[u8]) -> usize {
    let mut coder = LiteralPrices::default();
    bytes.iter().for_each(|&byte| coder.put(byte));
    coder.bytes()
}

/// The size of `bytes` as LZMA literals and long matches.
pub(crate) fn matches_bytes(bytes: &[u8]) -> usize {
    /// Shorter matches save nearly nothing.
    const MIN_MATCH: usize = 8;
    /// The price of a match: flag, distance and length.
    const MATCH_BITS: usize = 26;
    let slots = bytes.len().clamp(1 << 8, 1 << 16).ilog2();
    let slot = |at: usize| {
        let four = u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        (four.wrapping_mul(0x9e37_79b1) >> (32 - slots)) as usize
    };
    let mut seen = vec![u32::MAX; 1 << slots];
    let mut coder = LiteralPrices::default();
    let (mut at, mut matches) = (0, 0);
    while at + 4 <= bytes.len() {
        let before = std::mem::replace(&mut seen[slot(at)], at as u32);
        let from = bytes.get(before as usize..).unwrap_or_default();
        let same = from
            .iter()
            .zip(&bytes[at..])
            .take_while(|(a, b)| a == b)
            .count();
        if same >= MIN_MATCH {
            matches += 1;
            at += same;
        } else {
            coder.put(bytes[at]);
            at += 1;
        }
    }
    coder.bytes() + matches * MATCH_BITS / 8
}

/// The literal coder of LZMA, eight adaptive binary decisions a byte. It adds up prices and writes
/// nothing.
struct LiteralPrices {
    chances: [u16; 256],
    /// In units of 1 / [`Self::BIT`] bit.
    cost: u64,
}

impl Default for LiteralPrices {
    fn default() -> Self {
        Self {
            chances: [Self::SCALE / 2; 256],
            cost: 40 * Self::BIT,
        }
    }
}

impl LiteralPrices {
    const SCALE: u16 = 1 << SCALE_BITS;
    /// One bit; fine enough that rounding errors do not add up.
    const BIT: u64 = 1 << 12;
    /// The flag that a byte is no match: 0.023 bits.
    const LITERAL: u64 = 94;

    fn put(&mut self, byte: u8) {
        static COSTS: std::sync::LazyLock<[u32; 1 << 11]> = std::sync::LazyLock::new(|| {
            std::array::from_fn(|chance| {
                (LiteralPrices::BIT as f32 * (2048.0 / chance.max(1) as f32).log2()) as u32
            })
        });
        let costs = &*COSTS;
        let (mut cost, mut node) = (Self::LITERAL, 1usize);
        // A processor cannot predict the bits: compute both cases and select one.
        for shift in (0..8).rev() {
            let bit = u16::from(byte >> shift & 1);
            let chance = &mut self.chances[node & 0xff];
            let ones = bit.wrapping_neg();
            let taken = (*chance & !ones) | ((Self::SCALE - *chance) & ones);
            cost += u64::from(costs[usize::from(taken) & 0x7ff]);
            let (up, down) = (
                (Self::SCALE - *chance) >> ADAPT_SHIFT,
                *chance >> ADAPT_SHIFT,
            );
            *chance = chance.wrapping_add(up & !ones).wrapping_sub(down & ones);
            node = node << 1 | usize::from(bit);
        }
        self.cost += cost;
    }

    fn bytes(&self) -> usize {
        (self.cost / Self::BIT / 8) as usize
    }
}

/// The size of `bytes` at their order-0 entropy.
pub(crate) fn entropy_bytes(bytes: &[u8]) -> usize {
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
