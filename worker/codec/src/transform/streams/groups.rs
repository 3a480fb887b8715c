//! The grouping of streams: the streams of a group are coded together.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::{Placed, RawStream, StreamKind, is_fill};
use crate::{
    Codec, Effort,
    entropy::{self, Coded, Coder, EncodeOptions},
    transform::choices::{Choice, ChoiceKey, Choices},
};

/// Streams that are coded together.
pub(super) struct StreamGroup {
    /// The numbers of the streams.
    pub(super) members: Vec<usize>,
    /// All of them in sequence.
    pub(super) coded: Coded,
    /// The place of the choice of its coder.
    place: Option<ChoiceKey>,
    shared: bool,
}

impl StreamGroup {
    /// Whether it is the group for streams of its kind.
    pub(super) fn is_shared(&self) -> bool {
        self.shared
    }
}

/// Groups that were coded before, by their bytes: where one column gets another coding, most groups stay as they were.
#[derive(Debug)]
pub(in crate::transform) struct CodedCache {
    groups: HashMap<GroupKey, Coded>,
    /// What was coded since: other threads would find it sooner or later, and what is packed must not depend on that.
    new: Mutex<BTreeMap<GroupKey, (usize, Coded)>>,
    /// The bytes that are kept, and the most.
    kept: usize,
    limit: usize,
    work: AtomicUsize,
}

/// The hash of a group's bytes, and its coder.
type GroupKey = ([u8; 32], [u8; 2]);

impl CodedCache {
    /// A cache that keeps at most `limit` bytes.
    pub(in crate::transform) fn new(limit: usize) -> Self {
        Self {
            groups: HashMap::new(),
            new: Mutex::default(),
            kept: 0,
            limit,
            work: AtomicUsize::new(0),
        }
    }

    /// The bytes that were coded because they were not here, up to the last [`Self::keep_new`].
    pub(in crate::transform) fn work(&self) -> usize {
        self.work.load(Ordering::Relaxed)
    }

    /// Keeps what was coded, from now on.
    pub(in crate::transform) fn keep_new(&mut self) {
        let new = self.new.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (key, (raw_len, coded)) in std::mem::take(new) {
            *self.work.get_mut() += raw_len;
            let kept = self.kept + coded.bytes.len();
            if kept <= self.limit {
                self.kept = kept;
                self.groups.insert(key, coded);
            }
        }
    }

    fn encode_as(&self, bytes: &[u8], coder: Coder, options: EncodeOptions) -> Coded {
        let key = (*blake3::hash(bytes).as_bytes(), coder.to_bytes());
        if let Some(coded) = self.groups.get(&key) {
            return coded.clone();
        }
        let coded = entropy::encode_as(bytes, coder, options);
        let mut new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        new.insert(key, (bytes.len(), coded.clone()));
        coded
    }

    /// Codes bytes that will not come again.
    pub(super) fn encode_once(&self, bytes: &[u8], coder: Coder, options: EncodeOptions) -> Coded {
        self.work.fetch_add(bytes.len(), Ordering::Relaxed);
        entropy::encode_as(bytes, coder, options)
    }
}

/// A decoded group of version 2.
#[derive(Debug, Default)]
pub(super) struct DecodedGroup {
    pub(super) bytes: Vec<u8>,
    /// The bytes that were taken.
    pub(super) used: usize,
    pub(super) codec: Option<Codec>,
    pub(super) packed_len: usize,
}

impl DecodedGroup {
    /// The size of a stream of `len` bytes.
    pub(super) fn placed(&self, len: usize) -> Placed {
        Placed {
            codec: self.codec.unwrap_or(Codec::Stored),
            raw_bytes: len as u64,
            packed_bytes: self.packed_len as u64 * len as u64 / self.bytes.len().max(1) as u64,
        }
    }
}

/// The place of the choice of a solid group and its coder.
const SOLID: ChoiceKey = ChoiceKey(1);

/// The place of the choice of the coder for small streams of a kind.
fn small_group(kind: StreamKind) -> ChoiceKey {
    let position = match kind {
        StreamKind::Text => 0,
        StreamKind::Bytes => 1,
        StreamKind::Packed => 2,
        StreamKind::Rows(width) => 3 + u64::from(width),
    };
    ChoiceKey(2).child(position)
}

/// The place of the choice of a group's coder, and the numbers of its streams.
pub(super) type GroupMembers = (Option<ChoiceKey>, Vec<usize>);

/// Whether a group is the one for streams of its kind.
fn is_shared(place: Option<ChoiceKey>, kind: StreamKind) -> bool {
    place == Some(SOLID) || place == Some(small_group(kind))
}

