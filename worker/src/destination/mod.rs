//! The destination of restored files: which version of a file stays there, and how it gets there.
//!
//! `decide` has the rule, as one pure function. `journal` says what is kept of every name, so that the rule holds when a
//! restored file was moved away, touched or edited; `files_journal` keeps it at the destination itself, `sqlite_journal`
//! in a data folder. `own_versions` finds what a journal that was put back to an earlier state has lost. `locks` lets one worker at a time change a name. `owner` keeps other pipelines away.

mod decide;
mod files_journal;
mod journal;
mod locks;
mod own_versions;
mod owner;
mod sqlite_journal;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use tracing::{info, warn};

use self::decide::{Decision, decide};
pub use self::decide::{EntryState, JournalEntry};
pub use self::files_journal::FilesJournal;
pub use self::journal::{DestinationJournal, StoredEntry};
pub use self::locks::{NameLock, NameLocks};
use self::own_versions::OwnVersions;
pub(crate) use self::owner::{LocationOwner, OwnerError};
pub use self::sqlite_journal::DatabaseJournal;
use crate::consume::{HandlerError, MessageContext, ServiceOutage};
use crate::message::{DeadLetterReason, Digest, FileRef, REDRIVE_COMMAND, SourceObservation, hash};
use crate::runtime::{self, CLOCK_TICK, blocking};
use streampress_transport::{
    ChunkStream, FileEntry, FileName, FileVersion, Files, PendingFile, ReservedEntry,
    TransportResult,
};

/// Where others' files go that had the name of a restored file.
const DISPLACED: ReservedEntry = ReservedEntry::Displaced;
/// The most files in it. Nothing in it is ever removed by Streampress.
const MOST_DISPLACED: usize = 10_000;
/// How much of a displaced file's own name its new name has, in bytes.
const LONGEST_STEM_BYTES: usize = 100;

/// A version of a file that is to be at the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name there.
    pub name: FileName,
    /// The version that was announced.
    pub version: FileVersion,
    /// Hash of its content.
    pub hash: Digest,
    /// Its size in bytes.
    pub bytes: u64,
    /// The modification time that it gets, nanoseconds since 1970.
    pub modified_nanos: u64,
    /// Hash of the file that was announced, where the content is its normal form.
    pub original: Option<Digest>,
    /// The fingerprint that the announced file had in its folder, where it comes from one.
    pub source_fingerprint: Option<String>,
}

impl Wanted {
    /// This version of an announced file, as it was `observed` at its source.
    pub fn new(file: &FileRef, version: FileVersion, observed: Option<&SourceObservation>) -> Self {
        let observed = observed.filter(|_| is_folder(&file.location));
        Self {
            source_fingerprint: observed.map(|observed| observed.fingerprint.clone()),
            name: file.name.clone(),
            version,
            hash: file.hash.clone(),
            bytes: file.bytes,
            modified_nanos: file.modified_nanos,
            original: None,
        }
    }
}

/// Whether a location is a folder, and no bucket.
pub(crate) fn is_folder(location: &str) -> bool {
    location.starts_with("file:")
}

/// What became of a wanted version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlacedVersion {
    /// It is to be written, and no content was given.
    NeedsContent,
    /// It was written and is visible.
    Written,
    /// Its bytes lay there, as another version's or another program's: they are this version's now.
    Adopted,
    /// It was placed before; or it was, and others changed it since.
    InPlace,
    /// A newer version was visible there before.
    Superseded,
}

/// A location that files are restored to, with the journal of what was restored there.
#[derive(Debug, Clone)]
pub struct Destination {
    files: Arc<dyn Files>,
    journal: Arc<dyn DestinationJournal>,
    /// Whose it must be; `None` where no other pipeline can restore to it.
    owner: Option<LocationOwner>,
    /// What the journal may have lost; `None` where it cannot be told.
    own_versions: Option<OwnVersions>,
}

/// What the destination holds under a name.
struct NameState {
    stored: Option<StoredEntry>,
    present: Option<(FileEntry, Digest)>,
}

impl NameState {
    fn entry(&self) -> Option<&JournalEntry> {
        self.stored.as_ref().map(|stored| &stored.entry)
    }

    fn hash(&self) -> Option<&Digest> {
        self.present.as_ref().map(|(_, hash)| hash)
    }

