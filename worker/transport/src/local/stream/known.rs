//! Since when the database knows each segment as it is. Of a segment that it does not know, as where it was put back to an earlier
//! state or is lost, it does not know either which of its files are needed: such a segment stays for the retention time from
//! the moment in which it was found, however old it is.

use std::collections::HashMap;

use rusqlite::params;

use crate::local::store::{Step, StepResult};

/// A segment as the folder has it.
#[derive(Debug, Clone)]
pub(super) struct FoundSegment {
    /// Its shard.
    pub(super) name: String,
    pub(super) bytes: u64,
    /// Whether it may be removed as far as its file tells.
    pub(super) is_old: bool,
}

/// Takes in the segments of the folder; answers those that are old, and known as they are for longer than `retention_millis`.
pub(super) fn take_in(
    step: &mut Step<'_>,
    found: &[FoundSegment],
    retention_millis: i64,
) -> StepResult<Vec<String>> {
    let mut known = HashMap::new();
    let mut select = step
        .conn
        .prepare_cached("SELECT name, bytes, known_at FROM segments")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (name, bytes, known_at): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        known.insert(name, (bytes, known_at));
    }
    let mut removable = Vec::new();
    for segment in found {
        let bytes = i64::try_from(segment.bytes).unwrap_or(i64::MAX);
        let known_at = match known.remove(&segment.name) {
            Some((known_bytes, known_at)) if known_bytes == bytes => known_at,
            _ => {
                step.conn
                    .prepare_cached(
                        "INSERT OR REPLACE INTO segments(name, bytes, known_at) VALUES(?1, ?2, ?3)",
                    )?
                    .execute(params![segment.name, bytes, step.now])?;
                step.now
            }
        };
        if segment.is_old && step.now.saturating_sub(known_at) >= retention_millis {
            removable.push(segment.name.clone());
        }
    }
    for gone in known.keys() {
        step.conn
            .prepare_cached("DELETE FROM segments WHERE name = ?1")?
            .execute([gone])?;
    }
    Ok(removable)
}
