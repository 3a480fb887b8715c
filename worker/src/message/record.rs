//! The header of every record that Streampress writes to a stream (format Hybrid): its file and attempt, its index, and
//! the hash of its payload, so that a file is never put together from wrong or reordered records. The first record of a
//! file also carries the file's trace and a description of the file, and the last says that it is the last, for readers
//! that see only the stream.
//!
//! ```text
//! offset size
//!      0    4 magic "SPR3"
//!      4   16 file: first 16 bytes of BLAKE3 of the file id
//!     20   16 attempt: first 16 bytes of BLAKE3 of the attempt's name
//!     36    4 index of this record in the file, big-endian, from 0
//!     40    4 bytes after this header of 60 bytes, big-endian
//!     44   16 first 16 bytes of BLAKE3 of those bytes
//!     60    1 flags: 1 last record of the file, 2 a trace follows, 4 a description follows
//!     61    4 packing: a random number, the same for the records that were packed at once
//!     65   25 with flag 2: trace id (16), span id (8) and flags (1) of W3C trace context, big-endian
//!      …    4 with flag 4: bytes of the description, big-endian
//!      …    … with flag 4: the description, see [`super::description`]
//!      …    … payload
//! ```
//!
//! A list of records, and records of earlier releases, have the magic "SPR1": the payload follows the header at once. In
//! "SPR2", of earlier releases, a trace stands between them, which the length and the hash leave out.

use bytes::{BufMut, Bytes, BytesMut};

use super::Digest;
use super::trace_context::{BINARY_BYTES, TraceContext};

/// Bytes before the payload, or before the trace where there is one.
const HEADER_BYTES: usize = 60;
const MAGIC: &[u8; 4] = b"SPR1";
const MAGIC_WITH_TRACE: &[u8; 4] = b"SPR2";
const MAGIC_OF_PACKING: &[u8; 4] = b"SPR3";
/// Of the flags.
const IS_LAST: u8 = 1;
const HAS_TRACE: u8 = 2;
const HAS_DESCRIPTION: u8 = 4;
/// Flags and packing.
const PACKING_BYTES: usize = 5;

/// What a record of a packed file says besides its payload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordHead {
    /// The same number for all records that were packed at once: two packings of one attempt may differ in their bytes.
    pub packing: u32,
    /// Whether it is the file's last record.
    pub is_last: bool,
    /// The trace of the file, in its first record.
    pub trace: Option<TraceContext>,
    /// What the file is, in its first record.
    pub description: Option<Bytes>,
}

impl RecordHead {
    /// Bytes of a record before its payload.
    pub(crate) fn bytes(&self) -> usize {
        let trace = self.trace.map_or(0, |_| BINARY_BYTES);
        let description = self.description.as_ref().map_or(0, |it| 4 + it.len());
        HEADER_BYTES + PACKING_BYTES + trace + description
    }

    /// The head of the record after this one.
    pub(crate) fn following(&self) -> Self {
        Self {
            packing: self.packing,
            ..Self::default()
        }
    }

    fn put(&self, rest: &mut BytesMut) {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        rest.put_u8(
            flag(self.is_last, IS_LAST)
                | flag(self.trace.is_some(), HAS_TRACE)
                | flag(self.description.is_some(), HAS_DESCRIPTION),
        );
        rest.put_u32(self.packing);
        if let Some(trace) = self.trace {
            rest.put_slice(&trace.to_bytes());
        }
        if let Some(description) = &self.description {
            rest.put_u32(length(description));
            rest.put_slice(description);
        }
    }

    /// Reads it, and leaves in `rest` the payload. `None` where it is not whole.
    fn take(rest: &mut Bytes) -> Option<Self> {
        let fixed: [u8; PACKING_BYTES] = take_array(rest)?;
        let [flags, packing @ ..] = fixed;
        let trace = match flags & HAS_TRACE {
            0 => None,
            _ => TraceContext::from_bytes(&take_array(rest)?),
        };
        let description = match flags & HAS_DESCRIPTION {
            0 => None,
            _ => {
                let bytes = usize::try_from(u32::from_be_bytes(take_array(rest)?)).ok()?;
                Some((rest.len() >= bytes).then(|| rest.split_to(bytes))?)
            }
        };
        Some(Self {
            packing: u32::from_be_bytes(packing),
            is_last: flags & IS_LAST != 0,
            trace,
            description,
        })
    }
}

fn take_array<const N: usize>(rest: &mut Bytes) -> Option<[u8; N]> {
    let array = *rest.first_chunk()?;
    *rest = rest.slice(N..);
    Some(array)
}

