//! Symbolic links at a source whose packed or restored files are renamed or deleted. A link is never renamed or deleted itself,
//! and its target may be gone before the link is packed: such links are left out.

use std::fs;
use std::io;
use std::path::PathBuf;

use streampress_crds::api::pipeline::{OnCompressed, OnRestored};
use streampress_crds::settings::SourceSettings;
use streampress_transport::{FileEntry, FileName, LeftOut, Listing};

use crate::roles::source::SourceFilter;

/// So many links are followed from one to the next, as Linux does.
const MOST_LINKS: usize = 40;

/// The links of a source that takes files away.
#[derive(Debug, Clone)]
pub(crate) struct SourceLinks {
    folder: PathBuf,
    /// What takes files away, as the pipeline's YAML has it.
    option: String,
}

impl SourceLinks {
    /// Of the source in this folder; `None` where files stay, since links are then taken as files.
    pub(crate) fn new(source: &SourceSettings, folder: Option<PathBuf>) -> Option<Self> {
        let option = match (source.on_compressed, source.on_restored) {
            (OnCompressed::Keep, OnRestored::Keep) => return None,
            (OnCompressed::Keep, action) => format!("source.onRestored: {action:?}"),
            (action, _) => format!("source.onCompressed: {action:?}"),
        };
        Some(Self {
            folder: folder?,
            option,
        })
    }

    /// Why the file is left out, with the remedy; `None` for one that is no link.
    pub(crate) fn refusal(&self, name: &FileName) -> Option<String> {
        let found = self.folder.join(name.as_str()).symlink_metadata();
        found.is_ok_and(|found| found.is_symlink()).then(|| {
            format!(
                "is a symbolic link, and {} may take away the file that it leads to: replace it by a copy, or use Keep",
                self.option
            )
        })
    }

    /// Moves the links among the files that are taken to what is left out.
    pub(crate) fn leave_out(&self, listing: &mut Listing, filter: &SourceFilter) {
        let refusal = |entry: &FileEntry| match filter.takes(&entry.name) {
            true => self.refusal(&entry.name),
            false => None,
        };
        listing.files.retain(|entry| {
            let reason = refusal(entry);
            let is_taken = reason.is_none();
            listing.left_out.extend(reason.map(|reason| LeftOut {
                name: entry.name.as_str().to_owned(),
                reason,
                is_folder: false,
            }));
            is_taken
        });
    }

    /// The name of the file that a link to nothing leads to; `None` for what is no such link, or leads out of the source.
    pub(crate) fn missing_target(&self, link: &str) -> Option<FileName> {
        let root = self.folder.canonicalize().ok()?;
        let mut path = self.folder.join(link);
        for _ in 0..MOST_LINKS {
            let folder = path.parent()?.canonicalize().ok()?;
            path = folder.join(path.file_name()?);
            match fs::read_link(&path) {
                Ok(target) => path = folder.join(target),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let below = path.strip_prefix(&root).ok()?.to_str()?;
                    return FileName::parse(below).ok();
                }
                Err(_) => return None,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_target_of_a_link_to_nothing_is_known_through_other_links() {
        let root = tempfile::tempdir().expect("a folder");
        fs::create_dir(root.path().join("sub")).expect("made");
        fs::write(root.path().join("here.csv"), "1").expect("written");
        for (target, link) in [
            ("sub/gone.csv", "one.csv"),
            ("../one.csv", "sub/two.csv"),
            ("../elsewhere.csv", "out.csv"),
            ("here.csv", "good.csv"),
            ("loop.csv", "loop.csv"),
        ] {
            symlink(target, root.path().join(link)).expect("linked");
        }
        let links = SourceLinks {
            folder: root.path().to_owned(),
            option: "source.onCompressed: Delete".into(),
        };
        for (link, target) in [
            ("one.csv", Some("sub/gone.csv")),
            ("sub/two.csv", Some("sub/gone.csv")),
            ("out.csv", None),
            ("good.csv", None),
            ("here.csv", None),
            ("loop.csv", None),
        ] {
            let found = links.missing_target(link);
            assert_eq!(found.as_ref().map(FileName::as_str), target, "{link}");
        }
    }
}
