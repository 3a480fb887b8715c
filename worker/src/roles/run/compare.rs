//! What became of the files that were restored before.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result};
use streampress_transport::FileName;
use tracing::warn;

use super::source::RETRY_AFTER;
use super::{Run, RunObserver};
use crate::destination::Destination;
use crate::journal::{SourceRecord, SourceState};
use crate::message::hash;
use crate::roles::context::is_away;
use crate::roles::restored::RestoredCopies;
use crate::runtime::blocking;
use crate::telemetry::plain_log::printable;

/// So many files that differ are compared with what the stream has.
const MOST_COMPARED: usize = 10;

/// Names that are to be announced again although their files did not change.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// Their restored files are gone.
    pub(super) gone: Vec<SourceRecord>,
    /// The restored files of other locations that are gone: this run does not read their sources.
    pub(super) gone_elsewhere: Vec<SourceRecord>,
    /// They failed, or another location's file took their place.
    pub(super) others: Vec<String>,
}

impl Run {
    /// Compares what was restored before with the destination, once that can be read.
    pub(super) async fn check_destination(&self, observer: &dyn RunObserver) -> Result<Again> {
        let mut was_said = false;
        loop {
            let error = match self.compare_destination(observer).await {
                Err(error) if is_away(&error) => error,
                compared => return compared,
            };
            if !was_said {
                was_said = true;
                let notice = format!("the run waits, and continues by itself: {error:#}");
                observer.notice(&notice);
            }
            tokio::select! {
                biased;
                () = self.context.shutdown.cancelled() => return Ok(Again::default()),
                () = tokio::time::sleep(RETRY_AFTER) => {}
            }
        }
    }

    /// Compares what was restored before with the destination; answers the names to be announced again: what is gone from
    /// there or was replaced by another location's file, and what failed.
    async fn compare_destination(&self, observer: &dyn RunObserver) -> Result<Again> {
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
        let mut restored = RestoredCopies::load(destination.clone(), journal, format).await?;
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
        let is_put_back = self.database_put_back || has_later(&destination, &altered).await?;
        if let Some(first) = altered.first().filter(|_| is_put_back) {
            observer.notice(&format!(
                "{} restored file(s) are not as the database knows them, for example {}; since it was put back, they may be later versions of this pipeline's: leave them, and use 'streampress recover'",
                altered.len(),
                printable(&first.name)
            ));
        } else if let Some(first) = altered.first()
            && self.is_own_earlier(&destination, first).await
        {
            observer.notice(&format!(
                "{} restored file(s) are not as they were restored last: {} has the content of an earlier version, as where a folder was put back; they stay as they are: remove such a file, and the next run restores it from its source, if that is still there",
                altered.len(),
                printable(&first.name)
            ));
        } else if let Some(first) = altered.first() {
            observer.notice(&format!(
                "{} restored file(s) were changed at the destination by others, for example {}; they stay as they are: remove such a file, and the next run restores it from its source, if that is still there",
                altered.len(),
                printable(&first.name)
            ));
        }
        *self.altered.lock() = altered;
        Ok(again)
    }

    /// Whether the restored file has the content of a version that was announced before the last one.
    async fn is_own_earlier(&self, destination: &Destination, record: &SourceRecord) -> bool {
        let looking = async {
            let name = FileName::parse(&record.name).ok()?;
            let files = destination.files().clone();
            let read = blocking(move || hash(files.read(&name)?)).await;
            let (content, _) = read.ok()?;
            let announced = self
                .journal()
                .was_content_announced(&record.name, content.as_str());
            announced.await.ok()?
        };
        looking.await == Some(true)
    }

    /// Looks which of the restored files are at the destination no longer. Where that cannot be read, none is known to be gone.
    pub(super) async fn look_for_taken_away(&self) {
        let looking = async {
            let location = self.scanner.announcer.source.location();
            let mut records = self.journal().sources(location).await?;
            records.retain(|record| record.state == SourceState::Restored);
            if records.is_empty() {
                return anyhow::Ok(records);
            }
            let settings = self.resolved.decompressor_settings();
            let files = self.context.destination(&settings)?.files().clone();
            let listed = blocking(move || files.list()).await?.files;
            let present: HashSet<_> = listed.iter().map(|entry| entry.name.as_str()).collect();
            records.retain(|record| !present.contains(record.name.as_str()));
            Ok(records)
        };
        match looking.await {
            Ok(gone) => *self.taken_away.lock() = gone,
            Err(error) => warn!("Could not look which restored files were taken away: {error:#}."),
        }
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
}

/// Whether the first of the files that are not as the database knows them are later versions of this pipeline's: then the
/// database was put back, also where messages that were sent since hide it.
async fn has_later(destination: &Destination, altered: &[SourceRecord]) -> Result<bool> {
    for record in altered.iter().take(MOST_COMPARED) {
        let Ok(name) = FileName::parse(&record.name) else {
            continue;
        };
        if destination.has_lost_version(&name).await? {
            return Ok(true);
        }
    }
    Ok(false)
}
