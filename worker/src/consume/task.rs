//! One message from its receive to its end: kept in flight, handled within its trace, and then deleted, dead-lettered or
//! released.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, debug, error, field, info, info_span, warn};

use super::handler::{Handled, Handler, HandlerError, MessageContext, ServiceOutage, ThreadBudget};
use super::outage::{Failures, ServiceHealth};
use crate::message::trace_context::TraceContext;
use crate::message::{DeadLetterReason, Message, MessageError, NEWEST_VERSION, Subject};
use crate::runtime;
use crate::telemetry::metrics::{InFlight, Meter, RetryCause};
use crate::telemetry::trace;
use streampress_crds::Role;
use streampress_transport::{
    ATTR_TRACEPARENT, Backoff, Deadline, Delivery, Failure, Queue, SlotGuard, TransportError,
    TransportResult, error_chain,
};

/// SQS keeps a message in flight for at most 12 hours, counted from its receive; the work stops half an hour before.
const MAX_IN_FLIGHT: Duration = Duration::from_secs(11 * 3600 + 1800);
/// Of transient errors, with jitter, so that messages that failed together are not retried together.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// Of a message that could be given up but for the proof that others succeed: so rarely that it is received fewer than a
/// thousand times, SQS's last resort, within the 14 days that SQS keeps it.
const LONG_BACKOFF: Backoff = Backoff::new(Duration::from_secs(60), Duration::from_secs(1800));
/// Of a call that tells the queue how a message ended.
const CALL_BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
/// The long back-off doubles after so many failures.
const LONG_BACKOFF_STEP: u32 = 20;
/// While a service is down a message is kept for so long, so that its work goes on at once when the outage was short. Then
/// it is released, for a worker that may reach the service.
const LONGEST_HOLD: Duration = Duration::from_secs(300);
/// A probe after a failure writes no more than this first: a file that is too large for what is left of a disk is no outage.
const SMALL_PROBE_BYTES: u64 = 64 << 10;

/// A message as received, with its body parsed.
pub(super) struct Received {
    pub(super) delivery: Delivery,
    pub(super) message: Result<Message, MessageError>,
    pub(super) in_flight: InFlight,
}

/// The work on one message.
pub(super) struct MessageTask {
    pub(super) role: Role,
    pub(super) queue: Arc<dyn Queue>,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) max_receive_count: u32,
    pub(super) slot: Arc<SlotGuard>,
    /// Cancelled when its work shall end: the slot is lost, or the process shall end.
    pub(super) stop: CancellationToken,
    /// Cancelled when the process shall end.
    pub(super) shutdown: CancellationToken,
    pub(super) visibility_deadline: Deadline,
    pub(super) meter: Meter,
    pub(super) threads: ThreadBudget,
    pub(super) health: ServiceHealth,
    pub(super) failures: Arc<Mutex<Failures>>,
}

/// How the work on a message ended.
enum Ended {
    Done(Handled),
    Permanent(Failure),
    /// The services that all messages need are well. `proven`: another file of this size could be worked on.
    Failed {
        cause: anyhow::Error,
        proven: bool,
    },
    /// A service is down, and the message was held for as long as it may be.
    Outage,
    /// It has to wait: another version of this program must do it, or something that only this message needs is missing.
    Waiting(anyhow::Error),
    /// It is too early, by this time.
    NotYet(anyhow::Error, Duration),
    Interrupted,
}

impl From<&MessageError> for Ended {
    fn from(error: &MessageError) -> Self {
        match error {
            MessageError::Version(version) if *version > u64::from(NEWEST_VERSION) => {
                Self::Waiting(anyhow::anyhow!("{error}"))
            }
            _ => Self::Permanent(Failure::new(
                DeadLetterReason::UnreadableMessage,
                error_chain(error),
            )),
        }
    }
}

/// A fault of this program: it counts as an attempt, so that one file's content does not end the worker.
fn panicked(panic: &(dyn Any + Send)) -> HandlerError {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("without a text");
    HandlerError::Transient(anyhow::anyhow!(
        "the work panicked, which is a fault of streampress: {text}"
    ))
}

/// A message, parsed or not, and its place in the metrics.
struct Concluding<'a> {
    delivery: &'a Delivery,
    message: &'a Result<Message, MessageError>,
    in_flight: InFlight,
}

impl MessageTask {
    pub(super) async fn run(self, received: Received) {
        let Received {
            delivery,
            message,
            in_flight,
        } = received;
        let (span, context) = self.span(&delivery, &message);
        let work = async {
            let ended = match &message {
                Ok(message) => self.handle_while_in_flight(&delivery, message).await,
                Err(error) => error.into(),
            };
            let concluding = Concluding {
                delivery: &delivery,
                message: &message,
                in_flight,
            };
            self.conclude(concluding, ended).await;
        };
        trace::scope(context, work).instrument(span).await;
    }

