//! What the first record of a packed file, or of a bundle, says of its files: enough to make their manifests anew where the
//! queues are lost. Compact, since small files share records: texts leave out what they have in common with the file before,
//! and numbers are differences.
//!
//! ```text
//! description: 1, text location, kind, varint files, each file
//! kind:        0, text attempt                                            the records hold one file
//!              1, 32 bytes id, varint bytes, varint prefix                they hold a bundle
//! file:        text name, varint bytes, 32 bytes hash, difference modifiedNanos, text fileVersion, flags,
//!              text announcement, difference announcedMillis; of a bundle: difference offset
//! flags:       1: `observed` is known, and the announcement its own; 2: it wants a reply
//! text:        varint bytes as in the file before, varint other bytes, these
//! difference:  varint of the zigzag of the difference, in 64 bits, from the file before
//! ```
//! A varint has seven bits a byte, lowest first. What follows a file's known fields is a later release's.

use bytes::Bytes;
use streampress_transport::{FileName, FileVersion};

use super::bundle::BundlePlace;
use super::record::{FoundRecord, RecordOwner};
use super::{Digest, FileRef, SourceObservation};

/// The form of the bytes.
const FORM: u8 = 1;
const ALONE: u8 = 0;
const BUNDLED: u8 = 1;
/// Of a file's flags.
const IS_OBSERVED: u8 = 1;
const WANTS_REPLY: u8 = 2;
/// Files of a bundle at most; a description that says more is none of ours.
const MOST_FILES: u64 = 1 << 16;

/// A file, as the first of its records describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedFile {
    /// The file.
    pub file: FileRef,
    /// The version that was announced.
    pub version: FileVersion,
    /// As the announcement has it, without the fingerprint.
    pub observed: Option<SourceObservation>,
    /// When it was announced, milliseconds since 1970.
    pub announced_millis: u64,
}

impl DescribedFile {
    /// The files that a record of a stream describes.
    pub(crate) fn all_of(record: &Bytes) -> Vec<Self> {
        let head = FoundRecord::read(record).and_then(|found| found.head);
        let description = head.and_then(|head| head.description);
        match description.and_then(|bytes| DescribedContent::from_bytes(&bytes)) {
            Some(DescribedContent::Alone { file, .. }) => vec![*file],
            Some(DescribedContent::Bundle(files)) => {
                files.into_iter().map(|(file, _)| file).collect()
            }
            None => Vec::new(),
        }
    }
}

/// What the records hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DescribedContent {
    /// One file, packed by this attempt.
    Alone {
        /// The attempt's name.
        attempt: String,
        /// The file.
        file: Box<DescribedFile>,
    },
    /// Several files, each at its place.
    Bundle(Vec<(DescribedFile, BundlePlace)>),
}

impl DescribedContent {
    /// Whose the records are; `None` for a bundle of no file.
    pub fn record_owner(&self) -> Option<RecordOwner> {
        match self {
            Self::Alone { attempt, file } => Some(RecordOwner::new(&file.file.id(), attempt)),
            Self::Bundle(files) => Some(files.first()?.1.record_owner()),
        }
    }

    /// The bytes in a record. Files of a bundle are of one location.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = DescriptionWriter::default();
        writer.bytes.push(FORM);
        match self {
            Self::Alone { attempt, file } => {
                writer.text(Field::Location, &file.file.location);
                writer.bytes.push(ALONE);
                writer.text(Field::Attempt, attempt);
                writer.varint(1);
                writer.file(file);
            }
            Self::Bundle(files) => {
                let first = files.first();
                writer.text(
                    Field::Location,
                    first.map_or("", |(file, _)| &file.file.location),
                );
                writer.bytes.push(BUNDLED);
                let (id, bytes, prefix) = first.map_or(([0; 32], 0, 0), |(_, place)| {
                    (place.id.to_bytes(), place.bytes, place.prefix)
                });
                writer.bytes.extend_from_slice(&id);
                writer.varint(bytes);
                writer.varint(prefix);
                writer.varint(files.len() as u64);
                for (file, place) in files {
                    writer.file(file);
                    writer.difference(Field::Offset, place.offset);
                }
            }
        }
        writer.bytes
    }

    /// Reads the bytes of a record; `None` where they are not such a description, or a later release's.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reader = DescriptionReader {
            bytes,
            before: PreviousFields::default(),
        };
        if reader.byte()? != FORM {
            return None;
        }
        let location = reader.text(Field::Location)?;
        match reader.byte()? {
            ALONE => {
                let attempt = reader.text(Field::Attempt)?;
                (reader.varint()? == 1).then_some(())?;
                let file = Box::new(reader.file(&location)?);
                Some(Self::Alone { attempt, file })
            }
            BUNDLED => {
                let id = Digest::from_bytes(reader.array()?);
                let (bytes, prefix) = (reader.varint()?, reader.varint()?);
                let count = reader.varint().filter(|count| *count <= MOST_FILES)?;
                let mut files = Vec::new();
                for _ in 0..count {
                    let file = reader.file(&location)?;
                    let place = BundlePlace {
                        id: id.clone(),
                        files: u32::try_from(count).ok()?,
                        bytes,
                        prefix,
                        offset: reader.difference(Field::Offset)?,
                    };
                    place.is_possible(file.file.bytes).then_some(())?;
                    files.push((file, place));
                }
                Some(Self::Bundle(files))
            }
            _ => None,
        }
    }
}

