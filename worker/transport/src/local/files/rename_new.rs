//! A rename that never replaces a file, on every file system.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Once;

use rustix::fs::{AtFlags, CWD, RenameFlags, linkat, renameat_with};
use rustix::io::Errno;

/// The calls of the system that it needs, which not every file system knows.
struct Calls {
    rename: fn(&Path, &Path) -> Result<(), Errno>,
    link: fn(&Path, &Path) -> Result<(), Errno>,
}

const SYSTEM: Calls = Calls {
    rename: |from, to| renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE),
    link: |from, to| linkat(CWD, from, CWD, to, AtFlags::empty()),
};

/// Renames a file and never replaces one: an error of kind `AlreadyExists` where the name is taken.
///
/// Of several processes that do so in one moment one succeeds, on every file system that can rename without replacing (those of
/// local disks, SMB) or has hard links (NFS). Elsewhere, as in a bucket that FUSE shows as a folder, the name is looked at right
/// before: two processes in the same moment may both succeed, and the later one's file stays.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    rename_new_by(&SYSTEM, from, to)
}

fn rename_new_by(calls: &Calls, from: &Path, to: &Path) -> io::Result<()> {
    match (calls.rename)(from, to) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
        renamed => return Ok(renamed?),
    }
    match (calls.link)(from, to) {
        Ok(()) => fs::remove_file(from),
        // A process ended before it removed the old name; or the answer to this very call was lost, and NFS asked again.
        Err(Errno::EXIST) if is_same_file(from, to) => fs::remove_file(from),
        Err(Errno::PERM | Errno::NOSYS | Errno::NOTSUP) => rename_to_absent(from, to),
        Err(error) => Err(error.into()),
    }
}

fn is_same_file(from: &Path, to: &Path) -> bool {
    let inode = |path: &Path| {
        let meta = path.symlink_metadata().ok()?;
        Some((meta.dev(), meta.ino()))
    };
    inode(from).is_some_and(|from| Some(from) == inode(to))
}

/// See [`rename_new`] for what holds.
fn rename_to_absent(from: &Path, to: &Path) -> io::Result<()> {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        tracing::warn!(
            folder = %to.parent().unwrap_or(to).display(),
            "The file system has no hard links and cannot rename without replacing: let only one process write here."
        );
    });
    match to.symlink_metadata() {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(from, to),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    /// As NFS.
    const WITHOUT_FLAG: Calls = Calls {
        rename: |_, _| Err(Errno::INVAL),
        link: SYSTEM.link,
    };
    /// As some file systems of FUSE.
    const WITHOUT_LINKS: Calls = Calls {
        link: |_, _| Err(Errno::PERM),
        ..WITHOUT_FLAG
    };

    #[test]
    fn a_free_name_is_taken_and_a_taken_one_is_not_replaced_on_every_file_system() {
        for calls in [SYSTEM, WITHOUT_FLAG, WITHOUT_LINKS] {
            let folder = tempfile::tempdir().expect("a folder");
            let [one, two, to] = ["one", "two", "to"].map(|name| folder.path().join(name));
            fs::write(&one, "one").expect("written");
            fs::write(&two, "two").expect("written");
            rename_new_by(&calls, &one, &to).expect("free");
            let error = rename_new_by(&calls, &two, &to).expect_err("taken");
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(fs::read(&to).expect("there"), b"one");
            assert!(two.exists() && !one.exists());
            let error = rename_new_by(&calls, &one, &folder.path().join("new"));
            let error = error.expect_err("there is no such file");
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        }
    }

    #[test]
    fn of_several_processes_one_gets_the_name_where_the_file_system_has_only_hard_links() {
        const PROCESSES: usize = 4;
        for _ in 0..300 {
            let folder = tempfile::tempdir().expect("a folder");
            let (start, winners) = (Barrier::new(PROCESSES), AtomicUsize::new(0));
            thread::scope(|scope| {
                for number in 0..PROCESSES {
                    let (folder, start, winners) = (folder.path(), &start, &winners);
                    scope.spawn(move || {
                        let from = folder.join(number.to_string());
                        fs::write(&from, "content").expect("written");
                        start.wait();
                        if rename_new_by(&WITHOUT_FLAG, &from, &folder.join("to")).is_ok() {
                            winners.fetch_add(1, Ordering::SeqCst);
                        }
                    });
                }
            });
            assert_eq!(winners.into_inner(), 1);
        }
    }

    #[test]
    fn a_process_that_ended_after_the_link_is_completed_by_the_next() {
        let folder = tempfile::tempdir().expect("a folder");
        let [from, to] = ["from", "to"].map(|name| folder.path().join(name));
        fs::write(&from, "content").expect("written");
        fs::hard_link(&from, &to).expect("linked");
        rename_new_by(&WITHOUT_FLAG, &from, &to).expect("completed");
        assert!(!from.exists() && to.exists());
    }
}
