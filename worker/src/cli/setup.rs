//! `streampress setup`: creates a pipeline's queues and stream on AWS, or deletes what it created.

use std::process::ExitCode;

use anyhow::Result;

use super::args::SetupArgs;
use super::output;
use crate::config::Config;

pub(super) fn command(args: SetupArgs) -> Result<ExitCode> {
    let config = Config::find(args.pipeline.file.as_deref(), &mut output::note)?;
    if let Some(data) = args.pipeline.data {
        output::say(&format!(
            "the embedded transport in {} is created at its first use; there is nothing to set up",
            data.display()
        ));
        return Ok(ExitCode::SUCCESS);
    }
    set_up(&config, args.delete, args.event_rule)
}

#[cfg(feature = "aws")]
fn set_up(config: &Config, deletes: bool, event_rule: Option<String>) -> Result<ExitCode> {
    use anyhow::Context;
    use streampress_transport::aws::{Aws, provision};

    use super::runtime;
    use crate::config::BadConfiguration;
    use crate::roles::connect::{aws_options, provision_plan};

    let mut plan = provision_plan(config).ok_or_else(|| {
        BadConfiguration(
            "setup needs the whole pipeline: give its FILE.yaml, or unset STREAMPRESS_PIPELINE"
                .into(),
        )
    })?;
    plan.event_rule = event_rule;
    runtime()?.block_on(async {
        let aws = Aws::connect(&aws_options(config)).await;
        let (verb, done) = match deletes {
            true => ("deleting", provision::delete(&aws, &plan).await),
            false => {
                let created = provision::create(&aws, &plan).await;
                ("creating", created.map(|created| created.outcomes))
            }
        };
        let lines = done.with_context(|| {
            format!(
                "{verb} the transport of {} on {}",
                config.identity().pipeline,
                aws.describe_endpoint()
            )
        })?;
        for line in lines {
            output::print(&format!("{line}\n"));
        }
        Ok(ExitCode::SUCCESS)
    })
}

#[cfg(not(feature = "aws"))]
fn set_up(_: &Config, _: bool, _: Option<String>) -> Result<ExitCode> {
    anyhow::bail!(crate::roles::connect::HOW_TO_GET_AWS)
}
