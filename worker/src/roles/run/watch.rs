//! Watches a run to its end.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Result, bail};
use streampress_crds::api::pipeline::{OnCompressed, OnRestored};
use streampress_transport::{COUNTED_LATE, DeadLetterReason, EmptyQueues, Failure};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::source::is_unavailable;
use super::{Run, RunObserver};
use crate::journal::{JournalProgress, OpenFile, SourceRecord};
use crate::report::log::ReportLog;
use crate::report::{FileOutcome, ReportRow};
use crate::roles::scan::ScanResult;
use crate::roles::source::SettleTime;
use crate::runtime;
use crate::telemetry::metrics::RetryCause;
use crate::telemetry::plain_log::printable;

/// Between two updates of the progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// So long after the last message of an embedded queue every outcome is in the journal.
const IDLE: Duration = Duration::from_secs(3);
/// How long a run waits for the messages that are left once all files are done.
const MESSAGES_PATIENCE: Duration = Duration::from_secs(30);
/// Between two checks of how long packed files have waited.
const RETENTION_INTERVAL: Duration = Duration::from_secs(60);
/// AWS keeps records for 24 hours or longer.
const SHORTEST_RETENTION: Duration = Duration::from_secs(24 * 3600);
/// After so long without progress the database is looked at: with damage in a queue or in the slots the roles wait for ever.
const CHECKED_AFTER: Duration = Duration::from_secs(10);
/// After so long without progress it is said how many files are left, and again after twice the time.
const SAID_AFTER: Duration = Duration::from_secs(60);
/// Files that are left because they are written all the time are looked for this often, and are given up after so long and so many
/// versions.
const WRITTEN_CHECK: Duration = Duration::from_secs(2);
const WRITTEN_PATIENCE: Duration = Duration::from_secs(60);
const WRITTEN_VERSIONS: usize = 3;
/// More files than this are not all written all the time.
const WRITTEN_MOST: u64 = 100;
/// Why such a file is left out.
const WRITTEN: &str = "another program writes it all the time; run again once that has ended";
/// Why a file failed that no message is about any more.
const NO_MESSAGE: &str = "no message of this file is left, and its source is not in this folder; run with the folder that it was announced from";

/// Watches a run to its end.
pub(super) struct Watch<'a> {
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
    /// The same of files that are to be deleted.
    deferral_was_said: bool,
    retention: RetentionWatch,
    stall: Stall,
    written: WrittenFiles,
}

/// The files that are left, each with the versions that were seen of it.
#[derive(Debug, Default)]
struct WrittenFiles {
    checked_at: Option<Instant>,
    seen: HashMap<String, (Instant, HashSet<String>)>,
}

impl WrittenFiles {
    /// Takes note of the files that are left. Whether each of them has been written anew all the time.
    fn observe(&mut self, open: &[OpenFile], now: Instant) -> bool {
        self.seen
            .retain(|name, _| open.iter().any(|file| file.name == *name));
        for file in open {
            let first = || (now, HashSet::new());
            let (_, versions) = self.seen.entry(file.name.clone()).or_insert_with(first);
            versions.insert(file.file_id.clone());
        }
        let is_written = |(since, versions): &(Instant, HashSet<String>)| {
            now - *since >= WRITTEN_PATIENCE && versions.len() >= WRITTEN_VERSIONS
        };
        !open.is_empty() && self.seen.values().all(is_written)
    }
}

/// Since when there was no progress, and whether the database was looked at since.
#[derive(Debug)]
struct Stall {
    progress: JournalProgress,
    since: Instant,
    is_checked: bool,
    /// After how long it is said next.
    said_after: Duration,
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

impl<'a> Watch<'a> {
    /// `announced` gets a value once all files are announced; `total`: files to expect, where that is known before.
    pub(super) fn new(
        run: &'a Run,
        report: Option<Arc<ReportLog>>,
        observer: &'a dyn RunObserver,
        announced: oneshot::Receiver<Result<ScanResult>>,
        total: Option<u64>,
    ) -> Self {
        Self {
            run,
            report,
            observer,
            announced,
            total,
            tries: Tries::default(),
            done_since: None,
            outage: None,
            waiting_was_said: false,
            deferral_was_said: false,
            retention: RetentionWatch::default(),
            stall: Stall {
                progress: JournalProgress::default(),
                since: Instant::now(),
                is_checked: false,
                said_after: SAID_AFTER,
            },
            written: WrittenFiles::default(),
        }
    }

