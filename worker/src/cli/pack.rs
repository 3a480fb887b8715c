//! `streampress pack`: one file into the hybrid or the seed format.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, anyhow, bail};
use streampress_codec::{FormatVersion, hybrid, legacy};
use streampress_crds::api::pipeline::{CodecEffort, CodecFormat};
use streampress_transport::local::shell_word;

use super::args::PackArgs;
use super::output::{self, Output};
use super::signals::cancel_on_signal;
use super::threads_that_fit;
use crate::legacy::READ_LOCATION;
use crate::message::LegacyManifest;
use crate::roles::context::hybrid_effort;
use crate::telemetry::address_space::{AddressSpace, LowAddressSpace, MemoryUse};

/// The ending of packed hybrid files.
pub(super) const HYBRID_ENDING: &str = "spk";
/// The ending of packed seed files.
pub(super) const SEED_ENDING: &str = "seed";

pub(super) fn command(args: PackArgs) -> Result<ExitCode> {
    if args.format == CodecFormat::Seed && (args.plan.is_some() || args.explain) {
        bail!(
            "--plan and --explain are of the hybrid format: leave them out, or leave out --format seed"
        );
    }
    if args.plan.as_deref().is_some_and(output::is_stream) && output::is_stream(&args.input) {
        bail!("standard input cannot be both the plan and the input: name a file for one of them");
    }
    if output_is_terminal(args.output.as_deref(), &args.input) {
        bail!(
            "packed bytes are not written to a terminal: name a file with -o, or redirect the output"
        );
    }
    let options = PackOptions {
        hybrid: hybrid::CodecOptions {
            effort: hybrid_effort(args.effort),
            block_size: args.block_size,
            threads: packing_threads(args.threads, args.block_size, args.effort)?,
        },
        version: args.format_version,
        plan: args.plan,
        input: args.input,
        output: args.output,
        format: args.format,
        force: args.force,
    };
    let mut explanation = std::io::stderr();
    let explain: Option<&mut dyn Write> = match args.explain {
        true => Some(&mut explanation),
        false => None,
    };
    let outcome = pack(&options, explain, &*cancel_on_signal()?)?;
    let (raw, packed) = (outcome.raw_bytes, outcome.packed_bytes);
    let share = match raw {
        0 => String::new(),
        // Something is left, however little.
        raw => format!(" ({:.2} %)", (100.0 * packed as f64 / raw as f64).max(0.01)),
    };
    output::result(&outcome.output, &format!("{raw} to {packed} bytes{share}"));
    Ok(ExitCode::SUCCESS)
}

/// Whether packed bytes would go to a terminal.
fn output_is_terminal(output: Option<&Path>, input: &Path) -> bool {
    output::is_stream(output.unwrap_or(input)) && std::io::stdout().is_terminal()
}

/// Threads that pack blocks of one file.
pub(super) fn packing_threads(
    given: Option<u16>,
    block_bytes: usize,
    effort: CodecEffort,
) -> Result<usize, LowAddressSpace> {
    threads_that_fit(given, block_bytes, effort, MemoryUse::OneFile)
}

/// What to pack, and how.
struct PackOptions {
    /// `-` is standard input.
    input: PathBuf,
    /// Unless given, beside the input with `.spk` or `.seed` behind its name.
    output: Option<PathBuf>,
    format: CodecFormat,
    /// For the hybrid format, as version and plan.
    hybrid: hybrid::CodecOptions,
    version: FormatVersion,
    /// A plan file.
    plan: Option<PathBuf>,
    /// Overwrite an existing output.
    force: bool,
}

/// The result of packing.
struct PackOutcome {
    raw_bytes: u64,
    packed_bytes: u64,
    output: PathBuf,
}

/// Packs one file. With `explain`, writes there what was tried for every block and what was chosen.
fn pack(
    options: &PackOptions,
    explain: Option<&mut dyn Write>,
    cancel: &AtomicBool,
) -> Result<PackOutcome> {
    let input = output::open(&options.input)?;
    let output = output_path(options)?;
    let plan = match &options.plan {
        Some(path) => {
            output::ensure_differ(&output, path)?;
            read_plan(path, options)?
        }
        None => hybrid::Plan::default(),
    };
    let writer = Output::create(&output, options.force, &options.input)?;
    let outcome = match options.format {
        CodecFormat::Hybrid => pack_hybrid(options, plan, input, writer, output, explain, cancel),
        CodecFormat::Seed => pack_seed(options, input, writer, output),
    };
    outcome.with_context(|| format!("packing {}", options.input.display()))
}

fn output_path(options: &PackOptions) -> Result<PathBuf> {
    if let Some(output) = &options.output {
        return Ok(output.clone());
    }
    if output::is_stream(&options.input) {
        return Ok(PathBuf::from("-"));
    }
    let ending = match options.format {
        CodecFormat::Hybrid => HYBRID_ENDING,
        CodecFormat::Seed => SEED_ENDING,
    };
    let mut name = options
        .input
        .file_name()
        .context("the input has no file name")?
        .to_owned();
    name.push(".");
    name.push(ending);
    Ok(options.input.with_file_name(name))
}

