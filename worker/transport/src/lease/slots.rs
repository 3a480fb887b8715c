//! Slots as Kubernetes Leases, made by the operator. The Lease is also the slot's ledger, and shows outages that its holders
//! saw: annotations, written with renewals and release. An idle worker watches and writes nothing.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use serde::Serialize;
use serde::de::DeserializeOwned;
use streampress_crds::Role;
use streampress_crds::ledger::LEDGER;
use streampress_crds::slot_health::{HEALTH, SlotHealth};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Times;
use super::holder::{HeldLease, LeaseCandidate, LossCause, Renewal};
use super::observer::{Observer, RoleSlots};
use crate::slot_lock::{Deadline, RenewedSlot, keep_renewed};
use crate::{
    Ledger, SharedLedger, SlotGuard, SlotLock, SlotLocks, TransportError, TransportResult,
};

/// The slots of one role.
pub struct LeaseLock {
    observer: Arc<Observer>,
    /// Follows the Leases for as long as the lock exists.
    _follow: JoinSet<()>,
}

impl std::fmt::Debug for LeaseLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaseLock")
            .field("slots", &self.observer.slots())
            .field("identity", &self.observer.candidate().identity())
            .finish()
    }
}

/// The locks of a worker in a cluster, which reaches the API server with its pod's service account. What follows a `-` in a
/// role's name (`generator-1f2e`) distinguishes embedded slots and means nothing here. A role that is none of a
/// pipeline's has no slots.
pub async fn in_cluster(namespace: &str, pipeline: &str) -> TransportResult<SlotLocks> {
    let client = Client::try_default().await;
    let client = client.map_err(|error| {
        TransportError::unavailable("reaching the API server for the slots", error)
    })?;
    let pod = std::env::var("POD_NAME")
        .or_else(|_| std::env::var("HOSTNAME"))
        .unwrap_or_else(|_| "worker".into());
    let (namespace, pipeline) = (namespace.to_owned(), pipeline.to_owned());
    Ok(Arc::new(move |role, count| {
        let role = role.split('-').next().unwrap_or(role).parse::<Role>();
        let slots = role.map(|role| RoleSlots::new(&pipeline, role, count));
        Arc::new(LeaseLock::new(
            client.clone(),
            &namespace,
            slots.unwrap_or_default(),
            &pod,
            Times::default(),
        ))
    }))
}

impl LeaseLock {
    /// These slots. `pod` is what others see as the holder; each lock is a candidate of its own. Must be
    /// called inside the runtime.
    pub fn new(client: Client, namespace: &str, slots: RoleSlots, pod: &str, times: Times) -> Self {
        // Pod names have no underscore: before it is the pod, behind it this very process.
        let process = uuid::Uuid::new_v4().simple().to_string();
        let identity = format!("{pod}_{}", &process[..8]);
        let candidate = LeaseCandidate::new(Api::namespaced(client, namespace), identity, times);
        let observer = Observer::new(candidate, slots);
        let mut follow = JoinSet::new();
        if !observer.slots().is_empty() {
            follow.spawn(Arc::clone(&observer).follow());
        }
        Self {
            observer,
            _follow: follow,
        }
    }

