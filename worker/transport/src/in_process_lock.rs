//! Slots that hold within this process only, for a worker on AWS without Kubernetes, as the Python original's container
//! ran. Only the queue's visibility timeout separates two such processes; that is enough, since every handler may run twice.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::slot_lock::HolderRequest;
use crate::{Ledger, SharedLedger, SlotGuard, SlotLock, TransportResult};

/// The slots of one role in this process.
#[derive(Debug, Clone)]
pub struct InProcessLock {
    role: String,
    slots: Arc<Semaphore>,
    ledger: SharedLedger,
}

impl InProcessLock {
    /// `slots` of them, all free.
    pub fn new(role: &str, slots: u32) -> Self {
        Self {
            role: role.to_owned(),
            slots: Arc::new(Semaphore::new(slots as usize)),
            ledger: SharedLedger::default(),
        }
    }
}

#[async_trait]
impl SlotLock for InProcessLock {
    async fn try_acquire(&self) -> TransportResult<Option<SlotGuard>> {
        let Ok(permit) = self.slots.clone().try_acquire_owned() else {
            return Ok(None);
        };
        let (sender, requests) = mpsc::channel(1);
        let attempt = format!("{}/{}", self.role, uuid::Uuid::new_v4());
        tokio::spawn(hold(permit, requests));
        let lost = CancellationToken::new();
        Ok(Some(SlotGuard::new(
            self.role.clone(),
            attempt,
            lost,
            self.ledger.clone(),
            sender,
        )))
    }

    async fn all_held_by_others(&self) -> TransportResult<bool> {
        Ok(self.slots.available_permits() == 0)
    }

    async fn ledger(&self) -> TransportResult<Ledger> {
        Ok(self.ledger.get())
    }
}

/// Keeps the slot until it is released or its guard is dropped. The ledger lives as long as the process: there is
/// nothing to write.
async fn hold(permit: OwnedSemaphorePermit, mut requests: mpsc::Receiver<HolderRequest>) {
    let mut permit = Some(permit);
    while let Some(request) = requests.recv().await {
        let answer = match request {
            HolderRequest::Flush(answer) => answer,
            HolderRequest::Release(answer) => {
                permit = None;
                answer
            }
        };
        // The answer of a request that was given up has no receiver.
        let _ = answer.send(true);
        if permit.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slot_is_held_once_and_free_again_after_release() {
        let lock = InProcessLock::new("compressor", 1);
        let guard = lock.try_acquire().await.expect("answered").expect("free");
        guard.count(|ledger| ledger.files += 2);
        assert!(lock.try_acquire().await.expect("answered").is_none());
        assert!(lock.all_held_by_others().await.expect("answered"));
        assert!(guard.release().await);
        let again = lock.try_acquire().await.expect("answered").expect("free");
        assert_eq!(again.ledger().files, 2);
    }
}
