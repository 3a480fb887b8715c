//! Two queues that one consumer receives from under one slot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use streampress_transport::{Delivery, Depth, Failure, Outgoing, Queue, Receipt, TransportResult};

/// Ends the receipt of a delivery of the second queue. No transport's receipts end so.
const SECOND: &str = "\u{1f}2";

/// How long a receive waits for the other queue after an error of one.
const AFTER_ERROR: Duration = Duration::from_secs(1);

/// A queue that brings the messages of two. What is sent goes to the first, whose dead letters it has. Neither queue's
/// messages wait for the other queue to be empty.
#[derive(Debug)]
pub struct JoinedQueue {
    first: Arc<dyn Queue>,
    second: Arc<dyn Queue>,
    second_goes_first: AtomicBool,
}

impl JoinedQueue {
    /// Joins two queues.
    pub fn new(first: Arc<dyn Queue>, second: Arc<dyn Queue>) -> Self {
        Self {
            first,
            second,
            second_goes_first: AtomicBool::new(false),
        }
    }

    /// The queue that a receipt belongs to, and the receipt as that queue gave it.
    fn of(&self, receipt: &Receipt) -> (&dyn Queue, Receipt) {
        match receipt.0.strip_suffix(SECOND) {
            Some(own) => (&*self.second, Receipt(own.to_owned())),
            None => (&*self.first, receipt.clone()),
        }
    }

    async fn receive_from_second(
        &self,
        max: usize,
        wait: Duration,
    ) -> TransportResult<Vec<Delivery>> {
        let mut deliveries = self.second.receive(max, wait).await?;
        for delivery in &mut deliveries {
            delivery.receipt.0.push_str(SECOND);
        }
        Ok(deliveries)
    }
}

#[async_trait]
impl Queue for JoinedQueue {
    fn name(&self) -> &str {
        self.first.name()
    }

    fn visibility_timeout(&self) -> Duration {
        let timeouts = [&self.first, &self.second].map(|queue| queue.visibility_timeout());
        timeouts[0].min(timeouts[1])
    }

    async fn send(&self, messages: Vec<Outgoing>) -> TransportResult<()> {
        self.first.send(messages).await
    }