    /// Every line logged within it names the file; what is sent within it continues the trace.
    fn span(
        &self,
        delivery: &Delivery,
        message: &Result<Message, MessageError>,
    ) -> (Span, TraceContext) {
        let subject = message
            .as_ref()
            .map_or_else(|_| Subject::default(), Message::subject);
        let carried = delivery
            .attributes
            .get(ATTR_TRACEPARENT)
            .or(subject.traceparent.as_ref());
        let carried = carried.and_then(|carried| TraceContext::parse(carried));
        let span = info_span!(
            "file",
            role = self.role.as_str(),
            file_id = subject.file_id,
            file_name = subject.file_name,
            attempt = delivery.receive_count,
            // Told apart from the file's own message, which the same role receives.
            kind = matches!(message, Ok(Message::Receipt(_))).then_some("receipt"),
            trace_id = field::Empty,
        );
        let context = trace::enter(&span, carried);
        (span, context)
    }

    async fn handle_while_in_flight(&self, delivery: &Delivery, message: &Message) -> Ended {
        let keep_in_flight = self.keep_in_flight(delivery);
        let handling = self.handle(delivery, message);
        tokio::pin!(keep_in_flight, handling);
        tokio::select! {
           biased;
            outcome = &mut handling => outcome,
            () = &mut keep_in_flight => {
                // Another worker may have the message now: no effect may follow. The handler stops by itself.
                self.stop.cancel();
                handling.await
            }
        }
    }

    /// Handles the message, and again after each outage that was short enough to hold it meanwhile.
    async fn handle(&self, delivery: &Delivery, message: &Message) -> Ended {
        if let Some(ended) = self.still_too_large(delivery, message).await {
            return ended;
        }
        loop {
            let handling = self.handler.handle(message, self.context(delivery));
            let handled = AssertUnwindSafe(handling).catch_unwind().await;
            let (outage, bytes) = match handled.unwrap_or_else(|panic| Err(panicked(&*panic))) {
                Ok(handled) => return Ended::Done(handled),
                Err(HandlerError::Permanent(failure)) => return Ended::Permanent(failure),
                Err(HandlerError::Interrupted) => return Ended::Interrupted,
                Err(HandlerError::Newer(cause) | HandlerError::Waiting(cause)) => {
                    return Ended::Waiting(cause);
                }
                Err(HandlerError::NotYet(why, after)) => return Ended::NotYet(why, after),
                Err(HandlerError::Outage(outage)) => (outage, 0),
                Err(HandlerError::Transient(cause)) => {
                    let probed = tokio::select! {
                        biased;
                        probed = self.probe(message) => probed,
                        () = self.stop.cancelled() => return Ended::Interrupted,
                    };
                    match probed {
                        Ok(proven) => return Ended::Failed { cause, proven },
                        Err(outage) => outage,
                    }
                }
            };
            let now = runtime::now_seconds();
            self.slot.change_health(|health| {
                health.is_down(outage.service, outage.kind, &outage.cause, now);
            });
            self.health.report(outage, bytes);
            tokio::select! {
                biased;
                () = self.health.until(false) => {}
                () = self.stop.cancelled() => return Ended::Interrupted,
                () = tokio::time::sleep(LONGEST_HOLD) => return Ended::Outage,
            }
        }
    }

    /// A file that did not fit on the disk is not fetched and unpacked again before it does.
    async fn still_too_large(&self, delivery: &Delivery, message: &Message) -> Option<Ended> {
        if !self.failures.lock().was_unproven(&delivery.message_id) {
            return None;
        }
        let needed = self.handler.needed_bytes(message);
        let small = needed.min(SMALL_PROBE_BYTES);
        let probing = async {
            // Where little does not fit either, the work itself meets the outage, and it counts as one.
            self.handler.probe(Some(message), small).await.ok()?;
            self.handler.probe(Some(message), needed).await.err()
        };
        let outage = tokio::select! {
            biased;
            outage = probing => outage?,
            () = self.stop.cancelled() => return Some(Ended::Interrupted),
        };
        Some(Ended::Failed {
            cause: anyhow::anyhow!("{needed} bytes do not fit: {}", outage.cause),
            proven: false,
        })
    }

