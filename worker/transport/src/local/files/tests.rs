//! The contract over a folder, and what only a folder has: links, pipes, names that are not UTF-8, dead writers.
#![expect(clippy::unwrap_used, reason = "tests end by panicking")]

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::OFlags;
use rustix::io::Errno;
use tempfile::TempDir;

use super::pending::{self, Leftover};
use super::{AwaitedFiles, LocalFiles, PendingLocal};
use crate::contract_tests::{
    self,
    files::{name, read, version, write},
};
use crate::local::{Local, LocalOptions};
use crate::{ExactFile, FileName, Files, ReservedEntry};

fn open(folder: &Path) -> LocalFiles {
    LocalFiles::open("file:///data/out", folder).unwrap()
}

/// A location and a folder outside it, both empty.
fn inside_and_outside() -> (TempDir, LocalFiles, std::path::PathBuf) {
    let both = tempfile::tempdir().unwrap();
    let outside = both.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let files = open(&both.path().join("inside"));
    (both, files, outside)
}

fn names(files: &LocalFiles) -> Vec<String> {
    let entries = files.list().unwrap().files.into_iter();
    entries
        .map(|entry| entry.name.as_str().to_owned())
        .collect()
}

fn left_out(files: &LocalFiles) -> Vec<String> {
    let left_out = files.list().unwrap().left_out.into_iter();
    left_out.map(|left_out| left_out.name).collect()
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn a_folder_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let files = open(folder.path());
    assert_eq!(files.location(), "file:///data/out");
    contract_tests::files::all(&files);
}

#[test]
fn a_location_reached_through_a_link_keeps_the_contract() {
    let (both, _, outside) = inside_and_outside();
    let link = both.path().join("link");
    symlink(&outside, &link).unwrap();
    contract_tests::files::all(&open(&link));
}

#[test]
fn a_dropped_write_removes_its_folders_and_leaves_those_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let files = open(folder.path());
    let first = files.create(&name("new/deep/first")).unwrap();
    let second = files.create(&name("new/second")).unwrap();
    drop(first);
    second.commit(version(1)).unwrap();
    assert_eq!(names(&files), ["new/second"]);
    assert_eq!(entries(&folder.path().join("new")), 1);
}

#[test]
fn the_longest_names_and_paths_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let files = open(folder.path());
    let part = "ü".repeat(127);
    let long = [part.as_str(); FileName::MAX_BYTES / 255].join("/");
    let longest = name(&long);
    write(&files, &longest, b"deep", version(1));
    assert_eq!(read(&files, &longest), b"deep");
    assert_eq!(names(&files), [long]);
}

#[test]
fn a_link_in_the_place_of_a_file_is_replaced_and_its_target_stays() {
    let (_both, files, outside) = inside_and_outside();
    let target = outside.join("target");
    fs::write(&target, "theirs").unwrap();
    symlink(&target, files.root.join("link")).unwrap();
    symlink(outside.join("nowhere"), files.root.join("dangling")).unwrap();
    for link in ["link", "dangling"] {
        write(&files, &name(link), b"ours", version(1));
        assert_eq!(read(&files, &name(link)), b"ours");
    }
    assert_eq!(fs::read(&target).unwrap(), b"theirs");
    assert_eq!(entries(&outside), 1);
}

#[test]
fn nothing_is_read_listed_written_or_removed_through_a_link_that_leads_outside() {
    let (_both, files, outside) = inside_and_outside();
    fs::write(outside.join("secret"), "theirs").unwrap();
    symlink(&outside, files.root.join("folder")).unwrap();
    symlink(outside.join("secret"), files.root.join("file")).unwrap();
    assert!(names(&files).is_empty());
    assert_eq!(left_out(&files), ["file", "folder"]);
    let folders = files.list().unwrap().left_out;
    assert_eq!([false, true], [0, 1].map(|n| folders[n].is_folder));
    let (file, below) = (name("file"), name("folder/secret"));
    let refused = |outcome: std::io::Result<()>| {
        let error = outcome.expect_err("should be refused");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("symbolic link"), "{error}");
    };
    for leads_out in [&file, &below] {
        refused(files.read(leads_out).map(drop));
        refused(files.stat(leads_out).map(drop));
    }
    write(&files, &name("ours"), b"ours", version(1));
    let ours = files.stat(&name("ours")).unwrap().unwrap();
    let exact = ExactFile {
        entry: &ours,
        hash: None,
        on_read: &|| {},
    };
    for new in [&below, &name("folder/new"), &name("folder/deeper/new")] {
        refused(files.create(new).map(drop));
        refused(files.rename_exact(&exact, new).map(drop));
    }
    assert_eq!(names(&files), ["ours"]);
    refused(files.remove(&below));
    assert_eq!(entries(&outside), 1);
    assert_eq!(fs::read(outside.join("secret")).unwrap(), b"theirs");
    files.remove(&file).unwrap();
    assert!(outside.join("secret").exists());
}