    /// Of one of the queues. An error of one does not stop the other: it is answered only where that brings nothing.
    async fn receive(&self, max: usize, wait: Duration) -> TransportResult<Vec<Delivery>> {
        let first = self.first.receive(max, wait);
        let second = self.receive_from_second(max, wait);
        tokio::pin!(first, second);
        // The one that was not asked first last time, so that a queue that always has messages does not hold up the other.
        let is_second_first = self.second_goes_first.fetch_xor(true, Ordering::Relaxed);
        let (one, is_from_second) = match is_second_first {
            true => tokio::select! {
                biased;
                received = &mut second => (received, true),
                received = &mut first => (received, false),
            },
            false => tokio::select! {
                biased;
                received = &mut first => (received, false),
                received = &mut second => (received, true),
            },
        };
        if one.as_ref().is_ok_and(|received| !received.is_empty()) {
            return one;
        }
        let other = async {
            match is_from_second {
                true => first.await,
                false => second.await,
            }
        };
        // An error is told soon, however long the other queue has nothing.
        let other = match &one {
            Ok(_) => other.await,
            Err(_) => tokio::time::timeout(AFTER_ERROR, other)
                .await
                .unwrap_or(Ok(Vec::new())),
        };
        match (one, other) {
            (_, Ok(received)) if !received.is_empty() => Ok(received),
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(_), Ok(_)) => Ok(Vec::new()),
        }
    }

    async fn extend(&self, receipt: &Receipt, visibility_timeout: Duration) -> TransportResult<()> {
        let (queue, receipt) = self.of(receipt);
        queue.extend(&receipt, visibility_timeout).await
    }

    async fn delete(&self, receipt: &Receipt) -> TransportResult<()> {
        let (queue, receipt) = self.of(receipt);
        queue.delete(&receipt).await
    }

    async fn release(&self, receipt: &Receipt) -> TransportResult<()> {
        let (queue, receipt) = self.of(receipt);
        queue.release(&receipt).await
    }

    async fn dead_letter(&self, delivery: &Delivery, failure: &Failure) -> TransportResult<()> {
        let (queue, receipt) = self.of(&delivery.receipt);
        let delivery = Delivery {
            receipt,
            ..delivery.clone()
        };
        queue.dead_letter(&delivery, failure).await
    }

    async fn drain(&self, patience: Duration) -> bool {
        let (first, second) = tokio::join!(self.first.drain(patience), self.second.drain(patience));
        first && second
    }

    async fn depth(&self) -> TransportResult<Depth> {
        let (first, second) = tokio::try_join!(self.first.depth(), self.second.depth())?;
        Ok(Depth {
            visible: first.visible.saturating_add(second.visible),
            in_flight: first.in_flight.saturating_add(second.in_flight),
            delayed: first.delayed.saturating_add(second.delayed),
        })
    }

    fn dead_letters(&self) -> Option<Arc<dyn Queue>> {
        self.first.dead_letters()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use streampress_transport::DeadLetterReason;
    use streampress_transport::local::{Local, LocalOptions};

    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    fn message(group: &str) -> Outgoing {
        Outgoing {
            group: group.into(),
            dedup_id: format!("{group}-id"),
            body: group.into(),
            attributes: BTreeMap::new(),
        }
    }

    async fn send(queue: &dyn Queue, groups: &[&str]) {
        let messages = groups.iter().map(|group| message(group)).collect();
        queue.send(messages).await.expect("sent");
    }

    fn bodies(deliveries: &[Delivery]) -> Vec<&str> {
        deliveries.iter().map(|it| &*it.body).collect()
    }

    async fn total(queue: &dyn Queue) -> u64 {
        queue.depth().await.expect("known").total()
    }

    #[tokio::test]
    async fn neither_queue_waits_until_the_other_is_empty() {
        let root = tempfile::tempdir().expect("a folder");
        let local = Local::open(root.path(), LocalOptions::default()).expect("opens");
        let (files, receipts) = (local.files_queue(), local.receipts_queue());
        send(&*files, &["f1", "f2", "f3", "f4"]).await;
        send(&*receipts, &["r1", "r2", "r3", "r4"]).await;
        let joined = JoinedQueue::new(files, receipts);
        let mut seen = Vec::new();
        for _ in 0..4 {
            let received = joined.receive(1, SOON).await.expect("received");
            seen.push(bodies(&received)[0][..1].to_owned());
        }
        assert_eq!(seen, ["f", "r", "f", "r"]);
    }

    #[tokio::test]
    async fn each_message_is_extended_released_and_deleted_in_its_own_queue() {
        let root = tempfile::tempdir().expect("a folder");
        let local = Local::open(root.path(), LocalOptions::default()).expect("opens");
        let (files, receipts) = (local.files_queue(), local.receipts_queue());
        for (queue, other) in [(&files, &receipts), (&receipts, &files)] {
            let joined = JoinedQueue::new(files.clone(), receipts.clone());
            send(&**queue, &["m"]).await;
            assert_eq!(total(&joined).await, 1);
            let received = joined.receive(10, SOON).await.expect("received");
            assert_eq!(bodies(&received), ["m"]);
            let extended = joined.extend(&received[0].receipt, 2 * SOON);
            extended.await.expect("extended");
            let released = joined.release(&received[0].receipt).await;
            released.expect("released");
            let received = joined.receive(10, SOON).await.expect("received");
            assert_eq!(total(&**other).await, 0);
            joined.delete(&received[0].receipt).await.expect("deleted");
            assert_eq!(total(&joined).await, 0);
        }
    }

    #[tokio::test]
    async fn a_dead_letter_stays_with_its_own_queue() {
        let root = tempfile::tempdir().expect("a folder");
        let local = Local::open(root.path(), LocalOptions::default()).expect("opens");
        let (files, receipts) = (local.files_queue(), local.receipts_queue());
        let joined = JoinedQueue::new(files.clone(), receipts.clone());
        send(&*receipts, &["m"]).await;
        let received = joined.receive(10, SOON).await.expect("received");
        let failure = Failure::new(DeadLetterReason::UnreadableMessage, "why");
        let died = joined.dead_letter(&received[0], &failure).await;
        died.expect("moved");
        let dead = |queue: &Arc<dyn Queue>| queue.dead_letters().expect("dead letters");
        assert_eq!(total(&*dead(&receipts)).await, 1);
        assert_eq!(total(&*dead(&files)).await, 0);
    }
}
