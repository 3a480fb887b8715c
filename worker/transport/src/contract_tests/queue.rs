//! The contract of [`Queue`].
#![expect(clippy::unwrap_used, reason = "checks end by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{Implementation, PATIENCE, eventually};
use crate::{
    ATTR_DETAIL, ATTR_REASON, ATTR_VERSION, DeadLetterReason, Delivery, Failure, Outgoing, Queue,
    TransportError,
};

/// Longer than a check lasts.
const LONG: Duration = Duration::from_secs(3600);

/// Everything that a queue promises.
pub async fn all(implementation: &dyn Implementation) {
    futures::join!(
        a_group_comes_in_order_and_one_at_a_time(implementation),
        another_group_passes_one_in_flight(implementation),
        a_message_comes_back_after_its_visibility_timeout_with_a_new_receipt(implementation),
        the_old_receipt_is_stale(implementation),
        a_receipt_is_stale_as_soon_as_its_time_ran_out(implementation),
        extending_counts_from_now(implementation),
        a_released_message_comes_at_once_and_before_its_group(implementation),
        a_message_received_too_often_is_a_dead_letter_and_its_group_goes_on(implementation),
        a_dead_letter_says_why_and_is_there_once(implementation),
        all_dead_letters_of_a_group_can_be_received_at_once(implementation),
        the_same_deduplication_id_is_one_message_even_after_delete(implementation),
        a_waiting_receive_wakes_when_something_is_sent(implementation),
        an_empty_receive_waits_for_its_time(implementation),
        a_dropped_receive_loses_no_message(implementation),
        what_can_never_be_sent_is_refused_and_nothing_is_sent(implementation),
        bodies_and_attributes_come_back_as_they_were(implementation),
        depth_tells_visible_from_in_flight(implementation),
        the_dead_letters_have_no_dead_letters(implementation),
        versions_grow_in_the_order_sent_and_stay_over_redeliveries(implementation),
        a_dead_letter_keeps_the_version_of_its_message(implementation),
        a_sent_message_has_the_version_that_its_receiver_sees(implementation),
    );
}

/// A message whose deduplication id is its body.
pub fn message(group: &str, body: &str) -> Outgoing {
    Outgoing {
        group: group.into(),
        dedup_id: format!("dedup-{}", blake3::hash(body.as_bytes()).to_hex()),
        body: body.into(),
        attributes: BTreeMap::new(),
    }
}

/// The next message. It must come by itself, and not only once the receive has waited for its time.
pub async fn next(queue: &Arc<dyn Queue>) -> Delivery {
    let received = timeout(PATIENCE, queue.receive(1, LONG)).await;
    let mut received = received.expect("a message should have come").unwrap();
    received.pop().expect("a receive ended without a message")
}

async fn nothing_now(queue: &Arc<dyn Queue>) {
    let got = queue.receive(10, Duration::ZERO).await.unwrap();
    assert!(got.is_empty(), "nothing should come now: {got:?}");
}

fn assert_stale<T: std::fmt::Debug>(outcome: Result<T, TransportError>) {
    assert!(
        matches!(outcome, Err(TransportError::Stale)),
        "should be stale: {outcome:?}"
    );
}

/// Order within a group, and none of it while one is in flight.
pub async fn a_group_comes_in_order_and_one_at_a_time(implementation: &dyn Implementation) {
    let queue = implementation.queue(LONG, 5).await;
    let bodies = ["one", "two", "three"];
    queue
        .send(bodies.map(|b| message("g", b)).into())
        .await
        .unwrap();
    for body in bodies {
        let delivery = next(&queue).await;
        // More than one receive where an answer of the one before came late, on a busy machine: it was released.
        assert!(delivery.receive_count >= 1, "{delivery:?}");
        assert_eq!(delivery.body, body);
        nothing_now(&queue).await;
        queue.delete(&delivery.receipt).await.unwrap();
    }
    nothing_now(&queue).await;
}

