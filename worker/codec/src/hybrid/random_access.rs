//! Single blocks of a packed file in any order, by the index in its end frame.

use std::io::{Read, Seek, SeekFrom};

use super::{
    Limits,
    compact_frame::{self, CompactFrame},
    frame::{
        self, BLOCK_HEADER_BYTES, BlockHeader, END_TAIL_BYTES, EndFrame, FILE_HEADER_BYTES,
        HashPrefix, TAIL_MAGIC,
    },
    frame_reader::damaged,
};
use crate::{CodecError, FormatVersion};

/// The last bytes of a file: the end frame's length and its magic.
const TAIL_BYTES: usize = 8;

/// Random access to the blocks of a packed file. Opening reads the header and the end frame only.
///
/// One byte of the raw file, by unpacking its block alone:
///
/// ```
/// # use std::{io::Cursor, sync::atomic::AtomicBool};
/// # use streampress_codec::hybrid::{Blocks, CodecOptions, Limits, pack};
/// # let raw = vec![7; 20_000];
/// # let mut packed = Vec::new();
/// # let options = CodecOptions { block_size: 4096, ..CodecOptions::default() };
/// # let sink = |frame: &[u8]| { packed.extend_from_slice(frame); Ok(()) };
/// # pack(&raw[..], sink, &options, &AtomicBool::new(false))?;
/// let mut blocks = Blocks::open(Cursor::new(packed), &Limits::default())?;
/// let offset = 10_000;
/// let block = blocks.block_of(offset).expect("the file is longer");
/// let (start, _) = blocks.raw_range(block).expect("the block exists");
/// let byte = blocks.read(block)?[(offset - start) as usize];
/// # assert_eq!(byte, 7);
/// # Ok::<(), streampress_codec::CodecError>(())
/// ```
#[derive(Debug)]
pub struct Blocks<R> {
    reader: R,
    block_limit: usize,
    end: EndFrame,
    /// The offset of each block's header, and of its first byte in the raw file.
    starts: Vec<(u64, u64)>,
}

impl<R: Read + Seek> Blocks<R> {
    /// Reads the header and the index, which must match the file's length to the byte. Version 2 has no
    /// index: the headers of all blocks are read.
    ///
    /// # Errors
    /// If the file is not packed, is cut short, or does not match its index.
    pub fn open(mut reader: R, limits: &Limits) -> Result<Self, CodecError> {
        reader.seek(SeekFrom::Start(0)).map_err(CodecError::Read)?;
        let first = read_up_to(&mut reader, FILE_HEADER_BYTES)?;
        let file_len = reader.seek(SeekFrom::End(0)).map_err(CodecError::Read)?;
        let mut blocks = Self {
            reader,
            block_limit: limits.block_bytes,
            end: EndFrame {
                version: FormatVersion::V2,
                raw_bytes: 0,
                hash: HashPrefix::from_bytes(&[]),
                index: Vec::new(),
            },
            starts: Vec::new(),
        };
        if first.starts_with(&compact_frame::file_header()) {
            blocks.read_headers(file_len)?;
        } else {
            frame::check_version(&first)?;
            let header = first.first_chunk().ok_or(CodecError::NotPacked)?;
            frame::parse_file_header(header)?;
            blocks.read_index(file_len)?;
        }
        if blocks.end.raw_bytes > limits.total_bytes {
            return Err(CodecError::TooLarge {
                what: "the raw file",
                value: blocks.end.raw_bytes,
                limit: limits.total_bytes,
                offset: file_len,
            });
        }
        Ok(blocks)
    }

    /// Reads the end frame of version 1.
    fn read_index(&mut self, file_len: u64) -> Result<(), CodecError> {
        self.end = read_end(&mut self.reader, file_len)?;
        let end_start = file_len - EndFrame::byte_len(self.end.index.len()) as u64;
        let (mut packed_at, mut raw_at) = (FILE_HEADER_BYTES as u64, 0u64);
        for &(raw, packed) in &self.end.index {
            self.starts.push((packed_at, raw_at));
            packed_at += BLOCK_HEADER_BYTES as u64 + u64::from(packed);
            raw_at += u64::from(raw);
        }
        if packed_at != end_start || raw_at != self.end.raw_bytes {
            return Err(damaged(end_start, "the index does not fit the file"));
        }
        Ok(())
    }

