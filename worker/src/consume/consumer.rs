//! Receives messages and works on them while it holds a slot.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::batching::{Batching, is_backlog};
use super::handler::{Handler, ThreadBudget};
use super::outage::{Failures, ServiceHealth};
use super::task::{MessageTask, Received, release_message};
use crate::message::Message;
use crate::telemetry::metrics::{Meter, RetryCause};
use streampress_crds::Role;
use streampress_transport::{
    Deadline, Delivery, Queue, SlotGuard, SlotLock, TransportError, TransportResult, error_chain,
};

/// The longest wait in one receive. SQS would wait for 20 s, but a worker that is stopped waits for its open poll.
const LONG_POLL: Duration = Duration::from_secs(8);
/// The longest wait, at the end of the process, for messages of an open long poll. A pod has 30 s in all.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(9);
/// Between two ticks while no message can start.
const SHORTEST_TICK: Duration = Duration::from_millis(100);
/// After a transport error, before the next call.
const ERROR_PAUSE: Duration = Duration::from_secs(2);

/// A role's worker.
pub struct Consumer {
    /// For logs.
    pub role: Role,
    /// Where its messages come from.
    pub queue: Arc<dyn Queue>,
    /// The role's slots.
    pub lock: Arc<dyn SlotLock>,
    /// What it does with a message.
    pub handler: Arc<dyn Handler>,
    /// Threads for packing and unpacking: so many files are in progress at once, of small files more.
    pub threads: usize,
    /// One file after another, however small.
    pub strict: bool,
    /// Between two attempts to take a slot that another worker holds.
    pub interval: Duration,
    /// How long it keeps a slot after the last message, so that slow arrivals do not move the slot between workers.
    pub linger: Duration,
    /// After so many failures of its own, over at least ten minutes in which the services that all messages need were well,
    /// a message becomes a dead letter. Receives do not count.
    pub max_receive_count: u32,
    /// What it counts.
    pub meter: Meter,
    /// Cancelled when the process shall end.
    pub shutdown: CancellationToken,
}

/// What a consumer remembers from slot to slot.
#[derive(Clone)]
struct ConsumerMemory {
    health: ServiceHealth,
    failures: Arc<Mutex<Failures>>,
}

/// Calls when it is dropped.
struct CallOnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for CallOnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

/// The messages in progress, and what they share.
struct InProgress {
    memory: ConsumerMemory,
    slot: Arc<SlotGuard>,
    stop: CancellationToken,
    threads: ThreadBudget,
    tasks: JoinSet<()>,
    /// Whether the messages received last were all small.
    all_small: bool,
    /// Whether the last receive shows that more messages wait.
    is_backlog: bool,
}

impl Consumer {
    /// Works until shut down. Transport errors are logged and retried: only shutdown ends it.
    pub async fn run(&self) {
        let memory = ConsumerMemory {
            health: ServiceHealth::new(self.role, self.meter.clone()),
            failures: Arc::default(),
        };
        let ticking = async {
            while !self.shutdown.is_cancelled() {
                self.meter.ticked();
                if let Err(error) = self.tick(&memory).await {
                    self.warn_and_pause(&error, "Cannot reach the transport; retrying.")
                        .await;
                }
            }
        };
        tokio::select! {
            biased;
            () = ticking => {}
            () = memory.health.probe(&*self.handler) => {}
            never = self.handler.background() => match never {},
        }
        self.handler.end().await;
        self.meter.rests();
        if !self.queue.drain(DRAIN_TIMEOUT).await {
            warn!(
                role = %self.role,
                "A message received at shutdown stays in flight until its visibility timeout ends."
            );
        }
    }

