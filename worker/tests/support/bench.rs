//! A data folder with a source beside it, for tests that build a worker's parts themselves.
#![allow(dead_code, reason = "most test programs use some of it, one all")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use streampress::journal::{FileJournal, SqliteJournal};
use streampress::roles::announce::{AnnouncementFormat, Announcer};
use streampress_transport::local::files::LocalFiles;
use streampress_transport::local::{Local, LocalOptions};
use streampress_transport::{FileEntry, FileName, Files};

/// See the file's head.
pub struct Bench {
    root: tempfile::TempDir,
    pub local: Local,
    pub source: Arc<dyn Files>,
}

impl Bench {
    pub fn open() -> Self {
        Self::with_source("file:///data/in")
    }

    /// With a source that goes by another address.
    pub fn with_source(location: &str) -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let local = Local::open(&root.path().join("data"), LocalOptions::default()).expect("opens");
        let source = files(location, &root.path().join("in"));
        Self {
            root,
            local,
            source,
        }
    }

    /// Where the source's files are.
    pub fn folder(&self) -> PathBuf {
        self.root.path().join("in")
    }

    /// One more place for files.
    pub fn place(&self, name: &str) -> Arc<dyn Files> {
        files(
            &format!("file:///data/{name}"),
            &self.root.path().join(name),
        )
    }

    pub fn announcer(&self, dialect: AnnouncementFormat) -> Announcer {
        Announcer {
            source: self.source.clone(),
            files_queue: self.local.files_queue(),
            strict: false,
            dialect,
            journal: None,
        }
    }

    /// Writes a file at the source.
    pub fn write(&self, name: &str, content: &[u8]) -> FileEntry {
        std::fs::write(self.folder().join(name), content).expect("written");
        let name = FileName::parse(name).expect("a good name");
        self.source.stat(&name).expect("looked").expect("there")
    }
}

/// The journal of a data folder.
pub fn journal(local: &Local) -> Arc<dyn FileJournal> {
    Arc::new(SqliteJournal::open(local).expect("opens"))
}

fn files(location: &str, folder: &Path) -> Arc<dyn Files> {
    Arc::new(LocalFiles::open(location, folder).expect("opens"))
}
