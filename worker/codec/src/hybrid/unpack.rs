//! From frames back to the raw file.

use std::{
    io::{Read, Write},
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use super::{
    Limits, Summary,
    frame_reader::{BlockFrame, DamagedFrame, FrameReader},
    header::BlockHeader,
    parallel::{self, Window},
    stop_if, thread_count,
};
use crate::CodecError;

/// Unpacks all of `reader` into `writer`. The hash of every block is checked before its bytes are
/// written, and the hash of the whole file at the end.
///
/// # Errors
/// If reading or writing fails, the file is damaged or over the limits, or `cancel` is set, which is
/// checked between blocks.
pub fn unpack(
    reader: impl Read,
    writer: impl Write,
    limits: &Limits,
    threads: usize,
    cancel: &AtomicBool,
) -> Result<Summary, CodecError> {
    Unpacking::new(reader, limits, false)?.run(writer, threads, cancel)
}

/// As [`unpack`], but a damaged block is left out and named in [`Summary::damaged`]; all others are
/// written. The hash of the whole file is then checked only if nothing was damaged.
///
/// # Errors
/// As [`unpack`], except for damage after the file header.
pub fn unpack_keep_going(
    reader: impl Read,
    writer: impl Write,
    limits: &Limits,
    threads: usize,
    cancel: &AtomicBool,
) -> Result<Summary, CodecError> {
    Unpacking::new(reader, limits, true)?.run(writer, threads, cancel)
}

struct Unpacking<R> {
    frames: FrameReader<R>,
    keep_going: bool,
    total_limit: u64,
    window: Window,
}

impl<R: Read> Unpacking<R> {
    fn new(reader: R, limits: &Limits, keep_going: bool) -> Result<Self, CodecError> {
        Ok(Self {
            frames: FrameReader::open(reader, limits.block_bytes, keep_going)?,
            keep_going,
            total_limit: limits.total_bytes,
            window: Window {
                values: usize::MAX,
                bytes: limits.in_flight_bytes,
            },
        })
    }

    fn run(
        mut self,
        mut writer: impl Write,
        threads: usize,
        cancel: &AtomicBool,
    ) -> Result<Summary, CodecError> {
        let started = Instant::now();
        let pool = parallel::pool(thread_count(threads))?;
        let mut summary = Summary::new();
        let mut hasher = blake3::Hasher::new();
        let (keep_going, total_limit) = (self.keep_going, self.total_limit);
        let frames = &mut self.frames;
        parallel::in_order(
            &pool,
            self.window,
            || {
                stop_if(cancel)?;
                let frame = frames.next_frame()?;
                Ok(frame.map(weighed))
            },
            decode_frame,
            |(decoded, code_time)| {
                stop_if(cancel)?;
                summary.code_time += code_time;
                let block = match decoded {
                    Ok(block) => block,
                    Err(damage) if keep_going => {
                        summary.damaged.push(damage.to_string());
                        return Ok(());
                    }
                    Err(damage) => return Err(damage.into()),
                };
                add_block(&mut summary, &block, total_limit)?;
                hasher.update(&block.raw);
                let started = Instant::now();
                writer.write_all(&block.raw).map_err(CodecError::Write)?;
                summary.write_time += started.elapsed();
                Ok(())
            },
        )?;
        writer.flush().map_err(CodecError::Write)?;
        summary.hash = hasher.finalize();
        summary.packed_bytes = self.frames.offset;
        summary.read_time = self.frames.read_time;
        summary.blocks = self.frames.seen.len() as u32;
        self.check_end(&mut summary)?;
        if let Some(damage) = &self.frames.header_damage {
            summary.damaged.insert(0, damage.to_string());
        }
        summary.wall_time = started.elapsed();
        Ok(summary)
    }

    /// Checks the end frame against the blocks that were read and the bytes that were written.
    fn check_end(&mut self, summary: &mut Summary) -> Result<(), CodecError> {
        let end_offset = self.frames.end_offset;
        let wrong = match &self.frames.end {
            None => Some("the file ends without its end frame: it was cut short".to_string()),
            Some(end) if end.index != self.frames.seen => {
                Some("the end frame lists other blocks".into())
            }
            Some(end) if end.raw_bytes != summary.raw_bytes || !end.hash.matches(&summary.hash) => {
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
            Some(reason) => Err(CodecError::Damaged {
                offset: end_offset,
                block: None,
                reason,
            }),
        }
    }
}

/// A block whose hash matches.
struct RestoredBlock {
    offset: u64,
    header: BlockHeader,
    raw: Vec<u8>,
}

/// A frame with the raw bytes of its block.
fn weighed(frame: Result<BlockFrame, DamagedFrame>) -> (Result<BlockFrame, DamagedFrame>, usize) {
    let bytes = frame
        .as_ref()
        .map_or(0, |frame| frame.header.raw_len as usize);
    (frame, bytes)
}

fn decode_frame(
    frame: Result<BlockFrame, DamagedFrame>,
) -> (Result<RestoredBlock, DamagedFrame>, Duration) {
    let started = Instant::now();
    let decoded = frame.and_then(|frame| {
        let raw = frame.decode()?;
        Ok(RestoredBlock {
            offset: frame.offset,
            header: frame.header,
            raw,
        })
    });
    (decoded, started.elapsed())
}

fn add_block(
    summary: &mut Summary,
    block: &RestoredBlock,
    total_limit: u64,
) -> Result<(), CodecError> {
    summary.raw_bytes += block.raw.len() as u64;
    if summary.raw_bytes > total_limit {
        return Err(CodecError::TooLarge {
            what: "the raw file",
            value: summary.raw_bytes,
            limit: total_limit,
            offset: block.offset,
        });
    }
    let header = &block.header;
    summary.count(
        header.coding.transform,
        header.coding.codec,
        header.raw_len.into(),
        header.packed_len.into(),
    );
    Ok(())
}
