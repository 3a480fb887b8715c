//! The decoded streams of a payload.

use rayon::prelude::*;

use super::Placed;
#[cfg(test)]
use super::RawStream;
use crate::{Codec, Damage, bytes::FieldReader, entropy};

/// The plan of a payload and its decoded streams, which are taken in order.
#[derive(Debug)]
pub(crate) struct StreamSource {
    /// The plan: how the columns are made from the streams.
    pub plan: Vec<u8>,
    groups: Vec<Vec<u8>>,
    /// Group, start and length of each stream.
    streams: Vec<(usize, usize, usize)>,
    /// The size and codec of each stream.
    pub placed: Vec<Placed>,
    /// Column and coding of each stream taken so far.
    pub taken: Vec<(usize, &'static str)>,
    /// The current column, for reports.
    pub column: usize,
    next: usize,
}

/// The most streams and groups in a block.
const STREAM_LIMIT: usize = 1 << 20;

/// The largest number of raw bytes in all streams. An encoder never reaches it: it stores the block
/// before.
pub(crate) fn raw_limit(block_len: usize) -> usize {
    block_len * 4 + (64 << 10)
}

impl StreamSource {
    /// Reads the directory and decodes every group. `block_len` bounds the decoded bytes.
    pub(crate) fn read(payload: &[u8], block_len: usize) -> Result<Self, Damage> {
        let limit = raw_limit(block_len);
        let mut reader = FieldReader::new(payload);
        let (codec, params) = codec_of(&mut reader)?;
        let raw_len = reader.size(limit, "the directory")?;
        let packed_len = reader.size(payload.len(), "the packed directory")?;
        let directory = entropy::decode(codec, params, reader.take(packed_len)?, raw_len)?;
        let mut fields = FieldReader::new(&directory);
        let plan_len = fields.size(directory.len(), "the plan")?;
        let plan = fields.take(plan_len)?.to_vec();
        let mut coded = Vec::new();
        for _ in 0..fields.size(STREAM_LIMIT, "the number of groups")? {
            let (codec, params) = codec_of(&mut fields)?;
            let packed_len = fields.size(payload.len(), "a packed group")?;
            coded.push((codec, params, reader.take(packed_len)?, 0usize));
        }
        let mut streams = Vec::new();
        let mut total = 0;
        for _ in 0..fields.size(STREAM_LIMIT, "the number of streams")? {
            let group = fields.size(coded.len().saturating_sub(1), "a group's number")?;
            let len = fields.size(limit - total, "a stream")?;
            total += len;
            let Some(entry) = coded.get_mut(group) else {
                return Err(Damage::new("a stream without groups"));
            };
            streams.push((group, entry.3, len));
            entry.3 += len;
        }
        if reader.remaining() > 0 || fields.remaining() > 0 {
            return Err(Damage::new("unread bytes after the streams"));
        }
        let groups = coded
            .par_iter()
            .map(|&(codec, params, packed, raw_len)| {
                entropy::decode(codec, params, packed, raw_len)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let placed = streams
            .iter()
            .map(|&(group, _, len)| Placed {
                codec: coded[group].0,
                raw_bytes: len as u64,
                packed_bytes: coded[group].2.len() as u64 * len as u64
                    / (coded[group].3.max(1) as u64),
            })
            .collect();
        Ok(Self {
            plan,
            groups,
            streams,
            placed,
            taken: Vec::new(),
            column: 0,
            next: 0,
        })
    }

    /// A source of raw streams.
    #[cfg(test)]
    pub(crate) fn of_raw(plan: &[u8], streams: &[RawStream]) -> Self {
        Self {
            plan: plan.to_vec(),
            groups: streams.iter().map(|stream| stream.bytes.clone()).collect(),
            streams: streams
                .iter()
                .enumerate()
                .map(|(number, stream)| (number, 0, stream.bytes.len()))
                .collect(),
            placed: Vec::new(),
            taken: Vec::new(),
            column: 0,
            next: 0,
        }
    }

    /// The next stream.
    pub(crate) fn next(&mut self, coding: &'static str) -> Result<Vec<u8>, Damage> {
        let &(group, start, len) = self
            .streams
            .get(self.next)
            .ok_or_else(|| Damage::new("a stream is missing"))?;
        self.next += 1;
        self.taken.push((self.column, coding));
        // The only stream of a group that is not empty is the group itself.
        if len == 0 {
            return Ok(Vec::new());
        }
        if start == 0 && self.groups[group].len() == len {
            return Ok(std::mem::take(&mut self.groups[group]));
        }
        self.groups[group]
            .get(start..start + len)
            .map(<[u8]>::to_vec)
            .ok_or_else(|| Damage::new("a stream is outside its group"))
    }

    /// Checks that every stream was taken.
    pub(crate) fn finish(&self) -> Result<(), Damage> {
        if self.next == self.streams.len() {
            Ok(())
        } else {
            Err(Damage::new("unread streams remain"))
        }
    }
}

fn codec_of(reader: &mut FieldReader<'_>) -> Result<(Codec, u8), Damage> {
    let byte = reader.byte()?;
    let codec =
        Codec::from_byte(byte).ok_or_else(|| Damage::new(format!("unknown codec {byte}")))?;
    Ok((codec, reader.byte()?))
}
