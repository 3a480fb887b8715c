//! One message from its receive to its end: kept hidden, handled within its trace, and then deleted, dead-lettered or
//! released.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, debug, error, field, info, info_span, warn};

use super::consumer::Received;
use super::handler::{Handled, Handler, HandlerError, MessageContext, ThreadBudget};
use crate::message::trace_context::TraceContext;
use crate::message::{DeadLetterReason, Message, MessageError, Subject};
use crate::telemetry::metrics::{InFlight, Meter, RetryCause};
use crate::telemetry::trace;
use streampress_crds::Role;
use streampress_transport::{
    ATTR_TRACEPARENT, Backoff, Deadline, Delivery, Queue, SlotGuard, TransportError,
};

/// SQS hides a message for at most 12 hours, counted from its receive; the work stops half an hour before.
const MAX_HIDDEN: Duration = Duration::from_secs(11 * 3600 + 1800);
/// Of transient errors, with jitter, so that messages that failed together are not retried together.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

/// The work on one message.
pub(super) struct MessageTask {
    pub(super) role: Role,
    pub(super) queue: Arc<dyn Queue>,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) max_receive_count: u32,
    pub(super) slot: Arc<SlotGuard>,
    pub(super) stop: CancellationToken,
    pub(super) visibility_deadline: Deadline,
    pub(super) meter: Meter,
    pub(super) threads: ThreadBudget,
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
            let outcome = match &message {
                Ok(message) => self.handle_while_hidden(&delivery, message).await,
                Err(error) => Err(error.into()),
            };
            let concluding = Concluding {
                delivery: &delivery,
                message: &message,
                in_flight,
            };
            self.conclude(concluding, outcome).await;
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
            trace_id = field::Empty,
        );
        let context = trace::enter(&span, carried);
        (span, context)
    }

    async fn handle_while_hidden(
        &self,
        delivery: &Delivery,
        message: &Message,
    ) -> Result<Handled, HandlerError> {
        let keep_hidden = self.keep_hidden(delivery);
        let handling = self.handler.handle(message, self.context(delivery));
        tokio::pin!(keep_hidden, handling);
        tokio::select! {
            outcome = &mut handling => outcome,
            () = &mut keep_hidden => {
                // Another worker may have the message now: no effect may follow. The handler stops by itself.
                self.stop.cancel();
                handling.await
            }
        }
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
    async fn keep_hidden(&self, delivery: &Delivery) {
        let visibility = self.queue.visibility_timeout();
        let limit = delivery.received_at + MAX_HIDDEN;
        loop {
            tokio::time::sleep_until(limit.min(Instant::now() + visibility / 3)).await;
            // The queue counts from some moment after this one, however long its answer takes.
            let asked_at = Instant::now();
            let hidden_for = visibility.min(limit.saturating_duration_since(asked_at));
            if hidden_for.is_zero() {
                warn!(
                    message_id = delivery.message_id,
                    "A message has been hidden for as long as SQS allows; stopping its work, which starts anew."
                );
                return;
            }
            match self.queue.extend(&delivery.receipt, hidden_for).await {
                Ok(()) => {
                    self.visibility_deadline.set(asked_at + hidden_for);
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

    async fn conclude(&self, message: Concluding<'_>, outcome: Result<Handled, HandlerError>) {
        let receive_count = message.delivery.receive_count;
        match outcome {
            Ok(handled) => self.acknowledge(message, handled).await,
            Err(HandlerError::Permanent { reason, detail }) => {
                self.dead_letter(message, reason, &detail).await;
            }
            Err(HandlerError::Transient(cause)) if receive_count >= self.max_receive_count => {
                let detail = format!("gave up after {receive_count} attempts: {cause:#}");
                self.dead_letter(message, DeadLetterReason::GaveUp, &detail)
                    .await;
            }
            Err(HandlerError::Transient(cause)) => self.retry_later(message, &cause).await,
            Err(HandlerError::Interrupted) => self.release(message).await,
        }
    }

    async fn acknowledge(&self, message: Concluding<'_>, handled: Handled) {
        match self.queue.delete(&message.delivery.receipt).await {
            Ok(()) => {
                message.in_flight.acknowledged();
                self.handler.on_acknowledged(handled).await;
            }
            // Harmless: the next worker finds the effect done and acknowledges.
            Err(error) => {
                info!(
                    message_id = message.delivery.message_id,
                    %error,
                    "Done, but not acknowledged; it will be redelivered and skipped."
                );
                message.in_flight.retried(RetryCause::NotDeleted);
            }
        }
    }

    async fn retry_later(&self, message: Concluding<'_>, cause: &anyhow::Error) {
        let delivery = message.delivery;
        let back_off = BACKOFF.equal_jitter(delivery.receive_count);
        warn!(
            message_id = delivery.message_id,
            error = format!("{cause:#}"),
            back_off_secs = back_off.as_secs_f64(),
            "Work failed; retrying later."
        );
        if let Err(error) = self.queue.extend(&delivery.receipt, back_off).await {
            debug!(%error, "The message is redelivered when its visibility timeout ends.");
        }
        message.in_flight.retried(RetryCause::Fault);
    }

    async fn release(&self, message: Concluding<'_>) {
        release_message(self.role, &*self.queue, message.delivery).await;
        message.in_flight.retried(RetryCause::Interrupted);
    }

    async fn dead_letter(&self, message: Concluding<'_>, reason: DeadLetterReason, detail: &str) {
        let delivery = message.delivery;
        // Another worker may have the message by now and succeed with it.
        if self.context(delivery).ensure_owner().is_err() {
            info!(
                message_id = delivery.message_id,
                reason = reason.as_str(),
                detail,
                "Not dead-lettered: the worker stopped or lost the message; it will be redelivered."
            );
            return self.release(message).await;
        }
        match self.queue.dead_letter(delivery, reason, detail).await {
            Ok(()) => {
                error!(
                    message_id = delivery.message_id,
                    reason = reason.as_str(),
                    detail,
                    "Moved a message to the dead-letter queue."
                );
                message.in_flight.dead(reason);
                self.slot.count(|ledger| ledger.failures += 1);
                if let Ok(message) = message.message {
                    self.handler.on_dead_lettered(message, reason, detail).await;
                }
            }
            Err(error) => {
                warn!(
                    message_id = delivery.message_id,
                    reason = reason.as_str(),
                    detail,
                    %error,
                    "Could not move a message to the dead-letter queue; it is redelivered when its visibility timeout ends."
                );
                message.in_flight.retried(RetryCause::NotDeadLettered);
            }
        }
    }
}

pub(super) async fn release_message(role: Role, queue: &dyn Queue, delivery: &Delivery) {
    match queue.release(&delivery.receipt).await {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};

    use async_trait::async_trait;

    use parking_lot::Mutex;

    use super::*;
    use streampress_transport::in_process_lock::InProcessLock;
    use streampress_transport::{Depth, FileVersion, Outgoing, Receipt, SlotLock, TransportResult};

    const LONG: Duration = Duration::from_secs(60);
    const BODY: &str = r#"{"ID": "1", "file_name": "a.json"}"#;

    /// A queue that records the calls it gets. It extends a visibility timeout, or is out of reach.
    #[derive(Debug)]
    struct RecordingQueue {
        visibility: Duration,
        in_reach: bool,
        extended: Mutex<Vec<Duration>>,
        ends: Mutex<Vec<&'static str>>,
    }

    impl RecordingQueue {
        fn new(visibility: Duration, in_reach: bool) -> Arc<Self> {
            Arc::new(Self {
                visibility,
                in_reach,
                extended: Mutex::default(),
                ends: Mutex::default(),
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
        async fn extend(&self, _receipt: &Receipt, hidden_for: Duration) -> TransportResult<()> {
            self.extended.lock().push(hidden_for);
            match self.in_reach {
                true => Ok(()),
                false => Err(TransportError::unavailable("extending", "out of reach")),
            }
        }
        async fn delete(&self, _receipt: &Receipt) -> TransportResult<()> {
            self.end("deleted")
        }
        async fn release(&self, _receipt: &Receipt) -> TransportResult<()> {
            self.end("released")
        }
        async fn dead_letter(
            &self,
            _delivery: &Delivery,
            _reason: DeadLetterReason,
            _detail: &str,
        ) -> TransportResult<()> {
            self.end("dead-lettered")
        }
        async fn depth(&self) -> TransportResult<Depth> {
            Ok(Depth::default())
        }
        fn dead_letters(&self) -> Option<Arc<dyn Queue>> {
            None
        }
    }

    /// Has an effect where it may, or fails permanently.
    #[derive(Default)]
    struct TestHandler {
        fails: bool,
        had_effect: AtomicBool,
        was_told_of_dead_letter: AtomicBool,
    }

    #[async_trait]
    impl Handler for TestHandler {
        async fn handle(
            &self,
            _message: &Message,
            context: MessageContext<'_>,
        ) -> Result<Handled, HandlerError> {
            if self.fails {
                let reason = DeadLetterReason::BadName;
                return Err(HandlerError::permanent(reason, "no attempt can succeed"));
            }
            context.ensure_owner()?;
            self.had_effect.store(true, Ordering::SeqCst);
            Ok(Handled::default())
        }

        async fn on_dead_lettered(&self, _: &Message, _: DeadLetterReason, _: &str) {
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
            visibility_deadline: Deadline::new(delivery.visibility_deadline),
            meter: Meter::default(),
            threads: ThreadBudget::new(1),
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
        let queue = RecordingQueue::new(LONG, true);
        let handler = Arc::new(TestHandler::default());
        let unreadable = Delivery {
            body: "{}".into(),
            ..delivery(now, now + LONG)
        };
        run(&queue, handler.clone(), unreadable).await;
        assert_eq!(queue.ends(), ["dead-lettered"]);
        assert!(!handler.had_effect.load(Ordering::SeqCst));
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_is_kept_hidden_for_less_than_twelve_hours_from_its_receive() {
        // It waited behind another message of its group for half an hour.
        let received_at = Instant::now();
        tokio::time::advance(Duration::from_secs(1800)).await;
        let delivery = delivery(received_at, Instant::now() + LONG);
        let queue = RecordingQueue::new(LONG, true);
        let task = task(&queue, Arc::new(TestHandler::default()), &delivery).await;
        task.keep_hidden(&delivery).await;
        let limit = received_at + MAX_HIDDEN;
        assert_eq!(Instant::now(), limit);
        assert!(task.visibility_deadline.get() <= limit);
    }

    #[tokio::test(start_paused = true)]
    async fn an_extended_visibility_timeout_counts_and_one_that_ran_out_stops_the_work() {
        let now = Instant::now();
        let delivery = delivery(now, now + LONG);
        let handler: Arc<dyn Handler> = Arc::new(TestHandler::default());
        let extends = task(&RecordingQueue::new(LONG, true), handler.clone(), &delivery).await;
        let kept = tokio::time::timeout(10 * LONG, extends.keep_hidden(&delivery)).await;
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
        lost.keep_hidden(&delivery).await;
        assert_eq!(Instant::now(), now + LONG, "it ends with the timeout");
        assert_eq!(out_of_reach.extended.lock().len(), 3);
    }
}
