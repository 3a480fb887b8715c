//! The streams that a transform leaves, grouped, coded, and behind a directory; and back.
//!
//! Small streams of one kind share a group, so that none pays for its own headers. With effort max
//! all text is also tried as one solid group, where equal text in several columns is found.

use rayon::prelude::*;

use crate::codec::{
    Damage,
    bytes::{Reader, put_varint},
    entropy::{self, Codec, Coded, LzmaProps, Search},
    hybrid::Effort,
};

/// What a stream's bytes look like; decides the LZMA settings to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Text of any sort.
    Text,
    /// Single bytes: indexes, planes.
    Bytes,
    /// Numbers of so many bytes each, 2, 4 or 8.
    Rows(u8),
}

impl Kind {
    fn search(self) -> Search {
        match self {
            Self::Text => Search::Preset,
            Self::Bytes | Self::Rows(_) => Search::Short,
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
        }
    }
}

/// One stream before coding.
#[derive(Debug, Clone)]
pub struct RawStream {
    /// How its bytes came about, for reports.
    pub coding: &'static str,
    /// What they look like.
    pub kind: Kind,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl RawStream {
    /// The size that this stream would take alone: measured with effort balanced and max, estimated
    /// with fast.
    pub fn cost(&self, effort: Effort) -> usize {
        const HEADERS: usize = 3;
        if self.bytes.len() <= TINY {
            // It will share a group: what matters is what it adds.
            return self.bytes.len().min(order0_bytes(&self.bytes) + 4);
        }
        if is_fill(&self.bytes) {
            return HEADERS;
        }
        HEADERS
            + match (effort, self.kind) {
                (Effort::Fast, _) => order0_bytes(&self.bytes),
                (Effort::Balanced | Effort::Max, Kind::Text) => self.bz2_bytes(),
                // LZMA's literals come close to what an order-0 coder needs.
                (Effort::Balanced | Effort::Max, Kind::Bytes | Kind::Rows(_)) => self
                    .bz2_bytes()
                    .min(order0_bytes(&self.bytes) * 51 / 50 + 8),
            }
    }

    fn bz2_bytes(&self) -> usize {
        entropy::bz2(&self.bytes).map_or(self.bytes.len(), |coded| {
            coded.bytes.len().min(self.bytes.len())
        })
    }
}

/// Streams of at most so many bytes share a group with others of their kind.
const TINY: usize = 400;
/// With effort fast, streams of less are not worth their own set-up.
const TINY_FAST: usize = 2000;

/// The bytes that an ideal coder of single bytes needs.
pub fn order0_bytes(bytes: &[u8]) -> usize {
    let mut counts = [0u32; 256];
    for &byte in bytes {
        counts[usize::from(byte)] += 1;
    }
    let total = bytes.len() as f64;
    let bits: f64 = counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| f64::from(count) * (total / f64::from(count)).log2())
        .sum();
    (bits / 8.0) as usize + 1
}

fn is_fill(bytes: &[u8]) -> bool {
    bytes.len() > 1 && bytes.iter().all(|byte| *byte == bytes[0])
}

fn encode_bytes(bytes: &[u8], kind: Kind, effort: Effort) -> Coded {
    if is_fill(bytes) {
        return Coded {
            codec: Codec::Fill,
            params: bytes[0],
            bytes: Vec::new(),
        };
    }
    entropy::encode(bytes, effort, &kind.props(effort), kind.search())
}

/// Where one stream went.
#[derive(Debug, Clone, Copy)]
pub struct Placed {
    /// Its group's codec.
    pub codec: Codec,
    /// Its bytes before coding.
    pub raw_bytes: u64,
    /// Its part of the group's coded bytes.
    pub packed_bytes: u64,
}

struct Group {
    members: Vec<usize>,
    coded: Coded,
}

/// Codes all streams; answers the payload and where each stream went.
pub fn write(plan: &[u8], streams: &[RawStream], effort: Effort) -> (Vec<u8>, Vec<Placed>) {
    let groups = choose_groups(streams, effort);
    let mut of_stream = vec![0; streams.len()];
    let mut directory = Vec::new();
    put_varint(&mut directory, plan.len() as u64);
    directory.extend_from_slice(plan);
    put_varint(&mut directory, groups.len() as u64);
    for (number, group) in groups.iter().enumerate() {
        directory.extend([group.coded.codec as u8, group.coded.params]);
        put_varint(&mut directory, group.coded.bytes.len() as u64);
        for &member in &group.members {
            of_stream[member] = number;
        }
    }
    put_varint(&mut directory, streams.len() as u64);
    for (stream, group) in streams.iter().zip(&of_stream) {
        put_varint(&mut directory, *group as u64);
        put_varint(&mut directory, stream.bytes.len() as u64);
    }
    let coded = entropy::encode(
        &directory,
        effort,
        &[LzmaProps::BYTES, LzmaProps::TEXT],
        Search::Preset,
    );
    let mut payload = vec![coded.codec as u8, coded.params];
    put_varint(&mut payload, directory.len() as u64);
    put_varint(&mut payload, coded.bytes.len() as u64);
    payload.extend(coded.bytes);
    for group in &groups {
        payload.extend_from_slice(&group.coded.bytes);
    }
    let placed = place(streams, &groups, &of_stream);
    (payload, placed)
}

