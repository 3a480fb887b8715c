//! Packing and unpacking whole files as a stream of framed blocks, over several threads and with
//! bounded memory.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use super::{
    Error,
    block::{self, Packed},
    cut::Cutter,
    entropy::Codec,
    frame::{self, BLOCK_HEADER_BYTES, BlockHeader, EndFrame},
    parallel,
    transform::Transform,
};

/// How much is tried to make a block small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Effort {
    /// Little is tried; for streams that must keep up.
    Fast,
    /// Clear losers are found by a probe and left out.
    #[default]
    Balanced,
    /// Everything is tried in full.
    Max,
}

impl Effort {
    /// All efforts, from the quickest.
    pub const ALL: [Self; 3] = [Self::Fast, Self::Balanced, Self::Max];

    /// As written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Balanced => "balanced",
            Self::Max => "max",
        }
    }
}

/// The block size unless asked otherwise: large enough for columns to pay, small enough for a slot.
pub const DEFAULT_BLOCK_BYTES: usize = 4 << 20;

/// How to pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How much is tried.
    pub effort: Effort,
    /// The most raw bytes in a block; 4 KiB to 64 MiB.
    pub block_size: usize,
    /// Threads to work on blocks and columns; 0 means as many as there are cores.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            effort: Effort::default(),
            block_size: DEFAULT_BLOCK_BYTES,
            threads: 0,
        }
    }
}

/// What a packed file may ask for while it is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most raw bytes in a block.
    pub block_bytes: usize,
    /// The most raw bytes in all.
    pub total_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            block_bytes: frame::MAX_BLOCK_BYTES,
            total_bytes: u64::MAX,
        }
    }
}

/// Bytes that went through one transform and codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// Streams counted.
    pub streams: u64,
    /// Their bytes before the codec.
    pub raw_bytes: u64,
    /// Their bytes behind it.
    pub packed_bytes: u64,
}

/// What was done to one file.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Bytes of the raw file.
    pub raw_bytes: u64,
    /// Bytes of the packed file, all frames included.
    pub packed_bytes: u64,
    /// BLAKE3 of the raw file.
    pub hash: blake3::Hash,
    /// Blocks in the file.
    pub blocks: u32,
    /// Blocks that were damaged and left out ([`unpack_keep_going`] only), with the reason.
    pub damaged: Vec<String>,
    /// Time spent reading the input.
    pub read_time: Duration,
    /// Time spent packing or unpacking blocks, summed over threads.
    pub code_time: Duration,
    /// Time spent in the sink or writer.
    pub write_time: Duration,
    /// Time from first to last byte.
    pub wall_time: Duration,
    /// Where the bytes went, by transform and codec. While unpacking, whole blocks are counted.
    pub shares: BTreeMap<(Transform, Codec), Share>,
}

impl Summary {
    fn new() -> Self {
        Self {
            raw_bytes: 0,
            packed_bytes: 0,
            hash: blake3::Hash::from_bytes([0; 32]),
            blocks: 0,
            damaged: Vec::new(),
            read_time: Duration::ZERO,
            code_time: Duration::ZERO,
            write_time: Duration::ZERO,
            wall_time: Duration::ZERO,
            shares: BTreeMap::new(),
        }
    }

    fn count(&mut self, transform: Transform, codec: Codec, raw_bytes: u64, packed_bytes: u64) {
        let share = self.shares.entry((transform, codec)).or_default();
        share.streams += 1;
        share.raw_bytes += raw_bytes;
        share.packed_bytes += packed_bytes;
    }
}

/// Packs all of `reader`. `sink` gets whole frames, in order, of at most a block and its header.
/// Cancelling ends it at the next block.
pub fn pack(
    reader: impl Read,
    sink: impl FnMut(&[u8]) -> io::Result<()>,
    options: &Options,
    cancel: &AtomicBool,
) -> Result<Summary, Error> {
    pack_observed(reader, sink, options, cancel, |_| {})
}

