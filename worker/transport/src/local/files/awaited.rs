//! A folder that may be missing, as on a disk that is not mounted. It is opened once it is there, and never made.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use super::{LocalFiles, missing};
use crate::{ExactFile, ExactOutcome, FileEntry, FileName, Files, Listing, PendingFile};

/// See the module. While the folder is missing every call is an error of kind [`io::ErrorKind::NotConnected`].
#[derive(Debug)]
pub struct AwaitedFiles {
    location: String,
    root: PathBuf,
    opened: OnceLock<LocalFiles>,
}

impl AwaitedFiles {
    /// Opens the folder `root` as [`LocalFiles::open`] does, now or once it is there.
    pub fn open(location: &str, root: &Path) -> io::Result<Self> {
        let awaited = Self {
            location: location.to_owned(),
            root: root.to_owned(),
            opened: OnceLock::new(),
        };
        match awaited.files() {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error),
            Ok(_) | Err(_) => Ok(awaited),
        }
    }

    fn files(&self) -> io::Result<&LocalFiles> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        if !self.root.try_exists()? {
            return Err(missing(&self.root));
        }
        let opened = match LocalFiles::open_own(&self.location, &self.root) {
            // It vanished in this moment.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(missing(&self.root));
            }
            opened => opened?,
        };
        Ok(self.opened.get_or_init(|| opened))
    }
}

impl Files for AwaitedFiles {
    fn location(&self) -> &str {
        &self.location
    }

    fn list(&self) -> io::Result<Listing> {
        self.files()?.list()
    }

    fn stat(&self, name: &FileName) -> io::Result<Option<FileEntry>> {
        self.files()?.stat(name)
    }

    fn read(&self, name: &FileName) -> io::Result<Box<dyn Read + Send>> {
        self.files()?.read(name)
    }

    fn create(&self, name: &FileName) -> io::Result<Box<dyn PendingFile>> {
        self.files()?.create(name)
    }

    fn remove(&self, name: &FileName) -> io::Result<()> {
        self.files()?.remove(name)
    }

    fn rename(&self, from: &FileName, to: &FileName) -> io::Result<()> {
        self.files()?.rename(from, to)
    }

    fn probe(&self, bytes: u64) -> io::Result<()> {
        self.files()?.probe(bytes)
    }

    fn sample(&self, most: usize) -> io::Result<Vec<FileName>> {
        self.files()?.sample(most)
    }

    fn ensure_exists(&self) -> io::Result<()> {
        self.files()?.ensure_exists()
    }

    fn put_back(&self, name: &FileName) -> io::Result<()> {
        self.files()?.put_back(name)
    }

    fn set_modified(&self, name: &FileName, modified: SystemTime) -> io::Result<()> {
        self.files()?.set_modified(name, modified)
    }

    fn list_reserved(&self, folder: &FileName) -> io::Result<Vec<String>> {
        self.files()?.list_reserved(folder)
    }

    fn remove_exact(&self, file: &ExactFile<'_>) -> io::Result<ExactOutcome> {
        self.files()?.remove_exact(file)
    }

    fn rename_exact(&self, file: &ExactFile<'_>, to: &FileName) -> io::Result<ExactOutcome> {
        self.files()?.rename_exact(file, to)
    }
}
