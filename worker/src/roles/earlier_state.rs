//! Whether the database of a data folder was put back to an earlier state, from a backup or because its last changes were lost:
//! then the stream has versions that the database never announced. Or whether it is lost, and a new one was made: then the
//! stream has files that the new one does not know.

use std::collections::HashSet;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt, future};
use streampress_crds::location::Location;
use streampress_transport::local::Local;
use streampress_transport::{ScannedRecord, StreamScan, TransportResult};
use tracing::debug;

use crate::journal::FileJournal;
use crate::message::{DescribedFile, FileRef};
use crate::roles::connect::Backend;
use crate::roles::context::RoleContext;
use crate::runtime::{self, blocking};

/// The most bytes of the stream that are read. Where all works as it should, none are: what follows a file's last record is
/// its manifest's message, which is younger.
const MOST_BYTES: u64 = 256 << 20;
/// The journal's key of the time of the last `recover`, which sends what an earlier database knew.
pub(crate) const LOST_IS_RECOVERED: &str = "lost database is recovered";
/// The journal's key of the time at which it was last found that the database was put back: it cannot be told any more once the
/// next message is sent.
const WAS_PUT_BACK: &str = "database was put back";

/// What the stream has and the database does not know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EarlierState {
    /// The database was put back to an earlier state.
    PutBack,
    /// It was made anew; the one before it is lost.
    Lost,
}

impl EarlierState {
    /// What is wrong.
    pub(crate) fn problem(self) -> &'static str {
        match self {
            Self::PutBack => {
                "the database of the data folder was put back to an earlier state: its stream has files that it does not know of"
            }
            Self::Lost => {
                "the database of the data folder is lost, and a new one was made: the stream has files that it does not know of"
            }
        }
    }

    /// What to say, with the command that recovers.
    pub(crate) fn notice(self, command: &str) -> String {
        format!("{}; this sends them: {command}", self.problem())
    }

    /// Of a role's data folder; `None` without one.
    pub(crate) async fn of(context: &RoleContext) -> Option<Self> {
        let Backend::Embedded(local) = &context.backend else {
            return None;
        };
        match was_put_back(local, &*context.journal, context).await {
            true => Some(Self::PutBack),
            false => is_lost(local, &*context.journal)
                .await
                .then_some(Self::Lost),
        }
    }
}

/// Where files were announced from.
#[async_trait]
pub(crate) trait Sources: Sync {
    /// Whether the file is not at its source any more; false where that cannot be told.
    async fn is_gone(&self, file: &FileRef) -> bool;
}

#[async_trait]
impl Sources for RoleContext {
    async fn is_gone(&self, file: &FileRef) -> bool {
        let Ok(location) = Location::parse(&file.location) else {
            return false;
        };
        let Ok(source) = self.source(&location) else {
            return false;
        };
        let name = file.name.clone();
        matches!(blocking(move || source.stat(&name)).await, Ok(None))
    }
}

/// Whether the database was found put back, now or before, and no `recover` ran since. It is found where the stream has a version
/// that is later than any which the database has announced, or one whose message was never received, although its source is gone.
pub(crate) async fn was_put_back(
    local: &Local,
    journal: &dyn FileJournal,
    sources: &dyn Sources,
) -> bool {
    let looking = async {
        if look_for_later(local, sources).await? {
            let now = runtime::now_millis().to_string();
            journal.set(WAS_PUT_BACK, &now).await?;
            return Ok(true);
        }
        let found_at = millis_of(journal, WAS_PUT_BACK).await?;
        Ok(found_at > millis_of(journal, LOST_IS_RECOVERED).await?)
    };
    told(looking.await)
}

/// When the key was last set, milliseconds since 1970; `None` for never.
async fn millis_of(journal: &dyn FileJournal, key: &str) -> TransportResult<Option<u64>> {
    let millis = journal.get(key).await?;
    Ok(millis.and_then(|millis| millis.parse().ok()))
}

/// Whether the stream has a file of an earlier database whose name this one does not know, and no `recover` ran since. Files
/// that are at their source still are known again once they are announced.
pub(crate) async fn is_lost(local: &Local, journal: &dyn FileJournal) -> bool {
    told(look_for_unknown(local, journal).await)
}

fn told(looked: TransportResult<bool>) -> bool {
    looked.unwrap_or_else(|error| {
        // The step that needs what cannot be read says so.
        debug!(%error, "Could not compare the database with the stream.");
        false
    })
}

