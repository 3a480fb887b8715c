//! What the commands that are one role share: which pipeline, which transport, and what the roles of the process use.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use streampress_crds::Role;
use streampress_crds::api::pipeline::CodecEffort;
use streampress_crds::location::DATA;
use streampress_transport::SlotLocks;
use streampress_transport::local::Local;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::advice::PipelineWords;
use super::args::PipelineArgs;
use super::{output, roles_memory, signals, threads_that_fit};
use crate::config::{BadConfiguration, Config, settings};
use crate::journal::{FileJournal, NoJournal, SqliteJournal};
use crate::roles::connect::{self, Backend};
use crate::roles::context::RoleContext;
use crate::roles::earlier_state::EarlierState;
use crate::runtime::blocking;
use crate::telemetry::address_space::LowAddressSpace;
use crate::telemetry::health;
use crate::telemetry::memory_limit;
use crate::telemetry::metrics::Meter;

/// The pipeline and the transport that a command works on.
pub(super) struct RoleCommand {
    pub(super) config: Config,
    /// For further commands.
    pub(super) words: PipelineWords,
    transport: TransportChoice,
    /// The folder in place of /data.
    pub(super) data: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TransportChoice {
    /// In the data folder.
    Embedded,
    Aws,
}

/// What a role's settings say of its process.
pub(super) struct ProcessOptions {
    pub(super) role: Role,
    pub(super) listen: Option<SocketAddr>,
    pub(super) threads: usize,
}

impl RoleCommand {
    /// Whether the command works on queues and a stream in AWS.
    pub(super) fn is_on_aws(&self) -> bool {
        self.transport == TransportChoice::Aws
    }

    pub(super) fn find(args: &PipelineArgs) -> Result<Self> {
        let config = Config::find(args.file.as_deref(), &mut output::note)?;
        let (transport, data) = match (&config, args.data.clone()) {
            (_, Some(data)) => (TransportChoice::Embedded, data),
            (Config::File(resolved), None) => {
                let transport = match args.aws {
                    true => TransportChoice::Aws,
                    false => TransportChoice::Embedded,
                };
                let data = settings::data_folder(None, &resolved.identity.pipeline);
                (transport, data)
            }
            (Config::Variable(_), None) => (TransportChoice::Aws, PathBuf::from(DATA)),
            // The original's folders are relative to its working folder.
            (Config::Legacy(_), None) => (TransportChoice::Aws, PathBuf::from(".")),
        };
        Ok(Self {
            config,
            words: PipelineWords::of(args),
            transport,
            data,
        })
    }

    /// Whether there is a data folder with a journal.
    pub(super) fn has_journal(&self) -> bool {
        self.transport == TransportChoice::Embedded && Local::exists(&self.data)
    }

    /// Fails where nothing ever ran in the data folder, so that a mistyped --data does not look like an empty one.
    pub(super) fn ensure_data_exists(&self) -> Result<()> {
        if self.transport == TransportChoice::Embedded && !Local::exists(&self.data) {
            if matches!(Local::has_stream(&self.data), Ok(true)) {
                bail!(
                    "the database of the data folder {} is lost; this sends the files in its stream to be restored: {}",
                    self.data.display(),
                    self.words.command("recover")
                );
            }
            bail!(self.no_data());
        }
        Ok(())
    }

