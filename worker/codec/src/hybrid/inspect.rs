//! What a packed file holds, without unpacking it.

use std::io::Read;

use super::{
    Limits,
    frame::{BlockHeader, EndFrame},
    frame_reader::{FrameReader, damaged},
};
use crate::{CodecError, StreamInfo};

/// The blocks and streams of a packed file.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The block size that it was packed with, in bytes; version 2 does not keep it.
    pub block_size: Option<u32>,
    /// Bytes of the packed file.
    pub packed_bytes: u64,
    /// Every block in order.
    pub blocks: Vec<InspectedBlock>,
    /// Version, raw bytes and hash of the whole file.
    pub end: EndFrame,
}

/// One block of a packed file.
#[derive(Debug, Clone)]
pub struct InspectedBlock {
    /// Where its header begins in the packed file.
    pub offset: u64,
    /// Its header.
    pub header: BlockHeader,
    /// Its streams: of which column, how coded, and their bytes before and after the codec.
    pub streams: Vec<StreamInfo>,
}

/// Reads the headers and directories of a packed file. Nothing is unpacked but the directories, so that no hash of raw bytes is
/// checked.
///
/// ```
/// # use std::sync::atomic::AtomicBool;
/// # use streampress_codec::hybrid::{CodecOptions, Limits, inspect, pack};
/// # let raw = b"id,name\n1,one\n2,two\n".repeat(100);
/// # let mut packed = Vec::new();
/// # let sink = |frame: &[u8]| { packed.extend_from_slice(frame); Ok(()) };
/// # pack(&raw[..], sink, &CodecOptions::default(), &AtomicBool::new(false))?;
/// let inspection = inspect(&packed[..], &Limits::default())?;
/// assert_eq!(inspection.end.raw_bytes, raw.len() as u64);
/// for stream in &inspection.blocks[0].streams {
///     println!("{}: {} -> {} bytes", stream.name, stream.raw_bytes, stream.packed_bytes);
/// }
/// # Ok::<(), streampress_codec::CodecError>(())
/// ```
///
/// # Errors
/// If reading fails, or the file is not packed, damaged, cut short, or has a block over the limit.
pub fn inspect(reader: impl Read, limits: &Limits) -> Result<Inspection, CodecError> {
    let mut frames = FrameReader::open(reader, limits.block_bytes, false)?;
    let mut blocks = Vec::new();
    while let Some(frame) = frames.next_frame()? {
        let frame = frame?;
        blocks.push(InspectedBlock {
            offset: frame.offset,
            streams: frame.streams()?,
            header: frame.header,
        });
    }
    let packed_bytes = frames.bytes_read();
    let end = frames.end().cloned();
    Ok(Inspection {
        block_size: frames.block_size,
        packed_bytes,
        blocks,
        end: end.ok_or_else(|| damaged(packed_bytes, "the end frame is missing"))?,
    })
}
