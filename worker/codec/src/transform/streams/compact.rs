//! The compact directory of version 2. Streams have no lengths: the decoder knows the extent of each.
//! Streams of a kind share a group unless they are listed as alone in one.

use std::{borrow::Cow, collections::VecDeque};

use super::{
    RawStream, SHARED_KINDS, StreamKind,
    groups::{CodedCache, DecodedGroup, StreamGroup},
};
use crate::{
    Codec, Damage, Effort, FormatVersion,
    bytes::{FieldReader, put_varint},
    entropy::{self, Coded, Coder, EncodeOptions, LzmaProps, Search, cost::literals_bytes},
    transform::choices::ChoiceKey,
};

/// The first byte of a payload whose directory and shared groups are coded together.
const JOINT: u8 = 0xff;
/// Coder bytes; larger ones are LZMA with the parameter byte above [`LZMA`].
const STORED: u8 = 0;
const BZ2: u8 = 1;
const FILL: u8 = 2;
const LZMA: u8 = 3;
/// More bytes of directory and shared groups are not tried together.
fn max_joint(effort: Effort) -> usize {
    match effort {
        Effort::Fast | Effort::Balanced => 32 << 10,
        Effort::Max => 128 << 10,
    }
}

/// A directory of more bytes is tried with fewer settings of LZMA.
const FEW_BYTES: usize = 32 << 10;

/// Writes a payload, and returns the choice that was not made before.
pub(super) fn write(
    plan: &[u8],
    streams: &[RawStream],
    groups: &[StreamGroup],
    settings: DirectorySettings<'_>,
) -> WrittenPayload {
    let parts = Parts::of(streams, groups);
    let coders = Coders {
        options: settings.options,
        only: settings.form.map(|form| form.coder),
        few: settings.known_schema,
        cache: settings.cache,
    };
    let separate = || parts.separate(plan, coders);
    let joint = |coders, content| {
        let layout = parts.layout(streams, content);
        layout.write(plan, streams, coders, content)
    };
    let sums = [
        parts.shared_bytes(),
        streams.iter().map(|stream| stream.bytes.len()).sum(),
    ];
    let most = max_joint(settings.options.effort);
    let [may_join, may_join_all] = sums.map(|bytes| plan.len() + bytes <= most);
    match settings.form {
        Some(form) if form.joint => return joint(coders, form.content),
        Some(_) => return separate(),
        None if !may_join => return separate(),
        None => {}
    }
    let mut best = joint(coders, JointContent::default());
    let coder = Coders {
        only: Some(best.form.coder),
        ..coders
    };
    for all in [false, true] {
        for apart in [false, true] {
            if (all || apart) && (may_join_all || !all) {
                keep_shorter(&mut best, joint(coder, JointContent { all, apart }));
            }
        }
    }
    if !settings.known_schema {
        keep_shorter(&mut best, separate());
    }
    best
}

fn keep_shorter(best: &mut WrittenPayload, other: WrittenPayload) {
    if other.bytes.len() < best.bytes.len() {
        *best = other;
    }
}

/// How a directory is written.
pub(super) struct DirectorySettings<'a> {
    pub(super) options: EncodeOptions,
    /// The form that was chosen before.
    pub(super) form: Option<DirectoryForm>,
    /// The streams were coded by choices that were made before: without a form, as in a plan of version 1, few are tried.
    pub(super) known_schema: bool,
    /// Counts what is coded.
    pub(super) cache: Option<&'a CodedCache>,
}

/// The coders that are tried.
#[derive(Clone, Copy)]
struct Coders<'a> {
    options: EncodeOptions,
    only: Option<Coder>,
    few: bool,
    cache: Option<&'a CodedCache>,
}

/// The form of a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct DirectoryForm {
    /// Shared groups are coded with it.
    pub(super) joint: bool,
    pub(super) coder: Coder,
    pub(super) content: JointContent,
}

/// The streams that are coded with a directory: the small ones, and solid text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct JointContent {
    /// The large ones, too.
    pub(super) all: bool,
    /// But not those that no coder shortens.
    pub(super) apart: bool,
}

/// The streams of a payload whose directory is coded with them.
struct JointLayout<'a> {
    /// The streams of each kind that are coded with the directory.
    shared: Vec<Vec<usize>>,
    /// The others, by their number.
    alone: Vec<(usize, Cow<'a, Coded>)>,
}

/// The place of the form of a directory that has `bytes` with its shared groups: few bytes have another one than many.
pub(super) fn form_place(bytes: usize, effort: Effort) -> ChoiceKey {
    let size = u64::from(bytes.max(1).ilog2() / 2);
    FORM.child(2 * size + u64::from(bytes <= max_joint(effort)))
}

