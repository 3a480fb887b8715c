//! The queues and the stream of a pipeline, as the operator uses them: the trait [`Provisioner`], implemented for AWS
//! (`aws.rs`) and, for tests, in memory (`memory.rs`, feature `testing`). `manager.rs` calls it outside the reconcile path
//! with the identity that `credentials.rs` finds, in the order that `turns.rs` keeps fair; `problem.rs` is what goes wrong.

pub mod aws;
mod credentials;
pub mod manager;
#[cfg(feature = "testing")]
pub mod memory;
pub mod problem;
mod rules;
mod turns;

use async_trait::async_trait;
use streampress_crds::api::pipeline::{AutoscalingMode, DeletionPolicy, TransportPolicy};
use streampress_crds::api::status::TransportStatus;
pub(crate) use streampress_crds::names::PIPELINE_TAG;
use streampress_crds::settings::TransportSettings;
use streampress_crds::{CompressionPipeline, Resolved};
use streampress_transport::Depth;
use streampress_transport::aws::AwsCredentials;

use problem::Problem;

/// On every queue and stream that the operator makes: the UID of the pipeline it was made for. Nothing without it is
/// ever deleted.
pub const OWNER_TAG: &str = "streampress.dev/uid";

/// How many messages a pipeline's queues have; what could not be read is `None`, never zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depths {
    /// Files announced.
    pub files: Option<Depth>,
    /// Packed files announced.
    pub chunks: Option<Depth>,
    /// Receipts; zero where the pipeline has no queue for them.
    pub receipts: Option<Depth>,
    /// Dead letters of all queues.
    pub dead: Option<u64>,
    /// Of these, packed files, which need the stream's records.
    pub dead_chunks: Option<u64>,
}

impl Depths {
    /// From the depths of a plan's queues in the order of [`TransportSettings::queue_names`].
    pub fn of(depths: &[Option<Depth>]) -> Self {
        let (queues, dead): (Vec<_>, Vec<_>) = depths
            .chunks(2)
            .map(|pair| (pair[0], pair.get(1).copied().flatten()))
            .unzip();
        let depth = |queue: usize| queues.get(queue).copied().flatten();
        let dead_chunks = dead.get(1).copied().flatten().map(Depth::total);
        let dead = dead.into_iter().map(|depth| Some(depth?.total()));
        Self {
            files: depth(0),
            chunks: depth(1),
            receipts: match queues.len() {
                0..=2 => Some(Depth::default()),
                _ => depth(2),
            },
            dead: dead.sum(),
            dead_chunks,
        }
    }

    /// Whether all queues are known to be empty, dead-letter queues included.
    pub fn are_empty(self) -> bool {
        let is_empty = |depth: Option<Depth>| depth.is_some_and(|depth| depth.total() == 0);
        [self.files, self.chunks, self.receipts].map(is_empty) == [true; 3] && self.dead == Some(0)
    }

    /// What waits for the compressors: announced files, and receipts.
    pub(crate) fn of_compressors(self) -> Option<Depth> {
        let (files, receipts) = (self.files?, self.receipts?);
        Some(Depth {
            visible: files.visible + receipts.visible,
            in_flight: files.in_flight + receipts.in_flight,
            delayed: files.delayed + receipts.delayed,
        })
    }
}

/// What a pipeline's queues hold, dead-letter queues included, as far as SQS's approximate counts say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// There is no queue.
    Absent,
    /// Every queue is empty.
    Empty,
    /// Why nothing may be deleted: a sentence for each queue that holds messages, or cannot be read.
    Filled(Vec<String>),
}

/// Queues and stream that can be used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadyTransport {
    /// Their addresses.
    pub status: TransportStatus,
    /// For how long the stream keeps records, in hours; `None` where that is not known.
    pub retention_hours: Option<u32>,
    /// Why the stream could not be given the longer retention of the plan, in a sentence.
    pub not_extended: Option<String>,
}

