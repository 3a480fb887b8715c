//! The frames of a packed file in sequence.

use std::{
    fmt,
    io::{self, Read},
    time::{Duration, Instant},
};

use super::{
    compact_frame::{self, CompactFrame},
    frame::{self, BLOCK_HEADER_BYTES, BlockHeader, EndFrame},
};
use crate::{CodecError, Damage, FormatVersion, StreamInfo, block};

/// One block of a packed file, not yet decoded.
#[derive(Debug, Clone)]
pub struct BlockFrame {
    /// Offset of its header in the packed file.
    pub offset: u64,
    /// Its header, whose check matches.
    pub header: BlockHeader,
    /// The bytes after the header.
    pub payload: Vec<u8>,
}

impl BlockFrame {
    /// The raw bytes, whose hash matches the header.
    ///
    /// # Errors
    /// If the payload is damaged.
    pub fn decode(&self) -> Result<Vec<u8>, DamagedFrame> {
        self.header
            .decode(&self.payload)
            .map_err(|damage| self.damaged(damage))
    }

    /// The size of each stream in the payload.
    ///
    /// # Errors
    /// If the payload is damaged.
    pub fn streams(&self) -> Result<Vec<StreamInfo>, DamagedFrame> {
        let header = &self.header;
        block::inspect(
            header.version,
            header.coding,
            &self.payload,
            header.raw_len as usize,
        )
        .map_err(|damage| self.damaged(damage))
    }

    fn damaged(&self, damage: Damage) -> DamagedFrame {
        DamagedFrame {
            offset: self.offset,
            block: Some(self.header.index),
            reason: damage.0,
        }
    }
}

/// A frame that cannot be read or decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedFrame {
    /// Offset of the frame in the packed file.
    pub offset: u64,
    /// The number of the block, if its header could be read.
    pub block: Option<u32>,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for DamagedFrame {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(block) = self.block {
            write!(out, "block {block} ")?;
        }
        write!(out, "at byte {}: {}", self.offset, self.reason)
    }
}

impl From<DamagedFrame> for CodecError {
    fn from(damage: DamagedFrame) -> Self {
        Self::Damaged {
            offset: damage.offset,
            block: damage.block,
            reason: damage.reason,
        }
    }
}

/// Reads the frames of a packed file without decoding them.
pub struct FrameReader<R> {
    reader: R,
    /// Bytes that were read during a search for the next frame.
    ahead: Vec<u8>,
    pub(super) offset: u64,
    pub(super) end_offset: u64,
    block_limit: usize,
    keep_going: bool,
    pub(super) seen: Vec<(u32, u32)>,
    pub(super) end: Option<EndFrame>,
    pub(super) read_time: Duration,
    /// What is wrong with the file header, where reading went on all the same.
    pub(super) header_damage: Option<DamagedFrame>,
    version: FormatVersion,
    /// The block size that the packer used, in bytes; `None` in version 2, which does not keep it.
    pub block_size: Option<u32>,
}

impl<R: Read> FrameReader<R> {
    /// Reads the file header. With `keep_going`, reading continues at the next valid header after
    /// damage. `block_limit` is in bytes.
    ///
    /// # Errors
    /// If the input cannot be read or does not begin with a file header.
    pub fn open(reader: R, block_limit: usize, keep_going: bool) -> Result<Self, CodecError> {
        let mut frames = Self {
            reader,
            ahead: Vec::new(),
            offset: 0,
            end_offset: 0,
            block_limit,
            keep_going,
            seen: Vec::new(),
            end: None,
            read_time: Duration::ZERO,
            header_damage: None,
            version: FormatVersion::V1,
            block_size: None,
        };
        frames.read_file_header()?;
        Ok(frames)
    }

