//! Values as the columns of a data folder's journal hold them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::Row;
use streampress_transport::{DeadLetterReason, Failure};

/// A recorded failure, from a column. Another version of this program may know other reasons; its text stays whole.
pub(super) fn failure_in(row: &Row<'_>, column: usize) -> rusqlite::Result<Failure> {
    let text: Option<String> = row.get(column)?;
    let text = text.unwrap_or_default();
    let known = text.split_once(": ").and_then(|(reason, detail)| {
        let reason = reason.parse().ok()?;
        Some(Failure::new(reason, detail))
    });
    Ok(known.unwrap_or_else(|| Failure::new(DeadLetterReason::GaveUp, text)))
}

/// The largest where it does not fit.
pub(super) fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Nanoseconds since 1970, before it negative.
pub(super) fn nanos(time: SystemTime) -> i64 {
    let signed = |d: Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => signed(after),
        Err(before) => -signed(before.duration()),
    }
}