    /// One tick: waits for work, takes a slot, works until there is none, releases the slot.
    async fn tick(&self, memory: &ConsumerMemory) -> TransportResult<()> {
        if memory.health.is_down() {
            tokio::select! {
                biased;
                () = memory.health.until(false) => {}
                () = self.pause(self.interval) => {}
            }
            return Ok(());
        }
        if self.lock.all_held_by_others().await? {
            self.pause(self.interval).await;
            return Ok(());
        }
        let deliveries = tokio::select! {
           biased;
            () = self.shutdown.cancelled() => return Ok(()),
            received = self.queue.receive(self.batching().first_receive(), LONG_POLL) => received?,
        };
        if deliveries.is_empty() {
            return Ok(());
        }
        let received = self.parse_all(deliveries);
        match self.lock.try_acquire().await {
            Ok(Some(slot)) => {
                self.work(slot, received, memory).await;
                Ok(())
            }
            no_slot => {
                for message in received {
                    self.release_message(message, RetryCause::NoSlot).await;
                }
                self.pause(self.interval).await;
                no_slot.map(drop)
            }
        }
    }

    fn batching(&self) -> Batching {
        Batching {
            threads: self.threads,
            strict: self.strict,
            most_small: self.handler.most_small_in_progress(),
        }
    }

    fn parse_all(&self, deliveries: Vec<Delivery>) -> Vec<Received> {
        let parse = |delivery: Delivery| Received {
            message: Message::parse(&delivery.body),
            in_flight: self.meter.received(),
            delivery,
        };
        deliveries.into_iter().map(parse).collect()
    }

    async fn pause(&self, time: Duration) {
        tokio::select! {
           biased;
            () = self.shutdown.cancelled() => {}
            () = tokio::time::sleep(time) => {}
        }
    }

    async fn warn_and_pause(&self, error: &TransportError, text: &str) {
        warn!(role = %self.role, error = error_chain(error), "{text}");
        self.pause(ERROR_PAUSE).await;
    }

    /// Works off the queue while it holds the slot.
    async fn work(&self, slot: SlotGuard, first: Vec<Received>, memory: &ConsumerMemory) {
        debug!(role = %self.role, slot = slot.slot(), "Took a slot.");
        self.meter.slot_taken();
        let mut work = InProgress {
            memory: memory.clone(),
            slot: Arc::new(slot),
            stop: CancellationToken::new(),
            threads: ThreadBudget::new(self.threads),
            tasks: JoinSet::new(),
            all_small: self.are_small(&first),
            is_backlog: is_backlog(first.len(), self.batching().first_receive()),
        };
        for message in first {
            self.start(message, &mut work);
        }
        self.work_until_idle(&mut work).await;
        work.stop.cancel();
        while work.tasks.join_next().await.is_some() {}
        self.meter.slot_left(work.slot.lost().is_cancelled());
        // The tasks' handles to the slot are gone.
        if let Ok(slot) = Arc::try_unwrap(work.slot) {
            let name = slot.slot().to_owned();
            let kept = slot.release().await;
            debug!(role = %self.role, slot = name, kept, "Released the slot.");
        }
    }

    /// Receives and starts messages until there are none, the slot is lost, a service is down and no message is held any
    /// more, or the process shall end.
    async fn work_until_idle(&self, work: &mut InProgress) {
        let health = work.memory.health.clone();
        let _none_expected = CallOnDrop(|| self.handler.expect_more(false));
        loop {
            self.meter.ticked();
            let is_down = health.is_down();
            if is_down && work.tasks.is_empty() {
                return;
            }
            let receive = match is_down {
                true => 0,
                false => self
                    .batching()
                    .next_receive(work.tasks.len(), work.all_small),
            };
            self.handler.expect_more(work.is_backlog && receive > 0);
            tokio::select! {
               biased;
                () = self.shutdown.cancelled() => return,
                () = work.slot.lost().cancelled() => return,
                () = health.until(!is_down) => {}
                Some(_) = work.tasks.join_next(), if !work.tasks.is_empty() => {}
                // A tick while no message can start does nothing; a receive is a tick of its own.
                () = tokio::time::sleep(self.interval.max(SHORTEST_TICK)), if receive == 0 => {}
                received = self.queue.receive(receive, self.linger), if receive > 0 => match received {
                    Ok(more) if more.is_empty() && work.tasks.is_empty() => return,
                    Ok(more) => {
                        work.is_backlog = is_backlog(more.len(), receive);
                        self.start_what_fits(self.parse_all(more), work).await;
                    }
                    Err(error) => {
                        work.is_backlog = false;
                        self.handler.expect_more(false);
                        self.warn_and_pause(&error, "Cannot receive; retrying.").await;
                    }
                },
            }
        }
    }

