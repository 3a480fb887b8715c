//! `streampress redrive`: sends dead letters again, lists or discards them.

use std::collections::HashMap;
use std::process::ExitCode;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use super::args::RedriveArgs;
use super::role::{RoleCommand, local_path};
use super::{output, runtime};
use crate::message::FileRef;
use crate::report::log;
use crate::roles::context::RoleContext;
use crate::roles::redrive::{RedriveAction, RedriveRequest, RedriveTask, RedrivenLetter, redrive};
use crate::runtime::blocking;
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
        let connections = context.backend.compressor(&settings).await?;
        let announcer = context.announcer(&settings, connections.files_queue.clone())?;
        let letters = redrive(&connections, &announcer, &request).await?;
        announcer.journal.flush_sources().await?;
        let discarded = letters
            .iter()
            .filter(|it| it.action == RedriveAction::Discarded);
        let discarded: Vec<_> = discarded.filter_map(|it| it.file.clone()).collect();
        let is_chosen = |letter: &&RedrivenLetter| letter.action != RedriveAction::NotChosen;
        let chosen = letters.iter().filter(is_chosen).count();
        let is_left = |letter: &&RedrivenLetter| matches!(letter.action, RedriveAction::Left(_));
        let left = letters.iter().filter(is_left).count();
        let lines = lines(letters.iter().filter(is_chosen), args.list);
        for line in &lines {
            output::print(&format!("{}\n", printable(line)))?;
        }
        // A file may have several: each time that it is announced in vain makes one.
        let of_files = match lines.len() == chosen {
            true => String::new(),
            false => format!(" of {} file(s)", lines.len()),
        };
        output::say(&match args.list {
            true => format!("{chosen} dead letter(s){of_files}"),
            false => format!("{chosen} dead letter(s){of_files}, {left} left"),
        });
        if !args.list
            && let Err(error) = render_report(&role, &context, &discarded).await
        {
            // The dead letters were dealt with all the same.
            output::note(&format!("could not renew the report page: {error:#}"));
        }
        let others = letters.len() - chosen;
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

/// A line for each file and what was done. Several dead letters of the same content are one line, with the newest's reason.
fn lines<'a>(letters: impl Iterator<Item = &'a RedrivenLetter>, list: bool) -> Vec<String> {
    let mut files: Vec<(_, &RedrivenLetter, u64)> = Vec::new();
    let mut known = HashMap::new();
    for letter in letters {
        let of_same = same_file(letter);
        let index = *known
            .entry((of_same, &letter.action))
            .or_insert(files.len());
        match files.get_mut(index) {
            Some((_, newest, count)) => (*newest, *count) = (letter, *count + 1),
            None => files.push((action(&letter.action, list), letter, 1)),
        }
    }
    let line = |(action, letter, count): (&str, &RedrivenLetter, u64)| {
        let times = match count {
            1 => String::new(),
            count => format!(", {count} times"),
        };
        let RedrivenLetter {
            name,
            reason,
            detail,
            ..
        } = letter;
        format!("{name}: {action}{times} ({reason}: {detail})")
    };
    files.into_iter().map(line).collect()
}

/// Equal for dead letters of the same content of a file. Messages that do not say the content are told apart by their reason.
fn same_file(letter: &RedrivenLetter) -> (&str, String) {
    let content = match &letter.file {
        Some(file) => file.id().as_str().to_owned(),
        None => format!("{}: {}", letter.reason, letter.detail),
    };
    (&letter.name, content)
}

/// What was done, in words.
fn action(action: &RedriveAction, list: bool) -> &str {
    match action {
        RedriveAction::Listed | RedriveAction::NotChosen => "dead",
        RedriveAction::SentAgain => "sent again",
        RedriveAction::AnnouncedAgain => "source announced again",
        RedriveAction::ReplacementAnnounced => {
            "the source has other content now, which was announced in its place"
        }
        RedriveAction::RestoredSince if list => "restored since; redrive removes it",
        RedriveAction::RestoredSince => "restored since; removed",
        RedriveAction::SupersededSince if list => {
            "superseded since by a newer version; redrive removes it"
        }
        RedriveAction::SupersededSince => "superseded since by a newer version; removed",
        RedriveAction::Discarded => "discarded",
        RedriveAction::Left(why) => why,
    }
}

/// The page in the data folder says what became of the dead letters, and does not name discarded files as failed any more.
async fn render_report(
    role: &RoleCommand,
    context: &RoleContext,
    discarded: &[FileRef],
) -> Result<()> {
    let Some(report) = role.config.decompressor()?.report else {
        return Ok(());
    };
    let Some(page) = local_path(&role.data, &report.location) else {
        return Ok(());
    };
    let counts = context.journal_counts(&report.location).await?;
    let (title, discarded) = (role.config.identity().pipeline.clone(), discarded.to_vec());
    blocking(move || log::render_redriven(&page, &title, &discarded, counts)).await
}
