//! The commands that are one role, as in a pod: generate, compress, decompress; and those that feed them: submit, redrive.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use streampress_crds::api::pipeline::{CodecEffort, CodecFormat};
use streampress_crds::location::Location;
use streampress_crds::settings::{
    CompressorSettings, DecompressorSettings, GeneratorSettings, Settings,
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{GenerateArgs, PlaceArgs, RedriveArgs, RoleArgs, SubmitArgs, signals};
use crate::blocking;
use crate::cli::progress::print;
use crate::config::{self, BadConfiguration, Config};
use crate::message::FileRef;
use crate::roles::announce::Announcer;
use crate::roles::aws;
use crate::roles::context::{Locks, RoleContext, Transport};
use crate::roles::redrive::{self as redriving, Done};
use crate::roles::run::open_journal;
use crate::telemetry::health;
use crate::telemetry::memory_limit;
use crate::telemetry::metrics::Meter;
use streampress_codec::hybrid;
use streampress_transport::in_process_lock::InProcessLock;
use streampress_transport::local::{Local, LocalOptions};
use streampress_transport::{FileName, SlotLock};

pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the async runtime")
}

pub fn threads(given: Option<u16>) -> usize {
    given.map_or_else(
        || std::thread::available_parallelism().map_or(1, usize::from),
        usize::from,
    )
}

/// Of a role, which may be in a pod: no more than its memory holds blocks, unless it was told how many.
fn threads_of_role(given: Option<u16>, block_bytes: usize, effort: CodecEffort) -> usize {
    let (limit, cores) = (memory_limit::limit(), threads(None));
    let fitting = memory_limit::threads_within(limit, cores, block_bytes, effort);
    match given {
        Some(given) => usize::from(given),
        None if fitting < cores => {
            info!(
                threads = fitting,
                cores,
                limit_bytes = limit,
                "Working on fewer threads than there are cores: more would not fit the memory limit. --threads says otherwise."
            );
            fitting
        }
        None => cores,
    }
}

pub fn notice(text: &str) {
    eprintln!("note: {text}");
}

fn no_role(config: &Config, wanted: &str) -> BadConfiguration {
    BadConfiguration(format!(
        "pipeline {} has no {wanted}; give a FILE.yaml that has one, or unset STREAMPRESS_PIPELINE",
        config.pipeline()
    ))
}

fn generator_settings(config: &Config) -> Result<GeneratorSettings, BadConfiguration> {
    match config {
        Config::File(resolved) => resolved
            .generator_settings()
            .ok_or_else(|| no_role(config, "generator")),
        Config::Variable(settings) => match &**settings {
            Settings::Generator(settings) => Ok(settings.clone()),
            _ => Err(no_role(config, "generator")),
        },
        Config::Legacy(_) => Err(no_role(config, "generator")),
    }
}

fn compressor_settings(config: &Config) -> Result<CompressorSettings, BadConfiguration> {
    match config {
        Config::File(resolved) => Ok(resolved.compressor_settings()),
        Config::Variable(settings) => match &**settings {
            Settings::Compressor(settings) => Ok(settings.clone()),
            _ => Err(no_role(config, "compressor")),
        },
        Config::Legacy(seed) => Ok(seed.resolved.compressor_settings()),
    }
}

pub fn decompressor_settings(config: &Config) -> Result<DecompressorSettings, BadConfiguration> {
    match config {
        Config::File(resolved) => Ok(resolved.decompressor_settings()),
        Config::Variable(settings) => match &**settings {
            Settings::Decompressor(settings) => Ok(settings.clone()),
            _ => Err(no_role(config, "decompressor")),
        },
        Config::Legacy(seed) => Ok(seed.resolved.decompressor_settings()),
    }
}

/// What a role command works in.
struct Role {
    config: Config,
    side: Side,
}

/// Which side of the doors.
enum Side {
    /// The transport in this folder.
    Embedded(PathBuf),
    /// AWS; the folder stands for /data.
    Aws(PathBuf),
}

impl Side {
    fn data(&self) -> &Path {
        match self {
            Side::Embedded(data) | Side::Aws(data) => data,
        }
    }
}

