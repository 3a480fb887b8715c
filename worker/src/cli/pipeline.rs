//! The commands that work on a whole pipeline: run, report, setup, validate.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::json;

use super::{PlaceArgs, RunArgs, SetupArgs, ValidateArgs, roles, signals};
use crate::blocking;
use crate::cli::progress::{self, print, summary_table};
use crate::config::{self, BadConfiguration, Config};
use crate::roles::aws;
use crate::roles::run::{self, RunOptions, RunSummary};
use streampress_crds::document;
use streampress_crds::location::Location;
use streampress_transport::aws::Aws;

use crate::report::log as report_log;
use streampress_transport::aws::provision;

pub fn run(args: RunArgs) -> Result<ExitCode> {
    let observer = progress::observer();
    let mut resolved = config::load_resolved(&args.file, &mut |text| observer.notice(text))?;
    if let (Some(files), Some(generator)) = (args.files, &mut resolved.generator) {
        generator.files = files;
    } else if args.files.is_some() {
        return Err(BadConfiguration(format!(
            "{}: --files wants a generator, and spec.generator is not there",
            args.file.display()
        ))
        .into());
    }
    if !args.aws && resolved.aws.endpoint_url.is_some() {
        observer.notice(
            "spec.aws is set aside: run works on the embedded transport in the data folder",
        );
    }
    let data = config::data_folder(args.data, &resolved.identity.pipeline);
    let options = RunOptions {
        resolved,
        data,
        input: args.input,
        aws: args.aws,
        threads: roles::threads(args.threads),
    };
    let runtime = roles::runtime()?;
    let summary = runtime.block_on(async {
        let shutdown = signals::shutdown_on_signal(|| {
            eprintln!("finishing what is in hand; once more to stop at once")
        });
        run::run(options, &*observer, shutdown).await
    })?;
    if args.json {
        print(&format!("{}\n", as_json(&summary)));
    } else {
        print(&summary_table(&summary));
    }
    if summary.interrupted {
        eprintln!(
            "stopped before all files were restored; the same command goes on where it stopped"
        );
    } else if summary.files_failed > 0 {
        eprintln!(
            "{} file(s) failed; mend the cause, then: streampress redrive {} and the same command again",
            summary.files_failed,
            args.file.display()
        );
    }
    Ok(if summary.is_success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn as_json(summary: &RunSummary) -> String {
    json!(summary).to_string()
}

pub fn report(args: PlaceArgs) -> Result<ExitCode> {
    let config = Config::find(args.file.as_deref(), &mut roles::notice)?;
    let data = config::data_folder(args.data, config.pipeline());
    let settings = roles::decompressor_settings(&config)?;
    let place = settings
        .report
        .as_ref()
        .context("spec.report.enabled is false: there is no report")?;
    if let Location::S3 { .. } = place.location {
        return report_in_bucket(&config, &place.location);
    }
    let page: PathBuf = match (place.location.below_data(), &place.location) {
        (Some(below), _) => data.join(below),
        (None, location) => PathBuf::from(location.to_string().trim_start_matches("file://")),
    };
    let files = report_log::render_stored(&page, config.pipeline())?;
    print(&format!("{}: {files} file(s)\n", page.display()));
    Ok(ExitCode::SUCCESS)
}

fn report_in_bucket(config: &Config, page: &Location) -> Result<ExitCode> {
    roles::runtime()?.block_on(async {
        let aws = Aws::connect(&aws::places(config).options).await;
        let (files, name) = aws::page(&aws, page)?;
        let title = config.pipeline().to_owned();
        let files = blocking(move || report_log::render_in_bucket(files, &name, &title)).await?;
        print(&format!("{page}: {files} file(s)\n"));
        Ok(ExitCode::SUCCESS)
    })
}

pub fn setup(args: SetupArgs) -> Result<ExitCode> {
    let config = Config::find(args.place.file.as_deref(), &mut roles::notice)?;
    if let Some(data) = args.place.data {
        eprintln!(
            "the embedded transport in {} makes itself at the first use; there is nothing to set up",
            data.display()
        );
        return Ok(ExitCode::SUCCESS);
    }
    let (mut plan, _) = aws::provision_plan(&config).ok_or_else(|| {
        BadConfiguration(
            "setup wants the whole pipeline: give its FILE.yaml, or unset STREAMPRESS_PIPELINE"
                .into(),
        )
    })?;
    plan.event_rule = args.event_rule;
    roles::runtime()?.block_on(async {
        let aws = Aws::connect(&aws::places(&config).options).await;
        let done = match args.delete {
            true => provision::delete(&aws, &plan).await,
            false => provision::create(&aws, &plan)
                .await
                .map(|created| created.outcomes),
        };
        let verb = if args.delete { "deleting" } else { "creating" };
        for line in done.with_context(|| {
            format!(
                "{verb} the transport of {} on {}",
                config.pipeline(),
                aws.describe_endpoint()
            )
        })? {
            print(&format!("{line}\n"));
        }
        Ok(ExitCode::SUCCESS)
    })
}

pub fn validate(args: ValidateArgs) -> Result<ExitCode> {
    let mut good = true;
    for file in &args.files {
        let text = config::read_text(file)?;
        match document::load(&text, &file.display().to_string()) {
            Ok(loaded) => {
                loaded
                    .notices
                    .iter()
                    .for_each(|notice| eprintln!("note: {notice}"));
                let fits = !args.live || validate_live(file)?;
                if fits {
                    print(&format!("{}: good\n", file.display()));
                }
                good &= fits;
            }
            Err(problems) => {
                good = false;
                problems.iter().for_each(|problem| eprintln!("{problem}"));
            }
        }
    }
    Ok(ExitCode::from(if good { 0 } else { 64 }))
}

/// Whether what exists on AWS fits the pipeline; says what to change where it does not.
fn validate_live(file: &Path) -> Result<bool> {
    let config = Config::find(Some(file), &mut |_| {})?;
    let Some((plan, record_bytes)) = aws::provision_plan(&config) else {
        return Ok(true);
    };
    roles::runtime()?.block_on(async {
        let aws = Aws::connect(&aws::places(&config).options).await;
        let findings = provision::check(&aws, &plan, record_bytes)
            .await
            .with_context(|| {
                format!(
                    "checking the transport of {} on {}",
                    config.pipeline(),
                    aws.describe_endpoint()
                )
            })?;
        for finding in &findings {
            eprintln!(
                "{}: {}: {}",
                file.display(),
                finding.resource,
                finding.problem
            );
        }
        Ok(!findings.iter().any(|finding| finding.fatal))
    })
}
