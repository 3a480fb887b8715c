//! What a consumer knows of the services that all its messages need: whether one is down, and how often a message failed
//! although they were not.
//!
//! While a service is down its faults are no fault of a file: the consumer receives nothing, and one task probes the
//! service until it answers again.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use super::handler::{Handler, ServiceOutage};
use crate::telemetry::metrics::Meter;
use streampress_crds::Role;
use streampress_transport::Backoff;

/// Between two probes of a service that is down.
const PROBE_BACKOFF: Backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(60));
/// A message becomes a dead letter no sooner than this after its first failure.
const SHORTEST_PATIENCE: Duration = Duration::from_secs(600);
/// Messages whose failures are remembered; beyond it the one that failed first is forgotten, which only delays its end.
const MAX_MESSAGES: usize = 10_000;

/// Whether a service that all messages need is down. Cheap to clone; shared by a consumer and its tasks.
#[derive(Debug, Clone)]
pub(super) struct ServiceHealth {
    role: Role,
    meter: Meter,
    down: Arc<Mutex<Option<Down>>>,
    /// Wakes those that wait, first come first: a `watch` channel wakes its receivers in random order, and a simulation
    /// would not repeat itself.
    changed: Arc<Notify>,
    episode: Arc<Mutex<Episode>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Down {
    outage: ServiceOutage,
    /// What a probe writes. The least that a message needed: what is larger may still not fit afterwards.
    bytes: u64,
}

/// Outages without a success in between are one episode, since a probe may succeed where the work does not.
#[derive(Debug, Default)]
struct Episode {
    failures: u32,
    said_down: bool,
    said_well: bool,
}

impl ServiceHealth {
    pub(super) fn new(role: Role, meter: Meter) -> Self {
        Self {
            role,
            meter,
            down: Arc::default(),
            changed: Arc::default(),
            episode: Arc::default(),
        }
    }

    pub(super) fn is_down(&self) -> bool {
        self.down.lock().is_some()
    }

    /// Waits until it is down, or until it is not.
    pub(super) async fn until(&self, is_down: bool) {
        loop {
            // Made before the state is read, so that no change in between is missed.
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.is_down() == is_down {
                return;
            }
            changed.await;
        }
    }

    /// A message needed `bytes` bytes of a service that is down.
    pub(super) fn report(&self, outage: ServiceOutage, bytes: u64) {
        match &mut *self.down.lock() {
            Some(down) => {
                down.bytes = down.bytes.min(bytes);
                return;
            }
            down => {
                *down = Some(Down {
                    outage: outage.clone(),
                    bytes,
                });
            }
        }
        self.changed.notify_waiters();
        self.meter.outage_began(outage.service);
        let mut episode = self.episode.lock();
        episode.failures = episode.failures.saturating_add(1);
        if !std::mem::replace(&mut episode.said_down, true) {
            warn!(
                role = %self.role,
                service = outage.service.label(),
                cause = outage.cause,
                "A service is unavailable; this worker receives no messages until it responds."
            );
        }
    }

    /// A message was done.
    pub(super) fn succeeded(&self) {
        *self.episode.lock() = Episode::default();
    }

    /// Probes whatever is down until it answers, for ever.
    pub(super) async fn probe(&self, handler: &dyn Handler) {
        loop {
            self.until(true).await;
            let failures = self.episode.lock().failures;
            tokio::time::sleep(PROBE_BACKOFF.equal_jitter(failures)).await;
            let bytes = self.down.lock().as_ref().map_or(0, |down| down.bytes);
            match handler.probe(None, bytes).await {
                Ok(_) => self.recovered(),
                Err(outage) => self.still_down(outage),
            }
        }
    }

    fn still_down(&self, outage: ServiceOutage) {
        let mut episode = self.episode.lock();
        episode.failures = episode.failures.saturating_add(1);
        if let Some(down) = &mut *self.down.lock() {
            self.meter.outage_ended(down.outage.service);
            self.meter.outage_began(outage.service);
            down.outage = outage;
        }
    }