/// As [`pack`]; `observe` sees every packed block, e.g. to explain it.
pub fn pack_observed(
    reader: impl Read,
    mut sink: impl FnMut(&[u8]) -> io::Result<()>,
    options: &Options,
    cancel: &AtomicBool,
    mut observe: impl FnMut(&Packed),
) -> Result<Summary, Error> {
    let started = Instant::now();
    check_options(options)?;
    let pool = parallel::pool(thread_count(options.threads))?;
    let mut source = Source::new(reader, options.block_size);
    let mut summary = Summary::new();
    let mut index = Vec::new();
    let mut write = |bytes: &[u8], summary: &mut Summary| {
        let started = Instant::now();
        summary.packed_bytes += bytes.len() as u64;
        sink(bytes).map_err(Error::Write)?;
        summary.write_time += started.elapsed();
        Ok::<_, Error>(())
    };
    write(&frame::file_header(options.block_size as u32), &mut summary)?;
    parallel::in_order(
        &pool,
        || {
            stop_if(cancel)?;
            source.next_block()
        },
        |(number, raw): (u32, Vec<u8>)| {
            let started = Instant::now();
            (
                block::encode(number, &raw, options.effort),
                started.elapsed(),
            )
        },
        |(packed, code_time)| {
            stop_if(cancel)?;
            observe(&packed);
            summary.code_time += code_time;
            for stream in &packed.streams {
                summary.count(
                    packed.header.transform,
                    stream.codec,
                    stream.raw_bytes,
                    stream.packed_bytes,
                );
            }
            index.push((packed.header.raw_len, packed.header.packed_len));
            let mut bytes = packed.header.to_bytes().to_vec();
            bytes.extend(packed.payload);
            write(&bytes, &mut summary)
        },
    )?;
    summary.raw_bytes = source.raw_bytes;
    summary.hash = source.hasher.finalize();
    summary.read_time = source.read_time;
    summary.blocks = index.len() as u32;
    let end = EndFrame {
        raw_bytes: summary.raw_bytes,
        hash: *summary.hash.as_bytes(),
        index,
    };
    write(&end.to_bytes(), &mut summary)?;
    summary.wall_time = started.elapsed();
    Ok(summary)
}

fn check_options(options: &Options) -> Result<(), Error> {
    let (least, most) = (frame::MIN_BLOCK_BYTES, frame::MAX_BLOCK_BYTES);
    if !(least..=most).contains(&options.block_size) {
        return Err(Error::Options(format!(
            "block size {} is outside {least} to {most} bytes (4Ki to 64Mi)",
            options.block_size
        )));
    }
    Ok(())
}

/// 0 means as many as there are cores.
fn thread_count(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        some => some,
    }
}

fn stop_if(cancel: &AtomicBool) -> Result<(), Error> {
    if cancel.load(Ordering::Relaxed) {
        Err(Error::Cancelled)
    } else {
        Ok(())
    }
}

/// The raw file, cut into blocks and hashed as it is read.
struct Source<R> {
    reader: R,
    block_size: usize,
    /// What the last cut left over.
    carry: Vec<u8>,
    cutter: Cutter,
    hasher: blake3::Hasher,
    raw_bytes: u64,
    read_time: Duration,
    blocks: u32,
}

impl<R: Read> Source<R> {
    fn new(reader: R, block_size: usize) -> Self {
        Self {
            reader,
            block_size,
            carry: Vec::new(),
            cutter: Cutter::default(),
            hasher: blake3::Hasher::new(),
            raw_bytes: 0,
            read_time: Duration::ZERO,
            blocks: 0,
        }
    }

    fn next_block(&mut self) -> Result<Option<(u32, Vec<u8>)>, Error> {
        let started = Instant::now();
        let mut window = std::mem::take(&mut self.carry);
        // One byte more than a block tells whether there is a next one.
        let wanted = (self.block_size + 1 - window.len()) as u64;
        (&mut self.reader)
            .take(wanted)
            .read_to_end(&mut window)
            .map_err(Error::Read)?;
        if window.len() > self.block_size {
            let end = self.cutter.cut(&window[..self.block_size]);
            self.carry = window.split_off(end);
        }
        if window.is_empty() {
            return Ok(None);
        }
        self.hasher.update(&window);
        self.raw_bytes += window.len() as u64;
        self.read_time += started.elapsed();
        let number = self.blocks;
        self.blocks = number.checked_add(1).ok_or_else(|| {
            Error::Options("more than 4 billion blocks: use a larger block size".into())
        })?;
        Ok(Some((number, window)))
    }
}

/// Unpacks all of `reader` into `writer`. Every block's hash is checked before its bytes are
/// written, and the hash of the whole at the end.
pub fn unpack(
    reader: impl Read,
    writer: impl Write,
    limits: &Limits,
    threads: usize,
    cancel: &AtomicBool,
) -> Result<Summary, Error> {
    Unpacking::new(reader, limits, false)?.run(writer, threads, cancel)
}

/// As [`unpack`], but a damaged block is left out and named in [`Summary::damaged`]; all others are
/// written. The hash of the whole is then checked only if nothing was damaged.
pub fn unpack_keep_going(
    reader: impl Read,
    writer: impl Write,
    limits: &Limits,
    threads: usize,
    cancel: &AtomicBool,
) -> Result<Summary, Error> {
    Unpacking::new(reader, limits, true)?.run(writer, threads, cancel)
}

/// A block as it was read, or where and why it could not be.
type Frame = (u64, Result<(BlockHeader, Vec<u8>), String>);

