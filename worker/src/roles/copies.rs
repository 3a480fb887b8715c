//! Where a source still holds content that was announced: under the file's own name, or where it was put aside once it
//! had been packed.

use std::io;

use anyhow::{Context, Result};

use crate::message::{FileRef, hash};
use crate::roles::announce::{AnnouncementFormat, Announcer};
use crate::roles::source::{RENAMED_NAMES, renamed};
use crate::runtime::blocking;
use streampress_transport::{FileName, FileVersion, Files};

/// The name at the source whose content is the announced one.
async fn find_copy(announcer: &Announcer, file: &FileRef) -> Result<Option<FileName>> {
    let (source, wanted) = (announcer.source.clone(), file.clone());
    let at_its_name = blocking(move || is_copy(&*source, &wanted, &wanted.name));
    match found_or_absent(at_its_name.await, file)? {
        Some(true) => Ok(Some(file.name.clone())),
        Some(false) | None => find_put_aside(announcer, file).await,
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

/// The name under which the announced content was put aside.
pub(crate) async fn find_put_aside(
    announcer: &Announcer,
    file: &FileRef,
) -> Result<Option<FileName>> {
    let (source, wanted) = (announcer.source.clone(), file.clone());
    let finding = blocking(move || -> io::Result<Option<FileName>> {
        for number in 0..RENAMED_NAMES {
            let name = renamed(&wanted.name, number);
            match is_copy(&*source, &wanted, &name)? {
                Some(true) => return Ok(Some(name)),
                Some(false) => {}
                None => break,
            }
        }
        Ok(None)
    });
    found_or_absent(finding.await, file)
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
