//! The streams of a block in coded groups after a directory.
//!
//! Small streams of one kind share a group and its headers. All text is also tried as one solid
//! group, where equal text in several columns is found.

mod compact;
mod groups;
mod source;

use std::sync::OnceLock;

pub(super) use groups::CodedCache;
pub(super) use source::{Extent, StreamSource, raw_limit};

use self::{
    compact::{DirectoryForm, DirectorySettings, JointContent, WrittenPayload},
    groups::{GroupMembers, Grouping, StreamGroup},
};
use super::choices::{Choice, ChoiceKey, Choices};
use crate::{
    Codec, Effort, FormatVersion,
    bytes::put_varint,
    entropy::{
        self, EncodeOptions, LzmaProps, Search,
        cost::{CostBasis, entropy_bytes, literals_bytes, lzma_bytes},
    },
};

/// The type of a stream's bytes, which selects the LZMA parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum StreamKind {
    /// Text.
    Text,
    /// Single bytes: indexes, planes.
    Bytes,
    /// Numbers of this many bytes each: 1, 2, 4 or 8.
    Rows(u8),
    /// Bits without statistical structure: stored.
    Packed,
}

impl StreamKind {
    fn search(self) -> Search {
        match self {
            Self::Text => Search::Preset,
            Self::Bytes | Self::Rows(_) | Self::Packed => Search::Short,
        }
    }

    fn props(self, effort: Effort) -> Vec<LzmaProps> {
        let few = effort != Effort::Max;
        match self {
            Self::Text if few => vec![LzmaProps {
                lc: 3,
                lp: 0,
                pb: 0,
            }],
            Self::Text => vec![
                LzmaProps {
                    lc: 3,
                    lp: 0,
                    pb: 0,
                },
                LzmaProps::PROSE,
            ],
            Self::Bytes if few => vec![LzmaProps::BYTES],
            Self::Bytes => vec![LzmaProps::BYTES, LzmaProps::PROSE],
            Self::Rows(width) => {
                let bits = width.clamp(1, 8).ilog2() as u8;
                vec![LzmaProps {
                    lc: 0,
                    lp: bits,
                    pb: bits,
                }]
            }
            Self::Packed => Vec::new(),
        }
    }
}

/// The kinds whose small streams share a group, in the order of version 2.
const SHARED_KINDS: [StreamKind; 7] = [
    StreamKind::Text,
    StreamKind::Bytes,
    StreamKind::Packed,
    StreamKind::Rows(1),
    StreamKind::Rows(2),
    StreamKind::Rows(4),
    StreamKind::Rows(8),
];

/// One stream before coding.
#[derive(Debug, Clone)]
pub(super) struct RawStream {
    /// How its bytes were made, for reports.
    pub coding: &'static str,
    /// The type of its bytes.
    pub kind: StreamKind,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The place of the choice of its coder.
    pub key: Option<ChoiceKey>,
    /// Choose its coder again.
    pub fresh: bool,
    /// Every level of nesting needs it; it is computed once.
    cost: OnceLock<usize>,
}

impl RawStream {
    /// A stream of `bytes`.
    pub(super) fn new(coding: &'static str, kind: StreamKind, bytes: Vec<u8>) -> Self {
        Self {
            coding,
            kind,
            bytes,
            key: None,
            fresh: false,
            cost: OnceLock::new(),
        }
    }

    /// Whether it shares a group with others of its kind.
    pub(super) fn is_small(&self) -> bool {
        self.bytes.len() <= TINY && !is_fill(&self.bytes)
    }

    /// The coded size of this stream alone, in bytes: measured at effort balanced and max, estimated
    /// at fast. All calls for one stream pass the same basis.
    pub(super) fn cost(&self, basis: CostBasis<'_>) -> usize {
        *self.cost.get_or_init(|| self.measure(basis))
    }

    fn measure(&self, basis: CostBasis<'_>) -> usize {
        const HEADERS: usize = 3;
        const SHARED_HEADERS: usize = 4;
        if self.kind == StreamKind::Packed {
            return self.bytes.len() + HEADERS;
        }
        if self.bytes.len() <= TINY {
            // It shares a group: only the bytes that it adds count.
            let entropy = entropy_bytes(&self.bytes);
            let shared = match self.kind {
                StreamKind::Text => basis.of_small_text(entropy),
                _ => entropy,
            };
            return self.bytes.len().min(shared + SHARED_HEADERS);
        }
        if is_fill(&self.bytes) {
            return HEADERS;
        }
        let kind = match self.kind {
            StreamKind::Text => 0,
            StreamKind::Bytes => 1,
            StreamKind::Rows(_) | StreamKind::Packed => 2,
        };
        HEADERS
            + basis
                .measured
                .of(kind, &self.bytes, || self.measure_coded(basis.effort))
    }

