//! How a run ended.

use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::Result;
use serde::{Serialize, Serializer};
use streampress_crds::api::pipeline::CodecFormat;
use streampress_crds::location::Location;
use tokio::time::Instant;

use super::Run;
use crate::journal::{JournalProgress, SourceRecord};
use crate::report::{LastRun, LeftOutSummary};
use crate::roles::connect::Backend;
use crate::roles::earlier_state::{self, EarlierState};
use crate::runtime::{self, blocking};
use streampress_transport::local::Local;
use streampress_transport::{Failure, TransportError, error_chain};

/// Failures that the summary lists.
const LISTED_FAILURES: u32 = 100;

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
    /// Files at the source of kinds that `source.formats` does not name.
    pub(crate) files_not_taken: u64,
    /// Files that were restored once and are now at neither the destination nor the source, or whose source is not this
    /// run's.
    pub(crate) files_gone: u64,
    /// Those of them that were restored at another destination, and never at this one.
    pub(crate) files_elsewhere: u64,
    /// Files that were restored once and that others changed at the destination, before this run or while it watched its
    /// source.
    pub(crate) files_altered: u64,
    /// Whether the data folder's database was found put back to an earlier state, or lost: its stream had files that it did not
    /// know of, which `streampress recover` sends.
    #[serde(rename = "databasePutBack", serialize_with = "is_some")]
    pub(crate) earlier_state: Option<EarlierState>,
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
    /// Whether it ended before all was done.
    pub(crate) interrupted: bool,
    /// Whether messages about files that are done could not be acted on in time, such as that a restored file is to be deleted at
    /// its source: the next run continues.
    pub(crate) messages_waiting: bool,
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
    pub(super) fn new(error: anyhow::Error, known: RunSummary) -> Self {
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
        let is_done = !self.interrupted && !self.messages_waiting;
        // What the stream alone has is at neither end.
        let is_known = self.earlier_state.is_none();
        let is_here = self.files_elsewhere == 0;
        self.files_failed == 0 && self.files_left_out == 0 && is_done && is_known && is_here
    }

    /// How many per cent of the bytes were saved; nothing where nothing was packed.
    pub(crate) fn saved_percent(&self) -> Option<f64> {
        (self.bytes_raw > 0)
            .then(|| 100.0 * (1.0 - self.bytes_compressed as f64 / self.bytes_raw as f64))
    }
}

fn is_some<S: Serializer>(state: &Option<EarlierState>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(state.is_some())
}

impl Run {
    /// What could not be taken from the source; the first hundred are listed.
    fn left_out(&self) -> LeftOutSummary {
        let all = self.scanner.left_out.all();
        LeftOutSummary {
            count: all.len() as u64,
            listed: all.into_iter().take(LISTED_FAILURES as usize).collect(),
        }
    }

    /// What it found at its end, beyond how far the files are.
    pub(super) async fn found(&self, progress: JournalProgress) -> Result<LastRun> {
        let mut gone = self.gone.get().cloned().unwrap_or_default();
        for record in self.taken_away.lock().iter() {
            if !gone.contains(record) {
                gone.push(record.clone());
            }
        }
        let gone = self.not_announced_since(gone).await?;
        let elsewhere = {
            let never_here = self.never_here.lock();
            let was_elsewhere = |record: &&SourceRecord| never_here.contains(&record.announcement);
            gone.iter().filter(was_elsewhere).count() as u64
        };
        let altered = self.altered.lock().clone();
        let altered = self.not_announced_since(altered).await?;
        let found = LastRun {
            ended_at_millis: runtime::now_millis(),
            left_out: self.left_out(),
            unfinished: progress.unfinished(),
            waiting: self.scanner.waiting.load(Relaxed),
            elsewhere,
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

    /// What was last known, where nothing can be read any more.
    pub(super) fn last_seen(&self, started: Instant) -> RunSummary {
        let progress = *self.last_progress.lock();
        RunSummary {
            files_generated: progress.announced,
            files_compressed: progress.compressed,
            files_restored: progress.restored,
            files_failed: progress.failed,
            files_superseded: progress.superseded,
            files_not_taken: self.not_taken.load(Relaxed),
            bytes_raw: progress.bytes_raw,
            bytes_compressed: progress.bytes_packed,
            seconds: started.elapsed().as_secs_f64(),
            output: self.output().unwrap_or_default(),
            ..RunSummary::default()
        }
    }

    pub(super) async fn summary(
        &self,
        progress: JournalProgress,
        found: LastRun,
        (report, started, is_done): (Option<PathBuf>, Instant, bool),
    ) -> Result<RunSummary> {
        let LastRun {
            left_out,
            waiting,
            gone,
            elsewhere,
            altered,
            sources,
            ..
        } = found;
        let earlier_state = self.earlier_state().await;
        Ok(RunSummary {
            files_generated: progress.announced,
            files_compressed: progress.compressed,
            files_restored: progress.restored.saturating_sub(gone + altered),
            files_failed: progress.failed,
            files_superseded: progress.superseded,
            files_left_out: left_out.count,
            files_waiting: waiting,
            files_not_taken: self.not_taken.load(Relaxed),
            files_gone: gone,
            files_elsewhere: elsewhere,
            files_altered: altered,
            earlier_state,
            sources,
            bytes_raw: progress.bytes_raw,
            bytes_compressed: progress.bytes_packed,
            seconds: started.elapsed().as_secs_f64(),
            // Whether a page in a bucket exists would take another request.
            report: report.filter(|page| page.starts_with("s3:") || page.is_file()),
            output: self.output()?,
            interrupted: !is_done,
            messages_waiting: self.messages_wait.load(Relaxed),
            failures: self.failures(progress.failed).await,
            left_out: left_out.listed,
            error: None,
            normalised: self.resolved.codec.format == CodecFormat::Seed,
        })
    }

    /// Whether the stream has files that the database does not know of. Those of a lost database may have been at their source
    /// and are known by now.
    async fn earlier_state(&self) -> Option<EarlierState> {
        match &self.context.backend {
            _ if self.database_put_back => Some(EarlierState::PutBack),
            Backend::Embedded(local) => {
                let is_lost = earlier_state::is_lost(local, self.journal()).await;
                is_lost.then_some(EarlierState::Lost)
            }
            Backend::Aws(_) => None,
        }
    }

    /// The `failed` files with their reasons, as far as they are listed. Those that a damaged journal counts and does not name
    /// are one of the list, with the damage.
    async fn failures(&self, failed: u64) -> Vec<(String, String)> {
        let listed = self.journal().failures(LISTED_FAILURES).await;
        let (listed, fault) = match listed {
            Ok(listed) => (listed, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let named = |(name, failure): (String, Failure)| (name, failure.to_string());
        let mut failures: Vec<_> = listed.into_iter().map(named).collect();
        let unnamed = failed
            .min(LISTED_FAILURES.into())
            .saturating_sub(failures.len() as u64);
        if unnamed > 0 {
            let why = match fault {
                Some(fault) => Some(error_chain(&fault)),
                None => self.damage().await,
            };
            let why = why.unwrap_or_else(|| "the journal does not name them".into());
            failures.push((format!("{unnamed} file(s) that cannot be named"), why));
        }
        failures
    }

    /// What is damaged in the database of the data folder, where it can be told.
    pub(super) async fn damage(&self) -> Option<String> {
        let data = self.context.data.clone();
        let checked = blocking(move || Local::check_database(&data)).await;
        match checked {
            Err(error @ TransportError::Invalid(_)) => Some(error_chain(&error)),
            // Whether it is cannot be told for now.
            Ok(()) | Err(_) => None,
        }
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