    fn file(&self) -> Option<&FileEntry> {
        self.present.as_ref().map(|(file, _)| file)
    }
}

impl Destination {
    /// Where the files are.
    pub(crate) fn files(&self) -> &Arc<dyn Files> {
        &self.files
    }

    /// A location whose journal is kept elsewhere.
    pub fn new(files: Arc<dyn Files>, journal: Arc<dyn DestinationJournal>) -> Self {
        Self {
            files,
            journal,
            owner: None,
            own_versions: None,
        }
    }

    /// The same with a journal that may be put back to an earlier state without the stream.
    pub fn with_stream(self, stream: Arc<dyn ChunkStream>) -> Self {
        let own_versions = Some(OwnVersions::new(stream));
        Self {
            own_versions,
            ..self
        }
    }

    /// The same for one pipeline alone: another pipeline's location is refused, and one without an owner becomes this one's.
    pub(crate) fn owned_by(self, owner: LocationOwner) -> Self {
        Self {
            owner: Some(owner),
            ..self
        }
    }

    /// Looks whether the location belongs to another pipeline.
    pub(crate) async fn confirm_owner(&self) -> Result<(), ServiceOutage> {
        let Some(owner) = &self.owner else {
            return Ok(());
        };
        let confirmed = owner.confirm(&self.files).await;
        confirmed.map_err(|error| owner.outage(&*self.files, &error))
    }

    /// The same before work on a file; looks again only after a while.
    async fn ensure_owned(&self) -> Result<(), HandlerError> {
        let Some(owner) = &self.owner else {
            return Ok(());
        };
        let ensured = owner.ensure(&self.files).await;
        ensured.map_err(|error| match error {
            OwnerError::Other(_) | OwnerError::Unreadable => {
                HandlerError::Outage(owner.outage(&*self.files, &error))
            }
            // No fault of the file, whatever it is.
            OwnerError::Io(error) => {
                HandlerError::transient(error, "looking whose the destination is")
            }
        })
    }

    /// A location that keeps its journal itself. `folder` is its folder on this machine or on a shared volume; a bucket
    /// has none, and its conditional writes keep workers apart.
    pub fn with_own_journal(files: Arc<dyn Files>, folder: Option<&Path>) -> Self {
        let locks = folder.map(NameLocks::in_location);
        let journal = Arc::new(FilesJournal::new(files.clone(), locks));
        Self::new(files, journal)
    }

    /// Its journal.
    pub fn journal(&self) -> &dyn DestinationJournal {
        &*self.journal
    }

    /// Begins to write the wanted version; nothing is visible before [`Destination::place`]. Blocking.
    pub fn create(&self, wanted: &Wanted) -> io::Result<Box<dyn PendingFile>> {
        let modified = runtime::from_nanos(wanted.modified_nanos);
        self.files.create_version(&wanted.name, modified)
    }

    /// Whether content has to be fetched and unpacked for the wanted version. A later [`Destination::place`] decides.
    pub(crate) async fn needs_content(&self, wanted: &Wanted) -> Result<bool, HandlerError> {
        if wanted.name.is_reserved() {
            return Err(bad_name(
                wanted,
                "lies in a folder that is reserved for Streampress",
            ));
        }
        self.ensure_owned().await?;
        let found = self.find(wanted).await?;
        let decision = decide(found.entry(), wanted, found.hash());
        Ok(matches!(decision, Decision::Write { .. }))
    }

    /// Decides what is visible under the name: the wanted version with this content, or what is there. The content must
    /// have been checked. Holds the name's lock, so that of two workers with two versions the newer one's stays.
    pub async fn place(
        &self,
        wanted: &Wanted,
        content: Option<Box<dyn PendingFile>>,
        context: MessageContext<'_>,
    ) -> Result<PlacedVersion, HandlerError> {
        context.or_stop(self.ensure_owned()).await?;
        let locking = async {
            let lock = self.journal.lock(&wanted.name).await;
            lock.map_err(|error| fault(error, "locking the name of", wanted))
        };
        let _lock = context.or_stop(locking).await?;
        let found = self.find(wanted).await?;
        let deciding = self.decide_among_all(wanted, &found);
        match context.or_stop(deciding).await? {
            Decision::Superseded => Ok(PlacedVersion::Superseded),
            Decision::InPlace => Ok(PlacedVersion::InPlace),
            Decision::LeaveChanged => {
                info!(
                    "The restored file was changed at the destination since; it is left as it is."
                );
                Ok(PlacedVersion::InPlace)
            }
            Decision::Adopt => {
                context.ensure_owner()?;
                self.adopt(wanted, found).await?;
                Ok(PlacedVersion::Adopted)
            }
            Decision::Write { displaces } => match content {
                Some(content) => {
                    self.write(wanted, content, found, displaces, context)
                        .await?;
                    Ok(PlacedVersion::Written)
                }
                None => Ok(PlacedVersion::NeedsContent),
            },
        }
    }

