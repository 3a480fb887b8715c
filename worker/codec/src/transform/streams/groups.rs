//! The grouping of streams: the streams of a group are coded together.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::{RawStream, StreamKind, TINY, is_fill};
use crate::{
    Codec, Effort,
    entropy::{self, Coded},
};

/// At effort fast, smaller streams share a group to save the set-up of a coder.
const TINY_FAST: usize = 2000;

/// Streams that are coded together.
pub(super) struct StreamGroup {
    /// The numbers of the streams.
    pub members: Vec<usize>,
    /// All of them in sequence.
    pub coded: Coded,
}

fn encode_bytes(bytes: &[u8], kind: StreamKind, effort: Effort) -> Coded {
    if is_fill(bytes) {
        return Coded {
            codec: Codec::Fill,
            params: bytes[0],
            bytes: Vec::new(),
        };
    }
    if kind == StreamKind::Packed {
        return Coded::stored(bytes);
    }
    if kind == StreamKind::Bytes {
        return entropy::encode_bytes(bytes, effort, &kind.props(effort));
    }
    entropy::encode(bytes, effort, &kind.props(effort), kind.search())
}

fn joined(streams: &[RawStream], members: &[usize]) -> Vec<u8> {
    members
        .iter()
        .flat_map(|&member| streams[member].bytes.iter().copied())
        .collect()
}

fn code_group(streams: &[RawStream], members: Vec<usize>, effort: Effort) -> StreamGroup {
    let kind = members
        .first()
        .map_or(StreamKind::Text, |&member| streams[member].kind);
    let coded = match members[..] {
        [member] => encode_bytes(&streams[member].bytes, kind, effort),
        _ => encode_bytes(&joined(streams, &members), kind, effort),
    };
    StreamGroup { members, coded }
}

/// Codes all streams alone or in groups, whichever is smaller.
pub(super) fn choose_groups(streams: &[RawStream], effort: Effort) -> Vec<StreamGroup> {
    let tiny = if effort == Effort::Fast {
        TINY_FAST
    } else {
        TINY
    };
    let mut small: BTreeMap<StreamKind, Vec<usize>> = BTreeMap::new();
    let mut members: Vec<Vec<usize>> = Vec::new();
    for (number, stream) in streams.iter().enumerate() {
        if stream.bytes.len() <= tiny && !is_fill(&stream.bytes) {
            small.entry(stream.kind).or_default().push(number);
        } else {
            members.push(vec![number]);
        }
    }
    members.extend(small.into_values());
    let groups: Vec<StreamGroup> = members
        .into_par_iter()
        .map(|members| code_group(streams, members, effort))
        .collect();
    let text: usize = streams
        .iter()
        .filter(|stream| stream.kind == StreamKind::Text)
        .map(|stream| stream.bytes.len())
        .sum();
    let worth_it = match effort {
        Effort::Fast => groups.len() >= 2 * SOLID_GROUPS && text <= SOLID_BYTES,
        Effort::Balanced => groups.len() >= SOLID_GROUPS && text <= SOLID_BYTES,
        Effort::Max => true,
    };
    if worth_it {
        solid_where_smaller(streams, groups, effort)
    } else {
        groups
    }
}

/// Below effort max, text is tried as one group if it has at least this many groups (twice as many at
/// effort fast).
const SOLID_GROUPS: usize = 16;
/// Below effort max, more bytes of text are not tried as one group.
const SOLID_BYTES: usize = 1 << 20;

/// Tries one group of all text, and one of all text but the groups that BZ2 codes well alone.
fn solid_where_smaller(
    streams: &[RawStream],
    groups: Vec<StreamGroup>,
    effort: Effort,
) -> Vec<StreamGroup> {
    let is_text = |group: &StreamGroup| {
        group
            .members
            .iter()
            .all(|&member| streams[member].kind == StreamKind::Text)
    };
    let (text, mut rest): (Vec<StreamGroup>, Vec<StreamGroup>) =
        groups.into_iter().partition(is_text);
    let size = |groups: &[StreamGroup]| {
        groups
            .iter()
            .map(|group| group.coded.bytes.len() + 4)
            .sum::<usize>()
    };
    let solid_of = |pick: &dyn Fn(&StreamGroup) -> bool| {
        let mut members: Vec<usize> = text
            .iter()
            .filter(|group| pick(group))
            .flat_map(|group| group.members.iter().copied())
            .collect();
        members.sort_unstable();
        (members.len() > 1).then(|| code_group(streams, members, effort))
    };
    let small =
        |group: &StreamGroup| group.coded.codec != Codec::Bz2 || group.coded.bytes.len() < 3000;
    let (all, some) = rayon::join(|| solid_of(&|_| true), || solid_of(&small));
    let alone = size(&text);
    let all_size = all
        .as_ref()
        .map_or(usize::MAX, |group| size(std::slice::from_ref(group)));
    let some_size = some.as_ref().map_or(usize::MAX, |group| {
        size(std::slice::from_ref(group))
            + text
                .iter()
                .filter(|group| !small(group))
                .map(|group| group.coded.bytes.len() + 4)
                .sum::<usize>()
    });
    if all_size < alone && all_size <= some_size {
        rest.extend(all);
    } else if some_size < alone {
        rest.extend(text.into_iter().filter(|group| !small(group)));
        rest.extend(some);
    } else {
        rest.extend(text);
    }
    rest
}
