//! Files in a folder: the embedded implementation of [`Files`]. A name is only ever used below the location's folder.
//! Symbolic links inside it are followed where they stay inside; one that leads outside is never read, listed or written
//! through, and one in the place of a file to be written is replaced, not followed. Checks are made at the time of the
//! call: a process that can replace folders by links meanwhile can write to the location anyway.

mod aside;
mod awaited;
mod pending;
mod rename_new;
mod temporary_name;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustix::io::Errno;

use self::aside::Aside;
pub use self::awaited::AwaitedFiles;
use self::pending::PendingLocal;
use self::rename_new::rename_new;
use super::{DATABASE_NAME, SESSIONS_FOLDER, STREAM_FOLDER, sync_folder};
use crate::files::NOT_OURS;
use crate::{
    ExactFile, ExactOutcome, FileEntry, FileName, Files, LeftOut, Listing, PendingFile,
    RESERVED_FOLDER, ReservedEntry,
};

/// Folders deeper than this are not listed; no name that fits into [`FileName`] is deeper.
const MAX_DEPTH: usize = FileName::MAX_BYTES / 2;

/// A location that is a folder on this machine.
#[derive(Debug)]
pub struct LocalFiles {
    location: String,
    root: PathBuf,
    /// Removes and puts back what ended processes left, from the opening until it has walked through all folders.
    cleanup: Mutex<Option<JoinHandle<()>>>,
}

impl LocalFiles {
    /// Opens the folder `root`, creating it if it is missing, and begins to remove unfinished files of dead processes in it.
    /// `location` is the text that the user wrote for it.
    pub fn open(location: &str, root: &Path) -> io::Result<Self> {
        Self::make_folder(root)?;
        Self::open_own(location, root)
    }

    /// Makes the folder `root` if it is missing.
    pub fn make_folder(root: &Path) -> io::Result<()> {
        let made = pending::make_folders(root).map(drop);
        made.map_err(|e| say(e, "cannot make folder", root))
    }

    /// Opens the folder `root`, in which Streampress writes.
    fn open_own(location: &str, root: &Path) -> io::Result<Self> {
        let files = Self::open_existing(location, root)?;
        let walked = Self::open_existing(location, root)?;
        // A large tree takes minutes to walk through, and what is left in it is in the way of no new file.
        let cleanup = thread::Builder::new()
            .name("unfinished files".to_owned())
            .spawn(move || walked.clean_up())?;
        *files.cleanup.lock() = Some(cleanup);
        Ok(files)
    }

    /// Removes unfinished files of ended processes, and puts back what they had set aside. A lock tells them from those of
    /// living processes, this one included.
    fn clean_up(&self) {
        let walked = self.walk(Reserved::Included, &mut |found| {
            if let Found::Entry(path, _) = found
                && path.file_name().is_some_and(pending::is_ours)
            {
                pending::remove_if_abandoned(path);
            }
        });
        if let Err(error) = walked {
            tracing::warn!(%error, "Could not look for unfinished files of ended processes.");
        }
    }

    /// Waits until what ended processes had set aside is back.
    fn await_cleanup(&self) {
        let mut cleanup = self.cleanup.lock();
        if let Some(cleanup) = cleanup.take() {
            // A panic in it was reported as it happened.
            let _ = cleanup.join();
        }
    }

    /// Opens the folder `root` for reading; an error when there is none. Nothing in it is changed.
    pub fn open_existing(location: &str, root: &Path) -> io::Result<Self> {
        let root = root
            .canonicalize()
            .map_err(|e| say(e, "cannot open folder", root))?;
        if !root.is_dir() {
            let error = io::Error::from(io::ErrorKind::NotADirectory);
            return Err(say(error, "cannot open as a folder", &root));
        }
        Ok(Self {
            location: location.to_owned(),
            root,
            cleanup: Mutex::default(),
        })
    }

    /// Adds the step and the path to a fault. What is absent because all of the location is away is such a fault.
    fn fault(&self, error: io::Error, step: &str, path: &Path) -> io::Error {
        match is_absent(&error).then(|| self.ensure_exists()) {
            Some(Err(away)) => away,
            Some(Ok(())) | None => say(error, step, path),
        }
    }

