//! What a role does with one message, and what it gets for it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::batching::MAX_SMALL_IN_PROGRESS;
use crate::message::{DeadLetterReason, FileRef, Message, MessageError};
use crate::runtime;
use crate::telemetry::metrics::{Meter, Stage};
use streampress_crds::slot_health::{NeededService, OutageKind};
use streampress_transport::{
    Deadline, Delivery, Failure, Queue, SlotGuard, TransportError, TransportResult, error_chain,
};

/// What a role does with one message. The same message twice must have the same effect as once.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Does the work. When [`MessageContext::stop`] is cancelled it returns [`HandlerError::Interrupted`] at the next block
    /// boundary and has no effect after.
    async fn handle(
        &self,
        message: &Message,
        context: MessageContext<'_>,
    ) -> Result<Handled, HandlerError>;

    /// Whether the message is small work, which mostly waits for the transport: several are then in progress per thread.
    fn is_small(&self, message: &Message) -> bool {
        let _ = message;
        false
    }

    /// Messages of small work in progress at most.
    fn most_small_in_progress(&self) -> usize {
        MAX_SMALL_IN_PROGRESS
    }

    /// Called when it becomes known whether more small messages will follow at once: the queue had as many as were requested,
    /// and more are being received.
    fn expect_more(&self, is_expected: bool) {
        let _ = is_expected;
    }

    /// Bytes that the work on the message writes at a location: what a probe must be able to write too.
    fn needed_bytes(&self, message: &Message) -> u64 {
        let _ = message;
        0
    }

    /// Tests the services that every message needs, with another name than that of `failed`, the message whose work failed,
    /// and with `bytes` bytes. Answers whether that proves that the work on another message would succeed.
    async fn probe(&self, failed: Option<&Message>, bytes: u64) -> Result<bool, ServiceOutage> {
        let _ = (failed, bytes);
        Ok(true)
    }

    /// Called once the message is deleted: what may only happen when its effect is safe.
    async fn on_acknowledged(&self, handled: Handled) {
        let _ = handled;
    }

    /// Runs beside the work on messages for as long as the process lives; never ends.
    async fn background(&self) -> Infallible {
        std::future::pending().await
    }

    /// Called once at the end of the process, after the last message.
    async fn end(&self) {}

    /// Moves a message of `queue`, which is `None` where it could not be parsed, to a dead-letter queue.
    async fn dead_letter(
        &self,
        queue: &dyn Queue,
        delivery: &Delivery,
        message: Option<&Message>,
        failure: &Failure,
    ) -> TransportResult<()> {
        let _ = message;
        queue.dead_letter(delivery, failure).await
    }

    /// Called once the message is in the dead-letter queue.
    async fn on_dead_lettered(&self, message: &Message, failure: &Failure) {
        let _ = (message, failure);
    }
}

/// The work on a message succeeded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handled {
    /// The source file as it was packed. It may be renamed or deleted once the message is deleted.
    pub packed_source: Option<FileRef>,
}

/// Why the work on a message did not succeed.
#[derive(Debug)]
pub enum HandlerError {
    /// No attempt can succeed: the message becomes a dead letter at once.
    Permanent(Failure),
    /// A later attempt may succeed. A probe tells whether a service is down; if none is, redelivered with back-off.
    Transient(anyhow::Error),
    /// A service that every message needs cannot be used, whatever a probe says.
    Outage(ServiceOutage),
    /// Written by a newer version of Streampress: redelivered with back-off until a worker of that version has it, and never
    /// a dead letter.
    Newer(anyhow::Error),
    /// This message has to wait: redelivered with back-off for as long as it takes, and never a dead letter. Others go on.
    Waiting(anyhow::Error),
    /// It is too early for this message, which is no fault: redelivered after this time, and never a dead letter. Others go on.
    NotYet(anyhow::Error, Duration),
    /// The process shall end, or the slot or the message was lost: released.
    Interrupted,
}

/// A service does not do its work for any file: it is full, read-only, refuses all access, throttles, does not answer, or
/// belongs to another pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceOutage {
    /// Which.
    pub service: NeededService,
    /// Why.
    pub kind: OutageKind,
    /// What it answered, with the causes.
    pub cause: String,
}

impl ServiceOutage {
    /// Of `service`, which is down because of `cause`.
    pub fn new(service: NeededService, cause: &dyn std::error::Error) -> Self {
        Self {
            service,
            kind: OutageKind::Down,
            cause: error_chain(cause),
        }
    }
}

impl HandlerError {
    /// An error that no second attempt can avoid.
    pub fn permanent(reason: DeadLetterReason, detail: impl std::fmt::Display) -> Self {
        Self::Permanent(Failure::new(reason, format!("{detail:#}")))
    }

    /// An error that may not occur again, in the step that `step` names.
    pub(crate) fn transient(
        error: impl Into<anyhow::Error>,
        step: impl std::fmt::Display + Send + Sync + 'static,
    ) -> Self {
        Self::Transient(error.into().context(step))
    }

    /// An error of sending to a queue: a message that the queue refuses is a dead letter, all else an outage.
    pub(crate) fn sending(error: TransportError) -> Self {
        match error {
            TransportError::Unavailable { .. } => {
                Self::Outage(ServiceOutage::new(NeededService::Queue, &error))
            }
            error => error.into(),
        }
    }

