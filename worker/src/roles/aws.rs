//! The AWS side of a role's doors, put together from its settings: which queues and which stream it needs, who it is
//! there, and how its slots are kept.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use streampress_crds::location::Location;
use streampress_crds::settings::{
    AwsSettings, QueueSettings, Resolved, Settings, StreamSettings, TransportSettings,
};

use crate::config::Config;
use crate::roles::context::{Locks, Transport};
use streampress_transport::aws::provision::ProvisionPlan;
use streampress_transport::aws::{Aws, AwsCredentials, AwsOptions};
use streampress_transport::{FileName, Files};

/// The tag that marks what `streampress setup` made, with the pipeline's name as its value.
pub const OWNER_TAG: &str = "streampress.dev/setup-for";

/// Default of the original's `AWS_ACCESS_KEY` and `AWS_SECRET_KEY`; LocalStack takes any.
const LEGACY_KEY: &str = "your_access_key";

/// What a role needs of AWS.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// The files queue: name or URL, and how long a received message is hidden.
    pub files_queue: Option<(String, Duration)>,
    /// The chunks queue, the same.
    pub chunks_queue: Option<(String, Duration)>,
    /// The stream's name.
    pub stream: Option<String>,
    /// Where AWS is and who we are there.
    pub options: AwsOptions,
}

fn queue(settings: &QueueSettings) -> Option<(String, Duration)> {
    Some((
        settings.name.clone(),
        Duration::from_secs(u64::from(settings.visibility_timeout_seconds)),
    ))
}

/// The environment decides who we are; the pipeline's settings decide where, unless the environment says otherwise.
fn options(settings: &AwsSettings) -> AwsOptions {
    let mut options = AwsOptions::from_env(|name| std::env::var(name).ok());
    options.endpoint = options.endpoint.or_else(|| settings.endpoint_url.clone());
    options.region = Some(settings.region.clone())
        .filter(|region| !region.is_empty())
        .or(options.region);
    options
}

/// What the settings say a process needs: all of it for a pipeline's YAML, one role's share otherwise.
pub fn places(config: &Config) -> Places {
    match config {
        Config::File(resolved) => {
            let transport = &resolved.transport;
            Places {
                files_queue: queue(&transport.files_queue),
                chunks_queue: queue(&transport.chunks_queue),
                stream: Some(transport.stream.name.clone()),
                options: options(&resolved.aws),
            }
        }
        Config::Variable(settings) => Places {
            options: options(settings.aws()),
            ..of_role(settings)
        },
        Config::Legacy(seed) => {
            let visibility = Duration::from_secs(u64::from(
                seed.resolved
                    .transport
                    .files_queue
                    .visibility_timeout_seconds,
            ));
            let aws = &seed.worker.aws;
            let mut options = AwsOptions::from_env(|name| std::env::var(name).ok());
            let somebody = |name: &&str| std::env::var_os(name).is_some();
            if options.endpoint.is_none()
                && !["AWS_ACCESS_KEY_ID", "AWS_PROFILE"].iter().any(somebody)
            {
                // The original's endpoint without a word is a LocalStack on this machine, and so are its credentials.
                options
                    .credentials
                    .get_or_insert_with(|| AwsCredentials::new(LEGACY_KEY, LEGACY_KEY));
            }
            options.endpoint = options.endpoint.or_else(|| Some(aws.endpoint_url.clone()));
            options.region = options.region.or_else(|| Some(aws.region.clone()));
            Places {
                files_queue: Some((aws.files_queue_url.clone(), visibility)),
                chunks_queue: Some((aws.chunks_queue_url.clone(), visibility)),
                stream: Some(aws.stream_name.clone()),
                options,
            }
        }
    }
}

fn of_role(settings: &Settings) -> Places {
    match settings {
        Settings::Generator(settings) => Places {
            files_queue: queue(&settings.transport.files_queue),
            ..Places::default()
        },
        Settings::Compressor(settings) => Places {
            files_queue: queue(&settings.transport.files_queue),
            chunks_queue: queue(&settings.transport.chunks_queue),
            stream: Some(settings.transport.stream.name.clone()),
            ..Places::default()
        },
        Settings::Decompressor(settings) => Places {
            chunks_queue: queue(&settings.transport.chunks_queue),
            stream: Some(settings.transport.stream.name.clone()),
            ..Places::default()
        },
    }
}

