//! The contract of a location that holds files.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// The folder in a location that holds what Streampress itself keeps there. No listing shows what is in it.
pub const RESERVED_FOLDER: &str = ".streampress";
/// How the names of files and folders begin that Streampress keeps beside others for a while.
pub const TEMPORARY_PREFIX: &str = ".streampress-";

/// What lies in the place of a folder's [`RESERVED_FOLDER`] and is no folder.
pub fn in_place_of_reserved(folder: &Path) -> Option<PathBuf> {
    let reserved = folder.join(RESERVED_FOLDER);
    let found = std::fs::metadata(&reserved).ok()?;
    (!found.is_dir()).then_some(reserved)
}

/// What Streampress keeps in a [`RESERVED_FOLDER`]: whatever it writes there has a name that is made here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReservedEntry {
    /// The folder of what others wrote under the name of a restored file.
    Displaced,
    /// The folder of a destination's journal.
    Journal,
    /// The folder of the locks of names.
    Locks,
    /// The file that names the pipeline of a destination.
    Owner,
    /// What a probe writes.
    Probe,
    /// The folder of replies to `submit --wait`.
    Replies,
    /// The folder of a source's journal.
    Sources,
}

impl ReservedEntry {
    const ALL: [Self; 7] = [
        Self::Displaced,
        Self::Journal,
        Self::Locks,
        Self::Owner,
        Self::Probe,
        Self::Replies,
        Self::Sources,
    ];

    /// Its name in the reserved folder.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Displaced => "displaced",
            Self::Journal => "journal",
            Self::Locks => "locks",
            Self::Owner => "owner.json",
            Self::Probe => "probe",
            Self::Replies => "replies",
            Self::Sources => "sources",
        }
    }

    /// Relative to its location, as text.
    pub fn path(self) -> String {
        format!("{RESERVED_FOLDER}/{}", self.name())
    }

    /// The name of what is `below` it; of itself where that is empty.
    pub fn file(self, below: &str) -> io::Result<FileName> {
        let path = match below {
            "" => self.path(),
            below => format!("{}/{below}", self.path()),
        };
        let invalid = |why| io::Error::new(io::ErrorKind::InvalidInput, why);
        FileName::parse(&path).map_err(invalid)
    }

    /// The name of a probe's file, which no other probe has.
    pub(crate) fn random_probe() -> FileName {
        FileName(format!("{}-{:016x}", Self::Probe.path(), fastrand::u64(..)))
    }

    /// Whether Streampress keeps something of this name in a reserved folder.
    pub(crate) fn is_kept(name: &str) -> bool {
        let probe = Self::Probe.name();
        name.starts_with(probe) || Self::ALL.iter().any(|entry| entry.name() == name)
    }
}

/// Why a listing leaves out what others put into a reserved folder.
pub(crate) const NOT_OURS: &str = "lies in a folder .streampress, a name that is reserved for Streampress: move it out, or rename \
                                   the folder if all in it is yours";

/// A file at a location, as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Relative to its location, `/` between folders.
    pub name: FileName,
    /// Bytes.
    pub size: u64,
    /// The modification time. It is kept as metadata and says nothing of which version is newer.
    pub modified: SystemTime,
    /// Changes with every change of the file: inode, size, modification and change time of a local file, the ETag of an
    /// object. Text of at most some hundred bytes, compared and never interpreted.
    pub fingerprint: String,
    /// When the bytes or metadata of a local file last changed, by its file system's clock. A write within the same tick
    /// leaves no trace in the fingerprint. `None` where every change of the bytes changes the fingerprint.
    pub changed: Option<SystemTime>,
}

/// What lies at a location.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// In name order.
    pub files: Vec<FileEntry>,
    /// What is there but cannot be handled, in name order. It never stops the rest.
    pub left_out: Vec<LeftOut>,
    /// Data folders of Streampress below the location, relative to it, in name order: nothing in them is listed.
    pub data_folders: Vec<String>,
}

/// A file or folder that a listing leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Relative to the location; what is not UTF-8 is replaced.
    pub name: String,
    /// Why, with the remedy, as a clause without a full stop.
    pub reason: String,
    /// Whether it is a folder, which may hold any number of files.
    pub is_folder: bool,
}

/// A file's name below its location: relative, `/` between folders, never leaving the location.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct FileName(String);

impl FileName {
    /// The longest name in bytes: the longest path that Linux takes, less a reserve for the location.
    pub const MAX_BYTES: usize = 3072;

