//! Slots as Kubernetes Leases, made by the operator. Client-go's rules: 15, 10 and 2 seconds; expiry is judged by the
//! observer's monotonic clock alone, since the record last changed before its eyes; every update carries the resource
//! version, so of several writers one succeeds; a holder stops at the renew deadline, before anybody may follow. The
//! Lease is also the slot's ledger: an annotation, written with renewals and release. An idle worker watches and writes nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, Error};
use parking_lot::Mutex;
pub use streampress_crds::lease::Times;
use streampress_crds::ledger::LEDGER;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::slot_lock::{Deadline, HolderRequest};
use crate::{Ledger, SharedLedger, SlotGuard, SlotLock, TransportError, TransportResult};

/// How long the server keeps one watch open.
const WATCH_SECONDS: u32 = 240;
/// A watch that ends sooner than this is not asked for again at once.
const SHORTEST_WATCH: Duration = Duration::from_secs(1);

/// The slots of one role.
pub struct LeaseLock {
    shared: Arc<Shared>,
    /// Watches the Leases for as long as the lock is there.
    _watches: JoinSet<()>,
}

struct Shared {
    api: Api<Lease>,
    slots: Vec<String>,
    identity: String,
    times: Times,
    seen: Mutex<HashMap<String, Seen>>,
    /// How many slots have been looked at for the first time, or why not.
    first_look: watch::Sender<Result<usize, String>>,
}

/// What a slot looked like last, and since when.
#[derive(Clone)]
struct Seen {
    lease: Lease,
    since: Instant,
}

impl std::fmt::Debug for LeaseLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaseLock")
            .field("slots", &self.shared.slots)
            .field("identity", &self.shared.identity)
            .finish()
    }
}

/// Makes the lock of a role with so many slots.
pub type Locks = Arc<dyn Fn(&str, u32) -> Arc<dyn SlotLock> + Send + Sync>;

/// The locks of a worker in a cluster, which reaches the API server with its pod's service account. What follows a
/// `-` in a role's name (`generator-1f2e`) tells embedded slots apart and is none of the cluster's.
pub async fn in_cluster(namespace: &str, pipeline: &str) -> TransportResult<Locks> {
    let client = Client::try_default().await;
    let client = client.map_err(|error| {
        TransportError::unavailable("reaching the API server for the slots", error)
    })?;
    let pod = std::env::var("POD_NAME")
        .or_else(|_| std::env::var("HOSTNAME"))
        .unwrap_or_else(|_| "worker".into());
    let (namespace, pipeline) = (namespace.to_owned(), pipeline.to_owned());
    Ok(Arc::new(move |role, slots| {
        let role = role.split('-').next().unwrap_or(role);
        let names = slot_names(&pipeline, role, slots);
        Arc::new(LeaseLock::new(
            client.clone(),
            &namespace,
            names,
            &pod,
            Times::default(),
        ))
    }))
}

/// The Leases of a role: `<pipeline>-<role>-<n>`.
pub fn slot_names(pipeline: &str, role: &str, slots: u32) -> Vec<String> {
    (0..slots)
        .map(|number| format!("{pipeline}-{role}-{number}"))
        .collect()
}

impl LeaseLock {
    /// The slots of these names. `pod` is what others see as the holder; each lock is a candidate of its own. Must be
    /// called inside the runtime.
    pub fn new(
        client: Client,
        namespace: &str,
        slots: Vec<String>,
        pod: &str,
        times: Times,
    ) -> Self {
        let shared = Arc::new(Shared {
            api: Api::namespaced(client, namespace),
            slots,
            // Pod names have no underscore: before it is the pod, behind it this very process.
            identity: format!("{pod}_{}", &uuid::Uuid::new_v4().simple().to_string()[..8]),
            times,
            seen: Mutex::default(),
            first_look: watch::Sender::new(Ok(0)),
        });
        let mut watches = JoinSet::new();
        for slot in &shared.slots {
            watches.spawn(follow(Arc::clone(&shared), slot.clone()));
        }
        Self {
            shared,
            _watches: watches,
        }
    }
}