    /// The decision, also by a version that the journal has lost.
    async fn decide_among_all(
        &self,
        wanted: &Wanted,
        found: &NameState,
    ) -> Result<Decision, HandlerError> {
        let decision = decide(found.entry(), wanted, found.hash());
        let (Decision::Write { displaces: true }, Some(hash)) = (decision, found.hash()) else {
            return Ok(decision);
        };
        let own = self.lost_entry(&wanted.name, hash).await?;
        Ok(match &own {
            Some(own) => decide(Some(own), wanted, Some(hash)),
            None => decision,
        })
    }

    /// The entry of this content, if it is a newer version of the name that the journal has lost.
    async fn lost_entry(
        &self,
        name: &FileName,
        hash: &Digest,
    ) -> TransportResult<Option<JournalEntry>> {
        match &self.own_versions {
            Some(own) => own.find(&*self.journal, name, hash).await,
            None => Ok(None),
        }
    }

    /// Whether the file of this name is a newer version than the journal knows.
    pub(crate) async fn has_lost_version(&self, name: &FileName) -> anyhow::Result<bool> {
        let (files, reading) = (self.files.clone(), name.clone());
        let hash = blocking(move || hash(files.read(&reading)?)).await?.0;
        Ok(self.lost_entry(name, &hash).await?.is_some())
    }

    /// What the journal and the location hold under the name. The content of a file is read only where its fingerprint
    /// is not the one that it had when it was made visible.
    async fn find(&self, wanted: &Wanted) -> Result<NameState, HandlerError> {
        let stored = self.journal.load(&wanted.name).await?;
        let known = stored.as_ref().map(|stored| stored.entry.clone());
        let (files, name) = (self.files.clone(), wanted.name.clone());
        let looking = blocking(move || -> io::Result<Option<(FileEntry, Digest)>> {
            let Some(file) = files.stat(&name)? else {
                return Ok(None);
            };
            let unchanged =
                known.filter(|entry| entry.fingerprint.as_ref() == Some(&file.fingerprint));
            let hash = match unchanged {
                Some(entry) => entry.hash,
                None => hash(files.read(&name)?)?.0,
            };
            Ok(Some((file, hash)))
        });
        let present = match looking.await {
            Ok(present) => present,
            // Removed since it was seen.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(fault(error, "reading the restored", wanted)),
        };
        let found = NameState { stored, present };
        match found.file() {
            Some(file) if self.is_source(file, wanted) => Err(bad_name(
                wanted,
                "its own source lies there: both folders are one by a link or a mount, or the file is a hard link to its source",
            )),
            Some(_) | None => Ok(found),
        }
    }

    /// Whether the file is the source itself: its fingerprint has its inode and the times of its changes.
    fn is_source(&self, file: &FileEntry, wanted: &Wanted) -> bool {
        wanted.source_fingerprint.as_ref() == Some(&file.fingerprint)
            && is_folder(self.files.location())
    }

    /// The content is there and not ours by the journal: an earlier release wrote it, a worker that was killed, or another
    /// program the same bytes.
    async fn adopt(&self, wanted: &Wanted, found: NameState) -> Result<(), HandlerError> {
        let Some((seen, hash)) = found.present else {
            return Err(HandlerError::Interrupted);
        };
        let (files, modified) = (
            self.files.clone(),
            runtime::from_nanos(wanted.modified_nanos),
        );
        let file = blocking(move || adopt_file(&*files, &seen, &hash, modified))
            .await
            .map_err(|error| fault(error, "adopting", wanted))?;
        let visible = JournalEntry::visible(wanted, proof(file));
        self.journal
            .store(&wanted.name, &visible, found.stored.as_ref())
            .await?;
        Ok(())
    }

