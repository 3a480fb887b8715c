//! `streampress generate`: the generator role.

use std::process::ExitCode;

use anyhow::Result;
use streampress_crds::Role;
use tracing::info;

use super::args::GenerateArgs;
use super::role::{ProcessOptions, RoleCommand, shutdown_on_signal};
use super::{output, runtime};

pub(super) fn command(args: GenerateArgs) -> Result<ExitCode> {
    let role = RoleCommand::find(args.pipeline)?;
    let mut settings = role.config.generator(&role.data, &mut output::note)?;
    settings.generator.files = args.files.unwrap_or(settings.generator.files);
    runtime()?.block_on(async {
        let shutdown = shutdown_on_signal();
        let process = ProcessOptions {
            role: Role::Generator,
            listen: args.listen,
            threads: 1,
        };
        let context = role.serve(process, shutdown.clone()).await?;
        let connections = context.backend.generator(&settings).await?;
        context.meter.ready();
        context.generator(&settings, connections)?.run().await;
        if args.files.is_none() && !shutdown.is_cancelled() {
            info!("Idle until stopped.");
            shutdown.cancelled().await;
        }
        Ok(ExitCode::SUCCESS)
    })
}
