//! Sends dead letters again, each under a new deduplication id, then deletes them. Where a file's records are missing or
//! damaged, its source is announced again instead.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use anyhow::{Context, Result};
use tracing::info;

use crate::consume::HandlerError;
use crate::message::trace_context::TraceContext;
use crate::message::{DeadLetterReason, FileRef, Manifest, Message};
use crate::roles::announce::Announcer;
use crate::roles::connect::CompressorConnections;
use crate::runtime;
use crate::telemetry::trace;
use streampress_transport::{
    ATTR_DETAIL, ATTR_GROUP, ATTR_REASON, ATTR_TRACEPARENT, ATTR_VERSION, ChunkStream, Delivery,
    Outgoing, Position, Queue, Receipt, TransportError,
};

/// How long one receive waits before the queue counts as empty.
const WAIT: Duration = Duration::from_millis(500);

/// One dead letter and what was done with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedrivenLetter {
    /// The file's name, or the message id where the message cannot be read.
    pub name: String,
    /// Why it became a dead letter.
    pub reason: String,
    /// One sentence more.
    pub detail: String,
    /// What was done.
    pub action: RedriveAction,
}

/// What was done with a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedriveAction {
    /// Nothing: it was only listed.
    Listed,
    /// Sent again unchanged.
    SentAgain,
    /// Its source was announced again.
    AnnouncedAgain,
    /// Left in the dead-letter queue, for this cause.
    Left(String),
}

/// Redrives the dead letters of both queues; with `list_only` it changes nothing.
pub async fn redrive(
    connections: &CompressorConnections,
    announcer: &Announcer,
    list_only: bool,
) -> Result<Vec<RedrivenLetter>> {
    let mut all = Vec::new();
    for queue in [&connections.files_queue, &connections.chunks_queue] {
        let redrive = Redrive {
            queue: &**queue,
            stream: &*connections.stream,
            announcer,
            list_only,
        };
        redrive.run(&mut all).await?;
    }
    Ok(all)
}

/// The redrive of one queue's dead letters.
struct Redrive<'a> {
    queue: &'a dyn Queue,
    stream: &'a dyn ChunkStream,
    announcer: &'a Announcer,
    list_only: bool,
}

