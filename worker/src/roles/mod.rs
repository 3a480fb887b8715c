//! The roles: what each does with files and messages.
//!
//! - [`generate`], [`scan`], [`announce`]: bring files into the pipeline. [`source`]: the source's side of a compressor.
//! - [`compress`], [`decompress`]: the two consumers' work, with [`record_writer`], [`records`] and [`receipts`]; small files share a block by [`bundler`] and [`bundle_cache`]; [`replies`] tell a `submit --wait`. [`redrive`]: sends dead letters again, with
//!   [`copies`] of what was announced.
//! - `probe`: whether a service that they need is down. [`connect`]: opens what they need. [`context`]: puts them together. [`run`]: all of them in one process.

pub mod announce;
pub(crate) mod bundle_cache;
pub mod bundler;
pub mod compress;
pub mod connect;
pub mod context;
pub(crate) mod copies;
pub mod decompress;
pub(crate) mod generate;
pub(crate) mod probe;
pub mod receipts;
pub(crate) mod record_faults;
pub(crate) mod record_writer;
pub(crate) mod records;
pub mod redrive;
pub(crate) mod replies;
pub(crate) mod run;
pub(crate) mod scan;
pub mod source;
