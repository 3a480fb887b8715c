//! `streampress inspect`: what a packed file is made of, without writing anything.

use std::{fmt, io::Read, path::Path};

use anyhow::{Context, Result, bail};

use super::{files, unpack};
use streampress_codec::{
    CodecError, StreamInfo,
    hybrid::{
        FrameReader, Limits,
        frame::{BlockHeader, EndFrame},
    },
};

/// What a packed file holds.
#[derive(Debug, Clone)]
pub enum Inspection {
    /// A hybrid file.
    Hybrid {
        /// The block size that it was packed with; version 2 does not keep it.
        block_size: Option<u32>,
        /// Bytes of the file.
        packed_bytes: u64,
        /// Every block in order.
        blocks: Vec<Block>,
        /// The hash and index behind the blocks.
        end: EndFrame,
    },
    /// A seed file.
    Seed {
        /// Its message, as JSON.
        message: String,
        /// Bytes of each record.
        record_bytes: Vec<u64>,
    },
}

/// One block of a hybrid file.
#[derive(Debug, Clone)]
pub struct Block {
    /// Where its header begins.
    pub offset: u64,
    /// Its header.
    pub header: BlockHeader,
    /// Its streams.
    pub streams: Vec<StreamInfo>,
}

/// Reads a packed file's frames and directories. [`Inspection`] displays as the command prints it.
pub fn inspect(path: &Path) -> Result<Inspection> {
    let work = || {
        let mut input = files::open(path)?;
        let mut first = Vec::new();
        input
            .by_ref()
            .take(4)
            .read_to_end(&mut first)
            .context("reading the input")?;
        let is_seed = unpack::is_seed_start(&first, path);
        let whole = first.as_slice().chain(input);
        if is_seed {
            inspect_seed(whole)
        } else {
            inspect_hybrid(whole)
        }
    };
    work().with_context(|| format!("inspecting {}", path.display()))
}

fn inspect_seed(input: impl Read) -> Result<Inspection> {
    let (message, records, _) = unpack::read_seed_file(input)?;
    Ok(Inspection::Seed {
        message: message.to_json(),
        record_bytes: records.iter().map(|record| record.len() as u64).collect(),
    })
}

fn inspect_hybrid(input: impl Read) -> Result<Inspection> {
    let mut frames = FrameReader::open(input, Limits::default().block_bytes, false)?;
    let mut blocks = Vec::new();
    while let Some(frame) = frames.next_frame()? {
        let frame = frame.map_err(CodecError::from)?;
        blocks.push(Block {
            offset: frame.offset,
            header: frame.header,
            streams: frame.streams().map_err(CodecError::from)?,
        });
    }
    let Some(end) = frames.end().cloned() else {
        bail!("the end frame is missing")
    };
    Ok(Inspection::Hybrid {
        block_size: frames.block_size,
        packed_bytes: frames.bytes_read(),
        blocks,
        end,
    })
}

impl fmt::Display for Inspection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seed {
                message,
                record_bytes,
            } => {
                writeln!(out, "seed format, {} records", record_bytes.len())?;
                writeln!(out, "message {message}")?;
                for (number, bytes) in record_bytes.iter().enumerate() {
                    writeln!(out, "record {number}: {bytes} bytes")?;
                }
                Ok(())
            }
            Self::Hybrid {
                block_size,
                packed_bytes,
                blocks,
                end,
            } => show_hybrid(out, *block_size, *packed_bytes, blocks, end),
        }
    }
}

fn show_hybrid(
    out: &mut fmt::Formatter<'_>,
    block_size: Option<u32>,
    packed_bytes: u64,
    blocks: &[Block],
    end: &EndFrame,
) -> fmt::Result {
    let payloads: u64 = blocks
        .iter()
        .map(|block| u64::from(block.header.packed_len))
        .sum();
    let frames = packed_bytes - payloads;
    let largest = blocks.iter().map(|block| block.header.raw_len).max();
    writeln!(
        out,
        "hybrid format version {}, {} blocks of at most {} bytes",
        end.version.number(),
        blocks.len(),
        block_size.or(largest).unwrap_or_default()
    )?;
    writeln!(
        out,
        "{} raw bytes -> {} packed bytes, {frames} of them frames; blake3 {}",
        end.raw_bytes, packed_bytes, end.hash
    )?;
    for block in blocks {
        let header = &block.header;
        writeln!(
            out,
            "block {} at byte {}: transform {}, codec {}, {} -> {} bytes ({:.1} %)",
            header.index,
            block.offset,
            header.coding.transform.name(),
            header.coding.codec.name(),
            header.raw_len,
            header.packed_len,
            percent(header.packed_len.into(), header.raw_len.into())
        )?;
        for stream in &block.streams {
            writeln!(
                out,
                "  {:<40} {:<20} {:<7} {:>9} -> {:>9} bytes {:>5.1} % of the block",
                stream.name,
                stream.coding,
                stream.codec.name(),
                stream.raw_bytes,
                stream.packed_bytes,
                percent(stream.packed_bytes, header.packed_len.into())
            )?;
        }
    }
    Ok(())
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}
