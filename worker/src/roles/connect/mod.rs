//! Opens what the roles need: queues, stream, slots, and files in folders or buckets. Which transport it is, is decided
//! once, here: roles get traits.

#[cfg(feature = "aws")]
mod aws;
#[cfg(not(feature = "aws"))]
#[path = "without_aws.rs"]
mod aws;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use streampress_crds::location::Location;
use streampress_crds::queue_check::LAST_RESORT_RECEIVES;
use streampress_crds::settings::{
    CompressorSettings, DecompressorSettings, GeneratorSettings, QueueSettings, StreamSettings,
};
use streampress_transport::in_process_lock::InProcessLock;
use streampress_transport::local::{Local, LocalOptions};
use streampress_transport::{ChunkStream, FileName, Files, Queue, SlotLock, SlotLocks};

pub(crate) use self::aws::AwsConnection;
#[cfg(feature = "aws")]
pub(crate) use self::aws::{connect, provision_plan, those_of_others};

use crate::config::{BadConfiguration, Config};
use crate::runtime::blocking;

/// What a generator sends to.
#[derive(Debug, Clone)]
pub(crate) struct GeneratorConnections {
    /// Takes announcements.
    pub files_queue: Arc<dyn Queue>,
    /// What files pass through afterwards, where it must be known what is lost there.
    pub onward: Option<CompressorConnections>,
}

/// What a compressor receives from and sends to.
#[derive(Debug, Clone)]
pub struct CompressorConnections {
    /// Brings announcements.
    pub files_queue: Arc<dyn Queue>,
    /// Takes manifests.
    pub chunks_queue: Arc<dyn Queue>,
    /// Brings receipts, where the pipeline has them.
    pub receipts_queue: Option<Arc<dyn Queue>>,
    /// Takes records.
    pub stream: Arc<dyn ChunkStream>,
}

/// What a decompressor receives from.
#[derive(Debug, Clone)]
pub struct DecompressorConnections {
    /// Brings manifests.
    pub chunks_queue: Arc<dyn Queue>,
    /// Takes receipts, where the pipeline has them.
    pub receipts_queue: Option<Arc<dyn Queue>>,
    /// Whether no receipt is sent but requests to send a file again.
    pub requests_only: bool,
    /// Brings records.
    pub stream: Arc<dyn ChunkStream>,
}

impl CompressorConnections {
    /// The connections of a generator in the same process, which sees itself what is lost.
    pub(crate) fn for_generator(&self) -> GeneratorConnections {
        GeneratorConnections {
            files_queue: self.files_queue.clone(),
            onward: None,
        }
    }

    /// The connections of a decompressor in the same process: it shares the stream, so that what one reads or counts is
    /// not read or counted twice. It shares the journal too, so that receipts of restored files tell nothing new; where
    /// nothing is done at the source for them (`requests_only`), none are sent.
    pub(crate) fn for_decompressor(&self, requests_only: bool) -> DecompressorConnections {
        DecompressorConnections {
            chunks_queue: self.chunks_queue.clone(),
            receipts_queue: self.receipts_queue.clone(),
            requests_only,
            stream: self.stream.clone(),
        }
    }
}

/// An open transport.
#[derive(Debug, Clone)]
pub enum Backend {
    /// A data folder.
    Embedded(Local),
    /// AWS, or a service that speaks its protocols.
    Aws(AwsConnection),
}

impl Backend {
    /// Opens a generator's connections.
    pub(crate) async fn generator(
        &self,
        settings: &GeneratorSettings,
    ) -> Result<GeneratorConnections> {
        let files_queue = self.files_queue(&settings.transport.files_queue).await?;
        let onward = match (self, &settings.transport.onward) {
            (Self::Embedded(local), _) => Some(CompressorConnections {
                files_queue: files_queue.clone(),
                chunks_queue: local.chunks_queue(),
                receipts_queue: Some(local.receipts_queue()),
                stream: local.stream(),
            }),
            (Self::Aws(aws), Some(onward)) => Some(CompressorConnections {
                files_queue: files_queue.clone(),
                chunks_queue: aws.queue(&onward.chunks_queue).await?,
                receipts_queue: Some(aws.queue(&onward.receipts_queue).await?),
                stream: aws.stream_named(&onward.stream).await?,
            }),
            (Self::Aws(_), None) => None,
        };
        Ok(GeneratorConnections {
            files_queue,
            onward,
        })
    }

    /// Opens a compressor's connections.
    pub async fn compressor(&self, settings: &CompressorSettings) -> Result<CompressorConnections> {
        let transport = &settings.transport;
        Ok(CompressorConnections {
            files_queue: self.files_queue(&transport.files_queue).await?,
            chunks_queue: self.chunks_queue(&transport.chunks_queue).await?,
            receipts_queue: self.receipts_queue(&transport.receipts_queue).await?,
            stream: self.stream(&transport.stream).await?,
        })
    }

    /// Opens a decompressor's connections.
    pub async fn decompressor(
        &self,
        settings: &DecompressorSettings,
    ) -> Result<DecompressorConnections> {
        let transport = &settings.transport;
        Ok(DecompressorConnections {
            chunks_queue: self.chunks_queue(&transport.chunks_queue).await?,
            receipts_queue: self.receipts_queue(&transport.receipts_queue).await?,
            requests_only: false,
            stream: self.stream(&transport.stream).await?,
        })
    }

    /// Opens the files queue.
    pub(crate) async fn files_queue(&self, settings: &QueueSettings) -> Result<Arc<dyn Queue>> {
        match self {
            Self::Embedded(local) => Ok(local.files_queue()),
            Self::Aws(aws) => aws.queue(settings).await,
        }
    }

