//! Records that were read before they were requested. Bounded in bytes over all shards of a stream: the oldest of a shard
//! go first.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::Sequence;

/// What all caches of a stream may hold together.
#[derive(Debug)]
pub(super) struct CacheBudget {
    limit_bytes: usize,
    used_bytes: AtomicUsize,
}

impl CacheBudget {
    pub(super) fn new(limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            limit_bytes,
            used_bytes: AtomicUsize::new(0),
        })
    }

    fn is_over_with(&self, more_bytes: usize) -> bool {
        self.used_bytes.load(Ordering::Relaxed) + more_bytes > self.limit_bytes
    }
}

/// One shard's part.
#[derive(Debug)]
pub(super) struct RecordCache {
    budget: Arc<CacheBudget>,
    records: BTreeMap<Sequence, Bytes>,
    /// In the order kept; some of them were taken out since.
    order: VecDeque<Sequence>,
}

impl RecordCache {
    pub(super) fn new(budget: Arc<CacheBudget>) -> Self {
        Self {
            budget,
            records: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Keeps a record, dropping older ones where the budget is used up; false when it could not be kept.
    pub(super) fn keep(&mut self, sequence: Sequence, data: Bytes) -> bool {
        while self.budget.is_over_with(data.len()) {
            let Some(oldest) = self.order.pop_front() else {
                return false;
            };
            self.remove(&oldest);
        }
        self.budget
            .used_bytes
            .fetch_add(data.len(), Ordering::Relaxed);
        match self.records.insert(sequence.clone(), data) {
            // A shard that is read again brings the same records: each is in the order once.
            Some(before) => {
                self.budget
                    .used_bytes
                    .fetch_sub(before.len(), Ordering::Relaxed);
            }
            None => self.order.push_back(sequence),
        }
        true
    }

    /// Takes a record out: hardly any is requested twice.
    pub(super) fn take(&mut self, sequence: &Sequence) -> Option<Bytes> {
        let data = self.remove(sequence)?;
        if self.order.len() > 2 * self.records.len() + 64 {
            self.order.retain(|kept| self.records.contains_key(kept));
        }
        Some(data)
    }

    /// How many cached records lie between two others.
    pub(super) fn count_between(&self, after: &Sequence, before: &Sequence) -> usize {
        let between = (Bound::Excluded(after), Bound::Excluded(before));
        self.records.range::<Sequence, _>(between).count()
    }

    /// The first cached record behind another.
    pub(super) fn first_after(&self, sequence: &Sequence) -> Option<&Sequence> {
        let behind = (Bound::Excluded(sequence), Bound::Unbounded);
        self.records
            .range::<Sequence, _>(behind)
            .next()
            .map(|(first, _)| first)
    }

    fn remove(&mut self, sequence: &Sequence) -> Option<Bytes> {
        let data = self.records.remove(sequence)?;
        self.budget
            .used_bytes
            .fetch_sub(data.len(), Ordering::Relaxed);
        Some(data)
    }
}

impl Drop for RecordCache {
    fn drop(&mut self) {
        let bytes = self.records.values().map(Bytes::len).sum();
        self.budget.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_and_the_bound_holds_over_all_shards() {
        let budget = CacheBudget::new(100);
        let (mut a, mut b) = (
            RecordCache::new(budget.clone()),
            RecordCache::new(budget.clone()),
        );
        for number in 0..3u64 {
            a.keep(number.into(), Bytes::from(vec![0; 30]));
        }
        b.keep(7.into(), Bytes::from(vec![0; 30]));
        assert!(
            b.take(&7.into()).is_none(),
            "the budget is used up, and it has nothing of its own to drop"
        );
        a.keep(3.into(), Bytes::from(vec![0; 30]));
        assert!(a.take(&0.into()).is_none());
        assert!(a.take(&1.into()).is_some());
        assert!(a.take(&1.into()).is_none(), "taken out once");
        drop(a);
        assert_eq!(budget.used_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn records_that_are_read_again_and_again_take_no_more_memory() {
        let budget = CacheBudget::new(1000);
        let mut cache = RecordCache::new(budget.clone());
        for number in (0..10_000u64).map(|time| time % 10) {
            cache.keep(number.into(), Bytes::from_static(&[0; 30]));
        }
        assert_eq!((cache.order.len(), cache.records.len()), (10, 10));
        assert_eq!(budget.used_bytes.load(Ordering::Relaxed), 300);
    }
}
