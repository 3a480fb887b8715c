//! A FIFO queue in simulated time, as SQS has it: deduplication for five minutes, retention, dead letters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::process::SimProcess;
use super::world::{SimService, World};
use crate::{
    ATTR_DETAIL, ATTR_GROUP, ATTR_REASON, ATTR_VERSION, Delivery, Depth, Failure, FileVersion,
    Outgoing, Queue, Receipt, TransportError, TransportResult,
};

/// A second message with the same deduplication id within this time is dropped.
const DEDUPLICATION: Duration = Duration::from_secs(5 * 60);
/// The longest visibility timeout.
const MAX_VISIBILITY: Duration = Duration::from_secs(12 * 3600);

/// The settings of a queue.
#[derive(Debug, Clone, Copy)]
pub struct QueueOptions {
    /// How long a received message stays invisible.
    pub visibility_timeout: Duration,
    /// A message received more often is a dead letter; releases count.
    pub max_receive_count: u32,
    /// Messages are dropped at this age, dead letters too.
    pub retention: Duration,
}

/// A queue with its dead-letter queue, as the service has them. Clones are the same queue.
#[derive(Debug, Clone)]
pub struct SimQueues {
    queue: Arc<SharedQueue>,
    dead: Arc<SharedQueue>,
}

#[derive(Debug)]
struct SharedQueue {
    service: SimService,
    options: QueueOptions,
    state: Mutex<QueueState>,
    accepted: Mutex<Vec<AcceptedMessage>>,
    arrival: Notify,
}

#[derive(Debug)]
struct QueueState {
    messages: BTreeMap<u64, QueuedMessage>,
    sent_ids: BTreeMap<String, Instant>,
    next_sequence: u64,
    next_delivery: u64,
    created: SystemTime,
    created_at: Instant,
    sends: u64,
    receives: u64,
}

#[derive(Debug)]
struct QueuedMessage {
    message_id: String,
    message: Outgoing,
    sent_at: Instant,
    receives: u32,
    delivery: u64,
    invisible_until: Option<Instant>,
}

/// A message as it lies in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// See [`Delivery::message_id`].
    pub message_id: String,
    /// What was sent.
    pub message: Outgoing,
    /// How often it was received.
    pub receives: u32,
}

/// A message that the queue took, for a checker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedMessage {
    /// When, since the simulation's start.
    pub at: Duration,
    /// The version that it announces, unless it says another.
    pub version: FileVersion,
    /// What was sent.
    pub message: Outgoing,
}

impl SimQueues {
    /// An empty queue with an empty dead-letter queue.
    pub fn new(world: &World, name: &str, options: QueueOptions) -> Self {
        let open = |name: String| {
            let service = SimService::new(world, &name);
            Arc::new(SharedQueue {
                state: Mutex::new(QueueState::new(world)),
                service,
                options,
                accepted: Mutex::default(),
                arrival: Notify::new(),
            })
        };
        Self {
            queue: open(name.to_owned()),
            dead: open(format!("{name}-dead-letters")),
        }
    }

    /// The queue as a process sees it.
    pub fn open(&self, process: &SimProcess) -> SimQueue {
        SimQueue {
            queue: self.queue.clone(),
            dead: Some(self.dead.clone()),
            process: process.clone(),
        }
    }

    /// The faults of the queue.
    pub fn service(&self) -> &SimService {
        &self.queue.service
    }

    /// The faults of the dead-letter queue.
    pub fn dead_letter_service(&self) -> &SimService {
        &self.dead.service
    }

    /// What lies in the queue, in order.
    pub fn messages(&self) -> Vec<StoredMessage> {
        self.queue.stored()
    }

    /// What lies in the dead-letter queue, in order.
    pub fn dead_letters(&self) -> Vec<StoredMessage> {
        self.dead.stored()
    }

    /// What the queue took since the last call, in order. Duplicates, which it drops, are not in it.
    pub fn take_accepted(&self) -> Vec<AcceptedMessage> {
        std::mem::take(&mut self.queue.accepted.lock())
    }

    /// Messages that the dead-letter queue took so far, also where it was made anew since.
    pub fn dead_lettered(&self) -> u64 {
        self.dead.accepted.lock().len() as u64
    }

    /// Messages accepted and deliveries made so far, by queue and dead-letter queue together.
    pub fn traffic(&self) -> (u64, u64) {
        let [queue, dead] = [&self.queue, &self.dead].map(|shared| {
            let state = shared.state.lock();
            (state.sends, state.receives)
        });
        (queue.0 + dead.0, queue.1 + dead.1)
    }