#[test]
fn a_link_that_stays_inside_is_followed() {
    let (_both, files, _) = inside_and_outside();
    write(&files, &name("real/file"), b"bytes", version(1));
    symlink("real/file", files.root.join("link")).unwrap();
    symlink("real", files.root.join("folder")).unwrap();
    symlink("loop", files.root.join("loop")).unwrap();
    symlink("nowhere", files.root.join("dangling")).unwrap();
    assert_eq!(names(&files), ["link", "real/file"]);
    assert_eq!(left_out(&files), ["dangling", "loop"]);
    let loops = files.list().unwrap().left_out.pop().unwrap();
    let words = "leads back to itself: remove it, or make it lead elsewhere";
    assert!(loops.reason.contains(words), "{}", loops.reason);
    assert_eq!(read(&files, &name("link")), b"bytes");
    assert_eq!(read(&files, &name("folder/file")), b"bytes");
}

#[test]
fn what_the_system_does_not_permit_is_said_with_what_to_look_for() {
    let error = super::say(Errno::PERM.into(), "cannot write", Path::new("a.txt"));
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(
        error.to_string(),
        "cannot write a.txt: Operation not permitted (os error 1); an attribute such as immutable forbids it, which 'lsattr' \
         shows and 'chattr' takes away, or this user lacks a right"
    );
    let refused = super::say(Errno::ACCESS.into(), "cannot write", Path::new("a.txt"));
    assert!(!refused.to_string().contains("lsattr"), "{refused}");
}

#[test]
fn what_is_no_file_is_skipped_and_never_opened() {
    let folder = tempfile::tempdir().unwrap();
    let files = open(folder.path());
    write(&files, &name("file"), b"bytes", version(1));
    let made = Command::new("mkfifo")
        .arg(folder.path().join("pipe"))
        .status()
        .unwrap();
    assert!(made.success());
    fs::create_dir(folder.path().join("folder")).unwrap();
    assert_eq!(names(&files), ["file"]);
    assert_eq!(left_out(&files), ["pipe"]);
    for no_file in ["pipe", "folder"] {
        let error = files.read(&name(no_file)).map(drop).unwrap_err();
        assert!(error.to_string().contains("is not a file"), "{error}");
    }
    let error = files.create(&name("folder")).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IsADirectory);
    let error = files.create(&name("file/below")).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotADirectory);
}

#[test]
fn names_that_are_not_utf_8_are_skipped_and_the_rest_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let files = open(folder.path());
    write(&files, &name("good"), b"", version(1));
    fs::write(folder.path().join(OsStr::from_bytes(b"bad\xff")), "").unwrap();
    let odd_folder = folder.path().join(OsStr::from_bytes(b"odd\xfe"));
    fs::create_dir(&odd_folder).unwrap();
    fs::write(odd_folder.join("inside"), "").unwrap();
    assert_eq!(names(&files), ["good"]);
    assert_eq!(left_out(&files), ["bad\u{fffd}", "odd\u{fffd}/inside"]);
}

#[test]
fn what_has_no_name_hides_no_file_and_a_large_file_is_replaced_only_as_it_was_seen() {
    let folder = tempfile::tempdir().unwrap();
    let files = open(folder.path());
    contract_tests::files::a_large_file_is_replaced_only_if_it_is_the_one_that_was_seen(&files);
    let replies = folder.path().join(".streampress/replies");
    fs::create_dir_all(&replies).unwrap();
    for folder in [folder.path(), &replies] {
        fs::write(folder.join(OsStr::from_bytes(b"bad\xff.csv")), "").unwrap();
    }
    contract_tests::files::what_has_no_name_hides_no_file(&files, &[ReservedEntry::Replies]);
}

