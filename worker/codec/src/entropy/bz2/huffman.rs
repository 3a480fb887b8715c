//! The Huffman tables of a bzip2 block: their code lengths, and which table codes which group.

use super::{GROUP_LEN, MAX_TABLES};

/// The largest alphabet: 256 byte values, two run digits, the end symbol, less one.
pub(super) const MAX_ALPHABET: usize = 258;
/// The longest code that is written. Decoders accept up to 20 bits.
const MAX_CODE_LEN: u8 = 17;

/// Code lengths by symbol.
pub(super) type Lengths = [u8; MAX_ALPHABET];

/// The tables of a block.
#[derive(Clone)]
pub(super) struct Tables {
    pub(super) lengths: Vec<Lengths>,
    /// The table of each group of symbols.
    pub(super) selectors: Vec<u8>,
    /// Size of the coded symbols, selectors and tables in bits.
    pub(super) bits: u64,
}

/// How long tables are refined.
#[derive(Clone, Copy)]
pub(super) struct Refinement {
    /// Rounds of assigning groups to tables.
    pub(super) rounds: usize,
    /// Further numbers of tables to try on each side of the usual number.
    pub(super) spread: usize,
    /// Whether the size of a selector counts where the table of a group is chosen.
    pub(super) counts_selectors: bool,
}

/// The smallest tables found for `symbols`.
pub(super) fn best_tables(symbols: &[u16], alphabet: usize, refinement: Refinement) -> Tables {
    let usual = usual_tables(symbols.len());
    let from = usual.saturating_sub(refinement.spread).max(2);
    let to = (usual + refinement.spread).min(MAX_TABLES);
    let mut best = tables(symbols, alphabet, usual, refinement);
    for count in (from..=to).filter(|&count| count != usual) {
        let other = tables(symbols, alphabet, count, refinement);
        if other.bits < best.bits {
            best = other;
        }
    }
    best
}

/// The number of tables that the original program takes for this many symbols.
fn usual_tables(symbols: usize) -> usize {
    match symbols {
        0..200 => 2,
        200..600 => 3,
        600..1200 => 4,
        1200..2400 => 5,
        _ => 6,
    }
}

fn tables(symbols: &[u16], alphabet: usize, count: usize, refinement: Refinement) -> Tables {
    let selector_bits = u64::from(refinement.counts_selectors);
    let mut lengths = first_lengths(symbols, alphabet, count);
    let mut selectors = Vec::new();
    for _ in 0..refinement.rounds {
        let prices = packed_prices(&lengths, alphabet);
        let mut recent = recent_tables();
        selectors = symbols
            .chunks(GROUP_LEN)
            .map(|group| cheapest(group, &prices, &mut recent[..count], selector_bits))
            .collect();
        let mut counts = vec![[0u32; MAX_ALPHABET]; count];
        for (group, &table) in symbols.chunks(GROUP_LEN).zip(&selectors) {
            let counts = &mut counts[usize::from(table)];
            for &symbol in group {
                counts[usize::from(symbol)] += 1;
            }
        }
        for (lengths, counts) in lengths.iter_mut().zip(&counts) {
            *lengths = code_lengths(&counts[..alphabet]);
        }
    }
    let bits = total_bits(symbols, alphabet, &lengths, &selectors);
    Tables {
        lengths,
        selectors,
        bits,
    }
}

/// Tables that each favour a range of symbols with an equal share of the frequency.
fn first_lengths(symbols: &[u16], alphabet: usize, count: usize) -> Vec<Lengths> {
    const LIKELY: u8 = 0;
    const UNLIKELY: u8 = 15;
    let mut counts = [0usize; MAX_ALPHABET];
    for &symbol in symbols {
        counts[usize::from(symbol)] += 1;
    }
    let mut left = symbols.len();
    let mut start = 0;
    (0..count)
        .map(|table| {
            let wanted = left / (count - table);
            let (mut end, mut sum) = (start, 0);
            while end < alphabet && (sum < wanted || end == start) {
                sum += counts[end];
                end += 1;
            }
            if end > start + 1 && table != 0 && table != count - 1 && table % 2 == 1 {
                end -= 1;
                sum -= counts[end];
            }
            let mut lengths = [UNLIKELY; MAX_ALPHABET];
            lengths[start.min(alphabet)..end].fill(LIKELY);
            start = end;
            left -= sum;
            lengths
        })
        .collect()
}

/// Bits of one price in a packed sum: 50 codes of at most 17 bits are below 2^10.
const PRICE_BITS: usize = 10;

/// For each symbol its code lengths in all tables, packed into one number.
fn packed_prices(lengths: &[Lengths], alphabet: usize) -> [u64; MAX_ALPHABET] {
    let mut prices = [0; MAX_ALPHABET];
    for (symbol, price) in prices[..alphabet].iter_mut().enumerate() {
        for (table, lengths) in lengths.iter().enumerate() {
            *price |= u64::from(lengths[symbol]) << (PRICE_BITS * table);
        }
    }
    prices
}

