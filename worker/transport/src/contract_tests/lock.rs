//! The contract of [`SlotLock`].
#![expect(clippy::unwrap_used, reason = "checks end by panicking")]

use std::sync::Arc;

use super::{Implementation, eventually};
use crate::{Ledger, SlotGuard, SlotLock};

/// Everything that a lock promises.
pub async fn all(implementation: &dyn Implementation) {
    futures::join!(
        one_slot_has_one_holder(implementation),
        every_slot_has_its_own_holder(implementation),
        a_dropped_slot_becomes_free(implementation),
        the_ledger_outlives_its_holders(implementation),
        the_ledger_is_the_sum_over_slots(implementation),
    );
}

async fn acquired(lock: &Arc<dyn SlotLock>) -> SlotGuard {
    lock.try_acquire()
        .await
        .unwrap()
        .expect("a slot should be free")
}

/// Others see a release soon, not at once.
async fn seen_free(lock: &Arc<dyn SlotLock>) {
    eventually("the slot is seen to be free", || async {
        !lock.all_held_by_others().await.unwrap()
    })
    .await;
}

/// Until it is released; then another gets it, under another attempt.
pub async fn one_slot_has_one_holder(implementation: &dyn Implementation) {
    let locks = implementation.locks(2, 1).await;
    assert!(!locks[1].all_held_by_others().await.unwrap());
    let first = acquired(&locks[0]).await;
    assert!(locks[1].try_acquire().await.unwrap().is_none());
    assert!(locks[1].all_held_by_others().await.unwrap());
    assert!(!first.lost().is_cancelled());
    let attempt = first.attempt().to_owned();
    assert!(first.release().await);
    seen_free(&locks[1]).await;
    let second = acquired(&locks[1]).await;
    assert_ne!(second.attempt(), attempt);
    assert!(second.release().await);
    let third = acquired(&locks[1]).await;
    assert!(third.release().await);
}

/// As many holders as slots, no more.
pub async fn every_slot_has_its_own_holder(implementation: &dyn Implementation) {
    let locks = implementation.locks(3, 2).await;
    let one = acquired(&locks[0]).await;
    let two = acquired(&locks[1]).await;
    assert_ne!(one.slot(), two.slot());
    assert!(locks[2].try_acquire().await.unwrap().is_none());
    assert!(one.release().await);
    seen_free(&locks[2]).await;
    let three = acquired(&locks[2]).await;
    assert!(two.release().await && three.release().await);
}

/// Without `release`, in the background.
pub async fn a_dropped_slot_becomes_free(implementation: &dyn Implementation) {
    let locks = implementation.locks(2, 1).await;
    drop(acquired(&locks[0]).await);
    eventually("the slot becomes free", || async {
        !locks[1].all_held_by_others().await.unwrap()
    })
    .await;
}

/// The next holder counts on, also from what was only flushed.
pub async fn the_ledger_outlives_its_holders(implementation: &dyn Implementation) {
    let locks = implementation.locks(2, 1).await;
    let first = acquired(&locks[0]).await;
    first.count(|ledger| ledger.files += 2);
    first.count(|ledger| ledger.index = 7);
    assert!(first.flush().await);
    assert_eq!(locks[1].ledger().await.unwrap(), first.ledger());
    first.count(|ledger| ledger.bytes_in += 100);
    assert!(first.release().await);
    let second = acquired(&locks[1]).await;
    let expected = Ledger {
        files: 2,
        index: 7,
        bytes_in: 100,
        ..Ledger::default()
    };
    assert_eq!(second.ledger(), expected);
    assert!(second.release().await);
}

/// Held or not.
pub async fn the_ledger_is_the_sum_over_slots(implementation: &dyn Implementation) {
    let locks = implementation.locks(2, 2).await;
    for (lock, files) in locks.iter().zip([1, 10]) {
        let held = acquired(lock).await;
        held.count(|ledger| ledger.files += files);
        assert!(held.flush().await);
        std::mem::forget(held);
    }
    assert_eq!(locks[0].ledger().await.unwrap().files, 11);
}