    async fn start_what_fits(&self, received: Vec<Received>, work: &mut InProgress) {
        if received.is_empty() {
            return;
        }
        work.all_small = self.are_small(&received);
        for message in received {
            let is_small = self.is_small(&message);
            if self
                .batching()
                .may_start(work.tasks.len(), work.all_small, is_small)
            {
                self.start(message, work);
            } else {
                self.release_message(message, RetryCause::NoThread).await;
            }
        }
    }

    async fn release_message(&self, received: Received, cause: RetryCause) {
        let (queue, delivery) = (&*self.queue, &received.delivery);
        let deadline = Deadline::new(delivery.visibility_deadline);
        release_message(self.role, queue, delivery, (&deadline, &self.shutdown)).await;
        received.in_flight.retried(cause);
    }

    fn is_small(&self, received: &Received) -> bool {
        let message = received.message.as_ref();
        message.is_ok_and(|message| self.handler.is_small(message))
    }

    fn are_small(&self, received: &[Received]) -> bool {
        received.iter().all(|message| self.is_small(message))
    }

    fn start(&self, received: Received, work: &mut InProgress) {
        let task = MessageTask {
            role: self.role,
            queue: self.queue.clone(),
            handler: self.handler.clone(),
            max_receive_count: self.max_receive_count,
            slot: work.slot.clone(),
            stop: work.stop.child_token(),
            shutdown: self.shutdown.clone(),
            visibility_deadline: Deadline::new(received.delivery.visibility_deadline),
            meter: self.meter.clone(),
            threads: work.threads.clone(),
            health: work.memory.health.clone(),
            failures: work.memory.failures.clone(),
        };
        work.tasks.spawn(task.run(received));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use streampress_transport::local::{Local, LocalOptions};
    use streampress_transport::{Ledger, Outgoing};

    use super::*;
    use crate::consume::{Handled, HandlerError, MessageContext};

    /// Another worker takes each slot in the moment in which it is free.
    #[derive(Debug, Default)]
    struct TakenSlots(AtomicUsize);

    #[async_trait]
    impl SlotLock for TakenSlots {
        async fn try_acquire(&self) -> TransportResult<Option<SlotGuard>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(None)
        }
        async fn all_held_by_others(&self) -> TransportResult<bool> {
            Ok(false)
        }
        async fn ledger(&self) -> TransportResult<Ledger> {
            Ok(Ledger::default())
        }
    }

    struct NoWork;

    #[async_trait]
    impl Handler for NoWork {
        async fn handle(
            &self,
            _: &Message,
            _: MessageContext<'_>,
        ) -> Result<Handled, HandlerError> {
            panic!("without a slot nothing is handled");
        }
    }

    #[tokio::test]
    async fn what_a_worker_received_and_got_no_slot_for_goes_back_to_its_queue() {
        let root = tempfile::tempdir().expect("a folder");
        let local = Local::open(root.path(), LocalOptions::default()).expect("opens");
        let queue = local.files_queue();
        let message = Outgoing {
            group: "g".into(),
            dedup_id: "1".into(),
            body: "{}".into(),
            attributes: Default::default(),
        };
        queue.send(vec![message]).await.expect("sent");
        let (slots, shutdown) = (Arc::new(TakenSlots::default()), CancellationToken::new());
        let consumer = Consumer {
            role: Role::Compressor,
            queue: queue.clone(),
            lock: slots.clone(),
            handler: Arc::new(NoWork),
            threads: 1,
            strict: false,
            interval: Duration::from_millis(1),
            linger: Duration::from_millis(1),
            max_receive_count: 20,
            meter: Meter::default(),
            shutdown: shutdown.clone(),
        };
        let stopping = async {
            // Received again, it was not deleted the first time.
            while slots.0.load(Ordering::Relaxed) < 3
                && queue.depth().await.expect("known").total() > 0
            {
                tokio::task::yield_now().await;
            }
            shutdown.cancel();
        };
        tokio::join!(consumer.run(), stopping);
        assert_eq!(queue.depth().await.expect("known").total(), 1);
    }
}
