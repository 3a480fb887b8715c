//! Messages that were received from SQS and not yet deleted or released: ready to be delivered, delivered, or waiting behind
//! an earlier message of their group. Plain state; the queue does the calls.
//!
//! SQS returns several messages of one group in one answer. They must be handled one after another, so the later ones wait
//! here, invisible as long as the one before them. When that is done the next is ready; when it is released, so are they,
//! and SQS keeps their order.

use std::collections::{HashMap, VecDeque};

use tokio::time::{Duration, Instant};

use crate::Delivery;

/// The group of a message that is ready or delivered.
#[derive(Debug)]
struct Group {
    /// Receipt of the first.
    first: String,
    visibility_deadline: Instant,
    followers: VecDeque<Delivery>,
}

/// See the file's head.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    ready: VecDeque<(Instant, Delivery)>,
    groups: HashMap<String, Group>,
    by_receipt: HashMap<String, String>,
}

impl Inbox {
    /// Adds one answer of SQS.
    pub(super) fn arrived(&mut self, batch: Vec<Delivery>, now: Instant) {
        let mut seen: Vec<String> = Vec::new();
        for delivery in batch {
            let name = delivery.group.clone();
            if seen.contains(&name) {
                if let Some(group) = self.groups.get_mut(&name) {
                    group.followers.push_back(delivery);
                }
                continue;
            }
            // SQS returns a group only when none of it is invisible: deliveries of it from before have ended.
            self.forget_group(&name);
            seen.push(name);
            self.make_ready(delivery, VecDeque::new(), now);
        }
    }

    /// Up to `max` ready messages that are still invisible to others; from now on they count as delivered.
    pub(super) fn take(&mut self, max: usize, now: Instant) -> Vec<Delivery> {
        let mut taken = Vec::new();
        while taken.len() < max {
            let Some((_, delivery)) = self.ready.pop_front() else {
                break;
            };
            if delivery.visibility_deadline > now {
                taken.push(delivery);
            } else {
                self.forget_group(&delivery.group);
            }
        }
        taken
    }

    /// Taken and not delivered after all: ready again, before all others, unless they are not ours any more.
    pub(super) fn put_back(&mut self, taken: Vec<Delivery>, now: Instant) {
        for mut delivery in taken.into_iter().rev() {
            let group = self.groups.get(&delivery.group);
            if let Some(group) = group.filter(|group| group.first == delivery.receipt.0) {
                delivery.visibility_deadline = group.visibility_deadline;
                self.ready.push_front((now, delivery));
            }
        }
    }

    /// This receipt, and those of the messages that wait behind it: they are extended and released together.
    pub(super) fn with_followers(&self, receipt: &str) -> Vec<String> {
        let group = self
            .by_receipt
            .get(receipt)
            .and_then(|name| self.groups.get(name));
        let followers = group.into_iter().flat_map(|group| &group.followers);
        std::iter::once(receipt.to_owned())
            .chain(followers.map(|follower| follower.receipt.0.clone()))
            .collect()
    }

    /// The message's visibility timeout was extended, and its followers' too, unless one of them could not be.
    pub(super) fn extended(&mut self, receipt: &str, deadline: Instant, with_followers: bool) {
        let Some(group) = self
            .by_receipt
            .get(receipt)
            .and_then(|name| self.groups.get_mut(name))
        else {
            return;
        };
        group.visibility_deadline = deadline;
        if with_followers {
            for follower in &mut group.followers {
                follower.visibility_deadline = deadline;
            }
        }
    }

    /// The message is done: the next of its group is ready. True when there is one.
    pub(super) fn done(&mut self, receipt: &str, now: Instant) -> bool {
        let Some(mut group) = self
            .by_receipt
            .remove(receipt)
            .and_then(|name| self.groups.remove(&name))
        else {
            return false;
        };
        while let Some(next) = group.followers.pop_front() {
            if next.visibility_deadline > now {
                self.make_ready(next, group.followers, now);
                return true;
            }
        }
        false
    }

    /// The message is not ours any more, nor are those behind it.
    pub(super) fn gone(&mut self, receipt: &str) {
        if let Some(name) = self.by_receipt.get(receipt).cloned() {
            self.forget_group(&name);
        }
    }

    /// Receipts of messages that have been ready for `grace` without a receive, with their followers, first ones last, so
    /// that a group can be received only when all of it is visible.
    pub(super) fn unclaimed(&mut self, grace: Duration, now: Instant) -> Vec<String> {
        let (old, young): (VecDeque<_>, VecDeque<_>) = self
            .ready
            .drain(..)
            .partition(|(at, _)| now.duration_since(*at) >= grace);
        self.ready = young;
        let mut receipts = Vec::new();
        for (_, delivery) in old {
            let mut of_group = self.with_followers(&delivery.receipt.0);
            of_group.reverse();
            self.forget_group(&delivery.group);
            receipts.extend(of_group);
        }
        receipts
    }