impl Role {
    fn find(place: PlaceArgs) -> Result<Self> {
        let config = Config::find(place.file.as_deref(), &mut notice)?;
        if let Config::Legacy(seed) = &config {
            notice(&format!(
                "the Python original's variables are used: {}",
                seed.worker
            ));
        }
        let side = match (&config, place.data) {
            (_, Some(data)) => Side::Embedded(data),
            (Config::File(_), None) if !place.aws => {
                Side::Embedded(config::data_folder(None, config.pipeline()))
            }
            (Config::File(_), None) => Side::Aws(config::data_folder(None, config.pipeline())),
            (Config::Variable(_), None) => {
                Side::Aws(PathBuf::from(streampress_crds::location::DATA))
            }
            // The original's folders are relative to where it runs.
            (Config::Legacy(_), None) => Side::Aws(PathBuf::from(".")),
        };
        Ok(Self { config, side })
    }

    /// For a role that is this process: it can be asked how it is.
    async fn worker(
        &self,
        role: &str,
        listen: Option<SocketAddr>,
        threads: usize,
        shutdown: CancellationToken,
    ) -> Result<RoleContext> {
        let meter = Meter::default();
        let of_operator = matches!(self.config, Config::Variable(_)) && in_pod();
        if let Some(address) = listen.or(of_operator.then_some(health::IN_POD)) {
            let labels = health::labels(self.config.pipeline(), self.config.namespace(), role);
            health::serve(address, labels, meter.clone()).await?;
        }
        let workplace = self.workplace(threads, shutdown).await?;
        meter.ready();
        Ok(RoleContext { meter, ..workplace })
    }

    async fn workplace(&self, threads: usize, shutdown: CancellationToken) -> Result<RoleContext> {
        let (transport, data) = match &self.side {
            Side::Embedded(data) => (self.embedded(data).await?, data),
            Side::Aws(data) => {
                let places = aws::places(&self.config);
                info!(
                    pipeline = self.config.pipeline(),
                    "Opening queues and stream on AWS."
                );
                (aws::connect(&places, self.locks().await?).await?, data)
            }
        };
        Ok(RoleContext {
            transport,
            data: data.clone(),
            threads,
            meter: Meter::default(),
            shutdown,
        })
    }

    /// In a cluster the slots are Leases; anywhere else a worker on AWS has no others beside it to agree with.
    async fn locks(&self) -> Result<Locks> {
        if let (Config::Variable(settings), true) = (&self.config, in_pod()) {
            return lease_locks(settings).await;
        }
        if in_pod() {
            notice("slots are not shared with other workers: only the operator's pods have Leases");
        }
        Ok(Arc::new(|role: &str, slots| {
            Arc::new(InProcessLock::new(role, slots)) as Arc<dyn SlotLock>
        }))
    }

    async fn embedded(&self, data: &Path) -> Result<Transport> {
        let (folder, options) = (data.to_owned(), self.local_options());
        let local = blocking(move || Local::open(&folder, options))
            .await
            .with_context(|| format!("opening the data folder {}", data.display()))?;
        info!(data = %data.display(), pipeline = self.config.pipeline(), "Opened the data folder.");
        let journal = open_journal(&local).await?;
        Ok(Transport::embedded(&local, Arc::new(journal)))
    }

    fn local_options(&self) -> LocalOptions {
        let (queue, retention_hours) = match &self.config {
            Config::File(resolved) => (
                Some(&resolved.transport.files_queue),
                Some(resolved.transport.stream.retention_hours),
            ),
            Config::Legacy(seed) => (Some(&seed.resolved.transport.files_queue), None),
            Config::Variable(settings) => match &**settings {
                Settings::Generator(settings) => (Some(&settings.transport.files_queue), None),
                Settings::Compressor(settings) => (
                    Some(&settings.transport.files_queue),
                    Some(settings.transport.stream.retention_hours),
                ),
                Settings::Decompressor(settings) => (
                    Some(&settings.transport.chunks_queue),
                    Some(settings.transport.stream.retention_hours),
                ),
            },
        };
        let mut options = LocalOptions::default();
        if let Some(queue) = queue {
            options.visibility_timeout =
                Duration::from_secs(u64::from(queue.visibility_timeout_seconds));
            options.max_receive_count = queue.max_receive_count;
        }
        if let Some(hours) = retention_hours {
            options.retention = Duration::from_secs(3600 * u64::from(hours));
        }
        options
    }
}

#[cfg(feature = "kubernetes")]
async fn lease_locks(settings: &Settings) -> Result<Locks> {
    let identity = settings.identity();
    streampress_transport::lease::in_cluster(&identity.namespace, &identity.pipeline)
        .await
        .context("finding the slots")
}

/// Without Leases it would take its slots for free, beside all others, and count nowhere.
#[cfg(not(feature = "kubernetes"))]
async fn lease_locks(_settings: &Settings) -> Result<Locks> {
    bail!(
        "this program was built without Kubernetes: an operator's pod needs one built with `--features kubernetes`, as deploy/Dockerfile does"
    )
}