    /// Reads the headers of version 2.
    fn read_headers(&mut self, file_len: u64) -> Result<(), CodecError> {
        let mut offset = compact_frame::FILE_HEADER_BYTES as u64;
        loop {
            if offset >= file_len {
                return Err(damaged(
                    file_len,
                    "the file ends without its end frame: it was cut short",
                ));
            }
            let (frame, header_end) = self.compact_frame_at(offset)?;
            let next = match frame {
                CompactFrame::Block(header, _) => {
                    self.starts.push((offset, self.end.raw_bytes));
                    self.end.index.push((header.raw_len, header.packed_len));
                    self.end.raw_bytes += u64::from(header.raw_len);
                    self.end.hash = header.hash;
                    let next = header_end + u64::from(header.packed_len);
                    if !header.is_single {
                        offset = next;
                        continue;
                    }
                    next
                }
                CompactFrame::End(end, _) if end.blocks as usize == self.starts.len() => {
                    self.end.hash = end.hash;
                    header_end
                }
                CompactFrame::End(..) => {
                    return Err(damaged(offset, "the end frame lists other blocks"));
                }
            };
            if next > file_len {
                return Err(damaged(
                    file_len,
                    "the file ends inside its last block: it was cut short",
                ));
            }
            if next < file_len {
                return Err(damaged(next, "bytes follow the last frame"));
            }
            return Ok(());
        }
    }

    /// The header at `offset` of a file of version 2, and its end.
    fn compact_frame_at(&mut self, offset: u64) -> Result<(CompactFrame, u64), CodecError> {
        self.reader
            .seek(SeekFrom::Start(offset))
            .map_err(CodecError::Read)?;
        let bytes = read_up_to(&mut self.reader, compact_frame::MAX_HEADER_BYTES)?;
        let frame = compact_frame::parse(&bytes, self.starts.len() as u32)
            .map_err(|damage| damaged(offset, damage.0))?;
        let (CompactFrame::Block(_, len) | CompactFrame::End(_, len)) = frame;
        Ok((frame, offset + len as u64))
    }

    /// The number of blocks.
    pub fn count(&self) -> u32 {
        self.starts.len() as u32
    }

    /// The end frame.
    pub fn end(&self) -> &EndFrame {
        &self.end
    }

    /// The offset of block `number` in the raw file, and its length in bytes.
    pub fn raw_range(&self, number: u32) -> Option<(u64, u32)> {
        let &(_, start) = self.starts.get(number as usize)?;
        let &(len, _) = self.end.index.get(number as usize)?;
        Some((start, len))
    }

    /// The number of the block that holds this byte of the raw file.
    pub fn block_of(&self, raw_offset: u64) -> Option<u32> {
        if raw_offset >= self.end.raw_bytes {
            return None;
        }
        let after = self.starts.partition_point(|&(_, raw)| raw <= raw_offset);
        after.checked_sub(1).map(|number| number as u32)
    }

    /// The raw bytes of block `number`, checked against their hash.
    ///
    /// # Errors
    /// If there is no such block, or it is over the limit or damaged. Damage of other blocks has no
    /// effect.
    pub fn read(&mut self, number: u32) -> Result<Vec<u8>, CodecError> {
        let entry = self
            .starts
            .get(number as usize)
            .zip(self.end.index.get(number as usize));
        let Some((&(offset, _), &(raw_len, packed_len))) = entry else {
            let there = match self.starts.len() {
                0 => "the file is empty and has none".to_owned(),
                1 => "the file has one, number 0".to_owned(),
                count => format!("the file has {count}, numbers 0 to {}", count - 1),
            };
            return Err(CodecError::Options(format!(
                "there is no block {number}: {there}"
            )));
        };
        for (what, value) in [("a block", raw_len), ("a block's payload", packed_len)] {
            if value as usize > self.block_limit {
                return Err(CodecError::TooLarge {
                    what,
                    value: value.into(),
                    limit: self.block_limit as u64,
                    offset,
                });
            }
        }
        match self.end.version {
            FormatVersion::V1 => self.read_fixed(number, offset, raw_len, packed_len),
            FormatVersion::V2 => self.read_compact(number, offset),
        }
    }

