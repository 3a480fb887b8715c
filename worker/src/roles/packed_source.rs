//! A packed file, before it has a manifest.

use crate::message::{BundlePlace, Records, Share, StageNumbers};
use streampress_codec::hybrid;

/// A packed file, as its manifest describes it.
#[derive(Debug, Clone)]
pub(crate) struct PackedSource {
    pub(crate) records: Records,
    pub(crate) bundle: Option<BundlePlace>,
    pub(crate) packed_bytes: u64,
    pub(crate) stages: Vec<StageNumbers>,
    pub(crate) shares: Vec<Share>,
}

impl PackedSource {
    /// What a manifest says of a file that is gone.
    pub(crate) fn without_records() -> Self {
        Self {
            records: Records::Inline(Vec::new()),
            bundle: None,
            packed_bytes: 0,
            stages: Vec::new(),
            shares: Vec::new(),
        }
    }

    /// A file that has its records for itself.
    pub(crate) fn alone(records: Records, summary: &hybrid::Summary) -> Self {
        let seconds = summary.wall_time.as_secs_f64();
        Self {
            records,
            bundle: None,
            packed_bytes: summary.packed_bytes,
            stages: vec![pack_stage(summary.raw_bytes, summary.packed_bytes, seconds)],
            shares: shares(summary),
        }
    }
}

/// The figures of the one stage of packing.
pub(crate) fn pack_stage(bytes_in: u64, bytes_out: u64, seconds: f64) -> StageNumbers {
    StageNumbers {
        name: "Step 01 pack".to_owned(),
        bytes_in,
        bytes_out,
        seconds,
    }
}

/// How many packed bytes each transform and codec made.
pub(crate) fn shares(summary: &hybrid::Summary) -> Vec<Share> {
    let shares = summary.shares.iter();
    let share = shares.map(|((transform, codec), share)| Share {
        label: format!("{} · {}", transform.name(), codec.name()),
        bytes: share.packed_bytes,
    });
    share.collect()
}
