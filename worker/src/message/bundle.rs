//! Where a file lies that was packed into one block together with others.

use serde::{Deserialize, Serialize};

use super::Digest;
use super::record::RecordOwner;

/// The largest bundle in bytes: the largest block that a reader takes.
pub const MOST_BUNDLE_BYTES: u64 = 64 << 20;
/// Stands for the attempt in the records of a bundle, whose id depends on the attempts of its files.
const ATTEMPT: &str = "bundle";

/// A file's place in a bundle: the file is the first `prefix` bytes of the bundle, then the bytes from `offset` up to the
/// file's size. Bytes of a bundle that belong to no file have no meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BundlePlace {
    /// The bundle's id. Its records carry it in place of a file's.
    pub id: Digest,
    /// How many files were packed together.
    pub files: u32,
    /// Bytes of the unpacked bundle.
    pub bytes: u64,
    /// How many bytes at the bundle's start the file begins with.
    pub prefix: u64,
    /// Where in the bundle the rest of the file begins, in bytes.
    pub offset: u64,
}

impl BundlePlace {
    /// What the bundle's records are checked against.
    pub fn record_owner(&self) -> RecordOwner {
        RecordOwner::new(&self.id, ATTEMPT)
    }

    /// Whether a file of `file_bytes` bytes can lie here.
    pub(super) fn is_possible(&self, file_bytes: u64) -> bool {
        let end = file_bytes
            .checked_sub(self.prefix)
            .and_then(|rest| self.offset.checked_add(rest));
        self.bytes <= MOST_BUNDLE_BYTES
            && self.prefix <= self.bytes
            && end.is_some_and(|end| end <= self.bytes)
    }

    /// The two parts of a file of `file_bytes` bytes; `None` where the bundle is too short for it.
    pub fn parts<'b>(&self, bundle: &'b [u8], file_bytes: u64) -> Option<[&'b [u8]; 2]> {
        let prefix = usize::try_from(self.prefix).ok()?;
        let offset = usize::try_from(self.offset).ok()?;
        let rest = usize::try_from(file_bytes.checked_sub(self.prefix)?).ok()?;
        let end = offset.checked_add(rest)?;
        Some([bundle.get(..prefix)?, bundle.get(offset..end)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(bytes: u64, prefix: u64, offset: u64) -> BundlePlace {
        BundlePlace {
            id: Digest::of(b"bundle"),
            files: 2,
            bytes,
            prefix,
            offset,
        }
    }

    #[test]
    fn a_file_is_the_prefix_and_the_bytes_from_its_offset() {
        let bundle = b"h\na1\nb2\n";
        for (offset, file) in [(2, &b"h\na1\n"[..]), (5, b"h\nb2\n")] {
            let place = place(8, 2, offset);
            assert!(place.is_possible(5));
            let parts = place.parts(bundle, 5).expect("inside");
            assert_eq!(parts.concat(), file);
        }
    }

    /// Streams hold such records: their owner may not change.
    #[test]
    fn records_of_a_bundle_are_written_byte_for_byte_as_in_earlier_releases() {
        let record = place(8, 2, 5).record_owner().seal(0, b"payload");
        let hex: String = record.iter().map(|byte| format!("{byte:02x}")).collect();
        let owner = "94c7afd0656a3df45daa8d731b03879d\
                     41ee67d2cddda00309b8e6e72cac36f8";
        let content = "0000000000000007ec90915fa26ab012a89a88ecc8b47e4d";
        assert_eq!(hex, format!("53505231{owner}{content}7061796c6f6164"));
    }

    #[test]
    fn a_place_outside_its_bundle_is_not_possible() {
        for (bytes, prefix, offset, file) in [
            (9, 2, 6, 6),
            (9, 2, 8, 4),
            (9, 10, 0, 10),
            (9, 2, 6, 1),
            (9, 0, u64::MAX, 1),
            (9, 1, 0, u64::MAX),
            (MOST_BUNDLE_BYTES + 1, 0, 0, 1),
        ] {
            assert!(!place(bytes, prefix, offset).is_possible(file));
        }
    }

    proptest::proptest! {
        #[test]
        fn every_possible_place_has_its_parts_and_no_place_panics(
            bytes in 0..40u64, prefix in 0..50u64, offset in 0..50u64, file in 0..60u64
        ) {
            let place = place(bytes, prefix, offset);
            let bundle = vec![7; usize::try_from(bytes).expect("few")];
            let parts = place.parts(&bundle, file);
            proptest::prop_assert_eq!(parts.is_some(), place.is_possible(file));
            if let Some([first, rest]) = parts {
                proptest::prop_assert_eq!((first.len() + rest.len()) as u64, file);
            }
        }
    }
}
