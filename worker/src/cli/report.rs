//! `streampress report`: renders the report page from the stored rows.

use std::process::ExitCode;

use anyhow::{Context, Result};
use streampress_crds::location::Location;

use super::args::PipelineArgs;
use super::role::local_path;
use super::{output, runtime};
use crate::config::{Config, settings};
use crate::report::log;
use crate::roles::connect::{connect_aws, page_in_bucket};
use crate::runtime::blocking;

pub(super) fn command(args: PipelineArgs) -> Result<ExitCode> {
    let config = Config::find(args.file.as_deref(), &mut output::note)?;
    let title = config.identity().pipeline.clone();
    let data = settings::data_folder(args.data, &title);
    let report = config.decompressor()?.report;
    let location = report
        .context("spec.report.enabled is false: there is no report")?
        .location;
    let (page, files) = match local_path(&data, &location) {
        Some(page) => {
            let files = log::render_stored(&page, &title)?;
            (page.display().to_string(), files)
        }
        None => (location.to_string(), in_bucket(&config, &location, title)?),
    };
    output::print(&format!("{page}: {files} file(s)\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn in_bucket(config: &Config, page: &Location, title: String) -> Result<u64> {
    runtime()?.block_on(async {
        let (files, name) = page_in_bucket(&connect_aws(config).await?, page)?;
        blocking(move || log::render_in_bucket(files, &name, &title)).await
    })
}