    async fn chunks_queue(&self, settings: &QueueSettings) -> Result<Arc<dyn Queue>> {
        match self {
            Self::Embedded(local) => Ok(local.chunks_queue()),
            Self::Aws(aws) => aws.queue(settings).await,
        }
    }

    async fn receipts_queue(
        &self,
        settings: &Option<QueueSettings>,
    ) -> Result<Option<Arc<dyn Queue>>> {
        Ok(match (settings, self) {
            (None, _) => None,
            (Some(_), Self::Embedded(local)) => Some(local.receipts_queue()),
            (Some(settings), Self::Aws(aws)) => Some(aws.queue(settings).await?),
        })
    }

    async fn stream(&self, settings: &StreamSettings) -> Result<Arc<dyn ChunkStream>> {
        match self {
            Self::Embedded(local) => Ok(local.stream()),
            Self::Aws(aws) => aws.stream(settings).await,
        }
    }

    /// For how long a stream on AWS keeps records, in hours. The embedded one keeps what is waited for.
    pub(crate) async fn retention_hours(&self, settings: &StreamSettings) -> Result<Option<u32>> {
        match self {
            Self::Embedded(_) => Ok(None),
            Self::Aws(aws) => aws.retention_hours(&settings.name).await.map(Some),
        }
    }

    /// The connection that opens buckets; an error where there is none.
    pub(crate) fn buckets(&self, location: &Location) -> Result<&AwsConnection> {
        match self {
            Self::Aws(aws) => Ok(aws),
            Self::Embedded(_) => anyhow::bail!(no_bucket(location)),
        }
    }
}

/// Opens AWS for a command's settings. Nothing is requested yet: wrong credentials show at the first call.
pub(crate) async fn connect_aws(config: &Config) -> Result<AwsConnection> {
    AwsConnection::open(config).await
}

/// Opens the embedded transport with the limits of a command's settings.
pub(crate) async fn open_local(data: &Path, config: &Config) -> Result<Local> {
    let (queue, stream) = config.embedded_limits();
    let mut options = LocalOptions {
        visibility_timeout: visibility_timeout(queue),
        max_receive_count: LAST_RESORT_RECEIVES,
        ..LocalOptions::default()
    };
    if let Some(stream) = stream {
        options.retention = Duration::from_secs(3600 * u64::from(stream.retention_hours));
    }
    let (folder, shown) = (data.to_owned(), data.display().to_string());
    blocking(move || Local::open(&folder, options))
        .await
        .with_context(|| format!("opening the data folder {shown}"))
}

/// Says which files this process moves in a data folder, and fails where living processes move others there: each takes the messages
/// of all, so that one would look for files of the other at its own source and restore them at its own destination.
pub(crate) async fn work_in_folder(
    local: &Local,
    pipeline: &str,
    source: &Location,
    destination: &Location,
) -> Result<()> {
    let purpose = format!("pipeline {pipeline} from {source} to {destination}");
    let opened = local.clone();
    let others = blocking(move || opened.work_for(&purpose)).await?;
    others.map_err(|others| {
        let folder = local.dir().display();
        let error = BadConfiguration::new(format!(
            "{others} is at work in the data folder {folder}: wait until it ends, or use another folder (--data)"
        ));
        error.into()
    })
}

/// The slots of the embedded transport.
pub fn local_locks(local: &Local) -> SlotLocks {
    let local = local.clone();
    Arc::new(move |role, slots| local.lock(role, slots))
}

/// Slots that hold within this process: a worker on AWS outside a cluster has no other workers to agree with.
pub(crate) fn process_locks() -> SlotLocks {
    Arc::new(|role: &str, slots| Arc::new(InProcessLock::new(role, slots)) as Arc<dyn SlotLock>)
}

/// The slots of a pipeline in this pod's cluster.
#[cfg(feature = "kubernetes")]
pub(crate) async fn lease_locks(config: &Config) -> Result<SlotLocks> {
    let identity = config.identity();
    streampress_transport::lease::in_cluster(&identity.namespace, &identity.pipeline)
        .await
        .context("finding the slots")
}

/// Without Leases the worker would run beside all others and count nowhere.
#[cfg(not(feature = "kubernetes"))]
pub(crate) async fn lease_locks(_config: &Config) -> Result<SlotLocks> {
    anyhow::bail!(
        "this program was built without Kubernetes: an operator's pod needs the image, or a build with `cargo install --path worker --features aws,kubernetes`"
    )
}

/// A page in a bucket: its folder, and its name there.
pub(crate) fn page_in_bucket(
    aws: &AwsConnection,
    location: &Location,
) -> Result<(Arc<dyn Files>, FileName)> {
    let Location::S3 { bucket, prefix } = location else {
        anyhow::bail!("{location} is not in a bucket");
    };
    let (folder, name) = prefix.rsplit_once('/').unwrap_or(("", prefix));
    let name = FileName::parse(name).map_err(anyhow::Error::msg)?;
    let folder = Location::S3 {
        bucket: bucket.clone(),
        prefix: folder.to_owned(),
    };
    Ok((aws.files(&folder)?, name))
}

/// How to get a build with AWS, in one line.
pub(crate) const HOW_TO_GET_AWS: &str = "this program was built without AWS; in a checkout of Streampress, `cargo install --path worker --features aws` installs one with it";

/// Why a location in a bucket cannot be opened.
pub(crate) fn no_bucket(location: &Location) -> String {
    let how = match cfg!(feature = "aws") {
        true => "add --aws",
        false => HOW_TO_GET_AWS,
    };
    format!(
        "{location} is in a bucket, and the transport is a folder; {how}, or write file:///data/… instead"
    )
}

/// How long a message received from the queue stays invisible.
pub(crate) fn visibility_timeout(queue: &QueueSettings) -> Duration {
    Duration::from_secs(u64::from(queue.visibility_timeout_seconds))
}
