//! Announces the files at the source: once for the user's own files, or repeatedly for files that arrive.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::roles::announce::Announcer;
use crate::roles::source::SourceFilter;
use crate::runtime::blocking;
use streampress_transport::{FileEntry, FileName};

/// The result of one scan.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ScanResult {
    /// Files announced now.
    pub(crate) announced: u64,
    /// Files that were announced before and have not changed.
    pub(crate) known: u64,
    /// Files that the filter does not take.
    pub(crate) not_taken: Vec<FileName>,
}

/// Scans the source.
pub(crate) struct Scanner {
    /// How files are announced, and where they are.
    pub(crate) announcer: Announcer,
    /// Which of the files are taken.
    pub(crate) filter: SourceFilter,
}

/// Size and modification time.
type Version = (u64, SystemTime);

impl Scanner {
    /// Announces every file that is new or changed. Stops early on shutdown.
    pub(crate) async fn once(&self, shutdown: &CancellationToken) -> Result<ScanResult> {
        let mut result = ScanResult::default();
        for entry in self.list().await? {
            if shutdown.is_cancelled() {
                break;
            }
            self.take(entry, &mut result).await?;
        }
        Ok(result)
    }

    /// Scans every `interval`; announces a file once two scans in a row found it the same. Errors are logged and retried.
    pub(crate) async fn run(&self, interval: Duration, shutdown: &CancellationToken) {
        let mut last_scan: HashMap<FileName, Version> = HashMap::new();
        let mut announced: HashMap<FileName, Version> = HashMap::new();
        while !shutdown.is_cancelled() {
            if let Err(error) = self.scan(&mut last_scan, &mut announced).await {
                warn!(
                    error = format!("{error:#}"),
                    "Could not scan the source; retrying."
                );
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(interval) => {}
            }
        }
    }

    async fn scan(
        &self,
        last_scan: &mut HashMap<FileName, Version>,
        announced: &mut HashMap<FileName, Version>,
    ) -> Result<()> {
        let entries = self.list().await?;
        let present: HashMap<_, _> = entries
            .iter()
            .map(|entry| (entry.name.clone(), (entry.size, entry.modified)))
            .collect();
        announced.retain(|name, _| present.contains_key(name));
        for entry in entries {
            let version = (entry.size, entry.modified);
            let still = last_scan.get(&entry.name) == Some(&version);
            if !still || announced.get(&entry.name) == Some(&version) {
                continue;
            }
            let name = entry.name.clone();
            // One unreadable file must not stop the others.
            match self.take(entry, &mut ScanResult::default()).await {
                Ok(()) => {
                    announced.insert(name, version);
                }
                Err(error) => {
                    warn!(
                        file_name = name.as_str(),
                        error = format!("{error:#}"),
                        "Could not announce a file; retrying at the next scan."
                    );
                }
            }
        }
        *last_scan = present;
        Ok(())
    }

    async fn list(&self) -> Result<Vec<FileEntry>> {
        let source = self.announcer.source.clone();
        blocking(move || source.list())
            .await
            .with_context(|| format!("listing {}", self.announcer.source.location()))
    }

    async fn take(&self, entry: FileEntry, result: &mut ScanResult) -> Result<()> {
        if !self.filter.takes(&entry.name) {
            result.not_taken.push(entry.name);
        } else if self.is_known(&entry).await? {
            result.known += 1;
        } else {
            let file = self.announcer.announce(&entry).await?;
            info!(
                file_id = file.id().as_str(),
                file_name = file.name.as_str(),
                raw_bytes = file.bytes,
                "File announced."
            );
            result.announced += 1;
        }
        Ok(())
    }

    /// Whether the journal says that this version was announced; a journal that keeps nothing never says so.
    async fn is_known(&self, entry: &FileEntry) -> Result<bool> {
        let journal = &self.announcer.journal;
        let known = journal
            .was_announced(entry.name.as_str(), entry.size, entry.modified)
            .await?;
        Ok(known == Some(true))
    }
}
