//! What the Leases of a role look like: each is read once and then watched, by name, which is all that a worker may.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Error;
use kube::api::{WatchEvent, WatchParams};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::holder::{LeaseCandidate, is_code};
use super::rules::Observation;
use crate::{TransportError, TransportResult};

/// How long the server keeps one watch open.
const WATCH_SECONDS: u32 = 240;
/// A watch that ended sooner than this is begun again only after it.
const SHORTEST_WATCH: Duration = Duration::from_secs(1);
/// Before a watch is begun again that failed, and that the server ended.
const AFTER_FAILURE: Duration = Duration::from_secs(2);
const AFTER_END: Duration = Duration::from_millis(100);

/// The Leases of some slots, as seen last.
pub(super) struct Observer {
    candidate: LeaseCandidate,
    slots: Vec<String>,
    observations: Mutex<HashMap<String, Observation>>,
    /// How many slots have been seen, or why not.
    seen: watch::Sender<Result<usize, String>>,
}

impl Observer {
    pub(super) fn new(candidate: LeaseCandidate, slots: Vec<String>) -> Arc<Self> {
        Arc::new(Self {
            candidate,
            slots,
            observations: Mutex::default(),
            seen: watch::Sender::new(Ok(0)),
        })
    }

    pub(super) fn candidate(&self) -> &LeaseCandidate {
        &self.candidate
    }

    pub(super) fn slots(&self) -> &[String] {
        &self.slots
    }

    /// Waits until every slot has been seen once.
    pub(super) async fn all_seen(&self) -> TransportResult<()> {
        let mut seen = self.seen.subscribe();
        let all = seen.wait_for(|seen| seen.as_ref().is_ok_and(|seen| *seen >= self.slots.len()));
        let waited = timeout(self.candidate.times().request(), all)
            .await
            .map(|seen| seen.map(drop));
        if let Ok(Ok(())) = waited {
            return Ok(());
        }
        let why = self.seen.borrow().clone().err();
        let why = why.unwrap_or_else(|| "the API server did not answer in time".into());
        Err(TransportError::unavailable(
            format!("reading the slots {}", self.slots.join(", ")),
            why,
        ))
    }

    /// The slot's Lease, where it is free as far as seen.
    pub(super) fn free(&self, slot: &str) -> Option<Lease> {
        let observations = self.observations.lock();
        let observed = observations.get(slot)?;
        observed
            .is_free(self.candidate.times())
            .then(|| observed.lease().clone())
    }

    /// Reads a slot's Lease now.
    pub(super) async fn read(&self, slot: &str) -> TransportResult<Lease> {
        let step = || format!("reading the slot {slot}");
        match self.candidate.get(slot).await {
            Ok(Some(lease)) => {
                self.observe(slot, lease.clone());
                Ok(lease)
            }
            Ok(None) => Err(TransportError::unavailable(step(), missing(slot))),
            Err(error) => Err(TransportError::unavailable(step(), error)),
        }
    }

    /// Notes what a slot looks like now.
    pub(super) fn observe(&self, slot: &str, lease: Lease) {
        let mut observations = self.observations.lock();
        if let Some(observed) = observations.get_mut(slot) {
            observed.update(lease);
            return;
        }
        observations.insert(slot.to_owned(), Observation::new(lease));
        let count = observations.len();
        drop(observations);
        self.seen.send_modify(|seen| *seen = Ok(count));
    }

    fn gone(&self, slot: &str) {
        self.observations.lock().remove(slot);
        self.seen.send_modify(|seen| *seen = Err(missing(slot)));
    }

    /// Follows one slot for as long as it is polled.
    pub(super) async fn follow(self: Arc<Self>, slot: String) {
        loop {
            let pause = match self.follow_once(&slot).await {
                Ok(()) => AFTER_END,
                Err(error) if is_code(&error, 410) => AFTER_END,
                Err(error) if is_code(&error, 404) => {
                    self.gone(&slot);
                    AFTER_FAILURE
                }
                Err(error) => {
                    warn!(slot, %error, "Could not watch the slot; trying again.");
                    self.seen.send_if_modified(|seen| {
                        let news = seen.as_ref().is_ok_and(|seen| *seen < self.slots.len());
                        if news {
                            *seen = Err(error.to_string());
                        }
                        news
                    });
                    AFTER_FAILURE
                }
            };
            sleep(pause).await;
        }
    }

    async fn follow_once(&self, slot: &str) -> Result<(), Error> {
        let api = self.candidate.api();
        let lease = self.in_time(api.get(slot)).await?;
        let mut version = lease.metadata.resource_version.clone().unwrap_or_default();
        self.observe(slot, lease);
        // Also where an error had been noted in between.
        let count = self.observations.lock().len();
        self.seen.send_modify(|seen| *seen = Ok(count));
        let params = WatchParams::default()
            .fields(&format!("metadata.name={slot}"))
            .timeout(WATCH_SECONDS);
        loop {
            let began = Instant::now();
            let events = self.in_time(api.watch(&params, &version)).await?;
            futures::pin_mut!(events);
            let silence = Duration::from_secs(u64::from(WATCH_SECONDS) + 10);
            while let Ok(Some(event)) = timeout(silence, events.next()).await {
                match event? {
                    WatchEvent::Added(lease) | WatchEvent::Modified(lease) => {
                        version = lease.metadata.resource_version.clone().unwrap_or(version);
                        self.observe(slot, lease);
                    }
                    WatchEvent::Deleted(_) => {
                        self.gone(slot);
                        return Ok(());
                    }
                    WatchEvent::Bookmark(bookmark) => version = bookmark.metadata.resource_version,
                    WatchEvent::Error(status) => return Err(Error::Api(status)),
                }
            }
            sleep(SHORTEST_WATCH.saturating_sub(began.elapsed())).await;
        }
    }

    /// Gives up on a connection on which nothing arrives: the client would wait without end, and its worker would not see
    /// the slot for as long.
    async fn in_time<T>(
        &self,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        timeout(self.candidate.times().lease * 2, request)
            .await
            .unwrap_or_else(|late| Err(Error::Service(late.into())))
    }
}

fn missing(slot: &str) -> String {
    format!("there is no Lease {slot}; the operator makes it")
}
