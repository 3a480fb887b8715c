//! The contract of [`Files`]: blocking, on a location that is empty at first.
#![expect(clippy::unwrap_used, reason = "checks end by panicking")]

use std::io::{self, Read, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{ExactFile, ExactOutcome, FileEntry, FileName, Files, Listing, ReservedEntry};

/// Everything that a location promises; leaves it empty.
pub fn all(files: &dyn Files) {
    a_write_is_visible_only_when_committed(files);
    a_dropped_write_leaves_nothing(files);
    a_new_version_replaces_the_old_as_a_whole(files);
    odd_names_are_kept_and_listed_in_order(files);
    a_rename_replaces_what_is_there(files);
    a_rename_moves_the_observed_file_and_replaces_none(files);
    what_is_not_the_observed_file_is_neither_renamed_nor_removed(files);
    a_probe_leaves_nothing(files);
    a_sample_names_files_that_are_there(files);
    what_is_not_there_is_none_or_not_found(files);
    a_file_is_replaced_only_if_it_is_the_one_that_was_seen(files);
    every_write_has_a_fingerprint_of_its_own(files);
    what_is_in_a_reserved_folder_is_listed_by_that_folder_alone(files);
    assert_eq!(files.list().unwrap(), Listing::default());
}

/// In a bucket in several parts; leaves the location as it was.
pub fn a_large_file_is_visible_only_as_a_whole_and_carries_its_version(files: &dyn Files) {
    let (name, modified) = (name("large.bin"), version(7));
    let bytes: Vec<u8> = (0..20u32 << 20).map(|i| (i % 251) as u8).collect();
    let mut pending = files.create_version(&name, modified).unwrap();
    pending.write_all(&bytes).unwrap();
    assert!(
        files.stat(&name).unwrap().is_none(),
        "visible before it was committed"
    );
    pending.commit(modified).unwrap();
    let entry = files.stat(&name).unwrap();
    assert_eq!(
        entry.map(|entry| (entry.size, entry.modified)),
        Some((20 << 20, modified))
    );
    assert!(read(files, &name) == bytes);
    files.remove(&name).unwrap();
}

/// However many bytes it is about.
pub fn a_probe_leaves_nothing(files: &dyn Files) {
    files.probe(0).unwrap();
    files.probe(1 << 20).unwrap();
    assert!(names(files).is_empty());
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

/// A location that holds something that cannot be a file's name, which the caller put there, still shows the rest: here and
/// below every folder in `beside` that Streampress keeps. Leaves only what the caller put there.
pub fn what_has_no_name_hides_no_file(files: &dyn Files, beside: &[ReservedEntry]) {
    let good = name("good.csv");
    write(files, &good, b"words", version(1));
    assert_eq!(names(files), ["good.csv"]);
    assert_ne!(files.list().unwrap().left_out, []);
    assert!(files.sample(1000).unwrap().contains(&good));
    files.probe(1).unwrap();
    for entry in beside {
        let kept = entry.file("kept.json").unwrap();
        write(files, &kept, b"ours", version(1));
        let listed = files.list_reserved(&entry.file("").unwrap()).unwrap();
        assert_eq!(listed, ["kept.json"]);
        files.remove(&kept).unwrap();
    }
    files.remove(&good).unwrap();
}

/// In a bucket in several parts; leaves the location as it was.
pub fn a_large_file_is_replaced_only_if_it_is_the_one_that_was_seen(files: &dyn Files) {
    let name = name("large.bin");
    let write = |byte: u8, seen: Option<&FileEntry>| {
        let mut pending = files.create_version(&name, version(3))?;
        pending.write_all(&vec![byte; 20 << 20])?;
        pending.prepare()?;
        pending.commit_over(version(3), seen)
    };
    let first = write(1, None).unwrap();
    assert_eq!(files.stat(&name).unwrap(), Some(first.clone()));
    let refused = |seen| {
        let kind = write(9, seen).unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::AlreadyExists);
    };
    refused(None);
    let second = write(2, Some(&first)).unwrap();
    refused(Some(&first));
    assert_eq!(files.stat(&name).unwrap(), Some(second.clone()));
    assert_eq!(read(files, &name), vec![2; 20 << 20]);
    files.remove(&name).unwrap();
    refused(Some(&second));
    assert!(files.stat(&name).unwrap().is_none());
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
    let entries = files.list().unwrap().files.into_iter();
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
    assert_eq!(files.list().unwrap(), Listing::default());
    pending.write_all(b" and half").unwrap();
    pending.commit(version(1)).unwrap();
    let entry = files.stat(&name).unwrap().unwrap();
    assert_eq!(
        (&entry.name, entry.size, entry.modified),
        (&name, 13, version(1))
    );
    assert_eq!(files.list().unwrap().files, [entry]);
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

/// Where the other does, this one never replaces.
pub fn a_rename_moves_the_observed_file_and_replaces_none(files: &dyn Files) {
    let (from, to) = (name("from"), name("another/to"));
    write(files, &from, b"new", version(5));
    write(files, &to, b"old", version(1));
    let entry = files.stat(&from).unwrap().unwrap();
    let hash = blake3::hash(b"new").to_hex();
    for hash in [None, Some(hash.as_str())] {
        let exact = ExactFile {
            entry: &entry,
            hash,
            on_read: &|| {},
        };
        let taken = files.rename_exact(&exact, &to).unwrap();
        assert_eq!(taken, ExactOutcome::NameTaken);
    }
    assert_eq!(names(files), ["another/to", "from"]);
    assert_eq!(read(files, &to), b"old");
    files.remove(&to).unwrap();
    // An attempt that was refused may have touched the file.
    let entry = files.stat(&from).unwrap().unwrap();
    let exact = ExactFile {
        entry: &entry,
        hash: Some(hash.as_str()),
        on_read: &|| {},
    };
    assert_eq!(files.rename_exact(&exact, &to).unwrap(), ExactOutcome::Done);
    assert_eq!(names(files), ["another/to"]);
    assert_eq!(read(files, &to), b"new");
    assert_eq!(files.stat(&to).unwrap().unwrap().modified, version(5));
    files.remove(&to).unwrap();
}

/// Replaced, of another hash, or gone.
pub fn what_is_not_the_observed_file_is_neither_renamed_nor_removed(files: &dyn Files) {
    let (name, to) = (name("file.csv"), name("file_delete.csv"));
    let refused = |exact: &ExactFile<'_>| {
        assert_eq!(files.remove_exact(exact).unwrap(), ExactOutcome::Changed);
        assert_eq!(
            files.rename_exact(exact, &to).unwrap(),
            ExactOutcome::Changed
        );
    };
    write(files, &name, b"one", version(1));
    let entry = files.stat(&name).unwrap().unwrap();
    write(files, &name, b"two", version(1));
    refused(&ExactFile {
        entry: &entry,
        hash: None,
        on_read: &|| {},
    });
    let now = files.stat(&name).unwrap().unwrap();
    let other = blake3::hash(b"one").to_hex();
    assert_eq!(
        files
            .remove_exact(&ExactFile {
                entry: &now,
                hash: Some(other.as_str()),
                on_read: &|| {},
            })
            .unwrap(),
        ExactOutcome::Changed
    );
    assert_eq!(names(files), ["file.csv"]);
    assert_eq!(read(files, &name), b"two");
    let now = files.stat(&name).unwrap().unwrap();
    let exact = ExactFile {
        entry: &now,
        hash: None,
        on_read: &|| {},
    };
    assert_eq!(files.remove_exact(&exact).unwrap(), ExactOutcome::Done);
    refused(&exact);
    assert_eq!(files.list().unwrap(), Listing::default());
}

fn write_over(
    files: &dyn Files,
    name: &FileName,
    bytes: &[u8],
    seen: Option<&FileEntry>,
) -> io::Result<FileEntry> {
    let mut pending = files.create(name)?;
    pending.write_all(bytes)?;
    pending.commit_over(version(3), seen)
}

/// Otherwise nothing changes.
pub fn a_file_is_replaced_only_if_it_is_the_one_that_was_seen(files: &dyn Files) {
    let name = name("folder/seen.json");
    let first = write_over(files, &name, b"first", None).unwrap();
    assert_eq!(files.stat(&name).unwrap(), Some(first.clone()));
    let refused = |seen| {
        let kind = write_over(files, &name, b"never", seen).unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::AlreadyExists);
    };
    refused(None);
    let second = write_over(files, &name, b"second", Some(&first)).unwrap();
    refused(Some(&first));
    assert_eq!(read(files, &name), b"second");
    files.remove(&name).unwrap();
    assert!(write_over(files, &name, b"never", Some(&second)).is_err());
    assert!(files.stat(&name).unwrap().is_none());
}

