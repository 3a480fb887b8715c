//! `streampress redrive`: sends dead letters again, lists or discards them.

use std::collections::HashMap;
use std::process::ExitCode;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use super::args::RedriveArgs;
use super::role::{RoleCommand, local_path};
use super::{output, runtime};
use crate::journal::FileStatus;
use crate::report::{FileOutcome, ReportRow, log};
use crate::roles::context::RoleContext;
use crate::roles::redrive::{
    LetterFile, RedriveAction, RedriveRequest, RedriveTask, Redriven, RedrivenLetter, redrive,
};
use crate::runtime::{blocking, now_millis};
use crate::telemetry::plain_log::{printable, printable_name};

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
    let role = RoleCommand::find(&args.pipeline)?;
    let settings = role.config.compressor()?;
    role.ensure_data_exists()?;
    runtime()?.block_on(async {
        let context = role.context(1, CancellationToken::new()).await?;
        role.note_earlier_state(&context).await;
        let connections = context.backend.compressor(&settings).await?;
        let announcer = context.announcer(&settings, connections.files_queue.clone())?;
        let Redriven { letters, error } = redrive(&connections, &announcer, &request).await;
        let error = match error {
            // Nothing is known of any dead letter.
            Some(error) if letters.is_empty() => return Err(explained(&role, error).await),
            error => error,
        };
        let flushed = announcer.journal.flush_sources().await;
        let discarded = letters
            .iter()
            .filter(|it| it.action == RedriveAction::Discarded);
        let discarded: Vec<_> = discarded.filter_map(discarded_row).collect();
        let is_chosen = |letter: &&RedrivenLetter| letter.action != RedriveAction::NotChosen;
        let has_letter = |letter: &&RedrivenLetter| letter.action != RedriveAction::NoLetter;
        let others = letters.iter().filter(|it| !is_chosen(it)).count();
        let chosen = letters.iter().filter(is_chosen).filter(has_letter).count();
        let is_left = |letter: &&RedrivenLetter| matches!(letter.action, RedriveAction::Left(_));
        let left = letters.iter().filter(is_left).count();
        let files = by_file(letters.iter().filter(is_chosen));
        for file in &files {
            output::print(&format!(
                "{}\n",
                printable(&role.words.typed(&file.line(args.list)))
            ))?;
        }
        // A file may have several: each time that it is announced in vain makes one.
        let of_files = match files.len() == chosen {
            true => String::new(),
            false => format!(" of {} file(s)", files.len()),
        };
        let failed = files.iter().filter(|file| file.has_failed()).count();
        output::say(&match args.list {
            true if failed == files.len() => format!("{chosen} dead letter(s){of_files}"),
            true => format!("{chosen} dead letter(s){of_files}, {failed} of them failed"),
            false => format!("{chosen} dead letter(s){of_files}, {left} left"),
        });
        if !args.list
            && let Err(error) = render_report(&role, &context, &discarded).await
        {
            // The dead letters were dealt with all the same.
            output::note(&format!("could not renew the report page: {error:#}"));
        }
        if others > 0 {
            output::say(&format!("{others} other dead letter(s) were not chosen"));
        }
        // Only now: what was done is said all the same.
        if let Some(error) = error {
            let error = error.context(
                "not all dead letters were reached; the same command again goes on with the others",
            );
            return Err(explained(&role, error).await);
        }
        flushed?;
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

/// The error, or the damage of the database that explains it, which is said with the remedy.
async fn explained(role: &RoleCommand, error: anyhow::Error) -> anyhow::Error {
    let damage = role.ensure_database_is_whole().await.err();
    damage.unwrap_or(error)
}

/// The dead letters of the same content of a file with which the same was done.
struct FileLetters<'a> {
    /// Has the newest reason.
    newest: &'a RedrivenLetter,
    count: u64,
}

/// Once for each file and what was done.
fn by_file<'a>(letters: impl Iterator<Item = &'a RedrivenLetter>) -> Vec<FileLetters<'a>> {
    let mut files: Vec<FileLetters<'a>> = Vec::new();
    let mut known = HashMap::new();
    for newest in letters {
        let of_same = same_file(newest);
        let index = *known
            .entry((of_same, &newest.action))
            .or_insert(files.len());
        match files.get_mut(index) {
            Some(file) => (file.newest, file.count) = (newest, file.count + 1),
            None => files.push(FileLetters { newest, count: 1 }),
        }
    }
    files
}

impl FileLetters<'_> {
    fn line(&self, list: bool) -> String {
        let times = match self.count {
            1 => String::new(),
            count => format!(", {count} times"),
        };
        let RedrivenLetter {
            name,
            reason,
            detail,
            ..
        } = self.newest;
        let (name, action) = (printable_name(name), action(&self.newest.action, list));
        // What the detail advises is done where a letter went on.
        match list || matches!(self.newest.action, RedriveAction::Left(_)) {
            true => format!("{name}: {action}{times} ({reason}: {detail})"),
            false => format!("{name}: {action}{times} ({reason})"),
        }
    }

    /// Whether the summary of a run counts it as failed.
    fn has_failed(&self) -> bool {
        matches!(
            self.newest.action,
            RedriveAction::Listed(None | Some(FileStatus::Failed)) | RedriveAction::NoLetter
        )
    }
}

/// The row that takes a discarded file out of the report's failures.
fn discarded_row(letter: &RedrivenLetter) -> Option<ReportRow> {
    let LetterFile { id, name, bytes } = letter.file.as_ref()?;
    let outcome = FileOutcome::Discarded;
    Some(ReportRow::unpacked(id, name, *bytes, now_millis(), outcome))
}

/// Equal for dead letters of the same content of a file. Messages that do not say the content are told apart by their reason.
fn same_file(letter: &RedrivenLetter) -> (&str, String) {
    let content = match &letter.file {
        Some(file) => file.id.clone(),
        None => format!("{}: {}", letter.reason, letter.detail),
    };
    (&letter.name, content)
}

/// What was done, in words.
fn action(action: &RedriveAction, list: bool) -> &str {
    match action {
        RedriveAction::Listed(None | Some(FileStatus::Failed)) | RedriveAction::NotChosen => "dead",
        RedriveAction::Listed(Some(FileStatus::UnderWay)) => {
            "dead, and announced again since: under way; redrive sends it once more"
        }
        RedriveAction::Listed(Some(FileStatus::Restored)) => {
            "dead, and restored before a version that is not; redrive sends it again"
        }
        RedriveAction::Listed(Some(FileStatus::Superseded)) => {
            "superseded by a newer version that is not restored; redrive sends it again"
        }
        RedriveAction::NoLetter => {
            "failed, and has no dead letter; run tries it again where its source is, --discard ends it"
        }
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
    discarded: &[ReportRow],
) -> Result<()> {
    // A compressor's pod has no page: the decompressors write it.
    let Some(report) = role.config.report() else {
        return Ok(());
    };
    let Some(page) = local_path(&role.data, &report.location) else {
        return Ok(());
    };
    let counts = context.journal_counts(&report.location).await?;
    let (title, discarded) = (role.config.identity().pipeline.clone(), discarded.to_vec());
    blocking(move || log::render_redriven(&page, &title, &discarded, counts)).await
}
