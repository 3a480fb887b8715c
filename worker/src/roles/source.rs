//! The source's side of a compressor: which files are taken, files that a bucket announces itself, and what becomes of a
//! source once it is packed.

use std::io;
use std::sync::Arc;

use tracing::{info, warn};

use crate::consume::HandlerError;
use crate::message::{DeadLetterReason, FileRef, S3Event};
use crate::roles::announce::Announcer;
use crate::runtime::{self, blocking};
use streampress_crds::api::pipeline::{OnCompressed, SourceFormat};
use streampress_crds::settings::SourceSettings;
use streampress_transport::{FileName, Files};

/// The suffix of a renamed source's stem, as the original's.
const RENAMED_SUFFIX: &str = "_delete";

/// Which files at the source are taken, however they are found.
#[derive(Debug, Clone)]
pub struct SourceFilter {
    /// Kinds of files to take.
    pub formats: Vec<SourceFormat>,
    /// Whether packed files are renamed to `…_delete`; files of such names are then not taken.
    pub skips_renamed: bool,
}

impl SourceFilter {
    /// The filter of a pipeline's source.
    pub(crate) fn new(source: &SourceSettings) -> Self {
        Self {
            formats: source.formats.clone(),
            skips_renamed: source.on_compressed == OnCompressed::Rename,
        }
    }

    /// Whether the file is of a kind that is taken, and not one that was renamed after it was packed.
    pub(crate) fn takes(&self, name: &FileName) -> bool {
        let base = name.as_str().rsplit('/').next().unwrap_or_default();
        let stem = base.rsplit_once('.').map_or(base, |(stem, _)| stem);
        let is_renamed = self.skips_renamed && stem.ends_with(RENAMED_SUFFIX);
        !is_renamed
            && !name.is_reserved()
            && SourceFormat::of_name(base).is_some_and(|format| self.formats.contains(&format))
    }
}

/// Announces the object of a bucket's event in our own form: in its file's own group, whereas the rule that sends events
/// has one group for all. The event of a renamed source must not make it a new file.
pub(crate) async fn announce_event(
    announcer: &Announcer,
    filter: &SourceFilter,
    event: &S3Event,
) -> Result<(), HandlerError> {
    let name = match event.created {
        true => event
            .name_below(announcer.source.location())
            .map_err(|error| HandlerError::permanent(DeadLetterReason::BadName, error))?,
        false => None,
    };
    let Some(name) = name.filter(|name| filter.takes(name)) else {
        info!(
            bucket = event.bucket,
            key = event.key,
            "The event is about no file of this pipeline; skipped."
        );
        return Ok(());
    };
    let entry = announcer.source_entry(&name).await?;
    let announced = announcer.announce(&entry).await;
    announced.map(drop).map_err(HandlerError::Transient)
}

/// Renames or deletes the source of an acknowledged file, unless it has changed since.
pub(crate) async fn retire_source(
    source: &Arc<dyn Files>,
    file: &FileRef,
    on_compressed: OnCompressed,
) {
    if on_compressed == OnCompressed::Keep {
        return;
    }
    let (source, file) = (source.clone(), file.clone());
    let retired = blocking(move || -> io::Result<()> {
        let unchanged = source.stat(&file.name)?.is_some_and(|now| {
            now.size == file.bytes && runtime::nanos(now.modified) == file.modified_nanos
        });
        match on_compressed {
            OnCompressed::Rename if unchanged => source.rename(&file.name, &renamed(&file.name)),
            OnCompressed::Delete if unchanged => source.remove(&file.name),
            OnCompressed::Keep | OnCompressed::Rename | OnCompressed::Delete => Ok(()),
        }
    });
    if let Err(error) = retired.await {
        warn!(%error, "Could not rename or delete a packed source file; it stays where it is.");
    }
}

/// `a/b.json` becomes `a/b_delete.json`.
fn renamed(name: &FileName) -> FileName {
    let (folder, base) = name
        .as_str()
        .rsplit_once('/')
        .map_or(("", name.as_str()), |(folder, base)| (folder, base));
    let base = match base.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => {
            format!("{stem}{RENAMED_SUFFIX}.{extension}")
        }
        _ => format!("{base}{RENAMED_SUFFIX}"),
    };
    let full = if folder.is_empty() {
        base
    } else {
        format!("{folder}/{base}")
    };
    // A name of the greatest length cannot grow; it stays as it is.
    FileName::parse(&full).unwrap_or_else(|_| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renamed_source_keeps_its_folder_and_extension() {
        for (from, to) in [
            ("a.json", "a_delete.json"),
            ("x.y/b", "x.y/b_delete"),
            (".log", ".log_delete"),
            ("d/a.tar.csv", "d/a.tar_delete.csv"),
        ] {
            assert_eq!(renamed(&FileName::parse(from).expect("valid")).as_str(), to);
        }
    }
}