/// What is to be done about the retention of a stream with policy `Create`, besides giving it at least that of the spec.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionPlan {
    /// Extend it to so many hours, for what waits.
    pub extend_to: Option<u32>,
    /// Lower it from exactly so many hours to those of the spec once all queues are known to be empty. Another retention was
    /// given by others and stays.
    pub lower_from: Option<u32>,
}

/// Whether a pipeline's queues and stream can be used.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum TransportState {
    /// They are being made or looked up.
    #[default]
    Pending,
    /// They exist.
    Ready(ReadyTransport),
    /// They cannot be used; they may have been usable before.
    Failed(Problem),
}

/// What a pipeline wants of its transport.
#[derive(Clone, Debug, PartialEq)]
pub struct TransportPlan {
    /// The pipeline's UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Make what is missing, or only look it up.
    pub policy: TransportPolicy,
    /// AWS region.
    pub region: String,
    /// Address to use instead of AWS's own.
    pub endpoint: Option<String>,
    /// The Secret with the credentials to use; the operator's own identity where left out.
    pub secret: Option<String>,
    /// A first message must be seen within seconds, because the backlog decides how many pods run.
    pub eager: bool,
    /// Names and settings of queues and stream.
    pub parts: TransportSettings,
    /// What is to be done about the stream's retention.
    pub retention: RetentionPlan,
}

impl TransportPlan {
    /// The plan of a pipeline.
    pub fn of(pipeline: &CompressionPipeline, resolved: &Resolved) -> Self {
        let (meta, spec) = (&pipeline.metadata, &pipeline.spec);
        TransportPlan {
            uid: meta.uid.clone().unwrap_or_default(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            policy: spec.transport.policy,
            region: spec.aws.region.clone(),
            endpoint: spec.aws.endpoint_url.clone(),
            secret: spec
                .aws
                .credentials_secret_ref
                .as_ref()
                .map(|secret| secret.name.clone()),
            eager: [&spec.compressor, &spec.decompressor]
                .iter()
                .any(|worker| worker.autoscaling.mode == AutoscalingMode::Internal),
            parts: resolved.transport.clone(),
            retention: RetentionPlan::default(),
        }
    }

    /// `namespace/name` of the pipeline.
    pub fn pipeline(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The names of all queues, each followed by its dead-letter queue, and of the stream.
    pub fn names(&self) -> Vec<&str> {
        let names = self.parts.queue_names();
        names.chain([&*self.parts.stream.name]).collect()
    }

    /// The names of all queues, each followed by its dead-letter queue.
    pub fn queues(&self) -> Vec<&str> {
        self.parts.queue_names().collect()
    }
}

/// Makes, reads and deletes queues and streams.
///
/// Contract of both implementations, which `tests/transport` tries: `provide` may be called again and again and then
/// changes nothing; under `Create` what carries another pipeline's tag is refused as it is, and a retention that cannot be
/// extended beyond the spec's is no failure; under `Adopt` nothing is ever made or changed, and what is missing, does not
/// fit or carries another pipeline's tag is refused by name. `remove` deletes only what carries this
/// pipeline's UID in [`OWNER_TAG`], under `WhenEmpty` all or nothing, and says what it left and why. Calls may take any
/// time: the caller bounds them.
#[async_trait]
pub trait Provisioner: Send + Sync {
    /// Makes or finds queues, dead-letter queues and stream.
    async fn provide(
        &self,
        plan: &TransportPlan,
        credentials: Option<&AwsCredentials>,
    ) -> Result<ReadyTransport, Problem>;
    /// Reads how many messages the queues have.
    async fn depths(&self, plan: &TransportPlan, credentials: Option<&AwsCredentials>) -> Depths;
    /// What the queues hold now. SQS counts up to a minute late, so that one count proves nothing.
    async fn contents(
        &self,
        plan: &TransportPlan,
        credentials: Option<&AwsCredentials>,
    ) -> Result<Contents, Problem>;
    /// Deletes what is this pipeline's, as the policy says. Gives what was left behind, a sentence each.
    async fn remove(
        &self,
        plan: &TransportPlan,
        policy: DeletionPolicy,
        credentials: Option<&AwsCredentials>,
    ) -> Result<Vec<String>, Problem>;
}