/// The table that codes a group in the fewest bits, with so many bits for each place of its selector. It becomes the first one of
/// `recent`.
fn cheapest(
    group: &[u16],
    prices: &[u64; MAX_ALPHABET],
    recent: &mut [u8],
    selector_bits: u64,
) -> u8 {
    let sums: u64 = group
        .iter()
        .map(|&symbol| prices[usize::from(symbol)])
        .sum();
    let bits = |&(position, &table): &(usize, &u8)| {
        let coded = sums >> (PRICE_BITS * usize::from(table)) & ((1 << PRICE_BITS) - 1);
        (coded + position as u64 * selector_bits, table)
    };
    let best = recent.iter().enumerate().min_by_key(bits);
    take_first(recent, best.map_or(0, |(position, _)| position))
}

/// The code lengths of an optimal prefix code. Symbols that do not occur get long codes.
fn code_lengths(counts: &[u32]) -> Lengths {
    let mut scaled: Vec<u32> = counts.iter().map(|&count| count.max(1)).collect();
    loop {
        let lengths = unlimited_lengths(&scaled);
        if lengths.iter().all(|&length| length <= MAX_CODE_LEN) {
            return lengths;
        }
        // Flatter frequencies give shorter codes.
        for count in &mut scaled {
            *count = *count / 2 + 1;
        }
    }
}

/// Huffman's algorithm on sorted counts: both the leaves and the new nodes come in order.
fn unlimited_lengths(counts: &[u32]) -> Lengths {
    let leaves = counts.len();
    let mut order: Vec<u64> = counts
        .iter()
        .enumerate()
        .map(|(symbol, &count)| u64::from(count) << 16 | symbol as u64)
        .collect();
    order.sort_unstable();
    let mut weights = [0u32; 2 * MAX_ALPHABET];
    let mut parents = [0u16; 2 * MAX_ALPHABET];
    for (node, entry) in order.iter().enumerate() {
        weights[node] = (entry >> 16) as u32;
    }
    let nodes = 2 * leaves - 1;
    let (mut leaf, mut inner) = (0, leaves);
    for node in leaves..nodes {
        let mut weight = 0;
        for _ in 0..2 {
            let take_leaf = leaf < leaves && (inner == node || weights[leaf] <= weights[inner]);
            let child = if take_leaf { &mut leaf } else { &mut inner };
            weight += weights[*child];
            parents[*child] = node as u16;
            *child += 1;
        }
        weights[node] = weight;
    }
    let mut depths = [0u8; 2 * MAX_ALPHABET];
    let mut lengths = [0; MAX_ALPHABET];
    for node in (0..nodes - 1).rev() {
        depths[node] = depths[usize::from(parents[node])].saturating_add(1);
        if node < leaves {
            lengths[(order[node] & 0xffff) as usize] = depths[node];
        }
    }
    lengths
}

fn total_bits(symbols: &[u16], alphabet: usize, lengths: &[Lengths], selectors: &[u8]) -> u64 {
    let coded: u64 = symbols
        .chunks(GROUP_LEN)
        .zip(selectors)
        .map(|(group, &table)| {
            let lengths = &lengths[usize::from(table)];
            group
                .iter()
                .map(|&symbol| u64::from(lengths[usize::from(symbol)]))
                .sum::<u64>()
        })
        .sum();
    let tables: u64 = lengths
        .iter()
        .map(|lengths| table_bits(&lengths[..alphabet]))
        .sum();
    let selected: u64 = recent_positions(selectors)
        .map(|position| u64::from(position) + 1)
        .sum();
    coded + tables + selected
}

/// The size of a table in bits: five for the first length, and two for each step, one to end.
fn table_bits(lengths: &[u8]) -> u64 {
    let steps: u64 = lengths
        .windows(2)
        .map(|pair| u64::from(pair[0].abs_diff(pair[1])))
        .sum();
    5 + 2 * steps + lengths.len() as u64
}

/// The tables, as they stand before any is taken; then the last one that was taken is the first. A selector is a place in this
/// list.
fn recent_tables() -> [u8; MAX_TABLES] {
    std::array::from_fn(|table| table as u8)
}

/// The table at a place of a list of recent ones, which becomes the first.
fn take_first(recent: &mut [u8], position: usize) -> u8 {
    recent[..=position].rotate_right(1);
    recent[0]
}

/// The selectors as positions in a list of recent tables.
pub(super) fn recent_positions(selectors: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let mut recent = recent_tables();
    selectors.iter().map(move |&table| {
        let position = recent.iter().position(|&other| other == table);
        let position = position.unwrap_or_default();
        take_first(&mut recent, position);
        position as u8
    })
}

/// The canonical codes of a table.
pub(super) fn codes(lengths: &[u8]) -> [u32; MAX_ALPHABET] {
    let mut codes = [0; MAX_ALPHABET];
    let mut next = 0;
    for length in 1..=MAX_CODE_LEN {
        for (symbol, _) in lengths
            .iter()
            .enumerate()
            .filter(|&(_, &other)| other == length)
        {
            codes[symbol] = next;
            next += 1;
        }
        next <<= 1;
    }
    codes
}