/// The place of the forms of a directory.
const FORM: ChoiceKey = ChoiceKey(4);

/// A payload and the form of its directory.
pub(super) struct WrittenPayload {
    pub(super) bytes: Vec<u8>,
    pub(super) form: DirectoryForm,
    /// The codec of directory and plan, with the shared groups if they are coded together.
    pub(super) directory_codec: Codec,
    /// Their packed bytes.
    pub(super) directory_bytes: usize,
}

/// A group and its raw length.
struct Part<'a> {
    group: &'a StreamGroup,
    raw_len: usize,
}

struct Parts<'a> {
    /// The shared group of each kind.
    shared: Vec<Option<Part<'a>>>,
    /// The streams that are alone in a group, by their number.
    alone: Vec<(usize, Part<'a>)>,
}

impl<'a> Parts<'a> {
    fn of(streams: &[RawStream], groups: &'a [StreamGroup]) -> Self {
        let mut parts = Self {
            shared: SHARED_KINDS.iter().map(|_| None).collect(),
            alone: Vec::new(),
        };
        for group in groups {
            let lengths = group
                .members
                .iter()
                .map(|&member| streams[member].bytes.len());
            let part = Part {
                group,
                raw_len: lengths.sum(),
            };
            let kind = group.members.first().map(|&member| streams[member].kind);
            let shared = SHARED_KINDS.iter().position(|&shared| Some(shared) == kind);
            match (shared, &group.members[..]) {
                (Some(kind), _) if group.is_shared() => parts.shared[kind] = Some(part),
                (_, &[member]) => parts.alone.push((member, part)),
                _ => {}
            }
        }
        parts.alone.sort_by_key(|(member, _)| *member);
        parts
    }

    fn mask(&self) -> u8 {
        let used = self.shared.iter().enumerate();
        used.fold(0, |mask, (kind, part)| {
            mask | u8::from(part.is_some()) << kind
        })
    }

    fn shared_bytes(&self) -> usize {
        let shared = self.shared.iter().flatten();
        shared.map(|part| part.raw_len).sum()
    }

    /// The directory coded alone, then all groups.
    fn separate(&self, plan: &[u8], coders: Coders<'_>) -> WrittenPayload {
        let mut directory = vec![self.mask()];
        for part in self.shared.iter().flatten() {
            put_group(&part.group.coded, part.raw_len, &mut directory);
        }
        let alone = self.alone.iter();
        put_alone(
            alone.map(|(number, part)| (*number, &part.group.coded, part.raw_len)),
            &mut directory,
        );
        directory.extend_from_slice(plan);
        let coded = coders.code(&directory);
        let mut payload = Vec::new();
        put_group(&coded, directory.len(), &mut payload);
        payload.extend_from_slice(&coded.bytes);
        for part in self.shared.iter().flatten() {
            payload.extend_from_slice(&part.group.coded.bytes);
        }
        self.put_alone_bytes(&mut payload);
        WrittenPayload::of(payload, None, &coded)
    }

    fn layout(&self, streams: &[RawStream], content: JointContent) -> JointLayout<'a> {
        let position = |number: usize| {
            let kind = streams[number].kind;
            SHARED_KINDS.iter().position(|&shared| shared == kind)
        };
        let members = |part: &Option<Part<'a>>| match part {
            Some(part) => part.group.members.clone(),
            None => Vec::new(),
        };
        let mut shared: Vec<Vec<usize>> = self.shared.iter().map(members).collect();
        let mut alone: Vec<(usize, Cow<'a, Coded>)> = Vec::new();
        for (number, part) in &self.alone {
            match position(*number).filter(|_| content.all) {
                Some(kind) => shared[kind].push(*number),
                None => alone.push((*number, Cow::Borrowed(&part.group.coded))),
            }
        }
        for list in &mut shared {
            list.sort_unstable();
            if content.apart {
                let apart = list.extract_if(.., |number| is_random(&streams[*number]));
                alone.extend(
                    apart.map(|number| (number, Cow::Owned(Coded::stored(&streams[number].bytes)))),
                );
            }
        }
        alone.sort_by_key(|(number, _)| *number);
        JointLayout { shared, alone }
    }

    fn put_alone_bytes(&self, payload: &mut Vec<u8>) {
        for (_, part) in &self.alone {
            payload.extend_from_slice(&part.group.coded.bytes);
        }
    }
}

/// Whether no coder shortens the bytes of a stream, and they are worth an entry in the directory.
fn is_random(stream: &RawStream) -> bool {
    const LEAST: usize = 24;
    let len = stream.bytes.len();
    len >= LEAST
        && match stream.kind {
            StreamKind::Text => false,
            StreamKind::Packed => true,
            StreamKind::Bytes | StreamKind::Rows(_) => literals_bytes(&stream.bytes) >= len,
        }
}

