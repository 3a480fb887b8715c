//! A file being written: a short temporary name in the same folder, locked while its writer lives, so that others
//! recognise what a dead process left.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::io::Errno;

use super::rename_new::rename_new;
use super::{describe, say, temporary_name};
use crate::local::sync_folder;
use crate::{FileEntry, FileName, PendingFile};

const SUFFIX: &str = ".part";
/// Attempts to create the temporary file; each can only fail because another process cleans up at that moment.
const ATTEMPTS: usize = 10;
/// A probe writes no more than this of the bytes that it reserves.
const PROBED_BYTES: u64 = 64 << 10;
/// Callers write in small pieces.
const BUFFER_BYTES: usize = 64 * 1024;

/// Whether a name is one of our temporary ones.
pub(super) fn is_ours(name: &OsStr) -> bool {
    temporary_name::is_random(name, SUFFIX)
}

/// What became of a temporary file that was found.
#[derive(Debug)]
pub(super) enum Leftover {
    /// Its writer had ended: it is removed.
    Removed,
    /// Its writer lives, or it is gone: nothing is left to do.
    InUse,
    /// Whether its writer lives cannot be told, or it cannot be removed: it stays.
    Stays(io::Error),
}

/// Removes a temporary file whose writer has ended, and says so.
pub(super) fn remove_if_abandoned(path: &Path) {
    match remove_unless_locked(path, File::try_lock) {
        Leftover::Removed => {
            tracing::info!(path = %path.display(), "Removed an unfinished file of an ended process.");
        }
        Leftover::InUse => {}
        Leftover::Stays(error) => {
            tracing::warn!(
                path = %path.display(),
                %error,
                // A run shows the text alone.
                "The unfinished file {} stays: it cannot be locked or removed. Remove it by hand where nothing writes it.",
                path.display()
            );
        }
    }
}

/// Removes a temporary file if `lock` locks it: its writer holds the lock for as long as it lives.
pub(super) fn remove_unless_locked(
    path: &Path,
    lock: impl FnOnce(&File) -> Result<(), TryLockError>,
) -> Leftover {
    // Without following links: a planted link must not make us lock another file.
    if !path.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
        return Leftover::InUse;
    }
    let removing = || -> io::Result<Leftover> {
        // NFS gives an exclusive lock only to a handle that may write.
        let file = OpenOptions::new().write(true).open(path)?;
        match lock(&file) {
            Ok(()) => fs::remove_file(path).map(|()| Leftover::Removed),
            Err(TryLockError::WouldBlock) => Ok(Leftover::InUse),
            Err(TryLockError::Error(error)) => Err(error),
        }
    };
    match removing() {
        Ok(done) => done,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Leftover::InUse,
        Err(error) => Leftover::Stays(error),
    }
}

/// Creates `folder` and what is missing above it, durably; answers what it created, outermost first. A link to nothing, as to
/// a disk that is not mounted, is a folder that is missing.
pub(super) fn make_folders(folder: &Path) -> io::Result<Vec<PathBuf>> {
    make_folders_below(Path::new(""), folder)
}

/// The same for what is missing below `root`. An error where that is missing itself: its disk may have been unmounted since it
/// was looked for.
pub(super) fn make_folders_below(root: &Path, folder: &Path) -> io::Result<Vec<PathBuf>> {
    let missing: Vec<&Path> = folder
        .ancestors()
        .take_while(|path| *path != root && !path.as_os_str().is_empty() && !path.exists())
        .collect();
    let mut made = Vec::new();
    for path in missing.into_iter().rev() {
        match fs::create_dir(path) {
            Ok(()) => made.push(path.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_link(path) => {
                return Err(super::missing(path));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            Err(error) => return Err(error),
        }
        if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
            sync_folder(above)?;
        }
    }
    Ok(made)
}

fn is_link(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_symlink())
}

/// See the module.
pub(super) struct PendingLocal {
    name: FileName,
    place: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
    made: Vec<PathBuf>,
    done: bool,
}

impl PendingLocal {
    /// Begins a new version of the file `name` at `place` below `root`; `made` are the folders that were made for it.
    pub(super) fn begin(
        name: FileName,
        root: &Path,
        place: PathBuf,
        made: Vec<PathBuf>,
    ) -> io::Result<Self> {
        let folder = place.parent().unwrap_or(Path::new("."));
        let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
        for _ in 0..ATTEMPTS {
            match open_temporary(folder) {
                Ok(Some((temporary, file))) => {
                    return Ok(Self {
                        name,
                        place,
                        temporary,
                        file: BufWriter::with_capacity(BUFFER_BYTES, file),
                        made,
                        done: false,
                    });
                }
                Ok(None) => {}
                // Another writer that removed its folders removed ours with them.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    make_folders_below(root, folder)
                        .map_err(|e| say(e, "cannot make folder", folder))?;
                    last = error;
                }
                Err(error) => return Err(say(error, "cannot write into folder", folder)),
            }
        }
        Err(say(last, "cannot write into folder", folder))
    }
}

