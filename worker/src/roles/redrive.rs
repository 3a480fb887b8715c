//! Sends dead letters again, each under a new deduplication id, then deletes them. A manifest's records are tried first,
//! whatever the letter's reason: where they do not hold the file any more, its source is announced again instead. On request
//! it only lists them, or discards them.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tracing::{debug, info};

use crate::consume::HandlerError;
use crate::journal::{FileJournal, FileStatus, OpenFile, SourceState};
use crate::legacy::{PackedFile, decompressor};
use crate::message::trace_context::TraceContext;
use crate::message::{FileRef, Manifest, Message};
use crate::roles::announce::{Announcer, Repeat, is_of_other_bucket, legacy_journal_key};
use crate::roles::connect::CompressorConnections;
use crate::roles::copies::source_has;
use crate::roles::records;
use crate::runtime;
use crate::telemetry::plain_log::printable_name;
use crate::telemetry::trace;
use streampress_transport::{
    ATTR_DETAIL, ATTR_GROUP, ATTR_REASON, ATTR_TRACEPARENT, ATTR_VERSION, ChunkStream,
    DeadLetterReason, Delivery, Failure, FileVersion, Outgoing, Queue, Receipt,
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
    /// The file that it is about, where it is known.
    pub(crate) file: Option<LetterFile>,
    /// The id of the announcement that it goes back to, where the message says it.
    pub announcement: Option<String>,
}

/// The file that a dead letter is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LetterFile {
    /// Derived from location, name and content hash.
    pub(crate) id: String,
    /// Relative to its location.
    pub(crate) name: String,
    /// Its size; 0 where only its id is known.
    pub(crate) bytes: u64,
}

impl LetterFile {
    fn of(file: &FileRef) -> Self {
        Self {
            id: file.id().as_str().to_owned(),
            name: file.name.to_string(),
            bytes: file.bytes,
        }
    }
}

/// What is to be done with which dead letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedriveRequest {
    /// What is to be done with them.
    pub task: RedriveTask,
    /// Only those with this reason.
    pub reason: Option<DeadLetterReason>,
    /// Only those of these names, as a list shows them; none: of all.
    pub names: BTreeSet<String>,
}

/// What is to be done with dead letters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RedriveTask {
    /// They are only listed.
    List,
    /// They are sent again.
    #[default]
    Send,
    /// They are deleted, and their files are no longer expected at the destination.
    Discard,
}

impl RedriveRequest {
    /// All dead letters.
    pub fn all(task: RedriveTask) -> Self {
        Self {
            task,
            ..Self::default()
        }
    }

    fn is_about(&self, letter: &RedrivenLetter) -> bool {
        let has_reason = |reason: DeadLetterReason| letter.reason == reason.as_str();
        self.reason.is_none_or(has_reason)
            && (self.names.is_empty() || self.names.iter().any(|name| letter.has_name(name)))
    }
}

impl RedrivenLetter {
    /// Whether a list shows it so, or it is called so and a list shows no other so.
    pub(crate) fn has_name(&self, name: &str) -> bool {
        let is_shown_as_another = self.name.contains('\\');
        printable_name(&self.name) == name || (self.name == name && !is_shown_as_another)
    }
}

/// What was done with a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RedriveAction {
    /// Nothing: it was only listed. What the journal has of its file, where it knows it.
    Listed(Option<FileStatus>),
    /// Nothing: the journal has the file as failed, and it has no dead letter. Only in lists; else it is discarded, or not named.
    NoLetter,
    /// Nothing: the request is about others.
    NotChosen,
    /// Sent again unchanged.
    SentAgain,
    /// Its source was announced again, with the version of its first announcement.
    AnnouncedAgain,
    /// The source has other content now, which was announced and takes this version's place.
    ReplacementAnnounced,
    /// Nothing: the file was restored since, by another announcement of the same content. The letter is removed, unless it is
    /// only listed.
    RestoredSince,
    /// Nothing: a version of the file that was announced later was restored since. The letter is removed, unless it is only
    /// listed.
    SupersededSince,
    /// Deleted: nothing more is done for its file.
    Discarded,
    /// Left in the dead-letter queue, for this cause.
    Left(String),
}

