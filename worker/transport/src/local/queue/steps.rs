//! What happens to a queue's messages, each as a step of a transaction.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, params};
use streampress_crds::DeadLetterReason;
use tokio::time::Instant;

use crate::local::session::Session;
use crate::local::store::{Step, StepResult, Which};
use crate::{
    ATTR_DETAIL, ATTR_GROUP, ATTR_REASON, ATTR_VERSION, Delivery, Depth, Failure, FileVersion,
    Outgoing, Receipt, TransportError, TransportResult,
};

/// A second message with the same deduplication id within this time is dropped.
const DEDUP_MS: i64 = 5 * 60 * 1000;
/// A time stamp further in the future than this means that the clock was set back.
const CLOCK_SLACK_MS: i64 = 2000;

/// Row ids that a millisecond has; more messages in one take those of the next.
const NUMBERS_PER_MS: i64 = 1000;

/// After how many receives a message becomes a dead letter, and where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) max_receive_count: u32,
    pub(super) dead_queue: i64,
}

/// A queue as its messages name it.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueSource {
    pub(super) number: i64,
    pub(super) name: &'static str,
    pub(super) epoch: u64,
}

impl QueueSource {
    /// The version that the message with this row id announces.
    pub(super) fn version(self, seq: i64) -> FileVersion {
        let sequence = u64::try_from(seq).unwrap_or(0).into();
        FileVersion::new(self.name, self.epoch, sequence)
    }
}

/// A parsed receipt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handle {
    queue: i64,
    pub(super) seq: i64,
    delivery: i64,
}

impl Handle {
    fn receipt(self) -> Receipt {
        Receipt(format!("{}-{}-{}", self.queue, self.seq, self.delivery))
    }

    pub(super) fn parse_any(receipt: &Receipt) -> Option<Self> {
        let mut parts = receipt.0.split('-').map(|part| part.parse().ok());
        let handle = Self {
            queue: parts.next()??,
            seq: parts.next()??,
            delivery: parts.next()??,
        };
        parts.next().is_none().then_some(handle)
    }

    pub(super) fn parse(receipt: &Receipt, queue: i64) -> TransportResult<Self> {
        Self::parse_any(receipt)
            .filter(|handle| handle.queue == queue)
            .ok_or_else(|| {
                TransportError::Invalid(format!("{:?} is no receipt of this queue", receipt.0))
            })
    }

    /// Stale unless the delivery of this receipt is still the message's latest, and in flight.
    pub(super) fn check(self, step: &Step<'_>) -> StepResult<()> {
        let held: Option<bool> = step
            .conn
            .prepare_cached(
                "SELECT state = 2 AND delivery = ?3 AND hidden_until > ?4 FROM messages WHERE seq = ?1 AND queue = ?2",
            )?
            .query_row(params![self.seq, self.queue, self.delivery, step.now], |row| row.get(0))
            .optional()?;
        match held {
            Some(true) => Ok(()),
            Some(false) | None => Err(TransportError::Stale.into()),
        }
    }

    pub(super) fn extend(self, step: &mut Step<'_>, visibility_ms: i64) -> StepResult<()> {
        self.check(step)?;
        step.conn
            .prepare_cached(
                "UPDATE messages SET hidden_since = ?2, hidden_until = ?2 + ?3 WHERE seq = ?1",
            )?
            .execute(params![self.seq, step.now, visibility_ms])?;
        if visibility_ms == 0 {
            step.wake_receiver(self.queue);
        }
        Ok(())
    }

    pub(super) fn delete(self, step: &mut Step<'_>) -> StepResult<()> {
        self.check(step)?;
        remove(step, self.seq)
    }

    pub(super) fn release(self, step: &mut Step<'_>) -> StepResult<()> {
        self.check(step)?;
        self.make_visible(step, "UPDATE messages SET state = 1, session = NULL, given_back = given_back + 1 WHERE seq = ?1")
    }

    pub(super) fn unreceive(self, step: &mut Step<'_>) -> StepResult<()> {
        self.check(step)?;
        self.make_visible(
            step,
            "UPDATE messages SET state = 1, session = NULL, receives = receives - 1 WHERE seq = ?1",
        )
    }