/// Also where name, size and modification time are the same.
pub fn every_write_has_a_fingerprint_of_its_own(files: &dyn Files) {
    let name = name("same.txt");
    let fingerprint = |bytes| {
        write(files, &name, bytes, version(1));
        files.stat(&name).unwrap().unwrap().fingerprint
    };
    assert_ne!(fingerprint(b"one"), fingerprint(b"two"));
    let entry = files.stat(&name).unwrap().unwrap();
    assert_eq!(files.stat(&name).unwrap(), Some(entry.clone()));
    assert_eq!(files.list().unwrap().files, [entry]);
    files.remove(&name).unwrap();
}

/// It can be read and written by its name.
pub fn what_is_in_a_reserved_folder_is_listed_by_that_folder_alone(files: &dyn Files) {
    let kept = name(".streampress/replies/a.json");
    let replies = ReservedEntry::Replies.file("").unwrap();
    assert!(kept.is_reserved() && !name("a.streampress/b").is_reserved());
    assert_eq!(files.list_reserved(&replies).unwrap(), Vec::<String>::new());
    write(files, &kept, b"ours", version(1));
    assert_eq!(files.list_reserved(&replies).unwrap(), ["a.json"]);
    assert_eq!(files.list().unwrap(), Listing::default());
    assert_eq!(read(files, &kept), b"ours");
    files.remove(&kept).unwrap();
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