    fn measure_coded(&self, effort: Effort) -> usize {
        match (effort, self.kind) {
            (_, StreamKind::Packed) => self.bytes.len(),
            (_, StreamKind::Text) => self.bz2_bytes(effort),
            (Effort::Fast | Effort::Balanced, StreamKind::Bytes) => lzma_bytes(&self.bytes),
            // BZ2 finds repeated numbers, such as points on a shared border.
            (Effort::Fast | Effort::Balanced, StreamKind::Rows(_))
            | (Effort::Max, StreamKind::Bytes | StreamKind::Rows(_)) => {
                self.bz2_bytes(effort).min(literals_bytes(&self.bytes))
            }
        }
    }

    fn bz2_bytes(&self, effort: Effort) -> usize {
        entropy::bz2_bytes(&self.bytes, effort).min(self.bytes.len())
    }
}

/// Streams of at most this many bytes share a group with others of their kind.
const TINY: usize = 400;

fn is_fill(bytes: &[u8]) -> bool {
    bytes.len() > 1 && bytes.iter().all(|byte| *byte == bytes[0])
}

/// The size and codec of one stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    /// Its group's codec.
    pub codec: Codec,
    /// Its bytes before coding.
    pub raw_bytes: u64,
    /// Its share of the group's coded bytes, in proportion to its raw bytes.
    pub packed_bytes: u64,
}

/// A coded payload.
pub(super) struct WrittenStreams {
    pub(super) payload: Vec<u8>,
    /// The size of each stream.
    pub(super) placed: Vec<Placed>,
    /// The choices that were not made before.
    pub(super) choices: Vec<(ChoiceKey, Choice)>,
}

/// The place of the choice of the directory's coder.
const DIRECTORY: ChoiceKey = ChoiceKey(3);

/// Codes all streams. What `cache` has is not coded again.
pub(super) fn write(
    plan: &[u8],
    streams: &[RawStream],
    options: EncodeOptions,
    choices: &Choices<'_>,
    cache: Option<&CodedCache>,
) -> WrittenStreams {
    let grouping = Grouping {
        streams,
        options,
        choices,
        with_directory: false,
        cache,
    };
    let members = grouping.members();
    if options.version == FormatVersion::V2 {
        return write_compact(plan, grouping, members);
    }
    let (groups, mut made) = grouping.code_all(members);
    let of_stream = groups_of(streams, &groups);
    let placed = place(streams, &groups, &of_stream);
    let mut directory = Vec::new();
    put_varint(&mut directory, plan.len() as u64);
    directory.extend_from_slice(plan);
    put_varint(&mut directory, groups.len() as u64);
    for group in &groups {
        directory.extend([group.coded.codec as u8, group.coded.params]);
        put_varint(&mut directory, group.coded.bytes.len() as u64);
    }
    put_varint(&mut directory, streams.len() as u64);
    for (stream, group) in streams.iter().zip(&of_stream) {
        put_varint(&mut directory, *group as u64);
        put_varint(&mut directory, stream.bytes.len() as u64);
    }
    let coded = match choices.get(DIRECTORY) {
        Some(&Choice::Stream(coder, _)) => entropy::encode_as(&directory, coder, options),
        _ => entropy::encode(
            &directory,
            options,
            &[LzmaProps::BYTES, LzmaProps::TEXT],
            Search::Preset,
        ),
    };
    if choices.get(DIRECTORY).is_none() {
        made.push((DIRECTORY, Choice::Stream(coded.coder, false)));
    }
    let mut payload = vec![coded.codec as u8, coded.params];
    put_varint(&mut payload, directory.len() as u64);
    put_varint(&mut payload, coded.bytes.len() as u64);
    payload.extend(coded.bytes);
    for group in &groups {
        payload.extend_from_slice(&group.coded.bytes);
    }
    WrittenStreams {
        payload,
        placed,
        choices: made,
    }
}

/// Codes all streams in version 2.
fn write_compact(
    plan: &[u8],
    mut grouping: Grouping<'_>,
    members: Vec<GroupMembers>,
) -> WrittenStreams {
    let Grouping {
        streams,
        options,
        choices,
        ..
    } = grouping;
    let size = plan.len() + grouping.shared_bytes(&members);
    let form_place = compact::form_place(size, options.effort);
    let known = grouping
        .is_known()
        .then(|| known_form(form_place, choices))
        .flatten();
    grouping.with_directory = known.is_some_and(|form| form.joint);
    let (groups, mut made) = grouping.code_all(members);
    let of_stream = groups_of(streams, &groups);
    let mut placed = place(streams, &groups, &of_stream);
    let written = compact::write(
        plan,
        streams,
        &groups,
        DirectorySettings {
            options,
            form: known,
            known_schema: grouping.is_known(),
            cache: grouping.cache,
        },
    );
    if known.is_none() {
        made.extend(form_choices(form_place, written.form));
    }
    if written.form.joint {
        let is_joint = |number: usize| groups[of_stream[number]].is_shared();
        place_joint(plan, streams, &is_joint, &written, &mut placed);
    }
    WrittenStreams {
        payload: written.bytes,
        placed,
        choices: made,
    }
}