fn place(streams: &[RawStream], groups: &[Group], of_stream: &[usize]) -> Vec<Placed> {
    let lengths: Vec<u64> = streams
        .iter()
        .map(|stream| stream.bytes.len() as u64)
        .collect();
    let raw_of = |group: &Group| {
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

fn choose_groups(streams: &[RawStream], effort: Effort) -> Vec<Group> {
    let tiny = if effort == Effort::Fast {
        TINY_FAST
    } else {
        TINY
    };
    let mut small: std::collections::BTreeMap<Kind, Vec<usize>> = std::collections::BTreeMap::new();
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
        Effort::Fast => false,
        Effort::Balanced => groups.len() >= SOLID_GROUPS && text <= SOLID_BYTES,
        Effort::Max => true,
    };
    if worth_it {
        solid_where_smaller(streams, groups, effort)
    } else {
        groups
    }
}

/// With effort balanced, text is tried as one group where it lies in so many groups
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

/// A payload's plan and its decoded streams, handed out in order.
#[derive(Debug)]
pub struct Source {
    /// The plan that says what to do with the streams.
    pub plan: Vec<u8>,
    groups: Vec<Vec<u8>>,
    /// Group, start and length of each stream.
    streams: Vec<(usize, usize, usize)>,
    /// Where each stream lay.
    pub placed: Vec<Placed>,
    /// Column and coding of each stream handed out so far.
    pub taken: Vec<(usize, &'static str)>,
    /// The column being decoded, for reports.
    pub column: usize,
    next: usize,
}

/// The most streams and groups in a block.
const STREAM_LIMIT: usize = 1 << 20;

/// How many bytes all streams together may hold: an honest encoder falls back long before.
pub fn raw_limit(block_len: usize) -> usize {
    block_len * 4 + (64 << 10)
}

impl Source {
    /// Reads the directory and decodes every group. `block_len` bounds what comes out.
    pub fn read(payload: &[u8], block_len: usize) -> Result<Self, Damage> {
        let limit = raw_limit(block_len);
        let mut reader = Reader::new(payload);
        let (codec, params) = codec_of(&mut reader)?;
        let raw_len = reader.size(limit, "the directory")?;
        let packed_len = reader.size(payload.len(), "the packed directory")?;
        let directory = entropy::decode(codec, params, reader.take(packed_len)?, raw_len)?;
        let mut fields = Reader::new(&directory);
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
            return Err(Damage::new("bytes left over behind the streams"));
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

    /// The streams of an encoder that wants to see whether they decode.
    pub fn of_raw(plan: &[u8], streams: &[RawStream]) -> Self {
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
    pub fn next(&mut self, coding: &'static str) -> Result<Vec<u8>, Damage> {
        let &(group, start, len) = self
            .streams
            .get(self.next)
            .ok_or_else(|| Damage::new("a stream is missing"))?;
        self.next += 1;
        self.taken.push((self.column, coding));
        if start == 0 && self.groups[group].len() == len {
            return Ok(std::mem::take(&mut self.groups[group]));
        }
        self.groups[group]
            .get(start..start + len)
            .map(<[u8]>::to_vec)
            .ok_or_else(|| Damage::new("a stream is outside its group"))
    }

    /// Whether every stream was handed out.
    pub fn finish(&self) -> Result<(), Damage> {
        if self.next == self.streams.len() {
            Ok(())
        } else {
            Err(Damage::new("streams are left over"))
        }
    }
}

fn codec_of(reader: &mut Reader<'_>) -> Result<(Codec, u8), Damage> {
    let byte = reader.byte()?;
    let codec =
        Codec::from_byte(byte).ok_or_else(|| Damage::new(format!("unknown codec {byte}")))?;
    Ok((codec, reader.byte()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_come_back_whatever_their_groups() {
        let mut dice = fastrand::Rng::with_seed(5);
        let streams: Vec<RawStream> = [0usize, 1, 10, 300, 5000, 20_000, 5000]
            .into_iter()
            .enumerate()
            .flat_map(|(number, len)| {
                [Kind::Text, Kind::Bytes, Kind::Rows(4)].map(|kind| (number, len, kind))
            })
            .map(|(number, len, kind)| RawStream {
                coding: "test",
                kind,
                bytes: (0..len)
                    .map(|_| {
                        if number % 3 == 1 {
                            7
                        } else {
                            dice.u8(b'a'..b'f')
                        }
                    })
                    .collect(),
            })
            .collect();
        for effort in Effort::ALL {
            let (payload, placed) = write(b"plan", &streams, effort);
            assert_eq!(placed.len(), streams.len());
            let mut source = Source::read(&payload, 100_000).expect("reads");
            assert_eq!(source.plan, b"plan");
            for stream in &streams {
                assert_eq!(source.next("test").as_ref(), Ok(&stream.bytes));
            }
            assert_eq!(source.finish(), Ok(()));
            assert!(Source::read(&payload[..payload.len() - 1], 100_000).is_err());
            assert!(Source::read(&payload, 100).is_err());
        }
    }
}
