//! From raw bytes to a bzip2 stream.

use super::{
    BLOCK_MAGIC, END_MAGIC,
    block_sort::sort_rotations,
    checksum::{checksum, combine},
    huffman::{self, Refinement, Tables, best_tables, recent_positions},
    symbols::{Symbols, shorten_runs, symbols},
};
use crate::{
    Codec, Effort,
    entropy::{Coded, Coder},
};

/// Bytes of a block per level. The original program leaves this many unused.
const LEVEL_BYTES: usize = 100_000;
const UNUSED_BYTES: usize = 19;

/// Refinement of an estimate.
const ESTIMATED: Refinement = Refinement {
    rounds: 3,
    spread: 0,
    counts_selectors: false,
};
/// Refinement of a stream: more numbers of tables for few symbols, where tables are a large share.
fn refinement(symbols: usize) -> Refinement {
    match symbols {
        0..4000 => Refinement {
            rounds: 6,
            spread: 2,
            counts_selectors: true,
        },
        4000..20_000 => Refinement {
            rounds: 5,
            spread: 1,
            counts_selectors: true,
        },
        _ => Refinement {
            rounds: 4,
            spread: 0,
            counts_selectors: true,
        },
    }
}

/// The level with which `raw_len` bytes are one block, where there is one: shortened runs of four take five bytes.
fn level_of(raw_len: usize) -> usize {
    let longest = raw_len + raw_len / 4 + UNUSED_BYTES;
    longest.div_ceil(LEVEL_BYTES).clamp(1, 9)
}

/// `raw` as a bzip2 stream, in one block where that is possible. `None` if sorting fails.
pub fn bz2(raw: &[u8]) -> Option<Coded> {
    let level = level_of(raw.len());
    let mut out = BitSink::new(raw.len() / 3 + 64);
    for byte in [b'B', b'Z', b'h', b'0' + level as u8] {
        out.put(u64::from(byte), 8);
    }
    let mut stream_checksum = 0;
    let mut rest = raw;
    let mut block = Vec::with_capacity(raw.len().min(level * LEVEL_BYTES) + 8);
    while !rest.is_empty() {
        block.clear();
        let taken = shorten_runs(rest, level * LEVEL_BYTES - UNUSED_BYTES, &mut block);
        let (head, tail) = rest.split_at(taken);
        let block_checksum = checksum(head);
        put_block(&block, block_checksum, &mut out)?;
        stream_checksum = combine(stream_checksum, block_checksum);
        rest = tail;
    }
    out.put(END_MAGIC, 48);
    out.put(stream_checksum.into(), 32);
    Some(Coded {
        coder: Coder::Bz2,
        codec: Codec::Bz2,
        params: 0,
        bytes: out.finish(),
    })
}

/// Bytes before the block of a stream: the header of the stream, magic number and checksum.
const BEFORE_BLOCK: usize = 4 + 6 + 4;
/// Bits after the last block: magic number and checksum.
const AFTER_BLOCK: usize = 48 + 32;

/// The only block of a stream, without what is around it; zero bits complete the last byte.
pub(in crate::entropy) fn without_stream(stream: &[u8]) -> Option<Vec<u8>> {
    let padding = (0..8).find(|&padding| ends_in_magic(stream, padding))?;
    let bits = (stream.len() * 8).checked_sub(padding + AFTER_BLOCK)?;
    let mut block = stream.get(BEFORE_BLOCK..bits.div_ceil(8))?.to_vec();
    if let (Some(last), used @ 1..) = (block.last_mut(), bits % 8) {
        *last &= 0xff << (8 - used);
    }
    Some(block)
}

/// Whether the magic number of the end is where `padding` bits after its checksum put it.
fn ends_in_magic(stream: &[u8], padding: usize) -> bool {
    // The checksum and the padding take five bytes, the magic number up to seven more.
    let Some(tail) = stream.last_chunk::<12>() else {
        return false;
    };
    let tail = tail
        .iter()
        .fold(0u128, |all, &byte| all << 8 | u128::from(byte));
    let magic = (tail >> (padding + 32)) as u64 & ((1 << 48) - 1);
    magic == END_MAGIC && tail & ((1 << padding) - 1) == 0
}