    /// After a failure: an outage with the bytes that did not fit, or whether a name of this message's size was written.
    async fn probe(&self, message: &Message) -> Result<bool, (ServiceOutage, u64)> {
        let needed = self.handler.needed_bytes(message);
        let small = needed.min(SMALL_PROBE_BYTES);
        let probed = self.handler.probe(Some(message), small).await;
        let proven = probed.map_err(|outage| (outage, small))?;
        if needed == small {
            return Ok(proven);
        }
        let fits = self.handler.probe(Some(message), needed).await;
        Ok(fits.unwrap_or(false))
    }

    fn context<'a>(&'a self, delivery: &'a Delivery) -> MessageContext<'a> {
        MessageContext {
            delivery,
            visibility_deadline: &self.visibility_deadline,
            slot: &self.slot,
            threads: &self.threads,
            stop: &self.stop,
            meter: &self.meter,
        }
    }

    /// Extends the visibility timeout again and again; returns only when the message is no longer this worker's.
    async fn keep_in_flight(&self, delivery: &Delivery) {
        let visibility = self.queue.visibility_timeout();
        let limit = delivery.received_at + MAX_IN_FLIGHT;
        loop {
            tokio::time::sleep_until(limit.min(Instant::now() + visibility / 3)).await;
            // The queue counts from some moment after this one, however long its answer takes.
            let asked_at = Instant::now();
            let timeout = visibility.min(limit.saturating_duration_since(asked_at));
            if timeout.is_zero() {
                warn!(
                    message_id = delivery.message_id,
                    "A message has been in flight for as long as SQS allows; stopping its work, which starts anew."
                );
                return;
            }
            match self.queue.extend(&delivery.receipt, timeout).await {
                Ok(()) => {
                    self.visibility_deadline.set(asked_at + timeout);
                }
                Err(TransportError::Stale) => {
                    warn!(
                        message_id = delivery.message_id,
                        "Lost a message to another worker; stopping its work."
                    );
                    return;
                }
                Err(error) if self.visibility_deadline.is_expired() => {
                    warn!(
                        message_id = delivery.message_id,
                        %error,
                        "Could not extend a message's visibility timeout before it ran out; stopping its work."
                    );
                    return;
                }
                Err(error) => {
                    warn!(
                        message_id = delivery.message_id,
                        %error,
                        "Could not extend a message's visibility timeout; retrying."
                    );
                }
            }
        }
    }

    async fn conclude(&self, message: Concluding<'_>, ended: Ended) {
        match ended {
            Ended::Done(handled) => self.acknowledge(message, handled).await,
            Ended::Permanent(failure) => self.dead_letter(message, &failure).await,
            Ended::Failed { cause, proven } => self.failed(message, &cause, proven).await,
            Ended::Waiting(cause) => {
                let back_off = LONG_BACKOFF.equal_jitter(message.delivery.receive_count);
                self.retry_later(message, &cause, back_off).await;
            }
            Ended::NotYet(why, after) => self.defer(message, &why, after).await,
            Ended::Outage => self.release(message, RetryCause::Outage).await,
            Ended::Interrupted => self.release(message, RetryCause::Interrupted).await,
        }
    }

    async fn failed(&self, message: Concluding<'_>, cause: &anyhow::Error, proven: bool) {
        let message_id = &message.delivery.message_id;
        let most = self.max_receive_count;
        let attempts = self.failures.lock().failed(message_id, proven, most);
        if attempts.is_last {
            let detail = format!(
                "gave up after {} attempts of this worker in which the services that it needs could be used: {cause:#}",
                attempts.count
            );
            let failure = Failure::new(DeadLetterReason::GaveUp, detail);
            return self.dead_letter(message, &failure).await;
        }
        let back_off = match attempts.all.checked_sub(most) {
            None | Some(0) => BACKOFF.equal_jitter(attempts.all),
            Some(beyond) => LONG_BACKOFF.equal_jitter(beyond.div_ceil(LONG_BACKOFF_STEP)),
        };
        self.retry_later(message, cause, back_off).await;
    }

    async fn acknowledge(&self, message: Concluding<'_>, handled: Handled) {
        let receipt = &message.delivery.receipt;
        let deleted = self.conclude_with(|| self.queue.delete(receipt));
        match deleted.await {
            Ok(()) => {
                message.in_flight.acknowledged();
                self.failures.lock().succeeded(&message.delivery.message_id);
                self.health.succeeded();
                if !self.health.is_down() {
                    let now = runtime::now_seconds();
                    self.slot.change_health(|health| health.worked(now));
                }
                self.handler.on_acknowledged(handled).await;
            }
            // Harmless: the next worker finds the effect done and acknowledges.
            Err(error) => {
                info!(
                    message_id = message.delivery.message_id,
                    %error,
                    "A processed message could not be deleted; it will be redelivered, and what is done is not done again."
                );
                message.in_flight.retried(RetryCause::NotDeleted);
            }
        }
    }