    /// Drops all messages of the queue; deduplication ids stay, as in SQS.
    pub fn purge(&self) {
        self.queue.state.lock().messages.clear();
    }

    /// Deletes queue and dead-letter queue and makes them anew: empty, with sequence numbers from the start.
    pub fn remake(&self) {
        for shared in [&self.queue, &self.dead] {
            let mut state = shared.state.lock();
            let (next_delivery, created) = (state.next_delivery, state.created);
            *state = QueueState::new(shared.service.world());
            // A receipt of before must stay stale, and SQS makes no queue of the same name within a minute.
            state.next_delivery = next_delivery;
            state.created = state.created.max(created + Duration::from_secs(1));
        }
    }
}

impl SharedQueue {
    fn stored(&self) -> Vec<StoredMessage> {
        let mut state = self.state.lock();
        state.drop_old(self.options.retention);
        let stored = state.messages.values().map(|stored| StoredMessage {
            message_id: stored.message_id.clone(),
            message: stored.message.clone(),
            receives: stored.receives,
        });
        stored.collect()
    }

    /// Takes a message; a duplicate is accepted and dropped. The version that a message announces which was taken.
    fn accept(&self, message: Outgoing) -> Option<FileVersion> {
        let mut state = self.state.lock();
        let now = Instant::now();
        let sent = state.sent_ids.get(&message.dedup_id);
        if sent.is_some_and(|at| now.duration_since(*at) < DEDUPLICATION) {
            return None;
        }
        state.sent_ids.insert(message.dedup_id.clone(), now);
        let message_id = format!("{}-{}", self.service.name(), state.next_delivery);
        state.next_delivery += 1;
        state.sends += 1;
        let version = state.version(self.service.name(), state.next_sequence);
        self.accepted.lock().push(AcceptedMessage {
            at: self.service.world().elapsed(),
            version: version.clone(),
            message: message.clone(),
        });
        state.insert(message_id, message, now);
        drop(state);
        self.arrival.notify_waiters();
        Some(version)
    }

    /// Runs `change` on the message that the receipt holds; stale when it holds none any more.
    fn with_held<T>(
        &self,
        receipt: &Receipt,
        change: impl FnOnce(&mut QueueState, u64) -> T,
    ) -> TransportResult<T> {
        let parse = |text: &str| text.parse::<u64>().ok();
        let handle = receipt.0.split_once('/');
        let Some((sequence, delivery)) = handle.and_then(|(s, d)| Some((parse(s)?, parse(d)?)))
        else {
            let shown = &receipt.0;
            return Err(TransportError::Invalid(format!(
                "{shown:?} is no receipt of this queue"
            )));
        };
        let mut state = self.state.lock();
        let held = state.messages.get(&sequence).is_some_and(|stored| {
            stored.delivery == delivery
                && stored
                    .invisible_until
                    .is_some_and(|until| until > Instant::now())
        });
        match held {
            true => Ok(change(&mut state, sequence)),
            false => Err(TransportError::Stale),
        }
    }

    fn hide(&self, receipt: &Receipt, time: Duration) -> TransportResult<()> {
        let until = Instant::now() + time;
        let is_sooner = self.with_held(receipt, |state, sequence| {
            let stored = state.messages.get_mut(&sequence);
            let before = stored.and_then(|stored| stored.invisible_until.replace(until));
            before.is_some_and(|before| until < before)
        })?;
        if is_sooner {
            // Receivers wait for the moment that was true before.
            self.arrival.notify_waiters();
        }
        Ok(())
    }
}

impl QueueState {
    fn new(world: &World) -> Self {
        Self {
            messages: BTreeMap::new(),
            sent_ids: BTreeMap::new(),
            next_sequence: 1,
            next_delivery: 1,
            created: world.service_now(),
            created_at: Instant::now(),
            sends: 0,
            receives: 0,
        }
    }

    fn insert(&mut self, message_id: String, message: Outgoing, sent_at: Instant) {
        let stored = QueuedMessage {
            message_id,
            message,
            sent_at,
            receives: 0,
            delivery: 0,
            invisible_until: None,
        };
        self.messages.insert(self.next_sequence, stored);
        self.next_sequence += 1;
    }

    /// The message is visible, and no process holds it any longer.
    fn show(&mut self, sequence: u64) {
        if let Some(stored) = self.messages.get_mut(&sequence) {
            stored.delivery = 0;
            stored.invisible_until = None;
        }
    }

    fn drop_old(&mut self, retention: Duration) {
        let now = Instant::now();
        self.messages
            .retain(|_, stored| now.duration_since(stored.sent_at) < retention);
        self.sent_ids
            .retain(|_, at| now.duration_since(*at) < DEDUPLICATION);
    }