impl JointLayout<'_> {
    /// The directory and the shared streams coded together, then the others.
    fn write(
        &self,
        plan: &[u8],
        streams: &[RawStream],
        coders: Coders<'_>,
        content: JointContent,
    ) -> WrittenPayload {
        let used = self.shared.iter().enumerate();
        let mask = used.fold(0, |mask, (kind, list)| {
            mask | u8::from(!list.is_empty()) << kind
        });
        let mut joint = vec![mask];
        for list in self.shared.iter().filter(|list| !list.is_empty()) {
            let lengths = list.iter().map(|&member| streams[member].bytes.len());
            put_varint(&mut joint, lengths.sum::<usize>() as u64);
        }
        let alone = self.alone.iter();
        put_alone(
            alone.map(|(number, coded)| (*number, &**coded, streams[*number].bytes.len())),
            &mut joint,
        );
        put_varint(&mut joint, plan.len() as u64);
        joint.extend_from_slice(plan);
        for &member in self.shared.iter().flatten() {
            joint.extend_from_slice(&streams[member].bytes);
        }
        let coded = coders.code(&joint);
        let mut payload = vec![JOINT];
        put_group(&coded, joint.len(), &mut payload);
        payload.extend_from_slice(&coded.bytes);
        for (_, coded) in &self.alone {
            payload.extend_from_slice(&coded.bytes);
        }
        WrittenPayload::of(payload, Some(content), &coded)
    }
}

/// Appends the entries of the streams that are alone in a group: number, group, raw length.
fn put_alone<'c>(
    alone: impl ExactSizeIterator<Item = (usize, &'c Coded, usize)>,
    directory: &mut Vec<u8>,
) {
    put_varint(directory, alone.len() as u64);
    let mut next = 0;
    for (number, coded, raw_len) in alone {
        put_varint(directory, (number - next) as u64);
        next = number + 1;
        put_group(coded, raw_len, directory);
    }
}

impl WrittenPayload {
    fn of(bytes: Vec<u8>, content: Option<JointContent>, directory: &Coded) -> Self {
        Self {
            bytes,
            form: DirectoryForm {
                joint: content.is_some(),
                coder: directory.coder,
                content: content.unwrap_or_default(),
            },
            directory_codec: directory.codec,
            directory_bytes: directory.bytes.len(),
        }
    }
}

impl Coders<'_> {
    fn code(self, bytes: &[u8]) -> Coded {
        if let Some(coder) = self.only {
            return match self.cache {
                Some(cache) => cache.encode_once(bytes, coder, self.options),
                None => entropy::encode_as(bytes, coder, self.options),
            };
        }
        if self.few && self.options.may_prime(bytes.len()) {
            return entropy::encode_as(bytes, Coder::Primed, self.options);
        }
        if self.few {
            let [first, second] = FEW_PROPS.map(|props| {
                entropy::encode_as(bytes, Coder::Lzma(props, Search::Preset), self.options)
            });
            return if second.bytes.len() < first.bytes.len() {
                second
            } else {
                first
            };
        }
        let props = match bytes.len() {
            ..=FEW_BYTES if self.options.effort != Effort::Fast => &LzmaProps::SMALL[..],
            _ => &[LzmaProps::BYTES, LzmaProps::TEXT],
        };
        entropy::encode(bytes, self.options, props, Search::Preset)
    }
}

/// The settings of LZMA for a directory that are smallest most often.
const FEW_PROPS: [LzmaProps; 2] = [LzmaProps::BYTES, LzmaProps::with_contexts(2)];

/// Appends coder, raw length, and packed length unless it follows from them.
fn put_group(coded: &Coded, raw_len: usize, out: &mut Vec<u8>) {
    match coded.codec {
        Codec::Bz2 => out.push(BZ2),
        Codec::Fill => out.extend([FILL, coded.params]),
        Codec::Lzma => out.push(LZMA + coded.params),
        Codec::Stored | Codec::Columns | Codec::CompactColumns => out.push(STORED),
    }
    put_varint(out, raw_len as u64);
    if matches!(coded.codec, Codec::Bz2 | Codec::Lzma) {
        put_varint(out, coded.bytes.len() as u64);
    }
}

/// The fields of [`put_group`].
struct GroupHeader {
    codec: Codec,
    params: u8,
    raw_len: usize,
    packed_len: usize,
}

