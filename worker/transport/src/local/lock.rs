//! The embedded lock: slots as rows. A slot is free when it has no holder, when its holder's process has ended (its
//! session's file lock shows that at once), or when its record has not changed for a whole lease by the observer's own
//! monotonic clock. The holder stops at two thirds of the lease without a renewal, before another may follow, by a clock that
//! also runs while the machine sleeps.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::{OptionalExtension, params};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::store::{Step, StepResult, Store};
use crate::slot_lock::{Deadline, RenewedSlot, keep_renewed};
use crate::{Ledger, Moment, SharedLedger, SlotGuard, SlotLock, TransportResult};

/// The slots of one role.
#[derive(Debug)]
pub(super) struct LocalLock {
    store: Arc<Store>,
    role: Arc<str>,
    slots: u32,
    lease: Duration,
    observations: Arc<Mutex<Observations>>,
}

impl LocalLock {
    pub(super) fn new(store: &Arc<Store>, role: &str, slots: u32, lease: Duration) -> Self {
        Self {
            store: Arc::clone(store),
            role: role.into(),
            slots,
            lease,
            observations: Arc::default(),
        }
    }
}

#[async_trait]
impl SlotLock for LocalLock {
    async fn try_acquire(&self) -> TransportResult<Option<SlotGuard>> {
        let (role, slots, lease_ms) = (Arc::clone(&self.role), self.slots, millis(self.lease));
        let observations = Arc::clone(&self.observations);
        let store = Arc::clone(&self.store);
        // Measured from before the record was written: never later than what others count from.
        let requested_at = Moment::now();
        let granted = self
            .store
            .call(move |step| {
                for slot in 0..slots {
                    let record = SlotRecord::read(step, &role, slot)?;
                    if observations.lock().is_free(step, slot, record.as_ref()) {
                        let claim = Claim::take(step, &role, slot, record, lease_ms)?;
                        return Ok(Some(Granted {
                            store,
                            claim: Some(claim),
                        }));
                    }
                }
                Ok(None)
            })
            .await?;
        let Some(claim) = granted.and_then(|mut granted| granted.claim.take()) else {
            return Ok(None);
        };
        Ok(Some(hold(&self.store, claim, self.lease, requested_at)))
    }

    async fn all_held_by_others(&self) -> TransportResult<bool> {
        let (role, slots) = (Arc::clone(&self.role), self.slots);
        let observations = Arc::clone(&self.observations);
        self.store
            .call_unsynced(move |step| {
                for slot in 0..slots {
                    let record = SlotRecord::read(step, &role, slot)?;
                    if observations.lock().is_free(step, slot, record.as_ref()) {
                        return Ok(false);
                    }
                }
                Ok(true)
            })
            .await
    }

    async fn ledger(&self) -> TransportResult<Ledger> {
        let role = Arc::clone(&self.role);
        self.store
            .call_unsynced(move |step| {
                let ledgers = step
                    .conn
                    .prepare_cached("SELECT ledger FROM slots WHERE role = ?1")?
                    .query_map([&*role], |row| row.get::<_, String>(0))?
                    .collect::<rusqlite::Result<Vec<_>>>()?;
                Ok(ledgers
                    .iter()
                    .map(|text| parse_ledger(text))
                    .fold(Ledger::default(), Ledger::plus))
            })
            .await
    }
}

/// A slot's row.
struct SlotRecord {
    attempt: Option<String>,
    session: Option<String>,
    transitions: i64,
    renewals: i64,
    lease_ms: i64,
    ledger: Ledger,
}

impl SlotRecord {
    fn read(step: &Step<'_>, role: &str, slot: u32) -> StepResult<Option<Self>> {
        let record = step
            .conn
            .prepare_cached(
                "SELECT attempt, session, transitions, renewals, lease_ms, ledger FROM slots WHERE role = ?1 AND slot = ?2",
            )?
            .query_row(params![role, slot], |row| {
                Ok(Self {
                    attempt: row.get(0)?,
                    session: row.get(1)?,
                    transitions: row.get(2)?,
                    renewals: row.get(3)?,
                    lease_ms: row.get(4)?,
                    ledger: parse_ledger(&row.get::<_, String>(5)?),
                })
            })
            .optional()?;
        Ok(record)
    }
}

/// The records of other holders as this process saw them last, and since when they have not changed.
#[derive(Debug, Default)]
struct Observations(HashMap<u32, (i64, i64, Instant)>);

impl Observations {
    fn is_free(&mut self, step: &Step<'_>, slot: u32, record: Option<&SlotRecord>) -> bool {
        let Some(record) = record.filter(|record| record.attempt.is_some()) else {
            return true;
        };
        let holder_lives = record
            .session
            .as_deref()
            .is_some_and(|id| step.session.is_alive(id));
        if !holder_lives {
            return true;
        }
        let now = Instant::now();
        let entry = self
            .0
            .entry(slot)
            .or_insert((record.transitions, record.renewals, now));
        if (entry.0, entry.1) != (record.transitions, record.renewals) {
            *entry = (record.transitions, record.renewals, now);
        }
        let lease = Duration::from_millis(u64::try_from(record.lease_ms).unwrap_or(u64::MAX));
        now.duration_since(entry.2) >= lease
    }
}

/// A slot taken in the database.
#[derive(Debug, Clone)]
struct Claim {
    role: Arc<str>,
    slot: u32,
    attempt: String,
    ledger: Ledger,
}

