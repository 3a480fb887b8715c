//! The queue against a model that is too simple to be wrong: a list.

use std::time::Duration;

use proptest::prelude::*;

use super::memory_folder;
use crate::contract_tests::eventually;
use crate::contract_tests::queue::message;
use crate::local::{Local, LocalOptions};
use crate::{ATTR_REASON, DeadLetterReason, Delivery, Failure, TransportError};

const MAX_RECEIVES: u32 = 2;

#[derive(Debug, Clone)]
enum ModelStep {
    Send {
        group: u8,
        body: u8,
    },
    Receive {
        max: usize,
    },
    Delete(prop::sample::Index),
    Release(prop::sample::Index),
    Expire(prop::sample::Index),
    DeadLetter(prop::sample::Index),
    /// The process ends and another begins.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<ModelStep>> {
    let index = any::<prop::sample::Index>;
    let step = prop_oneof![
        5 => (0..3u8, 0..30u8).prop_map(|(group, body)| ModelStep::Send { group, body }),
        5 => (1..4usize).prop_map(|max| ModelStep::Receive { max }),
        2 => index().prop_map(ModelStep::Delete),
        2 => index().prop_map(ModelStep::Release),
        3 => index().prop_map(ModelStep::Expire),
        1 => index().prop_map(ModelStep::DeadLetter),
        1 => Just(ModelStep::Restart),
    ];
    prop::collection::vec(step, 1..40)
}

#[derive(Debug, Clone)]
struct ModelEntry {
    group: String,
    body: String,
    receives: u32,
    bad_ends: u32,
    held: bool,
}

#[derive(Debug, Default)]
struct Model {
    entries: Vec<ModelEntry>,
    dead: Vec<(String, &'static str)>,
    ever_sent: Vec<String>,
}

impl Model {
    fn send(&mut self, group: &str, body: &str) {
        if self.ever_sent.iter().any(|sent| sent == body) {
            return;
        }
        self.ever_sent.push(body.into());
        self.entries.push(ModelEntry {
            group: group.into(),
            body: body.into(),
            receives: 0,
            bad_ends: 0,
            held: false,
        });
    }

    /// The bodies and counts that a receive must answer.
    fn receive(&mut self, max: usize) -> Vec<(String, u32)> {
        let mut got = Vec::new();
        let mut busy: Vec<String> = Vec::new();
        let mut at = 0;
        while at < self.entries.len() && got.len() < max {
            let entry = &mut self.entries[at];
            let first_of_group = !busy.contains(&entry.group);
            if first_of_group && !entry.held && entry.bad_ends >= MAX_RECEIVES {
                let dead = self.entries.remove(at);
                self.dead.push((dead.body, "ReceivedTooOften"));
                // What came after it in its group may have been next all along.
                at = 0;
                busy.clear();
                continue;
            }
            busy.push(entry.group.clone());
            if first_of_group && !entry.held {
                entry.held = true;
                entry.receives += 1;
                got.push((entry.body.clone(), entry.receives));
            }
            at += 1;
        }
        got
    }

    fn held(&mut self, body: &str) -> &mut ModelEntry {
        let entry = self.entries.iter_mut().find(|e| e.body == body).unwrap();
        assert!(entry.held);
        entry
    }

    fn remove(&mut self, body: &str) {
        self.held(body);
        self.entries.retain(|entry| entry.body != body);
    }

    fn release(&mut self, body: &str, badly: bool) {
        let entry = self.held(body);
        entry.held = false;
        entry.bad_ends += u32::from(badly);
    }
}

async fn play(steps: Vec<ModelStep>) {
    let dir = memory_folder();
    let open = || {
        let options = LocalOptions {
            max_receive_count: MAX_RECEIVES,
            ..LocalOptions::default()
        };
        Local::open(dir.path(), options).unwrap()
    };
    let mut local = open();
    let mut queue = local.files_queue();
    let mut model = Model::default();
    let mut in_flight: Vec<Delivery> = Vec::new();
    for step in steps {
        let mut taken = |index: prop::sample::Index| match in_flight.len() {
            0 => None,
            count => Some(in_flight.swap_remove(index.index(count))),
        };
        match step {
            ModelStep::Send { group, body } => {
                let (group, body) = (format!("g{group}"), format!("b{body}"));
                queue.send(vec![message(&group, &body)]).await.unwrap();
                model.send(&group, &body);
            }
            ModelStep::Receive { max } => {
                let mut got = queue.receive(max, Duration::ZERO).await.unwrap();
                let mut seen: Vec<_> = got
                    .iter()
                    .map(|d| (d.body.clone(), d.receive_count))
                    .collect();
                let mut expected = model.receive(max);
                seen.sort();
                expected.sort();
                assert_eq!(seen, expected);
                in_flight.append(&mut got);
            }
            ModelStep::Delete(index) => {
                if let Some(delivery) = taken(index) {
                    queue.delete(&delivery.receipt).await.unwrap();
                    model.remove(&delivery.body);
                    assert!(matches!(
                        queue.delete(&delivery.receipt).await,
                        Err(TransportError::Stale)
                    ));
                }
            }
            ModelStep::Release(index) => {
                if let Some(delivery) = taken(index) {
                    queue.release(&delivery.receipt).await.unwrap();
                    model.release(&delivery.body, false);
                }
            }
            ModelStep::Expire(index) => {
                if let Some(delivery) = taken(index) {
                    queue
                        .extend(&delivery.receipt, Duration::ZERO)
                        .await
                        .unwrap();
                    model.release(&delivery.body, true);
                }
            }
            ModelStep::DeadLetter(index) => {
                if let Some(delivery) = taken(index) {
                    queue
                        .dead_letter(
                            &delivery,
                            &Failure::new(DeadLetterReason::BadName, "it was bad"),
                        )
                        .await
                        .unwrap();
                    model.remove(&delivery.body);
                    model.dead.push((delivery.body, "BadName"));
                }
            }
            ModelStep::Restart => {
                drop((queue, local));
                // Ended once its session file is gone.
                let sessions = dir.path().join("sessions");
                eventually("the session has ended", async || {
                    std::fs::read_dir(&sessions).unwrap().count() <= 1
                })
                .await;
                local = open();
                queue = local.files_queue();
                for delivery in in_flight.drain(..) {
                    model.release(&delivery.body, true);
                }
            }
        }
        let depth = queue.depth().await.unwrap();
        assert_eq!(depth.in_flight, in_flight.len() as u64);
        assert_eq!(depth.total(), model.entries.len() as u64);
    }
    let dead_letters = queue.dead_letters().unwrap();
    let mut dead = Vec::new();
    loop {
        let got = dead_letters.receive(10, Duration::ZERO).await.unwrap();
        if got.is_empty() {
            break;
        }
        for letter in got {
            dead_letters.delete(&letter.receipt).await.unwrap();
            dead.push((letter.body, letter.attributes[ATTR_REASON].clone()));
        }
    }
    dead.sort();
    let mut expected: Vec<_> = model
        .dead
        .iter()
        .map(|(body, why)| (body.clone(), (*why).to_owned()))
        .collect();
    expected.sort();
    assert_eq!(dead, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_queue_does_what_a_list_would_do(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(steps));
    }
}