impl GroupHeader {
    /// Reads a header; `limit` bounds the raw length and is reduced by it.
    fn read(fields: &mut FieldReader<'_>, limit: &mut usize) -> Result<Self, Damage> {
        let (codec, params) = match fields.byte()? {
            STORED => (Codec::Stored, 0),
            BZ2 => (Codec::Bz2, 0),
            FILL => (Codec::Fill, fields.byte()?),
            JOINT => return Err(Damage::new("an unknown coder")),
            byte => (Codec::Lzma, byte - LZMA),
        };
        let raw_len = fields.size(*limit, "a group")?;
        *limit -= raw_len;
        let packed_len = match codec {
            Codec::Stored => raw_len,
            Codec::Fill => 0,
            _ => fields.size(usize::MAX, "a packed group")?,
        };
        Ok(Self {
            codec,
            params,
            raw_len,
            packed_len,
        })
    }

    fn decode(&self, payload: &mut FieldReader<'_>) -> Result<DecodedGroup, Damage> {
        let packed = payload.take(self.packed_len)?;
        Ok(DecodedGroup {
            bytes: entropy::decode(
                self.codec,
                self.params,
                packed,
                self.raw_len,
                FormatVersion::V2,
            )?,
            used: 0,
            codec: Some(self.codec),
            packed_len: self.packed_len,
        })
    }
}

/// A decoded directory and its groups.
pub(super) struct Directory {
    pub(super) plan: Vec<u8>,
    pub(super) shared: Vec<DecodedGroup>,
    pub(super) alone: VecDeque<(usize, DecodedGroup)>,
}

/// Reads a payload. `limit` bounds the raw bytes of all groups.
pub(super) fn read(payload: &[u8], mut limit: usize) -> Result<Directory, Damage> {
    let mut payload = FieldReader::new(payload);
    let is_joint = payload.clone().byte()? == JOINT;
    if is_joint {
        payload.byte()?;
    }
    let limit = &mut limit;
    let header = GroupHeader::read(&mut payload, limit)?;
    let bytes = header.decode(&mut payload)?.bytes;
    let mut fields = FieldReader::new(&bytes);
    let mask = fields.byte()?;
    if mask >> SHARED_KINDS.len() != 0 {
        return Err(Damage::new("an unknown kind of streams"));
    }
    let is_used = |kind: usize| mask >> kind & 1 == 1;
    let directory = if is_joint {
        let lengths = (0..SHARED_KINDS.len())
            .map(|kind| match is_used(kind) {
                true => fields.size(bytes.len(), "a group").map(Some),
                false => Ok(None),
            })
            .collect::<Result<Vec<Option<usize>>, _>>()?;
        let alone = read_alone(&mut fields, &mut payload, limit)?;
        let plan_len = fields.size(fields.remaining(), "the plan")?;
        let plan = fields.take(plan_len)?.to_vec();
        let shared = lengths
            .into_iter()
            .map(|len| {
                let bytes = fields.take(len.unwrap_or(0))?.to_vec();
                Ok(DecodedGroup {
                    packed_len: header.packed_len * bytes.len() / header.raw_len.max(1),
                    bytes,
                    used: 0,
                    codec: Some(header.codec),
                })
            })
            .collect::<Result<_, Damage>>()?;
        Directory {
            plan,
            shared,
            alone,
        }
    } else {
        let headers = (0..SHARED_KINDS.len())
            .map(|kind| match is_used(kind) {
                true => GroupHeader::read(&mut fields, limit).map(Some),
                false => Ok(None),
            })
            .collect::<Result<Vec<Option<GroupHeader>>, _>>()?;
        let mut shared = Vec::new();
        for header in headers {
            shared.push(match header {
                Some(header) => header.decode(&mut payload)?,
                None => DecodedGroup::default(),
            });
        }
        let alone = read_alone(&mut fields, &mut payload, limit)?;
        Directory {
            plan: fields.rest().to_vec(),
            shared,
            alone,
        }
    };
    if payload.remaining() + fields.remaining() > 0 {
        return Err(Damage::new("unread bytes after the streams"));
    }
    Ok(directory)
}

fn read_alone(
    fields: &mut FieldReader<'_>,
    payload: &mut FieldReader<'_>,
    limit: &mut usize,
) -> Result<VecDeque<(usize, DecodedGroup)>, Damage> {
    let mut next = 0usize;
    // Each takes a byte of the directory at least.
    (0..fields.size(fields.remaining(), "the number of groups")?)
        .map(|_| {
            let gap = fields.size(u32::MAX as usize, "a stream's number")?;
            let number = next.saturating_add(gap);
            next = number.saturating_add(1);
            let group = GroupHeader::read(fields, limit)?.decode(payload)?;
            Ok((number, group))
        })
        .collect()
}