#[test]
fn a_folder_that_cannot_be_listed_is_named_and_the_rest_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let files = open(folder.path());
    write(&files, &name("good"), b"", version(1));
    write(&files, &name("locked/file"), b"", version(1));
    let locked = folder.path().join("locked");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o0)).unwrap();
    let restricted = fs::read_dir(&locked).is_err();
    let listing = files.list().unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o755)).unwrap();
    // The superuser may list every folder.
    if restricted {
        assert_eq!(listing.files.len(), 1);
        assert_eq!(listing.left_out.len(), 1);
        assert!(listing.left_out[0].is_folder && listing.left_out[0].name == "locked");
        assert!(listing.left_out[0].reason.contains("readable"));
    } else {
        assert_eq!(listing.files.len(), 2);
    }
}

#[test]
fn a_data_folder_below_a_location_is_not_listed() {
    let folder = tempfile::tempdir().unwrap();
    let files = open(folder.path());
    write(&files, &name("mine.csv"), b"", version(1));
    let data = folder.path().join("streampress-data/p");
    let _local = Local::open(&data, LocalOptions::default()).unwrap();
    write(
        &files,
        &name("streampress-data/p/out/mine.csv"),
        b"",
        version(1),
    );
    assert_eq!(names(&files), ["mine.csv"]);
    assert!(left_out(&files).is_empty());
    let out = open(&data.join("out"));
    assert_eq!(
        names(&out),
        ["mine.csv"],
        "a folder inside is listed by its own name"
    );
}

#[test]
fn an_ended_processs_unfinished_file_is_removed_and_a_living_ones_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let files = open(folder.path());
    // Its own search for such files, which goes on beside the work, would find what is written below.
    files.await_cleanup();
    let mut alive = files.create(&name("deep/alive")).unwrap();
    alive.write_all(b"still writing").unwrap();
    let left = folder
        .path()
        .join("deep/.streampress-0123456789abcdef.part");
    let theirs = folder.path().join("deep/.streampress-notes.part");
    fs::write(&left, "half").unwrap();
    fs::write(&theirs, "a user's file").unwrap();
    assert_eq!(names(&files), ["deep/.streampress-notes.part"]);
    LocalFiles::open_existing("x", folder.path()).unwrap();
    assert!(
        left.exists(),
        "opening for reading must not change anything"
    );
    let again = open(folder.path());
    again.await_cleanup();
    assert!(!left.exists() && theirs.exists());
    alive.commit(version(1)).unwrap();
    assert_eq!(read(&again, &name("deep/alive")), b"still writing");
}

/// As NFS does it: an exclusive lock is only for a handle that may write.
fn lock_as_on_nfs(file: &File) -> Result<(), TryLockError> {
    let flags = rustix::fs::fcntl_getfl(file).unwrap();
    match flags.intersects(OFlags::WRONLY | OFlags::RDWR) {
        true => file.try_lock(),
        false => Err(TryLockError::Error(Errno::BADF.into())),
    }
}

#[test]
fn an_unfinished_file_is_removed_where_only_a_writer_may_lock_it_as_on_nfs() {
    let folder = tempfile::tempdir().unwrap();
    let left = folder.path().join(".streampress-0123456789abcdef.part");
    fs::write(&left, "half").unwrap();
    let writer = File::open(&left).unwrap();
    writer.lock().unwrap();
    let found = pending::remove_unless_locked(&left, lock_as_on_nfs);
    assert!(matches!(found, Leftover::InUse), "{found:?}");
    assert!(left.exists(), "its writer lives");
    drop(writer);
    let found = pending::remove_unless_locked(&left, lock_as_on_nfs);
    assert!(matches!(found, Leftover::Removed), "{found:?}");
    assert!(!left.exists());
}

#[test]
fn an_unfinished_file_that_cannot_be_locked_stays_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let left = folder.path().join(".streampress-0123456789abcdef.part");
    fs::write(&left, "half").unwrap();
    let refused = |_: &File| Err(TryLockError::Error(Errno::NOLCK.into()));
    let found = pending::remove_unless_locked(&left, refused);
    let Leftover::Stays(error) = found else {
        panic!("{found:?}");
    };
    assert_eq!(error.to_string(), "No locks available (os error 37)");
    assert!(left.exists());
}

