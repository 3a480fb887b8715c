//! Which streams share an entropy stream.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::{Kind, RawStream, TINY, is_fill};
use crate::{
    entropy::{self, Codec, Coded},
    hybrid::Effort,
};

/// With effort fast, streams of less are not worth their own set-up.
const TINY_FAST: usize = 2000;

/// Streams coded as one.
pub struct Group {
    /// Their numbers.
    pub members: Vec<usize>,
    /// All of them, one behind the other.
    pub coded: Coded,
}

fn encode_bytes(bytes: &[u8], kind: Kind, effort: Effort) -> Coded {
    if is_fill(bytes) {
        return Coded {
            codec: Codec::Fill,
            params: bytes[0],
            bytes: Vec::new(),
        };
    }
    if kind == Kind::Packed {
        return Coded::stored(bytes);
    }
    if kind == Kind::Bytes {
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

fn code_group(streams: &[RawStream], members: Vec<usize>, effort: Effort) -> Group {
    let kind = members
        .first()
        .map_or(Kind::Text, |&member| streams[member].kind);
    let coded = match members[..] {
        [member] => encode_bytes(&streams[member].bytes, kind, effort),
        _ => encode_bytes(&joined(streams, &members), kind, effort),
    };
    Group { members, coded }
}

/// Codes all streams, alone or with others, whichever is smaller.
pub fn choose_groups(streams: &[RawStream], effort: Effort) -> Vec<Group> {
    let tiny = if effort == Effort::Fast {
        TINY_FAST
    } else {
        TINY
    };
    let mut small: BTreeMap<Kind, Vec<usize>> = BTreeMap::new();
    let mut members: Vec<Vec<usize>> = Vec::new();
    for (number, stream) in streams.iter().enumerate() {
        if stream.bytes.len() <= tiny && !is_fill(&stream.bytes) {
            small.entry(stream.kind).or_default().push(number);
        } else {
            members.push(vec![number]);
        }
    }
    members.extend(small.into_values());
    let groups: Vec<Group> = members
        .into_par_iter()
        .map(|members| code_group(streams, members, effort))
        .collect();
    let text: usize = streams
        .iter()
        .filter(|stream| stream.kind == Kind::Text)
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

/// Below effort max, text is tried as one group where it lies in so many groups (twice as many with
/// effort fast)
const SOLID_GROUPS: usize = 16;
/// and is no more than this.
const SOLID_BYTES: usize = 1 << 20;

/// Tries all text as one group: all of it, and all of it that BZ2 does not carry better alone.
fn solid_where_smaller(streams: &[RawStream], groups: Vec<Group>, effort: Effort) -> Vec<Group> {
    let is_text = |group: &Group| {
        group
            .members
            .iter()
            .all(|&member| streams[member].kind == Kind::Text)
    };
    let (text, mut rest): (Vec<Group>, Vec<Group>) = groups.into_iter().partition(is_text);
    let size = |groups: &[Group]| {
        groups
            .iter()
            .map(|group| group.coded.bytes.len() + 4)
            .sum::<usize>()
    };
    let solid_of = |pick: &dyn Fn(&Group) -> bool| {
        let mut members: Vec<usize> = text
            .iter()
            .filter(|group| pick(group))
            .flat_map(|group| group.members.iter().copied())
            .collect();
        members.sort_unstable();
        (members.len() > 1).then(|| code_group(streams, members, effort))
    };
    let small = |group: &Group| group.coded.codec != Codec::Bz2 || group.coded.bytes.len() < 3000;
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
