//! From a bzip2 stream to raw bytes.

use super::{
    BLOCK_MAGIC, END_MAGIC, GROUP_LEN, MAX_TABLES, RUN_LEN,
    checksum::{checksum, combine},
    huffman::{Lengths, MAX_ALPHABET},
    symbols::{RUN_A, RUN_B},
};
use crate::Damage;

/// The longest code of any encoder.
const MAX_CODE_LEN: u32 = 20;
/// Codes of at most this many bits are decoded by one table access.
const DIRECT_BITS: u32 = 10;
/// The largest number of selectors of a block; further ones are ignored as by other decoders.
const MAX_SELECTORS: usize = 18_002;

/// Restores exactly `raw_len` bytes.
pub(in crate::entropy) fn decode(packed: &[u8], raw_len: usize) -> Result<Vec<u8>, Damage> {
    let mut bits = BitSource::new(packed);
    if bits.take(24)? != u64::from(u32::from_be_bytes([0, b'B', b'Z', b'h'])) {
        return Err(Damage::new("BZ2: not a bzip2 stream"));
    }
    let level = bits.take(8)?.wrapping_sub(u64::from(b'0'));
    if !(1..=9).contains(&level) {
        return Err(Damage::new("BZ2: a block size out of range"));
    }
    let mut decoder = BlockDecoder::new(level as usize * 100_000);
    let mut out = Vec::new();
    let mut stream_checksum = 0;
    loop {
        match bits.take(48)? {
            BLOCK_MAGIC => {
                let start = out.len();
                let expected = bits.take(32)? as u32;
                decoder.block(&mut bits, &mut out, raw_len)?;
                let found = checksum(&out[start..]);
                if found != expected {
                    return Err(Damage::new("BZ2: a block does not match its checksum"));
                }
                stream_checksum = combine(stream_checksum, found);
            }
            END_MAGIC => {
                if bits.take(32)? as u32 != stream_checksum {
                    return Err(Damage::new("BZ2: the stream does not match its checksum"));
                }
                break;
            }
            _ => return Err(Damage::new("BZ2: neither a block nor the end follows")),
        }
    }
    super::super::finished(true, false, out.len(), raw_len)?;
    super::super::exact(out, bits.bytes_read(), packed.len())
}

/// Restores exactly `raw_len` bytes from a block without the stream around it.
pub(in crate::entropy) fn decode_block(packed: &[u8], raw_len: usize) -> Result<Vec<u8>, Damage> {
    let mut bits = BitSource::new(packed);
    // Shortened runs of four make a block longer by a quarter at most.
    let mut decoder = BlockDecoder::new(raw_len + raw_len / 4 + 1);
    let mut out = Vec::new();
    decoder.block(&mut bits, &mut out, raw_len)?;
    super::super::finished(true, false, out.len(), raw_len)?;
    super::super::exact(out, bits.bytes_read(), packed.len())
}

/// The buffers of a decoder, reused from block to block.
struct BlockDecoder {
    max_block: usize,
    /// The bytes of the sorted block, then in the upper bits the links of the inverse transform.
    links: Vec<u32>,
}

impl BlockDecoder {
    fn new(max_block: usize) -> Self {
        Self {
            max_block,
            links: Vec::new(),
        }
    }

    fn block(
        &mut self,
        bits: &mut BitSource<'_>,
        out: &mut Vec<u8>,
        raw_len: usize,
    ) -> Result<(), Damage> {
        if bits.take(1)? == 1 {
            return Err(Damage::new("BZ2: a randomised block"));
        }
        let origin = bits.take(24)? as usize;
        let used = read_used(bits)?;
        let alphabet = used.len() + 2;
        let (selectors, tables) = read_tables(bits, alphabet)?;
        let counts = self.read_symbols(bits, &used, &selectors, &tables)?;
        if origin >= self.links.len() {
            return Err(Damage::new("BZ2: the origin is outside its block"));
        }
        self.invert(&counts);
        self.restore(origin, out, raw_len)
    }

    /// Decodes the symbols to the bytes of the sorted block and counts each byte.
    fn read_symbols(
        &mut self,
        bits: &mut BitSource<'_>,
        used: &[u8],
        selectors: &[u8],
        tables: &[DecodeTable],
    ) -> Result<[u32; 256], Damage> {
        let too_long = || Damage::new("BZ2: a block is longer than its size");
        let mut recent = [0u8; 256];
        recent[..used.len()].copy_from_slice(used);
        let mut counts = [0u32; 256];
        let end = used.len() as u16 + 1;
        let (mut run, mut digit) = (0usize, 1usize);
        self.links.clear();
        for &selector in selectors {
            let table = tables
                .get(usize::from(selector))
                .ok_or_else(|| Damage::new("BZ2: a table that does not exist"))?;
            for _ in 0..GROUP_LEN {
                let symbol = table.symbol(bits)?;
                if symbol <= RUN_B {
                    if digit > self.max_block {
                        return Err(too_long());
                    }
                    run += digit << u32::from(symbol == RUN_B);
                    digit <<= 1;
                    debug_assert!(symbol == RUN_A || symbol == RUN_B);
                    continue;
                }
                if run > 0 {
                    if self.links.len() + run > self.max_block {
                        return Err(too_long());
                    }
                    let byte = recent[0];
                    counts[usize::from(byte)] += run as u32;
                    self.links.resize(self.links.len() + run, u32::from(byte));
                    (run, digit) = (0, 1);
                }
                if symbol == end {
                    return Ok(counts);
                }
                if self.links.len() >= self.max_block {
                    return Err(too_long());
                }
                let position = usize::from(symbol) - 1;
                let byte = recent[position];
                move_to_front(&mut recent, position);
                counts[usize::from(byte)] += 1;
                self.links.push(u32::from(byte));
            }
        }
        Err(Damage::new("BZ2: a block without its end"))
    }