    /// Intent, file, entry, in this order: whenever this process ends, the next worker knows whose bytes it finds.
    async fn write(
        &self,
        wanted: &Wanted,
        mut content: Box<dyn PendingFile>,
        found: NameState,
        displaces: bool,
        context: MessageContext<'_>,
    ) -> Result<(), HandlerError> {
        context.ensure_owner()?;
        let replaced = match displaces {
            false => found.hash().cloned(),
            true => None,
        };
        // What is not seen now may be back before the file gets its name, as where the folder is away for a moment.
        let replaced = replaced.or_else(|| found.entry().and_then(JournalEntry::own_hash).cloned());
        let intent = JournalEntry::intent(wanted, replaced);
        let stored = self
            .journal
            .store(&wanted.name, &intent, found.stored.as_ref())
            .await?;
        if displaces {
            self.displace(wanted, context).await?;
        }
        let seen = found.file().filter(|_| !displaces).cloned();
        let modified = runtime::from_nanos(wanted.modified_nanos);
        // What may take long comes before the last look whether the file is still this worker's.
        let content = blocking(move || content.prepare().map(|()| content)).await;
        let content = content.map_err(|error| fault(error, "writing", wanted))?;
        context.ensure_owner()?;
        let file = blocking(move || content.commit_over(modified, seen.as_ref()))
            .await
            .map_err(|error| fault(error, "making visible", wanted))?;
        let visible = JournalEntry::visible(wanted, proof(file));
        self.journal
            .store(&wanted.name, &visible, Some(&stored))
            .await?;
        Ok(())
    }

    /// Moves what others wrote under the name out of the way.
    async fn displace(
        &self,
        wanted: &Wanted,
        context: MessageContext<'_>,
    ) -> Result<(), HandlerError> {
        let (files, name) = (self.files.clone(), wanted.name.clone());
        let displacing = blocking(move || -> io::Result<FileName> {
            let count = files.list_reserved(&DISPLACED.file("")?)?.len();
            if count >= MOST_DISPLACED {
                return Err(io::Error::other(format!(
                    "{} already holds {count} files; look through them and remove what is not needed",
                    DISPLACED.path()
                )));
            }
            let target = displaced_name(&name, runtime::now_millis(), runtime::random_u64())?;
            files.rename(&name, &target)?;
            Ok(target)
        });
        match displacing.await {
            Ok(target) => {
                context.meter.displaced();
                warn!(
                    moved_to = target.as_str(),
                    "The name of a restored file held other bytes than those that the journal has as restored there last; moved them away."
                );
                Ok(())
            }
            // Removed since it was seen.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(fault(error, "moving a file out of the way of", wanted)),
        }
    }
}

/// Gives the file the version's modification time; answers the file with the new time. An error where it is not the file
/// that was seen any more: another program may write into it at any moment, and its bytes must not count as ours.
fn adopt_file(
    files: &dyn Files,
    seen: &FileEntry,
    hash_seen: &Digest,
    modified: SystemTime,
) -> io::Result<FileEntry> {
    let stat = || files.stat(&seen.name)?.ok_or_else(|| changed(seen));
    if stat()?.fingerprint != seen.fingerprint {
        return Err(changed(seen));
    }
    files.set_modified(&seen.name, modified)?;
    let file = stat()?;
    // The new fingerprint may be another program's doing. Where the time is not set, as in a bucket, it is the same.
    if file.fingerprint != seen.fingerprint && hash(files.read(&seen.name)?)?.0 != *hash_seen {
        return Err(changed(seen));
    }
    Ok(file)
}

fn changed(seen: &FileEntry) -> io::Error {
    let why = format!("another program changes {} at this moment", seen.name);
    io::Error::new(io::ErrorKind::AlreadyExists, why)
}

/// The fingerprint of a file that was just made visible, where it proves the content from now on. Another program's write
/// in place of as many bytes changes nothing of it but the times. It always changes the change time, unless it comes within
/// the same tick of the file system's clock; then it still changes the modification time from the version's to the present,
/// unless those are within a tick, too. Without a proof the file is read again when the next version comes.
///
/// What remains is a program that writes as many bytes within the same tick and sets the modification time back: nothing
/// but the bytes could tell that, which would have to be read again for each version that replaces another.
fn proof(file: FileEntry) -> Option<String> {
    let is_proof = file.changed.is_none_or(|changed| {
        let ahead = file.modified.duration_since(changed);
        ahead.unwrap_or_else(|behind| behind.duration()) >= CLOCK_TICK
    });
    is_proof.then_some(file.fingerprint)
}

