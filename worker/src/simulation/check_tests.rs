//! Each rule of the checker fails on a record that breaks it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use streampress_transport::sim::disk::DiskChange;
use streampress_transport::sim::{Node, StoredMessage};
use streampress_transport::{ATTR_REASON, Outgoing};

use super::check::{Rest, check};
use super::history::{HistoryStep, ServiceKind};
use super::record::{AnnouncedVersion, Event, RunRecord};
use crate::message::{Announcement, Digest, FileRef, VERSION};

const NAME: &str = "a.txt";

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn bytes(content: &'static str) -> Bytes {
    Bytes::from_static(content.as_bytes())
}

fn node(content: &'static str) -> Node {
    Node {
        inode: 1,
        bytes: bytes(content),
        modified: std::time::UNIX_EPOCH,
        changed: std::time::UNIX_EPOCH,
        is_readable: true,
    }
}

fn announced(seconds: u64, content: &str) -> AnnouncedVersion {
    AnnouncedVersion {
        at: at(seconds),
        name: NAME.to_owned(),
        hash: Digest::of(content.as_bytes()),
        version: format!("files:1:{seconds}"),
    }
}

fn visible(seconds: u64, before: Option<&'static str>, after: Option<&'static str>) -> Event {
    Event {
        at: at(seconds),
        by_pipeline: true,
        before: before.map(bytes),
        after: after.map(bytes),
    }
}

/// A dead letter of a content of the file, with a reason.
fn letter(content: &str, reason: &str) -> StoredMessage {
    let announcement = Announcement {
        version: VERSION,
        file: FileRef::with_content(NAME, content.as_bytes()),
        announced_millis: 0,
        observed: None,
        repeats: 0,
        traceparent: None,
    };
    StoredMessage {
        message_id: "1".to_owned(),
        message: Outgoing {
            group: "group".to_owned(),
            dedup_id: "id".to_owned(),
            body: announcement.to_json(),
            attributes: BTreeMap::from([(ATTR_REASON.to_owned(), reason.to_owned())]),
        },
        receives: 1,
    }
}

/// Two contents of a file, both announced and restored.
fn kept() -> (RunRecord, Rest) {
    let mut record = RunRecord::default();
    let contents = [(at(1), Some(bytes("one"))), (at(10), Some(bytes("two")))];
    record.source.insert(NAME.to_owned(), contents.into());
    record.announced = vec![announced(2, "one"), announced(11, "two")];
    let events = [
        visible(3, None, Some("one")),
        visible(12, Some("one"), Some("two")),
    ];
    record.destination.insert(NAME.to_owned(), events.into());
    let mut rest = Rest {
        is_done: true,
        is_scanned: true,
        keeps_until_restored: true,
        sends: 4,
        calls: 100,
        ..Rest::default()
    };
    rest.source.insert(NAME.to_owned(), node("two"));
    rest.destination.insert(NAME.to_owned(), node("two"));
    rest.counts.restoring.files = 2;
    (record, rest)
}

/// The rule that a change of the kept record breaks says this; none where it is still kept.
fn check_after(change: impl FnOnce(&mut RunRecord, &mut Rest), expected: Option<&str>) {
    let (mut record, mut rest) = kept();
    change(&mut record, &mut rest);
    let wrong = check(&record, &rest);
    match expected {
        None => assert_eq!(wrong, Vec::<String>::new()),
        Some(text) => {
            let is_said = wrong.iter().any(|said| said.contains(text));
            assert!(is_said, "{text:?} is not in {wrong:?}");
        }
    }
}

fn events(record: &mut RunRecord) -> &mut Vec<Event> {
    record.destination.entry(NAME.to_owned()).or_default()
}

/// The second content is neither at the source any more nor was it ever at the destination.
fn lose_second(record: &mut RunRecord, rest: &mut Rest) {
    let contents = record.source.entry(NAME.to_owned()).or_default();
    contents.push((at(20), None));
    events(record).pop();
    rest.source.clear();
    rest.destination.insert(NAME.to_owned(), node("one"));
    rest.counts.restoring.files = 1;
}

