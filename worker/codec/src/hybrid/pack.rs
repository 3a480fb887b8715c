//! From a raw file to frames.

use std::{
    io::{self, Read},
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use super::{
    CodecOptions, Summary,
    boundary::BoundaryFinder,
    frame::{self, BlockHeader, EndFrame, block_hash},
    parallel, stop_if, thread_count,
};
use crate::{CodecError, StreamInfo, block};

/// One packed block.
#[derive(Debug, Clone)]
pub struct PackedBlock {
    /// Its header.
    pub header: BlockHeader,
    /// The bytes after the header.
    pub payload: Vec<u8>,
    /// The size of each stream in the payload.
    pub streams: Vec<StreamInfo>,
    /// The candidates that were coded, one line each.
    pub tried: Vec<String>,
}

/// Packs all of `reader`. `sink` receives whole frames in order, each at most a block and its header.
///
/// # Errors
/// If reading or writing fails, an option is out of range, or `cancel` is set, which is checked
/// between blocks.
pub fn pack(
    reader: impl Read,
    sink: impl FnMut(&[u8]) -> io::Result<()>,
    options: &CodecOptions,
    cancel: &AtomicBool,
) -> Result<Summary, CodecError> {
    pack_observed(reader, sink, options, cancel, |_| {})
}

/// As [`pack`]; `observe` receives every packed block, e.g. to explain it.
///
/// # Errors
/// As [`pack`].
pub fn pack_observed(
    reader: impl Read,
    mut sink: impl FnMut(&[u8]) -> io::Result<()>,
    options: &CodecOptions,
    cancel: &AtomicBool,
    mut observe: impl FnMut(&PackedBlock),
) -> Result<Summary, CodecError> {
    let started = Instant::now();
    check_options(options)?;
    let pool = parallel::pool(thread_count(options.threads))?;
    let mut source = BlockSource::new(reader, options.block_size);
    let mut summary = Summary::new();
    let mut index = Vec::new();
    let mut write = |bytes: &[u8], summary: &mut Summary| {
        let started = Instant::now();
        summary.packed_bytes += bytes.len() as u64;
        sink(bytes).map_err(CodecError::Write)?;
        summary.write_time += started.elapsed();
        Ok::<_, CodecError>(())
    };
    write(&frame::file_header(options.block_size as u32), &mut summary)?;
    parallel::in_order(
        &pool,
        || {
            stop_if(cancel)?;
            source.next_block()
        },
        |(number, raw): (u32, Vec<u8>)| {
            let started = Instant::now();
            (pack_block(number, &raw, options), started.elapsed())
        },
        |(packed, code_time)| {
            stop_if(cancel)?;
            observe(&packed);
            summary.code_time += code_time;
            for stream in &packed.streams {
                summary.count(
                    packed.header.coding.transform,
                    stream.codec,
                    stream.raw_bytes,
                    stream.packed_bytes,
                );
            }
            index.push((packed.header.raw_len, packed.header.packed_len));
            let mut bytes = packed.header.to_bytes().to_vec();
            bytes.extend(packed.payload);
            write(&bytes, &mut summary)
        },
    )?;
    summary.raw_bytes = source.raw_bytes;
    summary.hash = source.hasher.finalize();
    summary.read_time = source.read_time;
    summary.blocks = index.len() as u32;
    let end = EndFrame {
        raw_bytes: summary.raw_bytes,
        hash: *summary.hash.as_bytes(),
        index,
    };
    write(&end.to_bytes(), &mut summary)?;
    summary.wall_time = started.elapsed();
    Ok(summary)
}

fn pack_block(number: u32, raw: &[u8], options: &CodecOptions) -> PackedBlock {
    let encoded = block::encode(raw, options.effort);
    PackedBlock {
        header: BlockHeader {
            coding: encoded.coding,
            index: number,
            raw_len: raw.len() as u32,
            packed_len: encoded.payload.len() as u32,
            hash: block_hash(raw),
        },
        payload: encoded.payload,
        streams: encoded.streams,
        tried: encoded.tried,
    }
}

fn check_options(options: &CodecOptions) -> Result<(), CodecError> {
    let (min, max) = (frame::MIN_BLOCK_BYTES, frame::MAX_BLOCK_BYTES);
    if !(min..=max).contains(&options.block_size) {
        return Err(CodecError::Options(format!(
            "block size {} is outside {min} to {max} bytes (4Ki to 64Mi)",
            options.block_size
        )));
    }
    Ok(())
}

/// The raw file, split into blocks and hashed while it is read.
struct BlockSource<R> {
    reader: R,
    block_size: usize,
    /// Bytes that were read and belong to the next block.
    carry: Vec<u8>,
    boundaries: BoundaryFinder,
    hasher: blake3::Hasher,
    raw_bytes: u64,
    read_time: Duration,
    blocks: u32,
}

impl<R: Read> BlockSource<R> {
    fn new(reader: R, block_size: usize) -> Self {
        Self {
            reader,
            block_size,
            carry: Vec::new(),
            boundaries: BoundaryFinder::default(),
            hasher: blake3::Hasher::new(),
            raw_bytes: 0,
            read_time: Duration::ZERO,
            blocks: 0,
        }
    }

    fn next_block(&mut self) -> Result<Option<(u32, Vec<u8>)>, CodecError> {
        let started = Instant::now();
        let mut window = std::mem::take(&mut self.carry);
        // One byte more than a block shows whether another block follows.
        let wanted = (self.block_size + 1 - window.len()) as u64;
        (&mut self.reader)
            .take(wanted)
            .read_to_end(&mut window)
            .map_err(CodecError::Read)?;
        if window.len() > self.block_size {
            let end = self.boundaries.find(&window[..self.block_size]);
            self.carry = window.split_off(end);
        }
        if window.is_empty() {
            return Ok(None);
        }
        self.hasher.update(&window);
        self.raw_bytes += window.len() as u64;
        self.read_time += started.elapsed();
        let number = self.blocks;
        self.blocks = number.checked_add(1).ok_or_else(|| {
            CodecError::Options("more than 4 billion blocks: use a larger block size".into())
        })?;
        Ok(Some((number, window)))
    }
}
