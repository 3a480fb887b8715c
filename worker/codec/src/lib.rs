//! The codec: bytes in, fewer bytes out, and the same bytes back. Pure and sync; knows no queue, no
//! stream and no async runtime.
//!
//! - [`hybrid`] packs and unpacks whole files as a stream of framed blocks (`FORMAT.md`).
//! - [`legacy`] speaks the Python original's format.
//! - [`block`] picks the smallest lossless way for one block, from [`transform`] (columns) and [`entropy`]
//!   (LZMA, BZ2, stored); [`frame`] is the byte layout; [`cut`] keeps rows whole; [`parallel`] keeps order
//!   and memory bounded over several threads.

pub mod bits;
pub mod block;
pub mod bytes;
pub mod cut;
pub mod entropy;
pub mod error;
pub mod frame;
pub mod hybrid;
pub mod legacy;
pub mod parallel;
pub mod transform;

pub use error::{Damage, Error};
