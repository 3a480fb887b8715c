//! How files lie in a bundle, and which files are worth one: pure functions of names and bytes.
//!
//! Files follow each other. Lines that all of them begin with, as the header of a CSV file, are written once, at the start,
//! so that the rows of all files are one table. A file that does not end with a line feed is followed by one that belongs to
//! no file.

use streampress_crds::api::pipeline::SourceFormat;
use streampress_transport::FileName;

/// The header and the first key of a file are searched in so many bytes.
const SAMPLE_BYTES: usize = 4 << 10;
const DELIMITERS: [u8; 4] = [b',', b'\t', b';', b'|'];

/// What files have in common that are packed together. Other files in one block would cost more than they save.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BundleStructure {
    /// Documents with this first byte and first key.
    Json(u8, Vec<u8>),
    /// Rows below this first row.
    RowsBelow(Vec<u8>),
    /// Rows without a header, with so many delimiters of each kind in the first one.
    Rows([usize; 4]),
    /// Other text.
    Text,
}

impl BundleStructure {
    /// The structure of a file.
    pub(super) fn of(name: &FileName, content: &[u8]) -> Self {
        let sample = &content[..content.len().min(SAMPLE_BYTES)];
        if SourceFormat::of_name(name.as_str()) == Some(SourceFormat::Csv) {
            return Self::of_rows(sample);
        }
        match sample.trim_ascii_start().first() {
            Some(&first @ (b'{' | b'[')) => Self::Json(first, first_key(sample).to_vec()),
            Some(_) | None => Self::Text,
        }
    }

    /// A first row without digits is a header. One without delimiters does not show that there are rows.
    fn of_rows(sample: &[u8]) -> Self {
        let first = first_line(sample);
        let count = |delimiter| first.iter().filter(|byte| **byte == delimiter).count();
        match DELIMITERS.map(count) {
            [0, 0, 0, 0] => Self::Text,
            counts if first.iter().any(u8::is_ascii_digit) => Self::Rows(counts),
            _ => Self::RowsBelow(first.to_vec()),
        }
    }

    fn has_lines(&self) -> bool {
        match self {
            Self::RowsBelow(_) | Self::Rows(_) | Self::Text => true,
            Self::Json(..) => false,
        }
    }
}

/// Up to the first line feed.
fn first_line(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == b'\n').next().unwrap_or_default()
}

/// The text between the first two quotes.
fn first_key(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == b'"').nth(1).unwrap_or_default()
}

/// Files in one sequence of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BundleLayout {
    /// The bundle.
    pub(super) raw: Vec<u8>,
    /// How many bytes at its start all files begin with.
    pub(super) prefix: usize,
    /// Where the rest of each file begins.
    pub(super) offsets: Vec<usize>,
}

/// The most bytes that a file of `bytes` bytes takes in a bundle.
pub(super) fn most_bytes(bytes: usize) -> usize {
    bytes.saturating_add(1)
}

/// Lays the files out in this order.
pub(super) fn lay_out(files: &[&[u8]], structure: &BundleStructure) -> BundleLayout {
    let prefix = match structure.has_lines() {
        true => shared_lines(files),
        false => 0,
    };
    let most = files.iter().map(|file| most_bytes(file.len())).sum();
    let mut raw = Vec::with_capacity(most);
    raw.extend_from_slice(files.first().map_or(&[][..], |file| &file[..prefix]));
    let mut offsets = Vec::with_capacity(files.len());
    for file in files {
        if !offsets.is_empty() && raw.last().is_some_and(|last| *last != b'\n') {
            raw.push(b'\n');
        }
        offsets.push(raw.len());
        raw.extend_from_slice(&file[prefix..]);
    }
    BundleLayout {
        raw,
        prefix,
        offsets,
    }
}

/// Bytes of the whole lines that several files begin with.
fn shared_lines(files: &[&[u8]]) -> usize {
    let [first, others @ ..] = files else {
        return 0;
    };
    if others.is_empty() {
        return 0;
    }
    let shared = others.iter().fold(first.len(), |shared, other| {
        let pairs = first.iter().zip(*other).take(shared);
        pairs.take_while(|(one, other)| one == other).count()
    });
    let line_feed = first[..shared].iter().rposition(|byte| *byte == b'\n');
    line_feed.map_or(0, |at| at + 1)
}

