//! What became of the files that were restored before.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use streampress_transport::{FileName, Files, LeftOut, Listing};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Run, RunObserver};
use crate::destination::Destination;
use crate::journal::{SourceRecord, SourceState};
use crate::message::hash;
use crate::roles::context::is_away;
use crate::roles::restored::RestoredCopies;
use crate::runtime::blocking;
use crate::telemetry::plain_log::{printable, printable_name};

/// Between two tries of what failed because a disk or a service is down.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(2);
/// So many files that differ are compared with what the stream has.
const MOST_COMPARED: usize = 10;

/// Names that are to be announced again although their files did not change.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// Their restored files are gone.
    pub(super) gone: Vec<SourceRecord>,
    /// Those of them that were never at this destination, but at another one: their announcements.
    pub(super) never_here: HashSet<String>,
    /// The restored files of other locations that are gone: this run does not read their sources.
    pub(super) gone_elsewhere: Vec<SourceRecord>,
    /// They failed, or another location's file took their place.
    pub(super) others: Vec<String>,
}

/// What of the files that were restored is not at the destination as it was restored.
struct Differences {
    again: Again,
    /// Others changed them.
    altered: Vec<SourceRecord>,
    destination: Destination,
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
        let notice = |text: &str| observer.notice(text);
        let stop = &self.context.shutdown;
        let Some(mut found) = self.differences(notice, stop).await? else {
            return Ok(Again::default());
        };
        self.notice_altered(&found, observer).await?;
        *self.never_here.lock() = std::mem::take(&mut found.again.never_here);
        *self.altered.lock() = found.altered;
        Ok(found.again)
    }

    /// What of the files that were restored is not at the destination as it was restored; none where nothing is known of any
    /// file.
    async fn differences(
        &self,
        notice: impl Fn(&str),
        stop: &CancellationToken,
    ) -> Result<Option<Differences>> {
        let location = self.scanner.announcer.source.location();
        let records = self.journal().sources(location).await?;
        let others = self.restored_elsewhere().await?;
        if records.is_empty() && others.is_empty() {
            return Ok(None);
        }
        let mut again = Again::default();
        let settings = self.resolved.decompressor_settings();
        let destination = self.context.destination(&settings)?;
        let files = destination.files().clone();
        let (journal, format) = (self.journal(), self.resolved.codec.format);
        let mut restored = RestoredCopies::load(destination.clone(), journal, format).await?;
        let Listing {
            files, left_out, ..
        } = list(files).await?;
        let mut found: HashMap<_, _> = files
            .into_iter()
            .map(|entry| (entry.name.as_str().to_owned(), entry))
            .collect();
        let mut unlisted = BTreeSet::new();
        let mut present = Vec::new();
        for record in records {
            match record.state {
                SourceState::Writing | SourceState::Sent => {}
                SourceState::Dead | SourceState::Superseded => again.others.push(record.name),
                SourceState::Restored => match found.remove(&record.name) {
                    Some(entry) => present.push((record, entry)),
                    None => match unlisted_folder(&left_out, &record.name) {
                        Some(folder) => drop(unlisted.insert(folder)),
                        None => {
                            if !restored.may_have_been_here(&record) {
                                again.never_here.insert(record.announcement.clone());
                            }
                            again.gone.push(record);
                        }
                    },
                },
            }
        }
        for folder in unlisted {
            notice(&format!(
                "the folder {} of the destination cannot be listed; what was restored there is not compared",
                printable(folder)
            ));
        }
        for record in others {
            match found.remove(&record.name) {
                None if unlisted_folder(&left_out, &record.name).is_some() => {}
                None if restored.may_have_been_here(&record) => again.gone_elsewhere.push(record),
                None => {}
                Some(entry) => present.push((record, entry)),
            }
        }
        let differing = restored.differing(present, &notice, stop).await?;
        if let Some((name, reason)) = differing.unreadable.first() {
            notice(&format!(
                "{} restored file(s) cannot be read at the destination and are not compared, for example {}: {reason}",
                differing.unreadable.len(),
                printable_name(name)
            ));
        }
        let (altered, mut elsewhere) = (differing.altered, differing.elsewhere);
        elsewhere.retain(|record| record.location == location);
        let announcements = elsewhere.iter().map(|record| record.announcement.clone());
        again.never_here.extend(announcements);
        again.gone.extend(elsewhere);
        Ok(Some(Differences {
            again,
            altered,
            destination,
        }))
    }

    async fn notice_altered(
        &self,
        Differences {
            altered,
            destination,
            ..
        }: &Differences,
        observer: &dyn RunObserver,
    ) -> Result<()> {
        let Some(first) = altered.first() else {
            return Ok(());
        };
        let (count, name) = (altered.len(), printable_name(&first.name));
        let notice = if self.database_put_back || has_later(destination, altered).await? {
            format!(
                "{count} restored file(s) are not as the database knows them, for example {name}; since it was put back, they may be later versions of this pipeline's: leave them, and use 'streampress recover'"
            )
        } else if self.is_own_earlier(destination, first).await {
            format!(
                "{count} restored file(s) are not as they were restored last: {name} has the content of an earlier version, as where a folder was put back; they stay as they are: remove such a file, and the next run restores it from its source, if that is still there"
            )
        } else {
            format!(
                "{count} restored file(s) were changed at the destination by others, for example {name}; they stay as they are: remove such a file, and the next run restores it from its source, if that is still there"
            )
        };
        observer.notice(&notice);
        Ok(())
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

    /// Looks which of the restored files were taken away from the destination or changed there since the run began, as the next
    /// run will at its start. Where that cannot be read, none is known to be.
    pub(super) async fn look_for_taken_away(&self) {
        // The run's own token is cancelled by now.
        let stop = CancellationToken::new();
        match self.differences(|_| {}, &stop).await {
            Ok(None) => {}
            Ok(Some(Differences { again, altered, .. })) => {
                *self.never_here.lock() = again.never_here;
                *self.taken_away.lock() = again.gone;
                // What it found at its start is in it, as far as it still is so.
                *self.altered.lock() = altered;
            }
            Err(error) => {
                warn!("Could not look which restored files were taken away or changed: {error:#}.");
            }
        }
    }

    /// Looks which of the restored files are not at the destination, as where its folder was replaced meanwhile. Where that cannot
    /// be read, none is known to be.
    pub(super) async fn look_for_gone(&self) {
        match self.gone_now().await {
            Ok(gone) => *self.taken_away.lock() = gone,
            Err(error) => {
                warn!(
                    "Could not look whether the restored files are at the destination: {error:#}."
                );
            }
        }
    }

    async fn gone_now(&self) -> Result<Vec<SourceRecord>> {
        let location = self.scanner.announcer.source.location();
        let mut restored = self.journal().sources(location).await?;
        restored.retain(|record| record.state == SourceState::Restored);
        let files = self
            .context
            .destination_files(&self.resolved.destination.location)?;
        let listed = list(files).await?;
        let there = listed.files.iter().map(|entry| entry.name.as_str());
        let there: HashSet<&str> = there.collect();
        restored.retain(|record| {
            !there.contains(&*record.name)
                && unlisted_folder(&listed.left_out, &record.name).is_none()
        });
        Ok(restored)
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

async fn list(files: Arc<dyn Files>) -> Result<Listing> {
    let shown = files.location().to_owned();
    let listed = blocking(move || files.list()).await;
    listed.with_context(|| format!("listing {shown}"))
}

/// The folder around this name that could not be listed: what lies in it is not known to be gone.
fn unlisted_folder<'a>(left_out: &'a [LeftOut], name: &str) -> Option<&'a str> {
    let is_around = |folder: &str| {
        let below = name.strip_prefix(folder);
        below.is_some_and(|below| below.starts_with('/'))
    };
    let mut folders = left_out.iter().filter(|it| it.is_folder);
    let folder = folders.find(|it| is_around(&it.name));
    folder.map(|it| &*it.name)
}

