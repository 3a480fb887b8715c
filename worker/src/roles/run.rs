//! `streampress run`: generator, compressor and decompressor in one process on the embedded transport, from the first file
//! to the last, with progress while it works and a summary at the end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use streampress_crds::api::pipeline::OnCompressed;
use streampress_crds::location::Location;
use streampress_crds::settings::Resolved;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::journal::{FileJournal, JournalProgress, SqliteJournal};
use crate::report::log::ReportLog;
use crate::roles::announce::Announcer;
use crate::roles::connect::{self, Backend, CompressorConnections};
use crate::roles::context::RoleContext;
use crate::roles::scan::{ScanResult, Scanner};
use crate::runtime::blocking;
use crate::telemetry::metrics::Meter;

/// Between two looks at the progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// Failures that the summary lists.
const LISTED_FAILURES: u32 = 100;

/// What to run.
pub(crate) struct RunOptions {
    /// The pipeline; its generator's `files` is already the number wanted.
    pub(crate) resolved: Resolved,
    /// The data folder.
    pub(crate) data: PathBuf,
    /// The user's own files instead of generated ones.
    pub(crate) input: Option<PathBuf>,
    /// Queues and stream on AWS instead of the embedded ones.
    pub(crate) aws: bool,
    /// Threads for packing and unpacking.
    pub(crate) threads: usize,
}

/// How a run ended; `--json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunSummary {
    /// Files announced: generated, or found.
    pub(crate) files_generated: u64,
    /// Files packed.
    pub(crate) files_compressed: u64,
    /// Files restored identical, hash checked.
    pub(crate) files_restored: u64,
    /// Files in the dead-letter queue.
    pub(crate) files_failed: u64,
    /// Versions that a newer version of the same file replaced.
    pub(crate) files_superseded: u64,
    /// Bytes of the packed files before packing.
    pub(crate) bytes_raw: u64,
    /// And after.
    pub(crate) bytes_compressed: u64,
    /// Seconds this run took.
    pub(crate) seconds: f64,
    /// The report page, where one was written.
    pub(crate) report: Option<PathBuf>,
    /// Where the restored files are.
    pub(crate) output: PathBuf,
    /// Whether it ended before all files were restored.
    pub(crate) interrupted: bool,
    /// Failed files with their reasons, the first hundred.
    pub(crate) failures: Vec<(String, String)>,
}

impl RunSummary {
    /// Every file was restored identical.
    pub(crate) fn is_success(&self) -> bool {
        self.files_failed == 0 && !self.interrupted
    }

    /// How many per cent of the bytes were saved; nothing where nothing was packed.
    pub(crate) fn saved_percent(&self) -> Option<f64> {
        (self.bytes_raw > 0)
            .then(|| 100.0 * (1.0 - self.bytes_compressed as f64 / self.bytes_raw as f64))
    }
}

/// Shows a run while it works.
pub(crate) trait RunObserver: Send + Sync {
    /// The run starts; called once.
    fn started(&self, data: &Path, resumed: JournalProgress);
    /// Something a person should know.
    fn notice(&self, text: &str);
    /// How far it is; `total` is unknown for an endless run.
    fn progress(&self, progress: JournalProgress, total: Option<u64>);
    /// No more progress follows.
    fn finished(&self);
}

/// Runs until all files are restored or `shutdown` is cancelled; then messages in progress are finished or released.
pub(crate) async fn run(
    options: RunOptions,
    observer: &dyn RunObserver,
    shutdown: CancellationToken,
) -> Result<RunSummary> {
    let started = Instant::now();
    let mut resolved = options.resolved.clone();
    let input = take_input(&mut resolved, options.input.as_deref(), observer)?;
    // The roles have a token of their own: they also stop when all is done.
    let stop = shutdown.child_token();
    let run = Run::open(&options, resolved, stop.clone()).await?;
    observer.started(&options.data, run.journal().progress().await?);

    let report = run.context.report(&run.resolved.decompressor_settings())?;
    let mut roles = JoinSet::new();
    run.spawn_workers(report.as_ref().map(|report| report.log.clone()), &mut roles)?;
    let announced = run.spawn_source(input, &mut roles)?;
    let total = run.total(input);
    let finite = watch(run.journal(), announced, total, observer, &stop).await?;
    stop.cancel();
    while let Some(ended) = roles.join_next().await {
        ended.context("a role ended unexpectedly")?;
    }
    if let Some(report) = &report {
        report.log.finish().await;
    }
    observer.finished();
    run.summary(report.map(|report| report.page), started, finite)
        .await
}

