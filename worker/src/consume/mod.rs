//! The one consume loop: receive, take a slot, keep hidden, handle, acknowledge. Both roles that read a queue run
//! it; what a message means is the [`Handler`]'s.
//!
//! Effect first, then delete. A message that is not done when we stop is given back at once; a fault that may pass
//! comes back later by redelivery; one that cannot pass goes to the dead-letter queue with its reason.

mod task;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::task::{Work, release_message};
use crate::clock;
use crate::telemetry::metrics::{InHand, Meter};
use streampress_transport::{
    Deadline, Delivery, Queue, SlotGuard, SlotLock, TransportError, TransportResult,
};

/// The longest wait in one receive, which is SQS's long poll.
const LONG_POLL: Duration = Duration::from_secs(20);
/// At the end of the process, for what a long poll still brings. A pod has 30 s in all.
const SETTLE: Duration = Duration::from_secs(21);
/// How many small files are in hand at most: what two receives bring, and what is not done of those before.
const SMALL_IN_HAND: usize = 25;
/// SQS's most in one receive, and what small files are received by.
const AT_ONCE: usize = 10;
/// Between two ticks while all hands are full.
const SHORTEST_TICK: Duration = Duration::from_millis(100);
/// After a door's fault, before we ask again.
const FAULT_PAUSE: Duration = Duration::from_secs(2);

/// How a message ended, other than done.
#[derive(Debug)]
pub enum Fault {
    /// It will never work: to the dead-letter queue at the first attempt.
    Permanent {
        /// One word, stable: `HashMismatch`.
        reason: &'static str,
        /// One sentence with the way out.
        detail: String,
    },
    /// It may work later: redelivered with back-off.
    Transient(anyhow::Error),
    /// We were told to stop, or the slot or the message was lost: given back.
    Interrupted,
}

impl Fault {
    /// A fault that no second attempt mends.
    pub fn permanent(reason: &'static str, detail: impl std::fmt::Display) -> Self {
        Self::Permanent {
            reason,
            detail: format!("{detail:#}"),
        }
    }
}

impl From<TransportError> for Fault {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::Expired(_) => Self::permanent("Expired", error),
            TransportError::Missing(_) => Self::permanent("RecordMissing", error),
            TransportError::Invalid(_) => Self::permanent("Refused", error),
            TransportError::Stale => Self::Interrupted,
            TransportError::Unavailable { .. } => Self::Transient(error.into()),
        }
    }
}

/// One message's work, as its handler gets it.
#[derive(Clone, Copy)]
pub struct MessageContext<'a> {
    /// The message.
    pub delivery: &'a Delivery,
    /// Until when the message is surely hidden from others; moved on whenever that is prolonged.
    pub visibility_deadline: &'a Deadline,
    /// The slot it is done in.
    pub held: &'a SlotGuard,
    /// The worker's threads, which its messages share.
    pub threads: &'a Threads,
    /// Cancelled when the slot or the message is lost or the process shall end.
    pub stop: &'a CancellationToken,
    /// Where stages and files are counted.
    pub meter: &'a Meter,
}

impl MessageContext<'_> {
    /// A file was packed and announced: counts it in the slot's ledger and in the figures.
    pub fn packed(&self, raw_bytes: u64, packed_bytes: u64) {
        self.done(raw_bytes, packed_bytes);
        self.meter.file(raw_bytes, packed_bytes);
    }

    /// A file was restored: counts it in the slot's ledger and in the figures.
    pub fn restored(&self, packed_bytes: u64, raw_bytes: u64) {
        self.done(packed_bytes, raw_bytes);
        self.meter.file(raw_bytes, packed_bytes);
    }

    /// Whether an effect may follow: asked right before it. A process that was frozen past its slot's deadline, or that
    /// could not prolong the message's hiding in time, knows by the clock, before anything in it has had the time to
    /// cancel `stop`.
    pub fn ensure_owner(&self) -> Result<(), Fault> {
        let lost = !self.held.ensure_owner() || self.visibility_deadline.is_expired();
        if self.stop.is_cancelled() || lost {
            return Err(Fault::Interrupted);
        }
        Ok(())
    }

    /// Work without an effect, given up as soon as the process shall end.
    pub async fn or_stop<T>(
        &self,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        tokio::select! {
            done = work => done,
            () = self.stop.cancelled() => Err(Fault::Interrupted),
        }
    }

    /// A thread of the worker's, or all of them.
    pub async fn threads(&self, all: bool) -> Result<OwnedSemaphorePermit, Fault> {
        self.or_stop(async { Ok(self.threads.take(all).await) })
            .await
    }

    /// The message has waited since then, in milliseconds since 1970.
    pub fn waited_since(&self, millis: u64) {
        let waited = Duration::from_millis(clock::now_millis().saturating_sub(millis));
        self.meter.stage("wait", waited);
    }

    fn done(&self, bytes_in: u64, bytes_out: u64) {
        self.held.count(|ledger| {
            ledger.files += 1;
            ledger.bytes_in += bytes_in;
            ledger.bytes_out += bytes_out;
        });
    }
}