/// Opens queues and stream.
pub async fn connect(places: &Places, locks: Locks) -> Result<Transport> {
    let aws = Aws::connect(&places.options).await;
    let mut transport = Transport::without_doors(locks);
    if let Some((name, visibility)) = &places.files_queue {
        let queue = aws.queue(name, *visibility).await;
        transport.files_queue = Some(Arc::new(
            queue.with_context(|| missing("queue", name, &aws))?,
        ));
    }
    if let Some((name, visibility)) = &places.chunks_queue {
        let queue = aws.queue(name, *visibility).await;
        transport.chunks_queue = Some(Arc::new(
            queue.with_context(|| missing("queue", name, &aws))?,
        ));
    }
    if let Some(name) = &places.stream {
        let stream = aws.stream(name).await;
        transport.stream = Some(Arc::new(
            stream.with_context(|| missing("stream", name, &aws))?,
        ));
    }
    transport.aws = Some(aws);
    Ok(transport)
}

/// Where a page in a bucket lies: its folder, and its name there.
pub fn page(aws: &Aws, location: &Location) -> Result<(Arc<dyn Files>, FileName)> {
    let Location::S3 { bucket, prefix } = location else {
        anyhow::bail!("{location} is not in a bucket");
    };
    let (folder, name) = prefix.rsplit_once('/').unwrap_or(("", prefix));
    let name = FileName::parse(name).map_err(anyhow::Error::msg)?;
    let folder = Location::S3 {
        bucket: bucket.clone(),
        prefix: folder.to_owned(),
    };
    Ok((files(aws, &folder)?, name))
}

/// Opens a bucket's prefix. Call it within a runtime.
pub fn files(aws: &Aws, location: &Location) -> Result<Arc<dyn Files>> {
    let Location::S3 { bucket, prefix } = location else {
        anyhow::bail!("{location} is not in a bucket");
    };
    let files = aws.files(&location.to_string(), bucket, prefix);
    Ok(Arc::new(
        files.with_context(|| format!("opening {location}"))?,
    ))
}

fn missing(kind: &str, name: &str, aws: &Aws) -> String {
    format!(
        "opening {kind} {name} on {}; if it is not there yet, 'streampress setup' makes it",
        aws.describe_endpoint()
    )
}

/// What `setup` creates for a pipeline, and the largest record that will be put there, in bytes.
pub fn provision_plan(config: &Config) -> Option<(ProvisionPlan, usize)> {
    let (plan, resolved) = match config {
        Config::File(resolved) => (plan_of(resolved), &**resolved),
        Config::Legacy(seed) => (
            legacy_plan(&seed.worker.aws, &seed.resolved),
            &seed.resolved,
        ),
        Config::Variable(_) => return None,
    };
    Some((plan, resolved.codec.record_bytes))
}

fn plan_of(resolved: &Resolved) -> ProvisionPlan {
    let owner = (OWNER_TAG, &*resolved.identity.pipeline);
    ProvisionPlan {
        encrypted: resolved.aws.endpoint_url.is_none(),
        ..ProvisionPlan::new(resolved.transport.clone(), owner)
    }
}

/// The original's transport: ten shards, two queues, five receives.
fn legacy_plan(aws: &crate::config::legacy_env::LegacyAws, resolved: &Resolved) -> ProvisionPlan {
    let queue = |url: &str| {
        let name = url.rsplit('/').next().unwrap_or(url);
        QueueSettings {
            name: name.to_owned(),
            dead_letter_name: format!("{}-dlq.fifo", name.trim_end_matches(".fifo")),
            visibility_timeout_seconds: resolved.transport.files_queue.visibility_timeout_seconds,
            max_receive_count: 5,
        }
    };
    let transport = TransportSettings {
        files_queue: queue(&aws.files_queue_url),
        chunks_queue: queue(&aws.chunks_queue_url),
        stream: StreamSettings {
            name: aws.stream_name.clone(),
            shards: 10,
            retention_hours: 24,
        },
    };
    ProvisionPlan {
        encrypted: false,
        ..ProvisionPlan::new(transport, (OWNER_TAG, "seed"))
    }
}