    fn read_compact(&mut self, number: u32, offset: u64) -> Result<Vec<u8>, CodecError> {
        let (frame, payload_start) = self.compact_frame_at(offset)?;
        let CompactFrame::Block(header, _) = frame else {
            return Err(wrong(number, offset, "no block begins here"));
        };
        self.reader
            .seek(SeekFrom::Start(payload_start))
            .map_err(CodecError::Read)?;
        let payload = read_up_to(&mut self.reader, header.packed_len as usize)?;
        header
            .decode(&payload)
            .map_err(|damage| wrong(number, offset, damage.0))
    }

    fn read_fixed(
        &mut self,
        number: u32,
        offset: u64,
        raw_len: u32,
        packed_len: u32,
    ) -> Result<Vec<u8>, CodecError> {
        self.reader
            .seek(SeekFrom::Start(offset))
            .map_err(CodecError::Read)?;
        let whole_len = BLOCK_HEADER_BYTES + packed_len as usize;
        let bytes = read_up_to(&mut self.reader, whole_len)?;
        let (Some((header, payload)), true) = (
            bytes.split_first_chunk::<BLOCK_HEADER_BYTES>(),
            bytes.len() == whole_len,
        ) else {
            return Err(wrong(number, offset, "the file ends inside this block"));
        };
        if header[..4] != frame::BLOCK_MAGIC {
            return Err(wrong(number, offset, "no block begins here"));
        }
        let header =
            BlockHeader::parse(header).map_err(|damage| wrong(number, offset, damage.0))?;
        if (header.index, header.raw_len, header.packed_len) != (number, raw_len, packed_len) {
            return Err(wrong(
                number,
                offset,
                "the block is not the one that the index lists",
            ));
        }
        header
            .decode(payload)
            .map_err(|damage| wrong(number, offset, damage.0))
    }
}

fn wrong(number: u32, offset: u64, reason: impl Into<String>) -> CodecError {
    CodecError::Damaged {
        offset,
        block: Some(number),
        reason: reason.into(),
    }
}

fn read_end<R: Read + Seek>(reader: &mut R, file_len: u64) -> Result<EndFrame, CodecError> {
    let missing = || {
        damaged(
            file_len,
            "the file does not end with its end frame: it was cut short, or other bytes follow",
        )
    };
    let tail_start = file_len
        .checked_sub((FILE_HEADER_BYTES + EndFrame::byte_len(0)) as u64)
        .map(|_| file_len - TAIL_BYTES as u64)
        .ok_or_else(missing)?;
    reader
        .seek(SeekFrom::Start(tail_start))
        .map_err(CodecError::Read)?;
    let tail = read_up_to(reader, TAIL_BYTES)?;
    let (Some(length), true) = (tail.first_chunk::<4>(), tail.ends_with(&TAIL_MAGIC)) else {
        return Err(missing());
    };
    let length = u64::from(u32::from_le_bytes(*length));
    let start = file_len
        .checked_sub(length)
        .filter(|&start| start >= FILE_HEADER_BYTES as u64 && length > END_TAIL_BYTES as u64)
        .ok_or_else(|| damaged(tail_start, "the end frame is longer than the file"))?;
    reader
        .seek(SeekFrom::Start(start))
        .map_err(CodecError::Read)?;
    let bytes = read_up_to(reader, length as usize)?;
    EndFrame::parse(&bytes).map_err(|damage| damaged(start, damage.0))
}