    fn make_visible(self, step: &mut Step<'_>, sql: &str) -> StepResult<()> {
        step.conn.prepare_cached(sql)?.execute([self.seq])?;
        step.wake_receiver(self.queue);
        Ok(())
    }
}

/// The message's row id; `None` for a duplicate, which is dropped.
pub(super) fn send(step: &mut Step<'_>, queue: i64, message: &Outgoing) -> StepResult<Option<i64>> {
    let sent_at: Option<i64> = step
        .conn
        .prepare_cached("SELECT sent_at FROM dedup WHERE queue = ?1 AND dedup_id = ?2")?
        .query_row(params![queue, message.dedup_id], |row| row.get(0))
        .optional()?;
    if sent_at.is_some_and(|at| (step.now - DEDUP_MS..=step.now + CLOCK_SLACK_MS).contains(&at)) {
        return Ok(None);
    }
    step.conn
        .prepare_cached(
            "INSERT OR REPLACE INTO dedup(queue, dedup_id, sent_at) VALUES(?1, ?2, ?3)",
        )?
        .execute(params![queue, message.dedup_id, step.now])?;
    let message_id = uuid::Uuid::new_v4().to_string();
    insert(step, queue, &message_id, message).map(Some)
}

/// The last row id that was given to a message, of whichever queue.
pub(super) fn last_number(step: &Step<'_>) -> StepResult<i64> {
    let last = step
        .conn
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'messages'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(last.unwrap_or(0))
}

/// Whether the message with this row id waits in the queue and was never received.
pub(super) fn waits_unreceived(step: &Step<'_>, queue: i64, seq: i64) -> StepResult<bool> {
    let unreceived = step
        .conn
        .prepare_cached("SELECT delivery = 0 FROM messages WHERE seq = ?1 AND queue = ?2")?
        .query_row([seq, queue], |row| row.get(0))
        .optional()?;
    Ok(unreceived.unwrap_or(false))
}

/// When a message with this row id was sent; not before that, where the clock was set back.
pub(in crate::local) fn time_of_number(number: u64) -> SystemTime {
    let per_ms = NUMBERS_PER_MS.unsigned_abs();
    UNIX_EPOCH + Duration::from_millis(number / per_ms)
}

/// Adds a message at the end of its group; answers its row id. Row ids grow, and follow the clock where it is ahead of them:
/// a database that is put back to an earlier state would give the ids of lost messages to new ones, and a version that is
/// announced after that would not count as newer than those that were restored before.
fn insert(
    step: &mut Step<'_>,
    queue: i64,
    message_id: &str,
    message: &Outgoing,
) -> StepResult<i64> {
    let (first_of_group, seq): (bool, i64) = step
        .conn
        .prepare_cached(
            "INSERT INTO messages(seq, queue, group_id, state, message_id, dedup_id, body, attributes, sent_at)
             VALUES(max(?8, 1 + ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'messages'), 0)),
               ?1, ?2, NOT EXISTS(SELECT 1 FROM messages WHERE queue = ?1 AND group_id = ?2), ?3, ?4, ?5, ?6, ?7)
             RETURNING state, seq",
        )?
        .query_row(
            params![
                queue,
                message.group,
                message_id,
                message.dedup_id,
                message.body,
                attributes_to_text(&message.attributes),
                step.now,
                step.now.saturating_mul(NUMBERS_PER_MS)
            ],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
    if first_of_group {
        step.wake_receiver(queue);
    }
    Ok(seq)
}

/// Removes a message and makes the next of its group receivable.
fn remove(step: &mut Step<'_>, seq: i64) -> StepResult<()> {
    let removed: Option<(i64, String)> = step
        .conn
        .prepare_cached("DELETE FROM messages WHERE seq = ?1 RETURNING queue, group_id")?
        .query_row([seq], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((queue, group)) = removed else {
        return Ok(());
    };
    let next = step
        .conn
        .prepare_cached(
            "UPDATE messages SET state = 1 WHERE state = 0 AND seq =
               (SELECT seq FROM messages WHERE queue = ?1 AND group_id = ?2 ORDER BY seq LIMIT 1)",
        )?
        .execute(params![queue, group])?;
    if next > 0 {
        step.wake_receiver(queue);
    }
    Ok(())
}

/// A receivable message, as it is in the table.
struct Ready {
    seq: i64,
    message_id: String,
    message: Outgoing,
    receives: u32,
    releases: u32,
    delivery: i64,
    sent_at: i64,
}

const READY_COLUMNS: &str = "seq, message_id, group_id, dedup_id, body, attributes, receives, given_back, delivery, sent_at";

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
        releases: row.get(7)?,
        delivery: row.get(8)?,
        sent_at: row.get(9)?,
    })
}

