//! `streampress run`: a whole pipeline in this process.

use std::process::ExitCode;

use anyhow::Result;

use super::advice::PipelineWords;
use super::args::RunArgs;
use super::progress::{observer, summary_table};
use super::{output, roles_memory, runtime, signals, threads_that_fit};
use crate::config::{BadConfiguration, settings};
use crate::roles::context::check_schema;
use crate::roles::run::{RunFailure, RunObserver, RunOptions, RunSummary, run};

pub(super) fn command(args: RunArgs) -> Result<ExitCode> {
    match run_pipeline(args.clone()) {
        Ok(summary) => {
            print_outcome(&summary, &args)?;
            Ok(match summary.is_success() {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            })
        }
        Err(failure) => failed(&args, failure),
    }
}

/// Ends a run that could not begin or go on.
pub(super) fn failed(args: &RunArgs, failure: RunFailure) -> Result<ExitCode> {
    if args.json {
        print_json(&failure.summary)?;
    }
    if let Some(state) = failure.summary.earlier_state {
        output::say(&state.notice(&PipelineWords::of_run(args).command("recover")));
    }
    Err(failure.error)
}

fn run_pipeline(args: RunArgs) -> Result<RunSummary, RunFailure> {
    let observer = observer();
    let options = options(args, &*observer)?;
    runtime()?.block_on(async {
        let shutdown = signals::shutdown_on_signal(|| {
            output::say("finishing messages in progress; a second signal stops at once");
        });
        run(options, &*observer, shutdown).await
    })
}

fn options(args: RunArgs, observer: &dyn RunObserver) -> Result<RunOptions> {
    let mut resolved = settings::load_pipeline(&args.file, &mut |text| observer.notice(text))?;
    check_schema(&args.file, &resolved)?;
    match (args.files, &mut resolved.generator) {
        (Some(files), Some(job)) => job.files = files,
        (Some(_), None) => {
            return Err(BadConfiguration(format!(
                "{}: --files needs a generator, and there is no spec.generator",
                args.file.display()
            ))
            .into());
        }
        (None, _) => {}
    }
    if !args.aws && resolved.aws.endpoint_url.is_some() {
        observer.notice("spec.aws is ignored: run uses the embedded transport in the data folder");
    }
    let codec = &resolved.codec;
    let threads = threads_that_fit(
        args.threads,
        codec.block_bytes,
        codec.effort,
        roles_memory(),
    )?;
    Ok(RunOptions {
        data: settings::data_folder(args.data, &resolved.identity.pipeline),
        resolved,
        input: args.input,
        aws: args.aws,
        threads,
    })
}

fn print_json(summary: &RunSummary) -> Result<()> {
    output::print(&format!("{}\n", serde_json::to_string(summary)?))
}

/// Prints the summary, and what to do next where not every file is restored.
fn print_outcome(summary: &RunSummary, args: &RunArgs) -> Result<()> {
    let words = PipelineWords::of_run(args);
    match args.json {
        true => print_json(summary)?,
        false => output::print(&summary_table(summary))?,
    }
    if summary.interrupted {
        output::say("stopped before all was done; the same command goes on where it stopped");
    }
    if summary.messages_waiting {
        output::say(
            "messages about files that are done could not be acted on yet, such as that a restored file is to be renamed or deleted at its source; correct the reasons above, and the same command goes on with them",
        );
    }
    if summary.files_failed > 0 {
        output::say(&format!(
            "{} file(s) failed; correct the causes, then the same command again: it announces failed files again, or sends again what was packed; this lists them, and with --discard --name NAME in place of --list ends one that is gone for good: {}",
            summary.files_failed,
            words.command("redrive --list")
        ));
    }
    if summary.files_gone > 0 {
        let others = match summary.normalised {
            true => "the original's format has no way to restore the others".to_owned(),
            false => format!(
                "this sends the others again, as long as the stream has them: {}",
                words.command("recover --gone")
            ),
        };
        let where_to = match summary.files_elsewhere {
            0 => "at the destination any more".to_owned(),
            all if all == summary.files_gone => {
                "at this destination, but were restored at another one".to_owned()
            }
            some => format!("at the destination; {some} of them were restored at another one"),
        };
        output::say(&format!(
            "{} restored file(s) are not {where_to}; the next run restores those whose source is there; {others}",
            summary.files_gone
        ));
    }
    if let Some(state) = summary.earlier_state {
        output::say(&state.notice(&words.command("recover")));
    }
    if summary.files_left_out > 0 {
        output::say(&format!(
            "{} file(s) or folder(s) were left out; correct the causes, then the same command again",
            summary.files_left_out
        ));
    }
    Ok(())
}
