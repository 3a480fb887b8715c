//! A consumer whose handler takes a given time and only counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use streampress::consume::{Consumer, Handled, Handler, HandlerError, MessageContext};
use streampress::message::Message;
use streampress::telemetry::metrics::Meter;
use streampress_crds::Role;
use streampress_transport::{Queue, SlotLock};
use tokio_util::sync::CancellationToken;

/// Takes its time for each message and counts those it finished.
#[derive(Debug)]
pub struct SlowHandler {
    /// For each message.
    pub takes: Duration,
    /// Messages handled to their end.
    pub handled: AtomicU32,
}

impl SlowHandler {
    /// A handler that has handled nothing yet.
    pub fn new(takes: Duration) -> Arc<Self> {
        Arc::new(Self {
            takes,
            handled: AtomicU32::new(0),
        })
    }
}

#[async_trait]
impl Handler for SlowHandler {
    async fn handle(
        &self,
        _message: &Message,
        context: MessageContext<'_>,
    ) -> Result<Handled, HandlerError> {
        tokio::select! {
            () = tokio::time::sleep(self.takes) => {} // The work itself.
            () = context.stop.cancelled() => return Err(HandlerError::Interrupted),
        }
        self.handled.fetch_add(1, Ordering::SeqCst);
        Ok(Handled::default())
    }
}

/// The body of a message that workers can parse.
pub fn body(name: &str) -> String {
    format!(r#"{{"ID": "", "file_name": "{name}"}}"#)
}

/// A consumer with the settings that a role has.
pub fn consumer(
    queue: Arc<dyn Queue>,
    lock: Arc<dyn SlotLock>,
    handler: Arc<dyn Handler>,
    threads: usize,
    shutdown: &CancellationToken,
) -> Consumer {
    Consumer {
        role: Role::Compressor,
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