/// What was done with dead letters.
#[derive(Debug, Default)]
pub struct Redriven {
    /// Those that were looked at.
    pub letters: Vec<RedrivenLetter>,
    /// Why not all were.
    pub error: Option<anyhow::Error>,
}

impl Redriven {
    /// All letters, or the error.
    pub fn all(self) -> Result<Vec<RedrivenLetter>> {
        match self.error {
            None => Ok(self.letters),
            Some(error) => Err(error),
        }
    }
}

/// Does what is wanted with the dead letters of all queues, and answers all of them.
pub async fn redrive(
    connections: &CompressorConnections,
    announcer: &Announcer,
    request: &RedriveRequest,
) -> Redriven {
    let mut letters = Vec::new();
    let redriven = redrive_queues(connections, announcer, request, &mut letters).await;
    Redriven {
        letters,
        error: redriven.err(),
    }
}

async fn redrive_queues(
    connections: &CompressorConnections,
    announcer: &Announcer,
    request: &RedriveRequest,
    all: &mut Vec<RedrivenLetter>,
) -> Result<()> {
    let queues = [&connections.files_queue, &connections.chunks_queue];
    for queue in queues.into_iter().chain(&connections.receipts_queue) {
        let redrive = Redrive {
            queue: &**queue,
            stream: &*connections.stream,
            announcer,
            request,
        };
        redrive.run(all).await?;
    }
    if request.task == RedriveTask::Send {
        return Ok(());
    }
    let mut failed = files_without_letter(announcer, all).await?;
    failed.retain(|file| request.is_about(file));
    if request.task == RedriveTask::Discard {
        for file in &mut failed {
            if let Some(LetterFile { id, .. }) = &file.file {
                announcer.journal.record_discarded(id).await?;
                file.action = RedriveAction::Discarded;
            }
        }
    }
    all.extend(failed);
    Ok(())
}

/// The failed files of which none of the letters is.
async fn files_without_letter(
    announcer: &Announcer,
    letters: &[RedrivenLetter],
) -> Result<Vec<RedrivenLetter>> {
    let files = letters.iter().filter_map(|letter| letter.file.as_ref());
    let known: BTreeSet<&str> = files.map(|file| file.id.as_str()).collect();
    let open = announcer.journal.open_files().await?.into_iter();
    let others = open.filter(|file| !known.contains(file.file_id.as_str()));
    Ok(others.filter_map(failed_file).collect())
}

/// A failed file, as if it had a dead letter.
fn failed_file(file: OpenFile) -> Option<RedrivenLetter> {
    let Failure { reason, detail } = file.failure?;
    Some(RedrivenLetter {
        name: file.name.clone(),
        reason: reason.as_str().to_owned(),
        detail,
        action: RedriveAction::NoLetter,
        file: Some(LetterFile {
            id: file.file_id,
            name: file.name,
            bytes: 0,
        }),
        announcement: None,
    })
}

/// The redrive of one queue's dead letters.
struct Redrive<'a> {
    queue: &'a dyn Queue,
    stream: &'a dyn ChunkStream,
    announcer: &'a Announcer,
    request: &'a RedriveRequest,
}

