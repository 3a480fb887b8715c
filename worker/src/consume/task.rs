//! One message in hand, from its receive to its end: kept hidden, handled within its trace, and then deleted, set aside or
//! given back.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, debug, error, field, info, info_span, warn};

use super::{Fault, Handler, MessageContext, Threads};
use crate::telemetry::metrics::{InHand, Meter};
use crate::telemetry::trace::{self, TraceContext};
use streampress_transport::{Backoff, Deadline, Delivery, Queue, SlotGuard, TransportError};

/// SQS hides a message for at most 12 hours, counted from its receive; we stop half an hour before.
const LONGEST_HIDING: Duration = Duration::from_secs(11 * 3600 + 1800);
/// Until a message that failed for a passing reason is received again, by how often it was received.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

/// What the work on one message needs.
pub(super) struct Work {
    pub(super) role: &'static str,
    pub(super) queue: Arc<dyn Queue>,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) max_receive_count: u32,
    pub(super) held: Arc<SlotGuard>,
    pub(super) stop: CancellationToken,
    pub(super) visibility_deadline: Deadline,
    pub(super) meter: Meter,
    pub(super) threads: Threads,
}

impl Work {
    pub(super) async fn run(self, delivery: Delivery, in_hand: InHand) {
        let (span, context) = self.span(&delivery);
        let work = async {
            let outcome = self.keep_and_handle(&delivery).await;
            self.conclude(&delivery, in_hand, outcome).await;
        };
        trace::scope(context, work).instrument(span).await;
    }

    /// Every line logged on the way says which file it is about; what is sent on the way goes on with its trace.
    fn span(&self, delivery: &Delivery) -> (Span, TraceContext) {
        let subject = self.handler.subject(delivery);
        let carried = delivery
            .attributes
            .get(trace::ATTRIBUTE)
            .or(subject.traceparent.as_ref());
        let carried = carried.and_then(|carried| TraceContext::parse(carried));
        let span = info_span!(
            "file",
            role = self.role,
            file_id = subject.file_id,
            file_name = subject.file_name,
            attempt = delivery.receive_count,
            trace_id = field::Empty,
        );
        let context = trace::place(&span, carried);
        (span, context)
    }

    async fn keep_and_handle(&self, delivery: &Delivery) -> Result<(), Fault> {
        let keep_hidden = self.keep_hidden(delivery);
        let handled = self.handler.handle(self.job(delivery));
        tokio::pin!(keep_hidden, handled);
        tokio::select! {
            outcome = &mut handled => outcome,
            () = &mut keep_hidden => {
                // The message belongs to somebody else now: no effect may follow, so the work is seen to its end.
                self.stop.cancel();
                handled.await
            }
        }
    }

    fn job<'a>(&'a self, delivery: &'a Delivery) -> MessageContext<'a> {
        MessageContext {
            delivery,
            visibility_deadline: &self.visibility_deadline,
            held: &self.held,
            threads: &self.threads,
            stop: &self.stop,
            meter: &self.meter,
        }
    }

    /// Returns only when the message is no longer ours.
    async fn keep_hidden(&self, delivery: &Delivery) {
        let visibility = self.queue.visibility_timeout();
        let limit = delivery.received_at + LONGEST_HIDING;
        loop {
            tokio::time::sleep_until(limit.min(Instant::now() + visibility / 3)).await;
            // Hidden since some moment after this one, however long the answer takes.
            let asked_at = Instant::now();
            let visibility_timeout = visibility.min(limit.saturating_duration_since(asked_at));
            if visibility_timeout.is_zero() {
                warn!(
                    message_id = delivery.message_id,
                    "A message has been hidden for as long as SQS allows; stopping its work, which begins anew."
                );
                return;
            }
            match self
                .queue
                .extend(&delivery.receipt, visibility_timeout)
                .await
            {
                Ok(()) => {
                    self.visibility_deadline.set(asked_at + visibility_timeout);
                }
                Err(TransportError::Stale) => {
                    warn!(
                        message_id = delivery.message_id,
                        "Lost a message to another worker; stopping its work."
                    );
                    return;
                }
                Err(fault) if self.visibility_deadline.is_expired() => {
                    warn!(
                        message_id = delivery.message_id,
                        error = %fault,
                        "Could not prolong a message's hiding before it ran out; stopping its work."
                    );
                    return;
                }
                Err(fault) => {
                    warn!(error = %fault, "Could not prolong a message's hiding; trying again.")
                }
            }
        }
    }