    /// Fails where there is no stream in the data folder; its database may be lost.
    pub(super) fn ensure_stream_exists(&self) -> Result<()> {
        if self.transport != TransportChoice::Embedded {
            return Ok(());
        }
        let stream = Local::stream_folder(&self.data);
        let shown = stream.display();
        match Local::has_stream(&self.data) {
            Ok(true) => Ok(()),
            Ok(false) => bail!(
                "the stream of the data folder is empty, so that there is nothing to recover: if files were packed there, put \
                 what {shown} held back"
            ),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("reading the stream {shown}"))
            }
            Err(_) if Local::exists(&self.data) => {
                bail!("{shown} is missing, and nothing is recovered without it: put it back")
            }
            Err(_) => bail!(self.no_data()),
        }
    }

    /// What is said where nothing ever ran in the data folder.
    fn no_data(&self) -> String {
        let shown = self.data.display();
        let other = "or the data is in another folder (--data)";
        match self.data.is_dir() {
            true => format!("{shown} is no data folder yet: nothing ran there, {other}"),
            false => format!("there is no data folder {shown}: nothing ran there yet, {other}"),
        }
    }

    /// Fails where the database of the data folder is there and damaged: what is read from it may be wrong.
    pub(super) async fn ensure_database_is_whole(&self) -> Result<()> {
        if self.transport == TransportChoice::Embedded {
            let data = self.data.clone();
            blocking(move || Local::check_database(&data)).await?;
        }
        Ok(())
    }

    /// For a role that is this process: health and metrics are served.
    pub(super) async fn serve(
        &self,
        process: ProcessOptions,
        shutdown: CancellationToken,
    ) -> Result<RoleContext> {
        let meter = Meter::default();
        let is_operators_pod = matches!(self.config, Config::Variable(_)) && is_in_pod();
        let listen = process
            .listen
            .or(is_operators_pod.then_some(health::IN_POD));
        if let Some(address) = listen {
            let identity = self.config.identity();
            let labels = health::labels(identity, process.role);
            health::serve(address, labels, meter.clone()).await?;
        }
        let context = self.context(process.threads, shutdown).await?;
        self.refuse_folder_of_another(&context).await?;
        if let (Config::File(_), Ok(compressor), Ok(decompressor)) = (
            &self.config,
            self.config.compressor(),
            self.config.decompressor(),
        ) {
            let (source, destination) = (&compressor.source, &decompressor.destination);
            context.refuse_one_folder(&source.location, &destination.location)?;
        }
        if let Some(state) = EarlierState::of(&context).await {
            warn!("{}", state.notice(&self.words.command("recover")));
        }
        Ok(RoleContext { meter, ..context })
    }

    /// Says so where the database of the data folder was put back to an earlier state, or is lost.
    pub(super) async fn note_earlier_state(&self, context: &RoleContext) {
        if let Some(state) = EarlierState::of(context).await {
            output::note(&state.notice(&self.words.command("recover")));
        }
    }

    /// Opens the transport.
    pub(super) async fn context(
        &self,
        threads: usize,
        shutdown: CancellationToken,
    ) -> Result<RoleContext> {
        let (backend, locks, journal) = match self.transport {
            TransportChoice::Embedded => {
                let (backend, locks, journal) = self.open_embedded().await?;
                (backend, locks, Some(journal))
            }
            TransportChoice::Aws => {
                let locks = self.aws_locks().await?;
                let aws = connect::connect_aws(&self.config).await?;
                info!(
                    pipeline = self.config.identity().pipeline,
                    "Using queues and stream on AWS."
                );
                (Backend::Aws(aws), locks, None)
            }
        };
        let destination_journal = journal.clone();
        let journal: Arc<dyn FileJournal> = match journal {
            Some(journal) => Arc::new(journal),
            None => Arc::new(NoJournal),
        };
        Ok(RoleContext {
            backend,
            locks,
            journal,
            destination_journal,
            data: self.data.clone(),
            threads,
            meter: Meter::default(),
            shutdown,
        })
    }

    async fn open_embedded(&self) -> Result<(Backend, SlotLocks, SqliteJournal)> {
        let local = connect::open_local(&self.data, &self.config).await?;
        let opened = local.clone();
        let journal = blocking(move || SqliteJournal::open(&opened)).await;
        let journal = journal.context("opening the journal of the data folder")?;
        info!(
            pipeline = self.config.identity().pipeline,
            data = %self.data.display(),
            "Opened the data folder."
        );
        let locks = connect::local_locks(&local);
        Ok((Backend::Embedded(local), locks, journal))
    }

    /// Fails where the data folder is another pipeline's, or another one or another source or destination is at work in it: this one
    /// would take its messages, look for its files elsewhere, and act on what it finds there.
    pub(super) async fn refuse_folder_of_another(&self, context: &RoleContext) -> Result<()> {
        let own = &self.config.identity().pipeline;
        if let (Backend::Embedded(local), Config::File(resolved)) = (&context.backend, &self.config)
        {
            let (source, destination) = (&resolved.source.location, &resolved.destination.location);
            connect::work_in_folder(local, own, source, destination).await?;
        }
        match context.pipeline_of_folder().await? {
            None => context.take_folder(own).await,
            Some(pipeline) if pipeline == *own => Ok(()),
            Some(pipeline) => {
                let but = match self.config {
                    Config::Legacy(_) => "the Python original's variables would be used",
                    Config::File(_) | Config::Variable(_) => "this is another one",
                };
                Err(BadConfiguration::new(format!(
                    "{} is the data folder of pipeline {pipeline}, and {but}: give the FILE.yaml of {pipeline}, or another folder \
                     (--data)",
                    self.data.display()
                ))
                .into())
            }
        }
    }

    /// In a cluster the slots are Leases; elsewhere a worker on AWS has slots of its own.
    async fn aws_locks(&self) -> Result<SlotLocks> {
        match (&self.config, is_in_pod()) {
            (Config::Variable(_), true) => connect::lease_locks(&self.config).await,
            (Config::File(_) | Config::Legacy(_), true) => {
                output::note(
                    "slots are not shared with other workers: only the operator's pods have Leases",
                );
                Ok(connect::process_locks())
            }
            (_, false) => Ok(connect::process_locks()),
        }
    }
}