fn pack_hybrid(
    options: &PackOptions,
    plan: hybrid::Plan,
    input: impl Read,
    mut writer: Output,
    output: PathBuf,
    mut explain: Option<&mut dyn Write>,
    cancel: &AtomicBool,
) -> Result<PackOutcome> {
    let mut explained = Ok(());
    let packer = hybrid::Packer::new(options.hybrid)
        .with_version(options.version)
        .with_plan(plan);
    let summary = packer.pack_observed(
        input,
        |frame| writer.write_all(frame),
        cancel,
        |block| {
            if let (Some(out), Ok(())) = (&mut explain, &explained) {
                explained = explain_block(out, block);
            }
        },
    )?;
    explained.context("explaining")?;
    writer.finish()?;
    Ok(PackOutcome {
        raw_bytes: summary.raw_bytes,
        packed_bytes: summary.packed_bytes,
        output,
    })
}

/// Reads a plan, and says so if nothing of it is used with this effort.
fn read_plan(path: &Path, options: &PackOptions) -> Result<hybrid::Plan> {
    let effort = options.hybrid.effort;
    let read = || -> Result<hybrid::Plan> {
        let mut bytes = Vec::new();
        output::open(path)?.read_to_end(&mut bytes)?;
        Ok(hybrid::Plan::from_bytes(&bytes)?)
    };
    let plan = read().with_context(|| format!("reading the plan {}", path.display()))?;
    let made_with = plan.summaries().into_iter().map(|schema| schema.effort);
    if let Some(made_with) = made_with.max().filter(|made_with| *made_with < effort) {
        output::note(&format!(
            "{} was made with effort {}, and nothing of it is used with effort {}; to make it anew from this file: streampress \
             train {} --effort {} -o {} --force",
            path.display(),
            made_with.name(),
            effort.name(),
            shell_word(&options.input),
            effort.name(),
            shell_word(path)
        ));
    }
    Ok(plan)
}

fn explain_block(out: &mut dyn Write, block: &hybrid::PackedBlock) -> std::io::Result<()> {
    let header = &block.header;
    writeln!(
        out,
        "block {}: {} -> {} bytes, transform {}",
        header.index,
        header.raw_len,
        header.packed_len,
        header.coding.transform.name()
    )?;
    let used = block.plan_use;
    writeln!(
        out,
        "  columns: {} by a plan, {} searched, {} searched again",
        used.planned_columns, used.searched_columns, used.drifted_columns
    )?;
    for line in &block.tried {
        writeln!(out, "  tried {line}")?;
    }
    for stream in &block.streams {
        writeln!(
            out,
            "  won {} [{}] {}: {} -> {} bytes",
            stream.name,
            stream.coding,
            stream.codec.name(),
            stream.raw_bytes,
            stream.packed_bytes
        )?;
    }
    Ok(())
}

fn pack_seed(
    options: &PackOptions,
    mut input: impl Read,
    mut writer: Output,
    output: PathBuf,
) -> Result<PackOutcome> {
    let name = file_name(&options.input);
    let format = legacy::LegacyFormat::of_name(&name).ok_or_else(|| {
        anyhow!("the seed format needs to know whether this is json, csv or txt: name a file with that ending")
    })?;
    let mut raw = Vec::new();
    input.read_to_end(&mut raw).context("reading the input")?;
    let normal = legacy::normalise(format, &raw)?;
    let packed = legacy::pack(&normal, legacy::DEFAULT_CHUNK_BYTES)
        .map_err(|error| with_enough_space(error.into(), raw.len()))?;
    let bytes = seed_file(&name, &packed);
    writer.write_all(&bytes).context("writing the output")?;
    writer.finish()?;
    Ok(PackOutcome {
        raw_bytes: raw.len() as u64,
        packed_bytes: bytes.len() as u64,
        output,
    })
}

/// The error, with the limit of address space that would do where there is one and memory ran out.
fn with_enough_space(error: anyhow::Error, raw_bytes: usize) -> anyhow::Error {
    let is_out_of_memory = error
        .chain()
        .any(|cause| cause.to_string().contains("can't allocate memory"));
    match AddressSpace::of_this_process().filter(|_| is_out_of_memory) {
        Some(space) => error.context(format!(
            "this process may take too little address space (ulimit -v) for this file: set 'ulimit -v {}' or unlimited",
            space.enough_kib_for_seed(raw_bytes as u64)
        )),
        None => error,
    }
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The chunk message, then the records, each after its length in 4 bytes, big-endian. Without a stream there are no
/// sequence numbers: the records' indexes are in their place.
fn seed_file(name: &str, packed: &legacy::PackedRecords) -> Vec<u8> {
    let message = LegacyManifest {
        id: uuid::Uuid::new_v4().to_string(),
        file_name: format!("{READ_LOCATION}/{name}"),
        file_total_chunk: packed.records.len() as u64,
        shard_id: "shardId-000000000000".into(),
        sequence_number: (0..packed.records.len())
            .map(|index| index.to_string())
            .collect(),
        metadata: LegacyManifest::metadata_for(packed.stages),
    };
    let message = message.to_json();
    let mut bytes = Vec::new();
    for part in std::iter::once(message.as_bytes()).chain(packed.records.iter().map(Vec::as_slice))
    {
        bytes.extend((part.len() as u32).to_be_bytes());
        bytes.extend(part);
    }
    bytes
}