impl Redrive<'_> {
    async fn run(&self, all: &mut Vec<RedrivenLetter>) -> Result<()> {
        let dead = self
            .queue
            .dead_letters()
            .with_context(|| format!("{} has no dead-letter queue", self.queue.name()))?;
        // Letters stay in flight until all have been received, so that none is received twice.
        let in_flight = Mutex::default();
        let outcome = tokio::select! {
            biased;
            outcome = self.redrive_waiting(&*dead, &in_flight, all) => outcome,
            never = keep_in_flight(&*dead, &in_flight) => match never {},
        };
        // After an error too: a letter that stays in flight would be missing from the next list.
        for receipt in in_flight.into_inner() {
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
        in_flight: &Mutex<BTreeSet<Receipt>>,
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
            let receipts = letters.iter().map(|letter| letter.receipt.clone());
            in_flight.lock().extend(receipts);
            for letter in letters {
                let message = Message::parse(&letter.body).ok();
                let mut described = self.describe(&letter, message.as_ref()).await?;
                if !self.request.is_about(&described) {
                    described.action = RedriveAction::NotChosen;
                    all.push(described);
                    continue;
                }
                // One letter never stops the others.
                let file = described.file.as_ref();
                let acted = self.act(&letter, message.as_ref(), file).await;
                described.action = acted.unwrap_or_else(left);
                let stays = matches!(
                    described.action,
                    RedriveAction::Listed(_) | RedriveAction::Left(_)
                );
                if !stays && self.request.task != RedriveTask::List {
                    match dead.delete(&letter.receipt).await {
                        Ok(()) => {
                            in_flight.lock().remove(&letter.receipt);
                            info!(
                                message_id = letter.message_id,
                                action = ?described.action,
                                "Dead letter dealt with."
                            );
                        }
                        Err(error) => {
                            let why = "it was dealt with and cannot be deleted";
                            described.action = left(anyhow::Error::new(error).context(why));
                        }
                    }
                }
                all.push(described);
            }
        }
        Ok(())
    }

    fn journal(&self) -> &dyn FileJournal {
        &*self.announcer.journal
    }

    async fn act(
        &self,
        letter: &Delivery,
        message: Option<&Message>,
        file: Option<&LetterFile>,
    ) -> Result<RedriveAction> {
        if let Some(ended) = self.ended_since(file).await? {
            return Ok(ended);
        }
        match self.request.task {
            RedriveTask::List => Ok(RedriveAction::Listed(match file {
                Some(file) => self.journal().file_status(&file.id).await?,
                None => None,
            })),
            RedriveTask::Send => self.redrive(letter, message, file).await,
            RedriveTask::Discard => self.discard(message, file).await,
        }
    }

    /// Nothing more is expected of the letter's file. The journal learns it first: a letter that stays is discarded again.
    async fn discard(
        &self,
        message: Option<&Message>,
        file: Option<&LetterFile>,
    ) -> Result<RedriveAction> {
        let Some(file) = file else {
            return Ok(RedriveAction::Discarded);
        };
        self.journal().record_discarded(&file.id).await?;
        let announced = match message {
            Some(Message::Announcement(it)) => Some((&it.file, it.observed.as_ref())),
            Some(Message::Manifest(it)) => Some((&it.file, it.observed.as_ref())),
            _ => None,
        };
        if let Some((announced, Some(observed))) = announced {
            // A journal that another process keeps waits for nothing more either.
            self.announcer
                .record_end(announced, Some(observed), SourceState::Superseded)
                .await?;
        }
        Ok(RedriveAction::Discarded)
    }

    /// Whether the journal says that the newest content of the file's name is the letter's, and restored; or that a version
    /// that was announced later is restored. Unless the letter is only listed, the journal then has this one as superseded.
    async fn ended_since(&self, file: Option<&LetterFile>) -> Result<Option<RedriveAction>> {
        let Some(LetterFile { id, name, .. }) = file else {
            return Ok(None);
        };
        if self.journal().was_restored(name, id).await? {
            return Ok(Some(RedriveAction::RestoredSince));
        }
        if !self.journal().was_replaced(id).await? {
            return Ok(None);
        }
        if self.request.task != RedriveTask::List {
            self.journal().record_superseded(id).await?;
        }
        Ok(Some(RedriveAction::SupersededSince))
    }

    async fn redrive(
        &self,
        letter: &Delivery,
        message: Option<&Message>,
        known: Option<&LetterFile>,
    ) -> Result<RedriveAction> {
        if let Some(file) = message.and_then(Message::file)
            && is_of_other_bucket(file, self.announcer.source.location())
        {
            return Ok(RedriveAction::Left(format!(
                "it was announced from {}: the FILE whose source that is sends it again",
                file.location
            )));
        }
        match message {
            Some(Message::LegacyManifest(_)) if is_expired(letter) => Ok(RedriveAction::Left(
                "its records are gone for good, and the original's messages do not say where its source is: submit the file \
                 again, then --discard --name NAME ends this dead letter"
                    .to_owned(),
            )),
            Some(Message::Manifest(manifest)) if !manifest.has_records() => {
                let why = "it was not packed, because the source did not hold it";
                Ok(self.announce_file_of(letter, manifest, why).await)
            }
            Some(Message::Manifest(manifest)) => {
                match records::verify(self.stream, manifest).await {
                    Ok(()) => self.send_again(letter, known).await,
                    Err(HandlerError::Permanent(failure)) => Ok(self
                        .announce_file_of(letter, manifest, &failure.detail)
                        .await),
                    Err(error) => Err(passing(error)),
                }
            }
            Some(Message::Announcement(announcement)) => {
                let redriven = self.announce_again(letter, &announcement.file, known).await;
                Ok(redriven.unwrap_or_else(left))
            }
            Some(
                Message::LegacyAnnouncement(_)
                | Message::LegacyManifest(_)
                | Message::S3Event(_)
                | Message::Receipt(_),
            )
            | None => self.send_again(letter, known).await,
        }
    }

    /// The records do not hold the file, for the reason `why`.
    async fn announce_file_of(
        &self,
        letter: &Delivery,
        manifest: &Manifest,
        why: &str,
    ) -> RedriveAction {
        // Not the letter's own: an earlier release's manifest only has a place in the chunks queue.
        let (file, version) = (&manifest.file, manifest.file_version.clone());
        let announcing = async {
            let announcer = self.announcer.for_location_of(file)?;
            match source_has(&announcer, file, version.as_ref()).await? {
                true => repeat(&announcer, letter, manifest, version).await,
                false => replace(&announcer, letter, file, why).await,
            }
        };
        announcing.await.unwrap_or_else(left)
    }

    async fn announce_again(
        &self,
        letter: &Delivery,
        file: &FileRef,
        known: Option<&LetterFile>,
    ) -> Result<RedriveAction> {
        let announcer = self.announcer.for_location_of(file)?;
        if source_has(&announcer, file, version_of(letter).as_ref()).await? {
            return self.send_again(letter, known).await;
        }
        let why = "the source does not hold the announced content";
        replace(&announcer, letter, file, why).await
    }

    /// Sends the message again as it was, with the version that it had.
    async fn send_again(
        &self,
        letter: &Delivery,
        file: Option<&LetterFile>,
    ) -> Result<RedriveAction> {
        if let Some(file) = file {
            self.journal().record_redriven(&file.id).await?;
        }
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

    async fn describe(
        &self,
        letter: &Delivery,
        message: Option<&Message>,
    ) -> Result<RedrivenLetter> {
        let attribute = |name: &str| letter.attributes.get(name).cloned().unwrap_or_default();
        let file = match message {
            Some(message) => self.file(message).await?,
            None => None,
        };
        let observed = match message {
            Some(Message::Announcement(it)) => it.observed.as_ref(),
            Some(Message::Manifest(it)) => it.observed.as_ref(),
            _ => None,
        };
        let named = message.and_then(named_file);
        Ok(RedrivenLetter {
            name: named.unwrap_or_else(|| format!("message {}", letter.message_id)),
            reason: attribute(ATTR_REASON),
            detail: attribute(ATTR_DETAIL),
            action: RedriveAction::Listed(None),
            announcement: observed.map(|observed| observed.announcement.clone()),
            file,
        })
    }

    /// The file that a message announces, or whose records it names. The original's messages do not say its content; the
    /// journal that announced and packed it knows it.
    async fn file(&self, message: &Message) -> Result<Option<LetterFile>> {
        Ok(match message {
            Message::Announcement(it) => Some(LetterFile::of(&it.file)),
            Message::Manifest(it) => Some(LetterFile::of(&it.file)),
            Message::LegacyAnnouncement(it) => {
                let id = self.journal().get(&legacy_journal_key(&it.id)).await?;
                id.map(|id| LetterFile {
                    id,
                    name: it.file_name.clone(),
                    bytes: 0,
                })
            }
            Message::LegacyManifest(it) => {
                let packed = PackedFile::load(self.journal(), &it.id).await?;
                packed.map(|packed| LetterFile::of(packed.file()))
            }
            // Whether a receipt was acted on is another matter than whether its file was restored.
            Message::S3Event(_) | Message::Receipt(_) => None,
        })
    }
}

