//! Whole files as framed blocks (`FORMAT.md`), over several threads and with bounded memory.

mod boundary;
mod compact_frame;
pub mod frame;
mod frame_reader;
mod header;
mod inspect;
mod pack;
mod parallel;
mod plan;
mod random_access;
mod summary;
mod unpack;

use std::sync::atomic::{AtomicBool, Ordering};

pub use frame_reader::{BlockFrame, DamagedFrame, FrameReader};
pub use inspect::{InspectedBlock, Inspection, inspect};
pub use pack::{PackedBlock, Packer, pack, pack_observed};
pub use plan::{Plan, PlanStore, SchemaSummary};
pub use random_access::Blocks;
pub use summary::{CodecShare, Summary};
pub use unpack::{unpack, unpack_keep_going};

use crate::CodecError;
pub use crate::{Effort, transform::plan::PlanUse};

/// The default block size: large enough for columns to pay, small enough for one worker slot.
pub const DEFAULT_BLOCK_BYTES: usize = 4 << 20;

/// How to pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodecOptions {
    /// How much is tried.
    pub effort: Effort,
    /// The largest number of raw bytes in a block, from 4 KiB to 64 MiB.
    pub block_size: usize,
    /// The number of threads for blocks and columns; 0 means one for each core. Packers of one process that name the same number
    /// share that many threads: those that work side by side name as many as all of them may take.
    pub threads: usize,
}

impl Default for CodecOptions {
    fn default() -> Self {
        Self {
            effort: Effort::default(),
            block_size: DEFAULT_BLOCK_BYTES,
            threads: 0,
        }
    }
}

/// Limits on what a packed file may restore to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest number of raw bytes in a block.
    pub block_bytes: usize,
    /// The largest number of raw bytes in the file.
    pub total_bytes: u64,
    /// The largest number of raw bytes in the blocks that are unpacked at once; a single block may have more. Unpacking a
    /// block takes at most 8 times its size.
    pub in_flight_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            block_bytes: frame::MAX_BLOCK_BYTES,
            total_bytes: u64::MAX,
            in_flight_bytes: usize::MAX,
        }
    }
}

/// Resolves 0 to the number of cores.
fn thread_count(threads: usize) -> usize {
    match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

fn stop_if(cancel: &AtomicBool) -> Result<(), CodecError> {
    if cancel.load(Ordering::Relaxed) {
        Err(CodecError::Cancelled)
    } else {
        Ok(())
    }
}