impl LeaseLock {
    /// The first slot that looks free and can be had.
    async fn take_any(&self) -> TransportResult<Option<SlotGuard>> {
        for slot in &self.shared.slots {
            let Some(seen) = self
                .shared
                .seen(slot)
                .filter(|seen| self.shared.is_free(seen))
            else {
                continue;
            };
            if let Some(held) = take(&self.shared, slot, seen.lease).await? {
                return Ok(Some(held));
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl SlotLock for LeaseLock {
    async fn try_acquire(&self) -> TransportResult<Option<SlotGuard>> {
        self.shared.look().await?;
        if let Some(held) = self.take_any().await? {
            return Ok(Some(held));
        }
        // Whoever asks has work in hand: worth a look at what the watch may not have brought yet.
        for slot in &self.shared.slots {
            self.shared.get(slot).await?;
        }
        self.take_any().await
    }

    async fn all_held_by_others(&self) -> TransportResult<bool> {
        self.shared.look().await?;
        let free = |slot: &String| {
            self.shared
                .seen(slot)
                .is_some_and(|seen| self.shared.is_free(&seen))
        };
        Ok(!self.shared.slots.iter().any(free))
    }

    async fn ledger(&self) -> TransportResult<Ledger> {
        let mut sum = Ledger::default();
        for slot in &self.shared.slots {
            sum = sum.plus(ledger_of(&self.shared.get(slot).await?));
        }
        Ok(sum)
    }
}

impl Shared {
    /// Waits until every slot has been seen once.
    async fn look(&self) -> TransportResult<()> {
        let mut looks = self.first_look.subscribe();
        let all =
            looks.wait_for(|looks| looks.as_ref().is_ok_and(|seen| *seen >= self.slots.len()));
        let waited = timeout(self.times.request(), all)
            .await
            .map(|seen| seen.map(drop));
        if let Ok(Ok(())) = waited {
            return Ok(());
        }
        let why = self.first_look.borrow().clone().err();
        let why = why.unwrap_or_else(|| "the API server did not answer in time".into());
        Err(TransportError::unavailable(
            format!("looking at the slots {}", self.slots.join(", ")),
            why,
        ))
    }

    fn seen(&self, slot: &str) -> Option<Seen> {
        self.map().get(slot).cloned()
    }

    fn map(&self) -> parking_lot::MutexGuard<'_, HashMap<String, Seen>> {
        self.seen.lock()
    }

    /// Writes down what a slot looks like now. A record that has not changed keeps its age, whatever else of the
    /// object has.
    fn observe(&self, slot: &str, lease: Lease) {
        let mut map = self.map();
        let before = map.get(slot);
        if before.is_some_and(|before| {
            version(&before.lease) > version(&lease)
                && before.lease.metadata.uid == lease.metadata.uid
        }) {
            return;
        }
        let since = before
            .filter(|before| before.lease.spec == lease.spec)
            .map_or_else(Instant::now, |before| before.since);
        let first = map.insert(slot.to_owned(), Seen { lease, since }).is_none();
        drop(map);
        if first {
            self.first_look
                .send_modify(|looks| *looks = Ok(self.map().len()));
        }
    }

    fn gone(&self, slot: &str) {
        self.map().remove(slot);
        self.first_look.send_modify(|looks| {
            *looks = Err(format!("there is no Lease {slot}; the operator makes it"))
        });
    }

    fn is_free(&self, seen: &Seen) -> bool {
        let Some(spec) = &seen.lease.spec else {
            return true;
        };
        if spec.holder_identity.as_ref().is_none_or(String::is_empty) {
            return true;
        }
        let theirs = spec
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok());
        seen.since.elapsed() >= theirs.map_or(self.times.lease, Duration::from_secs)
    }

    async fn get(&self, slot: &str) -> TransportResult<Lease> {
        let step = || format!("reading the slot {slot}");
        match timeout(self.times.request(), self.api.get(slot)).await {
            Ok(Ok(lease)) => {
                self.observe(slot, lease.clone());
                Ok(lease)
            }
            Ok(Err(error)) => Err(TransportError::unavailable(step(), error)),
            Err(late) => Err(TransportError::unavailable(step(), late)),
        }
    }

    /// Gives up on a connection through which nothing comes; the client would wait without end, and its worker be blind
    /// to the slot for as long.
    async fn in_time<T>(&self, asked: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        timeout(self.times.lease * 2, asked)
            .await
            .unwrap_or_else(|late| Err(Error::Service(late.into())))
    }

    /// Replaces the Lease as it was read; fails with 409 when somebody was faster.
    async fn replace(&self, slot: &str, lease: &Lease) -> Result<Lease, Error> {
        let written = self
            .api
            .replace(slot, &PostParams::default(), lease)
            .await?;
        self.observe(slot, written.clone());
        Ok(written)
    }
}

/// The API server orders an object's versions as numbers.
fn version(lease: &Lease) -> u64 {
    lease
        .metadata
        .resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

fn ledger_of(lease: &Lease) -> Ledger {
    let text = lease
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(LEDGER));
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

fn set_ledger(lease: &mut Lease, ledger: &Ledger) {
    // A struct of numbers always has a JSON form.
    let text = serde_json::to_string(ledger).unwrap_or_default();
    lease
        .metadata
        .annotations
        .get_or_insert_default()
        .insert(LEDGER.to_owned(), text);
}

/// Follows one slot: read, then watched. By name, which is all that a worker may.
async fn follow(shared: Arc<Shared>, slot: String) {
    loop {
        let pause = match follow_once(&shared, &slot).await {
            Ok(()) => Duration::ZERO,
            Err(Error::Api(status)) if status.code == 410 => Duration::ZERO,
            Err(Error::Api(status)) if status.code == 404 => {
                shared.gone(&slot);
                Duration::from_secs(2)
            }
            Err(error) => {
                warn!(slot, %error, "Could not watch the slot; trying again.");
                shared.first_look.send_if_modified(|looks| {
                    let news = looks.as_ref().is_ok_and(|seen| *seen < shared.slots.len());
                    if news {
                        *looks = Err(error.to_string());
                    }
                    news
                });
                Duration::from_secs(2)
            }
        };
        sleep(pause.max(Duration::from_millis(100))).await;
    }
}

async fn follow_once(shared: &Shared, slot: &str) -> Result<(), Error> {
    let lease = shared.in_time(shared.api.get(slot)).await?;
    let mut at = lease.metadata.resource_version.clone().unwrap_or_default();
    shared.observe(slot, lease);
    shared
        .first_look
        .send_modify(|looks| *looks = Ok(shared.map().len()));
    let params = WatchParams::default()
        .fields(&format!("metadata.name={slot}"))
        .timeout(WATCH_SECONDS);
    loop {
        let began = Instant::now();
        let events = shared.in_time(shared.api.watch(&params, &at)).await?;
        futures::pin_mut!(events);
        let silence = Duration::from_secs(u64::from(WATCH_SECONDS) + 10);
        while let Ok(Some(event)) = timeout(silence, events.next()).await {
            match event? {
                WatchEvent::Added(lease) | WatchEvent::Modified(lease) => {
                    at = lease.metadata.resource_version.clone().unwrap_or(at);
                    shared.observe(slot, lease);
                }
                WatchEvent::Deleted(_) => {
                    shared.gone(slot);
                    return Ok(());
                }
                WatchEvent::Bookmark(bookmark) => at = bookmark.metadata.resource_version,
                WatchEvent::Error(status) => return Err(Error::Api(status)),
            }
        }
        sleep(SHORTEST_WATCH.saturating_sub(began.elapsed())).await;
    }
}

/// Takes a slot that looks free. The write goes on in a task of its own: when the caller has gone by the time of its
/// answer, the slot is given back.
async fn take(shared: &Arc<Shared>, slot: &str, free: Lease) -> TransportResult<Option<SlotGuard>> {
    let (answer, answered) = oneshot::channel();
    let (shared, slot) = (Arc::clone(shared), slot.to_owned());
    tokio::spawn(async move {
        let taken = take_now(&shared, &slot, free).await;
        // The slot in the answer is released by being dropped.
        let _ = answer.send(taken);
    });
    answered.await.unwrap_or(Ok(None))
}

async fn take_now(
    shared: &Arc<Shared>,
    slot: &str,
    free: Lease,
) -> TransportResult<Option<SlotGuard>> {
    let mut lease = free;
    lease.metadata.managed_fields = None;
    let before = lease.spec.unwrap_or_default();
    let transitions = before.lease_transitions.unwrap_or(0).saturating_add(1);
    let now = MicroTime(Timestamp::now());
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(shared.identity.clone()),
        lease_duration_seconds: Some(shared.times.lease_seconds()),
        acquire_time: Some(now.clone()),
        renew_time: Some(now),
        lease_transitions: Some(transitions),
        ..LeaseSpec::default()
    });
    // Measured from before the record was written: never later than what others count from.
    let asked = Instant::now();
    match timeout(shared.times.request(), shared.replace(slot, &lease)).await {
        Ok(Ok(lease)) => {
            info!(slot, transitions, "Took the slot.");
            Ok(Some(hold(shared, slot, lease, transitions, asked)))
        }
        Ok(Err(Error::Api(status))) if status.code == 409 => {
            debug!(slot, "Somebody else was faster.");
            shared.get(slot).await?;
            Ok(None)
        }
        Ok(Err(error)) => Err(TransportError::unavailable(
            format!("taking the slot {slot}"),
            error,
        )),
        Err(late) => Err(TransportError::unavailable(
            format!("taking the slot {slot}"),
            late,
        )),
    }
}

/// Starts the task that renews the slot and answers its holder.
fn hold(
    shared: &Arc<Shared>,
    slot: &str,
    lease: Lease,
    transitions: i32,
    since: Instant,
) -> SlotGuard {
    let lost = CancellationToken::new();
    let ledger = SharedLedger::new(ledger_of(&lease));
    let (requests, asked) = mpsc::channel(4);
    let uid: String = lease
        .metadata
        .uid
        .clone()
        .unwrap_or_default()
        .chars()
        .take(8)
        .collect();
    let attempt = format!("{slot}.{uid}.{transitions}.{}", shared.identity);
    let until = Deadline::new(since + shared.times.deadline);
    let held = SlotGuard::new(
        slot.to_owned(),
        attempt,
        lost.clone(),
        ledger.clone(),
        requests,
    )
    .with_deadline(until.clone());
    let holding = Holding {
        shared: Arc::clone(shared),
        slot: slot.to_owned(),
        lease,
        ledger,
        lost,
        renewed_at: since,
        until,
    };
    tokio::spawn(holding.keep(asked));
    held
}

/// The renewing task's side of a held slot.
struct Holding {
    shared: Arc<Shared>,
    slot: String,
    /// As last written.
    lease: Lease,
    ledger: SharedLedger,
    lost: CancellationToken,
    renewed_at: Instant,
    until: Deadline,
}

/// How one write went.
enum Wrote {
    Done,
    /// It may succeed later.
    NotYet,
    /// The slot is somebody else's.
    NotOurs,
}

impl Holding {
    async fn keep(mut self, mut asked: mpsc::Receiver<HolderRequest>) {
        let period = self.shared.times.period;
        let mut next_renewal = self.renewed_at + period;
        loop {
            tokio::select! {
                request = asked.recv() => match request {
                    Some(HolderRequest::Flush(answer)) => {
                        let _ = answer.send(self.renew().await);
                    }
                    Some(HolderRequest::Release(answer)) => return self.give_up(Some(answer)).await,
                    None => return self.give_up(None).await,
                },
                () = tokio::time::sleep_until(next_renewal) => {
                    self.renew().await;
                    // A failed renewal is tried again soon, but `lost` never comes later than the deadline.
                    next_renewal = (Instant::now() + period).min(self.deadline());
                }
            }
            if self.lost.is_cancelled() {
                return;
            }
        }
    }