/// What a text or a number is compared with: the same field of the file before.
#[derive(Debug, Clone, Copy)]
enum Field {
    Location,
    Attempt,
    Name,
    Version,
    Announcement,
    Modified,
    Announced,
    Offset,
}

/// The fields of the file before.
#[derive(Debug, Default)]
struct PreviousFields {
    texts: [Vec<u8>; 5],
    numbers: [u64; 3],
}

impl PreviousFields {
    fn text(&mut self, field: Field) -> &mut Vec<u8> {
        let [location, attempt, name, version, announcement] = &mut self.texts;
        match field {
            Field::Attempt => attempt,
            Field::Name => name,
            Field::Version => version,
            Field::Announcement => announcement,
            Field::Location | Field::Modified | Field::Announced | Field::Offset => location,
        }
    }

    fn number(&mut self, field: Field) -> &mut u64 {
        let [modified, announced, offset] = &mut self.numbers;
        match field {
            Field::Announced => announced,
            Field::Offset => offset,
            _ => modified,
        }
    }
}

#[derive(Default)]
struct DescriptionWriter {
    bytes: Vec<u8>,
    before: PreviousFields,
}

impl DescriptionWriter {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.bytes.push(number.to_le_bytes()[0]);
    }

    fn text(&mut self, field: Field, text: &str) {
        let before = std::mem::replace(self.before.text(field), text.as_bytes().to_vec());
        let pairs = before.iter().zip(text.as_bytes());
        let shared = pairs.take_while(|(before, now)| before == now).count();
        self.varint(shared as u64);
        let rest = &text.as_bytes()[shared..];
        self.varint(rest.len() as u64);
        self.bytes.extend_from_slice(rest);
    }

    fn difference(&mut self, field: Field, number: u64) {
        let before = std::mem::replace(self.before.number(field), number);
        let difference = number.wrapping_sub(before).cast_signed();
        self.varint(((difference << 1) ^ (difference >> 63)).cast_unsigned());
    }

    fn file(&mut self, described: &DescribedFile) {
        let file = &described.file;
        self.text(Field::Name, file.name.as_str());
        self.varint(file.bytes);
        self.bytes.extend_from_slice(&file.hash.to_bytes());
        self.difference(Field::Modified, file.modified_nanos);
        self.text(Field::Version, &described.version.to_string());
        let observed = described.observed.as_ref();
        let flags = match observed {
            None => 0,
            Some(observed) if observed.wants_reply => IS_OBSERVED | WANTS_REPLY,
            Some(_) => IS_OBSERVED,
        };
        self.bytes.push(flags);
        let announcement = observed.map_or("", |observed| &observed.announcement);
        self.text(Field::Announcement, announcement);
        self.difference(Field::Announced, described.announced_millis);
    }
}

struct DescriptionReader<'b> {
    bytes: &'b [u8],
    before: PreviousFields,
}

