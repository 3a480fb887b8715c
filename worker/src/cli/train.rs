//! `streampress train`: a plan from example files, for `streampress pack --plan`.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use streampress_codec::hybrid::{CodecOptions, Packer, PlanStore};

use super::args::TrainArgs;
use super::output::{self, Output};
use super::signals::cancel_on_signal;

pub(super) fn command(args: TrainArgs) -> Result<ExitCode> {
    for file in &args.files {
        output::ensure_differ(&args.output, file)?;
    }
    let mut writer = Output::create(&args.output, args.force, Path::new("-"))?;
    let cancel = cancel_on_signal()?;
    let store = PlanStore::default();
    let packer = Packer::new(CodecOptions {
        effort: args.effort,
        block_size: args.block_size,
        // 0 is all cores.
        threads: args.threads.map_or(0, usize::from),
    })
    .with_store(&store);
    for file in &args.files {
        packer
            .pack(output::open(file)?, |_| Ok(()), &cancel)
            .with_context(|| format!("learning from {}", file.display()))?;
    }
    let plan = store.plan();
    let bytes = plan.to_bytes();
    writer.write_all(&bytes).context("writing the plan")?;
    writer.finish()?;
    output::result(
        &args.output,
        &format!("{} schemas, {} bytes", plan.schema_count(), bytes.len()),
    );
    Ok(ExitCode::SUCCESS)
}