    /// Up to `max` messages, at most one of a group; and those that were received too often.
    fn take(
        &mut self,
        max: usize,
        name: &str,
        options: QueueOptions,
        limited: bool,
    ) -> TakenDeliveries {
        self.drop_old(options.retention);
        let now = Instant::now();
        let since_1970 = |at: Instant| {
            let wall = self.created + at.duration_since(self.created_at);
            wall.duration_since(UNIX_EPOCH).unwrap_or_default()
        };
        let epoch = self.epoch();
        let (mut taken, mut groups) = (TakenDeliveries::default(), BTreeSet::new());
        for (sequence, stored) in &mut self.messages {
            if taken.deliveries.len() == max {
                break;
            }
            if groups.contains(&stored.message.group) {
                continue;
            }
            if stored.invisible_until.is_some_and(|until| until > now) {
                groups.insert(stored.message.group.clone());
                continue;
            }
            if limited && stored.receives >= options.max_receive_count {
                taken.too_often.push(*sequence);
                continue;
            }
            groups.insert(stored.message.group.clone());
            stored.receives += 1;
            stored.delivery = self.next_delivery;
            self.next_delivery += 1;
            self.receives += 1;
            let until = now + options.visibility_timeout;
            stored.invisible_until = Some(until);
            let sent = Sent {
                version: FileVersion::new(name, epoch, (*sequence).into()),
                millis: u64::try_from(since_1970(stored.sent_at).as_millis()).unwrap_or(u64::MAX),
            };
            taken
                .deliveries
                .push(delivery(*sequence, stored, sent, (now, until)));
        }
        taken
    }

    /// When the queue was made, in seconds since 1970.
    fn epoch(&self) -> u64 {
        let created = self.created.duration_since(UNIX_EPOCH);
        created.unwrap_or_default().as_secs()
    }

    fn version(&self, name: &str, sequence: u64) -> FileVersion {
        FileVersion::new(name, self.epoch(), sequence.into())
    }

    /// When a message becomes visible by itself.
    fn next_visible(&self) -> Option<Instant> {
        let now = Instant::now();
        let ends = self
            .messages
            .values()
            .filter_map(|stored| stored.invisible_until);
        ends.filter(|until| *until > now).min()
    }
}

#[derive(Debug, Default)]
struct TakenDeliveries {
    deliveries: Vec<Delivery>,
    too_often: Vec<u64>,
}

struct Sent {
    version: FileVersion,
    millis: u64,
}

fn delivery(
    sequence: u64,
    stored: &QueuedMessage,
    sent: Sent,
    (now, until): (Instant, Instant),
) -> Delivery {
    let message = stored.message.clone();
    Delivery {
        message_id: stored.message_id.clone(),
        group: message.group,
        dedup_id: message.dedup_id,
        body: message.body,
        attributes: message.attributes,
        sent_as: sent.version,
        sent_millis: sent.millis,
        receive_count: stored.receives,
        received_at: now,
        visibility_deadline: until,
        receipt: Receipt(format!("{sequence}/{}", stored.delivery)),
    }
}

/// A queue, or a dead-letter queue, as one process sees it.
#[derive(Debug, Clone)]
pub struct SimQueue {
    queue: Arc<SharedQueue>,
    dead: Option<Arc<SharedQueue>>,
    process: SimProcess,
}

impl SimQueue {
    fn take(&self, max: usize) -> Vec<Delivery> {
        let (options, limited) = (self.queue.options, self.dead.is_some());
        let mut state = self.queue.state.lock();
        let taken = state.take(max, self.queue.service.name(), options, limited);
        for sequence in taken.too_often {
            if let (Some(stored), Some(dead)) = (state.messages.remove(&sequence), &self.dead) {
                // As in SQS: with its own group, and no reason.
                let mut dead_state = dead.state.lock();
                dead_state.insert(stored.message_id, stored.message, Instant::now());
                drop(dead_state);
                dead.arrival.notify_waiters();
            }
        }
        taken.deliveries
    }

    async fn call<T>(
        &self,
        step: &str,
        effect: impl FnOnce() -> TransportResult<T>,
    ) -> TransportResult<T> {
        self.queue.service.call(&self.process, step, effect).await
    }
}

#[async_trait]
impl Queue for SimQueue {
    fn name(&self) -> &str {
        self.queue.service.name()
    }

    fn visibility_timeout(&self) -> Duration {
        self.queue.options.visibility_timeout
    }

    async fn send(&self, messages: Vec<Outgoing>) -> TransportResult<()> {
        self.send_numbered(messages).await.map(drop)
    }