/// A worker's threads, for [`MessageContext::threads`]: taken while blocks are packed or unpacked and while what comes of it is held in
/// memory, not while a small file waits for a door.
#[derive(Debug, Clone)]
pub struct Threads {
    free: Arc<Semaphore>,
    all: u32,
}

impl Threads {
    /// So many, one at least.
    pub fn new(all: usize) -> Self {
        // More than a machine has, and few enough for a semaphore.
        let all = u16::try_from(all.max(1)).unwrap_or(u16::MAX);
        Self {
            free: Arc::new(Semaphore::new(all.into())),
            all: all.into(),
        }
    }

    async fn take(&self, all: bool) -> OwnedSemaphorePermit {
        let wanted = if all { self.all } else { 1 };
        let taken = self.free.clone().acquire_many_owned(wanted).await;
        taken.unwrap_or_else(|_| unreachable!("it is never closed"))
    }
}

/// What a message is about, for logs and traces; nothing where the message does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// The file's id.
    pub file_id: Option<String>,
    /// The file's name.
    pub file_name: Option<String>,
    /// The trace that the message's body names.
    pub traceparent: Option<String>,
}

/// What a role does with one message. The same message twice must have the same effect as once.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Does the work. When [`MessageContext::stop`] is cancelled it returns [`Fault::Interrupted`] at the next block boundary and
    /// has no effect after.
    async fn handle(&self, job: MessageContext<'_>) -> Result<(), Fault>;
    /// What the message is about.
    fn subject(&self, delivery: &Delivery) -> Subject;
    /// Whether the message is small work, most of which is waiting for doors: then several are in hand for each thread.
    fn is_small(&self, delivery: &Delivery) -> bool;
    /// Called once the message is deleted: what may only happen when it is safe.
    async fn acknowledged(&self, delivery: &Delivery);
    /// Called once the message is a dead letter.
    async fn on_dead_lettered(&self, delivery: &Delivery, reason: &str, detail: &str);
}

/// A role's worker.
pub struct Consumer {
    /// For logs.
    pub role: &'static str,
    /// Where its work comes from.
    pub queue: Arc<dyn Queue>,
    /// The role's slots.
    pub lock: Arc<dyn SlotLock>,
    /// What it does with a message.
    pub handler: Arc<dyn Handler>,
    /// See [`MessageContext::threads`]; so many files are in hand at once, of small ones more.
    pub threads: usize,
    /// One file after another, however small.
    pub strict: bool,
    /// Between two looks at slots that are held by others.
    pub interval: Duration,
    /// How long it keeps a slot after the last message, so that a trickle of files does not make a slot change hands.
    pub linger: Duration,
    /// After so many receives a fault that may pass is taken for one that does not.
    pub max_receive_count: u32,
    /// What it counts.
    pub meter: Meter,
    /// Cancelled when the process shall end.
    pub shutdown: CancellationToken,
}

impl Consumer {
    /// Works until shut down. Faults of doors are logged and tried again: only shutdown ends it.
    pub async fn run(&self) {
        while !self.shutdown.is_cancelled() {
            self.meter.ticked();
            if let Err(fault) = self.tick().await {
                warn!(role = self.role, error = %format!("{:#}", anyhow::Error::from(fault)), "Cannot reach the transport; trying again.");
                self.pause(FAULT_PAUSE).await;
            }
        }
        self.meter.rests();
        if !self.queue.drain(SETTLE).await {
            warn!(
                role = self.role,
                "A message received at the very end stays hidden until its time runs out."
            );
        }
    }

