//! `streampress report`: renders the report page from the stored rows.

use std::process::ExitCode;

use anyhow::{Context, Result};
use streampress_crds::location::Location;
use tokio_util::sync::CancellationToken;

use super::args::PipelineArgs;
use super::role::{RoleCommand, local_path};
use super::{output, runtime};
use crate::config::Config;
use crate::report::{JournalCounts, log};
use crate::roles::connect::{connect_aws, page_in_bucket};
use crate::runtime::blocking;

pub(super) fn command(args: PipelineArgs) -> Result<ExitCode> {
    let role = RoleCommand::find(&args)?;
    let title = role.config.identity().pipeline.clone();
    let report = role.config.decompressor()?.report;
    let location = report
        .context("spec.report.enabled is false: there is no report")?
        .location;
    let (page, files) = match local_path(&role.data, &location) {
        Some(page) => {
            let files = log::render_stored(&page, &title, counts(&role, &location)?)?;
            (page.display().to_string(), files)
        }
        None => {
            let files = in_bucket(&role.config, &location, title)?;
            (location.to_string(), files)
        }
    };
    output::print(&format!("{page}: {files} file(s)\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// The counts of the data folder's journal, for a page of rows that were made there.
fn counts(role: &RoleCommand, page: &Location) -> Result<Option<JournalCounts>> {
    if !role.has_journal() {
        return Ok(None);
    }
    runtime()?.block_on(async {
        role.ensure_database_is_whole().await?;
        let context = role.context(1, CancellationToken::new()).await?;
        context.journal_counts(page).await
    })
}

fn in_bucket(config: &Config, page: &Location, title: String) -> Result<u64> {
    runtime()?.block_on(async {
        let (files, name) = page_in_bucket(&connect_aws(config).await?, page)?;
        blocking(move || log::render_in_bucket(files, &name, &title)).await
    })
}