/// Kubernetes says so to every container.
fn in_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

fn shutdown() -> CancellationToken {
    signals::shutdown_on_signal(|| {
        info!("Stopping: finishing what is in hand; once more to stop at once.")
    })
}

pub fn generate(args: GenerateArgs) -> Result<ExitCode> {
    let role = Role::find(args.place)?;
    let settings = match &role.config {
        Config::Legacy(seed) => {
            let (job, said) = config::seed_job(&seed.generator, role.side.data(), args.files);
            said.iter().for_each(|text| notice(text));
            let resolved = &seed.resolved;
            let mut identity = resolved.identity.clone();
            identity.pipeline = seed.generator.file_name_prefix.clone();
            GeneratorSettings {
                identity,
                aws: resolved.aws.clone(),
                transport: streampress_crds::settings::GeneratorTransport {
                    files_queue: resolved.transport.files_queue.clone(),
                },
                source: streampress_crds::settings::LocationSettings {
                    location: resolved.source.location.clone(),
                },
                generator: job,
                codec_format: CodecFormat::Seed,
            }
        }
        Config::File(_) | Config::Variable(_) => generator_settings(&role.config)?,
    };
    runtime()?.block_on(async {
        let shutdown = shutdown();
        let workplace = role
            .worker("generator", args.listen, 1, shutdown.clone())
            .await?;
        let mut generate = workplace.generator(&settings)?;
        generate.files = args.files.unwrap_or(generate.files);
        generate.run().await;
        if args.files.is_none() && !shutdown.is_cancelled() {
            info!("Idle until stopped.");
            shutdown.cancelled().await;
        }
        Ok(ExitCode::SUCCESS)
    })
}

pub fn compress(args: RoleArgs) -> Result<ExitCode> {
    let role = Role::find(args.place)?;
    let settings = compressor_settings(&role.config)?;
    runtime()?.block_on(async {
        let shutdown = shutdown();
        let codec = &settings.codec;
        let threads = threads_of_role(args.threads, codec.block_bytes, codec.effort);
        let workplace = role
            .worker("compressor", args.listen, threads, shutdown)
            .await?;
        let consumer = match &role.config {
            Config::Legacy(seed) => {
                if !seed.worker.push {
                    notice("ENABLE_DATA_PUSH is False: files are compressed and reported, nothing is sent");
                }
                let report = workplace.report(&seed.resolved.decompressor_settings())?.map(|(log, _)| log);
                workplace.legacy_compressor(&settings, &seed.worker, report)?
            }
            Config::File(_) | Config::Variable(_) => workplace.compressor(&settings)?,
        };
        let scan = scan(&workplace, &settings)?;
        tokio::join!(consumer.run(), scan);
        Ok(ExitCode::SUCCESS)
    })
}

/// Looks for new files beside the work, where the pipeline asks for it.
fn scan(
    workplace: &RoleContext,
    settings: &CompressorSettings,
) -> Result<impl Future<Output = ()> + use<>> {
    let every = Duration::from_secs(u64::from(settings.source.scan_seconds));
    let scanner = workplace.scanner(settings, workplace.compressor_announcer(settings)?);
    let shutdown = workplace.shutdown.clone();
    Ok(async move {
        if !every.is_zero() {
            scanner.run(every, &shutdown).await;
        }
    })
}

pub fn decompress(args: RoleArgs) -> Result<ExitCode> {
    let role = Role::find(args.place)?;
    let settings = decompressor_settings(&role.config)?;
    runtime()?.block_on(async {
        // How large blocks are stands in each file; this is what they are unless somebody wanted others.
        let threads = threads_of_role(
            args.threads,
            hybrid::DEFAULT_BLOCK_BYTES,
            CodecEffort::Balanced,
        );
        let workplace = role
            .worker("decompressor", args.listen, threads, shutdown())
            .await?;
        let report = workplace.report(&settings)?.map(|(log, _)| log);
        let consumer = workplace.decompressor(&settings, report.clone())?;
        consumer.run().await;
        if let Some(log) = report {
            log.finish().await;
        }
        Ok(ExitCode::SUCCESS)
    })
}

