//! `streampress submit`: announces files that the command line names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use streampress_crds::api::pipeline::OnCompressed;
use streampress_crds::location::Location;
use streampress_transport::{FileEntry, FileName, Files};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::args::{PipelineArgs, SubmitArgs};
use super::role::{RoleCommand, local_path};
use super::{output, runtime};
use crate::config::BadConfiguration;
use crate::journal::{FileJournal, SourceRecord, SourceState};
use crate::message::FileRef;
use crate::roles::announce::{Announcer, hash};
use crate::roles::connect::{Backend, CompressorConnections};
use crate::roles::redrive::{RedriveRequest, RedriveTask, redrive};
use crate::roles::replies;
use crate::roles::source::{SettleTime, SourceFilter};
use crate::roles::source_links::SourceLinks;
use crate::runtime::blocking;
use crate::telemetry::plain_log::{printable, printable_name};

/// Between two checks of what became of submitted files.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// So long after the last file may be taken it is said that files are still under way.
const SAID_AFTER: Duration = Duration::from_secs(15);
/// Between two reads of the dead-letter queues, which hide their messages for a moment.
const DEAD_LETTERS_INTERVAL: Duration = Duration::from_secs(20);

pub(super) fn command(args: SubmitArgs) -> Result<ExitCode> {
    let role = RoleCommand::find(&PipelineArgs {
        file: args.pipeline,
        data: args.data,
        aws: args.aws,
    })?;
    let settings = role.config.compressor()?;
    runtime()?.block_on(async {
        let context = role.context(1, CancellationToken::new()).await?;
        role.refuse_folder_of_another(&context).await?;
        role.note_earlier_state(&context).await;
        let queue = &settings.transport.files_queue;
        let files_queue = context.backend.files_queue(queue).await?;
        context.make_source(&settings.source.location).await?;
        let announcer = context.announcer(&settings, files_queue)?;
        let has_journal = matches!(context.backend, Backend::Embedded(_));
        let outcomes = match (args.wait, has_journal) {
            (false, _) => None,
            (true, true) => Some(Outcomes::OfJournal(announcer.clone())),
            (true, false) => {
                if settings.transport.receipts_queue.is_none() {
                    return Err(BadConfiguration(
                        "--wait needs receipts, which this pipeline does not have: name an existing queue in transport.receiptsQueue; codec.format Seed has none".into(),
                    )
                    .into());
                }
                let connections = context.backend.compressor(&settings).await?;
                Some(Outcomes::OfReplies(announcer.clone(), connections))
            }
        };
        let folder = local_path(&role.data, &settings.source.location);
        let submitter = Submitter {
            announcer,
            wants_reply: matches!(outcomes, Some(Outcomes::OfReplies(..))),
            links: SourceLinks::new(&settings.source, folder.clone()),
            folder,
            filter: SourceFilter::new(&settings.source),
            settle: match settings.source.on_compressed {
                OnCompressed::Delete => SettleTime::new(&settings.source),
                OnCompressed::Keep | OnCompressed::Rename => SettleTime::default(),
            },
            source: settings.source.location,
        };
        let submissions = submitter.plan(&args.files);
        let mut failed = false;
        let mut submitted = Vec::new();
        let mut unsettled = Unsettled::default();
        for submission in submissions {
            let shown = printable_name(&submission.path.display().to_string());
            match submitter.submit(submission).await {
                Ok((text, record, settles_in)) => {
                    failed |= !say(&shown, &text);
                    unsettled.add(settles_in);
                    submitted.push((shown, record));
                }
                Err(error) => {
                    failed = true;
                    let text = format!("{shown}: {error:#}");
                    output::error(&printable(&text));
                }
            }
        }
        // Without it the announcements count as not sent, and are sent once more under the same ids.
        submitter.announcer.journal.flush_sources().await?;
        if let Some(outcomes) = outcomes {
            let timeout = args.timeout.map(|seconds| Duration::from_secs(seconds.into()));
            if unsettled.count > 0 {
                output::say(&format!(
                    "{} file(s) wait: {}",
                    unsettled.count,
                    submitter.settle.requirement()
                ));
            }
            let times = (timeout, SAID_AFTER + unsettled.longest);
            failed |= !outcomes.wait_for(submitted, times).await?;
        }
        Ok(match failed {
            true => ExitCode::FAILURE,
            false => ExitCode::SUCCESS,
        })
    })
}

