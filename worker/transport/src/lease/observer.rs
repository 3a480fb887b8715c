//! What the Leases of a role look like: all are listed and then watched together, by the labels that the operator gives them.
//! Where that is not allowed, as in a Role that an earlier operator made, each is read and watched by its name.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Error;
use kube::api::{ListParams, WatchEvent, WatchParams};
use parking_lot::Mutex;
use streampress_crds::{Role, names};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::holder::{LeaseCandidate, is_code};
use super::rules::Observation;
use crate::{TransportError, TransportResult};

/// Leases in one answer to a list.
const PAGE: u32 = 500;
/// How long the server keeps one watch open.
const WATCH_SECONDS: u32 = 240;
/// A watch that ended sooner than this is begun again only after it.
const SHORTEST_WATCH: Duration = Duration::from_secs(1);
/// After this a worker that may not list asks again: its Role changes without its pod.
const LISTED_AGAIN: Duration = Duration::from_secs(3600);
/// Before a watch is begun again that failed, and that the server ended.
const AFTER_FAILURE: Duration = Duration::from_secs(2);
const AFTER_END: Duration = Duration::from_millis(100);

/// The slots of a role: the Leases' names, in their order, and the labels by which all of them are found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoleSlots {
    names: Vec<String>,
    selector: String,
}

impl RoleSlots {
    /// The slots of a pipeline's role.
    pub fn new(pipeline: &str, role: Role, count: u32) -> Self {
        Self {
            names: names::slots(pipeline, role, count),
            selector: names::selector(pipeline, role),
        }
    }
}

/// The Leases of some slots, as seen last.
pub(super) struct Observer {
    candidate: LeaseCandidate,
    slots: RoleSlots,
    /// Listing is not allowed: each Lease is read by its name.
    is_by_name: AtomicBool,
    /// A role may have thousands of slots: their places in the order, by name.
    places: HashMap<String, usize>,
    observations: Mutex<Vec<Option<Observation>>>,
    /// How many slots have been seen, or why not.
    seen: watch::Sender<Result<usize, String>>,
}

impl Observer {
    pub(super) fn new(candidate: LeaseCandidate, slots: RoleSlots) -> Arc<Self> {
        let names = slots.names.iter().cloned();
        Arc::new(Self {
            candidate,
            is_by_name: AtomicBool::new(false),
            places: names.zip(0..).collect(),
            observations: Mutex::new(vec![None; slots.names.len()]),
            seen: watch::Sender::new(Ok(0)),
            slots,
        })
    }

    pub(super) fn candidate(&self) -> &LeaseCandidate {
        &self.candidate
    }

    pub(super) fn slots(&self) -> &[String] {
        &self.slots.names
    }

    /// Waits until every slot has been seen once.
    pub(super) async fn all_seen(&self) -> TransportResult<()> {
        let mut seen = self.seen.subscribe();
        let all = seen.wait_for(|seen| seen.as_ref().is_ok_and(|seen| *seen >= self.places.len()));
        let waited = timeout(self.candidate.times().request(), all)
            .await
            .map(|seen| seen.map(drop));
        if let Ok(Ok(())) = waited {
            return Ok(());
        }
        let why = self.seen.borrow().clone().err();
        Err(self.unread(why.unwrap_or_else(|| "the API server did not answer in time".into())))
    }

    fn unread(&self, why: String) -> TransportError {
        let (first, last) = (self.slots().first(), self.slots().last());
        let name = |slot: Option<&String>| slot.cloned().unwrap_or_default();
        let step = match self.places.len() {
            0 | 1 => format!("reading the slot {}", name(first)),
            _ => format!("reading the slots {} to {}", name(first), name(last)),
        };
        TransportError::unavailable(step, why)
    }

    /// The slot's Lease, where it is free as far as seen.
    pub(super) fn free(&self, slot: &str) -> Option<Lease> {
        let observations = self.observations.lock();
        let observed = observations[*self.places.get(slot)?].as_ref()?;
        observed
            .is_free(self.candidate.times())
            .then(|| observed.lease().clone())
    }