pub fn submit(args: SubmitArgs) -> Result<ExitCode> {
    let role = Role::find(PlaceArgs {
        file: args.pipeline,
        data: args.data,
        aws: args.aws,
    })?;
    let settings = compressor_settings(&role.config)?;
    runtime()?.block_on(async {
        let workplace = role.workplace(1, CancellationToken::new()).await?;
        let announcer = workplace.compressor_announcer(&settings)?;
        let source = &settings.source.location;
        let folder = match source {
            Location::S3 { .. } => None,
            Location::File { .. } => Some(workplace.path(source)?),
        };
        let mut failed = false;
        for path in &args.files {
            let submitted = match object_of(source, path) {
                Some(Ok(name)) => announce_object(&announcer, name).await,
                Some(Err(error)) => Err(error),
                None => submit_one(&announcer, folder.as_deref(), path).await,
            };
            match submitted {
                Ok(text) => print(&format!("{text}\n")),
                Err(error) => {
                    failed = true;
                    eprintln!("error: {error:#}");
                }
            }
        }
        Ok(if failed {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    })
}

/// The name of an object of the source that was given by its address, as `s3://bucket/prefix/name`.
fn object_of(source: &Location, path: &Path) -> Option<Result<FileName>> {
    let address = path.to_str().filter(|text| text.starts_with("s3://"))?;
    let root = format!("{source}/");
    let below = address.strip_prefix(&root).with_context(|| {
        format!("{address} is not at the source {source}; name an object below it, or a file of this machine")
    });
    Some(below.and_then(|name| FileName::parse(name).map_err(anyhow::Error::msg)))
}

async fn announce_object(announcer: &Announcer, name: FileName) -> Result<String> {
    let (files, at) = (announcer.source.clone(), name.clone());
    let entry = blocking(move || files.stat(&at)).await?;
    let entry =
        entry.with_context(|| format!("{name} is not in {}", announcer.source.location()))?;
    let file = announcer.announce(&entry).await?;
    Ok(format!("{name}: announced, file {}", short_id(&file)))
}

fn short_id(file: &FileRef) -> String {
    file.id().as_str()[..12].to_owned()
}

/// Announces a file of the source; one from elsewhere is copied there first, under its own name.
async fn submit_one(announcer: &Announcer, source: Option<&Path>, path: &Path) -> Result<String> {
    let full = path
        .canonicalize()
        .with_context(|| format!("opening {}", path.display()))?;
    if !full.is_file() {
        bail!(
            "{} is not a file; name files, or use 'streampress run --input' for a folder",
            path.display()
        );
    }
    let inside = source
        .and_then(|source| source.canonicalize().ok())
        .and_then(|source| full.strip_prefix(source).ok().map(Path::to_owned));
    let name = match &inside {
        Some(name) => name.as_path(),
        None => Path::new(full.file_name().context("the file has no name")?),
    };
    let name = name
        .to_str()
        .with_context(|| format!("{} is not UTF-8; rename it", path.display()))?;
    let name = FileName::parse(name).map_err(anyhow::Error::msg)?;
    let files = announcer.source.clone();
    let (copied, at) = (inside.is_none(), name.clone());
    let entry = blocking(move || -> Result<_> {
        if copied {
            let mut pending = files.create(&at)?;
            std::io::copy(&mut std::fs::File::open(&full)?, &mut pending)?;
            pending.commit(full.metadata()?.modified()?)?;
        }
        files.stat(&at)?.context("it is not at the source any more")
    })
    .await
    .with_context(|| format!("submitting {}", path.display()))?;
    let how = if copied {
        "copied to the source and announced"
    } else {
        "announced"
    };
    let file = announcer.announce(&entry).await?;
    Ok(format!(
        "{}: {how} as {name}, file {}",
        path.display(),
        short_id(&file)
    ))
}

pub fn redrive(args: RedriveArgs) -> Result<ExitCode> {
    let role = Role::find(args.place)?;
    let settings = compressor_settings(&role.config)?;
    runtime()?.block_on(async {
        let workplace = role.workplace(1, CancellationToken::new()).await?;
        let announcer = workplace.compressor_announcer(&settings)?;
        let letters = redriving::redrive(&workplace.transport, &announcer, args.list).await?;
        let mut left = 0;
        for letter in &letters {
            let done = match &letter.done {
                Done::Listed => "dead",
                Done::SentAgain => "sent again",
                Done::AnnouncedAgain => "source announced again",
                Done::Left(why) => {
                    left += 1;
                    why
                }
            };
            print(&format!(
                "{}: {done} ({}: {})\n",
                letter.name, letter.reason, letter.detail
            ));
        }
        eprintln!("{} dead letter(s), {left} left", letters.len());
        Ok(if left == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    })
}
