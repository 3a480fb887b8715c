//! The contract of a role's slots: the lock, and the guard of one held slot with its ledger.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
pub use streampress_crds::ledger::Ledger;
use streampress_crds::slot_health::SlotHealth;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Moment, TransportResult};

/// The slots of one role: a worker acts only while it holds one of them, and holds it only while there is work.
///
/// Contract of every implementation: at most one holder per slot believes itself to be one, except for the remainder that
/// no lease can exclude (handlers are idempotent); a holder that cannot renew is told by [`SlotGuard::lost`] before
/// another worker may take over; a holder that died is followed within the lease time (embedded: at once, since
/// its file lock ends with its process); expiry is judged by the observer's monotonic clock only, and by its holder's clock
/// that also runs while the machine sleeps.
#[async_trait]
pub trait SlotLock: Send + Sync + fmt::Debug {
    /// Takes a free slot, if there is one now.
    async fn try_acquire(&self) -> TransportResult<Option<SlotGuard>>;
    /// Whether all slots are held by others, as far as observed; a standby waits while this is so, without polling a queue.
    async fn all_held_by_others(&self) -> TransportResult<bool>;
    /// The sum of all slots' ledgers.
    async fn ledger(&self) -> TransportResult<Ledger>;
}

/// Makes the lock of a role with so many slots.
pub type SlotLocks = Arc<dyn Fn(&str, u32) -> Arc<dyn SlotLock> + Send + Sync>;

/// What a holder requests of the task that renews its slot. Each is answered when it is durable.
#[derive(Debug)]
pub enum HolderRequest {
    /// Write the ledger now.
    Flush(oneshot::Sender<bool>),
    /// Write the ledger and release the slot.
    Release(oneshot::Sender<bool>),
}

/// A slot as the task that renews it holds it.
#[cfg(any(feature = "local", feature = "kubernetes"))]
pub(crate) trait RenewedSlot {
    /// When it is to be renewed next.
    fn next_renewal(&self) -> Instant;
    /// Renews it with its ledger; whether that succeeded.
    fn renew(&mut self) -> impl Future<Output = bool> + Send;
    /// Whether it is lost.
    fn is_lost(&self) -> bool;
    /// Writes the ledger and releases the slot; whether that succeeded.
    fn release(self) -> impl Future<Output = bool> + Send;
}

/// Renews the slot until it is released or lost.
#[cfg(any(feature = "local", feature = "kubernetes"))]
pub(crate) async fn keep_renewed(
    mut slot: impl RenewedSlot,
    mut requests: mpsc::Receiver<HolderRequest>,
) {
    let mut next_renewal = slot.next_renewal();
    loop {
        tokio::select! {
            request = requests.recv() => match request {
                Some(HolderRequest::Flush(answer)) => {
                    let _ = answer.send(slot.renew().await);
                }
                Some(HolderRequest::Release(answer)) => {
                    let _ = answer.send(slot.release().await);
                    return;
                }
                None => {
                    slot.release().await;
                    return;
                }
            },
            () = tokio::time::sleep_until(next_renewal) => {
                slot.renew().await;
                next_renewal = slot.next_renewal();
            }
        }
        if slot.is_lost() {
            return;
        }
    }
}

/// A held slot. Dropping it without [`SlotGuard::release`] lets the renewing task release it in the background.
#[derive(Debug)]
pub struct SlotGuard {
    slot: String,
    attempt: String,
    lost: CancellationToken,
    ledger: SharedLedger,
    requests: mpsc::Sender<HolderRequest>,
    deadline: Option<Deadline>,
}

/// Until when something is certainly held; moved on with every renewal. Time that the machine sleeps counts.
#[derive(Debug, Clone)]
pub struct Deadline(Arc<Mutex<HeldUntil>>);

#[derive(Debug, Clone, Copy)]
struct HeldUntil {
    set_at: Moment,
    until: Instant,
}

impl HeldUntil {
    fn new(until: Instant) -> Self {
        Self {
            set_at: Moment::now(),
            until,
        }
    }
}

impl Deadline {
    /// Held until `until`.
    pub fn new(until: Instant) -> Self {
        Self(Arc::new(Mutex::new(HeldUntil::new(until))))
    }

    /// Held until `until` from now on.
    pub fn set(&self, until: Instant) {
        *self.0.lock() = HeldUntil::new(until);
    }

    /// Until when it is held, as far as the machine does not sleep any more.
    pub fn get(&self) -> Instant {
        let HeldUntil { set_at, until } = *self.0.lock();
        until
            .checked_sub(set_at.slept())
            .unwrap_or_else(Instant::now)
    }