fn step(record: &mut RunRecord, seconds: u64, step: HistoryStep) {
    record.steps.push((at(seconds), step));
}

#[test]
fn a_promise_that_was_kept_is_not_called_broken() {
    check_after(|_, _| {}, None);
}

#[test]
fn what_has_no_end_is_found() {
    check_after(|_, rest| rest.is_done = false, Some("messages wait"));
    check_after(|_, rest| rest.sends = 1_000_000, Some("messages for"));
    check_after(|_, rest| rest.calls = 10_000_000, Some("calls for"));
    check_after(
        |_, rest| rest.appended_bytes = 100_000_000,
        Some("bytes on the stream for"),
    );
    let unconfirmed = |rest: &mut Rest| rest.unconfirmed.push("a record".to_owned());
    check_after(|_, rest| unconfirmed(rest), Some("is not known: a record"));
    check_after(lose_second, Some("neither restored nor superseded"));
}

#[test]
fn a_version_whose_source_is_gone_has_an_end_too() {
    let dead = |record: &mut RunRecord, rest: &mut Rest| {
        lose_second(record, rest);
        step(record, 20, HistoryStep::Delete { name: 0 });
        rest.dead_letters.push(letter("two", "SourceMissing"));
        rest.counts
            .packing
            .dead
            .insert("SourceMissing".parse().expect("a reason"), 1);
        rest.counts.dead_letters = 1;
    };
    check_after(dead, None);
    let purged = |record: &mut RunRecord, rest: &mut Rest, seconds| {
        lose_second(record, rest);
        let service = ServiceKind::FilesQueue;
        step(record, seconds, HistoryStep::Purge { service });
    };
    check_after(|record, rest| purged(record, rest, 15), None);
    // What was purged before it was announced is no excuse.
    check_after(
        |record, rest| purged(record, rest, 5),
        Some("neither restored nor superseded"),
    );
}

#[test]
fn a_superseded_version_needs_a_successor_that_was_restored() {
    let first_unseen = |record: &mut RunRecord, rest: &mut Rest| {
        *events(record) = vec![visible(12, None, Some("two"))];
        rest.counts.restoring.files = 1;
        rest.counts.packing.superseded = 1;
    };
    check_after(first_unseen, None);
    let uncounted = |record: &mut RunRecord, rest: &mut Rest| {
        first_unseen(record, rest);
        rest.counts.packing.superseded = 0;
    };
    check_after(uncounted, Some("counted as superseded: 1 > 0"));
    let none_restored = |record: &mut RunRecord, rest: &mut Rest| {
        lose_second(record, rest);
        events(record).clear();
        rest.destination.clear();
    };
    check_after(none_restored, Some("announced at 2s"));
}

#[test]
fn what_was_announced_lay_at_the_source() {
    let other = announced(13, "three");
    check_after(
        |record, _| record.announced.push(other),
        Some("that never lay at the source"),
    );
}