/// A run's parts.
struct Run {
    context: RoleContext,
    resolved: Resolved,
    connections: CompressorConnections,
}

impl Run {
    /// Opens the data folder, and AWS where it is wanted: slots and journal stay in the folder.
    async fn open(
        options: &RunOptions,
        resolved: Resolved,
        shutdown: CancellationToken,
    ) -> Result<Self> {
        let config = Config::File(Box::new(resolved.clone()));
        let local = connect::open_local(&options.data, &config).await?;
        let opened = local.clone();
        let journal = blocking(move || SqliteJournal::open(&opened)).await;
        let journal = journal.context("opening the journal of the data folder")?;
        let locks = connect::local_locks(&local);
        let backend = match options.aws {
            false => Backend::Embedded(local),
            true => Backend::Aws(connect::connect_aws(&config).await?),
        };
        let connections = backend.compressor(&resolved.compressor_settings()).await?;
        let context = RoleContext {
            backend,
            locks,
            destination_journal: Some(Arc::new(journal.clone())),
            journal: Arc::new(journal),
            data: options.data.clone(),
            threads: options.threads.max(1),
            // Its metrics are not served: the terminal shows the progress.
            meter: Meter::default(),
            shutdown,
        };
        Ok(Self {
            context,
            resolved,
            connections,
        })
    }

    fn journal(&self) -> &dyn FileJournal {
        &*self.context.journal
    }

    /// Files to expect, where that is known before they are made.
    fn total(&self, input: FileInput) -> Option<u64> {
        let job = self.resolved.generator.as_ref()?;
        (input == FileInput::Generated && job.files > 0).then_some(job.files)
    }

    fn spawn_workers(&self, report: Option<Arc<ReportLog>>, roles: &mut JoinSet<()>) -> Result<()> {
        let compressor = self.context.compressor(
            &self.resolved.compressor_settings(),
            self.connections.clone(),
        )?;
        roles.spawn(async move { compressor.run().await });
        let decompressor = self.context.decompressor(
            &self.resolved.decompressor_settings(),
            self.connections.for_decompressor(),
            report,
        )?;
        roles.spawn(async move { decompressor.run().await });
        Ok(())
    }

    /// Starts what announces files. The receiver gets a value when all are announced, never for an endless source.
    fn spawn_source(
        &self,
        input: FileInput,
        roles: &mut JoinSet<()>,
    ) -> Result<oneshot::Receiver<Result<ScanResult>>> {
        let (done, announced) = oneshot::channel();
        let compressor = self.resolved.compressor_settings();
        let announcer = self
            .context
            .announcer(&compressor, self.connections.files_queue.clone())?;
        let stop = self.context.shutdown.clone();
        match (input, self.resolved.generator_settings()) {
            (FileInput::Generated, Some(settings)) => {
                let connections = self.connections.for_generator();
                let generator = self.context.generator(&settings, connections)?;
                roles.spawn(async move {
                    generator.run().await;
                    if !stop.is_cancelled() {
                        // The receiver is gone when the run has ended early.
                        let _ = done.send(Ok(ScanResult::default()));
                    }
                });
            }
            (FileInput::Generated | FileInput::Once, _) => {
                let scanner = self.context.scanner(&compressor, announcer.clone());
                roles.spawn(async move {
                    let _ = done.send(announce_all(&scanner, &announcer, &stop).await);
                });
            }
            (FileInput::Watched, _) => {
                let scanner = self.context.scanner(&compressor, announcer);
                let interval = Duration::from_secs(u64::from(self.resolved.source.scan_seconds));
                roles.spawn(async move {
                    scanner.run(interval, &stop).await;
                    drop(done);
                });
            }
        }
        Ok(announced)
    }