/// Bytes before the payload of a record without a head.
pub(crate) const PLAIN_HEADER_BYTES: usize = HEADER_BYTES;

/// A record as it is found in a stream, without a manifest that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundRecord {
    /// Whose it is.
    pub owner: RecordOwner,
    /// Its index in the file.
    pub index: u32,
    /// What it says besides; `None` for a list of records, and for a record of an earlier release.
    pub head: Option<RecordHead>,
    /// The payload.
    pub payload: Bytes,
}

impl FoundRecord {
    /// Reads a record; `None` for one of another writer, of a newer release, or a damaged one.
    pub fn read(record: &Bytes) -> Option<Self> {
        let (head, payload) = parts(record)?;
        let owner = RecordOwner {
            file: *record[4..].first_chunk()?,
            attempt: *record[20..].first_chunk()?,
        };
        let index = u32::from_be_bytes(*record[36..].first_chunk()?);
        Some(Self {
            owner,
            index,
            head,
            payload,
        })
    }
}

/// The trace that a record carries, of any file: no manifest is needed. `None` where there is none or where it is not
/// well-formed, which is no error.
pub fn trace_of(record: &[u8]) -> Option<TraceContext> {
    let rest = record.get(HEADER_BYTES..)?;
    match record.first_chunk()? {
        MAGIC_WITH_TRACE => TraceContext::from_bytes(rest.first_chunk()?),
        MAGIC_OF_PACKING if rest.first()? & HAS_TRACE != 0 => {
            TraceContext::from_bytes(rest[PACKING_BYTES.min(rest.len())..].first_chunk()?)
        }
        _ => None,
    }
}

/// A record's head, where it has one, and its payload; `None` where it is not whole, or of another writer.
fn parts(record: &Bytes) -> Option<(Option<RecordHead>, Bytes)> {
    if record.len() < HEADER_BYTES {
        return None;
    }
    let mut rest = record.slice(HEADER_BYTES..);
    let magic = record.first_chunk()?;
    match magic {
        MAGIC | MAGIC_OF_PACKING => {}
        MAGIC_WITH_TRACE if rest.len() >= BINARY_BYTES => rest = rest.slice(BINARY_BYTES..),
        _ => return None,
    }
    let is_whole =
        record[40..44] == length(&rest).to_be_bytes() && record[44..60] == first_16(&rest);
    if !is_whole {
        return None;
    }
    let head = match magic {
        MAGIC_OF_PACKING => Some(RecordHead::take(&mut rest)?),
        _ => None,
    };
    Some((head, rest))
}

/// Whether a record has a header of some release, and of which: the digit of its magic.
fn release_of(record: &[u8]) -> Option<u8> {
    match *record.first_chunk()? {
        [b'S', b'P', b'R', digit @ b'1'..=b'9'] if record.len() >= HEADER_BYTES => Some(digit),
        _ => None,
    }
}

/// The file that records belong to, and the attempt that wrote them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordOwner {
    file: [u8; 16],
    attempt: [u8; 16],
}

/// Why a record is not the one that a manifest names.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecordError {
    /// Too short, or without the magic.
    #[error("record {index} was not written by Streampress ({bytes} bytes)")]
    Foreign {
        /// The record's index in the file.
        index: u32,
        /// Its size.
        bytes: usize,
    },
    /// Of a later release, which wrote another header.
    #[error("record {index} was written by a newer release; update this worker")]
    Newer {
        /// The record's index in the file.
        index: u32,
    },
    /// Has another file, attempt or index.
    #[error("record {index} belongs to another file or attempt, or has another index")]
    Misplaced {
        /// The index it should have had.
        index: u32,
    },
    /// The payload is not what was written.
    #[error("record {index} is damaged: its payload does not have the hash in its header")]
    Damaged {
        /// The record's index in the file.
        index: u32,
    },
}

impl RecordOwner {
    /// For the records of one file, written by one attempt.
    pub fn new(file_id: &Digest, attempt: &str) -> Self {
        Self {
            file: first_16(file_id.as_str().as_bytes()),
            attempt: first_16(attempt.as_bytes()),
        }
    }

    /// A record of a list of records: the header, then `payload`.
    pub fn seal(&self, index: u32, payload: &[u8]) -> Bytes {
        let mut record = self.header(MAGIC, index, payload, payload.len());
        record.put_slice(payload);
        record.freeze()
    }