    async fn conclude(&self, delivery: &Delivery, in_hand: InHand, outcome: Result<(), Fault>) {
        match outcome {
            Ok(()) => self.acknowledge(delivery, in_hand).await,
            Err(Fault::Permanent { reason, detail }) => {
                self.dead_letter(delivery, in_hand, reason, &detail).await
            }
            Err(Fault::Transient(cause)) if delivery.receive_count >= self.max_receive_count => {
                let detail = format!(
                    "gave up after {} attempts: {cause:#}",
                    delivery.receive_count
                );
                self.dead_letter(delivery, in_hand, "GaveUp", &detail).await;
            }
            Err(Fault::Transient(cause)) => {
                let back_off = BACKOFF.equal_jitter(delivery.receive_count);
                warn!(message_id = delivery.message_id, error = %format!("{cause:#}"), back_off_secs = back_off.as_secs_f64(), "Did not work; trying again later.");
                if let Err(fault) = self.queue.extend(&delivery.receipt, back_off).await {
                    debug!(error = %fault, "The message comes back when its hiding time ends.");
                }
                in_hand.retried("fault");
            }
            Err(Fault::Interrupted) => {
                release_message(self.role, &*self.queue, delivery).await;
                in_hand.retried("interrupted");
            }
        }
    }

    async fn acknowledge(&self, delivery: &Delivery, in_hand: InHand) {
        match self.queue.delete(&delivery.receipt).await {
            Ok(()) => {
                in_hand.acknowledged();
                self.handler.acknowledged(delivery).await;
            }
            // Harmless: whoever has it now finds the effect done and acknowledges.
            Err(fault) => {
                info!(message_id = delivery.message_id, error = %fault, "Done, but not acknowledged; it will be seen again and skipped.");
                in_hand.retried("not_deleted");
            }
        }
    }

    async fn dead_letter(
        &self,
        delivery: &Delivery,
        in_hand: InHand,
        reason: &'static str,
        detail: &str,
    ) {
        // Somebody else may have the message by now and succeed with it.
        if self.job(delivery).ensure_owner().is_err() {
            info!(
                message_id = delivery.message_id,
                reason,
                detail,
                "Not set aside: it was stopped meanwhile or is another's by now; it comes back."
            );
            release_message(self.role, &*self.queue, delivery).await;
            in_hand.retried("interrupted");
            return;
        }
        match self.queue.dead_letter(delivery, reason, detail).await {
            Ok(()) => {
                error!(
                    message_id = delivery.message_id,
                    reason, detail, "Set aside as a dead letter."
                );
                in_hand.dead(reason);
                self.held.count(|ledger| ledger.failures += 1);
                self.handler
                    .on_dead_lettered(delivery, reason, detail)
                    .await;
            }
            Err(fault) => {
                warn!(reason, detail, error = %fault, "Could not set a message aside; it comes back when its hiding time ends.");
                in_hand.retried("not_set_aside");
            }
        }
    }
}

