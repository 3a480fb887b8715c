//! Where a run's files come from, and what announces them.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use streampress_crds::api::pipeline::{OnCompressed, OnRestored};
use streampress_crds::location::Location;
use streampress_crds::settings::Resolved;
use streampress_transport::TransportError;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::compare::{Again, RETRY_AFTER};
use super::{Run, RunObserver, RunOptions};
use crate::config::BadConfiguration;
use crate::journal::{RECOVERED, SourceRecord};
use crate::roles::connect::CompressorConnections;
use crate::roles::redrive::{RedriveRequest, redrive};
use crate::roles::scan::{ScanResult, Scanner};

/// Where the files of a run come from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FileInput {
    /// The generator makes them.
    Generated,
    /// They lie at the source, all of them now.
    Once,
    /// They arrive at the source over time.
    Watched,
}

/// Decides where files come from. The user's own files under --input are only read.
pub(super) fn take_input(
    resolved: &mut Resolved,
    options: &RunOptions,
    observer: &dyn RunObserver,
) -> Result<FileInput> {
    let Some(folder) = options.input.as_deref() else {
        let scan = resolved.source.scan_seconds > 0;
        if scan && resolved.generator.is_some() {
            observer.notice(
                "source.scanSeconds is ignored: a run with spec.generator takes the files that it makes, and no others; the role 'generate' does both",
            );
        }
        return Ok(match (&resolved.generator, scan) {
            (Some(_), _) => FileInput::Generated,
            (None, true) => FileInput::Watched,
            (None, false) => FileInput::Once,
        });
    };
    let folder = folder
        .canonicalize()
        .with_context(|| format!("opening the input folder {}", folder.display()))?;
    if !folder.is_dir() {
        bail!(
            "--input {} is not a folder; name the folder that holds the files",
            folder.display()
        );
    }
    refuse_own_output(resolved, &folder, &options.data)?;
    let path = folder.to_str().with_context(|| {
        format!(
            "--input {} is not UTF-8; rename the folder",
            folder.display()
        )
    })?;
    resolved.generator = None;
    resolved.source.location = Location::File {
        path: path.to_owned(),
    };
    if resolved.source.scan_seconds > 0 {
        resolved.source.scan_seconds = 0;
        observer.notice(
            "source.scanSeconds is ignored: the files that are under --input now are taken",
        );
    }
    if resolved.source.on_compressed != OnCompressed::Keep {
        resolved.source.on_compressed = OnCompressed::Keep;
        observer.notice(
            "source.onCompressed is ignored: files under --input are never renamed or deleted",
        );
    }
    if resolved.source.on_restored != OnRestored::Keep {
        resolved.source.on_restored = OnRestored::Keep;
        observer.notice(
            "source.onRestored is ignored: files under --input are never renamed or deleted",
        );
    }
    Ok(FileInput::Once)
}

/// Refuses an input folder in which the run would find what it writes itself. A data folder below the input folder is not
/// scanned.
fn refuse_own_output(resolved: &Resolved, input: &Path, data: &Path) -> Result<()> {
    let Ok(data) = data.canonicalize() else {
        return Ok(());
    };
    let report = resolved.report.as_ref().map(|report| &report.location);
    for location in [&resolved.destination.location].into_iter().chain(report) {
        let Some(below) = location.below_data() else {
            continue;
        };
        let own = data.join(below);
        if input.starts_with(&own) || (input.starts_with(&data) && own.starts_with(input)) {
            return Err(BadConfiguration(format!(
                "--input {} holds what this pipeline writes ({location}); name another folder",
                input.display()
            ))
            .into());
        }
    }
    Ok(())
}

