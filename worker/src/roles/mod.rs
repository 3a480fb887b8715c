//! The roles: what each does with files and messages.
//!
//! - [`generate`], [`scan`], [`announce`]: bring files into the pipeline. [`source`]: the source's side of a compressor.
//! - [`compress`], [`decompress`]: the two consumers' work. [`redrive`]: sends dead letters again.
//! - `probe`: whether a service that they need is down. [`connect`]: opens what they need. [`context`]: puts them together. [`run`]: all of them in one process.

pub mod announce;
pub mod compress;
pub mod connect;
pub mod context;
pub mod decompress;
pub(crate) mod generate;
pub(crate) mod probe;
pub mod redrive;
pub(crate) mod run;
pub(crate) mod scan;
pub mod source;
