//! Creates, checks and deletes what a pipeline needs on AWS: FIFO queues, their dead-letter queues and a stream. For
//! `streampress setup`, for `validate --live` and for the operator, so that all three mean the same.
//!
//! Idempotent. What exists and carries our tag is brought to what is planned; what another owner made is never changed nor
//! deleted: [`check()`] says where it does not fit. A lost answer of AWS is no error: each step finds out what exists.

mod check;
mod error;
mod plan;
mod queues;
mod stream;

use std::collections::BTreeMap;

use streampress_crds::settings::QueueSettings;
use tokio::time::{Duration, Instant};

use self::error::ProvisionStep;
use crate::EmptyQueues;
use crate::aws::Aws;

pub use check::check;
pub use error::{ProvisionError, ProvisionResult};
pub use plan::{
    NotOwned, ProvisionOutcome, ProvisionPlan, Provisioned, ResourceOutcome, UsableStream,
};

/// Between two checks of queues that may be empty.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// A queue as it exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExistingQueue {
    /// Its URL.
    pub url: String,
    /// Its attributes, by SQS's names.
    pub attributes: BTreeMap<String, String>,
}

/// Creates what is missing and brings what is ours to what is planned.
pub async fn create(aws: &Aws, plan: &ProvisionPlan) -> ProvisionResult<Provisioned> {
    // The stream takes longest to become active: it is requested first and waited for last.
    let begun = stream::begin(aws, plan).await?;
    let mut outcomes = Vec::new();
    let files = create_queue(aws, plan, Of::Files).await?;
    outcomes.extend(files.outcomes);
    let chunks = create_queue(aws, plan, Of::Chunks).await?;
    outcomes.extend(chunks.outcomes);
    let receipts = create_receipts_queue(aws, plan).await?;
    let receipts_queue_url = receipts.as_ref().map(|receipts| receipts.url.clone());
    outcomes.extend(receipts.into_iter().flat_map(|receipts| receipts.outcomes));
    let (outcome, stream) = stream::finish(aws, plan, begun).await?;
    outcomes.push(outcome);
    Ok(Provisioned {
        outcomes,
        files_queue_url: files.url,
        chunks_queue_url: chunks.url,
        receipts_queue_url,
        stream,
    })
}

/// The queues' part of [`create`]: each one's dead-letter queue, then the queue.
#[cfg(feature = "testing")]
pub async fn create_queues(
    aws: &Aws,
    plan: &ProvisionPlan,
) -> ProvisionResult<Vec<ResourceOutcome>> {
    let mut outcomes = create_queue(aws, plan, Of::Files).await?.outcomes.to_vec();
    outcomes.extend(create_queue(aws, plan, Of::Chunks).await?.outcomes);
    let receipts = create_receipts_queue(aws, plan).await?;
    outcomes.extend(receipts.into_iter().flat_map(|receipts| receipts.outcomes));
    Ok(outcomes)
}

/// The stream's part of [`create`].
#[cfg(feature = "testing")]
pub async fn create_stream(aws: &Aws, plan: &ProvisionPlan) -> ProvisionResult<ResourceOutcome> {
    let begun = stream::begin(aws, plan).await?;
    stream::finish(aws, plan, begun)
        .await
        .map(|(outcome, _)| outcome)
}

/// Deletes what carries our tag, and nothing else. One outcome each: every queue followed by its dead-letter queue, then
/// the stream.
pub async fn delete(aws: &Aws, plan: &ProvisionPlan) -> ProvisionResult<Vec<ResourceOutcome>> {
    let mut outcomes = Vec::new();
    for name in plan.transport.queue_names() {
        outcomes.push(ResourceOutcome {
            resource: queues::described(name),
            outcome: queues::delete(aws, plan, name).await?,
        });
    }
    outcomes.push(ResourceOutcome {
        resource: stream::described(&plan.transport.stream.name),
        outcome: stream::delete(aws, plan).await?,
    });
    Ok(outcomes)
}

/// What the queues hold that [`delete`] would delete, without those that are empty: each with its messages, as SQS counts them.
pub async fn contents(aws: &Aws, plan: &ProvisionPlan) -> ProvisionResult<Vec<(String, u64)>> {
    let mut contents = Vec::new();
    for name in plan.transport.queue_names() {
        let Some(url) = queues::find(aws, name).await? else {
            continue;
        };
        let tags = queues::tags(aws, name, &url).await?;
        if !tags.is_some_and(|tags| plan.owns(&tags)) {
            continue;
        }
        let depth = aws.queue_depth(&url).await;
        let depth = depth.step("sqs:GetQueueAttributes", || {
            format!("counting the messages of the queue {name}")
        })?;
        if depth.total() > 0 {
            contents.push((queues::described(name), depth.total()));
        }
    }
    Ok(contents)
}