    /// Drops entries of messages whose visibility timeout ran out.
    pub(super) fn forget_expired(&mut self, now: Instant) {
        self.groups
            .retain(|_, group| group.visibility_deadline > now);
        let groups = &self.groups;
        self.by_receipt.retain(|_, name| groups.contains_key(name));
    }

    /// Whether a message is ready.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    fn make_ready(&mut self, delivery: Delivery, followers: VecDeque<Delivery>, now: Instant) {
        let (name, receipt) = (delivery.group.clone(), delivery.receipt.0.clone());
        self.by_receipt.insert(receipt.clone(), name.clone());
        self.groups.insert(
            name,
            Group {
                first: receipt,
                visibility_deadline: delivery.visibility_deadline,
                followers,
            },
        );
        self.ready.push_back((now, delivery));
    }

    fn forget_group(&mut self, name: &str) {
        if let Some(group) = self.groups.remove(name) {
            self.by_receipt.remove(&group.first);
            self.ready
                .retain(|(_, delivery)| delivery.receipt.0 != group.first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Receipt;

    fn delivery(group: &str, id: &str, now: Instant) -> Delivery {
        Delivery {
            message_id: id.into(),
            group: group.into(),
            dedup_id: id.into(),
            body: id.into(),
            attributes: Default::default(),
            sent_as: crate::FileVersion::new(group, 1, 1.into()),
            sent_millis: 0,
            receive_count: 1,
            received_at: now,
            visibility_deadline: now + Duration::from_secs(60),
            receipt: Receipt(id.into()),
        }
    }

    fn ids(taken: &[Delivery]) -> Vec<&str> {
        taken
            .iter()
            .map(|delivery| delivery.message_id.as_str())
            .collect()
    }

    fn inbox(now: Instant) -> Inbox {
        let mut inbox = Inbox::default();
        let batch = [("g", "1"), ("g", "2"), ("h", "3"), ("g", "4")]
            .map(|(group, id)| delivery(group, id, now));
        inbox.arrived(batch.into(), now);
        inbox
    }

    #[test]
    fn one_of_a_group_is_delivered_and_the_next_once_it_is_done() {
        let now = Instant::now();
        let mut inbox = inbox(now);
        assert_eq!(ids(&inbox.take(10, now)), ["1", "3"]);
        assert!(inbox.take(10, now).is_empty());
        assert!(inbox.done("1", now));
        assert_eq!(ids(&inbox.take(10, now)), ["2"]);
        assert!(!inbox.done("3", now));
        assert!(inbox.done("2", now));
        assert_eq!(ids(&inbox.take(10, now)), ["4"]);
    }

    #[test]
    fn messages_behind_the_first_of_a_group_go_with_it() {
        let now = Instant::now();
        let mut inbox = inbox(now);
        inbox.take(10, now);
        assert_eq!(inbox.with_followers("1"), ["1", "2", "4"]);
        inbox.gone("1");
        assert_eq!(inbox.with_followers("1"), ["1"]);
        assert!(!inbox.done("1", now));
    }

    #[test]
    fn messages_without_a_receive_are_released_last_first() {
        let now = Instant::now();
        let mut inbox = inbox(now);
        assert!(inbox.unclaimed(Duration::from_secs(1), now).is_empty());
        assert_eq!(
            inbox.unclaimed(Duration::from_secs(1), now + Duration::from_secs(1)),
            ["4", "2", "1", "3"]
        );
        assert!(inbox.take(10, now).is_empty());
    }

    #[test]
    fn a_message_whose_visibility_timeout_ended_is_not_delivered() {
        let now = Instant::now();
        let mut inbox = inbox(now);
        assert!(inbox.take(10, now + Duration::from_secs(61)).is_empty());
    }

    #[test]
    fn a_message_put_back_comes_first_unless_its_group_was_received_again() {
        let now = Instant::now();
        let mut inbox = inbox(now);
        let taken = inbox.take(1, now);
        inbox.put_back(taken, now);
        let both = inbox.take(10, now);
        assert_eq!(ids(&both), ["1", "3"]);
        inbox.arrived(vec![delivery("g", "1b", now)], now);
        inbox.put_back(both, now);
        assert_eq!(ids(&inbox.take(10, now)), ["3", "1b"]);
    }

    #[test]
    fn a_group_received_again_replaces_its_earlier_deliveries() {
        let now = Instant::now();
        let mut inbox = inbox(now);
        inbox.take(1, now);
        inbox.arrived(vec![delivery("g", "1b", now)], now);
        assert_eq!(inbox.with_followers("1"), ["1"]);
        assert_eq!(ids(&inbox.take(10, now)), ["3", "1b"]);
    }
}