    /// Reads every Lease now.
    pub(super) async fn read_all(&self) -> TransportResult<Vec<Lease>> {
        if !self.is_by_name.load(Ordering::Relaxed) {
            match self.list().await {
                Ok(listed) => match listed.missing(self.slots()) {
                    Some(slot) => return Err(self.unread(missing_lease(slot))),
                    None => return Ok(listed.leases.into_values().collect()),
                },
                Err(error) if is_code(&error, 403) => {}
                Err(error) => return Err(self.unread(error.to_string())),
            }
        }
        let mut leases = Vec::new();
        for slot in self.slots() {
            leases.push(self.read(slot).await?);
        }
        Ok(leases)
    }

    /// Reads a slot's Lease now.
    pub(super) async fn read(&self, slot: &str) -> TransportResult<Lease> {
        let step = || format!("reading the slot {slot}");
        match self.candidate.get(slot).await {
            Ok(Some(lease)) => {
                self.observe(slot, lease.clone());
                Ok(lease)
            }
            Ok(None) => Err(TransportError::unavailable(step(), missing_lease(slot))),
            Err(error) => Err(TransportError::unavailable(step(), error)),
        }
    }

    /// Notes what a slot looks like now.
    pub(super) fn observe(&self, slot: &str, lease: Lease) {
        let Some(place) = self.places.get(slot) else {
            return;
        };
        let mut observations = self.observations.lock();
        if let Some(observed) = &mut observations[*place] {
            observed.update(lease);
            return;
        }
        observations[*place] = Some(Observation::new(lease));
        let count = observations.iter().flatten().count();
        drop(observations);
        self.seen.send_if_modified(|seen| {
            // What is wrong with other slots stays known.
            let news = seen.is_ok() || count == self.places.len();
            if news {
                *seen = Ok(count);
            }
            news
        });
    }

    fn gone(&self, slot: &str) {
        if let Some(place) = self.places.get(slot) {
            self.observations.lock()[*place] = None;
            let why = missing_lease(slot);
            self.seen.send_modify(|seen| *seen = Err(why));
        }
    }

    fn first_missing(&self) -> Option<String> {
        let observations = self.observations.lock();
        let place = observations.iter().position(Option::is_none)?;
        Some(self.slots()[place].clone())
    }

    /// Follows all slots for as long as it is polled.
    pub(super) async fn follow(self: Arc<Self>) {
        loop {
            let pause = match self.follow_role().await {
                Ok(()) => AFTER_END,
                Err(error) if is_code(&error, 410) => AFTER_END,
                Err(error) if is_code(&error, 403) => {
                    self.follow_each().await;
                    AFTER_END
                }
                Err(error) => self.failed(&error, "the slots"),
            };
            sleep(pause).await;
        }
    }

    /// Follows each slot by its name, until it is time to see whether all may be listed.
    async fn follow_each(&self) {
        if !self.is_by_name.swap(true, Ordering::Relaxed) {
            info!("The worker's Role does not allow to list Leases: each slot is watched.");
        }
        let each = self.slots().iter().map(|slot| self.follow_slot(slot));
        let _ = timeout(LISTED_AGAIN, join_all(each)).await;
    }

    async fn follow_role(&self) -> Result<(), Error> {
        let listed = self.list().await?;
        self.is_by_name.store(false, Ordering::Relaxed);
        for slot in self.slots() {
            if !listed.leases.contains_key(slot) {
                self.gone(slot);
            }
        }
        let params = WatchParams::default().labels(&self.slots.selector);
        self.watch(&params, listed.version).await
    }

