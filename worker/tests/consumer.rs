//! How many messages a consumer has in progress at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use streampress::consume::{Handled, Handler, HandlerError, MessageContext};
use streampress::message::Message;
use streampress_transport::Outgoing;
use streampress_transport::in_process_lock::InProcessLock;
use tokio::sync::Notify;

#[path = "support/fixture.rs"]
mod fixture;

use fixture::{Fixture, RunningConsumer};

const MESSAGES: usize = 100;

/// The highest value that a counter had.
#[derive(Debug, Default)]
struct Gauge {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Gauge {
    async fn during(&self, work: impl Future<Output = ()>) {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        work.await;
        self.now.fetch_sub(1, Ordering::SeqCst);
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

/// Waits as for the transport, then works on a thread; counts how much of that happens at once.
#[derive(Debug, Default)]
struct CountingHandler {
    small: bool,
    /// The first messages wait until so many are in progress.
    waits_for: usize,
    enough: Notify,
    in_progress: Gauge,
    at_work: Gauge,
}

#[async_trait]
impl Handler for CountingHandler {
    async fn handle(
        &self,
        _message: &Message,
        context: MessageContext<'_>,
    ) -> Result<Handled, HandlerError> {
        let work = async {
            let enough = self.enough.notified();
            if self.in_progress.most() >= self.waits_for {
                self.enough.notify_waiters();
            } else {
                enough.await;
            }
            let _thread = context.one_thread().await.expect("not stopped");
            self.at_work.during(tokio::task::yield_now()).await;
        };
        self.in_progress.during(work).await;
        Ok(Handled::default())
    }

    fn is_small(&self, _message: &Message) -> bool {
        self.small
    }
}

/// Works off a queue with two threads; the most that was in progress, and at work.
async fn most_at_once(small: bool, strict: bool, waits_for: usize) -> (usize, usize) {
    let fixture = Fixture::open();
    let queue = fixture.local.files_queue();
    let messages = (0..MESSAGES).map(|number| Outgoing {
        group: format!("group-{number}"),
        dedup_id: format!("message-{number}"),
        body: format!(r#"{{"ID": "{number}", "file_name": "a.txt"}}"#),
        attributes: Default::default(),
    });
    queue.send(messages.collect()).await.expect("sent");
    let handler = Arc::new(CountingHandler {
        small,
        waits_for,
        ..CountingHandler::default()
    });
    let lock = Arc::new(InProcessLock::new("test", 1));
    let threads = if strict { 1 } else { 2 };
    let consumer = RunningConsumer::start(queue, lock, handler.clone(), threads, strict);
    consumer.conclude(MESSAGES as u64).await;
    consumer.stop().await;
    (handler.in_progress.most(), handler.at_work.most())
}

#[tokio::test]
async fn of_large_files_as_many_are_in_progress_as_there_are_threads() {
    assert_eq!(most_at_once(false, false, 2).await.0, 2);
}

#[tokio::test]
async fn small_files_are_received_by_the_ten_and_share_the_threads() {
    let (in_progress, at_work) = most_at_once(true, false, 11).await;
    assert!((11..=25).contains(&in_progress), "{in_progress}");
    assert_eq!(at_work, 2);
}

#[tokio::test]
async fn with_strict_ordering_one_file_is_in_progress_however_small() {
    assert_eq!(most_at_once(true, true, 1).await.0, 1);
}
