//! A lossless packer for JSON, CSV and text files: it splits records into columns, codes each column
//! for its type, and compresses the result with LZMA or BZ2, whichever is smaller. Every block is
//! decoded and compared before it is written.
//!
//! ```
//! use std::sync::atomic::AtomicBool;
//! use streampress_codec::hybrid::{CodecOptions, Limits, pack, unpack};
//!
//! # fn main() -> Result<(), streampress_codec::CodecError> {
//! let raw = b"id,name\n1,one\n2,two\n".repeat(100);
//! let cancel = AtomicBool::new(false);
//! let mut packed = Vec::new();
//! let sink = |frame: &[u8]| {
//!     packed.extend_from_slice(frame);
//!     Ok(())
//! };
//! pack(&raw[..], sink, &CodecOptions::default(), &cancel)?;
//!
//! let mut restored = Vec::new();
//! unpack(&packed[..], &mut restored, &Limits::default(), 1, &cancel)?;
//! assert_eq!(restored, raw);
//! # Ok(())
//! # }
//! ```
//!
//! The package is synchronous, reads and writes through [`std::io`], and depends on no async
//! runtime, network or command line. `FORMAT.md` specifies the packed bytes.
//!
//! # Modules, lowest first
//! - `types`: [`Effort`], [`Transform`], [`Codec`], [`FormatVersion`], [`StreamInfo`].
//! - `error`: [`CodecError`] for callers, [`Damage`] for a payload that cannot be decoded.
//! - `bytes`, `bits` and `hash`: varints, bounded field reading, bit packing, hashing.
//! - `entropy`: one stream of bytes through LZMA, BZ2 or neither, and estimates of its size.
//! - `transform`: a block as a table of columns, each column in its smallest coding.
//! - `block`: the smallest representation of one block, and its decoder.
//! - [`hybrid`]: whole files as framed blocks, over several threads with bounded memory.
//! - [`legacy`]: the format of the Python original.

#![warn(unreachable_pub)]

mod bits;
mod block;
mod bytes;
mod entropy;
mod error;
mod hash;
pub mod hybrid;
pub mod legacy;
mod transform;
mod types;

pub use error::{CodecError, Damage};
pub use types::{Codec, Effort, FormatVersion, StreamInfo, Transform};

/// Entry points below the frames, for this package's fuzz targets and tests. No part of the API.
#[doc(hidden)]
pub mod internals {
    pub use crate::{
        block::encode as encode_block,
        bytes::put_varint,
        entropy::{bz2, decode as decode_stream},
        hybrid::frame::file_header,
        transform::{decode as decode_table, encode as encode_table, inspect as inspect_table},
    };
}