impl Redrive<'_> {
    async fn run(&self, all: &mut Vec<RedrivenLetter>) -> Result<()> {
        let dead = self
            .queue
            .dead_letters()
            .with_context(|| format!("{} has no dead-letter queue", self.queue.name()))?;
        // Letters stay hidden until all have been received, so that none is received twice.
        let mut hidden = HashSet::new();
        let outcome = self.redrive_waiting(&*dead, &mut hidden, all).await;
        // After an error too: a letter that stays hidden would be missing from the next list.
        for receipt in hidden {
            let released = dead.release(&receipt).await;
            if outcome.is_ok() {
                released.context("releasing a dead letter")?;
            }
        }
        outcome
    }

    /// Redrives the letters that wait now: one that fails again at once would be received for ever.
    async fn redrive_waiting(
        &self,
        dead: &dyn Queue,
        hidden: &mut HashSet<Receipt>,
        all: &mut Vec<RedrivenLetter>,
    ) -> Result<()> {
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
            hidden.extend(letters.iter().map(|letter| letter.receipt.clone()));
            for letter in letters {
                let message = Message::parse(&letter.body).ok();
                let action = match self.list_only {
                    true => RedriveAction::Listed,
                    false => self.send_again(&letter, message.as_ref()).await?,
                };
                if matches!(
                    action,
                    RedriveAction::SentAgain | RedriveAction::AnnouncedAgain
                ) {
                    dead.delete(&letter.receipt)
                        .await
                        .context("deleting a dead letter that was sent again")?;
                    hidden.remove(&letter.receipt);
                    info!(
                        message_id = letter.message_id,
                        ?action,
                        "Dead letter redriven."
                    );
                }
                all.push(describe(&letter, message.as_ref(), action));
            }
        }
        Ok(())
    }

    async fn send_again(
        &self,
        letter: &Delivery,
        message: Option<&Message>,
    ) -> Result<RedriveAction> {
        let file = message.and_then(Message::file);
        if let Some(file) = file {
            let journal = &self.announcer.journal;
            journal.record_redriven(file.id().as_str()).await?;
        }
        match file {
            Some(file) if self.needs_source(letter, message).await? => {
                self.announce_source(letter, file).await
            }
            _ => {
                let again = Outgoing {
                    group: letter.original_group().to_owned(),
                    dedup_id: fresh_dedup_id(&letter.dedup_id),
                    body: letter.body.clone(),
                    attributes: original_attributes(&letter.attributes),
                };
                self.queue
                    .send(vec![again])
                    .await
                    .context("sending a dead letter again")?;
                Ok(RedriveAction::SentAgain)
            }
        }
    }

    /// Whether the same message cannot succeed, so that the source must be announced again.
    async fn needs_source(&self, letter: &Delivery, message: Option<&Message>) -> Result<bool> {
        let reason = letter
            .attributes
            .get(ATTR_REASON)
            .and_then(|reason| reason.parse::<DeadLetterReason>().ok());
        match message {
            Some(Message::Manifest(manifest)) => {
                Ok(reason.is_some_and(spoils_records)
                    || !records_exist(self.stream, manifest).await?)
            }
            _ => Ok(reason == Some(DeadLetterReason::SourceChanged)),
        }
    }

    /// Announces the file's present content within the trace of the dead letter.
    async fn announce_source(&self, letter: &Delivery, file: &FileRef) -> Result<RedriveAction> {
        let carried = letter.attributes.get(ATTR_TRACEPARENT);
        let context = carried
            .and_then(|carried| TraceContext::parse(carried))
            .map_or_else(TraceContext::start, TraceContext::child);
        match trace::scope(context, self.announcer.announce_current(&file.name)).await {
            Ok(()) => Ok(RedriveAction::AnnouncedAgain),
            Err(HandlerError::Permanent { detail, .. }) => Ok(RedriveAction::Left(detail)),
            Err(HandlerError::Transient(error)) => Err(error),
            Err(HandlerError::Interrupted) => Ok(RedriveAction::Left("interrupted".into())),
        }
    }
}

/// Whether the reason says that the records cannot be used: the same manifest would fail again.
fn spoils_records(reason: DeadLetterReason) -> bool {
    use DeadLetterReason as Reason;
    match reason {
        Reason::RecordDamaged | Reason::RecordMissing | Reason::BadFrame | Reason::HashMismatch => {
            true
        }
        Reason::UnreadableMessage
        | Reason::BadName
        | Reason::SourceMissing
        | Reason::SourceChanged
        | Reason::Expired
        | Reason::TooLarge
        | Reason::UnknownFormat
        | Reason::NotSeedFormat
        | Reason::Refused
        | Reason::GaveUp
        | Reason::ReceivedTooOften => false,
    }
}

fn describe(letter: &Delivery, message: Option<&Message>, action: RedriveAction) -> RedrivenLetter {
    let attribute = |name: &str| letter.attributes.get(name).cloned().unwrap_or_default();
    let name = message.and_then(Message::file).map_or_else(
        || format!("message {}", letter.message_id),
        |file| file.name.to_string(),
    );
    RedrivenLetter {
        name,
        reason: attribute(ATTR_REASON),
        detail: attribute(ATTR_DETAIL),
        action,
    }
}

/// The attributes that the message had before it became a dead letter, and its version.
fn original_attributes(attributes: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let own = [ATTR_REASON, ATTR_DETAIL, ATTR_GROUP, ATTR_VERSION];
    let version = attributes.get_key_value(ATTR_VERSION);
    let others = attributes
        .iter()
        .filter(|(name, _)| !own.contains(&name.as_str()));
    version
        .into_iter()
        .chain(others)
        .map(|(name, value)| (name.clone(), value.clone()))
        .take(Outgoing::MAX_ATTRIBUTES)
        .collect()
}

/// Whether the stream still has the file's records. A stream drops its oldest records first, so the first of every shard
/// answers for all.
async fn records_exist(stream: &dyn ChunkStream, manifest: &Manifest) -> Result<bool> {
    let mut oldest: BTreeMap<&str, &Position> = BTreeMap::new();
    for position in manifest.records.positions() {
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
    format!("{stem}-{:x}", runtime::random_u64())
}
