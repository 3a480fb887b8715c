//! `streampress compress`: the compressor role.

use std::process::ExitCode;

use anyhow::Result;
use streampress_crds::Role;
use streampress_crds::location::Location;
use streampress_crds::settings::CompressorSettings;

use super::args::RoleArgs;
use super::role::{ProcessOptions, RoleCommand, role_threads, shutdown_on_signal};
use super::{output, runtime};
use crate::config::Config;
use crate::consume::Consumer;
use crate::roles::connect::CompressorConnections;
use crate::roles::context::RoleContext;

pub(super) fn command(args: RoleArgs) -> Result<ExitCode> {
    let role = RoleCommand::find(&args.pipeline)?;
    let settings = role.config.compressor()?;
    let (block_bytes, effort) = (settings.codec.block_bytes, settings.codec.effort);
    let threads = role_threads(args.threads, block_bytes, effort)?;
    runtime()?.block_on(async {
        let process = ProcessOptions {
            role: Role::Compressor,
            listen: args.listen,
            threads,
        };
        let context = role.serve(process, shutdown_on_signal()).await?;
        let connections = context.backend.compressor(&settings).await?;
        let consumer = consumer(&context, &role.config, &settings, connections)?;
        context.meter.ready();
        consumer.run().await;
        Ok(ExitCode::SUCCESS)
    })
}

fn consumer(
    context: &RoleContext,
    config: &Config,
    settings: &CompressorSettings,
    connections: CompressorConnections,
) -> Result<Consumer> {
    let legacy = match config {
        Config::Legacy(legacy) => legacy,
        Config::File(resolved) => {
            if resolved.source.scan_seconds > 0 {
                output::note(
                    "source.scanSeconds: this command does not scan; `streampress generate` with the same arguments does",
                );
            }
            let mut decompressor = resolved.decompressor_settings();
            // A page in a bucket is the decompressor's alone: a compressor needs no right to write there.
            decompressor.report = decompressor
                .report
                .filter(|report| matches!(report.location, Location::File { .. }));
            let report = context.report(&decompressor)?.map(|report| report.log);
            return context.compressor(settings, connections, report, None);
        }
        // A pod knows only what its role needs: the dead letters that it makes are counted in the pipeline's status.
        Config::Variable(_) => return context.compressor(settings, connections, None, None),
    };
    if !legacy.worker.push {
        output::note(
            "ENABLE_DATA_PUSH is False: files are compressed and reported, nothing is sent",
        );
    }
    let report = context.report(&legacy.resolved.decompressor_settings())?;
    let report = report.map(|report| report.log);
    context.legacy_compressor(settings, connections, &legacy.worker, report)
}