/// Kubernetes sets this variable in every container.
fn is_in_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

/// A token that the first signal cancels. Must be called within a runtime.
pub(super) fn shutdown_on_signal() -> CancellationToken {
    signals::shutdown_on_signal(|| {
        info!(
            "Stopping: messages in progress are finished or released; a second signal stops at once."
        );
    })
}

/// Threads of a role, which may be in a pod: as many as its memory holds blocks, unless the number is given.
/// An error where its limit of address space holds no block.
pub(super) fn role_threads(
    given: Option<u16>,
    block_bytes: usize,
    effort: CodecEffort,
) -> Result<usize, LowAddressSpace> {
    let threads = threads_that_fit(given, block_bytes, effort, roles_memory())?;
    let limit = memory_limit::limit();
    let fitting = memory_limit::threads_within(limit, threads, block_bytes, effort);
    warn_of_memory(block_bytes, effort);
    Ok(match given {
        None if fitting < threads => {
            info!(
                threads = fitting,
                cores = threads,
                limit_bytes = limit,
                "Using fewer threads than cores: more would not fit the memory limit. --threads overrides this."
            );
            fitting
        }
        Some(_) | None => threads,
    })
}

/// Warns where the memory limit may not hold one block of this size.
pub(super) fn warn_of_memory(block_bytes: usize, effort: CodecEffort) {
    let limit = memory_limit::limit();
    let least = memory_limit::least_bytes(block_bytes, effort);
    if limit.is_some_and(|limit| limit < least) {
        warn!(
            limit_bytes = limit,
            needed_bytes = least,
            block_bytes,
            "A single block may take more than the memory limit, and the kernel then ends the process. Raise the limit, or lower codec.blockSize."
        );
    }
}

/// Where a location lies below `data`, or on this machine.
pub(super) fn local_path(data: &Path, location: &streampress_crds::Location) -> Option<PathBuf> {
    match (location.below_data(), location) {
        (Some(below), _) => Some(data.join(below)),
        (None, streampress_crds::Location::File { path }) => Some(PathBuf::from(path)),
        (None, streampress_crds::Location::S3 { .. }) => None,
    }
}