impl Run {
    /// Starts what announces files. The receiver gets a value when all are announced, never for an endless source.
    pub(super) fn spawn_source(
        &self,
        input: FileInput,
        again: Again,
        roles: &mut JoinSet<()>,
    ) -> Result<oneshot::Receiver<Result<ScanResult>>> {
        let (done, announced) = oneshot::channel();
        let stop = self.context.shutdown.clone();
        let (scanner, gone) = (self.scanner.clone(), self.gone.clone());
        let again = Arc::new(again);
        let stopped = stop.clone();
        let connections = self.connections.clone();
        let announcing_again = async move {
            let announce = || {
                let (scanner, again, gone) = (scanner.clone(), again.clone(), gone.clone());
                let connections = connections.clone();
                async move { announce_again(&scanner, &connections, &again, &gone).await }
            };
            persist(&stopped, announce).await?;
            anyhow::Ok(scanner)
        };
        match (input, self.resolved.generator_settings()) {
            (FileInput::Generated, Some(mut settings)) => {
                // A scan would never end.
                settings.scan = None;
                let connections = self.connections.for_generator();
                let generator = self.context.generator(&settings, connections)?;
                roles.spawn(async move {
                    if let Err(error) = announcing_again.await {
                        let _ = done.send(Err(error));
                        return;
                    }
                    generator.run().await;
                    if !stop.is_cancelled() {
                        // The receiver is gone when the run has ended early.
                        let _ = done.send(Ok(ScanResult::default()));
                    }
                });
            }
            (FileInput::Generated | FileInput::Once, _) => {
                roles.spawn(async move {
                    let scan = async {
                        let scanner = announcing_again.await?;
                        let announce = || {
                            let (scanner, stop) = (scanner.clone(), stop.clone());
                            async move { announce_all(&scanner, &stop).await }
                        };
                        persist(&stop, announce).await
                    };
                    match scan.await {
                        Ok(None) => drop(done),
                        Ok(Some(result)) => {
                            let _ = done.send(Ok(result));
                        }
                        Err(error) => {
                            let _ = done.send(Err(error));
                        }
                    }
                });
            }
            (FileInput::Watched, _) => {
                let interval = Duration::from_secs(u64::from(self.resolved.source.scan_seconds));
                roles.spawn(async move {
                    match announcing_again.await {
                        Ok(scanner) => {
                            scanner.run(interval, None, &stop).await;
                            drop(done);
                        }
                        Err(error) => {
                            let _ = done.send(Err(error));
                        }
                    }
                });
            }
        }
        Ok(announced)
    }
}

/// Announces what is gone and what failed, as far as it is at the source. Of what failed and is not, the dead letters are sent again:
/// what was packed before the pipeline took the source away is in the stream still.
async fn announce_again(
    scanner: &Scanner,
    connections: &CompressorConnections,
    again: &Again,
    gone: &OnceLock<Vec<SourceRecord>>,
) -> Result<()> {
    let names: Vec<_> = again.gone.iter().map(|it| it.name.clone()).collect();
    let missing = scanner.announce_names(&names).await?;
    let here = again.gone.iter().filter(|it| missing.contains(&it.name));
    let _ = gone.set(here.chain(&again.gone_elsewhere).cloned().collect());
    let names = scanner.announce_names(&again.others).await?;
    if !names.is_empty() {
        let request = RedriveRequest {
            names,
            ..RedriveRequest::default()
        };
        redrive(connections, &scanner.announcer, &request)
            .await
            .all()?;
    }
    Ok(())
}

/// Repeats work that failed because a disk or a service is down for now, until it succeeds; nothing when stopped before.
async fn persist<T, F: Future<Output = Result<T>>>(
    stop: &CancellationToken,
    work: impl Fn() -> F,
) -> Result<Option<T>> {
    loop {
        match work().await {
            Err(error) if is_unavailable(&error) => tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(None),
                () = tokio::time::sleep(RETRY_AFTER) => {}
            },
            done => return done.map(Some),
        }
    }
}

/// Whether the same may succeed later, as after a disk that is full for now.
pub(super) fn is_unavailable(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        matches!(
            cause.downcast_ref(),
            Some(TransportError::Unavailable { .. })
        )
    })
}

async fn announce_all(scanner: &Scanner, stop: &CancellationToken) -> Result<ScanResult> {
    let mut result = scanner.once(stop).await?;
    let announcer = &scanner.announcer;
    let sources = announcer.journal.sources(announcer.source.location());
    // Of what was recovered, the files are known and not their sources, which may be renamed or deleted.
    let is_recovered = announcer.journal.get(RECOVERED).await?.is_some();
    if !is_recovered && sources.await?.is_empty() && scanner.left_out.all().is_empty() {
        result.discarded = announcer.journal.discarded().await?;
        if result.discarded > 0 {
            return Ok(result);
        }
        let others = result.example_of_not_taken().map(|example| {
            let count = result.not_taken.len();
            format!(" ({count} of other kinds are there, {example})")
        });
        let others = others.unwrap_or_default();
        bail!(
            "no file to take in {}: it takes {} files{others}; name another folder with --input, or give the pipeline a generator",
            announcer.source.location(),
            scanner.filter.kinds()
        );
    }
    Ok(result)
}
