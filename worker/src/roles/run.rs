//! `streampress run`: generator, compressor and decompressor in one process on the embedded transport, from the first
//! file to the last, with progress while it works and a summary at the end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use streampress_crds::api::pipeline::OnCompressed;
use streampress_crds::location::Location;
use streampress_crds::settings::Resolved;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::journal::{FileJournal, JournalProgress, SqliteJournal};
use crate::report::log::ReportLog;
use crate::roles::announce::Announcer;
use crate::roles::aws;
use crate::roles::context::{RoleContext, Transport};
use crate::roles::scan::{Found, Scanner};
use crate::telemetry::metrics::Meter;
use streampress_transport::TransportResult;
use streampress_transport::local::{Local, LocalOptions};

/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What to run.
pub struct RunOptions {
    /// The pipeline, resolved; its generator's `files` is already the number wanted.
    pub resolved: Resolved,
    /// The data folder.
    pub data: PathBuf,
    /// The user's own files instead of generated ones.
    pub input: Option<PathBuf>,
    /// Queues and stream on AWS instead of the embedded ones.
    pub aws: bool,
    /// Threads for packing and unpacking.
    pub threads: usize,
}

/// How a run ended; `--json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunSummary {
    /// Files announced: generated, or found.
    pub files_generated: u64,
    /// Files packed.
    pub files_compressed: u64,
    /// Files restored identical, hash checked.
    pub files_restored: u64,
    /// Files in the dead-letter queue.
    pub files_failed: u64,
    /// Versions that a newer version of the same file overtook.
    pub files_superseded: u64,
    /// Bytes of the packed files before packing.
    pub bytes_raw: u64,
    /// And after.
    pub bytes_compressed: u64,
    /// Seconds this run took.
    pub seconds: f64,
    /// The report page, where one was written.
    pub report: Option<PathBuf>,
    /// Where the restored files are.
    pub output: PathBuf,
    /// Whether it ended before all files were restored.
    pub interrupted: bool,
    /// Failed files with their reasons, the first hundred.
    pub failures: Vec<(String, String)>,
}

impl RunSummary {
    /// Every file came back identical.
    pub fn is_success(&self) -> bool {
        self.files_failed == 0 && !self.interrupted
    }

    /// How many per cent of the bytes were saved; nothing where nothing was packed.
    pub fn saved_percent(&self) -> Option<f64> {
        (self.bytes_raw > 0)
            .then(|| 100.0 * (1.0 - self.bytes_compressed as f64 / self.bytes_raw as f64))
    }
}

/// What a run tells while it works.
pub trait Observer: Send + Sync {
    /// Where things are, once.
    fn started(&self, data: &Path, resumed: JournalProgress, total: Option<u64>);
    /// Something a person should know.
    fn notice(&self, text: &str);
    /// How far it is; `total` is unknown for an endless run.
    fn progress(&self, progress: JournalProgress, total: Option<u64>);
    /// No more progress comes.
    fn finished(&self);
}

/// Runs until all files are restored or `shutdown` is cancelled; then what is in hand is finished or given back.
pub async fn run(
    options: RunOptions,
    observer: &dyn Observer,
    shutdown: CancellationToken,
) -> Result<RunSummary> {
    let started = Instant::now();
    let mut resolved = options.resolved;
    let input = take_input(&mut resolved, options.input.as_deref(), observer)?;
    let local = open_local(&options.data, &resolved).await?;
    let journal = open_journal(&local).await?;
    // Roles have a token of their own: they also stop when all is done.
    let stop = shutdown.child_token();
    let workplace = RoleContext {
        transport: match options.aws {
            false => Transport::embedded(&local, Arc::new(journal.clone())),
            true => on_aws(&resolved, &local, Arc::new(journal.clone())).await?,
        },
        data: options.data.clone(),
        threads: options.threads.max(1),
        // One process, one screen: what it counts is on it.
        meter: Meter::default(),
        shutdown: stop.clone(),
    };
    let total = match (&resolved.generator, input) {
        (Some(job), Input::Generated) if job.files > 0 => Some(job.files),
        _ => None,
    };
    observer.started(&options.data, journal.progress().await?, total);

    let report = workplace.report(&resolved.decompressor_settings())?;
    let mut roles = JoinSet::new();
    spawn_workers(
        &workplace,
        &resolved,
        report.as_ref().map(|(log, _)| log.clone()),
        &mut roles,
    )?;
    let source = spawn_source(&workplace, &resolved, input, &mut roles)?;
    let finite = watch(&journal, source, total, observer, &stop).await?;
    stop.cancel();
    while let Some(ended) = roles.join_next().await {
        ended.context("a role ended unexpectedly")?;
    }
    if let Some((log, _)) = &report {
        log.finish().await;
    }
    observer.finished();
    summarise(
        &workplace,
        &resolved,
        &journal,
        report.map(|(_, page)| page),
        started,
        finite,
    )
    .await
}