pub(super) fn take(
    step: &mut Step<'_>,
    queue: QueueSource,
    max: usize,
    (requested_at, visibility_ms): (Instant, i64),
    limit: Option<Limit>,
) -> StepResult<Vec<Delivery>> {
    expire(step, queue.number)?;
    let mut deliveries = Vec::new();
    while deliveries.len() < max {
        // A dead letter makes the next of its group receivable: query again until the batch is full or none is left.
        let ready: Option<Ready> = step
            .conn
            .prepare_cached(&format!(
                "SELECT {READY_COLUMNS} FROM messages WHERE queue = ?1 AND state = 1 ORDER BY seq LIMIT 1"
            ))?
            .query_row([queue.number], read_ready)
            .optional()?;
        let Some(ready) = ready else { break };
        match limit {
            Some(limit)
                if ready.receives.saturating_sub(ready.releases) >= limit.max_receive_count =>
            {
                let detail = format!(
                    "received {} times without success; see the worker's log",
                    ready.receives
                );
                let failure = Failure::new(DeadLetterReason::ReceivedTooOften, detail);
                dead_letter(step, queue, ready.seq, limit.dead_queue, &failure)?;
            }
            _ => deliveries.push(deliver(step, queue, ready, (requested_at, visibility_ms))?),
        }
    }
    Ok(deliveries)
}

fn deliver(
    step: &Step<'_>,
    queue: QueueSource,
    ready: Ready,
    (requested_at, visibility_ms): (Instant, i64),
) -> StepResult<Delivery> {
    step.conn
        .prepare_cached(
            "UPDATE messages SET state = 2, receives = receives + 1, delivery = delivery + 1, session = ?2,
               hidden_since = ?3, hidden_until = ?3 + ?4 WHERE seq = ?1",
        )?
        .execute(params![ready.seq, step.session.id(), step.now, visibility_ms])?;
    let handle = Handle {
        queue: queue.number,
        seq: ready.seq,
        delivery: ready.delivery + 1,
    };
    Ok(Delivery {
        message_id: ready.message_id,
        group: ready.message.group,
        dedup_id: ready.message.dedup_id,
        body: ready.message.body,
        attributes: ready.message.attributes,
        sent_as: queue.version(ready.seq),
        sent_millis: u64::try_from(ready.sent_at).unwrap_or(0),
        receive_count: ready.receives + 1,
        received_at: requested_at,
        visibility_deadline: requested_at
            + Duration::from_millis(u64::try_from(visibility_ms).unwrap_or(0)),
        receipt: handle.receipt(),
    })
}

/// Makes messages receivable whose visibility timeout ran out, or began in a future that the clock was set back from.
fn expire(step: &mut Step<'_>, queue: i64) -> StepResult<()> {
    step.conn
        .prepare_cached(
            "UPDATE messages SET state = 1, session = NULL
             WHERE queue = ?1 AND state = 2 AND (hidden_until <= ?2 OR hidden_since > ?2 + ?3)",
        )?
        .execute(params![queue, step.now, CLOCK_SLACK_MS])?;
    Ok(())
}

/// One entry, the queue, for every message whose visibility timeout ran out and that was not received since.
pub(in crate::local) fn expired(conn: &Connection, now: i64) -> rusqlite::Result<Vec<i64>> {
    conn.prepare_cached(
        "SELECT queue FROM messages WHERE state = 2 AND (hidden_until <= ?1 OR hidden_since > ?1 + ?2)",
    )?
    .query_map([now, CLOCK_SLACK_MS], |row| row.get(0))?
    .collect()
}

