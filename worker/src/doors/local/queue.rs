//! The embedded FIFO queue: what a message goes through, as steps of a transaction, and the door in front of it.
//!
//! At most one message of a group is in hand at a time, and it is the group's oldest; so order within a group
//! holds whatever is released, expires or dead-letters. `receive_count` counts every receive. Towards
//! `max_receive_count` count those that ended badly (hiding time ran out, process died); a message that was given
//! back with `release`, for a shutdown or a lost race for a slot, does not creep towards the dead letters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::time::Instant;

use super::session::Session;
use super::store::{Fault, Step, StepResult, Store};
use crate::doors::{
    ATTR_DETAIL, ATTR_REASON, Delivery, Depth, DoorError, DoorResult, Outgoing, Queue,
    REASON_RECEIVED_TOO_OFTEN, Receipt,
};

/// A second message with the same deduplication id within this time is dropped.
const DEDUP_MS: i64 = 5 * 60 * 1000;
/// A time stamp further in the future than this means that the clock was set back.
const CLOCK_SLACK_MS: i64 = 2000;
/// Dead letters are kept for as long as SQS keeps any message at most: 14 days.
const DEAD_LETTER_MS: i64 = 14 * 24 * 3600 * 1000;
/// The longest time a message can be hidden, as SQS has it.
const MAX_HIDING: Duration = Duration::from_secs(12 * 3600);

/// Which of the folder's queues; the number is in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Files = 0,
    FilesDead = 1,
    Chunks = 2,
    ChunksDead = 3,
}

/// The numbers of the queues that hold dead letters.
const DEAD: [i64; 2] = [Which::FilesDead as i64, Which::ChunksDead as i64];

/// One of the folder's queues.
#[derive(Debug)]
pub(super) struct LocalQueue {
    store: Arc<Store>,
    number: i64,
    name: &'static str,
    visibility: Duration,
    limit: Option<Limit>,
    dead: Option<Arc<LocalQueue>>,
}

/// When and where a message goes that was received too often.
#[derive(Debug, Clone, Copy)]
struct Limit {
    max_receive_count: u32,
    dead_queue: i64,
}