/// Codes the streams and makes the choices that were not made before.
pub(super) struct Grouping<'a> {
    pub(super) streams: &'a [RawStream],
    pub(super) options: EncodeOptions,
    pub(super) choices: &'a Choices<'a>,
    /// Shared groups whose coder was chosen before need no coding: the directory holds them.
    pub(super) with_directory: bool,
    /// What was coded before.
    pub(super) cache: Option<&'a CodedCache>,
}

impl Grouping<'_> {
    /// The groups of all streams, as far as they were chosen before.
    pub(super) fn members(&self) -> Vec<GroupMembers> {
        let (solid, others): (Vec<usize>, Vec<usize>) =
            (0..self.streams.len()).partition(|&number| self.was_solid(number));
        let mut solid = solid;
        let mut members = self.separate(&others);
        if !solid.is_empty()
            && let Some(at) = members
                .iter()
                .position(|(place, _)| *place == Some(small_group(StreamKind::Text)))
        {
            // Text has one shared group.
            solid.extend(members.swap_remove(at).1);
            solid.sort_unstable();
        }
        if !solid.is_empty() {
            members.push((Some(SOLID), solid));
        }
        members
    }

    /// Whether a block of the schema has been grouped before.
    pub(super) fn is_known(&self) -> bool {
        self.choices.get(SOLID).is_some()
    }

    /// The raw bytes of the shared groups.
    pub(super) fn shared_bytes(&self, groups: &[GroupMembers]) -> usize {
        let shared = groups
            .iter()
            .filter(|(place, members)| is_shared(*place, self.kind(members)));
        let members = shared.flat_map(|(_, members)| members);
        members
            .map(|&member| self.streams[member].bytes.len())
            .sum()
    }

    /// Codes the groups, and returns the choices.
    pub(super) fn code_all(
        &self,
        members: Vec<GroupMembers>,
    ) -> (Vec<StreamGroup>, Vec<(ChoiceKey, Choice)>) {
        let mut groups: Vec<StreamGroup> = members
            .into_par_iter()
            .map(|(place, members)| self.code(place, members))
            .collect();
        let mut made = Vec::new();
        if !self.is_known() {
            if self.is_solid_worth_a_try(groups.len()) {
                groups = self.solid_if_smaller(groups);
            }
            let found = groups.iter().find(|group| group.place == Some(SOLID));
            let coder = found.map_or(Coder::Stored, |group| group.coded.coder);
            made.push((SOLID, Choice::Stream(coder, found.is_some())));
        }
        for group in &groups {
            made.extend(self.choices_of(group));
        }
        (groups, made)
    }

    fn was_solid(&self, number: usize) -> bool {
        let stream = &self.streams[number];
        let choice = stream.key.and_then(|key| self.choices.get(key));
        stream.kind == StreamKind::Text
            && !stream.fresh
            && matches!(choice, Some(Choice::Stream(_, true)))
    }

    /// Each stream alone, but small ones of one kind together.
    fn separate(&self, numbers: &[usize]) -> Vec<GroupMembers> {
        let mut small: BTreeMap<StreamKind, Vec<usize>> = BTreeMap::new();
        let mut members = Vec::new();
        for &number in numbers {
            let stream = &self.streams[number];
            if stream.is_small() {
                small.entry(stream.kind).or_default().push(number);
            } else {
                members.push((stream.key, vec![number]));
            }
        }
        let small = small.into_iter();
        members.extend(small.map(|(kind, numbers)| (Some(small_group(kind)), numbers)));
        members
    }

    fn code(&self, place: Option<ChoiceKey>, members: Vec<usize>) -> StreamGroup {
        let kind = self.kind(&members);
        let fresh = members.len() == 1 && self.streams[members[0]].fresh;
        let known = place.and_then(|place| self.choices.get(place));
        let coder = match known {
            Some(&Choice::Stream(coder, _)) if !fresh => Some(coder),
            _ => None,
        };
        let shared = is_shared(place, kind);
        let coded = match members[..] {
            _ if self.with_directory && coder.is_some() && shared => Coded::stored(&[]),
            [member] => self.code_bytes(&self.streams[member].bytes, kind, coder),
            _ => self.code_bytes(&self.joined(&members), kind, coder),
        };
        StreamGroup {
            members,
            coded,
            place,
            shared,
        }
    }

    fn kind(&self, members: &[usize]) -> StreamKind {
        let first = members.first();
        first.map_or(StreamKind::Text, |&member| self.streams[member].kind)
    }

    fn joined(&self, members: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &member in members {
            bytes.extend_from_slice(&self.streams[member].bytes);
        }
        bytes
    }

    fn code_bytes(&self, bytes: &[u8], kind: StreamKind, coder: Option<Coder>) -> Coded {
        if is_fill(bytes) {
            return Coded {
                coder: Coder::Stored,
                codec: Codec::Fill,
                params: bytes[0],
                bytes: Vec::new(),
            };
        }
        if kind == StreamKind::Packed {
            return Coded::stored(bytes);
        }
        if let Some(coder) = coder {
            return match self.cache {
                Some(cache) => cache.encode_as(bytes, coder, self.options),
                None => entropy::encode_as(bytes, coder, self.options),
            };
        }
        if kind == StreamKind::Bytes {
            return entropy::encode_bytes(bytes, self.options, &kind.props(self.options.effort));
        }
        entropy::encode(
            bytes,
            self.options,
            &kind.props(self.options.effort),
            kind.search(),
        )
    }

    /// The choices of a group that were not made before.
    fn choices_of(&self, group: &StreamGroup) -> Vec<(ChoiceKey, Choice)> {
        let fresh = group
            .members
            .iter()
            .any(|&member| self.streams[member].fresh);
        let decided_by_data = group.coded.codec == Codec::Fill;
        let coder = group.coded.coder;
        let solid = group.place == Some(SOLID);
        let members = group.members.iter().filter(|_| solid);
        let mut places: Vec<ChoiceKey> = members
            .filter_map(|&member| self.streams[member].key)
            .collect();
        places.extend(group.place.filter(|_| !solid && !decided_by_data));
        places
            .into_iter()
            .filter(|&place| fresh || self.choices.get(place).is_none())
            .map(|place| (place, Choice::Stream(coder, solid)))
            .collect()
    }

    fn is_solid_worth_a_try(&self, groups: usize) -> bool {
        let text: usize = self
            .streams
            .iter()
            .filter(|stream| stream.kind == StreamKind::Text)
            .map(|stream| stream.bytes.len())
            .sum();
        match self.options.effort {
            Effort::Fast | Effort::Balanced => groups >= SOLID_GROUPS && text <= SOLID_BYTES,
            Effort::Max => true,
        }
    }

    /// Tries one group of all text, and one of all text but the groups that BZ2 codes well alone.
    fn solid_if_smaller(&self, groups: Vec<StreamGroup>) -> Vec<StreamGroup> {
        let is_few = groups.len() < MANY_GROUPS;
        let is_text = |group: &StreamGroup| {
            group
                .members
                .iter()
                .all(|&member| self.streams[member].kind == StreamKind::Text)
        };
        let (text, mut rest): (Vec<StreamGroup>, Vec<StreamGroup>) =
            groups.into_iter().partition(is_text);
        if text.len() < 2 {
            rest.extend(text);
            return rest;
        }
        let solid_of = |pick: &dyn Fn(&StreamGroup) -> bool| {
            let mut members: Vec<usize> = text
                .iter()
                .filter(|group| pick(group))
                .flat_map(|group| group.members.iter().copied())
                .collect();
            members.sort_unstable();
            (members.len() > 1).then(|| self.code(Some(SOLID), members))
        };
        let are_all_small = text.iter().all(is_small);
        let (all, some) = rayon::join(
            || solid_of(&|_| true),
            || (!are_all_small).then(|| solid_of(&is_small)).flatten(),
        );
        let kept: usize = text.iter().filter(|group| !is_small(group)).map(size).sum();
        let mut alone: usize = text.iter().map(size).sum();
        if self.options.effort != Effort::Max && is_few {
            alone -= alone / SOLID_SHARE;
        }
        let all_size = all.as_ref().map_or(usize::MAX, size);
        let some_size = some.as_ref().map_or(usize::MAX, |group| size(group) + kept);
        if all_size < alone && all_size <= some_size {
            rest.extend(all);
        } else if some_size < alone {
            rest.extend(text.into_iter().filter(|group| !is_small(group)));
            rest.extend(some);
        } else {
            rest.extend(text);
        }
        rest
    }
}

/// Below effort max, text is tried as one group if there are at least this many groups.
const SOLID_GROUPS: usize = 2;
/// One group in place of fewer ones must be smaller by [`SOLID_SHARE`]: a known block is coded faster in several.
const MANY_GROUPS: usize = 16;
const SOLID_SHARE: usize = 16;
/// Below effort max, more bytes of text are not tried as one group.
const SOLID_BYTES: usize = 1 << 20;
/// A larger group that BZ2 codes stays alone.
const SMALL_BZ2_BYTES: usize = 3000;
/// The size of a group's entries in the directory.
const GROUP_BYTES: usize = 4;

fn is_small(group: &StreamGroup) -> bool {
    group.shared || group.coded.codec != Codec::Bz2 || group.coded.bytes.len() < SMALL_BZ2_BYTES
}

fn size(group: &StreamGroup) -> usize {
    group.coded.bytes.len() + GROUP_BYTES
}
