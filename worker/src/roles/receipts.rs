//! Receipts: what became of a file, sent by decompressors ([`ReceiptSender`]) and taken by compressors ([`take`]).
//!
//! A decompressor sends a file's receipt between the effect and the deletion of its message. A restored file's receipt that
//! cannot be sent is kept and sent later, so that restoring goes on while the receipts queue is down. The request to send a
//! file again is never kept: its message waits instead, since nothing else says that the file is missing.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tracing::{info, warn};

use crate::consume::{HandlerError, MessageContext};
use crate::journal::SourceState;
use crate::message::{
    DeadLetterReason, Digest, FileReceipt, Manifest, REDRIVE_COMMAND, ReceiptFile, Verdict,
};
use crate::roles::announce::{self, Announcer, Repeat, trace_attributes};
use crate::roles::source::{SettleTime, SparedSources, apply_on_restored, is_spared};
use crate::roles::{copies, replies};
use crate::telemetry::trace;
use streampress_crds::api::pipeline::OnRestored;
use streampress_transport::{
    ATTR_DETAIL, ATTR_GROUP, ATTR_REASON, ATTR_VERSION, Backoff, Delivery, Failure, FileVersion,
    Outgoing, Queue, TransportError, TransportResult, error_chain,
};

/// A version is announced again because of its records at most so many times; then its manifest is a dead letter.
const MOST_REPEATS: u32 = 3;
/// Receipts that are kept while the queue is down.
const MOST_UNSENT: usize = 10_000;
/// Kept receipts that are sent at once.
const BATCH: usize = 10;
/// Between two attempts to send what was kept: at most half of the time after which empty queues count as purged.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
/// How long the end of a process waits for the receipts queue.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest part of a manifest's deduplication id in a receipt's: SQS takes 128 characters.
const LONGEST_STEM: usize = 116;

/// Sends receipts: those of files that are done at the same time in one batch.
#[derive(Debug)]
pub struct ReceiptSender {
    queue: Arc<dyn Queue>,
    strict: bool,
    requests_only: bool,
    waiting: Mutex<Vec<WaitingReceipt>>,
    sending: tokio::sync::Mutex<()>,
    unsent: Mutex<VecDeque<Outgoing>>,
    kept: Notify,
}

#[derive(Debug)]
struct WaitingReceipt {
    message: Outgoing,
    sent: oneshot::Sender<Result<(), String>>,
}

impl ReceiptSender {
    /// Sends to `queue`. `strict`: all files go one after another.
    pub fn new(queue: Arc<dyn Queue>, strict: bool) -> Self {
        Self {
            queue,
            strict,
            requests_only: false,
            waiting: Mutex::default(),
            sending: tokio::sync::Mutex::default(),
            unsent: Mutex::default(),
            kept: Notify::default(),
        }
    }

    /// Only asks for files to be sent again: what was restored is known at the source's side without receipts.
    pub(crate) fn of_requests_only(self) -> Self {
        Self {
            requests_only: true,
            ..self
        }
    }

    /// Tells that the manifest's file was restored or superseded; `context` is that of the manifest's message. `Ok` where the
    /// receipt was sent, or is kept to be sent.
    pub(crate) async fn report(
        &self,
        manifest: &Manifest,
        version: FileVersion,
        is_restored: bool,
        context: MessageContext<'_>,
    ) -> Result<(), HandlerError> {
        if self.requests_only {
            return Ok(());
        }
        let file = ReceiptFile {
            file: manifest.file.clone(),
            file_version: version,
            observed: manifest.observed.clone(),
        };
        let verdict = match is_restored {
            true => Verdict::Restored(file),
            false => Verdict::Superseded(file),
        };
        let message = self.message(verdict, context.delivery);
        // What is kept comes first: a file's receipts stay in order.
        let is_down = !self.unsent.lock().is_empty();
        let failed = match is_down {
            true => None,
            false => match self.send(message.clone()).await {
                Ok(()) => return Ok(()),
                Err(cause) => Some(cause),
            },
        };
        let mut unsent = self.unsent.lock();
        if unsent.len() >= MOST_UNSENT {
            return Err(HandlerError::Waiting(anyhow::anyhow!(
                "the receipts queue {} is down and {MOST_UNSENT} receipts wait for it",
                self.queue.name()
            )));
        }
        if let Some(cause) = failed.filter(|_| unsent.is_empty()) {
            warn!(
                cause,
                "Could not send a receipt; files are restored meanwhile, and their receipts are kept."
            );
        }
        unsent.push_back(message);
        self.kept.notify_one();
        Ok(())
    }

