//! A consumer whose work takes its time and has no effect but a count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use streampress::consume::{Consumer, Fault, Handler, MessageContext, Subject};
use streampress::telemetry::metrics::Meter;
use streampress_transport::{Delivery, Queue, SlotLock};
use tokio_util::sync::CancellationToken;

/// Takes its time, and counts.
#[derive(Debug)]
pub struct Slow {
    /// For each message.
    pub takes: Duration,
    /// Messages worked off to their end.
    pub handled: AtomicU32,
}

impl Slow {
    /// Nothing handled yet.
    pub fn new(takes: Duration) -> Arc<Self> {
        Arc::new(Self {
            takes,
            handled: AtomicU32::new(0),
        })
    }
}

#[async_trait]
impl Handler for Slow {
    async fn handle(&self, job: MessageContext<'_>) -> Result<(), Fault> {
        tokio::select! {
            () = tokio::time::sleep(self.takes) => {}
            () = job.stop.cancelled() => return Err(Fault::Interrupted),
        }
        self.handled.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn subject(&self, _delivery: &Delivery) -> Subject {
        Subject::default()
    }

    fn is_small(&self, _delivery: &Delivery) -> bool {
        false
    }

    async fn acknowledged(&self, _delivery: &Delivery) {}

    async fn on_dead_lettered(&self, _delivery: &Delivery, _reason: &str, _detail: &str) {}
}

/// A consumer as a role has one.
pub fn consumer(
    queue: Arc<dyn Queue>,
    lock: Arc<dyn SlotLock>,
    handler: Arc<dyn Handler>,
    threads: usize,
    shutdown: &CancellationToken,
) -> Consumer {
    Consumer {
        role: "test",
        queue,
        lock,
        handler,
        threads,
        strict: false,
        interval: Duration::from_millis(200),
        linger: Duration::from_secs(1),
        max_receive_count: 20,
        meter: Meter::default(),
        shutdown: shutdown.clone(),
    }
}