    fn recovered(&self) {
        let Some(down) = self.down.lock().take() else {
            return;
        };
        self.changed.notify_waiters();
        self.meter.outage_ended(down.outage.service);
        if !std::mem::replace(&mut self.episode.lock().said_well, true) {
            info!(
                role = %self.role,
                service = down.outage.service.label(),
                "The service is available again; this worker receives messages."
            );
        }
    }
}

/// How often this worker failed on each message although the services that all need were well. Receives are no measure of
/// that: releases, kills and lost responses raise their count too.
#[derive(Debug, Default)]
pub(super) struct Failures {
    by_message: BTreeMap<String, Failed>,
    successes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Failed {
    /// Failures that count.
    count: u32,
    /// All failures in a row; for the back-off.
    all: u32,
    first_at: Instant,
    /// The successes of other messages when it last failed.
    successes: u64,
    /// Whether another file of its size could not be worked on then.
    unproven: bool,
}

/// How often the work on a message has failed, and what that means for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FailedAttempts {
    /// Failures that count, this one included.
    pub(super) count: u32,
    /// All failures, this one included.
    pub(super) all: u32,
    /// No further attempt.
    pub(super) is_last: bool,
}

impl Failures {
    /// A message failed. The failure counts if another file of its size could be worked on (`proven`), or if another
    /// message succeeded since the last one.
    pub(super) fn failed(&mut self, message_id: &str, proven: bool, most: u32) -> FailedAttempts {
        self.make_space_for(message_id);
        let successes = self.successes;
        let failed = self
            .by_message
            .entry(message_id.to_owned())
            .or_insert(Failed {
                count: 0,
                all: 0,
                first_at: Instant::now(),
                successes,
                unproven: false,
            });
        let counts = proven || successes > failed.successes;
        failed.count = failed.count.saturating_add(u32::from(counts));
        failed.all = failed.all.saturating_add(1);
        failed.successes = successes;
        failed.unproven = !proven;
        FailedAttempts {
            count: failed.count,
            all: failed.all,
            is_last: failed.count >= most && failed.first_at.elapsed() >= SHORTEST_PATIENCE,
        }
    }

    /// Whether the message failed last while no other file of its size could be worked on.
    pub(super) fn was_unproven(&self, message_id: &str) -> bool {
        let failed = self.by_message.get(message_id);
        failed.is_some_and(|failed| failed.unproven)
    }

    /// A message was done.
    pub(super) fn succeeded(&mut self, message_id: &str) {
        self.successes += 1;
        self.by_message.remove(message_id);
    }

    /// A message is in the dead-letter queue.
    pub(super) fn ended(&mut self, message_id: &str) {
        self.by_message.remove(message_id);
    }

    fn make_space_for(&mut self, message_id: &str) {
        if self.by_message.len() < MAX_MESSAGES || self.by_message.contains_key(message_id) {
            return;
        }
        let oldest = self
            .by_message
            .iter()
            .min_by_key(|(_, failed)| failed.first_at)
            .map(|(id, _)| id.clone());
        if let Some(oldest) = oldest {
            self.by_message.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u32 = 20;

    #[tokio::test(start_paused = true)]
    async fn a_message_is_given_up_after_twenty_failures_over_ten_minutes_that_prove_it() {
        let mut failures = Failures::default();
        for count in 1..=MOST + 5 {
            let failure = failures.failed("m", true, MOST);
            assert_eq!((failure.count, failure.is_last), (count, false));
        }
        tokio::time::advance(SHORTEST_PATIENCE).await;
        assert!(failures.failed("m", true, MOST).is_last);
        let mut few = Failures::default();
        few.failed("m", true, MOST);
        tokio::time::advance(2 * SHORTEST_PATIENCE).await;
        assert!(!few.failed("m", true, MOST).is_last, "two failures");
    }

    #[tokio::test(start_paused = true)]
    async fn an_unproven_failure_counts_only_if_another_message_succeeded_since() {
        let mut failures = Failures::default();
        for _ in 0..100 {
            assert_eq!(failures.failed("m", false, MOST).count, 0);
            tokio::time::advance(Duration::from_secs(60)).await;
        }
        for count in 1..MOST {
            failures.succeeded("other");
            let failure = failures.failed("m", false, MOST);
            assert_eq!((failure.count, failure.is_last), (count, false));
            assert_eq!(failures.failed("m", false, MOST).count, count);
        }
        failures.succeeded("other");
        assert!(failures.failed("m", false, MOST).is_last);
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_forgets_the_failures_before_it() {
        let mut failures = Failures::default();
        failures.failed("m", true, MOST);
        failures.succeeded("m");
        assert_eq!(failures.failed("m", true, MOST).count, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_failures_that_are_remembered_are_bounded() {
        let mut failures = Failures::default();
        for number in 0..MAX_MESSAGES + 50 {
            failures.failed(&number.to_string(), true, MOST);
        }
        assert_eq!(failures.by_message.len(), MAX_MESSAGES);
    }
}
