//! One bzip2 stream.

use super::{Coded, exact, finished, reserve_output};
use crate::{Codec, Damage};

/// `raw` as a bzip2 stream whose blocks are no larger than `raw`.
pub fn bz2(raw: &[u8]) -> Option<Coded> {
    let level = raw.len().div_ceil(100_000).clamp(1, 9) as u32;
    let mut encoder = bzip2::Compress::new(bzip2::Compression::new(level), 0);
    let mut bytes = Vec::with_capacity(raw.len() / 2 + 600);
    loop {
        let done = encoder.total_in() as usize;
        let status = encoder
            .compress_vec(&raw[done..], &mut bytes, bzip2::Action::Finish)
            .ok()?;
        if status == bzip2::Status::StreamEnd {
            break;
        }
        bytes.reserve(raw.len() / 4 + 600);
    }
    Some(Coded {
        codec: Codec::Bz2,
        params: 0,
        bytes,
    })
}

/// Restores exactly `raw_len` bytes.
pub(super) fn decode(packed: &[u8], raw_len: usize) -> Result<Vec<u8>, Damage> {
    let mut decoder = bzip2::Decompress::new(false);
    let mut out = Vec::new();
    loop {
        reserve_output(&mut out, raw_len);
        let before = (decoder.total_in(), decoder.total_out());
        let input = &packed[(before.0 as usize).min(packed.len())..];
        let status = decoder
            .decompress_vec(input, &mut out)
            .map_err(|error| Damage::new(format!("BZ2: {error}")))?;
        let stalled = before == (decoder.total_in(), decoder.total_out());
        if finished(
            status == bzip2::Status::StreamEnd,
            stalled,
            out.len(),
            raw_len,
        )? {
            return exact(out, decoder.total_in() as usize, packed.len());
        }
    }
}
