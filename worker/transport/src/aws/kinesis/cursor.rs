//! A place in a shard from which reading goes on.

use tokio::time::{Duration, Instant};

use crate::Sequence;

/// Iterators live five minutes.
const ITERATOR_LIFE: Duration = Duration::from_secs(270);

/// See the module.
#[derive(Debug)]
pub(super) struct Cursor {
    /// `None` at the end of a closed shard.
    pub(super) iterator: Option<String>,
    pub(super) issued_at: Instant,
    /// Everything after this is still ahead, and this too where it is `inclusive`.
    pub(super) from: Sequence,
    pub(super) inclusive: bool,
    /// Nothing was read yet from here.
    pub(super) unread: bool,
    /// The last answer held nothing that was requested.
    pub(super) idle: bool,
}

impl Cursor {
    /// Right at a record, which is read first.
    pub(super) fn at(sequence: &Sequence, iterator: Option<String>) -> Self {
        Self {
            iterator,
            issued_at: Instant::now(),
            from: sequence.clone(),
            inclusive: true,
            unread: true,
            idle: false,
        }
    }

    /// Whether a record is still ahead.
    pub(super) fn is_before(&self, sequence: &Sequence) -> bool {
        self.from < *sequence || (self.inclusive && self.from == *sequence)
    }

    /// Whether reading on from here reaches a record without a seek.
    pub(super) fn leads_to(&self, target: &Sequence) -> bool {
        let usable = !self.idle && self.issued_at.elapsed() < ITERATOR_LIFE;
        self.is_before(target) && (self.iterator.is_none() || usable)
    }
}