    /// Tells the queue how the message ended, with patience.
    async fn conclude_with<F: Future<Output = TransportResult<()>>>(
        &self,
        call: impl Fn() -> F,
    ) -> TransportResult<()> {
        with_patience(call, &self.visibility_deadline, &self.shutdown).await
    }

    async fn retry_later(
        &self,
        message: Concluding<'_>,
        cause: &anyhow::Error,
        back_off: Duration,
    ) {
        let delivery = message.delivery;
        warn!(
            message_id = delivery.message_id,
            error = format!("{cause:#}"),
            back_off_secs = back_off.as_secs_f64(),
            "Work failed; retrying later."
        );
        self.hide(message, back_off, RetryCause::Fault).await;
    }

    /// Puts a message off for which it is too early. One that was put off often is received more rarely.
    async fn defer(&self, message: Concluding<'_>, why: &anyhow::Error, after: Duration) {
        let after = match message.delivery.receive_count / LONG_BACKOFF_STEP {
            0 => after,
            steps => after.max(LONG_BACKOFF.equal_jitter(steps)),
        };
        info!("Put off for {} s: {why:#}.", after.as_secs());
        self.hide(message, after, RetryCause::NotYet).await;
    }

    /// Leaves the message invisible for this time.
    async fn hide(&self, message: Concluding<'_>, time: Duration, cause: RetryCause) {
        let receipt = &message.delivery.receipt;
        let told = self.conclude_with(|| self.queue.extend(receipt, time));
        if let Err(error) = told.await {
            debug!(%error, "The message is redelivered when its visibility timeout ends.");
        }
        message.in_flight.retried(cause);
    }

    async fn release(&self, message: Concluding<'_>, cause: RetryCause) {
        let queue = &*self.queue;
        let deadline = &self.visibility_deadline;
        release_message(
            self.role,
            queue,
            message.delivery,
            (deadline, &self.shutdown),
        )
        .await;
        message.in_flight.retried(cause);
    }

    async fn dead_letter(&self, message: Concluding<'_>, failure: &Failure) {
        let delivery = message.delivery;
        let (reason, detail) = (failure.reason.as_str(), &failure.detail);
        // Another worker may have the message by now and succeed with it.
        if self.context(delivery).ensure_owner().is_err() {
            info!(
                message_id = delivery.message_id,
                reason,
                detail,
                "Not dead-lettered: the worker stopped or lost the message; it will be redelivered."
            );
            return self.release(message, RetryCause::Interrupted).await;
        }
        let parsed = message.message.as_ref().ok();
        let moved = self.conclude_with(|| {
            self.handler
                .dead_letter(&*self.queue, delivery, parsed, failure)
        });
        match moved.await {
            Ok(()) => {
                error!(
                    message_id = delivery.message_id,
                    reason, detail, "Moved a message to the dead-letter queue."
                );
                message.in_flight.dead(failure.reason);
                self.failures.lock().ended(&delivery.message_id);
                self.slot.count(|ledger| ledger.failures += 1);
                if let Some(message) = parsed {
                    self.handler.on_dead_lettered(message, failure).await;
                }
            }
            Err(error) => {
                warn!(
                    message_id = delivery.message_id,
                    reason, detail,
                    %error,
                    "Could not move a message to the dead-letter queue; it is redelivered when its visibility timeout ends."
                );
                message.in_flight.retried(RetryCause::NotDeadLettered);
            }
        }
    }
}

/// Releases a message for another worker, with patience until the deadline or the end of the process.
pub(super) async fn release_message(
    role: Role,
    queue: &dyn Queue,
    delivery: &Delivery,
    (deadline, shutdown): (&Deadline, &CancellationToken),
) {
    let released = with_patience(|| queue.release(&delivery.receipt), deadline, shutdown);
    match released.await {
        Ok(()) | Err(TransportError::Stale) => {}
        Err(error) => {
            warn!(
                %role,
                message_id = delivery.message_id,
                %error,
                "Could not release a message; it is redelivered when its visibility timeout ends."
            );
        }
    }
}

