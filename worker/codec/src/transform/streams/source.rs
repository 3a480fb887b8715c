//! The decoded streams of a payload.

use std::collections::VecDeque;

use rayon::prelude::*;

#[cfg(test)]
use super::RawStream;
use super::{Placed, SHARED_KINDS, StreamKind, compact, groups::DecodedGroup};
use crate::{Codec, Damage, FormatVersion, bytes::FieldReader, entropy};

/// The plan of a payload and its decoded streams, which are taken in order.
#[derive(Debug)]
pub(crate) struct StreamSource {
    /// The plan: how the columns are made from the streams.
    pub plan: Vec<u8>,
    /// The version of the payload.
    pub(crate) version: FormatVersion,
    /// Version 1: the groups.
    groups: Vec<Vec<u8>>,
    /// Version 1: group, start and length of each stream.
    streams: Vec<(usize, usize, usize)>,
    /// Version 2: the shared groups by kind.
    shared: Vec<DecodedGroup>,
    /// Version 2: the streams that are alone in a group, by their number.
    alone: VecDeque<(usize, DecodedGroup)>,
    /// The size and codec of each stream.
    pub placed: Vec<Placed>,
    /// Column and coding of each stream taken so far.
    pub taken: Vec<(usize, &'static str)>,
    /// The current column, for reports.
    pub column: usize,
    next: usize,
}

/// The extent of a stream, by which version 2 finds its end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Extent {
    Bytes(usize),
    /// Values that each end in a newline.
    Lines(usize),
    Varints(usize),
}

impl Extent {
    /// The length of the stream at the start of `bytes`.
    fn len(self, bytes: &[u8]) -> Option<usize> {
        let ends = |last: &dyn Fn(u8) -> bool, count: usize| match count {
            0 => Some(0),
            _ => {
                let mut positions = bytes.iter().enumerate().filter(|&(_, &byte)| last(byte));
                positions.nth(count - 1).map(|(at, _)| at + 1)
            }
        };
        match self {
            Self::Bytes(len) => (len <= bytes.len()).then_some(len),
            Self::Lines(count) => ends(&|byte| byte == b'\n', count),
            Self::Varints(count) => ends(&|byte| byte < 0x80, count),
        }
    }
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
        let directory = entropy::decode(
            codec,
            params,
            reader.take(packed_len)?,
            raw_len,
            FormatVersion::V1,
        )?;
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
                entropy::decode(codec, params, packed, raw_len, FormatVersion::V1)
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
            version: FormatVersion::V1,
            shared: Vec::new(),
            alone: VecDeque::new(),
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
            version: FormatVersion::V1,
            shared: Vec::new(),
            alone: VecDeque::new(),
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

    /// Reads the compact directory and decodes every group. `block_len` bounds the decoded bytes.
    pub(crate) fn read_compact(payload: &[u8], block_len: usize) -> Result<Self, Damage> {
        let directory = compact::read(payload, raw_limit(block_len))?;
        Ok(Self {
            plan: directory.plan,
            version: FormatVersion::V2,
            groups: Vec::new(),
            streams: Vec::new(),
            shared: directory.shared,
            alone: directory.alone,
            placed: Vec::new(),
            taken: Vec::new(),
            column: 0,
            next: 0,
        })
    }

    /// The next stream, which version 2 finds by its kind and extent.
    pub(crate) fn next(
        &mut self,
        coding: &'static str,
        kind: StreamKind,
        extent: Extent,
    ) -> Result<Vec<u8>, Damage> {
        self.taken.push((self.column, coding));
        let stream = match self.version {
            FormatVersion::V1 => self.next_listed()?,
            FormatVersion::V2 => self.next_by_extent(kind, extent)?,
        };
        self.next += 1;
        Ok(stream)
    }

    fn next_by_extent(&mut self, kind: StreamKind, extent: Extent) -> Result<Vec<u8>, Damage> {
        let missing = || Damage::new("a stream is missing");
        let number = self.next;
        if let Some((_, group)) = self.alone.pop_front_if(|(alone, _)| *alone == number) {
            if extent.len(&group.bytes) != Some(group.bytes.len()) {
                return Err(Damage::new("a stream does not have its extent"));
            }
            self.placed.push(group.placed(group.bytes.len()));
            return Ok(group.bytes);
        }
        let position = SHARED_KINDS.iter().position(|&shared| shared == kind);
        let group = position
            .and_then(|position| self.shared.get_mut(position))
            .ok_or_else(missing)?;
        let rest = &group.bytes[group.used..];
        let len = extent.len(rest).ok_or_else(missing)?;
        let stream = rest[..len].to_vec();
        group.used += len;
        self.placed.push(group.placed(len));
        Ok(stream)
    }

    /// The next stream of version 1.
    fn next_listed(&mut self) -> Result<Vec<u8>, Damage> {
        let &(group, start, len) = self
            .streams
            .get(self.next)
            .ok_or_else(|| Damage::new("a stream is missing"))?;
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
        let all_taken = match self.version {
            FormatVersion::V1 => self.next == self.streams.len(),
            FormatVersion::V2 => {
                let mut shared = self.shared.iter();
                self.alone.is_empty() && shared.all(|group| group.used == group.bytes.len())
            }
        };
        if all_taken {
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
