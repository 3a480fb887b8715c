//! The slots of a role in simulated time, as Leases have them: renewed every two seconds, given up after ten without
//! success, taken over after fifteen.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::process::SimProcess;
use super::world::{SimService, World};
use crate::slot_lock::HolderRequest;
use crate::{Deadline, Ledger, SharedLedger, SlotGuard, SlotLock, TransportResult};

const RENEWAL: Duration = Duration::from_secs(2);
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const LEASE: Duration = Duration::from_secs(15);

/// The slots of one role. Clones are the same slots.
#[derive(Debug, Clone)]
pub struct SimSlots {
    role: String,
    service: SimService,
    slots: Arc<Mutex<Vec<Slot>>>,
}

#[derive(Debug)]
struct Slot {
    /// The number of the holding, unless it was released.
    holding: Option<u64>,
    renewed_at: Instant,
    holdings: u64,
    ledger: Ledger,
}

impl Slot {
    fn is_held(&self) -> bool {
        self.holding.is_some() && self.renewed_at.elapsed() < LEASE
    }
}

impl SimSlots {
    /// So many free slots.
    pub fn new(world: &World, role: &str, slots: u32) -> Self {
        let free = || Slot {
            holding: None,
            renewed_at: Instant::now(),
            holdings: 0,
            ledger: Ledger::default(),
        };
        Self {
            role: role.to_owned(),
            service: SimService::new(world, &format!("the slots of {role}")),
            slots: Arc::new(Mutex::new((0..slots).map(|_| free()).collect())),
        }
    }

    /// The slots as a process sees them.
    pub fn open(&self, process: &SimProcess) -> SimLock {
        SimLock {
            slots: self.clone(),
            process: process.clone(),
        }
    }

    /// Their faults.
    pub fn service(&self) -> &SimService {
        &self.service
    }

    /// Takes every slot from its holder, who learns it at the next renewal.
    pub fn take_away(&self) {
        for slot in &mut *self.slots.lock() {
            slot.holding = None;
        }
    }

    /// The sum of all ledgers, as far as written.
    pub fn written(&self) -> Ledger {
        let slots = self.slots.lock();
        let ledgers = slots.iter().map(|slot| slot.ledger);
        ledgers.fold(Ledger::default(), Ledger::plus)
    }

    fn acquire(&self) -> Option<(usize, u64, Ledger)> {
        let mut slots = self.slots.lock();
        let (number, slot) = slots
            .iter_mut()
            .enumerate()
            .find(|(_, slot)| !slot.is_held())?;
        slot.holdings += 1;
        slot.holding = Some(slot.holdings);
        slot.renewed_at = Instant::now();
        Some((number, slot.holdings, slot.ledger))
    }

    /// Renews, or releases, and writes the ledger; false when another holds it.
    fn write(&self, holding: (usize, u64), ledger: Ledger, keeps: bool) -> bool {
        let mut slots = self.slots.lock();
        let held = slots
            .get_mut(holding.0)
            .filter(|slot| slot.holding == Some(holding.1));
        let Some(slot) = held else { return false };
        slot.renewed_at = Instant::now();
        slot.ledger = ledger;
        if !keeps {
            slot.holding = None;
        }
        true
    }
}

/// The slots of a role as one process sees them.
#[derive(Debug, Clone)]
pub struct SimLock {
    slots: SimSlots,
    process: SimProcess,
}

impl SimLock {
    async fn call<T>(
        &self,
        step: &str,
        effect: impl FnOnce() -> TransportResult<T>,
    ) -> TransportResult<T> {
        self.slots.service.call(&self.process, step, effect).await
    }
}

#[async_trait]
impl SlotLock for SimLock {
    async fn try_acquire(&self) -> TransportResult<Option<SlotGuard>> {
        let asked_at = Instant::now();
        let acquire = || Ok(self.slots.acquire());
        let Some((number, holding, ledger)) = self.call("acquiring", acquire).await? else {
            return Ok(None);
        };
        let (sender, requests) = mpsc::channel(1);
        let holder = Holder {
            lock: self.clone(),
            holding: (number, holding),
            lost: CancellationToken::new(),
            ledger: SharedLedger::new(ledger),
            deadline: Deadline::new(asked_at + RENEW_DEADLINE),
        };
        let slot = format!("{}-{number}", self.slots.role);
        let attempt = format!("{slot}/{holding}/{}", self.process.name());
        let guard = SlotGuard::new(
            slot,
            attempt,
            holder.lost.clone(),
            holder.ledger.clone(),
            sender,
        );
        let guard = guard.with_deadline(holder.deadline.clone());
        tokio::spawn(holder.run(requests));
        Ok(Some(guard))
    }

    async fn all_held_by_others(&self) -> TransportResult<bool> {
        self.call("looking at", || {
            Ok(self.slots.slots.lock().iter().all(Slot::is_held))
        })
        .await
    }

    async fn ledger(&self) -> TransportResult<Ledger> {
        self.call("looking at", || Ok(self.slots.written())).await
    }
}

/// Renews one held slot.
struct Holder {
    lock: SimLock,
    holding: (usize, u64),
    lost: CancellationToken,
    ledger: SharedLedger,
    deadline: Deadline,
}

impl Holder {
    async fn run(self, mut requests: mpsc::Receiver<HolderRequest>) {
        loop {
            let renewal = (Instant::now() + RENEWAL).min(self.deadline.get());
            let request = tokio::select! {
                biased;
                request = requests.recv() => match request {
                    Some(request) => Some(request),
                    None => {
                        self.write(false).await;
                        return;
                    }
                },
                () = tokio::time::sleep_until(renewal) => None,
            };
            let (keeps, answer) = match request {
                None => (true, None),
                Some(HolderRequest::Flush(answer)) => (true, Some(answer)),
                Some(HolderRequest::Release(answer)) => (false, Some(answer)),
            };
            let held = self.write(keeps).await;
            if let Some(answer) = answer {
                // The answer of a request that was given up has no receiver.
                let _ = answer.send(held);
            }
            if !held || !keeps {
                return;
            }
        }
    }

    /// False when the slot is lost; a write that failed is repeated with the next renewal, until the deadline.
    async fn write(&self, keeps: bool) -> bool {
        loop {
            self.lock.process.gate().await;
            if self.deadline.is_expired() {
                self.lost.cancel();
                return false;
            }
            let asked_at = Instant::now();
            let write = || {
                let ledger = self.ledger.get();
                Ok(self.lock.slots.write(self.holding, ledger, keeps))
            };
            let writing = self.lock.call("renewing", write);
            match tokio::time::timeout_at(self.deadline.get(), writing).await {
                Ok(Ok(true)) => {
                    self.deadline.set(asked_at + RENEW_DEADLINE);
                    return true;
                }
                Ok(Ok(false)) => {
                    self.lost.cancel();
                    return false;
                }
                Ok(Err(_)) if keeps => return true,
                Ok(Err(_)) => tokio::time::sleep(RENEWAL).await,
                Err(_) => {}
            }
        }
    }
}
