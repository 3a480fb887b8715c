//! The doors' contracts as tests, the same for every side: each check asks the [`Implementation`] for something fresh and
//! panics with what was wrong. Knows no side; what only one side promises is tested beside that implementation.

pub mod files;
pub mod lock;
pub mod queue;
pub mod stream;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{ChunkStream, Queue, SlotLock};

/// Longer than anything takes that works; failing checks end after this.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One side of the doors under test.
#[async_trait]
pub trait Implementation: Send + Sync {
    /// The shortest hiding time that this side can keep.
    fn short(&self) -> Duration;
    /// A new, empty queue with a dead-letter queue.
    async fn queue(&self, visibility: Duration, max_receive_count: u32) -> Arc<dyn Queue>;
    /// A stream.
    async fn stream(&self) -> Arc<dyn ChunkStream>;
    /// The same new slots as seen by `participants` processes.
    async fn locks(&self, participants: usize, slots: u32) -> Vec<Arc<dyn SlotLock>>;
}

/// Asks until `probe` answers true; panics after [`PATIENCE`].
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut probe: impl FnMut() -> F) {
    let asking = async {
        while !probe().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let outcome = tokio::time::timeout(PATIENCE, asking).await;
    assert!(outcome.is_ok(), "never came true: {what}");
}
