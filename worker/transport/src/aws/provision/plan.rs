//! What provisioning is to achieve, and what it did.

use std::collections::BTreeMap;
use std::fmt;

use streampress_crds::queue_check::LAST_RESORT_RECEIVES;
use streampress_crds::settings::TransportSettings;

use super::ProvisionError;

/// What a pipeline needs on AWS, and how to treat what exists already.
#[derive(Debug, Clone)]
pub struct ProvisionPlan {
    /// Names and settings of queues and stream.
    pub transport: TransportSettings,
    /// ARN of an EventBridge rule that may send the events of a bucket to the files queue.
    pub event_rule: Option<String>,
    /// Whether the stream is encrypted, with the key that AWS manages for Kinesis.
    pub encrypted: bool,
    /// The tag that marks what is ours: only what carries it with this value is changed and deleted.
    pub owner: (String, String),
    /// More tags for what is created.
    pub tags: BTreeMap<String, String>,
    /// What to do about a queue or stream of another owner.
    pub not_owned: NotOwned,
    /// The hours for which a stream of ours is to keep records where something that waits needs more than the planned
    /// retention. It is no failure when AWS refuses: the planned retention suffices for everything else.
    pub extend_retention_to: Option<u32>,
    /// The retention in hours from which a stream of ours is brought to a lower planned one. Only where all queues are known to
    /// be empty: a waiting message or a dead letter needs the records that it names. Another retention was given by others
    /// and stays.
    pub lower_retention_from: Option<u32>,
    /// Whether to wait for what takes AWS a minute or more: making a stream, and doubling or halving the number of its shards.
    /// Without waiting the next run continues; a stream that is being changed can be used meanwhile.
    pub waits: bool,
}

/// What to do about a queue or stream that exists without our tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotOwned {
    /// Use it as it is, and neither change nor delete it.
    UseAsIs,
    /// Fail.
    Refuse,
}

impl ProvisionPlan {
    /// The plan for `transport` with the tag `owner`, a name and a value: encrypted, what others own is used as it is, and
    /// the call waits until everything is ready. The queues get SQS's count of receives as a last resort only, since workers
    /// count a file's failures themselves.
    pub fn new(mut transport: TransportSettings, owner: (&str, &str)) -> Self {
        for queue in [&mut transport.files_queue, &mut transport.chunks_queue]
            .into_iter()
            .chain(&mut transport.receipts_queue)
        {
            queue.max_receive_count = LAST_RESORT_RECEIVES;
        }
        Self {
            transport,
            event_rule: None,
            encrypted: true,
            owner: (owner.0.to_owned(), owner.1.to_owned()),
            tags: BTreeMap::new(),
            not_owned: NotOwned::UseAsIs,
            extend_retention_to: None,
            lower_retention_from: None,
            waits: true,
        }
    }

    pub(super) fn all_tags(&self) -> impl Iterator<Item = (String, String)> {
        self.tags.clone().into_iter().chain([self.owner.clone()])
    }

    pub(super) fn owns(&self, tags: &BTreeMap<String, String>) -> bool {
        tags.get(&self.owner.0) == Some(&self.owner.1)
    }
}

/// What was done about one queue or stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceOutcome {
    /// `queue orders.fifo`.
    pub resource: String,
    /// What happened to it.
    pub outcome: ProvisionOutcome,
}

/// What happened to one queue or stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProvisionOutcome {
    /// It did not exist.
    Created,
    /// It was ours and differed; these settings were changed.
    Changed(Vec<String>),
    /// It was ours and as planned.
    Unchanged,
    /// It is another owner's: used as it is, or left as it is.
    NotOwned,
    /// It was ours and is gone.
    Deleted,
    /// There was nothing to delete.
    Absent,
}

impl fmt::Display for ResourceOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, outcome } = self;
        match outcome {
            ProvisionOutcome::Created => write!(f, "{resource}: created"),
            ProvisionOutcome::Changed(settings) => {
                write!(f, "{resource}: changed {}", settings.join(", "))
            }
            ProvisionOutcome::Unchanged => write!(f, "{resource}: exists already"),
            ProvisionOutcome::NotOwned => {
                write!(f, "{resource}: does not carry our tag, left as it is")
            }
            ProvisionOutcome::Deleted => write!(f, "{resource}: deleted"),
            ProvisionOutcome::Absent => write!(f, "{resource}: does not exist"),
        }
    }
}

/// A stream that can be used.
#[derive(Debug)]
pub struct UsableStream {
    /// Its ARN.
    pub arn: String,
    /// For how long it keeps records, in hours.
    pub retention_hours: u32,
    /// Why it was not given [`ProvisionPlan::extend_retention_to`].
    pub not_extended: Option<ProvisionError>,
}

/// Everything that a pipeline needs, ready for use.
#[derive(Debug)]
pub struct Provisioned {
    /// What was done: the files queue's dead-letter queue, the files queue, the same of the chunks queue and of the receipts queue,
    /// the stream.
    pub outcomes: Vec<ResourceOutcome>,
    /// The files queue's URL.
    pub files_queue_url: String,
    /// The chunks queue's URL.
    pub chunks_queue_url: String,
    /// The receipts queue's URL, where the plan has one.
    pub receipts_queue_url: Option<String>,
    /// The stream.
    pub stream: UsableStream,
}
