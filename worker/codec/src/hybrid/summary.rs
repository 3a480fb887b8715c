//! The figures of one packed or unpacked file.

use std::{collections::BTreeMap, time::Duration};

use crate::{Codec, Transform, transform::plan::PlanUse};

/// Bytes that passed through one transform and codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CodecShare {
    /// The number of streams.
    pub streams: u64,
    /// Their bytes before the codec.
    pub raw_bytes: u64,
    /// Their bytes after the codec.
    pub packed_bytes: u64,
}

/// The figures of one file.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Bytes of the raw file.
    pub raw_bytes: u64,
    /// Bytes of the packed file, all frames included.
    pub packed_bytes: u64,
    /// BLAKE3 of the raw file.
    pub hash: blake3::Hash,
    /// The number of blocks.
    pub blocks: u32,
    /// The damaged blocks that were left out, each with offset and reason
    /// ([`unpack_keep_going`](super::unpack_keep_going) only).
    pub damaged: Vec<String>,
    /// Time spent reading the input.
    pub read_time: Duration,
    /// Time spent packing or unpacking blocks, summed over threads.
    pub code_time: Duration,
    /// Time spent in the sink or writer.
    pub write_time: Duration,
    /// Time from the first to the last byte.
    pub wall_time: Duration,
    /// How plans were used. Packing only.
    pub plan_use: PlanUse,
    /// Bytes by transform and codec. Unpacking counts whole blocks.
    pub shares: BTreeMap<(Transform, Codec), CodecShare>,
}

impl Summary {
    pub(super) fn new() -> Self {
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
            plan_use: PlanUse::default(),
            shares: BTreeMap::new(),
        }
    }

    pub(super) fn count(
        &mut self,
        transform: Transform,
        codec: Codec,
        raw_bytes: u64,
        packed_bytes: u64,
    ) {
        let share = self.shares.entry((transform, codec)).or_default();
        share.streams += 1;
        share.raw_bytes += raw_bytes;
        share.packed_bytes += packed_bytes;
    }
}
