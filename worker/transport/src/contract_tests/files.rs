//! The contract of [`Files`]: blocking, on a location that is empty at first.
#![expect(clippy::unwrap_used, reason = "checks end by panicking")]

use std::io::{self, Read, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{FileEntry, FileName, Files};

/// Everything that a location promises; leaves it empty.
pub fn all(files: &dyn Files) {
    a_write_is_visible_only_when_committed(files);
    a_dropped_write_leaves_nothing(files);
    a_new_version_replaces_the_old_as_a_whole(files);
    odd_names_are_kept_and_listed_in_order(files);
    a_rename_replaces_what_is_there(files);
    a_probe_leaves_nothing(files);
    a_sample_names_files_that_are_there(files);
    what_is_not_there_is_none_or_not_found(files);
    assert!(files.list().unwrap().is_empty());
}

/// However many bytes it is about.
pub fn a_probe_leaves_nothing(files: &dyn Files) {
    files.probe(0).unwrap();
    files.probe(1 << 20).unwrap();
    assert!(files.list().unwrap().is_empty());
}

/// At most so many.
pub fn a_sample_names_files_that_are_there(files: &dyn Files) {
    assert!(files.sample(10).unwrap().is_empty());
    let there = [name("a"), name("folder/b"), name("c")];
    for name in &there {
        write(files, name, b"words", version(1));
    }
    assert_eq!(files.sample(2).unwrap().len(), 2);
    let mut all = files.sample(10).unwrap();
    all.sort();
    assert_eq!(all, [name("a"), name("c"), name("folder/b")]);
    for name in &there {
        files.remove(name).unwrap();
    }
}

/// A name that must be good.
pub fn name(text: &str) -> FileName {
    FileName::parse(text).unwrap()
}

/// A version: whole seconds, which every implementation can keep.
pub fn version(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

/// Writes a whole file.
pub fn write(files: &dyn Files, name: &FileName, bytes: &[u8], modified: SystemTime) {
    let mut pending = files.create(name).unwrap();
    pending.write_all(bytes).unwrap();
    pending.commit(modified).unwrap();
}

/// Reads a whole file.
pub fn read(files: &dyn Files, name: &FileName) -> Vec<u8> {
    let mut bytes = Vec::new();
    files.read(name).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn names(files: &dyn Files) -> Vec<String> {
    let entries = files.list().unwrap().into_iter();
    entries
        .map(|entry| entry.name.as_str().to_owned())
        .collect()
}

/// Then with size and version.
pub fn a_write_is_visible_only_when_committed(files: &dyn Files) {
    let name = name("folder/deeper/file.json");
    let mut pending = files.create(&name).unwrap();
    pending.write_all(b"half").unwrap();
    pending.flush().unwrap();
    assert!(files.stat(&name).unwrap().is_none());
    assert!(files.list().unwrap().is_empty());
    pending.write_all(b" and half").unwrap();
    pending.commit(version(1)).unwrap();
    let entry = FileEntry {
        name: name.clone(),
        size: 13,
        modified: version(1),
    };
    assert_eq!(files.stat(&name).unwrap().as_ref(), Some(&entry));
    assert_eq!(files.list().unwrap(), [entry]);
    assert_eq!(read(files, &name), b"half and half");
    files.remove(&name).unwrap();
}

/// And what was there before stays.
pub fn a_dropped_write_leaves_nothing(files: &dyn Files) {
    let kept = name("kept");
    write(files, &kept, b"old", version(1));
    for dropped in [&kept, &name("new/folder/file")] {
        let mut pending = files.create(dropped).unwrap();
        pending.write_all(b"never").unwrap();
    }
    assert_eq!(names(files), ["kept"]);
    assert_eq!(read(files, &kept), b"old");
    files.remove(&kept).unwrap();
}

/// A reader of the old one meanwhile reads it to its end.
pub fn a_new_version_replaces_the_old_as_a_whole(files: &dyn Files) {
    let name = name("versions.csv");
    write(files, &name, b"first", version(1));
    let mut reading = files.read(&name).unwrap();
    write(files, &name, b"the second", version(2));
    let mut old = String::new();
    reading.read_to_string(&mut old).unwrap();
    assert_eq!(
        (old.as_str(), read(files, &name).as_slice()),
        ("first", &b"the second"[..])
    );
    assert_eq!(files.stat(&name).unwrap().unwrap().modified, version(2));
    files.remove(&name).unwrap();
}

/// Spaces, characters with a meaning elsewhere, unicode, 255 bytes, and dots.
pub fn odd_names_are_kept_and_listed_in_order(files: &dyn Files) {
    let long = "l".repeat(255);
    let mut odd: Vec<String> = [
        "a file.json",
        "50%25 #1?.csv",
        "ünïcode/日本語.txt",
        "back\\slash",
        "new\nline",
        ".hidden",
        "...",
        "-dash",
        "quote'\"",
        "folder.d/x",
        "*",
        "c:d",
        " ",
        &long,
    ]
    .map(str::to_owned)
    .into();
    odd.push(format!("m{}/{long}", "l".repeat(200)));
    for (number, text) in (0u64..).zip(&odd) {
        write(files, &name(text), text.as_bytes(), version(number));
    }
    odd.sort();
    assert_eq!(names(files), odd);
    for text in &odd {
        assert_eq!(read(files, &name(text)), text.as_bytes());
        files.remove(&name(text)).unwrap();
    }
}

/// With its version; the folder is created.
pub fn a_rename_replaces_what_is_there(files: &dyn Files) {
    let (from, to) = (name("from"), name("another/to"));
    write(files, &from, b"new", version(5));
    write(files, &to, b"old", version(1));
    files.rename(&from, &to).unwrap();
    assert_eq!(names(files), ["another/to"]);
    assert_eq!(read(files, &to), b"new");
    files.remove(&to).unwrap();
}

/// Removing it is no error.
pub fn what_is_not_there_is_none_or_not_found(files: &dyn Files) {
    for gone in [name("gone"), name("no/such/folder/gone")] {
        assert!(files.stat(&gone).unwrap().is_none());
        files.remove(&gone).unwrap();
        let missing = |outcome: io::Result<()>| {
            assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::NotFound);
        };
        missing(files.read(&gone).map(drop));
        missing(files.rename(&gone, &name("target")));
    }
}
