//! Where a source still holds content that was announced: under the file's own name, or where it was put aside once it
//! had been packed.

use std::io;

use anyhow::{Context, Result};

use crate::message::{FileRef, hash};
use crate::roles::announce::{AnnouncementFormat, Announcer};
use crate::roles::source::renamed_names;
use crate::runtime::{self, blocking};
use streampress_transport::{FileEntry, FileName, FileVersion, Files};

/// The name at the source whose content is the announced one.
async fn find_copy(announcer: &Announcer, file: &FileRef) -> Result<Option<FileName>> {
    let (source, wanted) = (announcer.source.clone(), file.clone());
    let at_its_name = blocking(move || is_copy(&*source, &wanted, &wanted.name));
    match found_or_absent(at_its_name.await, file)? {
        Some(true) => Ok(Some(file.name.clone())),
        Some(false) | None => {
            let put_aside = find_put_aside(announcer, file).await?;
            Ok(put_aside.map(|copy| copy.name))
        }
    }
}

/// Whether the source holds the file's content. A copy that was put aside counts only with its version: without one it
/// cannot be told from content that was replaced long ago.
pub(crate) async fn source_has(
    announcer: &Announcer,
    file: &FileRef,
    version: Option<&FileVersion>,
) -> Result<bool> {
    let copy = find_copy(announcer, file).await?;
    let is_native = announcer.format == AnnouncementFormat::Native;
    Ok(copy.is_some_and(|copy| copy == file.name || (version.is_some() && is_native)))
}

/// A source that was put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PutAside {
    pub(crate) name: FileName,
    /// Whether it has the modification time of the announced file, which a rename keeps.
    pub(crate) has_time: bool,
    /// Whether no source of the same name was put aside after it.
    pub(crate) is_newest: bool,
}

/// Where the announced content was put aside.
pub(crate) async fn find_put_aside(
    announcer: &Announcer,
    file: &FileRef,
) -> Result<Option<PutAside>> {
    let (source, wanted) = (announcer.source.clone(), file.clone());
    let finding = blocking(move || put_aside_copy(&*source, &wanted));
    found_or_absent(finding.await, file)
}

fn put_aside_copy(source: &dyn Files, file: &FileRef) -> io::Result<Option<PutAside>> {
    let mut copies = Vec::new();
    for name in renamed_names(&file.name) {
        let Some(entry) = source.stat(&name)? else {
            break;
        };
        copies.push(entry);
    }
    // A rename changes the time of the change, and an object is written anew; of two at the same time the later name is newer.
    let put_aside_at = |entry: &FileEntry| entry.changed.unwrap_or(entry.modified);
    let newest = copies.iter().max_by_key(|entry| put_aside_at(entry));
    let newest = newest.map(|entry| entry.name.clone());
    copies.retain(|entry| entry.size == file.bytes);
    // A rename keeps the time: the first that is read is nearly always the one.
    let has_time = |entry: &FileEntry| runtime::nanos(entry.modified) == file.modified_nanos;
    copies.sort_by_key(|entry| !has_time(entry));
    for copy in copies {
        if is_copy(source, file, &copy.name)? == Some(true) {
            return Ok(Some(PutAside {
                has_time: has_time(&copy),
                is_newest: newest.as_ref() == Some(&copy.name),
                name: copy.name,
            }));
        }
    }
    Ok(None)
}

/// Whether the name holds the announced content; `None` where there is no such file.
fn is_copy(source: &dyn Files, file: &FileRef, name: &FileName) -> io::Result<Option<bool>> {
    let Some(entry) = source.stat(name)? else {
        return Ok(None);
    };
    let is_same = entry.size == file.bytes && hash(source.read(name)?)?.0 == file.hash;
    Ok(Some(is_same))
}

fn found_or_absent<T>(found: io::Result<T>, file: &FileRef) -> Result<T> {
    found.with_context(|| format!("looking for the announced content of {}", file.name))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use std::time::{Duration, SystemTime};

    use streampress_transport::contract_tests::files::{name, version, write};
    use streampress_transport::contract_tests::{FilesTap, TappedFiles};
    use streampress_transport::local::files::LocalFiles;

    use super::*;

    /// Counts what is read.
    #[derive(Debug, Default)]
    struct Reads(Arc<AtomicU32>);

    impl FilesTap for Reads {
        fn read(&self, files: &dyn Files, name: &FileName) -> io::Result<Box<dyn Read + Send>> {
            self.0.fetch_add(1, Relaxed);
            files.read(name)
        }
    }

    #[test]
    fn of_many_renamed_files_the_one_with_the_time_is_read_first_and_any_with_the_content_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let local = LocalFiles::open("file:///data/in", folder.path()).expect("opens");
        let reads = Arc::new(AtomicU32::new(0));
        let source = TappedFiles::new(Arc::new(local), Reads(reads.clone()));
        let own = name("a.csv");
        for (number, renamed) in (0..20u8).zip(renamed_names(&own)) {
            write(&*source, &renamed, &[number], version(number.into()));
        }
        let find = |content: u8, modified: SystemTime| {
            reads.store(0, Relaxed);
            let file = FileRef {
                location: "file:///data/in".into(),
                name: own.clone(),
                hash: hash(&[content][..]).expect("hashed").0,
                bytes: 1,
                modified_nanos: runtime::nanos(modified),
            };
            let found = put_aside_copy(&*source, &file).expect("read");
            let found = found.map(|copy| copy.name.as_str().to_owned());
            (found, reads.load(Relaxed))
        };
        let copy = |number: u8| Some(format!("a-{number}_delete.csv"));
        assert_eq!(find(12, version(12)), (copy(12), 1));
        // A copy of the folder has other times.
        let other = version(12) + Duration::from_secs(1000);
        assert_eq!(find(12, other), (copy(12), 13));
        assert_eq!(find(99, version(12)), (None, 20));
    }
}