/// Calls again and again for as long as no other worker can have the message: a disk that was full, or a queue that was out of
/// reach for a moment, must not delay the message, or the next one of its group, until the visibility timeout ends.
async fn with_patience<F: Future<Output = TransportResult<()>>>(
    call: impl Fn() -> F,
    deadline: &Deadline,
    shutdown: &CancellationToken,
) -> TransportResult<()> {
    let mut failures = 0;
    loop {
        let answered = call().await;
        if !matches!(answered, Err(TransportError::Unavailable { .. })) {
            return answered;
        }
        failures += 1;
        let again_at = Instant::now() + CALL_BACKOFF.equal_jitter(failures);
        if again_at >= deadline.get() {
            return answered;
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return answered,
            () = tokio::time::sleep_until(again_at) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};

    use async_trait::async_trait;

    use super::*;
    use streampress_crds::slot_health::{NeededService, OutageKind};
    use streampress_transport::in_process_lock::InProcessLock;
    use streampress_transport::{Depth, FileVersion, Outgoing, Receipt, SlotLock};

    const LONG: Duration = Duration::from_secs(60);
    const BODY: &str = r#"{"ID": "1", "file_name": "a.json"}"#;

    /// A queue that records the calls it gets. It extends a visibility timeout, or is out of reach.
    #[derive(Debug)]
    struct RecordingQueue {
        visibility: Duration,
        in_reach: bool,
        extended: Mutex<Vec<Duration>>,
        ends: Mutex<Vec<&'static str>>,
        /// The details of dead letters.
        details: Mutex<Vec<String>>,
        /// So many calls fail, as on a full disk.
        failing_calls: Mutex<u32>,
    }

    impl RecordingQueue {
        fn may_fail(&self) -> TransportResult<()> {
            let mut failing = self.failing_calls.lock();
            if *failing == 0 {
                return Ok(());
            }
            *failing -= 1;
            Err(TransportError::unavailable("calling", "the disk is full"))
        }

        fn new(visibility: Duration, in_reach: bool) -> Arc<Self> {
            Arc::new(Self {
                visibility,
                in_reach,
                extended: Mutex::default(),
                ends: Mutex::default(),
                details: Mutex::default(),
                failing_calls: Mutex::default(),
            })
        }

        fn end(&self, how: &'static str) -> TransportResult<()> {
            self.ends.lock().push(how);
            Ok(())
        }

        fn ends(&self) -> Vec<&'static str> {
            self.ends.lock().clone()
        }
    }

    #[async_trait]
    impl Queue for RecordingQueue {
        fn name(&self) -> &str {
            "recording"
        }
        fn visibility_timeout(&self) -> Duration {
            self.visibility
        }
        async fn send(&self, _messages: Vec<Outgoing>) -> TransportResult<()> {
            Ok(())
        }
        async fn receive(&self, _max: usize, _wait: Duration) -> TransportResult<Vec<Delivery>> {
            Ok(Vec::new())
        }
        async fn extend(
            &self,
            _receipt: &Receipt,
            visibility_timeout: Duration,
        ) -> TransportResult<()> {
            self.extended.lock().push(visibility_timeout);
            self.may_fail()?;
            match self.in_reach {
                true => Ok(()),
                false => Err(TransportError::unavailable("extending", "out of reach")),
            }
        }
        async fn delete(&self, _receipt: &Receipt) -> TransportResult<()> {
            self.may_fail()?;
            self.end("deleted")
        }
        async fn release(&self, _receipt: &Receipt) -> TransportResult<()> {
            self.may_fail()?;
            self.end("released")
        }
        async fn dead_letter(
            &self,
            _delivery: &Delivery,
            failure: &Failure,
        ) -> TransportResult<()> {
            self.may_fail()?;
            self.details.lock().push(failure.detail.clone());
            self.end("dead-lettered")
        }
        async fn depth(&self) -> TransportResult<Depth> {
            Ok(Depth::default())
        }
        fn dead_letters(&self) -> Option<Arc<dyn Queue>> {
            None
        }
    }

    /// Has an effect where it may, or fails permanently, or for now.
    #[derive(Default)]
    struct TestHandler {
        fails: bool,
        panics: bool,
        /// Fails for now.
        fails_for_now: AtomicBool,
        /// Its destination takes no more bytes than this at once, where there is one.
        free_bytes: Mutex<Option<u64>>,
        needed_bytes: u64,
        had_effect: AtomicBool,
        was_told_of_dead_letter: AtomicBool,
    }

    impl TestHandler {
        /// A destination with so much space.
        fn with_space(free_bytes: u64, needed_bytes: u64) -> Arc<Self> {
            Arc::new(Self {
                fails_for_now: true.into(),
                free_bytes: Mutex::new(Some(free_bytes)),
                needed_bytes,
                ..Self::default()
            })
        }

        fn recover(&self) {
            *self.free_bytes.lock() = None;
            self.fails_for_now.store(false, Ordering::SeqCst);
        }
    }

    #[async_trait]
    impl Handler for TestHandler {
        async fn handle(
            &self,
            _message: &Message,
            context: MessageContext<'_>,
        ) -> Result<Handled, HandlerError> {
            assert!(!self.panics, "a file of a kind that was not thought of");
            if self.fails {
                let reason = DeadLetterReason::BadName;
                return Err(HandlerError::permanent(reason, "no attempt can succeed"));
            }
            if self.fails_for_now.load(Ordering::SeqCst) {
                return Err(HandlerError::Transient(anyhow::anyhow!("not now")));
            }
            context.ensure_owner()?;
            self.had_effect.store(true, Ordering::SeqCst);
            Ok(Handled::default())
        }

        fn needed_bytes(&self, _message: &Message) -> u64 {
            self.needed_bytes
        }

        async fn probe(
            &self,
            _failed: Option<&Message>,
            bytes: u64,
        ) -> Result<bool, ServiceOutage> {
            match *self.free_bytes.lock() {
                Some(free) if free < bytes || free == 0 => Err(ServiceOutage {
                    service: NeededService::Destination,
                    kind: OutageKind::Down,
                    cause: "no space left on device".into(),
                }),
                _ => Ok(true),
            }
        }

        async fn on_dead_lettered(&self, _: &Message, _: &Failure) {
            self.was_told_of_dead_letter.store(true, Ordering::SeqCst);
        }
    }

    fn delivery(received_at: Instant, visibility_deadline: Instant) -> Delivery {
        Delivery {
            message_id: "m".into(),
            group: "g".into(),
            dedup_id: "d".into(),
            body: BODY.into(),
            attributes: BTreeMap::new(),
            sent_as: FileVersion::new("files", 1, 1.into()),
            sent_millis: 0,
            receive_count: 1,
            received_at,
            visibility_deadline,
            receipt: Receipt("r".into()),
        }
    }

    async fn task(
        queue: &Arc<RecordingQueue>,
        handler: Arc<dyn Handler>,
        delivery: &Delivery,
    ) -> MessageTask {
        let slot = InProcessLock::new("test", 1).try_acquire().await;
        MessageTask {
            role: Role::Compressor,
            queue: queue.clone(),
            handler,
            max_receive_count: 20,
            slot: Arc::new(slot.expect("asked").expect("free")),
            stop: CancellationToken::new(),
            shutdown: CancellationToken::new(),
            visibility_deadline: Deadline::new(delivery.visibility_deadline),
            meter: Meter::default(),
            threads: ThreadBudget::new(1),
            health: ServiceHealth::new(Role::Compressor, Meter::default()),
            failures: Arc::default(),
        }
    }

    /// From its receive to its end.
    async fn run(queue: &Arc<RecordingQueue>, handler: Arc<dyn Handler>, delivery: Delivery) {
        let task = task(queue, handler, &delivery).await;
        let received = Received {
            message: Message::parse(&delivery.body),
            in_flight: task.meter.received(),
            delivery,
        };
        task.run(received).await;
    }

    #[tokio::test]
    async fn a_message_whose_visibility_timeout_ran_out_has_no_effect_and_is_not_acknowledged() {
        let now = Instant::now();
        for (visibility_deadline, effect, end) in
            [(now, false, "released"), (now + LONG, true, "deleted")]
        {
            let queue = RecordingQueue::new(LONG, true);
            let handler = Arc::new(TestHandler::default());
            run(&queue, handler.clone(), delivery(now, visibility_deadline)).await;
            assert_eq!(handler.had_effect.load(Ordering::SeqCst), effect);
            assert_eq!(queue.ends(), [end]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deletion_that_failed_is_tried_again_for_as_long_as_the_message_is_invisible() {
        for (failing, end) in [(3, vec!["deleted"]), (u32::MAX, vec![])] {
            let now = Instant::now();
            let queue = RecordingQueue::new(LONG, true);
            *queue.failing_calls.lock() = failing;
            run(
                &queue,
                Arc::new(TestHandler::default()),
                delivery(now, now + LONG),
            )
            .await;
            assert_eq!(queue.ends(), end);
            assert!(Instant::now() < now + LONG, "another worker may have it");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_queue_could_not_be_told_at_first_does_not_delay_a_message() {
        for (fails, is_slot_lost, end) in [
            (true, false, Some("dead-lettered")),
            (true, true, Some("released")),
            (false, false, None),
        ] {
            let now = Instant::now();
            let queue = RecordingQueue::new(LONG, true);
            *queue.failing_calls.lock() = 3;
            let handler = TestHandler {
                fails,
                ..TestHandler::default()
            };
            handler.fails_for_now.store(true, Ordering::SeqCst);
            let delivery = delivery(now, now + LONG);
            let task = task(&queue, Arc::new(handler), &delivery).await;
            let received = Received {
                message: Message::parse(&delivery.body),
                in_flight: task.meter.received(),
                delivery,
            };
            if is_slot_lost {
                // The message is not.
                task.slot.lost().cancel();
                task.stop.cancel();
            }
            task.run(received).await;
            match end {
                Some(end) => assert_eq!(queue.ends(), [end]),
                None => assert_eq!(
                    queue.extended.lock().len(),
                    4,
                    "in flight for the back-off alone"
                ),
            }
            assert!(Instant::now() < now + LONG, "another worker may have it");
        }
    }

    #[tokio::test]
    async fn a_message_that_failed_after_its_visibility_timeout_is_no_dead_letter() {
        let now = Instant::now();
        for (visibility_deadline, dead, end) in [
            (now, false, "released"),
            (now + LONG, true, "dead-lettered"),
        ] {
            let queue = RecordingQueue::new(LONG, true);
            let handler = Arc::new(TestHandler {
                fails: true,
                ..TestHandler::default()
            });
            run(&queue, handler.clone(), delivery(now, visibility_deadline)).await;
            assert_eq!(queue.ends(), [end]);
            assert_eq!(handler.was_told_of_dead_letter.load(Ordering::SeqCst), dead);
        }
    }

    #[tokio::test]
    async fn a_message_that_cannot_be_parsed_is_a_dead_letter_and_no_handler_sees_it() {
        let now = Instant::now();
        let handler = Arc::new(TestHandler::default());
        // Of each version that is read, one without the parts of any kind.
        let versions = (1..=NEWEST_VERSION).map(|version| format!(r#"{{"version": {version}}}"#));
        for body in versions.chain(["{}".into(), r#"{"version": 0}"#.into()]) {
            let queue = RecordingQueue::new(LONG, true);
            let unreadable = Delivery {
                body: body.clone(),
                ..delivery(now, now + LONG)
            };
            run(&queue, handler.clone(), unreadable).await;
            assert_eq!(queue.ends(), ["dead-lettered"], "{body}");
        }
        assert!(!handler.had_effect.load(Ordering::SeqCst));
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_of_the_work_is_a_failed_attempt() {
        let queue = RecordingQueue::new(LONG, true);
        let handler = Arc::new(TestHandler {
            panics: true,
            ..TestHandler::default()
        });
        let now = Instant::now();
        run(&queue, handler, delivery(now, now + LONG)).await;
        assert!(queue.ends().is_empty());
        let extended = queue.extended.lock().len();
        assert_eq!(extended, 1, "it is invisible for a while");
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_is_kept_in_flight_for_less_than_twelve_hours_from_its_receive() {
        // It waited behind another message of its group for half an hour.
        let received_at = Instant::now();
        tokio::time::advance(Duration::from_secs(1800)).await;
        let delivery = delivery(received_at, Instant::now() + LONG);
        let queue = RecordingQueue::new(LONG, true);
        let task = task(&queue, Arc::new(TestHandler::default()), &delivery).await;
        task.keep_in_flight(&delivery).await;
        let limit = received_at + MAX_IN_FLIGHT;
        assert_eq!(Instant::now(), limit);
        assert!(task.visibility_deadline.get() <= limit);
    }

    #[tokio::test(start_paused = true)]
    async fn an_extended_visibility_timeout_counts_and_one_that_ran_out_stops_the_work() {
        let now = Instant::now();
        let delivery = delivery(now, now + LONG);
        let handler: Arc<dyn Handler> = Arc::new(TestHandler::default());
        let extends = task(&RecordingQueue::new(LONG, true), handler.clone(), &delivery).await;
        let kept = tokio::time::timeout(10 * LONG, extends.keep_in_flight(&delivery)).await;
        assert!(kept.is_err(), "a message that is extended is lost");
        assert!(!extends.visibility_deadline.is_expired());

        let now = Instant::now();
        let out_of_reach = RecordingQueue::new(LONG, false);
        let delivery = Delivery {
            received_at: now,
            visibility_deadline: now + LONG,
            ..delivery
        };
        let lost = task(&out_of_reach, handler, &delivery).await;
        lost.keep_in_flight(&delivery).await;
        assert_eq!(Instant::now(), now + LONG, "it ends with the timeout");
        assert_eq!(out_of_reach.extended.lock().len(), 3);
    }

    /// Receives the delivery `attempts` times, a minute after another, with what the worker remembers of its failures.
    async fn run_again_and_again(
        queue: &Arc<RecordingQueue>,
        handler: &Arc<TestHandler>,
        failures: &Arc<Mutex<Failures>>,
        attempts: u32,
    ) {
        for _ in 0..attempts {
            let now = Instant::now();
            let delivery = Delivery {
                // Releases and kills count as receives, too.
                receive_count: 900,
                ..delivery(now, now + LONG)
            };
            let mut task = task(queue, handler.clone(), &delivery).await;
            task.failures = failures.clone();
            let received = Received {
                message: Message::parse(&delivery.body),
                in_flight: task.meter.received(),
                delivery,
            };
            task.run(received).await;
            tokio::time::advance(LONG).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_alone_fails_is_given_up_after_twenty_failures_of_its_own() {
        let queue = RecordingQueue::new(LONG, true);
        let handler = TestHandler::with_space(u64::MAX, 0);
        let failures = Arc::default();
        run_again_and_again(&queue, &handler, &failures, 19).await;
        assert!(queue.ends().is_empty(), "it waits");
        run_again_and_again(&queue, &handler, &failures, 1).await;
        assert_eq!(queue.ends(), ["dead-lettered"]);
        let detail = queue.details.lock().concat();
        // With `ordering: Strict` no other file was worked on.
        let words = "gave up after 20 attempts of this worker in which the services that it needs could be used: ";
        assert!(detail.starts_with(words), "{detail}");
        assert!(!failures.lock().was_unproven("m"), "forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_too_large_for_the_disk_is_given_up_only_if_others_were_restored_meanwhile() {
        let queue = RecordingQueue::new(LONG, true);
        let handler = TestHandler::with_space(1 << 20, 1 << 30);
        let failures: Arc<Mutex<Failures>> = Arc::default();
        run_again_and_again(&queue, &handler, &failures, 100).await;
        assert!(queue.ends().is_empty(), "nothing says that others can");
        for _ in 0..20 {
            failures.lock().succeeded("another");
            run_again_and_again(&queue, &handler, &failures, 1).await;
        }
        assert_eq!(queue.ends(), ["dead-lettered"]);
    }

    #[tokio::test(start_paused = true)]
    async fn while_a_service_is_down_a_message_is_held_and_then_done_without_another_receive() {
        let queue = RecordingQueue::new(LONG, true);
        let handler = TestHandler::with_space(0, 1000);
        let now = Instant::now();
        let delivery = delivery(now, now + LONG);
        let task = task(&queue, handler.clone(), &delivery).await;
        let health = task.health.clone();
        let slot = task.slot.clone();
        let received = Received {
            message: Message::parse(&delivery.body),
            in_flight: task.meter.received(),
            delivery,
        };
        let recovering = async {
            health.until(true).await;
            tokio::time::sleep(LONGEST_HOLD / 2).await;
            let outage = slot.health().outage.expect("the slot says so");
            assert_eq!(outage.service, NeededService::Destination);
            assert_eq!(outage.cause, "no space left on device");
            assert!(queue.ends().is_empty(), "it is held");
            assert!(queue.extended.lock().len() > 2, "and kept in flight");
            handler.recover();
        };
        tokio::select! {
            biased;
            ((), ()) = async { tokio::join!(task.run(received), recovering) } => {}
            () = health.probe(&*handler) => {}
        }
        assert_eq!(queue.ends(), ["deleted"]);
        assert!(!health.is_down());
        assert_eq!(slot.health().outage, None);
        assert!(slot.health().worked_at > 0);
    }

    #[tokio::test(start_paused = true)]
    async fn while_a_service_stays_down_a_message_is_released_in_the_end() {
        let queue = RecordingQueue::new(LONG, true);
        let handler = TestHandler::with_space(0, 1000);
        let now = Instant::now();
        run(&queue, handler, delivery(now, now + LONG)).await;
        assert_eq!(queue.ends(), ["released"]);
        assert_eq!(Instant::now(), now + LONGEST_HOLD);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_of_a_newer_version_is_no_dead_letter() {
        let queue = RecordingQueue::new(LONG, true);
        let now = Instant::now();
        let newer = Delivery {
            body: format!(r#"{{"version": {}}}"#, NEWEST_VERSION + 1),
            receive_count: 500,
            ..delivery(now, now + LONG)
        };
        run(&queue, Arc::new(TestHandler::default()), newer).await;
        assert!(queue.ends().is_empty());
        assert_eq!(
            queue.extended.lock().len(),
            1,
            "it is invisible for a while"
        );
    }
}