    /// Adds to each byte the position of its successor.
    fn invert(&mut self, counts: &[u32; 256]) {
        let mut next = [0u32; 256];
        let mut sum = 0;
        for (next, count) in next.iter_mut().zip(counts) {
            *next = sum;
            sum += count;
        }
        for position in 0..self.links.len() {
            let next = &mut next[(self.links[position] & 0xff) as usize];
            self.links[*next as usize] |= (position as u32) << 8;
            *next += 1;
        }
    }

    /// Follows the links from `origin` and expands the runs.
    fn restore(&self, origin: usize, out: &mut Vec<u8>, raw_len: usize) -> Result<(), Damage> {
        let mut link = self.links[origin] >> 8;
        let (mut run, mut before) = (0, 0u8);
        let mut left = self.links.len();
        out.reserve(left.min(raw_len.saturating_sub(out.len())));
        while left > 0 {
            let entry = self.links[link as usize];
            link = entry >> 8;
            let byte = entry as u8;
            left -= 1;
            if run == RUN_LEN {
                let count = usize::from(byte);
                if out.len() + count > raw_len {
                    return Err(too_many(raw_len));
                }
                out.resize(out.len() + count, before);
                run = 0;
                continue;
            }
            run = if byte == before { run + 1 } else { 1 };
            before = byte;
            if out.len() >= raw_len {
                return Err(too_many(raw_len));
            }
            out.push(byte);
        }
        Ok(())
    }
}

fn too_many(raw_len: usize) -> Damage {
    Damage::new(format!(
        "the stream restores more than the promised {raw_len} bytes"
    ))
}

fn move_to_front(recent: &mut [u8; 256], position: usize) {
    let byte = recent[position];
    if position < 16 {
        // A short move is faster one by one.
        for at in (1..=position).rev() {
            recent[at] = recent[at - 1];
        }
    } else {
        recent.copy_within(..position, 1);
    }
    recent[0] = byte;
}

fn read_used(bits: &mut BitSource<'_>) -> Result<Vec<u8>, Damage> {
    let rows = bits.take(16)?;
    let mut used = Vec::with_capacity(256);
    for row in 0..16u32 {
        if rows >> (15 - row) & 1 == 0 {
            continue;
        }
        let flags = bits.take(16)?;
        used.extend(
            (0..16)
                .filter(|column| flags >> (15 - column) & 1 == 1)
                .map(|column| (row * 16 + column) as u8),
        );
    }
    if used.is_empty() {
        return Err(Damage::new("BZ2: a block without bytes"));
    }
    Ok(used)
}

fn read_tables(
    bits: &mut BitSource<'_>,
    alphabet: usize,
) -> Result<(Vec<u8>, Vec<DecodeTable>), Damage> {
    let count = bits.take(3)? as usize;
    let selector_count = bits.take(15)? as usize;
    if !(2..=MAX_TABLES).contains(&count) || selector_count == 0 {
        return Err(Damage::new("BZ2: a number of tables out of range"));
    }
    let mut recent: [u8; MAX_TABLES] = std::array::from_fn(|table| table as u8);
    let mut selectors = Vec::with_capacity(selector_count.min(MAX_SELECTORS));
    for number in 0..selector_count {
        let mut position = 0;
        while bits.take(1)? == 1 {
            position += 1;
            if position >= count {
                return Err(Damage::new("BZ2: a table that does not exist"));
            }
        }
        let table = recent[position];
        recent.copy_within(..position, 1);
        recent[0] = table;
        if number < MAX_SELECTORS {
            selectors.push(table);
        }
    }
    let tables = (0..count)
        .map(|_| DecodeTable::read(bits, alphabet))
        .collect::<Result<_, _>>()?;
    Ok((selectors, tables))
}

/// A Huffman table for decoding.
struct DecodeTable {
    /// For every start of `DIRECT_BITS` bits: symbol and length, or 0 for longer codes.
    direct: Box<[u16; 1 << DIRECT_BITS]>,
    /// For each length the first code after those of this length, aligned to `MAX_CODE_LEN` bits.
    limits: [u32; MAX_CODE_LEN as usize + 1],
    /// For each length the number to add to a code for its index in `sorted`.
    offsets: [i32; MAX_CODE_LEN as usize + 1],
    /// The symbols in the order of their codes.
    sorted: Vec<u16>,
}

/// Bits of a length in an entry of the direct table.
const LENGTH_BITS: u32 = 5;

