//! Whether a process lives, as other processes can see it: a file in `sessions/` that is locked for as long as it does. The
//! kernel drops the lock with the process, however it ends, so others need not wait for a lease to run out.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SUFFIX: &str = "lock";
const BEGINNING: &str = "new";
const PURPOSE: &str = "purpose";

/// This process's session. Dropping it ends the session.
#[derive(Debug)]
pub(super) struct Session {
    id: String,
    folder: PathBuf,
    // Kept open for its lock.
    _file: File,
}

impl Session {
    /// Begins a session in `folder` (made if missing). Locked under a temporary name first, so that other
    /// processes only ever see the final name locked.
    pub(super) fn begin(folder: &Path) -> io::Result<Self> {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let id = format!("{:x}-{:08x}", since.as_millis(), fastrand::u32(..));
        let beginning = folder.join(format!("{id}.{BEGINNING}"));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&beginning)?;
        file.lock()?;
        fs::rename(&beginning, path_of(folder, &id))?;
        Ok(Self {
            id,
            folder: folder.to_owned(),
            _file: file,
        })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Whether the process of session `id` lives. When in doubt it does: the lease time then decides.
    pub(super) fn is_alive(&self, id: &str) -> bool {
        id == self.id || is_alive(&self.folder, id)
    }

    /// Removes the files of sessions that have ended, and of those that never began. The caller holds the folder's
    /// opening lock, so that none is just beginning.
    pub(super) fn sweep(&self) {
        for path in
            entries(&self.folder).filter(|path| path.extension().is_some_and(|e| e == BEGINNING))
        {
            let _ = fs::remove_file(path);
        }
        for id in others(&self.folder, &self.id) {
            if !is_alive(&self.folder, &id) {
                // Another process may sweep too; a file that is gone counts as an ended session.
                let _ = fs::remove_file(path_of(&self.folder, &id));
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = fs::remove_file(path_of(&self.folder, &self.id));
    }
}

/// What the processes that are at work in a folder work for: a file that each of them has locked for as long as it does.
#[derive(Debug)]
pub(super) struct SharedPurpose {
    // Kept open for its lock.
    _file: File,
}

impl SharedPurpose {
    /// Joins those that work for `purpose`; the purpose of the others where they work for another one. The caller holds the folder's
    /// opening lock.
    pub(super) fn join(folder: &Path, purpose: &str) -> io::Result<Result<Self, String>> {
        let path = folder.join(PURPOSE);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        let last = fs::read(&path)?;
        // Of the same purpose as the last one nothing is written, which a full disk would refuse.
        if last != purpose.as_bytes() {
            match file.try_lock() {
                Ok(()) => fs::write(&path, purpose)?,
                Err(TryLockError::WouldBlock) => {
                    return Ok(Err(String::from_utf8_lossy(&last).into_owned()));
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
            file.unlock()?;
        }
        file.lock_shared()?;
        Ok(Ok(Self { _file: file }))
    }
}

/// When the session of this id began.
pub(super) fn begun_at(id: &str) -> Option<SystemTime> {
    let (since, _) = id.split_once('-')?;
    let millis = u64::from_str_radix(since, 16).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}

fn path_of(folder: &Path, id: &str) -> PathBuf {
    folder.join(format!("{id}.{SUFFIX}"))
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

fn others(folder: &Path, own: &str) -> impl Iterator<Item = String> {
    let own = own.to_owned();
    entries(folder)
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == SUFFIX)
        })
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .filter(move |id| *id != own)
}

fn is_alive(folder: &Path, id: &str) -> bool {
    // A shared lock is requested, so that two observers do not take each other for the holder.
    match File::open(path_of(folder, id)) {
        Ok(file) => matches!(
            file.try_lock_shared(),
            Err(TryLockError::WouldBlock | TryLockError::Error(_))
        ),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}
