//! `streampress decompress`: the decompressor role.

use std::process::ExitCode;

use anyhow::Result;
use streampress_codec::hybrid::{self, frame};
use streampress_crds::Role;
use streampress_crds::api::pipeline::CodecEffort;
use tracing::{info, warn};

use super::args::RoleArgs;
use super::role::{ProcessOptions, RoleCommand, role_threads, shutdown_on_signal, warn_of_memory};
use super::runtime;
use crate::telemetry::memory_limit;

/// Says what a limit of memory means for blocks that are larger than usual: their size is known only when they come.
fn note_largest_block() {
    if let Some(limit) = memory_limit::limit() {
        let largest = memory_limit::largest_block(limit);
        if largest == 0 {
            warn!(
                limit_bytes = limit,
                "The memory limit holds not even one small block: the kernel may end the process. Give it more memory."
            );
        } else if largest < frame::MAX_BLOCK_BYTES as u64 {
            info!(
                limit_bytes = limit,
                largest_block_bytes = largest,
                "Blocks of up to this size fit the memory limit. A file with larger ones (codec.blockSize) may make the kernel end the process."
            );
        }
    }
}

pub(super) fn command(args: RoleArgs) -> Result<ExitCode> {
    let role = RoleCommand::find(&args.pipeline)?;
    let settings = role.config.decompressor()?;
    // The block size is in each file; this is the default size.
    let block_bytes = hybrid::DEFAULT_BLOCK_BYTES;
    let threads = role_threads(args.threads, block_bytes, CodecEffort::Balanced)?;
    // Where the compressor's settings are known too, its blocks may be larger.
    if let Ok(compressor) = role.config.compressor()
        && compressor.codec.block_bytes > block_bytes
    {
        warn_of_memory(compressor.codec.block_bytes, CodecEffort::Balanced);
    }
    note_largest_block();
    runtime()?.block_on(async {
        let process = ProcessOptions {
            role: Role::Decompressor,
            listen: args.listen,
            threads,
        };
        let context = role.serve(process, shutdown_on_signal()).await?;
        let location = &settings.destination.location;
        let is_made = context.make_destination_once(location).await?;
        let connections = context.backend.decompressor(&settings).await?;
        let report = context.report(&settings)?.map(|report| report.log);
        let consumer = context.decompressor(&settings, connections, report.clone())?;
        context.meter.ready();
        let making = async {
            if !is_made {
                context.make_destination_later(location).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = consumer.run() => {}
            () = making => {}
        }
        if let Some(report) = report {
            report.finish().await;
        }
        Ok(ExitCode::SUCCESS)
    })
}
