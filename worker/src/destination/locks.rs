//! Locks of names, so that one worker at a time decides what is visible under a name. They hold between the processes
//! that share the folder, and end with the process that holds them.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::message::Digest;
use crate::runtime::blocking;
use streampress_transport::{FileName, ReservedEntry};

/// Between two attempts: another worker's write of one file takes some milliseconds.
const POLL: Duration = Duration::from_millis(5);

/// A folder of lock files, each shared by the names whose hash begins alike.
#[derive(Debug, Clone)]
pub struct NameLocks {
    folder: Arc<PathBuf>,
}

/// A held lock; nothing where the location's conditional writes take its place.
#[derive(Debug)]
pub struct NameLock {
    _file: Option<File>,
}

impl NameLock {
    /// The lock of a location that needs none.
    pub fn none() -> Self {
        Self { _file: None }
    }
}

impl NameLocks {
    /// Locks of the location `root`, in a folder that is made at the first lock.
    pub(crate) fn in_location(root: &Path) -> Self {
        Self {
            folder: Arc::new(root.join(ReservedEntry::Locks.path())),
        }
    }

    /// Waits for the name's lock.
    pub async fn lock(&self, name: &FileName) -> io::Result<NameLock> {
        let path = self.path(name);
        loop {
            let wanted = path.clone();
            match blocking(move || try_lock(&wanted)).await? {
                Some(file) => return Ok(NameLock { _file: Some(file) }),
                None => tokio::time::sleep(POLL).await,
            }
        }
    }

    fn path(&self, name: &FileName) -> PathBuf {
        let digest = Digest::of(name.as_str().as_bytes());
        let shard = &digest.as_str()[..2];
        self.folder.join(format!("{shard}.lock"))
    }
}

/// Makes the folder of a lock and the reserved folder that it is in; never the location itself, whose disk may not be mounted.
fn make_folder(lock: &Path) -> io::Result<()> {
    let mut folders: Vec<&Path> = lock.ancestors().skip(1).take(2).collect();
    folders.reverse();
    for folder in folders {
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// `None` while another worker holds the lock.
fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let open = || {
        File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
    };
    let file = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_folder(path)?;
            open()?
        }
        opened => opened?,
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lock_makes_its_own_folder_and_not_the_location() {
        let above = tempfile::tempdir().expect("a folder");
        let (name, root) = (FileName::parse("a.csv"), above.path().join("out"));
        let (name, locks) = (name.expect("a valid name"), NameLocks::in_location(&root));
        let error = locks.lock(&name).await.expect_err("it is not there");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!root.exists());
        fs::create_dir(&root).expect("made");
        let lock = locks.lock(&name).await.expect("locked");
        assert!(try_lock(&locks.path(&name)).expect("looked").is_none());
        drop(lock);
        assert!(try_lock(&locks.path(&name)).expect("looked").is_some());
    }
}
