//! `streampress train`: a plan from example files, for `streampress pack --plan`.

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use streampress_codec::FormatVersion;
use streampress_codec::hybrid::{CodecOptions, Packer, PlanStore};

use super::args::TrainArgs;
use super::output::{self, Output};
use super::pack::packing_threads;
use super::signals::cancel_on_signal;
use crate::roles::context::hybrid_effort;

pub(super) fn command(args: TrainArgs) -> Result<ExitCode> {
    for file in &args.files {
        output::ensure_differ(&args.output, file)?;
    }
    let mut writer = Output::create(&args.output, args.force, Path::new("-"))?;
    let cancel = cancel_on_signal()?;
    let store = PlanStore::default();
    let packer = Packer::new(CodecOptions {
        effort: hybrid_effort(args.effort),
        block_size: args.block_size,
        threads: packing_threads(args.threads, args.block_size, args.effort)?,
    })
    .with_store(&store);
    let mut skipped = 0;
    for file in &args.files {
        match learn(&packer, file, &cancel) {
            Ok(()) => {}
            Err(error) if cancel.load(Ordering::Relaxed) => return Err(error),
            Err(error) => {
                skipped += 1;
                output::error(&format!("{error:#}; skipped"));
            }
        }
    }
    if skipped == args.files.len() {
        bail!("no file could be read; no plan was written");
    }
    let plan = store.plan();
    let bytes = plan.to_bytes();
    writer.write_all(&bytes).context("writing the plan")?;
    writer.finish()?;
    output::result(
        &args.output,
        &format!(
            "{} kind(s) of block, by schema and length, {} bytes",
            plan.schema_count(),
            bytes.len()
        ),
    );
    if plan.schema_count() == 0 {
        output::note(
            "nothing was learned: the files are empty or very small, or their lines share no words and no fields by which a plan would be found again; with this plan files are packed as without",
        );
    }
    Ok(match skipped {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Learns for both versions of the format.
fn learn(packer: &Packer<'_>, file: &Path, cancel: &AtomicBool) -> Result<()> {
    let learning = || format!("learning from {}", file.display());
    // A pipe can be read once only.
    let kept = match file.is_file() {
        true => None,
        false => Some(read(file).with_context(learning)?),
    };
    for version in [FormatVersion::V1, FormatVersion::V2] {
        let input: Box<dyn Read + '_> = match &kept {
            Some(bytes) => Box::new(&bytes[..]),
            None => output::open(file)?,
        };
        let packer = packer.clone().with_version(version);
        packer
            .pack(input, |_| Ok(()), cancel)
            .with_context(learning)?;
    }
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    output::open(file)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}
