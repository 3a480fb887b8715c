//! The probabilities of LZMA, and what each step of its coding does with them: the same for an encoder and a decoder.

use super::super::literals::SCALE_BITS;

/// The number of states: which kinds of steps were the last ones.
const STATES: usize = 12;
/// After a literal the state is smaller.
const FIRST_MATCH_STATE: usize = 7;
/// An even chance.
const HALF: u16 = 1 << (SCALE_BITS - 1);
/// The shortest match.
pub(super) const MIN_MATCH: usize = 2;
/// The longest match.
pub(super) const MAX_MATCH: usize = 273;
/// Distances of at least this slot have bits with even chances.
const FIRST_DIRECT_SLOT: u32 = 14;
/// Distances below have all their bits in a tree.
pub(super) const TREE_DISTANCES: usize = 128;
/// The lowest bits of other distances have a tree.
const ALIGN_BITS: u32 = 4;
/// The number of repeated distances.
pub(super) const REPEATS: usize = 4;

/// A coder of bits.
pub(super) trait BitCoder {
    /// Writes `bit`, or reads one and ignores `bit`.
    fn bit(&mut self, chance: &mut u16, bit: u32) -> u32;
    /// As [`Self::bit`] for a bit of even chances.
    fn even_bit(&mut self, bit: u32) -> u32;
}

/// One step of LZMA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct LzmaStep {
    /// The number of bytes.
    pub(super) len: usize,
    pub(super) from: StepSource,
}

/// Where the bytes of a step come from. Distances count from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum StepSource {
    /// The step is one byte.
    #[default]
    Literal,
    /// The bytes at this one of the last distances.
    Repeat(usize),
    /// The bytes at a distance.
    Distance(u32),
}

/// The state, and the last distances.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Past {
    pub(super) state: usize,
    pub(super) distances: [u32; REPEATS],
}

impl Past {
    /// Whether the step before was a literal.
    pub(super) fn is_after_literal(&self) -> bool {
        self.state < FIRST_MATCH_STATE
    }

    /// The past after a step.
    pub(super) fn after(mut self, step: LzmaStep) -> Self {
        let early = self.is_after_literal();
        self.state = match step {
            LzmaStep {
                from: StepSource::Literal,
                ..
            } => match self.state {
                0..4 => 0,
                4..10 => self.state - 3,
                _ => self.state - 6,
            },
            LzmaStep {
                from: StepSource::Distance(_),
                ..
            } => [10, 7][usize::from(early)],
            LzmaStep { len: 1, .. } => [11, 9][usize::from(early)],
            LzmaStep { .. } => [11, 8][usize::from(early)],
        };
        match step.from {
            StepSource::Literal => {}
            StepSource::Repeat(number) => self.distances[..=number].rotate_right(1),
            StepSource::Distance(distance) => {
                self.distances.rotate_right(1);
                self.distances[0] = distance;
            }
        }
        self
    }
}

/// The chances of lengths.
#[derive(Debug, Clone)]
pub(super) struct LengthModel {
    pub(super) beyond: [u16; 2],
    pub(super) low: [u16; 8],
    pub(super) middle: [u16; 8],
    pub(super) high: [u16; 256],
}

impl Default for LengthModel {
    fn default() -> Self {
        Self {
            beyond: [HALF; 2],
            low: [HALF; 8],
            middle: [HALF; 8],
            high: [HALF; 256],
        }
    }
}

impl LengthModel {
    /// Codes a length.
    fn code(&mut self, coder: &mut impl BitCoder, len: usize) -> usize {
        let above = len.saturating_sub(MIN_MATCH) as u32;
        let [beyond_low, beyond_middle] = &mut self.beyond;
        let above = if coder.bit(beyond_low, u32::from(above >= 8)) == 0 {
            tree(coder, &mut self.low, 3, above)
        } else if coder.bit(beyond_middle, u32::from(above >= 16)) == 0 {
            8 + tree(coder, &mut self.middle, 3, above.wrapping_sub(8))
        } else {
            16 + tree(coder, &mut self.high, 8, above.wrapping_sub(16))
        };
        MIN_MATCH + above as usize
    }
}

/// All that LZMA learns, with parameters `lp` and `pb` of 0.
#[derive(Debug, Clone)]
pub(super) struct LzmaModel {
    pub(super) past: Past,
    pub(super) lc: u8,
    pub(super) is_match: [u16; STATES],
    pub(super) is_repeat: [u16; STATES],
    /// Whether it is not the last distance; not the one before; not the third.
    pub(super) is_older: [[u16; STATES]; 3],
    pub(super) is_long: [u16; STATES],
    pub(super) slots: [[u16; 64]; 4],
    pub(super) special: [u16; 1 + TREE_DISTANCES - FIRST_DIRECT_SLOT as usize],
    pub(super) align: [u16; 1 << ALIGN_BITS],
    pub(super) match_len: LengthModel,
    pub(super) repeat_len: LengthModel,
    pub(super) literals: Vec<[u16; 0x300]>,
}

impl LzmaModel {
    /// A model that has seen nothing.
    pub(super) fn new(lc: u8) -> Self {
        Self {
            past: Past::default(),
            lc,
            is_match: [HALF; STATES],
            is_repeat: [HALF; STATES],
            is_older: [[HALF; STATES]; 3],
            is_long: [HALF; STATES],
            slots: [[HALF; 64]; 4],
            special: [HALF; 1 + TREE_DISTANCES - FIRST_DIRECT_SLOT as usize],
            align: [HALF; 1 << ALIGN_BITS],
            match_len: LengthModel::default(),
            repeat_len: LengthModel::default(),
            literals: vec![[HALF; 0x300]; 1 << lc],
        }
    }