    /// Lists all Leases of the role, and notes what they look like.
    async fn list(&self) -> Result<Listed, Error> {
        let params = ListParams::default().limit(PAGE);
        let mut params = params.labels(&self.slots.selector);
        let mut leases = HashMap::new();
        loop {
            let page = self.in_time(self.candidate.api().list(&params)).await?;
            for lease in page.items {
                let name = lease.metadata.name.clone().unwrap_or_default();
                if self.places.contains_key(&name) {
                    self.observe(&name, lease.clone());
                    leases.insert(name, lease);
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => {
                    let version = page.metadata.resource_version.unwrap_or_default();
                    return Ok(Listed { version, leases });
                }
            }
        }
    }

    async fn follow_slot(&self, slot: &str) {
        loop {
            let pause = match self.follow_slot_once(slot).await {
                Ok(()) => AFTER_END,
                Err(error) if is_code(&error, 410) => AFTER_END,
                Err(error) if is_code(&error, 404) => {
                    self.gone(slot);
                    AFTER_FAILURE
                }
                Err(error) => self.failed(&error, slot),
            };
            sleep(pause).await;
        }
    }

    async fn follow_slot_once(&self, slot: &str) -> Result<(), Error> {
        let lease = self.in_time(self.candidate.api().get(slot)).await?;
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        self.observe(slot, lease);
        let params = WatchParams::default().fields(&format!("metadata.name={slot}"));
        self.watch(&params, version).await
    }

    /// Notes what changes after this version. A slot that is deleted may come again.
    async fn watch(&self, params: &WatchParams, mut version: String) -> Result<(), Error> {
        self.worked();
        let params = params.clone().timeout(WATCH_SECONDS);
        loop {
            let began = Instant::now();
            let events = self.candidate.api().watch(&params, &version);
            let events = self.in_time(events).await?;
            futures::pin_mut!(events);
            let silence = Duration::from_secs(u64::from(WATCH_SECONDS) + 10);
            while let Ok(Some(event)) = timeout(silence, events.next()).await {
                match event? {
                    WatchEvent::Added(lease) | WatchEvent::Modified(lease) => {
                        version = lease.metadata.resource_version.clone().unwrap_or(version);
                        let name = lease.metadata.name.clone().unwrap_or_default();
                        self.observe(&name, lease);
                    }
                    WatchEvent::Deleted(lease) => {
                        version = lease.metadata.resource_version.clone().unwrap_or(version);
                        self.gone(&lease.metadata.name.unwrap_or_default());
                    }
                    WatchEvent::Bookmark(bookmark) => version = bookmark.metadata.resource_version,
                    WatchEvent::Error(status) => return Err(Error::Api(status)),
                }
            }
            sleep(SHORTEST_WATCH.saturating_sub(began.elapsed())).await;
        }
    }

    /// An error that was noted before holds no longer, unless a slot is missing.
    fn worked(&self) {
        let count = self.observations.lock().iter().flatten().count();
        let missing = self.first_missing();
        let missing = missing.filter(|_| !self.is_by_name.load(Ordering::Relaxed));
        let seen = missing.map_or(Ok(count), |slot| Err(missing_lease(&slot)));
        self.seen.send_modify(|before| *before = seen);
    }

    /// Notes an error that all who wait for the slots are told; answers how long to wait.
    fn failed(&self, error: &Error, what: &str) -> Duration {
        warn!(slots = what, %error, "Could not watch the slots; trying again.");
        self.seen.send_if_modified(|seen| {
            let news = seen.as_ref().is_ok_and(|seen| *seen < self.places.len());
            if news {
                *seen = Err(error.to_string());
            }
            news
        });
        AFTER_FAILURE
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

/// The Leases of a role's slots, by name, and the version that they have together.
struct Listed {
    version: String,
    leases: HashMap<String, Lease>,
}

impl Listed {
    fn missing<'s>(&self, slots: &'s [String]) -> Option<&'s String> {
        slots.iter().find(|slot| !self.leases.contains_key(*slot))
    }
}

fn missing_lease(slot: &str) -> String {
    format!("there is no Lease {slot}; the operator makes it")
}