    /// Whether that moment has passed.
    pub fn is_expired(&self) -> bool {
        Instant::now() >= self.get()
    }
}

/// A ledger that a holder counts in and the renewing task writes, and what the holder knows of the services that it needs.
#[derive(Debug, Clone, Default)]
pub struct SharedLedger(Arc<Mutex<SlotNotes>>);

#[derive(Debug, Default)]
struct SlotNotes {
    ledger: Ledger,
    health: SlotHealth,
}

impl SharedLedger {
    /// Counted from `ledger` on.
    pub fn new(ledger: Ledger) -> Self {
        Self::with_health(ledger, SlotHealth::default())
    }

    /// The same, with what former holders knew of the services.
    pub(crate) fn with_health(ledger: Ledger, health: SlotHealth) -> Self {
        Self(Arc::new(Mutex::new(SlotNotes { ledger, health })))
    }

    /// As counted so far.
    pub fn get(&self) -> Ledger {
        self.0.lock().ledger
    }

    /// Counts.
    pub fn change(&self, change: impl FnOnce(&mut Ledger)) {
        change(&mut self.0.lock().ledger);
    }

    /// What the holder knows of the services that it needs.
    pub fn health(&self) -> SlotHealth {
        self.0.lock().health.clone()
    }

    /// Changes what the holder knows of the services.
    pub fn change_health(&self, change: impl FnOnce(&mut SlotHealth)) {
        change(&mut self.0.lock().health);
    }
}

impl SlotGuard {
    /// For implementations of [`SlotLock`]. `attempt` names this holding in records: slot, lease identity and transition,
    /// process. `lost` must be cancelled before another worker may act. The renewing task owns the other end of
    /// `requests` and releases the slot when that channel closes.
    pub fn new(
        slot: String,
        attempt: String,
        lost: CancellationToken,
        ledger: SharedLedger,
        requests: mpsc::Sender<HolderRequest>,
    ) -> Self {
        Self {
            slot,
            attempt,
            lost,
            ledger,
            requests,
            deadline: None,
        }
    }

    /// With the time at which `lost` will be cancelled at the latest.
    pub(crate) fn with_deadline(self, deadline: Deadline) -> Self {
        Self {
            deadline: Some(deadline),
            ..self
        }
    }

    /// Whether the worker still holds the slot; check it right before an effect. A process that was frozen past its
    /// deadline knows by the clock, before anything in it has had the time to cancel `lost`.
    pub fn ensure_owner(&self) -> bool {
        !self.lost.is_cancelled() && !self.deadline.as_ref().is_some_and(Deadline::is_expired)
    }

    /// The slot's name.
    pub fn slot(&self) -> &str {
        &self.slot
    }

    /// Names this holding of the slot; unique over processes and takeovers.
    pub fn attempt(&self) -> &str {
        &self.attempt
    }

    /// Cancelled when the slot may belong to another worker: all effects must stop.
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Counts in memory; written with the next renewal, flush or release.
    pub fn count(&self, change: impl FnOnce(&mut Ledger)) {
        self.ledger.change(change);
    }

    /// Notes what the holder learned of the services that it needs. Leases show it with the next renewal, flush or release;
    /// other implementations do not keep it.
    pub fn change_health(&self, change: impl FnOnce(&mut SlotHealth)) {
        self.ledger.change_health(change);
    }

    /// What the holder knows of the services that it needs.
    pub fn health(&self) -> SlotHealth {
        self.ledger.health()
    }

    /// The ledger as counted so far.
    pub fn ledger(&self) -> Ledger {
        self.ledger.get()
    }

    /// Writes the ledger now; false when the slot was lost.
    pub async fn flush(&self) -> bool {
        self.request(HolderRequest::Flush).await
    }

    /// Writes the ledger and releases the slot; false when it was lost before.
    pub async fn release(self) -> bool {
        self.request(HolderRequest::Release).await
    }

    async fn request(&self, request: impl FnOnce(oneshot::Sender<bool>) -> HolderRequest) -> bool {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.is_ok() && answered.await.unwrap_or(false)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::tests::sleep_machine;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_passes_while_the_machine_sleeps() {
        let minute = Duration::from_secs(60);
        let deadline = Deadline::new(Instant::now() + minute);
        sleep_machine(minute / 2);
        assert!(!deadline.is_expired());
        sleep_machine(minute);
        assert!(deadline.is_expired());
        deadline.set(Instant::now() + minute);
        assert!(
            !deadline.is_expired(),
            "a renewal counts from its own moment"
        );
    }
}