    /// Codes the step after `before`, and its byte if it is a literal.
    pub(super) fn code(
        &mut self,
        coder: &mut impl BitCoder,
        before: &[u8],
        (step, byte): (LzmaStep, u8),
    ) -> (LzmaStep, u8) {
        let (state, from) = (self.past.state, step.from);
        let is = u32::from;
        let mut coded = (LzmaStep { len: 1, ..step }, byte);
        if coder.bit(&mut self.is_match[state], is(from != StepSource::Literal)) == 0 {
            coded.0.from = StepSource::Literal;
            coded.1 = self.code_literal(coder, before, byte);
        } else if coder.bit(
            &mut self.is_repeat[state],
            is(matches!(from, StepSource::Repeat(_))),
        ) == 0
        {
            coded.0.len = self.match_len.code(coder, step.len);
            let distance = match from {
                StepSource::Distance(distance) => distance,
                _ => 0,
            };
            coded.0.from = StepSource::Distance(self.code_distance(coder, coded.0.len, distance));
        } else {
            let wanted = match from {
                StepSource::Repeat(number) => number,
                _ => 0,
            };
            let mut number = 0;
            while number < REPEATS - 1
                && coder.bit(&mut self.is_older[number][state], is(wanted > number)) == 1
            {
                number += 1;
            }
            coded.0.from = StepSource::Repeat(number);
            if number > 0 || coder.bit(&mut self.is_long[state], is(step.len > 1)) == 1 {
                coded.0.len = self.repeat_len.code(coder, step.len);
            }
        }
        self.past = self.past.after(coded.0);
        coded
    }

    /// The tree of the literal after `before`, and the byte that the last distance expects if a match ended there.
    pub(super) fn literal_context(&self, before: &[u8], past: &Past) -> (usize, Option<u8>) {
        let last = before.last().copied().unwrap_or(0);
        let expected = (!past.is_after_literal())
            .then(|| before.len().checked_sub(1 + past.distances[0] as usize))
            .flatten();
        (
            usize::from(u16::from(last) >> (8 - self.lc)),
            expected.map(|at| before[at]),
        )
    }

    fn code_literal(&mut self, coder: &mut impl BitCoder, before: &[u8], byte: u8) -> u8 {
        let (context, expected) = self.literal_context(before, &self.past);
        let chances = &mut self.literals[context];
        let mut node = 1usize;
        let mut path = LiteralPath::new(expected);
        for shift in (0..8).rev() {
            let bit = coder.bit(&mut chances[path.index(node)], u32::from(byte >> shift & 1));
            path.follow(bit);
            node = node << 1 | bit as usize;
        }
        node as u8
    }

    fn code_distance(&mut self, coder: &mut impl BitCoder, len: usize, distance: u32) -> u32 {
        let slots = &mut self.slots[slot_group(len)];
        let slot = tree(coder, slots, 6, slot_of(distance));
        if slot < 4 {
            return slot;
        }
        let bits = (slot >> 1) - 1;
        let base = (2 | slot & 1) << bits;
        let rest = distance.wrapping_sub(base);
        if slot < FIRST_DIRECT_SLOT {
            let start = (base - slot) as usize;
            return base + reverse_tree(coder, &mut self.special[start..], bits, rest);
        }
        let mut high = 0u32;
        for shift in (ALIGN_BITS..bits).rev() {
            high = high << 1 | coder.even_bit(rest >> shift & 1);
        }
        let low = reverse_tree(coder, &mut self.align, ALIGN_BITS, rest);
        base.wrapping_add(high << ALIGN_BITS).wrapping_add(low)
    }
}

/// The way through the tree of a literal. While its bits are those of the expected byte, it has trees of its own.
pub(super) struct LiteralPath {
    expected: usize,
    offset: usize,
}

impl LiteralPath {
    pub(super) fn new(expected: Option<u8>) -> Self {
        Self {
            expected: usize::from(expected.unwrap_or(0)) << 1,
            offset: [0, 0x100][usize::from(expected.is_some())],
        }
    }

    /// The place of the chance of the next bit.
    pub(super) fn index(&self, node: usize) -> usize {
        self.offset + (self.expected & self.offset) + node
    }

    /// Goes on after a bit.
    pub(super) fn follow(&mut self, bit: u32) {
        let expected = self.expected & self.offset;
        self.offset &= match bit {
            0 => !expected,
            _ => expected,
        };
        self.expected <<= 1;
    }
}

/// The group of slots for matches of a length.
pub(super) fn slot_group(len: usize) -> usize {
    (len - MIN_MATCH).min(3)
}

/// The slot of a distance.
pub(super) fn slot_of(distance: u32) -> u32 {
    match distance {
        0..4 => distance,
        _ => {
            let high = distance.ilog2();
            2 * high + (distance >> (high - 1) & 1)
        }
    }
}

fn tree(coder: &mut impl BitCoder, chances: &mut [u16], bits: u32, symbol: u32) -> u32 {
    let mut node = 1;
    for shift in (0..bits).rev() {
        node = node << 1 | coder.bit(&mut chances[node as usize], symbol >> shift & 1);
    }
    node - (1 << bits)
}

fn reverse_tree(coder: &mut impl BitCoder, chances: &mut [u16], bits: u32, symbol: u32) -> u32 {
    let (mut node, mut read) = (1, 0);
    for shift in 0..bits {
        let bit = coder.bit(&mut chances[node], symbol >> shift & 1);
        node = node << 1 | bit as usize;
        read |= bit << shift;
    }
    read
}