    /// Refuses what could leave the location or cannot be a file: empty, absolute, `.`, `..`, empty parts, NUL,
    /// parts over 255 bytes.
    pub fn parse(name: &str) -> Result<Self, String> {
        let refuse = |why: &str| {
            Err(format!(
                "file name {name:?} {why}; give a name inside the location"
            ))
        };
        if name.is_empty() {
            return refuse("is empty");
        }
        if name.len() > Self::MAX_BYTES {
            // Without the name, which would fill the screen.
            return Err(format!(
                "the path has {} bytes, more than {}; give the file or its folders shorter names",
                name.len(),
                Self::MAX_BYTES
            ));
        }
        if name.contains('\0') {
            return refuse("has a NUL byte");
        }
        for part in name.split('/') {
            match part {
                "" => return refuse("is absolute or has an empty part"),
                "." | ".." => return refuse("has a '.' or '..' part"),
                _ if part.len() > 255 => return refuse("has a part over 255 bytes"),
                _ => {}
            }
        }
        Ok(Self(name.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it lies in a folder that Streampress keeps for itself: no file of a source or a destination.
    pub fn is_reserved(&self) -> bool {
        self.0.split('/').any(|part| part == RESERVED_FOLDER)
    }

    /// Whether the name is one that Streampress itself uses in a [`RESERVED_FOLDER`], of this location or of one below it.
    pub fn is_ours(&self) -> bool {
        let mut parts = self
            .0
            .split('/')
            .skip_while(|part| *part != RESERVED_FOLDER);
        parts.nth(1).is_some_and(ReservedEntry::is_kept)
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for FileName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// What to do where [`has_too_many_open_files`].
pub const TOO_MANY_OPEN_FILES: &str =
    "this process may have no more files open; raise its limit, as with 'ulimit -n 1024'";

/// Whether the process, or the machine, may have no more files open.
pub fn has_too_many_open_files(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    errno.is_some_and(|errno| [Errno::MFILE, Errno::NFILE].contains(&errno))
}

/// A location that holds files: a folder, or a bucket with a prefix. Blocking: call it from a blocking thread.
///
/// Contract of every implementation: a write is visible whole or not at all, and survives power loss once `commit`
/// returned; odd names (spaces, `#`, `%`, unicode, 255 bytes a part) are kept; our own unfinished files and what is in a
/// [`RESERVED_FOLDER`] are never listed, but the latter can be read and written by name. What others put there is left out.
pub trait Files: Send + Sync + fmt::Debug {
    /// The location as the user wrote it.
    fn location(&self) -> &str;
    /// All files below the location, folders within included. One that cannot be handled is named and does not stop the
    /// rest; an error means that the location itself cannot be listed.
    fn list(&self) -> io::Result<Listing>;
    /// `None` when there is no such file.
    fn stat(&self, name: &FileName) -> io::Result<Option<FileEntry>>;
    /// Reads from the start.
    fn read(&self, name: &FileName) -> io::Result<Box<dyn Read + Send>>;
    /// Begins a new version of the file; nothing is visible before [`PendingFile::commit`].
    fn create(&self, name: &FileName) -> io::Result<Box<dyn PendingFile>>;
    /// As [`Files::create`], when the modification time that `commit` will be given is known already. A large file in
    /// a bucket can carry it only from its start; without, it has the bucket's own time.
    fn create_version(
        &self,
        name: &FileName,
        modified: SystemTime,
    ) -> io::Result<Box<dyn PendingFile>> {
        let _ = modified;
        self.create(name)
    }
    /// Removes the file; no error when it is gone already.
    fn remove(&self, name: &FileName) -> io::Result<()>;
    /// Renames within the location; replaces what is there. In a bucket it copies first: an error of kind
    /// [`io::ErrorKind::AlreadyExists`] where another program replaces the file at that moment, whose bytes then stay.
    fn rename(&self, from: &FileName, to: &FileName) -> io::Result<()>;
    /// Tests whether a file of `bytes` bytes could be written now, under a name of its own that is gone afterwards.
    fn probe(&self, bytes: u64) -> io::Result<()> {
        let name = ReservedEntry::random_probe();
        let mut pending = self.create(&name)?;
        io::copy(&mut io::repeat(0).take(bytes), &mut pending)?;
        // Any time will do: the file is gone at once.
        pending.commit(SystemTime::UNIX_EPOCH)?;
        self.remove(&name)
    }
    /// The names of up to `most` files, any of them.
    fn sample(&self, most: usize) -> io::Result<Vec<FileName>> {
        let entries = self.list()?.files.into_iter();
        Ok(entries.take(most).map(|entry| entry.name).collect())
    }
    /// An error where the location itself is missing, so that nothing is known of its files: a folder may be on a disk that is
    /// not mounted.
    fn ensure_exists(&self) -> io::Result<()> {
        Ok(())
    }
    /// Puts the file of this name back where a process that has ended had set it aside, to remove or rename it.
    fn put_back(&self, name: &FileName) -> io::Result<()> {
        let _ = name;
        Ok(())
    }
    /// Sets a file's modification time where the store can do so without writing the file again.
    fn set_modified(&self, name: &FileName, modified: SystemTime) -> io::Result<()> {
        let _ = (name, modified);
        Ok(())
    }
    /// The base names of the files in the folder `folder`, which is a [`ReservedEntry`] or below one, in order.
    fn list_reserved(&self, folder: &FileName) -> io::Result<Vec<String>>;
    /// Removes the file if it is still the one that `file` describes; other bytes that came under its name stay.
    fn remove_exact(&self, file: &ExactFile<'_>) -> io::Result<ExactOutcome>;
    /// Renames the file within the location if it is still the one that `file` describes. Never replaces a file: the new name
    /// is looked at first, so that a taken one costs little.
    fn rename_exact(&self, file: &ExactFile<'_>, to: &FileName) -> io::Result<ExactOutcome>;
}

/// A file as it was observed: what may be removed or renamed, and nothing else under its name.
#[derive(Clone, Copy)]
pub struct ExactFile<'a> {
    /// The entry that was observed before its bytes were read.
    pub entry: &'a FileEntry,
    /// BLAKE3 of its bytes in lower-case hex, where the entry alone does not prove them: it had changed just before it was
    /// observed.
    pub hash: Option<&'a str>,
    /// Called again and again while its bytes are read.
    pub on_read: &'a dyn Fn(),
}

impl ExactFile<'_> {
    /// Whether what `open` opens has its bytes, as far as they must be compared.
    pub(crate) fn has_bytes<R: Read>(
        &self,
        open: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<bool> {
        let Some(hash) = self.hash else {
            return Ok(true);
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(ReadObserved {
            inner: open()?,
            on_read: self.on_read,
        })?;
        Ok(hasher.finalize().to_hex().as_str() == hash)
    }
}

/// A reader that calls `on_read` after each read.
pub struct ReadObserved<R, F> {
    /// What is read.
    pub inner: R,
    /// What is called.
    pub on_read: F,
}

impl<R: Read, F: Fn()> Read for ReadObserved<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        (self.on_read)();
        Ok(read)
    }
}

/// What became of a file that was to be removed or renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExactOutcome {
    /// It is removed or renamed.
    Done,
    /// Other bytes are under its name, or none; nothing was done.
    Changed,
    /// The new name is taken; nothing was done.
    NameTaken,
}

/// A file being written, invisible until committed. Dropping it removes what was written.
pub trait PendingFile: Write + Send {
    /// Brings what was written to a store over the network, still invisible, so that a commit right after it takes only a moment.
    fn prepare(&mut self) -> io::Result<()> {
        self.flush()
    }
    /// Makes the file visible as a whole, with this modification time.
    fn commit(self: Box<Self>, modified: SystemTime) -> io::Result<()>;
    /// The same only if the name still holds the file that was `seen`, or nothing where that is `None`; answers the new
    /// file's entry. [`io::ErrorKind::AlreadyExists`] when it holds something else: then nothing was changed.
    fn commit_over(
        self: Box<Self>,
        modified: SystemTime,
        seen: Option<&FileEntry>,
    ) -> io::Result<FileEntry>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_that_is_made_in_a_reserved_folder_is_known_as_ours() {
        for entry in ReservedEntry::ALL {
            for below in ["", "a.json", "deep/er/b"] {
                let name = entry.file(below).expect("a valid name");
                assert!(name.is_ours() && name.is_reserved(), "{name}");
                let nested = FileName::parse(&format!("other/{name}")).expect("a valid name");
                assert!(nested.is_ours(), "{nested}");
            }
            assert_eq!(entry.path(), entry.file("").expect("valid").as_str());
        }
        assert!(ReservedEntry::random_probe().is_ours());
        for others in ["a.json", "owner", "journals", "x/displaced"] {
            let name = FileName::parse(&format!("{RESERVED_FOLDER}/{others}"));
            let name = name.expect("a valid name");
            assert!(name.is_reserved() && !name.is_ours(), "{name}");
        }
        let outside = ReservedEntry::Journal.file("../../a.json");
        assert!(outside.is_err(), "{outside:?}");
    }
}
