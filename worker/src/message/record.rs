//! The header of every record that Streampress writes to a stream (format Hybrid): its file and attempt, its index, and
//! the hash of its payload, so that a file is never put together from wrong or reordered records. The first record of a
//! file also carries the file's trace, for readers that see only the stream.
//!
//! ```text
//! offset size
//!      0    4 magic "SPR1"; "SPR2" where a trace is carried
//!      4   16 file: first 16 bytes of the file id
//!     20   16 attempt: first 16 bytes of BLAKE3 of the attempt's name
//!     36    4 index of this record in the file, big-endian, from 0
//!     40    4 bytes of payload, big-endian
//!     44   16 first 16 bytes of BLAKE3 of the payload
//!     60   25 only in "SPR2": trace id (16), span id (8) and flags (1) of W3C trace context, big-endian
//!  60/85    … payload
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::Digest;
use super::trace_context::{BINARY_BYTES, TraceContext};

/// Bytes before the payload, or before the trace where there is one.
const HEADER_BYTES: usize = 60;
const MAGIC: &[u8; 4] = b"SPR1";
const MAGIC_WITH_TRACE: &[u8; 4] = b"SPR2";

/// Bytes before the payload of a record that carries `trace`.
pub(crate) fn header_bytes(trace: Option<TraceContext>) -> usize {
    HEADER_BYTES + trace.map_or(0, |_| BINARY_BYTES)
}

/// The trace that a record carries, of any file: no manifest is needed. `None` where there is none or where it is not
/// well-formed, which is no error.
pub fn trace_of(record: &[u8]) -> Option<TraceContext> {
    let at = payload_at(record)?;
    TraceContext::from_bytes(record[HEADER_BYTES..at].try_into().ok()?)
}

/// Where a record's payload begins; `None` for a record of another writer.
fn payload_at(record: &[u8]) -> Option<usize> {
    let at = match record.first_chunk()? {
        MAGIC => HEADER_BYTES,
        MAGIC_WITH_TRACE => HEADER_BYTES + BINARY_BYTES,
        _ => return None,
    };
    (record.len() >= at).then_some(at)
}

/// The file that records belong to, and the attempt that wrote them.
#[derive(Debug, Clone, PartialEq, Eq)]
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

    /// The record: the header, then `payload`.
    pub fn seal(&self, index: u32, payload: &[u8], trace: Option<TraceContext>) -> Bytes {
        let length = u32::try_from(payload.len()).expect("a record is at most 10 MiB");
        let mut record = BytesMut::with_capacity(header_bytes(trace) + payload.len());
        record.put_slice(trace.map_or(MAGIC, |_| MAGIC_WITH_TRACE));
        record.put_slice(&self.file);
        record.put_slice(&self.attempt);
        record.put_u32(index);
        record.put_u32(length);
        record.put_slice(&first_16(payload));
        if let Some(trace) = trace {
            record.put_slice(&trace.to_bytes());
        }
        record.put_slice(payload);
        record.freeze()
    }

    /// Checks that `record` is this owner's record `index` and undamaged; returns the payload.
    pub fn open(&self, index: u32, record: &Bytes) -> Result<Bytes, RecordError> {
        let payload_at = payload_at(record).ok_or(RecordError::Foreign {
            index,
            bytes: record.len(),
        })?;
        let payload = record.slice(payload_at..);
        let expected = record[4..20] == self.file
            && record[20..36] == self.attempt
            && record[36..40] == index.to_be_bytes();
        if !expected {
            return Err(RecordError::Misplaced { index });
        }
        let whole = u32::try_from(payload.len()).is_ok_and(|n| record[40..44] == n.to_be_bytes())
            && record[44..60] == first_16(&payload);
        if whole {
            Ok(payload)
        } else {
            Err(RecordError::Damaged { index })
        }
    }
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

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_record_is_opened_by_its_owner_and_its_trace_is_read_without_one() {
        for trace in [None, Some(trace())] {
            let record = owner("a").seal(3, b"payload", trace);
            assert_eq!(record.len(), header_bytes(trace) + 7);
            assert_eq!(
                owner("a").open(3, &record).expect("its record"),
                Bytes::from_static(b"payload")
            );
            assert_eq!(trace_of(&record), trace);
        }
    }

    /// Streams hold records of both forms: neither form may change.
    #[test]
    fn records_are_written_byte_for_byte_as_in_earlier_releases() {
        let owners = "b87ecfad95aef3b9a99b9a390e359092\
                      17762fddd969a453925d65717ac3eea2";
        let content = "0000000300000007ec90915fa26ab012a89a88ecc8b47e4d";
        let context = "4bf92f3577b34da6a3ce929d0e0e473600f067aa0ba902b701";
        let payload = "7061796c6f6164";
        let sealed = |trace| hex(&owner("a").seal(3, b"payload", trace));
        assert_eq!(sealed(None), format!("53505231{owners}{content}{payload}"));
        assert_eq!(
            sealed(Some(trace())),
            format!("53505232{owners}{content}{context}{payload}")
        );
    }

    #[test]
    fn a_record_of_another_attempt_or_index_is_refused() {
        for trace in [None, Some(trace())] {
            let record = owner("a").seal(3, b"payload", trace);
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
    fn every_flipped_or_missing_byte_is_noticed() {
        for trace in [None, Some(trace())] {
            let record = owner("a").seal(0, b"some payload", trace);
            for at in 0..record.len() {
                let cut = record.slice(..at);
                assert!(owner("a").open(0, &cut).is_err(), "cut at {at}");
                if (HEADER_BYTES..header_bytes(trace)).contains(&at) {
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
        let record = owner("a").seal(0, b"payload", Some(trace()));
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
            magic in 0..3usize, rest in proptest::collection::vec(proptest::num::u8::ANY, 0..200)
        ) {
            let begun = [&MAGIC[..], MAGIC_WITH_TRACE, b""][magic];
            let record = Bytes::from([begun, &rest].concat());
            // No random bytes have the owner's hashes.
            proptest::prop_assert!(owner("a").open(0, &record).is_err());
            let carried = trace_of(&record);
            proptest::prop_assert!(carried.is_none() || record.len() >= 85);
        }

        #[test]
        fn any_payload_and_trace_are_read_as_written(
            index: u32, payload in proptest::collection::vec(proptest::num::u8::ANY, 0..200), traced: bool
        ) {
            let trace = traced.then(TraceContext::start);
            let record = owner("a").seal(index, &payload, trace);
            proptest::prop_assert_eq!(trace_of(&record), trace);
            proptest::prop_assert_eq!(owner("a").open(index, &record), Ok(payload.into()));
        }
    }
}
