//! The contracts of the traits as tests, the same for every implementation: each check requests something new of the
//! [`Implementation`] and panics with what was wrong. What only one implementation promises is tested beside it.

mod eventually;
pub mod files;
mod fuzz;
pub mod lock;
pub mod queue;
pub mod stream;
mod taps;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::{ChunkStream, Queue, SlotLock};
pub use eventually::{Awaited, eventually, eventually_blocking};
pub use fuzz::{fuzz, kind_of_error, read_corpus};
pub use taps::{
    DeniedReads, FilesTap, QueueTap, StreamTap, TappedFiles, TappedQueue, TappedStream,
};

/// Longer than anything that works takes, also on a loaded machine; failing checks end after this.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An implementation under test.
#[async_trait]
pub trait Implementation: Send + Sync {
    /// The shortest visibility timeout that it can keep.
    fn short(&self) -> Duration;
    /// A new, empty queue with a dead-letter queue.
    async fn queue(&self, visibility_timeout: Duration, max_receive_count: u32) -> Arc<dyn Queue>;
    /// A stream.
    async fn stream(&self) -> Arc<dyn ChunkStream>;
    /// The same new slots as seen by `participants` processes.
    async fn locks(&self, participants: usize, slots: u32) -> Vec<Arc<dyn SlotLock>>;
}
