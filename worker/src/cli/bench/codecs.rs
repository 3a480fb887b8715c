//! The codecs that are compared, each from bytes to bytes in this process.

#[cfg(feature = "bench")]
use std::io::Write as _;
use std::io::{self, Read};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, anyhow};
use xz2::stream::{Check, LzmaOptions, MtStreamBuilder, PRESET_EXTREME, Stream};

use super::LARGEST_FILE_BYTES;
use streampress_codec::{FormatVersion, hybrid, legacy};

/// The codec that all others are compared with.
pub(super) const REFERENCE: &str = "xz -9e";

/// From bytes to bytes.
type Transformation = Box<dyn Fn(&[u8]) -> Result<Vec<u8>> + Send + Sync>;

/// One way to pack.
pub(super) struct BenchCodec {
    /// Its name in the table.
    pub(super) name: String,
    /// Threads that it may use both ways.
    pub(super) threads: usize,
    /// Packs.
    pub(super) pack: Transformation,
    /// Unpacks.
    pub(super) unpack: Transformation,
    /// What unpacking must yield; the seed format normalises.
    pub(super) expected: Transformation,
}

/// All of them; the seed format only for a name whose ending it knows.
pub(super) fn codecs(name: &str, threads: usize) -> Vec<BenchCodec> {
    let ours = hybrid_packers(threads).into_iter();
    let mut all: Vec<BenchCodec> = ours
        .map(|(name, packer)| hybrid_with(name, packer, threads))
        .collect();
    if let Some(format) = legacy::LegacyFormat::of_name(name) {
        all.push(seed_codec(format));
    }
    all.push(xz("xz -6 -T 4MiB", threads.max(2), 6));
    all.extend(rivals());
    all
}

/// The codecs of other programs, on one thread.
pub(super) fn rivals() -> Vec<BenchCodec> {
    vec![
        xz("xz -6", 1, 6),
        xz(REFERENCE, 1, 9 | PRESET_EXTREME),
        simple(
            "bzip2 -9",
            |raw| drain(bzip2::read::BzEncoder::new(raw, bzip2::Compression::best())),
            |packed| drain(bzip2::read::MultiBzDecoder::new(packed)),
        ),
        #[cfg(feature = "bench")]
        simple("zstd -3", |raw| Ok(zstd::encode_all(raw, 3)?), zstd_unpack),
        #[cfg(feature = "bench")]
        simple("zstd -19 --long=27", zstd_pack, zstd_unpack),
        #[cfg(feature = "bench")]
        simple("brotli -11 -w 24", brotli_pack, |packed| {
            drain(brotli::Decompressor::new(packed, 64 << 10))
        }),
        #[cfg(feature = "bench")]
        simple("PPMd -o 16 -m 64", ppmd_pack, |packed| {
            drain(ppmd_rust::Ppmd7Decoder::new(
                packed,
                PPMD_ORDER,
                PPMD_MEMORY_BYTES,
            )?)
        }),
    ]
}

/// As `7z -m0=PPMd -mx=7`.
#[cfg(feature = "bench")]
const PPMD_ORDER: u32 = 16;
#[cfg(feature = "bench")]
const PPMD_MEMORY_BYTES: u32 = 64 << 20;

#[cfg(feature = "bench")]
fn ppmd_pack(raw: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = ppmd_rust::Ppmd7Encoder::new(Vec::new(), PPMD_ORDER, PPMD_MEMORY_BYTES)?;
    encoder.write_all(raw)?;
    Ok(encoder.finish(true)?)
}

#[cfg(feature = "bench")]
fn zstd_unpack(packed: &[u8]) -> Result<Vec<u8>> {
    let mut decoder = zstd::stream::Decoder::new(packed)?;
    decoder.window_log_max(ZSTD_WINDOW)?;
    drain(decoder)
}

/// As `zstd -19 --long=27`.
#[cfg(feature = "bench")]
const ZSTD_WINDOW: u32 = 27;

#[cfg(feature = "bench")]
fn zstd_pack(raw: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 19)?;
    encoder.set_pledged_src_size(Some(raw.len() as u64))?;
    encoder.long_distance_matching(true)?;
    encoder.window_log(ZSTD_WINDOW)?;
    encoder.write_all(raw)?;
    Ok(encoder.finish()?)
}

#[cfg(feature = "bench")]
fn brotli_pack(raw: &[u8]) -> Result<Vec<u8>> {
    let mut packed = Vec::new();
    let mut encoder = brotli::CompressorWriter::new(&mut packed, 64 << 10, 11, 24);
    encoder.write_all(raw)?;
    drop(encoder);
    Ok(packed)
}

/// A packer for each effort and version of the hybrid format, with its name.
pub(super) fn hybrid_packers(threads: usize) -> Vec<(String, hybrid::Packer<'static>)> {
    let packers = |effort: hybrid::Effort| {
        let packer = hybrid::Packer::new(options(effort, threads));
        let name = format!("hybrid {}", effort.name());
        let newer = packer.clone().with_version(FormatVersion::V2);
        let newer = (
            format!("{name}, version {}", FormatVersion::V2.number()),
            newer,
        );
        [(name, packer.with_version(FormatVersion::V1)), newer]
    };
    hybrid::Effort::ALL.into_iter().flat_map(packers).collect()
}

