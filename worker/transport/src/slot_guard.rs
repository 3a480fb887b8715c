//! A slot in hand and its ledger. The side that granted the slot runs a task that renews it and answers here;
//! this file does not know which side that is.

use std::sync::{Arc, Mutex, PoisonError};

pub use streampress_crds::ledger::Ledger;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What a holder asks of the task that renews its slot. Each is answered when it is durable.
#[derive(Debug)]
pub enum HolderRequest {
    /// Write the ledger now.
    Flush(oneshot::Sender<bool>),
    /// Write the ledger and give the slot up.
    Release(oneshot::Sender<bool>),
}

/// A slot in hand. Dropping it without [`SlotGuard::release`] lets the renewing task release it in the background.
#[derive(Debug)]
pub struct SlotGuard {
    slot: String,
    attempt: String,
    lost: CancellationToken,
    ledger: Arc<Mutex<Ledger>>,
    requests: mpsc::Sender<HolderRequest>,
    until: Option<Deadline>,
}

/// Until when a slot is surely held; moved on with every renewal.
pub type Deadline = Arc<Mutex<Instant>>;

/// Whether the moment that is kept here has passed.
pub fn is_expired(until: &Mutex<Instant>) -> bool {
    Instant::now() >= *until.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SlotGuard {
    /// Made by the side that granted the slot. `attempt` names this holding in records: slot, lease identity and
    /// transition, process. `lost` must be cancelled before anyone else may act. The renewing task owns the
    /// other end of `requests` and releases the slot when that channel closes.
    pub fn new(
        slot: String,
        attempt: String,
        lost: CancellationToken,
        ledger: Arc<Mutex<Ledger>>,
        requests: mpsc::Sender<HolderRequest>,
    ) -> Self {
        Self {
            slot,
            attempt,
            lost,
            ledger,
            requests,
            until: None,
        }
    }

    /// With the time at which `lost` will be cancelled at the latest.
    pub fn until(self, deadline: Deadline) -> Self {
        Self {
            until: Some(deadline),
            ..self
        }
    }

    /// Whether it may still act: asked right before an effect. A process that was frozen past its deadline knows by the
    /// clock, before anything in it has had the time to cancel `lost`.
    pub fn ensure_owner(&self) -> bool {
        !self.lost.is_cancelled() && !self.until.as_ref().is_some_and(|until| is_expired(until))
    }

    /// The slot's name.
    pub fn slot(&self) -> &str {
        &self.slot
    }

    /// Names this holding of the slot; unique over processes and takeovers.
    pub fn attempt(&self) -> &str {
        &self.attempt
    }

    /// Cancelled when the slot may belong to somebody else: all effects must stop.
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Counts in memory; written with the next renewal, flush or release.
    pub fn count(&self, change: impl FnOnce(&mut Ledger)) {
        change(&mut self.ledger.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The ledger as counted so far.
    pub fn ledger(&self) -> Ledger {
        *self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the ledger now; false when the slot was lost.
    pub async fn flush(&self) -> bool {
        self.ask(HolderRequest::Flush).await
    }

    /// Writes the ledger and gives the slot up; false when it was lost before.
    pub async fn release(self) -> bool {
        self.ask(HolderRequest::Release).await
    }

    async fn ask(&self, request: impl FnOnce(oneshot::Sender<bool>) -> HolderRequest) -> bool {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.is_ok() && answered.await.unwrap_or(false)
    }
}