    /// A message that this role has no use for.
    pub(crate) fn unexpected(message: &Message) -> Self {
        let detail = format!("this queue takes no {}", message.kind());
        Self::permanent(DeadLetterReason::UnreadableMessage, detail)
    }
}

impl From<TransportError> for HandlerError {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::Expired(_) => Self::permanent(DeadLetterReason::Expired, error),
            TransportError::Missing(_) => Self::permanent(DeadLetterReason::RecordMissing, error),
            TransportError::Invalid(_) => Self::permanent(DeadLetterReason::Refused, error),
            TransportError::Stale => Self::Interrupted,
            TransportError::Unavailable { .. } => Self::Transient(error.into()),
        }
    }
}

impl From<&MessageError> for HandlerError {
    fn from(error: &MessageError) -> Self {
        Self::permanent(DeadLetterReason::UnreadableMessage, error_chain(error))
    }
}

/// What the work on one message may use.
#[derive(Clone, Copy)]
pub struct MessageContext<'a> {
    /// The message as it was received.
    pub delivery: &'a Delivery,
    /// Until when the message is surely invisible to other workers; moved on with every extension.
    pub visibility_deadline: &'a Deadline,
    /// The slot that the work is done in.
    pub slot: &'a SlotGuard,
    /// The worker's threads, which its messages share.
    pub threads: &'a ThreadBudget,
    /// Cancelled when the slot or the message is lost or the process shall end.
    pub stop: &'a CancellationToken,
    /// Where stages and files are counted.
    pub meter: &'a Meter,
}

impl MessageContext<'_> {
    /// Counts a packed and announced file, in the slot's ledger and in the metrics.
    pub(crate) fn count_packed(&self, raw_bytes: u64, packed_bytes: u64) {
        self.count(raw_bytes, packed_bytes);
        self.meter.file(raw_bytes, packed_bytes);
    }

    /// Counts a restored file, in the slot's ledger and in the metrics.
    pub(crate) fn count_restored(&self, packed_bytes: u64, raw_bytes: u64) {
        self.count(packed_bytes, raw_bytes);
        self.meter.file(raw_bytes, packed_bytes);
    }

    /// Counts a version that was not restored because a newer one had been.
    pub(crate) fn count_superseded(&self) {
        self.slot.count(|ledger| ledger.superseded += 1);
        self.meter.superseded();
    }

    /// Counts a packed file that was neither restored nor given up: it is sent again.
    pub(crate) fn count_sent_again(&self) {
        self.slot.count(|ledger| ledger.sent_again += 1);
    }

    fn count(&self, bytes_in: u64, bytes_out: u64) {
        self.slot.count(|ledger| {
            ledger.files += 1;
            ledger.bytes_in += bytes_in;
            ledger.bytes_out += bytes_out;
        });
    }

    /// Whether an effect may follow: called right before it. A process that was frozen past its slot's deadline, or that
    /// could not extend the message's visibility timeout in time, learns it here from the clock, before any task of it
    /// can cancel `stop`.
    pub fn ensure_owner(&self) -> Result<(), HandlerError> {
        let lost = !self.slot.ensure_owner() || self.visibility_deadline.is_expired();
        if self.stop.is_cancelled() || lost {
            return Err(HandlerError::Interrupted);
        }
        Ok(())
    }

    /// Does work that has no effect; drops it when `stop` is cancelled.
    pub(crate) async fn or_stop<T>(
        &self,
        work: impl Future<Output = Result<T, HandlerError>>,
    ) -> Result<T, HandlerError> {
        tokio::select! {
            biased;
            done = work => done,
            () = self.stop.cancelled() => Err(HandlerError::Interrupted),
        }
    }

    /// Waits for one of the worker's threads.
    pub async fn one_thread(&self) -> Result<OwnedSemaphorePermit, HandlerError> {
        self.or_stop(async { Ok(self.threads.acquire(1).await) })
            .await
    }

    /// Waits for the threads that a file of `bytes` is worth: all of them if it has more than one block.
    pub(crate) async fn threads_for(
        &self,
        bytes: u64,
        block_bytes: u64,
    ) -> Result<OwnedSemaphorePermit, HandlerError> {
        let wanted = if bytes > block_bytes {
            self.threads.all
        } else {
            1
        };
        self.or_stop(async { Ok(self.threads.acquire(wanted).await) })
            .await
    }

    /// Records how long the message has waited since `millis`, in milliseconds since 1970.
    pub(crate) fn record_wait(&self, millis: u64) {
        let waited = Duration::from_millis(runtime::now_millis().saturating_sub(millis));
        self.meter.stage(Stage::Wait, waited);
    }
}

/// A worker's threads. A message holds one or all of them while it packs or unpacks blocks and while the result is held in
/// memory, not while a small file waits for the transport.
#[derive(Debug, Clone)]
pub struct ThreadBudget {
    free: Arc<Semaphore>,
    all: u32,
}

impl ThreadBudget {
    /// `all` threads, at least one.
    pub fn new(all: usize) -> Self {
        // More than a machine has, and few enough for a semaphore.
        let all = u16::try_from(all.max(1)).unwrap_or(u16::MAX);
        Self {
            free: Arc::new(Semaphore::new(all.into())),
            all: all.into(),
        }
    }

    /// Waits for so many threads.
    pub(crate) async fn acquire(&self, threads: u32) -> OwnedSemaphorePermit {
        let acquired = self.free.clone().acquire_many_owned(threads).await;
        acquired.unwrap_or_else(|_| unreachable!("the semaphore is never closed"))
    }
}