    /// A record of a packed file: the header, then what `head` says, then `payload`.
    pub fn seal_packed(&self, index: u32, payload: &[u8], head: &RecordHead) -> Bytes {
        let mut rest = BytesMut::with_capacity(head.bytes() - HEADER_BYTES + payload.len());
        head.put(&mut rest);
        rest.put_slice(payload);
        let mut record = self.header(MAGIC_OF_PACKING, index, &rest, rest.len());
        record.put_slice(&rest);
        record.freeze()
    }

    /// The header of a record with the bytes `hashed`, with capacity for `more` bytes after it.
    fn header(&self, magic: &[u8; 4], index: u32, hashed: &[u8], more: usize) -> BytesMut {
        let mut record = BytesMut::with_capacity(HEADER_BYTES + more);
        record.put_slice(magic);
        record.put_slice(&self.file);
        record.put_slice(&self.attempt);
        record.put_u32(index);
        record.put_u32(length(hashed));
        record.put_slice(&first_16(hashed));
        record
    }

    /// Checks that `record` is this owner's record `index` and undamaged; returns the payload.
    pub fn open(&self, index: u32, record: &Bytes) -> Result<Bytes, RecordError> {
        match release_of(record) {
            Some(b'1'..=b'3') => {}
            Some(_) => return Err(RecordError::Newer { index }),
            None => {
                let bytes = record.len();
                return Err(RecordError::Foreign { index, bytes });
            }
        }
        let expected = record[4..20] == self.file
            && record[20..36] == self.attempt
            && record[36..40] == index.to_be_bytes();
        if !expected {
            return Err(RecordError::Misplaced { index });
        }
        match parts(record) {
            Some((_, payload)) => Ok(payload),
            None => Err(RecordError::Damaged { index }),
        }
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a record is at most 10 MiB")
}

fn first_16(bytes: &[u8]) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(attempt: &str) -> RecordOwner {
        RecordOwner::new(&Digest::of(b"file"), attempt)
    }

    fn trace() -> TraceContext {
        TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
            .expect("well-formed")
    }

    fn head(trace: Option<TraceContext>) -> RecordHead {
        RecordHead {
            packing: 7,
            is_last: true,
            trace,
            description: trace.map(|_| Bytes::from_static(b"described")),
        }
    }

    /// A record as an earlier release wrote it.
    fn earlier(index: u32, payload: &[u8], trace: Option<TraceContext>) -> Bytes {
        let magic = trace.map_or(MAGIC, |_| MAGIC_WITH_TRACE);
        let mut record = owner("a").header(magic, index, payload, 0);
        if let Some(trace) = trace {
            record.put_slice(&trace.to_bytes());
        }
        record.put_slice(payload);
        record.freeze()
    }