#[test]
fn a_dead_letter_needs_a_reason_that_the_history_explains() {
    let dead = |reason: &'static str, steps: Vec<HistoryStep>| {
        move |record: &mut RunRecord, rest: &mut Rest| {
            for it in steps {
                step(record, 5, it);
            }
            rest.dead_letters.push(letter("one", reason));
            rest.counts
                .packing
                .dead
                .insert("GaveUp".parse().expect("a reason"), 1);
            rest.counts.dead_letters = 1;
        }
    };
    let (name, seconds) = (0, 1000);
    let obstructed = HistoryStep::Obstruct { name, seconds };
    check_after(dead("", vec![]), Some("without a reason"));
    check_after(
        dead("BadName", vec![]),
        Some("nothing that happened explains"),
    );
    check_after(dead("BadName", vec![obstructed]), None);
    check_after(
        dead("GaveUp", vec![obstructed]),
        Some("nothing that happened explains"),
    );
    let of_another = HistoryStep::Protect { name: 1, seconds };
    check_after(
        dead("GaveUp", vec![of_another]),
        Some("nothing that happened explains"),
    );
    let uncounted = |record: &mut RunRecord, rest: &mut Rest| {
        dead("BadName", vec![obstructed])(record, rest);
        rest.counts.packing.dead.clear();
    };
    check_after(uncounted, Some("dead letters left, and counted: 1 > 0"));
    let unsent = |_: &mut RunRecord, rest: &mut Rest| {
        rest.counts
            .packing
            .dead
            .insert("GaveUp".parse().expect("a reason"), 1);
    };
    check_after(unsent, Some("dead letters counted, and sent: 1 > 0"));
}

#[test]
fn what_became_visible_is_whole_and_in_order() {
    let half = |record: &mut RunRecord, _: &mut Rest| {
        events(record).insert(0, visible(2, None, Some("on")));
    };
    check_after(half, Some("which never lay at the source"));
    let back = |record: &mut RunRecord, _: &mut Rest| {
        events(record).push(visible(13, Some("two"), Some("one")));
    };
    check_after(back, Some("after a newer content"));
}

#[test]
fn the_newest_content_and_what_others_wrote_are_there() {
    check_after(
        |_, rest| drop(rest.destination.insert(NAME.to_owned(), node("one"))),
        Some("the source has 3 bytes of \"two\""),
    );
    let foreign = |record: &mut RunRecord, _: &mut Rest| {
        events(record).push(Event {
            by_pipeline: false,
            ..visible(13, Some("two"), Some("theirs"))
        });
        events(record).push(visible(14, Some("theirs"), Some("two")));
    };
    check_after(foreign, Some("which others wrote, is gone"));
}

#[test]
fn a_source_is_taken_away_only_once_it_was_restored() {
    let removed = |record: &mut RunRecord, seconds| {
        record.renamed_or_deleted.push(DiskChange {
            at: at(seconds),
            process: "compressor".to_owned(),
            name: NAME.to_owned(),
            before: Some(node("two")),
            after: None,
        });
    };
    check_after(|record, _| removed(record, 12), None);
    check_after(
        |record, _| removed(record, 11),
        Some("before its content was at the destination"),
    );
    let missing = |record: &mut RunRecord, rest: &mut Rest| {
        removed(record, 12);
        rest.dead_letters.push(letter("two", "SourceMissing"));
    };
    check_after(missing, Some("called missing"));
    // Where it is put aside once it is packed, nothing says when.
    check_after(
        |record, rest| {
            removed(record, 11);
            rest.keeps_until_restored = false;
        },
        None,
    );
}

#[test]
fn what_was_put_aside_is_there() {
    let put_aside = |record: &mut RunRecord, rest: &mut Rest| {
        record.renamed_or_deleted.push(DiskChange {
            at: at(12),
            process: "compressor".to_owned(),
            name: NAME.to_owned(),
            before: Some(node("two")),
            after: None,
        });
        rest.source.remove(NAME);
        rest.renames = true;
    };
    let there = |name: &'static str| {
        move |record: &mut RunRecord, rest: &mut Rest| {
            put_aside(record, rest);
            rest.source.insert(name.to_owned(), node("two"));
        }
    };
    check_after(there("a-1_delete.txt"), None);
    check_after(there("b_delete.txt"), Some("under no other name there"));
    check_after(put_aside, Some("under no other name there"));
}

#[test]
fn what_was_restored_is_counted_once() {
    check_after(
        |_, rest| rest.counts.restoring.files = 3,
        Some("files counted as restored, and made visible: 3 > 2"),
    );
    check_after(
        |_, rest| rest.counts.restoring.files = 1,
        Some("files restored, and counted as restored: 2 > 1"),
    );
}