/// The tags of each queue and the stream that exist, by what they are: the names of the plan.
pub async fn existing_tags(
    aws: &Aws,
    plan: &ProvisionPlan,
) -> ProvisionResult<Vec<(String, BTreeMap<String, String>)>> {
    let mut all = Vec::new();
    for name in plan.transport.queue_names() {
        if let Some(url) = queues::find(aws, name).await?
            && let Some(tags) = queues::tags(aws, name, &url).await?
        {
            all.push((queues::described(name), tags));
        }
    }
    let stream = &plan.transport.stream.name;
    if stream::find(aws, stream).await?.is_some() {
        all.push((stream::described(stream), stream::tags(aws, stream).await?));
    }
    Ok(all)
}

/// The URL of the queue of this name; `None` when there is none.
pub async fn find_queue(aws: &Aws, name: &str) -> ProvisionResult<Option<String>> {
    queues::find(aws, name).await
}

/// The queue of this name as it exists; `None` when there is none.
pub async fn existing_queue(aws: &Aws, name: &str) -> ProvisionResult<Option<ExistingQueue>> {
    let Some(url) = queues::find(aws, name).await? else {
        return Ok(None);
    };
    let attributes = queues::attributes(aws, name, &url).await?;
    Ok(Some(ExistingQueue { url, attributes }))
}

/// The tags of a queue; `None` when there is no such queue any more.
pub async fn queue_tags(
    aws: &Aws,
    name: &str,
    url: &str,
) -> ProvisionResult<Option<BTreeMap<String, String>>> {
    queues::tags(aws, name, url).await
}

/// The tags of a stream.
pub async fn stream_tags(aws: &Aws, name: &str) -> ProvisionResult<BTreeMap<String, String>> {
    stream::tags(aws, name).await
}

/// For how long a stream of this name keeps records, in hours; `None` when there is none.
pub async fn retention_hours(aws: &Aws, name: &str) -> ProvisionResult<Option<u32>> {
    let found = stream::find(aws, name).await?;
    Ok(found.and_then(|found| u32::try_from(found.retention_period_hours).ok()))
}

/// Whether all of the plan's queues exist and hold nothing as far as SQS counts, which it does up to a minute late.
pub async fn are_queues_empty(aws: &Aws, plan: &ProvisionPlan) -> ProvisionResult<bool> {
    for name in plan.transport.queue_names() {
        let Some(url) = queues::find(aws, name).await? else {
            return Ok(false);
        };
        let depth = aws.queue_depth(&url).await;
        if !depth.is_ok_and(|depth| depth.total() == 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether all of the plan's queues are seen empty for a minute; false as soon as one is not.
pub async fn stay_queues_empty(aws: &Aws, plan: &ProvisionPlan) -> ProvisionResult<bool> {
    let mut queues = EmptyQueues::default();
    loop {
        let are_empty = are_queues_empty(aws, plan).await?;
        let now = Instant::now();
        if queues.observe(are_empty, now).is_none() {
            return Ok(false);
        }
        if queues.are_certain(now) {
            return Ok(true);
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

/// Whether there is a stream of this name, in whatever state.
pub async fn stream_exists(aws: &Aws, name: &str) -> ProvisionResult<bool> {
    Ok(stream::find(aws, name).await?.is_some())
}

/// The stream of this name, after a short wait until it can be used: the caller comes again. A stream that is being changed can.
pub async fn usable_stream(aws: &Aws, name: &str) -> ProvisionResult<UsableStream> {
    let found = stream::await_status(aws, name, &stream::USABLE, stream::SHORT_PATIENCE).await?;
    Ok(stream::usable(found))
}

/// One of the queues that every pipeline has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Files,
    Chunks,
}

async fn create_queue(
    aws: &Aws,
    plan: &ProvisionPlan,
    of: Of,
) -> ProvisionResult<queues::CreatedPair> {
    let (queue, event_rule): (&QueueSettings, Option<&str>) = match of {
        Of::Files => (&plan.transport.files_queue, plan.event_rule.as_deref()),
        Of::Chunks => (&plan.transport.chunks_queue, None),
    };
    queues::create(aws, plan, queue, event_rule).await
}

async fn create_receipts_queue(
    aws: &Aws,
    plan: &ProvisionPlan,
) -> ProvisionResult<Option<queues::CreatedPair>> {
    match &plan.transport.receipts_queue {
        Some(queue) => queues::create(aws, plan, queue, None).await.map(Some),
        None => Ok(None),
    }
}