/// The options of a packer.
pub(super) fn options(effort: hybrid::Effort, threads: usize) -> hybrid::CodecOptions {
    hybrid::CodecOptions {
        effort,
        threads,
        ..Default::default()
    }
}

/// The hybrid format by `packer`, unpacked on `threads` threads.
pub(super) fn hybrid_with(
    name: String,
    packer: hybrid::Packer<'static>,
    threads: usize,
) -> BenchCodec {
    BenchCodec {
        name,
        threads,
        pack: Box::new(move |raw| {
            let mut packed = Vec::new();
            let sink = |frame: &[u8]| -> io::Result<()> {
                packed.extend_from_slice(frame);
                Ok(())
            };
            packer.pack(raw, sink, &AtomicBool::new(false))?;
            Ok(packed)
        }),
        unpack: Box::new(move |packed| {
            let mut raw = Vec::new();
            hybrid::unpack(
                packed,
                &mut raw,
                &hybrid::Limits::default(),
                threads,
                &AtomicBool::new(false),
            )?;
            Ok(raw)
        }),
        expected: Box::new(|raw| Ok(raw.to_vec())),
    }
}

/// One byte for the number of stages, then the records; the message is not counted.
fn seed_codec(format: legacy::LegacyFormat) -> BenchCodec {
    BenchCodec {
        name: "seed".to_owned(),
        threads: 1,
        pack: Box::new(move |raw| {
            let packed = legacy::pack(
                &legacy::normalise(format, raw)?,
                legacy::DEFAULT_CHUNK_BYTES,
            )?;
            let mut bytes = vec![u8::from(packed.stages == legacy::StageCount::Two)];
            for record in &packed.records {
                bytes.extend_from_slice(&(record.len() as u32).to_be_bytes());
                bytes.extend_from_slice(record);
            }
            Ok(bytes)
        }),
        unpack: Box::new(|packed| {
            let (stages, mut rest) = packed.split_first().context("empty")?;
            let mut records = Vec::new();
            while let Some((length, after)) = rest.split_first_chunk::<4>() {
                let (record, next) = after
                    .split_at_checked(u32::from_be_bytes(*length) as usize)
                    .context("cut off")?;
                records.push(record.to_vec());
                rest = next;
            }
            let stages = if *stages == 1 {
                legacy::StageCount::Two
            } else {
                legacy::StageCount::One
            };
            legacy::unpack(
                &legacy::PackedRecords { stages, records },
                LARGEST_FILE_BYTES as usize,
            )
            .map_err(|damage| anyhow!("{damage}"))
        }),
        expected: Box::new(move |raw| Ok(legacy::normalise(format, raw)?)),
    }
}

/// The whole file as one stream, or in blocks of 4 MiB over several threads both ways, as
/// `xz -T2 --block-size=4MiB` and `xz -d -T2`.
fn xz(name: &str, threads: usize, preset: u32) -> BenchCodec {
    let pack = move |raw: &[u8]| -> Result<Vec<u8>> {
        let stream = match threads {
            1 => Stream::new_stream_encoder(&filters(preset)?, Check::Crc64)?,
            threads => MtStreamBuilder::new()
                .threads(u32::try_from(threads)?)
                .preset(preset)
                .block_size(4 << 20)
                .check(Check::Crc64)
                .encoder()?,
        };
        drain(xz2::read::XzEncoder::new_stream(raw, stream))
    };
    let unpack = move |packed: &[u8]| -> Result<Vec<u8>> {
        let stream = match threads {
            1 => Stream::new_stream_decoder(u64::MAX, 0)?,
            threads => MtStreamBuilder::new()
                .threads(u32::try_from(threads)?)
                .memlimit_threading(1 << 30)
                .memlimit_stop(u64::MAX)
                .decoder()?,
        };
        drain(xz2::read::XzDecoder::new_stream(packed, stream))
    };
    BenchCodec {
        threads,
        ..simple(name, pack, unpack)
    }
}

fn filters(preset: u32) -> Result<xz2::stream::Filters> {
    let mut filters = xz2::stream::Filters::new();
    filters.lzma2(&LzmaOptions::new_preset(preset)?);
    Ok(filters)
}

fn simple(
    name: &str,
    pack: impl Fn(&[u8]) -> Result<Vec<u8>> + Send + Sync + 'static,
    unpack: impl Fn(&[u8]) -> Result<Vec<u8>> + Send + Sync + 'static,
) -> BenchCodec {
    BenchCodec {
        name: name.to_owned(),
        threads: 1,
        pack: Box::new(pack),
        unpack: Box::new(unpack),
        expected: Box::new(|raw| Ok(raw.to_vec())),
    }
}

fn drain(mut reader: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    Ok(bytes)
}