    /// Asks for the manifest's file to be sent again. An error where that could not be sent.
    pub(crate) async fn ask_again(
        &self,
        manifest: &Manifest,
        version: FileVersion,
        failure: Failure,
        context: MessageContext<'_>,
    ) -> Result<(), HandlerError> {
        let manifest = Manifest {
            file_version: Some(version),
            ..manifest.clone()
        };
        let verdict = Verdict::SendAgain {
            manifest: Box::new(manifest),
            reason: failure.reason,
            detail: failure.detail.clone(),
        };
        let message = self.message(verdict, context.delivery);
        context.ensure_owner()?;
        self.send(message).await.map_err(|cause| {
            HandlerError::Waiting(anyhow::anyhow!(
                "{failure}; and the file could not be requested again: {cause}"
            ))
        })?;
        info!(
            reason = failure.reason.as_str(),
            detail = failure.detail,
            "The file's records cannot be used; it is requested again."
        );
        Ok(())
    }

    fn message(&self, verdict: Verdict, delivery: &Delivery) -> Outgoing {
        let stem = delivery.dedup_id.get(..LONGEST_STEM);
        let stem = stem.unwrap_or(&delivery.dedup_id);
        let dedup_id = format!("{stem}-{}", verdict.as_str());
        let receipt = FileReceipt {
            version: verdict.version(),
            verdict,
            traceparent: trace::current().map(|context| context.to_string()),
        };
        Outgoing {
            group: announce::group(receipt.file(), self.strict),
            dedup_id,
            body: receipt.to_json(),
            attributes: trace_attributes(),
        }
    }

    /// Sends the message together with others that wait; the cause where that failed.
    async fn send(&self, message: Outgoing) -> Result<(), String> {
        message.check().map_err(|error| error_chain(&error))?;
        let (sent, outcome) = oneshot::channel();
        self.waiting.lock().push(WaitingReceipt { message, sent });
        {
            let _sending = self.sending.lock().await;
            let batch = std::mem::take(&mut *self.waiting.lock());
            if !batch.is_empty() {
                let messages = batch.iter().map(|it| it.message.clone()).collect();
                let result = self.queue.send(messages).await;
                let result = result.map_err(|error| error_chain(&error));
                for waiting in batch {
                    // Its task may have ended meanwhile.
                    let _ = waiting.sent.send(result.clone());
                }
            }
        }
        outcome
            .await
            .unwrap_or_else(|_| Err("the worker stopped".to_owned()))
    }

    /// Sends what is kept, for ever.
    pub(crate) async fn send_kept(&self) -> Infallible {
        let mut failures = 0;
        loop {
            if self.unsent.lock().is_empty() {
                failures = 0;
                self.kept.notified().await;
            }
            if failures > 0 {
                tokio::time::sleep(BACKOFF.equal_jitter(failures)).await;
            }
            match self.send_kept_batch().await {
                Ok(true) => {
                    failures = 0;
                    info!(
                        "The receipts queue answers again; all receipts that were kept are sent."
                    );
                }
                Ok(false) => failures = 0,
                Err(_) => failures += 1,
            }
        }
    }

    /// Sends the first of what is kept; true where those were the last.
    async fn send_kept_batch(&self) -> TransportResult<bool> {
        let batch: Vec<_> = self.unsent.lock().iter().take(BATCH).cloned().collect();
        if batch.is_empty() {
            return Ok(false);
        }
        let count = batch.len();
        self.queue.send(batch).await?;
        let mut unsent = self.unsent.lock();
        unsent.drain(..count);
        Ok(unsent.is_empty())
    }

    /// Tries to send what is kept before the process ends. What then is left is lost; the file itself is not.
    pub(crate) async fn end(&self) {
        let sending = async {
            while !self.unsent.lock().is_empty() {
                self.send_kept_batch().await?;
            }
            Ok::<(), TransportError>(())
        };
        if !matches!(tokio::time::timeout(END_TIMEOUT, sending).await, Ok(Ok(()))) {
            warn!(
                receipts = self.unsent.lock().len(),
                "The process ends while the receipts queue is down; the receipts of these restored files are lost."
            );
        }
    }
}

/// Acts on a receipt, at the source's side.
pub(crate) async fn take(
    announcer: &Announcer,
    (on_restored, settle): (OnRestored, SettleTime),
    spared: Option<&SparedSources>,
    receipt: &FileReceipt,
    context: MessageContext<'_>,
) -> Result<(), HandlerError> {
    match &receipt.verdict {
        Verdict::Restored(file) => {
            note(announcer, file, SourceState::Restored).await?;
            replies::leave(announcer, file.observed.as_ref(), SourceState::Restored).await?;
            if on_restored == OnRestored::Keep {
                return Ok(());
            }
            if context
                .or_stop(async { Ok(is_spared(spared, file).await) })
                .await?
            {
                info!("The restored file is gone or was changed since; its source stays.");
                return Ok(());
            }
            context.ensure_owner()?;
            let sent_millis = context.delivery.sent_millis;
            apply_on_restored(announcer, file, (on_restored, settle), sent_millis).await
        }
        Verdict::Superseded(file) => {
            note(announcer, file, SourceState::Superseded).await?;
            replies::leave(announcer, file.observed.as_ref(), SourceState::Superseded).await
        }
        Verdict::SendAgain {
            manifest,
            reason,
            detail,
        } => send_again(announcer, manifest, (*reason, detail), context).await,
    }
}