/// Groups do not wait for each other.
pub async fn another_group_passes_one_in_flight(implementation: &dyn Implementation) {
    let queue = implementation.queue(LONG, 5).await;
    queue
        .send(vec![message("a", "a1"), message("a", "a2")])
        .await
        .unwrap();
    let held = next(&queue).await;
    queue.send(vec![message("b", "b1")]).await.unwrap();
    assert_eq!(
        (held.body.as_str(), next(&queue).await.body.as_str()),
        ("a1", "b1")
    );
}

/// The message stays the same, the count grows, the receipt is new.
pub async fn a_message_comes_back_after_its_visibility_timeout_with_a_new_receipt(
    implementation: &dyn Implementation,
) {
    let queue = implementation.queue(implementation.short(), 5).await;
    queue.send(vec![message("g", "again")]).await.unwrap();
    // The timeout begins at the server, after the request and before the answer.
    let requested = Instant::now();
    let first = next(&queue).await;
    let second = next(&queue).await;
    assert!(
        Instant::now() >= requested + implementation.short(),
        "came back before its visibility timeout"
    );
    assert_eq!(second.message_id, first.message_id);
    assert_eq!((first.receive_count, second.receive_count), (1, 2));
    assert_ne!(second.receipt, first.receipt);
}

/// For delete, extend and release.
pub async fn the_old_receipt_is_stale(implementation: &dyn Implementation) {
    let queue = implementation.queue(LONG, 5).await;
    queue.send(vec![message("g", "stale")]).await.unwrap();
    let old = next(&queue).await.receipt;
    // Only this delivery's time runs out, however long the rest takes.
    queue.extend(&old, implementation.short()).await.unwrap();
    let new = next(&queue).await.receipt;
    queue.extend(&new, LONG).await.unwrap();
    assert_stale(queue.delete(&old).await);
    assert_stale(queue.extend(&old, LONG).await);
    assert_stale(queue.release(&old).await);
    queue.delete(&new).await.unwrap();
    assert_stale(queue.extend(&new, LONG).await);
}

/// Also when the message has not been received again yet.
pub async fn a_receipt_is_stale_as_soon_as_its_time_ran_out(implementation: &dyn Implementation) {
    let queue = implementation.queue(LONG, 5).await;
    queue.send(vec![message("g", "late")]).await.unwrap();
    let late = next(&queue).await.receipt;
    queue.extend(&late, implementation.short()).await.unwrap();
    // The time must pass, since an earlier delete would succeed.
    tokio::time::sleep(implementation.short() * 2).await;
    assert_stale(queue.delete(&late).await);
    assert_eq!(next(&queue).await.receive_count, 2);
}

/// Neither sooner than requested nor added to what was left.
pub async fn extending_counts_from_now(implementation: &dyn Implementation) {
    let queue = implementation.queue(LONG, 5).await;
    queue.send(vec![message("g", "extended")]).await.unwrap();
    let delivery = next(&queue).await;
    let visibility_timeout = implementation.short() * 3;
    let deadline = Instant::now() + visibility_timeout;
    queue
        .extend(&delivery.receipt, visibility_timeout)
        .await
        .unwrap();
    assert_eq!(next(&queue).await.body, "extended");
    assert!(Instant::now() >= deadline, "came back before its deadline");
}

/// At once, and still ahead of what was sent after it.
pub async fn a_released_message_comes_at_once_and_before_its_group(
    implementation: &dyn Implementation,
) {
    let queue = implementation.queue(LONG, 5).await;
    queue
        .send(vec![message("g", "first"), message("g", "second")])
        .await
        .unwrap();
    let delivery = next(&queue).await;
    queue.release(&delivery.receipt).await.unwrap();
    assert_stale(queue.delete(&delivery.receipt).await);
    let again = next(&queue).await;
    assert_eq!((again.body.as_str(), again.receive_count), ("first", 2));
}

