//! The prices of the steps of LZMA in fractions of a bit, before they are taken.

use std::sync::LazyLock;

use super::super::literals::SCALE_BITS;
use super::model::{
    LengthModel, LiteralPath, LzmaModel, MAX_MATCH, MIN_MATCH, Past, REPEATS, TREE_DISTANCES,
    slot_group, slot_of,
};

/// The price of a bit of even chances.
const BIT: u32 = 64;
/// Chances are rounded to so many bits fewer.
const ROUNDING: u32 = 4;
const LENGTHS: usize = MAX_MATCH - MIN_MATCH + 1;

static OF_CHANCE: LazyLock<[u32; 1 << (SCALE_BITS - ROUNDING)]> = LazyLock::new(|| {
    std::array::from_fn(|chance| {
        let share = (chance as f32 + 0.5) / (1 << (SCALE_BITS - ROUNDING)) as f32;
        (-share.log2() * BIT as f32) as u32
    })
});

fn price(chance: u16, bit: u32) -> u32 {
    let taken = match bit {
        0 => chance,
        _ => (1 << SCALE_BITS) - chance,
    };
    OF_CHANCE[usize::from(taken >> ROUNDING) & (OF_CHANCE.len() - 1)]
}

/// The prices of lengths and distances by the chances of a model.
pub(super) struct Prices {
    match_len: [u32; LENGTHS],
    repeat_len: [u32; LENGTHS],
    slots: [[u32; 64]; 4],
    special: [u32; TREE_DISTANCES],
    align: [u32; 16],
}

impl Prices {
    pub(super) fn of(model: &LzmaModel) -> Self {
        Self {
            match_len: lengths(&model.match_len),
            repeat_len: lengths(&model.repeat_len),
            slots: std::array::from_fn(|group| tree(&model.slots[group])),
            special: std::array::from_fn(|distance| special(model, distance as u32)),
            align: std::array::from_fn(|low| reverse(&model.align, 4, low as u32)),
        }
    }

    /// A length and a distance.
    pub(super) fn of_match(&self, len: usize, distance: u32) -> u32 {
        let slot = slot_of(distance);
        let known = self.match_len[len - MIN_MATCH] + self.slots[slot_group(len)][slot as usize];
        match self.special.get(distance as usize) {
            Some(rest) => known + rest,
            None => known + ((slot >> 1) - 5) * BIT + self.align[(distance & 15) as usize],
        }
    }

    /// The length of repeated bytes.
    pub(super) fn of_repeat(&self, len: usize) -> u32 {
        self.repeat_len[len - MIN_MATCH]
    }
}

/// The prices of the kinds of steps after a past.
pub(super) struct KindPrices {
    pub(super) literal: u32,
    pub(super) distance: u32,
    pub(super) repeats: [u32; REPEATS],
    /// One byte at the last distance.
    pub(super) short: u32,
}

impl KindPrices {
    pub(super) fn of(model: &LzmaModel, past: &Past) -> Self {
        let state = past.state;
        let matched = price(model.is_match[state], 1);
        let repeat = matched + price(model.is_repeat[state], 1);
        let [first, second, third] = [0, 1, 2].map(|number| model.is_older[number][state]);
        let is_long = model.is_long[state];
        let older = repeat + price(first, 1);
        Self {
            literal: price(model.is_match[state], 0),
            distance: matched + price(model.is_repeat[state], 0),
            repeats: [
                repeat + price(first, 0) + price(is_long, 1),
                older + price(second, 0),
                older + price(second, 1) + price(third, 0),
                older + price(second, 1) + price(third, 1),
            ],
            short: repeat + price(first, 0) + price(is_long, 0),
        }
    }
}

/// The price of a byte as a literal after `before`.
pub(super) fn literal(model: &LzmaModel, before: &[u8], past: &Past, byte: u8) -> u32 {
    let (context, expected) = model.literal_context(before, past);
    let chances = &model.literals[context];
    let mut path = LiteralPath::new(expected);
    let (mut node, mut sum) = (1usize, 0);
    for shift in (0..8).rev() {
        let bit = u32::from(byte >> shift & 1);
        sum += price(chances[path.index(node)], bit);
        path.follow(bit);
        node = node << 1 | bit as usize;
    }
    sum
}

fn lengths(model: &LengthModel) -> [u32; LENGTHS] {
    let [beyond_low, beyond_middle] = model.beyond;
    let (low, middle, high): ([u32; 8], [u32; 8], [u32; 256]) =
        (tree(&model.low), tree(&model.middle), tree(&model.high));
    std::array::from_fn(|above| match above {
        0..8 => price(beyond_low, 0) + low[above],
        8..16 => price(beyond_low, 1) + price(beyond_middle, 0) + middle[above - 8],
        _ => price(beyond_low, 1) + price(beyond_middle, 1) + high[above - 16],
    })
}

/// The price of each symbol of a tree.
fn tree<const SYMBOLS: usize>(chances: &[u16; SYMBOLS]) -> [u32; SYMBOLS] {
    let mut nodes = [0; SYMBOLS];
    for node in 2..SYMBOLS {
        nodes[node] = nodes[node / 2] + price(chances[node / 2], node as u32 & 1);
    }
    std::array::from_fn(|symbol| {
        let parent = (symbol + SYMBOLS) / 2;
        nodes[parent] + price(chances[parent], symbol as u32 & 1)
    })
}

fn reverse(chances: &[u16], bits: u32, symbol: u32) -> u32 {
    let (mut node, mut sum) = (1, 0);
    for shift in 0..bits {
        let bit = symbol >> shift & 1;
        sum += price(chances[node], bit);
        node = node << 1 | bit as usize;
    }
    sum
}

/// The price of the bits below the slot of a small distance.
fn special(model: &LzmaModel, distance: u32) -> u32 {
    let slot = slot_of(distance);
    if slot < 4 {
        return 0;
    }
    let bits = (slot >> 1) - 1;
    let base = (2 | slot & 1) << bits;
    reverse(
        &model.special[(base - slot) as usize..],
        bits,
        distance - base,
    )
}