/// The size of [`bz2`] in bytes: at effort max exactly, with less effort estimated with fewer refinements of the tables.
pub(crate) fn bz2_bytes(raw: &[u8], effort: Effort) -> usize {
    const STREAM_BITS: u64 = 32 + 80;
    const BLOCK_BITS: u64 = 48 + 32 + 1 + 24 + 3 + 15;
    let level = level_of(raw.len());
    let mut bits = STREAM_BITS;
    let mut rest = raw;
    let mut block = Vec::with_capacity(raw.len().min(level * LEVEL_BYTES) + 8);
    while !rest.is_empty() {
        block.clear();
        let taken = shorten_runs(rest, level * LEVEL_BYTES - UNUSED_BYTES, &mut block);
        rest = &rest[taken..];
        let Some(sorted) = sort_rotations(&block) else {
            return raw.len();
        };
        let symbols = symbols(&sorted.last_bytes);
        bits += BLOCK_BITS + u64::from(used_bits(&symbols.used));
        let refinement = match effort {
            Effort::Fast | Effort::Balanced => ESTIMATED,
            Effort::Max => refinement(symbols.list.len()),
        };
        bits += best_tables(&symbols.list, symbols.alphabet, refinement).bits;
    }
    bits.div_ceil(8) as usize
}

fn put_block(block: &[u8], checksum: u32, out: &mut BitSink) -> Option<()> {
    let sorted = sort_rotations(block)?;
    let symbols = symbols(&sorted.last_bytes);
    let tables = best_tables(
        &symbols.list,
        symbols.alphabet,
        refinement(symbols.list.len()),
    );
    out.put(BLOCK_MAGIC, 48);
    out.put(checksum.into(), 32);
    // Not randomised.
    out.put(0, 1);
    out.put(sorted.origin.into(), 24);
    put_used(&symbols.used, out);
    put_tables(&tables, symbols.alphabet, out);
    put_symbols(&symbols, &tables, out);
    Some(())
}

/// The used byte values in two levels of sixteen bits.
fn put_used(used: &[bool; 256], out: &mut BitSink) {
    let bits = |flags: &mut dyn Iterator<Item = bool>| {
        flags.fold(0u64, |bits, flag| bits << 1 | u64::from(flag))
    };
    let (rows, _) = used.as_chunks::<16>();
    out.put(bits(&mut rows.iter().map(|row| row.contains(&true))), 16);
    for row in rows.iter().filter(|row| row.contains(&true)) {
        out.put(bits(&mut row.iter().copied()), 16);
    }
}

fn used_bits(used: &[bool; 256]) -> u32 {
    let (rows, _) = used.as_chunks::<16>();
    16 + 16 * rows.iter().filter(|row| row.contains(&true)).count() as u32
}

fn put_tables(tables: &Tables, alphabet: usize, out: &mut BitSink) {
    out.put(tables.lengths.len() as u64, 3);
    out.put(tables.selectors.len() as u64, 15);
    for position in recent_positions(&tables.selectors) {
        // As many ones as the position, then a zero.
        out.put((1 << (position + 1)) - 2, u32::from(position) + 1);
    }
    for lengths in &tables.lengths {
        let mut current = lengths[0];
        out.put(current.into(), 5);
        for &length in &lengths[..alphabet] {
            while current < length {
                out.put(0b10, 2);
                current += 1;
            }
            while current > length {
                out.put(0b11, 2);
                current -= 1;
            }
            out.put(0, 1);
        }
    }
}

fn put_symbols(symbols: &Symbols, tables: &Tables, out: &mut BitSink) {
    let codes: Vec<_> = tables
        .lengths
        .iter()
        .map(|lengths| huffman::codes(&lengths[..symbols.alphabet]))
        .collect();
    let groups = symbols.list.chunks(super::GROUP_LEN);
    for (group, &table) in groups.zip(&tables.selectors) {
        let (lengths, codes) = (
            &tables.lengths[usize::from(table)],
            &codes[usize::from(table)],
        );
        for &symbol in group {
            let symbol = usize::from(symbol);
            out.put(codes[symbol].into(), lengths[symbol].into());
        }
    }
}

/// Writes bit fields of at most 48 bits, most significant bit first.
struct BitSink {
    bytes: Vec<u8>,
    /// The lowest `held` bits are not in `bytes` yet; fewer than eight between calls.
    pending: u64,
    held: u32,
}

impl BitSink {
    fn new(capacity: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(capacity),
            pending: 0,
            held: 0,
        }
    }

    fn put(&mut self, value: u64, count: u32) {
        self.pending = self.pending << count | value;
        self.held += count;
        while self.held >= 8 {
            self.held -= 8;
            self.bytes.push((self.pending >> self.held) as u8);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if self.held > 0 {
            self.put(0, 8 - self.held);
        }
        self.bytes
    }
}
