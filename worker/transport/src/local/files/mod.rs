//! Files in a folder: the embedded implementation of [`Files`]. A name is only ever used below the location's folder.
//! Symbolic links inside it are followed where they stay inside; one that leads outside is never read, listed or written
//! through, and one in the place of a file to be written is replaced, not followed. Checks are made at the time of the
//! call: a process that can replace folders by links meanwhile can write to the location anyway.

mod pending;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use self::pending::PendingLocal;
use super::{DATABASE_NAME, SESSIONS_FOLDER, STREAM_FOLDER, sync_folder};
use crate::{FileEntry, FileName, Files, PendingFile};

/// Folders deeper than this are not listed; no name that fits into [`FileName`] is deeper.
const MAX_DEPTH: usize = FileName::MAX_BYTES / 2;

/// A location that is a folder on this machine.
#[derive(Debug)]
pub struct LocalFiles {
    location: String,
    root: PathBuf,
}

impl LocalFiles {
    /// Opens the folder `root`, creating it if it is missing, and removes unfinished files of dead processes in it.
    /// `location` is the text that the user wrote for it.
    pub fn open(location: &str, root: &Path) -> io::Result<Self> {
        pending::make_folders(root).map_err(|e| say(e, "cannot make folder", root))?;
        let files = Self::open_existing(location, root)?;
        files.walk(&mut |path, _| {
            if path.file_name().is_some_and(pending::is_ours) {
                pending::remove_if_abandoned(path);
            }
        })?;
        Ok(files)
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
        })
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
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(say(error, "cannot open folder", folder)),
        }
    }

    /// The file itself, links resolved; `None` when there is none.
    fn existing(&self, name: &FileName) -> io::Result<Option<PathBuf>> {
        let Some(place) = self.place(name)? else {
            return Ok(None);
        };
        match place.canonicalize() {
            Ok(path) => self.inside(path, name).map(Some),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(say(error, "cannot open", &place)),
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
        Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
    }

    /// The file's place in a folder that exists, created if necessary; and the folders that were created for it.
    fn prepare(&self, name: &FileName) -> io::Result<(PathBuf, Vec<PathBuf>)> {
        let path = self.root.join(name.as_str());
        let folder = path.parent().unwrap_or(&self.root);
        // The existing part of the path is checked before the rest is created.
        let nearest = folder.ancestors().find(|f| f.symlink_metadata().is_ok());
        if let Some(nearest) = nearest {
            let resolved = nearest
                .canonicalize()
                .map_err(|e| say(e, "cannot open folder", nearest))?;
            self.inside(resolved, name)?;
        }
        let made =
            pending::make_folders(folder).map_err(|e| say(e, "cannot make folder", folder))?;
        match self.place(name)? {
            Some(place) => Ok((place, made)),
            None => Err(say(
                io::ErrorKind::NotFound.into(),
                "cannot find folder",
                folder,
            )),
        }
    }

    /// Calls `each` with every entry below the root that is not a folder. Does not go into linked folders nor, in
    /// a data folder, into the transport's own.
    fn walk(&self, each: &mut dyn FnMut(&Path, &fs::DirEntry)) -> io::Result<()> {
        let mut folders = vec![(self.root.clone(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            let is_data_folder = folder.join(DATABASE_NAME).exists();
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                // Removed since it was seen.
                Err(error) if is_absent(&error) && depth > 0 => continue,
                Err(error) => return Err(say(error, "cannot list folder", &folder)),
            };
            for entry in entries {
                let entry = entry.map_err(|e| say(e, "cannot list folder", &folder))?;
                if is_data_folder && is_transport(&entry) {
                    continue;
                }
                let kind = entry
                    .file_type()
                    .map_err(|e| say(e, "cannot open", &entry.path()))?;
                if kind.is_dir() && depth < MAX_DEPTH {
                    folders.push((entry.path(), depth + 1));
                } else {
                    each(&entry.path(), &entry);
                }
            }
        }
        Ok(())
    }

    /// The entry as a listing shows it; `None` with a warning for what cannot be handled.
    fn entry(&self, path: &Path, entry: &fs::DirEntry) -> Option<FileEntry> {
        let skip = |why: &str| {
            tracing::warn!(path = %path.display(), "Skipped: {why}.");
            None
        };
        let below = path.strip_prefix(&self.root).ok()?;
        let Some(name) = below.to_str() else {
            return skip("its name is not UTF-8; rename it");
        };
        let name = match FileName::parse(name) {
            Ok(name) => name,
            Err(why) => return skip(&why),
        };
        let found = match entry.file_type() {
            // No link on the way here: the walk does not go into linked folders.
            Ok(kind) if kind.is_file() => entry
                .metadata()
                .and_then(|meta| describe(&name, &meta))
                .map(Some),
            Ok(kind) if kind.is_symlink() => self.stat(&name),
            _ => return skip("it is not a file"),
        };
        match found {
            Ok(entry) => entry,
            // Removed since it was seen.
            Err(error) if is_absent(&error) => None,
            Err(error) => skip(&error.to_string()),
        }
    }
}

impl Files for LocalFiles {
    fn location(&self) -> &str {
        &self.location
    }

    fn list(&self) -> io::Result<Vec<FileEntry>> {
        let mut found = Vec::new();
        self.walk(&mut |path, entry| {
            if !pending::is_ours(&entry.file_name()) {
                found.extend(self.entry(path, entry));
            }
        })?;
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn stat(&self, name: &FileName) -> io::Result<Option<FileEntry>> {
        let Some(path) = self.existing(name)? else {
            return Ok(None);
        };
        let meta = match fs::metadata(&path) {
            Ok(meta) => meta,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(say(error, "cannot open", &path)),
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
            return Err(say(error, "cannot read", &self.root.join(name.as_str())));
        };
        let file = File::open(&path).map_err(|e| say(e, "cannot read", &path))?;
        Ok(Box::new(file))
    }

    fn create(&self, name: &FileName) -> io::Result<Box<dyn PendingFile>> {
        let (place, made) = self.prepare(name)?;
        if place.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            let error = io::Error::from(io::ErrorKind::IsADirectory);
            return Err(say(error, "cannot write", &place));
        }
        let pending = PendingLocal::begin(place, made)?;
        Ok(Box::new(pending))
    }

    fn remove(&self, name: &FileName) -> io::Result<()> {
        let Some(place) = self.place(name)? else {
            return Ok(());
        };
        match fs::remove_file(&place) {
            Ok(()) => sync_folder(place.parent().unwrap_or(&self.root)),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(say(error, "cannot remove", &place)),
        }
    }

    fn rename(&self, from: &FileName, to: &FileName) -> io::Result<()> {
        let Some(old) = self.place(from)? else {
            let error = io::Error::from(io::ErrorKind::NotFound);
            return Err(say(error, "cannot rename", &self.root.join(from.as_str())));
        };
        let (new, _) = self.prepare(to)?;
        fs::rename(&old, &new).map_err(|e| say(e, "cannot rename", &old))?;
        for path in [&new, &old] {
            sync_folder(path.parent().unwrap_or(&self.root))?;
        }
        Ok(())
    }

    fn probe(&self, bytes: u64) -> io::Result<()> {
        pending::probe(&self.root, bytes)
    }
}

fn describe(name: &FileName, meta: &fs::Metadata) -> io::Result<FileEntry> {
    Ok(FileEntry {
        name: name.clone(),
        size: meta.len(),
        modified: meta.modified()?,
    })
}

fn is_transport(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name();
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

/// Adds the step and the path to a fault, keeping its kind.
fn say(error: io::Error, step: &str, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{step} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
