//! What was put so far.

use parking_lot::Mutex;

use crate::StreamCounts;

/// Numbers of records. A record moves from one count to another in one step, so that the sum holds at any time.
#[derive(Debug, Default)]
pub(super) struct PutCounts(Mutex<StreamCounts>);

impl PutCounts {
    /// As of one moment.
    pub(super) fn so_far(&self) -> StreamCounts {
        *self.0.lock()
    }

    /// So many records are in a request.
    pub(super) fn sent(&self, records: usize) {
        let mut counts = self.0.lock();
        counts.sent += records as u64;
        counts.under_way += records as u64;
    }

    /// One record of a request was answered.
    pub(super) fn answered(&self, outcome: impl FnOnce(&mut StreamCounts)) {
        let mut counts = self.0.lock();
        counts.under_way -= 1;
        outcome(&mut counts);
    }

    /// One record was refused for its shard's rate.
    pub(super) fn throttled(&self) {
        self.0.lock().throttled += 1;
    }
}
