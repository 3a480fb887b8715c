//! The roles: what each does with files and messages.
//!
//! - [`generate`], [`scan`], [`announce`]: bring files into the pipeline. [`source`]: renames or deletes source files.
//!   [`source_links`]: which links are left out then.
//! - [`compress`], [`decompress`]: the work of the two consumers. [`record_writer`]: cuts packed bytes into records.
//!   [`packed_source`]: a packed file before it has a manifest. [`records`]: fetches and checks records. [`record_faults`]: which of their faults are tried again.
//! - [`bundler`]: packs several small files into one block. [`bundle_cache`]: keeps it unpacked for its files.
//! - [`receipts`]: what became of each file. [`replies`]: the same for `submit --wait`.
//! - [`unconfirmed`]: announces again what is lost. [`redrive`]: sends dead letters again. [`recover`]: makes lost manifests anew
//!   from the stream. [`copies`]: finds announced content at the source.
//!   [`earlier_state`]: whether a data folder's database was put back.
//! - [`probe`]: whether a service that they need is down. [`outage_report`]: where the generator says so. [`connect`]: opens what they need. [`context`]: puts them together.
//!   [`restored`]: whether restored files still are what they were made as. [`run`]: all of them in one process.

pub mod announce;
pub(crate) mod bundle_cache;
pub mod bundler;
pub mod compress;
pub mod connect;
pub mod context;
pub(crate) mod copies;
pub mod decompress;
pub(crate) mod earlier_state;
pub(crate) mod generate;
pub(crate) mod outage_report;
pub(crate) mod packed_source;
pub(crate) mod probe;
pub mod receipts;
pub(crate) mod record_faults;
pub(crate) mod record_writer;
pub(crate) mod records;
pub mod recover;
pub mod redrive;
pub(crate) mod replies;
pub(crate) mod restored;
pub(crate) mod run;
pub(crate) mod scan;
pub mod source;
pub(crate) mod source_links;
pub(crate) mod unconfirmed;