    fn deadline(&self) -> Instant {
        self.renewed_at + self.shared.times.deadline
    }

    /// Renews; cancels `lost` when the slot is somebody else's, or at the deadline, even in the middle of a request.
    async fn renew(&mut self) -> bool {
        let asked = Instant::now();
        let deadline = self.deadline();
        let wrote = timeout_at(deadline, self.write(false))
            .await
            .unwrap_or(Wrote::NotYet);
        match wrote {
            Wrote::Done => {
                self.renewed_at = asked;
                self.until.set(self.deadline());
                return true;
            }
            Wrote::NotYet if Instant::now() < deadline => return false,
            Wrote::NotYet => warn!(
                slot = self.slot,
                "Lost the slot: it could not be renewed in time."
            ),
            Wrote::NotOurs => warn!(slot = self.slot, "Lost the slot: somebody else holds it."),
        }
        self.lost.cancel();
        false
    }

    /// Writes record and ledger. A conflict is not yet a loss: the operator may have touched the object's labels.
    async fn write(&mut self, release: bool) -> Wrote {
        for _ in 0..5 {
            let mut lease = self.lease.clone();
            lease.metadata.managed_fields = None;
            let counted = self.ledger.get();
            set_ledger(&mut lease, &counted);
            let spec = lease.spec.get_or_insert_default();
            spec.renew_time = Some(MicroTime(Timestamp::now()));
            if release {
                spec.holder_identity = None;
                spec.lease_duration_seconds = Some(1);
            }
            match timeout(
                self.shared.times.request(),
                self.shared.replace(&self.slot, &lease),
            )
            .await
            {
                Ok(Ok(written)) => {
                    self.lease = written;
                    return Wrote::Done;
                }
                Ok(Err(Error::Api(status))) if status.code == 404 => return Wrote::NotOurs,
                Ok(Err(Error::Api(status))) if status.code == 409 => {
                    match self.shared.get(&self.slot).await {
                        Ok(now) if self.is_ours(&now) => self.lease = now,
                        Ok(_) => return Wrote::NotOurs,
                        Err(error) => {
                            warn!(slot = self.slot, %error, "Could not read the slot again; trying again.");
                            return Wrote::NotYet;
                        }
                    }
                }
                Ok(Err(error)) => {
                    warn!(slot = self.slot, %error, "Could not renew the slot; trying again.");
                    return Wrote::NotYet;
                }
                Err(_) => {
                    warn!(
                        slot = self.slot,
                        "The API server did not answer in time about the slot; trying again."
                    );
                    return Wrote::NotYet;
                }
            }
        }
        Wrote::NotYet
    }

    /// The same holding: nobody else in between, and the same Lease.
    fn is_ours(&self, now: &Lease) -> bool {
        let record = |lease: &Lease| {
            lease
                .spec
                .as_ref()
                .map(|spec| (spec.holder_identity.clone(), spec.lease_transitions))
        };
        now.metadata.uid == self.lease.metadata.uid && record(now) == record(&self.lease)
    }

    async fn give_up(mut self, answer: Option<oneshot::Sender<bool>>) {
        // Somebody else may follow only when this is written or the lease has run out.
        let mut released = false;
        while !released && Instant::now() < self.deadline() && !self.lost.is_cancelled() {
            match timeout_at(self.deadline(), self.write(true)).await {
                Ok(Wrote::Done) => released = true,
                Ok(Wrote::NotYet) => sleep(Duration::from_millis(200)).await,
                Ok(Wrote::NotOurs) | Err(_) => break,
            }
        }
        if released {
            info!(slot = self.slot, "Gave the slot up.");
        }
        if let Some(answer) = answer {
            let _ = answer.send(released);
        }
    }
}
