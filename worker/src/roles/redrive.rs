//! Giving dead letters another go: each is sent again under a fresh deduplication id, then deleted. Where its records
//! are gone or bad, its source is announced again instead.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use anyhow::{Context, Result};
use tracing::info;

use crate::consume::Fault;
use crate::message::{Announcement, FileRef, Manifest, Records};
use crate::roles::announce::Announcer;
use crate::roles::compress::announce_current;
use crate::roles::context::Transport;
use crate::telemetry::trace::{self, TraceContext};
use streampress_transport::{
    ATTR_DETAIL, ATTR_GROUP, ATTR_REASON, ChunkStream, Delivery, Outgoing, Position, Queue,
    TransportError,
};

/// Reasons that sending the same manifest again cannot mend: the records themselves are no good.
const BAD_RECORDS: [&str; 4] = ["RecordDamaged", "RecordMissing", "BadFrame", "HashMismatch"];
/// A dead letter is looked at for so long before we take the queue for empty.
const WAIT: Duration = Duration::from_millis(500);

/// What became of one dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redriven {
    /// The file's name, or the message id where the message cannot be read.
    pub name: String,
    /// Why it had died.
    pub reason: String,
    /// One sentence more.
    pub detail: String,
    /// What was done.
    pub done: Done,
}

/// What was done with a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Only looked at.
    Listed,
    /// Sent again as it was.
    SentAgain,
    /// Its source was announced again.
    AnnouncedAgain,
    /// Kept where it is, with why.
    Left(String),
}

/// Redrives both queues; `list_only` looks and changes nothing.
pub async fn redrive(
    transport: &Transport,
    announcer: &Announcer,
    list_only: bool,
) -> Result<Vec<Redriven>> {
    let mut all = Vec::new();
    for queue in [transport.files_queue()?, transport.chunks_queue()?] {
        let dead = queue
            .dead_letters()
            .with_context(|| format!("{} has no dead-letter queue", queue.name()))?;
        // SlotGuard until all have been seen, so that none is seen twice.
        let mut in_hand = HashSet::new();
        let outcome = async {
            // Only what lies there now: one that fails again at once would come back for ever.
            let mut waiting = dead.depth().await.context("counting dead letters")?.total();
            while waiting > 0 {
                let letters = dead
                    .receive(10, WAIT)
                    .await
                    .context("receiving dead letters")?;
                if letters.is_empty() {
                    break;
                }
                waiting = waiting.saturating_sub(letters.len() as u64);
                in_hand.extend(letters.iter().map(|letter| letter.receipt.clone()));
                for letter in letters {
                    let done = match list_only {
                        true => Done::Listed,
                        false => again(transport, announcer, &*queue, &letter).await?,
                    };
                    if matches!(done, Done::SentAgain | Done::AnnouncedAgain) {
                        dead.delete(&letter.receipt)
                            .await
                            .context("deleting a dead letter that was sent again")?;
                        in_hand.remove(&letter.receipt);
                        info!(
                            message_id = letter.message_id,
                            ?done,
                            "Dead letter redriven."
                        );
                    }
                    all.push(describe(&letter, done));
                }
            }
            anyhow::Ok(())
        }
        .await;
        // After a failure too: what stays hidden would be missing from the next list.
        for receipt in in_hand {
            let given_back = dead.release(&receipt).await;
            if outcome.is_ok() {
                given_back.context("giving a dead letter back")?;
            }
        }
        outcome?;
    }
    Ok(all)
}

fn describe(letter: &Delivery, done: Done) -> Redriven {
    let attribute = |name: &str| letter.attributes.get(name).cloned().unwrap_or_default();
    let name = file_of(&letter.body).map_or_else(
        || format!("message {}", letter.message_id),
        |file| file.name.to_string(),
    );
    Redriven {
        name,
        reason: attribute(ATTR_REASON),
        detail: attribute(ATTR_DETAIL),
        done,
    }
}

fn file_of(body: &str) -> Option<FileRef> {
    Announcement::parse(body)
        .map(|message| message.file)
        .or_else(|_| Manifest::parse(body).map(|message| message.file))
        .ok()
}

async fn again(
    transport: &Transport,
    announcer: &Announcer,
    queue: &dyn Queue,
    letter: &Delivery,
) -> Result<Done> {
    let reason = letter
        .attributes
        .get(ATTR_REASON)
        .map_or("", String::as_str);
    let file = file_of(&letter.body);
    // A second go belongs to the trace of the first.
    let carried = letter.attributes.get(trace::ATTRIBUTE);
    let context = carried
        .and_then(|carried| TraceContext::parse(carried))
        .map_or_else(TraceContext::start, TraceContext::child);
    if let (Some(journal), Some(file)) = (&transport.journal, &file) {
        journal.record_redriven(file.id().as_str()).await?;
    }
    let manifest = Manifest::parse(&letter.body).ok();
    let needs_source = match &manifest {
        Some(manifest) => {
            BAD_RECORDS.contains(&reason)
                || !records_are_there(&*transport.stream()?, manifest).await?
        }
        None => reason == "SourceChanged",
    };
    match file {
        Some(file) if needs_source => {
            match trace::scope(context, announce_current(announcer, &file)).await {
                Ok(()) => Ok(Done::AnnouncedAgain),
                Err(Fault::Permanent { detail, .. }) => Ok(Done::Left(detail)),
                Err(Fault::Transient(error)) => Err(error),
                Err(Fault::Interrupted) => Ok(Done::Left("interrupted".into())),
            }
        }
        _ => {
            let message = Outgoing {
                group: letter.original_group().to_owned(),
                dedup_id: fresh_dedup_id(&letter.dedup_id),
                body: letter.body.clone(),
                attributes: kept(&letter.attributes),
            };
            queue
                .send(vec![message])
                .await
                .context("sending a dead letter again")?;
            Ok(Done::SentAgain)
        }
    }
}

/// All that the message had before it died.
fn kept(attributes: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let of_its_death = |name: &str| [ATTR_REASON, ATTR_DETAIL, ATTR_GROUP].contains(&name);
    attributes
        .iter()
        .filter(|(name, _)| !of_its_death(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .take(Outgoing::MAX_ATTRIBUTES)
        .collect()
}

/// The stream drops its oldest records first: the first of every shard tells for all.
async fn records_are_there(stream: &dyn ChunkStream, manifest: &Manifest) -> Result<bool> {
    let positions = match &manifest.records {
        Records::Inline(positions) | Records::Indirect(positions) => positions,
    };
    let mut oldest: BTreeMap<&str, &Position> = BTreeMap::new();
    for position in positions {
        let first = oldest.entry(&position.shard).or_insert(position);
        if position.sequence < first.sequence {
            *first = position;
        }
    }
    let oldest: Vec<Position> = oldest.into_values().cloned().collect();
    match stream.fetch(&oldest).await {
        Ok(_) => Ok(true),
        Err(TransportError::Expired(_) | TransportError::Missing(_)) => Ok(false),
        Err(error) => Err(error).context("looking for the records of a dead letter"),
    }
}

/// The queue remembers ids for five minutes; a redrive may come sooner.
fn fresh_dedup_id(old: &str) -> String {
    let stem = old.get(..old.len().min(100)).unwrap_or("redriven");
    format!("{stem}-{:x}", fastrand::u64(..))
}