/// Moves a message to the end of the dead letters, as a group of its own. In one transaction there is never a second copy,
/// so nothing is deduplicated, which could drop a later dead letter of the same id.
pub(super) fn dead_letter(
    step: &mut Step<'_>,
    queue: QueueSource,
    seq: i64,
    dead: i64,
    failure: &Failure,
) -> StepResult<()> {
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
        return Err(TransportError::Stale.into());
    };
    message
        .attributes
        .insert(ATTR_REASON.into(), failure.reason.to_string());
    message
        .attributes
        .insert(ATTR_DETAIL.into(), failure.detail.clone());
    let group = std::mem::replace(&mut message.group, message_id.clone());
    message.attributes.insert(ATTR_GROUP.into(), group);
    message
        .attributes
        .entry(ATTR_VERSION.into())
        .or_insert_with(|| queue.version(seq).to_string());
    remove(step, seq)?;
    insert(step, dead, &message_id, &message).map(drop)
}

pub(super) fn depth(step: &Step<'_>, queue: i64) -> StepResult<Depth> {
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
pub(in crate::local) fn ended_sessions(
    conn: &Connection,
    own: &Session,
) -> rusqlite::Result<Vec<String>> {
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

/// Makes receivable at once what ended processes held; the receive counts, since its work may have ended the process.
pub(in crate::local) fn reclaim(step: &mut Step<'_>) -> StepResult<()> {
    for session in ended_sessions(step.conn, step.session)? {
        let queues = step
            .conn
            .prepare_cached(
                "UPDATE messages SET state = 1, session = NULL WHERE state = 2 AND session = ?1 RETURNING queue",
            )?
            .query_map([session], |row| row.get::<_, i64>(0))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        queues
            .into_iter()
            .for_each(|queue| step.wake_receiver(queue));
    }
    Ok(())
}

/// Removes deduplication ids that no longer count. Dead letters stay until they are sent again: nothing here forces a limit, and a
/// clock that is wrong once must not remove them.
pub(in crate::local) fn remove_old(step: &mut Step<'_>) -> StepResult<()> {
    step.conn
        .prepare_cached("DELETE FROM dedup WHERE sent_at < ?1")?
        .execute([step.now - DEDUP_MS])?;
    Ok(())
}

/// Waiting messages and dead letters that name records of the stream.
pub(in crate::local) fn manifests(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row(
        "SELECT count(*) FROM messages WHERE queue IN (?1, ?2)",
        [Which::Chunks as i64, Which::ChunksDead as i64],
        |row| row.get(0),
    )
}

/// Messages that are read at a time by [`quoted_names`].
const READ_AT_A_TIME: i64 = 100;

/// The texts between quotation marks in all messages that `is_name` takes, dead letters included; and of those in messages
/// that also hold `mark`, once more. Call it outside a transaction: it reads a few messages at a time, so that nothing waits
/// for it, and misses none, since a message that becomes a dead letter gets a number behind all others.
pub(in crate::local) fn quoted_names(
    conn: &Connection,
    is_name: fn(&str) -> bool,
    mark: &str,
) -> rusqlite::Result<QuotedNames> {
    let mut found = QuotedNames::default();
    let mut statement =
        conn.prepare("SELECT seq, body FROM messages WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
    let mut last = Some(i64::MIN);
    while let Some(after) = last.take() {
        let mut rows = statement.query(params![after, READ_AT_A_TIME])?;
        while let Some(row) = rows.next()? {
            last = Some(row.get(0)?);
            let body = row.get_ref(1)?.as_str()?;
            let is_marked = body.contains(mark);
            for name in body.split('"').filter(|text| is_name(text)) {
                if is_marked {
                    found.marked.insert(name.to_owned());
                }
                found.all.insert(name.to_owned());
            }
        }
    }
    Ok(found)
}

/// See [`quoted_names`].
#[derive(Debug, Default)]
pub(in crate::local) struct QuotedNames {
    pub(in crate::local) all: HashSet<String>,
    pub(in crate::local) marked: HashSet<String>,
}

fn attributes_to_text(attributes: &BTreeMap<String, String>) -> String {
    // A map from text to text always has a JSON form.
    serde_json::to_string(attributes).unwrap_or_default()
}

fn attributes_from_text(text: &str) -> BTreeMap<String, String> {
    serde_json::from_str(text).unwrap_or_default()
}
