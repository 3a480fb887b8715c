//! Compressor and decompressor in the Python original's format, so that an original may stand on either side.
//!
//! The format normalises files and carries no hash; "restored" means equal to the normalised form. That is checked by
//! decoding before the announcement, and on the embedded transport once more after restoring. The original's faults
//! end at this door: names cannot leave their folder, a finished file is never truncated, broken messages become dead
//! letters, nothing is lost where the joined text is short.

pub mod compressor;
pub mod decompressor;
pub mod messages;

use serde::{Deserialize, Serialize};

use crate::message::{Digest, FileRef, StageNumbers};

/// The format is made in memory, as the original does; a larger file would take several times this.
const LARGEST_FILE_BYTES: u64 = 256 << 20;
/// Records fetched at once; they are of up to 1 MiB.
const FETCHED_AT_ONCE: usize = 32;
/// Where the original looks for files, and what its chunk messages put before a name.
pub const READ_LOCATION: &str = "test_location";

/// What the journal keeps of a packed file, since the original's message cannot.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Expected {
    file: FileRef,
    normalised: Digest,
    packed_bytes: u64,
    records: u64,
    stages: Vec<StageNumbers>,
    compressed_millis: u64,
}

pub(crate) fn expected_key(id: &str) -> String {
    format!("seed/{id}")
}
