//! `streampress generate`: the generator role. It makes files, scans the source for files of others, or both.

use std::process::ExitCode;

use anyhow::Result;
use streampress_crds::Role;
use tracing::info;

use super::args::GenerateArgs;
use super::role::{ProcessOptions, RoleCommand, shutdown_on_signal};
use super::{output, runtime};
use crate::config::BadConfiguration;

pub(super) fn command(args: GenerateArgs) -> Result<ExitCode> {
    let role = RoleCommand::find(&args.pipeline)?;
    let mut settings = role.config.generator(&role.data, &mut output::note)?;
    if let Some(files) = args.files {
        let Some(job) = &mut settings.generator else {
            return Err(BadConfiguration(
                "--files needs a generator, and there is no spec.generator".to_owned(),
            )
            .into());
        };
        job.files = files;
        // A scan has no end, and the command shall end.
        settings.scan = None;
    }
    runtime()?.block_on(async {
        let shutdown = shutdown_on_signal();
        let process = ProcessOptions {
            role: Role::Generator,
            listen: args.listen,
            threads: 1,
        };
        let context = role.serve(process, shutdown.clone()).await?;
        context.make_source(&settings.source.location).await?;
        let mut connections = context.backend.generator(&settings).await?;
        match &connections.onward {
            Some(_) if args.files.is_some() => connections.onward = None,
            None if args.files.is_none() => {
                info!("The pipeline has no receipts: files that a queue or the stream loses are not announced again.");
            }
            Some(_) | None => {}
        }
        let generator = context.generator(&settings, connections)?;
        // A role that cannot be made, as with a schema that is none, ends without ever having been ready.
        context.meter.ready();
        generator.run().await;
        if args.files.is_none() && !shutdown.is_cancelled() {
            info!("Idle until stopped.");
            shutdown.cancelled().await;
        }
        Ok(ExitCode::SUCCESS)
    })
}
