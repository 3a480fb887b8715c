//! A segment file: a header, then records one after another, each with what it takes to tell that it is whole and
//! where it belongs. Only ever appended to; a half-written end is never read, since its position was never returned.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::FileExt;

use bytes::Bytes;

/// Begins every segment; the last byte is the layout's version.
const MAGIC: &[u8; 8] = b"SPRSEG\0\x01";
/// Of the first frame, in bytes.
pub(super) const FIRST_OFFSET: u64 = MAGIC.len() as u64;
/// Bytes in front of every record: length (4, little-endian), reserved (4), hash of the data (8), and a hash of all
/// that, of the segment's name and of the place in it (8).
pub(super) const FRAME_BYTES: usize = 24;
/// Linux takes at most 1024 slices at once.
const MAX_SLICES: usize = 512;

/// A record with its data's hash, made by the caller so that the writer does not have to.
#[derive(Debug)]
pub(super) struct Hashed {
    data: Bytes,
    hash: [u8; 8],
}

impl Hashed {
    pub(super) fn new(data: Bytes) -> Self {
        let hash = short_hash(&data);
        Self { data, hash }
    }

    pub(super) fn len(&self) -> usize {
        self.data.len()
    }
}

/// Why a record cannot be read.
#[derive(Debug)]
pub(super) enum ReadFault {
    /// There is no whole record of this length at this place.
    Missing,
    /// The disk failed.
    Io(io::Error),
}

impl From<io::Error> for ReadFault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Missing,
            _ => Self::Io(error),
        }
    }
}

/// Writes the header; answers the offset behind it.
pub(super) fn begin(file: &mut File) -> io::Result<u64> {
    file.write_all(MAGIC)?;
    Ok(MAGIC.len() as u64)
}

/// Appends `records` at `offset`, the file's end; answers where each begins and the new end.
pub(super) fn append(
    file: &mut File,
    name: &str,
    mut offset: u64,
    records: &[Hashed],
) -> io::Result<(Vec<u64>, u64)> {
    let mut starts = Vec::with_capacity(records.len());
    let mut frames = Vec::with_capacity(records.len());
    for record in records {
        let bytes = u32::try_from(record.len()).map_err(io::Error::other)?;
        starts.push(offset);
        frames.push(frame(name, offset, bytes, record.hash));
        offset += (FRAME_BYTES + record.len()) as u64;
    }
    let mut slices: Vec<IoSlice<'_>> = frames
        .iter()
        .zip(records)
        .flat_map(|(frame, record)| [IoSlice::new(frame), IoSlice::new(&record.data)])
        .collect();
    write_all(file, &mut slices)?;
    Ok((starts, offset))
}

/// Reads the record of `bytes` bytes at `offset` and checks it; 0 stands for a length that is not known (the Python
/// original's messages carry none). Allocates only what the file has.
pub(super) fn read(
    file: &File,
    file_bytes: u64,
    name: &str,
    offset: u64,
    bytes: u32,
) -> Result<Bytes, ReadFault> {
    let fits = |bytes: u32| {
        offset
            .checked_add(FRAME_BYTES as u64 + u64::from(bytes))
            .is_some_and(|end| end <= file_bytes)
    };
    if !fits(bytes) {
        return Err(ReadFault::Missing);
    }
    let mut head = [0; FRAME_BYTES];
    file.read_exact_at(&mut head, offset)?;
    let bytes = if bytes == 0 {
        u32::from_le_bytes([head[0], head[1], head[2], head[3]])
    } else {
        bytes
    };
    if !fits(bytes) {
        return Err(ReadFault::Missing);
    }
    let mut hash = [0; 8];
    hash.copy_from_slice(&head[8..16]);
    if head != frame(name, offset, bytes, hash) {
        return Err(ReadFault::Missing);
    }
    let mut data = vec![0; bytes as usize];
    file.read_exact_at(&mut data, offset + FRAME_BYTES as u64)?;
    if short_hash(&data) != hash {
        return Err(ReadFault::Missing);
    }
    Ok(data.into())
}

/// What stands at `offset` of a segment: the record's data where it is whole, and where the next one begins. `None` at the end.
pub(super) fn read_on(
    file: &File,
    file_bytes: u64,
    name: &str,
    offset: u64,
) -> io::Result<Option<(Option<Bytes>, u64)>> {
    let mut offset = offset.max(FIRST_OFFSET);
    while offset + FRAME_BYTES as u64 <= file_bytes {
        let Some(bytes) = data_bytes(file, name, offset)? else {
            // A damaged frame, or an end that was half-written: the next one is found by its hash.
            offset += 1;
            continue;
        };
        let end = offset + FRAME_BYTES as u64 + u64::from(bytes);
        return match read(file, file_bytes, name, offset, bytes) {
            Ok(data) => Ok(Some((Some(data), end))),
            Err(ReadFault::Missing) => Ok(Some((None, end))),
            Err(ReadFault::Io(error)) => Err(error),
        };
    }
    Ok(None)
}

/// The length of the record whose frame stands at `offset`; `None` where there is no frame.
fn data_bytes(file: &File, name: &str, offset: u64) -> io::Result<Option<u32>> {
    let mut head = [0; FRAME_BYTES];
    file.read_exact_at(&mut head, offset)?;
    let bytes = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let mut hash = [0; 8];
    hash.copy_from_slice(&head[8..16]);
    Ok((head == frame(name, offset, bytes, hash)).then_some(bytes))
}

fn frame(name: &str, offset: u64, bytes: u32, data_hash: [u8; 8]) -> [u8; FRAME_BYTES] {
    let mut frame = [0; FRAME_BYTES];
    frame[..4].copy_from_slice(&bytes.to_le_bytes());
    frame[8..16].copy_from_slice(&data_hash);
    let mut hasher = blake3::Hasher::new();
    hasher.update(&frame[..16]);
    hasher.update(&offset.to_le_bytes());
    hasher.update(name.as_bytes());
    frame[16..].copy_from_slice(&first_eight(&hasher.finalize()));
    frame
}

fn short_hash(data: &[u8]) -> [u8; 8] {
    first_eight(&blake3::hash(data))
}

fn first_eight(hash: &blake3::Hash) -> [u8; 8] {
    let mut short = [0; 8];
    short.copy_from_slice(&hash.as_bytes()[..8]);
    short
}

fn write_all(file: &mut File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        let many = slices.len().min(MAX_SLICES);
        match file.write_vectored(&slices[..many]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::contract_tests::fuzz;

    const NAME: &str = "0000000000000001";

    /// A record is found after any damage before it, and none is made up.
    #[test]
    fn any_segment_is_read_or_refused() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/fuzz/segment");
        fuzz(&corpus, |bytes| {
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(bytes).expect("written");
            let size = bytes.len() as u64;
            let (mut offset, mut whole, mut damaged) = (0, 0, 0);
            while let Some((data, end)) = read_on(&file, size, NAME, offset).expect("readable") {
                assert!(end > offset);
                match data {
                    Some(data) => {
                        whole += 1;
                        let start = end - (FRAME_BYTES + data.len()) as u64;
                        let again = read(&file, size, NAME, start, 0).expect("whole");
                        assert_eq!(again, data);
                    }
                    None => damaged += 1,
                }
                offset = end;
            }
            for offset in [0, FIRST_OFFSET, size / 2, size, u64::MAX] {
                let _ = read(&file, size, NAME, offset, 0);
                let _ = read(&file, size, NAME, offset, u32::MAX);
            }
            format!("{whole} {damaged}")
        });
    }
}