async fn look_for_unknown(local: &Local, journal: &dyn FileJournal) -> TransportResult<bool> {
    if journal.get(LOST_IS_RECOVERED).await?.is_some() {
        return Ok(false);
    }
    let mut known = HashSet::new();
    let mut files = described(local.scan_of_earlier_databases());
    while let Some(DescribedFile { file, .. }) = files.try_next().await? {
        let name = file.name.as_str();
        if known.contains(name) {
            continue;
        }
        if journal.was_name_announced(name).await? == Some(false) {
            return Ok(true);
        }
        known.insert(name.to_owned());
    }
    Ok(false)
}

async fn look_for_later(local: &Local, sources: &dyn Sources) -> TransportResult<bool> {
    let last = local.last_version().await?;
    let mut newest = last.clone();
    let mut files = described(local.scan_after(&last));
    while let Some(DescribedFile { file, version, .. }) = files.try_next().await? {
        if version > newest {
            newest = version;
        } else if local.waits_unreceived(&version).await? && sources.is_gone(&file).await {
            // It was packed, and then taken away.
            return Ok(true);
        }
    }
    // Another process may have announced and packed it since.
    Ok(newest > last && newest > local.last_version().await?)
}

/// The files that the records describe, of the first [`MOST_BYTES`] bytes.
fn described(pages: StreamScan) -> BoxStream<'static, TransportResult<DescribedFile>> {
    let mut bytes = 0;
    let within = pages.try_take_while(move |page| {
        let goes_on = bytes < MOST_BYTES;
        bytes += page
            .iter()
            .map(|record| u64::from(record.position.bytes))
            .sum::<u64>();
        future::ready(Ok(goes_on))
    });
    let files = |page: Vec<ScannedRecord>| {
        let data = page.into_iter().filter_map(|record| record.data);
        let files = data.flat_map(|data| DescribedFile::all_of(&data));
        stream::iter(files.map(Ok).collect::<Vec<_>>())
    };
    within.map_ok(files).try_flatten().boxed()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use streampress_transport::local::LocalOptions;
    use streampress_transport::{FileVersion, Outgoing, Queue, Record};

    use super::*;
    use crate::journal::{NoJournal, SourceJournal, SqliteJournal};
    use crate::message::DescribedContent;
    use crate::message::record::{RecordHead, RecordOwner};

    /// A record of a file whose first announcement was this version.
    fn record(version: FileVersion) -> Record {
        let file = FileRef::with_content("a.txt", b"1");
        let owner = RecordOwner::new(&file.id(), "attempt");
        let described = DescribedContent::Alone {
            attempt: "attempt".into(),
            file: Box::new(DescribedFile {
                file,
                version,
                observed: None,
                announced_millis: 0,
            }),
        };
        let head = RecordHead {
            description: Some(Bytes::from(described.to_bytes())),
            ..RecordHead::default()
        };
        Record {
            key: "a".into(),
            data: owner.seal_packed(0, b"payload", &head),
        }
    }

    async fn announce(queue: &dyn Queue, number: u32) -> FileVersion {
        let message = Outgoing {
            group: "g".into(),
            dedup_id: number.to_string(),
            body: "{}".into(),
            attributes: Default::default(),
        };
        let sent = queue.send_numbered(vec![message]).await.expect("sent");
        sent[0].clone().expect("it has a version")
    }

    /// No source, or one without any file.
    struct IsGone(bool);

    #[async_trait]
    impl Sources for IsGone {
        async fn is_gone(&self, _: &FileRef) -> bool {
            self.0
        }
    }

    /// As a command finds it that knows of none before.
    async fn was_put_back(local: &Local) -> bool {
        super::was_put_back(local, &NoJournal, &IsGone(false)).await
    }

    #[tokio::test]
    async fn a_version_that_was_packed_and_never_received_tells_that_the_database_was_put_back() {
        let root = tempfile::tempdir().expect("a folder");
        let local = Local::open(root.path(), LocalOptions::default()).expect("opens");
        let queue = local.files_queue();
        let gone = IsGone(true);
        let version = announce(&*queue, 1).await;
        assert!(
            !super::was_put_back(&local, &NoJournal, &gone).await,
            "not packed"
        );
        // Later than the message, by the clock of a slow file system too.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let packed = local.stream().append(vec![record(version)]).await;
        packed.expect("appended");
        // Power loss may undo a receive: then the file is at its source still.
        assert!(!was_put_back(&local).await);
        assert!(super::was_put_back(&local, &NoJournal, &gone).await);
        let received = queue.receive(1, Duration::ZERO).await.expect("received");
        assert_eq!(received.len(), 1);
        // Its worker was killed before it sent the manifest.
        assert!(!super::was_put_back(&local, &NoJournal, &gone).await);
    }

    #[tokio::test]
    async fn a_database_that_was_put_back_is_told_until_its_files_are_recovered() {
        let root = tempfile::tempdir().expect("a folder");
        let local = Local::open(root.path(), LocalOptions::default()).expect("opens");
        let journal = SqliteJournal::open(&local).expect("opens");
        let queue = local.files_queue();
        let is_said = || super::was_put_back(&local, &journal, &IsGone(false));
        let announced = announce(&*queue, 1).await;
        let recovered = journal.set(LOST_IS_RECOVERED, "1").await;
        recovered.expect("recorded");
        assert!(!is_said().await);
        // Later than the message, by the clock of a slow file system too.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let later = FileVersion::new("files", announced.epoch() + 1, 1.into());
        let appended = local.stream().append(vec![record(later)]).await;
        appended.expect("appended");
        assert!(is_said().await);
        announce(&*queue, 2).await;
        assert!(is_said().await, "although messages were sent since");
        let now = runtime::now_millis() + 1;
        let recovered = journal.set(LOST_IS_RECOVERED, &now.to_string()).await;
        recovered.expect("recorded");
        assert!(!is_said().await);
    }

    #[tokio::test]
    async fn files_of_a_lost_database_are_told_until_they_are_known_or_recovered() {
        let root = tempfile::tempdir().expect("a folder");
        let open = || Local::open(root.path(), LocalOptions::default()).expect("opens");
        let local = open();
        let announced = announce(&*local.files_queue(), 1).await;
        let record = record(announced);
        let stream = local.stream();
        stream.append(vec![record]).await.expect("appended");
        let journal = SqliteJournal::open(&local).expect("opens");
        assert!(!is_lost(&local, &journal).await);
        drop((journal, stream, local));
        for ending in ["", "-wal", "-shm"] {
            let path = root.path().join(format!("streampress.db{ending}"));
            let _ = std::fs::remove_file(path);
        }
        // An emptied one is lost too.
        std::fs::write(root.path().join("streampress.db"), "").expect("written");
        assert!(!Local::exists(root.path()));
        let local = open();
        let journal = SqliteJournal::open(&local).expect("opens");
        for number in 2..4 {
            assert!(!was_put_back(&local).await && is_lost(&local, &journal).await);
            announce(&*local.files_queue(), number).await;
        }
        let recovered = journal.set(LOST_IS_RECOVERED, "1").await;
        recovered.expect("recorded");
        assert!(!is_lost(&local, &journal).await);
    }

    #[tokio::test]
    async fn versions_that_were_never_announced_tell_that_the_database_was_put_back() {
        let root = tempfile::tempdir().expect("a folder");
        let local = Local::open(root.path(), LocalOptions::default()).expect("opens");
        let (queue, stream) = (local.files_queue(), local.stream());
        assert!(!was_put_back(&local).await, "an empty folder");
        let announced = announce(&*queue, 1).await;
        // Packed by a worker that was killed before it sent the manifest, or by a database before this one.
        let earlier = FileVersion::new("files", announced.epoch() - 1, u64::MAX.into());
        let others = FileVersion::new("other", announced.epoch() + 1, 1.into());
        for known in [announced.clone(), earlier, others] {
            // Later than the message, by the clock of a slow file system too.
            tokio::time::sleep(Duration::from_millis(20)).await;
            stream.append(vec![record(known)]).await.expect("appended");
            assert!(!was_put_back(&local).await);
        }
        let number: u64 = announced.sequence().as_str().parse().expect("a number");
        let lost = FileVersion::new("files", announced.epoch(), (number + 1).into());
        stream.append(vec![record(lost)]).await.expect("appended");
        assert!(was_put_back(&local).await);
        announce(&*queue, 2).await;
        assert!(!was_put_back(&local).await, "not known any more");
        let of_later_database = FileVersion::new("files", announced.epoch() + 1, 1.into());
        // As above.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let record = record(of_later_database);
        stream.append(vec![record]).await.expect("appended");
        assert!(was_put_back(&local).await);
    }
}
