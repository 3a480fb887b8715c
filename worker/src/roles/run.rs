//! `streampress run`: generator, compressor and decompressor in one process on the embedded transport, from the first file
//! to the last, with progress while it works and a summary at the end.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use serde::Serialize;
use streampress_crds::api::pipeline::{CodecFormat, OnCompressed, OnRestored};
use streampress_crds::location::Location;
use streampress_crds::settings::Resolved;
use streampress_transport::{COUNTED_LATE, DeadLetterReason, EmptyQueues, Failure, TransportError};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::{BadConfiguration, Config};
use crate::journal::{
    FileJournal, JournalProgress, OpenFile, RECOVERED, SourceRecord, SourceState, SqliteJournal,
};
use crate::report::log::ReportLog;
use crate::report::{FileOutcome, LastRun, LeftOutSummary, ReportRow};
use crate::roles::connect::{self, Backend, CompressorConnections};
use crate::roles::context::RoleContext;
use crate::roles::earlier_state;
use crate::roles::restored::RestoredCopies;
use crate::roles::scan::{ScanResult, Scanner};
use crate::runtime::{self, blocking};
use crate::telemetry::metrics::Meter;
use crate::telemetry::plain_log::printable;

/// Between two updates of the progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// Failures that the summary lists.
const LISTED_FAILURES: u32 = 100;
/// Between two tries of what failed because a disk or a service is down.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// So long after the last message of an embedded queue every outcome is in the journal.
const IDLE: Duration = Duration::from_secs(3);
/// How long a run waits for the messages that are left once all files are done.
const MESSAGES_PATIENCE: Duration = Duration::from_secs(30);
/// Between two checks of how long packed files have waited.
const RETENTION_INTERVAL: Duration = Duration::from_secs(60);
/// AWS keeps records for 24 hours or longer.
const SHORTEST_RETENTION: Duration = Duration::from_secs(24 * 3600);
/// Why a file failed that no message is about any more.
const NO_MESSAGE: &str = "no message of this file is left, and its source is not in this folder; run with the folder that it was announced from";

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
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunSummary {
    /// Files announced: generated, or found.
    pub(crate) files_generated: u64,
    /// Files packed.
    pub(crate) files_compressed: u64,
    /// Files restored, hash checked: identical, or in the original's normal form.
    pub(crate) files_restored: u64,
    /// The sources whose files the data folder has; the counts are of all of them.
    pub(crate) sources: u64,
    /// Whether files are restored in the normal form of the original's format (`codec.format: Seed`).
    pub(crate) normalised: bool,
    /// Files in the dead-letter queue.
    pub(crate) files_failed: u64,
    /// Versions that a newer version of the same file replaced.
    pub(crate) files_superseded: u64,
    /// Files and folders at the source that could not be taken.
    pub(crate) files_left_out: u64,
    /// Files at the source that were not announced, because they had not held still for `source.settleSeconds`.
    pub(crate) files_waiting: u64,
    /// Files that were restored once and are now at neither the destination nor the source, or whose source is not this
    /// run's.
    pub(crate) files_gone: u64,
    /// Files that were restored once and that others changed at the destination before this run.
    pub(crate) files_altered: u64,
    /// Whether the data folder's database was found put back to an earlier state: its stream had files that it did not know of,
    /// which `streampress recover` sends.
    pub(crate) database_put_back: bool,
    /// Bytes of the packed files before packing.
    pub(crate) bytes_raw: u64,
    /// And after: each file once, as it was packed last.
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
    /// Files and folders that were left out with their reasons, the first hundred.
    pub(crate) left_out: Vec<(String, String)>,
    /// Why the run could not go on.
    pub(crate) error: Option<String>,
}

/// Why a run could not go on, and how far it was.
#[derive(Debug)]
pub(crate) struct RunFailure {
    pub(crate) error: anyhow::Error,
    pub(crate) summary: Box<RunSummary>,
}

impl RunFailure {
    fn new(error: anyhow::Error, known: RunSummary) -> Self {
        let summary = Box::new(RunSummary {
            interrupted: true,
            error: Some(format!("{error:#}")),
            ..known
        });
        Self { error, summary }
    }
}