    /// Takes the first slot that is free as far as seen.
    async fn take_any(&self) -> TransportResult<Option<SlotGuard>> {
        for slot in self.observer.slots() {
            let Some(free) = self.observer.free(slot) else {
                continue;
            };
            if let Some(guard) = take(&self.observer, slot, free).await? {
                return Ok(Some(guard));
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl SlotLock for LeaseLock {
    async fn try_acquire(&self) -> TransportResult<Option<SlotGuard>> {
        self.observer.all_seen().await?;
        if let Some(guard) = self.take_any().await? {
            return Ok(Some(guard));
        }
        // The caller has work: that is worth reading what the watch may not have brought yet.
        self.observer.read_all().await?;
        self.take_any().await
    }

    async fn all_held_by_others(&self) -> TransportResult<bool> {
        self.observer.all_seen().await?;
        let mut slots = self.observer.slots().iter();
        Ok(!slots.any(|slot| self.observer.free(slot).is_some()))
    }

    async fn ledger(&self) -> TransportResult<Ledger> {
        let leases = self.observer.read_all().await?;
        let ledgers = leases.iter().map(ledger_of);
        Ok(ledgers.fold(Ledger::default(), Ledger::plus))
    }
}

fn ledger_of(lease: &Lease) -> Ledger {
    annotation(lease, LEDGER)
}

/// An annotation that cannot be read counts as missing.
fn annotation<T: DeserializeOwned + Default>(lease: &Lease, name: &str) -> T {
    let annotations = lease.metadata.annotations.as_ref();
    let text = annotations.and_then(|annotations| annotations.get(name));
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

fn annotate(lease: &mut Lease, name: &str, value: &impl Serialize) {
    // Structs of numbers and texts always have a JSON form.
    let text = serde_json::to_string(value).unwrap_or_default();
    let annotations = lease.metadata.annotations.get_or_insert_default();
    annotations.insert(name.to_owned(), text);
}

/// What the holder counted, and what it knows of the services that it needs.
fn set_notes(lease: &mut Lease, notes: &SharedLedger) {
    annotate(lease, LEDGER, &notes.get());
    annotate(lease, HEALTH, &notes.health());
}

/// Takes a slot that looks free. The write runs in a task of its own: when the caller is gone by the time of its answer, the
/// slot is released.
async fn take(
    observer: &Arc<Observer>,
    slot: &str,
    free: Lease,
) -> TransportResult<Option<SlotGuard>> {
    let (answer, answered) = oneshot::channel();
    let (observer, slot) = (Arc::clone(observer), slot.to_owned());
    tokio::spawn(async move {
        let taken = take_now(&observer, &slot, free).await;
        // The slot in an answer without a receiver is dropped, which releases it.
        let _ = answer.send(taken);
    });
    answered.await.unwrap_or(Ok(None))
}

async fn take_now(
    observer: &Arc<Observer>,
    slot: &str,
    free: Lease,
) -> TransportResult<Option<SlotGuard>> {
    match observer.candidate().take(free).await {
        Ok(Some(held)) => {
            observer.observe(slot, held.lease().clone());
            Ok(Some(hold(observer, held)))
        }
        Ok(None) => {
            debug!(slot, "Lost the race for the slot (409).");
            observer.read(slot).await?;
            Ok(None)
        }
        Err(error) => Err(TransportError::unavailable(
            format!("taking the slot {slot}"),
            error,
        )),
    }
}

/// Starts the task that renews the slot and answers its holder.
fn hold(observer: &Arc<Observer>, held: HeldLease) -> SlotGuard {
    let lost = CancellationToken::new();
    let health: SlotHealth = annotation(held.lease(), HEALTH);
    let ledger = SharedLedger::with_health(ledger_of(held.lease()), health);
    let (sender, requests) = mpsc::channel(4);
    let slot = held.name().to_owned();
    let transitions = held
        .lease()
        .spec
        .as_ref()
        .and_then(|spec| spec.lease_transitions)
        .unwrap_or(0);
    info!(slot, transitions, "Took the slot.");
    let uid = held.lease().metadata.uid.clone().unwrap_or_default();
    let uid: String = uid.chars().take(8).collect();
    let identity = observer.candidate().identity();
    let attempt = format!("{slot}.{uid}.{transitions}.{identity}");
    let deadline = Deadline::new(held.deadline());
    let guard = SlotGuard::new(slot.clone(), attempt, lost.clone(), ledger.clone(), sender)
        .with_deadline(deadline.clone());
    let holding = Holding {
        observer: Arc::clone(observer),
        slot,
        held,
        ledger,
        lost,
        deadline,
    };
    tokio::spawn(keep_renewed(holding, requests));
    guard
}

/// The renewing task of a held slot.
struct Holding {
    observer: Arc<Observer>,
    slot: String,
    held: HeldLease,
    ledger: SharedLedger,
    lost: CancellationToken,
    deadline: Deadline,
}

impl RenewedSlot for Holding {
    fn next_renewal(&self) -> Instant {
        self.held.next_renewal()
    }

    fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Renews with the ledger; cancels `lost` when the slot is lost.
    async fn renew(&mut self) -> bool {
        let notes = &self.ledger;
        match self.held.renew(|lease| set_notes(lease, notes)).await {
            Renewal::Renewed => {
                self.deadline.set(self.held.deadline());
                self.observer.observe(&self.slot, self.held.lease().clone());
                return true;
            }
            Renewal::Failed => return false,
            Renewal::Lost(LossCause::Deadline) => {
                warn!(
                    slot = self.slot,
                    "Lost the slot: it could not be renewed in time."
                );
            }
            Renewal::Lost(LossCause::Taken) => {
                warn!(
                    slot = self.slot,
                    "Lost the slot: another worker holds it, or it was deleted."
                );
            }
        }
        self.lost.cancel();
        false
    }

    async fn release(self) -> bool {
        // Others may follow only when this is written or the lease has run out.
        let notes = &self.ledger;
        let released = match self.lost.is_cancelled() {
            true => None,
            false => self.held.release(|lease| set_notes(lease, notes)).await,
        };
        if let Some(lease) = &released {
            self.observer.observe(&self.slot, lease.clone());
            info!(slot = self.slot, "Released the slot.");
        }
        released.is_some()
    }
}
