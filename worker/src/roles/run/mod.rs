//! `streampress run`: generator, compressor and decompressor in one process on the embedded transport, from the first file
//! to the last, with progress while it works and a summary at the end.
//!
//! - [`source`]: where its files come from, and what announces them. [`compare`]: what became of what was restored before.
//! - [`watch`]: how far it is, and when it is done. [`summary`]: how it ended.

mod compare;
mod source;
mod summary;
mod watch;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use streampress_crds::api::pipeline::{OnCompressed, OnRestored};
use streampress_crds::location::Location;
use streampress_crds::settings::Resolved;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::source::{FileInput, take_input};
pub(crate) use self::summary::{RunFailure, RunSummary};
use self::watch::Watch;
use crate::config::Config;
use crate::journal::{FileJournal, JournalProgress, SourceRecord, SqliteJournal};
use crate::report::log::ReportLog;
use crate::roles::connect::{self, Backend, CompressorConnections};
use crate::roles::context::RoleContext;
use crate::roles::earlier_state::{self, EarlierState};
use crate::roles::scan::Scanner;
use crate::runtime::blocking;
use crate::telemetry::metrics::Meter;
use crate::telemetry::plain_log::printable;

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
            let known = run.progress_summary(started).await;
            let known = known.unwrap_or_else(|_| run.last_seen(started));
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
    /// Restored files that others had changed at the destination when the run began; of one that watches, at its end.
    altered: Mutex<Vec<SourceRecord>>,
    /// Restored files that are at the destination no longer at the end of a run that watches.
    taken_away: Mutex<Vec<SourceRecord>>,
    /// The announcements of restored files that were never at this destination, but at another one.
    never_here: Mutex<HashSet<String>>,
    /// The announcements of restored files that are gone from the destination or were changed there, once they are known.
    spared: tokio::sync::watch::Sender<Option<HashSet<String>>>,
    /// Whether messages about files that are done waited in vain.
    messages_wait: AtomicBool,
    /// Files at the source of kinds that are not taken.
    not_taken: AtomicU64,
    /// How far the files were when that could last be read.
    last_progress: Mutex<JournalProgress>,
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
        let (source, destination) = (&resolved.source.location, &resolved.destination.location);
        let pipeline = &config.identity().pipeline;
        connect::work_in_folder(&local, pipeline, source, destination).await?;
        let opened = local.clone();
        let journal = blocking(move || SqliteJournal::open(&opened)).await;
        let journal = journal.context("opening the journal of the data folder")?;
        let locks = connect::local_locks(&local);
        let backend = match options.aws {
            false => Backend::Embedded(local.clone()),
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
        context.take_folder(&config.identity().pipeline).await?;
        let compressor = resolved.compressor_settings();
        context.make_source(&compressor.source.location).await?;
        let database_put_back =
            earlier_state::was_put_back(&local, &*context.journal, &context).await;
        let destination = &resolved.destination.location;
        context.make_destination(destination).await?;
        context.refuse_one_folder(&compressor.source.location, destination)?;
        let announcer = context.announcer(&compressor, connections.files_queue.clone())?;
        let scanner = Arc::new(context.scanner(&compressor.source, announcer));
        Ok(Self {
            context,
            resolved,
            connections,
            scanner,
            gone: Arc::default(),
            altered: Mutex::default(),
            taken_away: Mutex::default(),
            never_here: Mutex::default(),
            spared: tokio::sync::watch::Sender::new(None),
            messages_wait: AtomicBool::new(false),
            not_taken: AtomicU64::new(0),
            last_progress: Mutex::default(),
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
        let progress = self.journal().progress().await?;
        let restored_before = progress.restored;
        observer.started(&self.context.data, progress);
        if self.database_put_back {
            warn!("{}", EarlierState::PutBack.problem());
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
        if !self.context.shutdown.is_cancelled() {
            let altered = self.altered.lock();
            let ids = again.gone.iter().chain(&*altered);
            let ids = ids.map(|it| it.announcement.clone()).collect();
            self.spared.send_replace(Some(ids));
        }
        let announced = self.spawn_source(input, again, &mut roles)?;
        let log = report.as_ref().map(|report| report.log.clone());
        let mut watch = Watch::new(self, log, observer, announced, self.total(input));
        let stop = &self.context.shutdown;
        let mut is_done = watch.until_done(stop).await?;
        stop.cancel();
        while let Some(ended) = roles.join_next().await {
            ended.context("a role ended unexpectedly")?;
        }
        let progress = self.journal().progress().await?;
        let has_restored = progress.restored > restored_before;
        match &self.resolved.destination.location {
            _ if self.is_endless(input) => self.look_for_taken_away().await,
            // A bucket's folder is not replaced, and its listing has a price.
            Location::File { .. } if has_restored => self.look_for_gone().await,
            Location::File { .. } | Location::S3 { .. } => {}
        }
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
        let written = report.filter(|report| !report.log.is_failing());
        let page = written.map(|report| report.page);
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

    /// Whether files stay at the source.
    fn keeps_sources(&self) -> bool {
        let source = &self.resolved.source;
        source.on_restored == OnRestored::Keep && source.on_compressed == OnCompressed::Keep
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
            Some(self.spared.subscribe()),
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

    async fn other_locations(&self) -> Result<Vec<String>> {
        let own = self.scanner.announcer.source.location();
        let mut locations = self.journal().locations().await?;
        locations.retain(|location| location != own);
        Ok(locations)
    }
}
