//! `streampress decompress`: the decompressor role.

use std::process::ExitCode;

use anyhow::Result;
use streampress_codec::hybrid;
use streampress_crds::Role;
use streampress_crds::api::pipeline::CodecEffort;

use super::args::RoleArgs;
use super::role::{ProcessOptions, RoleCommand, role_threads, shutdown_on_signal};
use super::runtime;

pub(super) fn command(args: RoleArgs) -> Result<ExitCode> {
    let role = RoleCommand::find(args.pipeline)?;
    let settings = role.config.decompressor()?;
    // The block size is in each file; this is the default size.
    let block_bytes = hybrid::DEFAULT_BLOCK_BYTES;
    let threads = role_threads(args.threads, block_bytes, CodecEffort::Balanced)?;
    runtime()?.block_on(async {
        let process = ProcessOptions {
            role: Role::Decompressor,
            listen: args.listen,
            threads,
        };
        let context = role.serve(process, shutdown_on_signal()).await?;
        let location = &settings.destination.location;
        context.make_destination_once(location).await?;
        let connections = context.backend.decompressor(&settings).await?;
        let report = context.report(&settings)?.map(|report| report.log);
        let consumer = context.decompressor(&settings, connections, report.clone())?;
        context.meter.ready();
        consumer.run().await;
        if let Some(report) = report {
            report.finish().await;
        }
        Ok(ExitCode::SUCCESS)
    })
}