    /// Records of every form, with whether they carry a trace.
    fn forms(index: u32, payload: &[u8]) -> [(Bytes, Option<TraceContext>); 4] {
        let packed = |trace| owner("a").seal_packed(index, payload, &head(trace));
        [
            (earlier(index, payload, None), None),
            (earlier(index, payload, Some(trace())), Some(trace())),
            (packed(None), None),
            (packed(Some(trace())), Some(trace())),
        ]
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_record_is_opened_by_its_owner_and_its_trace_is_read_without_one() {
        for (record, trace) in forms(3, b"payload") {
            assert_eq!(
                owner("a").open(3, &record).expect("its record"),
                Bytes::from_static(b"payload")
            );
            assert_eq!(trace_of(&record), trace);
        }
    }

    #[test]
    fn a_record_is_found_without_a_manifest_and_says_whose_it_is() {
        for (record, trace) in forms(3, b"payload") {
            let found = FoundRecord::read(&record).expect("a record");
            assert_eq!((found.owner, found.index), (owner("a"), 3));
            assert_eq!(found.payload, Bytes::from_static(b"payload"));
            if record.starts_with(MAGIC_OF_PACKING) {
                assert_eq!(found.head, Some(head(trace)));
                assert_eq!(record.len(), head(trace).bytes() + 7);
            } else {
                assert_eq!(found.head, None);
            }
        }
    }

    /// Streams hold records of all forms: none may change.
    #[test]
    fn records_are_written_byte_for_byte_as_in_earlier_releases() {
        let owners = "b87ecfad95aef3b9a99b9a390e359092\
                      17762fddd969a453925d65717ac3eea2";
        let content = "0000000300000007ec90915fa26ab012a89a88ecc8b47e4d";
        let context = "4bf92f3577b34da6a3ce929d0e0e473600f067aa0ba902b701";
        let payload = "7061796c6f6164";
        let list = hex(&owner("a").seal(3, b"payload"));
        assert_eq!(list, format!("53505231{owners}{content}{payload}"));
        assert_eq!(hex(&earlier(3, b"payload", None)), list);
        assert_eq!(
            hex(&earlier(3, b"payload", Some(trace()))),
            format!("53505232{owners}{content}{context}{payload}")
        );
        let packed = hex(&owner("a").seal_packed(3, b"payload", &head(Some(trace()))));
        let described = "00000009646573637269626564";
        let rest = format!("0700000007{context}{described}{payload}");
        let hash = hex(&first_16(
            &owner("a").seal_packed(3, b"payload", &head(Some(trace())))[60..],
        ));
        assert_eq!(
            packed,
            format!("53505233{owners}0000000300000032{hash}{rest}")
        );
    }

    #[test]
    fn a_record_of_another_attempt_or_index_is_refused() {
        for (record, _) in forms(3, b"payload") {
            assert_eq!(
                owner("b").open(3, &record),
                Err(RecordError::Misplaced { index: 3 })
            );
            assert_eq!(
                owner("a").open(4, &record),
                Err(RecordError::Misplaced { index: 4 })
            );
        }
    }

    #[test]
    fn a_record_of_a_newer_release_is_named_as_such() {
        let mut record = owner("a").seal(0, b"payload").to_vec();
        record[3] = b'4';
        let newer = owner("a").open(0, &record.into());
        assert_eq!(newer, Err(RecordError::Newer { index: 0 }));
    }

    #[test]
    fn every_flipped_or_missing_byte_is_noticed() {
        for (record, _) in forms(0, b"some payload") {
            let is_earlier = record.starts_with(MAGIC_WITH_TRACE);
            for at in 0..record.len() {
                let cut = record.slice(..at);
                assert!(owner("a").open(0, &cut).is_err(), "cut at {at}");
                if is_earlier && (HEADER_BYTES..HEADER_BYTES + BINARY_BYTES).contains(&at) {
                    // No result depends on the trace, so it may be another one.
                    assert_eq!(trace_of(&cut), None, "cut at {at}");
                    continue;
                }
                let mut bytes = record.to_vec();
                bytes[at] ^= 1;
                assert!(owner("a").open(0, &bytes.into()).is_err(), "flip at {at}");
            }
        }
    }

    #[test]
    fn a_trace_that_is_not_well_formed_is_ignored_and_is_no_error() {
        let record = earlier(0, b"payload", Some(trace()));
        for nothing in [60..76, 76..84] {
            let mut bytes = record.to_vec();
            bytes[nothing].fill(0);
            assert_eq!(trace_of(&bytes), None);
            assert!(owner("a").open(0, &bytes.into()).is_ok());
        }
        // Unknown flags are not passed on.
        let mut bytes = record.to_vec();
        bytes[84] = 0xff;
        let flags = trace_of(&bytes).map(|context| context.flags);
        assert_eq!(flags, Some(0b11));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_in_a_stream_are_judged_without_a_panic(
            magic in 0..4usize, rest in proptest::collection::vec(proptest::num::u8::ANY, 0..200)
        ) {
            let begun = [&MAGIC[..], MAGIC_WITH_TRACE, MAGIC_OF_PACKING, b""][magic];
            let record = Bytes::from([begun, &rest].concat());
            // No random bytes have the owner's hashes.
            proptest::prop_assert!(owner("a").open(0, &record).is_err());
            proptest::prop_assert!(FoundRecord::read(&record).is_none());
            let carried = trace_of(&record);
            proptest::prop_assert!(carried.is_none() || record.len() >= 85);
        }

        #[test]
        fn any_payload_and_head_are_read_as_written(
            index: u32,
            payload in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
            description in proptest::option::of(proptest::collection::vec(proptest::num::u8::ANY, 0..200)),
            (traced, is_last, packing) in proptest::prelude::any::<(bool, bool, u32)>()
        ) {
            let trace = traced.then(TraceContext::start);
            let head = RecordHead { packing, is_last, trace, description: description.map(Bytes::from) };
            let record = owner("a").seal_packed(index, &payload, &head);
            proptest::prop_assert_eq!(trace_of(&record), trace);
            let found = FoundRecord::read(&record).and_then(|found| found.head);
            proptest::prop_assert_eq!(found, Some(head));
            proptest::prop_assert_eq!(owner("a").open(index, &record), Ok(payload.into()));
        }
    }
}
