//! Packing and unpacking whole files as a stream of framed blocks, over several threads and with
//! bounded memory.

mod access;
mod frames;
mod pack;
mod unpack;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

pub use access::Blocks;
pub use frames::FrameReader;
pub use pack::{pack, pack_observed};
pub use unpack::{unpack, unpack_keep_going};

use super::{Error, entropy::Codec, frame, transform::Transform};

/// How much is tried to make a block small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Effort {
    /// Little is tried; for streams that must keep up.
    Fast,
    /// Clear losers are found by a probe and left out.
    #[default]
    Balanced,
    /// Everything is tried in full.
    Max,
}

impl Effort {
    /// All efforts, from the quickest.
    pub const ALL: [Self; 3] = [Self::Fast, Self::Balanced, Self::Max];

    /// As written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Balanced => "balanced",
            Self::Max => "max",
        }
    }
}

/// The block size unless asked otherwise: large enough for columns to pay, small enough for a slot.
pub const DEFAULT_BLOCK_BYTES: usize = 4 << 20;

/// How to pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How much is tried.
    pub effort: Effort,
    /// The most raw bytes in a block; 4 KiB to 64 MiB.
    pub block_size: usize,
    /// Threads to work on blocks and columns; 0 means as many as there are cores.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            effort: Effort::default(),
            block_size: DEFAULT_BLOCK_BYTES,
            threads: 0,
        }
    }
}

/// What a packed file may ask for while it is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most raw bytes in a block.
    pub block_bytes: usize,
    /// The most raw bytes in all.
    pub total_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            block_bytes: frame::MAX_BLOCK_BYTES,
            total_bytes: u64::MAX,
        }
    }
}

/// Bytes that went through one transform and codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// Streams counted.
    pub streams: u64,
    /// Their bytes before the codec.
    pub raw_bytes: u64,
    /// Their bytes behind it.
    pub packed_bytes: u64,
}

/// What was done to one file.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Bytes of the raw file.
    pub raw_bytes: u64,
    /// Bytes of the packed file, all frames included.
    pub packed_bytes: u64,
    /// BLAKE3 of the raw file.
    pub hash: blake3::Hash,
    /// Blocks in the file.
    pub blocks: u32,
    /// Blocks that were damaged and left out ([`unpack_keep_going`] only), with the reason.
    pub damaged: Vec<String>,
    /// Time spent reading the input.
    pub read_time: Duration,
    /// Time spent packing or unpacking blocks, summed over threads.
    pub code_time: Duration,
    /// Time spent in the sink or writer.
    pub write_time: Duration,
    /// Time from first to last byte.
    pub wall_time: Duration,
    /// Where the bytes went, by transform and codec. While unpacking, whole blocks are counted.
    pub shares: BTreeMap<(Transform, Codec), Share>,
}

impl Summary {
    fn new() -> Self {
        Self {
            raw_bytes: 0,
            packed_bytes: 0,
            hash: blake3::Hash::from_bytes([0; 32]),
            blocks: 0,
            damaged: Vec::new(),
            read_time: Duration::ZERO,
            code_time: Duration::ZERO,
            write_time: Duration::ZERO,
            wall_time: Duration::ZERO,
            shares: BTreeMap::new(),
        }
    }

    fn count(&mut self, transform: Transform, codec: Codec, raw_bytes: u64, packed_bytes: u64) {
        let share = self.shares.entry((transform, codec)).or_default();
        share.streams += 1;
        share.raw_bytes += raw_bytes;
        share.packed_bytes += packed_bytes;
    }
}

/// 0 means as many as there are cores.
fn thread_count(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        some => some,
    }
}

fn stop_if(cancel: &AtomicBool) -> Result<(), Error> {
    if cancel.load(Ordering::Relaxed) {
        Err(Error::Cancelled)
    } else {
        Ok(())
    }
}