impl From<anyhow::Error> for RunFailure {
    /// Before a run knows of any file.
    fn from(error: anyhow::Error) -> Self {
        Self::new(error, RunSummary::default())
    }
}

impl RunSummary {
    /// Every file was restored.
    pub(crate) fn is_success(&self) -> bool {
        self.files_failed == 0 && self.files_left_out == 0 && !self.interrupted
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
) -> Result<RunSummary, RunFailure> {
    let started = Instant::now();
    let mut resolved = options.resolved.clone();
    let input = take_input(&mut resolved, &options, observer)?;
    // The roles have a token of their own: they also stop when all is done.
    let stop = shutdown.child_token();
    let run = Run::open(&options, resolved, stop).await?;
    match run.work(input, started, observer).await {
        Ok(summary) => Ok(summary),
        Err(error) => {
            observer.finished();
            let known = run.progress_summary(started).await.unwrap_or_default();
            Err(RunFailure::new(error, known))
        }
    }
}

/// A run's parts.
struct Run {
    context: RoleContext,
    resolved: Resolved,
    connections: CompressorConnections,
    scanner: Arc<Scanner>,
    /// Files that were restored once and are now at neither the destination nor the source, once they are known.
    gone: Arc<OnceLock<Vec<SourceRecord>>>,
    /// Restored files that others had changed at the destination when the run began.
    altered: Mutex<Vec<SourceRecord>>,
    database_put_back: bool,
    is_aws: bool,
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
        let database_put_back = earlier_state::was_put_back(&local).await;
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
            destination_journal: Some(journal.clone()),
            journal: Arc::new(journal),
            data: options.data.clone(),
            threads: options.threads.max(1),
            // Its metrics are not served: the terminal shows the progress.
            meter: Meter::default(),
            shutdown,
        };
        let compressor = resolved.compressor_settings();
        context.make_source(&compressor.source.location).await?;
        let destination = &resolved.destination.location;
        context.make_destination(destination).await?;
        let announcer = context.announcer(&compressor, connections.files_queue.clone())?;
        let scanner = Arc::new(context.scanner(&compressor.source, announcer));
        Ok(Self {
            context,
            resolved,
            connections,
            scanner,
            gone: Arc::default(),
            altered: Mutex::default(),
            database_put_back,
            is_aws: options.aws,
        })
    }

    /// From the first file to the last.
    async fn work(
        &self,
        input: FileInput,
        started: Instant,
        observer: &dyn RunObserver,
    ) -> Result<RunSummary> {
        observer.started(&self.context.data, self.journal().progress().await?);
        if self.database_put_back {
            warn!("{}", earlier_state::NOTICE);
        }
        let decompressor = self.resolved.decompressor_settings();
        self.context.confirm_owner(&decompressor).await?;
        let report = self.context.report(&decompressor)?;
        if let Some(report) = &report {
            report.log.begin_run().await;
        }
        let mut roles = JoinSet::new();
        self.spawn_workers(report.as_ref().map(|report| report.log.clone()), &mut roles)?;
        self.notice_other_locations(observer).await?;
        let again = self.check_destination(observer).await?;
        let announced = self.spawn_source(input, again, &mut roles)?;
        let mut watch = Watch {
            total: self.total(input),
            run: self,
            report: report.as_ref().map(|report| report.log.clone()),
            observer,
            announced,
            tries: Tries::default(),
            done_since: None,
            outage: None,
            waiting_was_said: false,
            retention: RetentionWatch::default(),
        };
        let stop = &self.context.shutdown;
        let mut is_done = watch.until_done(stop).await?;
        stop.cancel();
        while let Some(ended) = roles.join_next().await {
            ended.context("a role ended unexpectedly")?;
        }
        let progress = self.journal().progress().await?;
        let found = self.found(progress).await?;
        if let Some(report) = &report {
            report.log.set_last_run(found.clone()).await;
            report.log.finish().await;
        }
        observer.finished();
        if self.is_endless(input) {
            // Such a run ends only by a signal: what was found until then counts.
            is_done = found.unfinished == 0 && found.waiting == 0;
        }
        let page = report.map(|report| report.page);
        self.summary(progress, found, (page, started, is_done))
            .await
    }

    /// How far the files are, for a run that cannot go on.
    async fn progress_summary(&self, started: Instant) -> Result<RunSummary> {
        let progress = self.journal().progress().await?;
        let found = self.found(progress).await?;
        self.summary(progress, found, (None, started, false)).await
    }

    fn journal(&self) -> &dyn FileJournal {
        &*self.context.journal
    }

    /// Whether restored files stay at the source.
    fn keeps_sources(&self) -> bool {
        self.resolved.source.on_restored == OnRestored::Keep
    }

    /// Files to expect, where that is known before they are made.
    fn total(&self, input: FileInput) -> Option<u64> {
        let job = self.resolved.generator.as_ref()?;
        (input == FileInput::Generated && job.files > 0).then_some(job.files)
    }

    /// Whether files come until a signal ends the run.
    fn is_endless(&self, input: FileInput) -> bool {
        match (input, &self.resolved.generator) {
            (FileInput::Watched, _) => true,
            (FileInput::Generated, Some(generator)) => generator.files == 0,
            (FileInput::Generated, None) | (FileInput::Once, _) => false,
        }
    }

    fn spawn_workers(&self, report: Option<Arc<ReportLog>>, roles: &mut JoinSet<()>) -> Result<()> {
        let compressor = self.context.compressor(
            &self.resolved.compressor_settings(),
            self.connections.clone(),
            report.clone(),
        )?;
        roles.spawn(async move { compressor.run().await });
        let decompressor = self.context.decompressor(
            &self.resolved.decompressor_settings(),
            self.connections.for_decompressor(self.keeps_sources()),
            report,
        )?;
        roles.spawn(async move { decompressor.run().await });
        Ok(())
    }

    /// Equal names of two locations are one file at the destination.
    async fn notice_other_locations(&self, observer: &dyn RunObserver) -> Result<()> {
        let own = self.scanner.announcer.source.location();
        if let Some(other) = self.other_locations().await?.first() {
            observer.notice(&format!(
                "this data folder also has files of {}; the counts are of all its files, and where names are equal, the files of {} take their place; another --data keeps both",
                printable(other),
                printable(own)
            ));
        }
        Ok(())
    }

    /// Compares what was restored before with the destination; answers the names to be announced again: what is gone from
    /// there or was replaced by another location's file, and what failed.
    async fn check_destination(&self, observer: &dyn RunObserver) -> Result<Again> {
        let location = self.scanner.announcer.source.location();
        let records = self.journal().sources(location).await?;
        let others = self.restored_elsewhere().await?;
        let mut again = Again::default();
        if records.is_empty() && others.is_empty() {
            return Ok(again);
        }
        let settings = self.resolved.decompressor_settings();
        let destination = self.context.destination(&settings)?;
        let files = destination.files().clone();
        let (journal, format) = (self.journal(), self.resolved.codec.format);
        let mut restored = RestoredCopies::load(destination, journal, format).await?;
        let shown = files.location().to_owned();
        let listed = blocking(move || files.list()).await;
        let listed = listed.with_context(|| format!("listing {shown}"))?.files;
        let mut found: HashMap<_, _> = listed
            .into_iter()
            .map(|entry| (entry.name.as_str().to_owned(), entry))
            .collect();
        let mut present = Vec::new();
        for record in records {
            match record.state {
                SourceState::Writing | SourceState::Sent => {}
                SourceState::Dead | SourceState::Superseded => again.others.push(record.name),
                SourceState::Restored => match found.remove(&record.name) {
                    None => again.gone.push(record),
                    Some(entry) => present.push((record, entry)),
                },
            }
        }
        for record in others {
            match found.remove(&record.name) {
                None if restored.may_have_been_here(&record) => again.gone_elsewhere.push(record),
                None => {}
                Some(entry) => present.push((record, entry)),
            }
        }
        let notice = |text: &str| observer.notice(text);
        let stop = &self.context.shutdown;
        let differing = restored.differing(present, notice, stop).await?;
        let (altered, elsewhere) = (differing.altered, differing.elsewhere.into_iter());
        again
            .gone
            .extend(elsewhere.filter(|record| record.location == location));
        if let Some(first) = altered.first() {
            observer.notice(&format!(
                "{} restored file(s) were changed at the destination by others, for example {}; they stay as they are: remove such a file, and the next run restores it from its source, if that is still there",
                altered.len(),
                printable(&first.name)
            ));
        }
        *self.altered.lock() = altered;
        Ok(again)
    }

    /// The restored files of other locations than this run's source.
    async fn restored_elsewhere(&self) -> Result<Vec<SourceRecord>> {
        let mut restored = Vec::new();
        for location in self.other_locations().await? {
            let records = self.journal().sources(&location).await?.into_iter();
            restored.extend(records.filter(|record| record.state == SourceState::Restored));
        }
        Ok(restored)
    }

    async fn other_locations(&self) -> Result<Vec<String>> {
        let own = self.scanner.announcer.source.location();
        let mut locations = self.journal().locations().await?;
        locations.retain(|location| location != own);
        Ok(locations)
    }

    /// Starts what announces files. The receiver gets a value when all are announced, never for an endless source.
    fn spawn_source(
        &self,
        input: FileInput,
        again: Again,
        roles: &mut JoinSet<()>,
    ) -> Result<oneshot::Receiver<Result<ScanResult>>> {
        let (done, announced) = oneshot::channel();
        let stop = self.context.shutdown.clone();
        let (scanner, gone) = (self.scanner.clone(), self.gone.clone());
        let again = Arc::new(again);
        let stopped = stop.clone();
        let announce_again = async move {
            let announce = || {
                let (scanner, again, gone) = (scanner.clone(), again.clone(), gone.clone());
                async move {
                    let names: Vec<_> = again.gone.iter().map(|it| it.name.clone()).collect();
                    let missing = scanner.announce_names(&names).await?;
                    let here = again.gone.iter().filter(|it| missing.contains(&it.name));
                    let _ = gone.set(here.chain(&again.gone_elsewhere).cloned().collect());
                    scanner.announce_names(&again.others).await?;
                    anyhow::Ok(())
                }
            };
            persist(&stopped, announce).await?;
            anyhow::Ok(scanner)
        };
        match (input, self.resolved.generator_settings()) {
            (FileInput::Generated, Some(mut settings)) => {
                // A scan would never end.
                settings.scan = None;
                let connections = self.connections.for_generator();
                let generator = self.context.generator(&settings, connections)?;
                roles.spawn(async move {
                    if let Err(error) = announce_again.await {
                        let _ = done.send(Err(error));
                        return;
                    }
                    generator.run().await;
                    if !stop.is_cancelled() {
                        // The receiver is gone when the run has ended early.
                        let _ = done.send(Ok(ScanResult::default()));
                    }
                });
            }
            (FileInput::Generated | FileInput::Once, _) => {
                roles.spawn(async move {
                    let scan = async {
                        let scanner = announce_again.await?;
                        let announce = || {
                            let (scanner, stop) = (scanner.clone(), stop.clone());
                            async move { announce_all(&scanner, &stop).await }
                        };
                        persist(&stop, announce).await
                    };
                    match scan.await {
                        Ok(None) => drop(done),
                        Ok(Some(result)) => {
                            let _ = done.send(Ok(result));
                        }
                        Err(error) => {
                            let _ = done.send(Err(error));
                        }
                    }
                });
            }
            (FileInput::Watched, _) => {
                let interval = Duration::from_secs(u64::from(self.resolved.source.scan_seconds));
                roles.spawn(async move {
                    match announce_again.await {
                        Ok(scanner) => {
                            scanner.run(interval, &stop).await;
                            drop(done);
                        }
                        Err(error) => {
                            let _ = done.send(Err(error));
                        }
                    }
                });
            }
        }
        Ok(announced)
    }

    /// What could not be taken from the source; the first hundred are listed.
    fn left_out(&self) -> LeftOutSummary {
        let all = self.scanner.left_out.all();
        LeftOutSummary {
            count: all.len() as u64,
            listed: all.into_iter().take(LISTED_FAILURES as usize).collect(),
        }
    }

    /// What it found at its end, beyond how far the files are.
    async fn found(&self, progress: JournalProgress) -> Result<LastRun> {
        let gone = self.gone.get().cloned().unwrap_or_default();
        let gone = self.not_announced_since(gone).await?;
        let altered = self.altered.lock().clone();
        let altered = self.not_announced_since(altered).await?;
        let found = LastRun {
            ended_at_millis: runtime::now_millis(),
            left_out: self.left_out(),
            unfinished: progress.unfinished(),
            waiting: self.scanner.waiting.load(Relaxed),
            sources: self.other_locations().await?.len() as u64 + 1,
            ..LastRun::default()
        };
        Ok(found.with_differing(ids(&gone), ids(&altered)))
    }

    /// Those of the restored files that were not announced anew since.
    async fn not_announced_since(&self, records: Vec<SourceRecord>) -> Result<Vec<SourceRecord>> {
        let mut same = Vec::new();
        for record in records {
            let newest = self
                .journal()
                .source(&record.location, &record.name)
                .await?;
            if newest.is_some_and(|it| it.announcement == record.announcement) {
                same.push(record);
            }
        }
        Ok(same)
    }

    async fn summary(
        &self,
        progress: JournalProgress,
        found: LastRun,
        (report, started, is_done): (Option<PathBuf>, Instant, bool),
    ) -> Result<RunSummary> {
        let LastRun {
            left_out,
            waiting,
            gone,
            altered,
            sources,
            ..
        } = found;
        let failures = self.journal().failures(LISTED_FAILURES).await?.into_iter();
        Ok(RunSummary {
            files_generated: progress.announced,
            files_compressed: progress.compressed,
            files_restored: progress.restored.saturating_sub(gone + altered),
            files_failed: progress.failed,
            files_superseded: progress.superseded,
            files_left_out: left_out.count,
            files_waiting: waiting,
            files_gone: gone,
            files_altered: altered,
            database_put_back: self.database_put_back,
            sources,
            bytes_raw: progress.bytes_raw,
            bytes_compressed: progress.bytes_packed,
            seconds: started.elapsed().as_secs_f64(),
            // Whether a page in a bucket exists would take another request.
            report: report.filter(|page| page.starts_with("s3:") || page.exists()),
            output: self.output()?,
            interrupted: !is_done,
            failures: failures
                .map(|(name, failure)| (name, failure.to_string()))
                .collect(),
            left_out: left_out.listed,
            error: None,
            normalised: self.resolved.codec.format == CodecFormat::Seed,
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

/// The ids of files.
fn ids(records: &[SourceRecord]) -> impl ExactSizeIterator<Item = &str> {
    records.iter().map(|record| record.file_id.as_str())
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
    options: &RunOptions,
    observer: &dyn RunObserver,
) -> Result<FileInput> {
    let Some(folder) = options.input.as_deref() else {
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
    refuse_own_output(resolved, &folder, &options.data)?;
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
    if resolved.source.scan_seconds > 0 {
        resolved.source.scan_seconds = 0;
        observer.notice(
            "source.scanSeconds is ignored: the files that are under --input now are taken",
        );
    }
    if resolved.source.on_compressed != OnCompressed::Keep {
        resolved.source.on_compressed = OnCompressed::Keep;
        observer.notice(
            "source.onCompressed is ignored: files under --input are never renamed or deleted",
        );
    }
    if resolved.source.on_restored != OnRestored::Keep {
        resolved.source.on_restored = OnRestored::Keep;
        observer.notice(
            "source.onRestored is ignored: files under --input are never renamed or deleted",
        );
    }
    Ok(FileInput::Once)
}

/// Refuses an input folder in which the run would find what it writes itself. A data folder below the input folder is not
/// scanned.
fn refuse_own_output(resolved: &Resolved, input: &Path, data: &Path) -> Result<()> {
    let Ok(data) = data.canonicalize() else {
        return Ok(());
    };
    let report = resolved.report.as_ref().map(|report| &report.location);
    for location in [&resolved.destination.location].into_iter().chain(report) {
        let Some(below) = location.below_data() else {
            continue;
        };
        let own = data.join(below);
        if input.starts_with(&own) || (input.starts_with(&data) && own.starts_with(input)) {
            return Err(BadConfiguration(format!(
                "--input {} holds what this pipeline writes ({location}); name another folder",
                input.display()
            ))
            .into());
        }
    }
    Ok(())
}

/// Repeats work that failed because a disk or a service is down for now, until it succeeds; nothing when stopped before.
async fn persist<T, F: Future<Output = Result<T>>>(
    stop: &CancellationToken,
    work: impl Fn() -> F,
) -> Result<Option<T>> {
    loop {
        match work().await {
            Err(error) if is_unavailable(&error) => tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(None),
                () = tokio::time::sleep(RETRY_AFTER) => {}
            },
            done => return done.map(Some),
        }
    }
}

/// Whether the same may succeed later, as after a disk that is full for now.
fn is_unavailable(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        matches!(
            cause.downcast_ref(),
            Some(TransportError::Unavailable { .. })
        )
    })
}

async fn announce_all(scanner: &Scanner, stop: &CancellationToken) -> Result<ScanResult> {
    let mut result = scanner.once(stop).await?;
    let announcer = &scanner.announcer;
    let sources = announcer.journal.sources(announcer.source.location());
    // Of what was recovered, the files are known and not their sources, which may be renamed or deleted.
    let is_recovered = announcer.journal.get(RECOVERED).await?.is_some();
    if !is_recovered && sources.await?.is_empty() && scanner.left_out.all().is_empty() {
        result.discarded = announcer.journal.discarded().await?;
        if result.discarded > 0 {
            return Ok(result);
        }
        bail!(
            "no file to take in {}: it takes {} files; name another folder with --input, or give the pipeline a generator",
            announcer.source.location(),
            scanner.filter.kinds()
        );
    }
    Ok(result)
}

/// Names that are to be announced again although their files did not change.
#[derive(Debug, Default)]
struct Again {
    /// Their restored files are gone.
    gone: Vec<SourceRecord>,
    /// The restored files of other locations that are gone: this run does not read their sources.
    gone_elsewhere: Vec<SourceRecord>,
    /// They failed, or another location's file took their place.
    others: Vec<String>,
}

/// Watches a run to its end.
struct Watch<'a> {
    run: &'a Run,
    report: Option<Arc<ReportLog>>,
    observer: &'a dyn RunObserver,
    announced: oneshot::Receiver<Result<ScanResult>>,
    total: Option<u64>,
    tries: Tries,
    /// Since when all files have been done.
    done_since: Option<Instant>,
    /// Why the journal cannot be used at present.
    outage: Option<String>,
    /// That files wait until they have held still is said once.
    waiting_was_said: bool,
    retention: RetentionWatch,
}