/// A new temporary file, locked; `None` when a cleaner was faster than our lock.
fn open_temporary(folder: &Path) -> io::Result<Option<(PathBuf, File)>> {
    let path = folder.join(temporary_name::random(SUFFIX));
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => {
            let _ = fs::remove_file(&path);
            return Err(say(error, "cannot lock", &path));
        }
    }
    // NFS keeps a removed file that is open under another name: only the name tells.
    let inode = file.metadata()?.ino();
    let kept = path
        .symlink_metadata()
        .is_ok_and(|meta| meta.ino() == inode);
    Ok(kept.then_some((path, file)))
}

/// Tests whether `bytes` bytes can be written into `folder`: they are reserved, and a part of them is written.
pub(super) fn probe(folder: &Path, bytes: u64) -> io::Result<()> {
    let fault = |error| say(error, "cannot write into folder", folder);
    let (path, file) = open_temporary(folder)
        .and_then(|opened| opened.ok_or_else(|| io::ErrorKind::Interrupted.into()))
        .map_err(fault)?;
    let written = reserve(&file, bytes)
        .and_then(|()| io::copy(&mut io::repeat(0).take(bytes.min(PROBED_BYTES)), &mut &file))
        .and_then(|_| file.sync_all());
    let removed = fs::remove_file(&path);
    written.and(removed).map_err(fault)
}

/// Where a file system cannot reserve, its own count of free blocks decides.
fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
            let found = rustix::fs::fstatvfs(file)?;
            match found.f_bavail.saturating_mul(found.f_frsize) >= bytes {
                true => Ok(()),
                false => Err(io::ErrorKind::StorageFull.into()),
            }
        }
        reserved => Ok(reserved?),
    }
}

impl PendingLocal {
    /// Also where its folder was moved meanwhile: Linux knows where an open file is.
    fn remove_temporary(&self) {
        if fs::remove_file(&self.temporary).is_ok() {
            return;
        }
        let open = format!("/proc/self/fd/{}", self.file.get_ref().as_raw_fd());
        match fs::read_link(open) {
            Ok(moved) if moved.file_name() == self.temporary.file_name() => {
                let _ = fs::remove_file(moved);
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// Makes the content durable, then visible by `rename`; answers what the file was before it was visible.
    fn complete(
        &mut self,
        modified: SystemTime,
        rename: impl FnOnce(&Self) -> io::Result<()>,
    ) -> io::Result<fs::Metadata> {
        let place = self.place.clone();
        let fault = |error| say(error, "cannot write", &place);
        self.file.flush().map_err(fault)?;
        let file = self.file.get_ref();
        file.set_modified(modified).map_err(fault)?;
        file.sync_all().map_err(fault)?;
        let written = file.metadata().map_err(fault)?;
        rename(self).map_err(fault)?;
        self.done = true;
        sync_folder(self.place.parent().unwrap_or(Path::new(".")))?;
        Ok(written)
    }
}

impl Write for PendingLocal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl PendingFile for PendingLocal {
    fn commit(mut self: Box<Self>, modified: SystemTime) -> io::Result<()> {
        self.complete(modified, |pending| {
            fs::rename(&pending.temporary, &pending.place)
        })
        .map(drop)
    }

    fn commit_over(
        mut self: Box<Self>,
        modified: SystemTime,
        seen: Option<&FileEntry>,
    ) -> io::Result<FileEntry> {
        let written = self.complete(modified, |pending| match seen {
            None => rename_to_free_name(&pending.temporary, &pending.place),
            // Another program's write in this very moment is not seen; ours are kept apart by the caller's lock.
            Some(seen) => match fs::metadata(&pending.place) {
                Ok(now) if describe(&pending.name, &now)?.fingerprint == seen.fingerprint => {
                    fs::rename(&pending.temporary, &pending.place)
                }
                Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Err(io::ErrorKind::AlreadyExists.into())
                }
                Err(error) => Err(error),
            },
        })?;
        // Of the file that was written, whatever has its name by now.
        let now = self.file.get_ref().metadata();
        let now = now.map_err(|error| say(error, "cannot look at", &self.place))?;
        entry_of_written(&self.name, &written, &now)
    }
}

/// The entry of a file that was `written` and is visible `now`. Where another program wrote into it meanwhile, the times of
/// before are taken: that fingerprint is never seen again, so nothing counts as written here that was not.
fn entry_of_written(
    name: &FileName,
    written: &fs::Metadata,
    now: &fs::Metadata,
) -> io::Result<FileEntry> {
    let is_as_written = (written.len(), written.mtime(), written.mtime_nsec())
        == (now.len(), now.mtime(), now.mtime_nsec());
    describe(name, if is_as_written { now } else { written })
}

/// Renames unless the new name is taken. Only a link to nothing is no file and takes the name: what it shall lead to may be on a
/// disk that is not mounted.
fn rename_to_free_name(from: &Path, to: &Path) -> io::Result<()> {
    match rename_new(from, to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_link(to) => {
            let why = "a symbolic link to nothing is in its place: remove it, or make its target";
            Err(io::Error::new(io::ErrorKind::InvalidInput, why))
        }
        renamed => renamed,
    }
}

impl Drop for PendingLocal {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        self.remove_temporary();
        // Folders that hold other files by now stay.
        for folder in self.made.iter().rev() {
            let _ = fs::remove_dir(folder);
        }
    }
}
