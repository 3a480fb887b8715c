//! `streampress unpack`: a packed file of either format, whole or one block of it.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use streampress_codec::hybrid::{self, Blocks, frame};
use streampress_codec::{CodecError, legacy};
use streampress_crds::api::pipeline::CodecEffort;

use super::args::UnpackArgs;
use super::output::{self, Output};
use super::pack::{HYBRID_ENDING, SEED_ENDING};
use super::signals::cancel_on_signal;
use super::threads_that_fit;
use crate::message::{LegacyManifest, Message};
use crate::telemetry::address_space::{AddressSpace, MemoryUse};

pub(super) fn command(args: UnpackArgs) -> Result<ExitCode> {
    let space = AddressSpace::of_this_process();
    let options = UnpackOptions {
        input: args.input,
        output: args.output,
        threads: threads_that_fit(
            args.threads,
            hybrid::DEFAULT_BLOCK_BYTES,
            CodecEffort::Balanced,
            MemoryUse::OneFile,
        )?,
        limits: limits(space),
        keep_going: args.keep_going,
        block: args.block,
        force: args.force,
    };
    let outcome = unpack(&options, &*cancel_on_signal()?);
    let outcome = match space {
        Some(space) => outcome.map_err(|error| say_why_too_large(error, space))?,
        None => outcome?,
    };
    for damage in &outcome.damaged {
        output::error(&format!("{damage}; what is damaged is left out"));
    }
    output::result(
        &outcome.output,
        &format!("{} to {} bytes", outcome.packed_bytes, outcome.raw_bytes),
    );
    Ok(match outcome.damaged.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The most that a file may ask for: no block that the address space does not hold.
pub(super) fn limits(space: Option<AddressSpace>) -> hybrid::Limits {
    let mut limits = hybrid::Limits::default();
    if let Some(space) = space {
        limits.block_bytes = limits.block_bytes.min(space.largest_block());
    }
    limits
}

/// A block that is too large is so for a process whose address space is limited.
pub(super) fn say_why_too_large(error: anyhow::Error, space: AddressSpace) -> anyhow::Error {
    let block = error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(CodecError::TooLarge { value, .. }) if *value <= frame::MAX_BLOCK_BYTES as u64 => {
            Some(*value)
        }
        _ => None,
    });
    match block {
        Some(block) => error.context(format!(
            "this process may take too little address space (ulimit -v) for this file: set 'ulimit -v {}' or unlimited",
            space.enough_kib_for(block)
        )),
        None => error,
    }
}

/// What to unpack, and how.
struct UnpackOptions {
    /// `-` is standard input.
    input: PathBuf,
    /// Unless given, the input's name without `.spk` or `.seed`, and standard output for a single block.
    output: Option<PathBuf>,
    /// 0 is all cores.
    threads: usize,
    /// The most that the file may ask for.
    limits: hybrid::Limits,
    /// Leave out damaged blocks and list them instead of stopping.
    keep_going: bool,
    /// Only this block, counted from 0; the input must be a hybrid file that is not a stream.
    block: Option<u32>,
    /// Overwrite an existing output.
    force: bool,
}

/// The result of unpacking.
struct UnpackOutcome {
    raw_bytes: u64,
    packed_bytes: u64,
    output: PathBuf,
    /// The damaged blocks that were left out; with any, the command fails.
    damaged: Vec<String>,
}

/// Unpacks one file.
fn unpack(options: &UnpackOptions, cancel: &AtomicBool) -> Result<UnpackOutcome> {
    output::ensure_no_folder(&options.input)?;
    let output = output_path(options)?;
    if let Some(number) = options.block {
        return unpack_block(options, number, output)
            .with_context(|| format!("unpacking block {number} of {}", options.input.display()));
    }
    let mut input = output::open(&options.input)?;
    let mut writer = Output::create(&output, options.force, &options.input)?;
    let work = || -> Result<UnpackOutcome> {
        let mut first = Vec::new();
        input
            .by_ref()
            .take(4)
            .read_to_end(&mut first)
            .context("reading the input")?;
        let is_seed = is_seed_start(&first, &options.input);
        let whole = first.as_slice().chain(input);
        if is_seed {
            return unpack_seed(options, whole, writer, output);
        }
        let unpack = if options.keep_going {
            hybrid::unpack_keep_going
        } else {
            hybrid::unpack
        };
        let summary = unpack(whole, &mut writer, &options.limits, options.threads, cancel)?;
        writer.finish()?;
        Ok(UnpackOutcome {
            raw_bytes: summary.raw_bytes,
            packed_bytes: summary.packed_bytes,
            output,
            damaged: summary.damaged,
        })
    };
    work().with_context(|| format!("unpacking {}", options.input.display()))
}