#[test]
fn a_location_can_be_written_while_its_unfinished_files_are_still_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    // So many that the walk is still under way while the first files are written.
    for number in 0..500 {
        let below = folder.path().join(format!("{number}"));
        fs::create_dir(&below).unwrap();
        fs::write(below.join(".streampress-0123456789abcdef.part"), "half").unwrap();
    }
    let files = open(folder.path());
    for number in 0..500 {
        let name = name(&format!("{number}/a.csv"));
        write(&files, &name, b"whole", version(1));
        assert_eq!(read(&files, &name), b"whole");
    }
    files.await_cleanup();
    for number in 0..500 {
        assert_eq!(entries(&folder.path().join(format!("{number}"))), 1);
    }
}

#[test]
fn a_file_that_an_ended_process_had_set_aside_goes_back_and_replaces_none() {
    let folder = tempfile::tempdir().unwrap();
    let files = open(folder.path());
    let aside = folder
        .path()
        .join("sub/.streampress-0123456789abcdef.aside");
    fs::create_dir_all(&aside).unwrap();
    fs::write(aside.join("a.csv"), "the older").unwrap();
    let held = File::open(&aside).unwrap();
    held.lock().unwrap();
    assert!(names(&files).is_empty(), "its process still works on it");
    drop(held);
    // The listing that puts it back may have read the folder before.
    files.list().unwrap();
    assert_eq!(names(&files), ["sub/a.csv"]);
    fs::create_dir(&aside).unwrap();
    fs::write(aside.join("a.csv"), "older still").unwrap();
    files.list().unwrap();
    assert_eq!(names(&files), ["sub/a.csv", "sub/a.kept-1.csv"]);
    assert_eq!(read(&files, &name("sub/a.csv")), b"the older");
    assert_eq!(read(&files, &name("sub/a.kept-1.csv")), b"older still");
    assert!(!aside.exists());
}

#[test]
fn the_first_listing_shows_what_was_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let aside = folder.path().join(".streampress-0123456789abcdef.aside");
    fs::create_dir_all(&aside).unwrap();
    fs::write(aside.join("a.csv"), "whole").unwrap();
    assert_eq!(names(&open(folder.path())), ["a.csv"]);
}

#[test]
fn names_of_our_unfinished_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let files = open(folder.path());
    let ours = name("a/.streampress-0123456789abcdef.part");
    let error = files.create(&ours).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("rename it"), "{error}");
}

#[test]
fn the_transport_in_a_data_folder_is_not_listed() {
    let folder = tempfile::tempdir().unwrap();
    let _local = Local::open(folder.path(), LocalOptions::default()).unwrap();
    let files = open(folder.path());
    write(&files, &name("in/stream/file"), b"", version(1));
    write(&files, &name("streampress.db.json"), b"", version(1));
    assert_eq!(names(&files), ["in/stream/file", "streampress.db.json"]);
}

#[test]
fn what_others_put_into_a_reserved_folder_is_left_out_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let files = open(folder.path());
    for ours in [
        ".streampress/owner.json",
        ".streampress/replies/a",
        "other/.streampress/journal/0/a.json",
        "other/.streampress/displaced/a.json",
    ] {
        write(&files, &name(ours), b"ours", version(1));
    }
    assert!(left_out(&files).is_empty());
    for theirs in [
        ".streampress/x.json",
        "sub/.streampress/y.json",
        "sub/.streampress/deep/z.json",
    ] {
        write(&files, &name(theirs), b"theirs", version(1));
    }
    assert_eq!(
        left_out(&files),
        [
            ".streampress/x.json",
            "sub/.streampress/deep",
            "sub/.streampress/y.json"
        ]
    );
    let listing = files.list().unwrap();
    assert!(listing.files.is_empty());
    for left_out in listing.left_out {
        assert!(left_out.reason.contains("reserved"), "{}", left_out.reason);
        assert_eq!(left_out.is_folder, left_out.name.ends_with("deep"));
    }
}

#[test]
fn a_data_folder_below_a_location_is_named_and_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("data/one");
    let _local = Local::open(&inner, LocalOptions::default()).unwrap();
    std::fs::write(inner.join("inside.json"), b"[]").unwrap();
    let files = open(folder.path());
    write(&files, &name("beside.json"), b"", version(1));
    let listing = files.list().unwrap();
    assert_eq!(names(&files), ["beside.json"]);
    assert_eq!(listing.data_folders, ["data/one"]);
}