/// Reads up to `count` bytes; memory grows only with the bytes that were read.
fn read_up_to(reader: &mut impl Read, count: usize) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::new();
    reader
        .take(count as u64)
        .read_to_end(&mut bytes)
        .map_err(CodecError::Read)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::{io::Cursor, sync::atomic::AtomicBool};

    use super::*;
    use crate::hybrid::{CodecOptions, Effort, pack};

    fn packed(raw: &[u8]) -> Vec<u8> {
        let options = CodecOptions {
            effort: Effort::Fast,
            block_size: 4096,
            threads: 1,
        };
        let mut packed = Vec::new();
        let sink = |frame: &[u8]| {
            packed.extend_from_slice(frame);
            Ok(())
        };
        pack(raw, sink, &options, &AtomicBool::new(false)).expect("packs");
        packed
    }

    fn rows() -> Vec<u8> {
        (0..3000)
            .flat_map(|row| format!("{row},{}\n", row * 37 % 1000).into_bytes())
            .collect()
    }

    fn open(packed: &[u8]) -> Result<Blocks<Cursor<&[u8]>>, CodecError> {
        Blocks::open(Cursor::new(packed), &Limits::default())
    }

    #[test]
    fn every_block_can_be_read_alone_in_any_order() {
        let raw = rows();
        let packed = packed(&raw);
        let mut blocks = open(&packed).expect("opens");
        assert!(blocks.count() > 5);
        for number in (0..blocks.count()).rev() {
            let (start, len) = blocks.raw_range(number).expect("exists");
            let start = start as usize;
            assert_eq!(
                blocks.read(number).expect("reads"),
                raw[start..start + len as usize]
            );
            assert_eq!(blocks.block_of(start as u64), Some(number));
            assert_eq!(
                blocks.block_of((start + len as usize) as u64 - 1),
                Some(number)
            );
        }
        assert_eq!(blocks.block_of(raw.len() as u64), None);
        assert!(matches!(
            blocks.read(blocks.count()),
            Err(CodecError::Options(_))
        ));
        assert_eq!(open(&self::packed(b"")).expect("opens").count(), 0);
    }

    #[test]
    fn damage_of_one_block_leaves_the_others_readable() {
        let mut packed = packed(&rows());
        let starts: Vec<usize> = (0..packed.len())
            .filter(|&at| packed[at..].starts_with(b"SPKB"))
            .collect();
        packed[starts[2] + 60] ^= 1;
        packed[starts[3] + 9] ^= 1;
        let mut blocks = open(&packed).expect("opens");
        assert!(blocks.read(1).is_ok() && blocks.read(4).is_ok());
        for number in [2, 3] {
            match blocks.read(number) {
                Err(CodecError::Damaged { offset, block, .. }) => {
                    assert_eq!(
                        (offset, block),
                        (starts[number as usize] as u64, Some(number))
                    );
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_damaged_truncated_or_false_index_is_an_error() {
        let good = packed(&rows());
        let end_start = good
            .windows(4)
            .rposition(|four| four == b"SPKE")
            .expect("exists");
        for at in end_start..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(open(&bad).is_err(), "byte {at}");
        }
        for len in [0, 3, 15, 16, 40, end_start, good.len() - 1] {
            assert!(open(&good[..len]).is_err(), "{len}");
        }
        // An index with a valid check that describes other blocks.
        for change in [(8u32, 0i64), (0, 8), (u32::MAX, 0)] {
            let mut end = EndFrame::parse(&good[end_start..]).expect("whole");
            end.index[1].1 = end.index[1].1.wrapping_add(change.0);
            end.raw_bytes = end.raw_bytes.wrapping_add_signed(change.1);
            let bad = [&good[..end_start], &end.to_bytes()].concat();
            assert!(open(&bad).is_err(), "{change:?}");
        }
        let mut end = EndFrame::parse(&good[end_start..]).expect("whole");
        end.index.swap(0, 1);
        let mut blocks = open(&[&good[..end_start], &end.to_bytes()].concat()[..])
            .map(|mut blocks| blocks.read(0));
        assert!(!matches!(&mut blocks, Ok(Ok(_))));
    }

    #[test]
    fn limits_are_checked_before_a_block_is_read() {
        let packed = packed(&rows());
        let limits = Limits {
            block_bytes: 100,
            total_bytes: u64::MAX,
            ..Limits::default()
        };
        let mut blocks = Blocks::open(Cursor::new(&packed), &limits).expect("opens");
        assert!(matches!(blocks.read(0), Err(CodecError::TooLarge { .. })));
        let limits = Limits {
            block_bytes: 1 << 20,
            total_bytes: 100,
            ..Limits::default()
        };
        assert!(matches!(
            Blocks::open(Cursor::new(&packed), &limits),
            Err(CodecError::TooLarge { .. })
        ));
    }
}