/// Prints a line about a file; false where that failed.
fn say(shown: &str, text: &str) -> bool {
    let text = format!("{shown}: {text}");
    match output::print(&format!("{}\n", printable(&text))) {
        Ok(()) => true,
        Err(error) => {
            output::error(&format!("{error:#}"));
            false
        }
    }
}

/// How a submitted file ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SubmitOutcome {
    Restored,
    Superseded,
    /// Why its message is a dead letter.
    Dead(String),
}

/// Submitted files that must hold still before they are taken.
#[derive(Debug, Default)]
struct Unsettled {
    count: usize,
    longest: Duration,
}

impl Unsettled {
    fn add(&mut self, settles_in: Duration) {
        self.count += usize::from(!settles_in.is_zero());
        self.longest = self.longest.max(settles_in);
    }
}

/// Where what became of submitted files is found.
enum Outcomes {
    /// In the data folder's journal.
    OfJournal(Announcer),
    /// In replies at the source, and in the dead-letter queues.
    OfReplies(Announcer, CompressorConnections),
}

impl Outcomes {
    /// Waits until it is known of all files; false where one is a dead letter, or still under way at the end of `timeout`.
    /// After `said_after` it is said that files are still under way.
    async fn wait_for(
        &self,
        mut submitted: Vec<(String, SourceRecord)>,
        (timeout, said_after): (Option<Duration>, Duration),
    ) -> Result<bool> {
        let began = Instant::now();
        let mut all_well = true;
        let mut looked_at = began;
        let mut was_said = false;
        while !submitted.is_empty() {
            let looks_for_dead = looked_at.elapsed() >= DEAD_LETTERS_INTERVAL;
            if looks_for_dead {
                looked_at = Instant::now();
            }
            let dead = self.dead_letters(looks_for_dead).await?;
            let mut rest = Vec::new();
            for (shown, record) in submitted {
                match self.outcome(&record, &dead).await? {
                    Some(SubmitOutcome::Restored) => all_well &= say(&shown, "restored"),
                    Some(SubmitOutcome::Superseded) => {
                        all_well &= say(
                            &shown,
                            "superseded: the file was announced again since, and the newest announcement counts",
                        );
                    }
                    Some(SubmitOutcome::Dead(why)) => {
                        all_well = false;
                        output::error(&printable(&format!("{shown}: dead letter: {why}")));
                    }
                    None => rest.push((shown, record)),
                }
            }
            submitted = rest;
            if !submitted.is_empty() && !was_said && began.elapsed() >= said_after {
                was_said = true;
                output::say(&format!(
                    "{} file(s) are still under way; each needs a compressor and a decompressor that run",
                    submitted.len()
                ));
            }
            if timeout.is_some_and(|timeout| began.elapsed() >= timeout) {
                for (shown, _) in &submitted {
                    all_well = false;
                    let text = format!(
                        "{shown}: still under way after {} s",
                        began.elapsed().as_secs()
                    );
                    output::error(&printable(&text));
                }
                return Ok(all_well);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(all_well)
    }

    /// The dead letters, by announcement. The journal has them itself.
    async fn dead_letters(&self, are_wanted: bool) -> Result<BTreeMap<String, String>> {
        let Self::OfReplies(announcer, connections) = self else {
            return Ok(BTreeMap::new());
        };
        if !are_wanted {
            return Ok(BTreeMap::new());
        }
        let list = RedriveRequest::all(RedriveTask::List);
        let letters = redrive(connections, announcer, &list).await.all()?;
        let by_announcement = letters.into_iter().filter_map(|letter| {
            let why = format!("{}: {}", letter.reason, letter.detail);
            Some((letter.announcement?, why))
        });
        Ok(by_announcement.collect())
    }

    async fn outcome(
        &self,
        record: &SourceRecord,
        dead: &BTreeMap<String, String>,
    ) -> Result<Option<SubmitOutcome>> {
        match self {
            Self::OfJournal(announcer) => outcome_in_journal(&*announcer.journal, record).await,
            Self::OfReplies(announcer, _) => match dead.get(&record.announcement) {
                Some(why) => Ok(Some(SubmitOutcome::Dead(why.clone()))),
                None => outcome_of_reply(announcer, record).await,
            },
        }
    }
}

async fn outcome_in_journal(
    journal: &dyn FileJournal,
    record: &SourceRecord,
) -> Result<Option<SubmitOutcome>> {
    let Some(newest) = journal.source(&record.location, &record.name).await? else {
        return Ok(None);
    };
    // Another announcement of the same content since, as of two submits at once, has the same outcome.
    if newest.file_id != record.file_id {
        return Ok(Some(SubmitOutcome::Superseded));
    }
    Ok(match newest.state {
        SourceState::Writing | SourceState::Sent => None,
        SourceState::Restored => Some(SubmitOutcome::Restored),
        SourceState::Superseded => Some(SubmitOutcome::Superseded),
        SourceState::Dead => {
            let open = journal.open_files().await?;
            let file = open.into_iter().find(|it| it.file_id == record.file_id);
            let failure = file.and_then(|file| file.failure);
            let why = failure.map(|failure| failure.to_string());
            Some(SubmitOutcome::Dead(why.unwrap_or_default()))
        }
    })
}

async fn outcome_of_reply(
    announcer: &Announcer,
    record: &SourceRecord,
) -> Result<Option<SubmitOutcome>> {
    let (source, id) = (announcer.source.clone(), record.announcement.clone());
    let reply = blocking(move || replies::take(&*source, &id)).await;
    let state = reply.context("looking for a reply at the source")?;
    Ok(state.map(|state| match state {
        SourceState::Superseded => SubmitOutcome::Superseded,
        _ => SubmitOutcome::Restored,
    }))
}

struct Submitter {
    announcer: Announcer,
    /// Whether compressors are to leave a reply at the source.
    wants_reply: bool,
    source: Location,
    /// The source's folder; none for a bucket.
    folder: Option<PathBuf>,
    /// Which files a scan of the source takes.
    filter: SourceFilter,
    /// The links that a scan leaves out.
    links: Option<SourceLinks>,
    /// How long a file must hold still before it is taken.
    settle: SettleTime,
}

/// A file to be announced.
struct Submission {
    /// As it was typed.
    path: PathBuf,
    /// The file's name at the source, or why it has none.
    name: Result<FileName>,
    /// The file to be copied to the source first; `None` for one that is there.
    copied_from: Option<PathBuf>,
}

impl Submitter {
    /// Finds each file's name at the source before anything is copied. A file that is named twice is submitted once; of two that
    /// would have one name, neither is.
    fn plan(&self, paths: &[PathBuf]) -> Vec<Submission> {
        let mut planned: Vec<Submission> = Vec::new();
        let mut twins = Vec::new();
        for path in paths {
            let submission = self.submission(path);
            let twin = planned
                .iter()
                .position(|other| match (&other.name, &submission.name) {
                    (Ok(one), Ok(another)) => one == another,
                    _ => false,
                });
            match twin {
                Some(twin) if planned[twin].copied_from == submission.copied_from => {}
                twin => {
                    twins.extend(twin.map(|twin| (twin, planned.len())));
                    planned.push(submission);
                }
            }
        }
        for (one, other) in twins {
            for (number, of) in [(one, other), (other, one)] {
                let path = planned[of].path.display().to_string();
                planned[number].name = Err(anyhow!(
                    "it would have the same name at the source as {path}; rename one of them"
                ));
            }
        }
        planned
    }

    fn submission(&self, path: &Path) -> Submission {
        let found = match path.to_str().filter(|text| text.starts_with("s3://")) {
            Some(url) => self.object_name(url).map(|name| (name, None)),
            None => self.file_name(path),
        };
        let (name, copied_from) = match found {
            Ok((name, copied_from)) => (Ok(name), copied_from),
            Err(error) => (Err(error), None),
        };
        Submission {
            path: path.to_owned(),
            name,
            copied_from,
        }
    }

    /// The name of an object of the source, from a URL such as `s3://bucket/prefix/name`.
    fn object_name(&self, url: &str) -> Result<FileName> {
        let source = &self.source;
        let below = url.strip_prefix(&format!("{source}/")).with_context(|| {
            format!("it is not at the source {source}; name an object below it, or a file of this machine")
        })?;
        FileName::parse(below).map_err(anyhow::Error::msg)
    }

    /// The name of a file of the source; for a file from elsewhere its own name, and where it is copied from.
    fn file_name(&self, path: &Path) -> Result<(FileName, Option<PathBuf>)> {
        if output::is_stream(path) {
            bail!(
                "standard input has no name, under which it would be a file of the source: write it to a file, and submit that"
            );
        }
        let full = path.canonicalize().context("opening it")?;
        if !full.is_file() {
            bail!("it is not a file; name files, or use 'streampress run --input' for a folder");
        }
        let inside = own_path(path).and_then(|own| self.name_inside(&own));
        // A link from elsewhere has no name at the source, its target may have.
        let inside = inside.or_else(|| self.name_inside(&full));
        let name = match &inside {
            Some(name) => name.as_path(),
            None => Path::new(path.file_name().context("it has no name")?),
        };
        let name = name.to_str().context("its name is not UTF-8; rename it")?;
        let name = FileName::parse(name).map_err(anyhow::Error::msg)?;
        Ok((name, inside.is_none().then_some(full)))
    }

    /// The path below the source's folder, for a file inside it.
    fn name_inside(&self, full: &Path) -> Option<PathBuf> {
        let folder = self.folder.as_ref()?.canonicalize().ok()?;
        full.strip_prefix(folder).ok().map(Path::to_owned)
    }

    /// Announces the file, each time it is asked to; a file from elsewhere is copied to the source first and replaces no
    /// other. Answers what was done, and for how long it must hold still before it is taken.
    async fn submit(&self, submission: Submission) -> Result<(String, SourceRecord, Duration)> {
        let name = submission.name?;
        if let Some(refusal) = self.filter.refusal(&name) {
            bail!("{refusal}");
        }
        let copied_from = submission.copied_from;
        let links = self.links.as_ref().filter(|_| copied_from.is_none());
        if let Some(reason) = links.and_then(|links| links.refusal(&name)) {
            bail!("{name} {reason}");
        }
        let (files, at) = (self.announcer.source.clone(), name.clone());
        let (entry, how) = blocking(move || -> Result<(FileEntry, &'static str)> {
            let how = match copied_from {
                Some(from) => copy(&from, &*files, &at)?,
                None => "announced",
            };
            let entry = files.stat(&at)?.context("it is not at the source")?;
            Ok((entry, how))
        })
        .await?;
        let read = self.announcer.read(&entry).await?;
        let record = self
            .announcer
            .announce_submitted(&read, self.wants_reply)
            .await?;
        let shown = printable_name(name.as_str());
        let text = format!("{how} as {shown}, file {}", short_id(&read.file));
        Ok((text, record, self.settle.left(&entry)))
    }
}

/// Where the file lies: a link itself, not what it leads to.
fn own_path(path: &Path) -> Option<PathBuf> {
    let folder = match path.parent()? {
        here if here.as_os_str().is_empty() => Path::new("."),
        folder => folder,
    };
    Some(folder.canonicalize().ok()?.join(path.file_name()?))
}

/// Copies the file to a free name of the source; a file of equal content that is there already stays as it is.
fn copy(from: &Path, files: &dyn Files, name: &FileName) -> Result<&'static str> {
    let mut pending = files.create(name)?;
    std::io::copy(&mut std::fs::File::open(from)?, &mut pending)?;
    match pending.commit_over(from.metadata()?.modified()?, None) {
        Ok(_) => Ok("copied to the source and announced"),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let here = hash(std::fs::File::open(from)?)?;
            if here != hash(files.read(name)?)? {
                bail!(
                    "another file is at the source under the name {name}; it was not replaced: rename yours, or copy it into a folder of the source"
                );
            }
            Ok("found at the source and announced")
        }
        Err(error) => Err(error.into()),
    }
}

fn short_id(file: &FileRef) -> String {
    file.id().as_str()[..12].to_owned()
}
