//! Slots that hold within this process only, for a worker on AWS without Kubernetes, as the Python original's container
//! ran. Nothing keeps two such processes apart but the queue's hiding; that is enough, since every handler may run twice.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::slot_guard::HolderRequest;
use super::{Ledger, SlotGuard, SlotLock, TransportResult};

/// The slots of one role in this process.
#[derive(Debug, Clone)]
pub struct SoloLock {
    role: String,
    slots: Arc<Semaphore>,
    ledger: Arc<Mutex<Ledger>>,
}

impl SoloLock {
    /// `slots` of them, all free.
    pub fn new(role: &str, slots: u32) -> Self {
        Self {
            role: role.to_owned(),
            slots: Arc::new(Semaphore::new(slots as usize)),
            ledger: Arc::default(),
        }
    }
}

#[async_trait]
impl SlotLock for SoloLock {
    async fn try_acquire(&self) -> TransportResult<Option<SlotGuard>> {
        let Ok(permit) = self.slots.clone().try_acquire_owned() else {
            return Ok(None);
        };
        let (requests, asked) = mpsc::channel(1);
        let attempt = format!("{}/{}", self.role, uuid::Uuid::new_v4());
        tokio::spawn(hold(permit, asked));
        let lost = CancellationToken::new();
        Ok(Some(SlotGuard::new(
            self.role.clone(),
            attempt,
            lost,
            self.ledger.clone(),
            requests,
        )))
    }

    async fn all_held_by_others(&self) -> TransportResult<bool> {
        Ok(self.slots.available_permits() == 0)
    }

    async fn ledger(&self) -> TransportResult<Ledger> {
        Ok(*self.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Keeps the slot until it is given up or its holder is gone. The ledger lives as long as the process: there is
/// nothing to write.
async fn hold(permit: OwnedSemaphorePermit, mut asked: mpsc::Receiver<HolderRequest>) {
    let mut permit = Some(permit);
    while let Some(request) = asked.recv().await {
        let answer = match request {
            HolderRequest::Flush(answer) => answer,
            HolderRequest::Release(answer) => {
                permit = None;
                answer
            }
        };
        // Nobody waits for the answer of a request that was given up.
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
        let lock = SoloLock::new("compressor", 1);
        let held = lock.try_acquire().await.expect("asked").expect("free");
        held.count(|ledger| ledger.files += 2);
        assert!(lock.try_acquire().await.expect("asked").is_none());
        assert!(lock.all_held_by_others().await.expect("asked"));
        assert!(held.release().await);
        let again = lock.try_acquire().await.expect("asked").expect("free");
        assert_eq!(again.ledger().files, 2);
    }
}
