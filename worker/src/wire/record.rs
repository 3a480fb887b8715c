//! The header of every record that Streampress writes to a stream (format Hybrid): whose record it is, which one,
//! and the hash of what it carries, so that order, count and luck are never needed to put a file together.
//!
//! ```text
//! offset size
//!      0    4 magic "SPR1"
//!      4   16 file: first 16 bytes of the file id
//!     20   16 attempt: first 16 bytes of BLAKE3 of the attempt's name
//!     36    4 index of this record in the file, big-endian, from 0
//!     40    4 bytes of payload, big-endian
//!     44   16 first 16 bytes of BLAKE3 of the payload
//!     60    … payload
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::Digest;

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 60;
const MAGIC: &[u8; 4] = b"SPR1";

/// Whose records these are: a file and the attempt that wrote them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    file: [u8; 16],
    attempt: [u8; 16],
}

/// Why a record is not the one that a manifest names.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecordError {
    /// Too short, or not begun with the magic.
    #[error("record {index} is not one of ours ({bytes} bytes)")]
    Foreign {
        /// The record's place in the file.
        index: u32,
        /// Its size.
        bytes: usize,
    },
    /// Belongs to another file, attempt or place.
    #[error("record {index} belongs to another file, attempt or place")]
    Misplaced {
        /// The place it should have had.
        index: u32,
    },
    /// The payload is not what was written.
    #[error("record {index} is damaged: its payload does not have the hash in its header")]
    Damaged {
        /// The record's place in the file.
        index: u32,
    },
}

impl Owner {
    /// For the records of one file, written by one attempt.
    pub fn new(file_id: &Digest, attempt: &str) -> Self {
        Self {
            file: first_16(file_id.as_str().as_bytes()),
            attempt: first_16(attempt.as_bytes()),
        }
    }

    /// Puts the header before `payload`.
    pub fn seal(&self, index: u32, payload: &[u8]) -> Bytes {
        let length = u32::try_from(payload.len()).expect("a record is at most 10 MiB");
        let mut record = BytesMut::with_capacity(HEADER_BYTES + payload.len());
        record.put_slice(MAGIC);
        record.put_slice(&self.file);
        record.put_slice(&self.attempt);
        record.put_u32(index);
        record.put_u32(length);
        record.put_slice(&first_16(payload));
        record.put_slice(payload);
        record.freeze()
    }

    /// Checks that `record` is number `index` of this owner and whole; gives the payload.
    pub fn open(&self, index: u32, record: &Bytes) -> Result<Bytes, RecordError> {
        if record.len() < HEADER_BYTES || &record[..4] != MAGIC {
            return Err(RecordError::Foreign {
                index,
                bytes: record.len(),
            });
        }
        let payload = record.slice(HEADER_BYTES..);
        let ours = record[4..20] == self.file
            && record[20..36] == self.attempt
            && record[36..40] == index.to_be_bytes();
        if !ours {
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

    fn owner(attempt: &str) -> Owner {
        Owner::new(&Digest::of(b"file"), attempt)
    }

    #[test]
    fn a_record_gives_its_payload_back() {
        let record = owner("a").seal(3, b"payload");
        assert_eq!(
            owner("a").open(3, &record).expect("ours"),
            Bytes::from_static(b"payload")
        );
    }

    #[test]
    fn a_record_of_another_attempt_or_place_is_not_taken() {
        let record = owner("a").seal(3, b"payload");
        assert_eq!(
            owner("b").open(3, &record),
            Err(RecordError::Misplaced { index: 3 })
        );
        assert_eq!(
            owner("a").open(4, &record),
            Err(RecordError::Misplaced { index: 4 })
        );
    }

    #[test]
    fn every_flipped_or_missing_byte_is_noticed() {
        let record = owner("a").seal(0, b"some payload");
        for at in 0..record.len() {
            let mut bytes = record.to_vec();
            bytes[at] ^= 1;
            assert!(owner("a").open(0, &bytes.into()).is_err(), "flip at {at}");
            assert!(
                owner("a").open(0, &record.slice(..at)).is_err(),
                "cut at {at}"
            );
        }
    }
}