    /// Where the file lies, with its folder resolved; an error when a link leads outside, `None` when the folder is
    /// missing. The last part is not resolved.
    fn place(&self, name: &FileName) -> io::Result<Option<PathBuf>> {
        let path = self.root.join(name.as_str());
        let (Some(folder), Some(file)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if pending::is_ours(file) {
            let why = format!("{name} is a name of streampress's own unfinished files; rename it");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        match folder.canonicalize() {
            Ok(folder) => self
                .inside(folder, name)
                .map(|folder| Some(folder.join(file))),
            Err(error) if is_absent(&error) => self.ensure_exists().map(|()| None),
            Err(error) => Err(self.fault(error, "cannot open folder", folder)),
        }
    }

    /// The file itself, links resolved; `None` when there is none.
    fn existing(&self, name: &FileName) -> io::Result<Option<PathBuf>> {
        match self.existing_now(name)? {
            // The location may have been away for that moment.
            None => self.ensure_exists().and_then(|()| self.existing_now(name)),
            found => Ok(found),
        }
    }

    fn existing_now(&self, name: &FileName) -> io::Result<Option<PathBuf>> {
        let Some(place) = self.place(name)? else {
            return Ok(None);
        };
        match place.canonicalize() {
            Ok(path) => self.inside(path, name).map(Some),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.fault(error, "cannot open", &place)),
        }
    }

    fn inside(&self, path: PathBuf, name: &FileName) -> io::Result<PathBuf> {
        if path.starts_with(&self.root) {
            return Ok(path);
        }
        let why = format!(
            "{name} leads out of {} through a symbolic link; replace the link by what it points at",
            self.root.display()
        );
        // Not a missing permission: waiting does not help.
        Err(io::Error::new(io::ErrorKind::InvalidInput, why))
    }

    /// The file's place in a folder that exists, created if necessary; and the folders that were created for it.
    fn prepare(&self, name: &FileName) -> io::Result<(PathBuf, Vec<PathBuf>)> {
        self.ensure_exists()?;
        let path = self.root.join(name.as_str());
        let folder = path.parent().unwrap_or(&self.root);
        // The existing part of the path is checked before the rest is created.
        let nearest = folder
            .ancestors()
            .take_while(|above| above.starts_with(&self.root))
            .find(|above| above.symlink_metadata().is_ok())
            .ok_or_else(|| missing(&self.root))?;
        let resolved = nearest
            .canonicalize()
            .map_err(|e| self.fault(e, "cannot open folder", nearest))?;
        self.inside(resolved, name)?;
        let made = pending::make_folders_below(&self.root, folder)
            .map_err(|e| self.fault(e, "cannot make folder", folder))?;
        match self.place(name)? {
            Some(place) => Ok((place, made)),
            None => Err(self.fault(io::ErrorKind::NotFound.into(), "cannot find folder", folder)),
        }
    }

    /// Calls `each` with every entry below the root that is not a folder, and with every folder that cannot be listed or is a
    /// data folder of Streampress: it does not go into those, nor into linked folders; where the root is a data folder, not
    /// into its transport's own. Puts back files that an ended process had set aside.
    fn walk(&self, reserved: Reserved, each: &mut dyn FnMut(Found<'_>)) -> io::Result<()> {
        let mut folders = vec![(self.root.clone(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            let is_data_folder = folder.join(DATABASE_NAME).exists();
            if is_data_folder && depth > 0 {
                each(Found::DataFolder(&folder));
                continue;
            }
            let listed = fs::read_dir(&folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
            let entries = match listed {
                Ok(entries) => entries,
                // Removed since it was seen; or all of the location is away.
                Err(error) if is_absent(&error) && depth > 0 => {
                    self.ensure_exists()?;
                    continue;
                }
                Err(error) if depth > 0 => {
                    each(Found::Unlisted(&folder, &error));
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(missing(&self.root));
                }
                Err(error) => return Err(say(error, "cannot list folder", &folder)),
            };
            for entry in entries {
                if is_data_folder && is_transport_name(&entry.file_name()) {
                    continue;
                }
                if reserved == Reserved::Skipped && entry.file_name() == RESERVED_FOLDER {
                    find_others(&entry.path(), each);
                    continue;
                }
                let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if is_folder && aside::is_ours(&entry.file_name()) {
                    aside::put_back_abandoned(&entry.path());
                    continue;
                }
                if is_folder && depth < MAX_DEPTH {
                    folders.push((entry.path(), depth + 1));
                } else {
                    each(Found::Entry(&entry.path(), &entry));
                }
            }
        }
        Ok(())
    }

    /// The entry as a listing shows it, or why it cannot be handled; `None` for what needs no word: it is gone again, or is
    /// a link to a folder inside the location, which is listed by its own name.
    fn entry(&self, path: &Path, entry: &fs::DirEntry) -> Option<Result<FileEntry, LeftOut>> {
        let below = path.strip_prefix(&self.root).ok()?;
        let left_out = |reason: String, is_folder: bool| {
            let name = self.below(path);
            Some(Err(LeftOut {
                name,
                reason,
                is_folder,
            }))
        };
        // Of a link what it leads to.
        let leave_out = |reason: String| left_out(reason, path.is_dir());
        let kind = match entry.file_type() {
            Ok(kind) => kind,
            Err(error) if is_absent(&error) => return None,
            // It may be one.
            Err(error) => return left_out(format!("cannot be opened: {error}"), true),
        };
        if !kind.is_file() && !kind.is_symlink() {
            return leave_out("is no regular file: copy its content into one".to_owned());
        }
        let Some(name) = below.to_str() else {
            return leave_out("has a name that is not UTF-8: rename it".to_owned());
        };
        let name = match FileName::parse(name) {
            Ok(name) => name,
            Err(why) => return leave_out(why),
        };
        if kind.is_symlink() && self.is_link_to_inner_folder(&name) {
            return None;
        }
        let found = match kind.is_file() {
            // No link on the way here: the walk does not go into linked folders.
            true => entry
                .metadata()
                .and_then(|meta| describe(&name, &meta))
                .map(Some),
            false => self.stat(&name),
        };
        match found {
            Ok(Some(entry)) => Some(Ok(entry)),
            Ok(None) if path.symlink_metadata().is_ok_and(|meta| meta.is_symlink()) => {
                leave_out("is a symbolic link to nothing: remove it, or make its target".to_owned())
            }
            Ok(None) => None,
            Err(error) if is_absent(&error) => None,
            Err(error) => leave_out(error.to_string()),
        }
    }

    /// The path relative to the root; what is not UTF-8 is replaced.
    fn below(&self, path: &Path) -> String {
        let below = path.strip_prefix(&self.root).unwrap_or(path);
        below.to_string_lossy().into_owned()
    }

    fn is_link_to_inner_folder(&self, name: &FileName) -> bool {
        matches!(self.existing(name), Ok(Some(path)) if path.is_dir())
    }
}

impl LocalFiles {
    /// Takes the file out of others' reach, compares it, and lets `finish` remove or rename it; what is not the expected file
    /// and what `finish` refuses (false) goes back to its name.
    fn change_exact(
        &self,
        file: &ExactFile<'_>,
        finish: &mut dyn FnMut(&Path) -> io::Result<bool>,
    ) -> io::Result<ExactOutcome> {
        let name = &file.entry.name;
        let Some(place) = self.place(name)? else {
            return Ok(ExactOutcome::Changed);
        };
        match place.symlink_metadata() {
            Ok(meta) if meta.is_symlink() => {
                let why = format!("{name} is a symbolic link; it stays");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
            Ok(meta) if describe(name, &meta)? == *file.entry => {}
            Ok(_) => return Ok(ExactOutcome::Changed),
            Err(error) if is_absent(&error) => return Ok(ExactOutcome::Changed),
            Err(error) => return Err(self.fault(error, "cannot open", &place)),
        }
        let Some(aside) = Aside::take(&place)? else {
            return Ok(ExactOutcome::Changed);
        };
        let outcome = match aside.is(file) {
            Ok(true) => finish(&aside.path()).map(|done| match done {
                true => ExactOutcome::Done,
                false => ExactOutcome::NameTaken,
            }),
            Ok(false) => Ok(ExactOutcome::Changed),
            Err(error) => Err(error),
        };
        aside.end()?;
        outcome.map_err(|error| self.fault(error, "cannot remove or rename", &place))
    }
}

/// What a walk comes across.
enum Found<'a> {
    /// Anything but a folder.
    Entry(&'a Path, &'a fs::DirEntry),
    /// A folder whose entries cannot be read.
    Unlisted(&'a Path, &'a io::Error),
    /// A data folder of Streampress.
    DataFolder(&'a Path),
    /// What others put into a reserved folder.
    InReserved(&'a Path),
}

/// Calls `each` with what others put into a reserved folder. Another location of Streampress may begin in any folder, so what
/// it keeps is known by its name alone.
fn find_others(reserved: &Path, each: &mut dyn FnMut(Found<'_>)) {
    for entry in fs::read_dir(reserved).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_ours = name.to_str().is_some_and(ReservedEntry::is_kept);
        if !is_ours && !pending::is_ours(&name) && !aside::is_ours(&name) {
            each(Found::InReserved(&entry.path()));
        }
    }
}

impl Files for LocalFiles {
    fn location(&self) -> &str {
        &self.location
    }

    fn list(&self) -> io::Result<Listing> {
        self.await_cleanup();
        let mut listing = Listing::default();
        self.walk(Reserved::Skipped, &mut |found| match found {
            Found::Entry(path, entry) if !pending::is_ours(&entry.file_name()) => {
                match self.entry(path, entry) {
                    Some(Ok(entry)) => listing.files.push(entry),
                    Some(Err(left_out)) => listing.left_out.push(left_out),
                    None => {}
                }
            }
            Found::Entry(..) => {}
            Found::DataFolder(folder) => listing.data_folders.push(self.below(folder)),
            Found::InReserved(path) => listing.left_out.push(LeftOut {
                name: self.below(path),
                reason: NOT_OURS.to_owned(),
                is_folder: path.is_dir(),
            }),
            Found::Unlisted(folder, error) => {
                listing.left_out.push(LeftOut {
                    name: self.below(folder),
                    reason: format!("cannot be listed: {error}; make the folder readable"),
                    is_folder: true,
                });
            }
        })?;
        listing.files.sort_by(|a, b| a.name.cmp(&b.name));
        listing.left_out.sort_by(|a, b| a.name.cmp(&b.name));
        listing.data_folders.sort();
        Ok(listing)
    }

    fn ensure_exists(&self) -> io::Result<()> {
        match self.root.metadata() {
            Err(error) if is_absent(&error) => Err(missing(&self.root)),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn stat(&self, name: &FileName) -> io::Result<Option<FileEntry>> {
        let Some(path) = self.existing(name)? else {
            return Ok(None);
        };
        let meta = match fs::metadata(&path) {
            Ok(meta) => meta,
            Err(error) if is_absent(&error) => return self.ensure_exists().map(|()| None),
            Err(error) => return Err(self.fault(error, "cannot open", &path)),
        };
        if !meta.is_file() {
            let why = format!("{} is not a file", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        describe(name, &meta).map(Some)
    }

    fn read(&self, name: &FileName) -> io::Result<Box<dyn Read + Send>> {
        // Checked first: opening a pipe would wait for its writer for ever.
        let exists = self.stat(name)?.is_some();
        let path = self.existing(name)?.filter(|_| exists);
        let Some(path) = path else {
            let error = io::Error::from(io::ErrorKind::NotFound);
            return Err(self.fault(error, "cannot read", &self.root.join(name.as_str())));
        };
        let file = File::open(&path).map_err(|e| self.fault(e, "cannot read", &path))?;
        Ok(Box::new(file))
    }

    fn create(&self, name: &FileName) -> io::Result<Box<dyn PendingFile>> {
        let (place, made) = self.prepare(name)?;
        if place.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            let error = io::Error::from(io::ErrorKind::IsADirectory);
            return Err(self.fault(error, "cannot write", &place));
        }
        match PendingLocal::begin(name.clone(), &self.root, place, made) {
            Ok(pending) => Ok(Box::new(pending)),
            Err(error) if is_absent(&error) => self.ensure_exists().and(Err(error)),
            Err(error) => Err(error),
        }
    }

    fn remove(&self, name: &FileName) -> io::Result<()> {
        let Some(place) = self.place(name)? else {
            return Ok(());
        };
        match fs::remove_file(&place) {
            Ok(()) => sync_folder(place.parent().unwrap_or(&self.root)),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(self.fault(error, "cannot remove", &place)),
        }
    }

    fn rename(&self, from: &FileName, to: &FileName) -> io::Result<()> {
        let Some(old) = self.place(from)? else {
            let error = io::Error::from(io::ErrorKind::NotFound);
            return Err(self.fault(error, "cannot rename", &self.root.join(from.as_str())));
        };
        let (new, _) = self.prepare(to)?;
        fs::rename(&old, &new).map_err(|e| self.fault(e, "cannot rename", &old))?;
        for path in [&new, &old] {
            sync_folder(path.parent().unwrap_or(&self.root))?;
        }
        Ok(())
    }

    fn probe(&self, bytes: u64) -> io::Result<()> {
        pending::probe(&self.root, bytes)
    }

    fn put_back(&self, name: &FileName) -> io::Result<()> {
        // Outside the location nothing is touched.
        let Some(path) = self.place(name)? else {
            return Ok(());
        };
        let (Some(folder), Some(base)) = (path.parent(), path.file_name()) else {
            return Ok(());
        };
        let entries = match fs::read_dir(folder) {
            Err(error) if is_absent(&error) => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if aside::is_ours(&entry.file_name()) && entry.path().join(base).exists() {
                aside::put_back_abandoned(&entry.path());
            }
        }
        Ok(())
    }

    fn remove_exact(&self, file: &ExactFile<'_>) -> io::Result<ExactOutcome> {
        self.change_exact(file, &mut |private| fs::remove_file(private).map(|()| true))
    }

    fn rename_exact(&self, file: &ExactFile<'_>, to: &FileName) -> io::Result<ExactOutcome> {
        let (new, _) = self.prepare(to)?;
        if new.symlink_metadata().is_ok() {
            return Ok(ExactOutcome::NameTaken);
        }
        self.change_exact(file, &mut |private| match rename_new(private, &new) {
            Ok(()) => sync_folder(new.parent().unwrap_or(&self.root)).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        })
    }

    fn set_modified(&self, name: &FileName, modified: SystemTime) -> io::Result<()> {
        let Some(path) = self.existing(name)? else {
            return Ok(());
        };
        let set = File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_modified(modified));
        set.map_err(|e| self.fault(e, "cannot set the modification time of", &path))
    }

    fn list_reserved(&self, folder: &FileName) -> io::Result<Vec<String>> {
        let path = self.root.join(folder.as_str());
        let list = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(&path)? {
                let entry = entry?;
                let name = entry.file_name();
                // What has no name here is no file of ours.
                let Some(text) = name.to_str() else {
                    continue;
                };
                if !pending::is_ours(&name) && entry.file_type()?.is_file() {
                    names.push(text.to_owned());
                }
            }
            names.sort();
            Ok(names)
        };
        match list() {
            Err(error) if is_absent(&error) => self.ensure_exists().map(|()| Vec::new()),
            listed => listed.map_err(|error| self.fault(error, "cannot list folder", &path)),
        }
    }
}

/// Whether a walk goes into reserved folders.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reserved {
    Included,
    Skipped,
}

fn describe(name: &FileName, meta: &fs::Metadata) -> io::Result<FileEntry> {
    Ok(FileEntry {
        name: name.clone(),
        size: meta.len(),
        modified: meta.modified()?,
        fingerprint: format!(
            "{:x}-{:x}-{:x}.{:x}-{:x}.{:x}",
            meta.ino(),
            meta.len(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec()
        ),
        changed: Some(change_time(meta)),
    })
}

/// The change time; for one before 1970, which no clock of today sets, 1970.
fn change_time(meta: &fs::Metadata) -> SystemTime {
    let seconds = u64::try_from(meta.ctime()).unwrap_or(0);
    let nanos = u32::try_from(meta.ctime_nsec()).unwrap_or(0);
    UNIX_EPOCH + Duration::new(seconds, nanos)
}

pub(super) fn is_transport_name(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    matches!(name, STREAM_FOLDER | SESSIONS_FOLDER)
        || name
            .strip_prefix(DATABASE_NAME)
            .is_some_and(|rest| matches!(rest, "" | "-wal" | "-shm" | "-journal"))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// The fault of a folder that is not there.
fn missing(root: &Path) -> io::Error {
    let why = format!(
        "the folder {} is missing; mount its disk, or make it",
        root.display()
    );
    io::Error::new(io::ErrorKind::NotConnected, why)
}

/// Adds the step, the path and what helps to a fault, keeping its kind.
fn say(error: io::Error, step: &str, path: &Path) -> io::Error {
    let path = path.display();
    let help = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::LOOP) => {
            "; a symbolic link on the way leads back to itself: remove it, or make it lead elsewhere"
        }
        Some(Errno::PERM) => {
            "; an attribute such as immutable forbids it, which 'lsattr' shows and 'chattr' takes away, or this user lacks a right"
        }
        _ => "",
    };
    io::Error::new(error.kind(), format!("{step} {path}: {error}{help}"))
}

#[cfg(test)]
mod tests;