    async fn send_numbered(
        &self,
        messages: Vec<Outgoing>,
    ) -> TransportResult<Vec<Option<FileVersion>>> {
        messages.iter().try_for_each(Outgoing::check)?;
        let mut versions = Vec::with_capacity(messages.len());
        // One call each, so that some may have been sent when it fails.
        for message in messages {
            let accept = || Ok(self.queue.accept(message));
            versions.push(self.call("sending to", accept).await?);
        }
        Ok(versions)
    }

    async fn incarnation(&self) -> TransportResult<String> {
        let tell = || Ok(self.queue.state.lock().epoch().to_string());
        self.call("describing", tell).await
    }

    async fn receive(&self, max: usize, wait: Duration) -> TransportResult<Vec<Delivery>> {
        if !(1..=10).contains(&max) {
            return Err(TransportError::Invalid(format!(
                "{max} messages were requested; a receive takes 1 to 10"
            )));
        }
        let deadline = Instant::now() + wait;
        let step = "receiving from";
        loop {
            self.queue.service.arrive(&self.process, step).await?;
            // Made before the messages are taken, so that nothing sent in between is missed. Nothing is awaited between
            // taking and answering: a dropped receive loses no message.
            let arrival = self.queue.arrival.notified();
            let deliveries = self.take(max);
            if !deliveries.is_empty() || Instant::now() >= deadline {
                return match !deliveries.is_empty() && self.queue.service.loses_answer() {
                    true => Err(self.queue.service.lost(step, "the answer was lost")),
                    false => Ok(deliveries),
                };
            }
            let visible = self.queue.state.lock().next_visible();
            let until = visible.map_or(deadline, |visible| visible.min(deadline));
            tokio::select! {
                biased;
                () = arrival => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    async fn extend(&self, receipt: &Receipt, visibility_timeout: Duration) -> TransportResult<()> {
        if visibility_timeout > MAX_VISIBILITY {
            return Err(TransportError::Invalid(
                "a visibility timeout can be 12 hours at most".into(),
            ));
        }
        let queue = &self.queue;
        self.call("extending a message of", || {
            queue.hide(receipt, visibility_timeout)
        })
        .await
    }

    async fn delete(&self, receipt: &Receipt) -> TransportResult<()> {
        let queue = &self.queue;
        let delete = || {
            let comes_again = queue.service.duplicates();
            queue.with_held(receipt, |state, sequence| match comes_again {
                true => state.show(sequence),
                false => drop(state.messages.remove(&sequence)),
            })?;
            queue.arrival.notify_waiters();
            Ok(())
        };
        self.call("deleting a message of", delete).await
    }

    async fn release(&self, receipt: &Receipt) -> TransportResult<()> {
        self.extend(receipt, Duration::ZERO).await
    }

    async fn dead_letter(&self, delivery: &Delivery, failure: &Failure) -> TransportResult<()> {
        let Some(dead) = &self.dead else {
            return Err(TransportError::Invalid(format!(
                "{} holds dead letters itself; delete the message or send it again",
                self.name()
            )));
        };
        let mut attributes = delivery.attributes.clone();
        attributes.insert(ATTR_REASON.into(), failure.reason.to_string());
        attributes.insert(ATTR_DETAIL.into(), failure.detail.clone());
        attributes.insert(ATTR_GROUP.into(), delivery.group.clone());
        attributes.insert(ATTR_VERSION.into(), delivery.version().to_string());
        let letter = Outgoing {
            group: delivery.message_id.clone(),
            dedup_id: format!("dead-{}", delivery.message_id),
            body: delivery.body.clone(),
            attributes,
        };
        let accept = || {
            dead.accept(letter);
            Ok(())
        };
        dead.service
            .call(&self.process, "sending to", accept)
            .await?;
        self.delete(&delivery.receipt).await
    }

    async fn depth(&self) -> TransportResult<Depth> {
        let queue = &self.queue;
        let count = || {
            let (mut state, now) = (queue.state.lock(), Instant::now());
            state.drop_old(queue.options.retention);
            let is_invisible =
                |stored: &&QueuedMessage| stored.invisible_until.is_some_and(|until| until > now);
            let in_flight = state.messages.values().filter(is_invisible).count() as u64;
            Ok(Depth {
                visible: state.messages.len() as u64 - in_flight,
                in_flight,
                delayed: 0,
            })
        };
        self.call("counting messages of", count).await
    }

    fn dead_letters(&self) -> Option<Arc<dyn Queue>> {
        let dead = self.dead.clone()?;
        Some(Arc::new(Self {
            queue: dead,
            dead: None,
            process: self.process.clone(),
        }))
    }
}