    fn read_file_header(&mut self) -> Result<(), CodecError> {
        let mut header = [0; frame::FILE_HEADER_BYTES];
        let (start, rest) = header.split_at_mut(compact_frame::FILE_HEADER_BYTES);
        let got = self.fill(start)?;
        if *start == compact_frame::file_header() {
            self.version = FormatVersion::V2;
            return Ok(());
        }
        frame::check_version(&start[..got])?;
        let got = got + self.fill(rest)?;
        if got < header.len() {
            let begins = header[..got.min(4)] == frame::FILE_MAGIC[..got.min(4)] && got > 0;
            return Err(if begins {
                self.cut_short(0)
            } else {
                CodecError::NotPacked
            });
        }
        match frame::parse_file_header(&header) {
            Ok(block_size) => self.block_size = Some(block_size),
            Err(CodecError::Damaged { offset, reason, .. }) if self.keep_going => {
                self.header_damage = Some(DamagedFrame {
                    offset,
                    block: None,
                    reason,
                });
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The number of bytes of the packed file that were read.
    pub fn bytes_read(&self) -> u64 {
        self.offset
    }

    /// The end frame, after [`Self::next_frame`] returned `None`.
    pub fn end(&self) -> Option<&EndFrame> {
        self.end.as_ref()
    }

    /// The next block, or `None` after the end frame. Only with `keep_going` is it a damaged frame.
    ///
    /// # Errors
    /// If the input cannot be read, is damaged, or holds a block over the limit.
    pub fn next_frame(&mut self) -> Result<Option<Result<BlockFrame, DamagedFrame>>, CodecError> {
        if self.end.is_some() {
            return Ok(None);
        }
        let started = Instant::now();
        let offset = self.offset;
        let frame = match self.read_frame(offset) {
            Ok(frame) => frame.map(Ok),
            Err(CodecError::Damaged { offset, reason, .. }) if self.keep_going => {
                self.find_next_frame()?;
                Some(Err(DamagedFrame {
                    offset,
                    block: None,
                    reason,
                }))
            }
            Err(error) => return Err(error),
        };
        self.read_time += started.elapsed();
        Ok(frame)
    }

    fn read_frame(&mut self, offset: u64) -> Result<Option<BlockFrame>, CodecError> {
        match self.version {
            FormatVersion::V1 => self.read_fixed_frame(offset),
            FormatVersion::V2 => self.read_compact_frame(offset),
        }
    }

    fn read_compact_frame(&mut self, offset: u64) -> Result<Option<BlockFrame>, CodecError> {
        let mut bytes = [0; compact_frame::MAX_HEADER_BYTES];
        let got = self.fill(&mut bytes)?;
        if got == 0 {
            self.end_offset = offset;
            return if self.keep_going {
                Ok(None)
            } else {
                Err(self.cut_short(offset))
            };
        }
        let parsed = compact_frame::parse(&bytes[..got], self.seen.len() as u32);
        let header_len = match &parsed {
            Ok(CompactFrame::Block(_, len) | CompactFrame::End(_, len)) => *len,
            Err(_) => 0,
        };
        self.unread(&bytes[header_len..got]);
        match parsed {
            Ok(CompactFrame::Block(header, _)) => self.read_payload(header, offset).map(Some),
            Ok(CompactFrame::End(end, _)) => {
                self.end_offset = offset;
                self.check_count(end.blocks as usize, offset)?;
                self.check_nothing_follows()?;
                self.end = Some(EndFrame {
                    version: FormatVersion::V2,
                    raw_bytes: self.seen.iter().map(|&(raw, _)| u64::from(raw)).sum(),
                    hash: end.hash,
                    index: self.seen.clone(),
                });
                Ok(None)
            }
            Err(_) if got < bytes.len() && !self.keep_going => Err(self.cut_or_damaged(offset)),
            Err(damage) => Err(damaged(offset, damage.0)),
        }
    }

    /// An error of a header near the end of the file.
    fn cut_or_damaged(&self, offset: u64) -> CodecError {
        damaged(
            offset,
            "neither a block nor the end frame begins here, or the file was cut short",
        )
    }

    fn has_more(&mut self) -> Result<bool, CodecError> {
        let mut next = [0];
        let has_more = self.fill(&mut next)? > 0;
        if has_more {
            self.unread(&next);
        }
        Ok(has_more)
    }

    fn check_nothing_follows(&mut self) -> Result<(), CodecError> {
        let offset = self.offset;
        let mut next = [0; frame::FILE_MAGIC.len()];
        let got = self.fill(&mut next)?;
        self.unread(&next[..got]);
        match got {
            0 => Ok(()),
            _ if next == frame::FILE_MAGIC => Err(damaged(
                offset,
                "another packed file begins here: split them at this byte, and unpack each alone",
            )),
            _ => Err(damaged(offset, "bytes follow the end frame")),
        }
    }

    fn check_count(&self, blocks: usize, offset: u64) -> Result<(), CodecError> {
        if blocks != self.seen.len() && !self.keep_going {
            return Err(damaged(
                offset,
                format!(
                    "the end frame lists {blocks} blocks, {} were read",
                    self.seen.len()
                ),
            ));
        }
        Ok(())
    }

    /// The block of a header. A single block is the end, too.
    fn read_payload(&mut self, header: BlockHeader, offset: u64) -> Result<BlockFrame, CodecError> {
        self.check_header(&header, offset)?;
        self.seen.push((header.raw_len, header.packed_len));
        let payload = self.read_vec(header.packed_len as usize)?;
        if payload.len() < header.packed_len as usize {
            return Err(self.cut_short(offset));
        }
        if header.is_single {
            self.end_offset = offset;
            // What follows is read next and found to be no frame: the block is none the worse for it.
            if !(self.keep_going && self.has_more()?) {
                self.check_nothing_follows()?;
                self.end = Some(EndFrame {
                    version: FormatVersion::V2,
                    raw_bytes: header.raw_len.into(),
                    hash: header.hash,
                    index: self.seen.clone(),
                });
            }
        }
        Ok(BlockFrame {
            offset,
            header,
            payload,
        })
    }

    fn read_fixed_frame(&mut self, offset: u64) -> Result<Option<BlockFrame>, CodecError> {
        let mut magic = [0; 4];
        let got = self.fill(&mut magic)?;
        if got == 0 && self.keep_going {
            self.end_offset = offset;
            return Ok(None);
        }
        if got < magic.len() {
            return Err(self.cut_short(offset));
        }
        match magic {
            frame::BLOCK_MAGIC => self.read_block(offset).map(Some),
            frame::END_MAGIC => self.read_end(offset).map(|()| None),
            _ => {
                self.unread(&magic);
                Err(damaged(
                    offset,
                    "neither a block nor the end frame begins here",
                ))
            }
        }
    }

    fn read_block(&mut self, offset: u64) -> Result<BlockFrame, CodecError> {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        bytes[..4].copy_from_slice(&frame::BLOCK_MAGIC);
        let got = self.fill(&mut bytes[4..])?;
        if got < BLOCK_HEADER_BYTES - 4 {
            return Err(self.cut_short(offset));
        }
        let header = match BlockHeader::parse(&bytes) {
            Ok(header) => header,
            Err(damage) => {
                self.unread(&bytes[4..]);
                return Err(damaged(offset, damage.0));
            }
        };
        self.read_payload(header, offset)
    }

    fn check_header(&self, header: &BlockHeader, offset: u64) -> Result<(), CodecError> {
        for (what, value) in [
            ("a block", header.raw_len),
            ("a block's payload", header.packed_len),
        ] {
            if value as usize > self.block_limit {
                return Err(CodecError::TooLarge {
                    what,
                    value: value.into(),
                    limit: self.block_limit as u64,
                    offset,
                });
            }
        }
        if header.index as usize != self.seen.len() && !self.keep_going {
            return Err(damaged(
                offset,
                format!(
                    "block {} follows where block {} belongs",
                    header.index,
                    self.seen.len()
                ),
            ));
        }
        Ok(())
    }

    fn read_end(&mut self, offset: u64) -> Result<(), CodecError> {
        self.end_offset = offset;
        let mut fixed = [0; frame::END_FIXED_BYTES];
        fixed[..4].copy_from_slice(&frame::END_MAGIC);
        if self.fill(&mut fixed[4..])? < frame::END_FIXED_BYTES - 4 {
            return Err(self.cut_short(offset));
        }
        let blocks = EndFrame::block_count(&fixed) as usize;
        self.check_count(blocks, offset)?;
        let rest_len = EndFrame::byte_len(blocks) - frame::END_FIXED_BYTES;
        let rest = self.read_vec(rest_len)?;
        if rest.len() < rest_len {
            return Err(self.cut_short(offset));
        }
        let end = EndFrame::parse(&[&fixed[..], &rest].concat())
            .map_err(|damage| damaged(offset, damage.0))?;
        self.check_nothing_follows()?;
        self.end = Some(end);
        Ok(())
    }

    /// Skips at least one byte, up to the next header whose check matches, or to the end.
    fn find_next_frame(&mut self) -> Result<(), CodecError> {
        const STEP: usize = 64 << 10;
        let mut window = Vec::new();
        let mut at = 1;
        loop {
            let more = self.read_vec(STEP)?;
            let ended = more.len() < STEP;
            window.extend(more);
            // The end frame of version 2 is shorter than a block header.
            let needed = match self.version {
                FormatVersion::V2 if ended => 1,
                _ => BLOCK_HEADER_BYTES,
            };
            while at + needed <= window.len() {
                if self.starts_frame(&window[at..]) {
                    self.unread(&window[at..]);
                    return Ok(());
                }
                at += 1;
            }
            if ended {
                return Ok(());
            }
            window.drain(..at);
            at = 0;
        }
    }

    fn starts_frame(&self, bytes: &[u8]) -> bool {
        if self.version == FormatVersion::V2 {
            return compact_frame::parse(bytes, 0).is_ok();
        }
        if bytes.starts_with(&frame::END_MAGIC) {
            return true;
        }
        let Some(header) = bytes.first_chunk::<BLOCK_HEADER_BYTES>() else {
            return false;
        };
        bytes.starts_with(&frame::BLOCK_MAGIC) && BlockHeader::parse(header).is_ok()
    }

    /// Reads until `buffer` is full or the input ends; returns the number of bytes read.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, CodecError> {
        let mut got = self.ahead.len().min(buffer.len());
        buffer[..got].copy_from_slice(&self.ahead[..got]);
        self.ahead.drain(..got);
        while got < buffer.len() {
            match self.reader.read(&mut buffer[got..]) {
                Ok(0) => break,
                Ok(count) => got += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(CodecError::Read(error)),
            }
        }
        self.offset += got as u64;
        Ok(got)
    }

    /// As [`Self::fill`], but memory grows only with the bytes that were read.
    fn read_vec(&mut self, count: usize) -> Result<Vec<u8>, CodecError> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let start = bytes.len();
            bytes.resize(count.min(start + (1 << 20).max(start)), 0);
            let wanted = bytes.len() - start;
            let got = self.fill(&mut bytes[start..])?;
            bytes.truncate(start + got);
            if got < wanted {
                break;
            }
        }
        Ok(bytes)
    }

    fn unread(&mut self, bytes: &[u8]) {
        self.offset -= bytes.len() as u64;
        self.ahead.splice(0..0, bytes.iter().copied());
    }

    fn cut_short(&self, offset: u64) -> CodecError {
        damaged(
            offset,
            format!("the file ends inside this part, at byte {}", self.offset),
        )
    }
}

pub(super) fn damaged(offset: u64, reason: impl Into<String>) -> CodecError {
    CodecError::Damaged {
        offset,
        block: None,
        reason: reason.into(),
    }
}
