//! `streampress setup`: creates a pipeline's queues and stream on AWS, or deletes what it created.

use std::process::ExitCode;

use anyhow::Result;

use super::args::SetupArgs;
use super::output;
use crate::config::Config;

pub(super) fn command(args: SetupArgs) -> Result<ExitCode> {
    let config = Config::find(args.pipeline.file.as_deref(), &mut output::note)?;
    if let Some(data) = &args.pipeline.data {
        output::say(&format!(
            "the embedded transport in {} is created at its first use; there is nothing to set up",
            data.display()
        ));
        return Ok(ExitCode::SUCCESS);
    }
    set_up(&config, args)
}

#[cfg(feature = "aws")]
fn set_up(config: &Config, args: SetupArgs) -> Result<ExitCode> {
    use anyhow::{Context, bail};
    use streampress_transport::aws::provision;

    use super::runtime;
    use crate::config::BadConfiguration;
    use crate::roles::connect::{connect, provision_plan, those_of_others};

    let mut plan = provision_plan(config).ok_or_else(|| {
        BadConfiguration(
            "setup needs the whole pipeline: give its FILE.yaml, or unset STREAMPRESS_PIPELINE"
                .into(),
        )
    })?;
    plan.event_rule = args.event_rule;
    runtime()?.block_on(async {
        let aws = connect(config, output::note).await?;
        if !args.delete {
            let of_others = those_of_others(&aws, &plan, config.identity()).await?;
            if let Some((what, problem)) = of_others.first() {
                bail!("{what} {problem}");
            }
        } else if !args.force {
            ensure_empty(&aws, &plan).await?;
        }
        let (verb, done) = match args.delete {
            true => ("deleting", provision::delete(&aws, &plan).await),
            false => {
                plan.lower_retention_from = may_lower_retention(&aws, &plan).await?;
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
            output::print(&format!("{line}\n"))?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Fails where messages would be deleted with their queues: they may be all that names the only copies of packed files.
#[cfg(feature = "aws")]
async fn ensure_empty(
    aws: &streampress_transport::aws::Aws,
    plan: &streampress_transport::aws::provision::ProvisionPlan,
) -> Result<()> {
    let contents = streampress_transport::aws::provision::contents(aws, plan).await?;
    if contents.is_empty() {
        return Ok(());
    }
    let held = contents
        .iter()
        .map(|(queue, messages)| format!("{queue} has {messages} message(s)"));
    anyhow::bail!(
        "nothing was deleted: {}; let the workers finish and redrive or discard the dead letters, or delete them too with --force",
        held.collect::<Vec<_>>().join(", ")
    )
}

/// A stream keeps records for longer than planned until no message can need them, which takes a minute to know.
#[cfg(feature = "aws")]
async fn may_lower_retention(
    aws: &streampress_transport::aws::Aws,
    plan: &streampress_transport::aws::provision::ProvisionPlan,
) -> Result<Option<u32>> {
    use streampress_transport::aws::provision;

    let planned = &plan.transport.stream;
    let Some(hours) = provision::retention_hours(aws, &planned.name).await? else {
        return Ok(None);
    };
    if hours <= planned.retention_hours {
        return Ok(None);
    }
    output::note(&format!(
        "stream {}: keeps records for {hours} hours, the pipeline says {}; watching for a minute whether all queues are empty",
        planned.name, planned.retention_hours
    ));
    let are_empty = provision::stay_queues_empty(aws, plan).await?;
    if !are_empty {
        output::note(&format!(
            "stream {}: its retention is not lowered, since waiting messages or dead letters need its records; run setup again when all queues are empty",
            planned.name
        ));
    }
    Ok(are_empty.then_some(hours))
}

#[cfg(not(feature = "aws"))]
fn set_up(_: &Config, _: SetupArgs) -> Result<ExitCode> {
    anyhow::bail!(crate::roles::connect::HOW_TO_GET_AWS)
}
