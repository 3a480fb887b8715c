//! Whose a location is. A small file at a destination names the pipeline that restores to it, so that two pipelines never replace
//! each other's files: the first one writes it, and any other is refused until the file is removed. Another one at a source names
//! the pipeline whose journal lies there: what that pipeline announced would count as announced by any other.
//!
//! A pipeline is its namespace and name: it keeps its destination when it is deleted and applied again, or its queues are
//! made anew.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use streampress_crds::slot_health::{NeededService, OutageKind};
use streampress_transport::{FileName, Files, ReservedEntry};
use tokio::time::Instant;

use crate::consume::ServiceOutage;
use crate::runtime::{self, blocking};

/// Another owner is noticed within this time.
const CHECKED_EVERY: Duration = Duration::from_secs(60);
/// The file is some dozen bytes.
const LONGEST_FILE_BYTES: u64 = 4 << 10;
/// The file may come or go between two steps, so often in a row.
const TRIES: u32 = 3;

/// The content of the owner's file.
#[derive(Debug, Serialize, Deserialize)]
struct OwnerFile {
    /// Namespace and name.
    pipeline: String,
}

/// The pipeline that a location must belong to. Clones share what was found.
#[derive(Debug, Clone)]
pub(crate) struct LocationOwner {
    pipeline: Arc<str>,
    /// Where the location is for who types a command: a bucket's URL or a folder.
    place: Arc<str>,
    /// A source or a destination.
    service: NeededService,
    /// Since when it is known that the location is this pipeline's.
    confirmed_at: Arc<Mutex<Option<Instant>>>,
}

/// Why a destination cannot be used by a pipeline.
#[derive(Debug)]
pub(crate) enum OwnerError {
    /// The pipeline of this name owns it.
    Other(String),
    /// Its owner's file names no pipeline.
    Unreadable,
    /// Its owner's file cannot be read or written.
    Io(io::Error),
}

impl LocationOwner {
    /// The pipeline of this namespace and name, whose destination, or source that it scans, is at `place`.
    pub(crate) fn new(
        service: NeededService,
        (namespace, name): (&str, &str),
        place: &str,
    ) -> Self {
        Self {
            pipeline: format!("{namespace}/{name}").into(),
            place: place.into(),
            service,
            confirmed_at: Arc::default(),
        }
    }

    /// As [`Self::confirm`], at most once a minute.
    pub(super) async fn ensure(&self, files: &Arc<dyn Files>) -> Result<(), OwnerError> {
        let confirmed = *self.confirmed_at.lock();
        match confirmed.is_some_and(|at| at.elapsed() < CHECKED_EVERY) {
            true => Ok(()),
            false => self.confirm(files).await,
        }
    }

    /// Looks whose the location is; one without an owner is this pipeline's from now on.
    pub(crate) async fn confirm(&self, files: &Arc<dyn Files>) -> Result<(), OwnerError> {
        let (files, pipeline, name) = (files.clone(), self.pipeline.clone(), self.file());
        let claimed = blocking(move || claim(&*files, &name?, &pipeline)).await;
        *self.confirmed_at.lock() = claimed.is_ok().then(Instant::now);
        claimed
    }

    fn removal(&self) -> String {
        let entry = match self.service {
            NeededService::Source => ReservedEntry::Sources,
            _ => ReservedEntry::Owner,
        };
        removal(&self.place, entry)
    }

    /// The owner's file.
    fn file(&self) -> io::Result<FileName> {
        match self.service {
            NeededService::Source => ReservedEntry::Sources.file("owner.json"),
            _ => ReservedEntry::Owner.file(""),
        }
    }

    /// The outage of a location that is not this pipeline's. It says what to type.
    pub(crate) fn outage(&self, files: &dyn Files, error: &OwnerError) -> ServiceOutage {
        let (location, removal) = (files.location(), self.removal());
        let cause = match error {
            OwnerError::Other(other) if self.service == NeededService::Source => format!(
                "{location} is scanned by the pipeline {other}, and what that announced would count as announced by this one; use another source, or, where {other} is gone, this announces every file anew: {removal}"
            ),
            OwnerError::Other(other) => format!(
                "{location} belongs to the pipeline {other}; use another destination, or, where {other} restores nothing there any more: {removal}"
            ),
            OwnerError::Unreadable => format!(
                "the file that names the pipeline of {location} is damaged; if it is this pipeline's: {removal}"
            ),
            OwnerError::Io(error) => return ServiceOutage::new(self.service, error),
        };
        ServiceOutage {
            service: self.service,
            kind: OutageKind::OwnedByAnother,
            cause,
        }
    }
}