/// The name of the file that a message is about.
fn named_file(message: &Message) -> Option<String> {
    match message {
        Message::LegacyManifest(it) => match decompressor::file_name(it) {
            Ok(name) => Some(name.to_string()),
            Err(_) => Some(it.file_name.clone()),
        },
        message => message.subject().file_name,
    }
}

/// Announces the file again, with the version of its first announcement.
async fn repeat(
    announcer: &Announcer,
    letter: &Delivery,
    manifest: &Manifest,
    version: Option<FileVersion>,
) -> Result<RedriveAction> {
    let id = manifest.file.id();
    announcer.journal.record_redriven(id.as_str()).await?;
    let repeat = Repeat::on_request(manifest.observed.clone());
    let repeating = announcer.announce_repeat(&manifest.file, version, repeat);
    trace::scope(trace_of(letter), repeating).await?;
    Ok(RedriveAction::AnnouncedAgain)
}

/// Announces what the source holds now in place of the file. `why` says what is wrong with the file.
async fn replace(
    announcer: &Announcer,
    letter: &Delivery,
    file: &FileRef,
    why: &str,
) -> Result<RedriveAction> {
    let replacing = announcer.announce_current(&file.name);
    match trace::scope(trace_of(letter), replacing).await {
        Ok(()) => {
            let id = file.id();
            announcer.journal.record_superseded(id.as_str()).await?;
            Ok(RedriveAction::ReplacementAnnounced)
        }
        Err(HandlerError::Permanent(failure)) => Ok(RedriveAction::Left(format!(
            "{why}; {}; where it or a later version was restored since, --discard --name NAME ends this dead letter",
            failure.detail
        ))),
        Err(error) => Err(passing(error)),
    }
}

