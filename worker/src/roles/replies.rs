//! Replies to a `submit --wait` whose source is not a data folder: a small file at the source, which the compressor that
//! takes the receipt writes and the waiting process removes.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use crate::consume::HandlerError;
use crate::journal::SourceState;
use crate::message::SourceObservation;
use crate::roles::announce::Announcer;
use crate::runtime::{self, blocking};
use streampress_transport::{FileName, Files, ReservedEntry};

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
struct Reply {
    state: SourceState,
}

fn name(announcement: &str) -> io::Result<FileName> {
    ReservedEntry::Replies.file(announcement)
}

/// Leaves a reply where the announcement wants one. The same twice has the same effect as once.
pub(crate) async fn leave(
    announcer: &Announcer,
    observed: Option<&SourceObservation>,
    state: SourceState,
) -> Result<(), HandlerError> {
    let Some(observed) = observed.filter(|it| it.wants_reply) else {
        return Ok(());
    };
    let (source, announcement) = (announcer.source.clone(), observed.announcement.clone());
    let written = blocking(move || -> io::Result<()> {
        let mut pending = source.create(&name(&announcement)?)?;
        pending.write_all(&serde_json::to_vec(&Reply { state })?)?;
        pending.commit(runtime::now())
    });
    written
        .await
        .map_err(|error| HandlerError::transient(error, "leaving a reply at the source"))
}

/// Takes the reply to an announcement; `None` where there is none yet.
pub(crate) fn take(source: &dyn Files, announcement: &str) -> io::Result<Option<SourceState>> {
    let (name, mut json) = (name(announcement)?, Vec::new());
    match source.read(&name) {
        Ok(mut reader) => reader.read_to_end(&mut json)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let reply: Reply = serde_json::from_slice(&json)?;
    source.remove(&name)?;
    Ok(Some(reply.state))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use streampress_transport::local::files::LocalFiles;
    use streampress_transport::local::{Local, LocalOptions};

    use super::*;
    use crate::journal::NoJournal;
    use crate::roles::announce::AnnouncementFormat;

    #[tokio::test]
    async fn a_reply_is_left_where_it_is_wanted_and_is_taken_once() {
        let root = tempfile::tempdir().expect("a folder");
        let local = Local::open(&root.path().join("data"), LocalOptions::default());
        let folder = root.path().join("in");
        let source = LocalFiles::open("file:///data/in", &folder).expect("opens");
        let announcer = Announcer {
            source: Arc::new(source),
            files_queue: local.expect("opens").files_queue(),
            strict: false,
            format: AnnouncementFormat::Native,
            journal: Arc::new(NoJournal),
        };
        for wants_reply in [false, true] {
            let observed = SourceObservation {
                announcement: "a1".into(),
                fingerprint: "f".into(),
                is_settled: false,
                wants_reply,
            };
            let left = leave(&announcer, Some(&observed), SourceState::Superseded).await;
            left.expect("left");
            let taken = take(&*announcer.source, "a1").expect("read");
            assert_eq!(taken, wants_reply.then_some(SourceState::Superseded));
        }
        assert_eq!(take(&*announcer.source, "a1").expect("read"), None);
    }
}