impl LocalQueue {
    /// A queue with its dead-letter queue.
    pub(super) fn new(
        store: &Arc<Store>,
        (which, name): (Which, &'static str),
        (dead, dead_name): (Which, &'static str),
        visibility: Duration,
        max_receive_count: u32,
    ) -> Self {
        let dead_letters = Self {
            store: Arc::clone(store),
            number: dead as i64,
            name: dead_name,
            visibility,
            limit: None,
            dead: None,
        };
        Self {
            store: Arc::clone(store),
            number: which as i64,
            name,
            visibility,
            limit: Some(Limit {
                max_receive_count,
                dead_queue: dead as i64,
            }),
            dead: Some(Arc::new(dead_letters)),
        }
    }

    async fn take(&self, max: usize) -> DoorResult<Taken> {
        let (queue, limit, hidden_for) = (self.number, self.limit, millis(self.visibility));
        let store = Arc::clone(&self.store);
        self.store
            .call_if_awaited(move |step| {
                let deliveries = take(step, queue, max, hidden_for, limit)?;
                let next_expiry = match deliveries.is_empty() {
                    true => next_expiry(step, queue)?,
                    false => None,
                };
                Ok(Taken {
                    store,
                    deliveries,
                    next_expiry,
                })
            })
            .await
    }

    fn held(&self, receipt: &Receipt) -> DoorResult<Handle> {
        Handle::parse(receipt, self.number)
    }
}

#[async_trait]
impl Queue for LocalQueue {
    fn name(&self) -> &str {
        self.name
    }

    fn visibility(&self) -> Duration {
        self.visibility
    }

    async fn send(&self, messages: Vec<Outgoing>) -> DoorResult<()> {
        messages.iter().try_for_each(Outgoing::check)?;
        let queue = self.number;
        self.store
            .call(move |step| messages.iter().try_for_each(|m| send(step, queue, m)))
            .await
    }

    async fn receive(&self, max: usize, wait: Duration) -> DoorResult<Vec<Delivery>> {
        if !(1..=10).contains(&max) {
            return Err(DoorError::Invalid(format!(
                "cannot receive {max} messages at once; ask for 1 to 10"
            )));
        }
        let deadline = Instant::now() + wait;
        let waiting = self.store.wait_at(self.number);
        loop {
            // The bell is listened to before the look, so that nothing sent in between is missed.
            let mut rung = std::pin::pin!(waiting.bell().notified());
            rung.as_mut().enable();
            let taken = self.take(max).await?;
            if !taken.deliveries.is_empty() || Instant::now() >= deadline {
                return Ok(taken.keep());
            }
            let until = match taken.next_expiry {
                Some(after) => deadline.min(Instant::now() + after),
                None => deadline,
            };
            tokio::select! {
                () = rung => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    async fn extend(&self, receipt: &Receipt, hidden_for: Duration) -> DoorResult<()> {
        if hidden_for > MAX_HIDING {
            return Err(DoorError::Invalid(
                "a message can be hidden for 12 hours at most".into(),
            ));
        }
        let held = self.held(receipt)?;
        self.store
            .call(move |step| held.extend(step, millis(hidden_for)))
            .await
    }

    async fn delete(&self, receipt: &Receipt) -> DoorResult<()> {
        let held = self.held(receipt)?;
        self.store.call(move |step| held.delete(step)).await
    }

    async fn release(&self, receipt: &Receipt) -> DoorResult<()> {
        let held = self.held(receipt)?;
        self.store.call(move |step| held.release(step)).await
    }

    async fn bury(&self, delivery: &Delivery, reason: &str, detail: &str) -> DoorResult<()> {
        let Some(limit) = self.limit else {
            return Err(DoorError::Invalid(format!(
                "{} holds dead letters itself; delete the message or send it again",
                self.name
            )));
        };
        let held = self.held(&delivery.receipt)?;
        let (reason, detail) = (reason.to_owned(), detail.to_owned());
        self.store
            .call(move |step| {
                held.check(step)?;
                bury(step, held.seq, limit.dead_queue, &reason, &detail)
            })
            .await
    }

    async fn depth(&self) -> DoorResult<Depth> {
        let queue = self.number;
        self.store.call(move |step| depth(step, queue)).await
    }

    fn dead_letters(&self) -> Option<Arc<dyn Queue>> {
        self.dead.clone().map(|dead| dead as Arc<dyn Queue>)
    }
}

/// Messages on their way to a caller. When the caller has gone they go back as if never received.
struct Taken {
    store: Arc<Store>,
    deliveries: Vec<Delivery>,
    next_expiry: Option<Duration>,
}

impl Taken {
    fn keep(mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.deliveries)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let receipts: Vec<Receipt> = self.deliveries.drain(..).map(|d| d.receipt).collect();
        if receipts.is_empty() {
            return;
        }
        self.store.post(move |step| {
            for receipt in &receipts {
                match Handle::parse_any(receipt).map(|held| held.unreceive(step)) {
                    Some(Err(Fault::Sql(error))) => return Err(error.into()),
                    _ => continue,
                }
            }
            Ok(())
        });
    }
}

/// A receipt, taken apart.
#[derive(Debug, Clone, Copy)]
struct Handle {
    queue: i64,
    seq: i64,
    delivery: i64,
}

impl Handle {
    fn receipt(self) -> Receipt {
        Receipt(format!("{}-{}-{}", self.queue, self.seq, self.delivery))
    }

    fn parse_any(receipt: &Receipt) -> Option<Self> {
        let mut parts = receipt.0.split('-').map(|part| part.parse().ok());
        let handle = Self {
            queue: parts.next()??,
            seq: parts.next()??,
            delivery: parts.next()??,
        };
        parts.next().is_none().then_some(handle)
    }

    fn parse(receipt: &Receipt, queue: i64) -> DoorResult<Self> {
        Self::parse_any(receipt)
            .filter(|handle| handle.queue == queue)
            .ok_or_else(|| {
                DoorError::Invalid(format!("{:?} is no receipt of this queue", receipt.0))
            })
    }

    /// Stale unless the message is still in the hands that got this receipt.
    fn check(self, step: &Step<'_>) -> StepResult<()> {
        let held: Option<bool> = step
            .conn
            .prepare_cached(
                "SELECT state = 2 AND delivery = ?3 AND hidden_until > ?4 FROM messages WHERE seq = ?1 AND queue = ?2",
            )?
            .query_row(params![self.seq, self.queue, self.delivery, step.now], |row| row.get(0))
            .optional()?;
        match held {
            Some(true) => Ok(()),
            Some(false) | None => Err(DoorError::Stale.into()),
        }
    }

    fn extend(self, step: &mut Step<'_>, hidden_for: i64) -> StepResult<()> {
        self.check(step)?;
        step.conn
            .prepare_cached(
                "UPDATE messages SET hidden_since = ?2, hidden_until = ?2 + ?3 WHERE seq = ?1",
            )?
            .execute(params![self.seq, step.now, hidden_for])?;
        if hidden_for == 0 {
            step.ring(self.queue);
        }
        Ok(())
    }

    fn delete(self, step: &mut Step<'_>) -> StepResult<()> {
        self.check(step)?;
        remove(step, self.seq)
    }

    fn release(self, step: &mut Step<'_>) -> StepResult<()> {
        self.check(step)?;
        self.show(step, "UPDATE messages SET state = 1, session = NULL, given_back = given_back + 1 WHERE seq = ?1")
    }

    fn unreceive(self, step: &mut Step<'_>) -> StepResult<()> {
        self.check(step)?;
        self.show(
            step,
            "UPDATE messages SET state = 1, session = NULL, receives = receives - 1 WHERE seq = ?1",
        )
    }

    fn show(self, step: &mut Step<'_>, sql: &str) -> StepResult<()> {
        step.conn.prepare_cached(sql)?.execute([self.seq])?;
        step.ring(self.queue);
        Ok(())
    }
}

fn send(step: &mut Step<'_>, queue: i64, message: &Outgoing) -> StepResult<()> {
    let sent_at: Option<i64> = step
        .conn
        .prepare_cached("SELECT sent_at FROM dedup WHERE queue = ?1 AND dedup_id = ?2")?
        .query_row(params![queue, message.dedup_id], |row| row.get(0))
        .optional()?;
    if sent_at.is_some_and(|at| (step.now - DEDUP_MS..=step.now + CLOCK_SLACK_MS).contains(&at)) {
        return Ok(());
    }
    step.conn
        .prepare_cached(
            "INSERT OR REPLACE INTO dedup(queue, dedup_id, sent_at) VALUES(?1, ?2, ?3)",
        )?
        .execute(params![queue, message.dedup_id, step.now])?;
    let message_id = uuid::Uuid::new_v4().to_string();
    insert(step, queue, &message_id, message)
}

/// Puts a message at the end of its group.
fn insert(step: &mut Step<'_>, queue: i64, message_id: &str, message: &Outgoing) -> StepResult<()> {
    step.conn
        .prepare_cached(
            "INSERT INTO messages(queue, group_id, state, message_id, dedup_id, body, attributes, sent_at)
             VALUES(?1, ?2, NOT EXISTS(SELECT 1 FROM messages WHERE queue = ?1 AND group_id = ?2), ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            queue,
            message.group,
            message_id,
            message.dedup_id,
            message.body,
            attributes_to_text(&message.attributes),
            step.now
        ])?;
    step.ring(queue);
    Ok(())
}

/// Takes a message out and lets the next of its group come forward.
fn remove(step: &mut Step<'_>, seq: i64) -> StepResult<()> {
    let gone: Option<(i64, String)> = step
        .conn
        .prepare_cached("DELETE FROM messages WHERE seq = ?1 RETURNING queue, group_id")?
        .query_row([seq], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((queue, group)) = gone else {
        return Ok(());
    };
    let came_forward = step
        .conn
        .prepare_cached(
            "UPDATE messages SET state = 1 WHERE state = 0 AND seq =
               (SELECT seq FROM messages WHERE queue = ?1 AND group_id = ?2 ORDER BY seq LIMIT 1)",
        )?
        .execute(params![queue, group])?;
    if came_forward > 0 {
        step.ring(queue);
    }
    Ok(())
}

/// A ready message as it lies in the table.
struct Ready {
    seq: i64,
    message_id: String,
    message: Outgoing,
    receives: u32,
    given_back: u32,
    delivery: i64,
}

const READY_COLUMNS: &str =
    "seq, message_id, group_id, dedup_id, body, attributes, receives, given_back, delivery";

fn read_ready(row: &rusqlite::Row<'_>) -> rusqlite::Result<Ready> {
    let attributes: String = row.get(5)?;
    Ok(Ready {
        seq: row.get(0)?,
        message_id: row.get(1)?,
        message: Outgoing {
            group: row.get(2)?,
            dedup_id: row.get(3)?,
            body: row.get(4)?,
            attributes: attributes_from_text(&attributes),
        },
        receives: row.get(6)?,
        given_back: row.get(7)?,
        delivery: row.get(8)?,
    })
}

fn take(
    step: &mut Step<'_>,
    queue: i64,
    max: usize,
    hidden_for: i64,
    limit: Option<Limit>,
) -> StepResult<Vec<Delivery>> {
    expire(step, queue)?;
    let mut deliveries = Vec::new();
    while deliveries.len() < max {
        // Burying one brings the next of its group forward: look again until the batch is full or none is left.
        let ready: Option<Ready> = step
            .conn
            .prepare_cached(&format!(
                "SELECT {READY_COLUMNS} FROM messages WHERE queue = ?1 AND state = 1 ORDER BY seq LIMIT 1"
            ))?
            .query_row([queue], read_ready)
            .optional()?;
        let Some(ready) = ready else { break };
        match limit {
            Some(limit)
                if ready.receives.saturating_sub(ready.given_back) >= limit.max_receive_count =>
            {
                let detail = format!(
                    "received {} times without success; see the worker's log",
                    ready.receives
                );
                bury(
                    step,
                    ready.seq,
                    limit.dead_queue,
                    REASON_RECEIVED_TOO_OFTEN,
                    &detail,
                )?;
            }
            _ => deliveries.push(deliver(step, queue, ready, hidden_for)?),
        }
    }
    Ok(deliveries)
}

fn deliver(step: &Step<'_>, queue: i64, ready: Ready, hidden_for: i64) -> StepResult<Delivery> {
    step.conn
        .prepare_cached(
            "UPDATE messages SET state = 2, receives = receives + 1, delivery = delivery + 1, session = ?2,
               hidden_since = ?3, hidden_until = ?3 + ?4 WHERE seq = ?1",
        )?
        .execute(params![ready.seq, step.session.id(), step.now, hidden_for])?;
    let handle = Handle {
        queue,
        seq: ready.seq,
        delivery: ready.delivery + 1,
    };
    Ok(Delivery {
        message_id: ready.message_id,
        group: ready.message.group,
        dedup_id: ready.message.dedup_id,
        body: ready.message.body,
        attributes: ready.message.attributes,
        receive_count: ready.receives + 1,
        receipt: handle.receipt(),
    })
}

/// Shows messages whose hiding time ran out, or whose hiding began in a future that the clock has taken back.
fn expire(step: &mut Step<'_>, queue: i64) -> StepResult<()> {
    step.conn
        .prepare_cached(
            "UPDATE messages SET state = 1, session = NULL
             WHERE queue = ?1 AND state = 2 AND (hidden_until <= ?2 OR hidden_since > ?2 + ?3)",
        )?
        .execute(params![queue, step.now, CLOCK_SLACK_MS])?;
    Ok(())
}

fn next_expiry(step: &Step<'_>, queue: i64) -> StepResult<Option<Duration>> {
    let at: Option<i64> = step
        .conn
        .prepare_cached("SELECT min(hidden_until) FROM messages WHERE queue = ?1 AND state = 2")?
        .query_row([queue], |row| row.get(0))?;
    // One more millisecond: the clock is rounded down.
    Ok(at.map(|at| Duration::from_millis(u64::try_from(at - step.now).unwrap_or(0) + 1)))
}

/// Moves a message to the end of its group among the dead letters. One transaction: there is never a second copy,
/// so no deduplication is asked for, which could swallow a later dead letter of the same id.
fn bury(step: &mut Step<'_>, seq: i64, dead: i64, reason: &str, detail: &str) -> StepResult<()> {
    let row = step
        .conn
        .prepare_cached(&format!(
            "SELECT {READY_COLUMNS} FROM messages WHERE seq = ?1"
        ))?
        .query_row([seq], read_ready)
        .optional()?;
    let Some(Ready {
        message_id,
        mut message,
        ..
    }) = row
    else {
        return Err(DoorError::Stale.into());
    };
    message.attributes.insert(ATTR_REASON.into(), reason.into());
    message.attributes.insert(ATTR_DETAIL.into(), detail.into());
    remove(step, seq)?;
    insert(step, dead, &message_id, &message)
}

fn depth(step: &Step<'_>, queue: i64) -> StepResult<Depth> {
    let in_flight: i64 = step
        .conn
        .prepare_cached(
            "SELECT count(*) FROM messages WHERE queue = ?1 AND state = 2 AND hidden_until > ?2",
        )?
        .query_row(params![queue, step.now], |row| row.get(0))?;
    let all: i64 = step
        .conn
        .prepare_cached("SELECT count(*) FROM messages WHERE queue = ?1")?
        .query_row([queue], |row| row.get(0))?;
    Ok(Depth {
        visible: u64::try_from(all - in_flight).unwrap_or(0),
        in_flight: u64::try_from(in_flight).unwrap_or(0),
        delayed: 0,
    })
}

/// The ended sessions that still hold messages.
pub(super) fn sessions_ended(conn: &Connection, own: &Session) -> rusqlite::Result<Vec<String>> {
    let mut statement = conn.prepare_cached(
        "SELECT DISTINCT session FROM messages WHERE state = 2 AND session IS NOT NULL",
    )?;
    let sessions = statement
        .query_map([], |row| row.get::<_, String>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(sessions
        .into_iter()
        .filter(|id| !own.is_alive(id))
        .collect())
}

/// Shows at once what ended processes held; the receive counts, since it may be what ended them.
pub(super) fn reclaim(step: &mut Step<'_>) -> StepResult<()> {
    for session in sessions_ended(step.conn, step.session)? {
        let queues = step
            .conn
            .prepare_cached(
                "UPDATE messages SET state = 1, session = NULL WHERE state = 2 AND session = ?1 RETURNING queue",
            )?
            .query_map([session], |row| row.get::<_, i64>(0))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        queues.into_iter().for_each(|queue| step.ring(queue));
    }
    Ok(())
}

/// Clears out deduplication ids that no longer count and dead letters that nobody wanted for 14 days.
pub(super) fn clear_old(step: &mut Step<'_>) -> StepResult<()> {
    step.conn
        .prepare_cached("DELETE FROM dedup WHERE sent_at < ?1")?
        .execute([step.now - DEDUP_MS])?;
    for queue in DEAD {
        let old = step
            .conn
            .prepare_cached(
                "SELECT seq FROM messages WHERE queue = ?1 AND state = 1 AND sent_at < ?2",
            )?
            .query_map([queue, step.now - DEAD_LETTER_MS], |row| {
                row.get::<_, i64>(0)
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        if !old.is_empty() {
            tracing::warn!(
                removed = old.len(),
                "Removed dead letters that were older than 14 days."
            );
        }
        old.into_iter().try_for_each(|seq| remove(step, seq))?;
    }
    Ok(())
}

fn attributes_to_text(attributes: &BTreeMap<String, String>) -> String {
    // A map from text to text always has a JSON form.
    serde_json::to_string(attributes).unwrap_or_default()
}

fn attributes_from_text(text: &str) -> BTreeMap<String, String> {
    serde_json::from_str(text).unwrap_or_default()
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}