/// Reads the index and the one block, whatever the size of the file.
fn unpack_block(options: &UnpackOptions, number: u32, output: PathBuf) -> Result<UnpackOutcome> {
    if output::is_stream(&options.input) {
        bail!("a single block needs a file: standard input cannot be read from its end");
    }
    let mut file = File::open(&options.input).context("opening the file")?;
    let mut first = Vec::new();
    let begin = Read::by_ref(&mut file).take(4).read_to_end(&mut first);
    begin.context("reading the file")?;
    if is_seed_start(&first, &options.input) {
        bail!(
            "this is a file of the original's format, Seed, which has no blocks: --block is of the Hybrid format; leave it out"
        );
    }
    let opened = Blocks::open(file, &options.limits);
    let mut blocks = opened.map_err(|error| match error {
        CodecError::Damaged { .. } => anyhow::Error::new(error).context(
            "its blocks cannot be found; without --block, --keep-going unpacks all that are whole",
        ),
        error => error.into(),
    })?;
    let raw = blocks.read(number)?;
    let packed_bytes = blocks
        .end()
        .index
        .get(number as usize)
        .map_or(0, |&(_, packed)| u64::from(packed));
    let writer = Output::create(&output, options.force, &options.input)?;
    write_whole(&raw, packed_bytes, writer, output)
}

/// A seed file begins with the length of a message, which is never the magic of a hybrid file.
pub(super) fn is_seed_start(first: &[u8], path: &Path) -> bool {
    let named_so = path.extension().is_some_and(|ending| ending == SEED_ENDING);
    first != frame::FILE_MAGIC && (named_so || first.starts_with(&[0, 0]))
}

fn output_path(options: &UnpackOptions) -> Result<PathBuf> {
    if let Some(output) = &options.output {
        return Ok(output.clone());
    }
    if output::is_stream(&options.input) || options.block.is_some() {
        return Ok(PathBuf::from("-"));
    }
    match options.input.extension() {
        Some(ending) if ending == HYBRID_ENDING || ending == SEED_ENDING => {
            Ok(options.input.with_extension(""))
        }
        _ => bail!(
            "{} does not end in .{HYBRID_ENDING} or .{SEED_ENDING}: say where to unpack it with -o",
            options.input.display()
        ),
    }
}

/// The longest message that is read.
const MESSAGE_LIMIT: usize = 1 << 20;
/// The longest record that is read: what a Kinesis record may be.
const RECORD_LIMIT: usize = 10 << 20;
/// The most that a seed file may restore to in memory, unless the limits say less.
const SEED_TOTAL_LIMIT: u64 = 4 << 30;

fn unpack_seed(
    options: &UnpackOptions,
    input: impl Read,
    writer: Output,
    output: PathBuf,
) -> Result<UnpackOutcome> {
    let (message, records, packed_bytes) = read_seed_file(input)?;
    let packed = legacy::PackedRecords {
        stages: message.stages()?,
        records,
    };
    let limit = options.limits.total_bytes.min(SEED_TOTAL_LIMIT) as usize;
    let raw = legacy::unpack(&packed, limit)?;
    write_whole(&raw, packed_bytes, writer, output)
}

/// Writes what was unpacked in one piece.
fn write_whole(
    raw: &[u8],
    packed_bytes: u64,
    mut writer: Output,
    output: PathBuf,
) -> Result<UnpackOutcome> {
    writer.write_all(raw).context("writing the output")?;
    writer.finish()?;
    Ok(UnpackOutcome {
        raw_bytes: raw.len() as u64,
        packed_bytes,
        output,
        damaged: Vec::new(),
    })
}

/// Reads a packed seed file: message, records in the order of their numbers, and bytes in all.
pub(super) fn read_seed_file(mut input: impl Read) -> Result<(LegacyManifest, Vec<Vec<u8>>, u64)> {
    let mut offset = 0;
    let message =
        read_part(&mut input, MESSAGE_LIMIT, &mut offset)?.context("the file is empty")?;
    let message =
        std::str::from_utf8(&message).context("the message is not UTF-8: not a packed file")?;
    let Message::LegacyManifest(message) = Message::parse(message)? else {
        bail!("the message is not a chunk message: not a packed file");
    };
    let mut records = Vec::new();
    while let Some(record) = read_part(&mut input, RECORD_LIMIT, &mut offset)? {
        records.push(record);
    }
    if records.len() != message.sequence_number.len() {
        bail!(
            "the message names {} records, the file holds {}",
            message.sequence_number.len(),
            records.len()
        );
    }
    Ok((message, records, offset))
}

fn read_part(input: &mut impl Read, limit: usize, offset: &mut u64) -> Result<Option<Vec<u8>>> {
    let at = *offset;
    let mut length = Vec::new();
    input
        .by_ref()
        .take(4)
        .read_to_end(&mut length)
        .context("reading the input")?;
    let Some(four) = length.first_chunk::<4>() else {
        if length.is_empty() {
            return Ok(None);
        }
        bail!("damaged at byte {at}: the file ends inside a length");
    };
    let length = u32::from_be_bytes(*four) as usize;
    if length > limit {
        bail!(
            "damaged at byte {at}: a part of {length} bytes, over the limit of {limit} (not a packed file?)"
        );
    }
    let mut part = Vec::new();
    input
        .by_ref()
        .take(length as u64)
        .read_to_end(&mut part)
        .context("reading the input")?;
    if part.len() < length {
        bail!("damaged at byte {at}: the file ends inside a part of {length} bytes");
    }
    *offset += 4 + length as u64;
    Ok(Some(part))
}