/// Whether packed files are about to outlive the stream's records.
#[derive(Debug, Default)]
struct RetentionWatch {
    checked_at: Option<Instant>,
    /// What was said of it last.
    said: Option<String>,
}

/// What was tried for files that went missing.
#[derive(Debug, Default)]
struct Tries {
    /// Files that were announced again, by id: each once in a run.
    announced: HashSet<String>,
    /// Since when no queue has held a message although files are unfinished, with the progress of then.
    idle: EmptyQueues,
    idle_progress: JournalProgress,
}

impl Watch<'_> {
    /// Watches the journal until every announced file is restored, superseded or failed. False when stopped before. While
    /// the journal cannot be used (its disk is full) it waits.
    async fn until_done(&mut self, stop: &CancellationToken) -> Result<bool> {
        let mut all_announced = false;
        loop {
            match self.is_done(all_announced).await {
                Ok(true) => return Ok(true),
                Ok(false) => self.outage = None,
                Err(error) if is_unavailable(&error) => self.report_outage(&error),
                Err(error) => return Err(error),
            }
            tokio::select! {
               biased;
                () = stop.cancelled() => return Ok(false),
                result = &mut self.announced, if !all_announced => match result {
                    Ok(result) => {
                        all_announced = true;
                        let result = result?;
                        self.notice_discarded(&result);
                        notice_not_taken(&result, self.observer);
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

    /// Reads the progress once, and announces again what needs it.
    async fn is_done(&mut self, all_announced: bool) -> Result<bool> {
        let progress = self.run.journal().progress().await?;
        if all_announced {
            self.total = Some(progress.announced);
        }
        // Not before it is known what is gone: that is not restored any more.
        if let Some(gone) = self.run.gone.get() {
            let shown = JournalProgress {
                restored: progress.restored.saturating_sub(gone.len() as u64),
                ..progress
            };
            self.observer.progress(shown, self.total);
        }
        self.report_waiting();
        self.report_retention().await?;
        if !all_announced {
            return Ok(false);
        }
        if progress.unfinished() == 0 {
            return Ok(self.is_settled().await);
        }
        self.done_since = None;
        self.conclude_idle(progress).await?;
        Ok(false)
    }

    fn notice_discarded(&self, result: &ScanResult) {
        if result.discarded > 0 {
            self.observer.notice(&format!(
                "no file is left to restore: {} file(s) were discarded; put a file back into {} and run again, and it is sent",
                result.discarded,
                self.run.scanner.announcer.source.location()
            ));
        }
    }

    fn report_waiting(&mut self) {
        let waiting = self.run.scanner.waiting.load(Relaxed);
        if waiting > 0 && !self.waiting_was_said {
            self.waiting_was_said = true;
            self.observer.notice(&format!(
                "{waiting} file(s) wait: a file is announced once it has not changed for {} s (source.settleSeconds)",
                self.run.resolved.source.settle_seconds
            ));
        }
    }

    /// Warns where packed files have waited for half of the time for which a stream on AWS keeps records, as the operator's
    /// condition RetentionAtRisk does.
    async fn report_retention(&mut self) -> Result<()> {
        let checked_at = self.retention.checked_at;
        let is_due = checked_at.is_none_or(|at| at.elapsed() >= RETENTION_INTERVAL);
        if !self.run.is_aws || !is_due {
            return Ok(());
        }
        self.retention.checked_at = Some(Instant::now());
        let oldest = self.run.journal().oldest_packed_millis().await?;
        let age = |oldest| Duration::from_millis(runtime::now_millis().saturating_sub(oldest));
        let waited = oldest.map_or(Duration::ZERO, age);
        let said = match waited * 2 < SHORTEST_RETENTION {
            // It can be at risk with no retention.
            true => None,
            false => self.retention_notice(waited).await,
        };
        if let Some(text) = said.as_ref().filter(|_| self.retention.said.is_none()) {
            self.observer.notice(text);
        }
        self.retention.said = said;
        Ok(())
    }

    async fn retention_notice(&self, waited: Duration) -> Option<String> {
        let stream = &self.run.resolved.transport.stream;
        let hours = waited.as_secs() / 3600;
        let backend = &self.run.context.backend;
        match backend.retention_hours(stream).await {
            Ok(Some(kept)) if waited * 2 >= Duration::from_secs(3600 * u64::from(kept)) => {
                Some(format!(
                    "packed files have waited for {hours} hours, and the stream {} keeps records for {kept}: what is older is packed and sent again if its source is still there, and is lost if not; nothing extends the retention of a stream that the operator does not manage: aws kinesis increase-stream-retention-period --stream-name {} --retention-period-hours HOURS does",
                    stream.name, stream.name
                ))
            }
            Ok(_) => None,
            Err(error) => Some(format!(
                "packed files have waited for {hours} hours; for how long the stream {} keeps records could not be read: {error:#}",
                stream.name
            )),
        }
    }

    fn report_outage(&mut self, error: &anyhow::Error) {
        let cause = format!("{error:#}");
        if self.outage.as_ref() != Some(&cause) {
            let notice = format!("the run waits, and continues by itself: {cause}");
            self.observer.notice(&notice);
            self.outage = Some(cause);
        }
    }

    async fn newest(&self, file: &OpenFile) -> Result<Option<SourceRecord>> {
        let location = self.run.scanner.announcer.source.location();
        let newest = self.run.journal().source(location, &file.name);
        Ok(newest.await?)
    }

    /// Where both queues have been empty for a while and files are unfinished, no message of theirs exists any more: their
    /// sources are announced again, once, and what then is still unfinished has failed.
    async fn conclude_idle(&mut self, progress: JournalProgress) -> Result<()> {
        if self.tries.idle_progress != progress {
            self.tries.idle = EmptyQueues::default();
            self.tries.idle_progress = progress;
        }
        let are_empty = self.queues_are_empty().await;
        let idle_for = self.tries.idle.observe(are_empty, Instant::now());
        let long_enough = match self.run.is_aws {
            true => COUNTED_LATE,
            false => IDLE,
        };
        if idle_for.is_none_or(|idle_for| idle_for < long_enough) {
            return Ok(());
        }
        self.tries.idle = EmptyQueues::default();
        let journal = self.run.journal();
        let mut names = Vec::new();
        for file in journal.open_files().await? {
            if file.failure.is_some() {
                continue;
            }
            match self.newest(&file).await? {
                Some(newest) if newest.file_id != file.file_id => {
                    journal.record_superseded(&file.file_id).await?;
                }
                Some(_) if self.tries.announced.insert(file.file_id.clone()) => {
                    names.push((file.name, file.file_id));
                }
                Some(_) | None => {
                    self.fail(&file.name, &file.file_id, NO_MESSAGE).await?;
                }
            }
        }
        let only_names: Vec<_> = names.iter().map(|(name, _)| name.clone()).collect();
        let missing = self.run.scanner.announce_names(&only_names).await?;
        for (name, file_id) in names {
            if missing.contains(&name) {
                let detail = format!("{name} is not at the source");
                self.fail(&name, &file_id, &detail).await?;
            }
        }
        Ok(())
    }

    /// Records that a file failed because its source is missing.
    async fn fail(&self, name: &str, file_id: &str, detail: &str) -> Result<()> {
        let failure = Failure::new(DeadLetterReason::SourceMissing, detail);
        let journal = self.run.journal();
        journal.record_failed(file_id, &failure).await?;
        if let Some(report) = &self.report {
            let (now, outcome) = (runtime::now_millis(), FileOutcome::from(&failure));
            let row = ReportRow::unpacked(file_id, name, 0, now, outcome);
            report.add(row).await;
        }
        Ok(())
    }

    /// Whether no message about the files that are done is under way any more. One may be a receipt, for which something is
    /// to be done at the source, or the same content announced once more, which may be its name's newest version. Where
    /// that takes long, as when a source file cannot be deleted, the next run continues.
    async fn is_settled(&mut self) -> bool {
        let since = *self.done_since.get_or_insert_with(Instant::now);
        if self.queues_are_empty().await {
            return true;
        }
        let is_late = since.elapsed() >= MESSAGES_PATIENCE;
        if is_late {
            self.observer.notice(
                "messages about files that are done are still under way, such as receipts that could not be acted on yet; the next run continues with them",
            );
        }
        is_late
    }

    /// Whether no message is in any queue. Unknown is not empty.
    async fn queues_are_empty(&self) -> bool {
        let connections = &self.run.connections;
        let queues = [&connections.files_queue, &connections.chunks_queue];
        for queue in queues.into_iter().chain(&connections.receipts_queue) {
            if !matches!(queue.depth().await, Ok(depth) if depth.total() == 0) {
                return false;
            }
        }
        true
    }
}

fn notice_not_taken(result: &ScanResult, observer: &dyn RunObserver) {
    for folder in &result.data_folders {
        observer.notice(&format!(
            "{} below the source is a data folder of streampress (it has a streampress.db) and is not read",
            printable(folder)
        ));
    }
    let Some(first) = result.not_taken.first() else {
        return;
    };
    let count = result.not_taken.len();
    observer.notice(&format!(
        "{count} file(s) of other kinds were not taken, for example {first}; source.formats says which kinds are taken"
    ));
}