pub(super) async fn release_message(role: &str, queue: &dyn Queue, delivery: &Delivery) {
    match queue.release(&delivery.receipt).await {
        Ok(()) | Err(TransportError::Stale) => {}
        Err(fault) => {
            warn!(role, error = %fault, "Could not give a message back; it comes back by itself when its hiding time ends.")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::consume::Subject;
    use streampress_transport::contract_tests::PATIENCE;
    use streampress_transport::in_process_lock::InProcessLock;
    use streampress_transport::{Depth, Outgoing, Receipt, SlotLock, TransportResult};

    const LONG: Duration = Duration::from_secs(60);

    /// A queue that notes what it is asked; it prolongs a hiding or is out of reach.
    #[derive(Debug)]
    struct Notes {
        visibility: Duration,
        in_reach: bool,
        extended: Mutex<Vec<Duration>>,
        ends: Mutex<Vec<&'static str>>,
    }

    impl Notes {
        fn new(visibility: Duration, in_reach: bool) -> Arc<Self> {
            Arc::new(Self {
                visibility,
                in_reach,
                extended: Mutex::default(),
                ends: Mutex::default(),
            })
        }

        fn end(&self, how: &'static str) -> TransportResult<()> {
            self.ends.lock().expect("no panic").push(how);
            Ok(())
        }

        fn ends(&self) -> Vec<&'static str> {
            self.ends.lock().expect("no panic").clone()
        }
    }

    #[async_trait]
    impl Queue for Notes {
        fn name(&self) -> &str {
            "notes"
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
            self.extended
                .lock()
                .expect("no panic")
                .push(visibility_timeout);
            match self.in_reach {
                true => Ok(()),
                false => Err(TransportError::unavailable("extending", "out of reach")),
            }
        }
        async fn delete(&self, _receipt: &Receipt) -> TransportResult<()> {
            self.end("deleted")
        }
        async fn release(&self, _receipt: &Receipt) -> TransportResult<()> {
            self.end("given back")
        }
        async fn dead_letter(
            &self,
            _delivery: &Delivery,
            _reason: &str,
            _detail: &str,
        ) -> TransportResult<()> {
            self.end("buried")
        }
        async fn depth(&self) -> TransportResult<Depth> {
            Ok(Depth::default())
        }
        fn dead_letters(&self) -> Option<Arc<dyn Queue>> {
            None
        }
    }

    /// Acts where it may, or finds that it can never work.
    #[derive(Default)]
    struct Acts {
        can_never_work: bool,
        acted: AtomicBool,
    }

    #[async_trait]
    impl Handler for Acts {
        async fn handle(&self, job: MessageContext<'_>) -> Result<(), Fault> {
            if self.can_never_work {
                return Err(Fault::permanent("Bad", "it can never work"));
            }
            job.ensure_owner()?;
            self.acted.store(true, Ordering::SeqCst);
            Ok(())
        }
        fn subject(&self, _delivery: &Delivery) -> Subject {
            Subject::default()
        }
        fn is_small(&self, _delivery: &Delivery) -> bool {
            false
        }
        async fn acknowledged(&self, _delivery: &Delivery) {}
        async fn on_dead_lettered(&self, _delivery: &Delivery, _reason: &str, _detail: &str) {}
    }

    fn delivery(received_at: Instant, visibility_deadline: Instant) -> Delivery {
        Delivery {
            message_id: "m".into(),
            group: "g".into(),
            dedup_id: "d".into(),
            body: "b".into(),
            attributes: BTreeMap::new(),
            receive_count: 1,
            received_at,
            visibility_deadline,
            receipt: Receipt("r".into()),
        }
    }

    async fn work(queue: Arc<Notes>, handler: Arc<dyn Handler>, delivery: &Delivery) -> Work {
        let held = InProcessLock::new("test", 1).try_acquire().await;
        Work {
            role: "test",
            queue,
            handler,
            max_receive_count: 20,
            held: Arc::new(held.expect("asked").expect("free")),
            stop: CancellationToken::new(),
            visibility_deadline: Deadline::new(delivery.visibility_deadline),
            meter: Meter::default(),
            threads: Threads::new(1),
        }
    }

    /// From its receive to its end.
    async fn run(queue: &Arc<Notes>, handler: Arc<dyn Handler>, delivery: Delivery) {
        let work = work(queue.clone(), handler, &delivery).await;
        let in_hand = work.meter.received();
        work.run(delivery, in_hand).await;
    }

    #[tokio::test]
    async fn a_message_whose_hiding_ran_out_has_no_effect_and_is_not_acknowledged() {
        let now = Instant::now();
        for (visibility_deadline, acts, end) in
            [(now, false, "given back"), (now + LONG, true, "deleted")]
        {
            let (queue, handler) = (Notes::new(LONG, true), Arc::new(Acts::default()));
            run(&queue, handler.clone(), delivery(now, visibility_deadline)).await;
            assert_eq!(handler.acted.load(Ordering::SeqCst), acts);
            assert_eq!(queue.ends(), [end]);
        }
    }

    #[tokio::test]
    async fn a_message_that_failed_when_it_was_no_longer_ours_is_no_dead_letter() {
        let now = Instant::now();
        for (visibility_deadline, end) in [(now, "given back"), (now + LONG, "buried")] {
            let queue = Notes::new(LONG, true);
            let fails = Acts {
                can_never_work: true,
                ..Acts::default()
            };
            run(&queue, Arc::new(fails), delivery(now, visibility_deadline)).await;
            assert_eq!(queue.ends(), [end]);
        }
    }

    #[tokio::test]
    async fn a_message_is_kept_hidden_for_less_than_twelve_hours_from_its_receive() {
        let now = Instant::now();
        // It waited behind another of its group for most of the time.
        let limit = now + Duration::from_secs(2);
        let delivery = delivery(limit - LONGEST_HIDING, now);
        let queue = Notes::new(Duration::from_secs(3), true);
        let work = work(queue.clone(), Arc::new(Acts::default()), &delivery).await;
        let ended = tokio::time::timeout(PATIENCE, work.keep_hidden(&delivery)).await;
        assert!(ended.is_ok(), "it counts from the start of the work");
        assert!(work.visibility_deadline.get() <= limit);
    }

    #[tokio::test]
    async fn a_prolonged_hiding_counts_and_one_that_ran_out_unprolonged_stops_the_work() {
        let now = Instant::now();
        let delivery = delivery(now, now);
        let handler: Arc<dyn Handler> = Arc::new(Acts::default());
        let visibility = Duration::from_secs(3);
        let prolonged = work(Notes::new(visibility, true), handler.clone(), &delivery).await;
        tokio::select! {
            () = prolonged.keep_hidden(&delivery) => panic!("it is still ours"),
            () = async {
                while prolonged.visibility_deadline.is_expired() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            } => {}
        }
        assert!(prolonged.visibility_deadline.get() >= now + visibility);
        let out_of_reach = Notes::new(Duration::from_millis(30), false);
        let lost = work(out_of_reach.clone(), handler, &delivery).await;
        let ended = tokio::time::timeout(PATIENCE, lost.keep_hidden(&delivery)).await;
        assert!(ended.is_ok(), "it goes on with a message that is lost");
        assert_eq!(out_of_reach.extended.lock().expect("no panic").len(), 1);
    }
}
