//! The contract of a location that holds files.

use std::fmt;
use std::io::{self, Read, Write};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// A file at a location, as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Relative to its location, `/` between folders.
    pub name: FileName,
    /// Bytes.
    pub size: u64,
    /// The version: the file's modification time.
    pub modified: SystemTime,
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
        if name.is_empty() || name.len() > Self::MAX_BYTES {
            return refuse("is empty or longer than 3072 bytes");
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

/// A location that holds files: a folder, or a bucket with a prefix. Blocking: call it from a blocking thread.
///
/// Contract of every implementation: a write is visible whole or not at all, and survives power loss once `commit`
/// returned; odd names (spaces, `#`, `%`, unicode, 255 bytes a part) are kept; our own unfinished files are never listed.
pub trait Files: Send + Sync + fmt::Debug {
    /// The location as the user wrote it.
    fn location(&self) -> &str;
    /// All files below the location, folders within included, in name order.
    fn list(&self) -> io::Result<Vec<FileEntry>>;
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
    /// Renames within the location; replaces what is there.
    fn rename(&self, from: &FileName, to: &FileName) -> io::Result<()>;
    /// Tests whether a file of `bytes` bytes could be written now, under a name of its own that is gone afterwards.
    fn probe(&self, bytes: u64) -> io::Result<()> {
        let name = FileName(format!("{PROBE_FOLDER}/probe-{:016x}", fastrand::u64(..)));
        let mut pending = self.create(&name)?;
        io::copy(&mut io::repeat(0).take(bytes), &mut pending)?;
        pending.commit(SystemTime::now())?;
        self.remove(&name)
    }
    /// The names of up to `most` files, any of them.
    fn sample(&self, most: usize) -> io::Result<Vec<FileName>> {
        let entries = self.list()?.into_iter();
        Ok(entries.take(most).map(|entry| entry.name).collect())
    }
}

/// A folder below a location whose files are ours: no scan and no bucket event takes them.
const PROBE_FOLDER: &str = ".streampress";

/// A file being written, invisible until committed. Dropping it removes what was written.
pub trait PendingFile: Write + Send {
    /// Makes the file visible as a whole, with this modification time.
    fn commit(self: Box<Self>, modified: SystemTime) -> io::Result<()>;
}