impl Claim {
    fn take(
        step: &Step<'_>,
        role: &Arc<str>,
        slot: u32,
        record: Option<SlotRecord>,
        lease_ms: i64,
    ) -> StepResult<Self> {
        let transitions = record.as_ref().map_or(0, |record| record.transitions) + 1;
        let ledger = record.map(|record| record.ledger).unwrap_or_default();
        let attempt = format!("{role}-{slot}.{}.{transitions}", step.session.id());
        step.conn
            .prepare_cached(
                "INSERT INTO slots(role, slot, attempt, session, transitions, renewals, lease_ms, ledger)
                 VALUES(?1, ?2, ?3, ?4, ?5, 0, ?6, ?7)
                 ON CONFLICT(role, slot) DO UPDATE SET attempt = ?3, session = ?4, transitions = ?5, lease_ms = ?6",
            )?
            .execute(params![
                &**role,
                slot,
                attempt,
                step.session.id(),
                transitions,
                lease_ms,
                ledger_text(&ledger)
            ])?;
        Ok(Self {
            role: Arc::clone(role),
            slot,
            attempt,
            ledger,
        })
    }

    /// Writes the ledger and renews; false when another holds the slot by now.
    fn renew(&self, step: &Step<'_>, ledger: &Ledger) -> StepResult<bool> {
        self.update(step, ledger, "UPDATE slots SET renewals = renewals + 1, ledger = ?4 WHERE role = ?1 AND slot = ?2 AND attempt = ?3")
    }

    fn release(&self, step: &Step<'_>, ledger: &Ledger) -> StepResult<bool> {
        self.update(step, ledger, "UPDATE slots SET attempt = NULL, session = NULL, ledger = ?4 WHERE role = ?1 AND slot = ?2 AND attempt = ?3")
    }

    fn update(&self, step: &Step<'_>, ledger: &Ledger, sql: &str) -> StepResult<bool> {
        let changed = step.conn.prepare_cached(sql)?.execute(params![
            &*self.role,
            self.slot,
            self.attempt,
            ledger_text(ledger)
        ])?;
        Ok(changed == 1)
    }
}

/// A claim between the database and a caller; released when the caller is gone.
struct Granted {
    store: Arc<Store>,
    claim: Option<Claim>,
}

impl Drop for Granted {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.store
                .post(move |step| claim.release(step, &claim.ledger).map(drop));
        }
    }
}

/// Starts the task that renews the slot and answers its holder.
fn hold(store: &Arc<Store>, claim: Claim, lease: Duration, since: Moment) -> SlotGuard {
    let lost = CancellationToken::new();
    let ledger = SharedLedger::new(claim.ledger);
    let (sender, requests) = mpsc::channel(4);
    let renew_deadline = lease * 2 / 3;
    let deadline = Deadline::new(since.after(renew_deadline));
    let guard = SlotGuard::new(
        format!("{}-{}", claim.role, claim.slot),
        claim.attempt.clone(),
        lost.clone(),
        ledger.clone(),
        sender,
    )
    .with_deadline(deadline.clone());
    let holding = LocalHolding {
        store: Arc::clone(store),
        claim: Arc::new(claim),
        ledger,
        lost,
        // The proportions of client-go's 15, 10 and 2 seconds.
        renew_deadline,
        renew_period: lease * 2 / 15,
        renewed_at: since,
        deadline,
    };
    tokio::spawn(keep_renewed(holding, requests));
    guard
}

/// The renewing task of a held slot.
struct LocalHolding {
    store: Arc<Store>,
    claim: Arc<Claim>,
    ledger: SharedLedger,
    lost: CancellationToken,
    renew_deadline: Duration,
    renew_period: Duration,
    renewed_at: Moment,
    /// What the guard sees of it.
    deadline: Deadline,
}

impl RenewedSlot for LocalHolding {
    /// A failed renewal is tried again, but `lost` never comes later than the deadline.
    fn next_renewal(&self) -> Instant {
        let deadline = self.renewed_at.after(self.renew_deadline);
        deadline.min(Instant::now() + self.renew_period)
    }

    fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Renews; cancels `lost` when another holds the slot, or when the deadline passes without an answer.
    async fn renew(&mut self) -> bool {
        let (claim, ledger) = (Arc::clone(&self.claim), self.ledger.get());
        let requested_at = Moment::now();
        let renewed = self.store.call(move |step| claim.renew(step, &ledger));
        match tokio::time::timeout_at(self.renewed_at.after(self.renew_deadline), renewed).await {
            Ok(Ok(true)) => {
                self.renewed_at = requested_at;
                self.deadline.set(requested_at.after(self.renew_deadline));
                true
            }
            Ok(Ok(false)) | Err(_) => {
                tracing::warn!(slot = %self.claim.attempt, "Lost the slot: it was not renewed in time.");
                self.lost.cancel();
                false
            }
            Ok(Err(error)) => {
                tracing::warn!(slot = %self.claim.attempt, %error, "Could not renew the slot; trying again.");
                if self.renewed_at.elapsed() >= self.renew_deadline {
                    self.lost.cancel();
                }
                false
            }
        }
    }

    async fn release(self) -> bool {
        let (claim, ledger) = (Arc::clone(&self.claim), self.ledger.get());
        let released = self
            .store
            .call(move |step| claim.release(step, &ledger))
            .await;
        matches!(released, Ok(true))
    }
}

fn ledger_text(ledger: &Ledger) -> String {
    // A struct of numbers always has a JSON form.
    serde_json::to_string(ledger).unwrap_or_default()
}

fn parse_ledger(text: &str) -> Ledger {
    serde_json::from_str(text).unwrap_or_default()
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}
