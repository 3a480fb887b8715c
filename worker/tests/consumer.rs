//! How much the consume loop has in hand at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use streampress::consume::{Consumer, Fault, Handler, MessageContext, Subject};
use streampress::telemetry::metrics::Meter;
use streampress_transport::in_process_lock::InProcessLock;
use streampress_transport::{Delivery, Outgoing};
use tokio_util::sync::CancellationToken;

#[path = "support/bench.rs"]
mod bench;

use bench::Bench;

const MESSAGES: usize = 100;

/// Waits for a door and then works for a moment; notes how much of that goes on at once.
#[derive(Debug, Default)]
struct Watched {
    small: bool,
    /// For more than ten in hand, hundredths of a second.
    waits: u32,
    in_hand: AtomicUsize,
    most_in_hand: AtomicUsize,
    at_work: AtomicUsize,
    most_at_work: AtomicUsize,
    done: AtomicUsize,
}

async fn during(now: &AtomicUsize, most: &AtomicUsize, work: impl Future<Output = ()>) {
    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    work.await;
    now.fetch_sub(1, Ordering::SeqCst);
}

#[async_trait]
impl Handler for Watched {
    async fn handle(&self, job: MessageContext<'_>) -> Result<(), Fault> {
        during(&self.in_hand, &self.most_in_hand, async {
            // As many as come, however slow the machine is; all that come where there are no more.
            for _ in 0..self.waits {
                if self.most_in_hand.load(Ordering::SeqCst) > 10 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let _thread = job.threads(false).await.expect("not stopped");
            let works = tokio::time::sleep(Duration::from_millis(1));
            during(&self.at_work, &self.most_at_work, works).await;
        })
        .await;
        Ok(())
    }

    fn subject(&self, _delivery: &Delivery) -> Subject {
        Subject::default()
    }

    fn is_small(&self, _delivery: &Delivery) -> bool {
        self.small
    }

    async fn acknowledged(&self, _delivery: &Delivery) {
        self.done.fetch_add(1, Ordering::SeqCst);
    }

    async fn on_dead_lettered(&self, _delivery: &Delivery, _reason: &str, _detail: &str) {}
}

/// Works off a queue with two threads; the most that was in hand, and at work.
async fn most_at_once(small: bool, strict: bool) -> (usize, usize) {
    let bench = Bench::open();
    let queue = bench.local.files_queue();
    let messages = (0..MESSAGES).map(|number| Outgoing {
        group: format!("group-{number}"),
        dedup_id: format!("message-{number}"),
        body: "work".into(),
        attributes: Default::default(),
    });
    queue.send(messages.collect()).await.expect("sent");
    let handler = Arc::new(Watched {
        small,
        waits: if small && !strict { 3000 } else { 1 },
        ..Watched::default()
    });
    let shutdown = CancellationToken::new();
    let consumer = Consumer {
        role: "test",
        queue,
        lock: Arc::new(InProcessLock::new("test", 1)),
        handler: handler.clone(),
        threads: if strict { 1 } else { 2 },
        strict,
        interval: Duration::from_secs(1),
        linger: Duration::from_millis(100),
        max_receive_count: 20,
        meter: Meter::default(),
        shutdown: shutdown.clone(),
    };
    let working = tokio::spawn(async move { consumer.run().await });
    while handler.done.load(Ordering::SeqCst) < MESSAGES {
        assert!(!working.is_finished());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    shutdown.cancel();
    working.await.expect("ended");
    let most = |most: &AtomicUsize| most.load(Ordering::SeqCst);
    (most(&handler.most_in_hand), most(&handler.most_at_work))
}

#[tokio::test]
async fn of_large_files_as_many_are_in_hand_as_there_are_threads() {
    assert_eq!(most_at_once(false, false).await.0, 2);
}

#[tokio::test]
async fn small_files_are_taken_by_the_ten_and_share_the_threads() {
    let (in_hand, at_work) = most_at_once(true, false).await;
    assert!((11..=25).contains(&in_hand), "{in_hand}");
    assert_eq!(at_work, 2);
}

#[tokio::test]
async fn with_strict_ordering_one_is_in_hand_however_small() {
    assert_eq!(most_at_once(true, true).await.0, 1);
}