/// The form of a directory that was chosen before: its coder, and flags with the places in its own.
fn known_form(place: ChoiceKey, choices: &Choices<'_>) -> Option<DirectoryForm> {
    let get = |place| match choices.get(place) {
        Some(&Choice::Stream(coder, flag)) => Some((coder, flag)),
        _ => None,
    };
    let (coder, joint) = get(place)?;
    let flag = |position| Some(get(place.child(position))?.1);
    let content = JointContent {
        all: flag(0)?,
        apart: flag(1)?,
    };
    Some(DirectoryForm {
        joint,
        coder,
        content,
    })
}

/// The choices of [`known_form`].
fn form_choices(place: ChoiceKey, form: DirectoryForm) -> [(ChoiceKey, Choice); 3] {
    let DirectoryForm {
        joint,
        coder,
        content,
    } = form;
    [
        (place, Choice::Stream(coder, joint)),
        (place.child(0), Choice::Stream(coder, content.all)),
        (place.child(1), Choice::Stream(coder, content.apart)),
    ]
}

/// Streams that are coded with the directory share its bytes in proportion to their entropy.
fn place_joint(
    plan: &[u8],
    streams: &[RawStream],
    is_joint: &dyn Fn(usize) -> bool,
    written: &WrittenPayload,
    placed: &mut [Placed],
) {
    let weights: Vec<(usize, u64)> = (0..streams.len())
        .filter(|&number| is_joint(number))
        .map(|number| (number, entropy_bytes(&streams[number].bytes) as u64))
        .collect();
    let total = entropy_bytes(plan) as u64 + weights.iter().map(|(_, weight)| weight).sum::<u64>();
    for (number, weight) in weights {
        placed[number].codec = written.directory_codec;
        placed[number].packed_bytes = written.directory_bytes as u64 * weight / total.max(1);
    }
}

/// The number of the group of each stream.
fn groups_of(streams: &[RawStream], groups: &[StreamGroup]) -> Vec<usize> {
    let mut of_stream = vec![0; streams.len()];
    for (number, group) in groups.iter().enumerate() {
        for &member in &group.members {
            of_stream[member] = number;
        }
    }
    of_stream
}

fn place(streams: &[RawStream], groups: &[StreamGroup], of_stream: &[usize]) -> Vec<Placed> {
    let lengths: Vec<u64> = streams
        .iter()
        .map(|stream| stream.bytes.len() as u64)
        .collect();
    let raw_of = |group: &StreamGroup| {
        group
            .members
            .iter()
            .map(|&member| lengths[member])
            .sum::<u64>()
    };
    let totals: Vec<u64> = groups.iter().map(raw_of).collect();
    of_stream
        .iter()
        .zip(&lengths)
        .map(|(&group, &raw_bytes)| Placed {
            codec: groups[group].coded.codec,
            raw_bytes,
            packed_bytes: groups[group].coded.bytes.len() as u64 * raw_bytes / totals[group].max(1),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_round_trip_in_any_grouping() {
        let mut rng = fastrand::Rng::with_seed(5);
        let streams: Vec<RawStream> = [0usize, 1, 10, 300, 5000, 20_000, 5000]
            .into_iter()
            .enumerate()
            .flat_map(|(number, len)| {
                [StreamKind::Text, StreamKind::Bytes, StreamKind::Rows(4)]
                    .map(|kind| (number, len, kind))
            })
            .map(|(number, len, kind)| {
                let letter = |_| match number % 3 {
                    1 => 7,
                    _ => rng.u8(b'a'..b'f'),
                };
                RawStream::new("test", kind, (0..len).map(letter).collect())
            })
            .collect();
        for effort in Effort::ALL {
            let WrittenStreams {
                payload, placed, ..
            } = write(
                b"plan",
                &streams,
                EncodeOptions::new(effort, FormatVersion::V1),
                &Choices::default(),
                None,
            );
            assert_eq!(placed.len(), streams.len());
            let mut source = StreamSource::read(&payload, 100_000).expect("reads");
            assert_eq!(source.plan, b"plan");
            for stream in &streams {
                assert_eq!(
                    source
                        .next("test", StreamKind::Text, Extent::Bytes(0))
                        .as_ref(),
                    Ok(&stream.bytes)
                );
            }
            assert_eq!(source.finish(), Ok(()));
            assert!(StreamSource::read(&payload[..payload.len() - 1], 100_000).is_err());
            assert!(StreamSource::read(&payload, 100).is_err());
        }
    }
}
