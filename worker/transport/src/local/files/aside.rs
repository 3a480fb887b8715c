//! A file set aside while it is decided whether it may be removed or renamed: moved into a private folder beside it, where
//! no writer finds it by its name. The folder is locked while its process lives; what an ended process left goes back to its
//! name, and never replaces what came there meanwhile.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::rename_new::rename_new;
use super::{describe, is_absent, say, temporary_name};
use crate::ExactFile;
use crate::local::sync_folder;

const SUFFIX: &str = ".aside";

/// Whether a folder's name is one of ours.
pub(super) fn is_ours(name: &OsStr) -> bool {
    temporary_name::is_random(name, SUFFIX)
}

/// A file that has been set aside.
pub(super) struct Aside {
    /// Where it was.
    place: PathBuf,
    folder: PathBuf,
    /// Holds the folder's lock.
    _lock: File,
}

impl Aside {
    /// Sets the file aside; `None` when there is none any more.
    pub(super) fn take(place: &Path) -> io::Result<Option<Self>> {
        let parent = place.parent().unwrap_or(Path::new("."));
        let folder = parent.join(temporary_name::random(SUFFIX));
        let fault = |error| say(error, "cannot make folder", &folder);
        fs::create_dir(&folder).map_err(fault)?;
        let lock = File::open(&folder).map_err(fault)?;
        lock.lock().map_err(fault)?;
        // A power cut must not leave the file's move into a folder that it takes away.
        sync_folder(parent).map_err(fault)?;
        let aside = Self {
            place: place.to_owned(),
            folder,
            _lock: lock,
        };
        match fs::rename(place, aside.path()) {
            Ok(()) => Ok(Some(aside)),
            Err(error) => {
                let _ = fs::remove_dir(&aside.folder);
                match is_absent(&error) {
                    true => Ok(None),
                    false => Err(say(error, "cannot rename", place)),
                }
            }
        }
    }

    /// Where it is now.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.join(self.place.file_name().unwrap_or_default())
    }

    /// Whether it is the expected file. Its change time is not compared: setting it aside has changed that.
    pub(super) fn is(&self, file: &ExactFile<'_>) -> io::Result<bool> {
        let path = self.path();
        // The last part of a fingerprint is the change time.
        let without_change = |fingerprint: &str| -> Option<String> {
            Some(fingerprint.rsplit_once('-')?.0.to_owned())
        };
        let expected = without_change(&file.entry.fingerprint);
        let same = || -> io::Result<bool> {
            let meta = path.symlink_metadata()?;
            let now = describe(&file.entry.name, &meta)?;
            Ok(meta.is_file() && without_change(&now.fingerprint) == expected)
        };
        if !same()? {
            return Ok(false);
        }
        Ok(file.has_bytes(|| File::open(&path))? && (file.hash.is_none() || same()?))
    }

    /// Puts the file back if it is still aside, and removes the private folder.
    pub(super) fn end(self) -> io::Result<()> {
        put_back(&self.folder)
    }
}

/// Puts back what a process that has ended had set aside.
pub(super) fn put_back_abandoned(folder: &Path) {
    let is_folder = folder.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    let Some(lock) = is_folder.then(|| File::open(folder).ok()).flatten() else {
        return;
    };
    if lock.try_lock().is_err() {
        return;
    }
    match put_back(folder) {
        Ok(()) => {
            tracing::info!(folder = %folder.display(), "Put back what an ended process had set aside.");
        }
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "Could not put back what an ended process had set aside.");
        }
    }
}

/// Moves a private folder's file to where it was, or beside it where the name is taken, and removes the folder.
fn put_back(folder: &Path) -> io::Result<()> {
    let parent = folder.parent().unwrap_or(Path::new("."));
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let mut target = parent.join(&name);
        let mut number = 1u32;
        while let Err(error) = rename_new(&folder.join(&name), &target) {
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(say(error, "cannot put back", &target));
            }
            target = parent.join(numbered(&name, number));
            number = number.saturating_add(1);
        }
        if number > 1 {
            tracing::warn!(
                file = %target.display(),
                "A file that had been set aside was put back under another name: its own was taken."
            );
        }
    }
    fs::remove_dir(folder)?;
    sync_folder(parent)
}

/// `a.csv` becomes `a.kept-1.csv`; a long name is cut so that it fits.
fn numbered(name: &OsStr, number: u32) -> String {
    let name = name.to_string_lossy();
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (stem, format!(".{extension}")),
        _ => (&*name, String::new()),
    };
    let end = format!(".kept-{number}{extension}");
    let mut cut = stem.len().min(255usize.saturating_sub(end.len()));
    while !stem.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}{end}", &stem[..cut])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_put_back_beside_another_keeps_its_extension_and_fits() {
        let shown = |name: &str| numbered(OsStr::new(name), 2);
        assert_eq!(shown("a.csv"), "a.kept-2.csv");
        assert_eq!(shown(".log"), ".log.kept-2");
        let long = format!("{}.csv", "ü".repeat(125));
        assert!(shown(&long).len() <= 255 && shown(&long).ends_with(".kept-2.csv"));
    }
}