impl<'b> DescriptionReader<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn text(&mut self, field: Field) -> Option<String> {
        let shared = usize::try_from(self.varint()?).ok()?;
        let more = usize::try_from(self.varint()?).ok()?;
        let rest = self.take(more)?;
        let before = self.before.text(field);
        let text = [before.get(..shared)?, rest].concat();
        before.clone_from(&text);
        String::from_utf8(text).ok()
    }

    fn difference(&mut self, field: Field) -> Option<u64> {
        let zigzag = self.varint()?;
        let difference = (zigzag >> 1) ^ (zigzag & 1).wrapping_neg();
        let before = self.before.number(field);
        *before = before.wrapping_add(difference);
        Some(*before)
    }

    fn file(&mut self, location: &str) -> Option<DescribedFile> {
        let name = FileName::parse(&self.text(Field::Name)?).ok()?;
        let bytes = self.varint()?;
        let hash = Digest::from_bytes(self.array()?);
        let modified_nanos = self.difference(Field::Modified)?;
        let version = self.text(Field::Version)?.parse().ok()?;
        let flags = self.byte()?;
        let announcement = self.text(Field::Announcement)?;
        let announced_millis = self.difference(Field::Announced)?;
        let observed = (flags & IS_OBSERVED != 0).then(|| SourceObservation {
            announcement,
            fingerprint: String::new(),
            is_settled: false,
            wants_reply: flags & WANTS_REPLY != 0,
        });
        Some(DescribedFile {
            file: FileRef {
                location: location.to_owned(),
                name,
                bytes,
                hash,
                modified_nanos,
            },
            version,
            observed,
            announced_millis,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(number: u64) -> DescribedFile {
        DescribedFile {
            file: FileRef {
                location: "file:///data/in".into(),
                name: FileName::parse(&format!("stock-{number:05}.json")).expect("a valid name"),
                bytes: 1000 + number,
                hash: Digest::of(&number.to_be_bytes()),
                modified_nanos: 1_700_000_000_000_000_000 + number * 1_000_003,
            },
            version: FileVersion::new("stock-files.fifo", 1_700_000_000, number.into()),
            observed: (!number.is_multiple_of(3)).then(|| SourceObservation {
                announcement: format!("{number:016x}"),
                fingerprint: String::new(),
                is_settled: false,
                wants_reply: number % 3 == 2,
            }),
            announced_millis: 1_700_000_000_000 - number,
        }
    }

    fn alone() -> DescribedContent {
        DescribedContent::Alone {
            attempt: "compressor-0/stock-compressor-x/3/message".into(),
            file: Box::new(described(7)),
        }
    }

    fn bundle(files: u32) -> DescribedContent {
        let place = |number: u64| BundlePlace {
            id: Digest::of(b"bundle"),
            files,
            bytes: 1 << 20,
            prefix: 5,
            offset: 5 + 1000 * number,
        };
        let files = (0..u64::from(files)).map(|number| (described(number), place(number)));
        DescribedContent::Bundle(files.collect())
    }

    #[test]
    fn what_describes_a_file_or_a_bundle_is_read_as_written() {
        for content in [alone(), bundle(1), bundle(64)] {
            let read = DescribedContent::from_bytes(&content.to_bytes());
            assert_eq!(read.as_ref(), Some(&content));
            let owner = content.record_owner().expect("has files");
            assert_eq!(read.and_then(|read| read.record_owner()), Some(owner));
        }
    }

    /// Streams hold such descriptions: their form may not change.
    #[test]
    fn a_description_is_written_byte_for_byte_as_in_earlier_releases() {
        let bytes = alone().to_bytes();
        assert_eq!(Digest::of(&bytes).as_str(), GOLDEN, "{bytes:02x?}");
    }

    const GOLDEN: &str = "1b4fb32f35321e6cc60f59abb963abf42decf3a3d757b7a8e7550b80a1fef3fe";

    #[test]
    fn a_file_of_a_bundle_takes_few_bytes() {
        let more = bundle(64).to_bytes().len() - bundle(32).to_bytes().len();
        assert!(more / 32 <= 64, "{} bytes a file", more / 32);
        assert!(alone().to_bytes().len() < 200);
    }

    #[test]
    fn what_is_cut_off_or_of_another_form_is_no_description() {
        for content in [alone(), bundle(3)] {
            let bytes = content.to_bytes();
            for at in 0..bytes.len() {
                assert_eq!(DescribedContent::from_bytes(&bytes[..at]), None);
            }
            let later = [&[2], &bytes[1..]].concat();
            assert_eq!(DescribedContent::from_bytes(&later), None);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300), at in 0..100usize
        ) {
            let _ = DescribedContent::from_bytes(&bytes);
            let mut damaged = bundle(2).to_bytes();
            damaged.splice(at.min(damaged.len()).., bytes);
            let _ = DescribedContent::from_bytes(&damaged);
        }
    }
}
