//! One bzip2 stream: an encoder on a suffix array, a size estimate without encoding, and a decoder.
//!
//! The columns of a block are many small streams. The usual encoder spends most of its time on
//! set-up there and keeps its first choice of Huffman tables; this one has no set-up and compares
//! numbers of tables, so that it is faster and its streams are smaller. They are standard streams.

mod block_sort;
mod checksum;
mod decode;
mod encode;
mod huffman;
mod symbols;

pub(super) use decode::{decode, decode_block};
pub use encode::bz2;
pub(crate) use encode::bz2_bytes;
pub(super) use encode::without_stream;

/// The magic number of a block: the digits of pi.
const BLOCK_MAGIC: u64 = 0x3141_5926_5359;
/// The magic number of the end of a stream: the digits of the square root of pi.
const END_MAGIC: u64 = 0x1772_4538_5090;
/// The number of symbols that one selector covers.
const GROUP_LEN: usize = 50;
/// The largest number of Huffman tables in a block.
const MAX_TABLES: usize = 6;
/// The length of a run after which a count follows.
const RUN_LEN: usize = 4;
/// The largest count after a run.
const MAX_RUN_COUNT: usize = 255 - RUN_LEN;
