//! AWS, opened from a command's settings.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use streampress_crds::location::Location;
use streampress_crds::names::PIPELINE_TAG;
use streampress_crds::settings::{
    Identity, QueueSettings, Resolved, StreamSettings, TransportSettings,
};
use streampress_transport::aws::provision::{
    self, ProvisionPlan, ProvisionResult, retention_hours,
};
use streampress_transport::aws::{Aws, AwsCredentials, AwsOptions};
use streampress_transport::{ChunkStream, Files, Queue};
use tracing::warn;

use super::visibility_timeout;
use crate::config::{BadConfiguration, Config};

/// Default of the original's `AWS_ACCESS_KEY` and `AWS_SECRET_KEY`; LocalStack takes any.
const LEGACY_KEY: &str = "your_access_key";

/// A request's signature has these, or follows from them.
const KEY_VARIABLES: [&str; 5] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ACCESS_KEY",
    "AWS_SECRET_KEY",
];

/// A question beside the work is not waited for longer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// An open connection to AWS.
#[derive(Debug, Clone)]
pub struct AwsConnection {
    aws: Arc<Aws>,
}

impl AwsConnection {
    pub(super) async fn open(config: &Config) -> Result<Self> {
        let aws = connect(config, |notice| warn!("{notice}.")).await?;
        Ok(Self { aws: Arc::new(aws) })
    }

    pub(super) async fn queue(&self, settings: &QueueSettings) -> Result<Arc<dyn Queue>> {
        let queue = self
            .aws
            .queue(&settings.name, visibility_timeout(settings))
            .await;
        Ok(Arc::new(queue.with_context(|| {
            format!("opening the queue {}", settings.name)
        })?))
    }

    pub(super) async fn stream(&self, settings: &StreamSettings) -> Result<Arc<dyn ChunkStream>> {
        self.stream_named(&settings.name).await
    }

    pub(super) async fn stream_named(&self, name: &str) -> Result<Arc<dyn ChunkStream>> {
        let stream = self.aws.stream(name).await;
        Ok(Arc::new(
            stream.with_context(|| format!("opening the stream {name}"))?,
        ))
    }

    /// For how long the stream keeps records, in hours.
    pub(super) async fn retention_hours(&self, stream: &str) -> Result<u32> {
        let asked = tokio::time::timeout(ANSWER_WITHIN, retention_hours(&self.aws, stream)).await;
        let hours = asked.context("no answer in time")?;
        hours?.with_context(|| format!("there is no stream {stream}"))
    }

    /// Opens a bucket's prefix. Must be called within a runtime.
    pub(crate) fn files(&self, location: &Location) -> Result<Arc<dyn Files>> {
        let Location::S3 { bucket, prefix } = location else {
            bail!("{location} is not in a bucket");
        };
        let files = self.aws.files(&location.to_string(), bucket, prefix);
        Ok(Arc::new(
            files.with_context(|| format!("opening {location}"))?,
        ))
    }
}

/// Connects to AWS as settings and environment name it. `notice` learns it where the environment names another endpoint than the
/// pipeline.
pub(crate) async fn connect(
    config: &Config,
    notice: impl FnOnce(&str),
) -> Result<Aws, BadConfiguration> {
    let options = aws_options(config)?;
    if let Some(text) = endpoint_notice(config, &options) {
        notice(&text);
    }
    Ok(Aws::connect(&options).await)
}