/// Divides `whole` among parts in proportion to their sizes, of which this part has the sizes from `before` to `before +
/// size` of `sizes`: the shares add up to the whole.
pub(crate) fn share(whole: u64, (before, size): (u64, u64), sizes: u64) -> u64 {
    let until = |size: u64| {
        let product = u128::from(whole) * u128::from(size);
        u64::try_from(product / u128::from(sizes.max(1))).unwrap_or(whole)
    };
    until(before.saturating_add(size)).saturating_sub(until(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn structure(name: &str, content: &[u8]) -> BundleStructure {
        BundleStructure::of(&FileName::parse(name).expect("a valid name"), content)
    }

    fn file<'l>(layout: &'l BundleLayout, index: usize, bytes: usize) -> Vec<u8> {
        let rest = layout.offsets[index];
        let parts: [&'l [u8]; 2] = [
            &layout.raw[..layout.prefix],
            &layout.raw[rest..rest + bytes - layout.prefix],
        ];
        parts.concat()
    }

    #[test]
    fn files_of_one_structure_are_told_from_others() {
        let orders = structure("a.csv", b"id,name\n1,x\n");
        assert_eq!(orders, structure("b.csv", b"id,name\n2,y\n"));
        assert_ne!(orders, structure("b.csv", b"id,place\n2,y\n"));
        // Without a header.
        assert_eq!(structure("a.csv", b"1,x\n"), structure("b.csv", b"2,y\n"));
        assert_ne!(structure("a.csv", b"1,x\n"), structure("b.csv", b"2,y,z\n"));
        assert_ne!(structure("a.csv", b"1,x\n"), structure("b.csv", b"2;y\n"));
        assert_eq!(structure("a.csv", b"1\n1,x\n"), BundleStructure::Text);
        let document = structure("a.json", b" [{\"id\": 1}]");
        assert_eq!(document, structure("b.txt", b"[{\"id\": 2, \"more\": 3}]"));
        assert_ne!(document, structure("b.json", b"{\"id\": 2}\n"));
        assert_ne!(document, structure("b.json", b"[{\"name\": 2}]"));
        assert_eq!(structure("a.txt", b"one"), structure("b.txt", b"2 two"));
    }

    #[test]
    fn a_header_is_written_once_and_every_file_begins_a_line() {
        let files: [&[u8]; 4] = [b"id,n\n1,a\n", b"id,n\n2,b", b"id,n\n", b"id,n\n3,c"];
        let layout = lay_out(&files, &structure("a.csv", files[0]));
        assert_eq!(layout.raw, b"id,n\n1,a\n2,b\n3,c");
        assert_eq!(
            (layout.prefix, &layout.offsets[..]),
            (5, &[5, 9, 13, 13][..])
        );
    }

    #[test]
    fn documents_follow_each_other_whole() {
        let files: [&[u8]; 2] = [b"{\n\"a\": 1\n}", b"{\n\"a\": 2\n}\n"];
        let layout = lay_out(&files, &structure("a.json", files[0]));
        assert_eq!(layout.raw, b"{\n\"a\": 1\n}\n{\n\"a\": 2\n}\n");
        assert_eq!((layout.prefix, &layout.offsets[..]), (0, &[0, 11][..]));
    }

    #[test]
    fn a_single_file_is_laid_out_as_it_is() {
        for content in [&b"id,n\n1,a"[..], b"x\n", b"{}"] {
            let layout = lay_out(&[content], &BundleStructure::Text);
            assert_eq!((&layout.raw[..], layout.prefix), (content, 0));
        }
    }

    proptest::proptest! {
        #[test]
        fn every_file_is_found_at_its_place(
            files in proptest::collection::vec("(h,k\n)?[ab\n]{0,6}", 1..6), has_lines: bool
        ) {
            let bytes: Vec<&[u8]> = files.iter().map(String::as_bytes).collect();
            let structure = match has_lines {
                true => BundleStructure::Text,
                false => BundleStructure::Json(b'{', Vec::new()),
            };
            let layout = lay_out(&bytes, &structure);
            let most: usize = bytes.iter().map(|file| most_bytes(file.len())).sum();
            proptest::prop_assert!(layout.raw.len() <= most);
            for (index, expected) in bytes.iter().enumerate() {
                proptest::prop_assert_eq!(&file(&layout, index, expected.len()), expected);
            }
        }

        #[test]
        fn shares_add_up_to_the_whole(
            whole: u64, sizes in proptest::collection::vec(1..1_000_000u64, 1..64)
        ) {
            let all: u64 = sizes.iter().sum();
            let mut before = 0;
            let mut sum = 0u64;
            for size in sizes {
                sum += share(whole, (before, size), all);
                before += size;
            }
            proptest::prop_assert_eq!(sum, whole);
        }
    }
}
