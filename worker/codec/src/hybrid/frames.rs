//! The frames of a packed file, one behind the other.

use std::{
    io::{self, Read},
    time::{Duration, Instant},
};

use crate::{
    Error,
    frame::{self, BLOCK_HEADER_BYTES, BlockHeader, EndFrame},
};

/// A block as it was read, or where and why it could not be.
pub type Frame = (u64, Result<(BlockHeader, Vec<u8>), String>);

/// Walks the frames of a packed file without decoding them.
pub struct FrameReader<R> {
    reader: R,
    /// Bytes read ahead while looking for the next frame behind damage.
    ahead: Vec<u8>,
    pub(super) offset: u64,
    pub(super) end_offset: u64,
    block_limit: usize,
    keep_going: bool,
    pub(super) seen: Vec<(u32, u32)>,
    pub(super) end: Option<EndFrame>,
    pub(super) read_time: Duration,
    /// The block size that the file was packed with.
    pub block_size: u32,
}

impl<R: Read> FrameReader<R> {
    /// Reads the file header. With `keep_going`, damage is stepped over to the next whole header.
    pub fn open(reader: R, block_limit: usize, keep_going: bool) -> Result<Self, Error> {
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
            block_size: 0,
        };
        let mut header = [0; frame::FILE_HEADER_BYTES];
        let got = frames.fill(&mut header)?;
        if got < header.len() {
            return Err(
                if header[..got.min(4)] == frame::FILE_MAGIC[..got.min(4)] && got > 0 {
                    frames.cut_short(0)
                } else {
                    Error::NotPacked
                },
            );
        }
        match frame::parse_file_header(&header) {
            Ok(block_size) => frames.block_size = block_size,
            Err(Error::Damaged { .. }) if keep_going => {}
            Err(error) => return Err(error),
        }
        Ok(frames)
    }

    /// The end frame, once [`Self::next_frame`] has answered `None`.
    pub fn end(&self) -> Option<&EndFrame> {
        self.end.as_ref()
    }

    /// The next block with the offset of its header; `None` behind the end frame.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Error> {
        if self.end.is_some() {
            return Ok(None);
        }
        let started = Instant::now();
        let offset = self.offset;
        let frame = match self.read_frame(offset) {
            Ok(frame) => frame.map(|block| (offset, Ok(block))),
            Err(Error::Damaged { reason, .. }) if self.keep_going => {
                self.find_next_frame()?;
                Some((offset, Err(reason)))
            }
            Err(error) => return Err(error),
        };
        self.read_time += started.elapsed();
        Ok(frame)
    }

    fn read_frame(&mut self, offset: u64) -> Result<Option<(BlockHeader, Vec<u8>)>, Error> {
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
                self.put_back(&magic);
                Err(damaged(
                    offset,
                    "neither a block nor the end frame begins here",
                ))
            }
        }
    }

    fn read_block(&mut self, offset: u64) -> Result<(BlockHeader, Vec<u8>), Error> {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        bytes[..4].copy_from_slice(&frame::BLOCK_MAGIC);
        let got = self.fill(&mut bytes[4..])?;
        if got < BLOCK_HEADER_BYTES - 4 {
            return Err(self.cut_short(offset));
        }
        let header = match BlockHeader::parse(&bytes) {
            Ok(header) => header,
            Err(damage) => {
                self.put_back(&bytes[4..]);
                return Err(damaged(offset, damage.0));
            }
        };
        self.check_header(&header, offset)?;
        self.seen.push((header.raw_len, header.packed_len));
        let payload = self.read_vec(header.packed_len as usize)?;
        if payload.len() < header.packed_len as usize {
            return Err(self.cut_short(offset));
        }
        Ok((header, payload))
    }

    fn check_header(&self, header: &BlockHeader, offset: u64) -> Result<(), Error> {
        for (what, value) in [
            ("a block", header.raw_len),
            ("a block's payload", header.packed_len),
        ] {
            if value as usize > self.block_limit {
                return Err(Error::TooLarge {
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
                    "block {} stands where block {} belongs",
                    header.index,
                    self.seen.len()
                ),
            ));
        }
        Ok(())
    }

    fn read_end(&mut self, offset: u64) -> Result<(), Error> {
        self.end_offset = offset;
        let mut fixed = [0; frame::END_FIXED_BYTES];
        fixed[..4].copy_from_slice(&frame::END_MAGIC);
        if self.fill(&mut fixed[4..])? < frame::END_FIXED_BYTES - 4 {
            return Err(self.cut_short(offset));
        }
        let blocks = EndFrame::block_count(&fixed) as usize;
        if blocks != self.seen.len() && !self.keep_going {
            return Err(damaged(
                offset,
                format!(
                    "the end frame lists {blocks} blocks, {} came",
                    self.seen.len()
                ),
            ));
        }
        let rest_len = EndFrame::byte_len(blocks) - frame::END_FIXED_BYTES;
        let rest = self.read_vec(rest_len)?;
        if rest.len() < rest_len {
            return Err(self.cut_short(offset));
        }
        let end = EndFrame::parse(&[&fixed[..], &rest].concat())
            .map_err(|damage| damaged(offset, damage.0))?;
        if self.fill(&mut [0])? > 0 {
            return Err(damaged(self.offset - 1, "bytes follow the end frame"));
        }
        self.end = Some(end);
        Ok(())
    }

    /// Steps forward, at least one byte, to the next header that matches its check, or to the end.
    fn find_next_frame(&mut self) -> Result<(), Error> {
        const STEP: usize = 64 << 10;
        let mut window = Vec::new();
        let mut at = 1;
        loop {
            let more = self.read_vec(STEP)?;
            let ended = more.len() < STEP;
            window.extend(more);
            while at + BLOCK_HEADER_BYTES <= window.len() {
                if starts_frame(&window[at..]) {
                    self.put_back(&window[at..]);
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

    /// Reads until `buffer` is full or the input ends; answers the bytes read.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut got = self.ahead.len().min(buffer.len());
        buffer[..got].copy_from_slice(&self.ahead[..got]);
        self.ahead.drain(..got);
        while got < buffer.len() {
            match self.reader.read(&mut buffer[got..]) {
                Ok(0) => break,
                Ok(count) => got += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Read(error)),
            }
        }
        self.offset += got as u64;
        Ok(got)
    }

    /// As [`Self::fill`], but memory grows only with what really comes.
    fn read_vec(&mut self, count: usize) -> Result<Vec<u8>, Error> {
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

    fn put_back(&mut self, bytes: &[u8]) {
        self.offset -= bytes.len() as u64;
        self.ahead.splice(0..0, bytes.iter().copied());
    }

    fn cut_short(&self, offset: u64) -> Error {
        damaged(
            offset,
            format!("the file ends inside this part, at byte {}", self.offset),
        )
    }
}

fn starts_frame(bytes: &[u8]) -> bool {
    if bytes.starts_with(&frame::END_MAGIC) {
        return true;
    }
    let Some(header) = bytes.first_chunk::<BLOCK_HEADER_BYTES>() else {
        return false;
    };
    bytes.starts_with(&frame::BLOCK_MAGIC) && BlockHeader::parse(header).is_ok()
}

pub(super) fn damaged(offset: u64, reason: impl Into<String>) -> Error {
    Error::Damaged {
        offset,
        block: None,
        reason: reason.into(),
    }
}