impl DecodeTable {
    fn read(bits: &mut BitSource<'_>, alphabet: usize) -> Result<Self, Damage> {
        let out_of_range = || Damage::new("BZ2: a code length out of range");
        let mut lengths: Lengths = [0; MAX_ALPHABET];
        let mut length = bits.take(5)? as u32;
        for entry in &mut lengths[..alphabet] {
            loop {
                if !(1..=MAX_CODE_LEN).contains(&length) {
                    return Err(out_of_range());
                }
                if bits.take(1)? == 0 {
                    break;
                }
                length = if bits.take(1)? == 0 {
                    length + 1
                } else {
                    length - 1
                };
            }
            *entry = length as u8;
        }
        Ok(Self::new(&lengths[..alphabet]))
    }

    fn new(lengths: &[u8]) -> Self {
        let mut sorted: Vec<u16> = Vec::with_capacity(lengths.len());
        let mut limits = [0u32; MAX_CODE_LEN as usize + 1];
        let mut offsets = [0i32; MAX_CODE_LEN as usize + 1];
        let mut direct = Box::new([0u16; 1 << DIRECT_BITS]);
        let mut code = 0u32;
        for length in 1..=MAX_CODE_LEN {
            offsets[length as usize] = sorted.len() as i32 - code as i32;
            for (symbol, _) in lengths
                .iter()
                .enumerate()
                .filter(|&(_, &other)| u32::from(other) == length)
            {
                sorted.push(symbol as u16);
                if length <= DIRECT_BITS {
                    let start = (code << (DIRECT_BITS - length)) as usize;
                    let end = start + (1usize << (DIRECT_BITS - length));
                    // An incomplete or overfull code, which no encoder writes, may run over the end.
                    let entry = (symbol as u16) << LENGTH_BITS | length as u16;
                    if let Some(entries) = direct.get_mut(start..end) {
                        entries.fill(entry);
                    }
                }
                code += 1;
            }
            limits[length as usize] = code << (MAX_CODE_LEN - length);
            code <<= 1;
        }
        Self {
            direct,
            limits,
            offsets,
            sorted,
        }
    }

    fn symbol(&self, bits: &mut BitSource<'_>) -> Result<u16, Damage> {
        let ahead = bits.peek(MAX_CODE_LEN);
        let entry = self.direct[(ahead >> (MAX_CODE_LEN - DIRECT_BITS)) as usize];
        if entry != 0 {
            bits.skip(u32::from(entry) & ((1 << LENGTH_BITS) - 1))?;
            return Ok(entry >> LENGTH_BITS);
        }
        self.long_symbol(ahead, bits)
    }

    #[cold]
    fn long_symbol(&self, ahead: u32, bits: &mut BitSource<'_>) -> Result<u16, Damage> {
        for length in DIRECT_BITS + 1..=MAX_CODE_LEN {
            if ahead < self.limits[length as usize] {
                bits.skip(length)?;
                let code = (ahead >> (MAX_CODE_LEN - length)) as i32;
                let index = usize::try_from(code + self.offsets[length as usize]).ok();
                return index
                    .and_then(|index| self.sorted.get(index).copied())
                    .ok_or_else(|| Damage::new("BZ2: a code that does not exist"));
            }
        }
        Err(Damage::new("BZ2: a code that does not exist"))
    }
}

/// Reads bit fields of at most 48 bits, most significant bit first.
struct BitSource<'a> {
    bytes: &'a [u8],
    /// The next byte to load.
    at: usize,
    /// The next `held` bits, at the top.
    buffer: u64,
    held: u32,
}

impl<'a> BitSource<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            buffer: 0,
            held: 0,
        }
    }

    /// Loads bytes until at least 56 bits are held, or all bytes are loaded.
    fn load(&mut self) {
        if let Some(eight) = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk) {
            // Bits that are loaded again have the same value.
            self.buffer |= u64::from_be_bytes(*eight) >> self.held;
            let loaded = (63 - self.held) / 8;
            self.at += loaded as usize;
            self.held += loaded * 8;
            return;
        }
        while self.held <= 56
            && let Some(&byte) = self.bytes.get(self.at)
        {
            self.buffer |= u64::from(byte) << (56 - self.held);
            self.at += 1;
            self.held += 8;
        }
    }

    /// The next `count` bits without taking them; zero bits follow the end.
    fn peek(&mut self, count: u32) -> u32 {
        if self.held < count {
            self.load();
        }
        (self.buffer >> (64 - count)) as u32
    }

    fn skip(&mut self, count: u32) -> Result<(), Damage> {
        if self.held < count {
            return Err(Damage::new("BZ2: the stream is truncated"));
        }
        self.buffer <<= count;
        self.held -= count;
        Ok(())
    }

    fn take(&mut self, count: u32) -> Result<u64, Damage> {
        if self.held < count {
            self.load();
        }
        let value = self.buffer >> (64 - count);
        self.skip(count)?;
        Ok(value)
    }

    /// The number of bytes of which at least one bit was taken.
    fn bytes_read(&self) -> usize {
        self.at - (self.held / 8) as usize
    }
}