/// Where the files come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    /// The generator makes them.
    Generated,
    /// They lie at the source, all of them now.
    Once,
    /// They arrive at the source as time goes by.
    Watched,
}

/// Settles where files come from, and keeps the user's own files safe.
fn take_input(
    resolved: &mut Resolved,
    folder: Option<&Path>,
    observer: &dyn Observer,
) -> Result<Input> {
    let Some(folder) = folder else {
        let scan = resolved.source.scan_seconds > 0;
        return Ok(match (&resolved.generator, scan) {
            (Some(_), _) => Input::Generated,
            (None, true) => Input::Watched,
            (None, false) => Input::Once,
        });
    };
    let folder = folder
        .canonicalize()
        .with_context(|| format!("opening the input folder {}", folder.display()))?;
    if !folder.is_dir() {
        bail!(
            "--input {} is not a folder; name the folder that holds the files",
            folder.display()
        );
    }
    let path = folder.to_str().with_context(|| {
        format!(
            "--input {} is not UTF-8; rename the folder",
            folder.display()
        )
    })?;
    resolved.generator = None;
    resolved.source.location = Location::File {
        path: path.to_owned(),
    };
    resolved.source.scan_seconds = 0;
    if resolved.source.on_compressed != OnCompressed::Keep {
        resolved.source.on_compressed = OnCompressed::Keep;
        observer.notice(
            "source.onCompressed is set aside: files under --input are never renamed or deleted",
        );
    }
    Ok(Input::Once)
}

/// Opens the embedded transport with the pipeline's settings.
pub async fn open_local(data: &Path, resolved: &Resolved) -> Result<Local> {
    let queue = &resolved.transport.files_queue;
    let options = LocalOptions {
        visibility_timeout: Duration::from_secs(u64::from(queue.visibility_timeout_seconds)),
        max_receive_count: queue.max_receive_count,
        retention: Duration::from_secs(3600 * u64::from(resolved.transport.stream.retention_hours)),
        ..LocalOptions::default()
    };
    let data = data.to_owned();
    let shown = data.display().to_string();
    crate::blocking(move || Local::open(&data, options))
        .await
        .with_context(|| format!("opening the data folder {shown}"))
}

/// Opens the journal in the data folder of `local`.
pub async fn open_journal(local: &Local) -> Result<SqliteJournal> {
    let (local, shown) = (local.clone(), local.dir().display().to_string());
    crate::blocking(move || SqliteJournal::open(&local))
        .await
        .with_context(|| format!("opening the journal in the data folder {shown}"))
}

/// Queues and stream on AWS; slots and what is known of the files stay here.
async fn on_aws(
    resolved: &Resolved,
    local: &Local,
    journal: Arc<dyn FileJournal>,
) -> Result<Transport> {
    let embedded = Transport::embedded(local, journal);
    let places = aws::places(&Config::File(Box::new(resolved.clone())));
    let transport = aws::connect(&places, embedded.locks).await?;
    Ok(Transport {
        journal: embedded.journal,
        ..transport
    })
}

fn spawn_workers(
    workplace: &RoleContext,
    resolved: &Resolved,
    report: Option<Arc<ReportLog>>,
    roles: &mut JoinSet<()>,
) -> Result<()> {
    let compressor = workplace.compressor(&resolved.compressor_settings())?;
    roles.spawn(async move { compressor.run().await });
    let decompressor = workplace.decompressor(&resolved.decompressor_settings(), report)?;
    roles.spawn(async move { decompressor.run().await });
    Ok(())
}

