//! Files of which every read counts as progress: hashing a large file over a slow network takes longer than a worker may go
//! without any.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::SystemTime;

use streampress_transport::{
    ExactFile, ExactOutcome, FileEntry, FileName, Files, Listing, PendingFile, ReadObserved,
};

use super::metrics::Meter;

/// See the module.
#[derive(Debug)]
pub(crate) struct MeteredFiles {
    inner: Arc<dyn Files>,
    meter: Meter,
}

impl MeteredFiles {
    /// The files `inner`; reads are told to `meter`.
    pub(crate) fn new(inner: Arc<dyn Files>, meter: Meter) -> Arc<Self> {
        Arc::new(Self { inner, meter })
    }

    /// Calls `change` with the file, whose reads are told.
    fn exactly<T>(&self, file: &ExactFile<'_>, change: impl FnOnce(&ExactFile<'_>) -> T) -> T {
        change(&ExactFile {
            on_read: &|| self.meter.moved(),
            ..*file
        })
    }
}

impl Files for MeteredFiles {
    fn location(&self) -> &str {
        self.inner.location()
    }

    fn list(&self) -> io::Result<Listing> {
        self.inner.list()
    }

    fn stat(&self, name: &FileName) -> io::Result<Option<FileEntry>> {
        self.inner.stat(name)
    }

    fn read(&self, name: &FileName) -> io::Result<Box<dyn Read + Send>> {
        let meter = self.meter.clone();
        Ok(Box::new(ReadObserved {
            inner: self.inner.read(name)?,
            on_read: move || meter.moved(),
        }))
    }

    fn create(&self, name: &FileName) -> io::Result<Box<dyn PendingFile>> {
        self.inner.create(name)
    }

    fn create_version(
        &self,
        name: &FileName,
        modified: SystemTime,
    ) -> io::Result<Box<dyn PendingFile>> {
        self.inner.create_version(name, modified)
    }

    fn remove(&self, name: &FileName) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn rename(&self, from: &FileName, to: &FileName) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn probe(&self, bytes: u64) -> io::Result<()> {
        self.inner.probe(bytes)
    }

    fn sample(&self, most: usize) -> io::Result<Vec<FileName>> {
        self.inner.sample(most)
    }

    fn ensure_exists(&self) -> io::Result<()> {
        self.inner.ensure_exists()
    }

    fn put_back(&self, name: &FileName) -> io::Result<()> {
        self.inner.put_back(name)
    }

    fn set_modified(&self, name: &FileName, modified: SystemTime) -> io::Result<()> {
        self.inner.set_modified(name, modified)
    }

    fn list_reserved(&self, folder: &FileName) -> io::Result<Vec<String>> {
        self.inner.list_reserved(folder)
    }

    fn remove_exact(&self, file: &ExactFile<'_>) -> io::Result<ExactOutcome> {
        self.exactly(file, |file| self.inner.remove_exact(file))
    }

    fn rename_exact(&self, file: &ExactFile<'_>, to: &FileName) -> io::Result<ExactOutcome> {
        self.exactly(file, |file| self.inner.rename_exact(file, to))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use streampress_transport::contract_tests::files::{name, version, write};
    use streampress_transport::local::files::LocalFiles;

    use super::super::metrics::LONGEST_STANDSTILL;
    use super::*;
    use crate::message::Digest;

    const CONTENT: &[u8] = b"read in parts";

    fn folder() -> (tempfile::TempDir, Arc<dyn Files>) {
        let folder = tempfile::tempdir().expect("a folder");
        let files = LocalFiles::open("file:///data/in", folder.path()).expect("opens");
        write(&files, &name("a.csv"), CONTENT, version(1));
        (folder, Arc::new(files))
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_reads_a_file_for_hours_makes_progress() {
        let (_folder, files) = folder();
        let meter = Meter::default();
        let files = MeteredFiles::new(files, meter.clone());
        meter.ticked();
        let in_flight = meter.received();
        let mut reader = files.read(&name("a.csv")).expect("opens");
        for _ in 0..4 {
            tokio::time::advance(LONGEST_STANDSTILL - Duration::from_secs(1)).await;
            assert_eq!(reader.read(&mut [0]).expect("read"), 1);
            meter.ticked();
            assert_eq!(meter.stuck(), None);
        }
        tokio::time::advance(LONGEST_STANDSTILL + Duration::from_secs(1)).await;
        meter.ticked();
        let stuck = meter.stuck().expect("it reads no more");
        assert_eq!(stuck, "1 message(s) in flight without progress for 1801 s");
        drop(in_flight);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_compared_before_it_is_removed_makes_progress() {
        let (_folder, files) = folder();
        let meter = Meter::default();
        let metered = MeteredFiles::new(files.clone(), meter.clone());
        meter.ticked();
        let in_flight = meter.received();
        let entry = files.stat(&name("a.csv")).expect("read").expect("there");
        let hash = Digest::of(CONTENT);
        let file = ExactFile {
            entry: &entry,
            hash: Some(hash.as_str()),
            on_read: &|| {},
        };
        tokio::time::advance(LONGEST_STANDSTILL + Duration::from_secs(1)).await;
        meter.ticked();
        assert!(meter.stuck().is_some());
        let removed = metered.remove_exact(&file).expect("removed");
        assert_eq!(removed, ExactOutcome::Done);
        assert_eq!(meter.stuck(), None);
        drop(in_flight);
    }
}