    /// Watches the journal until every announced file is restored, superseded or failed. False when stopped before. While
    /// the journal cannot be used (its disk is full) it waits.
    pub(super) async fn until_done(&mut self, stop: &CancellationToken) -> Result<bool> {
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
                        self.run
                            .not_taken
                            .store(result.not_taken.len() as u64, Relaxed);
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
        *self.run.last_progress.lock() = progress;
        if all_announced {
            self.total = Some(progress.announced);
        }
        // Not before it is known what is gone: that is not restored any more.
        if let Some(gone) = self.run.gone.get() {
            let missing = gone.len() + self.run.altered.lock().len();
            let shown = JournalProgress {
                restored: progress.restored.saturating_sub(missing as u64),
                ..progress
            };
            self.observer.progress(shown, self.total);
        }
        self.report_waiting();
        self.report_retention().await?;
        self.check_stalled(progress).await?;
        if !all_announced {
            return Ok(false);
        }
        if progress.unfinished() == 0 {
            return Ok(self.is_settled().await);
        }
        self.done_since = None;
        self.conclude_idle(progress).await?;
        match progress.unfinished() <= WRITTEN_MOST {
            true => self.leaves_out_written().await,
            false => Ok(false),
        }
    }

    /// Whether only files are left that are written all the time. A run ends without them: the next one goes on with the
    /// messages that wait.
    async fn leaves_out_written(&mut self) -> Result<bool> {
        let checked_at = self.written.checked_at;
        if checked_at.is_some_and(|at| at.elapsed() < WRITTEN_CHECK) {
            return Ok(false);
        }
        let now = Instant::now();
        self.written.checked_at = Some(now);
        let mut open = self.run.journal().open_files().await?;
        open.retain(|file| file.failure.is_none());
        let are_written = self.written.observe(&open, now);
        if are_written {
            for file in &open {
                self.run.scanner.left_out.add(&file.name, WRITTEN);
            }
        }
        Ok(are_written)
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
        let source = &self.run.resolved.source;
        let settle = source.settle_seconds;
        if !self.deferral_was_said && self.run.context.meter.was_retried(RetryCause::NotYet) {
            self.deferral_was_said = true;
            let deletes = source.on_restored == OnRestored::Delete
                || source.on_compressed == OnCompressed::Delete;
            let rule = match deletes {
                true => SettleTime::new(source).requirement(),
                false => format!(
                    "one that is changed after it was announced is announced anew after {settle} s (source.settleSeconds)"
                ),
            };
            self.observer
                .notice(&format!("files wait that changed a short time ago: {rule}"));
        }
        let waiting = self.run.scanner.waiting.load(Relaxed);
        if waiting > 0 && !self.waiting_was_said {
            self.waiting_was_said = true;
            self.observer.notice(&format!(
                "{waiting} file(s) wait: a file is announced once it has not changed for {settle} s (source.settleSeconds)"
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

    /// An error where nothing goes on because the database is damaged.
    async fn check_stalled(&mut self, progress: JournalProgress) -> Result<()> {
        if self.stall.progress != progress {
            (self.stall.progress, self.stall.since) = (progress, Instant::now());
            self.stall.is_checked = false;
            self.stall.said_after = SAID_AFTER;
        }
        let stalled = self.stall.since.elapsed();
        if stalled >= self.stall.said_after && progress.unfinished() > 0 {
            self.stall.said_after *= 2;
            self.observer.notice(&format!(
                "no file was done for {} s: {} file(s) are worked on, wait in a queue, or are tried again later, for reasons that are above; a signal (Ctrl-C) ends the run, and the same command goes on",
                stalled.as_secs(),
                progress.unfinished()
            ));
        }
        let is_due = !self.stall.is_checked && self.stall.since.elapsed() >= CHECKED_AFTER;
        if is_due {
            self.stall.is_checked = true;
            if let Some(damage) = self.run.damage().await {
                bail!(damage);
            }
        }
        Ok(())
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
    /// that takes long, as when a source file cannot be deleted, the next run continues. A file must hold still before that.
    async fn is_settled(&mut self) -> bool {
        let since = *self.done_since.get_or_insert_with(Instant::now);
        if self.queues_are_empty().await {
            return true;
        }
        let settle = SettleTime::new(&self.run.resolved.source);
        let is_late = since.elapsed() >= MESSAGES_PATIENCE + settle.0;
        if is_late {
            self.run.messages_wait.store(true, Relaxed);
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
    if let Some(example) = result.example_of_not_taken() {
        let count = result.not_taken.len();
        observer.notice(&format!(
            "{count} file(s) of other kinds were not taken, {example}"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_without_files_once_no_others_are_left_and_each_was_written_anew_for_a_minute() {
        let file = |name: &str, version: u32| OpenFile {
            file_id: format!("{name}-{version}"),
            name: name.to_owned(),
            failure: None,
        };
        let mut written = WrittenFiles::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for version in 1..=6 {
            let open = [file("log", version), file("large", 1)];
            let seconds = 15 * u64::from(version);
            assert!(!written.observe(&open, at(seconds)), "{version}");
        }
        assert!(written.observe(&[file("log", 7)], at(105)));
        assert!(!written.observe(&[file("log", 7), file("other", 1)], at(107)));
        assert!(!written.observe(&[], at(109)));
        for (version, seconds) in [(8, 110), (9, 120), (10, 130), (11, 169)] {
            assert!(!written.observe(&[file("log", version)], at(seconds)));
        }
        assert!(written.observe(&[file("log", 12)], at(170)));
    }
}