/// One file's fault at the source does not stop the redrive of others.
/// Whether the letter says that the stream does not keep its records any more.
fn is_expired(letter: &Delivery) -> bool {
    let reason = letter.attributes.get(ATTR_REASON);
    reason.is_some_and(|reason| *reason == DeadLetterReason::Expired.to_string())
}

fn left(error: anyhow::Error) -> RedriveAction {
    RedriveAction::Left(format!("{error:#}"))
}

/// The trace of a dead letter's message, or a new one.
fn trace_of(letter: &Delivery) -> TraceContext {
    let carried = letter.attributes.get(ATTR_TRACEPARENT);
    carried
        .and_then(|carried| TraceContext::parse(carried))
        .map_or_else(TraceContext::start, TraceContext::child)
}

/// Extends the visibility timeout of all letters that are held, again and again.
async fn keep_in_flight(dead: &dyn Queue, in_flight: &Mutex<BTreeSet<Receipt>>) -> Infallible {
    loop {
        tokio::time::sleep(dead.visibility_timeout() / 3).await;
        let receipts: Vec<Receipt> = in_flight.lock().iter().cloned().collect();
        for receipt in receipts {
            // A letter that is received again meanwhile is redriven twice, which is harmless.
            if let Err(error) = dead.extend(&receipt, dead.visibility_timeout()).await {
                debug!(%error, "Could not extend the visibility timeout of a dead letter.");
            }
        }
    }
}

/// The version that a dead letter carries; one that SQS moved by itself carries none.
fn version_of(letter: &Delivery) -> Option<FileVersion> {
    letter.attributes.get(ATTR_VERSION)?.parse().ok()
}

/// What another attempt may not have.
pub(crate) fn passing(error: HandlerError) -> anyhow::Error {
    match error {
        HandlerError::Transient(error)
        | HandlerError::Newer(error)
        | HandlerError::Waiting(error)
        | HandlerError::NotYet(error, _) => error,
        HandlerError::Outage(outage) => anyhow::anyhow!(outage.cause),
        HandlerError::Permanent(failure) => anyhow::anyhow!(failure.detail),
        HandlerError::Interrupted => anyhow::anyhow!("interrupted"),
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

/// The queue remembers ids for five minutes; a redrive may come sooner.
fn fresh_dedup_id(old: &str) -> String {
    let stem = old.get(..old.len().min(100)).unwrap_or("redriven");
    format!("{stem}-{:x}", runtime::random_u64())
}