struct Unpacking<R> {
    frames: FrameReader<R>,
    keep_going: bool,
    total_limit: u64,
}

impl<R: Read> Unpacking<R> {
    fn new(reader: R, limits: &Limits, keep_going: bool) -> Result<Self, Error> {
        Ok(Self {
            frames: FrameReader::open(reader, limits.block_bytes, keep_going)?,
            keep_going,
            total_limit: limits.total_bytes,
        })
    }

    fn run(
        mut self,
        mut writer: impl Write,
        threads: usize,
        cancel: &AtomicBool,
    ) -> Result<Summary, Error> {
        let started = Instant::now();
        let pool = parallel::pool(thread_count(threads))?;
        let mut summary = Summary::new();
        let mut hasher = blake3::Hasher::new();
        let (keep_going, total_limit) = (self.keep_going, self.total_limit);
        let frames = &mut self.frames;
        parallel::in_order(
            &pool,
            || {
                stop_if(cancel)?;
                frames.next_frame()
            },
            decode_frame,
            |(offset, decoded, code_time)| {
                stop_if(cancel)?;
                summary.code_time += code_time;
                let (header, raw) = match decoded {
                    Ok(block) => block,
                    Err((block, reason)) if keep_going => {
                        let number = block.map(|n| format!("block {n} ")).unwrap_or_default();
                        summary
                            .damaged
                            .push(format!("{number}at byte {offset}: {reason}"));
                        return Ok(());
                    }
                    Err((block, reason)) => {
                        return Err(Error::Damaged {
                            offset,
                            block,
                            reason,
                        });
                    }
                };
                summary.raw_bytes += raw.len() as u64;
                if summary.raw_bytes > total_limit {
                    return Err(Error::TooLarge {
                        what: "the raw file",
                        value: summary.raw_bytes,
                        limit: total_limit,
                        offset,
                    });
                }
                hasher.update(&raw);
                summary.count(
                    header.transform,
                    header.codec,
                    header.raw_len.into(),
                    header.packed_len.into(),
                );
                let started = Instant::now();
                writer.write_all(&raw).map_err(Error::Write)?;
                summary.write_time += started.elapsed();
                Ok(())
            },
        )?;
        writer.flush().map_err(Error::Write)?;
        summary.hash = hasher.finalize();
        summary.packed_bytes = self.frames.offset;
        summary.read_time = self.frames.read_time;
        summary.blocks = self.frames.seen.len() as u32;
        self.check_end(&mut summary)?;
        summary.wall_time = started.elapsed();
        Ok(summary)
    }

    /// The end frame must speak of exactly the blocks that came and of the bytes that left.
    fn check_end(&mut self, summary: &mut Summary) -> Result<(), Error> {
        let end_offset = self.frames.end_offset;
        let wrong = match &self.frames.end {
            None => Some("the file ends without its end frame: it was cut short".to_string()),
            Some(end) if end.index != self.frames.seen => {
                Some("the end frame lists other blocks".into())
            }
            Some(end)
                if end.raw_bytes != summary.raw_bytes || end.hash != *summary.hash.as_bytes() =>
            {
                Some("the whole file does not match its hash".into())
            }
            Some(_) => None,
        };
        match wrong {
            None => Ok(()),
            Some(_) if self.keep_going && !summary.damaged.is_empty() => Ok(()),
            Some(reason) if self.keep_going => {
                summary
                    .damaged
                    .push(format!("at byte {end_offset}: {reason}"));
                Ok(())
            }
            Some(reason) => Err(Error::Damaged {
                offset: end_offset,
                block: None,
                reason,
            }),
        }
    }
}

type Decoded = (
    u64,
    Result<(BlockHeader, Vec<u8>), (Option<u32>, String)>,
    Duration,
);

fn decode_frame((offset, frame): Frame) -> Decoded {
    let started = Instant::now();
    let decoded = match frame {
        Ok((header, payload)) => match block::decode(&header, &payload) {
            Ok(raw) => Ok((header, raw)),
            Err(damage) => Err((Some(header.index), damage.0)),
        },
        Err(reason) => Err((None, reason)),
    };
    (offset, decoded, started.elapsed())
}

/// Walks the frames of a packed file without decoding them.
pub struct FrameReader<R> {
    reader: R,
    /// Bytes read ahead while looking for the next frame behind damage.
    ahead: Vec<u8>,
    offset: u64,
    end_offset: u64,
    block_limit: usize,
    keep_going: bool,
    seen: Vec<(u32, u32)>,
    end: Option<EndFrame>,
    read_time: Duration,
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

fn damaged(offset: u64, reason: impl Into<String>) -> Error {
    Error::Damaged {
        offset,
        block: None,
        reason: reason.into(),
    }
}
