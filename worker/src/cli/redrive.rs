//! `streampress redrive`: sends dead letters again, lists or discards them.

use std::process::ExitCode;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use super::args::RedriveArgs;
use super::role::{RoleCommand, local_path};
use super::{output, runtime};
use crate::message::FileRef;
use crate::report::log;
use crate::roles::redrive::{RedriveAction, RedriveRequest, RedriveTask, redrive};
use crate::telemetry::plain_log::printable;

pub(super) fn command(args: RedriveArgs) -> Result<ExitCode> {
    let request = RedriveRequest {
        task: match (args.list, args.discard) {
            (true, _) => RedriveTask::List,
            (false, true) => RedriveTask::Discard,
            (false, false) => RedriveTask::Send,
        },
        reason: args.reason,
        names: args.name.into_iter().collect(),
    };
    let role = RoleCommand::find(args.pipeline)?;
    let settings = role.config.compressor()?;
    role.ensure_data_exists()?;
    runtime()?.block_on(async {
        let context = role.context(1, CancellationToken::new()).await?;
        context
            .ensure_source_exists(&settings.source.location)
            .await?;
        let connections = context.backend.compressor(&settings).await?;
        let announcer = context.announcer(&settings, connections.files_queue.clone())?;
        let letters = redrive(&connections, &announcer, &request).await?;
        announcer.journal.flush_sources().await?;
        let discarded = letters
            .iter()
            .filter(|it| it.action == RedriveAction::Discarded);
        let discarded: Vec<_> = discarded.filter_map(|it| it.file.clone()).collect();
        discard_in_report(&role, &discarded)?;
        let (mut left, mut chosen) = (0, 0);
        for letter in &letters {
            chosen += u64::from(letter.action != RedriveAction::NotChosen);
            let action = match &letter.action {
                RedriveAction::NotChosen => continue,
                RedriveAction::Listed => "dead",
                RedriveAction::SentAgain => "sent again",
                RedriveAction::AnnouncedAgain => "source announced again",
                RedriveAction::ReplacementAnnounced => {
                    "the source has other content now, which was announced in its place"
                }
                RedriveAction::RestoredSince if args.list => "restored since; redrive removes it",
                RedriveAction::RestoredSince => "restored since; removed",
                RedriveAction::Discarded => "discarded",
                RedriveAction::Left(why) => {
                    left += 1;
                    why
                }
            };
            let line = format!(
                "{}: {action} ({}: {})",
                letter.name, letter.reason, letter.detail
            );
            output::print(&format!("{}\n", printable(&line)))?;
        }
        output::say(&match args.list {
            true => format!("{chosen} dead letter(s)"),
            false => format!("{chosen} dead letter(s), {left} left"),
        });
        let others = letters.len() as u64 - chosen;
        if others > 0 {
            output::say(&format!("{others} other dead letter(s) were not chosen"));
        }
        let is_unknown = |name: &&String| letters.iter().all(|letter| !letter.has_name(name));
        let unknown: Vec<_> = request.names.iter().filter(is_unknown).collect();
        for name in &unknown {
            let text = format!("there is no dead letter of {name}; --list has the names");
            output::error(&printable(&text));
        }
        Ok(match left + unknown.len() {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        })
    })
}

/// The report in the data folder does not name discarded files as failed any more.
fn discard_in_report(role: &RoleCommand, files: &[FileRef]) -> Result<()> {
    let Some(report) = role.config.decompressor()?.report else {
        return Ok(());
    };
    match local_path(&role.data, &report.location) {
        Some(page) => log::discard(&page, &role.config.identity().pipeline, files),
        None => Ok(()),
    }
}