/// Whether the first of the files that are not as the database knows them are later versions of this pipeline's: then the
/// database was put back, also where messages that were sent since hide it.
async fn has_later(destination: &Destination, altered: &[SourceRecord]) -> Result<bool> {
    for record in altered.iter().take(MOST_COMPARED) {
        let Ok(name) = FileName::parse(&record.name) else {
            continue;
        };
        match destination.has_lost_version(&name).await {
            Ok(false) => {}
            Err(error) if is_away(&error) => return Err(error),
            // One that cannot be read stops no other.
            Err(error) => debug!("Could not compare {name} with the stream: {error:#}."),
            Ok(true) => return Ok(true),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use streampress_transport::contract_tests::{DeniedReads, TappedFiles};
    use streampress_transport::local::files::LocalFiles;

    use super::*;
    use crate::message::FileRef;
    use crate::roles::announce::ReadSource;

    #[test]
    fn what_lies_in_a_folder_that_cannot_be_listed_is_not_known_to_be_gone() {
        let left_out = |name: &str, is_folder| LeftOut {
            name: name.into(),
            reason: "cannot be read".into(),
            is_folder,
        };
        let left_out = [left_out("a", false), left_out("b/c", true)];
        for (name, folder) in [
            ("a", None),
            ("a/1.csv", None),
            ("b/1.csv", None),
            ("b/c", None),
            ("b/cd.csv", None),
            ("b/c/1.csv", Some("b/c")),
            ("b/c/d/1.csv", Some("b/c")),
        ] {
            assert_eq!(unlisted_folder(&left_out, name), folder, "{name}");
        }
    }

    #[tokio::test]
    async fn a_restored_file_that_cannot_be_read_any_more_ends_no_run() {
        let root = tempfile::tempdir().expect("a folder");
        std::fs::write(root.path().join("a.csv"), "1").expect("written");
        let files = LocalFiles::open("file:///data/out", root.path()).expect("opens");
        let files = TappedFiles::new(Arc::new(files), DeniedReads);
        let destination = Destination::with_own_journal(files, None);
        let read = ReadSource {
            file: FileRef::with_content("a.csv", b"1"),
            fingerprint: String::new(),
            is_settled: false,
        };
        let record = read.record("1".to_owned());
        let later = has_later(&destination, &[record]).await;
        assert!(!later.expect("it goes on"));
    }
}