/// Region, endpoint and keys. The environment has the credentials; the settings have region and endpoint, unless the
/// environment names another endpoint.
fn aws_options(config: &Config) -> Result<AwsOptions, BadConfiguration> {
    for name in KEY_VARIABLES {
        let is_bad = |key: String| key.chars().any(char::is_control);
        if std::env::var(name).is_ok_and(is_bad) {
            // Such a key comes from a file or a Secret that was written with `echo`.
            return Err(BadConfiguration(format!(
                "{name} has a newline or another control character: set it without one"
            )));
        }
    }
    let settings = config.aws();
    let mut options = AwsOptions::from_env(|name| std::env::var(name).ok());
    let is_set = |name: &&str| std::env::var_os(name).is_some();
    if matches!(config, Config::Legacy(_))
        && options.endpoint.is_none()
        && !["AWS_ACCESS_KEY_ID", "AWS_PROFILE"].iter().any(is_set)
    {
        // The original's default endpoint is a LocalStack on this machine, which takes the original's default keys.
        options
            .credentials
            .get_or_insert_with(|| AwsCredentials::new(LEGACY_KEY, LEGACY_KEY));
    }
    options.endpoint = options.endpoint.or_else(|| settings.endpoint_url.clone());
    options.region = Some(settings.region.clone())
        .filter(|region| !region.is_empty())
        .or(options.region);
    Ok(options)
}

/// What to say where the environment names another endpoint than the pipeline.
fn endpoint_notice(config: &Config, options: &AwsOptions) -> Option<String> {
    let used = options.endpoint.as_ref()?;
    let ignored = config.aws().endpoint_url.as_ref()?;
    let is_other = used != ignored && !matches!(config, Config::Legacy(_));
    is_other.then(|| {
        format!(
            "AWS_ENDPOINT_URL={used} is used in place of spec.aws.endpointURL {ignored}; unset it to use the pipeline's"
        )
    })
}

/// The tag that marks what `streampress setup` created, with the pipeline's name as its value.
const SETUP_TAG: &str = "streampress.dev/setup-for";

/// What `setup` creates for a pipeline; nothing for the settings of a single role.
pub(crate) fn provision_plan(config: &Config) -> Option<ProvisionPlan> {
    let (resolved, transport) = match config {
        Config::File(resolved) => (&**resolved, resolved.transport.clone()),
        Config::Legacy(legacy) => (&legacy.resolved, legacy_transport(&legacy.resolved)),
        Config::Variable(_) => return None,
    };
    Some(ProvisionPlan {
        encrypted: resolved.aws.endpoint_url.is_none(),
        ..ProvisionPlan::new(transport, (SETUP_TAG, &resolved.identity.pipeline))
    })
}

/// The queues and the stream that carry the tag of another pipeline, each with what to do: two pipelines would take each other's
/// messages, and one would restore the other's files.
pub(crate) async fn those_of_others(
    aws: &Aws,
    plan: &ProvisionPlan,
    identity: &Identity,
) -> ProvisionResult<Vec<(String, String)>> {
    let own = [
        (SETUP_TAG, identity.pipeline.clone()),
        (
            PIPELINE_TAG,
            format!("{}/{}", identity.namespace, identity.pipeline),
        ),
    ];
    let mut of_others = Vec::new();
    for (what, tags) in provision::existing_tags(aws, plan).await? {
        let other = own.iter().find_map(|(tag, pipeline)| {
            let found = tags.get(*tag)?;
            (found != pipeline).then_some((tag, found))
        });
        if let Some((tag, other)) = other {
            let problem = format!(
                "belongs to the pipeline {other}, and two would take each other's messages: name another one under spec.transport, or remove its tag {tag} once that pipeline is gone"
            );
            of_others.push((what, problem));
        }
    }
    Ok(of_others)
}

/// The original's transport: ten shards, and two queues whose settings have URLs.
fn legacy_transport(resolved: &Resolved) -> TransportSettings {
    let transport = resolved.transport.clone();
    let queue = |queue: QueueSettings| {
        let name = queue.name.rsplit('/').next().unwrap_or(&queue.name);
        QueueSettings {
            name: name.to_owned(),
            dead_letter_name: format!("{}-dlq.fifo", name.trim_end_matches(".fifo")),
            ..queue
        }
    };
    TransportSettings {
        files_queue: queue(transport.files_queue),
        chunks_queue: queue(transport.chunks_queue),
        receipts_queue: None,
        stream: StreamSettings {
            shards: 10,
            retention_hours: 24,
            ..transport.stream
        },
    }
}
