//! From frames back to the raw file.

use std::{
    io::{Read, Write},
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use super::{
    Limits, Summary,
    frames::{Frame, FrameReader},
    stop_if, thread_count,
};
use crate::{Error, block, frame::BlockHeader, parallel};

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
