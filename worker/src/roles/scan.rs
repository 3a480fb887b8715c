//! Announcing what lies at the source: once for the user's own files, or again and again for files that arrive.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use streampress_crds::api::pipeline::SourceFormat;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::blocking;
use crate::roles::announce::Announcer;
use streampress_transport::{FileEntry, FileName, Files};

/// What a look at the source brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Files announced now.
    pub announced: u64,
    /// Files that were announced before and have not changed.
    pub known: u64,
    /// Files of other kinds, left alone.
    pub other_kinds: Vec<FileName>,
}

/// Which files at the source are taken, however they are found.
#[derive(Debug, Clone)]
pub struct SourceFilter {
    /// Kinds of files to take.
    pub formats: Vec<SourceFormat>,
    /// Whether compressed files are put aside as `…_delete`, and so are not files to take.
    pub put_aside: bool,
}

impl SourceFilter {
    /// Of a kind that is taken, and not one that was put aside once compressed.
    pub fn takes(&self, name: &FileName) -> bool {
        let base = name.as_str().rsplit('/').next().unwrap_or_default();
        let stem = base.rsplit_once('.').map_or(base, |(stem, _)| stem);
        !(self.put_aside && stem.ends_with("_delete"))
            && SourceFormat::of_name(base).is_some_and(|format| self.formats.contains(&format))
    }
}

/// Looks through the source.
pub struct Scanner {
    /// How files are announced, and where they are.
    pub announcer: Announcer,
    /// Which of the files are taken.
    pub filter: SourceFilter,
    /// Where restored files are: what lies there in the same version need not be sent again.
    pub destination: Option<Arc<dyn Files>>,
}

type Version = (u64, SystemTime);

impl Scanner {
    /// Announces every file that is new or changed. Stops early when told to.
    pub async fn once(&self, shutdown: &CancellationToken) -> Result<Found> {
        let mut found = Found::default();
        for entry in self.list().await? {
            if shutdown.is_cancelled() {
                break;
            }
            self.take(entry, &mut found).await?;
        }
        Ok(found)
    }

    /// Looks every `every`; a file is announced once two looks in a row found it the same. Faults are logged and tried again.
    pub async fn run(&self, every: Duration, shutdown: &CancellationToken) {
        let mut last_look: HashMap<FileName, Version> = HashMap::new();
        let mut announced: HashMap<FileName, Version> = HashMap::new();
        while !shutdown.is_cancelled() {
            if let Err(error) = self.look(&mut last_look, &mut announced).await {
                warn!(error = %format!("{error:#}"), "Could not look through the source; trying again.");
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(every) => {}
            }
        }
    }

    async fn look(
        &self,
        last_look: &mut HashMap<FileName, Version>,
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
            let still = last_look.get(&entry.name) == Some(&version);
            if !still || announced.get(&entry.name) == Some(&version) {
                continue;
            }
            let name = entry.name.clone();
            let mut found = Found::default();
            // One unreadable file must not hold up the others.
            match self.take(entry, &mut found).await {
                Ok(()) => {
                    announced.insert(name, version);
                }
                Err(error) => {
                    warn!(file_name = %name, error = %format!("{error:#}"), "Could not announce a file; trying again at the next look.")
                }
            }
        }
        *last_look = present;
        Ok(())
    }

    async fn list(&self) -> Result<Vec<FileEntry>> {
        let source = self.announcer.source.clone();
        blocking(move || source.list())
            .await
            .with_context(|| format!("listing {}", self.announcer.source.location()))
    }

    async fn take(&self, entry: FileEntry, found: &mut Found) -> Result<()> {
        if !self.filter.takes(&entry.name) {
            found.other_kinds.push(entry.name);
        } else if self.is_known(&entry).await? {
            found.known += 1;
        } else {
            let file = self.announcer.announce(&entry).await?;
            info!(file_id = file.id().as_str(), file_name = %file.name, raw_bytes = file.bytes, "File announced.");
            found.announced += 1;
        }
        Ok(())
    }

    async fn is_known(&self, entry: &FileEntry) -> Result<bool> {
        if let Some(journal) = &self.announcer.journal
            && let Some(known) = journal
                .was_announced(entry.name.as_str(), entry.size, entry.modified)
                .await?
        {
            return Ok(known);
        }
        let Some(destination) = self.destination.clone() else {
            return Ok(false);
        };
        let entry = entry.clone();
        Ok(blocking(move || {
            destination.stat(&entry.name).map(|found| {
                found.is_some_and(|found| {
                    found.size == entry.size && found.modified == entry.modified
                })
            })
        })
        .await?)
    }
}