/// Twice received without being done, with a limit of two: the third time it is a dead letter.
pub async fn a_message_received_too_often_is_a_dead_letter_and_its_group_goes_on(
    implementation: &dyn Implementation,
) {
    let queue = implementation.queue(LONG, 2).await;
    let sent = ["poison", "behind", "last"];
    queue
        .send(sent.map(|b| message("g", b)).into())
        .await
        .unwrap();
    for count in 1..=2 {
        let delivery = next(&queue).await;
        assert_eq!(
            (delivery.body.as_str(), delivery.receive_count),
            ("poison", count)
        );
        // Only its time runs out: the others are deleted in theirs, however busy the machine is.
        queue
            .extend(&delivery.receipt, implementation.short())
            .await
            .unwrap();
    }
    for body in ["behind", "last"] {
        let delivery = next(&queue).await;
        assert_eq!(delivery.body, body);
        queue.delete(&delivery.receipt).await.unwrap();
    }
    let dead = next(&queue.dead_letters().unwrap()).await;
    assert_eq!((dead.body.as_str(), dead.original_group()), ("poison", "g"));
}

/// Reason, detail and what it carried before; gone from its queue; the next of its group comes.
pub async fn a_dead_letter_says_why_and_is_there_once(implementation: &dyn Implementation) {
    let queue = implementation.queue(LONG, 5).await;
    let mut bad = message("g", "bad");
    bad.attributes.insert("origin".into(), "test".into());
    queue.send(vec![bad, message("g", "good")]).await.unwrap();
    let delivery = next(&queue).await;
    queue
        .dead_letter(
            &delivery,
            &Failure::new(DeadLetterReason::HashMismatch, "the bytes differ"),
        )
        .await
        .unwrap();
    // The second time it may answer that the message is not ours any more, but must not make a second dead letter.
    let again = queue
        .dead_letter(
            &delivery,
            &Failure::new(DeadLetterReason::HashMismatch, "the bytes differ"),
        )
        .await;
    assert!(
        matches!(again, Ok(()) | Err(TransportError::Stale)),
        "{again:?}"
    );
    assert_eq!(next(&queue).await.body, "good");
    let dead_letters = queue.dead_letters().unwrap();
    let dead = next(&dead_letters).await;
    let attribute = |name: &str| dead.attributes.get(name).map(String::as_str);
    assert_eq!(
        (dead.body.as_str(), attribute("origin")),
        ("bad", Some("test"))
    );
    assert_eq!(attribute(ATTR_REASON), Some("HashMismatch"));
    assert_eq!(attribute(ATTR_DETAIL), Some("the bytes differ"));
    dead_letters.delete(&dead.receipt).await.unwrap();
    nothing_now(&dead_letters).await;
}

/// A redrive sees all of them, and each one's former group.
pub async fn all_dead_letters_of_a_group_can_be_received_at_once(
    implementation: &dyn Implementation,
) {
    let queue = implementation.queue(LONG, 5).await;
    let sent = ["bad 1", "bad 2", "bad 3"];
    queue
        .send(sent.map(|b| message("g", b)).into())
        .await
        .unwrap();
    for _ in sent {
        let delivery = next(&queue).await;
        queue
            .dead_letter(
                &delivery,
                &Failure::new(DeadLetterReason::GaveUp, "because"),
            )
            .await
            .unwrap();
    }
    let dead_letters = queue.dead_letters().unwrap();
    let mut letters = Vec::new();
    while letters.len() < sent.len() {
        let got = dead_letters.receive(10, PATIENCE).await.unwrap();
        assert!(!got.is_empty(), "only these can be seen: {letters:?}");
        letters.extend(got);
    }
    assert!(letters.iter().all(|letter| letter.original_group() == "g"));
    let mut bodies: Vec<&str> = letters.iter().map(|letter| letter.body.as_str()).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, sent);
}

/// Within five minutes, also when the first has been done and deleted meanwhile.
pub async fn the_same_deduplication_id_is_one_message_even_after_delete(
    implementation: &dyn Implementation,
) {
    let queue = implementation.queue(LONG, 5).await;
    let twice = message("g", "twice");
    queue
        .send(vec![twice.clone(), twice.clone()])
        .await
        .unwrap();
    let delivery = next(&queue).await;
    queue.delete(&delivery.receipt).await.unwrap();
    queue.send(vec![twice]).await.unwrap();
    nothing_now(&queue).await;
    queue.send(vec![message("g", "other")]).await.unwrap();
    assert_eq!(next(&queue).await.body, "other");
}

