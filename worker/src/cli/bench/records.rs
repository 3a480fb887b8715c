//! What records take in the stream besides the packed bytes: their headers, and the descriptions of the files, as a
//! compressor writes them.

use bytes::Bytes;
use streampress_transport::{FileName, FileVersion};

use crate::message::record::RecordHead;
use crate::message::{
    BundlePlace, DescribedContent, DescribedFile, Digest, FileRef, SourceObservation,
};

/// A queue like those of the samples, and values with as many digits as those of SQS and of a clock.
const QUEUE: &str = "default-stock-market-files.fifo";
const CREATED: u64 = 1_760_000_000;
const FIRST_SEQUENCE: u64 = 18_000_000_000_000_000_000;
const SEQUENCE_STEP: u64 = 7_919;
const FIRST_NANOS: u64 = 1_760_000_000_000_000_000;
const NANOS_STEP: u64 = 12_345_678;

/// Bytes of the records of files that are packed alone, without their packed bytes.
pub(super) fn alone(files: &[(FileName, Vec<u8>)]) -> usize {
    let described = (0..).zip(files);
    let contents = described.map(|(number, (name, raw))| DescribedContent::Alone {
        attempt: Digest::of(name.as_str().as_bytes()).as_str()[..32].to_owned(),
        file: Box::new(describe(number, name, raw)),
    });
    contents.map(|content| head_bytes(&content)).sum()
}

/// Bytes of the record of a bundle of these files, without its packed bytes.
pub(super) fn bundled(files: &[(FileName, Vec<u8>)], bundle_bytes: usize) -> usize {
    let mut offset = 0;
    let described = (0..).zip(files).map(|(number, (name, raw))| {
        let place = BundlePlace {
            id: Digest::of(b"bundle"),
            files: u32::try_from(files.len()).unwrap_or(u32::MAX),
            bytes: bundle_bytes as u64,
            prefix: 0,
            offset,
        };
        offset += raw.len() as u64;
        (describe(number, name, raw), place)
    });
    head_bytes(&DescribedContent::Bundle(described.collect()))
}

fn describe(number: u64, name: &FileName, raw: &[u8]) -> DescribedFile {
    let hash = Digest::of(raw);
    DescribedFile {
        version: FileVersion::new(
            QUEUE,
            CREATED,
            (FIRST_SEQUENCE + number * SEQUENCE_STEP).into(),
        ),
        observed: Some(SourceObservation {
            announcement: hash.as_str()[..16].to_owned(),
            fingerprint: String::new(),
            is_settled: false,
            wants_reply: false,
        }),
        announced_millis: (FIRST_NANOS + number * NANOS_STEP) / 1_000_000,
        file: FileRef {
            location: "file:///data/in".to_owned(),
            name: name.clone(),
            bytes: raw.len() as u64,
            hash,
            modified_nanos: FIRST_NANOS + number * NANOS_STEP,
        },
    }
}

fn head_bytes(content: &DescribedContent) -> usize {
    let head = RecordHead {
        is_last: true,
        description: Some(Bytes::from(content.to_bytes())),
        ..RecordHead::default()
    };
    head.bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_a_bundle_take_less_than_half_of_those_of_its_files_alone() {
        let file = |number: u32| -> (FileName, Vec<u8>) {
            let name = FileName::parse(&format!("stock-{number:05}.json"));
            (name.expect("a valid name"), vec![7; 4096])
        };
        let files: Vec<_> = (0..64).map(file).collect();
        let (alone, bundled) = (alone(&files), bundled(&files, 64 * 4096));
        assert!(2 * bundled < alone, "{bundled} of {alone}");
    }
}
