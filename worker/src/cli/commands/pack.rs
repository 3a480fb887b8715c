//! `streampress pack`: one file into the hybrid or the seed format.

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use anyhow::{Context, Result, anyhow};

use super::files::{self, Output};
use streampress_codec::{hybrid, legacy};

use crate::legacy::messages::LegacyManifest;

/// The ending of packed hybrid files.
pub const HYBRID_ENDING: &str = "spk";
/// The ending of packed seed files.
pub const SEED_ENDING: &str = "seed";

/// Which format to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Framed blocks, byte for byte.
    #[default]
    Hybrid,
    /// The Python original's, which normalises.
    Seed,
}

/// What to pack, and how.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// The file to pack; `-` is standard input.
    pub input: PathBuf,
    /// Where to; unless given, beside the input with `.spk` or `.seed` behind its name.
    pub output: Option<PathBuf>,
    /// The format to write.
    pub format: Format,
    /// Effort, block size, threads; for the hybrid format.
    pub hybrid: hybrid::CodecOptions,
    /// What the seed format shall parse the input as; unless given, by the name's ending.
    pub seed_format: Option<legacy::LegacyFormat>,
    /// Bytes of a record in the seed format.
    pub seed_break_bytes: usize,
    /// Overwrite an existing output.
    pub force: bool,
}

/// What was packed.
#[derive(Debug, Clone)]
pub struct PackOutcome {
    /// Bytes of the input.
    pub raw_bytes: u64,
    /// Bytes of the output.
    pub packed_bytes: u64,
    /// Where it went.
    pub output: PathBuf,
    /// All numbers; of the hybrid format only.
    pub summary: Option<hybrid::Summary>,
}

/// Packs one file. With `explain`, writes there what was tried for every block and what won.
pub fn pack(
    options: &PackOptions,
    explain: Option<&mut dyn Write>,
    cancel: &AtomicBool,
) -> Result<PackOutcome> {
    let output = output_path(options)?;
    let input = files::open(&options.input)?;
    let writer = Output::create(&output, options.force)?;
    let outcome = match options.format {
        Format::Hybrid => pack_hybrid(options, input, writer, output, explain, cancel),
        Format::Seed => pack_seed(options, input, writer, output),
    };
    outcome.with_context(|| format!("packing {}", options.input.display()))
}

fn output_path(options: &PackOptions) -> Result<PathBuf> {
    if let Some(output) = &options.output {
        return Ok(output.clone());
    }
    if files::is_stream(&options.input) {
        return Ok(PathBuf::from("-"));
    }
    let ending = match options.format {
        Format::Hybrid => HYBRID_ENDING,
        Format::Seed => SEED_ENDING,
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
    input: impl Read,
    mut writer: Output,
    output: PathBuf,
    mut explain: Option<&mut dyn Write>,
    cancel: &AtomicBool,
) -> Result<PackOutcome> {
    let mut explained = Ok(());
    let summary = hybrid::pack_observed(
        input,
        |frame| writer.write_all(frame),
        &options.hybrid,
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
        summary: Some(summary),
    })
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
    let format = options.seed_format.or_else(|| legacy::LegacyFormat::of_name(&name)).ok_or_else(|| {
        anyhow!("the seed format needs to know whether this is json, csv or txt: name a file with that ending")
    })?;
    let mut raw = Vec::new();
    input.read_to_end(&mut raw).context("reading the input")?;
    let packed = legacy::pack(&legacy::normalise(format, &raw)?, options.seed_break_bytes)?;
    let bytes = seed_file(&name, &packed);
    writer.write_all(&bytes).context("writing the output")?;
    writer.finish()?;
    Ok(PackOutcome {
        raw_bytes: raw.len() as u64,
        packed_bytes: bytes.len() as u64,
        output,
        summary: None,
    })
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The chunk message, then the records, each behind its length in 4 bytes, big-endian. Without a
/// stream there are no real sequence numbers: the records' places stand in.
fn seed_file(name: &str, packed: &legacy::PackedRecords) -> Vec<u8> {
    let message = LegacyManifest {
        id: uuid::Uuid::new_v4().to_string(),
        file_name: format!("test_location/{name}"),
        file_total_chunk: packed.records.len() as u64,
        shard_id: "shardId-000000000000".into(),
        sequence_number: (0..packed.records.len())
            .map(|place| place.to_string())
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
