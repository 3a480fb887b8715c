//! The commands that work on files alone: pack, unpack, inspect, bench.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

use super::{BenchArgs, FormatArg, InspectArgs, PackArgs, UnpackArgs};
use crate::cli::commands::{
    bench, files as streams, inspect as inspecting, pack as packing, unpack as unpacking,
};
use crate::cli::progress::print;
use streampress_codec::{hybrid, legacy};

/// A block size as Kubernetes writes sizes.
pub fn block_size(text: &str) -> Result<usize, String> {
    let bytes = streampress_crds::ByteSize::written(text)
        .bytes()
        .map_err(|error| error.to_string())?;
    match usize::try_from(bytes) {
        Ok(bytes) if (64 << 10..=64 << 20).contains(&bytes) => Ok(bytes),
        _ => Err(format!("{text} is not from 64Ki to 64Mi")),
    }
}

fn threads(given: Option<u16>) -> usize {
    given.map_or(0, usize::from)
}

pub fn pack(args: PackArgs) -> Result<ExitCode> {
    let options = packing::PackOptions {
        input: args.input,
        output: args.output,
        format: match args.format {
            FormatArg::Hybrid => packing::Format::Hybrid,
            FormatArg::Seed => packing::Format::Seed,
        },
        hybrid: hybrid::CodecOptions {
            effort: args.effort.into(),
            block_size: args.block_size,
            threads: threads(args.threads),
        },
        seed_format: None,
        seed_break_bytes: legacy::DEFAULT_CHUNK_BYTES,
        force: args.force,
    };
    let mut explanation = std::io::stderr();
    let explain: Option<&mut dyn std::io::Write> = if args.explain {
        Some(&mut explanation)
    } else {
        None
    };
    let cancel = cancel_on_interrupt()?;
    let outcome = packing::pack(&options, explain, &cancel)?;
    let percent = 100.0 * outcome.packed_bytes as f64 / outcome.raw_bytes.max(1) as f64;
    report(
        &outcome.output,
        &format!(
            "{} to {} bytes ({percent:.2} %)",
            outcome.raw_bytes, outcome.packed_bytes
        ),
    );
    Ok(ExitCode::SUCCESS)
}

pub fn unpack(args: UnpackArgs) -> Result<ExitCode> {
    let options = unpacking::UnpackOptions {
        input: args.input,
        output: args.output,
        threads: threads(args.threads),
        limits: hybrid::Limits::default(),
        keep_going: args.keep_going,
        block: args.block,
        force: args.force,
    };
    let cancel = cancel_on_interrupt()?;
    let outcome = unpacking::unpack(&options, &cancel)?;
    for damage in &outcome.damaged {
        eprintln!("error: {damage}; left out");
    }
    report(
        &outcome.output,
        &format!("{} to {} bytes", outcome.packed_bytes, outcome.raw_bytes),
    );
    Ok(if outcome.damaged.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

pub fn inspect(args: InspectArgs) -> Result<ExitCode> {
    print(&inspecting::inspect(&args.file)?.to_string());
    Ok(ExitCode::SUCCESS)
}

pub fn bench(args: BenchArgs) -> Result<ExitCode> {
    let options = bench::BenchOptions {
        files: args.files,
        threads: threads(args.threads),
        codecs: args.codec,
        rounds: args.rounds.into(),
    };
    bench::bench(&options, &mut std::io::stdout())?;
    Ok(ExitCode::SUCCESS)
}

/// What was done, unless the data itself went to standard output.
fn report(output: &std::path::Path, text: &str) {
    if !streams::is_stream(output) {
        eprintln!("{}: {text}", output.display());
    }
}

/// Ctrl-C ends the work at the next block; the unfinished output goes away with it.
fn cancel_on_interrupt() -> Result<Arc<AtomicBool>> {
    let cancel = Arc::new(AtomicBool::new(false));
    let seen = cancel.clone();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
            else {
                return;
            };
            runtime.block_on(async {
                super::signals::shutdown_on_signal(|| {}).cancelled().await;
                seen.store(true, Ordering::Relaxed);
                std::future::pending::<()>().await;
            });
        })?;
    Ok(cancel)
}
