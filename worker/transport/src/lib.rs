//! The services that Streampress moves files through: queues, a stream of chunks, slot locks and files. Each trait's
//! documentation is its contract, which `contract_tests` checks over every implementation. Callers see no type of an
//! SDK, and nothing in here knows what a file's bytes mean.
//!
//! The contracts:
//! - `queue`: [`Queue`], a FIFO queue of messages with a dead-letter queue.
//! - `chunk_stream`: [`ChunkStream`], a stream of records with positions.
//! - [`slot_lock`]: [`SlotLock`], which lets so many workers of a role act at once.
//! - `files`: [`Files`], a folder or the like.
//!
//! The implementations, each behind a feature of its name:
//! - `local`: all four in a folder of this machine: SQLite and segment files.
//! - `aws`: SQS, Kinesis and S3, and the provisioning of queues and stream.
//! - `lease`: slots and leader election with Kubernetes Leases (feature `kubernetes`).
//! - [`in_process_lock`]: slots of one process.
//! - `sim`: all four in simulated time, for tests (feature `testing`).
//!
//! What they share, and other packages too: `file_version`, [`object_key`], `error`, `empty_queues`, `backoff`, `clock`,
//! `log_filter`.

#[cfg(feature = "aws")]
pub mod aws;
mod backoff;
mod chunk_stream;
mod clock;
#[cfg(any(test, feature = "testing"))]
pub mod contract_tests;
mod empty_queues;
mod error;
mod file_version;
mod files;
pub mod in_process_lock;
#[cfg(feature = "kubernetes")]
pub mod lease;
#[cfg(feature = "local")]
pub mod local;
mod log_filter;
pub mod object_key;
mod queue;
#[cfg(any(test, feature = "testing"))]
pub mod sim;
pub mod slot_lock;

pub use backoff::Backoff;
pub use chunk_stream::{
    ChunkStream, Position, Record, ScannedRecord, Sequence, StreamCounts, StreamScan,
};
pub use clock::Moment;
pub use empty_queues::{COUNTED_LATE, EmptyQueues};
pub use error::{TransportError, TransportResult, error_chain};
pub use file_version::FileVersion;
pub use files::{
    ExactFile, ExactOutcome, FileEntry, FileName, Files, LeftOut, Listing, PendingFile,
    RESERVED_FOLDER, ReadObserved, ReservedEntry, TEMPORARY_PREFIX, TOO_MANY_OPEN_FILES,
    has_too_many_open_files, in_place_of_reserved,
};
pub use log_filter::is_safe_to_log;
pub use queue::{
    ATTR_DETAIL, ATTR_GROUP, ATTR_REASON, ATTR_TRACEPARENT, ATTR_VERSION, Delivery, Depth, Failure,
    Outgoing, Queue, Receipt,
};
pub use slot_lock::{Deadline, Ledger, SharedLedger, SlotGuard, SlotLock, SlotLocks};
pub use streampress_crds::DeadLetterReason;