/// A name of its own and of bounded length for a displaced file.
fn displaced_name(name: &FileName, millis: u64, random: u64) -> io::Result<FileName> {
    let base = name.as_str().rsplit('/').next().unwrap_or_default();
    let stem = &base[..base.floor_char_boundary(LONGEST_STEM_BYTES)];
    DISPLACED.file(&format!("{millis}-{random:016x}-{stem}"))
}

/// A fault at the destination. What lies in the way of the name stays there at every attempt.
pub(crate) fn fault(error: io::Error, step: &str, wanted: &Wanted) -> HandlerError {
    match error.kind() {
        io::ErrorKind::InvalidInput
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::NotADirectory => bad_name(wanted, &error.to_string()),
        _ => HandlerError::transient(error, format!("{step} {}", wanted.name)),
    }
}

/// The dead letter of a file that cannot have its name at the destination.
fn bad_name(wanted: &Wanted, why: &str) -> HandlerError {
    let detail = format!(
        "{} cannot be restored under its name: {why}; make the name free, then {REDRIVE_COMMAND}",
        wanted.name
    );
    HandlerError::permanent(DeadLetterReason::BadName, detail)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use streampress_transport::local::files::LocalFiles;

    use super::*;

    fn file(modified: u64, changed: Option<u64>) -> FileEntry {
        let time = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        FileEntry {
            name: FileName::parse("a.csv").expect("a valid name"),
            size: 1,
            modified: time(modified),
            fingerprint: "f".into(),
            changed: changed.map(time),
        }
    }

    #[test]
    fn a_fingerprint_proves_nothing_where_a_write_in_place_would_leave_it_as_it_is() {
        for (modified, changed, proves) in [
            (5000, Some(5000), false),
            (5000, Some(6999), false),
            (6999, Some(5000), false),
            (5000, Some(7000), true),
            (7000, Some(5000), true),
            (5000, None, true),
        ] {
            let proof = proof(file(modified, changed));
            assert_eq!(proof.is_some(), proves, "{modified} {changed:?}");
        }
    }

    #[test]
    fn a_file_that_another_program_writes_into_is_not_adopted() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = LocalFiles::open("file:///out", folder.path()).expect("opens");
        let write = |content: &str| {
            std::fs::write(folder.path().join("a.csv"), content).expect("written");
            let name = FileName::parse("a.csv").expect("a valid name");
            files.stat(&name).expect("read").expect("there")
        };
        let time = UNIX_EPOCH + Duration::from_secs(1000);
        let (seen, ours) = (write("ours"), Digest::of(b"ours"));
        let adopted = adopt_file(&files, &seen, &ours, time).expect("adopted");
        assert_eq!(adopted.modified, time);
        write("much more");
        let refused = adopt_file(&files, &adopted, &ours, time);
        let kind = refused.map_err(|error| error.kind());
        assert_eq!(kind, Err(io::ErrorKind::AlreadyExists));
        // The same fingerprint, but not the bytes that were seen: they were written between both.
        let raced = write("more");
        let refused = adopt_file(&files, &raced, &ours, time);
        let kind = refused.map_err(|error| error.kind());
        assert_eq!(kind, Err(io::ErrorKind::AlreadyExists));
    }

    #[test]
    fn a_displaced_file_has_a_name_that_is_valid_and_reserved() {
        for name in ["a.csv", "deep/er/b.json", &"ü".repeat(127)] {
            let name = FileName::parse(name).expect("a valid name");
            let displaced = displaced_name(&name, u64::MAX, u64::MAX).expect("a valid name");
            assert!(displaced.is_ours(), "{displaced}");
        }
        let name = FileName::parse("deep/a.csv").expect("a valid name");
        assert_eq!(
            displaced_name(&name, 5, 255)
                .expect("a valid name")
                .as_str(),
            ".streampress/displaced/5-00000000000000ff-a.csv"
        );
    }
}