/// The command that gives a place free, by removing a file, or a folder with all in it.
fn removal(place: &str, entry: ReservedEntry) -> String {
    let is_folder = entry == ReservedEntry::Sources;
    let command = match (place.starts_with("s3://"), is_folder) {
        (true, false) => "aws s3 rm",
        (true, true) => "aws s3 rm --recursive",
        (false, false) => "rm",
        (false, true) => "rm -r",
    };
    let place = place.trim_end_matches('/').replace('\'', r"'\''");
    format!("{command} '{place}/{}'", entry.path())
}

/// Makes the location this pipeline's where it has no owner.
fn claim(files: &dyn Files, name: &FileName, pipeline: &str) -> Result<(), OwnerError> {
    let mut tries = TRIES;
    loop {
        tries -= 1;
        match try_to_claim(files, name, pipeline) {
            Err(OwnerError::Io(error)) if tries > 0 && may_differ_next_time(&error) => {}
            claimed => return claimed,
        }
    }
}

/// Another worker wrote or removed the file since it was looked for.
fn may_differ_next_time(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound
    )
}

fn try_to_claim(files: &dyn Files, name: &FileName, pipeline: &str) -> Result<(), OwnerError> {
    let seen = files.stat(name)?;
    if seen.is_some() {
        let mut json = Vec::new();
        let file = files.read(name)?;
        file.take(LONGEST_FILE_BYTES).read_to_end(&mut json)?;
        match serde_json::from_slice::<OwnerFile>(&json) {
            Ok(owner) if owner.pipeline == pipeline => return Ok(()),
            Ok(owner) => return Err(OwnerError::Other(owner.pipeline)),
            // It may have been another's: no pipeline takes the destination by an accident.
            Err(_) => return Err(OwnerError::Unreadable),
        }
    }
    let owner = OwnerFile {
        pipeline: pipeline.to_owned(),
    };
    let mut json = serde_json::to_vec(&owner).map_err(io::Error::other)?;
    json.push(b'\n');
    let mut pending = files.create(name)?;
    pending.write_all(&json)?;
    pending.commit_over(runtime::now(), seen.as_ref())?;
    Ok(())
}

impl From<io::Error> for OwnerError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

#[cfg(test)]
mod tests {
    use streampress_transport::local::files::LocalFiles;

    use super::*;

    fn owner_file() -> FileName {
        ReservedEntry::Owner.file("").expect("a valid name")
    }

    fn other(claimed: Result<(), OwnerError>) -> Option<String> {
        match claimed {
            Ok(()) => None,
            Err(OwnerError::Other(owner)) => Some(owner),
            Err(error) => panic!("{error:?}"),
        }
    }

    #[test]
    fn a_destination_is_the_first_pipelines_until_its_file_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = LocalFiles::open("file:///out", folder.path()).expect("opens");
        for _ in 0..2 {
            assert_eq!(other(claim(&files, &owner_file(), "sales/shop")), None);
            assert_eq!(
                other(claim(&files, &owner_file(), "sales/other")).as_deref(),
                Some("sales/shop")
            );
        }
        let place = folder.path().display().to_string();
        let owner = LocationOwner::new(NeededService::Destination, ("sales", "other"), &place);
        let said = owner
            .outage(&files, &OwnerError::Other("sales/shop".into()))
            .cause;
        let command = said.rsplit(": ").next().expect("a command");
        let typed = std::process::Command::new("sh")
            .args(["-c", command])
            .status();
        assert!(typed.expect("runs").success(), "{command}");
        assert_eq!(other(claim(&files, &owner_file(), "sales/other")), None);
        assert_eq!(
            other(claim(&files, &owner_file(), "sales/shop")).as_deref(),
            Some("sales/other")
        );
    }

    #[test]
    fn a_damaged_file_gives_the_destination_to_no_pipeline() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = LocalFiles::open("file:///out", folder.path()).expect("opens");
        let path = folder.path().join(ReservedEntry::Owner.path());
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, "").expect("written");
        let refused = claim(&files, &owner_file(), "sales/shop").expect_err("it may be another's");
        assert!(matches!(refused, OwnerError::Unreadable), "{refused:?}");
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(other(claim(&files, &owner_file(), "sales/shop")), None);
        let text = std::fs::read_to_string(&path).expect("read");
        assert_eq!(text, "{\"pipeline\":\"sales/shop\"}\n");
    }

    #[test]
    fn what_frees_a_destination_is_one_command() {
        for (place, command) in [
            ("/mnt/out", "rm '/mnt/out/.streampress/owner.json'"),
            (
                "s3://bucket/a prefix/",
                "aws s3 rm 's3://bucket/a prefix/.streampress/owner.json'",
            ),
            ("/it's", r"rm '/it'\''s/.streampress/owner.json'"),
            (
                "s3://bucket",
                "aws s3 rm 's3://bucket/.streampress/owner.json'",
            ),
        ] {
            assert_eq!(removal(place, ReservedEntry::Owner), command);
        }
    }
}
