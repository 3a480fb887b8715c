//! Makes, checks and removes what a pipeline needs on AWS: two FIFO queues, their dead-letter queues and a stream.
//!
//! Idempotent. What exists and carries our tag is brought to what is wanted; what exists and is somebody else's is
//! used as it is and never changed nor deleted: [`check`] says where it does not fit.

mod check;
mod queues;
mod stream;

use std::collections::BTreeMap;
use std::fmt;

use crate::TransportResult;
use crate::aws::Aws;

pub use check::{Finding, check};

/// What a pipeline needs.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Announces files.
    pub files_queue: WantedQueue,
    /// Announces packed files.
    pub chunks_queue: WantedQueue,
    /// Carries packed bytes.
    pub stream: WantedStream,
    /// Largest record that will be put, in bytes.
    pub record_bytes: usize,
    /// Marks what is ours: what carries this tag with this value may be changed and deleted.
    pub owner: (String, String),
    /// More tags for what is made.
    pub tags: BTreeMap<String, String>,
}

/// A FIFO queue and its dead-letter queue.
#[derive(Debug, Clone)]
pub struct WantedQueue {
    /// Ends in `.fifo`.
    pub name: String,
    /// Ends in `.fifo`.
    pub dead_letter_name: String,
    /// Seconds.
    pub visibility_timeout_seconds: u32,
    /// Receives without success after which a message becomes a dead letter; at least 2, since a receive can be lost.
    pub max_receive_count: u32,
    /// ARN of an EventBridge rule that may send the events of a bucket to this queue.
    pub event_rule: Option<String>,
}

/// A stream.
#[derive(Debug, Clone)]
pub struct WantedStream {
    /// Its name.
    pub name: String,
    /// Open shards.
    pub shards: u32,
    /// Hours it keeps records: 24 to 8,760.
    pub retention_hours: u32,
    /// Encrypted with AWS's own key.
    pub encrypted: bool,
}

/// What was done about one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// `queue orders.fifo`.
    pub what: String,
    /// What happened to it.
    pub outcome: Outcome,
}

/// What happened to one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It did not exist.
    Made,
    /// It was ours and did not fit; these settings were changed.
    Changed(Vec<String>),
    /// It was ours and fits.
    Kept,
    /// It is somebody else's: used as it is.
    Foreign,
    /// It was ours and is gone.
    Removed,
    /// There was nothing to remove.
    Absent,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, outcome } = self;
        match outcome {
            Outcome::Made => write!(f, "{what}: made"),
            Outcome::Changed(settings) => write!(f, "{what}: changed {}", settings.join(", ")),
            Outcome::Kept => write!(f, "{what}: there already"),
            Outcome::Foreign => write!(f, "{what}: does not carry our tag, left as it is"),
            Outcome::Removed => write!(f, "{what}: removed"),
            Outcome::Absent => write!(f, "{what}: not there"),
        }
    }
}

/// Makes what is missing and brings what is ours to what is wanted.
pub async fn make(aws: &Aws, wanted: &Wanted) -> TransportResult<Vec<Done>> {
    let mut done = make_queues(aws, wanted).await?;
    done.push(make_stream(aws, wanted).await?);
    Ok(done)
}

/// The queues' part of [`make`].
pub async fn make_queues(aws: &Aws, wanted: &Wanted) -> TransportResult<Vec<Done>> {
    let mut done = Vec::new();
    for queue in [&wanted.files_queue, &wanted.chunks_queue] {
        done.extend(queues::make(aws, wanted, queue).await?);
    }
    Ok(done)
}

/// The stream's part of [`make`].
pub async fn make_stream(aws: &Aws, wanted: &Wanted) -> TransportResult<Done> {
    stream::make(aws, wanted).await
}

/// Removes what carries our tag, and nothing else.
pub async fn remove(aws: &Aws, wanted: &Wanted) -> TransportResult<Vec<Done>> {
    let mut done = Vec::new();
    for queue in [&wanted.files_queue, &wanted.chunks_queue] {
        for name in [&queue.name, &queue.dead_letter_name] {
            done.push(queues::remove(aws, wanted, name).await?);
        }
    }
    done.push(stream::remove(aws, wanted).await?);
    Ok(done)
}