/// Long before its wait is over.
pub async fn a_waiting_receive_wakes_when_something_is_sent(implementation: &dyn Implementation) {
    let queue = implementation.queue(LONG, 5).await;
    let (woken, ()) = futures::join!(next(&queue), async {
        // So that the receive most likely waits by then; it must wake in either order.
        tokio::time::sleep(implementation.short()).await;
        queue.send(vec![message("g", "wake")]).await.unwrap();
    });
    assert_eq!(woken.body, "wake");
}

/// No sooner, and not for ever.
pub async fn an_empty_receive_waits_for_its_time(implementation: &dyn Implementation) {
    let queue = implementation.queue(LONG, 5).await;
    let deadline = Instant::now() + implementation.short();
    let received = timeout(PATIENCE, queue.receive(10, implementation.short())).await;
    assert!(received.expect("waits for ever").unwrap().is_empty());
    assert!(Instant::now() >= deadline, "did not wait for its time");
}

/// The next receive gets the message.
pub async fn a_dropped_receive_loses_no_message(implementation: &dyn Implementation) {
    let queue = implementation.queue(LONG, 50).await;
    for round in 0..10 {
        let waiting = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.receive(1, LONG).await }
        });
        let kept = message("g", &format!("kept {round}"));
        queue.send(vec![kept.clone()]).await.unwrap();
        waiting.abort();
        let delivery = match waiting.await {
            Ok(got) => got.unwrap().pop().expect("a message should have come"),
            Err(_dropped) => next(&queue).await,
        };
        assert_eq!(delivery.body, kept.body);
        queue.delete(&delivery.receipt).await.unwrap();
    }
}

/// Before anything of the call is sent.
pub async fn what_can_never_be_sent_is_refused_and_nothing_is_sent(
    implementation: &dyn Implementation,
) {
    let queue = implementation.queue(LONG, 5).await;
    let spaced = message("two words", "body");
    let mut large = message("g", "large");
    large.body = "x".repeat(Outgoing::MAX_BYTES + 1);
    let mut control = message("g", "control");
    control.body = "a\u{0}b".into();
    for bad in [spaced, large, control, message("g", "")] {
        let outcome = queue.send(vec![message("g", "good"), bad]).await;
        assert!(
            matches!(outcome, Err(TransportError::Invalid(_))),
            "{outcome:?}"
        );
    }
    nothing_now(&queue).await;
    for max in [0, 11] {
        let outcome = queue.receive(max, Duration::ZERO).await;
        assert!(
            matches!(outcome, Err(TransportError::Invalid(_))),
            "{outcome:?}"
        );
    }
}

/// The largest body, unicode, quotes, and as many attributes as fit.
pub async fn bodies_and_attributes_come_back_as_they_were(implementation: &dyn Implementation) {
    let queue = implementation.queue(LONG, 5).await;
    let mut odd = message("g!~", "tab\t newline\n \"quoted\" <&> \u{fffd} 🦀");
    for number in 0..Outgoing::MAX_ATTRIBUTES {
        odd.attributes
            .insert(format!("name-{number}"), format!("wert ü {number}"));
    }
    let large = message("large", &"ü".repeat(Outgoing::MAX_BYTES / 2));
    for sent in [odd, large] {
        queue.send(vec![sent.clone()]).await.unwrap();
        let got = next(&queue).await;
        assert!(got.body == sent.body, "the body changed");
        assert_eq!((got.group, got.attributes), (sent.group, sent.attributes));
        assert_eq!(got.dedup_id, sent.dedup_id);
    }
}

