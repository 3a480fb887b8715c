//! `streampress inspect`: the blocks and streams of a packed file; writes nothing.

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use streampress_codec::hybrid::{self, Inspection, Limits, Plan};
use streampress_crds::api::pipeline::CodecEffort;

use super::args::InspectArgs;
use super::{output, unpack};
use crate::telemetry::address_space::{AddressSpace, MemoryUse};

pub(super) fn command(args: InspectArgs) -> Result<ExitCode> {
    let space = AddressSpace::of_this_process();
    let mut limits = Limits::default();
    if let Some(space) = space {
        space.threads(
            1,
            hybrid::DEFAULT_BLOCK_BYTES,
            CodecEffort::Balanced,
            MemoryUse::OneFile,
        )?;
        limits = unpack::limits(Some(space));
    }
    let inspected = inspect(&args.file, &limits);
    let inspected = match space {
        Some(space) => inspected.map_err(|error| unpack::say_why_too_large(error, space))?,
        None => inspected?,
    };
    output::print(&inspected.to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// What a file holds.
#[derive(Debug, Clone)]
enum Inspected {
    Hybrid(Inspection),
    Plan(Plan),
    Seed {
        /// Its message, as JSON.
        message: String,
        /// Bytes of each record.
        record_bytes: Vec<u64>,
    },
}

/// Reads a packed file's frames and directories. [`Inspected`] displays as the command prints it.
fn inspect(path: &Path, limits: &Limits) -> Result<Inspected> {
    let work = || {
        let mut input = output::open(path)?;
        let mut first = Vec::new();
        input
            .by_ref()
            .take(4)
            .read_to_end(&mut first)
            .context("reading the input")?;
        let is_seed = unpack::is_seed_start(&first, path);
        let mut whole = first.as_slice().chain(input);
        if Plan::is_plan_file(&first) {
            let mut bytes = Vec::new();
            whole.read_to_end(&mut bytes).context("reading the plan")?;
            Ok(Inspected::Plan(Plan::from_bytes(&bytes)?))
        } else if is_seed {
            inspect_seed(whole)
        } else {
            Ok(Inspected::Hybrid(hybrid::inspect(whole, limits)?))
        }
    };
    work().with_context(|| format!("inspecting {}", path.display()))
}

fn inspect_seed(input: impl Read) -> Result<Inspected> {
    let (message, records, _) = unpack::read_seed_file(input)?;
    Ok(Inspected::Seed {
        message: message.to_json(),
        record_bytes: records.iter().map(|record| record.len() as u64).collect(),
    })
}

impl fmt::Display for Inspected {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan(plan) => show_plan(out, plan),
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
            Self::Hybrid(inspection) => show_hybrid(out, inspection),
        }
    }
}

fn show_plan(out: &mut fmt::Formatter<'_>, plan: &Plan) -> fmt::Result {
    writeln!(
        out,
        "plan of {} kind(s) of block, by schema and length, {} bytes of memory",
        plan.schema_count(),
        plan.memory_bytes()
    )?;
    for (number, schema) in plan.summaries().iter().enumerate() {
        writeln!(
            out,
            "kind {number}, blocks of {} to {} bytes: effort {}, version {}, transform {}, {} columns, {} choices, packs to {:.1} %",
            schema.block_bytes.start(),
            schema.block_bytes.end(),
            schema.effort.name(),
            schema.version.number(),
            schema.transform.name(),
            schema.columns,
            schema.choices,
            schema.packed_share * 100.0
        )?;
    }
    Ok(())
}

fn show_hybrid(out: &mut fmt::Formatter<'_>, inspection: &Inspection) -> fmt::Result {
    let Inspection {
        block_size,
        packed_bytes,
        blocks,
        end,
    } = inspection;
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
    if blocks.iter().any(|block| block.streams.len() > 1) {
        writeln!(
            out,
            "streams that are packed together share their packed bytes by length here"
        )?;
    }
    Ok(())
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}