#[test]
fn a_location_whose_folder_has_vanished_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("mount/in");
    let files = open(&root);
    files.ensure_exists().unwrap();
    std::fs::remove_dir_all(folder.path().join("mount")).unwrap();
    let error = files.ensure_exists().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected);
    assert!(error.to_string().contains("mount its disk"), "{error}");
    // Nor is it made anew for a file: that would go to another disk.
    let error = files.create(&name("sub/a.json")).err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::NotConnected);
    files.probe(1).unwrap_err();
    assert!(!root.exists());
}

#[test]
fn an_awaited_folder_is_opened_once_it_is_there_and_never_made() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("mount/out");
    let files = AwaitedFiles::open("file:///mount/out", &root).unwrap();
    for error in [
        files.stat(&name("a.json")).err(),
        files.create(&name("a.json")).err(),
        files.list().err(),
        files.probe(1).err(),
        files.ensure_exists().err(),
    ] {
        let error = error.expect("refused");
        assert_eq!(error.kind(), ErrorKind::NotConnected);
        assert!(error.to_string().contains("mount its disk"), "{error}");
    }
    assert!(!root.exists());
    std::fs::create_dir_all(&root).unwrap();
    write(&files, &name("a.json"), b"[1]", version(1));
    assert_eq!(read(&files, &name("a.json")), b"[1]");
    std::fs::remove_dir_all(&root).unwrap();
    files.ensure_exists().unwrap_err();
    // A file in its place is no disk that comes later.
    std::fs::write(&root, b"").unwrap();
    AwaitedFiles::open("file:///mount/out", &root).unwrap_err();
}

#[test]
fn a_missing_folder_is_created_for_writing_and_named_for_reading() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("not/yet");
    let error = LocalFiles::open_existing("file:///data/in", &missing).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("not/yet"), "{error}");
    open(&missing);
    LocalFiles::open_existing("file:///data/in", &missing).unwrap();
}

#[test]
fn writing_in_small_pieces_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let files = open(folder.path());
    let bytes: Vec<u8> = (0..200_000u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut pending = files.create(&name("pieces")).unwrap();
    for piece in bytes.chunks(777) {
        pending.write_all(piece).unwrap();
    }
    pending.commit(version(1)).unwrap();
    assert!(read(&files, &name("pieces")) == bytes);
}

#[test]
fn a_location_that_is_away_is_no_empty_one_and_is_not_made_anew() {
    let above = tempfile::tempdir().unwrap();
    let (root, held) = (above.path().join("out"), above.path().join("held"));
    let files = open(&root);
    let file = name("folder/a.txt");
    write(&files, &file, b"words", version(1));
    let entry = files.stat(&file).unwrap().unwrap();
    fs::rename(&root, &held).unwrap();
    let folder = ReservedEntry::Displaced.file("").unwrap();
    let exact = ExactFile {
        entry: &entry,
        hash: None,
        on_read: &|| {},
    };
    for (call, failed) in [
        ("stat", files.stat(&file).map(drop)),
        ("read", files.read(&file).map(drop)),
        ("create", files.create(&file).map(drop)),
        ("remove", files.remove(&file)),
        ("rename", files.rename(&file, &name("b.txt"))),
        ("list_reserved", files.list_reserved(&folder).map(drop)),
        ("set_modified", files.set_modified(&file, version(2))),
        ("remove_exact", files.remove_exact(&exact).map(drop)),
        ("list", files.list().map(drop)),
    ] {
        let kind = failed.expect_err(call).kind();
        assert_eq!(kind, io::ErrorKind::NotConnected, "{call}");
    }
    // It went away after it was looked for.
    let place = root.join("folder/a.txt");
    let begun = PendingLocal::begin(file.clone(), &root, place, Vec::new());
    assert!(begun.is_err());
    assert!(!root.exists(), "made anew");
    fs::rename(&held, &root).unwrap();
    assert_eq!(files.stat(&file).unwrap(), Some(entry));
    files.create(&name("new/b.txt")).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn an_unfinished_file_is_removed_where_its_folder_was_moved_meanwhile() {
    let above = tempfile::tempdir().unwrap();
    let (root, held) = (above.path().join("out"), above.path().join("held"));
    let files = open(&root);
    let mut pending = files.create(&name("folder/a.txt")).unwrap();
    pending.write_all(b"words").unwrap();
    fs::rename(&root, &held).unwrap();
    assert_eq!(fs::read_dir(held.join("folder")).unwrap().count(), 1);
    drop(pending);
    assert_eq!(fs::read_dir(held.join("folder")).unwrap().count(), 0);
}