/// Counts may be late, but not wrong for long.
pub async fn depth_tells_visible_from_in_flight(implementation: &dyn Implementation) {
    let queue = implementation.queue(LONG, 5).await;
    let sent = ["d1", "d2", "d3"];
    queue
        .send(sent.map(|b| message(b, b)).into())
        .await
        .unwrap();
    let held = next(&queue).await;
    eventually("two are visible and one is in flight", || async {
        let depth = queue.depth().await.unwrap();
        (depth.visible, depth.in_flight, depth.total()) == (2, 1, 3)
    })
    .await;
    queue.delete(&held.receipt).await.unwrap();
    eventually("two are left", || async {
        queue.depth().await.unwrap().total() == 2
    })
    .await;
}

/// Of one group and of several, and the same at each delivery.
pub async fn versions_grow_in_the_order_sent_and_stay_over_redeliveries(
    implementation: &dyn Implementation,
) {
    let queue = implementation.queue(LONG, 5).await;
    let mut versions = Vec::new();
    for (group, body) in [("g", "v1"), ("h", "v2"), ("g", "v3")] {
        queue.send(vec![message(group, body)]).await.unwrap();
        let first = next(&queue).await;
        queue.release(&first.receipt).await.unwrap();
        let second = next(&queue).await;
        assert_eq!(first.version(), second.version());
        assert_eq!(first.sent_millis, second.sent_millis);
        queue.delete(&second.receipt).await.unwrap();
        versions.push(second.version());
    }
    assert!(versions.is_sorted(), "{versions:?}");
    assert!(versions[0] < versions[2] && versions[0].epoch() > 0);
}

/// Its own place in the dead-letter queue is another; and a version that the message carried is kept too.
pub async fn a_dead_letter_keeps_the_version_of_its_message(implementation: &dyn Implementation) {
    let queue = implementation.queue(LONG, 5).await;
    let carried = "files:7:11";
    let mut repeat = message("repeated", "repeat");
    repeat
        .attributes
        .insert(ATTR_VERSION.into(), carried.to_owned());
    for sent in [message("first", "new"), repeat] {
        queue.send(vec![sent.clone()]).await.unwrap();
        let delivery = next(&queue).await;
        assert_eq!(
            delivery.version().to_string() == carried,
            sent.attributes.contains_key(ATTR_VERSION)
        );
        queue
            .dead_letter(
                &delivery,
                &Failure::new(DeadLetterReason::GaveUp, "because"),
            )
            .await
            .unwrap();
        let dead_letters = queue.dead_letters().unwrap();
        let dead = next(&dead_letters).await;
        assert_eq!(dead.version(), delivery.version());
        dead_letters.delete(&dead.receipt).await.unwrap();
    }
}

/// The queue is the same one meanwhile.
pub async fn a_sent_message_has_the_version_that_its_receiver_sees(
    implementation: &dyn Implementation,
) {
    let queue = implementation.queue(LONG, 5).await;
    let incarnation = queue.incarnation().await.unwrap();
    // More than fit one request.
    let sent: Vec<_> = (0..12)
        .map(|n| message(&format!("g{n}"), &format!("body {n}")))
        .collect();
    let versions = queue.send_numbered(sent.clone()).await.unwrap();
    let told = sent.iter().map(|message| &*message.body).zip(versions);
    let mut told: BTreeMap<_, _> = told.collect();
    for _ in 0..sent.len() {
        let delivery = next(&queue).await;
        let version = told.remove(&*delivery.body).unwrap();
        assert_eq!(version, Some(delivery.version()));
        queue.delete(&delivery.receipt).await.unwrap();
    }
    assert_eq!(queue.incarnation().await.unwrap(), incarnation);
}

/// Nor can a message become a dead letter there.
pub async fn the_dead_letters_have_no_dead_letters(implementation: &dyn Implementation) {
    let queue = implementation.queue(LONG, 5).await;
    let dead_letters = queue.dead_letters().unwrap();
    assert!(dead_letters.dead_letters().is_none());
    dead_letters.send(vec![message("g", "dead")]).await.unwrap();
    let delivery = next(&dead_letters).await;
    assert!(
        dead_letters
            .dead_letter(
                &delivery,
                &Failure::new(DeadLetterReason::GaveUp, "because")
            )
            .await
            .is_err()
    );
    dead_letters.delete(&delivery.receipt).await.unwrap();
}