/// Notes in the journal what became of the announcement.
async fn note(
    announcer: &Announcer,
    receipt: &ReceiptFile,
    state: SourceState,
) -> Result<(), HandlerError> {
    let recorded = announcer.record_end(&receipt.file, receipt.observed.as_ref(), state);
    Ok(recorded.await?)
}

/// Announces the manifest's file again with its version, if the source still has its content. Other content that took its
/// place is announced instead.
async fn send_again(
    announcer: &Announcer,
    manifest: &Manifest,
    (reason, detail): (DeadLetterReason, &str),
    context: MessageContext<'_>,
) -> Result<(), HandlerError> {
    let file = &manifest.file;
    let give_up = |why: &str| Err(HandlerError::permanent(reason, format!("{detail}; {why}")));
    if manifest.repeats >= MOST_REPEATS {
        return give_up(&format!(
            "it was packed again {MOST_REPEATS} times without success"
        ));
    }
    let announcer = announcer
        .for_location_of(file)
        .map_err(HandlerError::Transient)?;
    let version = manifest.file_version.clone();
    let has_content = copies::source_has(&announcer, file, version.as_ref())
        .await
        .map_err(HandlerError::Transient)?;
    if has_content {
        context.ensure_owner()?;
        let attempt = Digest::of(manifest.attempt.as_bytes());
        let repeat = Repeat {
            // The same receipt received twice makes one announcement.
            id: format!("{}-again", &attempt.as_str()[..16]),
            observed: manifest.observed.clone(),
            repeats: manifest.repeats + 1,
        };
        let id = file.id();
        announcer.journal.record_redriven(id.as_str()).await?;
        return announcer
            .announce_repeat(file, version, repeat)
            .await
            .map_err(HandlerError::Transient);
    }
    match announcer.announce_successor(file, None).await {
        Ok(()) => {
            context.count_superseded();
            let id = file.id();
            announcer.journal.record_superseded(id.as_str()).await?;
            let observed = manifest.observed.as_ref();
            replies::leave(&announcer, observed, SourceState::Superseded).await?;
            info!(
                "The source has other content by now, which is announced in this version's place."
            );
            Ok(())
        }
        Err(HandlerError::Permanent(failure))
            if failure.reason == DeadLetterReason::SourceMissing =>
        {
            give_up(&format!(
                "{} is not in {} either; put it back, or what the stream has lost, then {REDRIVE_COMMAND}",
                file.name, file.location
            ))
        }
        Err(HandlerError::Permanent(failure)) => give_up(&failure.detail),
        Err(error) => Err(error),
    }
}

/// Moves a receipt of `queue` to the dead letters. A request to send a file again that cannot be met becomes one of the
/// chunks queue, as the manifest that it holds, so that a redrive finds it like any other.
pub(crate) async fn dead_letter(
    receipt: &FileReceipt,
    (queue, delivery): (&dyn Queue, &Delivery),
    chunks: &dyn Queue,
    failure: &Failure,
) -> TransportResult<()> {
    let (Verdict::SendAgain { manifest, .. }, Some(dead)) =
        (&receipt.verdict, chunks.dead_letters())
    else {
        return queue.dead_letter(delivery, failure).await;
    };
    let letter = manifest_letter(manifest, delivery, failure);
    dead.send(vec![letter]).await?;
    match queue.delete(&delivery.receipt).await {
        // Another worker has it by now and makes the same dead letter of it.
        Err(TransportError::Stale) => Ok(()),
        other => other,
    }
}

/// The dead letter of a manifest whose file cannot be sent again.
fn manifest_letter(manifest: &Manifest, delivery: &Delivery, failure: &Failure) -> Outgoing {
    let version = manifest.file_version.as_ref().map(ToString::to_string);
    let all = [
        (ATTR_REASON, Some(failure.reason.to_string())),
        (ATTR_DETAIL, Some(sendable(&failure.detail))),
        (ATTR_GROUP, Some(delivery.original_group().to_owned())),
        (ATTR_VERSION, version),
    ];
    let attributes: BTreeMap<String, String> = all
        .into_iter()
        .filter_map(|(name, text)| Some((name.to_owned(), text?)))
        .collect();
    Outgoing {
        group: delivery.message_id.clone(),
        dedup_id: format!("dead-{}", delivery.message_id),
        body: manifest.to_json(),
        attributes,
    }
}

/// Text that an attribute can hold: bounded, and without control characters.
fn sendable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .take(500)
        .collect()
}

#[cfg(test)]
mod tests;
