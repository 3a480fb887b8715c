//! From a raw file to frames.

use std::{
    io::{self, Read},
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use super::{Options, Summary, stop_if, thread_count};
use crate::{
    Error,
    block::{self, Packed},
    cut::Cutter,
    frame::{self, EndFrame},
    parallel,
};

/// Packs all of `reader`. `sink` gets whole frames, in order, of at most a block and its header.
/// Cancelling ends it at the next block.
pub fn pack(
    reader: impl Read,
    sink: impl FnMut(&[u8]) -> io::Result<()>,
    options: &Options,
    cancel: &AtomicBool,
) -> Result<Summary, Error> {
    pack_observed(reader, sink, options, cancel, |_| {})
}

/// As [`pack`]; `observe` sees every packed block, e.g. to explain it.
pub fn pack_observed(
    reader: impl Read,
    mut sink: impl FnMut(&[u8]) -> io::Result<()>,
    options: &Options,
    cancel: &AtomicBool,
    mut observe: impl FnMut(&Packed),
) -> Result<Summary, Error> {
    let started = Instant::now();
    check_options(options)?;
    let pool = parallel::pool(thread_count(options.threads))?;
    let mut source = Source::new(reader, options.block_size);
    let mut summary = Summary::new();
    let mut index = Vec::new();
    let mut write = |bytes: &[u8], summary: &mut Summary| {
        let started = Instant::now();
        summary.packed_bytes += bytes.len() as u64;
        sink(bytes).map_err(Error::Write)?;
        summary.write_time += started.elapsed();
        Ok::<_, Error>(())
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
            (
                block::encode(number, &raw, options.effort),
                started.elapsed(),
            )
        },
        |(packed, code_time)| {
            stop_if(cancel)?;
            observe(&packed);
            summary.code_time += code_time;
            for stream in &packed.streams {
                summary.count(
                    packed.header.transform,
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

fn check_options(options: &Options) -> Result<(), Error> {
    let (least, most) = (frame::MIN_BLOCK_BYTES, frame::MAX_BLOCK_BYTES);
    if !(least..=most).contains(&options.block_size) {
        return Err(Error::Options(format!(
            "block size {} is outside {least} to {most} bytes (4Ki to 64Mi)",
            options.block_size
        )));
    }
    Ok(())
}

/// The raw file, cut into blocks and hashed as it is read.
struct Source<R> {
    reader: R,
    block_size: usize,
    /// What the last cut left over.
    carry: Vec<u8>,
    cutter: Cutter,
    hasher: blake3::Hasher,
    raw_bytes: u64,
    read_time: Duration,
    blocks: u32,
}

impl<R: Read> Source<R> {
    fn new(reader: R, block_size: usize) -> Self {
        Self {
            reader,
            block_size,
            carry: Vec::new(),
            cutter: Cutter::default(),
            hasher: blake3::Hasher::new(),
            raw_bytes: 0,
            read_time: Duration::ZERO,
            blocks: 0,
        }
    }

    fn next_block(&mut self) -> Result<Option<(u32, Vec<u8>)>, Error> {
        let started = Instant::now();
        let mut window = std::mem::take(&mut self.carry);
        // One byte more than a block tells whether there is a next one.
        let wanted = (self.block_size + 1 - window.len()) as u64;
        (&mut self.reader)
            .take(wanted)
            .read_to_end(&mut window)
            .map_err(Error::Read)?;
        if window.len() > self.block_size {
            let end = self.cutter.cut(&window[..self.block_size]);
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
            Error::Options("more than 4 billion blocks: use a larger block size".into())
        })?;
        Ok(Some((number, window)))
    }
}