    async fn summary(
        &self,
        report: Option<PathBuf>,
        started: Instant,
        finite: bool,
    ) -> Result<RunSummary> {
        let progress = self.journal().progress().await?;
        Ok(RunSummary {
            files_generated: progress.announced,
            files_compressed: progress.compressed,
            files_restored: progress.restored,
            files_failed: progress.failed,
            files_superseded: progress.superseded,
            bytes_raw: progress.bytes_raw,
            bytes_compressed: progress.bytes_packed,
            seconds: started.elapsed().as_secs_f64(),
            // Whether a page in a bucket exists would take another request.
            report: report.filter(|page| page.starts_with("s3:") || page.exists()),
            output: self.output()?,
            interrupted: !finite,
            failures: self.journal().failures(LISTED_FAILURES).await?,
        })
    }

    /// The destination: a folder's path, or a bucket's URL.
    fn output(&self) -> Result<PathBuf> {
        match &self.resolved.destination.location {
            location @ Location::S3 { .. } => Ok(PathBuf::from(location.to_string())),
            location @ Location::File { .. } => self.context.path(location),
        }
    }
}

/// Where the files of a run come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FileInput {
    /// The generator makes them.
    Generated,
    /// They lie at the source, all of them now.
    Once,
    /// They arrive at the source over time.
    Watched,
}

/// Decides where files come from. The user's own files under --input are only read.
fn take_input(
    resolved: &mut Resolved,
    folder: Option<&Path>,
    observer: &dyn RunObserver,
) -> Result<FileInput> {
    let Some(folder) = folder else {
        let scan = resolved.source.scan_seconds > 0;
        return Ok(match (&resolved.generator, scan) {
            (Some(_), _) => FileInput::Generated,
            (None, true) => FileInput::Watched,
            (None, false) => FileInput::Once,
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
            "source.onCompressed is ignored: files under --input are never renamed or deleted",
        );
    }
    Ok(FileInput::Once)
}

async fn announce_all(
    scanner: &Scanner,
    announcer: &Announcer,
    stop: &CancellationToken,
) -> Result<ScanResult> {
    let result = scanner.once(stop).await?;
    if result.announced + result.known == 0 {
        bail!(
            "no file to take in {}: it takes {:?} files; name another folder with --input, or give the pipeline a generator",
            announcer.source.location(),
            scanner.filter.formats
        );
    }
    Ok(result)
}

/// Watches the journal until every announced file is restored, superseded or failed. False when stopped before.
async fn watch(
    journal: &dyn FileJournal,
    mut announced: oneshot::Receiver<Result<ScanResult>>,
    total: Option<u64>,
    observer: &dyn RunObserver,
    stop: &CancellationToken,
) -> Result<bool> {
    let mut all_announced = false;
    loop {
        let progress = journal.progress().await?;
        let total = match all_announced {
            true => Some(progress.announced),
            false => total,
        };
        observer.progress(progress, total);
        if all_announced && progress.unfinished() == 0 {
            return Ok(true);
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(false),
            result = &mut announced, if !all_announced => match result {
                Ok(result) => {
                    all_announced = true;
                    notice_not_taken(&result?, observer);
                }
                // A source sends nothing only when it was stopped.
                Err(_) => {
                    stop.cancelled().await;
                    return Ok(false);
                }
            },
            () = tokio::time::sleep(PROGRESS_INTERVAL) => {}
        }
    }
}

fn notice_not_taken(result: &ScanResult, observer: &dyn RunObserver) {
    let Some(first) = result.not_taken.first() else {
        return;
    };
    let count = result.not_taken.len();
    observer.notice(&format!(
        "{count} file(s) of other kinds were not taken, for example {first}; source.formats says which kinds are taken"
    ));
}