/// Starts whatever brings files; the answer is done when all are announced, never for endless sources.
fn spawn_source(
    workplace: &RoleContext,
    resolved: &Resolved,
    input: Input,
    roles: &mut JoinSet<()>,
) -> Result<tokio::sync::oneshot::Receiver<Result<Found>>> {
    let (done, announced) = tokio::sync::oneshot::channel();
    let compressor = resolved.compressor_settings();
    let announcer = workplace.compressor_announcer(&compressor)?;
    match (input, resolved.generator_settings()) {
        (Input::Generated, Some(settings)) => {
            let generate = workplace.generator(&settings)?;
            let stop = workplace.shutdown.clone();
            roles.spawn(async move {
                generate.run().await;
                if !stop.is_cancelled() {
                    let _ = done.send(Ok(Found::default()));
                }
            });
        }
        (Input::Generated | Input::Once, _) => {
            let scanner = workplace.scanner(&compressor, announcer.clone());
            let stop = workplace.shutdown.clone();
            roles.spawn(async move {
                let _ = done.send(announce_all(&scanner, &announcer, &stop).await);
            });
        }
        (Input::Watched, _) => {
            let scanner = workplace.scanner(&compressor, announcer);
            let every = Duration::from_secs(u64::from(resolved.source.scan_seconds));
            let stop = workplace.shutdown.clone();
            roles.spawn(async move {
                scanner.run(every, &stop).await;
                drop(done);
            });
        }
    }
    Ok(announced)
}

async fn announce_all(
    scanner: &Scanner,
    announcer: &Announcer,
    stop: &CancellationToken,
) -> Result<Found> {
    let found = scanner.once(stop).await?;
    if found.announced + found.known == 0 {
        bail!(
            "no file to take in {}: it takes {:?} files; name another folder with --input, or give the pipeline a generator",
            announcer.source.location(),
            scanner.filter.formats
        );
    }
    Ok(found)
}

/// Watches the journal until every announced file has ended, one way or the other. False when told to stop before.
async fn watch(
    journal: &dyn FileJournal,
    mut announced: tokio::sync::oneshot::Receiver<Result<Found>>,
    total: Option<u64>,
    observer: &dyn Observer,
    stop: &CancellationToken,
) -> Result<bool> {
    let mut all_announced = false;
    loop {
        let progress = journal.progress().await?;
        let total = if all_announced {
            Some(progress.announced)
        } else {
            total
        };
        observer.progress(progress, total);
        if all_announced && progress.unfinished() == 0 {
            return Ok(true);
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(false),
            found = &mut announced, if !all_announced => match found {
                Ok(found) => {
                    all_announced = true;
                    notice_other_kinds(&found?, observer);
                }
                // The source only ends without a word when it was told to stop.
                Err(_) => {
                    stop.cancelled().await;
                    return Ok(false);
                }
            },
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn notice_other_kinds(found: &Found, observer: &dyn Observer) {
    let Some(first) = found.other_kinds.first() else {
        return;
    };
    let count = found.other_kinds.len();
    observer.notice(&format!("{count} file(s) of other kinds were left alone, {first} for one; source.formats says which kinds are taken"));
}

/// A folder's path, or a bucket's location as it is.
fn shown(workplace: &RoleContext, location: &Location) -> Result<PathBuf> {
    match location {
        Location::S3 { .. } => Ok(PathBuf::from(location.to_string())),
        Location::File { .. } => workplace.path(location),
    }
}

async fn summarise(
    workplace: &RoleContext,
    resolved: &Resolved,
    journal: &dyn FileJournal,
    report: Option<PathBuf>,
    started: Instant,
    finite: bool,
) -> Result<RunSummary> {
    let progress: JournalProgress = journal.progress().await?;
    let failures: TransportResult<_> = journal.failures(100).await;
    Ok(RunSummary {
        files_generated: progress.announced,
        files_compressed: progress.compressed,
        files_restored: progress.restored,
        files_failed: progress.failed,
        files_superseded: progress.superseded,
        bytes_raw: progress.bytes_raw,
        bytes_compressed: progress.bytes_packed,
        seconds: started.elapsed().as_secs_f64(),
        // A page in a bucket cannot be looked at from here without another request.
        report: report.filter(|page| page.starts_with("s3:") || page.exists()),
        output: shown(workplace, &resolved.destination.location)?,
        interrupted: !finite,
        failures: failures?,
    })
}