    /// One tick: waits for work, takes a slot, works until there is none, gives the slot up.
    async fn tick(&self) -> TransportResult<()> {
        if self.lock.all_held_by_others().await? {
            self.pause(self.interval).await;
            return Ok(());
        }
        let deliveries = tokio::select! {
            () = self.shutdown.cancelled() => return Ok(()),
            received = self.queue.receive(self.threads.clamp(1, AT_ONCE), LONG_POLL) => received?,
        };
        if deliveries.is_empty() {
            return Ok(());
        }
        let deliveries = self.taken(deliveries);
        match self.lock.try_acquire().await {
            Ok(Some(held)) => {
                self.drain(held, deliveries).await;
                Ok(())
            }
            lost_race => {
                for message in deliveries {
                    self.release_message(message, "no_slot").await;
                }
                self.pause(self.interval).await;
                lost_race.map(drop)
            }
        }
    }

    fn taken(&self, deliveries: Vec<Delivery>) -> Vec<(Delivery, InHand)> {
        let taken = |delivery| (delivery, self.meter.received());
        deliveries.into_iter().map(taken).collect()
    }

    async fn pause(&self, time: Duration) {
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = tokio::time::sleep(time) => {}
        }
    }

    /// Works off the queue while it holds a slot.
    async fn drain(&self, held: SlotGuard, first: Vec<(Delivery, InHand)>) {
        debug!(role = self.role, slot = held.slot(), "Took a slot.");
        self.meter.slot_taken();
        let held = Arc::new(held);
        let stop = CancellationToken::new();
        let threads = Threads::new(self.threads);
        let mut at_work = JoinSet::new();
        let mut small = self.are_small(&first);
        for message in first {
            self.start(message, &held, &stop, &threads, &mut at_work);
        }
        loop {
            self.meter.ticked();
            let room = self.room(at_work.len(), small);
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                () = held.lost().cancelled() => break,
                Some(_) = at_work.join_next(), if !at_work.is_empty() => {}
                // A tick that finds all hands full does nothing; a receive below ticks by itself.
                () = tokio::time::sleep(self.interval.max(SHORTEST_TICK)), if room == 0 => {}
                received = self.queue.receive(room.min(AT_ONCE), self.linger), if room > 0 => match received {
                    Ok(more) if more.is_empty() && at_work.is_empty() => break,
                    Ok(more) if more.is_empty() => {}
                    Ok(more) => {
                        let more = self.taken(more);
                        small = self.are_small(&more);
                        for message in more {
                            if small || at_work.len() < self.threads.max(1) || self.handler.is_small(&message.0) {
                                self.start(message, &held, &stop, &threads, &mut at_work);
                            } else {
                                self.release_message(message, "no_thread").await;
                            }
                        }
                    }
                    Err(fault) => {
                        warn!(role = self.role, error = %format!("{:#}", anyhow::Error::from(fault)), "Cannot receive; trying again.");
                        self.pause(FAULT_PAUSE).await;
                    }
                },
            }
        }
        stop.cancel();
        while at_work.join_next().await.is_some() {}
        self.meter.slot_left(held.lost().is_cancelled());
        if let Ok(held) = Arc::try_unwrap(held) {
            let slot = held.slot().to_owned();
            let kept = held.release().await;
            debug!(role = self.role, slot, kept, "Gave the slot up.");
        }
    }

    async fn release_message(&self, (delivery, in_hand): (Delivery, InHand), why: &'static str) {
        release_message(self.role, &*self.queue, &delivery).await;
        in_hand.retried(why);
    }

    fn are_small(&self, messages: &[(Delivery, InHand)]) -> bool {
        messages
            .iter()
            .all(|(delivery, _)| self.handler.is_small(delivery))
    }

    /// How many more to receive. What is small is received by the ten or not at all: one request instead of ten, and files
    /// that follow each other on the stream stay in one hand, so that they are read in one call.
    fn room(&self, at_work: usize, small: bool) -> usize {
        let hands = self.threads.max(1);
        if self.strict || !small {
            return hands.saturating_sub(at_work);
        }
        match at_work + AT_ONCE <= hands.max(SMALL_IN_HAND) {
            true => AT_ONCE,
            false => 0,
        }
    }

    fn start(
        &self,
        (delivery, in_hand): (Delivery, InHand),
        held: &Arc<SlotGuard>,
        stop: &CancellationToken,
        threads: &Threads,
        at_work: &mut JoinSet<()>,
    ) {
        let work = Work {
            role: self.role,
            queue: self.queue.clone(),
            handler: self.handler.clone(),
            max_receive_count: self.max_receive_count,
            held: held.clone(),
            stop: stop.child_token(),
            visibility_deadline: Deadline::new(delivery.visibility_deadline),
            meter: self.meter.clone(),
            threads: threads.clone(),
        };
        at_work.spawn(work.run(delivery, in_hand));
    }
}
